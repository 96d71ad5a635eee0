# SPDX-License-Identifier: Apache-2.0
#
# What tools/linux_guests.py has run in the lab: these functions, and behind them a call of
# `boot` for each guest. The lab's shell is busybox's.

# Ticks of CPU that the vCPU threads of process $1 have used.
ticks() {
	cat /proc/$1/task/*/stat | awk '$2 ~ /^\(vcpu/ { n += $14 + $15 } END { print n + 0 }'
}

# An idle guest, seen from outside in three windows, once what its start left to do is done.
idle() {
	sleep 5
	from="$(ticks $2) $(cut -d' ' -f1 /proc/uptime)"
	for window in 1 2 3; do
		sleep 3
		to="$(ticks $2) $(cut -d' ' -f1 /proc/uptime)"
		echo "@@ $1 idle $from $to"
		from=$to
	done
}

# The ways to a guest of words $1.
ways() {
	case $1 in *fwd=tcp:*) echo user ;; esac
	case $1 in *"--net tap="*) echo tap ;; esac
}

# Who asks process $1 by way $2, of words $3: `in` is where, `at` whom. With a tap all is in a
# network namespace, that of the process.
who_asks() {
	in= at=192.0.2.2
	case $3 in *"--net tap="*) in="nsenter -t $1 -n" ;; esac
	[ $2 = tap ] || at=127.0.0.1:$(echo "$3" | sed -n 's/.*fwd=tcp:\([0-9]*\):.*/\1/p')
}

# Asks guest $1 for file $2 of those that come slowly, and says what is wrong with it.
hold() {
	code=0
	$in timeout 300 wget -O held.$1.$2 http://$at/slow/data 2>heard.$1.$2 || code=$?
	cmp -s held.$1.$2 data && touch right.$1.$2 || echo "$1| file $2:" \
		"$(wc -c <held.$1.$2) bytes, exit code $code of wget: $(tail -n 1 heard.$1.$2)"
}

# Asks guest $1 by way $2 while it stands still. By a tap that is one frame, which nobody sends
# again.
ask_still() {
	case $2 in
	tap) $in ping -c 1 -W 120 $at >heard.$1.$2 2>&1 ;;
	*) $in timeout 150 wget -O held.$1.$2 http://$at/data 2>heard.$1.$2 &&
		cmp -s held.$1.$2 data ;;
	esac && touch answered.$1.$2 ||
		echo "$1| asked as it stood still, by $2: $(tail -n 1 heard.$1.$2)"
}

# Has guest $1, process $2, of words $3, stand still for a minute with connections that are open,
# each of which has a file on the way, slowly. By each way it is asked once meanwhile.
HELD=4
stand_minute() {
	all=0 asked=0
	for way in $(ways "$3"); do
		who_asks $2 $way "$3"
		i=0
		while [ $i -lt $HELD ]; do
			hold $1 $way.$i &
			i=$((i + 1)) all=$((all + 1))
		done
	done
	# Each has some of its file, and none all.
	until [ $(find . -name "held.$1.*" -size +0 | wc -l) -eq $all ]; do
		kill -0 $2 2>/dev/null || break
		sleep 1
	done
	./asyncpf pause --control control.$1 >/dev/null
	under_way=$(find . -name "held.$1.*" -size -64k | wc -l)
	for way in $(ways "$3"); do
		who_asks $2 $way "$3"
		ask_still $1 $way &
		asked=$((asked + 1))
	done
	sleep 60
	early=$(find . -name "answered.$1.*" | wc -l)
	./asyncpf resume --control control.$1 >/dev/null
	wait
	echo "@@ $1 held $(find . -name "right.$1.*" | wc -l) $under_way $all"
	echo "@@ $1 still $early $(find . -name "answered.$1.*" | wc -l) $asked"
	rm -f held.$1.* heard.$1.* right.$1.* answered.$1.*
}

# Has guest $1, process $2, of words $4, stand still as it says in $3: by the control socket, with
# all of its process, or for a minute.
stand() {
	sleep 1
	case $3 in
	*'"how":"signal"'*) kill -STOP $2 && sleep 8 && kill -CONT $2 ;;
	*'"how":"minute"'*) stand_minute $1 $2 "$4" ;;
	*)
		./asyncpf pause --control control.$1 >/dev/null
		sleep 8
		./asyncpf resume --control control.$1 >/dev/null
		;;
	esac
}

# Takes guest $1's tap away, process $2, while it is in use.
cut_off() {
	in="nsenter -t $2 -n"
	while $in timeout 20 wget -O - http://192.0.2.2/data; do :; done >/dev/null 2>&1 &
	sleep 1
	$in ip link delete tap0
}

# Asks guest $1, process $2, by way $3 of words $4, for /data until its load has ended, and tells
# how often the answer was right, wrong or none.
ask() {
	right=0 wrong=0 none=0
	who_asks $2 $3 "$4"
	while [ ! -e asked.$1 ]; do
		from=$(date +%s)
		# busybox's own limit of time, wget -T, crashes it.
		if $in timeout 240 wget -O answer.$1.$3 http://$at/data 2>said.$1.$3; then
			cmp -s answer.$1.$3 data && right=$((right + 1)) || wrong=$((wrong + 1))
		elif [ ! -e asked.$1 ]; then
			none=$((none + 1))
			echo "$1| no answer by $3 after $(($(date +%s) - from)) s:" \
				"$(tail -n 1 said.$1.$3)"
		fi
	done
	echo "@@ $1 asked $3 $right $wrong $none"
	rm -f answer.$1.$3 said.$1.$3
}

# The same by all ways at once. The hardware address behind a tap is known for good: who stands
# still does not answer those who look for it.
ask_all() {
	in="nsenter -t $2 -n"
	case $3 in *"--net tap="*)
		$in ip address add 192.0.2.1/24 dev tap0
		$in ip link set tap0 up
		$in arp -s 192.0.2.2 $(echo "$3" | sed -n 's/.* tap=tap0,mac=\([^ ]*\) .*/\1/p')
		;;
	esac
	for way in $(ways "$3"); do
		ask $1 $2 $way "$3" &
	done
	wait
}

# Has the guest $1 make do with each of $2, and with 4 MiB less than all of its 384, by which it
# learns that we have seen it do the rest.
balloon() {
	for to in $2; do
		status=1 tries=5
		# 1: half a minute without a step, as there may be on a busy machine.
		while [ $status -eq 1 ] && [ $tries -gt 0 ]; do
			said=$(./asyncpf balloon --control control.$1 --to $to 2>&1)
			status=$?
			tries=$((tries - 1))
		done
		echo "@@ $1 balloon $status $said"
	done
	./asyncpf balloon --control control.$1 --to 380M >/dev/null 2>&1
}

# Takes from guest $1 what it is about to need. The command's answer does not matter: the guest may
# take some back before the command has seen that it gave all of it.
take_away() {
	./asyncpf balloon --control control.$1 --to 96M >/dev/null 2>&1
}

# The host's end of guest $1's sockets, process $2: a program, which serves the guest and talks to
# it, until the guest has nothing more to say.
vsock() {
	./vsock_peer vsock.$1 >vsock-said.$1 2>&1 &
	peer=$!
	while kill -0 $peer 2>/dev/null && ! grep -q . vsock-said.$1; do sleep 1; done
	echo "@@ $1 vsock $(tr '\n' ' ' <vsock-said.$1)"
	while [ ! -e talked.$1 ] && kill -0 $2 2>/dev/null; do sleep 1; done
	kill $peer 2>/dev/null
	rm -f vsock-said.$1
}

# Connections of guest $1's sockets that are open.
sockets() {
	./asyncpf status --control control.$1 --json |
		sed 's/.*"vsock_connections": *\([0-9]*\).*/\1/'
}

# Has guest $1, process $2, stand still while many connections are open, and for longer than a
# guest that runs may take to answer one. Tells how many were open before and after that, and how
# many of those that were made meanwhile the guest took in the end.
ASKED_PAUSED=4
stand_talking() {
	until [ "$(sockets $1)" -ge 8 ] || ! kill -0 $2 2>/dev/null; do :; done 2>/dev/null
	./asyncpf pause --control control.$1 >/dev/null
	open=$(sockets $1)
	i=0 asking=
	while [ $i -lt $ASKED_PAUSED ]; do
		./vsock_peer vsock.$1 once &
		asking="$asking $!"
		i=$((i + 1))
	done
	sleep 35
	still=$(sockets $1)
	./asyncpf resume --control control.$1 >/dev/null
	taken=0
	for one in $asking; do
		wait $one && taken=$((taken + 1))
	done
	echo "@@ $1 talking $open $still $taken $ASKED_PAUSED"
}

# Gives the vCPU threads of process $1 the CPUs but the first, and the others that one, where
# there are more CPUs than vCPUs.
spread() {
	vcpus=$(cat /proc/$1/task/*/comm | grep -c '^vcpu')
	[ $(nproc) -gt $vcpus ] || return 0
	for t in /proc/$1/task/*; do
		case $(cat $t/comm) in
		vcpu*) taskset -p $(printf %x $(((1 << $(nproc)) - 2))) ${t##*/} ;;
		*) taskset -p 1 ${t##*/} ;;
		esac
	done >/dev/null
}

# Ends process $2 when it is still there after $3 seconds, and says first where its threads are.
limit() {
	left=$3
	while kill -0 $2 2>/dev/null; do
		if [ $left -eq 0 ]; then
			echo "$1| ended by force after $3 s; its threads:"
			for t in /proc/$2/task/*; do
				state=$(cut -d' ' -f3 $t/stat)
				echo "$1| $(cat $t/comm) $state $(tr '\n' ' ' <$t/stack)"
			done
			kill -KILL $2
			return
		fi
		sleep 1
		left=$((left - 1))
	done
}

# Runs the rest in the background, as nobody's child here: busybox's `read` forgets what it has of a
# line when a child ends. `$1` is guest and number; asking.$1 is there until it is done.
beside() {
	mark=asking.$1
	shift
	touch $mark
	({ "$@"; rm -f $mark; } 4<&- &)
}

# What guest $n, process $pid, of words $*, says on its console, and what that is the time for.
listen() {
	jobs=0
	while IFS= read -r line; do
		echo "$n| $line"
		jobs=$((jobs + 1))
		case $line in
		*'"step":"boot",'*) spread $pid ;;
		*'"step":"idle",'*) beside $n.$jobs idle $n $pid ;;
		*'"step":"serve",'*) beside $n.$jobs ask_all $n $pid "$*" ;;
		*'"step":"stand",'*) beside $n.$jobs stand $n $pid "$line" "$*" ;;
		*'"step":"cut"'*) beside $n.$jobs cut_off $n $pid ;;
		*'"step":"stood",'*) echo "@@ $n date $(date +%s)" ;;
		*'"step":"modules"'*)
			case " $* " in *" --vsock "*) beside $n.$jobs vsock $n $pid ;; esac
			;;
		*'"step":"vsock",'*'"how":"pause"'*) beside $n.$jobs stand_talking $n $pid ;;
		*'"step":"vsock-end",'*) touch talked.$n ;;
		*'"step":"need",'*) beside $n.$jobs take_away $n ;;
		*'"step":"needed",'*)
			echo "@@ $n needed $(./asyncpf status --control control.$n --json)"
			;;
		*'"step":"visits"'* | *'"step":"visited"'*)
			echo "@@ $n counters $(./asyncpf status --control control.$n --json)"
			case "$line $*" in
			*'"visits"'*" --vsock "*) beside $n.$jobs balloon $n "352M 384M" ;;
			esac
			;;
		*'"step":"load",'*) touch asked.$n ;;
		esac
	done
}

# Becomes the command $*, one with a tap in a network namespace of its own.
become() {
	case " $* " in *" --net tap="*)
		exec unshare -n sh -c 'ip link set lo up && exec "$@"' sh "$@"
		;;
	esac
	exec "$@"
}

# boot NUMBER LIMIT WORDS...: one guest, its console with the number before each line. What
# the command counts is asked when the guest's load begins to count, and when it ends that.
boot() {
	n=$1 limit=$2
	shift 2
	echo "@@ $n begin"
	mkfifo console.$n
	# Opened at both ends at once: who waits for the other end is interrupted by the end of any
	# child, and the shell does not try again.
	exec 3<>console.$n 4<console.$n 5>console.$n 3>&-
	case " $* " in *" --disk "*) truncate -s 1M disk.$n ;; esac
	become ./asyncpf run --json stats.$n --control control.$n "$@" </dev/null \
		>&5 2>&1 4<&- 5>&- &
	pid=$!
	exec 5>&-
	limit $n $pid $limit 4<&- &
	# Whose child the command is not.
	(listen "$@") <&4
	exec 4<&-
	wait $pid
	status=$?
	touch asked.$n talked.$n
	while ls asking.$n.* >/dev/null 2>&1; do sleep 1; done
	echo "@@ $n end $status $(cat stats.$n 2>/dev/null | tr -d '\n')"
	rm -f console.$n stats.$n swap.$n disk.$n asked.$n talked.$n
}
