/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices on the VMM's view of a VM's memory: rings, requests and data in absent memory are waited
 * for, nothing around them is lost, and who waits for ever ends with the VM, without an answer.
 */
#include "bare_fixture.h"
#include "need_kvm.h"

#include <sched.h>
#include <stdio.h>

#include "virtio_fixture.h"
#include "vmm/memory/guest_ram.h"
#include "vmm/virtio/virtio_balloon.h"
#include "vmm/virtio/virtio_blk.h"
#include "vmm/virtio/virtio_rng.h"

/* Of the fixture's RAM the upper half has a source, the lower one none. */
#define SOURCE_GPA 0x80000u
#define SOURCE_BYTES 0x80000u
#define DISK_BYTES 0x10000u
#define HEADER (SOURCE_GPA + 0x800)
#define DATA (SOURCE_GPA + 0x10000)
#define STATUS 0x9100u
#define NOTHING 0x77
#define ON_DISK 0x5a

enum { T_IN, T_OUT };

struct world {
	struct vx x;
	int vm, fd;
	char path[64];
	struct apf *a;
	struct blk_file file;
	struct virtio_blk blk;
	struct virtio_rng rng;
	struct virtio_balloon balloon;
};

static unsigned char content(uint64_t gpa)
{
	return (unsigned char)(gpa / 512 * 7 + gpa + 1);
}

/* A source of that content; late answers. */
static int source_file(char uri[80])
{
	int fd = memfd_create("source", MFD_CLOEXEC);
	unsigned char page[PAGE_BYTES];

	assert_true(fd >= 0);
	for (uint64_t at = 0; at < SOURCE_BYTES; at += PAGE_BYTES) {
		for (uint64_t i = 0; i < PAGE_BYTES; i++)
			page[i] = content(SOURCE_GPA + at + i);
		assert_int_equal(pwrite(fd, page, PAGE_BYTES, (off_t)at), PAGE_BYTES);
	}
	snprintf(uri, 80, "delay+file:/proc/self/fd/%d?us=2000", fd);
	return fd;
}

/* swap: a path, or NULL. */
static void open_swapped_memory(struct world *w, const char *uri, const char *swap)
{
	struct apf_config c;
	struct err e;

	memset(w, 0, sizeof(*w));
	w->vm = open_vm();
	w->x.mem.low_bytes = VX_LOW_BYTES;
	bus_init(&w->x.bus);
	apf_config_init(&c);
	c.swap = swap;
	guest_ram_config(&w->x.mem, &c);
	if (apf_open(w->vm, &c, &w->a, &error) < 0)
		fail_msg("%s", error.text);
	if (guest_ram_open(&w->x.mem, w->a, w->vm, &e) < 0)
		fail_msg("%s", e.text);
	if (apf_source_add(w->a, SOURCE_GPA, SOURCE_BYTES, uri, 0, NULL, &error) < 0 ||
	    apf_start(w->a, &error) < 0)
		fail_msg("%s", error.text);
	w->x.low = w->x.mem.low;
}

static void open_memory(struct world *w, const char *uri)
{
	open_swapped_memory(w, uri, NULL);
}

static void open_disk(struct world *w)
{
	unsigned char bytes[DISK_BYTES];
	struct blk_backing backing;
	const struct virtio_blk_cfg cfg = {
		.backing = &backing, .id = "", .mem = &w->x.mem, .threaded = true,
		.irq = fake_irq_line(&w->x.irq, VX_GSI)};

	snprintf(w->path, sizeof(w->path), "/tmp/devices_test.XXXXXX");
	w->fd = mkostemp(w->path, O_CLOEXEC);
	assert_true(w->fd >= 0);
	memset(bytes, ON_DISK, sizeof(bytes));
	assert_int_equal(pwrite(w->fd, bytes, sizeof(bytes), 0), sizeof(bytes));
	/* Nobody else may have it open for writing. */
	close(w->fd);
	assert_int_equal(blk_file_open(&w->file, w->path, false, &backing, NULL), 0);
	w->fd = open(w->path, O_RDONLY | O_CLOEXEC);
	assert_true(w->fd >= 0);
	assert_int_equal(virtio_blk_open(&w->blk, &cfg, NULL), 0);
	vx_attach(&w->x, &w->blk.mmio);
	vx_bring_up(&w->x, 1ull << 9, 8);
}

static void close_world(struct world *w)
{
	virtio_blk_close(&w->blk);
	virtio_rng_close(&w->rng);
	virtio_balloon_close(&w->balloon);
	blk_file_close(&w->file);
	apf_close(w->a);
	close(w->vm);
	if (w->path[0]) {
		close(w->fd);
		unlink(w->path);
	}
}

/* A request: header, data in two pieces, status. */
static void offer(struct world *w, uint32_t type, uint64_t header, uint64_t data, uint32_t len)
{
	unsigned in = type == T_IN ? DESC_WRITE : 0;
	unsigned char nothing = NOTHING;

	vx_put(&w->x, STATUS, &nothing, 1);
	vx_desc(&w->x, 0, header, 16, DESC_NEXT, 1);
	vx_desc(&w->x, 1, data, len - 100, DESC_NEXT | in, 2);
	vx_desc(&w->x, 2, data + len - 100, 100, DESC_NEXT | in, 3);
	vx_desc(&w->x, 3, STATUS, 1, DESC_WRITE, 0);
	vx_offer(&w->x, 0);
	vx_kick(&w->x);
}

static void put_header(struct world *w, uint64_t at, uint32_t type, uint64_t sector)
{
	const struct {
		uint32_t type, reserved;
		uint64_t sector;
	} h = {type, 0, sector};

	vx_put(&w->x, at, &h, sizeof(h));
}

static int finish(struct world *w)
{
	unsigned char status;
	uint32_t head, len;

	while (!vx_take(&w->x, &head, &len))
		sched_yield();
	vx_get(&w->x, STATUS, &status, 1);
	return status;
}

static uint64_t touches(const struct world *w)
{
	uint64_t all[APF_COUNTER_IDS];

	apf_counters_get(w->a, all, sizeof(all));
	return all[APF_COUNTER_ID_vmm_touches];
}

/* ---- absent memory ---- */

static void absent_data_is_waited_for(void **state)
{
	unsigned char page[PAGE_BYTES], want[PAGE_BYTES];
	struct world w;
	char uri[80];
	int source = source_file(uri);

	(void)state;
	open_memory(&w, uri);
	open_disk(&w);
	/* What the disk is given is what the source has. */
	put_header(&w, 0x9000, T_OUT, 3);
	offer(&w, T_OUT, 0x9000, DATA + 1000, 16 * 512);
	assert_int_equal(finish(&w), 0);
	for (uint64_t at = 0; at < 16 * 512; at += PAGE_BYTES) {
		for (uint64_t i = 0; i < PAGE_BYTES; i++)
			want[i] = content(DATA + 1000 + at + i);
		assert_int_equal(pread(w.fd, page, sizeof(page), (off_t)(3 * 512 + at)),
				 PAGE_BYTES);
		assert_memory_equal(page, want, sizeof(page));
	}
	/* And what is read in the midst of absent pages leaves the rest of them alone. */
	put_header(&w, 0x9000, T_IN, 0);
	offer(&w, T_IN, 0x9000, DATA + 0x20000 + 700, 512);
	assert_int_equal(finish(&w), 0);
	vx_get(&w.x, DATA + 0x20000, page, sizeof(page));
	for (uint64_t i = 0; i < PAGE_BYTES; i++)
		want[i] = i >= 700 && i < 700 + 512 ? ON_DISK : content(DATA + 0x20000 + i);
	assert_memory_equal(page, want, sizeof(page));
	assert_true(touches(&w) >= 3);
	close_world(&w);
	close(source);
}

/* ---- the end ---- */

/* The worker waits; the VM is ended; the device stands still, and nobody was given anything. */
static void end_it(struct world *w)
{
	unsigned char disk[DISK_BYTES], want[DISK_BYTES], status;

	while (touches(w) == 0)
		sched_yield();
	assert_int_equal(vx_reg(&w->x, 0x070), 15);
	apf_stop(w->a);
	while (vx_reg(&w->x, 0x070) != 0x4f)
		sched_yield();
	assert_int_equal(vx_used_idx(&w->x), 0);
	if (w->path[0]) {
		vx_get(&w->x, STATUS, &status, 1);
		assert_int_equal(status, NOTHING);
		assert_int_equal(pread(w->fd, disk, DISK_BYTES, 0), DISK_BYTES);
		memset(want, ON_DISK, DISK_BYTES);
		assert_memory_equal(disk, want, DISK_BYTES);
	}
	close_world(w);
}

/* Close alone, right after the stop, is enough. */
static void close_it(struct world *w)
{
	while (touches(w) == 0)
		sched_yield();
	apf_stop(w->a);
	close_world(w);
}

#define NEVER "fault+zero:?size=512K&fault-hang-after=0"

static void a_request_waits_for_ever(void **state)
{
	static const struct {
		uint32_t type;
		uint64_t header, data;
	} table[] = {
		{T_IN, 0x9000, DATA},   /* the system call waits */
		{T_OUT, 0x9000, DATA},
		{T_IN, HEADER, 0xa000}, /* the device itself does */
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(table); i++) {
		struct world w;

		open_memory(&w, NEVER);
		open_disk(&w);
		put_header(&w, 0x9000, table[i].type, 0);
		offer(&w, table[i].type, table[i].header, table[i].data, 8192);
		end_it(&w);
		open_memory(&w, NEVER);
		open_disk(&w);
		put_header(&w, 0x9000, table[i].type, 0);
		offer(&w, table[i].type, table[i].header, table[i].data, 8192);
		close_it(&w);
	}
}

static void a_ring_waits_for_ever(void **state)
{
	struct world w;

	(void)state;
	open_memory(&w, NEVER);
	open_disk(&w);
	vx_set(&w.x, 0x044, 0);
	vx_queue(&w.x, 0, 8, VX_DESC, SOURCE_GPA, VX_USED);
	put_header(&w, 0x9000, T_IN, 0);
	offer(&w, T_IN, 0x9000, 0xa000, 8192);
	end_it(&w);
}

static void entropy_waits_for_ever(void **state)
{
	struct world w;
	const struct virtio_rng_cfg cfg = {.mem = &w.x.mem, .threaded = true};

	(void)state;
	open_memory(&w, NEVER);
	assert_int_equal(virtio_rng_open(&w.rng, &cfg, NULL), 0);
	vx_attach(&w.x, &w.rng.mmio);
	vx_bring_up(&w.x, 0, 8);
	vx_desc(&w.x, 0, DATA, 64, DESC_WRITE, 0);
	vx_offer(&w.x, 0);
	vx_kick(&w.x);
	end_it(&w);
}

/* ---- a balloon ---- */

static int discard(void *ctx, gpa_t gpa, uint64_t len)
{
	return apf_discard(ctx, gpa.v, len);
}

static void open_balloon(struct world *w)
{
	const struct virtio_balloon_cfg cfg = {
		.discard = discard, .ctx = w->a, .mem = &w->x.mem, .threaded = true};

	assert_int_equal(virtio_balloon_open(&w->balloon, &cfg, NULL), 0);
	vx_attach(&w->x, &w->balloon.mmio);
	vx_bring_up(&w->x, 0x3e, 8);
}

static void inflate(struct world *w, uint64_t list, const uint32_t *pages, unsigned count)
{
	uint32_t head, len;

	vx_put(&w->x, list, pages, count * sizeof(*pages));
	vx_desc(&w->x, 0, list, count * (uint32_t)sizeof(*pages), 0, 0);
	vx_offer(&w->x, 0);
	vx_kick(&w->x);
	while (!vx_take(&w->x, &head, &len))
		sched_yield();
}

static uint64_t counter(const struct world *w, unsigned id)
{
	uint64_t all[APF_COUNTER_IDS];

	apf_counters_get(w->a, all, sizeof(all));
	return all[id];
}

static uint64_t discarded(const struct world *w)
{
	return counter(w, APF_COUNTER_ID_discarded);
}

/*
 * Absent and present pages, a source behind them or none, in any order and twice: all of them are
 * zeroes, nothing else is, also where the guest writes there again. Of a driver's lies, nothing
 * happens; and when it gives back the rings, the device stops or goes on.
 */
static void a_balloon_gives_zeroes(void **state)
{
	static const uint32_t pages[] = {0x90, 0x91, 0x40, 0xa0, 0x92, 0x90, 0x40, 0x100, 0xfee00,
					 0xffffffff, 0xff, 0x99};
	static const unsigned char zeroes[PAGE_BYTES];
	unsigned char page[PAGE_BYTES], want[PAGE_BYTES];
	uint32_t all[VX_LOW_BYTES / PAGE_BYTES];
	struct balloon_stats stats;
	struct world w;
	char uri[80];
	int source = source_file(uri);

	(void)state;
	open_memory(&w, uri);
	open_balloon(&w);
	vx_get(&w.x, 0x91000, page, sizeof(page)); /* present */
	memset(page, 7, sizeof(page));
	vx_put(&w.x, 0x40000, page, sizeof(page));
	for (unsigned round = 0; round < 2; round++) {
		inflate(&w, 0x9000, pages, ARRAY_LEN(pages));
		for (unsigned i = 0; i < ARRAY_LEN(pages); i++) {
			if (pages[i] >= VX_LOW_BYTES / PAGE_BYTES)
				continue;
			vx_get(&w.x, (uint64_t)pages[i] * PAGE_BYTES, page, sizeof(page));
			assert_memory_equal(page, zeroes, sizeof(page));
		}
		memset(page, 9, sizeof(page));
		for (unsigned i = 0; i < ARRAY_LEN(pages); i++)
			if (pages[i] < VX_LOW_BYTES / PAGE_BYTES)
				vx_put(&w.x, (uint64_t)pages[i] * PAGE_BYTES, page, sizeof(page));
	}
	virtio_balloon_stats_get(&w.balloon, &stats);
	assert_int_equal(stats.balloon_refused, 2 * 3);
	assert_int_equal(stats.balloon_inflated_bytes, 2 * 7 * PAGE_BYTES);
	assert_int_equal(discarded(&w), 2 * 7);
	vx_get(&w.x, 0x93000, page, sizeof(page));
	for (uint64_t i = 0; i < PAGE_BYTES; i++)
		want[i] = content(0x93000 + i);
	assert_memory_equal(page, want, sizeof(page));
	/* The list itself is in absent memory. */
	inflate(&w, 0xb0000, pages, 3);
	/* Everything, rings included: an end without an answer, or none. */
	for (unsigned i = 0; i < ARRAY_LEN(all); i++)
		all[i] = i;
	vx_put(&w.x, 0x9000, all, sizeof(all));
	vx_desc(&w.x, 0, 0x9000, sizeof(all), 0, 0);
	vx_offer(&w.x, 0);
	vx_kick(&w.x);
	while (discarded(&w) < 2 * 7 + 3 + ARRAY_LEN(all))
		sched_yield();
	vx_bring_up(&w.x, 0x3e, 8);
	inflate(&w, 0x9000, pages, 1);
	close_world(&w);
	close(source);
}

/* The swap file in /tmp, which never had a name (O_TMPFILE). */
static int open_nameless(void)
{
	char link[32], to[128];
	int found = -1;

	for (int fd = 0; fd < 256 && found < 0; fd++) {
		ssize_t n;

		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		n = readlink(link, to, sizeof(to) - 1);
		to[n < 0 ? 0 : n] = '\0';
		if (strncmp(to, "/tmp/#", 6) == 0)
			found = open(link, O_RDONLY | O_CLOEXEC);
	}
	return found;
}

/* How many pages of the swap file hold `byte` all over. */
static unsigned pages_in_swap(unsigned char byte)
{
	unsigned char page[PAGE_BYTES], want[PAGE_BYTES];
	int fd = open_nameless();
	unsigned n = 0;

	assert_true(fd >= 0);
	memset(want, byte, sizeof(want));
	while (read(fd, page, sizeof(page)) == sizeof(page))
		n += memcmp(page, want, sizeof(page)) == 0;
	close(fd);
	return n;
}

/* What was given back does not go to the swap file, whether it was in memory or there already. */
static void given_pages_are_not_swapped(void **state)
{
	enum { FIRST = 0x20, PAGES = 8, KEPT = 0x11, GIVEN = 0x22 };
	static const unsigned char zeroes[PAGE_BYTES];
	unsigned char page[PAGE_BYTES], want[PAGE_BYTES];
	uint32_t given[PAGES];
	struct world w;

	(void)state;
	open_swapped_memory(&w, "zero:?size=512K", "/tmp/devices_test.swap");
	open_balloon(&w);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 2 * PAGES; i++) {
			memset(page, i % 2 ? GIVEN : KEPT, sizeof(page));
			vx_put(&w.x, (uint64_t)(FIRST + i) * PAGE_BYTES, page, sizeof(page));
			if (i % 2)
				given[i / 2] = FIRST + i;
		}
		if (round == 1) /* the second time what is given is elsewhere */
			assert_int_equal(apf_evict(w.a, 0, NULL, &error), 0);
		inflate(&w, 0x9000, given, PAGES);
		assert_int_equal(apf_evict(w.a, 0, NULL, &error), 0);
		assert_int_equal(pages_in_swap(KEPT), PAGES);
		if (round == 0)
			assert_int_equal(pages_in_swap(GIVEN), 0);
		memset(want, KEPT, sizeof(want));
		for (unsigned i = 0; i < 2 * PAGES; i++) {
			vx_get(&w.x, (uint64_t)(FIRST + i) * PAGE_BYTES, page, sizeof(page));
			assert_memory_equal(page, i % 2 ? zeroes : want, sizeof(page));
		}
	}
	close_world(&w);
}

/*
 * The driver resets its device while the worker waits for a list in absent memory, or goes through
 * it: each page is what it was, or zeroes, and the next driver has a device that works.
 */
static void a_reset_takes_a_balloon_from_its_worker(void **state)
{
	enum { FIRST = 0x20, PAGES = 32, ROUNDS = 64, LISTS = 0xa0 };
	static const unsigned char zeroes[PAGE_BYTES];
	unsigned char page[PAGE_BYTES], want[PAGE_BYTES];
	uint32_t given[PAGES];
	struct world w;
	char uri[80];
	int source = source_file(uri);

	(void)state;
	open_memory(&w, uri);
	open_balloon(&w);
	for (unsigned i = 0; i < PAGES; i++)
		given[i] = FIRST + 2 * i;
	memset(want, 0x33, sizeof(want));
	for (unsigned round = 0; round < ROUNDS; round++) {
		/* Every second list is one that the source has: of page numbers that are no RAM. */
		uint64_t list = round % 2 ? (uint64_t)(LISTS + round) * PAGE_BYTES : 0x9000;

		for (unsigned i = 0; i < 2 * PAGES; i++)
			vx_put(&w.x, (uint64_t)(FIRST + i) * PAGE_BYTES, want, sizeof(want));
		if (list == 0x9000)
			vx_put(&w.x, list, given, sizeof(given));
		vx_desc(&w.x, 0, list, sizeof(given), 0, 0);
		vx_offer(&w.x, 0);
		vx_kick(&w.x);
		for (unsigned i = 0; i < round * 4; i++)
			sched_yield();
		vx_bring_up(&w.x, 0x3e, 8);
		for (unsigned i = 0; i < 2 * PAGES; i++) {
			vx_get(&w.x, (uint64_t)(FIRST + i) * PAGE_BYTES, page, sizeof(page));
			if (i % 2 || memcmp(page, zeroes, sizeof(page)) != 0)
				assert_memory_equal(page, want, sizeof(page));
		}
	}
	inflate(&w, 0x9000, given, 1);
	vx_get(&w.x, FIRST * PAGE_BYTES, page, sizeof(page));
	assert_memory_equal(page, zeroes, sizeof(page));
	close_world(&w);
	close(source);
}

/* A queue as the driver has it: its rings of 8, the list that it hands over, and how often. */
struct driver_queue {
	uint32_t number;
	uint64_t desc, avail, used, list;
	uint16_t count;
};

struct evicter {
	struct apf *a;
	atomic_bool stop;
	pthread_t thread;
};

static void *evict_always(void *arg)
{
	struct evicter *v = arg;

	while (!atomic_load(&v->stop))
		(void)apf_evict(v->a, 0, NULL, NULL);
	return NULL;
}

static unsigned char byte_of(unsigned round, unsigned page)
{
	return (unsigned char)(round * 31 + page * 7 + 1);
}

/* Queue `queue` takes the list, and all of the ring is the driver's again. */
static void hand_over(struct world *w, struct driver_queue *q, const uint32_t *pages,
		      unsigned count)
{
	vx_put(&w->x, q->list, pages, count * sizeof(*pages));
	vx_desc_at(&w->x, q->desc, 0, q->list, count * (uint32_t)sizeof(*pages), 0, 0);
	vx_put16(&w->x, q->avail + 4 + 2ull * (q->count % 8), 0);
	vx_put16(&w->x, q->avail + 2, ++q->count);
	vx_set(&w->x, 0x050, q->number);
	while (vx_get16(&w->x, q->used + 2) != q->count)
		sched_yield();
}

/*
 * Everything, rings and lists too, goes to the swap file again and again, while the driver gives
 * pages and takes them back, others each time: what was given is zeroes when it comes back, what
 * the driver writes there then and what it kept is what it wrote.
 */
static void a_balloon_breathes_under_eviction(void **state)
{
	enum { FIRST = 0x20, PAGES = 64, ROUNDS = 16 };
	static const unsigned char zeroes[PAGE_BYTES];
	struct driver_queue in = {0, VX_DESC, VX_AVAIL, VX_USED, 0x9000, 0};
	struct driver_queue out = {1, 0x4000, 0x5000, 0x6000, 0x7000, 0};
	unsigned char page[PAGE_BYTES], want[PAGE_BYTES];
	struct balloon_stats stats;
	struct evicter v;
	struct world w;
	uint64_t evicted;

	(void)state;
	open_swapped_memory(&w, "zero:?size=512K", "/tmp/devices_test.swap");
	open_balloon(&w);
	vx_queue(&w.x, 1, 8, out.desc, out.avail, out.used);
	v = (struct evicter){.a = w.a};
	assert_int_equal(pthread_create(&v.thread, NULL, evict_always, &v), 0);
	for (unsigned round = 0; round < ROUNDS; round++) {
		uint32_t given[PAGES];
		unsigned count = 0;

		for (unsigned i = 0; i < PAGES; i++) {
			memset(page, byte_of(round, i), sizeof(page));
			vx_put(&w.x, (uint64_t)(FIRST + i) * PAGE_BYTES, page, sizeof(page));
			if ((i ^ round) % 3 == 0)
				given[count++] = FIRST + i;
		}
		hand_over(&w, &in, given, count);
		hand_over(&w, &out, given, count);
		for (unsigned i = 0; i < PAGES; i++) {
			memset(want, byte_of(round, i), sizeof(want));
			vx_get(&w.x, (uint64_t)(FIRST + i) * PAGE_BYTES, page, sizeof(page));
			assert_memory_equal(page, (i ^ round) % 3 == 0 ? zeroes : want,
					    sizeof(page));
		}
	}
	atomic_store(&v.stop, true);
	assert_int_equal(pthread_join(v.thread, NULL), 0);
	evicted = counter(&w, APF_COUNTER_ID_evicted);
	assert_true(evicted > ROUNDS);
	virtio_balloon_stats_get(&w.balloon, &stats);
	assert_int_equal(stats.balloon_refused, 0);
	assert_true(stats.balloon_inflated_bytes >= ROUNDS * (PAGES / 3) * PAGE_BYTES);
	close_world(&w);
}

static void a_balloon_waits_for_ever(void **state)
{
	struct world w;

	(void)state;
	open_memory(&w, NEVER);
	open_balloon(&w);
	vx_desc(&w.x, 0, DATA, 64, 0, 0);
	vx_offer(&w.x, 0);
	vx_kick(&w.x);
	end_it(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(absent_data_is_waited_for),
		cmocka_unit_test(a_request_waits_for_ever),
		cmocka_unit_test(a_ring_waits_for_ever),
		cmocka_unit_test(entropy_waits_for_ever),
		cmocka_unit_test(a_balloon_gives_zeroes),
		cmocka_unit_test(given_pages_are_not_swapped),
		cmocka_unit_test(a_reset_takes_a_balloon_from_its_worker),
		cmocka_unit_test(a_balloon_breathes_under_eviction),
		cmocka_unit_test(a_balloon_waits_for_ever),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
