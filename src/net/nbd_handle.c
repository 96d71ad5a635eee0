/* SPDX-License-Identifier: Apache-2.0 */
/* See nbd_handle.h. */
#include "net/nbd_handle.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

const char *nbd_last_words(void)
{
	const char *text = nbd_get_error();
	/* It begins with the name of libnbd's function, which says nothing to a user. */
	const char *colon = text && strncmp(text, "nbd_", 4) == 0 ? strstr(text, ": ") : NULL;

	return colon ? colon + 2 : text ? text : "the connection was lost";
}

static int need_authority(const char *folder, struct err *e)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/ca-cert.pem", folder) >= (int)sizeof(path))
		errno = ENAMETOOLONG;
	else if (access(path, R_OK) == 0)
		return 0;
	return err_set(e, -errno, "the folder of certificates has no ca-cert.pem that can be read");
}

static bool set_tls(struct nbd_handle *h, const struct net_target *t)
{
	return nbd_set_tls_verify_peer(h, true) == 0 &&
	       (!t->user || nbd_set_tls_username(h, t->user) == 0) &&
	       (!t->certificates || nbd_set_tls_certificates(h, t->certificates) == 0) &&
	       (!t->keys || nbd_set_tls_psk_file(h, t->keys) == 0);
}

struct nbd_handle *nbd_handle_make(const struct net_target *t, bool asks, struct err *e)
{
	struct nbd_handle *h;

	/* libnbd would go on without, and trust anybody. */
	if (t->tls && !t->keys && need_authority(t->certificates, e) < 0)
		return NULL;
	h = nbd_create();
	if (h && nbd_set_export_name(h, t->export) == 0 &&
	    (!asks || nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0) &&
	    nbd_set_tls(h, t->tls ? LIBNBD_TLS_REQUIRE : LIBNBD_TLS_DISABLE) == 0 &&
	    (!t->tls || set_tls(h, t)))
		return h;
	(void)err_set(e, nbd_get_errno() ? -nbd_get_errno() : -EIO, "%s", nbd_last_words());
	nbd_close(h);
	return NULL;
}
