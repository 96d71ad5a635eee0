/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a touch that could not be answered is tried again, of a VM that has another reason to wait
 * for: src/pager/vm.c, on this process's own memory. What is given back is being taken away while
 * its message is unread, so that nothing can be placed, for as long as the test wants.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/time.h"
#include "mem/remote.h"
#include "mem/uffd_abi.h"
#include "pager/internal.h"

#define PAGES 4u
#define BYTES (PAGES * PAGE_BYTES)
/* A source that has failed often is asked again after such a time. */
#define FAR_NS (6400 * NS_PER_MS)
#define SLOW_NS (50 * NS_PER_MS)

struct bed {
	struct pgr *pager;
	struct pgr_image image;
	struct pgr_listener listener;
	struct pgr_vm *vm;
	unsigned char *memory;
	int uffd, peer;
	pthread_t giver;
};

static int make_uffd(void *memory)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE};
	struct uffdio_register reg = {.range = {(uintptr_t)memory, BYTES},
				      .mode = UFFDIO_REGISTER_MODE_MISSING};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &reg) < 0) {
		printf("SKIP: userfaultfd: %m\n");
		exit(77);
	}
	return fd;
}

static void open_bed(struct bed *b)
{
	const struct pgr_cfg cfg = {.handshake_ms = 0};
	struct handshake h = {.count = 1};
	struct err e = {0};
	int pair[2];

	memset(b, 0, sizeof(*b));
	b->memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(b->memory, MAP_FAILED);
	b->uffd = make_uffd(b->memory);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	b->peer = pair[1];
	if (pgr_open(&cfg, &b->pager, &e) < 0)
		fail_msg("%s", e.text);
	b->listener = (struct pgr_listener){.pager = b->pager, .path = "vm", .image = &b->image};
	h.regions[0] = (struct handshake_region){.hva = (uintptr_t)b->memory, .bytes = BYTES,
						 .page_bytes = PAGE_BYTES};
	if (pgr_vm_begin(b->pager, &b->listener, pair[0], b->uffd, &h, &e) < 0)
		fail_msg("%s", e.text);
	b->vm = b->pager->vms;
	b->pager->now_ns = monotonic_ns();
}

static void close_bed(struct bed *b)
{
	pgr_close(b->pager);
	close(b->peer);
	munmap(b->memory, BYTES);
}

static void *give_back(void *arg)
{
	struct bed *b = arg;

	return (void *)(intptr_t)madvise(b->memory + 3 * PAGE_BYTES, PAGE_BYTES, MADV_DONTNEED);
}

/* From now on nothing can be placed, until the message is read. */
static void begin_giving(struct bed *b)
{
	struct pollfd fd = {.fd = b->uffd, .events = POLLIN};

	assert_int_equal(pthread_create(&b->giver, NULL, give_back, b), 0);
	assert_int_equal(poll(&fd, 1, -1), 1);
}

static void end_giving(struct bed *b)
{
	void *ret;

	(void)pgr_vm_serve(b->vm);
	assert_int_equal(pthread_join(b->giver, &ret), 0);
	assert_null(ret);
}

/* Of a page that was given back. */
static void touch(struct bed *b, uint32_t page, uint64_t due_ns)
{
	pgr_set(b->vm->spent, page);
	b->vm->waiting[b->vm->waiting_count++] = (struct pgr_waiting){.page = page,
								      .due_ns = due_ns};
}

/* A fetch that has failed waits for seconds; the touch waits for microseconds of the VM's. */
static void a_timer_that_runs_is_brought_forward(void **state)
{
	struct bed b;

	(void)state;
	open_bed(&b);
	pgr_vm_retry_at(b.vm, b.pager->now_ns + FAR_NS);
	begin_giving(&b);
	touch(&b, 0, 0);
	pgr_vm_settle(b.vm);
	assert_int_equal(b.vm->waiting_count, 1);
	assert_true(timer_armed(&b.vm->retry));
	assert_true(b.vm->retry.due_ns - b.pager->now_ns < SLOW_NS);
	end_giving(&b);
	/* And it does it. */
	b.pager->now_ns = b.vm->retry.due_ns;
	(void)timers_run(&b.pager->timers, b.pager->now_ns);
	assert_int_equal(b.vm->waiting_count, 0);
	assert_int_equal(b.memory[0], 0);
	close_bed(&b);
}

/* Nor does it wait for another touch, which is not to be answered before a while. */
static void each_touch_has_its_time(void **state)
{
	struct bed b;

	(void)state;
	for (unsigned order = 0; order < 2; order++) {
		open_bed(&b);
		begin_giving(&b);
		for (uint32_t i = 0; i < 2; i++)
			touch(&b, i, i == order ? 0 : b.pager->now_ns + SLOW_NS);
		pgr_vm_settle(b.vm);
		assert_int_equal(b.vm->waiting_count, 2);
		assert_true(timer_armed(&b.vm->retry));
		assert_true(b.vm->retry.due_ns - b.pager->now_ns < SLOW_NS);
		end_giving(&b);
		close_bed(&b);
	}
}

/* A VM that can be seen no other way is asked whether it lives, whatever else it waits for. */
static void who_hung_up_is_probed_in_time(void **state)
{
	struct bed b;

	(void)state;
	open_bed(&b);
	pgr_watch_end(b.pager, &b.vm->process);
	pgr_vm_retry_at(b.vm, b.pager->now_ns + FAR_NS);
	pgr_vm_hung_up(b.vm);
	assert_true(b.vm->retry.due_ns - b.pager->now_ns < FAR_NS);
	close_bed(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_timer_that_runs_is_brought_forward),
		cmocka_unit_test(each_touch_has_its_time),
		cmocka_unit_test(who_hung_up_is_probed_in_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
