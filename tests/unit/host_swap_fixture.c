/* SPDX-License-Identifier: Apache-2.0 */
/* See host_swap_fixture.h. */
#include "host_swap_fixture.h"

struct rig_swap *rig_swap(struct rig *x)
{
	return x->swap;
}

/* ---- memory ---- */

uint64_t rig_first(roff_t off)
{
	return off.v >> PAGE_SHIFT;
}

bool rig_fails(struct rig *x, enum rig_take kind, struct err *e)
{
	struct rig_swap *s = rig_swap(x);

	s->calls[kind]++;
	if (s->fail[kind] == 0)
		return false;
	s->fail[kind]--;
	err_set(e, -ENOMEM, "fake memory: taking away, %d", (int)kind);
	return true;
}

void rig_woken(struct rig *x, roff_t off, uint64_t len)
{
	for (uint64_t p = rig_first(off); p < rig_first(off) + (len >> PAGE_SHIFT); p++)
		rig_swap(x)->woken[p]++;
}

int rig_swap_present(void *ctx, roff_t off, uint64_t len, unsigned views, bool watch, struct err *e)
{
	struct rig *x = ctx;
	struct rig_swap *s = rig_swap(x);
	int rc = rig_mem_present(ctx, off, len, views, watch, e);

	rig_woken(x, off, len);
	for (uint64_t p = rig_first(off), end = p + (len >> PAGE_SHIFT); rc == 0 && p < end; p++) {
		s->allocated[p] = true;
		if (views & MEM_VIEW_VMM) {
			s->vmm_guarded[p] = s->vmm[p] ? s->vmm_guarded[p] : watch;
			s->vmm[p] = true;
		}
		if (!(views & MEM_VIEW_GUEST))
			continue;
		if (s->pages[p] != RIG_VISIBLE)
			s->guarded[p] = watch;
		s->pages[p] = RIG_VISIBLE;
	}
	return rc;
}

int rig_poison(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	struct rig_swap *s = rig_swap(ctx);
	int rc = rig_mem_poison(ctx, off, len, e);

	rig_woken(ctx, off, len);
	for (uint64_t p = rig_first(off); rc == 0 && p < rig_first(off) + (len >> PAGE_SHIFT); p++)
		if (s->pages[p] == RIG_HOLE)
			s->pages[p] = RIG_POISONED;
	return rc;
}

int rig_unmap(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	struct rig *x = ctx;
	struct rig_swap *s = rig_swap(x);
	uint64_t n = len >> PAGE_SHIFT;
	bool fails = rig_fails(x, RIG_TAKE_UNMAP, e);

	if (fails)
		n = min_u64(n, s->half);
	for (uint64_t p = rig_first(off); p < rig_first(off) + n; p++) {
		/* What was out of the mapping before is not known to be unwritten. */
		s->guarded[p] &= s->pages[p] == RIG_VISIBLE;
		s->vmm_guarded[p] &= s->vmm[p];
		s->pages[p] = RIG_HOLE;
		s->vmm[p] = false;
	}
	return fails ? -ENOMEM : 0;
}

int rig_collect(void *ctx, roff_t off, uint64_t len, mem_pages written, mem_pages ret_vmm,
		struct err *e)
{
	struct rig *x = ctx;
	struct rig_swap *s = rig_swap(x);
	uint64_t n = len >> PAGE_SHIFT;
	bool poison = x->h.cfg.faults != HST_FAULTS_KERNEL;
	bool fails = rig_fails(x, RIG_TAKE_COLLECT, e);

	assert_true(n <= MEM_PAGES_MAX);
	if (fails)
		n = min_u64(n, s->half);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t p = rig_first(off) + i;

		assert_int_not_equal(s->pages[p], RIG_VISIBLE);
		assert_false(s->vmm[p]);
		if (!s->vmm_guarded[p])
			ret_vmm[i / 64] |= 1ull << (i % 64);
		s->vmm_guarded[p] = false;
		if (!s->guarded[p])
			written[i / 64] |= 1ull << (i % 64);
		s->guarded[p] = false;
		if (poison)
			s->pages[p] = RIG_POISONED;
		s->woken[p] += poison;
	}
	return fails ? -ENOMEM : 0;
}

int rig_drop(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	struct rig *x = ctx;
	struct rig_swap *s = rig_swap(x);
	uint64_t n = len >> PAGE_SHIFT;
	bool fails = rig_fails(x, RIG_TAKE_DROP, e);

	if (fails)
		n = min_u64(n, s->half);
	for (uint64_t p = rig_first(off); p < rig_first(off) + n; p++) {
		s->broken_drop |= s->pages[p] == RIG_VISIBLE || s->vmm[p];
		/* What is discarded may be none, and nobody wants it back. */
		s->broken_drop |= !x->discards && !s->allocated[p];
		/* What is not durable must not be all that there is. */
		s->broken_drop |= !x->discards && s->risky[p] &&
				  block_is(&x->h, (uint32_t)rig_block(x, p), BLOCK_IN_SWAP);
		s->allocated[p] = fails && s->allocated[p];
		if (s->lost[p])
			assert_int_equal(x->alias[p << PAGE_SHIFT], RIG_LOST);
		s->lost[p] = false;
		memset(x->alias + (p << PAGE_SHIFT), 0, PAGE_BYTES);
	}
	return fails ? -ENOMEM : 0;
}

bool rig_is_broken(void *ctx, roff_t off)
{
	return rig_swap(ctx)->lost[rig_first(off)];
}

void rig_lose(struct rig *x, uint64_t page)
{
	rig_swap(x)->lost[page] = true;
	memset(x->alias + (page << PAGE_SHIFT), RIG_LOST, PAGE_BYTES);
}

int rig_watch_all(void *ctx, struct err *e)
{
	if (rig_fails(ctx, RIG_TAKE_WATCH, e))
		return -ENOMEM;
	rig_swap(ctx)->watched = true;
	return 0;
}

int rig_resident(void *ctx, roff_t off, uint64_t len, mem_pages ret, struct err *e)
{
	struct rig_swap *s = rig_swap(ctx);

	assert_true(s->watched && len <= MEM_PAGES_MAX * PAGE_BYTES);
	if (rig_fails(ctx, RIG_TAKE_RESIDENT, e))
		return -ENOMEM;
	for (uint64_t i = 0; i < len >> PAGE_SHIFT; i++)
		if (s->pages[rig_first(off) + i] == RIG_VISIBLE)
			ret[i / 64] |= 1ull << (i % 64);
	return 0;
}

uint64_t rig_resident_bytes(void *ctx)
{
	uint64_t n = 0;

	for (unsigned p = 0; p < RIG_SWAP_PAGES; p++)
		n += rig_swap(ctx)->allocated[p];
	return n * PAGE_BYTES;
}

/* ---- the file ---- */

void rig_copy(struct rig_swap *s, const struct rig_write *w, size_t len, size_t from)
{
	for (size_t at = from; at < len; at += 128)
		memcpy(s->disk + w->off + at, w->buf + at, min_u64(64, len - at));
}

void rig_sync_end(struct rig *x, int res)
{
	struct rig_swap *s = rig_swap(x);
	struct io_req *rq = s->sync;

	assert_non_null(rq);
	s->sync = NULL;
	for (unsigned p = 0; p < RIG_SWAP_PAGES; p++) {
		if (res < 0 && s->risky[p])
			memset(s->disk + RIG_SWAP_HEAD + p * PAGE_BYTES, 0xee, PAGE_BYTES);
		if (res < 0 || s->syncing[p])
			s->risky[p] = false;
		s->syncing[p] = false;
	}
	rq->done(rq, res);
}

void rig_sync(void *ctx, struct io_file *file, struct io_req *rq)
{
	struct rig_swap *s = rig_swap(ctx);

	assert_null(file);
	assert_null(s->sync);
	s->sync = rq;
	s->syncs++;
	s->sync_cancelled = false;
	memcpy(s->syncing, s->risky, sizeof(s->risky));
}

void rig_write_end(struct rig *x, unsigned i, int res)
{
	struct rig_swap *s = rig_swap(x);
	struct rig_write w = s->writes[i];

	assert_true(i < s->count);
	memmove(&s->writes[i], &s->writes[i + 1], (--s->count - i) * sizeof(w));
	if (res > 0)
		rig_copy(s, &w, (size_t)res, 64);
	for (int at = 0; at < res; at += PAGE_BYTES) {
		s->risky[(w.off - RIG_SWAP_HEAD + (unsigned)at) >> PAGE_SHIFT] = true;
		s->syncing[(w.off - RIG_SWAP_HEAD + (unsigned)at) >> PAGE_SHIFT] = false;
	}
	w.rq->done(w.rq, res);
	while (s->sync && !s->sync_later)
		rig_sync_end(x, 0);
}

void rig_write_ok(struct rig *x, unsigned i)
{
	rig_write_end(x, i, (int)rig_swap(x)->writes[i].len);
}

void rig_swap_write(void *ctx, struct io_file *file, struct io_req *rq, uint64_t off,
		    const void *buf, size_t len)
{
	struct rig *x = ctx;
	struct rig_swap *s = rig_swap(x);

	assert_null(file);
	assert_true(s->count < RIG_WRITES && len > 0);
	assert_true(len <= max_u64(HST_WRITE_BYTES_MAX, 1ull << x->h.cfg.block_shift));
	assert_true(off >= RIG_SWAP_HEAD && off + len <= sizeof(s->disk));
	s->writes[s->count++] = (struct rig_write){.rq = rq, .off = off, .buf = buf, .len = len};
	rig_copy(s, &s->writes[s->count - 1], len, 0);
}

void rig_cancel(void *ctx, struct io_req *rq)
{
	struct rig_swap *s = rig_swap(ctx);

	if (s->sync == rq) {
		s->sync_cancelled = true;
		return;
	}
	for (unsigned i = 0; i < s->count; i++)
		if (s->writes[i].rq == rq) {
			s->writes[i].cancelled = true;
			return;
		}
	fail_msg("cancel of a write that is not outstanding");
}

/* ---- set-up ---- */

const struct mem_ops *rig_mem_ops(void)
{
	static const struct mem_ops ops = {
		.present = rig_swap_present,
		.poison = rig_poison,
		.watch_all = rig_watch_all,
		.resident = rig_resident,
		.unmap = rig_unmap,
		.collect = rig_collect,
		.drop = rig_drop,
		.is_broken = rig_is_broken,
		.resident_bytes = rig_resident_bytes,
	};

	return &ops;
}

struct rig *rig_swap_open(const struct hst_cfg *cfg, uint64_t pages, bool source, uint64_t limit)
{
	static const struct io_ops io_ops = {
		.write = rig_swap_write, .sync = rig_sync, .cancel = rig_cancel};
	uint64_t block = 1ull << cfg->block_shift, bytes = align_up(pages << PAGE_SHIFT, block);
	struct hst_cfg c = *cfg;
	struct rig *x = rig_prepare(bytes);
	struct rig_swap *s = x->swap = calloc(1, sizeof(*s));

	assert_non_null(s);
	assert_true(bytes <= RIG_SWAP_PAGES * PAGE_BYTES);
	c.evict = true;
	c.resident_max = limit << cfg->block_shift;
	s->source = source;
	s->watched = source || block > PAGE_BYTES;
	s->src = (struct rig_src){.src = {.ops = x->src.src.ops, .size = sizeof(s->disk)},
				 .x = x, .answers = RIG_AT_ONCE, .disk = s->disk,
				 .allocated = s->allocated};
	/* What was never written must not pass for zeroes. */
	memset(s->disk, 0xdd, sizeof(s->disk));
	assert_int_equal(ram_add_region(&x->h.ram, (gpa_t){RIG_GPA}, bytes, block), RAM_ADDED);
	if (source)
		assert_int_equal(ram_add_backing(&x->h.ram, (gpa_t){RIG_GPA}, bytes, &x->src.src,
						 0, block), RAM_ADDED);
	x->h.swap = (struct hst_swap){
		.io = {&io_ops, x},
		.offset = RIG_SWAP_HEAD,
		.backing = {.bytes = bytes, .src = &s->src.src, .src_offset = RIG_SWAP_HEAD},
	};
	grace_init(&x->h.swap.backing.grace);
	x->src.answers = RIG_AT_ONCE;
	x->src.allocated = s->allocated;
	rig_start(x, &c);
	x->h.mem.ops = rig_mem_ops();
	return x;
}

/* ---- content ---- */

uint64_t *rig_words(struct rig *x, uint64_t page)
{
	return (uint64_t *)(void *)(x->alias + (page << PAGE_SHIFT));
}

bool rig_right(struct rig *x, uint64_t page)
{
	const struct rig_swap *s = rig_swap(x);
	const uint64_t *w = rig_words(x, page);
	uint64_t want = s->want[page] == 1 ? 0 : s->want[page];

	if (s->want[page] == 0 && s->source)
		want = rig_byte(page << PAGE_SHIFT) * 0x0101010101010101ull;
	for (unsigned i = 0; i < PAGE_BYTES / 8; i += 7)
		if (w[i] != want)
			return false;
	return w[PAGE_BYTES / 8 - 1] == want;
}

void rig_put(struct rig *x, uint64_t page, uint64_t value)
{
	rig_swap(x)->want[page] = value;
	for (unsigned i = 0; i < PAGE_BYTES / 8; i++)
		rig_words(x, page)[i] = value == 1 ? 0 : value;
}

bool rig_visible(const struct rig *x, uint64_t page)
{
	return x->swap->pages[page] == RIG_VISIBLE;
}

void rig_guest_writes(struct rig *x, uint64_t page, uint64_t value)
{
	assert_true(rig_visible(x, page));
	rig_swap(x)->guarded[page] = false;
	rig_put(x, page, value);
}

void rig_vmm(struct rig *x, uint64_t page, uint64_t value)
{
	struct rig_swap *s = rig_swap(x);
	const struct mem_touch t = {{page << PAGE_SHIFT}, MEM_VIEW_VMM};
	unsigned slept = 0;
	struct err e;

	while (!s->vmm[page]) {
		unsigned woken = s->woken[page];

		assert_int_equal(hst_kernel_touch(&x->h, &t, &e), 0);
		rig_pump(x);
		assert_true(s->woken[page] != woken && slept++ < 4);
	}
	assert_true(rig_right(x, page));
	if (value) {
		s->vmm_guarded[page] = false;
		rig_put(x, page, value);
	}
}

void rig_native(struct rig *x, uint64_t page)
{
	struct rig_swap *s = rig_swap(x);

	assert_true(!s->watched && s->pages[page] == RIG_HOLE);
	s->pages[page] = RIG_VISIBLE;
	s->guarded[page] = false;
	s->allocated[page] = true;
}

void rig_device(struct rig *x, uint64_t page, uint64_t value)
{
	struct hst_waiter w = {.v = NULL};
	roff_t off = {page << PAGE_SHIFT};

	while (!hst_ensure(&x->h, off, &w)) {
		rig_pump(x);
		assert_null(w.fetch);
	}
	if (value) {
		hst_wrote(&x->h, off, 1);
		rig_put(x, page, value);
	}
	assert_true(rig_right(x, page));
}

/* ---- the evictor ---- */

void rig_obey(struct rig *x)
{
	struct rig_swap *s = rig_swap(x);

	for (unsigned i = 0; i < x->h.cfg.vcpus; i++) {
		bool on = x->h.evict.hold.on;

		if (on && rig_v(x, i)->where == HST_IN_GUEST) {
			assert_true(x->vcpus[i].kicked);
			rig_exit(x, i, true);
			x->vcpus[i].kicked = false;
			assert_int_equal(rig_next(x, i), HST_WAIT);
			s->held[i] = true;
		} else if (!on && s->held[i]) {
			x->vcpus[i].kicked = false;
			s->held[i] = false;
			(void)rig_next(x, i);
		}
	}
}

bool rig_swap_next(struct rig *x, struct hst_job *ret)
{
	bool found = false;

	/* A second look must find something to do or nothing, or a thread spins. */
	for (unsigned i = 0; !found && (i == 0 || hst_evict_wanted(&x->h)); i++) {
		assert_true(i < 4);
		found = hst_evict_next(&x->h, ret);
		rig_obey(x);
	}
	for (unsigned i = 0; found && ret->kind == HST_JOB_UNMAP && i < x->h.cfg.vcpus; i++)
		assert_true(rig_v(x, i)->where != HST_IN_GUEST ||
			    x->h.cfg.faults == HST_FAULTS_KERNEL);
	rig_assert_sound(x);
	return found;
}

bool rig_job(struct rig *x)
{
	bool wanted = hst_evict_wanted(&x->h);
	struct hst_job job;

	if (!rig_swap_next(x, &job))
		return false;
	assert_true(wanted || job.kind == HST_JOB_WATCH);
	hst_evict_work(&x->h, &job);
	hst_evict_done(&x->h, &job);
	rig_pump(x);
	return true;
}

void rig_evict(struct rig *x)
{
	for (unsigned i = 0;; i++) {
		bool more = rig_job(x);

		while (!rig_swap(x)->later && rig_swap(x)->count) {
			rig_write_ok(x, 0);
			rig_pump(x);
			more = true;
		}
		if (!more && timer_armed(&x->h.evict.hold.timer)) {
			/* The vCPUs have had their time. */
			uint64_t due = x->h.evict.hold.timer.due_ns;

			rig_after(x, due > x->now ? due - x->now : 0);
			more = true;
		}
		if (!more)
			break;
		assert_true(i < 10000);
	}
	assert_false(rig_swap(x)->broken_drop);
}

void rig_evict_all(struct rig *x)
{
	hst_evict_to(&x->h, 0);
	rig_evict(x);
	if (!rig_swap(x)->later)
		assert_false(hst_evict_forced(&x->h));
}

/* ---- what most tests begin with ---- */

struct rig *rig_sized(enum hst_faults faults, uint64_t pages, bool source, uint64_t limit)
{
	struct hst_cfg cfg = rig_cfg(faults, faults == HST_FAULTS_USER ? APF_REV_INT : APF_REV_OFF);

	return rig_swap_open(&cfg, pages, source, limit);
}

struct rig *rig_plain(bool source, uint64_t limit)
{
	return rig_sized(HST_FAULTS_BLOCK, 256, source, limit);
}

enum block_kind rig_kind(const struct rig *x, uint64_t page)
{
	return block_kind(&x->h, (uint32_t)rig_block(x, page));
}

void rig_write_pages(struct rig *x, uint64_t first, uint64_t count)
{
	for (uint64_t p = first; p < first + count; p++)
		rig_device(x, p, 0x1000 + p);
}

void rig_check_pages(struct rig *x, uint64_t first, uint64_t count)
{
	for (uint64_t p = first; p < first + count; p++)
		rig_device(x, p, 0);
}

void rig_touch(struct rig *x, uint64_t page, unsigned cpl)
{
	x->vcpus[0].cpu.cpl = (uint8_t)cpl;
	rig_fault(x, 0, page);
	rig_pump(x);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_true(rig_visible(x, page) && rig_right(x, page));
}

void rig_end_job(struct rig *x, struct hst_job *job)
{
	hst_evict_work(&x->h, job);
	hst_evict_done(&x->h, job);
	rig_assert_sound(x);
}

struct hst_job rig_take_job(struct rig *x, int want)
{
	struct hst_job job;

	assert_true(rig_swap_next(x, &job));
	while (job.kind == HST_JOB_WATCH || job.kind == HST_JOB_IMPORT) {
		rig_end_job(x, &job);
		assert_true(rig_swap_next(x, &job));
	}
	assert_int_equal(job.kind, want);
	return job;
}

void rig_swap_close(struct rig *x)
{
	assert_false(rig_swap(x)->broken_drop);
	rig_close(x);
}
