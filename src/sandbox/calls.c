/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See calls.h. A call stands here once for each condition under which it is made. What only
 * leads to an error's text, or to an orderly end by abort(), is needed as well.
 */
#include "sandbox/calls.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/types.h"
#include "io/cachestat.h"
#include "kvm/kvm_uapi.h"
#include "mem/uffd_abi.h"

static const char *const role_names[] = {
	[SANDBOX_MAIN] = "main",	   [SANDBOX_VCPU] = "vCPU",
	[SANDBOX_DEVICE] = "device",	   [SANDBOX_LIBRARY] = "library",
	[SANDBOX_EVICTOR] = "evictor",	   [SANDBOX_CONTROL] = "control",
	[SANDBOX_SIGNALS] = "signals",	   [SANDBOX_TRACE] = "trace",
	[SANDBOX_NET] = "network",	   [SANDBOX_GUARD] = "terminal",
	[SANDBOX_VSOCK] = "vsock",	   [SANDBOX_PAGER] = "pager",
	[SANDBOX_RULES] = "rules",	   [SANDBOX_WORKER] = "worker",
	[SANDBOX_SOURCES] = "sources",
};

_Static_assert(ARRAY_LEN(role_names) == SANDBOX_ROLES, "a name for each");

const char *sandbox_role_name(enum sandbox_role role)
{
	return (unsigned)role < SANDBOX_ROLES ? role_names[role] : "unknown";
}

enum sandbox_role sandbox_role_of_library(const char *name)
{
	if (strcmp(name, "asyncpf-evict") == 0)
		return SANDBOX_EVICTOR;
	return strcmp(name, "asyncpf-net") == 0 ? SANDBOX_SOURCES : SANDBOX_LIBRARY;
}

enum {
	M = 1 << SANDBOX_MAIN,
	V = 1 << SANDBOX_VCPU,
	D = 1 << SANDBOX_DEVICE,
	L = 1 << SANDBOX_LIBRARY,
	E = 1 << SANDBOX_EVICTOR,
	C = 1 << SANDBOX_CONTROL,
	S = 1 << SANDBOX_SIGNALS,
	T = 1 << SANDBOX_TRACE,
	N = 1 << SANDBOX_NET,
	G = 1 << SANDBOX_GUARD,
	U = 1 << SANDBOX_VSOCK,
	P = 1 << SANDBOX_PAGER,
	R = 1 << SANDBOX_RULES,
	W = 1 << SANDBOX_WORKER,
	O = 1 << SANDBOX_SOURCES,
	ALL = M | V | D | L | E | C | S | T | N | G | U | P | R | W | O,
	/* Whoever calls the library may move its driver: shows pages, raises interrupts, kicks. */
	API = M | V | D | L | E | C,
	NONE = 0,
};

/* Those who make it; of them, those in which the library does. */
#define CALL(name, who, lib) \
	{#name, SYS_##name, (who) | (lib), (lib), CALL_ALWAYS, 0, 0, 0, NULL, 0}
#define CALL_WITH(name, who, lib, arg, mask, value, what) \
	{#name, SYS_##name, (who) | (lib), (lib), CALL_IF_EQUAL, (arg), (mask), (value), (what), 0}
/* What a library tries, and does without. */
#define CALL_FAILS(name, who, arg, mask, value, what, code) \
	{#name, SYS_##name, (who), NONE, CALL_IF_EQUAL, (arg), (mask), (value), (what), (code)}
#define CALL_TO_SELF(name, who, lib) \
	{#name, SYS_##name, (who) | (lib), (lib), CALL_IF_OWN_PID, 0, 0, 0, "to itself", 0}
#define IOCTL(request, who, lib) \
	CALL_WITH(ioctl, who, lib, 1, UINT32_MAX, (uint32_t)(request), #request)

/* pthread_create's, of glibc and musl; as clone3's cannot be looked at, it "does not exist". */
#define THREAD_FLAGS \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | \
	 CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)

#define HOW_TO_OPEN (O_ACCMODE | O_CREAT | O_TRUNC)

const struct sandbox_call sandbox_calls[] = {
	/* ---- any thread: the C library, ends, and the words before an end ---- */
	CALL(brk, ALL, NONE),
	CALL(clock_gettime, ALL, API),
	CALL(clock_nanosleep, ALL, L | C | M),
	CALL(exit, ALL, L | E),
	CALL(exit_group, ALL, NONE),
	CALL(futex, ALL, API),
	CALL(getpid, ALL, API),
	CALL(gettid, ALL, API),
	CALL(gettimeofday, ALL, NONE),
	CALL(madvise, ALL, API),
	CALL_WITH(mmap, ALL, NONE, 2, PROT_EXEC, 0, "not executable"),
	CALL_WITH(mprotect, ALL, NONE, 2, PROT_EXEC, 0, "not executable"),
	CALL(mremap, ALL, NONE),
	CALL(munmap, ALL, NONE),
	CALL(nanosleep, ALL, NONE),
	CALL(poll, ALL, NONE),
	CALL(restart_syscall, ALL, API),
	CALL(rseq, ALL, NONE),
	CALL(rt_sigprocmask, ALL, API),
	CALL(rt_sigreturn, ALL, API),
	CALL(sched_getaffinity, ALL, NONE),
	CALL(sched_yield, ALL, L | E | V),
	CALL(set_robust_list, ALL, NONE),
	CALL(time, ALL, NONE), /* where the vDSO has no clock */
	CALL_TO_SELF(tgkill, ALL, API),
	CALL(write, ALL, API),
	CALL(writev, ALL, NONE),
	/* Of itself: its name. */
	CALL_WITH(prctl, ALL, L | E, 0, UINT64_MAX, PR_SET_NAME, "PR_SET_NAME"),

	/* ---- whoever calls the library ---- */
	IOCTL(UFFDIO_CONTINUE, NONE, API),
	IOCTL(UFFDIO_POISON, NONE, API),
	IOCTL(UFFDIO_WAKE, P, API),
	IOCTL(UFFDIO_WRITEPROTECT, P, API),
	/* Writes are noted from the first eviction on. */
	IOCTL(UFFDIO_REGISTER, NONE, E),
	IOCTL(KVM_SIGNAL_MSI, NONE, API),
	IOCTL(PAGEMAP_SCAN, NONE, API),
	CALL(cachestat, R, C), /* who asks for status */
	CALL(fallocate, D, API),
	CALL(mincore, NONE, API),
	CALL(pread64, P | R | W, API),
	CALL(preadv2, P | W, API),
	CALL(statx, P | R | O, API), /* is a sparse file what it was? */
	CALL(read, M | S | G | C | D | N | U | P | R | O, API),
	CALL(timerfd_settime, NONE, API),

	/* ---- a vCPU ---- */
	IOCTL(KVM_RUN, NONE, V),
	IOCTL(KVM_GET_LAPIC, C, V),
	IOCTL(KVM_GET_MP_STATE, V | C, V),
	IOCTL(KVM_GET_MSRS, C, V),
	IOCTL(KVM_GET_NESTED_STATE, NONE, V),
	IOCTL(KVM_GET_REGS, V | C, NONE),
	IOCTL(KVM_GET_SREGS, V | C, V),
	IOCTL(KVM_KVMCLOCK_CTRL, NONE, V),
	IOCTL(KVM_PRE_FAULT_MEMORY, NONE, V),
	IOCTL(KVM_SET_MP_STATE, NONE, V),
	IOCTL(KVM_SET_MSRS, NONE, V),
	IOCTL(KVM_SET_REGS, NONE, V),
	IOCTL(KVM_SET_SIGNAL_MASK, NONE, V),
	IOCTL(KVM_SET_SREGS, NONE, V),
	IOCTL(KVM_SET_VCPU_EVENTS, NONE, V),
	CALL(ppoll, M | V | P | O, V),
	CALL(rt_sigpending, NONE, V),
	CALL(rt_sigtimedwait, S | M, V),
	CALL_TO_SELF(rt_tgsigqueueinfo, NONE, V),
	/* It looks whether the handler is the one that it knows; for others, before an end. */
	CALL_WITH(rt_sigaction, API, V, 0, UINT32_MAX, SIGBUS, "of SIGBUS"),

	/* ---- devices; their interrupts come from vCPUs, the console and clients, too ---- */
	IOCTL(KVM_IRQ_LINE, M | V | D | C | N | U, NONE),
	CALL(fdatasync, M | D | W, L),
	CALL(getrandom, D | M | C | P | R | O, NONE),
	CALL(preadv, D, NONE),
	CALL(pwritev, D, NONE),
	CALL(readv, D | O, NONE),
	IOCTL(TUNSETOFFLOAD, D, NONE),

	/* ---- sockets: a guest's network in user space, vsock, page sources, the pager's ---- */
	CALL(accept, N, NONE),
	CALL(connect, N | U | R | O, NONE),
	CALL(getpeername, N | O, NONE),
	CALL(getsockname, N | O, NONE),
	CALL(getsockopt, N | P | O, NONE),
	CALL(setsockopt, N | M | O, NONE),
	CALL(shutdown, N | M | U | O, NONE),
	CALL_WITH(socket, N | O, NONE, 0, UINT32_MAX, AF_INET, "IPv4"),
	CALL_WITH(socket, O, NONE, 0, UINT32_MAX, AF_INET6, "IPv6"),
	CALL_WITH(socket, U | R | O, NONE, 0, UINT32_MAX, AF_UNIX, "AF_UNIX"),
	IOCTL(FIONREAD, N | O, NONE),
	/* The host's resolver may change. */
	CALL_WITH(openat, N | R | O, NONE, 2, HOW_TO_OPEN, O_RDONLY, "to read"),

	/* ---- the library's threads; those that read and write where there is no io_uring ---- */
	CALL(epoll_create1, NONE, L),
	CALL(epoll_ctl, P | R | O, L),
	CALL(epoll_pwait2, P, L),
	CALL(fadvise64, P | R | W, L),
	CALL(io_uring_enter, P, L),
	CALL_WITH(io_uring_register, P, L, 1, UINT64_MAX, IORING_REGISTER_ENABLE_RINGS,
		  "IORING_REGISTER_ENABLE_RINGS"),
	CALL(pwrite64, C | P | R | W, L),

	/* ---- the evictor's, which looks whether the swap file is whole ---- */
	CALL(newfstatat, M | T | N | P | R | O, API),
	CALL(fstat, M | T | N | P | R | O, API),

	/* ---- Unix sockets: control, vsock ---- */
	CALL(accept4, C | U | P | R, NONE),
	CALL_WITH(clone, C | R | O, NONE, 0, UINT64_MAX, THREAD_FLAGS, "a thread"),
	CALL(close, M | C | N | U | P | R | O, L),
	CALL(recvfrom, C | N | U | R | O, NONE),
	CALL(recvmsg, C | N | P | R | O, NONE),
	CALL(sendto, C | N | U | R | O, NONE),

	/* ---- the pager: VMs that are other processes ---- */
	IOCTL(UFFDIO_COPY, P, NONE),
	IOCTL(UFFDIO_ZEROPAGE, P, NONE),
	CALL(epoll_wait, P | O, NONE),
	CALL(pidfd_open, P, NONE),
	CALL(readlink, P | R | O, NONE),

	/* ---- its sources and sockets that are named later, where Landlock has them ---- */
	IOCTL(BLKGETSIZE64, R, NONE),
	CALL(bind, R, NONE),
	CALL(clock_getres, P | R, NONE),
	CALL(fchmod, R, NONE),
	CALL(getcwd, R, NONE),
	CALL(link, R, NONE),
	CALL(listen, R, NONE),
	CALL(mkdir, R, NONE),
	CALL(rename, R, NONE),
	CALL(unlink, R, NONE),
	/* A cache's file, shared with others. */
	CALL_WITH(openat, R, NONE, 2, HOW_TO_OPEN, O_RDWR, "to read and write"),
	CALL_WITH(openat, R, NONE, 2, HOW_TO_OPEN, O_RDWR | O_CREAT, "to make"),

	/* ---- what libcurl, libnbd, TLS and names take besides; realpath() ---- */
	CALL(access, R | O, NONE),
	CALL(eventfd2, O, NONE),
	CALL(faccessat, R | O, NONE),
	CALL(faccessat2, R | O, NONE),
	CALL(getdents64, O, NONE),
	CALL(getegid, R | O, NONE),
	CALL(geteuid, R | O, NONE),
	CALL(getgid, R | O, NONE),
	CALL(getuid, R | O, NONE),
	CALL(mlock, O, NONE),
	CALL(munlock, O, NONE),
	CALL(pipe2, O, NONE),
	CALL(sendmmsg, O, NONE),
	CALL(sendmsg, O, NONE),
	CALL(socketpair, O, NONE),
	CALL(sysinfo, O, NONE),
	CALL(uname, O, NONE),
	IOCTL(FIONBIO, O, NONE),
	/* Other ways to look names up than files and DNS; which addresses this machine has. */
	CALL_FAILS(mmap, O, 2, PROT_EXEC, PROT_EXEC, "executable", -EACCES),
	CALL_FAILS(socket, O, 0, UINT32_MAX, AF_NETLINK, "AF_NETLINK", -EAFNOSUPPORT),

	/* ---- a snapshot, by a thread of control's ---- */
	IOCTL(KVM_CHECK_EXTENSION, C, NONE),
	IOCTL(KVM_GET_CLOCK, C, NONE),
	IOCTL(KVM_GET_CPUID2, C, NONE),
	IOCTL(KVM_GET_DEBUGREGS, C, NONE),
	IOCTL(KVM_GET_DIRTY_LOG, C, NONE),
	IOCTL(KVM_GET_IRQCHIP, C, NONE),
	IOCTL(KVM_GET_MSR_INDEX_LIST, C, NONE),
	IOCTL(KVM_GET_PIT2, C, NONE),
	IOCTL(KVM_GET_TSC_KHZ, C, NONE),
	IOCTL(KVM_GET_VCPU_EVENTS, C, NONE),
	IOCTL(KVM_GET_XCRS, C, NONE),
	IOCTL(KVM_GET_XSAVE, C, NONE),
	IOCTL(KVM_GET_XSAVE2, C, NONE),
	/* Its log of writes, on and off. */
	IOCTL(KVM_SET_USER_MEMORY_REGION, C, NONE),

	/* ---- the terminal ---- */
	IOCTL(TCGETS, M | S | G, NONE),
	IOCTL(TCSETS, M | S | G, NONE),
	IOCTL(TIOCGPGRP, M | S | G, NONE),
	IOCTL(TIOCGWINSZ, M, NONE),
	CALL(close_range, G, NONE),
	CALL(dup2, G, NONE),
	CALL(getpgrp, M | S | G, NONE),
	CALL_TO_SELF(kill, M | S, NONE),

	/* ---- the end ---- */
	IOCTL(UFFDIO_UNREGISTER, NONE, M | L),
	IOCTL(KVM_GET_VCPU_MMAP_SIZE, M, NONE),
	CALL(fcntl, M | N | P | R | O, NONE),
	CALL(flock, M | P | R, NONE),
	CALL(ftruncate, M | T | C | P | R, NONE),
	CALL(lseek, M | T | N | P | R | O, NONE),
	CALL(unlinkat, M | P | R, NONE),
	CALL(wait4, M, NONE),
};

const unsigned sandbox_calls_count = ARRAY_LEN(sandbox_calls);
