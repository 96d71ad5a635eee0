/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The latency-sensitive process: it wakes at fixed times and notes how late it was.
 *
 * It is an ordinary process. It locks nothing, because a lock binds the guest's kernel only
 * and the host evicts what it likes; it touches the few pages that it needs at each tick, so
 * a host that keeps what is used keeps them. A time that passed while it slept counts as
 * another late tick: a sleeper who skips them would report one tick for a second of silence.
 * But it does not sleep for them: who is late does at once all that is due, and a sleep that
 * is over before it begins would cost a turn of the scheduler for each.
 */
#include <stdlib.h>

#include "guest.h"

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static uint32_t tick(uint64_t due_ns)
{
	uint64_t now = now_ns();

	if (now < due_ns) {
		sleep_until(due_ns);
		now = now_ns();
	}
	return (uint32_t)((now - due_ns) / 1000);
}

unsigned ticker_run(uint32_t period_ms, uint64_t from_ns, uint32_t *late_us, unsigned n)
{
	uint64_t period_ns = period_ms * 1000000ull, due_ns = now_ns();
	unsigned worst = 0;

	/*
	 * Before it counts it does all that it does later, where it does it: a page that it
	 * touched for the first time when the count begins would be its own delay, not that of
	 * the processes beside it.
	 */
	for (unsigned i = 0; due_ns + period_ns <= from_ns; i = (i + 1) % n, due_ns += period_ns)
		late_us[i] = tick(due_ns);
	due_ns = from_ns;
	for (unsigned i = 0; i < n; i++, due_ns += period_ns) {
		late_us[i] = tick(due_ns);
		if (late_us[i] > late_us[worst])
			worst = i;
	}
	qsort(late_us, n, sizeof(*late_us), by_size);
	return worst;
}
