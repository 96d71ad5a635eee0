/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing entry for the files with settings of Amazon's programs. What must hold: what is taken is
 * a text that fits, without control characters, and stands in the file; without its section there
 * is nothing.
 */
#include "bytes.h"
#include "net/aws_config.h"

#define ROOM 24

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const sections[] = {"default", "profile x"};
	/* Of that size: a byte too far is seen. */
	char *text = malloc(size + 1);

	must(text != NULL);
	memcpy(text, data, size);
	for (unsigned i = 0; i < 2; i++) {
		char key[ROOM] = "", secret[ROOM] = "";
		struct aws_wanted wanted[] = {
			{.key = "aws_access_key_id", .to = key, .room = sizeof(key)},
			{.key = "aws_secret_access_key", .to = secret, .room = sizeof(secret)},
		};

		if (!aws_config_read(text, size, sections[i], wanted, 2))
			must(!key[0] && !secret[0] && !wanted[0].bad && !wanted[1].bad);
		for (unsigned k = 0; k < 2; k++) {
			size_t len = strnlen(wanted[k].to, ROOM);

			must(len < ROOM);
			must(len == 0 || memmem(text, size, wanted[k].to, len) != NULL);
			for (size_t c = 0; c < len; c++)
				must((unsigned char)wanted[k].to[c] >= ' ');
		}
	}
	free(text);
	return 0;
}
