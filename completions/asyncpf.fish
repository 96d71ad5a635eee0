# SPDX-License-Identifier: Apache-2.0
# fish completion for asyncpf(1).

function __asyncpf_runs
    # Several, separated by commas.
    set -l typed (string replace -r '^--runs=' '' -- (commandline -ct))
    set -l before (string replace -rf '^(.*,).*$' '$1' -- $typed)
    printf "$before%s\n" block stall kernel user:legacy user:pf2 user:pf2-strict user:int collision
end

set -l verbs check demo doctor events evict image pager pause report resize restore resume run sim snapshot status stop
set -l none "not __fish_seen_subcommand_from $verbs"

complete -c asyncpf -f
complete -c asyncpf -s h -l help -d 'show the options and exit'
complete -c asyncpf -l version -d 'show the version and exit'

complete -c asyncpf -n $none -a check -d 'a host\'s promises, checked by a guest'
complete -c asyncpf -n $none -a demo -d 'the main job in one minute'
complete -c asyncpf -n $none -a doctor -d 'what works on this host, and why not'
complete -c asyncpf -n $none -a events -d 'what happens to a running VM'
complete -c asyncpf -n $none -a evict -d 'take memory away from a running VM'
complete -c asyncpf -n $none -a image -d 'pack guest memory, unpack, verify it'
complete -c asyncpf -n $none -a pager -d 'serve the memory of Firecracker\'s VMs'
complete -c asyncpf -n $none -a pause -d 'stop a running VM\'s processors'
complete -c asyncpf -n $none -a report -d 'a trace as a page with pictures'
complete -c asyncpf -n $none -a resize -d 'how much of a VM may be resident'
complete -c asyncpf -n $none -a restore -d 'run a snapshot on'
complete -c asyncpf -n $none -a resume -d 'let a paused VM go on'
complete -c asyncpf -n $none -a run -d 'boot a kernel'
complete -c asyncpf -n $none -a sim -d 'simulation of the shipped code'
complete -c asyncpf -n $none -a snapshot -d 'write a running VM to a folder'
complete -c asyncpf -n $none -a status -d 'what a running VM does'
complete -c asyncpf -n $none -a stop -d 'ask a running VM to end'

set -l of '__fish_seen_subcommand_from check'
complete -c asyncpf -n $of -l abi -x -a 'int pf2 pf2-strict legacy' -d 'the protocol'
complete -c asyncpf -n $of -l faults -x -a 'user kernel' -d 'whose half is checked'
complete -c asyncpf -n $of -l only -x -d 'only checks whose name starts so'
complete -c asyncpf -n $of -l cpus -x -d 'the guest\'s processors'
complete -c asyncpf -n $of -l delay-us -x -d 'how long an absent page takes'

set -l of '__fish_seen_subcommand_from demo'
complete -c asyncpf -n $of -l runs -x -a '(__asyncpf_runs)' -d 'what to measure'
complete -c asyncpf -n $of -l vcpus -x -d 'the guest\'s processors'
complete -c asyncpf -n $of -l tasks -x -d 'guest tasks in all'
complete -c asyncpf -n $of -l pages -x -d 'pages of 4 KiB that the tasks read'
complete -c asyncpf -n $of -l pattern -x -d 'how they read' \
    -a 'sequential random shared compute idle rewrite'
complete -c asyncpf -n $of -l delay-us -x -d 'added to every fetch'
complete -c asyncpf -n $of -l grace-us -x -a auto -d 'wait before an event'
complete -c asyncpf -n $of -l block-bytes -x -d 'fetched at once'
complete -c asyncpf -n $of -l read-ahead -x -d 'ahead of even steps'
complete -c asyncpf -n $of -l image -r -F -d 'memory image to read'
complete -c asyncpf -n $of -l source-wrap -x -d 'wrapper around the page source'
complete -c asyncpf -n $of -l outstanding -x -d 'faults in flight per vCPU'
complete -c asyncpf -n $of -l queue-depth -x -d 'reads in flight at the source'
complete -c asyncpf -n $of -l io -x -a 'auto uring threads' -d 'what reads the pages'
complete -c asyncpf -n $of -l source-timeout-ms -x -d 'give a read up'
complete -c asyncpf -n $of -l timer-hz -x -d 'the guest\'s preemption timer'
complete -c asyncpf -n $of -l seed -x -d 'of content and orders'
complete -c asyncpf -n $of -l json -r -F -d 'write the results as JSON'
complete -c asyncpf -n $of -l trace -r -F -d 'write a timeline'
complete -c asyncpf -n $of -l plot -d 'draw how far each run was when'
complete -c asyncpf -n $of -l cold -d 'take the image out of the page cache'
complete -c asyncpf -n $of -l quiet -d 'show no progress'

set -l of '__fish_seen_subcommand_from doctor'
complete -c asyncpf -n $of -l json -d 'report as JSON'

set -l of '__fish_seen_subcommand_from events'
complete -c asyncpf -n $of -l control -r -F -d 'the VM\'s control socket'
complete -c asyncpf -n $of -l timeout -x -d 'give up when the VM is silent'

set -l of '__fish_seen_subcommand_from evict'
complete -c asyncpf -n $of -l control -r -F -d 'the VM\'s control socket'
complete -c asyncpf -n $of -l all -d 'everything that can be'
complete -c asyncpf -n $of -l to -x -d 'until at most this is resident'
complete -c asyncpf -n $of -l timeout -x -d 'give up when the VM is silent'

set -l of '__fish_seen_subcommand_from image'
complete -c asyncpf -n $of -l threads -x -d 'threads'
complete -c asyncpf -n $of -l manifest -r -F -d 'file of the frames\' hashes'
complete -c asyncpf -n $of -l force -d 'replace files that exist'
complete -c asyncpf -n $of -l quiet -d 'show neither progress nor result'
complete -c asyncpf -n $of -l level -x -d 'how hard to compress'
complete -c asyncpf -n $of -l frame-bytes -x -d 'content of a frame'
complete -c asyncpf -n $of -l format -x -a 'auto flat firecracker cloud-hypervisor qemu' \
    -d 'what is packed'
complete -c asyncpf -n $of -l block -x -d 'the RAM block of a file of QEMU\'s'
complete -c asyncpf -n $of -l errors -x -d 'how many broken frames are shown'
complete -c asyncpf -n $of -l json -d 'show it as JSON'
complete -c asyncpf -n "$of; and not __fish_seen_subcommand_from pack unpack verify info" \
    -a 'pack unpack verify info'
complete -c asyncpf -n "$of; and __fish_seen_subcommand_from pack unpack verify info" -F

set -l of '__fish_seen_subcommand_from pager'
complete -c asyncpf -n $of -l listen -r -F -d 'make a socket there for VMMs'
complete -c asyncpf -n $of -l source -r -F -d 'the page source of VMs that come there'
complete -c asyncpf -n $of -l map -r -F -d 'more of both'
complete -c asyncpf -n $of -l control -r -F -d 'make a control socket there'
complete -c asyncpf -n $of -l read-ahead -x -d 'ahead of even streams'
complete -c asyncpf -n $of -l handshake-timeout -x -d 'hang up on who says nothing'
complete -c asyncpf -n $of -l io -x -a 'auto uring threads' -d 'what reads page sources'
complete -c asyncpf -n $of -l stats -d 'show how touches were served'
complete -c asyncpf -n $of -l json -r -F -d 'write how it ended as JSON'
complete -c asyncpf -n $of -l quiet -d 'do not say which VMs come and go'

set -l of '__fish_seen_subcommand_from pause'
complete -c asyncpf -n $of -l control -r -F -d 'the VM\'s control socket'
complete -c asyncpf -n $of -l timeout -x -d 'give up when the VM is silent'

set -l of '__fish_seen_subcommand_from report'
complete -c asyncpf -n $of -F
complete -c asyncpf -n $of -l output -r -F -d 'where the page goes'
complete -c asyncpf -n $of -l svg -r -F -d 'write the pictures as files'

set -l of '__fish_seen_subcommand_from resize'
complete -c asyncpf -n $of -l control -r -F -d 'the VM\'s control socket'
complete -c asyncpf -n $of -l resident-max -x -d 'at most this in host memory'
complete -c asyncpf -n $of -l no-limit -d 'as much as the guest touches'
complete -c asyncpf -n $of -l timeout -x -d 'give up when the VM is silent'

set -l of '__fish_seen_subcommand_from resume'
complete -c asyncpf -n $of -l control -r -F -d 'the VM\'s control socket'
complete -c asyncpf -n $of -l timeout -x -d 'give up when the VM is silent'

set -l of '__fish_seen_subcommand_from run'
complete -c asyncpf -n $of -l kernel -r -F -d 'what to boot'
complete -c asyncpf -n $of -l initrd -r -F -d 'Linux\'s initial file system'
complete -c asyncpf -n $of -l cmdline -x -d 'the kernel\'s command line'
complete -c asyncpf -n $of -l memory -x -d 'the guest\'s memory'
complete -c asyncpf -n $of -l cpus -x -d 'the guest\'s processors'
complete -c asyncpf -n $of -l disk -r -F -d 'the next disk'
complete -c asyncpf -n $of -l net -x -a 'user tap=' -d 'the next network card'
complete -c asyncpf -n $of -l rng -x -a 'bw=' -d 'entropy per second'
complete -c asyncpf -n $of -l faults -x -a 'user kernel stall block' \
    -d 'how a touch of absent memory is served'
complete -c asyncpf -n $of -l abi -x -a 'int pf2 pf2-strict legacy off' -d 'the protocol'
complete -c asyncpf -n $of -l resident-max -x -d 'at most this in host memory'
complete -c asyncpf -n $of -l swap -r -F -d 'where cold memory goes'
complete -c asyncpf -n $of -l swap-wrap -x -d 'wrapper around reads of it'
complete -c asyncpf -n $of -l io -x -a 'auto uring threads' -d 'what reads and writes files'
complete -c asyncpf -n $of -l name -x -d 'what the VM is called'
complete -c asyncpf -n $of -l control -r -F -d 'make a control socket there'
complete -c asyncpf -n $of -l exit-port -d 'let the guest choose the exit code'
complete -c asyncpf -n $of -l user -x -a '(__fish_complete_users)' -d 'become that user'
complete -c asyncpf -n $of -l sandbox -x -a 'on strict off' -d 'give up what is not needed'
complete -c asyncpf -n $of -l stats -d 'show how faults were served'
complete -c asyncpf -n $of -l json -r -F -d 'write how it ended as JSON'
complete -c asyncpf -n $of -l trace -r -F -d 'write a timeline'
complete -c asyncpf -n $of -l quiet -d 'say nothing but what the guest prints'
complete -c asyncpf -n $of -l lab -d 'run it in software emulation'
complete -c asyncpf -n $of -l local -d 'run it on the KVM here'

set -l of '__fish_seen_subcommand_from status'
complete -c asyncpf -n $of -l control -r -F -d 'the VM\'s control socket'
complete -c asyncpf -n $of -l json -d 'show it as JSON'
complete -c asyncpf -n $of -l prometheus -d 'show it as metrics'
complete -c asyncpf -n $of -l watch -x -d 'show it again after so many seconds'
complete -c asyncpf -n $of -l timeout -x -d 'give up when the VM is silent'

set -l of '__fish_seen_subcommand_from stop'
complete -c asyncpf -n $of -l control -r -F -d 'the VM\'s control socket'
complete -c asyncpf -n $of -l timeout -x -d 'give up when the VM has not ended'

set -l of '__fish_seen_subcommand_from sim'
complete -c asyncpf -n $of -l seed -x -d 'the first seed'
complete -c asyncpf -n $of -l seeds -x -d 'how many'
complete -c asyncpf -n $of -l jobs -x -d 'processes that share them'
complete -c asyncpf -n $of -l vcpus -x -d 'instead of what the seed says'
complete -c asyncpf -n $of -l tasks -x -d 'per vCPU'
complete -c asyncpf -n $of -l faults-per-task -x -d 'accesses of each task'
complete -c asyncpf -n $of -l abi -x -a 'legacy pf2 pf2-strict int' -d 'the protocol'
complete -c asyncpf -n $of -l exhaustive -d 'all interleavings of a small scope'
complete -c asyncpf -n $of -l states -x -d 'where that stops'
complete -c asyncpf -n $of -l scale -d 'a queueing model of 10,240 vCPUs'
complete -c asyncpf -n $of -l faults -x -d 'for each of its rows'
complete -c asyncpf -n $of -l no-faults -d 'nothing breaks'
complete -c asyncpf -n $of -l log -d 'print everything that happens'

set -l of '__fish_seen_subcommand_from restore'
complete -c asyncpf -n $of -l source -r -F -d 'where its memory comes from'
complete -c asyncpf -n $of -l record -r -F -d 'note what is touched first'
complete -c asyncpf -n $of -l record-time -x -d 'for how long'
complete -c asyncpf -n $of -l prefetch -r -F -d 'bring what was noted ahead of the guest'
complete -c asyncpf -n $of -l fill -d 'bring all memory, then close its source'
complete -c asyncpf -n $of -l net -x -a 'user tap=' -d 'what the next network card is connected to'
complete -c asyncpf -n $of -l resident-max -x -d 'most of it in host memory'
complete -c asyncpf -n $of -l swap -r -F -d 'where cold memory goes'
complete -c asyncpf -n $of -l io -x -a 'auto uring threads' -d 'what reads the pages'
complete -c asyncpf -n $of -l control -r -F -d 'make a control socket'
complete -c asyncpf -n $of -l user -x -a '(__fish_complete_users)' -d 'become this user'
complete -c asyncpf -n $of -l sandbox -x -a 'on strict off' -d 'what it gives up'
complete -c asyncpf -n $of -l stats -d 'show statistics at the end'
complete -c asyncpf -n $of -l trace -r -F -d 'write a timeline'
complete -c asyncpf -n $of -l json -r -F -d 'write the outcome as JSON'
complete -c asyncpf -n $of -l quiet -d 'say nothing but errors'
complete -c asyncpf -n $of -r -F

set -l of '__fish_seen_subcommand_from snapshot'
complete -c asyncpf -n $of -l control -r -F -d 'the VM\'s control socket'
complete -c asyncpf -n $of -l timeout -x -d 'give up when the VM is silent'
complete -c asyncpf -n $of -r -F
