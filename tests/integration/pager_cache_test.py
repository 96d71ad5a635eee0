#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Several VMs of `asyncpf pager`, by rules and by pagers of their own, on one cache's folder: each
byte is right, and the server is asked for what no other has had.

usage: pager_cache_test.py PATH_OF_ASYNCPF PATH_OF_STANDIN_VMM
"""
import json
import sys
import unittest

from pager_support import PAGE, Pager, PagerCase

IMAGE = 2048 * PAGE


class CacheTest(PagerCase):
    def asked_for(self):
        return sum(count for _, count in self.served_reads() if count)

    def both(self, *settings):
        """A VM of each rule, at the same time."""
        vmms = [self.standin(*settings, path=path) for path in (self.path, self.second)]
        for vmm in vmms:
            self.finish(vmm)

    def setUp(self):
        super().setUp()
        self.second = self.folder / "2.sock"
        _, uri = self.serve_image(1)
        # Far more room than chunks: none has to go for another.
        self.source = (f"cache+{uri}&cache-dir={self.folder}/cache&cache-key=1&"
                       "cache-size=256M")

    def start(self):
        p = self.pager(self.source)
        self.need_network(p.process.poll(), p.log)
        rule = {"listen": str(self.second), "source": self.source}
        self.assertEqual(self.ask("serve " + json.dumps(rule)), "ok")
        return p

    def test_two_vms(self):
        p = self.start()
        self.both("threads=4", "balloon=200")
        self.assertGreater(self.status()["cache_hits"], 0)
        # Both may ask for a chunk before either has it.
        self.assertLessEqual(self.asked_for(), 2 * IMAGE)
        p.process.terminate()
        p.process.wait()
        # The next pager, and two VMs once more: it is all there.
        before = self.asked_for()
        self.start()
        self.both("threads=4", "balloon=200", "seed=9")
        self.assertEqual(self.status()["cache_mismatches"], 0)
        self.assertLessEqual(self.asked_for() - before, IMAGE / 16)

    def test_two_pagers(self):
        first = self.pager(self.source)
        self.need_network(first.process.poll(), first.log)
        Pager(self, "--listen", self.second, "--source", self.source)
        self.both("threads=4", "order=even")
        self.both("threads=4")
        self.assertEqual(self.status()["cache_mismatches"], 0)
        self.assertLessEqual(self.asked_for(), 2 * IMAGE + IMAGE / 8)

    def test_a_pager_that_is_killed(self):
        """In the middle of filling: what it leaves behind is right, or nothing."""
        killed = self.start()
        self.standin("threads=4", "hold=1")
        other = Pager(self, "--listen", self.folder / "3.sock", "--source", self.source)
        vmm = self.standin("threads=4", path=self.folder / "3.sock")
        killed.process.kill()
        killed.process.wait()
        self.finish(vmm)
        self.check("threads=4", path=self.folder / "3.sock")
        self.assertEqual(other.process.poll(), None)


if __name__ == "__main__":
    sys.argv[1:3] = []
    unittest.main(verbosity=2)
