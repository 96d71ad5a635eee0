/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing entry for compressed images and their manifests. The first byte says which. An image:
 * what must hold is that a table that was taken covers the file exactly, that the frame of each
 * byte is found, and that a frame is decompressed to as many bytes as the table says, or refused by
 * a reason. A manifest: what was taken has as many hashes as its size tells.
 */
#include "bytes.h"
#include "source/zst_manifest.h"

/* Of a frame that is decompressed here; the table may tell of larger ones. */
#define PLAIN_MAX (1u << 20)
#define FRAMES_DECODED 64u

static void said(const struct err *e, int rc)
{
	must(rc < 0 && e->code == rc && *e->text && strlen(e->text) < ERR_TEXT_MAX);
}

static void check_table(const struct zst_table *t, uint64_t packed)
{
	must(t->packed[0] == 0 && t->plain[0] == 0 && t->packed[t->frames] == packed);
	for (uint32_t i = 0; i < t->frames; i++) {
		must(t->packed[i] <= t->packed[i + 1] && t->plain[i] <= t->plain[i + 1]);
		must(t->plain[i + 1] - t->plain[i] <= ZST_FRAME_BYTES_MAX);
		if (t->plain[i] == t->plain[i + 1])
			continue;
		must(zst_table_find(t, t->plain[i]) == i);
		must(zst_table_find(t, t->plain[i + 1] - 1) == i);
	}
}

static void decode_frames(const struct zst_table *t, const unsigned char *file)
{
	ZSTD_DCtx *context = ZSTD_createDCtx();

	must(context);
	for (uint32_t i = 0; i < t->frames && i < FRAMES_DECODED; i++) {
		uint64_t len = t->plain[i + 1] - t->plain[i];
		const struct zst_content want = {(uint32_t)len, t->sums ? &t->sums[i] : NULL, NULL};
		unsigned char *plain;
		struct err e = {0};
		int rc;

		if (len > PLAIN_MAX)
			continue;
		plain = malloc(len + 1);
		must(plain);
		plain[len] = 0xee;
		rc = zst_frame_decode(context, NULL, file + t->packed[i],
				      t->packed[i + 1] - t->packed[i], plain, &want, &e);
		if (rc < 0)
			said(&e, rc);
		must(plain[len] == 0xee);
		free(plain);
	}
	ZSTD_freeDCtx(context);
}

static void image(const uint8_t *data, size_t size)
{
	struct zst_table t = {0};
	struct zst_footer f;
	struct err e = {0};
	int rc;

	if (size < ZST_FOOTER_BYTES)
		return;
	rc = zst_footer_parse(data + size - ZST_FOOTER_BYTES, size, &f, &e);
	if (rc < 0) {
		said(&e, rc);
		return;
	}
	must(f.table_bytes <= size && f.frames <= size);
	t.packed = calloc(f.frames + 1, sizeof(*t.packed));
	t.plain = calloc(f.frames + 1, sizeof(*t.plain));
	t.sums = f.checksums ? calloc(f.frames + 1, sizeof(*t.sums)) : NULL;
	must(t.packed && t.plain);
	rc = zst_table_parse(data + size - f.table_bytes, &f, size, &t, &e);
	if (rc < 0) {
		said(&e, rc);
	} else {
		check_table(&t, size - f.table_bytes);
		decode_frames(&t, data);
	}
	free(t.packed);
	free(t.plain);
	free(t.sums);
}

static void manifest(const uint8_t *data, size_t size)
{
	struct zst_manifest m;
	struct err e = {0};
	int rc = zst_manifest_parse((const char *)data, size, &m, &e);

	if (rc < 0) {
		said(&e, rc);
		return;
	}
	must(m.frames > 0 && m.size > 0 && (m.size - 1) / m.frame_bytes + 1 == m.frames);
	must(size > (size_t)m.frames * ZST_HASH_CHARS);
	must(m.hashes[(size_t)m.frames * ZST_HASH_BYTES - 1] <= 0xff);
	zst_manifest_fini(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	if (data[0] == 'm')
		manifest(data + 1, size - 1);
	else
		image(data + 1, size - 1);
	return 0;
}
