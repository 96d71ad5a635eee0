# SPDX-License-Identifier: Apache-2.0
"""A stock Debian guest with too little memory, once for each way of serving its faults.

usage: tools/demo-linux BUILD_FOLDER [OPTION]...

Its processes each use memory and a file of their own, and check every byte of it; only a part
of the guest's memory is held in the host's, the rest is in a swap file whose reads take a
while. The file is in the guest's memory, too, but touched by its kernel, at CPL 0.
Each reads its file when it starts, and then answers requests: some visits, and a rest until
the next. Beside them a process wakes every 20 ms and notes how late it was. The guests run one
after the other in one start of the lab (docs/lab.md), and boot the ELF file inside Debian's
bzImage: unpacking it there would take a third of the time.

  --runs LIST      which ways, in this order; default block,stall,kernel,user
  --processes N    default 16
  --pages N        of memory of each process, 4 KiB each; default 2048
  --file N         pages of the file of each process; default 128
  --file-visits N  per cent of the visits that go to the file; default 10
  --request N      visits of a request; default 16
  --rest-ms N      between two requests; default 100
  --memory MIB     of the guest; default 384
  --resident MIB   of it in the host's memory; default a quarter
  --delay-ms N     that a read from the swap file takes; default 20
  --seconds N      of each measurement; default 20
  --warm N         seconds before it, in which what the start evicted comes back; default 20
  --cpus N         of the guest; default 1
  --lab-cpus N     of the lab; default 1. With 2 the VMM has one beside the vCPU's, as on most
                   hosts, but QEMU may corrupt the guest (docs/decisions/0008)
  --slow N         that the lab's clock runs so many times slower than this machine's, so that
                   by it the emulation is that much faster, in better proportion to reads and
                   to the guest's ticks (docs/decisions/0010); default 4. All times are by it
  --kernel V       Debian's Linux, 6.12 or 6.1; default 6.12
  --json FILE      write the results to FILE as JSON, too
  --quiet          show no progress, only the results
  --help

Exit code 0 when every guest ran and found every byte as it had left it.
Test: tests/unit/demo_linux_test.py.
"""
import json
import pathlib
import subprocess
import sys

from lab_parts import Stopped, end_by, stop_on_signals
from lab_parts.progress import Progress
from lab_parts.words import Parser, list_of, whole
from linux_guests import Boot, run_boots
from vmlinux import VmlinuxError

FAULTS = ["block", "stall", "kernel", "user"]
KERNELS = ["6.12", "6.1"]
# The ticker leaves the guest's scheduler no reason to make it wait: in the emulation a wake-up
# takes over half a millisecond of CPU, and every 10 ms that is more than its share of a busy vCPU.
TICKER_MS = 20
# Four visits of five go to a fifth of the pages, as programs use their memory.
LOAD = ("load=processes:{processes},pages:{pages},file:{file},file_visits:{file_visits},"
        "seconds:{seconds},write:50,hot:20,hot_visits:80,"
        "request:{request},rest_ms:{rest_ms},ticker_ms:{ticker_ms},warm:{warm},stay:1,patience:60")
# Of `asyncpf status`, where it is asyncpf that serves the faults.
TOLD = ["missing_events", "ready_events", "stalls", "stalls_kernel_mode", "stall_kernel_mode_ns",
        "stall_other_ns"]
BOOT_S = 150  # at most, of a guest until its processes run, the emulation being slow


# ---- the command line ----

def parse(argv):
    if "--help" in argv or "-h" in argv:
        print(__doc__.strip())
        sys.exit(0)
    parser = Parser("tools/demo-linux")
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--runs", type=list_of(FAULTS), default=FAULTS)
    parser.add_argument("--processes", type=whole(1, 256), default=16)
    parser.add_argument("--pages", type=whole(1, 1 << 20), default=2048)
    parser.add_argument("--file", type=whole(0, 1 << 20), default=128)
    parser.add_argument("--file-visits", type=whole(0, 100), default=10)
    parser.add_argument("--request", type=whole(1, 1 << 20), default=16)
    parser.add_argument("--rest-ms", type=whole(0, 10000), default=100)
    parser.add_argument("--memory", type=whole(64, 2048), default=384)
    parser.add_argument("--resident", type=whole(8, 2048))
    parser.add_argument("--delay-ms", type=whole(0, 1000), default=20)
    parser.add_argument("--seconds", type=whole(1, 3600), default=20)
    parser.add_argument("--warm", type=whole(0, 3600), default=20)
    parser.add_argument("--cpus", type=whole(1, 16), default=1)
    parser.add_argument("--lab-cpus", type=whole(1, 64), default=1)
    parser.add_argument("--slow", type=whole(1, 64), default=4)
    parser.add_argument("--kernel", choices=KERNELS, default="6.12")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--quiet", action="store_true")
    o = parser.parse_args(argv)
    o.memory -= o.memory % 2
    o.resident = o.resident or o.memory // 4
    return o


def boots_of(o):
    load = LOAD.format(**vars(o), ticker_ms=TICKER_MS)
    return [Boot(faults, [load], kernel=o.kernel, elf=True, cpus=o.cpus,
                 faults=faults, memory=f"{o.memory}M", resident=f"{o.resident}M",
                 swap_wrap=f"delay?ms={o.delay_ms}" if o.delay_ms else "",
                 limit_s=BOOT_S + o.warm + o.seconds + 60)
            for faults in o.runs]


# ---- the results ----

def outcome_of(result):
    """What one guest measured, flat; None where it did not come to its end."""
    load, ticker = result.report("load"), result.report("ticker")
    boot, end = result.report("boot"), result.report("end")
    if not (load and ticker and boot and end and len(result.counters) == 2):
        return None
    own = result.boot.faults != "kernel" # the kernel does not tell what it does
    return {
        "faults": result.boot.faults,
        "init_s": boot["uptime_ms"] / 1000,
        "fill_s": load["fill_s"],
        "seconds": load["seconds"],
        "visits": load["visits"],
        "visits_per_s": load["visits_per_s"],
        "visit_us": load["visit_us"],
        "late_us": ticker["late_us"],
        "hyp": load["hyp"],
        **{word: result.counted(word) if own else None for word in TOLD},
        "verified": load["bad"] == 0 and end["well"] and result.status == 0,
        "counters": result.counters,
        "host": result.stats,
    }


def text_of(value, form="{:.0f}"):
    return "-" if value is None else form.format(value)


def row_of(outcome, block):
    o = outcome
    late = o["late_us"]
    share = o["stalls_kernel_mode"] / o["stalls"] if o["stalls"] else None
    cost_ms = None if share is None else o["stall_kernel_mode_ns"] / 1e6
    times = o["visits_per_s"] / block["visits_per_s"] if block else None
    return (f"{o['faults']:<7} {o['visits_per_s']:>9.1f} {text_of(times, '{:.2f}'):>7} "
            f"{late['p50'] / 1000:>8.2f} {late['p99'] / 1000:>8.2f} {late['max'] / 1000:>8.2f} "
            f"{text_of(o['missing_events']):>8} {text_of(o['ready_events']):>7} "
            f"{text_of(o['stalls']):>7} {text_of(share, '{:.0%}'):>6} "
            f"{text_of(cost_ms):>8} {o['hyp']:>7}  "
            f"{'yes' if o['verified'] else 'NO'}")


def print_table(o, outcomes):
    block = next((r for r in outcomes if r["faults"] == "block"), None)
    print(f"guest: Debian's Linux {o.kernel}, {o.cpus} vCPU{'s' if o.cpus > 1 else ''}, "
          f"{o.memory} MiB, {o.processes} processes of {o.pages} pages each")
    if o.file:
        print(f"and a file of {o.file} pages each, to which {o.file_visits} % of their visits go "
              "by system calls;")
    print(f"a request is {o.request} visit{'s' if o.request > 1 else ''}, "
          f"the next comes {o.rest_ms} ms after it")
    print(f"host: holds {o.resident} MiB of it; a read from the swap file takes "
          f"{o.delay_ms} ms")
    print("lab: its clock, by which all of this is told, runs "
          f"{f'{o.slow} times slower than' if o.slow > 1 else 'as fast as'} this machine's\n")
    print(f"{'':<7} {'page':>9} {'':>7} {f'a {TICKER_MS} ms ticker, late by ms':>26} {'page-':>8} "
          f"{'page-':>7} {'':>7} {'at CPL 0':>15} {'HYP in':>7}")
    print(f"{'':<7} {'visits':>9} {'times':>7} {'':>26} {'missing':>8} {'ready':>7} {'':>7} "
          f"{'share':>6} {'cost':>8} {'the':>7}")
    print(f"{'faults':<7} {'/s':>9} {'block':>7} {'p50':>8} {'p99':>8} {'max':>8} "
          f"{'events':>8} {'events':>7} {'stalls':>7} {'':>6} {'ms':>8} {'guest':>7}  verified")
    for outcome in outcomes:
        print(row_of(outcome, block))


def write_json(o, outcomes):
    setup = {k: v for k, v in vars(o).items() if k not in ("build", "json", "quiet", "runs")}
    o.json.write_text(json.dumps({**setup, "runs": outcomes}, indent=1) + "\n",
                      encoding="utf-8")


# ---- running it ----

class BootProgress(Progress):
    def __call__(self, result):
        name = result.boot.name
        if result.status is None:
            self.say(f"{name}: the guest boots, fills its memory, runs")
            return
        for text in result.wrong:
            self.complain(f"{name}: the guest says: {text}")
        if outcome_of(result) is None:
            last = [line for line in result.lines if line][-1:] or ["it said nothing"]
            self.complain(f"the guest did not come to its end: {name}: exit code "
                          f"{result.status}, {last[0]}; see its log with asyncpf run in the lab")


def main(argv):
    stop_on_signals()
    o = parse(argv)
    progress = BootProgress(o.quiet)
    progress.say("the lab starts")
    boots = boots_of(o)
    try:
        results, code = run_boots(boots, o.build, timeout_s=sum(b.limit_s for b in boots) + 60,
                                  cpus=o.lab_cpus, slow=o.slow, show=progress)
        outcomes = [r for r in map(outcome_of, results) if r]
        if outcomes:
            print_table(o, outcomes)
        if o.json:
            write_json(o, outcomes)
    except Stopped as e:
        return end_by(e.number)
    except VmlinuxError as e:
        print(f"asyncpf: {e}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as e:
        return e.returncode # tools/lab has said why
    except OSError as e:
        print(f"asyncpf: cannot write: {e.filename}: {e.strerror}; check --json and the build "
              "folder", file=sys.stderr)
        return 1
    if code:
        return code
    return 0 if len(outcomes) == len(boots) and all(r["verified"] for r in outcomes) else 1
