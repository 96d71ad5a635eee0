#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/setup: what it says when it must not or need not install.

usage: setup_test.py PATH_OF_SETUP
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

SETUP = str(pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else "tools/setup").resolve())


class Setup(unittest.TestCase):
    def run_with(self, programs, *words):
        """Runs it with a PATH that holds `programs` alone, and never as root."""
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            for name in programs:
                pathlib.Path(folder, name).write_text(programs[name], encoding="ascii")
                os.chmod(pathlib.Path(folder, name), 0o755)
            shutil.copy(SETUP, pathlib.Path(folder, "setup"))
            user = {"user": 65534, "group": 65534} if os.geteuid() == 0 else {}
            return subprocess.run(["/bin/sh", f"{folder}/setup", *words], env={"PATH": folder},
                                  capture_output=True, text=True, check=False, **user)

    def test_wrong_purpose(self):
        for words in ([], ["dance"]):
            done = self.run_with({}, *words)
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            self.assertEqual(done.stderr, "asyncpf: wrong usage: tools/setup: which purpose?; "
                                          "say demo, test, valgrind, model, fuzz, s3, qemu, "
                                          "restore or deb\n")

    def test_without_root_it_says_what_to_install(self):
        fail = "#!/bin/sh\nexit 1\n"
        programs = {"apt-get": "#!/bin/sh\necho apt-get was called\n", "pkg-config": fail,
                    "id": "#!/bin/sh\necho 65534\n", "gcc": fail, "python3": fail,
                    "ninja": fail}
        done = self.run_with(programs, "demo")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr,
                         r"\Aasyncpf: cannot install: packages:[^:]*: not root; run as root: "
                         r"apt-get install -y( libc6-dev)? meson liburing-dev libseccomp-dev"
                         r"( libslirp-dev)? libzstd-dev libxxhash-dev libssl-dev libnbd-dev "
                         r"libcurl4-openssl-dev "
                         r"libcmocka-dev\n\Z")

    def test_with_root_it_installs_what_is_missing_alone(self):
        true, fail = "#!/bin/sh\nexit 0\n", "#!/bin/sh\nexit 1\n"
        names = {name: true for name in ("gcc", "meson", "ninja", "pkg-config", "python3", "nm")}
        names["id"] = "#!/bin/sh\necho 0\n"
        names["apt-get"] = "#!/bin/sh\necho apt-get $*\n"
        done = self.run_with(names, "test")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        lines = done.stdout.splitlines()
        self.assertEqual([line.split()[:2] for line in lines[1:]],
                         [["apt-get", "update"], ["apt-get", "install"]])
        self.assertRegex(lines[2], r"--no-install-recommends( libc6-dev)?( libslirp-dev)? "
                                   r"iproute2 busybox mandoc nbdkit qemu-utils nginx-light "
                                   r"openssl acl zstd zsh fish( systemtap-sdt-dev)? spin\Z")
        names["apt-get"] = fail
        done = self.run_with(names, "test")
        self.assertEqual(done.returncode, 1)
        self.assertIn("apt-get failed", done.stderr)

    def test_fuzzing_needs_clang_and_its_libraries(self):
        true, fail = "#!/bin/sh\nexit 0\n", "#!/bin/sh\nexit 1\n"
        names = {name: true for name in ("gcc", "meson", "ninja", "pkg-config", "python3")}
        names.update(id="#!/bin/sh\necho 65534\n", clang=fail)
        names["apt-get"] = true
        done = self.run_with(names, "fuzz")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"apt-get install -y( libc6-dev)?( libslirp-dev)? "
                                      r"libclang-rt-dev\n\Z")

    def test_packages_need_debian_s_own_tools(self):
        true, fail = "#!/bin/sh\nexit 0\n", "#!/bin/sh\nexit 1\n"
        names = {name: true for name in ("gcc", "meson", "ninja", "pkg-config", "python3", "dh")}
        names.update({"id": "#!/bin/sh\necho 65534\n", "apt-get": fail})
        done = self.run_with(names, "deb")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"apt-get install -y( libc6-dev)?( libslirp-dev)? dpkg-dev "
                                      r"dh-python lintian mmdebstrap\n\Z")

    def test_nothing_missing_nothing_done(self):
        true = "#!/bin/sh\nexit 0\n"
        names = ("gcc", "meson", "ninja", "pkg-config", "python3", "nm", "mandoc", "nbdkit",
                 "qemu-nbd", "nginx", "openssl", "setfacl", "zstd", "zsh", "fish", "spin", "ip",
                 "busybox")
        for header in ("stdio.h", "slirp/libslirp.h", "x86_64-linux-gnu/sys/sdt.h"):
            if not os.path.exists(f"/usr/include/{header}"):
                self.skipTest(f"no {header} here")
        done = self.run_with({name: true for name in names}, "test")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))


if __name__ == "__main__":
    unittest.main()
