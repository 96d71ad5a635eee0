# SPDX-License-Identifier: Apache-2.0
# tools/demo_restore.py's half in the lab: `save` makes the snapshot, `run` restores it once. What
# begins with @@ is for the other half. Set before: memory_mib, servers, mib, from (the first
# port), boot_s.

cmdline="console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable"

# until_s SECONDS COMMAND...: waits for it while $pid runs, and says so if it never comes.
until_s() {
    left=$(($1 * 10))
    shift
    until "$@"; do
        [ "$left" -gt 0 ] && kill -0 "$pid" 2>/dev/null || { echo "@@ late $*"; return 1; }
        sleep 0.1
        left=$((left - 1))
    done
}

answers() {
    grep -q '^redis answers' boot.log
}

# Its servers hold their data; the memory goes to /dev/vda, which is a file of the other half's.
save() {
    ./asyncpf run --local --memory "${memory_mib}M" --net user --kernel vmlinuz \
        --initrd initrd.img --control vm \
        --cmdline "$cmdline redis_servers=$servers redis_mib=$mib" </dev/null >boot.log 2>&1 &
    pid=$!
    until_s "$boot_s" answers || { tail -20 boot.log; exit 1; }
    # What its start has left to do.
    sleep 3
    ./asyncpf snapshot --control vm snap >/dev/null || exit 1
    ./asyncpf stop --control vm >/dev/null
    wait $pid
    dd if=snap/memory of=/dev/vda bs=1M conv=fsync 2>/dev/null || exit 1
    echo "@@ saved"
}

forwards() {
    n=0
    while [ "$n" -lt "$servers" ]; do
        printf ',fwd=tcp:0.0.0.0:%d:%d' $((from + n)) $((6379 + n))
        n=$((n + 1))
    done
}

is_full() {
    ./asyncpf status --control vm --json 2>/dev/null | tr -d ' \n' | grep -q '"absent_bytes":0,'
}

# run NUMBER eager|lazy WORD...: `asyncpf restore WORD... snap`, until the other half writes a line.
# Eager: it stands still until all of its memory is there.
run() {
    number=$1 how=$2
    shift 2
    rm -f vm
    echo "@@ $number begin"
    ./asyncpf restore "$@" --control vm --net "user$(forwards)" snap </dev/null >run.log 2>&1 &
    pid=$!
    if [ "$how" = eager ]; then
        until_s 60 test -S vm
        ./asyncpf pause --control vm >/dev/null
        until_s 600 is_full
        ./asyncpf resume --control vm >/dev/null
    fi
    echo "@@ $number goes"
    read -r _
    echo "@@ $number status $(./asyncpf status --control vm --json 2>/dev/null | tr -d '\n')"
    ./asyncpf stop --control vm >/dev/null 2>&1
    wait $pid
    echo "@@ $number end $?"
    tail -c 2000 run.log | tail -4 | sed "s/^/$number| /"
}
