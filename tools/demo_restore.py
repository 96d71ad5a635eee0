# SPDX-License-Identifier: Apache-2.0
"""A stock Debian guest with Redis, snapshotted while its data is in memory, then restored by each
way of serving its faults, from memory that is some milliseconds away.

usage: tools/demo-restore BUILD_FOLDER [OPTION]...

Several redis-servers, as a store that is cut into shards has them, hold the data. A client outside
has a connection to each and asks for keys at random, the same in each run, from before the
restore on; it looks at every byte. The guest runs in the lab (docs/lab.md), one restore after
the other. Its memory's servers, where it has some, and the client run on this machine.

  --ways LIST     which, in this order; default eager,block,stall,kernel,user,prefetch. eager: all
                  memory is there before it goes on; prefetch: user, with a working set that a run
                  before all others, called record, has noted
  --sources LIST  where its memory is; default file,nbd,http,zst: a raw file, nbdkit, nginx, a
                  compressed image
  --delays LIST   milliseconds that each read from there takes more; default 10,30
  --servers N     redis-servers of the guest; default 8
  --mib N         of data in each; default 8
  --memory MIB    of the guest; default 256
  --seconds N     of each run, from when the guest goes on, or until it has answered, 120 s later
                  at most; default 40
  --slow N        that the lab's clock runs so many times slower than this machine's
                  (docs/decisions/0010); default 4. All times are by it
  --seed N        of the keys; default 1
  --folder DIR    keep the snapshot there, and take the one that is there; it must be of the same
                  --servers, --mib and --memory
  --json FILE     write the results to FILE as JSON, too
  --svg FILE      draw the answers per second of the first source and delay
  --quiet         show no progress, only the results
  --help

Exit code 0 when every guest answered, and never with what it did not hold.
Test: tests/unit/demo_restore_test.py.
"""
import contextlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

import restore_plot
from lab_parts import Stopped, end_by, stop_on_signals
from lab_parts.progress import Progress
from lab_parts.words import Parser, list_of, whole
from restore_client import VALUE_BYTES, Client
from restore_servers import Servers, free_ports

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAB = ROOT / "tools" / "lab"
SCRIPT = ROOT / "tools" / "restore_runs.sh"
# What `asyncpf restore` is told, and whether the guest stands still until all is there.
WAYS = {
    "eager": (["--faults", "user", "--fill"], True),
    "block": (["--faults", "block"], False),
    "stall": (["--faults", "stall"], False),
    "kernel": (["--faults", "kernel"], False),
    "user": (["--faults", "user"], False),
    "prefetch": (["--faults", "user", "--prefetch", "set"], False),
}
# The run that notes the working set of prefetch, with nothing added to its reads.
RECORD = (["--faults", "user", "--record", "set", "--record-time", "86400"], False)
SOURCES = ["file", "nbd", "http", "zst"]
SAVED = "@@ saved"
BIN_S = 0.5  # of the picture
MARK = re.compile(r"^@@ (\d+) (begin|goes|status|end)(?: (.*))?$")
BOOT_S = 240  # at most, of the guest until its servers hold their data
EAGER_S = 120 # at most, of filling
PATIENCE_S = 120 # at most, that a run goes on for its first answer
MIB = 1 << 20


# ---- the command line ----

def parse(argv):
    if "--help" in argv or "-h" in argv:
        print(__doc__.strip())
        sys.exit(0)
    parser = Parser("tools/demo-restore")
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--ways", type=list_of(list(WAYS)), default=list(WAYS))
    parser.add_argument("--sources", type=list_of(SOURCES), default=SOURCES)
    parser.add_argument("--delays", default=[10, 30],
                        type=lambda text: [whole(0, 1000)(word) for word in text.split(",")])
    parser.add_argument("--servers", type=whole(1, 16), default=8)
    parser.add_argument("--mib", type=whole(1, 256), default=8)
    parser.add_argument("--memory", type=whole(64, 2048), default=256)
    parser.add_argument("--seconds", type=whole(1, 600), default=40)
    parser.add_argument("--slow", type=whole(1, 64), default=4)
    parser.add_argument("--seed", type=whole(0, 1 << 30), default=1)
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--svg", type=pathlib.Path)
    parser.add_argument("--quiet", action="store_true")
    o = parser.parse_args(argv)
    o.memory -= o.memory % 2
    return o


# ---- what is measured ----

class Run:
    """One restore."""

    def __init__(self, way, source, delay_ms):
        self.way, self.source, self.delay_ms = way, source, delay_ms
        self.began = self.ended = None  # by this machine's clock
        self.status = {}
        self.code = None
        self.client = None

    def name(self):
        return f"{self.way}, {self.source}, {self.delay_ms} ms"

    def words(self, uri):
        words, eager = RECORD if self.way == "record" else WAYS[self.way]
        return ["eager" if eager else "lazy", *words, "--source", uri]


def runs_of(o):
    """The first notes the working set, where one is wanted."""
    first = [Run("record", "file", 0)] if "prefetch" in o.ways else []
    return first + [Run(way, source, delay) for source in o.sources for delay in o.delays
                    for way in o.ways]


def part(sorted_values, share):
    """The quantile, by the nearest rank above."""
    if not sorted_values:
        return None
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))]


def rates_of(times, seconds):
    """Answers per second, in bins."""
    bins = [0] * max(1, round(seconds / BIN_S))
    for t in times:
        if 0 <= t < len(bins) * BIN_S:
            bins[int(t / BIN_S)] += 1
    return [n / BIN_S for n in bins]


def outcome_of(run, slow):
    """What a run came to, in seconds of the lab's clock since the restore began."""
    answers = [((asked - run.began) / slow, (got - run.began) / slow)
               for asked, got in run.client.answers if got <= run.ended]
    open_since = [max((run.ended - asked) / slow, 0) for asked in run.client.open]
    seconds = (run.ended - run.began) / slow
    # Who has waited from before on has waited since the restore.
    waits = sorted(got - max(asked, 0) for asked, got in answers)
    times = [got for _, got in answers]
    return {
        "way": run.way, "source": run.source, "delay_ms": run.delay_ms,
        "seconds": seconds,
        "first_answer_s": min(times) if times else None,
        "answers": len(times),
        "p50_s": part(waits, 0.5), "p99_s": part(waits, 0.99), "p999_s": part(waits, 0.999),
        "max_s": waits[-1] if waits else None,
        "unanswered_s": max(open_since, default=0),
        "bin_s": BIN_S, "answers_per_s": rates_of(times, seconds),
        "read_bytes": run.status.get("read_bytes"),
        "verified": run.client.wrong == 0 and run.code == 5 and bool(times),
        "wrong": run.client.wrong, "exit_code": run.code,
        "status": run.status,
    }


# ---- the lab ----

def make_guest(o, folder):
    """folder/vmlinuz, folder/initrd.img, and folder/memory, where its memory is to go."""
    subprocess.run([LAB, "guest", folder, "--redis"], check=True, stdout=subprocess.DEVNULL)
    with open(folder / "memory", "wb") as f:
        f.truncate(o.memory * MIB)


def make_snapshot(o, folder):
    """folder/memory, folder/state and folder/snapshot.json, in a start of the lab's."""
    words = ["--timeout", BOOT_S * o.slow + 120, "--memory", o.memory * 2 + 768,
             "--library", "libslirp.so.0", "--disk", folder / "memory",
             "--get", f"snap/state:{folder}/state",
             "--get", f"snap/snapshot.json:{folder}/snapshot.json"]
    for path in (o.build / "asyncpf", folder / "vmlinuz", folder / "initrd.img"):
        words += ["--file", path]
    subprocess.run([str(w) for w in (LAB, "run", *slow_words(o), *words, "--", "sh", "-c",
                                     f"{head_of(o, 0)}\nsave\n")],
                   check=True, stdout=subprocess.PIPE)


def head_of(o, first_port):
    """What both scripts begin with."""
    return (f"memory_mib={o.memory} servers={o.servers} mib={o.mib} from={first_port} "
            f"boot_s={BOOT_S}\n{SCRIPT.read_text(encoding='utf-8')}")


def slow_words(o):
    return ["--slow", f"{o.build / 'slow_clock.so'}:{o.slow}"] if o.slow > 1 else []


def script_of(o, runs, uris, ports, saves):
    """What the lab does. saves: it makes the snapshot, too, whose memory then is elsewhere."""
    lines = [head_of(o, ports[0]), "export ASYNCPF_NET_MODULE=$PWD/asyncpf-net.so"]
    lines += ["save", "rm snap/memory"] if saves else ["mkdir -m 700 snap",
                                                       "mv state snapshot.json snap/"]
    lines += [f"truncate -s {o.memory}M snap/memory", "chmod 600 snap/*"]
    for n, run in enumerate(runs):
        uri = uris(run.source, run.delay_ms)
        lines.append(f"run {n} " + " ".join(f"'{word}'" for word in run.words(uri)))
    return "\n".join(lines) + "\n"


class Reader:
    """Takes the lab's lines, starts and stops the client with the runs, and says when one has been
    long enough: end() is called then, by another thread."""

    def __init__(self, o, runs, ports, progress, end):
        self.o, self.ports, self.progress, self.end = o, ports, progress, end
        self.runs = runs

    def pace(self, run):
        until = time.monotonic() + self.o.seconds * self.o.slow
        patience = until + PATIENCE_S * self.o.slow
        while time.monotonic() < (until if run.client.answers else patience):
            time.sleep(0.02)
        self.end()

    def take(self, line):
        found = MARK.match(line)
        if not found:
            if line and line != SAVED:
                self.progress.complain(line)
            return
        run, kind, rest = self.runs[int(found[1])], found[2], found[3] or ""
        if kind == "begin":
            self.progress.say(f"{run.name()}: restored")
            run.client = Client(self.ports, self.o.mib * MIB // VALUE_BYTES, self.o.seed)
            run.began = time.monotonic()
            run.client.start()
        elif kind == "goes":
            threading.Thread(target=self.pace, args=[run], daemon=True).start()
        elif kind == "status":
            run.ended = time.monotonic()
            run.client.stop()
            run.status = json.loads(rest) if rest else {}
        else:
            run.code = int(rest)


def restore_all(o, folder, runs, progress, saves):
    """Runs them in one start of the lab. Returns its exit code."""
    with Servers(folder / "memory", o.slow, o.build) as servers:
        pack = ["--file", folder / "memory.zst"] if "zst" in o.sources else []
        if pack:
            subprocess.run([o.build / "asyncpf", "image", "pack", "--quiet", "--force",
                            folder / "memory", folder / "memory.zst"], check=True,
                           stdout=subprocess.DEVNULL)
        ports = free_ports(o.servers)
        script = script_of(o, runs, servers.uri, ports, saves)
        eager = sum(run.way == "eager" for run in runs) * EAGER_S
        limit_s = (o.seconds + PATIENCE_S + 20) * len(runs) + eager + (BOOT_S if saves else 0) + 60
        words = ["--timeout", limit_s * o.slow + 120, "--memory", o.memory * 2 + 1024, "--net",
                 "--library", "libslirp.so.0", "--disk",
                 f"{folder / 'memory'},{'rw' if saves else 'ro'}", *pack]
        for port in ports:
            words += ["--forward", f"tcp:127.0.0.1:{port}"]
        names = ("vmlinuz", "initrd.img") if saves else ("state", "snapshot.json")
        for path in (o.build / "asyncpf", o.build / "asyncpf-net.so",
                     *(folder / name for name in names)):
            words += ["--file", path]
        with subprocess.Popen([str(w) for w in (LAB, "run", "--stdin", *slow_words(o), *words,
                                                "--", "sh", "-c", script)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                              errors="replace") as process:
            def end():
                with contextlib.suppress(OSError):
                    process.stdin.write("\n")
                    process.stdin.flush()

            reader = Reader(o, runs, ports, progress, end)
            for line in process.stdout:
                reader.take(line.rstrip("\r\n"))
        return process.returncode


# ---- the results ----

def text_of(value, form="{:.2f}", times=1):
    return "-" if value is None else form.format(value * times)


def print_table(o, outcomes):
    print(f"guest: Debian's Linux 6.12, 1 vCPU, {o.memory} MiB; {o.servers} redis-servers with "
          f"{o.mib} MiB each,\na client with a connection to each, keys at random")
    print("lab: all times are by its clock, "
          f"{f'{o.slow} times slower than' if o.slow > 1 else 'as fast as'} this machine's\n")
    print(f"{'':<8} {'':<4} {'':>5} {'first':>7} {'':>7} {'wait for an answer, ms':>26}")
    print(f"{'':<8} {'':<4} {'delay':>5} {'answer':>7} {'':>7} {'':>26} {'fetched':>7}")
    print(f"{'way':<8} {'from':<4} {'ms':>5} {'s':>7} {'answers':>7} {'p50':>8} {'p99':>8} "
          f"{'p99.9':>8} {'MiB':>7}  verified")
    for r in outcomes:
        print(f"{r['way']:<8} {r['source']:<4} {r['delay_ms']:>5} "
              f"{text_of(r['first_answer_s']):>7} {r['answers']:>7} "
              f"{text_of(r['p50_s'], '{:.1f}', 1000):>8} {text_of(r['p99_s'], '{:.1f}', 1000):>8} "
              f"{text_of(r['p999_s'], '{:.1f}', 1000):>8} "
              f"{text_of(r['read_bytes'], '{:.1f}', 1 / MIB):>7}  "
              f"{'yes' if r['verified'] else 'NO'}")


def draw_first(o, outcomes):
    first = next((r for r in outcomes if r["way"] != "record"), outcomes[0])
    chosen = [r for r in outcomes
              if (r["source"], r["delay_ms"]) == (first["source"], first["delay_ms"])]
    title = (f"Answers per second of a restored Redis; memory: {first['source']}, "
             f"{first['delay_ms']} ms away")
    o.svg.write_text(restore_plot.draw(
        [(r["way"], r["bin_s"], r["answers_per_s"]) for r in chosen], title), encoding="utf-8")


def write_json(o, outcomes):
    setup = {k: v for k, v in vars(o).items()
             if k not in ("build", "folder", "json", "svg", "quiet")}
    o.json.write_text(json.dumps({**setup, "runs": outcomes}, indent=1) + "\n",
                      encoding="utf-8")


# ---- running it ----

def main(argv):
    stop_on_signals()
    o = parse(argv)
    progress = Progress(o.quiet, "in the lab: ")
    stopped = None
    try:
        runs = runs_of(o)
        with contextlib.ExitStack() as stack:
            folder = o.folder or pathlib.Path(stack.enter_context(
                tempfile.TemporaryDirectory(prefix="asyncpf-demo-")))
            progress.say("the lab starts; the guest boots and fills its memory")
            # Here it is packed, or kept, before it is restored.
            apart = o.folder or "zst" in o.sources
            if not (folder / "state").is_file():
                make_guest(o, folder)
                if apart:
                    make_snapshot(o, folder)
            try:
                code = restore_all(o, folder, runs, progress, not apart)
            except Stopped as e: # what is over counts all the same
                code, stopped = 1, e
        outcomes = [outcome_of(run, o.slow) for run in runs if run.client and run.ended]
        if outcomes:
            print_table(o, outcomes)
        if o.json:
            write_json(o, outcomes)
        if o.svg and outcomes:
            draw_first(o, outcomes)
    except Stopped as e:
        return end_by(e.number)
    except subprocess.CalledProcessError as e:
        for line in (e.stdout or b"").decode(errors="replace").splitlines()[-10:]:
            progress.complain(line)
        return e.returncode if e.returncode > 0 else 1
    except OSError as e:
        print(f"asyncpf: cannot run: {e.filename}: {e.strerror}; check the paths, and that "
              "nbdkit and nginx are installed", file=sys.stderr)
        return 1
    if stopped:
        return end_by(stopped.number)
    if code:
        return code
    return 0 if len(outcomes) == len(runs) and all(r["verified"] for r in outcomes) else 1
