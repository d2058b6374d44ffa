"""The systemd unit: systemd takes it, it is closed as far as it can be, and its commands are the binary's."""

import os
import pathlib
import re
import shutil
import tempfile
import unittest

from tools import BPMGATE, ROOT, check_configuration, run, tool

UNIT = ROOT / "deploy" / "systemd" / "bpmgate.service"
# Of 10; what remains is the network, which a gateway needs.
EXPOSURE = 15


def values(key):
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)


# The continuous integration must not pass without what it is there for.
needs_systemd = unittest.skipUnless(shutil.which("systemd-analyze") or os.environ.get("CI") == "true", "there is no systemd")


class Unit(unittest.TestCase):
    @needs_systemd
    def test_systemd_takes_it(self):
        with tempfile.TemporaryDirectory() as folder:
            # A unit's programs must be there. Its page of the manual is not.
            unit = pathlib.Path(folder) / "bpmgate.service"
            unit.write_text(UNIT.read_text().replace("/usr/local/bin/bpmgate", str(BPMGATE)))
            code, said, errors = run(tool("systemd-analyze"), "verify", "--man=no", unit)
        self.assertEqual((code, said + errors), (0, ""))

    @needs_systemd
    def test_it_is_closed(self):
        code, said, errors = run(tool("systemd-analyze"), "security", "--offline=yes", f"--threshold={EXPOSURE}", UNIT)
        self.assertEqual(code, 0, said[-200:] + errors)

    def test_the_binary_takes_what_it_is_started_with(self):
        (start,) = values("ExecStart")
        program, command, *arguments = start.split()
        self.assertEqual((program, command), ("/usr/local/bin/bpmgate", "serve"))
        credentials = dict(each.split(":") for each in values("LoadCredential"))
        self.assertEqual(set(credentials.values()), {f"/etc/bpmgate/{name}" for name in credentials})
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "config.toml").write_text('[[issuers]]\nissuer = "https://i.example"\naudience = ["a"]\n')
            (folder / "engine-password").write_text("hunter2\n")
            self.assertEqual({each.name for each in folder.iterdir()}, set(credentials))
            arguments = [each.replace("${CREDENTIALS_DIRECTORY}", str(folder)) for each in arguments]
            environment = dict(each.replace("%d", str(folder)).split("=", 1) for each in values("Environment"))
            code, effective, said = check_configuration(arguments, environment)
        self.assertEqual((code, said), (0, ""))
        self.assertIn('log_format = "json"', effective)


if __name__ == "__main__":
    unittest.main()
