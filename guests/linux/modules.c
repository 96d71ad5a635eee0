/* SPDX-License-Identifier: Apache-2.0 */
/* Loads the kernel's modules that the initramfs holds: /modules/order names them, one a line. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest.h"

#define ORDER_BYTES 1024

static enum outcome load(const char *name)
{
	char path[128];
	long rc;
	int fd;

	snprintf(path, sizeof(path), "/modules/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return say_failed("%s", path);
	rc = syscall(SYS_finit_module, fd, "", 0);
	close(fd);
	return rc < 0 ? say_failed("module %s", name) : WELL;
}

enum outcome step_modules(const char *text)
{
	char order[ORDER_BYTES], *save = NULL;
	enum outcome outcome = WELL;

	(void)text;
	if (slurp("/modules/order", order, sizeof(order)) < 0)
		return say_failed("/modules/order");
	for (char *name = strtok_r(order, "\n", &save); name; name = strtok_r(NULL, "\n", &save))
		if (load(name) == UNWELL)
			outcome = UNWELL;
	say("{\"step\":\"modules\"}");
	return outcome;
}
