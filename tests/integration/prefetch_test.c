/* SPDX-License-Identifier: Apache-2.0 */
/*
 * apf_prefetch and apf_fill: what a list names is there when the guest touches it, which takes no
 * read then; and a VM that is filled does without its source and without userfaultfd.
 */
#include "vm_fixture.h"
#include "need_kvm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define RAM (16u << 20)
#define PAGES (RAM / PAGE)
#define STEP (1u << 18)
#define FIRST (2u << 20)
#define TOUCHED ((RAM - FIRST) / STEP)
#define WAIT_S 20

/* With a source behind the first `bytes`. */
static int begin_with(struct vm *v, struct apf_memory *m, uint64_t bytes)
{
	char uri[64];
	int image = vm_numbered_image(RAM, uri, sizeof(uri));

	vm_open(v);
	v->config.faults = APF_FAULTS_STALL;
	apf_memory_init(m);
	m->bytes = RAM;
	m->fd = memfd_create("ram", MFD_CLOEXEC);
	assert_true(m->fd >= 0 && ftruncate(m->fd, RAM) == 0);
	m->vmm = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
	assert_ptr_not_equal(m->vmm, MAP_FAILED);
	if (apf_open(v->fd, &v->config, &v->apf, &v->error) < 0 ||
	    apf_memory_adopt(v->apf, m, &v->error) < 0 ||
	    apf_source_add(v->apf, 0, bytes, uri, 0, NULL, &v->error) < 0)
		fail_msg("%s", v->error.text);
	assert_int_equal(apf_prefetch(v->apf, NULL, 0), -EINVAL);
	assert_int_equal(apf_fill(v->apf), -EINVAL);
	assert_int_equal(apf_start(v->apf, &v->error), 0);
	return image;
}

static int begin(struct vm *v, struct apf_memory *m)
{
	return begin_with(v, m, RAM);
}

static void end(struct vm *v, struct apf_memory *m, int image)
{
	apf_close(v->apf);
	munmap(m->vmm, RAM);
	close(m->fd);
	close(image);
}

static uint64_t counter(struct vm *v, enum apf_counter_id id)
{
	uint64_t all[APF_COUNTER_IDS];

	apf_counters_get(v->apf, all, sizeof(all));
	return all[id];
}

static void wait_until(struct vm *v, enum apf_counter_id id, uint64_t least)
{
	const struct timespec moment = {.tv_nsec = 1000000};

	for (unsigned ms = 0; counter(v, id) < least; ms++) {
		if (ms == WAIT_S * 1000)
			fail_msg("counter %d is %llu and not %llu", (int)id,
				 (unsigned long long)counter(v, id), (unsigned long long)least);
		nanosleep(&moment, NULL);
	}
}

/* The guest adds up the first word of a page in each step. */
static void walk(struct vm *v)
{
	uint32_t sum = 0;

	vm_tables(v);
	vm_slot(v, 0, 0, RAM, 0);
	vm_vcpu(v);
	VM_USER(v, 0xbb, 0x00, 0x00, 0x20, 0x00, /*         mov ebx, FIRST      */
		0x31, 0xff,                      /*         xor edi, edi        */
		0x03, 0x3b,                      /* again:  add edi, [rbx]      */
		0x81, 0xc3, 0x00, 0x00, 0x04, 0x00, /*      add ebx, STEP       */
		0x81, 0xfb, 0x00, 0x00, 0x00, 0x01, /*      cmp ebx, RAM        */
		0x72, 0xf0,                         /*      jb again            */
		0x89, 0x3c, 0x25, 0x00, 0x80, 0x00, 0x00, /* mov [VM_WORD], edi */
		0xe6, VM_PORT);
	vm_until_exit(v, KVM_EXIT_IO);
	for (uint32_t at = FIRST; at < RAM; at += STEP)
		sum += at / PAGE;
	assert_int_equal(vm_word(v), sum);
}

static void what_a_list_names_takes_no_read(void **state)
{
	struct apf_range list[TOUCHED + 1];
	struct apf_memory m;
	struct vm v;
	uint64_t reads;
	int image = begin(&v, &m);

	(void)state;
	for (unsigned i = 0; i < TOUCHED; i++)
		list[i] = (struct apf_range){.gpa = RAM - (i + 1) * STEP, .len = PAGE};
	/* One that nobody will touch. */
	list[TOUCHED] = (struct apf_range){.gpa = FIRST + PAGE, .len = 1};
	assert_int_equal(apf_prefetch(v.apf, list, TOUCHED + 1), 0);
	wait_until(&v, APF_COUNTER_ID_read_bytes, (TOUCHED + 1) * PAGE);
	assert_int_equal(counter(&v, APF_COUNTER_ID_prefetched), TOUCHED + 1);
	reads = counter(&v, APF_COUNTER_ID_reads);
	walk(&v);
	/* The rest is what the fixture loads: tables, code. */
	assert_in_range(counter(&v, APF_COUNTER_ID_reads) - reads, 1, 8);
	assert_int_equal(counter(&v, APF_COUNTER_ID_prefetched_used), TOUCHED);
	assert_int_equal(counter(&v, APF_COUNTER_ID_prefetched_late), 0);
	assert_int_equal(counter(&v, APF_COUNTER_ID_prefetched_unused), 1);
	end(&v, &m, image);
}

/* A range takes the blocks that it touches, wherever in them it begins and ends. */
static void a_range_of_parts_of_blocks(void **state)
{
	const struct apf_range list[] = {
		{.gpa = FIRST, .len = PAGE},                      /* one block, and not the next */
		{.gpa = FIRST + 4 * PAGE + PAGE / 2, .len = PAGE}, /* halves of two */
		{.gpa = FIRST + 8 * PAGE + 1, .len = PAGE - 1},    /* one but for its first byte */
		{.gpa = FIRST + 12 * PAGE - 1, .len = 2},          /* a byte of each of two */
	};
	struct apf_memory m;
	struct vm v;
	int image = begin(&v, &m);

	(void)state;
	assert_int_equal(apf_prefetch(v.apf, list, 4), 0);
	wait_until(&v, APF_COUNTER_ID_prefetched, 6);
	wait_until(&v, APF_COUNTER_ID_read_bytes, 6 * PAGE);
	assert_int_equal(counter(&v, APF_COUNTER_ID_prefetched), 6);
	assert_int_equal(apf_prefetch(v.apf, NULL, 0), 0);
	assert_int_equal(counter(&v, APF_COUNTER_ID_read_bytes), 6 * PAGE);
	end(&v, &m, image);
}

static void no_list_of_what_is_no_ram(void **state)
{
	struct apf_range bad[] = {
		{.gpa = FIRST, .len = PAGE},
		{.gpa = RAM - PAGE, .len = 2 * PAGE},
	};
	struct apf_memory m;
	struct vm v;
	int image = begin(&v, &m);

	(void)state;
	assert_int_equal(apf_prefetch(v.apf, bad, 2), -EFAULT);
	bad[1] = (struct apf_range){.gpa = UINT64_MAX - PAGE, .len = 3 * PAGE};
	assert_int_equal(apf_prefetch(v.apf, bad, 2), -EFAULT);
	assert_int_equal(apf_prefetch(v.apf, NULL, 0), 0);
	assert_int_equal(counter(&v, APF_COUNTER_ID_prefetched), 0);
	end(&v, &m, image);
}

/* Whether the mapping at an address is registered with userfaultfd: "um" or "ui" in smaps. */
static bool is_watched(const void *at)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	char line[4096];
	bool here = false, watched = false;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long from, to;

		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			here = from <= (uintptr_t)at && (uintptr_t)at < to;
		else if (here && strncmp(line, "VmFlags:", 8) == 0)
			watched = strstr(line, " um") || strstr(line, " ui");
	}
	(void)fclose(f);
	return watched;
}

/* Descriptors of the file that `image` is. */
static unsigned opened(int image)
{
	char want[64], path[64], is[64];
	unsigned n = 0;
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", image);
	len = readlink(path, want, sizeof(want));
	assert_true(len > 0);
	for (int fd = 3; fd < 256; fd++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n += readlink(path, is, sizeof(is)) == len && memcmp(is, want, (size_t)len) == 0;
	}
	return n;
}

static void wait_until_let_go(int image)
{
	const struct timespec moment = {.tv_nsec = 1000000};

	for (unsigned ms = 0; opened(image) > 1; ms++) {
		if (ms == WAIT_S * 1000)
			fail_msg("the source is still open");
		nanosleep(&moment, NULL);
	}
}

static void a_filled_vm_has_neither_source_nor_userfaultfd(void **state)
{
	const struct apf_range list = {.gpa = FIRST, .len = 64 * PAGE};
	struct apf_memory m;
	struct vm v;
	uint64_t reads;
	uint32_t word;
	int image = begin(&v, &m);

	(void)state;
	assert_true(is_watched(apf_memory_hva(v.apf, FIRST)) && is_watched(m.vmm));
	assert_int_equal(opened(image), 2);
	assert_int_equal(apf_prefetch(v.apf, &list, 1), 0);
	assert_int_equal(apf_fill(v.apf), 0);
	wait_until_let_go(image);
	assert_false(is_watched(apf_memory_hva(v.apf, FIRST)) || is_watched(m.vmm));
	reads = counter(&v, APF_COUNTER_ID_reads);
	assert_int_equal(reads, PAGES);
	/* It is not asked for anything any more, whoever touches what. */
	assert_int_equal(ftruncate(image, 0), 0);
	walk(&v);
	for (uint32_t page = 0; page < PAGES; page++) {
		assert_int_equal(apf_read(v.apf, page * PAGE, &word, sizeof(word)), 0);
		if (page * PAGE >= FIRST) {
			assert_int_equal(word, page);
			assert_int_equal(*(uint32_t *)((char *)m.vmm + page * PAGE), page);
		}
	}
	assert_int_equal(counter(&v, APF_COUNTER_ID_reads), reads);
	/* What is given back is zeroes, and memory again when it is written to. */
	assert_int_equal(apf_discard(v.apf, FIRST, PAGE), 0);
	assert_int_equal(apf_read(v.apf, FIRST, &word, sizeof(word)), 0);
	assert_int_equal(word, 0);
	word = 77;
	assert_int_equal(apf_write(v.apf, FIRST, &word, sizeof(word)), 0);
	assert_int_equal(*(uint32_t *)((char *)m.vmm + FIRST), 77);
	end(&v, &m, image);
}

/* Its page is marked in the guest's view, which only userfaultfd can end. */
static void what_was_discarded_keeps_userfaultfd(void **state)
{
	struct apf_memory m;
	struct vm v;
	int image = begin(&v, &m);

	(void)state;
	assert_int_equal(apf_discard(v.apf, FIRST + PAGE, PAGE), 0);
	assert_int_equal(apf_fill(v.apf), 0);
	wait_until_let_go(image);
	assert_true(is_watched(apf_memory_hva(v.apf, FIRST)));
	walk(&v);
	end(&v, &m, image);
}

static void must_be(struct vm *v, const struct apf_memory *m, uint64_t at, uint32_t want)
{
	uint32_t word = UINT32_MAX;

	assert_int_equal(apf_read(v->apf, at, &word, sizeof(word)), 0);
	assert_int_equal(word, want);
	assert_int_equal(*(uint32_t *)((char *)m->vmm + at), want);
}

/* A source that comes later has the rest of its part watched as well, in both views. */
static void a_source_after_the_end_is_served(void **state)
{
	const uint64_t later = 8u << 20, bare = 12u << 20;
	char uri[64];
	struct apf_memory m;
	struct vm v;
	int image = begin_with(&v, &m, FIRST), second;

	(void)state;
	assert_int_equal(apf_fill(v.apf), 0);
	wait_until_let_go(image);
	assert_false(is_watched(apf_memory_hva(v.apf, bare)) || is_watched(m.vmm));
	second = vm_numbered_image(RAM, uri, sizeof(uri));
	assert_int_equal(apf_source_add(v.apf, later, FIRST, uri, later, NULL, &v.error), 0);
	assert_true(is_watched(apf_memory_hva(v.apf, bare)) &&
		    is_watched((char *)m.vmm + bare));
	must_be(&v, &m, later, (uint32_t)(later / PAGE));
	must_be(&v, &m, bare, 0);
	assert_int_equal(apf_populate(v.apf, bare + PAGE, PAGE), 0);
	assert_int_equal(apf_write(v.apf, bare + 2 * PAGE, &(uint32_t){77}, 4), 0);
	must_be(&v, &m, bare + 2 * PAGE, 77);
	assert_int_equal(apf_discard(v.apf, bare + 2 * PAGE, PAGE), 0);
	must_be(&v, &m, bare + 2 * PAGE, 0);
	must_be(&v, &m, FIRST - PAGE, FIRST / PAGE - 1);
	end(&v, &m, image);
	close(second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_a_list_names_takes_no_read),
		cmocka_unit_test(a_range_of_parts_of_blocks),
		cmocka_unit_test(no_list_of_what_is_no_ram),
		cmocka_unit_test(a_filled_vm_has_neither_source_nor_userfaultfd),
		cmocka_unit_test(a_source_after_the_end_is_served),
		cmocka_unit_test(what_was_discarded_keeps_userfaultfd),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
