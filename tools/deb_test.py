# SPDX-License-Identifier: Apache-2.0
"""Builds the Debian packages twice, in two folders, which must give the same bytes, and tries them
on a clean Debian 12 in a folder: installs, uses, builds against and removes them.

usage: tools/deb-test [--packages FOLDER] [--from-source] OUT

  --packages FOLDER  take what tools/deb made there, and build nothing
  --from-source      build them in there as well, with Build-Depends alone (minutes more)

OUT is a folder for all of it, made anew. Wants root, mmdebstrap and a network; the packages of
the clean root are those of the machine's own apt. Ends with a line for each thing that was tried;
exit code 77 if nothing could be. docs/testing.md has more.
"""
import argparse
import filecmp
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

from lab_parts import LabError
from lab_parts.fetch import archive_of

TREE = pathlib.Path(__file__).resolve().parent.parent
SUITE = "bookworm"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
# What anybody has who builds programs.
TOOLS = ["gcc", "libc6-dev", "pkg-config", "bash-completion"]
DEVICES = ["null", "zero", "urandom", "kvm", "userfaultfd"]
# apt's and dpkg's own books, caches, and what programs may leave anywhere.
NOT_COMPARED = ("dev/", "proc/", "run/", "sys/", "tmp/", "root/", "var/cache/", "var/log/",
                "var/lib/apt/", "var/lib/dpkg/", "packages/", "try/", "etc/resolv.conf")
NO_STARTS = "#!/bin/sh\nexit 101\n"


class Failure(Exception):
    """A sentence that says what is wrong."""


def run(*command, **more):
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", check=False, **more)
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))}: exit code {done.returncode}\n"
                      f"{done.stdout[-6000:]}")
    return done.stdout


def say(what):
    print(f"ok: {what}", flush=True)


# ---- packages ----
def build_twice(out):
    """The second time from the source package that the first one made, elsewhere, in another
    language, at another place on Earth, by somebody else's habits."""
    first, second = out / "packages", out / "and-again" / "somewhere"
    run(TREE / "tools/deb", first)
    run("dpkg-source", "--no-check", "-x", next(first.glob("*.dsc")), out / "unpacked")
    run(out / "unpacked/tools/deb", second, umask=0o002,
        env={**os.environ, "TZ": "Pacific/Kiritimati", "LC_ALL": "C", "HOME": "/nonexistent",
             "DEB_BUILD_OPTIONS": "nocheck parallel=1"})
    names = [path.name for path in sorted(first.iterdir())
             if path.suffix in (".deb", ".dsc", ".xz")]
    _, differ, missing = filecmp.cmpfiles(first, second, names, shallow=False)
    if differ or missing:
        raise Failure(f"two builds differ: {' '.join(differ + missing)}")
    say(f"{len(names)} files of two builds: the same bytes")
    return first


# ---- the clean root ----
class Root:
    def __init__(self, folder):
        self.folder = folder

    def make(self):
        targets = run("apt-get", "indextargets", "--format",
                      "$(REPO_URI)|$(RELEASE)|$(COMPONENT)", "Created-By: Packages")
        signed = f"[signed-by={KEYS}] " if os.path.exists(KEYS) else ""
        run("mmdebstrap", "--quiet", "--variant=apt", SUITE, self.folder,
            f"deb {signed}{archive_of(targets)} {SUITE} main")
        proxies = run("apt-config", "dump", "Acquire::http::Proxy")
        (self.folder / "etc/apt/apt.conf.d/proxies").write_text(proxies, encoding="utf-8")
        (self.folder / "usr/sbin/policy-rc.d").write_text(NO_STARTS, encoding="ascii")
        (self.folder / "usr/sbin/policy-rc.d").chmod(0o755)
        shutil.copy("/etc/resolv.conf", self.folder / "etc/resolv.conf")
        for name in DEVICES:
            if os.path.exists(f"/dev/{name}"):
                (self.folder / "dev" / name).touch()
        (self.folder / "try").mkdir()

    def run(self, command, **more):
        """A line of shell in there, in namespaces that end with it, and all it mounted."""
        mounts = "".join(f"mount --bind /dev/{name} {shlex.quote(str(self.folder))}/dev/{name}\n"
                         for name in DEVICES if os.path.exists(f"/dev/{name}"))
        script = (f"set -e\n{mounts}mount -t proc proc {shlex.quote(str(self.folder))}/proc\n"
                  f"exec chroot {shlex.quote(str(self.folder))} /bin/sh -ec \"$1\"")
        return run("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script,
                   "sh", command, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8",
                                       "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"},
                   **more)

    def apt(self, *words):
        return self.run("apt-get -q -y " + " ".join(words))

    def state(self):
        """Every path; of /etc, what is in the files."""
        found = {}
        for folder, folders, files in os.walk(self.folder):
            for name in folders + files:
                path = pathlib.Path(folder, name)
                below = str(path.relative_to(self.folder))
                if not (below + "/").startswith(NOT_COMPARED):
                    config = below.startswith("etc/") and path.is_file() and \
                        below != "etc/ld.so.cache"
                    found[below] = path.read_bytes() if config else b""
        return found


# ---- what is tried ----
def install(root, packages):
    target = root.folder / "packages"
    target.mkdir()
    for path in packages.glob("*.deb"):
        if "-dbgsym_" not in path.name:
            shutil.copy(path, target)
    names = sorted(path.name.split("_")[0] for path in target.iterdir())
    root.apt("update")
    root.apt("install", "--no-install-recommends", *TOOLS)
    # What they need beside each other stays when they go, and is not what is compared.
    plan = root.apt("install", "-s", "/packages/*.deb")
    needed = [name for name in re.findall(r"^Inst (\S+)", plan, re.M) if name not in names]
    root.apt("install", "--no-install-recommends", *needed)
    before = root.state()
    root.apt("install", "/packages/*.deb")
    say(f"installed {', '.join(names)}; they brought {' '.join(needed)}")
    return names, before


def use_command(root, version, kvm):
    said = root.run("asyncpf --version").split()
    if said != ["asyncpf", version]:
        raise Failure(f"asyncpf --version: {said}, not {version}")
    root.run("/usr/libexec/asyncpf/lab --help")
    verbs = re.findall(r"^  (\w+) ", root.run("asyncpf --help"), re.M)
    for verb in verbs:
        root.run(f"zcat /usr/share/man/man1/asyncpf-{verb}.1.gz | grep -q 'asyncpf {verb}'")
    (root.folder / "try/memory").write_bytes(os.urandom(1 << 20))
    root.run("cd /try && asyncpf image pack memory memory.zst && asyncpf image verify memory.zst")
    completed = root.run("bash -c '. /usr/share/bash-completion/bash_completion; "
                         "_completion_loader asyncpf; complete -p asyncpf'")
    if "asyncpf" not in completed:
        raise Failure(f"completion: {completed}")
    say(f"asyncpf --version, its lab, image, completion, the manual of {' '.join(verbs)}")
    if kvm:
        table = root.run("cd /try && asyncpf demo --runs user:int --pages 256 --tasks 16 "
                         "--trace trace.json && asyncpf report trace.json && test -s trace.html")
        row = re.search(r"^user:int .* yes$", table, re.M)
        if not row:
            raise Failure(f"asyncpf demo: no verified row of user:int\n{table}")
        say(f"asyncpf demo: {' '.join(row[0].split())}")


def use_library(root, kvm):
    """The examples as the package brings them, shared and static; the binding."""
    image = os.urandom(64 * 4096)
    (root.folder / "try/image").write_bytes(image)
    want = f"{sum(image[i * 4096] for i in range(16))}\n"
    examples = "/usr/share/doc/libasyncpf-dev/examples"
    for name, words, libs in (("shared", "", ""), ("static", "-static", "--static")):
        root.run(f"cd /try; cc -Wall -Werror {words} -o {name} {examples}/minimal.c "
                 f"$(pkg-config {libs} --cflags --libs asyncpf)")
        if kvm and root.run(f"/try/{name} /try/image") != want:
            raise Failure(f"{name}: read something else than its image")
        said = root.run(f"/try/{name} nbd://127.0.0.1:1/x 2>&1 || true") if kvm else ""
        if kvm and ("statically" if words else "onnect") not in said:
            raise Failure(f"{name}: a source over a network: {said}")
    needs = run("readelf", "-d", root.folder / "try/shared")
    if "[libasyncpf.so.0]" not in needs:
        raise Failure(f"a program does not ask for libasyncpf.so.0:\n{needs}")
    say("a program against libasyncpf-dev by pkg-config, shared and static"
        + (", both ran" if kvm else ""))
    root.run("python3 -c 'import asyncpf; print(asyncpf.version())'")
    if kvm:
        tests = TREE / "tests/bindings/python_test.py"
        shutil.copy(tests, root.folder / "try")
        classes = re.findall(r"^class (\w+)\(VmTest\)", tests.read_text("utf-8"), re.M)
        # Examples is about the README, which is not installed beside the module.
        root.run(f"python3 /try/python_test.py {' '.join(set(classes) - {'Examples'})}")
    say("the binding, from Debian's python3" + (": its tests" if kvm else ""))


def remove(root, names, before):
    root.apt("install", "--reinstall", "/packages/*.deb")
    root.apt("remove", *names)
    # apt no longer knows of those that left nothing to be purged.
    root.run(f"dpkg --purge {' '.join(names)}")
    after = root.state()
    left = sorted(after.keys() - before.keys())
    gone = sorted(before.keys() - after.keys())
    changed = sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
    if left or gone or changed:
        raise Failure(f"removed, and the root is another: left {left}, gone {gone}, "
                      f"changed {changed}")
    say("installed again, removed, purged: nothing is left and nothing is missing")


def build_inside(root, packages):
    """With what Build-Depends names, and no more."""
    shutil.copytree(packages / "source", root.folder / "try/source", symlinks=True)
    root.run("cd /try/source && rm -rf obj-* debian/tmp && apt-get -q -y build-dep .")
    root.run("cd /try/source && dpkg-buildpackage --build=binary --no-sign")
    say("built in there, with Build-Depends alone, unit tests included")


def parse():
    parser = argparse.ArgumentParser(usage="tools/deb-test [--packages FOLDER] [--from-source] OUT")
    parser.add_argument("--packages", type=pathlib.Path)
    parser.add_argument("--from-source", action="store_true")
    parser.add_argument("out", type=pathlib.Path)
    return parser.parse_args()


def main():
    options = parse()
    missing = [name for name in ("mmdebstrap", "dpkg-buildpackage") if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        print(f"SKIP: {'not root' if not missing else ' '.join(missing) + ' not installed'}; "
              "run as root: make deb-test")
        return 77
    kvm = os.access("/dev/kvm", os.R_OK | os.W_OK)
    if not kvm:
        print("SKIP: /dev/kvm: no access; nothing is run that wants a guest")
    out = options.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    root = Root(out / "root")
    try:
        packages = options.packages or build_twice(out)
        version = next(packages.glob("asyncpf_*.deb")).name.split("_")[1]
        root.make()
        names, before = install(root, packages)
        use_command(root, version, kvm)
        use_library(root, kvm)
        print(run(sys.executable, TREE / "tests/unit/hardening_test.py", root.folder / "usr"),
              end="")
        say("hardening, read off what was installed")
        remove(root, names, before)
        if options.from_source:
            build_inside(root, packages)
    except (Failure, LabError) as failure:
        print(f"not ok: {failure}")
        return 1
    finally:
        shutil.rmtree(root.folder, ignore_errors=True)
    return 0
