/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See trap.h. Who makes a forbidden call may have been taken over, and what the handler is told
 * and does can be turned against it; that changes nothing, since the call has not been made. The
 * handler takes no lock and allocates nothing: the call may have been malloc's.
 */
#include "sandbox/trap.h"

#include <errno.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/types.h"
#include "sandbox/roles.h"

#ifndef SYS_SECCOMP
#define SYS_SECCOMP 1 /* si_code of a SIGSYS that a filter sends */
#endif

#define CALLS_MAX 512 /* numbers below it have a name; Linux 6.12 goes to 462 */
#define LINE_BYTES 256
#define NUMBER_BYTES 20 /* of 64 bits, in hexadecimal */

/* A signal handler is the process's: it has no other way to these. */
static struct {
	char *names[CALLS_MAX]; /* of system calls, by number; NULL: it has none */
	const char *loss;
	int exit_code;
} process;

static size_t append(char *line, size_t used, const char *word)
{
	while (*word && used < LINE_BYTES - 1)
		line[used++] = *word++;
	return used;
}

void sandbox_end(int exit_code, const char *const words[], unsigned count)
{
	struct pollfd err = {.fd = STDERR_FILENO, .events = POLLOUT};
	char line[LINE_BYTES];
	size_t used = append(line, 0, "asyncpf: sandbox: ");

	for (unsigned i = 0; i < count; i++)
		used = append(line, used, words[i]);
	line[used++] = '\n';
	/* Nobody may keep it from ending by not reading. */
	if (poll(&err, 1, 0) == 1)
		(void)!write(STDERR_FILENO, line, used);
	_exit(exit_code);
}

static const char *number(uint64_t value, unsigned base, char buf[static NUMBER_BYTES])
{
	char *at = buf + NUMBER_BYTES - 1;

	*at = '\0';
	do
		*--at = "0123456789abcdef"[value % base];
	while (value /= base);
	return at;
}

static void on_sigsys(int sig, siginfo_t *si, void *ctx)
{
	unsigned nr = (unsigned)si->si_syscall;
	const char *name = nr < CALLS_MAX && process.names[nr] ? process.names[nr] : "unknown";
	const greg_t *regs = ((const ucontext_t *)ctx)->uc_mcontext.gregs;
	char call[NUMBER_BYTES], first[NUMBER_BYTES], second[NUMBER_BYTES];
	const char *const words[] = {
		"a ", sandbox_role_name((enum sandbox_role)si->si_errno),
		" thread made system call ", number(nr, 10, call), ", ", name, "(0x",
		number((uint64_t)regs[REG_RDI], 16, first), ", 0x",
		number((uint64_t)regs[REG_RSI], 16, second),
		", ...), which it may not; ", process.loss,
		", by a fault of asyncpf's or an attack: report it",
	};

	if (si->si_code == SYS_SECCOMP)
		sandbox_end(process.exit_code, words, ARRAY_LEN(words));
	/* Somebody has sent it. */
	(void)signal(sig, SIG_DFL);
	(void)raise(sig);
}

int sandbox_trap_start(const char *loss, int exit_code, struct err *e)
{
	const struct sigaction ours = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO};

	process.loss = loss;
	process.exit_code = exit_code;
	for (int nr = 0; nr < CALLS_MAX; nr++)
		if (!process.names[nr])
			process.names[nr] =
				seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, nr);
	return sigaction(SIGSYS, &ours, NULL) < 0 ? err_sys(e, -errno, "sandbox: SIGSYS") : 0;
}
