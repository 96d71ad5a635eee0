# SPDX-License-Identifier: Apache-2.0
"""Boots of the stock Linux guest in the lab: what tests/lab/linux_test.py and
tools/demo-linux share. guests/linux/README.md says what the guest does and reports.

A list of boots becomes a shell script, which the lab runs; run_boots() reads its output
while it comes. Several labs share the boots of a list, each with a script of its own.
Test: tests/unit/linux_guests_test.py.
"""
import dataclasses
import json
import pathlib
import re
import shlex
import subprocess
import tempfile
import threading

import vmlinux

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAB = ROOT / "tools" / "lab"
SCRIPT = ROOT / "tools" / "linux_boots.sh"
# Errors only on the console, an end after a panic; mitigations cost much under emulation, and
# so does watching the TSC, which is this machine's own.
CMDLINE = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable"
# What the script says by itself, and what the guest's console or the command said.
MARK = re.compile(r"^@@ (\d+) (begin|asked|held|still|counters|date|idle|balloon|needed|vsock|"
                  r"talking|end)(?: (.*))?$")
LINE = re.compile(r"^(\d+)\| (.*)$")
GUEST = "guest: "  # before each line of guests/linux
TICKS_PER_S = 100  # of /proc/PID/stat


@dataclasses.dataclass
class Boot:
    """One guest: what it is made of, and what it does."""
    name: str
    steps: list
    kernel: str = "6.12"
    elf: bool = False    # boots the ELF file inside Debian's bzImage, by its PVH entry
    cpus: int = 1
    memory: str = "512M"
    faults: str = "user"
    options: list = dataclasses.field(default_factory=list)
    resident: str = ""   # --resident-max, with a swap file
    swap_wrap: str = ""
    initrd: str = "linux.cpio"
    nets: tuple = ()     # --net of each; by each that forwards a port and by a tap the guest
                         # is asked for the file `data` from outside
    limit_s: int = 120
    about_s: int = 12    # that it takes, to share boots among labs
    first: bool = False  # before all others, beside what is first in the other labs
    beside: bool = False # those after it in its lab need not wait for it: it stands still

    def kernel_name(self):
        return f"{'vmlinux' if self.elf else 'vmlinuz'}-{self.kernel}"

    def words(self, number):
        """What follows `asyncpf run` in the lab."""
        swap = []
        if self.resident:
            swap = ["--resident-max", self.resident, "--swap", f"swap.{number}"]
        if self.swap_wrap:
            swap += ["--swap-wrap", self.swap_wrap]
        return ["--local", "--kernel", self.kernel_name(), "--initrd", self.initrd,
                "--memory", self.memory, "--cpus", str(self.cpus), "--faults", self.faults,
                *(word for net in self.nets for word in ("--net", net)), *swap,
                *(word.replace("NUMBER", str(number)) for word in self.options),
                "--cmdline", " ".join([CMDLINE, "--", *self.steps])]


@dataclasses.dataclass
class Result:
    """What became of a boot."""
    boot: Boot
    lines: list = dataclasses.field(default_factory=list)    # all that was printed
    reports: list = dataclasses.field(default_factory=list)  # the guest's, in order
    wrong: list = dataclasses.field(default_factory=list)    # what the guest found wrong
    status: int = None        # None: it did not end
    stats: dict = None        # of `asyncpf run --json`
    counters: list = dataclasses.field(default_factory=list) # before and after each load
    vsock: str = None         # what tests/lab/vsock_peer.c said
    talking: tuple = None     # socket connections: as the guest stood still, at the pause's end;
                              # of those made meanwhile: that the guest took, all
    needed: dict = None       # `asyncpf status`, once the guest had what it needed
    balloons: list = dataclasses.field(default_factory=list) # [exit code, text] of each change
    dates: list = dataclasses.field(default_factory=list)    # the host's, as it said "stood"
    # By way ("user", "tap"): answers from outside that were right, wrong, or did not come.
    asked: dict = dataclasses.field(default_factory=dict)
    held: tuple = None        # files: right at last, under way in a minute's pause, all
    still: tuple = None       # asked in that pause: answered within it, in the end, all
    idle_share: float = None  # of one CPU, while the guest idled: the least of several looks

    def report(self, step):
        """The last report of a step, or None."""
        found = [r for r in self.reports if r.get("step") == step]
        return found[-1] if found else None

    def counted(self, word):
        """How much a counter of `asyncpf status` grew during the last load, filling aside."""
        return self.counters[-1][word] - self.counters[-2][word]

    def take_line(self, text):
        self.lines.append(text)
        if text.startswith(GUEST):
            words = text[len(GUEST):]
            try:
                self.reports.append(json.loads(words))
            except ValueError:
                self.wrong.append(words)

    def take_mark(self, kind, rest):
        if kind == "idle":
            ticks0, up0, ticks1, up1 = map(float, rest.split())
            share = (ticks1 - ticks0) / TICKS_PER_S / (up1 - up0)
            self.idle_share = share if self.idle_share is None else min(share, self.idle_share)
        elif kind == "asked":
            way, *counts = rest.split()
            self.asked[way] = tuple(map(int, counts))
        elif kind in ("held", "still", "talking"):
            setattr(self, kind, tuple(map(int, rest.split())))
        elif kind == "date":
            self.dates.append(int(rest))
        elif kind == "vsock":
            self.vsock = rest
        elif kind == "needed" and rest:
            self.needed = json.loads(rest)
        elif kind == "balloon":
            status, _, text = rest.partition(" ")
            self.balloons.append((int(status), text))
        elif kind == "counters" and rest:
            self.counters.append(json.loads(rest))
        elif kind == "end":
            status, _, stats = rest.partition(" ")
            self.status = int(status)
            self.stats = json.loads(stats) if stats.strip() else None


def script_of(numbered):
    """The script that runs the boots of [(number, boot), …] one after the other."""
    return SCRIPT.read_text(encoding="utf-8") + "".join(
        f"boot {n} {b.limit_s} {shlex.join(b.words(n))}{' &' if b.beside else ''}\n"
        for n, b in numbered) + "wait\n"


def shares(boots, labs):
    """[[(number, boot), …], …]: one share for each lab, of about the same length."""
    result = [[] for _ in range(labs)]
    for n, boot in sorted(enumerate(boots), key=lambda e: (not e[1].first, -e[1].about_s)):
        min(result, key=lambda share: sum(b.about_s for _, b in share)).append((n, boot))
    return result


def read_output(stream, results, show):
    """Takes the script's output into results; show(result) as each boot begins and ends."""
    for raw in stream:
        text = raw.rstrip("\r\n")
        mark, line = MARK.match(text), LINE.match(text)
        if mark:
            results[int(mark[1])].take_mark(mark[2], mark[3] or "")
            if mark[2] in ("begin", "end"):
                show(results[int(mark[1])])
        elif line:
            results[int(line[1])].take_line(line[2].rstrip("\r"))
        elif text:
            print(text, flush=True)


def kernel_path(version):
    """Where Debian's kernel is; it is fetched if need be. Raises CalledProcessError."""
    done = subprocess.run([LAB, "kernel", "--kernel", version], check=True, text=True,
                          stdout=subprocess.PIPE)
    return done.stdout.strip()


def kernel_files(boots, folder):
    """--file's words for the kernels; `folder` is for what has to be unpacked."""
    files = {}
    for boot in boots:
        name = boot.kernel_name()
        if name in files:
            continue
        files[name] = path = kernel_path(boot.kernel)
        if boot.elf:
            files[name] = folder / name
            files[name].write_bytes(vmlinux.unpack(pathlib.Path(path).read_bytes()))
    return [f"{path}:{name}" for name, path in files.items()]


class Lab(threading.Thread):
    """One lab, the boots that are its share, and its exit code once it is over."""

    def __init__(self, words, numbered, results, show):
        super().__init__()
        self.command = [str(LAB), "run", *words, "--", "sh", "-c", script_of(numbered)]
        self.results, self.show = results, show
        self.code = 1

    def run(self):
        with subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True,
                              errors="replace") as lab:
            read_output(lab.stdout, self.results, self.show)
        # Ended by a signal: as a shell would tell it.
        self.code = lab.returncode if lab.returncode >= 0 else 128 - lab.returncode


def run_boots(boots, build, files=(), timeout_s=600, labs=1, cpus=1, slow=1, options=(),
              show=lambda result: None):
    """
    ([Result, …], the worst of the labs' exit codes). `files`: further ones that the boots
    need, `options`: more for tools/lab; `timeout_s` by the labs' clock, which runs `slow` times
    slower than this machine's; `labs`: how many share them; `cpus` of each; show() is called by
    one at a time.
    """
    results = [Result(b) for b in boots]
    one_by_one = threading.Lock()

    def show_locked(result):
        with one_by_one:
            show(result)

    with tempfile.TemporaryDirectory() as folder:
        build = pathlib.Path(build)
        files = [build / "asyncpf", build / "guests/linux.cpio", *files,
                 *kernel_files(boots, pathlib.Path(folder))]
        words = ["--cpus", str(cpus), "--memory", "2560", "--timeout", str(timeout_s * slow)]
        if slow > 1:
            words += ["--slow", f"{build / 'slow_clock.so'}:{slow}"]
        words += options
        for path in files:
            words += ["--file", str(path)]
        running = []
        for n, share in enumerate(s for s in shares(boots, labs) if s):
            log = [] if labs == 1 else ["--log", str(build / f"lab-{n}.log")]
            lab = Lab(words + log, share, results, show_locked)
            lab.start()
            running.append(lab)
        for lab in running:
            lab.join()
    return results, max((lab.code for lab in running), default=0)
