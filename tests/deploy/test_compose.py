"""compose.yaml, read by the library that Docker Compose reads it with. No container is started."""

import json
import pathlib
import re
import tempfile
import unittest

from tools import ROOT, check_configuration, run, tool

GIVEN = {"BPMGATE_ISSUER": "https://login.example.com", "BPMGATE_AUDIENCE": "bpm"}


def load(variables):
    """The library's own program knows no variables but by their defaults, so the given ones are put in here."""
    text = (ROOT / "compose.yaml").read_text()
    for name, value in variables.items():
        text, count = re.subn(rf"\$\{{{name}:[^}}]*\}}", value, text)
        assert count == 1, name
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "compose.yaml"
        file.write_text(text)
        return run(tool("compose-spec"), "-format", "json", file, cwd=folder)


class Compose(unittest.TestCase):
    def setUp(self):
        code, text, said = load(GIVEN)
        self.assertEqual(code, 0, said)
        self.services, self.networks = (json.loads(text)[name] for name in ("services", "networks"))

    def test_what_must_be_said_is_asked_for(self):
        code, _, said = load({})
        self.assertNotEqual(code, 0)
        self.assertIn("BPMGATE_ISSUER", said)
        self.assertIn("BPMGATE_AUDIENCE", said)

    def test_the_engine_is_on_a_network_of_its_own_with_no_way_in_but_the_gateway(self):
        engine, gateway = self.services["engine"], self.services["gateway"]
        self.assertEqual(list(engine["networks"]), ["engine"])
        self.assertTrue(self.networks["engine"]["internal"])
        self.assertNotIn("ports", engine)
        self.assertEqual(set(gateway["networks"]), {"engine", "outside"})
        members = [name for name, service in self.services.items() if "engine" in service["networks"]]
        self.assertEqual(set(members), {"engine", "gateway"})

    def test_the_gateway_is_reached_from_this_machine_alone(self):
        (port,) = self.services["gateway"]["ports"]
        self.assertEqual((port["host_ip"], port["published"], port["target"]), ("127.0.0.1", "8000", 8000))

    def test_the_gateway_takes_its_configuration(self):
        environment = self.services["gateway"]["environment"]
        code, effective, said = check_configuration([], environment, cwd="/")
        self.assertEqual(code, 0, said)
        # One warning: there is no TLS to the engine, nor on the way there anybody else.
        self.assertNotIn("error", said)
        self.assertIn('url = "http://engine:8080/engine-rest"', effective)


if __name__ == "__main__":
    unittest.main()
