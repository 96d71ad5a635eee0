/* SPDX-License-Identifier: Apache-2.0 */
/* See demo_image.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "abi/small.h"
#include "base/fd.h"
#include "base/prng.h"
#include "cli/demo/demo.h"
#include "cli/demo/demo_image.h"

/* A path in a message must leave room for the reason: of a long one the end is shown. */
#define SHOWN_MAX 120
#define SHOWN_FMT "%s%s"
#define SHOWN(path)                                 \
	strlen(path) > SHOWN_MAX ? "..." : "",      \
	strlen(path) > SHOWN_MAX ? (path) + strlen(path) - SHOWN_MAX : (path)

/* Then it is not the path's fault, and the caller knows better what to do. */
static bool out_of_files(void)
{
	return errno == EMFILE || errno == ENFILE;
}

/* An image may have gigabytes: whoever wants it stopped is heard every few megabytes. */
#define PAGES_PER_LOOK 1024

static int stop_wanted(int stop_fd, uint64_t page, struct err *e)
{
	struct pollfd stop = {.fd = stop_fd, .events = POLLIN}; /* -1 is ignored */

	if (page % PAGES_PER_LOOK || poll(&stop, 1, 0) <= 0)
		return 0;
	return err_set(e, -EINTR, "stopped: the memory image: by a signal, before it was ready");
}

static int make_noise(int fd, const char *dir, uint64_t pages, uint64_t seed, int stop_fd,
		      struct err *e)
{
	uint64_t page[PAGE_BYTES / sizeof(uint64_t)];
	struct prng rng;

	prng_init(&rng, seed);
	for (uint64_t i = 0; i < pages; i++) {
		int rc = stop_wanted(stop_fd, i, e);

		if (rc < 0)
			return rc;
		for (size_t w = 0; w < ARRAY_LEN(page); w++)
			page[w] = prng_next(&rng);
		rc = fd_write(fd, page, sizeof(page));
		if (rc < 0)
			return err_set(e, rc, "cannot write the demo's image: page %llu in "
				       SHOWN_FMT ": %s%s", (unsigned long long)i, SHOWN(dir),
				       strerror(-rc),
				       rc == -EFBIG ? "" : "; free space there, set TMPDIR, or "
							   "use fewer --pages");
	}
	return 0;
}

/* O_TMPFILE, or the same in two steps where the file system cannot do it. */
static int open_unnamed(const char *dir)
{
	char name[4096];
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
		return fd;
	if (snprintf(name, sizeof(name), "%s/asyncpf-XXXXXX", dir) >= (int)sizeof(name)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	fd = mkostemp(name, O_CLOEXEC);
	if (fd >= 0)
		(void)unlink(name);
	return fd;
}

static int make_image(struct demo_image *im, uint64_t pages, uint64_t seed, int stop_fd,
		      struct err *e)
{
	const char *dir = getenv("TMPDIR");

	if (!dir || !*dir)
		dir = "/tmp";
	im->fd = open_unnamed(dir);
	if (im->fd < 0)
		return err_set(e, -errno, "cannot make the demo's image: " SHOWN_FMT ": %m%s",
			       SHOWN(dir), out_of_files() ? ""
			       : "; set TMPDIR to a folder that takes files");
	/* The name works for whoever opens it in this process, and leaves nothing behind. */
	snprintf(im->path, sizeof(im->path), "/proc/self/fd/%d", im->fd);
	return make_noise(im->fd, dir, pages == DEMO_PAGES_DEFAULT ? DEMO_PAGES : pages, seed,
			  stop_fd, e);
}

static int hash_pages(struct demo_image *im, int fd, int stop_fd, struct err *e)
{
	_Alignas(8) unsigned char page[PAGE_BYTES];

	for (uint64_t i = 0; i < im->pages; i++) {
		size_t want = (size_t)min_u64(PAGE_BYTES, im->bytes - i * PAGE_BYTES), got = 0;

		if (stop_wanted(stop_fd, i, e) < 0)
			return -EINTR;
		memset(page, 0, sizeof(page));
		while (got < want) {
			ssize_t n = pread(fd, page + got, want - got,
					  (off_t)(i * PAGE_BYTES + got));

			if (n < 0)
				return err_set(e, -errno, "cannot read image: " SHOWN_FMT
					       ": page %llu: %m; check the disk it is on",
					       SHOWN(im->path), (unsigned long long)i);
			if (n == 0)
				return err_set(e, -EIO, "cannot read image: " SHOWN_FMT
					       ": it became shorter meanwhile; use a file that "
					       "nobody writes to", SHOWN(im->path));
			got += (size_t)n;
		}
		im->expect[i] = small_page_hash(page);
	}
	return 0;
}

static int measure(struct demo_image *im, int fd, uint64_t pages, struct err *e)
{
	struct stat st;
	off_t end;

	if (fstat(fd, &st) < 0)
		return err_set(e, -errno, "cannot use image: " SHOWN_FMT ": fstat: %m; give "
			       "--image another file", SHOWN(im->path));
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(e, -EINVAL, "cannot use image: " SHOWN_FMT ": %s; give --image a "
			       "regular file or a block device", SHOWN(im->path),
			       S_ISDIR(st.st_mode) ? "it is a directory"
						   : "it is neither a file nor a block device");
	end = lseek(fd, 0, SEEK_END);
	if (end < 0)
		return err_set(e, -errno, "cannot use image: " SHOWN_FMT ": its size: %m; give "
			       "--image another file", SHOWN(im->path));
	if (end == 0)
		return err_set(e, -EINVAL, "cannot use image: " SHOWN_FMT ": it is empty; give "
			       "--image a file with something to read", SHOWN(im->path));
	im->bytes = (uint64_t)end;
	im->pages = (im->bytes + PAGE_BYTES - 1) / PAGE_BYTES;
	if (pages == DEMO_PAGES_DEFAULT)
		pages = min_u64(DEMO_PAGES, im->pages);
	if (pages > im->pages)
		return err_set(e, -EINVAL, "cannot use image: " SHOWN_FMT ": it has %llu pages, "
			       "not the %llu of --pages; use --pages 0 for all that it has",
			       SHOWN(im->path), (unsigned long long)im->pages,
			       (unsigned long long)pages);
	if (pages)
		im->pages = pages;
	return 0;
}

int demo_image_open(struct demo_image *im, const char *path, uint64_t pages, uint64_t seed,
		    int stop_fd, struct err *e)
{
	int fd, rc = 0;

	*im = (struct demo_image){.fd = -1};
	if (!path)
		rc = make_image(im, pages, seed, stop_fd, e);
	else if (strlen(path) >= sizeof(im->path))
		rc = err_set(e, -ENAMETOOLONG, "cannot open image: " SHOWN_FMT ": a name of more "
			     "than %zu bytes; use a shorter path", SHOWN(path),
			     sizeof(im->path) - 1);
	else
		snprintf(im->path, sizeof(im->path), "%s", path);
	if (rc < 0)
		return rc;
	/* O_NONBLOCK: opening a FIFO must fail in measure(), not wait for its writer. */
	fd = open(im->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return err_set(e, -errno, "cannot open image: " SHOWN_FMT ": %m%s",
			       SHOWN(im->path), out_of_files() ? ""
			       : "; give --image a file that exists and may be read");
	rc = measure(im, fd, pages, e);
	if (rc == 0) {
		im->expect = calloc(im->pages, sizeof(*im->expect));
		rc = im->expect ? hash_pages(im, fd, stop_fd, e)
				: err_set(e, -ENOMEM, "cannot use image: " SHOWN_FMT ": no memory "
					  "for the hashes of %llu pages; use fewer --pages",
					  SHOWN(im->path), (unsigned long long)im->pages);
	}
	close(fd);
	return rc;
}

int demo_image_cool(const struct demo_image *im, struct err *e)
{
	int fd = open(im->path, O_RDONLY | O_CLOEXEC), rc = 0;

	/* What is dirty stays. */
	if (fd < 0 || fdatasync(fd) < 0)
		rc = -errno;
	else
		rc = -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	if (fd >= 0)
		(void)close(fd);
	return rc < 0 ? err_set(e, rc, "cannot take the image out of the page cache: " SHOWN_FMT
				": %s; leave out --cold", SHOWN(im->path), strerror(-rc))
		      : 0;
}

void demo_image_close(struct demo_image *im)
{
	if (im->fd >= 0)
		close(im->fd);
	free(im->expect);
}
