/* SPDX-License-Identifier: Apache-2.0 */
/* See blk_format.h. The marks are those of file(1)'s and QEMU's documentation of the formats. */
#include "vmm/disk/blk_format.h"

#include <string.h>

#include "base/types.h"

#define CONVERT "convert it with 'qemu-img convert -O raw'"

static const struct {
	size_t at;
	size_t len;
	const char *mark;
	struct blk_format format;
} marks[] = {
	{0, 4, "QFI\xfb", {"a qcow2 image", CONVERT}},
	{0, 4, "KDMV", {"a VMDK image", CONVERT}},
	{0, 4, "COWD", {"a VMDK image", CONVERT}},
	{0, 21, "# Disk DescriptorFile", {"the description of a VMDK image", CONVERT}},
	{64, 4, "\x7f\x10\xda\xbe", {"a VDI image", CONVERT}},
	{0, 8, "vhdxfile", {"a VHDX image", CONVERT}},
	{0, 8, "conectix", {"a VHD image", CONVERT}},
	{0, 4, "QED\0", {"a QED image", CONVERT}},
	{0, 16, "WithoutFreeSpace", {"a Parallels image", CONVERT}},
	{0, 16, "WithouFreSpacExt", {"a Parallels image", CONVERT}},
	{0, 8, "EVF\t\r\n\xff\0", {"an EWF image", "convert it with ewfexport"}},
	{0, 22, "Bochs Virtual HD Image", {"a Bochs image", CONVERT}},
	{0, 4, "\x3a\xff\x26\xed", {"a sparse image of Android", "convert it with simg2img"}},
	{0, 5, "\x5d\0\0\x80\0", {"what lzma compresses", "unpack it with unlzma"}},
	{0, 2, "\x1f\x8b", {"what gzip compresses", "unpack it with gunzip"}},
	{0, 2, "\x1f\x9d", {"what compress(1) compresses", "unpack it with uncompress"}},
	{0, 9, "\x89LZO\0\r\n\x1a\n", {"what lzop compresses", "unpack it with lzop -d"}},
	{0, 6, "\xfd" "7zXZ\0", {"what xz compresses", "unpack it with unxz"}},
	{0, 4, "\x28\xb5\x2f\xfd", {"what zstd compresses", "unpack it with unzstd"}},
	{0, 3, "BZh", {"what bzip2 compresses", "unpack it with bunzip2"}},
	{0, 4, "\x04\x22\x4d\x18", {"what lz4 compresses", "unpack it with unlz4"}},
	{0, 4, "\x02\x21\x4c\x18", {"what lz4 compresses", "unpack it with unlz4"}},
	{0, 4, "LZIP", {"what lzip compresses", "unpack it with lzip -d"}},
	{0, 4, "PK\3\4", {"a ZIP archive", "unpack it with unzip"}},
	{0, 6, "7z\xbc\xaf\x27\x1c", {"a 7-Zip archive", "unpack it with 7z x"}},
	{0, 6, "Rar!\x1a\x07", {"a RAR archive", "unpack it with unrar x"}},
	{257, 5, "ustar", {"a tar archive, as an .ova is", "unpack it with tar -xf"}},
};

/* In its last sector; the head of such a file is that of the disk in it. */
static const struct {
	size_t len;
	const char *mark;
	struct blk_format format;
} ends[] = {
	{8, "conectix", {"a VHD image", CONVERT}},
	{4, "koly", {"a DMG image", CONVERT}},
};

const struct blk_format *blk_format(const unsigned char *head, size_t len)
{
	for (size_t i = 0; i < ARRAY_LEN(marks); i++)
		if (len >= marks[i].at + marks[i].len &&
		    memcmp(head + marks[i].at, marks[i].mark, marks[i].len) == 0)
			return &marks[i].format;
	return NULL;
}

const struct blk_format *blk_format_end(const unsigned char *end, size_t len)
{
	for (size_t i = 0; i < ARRAY_LEN(ends); i++)
		if (len >= ends[i].len && memcmp(end, ends[i].mark, ends[i].len) == 0)
			return &ends[i].format;
	return NULL;
}
