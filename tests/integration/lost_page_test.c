/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A page of guest memory that the host has lost to a memory error, as the kernel is told by
 * MADV_HWPOISON: how the VMM gives it up, wherever it is, and what the library's own accesses make
 * of it. What the guest's touches become is memory_error_test's.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lose_page.h"
#include "vm_fixture.h"

#define PAGE 4096u

static const enum apf_faults ways[] = {APF_FAULTS_BLOCK, APF_FAULTS_STALL, APF_FAULTS_KERNEL,
				       APF_FAULTS_USER};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

static void lose(struct vm *v, uint64_t gpa)
{
	assert_int_equal(lose_page(apf_memory_hva(v->apf, gpa)), 0);
}

/* Bytes other than the source's, which are zeroes. */
static void write_data(struct vm *v, unsigned pages)
{
	for (unsigned i = 0; i < pages; i++)
		assert_int_equal(apf_write(v->apf, VM_DATA + i * PAGE, "x", 1), 0);
}

static void is_byte(struct vm *v, uint64_t gpa, char want)
{
	char got = 1;

	assert_int_equal(apf_read(v->apf, gpa, &got, 1), 0);
	assert_int_equal(got, want);
}

/* Given up: zeroes, which can be written to, and go to the swap file and come back. */
static void is_given_up(struct vm *v, uint64_t gpa)
{
	assert_int_equal(apf_is_paused(v->apf), 0);
	is_byte(v, gpa, 0);
	assert_int_equal(apf_write(v->apf, gpa, "z", 1), 0);
	if (v->config.swap)
		assert_int_equal(apf_evict(v->apf, 0, NULL, &v->error), 0);
	is_byte(v, gpa, 'z');
	assert_int_equal(apf_discard(v->apf, gpa, PAGE), 0);
	is_byte(v, gpa, 0);
}

/* ---- the way out ---- */

/* Which the guest was told of: it goes on with zeroes. */
static void a_touched_one_is_given_up(void **state)
{
	(void)state;
	for (unsigned i = 0; i < WAYS; i++) {
		struct vm v;
		sigset_t bus;
		int sig;

		sigemptyset(&bus);
		sigaddset(&bus, SIGBUS);
		assert_int_equal(pthread_sigmask(SIG_BLOCK, &bus, NULL), 0);
		vm_open(&v);
		v.config.faults = ways[i];
		vm_start(&v, VM_ZERO);
		write_data(&v, 1);
		VM_USER(&v, VM_LOAD_DATA);
		lose(&v, VM_DATA);
		vm_is_interrupted(&v, apf_vcpu_run(v.vcpu));
		assert_int_equal(sigwait(&bus, &sig), 0);
		assert_int_equal(apf_discard(v.apf, VM_DATA, PAGE), 0);
		vm_until_exit(&v, KVM_EXIT_IO);
		assert_int_equal(*((unsigned char *)v.run + v.run->io.data_offset), 0);
		is_given_up(&v, VM_DATA);
		apf_close(v.apf);
	}
}

/* Nothing of it is shown in any view, nor asked for. */
static void an_idle_one_is_given_up(void **state)
{
	struct vm v;

	(void)state;
	vm_open(&v);
	vm_memory(&v, VM_ZERO);
	write_data(&v, 3);
	lose(&v, VM_DATA);
	lose(&v, VM_DATA + PAGE);
	assert_int_equal(apf_discard(v.apf, VM_DATA, 3 * PAGE), 0);
	for (unsigned i = 0; i < 3; i++)
		is_given_up(&v, VM_DATA + i * PAGE);
	apf_close(v.apf);
}

/* What stays where it is gets other memory there. */
static void a_pinned_one_is_given_up(void **state)
{
	struct vm v;

	(void)state;
	vm_open(&v);
	vm_memory(&v, VM_ZERO);
	write_data(&v, 4);
	assert_int_equal(apf_pin(v.apf, VM_DATA, 2 * PAGE), 0);
	assert_int_equal(apf_hold(v.apf, VM_DATA + 2 * PAGE, 2 * PAGE), 0);
	lose(&v, VM_DATA);
	lose(&v, VM_DATA + 3 * PAGE);
	assert_int_equal(apf_discard(v.apf, VM_DATA, 4 * PAGE), 0);
	for (unsigned i = 0; i < 4; i++)
		is_given_up(&v, VM_DATA + i * PAGE);
	apf_release(v.apf, VM_DATA + 2 * PAGE, 2 * PAGE);
	assert_int_equal(apf_unpin(v.apf, VM_DATA, 2 * PAGE), 0);
	apf_close(v.apf);
}

/* ---- with a swap file ---- */

static void open_swap(struct vm *v, char *folder)
{
	static char swap[64];

	assert_non_null(mkdtemp(folder));
	snprintf(swap, sizeof(swap), "%s/swap", folder);
	vm_open(v);
	v->config.swap = swap;
	v->config.retries_max = 1;
	vm_start(v, VM_ZERO);
}

static void close_swap(struct vm *v, const char *folder)
{
	apf_close(v->apf);
	assert_int_equal(rmdir(folder), 0);
}

/* It cannot be written out. That ends nothing: the VM stands still and says why. */
static void open_paused(struct vm *v, char *folder)
{
	struct apf_error why;

	open_swap(v, folder);
	write_data(v, 3);
	lose(v, VM_DATA + PAGE);
	assert_int_equal(apf_evict(v->apf, 0, NULL, &v->error), -EBUSY);
	assert_int_equal(apf_is_paused(v->apf), 1);
	assert_int_equal(apf_trouble_get(v->apf, &why), -EFAULT);
	assert_non_null(strstr(why.text, "Bad address"));
	is_byte(v, VM_DATA, 'x');
}

static void one_that_cannot_be_written_out_is_given_up(void **state)
{
	char folder[] = "/tmp/asyncpf-lost-XXXXXX";
	struct vm v;

	(void)state;
	open_paused(&v, folder);
	/* Resuming alone does not help. */
	apf_resume(v.apf);
	while (!apf_is_paused(v.apf))
		usleep(1000);
	assert_int_equal(apf_discard(v.apf, VM_DATA + PAGE, PAGE), 0);
	is_given_up(&v, VM_DATA + PAGE);
	is_byte(&v, VM_DATA, 'x');
	is_byte(&v, VM_DATA + 2 * PAGE, 'x');
	close_swap(&v, folder);
}

/* Wanted back from where it could not be written: the guest is told, as of any other. */
static void one_that_was_to_be_written_out_is_told(void **state)
{
	char folder[] = "/tmp/asyncpf-lost-XXXXXX";
	sigset_t bus;
	struct vm v;
	int sig;

	(void)state;
	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	assert_int_equal(pthread_sigmask(SIG_BLOCK, &bus, NULL), 0);
	open_paused(&v, folder);
	/* al = [VM_DATA + PAGE]; out */
	VM_USER(&v, 0x8a, 0x04, 0x25, 0, 0x10, 2, 0, 0xe6, VM_PORT);
	assert_int_equal(apf_hold(v.apf, VM_DATA + PAGE, PAGE), 0);
	apf_release(v.apf, VM_DATA + PAGE, PAGE);
	apf_resume(v.apf);
	vm_is_interrupted(&v, apf_vcpu_run(v.vcpu));
	assert_int_equal(sigwait(&bus, &sig), 0);
	assert_int_equal(apf_discard(v.apf, VM_DATA + PAGE, PAGE), 0);
	vm_until_exit(&v, KVM_EXIT_IO);
	is_given_up(&v, VM_DATA + PAGE);
	close_swap(&v, folder);
}

static void a_part_leaves_with_one(void **state)
{
	char folder[] = "/tmp/asyncpf-lost-XXXXXX";
	struct vm v;

	(void)state;
	open_paused(&v, folder);
	vm_slot(&v, 0, 0, 0, 0);
	if (apf_memory_remove(v.apf, 0, &v.error) < 0)
		fail_msg("%s", v.error.text);
	assert_int_equal(apf_is_paused(v.apf), 0);
	close_swap(&v, folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VM_TEST(a_touched_one_is_given_up),
		VM_TEST(an_idle_one_is_given_up),
		VM_TEST(a_pinned_one_is_given_up),
		VM_TEST(one_that_cannot_be_written_out_is_given_up),
		VM_TEST(one_that_was_to_be_written_out_is_told),
		VM_TEST(a_part_leaves_with_one),
	};

	vm_need_kvm();
	lose_page_needed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
