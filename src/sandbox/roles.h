/* SPDX-License-Identifier: Apache-2.0 */
/* What a thread is there for, which decides what it may do. */
#ifndef SANDBOX_ROLES_H
#define SANDBOX_ROLES_H

enum sandbox_role {
	SANDBOX_MAIN,    /* console, end, clean-up */
	SANDBOX_VCPU,
	SANDBOX_DEVICE,  /* a disk's worker, the entropy source's */
	SANDBOX_LIBRARY, /* any of the library's that has no role of its own */
	SANDBOX_EVICTOR,
	SANDBOX_CONTROL, /* the control socket's server, and its eviction */
	SANDBOX_SIGNALS, /* waits for SIGTERM and the like */
	SANDBOX_VSOCK,   /* the socket device's worker: Unix sockets */
	SANDBOX_TRACE,   /* writes the timeline */
	SANDBOX_NET,     /* a network in user space: a device's worker that has sockets */
	SANDBOX_GUARD,   /* the process that puts the terminal back */
	SANDBOX_PAGER,   /* the pager's loop: VMs' memory, and the pager's end */
	SANDBOX_RULES,   /* its control socket's: opens sources and sockets that are named later */
	SANDBOX_WORKER,  /* decompresses, compares, reads and writes what is open */
	SANDBOX_SOURCES, /* sources over a network, and names */
	SANDBOX_ROLES,
};

/* "vCPU": for a line to a user. */
const char *sandbox_role_name(enum sandbox_role role);

/* Of a thread of the library's, by the name that its on_thread hook was called with. */
enum sandbox_role sandbox_role_of_library(const char *name);

#endif
