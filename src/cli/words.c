/* SPDX-License-Identifier: Apache-2.0 */
/* See words.h. */
#include "cli/words.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void words_add(struct words *w, const char *fmt, ...)
{
	char **list = realloc(w->list, (w->count + 2) * sizeof(*list));
	va_list ap;

	if (!list) {
		w->err = -ENOMEM;
		return;
	}
	w->list = list;
	list[w->count] = NULL;
	list[w->count + 1] = NULL;
	va_start(ap, fmt);
	if (vasprintf(&list[w->count], fmt, ap) < 0) {
		list[w->count] = NULL;
		w->err = -ENOMEM;
	} else {
		w->count++;
	}
	va_end(ap);
}

void words_free(struct words *w)
{
	for (size_t i = 0; i < w->count; i++)
		free(w->list[i]);
	free(w->list);
	*w = (struct words){0};
}
