"""The alert rules: Prometheus takes them, and each fires where it must and is quiet where it must not. And the metrics are well formed.

That the rules name metrics which are there is what tests/deploy.rs says.
"""

import contextlib
import http.client
import json
import pathlib
import subprocess
import tempfile
import unittest

import yaml

from tools import BPMGATE, ROOT, run, tool

RULES = ROOT / "deploy" / "prometheus" / "alerts.yaml"
TESTS = ROOT / "tests" / "deploy" / "alerts_test.yaml"


class Alerts(unittest.TestCase):
    def test_prometheus_takes_the_rules(self):
        code, said, errors = run(tool("promtool"), "check", "rules", RULES)
        self.assertEqual(code, 0, said + errors)

    def test_they_fire_and_are_quiet_as_their_tests_say(self):
        code, said, errors = run(tool("promtool"), "test", "rules", TESTS)
        self.assertEqual(code, 0, said + errors)

    def test_each_alert_is_seen_firing_and_quiet(self):
        rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
        names = {rule["alert"] for rule in rules}
        asked = [ask for test in yaml.safe_load(TESTS.read_text())["tests"] for ask in test["alert_rule_test"]]
        self.assertEqual({ask["alertname"] for ask in asked if ask.get("exp_alerts")}, names)
        self.assertEqual({ask["alertname"] for ask in asked if not ask.get("exp_alerts")}, names)

    def test_each_alert_says_how_bad_it_is_and_where_to_read_on(self):
        for group in yaml.safe_load(RULES.read_text())["groups"]:
            for rule in group["rules"]:
                self.assertIn(rule["labels"]["severity"], ("critical", "warning"), rule)
                file, _, anchor = rule["annotations"]["runbook"].partition("#")
                self.assertIn(f"\n## {anchor.capitalize()}\n", (ROOT / file).read_text(), rule)


CONFIG = """
engine.url = "http://127.0.0.1:1/engine-rest"
engine.retry.attempts = 1
server.listen = "127.0.0.1:0"
admin.listen = "127.0.0.1:0"
telemetry.log_format = "json"
[[issuers]]
issuer = "http://127.0.0.1:1"
audience = ["a"]
[[rate_limits]]
name = "addresses"
by = "client"
requests = 1
per = "1h"
"""


def get(address, path):
    """Status and text of an answer."""
    with contextlib.closing(http.client.HTTPConnection(address, timeout=60)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


class Metrics(unittest.TestCase):
    def test_promtool_finds_nothing_wrong_with_what_a_gateway_shows(self):
        with tempfile.TemporaryDirectory() as folder:
            config = pathlib.Path(folder) / "config.toml"
            config.write_text(CONFIG)
            # What is no JSON are warnings of the configuration.
            gateway = subprocess.Popen([BPMGATE, "serve", "--config", config], stderr=subprocess.PIPE, text=True, env={})
            self.addCleanup(gateway.stderr.close)
            self.addCleanup(gateway.wait)
            self.addCleanup(gateway.kill)
            lines = (json.loads(line) for line in gateway.stderr if line.startswith("{"))
            listening = next(line for line in lines if line["message"] == "listening")
            for path, status in (("/health", 200), ("/api/task", 401), ("/api/task", 429), ("/nowhere", 404)):
                self.assertEqual(get(listening["address"], path)[0], status)
            status, text = get(listening["admin"], "/metrics")
        self.assertEqual(status, 200)
        code, said, errors = run(tool("promtool"), "check", "metrics", input=text)
        self.assertEqual((code, said + errors), (0, ""))
        # It would have found something.
        code, _, _ = run(tool("promtool"), "check", "metrics", input=text + "bpmgate_other 1\n")
        self.assertNotEqual(code, 0)


if __name__ == "__main__":
    unittest.main()
