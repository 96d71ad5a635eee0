/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page sources: opening one by URI, or part by part. What a source does once it is
 * open is port/source.h. Tests: tests/unit/source_test.c, source_file_test.c.
 *
 *   file:PATH   a raw image; direct=1: past the page cache
 *   zero:       zeroes; size=64M
 *   zst:PATH    zstd frames with a seek table, decompressed; also zst+file:PATH;
 *               zst-cache=16M, manifest=FILE
 *   nbd://HOST[:PORT]/EXPORT, nbds://…, nbd+unix:///EXPORT?socket=PATH, nbds+unix:///…
 *               an NBD server's export; socket=, tls-certificates=, tls-psk-file=
 *   http://…, https://…
 *               a URL, with keys behind '#'; http-pin=, http-version=, http-ca=
 *   s3://BUCKET/KEY
 *               an object of an S3 store; profile=, region=, endpoint=, style=path or host,
 *               http-version=, http-ca=
 *               all of these: net-connections=, net-depth=, net-connect-ms=, net-stall-ms=
 *   qemu:PATH   one block of guest RAM of QEMU's migration file with mapped-ram; also
 *               qemu+file:PATH; block=pc.ram, by default the largest
 *   layers:PATH a snapshot that has only what changed, with those that it builds upon
 *   retry+      asks again; retries=, retry-ms=, retry-budget=, retry-hedge=, retry-seed=
 *   cache+      keeps what was read in a file that others share: cache-dir=, cache-size=,
 *               cache-key=, cache-manifest=, cache-memory=
 *   rate+       no more than so much per second; bw=, iops=
 *   delay+      answers later: us= or ms=; jitter-us=, seed=
 *   fault+      fails on request: fault-error-after=, fault-error-at=,
 *               fault-error-count=, errno=, fault-short-at=, fault-hang-at=,
 *               fault-hang-after=, fault-hang-ms=
 *
 * Ownership: an open function copies *env and its options. A wrapper's owns `inner`
 * once it has succeeded, and closes it with itself; on failure inner stays the caller's.
 * All return 0, or -Exxx with one line of text, *ret untouched. Opening and closing may
 * block (files) and allocate; nothing in between does either. Threads: port/source.h.
 */
#ifndef SOURCE_SOURCE_H
#define SOURCE_SOURCE_H

#include <asyncpf/counters.h>
#include <errno.h>

#include "port/source.h"

/* Checks a URI as src_open would, without touching any file. Pure; any thread. */
int src_check(const char *uri, struct err *e);

/* What opening a source takes, beside memory. */
enum src_use {
	SRC_USES_FILE,    /* read while it is opened, or for as long as it is open */
	SRC_USES_FOLDER,  /* files in it are made, read and written */
	SRC_USES_NETWORK, /* servers, and what says who and where they are; path: NULL */
	SRC_USES_TRUST,   /* a file, or a folder, that is read to know a server by */
};
typedef int src_uses_fn(void *ctx, enum src_use use, const char *path, struct err *e);

/*
 * Calls `uses` for each that the URI names, without touching any file. The first failure of the
 * URI's or of `uses` is returned.
 */
int src_uses(const char *uri, src_uses_fn *uses, void *ctx, struct err *e);

/* Opens what the URI describes. The caller ends it with src_close(). */
int src_open(const char *uri, const struct src_env *env, struct src **ret, struct err *e);

/*
 * Wrappers alone, as a URI has them before and behind what they wrap ("delay?ms=20"), around
 * `inner`, which belongs to *ret then; on failure it is closed.
 */
int src_wrap(const char *wrappers, struct src *inner, const struct src_env *env, struct src **ret,
	     struct err *e);

/* The counters of sources; the others of *to stay. */
static inline void src_counts_get(const struct src_counts *c, struct apf_counters *to)
{
	to->cache_hits = c->cache_hits;
	to->cache_misses = c->cache_misses;
	to->cache_filled_bytes = c->cache_filled_bytes;
	to->cache_evictions = c->cache_evictions;
	to->cache_mismatches = c->cache_mismatches;
	to->cache_write_errors = c->cache_write_errors;
	to->source_retries = c->source_retries;
	to->source_hedges = c->source_hedges;
}

/* No read may be outstanding. NULL is harmless. */
static inline void src_close(struct src *s)
{
	if (s)
		s->ops->close(s);
}

/* port/source.h: load, refused where the source cannot. */
static inline int src_load(struct src *s, uint64_t offset, void *buf, size_t len, struct err *e)
{
	if (!s->ops->load)
		return err_set(e, -ENOTSUP, "a source '%s' cannot be read while it is opened",
			       s->ops->name);
	return s->ops->load(s, offset, buf, len, e);
}

/* port/source.h: cached. -ENOENT: it reads no local file. */
static inline int64_t src_cached(struct src *s, uint64_t offset, uint64_t len)
{
	return s->ops->cached ? s->ops->cached(s, offset, len) : -ENOENT;
}

/* A file as it is. The source keeps the size that the file has when it is opened. */
int src_file_open(const char *path, const struct src_env *env, struct src **ret, struct err *e);

/*
 * Of a file that somebody else has opened, who keeps it open for longer than this, and closes it
 * himself. path: for messages.
 */
int src_file_lend(struct io_file *file, uint64_t size, const char *path, const struct src_env *env,
		  struct src **ret, struct err *e);

/* size bytes of zeroes; answers at once. */
int src_zero_open(uint64_t size, struct src **ret, struct err *e);

struct src_zst_opts {
	uint64_t cache_bytes; /* for frames that are kept, packed and not; at least four are */
	const char *manifest; /* file of the hashes that frames must have; NULL: none */
};

/*
 * What the zstd frames of `inner` hold, by its seek table. name: for messages. Takes threads from
 * env->work.
 */
int src_zst_open(struct src *inner, const char *name, const struct src_zst_opts *opts,
		 const struct src_env *env, struct src **ret, struct err *e);

/*
 * The block of guest RAM of that name (NULL: the largest) in a migration file of QEMU's with
 * mapped-ram, which `inner` is. name: for messages.
 */
int src_qemu_open(struct src *inner, const char *name, const char *block,
		  const struct src_env *env, struct src **ret, struct err *e);

/* Memory that lies in several files, by the list of the path. */
int src_layers_open(const char *path, const struct src_env *env, struct src **ret, struct err *e);

struct src_cache_opts {
	const char *dir;      /* the folder of the cache's file */
	uint64_t bytes;       /* of that file at most; 0: as it is, or CACHE's default */
	uint64_t memory;      /* for chunks on their way, and what is known of others */
	const char *key;      /* what inner's content is known by, beside its version; or NULL */
	const char *manifest; /* file of the hashes that inner's content must have; or NULL */
};

#define SRC_CACHE_BYTES (10ull << 30)
#define SRC_CACHE_MEMORY (12ull << 20)

/*
 * The bytes of inner, kept in a file. name: for messages; identity: inner's name, which two sources
 * share if, with the same version or key, they have the same content. Takes threads from env->work.
 */
int src_cache_open(struct src *inner, const char *name, const char *identity,
		   const struct src_cache_opts *opts, const struct src_env *env, struct src **ret,
		   struct err *e);

struct src_retry_opts {
	uint32_t retries;        /* of a read that failed; 0: none */
	uint64_t pause_ns;       /* before the second, at most; then doubled */
	uint32_t budget_percent; /* of reads that may be sent again, beside some at first */
	bool hedge;              /* send a second request after unusually long */
	uint64_t seed;           /* decides the jitter */
};

int src_retry_open(struct src *inner, const struct src_env *env,
		   const struct src_retry_opts *opts, struct src **ret, struct err *e);

/* At most so much per second, and a tenth of it at once after a rest. 0: as much as there is. */
struct src_rate_opts {
	uint64_t bytes_per_s;    /* at most SRC_RATE_MAX, and 64 KiB at once at least */
	uint64_t requests_per_s; /* the same, and one at once at least */
};

#define SRC_RATE_MAX (1ull << 50)

int src_rate_open(struct src *inner, const struct src_env *env, const struct src_rate_opts *opts,
		  struct src **ret, struct err *e);

/* Each read waits delay_ns plus a random part of jitter_ns before inner sees it. */
struct src_delay_opts {
	uint64_t delay_ns;
	uint64_t jitter_ns; /* 0: none; then reads keep their order */
	uint64_t seed;      /* decides the jitter */
};

int src_delay_open(struct src *inner, const struct src_env *env,
		   const struct src_delay_opts *opts, struct src **ret, struct err *e);

/*
 * Reads are numbered from 1 as they arrive. All zeroes injects nothing. Where several
 * match, a read that fails does not hang.
 */
struct src_fault_opts {
	uint64_t error_from;  /* this read and all later ones fail; 0: none */
	uint64_t error_at;    /* the first of error_count reads that fail; 0: none */
	uint64_t error_count; /* 0 counts as 1 */
	int error_code;       /* -Exxx; 0: -EIO */
	uint64_t short_at;    /* this read fails as one that ends early does; 0: none */
	uint64_t hang_at;     /* this read is not answered; 0: none */
	uint64_t hang_from;   /* nor are this one and all later ones; 0: none */
	uint64_t hang_ns;     /* but passed on after this time; 0: only cancel ends them */
};

int src_fault_open(struct src *inner, const struct src_env *env,
		   const struct src_fault_opts *opts, struct src **ret, struct err *e);

#endif
