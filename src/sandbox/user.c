/* SPDX-License-Identifier: Apache-2.0 */
/* Whose rights a thread has. See sandbox.h. */
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/types.h"
#include "sandbox/sandbox.h"

#define NAME_BYTES 64
#define ENTRY_BYTES 4096

/* Digits only. (uid_t)-1 is "leave it" to the kernel. */
static bool number(const char *text, unsigned *ret)
{
	unsigned long value;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || *end || value >= UINT_MAX)
		return false;
	*ret = (unsigned)value;
	return true;
}

int sandbox_user_parse(const char *text, struct sandbox_user *ret, struct err *e)
{
	const char *colon = strchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : strlen(text);
	char name[NAME_BYTES], buf[ENTRY_BYTES];
	struct passwd entry, *found = NULL;
	struct sandbox_user user = {.given = true};

	if (len == 0 || len >= sizeof(name) || (colon && !number(colon + 1, &user.gid)))
		return err_set(e, -EINVAL, "bad value: --user %.60s: NAME or a number, and after a "
			       "colon the number of a group", text);
	snprintf(name, sizeof(name), "%.*s", (int)len, text);
	if (number(name, &user.uid))
		(void)getpwuid_r(user.uid, &entry, buf, sizeof(buf), &found);
	else if (getpwnam_r(name, &entry, buf, sizeof(buf), &found) == 0 && found)
		user.uid = found->pw_uid;
	else
		return err_set(e, -EINVAL, "bad value: --user %.60s: there is no such user; name "
			       "one, or give a number", text);
	if (!colon && !found)
		return err_set(e, -EINVAL, "bad value: --user %.60s: that user has no entry, so "
			       "that the group is unknown; write --user %s:GID", text, name);
	if (!colon)
		user.gid = found->pw_gid;
	*ret = user;
	return 0;
}
