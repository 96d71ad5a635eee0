/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VMM's own memory, without a guest: adopted, with a view for the VMM, an image behind it or
 * nothing, with a swap file or without. Each page of the image holds its number in each word.
 */
#ifndef TESTS_INTEGRATION_OWN_FIXTURE_H
#define TESTS_INTEGRATION_OWN_FIXTURE_H

#include "io_way.h"
#include "bare_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define RAM (4 * MIB)
#define PAGES (RAM / PAGE_BYTES)
#define GPA 0x100000000ull

static inline uint64_t word_of(uint64_t page)
{
	return 0x5ca1ab1e00000000ull | page;
}

/* An image of RAM as a source; late answers. */
static inline const char *image_uri(void)
{
	static char uri[80];
	static int fd = -1;

	for (uint64_t page = 0; fd < 0 || page < PAGES; page++) {
		uint64_t words[PAGE_BYTES / 8];

		if (fd < 0)
			fd = memfd_create("image", MFD_CLOEXEC);
		for (unsigned i = 0; i < ARRAY_LEN(words); i++)
			words[i] = word_of(page);
		assert_int_equal(pwrite(fd, words, PAGE_BYTES, (off_t)(page * PAGE_BYTES)),
				 PAGE_BYTES);
	}
	snprintf(uri, sizeof(uri), "delay+file:/proc/self/fd/%d?us=2000", fd);
	return uri;
}

struct own {
	int vm;
	struct apf *a;
	struct apf_memory m;
	char dir[32], swap[48];
};

/* uri: what stands behind it, NULL: nothing. */
static inline void open_own(struct own *o, const char *uri, bool swap)
{
	struct apf_config c;

	*o = (struct own){.vm = open_vm(), .m = {.size = sizeof(o->m), .gpa = GPA, .bytes = RAM,
						 .fd = -1}};
	apf_config_init(&c);
	c.io = io_way();
	if (swap) {
		snprintf(o->dir, sizeof(o->dir), "/tmp/asyncpf-own-XXXXXX");
		assert_non_null(mkdtemp(o->dir));
		snprintf(o->swap, sizeof(o->swap), "%s/swap", o->dir);
		c.swap = o->swap;
		c.pins_are_held = 1;
	}
	if (apf_open(o->vm, &c, &o->a, &error) < 0 ||
	    apf_memory_adopt(o->a, &o->m, &error) < 0 ||
	    (uri && apf_source_add(o->a, GPA, RAM, uri, 0, NULL, &error) < 0) ||
	    apf_start(o->a, &error) < 0)
		fail_msg("%s", error.text);
}

static inline void close_own(struct own *o)
{
	apf_close(o->a);
	close(o->vm);
	if (o->dir[0])
		rmdir(o->dir);
}

static inline uint64_t *page_of(const struct own *o, uint64_t page)
{
	return (uint64_t *)((char *)o->m.vmm + page * PAGE_BYTES);
}

static inline uint64_t counter(const struct own *o, enum apf_counter_id id)
{
	uint64_t all[APF_COUNTER_IDS];

	apf_counters_get(o->a, all, sizeof(all));
	return all[id];
}

static inline unsigned char residency(const struct own *o, uint64_t page)
{
	unsigned char byte = 0xff;

	assert_int_equal(apf_residency(o->a, GPA + page * PAGE_BYTES, PAGE_BYTES, &byte), 0);
	return byte;
}

#endif
