/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine inside: machine.c builds it and takes it down, machine_devices.c is what is on
 * its bus, machine_vcpu.c runs a vCPU, machine_run.c the whole, machine_trouble.c is for when the
 * host fails, machine_watch.c for a guest that does not do what one expects, machine_snap.c for
 * snapshots, with machine_rest.c for the coming to rest, machine_dirty.c for who writes meanwhile
 * machine_copy.c for the file of memory, and machine_first.c for what is touched first of it.
 */
#ifndef VMM_MACHINE_PARTS_H
#define VMM_MACHINE_PARTS_H

#include <pthread.h>

#include "kvm/kvm_uapi.h"
#include "vmm/boot/acpi.h"
#include "vmm/chip/bus.h"
#include "vmm/chip/fw_cfg.h"
#include "vmm/chip/pm.h"
#include "vmm/chip/reset.h"
#include "vmm/chip/rtc_cmos.h"
#include "vmm/chip/test_dev.h"
#include "vmm/console/console.h"
#include "vmm/control/control_socket.h"
#include "vmm/machine/machine.h"
#include "vmm/snap/snap_state.h"
#include "vmm/virtio/net.h"
#include "vmm/virtio/net_tap.h"
#include "vmm/virtio/virtio_balloon.h"
#include "vmm/virtio/virtio_blk.h"
#include "vmm/virtio/virtio_rng.h"
#include "vmm/virtio/virtio_vsock.h"

/* Where a vCPU was at an exit. */
struct machine_seen {
	uint64_t rip, cr2, cr3;
	unsigned cpl;
};

/* What a vCPU waited for when it was last looked at. */
enum machine_waits {
	MACHINE_WAITS_NOT,
	MACHINE_WAITS_FOR_START, /* INIT and SIPI, which another one sends */
	MACHINE_WAITS_FOR_EVER,  /* halted with interrupts off */
};

struct machine_vcpu {
	struct machine *m;
	unsigned index;
	int fd;
	struct kvm_run *run;
	struct apf_vcpu *apf;
	pthread_t thread;
	bool has_thread;
	struct machine_seen seen; /* at its last exit that a device served */
	bool leaving; /* its thread is about to be joined: its clock is not asked any more */
	_Atomic uint64_t cpu_ns; /* its thread's CPU time: when last asked, or at its end */
	_Atomic uint64_t exits;  /* that serve_exit has served; by its own thread */
	_Atomic enum machine_waits waits; /* by its own thread, while watch.looking */
};

/* machine_watch.c; all but `looking` belong to the thread that runs the machine. */
struct machine_watch {
	atomic_bool looking; /* vCPUs were kicked to say what they wait for */
	uint64_t next_ns;
	uint64_t run_ns;     /* not paused, in whole steps */
	uint64_t cpu_ns;     /* of all vCPUs, at the last step */
	uint64_t panic_ns;   /* of run_ns; 0: none */
	unsigned found;      /* looks in a row that found all of them waiting */
	unsigned look_in;    /* steps until the next look */
	unsigned pause_steps;
};

struct machine_blk {
	struct machine *m;
	const char *path;
	char *full_path; /* absolute, as it was when it was opened; NULL: it cannot be told */
	struct blk_file file;
	struct blk_backing backing;
	struct virtio_blk blk;
	char name[DEVICE_NAME_MAX]; /* of its worker */
	bool is_open;  /* blk is */
	bool report;
	bool is_noted; /* by its worker: it was told that the host fails */
};

/* A network device and what is behind it. */
struct machine_nic {
	struct machine *m;
	const char *tap_name; /* NULL: a network in user space */
	struct net_tap tap;
	struct net_user *user;
	struct net_backend backend;
	struct virtio_net net;
	char name[DEVICE_NAME_MAX]; /* of its worker */
};

/* Who writes to guest memory: machine_dirty.c. Belongs to the thread of a snapshot. */
struct machine_dirty {
	struct dirty_map map; /* the library's writes, and devices' */
	uint64_t *scratch;
	/* A bit per page that was written to since the snapshot `id`, as far as was looked. */
	uint64_t *since;
	bool on;
	bool has_id;
	unsigned char id[SNAP_ID_BYTES];
};

/* What `status` tells of a snapshot: by its thread, read by any. */
struct machine_snap_told {
	_Atomic uint64_t running;
	_Atomic uint64_t written_bytes, left_bytes;
	_Atomic uint64_t paused_ns; /* the longest that the guest stood still for it */
};

struct machine {
	struct machine_cfg cfg;
	int kvm_fd;
	int vm_fd;
	int wake_fd; /* eventfd: machine_run has something to do */
	struct apf *apf;
	struct machine_vcpu vcpus[MACHINE_CPUS_MAX];

	struct guest_mem mem;
	struct machine_dirty dirty;
	struct machine_snap_told snap;
	struct bus bus;
	struct console console;
	struct serial serial;
	struct rtc rtc;
	struct pm pm;
	struct reset reset;
	struct exit_port exit_port;
	struct fw_cfg fw_cfg;
	struct test_dev test_dev;
	struct virtio_rng rng;
	struct control_socket vsock_socket; /* fd 0: it is not open */
	struct virtio_vsock vsock;     /* where cfg.vsock has a path */
	struct virtio_balloon balloon; /* unless cfg.balloon is off */
	struct machine_blk *disks; /* cfg.disks_count of them */
	struct machine_nic nics[MACHINE_NETS_MAX];
	struct acpi_cfg acpi;
	enum load_kind kind;
	struct machine_watch watch;
	bool has_devices; /* those that need no opening are initialised */

	pthread_mutex_t lock; /* covers the rest; taken before the library's */
	pthread_cond_t resumed; /* from trouble, or `go`, or an end; or devices are held */
	struct err trouble; /* why a disk has paused the VM; code 0: none has */
	uint64_t disk_errors;
	char note[ERR_TEXT_MAX]; /* what machine_watch.c has to say; "": nothing */
	bool running;
	bool go;    /* vCPUs may run the guest */
	bool freeze;        /* vCPUs shall stay out of the guest: machine_snap.c */
	unsigned frozen;    /* vCPUs that stay out of it */
	pthread_cond_t froze; /* `frozen` has risen */
	bool stands;        /* for a snapshot's moment, paused or not before: machine_rest.c */
	bool stays_paused;  /* after it: the user has paused it. What fails pauses it again */
	bool stop;  /* vCPU threads shall end */
	bool ended; /* `end` and `status` say how, or `failure` */
	enum machine_end end;
	uint32_t status;
	uint64_t end_ns;
	struct err failure; /* code 0: none */
};

/* machine_devices.c: the disks' files, before anything is written anywhere. */
int machine_disks_open(struct machine *m, struct err *e);
/*
 * Puts the devices on the bus and describes them in m->acpi. After a failure, too,
 * machine_devices_close() closes what was opened, the disks included.
 */
int machine_devices_open(struct machine *m, struct err *e);
/* What test kernels expect beside; once the kernel is known. */
int machine_test_devices_open(struct machine *m, struct err *e);
void machine_devices_close(struct machine *m);
/* What the balloon asks for when the machine starts, booted or restored, bytes. */
uint64_t machine_balloon_target(const struct machine *m);
/* Has the guest tell what its memory is used for; waits for it a moment. Any thread. */
void machine_balloon_refresh(struct machine *m);

/* machine_generation.c: a new VM generation ID, of which a restored guest is told. */
int machine_generation_set(struct machine *m, struct err *e);

/* machine.c: the hook of machine_cfg. */
void machine_thread_begins(struct machine *m, enum machine_thread which);

/* machine_vcpu.c: a vCPU's thread; arg is the struct machine_vcpu. */
void *machine_vcpu_thread(void *arg);
/* CPU time of its thread. Any thread; also after machine_run. */
uint64_t machine_vcpu_cpu_ns(struct machine *m, unsigned index);

/* machine_rest.c: where a vCPU's run was interrupted, and before it begins. */
void machine_rest(struct machine_vcpu *v);
/*
 * No vCPU runs the guest until machine_go_on(). -EBUSY: one did not come to rest within limit_ms,
 * -EINTR: the VM has ended; then they go on.
 */
int machine_stand(struct machine *m, uint32_t limit_ms, struct err *e);
void machine_go_on(struct machine *m);
/*
 * While vCPUs stand and devices are held: the library delivers nothing. Who pauses or resumes
 * meanwhile decides what comes after it.
 */
void machine_begin_moment(struct machine *m);
void machine_end_moment(struct machine *m);
/* No device has a request in hand until machine_devices_release(). */
void machine_devices_hold(struct machine *m);
void machine_devices_release(struct machine *m);
/* Every virtio device that a snapshot has a section of. */
struct virtio_mmio *machine_device(struct machine *m, unsigned i);
unsigned machine_device_count(const struct machine *m);

/*
 * machine_dirty.c, by a snapshot's thread. prepare: before the library is opened, which is to tell.
 * begin: from now on everybody's writes are noted. take: adds the pages that were written to since
 * the last take to `to`, some of them also where it fails; devices are held meanwhile.
 */
int machine_dirty_prepare(struct machine *m, struct apf_config *c, struct err *e);
int machine_dirty_begin(struct machine *m, struct err *e);
int machine_dirty_take(struct machine *m, uint64_t *to, struct err *e);
/* Nobody asks any more: no snapshot of before can be a base. */
void machine_dirty_end(struct machine *m);
void machine_dirty_free(struct machine *m);

/* machine_run.c: the first end or failure counts. Any thread. */
void machine_end(struct machine *m, enum machine_end end, uint32_t status);
void machine_fail(struct machine *m, const struct err *why);
void machine_wake(struct machine *m);

/*
 * machine_watch.c: step looks at the guest now and then; returns in how many ms it wants to be
 * called again, -1: never. look is called where a vCPU's run was interrupted.
 */
int machine_watch_step(struct machine *m, uint64_t now_ns);
void machine_watch_look(struct machine_vcpu *v);

/* machine_trouble.c */
void machine_say(struct machine *m, enum machine_word word, const char *text);
/* For struct blk_backing; ctx is the struct machine_blk. By the disk's worker, which may wait. */
bool machine_disk_failed(void *ctx, const struct blk_failure *why);
/* Nobody waits any more; m->stop or m->ended is set. */
void machine_trouble_end(struct machine *m);

#endif
