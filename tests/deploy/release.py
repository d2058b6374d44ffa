"""Size, libraries, start time and idle memory of target/release/bpmgate: the numbers of docs/install.md and docs/operations.md."""

import pathlib
import re
import statistics
import subprocess
import time

from tools import BPMGATE, run

BINARY = BPMGATE.parents[1] / "release" / "bpmgate"
STARTS = 20
ENVIRONMENT = {
    "BPMGATE__SERVER__LISTEN": "127.0.0.1:0",
    "BPMGATE__ADMIN__LISTEN": "127.0.0.1:0",
    "BPMGATE__ISSUERS__0__ISSUER": "https://127.0.0.1:1",
    "BPMGATE__ISSUERS__0__AUDIENCE": "bpm",
}


def start():
    """Milliseconds until it listens, and its resident memory a moment later."""
    began = time.perf_counter()
    process = subprocess.Popen([BINARY], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        while "listening" not in (line := process.stderr.readline()):
            assert line, "it does not start"
        took = (time.perf_counter() - began) * 1000
        time.sleep(0.2)
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        return took, int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1))
    finally:
        process.terminate()
        process.communicate(timeout=60)


took, memory = zip(*(start() for _ in range(STARTS)))
libraries = re.findall(r"\(NEEDED\).*\[(.+)\]", run("readelf", "--dynamic", BINARY)[1])
print(f"size       {BINARY.stat().st_size / 1e6:.1f} MB")
print(f"links      {', '.join(libraries)}")
print(f"listens    after {statistics.median(took):.0f} ms, median of {STARTS} starts ({min(took):.0f} to {max(took):.0f})")
print(f"memory     {statistics.median(memory) / 1024:.0f} MiB, idle")
