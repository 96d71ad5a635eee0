/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM that is paused, as memory cannot be had, keeps nobody in a call that its VMM may have to
 * make before it can go on: to give memory up, to hold it, to take a part of it out.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/prng.h"
#include "need_kvm.h"
#include "vm_fixture.h"

#define PAGE 4096u
#define FAILS "fault+zero:?size=64K&fault-error-after=0"
#define FAILS_ONCE "fault+zero:?size=64K&fault-error-at=1"
#define MIB (1u << 20)

static void open_paused(struct vm *v, const char *uri)
{
	vm_open(v);
	v->config.retries_max = 0;
	vm_memory(v, uri);
	assert_int_equal(apf_hold(v->apf, VM_DATA, PAGE), -EBUSY);
	assert_int_equal(apf_is_paused(v->apf), 1);
	assert_true(apf_trouble_get(v->apf, &v->error) < 0);
}

static void reads_zeroes(struct vm *v, uint64_t gpa)
{
	uint64_t word = 1;

	assert_int_equal(apf_read(v->apf, gpa, &word, sizeof(word)), 0);
	assert_int_equal(word, 0);
}

/* What is there can be had all the same, and what is discarded needs no source. */
static void a_source_that_fails(void **state)
{
	struct vm v;

	(void)state;
	open_paused(&v, FAILS);
	assert_int_equal(apf_pin(v.apf, VM_DATA, PAGE), -EBUSY);
	assert_int_equal(apf_slot_set(v.apf, VM_DATA, PAGE, APF_SLOT_ROM), -EBUSY);
	assert_int_equal(apf_discard(v.apf, VM_DATA + 8, 8), -EBUSY);
	assert_int_equal(apf_pin(v.apf, VM_WORD, PAGE), 0);
	assert_int_equal(apf_unpin(v.apf, VM_WORD, PAGE), 0);
	assert_int_equal(apf_hold(v.apf, VM_WORD, PAGE), 0);
	apf_release(v.apf, VM_WORD, PAGE);
	assert_int_equal(apf_discard(v.apf, VM_WORD, PAGE), 0);
	reads_zeroes(&v, VM_WORD);
	assert_int_equal(apf_is_paused(v.apf), 1);
	/* The last one that failed. */
	assert_int_equal(apf_discard(v.apf, VM_DATA, PAGE), 0);
	assert_int_equal(apf_is_paused(v.apf), 0);
	assert_int_equal(apf_hold(v.apf, VM_DATA, PAGE), 0);
	reads_zeroes(&v, VM_DATA);
	apf_release(v.apf, VM_DATA, PAGE);
	/* One that goes on failing keeps no part of RAM. */
	assert_int_equal(apf_hold(v.apf, VM_DATA + PAGE, PAGE), -EBUSY);
	assert_int_equal(apf_memory_remove(v.apf, 0, &v.error), 0);
	apf_close(v.apf);
}

/* The VMM does it again when it is told that the VM goes on. */
static void a_source_that_is_mended(void **state)
{
	struct vm v;

	(void)state;
	open_paused(&v, FAILS_ONCE);
	apf_resume(v.apf);
	assert_int_equal(apf_hold(v.apf, VM_DATA, PAGE), 0);
	assert_int_equal(apf_is_paused(v.apf), 0);
	apf_release(v.apf, VM_DATA, PAGE);
	apf_close(v.apf);
}

/* Its answer may come at any time, and until then the memory is the source's. */
static void a_source_that_hangs(void **state)
{
	struct vm v;

	(void)state;
	vm_open(&v);
	v.config.source_timeout_ms = 20;
	vm_memory(&v, VM_NEVER);
	assert_int_equal(apf_hold(v.apf, VM_DATA, PAGE), -EBUSY);
	assert_int_equal(apf_pin(v.apf, VM_DATA, PAGE), -EBUSY);
	assert_int_equal(apf_discard(v.apf, VM_DATA, PAGE), -EBUSY);
	assert_int_equal(apf_discard(v.apf, VM_DATA + 8, 8), -EBUSY);
	assert_int_equal(apf_memory_remove(v.apf, 0, &v.error), -EBUSY);
	assert_non_null(strstr(v.error.text, "the VM is paused: memory at guest address 0x20000"));
	assert_int_equal(apf_discard(v.apf, VM_DATA + PAGE, PAGE), 0);
	reads_zeroes(&v, VM_DATA + PAGE);
	apf_close(v.apf);
}

/* ---- others wait already ---- */

#define WAITERS 70u /* more than may wait at a time */

struct waiter {
	struct vm *v;
	pthread_t thread;
	int rc;
};

static void *wait_for_it(void *arg)
{
	struct waiter *w = arg;
	char byte;

	w->rc = apf_read(w->v->apf, VM_DATA, &byte, 1);
	return NULL;
}

static void where_others_wait(void **state)
{
	struct waiter w[WAITERS];
	struct vm v;

	(void)state;
	open_paused(&v, FAILS);
	for (unsigned i = 0; i < WAITERS; i++) {
		w[i] = (struct waiter){.v = &v, .rc = 1};
		assert_int_equal(pthread_create(&w[i].thread, NULL, wait_for_it, &w[i]), 0);
	}
	/* While they come. */
	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(apf_hold(v.apf, VM_DATA, PAGE), -EBUSY);
		assert_int_equal(apf_hold(v.apf, VM_DATA + PAGE, PAGE), -EBUSY);
		assert_int_equal(apf_hold(v.apf, VM_WORD, PAGE), 0);
		apf_release(v.apf, VM_WORD, PAGE);
		sched_yield();
	}
	/* Nobody has asked for the second page any more: it is absent, or its read has failed. */
	assert_int_equal(apf_discard(v.apf, VM_DATA, 2 * PAGE), 0);
	for (unsigned i = 0; i < WAITERS; i++) {
		pthread_join(w[i].thread, NULL);
		assert_int_equal(w[i].rc, 0);
	}
	assert_int_equal(apf_is_paused(v.apf), 0);
	apf_close(v.apf);
}

/* ---- the swap file ---- */

/* Full of what the guest has written, in a file system of its own. False: skipped. */
static bool open_full(struct vm *v, char *folder)
{
	static char swap[64];
	struct prng rng;

	assert_non_null(mkdtemp(folder));
	/* Gone with this process, however it ends. */
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("asyncpf-test", folder, "tmpfs", 0, "size=1m") < 0) {
		print_message("SKIP: a full swap file needs a mount: %s\n", strerror(errno));
		assert_int_equal(rmdir(folder), 0);
		return false;
	}
	snprintf(swap, sizeof(swap), "%s/swap", folder);
	vm_open(v);
	v->config.retries_max = 0;
	v->config.swap = swap;
	vm_memory(v, NULL);
	prng_init(&rng, 1);
	for (uint64_t at = MIB; at < VM_RAM; at += PAGE) {
		uint64_t words[PAGE / 8];

		for (unsigned i = 0; i < PAGE / 8; i++)
			words[i] = prng_next(&rng);
		assert_int_equal(apf_write(v->apf, at, words, sizeof(words)), 0);
	}
	assert_int_equal(apf_evict(v->apf, 0, NULL, &v->error), -EBUSY);
	assert_int_equal(apf_is_paused(v->apf), 1);
	return true;
}

static void close_full(struct vm *v, const char *folder)
{
	apf_close(v->apf);
	assert_int_equal(umount(folder), 0);
	assert_int_equal(rmdir(folder), 0);
}

/* What is not in the file is in memory, and what is given up need not go there. */
static void a_swap_file_that_is_full(void **state)
{
	char folder[] = "/tmp/asyncpf-paused-XXXXXX";
	struct vm v;

	(void)state;
	if (!open_full(&v, folder))
		return;
	assert_int_equal(apf_hold(v.apf, VM_RAM - MIB, MIB), 0);
	apf_release(v.apf, VM_RAM - MIB, MIB);
	assert_int_equal(apf_pin(v.apf, VM_RAM - MIB, MIB), 0);
	assert_int_equal(apf_unpin(v.apf, VM_RAM - MIB, MIB), 0);
	/* The guest's code as well: its write may be the one that failed. */
	assert_int_equal(apf_discard(v.apf, 0, VM_RAM), 0);
	assert_int_equal(apf_is_paused(v.apf), 0);
	for (uint64_t at = MIB; at < VM_RAM; at += PAGE)
		reads_zeroes(&v, at);
	assert_int_equal(apf_evict(v.apf, 0, NULL, &v.error), 0);
	close_full(&v, folder);
}

static void a_part_leaves_a_full_swap_file(void **state)
{
	char folder[] = "/tmp/asyncpf-paused-XXXXXX";
	struct vm v;

	(void)state;
	if (!open_full(&v, folder))
		return;
	if (apf_memory_remove(v.apf, 0, &v.error) < 0)
		fail_msg("%s", v.error.text);
	assert_int_equal(apf_is_paused(v.apf), 0);
	close_full(&v, folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VM_TEST(a_source_that_fails),
		VM_TEST(a_source_that_is_mended),
		VM_TEST(a_source_that_hangs),
		VM_TEST(where_others_wait),
		VM_TEST(a_swap_file_that_is_full),
		VM_TEST(a_part_leaves_a_full_swap_file),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
