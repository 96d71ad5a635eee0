/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ten thousand vCPUs do to one host: a queueing model driven by the shipped engine of
 * each vCPU. Coarser than the rest of this folder, and not checked: no driver, no memory, no
 * guest code, only who waits for whom. A vCPU runs one task at a time; a task computes, then
 * touches an absent page; the engine says whether that may be announced; the VM's queue lets
 * so many reads through; the source does so many a second, each taking its time; the VM's
 * thread hands pages over one after the other; the engine lets one page-ready out at a time. That
 * the guest has freed its slot is seen as by the driver (host/deliver.c): when the next page comes,
 * at the vCPU's next fault, and by a timer.
 * Times in nanoseconds, integers only.
 */
#include "sim/scale.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/hist.h"
#include "base/prng.h"
#include "engine/engine.h"

enum kind { CPU_DONE, FETCHED, HANDED_OVER, IRQ_DONE, LOOK };

struct event {
	uint64_t ns;
	uint32_t vcpu;
	uint16_t index; /* of the engine's fault */
	uint16_t kind;
};

enum cpu { IDLE, COMPUTES, HALTED };

#define NO_FAULT UINT16_MAX /* the index of a fault that halted its vCPU */

/* As in host/deliver.c. */
#define LOOK_FIRST_NS (250 * NS_PER_US)
#define LOOK_MAX_NS (50 * NS_PER_MS)

struct vcpu {
	struct eng_vcpu eng;
	uint64_t *since; /* per fault: when the task touched the page */
	enum cpu cpu;
	uint64_t until_ns; /* of the computing; interrupts push it away */
	uint64_t irq_free_ns;
	uint64_t slot_since;
	uint64_t halted_since;
	uint64_t look_at_ns;   /* the timer; 0: not armed */
	uint64_t look_next_ns; /* its next interval; 0: the first */
	bool look_queued;      /* its event, one at most, which may be too early */
	uint32_t slot;
	uint32_t runnable; /* tasks, without the running one */
};

struct fetch {
	uint32_t vcpu;
	uint16_t index;
};

struct vm {
	uint64_t thread_free_ns;
	uint32_t in_flight;
	struct fetch *waiting; /* ring; a place for every task */
	uint32_t head, len;
	uint64_t full_since_ns;
};

struct scale {
	const struct sim_scale_cfg *c;
	struct prng rng;
	uint64_t now_ns, source_free_ns;
	struct event *heap;
	uint32_t heap_len, heap_cap;
	struct vcpu *vcpus;
	struct vm *vms;
	struct eng_fault *faults;
	uint64_t *since;
	struct fetch *waiting;
	uint32_t hist[HIST_BUCKETS];
	uint64_t wait_max_us;
	uint64_t wait_ns, done, missing, ready, stalls, full_ns, computed_ns, started;
};

/* ---- events in order of time ---- */

static void push(struct scale *s, uint64_t ns, enum kind kind, uint32_t vcpu, uint16_t index)
{
	uint32_t i = s->heap_len++;

	ASSERT(i < s->heap_cap);
	while (i > 0 && s->heap[(i - 1) / 2].ns > ns) {
		s->heap[i] = s->heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	s->heap[i] = (struct event){ns, vcpu, index, (uint16_t)kind};
}

static struct event pop(struct scale *s)
{
	struct event first = s->heap[0], last = s->heap[--s->heap_len];
	uint32_t i = 0;

	for (;;) {
		uint32_t k = 2 * i + 1;

		if (k >= s->heap_len)
			break;
		if (k + 1 < s->heap_len && s->heap[k + 1].ns < s->heap[k].ns)
			k++;
		if (s->heap[k].ns >= last.ns)
			break;
		s->heap[i] = s->heap[k];
		i = k;
	}
	s->heap[i] = last;
	return first;
}

/* ---- source, queue, thread ---- */

static void read_page(struct scale *s, struct fetch f)
{
	uint64_t start = max_u64(s->now_ns, s->source_free_ns);

	s->source_free_ns = start + NS_PER_S / s->c->reads_per_s;
	s->started++;
	push(s, start + s->c->latency_ns, FETCHED, f.vcpu, f.index);
}

static void fetch(struct scale *s, uint32_t vcpu, uint16_t index)
{
	struct vm *m = &s->vms[vcpu / s->c->vcpus_per_vm];
	uint32_t cap = s->c->vcpus_per_vm * s->c->tasks;
	struct fetch f = {vcpu, index};

	if (m->in_flight < s->c->queue_depth) {
		m->in_flight++;
		read_page(s, f);
		return;
	}
	if (m->len == 0)
		m->full_since_ns = s->now_ns;
	m->waiting[(m->head + m->len++) % cap] = f;
}

static void fetched(struct scale *s, const struct event *e)
{
	struct vm *m = &s->vms[e->vcpu / s->c->vcpus_per_vm];
	uint32_t cap = s->c->vcpus_per_vm * s->c->tasks;

	if (m->len > 0) {
		read_page(s, m->waiting[m->head]);
		m->head = (m->head + 1) % cap;
		if (--m->len == 0)
			s->full_ns += s->now_ns - m->full_since_ns;
	} else {
		m->in_flight--;
	}
	m->thread_free_ns = max_u64(m->thread_free_ns, s->now_ns) + s->c->host_ns;
	push(s, m->thread_free_ns, HANDED_OVER, e->vcpu, e->index);
}

/* ---- a vCPU ---- */

static void waited(struct scale *s, uint64_t since)
{
	s->wait_ns += s->now_ns - since;
	s->hist[hist_bucket((s->now_ns - since) / NS_PER_US)]++;
	s->wait_max_us = max_u64(s->wait_max_us, (s->now_ns - since) / NS_PER_US);
	s->done++;
}

/* The next task's turn, after the vCPU was busy for so long with something else. */
static void next_task(struct scale *s, uint32_t i, uint64_t busy_ns)
{
	struct vcpu *v = &s->vcpus[i];
	uint64_t ns = s->c->compute_ns / 2 + prng_below(&s->rng, s->c->compute_ns + 1);

	v->cpu = IDLE;
	if (v->runnable == 0)
		return;
	v->runnable--;
	v->cpu = COMPUTES;
	v->until_ns = s->now_ns + busy_ns + ns;
	s->computed_ns += ns;
	push(s, v->until_ns, CPU_DONE, i, 0);
}

static void look_later(struct scale *s, uint32_t i)
{
	struct vcpu *v = &s->vcpus[i];

	if (v->look_at_ns)
		return;
	if (v->look_next_ns == 0)
		v->look_next_ns = LOOK_FIRST_NS;
	v->look_at_ns = s->now_ns + v->look_next_ns;
	v->look_next_ns = min_u64(2 * v->look_next_ns, LOOK_MAX_NS);
	if (!v->look_queued)
		push(s, v->look_at_ns, LOOK, i, 0);
	v->look_queued = true;
}

static void look_stop(struct vcpu *v)
{
	v->look_at_ns = 0;
	v->look_next_ns = 0;
}

/* Sends the next page ready, if it may go out. */
static void deliver(struct scale *s, uint32_t i)
{
	struct vcpu *v = &s->vcpus[i];
	struct eng_slot slot = {.readable = true, .token = v->slot};
	uint32_t head = v->eng.ready_head;
	struct eng_event ev;

	switch (eng_next_ready(&v->eng, NULL, slot, &ev)) {
	case ENG_READY_SEND:
		break;
	case ENG_READY_SLOT_BUSY:
		look_later(s, i);
		return;
	default:
		look_stop(v);
		return;
	}
	look_stop(v);
	v->slot_since = head != ENG_NIL ? v->since[head] : s->now_ns;
	eng_ready_sent(&v->eng, &ev);
	v->slot = ev.token;
	s->ready++;
	v->irq_free_ns = max_u64(v->irq_free_ns, s->now_ns) + s->c->ready_ns;
	if (v->cpu == COMPUTES)
		v->until_ns += s->c->ready_ns;
	push(s, v->irq_free_ns, IRQ_DONE, i, 0);
	/* What else is due finds the slot full. */
	if (v->eng.ready_len > 0)
		look_later(s, i);
}

static void look(struct scale *s, uint32_t i)
{
	struct vcpu *v = &s->vcpus[i];

	v->look_queued = false;
	if (v->look_at_ns > s->now_ns) {
		v->look_queued = true;
		push(s, v->look_at_ns, LOOK, i, 0);
	} else if (v->look_at_ns) {
		v->look_at_ns = 0;
		deliver(s, i);
	}
}

/* The running task touches an absent page: an exit, and so a look. */
static void touch(struct scale *s, uint32_t i)
{
	static const struct cpu_state user = {.cpl = 3, .interrupts_on = true, .paging = true};
	struct vcpu *v = &s->vcpus[i];
	struct eng_slot slot = {.readable = true, .token = v->slot};
	struct eng_event ev;
	uint32_t ix;

	if (eng_may_send_missing(&v->eng, &user, slot) != ENG_MAY_SEND) {
		s->stalls++;
		v->cpu = HALTED;
		v->halted_since = s->now_ns;
		fetch(s, i, NO_FAULT);
		deliver(s, i);
		return;
	}
	ix = eng_send_missing(&v->eng, (gfn_t){s->missing++}, &ev);
	v->since[ix] = s->now_ns;
	fetch(s, i, (uint16_t)ix);
	next_task(s, i, s->c->missing_ns);
	deliver(s, i);
}

static void irq_done(struct scale *s, uint32_t i)
{
	struct vcpu *v = &s->vcpus[i];

	if (v->slot != APF_TOKEN_WAKE_ALL) {
		waited(s, v->slot_since);
		v->runnable++;
	}
	v->slot = 0; /* and acknowledged, which the host does not see */
	if (v->cpu == IDLE)
		next_task(s, i, 0);
}

static void handed_over(struct scale *s, const struct event *e)
{
	struct vcpu *v = &s->vcpus[e->vcpu];

	if (e->index == NO_FAULT) {
		waited(s, v->halted_since);
		v->runnable++;
		next_task(s, e->vcpu, 0);
		return;
	}
	if (eng_page_ready(&v->eng, e->index))
		deliver(s, e->vcpu);
}

static void step(struct scale *s)
{
	struct event e = pop(s);

	s->now_ns = e.ns;
	switch (e.kind) {
	case CPU_DONE:
		/* Interrupts came in between. */
		if (s->vcpus[e.vcpu].until_ns > s->now_ns)
			push(s, s->vcpus[e.vcpu].until_ns, CPU_DONE, e.vcpu, 0);
		else
			touch(s, e.vcpu);
		break;
	case FETCHED:
		fetched(s, &e);
		break;
	case HANDED_OVER:
		handed_over(s, &e);
		break;
	case IRQ_DONE:
		irq_done(s, e.vcpu);
		break;
	default:
		look(s, e.vcpu);
	}
}

/* ---- a run ---- */

static void start_vcpu(struct scale *s, uint32_t i)
{
	const struct sim_scale_cfg *c = s->c;
	struct vcpu *v = &s->vcpus[i];
	const struct eng_cfg cfg = {
		.rev = APF_REV_INT,
		.vcpu_id = i % c->vcpus_per_vm,
		.features = eng_features(APF_REV_INT),
		.has_lapic = true,
		.faults_max = c->faults_max,
	};
	struct eng_wrmsr_in in = {.msr = APF_MSR_CTL, .value = 0xf3};

	v->since = s->since + (size_t)i * c->faults_max;
	eng_init(&v->eng, &cfg, s->faults + (size_t)i * c->faults_max);
	(void)eng_wrmsr(&v->eng, &in);
	in = (struct eng_wrmsr_in){
		.msr = APF_MSR_EN, .value = APF_EN_ENABLED | APF_EN_INT, .area_ok = true};
	(void)eng_wrmsr(&v->eng, &in);
	deliver(s, i);
	v->runnable = c->tasks;
	next_task(s, i, 0);
}

static bool allocate(struct scale *s)
{
	const struct sim_scale_cfg *c = s->c;
	size_t vcpus = (size_t)c->vms * c->vcpus_per_vm, tasks = vcpus * c->tasks;

	/*
	 * A task is computing, with the source or with the thread; a vCPU has an interrupt and a
	 * timer.
	 */
	s->heap_cap = (uint32_t)(tasks + 3 * vcpus);
	s->heap = calloc(s->heap_cap, sizeof(*s->heap));
	s->vcpus = calloc(vcpus, sizeof(*s->vcpus));
	s->vms = calloc(c->vms, sizeof(*s->vms));
	s->faults = calloc(vcpus * c->faults_max, sizeof(*s->faults));
	s->since = calloc(vcpus * c->faults_max, sizeof(*s->since));
	s->waiting = calloc(tasks, sizeof(*s->waiting));
	return s->heap && s->vcpus && s->vms && s->faults && s->since && s->waiting;
}

static uint32_t share(uint64_t part, uint64_t whole)
{
	return (uint32_t)min_u64(part / (whole / 1000 + 1), 1000);
}

/* Of the queues that are full now, too. */
static uint64_t full_ns(const struct scale *s)
{
	uint64_t ns = s->full_ns;

	for (uint32_t i = 0; i < s->c->vms; i++)
		if (s->vms[i].len > 0)
			ns += s->now_ns - s->vms[i].full_since_ns;
	return ns;
}

static void sum_up(const struct scale *s, struct sim_scale_row *ret)
{
	const struct sim_scale_cfg *c = s->c;
	uint64_t vcpu_ns = s->now_ns * c->vms * c->vcpus_per_vm;
	uint64_t source_ns = s->started * (NS_PER_S / c->reads_per_s);
	uint64_t backlog_ns = max_u64(s->source_free_ns, s->now_ns) - s->now_ns;
	uint64_t events_ns = s->missing * c->missing_ns + s->ready * c->ready_ns;

	*ret = (struct sim_scale_row){
		.faults = s->done,
		.stalls = s->stalls,
		.simulated_ns = s->now_ns,
		.faults_per_s = s->done * NS_PER_MS / (s->now_ns / 1000 + 1),
		.wait_us_mean = s->wait_ns / (s->done ? s->done : 1) / NS_PER_US,
		.wait_us_p50 = hist_quantile(s->hist, 50, 100, s->wait_max_us),
		.wait_us_p99 = hist_quantile(s->hist, 99, 100, s->wait_max_us),
		.source = share(source_ns - min_u64(backlog_ns, source_ns), s->now_ns),
		.queue = share(full_ns(s), s->now_ns * c->vms),
		.thread = share(s->done * c->host_ns, s->now_ns * c->vms),
		.events = share(events_ns, vcpu_ns),
		.compute = share(s->computed_ns, vcpu_ns),
	};
}

bool sim_scale_run(const struct sim_scale_cfg *c, struct sim_scale_row *ret)
{
	struct scale s = {.c = c};
	bool ok = allocate(&s);

	prng_init(&s.rng, c->seed);
	for (uint32_t i = 0; ok && i < c->vms; i++)
		s.vms[i].waiting = s.waiting + (size_t)i * c->vcpus_per_vm * c->tasks;
	for (uint32_t i = 0; ok && i < c->vms * c->vcpus_per_vm; i++)
		start_vcpu(&s, i);
	while (ok && s.done < c->faults)
		step(&s);
	if (ok)
		sum_up(&s, ret);
	free(s.heap);
	free(s.vcpus);
	free(s.vms);
	free(s.faults);
	free(s.since);
	free(s.waiting);
	return ok;
}

bool sim_scale_sweep(unsigned i, uint64_t faults, struct sim_scale_cfg *ret)
{
	/* The last one faults so often that only what a fault itself costs is left. */
	static const struct {
		const char *name;
		uint64_t latency_ns, reads_per_s, compute_ns;
	} hosts[] = {
		{"network", 5 * NS_PER_MS, 1000000, NS_PER_MS},
		{"flash", 100 * NS_PER_US, 4000000, NS_PER_MS},
		{"far", 60 * NS_PER_MS, 10000000, NS_PER_MS},
		{"memory", 5 * NS_PER_US, 100000000, NS_PER_MS},
		{"storm", 5 * NS_PER_US, 1000000000, 20 * NS_PER_US},
	};
	static const uint32_t tasks[] = {1, 2, 4, 8, 16, 32, 64};

	if (i >= ARRAY_LEN(hosts) * ARRAY_LEN(tasks))
		return false;
	*ret = (struct sim_scale_cfg){
		.name = hosts[i / ARRAY_LEN(tasks)].name,
		.vms = 160,
		.vcpus_per_vm = 64,
		.tasks = tasks[i % ARRAY_LEN(tasks)],
		.faults_max = 256,
		.queue_depth = 256,
		.compute_ns = hosts[i / ARRAY_LEN(tasks)].compute_ns,
		.latency_ns = hosts[i / ARRAY_LEN(tasks)].latency_ns,
		.reads_per_s = hosts[i / ARRAY_LEN(tasks)].reads_per_s,
		.missing_ns = 3000,
		.ready_ns = 3000,
		.host_ns = 6000, /* docs/numbers.md: 5.5 to 6.6 us */
		.faults = faults,
		.seed = 1,
	};
	return true;
}
