"""The alert rules: Prometheus takes them, and each fires where it must and is quiet where it must not.

That they name metrics which are there is what tests/deploy.rs says.
"""

import unittest

import yaml

from tools import ROOT, run, tool

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


if __name__ == "__main__":
    unittest.main()
