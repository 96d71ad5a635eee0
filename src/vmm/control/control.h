/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket's server: one thread that lets the user's other programs look at a
 * running VM, follow, pause, resume, evict, limit and stop it. It decides who may speak and for
 * how long; what is done is behind `struct control_ops`. The language is control_proto.h.
 *
 * Everything a client can make it use is bounded by the numbers below, and no client waits
 * for another: sockets never block, and what takes long (an eviction, a snapshot, a balloon) has
 * a thread of its own.
 *
 * Tests: tests/unit/control_test.c, control_clients_test.c; tests/fault/control_test.c.
 */
#ifndef VMM_CONTROL_H
#define VMM_CONTROL_H

#include <stdatomic.h>

#include "base/err.h"
#include "vmm/control/control_event.h"
#include "vmm/control/control_proto.h"
#include "vmm/control/control_status.h"

#define CONTROL_CLIENTS_MAX 16u
/* Of one connection within a second: far above what a person or a monitor needs. */
#define CONTROL_REQUESTS_MAX 100u
/* A client that waits for such a thing hears this often how far it is. */
#define CONTROL_PROGRESS_MS 1000u
/* A client that follows hears no more often than this that memory comes and goes. */
#define CONTROL_MEMORY_MS 1000u
/* Greeting and each request, whole, and the reading of each answer take no longer. */
#define CONTROL_IDLE_MS 60000u

/*
 * What a VM does for its clients. All but evict, snapshot and balloon are called by the server's
 * thread, one at a time, and must return soon. `e` becomes the client's error: one line that says
 * what, why and what to do.
 */
struct control_ops {
	/* *ret is zeroed. */
	void (*status)(void *ctx, struct control_status *ret);
	/* What of it costs many system calls, for who asks for it. NULL: there is no such thing. */
	void (*shared)(void *ctx, struct control_status *ret);
	int (*pause)(void *ctx, struct err *e);
	int (*resume)(void *ctx, struct err *e);
	/*
	 * Returns when at most `bytes` are resident, or when no more can be taken: *ret_resident.
	 * By a thread of its own, never twice at a time; status may be asked meanwhile. Soon after
	 * *cancel has become true it gives up: -ECANCELED, or whatever it had come to. NULL:
	 * evicting is not possible in this VM.
	 */
	int (*evict)(void *ctx, uint64_t bytes, const atomic_bool *cancel, uint64_t *ret_resident,
		     struct err *e);
	/*
	 * The guest is asked to make do with `bytes` of memory. balloon_set just asks, as the
	 * others do; balloon returns when the guest has given the rest back, or gives no more, and
	 * is called and cancelled as evict is. NULL, both: there is no balloon.
	 */
	int (*balloon_set)(void *ctx, uint64_t bytes, struct err *e);
	int (*balloon)(void *ctx, uint64_t bytes, const atomic_bool *cancel, struct err *e);
	/* Asks for an orderly end and does not wait for it; control_stop() belongs to that end. */
	int (*stop)(void *ctx, struct err *e);
	/*
	 * At most so many bytes may be resident from now on; 0: any number. Does not wait until it
	 * is so. NULL: not possible in this VM.
	 */
	int (*limit)(void *ctx, uint64_t bytes, struct err *e);
	/*
	 * Writes the VM to two files, state and memory, as r says; by the thread that evictions
	 * have, and cancelled as they are. The descriptors are the server's. NULL: not possible in
	 * this VM.
	 */
	int (*snapshot)(void *ctx, const struct control_request *r, const int *fds,
			const atomic_bool *cancel, struct err *e);
	/*
	 * A rule of a page fault handler's, as src/pager/rule.h has it; may take as long as opening
	 * a page source does. NULL: this is a VM, and serves nobody.
	 */
	int (*serve)(void *ctx, const char *rule, struct err *e);
};

struct control_cfg {
	const char *path;  /* of the socket */
	uint32_t idle_ms;  /* 0: CONTROL_IDLE_MS */
	/* The first thing that the server's thread does, which makes evictions'. NULL: nothing. */
	void (*begins)(void *ctx);
	void *begins_ctx;
};

struct control;

/*
 * Makes the socket, mode 0600, and serves it. ops and ctx are borrowed until control_stop().
 * 0, or -Exxx with a text; then there is neither thread nor file.
 */
int control_start(const struct control_cfg *cfg, const struct control_ops *ops, void *ctx,
		  struct control **ret, struct err *e);

/*
 * To all clients that follow: PAUSED, TROUBLE, RESUMED, NOTE or ENDED; what the server does itself
 * it tells itself. text: NULL for none; cut where it is too long. PAUSED and RESUMED are told where
 * they change something. Any thread, with any lock held; returns at once.
 */
void control_tell(struct control *c, enum control_event_kind kind, const char *text);

/*
 * Removes the socket, cancels an eviction or a snapshot and waits for it, hangs up. No op is
 * called afterwards. NULL is harmless.
 */
void control_stop(struct control *c);

#endif
