/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What machine a snapshot is of: the sections from which `asyncpf restore` makes its
 * machine_cfg. Format: docs/snapshot-format.md. What is read is hostile input.
 * Tests: tests/unit/machine_saved_test.c, tests/fuzz/snap_fuzz.c.
 */
#ifndef VMM_MACHINE_SAVED_H
#define VMM_MACHINE_SAVED_H

#include "vmm/machine/machine.h"
#include "vmm/snap/first_touch.h"
#include "vmm/snap/snap_state.h"
#include "vmm/virtio/virtio_balloon.h"
#include "vmm/virtio/virtio_vsock.h"

#define MACHINE_SAVED_VERSION 1u
#define MACHINE_PATH_MAX 4096u

/*
 * Section "snapshot": which it is, by chance, and which it builds upon, all zeroes for none. Then
 * the section "memory.pages" has a bit per page, in the order of the file, that is in its own file.
 */
struct machine_snap_id {
	unsigned char id[SNAP_ID_BYTES];
	unsigned char base[SNAP_ID_BYTES];
};

/* Section "machine": what the machine is made with. */
struct machine_saved {
	uint64_t memory_bytes;
	uint64_t rng_bytes_per_s;
	uint32_t cpus;
	uint32_t kind; /* enum load_kind */
	uint32_t faults, abi, outstanding;
	uint32_t disks;
	uint32_t exit_port;
	uint32_t nets;
};

/* Section "machine.disk" of each disk; its path, absolute, follows. */
struct machine_disk_saved {
	uint64_t bytes; /* that the guest sees */
	uint64_t bytes_per_s, requests_per_s;
	uint8_t read_only, raw, report;
	uint8_t zero[5];
};

/*
 * Section "machine.net" of each network card; the name of its tap follows, which is empty for a
 * network in user space.
 */
struct machine_net_saved {
	uint64_t bytes_per_s;
	uint8_t mac[NET_MAC_BYTES];
	uint8_t has_mac, restricted, host;
	uint8_t zero[3];
	uint32_t forwards_count;
	struct {
		uint32_t host_addr; /* as in net_forward */
		uint16_t host_port, guest_port;
		uint8_t udp;
		uint8_t zero[3];
	} forwards[NET_USER_FORWARDS_MAX];
};

/* Section "machine.balloon", which is there where it has one. */
struct machine_balloon_saved {
	uint32_t kind; /* enum machine_balloon */
	struct balloon_saved device;
};

/* Section "machine.vsock", which is there where it has one; its socket's path follows. */
struct machine_vsock_saved {
	struct vsock_saved device;
};

/* The sections that describe it, checked. *ret_path lies in `in`, ends in NUL. 0 or -Exxx. */
int machine_saved_get(const struct snap_in *in, struct machine_saved *ret, struct err *e);
int machine_disk_saved_get(const struct snap_in *in, unsigned i, struct machine_disk_saved *ret,
			   const char **ret_path, struct err *e);
/* ret->tap lies in `in`. */
int machine_net_saved_get(const struct snap_in *in, unsigned i, struct machine_net *ret,
			  struct err *e);
/* All zeroes where there is none: of an older version. */
int machine_snap_id_get(const struct snap_in *in, struct machine_snap_id *ret, struct err *e);
/* Of memory_bytes; *ret lies in `in`. */
int machine_snap_pages_get(const struct snap_in *in, uint64_t memory_bytes, const uint64_t **ret,
			   struct err *e);
/*
 * What it touches first: gpa of each page, in RAM, at most FIRST_TOUCH_MAX. *ret lies in `in`. None
 * where there is no such section.
 */
int machine_first_get(const struct snap_in *in, uint64_t memory_bytes, const uint64_t **ret,
		      unsigned *ret_count, struct err *e);
/* All zeroes, which is MACHINE_BALLOON_OFF, where there is none. */
int machine_balloon_saved_get(const struct snap_in *in, struct machine_balloon_saved *ret,
			      struct err *e);
/* *ret_path is NULL where there is none. */
int machine_vsock_saved_get(const struct snap_in *in, struct machine_vsock_saved *ret,
			    const char **ret_path, struct err *e);

#endif
