#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The completions of bash, zsh and fish, in those shells: typed at a terminal, with the tabulator
key, and compared with what the command itself takes.

usage: completion_test.py PATH_OF_ASYNCPF SOURCE_FOLDER
"""
import os
import pathlib
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

ASYNCPF, SOURCE = (str(pathlib.Path(word).resolve()) for word in sys.argv[1:3])
COMPLETIONS = f"{SOURCE}/completions"
LIMIT_S = 60
# Shows the words of a command line as the shell has understood it.
SHOW = "asyncpf() { printf 'got:'; printf '<%s>' \"$@\"; echo :end; }"


def told(*words):
    return subprocess.run([ASYNCPF, *words], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, check=False)


def verbs():
    return [line.split()[0] for line in
            told("--help").stdout.split("Verbs:\n")[1].split("\n\n")[0].splitlines()]


def options(verb):
    """{option: has a value}, as --help has them."""
    return {name: bool(value) for name, value in
            re.findall(r"^  (?:-h, )?(--[a-z-]+)( [A-Z]\S*)?", told(verb, "--help").stdout, re.M)}


def paths(verb):
    """Those of its options whose value is a file, a socket, a folder, or begins as one may."""
    return re.findall(r"^  (--[a-z-]+) (?:FILE|SOCKET|FOLDER|DIR|URI)\b",
                      told(verb, "--help").stdout, re.M)


# Verbs that take a path as their operand, and what stands before it.
OPERANDS = {"image": ("pack", "unpack", "verify", "info"), "report": ("",), "restore": ("",),
            "snapshot": ("",)}


def choices(verb, option):
    """The words that it takes, as it says itself; none if it takes others. Nothing is begun."""
    said = told(verb, option, "?", "--no-such-option").stderr
    found = re.search(r"it must be one of ([a-z0-9, -]+);", said)
    return found[1].split(", ") if found else []


class Terminal:
    """An interactive shell; line() types one, Tab included, and gives back what it became."""

    def __init__(self, words, setup, folder):
        self.seen = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.environ.update(TERM="dumb", PS1="$ ", HOME=folder, INPUTRC="/dev/null",
                              HISTFILE="", COLUMNS="2000")
            os.execvp(words[0], words)
        for line in (*setup, SHOW):
            self.type(line + "\r")
        self.type("asyncpf ready\r")
        self.wait(r"got:<ready>:end")

    def type(self, text):
        os.write(self.fd, text.encode())

    def wait(self, pattern):
        end = time.monotonic() + LIMIT_S
        while not (found := re.search(pattern, self.seen)):
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                raise AssertionError(f"no {pattern!r} in {self.seen!r}")
            self.seen += os.read(self.fd, 65536).decode(errors="replace")
        self.seen = self.seen[found.end():]
        return found

    def line(self, text):
        """The words after the command's name."""
        self.type(f"asyncpf {text}\t\r")
        return re.findall(r"<([^>]*)>", self.wait(r"got:((?:<[^>]*>)*):end")[1])

    def close(self):
        os.close(self.fd)
        os.waitpid(self.pid, 0)


class Shell:
    """What holds in every shell."""
    slash = "/"

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        os.mkdir(f"{self.folder}/directory")
        for name in ("vmlinuz-6", "with space"):
            pathlib.Path(self.folder, name).touch()

    def becomes(self, typed, *words):
        self.assertEqual(self.complete(typed), list(words), typed)

    def test_verbs(self):
        for verb in verbs():
            # Of words with the same start, that is what Tab gives.
            self.becomes(verb[:-1], verb)

    def test_options(self):
        for verb in verbs():
            for option in options(verb):
                typed = option[:-1]
                # Of several that start so, Tab gives what all of them have.
                whole = os.path.commonprefix([o for o in options(verb) if o.startswith(typed)])
                self.becomes(f"{verb} {typed}", verb, whole)

    def test_actions(self):
        for word in ("pack", "unpack", "verify", "info"):
            self.becomes(f"image {word[:-1]}", "image", word)

    def test_values(self):
        seen = 0
        for verb in verbs():
            for option, has_value in options(verb).items():
                for word in choices(verb, option) if has_value else []:
                    if word in ("off", "seed") and verb != "run":
                        continue  # sim's word for none of them
                    seen += 1
                    typed = word[:-1]
                    whole = os.path.commonprefix([w for w in choices(verb, option)
                                                  if w.startswith(typed)])
                    self.becomes(f"{verb} {option} {typed}", verb, option, whole)
                    self.becomes(f"{verb} {option}={typed}", verb, f"{option}={whole}")
        self.assertGreater(seen, 20)

    def test_lists(self):
        for typed, whole in (("blo", "block"), ("user:i", "user:int"),
                             ("block,stall,user:l", "block,stall,user:legacy")):
            self.becomes(f"demo --runs {typed}", "demo", "--runs", whole)
            self.becomes(f"demo --runs={typed}", "demo", f"--runs={whole}")

    def test_files(self):
        seen = 0
        for verb in verbs():
            for option in paths(verb):
                seen += 1
                self.becomes(f"{verb} {option} vml", verb, option, "vmlinuz-6")
                self.becomes(f"{verb} {option}=vml", verb, f"{option}=vmlinuz-6")
        self.assertGreater(seen, 30)

    def test_operands(self):
        self.assertEqual(sorted(OPERANDS), [verb for verb in verbs() if re.search(
            r"usage: .*\.\.\. \S", told(verb, "--help").stdout)])
        for verb, befores in OPERANDS.items():
            # A snapshot is a folder: files may be offered, too, or not.
            start, name = (("dir", f"directory{self.slash}")
                           if verb in ("restore", "snapshot") else ("vml", "vmlinuz-6"))
            for before in befores:
                words = [verb, *filter(None, [before])]
                self.becomes(f"{' '.join(words)} {start}", *words, name)

    def test_paths(self):
        self.becomes("image pack vmlinuz-6 dir", "image", "pack", "vmlinuz-6",
                     f"directory{self.slash}")
        self.becomes("run --kernel dir", "run", "--kernel", f"directory{self.slash}")
        self.becomes("run --kernel with", "run", "--kernel", "with space")

    def test_a_flag_is_followed_by_an_option(self):
        self.becomes("doctor --json --vers", "doctor", "--json", "--version")
        self.becomes("run --stats --cpu", "run", "--stats", "--cpus")


@unittest.skipUnless(shutil.which("bash"), "no bash here")
class Bash(Shell, unittest.TestCase):
    def complete(self, typed):
        return self.terminal.line(typed)

    def setUp(self):
        super().setUp()
        self.terminal = Terminal(
            ["bash", "--norc", "--noprofile", "-i"],
            ["bind 'set bell-style none'", "bind 'set enable-bracketed-paste off'",
             f"source {COMPLETIONS}/asyncpf.bash"], self.folder)
        self.addCleanup(self.terminal.close)


@unittest.skipUnless(shutil.which("zsh"), "no zsh here")
class Zsh(Shell, unittest.TestCase):
    slash = ""  # it takes it back where the line ends

    def complete(self, typed):
        return self.terminal.line(typed)

    def setUp(self):
        super().setUp()
        self.terminal = Terminal(
            ["zsh", "-f", "-i"],
            ["unsetopt beep prompt_sp auto_menu auto_list", f"fpath=({COMPLETIONS} $fpath)",
             "autoload -Uz compinit", f"compinit -u -d {self.folder}/.dump"], self.folder)
        self.addCleanup(self.terminal.close)


@unittest.skipUnless(shutil.which("fish"), "no fish here")
class Fish(Shell, unittest.TestCase):
    """It tells what it would offer; Tab inserts what all of it begins with."""

    def setUp(self):
        super().setUp()
        self.fish = subprocess.Popen(
            ["fish", "--no-config", "-c", f"source {COMPLETIONS}/asyncpf.fish; "
             "while read -l typed; complete -C $typed; echo :end; end"],
            cwd=self.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            env={**os.environ, "HOME": self.folder})
        self.addCleanup(self.fish.wait, LIMIT_S)
        self.addCleanup(self.fish.stdout.close)
        self.addCleanup(self.fish.stdin.close)

    def complete(self, typed):
        self.fish.stdin.write(f"asyncpf {typed}\n")
        offered = []
        while (line := self.fish.stdout.readline()) != ":end\n":
            self.assertTrue(line, "fish has ended")
            offered.append(line.split("\t")[0].rstrip("\n"))
        self.assertTrue(offered, typed)
        return [*typed.split()[:-1], os.path.commonprefix(offered)]


def main():
    run = unittest.main(argv=sys.argv[:1], exit=False)
    for case, reason in run.result.skipped:
        print(f"SKIP: {case.id().rsplit('.', 1)[1]}: {reason}")
    return 0 if run.result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
