# SPDX-License-Identifier: Apache-2.0
"""The lab: a stock Linux with a real kvm_amd on any x86-64 machine, in QEMU's software
emulation. Nothing is installed: everything lives in a cache folder and is reused.

usage: tools/lab [shell]   [--cpus N] [--memory M] [--kernel V] [--file LOCAL[:NAME]]...
                           [--disk LOCAL[,ro]]... [--module NAME]... [--log FILE] [--verbose]
                           [--slow LIBRARY:N] [--vfio] [--library NAME]... [--net]
                           [--forward PROTOCOL:ADDRESS:PORT]...
       tools/lab run       [the same] [--timeout S] [--get NAME:LOCAL]... [--stdin]
                           [--socket LOCAL:NAME] -- COMMAND...
       tools/lab fetch     only fetches what is missing
       tools/lab kernel    prints where the kernel (--kernel V) is, to boot it as a guest
       tools/lab guest FOLDER  writes a Linux to boot there: vmlinuz and initrd.img, a shell;
                               with --web, nginx answers on its network card, with --redis
                               redis-server

`run` gives back COMMAND's output and exit status; the lab's own failures are 125, the
time limit is 124, a LOCAL of --socket that cannot be made is 3, wrong usage is 2. What
Ctrl-C or another signal ends ends by that signal; a command that Ctrl-A x does not end
within 10 s is ended with the lab, and the status is 5.
A kernel log with a warning, an Oops or a stall is a failure too. Its log is kernel.log in
the cache folder, or FILE of --log.

One emulated CPU is the default: with more, QEMU may corrupt the lab (docs/lab.md). With
--slow, the lab's clock runs N times slower than this machine's, so that its CPU is N times
faster by it; LIBRARY is slow_clock.so of the build folder. --timeout is of this machine.

In the lab a file lands in /work, the folder in which COMMAND runs, with the libraries it
needs at their own paths. --disk is a raw file of this machine that is /dev/vda there, the
next one /dev/vdb. --vfio: its devices are behind an IOMMU, and QEMU's edu is one of them,
for VFIO. --library adds a shared library that programs load by themselves. --net gives it a
network in user space, by this machine's sockets; a port that --forward names leads to the
same of the lab's. --stdin hands standard input on, a terminal as a terminal. --socket makes
LOCAL, a UNIX socket here, lead to NAME, one that COMMAND makes there; it takes --file asyncpf.
Docs: docs/lab.md. Tests: tests/unit/lab_test.py, tests/lab/lab_run_test.py.
"""
import argparse
import os
import pathlib
import sys

from lab_parts import (EXIT_STOPPED, EXIT_TIMEOUT, KERNEL_LOG, LabError, Stopped, end_by,
                       stop_on_signals)
from lab_parts.fetch import KERNELS, fetch, kernel_image
from lab_parts.guest import write_guest
from lab_parts.session import run, shell
from lab_parts.terminal import Escaped
from lab_parts.words import Parser, whole

TIMEOUT_S = 600


def split_file(text):
    """LOCAL[:NAME]"""
    local, colon, name = text.rpartition(":") if ":" in text else (text, "", "")
    name = name if colon else os.path.basename(local.rstrip("/"))
    if not local or not name or name.startswith("/") or ".." in name.split("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is not LOCAL[:NAME], NAME within /work")
    return local, name


def split_get(text):
    """NAME:LOCAL"""
    name, _, local = text.partition(":")
    if not name or not local:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME:LOCAL")
    return name, local


def split_slow(text):
    """LIBRARY:N"""
    library, _, times = text.rpartition(":")
    if not os.path.isfile(library):
        raise argparse.ArgumentTypeError(f"{text!r} is not LIBRARY:N, LIBRARY a file")
    return os.path.abspath(library), whole(1, 64)(times)


def split_disk(text):
    """LOCAL[,ro|,rw]"""
    local, comma, word = text.rpartition(",")
    if not comma or word not in ("ro", "rw"):
        local, word = text, "rw"
    if not os.path.exists(local):
        raise argparse.ArgumentTypeError(f"{local!r} is not there")
    return local, word == "ro"


def split_forward(text):
    """PROTOCOL:ADDRESS:PORT"""
    protocol, _, rest = text.partition(":")
    address, _, port = rest.partition(":")
    parts = address.split(".")
    if (protocol not in ("tcp", "udp") or len(parts) != 4 or
            not all(part.isdecimal() and int(part) <= 255 for part in parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not PROTOCOL:ADDRESS:PORT")
    return protocol, address, whole(1, 65535)(port)


def split_socket(text):
    """LOCAL:NAME"""
    local, _, name = text.rpartition(":")
    if not name or not local:
        raise argparse.ArgumentTypeError(f"{text!r} is not LOCAL:NAME")
    return local, name


def parse(argv):
    at = argv.index("--") if "--" in argv else len(argv)
    parser = Parser("tools/lab")
    parser.add_argument("verb", nargs="?", default="shell",
                        choices=["shell", "run", "fetch", "kernel", "guest"])
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--cpus", type=whole(1, 64), default=1)
    parser.add_argument("--memory", type=whole(256, 1 << 20), default=1024)
    parser.add_argument("--kernel", choices=sorted(KERNELS), default="6.12")
    parser.add_argument("--timeout", type=whole(0, 86400))  # 0: none
    parser.add_argument("--file", type=split_file, action="append", default=[])
    parser.add_argument("--get", type=split_get, action="append", default=[])
    parser.add_argument("--disk", type=split_disk, action="append", default=[])
    parser.add_argument("--socket", type=split_socket)
    parser.add_argument("--slow", type=split_slow, default=("", 1))
    parser.add_argument("--stdin", action="store_true")
    parser.add_argument("--module", action="append", default=[])
    parser.add_argument("--library", action="append", default=[])
    parser.add_argument("--web", dest="service", action="store_const", const="nginx", default="")
    parser.add_argument("--redis", dest="service", action="store_const", const="redis")
    parser.add_argument("--net", action="store_true")
    parser.add_argument("--forward", type=split_forward, action="append", default=[])
    parser.add_argument("--log", type=pathlib.Path, default=KERNEL_LOG)
    parser.add_argument("--vfio", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--help", "-h", action="store_true")
    o = parser.parse_args(argv[:at])
    o.command = argv[at + 1:]
    if (o.verb == "guest") != (o.folder is not None) and not o.help:
        parser.error(f"{o.verb}: a FOLDER is what guest takes, and nothing else")
    if o.verb == "run" and not o.command and not o.help:
        parser.error("run: no command; it follows --")
    if o.verb != "run" and (o.command or o.get or o.timeout or o.socket or o.stdin):
        parser.error(f"{o.verb}: a command, --get, --socket, --stdin and --timeout are for run")
    if o.socket and "asyncpf" not in [name for _, name in o.file]:
        parser.error("--socket: asyncpf relays it; give --file asyncpf")
    if o.service and o.verb != "guest":
        parser.error(f"{o.verb}: --web and --redis are for guest")
    if o.forward and not o.net:
        parser.error("--forward: the lab has no network; give --net")
    if o.verb == "run" and o.timeout is None:
        o.timeout = TIMEOUT_S
    return o


def main():
    stop_on_signals()
    o = parse(sys.argv[1:])
    if o.help:
        print(__doc__.strip())
        return 0
    try:
        fetch(o.kernel, o.service)
        if o.verb == "run":
            return run(o)
        if o.verb == "shell":
            return shell(o)
        if o.verb == "kernel":
            print(kernel_image(o.kernel))
        if o.verb == "guest":
            write_guest(o.kernel, o.folder, o.service)
        return 0
    except LabError as e:
        print(f"asyncpf: {e}", file=sys.stderr)
        return e.code
    except TimeoutError:
        print(f"asyncpf: stopped: the command in the lab: not done after {o.timeout} s; give "
              "--timeout more", file=sys.stderr)
        return EXIT_TIMEOUT
    except Escaped:
        return EXIT_STOPPED
    except Stopped as e:
        return end_by(e.number)
