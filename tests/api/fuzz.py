"""Lets a schema-driven fuzzer loose on the workflow API of a running gateway.

Starts `bpmgate demo` for its issuer and its engine, and a second gateway before them in which Alice is an operator,
so that no operation is only refused. Runs schemathesis, which must stand beside this Python, against both.

Usage: [ENGINE=http://127.0.0.1:8080/engine-rest] fuzz.py BPMGATE [EXAMPLES [SEED]]
"""

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKS = ",".join([
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
])


def start(folder, name, command, ready, environment=None):
    """Starts a program and waits until its output fits `ready`."""
    log = Path(folder, name)
    process = subprocess.Popen(
        command, stdout=log.open("w"), stderr=subprocess.STDOUT, env=environment, cwd=folder
    )
    for _ in range(300):
        found = re.search(ready, log.read_text(), re.DOTALL)
        if found:
            return process, found
        if process.poll() is not None:
            break
        time.sleep(0.1)
    process.kill()
    sys.exit(f"error: {name} did not start:\n{log.read_text()}")


def claims(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def main():
    bpmgate = str(Path(sys.argv[1]).resolve())
    examples = sys.argv[2] if len(sys.argv) > 2 else "30"
    seed = sys.argv[3] if len(sys.argv) > 3 else "1"
    engine = os.environ.get("ENGINE")
    schemathesis = str(Path(sys.executable).with_name("schemathesis"))
    with tempfile.TemporaryDirectory() as folder:
        demo, told = start(
            folder,
            "demo",
            [bpmgate, "demo"] + (["--engine", engine] if engine else []),
            r"gateway +(\S+)\n +engine +(\S+)\n.*ALICE='Authorization: Bearer (\S+)'",
        )
        processes = [demo]
        try:
            gateway, engine, token = told.groups()
            issuer = claims(token)
            operator, told = start(
                folder,
                "operator",
                [bpmgate, "serve"],
                r"listening address=(\S+)",
                os.environ
                | {
                    "NO_COLOR": "1",
                    "BPMGATE__SERVER__LISTEN": "127.0.0.1:0",
                    "BPMGATE__ADMIN__LISTEN": "",
                    "BPMGATE__ENGINE__URL": engine,
                    "BPMGATE__ISSUERS__0__ISSUER": issuer["iss"],
                    "BPMGATE__ISSUERS__0__AUDIENCE": issuer["aud"],
                    "BPMGATE__ACCESS__DEFAULT": "operator",
                },
            )
            processes.append(operator)
            bearer = f"Authorization: Bearer {token}"
            # Something to find by listing.
            for _ in range(3):
                subprocess.run(
                    ["curl", "-sf", "-o", os.devnull, "-X", "POST", "-H", bearer]
                    + [f"{gateway}/api/processes/approval/start"],
                    check=True,
                )
            for name, url in [("user", gateway), ("operator", f"http://{told[1]}")]:
                print(f"schemathesis as {name}", flush=True)
                subprocess.run(
                    [schemathesis, "run", f"{url}/openapi.json", "-u", url, "-H", bearer]
                    + ["--checks", CHECKS, "-n", examples, "--seed", seed, "--continue-on-failure"]
                    + ["--warnings", "off"],
                    check=True,
                    cwd=folder,
                )
        except subprocess.CalledProcessError as error:
            sys.exit(error.returncode or 1)
        finally:
            for process in processes:
                process.kill()


main()
