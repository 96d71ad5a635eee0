#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The examples, as somebody builds them who has installed the library: each is C11, GNU C11 and
C++20 by the installed header and pkg-config, without a warning, and runs.

usage: examples_test.py BUILD_FOLDER SOURCE_FOLDER C|C++ COMPILER [OPTION]...

C: no C++ compiler is there. The options (a sanitizer's) are for every compilation and link. Without
a C compiler, as in the lab, the examples of the build folder are run.

adopted.c is plain.c with the library. It may differ in 30 lines, and not where its device is, nor
where it is kicked.
"""
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile

HAS_KVM = os.access("/dev/kvm", os.R_OK | os.W_OK)
PAGE = 4096
LINES_MAX = 30
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
STANDARDS = {"c11": ["-std=c11"], "gnu11": ["-std=gnu11"]}
CXX = {"c++20": ["-x", "c++", "-std=gnu++20"]}
UNCHANGED = ["kicks", "the device"]


class Failure(Exception):
    """A sentence that says what is wrong."""


def run(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120,
                          **more)
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))}: exit code {done.returncode}\n"
                      f"{done.stdout}{done.stderr}")
    return done.stdout


def first_bytes(image):
    """What minimal, own_source and snapshot print."""
    return f"{sum(image[i * PAGE] for i in range(16))}\n"


def total(image):
    """What plain and adopted print: their requests, done here."""
    words = list(struct.unpack("<32768Q", image[:64 * PAGE]))
    in_page = PAGE // 8

    def add(first, count):
        return sum(words[first:first + count])

    for i in range(0, 16 * in_page, 2):
        words[i] += i
    answer = add(0, 16 * in_page)
    disk = [0] * in_page + words[8 * in_page:32 * in_page]
    answer += add(8 * in_page, 24 * in_page)
    at, to = 2 * in_page + 128, 32 * in_page + 64
    words[to:to + 20 * in_page] = disk[at:at + 20 * in_page]
    answer += add(to, 20 * in_page) + add(0, 64 * in_page)
    return f"{answer % 2**64:016x}\n"


PRINTED = {"minimal": first_bytes, "own_source": first_bytes, "snapshot": first_bytes,
           "plain": total, "adopted": total}


# ---- what differs ----
def sections(text):
    """The parts of a source by their headings, /* ---- name ---- */."""
    parts = re.split(r"^/\* ---- (.*) ---- \*/$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def check_difference(source):
    plain, adopted = (source / name for name in ("plain.c", "adopted.c"))
    done = subprocess.run(["diff", plain, adopted], capture_output=True, text=True, check=False)
    new = [line for line in done.stdout.splitlines() if line.startswith("> ")]
    if not 0 < len(new) <= LINES_MAX:
        raise Failure(f"adopted.c has {len(new)} lines that plain.c has not, not 1 to {LINES_MAX}")
    before, after = (sections(path.read_text(encoding="utf-8")) for path in (plain, adopted))
    for name in UNCHANGED:
        if len(before[name].splitlines()) < 10 or before[name] != after[name]:
            raise Failure(f"adopted.c differs from plain.c in: {name}")
    return len(new)


# ---- building ----
class Installed:
    """The library in a folder of its own, and how to compile against it."""

    def __init__(self, build, folder, compiler):
        self.folder = folder
        self.compiler = compiler
        self.root = folder / "root"
        run(["meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", self.root])
        found = list(self.root.rglob("asyncpf.pc"))
        if len(found) != 1:
            raise Failure(f"asyncpf.pc was installed {len(found)} times")
        env = dict(os.environ, PKG_CONFIG_PATH=str(found[0].parent),
                   PKG_CONFIG_SYSROOT_DIR=str(self.root))
        self.cflags, self.libs = (run(["pkg-config", what, "asyncpf"], env=env).split()
                                  for what in ("--cflags", "--libs"))
        self.env = dict(os.environ, LD_LIBRARY_PATH=str(found[0].parent.parent))
        self.ours = {flag for flag in self.cflags + self.libs if str(self.root) in flag}
        if len(self.ours) < 2:
            raise Failure(f"pkg-config names no folder of ours: {self.cflags} {self.libs}")

    def build(self, source, standard, flags):
        program = self.folder / f"{source.stem}-{standard}"
        run([*self.compiler, *WARNINGS, "-O1", *flags, *self.cflags, source, "-o", program,
             "-x", "none", *self.libs, *run(["pkg-config", "--libs", "liburing"]).split(),
             "-pthread"])
        return program


def check(program, name, image, env):
    printed = run([program, image], env=env)
    want = PRINTED.get(name)
    if want and printed != want(image.read_bytes()):
        raise Failure(f"{program.name} printed {printed!r}")


def check_built(build, source):
    """Without a compiler."""
    with tempfile.NamedTemporaryFile(prefix="asyncpf-examples-") as f:
        f.write(os.urandom(64 * PAGE))
        f.flush()
        for example in sorted(source.glob("*.c")):
            program = pathlib.Path(build, "examples", example.stem)
            check(program, example.stem, pathlib.Path(f.name),
                  dict(os.environ, LD_LIBRARY_PATH=build))
            print(f"ok: {example.name}: as it was built")
    return 0


def check_all(build, source, standards, compiler):
    with tempfile.TemporaryDirectory(prefix="asyncpf-examples-") as folder:
        installed = Installed(build, pathlib.Path(folder), compiler)
        image = pathlib.Path(folder, "image")
        image.write_bytes(os.urandom(64 * PAGE))
        for example in sorted(source.glob("*.c")):
            for standard, flags in standards.items():
                program = installed.build(example, standard, flags)
                if HAS_KVM:
                    check(program, example.stem, image, installed.env)
            print(f"ok: {example.name}: {', '.join(standards)}")
    if not HAS_KVM:
        print("SKIP: /dev/kvm: no access; nothing was run")
    return 0 if HAS_KVM else 77


def main():
    build, source, languages, *compiler = sys.argv[1:]
    source = pathlib.Path(source, "examples")
    standards = dict(STANDARDS, **(CXX if languages == "C++" else {}))
    if "-fsanitize=thread" in compiler:
        print("SKIP: the thread sanitizer keeps a kick back until KVM_RUN has been entered")
        return 77
    try:
        print(f"adopted.c: {check_difference(source)} lines")
        if not shutil.which(compiler[0]):
            print(f"SKIP: no {compiler[0]}: nothing was compiled")
            return check_built(build, source) if HAS_KVM else 77
        return check_all(build, source, standards, compiler)
    except Failure as failure:
        print(failure)
        return 1


if __name__ == "__main__":
    sys.exit(main())
