/* SPDX-License-Identifier: Apache-2.0 */
/* See input.h. */
#include "image/input.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/types.h"
#include "source/mapped_ram.h"

#define CLOUD_FILE "/memory-ranges"
/* A writer that is started at the same time as we are has 5 s to open the FIFO. */
#define FIFO_TRIES 250u
#define FIFO_PAUSE_MS 20

void img_in_close(struct img_in *in)
{
	if (in->fd > STDIN_FILENO)
		close(in->fd);
	free(in->path);
	free(in->bitmap);
	free(in->block);
	*in = (struct img_in){.fd = -1};
}

static int cut_short(const struct img_in *in, uint64_t at, struct err *e)
{
	return err_set(e, -ESTALE, "cannot read %s: it ended at byte %llu while it was read; "
		       "leave it "
		       "as it is until it is packed", in->path, (unsigned long long)at);
}

static int read_all(const struct img_in *in, uint64_t offset, void *buf, size_t len, struct err *e)
{
	for (size_t got = 0; got < len;) {
		ssize_t n = pread(in->fd, (char *)buf + got, len - got, (off_t)(offset + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, -errno, "cannot read %s at byte %llu", in->path,
				       (unsigned long long)(offset + got));
		if (n == 0)
			return cut_short(in, offset + got, e);
		got += (size_t)n;
	}
	return 0;
}

/* ---- QEMU ---- */

static int read_for_parser(void *ctx, uint64_t offset, void *buf, size_t len, struct err *e)
{
	return read_all(ctx, offset, buf, len, e);
}

static int use_block(struct img_in *in, const struct mapped_ram_block *b, struct err *e)
{
	int rc;

	in->bitmap = malloc(b->bitmap_bytes);
	in->block = strdup(b->name);
	if (!in->bitmap || !in->block)
		return err_sys(e, -ENOMEM, "cannot read %s: its pages' bitmap", in->path);
	rc = read_all(in, b->bitmap_at, in->bitmap, b->bitmap_bytes, e);
	in->size = b->bytes;
	in->page_bytes = b->page_bytes;
	in->pages_at = b->pages_at;
	return rc;
}

static int open_qemu(struct img_in *in, const char *block, struct err *e)
{
	const struct mapped_ram_file file = {in->size, read_for_parser, in};
	const struct mapped_ram_block *b;
	struct mapped_ram m;
	struct err why;
	int rc = mapped_ram_parse(&file, &m, &why);

	if (rc < 0)
		return err_set(e, rc, "cannot read %s: %s", in->path, why.text);
	b = mapped_ram_find(&m, block, &why);
	rc = b ? use_block(in, b, e) : err_set(e, why.code, "cannot read %s: "
					       "%s", in->path, why.text);
	mapped_ram_fini(&m);
	return rc;
}

static bool is_stored(const struct img_in *in, uint64_t page)
{
	return in->bitmap[page / 8] & 1u << page % 8;
}

/* Pages from the one that holds `offset` that are alike, up to `end`: where they end. */
static uint64_t run_end(const struct img_in *in, uint64_t offset, uint64_t end)
{
	uint64_t page = offset / in->page_bytes;
	bool stored = is_stored(in, page);

	do
		page++;
	while (page * in->page_bytes < end && is_stored(in, page) == stored);
	return min_u64(page * in->page_bytes, end);
}

static int read_pages(const struct img_in *in, uint64_t offset, unsigned char *buf, size_t len,
		      struct err *e)
{
	uint64_t end = offset + len, next;
	int rc = 0;

	for (; rc == 0 && offset < end; buf += next - offset, offset = next) {
		next = run_end(in, offset, end);
		if (is_stored(in, offset / in->page_bytes))
			rc = read_all(in, in->pages_at + offset, buf, next - offset, e);
		else
			memset(buf, 0, next - offset);
	}
	return rc;
}

/* ---- opening ---- */

/* The kind and, where it is known, the size. */
static int look(struct img_in *in, struct err *e)
{
	in->size = IMG_SIZE_UNKNOWN;
	if (S_ISCHR(in->begun.st_mode) && in->fd != STDIN_FILENO)
		return err_set(e, -EINVAL, "cannot read %s: a character device; name a file, or "
			       "'-' for standard input", in->path);
	/* What was handed to us with its position moved is read from there, to an end not known. */
	if (S_ISREG(in->begun.st_mode) && lseek(in->fd, 0, SEEK_CUR) == 0)
		in->size = (uint64_t)in->begun.st_size;
	else if (S_ISBLK(in->begun.st_mode) && ioctl(in->fd, BLKGETSIZE64, &in->size) < 0)
		return err_sys(e, -errno, "cannot read %s: its size", in->path);
	else if (S_ISDIR(in->begun.st_mode) && in->fd == STDIN_FILENO)
		return err_set(e, -EISDIR, "cannot read %s: it is closed, or a folder; give it a "
			       "file or a pipe", in->path);
	else if (S_ISDIR(in->begun.st_mode))
		return err_set(e, -EISDIR, "cannot read %s: a folder without memory-ranges; name "
			       "the "
			       "file with the memory", in->path);
	if (in->size == 0)
		return err_set(e, -ENODATA, "cannot read %s: it is empty; there is nothing to pack",
			       in->path);
	in->holes = S_ISREG(in->begun.st_mode);
	return 0;
}

/* Somebody has a FIFO open for writing, or that is not to be found out. Takes nothing out of it. */
static bool has_writer(int fd)
{
	int ends[2];
	ssize_t n;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return true;
	n = tee(fd, ends[1], 1, SPLICE_F_NONBLOCK);
	close(ends[0]);
	close(ends[1]);
	return n != 0;
}

/* Without O_NONBLOCK opening it would wait, without an end. */
static int wait_for_writer(const struct img_in *in, struct err *e)
{
	for (unsigned i = 0; i < FIFO_TRIES; i++) {
		if (has_writer(in->fd))
			return 0;
		(void)poll(NULL, 0, FIFO_PAUSE_MS);
	}
	return err_set(e, -ENXIO, "cannot read %s: a FIFO that nobody writes to; start its writer "
		       "first, or name a file", in->path);
}

/* A Cloud Hypervisor snapshot's folder is named for the file in it. */
static int open_path(struct img_in *in, const char *path, struct err *e)
{
	struct stat st;

	if (strcmp(path, "-") == 0) {
		in->path = strdup("standard input");
		in->fd = STDIN_FILENO;
		if (!in->path)
			return err_sys(e, -ENOMEM, "cannot read standard input");
		return fstat(in->fd, &in->begun) < 0 ? err_sys(e, -errno, "cannot read %s",
							       in->path) : 0;
	}
	if (asprintf(&in->path, "%s" CLOUD_FILE, path) < 0) {
		in->path = NULL;
		return err_sys(e, -ENOMEM, "cannot read %s", path);
	}
	if (stat(in->path, &st) < 0)
		in->path[strlen(path)] = '\0';
	in->fd = open(in->path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (in->fd < 0 || fstat(in->fd, &in->begun) < 0 || fcntl(in->fd, F_SETFL, 0) < 0)
		return err_sys(e, -errno, "cannot read %s", in->path);
	return S_ISFIFO(in->begun.st_mode) ? wait_for_writer(in, e) : 0;
}

static int open_format(struct img_in *in, enum img_format format, const char *block, struct err *e)
{
	unsigned char head[MAPPED_RAM_MAGIC_BYTES] = {0};
	bool qemu = format == IMG_QEMU;

	if (in->size == IMG_SIZE_UNKNOWN && (qemu || block))
		return err_set(e, -ESPIPE, "cannot read %s: a file of QEMU's is not read in order; "
			       "name the file", in->path);
	/* Only what can be read twice is looked at for its format; a pipe is taken as it is. */
	if (in->size != IMG_SIZE_UNKNOWN && in->size >= sizeof(head)) {
		int rc = read_all(in, 0, head, sizeof(head), e);

		if (rc < 0)
			return rc;
	}
	if (format == IMG_AUTO)
		qemu = mapped_ram_magic(head);
	else if (qemu && !mapped_ram_magic(head))
		return err_set(e, -EINVAL, "cannot read %s: it does not begin as a migration of "
			       "QEMU's does; leave --format out", in->path);
	if (!qemu && block)
		return err_set(e, -EINVAL, "cannot read %s: --block is for a migration file of "
			       "QEMU's, which this is not; leave it out", in->path);
	return qemu ? open_qemu(in, block, e) : 0;
}

int img_in_open(struct img_in *in, const char *path, enum img_format format, const char *block,
		struct err *e)
{
	int rc;

	*in = (struct img_in){.fd = -1};
	rc = open_path(in, path, e);
	if (rc == 0)
		rc = look(in, e);
	if (rc == 0)
		rc = open_format(in, format, block, e);
	if (rc < 0)
		img_in_close(in);
	return rc;
}

/* ---- content ---- */

/* Asks the file system for the data at or behind offset, which is past what is known. */
static void find_data(struct img_in *in, uint64_t offset)
{
	off_t from = lseek(in->fd, (off_t)offset, SEEK_DATA), to;

	if (from < 0 && errno == ENXIO) {
		in->data_from = in->data_to = UINT64_MAX;
		return;
	}
	to = from < 0 ? -1 : lseek(in->fd, from, SEEK_HOLE);
	if (to < 0) {
		in->holes = false;
		return;
	}
	in->data_from = (uint64_t)from;
	in->data_to = (uint64_t)to;
}

bool img_in_is_zero(struct img_in *in, uint64_t offset, size_t len)
{
	if (in->bitmap)
		return !is_stored(in, offset / in->page_bytes) &&
		       run_end(in, offset, offset + len) == offset + len;
	if (in->holes && in->data_to <= offset)
		find_data(in, offset);
	return in->holes && in->data_from >= offset + len;
}

int img_in_read(const struct img_in *in, uint64_t offset, void *buf, size_t len, struct err *e)
{
	return in->bitmap ? read_pages(in, offset, buf, len, e) : read_all(in, offset, buf, len, e);
}

int64_t img_in_stream(const struct img_in *in, void *buf, size_t len, int stop_fd, struct err *e)
{
	struct pollfd fds[] = {{.fd = stop_fd, .events = POLLIN}, {.fd = in->fd, .events = POLLIN}};
	size_t got = 0;

	while (got < len) {
		ssize_t n;

		if (poll(fds, ARRAY_LEN(fds), -1) < 0 && errno != EINTR)
			return err_sys(e, -errno, "cannot read %s", in->path);
		if (fds[0].revents)
			return -ECANCELED;
		n = read(in->fd, (char *)buf + got, len - got);
		if (n == 0)
			break;
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return err_sys(e, -errno, "cannot read %s", in->path);
		got += n > 0 ? (size_t)n : 0;
	}
	return (int64_t)got;
}

int img_in_unchanged(const struct img_in *in, struct err *e)
{
	struct stat now;

	if (!S_ISREG(in->begun.st_mode) || fstat(in->fd, &now) < 0)
		return 0;
	if (now.st_size == in->begun.st_size && now.st_mtim.tv_sec == in->begun.st_mtim.tv_sec &&
	    now.st_mtim.tv_nsec == in->begun.st_mtim.tv_nsec)
		return 0;
	return err_set(e, -ESTALE, "cannot pack %s: it was written to meanwhile; leave it as it is "
		       "until it is packed", in->path);
}
