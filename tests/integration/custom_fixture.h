/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VMM that is a page source itself, by the public header: 4 MiB behind the second half of RAM,
 * whose content follows from the offset, and reads that are answered as a test says.
 */
#ifndef TESTS_INTEGRATION_CUSTOM_FIXTURE_H
#define TESTS_INTEGRATION_CUSTOM_FIXTURE_H

#include "vm_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SRC_GPA (4u << 20)
#define SRC_BYTES (4u << 20)
#define PAGE 4096u
#define PAGES (SRC_BYTES / PAGE)
#define READS 512u

/* For threads, too: cmocka's would jump out of them. */
#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);      \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* What the read callback does. */
enum how { AT_ONCE, QUEUED, ALONG, FAILS, ZEROES };

struct own {
	struct vm v;
	struct apf_source *s;
	enum how how;
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct apf_read_request reads[READS]; /* outstanding, as far as they are told */
	unsigned count;
	bool end;
	unsigned told, cancels, closes; /* atomic */
	unsigned urgent;                /* of told */
	apf_read_id cancelled;          /* the last one; atomic */
	bool acknowledges;              /* a cancel is answered */
	pthread_t teller; /* atomic */
	unsigned pauses, resumes; /* atomic */
	char paused[320];
};

#define GET(member) __atomic_load_n(&(member), __ATOMIC_ACQUIRE)
#define COUNT(member) __atomic_add_fetch(&(member), 1, __ATOMIC_ACQ_REL)

uint64_t word_at(uint64_t offset);
void fill(void *buf, uint64_t offset, uint64_t len);
bool is_right(const void *buf, uint64_t offset, uint64_t len);

/* ---- the VMM's half ---- */

void on_read(void *ctx, const struct apf_read_request *rd);
void prepare(struct own *o, enum how how);
void add_source(struct own *o, const char *wrap);
void place(struct own *o, uint64_t gpa, uint64_t bytes);
void begin(struct own *o, const char *wrap);
void finish(struct own *o);
void wait_for(const unsigned *count, unsigned n);
/* The first `n` reads are told. */
void wait_reads(struct own *o, unsigned n);
void must_read(struct own *o, uint64_t offset, uint64_t len);

struct populating {
	struct own *o;
	uint64_t offset, len;
	pthread_t thread;
	int rc;
};

void populate_begin(struct populating *p, struct own *o, uint64_t offset, uint64_t len);
int populate_end(struct populating *p);
uint64_t stat_reads(struct own *o);

#endif
