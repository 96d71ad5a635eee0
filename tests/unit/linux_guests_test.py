#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/linux_guests.py and the checks of tests/lab/linux_test.py without a lab: the script
runs in a shell of this host, and the checks get results that are wrong in one way each.

usage: linux_guests_test.py SOURCE_FOLDER
"""
import copy
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

SOURCE = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else ".").resolve()
sys.dont_write_bytecode = True
sys.path[:0] = [str(SOURCE / "tools"), str(SOURCE / "tests/lab")]
import linux_guests
import linux_test
from linux_guests import Boot

# Stands where the command would: says its words, and what a guest says.
COMMAND = r"""#!/bin/sh
[ "$1" = status ] && echo '{"faults_total": 5}' && exit
for word; do last=$word; done
echo "words: $*"
case $last in
*good*) echo 'guest: {"step":"visits"}'; echo 'guest: {"step":"end","well":true}' ;;
*wrong*) printf 'guest: failed: this\r\nguest: {"step":"en\r\n' ;;
*hangs*) exec sleep 60 ;;
*dies*) kill -9 $$ ;;
esac
echo '{"wall_s": 1,' >"$3"
echo '"stats": {"faults_total": 7}}' >>"$3"
exit 4
"""


class Script(unittest.TestCase):
    def run_script(self, *boots):
        with tempfile.TemporaryDirectory() as folder:
            command = pathlib.Path(folder, "asyncpf")
            command.write_text(COMMAND, encoding="utf-8")
            command.chmod(0o755)
            done = subprocess.run(["sh", "-c", linux_guests.script_of(enumerate(boots))], text=True,
                                  cwd=folder, stdout=subprocess.PIPE, check=False, timeout=60)
            self.assertEqual([p.name for p in pathlib.Path(folder).iterdir()], ["asyncpf"])
        shown = []
        results = [linux_guests.Result(b) for b in boots]
        linux_guests.read_output(done.stdout.splitlines(), results,
                                 lambda r: shown.append((r.boot.name, r.status)))
        return results, shown

    def test_what_a_boot_says(self):
        (result,), shown = self.run_script(Boot("a", ["good"]))
        self.assertEqual(result.status, 4)
        self.assertEqual(result.report("end"), {"step": "end", "well": True})
        self.assertEqual(result.stats, {"wall_s": 1, "stats": {"faults_total": 7}})
        self.assertEqual(result.wrong, [])
        self.assertEqual(result.counters, [{"faults_total": 5}])
        self.assertEqual(shown, [("a", None), ("a", 4)])

    def test_what_is_wrong_is_kept(self):
        (result,), _ = self.run_script(Boot("a", ["wrong"]))
        self.assertEqual(result.wrong, ["failed: this", '{"step":"en'])

    def test_a_boot_that_hangs_or_dies_does_not_stop_the_rest(self):
        results, _ = self.run_script(Boot("a", ["hangs"], limit_s=1), Boot("b", ["dies"]),
                                     Boot("c", ["good"]))
        self.assertEqual([r.status for r in results], [137, 137, 4])
        self.assertEqual([r.stats for r in results[:2]], [None, None])
        self.assertIn("ended by force after 1 s; its threads:", results[0].lines)

    def test_those_after_it_need_not_wait_for_it(self):
        began = time.monotonic()
        results, shown = self.run_script(Boot("a", ["hangs"], limit_s=2, beside=True),
                                         Boot("b", ["good"]))
        self.assertEqual([r.status for r in results], [137, 4])
        self.assertEqual(shown[-1], ("a", 137))
        self.assertGreaterEqual(time.monotonic() - began, 1)

    def test_words(self):
        boot = Boot("a", ["load=x:1", "good"], cpus=4, kernel="6.1", faults="stall",
                    resident="64M", swap_wrap="delay?ms=20", options=["--abi", "off"])
        (_, result), _ = self.run_script(Boot("other", ["good"]), boot)
        self.assertEqual(result.lines[0], " ".join([
            "words: run --json stats.1 --control control.1 --local --kernel vmlinuz-6.1",
            "--initrd linux.cpio --memory 512M --cpus 4 --faults stall",
            "--resident-max 64M --swap swap.1 --swap-wrap delay?ms=20 --abi off",
            f"--cmdline {linux_guests.CMDLINE} -- load=x:1 good"]))

    def test_labs_share_the_work(self):
        boots = [Boot(str(s), [], about_s=s) for s in (10, 80, 10, 30, 10)]
        got = linux_guests.shares(boots, 2)
        self.assertEqual([[n for n, _ in share] for share in got], [[1], [3, 0, 2, 4]])
        self.assertEqual(linux_guests.shares(boots[:1], 2), [[(0, boots[0])], []])
        first = [Boot("a", [], about_s=s, first=s == 20) for s in (20, 30, 20, 10)]
        self.assertEqual([[n for n, _ in share] for share in linux_guests.shares(first, 2)],
                         [[0, 1], [2, 3]])

    def words_of_the_lab(self, **more):
        """What tools/lab is told to be, by a command that prints it."""
        boots = [Boot("a", [])]
        with tempfile.TemporaryDirectory() as folder, \
                mock.patch.object(linux_guests, "kernel_files", lambda *_: []):
            lab = pathlib.Path(folder, "lab")
            lab.write_text("#!/bin/sh\necho \"0| $*\"\nexit 3\n", encoding="utf-8")
            lab.chmod(0o755)
            with mock.patch.object(linux_guests, "LAB", lab):
                (result,), code = linux_guests.run_boots(boots, "b", timeout_s=50, **more)
        self.assertEqual(code, 3)
        return result.lines[0]

    def test_a_slow_clock_takes_its_time(self):
        self.assertIn("--cpus 1 --memory 2560 --timeout 200 --slow b/slow_clock.so:4 --file",
                      self.words_of_the_lab(slow=4))
        self.assertIn("--timeout 50 --file", self.words_of_the_lab())

    def test_idle_share(self):
        result = linux_guests.Result(Boot("a", []))
        result.take_mark("idle", "100 10.0 120 14.0")
        self.assertAlmostEqual(result.idle_share, 0.05)
        result.take_mark("idle", "120 14.0 128 18.0")
        result.take_mark("idle", "128 18.0 148 22.0")
        self.assertAlmostEqual(result.idle_share, 0.02)


class Checks(unittest.TestCase):
    def healthy(self, **more):
        boot = Boot("a", ["load=seconds:1", "idle=5"], cpus=2, **more)
        events = boot.faults in ("user", "kernel") and not boot.options
        result = linux_guests.Result(boot, status=0, idle_share=0.01)
        for report in (
                {"step": "boot", "release": "6.12.95+deb12", "cpus": 2, "epoch": time.time(),
                 "uptime_ms": 1, "kvm_features": 0x4010 if events else 0},
                {"step": "load", "visits": 10, "bad": 0},
                {"step": "end", "hyp": [1, 2] if events else None, "stuck": 0, "complaints": 0,
                 "well": True}):
            result.take_line(f"guest: {json.dumps(report)}")
        return result

    def test_healthy_ones(self):
        for faults in linux_test.FAULTS:
            self.assertEqual(linux_test.check(self.healthy(faults=faults)), [], faults)

    CARDS = ("user,fwd=tcp:1:80", "tap=tap0", "user")

    def test_answers_from_outside(self):
        def result(asked, written, tap="3 0 0"):
            r = self.healthy(nets=self.CARDS)
            r.stats = {"devices": [
                {"name": "net0", "written_bytes": written, "read_bytes": 1},
                {"name": "net1", "written_bytes": enough, "read_bytes": 1},
                {"name": "net2", "written_bytes": 0, "read_bytes": 1}]}
            for way, counts in (("user", asked), ("tap", tap)):
                if counts:
                    r.take_mark("asked", f"{way} {counts}")
            return linux_test.check(r)

        enough = 3 * linux_test.DATA_BYTES
        self.assertEqual(result("3 0 0", enough), [])
        for asked, written in (("3 1 0", enough), ("3 0 1", enough), ("1 0 0", enough),
                               ("3 0 0", enough - 1), (None, enough)):
            self.assertEqual(len(result(asked, written)), 1, (asked, written))
        for tap in ("3 1 0", "3 0 1", "1 0 0", None):
            self.assertEqual(len(result("3 0 0", enough, tap)), 1, tap)

    def test_what_else_a_network_must_have_done(self):
        def result(steps=(), card=1, moved='{"eth0":2,"eth1":1,"eth2":1}', held="8 8 8",
                   still="0 2 2", line="tap tap0 has gone"):
            r = self.healthy(nets=self.CARDS)
            r.boot.steps += ["modules", *(s for s in steps if not s.startswith("load"))]
            r.boot.steps[0] += "".join(s for s in steps if s.startswith("load"))
            r.stats = {"devices": [
                {"name": f"net{n}", "written_bytes": 3 * linux_test.DATA_BYTES,
                 "read_bytes": card if n == 2 else 1} for n in range(3)]}
            r.reports.insert(1, {"step": "plug", "moved": json.loads(moved)})
            r.reports.insert(1, {"step": "stood", "epoch": 1000})
            r.take_mark("date", "1000")
            if not any(s.startswith("stand") for s in steps):
                r.reports.pop(1)
            r.take_mark("asked", "user 3 0 0")
            r.take_mark("asked", "tap 3 0 0")
            if held:
                r.take_mark("held", held)
            if still:
                r.take_mark("still", still)
            r.take_line(line)
            return linux_test.check(r)

        self.assertEqual(len(result(card=0)), 1)
        rows = (({"steps": ["load,plug:1"]}, {"moved": "{}"}),
                ({"steps": ["load,plug:1"]}, {"moved": '{"eth0":0,"eth1":0,"eth2":0}'}),
                ({"steps": ["load,plug:1"]}, {"moved": '{"eth0":2,"eth1":0,"eth2":1}'}),
                ({"steps": ["stand=minute"]}, {"held": "7 8 8"}),
                ({"steps": ["stand=minute"]}, {"held": "8 7 8"}),
                ({"steps": ["stand=minute"]}, {"held": None}),
                ({"steps": ["stand=minute"]}, {"still": "0 1 2"}),
                ({"steps": ["stand=minute"]}, {"still": "1 2 2"}),
                ({"steps": ["stand=minute"]}, {"still": None}),
                ({"steps": ["cut"]}, {"line": "tap tap1 has gone"}))
        for asked_for, breach in rows:
            self.assertEqual(result(**asked_for), [], asked_for)
            self.assertEqual(len(result(**asked_for, **breach)), 1, breach)
            self.assertEqual(result(**breach), [], breach)

    def test_what_a_disk_must_have_carried(self):
        def result(written=5, read=6, random=7, said=True):
            r = self.healthy()
            r.boot.steps[0] += ",disk:1"
            r.stats = {"devices": [
                {"name": "blk0", "written_bytes": written, "read_bytes": read},
                {"name": "rng", "read_bytes": random}]}
            if said:
                r.reports.insert(1, {"step": "disk", "written": 5, "read": 6, "random": 7})
            return linux_test.check(r)

        self.assertEqual(result(), [])
        for breach in ({"written": 4}, {"read": 5}, {"random": 6}):
            self.assertEqual(len(result(**breach)), 1, breach)
        self.assertEqual(len(result(said=False)), 3)

    def test_what_a_balloon_and_sockets_must_have_done(self):
        def result(balloon="0 the guest has 1 MiB", talking="9 9 4 4", inflated=7, refused=0,
                   resets=0, opened=20, failed=0, vsock=None, rebound=True):
            r = self.healthy()
            r.boot.steps += ["modules", "rebind", "vsock=pause"]
            r.stats = {"stats": {"discarded": 3},
                       "balloon": {"balloon_inflated_bytes": inflated, "balloon_refused": refused,
                                   "balloon_reported_bytes": 7, "guest_memory_bytes": 7},
                       "vsock": {"vsock_opened": opened, "vsock_resets": resets}}
            r.reports[1:1] = [{"step": "vsock-end", "connections": 8}]
            if rebound:
                r.reports.insert(1, {"step": "rebind"})
            r.take_mark("balloon", balloon)
            r.take_mark("talking", talking)
            r.take_mark("vsock", vsock or f'{{"connections": 12, "failed": {failed}}} ')
            return linux_test.check(r)

        self.assertEqual(result(), [])
        self.assertEqual(result(talking="9 10 4 4"), [])
        for breach in ({"balloon": "1 the guest keeps more"}, {"talking": "9 8 4 4"},
                       {"talking": "9 9 3 4"}, {"talking": "0 0 4 4"}, {"inflated": 0},
                       {"refused": 1}, {"resets": 1}, {"opened": 19}, {"failed": 1},
                       {"vsock": "no server"}, {"rebound": False}):
            self.assertEqual(len(result(**breach)), 1, breach)

    def test_what_a_guest_must_have_taken_back_that_needs_it(self):
        def result(back=3, has=5, reported=True):
            r = self.healthy()
            r.boot.steps.append(linux_test.NEED)
            if reported:
                r.reports[1:1] = [{"step": "needed", "back": back, "bad": 0}]
            r.take_mark("needed", f'{{"balloon_bytes": {has}, "balloon_target_bytes": 9}}')
            return linux_test.check(r)

        self.assertEqual(result(), [])
        for breach in ({"back": 0}, {"has": 9}, {"reported": False}):
            self.assertEqual(len(result(**breach)), 1, breach)

    def test_what_an_evicted_guest_must_have_taken_back(self):
        def result(back=3, evicted=1):
            r = self.healthy(resident="72M")
            r.boot.steps = [linux_test.EVICTED_NEED]
            r.stats = {"stats": {"evicted": evicted, "refaulted": 1, "swapped": 1}}
            r.reports[1:2] = [{"step": "needed", "back": back, "bad": 0}]
            r.take_mark("needed", '{"balloon_bytes": 5, "balloon_target_bytes": 9}')
            return linux_test.check(r)

        self.assertEqual(result(), [])
        for breach in ({"back": 0}, {"evicted": 0}):
            self.assertEqual(len(result(**breach)), 1, breach)

    def test_each_breach_is_found(self):
        def status(r):
            r.status = 1
        def no_end(r):
            r.reports.pop()
        def no_load(r):
            del r.reports[1]
        def cpu_lost(r):
            r.reports[0]["cpus"] = 1
        def old_kernel(r):
            r.reports[0]["release"] = "6.1.0"
        def epoch(r):
            r.reports[0]["epoch"] = 5
        def not_offered(r):
            r.reports[0]["kvm_features"] = 0
        def silent_cpu(r):
            r.reports[2]["hyp"] = [1, 0]
        def hidden_cpu(r):
            r.reports[2]["hyp"] = [1]
        def bad_page(r):
            r.reports[1]["bad"] = 1
        def lazy_load(r):
            r.reports[1]["visits"] = 0
        def busy_idle(r):
            r.idle_share = 0.5
        def unseen_idle(r):
            r.idle_share = None
        def second_boot(r):
            r.reports.append(r.reports[0])
        def said(r):
            r.take_line("guest: stuck: task 7 (load) is in uninterruptible sleep")
        def oops(r):
            r.take_line("[    9.4] Oops: 0000 [#1] PREEMPT SMP NOPTI")
        for breach in (status, no_end, no_load, cpu_lost, old_kernel, epoch, not_offered,
                       silent_cpu, hidden_cpu, bad_page, lazy_load, busy_idle, unseen_idle,
                       second_boot, said, oops):
            result = copy.deepcopy(self.healthy())
            breach(result)
            self.assertNotEqual(linux_test.check(result), [], breach.__name__)

    def test_a_standstill_without_its_date_is_found(self):
        result = self.healthy()
        result.boot.steps.append("stand=pause")
        self.assertNotEqual(linux_test.check(result), [])
        result.reports.insert(2, {"step": "stood", "epoch": 1000})
        result.take_mark("date", "1001")
        self.assertEqual(linux_test.check(result), [])
        result.reports[2]["epoch"] = 992
        self.assertNotEqual(linux_test.check(result), [])

    def evicted(self, faults):
        result = self.healthy(faults=faults, resident="64M")
        result.reports[1].update({"processes": 2, "pages": 7, "file": 1, "file_visits": 3,
                                  "swept": 16, "hyp": 5})
        result.stats = {"stats": {"evicted": 9, "refaulted": 8, "swapped": 9,
                                  "missing_events": 5}}
        return result

    def test_each_breach_under_eviction_is_found(self):
        for faults in linux_test.FAULTS:
            self.assertEqual(linux_test.check(self.evicted(faults)), [], faults)
        def no_stats(r):
            r.stats = None
        def half_swept(r):
            r.reports[1]["swept"] = 15
        def never_told(r):
            r.reports[1]["hyp"] = 0
        def no_file(r):
            r.reports[1]["file_visits"] = 0
        def none(word):
            return lambda r: r.stats["stats"].update({word: 0})
        for breach in (no_stats, half_swept, never_told, no_file, none("evicted"),
                       none("refaulted"), none("swapped"), none("missing_events")):
            result = self.evicted("user")
            breach(result)
            self.assertNotEqual(linux_test.check(result), [], breach)

    def test_events_that_were_not_offered(self):
        for more in ({"faults": "block"}, {"faults": "stall"}, {"options": ["--abi", "off"]}):
            result = self.healthy(**more)
            self.assertEqual(linux_test.check(result), [])
            result.reports[2]["hyp"] = [0, 1]
            self.assertNotEqual(linux_test.check(result), [])

    def test_a_watch_that_sees_nothing_is_found(self):
        result = self.healthy()
        result.boot.name = "a unwell"
        self.assertNotEqual(linux_test.check(result), [])


if __name__ == "__main__":
    unittest.main()
