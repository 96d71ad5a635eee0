/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to src/pager: what a pager, a listening socket, a connection, a VM and a fetch are.
 * Everything is under the pager's lock.
 */
#ifndef PAGER_INTERNAL_H
#define PAGER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/hist.h"
#include "base/list.h"
#include "base/timer.h"
#include "host/grace.h"
#include "host/pace.h"
#include "host/stream.h"
#include "net/load.h"
#include "pager/handshake.h"
#include "pager/pager.h"
#include "pager/rule.h"
#include "port/source.h"
#include "work/thread_pool.h"

/*
 * Fetches with a buffer each, which is all the memory that reads take: 64 MiB and 64 MiB. Small
 * ones are what faults of 4 KiB need, large ones are huge pages and what is read far ahead.
 */
#define PGR_SMALL_BYTES (64u << 10)
#define PGR_SMALL_COUNT 1024u
#define PGR_LARGE_BYTES (2u << 20)
#define PGR_LARGE_COUNT 32u
#define PGR_FETCHES (PGR_SMALL_COUNT + PGR_LARGE_COUNT)
/* One VM may have this part (1/N) of the fetches of either kind. */
#define PGR_VM_SHARE 4u
/* Touches of one VM that wait for a fetch. What does not fit is reported anew: vm->overflow. */
#define PGR_WAITING_MAX 256u
/* Connections that have not said what they are. The oldest gives way to another. */
#define PGR_PEERS_MAX 64u
/* What a forker may hand over besides the userfaultfd. */
#define PGR_FDS_MAX 3u
_Static_assert(PGR_PEERS_MAX * (1 + PGR_FDS_MAX) <= PGR_DESCRIPTORS_MAX - 3 * PGR_VMS_MAX,
	       "of connections that have not said what they are");

enum pgr_watch_kind { PGR_WATCH_WAKE, PGR_WATCH_STOP, PGR_WATCH_LISTENER, PGR_WATCH_PEER,
		      PGR_WATCH_VM_CONNECTION, PGR_WATCH_VM_UFFD, PGR_WATCH_VM_PROCESS };

/* What epoll reports. */
struct pgr_watch {
	enum pgr_watch_kind kind;
	int fd; /* -1: there is none */
};

/*
 * A source that is open, for all VMs of a rule. Closed after the last of its users has gone, by the
 * loop: the last may be one of its own reads.
 */
struct pgr_image {
	struct src *src;
	uint32_t users; /* VMs, fetches and the listener */
	/* What is known of its reads: how to read more than a page; is a try worth it? */
	struct pace pace;
	struct grace grace;
	struct pgr_source_status stats; /* but for vms */
	struct pgr_image *next;
};

struct pgr_listener {
	struct pgr_watch watch; /* the owner's descriptor */
	struct pgr *pager;
	struct timer again; /* while descriptors or memory are short */
	char path[RULE_SOCKET_MAX];
	struct pgr_image *image;
	struct pgr_listener *next;
};

struct pgr_peer {
	struct pgr_watch watch;
	struct pgr *pager;
	struct pgr_listener *listener;
	struct timer deadline;
	struct pgr_peer *next; /* the oldest first */
	int fds[PGR_FDS_MAX];
	uint32_t fd_count;
	bool ended; /* it will send no more */
	size_t len;
	char text[HANDSHAKE_BYTES_MAX];
};

enum pgr_fetch_state { PGR_FREE, PGR_READING, PGR_FULL, PGR_FAILED };

/* Pages in a row, of one region, on their way from the source to the VM. */
struct pgr_fetch {
	enum pgr_fetch_state state;
	struct src_read read;
	struct pgr_vm *vm;
	struct pgr_image *image;
	struct pgr_fetch *next; /* among the free */
	struct list_link link;  /* in vm->ahead: until somebody waits for it */
	uint32_t region, page, count; /* page: within the region */
	uint32_t placed;              /* pages that are dealt with */
	bool large, demand;
	bool skipped;                 /* somebody may wait for a page that was not placed */
	uint32_t tries;
	uint64_t since_ns;            /* the first touch */
	uint64_t begun_ns;            /* this try */
	uint64_t due_ns;              /* FULL, FAILED: to be tried again */
};

struct pgr_waiting {
	uint32_t region, page;
	uint64_t due_ns; /* not to be answered before */
};

/* A stream that is to be read ahead. */
struct pgr_due {
	struct stream *stream;
	uint32_t region;
};

struct pgr_vm {
	struct pgr_watch connection, uffd, process;
	struct pgr *pager;
	struct pgr_vm *next; /* who is settled first, in turn */
	char name[PGR_NAME_MAX];
	uint64_t number, pid;
	struct pgr_image *image;
	struct handshake h;
	uint32_t first[HANDSHAKE_REGIONS_MAX]; /* where a region's pages begin in the maps */
	/*
	 * A bit for each page. spent: the source's bytes are there, or were, or are not wanted any
	 * more: a touch of it gets zeroes. flying: a fetch has it. there: it was placed, and not
	 * given back since.
	 */
	uint64_t *spent, *flying, *there;
	size_t map_bytes; /* of all */
	struct streams streams;
	struct list ahead; /* fetches that nobody waits for yet */
	struct pgr_due due[STREAMS_MAX];
	uint32_t due_count;
	struct pgr_waiting waiting[PGR_WAITING_MAX];
	uint32_t waiting_count;
	bool overflow; /* touches were read and forgotten: all are woken when there is room */
	bool dead;
	uint32_t fetches, large; /* large: of them, those with a large buffer */
	struct timer retry;
	uint32_t fruitless; /* touches in a row of what is there already */
	uint32_t again; /* times in a row that the VM was taking memory away */
	struct pgr_vm_status stats;
};

struct pgr {
	struct pgr_cfg cfg;
	pthread_mutex_t lock;
	struct ioq *ioq;
	struct thread_pool *pool;
	struct net_lazy *net;
	struct timers timers;
	struct timer **heap;
	struct src_counts source_counts;
	struct src_env env;
	int epoll_fd;
	struct pgr_watch wake, stop;
	atomic_bool stopping; /* set without the lock, too */
	uint64_t begun_ns, now_ns;
	struct pgr_image *images;
	uint64_t image_count; /* since pgr_open */
	struct pgr_listener *listeners;
	struct pgr_peer *peers;
	uint32_t peer_count;
	struct pgr_vm *vms;
	uint32_t vm_count;
	unsigned char *buffers;
	const unsigned char *zeroes; /* PGR_LARGE_BYTES */
	struct pgr_fetch *fetches;
	struct pgr_fetch *free_small, *free_large;
	uint32_t free_small_count, free_large_count;
	uint32_t hist[HIST_BUCKETS]; /* of waits, us */
	uint64_t wait_max_ns;
	struct pgr_status status; /* what is counted */
};

/* ---- pager.c ---- */
void pgr_say(struct pgr *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What the socket is called, the folder left out, as far as there is room. */
void pgr_name(const char *socket, char ret[static PGR_NAME_MAX]);
/* 0 or -errno. */
int pgr_watch_add(struct pgr *p, struct pgr_watch *w);
/* Also where others still hold the descriptor. The descriptor becomes the caller's. */
void pgr_watch_leave(struct pgr *p, struct pgr_watch *w);
/* As pgr_watch_leave(), and closes the descriptor. */
void pgr_watch_end(struct pgr *p, struct pgr_watch *w);

/* Sends reads off, and places what has come already. Not within a source's `done`. */
bool pgr_pump(struct pgr *p);

/* ---- peer.c ---- */
void pgr_accept(struct pgr *p, struct pgr_listener *l);
void pgr_listen_again(struct timer *tm, uint64_t now_ns);
void pgr_peer_read(struct pgr_peer *peer);
void pgr_peer_end(struct pgr_peer *peer);

/* ---- vm.c ---- */
/* Takes both descriptors in any case. 0 or -Exxx with text. */
int pgr_vm_begin(struct pgr *p, struct pgr_listener *l, int connection, int uffd,
		 const struct handshake *h, struct err *e);
/* Its messages are read and answered. True: there may be more. */
bool pgr_vm_serve(struct pgr_vm *vm);
/* Touches that wait for a fetch, after some have become free. */
void pgr_vm_settle(struct pgr_vm *vm);
/* So many bytes are in its memory, from that page of a region on. */
void pgr_vm_placed(struct pgr_vm *vm, uint32_t region, uint32_t page, uint64_t bytes);
/* What waits is tried again by then. */
void pgr_vm_retry_at(struct pgr_vm *vm, uint64_t due_ns);
/* Its connection, or its process, has ended. */
void pgr_vm_hung_up(struct pgr_vm *vm);
void pgr_vm_exited(struct pgr_vm *vm);
/* why: said; NULL: it has gone by itself. Freed by pgr_vm_bury. */
void pgr_vm_end(struct pgr_vm *vm, const char *why);
/* Frees it, once no read is under way for it. False: not yet. */
bool pgr_vm_bury(struct pgr_vm *vm);

/* ---- fetch.c ---- */
/* A touch of the page is answered by zeroes, or a fetch. False: not now. */
bool pgr_answer(struct pgr_vm *vm, struct pgr_waiting *w);
void pgr_fetch_cancel_all(struct pgr_vm *vm);
/* What is due to be tried again. */
void pgr_fetch_retry(struct pgr_vm *vm);
/*
 * Pages from..from+count-1 of a region, which are the source's. False: there is no place for now.
 */
bool pgr_fetch_begin(struct pgr_vm *vm, uint32_t region, uint32_t from, uint32_t count,
		     bool demand);
/* A fetch's read has ended. */
void pgr_fetch_read_done(struct src_read *rd, const struct err *why);

/* ---- ahead.c ---- */
/* The page had to be waited for: its stream may be due. */
void pgr_ahead_note(struct pgr_vm *vm, const struct pgr_waiting *w);
/* Streams that are due are read ahead. Nobody waits for a fetch. */
void pgr_ahead_go(struct pgr_vm *vm);

static inline bool pgr_bit(const uint64_t *map, uint32_t i)
{
	return map[i / 64] >> (i % 64) & 1;
}

static inline void pgr_set(uint64_t *map, uint32_t i)
{
	map[i / 64] |= 1ull << (i % 64);
}

static inline void pgr_clear(uint64_t *map, uint32_t i)
{
	map[i / 64] &= ~(1ull << (i % 64));
}

#endif
