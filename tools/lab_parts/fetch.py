# SPDX-License-Identifier: Apache-2.0
"""Fetches what the lab is made of into the cache, from the archive of the machine's own apt."""
import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from lab_parts import CACHE, LabError

BACKPORTS = "bookworm-backports"
# 7.2 of bookworm itself corrupts the registers of nested guests (docs/lab.md).
QEMU_PACKAGES = ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios"]
# The oldest kernel that asyncpf runs on is 6.6; 6.1 is there to be booted as a guest.
KERNELS = {"6.12": BACKPORTS, "6.1": "bookworm"}


# What answers in a guest, and what that needs: nothing of the machine's goes into it.
SERVICES = {
    "nginx": ["nginx", "libc6", "libcrypt1", "libpcre2-8-0", "libssl3", "zlib1g"],
    "redis": ["redis-tools", "libatomic1", "libc6", "libcap2", "libgcc-s1", "libgcrypt20",
              "libgpg-error0", "libjemalloc2", "liblz4-1", "liblzf1", "liblzma5", "libssl3",
              "libstdc++6", "libsystemd0", "libzstd1"],
}


class Apt:
    """apt with a source list and package lists of its own; nothing of the machine changes."""

    def __init__(self, folder):
        self.folder = folder
        self.options = ["-q", "-o", f"Dir::Etc::sourcelist={folder}/sources.list",
                        "-o", "Dir::Etc::sourceparts=/dev/null",
                        "-o", f"Dir::State::lists={folder}/lists",
                        "-o", f"Dir::Cache={folder}/archives",
                        "-o", "APT::Sandbox::User=root", "-o", "APT::Get::List-Cleanup=0"]
        for name in ("lists/partial", "archives/archives/partial", "debs"):
            (folder / name).mkdir(parents=True)

    def run(self, *command):
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False,
                                  cwd=self.folder / "debs", env={**os.environ, "LC_ALL": "C"})
        except OSError as e:
            raise LabError(f"cannot fetch: {command[0]}: {e.strerror}; the lab is fetched by "
                           "Debian 12's apt and dpkg: run it there, or in a container of "
                           "Debian 12") from e

    def call(self, *command, what):
        done = self.run(command[0], *self.options, *command[1:])
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise LabError(f"cannot fetch: {what}: {last}; check the network and the machine's "
                           "package sources")
        return done.stdout

    def write_sources(self):
        targets = self.run("apt-get", "indextargets", "--format",
                           "$(REPO_URI)|$(RELEASE)|$(COMPONENT)", "Created-By: Packages").stdout
        uri = archive_of(targets)
        keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
        signed = f"[signed-by={keys}] " if os.path.exists(keys) else ""
        (self.folder / "sources.list").write_text(
            "".join(f"deb {signed}{uri} {suite} main\n" for suite in (BACKPORTS, "bookworm")),
            encoding="utf-8")
        self.call("apt-get", "update", "--error-on=any", what="package lists")

    def unpack(self, packages, to, what):
        """Downloads "name=version" or "name/suite", and extracts them into the folder `to`."""
        self.call("apt-get", "download", *packages, what=what)
        for deb in sorted((self.folder / "debs").glob("*.deb")):
            done = self.run("dpkg", "-x", str(deb), str(to))
            if done.returncode != 0:
                raise LabError(f"cannot fetch: {what}: {done.stderr.strip()[-200:]}; make room "
                               f"in {CACHE}")
            deb.unlink()


def archive_of(targets):
    """The archive of the machine's own sources that has Debian's main component."""
    for line in targets.splitlines():
        uri, _, rest = line.partition("|")
        if rest == "bookworm|main":
            return uri
    raise LabError("cannot fetch: package sources: apt knows no archive with Debian 12's main "
                   "component; run it on Debian 12, or in a container of Debian 12")


def installs_of(simulation):
    """The packages that `apt-get install -s` would install, as name=version."""
    found = re.findall(r"^Inst (\S+) (?:\[[^]]*\] )?\((\S+) ", simulation, re.M)
    return [f"{name}={version}" for name, version in found]


def fetch_qemu(apt, to):
    plan = apt.call("apt-get", "install", "-s", "--no-install-recommends", "-t", BACKPORTS,
                    "qemu-system-x86", what="QEMU's dependencies")
    packages = installs_of(plan)
    have = {p.split("=")[0].split(":")[0] for p in packages}
    # Also what the machine has installed: it may not have it tomorrow.
    packages += [f"{name}/{BACKPORTS}" for name in QEMU_PACKAGES if name not in have]
    apt.unpack(packages, to, "QEMU")


def fetch_kernel(apt, to, version):
    suite = KERNELS[version]
    text = apt.call("apt-cache", "-o", f"APT::Default-Release={suite}", "show",
                    "--no-all-versions", "linux-image-cloud-amd64", what=f"Linux {version}")
    found = re.search(r"^Depends:.*?(linux-image-[\w.+-]+-cloud-amd64)", text, re.M)
    if not found:
        raise LabError(f"cannot fetch: Linux {version}: linux-image-cloud-amd64 of {suite} "
                       "names no kernel; try again later")
    apt.unpack([found.group(1)], to, f"Linux {version}")


def parts_of(kernel, service):
    parts = {
        "qemu": fetch_qemu,
        f"linux-{kernel}": lambda apt, to: fetch_kernel(apt, to, kernel),
        "busybox": lambda apt, to: apt.unpack(["busybox-static"], to, "busybox"),
    }
    if service:
        parts[service] = lambda apt, to: apt.unpack(
            [f"{name}/bookworm" for name in SERVICES[service]], to, service)
    return parts


def fetch(kernel, service=""):
    """Makes everything be in cache/lab. A folder that is there is complete."""
    parts = parts_of(kernel, service)
    if all((CACHE / name).is_dir() for name in parts):
        return
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        lock = open(CACHE / "lock", "w", encoding="utf-8")
    except OSError as e:
        raise LabError(f"cannot write: {CACHE}: {e.strerror}; make it writable") from e
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in CACHE.glob("fetch-*"):
            shutil.rmtree(stale)
        missing = [name for name in parts if not (CACHE / name).is_dir()]
        if not missing:
            return
        print(f"fetching for the lab: {', '.join(missing)}", file=sys.stderr)
        folder = pathlib.Path(tempfile.mkdtemp(prefix="fetch-", dir=CACHE))
        try:
            apt = Apt(folder)
            apt.write_sources()
            for name in missing:
                (folder / name).mkdir()
                parts[name](apt, folder / name)
                (folder / name).rename(CACHE / name)
        finally:
            shutil.rmtree(folder)


def only_file(pattern, what):
    found = sorted(CACHE.glob(pattern))
    if not found:
        raise LabError(f"cannot start: {CACHE / pattern}: {what} is not there; remove {CACHE} "
                       "and run again")
    return found[0]


def kernel_image(kernel):
    return only_file(f"linux-{kernel}/boot/vmlinuz-*", "the kernel")
