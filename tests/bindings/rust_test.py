#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bindings/rust/asyncpf-sys: its own test on the real /dev/kvm, and a program that is made here
from the header, which compiles if members, constants and functions have the header's types, and
prints where they are, for comparison with what the C compiler says.

Each of the two finds the library in another way: by pkg-config, by ASYNCPF_LIB_DIR.

usage: rust_test.py SOURCE_FOLDER BUILD_FOLDER FOLDER_FOR_OUTPUT COMPILER…
"""
import os
import pathlib
import re
import subprocess
import sys

import header

CRATE = "bindings/rust/asyncpf-sys"
SCALARS = {
    "void": "c_void",
    "int": "c_int",
    "unsigned": "c_uint",
    "size_t": "usize",
    "int64_t": "i64",
    "uint32_t": "u32",
    "uint64_t": "u64",
    "char": "c_char",
    "unsigned char": "u8",
}
MANIFEST = """[package]
name = "layout"
version = "0.0.0"
edition = "2021"
[dependencies]
asyncpf-sys = { path = "%s" }
[workspace]
"""
PRELUDE = """#![allow(unused)]
use asyncpf_sys::*;
use std::mem::{size_of, MaybeUninit};
use std::os::raw::{c_char, c_int, c_uint, c_void};
fn size_of_member<S, M>(_: fn(&S) -> &M) -> usize { size_of::<M>() }
fn main() {
"""
# A function of the library that a macro of the header hides, and a function here.
MACRO = "apf_config_init"


def rust_type(c):
    if isinstance(c, header.Function):
        return f"Option<{rust_function(c)}>"
    if c.endswith("]"):
        kind, _, count = c[:-1].partition("[")
        return f"[{rust_type(kind)}; {count}]"
    if c.endswith(" *"):
        pointed = c[:-2]
        const = pointed.startswith("const ")
        return f"*{'const' if const else 'mut'} {rust_type(pointed[6:] if const else pointed)}"
    if c.startswith(("struct ", "enum ")):
        return c.split()[1]
    return SCALARS[c]


def rust_function(f):
    result = "" if f.result == "void" else f" -> {rust_type(f.result)}"
    return f'unsafe extern "C" fn({", ".join(map(rust_type, f.types))}){result}'


def layout_program(h):
    lines = [PRELUDE]
    for struct, members in h.structs.items():
        lines.append(f'println!("{struct} {{}}", size_of::<{struct}>());')
        lines.append(f"let whole = MaybeUninit::<{struct}>::uninit();")
        lines.append("let at = whole.as_ptr();")
        for member, kind in members.items():
            lines.append(
                f'println!("{struct}.{member} {{}} {{}}", '
                f"unsafe {{ std::ptr::addr_of!((*at).{member}) as usize - at as usize }}, "
                f"size_of_member::<{struct}, {rust_type(kind)}>(|s| &s.{member}));")
    for constant in h.constants:
        lines.append(f'println!("{constant} {{}}", {constant});')
    for name, f in h.functions.items():
        lines.append(f"let _: {rust_function(f)} = {name};"
                     if name != MACRO else f"let _: unsafe fn(*mut apf_config) = {name};")
    for name, f in h.inlines.items():
        kind = rust_function(f).replace('extern "C" ', "")
        lines.append(f"let _: {kind} = {name};")
    return "\n".join([*lines, "}", ""])


def cargo(verb, folder, target, env):
    return subprocess.run(["cargo", verb, "--quiet", "--offline", "--manifest-path",
                           folder / "Cargo.toml", "--target-dir", target], env=env, text=True,
                          capture_output=True, check=False)


def layout_breaches(root, build, out, h, facts):
    folder = out / "layout"
    (folder / "src").mkdir(parents=True, exist_ok=True)
    (folder / "Cargo.toml").write_text(MANIFEST % (root / CRATE), encoding="utf-8")
    (folder / "src/main.rs").write_text(layout_program(h), encoding="utf-8")
    env = {**os.environ, "ASYNCPF_LIB_DIR": str(build), "LD_LIBRARY_PATH": str(build),
           "PKG_CONFIG": "/nonexistent"}
    done = cargo("run", folder, out / "layout-target", env)
    if done.returncode != 0:
        return [f"the declarations are not the header's:\n{done.stderr}"]
    found = {}
    for line in done.stdout.splitlines():
        name, *numbers = line.split()
        found[name] = tuple(map(int, numbers)) if len(numbers) > 1 else int(numbers[0])
    return [f"{name}: {found.get(name)}, in C {facts[name]}" for name in facts
            if found.get(name) != facts[name]]


def names_breaches(root, h):
    """What the crate has and the header does not have any more would not be missed. The crate has
    the version of the project."""
    text = "\n".join(p.read_text(encoding="utf-8") for p in (root / CRATE / "src").iterdir())
    mine = set(re.findall(r"pub (?:unsafe )?(?:fn|const|struct) (\w+)", text))
    versions = [re.search(pattern, (root / name).read_text(encoding="utf-8"), re.M).group(1)
                for name, pattern in (("meson.build", r"^  version: '(.*)'"),
                                      (f"{CRATE}/Cargo.toml", r'^version = "(.*)"'),
                                      (f"{CRATE}/Cargo.lock", r'^version = "(.*)"'))]
    return [f"{name}: not in the header"
            for name in mine - set(h.structs) - set(h.constants) - set(h.functions) - set(h.inlines)
            ] + ([f"versions: {versions}"] if len(set(versions)) > 1 else [])


def vm_breaches(root, build, out):
    env = {**os.environ, "LD_LIBRARY_PATH": str(build),
           "PKG_CONFIG_PATH": str(build / "meson-uninstalled")}
    env.pop("ASYNCPF_LIB_DIR", None)
    done = cargo("test", root / CRATE, out / "target", env)
    return [f"cargo test:\n{done.stdout}{done.stderr}"] if done.returncode != 0 else []


def main():
    root, build, out = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
    try:
        subprocess.run(["cargo", "--version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as e:
        print(f"SKIP: cargo: {e}")
        return 77
    compiler = sys.argv[4:]
    include = header.include_of(root)
    h = header.read(compiler, include)
    out.mkdir(parents=True, exist_ok=True)
    facts = header.facts(compiler, include, out, h)
    bad = [*layout_breaches(root, build, out, h, facts), *names_breaches(root, h),
           *vm_breaches(root, build, out)]
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("SKIP: asyncpf-sys on a VM: /dev/kvm: no access")
    print("\n".join(bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
