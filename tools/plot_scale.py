# SPDX-License-Identifier: Apache-2.0
"""Draws the CSV of `asyncpf sim --scale` as SVG, for docs/scale.md.

usage: tools/plot-scale CSV FOLDER     (writes FOLDER/scale-rate.svg and scale-wait.svg)

Both axes are logarithmic; one line per source.
"""
import csv
import math
import pathlib
import sys

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 560, 300, 70, 40, 30, 90
COLOURS = ("#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#8a6d00")


def place(value, low, high, size):
    return (math.log10(value) - math.log10(low)) / (math.log10(high) - math.log10(low)) * size


def ticks(low, high):
    return [10 ** e for e in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]


def short(value):
    for unit, size in (("M", 10**6), ("k", 10**3)):
        if value >= size:
            return f"{value // size}{unit}"
    return str(value)


def line(points, colour, name):
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    return (f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
            f'<text x="{x + 6:.1f}" y="{y + 4:.1f}" fill="{colour}">{name}</text>')


def draw(rows, column, title):
    """One plot: tasks per vCPU against a column."""
    values = [max(int(r[column]), 1) for r in rows]
    low, high = 10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values)))
    tasks = sorted({int(r["tasks"]) for r in rows})
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(task, value):
        return (LEFT + place(task, tasks[0], tasks[-1], wide),
                HEIGHT - BOTTOM - place(max(value, 1), low, high, tall))

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
           f'font-family="sans-serif" font-size="12">',
           f'<text x="{LEFT}" y="18">{title}</text>']
    for value in ticks(low, high):
        _, y = at(tasks[0], value)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
                   f'stroke="#ddd"/><text x="{LEFT - 8}" y="{y + 4:.1f}" '
                   f'text-anchor="end">{short(value)}</text>')
    for task in tasks:
        x, _ = at(task, low)
        out.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" '
                   f'text-anchor="middle">{task}</text>')
    out.append(f'<text x="{LEFT + wide / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
               f'tasks per vCPU</text>')
    for colour, name in zip(COLOURS, dict.fromkeys(r["source"] for r in rows)):
        out.append(line([at(int(r["tasks"]), int(r[column])) for r in rows
                         if r["source"] == name], colour, name))
    return "\n".join(out + ["</svg>", ""])


def main():
    if len(sys.argv) != 3:
        print(__doc__.split("\n\n")[1], file=sys.stderr)
        return 2
    with open(sys.argv[1], encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    folder = pathlib.Path(sys.argv[2])
    for name, column, title in (
            ("scale-rate", "faults_per_s", "faults per second, 10,240 vCPUs"),
            ("scale-wait", "wait_us_mean", "mean wait for a page, microseconds")):
        (folder / f"{name}.svg").write_text(draw(rows, column, title), encoding="utf-8")
    return 0
