/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM that is paused, as memory cannot be had, keeps nobody in a call that its VMM may have to
 * make before it can go on: to give memory up, to hold it, to take a part of it out.
 */
#include <errno.h>
#include <fcntl.h>
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
#define INTERRUPTS_ON 0x200u

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

/* ---- memory that the host refuses ---- */

struct refusal {
	enum apf_faults faults;
	uint64_t rflags;
};

#define FULL_GPA VM_DEVICE
#define FULL_BYTES (2u * MIB)
#define ROOM_BYTES "64k"

/* A file of it, which is guest memory, has more bytes than there is room for. */
static int mount_small(char *folder)
{
	char path[64];
	int fd;

	assert_non_null(mkdtemp(folder));
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("asyncpf-test", folder, "tmpfs", 0, "size=" ROOM_BYTES) < 0) {
		print_message("SKIP: a full file system needs a mount: %s\n", strerror(errno));
		assert_int_equal(rmdir(folder), 0);
		return -1;
	}
	snprintf(path, sizeof(path), "%s/ram", folder);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, FULL_BYTES), 0);
	return fd;
}

static void start_in_small(struct vm *v, struct apf_memory *m)
{
	vm_memory(v, NULL);
	assert_int_equal(apf_memory_adopt(v->apf, m, &v->error), 0);
	vm_slot(v, 0, 0, VM_RAM, 0);
	vm_slot(v, 1, FULL_GPA, FULL_BYTES, 0);
	vm_vcpu(v);
	/* edi = FULL_GPA; each page: byte [rdi] = 1, until FULL_BYTES are written; out; jmp . */
	VM_USER(v, 0xbf, 0, 0, 0, 1, 0xc6, 0x07, 1, 0x48, 0x81, 0xc7, 0, 0x10, 0, 0, 0x81, 0xff, 0,
		0, 0x20, 1, 0x75, 0xee, 0xe6, VM_PORT, 0xeb, 0xfe);
}

/*
 * KVM says so only to a guest with interrupts off: for any other it tries again without end. And
 * the VMM's own touches there end in SIGBUS, without us.
 */
static void a_page_that_the_host_refuses(void **state)
{
	const struct refusal *how = *state;
	struct apf_memory m = {.size = sizeof(m), .gpa = FULL_GPA, .bytes = FULL_BYTES};
	char folder[] = "/tmp/asyncpf-paused-XXXXXX";
	struct kvm_regs regs;
	unsigned char byte;
	struct vm v;

	m.fd = mount_small(folder);
	if (m.fd < 0)
		return;
	vm_open(&v);
	v.config.faults = how->faults;
	start_in_small(&v, &m);
	regs = vm_regs(&v);
	regs.rflags |= how->rflags;
	VM_CALL(v.vcpu_fd, KVM_SET_REGS, &regs);
	vm_go(&v);
	while (!apf_is_paused(v.apf))
		usleep(1000);
	assert_int_equal(apf_trouble_get(v.apf, &v.error), -ENOSPC);
	assert_non_null(strstr(v.error.text, "its file system (a tmpfs) has no room for 4K more"));
	apf_vcpu_kick(v.vcpu);
	vm_is_interrupted(&v, vm_join(&v));
	/* As far as the room went. */
	byte = ((const unsigned char *)m.vmm)[0];
	assert_int_equal(byte, 1);
	assert_int_equal(mount(NULL, folder, NULL, MS_REMOUNT, "size=8m"), 0);
	apf_resume(v.apf);
	vm_until_exit(&v, KVM_EXIT_IO);
	for (uint64_t at = 0; at < FULL_BYTES; at += PAGE) {
		assert_int_equal(apf_read(v.apf, FULL_GPA + at, &byte, 1), 0);
		assert_int_equal(byte, 1);
	}
	apf_close(v.apf);
	close(m.fd);
	assert_int_equal(umount2(folder, MNT_DETACH), 0);
	assert_int_equal(rmdir(folder), 0);
}

struct writer {
	struct vm v;
	struct apf_source *source;
};

/* By a pointer, where a system call would be refused. */
static void write_at_once(void *ctx, const struct apf_read_request *rd)
{
	struct writer *w = ctx;

	memset(rd->buf, 0x5a, rd->len);
	assert_int_equal(apf_read_done(w->source, rd->id), 0);
}

static void open_writer(struct writer *w, struct apf_memory *m)
{
	const struct apf_source_config c = {
		.size = sizeof(c), .ctx = w, .bytes = FULL_BYTES, .read = write_at_once};
	struct vm *v = &w->v;

	vm_open(v);
	v->config.retries_max = 0;
	vm_memory(v, NULL);
	assert_int_equal(apf_memory_adopt(v->apf, m, &v->error), 0);
	assert_int_equal(apf_source_custom(v->apf, &c, &w->source, &v->error), 0);
	assert_int_equal(apf_source_place(w->source, FULL_GPA, FULL_BYTES, 0, &v->error), 0);
}

static void a_source_that_writes_to_refused_memory(void **state)
{
	struct apf_memory m = {.size = sizeof(m), .gpa = FULL_GPA, .bytes = FULL_BYTES};
	static unsigned char all[FULL_BYTES], other[FULL_BYTES];
	const struct apf_range range = {.gpa = FULL_GPA, .buf = all, .len = sizeof(all)};
	char folder[] = "/tmp/asyncpf-paused-XXXXXX";
	struct apf_wait wait;
	uint64_t taken;
	struct writer w;

	(void)state;
	m.fd = mount_small(folder);
	if (m.fd < 0)
		return;
	open_writer(&w, &m);
	apf_wait_init(&wait);
	wait.timeout_ns = 1000000000;
	/* As much as there is room for. */
	assert_in_range(apf_readv(w.v.apf, &range, 1, &wait), PAGE, FULL_BYTES - PAGE);
	assert_int_equal(apf_trouble_get(w.v.apf, &w.v.error), -ENOSPC);
	assert_non_null(strstr(w.v.error.text, "has no room for 4K more"));
	memset(other, 0x77, sizeof(other));
	assert_int_equal(apf_source_offer(w.source, 0, other, sizeof(other), &taken), 0);
	assert_int_equal(taken, 0);
	assert_int_equal(mount(NULL, folder, NULL, MS_REMOUNT, "size=8m"), 0);
	apf_resume(w.v.apf);
	assert_int_equal(apf_read(w.v.apf, FULL_GPA, all, sizeof(all)), 0);
	memset(other, 0x5a, sizeof(other));
	assert_memory_equal(all, other, sizeof(all));
	apf_close(w.v.apf);
	close(m.fd);
	assert_int_equal(umount2(folder, MNT_DETACH), 0);
	assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
	struct refusal in_user[] = {{APF_FAULTS_USER, 0}, {APF_FAULTS_USER, INTERRUPTS_ON}};
	struct refusal in_kernel[] = {{APF_FAULTS_KERNEL, 0}, {APF_FAULTS_KERNEL, INTERRUPTS_ON}};
	const struct CMUnitTest tests[] = {
		VM_TEST(a_source_that_fails),
		VM_TEST(a_source_that_is_mended),
		VM_TEST(a_source_that_hangs),
		VM_TEST(where_others_wait),
		VM_TEST(a_swap_file_that_is_full),
		VM_TEST(a_part_leaves_a_full_swap_file),
		VM_TEST(a_source_that_writes_to_refused_memory),
		VM_TEST_ARG("refused: user, IF=0", a_page_that_the_host_refuses, &in_user[0]),
		VM_TEST_ARG("refused: user, IF=1", a_page_that_the_host_refuses, &in_user[1]),
		VM_TEST_ARG("refused: kernel, IF=0", a_page_that_the_host_refuses, &in_kernel[0]),
		VM_TEST_ARG("refused: kernel, IF=1", a_page_that_the_host_refuses, &in_kernel[1]),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
