/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources by HTTP: from nginx, plain, with TLS, and with HTTP/2, every byte is right in each way of
 * serving faults; from a server that does what none should, everything ends as it must: what
 * comes right when it is asked for again is asked for again, a changed object is an error.
 */
#include "net_hub_fixture.h"

#include "zst_make.h"

struct web {
	struct svc s;
	struct fix *f;
	unsigned char *image;
	char control[SVC_PATH_MAX];
};

static void web_open(struct web *w, enum apf_faults faults)
{
	svc_open(&w->s);
	w->f = fix_open(faults, APF_ABI_INT, NET_PAGES);
	w->image = net_image(w->f);
	svc_write(&w->s, "image", w->image, NET_BYTES);
}

static void web_close(struct web *w)
{
	svc_close(&w->s);
	fix_close(w->f);
	free(w->image);
}

/* more: in the server block. */
static void nginx(struct web *w, const char *listen, const char *more)
{
	char text[2048], conf[SVC_PATH_MAX];
	const char *argv[] = {"nginx", "-p", w->s.dir, "-e", "log", "-c", conf, NULL};
	const char *d = w->s.dir;

	if (w->s.port == 0)
		(void)svc_free_port(&w->s);
	snprintf(text, sizeof(text),
		 "daemon off; master_process off; pid %s/pid;\n"
		 "events { worker_connections 256; }\n"
		 "http { access_log %s/access;\n"
		 "client_body_temp_path %s/t1; proxy_temp_path %s/t2;\n"
		 "fastcgi_temp_path %s/t3; uwsgi_temp_path %s/t4; scgi_temp_path %s/t5;\n"
		 "keepalive_requests 100;\n"
		 "server { listen 127.0.0.1:%d %s; server_name localhost; root %s; %s } }\n",
		 d, d, d, d, d, d, d, w->s.port, listen, d, more);
	svc_write(&w->s, "nginx.conf", text, strlen(text));
	svc_path(&w->s, "nginx.conf", conf);
	svc_start(&w->s, argv);
	svc_wait_port(&w->s);
}

static const char *uri_of(const struct web *w, const char *scheme, const char *rest)
{
	static char uri[256];

	snprintf(uri, sizeof(uri), "%s://localhost:%d/%s", scheme, w->s.port, rest);
	return uri;
}

static void every_byte_is_right(void **state)
{
	static const enum apf_faults ways[] = {APF_FAULTS_BLOCK, APF_FAULTS_STALL,
					       APF_FAULTS_KERNEL, APF_FAULTS_USER};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(ways); i++) {
		struct web w;

		web_open(&w, ways[i]);
		nginx(&w, "", "");
		net_run(w.f, uri_of(&w, "http", "image"), 4096);
		web_close(&w);
	}
}

static void shapes_and_wrappers(void **state)
{
	static const struct {
		const char *scheme, *rest;
		uint32_t block;
	} runs[] = {
		{"http", "image#net-connections=2&net-depth=3", 65536},
		{"http", "image?token=1&x=%3F#net-connections=1", 1 << 20},
		{"delay+http", "image?a=b#us=300&jitter-us=2000", 4096},
		{"delay+fault+http", "image#us=300&fault-error-at=3&fault-error-count=3", 4096},
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(runs); i++) {
		struct web w;

		web_open(&w, APF_FAULTS_USER);
		nginx(&w, "", "");
		net_run(w.f, uri_of(&w, runs[i].scheme, runs[i].rest), runs[i].block);
		web_close(&w);
	}
}

/* Whether nginx has been asked by that version of HTTP. */
static bool was_asked_by(const struct web *w, const char *version)
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

static void start_tls(struct web *w, const char *protocol, int days)
{
	char more[2 * SVC_PATH_MAX + 128];

	svc_certificates(&w->s, "localhost", days);
	snprintf(more, sizeof(more), "ssl_certificate %s/server-cert.pem; "
		 "ssl_certificate_key %s/server-key.pem;", w->s.dir, w->s.dir);
	nginx(w, protocol, more);
}

static void tls(void **state)
{
	static const char *const protocols[] = {"ssl", "ssl http2"};
	char rest[SVC_PATH_MAX + 64], uri[256];

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(protocols); i++) {
		struct web w;

		web_open(&w, APF_FAULTS_USER);
		start_tls(&w, protocols[i], 2);
		snprintf(rest, sizeof(rest), "image#http-ca=%s/ca-cert.pem", w.s.dir);
		net_run(w.f, uri_of(&w, "https", rest), 4096);
		assert_int_equal(was_asked_by(&w, " HTTP/2.0\""), i == 1);
		/* By the environment, as the command curl has it. */
		snprintf(uri, sizeof(uri), "%s/ca-cert.pem", w.s.dir);
		setenv("CURL_CA_BUNDLE", uri, 1);
		net_run(w.f, uri_of(&w, "https", "image"), 4096);
		unsetenv("CURL_CA_BUNDLE");
		net_refused(uri_of(&w, "https", "image"), -EIO, "certificate");
		snprintf(uri, sizeof(uri), "https://127.0.0.1:%d/%s", w.s.port, rest);
		net_refused(uri, -EIO, "SSL");
		web_close(&w);
	}
}

static void an_expired_certificate(void **state)
{
	char rest[SVC_PATH_MAX + 64];
	struct web w;

	(void)state;
	web_open(&w, APF_FAULTS_USER);
	start_tls(&w, "ssl", -1);
	snprintf(rest, sizeof(rest), "image#http-ca=%s/ca-cert.pem", w.s.dir);
	net_refused(uri_of(&w, "https", rest), -EIO, "certificate has expired");
	web_close(&w);
}

static void compressed(void **state)
{
	char rest[SVC_PATH_MAX + 64];
	struct zst_made z;
	struct web w;

	(void)state;
	web_open(&w, APF_FAULTS_USER);
	zst_begin(&z, true);
	for (size_t at = 0; at < NET_BYTES; at += 65536)
		zst_frame(&z, w.image + at, min_u64(65536, NET_BYTES - at));
	zst_finish(&z);
	svc_write(&w.s, "image", z.at, z.len);
	zst_free(&z);
	start_tls(&w, "ssl", 2);
	snprintf(rest, sizeof(rest), "image#http-ca=%s/ca-cert.pem", w.s.dir);
	net_run(w.f, uri_of(&w, "zst+https", rest), 4096);
	web_close(&w);
}

static void an_idle_source_wakes_nobody(void **state)
{
	static struct hub h;
	struct web w;

	(void)state;
	web_open(&w, APF_FAULTS_USER);
	nginx(&w, "", "");
	hub_open(&h, uri_of(&w, "http", "image"));
	for (unsigned i = 0; i < 40; i++)
		(void)hub_read(&h, 2 * i * PAGE_BYTES, PAGE_BYTES, false);
	hub_wait(&h, 40);
	hub_check(&h, w.image);
	hub_is_idle();
	hub_close(&h);
	web_close(&w);
}

/* ---- trouble with a good server ---- */

static void gone_and_back(void **state)
{
	struct net_vm v;
	struct web w;

	(void)state;
	web_open(&w, APF_FAULTS_USER);
	nginx(&w, "", "");
	net_vm_open(&v);
	v.v.config.source_timeout_ms = 200;
	net_vm_start(&v, uri_of(&w, "http", "image"));
	net_read(&v, 0, 16 * PAGE_BYTES, w.image);
	svc_kill(&w.s);
	net_read_begin(&v, 64 * PAGE_BYTES, 64 * PAGE_BYTES);
	net_wait_paused(&v);
	nginx(&w, "", "");
	net_read_end(&v, w.image);
	net_vm_close(&v);
	web_close(&w);
}

/* The file is replaced by another one of the same size; then the old one is back. */
static void replaced(void **state)
{
	struct net_vm v;
	struct web w;
	char path[SVC_PATH_MAX], aside[SVC_PATH_MAX];

	(void)state;
	web_open(&w, APF_FAULTS_USER);
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
	web_close(&w);
}

static void not_opened(void **state)
{
	struct web w;

	(void)state;
	web_open(&w, APF_FAULTS_USER);
	svc_write(&w.s, "empty", "", 0);
	nginx(&w, "", "location /none { deny all; }");
	net_refused(uri_of(&w, "http", "nothing?secret=1"), -ENOENT, "no such object (404)");
	net_refused(uri_of(&w, "http", "none?secret=1"), -EACCES, "refuses access (403)");
	net_refused(uri_of(&w, "http", "empty"), -EPROTO, "(200)");
	net_refused("http://me:secret@127.0.0.1:1/x?secret", -EIO, "open http://127.0.0.1:1/x: ");
	net_refused("http://nobody.invalid/x", -EIO, "resolve");
	net_refused("fault+http://h/x?fault-error-at=1", -EINVAL, "stand after '#'");
	web_close(&w);
}

/* ---- a server that goes wrong ---- */

static void say(const struct web *w, const char *order)
{
	char to[SVC_PATH_MAX];

	/* Never half of it. */
	svc_write(&w->s, "next", order, strlen(order));
	assert_int_equal(rename(svc_path(&w->s, "next", to), w->control), 0);
}

static void odd(struct web *w)
{
	char port[16], image[SVC_PATH_MAX];
	const char *argv[] = {"python3", ODD_HTTP, port, image, w->control, NULL};

	web_open(w, APF_FAULTS_USER);
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
					     "408 1", "503 2", "429 1", "loris 1", "mute 1"};
	static struct hub h;
	struct web w;

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
	web_close(&w);
}

static void retry_after_is_kept(void **state)
{
	static struct hub h;
	struct web w;
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
	web_close(&w);
}

/* An error, with its words, and not one byte taken. */
static void is_an_error(void **state)
{
	static const struct {
		const char *order;
		int code;
		const char *says;
	} cases[] = {
		{"404", -ENOENT, "no such object (404)"},
		{"410", -ENOENT, "no such object (410)"},
		{"403", -EACCES, "refuses access (403)"},
		{"412", -ESTALE, "has changed"},
		{"416", -ESTALE, "shorter"},
		{"418", -EIO, "status 418"},
		{"whole", -EPROTO, "the whole object (200)"},
		{"other", -EPROTO, "were asked for"},
		{"changed", -ESTALE, "its ETag is another"},
		{"resized", -ESTALE, "its size is another"},
		{"weak", -ESTALE, "its ETag is another"},
		{"reset", -EIO, ""},
		{"500", -EIO, "status 500"},
		{"loop", -EIO, "redirects"},
		{"away", -EIO, "ftp"},
	};
	static struct hub h;
	struct web w;

	(void)state;
	odd(&w);
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		say(&w, "well");
		hub_open(&h, uri_of(&w, "http", "image?secret=1"));
		say(&w, cases[i].order);
		(void)hub_read(&h, 3 * PAGE_BYTES, 8192, false);
		hub_wait(&h, 1);
		print_message("%s: %d %s\n", cases[i].order, h.reads[0].code, h.reads[0].why);
		assert_int_equal(h.reads[0].code, cases[i].code);
		assert_non_null(strstr(h.reads[0].why, cases[i].says));
		assert_null(strstr(h.reads[0].why, "secret"));
		hub_check(&h, w.image);
		hub_close(&h);
	}
	web_close(&w);
}

/* The place that it moved to is good for a while only: then the URL is asked again. */
static void moved(void **state)
{
	static struct hub h;
	struct web w;

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
	say(&w, "loop");
	net_refused(uri_of(&w, "http", "moved"), -EIO, "redirects");
	say(&w, "away");
	net_refused(uri_of(&w, "http", "moved"), -EIO, "ftp");
	web_close(&w);
}

static void without_a_validator(void **state)
{
	static struct hub h;
	struct web w;

	(void)state;
	odd(&w);
	say(&w, "weak");
	net_refused(uri_of(&w, "http", "image"), -ENOTSUP, "#http-pin=no");
	hub_open(&h, uri_of(&w, "http", "image#http-pin=no"));
	(void)hub_read(&h, 0, 4 * PAGE_BYTES, false);
	hub_wait(&h, 1);
	assert_int_equal(h.reads[0].code, 0);
	hub_check(&h, w.image);
	hub_close(&h);
	web_close(&w);
}

static void nobody_waits_for_it(void **state)
{
	static struct hub h;
	struct web w;

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
	net_refused(uri_of(&w, "http", "image#net-connect-ms=200"), -ETIMEDOUT, "for 200 ms");
	web_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_byte_is_right),
		cmocka_unit_test(shapes_and_wrappers),
		cmocka_unit_test(tls),
		cmocka_unit_test(an_expired_certificate),
		cmocka_unit_test(compressed),
		cmocka_unit_test(an_idle_source_wakes_nobody),
		cmocka_unit_test(gone_and_back),
		cmocka_unit_test(replaced),
		cmocka_unit_test(not_opened),
		cmocka_unit_test(comes_right),
		cmocka_unit_test(retry_after_is_kept),
		cmocka_unit_test(is_an_error),
		cmocka_unit_test(moved),
		cmocka_unit_test(without_a_validator),
		cmocka_unit_test(nobody_waits_for_it),
	};

	fix_need_kvm();
	if (!svc_have("nginx") || !svc_have("openssl"))
		return 77;
	/* Whoever runs this may have a proxy. */
	setenv("no_proxy", "*", 1);
	setenv("ASYNCPF_NET_MODULE", NET_MODULE, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
