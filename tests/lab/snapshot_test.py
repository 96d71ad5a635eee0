#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A stock Linux, snapshotted while it works and restored: what its processes hold in memory is
there, byte for byte, its disk and its clock go on, its kernel has nothing to complain of, and of
its memory only what it touched has been read, what its registers point at before that. Its nginx
answers before and after, by whatever its network card is connected to, and each copy seeds its
random numbers anew. Its balloon is as full as it was, and empties when asked; its sockets'
connections have ended, which it is told, and new ones are made both ways, under another address. In
the lab, under the sandbox.

usage: snapshot_test.py PATH_OF_ASYNCPF SOURCE_FOLDER LINUX_TALK VSOCK_PEER
"""
import errno
import json
import lzma
import pathlib
import re
import struct
import subprocess
import sys
import tempfile

ASYNCPF, SOURCE, TALK, PEER = (str(pathlib.Path(word).resolve()) for word in sys.argv[1:])
sys.dont_write_bytecode = True
sys.path.insert(0, SOURCE + "/tools")
from lab_parts.cpio import Cpio
from lab_parts.initramfs import load_modules

KERNEL = "6.12"
# In the order of loading, with what they need.
MODULES = ["virtio-balloon", "vmw-vsock-virtio-transport"]
LAB = f"{SOURCE}/tools/lab"
LAB_S = 800
MIB = 1 << 20
CMDLINE = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable"
CLOCK_OFF_MAX_S = 5
FIRST_MIN = 16  # page tables, descriptor tables, stacks, rings: 40 in another guest
TOUCHED_MAX = 12 * MIB
STOOD_MAX_NS = 5_000_000_000  # of a slow emulation; more, and it was not a moment
SKIPPED = 77
FORMAT1_COUNT = 0x101000  # where its guest counts
# Shell functions of the lab's: `ask WORD TEXT` types TEXT into the guest and waits for a line that
# begins with WORD, to its end (the VM may be stopped next), on the console that is written to $out.
SCRIPT = f"""
cr=$(printf '\\r')
ask() {{
    echo "$2" >&3
    left=360
    until grep -q "^$1.*$cr" $out; do
        [ $left -gt 0 ] && kill -0 $pid || {{ echo "no answer: $1"; tail -20 $out; exit 1; }}
        sleep 0.5
        left=$((left - 1))
    done
}}
# web WORD PORT: what its nginx says, of which a busy VM may have to be asked again.
web() {{
    left=60
    until timeout 60 wget -q -O - http://127.0.0.1:$2/ >page 2>/dev/null || [ $left -eq 0 ]; do
        sleep 0.5
        left=$((left - 1))
    done
    echo "$1 $(cat page)"
    rm -f page
}}
ip link set lo up
mkfifo keys
exec 3<>keys
truncate -s 1M disk
out=first
./asyncpf run --local --memory 192M --cmdline '{CMDLINE}' --kernel vmlinuz --initrd initrd.img \\
    --disk disk --net user,fwd=tcp:8080:80 --balloon on --vsock uds=talk --control vm \\
    <keys >first 2>&1 &
pid=$!
./vsock_peer talk 0 >/dev/null & peer=$!
left=240
until grep -q 'built-in commands' first || [ $left -eq 0 ]; do sleep 0.5; left=$((left - 1)); done
sleep 2
ask '@up' 'echo; echo @"up"'
# Something in memory, of which the sum is known, and a process that counts.
ask '@fill' 'dd if=/dev/urandom of=/mem bs=256k count=16 2>/dev/null; echo; echo @"fill"'
ask '@sum' 'echo; echo @"sum" $(md5sum </mem)'
ask '@counts' '(n=0; while sleep 0.2; do n=$((n+1)); echo $n >/count; done) & echo; echo @"counts"'
web webbefore 8080
ask '@talks 1' 'for m in $(cat /more/order); do insmod /more/$m; done; /more/talk &'
./asyncpf balloon --control vm --to 160M; echo "inflated $?"
time ./asyncpf snapshot --control vm snap || exit 1
cp -a snap copy
# It runs on.
ask '@on' 'echo; echo @"on" $(md5sum </mem)'
./asyncpf snapshot --control vm snap; echo "twice $?"
# Its own connections are what they were.
echo "kept $(grep -c '^@lost' first)"
./asyncpf stop --control vm
wait $pid; echo "first $?"
kill $peer
stat -c 'mode %a %n' snap snap/*
sleep 2
out=second
./asyncpf restore --control vm --net user,fwd=tcp:8081:80 --vsock uds=other,cid=9 snap \\
    <keys >second 2>&1 &
pid=$!
until [ -S vm ]; do sleep 0.1; done
sleep 1
web web 8081
echo "status $(./asyncpf status --control vm --json)"
ask '@same' 'echo; echo @"same" $(md5sum </mem)'
ask '@date' 'echo; echo @"date" $(date +%s)'
echo "now $(date +%s)"
ask '@goes' 'a=$(cat /count); sleep 2; echo; echo @"goes" $a $(cat /count)'
ask '@log' 'echo; echo @"log" $(dmesg | grep -cE "BUG:|soft lockup|rcu.*stall|nable to handle")'
ask '@fork' 'echo; echo @"fork" $(dmesg | grep -c "crng reseeded due to virtual machine fork")'
ask '@lost' ''
./vsock_peer other 1 >said & peer=$!
ask '@talks 2' ''
until grep -q . said || ! kill -0 $peer; do sleep 0.5; done
echo "sockets $(cat said)"
kill $peer
# The first of them is that of the snapshot.
echo "parted $(sed -n 's/^@lost \\([0-9]*\\).*/\\1/p' second | head -n 1)"
./asyncpf balloon --control vm --to 192M; echo "deflated $?"
echo "emptied $(./asyncpf status --control vm --json)"
# A second generation, of what was partly restored, while it runs on.
./asyncpf snapshot --keep-running --control vm third || exit 1
echo "stood $(./asyncpf status --control vm --json)"
ask '@after' 'echo; echo @"after" $(md5sum </mem)'
./asyncpf stop --control vm
wait $pid; echo "second $?"
out=last
./asyncpf restore --control vm third <keys >last 2>&1 &
pid=$!
ask '@again' 'echo; echo @"again" $(md5sum </mem)'
web webagain 8081
ask '@refork' 'echo; echo @"refork" $(dmesg | grep -c "crng reseeded due to virtual mach")'
./asyncpf stop --control vm
wait $pid
# And by each other way of serving: who slept for a page there is woken here.
for way in stall kernel block; do
    out=by-$way
    ./asyncpf restore --control vm --faults $way snap <keys >by-$way 2>&1 &
    pid=$!
    ask "@$way" 'echo; echo @"'$way'" $(md5sum </mem)'
    ./asyncpf stop --control vm
    wait $pid
done
# One that was made when the format was new.
chmod 700 format1
./asyncpf restore --control vm format1 </dev/null >format1.out 2>&1 &
pid=$!
left=120
until [ $(wc -c <format1.out) -ge 20 ] || [ $left -eq 0 ]; do sleep 0.5; left=$((left - 1)); done
./asyncpf stop --control vm
wait $pid
echo "format1 $(head -c 20 format1.out)"
cat snap/snapshot.json | tr -d '\\n'; echo
# What is changed or cut is refused, with a reason.
printf x | dd of=copy/state bs=1 seek=5000 conv=notrunc 2>/dev/null
./asyncpf restore copy; echo "changed $?"
./asyncpf restore --net user --net user snap; echo "cards $?"
rm -rf copy/memory; cp snap/state copy/state; truncate -s 1M copy/memory
./asyncpf restore copy; echo "short $?"
truncate -s 2M disk
./asyncpf restore snap; echo "disk $?"
cat first second last by-* | grep '^@'
"""


def unpack_format1(folder):
    """A snapshot of format 1, made in the lab, by a KVM that shows the lab's processor: a multiboot
    guest with 4 MiB, `again: mov COUNT, %eax; and $15, %al; add $'A', %al; out %al, $0x3f8;
    incl COUNT; (a moment); jmp again`. Returns the letters that come next."""
    saved = pathlib.Path(SOURCE, "tests/compat/snapshot-1")
    folder.mkdir()
    for name in ("state", "memory"):
        (folder / name).write_bytes(lzma.decompress((saved / f"{name}.xz").read_bytes()))
    (folder / "snapshot.json").write_bytes((saved / "snapshot.json").read_bytes())
    count, = struct.unpack_from("<I", (folder / "memory").read_bytes(), FORMAT1_COUNT)
    return "".join(chr(ord("A") + (count + n) % 16) for n in range(21))


def more_modules():
    """What goes behind the guest's own initramfs."""
    cpio = Cpio()
    cpio.folder("more")
    cpio.file("more/talk", pathlib.Path(TALK).read_bytes())
    modules = load_modules(KERNEL, MODULES)
    # The guest has loaded what its other devices need.
    loaded = load_modules(KERNEL, ["virtio-mmio"])
    for name, image in modules.items():
        cpio.file(f"more/{name}", image)
    cpio.file("more/order", "\n".join(n for n in modules if n not in loaded).encode())
    return cpio.finish()


def run_lab(folder):
    script = folder / "script"
    script.write_text(SCRIPT, encoding="ascii")
    subprocess.run([LAB, "guest", str(folder), "--web"], check=True, stdout=subprocess.DEVNULL)
    with open(folder / "initrd.img", "ab") as initrd:
        initrd.write(bytes(-initrd.tell() % 4) + more_modules())
    files = [word for f in (ASYNCPF, PEER, folder / "vmlinuz", folder / "initrd.img", script,
                            folder / "format1")
             for word in ("--file", str(f))]
    done = subprocess.run([LAB, "run", "--timeout", str(LAB_S), "--memory", "1536",
                           "--library", "libslirp.so.0", *files, "--",
                           "sh", "./script"], capture_output=True, text=True, errors="replace",
                          check=False)
    print(done.stdout + done.stderr)
    return done


def check_devices(lines):
    """Of the balloon and the sockets, a line each."""
    status, emptied, sockets = (json.loads(lines[w]) for w in ("status", "emptied", "sockets"))
    bad = []
    if status["balloon_bytes"] != 32 * MIB or emptied["balloon_bytes"] != 0:
        bad.append(f"balloon: {status['balloon_bytes']} bytes, {emptied['balloon_bytes']} at last")
    if lines["kept"] != "0":
        bad.append("a guest that was saved and runs on lost its connection")
    if lines["parted"] != str(errno.ECONNRESET):
        bad.append(f"a restored guest's connection ended with errno {lines['parted']}")
    if sockets.get("failed") != 0 or not sockets.get("connections"):
        bad.append(f"sockets of a restored guest: {sockets}")
    if emptied["vsock_resets"]:
        bad.append(f"{emptied['vsock_resets']} connections broke the rules")
    return bad


def check(done, letters):
    """What is wrong, a line each. letters: of the guest of format 1."""
    lines = {m[1]: m[2] for m in re.finditer(r"^@?(\w+) (.*?)\r?$", done.stdout, re.MULTILINE)}
    bad = [f"the script ended with {done.returncode}"] if done.returncode else []
    bad += re.findall(r"^no answer: .*", done.stdout, re.MULTILINE)
    ways = ["stall", "kernel", "block"]
    wanted = ["sum", "on", "same", "after", "again", *ways, "date", "now", "goes", "log",
              "status", "stood"]
    missing = [word for word in wanted if word not in lines]
    if missing:
        return bad + [f"not said: {missing}"]
    for word, times in (("fork", "1"), ("refork", "2")):
        if lines.get(word) != times:
            bad.append(f"{word}: random numbers were seeded anew {lines.get(word)} times")
    for word in ("webbefore", "web", "webagain"):
        if lines.get(word) != "Hello from a guest of asyncpf.":
            bad.append(f"{word}: its nginx says {lines.get(word)}")
    stood = json.loads(lines["stood"])["snapshot_paused_ns"]
    print(f"it stood still for {stood / 1e6:.1f} ms")
    if not 0 < stood < STOOD_MAX_NS:
        bad.append(f"it stood still for {stood} ns")
    for word in ("on", "same", "after", "again", *ways):
        if lines[word] != lines["sum"]:
            bad.append(f"{word}: memory has changed: {lines[word]}, not {lines['sum']}")
    if abs(int(lines["date"]) - int(lines["now"])) > CLOCK_OFF_MAX_S:
        bad.append(f"its clock says {lines['date']} at {lines['now']}")
    before, after = (int(n) for n in lines["goes"].split())
    if after <= before:
        bad.append(f"what counted before stands still at {before}")
    if lines["log"] != "0":
        bad.append(f"its kernel complains, {lines['log']} times")
    # It may have been stopped between printing one and counting it.
    if lines.get("format1") not in (letters[:20], letters[1:]):
        bad.append(f"format1: it prints {lines.get('format1')}, not {letters}")
    bad += check_devices(lines)
    counters = json.loads(lines["status"])
    ahead, used = (counters[word] for word in ("prefetched", "prefetched_used"))
    print(f"{ahead} blocks came as the snapshot says, {used} were in time")
    if used < ahead / 2 or ahead < FIRST_MIN:
        bad.append(f"{ahead} blocks were named by the snapshot, {used} of them came in time")
    # How much is read around that depends on how long this machine takes to read.
    around = counters["read_ahead"] * counters["block_bytes"]
    touched = counters["resident_bytes"] - around
    print(f"{touched} bytes were touched, {around} read around them")
    if touched > TOUCHED_MAX:
        bad.append(f"{touched} bytes were read although it is idle, and {around} around them")
    for word, code in (("twice", 3), ("first", 5), ("second", 5), ("changed", 3),
                       ("cards", 2), ("short", 3), ("disk", 3), ("inflated", 0),
                       ("deflated", 0)):
        if lines.get(word) != str(code):
            bad.append(f"{word}: exit code {lines.get(word)}, not {code}")
    for name, mode in (("snap", "700"), ("snap/memory", "600"), ("snap/state", "600"),
                       ("snap/snapshot.json", "600")):
        if f"mode {mode} {name}\n" not in done.stdout:
            bad.append(f"{name} is not of mode {mode}")
    return bad


def main():
    fetched = subprocess.run([LAB, "fetch"], capture_output=True, text=True, check=False)
    if fetched.returncode != 0:
        print(f"SKIP: there is no lab here: {fetched.stderr.strip().splitlines()[-1]}")
        return SKIPPED
    with tempfile.TemporaryDirectory() as folder:
        letters = unpack_format1(pathlib.Path(folder, "format1"))
        bad = check(run_lab(pathlib.Path(folder)), letters)
    for line in bad:
        print(f"failed: {line}")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
