#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What stands in one place, and is repeated for tools that read nothing else, is the same there:
the version, which is meson.build's, and the exported symbols, which are libasyncpf.map's. And what
is installed is in a package.

usage: packaging_test.py SOURCE_FOLDER PATH_OF_ASYNCPF, in the build folder
"""
import fnmatch
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

COPIES = {
    "CHANGELOG.md": r"^## ([\d.]+)$",  # the first is the newest
    "bindings/python/asyncpf.py": r'Of the library: "([\d.]+)"',
    "bindings/rust/asyncpf-sys/Cargo.lock": r'name = "asyncpf-sys"\nversion = "([\d.]+)"',
    "bindings/rust/asyncpf-sys/Cargo.toml": r'^version = "([\d.]+)"',
    "debian/changelog": r"\Aasyncpf \(([\d.]+)\)",
    "include/asyncpf/asyncpf.h": r'/\* "([\d.]+)" \*/\nconst char \*apf_version',
}


def found(pattern, text):
    match = re.search(pattern, text, re.M)
    return match[1] if match else "nothing"


def versions(root, asyncpf):
    version = found(r"^  version: '([\d.]+)'", (root / "meson.build").read_text("utf-8"))
    said = {name: found(pattern, (root / name).read_text("utf-8"))
            for name, pattern in COPIES.items()}
    said["asyncpf --version"] = found(r"^asyncpf ([\d.]+)$", subprocess.run(
        [asyncpf, "--version"], capture_output=True, text=True, check=True).stdout)
    return version, [f"{name}: {what}, not {version} as meson.build has it"
                     for name, what in said.items() if what != version]


def symbols_of(text):
    """The lines of a Debian symbols file: since which version of the package each is there."""
    lines, node = set(), None
    for line in text.splitlines():
        opened = re.match(r"ASYNCPF_([\d.]+) \{", line)
        if opened:
            node = opened[1]
            lines.add(f" ASYNCPF_{node}@ASYNCPF_{node} {node}.0")
        symbol = re.match(r"\t(apf_\w+);", line)
        if symbol:
            lines.add(f" {symbol[1]}@ASYNCPF_{node} {node}.0")
    return lines


def symbols(root, version):
    wanted = symbols_of((root / "src/lib/libasyncpf.map").read_text("utf-8"))
    have = (root / "debian/libasyncpf0.symbols").read_text("utf-8").splitlines()[2:]
    bad = [f"debian/libasyncpf0.symbols: lacks{line}" for line in sorted(wanted - set(have))]
    bad += [f"debian/libasyncpf0.symbols: has{line}, libasyncpf.map has not"
            for line in sorted(set(have) - wanted)]
    if have != sorted(have):
        bad.append("debian/libasyncpf0.symbols: not sorted")
    # A program depends on the package of its symbols' version, which must be there to be had.
    newest = max(tuple(map(int, line.split()[1].split("."))) for line in wanted)
    if newest > tuple(map(int, version.split("."))):
        bad.append(f"src/lib/libasyncpf.map: has symbols of {newest}, meson.build is {version}")
    return bad if len(wanted) > 2 else ["src/lib/libasyncpf.map: no symbols found"]


def installed(root):
    """What `meson install` installs, and no Debian package takes."""
    listed = subprocess.run([*shlex.split(os.environ.get("MESONINTROSPECT", "meson introspect")),
                             ".", "--installed", "--buildoptions"], capture_output=True,
                            text=True, check=True).stdout
    info = json.loads(listed)
    prefix = next(o["value"] for o in info["buildoptions"] if o["name"] == "prefix")
    patterns = [line.split()[0] for file in [*(root / "debian").glob("*.install"),
                                             root / "debian/not-installed"]
                for line in file.read_text("utf-8").splitlines()]
    for to in sorted(info["installed"].values()):
        # Debian's Python has one folder for all its versions.
        path = pathlib.PurePath("usr") / re.sub(r"python3\.\d+", "python3",
                                                os.path.relpath(to, prefix))
        if not any(fnmatch.fnmatch(p, pattern) for p in (path, *path.parents)
                   for pattern in patterns):
            yield f"debian: {path} is installed, and in no package"


def main():
    root, asyncpf = pathlib.Path(sys.argv[1]), sys.argv[2]
    version, bad = versions(root, asyncpf)
    bad += symbols(root, version)
    bad += installed(root)
    print("\n".join(bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
