/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls that wait for absent memory while another thread closes the VM: they end, and touch nothing
 * of it afterwards. The thread that waits runs only when nobody else wants its CPU, so that all is
 * freed between its last step in there and the next.
 */
#include <errno.h>
#include <malloc.h>
#include <sched.h>
#include <unistd.h>

#include "need_kvm.h"
#include "vm_fixture.h"

#define PAGE 4096u
/* A page that is there, and absent ones. */
#define START (VM_DATA - PAGE)
#define BYTES (3u * PAGE)

static int hold_it(struct apf *a)
{
	return apf_hold(a, START, BYTES);
}

static int pin_it(struct apf *a)
{
	return apf_pin(a, START, BYTES);
}

static int tell_rom(struct apf *a)
{
	return apf_slot_set(a, START, BYTES, APF_SLOT_ROM);
}

static int discard_half_a_page(struct apf *a)
{
	return apf_discard(a, START + PAGE / 2, PAGE);
}

static int populate_it(struct apf *a)
{
	return apf_populate(a, START, BYTES);
}

static int write_it(struct apf *a)
{
	static unsigned char buf[BYTES];

	return apf_write(a, START, buf, BYTES);
}

struct waiting {
	struct apf *a;
	int (*call)(struct apf *a);
	int rc;
};

static void *wait_there(void *arg)
{
	const struct sched_param idle = {.sched_priority = 0};
	struct waiting *w = arg;

	assert_int_equal(sched_setscheduler(0, SCHED_IDLE, &idle), 0);
	w->rc = w->call(w->a);
	return NULL;
}

static void on_one_cpu(void)
{
	cpu_set_t cpus, one;

	CPU_ZERO(&one);
	assert_int_equal(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
	for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
		if (CPU_ISSET(i, &cpus))
			CPU_SET(i, &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
}

static void ends_with_the_vm(int (*call)(struct apf *a))
{
	struct waiting w = {.call = call};
	pthread_t thread;
	struct vm v;

	on_one_cpu();
	/* What is used after it was freed is not what it was. */
	assert_int_equal(mallopt(M_PERTURB, 0xa5), 1);
	vm_open(&v);
	vm_memory(&v, VM_NEVER);
	w.a = v.apf;
	assert_int_equal(pthread_create(&thread, NULL, wait_there, &w), 0);
	vm_until_fault(&v);
	apf_close(v.apf);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(w.rc, -EINTR);
}

#define CALL(function)                                                                             \
	static void closed_in_##function(void **state)                                             \
	{                                                                                          \
		(void)state;                                                                       \
		ends_with_the_vm(function);                                                        \
	}

CALL(hold_it)
CALL(pin_it)
CALL(tell_rom)
CALL(discard_half_a_page)
CALL(populate_it)
CALL(write_it)

int main(void)
{
	const struct CMUnitTest tests[] = {
		VM_TEST(closed_in_hold_it),
		VM_TEST(closed_in_pin_it),
		VM_TEST(closed_in_tell_rom),
		VM_TEST(closed_in_discard_half_a_page),
		VM_TEST(closed_in_populate_it),
		VM_TEST(closed_in_write_it),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
