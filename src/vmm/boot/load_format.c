/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See load_format.h. Facts: Documentation/arch/arm64/booting.rst and riscv/boot-image-header.rst of
 * Linux, the PE/COFF and Multiboot 2 specifications, and the marks that file(1) goes by.
 */
#include "vmm/boot/load_format.h"

#include <string.h>

#include "base/types.h"
#include "vmm/memory/bytes.h"

#define PE_OFFSET 0x3c /* of the offset of the header */
#define PE_MACHINE_X86_64 0x8664
#define PE_MACHINE_ARM64 0xaa64
#define MULTIBOOT2_MAGIC 0xe85250d6
#define MULTIBOOT2_WITHIN 32768
#define ISO_MARK_AT 0x8001

#define NEED_X86 "an x86 kernel is needed: a bzImage (Linux: vmlinuz) or an ELF file"
#define UNPACK(command) "unpack it first: " command " FILE > KERNEL"
#define AS_DISK "a disk is given with --disk, beside a --kernel"

static const struct {
	size_t at;
	size_t len;
	const char *mark;
	struct load_format format;
} marks[] = {
	{0, 2, "\x1f\x8b", {"a file that gzip has compressed", UNPACK("gunzip -c")}},
	{0, 6, "\xfd" "7zXZ\0", {"a file that xz has compressed", UNPACK("unxz -c")}},
	{0, 4, "\x28\xb5\x2f\xfd", {"a file that zstd has compressed", UNPACK("unzstd -c")}},
	{0, 3, "BZh", {"a file that bzip2 has compressed", UNPACK("bunzip2 -c")}},
	{0, 4, "\x04\x22\x4d\x18", {"a file that lz4 has compressed", UNPACK("unlz4 -c")}},
	{0, 4, "\x02\x21\x4c\x18", {"a file that lz4 has compressed", UNPACK("unlz4 -c")}},
	{0, 3, "\x5d\0\0", {"a file that lzma has compressed", UNPACK("unlzma -c")}},
	{0, 9, "\x89LZO\0\r\n\x1a\n", {"a file that lzop has compressed", UNPACK("lzop -dc")}},
	{56, 4, "ARM\x64", {"a Linux kernel for arm64", NEED_X86}},
	{56, 4, "RSC\x05", {"a Linux kernel for RISC-V", NEED_X86}},
	{36, 4, "\x18\x28\x6f\x01", {"a Linux kernel for arm", NEED_X86}},
	{0, 4, "\x27\x05\x19\x56", {"an image for U-Boot", NEED_X86}},
	{0, 4, "\xd0\x0d\xfe\xed", {"a device tree or an image for U-Boot", NEED_X86}},
	{0, 8, "ANDROID!", {"a boot image of Android", "take the kernel out of it first"}},
	{0, 5, "07070", {"an initial file system", "give it with --initrd, beside a --kernel"}},
	{0, 2, "#!", {"a script", NEED_X86}},
	{0, 4, "QFI\xfb", {"a qcow2 disk image", AS_DISK}},
	{0, 4, "KDMV", {"a VMDK disk image", AS_DISK}},
	{0, 8, "vhdxfile", {"a VHDX disk image", AS_DISK}},
	{64, 4, "\x7f\x10\xda\xbe", {"a VDI disk image", AS_DISK}},
	{0, 8, "conectix", {"a VHD disk image", AS_DISK}},
	{0, 4, "QED\0", {"a QED disk image", AS_DISK}},
	{0, 16, "WithoutFreeSpace", {"a Parallels disk image", AS_DISK}},
	{0, 16, "WithouFreSpacExt", {"a Parallels disk image", AS_DISK}},
	{0, 4, "PK\3\4", {"a ZIP archive", "unpack it first: unzip FILE"}},
	{0, 21, "!<arch>\ndebian-binary",
	 {"a Debian package", "unpack it first: dpkg -x FILE FOLDER"}},
	{0, 4, "\xed\xab\xee\xdb",
	 {"an RPM package", "unpack it first: rpm2cpio FILE | cpio -id"}},
	{ISO_MARK_AT, 5, "CD001", {"a CD image", AS_DISK ", which is taken from it"}},
	{257, 5, "ustar", {"a tar archive", "unpack it first"}},
};

static const struct load_format pe_x86 = {
	"an EFI application (PE), and there is no EFI firmware here",
	"give the kernel's bzImage or ELF file (vmlinuz, vmlinux; of Xen the file in xen.gz)"};
static const struct load_format pe_arm64 = {"an EFI application (PE) for arm64", NEED_X86};
static const struct load_format pe_other = {
	"an EFI application or Windows program (PE)", NEED_X86};
static const struct load_format zboot = {
	"a compressed kernel that unpacks itself under EFI (zboot)", NEED_X86};
static const struct load_format multiboot2 = {
	"a multiboot 2 kernel", "only version 1 is known; build it with a header of that"};
static const struct load_format boot_sector = {"a boot sector or a disk", AS_DISK};

static const struct load_format *pe(const unsigned char *bytes, size_t len)
{
	size_t at;

	if (len < PE_OFFSET + 4 || memcmp(bytes, "MZ", 2) != 0)
		return NULL;
	at = get32(bytes, PE_OFFSET);
	if (memcmp(bytes + 4, "zimg", 4) == 0)
		return &zboot;
	if (at > len || len - at < 6 || memcmp(bytes + at, "PE\0\0", 4) != 0)
		return NULL;
	switch (get16(bytes, at + 4)) {
	case PE_MACHINE_X86_64:
		return &pe_x86;
	case PE_MACHINE_ARM64:
		return &pe_arm64;
	default:
		return &pe_other;
	}
}

static bool is_multiboot2(const unsigned char *bytes, size_t len)
{
	size_t end = min_u64(len, MULTIBOOT2_WITHIN);

	for (size_t at = 0; at + 16 <= end; at += 8)
		if (get32(bytes, at) == MULTIBOOT2_MAGIC &&
		    get32(bytes, at) + get32(bytes, at + 4) + get32(bytes, at + 8) +
				    get32(bytes, at + 12) == 0)
			return true;
	return false;
}

const struct load_format *load_format(const unsigned char *bytes, size_t len)
{
	const struct load_format *f = NULL;

	for (size_t i = 0; !f && i < ARRAY_LEN(marks); i++)
		if (len >= marks[i].at + marks[i].len &&
		    memcmp(bytes + marks[i].at, marks[i].mark, marks[i].len) == 0)
			f = &marks[i].format;
	if (!f)
		f = pe(bytes, len);
	if (!f && is_multiboot2(bytes, len))
		f = &multiboot2;
	if (!f && len >= 512 && get16(bytes, 510) == 0xaa55)
		f = &boot_sector;
	return f;
}
