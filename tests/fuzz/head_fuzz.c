/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing entry for the header lines of an HTTP server: lines, each up to its '\n'. What must hold:
 * what is kept is a string that fits, without control characters, as it stood in a line; a range
 * that is taken is one, within its object; a status line forgets all. The same bytes are a page of
 * an S3 store's, of whose word for an error only letters and digits are taken.
 */
#include <ctype.h>

#include "bytes.h"
#include "net/http_head.h"
#include "net/s3.h"

static void check_text(const char *text)
{
	size_t len = strnlen(text, HTTP_TAG_MAX);

	must(len < HTTP_TAG_MAX);
	for (size_t i = 0; i < len; i++)
		must((unsigned char)text[i] >= ' ' && text[i] != 0x7f);
}

static void check_page(const uint8_t *data, size_t size)
{
	char *page = malloc(size + 1), code[S3_CODE_MAX + 2];
	size_t len;

	must(page != NULL);
	memcpy(page, data, size);
	page[size] = '\0';
	must(s3_code(page, code) == code);
	len = strnlen(code, sizeof(code));
	must(len < sizeof(code) && len != 1 && (len == 0 || code[0] == ' '));
	for (size_t i = 1; i < len; i++)
		must(isalnum((unsigned char)code[i]));
	free(page);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct http_head h = {.ranged = false};

	if (size > 0)
		check_page(data, size);
	while (size > 0) {
		const uint8_t *end = memchr(data, '\n', size);
		size_t len = end ? (size_t)(end - data) : size;
		/* A copy of that size: a byte too far is seen. */
		char *line = malloc(len + 1);

		must(line != NULL);
		memcpy(line, data, len);
		http_head_line(&h, line, len);
		if (len >= 5 && memcmp(line, "HTTP/", 5) == 0)
			must(!h.ranged && !h.bad && !h.etag[0] && !h.modified[0]);
		check_text(h.etag);
		check_text(h.modified);
		must(!h.ranged || (h.first <= h.last && (h.total == 0 || h.last < h.total)));
		(void)http_etag_is_strong(h.etag);
		free(line);
		len += end != NULL;
		data += len;
		size -= len;
	}
	return 0;
}
