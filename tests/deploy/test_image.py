"""The Dockerfile, line by line, where no container engine is: what can be known of the image without one.

The lines of the stage that builds are run in an empty folder that holds what its COPY lines bring and .dockerignore lets through, and
the lines of the image lay out another one. The binary then runs in there as the image says: its user, its variables, its working
directory, and (by chroot, where the test is root) nothing but what the image has and the C library of this machine in place of the base
image's. What this cannot show: that the base images exist, that BuildKit takes the syntax, and the versions of C library in them.
"""

import fnmatch
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time
import unittest

from tools import ROOT, run

# What `gcr.io/distroless/cc` brings.
LIBRARIES = {"libc.so.6", "libgcc_s.so.1", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1"}
AUTHORITIES = "etc/ssl/certs/ca-certificates.crt"


def instructions():
    """Each stage as a list of instruction and argument."""
    text = "\n".join(line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#"))
    stages = []
    for line in text.replace("\\\n", "").splitlines():
        if line.strip():
            instruction, _, argument = line.partition(" ")
            if instruction == "FROM":
                stages.append([])
            stages[-1].append((instruction, " ".join(argument.split())))
    return stages


def is_ignored(path):
    """Whether .dockerignore keeps a file out: the last line that fits it, or a folder of it, decides."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    parts = pathlib.PurePath(path).parts
    folders = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    ignored = False
    for line in lines:
        pattern = line.removeprefix("!")
        patterns = [pattern, pattern.removeprefix("**/")]
        if any(fnmatch.fnmatchcase(folder, each) for folder in folders for each in patterns):
            ignored = not line.startswith("!")
    return ignored


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        top = pathlib.Path(cls.folder.name)
        # The image's own user must get through.
        top.chmod(0o755)
        build, image = instructions()
        cls.image = dict(image)
        cls.built, cls.root = top / "built", top / "image"
        cls.lay_out(build, cls.built)
        cls.lay_out(image, cls.root)

    @classmethod
    def lay_out(cls, stage, root):
        root.mkdir()
        folder, arguments = root, {}
        for instruction, argument in stage:
            if instruction == "WORKDIR":
                folder = root / argument.lstrip("/")
                folder.mkdir(parents=True, exist_ok=True)
            elif instruction == "ARG":
                name, _, default = argument.partition("=")
                arguments[name] = default
            elif instruction == "COPY":
                cls.copy(argument.split(), folder, root)
            elif instruction == "RUN":
                cls.run_line(argument, folder, root, arguments)

    @classmethod
    def copy(cls, words, folder, root):
        if words[0] == "--from=build":
            source, target = words[1:]
            shutil.copytree(cls.built / source.strip("/"), root / target.lstrip("/"), dirs_exist_ok=True)
            return
        *sources, target = words
        # What git knows is what a clone has.
        tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", *sources], cwd=ROOT, capture_output=True, text=True, check=True)
        files = [file for file in tracked.stdout.splitlines() if not is_ignored(file) and (ROOT / file).exists()]
        assert files, words
        for file in files:
            # A folder's contents go into the target, a file keeps its name.
            (source,) = [each for each in sources if file == each or file.startswith(each + "/")]
            inside = pathlib.PurePath(file).name if file == source else os.path.relpath(file, source)
            copy = folder / target / inside
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / file, copy)

    @classmethod
    def run_line(cls, line, folder, root, arguments):
        # The mounts are BuildKit's caches; here they are this machine's. The profile is the one that is built already.
        command = re.sub(r"--mount=\S+ ", "", line).replace(" /out/", f" {root}/out/")
        assert arguments == {"PROFILE": "release"}, arguments
        target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
        environment = {**os.environ, "PROFILE": "dev", "CARGO_TARGET_DIR": str(target), "CARGO_INSTALL_ROOT": "/nowhere"}
        code, said, errors = run("sh", "-c", command, cwd=folder, env=environment)
        assert code == 0, said + errors

    def files(self):
        return {str(file.relative_to(self.root)) for file in self.root.rglob("*") if file.is_file()}

    def test_the_image_adds_the_binary_and_nothing_else(self):
        self.assertEqual(self.files(), {"usr/local/bin/bpmgate"})

    def test_the_binary_needs_no_library_that_the_base_image_lacks(self):
        _, said, _ = run("readelf", "--dynamic", self.root / "usr/local/bin/bpmgate")
        needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", said))
        self.assertLessEqual({name for name in needed if not name.startswith("ld-linux")}, LIBRARIES)
        self.assertIn("libc.so.6", needed)

    def test_nobody_is_root_and_no_shell_is_needed(self):
        user, _, group = self.image["USER"].partition(":")
        self.assertTrue(int(user) > 0 and int(group) > 0)
        self.assertTrue(instructions()[-1][0][1].endswith(":nonroot"))
        for instruction in ("ENTRYPOINT", "HEALTHCHECK"):
            self.assertIn('["/usr/local/bin/bpmgate"', self.image[instruction])
        self.assertFalse([line for line in instructions()[-1] if line[0] in ("RUN", "SHELL", "CMD")])

    def test_it_listens_where_its_port_is_published(self):
        name, _, value = self.image["ENV"].partition("=")
        self.assertEqual((name, value), ("BPMGATE__SERVER__LISTEN", f"0.0.0.0:{self.image['EXPOSE']}"))

    def test_it_runs_is_healthy_and_stops_as_the_image_says(self):
        self.add_base()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            admin = f"127.0.0.1:{free.getsockname()[1]}"
        (name, _, _) = self.image["ENV"].partition("=")
        environment = {
            # A free port in place of the image's, as tests run beside each other.
            name: "127.0.0.1:0",
            "BPMGATE__ADMIN__LISTEN": admin,
            "BPMGATE__ISSUERS__0__ISSUER": "https://127.0.0.1:1",
            "BPMGATE__ISSUERS__0__AUDIENCE": "bpm",
        }
        health = json.loads(self.image["HEALTHCHECK"].partition("CMD ")[2])
        process = self.start(json.loads(self.image["ENTRYPOINT"]), environment)
        try:
            said = ""
            while "listening" not in said:
                line = process.stderr.readline()
                self.assertTrue(line, said)
                said += line
            if os.geteuid() == 0:
                status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
                user = self.image["USER"].partition(":")[0]
                self.assertIn(f"\nUid:\t{user}\t{user}\t{user}\t{user}\n", status)
            healthy = self.start(health, environment)
            self.assertEqual((healthy.communicate(timeout=30)[1], healthy.returncode), ("", 0))
        finally:
            # What `docker stop` sends.
            process.terminate()
            rest = process.communicate(timeout=60)[1]
        self.assertEqual(process.returncode, 0, rest)
        self.assertIn("stopped", rest)
        unhealthy = self.start(health, environment)
        unhealthy.communicate(timeout=30)
        self.assertEqual(unhealthy.returncode, 1)

    def test_without_a_configuration_it_says_what_is_missing(self):
        self.add_base()
        name, _, value = self.image["ENV"].partition("=")
        process = self.start(json.loads(self.image["ENTRYPOINT"]), {name: value})
        self.assertIn("no issuer is configured", process.communicate(timeout=30)[1])
        self.assertEqual(process.returncode, 2)

    def add_base(self):
        """In place of the base image: its C library and its certificates, of this machine."""
        _, said, _ = run("ldd", self.root / "usr/local/bin/bpmgate")
        for file in [*re.findall(r"(/\S+) \(0x", said), "/" + AUTHORITIES]:
            if pathlib.Path(file).exists():
                copy = self.root / file.lstrip("/")
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copy)
        self.addCleanup(lambda: [shutil.rmtree(self.root / each, ignore_errors=True) for each in ("lib", "lib64", "etc/ssl")])

    def start(self, command, environment):
        """Starts a command as the image would: its user, its folder, and no file but its own."""
        user, group = (int(number) for number in self.image["USER"].split(":"))
        folder = self.image["WORKDIR"]

        def enter():
            os.chroot(self.root)
            os.chdir(folder)
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)

        how = {"preexec_fn": enter} if os.geteuid() == 0 else {"cwd": self.root / folder.lstrip("/")}
        program = command if os.geteuid() == 0 else [str(self.root / command[0].lstrip("/")), *command[1:]]
        return subprocess.Popen(program, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **how)


if __name__ == "__main__":
    unittest.main()
