/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/boot/load_format.c, and what load_kernel says of such files: the format, and what to do. */
#include "load_fixture.h"

#include "vmm/boot/load_format.h"

static const struct {
	size_t at, len;
	const char *mark, *name, *advice;
} rows[] = {
	{0, 2, "\x1f\x8b", "gzip has compressed", "gunzip -c FILE > KERNEL"},
	{0, 6, "\xfd" "7zXZ", "xz has compressed", "unxz -c FILE > KERNEL"},
	{0, 4, "\x28\xb5\x2f\xfd", "zstd has compressed", "unzstd -c"},
	{0, 3, "BZh", "bzip2 has compressed", "bunzip2 -c"},
	{0, 4, "\x02\x21\x4c\x18", "lz4 has compressed", "unlz4 -c"},
	{56, 4, "ARM\x64", "a Linux kernel for arm64", "an x86 kernel is needed"},
	{56, 4, "RSC\x05", "a Linux kernel for RISC-V", "an x86 kernel is needed"},
	{0, 4, "\x27\x05\x19\x56", "an image for U-Boot", "an x86 kernel is needed"},
	{0, 5, "07070", "an initial file system", "--initrd"},
	{0, 2, "#!", "a script", "an x86 kernel is needed"},
	{0, 4, "QFI\xfb", "a qcow2 disk image", "--disk"},
	{0, 4, "KDMV", "a VMDK disk image", "--disk"},
	{0, 8, "vhdxfile", "a VHDX disk image", "--disk"},
	{64, 4, "\x7f\x10\xda\xbe", "a VDI disk image", "--disk"},
	{0, 8, "conectix", "a VHD disk image", "--disk"},
	{0, 4, "QED", "a QED disk image", "--disk"},
	{0, 16, "WithoutFreeSpace", "a Parallels disk image", "--disk"},
	{0, 16, "WithouFreSpacExt", "a Parallels disk image", "--disk"},
	{0, 4, "PK\3\4", "a ZIP archive", "unzip FILE"},
	{0, 21, "!<arch>\ndebian-binary", "a Debian package", "dpkg -x"},
	{0, 4, "\xed\xab\xee\xdb", "an RPM package", "rpm2cpio FILE"},
	{510, 2, "\x55\xaa", "a boot sector or a disk", "--disk"},
};

static void test_marks(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct fx *f = fx_open();
		char text[256];

		memcpy(f->image + rows[i].at, rows[i].mark, rows[i].len);
		f->cfg.kernel.len = 1024;
		snprintf(text, sizeof(text), "%s, which cannot be loaded; ", rows[i].name);
		fx_refused(f, -ENOEXEC, text);
		assert_non_null(strstr(f->err.text, rows[i].advice));
		assert_true(ram_is_untouched(&f->ram));
		assert_null(load_format(f->image, rows[i].at + rows[i].len - 1));
		fx_close(f);
	}
}

static void put_pe(struct fx *f, uint16_t machine)
{
	memcpy(f->image, "MZ", 2);
	put32(f->image, 0x3c, 0x80);
	memcpy(f->image + 0x80, "PE\0\0", 4);
	put16(f->image, 0x84, machine);
	f->cfg.kernel.len = 2048;
}

static void test_efi_applications(void **state)
{
	struct fx *f = *state;

	put_pe(f, 0x8664);
	fx_refused(f, -ENOEXEC, "an EFI application (PE), and there is no EFI firmware here");
	/* Xen's has a header for multiboot, which means another form of it. */
	image_multiboot_header(f->image + 0x400, 0);
	fx_refused(f, -ENOEXEC, "an EFI application (PE)");
	memset(f->image + 0x400, 0, 64);
	put_pe(f, 0xaa64);
	fx_refused(f, -ENOEXEC, "an EFI application (PE) for arm64");
	put_pe(f, 0x14c);
	fx_refused(f, -ENOEXEC, "an EFI application or Windows program (PE)");
	memcpy(f->image + 4, "zimg", 4);
	fx_refused(f, -ENOEXEC, "unpacks itself under EFI (zboot)");
	memset(f->image + 4, 0, 4);
	put32(f->image, 0x3c, UINT32_MAX);
	fx_refused(f, -ENOEXEC, "not a kernel that can be loaded");
}

static void test_multiboot_2(void **state)
{
	struct fx *f = *state;
	unsigned char *h = f->image + 64;

	put32(h, 0, 0xe85250d6);
	put32(h, 4, 0);
	put32(h, 8, 16);
	put32(h, 12, -(0xe85250d6u + 16));
	f->cfg.kernel.len = 1024;
	fx_refused(f, -ENOEXEC, "a multiboot 2 kernel, which cannot be loaded; only version 1 is "
				"known");
	put32(h, 12, 1);
	fx_refused(f, -ENOEXEC, "not a kernel that can be loaded");
}

/* Every prefix of each is told from nothing, or not at all. */
static void test_short_files(void **state)
{
	struct fx *f = *state;

	put_pe(f, 0x8664);
	for (size_t len = 0; len < 512; len++) {
		unsigned char *copy = malloc(len ? len : 1);

		assert_non_null(copy);
		memcpy(copy, f->image, len);
		(void)load_format(copy, len);
		free(copy);
	}
}

static int setup(void **state)
{
	*state = fx_open();
	return 0;
}

static int teardown(void **state)
{
	fx_close(*state);
	return 0;
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_marks),
		T(test_efi_applications),
		T(test_multiboot_2),
		T(test_short_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
