/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache that VMs and processes share, on real files, the real queue and real workers: what it
 * gives is right, whatever becomes of its file: several processes that fill it, SIGKILL meanwhile,
 * a full disk, a folder for reading only, a file that is cut short or damaged at any place.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "cache_fixture.h"

#define CHUNKS 50u
#define IMAGE_BYTES (CHUNKS * CACHE_CHUNK_BYTES + 1234u)
/* A page in each chunk. */
#define FILE_MIN (16ull << 20)

/* more: keys, with their '&'. */
static int try_open(struct bed *b, const char *wrappers, const char *more, struct err *e)
{
	rig_open(&b->rig);
	snprintf(b->uri, sizeof(b->uri), "cache+%sfile:%s?cache-dir=%s/c&cache-size=16M%s%s",
		 wrappers, b->image, b->folder,
		 strstr(more, "cache-manifest") ? "" : "&cache-key=1", more);
	return src_open(b->uri, &b->rig.env, &b->rig.src, e);
}

static void open_cache(struct bed *b, const char *wrappers, const char *more)
{
	struct err e = {0};

	if (try_open(b, wrappers, more, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(b->rig.src->size, IMAGE_BYTES);
}

static void read_all(struct bed *b, size_t step)
{
	for (uint64_t at = 0; at < IMAGE_BYTES; at += step)
		bed_expect(b, at, min_u64(step, IMAGE_BYTES - at));
}

static void fill(struct bed *b)
{
	open_cache(b, "", "");
	bed_read_and_settle(b);
	assert_int_equal(b->rig.counts.cache_filled_bytes, IMAGE_BYTES);
	rig_close(&b->rig);
}

static void random_reads(struct bed *b, uint64_t seed, unsigned count)
{
	struct prng p;

	prng_init(&p, seed);
	while (count--) {
		uint64_t at = prng_below(&p, IMAGE_BYTES);
		uint64_t max = min_u64(IMAGE_BYTES - at, count % 8 ? 10000 : BED_PIECE_MAX);

		bed_expect(b, at, 1 + prng_below(&p, max));
	}
}

/* ---- what it is for ---- */

static void what_was_read_is_not_asked_again(void **state)
{
	static const size_t steps[] = {4096, 65536, BED_PIECE_MAX, 5000, 100000};
	struct bed *b = bed_init(IMAGE_BYTES);

	(void)state;
	fill(b);
	for (unsigned i = 0; i < ARRAY_LEN(steps); i++) {
		open_cache(b, "fault+", "&fault-error-after=0");
		read_all(b, steps[i]);
		random_reads(b, i, 50);
		assert_int_equal(b->rig.counts.cache_misses, 0);
		assert_true(b->rig.counts.cache_hits > 0);
		assert_int_equal(b->rig.counts.cache_mismatches, 0);
		rig_close(&b->rig);
	}
	bed_fini(b);
}

static void any_read_fills_it(void **state)
{
	struct bed *b = bed_init(IMAGE_BYTES);

	(void)state;
	open_cache(b, "", "&cache-memory=1M");
	random_reads(b, 5, 300);
	assert_true(b->rig.counts.cache_hits > 0);
	read_all(b, 7777);
	rig_close(&b->rig);
	bed_fini(b);
}

/* Of two keys each has its own content. */
static void another_key_is_another_image(void **state)
{
	struct bed *b = bed_init(IMAGE_BYTES);
	struct err e;

	(void)state;
	fill(b);
	snprintf(b->uri, sizeof(b->uri), "cache+fault+file:%s?cache-dir=%s/c&cache-key=2"
		 "&fault-error-after=0", b->image, b->folder);
	rig_open(&b->rig);
	assert_int_equal(src_open(b->uri, &b->rig.env, &b->rig.src, NULL), 0);
	assert_int_equal(rig_read(&b->rig, 0, b->got, 4096, &e), -EIO);
	rig_close(&b->rig);
	bed_fini(b);
}

/* Relative names of one file are one image; the same name in another folder is another one. */
static void a_relative_name_is_of_its_folder(void **state)
{
	struct bed *b = bed_init(IMAGE_BYTES), *other = bed_init(IMAGE_BYTES);
	static const char *const names[] = {"image", "./image"};
	int home = open(".", O_DIRECTORY | O_PATH | O_CLOEXEC);
	char byte = (char)(other->content[5000] ^ 1);
	int fd = open(other->image, O_WRONLY | O_CLOEXEC);

	(void)state;
	assert_true(home >= 0);
	assert_int_equal(pwrite(fd, &byte, 1, 5000), 1);
	close(fd);
	other->content[5000] = (unsigned char)byte;
	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		for (unsigned k = 0; k < 2; k++) {
			struct bed *in = k ? other : b;

			assert_int_equal(chdir(in->folder), 0);
			snprintf(in->uri, sizeof(in->uri), "cache+file:%s?cache-dir=%s/c&"
				 "cache-size=16M&cache-key=1", names[i], b->folder);
			rig_open(&in->rig);
			assert_int_equal(src_open(in->uri, &in->rig.env, &in->rig.src, NULL), 0);
			bed_expect(in, 0, CACHE_CHUNK_BYTES);
			assert_int_equal(in->rig.counts.cache_misses, i == 0);
			if (i == 0)
				rig_settle(&in->rig, CACHE_CHUNK_BYTES);
			rig_close(&in->rig);
		}
	assert_int_equal(fchdir(home), 0);
	close(home);
	bed_fini(other);
	bed_fini(b);
}

/* What was used last stays, also when others used it: 16 MiB hold 5 images of 3 MiB, not 8. */
static void what_is_used_stays(void **state)
{
	struct bed *b = bed_init(IMAGE_BYTES);
	uint64_t evictions = 0;

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		rig_open(&b->rig);
		snprintf(b->uri, sizeof(b->uri), "cache+file:%s?cache-dir=%s/c&cache-size=16M"
			 "&cache-key=%u", b->image, b->folder, i);
		assert_int_equal(src_open(b->uri, &b->rig.env, &b->rig.src, NULL), 0);
		bed_read_and_settle(b);
		evictions += b->rig.counts.cache_evictions;
		rig_close(&b->rig);
	}
	assert_true(evictions > 0);
	/* The newest is all there. */
	rig_open(&b->rig);
	assert_int_equal(src_open(b->uri, &b->rig.env, &b->rig.src, NULL), 0);
	read_all(b, CACHE_CHUNK_BYTES);
	assert_true(b->rig.counts.cache_misses <= CHUNKS / 4);
	rig_close(&b->rig);
	bed_fini(b);
}

static void many_at_once_and_some_cancelled(void **state)
{
	struct bed *b = bed_init(IMAGE_BYTES);
	struct rig_read reads[RIG_READS] = {0};
	static unsigned char room[RIG_READS][100000];
	struct prng p;

	(void)state;
	prng_init(&p, 9);
	for (unsigned round = 0; round < 30; round++) {
		open_cache(b, round % 3 ? "delay+" : "", round % 3 ? "&us=200&jitter-us=300" :
								     "&cache-memory=1M");
		for (unsigned i = 0; i < RIG_READS; i++) {
			uint64_t at = prng_below(&p, IMAGE_BYTES - sizeof(room[0]));

			if (i % 2)
				at &= ~4095ull;
			rig_begin(&b->rig, &reads[i], at, room[i],
				  i % 4 ? 4096 : 1 + prng_below(&p, sizeof(room[0])));
			if (prng_below(&p, 8) == 0)
				rig_turn(&b->rig);
			if (prng_below(&p, 3) == 0 && !reads[i].over)
				b->rig.src->ops->cancel(b->rig.src, &reads[i].rd);
		}
		for (unsigned i = 0; i < RIG_READS; i++) {
			rig_wait(&b->rig, &reads[i]);
			assert_true(reads[i].why.code == 0 || reads[i].why.code == -ECANCELED);
			if (reads[i].why.code == 0)
				assert_memory_equal(room[i], b->content + reads[i].rd.offset,
						    reads[i].rd.len);
		}
		rig_close(&b->rig);
	}
	bed_fini(b);
}

/* ---- several processes, and their end ---- */

/* In a child: reads until it is told to stop, if ever; never returns. */
static void child(struct bed *b, uint64_t seed, unsigned rounds, int tell_fd)
{
	static const char *const more[] = {"", "&cache-memory=1M"};

	if (try_open(b, "", more[seed % 2], NULL) < 0)
		_exit(3);
	for (unsigned r = 0; rounds == 0 || r < rounds; r++) {
		struct prng p;

		prng_init(&p, seed * 1000 + r);
		for (unsigned i = 0; i < 100; i++) {
			uint64_t at = prng_below(&p, IMAGE_BYTES - 70000);
			size_t len = 1 + prng_below(&p, 70000);

			if (rig_read(&b->rig, at, b->got, len, NULL) < 0)
				_exit(4);
			if (memcmp(b->got, b->content + at, len) != 0)
				_exit(5);
			if (tell_fd >= 0 && write(tell_fd, "", 1) != 1)
				_exit(6);
		}
		/* A new opening knows nothing, and fills what is not there. */
		rig_close(&b->rig);
		if (rounds == 0)
			(void)unlink(b->file);
		if (try_open(b, "", more[(seed + r) % 2], NULL) < 0)
			_exit(7);
	}
	rig_close(&b->rig);
	_exit(0);
}

static void two_processes_fill_one_cache(void **state)
{
	struct bed *b = bed_init(IMAGE_BYTES);
	pid_t pids[3];
	int status;

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(pids); i++) {
		pids[i] = fork();
		assert_true(pids[i] >= 0);
		if (pids[i] == 0)
			child(b, i + 1, 3, -1);
	}
	for (unsigned i = 0; i < ARRAY_LEN(pids); i++) {
		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
	}
	open_cache(b, "", "");
	read_all(b, 4096);
	rig_close(&b->rig);
	bed_fini(b);
}

static void killed_while_it_is_written(void **state)
{
	struct bed *b = bed_init(IMAGE_BYTES);
	struct prng p;

	(void)state;
	prng_init(&p, 11);
	for (unsigned i = 0; i < 20; i++) {
		char byte[256];
		int fds[2], status;
		pid_t pid;

		assert_int_equal(pipe(fds), 0);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0)
			child(b, i, 0, fds[1]);
		close(fds[1]);
		/* After so many reads, wherever it then is. */
		for (uint64_t n = 1 + prng_below(&p, 150); n-- > 0;)
			assert_int_equal(read(fds[0], byte, 1), 1);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		close(fds[0]);
		open_cache(b, "", "");
		read_all(b, CACHE_CHUNK_BYTES);
		read_all(b, 4096);
		rig_close(&b->rig);
	}
	bed_fini(b);
}

/* ---- damage ---- */

/* Of every page of the file one byte at random; with a pause for what is left of it as well. */
static void damage(struct bed *b, uint64_t seed, uint64_t step)
{
	int fd = open(b->file, O_RDWR | O_CLOEXEC);
	struct stat st;
	struct prng p;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	prng_init(&p, seed);
	for (uint64_t at = CACHE_HEAD_BYTES; at < (uint64_t)st.st_size; at += step) {
		off_t where = (off_t)(at + prng_below(&p, min_u64(step, st.st_size - at)));
		unsigned char byte;

		assert_int_equal(pread(fd, &byte, 1, where), 1);
		byte ^= 1 + (unsigned char)prng_below(&p, 255);
		assert_int_equal(pwrite(fd, &byte, 1, where), 1);
	}
	close(fd);
}

static void damage_is_noticed_and_mended(void **state)
{
	static const uint64_t steps[] = {4096, 300, 65536};
	struct bed *b = bed_init(IMAGE_BYTES);

	(void)state;
	fill(b);
	for (unsigned i = 0; i < ARRAY_LEN(steps); i++) {
		damage(b, i, steps[i]);
		open_cache(b, "", "");
		read_all(b, i == 2 ? 5000 : CACHE_CHUNK_BYTES);
		assert_true(b->rig.counts.cache_misses > 0);
		if (i == 2)
			assert_true(b->rig.counts.cache_mismatches > 0);
		read_all(b, 4096);
		rig_close(&b->rig);
	}
	/* While it is open, too. */
	open_cache(b, "", "");
	read_all(b, 4096);
	damage(b, 7, 10000);
	read_all(b, 4096);
	random_reads(b, 8, 50);
	rig_close(&b->rig);
	bed_fini(b);
}

static void cut_short_at_any_place(void **state)
{
	struct bed *b = bed_init(IMAGE_BYTES);
	struct prng p;
	struct stat st;

	(void)state;
	fill(b);
	prng_init(&p, 13);
	for (unsigned i = 0; i < 25; i++) {
		open_cache(b, "", "");
		assert_int_equal(stat(b->file, &st), 0);
		if (i % 2)
			read_all(b, 10000);
		assert_int_equal(truncate(b->file, i == 0 ? 0 : i == 1 ? 100 : (off_t)prng_below(
			&p, i % 3 ? 3 * CACHE_CHUNK_BYTES : (uint64_t)st.st_size)), 0);
		read_all(b, i % 3 ? 4096 : CACHE_CHUNK_BYTES);
		rig_close(&b->rig);
		open_cache(b, "", "");
		read_all(b, CACHE_CHUNK_BYTES);
		rig_close(&b->rig);
	}
	bed_fini(b);
}

static void flip(const char *path, off_t at)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	unsigned char byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

/* The text has two different hashes, and a name. */
static void names_both_hashes(const struct bed *b, const char *text, const char *who)
{
	unsigned runs = 0;
	size_t n;

	print_message("%s\n", text);
	for (const char *at = text; *at; at += n ? n : 1) {
		n = strspn(at, "0123456789abcdef");
		runs += n == ZST_HASH_CHARS;
	}
	assert_int_equal(runs, 2);
	assert_non_null(strstr(text, strrchr(b->image, '/')));
	assert_non_null(strstr(text, who));
}

/* The cache's copy is broken, and the origin has something else by now. */
static void an_origin_that_has_changed(void **state)
{
	struct cache_layout l = cache_layout_for(FILE_MIN);
	struct bed *b = bed_init(IMAGE_BYTES);
	struct err e;

	(void)state;
	fill(b);
	open_cache(b, "", "");
	for (unsigned way = 0; way < CACHE_WAYS; way++)
		for (uint64_t bucket = 0; bucket < l.buckets; bucket++) {
			off_t at = (off_t)cache_slot_at(&l, bucket, way) + 8192;
			unsigned char byte = 0x55;
			int fd = open(b->file, O_RDWR | O_CLOEXEC);

			assert_int_equal(pwrite(fd, &byte, 1, at), 1);
			close(fd);
		}
	flip(b->image, 2 * CACHE_CHUNK_BYTES + 8193);
	bed_expect(b, 0, 4096);
	/* Again and again: what is known stays known. */
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(rig_read(&b->rig, 2 * CACHE_CHUNK_BYTES + 8192, b->got, 4096, &e),
				 -EBADMSG);
		names_both_hashes(b, e.text, "byte 139264: ");
	}
	flip(b->image, 2 * CACHE_CHUNK_BYTES + 8193);
	bed_expect(b, 2 * CACHE_CHUNK_BYTES, CACHE_CHUNK_BYTES);
	rig_close(&b->rig);
	bed_fini(b);
}

static void write_manifest(const struct bed *b, const char *path, uint32_t frame_bytes)
{
	struct zst_hasher *h = zst_hasher_open();
	unsigned char hash[ZST_HASH_BYTES];
	char text[ZST_HASH_CHARS + 1];
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_non_null(h);
	fprintf(f, "{\"manifest\": \"asyncpf-image\", \"version\": 1, \"hash\": \"sha256\", "
		"\"size\": %u, \"frame_bytes\": %u, \"frames\": [", IMAGE_BYTES, frame_bytes);
	for (uint64_t at = 0; at < IMAGE_BYTES; at += frame_bytes) {
		size_t len = min_u64(frame_bytes, IMAGE_BYTES - at);

		assert_int_equal(zst_hash(h, b->content + at, len, hash, NULL), 0);
		zst_hash_text(hash, text);
		fprintf(f, "%s\"%s\"", at ? "," : "", text);
	}
	fprintf(f, "]}");
	fclose(f);
	zst_hasher_close(h);
}

static void an_origin_with_a_manifest(void **state)
{
	struct bed *b = bed_init(IMAGE_BYTES);
	char path[100], more[140];
	struct err e;

	(void)state;
	snprintf(path, sizeof(path), "%s/manifest", b->folder);
	snprintf(more, sizeof(more), "&cache-manifest=%s", path);
	for (uint32_t bytes = 4096; bytes <= CACHE_CHUNK_BYTES; bytes *= 4) {
		write_manifest(b, path, bytes);
		open_cache(b, "", more);
		flip(b->image, 70000);
		bed_expect(b, 0, 65536);
		assert_int_equal(rig_read(&b->rig, 65536, b->got, 4096, &e), -EBADMSG);
		names_both_hashes(b, e.text, "the manifest's ");
		flip(b->image, 70000);
		read_all(b, 65536);
		rig_close(&b->rig);
	}
	write_manifest(b, path, 2 * CACHE_CHUNK_BYTES);
	assert_int_equal(try_open(b, "", more, &e), -ENOTSUP);
	assert_non_null(strstr(e.text, "131072 bytes"));
	rig_close(&b->rig);
	bed_fini(b);
}

/* Whoever may write to the file: a page of the chunk is another one, and its entry says so. */
static void forge(const struct bed *b, uint64_t chunk, uint64_t page)
{
	struct cache_layout l = cache_layout_for(FILE_MIN);
	unsigned char packed[CACHE_ENTRY_BYTES], bytes[PAGE_BYTES];
	struct zst_hasher *h = zst_hasher_open();
	int fd = open(b->file, O_RDWR | O_CLOEXEC);
	struct cache_entry entry = {.len = 0};
	unsigned forged = 0;

	assert_non_null(h);
	assert_true(fd >= 0);
	for (uint64_t i = 0; i < l.buckets * CACHE_WAYS; i++) {
		uint64_t bucket = i / CACHE_WAYS;
		unsigned way = (unsigned)(i % CACHE_WAYS);
		off_t at = (off_t)cache_entry_at(&l, bucket, way);
		off_t slot = (off_t)(cache_slot_at(&l, bucket, way) + page * PAGE_BYTES);

		assert_int_equal(pread(fd, packed, sizeof(packed), at), sizeof(packed));
		if (!cache_entry_read(h, packed, &entry) || entry.chunk != chunk)
			continue;
		assert_int_equal(pread(fd, bytes, sizeof(bytes), slot), sizeof(bytes));
		bytes[17] ^= 0x10;
		assert_int_equal(pwrite(fd, bytes, sizeof(bytes), slot), sizeof(bytes));
		assert_int_equal(zst_hash(h, bytes, sizeof(bytes), entry.hash[page], NULL), 0);
		assert_int_equal(cache_entry_write(h, &entry, packed), 0);
		assert_int_equal(pwrite(fd, packed, sizeof(packed), at), sizeof(packed));
		forged++;
	}
	assert_int_equal(forged, 1);
	close(fd);
	zst_hasher_close(h);
}

/* What the manifest does not have comes from the origin, whatever the cache says of it. */
static void a_forged_cache_with_a_manifest(void **state)
{
	static const struct {
		uint32_t piece, at, len;
	} runs[] = {
		{65536, 8192, 4096}, {65536, 8200, 100}, {65536, 0, 65536},
		{4096, 8192, 4096}, {4096, 8200, 100}, {4096, 0, 65536},
	};
	const struct src_counts *c;
	struct bed *b = bed_init(IMAGE_BYTES);
	char path[100], more[140];

	(void)state;
	c = &b->rig.counts;
	snprintf(path, sizeof(path), "%s/manifest", b->folder);
	snprintf(more, sizeof(more), "&cache-manifest=%s", path);
	for (unsigned i = 0; i < ARRAY_LEN(runs); i++) {
		uint64_t from = 3 * CACHE_CHUNK_BYTES;

		(void)unlink(b->file);
		write_manifest(b, path, runs[i].piece);
		open_cache(b, "", more);
		bed_read_and_settle(b);
		rig_close(&b->rig);
		forge(b, 3, 2);
		open_cache(b, "", more);
		bed_expect(b, from + runs[i].at, runs[i].len);
		assert_int_equal(c->cache_mismatches, 1);
		assert_int_equal(c->cache_misses, 1);
		/* What was proven once is forged while it is open. */
		rig_settle(&b->rig, CACHE_CHUNK_BYTES);
		bed_expect(b, from + runs[i].at, runs[i].len);
		forge(b, 3, 2);
		bed_expect(b, from + runs[i].at, runs[i].len);
		assert_int_equal(c->cache_mismatches, 2);
		/* The others are hits, first by the manifest and then by what it has proven. */
		for (unsigned k = 0; k < 2; k++)
			bed_expect(b, 5 * CACHE_CHUNK_BYTES, 4096);
		assert_int_equal(c->cache_misses, 2);
		rig_close(&b->rig);
	}
	bed_fini(b);
}

/* ---- where nothing can be written ---- */

/* Runs it as somebody who may not write, if need be; false: that cannot be arranged. */
static int as_nobody(struct bed *b, void (*what)(struct bed *))
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0)
			_exit(77);
		what(b);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void read_only_reads(struct bed *b)
{
	/* asserts of cmocka in a child would run the other tests there. */
	if (try_open(b, "fault+", "&fault-error-after=0", NULL) < 0)
		_exit(1);
	for (uint64_t at = 0; at + 4096 < IMAGE_BYTES; at += 4096)
		if (rig_read(&b->rig, at, b->got, 4096, NULL) < 0 ||
		    memcmp(b->got, b->content + at, 4096) != 0)
			_exit(2);
	rig_close(&b->rig);
	/* And what it has not comes from the origin. */
	snprintf(b->uri, sizeof(b->uri), "cache+file:%s?cache-dir=%s/c&cache-key=9", b->image,
		 b->folder);
	rig_open(&b->rig);
	if (src_open(b->uri, &b->rig.env, &b->rig.src, NULL) < 0 ||
	    rig_read(&b->rig, 70000, b->got, 4096, NULL) < 0 ||
	    memcmp(b->got, b->content + 70000, 4096) != 0 || b->rig.counts.cache_write_errors ||
	    b->rig.counts.cache_filled_bytes)
		_exit(3);
	rig_close(&b->rig);
}

static void read_only_refused(struct bed *b)
{
	struct err e = {0};

	if (try_open(b, "", "", &e) != -EACCES || !strstr(e.text, b->file))
		_exit(1);
	src_close(b->rig.src);
}

static void a_folder_for_reading_only(void **state)
{
	struct bed *b = bed_init(IMAGE_BYTES);
	char folder[80];
	int status;

	(void)state;
	fill(b);
	snprintf(folder, sizeof(folder), "%s/c", b->folder);
	assert_int_equal(chmod(b->folder, 0555), 0);
	assert_int_equal(chmod(folder, 0555), 0);
	assert_int_equal(chmod(b->file, 0444), 0);
	status = as_nobody(b, read_only_reads);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	/* Without a cache in it there is nothing to read. */
	assert_int_equal(chmod(folder, 0755), 0);
	assert_int_equal(unlink(b->file), 0);
	assert_int_equal(chmod(folder, 0555), 0);
	status = as_nobody(b, read_only_refused);
	assert_int_equal(status, 0);
	assert_int_equal(chmod(b->folder, 0755), 0);
	assert_int_equal(chmod(folder, 0755), 0);
	bed_fini(b);
}

/* A tmpfs that is full at 1 MiB, in a name space of the child's. */
static void a_full_disk(void **state)
{
	struct bed *b = bed_init(IMAGE_BYTES);
	char folder[80];
	pid_t pid;
	int status;

	(void)state;
	snprintf(folder, sizeof(folder), "%s/c", b->folder);
	assert_int_equal(mkdir(folder, 0755), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (unshare(CLONE_NEWNS | (geteuid() == 0 ? 0 : CLONE_NEWUSER)) != 0 ||
		    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
		    mount("none", folder, "tmpfs", 0, "size=1M") != 0)
			_exit(77);
		if (try_open(b, "", "", NULL) < 0)
			_exit(1);
		for (unsigned round = 0; round < 2; round++)
			for (uint64_t at = 0; at < IMAGE_BYTES - 65536; at += 65536)
				if (rig_read(&b->rig, at, b->got, 65536, NULL) < 0 ||
				    memcmp(b->got, b->content + at, 65536) != 0)
					_exit(2);
		rig_settle(&b->rig, UINT64_MAX);
		/* Once, and then not for a while. */
		if (b->rig.counts.cache_write_errors == 0 ||
		    b->rig.counts.cache_write_errors > CHUNKS || !b->rig.counts.cache_hits ||
		    b->rig.counts.cache_mismatches > CHUNKS)
			_exit(3);
		rig_close(&b->rig);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		print_message("skipped: no mount here\n");
	else
		assert_int_equal(WEXITSTATUS(status), 0);
	bed_fini(b);
}

/* ---- what is refused ---- */

static void refusals(void **state)
{
	static const struct {
		const char *format, *says;
	} cases[] = {
		{"cache+file:%s?cache-key=1", "cache needs cache-dir="},
		{"cache+file:%s?cache-dir=/nowhere/at/all&cache-key=1", "make /nowhere/at/all/"},
		{"cache+file:%s?cache-dir=/var/tmp", "nothing says which version of it this is"},
		{"cache+file:%s?cache-dir=/var/tmp&cache-size=1M", "not from 16M to 64T"},
		{"cache+file:%s?cache-dir=/var/tmp&cache-memory=1K", "not from 1M to 1T"},
	};
	struct bed *b = bed_init(IMAGE_BYTES);
	struct err e;

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(b->uri, sizeof(b->uri), cases[i].format, b->image);
#pragma GCC diagnostic pop
		rig_open(&b->rig);
		assert_true(src_open(b->uri, &b->rig.env, &b->rig.src, &e) < 0);
		if (!strstr(e.text, cases[i].says))
			fail_msg("'%s' has no '%s'", e.text, cases[i].says);
		rig_close(&b->rig);
	}
	fill(b);
	rig_open(&b->rig);
	snprintf(b->uri, sizeof(b->uri), "cache+file:%s?cache-dir=%s/c&cache-key=1&cache-size=32M",
		 b->image, b->folder);
	assert_int_equal(src_open(b->uri, &b->rig.env, &b->rig.src, &e), -EEXIST);
	assert_non_null(strstr(e.text, "was made for another size"));
	rig_close(&b->rig);
	bed_fini(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_read_is_not_asked_again),
		cmocka_unit_test(any_read_fills_it),
		cmocka_unit_test(another_key_is_another_image),
		cmocka_unit_test(a_relative_name_is_of_its_folder),
		cmocka_unit_test(what_is_used_stays),
		cmocka_unit_test(many_at_once_and_some_cancelled),
		cmocka_unit_test(two_processes_fill_one_cache),
		cmocka_unit_test(killed_while_it_is_written),
		cmocka_unit_test(damage_is_noticed_and_mended),
		cmocka_unit_test(cut_short_at_any_place),
		cmocka_unit_test(an_origin_that_has_changed),
		cmocka_unit_test(an_origin_with_a_manifest),
		cmocka_unit_test(a_forged_cache_with_a_manifest),
		cmocka_unit_test(a_folder_for_reading_only),
		cmocka_unit_test(a_full_disk),
		cmocka_unit_test(refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
