#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`asyncpf snapshot` of a guest that counts in memory: each snapshot must hold exactly what so many
steps leave, whichever generation it is of, and whoever was killed.

usage: snapshot_run_test.py PATH_OF_ASYNCPF [GENERATIONS]
"""
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

from snapshot_support import ASYNCPF, LIMIT_S, RUNNING, SnapshotCase, main

GENERATIONS = int(sys.argv[2]) if len(sys.argv) > 2 else 10
KILLS = 4


class SnapshotTest(SnapshotCase):
    def test_generations(self):
        vm = self.run_vm()
        before = 0
        for n in range(GENERATIONS):
            files = self.snapshot(vm, f"snap{n}")
            self.stop(vm)
            seen = self.steps_of(files)
            self.assertGreater(seen, before)
            before = seen
            vm = self.restore(files)
            # The one before it is not needed any more, but by who may have failed here.
            shutil.rmtree(self.folder / f"snap{n - 1}", ignore_errors=True)
        self.stop(vm)

    def check_while_it_runs(self, vm):
        """Snapshots of a guest that goes on: each is of one moment, registers and all."""
        before = 0
        for n in range(3):
            files = self.snapshot(vm, f"live{n}", RUNNING)
            seen = self.steps_of(files)
            self.assertGreater(seen, before)
            before = seen
            told = self.status(vm)
            self.assertEqual((told["snapshot_running"], told["snapshot_left_bytes"]), (0, 0))
            self.assertGreater(told["snapshot_paused_ns"], 0)
            self.assertEqual(told["state"], "running")
            self.rounds(vm, 1)
        self.stop(vm)
        return files, before

    def check_goes_on(self, files, before):
        vm = self.restore(files)
        self.rounds(vm, 2)
        self.assertGreater(self.steps_of(self.snapshot(vm, "on", RUNNING)), before)
        self.stop(vm)

    def test_while_it_runs(self):
        # A KVM that emulates kernel mode cannot have its code come by the other ways.
        for faults in ("user", "stall", "block"):
            with self.subTest(faults):
                self.check_while_it_runs(self.run_vm(faults=faults))
                for files in self.folder.glob("live*"):
                    shutil.rmtree(files)
        self.check_goes_on(*self.check_while_it_runs(self.run_vm()))

    def test_while_it_runs_and_is_evicted(self):
        vm = self.run_vm("--faults", "kernel", "--resident-max", "4M", "--swap",
                         str(self.folder / "swap"))
        self.check_goes_on(*self.check_while_it_runs(vm))

    def test_while_it_runs_and_is_restored(self):
        vm = self.run_vm()
        files = self.snapshot(vm, "snap")
        self.stop(vm)
        vm = self.restore(files, "--source", f"delay+file:{files}/memory?ms=2")
        self.check_while_it_runs(vm)

    def test_only_what_changed(self):
        vm = self.run_vm()
        chain, _ = self.make_chain(vm, "run")
        self.check_chain(vm, chain)

    def test_only_what_changed_of_an_evicted_one(self):
        vm = self.run_vm("--faults", "kernel", "--resident-max", "4M", "--swap",
                         str(self.folder / "swap"))
        chain, before = self.make_chain(vm, "evicted")
        self.stop(vm)
        self.check_goes_on(chain[-1], before)

    def make_chain(self, vm, name):
        before = 0
        chain = []
        for n, words in enumerate(([], [RUNNING], [])):
            base = ["--base", str(chain[-1])] if chain else []
            files = self.snapshot(vm, f"{name}{n}", *words, *base)
            chain.append(files)
            seen = self.steps_of(files)
            self.assertGreater(seen, before)
            before = seen
        return chain, before

    def check_chain(self, vm, chain):
        self.assertEqual(sorted(os.listdir(chain[-1])),
                         ["changed", "layers", "snapshot.json", "state"])
        self.assertEqual({f.stat().st_mode & 0o777 for f in chain[-1].iterdir()}, {0o600})
        described = json.loads((chain[-1] / "snapshot.json").read_text())
        self.assertEqual(described["base"], "../run1")
        self.assertNotEqual(described["id"], json.loads(
            (chain[0] / "snapshot.json").read_text())["id"])
        # Only of the one before it.
        done = self.verb(vm, "snapshot", "--base", str(chain[0]), str(self.folder / "none"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("--base is not the last snapshot", done.stderr)
        # A failure of one leaves the last what it was.
        files = self.snapshot(vm, "last", RUNNING, "--base", str(chain[-1]))
        before = self.steps_of(files)
        self.stop(vm)
        # All of them together elsewhere, too.
        moved = self.folder / "moved"
        moved.mkdir()
        for f in [*chain, files]:
            f.rename(moved / f.name)
        files = moved / files.name
        vm = self.restore(files)
        self.rounds(vm, 2)
        next_files = self.snapshot(vm, "next", RUNNING)
        self.assertGreater(self.steps_of(next_files), before)
        done = self.verb(vm, "snapshot", "--base", str(files), str(self.folder / "none"))
        self.assertIn("--base is not the last snapshot", done.stderr)
        self.stop(vm)
        # Nothing is written over those below.
        for name in ("memory", "state"):
            self.refused([str(files), "--json", str(moved / chain[0].name / name)], "same file")
        # Without one of those below, or with another there, there is nothing to restore.
        (moved / "run1").rename(moved / "away")
        self.refused([str(files)], "builds upon another, which cannot be read")
        shutil.copytree(next_files, moved / "run1")
        self.refused([str(files)], "builds upon another snapshot than the one that is there")
        shutil.rmtree(moved / "run1")
        (moved / "away").rename(moved / "run1")
        good = (files / "layers").read_bytes()
        (files / "layers").write_bytes(good[:5000] + bytes([good[5000] ^ 1]) + good[5001:])
        self.refused([str(files)], "has changed")
        (files / "layers").write_bytes(good[:-8])
        self.refused([str(files)], "is cut short")
        (files / "layers").unlink()
        self.refused([str(files)], "layers")
        shutil.rmtree(moved)

    def test_what_is_small_when_little_changed(self):
        vm = self.run_vm()
        first = self.snapshot(vm, "first")
        self.verb(vm, "pause")
        second = self.snapshot(vm, "second", "--base", str(first))
        third = self.snapshot(vm, "third", "--base", str(second))
        self.steps_of(third)
        self.assertLess((third / "changed").stat().st_blocks * 16,
                        (first / "memory").stat().st_blocks)
        self.stop(vm)

    def test_a_paused_one_stays_paused(self):
        vm = self.run_vm()
        self.verb(vm, "pause")
        self.steps_of(self.snapshot(vm, "live", RUNNING))
        self.assertEqual(self.status(vm)["state"], "paused")
        self.verb(vm, "resume")
        self.rounds(vm, 1)
        self.stop(vm)

    def test_who_pauses_meanwhile_has_the_last_word(self):
        vm = self.run_vm()
        files = self.snapshot(vm, "snap")
        self.stop(vm)
        for last in ("paused", "running"):
            # All that is not there yet is read while it stands.
            vm = self.restore(files, "--source", f"delay+file:{files}/memory?ms=5")
            client = subprocess.Popen([ASYNCPF, "snapshot", "--control", vm.path,
                                       str(self.folder / last)], stdout=subprocess.DEVNULL)
            while client.poll() is None and not self.status(vm)["snapshot_running"]:
                pass
            self.verb(vm, "pause")
            if last == "running":
                done = self.verb(vm, "resume")
                self.assertEqual((done.returncode, done.stdout),
                                 (0, "running when its snapshot is written\n"))
            self.assertEqual(self.status(vm)["snapshot_running"], 1)
            self.assertEqual(client.wait(), 0)
            self.assertEqual(self.status(vm)["state"], last)
            self.verb(vm, "resume")
            self.rounds(vm, 1)
            self.stop(vm)

    def test_two_at_once_leave_it_as_it_was(self):
        vm = self.run_vm()
        files = self.snapshot(vm, "snap")
        self.stop(vm)
        before = {f.name: f.read_bytes() for f in files.iterdir()}
        both = [self.restore(files), self.restore(files)]
        for n, vm in enumerate(both):
            self.rounds(vm, 2)
            self.steps_of(self.snapshot(vm, f"own{n}"))
        for vm in both:
            self.stop(vm)
        self.assertEqual(before, {f.name: f.read_bytes() for f in files.iterdir()})

    def test_killed_at_any_moment_it_is_whole_or_not_there(self):
        for words in ([], [RUNNING]):
            with self.subTest(words=words):
                self.check_kills(words)

    def check_kills(self, words):
        vm = self.run_vm()
        for n in range(KILLS):
            files = self.folder / f"snap{n}"
            client = subprocess.Popen([ASYNCPF, "snapshot", *words, "--control", vm.path,
                                       str(files)],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                client.wait(0.001 * 4 ** n)
            client.send_signal(signal.SIGINT if n % 2 else signal.SIGKILL)
            client.wait()
            if n % 2:
                self.assertEqual(list(self.folder.glob("*.part")), [])
            shutil.rmtree(next(self.folder.glob("*.part"), self.folder / "none"), True)
            if files.exists():
                self.steps_of(files)
            # The VM runs on, and can be saved.
            self.rounds(vm, 2)
            self.steps_of(self.snapshot(vm, f"after{n}", *words))
        # The other end.
        client = subprocess.Popen([ASYNCPF, "snapshot", *words, "--control", vm.path,
                                   str(self.folder / "last")], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, text=True)
        vm.kill()
        _, err = client.communicate(timeout=LIMIT_S)
        if client.returncode == 0:
            self.steps_of(self.folder / "last")
        else:
            self.assertNotEqual(err, "")
            self.assertEqual([f for f in os.listdir(self.folder) if f.startswith("last")], [])
        for pattern in ("snap*", "after*", "last*"):
            for files in self.folder.glob(pattern):
                shutil.rmtree(files)

    def test_what_a_killed_one_left_is_removed_by_the_next_of_its_name(self):
        vm = self.run_vm()
        for name in ("snap.17.part", "snap.18.part", "snap.19.part", "other.17.part"):
            (self.folder / name).mkdir()
            (self.folder / name / "memory").write_bytes(bytes(4096))
        (self.folder / "snap.19.part" / "mine").touch()
        held = os.open(self.folder / "snap.18.part", os.O_RDONLY)
        self.addCleanup(os.close, held)
        fcntl.flock(held, fcntl.LOCK_EX)
        self.steps_of(self.snapshot(vm, "snap"))
        left = {p.name: sorted(f.name for f in p.iterdir())
                for p in self.folder.glob("*.part")}
        # One that somebody makes just now, what is not ours, and another's.
        self.assertEqual(left, {"snap.18.part": ["memory"], "snap.19.part": ["mine"],
                                "other.17.part": ["memory"]})
        # And a client that is really killed, as soon as there is something to leave.
        client = subprocess.Popen([ASYNCPF, "snapshot", "--control", vm.path,
                                   str(self.folder / "late")], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        until = time.monotonic() + LIMIT_S
        while not list(self.folder.glob("late*")) and time.monotonic() < until:
            time.sleep(0.0005)
        client.kill()
        client.wait()
        if not (self.folder / "late").exists():
            self.snapshot(vm, "late")
        self.assertEqual(list(self.folder.glob("late.*")), [])
        self.stop(vm)

    def test_a_full_disk_leaves_nothing(self):
        small = self.folder / "small"
        small.mkdir()
        script = ('mount -t tmpfs -o size=256k none "$1" || exit 77; '
                  '"$2" snapshot $4 --control "$3" "$1/snap"; echo $?; ls -A "$1"')
        for word in ("", RUNNING):
            vm = self.run_vm()
            done = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", str(small), ASYNCPF,
                                   vm.path, word], capture_output=True, text=True, timeout=LIMIT_S,
                                  check=False)
            if done.returncode == 77 or "unshare" in done.stderr:
                self.skipTest(f"no file system may be mounted here: {done.stderr}")
            self.assertEqual(done.stdout, "1\n")
            self.assertIn("No space left", done.stderr)
            self.rounds(vm, 1)
            self.steps_of(self.snapshot(vm, "snap" + word, *word.split()))
            self.stop(vm)

    @staticmethod
    def ask(vm, request, *fds):
        """The last line of the answer."""
        with socket.socket(socket.AF_UNIX) as s, s.makefile() as answer:
            s.settimeout(LIMIT_S)
            s.connect(vm.path)
            s.sendall(answer.readline().encode())
            socket.send_fds(s, [request.encode() + b"\n"], fds)
            return next((line for line in answer if line.startswith(("ok\n", "error "))), "")

    def test_a_state_that_cannot_be_written_forgets_no_page(self):
        vm = self.run_vm()
        first = self.snapshot(vm, "first")
        self.rounds(vm, 2)
        self.verb(vm, "pause")
        base = json.loads((first / "snapshot.json").read_text())["id"]
        with open(os.memfd_create("state", os.MFD_ALLOW_SEALING), "wb") as state, \
             open(self.folder / "changed", "w+b") as memory:
            fcntl.fcntl(state, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
            self.assertIn("not permitted", self.ask(vm, f"snapshot base {base}", state.fileno(),
                                                    memory.fileno()))
            memory.seek(0)
            self.assertTrue(any(memory.read()))
        second = self.snapshot(vm, "second", "--base", str(first))
        self.assertGreater(self.steps_of(second), self.steps_of(first))
        self.stop(vm)

    def test_what_a_write_could_wait_for_is_refused(self):
        vm = self.run_vm()
        ends = os.pipe2(os.O_NONBLOCK)
        for end in ends:
            self.addCleanup(os.close, end)
        with contextlib.suppress(BlockingIOError):
            while os.write(ends[1], bytes(4096)):
                pass
        os.set_blocking(ends[1], True)
        with open(self.folder / "file", "wb") as file:
            for fds in ((ends[1], file.fileno()), (file.fileno(), ends[1])):
                self.assertIn("two regular files", self.ask(vm, "snapshot", *fds))
        self.rounds(vm, 1)
        self.stop(vm)

    def test_a_paused_vm_is_saved_and_stays_paused(self):
        vm = self.run_vm()
        self.verb(vm, "pause")
        files = self.snapshot(vm, "snap")
        self.assertEqual(self.steps_of(files), self.steps_of(self.snapshot(vm, "again")))
        self.assertEqual(self.status(vm)["state"], "paused")
        self.verb(vm, "resume")
        self.rounds(vm, 2)
        self.stop(vm)
        vm = self.restore(files)
        self.rounds(vm, 2)
        self.stop(vm)


if __name__ == "__main__":
    main()
