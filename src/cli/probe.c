/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See probe.h. Here: the machine, io_uring, KVM's capabilities, and the table of
 * what each way of serving faults needs.
 */
#include "cli/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/kvm.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/assert.h"
#include "mem/pagemap.h"

static const char *const names[PROBE_COUNT] = {
	[PROBE_KERNEL] = "kernel",
	[PROBE_CPUS] = "cpus",
	[PROBE_MEMORY] = "memory",
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
};

#define BIT(id) (1u << (id))
#define NEED_ALL \
	(BIT(PROBE_MEMFD) | BIT(PROBE_IO_URING) | BIT(PROBE_KVM) | BIT(PROBE_KVM_IRQCHIP) | \
	 BIT(PROBE_UFFD) | BIT(PROBE_UFFD_MISSING_SHMEM) | BIT(PROBE_UFFD_MINOR_SHMEM) | \
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
	return missing;
}

void probe_set(struct probe *pr, enum verdict v, const char *fix, const char *fmt, ...)
{
	va_list ap;

	pr->verdict = v;
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
		probe_set(pr, VERDICT_NO, "use Linux 6.7 or later", "%.190s", e.text);
		return;
	}
	close(fd);
	probe_set(pr, VERDICT_OK, "", "what is mapped, and was written to, can be found out");
}

/* First number of a line "name: number" of a /proc file, or of the file when name is "". */
static int read_number(const char *path, const char *name, long long *ret_value)
{
	char line[128];
	int r = -ENOENT;
	FILE *f = fopen(path, "re");

	if (!f)
		return -errno;
	while (r < 0 && fgets(line, sizeof(line), f))
		if (strncmp(line, name, strlen(name)) == 0 &&
		    sscanf(line + strlen(name), "%lld", ret_value) == 1)
			r = 0;
	fclose(f);
	return r;
}

static void probe_machine(struct probe *list)
{
	struct utsname u;
	cpu_set_t cpus;
	long long kb;

	if (uname(&u) == 0)
		probe_set(&list[PROBE_KERNEL], VERDICT_OK, "",
			  "%.32s %.64s (for information; what counts is tried below)", u.sysname,
			  u.release);
	else
		probe_set(&list[PROBE_KERNEL], VERDICT_LIMITED, "", "uname: %s", strerror(errno));

	int n = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
	if (n >= 2)
		probe_set(&list[PROBE_CPUS], VERDICT_OK, "", "%d CPUs", n);
	else
		probe_set(&list[PROBE_CPUS], VERDICT_LIMITED, "allow the process a second CPU",
			  "1 CPU: vCPU and page fetches take turns, measured times mean little");

	if (read_number("/proc/meminfo", "MemAvailable:", &kb) < 0)
		probe_set(&list[PROBE_MEMORY], VERDICT_LIMITED, "mount /proc",
			  "/proc/meminfo does not say how much memory is available");
	else if (kb < 256 * 1024)
		probe_set(&list[PROBE_MEMORY], VERDICT_LIMITED, "free some memory",
			  "%lld MiB available: too little for a guest of usual size", kb / 1024);
	else
		probe_set(&list[PROBE_MEMORY], VERDICT_OK, "", "%lld MiB available", kb / 1024);
}

/* Two mappings of one memfd must show the same bytes: guest mapping and alias. */
static void probe_memfd(struct probe *pr)
{
	int fd = memfd_create("asyncpf-doctor", MFD_CLOEXEC);
	unsigned char *a = MAP_FAILED, *b = MAP_FAILED;

	if (fd >= 0 && ftruncate(fd, PAGE_BYTES) == 0) {
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
	if (fd >= 0)
		close(fd);
}

static void probe_io_uring(struct probe *pr)
{
	struct io_uring ring;
	long long off = 0;
	int r = io_uring_queue_init(8, &ring, 0);

	if (r == 0) {
		io_uring_queue_exit(&ring);
		probe_set(pr, VERDICT_OK, "", "pages can be read through io_uring");
		return;
	}
	(void)read_number("/proc/sys/kernel/io_uring_disabled", "", &off);
	if (r == -ENOSYS)
		probe_set(pr, VERDICT_NO, "use a kernel with CONFIG_IO_URING",
			  "io_uring_setup: %s: this kernel has none", strerror(-r));
	else if (r == -EPERM && off)
		probe_set(pr, VERDICT_NO,
			  off == 1 ? "sysctl kernel.io_uring_disabled=0, or join the group that "
				     "kernel.io_uring_group names"
				   : "sysctl kernel.io_uring_disabled=0",
			  "io_uring_setup: %s: kernel.io_uring_disabled is %lld", strerror(-r),
			  off);
	else if (r == -EPERM)
		probe_set(pr, VERDICT_NO, "allow io_uring in the container's seccomp profile",
			  "io_uring_setup: %s", strerror(-r));
	else if (r == -ENOMEM)
		probe_set(pr, VERDICT_NO, "raise the limit: ulimit -l",
			  "io_uring_setup: %s: locked memory", strerror(-r));
	else
		probe_set(pr, VERDICT_NO, "free descriptors or memory", "io_uring_setup: %s",
			  strerror(-r));
}

/* Opens /dev/kvm and checks its interface: the descriptor, or -1. */
static int probe_kvm_device(struct probe *pr)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int code = errno;

	if (fd < 0) {
		const char *fix = "see the kernel log";

		if (code == ENOENT)
			fix = "switch virtualisation on in the firmware or the outer hypervisor, "
			      "then: modprobe kvm_intel, or kvm_amd; give a container the device";
		else if (code == EACCES || code == EPERM)
			fix = "usermod -aG kvm $USER and log in again, or setfacl -m u:$USER:rw "
			      "/dev/kvm; give a container the device";
		else if (code == ENODEV || code == ENXIO)
			fix = "modprobe kvm_intel, or kvm_amd";
		probe_set(pr, VERDICT_NO, fix, "/dev/kvm: %s", strerror(code));
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

void probe_host(struct probes *ret_probes)
{
	struct probes *p = ret_probes;

	memset(p, 0, sizeof(*p));
	probe_machine(p->list);
	probe_memfd(&p->list[PROBE_MEMFD]);
	probe_io_uring(&p->list[PROBE_IO_URING]);
	int kvm = probe_kvm_device(&p->list[PROBE_KVM]);
	probe_kvm_caps(p->list, kvm);
	probe_uffd(p->list);
	probe_pagemap(&p->list[PROBE_PAGEMAP_SCAN]);
	if (kvm >= 0) {
		probe_guest(p, kvm);
		close(kvm);
		return;
	}
	probe_set(&p->list[PROBE_GUEST_CPL0], VERDICT_NO, "see kvm.device", "could not be tried");
	probe_set(&p->list[PROBE_GUEST_TOUCH], VERDICT_NO, "see kvm.device", "could not be tried");
}
