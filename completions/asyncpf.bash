# SPDX-License-Identifier: Apache-2.0
# bash completion for asyncpf(1)

_asyncpf()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local words=

	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		mapfile -t COMPREPLY < <(compgen -W 'check demo doctor evict pause resume run sim
			status stop --help --version' -- "$cur")
		return
	fi
	# A file name: for demo's --json and --image, not for doctor's --json, a flag.
	case ${COMP_WORDS[1]}$prev in
	demo--json | demo--image | run--kernel | run--initrd | run--disk | run--json | \
		run--swap | *--control)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	check--abi)
		mapfile -t COMPREPLY < <(compgen -W 'int pf2 pf2-strict legacy' -- "$cur")
		return
		;;
	check--faults)
		mapfile -t COMPREPLY < <(compgen -W 'user kernel' -- "$cur")
		return
		;;
	demo--pattern)
		words='sequential random shared compute idle rewrite'
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
		return
		;;
	run--faults)
		mapfile -t COMPREPLY < <(compgen -W 'user kernel stall block' -- "$cur")
		return
		;;
	run--abi)
		mapfile -t COMPREPLY < <(compgen -W 'int pf2 pf2-strict legacy off' -- "$cur")
		return
		;;
	sim--abi)
		mapfile -t COMPREPLY < <(compgen -W 'legacy pf2 pf2-strict int' -- "$cur")
		return
		;;
	esac
	case ${COMP_WORDS[1]} in
	check) words='--abi --faults --only --cpus --delay-us --help --version' ;;
	demo) words='--runs --vcpus --tasks --pages --pattern --delay-us
		--grace-us --block-bytes --image --source-wrap
		--outstanding --queue-depth --source-timeout-ms
		--timer-hz --seed --cold --json --quiet --help --version' ;;
	doctor) words='--json --help --version' ;;
	evict) words='--control --all --to --timeout --help --version' ;;
	pause) words='--control --timeout --help --version' ;;
	resume) words='--control --timeout --help --version' ;;
	run) words='--kernel --initrd --cmdline --memory --cpus --disk --faults
		--abi --resident-max --swap --swap-wrap --control --exit-port --stats --json --quiet
		--lab --local --help --version' ;;
	status) words='--control --json --watch --timeout --help --version' ;;
	stop) words='--control --timeout --help --version' ;;
	sim) words='--seed --seeds --jobs --vcpus --tasks --faults-per-task --abi
		--exhaustive --states --scale --faults
		--no-faults --log --help --version' ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _asyncpf asyncpf
