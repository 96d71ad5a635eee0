# SPDX-License-Identifier: Apache-2.0
"""How long each step of a fault takes, by the kernel's trace points: `asyncpf demo` under perf.

usage: fault-way PATH_OF_ASYNCPF [--pages N]

Prints a Markdown table, microseconds, medians, for `user:int` and `kernel` side by side. Tracing is
on, which makes each step longer by the trace points in it. Needs root and perf.
"""
import argparse
import re
import statistics
import subprocess
import sys
import tempfile

EVENTS = ["kvm:kvm_async_pf_not_present", "syscalls:sys_enter_ioctl", "syscalls:sys_exit_ioctl",
          "syscalls:sys_exit_io_uring_enter", "syscalls:sys_exit_read"]
RUN, CONTINUE, MSI = "0x0000ae80", "0xc020aa07", "0x4020aea5"
LINE = re.compile(r"\s*(\d+)\s+([\d.]+):\s+(\S+):\s+(.*)")
ROWS = [
    ("KVM_RUN: the guest's work, and KVM's", RUN),
    ("the vCPU's thread between two of them", "between"),
    ("... with an interrupt raised on the way", "between, with MSI"),
    ("page missing in the kernel to the report of it", "reported"),
    ("the serving thread, from its waking up to UFFDIO_CONTINUE", "woken"),
    ("UFFDIO_CONTINUE", CONTINUE),
    ("KVM_SIGNAL_MSI", MSI),
]


def record(asyncpf, runs, pages):
    with tempfile.NamedTemporaryFile(suffix=".data") as data:
        subprocess.run(["perf", "record", "-q", "-o", data.name, "-e", ",".join(EVENTS), asyncpf,
                        "demo", "--quiet", "--runs", runs, "--pages", str(pages)],
                       check=True, stdout=subprocess.DEVNULL)
        script = subprocess.run(["perf", "script", "-i", data.name, "--ns", "-F",
                                 "tid,time,event,trace"], check=True, capture_output=True,
                                text=True)
    for line in script.stdout.splitlines():
        m = LINE.match(line)
        if m:
            yield int(m[1]), float(m[2]) * 1e6, m[3].split(":")[-1], m[4]


def steps(events):
    """Durations by the names in ROWS."""
    took = {name: [] for _, name in ROWS}
    inside = {}   # thread: request and time of the ioctl that it is in
    left = {}     # thread: when it left KVM_RUN, and whether it has raised an interrupt since
    last = {}     # thread: its last event
    missing = None
    for thread, at, event, trace in events:
        if event == "sys_enter_ioctl":
            request = re.search(r"cmd: (0x[0-9a-f]+)", trace)[1]
            inside[thread] = (request, at)
            if request == RUN and thread in left:
                since, raised = left.pop(thread)
                took["between, with MSI" if raised else "between"].append(at - since)
            woken = last.get(thread, ("", 0))
            if request == CONTINUE and woken[0] != "sys_exit_ioctl" and woken[0]:
                took["woken"].append(at - woken[1])
        elif event == "sys_exit_ioctl" and thread in inside:
            request, since = inside.pop(thread)
            if request in took:
                took[request].append(at - since)
            if request == RUN:
                left[thread] = (at, False)
            elif request == MSI and thread in left:
                left[thread] = (left[thread][0], True)
        elif event == "kvm_async_pf_not_present":
            missing = at
        elif event == "sys_exit_read" and missing and trace.strip().startswith("0x20"):
            took["reported"].append(at - missing)
            missing = None
        last[thread] = (event, at)
    return took


def cell(values):
    # A step that is none of a fault's happens a few times at the start.
    return f"{statistics.median(values):.1f}" if len(values) > 100 else "-"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("asyncpf")
    parser.add_argument("--pages", type=int, default=2048)
    args = parser.parse_args()
    columns = [steps(record(args.asyncpf, runs, args.pages)) for runs in ("user:int", "kernel")]
    print("| step, us | user:int | kernel |\n| --- | --- | --- |")
    for what, name in ROWS:
        print(f"| {what} | {' | '.join(cell(c[name]) for c in columns)} |")
