"""Compares what `cargo bench --bench instructions` counted with benches/instructions.json.

More than 3 % over it fails with the name of the path; `--bless` writes what was counted. Counts of another compiler, or
of a processor with other vectors, are shown and not judged: they say nothing of the code.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BASELINE = ROOT / "benches/instructions.json"
ALLOWED = 1.03


def made_by():
    """What the counts depend on beside the code."""
    compiler = subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True)
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    return {"compiler": compiler.stdout.strip(), "avx2": "avx2" in flags.split()}


def counted():
    """Instructions of each path, over all threads."""
    found = {}
    for log in sorted(ROOT.glob("target/gungraun/bpmgate/instructions/*/request.*/summary.json")):
        summary = json.loads(log.read_text())
        found[summary["id"]] = instructions(summary)
    return found


def instructions(summary):
    for profile in summary["profiles"]:
        counts = profile["data"]["total"]["metrics"].get("Ir")
        if counts:
            values = counts["values"]
            return values["new"] if isinstance(values, dict) else values
    raise SystemExit("error: no counts in the summary")


def main():
    found = counted()
    if not found:
        raise SystemExit("error: nothing was counted")
    here = {"made_by": made_by(), "instructions": found}
    if "--bless" in sys.argv:
        BASELINE.write_text(json.dumps(here, indent=2) + "\n")
    baseline = json.loads(BASELINE.read_text())
    before = baseline["instructions"]
    worse = []
    for path, count in found.items():
        known = before.get(path)
        ratio = count / known if known else float("nan")
        print(f"{path:45} {count:>12,} {ratio:7.3f} x")
        if not ratio <= ALLOWED:
            worse.append(path)
    missing = sorted(before.keys() - found.keys())
    if missing:
        raise SystemExit(f"error: not counted: {', '.join(missing)}")
    if baseline["made_by"] != here["made_by"]:
        print(f"warning: not judged, as the baseline is of {baseline['made_by']}", file=sys.stderr)
    elif worse:
        raise SystemExit(f"error: more than 3 % over benches/instructions.json: {', '.join(worse)}")


main()
