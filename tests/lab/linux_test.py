#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Debian's Linux as a guest of `asyncpf run`, on a real kvm_amd: every boot, shared by two
labs, and what must be true of each.

usage: linux_test.py BUILD_FOLDER [--only WORD]

--only takes the boots whose name contains WORD. Exit code 0 when at least one boot ran and
all were well. 77, with the reason, where the lab cannot be fetched.
"""
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(SOURCE / "tools"))
from lab_parts import LabError
from lab_parts.fetch import fetch, only_file
from lab_parts.guest import NGINX_CONF, service_files
from lab_parts.initramfs import load_modules
from lab_parts.watch import COMPLAINT
from linux_guests import Boot, kernel_path, run_boots

LAB_S = 1500
LABS = 2  # of one emulated CPU each
MODULES = ["virtio-mmio", "virtio-balloon", "vmw-vsock-virtio-transport"]
# Beside a web server: by one kernel, for cards alone, by the other for all devices.
NET_MODULES = {"6.12": ["virtio-mmio", "virtio-net"],
               "6.1": [*MODULES, "virtio-net", "virtio-blk", "virtio-rng"]}
SKIPPED = 77
TAP = "tap=tap0,mac=02:00:00:00:00:02"
CLOCK_OFF_MAX_S = 600  # the guest's date against ours: a wrong epoch or time zone is more
STOOD_DATE_OFF_MAX_S = 3  # what it says takes its time to get out
IDLE_SHARE_MAX = 0.05  # of a CPU
# `asyncpf run`: the guest powered off, the guest reset.
POWERED_OFF, RESET = 0, 4
FEATURE_ASYNC_PF, FEATURE_ASYNC_PF_INT = 1 << 4, 1 << 14

SMALL_LOAD = "load=seconds:1,processes:4,pages:64"
# More than fits beside the kernel: 98 or 79 MiB for 16 processes, of which 4 MiB are files that
# only the kernel touches, each byte of which is checked again and again, and all of it once more
# at the end.
CHECKED = "file:64,file_visits:10,hot:20,hot_visits:50,sweep:1,patience:240"
BIG_LOAD = f"load=processes:16,pages:1500,{CHECKED},seconds:60"
LOAD = f"load=processes:16,pages:1200,{CHECKED},seconds:15"
# Of a guest whose free memory is discarded: more than fits without what is not in use.
BALLOON_LOAD = f"load=processes:16,pages:1400,{CHECKED},seconds:8"
# Of a guest with 128 MiB, whose kernel keeps 40 for itself: MiB that it uses, once it has given 32.
NEED = "need=56:32"
# Of one that is evicted as well: what it needs is less, as each page has to come back twice.
EVICTED_NEED = "need=44:32"
FAULTS = ["user", "kernel", "stall", "block"]


def name_of(kernel, cpus, faults, *more):
    return f"{kernel} {cpus} vCPU{'s' if cpus > 1 else ''} {' '.join([faults, *more])}"


def boots_of_matrix():
    """
    Every kernel with every number of vCPUs under every way of serving faults: as Debian packs
    it, and, what is faster, the ELF file in there by its PVH entry. One for each kernel is small,
    and takes back from its balloon what it needs.
    """
    def boot_of(kernel, cpus, faults):
        elf = cpus > 1 or faults in ("stall", "block")
        words = [kernel, cpus, faults, *["PVH"][:elf]]
        if (cpus, faults) == (1, "user"):
            return Boot(name_of(*words, "need"), [SMALL_LOAD, "modules", NEED], kernel=kernel,
                        elf=elf, cpus=cpus, memory="128M", initrd=f"modules-{kernel}.cpio",
                        options=["--balloon", "on"], about_s=25, limit_s=300)
        return Boot(name_of(*words), [SMALL_LOAD], kernel=kernel, elf=elf, cpus=cpus,
                    faults=faults)

    return [boot_of(kernel, cpus, faults)
            for cpus in (1, 4) for kernel in ("6.12", "6.1") for faults in FAULTS]


def boots_of_abis():
    """What a stock guest cannot speak it must not be offered; it boots all the same."""
    return [Boot(name_of("6.12", 1, "user", abi), [SMALL_LOAD], elf=True,
                 options=["--abi", abi])
            for abi in ("pf2", "legacy", "off")]


def evicted(name, steps, about_s=55, **more):
    """A guest of which a quarter may be in memory."""
    return Boot(name, steps, memory="384M", resident="96M", limit_s=500, elf=True, about_s=about_s,
                **more)


def boots_of_evictions():
    """A load that checks every byte, under constant eviction."""
    return [
        evicted(name_of("6.12", 4, "user", "evicted"), [BIG_LOAD], cpus=4, about_s=180,
                swap_wrap="delay?ms=5"),
        *(evicted(name_of("6.12", 1 + cpu, faults, "evicted"), [LOAD], faults=faults,
                  cpus=1 + cpu, swap_wrap="delay?ms=1") for cpu, faults in enumerate(FAULTS)),
        evicted(name_of("6.1", 2, "user", "evicted, plug"), [LOAD + ",plug:1"], cpus=2,
                kernel="6.1", swap_wrap="delay?ms=5"),
        Boot(name_of("6.12", 1, "user", "evicted, need"), ["modules", EVICTED_NEED], elf=True,
             memory="128M", resident="72M", initrd="modules-6.12.cpio", about_s=80, limit_s=600,
             options=["--balloon", "on"]),
    ]


def boots_of_networks():
    """
    A guest whose nginx somebody outside asks all the time, by a forwarded port and by a tap, while
    its load runs and three quarters of its memory are elsewhere, and while the CPU that has the
    cards' interrupts goes off and comes again; then its tap is taken away. A guest with three cards
    that stands still for a minute while connections to it are open.
    """
    return [
        evicted(name_of("6.12", 2, "user", "evicted, network, plug"),
                ["modules", "serve=192.0.2.2,dhcp", LOAD + ",plug:1", "cut"], cpus=2,
                nets=(TAP, "user,fwd=tcp:8080:80"), initrd="net-6.12.cpio",
                swap_wrap="delay?ms=1", about_s=85),
        Boot(name_of("6.1", 1, "user", "network, standstill"),
             ["modules", "serve=dhcp,192.0.2.2,dhcp", "stand=minute",
              "load=seconds:6,processes:4,pages:64", "served"],
             kernel="6.1", elf=True, initrd="net-6.1.cpio", about_s=60, limit_s=400, beside=True,
             nets=("user,restrict,fwd=tcp:8081:80", TAP, "user,restrict")),
    ]


def boots_of_devices():
    """
    Devices that the guest's own modules drive, while its memory goes and comes: sockets, over
    which two programs talk, once their driver has let go of open ones, and while the machine
    stands still; a balloon that is filled and emptied under a load that checks every byte, while
    the CPU that has the devices' interrupts goes off and comes again. And every device at once, by
    the older kernel, whose web server is asked meanwhile: without what kicks vCPUs most, as the
    lab's emulation ends 6.1 now and then by an interrupt that comes twice (docs/lab.md).
    """
    used = ["--balloon", "on", "--vsock", "uds=vsock.NUMBER"]
    return [
        evicted(name_of("6.12", 2, "user", "evicted, devices"),
                ["modules", "rebind", "vsock=pause", BALLOON_LOAD + ",plug:1", "given=36"], cpus=2,
                initrd="modules-6.12.cpio", swap_wrap="delay?ms=1", about_s=110, options=used),
        evicted(name_of("6.1", 1, "user", "evicted, all devices"),
                ["modules", "serve=dhcp,192.0.2.2", "vsock", BALLOON_LOAD + ",disk:1", "given=36"],
                kernel="6.1", initrd="net-6.1.cpio", nets=("user,fwd=tcp:8082:80", TAP),
                swap_wrap="delay?ms=1", about_s=110,
                options=[*used, "--disk", "disk.NUMBER,raw"]),
    ]


def boots_of_idleness():
    """
    One in each lab, before the others: what a wake-up costs depends on what the other CPU
    does. The guest with one vCPU is up sooner, and idles until the other has been looked at.
    """
    return [Boot(name_of("6.12", cpus, "user", "idle"), [f"idle={seconds}"], elf=True, cpus=cpus,
                 first=True, about_s=45)
            for cpus, seconds in ((1, 30), (4, 16))]


def boots_of_events():
    """What happens to a machine while it runs."""
    return [
        Boot(name_of("6.12", 4, "user", "plug"), ["load=seconds:8,processes:4,plug:1", "plug=1"],
             elf=True, cpus=4),
        Boot(name_of("6.12", 2, "user", "reboot"), [SMALL_LOAD, "reboot"], cpus=2),
        Boot(name_of("6.12", 2, "user", "kexec"), [SMALL_LOAD, "kexec", SMALL_LOAD], cpus=2,
             initrd="kexec.cpio"),
        # Thrice to four times as long as its watchdog allows, as 75 s are by default (20 s).
        Boot(name_of("6.12", 2, "user", "standstill"), ["stand=pause", "stand=signal", SMALL_LOAD],
             elf=True, cpus=2, about_s=40),
        # The guest's own watch must see what is wrong, or the rest proves nothing.
        Boot(name_of("6.12", 1, "user", "unwell"), [SMALL_LOAD + ",spoil:1", "stick", "complain"],
             elf=True),
    ]


# ---- what must be true ----

def offers_events(boot):
    """Whether a guest of today's Linux is offered events that it can take."""
    return boot.faults == "kernel" or (boot.faults == "user" and "--abi" not in boot.options)


def check_hyp(result, problems):
    """HYP, as the guest counted it: the wake-all of each CPU's registration at the least."""
    counts = result.report("end")["hyp"]
    if not offers_events(result.boot):
        if counts and any(counts):
            problems.append(f"the guest took events that it was not offered: HYP {counts}")
    elif not counts or len(counts) != result.boot.cpus or not all(counts):
        problems.append(f"a CPU without a page-ready event: HYP {counts}")


def check_boot(result, problems):
    boot, report = result.boot, result.report("boot")
    features = report["kvm_features"]
    if not report["release"].startswith(boot.kernel + "."):
        problems.append(f"the wrong kernel: {report['release']}")
    if report["cpus"] != boot.cpus:
        problems.append(f"it found {report['cpus']} CPUs")
    if abs(report["epoch"] - time.time()) > CLOCK_OFF_MAX_S:
        problems.append(f"its clock is off by {report['epoch'] - time.time():.0f} s")
    if bool(features & FEATURE_ASYNC_PF_INT) != offers_events(boot):
        problems.append(f"bit 14 of KVM's features: {features:#x}")
    offers_any = offers_events(boot) or (boot.faults == "user" and "off" not in boot.options)
    if bool(features & FEATURE_ASYNC_PF) != offers_any:
        problems.append(f"bit 4 of KVM's features: {features:#x}")


def check_standstills(result, problems):
    """The date is right as soon as it goes on."""
    stood = [r for r in result.reports if r["step"] == "stood"]
    if len(stood) != len([s for s in result.boot.steps if s.startswith("stand=")]):
        problems.append(f"it stood still {len(stood)} times")
    problems += [f"after a standstill its date was {report['epoch'] - date} s off"
                 for report, date in zip(stood, result.dates)
                 if abs(report["epoch"] - date) > STOOD_DATE_OFF_MAX_S]


def check_load(result, problems):
    for load in [r for r in result.reports if r["step"] == "load"]:
        if load["bad"] or not load["visits"]:
            problems.append(f"a load with {load['visits']} visits, {load['bad']} bad pages")


def check_eviction(result, problems):
    """That memory was taken away and came back, and that the guest was told where it could be."""
    if not result.stats:
        problems.append("no statistics")
        return
    load, stats = result.report("load"), result.stats["stats"]
    for word in ("evicted", "refaulted", "swapped"):
        if not stats[word]:
            problems.append(f"nothing was {word}")
    if EVICTED_NEED in result.boot.steps:
        return
    if not load:
        problems.append("no load")
        return
    if not load["file_visits"]:
        problems.append("no process came to its file")
    if load["swept"] != load["processes"] * (load["pages"] + load["file"]):
        problems.append(f"only {load['swept']} pages were checked at the end")
    if offers_events(result.boot) and not load["hyp"]:
        problems.append("the load ran without one page-ready event")
    if result.boot.faults == "user" and not stats["missing_events"]:
        problems.append("the load ran without one page-missing event")


def check_plug(result, problems):
    """CPUs went off that had the devices' interrupts, each card's too, and these came to others."""
    if "modules" not in result.boot.steps or not any("plug:" in s for s in result.boot.steps):
        return
    moved = (result.report("plug") or {}).get("moved", {})
    silent = [f"eth{n}" for n in range(len(result.boot.nets)) if not moved.get(f"eth{n}")]
    if silent or not any(moved.values()):
        problems.append(f"no CPU went that had the interrupt of {silent or 'a device'}, or it "
                        f"never came again: {moved}")


def check_net(result, problems):
    """No wrong byte, no lost connection; and the cards were there."""
    boot = result.boot
    devices = {d["name"]: d for d in (result.stats or {}).get("devices", [])}
    ways = {net.split(",")[0].split("=")[0]: n for n, net in enumerate(boot.nets)
            if "fwd=" in net or net.startswith("tap=")}
    for way, n in ways.items():
        right, wrong, none = result.asked.get(way, (0, 0, 0))
        card = devices.get(f"net{n}", {})
        if right < 2 or wrong or none:
            problems.append(f"asked from outside by {way}: {right} right answers, {wrong} wrong, "
                            f"{none} lost")
            problems += [line for line in result.lines if line.startswith("no answer by")]
        if card.get("written_bytes", 0) < right * DATA_BYTES:
            problems.append(f"its card of {way} has carried less than that: {card}")
    for n in range(len(boot.nets)):
        if not devices.get(f"net{n}", {}).get("read_bytes"):
            problems.append(f"card {n} got nothing: {devices.get(f'net{n}')}")
    if "stand=minute" in boot.steps:
        check_minute(result, len(ways), problems)
    if "cut" in boot.steps and not any("tap tap0 has gone" in line for line in result.lines):
        problems.append("nothing was said of the tap that has gone")


def check_minute(result, ways, problems):
    """Each file that was under way came, and what was asked meanwhile was answered after it."""
    if len(set(result.held or (0, 1))) != 1:
        problems.append(f"files that were right, under way in the pause, all: {result.held}")
        problems += [line for line in result.lines if line.startswith("file ")]
    if result.still != (0, ways, ways):
        problems.append("asked in the pause, and answered in it, in the end, all: "
                        f"{result.still}")
        problems += [line for line in result.lines if line.startswith("asked as it stood")]


def check_devices(result, problems):
    """What the guest gave back was discarded, and each change of the balloon came to its end."""
    balloon = (result.stats or {}).get("balloon")
    if not balloon or not result.balloons:
        problems.append("nobody changed the balloon")
        return
    problems += [f"asyncpf balloon: exit code {status}: {text}"
                 for status, text in result.balloons if status]
    for word in ("balloon_inflated_bytes", "balloon_reported_bytes", "guest_memory_bytes"):
        if not balloon[word]:
            problems.append(f"{word} is 0")
    if balloon["balloon_refused"]:
        problems.append(f"{balloon['balloon_refused']} pages could not be discarded")
    if not result.stats["stats"]["discarded"]:
        problems.append("nothing was discarded")


def check_disk(result, problems):
    """What the guest says of its disk and its random numbers, the devices have carried."""
    devices = {d["name"]: d for d in (result.stats or {}).get("devices", [])}
    said = result.report("disk") or {}
    rows = (("written", "blk0", "written_bytes"), ("read", "blk0", "read_bytes"),
            ("random", "rng", "read_bytes"))
    for word, name, carried in rows:
        if not 0 < said.get(word, 0) <= devices.get(name, {}).get(carried, 0):
            problems.append(f"{word}: {said.get(word)} bytes, of {name}: {devices.get(name)}")


def check_need(result, problems):
    """It had given all that it was asked for, and took some back: of that we are told."""
    need = result.report("needed")
    if not need or not need["back"]:
        problems.append(f"the guest got nothing back that it needed: {need}")
    balloon = result.needed or {"balloon_bytes": 0, "balloon_target_bytes": 0}
    if not 0 <= balloon["balloon_bytes"] < balloon["balloon_target_bytes"]:
        problems.append(f"{balloon['balloon_bytes']} of {balloon['balloon_target_bytes']} bytes "
                        "are in the balloon once it did")


def check_vsock(result, problems):
    """Both sides got every byte back that they sent, and nobody broke the rules."""
    try:
        said = json.loads(result.vsock or "")
    except ValueError:
        said = None
    if not said or said.get("failed") != 0 or not said.get("connections"):
        problems.append(f"the host's side of the sockets: {result.vsock}")
    if "vsock=pause" in result.boot.steps:
        before, after, taken, asked = result.talking or (0, 0, 0, 1)
        # One more may have come meanwhile.
        if not 0 < before <= after:
            problems.append(f"{before} connections were open as it stood still, {after} after "
                            "that")
        if taken != asked:
            problems.append(f"of {asked} connections made as it stood still it took {taken}")
    if "rebind" in result.boot.steps and not result.report("rebind"):
        problems.append("its driver did not let go of the sockets")
    end = result.report("vsock-end")
    if not end or not end["connections"]:
        problems.append("the guest did not come to the end of its connections")
    counts = (result.stats or {}).get("vsock")
    if not counts or counts["vsock_resets"] or \
            (said and end and counts["vsock_opened"] < said["connections"] + end["connections"]):
        problems.append(f"vsock counts: {counts}")


def check_log(result, problems):
    problems += [f"the guest says: {text}" for text in result.wrong]
    problems += [f"on the console: {line}" for line in result.lines
                 if COMPLAINT.search(line) and not line.startswith("guest: ")]


def check_unwell(result, problems):
    """The guest that was made unwell must have seen all three."""
    end = result.report("end")
    for word in ("mismatch: ", "stuck: ", "complaint: "):
        if not any(text.startswith(word) for text in result.wrong):
            problems.append(f"nothing was said of the {word.rstrip(': ')}")
    if end["well"] or not end["stuck"] or not end["complaints"]:
        problems.append(f"it takes itself for well: {end}")


def check(result):
    """What is wrong with a boot; an empty list: nothing."""
    boot, problems = result.boot, []
    status = RESET if "reboot" in boot.steps else POWERED_OFF
    if result.status != status:
        problems.append(f"asyncpf run: exit code {result.status}, not {status}")
    if not result.report("boot") or not result.report("end"):
        return [*problems, "it did not come up, or not to its end", *result.lines[-20:]]
    check_boot(result, problems)
    check_hyp(result, problems)
    if boot.name.endswith("unwell"):
        check_unwell(result, problems)
        return problems
    check_log(result, problems)
    check_load(result, problems)
    check_standstills(result, problems)
    if boot.resident:
        check_eviction(result, problems)
    if boot.nets:
        check_net(result, problems)
    if any("disk:" in s for s in boot.steps):
        check_disk(result, problems)
    if any(s.startswith("vsock") for s in boot.steps):
        check_devices(result, problems)
        check_vsock(result, problems)
    check_plug(result, problems)
    if NEED in boot.steps or EVICTED_NEED in boot.steps:
        check_need(result, problems)
    loads = [s for s in boot.steps if s.startswith("load")]
    if len([r for r in result.reports if r["step"] == "load"]) != len(loads):
        problems.append("not every load came to its end")
    if any(s.startswith("idle") for s in boot.steps):
        if result.idle_share is None or result.idle_share > IDLE_SHARE_MAX:
            problems.append(f"an idle guest takes {result.idle_share} of a CPU")
    if len([r for r in result.reports if r["step"] == "boot"]) != 1 + boot.steps.count("kexec"):
        problems.append("it did not boot as often as it should")
    return problems


# ---- running them ----

class Show:
    """One line for each boot, when it ends."""

    def __init__(self):
        self.began = {}
        self.failed = 0
        self.ended = 0

    def __call__(self, result):
        name = result.boot.name
        if result.status is None:
            self.began[name] = time.monotonic()
            return
        self.ended += 1
        problems = check(result)
        took = time.monotonic() - self.began[name]
        report = result.report("boot")
        at = f", init after {report['uptime_ms'] / 1000:.1f} s of guest time" if report else ""
        idle = f", idle at {result.idle_share:.1%}" if result.idle_share is not None else ""
        print(f"{'FAILED' if problems else 'passed'}: {name} ({took:.0f} s{at}{idle})",
              flush=True)
        for problem in problems:
            print(f"    {problem}", flush=True)
        self.failed += bool(problems)


def kexec_initrd(build, folder):
    """The initramfs of a guest that holds the kernel and initramfs of the next one."""
    path = pathlib.Path(folder, "kexec.cpio")
    subprocess.run([SOURCE / "tools/guest-initramfs", path, build / "guests/linux-init",
                    f"next/kernel={kernel_path('6.12')}",
                    f"next/initrd={build / 'guests/linux.cpio'}"], check=True)
    return path


# How each card comes to its address, and a server that outlives the script.
SERVE = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
ip link set lo up
n=0
for how in $(echo $1 | tr , ' '); do
    ip link set eth$n up || exit 1
    case $how in
    dhcp) udhcpc -q -n -t 10 -i eth$n -s /leased || exit 1 ;;
    *) ip address add $how/24 dev eth$n || exit 1 ;;
    esac
    n=$((n + 1))
done
mkdir -p /var/lib/nginx /var/log/nginx /tmp
nginx
""".encode()
LEASED = """#!/bin/busybox sh
[ $1 != bound ] || ip address add $ip/24 dev $interface
""".encode()
DATA_BYTES = 65536
# With a way to be so slow that a file of DATA_BYTES takes half a minute. The server
# has limits of a minute of its own, which go by while the guest stands still for as long.
SLOW_CONF = NGINX_CONF.replace("root /www;", "root /www; client_header_timeout 10m; "
                               "send_timeout 10m; location /slow/ { alias /www/; "
                               "limit_rate 2k; }")


def net_initrd(build, folder, kernel):
    """The initramfs of a guest that has network cards and serves the file `data`."""
    busybox = only_file("busybox/**/busybox", "busybox")
    modules = load_modules(kernel, NET_MODULES[kernel])
    files = {**service_files("nginx"), "etc/nginx/nginx.conf": SLOW_CONF.encode(),
             "serve": SERVE, "leased": LEASED, "bin/busybox": busybox.read_bytes(),
             "www/data": random.Random(1).randbytes(DATA_BYTES),
             "modules/order": "\n".join(modules).encode(),
             **{f"modules/{name}": image for name, image in modules.items()}}
    words = []
    for name, content in files.items():
        path = pathlib.Path(folder, kernel, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        words.append(f"{name}={path}")
    to = pathlib.Path(folder, f"net-{kernel}.cpio")
    subprocess.run([SOURCE / "tools/guest-initramfs", to, build / "guests/linux-init", *words],
                   check=True)
    return to


def net_files(build, folder):
    for kernel in ("6.12", "6.1"):
        kernel_path(kernel)
        yield net_initrd(build, folder, kernel)
    yield pathlib.Path(folder, "6.12/www/data")


def modules_initrd(kernel, build, folder):
    """The initramfs with the modules that drive the devices, for the kernel they are made for."""
    path = pathlib.Path(folder, f"modules-{kernel}.cpio")
    words = []
    kernel_path(kernel)
    modules = load_modules(kernel, MODULES)
    for name, image in modules.items():
        pathlib.Path(folder, name).write_bytes(image)
        words.append(f"modules/{name}={folder}/{name}")
    order = pathlib.Path(folder, "order")
    order.write_text("\n".join(modules), encoding="utf-8")
    subprocess.run([SOURCE / "tools/guest-initramfs", path, build / "guests/linux-init",
                    f"modules/order={order}", *words], check=True)
    return path


def main():
    build = pathlib.Path(sys.argv[1])
    only = sys.argv[3] if sys.argv[2:3] == ["--only"] else ""
    try:
        fetch("6.12", "nginx")
    except LabError as e:
        print(f"SKIP: there is no lab here: {e}")
        return SKIPPED
    boots = [b for b in boots_of_idleness() + boots_of_networks() + boots_of_evictions() +
             boots_of_devices() + boots_of_matrix() + boots_of_abis() + boots_of_events()
             if only in b.name]
    show = Show()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        files = [kexec_initrd(build, folder), *net_files(build, folder),
                 build / "tests/lab/vsock_peer",
                 *(modules_initrd(kernel, build, folder)
                   for kernel in sorted({b.kernel for b in boots
                                         if b.initrd.startswith("modules")}))]
        _, code = run_boots(boots, build, files=files, timeout_s=LAB_S, labs=LABS, show=show,
                            options=["--module", "tun", "--library", "libslirp.so.0"])
    print(f"{show.ended} of {len(boots)} boots in {time.monotonic() - began:.0f} s, "
          f"{show.failed} failed; the labs: exit code {code}")
    return 1 if code or show.failed or show.ended != len(boots) or not boots else 0


if __name__ == "__main__":
    sys.exit(main())
