/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watching the machine stand still: its CPUs are busy, as the kernel's watchdog of soft lockups
 * takes no idle one for stuck, and the watchdog allows far less than it is to stand still for: the
 * least that it can be set to; of a minute more, as network work takes long on a busy machine.
 */
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

#define WATCHDOG "/proc/sys/kernel/watchdog_thresh"
#define LOOK_NS 10000000ull
/* Twice what the watchdog allows at the least that it can be set to. */
#define LONG_NS 4000000000ull
/* Before it stands still and meanwhile, together: a minute is asked for. */
#define PATIENCE_NS 180000000000ull

static void say_date(const char *step, const char *how)
{
	struct timespec date;

	clock_gettime(CLOCK_REALTIME, &date);
	say("{\"step\":\"%s\",\"how\":\"%s\",\"epoch\":%lld}", step, how,
	    (long long)date.tv_sec);
}

static _Noreturn void spin_on(unsigned cpu)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	(void)sched_setaffinity(0, sizeof(one), &one);
	for (;;)
		__asm__ volatile("pause");
}

static unsigned spin(pid_t pids[static CPUS_MAX])
{
	unsigned n = 0;

	for (long cpus = sysconf(_SC_NPROCESSORS_ONLN); n < CPUS_MAX && n < cpus; n++) {
		pids[n] = fork();
		if (pids[n] == 0)
			spin_on(n);
		if (pids[n] < 0)
			break;
	}
	return n;
}

static enum outcome watch(const char *how)
{
	uint64_t end = now_ns() + PATIENCE_NS, before;

	say_date("stand", how);
	do {
		before = now_ns();
		sleep_until(before + LOOK_NS);
		if (now_ns() > end) {
			say("failed: it never stood still");
			return UNWELL;
		}
	} while (now_ns() - before < LONG_NS);
	say_date("stood", how);
	/* What the watchdog has to say it says by then. */
	sleep_until(now_ns() + LONG_NS);
	return WELL;
}

enum outcome step_stand(const char *text)
{
	enum outcome outcome;
	pid_t pids[CPUS_MAX];
	const char *half = strcmp(text, "minute") == 0 ? "8" : "1"; /* of what it allows, s */
	char before[16];
	unsigned n;

	if (slurp(WATCHDOG, before, sizeof(before)) <= 0 || poke(WATCHDOG, half) < 0)
		return say_failed(WATCHDOG);
	n = spin(pids);
	outcome = watch(text);
	while (n-- > 0)
		if (kill(pids[n], SIGKILL) == 0)
			(void)waitpid(pids[n], NULL, 0);
	/* What comes next may keep a CPU for longer on a busy machine. */
	return poke(WATCHDOG, before) < 0 ? say_failed(WATCHDOG) : outcome;
}
