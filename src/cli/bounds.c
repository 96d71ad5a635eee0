/* SPDX-License-Identifier: Apache-2.0 */
/* See bounds.h. */
#include "cli/bounds.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/types.h"
#include "source/source.h"

static void insert(struct bounds_fds *f, unsigned fd)
{
	unsigned at = f->count;

	for (unsigned i = 0; i < f->count; i++)
		if (f->fds[i] == fd)
			return;
	ASSERT(f->count < BOUNDS_FDS_MAX);
	for (; at > 0 && f->fds[at - 1] > fd; at--)
		f->fds[at] = f->fds[at - 1];
	f->fds[at] = fd;
	f->count++;
}

void bounds_add(struct bounds_fds *f, const char *path)
{
	static const char *const folders[] = {"/dev/fd/", "/proc/self/fd/"};

	for (unsigned i = 0; path && i < ARRAY_LEN(folders); i++) {
		size_t len = strlen(folders[i]);
		char *end;
		unsigned long fd;

		if (strncmp(path, folders[i], len) != 0)
			continue;
		errno = 0;
		fd = strtoul(path + len, &end, 10);
		if (errno == 0 && end > path + len && (*end == '\0' || *end == '/') &&
		    fd > STDERR_FILENO && fd <= INT32_MAX)
			insert(f, (unsigned)fd);
	}
}

static int add_use(void *ctx, enum src_use use, const char *path, struct err *e)
{
	(void)use;
	(void)e;
	bounds_add(ctx, path);
	return 0;
}

void bounds_add_source(struct bounds_fds *f, const char *uri)
{
	if (uri)
		(void)src_uses(uri, add_use, f, NULL);
}

/* One that is not open would come to be one of ours. */
static int close_others(const struct bounds_fds *keep, struct err *e)
{
	unsigned from = STDERR_FILENO + 1;

	for (unsigned i = 0; i < keep->count; i++) {
		if (fcntl((int)keep->fds[i], F_GETFD) < 0)
			return err_set(e, -EBADF, "descriptor %u: an option names it, and it was "
				       "not open when the command was started; check the option",
				       keep->fds[i]);
		if (keep->fds[i] > from)
			(void)close_range(from, keep->fds[i] - 1, 0);
		from = keep->fds[i] + 1;
	}
	(void)close_range(from, ~0u, 0);
	return 0;
}

int bounds_open(enum cli_sandbox word, const struct bounds_fds *keep,
		const struct sandbox_cfg *cfg, bool quiet, struct sandbox **ret, struct err *e)
{
	int missing = 0, rc;

	*ret = NULL;
	if (word == CLI_SANDBOX_OFF)
		return 0;
	rc = close_others(keep, e);
	if (rc < 0)
		return rc;
	rc = sandbox_open(cfg, ret, &missing, e);
	if (rc == 0 && missing < 0 && !quiet)
		cli_error("note: the sandbox is weak: system calls cannot be filtered here (%s); "
			  "see 'asyncpf doctor'", strerror(-missing));
	return rc;
}

void bounds_opened(enum cli_sandbox word, const struct bounds_fds *named)
{
	for (unsigned i = 0; word != CLI_SANDBOX_OFF && i < named->count; i++)
		(void)close((int)named->fds[i]);
}

/* ---- sources over a network ---- */

/*
 * Who servers are: names and certificates. S3's credentials besides. What is not there is left
 * out; those that are links lead to others.
 */
static const char *const of_network[] = {
	"/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/gai.conf", "/etc/nsswitch.conf",
	"/etc/services", "/etc/passwd", "/etc/localtime", "/etc/ssl", "/etc/pki", "/etc/gnutls",
	"/etc/crypto-policies", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
	"/usr/lib/ssl", "/usr/share/zoneinfo", "/dev/urandom",
};
static const char *const of_environment[] = {
	"AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "CURL_CA_BUNDLE", "SSL_CERT_FILE",
	"SSL_CERT_DIR",
};

/* The folder of S3's files; "" where it is not known. */
static void home_aws(char path[static PATH_MAX])
{
	const char *home = secure_getenv("HOME");
	struct passwd entry, *found = NULL;
	char text[1024];

	if ((!home || !*home) && getpwuid_r(geteuid(), &entry, text, sizeof(text), &found) == 0 &&
	    found)
		home = found->pw_dir;
	if (!home || snprintf(path, PATH_MAX, "%s/.aws", home) >= PATH_MAX)
		*path = '\0';
}

_Static_assert(ARRAY_LEN(of_network) + ARRAY_LEN(of_environment) + 1 <= BOUNDS_NETWORK_MAX,
	       "room for all");

unsigned bounds_network(struct sandbox_path to[static BOUNDS_NETWORK_MAX],
			char aws[static PATH_MAX])
{
	const enum sandbox_role role = SANDBOX_SOURCES;
	unsigned count = 0;

	home_aws(aws);
	for (unsigned i = 0; i < ARRAY_LEN(of_network); i++)
		to[count++] = (struct sandbox_path){role, LANDLOCK_READS, of_network[i]};
	for (unsigned i = 0; i < ARRAY_LEN(of_environment); i++) {
		const char *path = secure_getenv(of_environment[i]);

		if (path)
			to[count++] = (struct sandbox_path){role, LANDLOCK_READS, path};
	}
	to[count++] = (struct sandbox_path){role, LANDLOCK_READS, aws};
	return count;
}
