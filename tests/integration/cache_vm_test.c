/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM with memory from a shared cache: the small guest finds every byte right in each way of
 * serving faults, cold and warm, and the counters say which it was; an origin that has something
 * else than its manifest pauses the VM, which goes on when that is mended.
 */
#include "small_fixture.h"
#include "need_kvm.h"

#include <pthread.h>
#include <sys/stat.h>

#include "source/zst_manifest.h"
#include "vm_fixture.h"

#define PAGES 512u

static void remove_folder(const char *folder)
{
	char command[100];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	assert_int_equal(system(command), 0);
}

static void every_byte_is_right(void **state)
{
	static const enum apf_faults ways[] = {APF_FAULTS_BLOCK, APF_FAULTS_STALL,
					       APF_FAULTS_KERNEL, APF_FAULTS_USER};
	char folder[] = "/var/tmp/asyncpf-cache-XXXXXX";

	(void)state;
	assert_non_null(mkdtemp(folder));
	for (unsigned i = 0; i < 2 * ARRAY_LEN(ways); i++) {
		struct fix *f = fix_open(ways[i / 2], APF_ABI_INT, PAGES);

		snprintf(f->uri, sizeof(f->uri), "cache+%s:/proc/self/fd/%d?cache-dir=%s"
			 "&cache-size=16M&cache-key=%u%s", i % 2 ? "fault+file" : "file",
			 f->image_fd, folder, i / 2, i % 2 ? "&fault-error-after=40" : "");
		fix_run(f);
		assert_int_equal(fix_pages_done(f), PAGES);
		fix_close(f);
	}
	remove_folder(folder);
}

static void flip(int fd, off_t at)
{
	unsigned char byte;

	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 0x40;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

static void write_manifest(const char *path, const unsigned char *content, size_t len)
{
	struct zst_hasher *h = zst_hasher_open();
	unsigned char hash[ZST_HASH_BYTES];
	char text[ZST_HASH_CHARS + 1];
	FILE *f = fopen(path, "w");

	assert_non_null(h);
	assert_non_null(f);
	fprintf(f, "{\"manifest\": \"asyncpf-image\", \"version\": 1, \"hash\": \"sha256\", "
		"\"size\": %zu, \"frame_bytes\": 65536, \"frames\": [", len);
	for (size_t at = 0; at < len; at += 65536) {
		assert_int_equal(zst_hash(h, content + at, min_u64(65536, len - at), hash, NULL),
				 0);
		zst_hash_text(hash, text);
		fprintf(f, "%s\"%s\"", at ? "," : "", text);
	}
	fprintf(f, "]}");
	fclose(f);
	zst_hasher_close(h);
}

static void other_content_than_known_pauses(void **state)
{
	char folder[] = "/var/tmp/asyncpf-cache-XXXXXX", image[80], manifest[80], uri[400];
	static unsigned char content[VM_DATA_BYTES];
	static struct vm_reading r;
	struct apf_counters c;
	struct apf_error e;
	int fd;

	(void)state;
	assert_non_null(mkdtemp(folder));
	for (size_t i = 0; i < sizeof(content); i++)
		content[i] = (unsigned char)(i * 7 + i / 4096);
	snprintf(image, sizeof(image), "%s/image", folder);
	snprintf(manifest, sizeof(manifest), "%s/manifest", folder);
	fd = open(image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, content, sizeof(content)), sizeof(content));
	write_manifest(manifest, content, sizeof(content));
	flip(fd, 5000);
	vm_open(&r.v);
	r.v.config.retries_max = 1;
	snprintf(uri, sizeof(uri), "cache+file:%s?cache-dir=%s&cache-size=16M&cache-manifest=%s",
		 image, folder, manifest);
	vm_start(&r.v, uri);
	vm_read_begin(&r);
	while (apf_trouble_get(r.v.apf, &e) == 0)
		usleep(1000);
	print_message("%s\n", e.text);
	assert_non_null(strstr(e.text, "/image: byte 0: SHA-256 is "));
	/* Whole. */
	assert_non_null(strstr(e.text, ", the manifest's "));
	assert_int_equal(strspn(strstr(e.text, "manifest's ") + 11, "0123456789abcdef"),
			 ZST_HASH_CHARS);
	flip(fd, 5000);
	apf_resume(r.v.apf);
	vm_read_end(&r);
	assert_int_equal(r.rc, 0);
	assert_memory_equal(r.got, content, sizeof(content));
	apf_counters_get(r.v.apf, &c, sizeof(c));
	assert_true(c.cache_misses >= 2);
	close(fd);
	remove_folder(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_byte_is_right),
		VM_TEST(other_content_than_known_pauses),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
