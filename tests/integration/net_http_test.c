/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources by HTTP, as far as that is not true of every source (net_servers_test.c): from a server
 * that does what none should, everything ends as it must: what comes right when it is asked for
 * again is asked for again, from the very first answer on; a changed object is an error.
 */
#include "net_servers_fixture.h"
#include "need_kvm.h"

#include <sys/resource.h>

static const char *uri_of(const struct site *w, const char *scheme, const char *rest)
{
	static char uri[256];

	snprintf(uri, sizeof(uri), "%s://localhost:%d/%s", scheme, w->s.port, rest);
	return uri;
}

static void urls_with_a_query(void **state)
{
	static const struct {
		const char *scheme, *rest;
		uint32_t block;
	} runs[] = {
		{"http", "image?token=1&x=%3F#net-connections=1", 1 << 20},
		{"delay+http", "image?a=b#us=300&jitter-us=2000", 4096},
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(runs); i++) {
		struct site w;

		site_open(&w, APF_FAULTS_USER);
		nginx(&w, "", "");
		net_run(w.f, uri_of(&w, runs[i].scheme, runs[i].rest), runs[i].block);
		site_close(&w);
	}
}

/* Whether nginx has been asked by that version of HTTP. */
static bool was_asked_by(const struct site *w, const char *version)
{
	char path[SVC_PATH_MAX], line[512];
	FILE *f = fopen(svc_path(&w->s, "access", path), "r");
	bool found = false;

	assert_non_null(f);
	while (!found && fgets(line, sizeof(line), f))
		found = strstr(line, version) != NULL;
	fclose(f);
	return found;
}

static void tls(void **state)
{
	static const char *const protocols[] = {"ssl", "ssl http2"};
	char rest[SVC_PATH_MAX + 64], uri[256];

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(protocols); i++) {
		struct site w;

		site_open(&w, APF_FAULTS_USER);
		svc_certificates(&w.s, SITE_HOST, 2);
		nginx_tls(&w, protocols[i]);
		snprintf(rest, sizeof(rest), "image#http-ca=%s/ca-cert.pem", w.s.dir);
		net_run(w.f, uri_of(&w, "https", rest), 4096);
		assert_int_equal(was_asked_by(&w, " HTTP/2.0\""), i == 1);
		/* By the environment, as the command curl has it. */
		snprintf(uri, sizeof(uri), "%s/ca-cert.pem", w.s.dir);
		setenv("CURL_CA_BUNDLE", uri, 1);
		net_run(w.f, uri_of(&w, "https", "image"), 4096);
		unsetenv("CURL_CA_BUNDLE");
		hub_refused(uri_of(&w, "https", "image"), -EIO, "certificate");
		site_close(&w);
	}
}

/* ---- trouble with a good server ---- */

/* The file is replaced by another one of the same size; then the old one is back. */
static void replaced(void **state)
{
	struct net_vm v;
	struct site w;
	char path[SVC_PATH_MAX], aside[SVC_PATH_MAX];

	(void)state;
	site_open(&w, APF_FAULTS_USER);
	nginx(&w, "", "");
	net_vm_open(&v);
	v.v.config.retries_max = 0;
	net_vm_start(&v, uri_of(&w, "http", "image"));
	net_read(&v, 0, PAGE_BYTES, w.image);
	assert_int_equal(rename(svc_path(&w.s, "image", path), svc_path(&w.s, "aside", aside)), 0);
	svc_write(&w.s, "image", w.image, NET_BYTES - 1);
	net_read_begin(&v, 64 * PAGE_BYTES, PAGE_BYTES);
	net_wait_paused(&v);
	assert_non_null(strstr(v.paused, "the object has changed since it was opened (412)"));
	assert_int_equal(rename(aside, path), 0);
	apf_resume(v.v.apf);
	net_read_end(&v, w.image);
	net_vm_close(&v);
	site_close(&w);
}

/* It is not there any more: an error at once; as soon as it is back, it is read on. */
static void deleted_and_back(void **state)
{
	static struct hub h;
	struct site w;
	char path[SVC_PATH_MAX], aside[SVC_PATH_MAX];

	(void)state;
	site_open(&w, APF_FAULTS_USER);
	nginx(&w, "", "");
	hub_open(&h, uri_of(&w, "http", "image"));
	svc_path(&w.s, "image", path);
	svc_path(&w.s, "aside", aside);
	assert_int_equal(rename(path, aside), 0);
	(void)hub_read(&h, 3 * PAGE_BYTES, PAGE_BYTES, true);
	hub_wait(&h, 1);
	assert_int_equal(h.reads[0].code, -ENOENT);
	assert_non_null(strstr(h.reads[0].why, "no such object (404)"));
	assert_int_equal(rename(aside, path), 0);
	(void)hub_read(&h, 3 * PAGE_BYTES, PAGE_BYTES, true);
	hub_wait(&h, 2);
	assert_int_equal(h.reads[1].code, 0);
	hub_check(&h, w.image);
	hub_close(&h);
	site_close(&w);
}

static void not_opened(void **state)
{
	struct site w;
	char uri[256];

	(void)state;
	site_open(&w, APF_FAULTS_USER);
	svc_write(&w.s, "empty", "", 0);
	nginx(&w, "", "location /none { deny all; }");
	hub_refused(uri_of(&w, "http", "nothing?secret=1"), -ENOENT, "no such object (404)");
	hub_refused(uri_of(&w, "http", "none?secret=1"), -EACCES, "refuses access (403)");
	hub_refused(uri_of(&w, "http", "empty"), -EPROTO, "(200)");
	hub_refused("http://me:secret@127.0.0.1:1/x?secret", -EIO, "open http://127.0.0.1:1/x: ");
	hub_refused("http://nobody.invalid/x", -EIO, "resolve");
	snprintf(uri, sizeof(uri), "qemu+http://me:secret@localhost:%d/image?secret=1", w.s.port);
	hub_refused(uri, -EINVAL, "no file of QEMU's migration");
	hub_refused("fault+http://h/x?fault-error-at=1", -EINVAL, "stand after '#'");
	site_close(&w);
}

/* ---- a server that goes wrong ---- */

static void say(const struct site *w, const char *order)
{
	svc_order(&w->s, w->control, order);
}

static void odd(struct site *w)
{
	char port[16], image[SVC_PATH_MAX];
	const char *argv[] = {"python3", ODD_HTTP, port, image, w->control, NULL};

	site_open(w, APF_FAULTS_USER);
	svc_path(&w->s, "image", image);
	svc_path(&w->s, "control", w->control);
	snprintf(port, sizeof(port), "%d", svc_free_port(&w->s));
	say(w, "well");
	svc_start(&w->s, argv);
	svc_wait_port(&w->s);
}

/* Asked for again, and right. */
static void comes_right(void **state)
{
	static const char *const orders[] = {"reset 3", "short 3", "less 2", "500 3", "502 1",
					     "408 1", "503 2", "429 1", "loris 1", "mute 1",
					     "garbage 3", "weird 3"};
	static struct hub h;
	struct site w;

	(void)state;
	odd(&w);
	for (unsigned i = 0; i < ARRAY_LEN(orders); i++) {
		hub_open(&h, uri_of(&w, "http", "image#net-stall-ms=150"));
		say(&w, orders[i]);
		for (unsigned k = 0; k < 4; k++)
			(void)hub_read(&h, (3 + 100 * k) * PAGE_BYTES, PAGE_BYTES, false);
		hub_wait(&h, 4);
		for (unsigned k = 0; k < 4; k++)
			if (h.reads[k].code != 0)
				print_error("%s: %s\n", orders[i], h.reads[k].why);
		for (unsigned k = 0; k < 4; k++)
			assert_int_equal(h.reads[k].code, 0);
		hub_check(&h, w.image);
		hub_close(&h);
	}
	site_close(&w);
}

/* The same of the first answer of all; but not for ever. */
static void opening_comes_right(void **state)
{
	static const char *const orders[] = {"reset 3", "short 3", "500 3", "502 5", "408 1",
					     "503 2", "429 1", "mute 1"};
	static struct hub h;
	struct site w;

	(void)state;
	odd(&w);
	for (unsigned i = 0; i < ARRAY_LEN(orders); i++) {
		print_message("%s\n", orders[i]);
		say(&w, orders[i]);
		hub_open(&h, uri_of(&w, "http", "image#net-stall-ms=150"));
		(void)hub_read(&h, 3 * PAGE_BYTES, PAGE_BYTES, false);
		hub_wait(&h, 1);
		assert_int_equal(h.reads[0].code, 0);
		hub_check(&h, w.image);
		hub_close(&h);
	}
	say(&w, "500 6");
	hub_refused(uri_of(&w, "http", "image"), -EIO, "status 500");
	say(&w, "reset 6");
	hub_refused(uri_of(&w, "http", "image"), -EIO, "open http://localhost");
	say(&w, "huge");
	hub_refused(uri_of(&w, "http", "image"), -ENOTSUP, "cannot be as large");
	say(&w, "mute");
	hub_refused(uri_of(&w, "http", "image#net-connect-ms=1500&net-stall-ms=150"), -ETIMEDOUT,
		    "for 1500 ms");
	site_close(&w);
}

static void retry_after_is_kept(void **state)
{
	static struct hub h;
	struct site w;
	struct timespec a, b;

	(void)state;
	odd(&w);
	hub_open(&h, uri_of(&w, "http", "image"));
	say(&w, "503 1 later");
	clock_gettime(CLOCK_MONOTONIC, &a);
	(void)hub_read(&h, 0, PAGE_BYTES, false);
	hub_wait(&h, 1);
	clock_gettime(CLOCK_MONOTONIC, &b);
	assert_int_equal(h.reads[0].code, 0);
	/* Without it a twentieth of that. */
	assert_true((b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000 >= 900);
	hub_check(&h, w.image);
	hub_close(&h);
	site_close(&w);
}

/* An order for the odd server; how a read ends then, 0 with the right bytes, and what it says. */
struct odd_case {
	const char *order;
	int code;
	const char *says;
};

static void check_odd(struct site *w, const struct odd_case *c, uint64_t at, uint32_t len)
{
	static struct hub h;

	say(w, "well");
	hub_open(&h, uri_of(w, "http", "image?secret=1"));
	say(w, c->order);
	(void)hub_read(&h, at, len, false);
	hub_wait(&h, 1);
	print_message("%s: %d %s\n", c->order, h.reads[0].code, h.reads[0].why);
	assert_int_equal(h.reads[0].code, c->code);
	assert_non_null(strstr(h.reads[0].why, c->says));
	assert_null(strstr(h.reads[0].why, "secret"));
	hub_check(&h, w->image);
	hub_close(&h);
}

/* An error, with its words, and not one byte taken. */
static void is_an_error(void **state)
{
	static const struct odd_case cases[] = {
		{"404", -ENOENT, "no such object (404)"},
		{"410", -ENOENT, "no such object (410)"},
		{"403", -EACCES, "refuses access (403)"},
		{"412", -ESTALE, "has changed"},
		{"416", -ESTALE, "shorter"},
		{"418", -EIO, "status 418"},
		{"whole", -EPROTO, "the whole object (200)"},
		{"other", -EPROTO, "were asked for"},
		{"more", -EPROTO, "were asked for"},
		{"changed", -ESTALE, "its ETag is another"},
		{"resized", -ESTALE, "its size is another"},
		{"weak", -ESTALE, "its ETag is another"},
		{"gzip", -EPROTO, "encoded"},
		{"reset", -EIO, ""},
		{"500", -EIO, "status 500"},
		{"loop", -EIO, "redirects"},
		{"away", -EIO, "ftp"},
	};
	struct site w;

	(void)state;
	odd(&w);
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
		check_odd(&w, &cases[i], 3 * PAGE_BYTES, 8192);
	site_close(&w);
}

/* The beginning of what was asked for is an answer; each one is of the same object. */
static void shorter_answers(void **state)
{
	static const struct odd_case cases[] = {
		{"caps", 0, ""},
		{"crumbs 5", 0, ""},
		{"crumbs", -EIO, "the server sent 1 bytes of 1048571"},
		{"turns", -ESTALE, "its ETag is another"},
		{"lies 5", 0, ""},
		{"lies", -EIO, "the server sent 524288 bytes of 1048576"},
	};
	static struct hub h;
	struct site w;

	(void)state;
	odd(&w);
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
		check_odd(&w, &cases[i], 0, 1 << 20);
	/* Neighbours in one request. */
	say(&w, "well");
	hub_open(&h, uri_of(&w, "http", "image"));
	say(&w, "caps");
	for (unsigned i = 0; i < 40; i++)
		(void)hub_read(&h, (7 + i) * PAGE_BYTES, PAGE_BYTES, false);
	hub_wait(&h, 40);
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(h.reads[i].code, 0);
	hub_check(&h, w.image);
	hub_close(&h);
	site_close(&w);
}

/* The place that it moved to is good for a while only: then the URL is asked again. */
static void moved(void **state)
{
	static const char *const ends[] = {"expired", "token"};
	static struct hub h;
	struct site w;

	(void)state;
	odd(&w);
	say(&w, "moved");
	hub_open(&h, uri_of(&w, "http", "moved"));
	say(&w, "403 1");
	(void)hub_read(&h, 0, PAGE_BYTES, false);
	hub_wait(&h, 1);
	assert_int_equal(h.reads[0].code, 0);
	hub_check(&h, w.image);
	hub_close(&h);
	/* To all that are under way. */
	for (unsigned k = 0; k < ARRAY_LEN(ends); k++) {
		say(&w, "moved");
		hub_open(&h, uri_of(&w, "http", "moved"));
		say(&w, ends[k]);
		hub_read_well(&h, 4, w.image);
		hub_close(&h);
	}
	say(&w, "loop");
	hub_refused(uri_of(&w, "http", "moved"), -EIO, "redirects");
	say(&w, "away");
	hub_refused(uri_of(&w, "http", "moved"), -EIO, "ftp");
	site_close(&w);
}

static void without_a_validator(void **state)
{
	static struct hub h;
	struct site w;

	(void)state;
	odd(&w);
	say(&w, "weak");
	hub_refused(uri_of(&w, "http", "image"), -ENOTSUP, "#http-pin=no");
	hub_open(&h, uri_of(&w, "http", "image#http-pin=no"));
	(void)hub_read(&h, 0, 4 * PAGE_BYTES, false);
	hub_wait(&h, 1);
	assert_int_equal(h.reads[0].code, 0);
	hub_check(&h, w.image);
	hub_close(&h);
	site_close(&w);
}

/* Reads wait for descriptors as for a server, however many the connections lack. */
static void without_descriptors(void **state)
{
	static struct hub h;
	struct rlimit before, few;
	struct site w;

	(void)state;
	odd(&w);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	for (unsigned left = 0; left < 4; left++) {
		int next;

		hub_open(&h, uri_of(&w, "http", "image"));
		next = dup(0);
		close(next);
		few = (struct rlimit){(rlim_t)next + left, before.rlim_max};
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
		for (unsigned i = 0; i < 8; i++)
			(void)hub_read(&h, 8 * i * PAGE_BYTES, PAGE_BYTES, true);
		while (net_hub_pump(h.net))
			;
		usleep(200000);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
		hub_wait(&h, 8);
		for (unsigned i = 0; i < 8; i++) {
			if (h.reads[i].code)
				print_error("%u: %s\n", left, h.reads[i].why);
			assert_int_equal(h.reads[i].code, 0);
		}
		hub_check(&h, w.image);
		hub_close(&h);
	}
	site_close(&w);
}

static void nobody_waits_for_it(void **state)
{
	static struct hub h;
	struct site w;

	(void)state;
	odd(&w);
	hub_open(&h, uri_of(&w, "http", "image#net-stall-ms=600000"));
	say(&w, "mute");
	for (unsigned i = 0; i < 64; i++)
		(void)hub_read(&h, 8 * i * PAGE_BYTES, PAGE_BYTES, false);
	while (net_hub_pump(h.net))
		;
	for (unsigned i = 0; i < 64; i++)
		h.src->ops->cancel(h.src, &h.reads[i].rd);
	hub_wait(&h, 64);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(h.reads[i].code, -ECANCELED);
	hub_check(&h, w.image);
	hub_close(&h);
	say(&w, "mute");
	hub_refused(uri_of(&w, "http", "image#net-connect-ms=200"), -ETIMEDOUT, "for 200 ms");
	site_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(deleted_and_back),
		cmocka_unit_test(not_opened),
		cmocka_unit_test(comes_right),
		cmocka_unit_test(opening_comes_right),
		cmocka_unit_test(retry_after_is_kept),
		cmocka_unit_test(is_an_error),
		cmocka_unit_test(shorter_answers),
		cmocka_unit_test(moved),
		cmocka_unit_test(without_a_validator),
		cmocka_unit_test(without_descriptors),
		cmocka_unit_test(nobody_waits_for_it),
	};
	const struct CMUnitTest of_vms[] = {
		cmocka_unit_test(urls_with_a_query),
		cmocka_unit_test(tls),
		cmocka_unit_test(replaced),
	};
	int failed;

	if (!svc_have("nginx") || !svc_have("openssl"))
		return 77;
	/* Whoever runs this may have a proxy. */
	setenv("no_proxy", "*", 1);
	setenv("ASYNCPF_NET_MODULE", NET_MODULE, 0);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	if (have_kvm())
		failed += cmocka_run_group_tests(of_vms, NULL, NULL);
	return failed;
}
