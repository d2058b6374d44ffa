"""Where things are, and the programs that the tests need. `make test-deploy` runs them; none installs anything."""

import os
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / "target" / "tools"
BPMGATE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "bpmgate"


def tool(name):
    """A program of target/tools, else of the machine."""
    own = TOOLS / name
    found = str(own) if own.exists() else shutil.which(name)
    assert found, f"{name} is missing: `make test-deploy` says where it comes from"
    return found


def run(*command, **how):
    """A program's exit code, and what it said on both outputs."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=1800, **how)
    return done.returncode, done.stdout, done.stderr


def check_configuration(arguments, environment, **how):
    """What `bpmgate check` says, with nothing else in the environment."""
    return run(BPMGATE, "check", *arguments, env=environment, **how)
