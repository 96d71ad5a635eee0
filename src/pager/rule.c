/* SPDX-License-Identifier: Apache-2.0 */
/* See rule.h. */
#include "pager/rule.h"

#include <errno.h>
#include <string.h>

#include "pager/json_in.h"

#define NAME_MAX_BYTES 64u

static int take_member(struct json_in *j, struct rule *r, struct err *e)
{
	char name[NAME_MAX_BYTES], *to;
	size_t room;
	int rc = json_in_name(j, name, sizeof(name));

	if (rc < 0)
		return err_set(e, -EINVAL, "a rule's member has no name");
	if (strcmp(name, "listen") == 0) {
		to = r->socket;
		room = sizeof(r->socket);
	} else if (strcmp(name, "source") == 0) {
		to = r->uri;
		room = sizeof(r->uri);
	} else {
		/* A slip would go unnoticed otherwise. */
		return err_set(e, -EINVAL, "a rule has no member '%.40s'; there are listen and "
			       "source", name);
	}
	if (*to)
		return err_set(e, -EINVAL, "a rule's member '%s' stands twice", name);
	if (json_in_text(j, to, room) < 0)
		return err_set(e, -EINVAL, "a rule's member '%s' is a text of at most %zu bytes",
			       name, room - 1);
	return 0;
}

static int take_rule(struct json_in *j, struct rule *r, struct err *e)
{
	bool first = true;
	int rc = json_in_open(j, '{');

	memset(r, 0, sizeof(*r));
	if (rc < 0)
		return err_set(e, -EINVAL, "a rule is an object, as in {\"listen\": \"SOCKET\", "
			       "\"source\": \"URI\"}");
	for (;;) {
		rc = json_in_more(j, '}', &first);
		if (rc < 0)
			return err_set(e, -EINVAL, "a rule does not end as a JSON object");
		if (rc == 0)
			break;
		rc = take_member(j, r, e);
		if (rc < 0)
			return rc;
	}
	if (!*r->socket || !*r->uri)
		return err_set(e, -EINVAL, "a rule needs listen and source");
	return 0;
}

int rule_parse(const char *text, size_t len, struct rule *ret, struct err *e)
{
	struct json_in j = {.at = text, .end = text + len};
	int rc = take_rule(&j, ret, e);

	if (rc == 0 && json_in_end(&j) < 0)
		rc = err_set(e, -EINVAL, "something follows the rule");
	return rc;
}

int rules_parse(const char *text, size_t len, rule_taker *take, void *ctx, struct err *e)
{
	struct json_in j = {.at = text, .end = text + len};
	bool first = true;
	int rc = json_in_open(&j, '[');

	if (rc < 0)
		return err_set(e, -EINVAL, "it is no JSON array of rules");
	for (unsigned n = 0;; n++) {
		struct rule r;

		rc = json_in_more(&j, ']', &first);
		if (rc < 0)
			return err_set(e, -EINVAL, "behind rule %u: no JSON", n);
		if (rc == 0)
			break;
		if (n == RULES_MAX)
			return err_set(e, -EINVAL, "more than %u rules", RULES_MAX);
		rc = take_rule(&j, &r, e);
		if (rc == 0)
			rc = take(ctx, &r, e);
		if (rc < 0)
			return rc;
	}
	if (json_in_end(&j) < 0)
		return err_set(e, -EINVAL, "something follows the rules");
	return 0;
}
