"""Compares what `cargo bench --bench instructions` counted with benches/instructions.json.

More than 3 % over it fails with the name of the path; `--bless` writes what was counted.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BASELINE = ROOT / "benches/instructions.json"
ALLOWED = 1.03


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
    if "--bless" in sys.argv:
        BASELINE.write_text(json.dumps(found, indent=2) + "\n")
    before = json.loads(BASELINE.read_text())
    worse = []
    for path, count in found.items():
        known = before.get(path)
        ratio = count / known if known else float("nan")
        print(f"{path:45} {count:>12,} {ratio:7.3f} x")
        if not ratio <= ALLOWED:
            worse.append(path)
    if worse:
        raise SystemExit(f"error: more than 3 % over benches/instructions.json: {', '.join(worse)}")


main()
