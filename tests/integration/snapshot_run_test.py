#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`asyncpf snapshot` and `restore` on a guest that counts in memory, in an order that a test can
compute: each snapshot must hold exactly what so many steps leave, whichever generation it is of,
and whoever was killed. And working sets: what was recorded on one run is there in the next.

usage: snapshot_run_test.py PATH_OF_ASYNCPF [GENERATIONS]
"""
import collections
import contextlib
import fcntl
import itertools
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import page_cache as cache

LIMIT_S = 60
NET_MODULE = os.environ.get("ASYNCPF_NET_MODULE")
ASYNCPF = str(pathlib.Path(sys.argv[1]).resolve())
BASE = 1 << 20  # where the kernel is loaded
PAGE = 4096
FIRST = 8 << 20   # the pages that it counts in
PAGES = 1024
STEPS = 2000      # of a round; after each it prints R
SEED, FACTOR, SUM = 0x2545f491, 1664525, 1013904223
GENERATIONS = int(sys.argv[2]) if len(sys.argv) > 2 else 10
KILLS = 4
RUNNING = "--keep-running"
CODE = (b"\xb8" + struct.pack("<I", SEED) +   # again: mov SEED, %eax
        b"\xb9" + struct.pack("<I", STEPS) +  #        mov STEPS, %ecx
        b"\x69\xc0" + struct.pack("<I", FACTOR) +  # 1: imul FACTOR, %eax
        b"\x05" + struct.pack("<I", SUM) +         #    add SUM, %eax
        bytes.fromhex("89c3c1eb1081e3ff030000"  # mov %eax, %ebx; shr $16; and $1023, %ebx
                      "c1e30c81c300008000"      # shl $12; add FIRST, %ebx
                      "ff034975dc"              # incl (%ebx); dec %ecx; jnz 1b
                      "66baf803b052eeb00aee"    # 'R' and a newline to COM1
                      "e9c3ffffff"))            # jmp again
HEADER_BYTES = 32


# One that goes through its pages in order, and counts in each.
IN_ORDER = (b"\xbb" + struct.pack("<I", FIRST) +  # again: mov FIRST, %ebx
            b"\xb9" + struct.pack("<I", PAGES) +  #        mov PAGES, %ecx
            bytes.fromhex("ff0381c3001000004975f5"  # 1: incl (%ebx); add $4096, %ebx; dec %ecx;
                                                    #    jnz 1b
                          "66baf803b052eeb00aee"    # 'R' and a newline to COM1
                          "e9dcffffff"))            # jmp again


def kernel_of(code):
    """A multiboot kernel of that code alone."""
    return struct.pack("<8I", 0x1badb002, 1 << 16, -(0x1badb002 + (1 << 16)) & 0xffffffff, BASE,
                       BASE, BASE + HEADER_BYTES + len(code), 0, BASE + HEADER_BYTES) + code


def steps():
    """The page of each step of a round."""
    x = SEED
    for _ in range(STEPS):
        x = (x * FACTOR + SUM) & 0xffffffff
        yield x >> 16 & (PAGES - 1)


ROUND = list(steps())


def state(files):
    """What KVM's own sections are made of: name and index to bytes."""
    data = (files / "state").read_bytes()
    at, ret = 32, {}
    while at < len(data):
        name, index, _, length = struct.unpack_from("<16sIIQ", data, at)
        ret[name.rstrip(b"\0").decode(), index] = data[at + 32:at + 32 + length]
        at += 32 + (length + 7) // 8 * 8
    return ret


def memory_of(files, first, count):
    """Pages of its memory, by whichever file of whichever snapshot has each."""
    layers = [(files / "memory", None)]
    if (files / "layers").exists():
        data = (files / "layers").read_bytes()
        magic, form, _, memory, many = struct.unpack_from("<8sIIQQ", data)
        assert (magic, form) == (b"APFLAYER", 1)
        maps = 32 + many * 4128
        layers = []
        for n in range(many):
            path = data[32 + n * 4128 + 16:32 + (n + 1) * 4128].split(b"\0")[0].decode()
            at = maps + n * (memory // PAGE // 8)
            layers.append((files / path, data[at:at + memory // PAGE // 8]
                           if n < many - 1 else None))
    ret = []
    with contextlib.ExitStack() as stack:
        opened = [(stack.enter_context(open(path, "rb")), pages) for path, pages in layers]
        for page in range(first, first + count):
            file = next(f for f, pages in opened
                        if pages is None or pages[page // 8] >> page % 8 & 1)
            ret.append(os.pread(file.fileno(), PAGE, page * PAGE))
    return b"".join(ret)


class SnapshotTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="asyncpf-test-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.kernel = self.folder / "kernel"
        self.kernel.write_bytes(kernel_of(CODE))
        self.sockets = itertools.count()

    def spawn(self, *words):
        """A VM whose guest has made a round."""
        path = self.folder / f"vm{next(self.sockets)}"
        vm = subprocess.Popen([ASYNCPF, *words, "--control", str(path)],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: (vm.kill(), vm.communicate()))
        vm.path = str(path)
        self.rounds(vm, 1)
        return vm

    def run_vm(self, *words, faults="kernel"):
        return self.spawn("run", "--local", "--kernel", str(self.kernel), "--memory", "64M",
                          *(words or ("--faults", faults)))

    def restore(self, files, *words):
        return self.spawn("restore", str(files), *words)

    def rounds(self, vm, count):
        for _ in range(count):
            line = vm.stdout.readline()
            # The first may be the end of one that was printed before.
            if line not in ("R\n", "\n"):
                self.fail(f"the guest says {line!r}: {vm.stderr.read()}")

    def verb(self, vm, name, *words):
        return subprocess.run([ASYNCPF, name, "--control", vm.path, *words], timeout=LIMIT_S,
                              capture_output=True, text=True, check=False)

    def snapshot(self, vm, name, *words):
        files = self.folder / name
        until = time.monotonic() + LIMIT_S
        done = self.verb(vm, "snapshot", *words, str(files))
        # One whose client was killed is not over at once.
        while "is under way" in done.stderr and time.monotonic() < until:
            done = self.verb(vm, "snapshot", *words, str(files))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return files

    def stop(self, vm):
        self.verb(vm, "stop")
        _, err = vm.communicate(timeout=LIMIT_S)
        self.assertEqual((vm.returncode, err), (5, ""))

    def status(self, vm):
        return json.loads(self.verb(vm, "status", "--json").stdout)

    def steps_of(self, files):
        """How many steps its memory has seen: all of it must be what so many leave."""
        memory = memory_of(files, FIRST // PAGE, PAGES)
        got = [struct.unpack_from("<I", memory, page * PAGE)[0] for page in range(PAGES)]
        whole, part = divmod(sum(got), STEPS)
        want = collections.Counter({p: n * whole for p, n in collections.Counter(ROUND).items()})
        want.update(ROUND[:part])
        self.assertEqual(got, [want[page] for page in range(PAGES)])
        for page in range(PAGES):
            self.assertFalse(any(memory[page * PAGE + 4:(page + 1) * PAGE]), page)
        # And the registers are of that very step: ECX counts down, by the next instruction.
        ecx = struct.unpack_from("<Q", state(files)["vcpu.regs", 0], 16)[0]
        self.assertIn(ecx, {STEPS - part, STEPS - part + 1, 0} if part else {STEPS, 0, 1}, part)
        return sum(got)

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

    def test_the_kernel_takes_over_what_was_served_by_us(self):
        """The other ways round need a KVM that does not emulate kernel mode: the lab's test."""
        for way in (["--faults", "user"], ["--faults", "stall"], ["--faults", "block"]):
            vm = self.run_vm(*way)
            files = self.snapshot(vm, f"of-{way[1]}")
            self.stop(vm)
            seen = self.steps_of(files)
            vm = self.restore(files, "--faults", "kernel")
            self.assertEqual(self.status(vm)["faults"], "kernel")
            self.rounds(vm, 2)
            self.assertGreater(self.steps_of(self.snapshot(vm, f"by-{way[1]}")), seen)
            self.stop(vm)
        vm = self.run_vm("--faults", "user", "--abi", "pf2")
        files = self.snapshot(vm, "pf2")
        self.stop(vm)
        self.refused([str(files), "--faults", "kernel"], "speaks pf2", 2)

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
                self.verb(vm, "resume")
            self.assertEqual(self.status(vm)["snapshot_running"], 1)
            self.assertEqual(client.wait(), 0)
            self.assertEqual(self.status(vm)["state"], last)
            self.verb(vm, "resume")
            self.rounds(vm, 1)
            self.stop(vm)

    def test_read_ahead_of_a_guest_that_goes_in_order(self):
        self.kernel.write_bytes(kernel_of(IN_ORDER))
        vm = self.run_vm()
        files = self.snapshot(vm, "snap")
        self.stop(vm)
        vm = self.restore(files, "--source", f"delay+file:{files}/memory?ms=2",
                          "--read-ahead", "1M")
        self.rounds(vm, 1)
        self.assertGreater(self.status(vm)["read_ahead"], PAGES / 2)
        files = self.snapshot(vm, "next")
        counts = [struct.unpack_from("<I", memory_of(files, FIRST // PAGE + page, 1))[0]
                  for page in range(PAGES)]
        # Each page as often as the one before it, or once less: behind where the guest is.
        self.assertIn(counts[0] - counts[-1], (0, 1))
        self.assertEqual(counts, sorted(counts, reverse=True))
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

    def refused(self, words, text, code=3):
        done = subprocess.run([ASYNCPF, "restore", *words], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=LIMIT_S, check=False)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertIn(text, done.stderr)

    def serve(self, files):
        """nbdkit, and the source's words."""
        if not shutil.which("nbdkit") or not pathlib.Path(ASYNCPF).with_name(
                "asyncpf-net.so").exists():
            self.skipTest("there is no nbdkit here, or no network sources in this build")
        socket = self.folder / "nbd"
        socket.unlink(missing_ok=True)
        server = subprocess.Popen(["nbdkit", "-f", "-r", "-U", str(socket), "file",
                                   str(files / "memory")])
        self.addCleanup(lambda: (server.kill(), server.wait()))
        until = time.monotonic() + LIMIT_S
        while not socket.exists() and time.monotonic() < until:
            time.sleep(0.01)
        return server, ["--source", f"nbd+unix:///?socket={socket}"]

    def test_a_server_that_goes_and_comes_back_under_the_sandbox(self):
        vm = self.run_vm()
        files = self.snapshot(vm, "snap")
        self.stop(vm)
        server, words = self.serve(files)
        vm = self.spawn("restore", str(files), *words, "--quiet")
        server.kill()
        server.wait()
        # What it touches next is nowhere to be had; what it has, it goes on with.
        done = self.verb(vm, "snapshot", "--timeout", str(LIMIT_S), str(self.folder / "none"))
        self.assertNotEqual(done.returncode, 0)
        self.assertFalse((self.folder / "none").exists())
        self.serve(files)
        # The source looks for its server now and then.
        until = time.monotonic() + LIMIT_S
        done = self.verb(vm, "resume")
        while done.returncode != 0 and time.monotonic() < until:
            time.sleep(0.1)
            done = self.verb(vm, "resume")
        self.assertEqual(done.stderr, "")
        self.rounds(vm, 2)
        self.steps_of(self.snapshot(vm, "next"))
        self.verb(vm, "stop")
        vm.communicate(timeout=LIMIT_S)
        self.assertEqual(vm.returncode, 5)

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

    def test_what_cannot_be_restored_is_refused(self):
        vm = self.run_vm()
        files = self.snapshot(vm, "snap")
        self.stop(vm)
        good = (files / "state").read_bytes()
        (files / "state").write_bytes(good[:8] + struct.pack("<I", 2) + good[12:])
        self.refused([str(files)], "format 2")
        (files / "state").write_bytes(good[:200] + bytes([good[200] ^ 1]) + good[201:])
        self.refused([str(files)], "has changed")
        (files / "state").write_bytes(good)
        odd = self.folder / "odd"
        odd.write_bytes(b"no set")
        self.refused([str(files), "--prefetch", str(odd)], "cut short")
        self.refused([str(files), "--prefetch", str(self.folder / "none")], "none")
        self.refused([str(files), "--record", str(files / "memory")], "memory")
        size = (files / "memory").stat().st_size
        for other in (size - 4096, size + 4096, 0):
            os.truncate(files / "memory", other)
            self.refused([str(files)], "it is not as long as the guest's memory")
        (files / "memory").unlink()
        self.refused([str(files)], "memory")

    def named_first(self, files):
        return [gpa for gpa, in struct.iter_unpack("<Q", state(files)["memory.first", 0])]

    def test_what_the_snapshot_names_comes_before_it_is_touched(self):
        vm = self.run_vm()
        files = self.snapshot(vm, "snap", RUNNING)
        self.stop(vm)
        self.assertTrue(any(FIRST <= gpa < FIRST + PAGES * PAGE for gpa in self.named_first(files)))
        rip = struct.unpack_from("<Q", state(files)["vcpu.regs", 0], 128)[0]
        self.assertIn(rip & -PAGE, self.named_first(files))
        vm = self.restore(files)
        status = self.status(vm)
        self.stop(vm)
        self.assertGreater(status["prefetched"], 0)
        self.assertGreater(status["prefetched_used"] + status["prefetched_late"], 0)

    def test_a_recorded_set_removes_the_reads_of_the_next_run(self):
        vm = self.run_vm()
        files = self.snapshot(vm, "snap")
        self.stop(vm)
        found = self.folder / "set"
        vm = self.restore(files, "--record", str(found))
        self.rounds(vm, 2)
        first = self.status(vm)
        self.stop(vm)
        self.assertGreater(first["reads"], len(set(ROUND)))
        vm = self.restore(files, "--prefetch", str(found), "--record", str(found))
        self.rounds(vm, 2)
        second = self.status(vm)
        self.steps_of(self.snapshot(vm, "next"))
        self.stop(vm)
        # Of what the snapshot says itself, where content is.
        self.assertLessEqual(first["prefetched"], len(self.named_first(files)))
        self.assertLessEqual(second["reads"] - second["prefetched"], first["reads"] * 0.05)
        self.assertLessEqual(second["read_bytes"], first["read_bytes"] * 1.3)
        self.assertGreaterEqual(second["prefetched_used"] + second["prefetched_late"],
                                second["prefetched"] * 0.9)
        self.assertEqual(second["prefetched_unused"], second["prefetched"] -
                         second["prefetched_used"] - second["prefetched_late"])
        # What was recorded with it is as good.
        vm = self.restore(files, "--prefetch", str(found))
        self.rounds(vm, 2)
        third = self.status(vm)
        self.stop(vm)
        self.assertLessEqual(third["reads"] - third["prefetched"], first["reads"] * 0.05)

    def test_a_filled_vm_needs_its_snapshot_no_longer(self):
        vm = self.run_vm()
        files = self.snapshot(vm, "snap")
        self.stop(vm)
        vm = self.restore(files, "--fill")
        until = time.monotonic() + LIMIT_S
        opened = [str(files / "memory")]
        while opened and time.monotonic() < until:
            time.sleep(0.01)
            opened = [p for fd in os.listdir(f"/proc/{vm.pid}/fd")
                      for p in [self.link(vm.pid, fd)] if p == str(files / "memory")]
        self.assertEqual(opened, [])
        os.truncate(files / "memory", 0)
        self.rounds(vm, 2)
        self.assertEqual(self.status(vm)["absent_bytes"], 0)
        next_files = self.snapshot(vm, "next")
        self.stop(vm)
        self.steps_of(next_files)
        vm = self.restore(next_files)
        self.rounds(vm, 2)
        self.stop(vm)

    def test_clones_share_the_page_cache(self):
        vm = self.run_vm()
        files = self.snapshot(vm, "snap")
        self.rounds(vm, 1)
        layers = self.snapshot(vm, "next", "--base", str(files))
        self.assertIsNone(self.status(vm)["shared_bytes"])
        self.stop(vm)
        with open(files / "memory", "rb") as memory:
            if not cache.is_told(memory):
                self.skipTest("this kernel does not say it (Linux 6.5)")
            clones = [self.restore(files), self.restore(files)]
            for vm in clones:
                self.rounds(vm, 2)
            for vm in clones:
                s, inside = cache.beside(memory, lambda vm=vm: self.status(vm))
                # Once for both; what each has read, it has for itself.
                self.assertGreater(s["shared_bytes"], 0)
                self.assertEqual(s["shared_bytes"], inside)
                self.assertGreaterEqual(s["resident_bytes"], s["source_read_bytes"])
            for vm in clones:
                self.stop(vm)
            if not cache.drop(memory):
                self.skipTest("this file system keeps all of a file in memory")
        # Of a snapshot of what changed, all files count, each for what comes from it.
        vm = self.restore(layers)
        self.rounds(vm, 2)
        with open(files / "memory", "rb") as old, open(layers / "changed", "rb") as new:
            both = cache.bytes_of(old) + cache.bytes_of(new)
        shared = self.status(vm)["shared_bytes"]
        self.stop(vm)
        self.assertTrue(0 < shared <= both, (shared, both))

    def test_a_socket_device_comes_along(self):
        where = [self.folder / name for name in ("a.vsock", "b.vsock")]
        vm = self.run_vm("--faults", "kernel", "--vsock", f"uds={where[0]},cid=7", "--balloon",
                         "on")
        files = self.snapshot(vm, "snap")
        self.assertEqual(json.loads((files / "snapshot.json").read_text())["vsock"],
                         {"path": str(where[0]), "cid": 7})
        # Its place is taken as long as the VM that was saved is there; another one is not.
        self.refused([str(files)], f"vsock: {where[0]}: a running server answers there")
        both = [vm, self.restore(files, "--vsock", f"uds={where[1]}")]
        for one, path in zip(both, where):
            self.assertEqual(self.status(one)["has_vsock"], 1)
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(str(path))
                s.sendall(b"CONNECT 1024\n")
                self.assertEqual(s.recv(1), b"")
        self.steps_of(self.snapshot(both[1], "next"))
        for one in both:
            self.stop(one)
        vm = self.restore(files)
        self.assertTrue(where[0].exists())
        self.stop(vm)

    def test_a_socket_device_that_is_not_there(self):
        vm = self.run_vm()
        files = self.snapshot(vm, "snap")
        self.stop(vm)
        self.assertNotIn("vsock", json.loads((files / "snapshot.json").read_text()))
        self.refused([str(files), "--vsock", f"uds={self.folder}/v"],
                     "the snapshot has no socket device", 2)

    @staticmethod
    def listens(port):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    @contextlib.contextmanager
    def nginx(self, port):
        """Serves the folder, until it is killed in the middle of whatever it does."""
        places = "".join(f"{name}_temp_path {self.folder}/t-{name};" for name in
                         ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (self.folder / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {self.folder}/pid; events {{}}"
            f"http {{ access_log off; {places} keepalive_requests 20;"
            f"server {{ listen 127.0.0.1:{port}; root {self.folder}; }} }}")
        self.folder.chmod(0o755)
        with subprocess.Popen(["nginx", "-p", str(self.folder), "-e", "stderr", "-c",
                               str(self.folder / "nginx.conf")]) as server:
            try:
                until = time.monotonic() + LIMIT_S
                while not self.listens(port):
                    self.assertLess(time.monotonic(), until)
                    time.sleep(0.01)
                yield
            finally:
                server.kill()

    @unittest.skipUnless(NET_MODULE and shutil.which("nginx"), "no nginx, or no network sources")
    def test_memory_from_a_server_through_a_cache(self):
        """Two VMs at once, in their sandboxes; what the cache has, it has without the server."""
        vm = self.run_vm()
        files = self.snapshot(vm, "first")
        self.stop(vm)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        source = (f"cache+http://localhost:{port}/first/memory#cache-dir={self.folder}/cache"
                  "&cache-size=256M&net-stall-ms=1000")
        with self.nginx(port):
            both = [self.restore(files, "--source", source) for _ in range(2)]
            for n, vm in enumerate(both):
                self.rounds(vm, 2)
                self.steps_of(self.snapshot(vm, f"own{n}"))
                told = self.status(vm)
                self.assertGreater(told["cache_hits"], 0)
                self.assertEqual(told["cache_mismatches"], 0)
                self.stop(vm)
            # All of it was read for the snapshots. What came too fast was not kept.
            for n in range(10):
                vm = self.restore(files, "--source", source)
                self.snapshot(vm, f"warm{n}")
                misses = self.status(vm)["cache_misses"]
                self.stop(vm)
                if misses == 0:
                    break
            vm = self.restore(files, "--source", source)
        self.rounds(vm, 2)
        gone = self.snapshot(vm, "gone")
        self.steps_of(gone)
        self.assertEqual(self.status(vm)["cache_misses"], 0)
        with self.nginx(port):
            self.rounds(vm, 2)
            self.steps_of(self.snapshot(vm, "back"))
            self.stop(vm)

    @unittest.skipUnless(NET_MODULE and shutil.which("nginx"), "no nginx, or no network sources")
    def test_a_server_that_is_gone_for_a_while(self):
        """What the cache has not is waited for; the VM goes on when the server is back."""
        vm = self.run_vm()
        files = self.snapshot(vm, "first")
        self.stop(vm)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        with self.nginx(port):
            vm = self.restore(files, "--source", f"cache+http://127.0.0.1:{port}/first/memory"
                              f"#cache-dir={self.folder}/cache&cache-size=256M")
        with subprocess.Popen([ASYNCPF, "snapshot", "--control", vm.path, self.folder / "own"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as client:
            until = time.monotonic() + LIMIT_S
            while self.status(vm)["reads_in_flight"] == 0:
                self.assertLess(time.monotonic(), until)
                time.sleep(0.01)
            with self.nginx(port):
                self.assertEqual((client.communicate(timeout=LIMIT_S)[1], client.returncode),
                                 (b"", 0))
        self.steps_of(self.folder / "own")
        self.stop(vm)

    @staticmethod
    def link(pid, fd):
        with contextlib.suppress(OSError):
            return os.readlink(f"/proc/{pid}/fd/{fd}")
        return ""


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("SKIP: /dev/kvm: no access")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
