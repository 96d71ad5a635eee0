/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probes that run a guest: a few bytes of 64-bit code. One measures how fast the local
 * KVM runs code at CPL 0 (some KVMs emulate every instruction there, and a stock
 * kernel does not get through its boot); the other touches a poisoned page at CPL 3
 * and looks whether the touch comes back to user space, and as what.
 *
 * A guest that does not come back is ended by SIGALRM. SIGALRM and SIGBUS are blocked
 * and opened inside KVM_RUN alone, so neither needs a handler.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/time.h"
#include "cli/cli.h"
#include "cli/probe/probe.h"
#include "kvm/kvm_uapi.h"
#include "mem/memfd.h"
#include "mem/uffd.h"

/* Guest-physical layout of the one memory slot. */
enum { GPA_PML4 = 0x1000, GPA_PDPT = 0x2000, GPA_PD = 0x3000, GPA_CODE = 0x4000 };
enum { GPA_TOUCH = 0x8000, GUEST_BYTES = 0x10000 };

/* A guest that takes so long hangs, however busy the machine: it needs some 20 ms of a CPU. */
#define RUN_S_MAX 10
/*
 * Between the emulators (0.5 million per second measured) and the slowest virtualised
 * CPL 0 (software emulation of the whole machine, tens of millions).
 */
#define LINUX_PER_S_MIN 5000000ull
#define ROUNDS_FIRST 5000u
/* Where it is not emulated: long enough to mean something. */
#define LONG_NS (20 * NS_PER_MS)
#define ROUNDS_MAX 1000000u
/* Of the short loop, while it looks emulated: its CPU may have had other work in its interrupts. */
#define TRIES 3

struct guest {
	int vm;
	int vcpu;
	unsigned char *mem; /* MAP_FAILED when there is none */
	struct kvm_run *run;
	size_t run_bytes;
	const char *step; /* the call that failed */
};

static void guest_close(struct guest *g)
{
	if (g->run != MAP_FAILED)
		munmap(g->run, g->run_bytes);
	if (g->vcpu >= 0)
		close(g->vcpu);
	if (g->vm >= 0)
		close(g->vm);
	if (g->mem != MAP_FAILED)
		munmap(g->mem, GUEST_BYTES);
}

static void put_entry(struct guest *g, unsigned table, uint64_t entry)
{
	memcpy(g->mem + table, &entry, sizeof(entry));
}

static int guest_memory(struct guest *g)
{
	int fd = memfd_new("asyncpf-doctor");

	g->step = "memfd";
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, GUEST_BYTES) == 0)
		g->mem = mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	int r = g->mem == MAP_FAILED ? -errno : 0;
	close(fd);
	if (r < 0)
		return r;
	/* One large page, identity-mapped: present, writable, user. */
	put_entry(g, GPA_PML4, GPA_PDPT | 7);
	put_entry(g, GPA_PDPT, GPA_PD | 7);
	put_entry(g, GPA_PD, 0x87);
	return 0;
}

/* 64 bit, flat; code at GPA_CODE; RCX and RDI as given. */
static int guest_registers(struct guest *g, uint8_t cpl, uint64_t rcx, uint64_t rdi)
{
	struct kvm_segment code = {.limit = 0xffffffff, .selector = 8 | cpl, .dpl = cpl,
				   .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	struct kvm_segment data = {.limit = 0xffffffff, .selector = 16 | cpl, .dpl = cpl,
				   .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_regs regs = {.rip = GPA_CODE, .rflags = 2, .rcx = rcx, .rdi = rdi};
	struct kvm_sregs sregs;

	g->step = "KVM_GET_SREGS";
	if (KVMP_IOCTL(g->vcpu, KVM_GET_SREGS, &sregs) < 0)
		return -errno;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cr3 = GPA_PML4;
	sregs.cr4 = 1u << 5;                  /* PAE */
	sregs.cr0 = 1u << 31 | 1u << 4 | 1u; /* PG, ET, PE */
	sregs.efer = 1u << 10 | 1u << 8;      /* LMA, LME */
	g->step = "KVM_SET_SREGS";
	if (KVMP_IOCTL(g->vcpu, KVM_SET_SREGS, &sregs) < 0)
		return -errno;
	g->step = "KVM_SET_REGS";
	return KVMP_IOCTL(g->vcpu, KVM_SET_REGS, &regs) < 0 ? -errno : 0;
}

/* Signals inside KVM_RUN: all blocked but SIGALRM and SIGBUS. */
static int guest_signals(struct guest *g)
{
	/* struct kvm_signal_mask with its flexible array filled in. */
	struct {
		uint32_t len;
		uint64_t set;
	} __attribute__((packed)) mask = {
		.len = sizeof(uint64_t),
		.set = ~(1ull << (SIGALRM - 1) | 1ull << (SIGBUS - 1)),
	};

	g->step = "KVM_SET_SIGNAL_MASK";
	return KVMP_IOCTL(g->vcpu, KVM_SET_SIGNAL_MASK, &mask) < 0 ? -errno : 0;
}

static int guest_open(struct guest *g, int kvm)
{
	*g = (struct guest){.vm = -1, .vcpu = -1, .mem = MAP_FAILED, .run = MAP_FAILED};
	int r = guest_memory(g);
	if (r < 0)
		return r;
	g->step = "KVM_CREATE_VM";
	g->vm = KVMP_IOCTL(kvm, KVM_CREATE_VM, 0);
	if (g->vm < 0)
		return -errno;
	/* Older Intel processors need it; elsewhere it does no harm. */
	(void)KVMP_IOCTL(g->vm, KVM_SET_TSS_ADDR, 0xfffbd000ul);
	struct kvm_userspace_memory_region slot = {
		.memory_size = GUEST_BYTES,
		.userspace_addr = (uint64_t)(uintptr_t)g->mem,
	};
	g->step = "KVM_SET_USER_MEMORY_REGION";
	if (KVMP_IOCTL(g->vm, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
		return -errno;
	g->step = "KVM_CREATE_VCPU";
	g->vcpu = KVMP_IOCTL(g->vm, KVM_CREATE_VCPU, 0);
	if (g->vcpu < 0)
		return -errno;
	g->step = "KVM_GET_VCPU_MMAP_SIZE";
	int bytes = KVMP_IOCTL(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (bytes < (int)sizeof(struct kvm_run))
		return bytes < 0 ? -errno : -EINVAL;
	g->step = "mapping of kvm_run";
	g->run_bytes = (size_t)bytes;
	g->run = mmap(NULL, g->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
	if (g->run == MAP_FAILED)
		return -errno;
	return guest_signals(g);
}

/* Takes a pending signal without waiting: true when it was there. */
static bool take_signal(int signo, siginfo_t *ret_info)
{
	struct timespec now = {0};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signo);
	return sigtimedwait(&set, ret_info, &now) == signo;
}

static bool signal_pending(void)
{
	sigset_t set;

	return sigpending(&set) == 0 &&
	       (sigismember(&set, SIGALRM) == 1 || sigismember(&set, SIGBUS) == 1);
}

/*
 * KVM_RUN with a time limit. 0, or -errno of the call; -EINTR only for a signal: the kernel
 * also interrupts a thread to run deferred work in it, such as the end of the io_uring that
 * an earlier probe made.
 */
static int guest_run(struct guest *g)
{
	struct itimerval limit = {.it_value = {.tv_sec = RUN_S_MAX}}, none = {0};
	int r;

	g->step = "KVM_RUN";
	setitimer(ITIMER_REAL, &limit, NULL);
	do
		r = ioctl(g->vcpu, KVM_RUN, 0) < 0 ? -errno : 0;
	while (r == -EINTR && !signal_pending());
	setitimer(ITIMER_REAL, &none, NULL);
	return r;
}

/*
 * Runs `rounds` rounds of a loop of two instructions: 0 and the CPU time it took, or -Exxx. What
 * else wants the CPU does not count.
 */
static int timed_loop(struct guest *g, uint64_t rounds, uint64_t *ret_ns)
{
	static const unsigned char code[] = {
		0xff, 0xc9, /* dec %ecx */
		0x75, 0xfc, /* jnz back */
		0xf4,       /* hlt */
	};
	siginfo_t info;

	memcpy(g->mem + GPA_CODE, code, sizeof(code));
	int r = guest_registers(g, 0, rounds, 0);
	if (r < 0)
		return r;
	uint64_t start = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	r = guest_run(g);
	*ret_ns = max_u64(clock_ns(CLOCK_THREAD_CPUTIME_ID) - start, 1);
	if (take_signal(SIGALRM, &info))
		return -ETIMEDOUT;
	if (r == 0 && g->run->exit_reason != KVM_EXIT_HLT)
		return -EPROTO;
	return r;
}

static bool looks_emulated(uint64_t ns)
{
	return 2 * ROUNDS_FIRST * NS_PER_S / ns < LINUX_PER_S_MIN / 2;
}

/* The shortest time of the short loop. */
static int time_short_loop(struct guest *g, uint64_t *ret_ns)
{
	uint64_t ns = 0;
	int r = timed_loop(g, ROUNDS_FIRST, ret_ns);

	for (unsigned i = 1; r == 0 && i < TRIES && looks_emulated(*ret_ns); i++) {
		r = timed_loop(g, ROUNDS_FIRST, &ns);
		*ret_ns = min_u64(*ret_ns, ns);
	}
	return r;
}

static void set_speed(struct probes *p, int kvm)
{
	struct probe *pr = &p->list[PROBE_GUEST_CPL0];
	uint64_t rounds = ROUNDS_FIRST, ns = 0;
	struct guest g;
	int r = guest_open(&g, kvm);

	/* The first entry makes KVM's page tables, at a millisecond each in a nested guest. */
	if (r == 0)
		r = timed_loop(&g, 1, &ns);
	if (r == 0)
		r = time_short_loop(&g, &ns);
	if (r == 0 && !looks_emulated(ns)) {
		rounds = min_u64(ROUNDS_FIRST * LONG_NS / ns, ROUNDS_MAX);
		r = timed_loop(&g, rounds, &ns);
	}
	guest_close(&g);
	if (r < 0) {
		probe_set(pr, VERDICT_NO,
			  probe_fix(r, "look for messages of kvm in the kernel log"),
			  "%s: %s: a guest of two instructions does not run", g.step,
			  strerror(-r));
		return;
	}
	p->cpl0_per_s = 2 * rounds * NS_PER_S / ns;
	p->linux_guest = p->cpl0_per_s >= LINUX_PER_S_MIN;
	if (p->linux_guest)
		probe_set(pr, VERDICT_OK, "",
			  "%llu million guest instructions/s at CPL 0: stock Linux can run",
			  (unsigned long long)(p->cpl0_per_s / 1000000));
	else
		probe_set(pr, VERDICT_LIMITED,
			  "use a machine with hardware virtualisation, switch nesting on, or use "
			  "the lab: 'asyncpf run' does by itself for Linux",
			  "%llu guest instructions/s at CPL 0: this KVM emulates them; "
			  "small guests run, stock Linux does not",
			  (unsigned long long)p->cpl0_per_s);
}

/* The guest reads one byte of a poisoned page: what does KVM_RUN say? */
static void set_touch(struct probe *pr, struct guest *g, int uffd)
{
	/* mov (%rdi),%al; hlt, which is never reached */
	static const unsigned char code[] = {0x8a, 0x07, 0xf4};
	const char *fix = "use a kernel whose KVM reports poisoned pages to user space";
	unsigned char *page = g->mem + GPA_TOUCH;
	uint64_t ioctls;
	siginfo_t bus = {0}, late;

	memcpy(g->mem + GPA_CODE, code, sizeof(code));
	g->step = "UFFDIO_REGISTER or UFFDIO_POISON";
	int r = probe_uffd_register(uffd, PROBE_UFFD_FEATURES, page, PAGE_BYTES, &ioctls);
	if (r == 0)
		r = probe_uffd_poison(uffd, page, PAGE_BYTES);
	if (r == 0)
		r = guest_registers(g, 3, 0, GPA_TOUCH);
	if (r < 0) {
		probe_set(pr, VERDICT_NO, probe_fix(r, fix), "%s: %s", g->step, strerror(-r));
		return;
	}
	r = guest_run(g);
	bool sigbus = take_signal(SIGBUS, &bus);
	if (take_signal(SIGALRM, &late))
		probe_set(pr, VERDICT_NO, fix, "a touch of an absent page never comes back");
	else if (r == -EINTR && sigbus && bus.si_addr == page)
		probe_set(pr, VERDICT_OK, "",
			  "a touch of an absent page comes to user space, with its address");
	else if (r == 0 && g->run->exit_reason == KVM_EXIT_MMIO &&
		 g->run->mmio.phys_addr == GPA_TOUCH)
		probe_set(pr, VERDICT_OK, "",
			  "a touch of an absent page comes to user space, as an I/O exit");
	else if (cli_limit_advice(r))
		probe_set(pr, VERDICT_NO, probe_fix(r, fix), "%s: %s", g->step, strerror(-r));
	else
		probe_set(pr, VERDICT_NO, fix,
			  "a touch of an absent page comes back without its address (%s, exit %u)",
			  r < 0 ? strerror(-r) : "no error", g->run->exit_reason);
}

static void touch_absent_page(struct probes *p, int kvm)
{
	struct probe *pr = &p->list[PROBE_GUEST_TOUCH];
	struct refusal why;
	struct guest g;
	bool by_device;

	if (p->list[PROBE_UFFD_POISON].verdict == VERDICT_NO) {
		probe_set(pr, VERDICT_NO, "see uffd.poison", "could not be tried");
		return;
	}
	int uffd = uffd_new(&by_device, &why);
	int r = uffd < 0 ? uffd : guest_open(&g, kvm);
	if (r < 0)
		probe_set(pr, VERDICT_NO, probe_fix(r, "see kvm.device and uffd.open"), "%s: %s",
			  uffd < 0 ? "userfaultfd" : g.step, strerror(-r));
	else
		set_touch(pr, &g, uffd);
	if (uffd >= 0) {
		/* First the descriptor: closing it wakes whoever might wait for the page. */
		close(uffd);
		guest_close(&g);
	}
}

static void block_signals(sigset_t *ret_before)
{
	sigset_t ours;

	sigemptyset(&ours);
	sigaddset(&ours, SIGALRM);
	sigaddset(&ours, SIGBUS);
	pthread_sigmask(SIG_BLOCK, &ours, ret_before);
}

void probe_guest(struct probes *p, int kvm)
{
	sigset_t before;

	block_signals(&before);
	set_speed(p, kvm);
	touch_absent_page(p, kvm);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

bool probe_runs_linux(int kvm, uint64_t *ret_per_s)
{
	struct probes p = {0};
	sigset_t before;

	block_signals(&before);
	set_speed(&p, kvm);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	*ret_per_s = p.cpl0_per_s;
	return p.linux_guest;
}
