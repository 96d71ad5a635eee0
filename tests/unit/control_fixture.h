/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of vmm/control/control.c share: a VM's side, a server on a real socket in a folder
 * of its own, and a client's side. Nothing here measures time; HANG_MS only bounds what would
 * never end.
 */
#ifndef TESTS_CONTROL_FIXTURE_H
#define TESTS_CONTROL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/control/control.h"
#include "vmm/control/control_proto.h"

#define HANG_MS 30000
#define MEMORY (512ull << 20)

/* ---- a VM's side ---- */

struct vm {
	atomic_bool paused, hold; /* hold: evict goes on only when it is cancelled or released */
	atomic_uint evicting, evictions, cancelled, stops;
	_Atomic uint64_t balloon; /* what was asked for last */
	_Atomic uint64_t resident, pinned; /* pinned: evict leaves so many bytes */
	_Atomic uint64_t limit, evicted;
	atomic_bool hold_status;
	atomic_uint statuses, statuses_then; /* asked for; and when it was paused */
	_Atomic(struct control *) again; /* resume tells it that what failed fails again */
	atomic_int fail; /* what pause, resume, evict and stop return, if not 0 */
};

void vm_status(void *ctx, struct control_status *ret);
int vm_pause(void *ctx, struct err *e);
int vm_resume(void *ctx, struct err *e);
int vm_evict(void *ctx, uint64_t bytes, const atomic_bool *cancel,
	     uint64_t *ret_resident, struct err *e);
int vm_stop(void *ctx, struct err *e);
int vm_limit(void *ctx, uint64_t bytes, struct err *e);
extern const struct control_ops vm_ops;

/* ---- fixture ---- */

struct fixture {
	char folder[64];
	char path[96];
	struct vm vm;
	struct control *c;
};

void start(struct fixture *f, const struct control_ops *ops, uint32_t idle_ms);
void restart(struct fixture *f, const struct control_ops *ops, uint32_t idle_ms);
int setup(void **state);
int teardown(void **state);

/* ---- a client's side ---- */

struct client {
	int fd;
	struct control_lines in;
};

void client_open(struct client *k, const struct fixture *f);
void wait_for(int fd, short events);
/* False: the server has hung up. */
bool client_line(struct client *k, char line[static CONTROL_LINE_MAX]);
/* All of it, or as much as the server takes before it hangs up. */
void client_send(struct client *k, const void *bytes, size_t len);
void client_say(struct client *k, const char *text);
void expect_line(struct client *k, const char *want);
void expect_end(struct client *k);
/* The answer's lines into *ret, its last one into `last`. */
void client_answer(struct client *k, struct control_status *ret,
		   char last[static CONTROL_LINE_MAX]);
void client_hello(struct client *k, const struct fixture *f);
void ask_ok(struct client *k, const char *request, struct control_status *ret);
void ask_error(struct client *k, const char *request, const char *want);
/* The server still does its work. */
void expect_alive(const struct fixture *f);
unsigned open_files(void);

#endif
