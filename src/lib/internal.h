/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libasyncpf inside: where the pure driver meets threads, the kernel and the page
 * sources. One lock per VM covers the driver, the sources and the queue of reads; it is
 * held for microseconds, and never while a vCPU runs or a thread waits.
 */
#ifndef LIB_INTERNAL_H
#define LIB_INTERNAL_H

#include <asyncpf/asyncpf.h>
#include <pthread.h>

#include "base/err.h"
#include "host/drive.h"
#include "io/queue.h"
#include "kvm/vcpu.h"
#include "mem/gmem.h"
#include "net/load.h"
#include "rights/room.h"
#include "work/thread_pool.h"

struct apf_vcpu {
	struct apf *a;
	struct hst_vcpu *hv;
	unsigned index;
	bool attached;
	/*
	 * Of the thread that is in KVM_RUN, or is about to; taken before the VM lock. Others wait,
	 * as they do for the kernel's own.
	 */
	pthread_mutex_t running;
};

#define LIB_CUSTOMS_MAX 16u

/* The least resident_max, bytes, whatever the VM is like. */
#define RESIDENT_MIN (4ull << 20)

struct apf {
	struct apf_config cfg;
	int vm_fd;
	pthread_mutex_t lock;
	unsigned lock_wanted; /* threads that wait for it; atomic */
	unsigned giving_way;  /* threads that wait until one of those has had it, */
	pthread_cond_t given_way; /* by this */
	pthread_cond_t outside; /* outside waiters: a block came, or we are closing */
	unsigned outside_count; /* of waiters */
	unsigned users;         /* callers in calls that wait: apf_close waits for them */
	bool begun; /* apf_start was called */
	bool started;
	bool stop; /* atomic; for the thread */
	bool serving; /* it is up, or has failed: */
	struct err serve_error;
	pthread_t thread;
	int urgent_fd; /* what ends its lingering */
	bool lingers; /* it sleeps over whatever ends meanwhile, until somebody stands still */
	int timer_fd;
	int wake_fd;
	uint64_t timer_set_ns; /* the thread looks then at the latest, by itself or by timer_fd */
	struct hst hst;
	struct hst_cfg hcfg;
	struct ram_tables *ram_tables; /* of hst.ram, where there are many parts */
	/* The driver's, for RAM offsets up to `span`; what is not used costs nothing. */
	void *space;
	size_t space_bytes;
	uint64_t span;
	struct gmem *gmem;
	struct ioq *ioq;
	struct thread_pool *pool;
	struct net_lazy *net;
	struct kvmp kvmp;
	/*
	 * In the order in which the VMM told of them: the last one counts. slot_lock covers it, and
	 * the tables of hst.ram, which change only with both locks held.
	 */
	struct lib_slot *slots;
	unsigned slot_count, slot_room;
	pthread_rwlock_t slot_lock;
	struct src *sources[RAM_BACKINGS_MAX];
	unsigned source_count;
	struct src_counts source_counts;
	struct apf_source *customs[LIB_CUSTOMS_MAX]; /* the VMM's own sources */
	unsigned custom_count;
	struct room room;        /* count 0: no cgroup has a say, or nobody looks */
	struct timer room_timer; /* the next look */
	bool room_short;         /* paused for want of it, and has not gone on since */
	struct hst_run *plan; /* of apf_prefetch; the driver reads it */
	struct apf_vcpu *vcpus;
	struct apf_error trouble; /* why the driver has paused the VM; code 0: it has not */
	struct {
		struct src *src;      /* reads what was written to the swap file */
		struct io_file *file; /* the swap file; NULL: none */
		char *path;           /* where it is: the VMM's string is its own again */
		int fd;               /* of it */
		bool device;
		bool in_memory; /* a file of a tmpfs: host memory, as what it is to save */
		bool started;
		bool stop;
		pthread_t thread;
		bool new_limit;        /* resident_max has changed since it last looked */
		pthread_cond_t work;   /* for the thread: look again */
		pthread_cond_t forced; /* for apf_evict: it is over, or may be */
	} evict;
};

/* The guest may speak cfg.abi with us. */
static inline bool lib_speaks(const struct apf_config *c)
{
	return c->faults == APF_FAULTS_USER ||
	       (c->faults != APF_FAULTS_KERNEL && c->told_before);
}

/* Copies an inner error to the caller's; returns its code. */
int lib_error(struct apf_error *to, const struct err *from);

/* One that begins with its size; a new header has more members at its end. */
struct lib_struct {
	const char *name;
	size_t bytes_first; /* in the first header that had it */
	size_t bytes;       /* here */
};
/*
 * open.c: the caller's struct as ours, whichever header it was built with. What it does not have
 * stays as it is in *to.
 */
int lib_struct_read(const struct lib_struct *t, const void *from, void *to, struct err *e);

/* serve.c: CLOCK_MONOTONIC. */
struct clock lib_clock(void);

/* serve.c: the VM lock, and what must happen before it is released. */
void lib_lock_init(struct apf *a);
void lib_lock(struct apf *a);
/* Unlocks, and nothing else. */
void lib_release(struct apf *a);
/*
 * This thread has a VM lock, or waits for one: a signal handler that finds this has interrupted a
 * call of the library, and would wait for itself. begins and ended bracket other locks that are
 * taken before the VM lock.
 */
bool lib_is_locked_here(void);
void lib_lock_begins(void);
void lib_lock_ended(void);
/*
 * Submits, reaps, makes visible and calls the VMM's own sources until nothing is left; drops and
 * retakes the lock.
 */
void lib_pump(struct apf *a);
/*
 * The same, but for the calls: whoever unlocks may hold locks of the VMM's, and leaves those to
 * the library's thread. Arms the timer, unlocks.
 */
void lib_unlock(struct apf *a);
/* Arms the timer, wakes the thread if there is something for it, unlocks; does not pump. */
void lib_let_go(struct apf *a);
/* Locked: whoever waits for the lock gets it in between, if there is somebody. */
void lib_give_way(struct apf *a);

/* slot.c: what the VMM has told about its memslots. */
enum kvmp_slot lib_slot_at(struct apf *a, gpa_t gpa);
void lib_slots_free(struct apf *a);
int lib_slots_start(struct apf *a);
/* memory.c: addresses and tables for guest memory. */
int lib_memory_open(struct apf *a, struct err *e);
void lib_memory_close(struct apf *a);
/* Whether the host allows `ram` bytes of guest memory. */
int lib_check_limits(const struct apf *a, uint64_t ram, struct err *e);
/* ram_find without the VM lock. */
bool lib_find(struct apf *a, gpa_t gpa, uint64_t len, roff_t *ret);
/* The first RAM of one part in [*at, end), without the VM lock; false: there is none. */
bool lib_next_ram(struct apf *a, uint64_t *at, uint64_t end, uint64_t *ret_len);
/* Locked. Those that nothing uses any more. */
void lib_close_unused_sources(struct apf *a);
/* What a page source may use. */
struct src_env lib_src_env(struct apf *a);
/* Locked. Puts s behind that memory; it stays the caller's. */
int lib_source_place(struct apf *a, uint64_t gpa, uint64_t bytes, struct src *s, uint64_t offset,
		     struct err *e);

/* custom.c: page sources of the VMM's own. Locked, but for shut and close. */
/* Ends what was answered; false: nothing was. */
bool lib_custom_take(struct apf *a);
/* Makes one call, without the lock; false: none is due. */
bool lib_custom_call(struct apf *a);
bool lib_custom_due(const struct apf *a);
/* apf_close has begun: nobody enters by a source any more. */
void lib_custom_shut(struct apf *a);
void lib_custom_close(struct apf *a);

/*
 * access.c, locked, and lets go of the lock meanwhile: waits until the block of off is there, which
 * is where gpa is. -EINTR: the library ends; -EFAULT: the part has left; -EBUSY: not before the VM
 * goes on.
 */
int lib_ensure(struct apf *a, gpa_t gpa, roff_t off);
/* access.c: apf_write, but -EBUSY where that would wait for a paused VM to go on. */
int lib_write(struct apf *a, uint64_t gpa, const void *buf, uint64_t len);
/*
 * access.c, locked: the last thing that a call does that may run while another thread closes the
 * library: a->users was raised at its start. Settles and unlocks; a may be gone then.
 */
void lib_leave(struct apf *a);
/* ahead.c, locked: once all of its memory is there, lets go of the sources. */
void lib_let_go_of_sources(struct apf *a);
/* swap.c: opens cfg.swap and hands it to the driver; harmless without one. */
int lib_swap_open(struct apf *a, struct err *e);
/* Has room for RAM offsets up to `bytes`. */
int lib_swap_grow(struct apf *a, uint64_t bytes, struct err *e);
void lib_swap_close(struct apf *a);
/* room.c: opens what it looks at; before there may be a sandbox. */
void lib_room_open(struct apf *a);
void lib_room_close(struct apf *a);
/* Locked: pauses the VM if a cgroup's limit is near; sees to the next look. */
void lib_room_look(struct apf *a);
/* evict.c: the thread that takes memory away. */
int lib_evict_start(struct apf *a, struct err *e);
void lib_evict_stop(struct apf *a);
/* Locked: has the thread look, if there is something for it. */
void lib_evict_poke(struct apf *a);

/* serve.c: what each thread of ours does first. */
void lib_thread_begins(struct apf *a, const char *name);
/* Locked. The descriptor that wakes the library's thread; made before it, if need be. */
int lib_wake_fd(struct apf *a, struct err *e);
/* Who decompresses; no thread is started before a source wants one. */
int lib_work_open(struct apf *a, struct err *e);
/* Sources behind a network; nothing is there before one is opened. */
int lib_net_open(struct apf *a, struct err *e);
/* The library's thread. */
int lib_serve_start(struct apf *a, struct err *e);
void lib_serve_stop(struct apf *a);
/* Its descriptors, once nobody is left who would wake it: no worker either. */
void lib_serve_close(struct apf *a);

#endif
