/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VMM does around the driver: sets a host up, takes it down, pauses, resumes, resets a
 * processor, saves the VM on one host and restores it on the next.
 */
#include <string.h>

#include "base/assert.h"
#include "sim/world.h"
#include "source/source.h"

#define SAVE_NEXT_ID 20u /* where the id of the next token lies: engine/save.c */

/* ---- hosts ---- */

static void outside_ready(void *ctx)
{
	struct sim *w = ctx;

	if (w->device.waiting && !w->device.waiter.fetch)
		w->device.ready = true;
	sim_vmm_threads_ready(w);
}

static void wrote(void *ctx, gpa_t gpa, uint64_t bytes)
{
	sim_snap_mark(ctx, gpa, bytes);
}

static void trouble(void *ctx, const struct hst_trouble *t)
{
	struct sim *w = ctx;
	uint32_t page = 0;
	bool ram = t && sim_gpa_page(w, t->gpa, &page);

	sim_log_add(w->log, w->now_ns, t ? SIM_OP_TROUBLE : SIM_OP_GOES_ON, SIM_LOG_NOBODY,
		    page,
		    t ? (uint64_t)(int64_t)t->why.code : 0);
	if (!t)
		return;
	w->counts.troubles++;
	/* None is named where it is not about any. */
	if (!ram && t->gpa.v != 0)
		sim_broken(w, 0, "the VM stands still for no memory", t->gpa.v, 0);
	w->host->failed[page] = 0;
	/* 44: told within a bounded number of tries. */
	if (t->tries > w->cfg.retries_max + 1)
		sim_broken(w, 44, "a source was tried more often than asked for", t->tries, 0);
	if (w->resume_ns == NS_NEVER)
		w->resume_ns = w->now_ns + sim_rnd(w, 10 * NS_PER_MS);
}

void sim_host_start(struct sim *w, struct sim_host *h)
{
	const struct sim_cfg *c = &w->cfg;
	const struct hst_cfg cfg = {
		.faults = c->faults,
		.rev = c->rev,
		.vcpus = c->vcpus,
		.block_shift = c->block_shift,
		.faults_max = c->faults_max,
		.queue_depth = c->queue_depth,
		.retries_max = c->retries_max,
		.ahead_max = c->ahead_max,
		.grace_ns = c->grace_ns,
		.source_timeout_ns = c->source_timeout_ns,
		.evict = c->evict,
		.resident_max = (uint64_t)c->resident_blocks << c->block_shift,
	};
	const uint64_t span = sim_pages(w) << PAGE_SHIFT;
	struct err e = {0};
	int rc;

	h->w = w;
	h->hst = (struct hst){.blocks = NULL};
	h->read_count = 0;
	h->touch_count = 0;
	h->lib_pumping = false;
	h->lib_late_ns = 0;
	h->lib = (struct sim_pump){.shows = false};
	h->evict = (struct sim_evict){.look_ns = w->now_ns};
	h->swap_src = NULL;
	h->lost_area = false;
	h->over = 0;
	memset(h->risky, 0, sim_pages(w));
	sim_mem_init(w, h);
	h->hst.mem = (struct mem){&sim_mem_ops, h, h->alias, span};
	h->hst.plat = (struct plat){&sim_plat_ops, w};
	h->hst.io = (struct io){&sim_io_ops, h};
	h->hst.hooks = (struct hst_hooks){
		.outside_ready = outside_ready, .trouble = trouble, .wrote = wrote, .ctx = w};
	ASSERT(hst_bytes(&cfg, span) <= h->space_bytes);
	memset(h->space, 0, hst_bytes(&cfg, span));
	hst_init(&h->hst, &cfg, h->space);
	rc = sim_source_open(w, h, &e);
	ASSERT(rc == 0);
	ASSERT(ram_add_region(&h->hst.ram, (gpa_t){SIM_GPA}, SIM_RAM_BYTES, CHUNK_BYTES) ==
	       RAM_ADDED);
	ASSERT(ram_add_backing(&h->hst.ram, (gpa_t){SIM_GPA}, SIM_RAM_BYTES, h->src, 0,
			       1ull << c->block_shift) == RAM_ADDED);
	hst_ram_added(&h->hst);
	sim_parts_start(w, h);
}

/* The engines are restored to a state in which they have issued many tokens. */
void sim_host_age(struct sim *w, struct sim_host *h)
{
	unsigned char bytes[SIM_SAVE_BYTES_MAX];

	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		struct hst_vcpu *hv = &h->hst.vcpus[i];
		size_t len = hst_vcpu_save(hv, bytes);

		memcpy(bytes + SAVE_NEXT_ID, &w->cfg.next_id, sizeof(w->cfg.next_id));
		if (!hst_vcpu_restore(hv, bytes, len))
			sim_broken(w, 40, "a saved state is refused", i, len);
	}
}

void sim_host_stop(struct sim *w, struct sim_host *h)
{
	hst_forget(&w->device.waiter);
	sim_vmm_threads_leave(w);
	hst_stop(&h->hst);
	sim_io_ops.flush(h);
	sim_io_drain(w, h);
	if (!hst_is_idle(&h->hst)) {
		sim_broken(w, 43, "reads outlive their host", h->hst.in_flight, 0);
		return;
	}
	src_close(h->src);
	src_close(h->swap_src);
	sim_parts_stop(w, h);
}

/* ---- reset ---- */

/* For all of the protocol's registers: pf2's CTL has a bit that KVM does not know. */
static bool kvm_has_room(const struct sim *w)
{
	return w->cfg.rev == APF_REV_LEGACY || w->cfg.rev == APF_REV_INT;
}

void sim_vmm_reset_cpu(struct sim_vcpu *v)
{
	struct sim *w = v->w;

	v->init = false;
	sim_cpu_reset(v);
	/* KVM's registers, too, as its own INIT clears them. */
	v->kvm_clock = 0;
	if (kvm_has_room(w)) {
		v->kvm_en = 0;
		v->kvm_ctl = 0;
	}
	v->cpu.apic_on = !sim_has(w, SIM_FAULT_APIC) || sim_chance(w, 2);
	v->wishes = v->cpu.apic_on ? 0 : SIM_WISH_APIC_ON;
	sim_guest_boot(v);
}

static void tell_reset(struct sim *w, struct sim_vcpu *v)
{
	w->counts.resets++;
	sim_log_add(w->log, w->now_ns, SIM_OP_RESET, v->index, 0, 0);
	sim_chk_enter(w);
	/* A load ends with the life that wanted it; a store was made. */
	v->io_pending &= v->io_write;
	hst_vcpu_reset(sim_hv(v));
	sim_chk_leave(w);
	sim_chk_forget(v);
	v->chk.en = 0;
	v->chk.eoi_due = 0;
	if (w->cfg.rev == APF_REV_INT)
		v->chk.ctl = 0;
}

static void reset(struct sim *w, struct sim_vcpu *v)
{
	tell_reset(w, v);
	sim_vmm_reset_cpu(v);
	v->did = HST_DID_CALL;
	v->th = SIM_TH_STEP;
}

void sim_vmm_reset_running(struct sim_vcpu *v)
{
	/* Between an exit and what it means only who has stopped the thread can reset. */
	if (v->w->job != SIM_VMM_NONE || (v->th == SIM_TH_STEP && v->did == HST_DID_RUN))
		return;
	tell_reset(v->w, v);
	if (v->th != SIM_TH_GUEST) {
		sim_vmm_reset_cpu(v);
		return;
	}
	/* The registers are set when KVM_RUN has returned, which the driver has to bring about. */
	if (!v->kick)
		sim_broken(v->w, 0, "a reset leaves the vCPU in the guest", v->index, 0);
	v->init = true;
}

/* ---- migration ---- */

void sim_vcpus_save(struct sim *w, struct sim_host *h, struct sim_saved *s)
{
	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		const struct hst_vcpu *hv = &h->hst.vcpus[i];

		ASSERT(hst_vcpu_save_bytes(hv) <= SIM_SAVE_BYTES_MAX);
		s[i].len = hst_vcpu_save(hv, s[i].bytes);
		s[i].kvm_en = w->vcpus[i].kvm_en;
		s[i].kvm_ctl = w->vcpus[i].kvm_ctl;
		s[i].en = 0;
		s[i].ctl = 0;
		(void)eng_rdmsr(&hv->eng, APF_MSR_EN, &s[i].en);
		(void)eng_rdmsr(&hv->eng, APF_MSR_CTL, &s[i].ctl);
	}
	if (h->visible[w->vcpus[0].area_page])
		memcpy(w->areas_expect, sim_area(&w->vcpus[0]), sizeof(w->areas_expect));
}

static void save(struct sim *w, struct sim_host *h, struct sim_saved *s)
{
	sim_vcpus_save(w, h, s);
	/* As whoever sends the memory away would read it: that is checked all the time. */
	for (uint32_t p = SIM_PAGE_FIRST; p < SIM_PAGE_FIRST + SIM_USED_PAGES; p++)
		w->image[p] = w->expect[p];
	sim_parts_save(w);
	memcpy(w->areas, w->areas_expect, sizeof(w->areas));
	w->source_pages = SIM_PAGE_FIRST + SIM_USED_PAGES;
}

static void books_lost(struct sim_vcpu *v)
{
	sim_chk_forget(v);
	for (unsigned i = 0; i < v->w->cfg.tasks; i++)
		v->tasks[i].orphan = true;
}

/*
 * By KVM's registers, which the driver has shown there at rest, and finds when the vCPU runs: the
 * VMM knows of no driver.
 */
static void restore_in_kvm(struct sim_vcpu *v, const struct sim_saved *s)
{
	v->kvm_en = s->kvm_en;
	v->kvm_ctl = s->kvm_ctl;
	books_lost(v);
	v->chk.wake_all_owed = sim_chk_enabled(v);
}

/* By the two registers, in either order: the engine's books are lost, a wake-all mends it. */
static void restore_registers(struct sim_vcpu *v, const struct sim_saved *s, bool en_first)
{
	struct hst_vcpu *hv = sim_hv(v);
	bool has_ctl = v->w->cfg.rev != APF_REV_LEGACY;

	if (v->w->cfg.faults != HST_FAULTS_USER)
		return;
	if (en_first)
		(void)hst_vcpu_set_msr(hv, APF_MSR_EN, s->en);
	if (has_ctl && !hst_vcpu_set_msr(hv, APF_MSR_CTL, s->ctl))
		sim_broken(v->w, 40, "a saved register is refused", APF_MSR_CTL, s->ctl);
	/* pf2-strict keeps a value that it refused. */
	if (!en_first && !hst_vcpu_set_msr(hv, APF_MSR_EN, s->en) && !sim_strict(v->w))
		sim_broken(v->w, 40, "a saved register is refused", APF_MSR_EN, s->en);
	books_lost(v);
	v->chk.wake_all_owed = eng_enabled(&hv->eng) && hv->eng.wake_all_due;
}

void sim_vcpu_arrive(struct sim_vcpu *v, const struct sim_saved *s, enum sim_way way)
{
	uint64_t before;
	uint32_t page;

	v->gst.area = sim_area(v);
	v->kernel_wait = false;
	v->incomplete = false;
	/* A load is made again; a store has been executed, and is the host's to carry out. */
	v->io_pending &= v->io_write;
	v->kick = false;
	v->did = HST_DID_CALL;
	v->cpu.pf_known = false;
	sim_chk_moved(v);
	v->cpu.halted_by_host = false;
	before = *(uint64_t *)(void *)sim_area(v);
	/* A VMM that knows the registers only lets nothing of an instruction lie. */
	/* Every VMM passes on KVM's clock, whose memory is not there yet. */
	v->clock_there = false;
	v->clock_left = !sim_gpa_page(v->w, (gpa_t){v->kvm_clock & ~1ull}, &page);
	v->kvm_en = v->kvm_ctl = 0;
	v->shown_en = v->shown_ctl = 0;
	if (way == SIM_WAY_KVM && !v->io_pending)
		restore_in_kvm(v, s);
	else if (way != SIM_WAY_WHOLE && !v->io_pending)
		restore_registers(v, s, way == SIM_WAY_EN_FIRST);
	else if (!hst_vcpu_restore(sim_hv(v), s->bytes, s->len))
		sim_broken(v->w, 40, "a saved state is refused", v->index, s->len);
	/* 41: nothing is written before the guest runs. */
	if (*(uint64_t *)(void *)sim_area(v) != before)
		sim_broken(v->w, 41, "restoring wrote into the area", v->index, before);
	v->th = SIM_TH_STEP;
}

static struct sim_host *other_host(struct sim *w)
{
	return w->host == &w->hosts[0] ? &w->hosts[1] : &w->hosts[0];
}

static void migrate(struct sim *w)
{
	struct sim_saved s[SIM_VCPUS_MAX];
	struct sim_host *from = w->host, *to = other_host(w);
	enum sim_way way = SIM_WAY_WHOLE;

	if (sim_chance(w, 2))
		way = kvm_has_room(w) && sim_chance(w, 2) ? SIM_WAY_KVM
		      : sim_chance(w, 2)	   ? SIM_WAY_EN_FIRST
						   : SIM_WAY_CTL_FIRST;
	w->counts.migrations++;
	sim_log_add(w->log, w->now_ns, SIM_OP_MIGRATE, SIM_LOG_NOBODY, way, 0);
	save(w, from, s);
	sim_host_stop(w, from);
	w->device = (struct sim_device){.due_ns = w->now_ns};
	w->host = to;
	w->resume_ns = NS_NEVER;
	w->paused = false;
	sim_host_start(w, to);
	for (unsigned i = 0; i < w->cfg.vcpus; i++)
		sim_vcpu_arrive(&w->vcpus[i], &s[i], way);
}

/* The VM ends, and another one of an earlier moment takes its place. */
static void restore(struct sim *w)
{
	w->counts.restores++;
	sim_log_add(w->log, w->now_ns, SIM_OP_RESTORE, SIM_LOG_NOBODY, 0, 0);
	sim_host_stop(w, w->host);
	w->device = (struct sim_device){.due_ns = w->now_ns};
	w->resume_ns = NS_NEVER;
	w->paused = false;
	sim_snap_restore(w, other_host(w));
}

/* ---- the VMM's own steps ---- */

void sim_vmm_want(struct sim *w, enum sim_vmm_job job, unsigned vcpu)
{
	if (w->job != SIM_VMM_NONE)
		return;
	w->job = job;
	w->job_vcpu = vcpu;
	if (job == SIM_VMM_MIGRATE || job == SIM_VMM_RESTORE) {
		sim_chk_enter(w);
		hst_pause(&w->host->hst);
		sim_chk_leave(w);
		w->resume_ns = NS_NEVER;
	}
	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		if (job == SIM_VMM_RESET && i != vcpu)
			continue;
		w->vcpus[i].vmm_keeps = true;
		/* By the library's call, or as it would kick KVM itself. */
		if (sim_chance(w, 2)) {
			w->vcpus[i].vmm_signal = true;
			continue;
		}
		sim_chk_enter(w);
		hst_vcpu_call_back(sim_hv(&w->vcpus[i]));
		sim_chk_leave(w);
	}
}

bool sim_vmm_keeps(struct sim_vcpu *v)
{
	bool keeps = v->vmm_keeps;

	v->vmm_keeps = false;
	return keeps;
}

static bool job_ready(const struct sim *w)
{
	if (w->job == SIM_VMM_NONE || w->job == SIM_VMM_STAND)
		return false;
	if (w->job == SIM_VMM_RESET)
		return w->vcpus[w->job_vcpu].th == SIM_TH_STOPPED;
	for (unsigned i = 0; i < w->cfg.vcpus; i++)
		if (w->vcpus[i].th != SIM_TH_STOPPED)
			return false;
	return !w->host->lib_pumping && !w->host->evict.pumping &&
	       !w->host->evict.evicting.working && !w->device.pumping && !w->vmm_pumping &&
	       sim_vmm_threads_may_move(w);
}

bool sim_vmm_runnable(const struct sim *w)
{
	return w->vmm_pumping || job_ready(w) ||
	       (w->job != SIM_VMM_MIGRATE && w->job != SIM_VMM_RESTORE &&
		w->resume_ns <= w->now_ns);
}

bool sim_vmm_resume(struct sim *w, struct sim_pump *pump)
{
	/* Everybody has all tries again. */
	memset(w->host->failed, 0, sizeof(w->host->failed));
	sim_chk_enter(w);
	hst_resume(&w->host->hst);
	sim_chk_leave(w);
	return !sim_pump_step(w, pump);
}

void sim_vmm_step(struct sim *w)
{
	if (w->vmm_pumping) {
		w->vmm_pumping = !sim_pump_step(w, &w->vmm_pump);
		return;
	}
	if (job_ready(w)) {
		enum sim_vmm_job job = w->job;

		w->job = SIM_VMM_NONE;
		if (job == SIM_VMM_RESET)
			reset(w, &w->vcpus[w->job_vcpu]);
		else if (job == SIM_VMM_MIGRATE)
			migrate(w);
		else
			restore(w);
		return;
	}
	w->resume_ns = NS_NEVER;
	w->paused = false;
	sim_log_add(w->log, w->now_ns, SIM_OP_RESUME, SIM_LOG_NOBODY, 0, 0);
	/* A snapshot's moment is not cut short. */
	if (!w->snap.moment)
		w->vmm_pumping = sim_vmm_resume(w, &w->vmm_pump);
}
