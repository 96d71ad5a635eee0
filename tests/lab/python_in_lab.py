#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Python tests of the suites error, integration and bindings on a real kvm_amd, one after the
other in one boot of the lab; or the benchmarks. Each gets a line of its own, as in in_lab.py.

usage: python_in_lab.py BUILD_FOLDER [--benchmarks] [--slow N] [--log FILE] [TEST...]

A TEST is a name of `meson test --list` without its suite, or of `meson introspect --benchmarks`;
without any, all that need KVM are run. They have the source tree, what was built, Python and the
programs of PROGRAMS under the paths that these have here, on an ext4 file system, and are called
with meson's words and environment. The lab's clock runs N (8) times slower than this machine's, so
that no time limit is in the way.

Exit codes: as in_lab.py.
Test: tests/unit/python_in_lab_test.py.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(SOURCE / "tools"), str(SOURCE / "tests/lab")]
import in_lab
from lab_parts.initramfs import library_files

SUITES = {"error", "integration", "bindings"}
# Not run unless they are named: they need no KVM,
NO_KVM = {"cli", "completion", "control", "control-server", "image", "man", "metrics",
          "pager", "pager_cache", "pager_pace", "pager_sandbox", "probes_test",
          "python_layout", "run-lab", "sandbox_doc_test", "setup"}
# or more than there is in the lab: the sources' own build, cargo.
NO_TOOLS = {"install", "rust"}
# Of the benchmarks: those with promises of a guest.
BENCHMARKS = {"evict", "net", "promises", "restore", "views"}
LAB_S = 6 * 3600  # for all tests, of this machine
LIMIT_TIMES = 4  # of meson's own limit for the test, by the lab's clock
MEMORY_MIB = 3072
DISK_BYTES = 4 << 30  # sparse
# Called by tests, or by what they call. Whichever this machine has not, the lab has not, either.
PROGRAMS = """
[ awk basename bash cat chgrp chmod chown cmp cp curl cut dash date dd df diff dirname du echo env
expr false file find fish getfacl grep gzip head id ip jq kill ldconfig ln losetup ls make man
mandoc mkdir mke2fs mkfifo mknod mktemp mount mv nbdkit nginx nm nohup nsenter od openssl printf
prlimit ps pwd qemu-img qemu-io readelf readlink realpath rm rmdir script sed seq setfacl setpriv
setsid sh sleep sort stat strace stty sysctl tail tar tee test timeout touch tr true truncate tty
umount uname uniq unshare wc xargs yes zsh zstd
""".split()
# What programs open by themselves.
FILES = ["/etc/group", "/etc/hosts", "/etc/ld.so.cache", "/etc/nsswitch.conf", "/etc/passwd",
         "/etc/services", *(f"/usr/lib/x86_64-linux-gnu/nbdkit/{kind}s/nbdkit-{name}-{kind}.so"
                            for name, kind in [("file", "plugin"), ("delay", "filter"),
                                               ("error", "filter"), ("log", "filter")])]
LIBRARIES = ["libslirp.so.0"]
NOT_OF_PYTHON = shutil.ignore_patterns("test", "tests", "site-packages", "dist-packages",
                                       "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip",
                                       "config-*")
NOT_OF_BUILD = shutil.ignore_patterns("*.p", "*.a", "*.o", "*_test", "unit", "fault", "fuzz",
                                      "rust", "meson-logs", "lab-root-*")
# Without it unittest does not say where it was when it took too long.
VERBOSE = """
import functools, runpy, sys, unittest
unittest.main = functools.partial(unittest.main, verbosity=2)
del sys.argv[0]
sys.path[0] = sys.argv[0].rpartition("/")[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# The disk becomes the root of a mount namespace, as a user namespace needs it.
ENTER = """
mkdir /there && mount -t ext4 /dev/vda /there || exit 1
for name in dev proc sys; do mount --rbind /$name /there/$name; done
mount -t cgroup2 none /there/sys/fs/cgroup
mount -t tracefs none /there/sys/kernel/tracing
exec unshare -m sh -c 'cd /there && mount --move . / && exec chroot . /bin/sh /in_lab.sh'
"""


class Failure(Exception):
    """A sentence that says what is wrong."""


def chosen_benchmarks(introspected, names):
    """Those of `meson introspect --benchmarks` that are to run."""
    unknown = sorted(set(names) - {test["name"] for test in introspected})
    if unknown:
        raise Failure(f"no benchmark: {' '.join(unknown)}")
    return [test for test in introspected if test["name"] in (names or BENCHMARKS)]


def chosen(introspected, names):
    """Those tests of `meson introspect --tests` that are to run."""
    of_python = {test["name"]: test for test in introspected if script_at(test["cmd"]) is not None
                 and {suite.rpartition(":")[2] for suite in test["suite"]} & SUITES}
    unknown = sorted(set(names) - set(of_python))
    if unknown:
        raise Failure(f"no Python test of {', '.join(sorted(SUITES))}: {' '.join(unknown)}")
    return [test for name, test in of_python.items()
            if (name in names if names else name not in NO_KVM | NO_TOOLS)]


def script_at(words):
    """The place of the script in a test's words: behind an interpreter, or first."""
    if words[0].endswith(".py"):
        return 0
    by_python = os.path.basename(words[0]).startswith("python") and words[1:2]
    return 1 if by_python and words[1].endswith(".py") else None


def command_of(test, build, python):
    """(seconds it may take, words): as meson calls it, a script by our interpreter."""
    at = script_at(test["cmd"])
    words = test["cmd"][at or 0:]
    by = [] if at is None else [python, "-u", "-c", VERBOSE]
    env = [f"{name}={value}" for name, value in test["env"].items()]
    return (LIMIT_TIMES * test["timeout"],
            ["env", "-C", test["workdir"] or str(build), *env, *by,
             os.path.normpath(words[0]), *words[1:]])


def program(name):
    """Its path, or None. Those of root's are also for others."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


class Root:
    """A folder that becomes a file system's root, and has what is here under the same paths."""

    def __init__(self, folder):
        self.folder = folder
        self.programs = []
        for name in ("dev", "proc", "sys", "run", "root", "usr/bin", "tmp", "var/tmp"):
            self.place(f"/{name}").mkdir(parents=True)
        for name in ("tmp", "var/tmp"):
            self.place(f"/{name}").chmod(0o1777)
        for name in ("/bin", "/sbin", "/lib", "/lib64"):
            if os.path.islink(name):
                self.place(name).symlink_to(os.readlink(name))

    def place(self, path):
        return self.folder / str(path).lstrip("/")

    def add(self, path, ignore=None):
        """A file, a folder with all that it has, a link with where it leads."""
        path = pathlib.Path(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        to = self.place(path)
        if os.path.lexists(to) and not (path.is_dir() and not path.is_symlink()):
            return
        to.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            to.symlink_to(os.readlink(path))
            self.add(path.parent / os.readlink(path), ignore)
        elif path.is_dir():
            to.mkdir(exist_ok=True)
            names = os.listdir(path)
            for name in set(names) - (ignore(str(path), names) if ignore else set()):
                self.add(path / name, ignore)
        elif path.is_file():
            shutil.copy2(path, to)
            with open(path, "rb") as f:
                if f.read(4) == b"\x7fELF":
                    self.programs.append(path)

    def add_libraries(self):
        """Of all programs so far. What ldd does not find is found by LD_LIBRARY_PATH, or not."""
        said = subprocess.run(["ldd", *self.programs], capture_output=True, text=True,
                              check=False).stdout
        for path in set(re.findall(r"^\t(?:\S+ => )?(/\S+) \(0x", said, re.M)):
            self.add(path)

    def write(self, path, text):
        self.place(path).write_text(text, encoding="utf-8")


def fill(root, build, python):
    root.add(python)
    root.add(sysconfig.get_path("stdlib"), NOT_OF_PYTHON)
    root.place("/usr/bin/python3").symlink_to(python)
    for name in PROGRAMS:
        if found := program(name):
            root.add(found)
    for path in FILES + [p for name in LIBRARIES for p in library_files(name)]:
        if os.path.exists(path):
            root.add(path)
    tracked = subprocess.run(["git", "-C", SOURCE, "ls-files", "-z"], capture_output=True,
                             text=True, check=True).stdout
    for name in tracked.split("\0")[:-1]:
        if os.path.lexists(SOURCE / name):
            root.add(SOURCE / name)
    root.add(build, NOT_OF_BUILD)
    root.add_libraries()


def make_disk(folder, disk):
    with open(disk, "wb") as f:
        f.truncate(DISK_BYTES)
    subprocess.run([program("mke2fs"), "-q", "-t", "ext4", "-F", "-d", folder, disk], check=True)


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].removeprefix("usage: "))
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--slow", type=int, default=8)
    parser.add_argument("--log")
    parser.add_argument("--benchmarks", action="store_true")
    parser.add_argument("tests", nargs="*")
    o = parser.parse_intermixed_args()
    build, python = o.build.resolve(), os.path.realpath(sys.executable)
    told = subprocess.run(["meson", "introspect", str(build),
                           "--benchmarks" if o.benchmarks else "--tests"], capture_output=True,
                          text=True, check=True).stdout
    try:
        tests = (chosen_benchmarks if o.benchmarks else chosen)(json.loads(told), o.tests)
    except Failure as failure:
        sys.exit(f"python_in_lab.py: {failure}")
    commands = [command_of(test, build, python) for test in tests]
    with tempfile.TemporaryDirectory(prefix="lab-root-", dir=build) as temporary:
        root = Root(pathlib.Path(temporary, "root"))
        fill(root, build, python)
        root.write("/in_lab.sh", "export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root\n" +
                   in_lab.script_of(commands))
        disk = pathlib.Path(temporary, "disk")
        make_disk(root.folder, disk)
        shutil.rmtree(root.folder)
        words = ["--memory", str(MEMORY_MIB), "--timeout", str(LAB_S), "--disk", str(disk),
                 "--slow", f"{build / 'slow_clock.so'}:{o.slow}", "--module", "loop",
                 *(["--log", o.log] if o.log else [])]
        return in_lab.run(SOURCE, words, ENTER, [[test["name"]] for test in tests])


if __name__ == "__main__":
    sys.exit(main())
