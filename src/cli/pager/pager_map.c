/* SPDX-License-Identifier: Apache-2.0 */
/* The file of rules. See pager_cmd.h. Test: tests/integration/pager_test.py. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/pager/pager_cmd.h"

#define MAP_FILE_MAX (1u << 20)
/* A pipe whose writer is silent for so long is no map. */
#define MAP_WAIT_MS 5000

static int take_rule(void *ctx, const struct rule *r, struct err *e)
{
	struct pager_rules *to = ctx;
	struct rule *list = realloc(to->list, (to->count + 1) * sizeof(*list));

	if (!list)
		return err_set(e, -ENOMEM, "out of memory");
	to->list = list;
	to->list[to->count++] = *r;
	return 0;
}

static ssize_t read_soon(int fd, char *buf, size_t len)
{
	struct pollfd in = {.fd = fd, .events = POLLIN};
	int n = poll(&in, 1, MAP_WAIT_MS);

	if (n > 0)
		return read(fd, buf, len);
	errno = n == 0 ? ETIMEDOUT : errno;
	return -1;
}

static int read_text(int fd, const char *path, char *text, size_t *ret_len, struct err *e)
{
	size_t len = 0;
	ssize_t n = 1;

	while (n > 0 && len < MAP_FILE_MAX) {
		n = read_soon(fd, text + len, MAP_FILE_MAX - len);
		len += n > 0 ? (size_t)n : 0;
	}
	if (n < 0 && errno == ETIMEDOUT)
		return err_set(e, -ENXIO, "cannot read: %.100s: a pipe that nobody writes to; "
			       "start its writer first, or give --map a file", path);
	if (n < 0)
		return err_sys(e, -errno, "cannot read: %.100s", path);
	if (len == MAP_FILE_MAX)
		return err_set(e, -E2BIG, "cannot read: %.100s: larger than 1 MiB; see "
			       "asyncpf-pager(1)", path);
	*ret_len = len;
	return 0;
}

int pager_map_read(const char *path, struct pager_rules *ret, struct err *e)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC), rc;
	char *text = fd < 0 ? NULL : malloc(MAP_FILE_MAX);
	struct err why = {0};
	size_t len = 0;

	if (fd < 0)
		return err_sys(e, -errno, "cannot read: %.100s", path);
	if (!text)
		rc = err_set(e, -ENOMEM, "cannot read: %.100s: out of memory", path);
	else
		rc = read_text(fd, path, text, &len, e);
	if (rc == 0) {
		rc = rules_parse(text, len, take_rule, ret, &why);
		if (rc < 0)
			(void)err_set(e, rc, "map %.100s: %.110s%s", path, why.text,
				      strstr(why.text, "; ") ? "" : "; see asyncpf-pager(1)");
	}
	close(fd);
	free(text);
	return rc;
}
