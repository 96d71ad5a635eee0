/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM without a guest, with a swap file in a folder of its own, and pages whose content follows
 * from their number.
 */
#ifndef TESTS_INTEGRATION_SWAP_FIXTURE_H
#define TESTS_INTEGRATION_SWAP_FIXTURE_H

#include "io_way.h"
#include "small_fixture.h"

#include <asyncpf/asyncpf.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#define MIB (1ull << 20)
#define RAM (24 * MIB)

struct vm {
	int kvm, fd;
	struct apf_config c;
	struct apf *a;
	struct apf_error e;
	char folder[64];
	char swap[128];
	char paused[320]; /* text of the last pause */
	int pauses, resumes;
};

static inline void on_event(void *ctx, const struct apf_event *ev)
{
	struct vm *v = ctx;

	if (ev->kind == APF_EVENT_PAUSED)
		snprintf(v->paused, sizeof(v->paused), "%s", ev->text);
	/* Last: who sees it may read the text. */
	__atomic_add_fetch(ev->kind == APF_EVENT_PAUSED ? &v->pauses : &v->resumes, 1,
			   __ATOMIC_RELEASE);
}

static inline void vm_prepare(struct vm *v)
{
	memset(v, 0, sizeof(*v));
	snprintf(v->folder, sizeof(v->folder), "/tmp/asyncpf-swap-XXXXXX");
	assert_non_null(mkdtemp(v->folder));
	snprintf(v->swap, sizeof(v->swap), "%s/swap", v->folder);
	v->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	do
		v->fd = ioctl(v->kvm, KVM_CREATE_VM, 0);
	while (v->fd < 0 && errno == EINTR);
	assert_true(v->fd >= 0);
	assert_int_equal(ioctl(v->fd, KVM_CREATE_IRQCHIP, 0), 0);
	apf_config_init(&v->c);
	v->c.io = io_way();
	v->c.on_event = on_event;
	v->c.on_event_ctx = v;
	v->c.swap = v->swap;
}

static inline void vm_start(struct vm *v)
{
	assert_int_equal(apf_open(v->fd, &v->c, &v->a, &v->e), 0);
	assert_int_equal(apf_memory_add(v->a, 0, RAM, &v->e), 0);
	if (apf_start(v->a, &v->e) < 0)
		fail_msg("%s", v->e.text);
}

static inline void vm_end(struct vm *v)
{
	apf_close(v->a);
	close(v->fd);
	close(v->kvm);
	/* Nothing of it is left. */
	assert_int_equal(rmdir(v->folder), 0);
}

static inline struct apf_stats stats(struct vm *v)
{
	struct apf_stats s = {.size = sizeof(s)};

	apf_stats_get(v->a, &s);
	return s;
}

/* What page holds after it was written in a round; every fifth one is zeroes. */
static inline void content(uint64_t page, uint64_t round, uint64_t *ret)
{
	struct prng rng;

	prng_init(&rng, page * 1000 + round);
	for (size_t i = 0; i < PAGE_BYTES / 8; i++)
		ret[i] = page % 5 == 0 ? 0 : prng_next(&rng);
}

static inline void write_page(struct vm *v, uint64_t page, uint64_t round)
{
	uint64_t words[PAGE_BYTES / 8];

	content(page, round, words);
	assert_int_equal(apf_write(v->a, page * PAGE_BYTES, words, sizeof(words)), 0);
}

static inline void check_page(struct vm *v, uint64_t page, uint64_t round)
{
	uint64_t words[PAGE_BYTES / 8], want[PAGE_BYTES / 8];

	content(page, round, want);
	assert_int_equal(apf_read(v->a, page * PAGE_BYTES, words, sizeof(words)), 0);
	assert_memory_equal(words, want, sizeof(words));
}

static inline void evict_all(struct vm *v)
{
	uint64_t resident = 0;

	if (apf_evict(v->a, 0, &resident, &v->e) < 0)
		fail_msg("%s", v->e.text);
	assert_true(resident < 2 * MIB);
}

static inline void wait_for(const int *counter, int n)
{
	for (int ms = 0; ms < 20000 && __atomic_load_n(counter, __ATOMIC_ACQUIRE) < n; ms++)
		usleep(1000);
	assert_true(__atomic_load_n(counter, __ATOMIC_ACQUIRE) >= n);
}

#endif
