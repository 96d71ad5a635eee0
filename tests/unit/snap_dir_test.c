/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots as folders, one built upon the other, without a VM: what each consists of is read back,
 * from wherever the next one lies, and a chain with a link that is gone or another is refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/snap/snap_base.h"
#include "cli/snap/snap_dir.h"
#include "source/uri.h"

#define MEMORY_BYTES (64ull << 20)
#define PAGES_BYTES (MEMORY_BYTES / PAGE_BYTES / 8)
#define PATH_BYTES 128u

struct bed {
	char folder[40];
	char first[PATH_BYTES], second[PATH_BYTES], third[PATH_BYTES];
};

static void join(char to[static PATH_BYTES], const char *folder, const char *name)
{
	assert_true(snprintf(to, PATH_BYTES, "%s/%s", folder, name) < (int)PATH_BYTES);
}

/* What a VM writes. n: which snapshot it is; base: NULL, or that which it builds upon. */
static void write_state(int fd, unsigned n, const struct snap_base *base)
{
	const struct machine_saved machine = {.memory_bytes = MEMORY_BYTES, .cpus = 1};
	struct machine_snap_id id = {.id = {1, [SNAP_ID_BYTES - 1] = (unsigned char)n}};
	static const uint64_t pages[PAGES_BYTES / sizeof(uint64_t)] = {0xff};
	struct snap_out o = {.bytes = NULL};
	struct err e;

	if (base)
		memcpy(id.base, base->id.id, sizeof(id.base));
	snap_put(&o, (struct snap_key){"machine", 0, MACHINE_SAVED_VERSION}, &machine,
		 sizeof(machine));
	snap_put(&o, (struct snap_key){"snapshot", 0, MACHINE_SAVED_VERSION}, &id, sizeof(id));
	if (base)
		snap_put(&o, (struct snap_key){"memory.pages", 0, MACHINE_SAVED_VERSION}, pages,
			 sizeof(pages));
	assert_int_equal(snap_out_write(&o, fd, &e), 0);
	snap_out_free(&o);
}

static void make(const char *path, unsigned n, const char *upon)
{
	struct snap_base base = {.relative = NULL};
	struct snap_dir d;
	struct err e = {0};

	if ((upon && snap_base_open(&base, upon, path, &e) < 0) ||
	    snap_dir_begin(&d, path, upon ? &base : NULL, &e) < 0)
		fail_msg("%s", e.text);
	write_state(d.fds[0], n, upon ? &base : NULL);
	assert_int_equal(ftruncate(d.fds[1], (off_t)MEMORY_BYTES), 0);
	if (snap_dir_finish(&d, &e) < 0)
		fail_msg("%s", e.text);
	snap_dir_end(&d);
	snap_base_close(&base);
}

/* "one", "two" and, in a folder of its own, "three", each upon the one before it. */
static int begin(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));
	char deep[PATH_BYTES], with_slash[PATH_BYTES];

	assert_non_null(b);
	snprintf(b->folder, sizeof(b->folder), "/tmp/snap_dir_test.XXXXXX");
	assert_non_null(mkdtemp(b->folder));
	join(b->first, b->folder, "one");
	join(with_slash, b->folder, "one/");
	join(b->second, b->folder, "two");
	join(b->third, b->folder, "deep/three");
	join(deep, b->folder, "deep");
	assert_int_equal(mkdir(deep, 0700), 0);
	make(with_slash, 1, NULL);
	make(b->second, 2, b->first);
	make(b->third, 3, b->second);
	*state = b;
	return 0;
}

static int end(void **state)
{
	struct bed *b = *state;
	char command[80];

	snprintf(command, sizeof(command), "rm -r %s", b->folder);
	assert_int_equal(system(command), 0);
	free(b);
	return 0;
}

static void expect(const char *path, unsigned count, const char *const *files)
{
	struct snap_chain chain;
	struct snap_in in;
	struct err e = {0};

	if (snap_dir_read(path, &in, &chain, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(chain.layers.count, count);
	assert_int_equal(chain.layers.bytes, MEMORY_BYTES);
	for (unsigned i = 0; i < count; i++) {
		assert_string_equal(chain.layers.all[i].path, files[i]);
		assert_int_equal(!chain.layers.all[i].pages, i == count - 1);
	}
	snap_chain_free(&chain);
	snap_in_free(&in);
}

static void what_each_consists_of(void **state)
{
	const struct bed *b = *state;

	expect(b->first, 1, (const char *const[]){"memory"});
	expect(b->second, 2, (const char *const[]){"changed", "../one/memory"});
	expect(b->third, 3, (const char *const[]){"changed", "../../two/changed",
						  "../../two/../one/memory"});
}

/* By who reads it, and by who would build upon it. */
static void refused(const struct bed *b, const char *says)
{
	struct snap_base base = {.relative = NULL};
	struct snap_chain chain;
	struct snap_in in;
	struct err e = {0};
	char next[PATH_BYTES];

	join(next, b->folder, "four");
	assert_true(snap_dir_read(b->third, &in, &chain, &e) < 0);
	if (!strstr(e.text, says))
		fail_msg("'%s' is not in '%s'", says, e.text);
	e.text[0] = '\0';
	assert_true(snap_base_open(&base, b->third, next, &e) < 0);
	snap_base_close(&base);
	if (!strstr(e.text, says))
		fail_msg("'%s' is not in '%s'", says, e.text);
}

static void a_link_that_is_another(void **state)
{
	struct bed *b = *state;
	char away[PATH_BYTES];

	join(away, b->folder, "away");
	assert_int_equal(rename(b->first, away), 0);
	refused(b, "builds upon another, which cannot be read");
	make(b->first, 7, NULL);
	refused(b, "builds upon another snapshot than the one that is there now");
}

static void a_list_that_is_none(void **state)
{
	struct bed *b = *state;
	char list[PATH_BYTES], other[PATH_BYTES];

	join(list, b->third, "layers");
	join(other, b->second, "layers");
	assert_int_equal(unlink(list), 0);
	refused(b, "layers: No such file");
	assert_int_equal(link(other, list), 0);
	refused(b, "it belongs to another snapshot");
	assert_int_equal(truncate(list, 40), 0);
	refused(b, "is cut short");
}

static void a_file_of_memory_of_another_length(void **state)
{
	struct bed *b = *state;
	char file[PATH_BYTES];

	join(file, b->third, "changed");
	assert_int_equal(truncate(file, 4096), 0);
	refused(b, "it is not as long as the guest's memory");
}

/* The last is refused as a base, and good for all else. */
static void as_many_as_there_may_be(void **state)
{
	const struct bed *b = *state;
	struct snap_base base = {.relative = NULL};
	struct snap_chain chain;
	struct err e = {0};
	struct snap_in in;
	char upon[PATH_BYTES], path[PATH_BYTES], name[16];

	snprintf(path, sizeof(path), "%s", b->first);
	for (unsigned n = 1; n < LAYERS_MAX; n++) {
		memcpy(upon, path, sizeof(upon));
		snprintf(name, sizeof(name), "of%u", n);
		join(path, b->folder, name);
		make(path, 10 + n, upon);
	}
	assert_int_equal(snap_dir_read(path, &in, &chain, &e), 0);
	assert_int_equal(chain.layers.count, LAYERS_MAX);
	snap_chain_free(&chain);
	snap_in_free(&in);
	join(upon, b->folder, "more");
	assert_int_equal(snap_base_open(&base, path, upon, &e), -E2BIG);
	assert_non_null(strstr(e.text, "build upon each other already"));
	snap_base_close(&base);
}

static void a_base_of_another_size(void **state)
{
	const struct bed *b = *state;
	struct snap_base base;
	struct snap_chain chain;
	struct err e = {0};
	struct snap_in in;

	assert_int_equal(snap_dir_read(b->second, &in, &chain, &e), 0);
	assert_int_equal(snap_base_open(&base, b->first, b->second, &e), 0);
	assert_int_equal(snap_base_write(&base, &in, 2 * MEMORY_BYTES, -1, &e), -EINVAL);
	assert_int_equal(snap_base_write(&base, &in, MEMORY_BYTES / 2, -1, &e), -EINVAL);
	assert_non_null(strstr(e.text, "another size"));
	snap_base_close(&base);
	snap_chain_free(&chain);
	snap_in_free(&in);
}

static void a_layer_by_its_whole_path(void **state)
{
	const struct bed *b = *state;
	int fd = memfd_create("layers", MFD_CLOEXEC);
	struct snap_base base;
	struct snap_chain chain;
	struct layers layers;
	struct err e = {0};
	struct snap_in in;
	struct stat st;
	void *bytes;

	assert_int_equal(snap_dir_read(b->second, &in, &chain, &e), 0);
	assert_int_equal(snap_base_open(&base, b->first, b->second, &e), 0);
	snprintf(base.chain.layers.all[0].path, LAYERS_PATH_MAX, "/elsewhere/memory");
	assert_int_equal(snap_base_write(&base, &in, MEMORY_BYTES, fd, &e), 0);
	assert_int_equal(fstat(fd, &st), 0);
	bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	assert_true(bytes != MAP_FAILED);
	assert_int_equal(layers_parse(bytes, (size_t)st.st_size, &layers, &e), 0);
	assert_string_equal(layers.all[0].path, "changed");
	assert_string_equal(layers.all[1].path, "/elsewhere/memory");
	layers_free(&layers);
	munmap(bytes, (size_t)st.st_size);
	snap_base_close(&base);
	snap_chain_free(&chain);
	snap_in_free(&in);
	close(fd);
}

/* ---- what others leave in its folder ---- */

static void leave(char path[static PATH_BYTES], const struct bed *b, const char *name)
{
	char file[PATH_BYTES];
	int fd;

	join(path, b->folder, name);
	assert_int_equal(mkdir(path, 0700), 0);
	join(file, path, "state");
	fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
}

static unsigned open_descriptors(void)
{
	unsigned count = 0;

	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* Of somebody who was killed, and neither of one who is at it nor of another name. */
static void what_is_left_behind_goes(void **state)
{
	const struct bed *b = *state;
	char dead[PATH_BYTES], held[PATH_BYTES], file[PATH_BYTES], other[2][PATH_BYTES];
	unsigned before = open_descriptors();
	char path[PATH_BYTES];
	int fd;

	leave(dead, b, "four.123.part");
	leave(held, b, "four.9.part");
	leave(other[0], b, "four..part");
	leave(other[1], b, "four.12x.part");
	fd = open(held, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	join(path, b->folder, "four");
	make(path, 4, NULL);
	assert_int_equal(access(dead, F_OK), -1);
	join(file, held, "state");
	assert_int_equal(access(file, F_OK), 0);
	for (unsigned i = 0; i < 2; i++) {
		join(file, other[i], "state");
		assert_int_equal(access(file, F_OK), 0);
	}
	close(fd);
	assert_int_equal(open_descriptors(), before);
}

/* ---- what it is asked for by ---- */

/* Its memory is found by a URI, whatever the folder is called. */
static void expect_source(const char *snapshot, const char *folder, const char *scheme,
			  const char *path)
{
	struct snap_chain chain;
	struct snap_in in;
	struct err e = {0};
	struct uri u;
	char *uri;

	assert_int_equal(snap_dir_read(snapshot, &in, &chain, &e), 0);
	uri = snap_dir_source(folder, &in);
	assert_non_null(uri);
	if (uri_parse(uri, &u, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(u.schemes, 1);
	assert_int_equal(u.params, 0);
	assert_string_equal(u.scheme[0], scheme);
	assert_string_equal(u.path, path);
	free(uri);
	snap_chain_free(&chain);
	snap_in_free(&in);
}

static void odd_names(void **state)
{
	const struct bed *b = *state;

	expect_source(b->first, "plain", "file", "plain/memory");
	expect_source(b->first, "/a:b?c=%41#", "file", "/a:b?c=%41#/memory");
	expect_source(b->first, "vm:2026?c=%41#", "file", "./vm:2026?c=%41#/memory");
	expect_source(b->second, "vm:2026?c=%41#", "layers", "vm:2026?c=%41#/layers");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_each_consists_of, begin, end),
		cmocka_unit_test_setup_teardown(a_link_that_is_another, begin, end),
		cmocka_unit_test_setup_teardown(a_list_that_is_none, begin, end),
		cmocka_unit_test_setup_teardown(a_file_of_memory_of_another_length, begin, end),
		cmocka_unit_test_setup_teardown(as_many_as_there_may_be, begin, end),
		cmocka_unit_test_setup_teardown(a_base_of_another_size, begin, end),
		cmocka_unit_test_setup_teardown(a_layer_by_its_whole_path, begin, end),
		cmocka_unit_test_setup_teardown(what_is_left_behind_goes, begin, end),
		cmocka_unit_test_setup_teardown(odd_names, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
