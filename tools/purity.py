# SPDX-License-Identifier: Apache-2.0
"""Proves that the pure parts ask the system for nothing: compiles each file without a C
library and looks at the symbols that stay undefined.

usage: tools/purity [FILE...]     (default: engine, guest, host, base's freestanding files,
                                   the plan of a snapshot, and each header of abi; CC chooses
                                   the compiler)

Test: tests/unit/tidy_test.py.
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# What a compiler may call by itself (GCC manual, "Language Standards"), and our assert.
ALLOWED = {"memcpy", "memset", "memmove", "memcmp", "apf_assert_fail"}
# The driver words host failures; base/err.c, which formats them, needs a C library.
ALLOWED_IN_HOST = {"err_set", "err_sys"}
FLAGS = ["-std=gnu11", "-O2", "-ffreestanding", "-nostdlib", "-fno-pie",
         "-fno-stack-protector", "-U_FORTIFY_SOURCE", "-Wall", "-Werror", "-c"]
PURE_FOLDERS = ("engine", "guest", "host")
PURE_FILES = ("vmm/snap/snap_plan.c",)
HOSTED = re.compile(r"^\s*#\s*include\s*<(stdio|stdlib|time|unistd)\.h>", re.M)


def default_files():
    src = ROOT / "src"
    files = [f for folder in PURE_FOLDERS for f in sorted((src / folder).glob("*.c"))]
    files += [f for f in sorted((src / "base").glob("*.c"))
              if not HOSTED.search(f.read_text(encoding="utf-8"))]
    files += [src / name for name in PURE_FILES]
    return files + sorted((src / "abi").glob("*.h"))


def compile_file(cc, path, out):
    """Compiles; a header through a file that includes it alone. None, or the messages."""
    command = [*cc, *FLAGS, "-I", str(ROOT / "src"), "-I", str(ROOT / "include"), "-o", str(out)]
    if path.suffix == ".h":
        unit = out.with_suffix(".c")
        unit.write_text(f'#include "{path}"\n', encoding="utf-8")
        path = unit
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else None


def symbols(obj, undefined):
    kind = "--undefined-only" if undefined else "--defined-only"
    done = subprocess.run(["nm", "-P", "--extern-only", kind, str(obj)], capture_output=True,
                          text=True, check=True)
    return {line.split()[0] for line in done.stdout.splitlines() if line}


def main():
    cc = os.environ.get("CC", "gcc").split()
    files = [pathlib.Path(f).resolve() for f in sys.argv[1:]] or default_files()
    breaches = 0
    with tempfile.TemporaryDirectory() as tmp:
        objects = {}
        for i, path in enumerate(files):
            obj = pathlib.Path(tmp) / f"{i}.o"
            message = compile_file(cc, path, obj)
            if message is None:
                objects[path] = obj
                continue
            breaches += 1
            print(f"{path}:1: does not compile without a C library, it must be pure\n{message}")
        own = set().union(*(symbols(o, False) for o in objects.values())) if objects else set()
        for path, obj in objects.items():
            allowed = ALLOWED | own | (ALLOWED_IN_HOST if path.parent.name == "host" else set())
            for name in sorted(symbols(obj, True) - allowed):
                breaches += 1
                print(f"{path}:1: needs {name}, a pure file may need only "
                      f"{', '.join(sorted(ALLOWED))} and its own set")
    print(f"purity: {len(files)} files with {' '.join(cc)}, {breaches} breaches")
    return 1 if breaches or not files else 0
