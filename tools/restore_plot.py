# SPDX-License-Identifier: Apache-2.0
"""Answers per second over time as SVG, one line for each way, for tools/demo_restore.py.
Test: tests/unit/demo_restore_test.py.
"""
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 320, 60, 44, 34, 90
COLOURS = {"eager": "#7f7f7f", "block": "#c0392b", "stall": "#8a6d00", "kernel": "#8e44ad",
           "user": "#1b6ca8", "prefetch": "#2e8b57"}


def step_of(most):
    """Between two lines of the grid: 1, 2 or 5 times a power of ten, about five of them."""
    step = 1
    while most / step > 6:
        step = step * 2 if str(step)[0] in "15" else step * 5 // 2
    return step


def apart(ends):
    """{name: y} of labels that do not lie on each other."""
    placed = {}
    last = -100.0
    for y, name in sorted(ends):
        last = placed[name] = max(y, last + 14)
    return placed


def draw(runs, title):
    """runs: [(way, bin in seconds, [answers per second, ...]), ...]"""
    end = max(width * len(rates) for _, width, rates in runs)
    most = max([1, *(rate for _, _, rates in runs for rate in rates)])
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(seconds, rate):
        return (LEFT + seconds / end * wide, HEIGHT - BOTTOM - rate / most * tall)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
           'font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
           f'<text x="{LEFT}" y="18">{title}</text>']
    for rate in range(0, int(most) + 1, step_of(most)):
        _, y = at(0, rate)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
                   f'stroke="#ddd"/><text x="{LEFT - 8}" y="{y + 4:.1f}" '
                   f'text-anchor="end">{rate}</text>')
    for second in range(0, int(end) + 1, step_of(end)):
        x, _ = at(second, 0)
        out.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" '
                   f'text-anchor="middle">{second}</text>')
    out.append(f'<text x="{LEFT + wide / 2}" y="{HEIGHT - 8}" text-anchor="middle">seconds since '
               'asyncpf restore</text>')
    ends = apart([(at(end, rates[-1])[1], way) for way, _, rates in runs])
    for way, width, rates in runs:
        points = [at((n + 0.5) * width, rate) for n, rate in enumerate(rates)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        colour = COLOURS.get(way, "#000")
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
                   f'<text x="{WIDTH - RIGHT + 6}" y="{ends[way] + 4:.1f}" '
                   f'fill="{colour}">{way}</text>')
    return "\n".join(out + ["</svg>", ""])
