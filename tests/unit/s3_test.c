/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net/s3.c: the address of an object, by each kind of endpoint and bucket, and whose credentials
 * sign for it. What servers make of it: tests/integration/net_s3_test.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/types.h"
#include "net/s3.h"

struct files {
	char folder[32];
	char credentials[64], config[64];
};

static void put(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

/* Nothing of this process's own settings counts. */
static int begin(void **state)
{
	static const char *const names[] = {
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE",
		"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
	};
	struct files *f = test_calloc(1, sizeof(*f));

	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		unsetenv(names[i]);
	snprintf(f->folder, sizeof(f->folder), "/tmp/s3_test.XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->credentials, sizeof(f->credentials), "%s/credentials", f->folder);
	snprintf(f->config, sizeof(f->config), "%s/config", f->folder);
	setenv("AWS_SHARED_CREDENTIALS_FILE", f->credentials, 1);
	setenv("AWS_CONFIG_FILE", f->config, 1);
	put(f->credentials, "[default]\naws_access_key_id=A\naws_secret_access_key=a\n");
	put(f->config, "");
	*state = f;
	return 0;
}

static int end(void **state)
{
	struct files *f = *state;

	unlink(f->credentials);
	unlink(f->config);
	rmdir(f->folder);
	test_free(f);
	return 0;
}

static void addresses(void **state)
{
	static const struct {
		const char *bucket, *endpoint;
		enum net_s3_style style;
		const char *url;
	} all[] = {
		{"vms", NULL, NET_S3_ANY, "https://vms.s3.eu-north-7.amazonaws.com/a/b"},
		/* Names that no certificate is good for, or that are none of a host. */
		{"v.ms", NULL, NET_S3_ANY, "https://s3.eu-north-7.amazonaws.com/v.ms/a/b"},
		{"v_ms", NULL, NET_S3_ANY, "https://s3.eu-north-7.amazonaws.com/v_ms/a/b"},
		{"-vms", NULL, NET_S3_ANY, "https://s3.eu-north-7.amazonaws.com/-vms/a/b"},
		{"vms", NULL, NET_S3_PATH, "https://s3.eu-north-7.amazonaws.com/vms/a/b"},
		{"vms", "http://store", NET_S3_ANY, "http://store/vms/a/b"},
		{"vms", "http://store", NET_S3_HOST, "http://vms.store/a/b"},
		/* The usual port is left out, as it is of what is signed. */
		{"vms", "http://store:80", NET_S3_ANY, "http://store/vms/a/b"},
		{"vms", "https://store:443/", NET_S3_ANY, "https://store/vms/a/b"},
		{"vms", "http://store:443", NET_S3_ANY, "http://store:443/vms/a/b"},
		{"vms", "https://Store:80", NET_S3_ANY, "https://store:80/vms/a/b"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		const struct net_target t = {
			.bucket = all[i].bucket, .object = "a/b", .region = "eu-north-7",
			.endpoint = all[i].endpoint, .style = all[i].style};
		struct err e = {0};
		struct s3 *s;

		if (s3_open(&t, &s, &e) < 0)
			fail_msg("%s: %s", all[i].url, e.text);
		assert_string_equal(s3_url(s), all[i].url);
		s3_close(s);
	}
}

static void refused(const struct net_target *t, int code, const char *says)
{
	struct err e = {0};
	struct s3 *s;

	assert_int_equal(s3_open(t, &s, &e), code);
	if (!strstr(e.text, says))
		fail_msg("'%s' is not in '%s'", says, e.text);
}

/* It is part of an address, and of what is signed. */
static void regions(void **state)
{
	struct net_target t = {.bucket = "vms", .object = "a", .region = "eu/north"};

	(void)state;
	refused(&t, -EINVAL, "the region is not letters");
	t.region = NULL;
	setenv("AWS_REGION", "eu.north", 1);
	refused(&t, -EINVAL, "the region is not letters");
}

/* Half of one file and half of the other do not belong together. */
static void credentials_of_two_files(void **state)
{
	const struct net_target t = {.bucket = "vms", .object = "a"};
	const struct files *f = *state;

	put(f->credentials, "[default]\naws_access_key_id=A\n");
	put(f->config, "[default]\naws_secret_access_key=b\n");
	refused(&t, -EACCES, "no credentials");
	put(f->credentials, "[default]\naws_secret_access_key=a\n");
	put(f->config, "[default]\naws_access_key_id=B\n");
	refused(&t, -EACCES, "no credentials");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(addresses, begin, end),
		cmocka_unit_test_setup_teardown(regions, begin, end),
		cmocka_unit_test_setup_teardown(credentials_of_two_files, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
