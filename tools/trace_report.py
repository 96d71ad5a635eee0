#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A trace (docs/trace.md) as one HTML page with pictures: `asyncpf report` becomes this.

usage: trace_report.py [--output FILE] [--tell] [--svg FOLDER] TRACE

The page needs nothing else: no network, no script, no font. What the trace says is data: it is
checked, counted and escaped, and a trace that is none is refused with the place.
--svg writes the pictures as files of their own instead, FOLDER/NAME.svg. --tell says FILE when it
is written.
Exit codes: those of asyncpf(1). Test: tests/error/report_test.py.
"""
import argparse
import array
import errno
import html
import json
import math
import os
import pathlib
import select
import signal
import stat
import sys
import time

EVENTS_MAX = 4_000_000  # about 400 MB here
VMS_MAX = 32
VCPUS_MAX = 1024
EVENT_CHARS_MAX = 1 << 16
READ_CHARS = 1 << 18
TS_MAX = 1e12  # microseconds: eleven days
NAME_MAX = 60
FIFO_S = 5  # as src/cli/json/json_file.c has it
TRACK_OF_VCPUS = 2  # src/cli writes vCPU n on track n + 2


class Bad(Exception):
    """The trace cannot be shown: why; what to do."""


# ---- reading ----

def read_events(stream):
    """The objects of a JSON array, or of the member traceEvents, one at a time."""
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    text, at, done = "", 0, 0

    def more():
        nonlocal text, at
        part = stream.read(READ_CHARS)
        text, at = text[at:] + part, 0
        return bool(part)

    def skip(blanks):
        nonlocal at
        while True:
            while at < len(text) and text[at] in blanks:
                at += 1
            if at < len(text) or not more():
                return

    skip(" \t\r\n")
    if not text:
        raise Bad("it is empty; was the command that wrote it stopped?")
    if text[at] == "{":
        while '"traceEvents"' not in text and len(text) < READ_CHARS * 4 and more():
            pass
        found = text.find('"traceEvents"')
        at = text.find("[", found) if found >= 0 else -1
    if at < 0 or text[at] != "[":
        raise Bad("it is no trace: neither an array nor traceEvents; name a file of --trace")
    at += 1
    while True:
        skip(" \t\r\n,")
        if at >= len(text):
            raise Bad(f"it ends after {done} events, within the array; was the command killed?")
        if text[at] == "]":
            return
        while True:
            try:
                event, at = decoder.raw_decode(text, at)
                break
            except (ValueError, RecursionError) as e:
                # Anything else than half an event, such as a number too long for int(), is no JSON.
                half = isinstance(e, json.JSONDecodeError) and len(text) - at <= EVENT_CHARS_MAX
                if not half or not more():
                    raise Bad(f"event {done + 1} is no JSON; write the trace anew") from None
        done += 1
        if done > EVENTS_MAX:
            raise Bad(f"it has more than {EVENTS_MAX} events; trace for a shorter time")
        if not isinstance(event, dict):
            raise Bad(f"event {done} is no object; write the trace anew")
        yield done, event


def _no_constant(word):
    raise json.JSONDecodeError(f"no {word}", "", 0)


def _number(event, key, most, where):
    value = event.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
        raise Bad(f"event {where} has no {key} from 0 to {most:g}; write the trace anew")
    return value


def _address(args, where):
    value = args.get("gpa")
    try:
        gpa = int(value, 16) if isinstance(value, str) and len(value) <= 20 else -1
    except ValueError:
        gpa = -1
    if not 0 <= gpa < 1 << 64:
        raise Bad(f"event {where} has no gpa; write the trace anew")
    return gpa


class Vm:
    """What a trace has of one VM; times in microseconds from the trace's begin."""

    def __init__(self, name):
        self.name = name
        self.first, self.last = math.inf, 0.0
        self.open_faults, self.open_reads, self.open_still = {}, {}, {}
        self.fault = {k: array.array("d") for k in ("start", "wait")}
        self.fault_how = array.array("b")  # 0: neither, 1: told, 2: halted
        self.touch_gpa = array.array("Q")
        self.touch_at = array.array("d")
        self.still = {}  # vCPU: (starts, ends)
        self.read = {k: array.array("d") for k in ("start", "wait", "bytes")}
        self.read_ahead = self.read_errors = 0
        self.shown = {k: array.array("d") for k in ("at", "bytes")}
        self.taken_gpa = array.array("Q")
        self.taken_at = array.array("d")
        self.given_back = 0
        self.kernel_mode = 0
        self.paused = []
        self.paused_at = None

    # ---- one event each; e: of the trace ----

    def add(self, where, e):
        ph, ts = e.get("ph"), _number(e, "ts", TS_MAX, where)
        if ph == "M":
            return
        self.first, self.last = min(self.first, ts), max(self.last, ts)
        args = e.get("args")
        args = args if isinstance(args, dict) else {}
        name, cat = e.get("name"), e.get("cat")
        if cat == "fault" and ph in ("b", "n", "e"):
            self._fault(ph, name, _number(e, "id", 1 << 63, where), ts, args, where)
        elif cat == "read" and ph in ("b", "e"):
            self._read(ph, name, _number(e, "id", (1 << 64) - 1, where), ts, args, where)
        elif ph in ("B", "E"):
            self._slice(ph, name, _number(e, "tid", VCPUS_MAX + TRACK_OF_VCPUS, where), ts)
        elif ph == "i" and name in ("visible", "taken away", "given back"):
            self._memory(name, ts, args, where)

    def _fault(self, ph, name, ident, ts, args, where):
        if ph == "b":
            gpa = _address(args, where)
            self.open_faults[ident] = [ts, 0]
            self.touch_gpa.append(gpa)
            self.touch_at.append(ts)
            self.kernel_mode += args.get("cpl") == 0
        elif ident in self.open_faults:
            fault = self.open_faults[ident]
            if ph == "n":
                how = {"withdrawn": 0, "told": 1, "halted": 2}
                fault[1] = how.get(name, fault[1]) if isinstance(name, str) else fault[1]
                return
            del self.open_faults[ident]
            self.fault["start"].append(fault[0])
            self.fault["wait"].append(max(ts - fault[0], 0.0))
            self.fault_how.append(fault[1])

    def _read(self, ph, name, ident, ts, args, where):
        if ph == "b":
            size = _number(args, "bytes", 1 << 40, where)
            self.open_reads[ident] = (ts, size)
            self.read_ahead += name == "read ahead"
        elif ident in self.open_reads:
            start, size = self.open_reads.pop(ident)
            self.read["start"].append(start)
            self.read["wait"].append(max(ts - start, 0.0))
            self.read["bytes"].append(size)
            self.read_errors += args.get("error", 0) != 0

    def _slice(self, ph, name, tid, ts):
        if tid < TRACK_OF_VCPUS:
            if ph == "B" and name == "paused":
                self.paused_at = ts
            elif ph == "E" and self.paused_at is not None:
                self.paused.append((self.paused_at, ts))
                self.paused_at = None
        elif ph == "B":
            self.open_still[int(tid) - TRACK_OF_VCPUS] = ts
            self.still.setdefault(int(tid) - TRACK_OF_VCPUS, (array.array("d"), array.array("d")))
        else:
            start = self.open_still.pop(int(tid) - TRACK_OF_VCPUS, None)
            if start is not None:
                starts, ends = self.still[int(tid) - TRACK_OF_VCPUS]
                starts.append(start)
                ends.append(max(ts, start))

    def _memory(self, name, ts, args, where):
        gpa, size = _address(args, where), _number(args, "bytes", 1 << 48, where)
        if name == "visible":
            self.shown["at"].append(ts)
            self.shown["bytes"].append(size)
        elif name == "taken away":
            self.taken_gpa.append(gpa)
            self.taken_at.append(ts)
        else:
            self.given_back += size

    def end(self):
        """What is open at the trace's end lasts until then."""
        if self.paused_at is not None:
            self.paused.append((self.paused_at, self.last))
        for vcpu, start in self.open_still.items():
            self.still[vcpu][0].append(start)
            self.still[vcpu][1].append(self.last)
        if math.isinf(self.first):
            self.first = self.last

    @property
    def span(self):
        return max(self.last - self.first, 1.0)


def read_trace(stream):
    vms, count = {}, 0
    for where, e in read_events(stream):
        count = where
        pid = _number(e, "pid", 1 << 31, where)
        if pid not in vms:
            if len(vms) == VMS_MAX:
                raise Bad(f"it has more than {VMS_MAX} VMs; trace fewer runs")
            vms[pid] = Vm(f"VM {pid:g}")
        if e.get("ph") == "M" and e.get("name") == "process_name":
            args = e.get("args")
            name = args.get("name") if isinstance(args, dict) else None
            if isinstance(name, str):
                vms[pid].name = name[:NAME_MAX]
        vms[pid].add(where, e)
    for vm in vms.values():
        vm.end()
    if not vms:
        raise Bad("it has no event; trace a run that touches memory")
    return list(vms.values()), count


# ---- numbers as words ----

def text(value):
    """Of the trace, or ours: never markup. Control characters would be no XML."""
    return html.escape("".join(c if c.isprintable() else "?" for c in str(value)))


def time_word(us):
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if us >= size:
            return f"{us / size:.3g} {unit}"
    return f"{us:.3g} us"


def size_word(n):
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:.0f} bytes"


def quantile(values, part):
    ordered = sorted(values)
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def nice_step(span, most):
    step = 10.0 ** math.floor(math.log10(span / most)) if span > 0 else 1.0
    for k in (1, 2, 5, 10):
        if span / (step * k) <= most:
            return step * k
    return step * 10


# ---- pictures ----

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 960, 84, 16, 34, 34
PLOT = WIDTH - LEFT - RIGHT
BINS = 240
# One hue, light to dark: how much. Read from the page's background on.
RAMP = 7
SERIES = 8  # lines that can be told apart

STYLE = """
.viz{--bg:#fcfcfb;--ink:#1d1d1b;--soft:#6b6a66;--line:#e3e2dd;--l1:#2a78d6;--l2:#c2410c;
--l3:#1b8a5a;--l4:#8b5cf6;--l5:#a16207;--l6:#db2777;--l7:#0e7490;--l8:#6b7280;
--h1:#dbe9fa;--h2:#b4d2f4;--h3:#84b4ec;--h4:#5595e0;--h5:#2a78d6;--h6:#1a57a5;--h7:#0d3670}
@media (prefers-color-scheme:dark){.viz.page{--bg:#1a1a19;--ink:#eeede9;--soft:#a5a39d;
--line:#373633;--l1:#5b9df0;--l2:#f08a5d;--l3:#4fc48f;--l4:#b39bfa;--l5:#d9a441;--l6:#f277b0;
--l7:#4bb8d0;--l8:#a1a6b0;--h1:#14294a;--h2:#193c70;--h3:#1e5199;--h4:#2a6cc4;--h5:#4b8fe6;
--h6:#86b6f2;--h7:#cfe3fb}}
.viz svg,svg.viz{background:var(--bg);display:block}
.viz text{font:12px system-ui,sans-serif;fill:var(--soft)}
.viz text.t{font-size:14px;font-weight:600;fill:var(--ink)}
.viz .g{stroke:var(--line);stroke-width:1;fill:none}
.viz .s{fill:none;stroke-width:2;stroke-linejoin:round}
""" + "".join(f".viz .h{i}{{fill:var(--h{i})}}" for i in range(1, RAMP + 1)) + "".join(
    f".viz .l{i}{{stroke:var(--l{i})}}.viz .f{i}{{fill:var(--l{i})}}"
    for i in range(1, SERIES + 1)) + "\n"

PAGE_STYLE = """
body{margin:0;font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--bg)}
main{max-width:960px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:24px;margin:0 0 4px}h2{font-size:19px;margin:44px 0 8px}
p{margin:4px 0 14px;color:var(--soft);max-width:76ch}
figure{margin:18px 0;overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:12px 0}
td,th{padding:3px 14px 3px 0;text-align:right;border-bottom:1px solid var(--line)}
td:first-child,th:first-child{text-align:left}th{font-weight:600}
"""


class Picture:
    """An SVG that grows by text(), line() and so on; all of it is within fixed bounds."""

    def __init__(self, name, title, height):
        self.name, self.title, self.height = name, title, height
        self.parts = []
        self.put_text(LEFT, 18, title, "t")

    def put(self, part):
        self.parts.append(part)

    def put_text(self, x, y, words, css="", anchor="start"):
        css = f' class="{css}"' if css else ""
        self.put(f'<text x="{x:.1f}" y="{y:.1f}"{css} text-anchor="{anchor}">{text(words)}</text>')

    def rect(self, x, y, w, h, css, title=None):
        inner = f"<title>{text(title)}</title>" if title else ""
        self.put(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(w, 0.1):.1f}" '
                 f'height="{max(h, 0.1):.1f}" class="{css}">{inner}</rect>')

    def line(self, points, css):
        if len(points) > 1:
            self.put('<polyline points="' + " ".join(f"{x:.1f},{y:.1f}" for x, y in points) +
                     f'" class="s {css}"/>')

    def rule(self, x1, y1, x2, y2):
        self.put(f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" class="g"/>')

    @property
    def bottom(self):
        return self.height - BOTTOM

    def time_axis(self, span):
        """Time from the VM's first event on."""
        unit, size = ("s", 1e6) if span >= 2e6 else ("ms", 1e3) if span >= 2e3 else ("us", 1.0)
        step = nice_step(span / size, 8)
        for i in range(int(span / size / step) + 1):
            x = LEFT + PLOT * i * step * size / span
            self.rule(x, TOP, x, self.bottom)
            self.put_text(x, self.bottom + 18, f"{i * step:g} {unit}", anchor="middle" if i else
                          "start")

    def legend(self, entries):
        """(css of the mark, words), from the right, on the title's line."""
        x = WIDTH - RIGHT
        for css, words in reversed(entries):
            x -= 7 * len(words) + 4
            self.put_text(x, 18, words)
            x -= 16
            self.rect(x, 9, 10, 10, css)
            x -= 14

    def svg(self, css="viz", style=""):
        style = f"<style>{style}</style>" if style else ""
        return (f'<svg xmlns="http://www.w3.org/2000/svg" class="{css}" role="img" '
                f'aria-label="{text(self.title)}" viewBox="0 0 {WIDTH} {self.height}" '
                f'width="{WIDTH}" height="{self.height}">{style}{"".join(self.parts)}</svg>\n')


def bin_of(vm, ts):
    return min(max(int((ts - vm.first) * BINS / vm.span), 0), BINS - 1)


def bin_x(i):
    return LEFT + PLOT * i / BINS


def shade(count, most):
    """Of 1..most, by its logarithm: few of many are still seen."""
    if most <= 1:
        return RAMP
    return 1 + min(int(math.log(count) / math.log(most) * (RAMP - 1) + 0.5), RAMP - 1)


def put_cells(p, cells, rows, title_of):
    """cells: {(column, row): count}; row 0 is the lowest."""
    most = max(cells.values(), default=1)
    height = (p.bottom - TOP) / rows
    for (column, row), count in sorted(cells.items()):
        p.rect(bin_x(column), p.bottom - (row + 1) * height, PLOT / BINS + 0.3, height + 0.3,
               f"h{shade(count, most)}", title_of(column, row, count))


def log_scale(values):
    """(from, to) in powers of ten around the values."""
    seen = [v for v in values if v > 0]
    low = math.floor(math.log10(min(seen))) if seen else 0
    high = math.ceil(math.log10(max(seen))) if seen else 1
    return max(low, -1), max(high, low + 1, 1)


def time_scale(p, low, high):
    for power in range(low, high + 1):
        y = p.bottom - (p.bottom - TOP) * (power - low) / (high - low)
        p.rule(LEFT, y, WIDTH - RIGHT, y)
        p.put_text(LEFT - 8, y + 4, time_word(10.0 ** power), anchor="end")


def put_quantile(p, columns, part, css, low, high):
    points = []
    for i in sorted(columns):
        at = math.log10(max(quantile(columns[i], part), 10.0 ** low))
        points.append((bin_x(i + 0.5), p.bottom - (p.bottom - TOP) * (at - low) / (high - low)))
    p.line(points, css)


def of_waits(vm, name, title, starts, waits):
    """How long each took, over when it began."""
    p = Picture(name, title, 260)
    low, high = log_scale(waits)
    rows = 40
    cells, columns = {}, {}
    for start, wait in zip(starts, waits):
        column = bin_of(vm, start)
        row = int((math.log10(max(wait, 10.0 ** low)) - low) / (high - low) * rows)
        row = min(max(row, 0), rows - 1)
        cells[column, row] = cells.get((column, row), 0) + 1
        columns.setdefault(column // 4 * 4 + 1, []).append(wait)
    time_scale(p, low, high)
    p.time_axis(vm.span)
    put_cells(p, cells, rows, lambda c, r, n: f"{n} of about "
              f"{time_word(10 ** (low + (r + 0.5) / rows * (high - low)))}")
    put_quantile(p, columns, 0.99, "l2", low, high)
    put_quantile(p, columns, 0.50, "l3", low, high)
    p.legend([("h3", "few"), (f"h{RAMP}", "many"), ("f3", "half took less"),
              ("f2", "99 of 100 took less")])
    return p


def still_shares(vm, starts, ends):
    """Of each bin, which part the vCPU stood still."""
    width = vm.span / BINS
    shares = [0.0] * BINS
    for start, end in zip(starts, ends):
        for i in range(bin_of(vm, start), bin_of(vm, end) + 1):
            from_ = vm.first + i * width
            shares[i] += max(min(end, from_ + width) - max(start, from_), 0.0) / width
    return [min(s, 1.0) for s in shares]


def of_still(vm):
    """Where the vCPUs stood still; more than 32 share rows."""
    vcpus = sorted(vm.still)
    groups = [vcpus[i * len(vcpus) // min(len(vcpus), 32):
                    (i + 1) * len(vcpus) // min(len(vcpus), 32)]
              for i in range(min(len(vcpus), 32))]
    row = 22 if len(groups) <= 8 else 12
    p = Picture("still", "Where the vCPUs stood still", TOP + BOTTOM + row * max(len(groups), 1))
    p.time_axis(vm.span)
    for k, group in enumerate(groups):
        y = TOP + k * row
        each = [still_shares(vm, *vm.still[v]) for v in group]
        label = f"vCPU {group[0]}" + (f"-{group[-1]}" if len(group) > 1 else "")
        p.put_text(LEFT - 8, y + row / 2 + 4, label, anchor="end")
        for i in range(BINS):
            share = sum(s[i] for s in each) / len(each)
            if share > 0.005:
                p.rect(bin_x(i), y + 1, PLOT / BINS + 0.3, row - 2,
                       f"h{1 + min(int(share * RAMP), RAMP - 1)}", f"{100 * share:.0f} %")
    p.legend([("h1", "a little"), (f"h{RAMP}", "all of the time")])
    return p


def of_sources(vm):
    """Reads in flight, and bytes that came."""
    p = Picture("sources", "The sources: reads in flight", 200)
    change = sorted([(t, 1) for t in vm.read["start"]] +
                    [(t + w, -1) for t, w in zip(vm.read["start"], vm.read["wait"])])
    highest, now, last_bin = [0] * BINS, 0, 0
    for ts, step in change:
        i = bin_of(vm, ts)
        for k in range(last_bin + 1, i + 1):
            highest[k] = now
        now += step
        highest[i] = max(highest[i], now)
        last_bin = i
    most = max(max(highest), 1)
    step = max(nice_step(most, 4), 1)
    for i in range(int(most / step) + 1):
        y = p.bottom - (p.bottom - TOP) * i * step / most
        p.rule(LEFT, y, WIDTH - RIGHT, y)
        p.put_text(LEFT - 8, y + 4, f"{i * step:g}", anchor="end")
    p.time_axis(vm.span)
    for i, value in enumerate(highest):
        if value:
            h = (p.bottom - TOP) * value / most
            p.rect(bin_x(i), p.bottom - h, PLOT / BINS - 0.4, h, "f1", f"{value} in flight")
    return p


def of_memory(vm, name, title, gpas, ats):
    """Which memory, over time."""
    p = Picture(name, title, 320)
    rows = 64
    low, high = min(vm.all_gpas()), max(vm.all_gpas()) + 4096
    step = 1 << max((high - low - 1).bit_length() - 6, 12)
    base = low // step * step
    rows = max((high - base + step - 1) // step, 1)
    cells = {}
    for gpa, at in zip(gpas, ats):
        cell = bin_of(vm, at), min((gpa - base) // step, rows - 1)
        cells[cell] = cells.get(cell, 0) + 1
    for i in range(5):
        y = p.bottom - (p.bottom - TOP) * i / 4
        p.rule(LEFT, y, WIDTH - RIGHT, y)
        p.put_text(LEFT - 8, y + 4, f"{base + step * rows * i // 4:#x}", anchor="end")
    p.time_axis(vm.span)
    put_cells(p, cells, rows,
              lambda c, r, n: f"{n} at {base + r * step:#x}, within {size_word(step)}")
    p.legend([("h2", "few"), (f"h{RAMP}", "many")])
    return p


def all_gpas(vm):
    yield from vm.touch_gpa
    yield from vm.taken_gpa
    if not vm.touch_gpa and not vm.taken_gpa:
        yield 0


Vm.all_gpas = all_gpas


def of_progress(vms):
    """How much had become visible, each VM from its own begin."""
    p = Picture("progress", "Memory that has become visible", 240)
    vms = vms[:SERIES]
    span = max(vm.span for vm in vms)
    most = max(max(sum(vm.shown["bytes"]) for vm in vms), 1.0)
    for i in range(5):
        y = p.bottom - (p.bottom - TOP) * i / 4
        p.rule(LEFT, y, WIDTH - RIGHT, y)
        p.put_text(LEFT - 8, y + 4, size_word(most * i / 4), anchor="end")
    p.time_axis(span)
    for k, vm in enumerate(vms):
        total, points = 0.0, {}
        for at, size in sorted(zip(vm.shown["at"], vm.shown["bytes"])):
            total += size
            x = LEFT + PLOT * (at - vm.first) / span
            points[int(x * 2)] = (x, p.bottom - (p.bottom - TOP) * total / most)
        p.line([(LEFT, p.bottom), *points.values()], f"l{k + 1}")
    p.legend([(f"f{k + 1}", vm.name) for k, vm in enumerate(vms)])
    return p


def pictures(vm):
    made = []
    if vm.fault["wait"]:
        made.append(of_waits(vm, "waits", "Faults: from the touch until the guest could go on",
                             vm.fault["start"], vm.fault["wait"]))
    if vm.still:
        made.append(of_still(vm))
    if vm.read["wait"]:
        made.append(of_sources(vm))
        made.append(of_waits(vm, "reads", "Reads of the sources: how long they took",
                             vm.read["start"], vm.read["wait"]))
    if vm.touch_gpa:
        made.append(of_memory(vm, "memory", "Memory that was touched while absent",
                              vm.touch_gpa, vm.touch_at))
    if vm.taken_gpa:
        made.append(of_memory(vm, "taken", "Memory that was taken away", vm.taken_gpa,
                              vm.taken_at))
    return made


# ---- the page ----

def facts(vm):
    waits, still = vm.fault["wait"], 0.0
    for starts, ends in vm.still.values():
        still += sum(ends) - sum(starts)
    return [
        ("time", time_word(vm.span)),
        ("faults", len(vm.touch_gpa)),
        ("by kernel mode", vm.kernel_mode),
        ("told", sum(how == 1 for how in vm.fault_how)),
        ("halted", sum(how == 2 for how in vm.fault_how)),
        ("wait p50", time_word(quantile(waits, 0.5)) if waits else "-"),
        ("wait p99", time_word(quantile(waits, 0.99)) if waits else "-"),
        ("wait max", time_word(max(waits)) if waits else "-"),
        ("vCPUs still", f"{100 * still / (vm.span * len(vm.still)):.1f} %" if vm.still else "-"),
        ("reads", len(vm.read["wait"])),
        ("read ahead", vm.read_ahead),
        ("failed", vm.read_errors),
        ("came", size_word(sum(vm.read["bytes"]))),
        ("taken away", len(vm.taken_gpa)),
        ("given back", size_word(vm.given_back)),
        ("paused", time_word(sum(b - a for a, b in vm.paused))),
    ]


def table(vms):
    rows = [f"<tr><th></th>{''.join(f'<th>{text(vm.name)}</th>' for vm in vms)}</tr>"]
    for cells in zip(*(facts(vm) for vm in vms)):
        rows.append(f"<tr><td>{text(cells[0][0])}</td>" +
                    "".join(f"<td>{text(value)}</td>" for _, value in cells) + "</tr>")
    return f"<figure><table>{''.join(rows)}</table></figure>\n"


def page(title, vms, count):
    out = ['<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
           '<meta http-equiv="Content-Security-Policy" '
           "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
           '<meta name="viewport" content="width=device-width">\n'
           f"<title>{text(title)}</title>\n<style>{STYLE}{PAGE_STYLE}</style></head>\n"
           f'<body class="viz page"><main><h1>{text(title)}</h1>\n'
           f"<p>{count} events of {len(vms)} VM{'s' if len(vms) > 1 else ''}. Each picture's "
           "time begins with its VM's first event; over a mark is what it stands for.</p>\n"]
    for at in range(0, len(vms), 8):
        out.append(table(vms[at:at + 8]))
    if any(vm.shown["at"] for vm in vms):
        out.append(f"<figure>{of_progress(vms).svg('')}</figure>\n")
    for vm in vms:
        out.append(f"<h2>{text(vm.name)}</h2>\n")
        made = pictures(vm)
        out += [f"<figure>{p.svg('')}</figure>\n" for p in made]
        if not made:
            out.append("<p>Nothing of it was touched while absent.</p>\n")
    out.append("</main></body></html>\n")
    return "".join(out)


def write_svgs(folder, vms):
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    if any(vm.shown["at"] for vm in vms):
        made.append(("progress", of_progress(vms)))
    for vm in vms:
        safe = "".join(c if c.isalnum() and c.isascii() else "-" for c in vm.name)
        prefix = f"{safe}-" if len(vms) > 1 else ""
        made += [(prefix + p.name, p) for p in pictures(vm)]
    for name, p in made:
        (folder / f"{name}.svg").write_text(p.svg("viz", STYLE), encoding="utf-8")


def open_now(path, flags):
    """A FIFO is waited for shortly: whoever has its other end may come a little later than we."""
    end = time.monotonic() + FIFO_S
    writes = flags & os.O_ACCMODE != os.O_RDONLY
    while True:
        try:
            fd = os.open(path, flags | os.O_NONBLOCK, 0o666)
            break
        except OSError as e:
            if e.errno != errno.ENXIO or not stat.S_ISFIFO(os.stat(path).st_mode):
                raise
            if time.monotonic() > end:
                raise OSError("a FIFO that nobody reads") from None
            time.sleep(0.02)
    if not writes and stat.S_ISFIFO(os.fstat(fd).st_mode) and \
            not select.select([fd], [], [], FIFO_S)[0]:
        os.close(fd)
        raise OSError("a FIFO that nobody writes to")
    os.set_blocking(fd, True)
    return fd


def fail(code, words):
    words = "".join(c if c.isprintable() else "?" for c in words)
    print(f"asyncpf: {words}", file=sys.stderr)
    return code


def write_page(path, text):
    """Whole, or nothing of it is left."""
    with open(path, "w", encoding="utf-8", opener=open_now) as stream:
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                os.unlink(path)
            raise


def told(code, name):
    """Standard output has a name of its own; the page is there whatever becomes of it."""
    try:
        if name:
            print(name, flush=True)
        return code
    except OSError as e:
        sys.stdout = None  # nor is it flushed once more at the end
        return fail(1, f"cannot write: standard output: {e.strerror}; redirect it elsewhere")


def main():
    # As any program ends; whoever has us ignore it keeps that.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--output")
    parser.add_argument("--svg")
    parser.add_argument("--tell", action="store_true")
    parser.add_argument("trace")
    options = parser.parse_args()
    try:
        with open(options.trace, encoding="utf-8", opener=open_now) as stream:
            vms, count = read_trace(stream)
    except MemoryError:
        return fail(3, f"cannot read: {options.trace}: out of memory; raise the limit (ulimit -v)")
    except OSError as e:
        return fail(3, f"cannot read: {options.trace}: {e.strerror or e}; check the path")
    except (Bad, UnicodeDecodeError) as e:
        why = str(e) if isinstance(e, Bad) else "it is no text; name a file of --trace"
        return fail(1, f"cannot report: {options.trace}: {why}")
    try:
        if options.svg:
            write_svgs(pathlib.Path(options.svg), vms)
        elif options.output == "-":
            sys.stdout.write(page(os.path.basename(options.trace), vms, count))
            sys.stdout.flush()
        else:
            write_page(options.output, page(os.path.basename(options.trace), vms, count))
    except OSError as e:
        where = "standard output" if options.output == "-" else options.svg or options.output
        sys.stdout = None
        return fail(1, f"cannot write: {where}: {e.strerror or e}; name another place")
    return told(0, options.output if options.tell else None)


if __name__ == "__main__":
    sys.exit(main())
