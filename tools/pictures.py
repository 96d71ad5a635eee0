# SPDX-License-Identifier: Apache-2.0
"""Makes the pictures of docs/trace.md again: what `asyncpf report` draws of a demo, and of a stock
Linux guest with too little memory, which runs in the lab where the KVM here cannot run it.

usage: tools/pictures BUILD_FOLDER [demo] [linux]

Minutes. Both, if none is named. The pictures lie in docs/, report-demo-waits.svg and so on.
"""
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
DEMO = ["demo", "--quiet", "--runs", "block,stall,kernel,user:int", "--pages", "512"]
CMDLINE = ("console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable -- "
           "load=processes:4,pages:1536,file:64,file_visits:10,seconds:5,write:50,hot:20,"
           "hot_visits:80,request:16,rest_ms:100,ticker_ms:20,warm:2,stay:1,patience:60")
# Of the demo, one way stands for all in the pictures of single VMs.
KEEP = {"demo": {"progress": "progress", "user-int-waits": "waits", "user-int-still": "still",
                 "stall-still": "still-stall", "user-int-memory": "memory"},
        "linux": {name: name for name in ("waits", "still", "sources", "memory", "taken")}}


def run(*words):
    subprocess.run([str(word) for word in words], check=True, stdin=subprocess.DEVNULL,
                   stdout=sys.stderr)


def linux(build):
    kernels = sorted((ROOT / "cache" / "lab").glob("linux-6.12/boot/vmlinuz-*"))
    if not kernels:
        sys.exit("asyncpf: cannot make pictures: cache/lab: no kernel is there; run 'make lab' "
                 "once, or name demo")
    return ["run", "--kernel", kernels[0], "--initrd", build / "guests/linux.cpio",
            "--memory", "128M", "--resident-max", "40M", "--swap-wrap", "delay?ms=5",
            "--cmdline", CMDLINE, "--quiet"]


def make(name, build):
    asyncpf = build / "asyncpf"
    with tempfile.TemporaryDirectory() as folder:
        trace = pathlib.Path(folder, f"{name}.json")
        words = DEMO if name == "demo" else [*linux(build), "--swap", pathlib.Path(folder, "swap")]
        run(asyncpf, *words, "--trace", trace)
        run(asyncpf, "report", "--svg", folder, trace)
        for old, new in KEEP[name].items():
            picture = pathlib.Path(folder, f"{old}.svg").read_text(encoding="utf-8")
            (DOCS / f"report-{name}-{new}.svg").write_text(picture, encoding="utf-8")


def main(argv):
    if not argv:
        sys.exit("asyncpf: wrong usage: tools/pictures: which build folder?; see its --help")
    build, *names = argv
    if build in ("-h", "--help"):
        print(__doc__.strip())
        return 0
    for name in names or KEEP:
        if name not in KEEP:
            sys.exit(f"asyncpf: wrong usage: tools/pictures: {name}: say demo or linux")
        make(name, pathlib.Path(build).resolve())
    return 0
