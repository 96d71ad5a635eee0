/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is true of every network source, from each server of the table: every byte is right, an idle
 * one wakes nobody, a server whose first answer is cut is asked again, one that is gone, hangs,
 * moves or has lost its name is waited for, and nobody is trusted whose certificate is not good.
 */
#include "net_servers_fixture.h"
#include "need_kvm.h"

#include <arpa/inet.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>

#define NAME "store.test"
#define OTHER_ADDR "127.0.0.2"

/* Which servers a test is for, and what it does with each, started with the image. */
struct of_each {
	bool (*takes)(const struct server *server);
	void (*run)(struct site *w);
};

static bool any(const struct server *server)
{
	return server != NULL;
}

static bool is_plain(const struct server *server)
{
	return server->is_plain;
}

static bool is_tls(const struct server *server)
{
	return server->is_tls;
}

static bool by_tcp(const struct server *server)
{
	return server->by_tcp;
}

static bool is_named(const struct server *server)
{
	return server->by_tcp && !server->is_tls;
}

static void on_each(void **state)
{
	const struct of_each *each = *state;
	struct site w;

	for (unsigned i = 0; i < servers_count; i++) {
		if (!each->takes(&servers[i]) || !site_start(&w, &servers[i], APF_FAULTS_USER))
			continue;
		each->run(&w);
		site_close(&w);
	}
}

#define ON_EACH(takes_, run_) \
	{.name = #run_, .test_func = on_each, \
	 .initial_state = &(struct of_each){.takes = (takes_), .run = (run_)}}

static void every_byte_is_right(void **state)
{
	static const enum apf_faults ways[] = {APF_FAULTS_USER, APF_FAULTS_BLOCK,
					       APF_FAULTS_STALL, APF_FAULTS_KERNEL};
	struct site w;

	(void)state;
	for (unsigned i = 0; i < servers_count; i++)
		for (unsigned k = 0; k < (servers[i].is_plain ? ARRAY_LEN(ways) : 1); k++) {
			if (!site_start(&w, &servers[i], ways[k]))
				continue;
			net_run(w.f, site_uri(&w, "", ""), 4096);
			site_close(&w);
		}
}

static void shapes_and_wrappers(void **state)
{
	static const struct {
		const char *wrap, *keys;
		uint32_t block;
	} runs[] = {
		{"", "net-connections=2&net-depth=3", 65536},
		{"", "net-connections=1&net-depth=1", 1 << 20},
		{"delay+", "us=300&jitter-us=2000", 4096},
		{"delay+fault+", "us=300&fault-error-at=3&fault-error-count=3", 4096},
	};
	struct site w;

	(void)state;
	for (unsigned i = 0; i < servers_count; i++)
		for (unsigned k = 0; k < (servers[i].is_plain ? ARRAY_LEN(runs) : 0); k++) {
			if (!site_start(&w, &servers[i], APF_FAULTS_USER))
				continue;
			net_run(w.f, site_uri(&w, runs[k].wrap, runs[k].keys), runs[k].block);
			site_close(&w);
		}
}

static void compressed(struct site *w)
{
	/* nbdkit has looked at the file's size. */
	svc_kill(&w->s);
	site_pack(w);
	w->server->start(w);
	net_run(w->f, site_uri(w, "zst+", ""), 4096);
}

static void an_idle_source_wakes_nobody(struct site *w)
{
	static struct hub h;

	hub_open(&h, site_uri(w, "", ""));
	for (unsigned k = 0; k < 40; k++)
		(void)hub_read(&h, 2 * k * PAGE_BYTES, PAGE_BYTES, false);
	hub_wait(&h, 40);
	hub_check(&h, w->image);
	hub_is_idle();
	hub_close(&h);
}

/* ---- trouble ---- */

/* Of the very first answers half comes, and then nobody is there any more. */
static void cut_while_it_is_opened(struct site *w)
{
	char here[16], there[16];
	/* One that svc_wait_port has, and two. */
	const char *argv[] = {LATE_RELAY, here, there, "1", "0", "3", NULL};
	static struct hub h;
	struct svc relay;

	svc_open(&relay);
	snprintf(here, sizeof(here), "%d", svc_free_port(&relay));
	snprintf(there, sizeof(there), "%d", w->s.port);
	svc_start(&relay, argv);
	svc_wait_port(&relay);
	w->s.port = relay.port;
	hub_open(&h, site_uri(w, "", ""));
	(void)hub_read(&h, 3 * PAGE_BYTES, 4 * PAGE_BYTES, false);
	hub_wait(&h, 1);
	assert_int_equal(h.reads[0].code, 0);
	hub_check(&h, w->image);
	hub_close(&h);
	svc_close(&relay);
}

/* Gone in the middle; the VM is paused, and goes on by itself when the server is back. */
static void gone_and_back(struct site *w)
{
	struct net_vm v;

	net_vm_open(&v);
	v.v.config.source_timeout_ms = 200;
	net_vm_start(&v, site_uri(w, "", ""));
	net_read(&v, 0, 16 * PAGE_BYTES, w->image);
	svc_kill(&w->s);
	net_read_begin(&v, 64 * PAGE_BYTES, 64 * PAGE_BYTES);
	net_wait_paused(&v);
	assert_non_null(strstr(v.paused, "has not answered for 200 ms"));
	w->server->start(w);
	net_read_end(&v, w->image);
	net_vm_close(&v);
}

/* It stops answering: asked again on another connection, when it goes on. */
static void hangs_and_goes_on(struct site *w)
{
	struct net_vm v;

	net_vm_open(&v);
	v.v.config.source_timeout_ms = 500;
	net_vm_start(&v, site_uri(w, "", "net-stall-ms=100&net-connect-ms=2000"));
	net_read(&v, 0, PAGE_BYTES, w->image);
	svc_stand_still(&w->s);
	net_read_begin(&v, 64 * PAGE_BYTES, 32 * PAGE_BYTES);
	net_wait_paused(&v);
	svc_go_on(&w->s);
	net_read_end(&v, w->image);
	net_vm_close(&v);
}

/* Nobody waits for a server that does not answer. */
static void closing_while_it_hangs(struct site *w)
{
	struct apf_counters c = {0};
	struct net_vm v;

	net_vm_open(&v);
	net_vm_start(&v, site_uri(w, "", "net-stall-ms=600000"));
	net_read(&v, 0, PAGE_BYTES, w->image);
	svc_stand_still(&w->s);
	net_read_begin(&v, 64 * PAGE_BYTES, PAGE_BYTES);
	do {
		net_moment();
		apf_counters_get(v.v.apf, &c, sizeof(c));
	} while (c.reads_in_flight == 0);
	apf_stop(v.v.apf);
	assert_int_equal(pthread_join(v.thread, NULL), 0);
	assert_int_equal(v.rc, -EINTR);
	free(v.got);
	net_vm_close(&v);
}

/* ---- names ---- */

/* Names as a file of the site's has them, for this thread and those that it makes. */
static bool own_names(struct site *w, const char *names)
{
	static const char files[] = "hosts: files\n";
	char path[SVC_PATH_MAX];

	svc_write(&w->s, "hosts", names, strlen(names));
	svc_write(&w->s, "nsswitch", files, sizeof(files) - 1);
	if (unshare(CLONE_NEWNS) == 0 &&
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	    mount(svc_path(&w->s, "hosts", path), "/etc/hosts", NULL, MS_BIND, NULL) == 0 &&
	    mount(svc_path(&w->s, "nsswitch", path), "/etc/nsswitch.conf", NULL, MS_BIND,
		  NULL) == 0)
		return true;
	print_message("no names of our own here, so not tried: %s\n", strerror(errno));
	return false;
}

static void give_names_back(void)
{
	assert_int_equal(umount2("/etc/hosts", MNT_DETACH), 0);
	assert_int_equal(umount2("/etc/nsswitch.conf", MNT_DETACH), 0);
}

static int listen_at(const char *addr, int port)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;

	assert_int_equal(inet_pton(AF_INET, addr, &at.sin_addr), 1);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(fd, 8), 0);
	return fd;
}

/*
 * The server's name vanishes, and with it the server; somebody else has its address by then. It
 * comes back, with its name, at another one.
 */
static void a_name_that_vanishes(struct site *w)
{
	static const char none[] = SITE_ADDR " " SITE_HOST "\n";
	static const char before[] = SITE_ADDR " " SITE_HOST " " NAME "\n";
	static const char after[] = SITE_ADDR " " SITE_HOST "\n" OTHER_ADDR " " NAME "\n";
	struct net_vm v;
	int fd;

	if (!own_names(w, before))
		return;
	net_vm_open(&v);
	v.v.config.source_timeout_ms = 200;
	net_vm_start(&v, site_uri_at(w, "", NAME, "", &w->s));
	net_read(&v, 0, 16 * PAGE_BYTES, w->image);
	svc_write(&w->s, "hosts", none, sizeof(none) - 1);
	svc_kill(&w->s);
	fd = listen_at(SITE_ADDR, w->s.port);
	net_read_begin(&v, 64 * PAGE_BYTES, 64 * PAGE_BYTES);
	net_wait_paused(&v);
	w->addr = OTHER_ADDR;
	w->server->start(w);
	svc_write(&w->s, "hosts", after, sizeof(after) - 1);
	net_read_end(&v, w->image);
	/* Whoever has the old address was not asked. */
	assert_int_equal(accept(fd, NULL, NULL), -1);
	net_vm_close(&v);
	close(fd);
	give_names_back();
}

/* ---- certificates ---- */

/* For another name; of another authority; of none that is known; expired. */
static void certificates_that_are_wrong(struct site *w)
{
	struct svc other;

	hub_refused(site_uri_at(w, "", SITE_ADDR, "", &w->s), -EIO, w->server->of_another);
	svc_open(&other);
	svc_certificates(&other, SITE_HOST, 2);
	hub_refused(site_uri_at(w, "", SITE_HOST, "", &other), -EIO, "certificate");
	svc_close(&other);
	svc_kill(&w->s);
	svc_certificates(&w->s, SITE_HOST, -1);
	w->server->start(w);
	hub_refused(site_uri(w, "", ""), -EIO,
		    w->server->is_http ? "certificate has expired" : "certificate");
}

/* The site's certificates aside, or back. */
static void move_certificates(const struct site *w, bool back)
{
	static const char *const names[] = {"ca-cert.pem", "server-cert.pem", "server-key.pem"};
	char name[SVC_PATH_MAX], path[SVC_PATH_MAX], aside[SVC_PATH_MAX];

	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		snprintf(name, sizeof(name), "good-%s", names[i]);
		svc_path(&w->s, names[i], path);
		svc_path(&w->s, name, aside);
		assert_int_equal(rename(back ? aside : path, back ? path : aside), 0);
	}
}

/*
 * The server comes back with a certificate that has expired, and later with its good one. By NBD it
 * is waited for as one that is gone.
 */
static void a_certificate_that_expires(struct site *w)
{
	struct net_vm v;

	net_vm_open(&v);
	v.v.config.retries_max = 0;
	v.v.config.source_timeout_ms = w->server->is_http ? 0 : 500;
	net_vm_start(&v, site_uri(w, "", ""));
	net_read(&v, 0, 16 * PAGE_BYTES, w->image);
	svc_kill(&w->s);
	move_certificates(w, false);
	svc_certificates(&w->s, SITE_HOST, -1);
	w->server->start(w);
	net_read_begin(&v, 64 * PAGE_BYTES, PAGE_BYTES);
	net_wait_paused(&v);
	assert_non_null(strstr(v.paused, w->server->is_http ? "certificate"
							   : "has not answered"));
	svc_kill(&w->s);
	move_certificates(w, true);
	w->server->start(w);
	apf_resume(v.v.apf);
	net_read_end(&v, w->image);
	net_vm_close(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_EACH(is_plain, an_idle_source_wakes_nobody),
		ON_EACH(by_tcp, cut_while_it_is_opened),
		ON_EACH(is_tls, certificates_that_are_wrong),
	};
	const struct CMUnitTest of_vms[] = {
		cmocka_unit_test(every_byte_is_right),
		cmocka_unit_test(shapes_and_wrappers),
		ON_EACH(any, compressed),
		ON_EACH(any, gone_and_back),
		ON_EACH(any, hangs_and_goes_on),
		ON_EACH(any, closing_while_it_hangs),
		ON_EACH(is_named, a_name_that_vanishes),
		ON_EACH(is_tls, a_certificate_that_expires),
	};
	int failed;

	/* Whoever runs this may have a proxy. */
	setenv("no_proxy", "*", 1);
	setenv("ASYNCPF_NET_MODULE", NET_MODULE, 0);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	if (have_kvm())
		failed += cmocka_run_group_tests(of_vms, NULL, NULL);
	return failed;
}
