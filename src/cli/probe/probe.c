/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See probe.h. Here: memfd, io_uring, KVM's capabilities, and the table of what each way of
 * serving faults needs.
 */
#include "cli/probe/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "cli/cli.h"
#include "io/queue.h"
#include "mem/memfd.h"
#include "mem/pagemap.h"
#include "sandbox/sandbox.h"

static const char *const names[PROBE_COUNT] = {
	[PROBE_KERNEL] = "kernel",
	[PROBE_CPUS] = "cpus",
	[PROBE_MEMORY] = "memory",
	[PROBE_CGROUP] = "memory.cgroup",
	[PROBE_OVERCOMMIT] = "memory.overcommit",
	[PROBE_LIMITS] = "limits",
	[PROBE_NAMESPACE] = "user_namespace",
	[PROBE_SECCOMP] = "seccomp",
	[PROBE_MODULE] = "security_module",
	[PROBE_SANDBOX] = "sandbox",
	[PROBE_MEMFD] = "memfd",
	[PROBE_IO_URING] = "io_uring",
	[PROBE_KVM] = "kvm.device",
	[PROBE_KVM_IRQCHIP] = "kvm.irqchip",
	[PROBE_KVM_SYNC_REGS] = "kvm.sync_regs",
	[PROBE_KVM_USER_SPACE_MSR] = "kvm.user_space_msr",
	[PROBE_KVM_MSR_FILTER] = "kvm.msr_filter",
	[PROBE_KVM_EXCEPTION_PAYLOAD] = "kvm.exception_payload",
	[PROBE_KVM_SIGNAL_MSI] = "kvm.signal_msi",
	[PROBE_KVM_ASYNC_PF] = "kvm.async_pf",
	[PROBE_KVM_ASYNC_PF_INT] = "kvm.async_pf_int",
	[PROBE_UFFD] = "uffd.open",
	[PROBE_UFFD_MISSING_SHMEM] = "uffd.missing_shmem",
	[PROBE_UFFD_MINOR_SHMEM] = "uffd.minor_shmem",
	[PROBE_UFFD_POISON] = "uffd.poison",
	[PROBE_UFFD_WP_ASYNC] = "uffd.wp_async",
	[PROBE_PAGEMAP_SCAN] = "pagemap.scan",
	[PROBE_GUEST_CPL0] = "guest.cpl0",
	[PROBE_GUEST_TOUCH] = "guest.touch",
	[PROBE_GUEST_SERVED] = "guest.served",
};

#define PROBE_DEPTH 256u /* as config.queue_depth */

#define BIT(id) (1u << (id))
#define NEED_ALL \
	(BIT(PROBE_MEMFD) | BIT(PROBE_KVM) | BIT(PROBE_KVM_IRQCHIP) | BIT(PROBE_UFFD) | \
	 BIT(PROBE_UFFD_MISSING_SHMEM) | BIT(PROBE_UFFD_MINOR_SHMEM) | \
	 BIT(PROBE_GUEST_CPL0))
/* A touch must come to user space instead of waiting inside the kernel. */
#define NEED_REPORT \
	(NEED_ALL | BIT(PROBE_KVM_SYNC_REGS) | BIT(PROBE_UFFD_POISON) | BIT(PROBE_GUEST_TOUCH))

static const struct {
	const char *name;
	uint32_t needs;
} ways[WAY_COUNT] = {
	[WAY_BLOCK] = {"block", NEED_REPORT},
	[WAY_STALL] = {"stall", NEED_REPORT},
	[WAY_KERNEL] = {"kernel",
			NEED_ALL | BIT(PROBE_KVM_ASYNC_PF) | BIT(PROBE_KVM_ASYNC_PF_INT)},
	[WAY_USER] = {"user", NEED_REPORT | BIT(PROBE_KVM_USER_SPACE_MSR) |
				      BIT(PROBE_KVM_MSR_FILTER) |
				      BIT(PROBE_KVM_EXCEPTION_PAYLOAD) | BIT(PROBE_KVM_SIGNAL_MSI)},
};

_Static_assert(PROBE_COUNT <= 32, "one bit per probe");

const char *probe_name(enum probe_id id)
{
	ASSERT(id < PROBE_COUNT);
	return names[id];
}

const char *probe_way_name(enum probe_way way)
{
	ASSERT(way < WAY_COUNT);
	return ways[way].name;
}

const char *verdict_name(enum verdict v)
{
	return v == VERDICT_OK ? "ok" : v == VERDICT_LIMITED ? "limited" : "no";
}

uint32_t probe_way_missing(const struct probes *p, enum probe_way way)
{
	uint32_t missing = 0;

	for (unsigned i = 0; i < PROBE_COUNT; i++)
		if (ways[way].needs & BIT(i) && p->list[i].verdict == VERDICT_NO)
			missing |= BIT(i);
	if (missing == 0 && (p->unserved >> way & 1))
		missing = BIT(PROBE_GUEST_SERVED);
	return missing;
}

uint32_t probe_evict_missing(const struct probes *p)
{
	uint32_t missing = probe_way_missing(p, WAY_BLOCK);

	/* Of the ways of serving faults one has to work: the one that lacks least. */
	for (enum probe_way w = WAY_STALL; w < WAY_COUNT; w++) {
		uint32_t other = probe_way_missing(p, w);

		if (__builtin_popcount(other) < __builtin_popcount(missing))
			missing = other;
	}
	if (p->list[PROBE_PAGEMAP_SCAN].verdict == VERDICT_NO)
		missing |= BIT(PROBE_PAGEMAP_SCAN);
	/* What fetches instructions by itself does not wait for them. */
	if (p->cpl0_per_s && !p->linux_guest)
		missing |= BIT(PROBE_GUEST_CPL0);
	return missing;
}

const char *probe_fix(int code, const char *otherwise)
{
	const char *limit = cli_limit_advice(code);

	return limit ? limit + strlen("; ") : otherwise;
}

void probe_refused(struct probe *pr, const struct refusal *r)
{
	probe_set(pr, VERDICT_NO, r->fix, "%s", r->why);
	pr->refusal = refusal_kind_name(r->kind);
}

void probe_set(struct probe *pr, enum verdict v, const char *fix, const char *fmt, ...)
{
	va_list ap;

	pr->verdict = v;
	pr->refusal = NULL;
	snprintf(pr->fix, sizeof(pr->fix), "%s", fix);
	va_start(ap, fmt);
	vsnprintf(pr->means, sizeof(pr->means), fmt, ap);
	va_end(ap);
}

static void probe_pagemap(struct probe *pr)
{
	struct err e;
	int fd = pagemap_open(&e);

	if (fd < 0) {
		probe_set(pr, VERDICT_NO, probe_fix(e.code, "use Linux 6.7 or later"), "%.190s",
			  e.text);
		return;
	}
	close(fd);
	probe_set(pr, VERDICT_OK, "", "what is mapped, and was written to, can be found out");
}

/* Two mappings of one memfd must show the same bytes: guest mapping and alias. */
static void probe_memfd(struct probe *pr)
{
	int fd = memfd_new("asyncpf-doctor");
	unsigned char *a = MAP_FAILED, *b = MAP_FAILED;
	struct refusal r;

	if (fd < 0) {
		refusal_memfd("", -errno, &r);
		probe_refused(pr, &r);
		return;
	}
	if (ftruncate(fd, PAGE_BYTES) == 0) {
		a = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		b = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	}
	if (a == MAP_FAILED || b == MAP_FAILED)
		probe_set(pr, VERDICT_NO, "raise the memory limit of this session or container",
			  "shared memory (memfd): %s", strerror(errno));
	else
		probe_set(pr, VERDICT_OK, "", "guest memory can be mapped twice (memfd)");
	if (a != MAP_FAILED)
		munmap(a, PAGE_BYTES);
	if (b != MAP_FAILED)
		munmap(b, PAGE_BYTES);
	close(fd);
}

/* What is missing of it is done without, unless --sandbox strict asks for all of it. */
static void probe_sandbox(struct probe *pr)
{
	struct sandbox_host host;
	struct refusal r;

	sandbox_host_get(&host);
	if (host.seccomp == 0 && host.landlock > 0 && host.capabilities == 0) {
		probe_set(pr, VERDICT_OK, "", "'asyncpf run' gives up system calls (seccomp) and "
			  "files (Landlock, version %d)", host.landlock);
		return;
	}
	if (host.seccomp < 0)
		refusal_seccomp("", host.seccomp, &r);
	else if (host.landlock < 0)
		refusal_landlock("", host.landlock, &r);
	else
		refusal_capabilities("", host.capabilities, &r);
	probe_set(pr, VERDICT_LIMITED, r.fix, "%s; 'asyncpf run' does without", r.why);
	pr->refusal = refusal_kind_name(r.kind);
}

static void probe_io_uring(struct probe *pr)
{
	struct refusal r;

	if (ioq_probe(PROBE_DEPTH, &r) < 0) {
		/* What that costs: docs/numbers.md. */
		probe_set(pr, VERDICT_LIMITED, r.fix,
			  "%s; pages are read by threads instead, %u at a time", r.why,
			  IOQ_READERS_MAX);
		pr->refusal = refusal_kind_name(r.kind);
	} else {
		probe_set(pr, VERDICT_OK, "", "pages can be read through io_uring");
	}
}

/* Opens /dev/kvm and checks its interface: the descriptor, or -1. */
static int probe_kvm_device(struct probe *pr)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	struct refusal r;

	if (fd < 0) {
		refusal_kvm("", -errno, &r);
		probe_refused(pr, &r);
		return -1;
	}
	int api = ioctl(fd, KVM_GET_API_VERSION, 0);
	if (api != KVM_API_VERSION) {
		if (api < 0)
			probe_set(pr, VERDICT_NO, "remove whatever stands in its place",
				  "/dev/kvm is not KVM: %s", strerror(errno));
		else
			probe_set(pr, VERDICT_NO, "use a kernel with KVM API 12",
				  "/dev/kvm has API %d; only 12 is known", api);
		close(fd);
		return -1;
	}
	probe_set(pr, VERDICT_OK, "", "/dev/kvm opens, API %d", api);
	return fd;
}

struct kvm_cap {
	enum probe_id id;
	int cap;
	int bits; /* that the answer must have; 0: any answer above 0 */
	const char *yes;
	const char *no;
};

static const struct kvm_cap caps[] = {
	{PROBE_KVM_IRQCHIP, KVM_CAP_IRQCHIP, 0, "interrupt controllers in the kernel",
	 "no interrupt controllers in the kernel: no vCPU can be interrupted while it waits"},
	{PROBE_KVM_SYNC_REGS, KVM_CAP_SYNC_REGS,
	 KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS,
	 "CPU state comes with each exit",
	 "CPU state does not come with each exit: no cheap look at the guest's mode"},
	{PROBE_KVM_USER_SPACE_MSR, KVM_CAP_X86_USER_SPACE_MSR, 0, "MSRs can be served here",
	 "MSRs cannot be served in user space: a guest cannot register"},
	{PROBE_KVM_MSR_FILTER, KVM_CAP_X86_MSR_FILTER, 0, "single MSRs can be picked out",
	 "the three MSRs cannot be picked out: a guest would register with the kernel"},
	{PROBE_KVM_EXCEPTION_PAYLOAD, KVM_CAP_EXCEPTION_PAYLOAD, 0,
	 "page-missing events can be injected with their token",
	 "#PF cannot be injected with a token: no page-missing events"},
	{PROBE_KVM_SIGNAL_MSI, KVM_CAP_SIGNAL_MSI, 0, "page-ready interrupts can be sent",
	 "interrupts cannot be sent to a vCPU: no page-ready events"},
	{PROBE_KVM_ASYNC_PF, KVM_CAP_ASYNC_PF, 0, "the kernel has asynchronous faults of its own",
	 "the kernel has no asynchronous faults of its own"},
	{PROBE_KVM_ASYNC_PF_INT, KVM_CAP_ASYNC_PF_INT, 0, "and reports ready pages by interrupt",
	 "the kernel's own asynchronous faults do not report by interrupt"},
};

static void probe_kvm_caps(struct probe *list, int kvm)
{
	for (size_t i = 0; i < ARRAY_LEN(caps); i++) {
		const struct kvm_cap *c = &caps[i];
		struct probe *pr = &list[c->id];

		if (kvm < 0) {
			probe_set(pr, VERDICT_NO, "see kvm.device", "could not be tried");
			continue;
		}
		int got = ioctl(kvm, KVM_CHECK_EXTENSION, c->cap);
		if (got > 0 && (got & c->bits) == c->bits)
			probe_set(pr, VERDICT_OK, "", "%s", c->yes);
		else
			probe_set(pr, VERDICT_NO, "use a newer kernel on this host", "%s", c->no);
	}
}

void probe_all(struct probes *ret_probes)
{
	struct probes *p = ret_probes;

	memset(p, 0, sizeof(*p));
	probe_host(p->list);
	probe_sandbox(&p->list[PROBE_SANDBOX]);
	probe_memfd(&p->list[PROBE_MEMFD]);
	probe_io_uring(&p->list[PROBE_IO_URING]);
	int kvm = probe_kvm_device(&p->list[PROBE_KVM]);
	probe_kvm_caps(p->list, kvm);
	probe_uffd(p->list);
	probe_pagemap(&p->list[PROBE_PAGEMAP_SCAN]);
	if (kvm >= 0) {
		probe_guest(p, kvm);
		close(kvm);
	} else {
		probe_set(&p->list[PROBE_GUEST_CPL0], VERDICT_NO, "see kvm.device",
			  "could not be tried");
		probe_set(&p->list[PROBE_GUEST_TOUCH], VERDICT_NO, "see kvm.device",
			  "could not be tried");
	}
	probe_served(p);
}
