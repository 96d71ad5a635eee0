/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: refuse SYSCALL ERRNO PROGRAM [ARGUMENT]...
 *
 * Runs a program for which one system call, by number, fails with an error, by number: a
 * seccomp filter, as containers have it, for calls that no preloaded library can reach.
 * Used by tests/error/demo_host_test.py. Exit code 77: the filter cannot be installed.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc < 4) {
		fputs("usage: refuse SYSCALL ERRNO PROGRAM [ARGUMENT]...\n", stderr);
		return 2;
	}

	unsigned number = (unsigned)strtoul(argv[1], NULL, 10);
	unsigned code = (unsigned)strtoul(argv[2], NULL, 10) & SECCOMP_RET_DATA;
	struct sock_filter rules[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 2),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | code),
	};
	struct sock_fprog program = {
		.len = sizeof(rules) / sizeof(rules[0]),
		.filter = rules,
	};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
		fprintf(stderr, "refuse: seccomp: %s\n", strerror(errno));
		return 77;
	}
	execv(argv[3], argv + 3);
	fprintf(stderr, "refuse: %s: %s\n", argv[3], strerror(errno));
	return 127;
}
