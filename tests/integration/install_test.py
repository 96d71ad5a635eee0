#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What an installation has, and that it is the same wherever it was built.

usage: install_test.py BUILD_FOLDER SOURCE_FOLDER COMPILER [OPTION]...

The sources are copied to another folder and built there with the options of BUILD_FOLDER, in a
folder of the same name: files are named from there. Both are installed and compared, file by file.
The copy is then installed by `make install` for another prefix, looked at, used, and removed by
`make uninstall`.
"""
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile

SAME_OPTIONS = re.compile(r"b_|c_args$|c_link_args$|(optimization|debug|werror|prefix|libdir|"
                          r"libexecdir|datadir|mandir|includedir|python\.purelibdir)$")
NOT_COPIED = shutil.ignore_patterns(".git", "build", "build-*", "cache", "target", "__pycache__")
PREFIX = "/usr"


class Failure(Exception):
    """A sentence that says what is wrong."""


def run(*command, **more):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False,
                          timeout=500, **more)
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))}: exit code {done.returncode}\n"
                      f"{done.stdout[-3000:]}{done.stderr}")
    return done.stdout


def files_of(root):
    """Path below root: mode, and bytes or where a link leads."""
    found = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            found[path.relative_to(root)] = (mode, os.readlink(path).encode())
        elif stat.S_ISREG(mode):
            found[path.relative_to(root)] = (mode, path.read_bytes())
    return found


# ---- the same bytes ----
def build_copy(build, source, copy, made, compiler):
    shutil.copytree(source, copy, ignore=NOT_COPIED, symlinks=True)
    options = json.loads(run("meson", "introspect", build, "--buildoptions"))
    words = []
    for option in options:
        value = option["value"]
        if SAME_OPTIONS.match(option["name"]) and value not in ("", []):
            text = str(value).lower() if isinstance(value, bool) else \
                repr(value) if isinstance(value, list) else str(value)
            words.append(f"-D{option['name']}={text}")
    env = {k: v for k, v in os.environ.items() if k not in ("CFLAGS", "CPPFLAGS", "LDFLAGS")}
    env["CC"] = " ".join(compiler)
    run("meson", "setup", made, copy, "-Dtests=false", *words, env=env)
    run("ninja", "-C", made)


def check_same(build, source, made, copy, folder, compiler):
    trees = []
    for name, where in (("there", build), ("here", made)):
        run("meson", "install", "-C", where, "--no-rebuild", "--destdir", folder / name)
        trees.append(files_of(folder / name))
    there, here = trees
    differ = [str(path) for path in sorted(there.keys() | here.keys())
              if there.get(path) != here.get(path)]
    if [name.rpartition("/")[2] for name in differ] == ["asyncpf"] and \
            "clang version" in run(*compiler, "--version"):
        print("SKIP: clang 14 compiles guests/small/kernel.c differently from run to run, in the "
              "same folder, too; the command holds that guest")
    elif differ:
        raise Failure(f"differ between {build} and {copy}: {' '.join(differ)}")
    for path, (_, content) in here.items():
        for place in (copy, source, build):
            if str(place).encode() in content:
                raise Failure(f"{path}: names {place}, where it was built")
    print(f"ok: {len(here) - len(differ)} of {len(here)} files: the same bytes from two folders")


# ---- what is there ----
def check_files(source, root, have):
    """Nothing that is written in the tree for users is left out."""
    doc = pathlib.Path("usr/share/doc/asyncpf")
    wanted = {doc / name for name in ("CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md")}
    wanted |= {doc / "docs" / path.relative_to(source / "docs")
               for path in (source / "docs").rglob("*")
               if path.suffix in (".md", ".svg")}
    wanted |= {doc / "examples" / path.name for path in (source / "examples").glob("*.c")}
    wanted |= {pathlib.Path(f"usr/share/man/man{path.suffix[1:]}", path.name)
               for path in (source / "docs/man").iterdir()}
    wanted |= {pathlib.Path("usr/include/asyncpf", path.name)
               for path in (source / "include/asyncpf").iterdir()}
    wanted |= {pathlib.Path("usr/libexec/asyncpf", path.relative_to(source / "tools"))
               for path in [source / "tools/lab", *(source / "tools/lab_parts").glob("*.py")]}
    missing = sorted(map(str, wanted - have.keys()))
    if missing:
        raise Failure(f"not installed: {' '.join(missing)}")
    contents = {content for _, content in have.values()}
    for path in (source / "completions").iterdir():
        if path.read_bytes() not in contents:
            raise Failure(f"not installed: {path.name}")
    for path in (doc / "docs").parts, (doc / "examples").parts:
        stray = [str(p) for p in have if p.parts[:len(path)] == path and p not in wanted]
        if stray:
            raise Failure(f"installed, and of no use to a reader: {' '.join(stray)}")
    if b"/usr/libexec/asyncpf/lab\0" not in have[pathlib.Path("usr/bin/asyncpf")][1]:
        raise Failure("usr/bin/asyncpf does not look for the lab where it was installed")
    return root / next(iter(p for p in have if p.name == "asyncpf.pc")).parent


def check_library(source, libdir):
    names = set(re.findall(r"^\t(apf_\w+);$",
                           (source / "src/lib/libasyncpf.map").read_text("utf-8"), re.M))
    for kind, words in (("libasyncpf.a", ["-g", "--defined-only"]), ("libasyncpf.so", ["-D"])):
        shown = run("nm", "-P", *words, libdir / kind)
        have = {line.split("@")[0].split()[0] for line in shown.splitlines()
                if re.match(r"\S+ [TDBRVW] ", line)}
        if have != names:
            raise Failure(f"{kind}: shows {sorted(have ^ names)} unlike libasyncpf.map")
    if "[libasyncpf.so.0]" not in run("readelf", "-d", libdir / "libasyncpf.so"):
        raise Failure("libasyncpf.so: its soname is not libasyncpf.so.0")


def check_version(source, root, pkg):
    """meson.build has it; whoever else says it says the same."""
    version = re.search(r"version: '([\d.]+)'", (source / "meson.build").read_text("utf-8"))[1]
    python = next(root.rglob("asyncpf.py"))
    where = pathlib.Path("/", python.parent.relative_to(root))
    library = next(root.rglob("libasyncpf.so.0"))
    system = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
    looks_in = json.loads(run(system, "-c", "import json, site; "
                                            "print(json.dumps(site.getsitepackages()))"))
    if os.path.exists("/etc/debian_version") and str(where) not in looks_in:
        raise Failure(f"{where}: Python looks in {looks_in}")
    said = {
        "asyncpf --version": run(root / "usr/bin/asyncpf", "--version").split()[-1],
        "pkg-config --modversion": pkg("--modversion").strip(),
        "asyncpf.version() in Python": run(
            system, "-c", "import asyncpf; print(asyncpf.version())",
            env={"PYTHONPATH": str(python.parent), "ASYNCPF_LIBRARY": str(library),
                 "PYTHONDONTWRITEBYTECODE": "1"}).strip(),
        "the file's name": library.resolve().name.partition(".so.")[2],
    }
    for who, what in said.items():
        if what != version:
            raise Failure(f"{who}: {what}, not {version}")


def check_programs(source, folder, compiler, pkg, libdir):
    """One without any shared library, and one with, by pkg-config's word alone; each reads its
    image, and the second finds the module for sources over a network beside its library."""
    image = folder / "image"
    image.write_bytes(os.urandom(64 * 4096))
    want = sum(image.read_bytes()[i * 4096] for i in range(16))
    for kind, words, refusal in (("static", ["-static"], "linked statically"),
                                 ("shared", [], "onnect")):
        program = folder / kind
        run(*compiler, *words, source / "examples/minimal.c", "-o", program,
            *pkg(*("--" + word[1:] for word in words), "--cflags", "--libs").split())
        if words and "NEEDED" in run("readelf", "-d", program):
            raise Failure("a static program needs a shared library")
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            continue
        env = dict(os.environ, LD_LIBRARY_PATH=str(libdir))
        env.pop("ASYNCPF_NET_MODULE", None)
        if run(program, image, env=env) != f"{want}\n":
            raise Failure(f"a {kind} program read something else than its image")
        done = subprocess.run([program, "nbd://127.0.0.1:1/x"], capture_output=True, text=True,
                              check=False, timeout=60, env=env)
        if done.returncode == 0 or refusal not in done.stderr:
            raise Failure(f"a {kind} program with a source over a network: {done.stderr}")


def check_make(source, made, folder, compiler):
    """`make install` for another prefix than the one that was configured, and `make uninstall`."""
    root = folder / "root"
    where = [f"BUILD={made.name}", f"CC={' '.join(compiler)}"]
    run("make", "-s", "install", *where, "DESTDIR=../root", f"PREFIX={PREFIX}", cwd=made.parent)
    libdir = check_files(source, root, files_of(root)).parent

    def pkg(*words):
        env = dict(os.environ, PKG_CONFIG_PATH=str(libdir / "pkgconfig"),
                   PKG_CONFIG_SYSROOT_DIR=str(root), PKG_CONFIG_ALLOW_SYSTEM_CFLAGS="1",
                   PKG_CONFIG_ALLOW_SYSTEM_LIBS="1")
        return run("pkg-config", *words, "asyncpf", env=env)

    check_library(source, libdir)
    check_version(source, root, pkg)
    check_programs(source, folder, compiler, pkg, libdir)
    run("make", "-s", "uninstall", *where, cwd=made.parent)
    left = [str(path.relative_to(root)) for path in root.rglob("*")]
    if left:
        raise Failure(f"make uninstall leaves {' '.join(left)}")
    print("ok: make install, what it installed, make uninstall")


def main():
    build, source = (pathlib.Path(word).resolve() for word in sys.argv[1:3])
    compiler = sys.argv[3:]
    if build.parent != source:
        print(f"SKIP: {build} is not in {source} itself: names of files begin elsewhere")
        return 77
    with tempfile.TemporaryDirectory(prefix="asyncpf-install-") as name:
        folder = pathlib.Path(name)
        copy = folder / "somewhere-else"
        try:
            made = copy / build.name
            build_copy(build, source, copy, made, compiler)
            check_same(build, source, made, copy, folder, compiler)
            check_make(source, made, folder, compiler)
        except Failure as failure:
            print(failure)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
