/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory on the real userfaultfd: start-up that does not depend on size, poison and
 * present in every order, touches as the kernel reports them; memory taken away and given
 * back while others use it, and what the kernel says was written.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/prng.h"
#include "lose_page.h"
#include "mem/gmem.h"
#include "mem/uffd.h"
#include "mem/uffd_abi.h"

#define PAGES 1024u
#define COLLAPSE 25 /* MADV_COLLAPSE, Linux 6.1 */

/* first: touches of memory that was never filled are reported from the start. */
static bool more; /* of gmem_touches; one or two touches at a time are all there are */

static struct gmem *open_with(uint64_t bytes, bool poison, bool unmap, bool first)
{
	struct gmem *g = NULL;
	struct err e = {0};
	const struct gmem_part part = {.bytes = bytes, .fd = -1};
	int rc = gmem_open(align_up(bytes, CHUNK_BYTES), poison, unmap, &g, &e);

	if (rc == 0)
		rc = gmem_add(g, &part, &e);
	if (rc == 0)
		rc = gmem_watch(g, (roff_t){0}, bytes, first, &e);
	if (rc < 0)
		print_error("%s\n", e.text);
	assert_int_equal(rc, 0);
	return g;
}

static struct gmem *open_memory(uint64_t bytes, bool poison)
{
	return open_with(bytes, poison, false, true);
}

static void present_watched(struct gmem *g, uint64_t page, uint64_t pages, bool watch)
{
	struct mem m = gmem_mem(g);
	struct err e = {0};

	assert_int_equal(m.ops->present(m.ctx, (roff_t){page * PAGE_BYTES}, pages * PAGE_BYTES,
					MEM_VIEW_GUEST, watch, &e), 0);
}

static void present(struct gmem *g, uint64_t page, uint64_t pages)
{
	present_watched(g, page, pages, false);
}

static void poison(struct gmem *g, uint64_t page, uint64_t pages)
{
	struct mem m = gmem_mem(g);
	struct err e = {0};

	assert_int_equal(m.ops->poison(m.ctx, (roff_t){page * PAGE_BYTES}, pages * PAGE_BYTES, &e),
			 0);
}

/* What the guest would read: only for pages that are present. */
static const unsigned char *guest(struct gmem *g, uint64_t page)
{
	return (const unsigned char *)(uintptr_t)gmem_hva(g, (roff_t){page * PAGE_BYTES}).v;
}

static unsigned long page_table_kb(void)
{
	unsigned long kb = 0;
	char line[128];
	FILE *f = fopen("/proc/self/status", "re");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "VmPTE: %lu", &kb) == 1)
			break;
	fclose(f);
	return kb;
}

static void start_up_does_not_depend_on_size(void **state)
{
	unsigned long before = page_table_kb();
	struct gmem *g = open_memory(64ull << 30, true);

	(void)state;
	/* 64 GiB poisoned at once would be 128 MiB of page tables. */
	assert_true(page_table_kb() - before < 1024);
	gmem_close(g);
}

static void content_goes_in_by_the_alias_and_out_by_the_guest_mapping(void **state)
{
	struct gmem *g = open_memory(PAGES * PAGE_BYTES, true);
	unsigned char *alias = gmem_mem(g).alias;

	(void)state;
	memset(alias + 5 * PAGE_BYTES, 0xa5, PAGE_BYTES);
	poison(g, 0, 16);
	present(g, 5, 1);
	assert_int_equal(guest(g, 5)[17], 0xa5);
	/* A page that nobody wrote is zeroes, not an error. */
	present(g, 6, 1);
	assert_int_equal(guest(g, 6)[17], 0);
	gmem_close(g);
}

static void present_and_poison_pass_over_what_is_there(void **state)
{
	struct gmem *g = open_memory(PAGES * PAGE_BYTES, true);
	unsigned char *alias = gmem_mem(g).alias;

	(void)state;
	for (unsigned i = 0; i < 16; i++)
		alias[i * PAGE_BYTES] = (unsigned char)(i + 1);
	present(g, 3, 1);
	present(g, 9, 2);
	poison(g, 0, 16); /* over pages that are there: they stay */
	assert_int_equal(guest(g, 3)[0], 4);
	assert_int_equal(guest(g, 10)[0], 11);
	present(g, 0, 16); /* over both kinds */
	present(g, 0, 16); /* and over everything once more */
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(guest(g, i)[0], i + 1);
	gmem_close(g);
}

struct toucher {
	const unsigned char *at;
	unsigned char value;
	pthread_t thread;
};

static void *touch(void *arg)
{
	struct toucher *t = arg;

	t->value = *(const volatile unsigned char *)t->at;
	return NULL;
}

static void touches_are_reported_and_released(void **state)
{
	struct gmem *g = open_memory(PAGES * PAGE_BYTES, false);
	unsigned char *alias = gmem_mem(g).alias;
	struct pollfd p = {.fd = gmem_event_fd(g), .events = POLLIN};
	struct toucher t = {.at = guest(g, 7) + 100};
	struct err e = {0};
	struct mem_touch at[4];

	(void)state;
	assert_int_equal(gmem_touches(g, at, 4, &more, &e), 0);
	assert_int_equal(pthread_create(&t.thread, NULL, touch, &t), 0);
	assert_int_equal(poll(&p, 1, 10000), 1);
	assert_int_equal(gmem_touches(g, at, 4, &more, &e), 1);
	assert_int_equal(at[0].off.v / PAGE_BYTES, 7);
	alias[7 * PAGE_BYTES + 100] = 0x5a;
	present(g, 7, 1);
	pthread_join(t.thread, NULL);
	assert_int_equal(t.value, 0x5a);
	gmem_close(g);
}

static void addresses_map_back(void **state)
{
	struct gmem *g = open_memory(PAGES * PAGE_BYTES, false);
	roff_t off;

	(void)state;
	assert_true(gmem_roff(g, gmem_hva(g, (roff_t){12345}), &off));
	assert_int_equal(off.v, 12345);
	assert_false(gmem_roff(g, (hva_t){gmem_hva(g, (roff_t){0}).v - 1}, &off));
	assert_false(gmem_roff(g, (hva_t){gmem_hva(g, (roff_t){0}).v + PAGES * PAGE_BYTES}, &off));
	/* The alias is no guest address. */
	assert_false(gmem_roff(g, (hva_t){(uintptr_t)gmem_mem(g).alias}, &off));
	gmem_close(g);
}

/* Skips where this kernel cannot lose a page. */
static void lose(struct gmem *g, uint64_t page)
{
	int rc = lose_page(gmem_mem(g).alias + page * PAGE_BYTES);

	if (rc == 0)
		return;
	print_message("SKIP: MADV_HWPOISON: %s\n", strerror(-rc));
	gmem_close(g);
	skip();
}

static bool is_lost(struct gmem *g, uint64_t page)
{
	struct mem m = gmem_mem(g);

	return m.ops->is_broken(m.ctx, (roff_t){page * PAGE_BYTES});
}

static void a_page_that_the_host_has_lost_is_told_from_others(void **state)
{
	struct gmem *g = open_with(PAGES * PAGE_BYTES, true, false, false);

	(void)state;
	memset(gmem_mem(g).alias, 1, 2 * PAGE_BYTES);
	assert_false(is_lost(g, 0));
	lose(g, 0);
	assert_true(is_lost(g, 0));
	assert_false(is_lost(g, 1));
	gmem_close(g);
}

static void unknown_features_are_refused_by_name(void **state)
{
	struct err e = {0};
	uint64_t has;

	(void)state;
	assert_int_equal(uffd_open(1ull << 60, 0, &has, &e), -EOPNOTSUPP);
	assert_non_null(strstr(e.text, "0x1000000000000000"));
}

/* ---- taking away ---- */

#define EVICT_PAGES 512u

static void unmap_uncollected(struct gmem *g, uint64_t page, uint64_t pages)
{
	struct mem m = gmem_mem(g);
	struct err e = {0};

	assert_int_equal(m.ops->unmap(m.ctx, (roff_t){page * PAGE_BYTES}, pages * PAGE_BYTES, &e),
			 0);
}

static void collect(struct gmem *g, uint64_t page, uint64_t pages, mem_pages ret)
{
	struct mem m = gmem_mem(g);
	struct err e = {0};
	mem_pages vmm;

	memset(ret, 0, sizeof(mem_pages));
	assert_int_equal(m.ops->collect(m.ctx, (roff_t){page * PAGE_BYTES}, pages * PAGE_BYTES, ret,
					vmm, &e), 0);
}

static void unmap(struct gmem *g, uint64_t page, uint64_t pages, mem_pages ret)
{
	unmap_uncollected(g, page, pages);
	collect(g, page, pages, ret);
}

static void drop(struct gmem *g, uint64_t page, uint64_t pages)
{
	struct mem m = gmem_mem(g);
	struct err e = {0};

	assert_int_equal(m.ops->drop(m.ctx, (roff_t){page * PAGE_BYTES}, pages * PAGE_BYTES, &e),
			 0);
}

static bool bit(const mem_pages pages, uint64_t i)
{
	return pages[i / 64] >> (i % 64) & 1;
}

static unsigned char *writable(struct gmem *g, uint64_t page)
{
	return (unsigned char *)gmem_hva(g, (roff_t){page * PAGE_BYTES}).v;
}

static __thread sigjmp_buf *volatile on_bus_error;

static void bus_error(int sig)
{
	(void)sig;
	if (!on_bus_error)
		abort();
	siglongjmp(*on_bus_error, 1);
}

static void catch_bus_errors(void)
{
	struct sigaction act = {.sa_handler = bus_error};

	assert_int_equal(sigaction(SIGBUS, &act, NULL), 0);
}

static struct gmem *open_evictable(void)
{
	catch_bus_errors(); /* in each test: the framework has its own */
	return open_with(PAGES * PAGE_BYTES, true, true, true);
}

struct probe {
	unsigned char *at;
	bool write;
	bool refused; /* SIGBUS: poison */
	int over;
	pthread_t thread;
};

static void *probe_run(void *arg)
{
	struct probe *p = arg;
	sigjmp_buf here;

	if (sigsetjmp(here, 1) == 0) {
		on_bus_error = &here;
		if (p->write)
			*(volatile unsigned char *)p->at = 1;
		else
			(void)*(volatile unsigned char *)p->at;
	} else {
		p->refused = true;
	}
	on_bus_error = NULL;
	__atomic_store_n(&p->over, 1, __ATOMIC_RELEASE);
	return NULL;
}

enum touched { SHOWN, REFUSED, REPORTED };

/* What becomes of a touch; a reported one is released again. */
static enum touched touch_of(struct gmem *g, uint64_t page, bool write)
{
	struct pollfd fd = {.fd = gmem_event_fd(g), .events = POLLIN};
	struct probe p = {.at = writable(g, page) + 9, .write = write};
	enum touched what = SHOWN;
	struct err e = {0};
	struct mem_touch t;

	assert_int_equal(pthread_create(&p.thread, NULL, probe_run, &p), 0);
	while (!__atomic_load_n(&p.over, __ATOMIC_ACQUIRE)) {
		if (poll(&fd, 1, 1) == 0)
			continue;
		assert_int_equal(gmem_touches(g, &t, 1, &more, &e), 1);
		assert_int_equal(t.off.v / PAGE_BYTES, page);
		what = REPORTED;
		present(g, page, 1);
	}
	pthread_join(p.thread, NULL);
	return p.refused ? REFUSED : what;
}

static void what_the_guest_wrote_is_told_exactly(void **state)
{
	struct gmem *g = open_evictable();
	unsigned char *alias = gmem_mem(g).alias;
	struct prng rng;

	(void)state;
	prng_init(&rng, 11);
	for (unsigned round = 0; round < 20; round++) {
		enum { ABSENT, UNWATCHED, READ, WRITTEN };
		uint64_t did[EVICT_PAGES];
		mem_pages written;

		for (unsigned i = 0; i < EVICT_PAGES; i++) {
			did[i] = prng_below(&rng, 4);
			alias[i * PAGE_BYTES] = (unsigned char)i;
			if (did[i] == ABSENT)
				continue;
			present_watched(g, i, 1, did[i] != UNWATCHED);
			assert_int_equal(guest(g, i)[0], (unsigned char)i);
			if (did[i] == WRITTEN)
				writable(g, i)[77] = (unsigned char)round;
		}
		unmap(g, 0, EVICT_PAGES, written);
		for (unsigned i = 0; i < EVICT_PAGES; i++)
			if (bit(written, i) != (did[i] != READ))
				fail_msg("round %u, page %u: did %llu, told %d", round, i,
					 (unsigned long long)did[i], bit(written, i));
	}
	gmem_close(g);
}

/* Its neighbours are shown; a touch of the lost one is told at once, and waits for nobody. */
static void a_lost_page_is_shown_as_one(void **state)
{
	struct gmem *g = open_evictable();
	mem_pages written;

	(void)state;
	memset(gmem_mem(g).alias, 1, 8 * PAGE_BYTES);
	present_watched(g, 0, 2, true);
	lose(g, 0);
	lose(g, 5);
	present_watched(g, 0, 8, true);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(touch_of(g, i, true), i == 0 || i == 5 ? REFUSED : SHOWN);
	/* Also where a hole has to be filled for another page of the range. */
	unmap(g, 0, 8, written);
	drop(g, 2, 1);
	present(g, 0, 8);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(touch_of(g, i, true), i == 0 || i == 5 ? REFUSED : SHOWN);
	gmem_close(g);
}

/* What was lost is gone with the memory: another page is there then, in every view. */
static void a_lost_page_is_given_back(void **state)
{
	struct gmem *g = open_evictable();
	unsigned char *alias = gmem_mem(g).alias;
	mem_pages written;

	(void)state;
	memset(alias, 1, 2 * PAGE_BYTES);
	present(g, 0, 2);
	lose(g, 0);
	unmap(g, 0, 2, written);
	drop(g, 0, 1);
	assert_false(is_lost(g, 0));
	assert_int_equal(alias[0], 0);
	alias[9] = 7;
	present(g, 0, 2);
	assert_int_equal(guest(g, 0)[9], 7);
	assert_int_equal(guest(g, 1)[9], 1);
	gmem_close(g);
}

/* Content comes in pieces of any size, unaligned ones among them: neighbours are not touched. */
static void unmapping_leaves_the_neighbours_alone(void **state)
{
	struct gmem *g = open_evictable();
	mem_pages written;

	(void)state;
	present_watched(g, 0, 64, true);
	writable(g, 9)[0] = 1;
	writable(g, 20)[0] = 1;
	unmap(g, 10, 10, written);
	for (unsigned i = 0; i < 64; i++) {
		assert_false(i < 10 && bit(written, i));
		assert_int_equal(touch_of(g, i, false), i >= 10 && i < 20 ? REFUSED : SHOWN);
	}
	unmap(g, 0, 10, written);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(bit(written, i), i == 9);
	gmem_close(g);
}

/* Markers of unwritten pages refuse the poison, unless they are taken away first. */
static void what_was_unmapped_refuses_touches(void **state)
{
	struct gmem *g = open_evictable();
	unsigned char *alias = gmem_mem(g).alias;
	mem_pages written;

	(void)state;
	for (unsigned i = 0; i < 8; i++)
		alias[i * PAGE_BYTES + 9] = (unsigned char)(0x80 + i);
	present_watched(g, 0, 4, true);
	present_watched(g, 4, 2, false);
	writable(g, 1)[9] = 0x55;
	unmap(g, 0, 8, written);
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(touch_of(g, i, i % 2), REFUSED);
		/* The content is where it was. */
		assert_int_equal(alias[i * PAGE_BYTES + 9], i == 1 ? 0x55 : 0x80 + i);
	}
	/* And comes back as it was, with nobody asked where it stands behind. */
	present_watched(g, 0, 8, true);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(guest(g, i)[9], i == 1 ? 0x55 : 0x80 + i);
	gmem_close(g);
}

static void what_was_unmapped_once_more_counts_as_written(void **state)
{
	struct gmem *g = open_evictable();
	mem_pages written;

	(void)state;
	present_watched(g, 0, 16, true);
	unmap(g, 0, 16, written);
	assert_int_equal(written[0] & 0xffff, 0);
	unmap(g, 0, 16, written);
	assert_int_equal(written[0] & 0xffff, 0xffff);
	gmem_close(g);
}

/*
 * vCPUs run again between unmap and collect: whoever touches a page then is reported, waits, and
 * is refused when he looks again. His look changes nothing of what is told about the page.
 */
static void touches_between_unmap_and_collect_wait(void **state)
{
	struct gmem *g = open_evictable();
	struct mem m = gmem_mem(g);
	struct pollfd fd = {.fd = gmem_event_fd(g), .events = POLLIN};
	struct probe p[4] = {0};
	mem_pages written;
	struct err e = {0};
	struct mem_touch t;

	(void)state;
	present_watched(g, 0, ARRAY_LEN(p), true);
	for (unsigned i = 0; i < ARRAY_LEN(p); i += 2)
		writable(g, i)[9] = 0x77;
	unmap_uncollected(g, 0, ARRAY_LEN(p));
	for (unsigned i = 0; i < ARRAY_LEN(p); i++) {
		p[i] = (struct probe){.at = writable(g, i) + 9, .write = i >= 2};
		assert_int_equal(pthread_create(&p[i].thread, NULL, probe_run, &p[i]), 0);
		assert_int_equal(poll(&fd, 1, 10000), 1);
		assert_int_equal(gmem_touches(g, &t, 1, &more, &e), 1);
		assert_int_equal(t.off.v / PAGE_BYTES, i);
	}
	collect(g, 0, ARRAY_LEN(p), written);
	assert_int_equal(m.ops->poison(m.ctx, (roff_t){0}, ARRAY_LEN(p) * PAGE_BYTES, &e), 0);
	for (unsigned i = 0; i < ARRAY_LEN(p); i++) {
		pthread_join(p[i].thread, NULL);
		assert_true(p[i].refused);
		assert_int_equal(bit(written, i), i % 2 == 0);
		assert_int_equal(m.alias[i * PAGE_BYTES + 9], i % 2 ? 0 : 0x77);
	}
	gmem_close(g);
}

/*
 * Made one huge page, a range loses its markers, and the guest sees what is not there: the kernel
 * must not be able to (docs/decisions/0014).
 */
static void a_marker_survives_a_collapse(void **state)
{
	struct gmem *g = open_memory(2 * CHUNK_BYTES, false);
	struct mem m = gmem_mem(g);
	const uint64_t pages = CHUNK_BYTES / PAGE_BYTES;
	unsigned char *start = writable(g, 0);

	(void)state;
	catch_bus_errors();
	poison(g, 0, pages);
	memset(m.alias, 7, CHUNK_BYTES);
	present(g, 0, pages - 1);
	assert_int_equal(madvise(start, CHUNK_BYTES, COLLAPSE), -1);
	assert_int_equal(touch_of(g, 0, false), SHOWN);
	assert_int_equal(touch_of(g, pages - 1, false), REFUSED);
	gmem_close(g);
}

static void dropped_memory_is_given_back_and_still_refuses_touches(void **state)
{
	struct gmem *g = open_evictable();
	struct mem m = gmem_mem(g);
	mem_pages written;

	(void)state;
	assert_int_equal(m.ops->resident_bytes(m.ctx), 0);
	memset(m.alias, 7, 64 * PAGE_BYTES);
	assert_int_equal(m.ops->resident_bytes(m.ctx), 64 * PAGE_BYTES);
	present_watched(g, 0, 64, true);
	unmap(g, 0, 64, written);
	drop(g, 16, 32);
	assert_int_equal(m.ops->resident_bytes(m.ctx), 32 * PAGE_BYTES);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(touch_of(g, i, false), REFUSED);
	assert_int_equal(m.ops->resident_bytes(m.ctx), 32 * PAGE_BYTES);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(m.alias[i * PAGE_BYTES], i >= 16 && i < 48 ? 0 : 7);
	/* New content, watched as any other. */
	memset(m.alias + 20 * PAGE_BYTES, 9, PAGE_BYTES);
	present_watched(g, 20, 1, true);
	assert_int_equal(guest(g, 20)[5], 9);
	unmap(g, 20, 1, written);
	assert_int_equal(written[0] & 1, 0);
	gmem_close(g);
}

static void memory_is_filled_unseen_until_it_is_watched(void **state)
{
	struct gmem *g = open_with(PAGES * PAGE_BYTES, true, true, false);
	struct mem m = gmem_mem(g);
	mem_pages there = {0};
	struct err e = {0};

	(void)state;
	for (unsigned i = 0; i < 32; i += 2)
		assert_int_equal(touch_of(g, i, i % 4 == 0), SHOWN);
	assert_int_equal(m.ops->watch_all(m.ctx, &e), 0);
	assert_int_equal(m.ops->resident(m.ctx, (roff_t){0}, EVICT_PAGES * PAGE_BYTES, there, &e),
			 0);
	for (unsigned i = 0; i < EVICT_PAGES; i++)
		assert_int_equal(bit(there, i), i < 32 && i % 2 == 0);
	assert_int_equal(m.ops->resident(m.ctx, (roff_t){EVICT_PAGES * PAGE_BYTES},
					 EVICT_PAGES * PAGE_BYTES, there, &e), 0);
	for (unsigned i = 0; i < EVICT_PAGES; i++)
		assert_false(bit(there, i));
	for (unsigned i = 0; i < 32; i++)
		assert_int_equal(touch_of(g, i, false), i % 2 ? REPORTED : SHOWN);
	gmem_close(g);
}

/* ---- while somebody uses it ---- */

#define BUSY_PAGES 32u

struct busy {
	struct gmem *g;
	int stop;
	uint64_t writes, refused;
	pthread_t thread, server;
};

static void *write_again_and_again(void *arg)
{
	struct busy *b = arg;
	struct prng rng;
	sigjmp_buf here;

	prng_init(&rng, 3);
	while (!__atomic_load_n(&b->stop, __ATOMIC_ACQUIRE)) {
		uint64_t page = prng_below(&rng, BUSY_PAGES);
		volatile uint64_t *at = (volatile uint64_t *)(void *)writable(b->g, page);

		on_bus_error = &here;
		if (sigsetjmp(here, 1) == 0) {
			if (page % 2)
				*at = *at + 1;
			else
				(void)*at;
			b->writes++;
		} else {
			b->refused++;
		}
	}
	return NULL;
}

/* Touches that met a page between its unmapping and its poison: they look again. */
static void *wake_the_reported(void *arg)
{
	struct busy *b = arg;
	struct pollfd fd = {.fd = gmem_event_fd(b->g), .events = POLLIN};
	struct mem m = gmem_mem(b->g);
	struct err e = {0};
	struct mem_touch t;

	while (!__atomic_load_n(&b->stop, __ATOMIC_ACQUIRE))
		if (poll(&fd, 1, 1) > 0 && gmem_touches(b->g, &t, 1, &more, &e) == 1)
			assert_int_equal(m.ops->poison(m.ctx, t.off, PAGE_BYTES, &e), 0);
	return NULL;
}

/*
 * Between unmap and present the content stands still, and a page that is called unwritten has
 * the content that it was shown with.
 */
static void nothing_written_meanwhile_is_missed(void **state)
{
	struct busy b = {.g = open_evictable()};
	const volatile uint64_t *words = (const void *)gmem_mem(b.g).alias;
	uint64_t shown[BUSY_PAGES] = {0};
	unsigned unwritten = 0, written_to = 0;

	(void)state;
	present_watched(b.g, 0, BUSY_PAGES, true);
	assert_int_equal(pthread_create(&b.server, NULL, wake_the_reported, &b), 0);
	assert_int_equal(pthread_create(&b.thread, NULL, write_again_and_again, &b), 0);
	for (unsigned round = 0; round < 400; round++) {
		uint64_t now[BUSY_PAGES];
		mem_pages written;

		unmap(b.g, 0, BUSY_PAGES, written);
		for (unsigned i = 0; i < BUSY_PAGES; i++)
			now[i] = words[i * (PAGE_BYTES / 8)];
		for (unsigned i = 0; i < BUSY_PAGES; i++) {
			if (!bit(written, i) && now[i] != shown[i])
				fail_msg("round %u, page %u: a write was missed", round, i);
			unwritten += !bit(written, i);
			written_to += bit(written, i);
		}
		usleep(round % 8 * 20);
		for (unsigned i = 0; i < BUSY_PAGES; i++)
			assert_int_equal(words[i * (PAGE_BYTES / 8)], now[i]);
		memcpy(shown, now, sizeof(shown));
		present_watched(b.g, 0, BUSY_PAGES, true);
		usleep(round % 16 * 20);
	}
	__atomic_store_n(&b.stop, 1, __ATOMIC_RELEASE);
	pthread_join(b.thread, NULL);
	pthread_join(b.server, NULL);
	assert_true(unwritten > 0 && written_to > 0 && b.refused > 0 && b.writes > 0);
	gmem_close(b.g);
}

/* Some tests need a kernel that can tell what was written. */
static bool can_take_away(void)
{
	struct gmem *g;
	struct err e = {0};
	int rc = gmem_open(CHUNK_BYTES, true, true, &g, &e);

	if (rc == 0)
		gmem_close(g);
	else
		print_message("SKIP: taking memory away: %s\n", e.text);
	return rc == 0;
}

int main(void)
{
	const struct CMUnitTest taking_away[] = {
		cmocka_unit_test(what_the_guest_wrote_is_told_exactly),
		cmocka_unit_test(a_lost_page_is_shown_as_one),
		cmocka_unit_test(a_lost_page_is_given_back),
		cmocka_unit_test(unmapping_leaves_the_neighbours_alone),
		cmocka_unit_test(what_was_unmapped_refuses_touches),
		cmocka_unit_test(what_was_unmapped_once_more_counts_as_written),
		cmocka_unit_test(touches_between_unmap_and_collect_wait),
		cmocka_unit_test(a_marker_survives_a_collapse),
		cmocka_unit_test(dropped_memory_is_given_back_and_still_refuses_touches),
		cmocka_unit_test(memory_is_filled_unseen_until_it_is_watched),
		cmocka_unit_test(nothing_written_meanwhile_is_missed),
	};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(start_up_does_not_depend_on_size),
		cmocka_unit_test(content_goes_in_by_the_alias_and_out_by_the_guest_mapping),
		cmocka_unit_test(present_and_poison_pass_over_what_is_there),
		cmocka_unit_test(touches_are_reported_and_released),
		cmocka_unit_test(addresses_map_back),
		cmocka_unit_test(a_page_that_the_host_has_lost_is_told_from_others),
		cmocka_unit_test(unknown_features_are_refused_by_name),
	};
	struct err e = {0};
	uint64_t has;
	int fd = uffd_open(UFFD_FEATURE_POISON | UFFD_FEATURE_MINOR_SHMEM, 0, &has, &e);

	if (fd < 0) {
		printf("SKIP: %s\n", e.text);
		return 77;
	}
	close(fd);
	return cmocka_run_group_tests(tests, NULL, NULL) +
	       (can_take_away() ? cmocka_run_group_tests(taking_away, NULL, NULL) : 0);
}
