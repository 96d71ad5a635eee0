/* SPDX-License-Identifier: Apache-2.0 */
/* A file that was packed: its seek table and manifest, and what they tell. See image.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/size.h"
#include "base/types.h"
#include "image/image.h"
#include "source/zst_manifest.h"

void img_file_close(struct img_file *f)
{
	if (f->fd >= 0)
		close(f->fd);
	free(f->table.packed);
	free(f->table.plain);
	free(f->table.sums);
	free(f->hashes);
	*f = (struct img_file){.fd = -1};
}

static int read_all(int fd, const char *path, uint64_t offset, void *buf, size_t len,
		    struct err *e)
{
	for (size_t got = 0; got < len;) {
		ssize_t n = pread(fd, (char *)buf + got, len - got, (off_t)(offset + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, -errno, "cannot read %s", path);
		if (n == 0)
			return err_set(e, -ESTALE, "cannot read %s: it became shorter "
				       "meanwhile", path);
		got += (size_t)n;
	}
	return 0;
}

static int out_of_memory(const char *path, struct err *e)
{
	return err_sys(e, -ENOMEM, "cannot read %s: its seek table", path);
}

static int get_arrays(struct zst_table *t, const struct zst_footer *foot)
{
	size_t count = (size_t)foot->frames + 1;

	t->packed = calloc(count, sizeof(*t->packed));
	t->plain = calloc(count, sizeof(*t->plain));
	t->sums = foot->checksums ? calloc(count, sizeof(*t->sums)) : NULL;
	return t->packed && t->plain && (t->sums || !foot->checksums) ? 0 : -ENOMEM;
}

static int read_entries(struct img_file *f, const struct zst_footer *foot, struct err *e)
{
	unsigned char *at = malloc(foot->table_bytes);
	struct err why;
	int rc;

	if (!at || get_arrays(&f->table, foot) < 0) {
		free(at);
		return out_of_memory(f->path, e);
	}
	rc = read_all(f->fd, f->path, f->size - foot->table_bytes, at, foot->table_bytes, e);
	if (rc == 0 && zst_table_parse(at, foot, f->size, &f->table, &why) < 0)
		rc = err_set(e, -EBADMSG, "cannot read %s: %s", f->path, why.text);
	free(at);
	return rc;
}

static int read_table(struct img_file *f, struct err *e)
{
	unsigned char bytes[ZST_FOOTER_BYTES];
	struct zst_footer foot;
	struct err why;
	int rc;

	if (f->size < sizeof(bytes))
		return err_set(e, -EBADMSG, "cannot read %s: too short for a seek table; 'asyncpf "
			       "image pack' makes a file that has one", f->path);
	rc = read_all(f->fd, f->path, f->size - sizeof(bytes), bytes, sizeof(bytes), e);
	if (rc < 0)
		return rc;
	if (zst_footer_parse(bytes, f->size, &foot, &why) < 0)
		return err_set(e, -EBADMSG, "cannot read %s: %s", f->path, why.text);
	return read_entries(f, &foot, e);
}

static int parse_manifest(struct img_file *f, const char *path, const char *text, size_t len,
			  struct err *e)
{
	struct zst_manifest m;
	struct err why;

	if (zst_manifest_parse(text, len, &m, &why) < 0)
		return err_set(e, why.code == -EINVAL ? -EBADMSG : why.code, "cannot read %s: "
			       "%s", path,
			       why.text);
	if (zst_manifest_match(&m, &f->table, &why) < 0) {
		zst_manifest_fini(&m);
		return err_set(e, -EBADMSG, "cannot read %s: %s", f->path, why.text);
	}
	f->hashes = m.hashes;
	return 0;
}

static int read_manifest(struct img_file *f, int fd, const char *path, struct err *e)
{
	uint64_t max = ZST_MANIFEST_BYTES_MAX(f->table.frames);
	struct stat st;
	char *text;
	int rc;

	if (fstat(fd, &st) < 0)
		return err_sys(e, -errno, "cannot read %s", path);
	if (st.st_size == 0 || (uint64_t)st.st_size > max)
		return err_set(e, -EBADMSG, "cannot read %s: no manifest of %u frames has %s; "
			       "give the "
			       "one that was made with %s", path, f->table.frames,
			       SIZE_TEXT((uint64_t)st.st_size), f->path);
	text = malloc((size_t)st.st_size);
	if (!text)
		return err_sys(e, -ENOMEM, "cannot read %s", path);
	rc = read_all(fd, path, 0, text, (size_t)st.st_size, e);
	if (rc == 0)
		rc = parse_manifest(f, path, text, (size_t)st.st_size, e);
	free(text);
	return rc;
}

static int open_manifest(struct img_file *f, const char *path, struct err *e)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC), rc;

	if (fd < 0)
		return err_sys(e, -errno, "cannot read %s", path);
	rc = read_manifest(f, fd, path, e);
	close(fd);
	return rc;
}

static int open_image(struct img_file *f, struct err *e)
{
	struct stat st;
	off_t size;

	/* O_NONBLOCK: a FIFO must fail below, not wait for its writer. */
	f->fd = open(f->path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (f->fd < 0 || fstat(f->fd, &st) < 0)
		return err_sys(e, -errno, "cannot read %s", f->path);
	size = lseek(f->fd, 0, SEEK_END);
	if (size < 0 || S_ISDIR(st.st_mode))
		return err_set(e, -ESPIPE, "cannot read %s: its end is read first, and it has "
			       "none; "
			       "name a file", f->path);
	f->size = (uint64_t)size;
	f->mode = st.st_mode & 0666;
	return read_table(f, e);
}

int img_file_open(struct img_file *f, const char *path, const char *manifest, struct err *e)
{
	int rc;

	*f = (struct img_file){.fd = -1, .path = path};
	rc = open_image(f, e);
	if (rc == 0 && manifest)
		rc = open_manifest(f, manifest, e);
	if (rc < 0)
		img_file_close(f);
	return rc;
}

/* ---- info ---- */

/* A frame that holds zeroes alone is not longer. */
static bool may_be_zero(uint64_t packed, uint64_t plain)
{
	return packed <= 64 + plain / 256;
}

static uint32_t count_zero(const struct zst_table *t, const void *zeroes)
{
	uint32_t count = 0, sum = 0;
	uint64_t sum_of = 0; /* how many zeroes */

	for (uint32_t i = 0; i < t->frames; i++) {
		uint64_t plain = t->plain[i + 1] - t->plain[i];

		if (plain == 0 || !may_be_zero(t->packed[i + 1] - t->packed[i], plain))
			continue;
		if (plain != sum_of)
			sum = (uint32_t)XXH64(zeroes, plain, 0);
		sum_of = plain;
		count += t->sums[i] == sum;
	}
	return count;
}

int img_info(const struct img_file *f, struct img_info *ret, struct err *e)
{
	const struct zst_table *t = &f->table;
	void *zeroes;

	*ret = (struct img_info){
		.bytes = t->plain[t->frames],
		.packed_bytes = f->size,
		.frames = t->frames,
		.checksums = t->sums,
		.zero_frames = IMG_COUNT_UNKNOWN,
	};
	for (uint32_t i = 0; i < t->frames; i++)
		ret->largest = (uint32_t)max_u64(ret->largest, t->plain[i + 1] - t->plain[i]);
	if (!t->sums)
		return 0;
	zeroes = calloc(1, ret->largest);
	if (!zeroes)
		return err_sys(e, -ENOMEM, "cannot read %s", f->path);
	ret->zero_frames = count_zero(t, zeroes);
	free(zeroes);
	return 0;
}
