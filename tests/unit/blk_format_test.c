/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/disk/blk_format.c: each mark is known where it belongs and nowhere else; disks have none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/types.h"
#include "vmm/disk/blk_format.h"

struct row {
	size_t at, len;
	const char *mark, *name;
};

static const struct row rows[] = {
	{0, 4, "QFI\xfb", "a qcow2 image"},
	{0, 4, "KDMV", "a VMDK image"},
	{0, 21, "# Disk DescriptorFile", "the description of a VMDK image"},
	{64, 4, "\x7f\x10\xda\xbe", "a VDI image"},
	{0, 8, "vhdxfile", "a VHDX image"},
	{0, 8, "conectix", "a VHD image"},
	{0, 4, "QED", "a QED image"},
	{0, 2, "\x1f\x8b", "what gzip compresses"},
	{0, 6, "\xfd" "7zXZ", "what xz compresses"},
	{0, 4, "\x28\xb5\x2f\xfd", "what zstd compresses"},
	{0, 3, "BZh", "what bzip2 compresses"},
	{0, 4, "\x04\x22\x4d\x18", "what lz4 compresses"},
	{0, 4, "\x02\x21\x4c\x18", "what lz4 compresses"},
	{0, 16, "WithoutFreeSpace", "a Parallels image"},
	{0, 16, "WithouFreSpacExt", "a Parallels image"},
	{0, 4, "PK\3\4", "a ZIP archive"},
	{0, 8, "EVF\t\r\n\xff", "an EWF image"},
	{0, 2, "\x1f\x9d", "what compress(1) compresses"},
	{0, 9, "\x89LZO\0\r\n\x1a\n", "what lzop compresses"},
	{0, 6, "Rar!\x1a\x07", "a RAR archive"},
	{0, 22, "Bochs Virtual HD Image", "a Bochs image"},
	{0, 4, "\x3a\xff\x26\xed", "a sparse image of Android"},
	{0, 5, "\x5d\0\0\x80\0", "what lzma compresses"},
	{257, 5, "ustar", "a tar archive, as an .ova is"},
};

static void marks(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		unsigned char head[BLK_FORMAT_HEAD_BYTES] = {0};
		const struct row *r = &rows[i];
		const struct blk_format *f;

		memcpy(head + r->at, r->mark, r->len);
		f = blk_format(head, sizeof(head));
		assert_non_null(f);
		assert_string_equal(f->name, r->name);
		assert_non_null(f->advice);
		assert_ptr_equal(blk_format(head, r->at + r->len), f);
		assert_null(blk_format(head, r->at + r->len - 1));
		memmove(head + 1, head, sizeof(head) - 1);
		head[0] = 0;
		assert_null(blk_format(head, sizeof(head)));
	}
}

static void marks_at_the_end(void **state)
{
	static const char *const words[][2] = {{"conectix", "a VHD image"},
					       {"koly", "a DMG image"}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		unsigned char end[BLK_FORMAT_HEAD_BYTES] = {0};
		size_t len = strlen(words[i][0]);

		assert_null(blk_format_end(end, sizeof(end)));
		memcpy(end, words[i][0], len);
		assert_string_equal(blk_format_end(end, sizeof(end))->name, words[i][1]);
		assert_null(blk_format_end(end, len - 1));
		memmove(end + 1, end, sizeof(end) - 1);
		end[0] = 0;
		assert_null(blk_format_end(end, sizeof(end)));
	}
}

/* A master boot record, an ext4 superblock's place, nothing at all. */
static void disks(void **state)
{
	unsigned char head[BLK_FORMAT_HEAD_BYTES] = {0};

	(void)state;
	assert_null(blk_format(head, 0));
	assert_null(blk_format(head, sizeof(head)));
	memcpy(head, "\xeb\x63\x90", 3);
	memcpy(head + 510, "\x55\xaa", 2);
	assert_null(blk_format(head, sizeof(head)));
	memset(head, 0xff, sizeof(head));
	assert_null(blk_format(head, sizeof(head)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(marks),
		cmocka_unit_test(marks_at_the_end),
		cmocka_unit_test(disks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
