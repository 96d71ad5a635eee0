#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""README.md is true: every command block of it does what it says, its program compiles, its tables
have the form that the commands print, its numbers of lines are right, and it fits a terminal.

usage: readme_test.py PATH_OF_ASYNCPF SOURCE_FOLDER MULTIBOOT_KERNEL
       readme_test.py --boot PATH_OF_ASYNCPF SOURCE_FOLDER

A block marked `sh` holds commands; one marked `console` commands behind "$ ", and behind the
prompt "guest # " what is typed into the guest that the last one has booted; behind "host $ " stands
what is done elsewhere while it waits at its prompt. With --boot those are
run, which takes a lab or a fast KVM, and minutes; without, all others. What names a control
socket speaks to a VM that is started for it.
"""
import contextlib
import os
import pathlib
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

COLUMNS = 80
FIRST_SCREEN = 46  # lines: a title, for whom, one picture, three commands
SECONDS = 240      # of one command
BOOT_SECONDS = 300
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
PROMPT = "guest # "
HOST = "host $ "


def blocks(text, mark):
    return [body.replace("\\\n", " ") for kind, body in BLOCK.findall(text) if kind == mark]


def commands(text):
    for body in blocks(text, "sh"):
        for line in body.splitlines():
            line = line.split(" #")[0].strip()
            if line and not line.startswith("#"):
                yield line


# ---- what is not run ----

def check_text(text, source):
    wrong = [f"{n}: {len(line)} columns" for n, line in enumerate(text.splitlines(), 1)
             if len(line) > COLUMNS and "](" not in line]
    unknown = {kind for kind, _ in BLOCK.findall(text)} - {"sh", "console", "text", "c"}
    if unknown:
        wrong.append(f"blocks that nobody checks: {unknown}")
    screen = "\n".join(text.splitlines()[:FIRST_SCREEN])
    pictures, first = blocks(screen, "text"), blocks(screen, "sh")
    if len(pictures) != 1 or [len(list(commands(f"```sh\n{b}```"))) for b in first] != [3]:
        wrong.append("the first screen has not one picture and three commands")
    return wrong + check_program(text, source) + check_lines_of_examples(text, source)


def check_program(text, source):
    """What is shown of a VMM compiles, in a function that has what a VMM has."""
    shown, = blocks(text, "c")
    program = f"""#include <errno.h>
#include <linux/kvm.h>
#include "asyncpf/asyncpf.h"
void vmm(int vm_fd, int vcpu_fd, int memfd, void *ram, uint64_t ram_bytes, struct kvm_run *run,
         struct kvm_cpuid2 *cpuid, unsigned cpuid_room);
void vmm(int vm_fd, int vcpu_fd, int memfd, void *ram, uint64_t ram_bytes, struct kvm_run *run,
         struct kvm_cpuid2 *cpuid, unsigned cpuid_room)
{{
struct apf_config config;
struct apf_memory memory;
struct apf_error error;
struct kvm_userspace_memory_region slot;
struct apf *apf;
struct apf_vcpu *vcpu;
{shown.replace("...", ";")}
(void)slot;
}}
"""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if not shutil.which(compiler[0]):
        print(f"SKIP: no {compiler[0]}: the program of README.md")
        return []
    done = subprocess.run([*compiler, "-std=gnu11", "-Wall", "-Wextra",
                           "-Werror", "-Wno-unused-but-set-variable", "-fsyntax-only",
                           f"-I{source}/include", "-xc", "-"], input=program, capture_output=True,
                          text=True, check=False)
    return [f"the program: {line}" for line in done.stderr.splitlines()]


def check_lines_of_examples(text, source):
    examples = source / "examples"
    whole = len((examples / "minimal.c").read_text(encoding="utf-8").splitlines())
    diff = subprocess.run(["diff", examples / "plain.c", examples / "adopted.c"],
                          capture_output=True, text=True, check=False).stdout
    new = len(re.findall(r"^>", diff, re.M))
    flat = " ".join(text.split())
    return [f"not said: {words}" for words in (f"a whole VMM of {whole} lines",
                                               f"the same with it, {new} lines of it new")
            if words not in flat]


# ---- commands ----

def shell(line, folder, seconds):
    """(exit code, error output) of a command; after that long it ends, with all it started."""
    with subprocess.Popen(["sh", "-c", line], cwd=folder, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          start_new_session=True) as proc:
        try:
            said = proc.communicate(timeout=seconds)[1]
        except BaseException:
            os.killpg(proc.pid, signal.SIGKILL)
            raise
        return proc.returncode, said


def failure(line, asyncpf, source, folder):
    """What is wrong with the command, or None."""
    words = shlex.split(line)
    if words[0] == "make":
        verbs = [w for w in words[1:] if "=" not in w and not w.startswith("-")]
        done = subprocess.run(["make", "-n", *verbs], cwd=source, capture_output=True, text=True,
                              check=False)
        return None if done.returncode == 0 else done.stderr
    if words[0] != "build/asyncpf":
        return "nobody knows how to check it"
    try:
        code, said = shell(line.replace(words[0], shlex.quote(asyncpf), 1), folder, SECONDS)
    except subprocess.TimeoutExpired:
        return f"not done after {SECONDS} s"
    return None if code == 0 else f"exit code {code}\n{said}"


@contextlib.contextmanager
def running_vm(asyncpf, kernel, folder):
    """For the verbs that speak to one: vm.sock in the folder."""
    with subprocess.Popen(
            [asyncpf, "run", "--local", "--kernel", kernel, "--memory", "16M", "--cmdline",
             "spin", "--control", "vm.sock", "--resident-max", "16M", "--swap", "vm.swap",
             "--balloon", "on"],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as vm:
        try:
            while (line := vm.stdout.readline()) and "spin" not in line:
                pass
            yield
        finally:
            vm.kill()


def run_commands(text, asyncpf, source, kernel):
    has_kvm = os.access("/dev/kvm", os.R_OK | os.W_OK)
    bad = 0
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        pathlib.Path(folder, "mem").write_bytes(os.urandom(1 << 20))
        started = False
        for line in commands(text):
            if "asyncpf" in line and "--help" not in line and not has_kvm:
                print(f"SKIP: no /dev/kvm: {line}")
                continue
            if "vm.sock" in line and not started:
                stack.enter_context(running_vm(asyncpf, kernel, folder))
                started = True
            why = failure(line, asyncpf, source, folder)
            print(f"{'FAILED' if why else 'ok'}: {line}{': ' + why if why else ''}")
            bad += why is not None
        if has_kvm:
            bad += subprocess.run([source / "tools/readme", pathlib.Path(asyncpf).parent,
                                   "--check"], check=False).returncode != 0
    return bad


# ---- boots ----

class Guest:
    """A command at a terminal, and what is typed into the guest that it boots."""

    def __init__(self, line, folder):
        self.seen = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvp("sh", ["sh", "-c", line])

    def read(self, end):
        left = end - time.monotonic()
        if left <= 0:
            raise AssertionError(f"not done after {BOOT_SECONDS} s: {self.seen[-2000:]}")
        if select.select([self.fd], [], [], left)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:  # nobody has it open any more
                return False
            self.seen += data.decode(errors="replace")
        return True

    def wait(self):
        end = time.monotonic() + BOOT_SECONDS
        while PROMPT not in self.seen:
            if not self.read(end):
                raise AssertionError(f"it ended: {self.seen[-2000:]}")

    def type(self, text):
        self.wait()
        self.seen = self.seen.partition(PROMPT)[2]
        os.write(self.fd, text.encode() + b"\r")

    def finish(self):
        end = time.monotonic() + BOOT_SECONDS
        while self.read(end):
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), self.seen

    def kill(self):
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def run_boots(text, folder):
    """Every console block, in order, in one folder: each command's exit code is 0."""
    bad, boots = 0, 0
    for body in blocks(text, "console"):
        # Each command with what is typed until the next one.
        for part in re.split(r"^\$ ", body, flags=re.M)[1:]:
            command, *rest = part.splitlines()
            typed = [line.split(" #")[0].strip() if line.startswith(HOST) else
                     line[len(PROMPT):].split(" #")[0].strip() for line in rest
                     if line.startswith((PROMPT, HOST))]
            guest = Guest(command.split(" #")[0].strip(), folder)
            try:
                for word in typed:
                    if word.startswith(HOST):
                        guest.wait()
                        subprocess.run(word[len(HOST):], shell=True, check=True, timeout=SECONDS)
                    else:
                        guest.type(word)
                code, said = guest.finish()
            finally:
                guest.kill()
            print(f"{'FAILED' if code else 'ok'}: {command}: {said[-1500:]}")
            bad += code != 0
            boots += bool(typed)
    if boots == 0:
        print("README.md boots nothing")
    return bad or boots == 0


def main(argv):
    boot = argv[:1] == ["--boot"]
    asyncpf, source = (pathlib.Path(w).resolve() for w in argv[boot:boot + 2])
    text = (source / "README.md").read_text(encoding="utf-8")
    # Meson ends a test that takes too long by SIGTERM: nothing may stay behind then, either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if boot:
        with tempfile.TemporaryDirectory() as folder:
            # The commands say build/asyncpf, whatever folder this is.
            tree = pathlib.Path(folder)
            os.symlink(asyncpf.parent, tree / "build")
            os.symlink(source / "tools", tree / "tools")
            return 1 if run_boots(text, tree) else 0
    wrong = check_text(text, source)
    print("\n".join(f"README.md: {what}" for what in wrong))
    bad = run_commands(text, str(asyncpf), source, str(pathlib.Path(argv[2]).resolve()))
    return 1 if wrong or bad else 0


if __name__ == "__main__":
    if not shutil.which("make"):
        print("SKIP: there is no make")
        sys.exit(77)
    sys.exit(main(sys.argv[1:]))
