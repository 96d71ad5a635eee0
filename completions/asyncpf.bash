# SPDX-License-Identifier: Apache-2.0
# bash completion for asyncpf(1). It needs nothing of the package bash-completion.

# What may follow `asyncpf VERB --OPTION`: @files, or words; @list: several, separated by commas.
_asyncpf_values()
{
	case $1$2 in
	demo--json | demo--trace | demo--image | run--kernel | run--initrd | run--disk | \
		run--json | run--trace | run--swap | image--manifest | report--output | \
		report--svg | restore--json | restore--trace | restore--swap | restore--record | \
		restore--prefetch | snapshot--base | pager--listen | pager--map | pager--json | \
		pager--allow | \
		*--source | *--control)
		echo @files
		;;
	check--abi) echo 'int pf2 pf2-strict legacy' ;;
	check--faults) echo 'user kernel' ;;
	demo--io | pager--io | restore--io | run--io) echo 'auto uring threads' ;;
	demo--pattern) echo 'sequential random shared compute idle rewrite' ;;
	demo--grace-us) echo 'auto' ;;
	demo--runs)
		echo '@list block stall kernel user:legacy user:pf2 user:pf2-strict' \
			'user:int collision'
		;;
	restore--net | run--net) echo 'user tap=' ;;
	run--rng) echo 'bw=' ;;
	image--format) echo 'auto flat firecracker cloud-hypervisor qemu' ;;
	run--balloon) echo 'off on follow' ;;
	restore--vsock | run--vsock) echo 'uds=' ;;
	restore--faults | run--faults) echo 'user kernel stall block' ;;
	pager--sandbox | restore--sandbox | run--sandbox) echo 'on strict off' ;;
	run--abi) echo 'int pf2 pf2-strict legacy off' ;;
	sim--abi) echo 'legacy pf2 pf2-strict int' ;;
	esac
}

_asyncpf_options()
{
	case $1 in
	balloon) words='--control --to --no-wait --timeout --help --version' ;;
	check) words='--abi --faults --only --cpus --delay-us --help --version' ;;
	demo) words='--runs --vcpus --tasks --pages --pattern --delay-us
		--grace-us --block-bytes --read-ahead --image --source-wrap
		--outstanding --queue-depth --io --source-timeout-ms
		--timer-hz --seed --cold --plot --json --trace --quiet --help --version' ;;
	doctor) words='--json --help --version' ;;
	events) words='--control --timeout --help --version' ;;
	evict) words='--control --all --to --timeout --help --version' ;;
	image) words='--threads --manifest --force --quiet --level --frame-bytes --format --block
		--errors --json --help --version' ;;
	pager) words='--listen --source --map --control --allow --read-ahead --handshake-timeout
		--io --user --sandbox --stats --json --quiet --help --version' ;;
	pause) words='--control --timeout --help --version' ;;
	report) words='--output --svg --help --version' ;;
	resize) words='--control --resident-max --no-limit --timeout --help --version' ;;
	restore) words='--source --record --record-time --prefetch --fill --read-ahead --net --vsock
		--faults
		--resident-max --swap --io --control --user --sandbox --stats --trace --json
		--quiet --help --version' ;;
	resume) words='--control --timeout --help --version' ;;
	run) words='--kernel --initrd --cmdline --memory --cpus --disk --net --rng --balloon
		--vsock --faults
		--abi --resident-max --swap --swap-wrap --io --name --control --exit-port --user
		--sandbox --stats --json --trace --quiet --lab --local --help --version' ;;
	snapshot) words='--base --control --keep-running --timeout --help --version' ;;
	status) words='--control --json --prometheus --watch --timeout --help --version' ;;
	stop) words='--control --timeout --help --version' ;;
	sim) words='--seed --seeds --jobs --vcpus --tasks --faults-per-task --abi
		--exhaustive --states --scale --faults
		--no-faults --log --help --version' ;;
	*) words= ;;
	esac
	# These take no value; all others are followed by one.
	case $1 in
	doctor | status) flags='--json --prometheus --help --version' ;;
	image) flags='--force --quiet --json --help --version' ;;
	*) flags='--quiet --stats --exit-port --lab --local --all --cold --plot --no-limit
		--no-wait --exhaustive --scale --no-faults --log --help --version' ;;
	esac
}

_asyncpf_is_flag()
{
	[[ " ${flags//[$'\n\t']/ } " == *" $1 "* ]]
}

_asyncpf()
{
	local line=${COMP_LINE:0:COMP_POINT} words flags typed values option= value= list=
	local -a said

	COMPREPLY=()
	# bash splits its own words at = and : as well, which belong to ours.
	read -ra said <<<"$line"
	[[ $line == *[[:space:]] ]] && said+=('')
	local -i last=$((${#said[@]} - 1))
	local word=${said[last]}
	typed=${COMP_WORDS[COMP_CWORD]}
	[[ $typed == [=:] ]] && typed=

	if ((last == 1)); then
		mapfile -t COMPREPLY < <(compgen -W 'balloon check demo doctor events evict image
			pager pause report resize restore resume run sim snapshot status stop
			--help --version' -- "$word")
		return
	fi
	_asyncpf_options "${said[1]}"
	if [[ ${said[1]} == image && $word != -* ]] && ((last == 2)); then
		mapfile -t COMPREPLY < <(compgen -W 'pack unpack verify info' -- "$word")
		return
	fi
	if [[ $word == --*=* ]]; then
		option=${word%%=*} value=${word#*=}
	elif [[ ${said[last - 1]} == --* && ${said[last - 1]} != *=* ]] &&
		! _asyncpf_is_flag "${said[last - 1]}"; then
		option=${said[last - 1]} value=$word
	fi
	if [[ -z $option && $word != -* && ${said[1]} == @(image|report|restore|snapshot) ]]; then
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$word")
		return
	fi
	if [[ -z $option ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
		return
	fi
	values=$(_asyncpf_values "${said[1]}" "$option")
	case $values in
	@files)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$value")
		;;
	@list*)
		[[ $value == *,* ]] && list=${value%,*},
		mapfile -t COMPREPLY < <(compgen -P "$list" -W "${values#@list }" -- "${value##*,}")
		;;
	*) mapfile -t COMPREPLY < <(compgen -W "$values" -- "$value") ;;
	esac
	# What readline puts in is what stands behind the = or : that it split at.
	if [[ $typed == "$word" && $word == --*=* ]]; then
		COMPREPLY=("${COMPREPLY[@]/#/$option=}")
	elif [[ $values != @files && $typed != "$value" ]]; then
		COMPREPLY=("${COMPREPLY[@]#"${value%"$typed"}"}")
	fi
}
complete -F _asyncpf asyncpf
