/* SPDX-License-Identifier: Apache-2.0 */
/* src/vmm/snap/work_set.c: first touches in their order; what is cut, changed or odd is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <xxhash.h>

#include "vmm/snap/work_set.h"

#define MEMORY (64ull << 20)
#define PAGE 4096u
#define HEAD 32u

static void touch(struct work_recorder *r, uint64_t ns, uint64_t gpa)
{
	work_recorder_tell(r, &(struct apf_trace){
				      .ns = ns, .gpa = gpa, .kind = APF_TRACE_TOUCH});
}

static void read_of(struct work_recorder *r, uint64_t gpa, uint32_t ahead)
{
	work_recorder_tell(r, &(struct apf_trace){.ns = 10, .gpa = gpa, .bytes = PAGE,
						  .kind = APF_TRACE_READ, .value = ahead});
}

/* Of what was told, as it is in a file: *ret_len bytes, the caller's. */
static unsigned char *written(const struct work_recorder *r, size_t *ret_len)
{
	char *bytes;
	FILE *out = open_memstream(&bytes, ret_len);

	assert_non_null(out);
	assert_int_equal(work_recorder_write(r, out), 0);
	assert_int_equal(fclose(out), 0);
	return (unsigned char *)bytes;
}

static unsigned char *make(size_t *ret_len)
{
	struct work_recorder *r;
	unsigned char *bytes;
	struct err e;

	assert_int_equal(work_recorder_new(MEMORY, PAGE, 1000, &r, &e), 0);
	touch(r, 10, 7 * PAGE + 5);
	touch(r, 10, 8 * PAGE);
	touch(r, 10, 3 * PAGE);
	touch(r, 10, 7 * PAGE);     /* again */
	read_of(r, 6 * PAGE, 1);    /* ahead: nobody has touched it */
	read_of(r, 4 * PAGE, 0);    /* a device's */
	work_recorder_tell(r, &(struct apf_trace){.ns = 11, .gpa = 4 * PAGE, .bytes = PAGE,
						  .kind = APF_TRACE_USED, .value = 1});
	work_recorder_tell(r, &(struct apf_trace){.ns = 11, .gpa = 5 * PAGE, .bytes = PAGE,
						  .kind = APF_TRACE_USED});
	touch(r, 1010, 20 * PAGE);
	touch(r, 1011, 21 * PAGE);  /* too late */
	touch(r, 20, 70ull << 30);  /* no RAM */
	bytes = written(r, ret_len);
	work_recorder_free(r);
	return bytes;
}

static void first_touches_in_their_order(void **state)
{
	static const uint64_t want[][2] = {{7, 2}, {3, 3}, {20, 1}};
	size_t len;
	unsigned char *bytes = make(&len);
	struct work_set s;
	struct err e;

	(void)state;
	assert_int_equal(work_set_take(&s, bytes, len, MEMORY, &e), 0);
	assert_int_equal(s.count, 3);
	for (unsigned i = 0; i < s.count; i++) {
		assert_int_equal(s.ranges[i].gpa, want[i][0] * PAGE);
		assert_int_equal(s.ranges[i].len, want[i][1] * PAGE);
	}
	work_set_free(&s);
	free(bytes);
}

static void a_file_is_read_to_its_end(void **state)
{
	size_t len;
	unsigned char *bytes = make(&len);
	int fd = memfd_create("set", MFD_CLOEXEC);
	struct work_set s;
	struct err e;

	(void)state;
	assert_int_equal(write(fd, bytes, len), len);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_int_equal(work_set_read(&s, fd, MEMORY, &e), 0);
	assert_int_equal(s.count, 3);
	work_set_free(&s);
	assert_int_equal(write(fd, "x", 1), 1);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_int_equal(work_set_read(&s, fd, MEMORY, &e), -EBADMSG);
	close(fd);
	free(bytes);
}

static void nothing_was_touched(void **state)
{
	struct work_recorder *r;
	unsigned char *bytes;
	struct work_set s;
	struct err e;
	size_t len;

	(void)state;
	assert_int_equal(work_recorder_new(MEMORY, PAGE, 1000, &r, &e), 0);
	bytes = written(r, &len);
	work_recorder_free(r);
	assert_int_equal(len, HEAD);
	assert_int_equal(work_set_take(&s, bytes, len, MEMORY, &e), 0);
	assert_int_equal(s.count, 0);
	work_set_free(&s);
	free(bytes);
}

static void what_is_cut_or_changed_is_refused(void **state)
{
	size_t len;
	unsigned char *bytes = make(&len);
	struct work_set s;
	struct err e;

	(void)state;
	for (size_t n = 0; n < len; n++) {
		assert_int_equal(work_set_take(&s, bytes, n, MEMORY, &e), -EBADMSG);
		assert_null(s.ranges);
	}
	for (size_t i = 0; i < len; i++) {
		bytes[i] ^= 0x40;
		assert_true(work_set_take(&s, bytes, len, MEMORY, &e) < 0);
		assert_true(e.text[0] != '\0');
		bytes[i] ^= 0x40;
	}
	assert_int_equal(work_set_take(&s, bytes, len, 2 * MEMORY, &e), -EINVAL);
	bytes[8] = 2;
	assert_int_equal(work_set_take(&s, bytes, len, MEMORY, &e), -EPROTO);
	free(bytes);
}

static void odd_ranges_are_refused(void **state)
{
	static const uint64_t odd[][2] = {
		{0, 0}, {1, PAGE}, {PAGE, 1}, {UINT64_MAX & ~(uint64_t)(PAGE - 1), PAGE},
		{PAGE, UINT64_MAX & ~(uint64_t)(PAGE - 1)}, {69ull << 30, PAGE},
	};
	size_t len;
	unsigned char *bytes = make(&len);
	struct work_set s;
	struct err e;

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(odd); i++) {
		uint64_t hash;

		memcpy(bytes + HEAD + 16, odd[i], 16);
		hash = XXH3_64bits(bytes + HEAD, len - HEAD);
		memcpy(bytes + 24, &hash, sizeof(hash));
		assert_int_equal(work_set_take(&s, bytes, len, MEMORY, &e), -EBADMSG);
		assert_null(s.ranges);
	}
	free(bytes);
}

/* RAM of 64 GiB ends there, behind the hole below 4 GiB. */
static void the_highest_page_is_noted_and_taken(void **state)
{
	struct work_recorder *r;
	unsigned char *bytes;
	struct work_set s;
	struct err e;
	size_t len;

	(void)state;
	assert_int_equal(work_recorder_new(MEMORY, PAGE, 1000, &r, &e), 0);
	touch(r, 10, (68ull << 30) - 1);
	touch(r, 10, 68ull << 30);
	bytes = written(r, &len);
	work_recorder_free(r);
	assert_int_equal(work_set_take(&s, bytes, len, MEMORY, &e), 0);
	assert_int_equal(s.count, 1);
	assert_int_equal(s.ranges[0].gpa, (68ull << 30) - PAGE);
	assert_int_equal(s.ranges[0].len, PAGE);
	work_set_free(&s);
	free(bytes);
}

/* As many ranges as a file may have. What is beyond is not noted, what joins the last one is. */
static void a_full_set(void **state)
{
	struct work_recorder *r;
	unsigned char *bytes;
	struct work_set s;
	struct err e;
	size_t len;

	(void)state;
	assert_int_equal(work_recorder_new(MEMORY, PAGE, 1000, &r, &e), 0);
	for (uint64_t i = 0; i <= WORK_SET_RANGES_MAX; i++)
		touch(r, 10, 2 * i * PAGE);
	touch(r, 10, (2ull * WORK_SET_RANGES_MAX - 1) * PAGE);
	bytes = written(r, &len);
	work_recorder_free(r);
	assert_int_equal(work_set_take(&s, bytes, len, MEMORY, &e), 0);
	assert_int_equal(s.count, WORK_SET_RANGES_MAX);
	assert_int_equal(s.ranges[s.count - 1].gpa, 2ull * (WORK_SET_RANGES_MAX - 1) * PAGE);
	assert_int_equal(s.ranges[s.count - 1].len, 2 * PAGE);
	work_set_free(&s);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_touches_in_their_order),
		cmocka_unit_test(a_file_is_read_to_its_end),
		cmocka_unit_test(nothing_was_touched),
		cmocka_unit_test(what_is_cut_or_changed_is_refused),
		cmocka_unit_test(odd_ranges_are_refused),
		cmocka_unit_test(the_highest_page_is_noted_and_taken),
		cmocka_unit_test(a_full_set),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
