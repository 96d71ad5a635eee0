/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images: guest memory as zstd frames with a seek table (source/zst_table.h), made, unpacked,
 * checked and described. Each function blocks until it is done, and uses threads of its own
 * meanwhile; one caller. Test: tests/integration/image_test.py.
 */
#ifndef IMAGE_IMAGE_H
#define IMAGE_IMAGE_H

#include "image/input.h"
#include "image/output.h"
#include "source/zst_table.h"

#define IMG_FRAME_BYTES_MIN 4096u
#define IMG_FRAME_BYTES_MAX (16u << 20)
#define IMG_FRAME_BYTES (64u << 10) /* docs/decisions/0016 */
#define IMG_LEVEL 3
#define IMG_LEVEL_MAX 22

/* How the caller looks on. */
struct img_watch {
	int stop_fd; /* once it is readable: -ECANCELED, without text */
	/* Now and then, and at the end; total: IMG_SIZE_UNKNOWN: not known. NULL: nobody looks. */
	void (*progress)(void *ctx, uint64_t done, uint64_t total);
	void *ctx;
	bool begun; /* set once the work has: a failure is no refusal any more */
};

/* ---- pack ---- */

struct img_pack_opts {
	int level;            /* 1..IMG_LEVEL_MAX */
	uint32_t frame_bytes; /* a power of two from _MIN to _MAX */
	unsigned threads;     /* 1..PIPE_THREADS_MAX */
};

struct img_packed {
	uint64_t bytes, packed_bytes; /* of content; of the file */
	uint32_t frames, zero_frames;
};

/*
 * What `in` holds into `out`, and its hashes into `manifest`, which has fd -1 if none is wanted.
 * The same bytes for any number of threads. Ends out and manifest: both have their names on
 * success, and neither is left otherwise. 0, or -Exxx with text.
 */
int img_pack(struct img_in *in, struct img_out *out, struct img_out *manifest,
	     const struct img_pack_opts *opts, struct img_watch *watch,
	     struct img_packed *ret, struct err *e);

/* ---- files that were packed ---- */

struct img_file {
	int fd;           /* -1: not open */
	const char *path; /* the caller's */
	uint64_t size;
	unsigned mode; /* permissions */
	struct zst_table table;
	unsigned char *hashes; /* of its manifest; NULL: there is none */
};

/*
 * manifest: the file of its hashes, or NULL. Ended by img_file_close(). 0, or -Exxx with text;
 * -EBADMSG: it could be read, and is no image, or not the manifest's.
 */
int img_file_open(struct img_file *f, const char *path, const char *manifest, struct err *e);
void img_file_close(struct img_file *f);

/*
 * The content into `out`, which is ended, as by img_pack(). What is zero is not written. 0, or
 * -Exxx with text.
 */
int img_unpack(const struct img_file *f, struct img_out *out, unsigned threads,
	       struct img_watch *watch, struct err *e);

/* One frame that is not what it should be. Bytes: from, and the first behind. */
struct img_broken {
	uint32_t frame;
	uint64_t packed_from, packed_to, plain_from, plain_to;
	const char *why; /* during the call */
};

typedef void img_tell(void *ctx, const struct img_broken *b);

/*
 * Tells of each broken frame, in order, by a thread of its own. Returns how many, or -Exxx with
 * text.
 */
int64_t img_verify(const struct img_file *f, unsigned threads, img_tell *tell, void *ctx,
		   struct img_watch *watch, struct err *e);

#define IMG_COUNT_UNKNOWN UINT32_MAX

struct img_info {
	uint64_t bytes, packed_bytes;
	uint32_t frames, largest; /* content of the largest, bytes */
	bool checksums;
	uint32_t zero_frames; /* by their checksums; IMG_COUNT_UNKNOWN: they have none */
};

/* From the seek table alone. 0, or -ENOMEM. */
int img_info(const struct img_file *f, struct img_info *ret, struct err *e);

#endif
