/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine for any kernel: a PC as far as stock Linux needs one, whose memory is
 * libasyncpf's. It has processors with local APICs, an IO-APIC and a PIT (KVM's own), ACPI
 * tables, a serial console, a clock, virtio-mmio disks, network cards, entropy and what else is
 * asked for, and for test kernels an exit port. It uses libasyncpf through its public header like
 * any other VMM.
 *
 *     machine_open(&cfg, &m, &e);
 *     machine_run(m, &outcome, &e);
 *     machine_close(m);
 *
 * Threads: open, run and close belong to one thread. What is marked "any thread" may be
 * called by others between open's return and the call of close.
 * Tests: tests/integration/machine_test.c, tests/lab/.
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include <asyncpf/asyncpf.h>

#include "base/err.h"
#include "base/types.h"
#include "vmm/boot/load.h"
#include "vmm/console/terminal.h"
#include "vmm/control/control_status.h"
#include "vmm/virtio/device_stats.h"
#include "vmm/virtio/net_user.h"

#define MACHINE_CPUS_MAX 16u
#define MACHINE_DISKS_MAX 15u
#define MACHINE_NETS_MAX 4u
#define MACHINE_DEVICES_MAX 16u /* with a worker, all together: each has an interrupt */
#define MACHINE_MEMORY_MIN (2ull << 20)
#define MACHINE_MEMORY_MAX (64ull << 30)
/* Of resident_max, as the library has it: below that there is nothing to work with. */
#define MACHINE_RESIDENT_MIN (4ull << 20)
/* Memory comes in pieces of this size, the largest page of a block source. */
#define MACHINE_MEMORY_UNIT (2ull << 20)

/* For Linux without a command line: the console, and an end instead of a halt after a panic. */
#define MACHINE_LINUX_CMDLINE "console=ttyS0 panic=-1"

/*
 * Entropy comes from the host's generator and costs its CPU time. So much is more than any guest
 * needs, and costs some per cent of a CPU.
 */
#define MACHINE_RNG_BYTES_PER_S (1ull << 20)

struct snap_in;

struct machine_disk {
	const char *path;
	bool read_only;
	bool raw;    /* whatever its first bytes look like */
	bool report; /* the guest is told when the host fails; else the VM is paused */
	uint64_t bytes_per_s;    /* 0: no limit */
	uint64_t requests_per_s; /* 0: no limit */
};

struct machine_net {
	const char *tap; /* the host's interface; NULL: a network in user space */
	bool restricted; /* of that: as in net_user_cfg */
	bool host;
	struct net_forward forwards[NET_USER_FORWARDS_MAX];
	unsigned forwards_count;
	bool has_mac;
	uint8_t mac[NET_MAC_BYTES]; /* not given: from its number; with a tap, at random */
	uint64_t bytes_per_s;       /* 0: no limit */
};

enum machine_balloon {
	MACHINE_BALLOON_OFF,
	MACHINE_BALLOON_ON,
	MACHINE_BALLOON_FOLLOW, /* what is above apf.resident_max is wanted from the start */
};

/* What a user should know of a machine that runs. */
enum machine_word {
	MACHINE_NOTE,    /* something is otherwise than one may expect */
	MACHINE_PAUSED,  /* the host failed: it stands still until machine_resume() */
	MACHINE_RESUMED, /* it goes on */
};

/* What a thread of the machine's is there for. The library's are told apart by apf.on_thread. */
enum machine_thread {
	MACHINE_THREAD_MAIN, /* which calls machine_run */
	MACHINE_THREAD_VCPU,
	MACHINE_THREAD_DEVICE,
	MACHINE_THREAD_NET_USER, /* a device's that has sockets */
	MACHINE_THREAD_VSOCK, /* a device's that has sockets of its own */
	MACHINE_THREAD_CONTROL,
};

/* Strings must stay until machine_close. */
struct machine_cfg {
	const char *kernel;
	const char *modules[LOAD_MODULES_MAX]; /* the first is Linux's initrd */
	unsigned modules_count;
	const char *cmdline;   /* NULL: MACHINE_LINUX_CMDLINE for Linux, else none */
	uint64_t memory_bytes; /* a multiple of MACHINE_MEMORY_UNIT */
	/* What stands behind a part of memory where nothing is loaded; uri NULL: nothing. */
	struct {
		uint64_t gpa;
		uint64_t bytes;
		const char *uri;
	} source;
	/*
	 * A snapshot's state (machine_snap.h), and what stands behind its memory: nothing is
	 * loaded, and kernel is NULL. The caller has set the other members to what it describes.
	 * NULL: none.
	 */
	const struct snap_in *restore;
	const char *restore_uri;
	/* What comes before it is touched, in this order, and then all the rest. */
	const struct apf_range *prefetch;
	unsigned prefetch_count;
	bool fill;
	unsigned cpus;         /* 1..MACHINE_CPUS_MAX */
	struct machine_disk disks[MACHINE_DISKS_MAX]; /* vda, vdb, … */
	unsigned disks_count;
	struct machine_net nets[MACHINE_NETS_MAX];
	unsigned nets_count;
	uint64_t rng_bytes_per_s; /* of entropy; 0: MACHINE_RNG_BYTES_PER_S */
	enum machine_balloon balloon;
	struct {
		const char *path; /* of its socket; NULL: there is none */
		uint32_t cid;
	} vsock;
	bool exit_port; /* there is a port by which a guest ends the run (vmm/chip/reset.h) */
	struct apf_config apf; /* vcpus_max is taken from cpus */
	int in_fd;             /* the console's keyboard; -1: none */
	int out_fd;            /* and its screen; -1: none */
	/* For in_fd, as console_open has them; NULL: nobody else has to do with it. */
	struct terminal *terminal;
	struct terminal_modes *terminal_modes;
	/*
	 * Called by any thread, one line of text each; must not call the machine. NULL: nobody, and
	 * the guest is not watched.
	 */
	void (*say)(void *ctx, enum machine_word word, const char *text);
	void *say_ctx;
	/* Readable: ends machine_run, and what machine_open waits for; -1: none. Not read. */
	int stop_fd;
	/*
	 * The first thing that each thread of the machine's does: to bind it to what it needs. The
	 * main thread does it in machine_run, when all others are there and before any vCPU runs
	 * the guest. NULL: nothing.
	 */
	void (*on_thread)(void *ctx, enum machine_thread which);
	void *on_thread_ctx;
};

enum machine_end {
	MACHINE_POWERED_OFF,
	MACHINE_RESET,   /* the guest asked for a reset: a reboot, or a panic */
	MACHINE_EXITED,  /* it wrote the exit port */
	MACHINE_ESCAPED, /* Ctrl-A x was typed */
	MACHINE_STOPPED, /* machine_stop() was called */
	MACHINE_INTERRUPTED, /* stop_fd became readable */
};

struct machine_outcome {
	bool started; /* every vCPU has a thread: the guest ran */
	enum machine_end end;
	uint32_t status; /* MACHINE_EXITED: what was written */
	double wall_s;   /* first vCPU entered to the end */
	double vcpu_cpu_s; /* CPU time of all vCPU threads */
	enum apf_io io;    /* what page source and swap file were read and written by */
	struct apf_counters stats;
	struct control_vcpu vcpus[MACHINE_CPUS_MAX]; /* cfg.cpus of them */
	struct device_stats devices[MACHINE_DEVICES_MAX];
	unsigned devices_count;
	uint64_t disk_errors; /* requests of the guest's that the host failed */
	bool has_balloon;
	struct balloon_stats balloon;
	bool has_vsock;
	struct vsock_stats vsock;
};

struct machine;

/*
 * Makes the machine and loads the kernel. -EINVAL: a configuration that cannot be; otherwise
 * whatever could not be had, with the reason and what to do. -EINTR: stop_fd. in_fd is raw while it
 * is a terminal in whose foreground we are, until machine_close.
 */
int machine_open(const struct machine_cfg *cfg, struct machine **ret, struct err *e);

/*
 * Runs it to its end, once. 0: see ret->end. -EIO and others: a vCPU failed, with its last
 * words. ret is filled in either case.
 */
int machine_run(struct machine *m, struct machine_outcome *ret, struct err *e);

/* NULL is harmless. The disks are flushed. */
void machine_close(struct machine *m);

/* ---- for a control server ---- */

/* machine_run returns soon, with MACHINE_STOPPED unless something else came first. Any thread. */
void machine_stop(struct machine *m);
/* Between the start of the first vCPU and the end of the run. Any thread. */
bool machine_is_running(struct machine *m);
/* As apf_pause(). Any thread. */
void machine_pause(struct machine *m);
/*
 * As apf_resume(), and lets disks try again what the host had failed to do. While a snapshot has
 * the guest stand, the last word of this and of machine_pause is what comes after it. Any thread.
 */
void machine_resume(struct machine *m);
/* Why a disk has paused the machine: -Exxx and *ret, or 0. Any thread. */
int machine_trouble_get(struct machine *m, struct err *ret);
/* What one should know of the guest, "": nothing. Any thread. */
void machine_note_get(struct machine *m, char ret[static ERR_TEXT_MAX]);
/* Of each device with a worker; returns how many. Any thread. */
unsigned machine_device_stats(struct machine *m,
			      struct device_stats ret[static MACHINE_DEVICES_MAX]);
/* What the balloon says; false: there is none. Any thread. */
bool machine_balloon_stats(struct machine *m, struct balloon_stats *ret);
/* The same of the socket device. */
bool machine_vsock_stats(struct machine *m, struct vsock_stats *ret);
/* How often the host has failed a disk. Any thread. */
uint64_t machine_disk_errors(struct machine *m);
/* The library's objects, for statistics, pause, resume and eviction. Any thread. */
struct apf *machine_apf(struct machine *m);
unsigned machine_vcpus(const struct machine *m);
/* What is told about each vCPU. Any thread; also after machine_run. */
void machine_vcpu_stats(struct machine *m, unsigned index, struct control_vcpu *ret);
struct apf_vcpu *machine_vcpu(struct machine *m, unsigned index);

#endif
