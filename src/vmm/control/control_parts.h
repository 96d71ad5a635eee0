/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control server inside: control.c is the loop, what clients ask, start and stop;
 * control_peer.c one client's answers, control_follow.c events for clients that follow,
 * control_job.c what takes long.
 *
 * Everything in struct control belongs to the server's thread, but for `told`, which has a lock,
 * and `job`, which the job's thread has from its start until it has set `done`.
 */
#ifndef VMM_CONTROL_PARTS_H
#define VMM_CONTROL_PARTS_H

#include <pthread.h>

#include "base/time.h"
#include "vmm/control/control.h"
#include "vmm/control/control_proto.h"
#include "vmm/control/control_socket.h"
#include "vmm/control/control_told.h"

enum control_peer_state {
	PEER_FREE,
	PEER_GREETING, /* has not said which version it speaks */
	PEER_READY,    /* may ask */
	PEER_WAITING,  /* has asked for the job that is under way */
	PEER_STOPPING, /* has been told that the VM will end: waits for us to hang up */
	PEER_FOLLOWING, /* hears of events, and asks nothing any more */
	PEER_CLOSING,  /* gets what is in `out`, no more */
};

struct control_peer {
	enum control_peer_state state;
	int fd;
	uint64_t deadline_ns; /* of the next whole line, or of the answer's leaving */
	uint64_t second_ns;   /* requests are counted from here */
	unsigned requests;
	bool more; /* has had its turn: what else it has sent waits for the next */
	uint64_t lost; /* events that a follower was too slow for */
	struct control_lines in;
	int fds[CONTROL_SNAPSHOT_FDS]; /* what has come with its lines; -1: nothing */
	size_t out_sent, out_len;
	char out[CONTROL_ANSWER_MAX + CONTROL_LINE_MAX];
};

/* What takes long: an eviction, a snapshot, or a balloon that fills. */
struct control_job {
	bool running; /* there is a thread to join */
	pthread_t thread;
	atomic_bool cancel, done;
	struct control_request request;
	int fds[CONTROL_SNAPSHOT_FDS]; /* of a snapshot; closed when the thread is joined */
	uint64_t resident; /* of an eviction; valid when done, as are rc and e */
	int rc;
	struct err e;
};

struct control {
	const struct control_ops *ops;
	void *ctx;
	void (*begins)(void *ctx);
	void *begins_ctx;
	uint64_t idle_ns;
	struct control_socket socket;
	int wake_fd; /* the server's thread has something to look at: control_wake() */
	atomic_bool end;
	pthread_t thread;
	uint64_t accept_ns; /* not before */
	uint64_t progress_ns; /* when the job's client hears of it next */
	uint64_t start_ns;
	uint64_t memory_ns;   /* when followers may hear of memory next */
	uint64_t evicted, refaulted; /* as they have heard */
	struct control_told told; /* on its way to the followers */
	struct control_job job;
	struct control_status status; /* scratch */
	struct control_peer peers[CONTROL_CLIENTS_MAX];
};

/* ---- control.c ---- */

typedef void *control_thread_fn(void *control);

/* The server's thread looks at everything anew. Any thread. */
void control_wake(struct control *c);
/* A thread that gets no signals: they are others' business. 0, or -Exxx. */
int control_thread_start(pthread_t *ret, control_thread_fn *run, struct control *c);

/* ---- control_peer.c: all by the server's thread ---- */

/* Appends to what has not been sent yet. The caller knows that there is room. */
void control_peer_put(struct control_peer *p, const char *text, size_t len);
void control_peer_put_status(struct control *c, struct control_peer *p);
/* The end of an answer: the status, and that it is well. */
void control_peer_done(struct control *c, struct control_peer *p);
/* A failure of the work: the client may ask again. */
void control_peer_failed(struct control_peer *p, const struct err *e);
/* A breach of the language, or of a limit: an error, and the end of the connection. */
void control_peer_refuse(struct control_peer *p, const char *text);
/* Sends what it can. False: not everything has left, or the peer is gone. */
bool control_peer_flush(struct control *c, struct control_peer *p);
void control_peer_drop(struct control *c, struct control_peer *p);
void control_fds_close(int fds[static CONTROL_SNAPSHOT_FDS]);

/* ---- control_follow.c: control_tell_event() by any thread, the others by the server's ---- */

void control_follow(struct control *c, struct control_peer *p);
bool control_is_followed(const struct control *c);
void control_follower_advance(struct control *c, struct control_peer *p);
/* Its uptime is now. */
void control_tell_event(struct control *c, struct control_event ev);
/* Passes on what has been told; and what memory does, now and then. */
void control_tell_all(struct control *c);

/* ---- control_job.c: all by the server's thread ---- */

/* -EOPNOTSUPP, with the text. */
int control_no_balloon(struct err *e);
/* The client waits for it, or has its error. */
void control_job_begin(struct control *c, struct control_peer *p,
		       const struct control_request *r);
/*
 * The job's end, and its progress meanwhile: its client is never left in silence. Returns the
 * client that has something to send, or NULL.
 */
struct control_peer *control_job_watch(struct control *c);
/* Cancels it and waits for it. */
void control_job_stop(struct control *c);

#endif
