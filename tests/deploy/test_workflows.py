"""The workflows of GitHub: well formed, and nothing is published without a tag. They are not run here."""

import unittest

import yaml

from tools import ROOT, run, tool

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
# What sends something to where others see it.
PUBLISHES = ("gh release", "docker push", "docker login", "helm push", "helm registry", "cargo publish", "npm publish", "git push")


class Workflows(unittest.TestCase):
    def test_they_are_well_formed(self):
        # Without the linters of other languages, which may or may not be there.
        code, said, errors = run(tool("actionlint"), "-shellcheck=", "-pyflakes=", *WORKFLOWS, cwd=ROOT)
        self.assertEqual(code, 0, said + errors)

    def test_nothing_is_published_without_a_tag(self):
        publishing = set()
        for file in WORKFLOWS:
            workflow = yaml.safe_load(file.read_text())
            self.assertEqual(workflow["permissions"], {"contents": "read"}, file.name)
            for name, job in workflow["jobs"].items():
                # A step that comes from elsewhere is one of the few that are read here.
                uses = {step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step}
                known = {"checkout", "setup-node", "setup-go", "upload-artifact", "download-artifact"}
                self.assertLessEqual(uses, {f"actions/{each}" for each in known}, name)
                commands = "\n".join(step.get("run", "") for step in job["steps"])
                if "permissions" in job or any(each in commands for each in PUBLISHES):
                    publishing.add(name)
                    self.assertEqual(job["if"], "startsWith(github.ref, 'refs/tags/v')", name)
                    self.assertIn("check", job["needs"], name)
        self.assertEqual(publishing, {"publish"})


if __name__ == "__main__":
    unittest.main()
