/* SPDX-License-Identifier: Apache-2.0 */
/* See demo_image.h. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "abi/small.h"
#include "base/prng.h"
#include "cli/demo_image.h"

static int make_noise(int fd, uint64_t pages, uint64_t seed, struct err *e)
{
	uint64_t page[PAGE_BYTES / sizeof(uint64_t)];
	struct prng rng;

	prng_init(&rng, seed);
	for (uint64_t i = 0; i < pages; i++) {
		for (size_t w = 0; w < ARRAY_LEN(page); w++)
			page[w] = prng_next(&rng);
		ssize_t n = write(fd, page, sizeof(page));

		if (n < 0)
			return err_sys(e, -errno, "demo image: writing page %llu",
				       (unsigned long long)i);
		if (n != (ssize_t)sizeof(page))
			return err_sys(e, -ENOSPC, "demo image: writing page %llu",
				       (unsigned long long)i);
	}
	return 0;
}

static int make_image(struct demo_image *im, uint64_t pages, uint64_t seed, struct err *e)
{
	const char *dir = getenv("TMPDIR");

	if (!dir || !*dir)
		dir = "/tmp";
	im->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (im->fd < 0)
		return err_sys(e, -errno, "demo image: a temporary file in %s (set TMPDIR)", dir);
	/* The name works for whoever opens it in this process, and leaves nothing behind. */
	snprintf(im->path, sizeof(im->path), "/proc/self/fd/%d", im->fd);
	return make_noise(im->fd, pages, seed, e);
}

static int hash_pages(struct demo_image *im, int fd, struct err *e)
{
	_Alignas(8) unsigned char page[PAGE_BYTES];

	for (uint64_t i = 0; i < im->pages; i++) {
		size_t want = (size_t)min_u64(PAGE_BYTES, im->bytes - i * PAGE_BYTES), got = 0;

		memset(page, 0, sizeof(page));
		while (got < want) {
			ssize_t n = pread(fd, page + got, want - got,
					  (off_t)(i * PAGE_BYTES + got));

			if (n < 0)
				return err_sys(e, -errno, "%s: reading page %llu", im->path,
					       (unsigned long long)i);
			if (n == 0)
				return err_set(e, -EIO, "%s: became shorter while it was read",
					       im->path);
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
		return err_sys(e, -errno, "%s", im->path);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(e, -EINVAL, "%s: neither a regular file nor a block device",
			       im->path);
	end = lseek(fd, 0, SEEK_END);
	if (end < 0)
		return err_sys(e, -errno, "%s: its size", im->path);
	if (end == 0)
		return err_set(e, -EINVAL, "%s: is empty; there is nothing to read", im->path);
	im->bytes = (uint64_t)end;
	im->pages = (im->bytes + PAGE_BYTES - 1) / PAGE_BYTES;
	if (pages > im->pages)
		return err_set(e, -EINVAL,
			       "%s: is too short: it has %llu pages, not %llu; use --pages 0",
			       im->path, (unsigned long long)im->pages, (unsigned long long)pages);
	if (pages)
		im->pages = pages;
	return 0;
}

int demo_image_open(struct demo_image *im, const char *path, uint64_t pages, uint64_t seed,
		    struct err *e)
{
	int fd, rc = 0;

	*im = (struct demo_image){.fd = -1};
	if (!path)
		rc = make_image(im, pages, seed, e);
	else if (strlen(path) >= sizeof(im->path))
		rc = err_set(e, -ENAMETOOLONG, "the image's name is longer than %zu bytes",
			     sizeof(im->path) - 1);
	else
		snprintf(im->path, sizeof(im->path), "%s", path);
	if (rc < 0)
		return rc;
	fd = open(im->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, -errno, "%s", im->path);
	rc = measure(im, fd, pages, e);
	if (rc == 0) {
		im->expect = calloc(im->pages, sizeof(*im->expect));
		rc = im->expect ? hash_pages(im, fd, e) : err_sys(e, -ENOMEM, "%s", im->path);
	}
	close(fd);
	return rc;
}

void demo_image_close(struct demo_image *im)
{
	if (im->fd >= 0)
		close(im->fd);
	free(im->expect);
}
