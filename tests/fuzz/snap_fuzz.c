/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing entry for the file `state` of a snapshot. So that the sum does not keep everything out,
 * the input is what stands behind the header, and the header is made for it. What must hold: what
 * is refused has a reason, what is found lies within the file, and is as long as was allowed.
 */
#include <xxhash.h>

#include "bytes.h"
#include "vmm/snap/snap_state.h"

static const char *const names[] = {"machine", "machine.disk", "vcpu.regs", "vcpu.msrs", "virtio"};

static void look(const struct snap_in *in, struct snap_key key, size_t most)
{
	const void *at;
	size_t len;
	struct err e = {0};
	int rc = snap_find(in, key, most, &at, &len, &e);

	if (rc < 0) {
		must(e.code == rc && *e.text);
		return;
	}
	must(len <= most);
	must((const unsigned char *)at >= in->bytes);
	must((const unsigned char *)at + len <= in->bytes + in->len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct {
		char magic[8];
		uint32_t format, sections;
		uint64_t bytes, hash;
	} head = {.magic = "APFSTATE", .format = 1, .bytes = size};
	unsigned char *file = malloc(sizeof(head) + size);
	struct snap_in in;
	struct err e = {0};

	must(file);
	if (size > 0)
		memcpy(file + sizeof(head), data, size);
	head.sections = size > 0 ? data[size - 1] % 8 : 0;
	head.hash = XXH3_64bits(file + sizeof(head), size);
	memcpy(file, &head, sizeof(head));
	if (snap_in_take(&in, file, sizeof(head) + size, &e) == 0) {
		for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
			for (uint32_t n = 0; n < 3; n++)
				look(&in, (struct snap_key){names[i], n, 1}, i * 100);
		snap_in_free(&in);
	} else {
		must(e.code < 0 && *e.text);
	}
	free(file);
	return 0;
}
