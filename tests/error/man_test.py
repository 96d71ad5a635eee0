#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The man pages are well-formed, and they and the completions name exactly the options
that the command has.

usage: man_test.py PATH_OF_ASYNCPF SOURCE_FOLDER
"""
import pathlib
import re
import shutil
import subprocess
import sys


def options_of_help(asyncpf, verb):
    text = subprocess.run([asyncpf, verb, "--help"], capture_output=True, text=True,
                          check=True).stdout
    return set(re.findall(r"^  (?:-h, )?--([a-z-]+)", text, re.M))


def options_of_page(page):
    return set(re.findall(r"^\.It Fl -([a-z-]+)", page, re.M))


def options_of_bash(text, verb):
    found = re.search(rf"^\s+{verb}\) words='([^']*)'", text, re.M)
    return {w[2:] for w in found.group(1).split()} if found else set()


def options_of_zsh(text, verb):
    found = re.search(rf"^(?:[\w |]+ )?{verb}(?: [\w |]+)?\)\n(.*?)^\t;;", text, re.M | re.S)
    own = re.findall(r"^\t\t?.*?--([a-z-]+)=?\[", found[1], re.M) if found else []
    return {*own, "help", "version"}


def options_of_fish(text, verb):
    found = re.search(rf"^set -l of '__fish_seen_subcommand_from {verb}'\n(.*?)(?:\n\n|\Z)", text,
                      re.M | re.S)
    own = re.findall(r"-n \$of -l ([a-z-]+)", found[1]) if found else []
    return {*own, "help", "version"}


def wrong_references(pages):
    """Each names pages that there are; asyncpf(1) all of them."""
    bad, names = [], {page.name for page in pages}
    for page in pages:
        named = {f"{name}.{section}" for name, section in
                 re.findall(r"^\.Xr (asyncpf\S*) (\d)", page.read_text(encoding="utf-8"), re.M)}
        bad += [f"{page.name}: there is no {name}" for name in sorted(named - names)]
        if page.name == "asyncpf.1":
            also = page.read_text(encoding="utf-8").split(".Sh SEE ALSO\n")[1]
            bad += [f"asyncpf.1: SEE ALSO lacks {name}" for name in sorted(names - {page.name})
                    if f".Xr {name[:-2]} {name[-1]}" not in also]
    return bad


def main():
    asyncpf, source = sys.argv[1], pathlib.Path(sys.argv[2])
    bad = []
    pages = sorted((source / "docs/man").glob("*.[0-9]"))
    completions = {name: (source / "completions" / name).read_text(encoding="utf-8")
                   for name in ("asyncpf.bash", "_asyncpf", "asyncpf.fish")}
    listing = subprocess.run([asyncpf, "--help"], capture_output=True, text=True,
                             check=True).stdout.split("Verbs:\n")[1].split("\n\n")[0]
    for verb in [line.split()[0] for line in listing.splitlines()]:
        page = source / f"docs/man/asyncpf-{verb}.1"
        have = options_of_help(asyncpf, verb)
        if not page.exists():
            bad.append(f"{page}: missing")
            continue
        there = {"page": options_of_page(page.read_text(encoding="utf-8")),
                 "bash": options_of_bash(completions["asyncpf.bash"], verb),
                 "zsh": options_of_zsh(completions["_asyncpf"], verb),
                 "fish": options_of_fish(completions["asyncpf.fish"], verb)}
        bad += [f"{verb}: {where} and --help differ in: {' '.join(sorted(have ^ options))}"
                for where, options in there.items() if have != options]
    bad += wrong_references(pages)
    if subprocess.run(["bash", "-n", source / "completions/asyncpf.bash"],
                      check=False).returncode != 0:
        bad.append("completions/asyncpf.bash: bash does not parse it")
    if shutil.which("mandoc"):
        done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", *pages],
                              capture_output=True, text=True, check=False)
        bad += done.stdout.splitlines()
    else:
        print("SKIP: the pages' syntax: mandoc is not installed")
    print("\n".join(bad))
    return 1 if bad or not pages else 0


if __name__ == "__main__":
    sys.exit(main())
