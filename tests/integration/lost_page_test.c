/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A page of guest memory that the host has lost to a memory error, as the kernel is told by
 * MADV_HWPOISON: how the VMM gives it up, wherever it is, and what the library's own accesses make
 * of it. What the guest's touches become is memory_error_test's.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lose_page.h"
#include "need_kvm.h"
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

/* ---- accesses of the library's own ---- */

/* As a VMM's. */
static void on_sigbus(int sig, siginfo_t *si, void *context)
{
	(void)sig;
	if (!apf_sigbus(si, context))
		abort();
}

/* 16 pages of 'a', 'b', …, the sixth of which is lost; nobody knows yet. */
static void open_lost(struct vm *v, int handler)
{
	vm_open(v);
	v->config.sigbus_handler = handler;
	vm_memory(v, NULL);
	for (unsigned i = 0; i < 16; i++) {
		char page[PAGE];

		memset(page, 'a' + (int)i, PAGE);
		assert_int_equal(apf_write(v->apf, VM_DATA + i * PAGE, page, PAGE), 0);
	}
	lose(v, VM_DATA + 5 * PAGE);
}

/* All before the page is copied, in whatever pieces, and the page is named by where that ends. */
static void copies_end_there(struct vm *v)
{
	static char buf[17 * PAGE];
	struct apf_range all = {VM_DATA, buf, 16 * PAGE}, rest = {VM_DATA + 5 * PAGE, buf, 8};
	struct apf_range several[] = {{VM_DATA + 4 * PAGE, buf, 100},
				      {VM_DATA + 5 * PAGE - 3, buf + 100, 8},
				      {VM_DATA + 6 * PAGE, buf, 8}};

	memset(buf, '-', sizeof(buf));
	assert_int_equal(apf_read(v->apf, VM_DATA, buf, 16 * PAGE), -EHWPOISON);
	for (unsigned i = 0; i < 17 * PAGE; i++)
		assert_int_equal(buf[i], i < 5 * PAGE ? 'a' + (int)(i / PAGE) : '-');
	assert_int_equal(apf_readv(v->apf, &all, 1, NULL), 5 * PAGE);
	assert_int_equal(apf_readv(v->apf, &rest, 1, NULL), -EHWPOISON);
	assert_int_equal(apf_readv(v->apf, several, 3, NULL), 103);
	assert_int_equal(apf_writev(v->apf, &all, 1, NULL), 5 * PAGE);
	assert_int_equal(apf_writev(v->apf, several, 3, NULL), 103);
	assert_int_equal(apf_write(v->apf, VM_DATA + 5 * PAGE + 77, "x", 1), -EHWPOISON);
	is_byte(v, VM_DATA + 6 * PAGE, 'g');
	/* It is there, as far as anybody can tell; no whole block of it is given up. */
	assert_int_equal(apf_populate(v->apf, VM_DATA, 16 * PAGE), 0);
	assert_int_equal(apf_discard(v->apf, VM_DATA + 5 * PAGE + 8, 8), -EHWPOISON);
	assert_int_equal(apf_is_paused(v->apf), 0);
	assert_int_equal(apf_discard(v->apf, VM_DATA + 5 * PAGE, PAGE), 0);
	is_given_up(v, VM_DATA + 5 * PAGE);
	assert_int_equal(apf_read(v->apf, VM_DATA, buf, 16 * PAGE), 0);
}

static void a_copy_of_one_fails(void **state)
{
	const struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};
	struct vm v;

	(void)state;
	assert_int_equal(sigaction(SIGBUS, &sa, NULL), 0);
	open_lost(&v, 0);
	copies_end_there(&v);
	apf_close(v.apf);
}

static void a_copy_of_one_fails_by_the_librarys_handler(void **state)
{
	struct vm v;

	(void)state;
	open_lost(&v, 1);
	copies_end_there(&v);
	apf_close(v.apf);
}

/* The guest was told of one: the library looks before it copies, and needs no handler. */
static void a_copy_of_a_known_one_fails(void **state)
{
	sigset_t bus;
	struct vm v;
	int sig;

	(void)state;
	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	assert_int_equal(pthread_sigmask(SIG_BLOCK, &bus, NULL), 0);
	open_lost(&v, 0);
	vm_slot(&v, 0, 0, VM_RAM, 0);
	vm_vcpu(&v);
	/* al = [VM_DATA + 5 * PAGE]; out */
	VM_USER(&v, 0x8a, 0x04, 0x25, 0, 0x50, 2, 0, 0xe6, VM_PORT);
	vm_is_interrupted(&v, apf_vcpu_run(v.vcpu));
	assert_int_equal(sigwait(&bus, &sig), 0);
	copies_end_there(&v);
	apf_close(v.apf);
}

/* ---- the VMM's view ---- */

/* Touched there for the first time: told at once, and nobody waits for it. */
static void a_device_is_told(void **state)
{
	struct apf_memory m = {.size = sizeof(m), .bytes = VM_RAM, .fd = -1};
	int ends[2];
	struct vm v;
	char byte;

	(void)state;
	vm_open(&v);
	assert_int_equal(apf_open(v.fd, &v.config, &v.apf, &v.error), 0);
	assert_int_equal(apf_memory_adopt(v.apf, &m, &v.error), 0);
	assert_int_equal(apf_start(v.apf, &v.error), 0);
	write_data(&v, 3);
	lose(&v, VM_DATA + PAGE);
	assert_int_equal(pipe(ends), 0);
	for (unsigned i = 0; i < 3; i++) {
		const char *at = (char *)m.vmm + VM_DATA + i * PAGE;

		errno = 0;
		assert_int_equal(write(ends[1], at, 1), i == 1 ? -1 : 1);
		assert_int_equal(errno, i == 1 ? EFAULT : 0);
	}
	assert_int_equal(apf_is_paused(v.apf), 0);
	assert_int_equal(apf_discard(v.apf, VM_DATA + PAGE, PAGE), 0);
	assert_int_equal(write(ends[1], (char *)m.vmm + VM_DATA + PAGE, 1), 1);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(read(ends[0], &byte, 1), 1);
		assert_int_equal(byte, i == 2 ? 0 : 'x');
	}
	close(ends[0]);
	close(ends[1]);
	apf_close(v.apf);
}

/* ---- accesses for the guest ---- */

static void until_paused(struct vm *v, uint64_t gpa)
{
	char at[64];

	while (!apf_is_paused(v->apf))
		(void)poll(NULL, 0, 1);
	assert_int_equal(apf_trouble_get(v->apf, &v->error), -EHWPOISON);
	snprintf(at, sizeof(at), "guest address %#llx: the host has lost it",
		 (unsigned long long)gpa);
	assert_non_null(strstr(v->error.text, at));
}

/* Paused for it, and again when nothing has been done about it; then it goes on. */
static void goes_on_without(struct vm *v, uint64_t gpa)
{
	until_paused(v, gpa);
	apf_resume(v->apf);
	until_paused(v, gpa);
	assert_int_equal(apf_discard(v->apf, gpa & ~(uint64_t)(PAGE - 1), PAGE), 0);
	apf_resume(v->apf);
	assert_int_equal(vm_join(v), 0);
	assert_int_equal(v->run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(apf_is_paused(v->apf), 0);
}

/* Nothing is written to it, nor taken from it. */
static void a_lost_area_pauses(void **state)
{
	struct vm v;

	(void)state;
	vm_open(&v);
	v.config.faults = APF_FAULTS_USER;
	v.config.grace_us = 0;
	vm_start(&v, "delay+zero:?size=64K&ms=20");
	VM_USER(&v, VM_LOAD_DATA);
	assert_int_equal(apf_populate(v.apf, VM_WORD, PAGE), 0);
	lose(&v, VM_WORD);
	assert_int_equal(apf_vcpu_set_msr(v.vcpu, 0x4b564d02, VM_WORD | 9), 0);
	vm_go(&v);
	goes_on_without(&v, VM_WORD);
	apf_close(v.apf);
}

/* One that KVM's emulator cannot make: what it has read from a device is to go there. */
static void a_store_to_one_pauses(void **state)
{
	struct vm v;

	(void)state;
	vm_open(&v);
	vm_start(&v, VM_ZERO);
	write_data(&v, 1);
	/* esi = VM_DEVICE; edi = VM_DATA; movsb; out */
	VM_USER(&v, 0xbe, 0, 0, 0, 1, 0xbf, 0, 0, 2, 0, 0xa4, 0xe6, VM_PORT);
	lose(&v, VM_DATA);
	vm_until_exit(&v, KVM_EXIT_MMIO);
	assert_int_equal(v.run->mmio.phys_addr, VM_DEVICE);
	v.run->mmio.data[0] = 'm';
	vm_go(&v);
	goes_on_without(&v, VM_DATA);
	is_byte(&v, VM_DATA, 'm');
	apf_close(v.apf);
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
		VM_TEST(a_copy_of_one_fails),
		VM_TEST(a_copy_of_one_fails_by_the_librarys_handler),
		VM_TEST(a_copy_of_a_known_one_fails),
		VM_TEST(a_device_is_told),
		VM_TEST(a_lost_area_pauses),
		VM_TEST(a_store_to_one_pauses),
	};

	need_kvm();
	lose_page_needed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
