/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libasyncpf: asynchronous page faults for KVM guests, from user space.
 *
 * For the author of a VMM. You make the VM and the vCPUs as before; three things
 * change: guest memory is told to apf_memory_adopt(), which gives the address for KVM's
 * memslot, each vCPU is attached, and apf_vcpu_run() stands where ioctl(KVM_RUN) stood.
 * Memory may then be absent when the guest starts; it is fetched from a page source when it
 * is touched, and the guest runs on meanwhile.
 *
 *     apf_open(vm_fd, &config, &apf, &error);
 *     apf_memory_adopt(apf, &memory, &error);            // your memfd and your mapping of it
 *     apf_source_add(apf, 0, 1 << 30, "file:ram.img", 0, NULL, &error);
 *     slot.userspace_addr = (uintptr_t)memory.guest;     // KVM_SET_USER_MEMORY_REGION
 *     apf_start(apf, &error);
 *     apf_vcpu_attach(apf, 0, vcpu_fd, run, 0, &vcpu, &error);
 *     while ((rc = apf_vcpu_run(vcpu)) == 0 || rc == -EINTR)
 *             ... run->exit_reason, as ever
 *
 * A complete VMM is in examples/minimal.c; examples/plain.c and adopted.c are the same one without
 * the library and with it. docs/embedding.md is about what a VMM has besides: vhost, hot-plug,
 * dirty logs.
 *
 * Structs that begin with their size get new members at their end. Before a VMM fills one in, it
 * calls the function of its name with _init, which sets the size and the defaults: a default that
 * is not named is 0 or NULL, and means what the member's comment says of that.
 *
 * Return values: 0 (or a count) on success, -errno on failure; where an apf_error is passed, it
 * holds one line that says what failed, on what, and why. NULL is allowed for it.
 *
 * Threads: open, start and close belong to one thread; each vCPU runs on a thread of its own;
 * everything else may be called from any thread. The library has one thread of its own per VM, and
 * those that config.on_thread names. It has no global state: several VMs fit in one process.
 *
 * Paused: while memory cannot be had (a source or the swap file fails, or there is no room) the VM
 * stands still, until apf_resume or until the reason is gone; config.on_event and apf_trouble_get
 * say why. apf_read, apf_write and apf_populate wait meanwhile, as a touch does; apf_readv and
 * apf_writev no longer than they are told. The VMM may have to give memory up before the VM can go
 * on: apf_discard, apf_memory_remove, apf_hold, apf_pin and apf_slot_set never wait for that. Where
 * one of them would need memory that cannot be had before, it fails with -EBUSY, and may be called
 * again after APF_EVENT_RESUMED. apf_release and apf_unpin wait for nothing.
 *
 * Signals: the library installs no handler, unless config.sigbus_handler asks for one. While a
 * thread is in apf_vcpu_run(), its signals are blocked; inside KVM_RUN, and while it waits, those
 * that the thread had let through before end the call with -EINTR, as they end KVM_RUN, and are
 * delivered when it returns, with the thread's mask as it was. The library's own signal is
 * config.kick_signal, or SIGURG where the kernel refuses that because RLIMIT_SIGPENDING is used up.
 * It is sent only to a thread that is in the call. KVM_SET_SIGNAL_MASK belongs to the library: a
 * VMM uses apf_vcpu_signal_mask() for it.
 */
#ifndef ASYNCPF_ASYNCPF_H
#define ASYNCPF_ASYNCPF_H

#include <asyncpf/counters.h>
#include <asyncpf/trace.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct kvm_run;
struct kvm_msr_filter;
struct kvm_cpuid2;

struct apf;      /* one VM's memory */
struct apf_vcpu; /* one vCPU of it */

struct apf_error {
	int code;       /* -errno */
	char text[240]; /* one line, no newline */
};

/* How a touch of absent memory is served. */
enum apf_faults {
	APF_FAULTS_BLOCK = 0,  /* the vCPU thread waits; the guest takes no interrupts */
	APF_FAULTS_STALL = 1,  /* the vCPU is halted and takes interrupts */
	APF_FAULTS_KERNEL = 2, /* the kernel's own async page fault; we serve the page */
	APF_FAULTS_USER = 3,   /* the guest is told, and runs other tasks: the default */
};

/* How `file:` sources and the swap file are read and written. */
enum apf_io {
	APF_IO_AUTO = 0,    /* by io_uring, or by threads where the system refuses that */
	APF_IO_URING = 1,   /* where it is refused, so is apf_open */
	APF_IO_THREADS = 2, /* up to 20 threads of the library's, which sleep in the calls */
};

/* The protocol that the guest is offered (APF_FAULTS_USER only). */
enum apf_abi {
	APF_ABI_OFF = 0,
	APF_ABI_LEGACY = 1,     /* Linux up to 5.7 */
	APF_ABI_PF2 = 2,        /* the proposal of April 2020, its hazards closed */
	APF_ABI_PF2_STRICT = 3, /* the same to the letter, for study */
	APF_ABI_INT = 4,        /* Linux 5.9 and later: the default */
};

#define APF_GRACE_AUTO (-1)

/* Why the VM stands still; see apf_config.on_event. */
enum apf_event_kind {
	APF_EVENT_PAUSED = 1,  /* memory cannot be had, or soon: text says what and why */
	APF_EVENT_RESUMED = 2, /* it can again; the VM goes on */
};
struct apf_event {
	enum apf_event_kind kind;
	uint64_t gpa;     /* first byte that is missing; 0: it is about no address */
	const char *text; /* valid during the call */
};

/* apf_config_init() fills in the defaults; change what you need. */
struct apf_config {
	/*
	 * Set by apf_config_init. Members that an older header's struct does not have take their
	 * defaults; a newer one's is accepted if the members that this library does not know are 0.
	 */
	size_t size;
	enum apf_faults faults;
	enum apf_abi abi;
	unsigned vcpus_max;         /* vCPUs that will be attached, 1..1024; default 1 */
	uint32_t block_bytes;       /* fetched as one: power of two, 4096..2 MiB; default 4096 */
	uint32_t faults_max;        /* outstanding faults per vCPU, 1..4096; default 256 */
	uint32_t queue_depth;       /* reads in flight per VM, 1..4096; default 256 */
	int64_t grace_us; /* wait this long before telling the guest; default APF_GRACE_AUTO */
	uint32_t retries_max;       /* of a failing read before the VM is paused; default 4 */
	uint32_t source_timeout_ms; /* a longer read pauses the VM; 0: never; default 10000 */
	/*
	 * Overcommit. swap: where content that the guest wrote goes when its memory is taken away.
	 * It is a path at which nothing exists: the library makes a file without a name in its
	 * folder, so that nothing is left however the process ends. Or it is a block device that
	 * starts with zeroes. Anything else that exists there is refused with -EEXIST and left
	 * alone. Memory is given back once what was written is durable. Without it nothing is ever
	 * taken away. Needs Linux 6.7. With it, swap file and `file:` sources leave nothing in the
	 * page cache. swap_wrap: what stands around its reads, as in "delay?ms=20"; NULL: nothing.
	 * Strings are used by apf_start only.
	 */
	const char *swap;
	const char *swap_wrap;
	/*
	 * At most this much guest memory is held in host memory, bytes; 0: no limit. Needs swap.
	 * At least 4 MiB, and 32 blocks and 16 for each vCPU beside what is pinned. No more reads
	 * are in flight than fill half of it. RAM without a source is filled by the kernel
	 * unseen until three quarters of it are used (not where blocks are larger than a page): a
	 * guest that then writes very fast can exceed the limit for a moment, once.
	 */
	uint64_t resident_max;
	int kick_signal;            /* 0: SIGRTMIN + 4 */
	/*
	 * Called by any of the library's or the vCPUs' threads when the VM is paused for want
	 * of memory, and when it goes on. Must return soon and must not call the library.
	 */
	void (*on_event)(void *ctx, const struct apf_event *ev);
	void *on_event_ctx;
	/* The VM has KVM_CAP_X2APIC_API with KVM_X2APIC_API_USE_32BIT_IDS: APIC ids above 254. */
	int x2apic_ids;
	/*
	 * The most guest memory that there will be at a time, each part rounded up to 2 MiB,
	 * bytes, of less than 2^32 blocks; only addresses are set aside for it. 0: four times the
	 * host's memory, 64 GiB at least and 1 TiB at most, or a quarter of RLIMIT_AS.
	 */
	uint64_t memory_max;
	/*
	 * The VMM states that what it has the kernel pin of adopted memory is between apf_hold and
	 * apf_release: see apf_memory_adopt. Needed for a swap file together with adopted memory.
	 */
	int pins_are_held;
	/*
	 * The library has written to guest memory by itself, which KVM's dirty log does not show:
	 * an event's slot, a store of the guest's that KVM handed out, apf_write, apf_discard. The
	 * call comes after the write: a VMM that notes the range here, and copies what is noted
	 * only afterwards, misses nothing. Any thread; must return soon and must not call the
	 * library. NULL: not told.
	 */
	void (*on_write)(void *ctx, uint64_t gpa, uint64_t bytes);
	void *on_write_ctx;
	/*
	 * The first thing that each thread of the library's does, with its name: "asyncpf",
	 * "asyncpf-evict", where threads read and write (config.io) "asyncpf-read" and
	 * "asyncpf-write", and where a source needs them "asyncpf-work" and "asyncpf-net". A VMM
	 * may give the thread another name, a CPU or a seccomp filter here. All signals are blocked
	 * there. All are made by the thread that calls apf_start, before that returns, but for the
	 * last two, which apf_source_add makes. No thread of the library's spins: one that waits
	 * for the lock of its VM sleeps after a few microseconds. NULL: nothing.
	 */
	void (*on_thread)(void *ctx, const char *name);
	void *on_thread_ctx;
	/*
	 * The library may have a handler for SIGBUS, from apf_open to apf_close: a fault then costs
	 * one system call less, though no less time, and apf_sigbus is asked by it. Every other
	 * SIGBUS goes to the handler that was there before. If somebody installs a handler later,
	 * the library takes faults without its own from the next apf_vcpu_run on. 0: no handler.
	 */
	int sigbus_handler;
	/*
	 * So many bytes are read ahead, at most, of a guest that goes through memory in even steps,
	 * forwards or backwards, block by block or with gaps; no more than the source's latency and
	 * rate make worth while, neighbours in one read of at most 2 MiB, and never with more than
	 * half of queue_depth. What was read is made visible at once or, with swap, when it is
	 * touched. Several such walks at a time are told apart. Alike what lies around a block, for
	 * kernel mode, or where one in 8 was wanted before. 0, the default: each brings its block.
	 */
	uint32_t read_ahead_bytes;
	enum apf_io io;
	/*
	 * Each step of a fault, of a read, and of memory that goes (asyncpf/trace.h). Any thread,
	 * one at a time, in the order in which they happen; must return at once and must not call
	 * the library. *t is valid during the call. NULL: nobody is told.
	 */
	void (*on_trace)(void *ctx, const struct apf_trace *t);
	void *on_trace_ctx;
	/*
	 * With APF_FAULTS_STALL and APF_FAULTS_BLOCK, for a guest that is restored: it speaks `abi`
	 * since it ran with APF_FAULTS_USER. It is told of no page any more, but those who wait
	 * there are told of theirs, and its registers stay. 0: it is offered no events.
	 */
	int told_before;
};

void apf_config_init(struct apf_config *c);
/*
 * The same for a struct of `size` bytes. The macro below makes every call of apf_config_init one of
 * this function, by which a program tells which header it was built with. The function
 * apf_config_init itself is for programs that were built with the first header, and sets the
 * members of that one alone.
 */
void apf_config_init_sized(struct apf_config *c, size_t size);
#define apf_config_init(c) apf_config_init_sized((c), sizeof(*(c)))

/* ---- one VM ---- */

/*
 * vm_fd: a VM with in-kernel local APICs (KVM_CREATE_IRQCHIP or a split irqchip), which may be
 * made after this call: KVM_CREATE_IRQCHIP first makes it wait 10 to 20 ms on Linux 6.18. It stays
 * yours. Unless faults is APF_FAULTS_KERNEL, three MSRs of the VM are directed to user space
 * (KVM_X86_SET_MSR_FILTER) and exception payloads are enabled.
 */
int apf_open(int vm_fd, const struct apf_config *c, struct apf **ret, struct apf_error *e);

/* What config.io has come to, by trying: APF_IO_URING or APF_IO_THREADS. Any thread. */
enum apf_io apf_io_used(const struct apf *a);

/*
 * Ends all waiting for memory: apf_read, apf_write and apf_populate return -EINTR, those that
 * come later, too, and a vCPU that waits does so until it is kicked. A touch of what is absent in
 * the VMM's view ends in SIGBUS, and in EFAULT where a system call makes it; zeroes in place of
 * content are never seen. For a VMM whose devices have threads, which must end before apf_close.
 * After apf_start; any thread; may be repeated.
 */
void apf_stop(struct apf *a);

/*
 * Stops the library's thread and frees everything. Every vCPU thread must have left
 * apf_vcpu_run() for good, and nobody touches adopted memory meanwhile. A VMM's own memory holds
 * afterwards what is in it, and zeroes where something was absent. Waits for reads in flight.
 * NULL is harmless.
 */
void apf_close(struct apf *a);

/*
 * Guest RAM at [gpa, gpa + bytes), both multiples of block_bytes, in a memfd of the library's that
 * only the guest sees. It starts absent and costs nothing until touched. Up to 1024 parts, each of
 * which is to be one memslot; before or after apf_start, any thread.
 */
int apf_memory_add(struct apf *a, uint64_t gpa, uint64_t bytes, struct apf_error *e);

/*
 * The same with memory of the VMM's own, or that the VMM is to have a mapping of. Three views of it
 * exist. The guest's is for KVM's memslot and nobody else. The VMM's is what its devices and
 * threads touch, by pointers, system calls, io_uring or vhost: a touch of what is absent there
 * waits until it is there, and one read serves guest and VMM. The third is the library's.
 *
 * fd, offset, vmm: a memfd, and a MAP_SHARED mapping of [offset, offset + bytes) of it, which the
 * library watches (userfaultfd) from then on; both stay the VMM's. vmm NULL: the library maps it.
 * fd -1: the memfd is the library's, too; fd, offset and vmm are set and stay the library's. What
 * the memfd holds already is guest memory, and counts instead of what a source has. hugetlb,
 * MAP_PRIVATE, what is no memfd and what is guest memory already are refused with -EINVAL and the
 * reason.
 *
 * A memfd that another process maps, too (vhost-user), is not watched there: what that process may
 * touch must be pinned (apf_pin). With a swap file, what the kernel has pinned (io_uring's fixed
 * buffers, O_DIRECT under way, VFIO) must be between apf_hold and apf_release, or what a
 * device writes there is lost when the page is evicted meanwhile: nothing tells user space of
 * such a pin. Until the VMM has said that it does so (config.pins_are_held), the two are refused
 * together.
 *
 * Nobody may touch the memory while this call is made. 0; -EINVAL, -ENOSPC (memory_max, 1024
 * parts), -ENOMEM and what the kernel fails with, with text.
 */
struct apf_memory {
	size_t size;     /* sizeof: apf_memory_init */
	uint64_t gpa;    /* multiple of block_bytes, as is */
	uint64_t bytes;
	int fd;
	uint64_t offset; /* in it: a multiple of 4096 */
	void *vmm;       /* the VMM's view */
	void *guest;     /* set: for KVM_SET_USER_MEMORY_REGION; never touch memory there */
};
/* fd is -1. */
static inline void apf_memory_init(struct apf_memory *m)
{
	__builtin_memset(m, 0, sizeof(*m));
	m->size = sizeof(*m);
	m->fd = -1;
}
int apf_memory_adopt(struct apf *a, struct apf_memory *m, struct apf_error *e);

/*
 * The part that begins at gpa leaves, with what it holds and the sources behind it. The VMM has
 * deleted its memslot, and nobody touches its view any more; a mapping of the VMM's own is watched
 * no longer and reads as zeroes. What was on its way is waited for; apf_read and other calls that
 * are in the middle of it fail with -EFAULT. -ENOENT: none begins there; -EBUSY: some of it is
 * held, or such a call is just copying it, and nothing has changed; or the VM is paused, and a
 * source or the swap file still has some of it in hand: the part reads as zeroes then, and is to be
 * removed by another call. -EINTR: the library is being closed.
 */
int apf_memory_remove(struct apf *a, uint64_t gpa, struct apf_error *e);

/*
 * [gpa, gpa + len), of one part, reads as zeroes from now on, whatever stood behind it, and takes
 * no memory: a balloon's, or what a guest reports as free. Nothing of it goes to the swap file.
 * What is pinned or held, and what is no whole block, is overwritten instead. Blocks; any thread.
 *
 * It is also the way out where content is gone: for a page that the host has lost to a memory
 * error, pinned or not, for what its source cannot give, and for what the swap file cannot take.
 * The VM goes on by itself when nothing else keeps it paused.
 *
 * -EFAULT: not all of it is RAM; -EBUSY: the VM is paused, and a source that does not answer, or
 * the swap file, has some of it in hand; -EINTR: the library is being closed; else what the kernel
 * fails with. Some of it may be zeroes then.
 */
int apf_discard(struct apf *a, uint64_t gpa, uint64_t len);

/*
 * The address of gpa for KVM_SET_USER_MEMORY_REGION; NULL if it is no RAM. For KVM only: never
 * touch memory there.
 */
void *apf_memory_hva(struct apf *a, uint64_t gpa);

/*
 * Puts a page source behind [gpa, gpa + bytes), from `offset` of the source on; gpa is a multiple
 * of block_bytes. What a source does not hold, and RAM without one, is zeroes. Sources:
 * "file:PATH", "zero:?size=64M", wrappers "delay+…", "fault+…"; docs/sources.md. The VMM's own:
 * apf_source_custom. Before the guest or the VMM can touch that memory; any thread. *ret_size: the
 * source's size in bytes; may be NULL. -EINVAL, too: the VMM's memfd has some of a block.
 */
int apf_source_add(struct apf *a, uint64_t gpa, uint64_t bytes, const char *uri, uint64_t offset,
		   uint64_t *ret_size, struct apf_error *e);

/* ---- a page source of the VMM's own ---- */

struct apf_source;            /* below: the source */
typedef uint64_t apf_read_id; /* of one read: never 0, and not the same again in 2^32 reads */

/*
 * What the VMM is to read: bytes [offset, offset + len) of its source, into buf. buf is the VMM's
 * alone until it answers; from then on it must not touch it.
 */
struct apf_read_request {
	size_t size; /* sizeof of it in the library: members are added at the end */
	apf_read_id id;
	uint64_t offset; /* bytes; offset + len is the source's size at most */
	uint64_t len;    /* bytes, 1..block_bytes */
	void *buf;       /* aligned to 4096 */
	int urgent;      /* 1: a vCPU can do nothing else until it has it; 0: others may go first */
};

/*
 * The VMM's callbacks are called without any lock, by a thread that waits for absent memory (a
 * vCPU's in apf_vcpu_run(), where all signals are blocked; one in apf_read or another call that
 * blocks), by the library's, or by the one in apf_close; several at once. While a callback runs,
 * its thread does nothing else, and the library's thread serves all of the VM: a callback that
 * would have to wait leaves that to other threads. It may call what is described here, apf_pause,
 * apf_resume, apf_trouble_get, apf_counters_get and apf_vcpu_kick; nothing that waits for memory,
 * and it must not touch guest memory by the VMM's view.
 */
struct apf_source_config {
	size_t size;    /* sizeof: apf_source_config_init; what a smaller one has not is 0 */
	void *ctx;      /* for the callbacks */
	uint64_t bytes; /* the source's size, 1..2^63 - 1 */
	/* What stands around its reads, as in "delay?ms=5"; NULL: nothing. Not kept. */
	const char *wrap;
	/*
	 * A read is to be carried out, and answered once by apf_read_done, apf_read_zeroes or
	 * apf_read_failed: here, which costs no wake-up, or later by any thread, in any order. No
	 * more than config.queue_depth are outstanding. *rd is valid during the call; copy it.
	 */
	void (*read)(void *ctx, const struct apf_read_request *rd);
	/*
	 * The read is not wanted any more: apf_resume reads anew what took longer than
	 * source_timeout_ms, and apf_close and apf_stop end everything. It still has to be
	 * answered, as buf is the VMM's until then: any answer does, but soon, as the library waits
	 * for it. Called once, after the call of read for it has returned; perhaps just after it
	 * was answered. NULL: every read is answered soon in any case.
	 */
	void (*cancel)(void *ctx, apf_read_id id);
	/* The last call: from apf_close, when nothing is outstanding any more. May be NULL. */
	void (*close)(void *ctx);
};
static inline void apf_source_config_init(struct apf_source_config *c)
{
	__builtin_memset(c, 0, sizeof(*c));
	c->size = sizeof(*c);
}

/*
 * A page source that the VMM itself is, on whatever threads it likes. After apf_open, any thread;
 * up to 16, each of which is there until apf_close. *ret is used below, and freed by
 * apf_source_free. -EINVAL: the config; -ENOSPC: too many; -ENOMEM, -EMFILE, -ENFILE.
 */
int apf_source_custom(struct apf *a, const struct apf_source_config *c, struct apf_source **ret,
		      struct apf_error *e);
/*
 * Puts it behind [gpa, gpa + bytes), from `offset` of the source on, when apf_source_add may be
 * called. A source may stand at any number of places. -ESHUTDOWN: after apf_close.
 */
int apf_source_place(struct apf_source *s, uint64_t gpa, uint64_t bytes, uint64_t offset,
		     struct apf_error *e);
/*
 * Frees what is left of it after apf_close, or in its close callback. Until then the answers below
 * are refused, and harmless; nobody may be in one now. NULL is harmless. -EBUSY: it is open.
 */
int apf_source_free(struct apf_source *s);

/*
 * The answers. Any thread, with any lock held, in a signal handler, too: they take no lock,
 * allocate nothing and do not wait. 0: the answer counts, and the library may have finished the
 * read before the call returns. -ESTALE: the read has been answered already, or there is no such
 * read; nothing has changed, but the buffer is not the VMM's. -ESHUTDOWN: apf_close has ended it
 * all.
 */
/* All of the content is in buf. */
int apf_read_done(struct apf_source *s, apf_read_id id);
/* It is all zeroes, which this call sees to: buf may hold anything. */
int apf_read_zeroes(struct apf_source *s, apf_read_id id);
/*
 * It cannot be had now: code is -errno (anything else is taken for -EIO), why one line or NULL,
 * copied. Read again retries_max times, with pauses that grow from 10 ms to a second; then the VM
 * is paused, and on_event and apf_trouble_get say why.
 */
int apf_read_failed(struct apf_source *s, apf_read_id id, int code, const char *why);

/*
 * Offers bytes [offset, offset + len) of the source, which nobody has asked for. They are copied to
 * the blocks that are wholly among them, would be read from there now, and are not being read:
 * nothing is overwritten, whatever the guest does meanwhile. Such a block is visible to the guest
 * then or, where swap is configured, in memory, and taken away first if nobody touches it. Copying
 * ends where resident_max leaves no room. Does not pass `wrap`. data must not change during the
 * call. *ret_taken (may be NULL): bytes that were taken. Any thread, but not a signal handler, nor
 * on_event; never waits for memory. -EDEADLK: called in a signal handler that has interrupted a
 * call of this library; -EINVAL: data is in a view; -EINTR: after apf_stop; -ESHUTDOWN: closed.
 */
int apf_source_offer(struct apf_source *s, uint64_t offset, const void *data, uint64_t len,
		     uint64_t *ret_taken);

/* ---- more about memory ---- */

/*
 * What the VMM's memslots are, where they are not simply all of RAM: a hole, whose accesses are the
 * VMM's, or a read-only memslot (KVM_MEM_READONLY), whose stores are the VMM's. gpa and bytes:
 * multiples of 4096. The last call for an address counts. Any time after apf_open; any thread.
 * Without it (AUTO) the library asks KVM at each access that is handed out, which costs three
 * system calls. The library must be told of a read-only memslot: KVM does not say which of its
 * pages is absent, so all of those that are RAM by then are fetched when it is told (from apf_start
 * on, this blocks) and stay; a touch of an absent one pauses the VM. -EINVAL: not such a range;
 * -ENOSPC, -ENOMEM: too many of them, or resident_max leaves no room; -EBUSY: the VM is paused
 * (above), and it counts as told.
 */
enum apf_slot {
	APF_SLOT_AUTO = 0,
	APF_SLOT_RAM = 1,
	APF_SLOT_ROM = 2,
	APF_SLOT_HOLE = 3,
};
int apf_slot_set(struct apf *a, uint64_t gpa, uint64_t bytes, enum apf_slot kind);

/*
 * A VMM's own MSR filter and user-space MSR exits, for which it would have called
 * KVM_X86_SET_MSR_FILTER and KVM_ENABLE_CAP(KVM_CAP_X86_USER_SPACE_MSR): what the library needs is
 * added. Either call of KVM's replaces both wholly, so whoever made one before apf_open makes
 * this one after it. filter: NULL for none, up to 11 ranges, copied. exits:
 * KVM_MSR_EXIT_REASON_* that the VMM wants to see; others end as they would without the library,
 * in a #GP. After apf_open, any thread. -E2BIG: too many ranges; -EINVAL: APF_FAULTS_KERNEL.
 */
int apf_msr_filter(struct apf *a, const struct kvm_msr_filter *filter, struct apf_error *e);
int apf_msr_exits(struct apf *a, uint32_t exits, struct apf_error *e);

/*
 * Starts serving. What is touched before waits until then; calls that may have to wait for memory
 * (apf_read, apf_write, apf_populate, apf_pin, apf_hold, apf_evict, apf_discard of less than a
 * block) fail with -EINVAL until then.
 */
int apf_start(struct apf *a, struct apf_error *e);

/*
 * EAX of CPUID leaf 0x40000001 as the guest should see it, from what the host supports: the
 * page fault features replaced, and PV_UNHALT taken out where vCPUs are halted for faults.
 */
uint32_t apf_cpuid_features(const struct apf *a, uint32_t eax);

/*
 * CPUID leaves of our own, by which guests find abi pf2: ret is EAX, EBX, ECX, EDX. 0: the guest
 * should see this leaf; -ENOENT: it is not ours. A VMM that offers pf2 adds them from
 * APF_CPUID_FIRST on until -ENOENT, or at another 0x40000000 + n * 0x100, with EAX of the first
 * changed alike. Guests look for them only where leaf 1 has the hypervisor bit, ECX bit 31, which
 * not every KVM sets. After apf_open, any thread.
 */
#define APF_CPUID_FIRST 0x40000300u
int apf_cpuid_leaf(const struct apf *a, uint32_t leaf, uint32_t ret[4]);
/*
 * Both of these in one, for what goes to KVM_SET_CPUID2: c has room for `room` entries, and holds
 * those of KVM_GET_SUPPORTED_CPUID, as the VMM has changed them. What is not there is added: the
 * hypervisor bit, and KVM's leaves, behind another's. -E2BIG: too little room (4 more are enough).
 */
int apf_cpuid_fill(const struct apf *a, struct kvm_cpuid2 *c, unsigned room);

/* ---- guest memory, for loaders and devices ---- */

/*
 * Copies from or to guest memory, fetching what is absent first: blocks for that long. buf may be
 * in the VMM's view, and is waited for as well, by vectors longer than they are told.
 * -EFAULT: not all of it is RAM, or buf is NULL. -EINTR: the library is being closed. -EHWPOISON:
 * the host has lost a page of it to a memory error (apf_sigbus, below); all before it is copied.
 */
int apf_read(struct apf *a, uint64_t gpa, void *buf, size_t len);
int apf_write(struct apf *a, uint64_t gpa, const void *buf, size_t len);

struct apf_range {
	uint64_t gpa;
	void *buf; /* only read from by apf_writev */
	size_t len;
};
struct apf_wait {
	size_t size;           /* sizeof: apf_wait_init */
	int64_t timeout_ns;    /* from now on; negative: no limit */
	struct apf_vcpu *vcpu; /* apf_vcpu_kick of it ends the call as well; NULL */
};
/* No limit. */
static inline void apf_wait_init(struct apf_wait *w)
{
	__builtin_memset(w, 0, sizeof(*w));
	w->size = sizeof(*w);
	w->timeout_ns = -1;
}
/*
 * The same for several ranges in their order, with a limit to the waiting (wait NULL: no limit).
 * Returns the bytes that were copied; if there are none: 0, -ETIMEDOUT, -EINTR (kicked, the kick
 * stays for the next apf_vcpu_run; or the library is being closed), -EFAULT, -EHWPOISON: the page
 * of the first byte is lost. A caller that goes on where a call has ended thus learns which page it
 * is.
 */
int64_t apf_readv(struct apf *a, const struct apf_range *v, unsigned count,
		  const struct apf_wait *wait);
int64_t apf_writev(struct apf *a, const struct apf_range *v, unsigned count,
		   const struct apf_wait *wait);
/*
 * For a VMM's handler of SIGBUS, which calls it first, with its second and third argument
 * (SA_SIGINFO); the library's own (config.sigbus_handler) does. 1: it was one of the calls above
 * that touched a page which the host has lost to a memory error; the call ends with -EHWPOISON when
 * the handler returns, which does nothing else. 0: it was something else. Without a handler, or
 * where the calling thread blocks SIGBUS, the first touch of a lost page by these calls ends the
 * process, as a pointer's does; once the library knows of one in this VM, by the guest's touch or
 * otherwise, it looks before it copies.
 */
int apf_sigbus(const void *info, void *context);

/* Makes [gpa, gpa + len) present; it may be evicted again. Blocks. */
int apf_populate(struct apf *a, uint64_t gpa, uint64_t len);
/*
 * Names what somebody is likely to touch, in this order. It is read before that, while no other
 * read waits for its turn and with half of queue_depth at most, and is kept for its first touch,
 * which takes no read then; the counters prefetched_* tell how many blocks came in time. What no
 * source stands behind is passed over. Returns at once; a later call replaces the list. Any thread,
 * after apf_start. v: gpa and len of each, copied; buf is not looked at. -EFAULT: not all of it is
 * RAM.
 */
int apf_prefetch(struct apf *a, const struct apf_range *v, unsigned count);
/*
 * After that list, reads all else that a source stands behind. Returns at once. When all is there
 * the sources are closed, and the kernel serves that memory alone; what stands behind it after
 * that, with apf_source_add, is served as ever. With a swap file there is no such end, and no more
 * is read than there is room for. -EINVAL: before apf_start.
 */
int apf_fill(struct apf *a);
/*
 * The same as apf_populate, and it is never evicted. -ENOSPC: resident_max would leave too little
 * for the rest; -EBUSY: the VM is paused (above). Some of it may be pinned then. Not needed for
 * what the guest has the kernel write (kvmclock, steal time, PV EOI): the library sees to that.
 */
int apf_pin(struct apf *a, uint64_t gpa, uint64_t len);
/* What was pinned of it may be evicted again. -EFAULT: not all of it is RAM. */
int apf_unpin(struct apf *a, uint64_t gpa, uint64_t len);
/*
 * Around what the kernel has pinned of adopted memory: [gpa, gpa + len) is present from apf_hold
 * on, in the VMM's view too, where whoever pins it need not wait (VFIO cannot), and is neither
 * evicted nor moved until apf_release for the same range, which counts it as written to. Holds
 * nest. Blocks, as apf_populate does. -ENOSPC: resident_max would leave too little for the rest,
 * a block is held 1024 times, or the host has no memory for page tables; -EBUSY: the VM is paused
 * (above); nothing is held then. A release without its hold ends another's, or does nothing.
 */
int apf_hold(struct apf *a, uint64_t gpa, uint64_t len);
void apf_release(struct apf *a, uint64_t gpa, uint64_t len);

/*
 * Takes memory away until at most `bytes` are resident, coldest first; 0: all that can be
 * taken. What the guest wants back meanwhile it gets. Blocks, while the VM runs on; any number
 * of threads. *ret_resident (may be NULL): bytes that are resident then. -EINVAL: no swap file
 * was configured; -EBUSY: the VM is paused for want of room or a failing file, with its text;
 * -EINTR: the library is being closed.
 */
int apf_evict(struct apf *a, uint64_t bytes, uint64_t *ret_resident, struct apf_error *e);

/*
 * config.resident_max from now on, bytes; 0: no limit. Returns at once: what is resident beyond it
 * is taken away as the VM runs on, and until then no more comes. What the host could give is not
 * looked at. Any thread, after apf_start. -EINVAL: no swap file was configured; -ENOSPC: it is
 * below 4 MiB, or below what config.resident_max needs beside what is pinned and held now.
 */
int apf_resident_max_set(struct apf *a, uint64_t bytes, struct apf_error *e);

/*
 * Where the content of guest memory is, for whoever copies it: a byte for each block of [gpa, gpa +
 * len), which are multiples of block_bytes. As it is at that moment; a VM that is paused keeps it.
 * -EFAULT: not all of it is RAM; -EINVAL: no such multiples.
 */
#define APF_BLOCK_PRESENT 1u /* in host memory: to be read without waiting */
#define APF_BLOCK_CHANGED 2u /* may differ from the source behind it */
#define APF_BLOCK_ZEROES 4u  /* known to be zeroes: need not be read */
int apf_residency(struct apf *a, uint64_t gpa, uint64_t len, unsigned char *ret);

/* ---- vCPUs ---- */

/*
 * index: 0..vcpus_max-1, the low bits of every token. fd and run stay yours;
 * run->kvm_valid_regs gets REGS, SREGS and EVENTS. Before or after apf_start.
 */
int apf_vcpu_attach(struct apf *a, unsigned index, int fd, struct kvm_run *run, uint32_t apic_id,
		    struct apf_vcpu **ret, struct apf_error *e);

/* At rest only (below). fd and run are not touched any more; the index may be attached again. */
void apf_vcpu_detach(struct apf_vcpu *v);

/*
 * Runs the guest as ioctl(KVM_RUN) does, serving page faults on the way, until there is an
 * exit for you: 0, look at run->exit_reason. -EINTR: a signal of yours, run->immediate_exit, or
 * apf_vcpu_kick(); run->exit_reason is KVM_EXIT_INTR then. Anything else is KVM_RUN's
 * failure, or -EINVAL before apf_start. A memory error of the host is passed on to you as KVM
 * does it: SIGBUS (BUS_MCEERR_AR) is pending when -EINTR is returned. While the VM is paused
 * only these make it return. Any thread, another one each time if need be; a second one waits.
 * A guest that was not run for a second or more is told by its clock (KVM_KVMCLOCK_CTRL), so that
 * its watchdogs do not take it for stuck.
 *
 * Whenever it has returned, the vCPU is at rest: nothing of the library's is in KVM's state of
 * it (mp_state is the guest's own; no page fault event that the guest has not seen; the
 * instruction of the last exit is finished, or has had no effect yet), no thread of the
 * library will signal its thread, and KVM's state together with apf_vcpu_save() is complete.
 * After -EINTR KVM_GET_MSRS shows the guest's page fault registers (pf2's 0x4b564d06 but for
 * its bit 8), and whatever the VMM changes until the next call, by KVM_SET_MSRS too, counts.
 */
int apf_vcpu_run(struct apf_vcpu *v);

/* The same as ioctl(fd, KVM_RUN) returns: -1 and errno instead of -Exxx. */
int apf_kvm_run(struct apf_vcpu *v);

/*
 * Makes apf_vcpu_run() return -EINTR soon, at once if it is called later. Any thread; not from
 * a signal handler.
 */
void apf_vcpu_kick(struct apf_vcpu *v);

/*
 * The mask that is in force inside KVM_RUN, as KVM_SET_SIGNAL_MASK takes it: signals that the
 * thread has blocked and that end the call all the same, for a VMM that takes them with
 * sigtimedwait. set: a kernel sigset of `bytes` (8) bytes; NULL: the thread's own mask, the
 * default. At rest only. -EINVAL: another size; -EMFILE, -ENFILE, -ENOMEM: signalfd failed.
 */
int apf_vcpu_signal_mask(struct apf_vcpu *v, const void *set, size_t bytes);

/*
 * The vCPU is reset (INIT): its page fault registers are cleared, nobody is told anything any
 * more, and an instruction that KVM was in the middle of is dropped. Before the VMM gives it
 * its new registers. Any thread; one that is in apf_vcpu_run() goes on.
 */
void apf_vcpu_reset(struct apf_vcpu *v);

/*
 * MSRs that a VMM saves and restores for the guest's page faults, in the order in which they are
 * to be restored; after KVM_SET_SREGS and KVM_SET_LAPIC. *ret_count: how many.
 */
const uint32_t *apf_vcpu_msr_list(const struct apf *a, unsigned *ret_count);

/*
 * The page fault registers, for a VMM that saves and restores MSRs: 0x4b564d02, 06 and 07,
 * in any order. The vCPU must not be in apf_vcpu_run(). -EINVAL: no such register in this
 * protocol, or a value that the guest could not have written.
 */
int apf_vcpu_get_msr(struct apf_vcpu *v, uint32_t msr, uint64_t *ret_value);
int apf_vcpu_set_msr(struct apf_vcpu *v, uint32_t msr, uint64_t value);

/*
 * The whole protocol state, faults in flight included. Call apf_pause() first and save
 * everything, KVM's state and guest memory too, while paused: events are delivered by other
 * threads, and a token in the slot, an interrupt in the local APIC and this state belong
 * together. The vCPU must not be in apf_vcpu_run(). Save with too small a buffer writes
 * nothing and returns the most that it may need; otherwise it returns what it wrote, which is
 * what restore wants. Restore (0 or -EINVAL) into a vCPU that has not run.
 *
 * Where it was saved with other faults than it is restored with, the stores come along always; of
 * the protocol nothing where it had none, nor with APF_FAULTS_KERNEL what is of abi int: the
 * kernel releases everybody who waits when the VMM sets its registers. Others are refused.
 */
size_t apf_vcpu_save(struct apf_vcpu *v, void *buf, size_t len);
int apf_vcpu_restore(struct apf_vcpu *v, const void *buf, size_t len);

/* ---- control ---- */

/* Stops every vCPU at its next exit and keeps it; resume also retries failed reads. */
void apf_pause(struct apf *a);
void apf_resume(struct apf *a);
int apf_is_paused(struct apf *a); /* makes no system call but for the lock's */
/*
 * Why the VM is paused although nobody asked for it: a source or the swap file failed. 0: it is
 * not; else the code, and the text that on_event was called with.
 */
int apf_trouble_get(struct apf *a, struct apf_error *e);

/*
 * Bytes in the host's page cache now of the local files that guest memory is read from: all VMs of
 * these files share them, and each has the counter resident_bytes to itself. 0 where files are read
 * past it, as with a swap file. -ENOENT: no such file (`cache+` has none); -ENOSYS: Linux before
 * 6.5; -EPERM: who asks neither owns the file nor may write it. A system call per 2 MiB at least.
 */
int64_t apf_shared_bytes(struct apf *a);

/*
 * Counters: a row of the table in asyncpf/counters.h, and in docs/counters.md; NULL: there is no
 * such row. A newer library may have more than the header that a program was built with.
 */
const struct apf_counter_row *apf_counter_info(unsigned index);

/*
 * ret_values: a struct apf_counters, or an array of uint64_t in the table's order; size: its
 * bytes. Never more than that is written; values that the library does not know are 0.
 */
void apf_counters_get(struct apf *a, void *ret_values, size_t size);
/* Of one vCPU; those of scope VM are 0. */
void apf_vcpu_counters_get(struct apf_vcpu *v, void *ret_values, size_t size);

/*
 * Some of the counters, for programs that were written for version 0.1; members are never added.
 * size: sizeof the struct (apf_stats_init), left as it is; never more is written.
 */
struct apf_stats {
	size_t size;
	uint64_t bytes, bytes_present;
	uint64_t faults, redundant, joined, graced, blocked;
	uint64_t missing_events, ready_events, wake_alls;
	uint64_t stalls, stalls_kernel_mode, stalls_irqs_off, stalls_slot_busy, stalls_other;
	uint64_t ready_refused, rechecks;
	uint64_t host_wait_ns;
	uint64_t reads, read_errors, retries, read_timeouts, bytes_read;
	uint64_t overhead_bytes;
	uint64_t wait_us_p50, wait_us_p99, wait_us_max; /* microseconds */
	uint64_t bytes_resident, resident_max, reads_in_flight, writes_in_flight;
	uint64_t unmapped, unmapped_clean, unmapped_zero, swapped;
	uint64_t rescued, evicted, refaulted;
	uint64_t refaults_kernel_mode, read_ahead;
	uint64_t swap_writes, swap_write_errors, bytes_swapped;
	uint64_t stall_ns_kernel_mode, stall_ns_other;
	uint64_t holds, hold_ns, hold_ns_max;
};
static inline void apf_stats_init(struct apf_stats *s)
{
	__builtin_memset(s, 0, sizeof(*s));
	s->size = sizeof(*s);
}
void apf_stats_get(struct apf *a, struct apf_stats *ret);

/* The same for one vCPU. */
struct apf_vcpu_stats {
	size_t size;
	uint64_t faults, missing_events, ready_events, wake_alls;
	uint64_t stalls, stalls_kernel_mode, host_wait_ns;
	uint64_t outstanding;
};
static inline void apf_vcpu_stats_init(struct apf_vcpu_stats *s)
{
	__builtin_memset(s, 0, sizeof(*s));
	s->size = sizeof(*s);
}
void apf_vcpu_stats_get(struct apf_vcpu *v, struct apf_vcpu_stats *ret);

/* "0.2.0" */
const char *apf_version(void);

#ifdef __cplusplus
}
#endif

#endif
