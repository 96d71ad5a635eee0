/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, configuring and closing one VM's memory. See asyncpf.h. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/zero.h"
#include "kvm/vm.h"
#include "lib/internal.h"
#include "lib/guard.h"
#include "lib/probes.h"
#include "rights/limits.h"
#include "source/source.h"

_Static_assert((int)APF_ABI_LEGACY == (int)APF_REV_LEGACY && (int)APF_ABI_PF2 == (int)APF_REV_PF2 &&
		       (int)APF_ABI_PF2_STRICT == (int)APF_REV_PF2_STRICT &&
		       (int)APF_ABI_INT == (int)APF_REV_INT && (int)APF_ABI_OFF == (int)APF_REV_OFF,
	       "the public names are the wire's");
_Static_assert((int)APF_FAULTS_BLOCK == (int)HST_FAULTS_BLOCK &&
		       (int)APF_FAULTS_STALL == (int)HST_FAULTS_STALL &&
		       (int)APF_FAULTS_KERNEL == (int)HST_FAULTS_KERNEL &&
		       (int)APF_FAULTS_USER == (int)HST_FAULTS_USER,
	       "the public names are the driver's");
_Static_assert((int)APF_IO_AUTO == (int)IOQ_AUTO && (int)APF_IO_URING == (int)IOQ_URING &&
		       (int)APF_IO_THREADS == (int)IOQ_THREADS,
	       "the public names are the queue's");
_Static_assert(sizeof(((struct apf_error *)0)->text) == ERR_TEXT_MAX, "errors fit");

const char *apf_version(void)
{
	return ASYNCPF_VERSION;
}

int lib_error(struct apf_error *to, const struct err *from)
{
	if (to) {
		to->code = from->code;
		memcpy(to->text, from->text, sizeof(to->text));
	}
	return from->code;
}

/* No read takes as long; what is longer means the same. */
#define GRACE_MAX_US (24 * 3600 * 1000000ull)

static const struct apf_config defaults = {
	.size = sizeof(defaults),
	.faults = APF_FAULTS_USER,
	.abi = APF_ABI_INT,
	.vcpus_max = 1,
	.block_bytes = 4096,
	.faults_max = 256,
	.queue_depth = 256,
	.grace_us = APF_GRACE_AUTO,
	.retries_max = 4,
	.source_timeout_ms = 10000,
};

void apf_config_init_sized(struct apf_config *c, size_t size)
{
	size_t known = min_u64(size, sizeof(defaults));

	memset(c, 0, size);
	memcpy(c, &defaults, known);
	if (size >= sizeof(c->size))
		c->size = size;
}

/* For programs that were built with the first header, and have room for its members alone. */
#define CONFIG_BYTES_0_1 (offsetof(struct apf_config, on_event_ctx) + sizeof(void *))

void (apf_config_init)(struct apf_config *c)
{
	apf_config_init_sized(c, CONFIG_BYTES_0_1);
}

/* No header will ever have a larger one; what tells more was never filled in. */
#define STRUCT_BYTES_MAX 4096u

/* Every struct that begins with its size is aligned as that is, and so ends. */
int lib_struct_read(const struct lib_struct *t, const void *from, void *to, struct err *e)
{
	size_t size = *(const size_t *)from, known = min_u64(size, t->bytes);

	if (size % _Alignof(size_t) != 0 || size > STRUCT_BYTES_MAX || size < t->bytes_first)
		return err_set(e, -EINVAL, "%s: size is %zu, which no version had: use %s_init",
			       t->name, size, t->name);
	if (!is_zero((const char *)from + known, size - known))
		return err_set(e, -EINVAL,
			       "%s: size is %zu, and a member beyond the %zu bytes that this "
			       "library (%s) knows is set: it needs a newer one",
			       t->name, size, t->bytes, ASYNCPF_VERSION);
	memcpy(to, from, known);
	memcpy(to, &t->bytes, sizeof(t->bytes));
	return 0;
}

static int read_config(const struct apf_config *c, struct apf_config *ret, struct err *e)
{
	/* None was without the first two members. */
	static const struct lib_struct type = {
		"apf_config", offsetof(struct apf_config, vcpus_max), sizeof(*ret)};

	*ret = defaults;
	return lib_struct_read(&type, c, ret, e);
}

/* Room for what cannot be taken away, with something left to work with. */
static uint64_t resident_min(const struct apf_config *c)
{
	return max_u64(RESIDENT_MIN, (uint64_t)hst_blocks_min(c->vcpus_max) * c->block_bytes);
}

/* Outstanding faults of all vCPUs: each has an entry of a few hundred bytes. */
#define FAULTS_ALL_MAX (1u << 19)

/* A block's number has 32 bits, and the last chunk may be rounded up to. */
#define BLOCKS_MAX (UINT32_MAX - (uint32_t)(CHUNK_BYTES / PAGE_BYTES))

static int check_config(const struct apf_config *c, struct err *e)
{
	if ((unsigned)c->faults > APF_FAULTS_USER || (unsigned)c->abi > APF_ABI_INT ||
	    (unsigned)c->io > APF_IO_THREADS)
		return err_set(e, -EINVAL, "apf_config: unknown faults, abi or io");
	if (c->vcpus_max < 1 || c->vcpus_max > HST_VCPUS_MAX)
		return err_set(e, -EINVAL, "apf_config: vcpus_max is %u, not 1..%u", c->vcpus_max,
			       HST_VCPUS_MAX);
	if (!is_pow2(c->block_bytes) || c->block_bytes < PAGE_BYTES ||
	    c->block_bytes > 1u << HST_BLOCK_SHIFT_MAX)
		return err_set(
			e, -EINVAL,
			"apf_config: block_bytes is %u, not a power of two from 4096 to 2097152",
			c->block_bytes);
	if (c->faults_max < 1 || c->faults_max > ENG_FAULTS_MAX)
		return err_set(e, -EINVAL, "apf_config: faults_max is %u, not 1..%u", c->faults_max,
			       ENG_FAULTS_MAX);
	if ((uint64_t)c->vcpus_max * c->faults_max > FAULTS_ALL_MAX)
		return err_set(e, -EINVAL, "apf_config: %u vCPUs with faults_max %u each are more "
			       "than %u faults; lower one of the two", c->vcpus_max, c->faults_max,
			       FAULTS_ALL_MAX);
	if (c->queue_depth < 1 || c->queue_depth > IOQ_DEPTH_MAX)
		return err_set(e, -EINVAL, "apf_config: queue_depth is %u, not 1..%u",
			       c->queue_depth, IOQ_DEPTH_MAX);
	if (c->retries_max > 200)
		return err_set(e, -EINVAL, "apf_config: retries_max is %u, above 200",
			       c->retries_max);
	if (c->resident_max != 0 && (!c->swap || c->resident_max < resident_min(c)))
		return err_set(e, -EINVAL, "apf_config: resident_max is %llu: it needs a swap "
			       "file, and is %llu at least", (unsigned long long)c->resident_max,
			       (unsigned long long)resident_min(c));
	if (c->memory_max / c->block_bytes >= BLOCKS_MAX)
		return err_set(e, -EINVAL, "apf_config: memory_max is %llu, more than %u blocks of "
			       "%u bytes", (unsigned long long)c->memory_max, BLOCKS_MAX,
			       c->block_bytes);
	if (c->kick_signal != 0 && (c->kick_signal < SIGRTMIN || c->kick_signal > SIGRTMAX))
		return err_set(e, -EINVAL, "apf_config: kick_signal %d is no real-time signal",
			       c->kick_signal);
	return 0;
}

/* ---- what the driver tells us; under the lock ---- */

static void outside_ready(void *ctx)
{
	struct apf *a = ctx;

	pthread_cond_broadcast(&a->outside);
}

static void trouble(void *ctx, const struct hst_trouble *t)
{
	struct apf *a = ctx;
	char text[ERR_TEXT_MAX + 128];
	struct apf_event ev = {.kind = APF_EVENT_RESUMED, .text = text};

	a->trouble.code = 0;
	if (!t) {
		snprintf(text, sizeof(text), "memory is being served again");
	} else {
		ev.kind = APF_EVENT_PAUSED;
		ev.gpa = t->gpa.v;
		if (t->tries == 0)
			snprintf(text, sizeof(text), "%s", t->why.text);
		else if (t->why.code == 0)
			snprintf(text, sizeof(text),
				 "memory at guest address %#llx: the source has not answered for "
				 "%u ms",
				 (unsigned long long)t->gpa.v, a->cfg.source_timeout_ms);
		else
			snprintf(text, sizeof(text),
				 "memory at guest address %#llx: %s (tried %u times)",
				 (unsigned long long)t->gpa.v, t->why.text, t->tries);
		a->trouble.code = t->why.code ? t->why.code : -ETIMEDOUT;
		snprintf(a->trouble.text, sizeof(a->trouble.text), "%.*s",
			 (int)sizeof(a->trouble.text) - 1, text);
	}
	pthread_cond_broadcast(&a->evict.forced);
	pthread_cond_broadcast(&a->outside);
	if (a->cfg.on_event)
		a->cfg.on_event(a->cfg.on_event_ctx, &ev);
}

static void wrote(void *ctx, gpa_t gpa, uint64_t bytes)
{
	const struct apf *a = ctx;

	if (a->cfg.on_write)
		a->cfg.on_write(a->cfg.on_write_ctx, gpa.v, bytes);
}

/* ---- open ---- */

static bool hva_to_roff(void *ctx, hva_t hva, roff_t *ret)
{
	struct apf *a = ctx;

	return gmem_roff(a->gmem, hva, ret);
}

static hva_t vmm_hva(void *ctx, hva_t hva)
{
	struct apf *a = ctx;

	return gmem_guest_hva(a->gmem, hva);
}

static bool gpa_to_roff(void *ctx, gpa_t gpa, uint64_t len, roff_t *ret)
{
	return lib_find(ctx, gpa, len, ret);
}

static enum kvmp_slot slot_at(void *ctx, gpa_t gpa)
{
	return lib_slot_at(ctx, gpa);
}

/* In the other protocols it is no register. */
static bool ack_to_kvm(const struct apf *a)
{
	return a->cfg.abi == APF_ABI_INT;
}

static void queue_thread_begins(void *ctx, const char *name)
{
	lib_thread_begins(ctx, name);
}

static int open_parts(struct apf *a, struct err *e)
{
	const struct ioq_config io = {
		.depth = a->cfg.queue_depth,
		.way = (enum ioq_way)a->cfg.io,
		.thread_begins = queue_thread_begins,
		.ctx = a,
	};
	bool ours = a->cfg.faults != APF_FAULTS_KERNEL;
	const struct kvmp_config kvm = {
		.vm_fd = a->vm_fd,
		.kick_signal = a->cfg.kick_signal ? a->cfg.kick_signal : SIGRTMIN + 4,
		.msrs = ours,
		.x2apic_ids = a->cfg.x2apic_ids,
		.bus_other = ours && a->cfg.sigbus_handler ? guard_is_ours : NULL,
		.vcpus = a->cfg.vcpus_max,
		.ram = {hva_to_roff, gpa_to_roff, slot_at, vmm_hva, a},
	};
	int rc = kvmp_vm_check(a->vm_fd, e);

	if (rc == 0)
		rc = kvmp_init(&a->kvmp, &kvm, e);
	if (rc == 0 && ours)
		rc = kvmp_vm_prepare(a->vm_fd, ack_to_kvm(a), e);
	if (rc == 0)
		rc = ioq_open(&io, &a->ioq, e);
	if (rc == 0)
		rc = lib_work_open(a, e);
	if (rc == 0)
		rc = lib_net_open(a, e);
	if (rc < 0)
		return rc;
	a->hst.io = ioq_io(a->ioq);
	a->vcpus = calloc(a->cfg.vcpus_max, sizeof(*a->vcpus));
	if (!a->vcpus)
		return err_sys(e, -ENOMEM, "%u vCPUs", a->cfg.vcpus_max);
	return lib_memory_open(a, e);
}

static void traced(void *ctx, const struct apf_trace *t)
{
	const struct apf *a = ctx;

	lib_probe(t);
	if (a->cfg.on_trace)
		a->cfg.on_trace(a->cfg.on_trace_ctx, t);
}

static void init_driver(struct apf *a, const struct hst_cfg *cfg)
{
	a->hst.mem = gmem_mem(a->gmem);
	a->hst.plat = kvmp_plat(&a->kvmp);
	a->hst.hooks = (struct hst_hooks){
		.outside_ready = outside_ready,
		.trouble = trouble,
		.ctx = a,
		.wrote = wrote,
		.trace = a->cfg.on_trace || lib_probes_on() ? traced : NULL,
		.trace_wanted = a->cfg.on_trace ? NULL : lib_probes_on(),
	};
	hst_init(&a->hst, cfg, a->space);
	for (unsigned i = 0; i < a->cfg.vcpus_max; i++)
		a->vcpus[i] = (struct apf_vcpu){.a = a, .hv = &a->hst.vcpus[i], .index = i,
						.running = PTHREAD_MUTEX_INITIALIZER};
}

static struct hst_cfg driver_config(const struct apf_config *c)
{
	return (struct hst_cfg){
		.faults = (enum hst_faults)c->faults,
		.rev = lib_speaks(c) ? (enum apf_rev)c->abi : APF_REV_OFF,
		.told_before = c->told_before,
		.vcpus = c->vcpus_max,
		.block_shift = (uint32_t)__builtin_ctz(c->block_bytes),
		.faults_max = c->faults_max,
		.queue_depth = c->queue_depth,
		.retries_max = c->retries_max,
		.ahead_max = c->read_ahead_bytes / c->block_bytes,
		.grace_ns = c->grace_us < 0 ? HST_GRACE_AUTO
					    : min_u64((uint64_t)c->grace_us, GRACE_MAX_US) *
						      NS_PER_US,
		.source_timeout_ns = c->source_timeout_ms ? c->source_timeout_ms * NS_PER_MS
							  : NS_NEVER,
		.evict = c->swap != NULL,
		.resident_max = c->resident_max,
	};
}

int apf_open(int vm_fd, const struct apf_config *c, struct apf **ret, struct apf_error *error)
{
	struct err e = {0};
	pthread_condattr_t monotonic;
	struct apf_config cfg;
	struct apf *a;
	int rc = read_config(c, &cfg, &e);

	if (rc == 0)
		rc = check_config(&cfg, &e);
	if (rc < 0)
		return lib_error(error, &e);
	a = calloc(1, sizeof(*a));
	if (!a) {
		err_sys(&e, -ENOMEM, "apf_open");
		return lib_error(error, &e);
	}
	a->cfg = cfg;
	a->vm_fd = vm_fd;
	a->urgent_fd = -1;
	a->timer_fd = -1;
	a->wake_fd = -1;
	a->hst.clock = lib_clock();
	lib_lock_init(a);
	pthread_rwlock_init(&a->slot_lock, NULL);
	/* By the driver's clock. */
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&a->outside, &monotonic);
	pthread_cond_init(&a->evict.work, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_cond_init(&a->evict.forced, NULL);
	pthread_cond_init(&a->given_way, NULL);
	a->hcfg = driver_config(&cfg);
	rc = open_parts(a, &e);
	if (rc < 0) {
		apf_close(a);
		return lib_error(error, &e);
	}
	init_driver(a, &a->hcfg);
	*ret = a;
	return 0;
}

enum apf_io apf_io_used(const struct apf *a)
{
	return (enum apf_io)ioq_way(a->ioq);
}

void apf_close(struct apf *a)
{
	if (!a)
		return;
	lib_custom_shut(a);
	lib_serve_stop(a);
	lib_room_close(a);
	for (unsigned i = 0; i < a->source_count; i++)
		src_close(a->sources[i]);
	lib_custom_close(a);
	lib_swap_close(a);
	net_lazy_close(a->net);
	thread_pool_close(a->pool);
	lib_serve_close(a);
	ioq_close(a->ioq);
	lib_memory_close(a);
	free(a->plan);
	free(a->vcpus);
	kvmp_fini(&a->kvmp);
	lib_slots_free(a);
	pthread_cond_destroy(&a->outside);
	pthread_cond_destroy(&a->evict.work);
	pthread_cond_destroy(&a->evict.forced);
	pthread_cond_destroy(&a->given_way);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

/* ---- what the guest may see ---- */

int apf_msr_filter(struct apf *a, const struct kvm_msr_filter *filter, struct apf_error *error)
{
	struct err e = {0};

	if (a->cfg.faults == APF_FAULTS_KERNEL)
		err_set(&e, -EINVAL, "MSR filter: with faults: kernel it is the VMM's alone");
	else
		(void)kvmp_vm_msr_filter(a->vm_fd, ack_to_kvm(a), filter, &e);
	return e.code < 0 ? lib_error(error, &e) : 0;
}

int apf_msr_exits(struct apf *a, uint32_t exits, struct apf_error *error)
{
	struct err e = {0};
	uint32_t before;

	if (a->cfg.faults == APF_FAULTS_KERNEL) {
		err_set(&e, -EINVAL, "MSR exits: with faults: kernel they are the VMM's alone");
		return lib_error(error, &e);
	}
	before = __atomic_exchange_n(&a->kvmp.msr_exits, exits, __ATOMIC_ACQ_REL);
	if (kvmp_vm_msr_exits(a->vm_fd, exits, &e) == 0)
		return 0;
	__atomic_store_n(&a->kvmp.msr_exits, before, __ATOMIC_RELEASE);
	return lib_error(error, &e);
}

static int start(struct apf *a, struct err *e)
{
	int rc;

	if (a->begun)
		return err_set(e, -EBUSY, "apf_start: called twice");
	a->begun = true;
	rc = lib_check_limits(a, a->hst.ram.bytes, e);
	if (rc == 0)
		rc = lib_swap_open(a, e);
	if (rc == 0)
		lib_room_open(a);
	if (rc == 0)
		rc = lib_serve_start(a, e);
	if (rc < 0)
		return rc;
	rc = lib_slots_start(a);
	if (rc == -ENOSPC)
		err_set(e, rc, "apf_start: read-only memslots do not fit into what may be "
			"resident; raise resident_max");
	else if (rc < 0)
		err_sys(e, rc, "apf_start: read-only memslots: apf_trouble_get says why");
	return rc;
}

int apf_start(struct apf *a, struct apf_error *error)
{
	struct err e = {0};

	return start(a, &e) < 0 ? lib_error(error, &e) : 0;
}
