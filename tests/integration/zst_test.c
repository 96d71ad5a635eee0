/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The small guest from a compressed image: every byte is right in each way of serving faults, with
 * frames that fit neither pages nor blocks; a frame that is broken pauses the VM and says which.
 */
#include "small_fixture.h"
#include "need_kvm.h"

#include <pthread.h>

#include "source/zst_manifest.h"
#include "vm_fixture.h"
#include "zst_make.h"

#define PAGES 512u

/* The fixture's image, compressed, in a memfd. */
static int pack(const struct fix *f, size_t frame_bytes, bool sums)
{
	size_t size = PAGES * PAGE_BYTES;
	unsigned char *plain = malloc(size);
	int fd = memfd_create("test-image.zst", MFD_CLOEXEC);
	struct zst_made z;

	assert_non_null(plain);
	assert_int_equal(pread(f->image_fd, plain, size, 0), size);
	zst_begin(&z, sums);
	for (size_t at = 0; at < size; at += frame_bytes)
		zst_frame(&z, plain + at, min_u64(frame_bytes, size - at));
	zst_finish(&z);
	assert_int_equal(write(fd, z.at, z.len), z.len);
	zst_free(&z);
	free(plain);
	return fd;
}

/* The hashes of the fixture's image, in a memfd. */
static int manifest_of(const struct fix *f, size_t frame_bytes)
{
	size_t size = PAGES * PAGE_BYTES;
	struct zst_hasher *h = zst_hasher_open();
	unsigned char *plain = malloc(size), hash[ZST_HASH_BYTES];
	int fd = memfd_create("test-manifest.json", MFD_CLOEXEC);
	char text[ZST_HASH_CHARS + 1];

	assert_non_null(plain);
	assert_non_null(h);
	assert_int_equal(pread(f->image_fd, plain, size, 0), size);
	dprintf(fd, "{\"manifest\": \"asyncpf-image\", \"version\": 1, "
		"\"hash\": \"sha256\", \"size\": %zu, \"frame_bytes\": %zu, \"frames\": [",
		size, frame_bytes);
	for (size_t at = 0; at < size; at += frame_bytes) {
		size_t len = min_u64(frame_bytes, size - at);

		assert_int_equal(zst_hash(h, plain + at, len, hash, NULL), 0);
		zst_hash_text(hash, text);
		dprintf(fd, "%s\"%s\"", at ? "," : "", text);
	}
	dprintf(fd, "]}");
	zst_hasher_close(h);
	free(plain);
	return fd;
}

static void run_once(enum apf_faults faults, size_t frame_bytes, uint32_t block_bytes,
		     const char *scheme, const char *keys, bool sums)
{
	struct fix *f = fix_open(faults, APF_ABI_INT, PAGES);
	int fd = pack(f, frame_bytes, sums);

	snprintf(f->uri, sizeof(f->uri), "%s/proc/self/fd/%d%s", scheme, fd, keys);
	f->cfg.apf.block_bytes = block_bytes;
	fix_run(f);
	assert_int_equal(fix_pages_done(f), PAGES);
	close(fd);
	fix_close(f);
}

static void with_a_manifest(void **state)
{
	struct fix *f = fix_open(APF_FAULTS_USER, APF_ABI_INT, PAGES);
	int fd = pack(f, 50000, false), manifest = manifest_of(f, 50000);

	(void)state;
	snprintf(f->uri, sizeof(f->uri), "zst:/proc/self/fd/%d?manifest=/proc/self/fd/%d", fd,
		 manifest);
	fix_run(f);
	assert_int_equal(fix_pages_done(f), PAGES);
	close(fd);
	close(manifest);
	fix_close(f);
}

static void every_byte_is_right(void **state)
{
	static const enum apf_faults ways[] = {APF_FAULTS_BLOCK, APF_FAULTS_STALL,
					       APF_FAULTS_KERNEL, APF_FAULTS_USER};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(ways); i++)
		run_once(ways[i], 65536, 4096, "zst:", "", true);
	run_once(APF_FAULTS_USER, 10007, 4096, "zst:", "", true);
	run_once(APF_FAULTS_USER, 100, 4096, "zst:", "", false);
	run_once(APF_FAULTS_USER, 1 << 20, 65536, "zst:", "", true);
	run_once(APF_FAULTS_USER, 300000, 1 << 20, "zst:", "", true);
	/* One slot at a time: everybody waits for it. */
	run_once(APF_FAULTS_USER, 65536, 4096, "zst:", "?zst-cache=1", true);
	run_once(APF_FAULTS_USER, 65536, 4096, "zst+delay+file:", "?us=500", true);
	run_once(APF_FAULTS_USER, 65536, 4096, "delay+zst:", "?us=500&jitter-us=900",
		 true);
}

/* ---- trouble ---- */

static void flip(int fd, off_t at)
{
	unsigned char byte;

	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 0x40;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

/* A byte of the file is wrong at first, and right again when the VM is resumed. */
static void broken(bool sums, bool hashes, off_t at, const char *says)
{
	struct fix *f = fix_open(APF_FAULTS_USER, APF_ABI_INT, PAGES);
	static struct vm_reading r;
	unsigned char want[VM_DATA_BYTES];
	struct apf_error e;
	char name[40];
	int fd = pack(f, 32768, sums), manifest = manifest_of(f, 32768);

	assert_int_equal(pread(f->image_fd, want, sizeof(want), 0), sizeof(want));
	flip(fd, at);
	vm_open(&r.v);
	r.v.config.retries_max = 1;
	snprintf(name, sizeof(name), "/proc/self/fd/%d: frame", fd);
	if (hashes)
		snprintf(f->uri, sizeof(f->uri), "zst:/proc/self/fd/%d?manifest=/proc/self/fd/%d",
			 fd, manifest);
	else
		snprintf(f->uri, sizeof(f->uri), "zst:/proc/self/fd/%d", fd);
	vm_start(&r.v, f->uri);
	vm_read_begin(&r);
	while (apf_trouble_get(r.v.apf, &e) == 0)
		usleep(1000);
	print_message("%s\n", e.text);
	assert_ptr_equal(strstr(e.text, "/proc/self/fd/"), strstr(e.text, name));
	assert_non_null(strstr(e.text, says));
	flip(fd, at);
	apf_resume(r.v.apf);
	vm_read_end(&r);
	assert_int_equal(r.rc, 0);
	assert_memory_equal(r.got, want, sizeof(want));
}

/* Noise is stored as it is: the decoder sees nothing, the table's checksum does. */
static void wrong_content_pauses(void **state)
{
	(void)state;
	broken(true, false, 20000, "has the checksum");
}

static void a_broken_header_pauses(void **state)
{
	(void)state;
	broken(true, false, 0, "frame 0 (bytes 0 to ");
}

static void a_broken_header_without_checksums_pauses(void **state)
{
	(void)state;
	broken(false, false, 0, "is broken: ");
}

/* Without any checksum, nothing else would have noticed. */
static void other_content_than_the_manifest_s_pauses(void **state)
{
	(void)state;
	broken(false, true, 20000, "and the manifest says");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_byte_is_right),
		cmocka_unit_test(with_a_manifest),
		VM_TEST(wrong_content_pauses),
		VM_TEST(a_broken_header_pauses),
		VM_TEST(a_broken_header_without_checksums_pauses),
		VM_TEST(other_content_than_the_manifest_s_pauses),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
