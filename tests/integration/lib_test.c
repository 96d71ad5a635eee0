/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libasyncpf by its public header alone, as the author of a VMM meets it: wrong uses and
 * what they say, guest memory through apf_read and apf_write, pause and resume.
 */
#include <asyncpf/asyncpf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/internal.h"
#include "need_kvm.h"

#define MIB (1ull << 20)

struct vm {
	int kvm, fd;
	struct apf_config c;
	struct apf *a;
	struct apf_error e;
	char paused[256]; /* text of the last pause */
	int pauses, resumes;
};

static void on_event(void *ctx, const struct apf_event *ev)
{
	struct vm *v = ctx;

	if (ev->kind == APF_EVENT_PAUSED) {
		v->pauses++;
		snprintf(v->paused, sizeof(v->paused), "%s", ev->text);
	} else {
		v->resumes++;
	}
}

static void vm_open(struct vm *v)
{
	memset(v, 0, sizeof(*v));
	v->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	do
		v->fd = ioctl(v->kvm, KVM_CREATE_VM, 0);
	while (v->fd < 0 && errno == EINTR);
	assert_true(v->fd >= 0);
	assert_int_equal(ioctl(v->fd, KVM_CREATE_IRQCHIP, 0), 0);
	apf_config_init(&v->c);
	v->c.on_event = on_event;
	v->c.on_event_ctx = v;
}

static void vm_close(struct vm *v)
{
	apf_close(v->a);
	close(v->fd);
	close(v->kvm);
}

static void says(const struct vm *v, int rc, int code, const char *words)
{
	if (rc != code || !strstr(v->e.text, words))
		print_error("rc %d, text: %s\n", rc, v->e.text);
	assert_int_equal(rc, code);
	assert_int_equal(v->e.code, code);
	assert_non_null(strstr(v->e.text, words));
	assert_null(strchr(v->e.text, '\n'));
}

static void a_wrong_configuration_names_the_member(void **state)
{
	struct vm v;

	(void)state;
	vm_open(&v);
#define WRONG(member, value, words) \
	do { \
		struct apf_config c = v.c; \
		c.member = (value); \
		says(&v, apf_open(v.fd, &c, &v.a, &v.e), -EINVAL, words); \
	} while (0)
	WRONG(size, 8, "apf_config_init");
	WRONG(faults, 9, "faults");
	WRONG(abi, 77, "abi");
	WRONG(vcpus_max, 0, "vcpus_max is 0");
	WRONG(vcpus_max, 1025, "vcpus_max is 1025");
	WRONG(block_bytes, 5000, "block_bytes is 5000");
	WRONG(block_bytes, 4 << 20, "block_bytes is 4194304");
	WRONG(block_bytes, 2048, "block_bytes is 2048");
	WRONG(faults_max, 0, "faults_max is 0");
	WRONG(faults_max, 4097, "faults_max is 4097");
	WRONG(queue_depth, 0, "queue_depth is 0");
	WRONG(retries_max, 1000, "retries_max is 1000");
	WRONG(kick_signal, 2, "kick_signal 2");
	WRONG(kick_signal, SIGRTMAX + 1, "no real-time signal");
	WRONG(retries_max, 201, "above 200");
	WRONG(queue_depth, 4097, "queue_depth is 4097");
	v.c.vcpus_max = 1024;
	WRONG(faults_max, 513, "more than 524288");
#undef WRONG
	assert_null(v.a);
	vm_close(&v);
}

/* The largest value of each is taken. */
static void the_largest_configuration_is_taken(void **state)
{
	struct vm v;

	(void)state;
	vm_open(&v);
#define TAKEN(member, value) \
	do { \
		struct apf_config c = v.c; \
		c.member = (value); \
		if (apf_open(v.fd, &c, &v.a, &v.e) != 0) \
			fail_msg("%s: %s", #member, v.e.text); \
		apf_close(v.a); \
		v.a = NULL; \
	} while (0)
	TAKEN(retries_max, 200);
	TAKEN(kick_signal, SIGRTMIN);
	TAKEN(kick_signal, SIGRTMAX);
	TAKEN(faults_max, 4096);
	TAKEN(faults_max, 1);
	TAKEN(block_bytes, 2 << 20);
	TAKEN(queue_depth, 1);
	TAKEN(queue_depth, 4096);
	v.c.vcpus_max = 1024;
	TAKEN(faults_max, 512);
#undef TAKEN
	vm_close(&v);
}

static void memory_and_sources_say_what_is_wrong(void **state)
{
	struct vm v;

	(void)state;
	vm_open(&v);
	assert_int_equal(apf_open(v.fd, &v.c, &v.a, &v.e), 0);
	says(&v, apf_memory_add(v.a, 0, 100, &v.e), -EINVAL, "not aligned");
	says(&v, apf_memory_add(v.a, 0, 0, &v.e), -EINVAL, "empty");
	says(&v, apf_memory_add(v.a, ~0xfffull, 0x2000, &v.e), -EINVAL, "0xfffffffffffff000");
	assert_int_equal(apf_memory_add(v.a, 0, 2 * MIB, &v.e), 0);
	says(&v, apf_memory_add(v.a, MIB, 4 * MIB, &v.e), -EINVAL, "overlaps");
	says(&v, apf_source_add(v.a, 0, 4096, "tape:x", 0, NULL, &v.e), -EINVAL, "tape");
	says(&v, apf_source_add(v.a, 0, 4096, "file:/nonexistent/x", 0, NULL, &v.e), -ENOENT,
	     "/nonexistent/x");
	says(&v, apf_source_add(v.a, MIB, 4 * MIB, "zero:?size=1M", 0, NULL, &v.e), -EINVAL,
	     "not within guest RAM");
	for (unsigned i = 0; i < 128; i++)
		assert_int_equal(apf_source_add(v.a, MIB + i * 4096ull, 4096,
						"delay+zero:?size=4K&us=1", 0, NULL, &v.e), 0);
	says(&v, apf_source_add(v.a, MIB + 128 * 4096ull, 4096, "delay+zero:?size=4K&us=1", 0, NULL,
				&v.e), -ENOSPC, "too many wrappers");
	assert_int_equal(apf_source_add(v.a, 0, MIB, "zero:?size=1M", 0, NULL, &v.e), 0);
	says(&v, apf_source_add(v.a, 4096, 4096, "zero:?size=1M", 0, NULL, &v.e), -EINVAL,
	     "overlaps");
	/* Known at once: KVM's memslots can be made in any order. */
	assert_non_null(apf_memory_hva(v.a, 0));
	assert_int_equal(apf_start(v.a, &v.e), 0);
	assert_non_null(apf_memory_hva(v.a, 0));
	assert_null(apf_memory_hva(v.a, 2 * MIB));
	says(&v, apf_start(v.a, &v.e), -EBUSY, "twice");
	assert_int_equal(apf_memory_add(v.a, 8 * MIB, 4096, &v.e), 0);
	assert_non_null(apf_memory_hva(v.a, 8 * MIB));
	vm_close(&v);
}

static void reads_and_writes_go_through_residency(void **state)
{
	unsigned char page[3 * 4096], back[3 * 4096];
	char uri[128];
	struct vm v;
	int image = memfd_create("image", MFD_CLOEXEC);

	(void)state;
	for (size_t i = 0; i < sizeof(page); i++)
		page[i] = (unsigned char)(i * 31 + i / 4096);
	assert_int_equal(write(image, page, sizeof(page)), sizeof(page));
	snprintf(uri, sizeof(uri), "delay+file:/proc/self/fd/%d?us=1000", image);
	vm_open(&v);
	assert_int_equal(apf_open(v.fd, &v.c, &v.a, &v.e), 0);
	assert_int_equal(apf_memory_add(v.a, 0, MIB, &v.e), 0);
	assert_int_equal(apf_memory_add(v.a, 1ull << 32, MIB, &v.e), 0);
	/* The source covers more than the file holds: zeroes behind its end. */
	assert_int_equal(apf_source_add(v.a, 1ull << 32, MIB, uri, 0, NULL, &v.e), 0);
	assert_int_equal(apf_start(v.a, &v.e), 0);
	assert_int_equal(apf_read(v.a, (1ull << 32) + 100, back, 2 * 4096), 0);
	assert_memory_equal(back, page + 100, 2 * 4096);
	assert_int_equal(apf_read(v.a, (1ull << 32) + 3 * 4096, back, 4096), 0);
	for (unsigned i = 0; i < 4096; i++)
		assert_int_equal(back[i], 0);
	assert_int_equal(apf_write(v.a, 4000, page, 300), 0); /* over a page's end */
	assert_int_equal(apf_read(v.a, 4000, back, 300), 0);
	assert_memory_equal(back, page, 300);
	/* A write into part of an absent page keeps the rest of the image's. */
	assert_int_equal(apf_write(v.a, (1ull << 32) + 2 * 4096 + 8, "hello", 5), 0);
	assert_int_equal(apf_read(v.a, (1ull << 32) + 2 * 4096, back, 4096), 0);
	assert_memory_equal(back, page + 2 * 4096, 8);
	assert_memory_equal(back + 8, "hello", 5);
	assert_memory_equal(back + 13, page + 2 * 4096 + 13, 4096 - 13);
	/* Not RAM, partly not RAM, wrapping around. */
	assert_int_equal(apf_read(v.a, MIB, back, 1), -EFAULT);
	assert_int_equal(apf_read(v.a, MIB - 4, back, 8), -EFAULT);
	assert_int_equal(apf_read(v.a, UINT64_MAX - 2, back, 8), -EFAULT);
	assert_int_equal(apf_populate(v.a, 0, MIB), 0);
	vm_close(&v);
	close(image);
}

struct reader {
	struct vm *v;
	pthread_t thread;
	int rc;
	unsigned char byte;
};

static void *read_one(void *arg)
{
	struct reader *r = arg;

	r->rc = apf_read(r->v->a, 0, &r->byte, 1);
	return NULL;
}

static void serve(struct vm *v, const char *uri)
{
	vm_open(v);
	v->c.retries_max = 1;
	v->c.source_timeout_ms = 50;
	assert_int_equal(apf_open(v->fd, &v->c, &v->a, &v->e), 0);
	assert_int_equal(apf_memory_add(v->a, 0, MIB, &v->e), 0);
	assert_int_equal(apf_source_add(v->a, 0, MIB, uri, 0, NULL, &v->e), 0);
	assert_int_equal(apf_start(v->a, &v->e), 0);
}

static void until_paused(struct vm *v)
{
	for (unsigned i = 0; i < 10000 && !apf_is_paused(v->a); i++)
		usleep(1000);
	assert_true(apf_is_paused(v->a));
}

static void a_failing_source_pauses_and_resume_goes_on(void **state)
{
	struct reader r = {.rc = 99, .byte = 99};
	struct vm v;

	(void)state;
	/* Read 1 and its one retry fail, the third would not. */
	serve(&v, "fault+zero:?size=1M&fault-error-at=1&fault-error-count=2");
	r.v = &v;
	assert_int_equal(pthread_create(&r.thread, NULL, read_one, &r), 0);
	until_paused(&v);
	assert_int_equal(v.pauses, 1);
	assert_non_null(strstr(v.paused, "guest address 0"));
	assert_non_null(strstr(v.paused, "tried 2 times"));
	assert_int_equal(r.rc, 99);
	apf_resume(v.a);
	pthread_join(r.thread, NULL);
	assert_int_equal(r.rc, 0);
	assert_int_equal(r.byte, 0);
	assert_int_equal(v.resumes, 1);
	assert_false(apf_is_paused(v.a));
	vm_close(&v);
}

static void a_silent_source_pauses_and_a_late_answer_goes_on(void **state)
{
	struct reader r = {.rc = 99};
	struct vm v;

	(void)state;
	serve(&v, "fault+zero:?size=1M&fault-hang-at=1&fault-hang-ms=200");
	r.v = &v;
	assert_int_equal(pthread_create(&r.thread, NULL, read_one, &r), 0);
	until_paused(&v);
	assert_non_null(strstr(v.paused, "has not answered for 50 ms"));
	pthread_join(r.thread, NULL); /* by itself */
	assert_int_equal(r.rc, 0);
	assert_int_equal(v.resumes, 1);
	vm_close(&v);
}

static void resume_asks_a_silent_source_again(void **state)
{
	struct reader r = {.rc = 99};
	struct vm v;

	(void)state;
	serve(&v, "fault+zero:?size=1M&fault-hang-at=1");
	r.v = &v;
	assert_int_equal(pthread_create(&r.thread, NULL, read_one, &r), 0);
	until_paused(&v);
	apf_resume(v.a);
	pthread_join(r.thread, NULL);
	assert_int_equal(r.rc, 0);
	vm_close(&v);
}

static void close_with_a_read_that_never_ends(void **state)
{
	struct vm v;
	struct apf_stats s = {.size = sizeof(s)};
	struct reader r = {.v = &v, .rc = 99};

	(void)state;
	serve(&v, "fault+zero:?size=1M&fault-hang-after=0");
	assert_int_equal(pthread_create(&r.thread, NULL, read_one, &r), 0);
	until_paused(&v);
	apf_stats_get(v.a, &s);
	assert_int_equal(s.reads, 1);
	assert_int_equal(s.read_timeouts, 1);
	/* A reader is in the library while it closes: it is told to leave, and is awaited. */
	vm_close(&v);
	pthread_join(r.thread, NULL);
	assert_int_equal(r.rc, -EINTR);
}

/* As docs/abi.md has it, and nothing where it would not be true. */
static void pf2_has_leaves_of_its_own(void **state)
{
	static const struct {
		int abi, faults;
		uint32_t revisions; /* 0: no leaf */
	} rows[] = {
		{APF_ABI_PF2, APF_FAULTS_USER, 1},	{APF_ABI_PF2_STRICT, APF_FAULTS_USER, 2},
		{APF_ABI_LEGACY, APF_FAULTS_USER, 0},	{APF_ABI_INT, APF_FAULTS_USER, 0},
		{APF_ABI_PF2, APF_FAULTS_STALL, 0},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint32_t r[4] = {9, 9, 9, 9};
		struct vm v;

		vm_open(&v);
		v.c.abi = rows[i].abi;
		v.c.faults = rows[i].faults;
		assert_int_equal(apf_open(v.fd, &v.c, &v.a, &v.e), 0);
		if (rows[i].revisions) {
			assert_int_equal(apf_cpuid_leaf(v.a, 0x40000300, r), 0);
			assert_int_equal(r[0], 0x40000301);
			assert_memory_equal(&r[1], "asyncpf pf2", 12);
			assert_int_equal(apf_cpuid_leaf(v.a, 0x40000301, r), 0);
			assert_int_equal(r[0], rows[i].revisions);
			assert_int_equal(r[1] | r[2] | r[3], 0);
			assert_int_equal(apf_cpuid_features(v.a, 0) & 0x4410, 0x10);
		} else {
			assert_int_equal(apf_cpuid_leaf(v.a, 0x40000300, r), -ENOENT);
		}
		assert_int_equal(apf_cpuid_leaf(v.a, 0x40000302, r), -ENOENT);
		assert_int_equal(apf_cpuid_leaf(v.a, 0x40000000, r), -ENOENT);
		vm_close(&v);
	}
}

/* What a guest is told in each way of serving, and what it keeps of KVM's own features. */
static void features_are_those_of_the_way(void **state)
{
	static const uint32_t apf = 1u << 4 | 1u << 10 | 1u << 14, unhalt = 1u << 7;
	static const struct {
		int abi, faults;
		uint32_t eax; /* of all ones, in these bits */
	} rows[] = {
		{APF_ABI_INT, APF_FAULTS_STALL, 0},
		{APF_ABI_PF2, APF_FAULTS_STALL, 0},
		{APF_ABI_INT, APF_FAULTS_BLOCK, 1u << 7},
		{APF_ABI_INT, APF_FAULTS_KERNEL, 1u << 4 | 1u << 7 | 1u << 10 | 1u << 14},
		{APF_ABI_INT, APF_FAULTS_USER, 1u << 4 | 1u << 14},
		{APF_ABI_LEGACY, APF_FAULTS_USER, 1u << 4},
		{APF_ABI_PF2, APF_FAULTS_USER, 1u << 4},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct vm v;

		vm_open(&v);
		v.c.abi = rows[i].abi;
		v.c.faults = rows[i].faults;
		assert_int_equal(apf_open(v.fd, &v.c, &v.a, &v.e), 0);
		assert_int_equal(apf_cpuid_features(v.a, UINT32_MAX),
				 (UINT32_MAX & ~(apf | unhalt)) | rows[i].eax);
		/* Nothing is announced that KVM does not have, but what is ours. */
		assert_int_equal(apf_cpuid_features(v.a, 0),
				 rows[i].faults == APF_FAULTS_USER ? rows[i].eax : 0);
		vm_close(&v);
	}
}

/* In the struct of the first header, member by member. */
static void is_told(const struct apf_stats *s, const struct apf_counters *c)
{
#define SAME(member, counter) \
	if (s->member != c->counter) \
		fail_msg("%s: %llu", #member, (unsigned long long)s->member)
	SAME(bytes, memory_bytes);
	SAME(bytes_present, present_bytes);
	SAME(faults, faults_total);
	SAME(redundant, redundant);
	SAME(joined, joined);
	SAME(graced, graced);
	SAME(blocked, blocked);
	SAME(missing_events, missing_events);
	SAME(ready_events, ready_events);
	SAME(wake_alls, wake_alls);
	SAME(stalls, stalls);
	SAME(stalls_other, stalls_other);
	SAME(ready_refused, ready_refused);
	SAME(rechecks, rechecks);
	SAME(host_wait_ns, host_wait_ns);
	SAME(reads, reads);
	SAME(read_errors, read_errors);
	SAME(retries, read_retries);
	SAME(read_timeouts, read_timeouts);
	SAME(bytes_read, read_bytes);
	SAME(overhead_bytes, overhead_bytes);
	SAME(wait_us_p50, wait_p50_ns / 1000);
	SAME(wait_us_p99, wait_p99_ns / 1000);
	SAME(wait_us_max, wait_max_ns / 1000);
	SAME(bytes_resident, resident_bytes);
	SAME(unmapped, unmapped);
	SAME(unmapped_clean, unmapped_clean);
	SAME(unmapped_zero, unmapped_zero);
	SAME(swapped, swapped);
	SAME(rescued, rescued);
	SAME(evicted, evicted);
	SAME(refaulted, refaulted);
	SAME(refaults_kernel_mode, refaults_kernel_mode);
	SAME(read_ahead, read_ahead);
	SAME(swap_writes, swap_writes);
	SAME(swap_write_errors, swap_write_errors);
	SAME(stall_ns_kernel_mode, stall_kernel_mode_ns);
	SAME(stall_ns_other, stall_other_ns);
	SAME(holds, holds);
	SAME(hold_ns, hold_ns);
	SAME(hold_ns_max, hold_max_ns);
#undef SAME
}

/*
 * Each value has its own place, in the table and in the structs of the first header; what the VM
 * and its vCPUs counted is added up, and of peaks the highest is told. No guest runs: the values
 * are put where the driver counts.
 */
static void every_statistic_is_told_as_itself(void **state)
{
	struct apf_vcpu_stats vs = {.size = sizeof(vs)};
	struct apf_stats s = {.size = sizeof(s)};
	struct apf_counters c, vc;
	uint64_t *of[3], *sum = (uint64_t *)&c;
	struct vm v;

	(void)state;
	vm_open(&v);
	v.c.vcpus_max = 2;
	assert_int_equal(apf_open(v.fd, &v.c, &v.a, &v.e), 0);
	assert_int_equal(apf_memory_add(v.a, 0, MIB, &v.e), 0);
	assert_int_equal(apf_start(v.a, &v.e), 0);
	lib_lock(v.a);
	of[0] = (uint64_t *)&v.a->hst.stats.all;
	of[1] = (uint64_t *)&v.a->hst.vcpus[0].stats.all;
	of[2] = (uint64_t *)&v.a->hst.vcpus[1].stats.all;
	for (unsigned i = 0; i < APF_COUNTER_IDS; i++) {
		const struct apf_counter_row *row = apf_counter_info(i);

		for (unsigned k = 0; k < 3 && row->kind != APF_KIND_GAUGE; k++)
			of[k][i] = (k + 1) * 1000000ull + 1000 * (i + 1);
	}
	lib_unlock(v.a);
	apf_counters_get(v.a, &c, sizeof(c));
	for (unsigned i = 0; i < APF_COUNTER_IDS; i++) {
		const struct apf_counter_row *row = apf_counter_info(i);

		/* Worked out of others, or counted by the sources' wrappers. */
		if (row->kind == APF_KIND_GAUGE || strncmp(row->name, "stalls_", 7) == 0 ||
		    strncmp(row->name, "cache_", 6) == 0 || strncmp(row->name, "source_", 7) == 0)
			continue;
		if (sum[i] != (row->kind == APF_KIND_PEAK ? 3000000 : 6000000) +
			      (row->kind == APF_KIND_PEAK ? 1000 : 3000) * (i + 1))
			fail_msg("%s is %llu", row->name, (unsigned long long)sum[i]);
	}
	assert_int_equal(c.memory_bytes, MIB);
	assert_int_equal(c.absent_bytes, MIB - c.resident_bytes);
	apf_stats_get(v.a, &s);
	is_told(&s, &c);
	apf_vcpu_counters_get(&v.a->vcpus[1], &vc, sizeof(vc));
	apf_vcpu_stats_get(&v.a->vcpus[1], &vs);
	assert_int_equal(vc.faults_total, of[2][APF_COUNTER_ID_faults_total]);
	assert_int_equal(vs.faults, vc.faults_total);
	assert_int_equal(vs.missing_events, vc.missing_events);
	assert_int_equal(vs.ready_events, vc.ready_events);
	assert_int_equal(vs.wake_alls, vc.wake_alls);
	assert_int_equal(vs.stalls, vc.stalls);
	assert_int_equal(vs.host_wait_ns, vc.host_wait_ns);
	assert_int_equal(vs.outstanding, 0);
	vm_close(&v);
}

/* The library's own memory for them is told, also when many parts need more tables. */
static void many_parts_take_more_memory(void **state)
{
	uint64_t step = 0;
	struct vm v;

	(void)state;
	vm_open(&v);
	assert_int_equal(apf_open(v.fd, &v.c, &v.a, &v.e), 0);
	for (uint64_t i = 0; !v.a->ram_tables; i++) {
		struct apf_counters before, after;

		assert_true(i < 1024);
		apf_counters_get(v.a, &before, sizeof(before));
		assert_int_equal(apf_memory_add(v.a, 2 * MIB * i, 2 * MIB, &v.e), 0);
		apf_counters_get(v.a, &after, sizeof(after));
		if (v.a->ram_tables)
			assert_int_equal(after.overhead_bytes - before.overhead_bytes,
					 step + sizeof(*v.a->ram_tables));
		step = after.overhead_bytes - before.overhead_bytes;
		assert_true(step > 0);
	}
	vm_close(&v);
}

/* Every register of the VMM's that a migration has to carry, in the order of restoring. */
static void the_list_of_registers_is_whole(void **state)
{
	static const uint32_t want[] = {0x4b564d00, 0x4b564d01, 0x4b564d03, 0x4b564d04,
					0x4b564d06, 0x4b564d02};
	unsigned count;
	struct vm v;

	(void)state;
	vm_open(&v);
	assert_int_equal(apf_open(v.fd, &v.c, &v.a, &v.e), 0);
	const uint32_t *list = apf_vcpu_msr_list(v.a, &count);

	assert_int_equal(count, sizeof(want) / sizeof(want[0]));
	assert_memory_equal(list, want, sizeof(want));
	vm_close(&v);
}

static const struct kvm_cpuid_entry2 *leaf_of(const struct kvm_cpuid2 *c, uint32_t leaf)
{
	const struct kvm_cpuid_entry2 *found = NULL;

	for (unsigned i = 0; i < c->nent; i++) {
		assert_false(found && c->entries[i].function == leaf);
		if (c->entries[i].function == leaf)
			found = &c->entries[i];
	}
	assert_non_null(found);
	return found;
}

/* From what KVM offers, and from a VMM's own list that has nothing of KVM's. */
static void one_call_fills_the_cpuid(void **state)
{
	struct {
		struct kvm_cpuid2 c;
		struct kvm_cpuid_entry2 entries[8];
	} x = {.c = {.nent = 1}};
	struct vm v;

	(void)state;
	vm_open(&v);
	v.c.abi = APF_ABI_PF2;
	assert_int_equal(apf_open(v.fd, &v.c, &v.a, &v.e), 0);
	x.c.entries[0] = (struct kvm_cpuid_entry2){.function = 1};
	assert_int_equal(apf_cpuid_fill(v.a, &x.c, 8), 0);
	assert_int_equal(leaf_of(&x.c, 1)->ecx, 1u << 31);
	assert_memory_equal(&leaf_of(&x.c, 0x40000000)->ebx, "KVMKVMKVM\0\0", 12);
	assert_true(leaf_of(&x.c, 0x40000000)->eax >= 0x40000001);
	assert_int_equal(leaf_of(&x.c, 0x40000001)->eax, 0x10);
	assert_memory_equal(&leaf_of(&x.c, 0x40000300)->ebx, "asyncpf pf2", 12);
	assert_int_equal(leaf_of(&x.c, 0x40000301)->eax, 1);
	assert_int_equal(x.c.nent, 5);
	/* Again, it changes nothing. */
	x.c.entries[4].eax = 77;
	assert_int_equal(apf_cpuid_fill(v.a, &x.c, 5), 0);
	assert_int_equal(leaf_of(&x.c, 0x40000301)->eax, 1);
	x.c.nent = 1;
	assert_int_equal(apf_cpuid_fill(v.a, &x.c, 4), -E2BIG);
	vm_close(&v);
}

static struct kvm_cpuid_entry2 signed_leaf(uint32_t leaf, uint32_t last, const char *signature)
{
	struct kvm_cpuid_entry2 e = {.function = leaf, .eax = last};

	memcpy(&e.ebx, signature, 4);
	memcpy(&e.ecx, signature + 4, 4);
	memcpy(&e.edx, signature + 8, 4);
	return e;
}

/* KVM's leaves behind another's: they are there, or have to be added. */
static void another_hypervisors_cpuid_stays(void **state)
{
	(void)state;
	for (unsigned there = 0; there < 2; there++) {
		struct {
			struct kvm_cpuid2 c;
			struct kvm_cpuid_entry2 entries[8];
		} x = {.c = {.nent = 2 + 2 * there}};
		const uint32_t apf = 1u << 4 | 1u << 10 | 1u << 14;
		struct kvm_cpuid_entry2 *e = x.c.entries;
		struct vm v;

		vm_open(&v);
		v.c.abi = APF_ABI_LEGACY;
		assert_int_equal(apf_open(v.fd, &v.c, &v.a, &v.e), 0);
		e[0] = signed_leaf(0x40000000, 0x40000082, "Microsoft Hv");
		e[1] = (struct kvm_cpuid_entry2){.function = 0x40000001, .eax = 0x31237648};
		e[2] = signed_leaf(0x40000100, 0x40000101, "KVMKVMKVM\0\0");
		e[3] = (struct kvm_cpuid_entry2){.function = 0x40000101, .eax = 1 | apf};
		for (unsigned again = 0; again < 2; again++)
			assert_int_equal(apf_cpuid_fill(v.a, &x.c, 4), 0);
		assert_int_equal(x.c.nent, 4);
		assert_int_equal(leaf_of(&x.c, 0x40000000)->eax, 0x40000082);
		assert_memory_equal(&leaf_of(&x.c, 0x40000000)->ebx, "Microsoft Hv", 12);
		assert_int_equal(leaf_of(&x.c, 0x40000001)->eax, 0x31237648);
		assert_int_equal(leaf_of(&x.c, 0x40000100)->eax, 0x40000101);
		assert_memory_equal(&leaf_of(&x.c, 0x40000100)->ebx, "KVMKVMKVM\0\0", 12);
		assert_int_equal(leaf_of(&x.c, 0x40000101)->eax, there | 1u << 4);
		vm_close(&v);
	}
}

static void vcpus_are_checked(void **state)
{
	struct apf_vcpu *vcpu;
	struct kvm_run *run;
	struct vm v;

	(void)state;
	vm_open(&v);
	assert_int_equal(apf_open(v.fd, &v.c, &v.a, &v.e), 0);
	int fd = ioctl(v.fd, KVM_CREATE_VCPU, 0);
	size_t bytes = (size_t)ioctl(v.kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

	run = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(run, MAP_FAILED);
	/* vCPUs and memory may come in any order; only the guest has to wait. */
	assert_int_equal(apf_vcpu_attach(v.a, 0, fd, run, 0, &vcpu, &v.e), 0);
	assert_int_equal(apf_vcpu_run(vcpu), -EINVAL);
	apf_vcpu_detach(vcpu);
	assert_int_equal(apf_memory_add(v.a, 0, MIB, &v.e), 0);
	assert_int_equal(apf_start(v.a, &v.e), 0);
	says(&v, apf_vcpu_attach(v.a, 1, fd, run, 0, &vcpu, &v.e), -EINVAL, "vcpus_max is 1");
	says(&v, apf_vcpu_attach(v.a, 0, fd, run, 255, &vcpu, &v.e), -EINVAL, "APIC id 255");
	assert_int_equal(apf_vcpu_attach(v.a, 0, fd, run, 0, &vcpu, &v.e), 0);
	/*
	 * int announces bits 4 and 14, and takes PV_UNHALT (7) and exits of L2 for a page missing
	 * (10) out, which the host's kernel may have; the rest is the host's.
	 */
	uint32_t leaf[4];

	assert_int_equal(apf_cpuid_features(v.a, 0x01000489), 0x01004019);
	assert_int_equal(apf_cpuid_leaf(v.a, APF_CPUID_FIRST, leaf), -ENOENT); /* pf2's alone */
	says(&v, apf_vcpu_attach(v.a, 0, fd, run, 0, &vcpu, &v.e), -EBUSY, "attached already");
	/* The registers, as a VMM restores them. */
	uint64_t value = 1;

	assert_int_equal(apf_vcpu_set_msr(vcpu, 0x4b564d06, 0xf3), 0);
	assert_int_equal(apf_vcpu_set_msr(vcpu, 0x4b564d06, 0x1f3), -EINVAL);
	assert_int_equal(apf_vcpu_set_msr(vcpu, 0x4b564d02, 0x1000 | 9), 0);
	assert_int_equal(apf_vcpu_set_msr(vcpu, 0x4b564d02, 16 * MIB | 9), -EINVAL);
	assert_int_equal(apf_vcpu_get_msr(vcpu, 0x4b564d02, &value), 0);
	assert_int_equal(value, 0x1009);
	assert_int_equal(apf_vcpu_get_msr(vcpu, 0x4b564d07, &value), 0);
	assert_int_equal(value, 0);
	assert_int_equal(apf_vcpu_get_msr(vcpu, 0x10, &value), -EINVAL);
	assert_int_equal(apf_vcpu_restore(vcpu, "garbage", 7), -EINVAL);
	/* A kick that comes before the run is not lost. */
	apf_vcpu_kick(vcpu);
	assert_int_equal(apf_vcpu_run(vcpu), -EINTR);
	munmap(run, bytes);
	close(fd);
	vm_close(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_wrong_configuration_names_the_member),
		cmocka_unit_test(memory_and_sources_say_what_is_wrong),
		cmocka_unit_test(reads_and_writes_go_through_residency),
		cmocka_unit_test(a_failing_source_pauses_and_resume_goes_on),
		cmocka_unit_test(a_silent_source_pauses_and_a_late_answer_goes_on),
		cmocka_unit_test(resume_asks_a_silent_source_again),
		cmocka_unit_test(close_with_a_read_that_never_ends),
		cmocka_unit_test(the_largest_configuration_is_taken),
		cmocka_unit_test(pf2_has_leaves_of_its_own),
		cmocka_unit_test(features_are_those_of_the_way),
		cmocka_unit_test(the_list_of_registers_is_whole),
		cmocka_unit_test(many_parts_take_more_memory),
		cmocka_unit_test(every_statistic_is_told_as_itself),
		cmocka_unit_test(one_call_fills_the_cpuid),
		cmocka_unit_test(another_hypervisors_cpuid_stays),
		cmocka_unit_test(vcpus_are_checked),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
