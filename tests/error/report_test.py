#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`asyncpf report`: the page has what the trace has, looks at nothing outside itself, and shows
hostile traces safely or refuses them. A real browser draws it, where there is one.

usage: report_test.py PATH_OF_ASYNCPF
"""
import html.parser
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree
import zlib

ASYNCPF = os.path.abspath(sys.argv[1])
LIMIT_S = 100
NASTY = "</svg><script>document.title='owned'</script><img src=x onerror=alert(1)>&\"'"
BROWSER = shutil.which("chromium")


def run(*words):
    return subprocess.run([ASYNCPF, *map(str, words)], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False, timeout=LIMIT_S)


class Elements(html.parser.HTMLParser):
    """Every tag with its attributes; what may not be there would be seen."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def fault(ident, at, took, vcpu=0, gpa="0x1000", how="told", pid=1):
    track = {"pid": pid, "tid": vcpu + 2}
    return [{"ph": "b", **track, "ts": at, "cat": "fault", "id": ident, "name": "fault",
             "args": {"gpa": gpa, "cpl": 3}},
            {"ph": "B", **track, "ts": at, "name": "stands still", "args": {"gpa": gpa}},
            {"ph": "n", **track, "ts": at, "cat": "fault", "id": ident, "name": how},
            {"ph": "E", **track, "ts": at + took / 2},
            {"ph": "e", **track, "ts": at + took, "cat": "fault", "id": ident, "name": "fault"}]


class Report(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.trace = self.folder / "trace.json"
        self.page = self.folder / "trace.html"

    def report(self, events):
        self.trace.write_text(events if isinstance(events, str) else json.dumps(events),
                              encoding="utf-8")
        return run("report", self.trace)

    def made(self, events):
        done = self.report(events)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, f"{self.page}\n", ""))
        return self.page.read_text(encoding="utf-8")

    def refused(self, events, why):
        done = self.report(events)
        self.assertEqual((done.returncode, done.stderr),
                         (1, f"asyncpf: cannot report: {self.trace}: {why}\n"))
        self.assertFalse(self.page.exists())

    def check_alone(self, page):
        """Nothing of it is fetched, and nothing of it runs."""
        seen = Elements(page)
        for tag in ("script", "img", "iframe", "link", "object", "foreignobject", "a", "use"):
            self.assertNotIn(tag, seen.tags)
        for name, value in seen.attributes:
            self.assertFalse(name.startswith("on") or name in ("src", "href", "style"), name)
            self.assertNotIn("url(", value or "")
        self.assertIn("default-src 'none'", page)

    def cells(self, page, row):
        found = re.search(rf"<tr><td>{row}</td>(.*?)</tr>", page)
        return re.findall(r"<td>(.*?)</td>", found[1])

    @unittest.skipUnless(os.access("/dev/kvm", os.R_OK | os.W_OK), "/dev/kvm may not be used")
    def test_of_a_demo(self):
        done = run("demo", "--quiet", "--runs", "stall,user:int", "--pages", "128",
                   "--trace", self.trace, "--json", self.folder / "result")
        self.assertEqual(done.returncode, 0, done.stderr)
        page = self.made(self.trace.read_text(encoding="utf-8"))
        self.check_alone(page)
        runs = json.loads((self.folder / "result").read_text(encoding="utf-8"))["runs"]
        self.assertEqual(self.cells(page, "told"), [str(r["missing_events"]) for r in runs])
        self.assertEqual(self.cells(page, "halted"), [str(r["stalls"]) for r in runs])
        self.assertEqual(self.cells(page, "reads"), [str(r["host"]["reads"]) for r in runs])
        # Progress of both; of each waits, still, sources, reads, memory.
        svgs = re.findall(r"<svg.*?</svg>", page, re.S)
        self.assertEqual(len(svgs), 1 + 2 * 5)
        for svg in svgs:
            xml.etree.ElementTree.fromstring(svg)

    def test_numbers(self):
        events = [{"ph": "M", "pid": 1, "tid": 0, "ts": 0, "name": "process_name",
                   "args": {"name": "one"}}]
        for i in range(100):
            events += fault(i, i * 1000, 10 * (i + 1))
        events[-1:-1] = [{**events[-1], "ph": "n", "name": "withdrawn"}]
        page = self.made(events)
        self.assertEqual(self.cells(page, "faults"), ["100"])
        self.assertEqual(self.cells(page, "told"), ["99"])
        self.assertEqual(self.cells(page, "wait p50"), ["510 us"])
        self.assertEqual(self.cells(page, "wait max"), ["1 ms"])
        # Half of each wait, of 100 ms in all.
        self.assertEqual(self.cells(page, "vCPUs still"), ["25.2 %"])

    def test_files(self):
        self.made(fault(1, 0, 5))
        done = run("report", "--svg", self.folder / "out", self.trace)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assertEqual(sorted(p.name for p in (self.folder / "out").iterdir()),
                         ["memory.svg", "still.svg", "waits.svg"])
        for picture in (self.folder / "out").iterdir():
            xml.etree.ElementTree.parse(picture)
        done = run("report", "--output", "-", self.trace)
        self.assertEqual((done.returncode, done.stdout), (0, self.page.read_text()))

    def test_a_trace_is_not_overwritten(self):
        """By whatever name the page goes there."""
        self.made(fault(1, 0, 5))
        before = self.trace.read_bytes()
        self.page.unlink()
        os.link(self.trace, self.folder / "hard")
        for page in (self.trace, self.folder / "." / "hard", "/dev/../" + str(self.trace)):
            done = run("report", "--output", page, self.trace)
            self.assertEqual(done.returncode, 3)
            self.assertRegex(done.stderr, r"\Aasyncpf: same file: TRACE \S+ and --output \S+: "
                                          r"one would destroy the other; name two\n\Z")
        self.page.symlink_to(self.trace)
        self.assertEqual(run("report", self.trace).returncode, 3)
        self.assertEqual(self.trace.read_bytes(), before)

    def test_standard_streams(self):
        """Closed ones, and a full one; by a signal it ends as any program, without a word."""
        self.made(fault(1, 0, 5))
        shell = f'exec "{ASYNCPF}" report "{self.trace}" '
        for what, code, says in (
                ("<&-", 0, r"\A\Z"), ("2>&-", 0, r"\A\Z"),
                (">&-", 1, r"\Aasyncpf: cannot write: standard output: Bad file desc[^\n]*\n\Z"),
                (">/dev/full", 1, r"\Aasyncpf: cannot write: standard output: No sp[^\n]*\n\Z"),
                ("--output - >/dev/full", 1, r"\Aasyncpf: cannot write: standard output: No sp"),
                ("--output - >&-", 1, r"\Aasyncpf: cannot write: standard output: Bad file d")):
            with self.subTest(what=what):
                done = subprocess.run(["sh", "-c", shell + what], stdout=subprocess.DEVNULL,
                                      stderr=subprocess.PIPE, text=True, check=False,
                                      timeout=LIMIT_S)
                self.assertEqual(done.returncode, code, done)
                self.assertRegex(done.stderr, says)
        os.mkfifo(self.folder / "fifo")
        process = subprocess.Popen(
            [ASYNCPF, "report", self.folder / "fifo"], stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        writer = os.open(self.folder / "fifo", os.O_WRONLY)  # once it has opened its end
        process.send_signal(signal.SIGINT)
        self.assertEqual((process.communicate(timeout=LIMIT_S)[1], process.returncode),
                         (b"", -signal.SIGINT))
        os.close(writer)

    def test_half_a_page_is_none(self):
        self.made(fault(1, 0, 5))
        done = subprocess.run(
            [ASYNCPF, "report", self.trace], stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=False, timeout=LIMIT_S,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))
        self.assertEqual((done.returncode, done.stdout, done.stderr), (
            1, "", f"asyncpf: cannot write: {self.page}: File too large; name another place\n"))
        self.assertFalse(self.page.exists())

    def test_fifos(self):
        """None is waited for without an end; whoever has its other end may be late."""
        self.made(fault(1, 0, 5))
        fifo = self.folder / "fifo"
        os.mkfifo(fifo)
        for words, code, says in (((fifo,), 3, "read: {}: a FIFO that nobody writes to"),
                                  (("--output", fifo, self.trace), 1,
                                   "write: {}: a FIFO that nobody reads")):
            done = run("report", *words)
            self.assertEqual((done.returncode, done.stdout), (code, ""))
            self.assertIn(says.format(fifo), done.stderr)
        for words, other in ((("--output", "-", fifo), f"cat {self.trace} >{fifo}"),
                             (("--output", fifo, self.trace), f"cat {fifo} >{self.page}")):
            with subprocess.Popen(["sh", "-c", f"sleep 1; {other}"]):
                self.assertEqual(run("report", *words).returncode, 0)
        self.assertIn("</html>", self.page.read_text(encoding="utf-8"))

    # ---- what a trace may not do ----

    def test_markup_is_text(self):
        events = [{"ph": "M", "pid": 1, "tid": 0, "ts": 0, "name": "process_name",
                   "args": {"name": NASTY}}, *fault(1, 0, 5)]
        page = self.made(events)
        self.check_alone(page)
        self.assertIn("&lt;/svg&gt;&lt;script&gt;", page)

    def test_odd_things_are_passed_over(self):
        self.made([{"ph": "X", "pid": 1, "tid": 9, "ts": 5, "name": {"a": []}},
                   {"ph": "e", "pid": 1, "tid": 2, "ts": 5, "cat": "fault", "id": 77},
                   {"ph": "E", "pid": 1, "tid": 2, "ts": 6},
                   fault(2, 6, 5)[0],
                   *({"ph": "n", "pid": 1, "tid": 2, "ts": 6, "cat": "fault", "id": 2, "name": name}
                     for name in ([], {}, 5, None)),
                   {"ph": "M", "pid": 2, "tid": 0, "ts": 0, "name": "process_name", "args": 5},
                   *fault(1, 7, 5)])

    def test_nonsense_is_refused(self):
        anew = "; write the trace anew"
        self.refused("", "it is empty; was the command that wrote it stopped?")
        for text in ("5", '"x"', "{}", "not json"):
            self.refused(text, "it is no trace: neither an array nor traceEvents; name a file of "
                               "--trace")
        self.refused('[{"ph":"M","pid":1,"ts":0},', "it ends after 1 events, within the array; "
                                                    "was the command killed?")
        self.refused("[{]", "event 1 is no JSON" + anew)
        self.refused("[" * 100000, "event 1 is no JSON" + anew)
        self.refused('[{"pid":1,"ts":' + "1" * 5000 + "}]", "event 1 is no JSON" + anew)
        self.refused("[5]", "event 1 is no object" + anew)
        self.refused('[{"pid":1,"ts":NaN}]', "event 1 is no JSON" + anew)
        for ts in ("-1", "1e300", '"5"', "true", "null", "[]"):
            self.refused(f'[{{"ph":"i","pid":1,"ts":{ts}}}]',
                         "event 1 has no ts from 0 to 1e+12" + anew)
        self.refused([{"ph": "i", "ts": 0, "pid": "x"}],
                     f"event 1 has no pid from 0 to {1 << 31:g}" + anew)
        for gpa in ("x", "-0x1", 5, "0x" + "f" * 17, "0x" + "f" * 5000):
            self.refused(fault(1, 0, 5, gpa=gpa), "event 1 has no gpa" + anew)
        self.refused([{"ph": "B", "pid": 1, "tid": 5000, "ts": 0}],
                     "event 1 has no tid from 0 to 1026" + anew)
        self.refused([{"ph": "i", "pid": pid, "ts": 0} for pid in range(40)],
                     "it has more than 32 VMs; trace fewer runs")

    def test_what_cannot_be_read_or_written(self):
        done = run("report", self.trace)
        self.assertEqual((done.returncode, done.stderr),
                         (3, f"asyncpf: cannot read: {self.trace}: No such file or directory; "
                             "check the path\n"))
        self.trace.write_bytes(b"[\xff\xfe")
        self.assertEqual(run("report", self.trace).returncode, 1)
        self.trace.write_text(json.dumps(fault(1, 0, 5)), encoding="utf-8")
        done = run("report", "--output", self.folder / "none" / "x", self.trace)
        self.assertEqual(done.returncode, 1)
        self.assertIn("No such file or directory; name another place", done.stderr)

    def test_size_is_bounded(self):
        """However long the trace, the page is not."""
        events = []
        for i in range(20000):
            events += fault(i, i * 100, 10 + i % 977, gpa=hex(i * 7919 % 65536 * 4096))
        self.assertLess(len(self.made(events)), 4 << 20)

    # ---- a real browser ----

    @unittest.skipUnless(BROWSER, "no browser (Debian's chromium) is there")
    def test_in_a_browser(self):
        events = [{"ph": "M", "pid": 1, "tid": 0, "ts": 0, "name": "process_name",
                   "args": {"name": NASTY}}]
        for i in range(200):
            events += fault(i, i * 1000, 10 * (i + 1), vcpu=i % 2, gpa=hex(i * 4096))
        self.made(events)
        words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,1600",
                 f"--user-data-dir={self.folder / 'profile'}"]
        dom = subprocess.run([*words, "--dump-dom", f"file://{self.page}"], capture_output=True,
                             text=True, check=True, timeout=LIMIT_S).stdout
        # It has understood everything as we meant it, and has run nothing.
        self.assertIn("<title>trace.json</title>", dom)
        self.check_alone(dom)
        self.assertEqual(dom.count("<svg"), 3)
        picture = self.folder / "picture.png"
        subprocess.run([*words, f"--screenshot={picture}", f"file://{self.page}"],
                       capture_output=True, check=True, timeout=LIMIT_S)
        rows = pixels(picture.read_bytes())
        colours = {row[i:i + 3] for row in rows for i in range(0, len(row), 12)}
        # Paper, ink, the ramp and the lines: an empty page has a few.
        self.assertGreater(len(colours), 40)
        # The row of vCPU 0 is drawn in the ramp's hue.
        self.assertTrue(any(c[2] > c[0] + 60 for c in colours))


def pixels(png):
    """Rows of RGB bytes of a PNG of 8 bits per channel, without interlacing."""
    at, data = 8, b""
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at:at + 8])
        body = png[at + 8:at + 8 + size]
        if kind == b"IHDR":
            width, _, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", body)
        elif kind == b"IDAT":
            data += body
        at += 12 + size
    step = {2: 3, 6: 4}[colour]
    assert (depth, interlace) == (8, 0)
    raw, rows, last = zlib.decompress(data), [], bytes(width * step)
    for at in range(0, len(raw), width * step + 1):
        row = bytearray(raw[at + 1:at + 1 + width * step])
        for i in range(len(row)):
            left = row[i - step] if i >= step else 0
            up, corner = last[i], last[i - step] if i >= step else 0
            if raw[at] == 4:
                p = left + up - corner
                guess = min((abs(p - left), 0, left), (abs(p - up), 1, up),
                            (abs(p - corner), 2, corner))[2]
            else:
                guess = (0, left, up, (left + up) // 2)[raw[at]]
            row[i] = (row[i] + guess) & 255
        last = bytes(row)
        rows.append(b"".join(last[i:i + 3] for i in range(0, len(last), step)))
    return rows


if __name__ == "__main__":
    result = unittest.main(argv=sys.argv[:1], exit=False).result
    for case, reason in result.skipped:
        print(f"SKIP: {case.id()}: {reason}")
    sys.exit(not result.wasSuccessful())
