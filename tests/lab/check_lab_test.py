#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The conformance guest on a real kvm_amd: under each revision of ours, under KVM's own half
in our machine, and under QEMU, which has never heard of us. See docs/conformance.md.

usage: check_lab_test.py SOURCE_FOLDER PATH_OF_ASYNCPF PATH_OF_CONFORMANCE_ELF

All in one boot of the lab. Exit code 77, with the reason, where there is none.
"""
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile

SOURCE, ASYNCPF, IMAGE = map(pathlib.Path, sys.argv[1:4])
LAB = SOURCE / "tools/lab"
LIMIT_S = 240

# KVM's own differences. Later kernels may mend one; none may be added.
KERNEL = {"area.outside-kept", "enable.dirty", "enable.vector-low", "ready.ack-never",
          "ready.ack-before"}
OURS = ["int", "pf2", "pf2-strict", "legacy"]
FEWEST = 30  # checks that pass under every revision

ABSENT_GPA, ABSENT_BYTES, PAGE = 32 << 20, 2 << 20, 4096

# QEMU starts stopped, with the absent pages' contents loaded; all that it has is swapped out,
# to a disk that is throttled, one page at a time; then the guest runs. A page that comes while
# its read is being submitted is not announced: of the 20 reads a second, 2 a slice are let
# through at once, and a check touches more.
QEMU_SCRIPT = r"""
dd if=/dev/zero of=/tmp/swap bs=1M count=96 2>/dev/null
losetup /dev/loop0 /tmp/swap && mkswap /dev/loop0 >/dev/null && swapon /dev/loop0
echo 0 >/proc/sys/vm/page-cluster
mkdir -p /cg && mount -t cgroup2 none /cg
echo "+io +memory" >/cg/cgroup.subtree_control
mkdir /cg/qemu
mkfifo /tmp/mon.in /tmp/mon.out
cat /tmp/mon.out >/tmp/mon.said &
(
  echo 0 >/cg/qemu/cgroup.procs
  export LD_LIBRARY_PATH=$PWD/lib:$LD_LIBRARY_PATH
  exec timeout 120 ./qemu -L . -S -accel kvm -cpu host -machine pc -smp 2 -m 48M -nodefaults \
    -display none -no-reboot -serial stdio -device isa-debug-exit,iobase=0xf4,iosize=4 \
    -chardev pipe,id=mon,path=/tmp/mon -mon chardev=mon,mode=readline \
    -device loader,file=stamps,addr=@GPA@,force-raw=on -kernel conformance.elf \
    -append "absent=@GPA@,@BYTES@ stamped quiet=200 cpus=2 brief=@BRIEF@"
) &
qemu=$!
# It answers when the machine is built and all is in memory.
echo 'info status' >/tmp/mon.in
while kill -0 $qemu && ! grep -q 'VM status' /tmp/mon.said; do sleep 0.2; done
# Less than the absent pages: what is still on its way out is there when it is touched.
n=0
while [ "$(cat /cg/qemu/memory.current)" -gt 2000000 ] && [ $((n += 1)) -lt 50 ]; do
  echo 100M >/cg/qemu/memory.reclaim 2>/dev/null
  sleep 0.1
done
echo "# $(cat /cg/qemu/memory.current) bytes of QEMU left, $(cat /cg/qemu/memory.swap.current) out"
echo "7:0 riops=20" >/cg/qemu/io.max
echo cont >/tmp/mon.in
wait $qemu
"""


def skip(why):
    print(f"SKIP: {why}")
    sys.exit(77)


def qemu_files(folder):
    """--file words for QEMU, its libraries (beside it: /tmp is not kept) and its firmware.
    The environment in which tools/lab finds the libraries, too."""
    qemu = folder / "usr/bin/qemu-system-x86_64"
    libraries = [folder / d / "x86_64-linux-gnu" for d in ("usr/lib", "lib")]
    env = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries))}
    ldd = subprocess.run(["ldd", qemu], env=env, capture_output=True, text=True, check=True)
    needs = re.findall(rf"=> ({re.escape(str(folder))}\S+)", ldd.stdout)
    share = folder / "usr/share"
    pairs = [(qemu, "qemu"), *((n, f"lib/{os.path.basename(n)}") for n in needs),
             *((share / name, os.path.basename(name)) for name in
               ("seabios/bios-256k.bin", "qemu/kvmvapic.bin", "qemu/multiboot_dma.bin"))]
    return [w for local, name in pairs for w in ("--file", f"{local}:{name}")], env


def write_stamps(path):
    """Each page starts with its own address."""
    path.write_bytes(b"".join(struct.pack("<Q", at).ljust(PAGE, b"\0") for at in
                              range(ABSENT_GPA, ABSENT_GPA + ABSENT_BYTES, PAGE)))


def script():
    lines = [f"echo @@ {abi}; ./asyncpf check --abi {abi}; echo @@ status $?" for abi in OURS]
    lines.append("echo @@ kernel; ./asyncpf check --faults kernel; echo @@ status $?")
    qemu = QEMU_SCRIPT.replace("@GPA@", hex(ABSENT_GPA)).replace("@BYTES@", hex(ABSENT_BYTES))
    lines += ["echo @@ qemu", qemu.replace("@BRIEF@", ",".join(sorted(KERNEL))).strip(),
              "echo @@ status $?"]
    return "\n".join(lines)


def run_lab(folder):
    """What was printed, by the name of the run."""
    files, env = qemu_files(folder)
    with tempfile.TemporaryDirectory() as scratch:
        stamps = pathlib.Path(scratch) / "stamps"
        write_stamps(stamps)
        done = subprocess.run(
            [LAB, "run", "--timeout", str(LIMIT_S), "--memory", "1280", "--module", "loop",
             "--file", ASYNCPF, "--file", f"{IMAGE}:conformance.elf", "--file",
             f"{stamps}:stamps", *files, "--", "sh", "-c", script()],
            env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            errors="replace", check=False)
    print(done.stdout)
    if done.returncode not in (0, 1, 3):
        sys.exit(f"the lab itself: exit code {done.returncode}")
    return dict(re.findall(r"^@@ (\w+|pf2-strict)\n(.*?^@@ status \d+)$", done.stdout,
                           re.M | re.S))


def judge(name, text):
    """What is wrong with a run, or None."""
    status = int(re.search(r"^@@ status (\d+)$", text, re.M)[1])
    passed = re.findall(r"^ok \d+ - ([\w.-]+): (?!.*# SKIP)", text, re.M)
    failed = set(re.findall(r"^not ok \d+ - ([\w.-]+):", text, re.M))
    plan = re.search(r"^1\.\.(\d+)$", text, re.M)
    count = len(re.findall(r"^(?:not )?ok \d+ - ", text, re.M))
    if not plan or int(plan[1]) != count or len(passed) < FEWEST:
        return "the guest did not come to its end"
    if name in ("kernel", "qemu") and failed - KERNEL:
        return f"failed beside what is known: {', '.join(sorted(failed - KERNEL))}"
    # QEMU's device makes (v << 1) | 1 of the guest's 0 or 1.
    good = {1, 3} if name == "qemu" else {0}
    if status not in good:
        return f"exit code {status}"
    return None if "ready.once" in passed else "ready.once did not pass"


def main():
    found = subprocess.run([LAB, "fetch"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        skip(f"there is no lab here: {(found.stderr.strip().splitlines() or ['?'])[-1]}")
    kernel = subprocess.run([LAB, "kernel"], capture_output=True, text=True, check=True)
    folder = next(p for p in pathlib.Path(kernel.stdout.strip()).parents
                  if (p / "qemu").is_dir()) / "qemu"
    runs = run_lab(folder.resolve())
    bad = 0
    for name in [*OURS, "kernel", "qemu"]:
        why = judge(name, runs[name]) if name in runs else "it did not run"
        print(f"{name}: {why or 'as promised'}")
        bad += why is not None
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
