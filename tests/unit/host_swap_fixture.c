/* SPDX-License-Identifier: Apache-2.0 */
/* See host_swap_fixture.h. */
#include "host_swap_fixture.h"

struct hx_swap *hxs(struct hx *x)
{
	return x->swap;
}

/* ---- memory ---- */

uint64_t hxs_first(roff_t off)
{
	return off.v >> PAGE_SHIFT;
}

bool hxs_fails(struct hx *x, enum hx_take kind, struct err *e)
{
	struct hx_swap *s = hxs(x);

	s->calls[kind]++;
	if (s->fail[kind] == 0)
		return false;
	s->fail[kind]--;
	err_set(e, -ENOMEM, "fake memory: taking away, %d", (int)kind);
	return true;
}

void hxs_woken(struct hx *x, roff_t off, uint64_t len)
{
	for (uint64_t p = hxs_first(off); p < hxs_first(off) + (len >> PAGE_SHIFT); p++)
		hxs(x)->woken[p]++;
}

int hxs_present(void *ctx, roff_t off, uint64_t len, unsigned views, bool watch, struct err *e)
{
	struct hx *x = ctx;
	struct hx_swap *s = hxs(x);
	int rc = hx_mem_present(ctx, off, len, views, watch, e);

	hxs_woken(x, off, len);
	for (uint64_t p = hxs_first(off), end = p + (len >> PAGE_SHIFT); rc == 0 && p < end; p++) {
		s->allocated[p] = true;
		if (views & MEM_VIEW_VMM) {
			s->vmm_guarded[p] = s->vmm[p] ? s->vmm_guarded[p] : watch;
			s->vmm[p] = true;
		}
		if (!(views & MEM_VIEW_GUEST))
			continue;
		if (s->pages[p] != HX_VISIBLE)
			s->guarded[p] = watch;
		s->pages[p] = HX_VISIBLE;
	}
	return rc;
}

int hxs_poison(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	struct hx_swap *s = hxs(ctx);
	int rc = hx_mem_poison(ctx, off, len, e);

	hxs_woken(ctx, off, len);
	for (uint64_t p = hxs_first(off); rc == 0 && p < hxs_first(off) + (len >> PAGE_SHIFT); p++)
		if (s->pages[p] == HX_HOLE)
			s->pages[p] = HX_POISONED;
	return rc;
}

int hxs_unmap(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	struct hx *x = ctx;
	struct hx_swap *s = hxs(x);
	uint64_t n = len >> PAGE_SHIFT;
	bool fails = hxs_fails(x, HX_TAKE_UNMAP, e);

	if (fails)
		n = min_u64(n, s->half);
	for (uint64_t p = hxs_first(off); p < hxs_first(off) + n; p++) {
		/* What was out of the mapping before is not known to be unwritten. */
		s->guarded[p] &= s->pages[p] == HX_VISIBLE;
		s->vmm_guarded[p] &= s->vmm[p];
		s->pages[p] = HX_HOLE;
		s->vmm[p] = false;
	}
	return fails ? -ENOMEM : 0;
}

int hxs_collect(void *ctx, roff_t off, uint64_t len, mem_pages written, mem_pages ret_vmm,
		struct err *e)
{
	struct hx *x = ctx;
	struct hx_swap *s = hxs(x);
	uint64_t n = len >> PAGE_SHIFT;
	bool poison = x->h.cfg.faults != HST_FAULTS_KERNEL;
	bool fails = hxs_fails(x, HX_TAKE_COLLECT, e);

	assert_true(n <= MEM_PAGES_MAX);
	if (fails)
		n = min_u64(n, s->half);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t p = hxs_first(off) + i;

		assert_int_not_equal(s->pages[p], HX_VISIBLE);
		assert_false(s->vmm[p]);
		if (!s->vmm_guarded[p])
			ret_vmm[i / 64] |= 1ull << (i % 64);
		s->vmm_guarded[p] = false;
		if (!s->guarded[p])
			written[i / 64] |= 1ull << (i % 64);
		s->guarded[p] = false;
		if (poison)
			s->pages[p] = HX_POISONED;
		s->woken[p] += poison;
	}
	return fails ? -ENOMEM : 0;
}

int hxs_drop(void *ctx, roff_t off, uint64_t len, struct err *e)
{
	struct hx *x = ctx;
	struct hx_swap *s = hxs(x);
	uint64_t n = len >> PAGE_SHIFT;
	bool fails = hxs_fails(x, HX_TAKE_DROP, e);

	if (fails)
		n = min_u64(n, s->half);
	for (uint64_t p = hxs_first(off); p < hxs_first(off) + n; p++) {
		s->broken_drop |= s->pages[p] == HX_VISIBLE || s->vmm[p];
		/* What is discarded may be none, and nobody wants it back. */
		s->broken_drop |= !x->discards && !s->allocated[p];
		/* What is not durable must not be all that there is. */
		s->broken_drop |= !x->discards && s->risky[p] &&
				  block_is(&x->h, (uint32_t)hx_block(x, p), BLOCK_IN_SWAP);
		s->allocated[p] = fails && s->allocated[p];
		if (s->lost[p])
			assert_int_equal(x->alias[p << PAGE_SHIFT], HXS_LOST);
		s->lost[p] = false;
		memset(x->alias + (p << PAGE_SHIFT), 0, PAGE_BYTES);
	}
	return fails ? -ENOMEM : 0;
}

bool hxs_is_broken(void *ctx, roff_t off)
{
	return hxs(ctx)->lost[hxs_first(off)];
}

void hxs_lose(struct hx *x, uint64_t page)
{
	hxs(x)->lost[page] = true;
	memset(x->alias + (page << PAGE_SHIFT), HXS_LOST, PAGE_BYTES);
}

int hxs_watch_all(void *ctx, struct err *e)
{
	if (hxs_fails(ctx, HX_TAKE_WATCH, e))
		return -ENOMEM;
	hxs(ctx)->watched = true;
	return 0;
}

int hxs_resident(void *ctx, roff_t off, uint64_t len, mem_pages ret, struct err *e)
{
	struct hx_swap *s = hxs(ctx);

	assert_true(s->watched && len <= MEM_PAGES_MAX * PAGE_BYTES);
	if (hxs_fails(ctx, HX_TAKE_RESIDENT, e))
		return -ENOMEM;
	for (uint64_t i = 0; i < len >> PAGE_SHIFT; i++)
		if (s->pages[hxs_first(off) + i] == HX_VISIBLE)
			ret[i / 64] |= 1ull << (i % 64);
	return 0;
}

uint64_t hxs_resident_bytes(void *ctx)
{
	uint64_t n = 0;

	for (unsigned p = 0; p < HXS_PAGES; p++)
		n += hxs(ctx)->allocated[p];
	return n * PAGE_BYTES;
}

/* ---- the file ---- */

void hxs_copy(struct hx_swap *s, const struct hx_write *w, size_t len, size_t from)
{
	for (size_t at = from; at < len; at += 128)
		memcpy(s->disk + w->off + at, w->buf + at, min_u64(64, len - at));
}

void hxs_sync_end(struct hx *x, int res)
{
	struct hx_swap *s = hxs(x);
	struct io_req *rq = s->sync;

	assert_non_null(rq);
	s->sync = NULL;
	for (unsigned p = 0; p < HXS_PAGES; p++) {
		if (res < 0 && s->risky[p])
			memset(s->disk + HXS_HEAD + p * PAGE_BYTES, 0xee, PAGE_BYTES);
		if (res < 0 || s->syncing[p])
			s->risky[p] = false;
		s->syncing[p] = false;
	}
	rq->done(rq, res);
}

void hxs_sync(void *ctx, struct io_file *file, struct io_req *rq)
{
	struct hx_swap *s = hxs(ctx);

	assert_null(file);
	assert_null(s->sync);
	s->sync = rq;
	s->syncs++;
	s->sync_cancelled = false;
	memcpy(s->syncing, s->risky, sizeof(s->risky));
}

void hxs_write_end(struct hx *x, unsigned i, int res)
{
	struct hx_swap *s = hxs(x);
	struct hx_write w = s->writes[i];

	assert_true(i < s->count);
	memmove(&s->writes[i], &s->writes[i + 1], (--s->count - i) * sizeof(w));
	if (res > 0)
		hxs_copy(s, &w, (size_t)res, 64);
	for (int at = 0; at < res; at += PAGE_BYTES) {
		s->risky[(w.off - HXS_HEAD + (unsigned)at) >> PAGE_SHIFT] = true;
		s->syncing[(w.off - HXS_HEAD + (unsigned)at) >> PAGE_SHIFT] = false;
	}
	w.rq->done(w.rq, res);
	while (s->sync && !s->sync_later)
		hxs_sync_end(x, 0);
}

void hxs_write_ok(struct hx *x, unsigned i)
{
	hxs_write_end(x, i, (int)hxs(x)->writes[i].len);
}

void hxs_write(void *ctx, struct io_file *file, struct io_req *rq, uint64_t off, const void *buf,
	       size_t len)
{
	struct hx *x = ctx;
	struct hx_swap *s = hxs(x);

	assert_null(file);
	assert_true(s->count < HXS_WRITES && len > 0);
	assert_true(len <= max_u64(HST_WRITE_BYTES_MAX, 1ull << x->h.cfg.block_shift));
	assert_true(off >= HXS_HEAD && off + len <= sizeof(s->disk));
	s->writes[s->count++] = (struct hx_write){.rq = rq, .off = off, .buf = buf, .len = len};
	hxs_copy(s, &s->writes[s->count - 1], len, 0);
}

void hxs_cancel(void *ctx, struct io_req *rq)
{
	struct hx_swap *s = hxs(ctx);

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

const struct mem_ops *hxs_mem_ops(void)
{
	static const struct mem_ops ops = {
		.present = hxs_present,
		.poison = hxs_poison,
		.watch_all = hxs_watch_all,
		.resident = hxs_resident,
		.unmap = hxs_unmap,
		.collect = hxs_collect,
		.drop = hxs_drop,
		.is_broken = hxs_is_broken,
		.resident_bytes = hxs_resident_bytes,
	};

	return &ops;
}

struct hx *hxs_open(const struct hst_cfg *cfg, uint64_t pages, bool source, uint64_t limit)
{
	static const struct io_ops io_ops = {
		.write = hxs_write, .sync = hxs_sync, .cancel = hxs_cancel};
	uint64_t block = 1ull << cfg->block_shift, bytes = align_up(pages << PAGE_SHIFT, block);
	struct hst_cfg c = *cfg;
	struct hx *x = hx_prepare(bytes);
	struct hx_swap *s = x->swap = calloc(1, sizeof(*s));

	assert_non_null(s);
	assert_true(bytes <= HXS_PAGES * PAGE_BYTES);
	c.evict = true;
	c.resident_max = limit << cfg->block_shift;
	s->source = source;
	s->watched = source || block > PAGE_BYTES;
	s->src = (struct hx_src){.src = {.ops = x->src.src.ops, .size = sizeof(s->disk)},
				 .x = x, .answers = HX_AT_ONCE, .disk = s->disk,
				 .allocated = s->allocated};
	/* What was never written must not pass for zeroes. */
	memset(s->disk, 0xdd, sizeof(s->disk));
	assert_int_equal(ram_add_region(&x->h.ram, (gpa_t){HX_GPA}, bytes, block), RAM_ADDED);
	if (source)
		assert_int_equal(ram_add_backing(&x->h.ram, (gpa_t){HX_GPA}, bytes, &x->src.src,
						 0, block), RAM_ADDED);
	x->h.swap = (struct hst_swap){
		.io = {&io_ops, x},
		.offset = HXS_HEAD,
		.backing = {.bytes = bytes, .src = &s->src.src, .src_offset = HXS_HEAD},
	};
	grace_init(&x->h.swap.backing.grace);
	x->src.answers = HX_AT_ONCE;
	x->src.allocated = s->allocated;
	hx_start(x, &c);
	x->h.mem.ops = hxs_mem_ops();
	return x;
}

/* ---- content ---- */

uint64_t *hxs_words(struct hx *x, uint64_t page)
{
	return (uint64_t *)(void *)(x->alias + (page << PAGE_SHIFT));
}

bool hxs_right(struct hx *x, uint64_t page)
{
	const struct hx_swap *s = hxs(x);
	const uint64_t *w = hxs_words(x, page);
	uint64_t want = s->want[page] == 1 ? 0 : s->want[page];

	if (s->want[page] == 0 && s->source)
		want = hx_byte(page << PAGE_SHIFT) * 0x0101010101010101ull;
	for (unsigned i = 0; i < PAGE_BYTES / 8; i += 7)
		if (w[i] != want)
			return false;
	return w[PAGE_BYTES / 8 - 1] == want;
}

void hxs_put(struct hx *x, uint64_t page, uint64_t value)
{
	hxs(x)->want[page] = value;
	for (unsigned i = 0; i < PAGE_BYTES / 8; i++)
		hxs_words(x, page)[i] = value == 1 ? 0 : value;
}

bool hxs_visible(const struct hx *x, uint64_t page)
{
	return x->swap->pages[page] == HX_VISIBLE;
}

void hxs_guest_writes(struct hx *x, uint64_t page, uint64_t value)
{
	assert_true(hxs_visible(x, page));
	hxs(x)->guarded[page] = false;
	hxs_put(x, page, value);
}

void hxs_vmm(struct hx *x, uint64_t page, uint64_t value)
{
	struct hx_swap *s = hxs(x);
	const struct mem_touch t = {{page << PAGE_SHIFT}, MEM_VIEW_VMM};
	unsigned slept = 0;
	struct err e;

	while (!s->vmm[page]) {
		unsigned woken = s->woken[page];

		assert_int_equal(hst_kernel_touch(&x->h, &t, &e), 0);
		hx_pump(x);
		assert_true(s->woken[page] != woken && slept++ < 4);
	}
	assert_true(hxs_right(x, page));
	if (value) {
		s->vmm_guarded[page] = false;
		hxs_put(x, page, value);
	}
}

void hxs_native(struct hx *x, uint64_t page)
{
	struct hx_swap *s = hxs(x);

	assert_true(!s->watched && s->pages[page] == HX_HOLE);
	s->pages[page] = HX_VISIBLE;
	s->guarded[page] = false;
	s->allocated[page] = true;
}

void hxs_device(struct hx *x, uint64_t page, uint64_t value)
{
	struct hst_waiter w = {.v = NULL};
	roff_t off = {page << PAGE_SHIFT};

	while (!hst_ensure(&x->h, off, &w)) {
		hx_pump(x);
		assert_null(w.fetch);
	}
	if (value) {
		hst_wrote(&x->h, off, 1);
		hxs_put(x, page, value);
	}
	assert_true(hxs_right(x, page));
}

/* ---- the evictor ---- */

void hxs_obey(struct hx *x)
{
	struct hx_swap *s = hxs(x);

	for (unsigned i = 0; i < x->h.cfg.vcpus; i++) {
		bool on = x->h.evict.hold.on;

		if (on && hx_v(x, i)->where == HST_IN_GUEST) {
			assert_true(x->vcpus[i].kicked);
			hx_exit(x, i, true);
			x->vcpus[i].kicked = false;
			assert_int_equal(hx_next(x, i), HST_WAIT);
			s->held[i] = true;
		} else if (!on && s->held[i]) {
			x->vcpus[i].kicked = false;
			s->held[i] = false;
			(void)hx_next(x, i);
		}
	}
}

bool hxs_next(struct hx *x, struct hst_job *ret)
{
	bool found = false;

	/* A second look must find something to do or nothing, or a thread spins. */
	for (unsigned i = 0; !found && (i == 0 || hst_evict_wanted(&x->h)); i++) {
		assert_true(i < 4);
		found = hst_evict_next(&x->h, ret);
		hxs_obey(x);
	}
	for (unsigned i = 0; found && ret->kind == HST_JOB_UNMAP && i < x->h.cfg.vcpus; i++)
		assert_true(hx_v(x, i)->where != HST_IN_GUEST ||
			    x->h.cfg.faults == HST_FAULTS_KERNEL);
	hx_assert_sound(x);
	return found;
}

bool hxs_job(struct hx *x)
{
	bool wanted = hst_evict_wanted(&x->h);
	struct hst_job job;

	if (!hxs_next(x, &job))
		return false;
	assert_true(wanted || job.kind == HST_JOB_WATCH);
	hst_evict_work(&x->h, &job);
	hst_evict_done(&x->h, &job);
	hx_pump(x);
	return true;
}

void hxs_evict(struct hx *x)
{
	for (unsigned i = 0;; i++) {
		bool more = hxs_job(x);

		while (!hxs(x)->later && hxs(x)->count) {
			hxs_write_ok(x, 0);
			hx_pump(x);
			more = true;
		}
		if (!more && timer_armed(&x->h.evict.hold.timer)) {
			/* The vCPUs have had their time. */
			uint64_t due = x->h.evict.hold.timer.due_ns;

			hx_after(x, due > x->now ? due - x->now : 0);
			more = true;
		}
		if (!more)
			break;
		assert_true(i < 10000);
	}
	assert_false(hxs(x)->broken_drop);
}

void hxs_evict_all(struct hx *x)
{
	hst_evict_to(&x->h, 0);
	hxs_evict(x);
	if (!hxs(x)->later)
		assert_false(hst_evict_forced(&x->h));
}

/* ---- what most tests begin with ---- */

struct hx *hxs_sized(enum hst_faults faults, uint64_t pages, bool source, uint64_t limit)
{
	struct hst_cfg cfg = hx_cfg(faults, faults == HST_FAULTS_USER ? APF_REV_INT : APF_REV_OFF);

	return hxs_open(&cfg, pages, source, limit);
}

struct hx *hxs_plain(bool source, uint64_t limit)
{
	return hxs_sized(HST_FAULTS_BLOCK, 256, source, limit);
}

enum block_kind hxs_kind(const struct hx *x, uint64_t page)
{
	return block_kind(&x->h, (uint32_t)hx_block(x, page));
}

void hxs_write_pages(struct hx *x, uint64_t first, uint64_t count)
{
	for (uint64_t p = first; p < first + count; p++)
		hxs_device(x, p, 0x1000 + p);
}

void hxs_check_pages(struct hx *x, uint64_t first, uint64_t count)
{
	for (uint64_t p = first; p < first + count; p++)
		hxs_device(x, p, 0);
}

void hxs_touch(struct hx *x, uint64_t page, unsigned cpl)
{
	x->vcpus[0].cpu.cpl = (uint8_t)cpl;
	hx_fault(x, 0, page);
	hx_pump(x);
	assert_int_equal(hx_next(x, 0), HST_ENTER);
	assert_true(hxs_visible(x, page) && hxs_right(x, page));
}

void hxs_end_job(struct hx *x, struct hst_job *job)
{
	hst_evict_work(&x->h, job);
	hst_evict_done(&x->h, job);
	hx_assert_sound(x);
}

struct hst_job hxs_take_job(struct hx *x, int want)
{
	struct hst_job job;

	assert_true(hxs_next(x, &job));
	while (job.kind == HST_JOB_WATCH || job.kind == HST_JOB_IMPORT) {
		hxs_end_job(x, &job);
		assert_true(hxs_next(x, &job));
	}
	assert_int_equal(job.kind, want);
	return job;
}

void hxs_close(struct hx *x)
{
	assert_false(hxs(x)->broken_drop);
	hx_close(x);
}
