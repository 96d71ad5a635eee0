/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing entry for a recorded working set. So that the sum does not keep everything out, the
 * input is what stands behind the header, and the header is made for it. What must hold: what is
 * refused has a reason; what is taken is whole pages that do not wrap around.
 */
#include <xxhash.h>

#include "bytes.h"
#include "vmm/snap/work_set.h"

#define MEMORY (64ull << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct {
		char magic[8];
		uint32_t format, ranges;
		uint64_t memory_bytes, hash;
	} head = {"APFTOUCH", 1, (uint32_t)(size / 16), MEMORY, 0};
	unsigned char *file = malloc(sizeof(head) + size);
	struct work_set s;
	struct err e = {0};

	must(file);
	if (size > 0)
		memcpy(file + sizeof(head), data, size);
	head.hash = XXH3_64bits(file + sizeof(head), size);
	memcpy(file, &head, sizeof(head));
	if (work_set_take(&s, file, sizeof(head) + size, MEMORY, &e) == 0) {
		must(s.count == size / 16 && size % 16 == 0);
		for (unsigned i = 0; i < s.count; i++) {
			must(s.ranges[i].len > 0 && s.ranges[i].len % 4096 == 0);
			must(s.ranges[i].gpa % 4096 == 0);
			must(s.ranges[i].gpa + s.ranges[i].len > s.ranges[i].gpa);
		}
		work_set_free(&s);
	} else {
		must(e.code < 0 && *e.text && !s.ranges);
	}
	/* And as it is. */
	if (work_set_take(&s, data, size, MEMORY, &e) == 0)
		work_set_free(&s);
	free(file);
	return 0;
}
