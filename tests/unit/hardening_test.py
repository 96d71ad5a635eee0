#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the compiler and the linker were told about hardening, read off the binaries: that a flag
stands in meson.build says little, it may be overridden, or not reach a target.

usage: hardening_test.py FOLDER... [-- COMPILER [OPTION]...]

Each FOLDER is searched for asyncpf, asyncpf-net.so and libasyncpf.so.VERSION, a build folder also
for the archives of objects. With a compiler, a program is built with everything off, and must fail
each check: a check that finds nothing wrong there would find nothing wrong anywhere.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

PAGE = 4096
# No alloca of 64 KiB in one step, no unchecked copy, no frame without a canary.
BARE = r"""
#include <stdio.h>
#include <string.h>
int bare(const char *text);
__attribute__((noinline)) int bare(const char *text)
{
    char big[65536];
    strcpy(big, text);
    return puts(big);
}
int main(int argc, char **argv) { return bare(argv[argc - 1]); }
"""
BARE_FLAGS = ["-O2", "-U_FORTIFY_SOURCE", "-fno-stack-protector", "-fno-stack-clash-protection",
              "-fcf-protection=none", "-fno-pie", "-no-pie", "-Wl,-z,norelro", "-Wl,-z,lazy",
              "-Wl,-z,execstack"]


def tool(*command):
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=True,
                          env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}).stdout


class Binary:
    """One program or shared library, as the binutils describe it."""

    def __init__(self, path):
        self.path = path
        self.header = tool("readelf", "-hlW", path)
        self.dynamic = tool("readelf", "-dW", path)
        self.imports = set(re.findall(r"^\s+U (\w+)", tool("nm", "-D", path), re.M))
        self.code = tool("objdump", "-d", "--no-show-raw-insn", path)

    def stack_steps(self):
        """The sizes by which code lowers the stack pointer at once."""
        return [int(n, 16) for n in re.findall(r"sub\s+\$0x([0-9a-f]+),%rsp", self.code)
                if int(n, 16) < 1 << 63]


def says(text, pattern):
    return re.search(pattern, text, re.M) is not None


# Each: what is wrong, if the function says so.
def position_dependent(b):
    return not says(b.header, r"^\s+Type:\s+DYN")


def no_relro(b):
    return not says(b.header, r"^\s+GNU_RELRO")


def lazily_bound(b):
    return not says(b.dynamic, r"\(FLAGS_1\).*\bNOW\b")


def executable_stack(b):
    return not says(b.header, r"^\s+GNU_STACK\s.*\sRW\s")


def writable_code(b):
    return says(b.header, r"^\s+LOAD\s.*\sRWE\s") or executable_stack(b)


def no_canary(b):
    return "__stack_chk_fail" not in b.imports


def not_fortified(b):
    return not any(name.endswith("_chk") for name in b.imports)


def big_stack_steps(b):
    """A frame of several pages is entered page by page, each touched: a guard page is hit."""
    probe = r"(?:or|mov)[bwlq]?\s+\$0x0,(?:0x[0-9a-f]+)?\(%rsp\)"
    return any(step > PAGE for step in b.stack_steps()) or not says(b.code, probe)


def no_landing_pads(b):
    """Where calls by pointers may arrive: all that is exported, or main."""
    wanted = set(re.findall(r"\bT (apf_\w+)", tool("nm", "-D", b.path)))
    starts = re.findall(r"^[0-9a-f]+ <([\w.]+)(?:@[\w.@]+)?>:\n\s+[0-9a-f]+:\s+(\w+)", b.code, re.M)
    first = {name: word for name, word in starts if name in wanted}
    if wanted:
        return set(first) != wanted or set(first.values()) != {"endbr64"}
    return b.code.count("endbr64") < 10  # a stripped program: crt's own are fewer


CHECKS = [position_dependent, no_relro, lazily_bound, executable_stack, writable_code, no_canary,
          not_fortified, big_stack_steps, no_landing_pads]


def marks(archive):
    """For each object of an archive: the set of what it is marked to get along with."""
    parts = re.split(r"^File: ", tool("readelf", "-nW", archive), flags=re.M)[1:]
    found = {}
    for part in parts:
        feature = re.search(r"x86 feature: ([\w, ]+)", part)
        found[part.splitlines()[0]] = set(feature.group(1).split(", ")) if feature else set()
    return found


def check_marks(folder):
    """The library gets along with shadow stacks; the simulator does not, and says so."""
    bad = []
    wanted = {"libasyncpf-core.a": {"IBT", "SHSTK"}, "libsim-coroutine.a": {"IBT"}}
    for name, want in wanted.items():
        archives = list(folder.rglob(name))
        if not archives and (folder / "meson-info").is_dir():
            bad.append(f"{folder}: has no {name}")
        for archive in archives:
            objects = marks(archive)
            bad += [f"{member}: marked {' '.join(sorted(have)) or 'nothing'}, "
                    f"not {' '.join(sorted(want))}"
                    for member, have in objects.items() if have != want]
            if not objects:
                bad.append(f"{archive}: no objects")
    return bad


def found_in(folder):
    names = re.compile(r"(?:asyncpf|asyncpf-net\.so|libasyncpf\.so\.\d+\.\d+\.\d+)\Z")
    return [path for path in sorted(folder.rglob("*"))
            if names.match(path.name) and path.is_file() and not path.is_symlink()
            and path.read_bytes()[:4] == b"\x7fELF"]


def check_bare(compiler):
    """The checks that overlook a program without any of it."""
    with tempfile.TemporaryDirectory(prefix="asyncpf-hardening-") as folder:
        source, program = pathlib.Path(folder, "bare.c"), pathlib.Path(folder, "bare")
        source.write_text(BARE, encoding="ascii")
        subprocess.run([*compiler, *BARE_FLAGS, source, "-o", program], check=True)
        bare = Binary(program)
        return [f"{check.__name__}: finds nothing wrong with a bare program"
                for check in CHECKS if not check(bare)]


def main():
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    folders, compiler = [pathlib.Path(w) for w in words[:cut]], words[cut + 1:]
    bad = check_bare(compiler) if compiler else []
    for folder in folders:
        binaries = found_in(folder)
        if {path.name.split(".")[0] for path in binaries} != {"asyncpf", "asyncpf-net",
                                                              "libasyncpf"}:
            bad.append(f"{folder}: has {[path.name for path in binaries]}, not all three")
        for path in binaries:
            binary = Binary(path)
            bad += [f"{path}: {check.__name__.replace('_', ' ')}"
                    for check in CHECKS if check(binary)]
            print(f"{path}: {len(CHECKS)} checks")
        bad += check_marks(folder)
    print("\n".join(bad))
    return 1 if bad or not folders else 0


if __name__ == "__main__":
    sys.exit(main())
