"""The Helm chart: it lints, what it renders is what Kubernetes knows, and does what it promises."""

import base64
import json
import pathlib
import re
import tempfile
import unittest

import kubernetes_validate
import yaml

from tools import ROOT, check_configuration, run, tool

CHART = ROOT / "deploy" / "helm" / "bpmgate"
# Of the releases whose schemas there are, the first that the chart takes and the last.
KUBERNETES = ("1.30", "1.37")
ENGINE = {"app.kubernetes.io/name": "operaton"}
PASSWORD = {
    "secret": {"files": {"engine-password": "hunter2"}},
    "networkPolicy": {"engine": {"podSelector": ENGINE}},
}
EVERYTHING = {
    "secret": {"existing": "gateway-secrets"},
    "image": {"tag": "1.2.3"},
    "imagePullSecrets": [{"name": "registry"}],
    "env": [{"name": "BPMGATE__SERVER__WORKERS", "value": "2"}],
    "service": {"type": "LoadBalancer", "port": 443, "annotations": {"a": "b"}},
    "networkPolicy": {
        "engine": {"podSelector": {"app": "operaton", "tier": "bpm"}, "port": 9090, "alsoFrom": [{"podSelector": {"matchLabels": {"app": "operaton"}}}]},
        "clients": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}],
        "monitoring": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "issuerPorts": [443, 8443],
        "collector": {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}], "port": 4319},
    },
    "autoscaling": {"enabled": True},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "podAnnotations": {"a": "b"},
    "podLabels": {"c": "d"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "x", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}],
}
BARE = {
    "secret": {"enginePassword": ""},
    "networkPolicy": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
}


def helm(command, values, *arguments):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values, file)
        file.flush()
        return run(tool("helm"), *command, str(CHART), "--values", file.name, *arguments)


class Rendered:
    """The documents of a release named `gate`, by kind and name."""

    def __init__(self, values):
        code, text, said = helm(("template", "gate"), values, "--kube-version", KUBERNETES[1])
        assert code == 0, said
        self.all = [document for document in yaml.safe_load_all(text) if document]

    def one(self, kind, name="gate-bpmgate"):
        found = [each for each in self.all if each["kind"] == kind and each["metadata"]["name"] == name]
        assert len(found) == 1, f"{len(found)} of {kind} {name}"
        return found[0]

    def kinds(self):
        return {each["kind"] for each in self.all}

    def pod(self):
        return self.one("Deployment")["spec"]["template"]

    def container(self):
        (container,) = self.pod()["spec"]["containers"]
        return container

    def environment(self):
        return {each["name"]: each["value"] for each in self.container()["env"]}


def selects(selector, labels):
    """Whether a selector of `matchLabels` alone, which is not empty, takes these labels."""
    assert selector and set(selector) == {"matchLabels"}, selector
    return selector["matchLabels"].items() <= labels.items()


class Chart(unittest.TestCase):
    def test_it_lints_without_a_warning(self):
        for values in (PASSWORD, EVERYTHING, BARE):
            code, said, errors = helm(("lint", "--strict"), values)
            self.assertEqual(code, 0, said + errors)

    def test_kubernetes_knows_all_that_it_renders(self):
        for values in (PASSWORD, EVERYTHING, BARE):
            for document in Rendered(values).all:
                # It is a custom resource, of whose schema Kubernetes knows nothing.
                if document["kind"] == "ServiceMonitor":
                    continue
                for version in KUBERNETES:
                    with self.subTest(document["kind"], version=version):
                        kubernetes_validate.validate(document, version, strict=True)

    def test_a_field_that_kubernetes_does_not_know_would_be_found(self):
        document = Rendered(PASSWORD).one("Deployment")
        document["spec"]["template"]["spec"]["containers"][0]["readyProbe"] = {}
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(document, KUBERNETES[1], strict=True)

    def test_what_is_switched_off_is_not_there(self):
        always = {"ConfigMap", "Deployment", "Service"}
        self.assertEqual(Rendered(BARE).kinds(), always)
        protected = {"NetworkPolicy", "PodDisruptionBudget"}
        self.assertEqual(Rendered(PASSWORD).kinds(), always | protected | {"Secret"})
        self.assertEqual(Rendered(EVERYTHING).kinds(), always | protected | {"HorizontalPodAutoscaler", "ServiceMonitor"})

    def test_nobody_but_the_gateway_reaches_the_engine(self):
        for values, engine, port in (
            (PASSWORD, ENGINE, 8080),
            (EVERYTHING, {"app": "operaton", "tier": "bpm"}, 9090),
        ):
            rendered = Rendered(values)
            policy = rendered.one("NetworkPolicy", "gate-bpmgate-engine")["spec"]
            gateway = rendered.pod()["metadata"]["labels"]
            self.assertTrue(selects(policy["podSelector"], engine))
            self.assertEqual(policy["policyTypes"], ["Ingress"])
            rule, *more = policy["ingress"]
            self.assertEqual(rule["ports"], [{"protocol": "TCP", "port": port}])
            (peer,) = rule["from"]
            # A namespaceSelector beside it would let in pods of other namespaces.
            self.assertEqual(set(peer), {"podSelector"})
            self.assertTrue(selects(peer["podSelector"], gateway))
            for stranger in (
                {},
                engine,
                {"app.kubernetes.io/name": "bpmgate"},
                {**gateway, "app.kubernetes.io/instance": "another-release"},
                {**gateway, "app.kubernetes.io/name": "frontend"},
            ):
                self.assertFalse(selects(peer["podSelector"], stranger), stranger)
            # Nobody else but who is listed.
            also = values.get("networkPolicy", {}).get("engine", {}).get("alsoFrom", [])
            self.assertEqual([each["from"] for each in more], [also] if also else [])

    def test_the_gateway_reaches_the_engine_names_issuers_and_the_collector_alone(self):
        rendered = Rendered(EVERYTHING)
        policy = rendered.one("NetworkPolicy")["spec"]
        self.assertTrue(selects(policy["podSelector"], rendered.pod()["metadata"]["labels"]))
        self.assertEqual(policy["policyTypes"], ["Ingress", "Egress"])
        engine, outside, collector = policy["egress"]
        self.assertTrue(selects(engine["to"][0]["podSelector"], {"app": "operaton", "tier": "bpm"}))
        self.assertEqual([each["port"] for each in engine["ports"]], [9090])
        self.assertEqual([each["port"] for each in outside["ports"]], [53, 53, 443, 8443])
        self.assertEqual(collector["to"], EVERYTHING["networkPolicy"]["collector"]["to"])
        self.assertEqual([each["port"] for each in collector["ports"]], [4319])
        # Without one there is no way to anywhere more.
        self.assertEqual(len(Rendered(PASSWORD).one("NetworkPolicy")["spec"]["egress"]), 2)

    def test_the_operators_port_is_for_the_monitoring_alone(self):
        def admin_rules(rendered):
            rules = rendered.one("NetworkPolicy")["spec"]["ingress"]
            return [each.get("from") for each in rules if any(port["port"] != "http" for port in each["ports"])]

        self.assertEqual(admin_rules(Rendered(PASSWORD)), [])
        self.assertEqual(admin_rules(Rendered(EVERYTHING)), [EVERYTHING["networkPolicy"]["monitoring"]])
        for values in (PASSWORD, EVERYTHING):
            ports = Rendered(values).one("Service")["spec"]["ports"]
            self.assertEqual([port["targetPort"] for port in ports], ["http"])

    def test_services_budget_and_scaler_find_the_pods(self):
        rendered = Rendered(EVERYTHING)
        labels = rendered.pod()["metadata"]["labels"]
        names = {port["name"] for port in rendered.container()["ports"]}
        for name in ("gate-bpmgate", "gate-bpmgate-admin"):
            service = rendered.one("Service", name)["spec"]
            self.assertLessEqual(service["selector"].items(), labels.items())
            self.assertLessEqual({port["targetPort"] for port in service["ports"]}, names)
        self.assertTrue(selects(rendered.one("PodDisruptionBudget")["spec"]["selector"], labels))
        self.assertTrue(selects(rendered.one("Deployment")["spec"]["selector"], labels))
        target = rendered.one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
        self.assertEqual((target["kind"], target["name"]), ("Deployment", "gate-bpmgate"))
        # Or each upgrade would undo what the scaler did.
        self.assertNotIn("replicas", rendered.one("Deployment")["spec"])
        self.assertEqual(Rendered(PASSWORD).one("Deployment")["spec"]["replicas"], 2)

    def test_prometheus_scrapes_the_admin_port_as_the_job_of_the_alerts(self):
        rendered = Rendered(EVERYTHING)
        monitor = rendered.one("ServiceMonitor")["spec"]
        admin = rendered.one("Service", "gate-bpmgate-admin")
        self.assertTrue(selects(monitor["selector"], admin["metadata"]["labels"]))
        self.assertFalse(selects(monitor["selector"], rendered.one("Service")["metadata"]["labels"]))
        (endpoint,) = monitor["endpoints"]
        self.assertEqual((endpoint["port"], endpoint["path"]), (admin["spec"]["ports"][0]["name"], "/metrics"))
        self.assertEqual(admin["metadata"]["labels"][monitor["jobLabel"]], "bpmgate")

    def test_the_pod_fits_the_restricted_pod_security_standard(self):
        pod, container = Rendered(PASSWORD).pod()["spec"], Rendered(PASSWORD).container()
        self.assertTrue(pod["securityContext"]["runAsNonRoot"])
        self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
        self.assertFalse(container["securityContext"]["allowPrivilegeEscalation"])
        self.assertTrue(container["securityContext"]["readOnlyRootFilesystem"])
        self.assertEqual(container["securityContext"]["capabilities"], {"drop": ["ALL"]})
        self.assertFalse(pod["automountServiceAccountToken"])

    def test_the_gateway_takes_the_configuration_that_a_pod_has(self):
        for values in (PASSWORD, EVERYTHING, {**BARE, "config": '[engine]\ncredentials.mode = "none"\n[[issuers]]\nissuer = "https://i.example"\naudience = ["a"]\n'}):
            rendered = Rendered(values)
            with tempfile.TemporaryDirectory() as folder:
                folder = pathlib.Path(folder)
                config = folder / "config.toml"
                config.write_text(rendered.one("ConfigMap")["data"]["config.toml"])
                environment = rendered.environment()
                secret = "BPMGATE__ENGINE__CREDENTIALS__PASSWORD_FILE"
                if secret in environment:
                    (mount,) = [each for each in rendered.container()["volumeMounts"] if each["name"] == "secret"]
                    self.assertEqual(environment[secret], mount["mountPath"] + "/engine-password")
                    (folder / "engine-password").write_text("hunter2\n")
                    environment[secret] = str(folder / "engine-password")
                code, effective, said = check_configuration(["--config", config], environment)
            self.assertEqual(code, 0, said)
            # The network policy is what makes the way to the engine a trusted one, and the operator's port the monitoring's alone.
            known = said.count("`engine.url` is an http:// URL") + said.count("`admin.listen` is 0.0.0.0:9000")
            self.assertEqual(said.count("warning"), known, said)
            # The probes and the Service ask these.
            ports = {port["name"]: port["containerPort"] for port in rendered.container()["ports"]}
            self.assertIn(f'\nlisten = "0.0.0.0:{ports["http"]}"', effective)
            self.assertIn(f'\nlisten = "0.0.0.0:{ports["admin"]}"', effective)

    def test_what_the_guide_shows_is_a_release(self):
        guide = (ROOT / "docs" / "install.md").read_text()
        (shown,) = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
        rendered = Rendered(yaml.safe_load(shown))
        self.assertIn("NetworkPolicy", rendered.kinds())
        self.assertIn("http://operaton:8080", rendered.one("ConfigMap")["data"]["config.toml"])

    def test_a_secret_is_in_the_secret_alone(self):
        rendered = Rendered(PASSWORD)
        self.assertEqual(base64.b64decode(rendered.one("Secret")["data"]["engine-password"]), b"hunter2")
        for document in rendered.all:
            if document["kind"] != "Secret":
                self.assertNotIn("hunter2", json.dumps(document))

    def test_another_configuration_is_another_pod(self):
        def annotations(values):
            return Rendered(values).pod()["metadata"]["annotations"]

        one = annotations(PASSWORD)
        self.assertEqual(one, annotations(PASSWORD))
        self.assertNotEqual(one, annotations({**PASSWORD, "config": "# another"}))
        self.assertNotEqual(one, annotations({**PASSWORD, "secret": {"files": {"engine-password": "another"}}}))

    def test_what_cannot_work_is_told(self):
        for values, want in (
            ({**PASSWORD, "secret": {}}, "the engine's password is missing"),
            ({**PASSWORD, "secret": {"files": {"password": "x"}}}, 'secret.files has no "engine-password"'),
            ({**PASSWORD, "replica": 3}, "replica"),
            # An empty selector would lock all pods of the namespace, and a made-up one none.
            ({"secret": PASSWORD["secret"]}, "networkPolicy.engine.podSelector is empty"),
        ):
            code, _, said = helm(("template", "gate"), values)
            self.assertNotEqual(code, 0, values)
            self.assertIn(want, said)

    def test_an_older_kubernetes_is_refused(self):
        code, _, said = helm(("template", "gate"), PASSWORD, "--kube-version", "1.29.0")
        self.assertNotEqual(code, 0)
        self.assertIn("kubeVersion", said)

    def test_there_is_time_to_stop(self):
        issuer = '[[issuers]]\nissuer = "https://i.example"\naudience = ["a"]\n'
        longer = '[server]\nshutdown_delay = "10s" # shutdown_delay = "9h"\nshutdown_grace = "2m"\n' + issuer
        inline = "server = { shutdown_grace = '45s', shutdown_delay = '500ms' }\n" + issuer
        for values, seconds in (
            (PASSWORD, 30),
            ({**PASSWORD, "config": longer, "terminationGracePeriodSeconds": 136}, 130),
            ({**PASSWORD, "config": inline, "terminationGracePeriodSeconds": 51}, 45.5),
        ):
            rendered = Rendered(values)
            # What the gateway itself understands of it.
            with tempfile.TemporaryDirectory() as folder:
                config = pathlib.Path(folder) / "config.toml"
                config.write_text(rendered.one("ConfigMap")["data"]["config.toml"])
                code, effective, said = check_configuration(["--config", config], {})
            self.assertEqual(code, 0, said)
            units = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600}
            found = re.findall(r'^shutdown_(?:delay|grace) = "(\d+)(\w*)"', effective, re.MULTILINE)
            self.assertEqual(len(found), 2, effective)
            self.assertEqual(sum(int(number) * units[unit] for number, unit in found), seconds)
            pre_stop = rendered.container()["lifecycle"]["preStop"]["sleep"]["seconds"]
            self.assertGreater(rendered.pod()["spec"]["terminationGracePeriodSeconds"], pre_stop + seconds)
            # A second less, and the chart refuses it.
            tight = {**values, "terminationGracePeriodSeconds": int(pre_stop + seconds)}
            code, _, said = helm(("template", "gate"), tight)
            self.assertNotEqual(code, 0)
            self.assertIn("terminationGracePeriodSeconds is", said)


if __name__ == "__main__":
    unittest.main()
