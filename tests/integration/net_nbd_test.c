/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources by NBD, as far as that is not true of every source (net_servers_test.c): holes cost no
 * read; neighbours come together; a server that fails, or comes back as another one; TLS by a key,
 * and TLS that cannot be.
 */
#include "net_servers_fixture.h"
#include "need_kvm.h"

#include <sys/socket.h>
#include <sys/un.h>

static const char *uri_of(const struct site *n, const char *keys)
{
	static char uri[256];

	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s%s", n->socket, keys);
	return uri;
}

static void servers_with_wishes(void **state)
{
	static const struct {
		const char *filter, *key, *keys;
		uint32_t block;
	} runs[] = {
		{"--filter=delay", "rdelay=3ms", "", 4096},
		{"--filter=delay", "rdelay=3ms", "&net-connections=1&net-depth=2", 65536},
		/* Reads that are cut, by the server's wish. */
		{"--filter=blocksize-policy", "blocksize-maximum=65536", "", 1 << 20},
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(runs); i++) {
		struct site n;

		site_open(&n, APF_FAULTS_USER);
		nbdkit(&n, runs[i].filter, runs[i].key);
		net_run(n.f, uri_of(&n, runs[i].keys), runs[i].block);
		site_close(&n);
	}
}

/* A read of ours may begin and end inside of its blocks, and is no larger than it takes. */
static void blocks_of_the_servers(void **state)
{
	static const char *const runs[][3] = {
		{"blocksize-minimum=512", "blocksize-preferred=4096", "blocksize-maximum=4096"},
		{"blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=8192"},
		{"blocksize-minimum=65536", "blocksize-preferred=65536",
		 "blocksize-maximum=131072"},
		{"blocksize-minimum=32768", "blocksize-preferred=32768", "blocksize-maximum=96K"},
		{"blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=4096"},
		{"blocksize-minimum=65536", "blocksize-preferred=65536", "blocksize-maximum=65536"},
		{"blocksize-minimum=512", "blocksize-preferred=512", "blocksize-maximum=1536"},
	};
	static struct hub h;
	struct site n;

	(void)state;
	site_open(&n, APF_FAULTS_USER);
	for (unsigned i = 0; i < ARRAY_LEN(runs); i++) {
		const char *const serve[] = {
			"nbdkit", "-f", "-r", "-U", n.socket, "--filter=blocksize-policy", "file",
			n.file, "blocksize-error-policy=error", runs[i][0], runs[i][1], runs[i][2],
			NULL};

		unlink(n.socket);
		svc_start(&n.s, serve);
		svc_wait_socket(&n.s, n.socket);
		hub_open(&h, uri_of(&n, ""));
		for (unsigned k = 0; k < 64; k++)
			(void)hub_read(&h, k * 12345, 1 + k * 700, k % 4 == 0);
		for (unsigned k = 0; k < 64; k++)
			(void)hub_read(&h, NET_BYTES / 2 + k * PAGE_BYTES, PAGE_BYTES, false);
		hub_wait(&h, 128);
		for (unsigned k = 0; k < 128; k++)
			assert_int_equal(h.reads[k].code, 0);
		hub_check(&h, n.image);
		hub_close(&h);
		svc_stop(&n.s);
	}
	site_close(&n);
}

static void by_address(void **state)
{
	struct site n;
	char uri[128];

	(void)state;
	site_open(&n, APF_FAULTS_USER);
	nbdkit_tcp(&n);
	snprintf(uri, sizeof(uri), "nbd://127.0.0.1:%d/", n.s.port);
	net_run(n.f, uri, 4096);
	site_close(&n);
}

/* ---- what a read costs ---- */

/* Of the filter that counts: "read: N ops". The server has ended. */
static unsigned reads_of(const struct site *n)
{
	char path[SVC_PATH_MAX], line[256];
	FILE *f = fopen(svc_path(&n->s, "stats", path), "r");
	unsigned ops = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "read: %u ops", &ops) == 1)
			break;
	fclose(f);
	return ops;
}

static void neighbours_come_together(void **state)
{
	char key[SVC_PATH_MAX + 16], path[SVC_PATH_MAX];
	static struct hub h;
	struct site n;

	(void)state;
	site_open(&n, APF_FAULTS_USER);
	snprintf(key, sizeof(key), "statsfile=%s", svc_path(&n.s, "stats", path));
	nbdkit(&n, "--filter=stats", key);
	hub_open(&h, uri_of(&n, ""));
	/* Backwards, and one at a time between them: an order of no help. */
	for (unsigned i = 0; i < NET_PAGES; i += 2)
		(void)hub_read(&h, NET_BYTES - (i + 1) * PAGE_BYTES, PAGE_BYTES, false);
	for (unsigned i = 1; i < NET_PAGES; i += 2)
		(void)hub_read(&h, NET_BYTES - (i + 1) * PAGE_BYTES, PAGE_BYTES, false);
	hub_wait(&h, NET_PAGES);
	hub_check(&h, n.image);
	/* One large one, at an odd place. */
	(void)hub_read(&h, 1234567, 700001, false);
	(void)hub_read(&h, NET_BYTES - 1, 1, false);
	hub_wait(&h, 2);
	hub_check(&h, n.image);
	hub_close(&h);
	svc_stop(&n.s);
	print_message("%u reads of 4 KiB and two others: %u\n", NET_PAGES, reads_of(&n));
	assert_in_range(reads_of(&n), 1, NET_BYTES / (256u << 10) + 8);
	site_close(&n);
}

/* With one request at a time and nothing joined, each has its turn. */
static void each_read_has_its_turn(void **state)
{
	static struct hub h;
	struct site n;

	(void)state;
	site_open(&n, APF_FAULTS_USER);
	nbdkit(&n, "--filter=delay", "rdelay=2ms");
	hub_open(&h, uri_of(&n, "&net-depth=1"));
	/* Handed over together, the last turn first. */
	for (unsigned i = 0; i < 16; i++)
		hub_read(&h, 3 * i * PAGE_BYTES, PAGE_BYTES, i >= 12)->rd.rank =
			i < 4 ? SRC_FILL : i < 8 ? SRC_AHEAD : SRC_DEMAND;
	hub_wait(&h, 16);
	for (unsigned i = 0; i < 16; i++)
		assert_in_range(h.reads[i].order, 13 - i / 4 * 4, 16 - i / 4 * 4);
	hub_check(&h, n.image);
	hub_close(&h);
	site_close(&n);
}

/* The same of reads that somebody comes to wait for when they have been handed over. */
static void raised_reads_overtake(void **state)
{
	static struct hub h;
	struct site n;

	(void)state;
	site_open(&n, APF_FAULTS_USER);
	nbdkit(&n, "--filter=delay", "rdelay=50ms");
	hub_open(&h, uri_of(&n, "&net-depth=1"));
	for (unsigned i = 0; i < 16; i++)
		hub_read(&h, 3 * i * PAGE_BYTES, PAGE_BYTES, false)->rd.rank = SRC_FILL;
	hub_wait(&h, 1);
	src_raise(h.src, &h.reads[14].rd, TURN_DEMAND);
	src_raise(h.src, &h.reads[15].rd, TURN_URGENT);
	/* Before it is handed over, too. */
	hub_read(&h, 50 * PAGE_BYTES, PAGE_BYTES, false)->rd.rank = SRC_FILL;
	src_raise(h.src, &h.reads[16].rd, TURN_DEMAND);
	hub_wait(&h, 17);
	/* One was over, and the next was on its way. */
	assert_true(h.reads[15].order < h.reads[14].order);
	for (unsigned i = 14; i < 17; i++)
		assert_in_range(h.reads[i].order, 2, 8);
	hub_check(&h, n.image);
	hub_close(&h);
	site_close(&n);
}

/* Some of what was joined, all of what is under way, what waits: each ends at once. */
static void cancelled_reads_end(void **state)
{
	static struct hub h;
	struct site n;

	(void)state;
	site_open(&n, APF_FAULTS_USER);
	nbdkit(&n, "--filter=delay", "rdelay=50ms");
	hub_open(&h, uri_of(&n, "&net-depth=2"));
	for (unsigned i = 0; i < 200; i++)
		(void)hub_read(&h, (i + i / 8) * PAGE_BYTES, PAGE_BYTES, i % 7 == 0);
	while (net_hub_pump(h.net))
		;
	for (unsigned i = 0; i < 200; i++)
		if (i % 3 != 0 && h.reads[i].order == 0)
			h.src->ops->cancel(h.src, &h.reads[i].rd);
	hub_wait(&h, 200);
	for (unsigned i = 0; i < 200; i += 3)
		assert_int_equal(h.reads[i].code, 0);
	hub_check(&h, n.image);
	hub_close(&h);
	site_close(&n);
}

/* Descriptors of the server's that are sockets: one listens, the others are connections. */
static unsigned connections_of(const struct site *n)
{
	char path[64], link[320], to[64];
	unsigned sockets = 0;
	struct dirent *de;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", n->s.pid);
	d = opendir(path);
	assert_non_null(d);
	while ((de = readdir(d))) {
		ssize_t len;

		snprintf(link, sizeof(link), "%s/%s", path, de->d_name);
		len = readlink(link, to, sizeof(to) - 1);
		sockets += len > 7 && strncmp(to, "socket:", 7) == 0;
	}
	closedir(d);
	return sockets - 1;
}

static void several_connections_where_the_server_allows(void **state)
{
	static const struct {
		const char *keys, *mode;
		unsigned at_least, at_most;
	} cases[] = {
		{"", "multi-conn-mode=auto", 2, 4},
		{"&net-connections=1", "multi-conn-mode=auto", 1, 1},
		{"", "multi-conn-mode=disable", 1, 1},
	};
	static struct hub h;

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		struct site n;
		const char *argv[] = {"nbdkit", "-f", "-r", "-U", n.socket, "--filter=multi-conn",
				      "--filter=delay", "file", n.file, "rdelay=5ms",
				      cases[i].mode, NULL};

		site_open(&n, APF_FAULTS_USER);
		svc_start(&n.s, argv);
		svc_wait_socket(&n.s, n.socket);
		hub_open(&h, uri_of(&n, cases[i].keys));
		for (unsigned round = 1; round <= 6; round++) {
			for (unsigned k = 0; k < 64; k++)
				(void)hub_read(&h, 2 * k * PAGE_BYTES, PAGE_BYTES, false);
			hub_wait(&h, round * 64);
		}
		hub_check(&h, n.image);
		print_message("%s%s: %u connections\n", cases[i].mode, cases[i].keys,
			      connections_of(&n));
		assert_in_range(connections_of(&n), cases[i].at_least, cases[i].at_most);
		hub_close(&h);
		site_close(&n);
	}
}

/* Ends one of our connections to that socket. */
static void lose_one(const char *socket)
{
	struct sockaddr_un at;

	for (int fd = 3; fd < 1024; fd++) {
		socklen_t len = sizeof(at);

		if (getpeername(fd, (struct sockaddr *)&at, &len) < 0 ||
		    at.sun_family != AF_UNIX || strcmp(at.sun_path, socket) != 0)
			continue;
		assert_int_equal(shutdown(fd, SHUT_RDWR), 0);
		return;
	}
	fail();
}

/* Also where the others would do, and as many as are allowed: those may be lost, too. */
static void a_lost_connection_is_made_anew(void **state)
{
	static struct hub h;
	unsigned before, i;
	struct site n;
	const char *argv[] = {"nbdkit", "-f", "-r", "-U", n.socket, "--filter=delay", "file",
			      n.file, "rdelay=5ms", NULL};

	(void)state;
	site_open(&n, APF_FAULTS_USER);
	svc_start(&n.s, argv);
	svc_wait_socket(&n.s, n.socket);
	hub_open(&h, uri_of(&n, ""));
	for (unsigned round = 1; round <= 6; round++) {
		for (unsigned k = 0; k < 64; k++)
			(void)hub_read(&h, 2 * k * PAGE_BYTES, PAGE_BYTES, false);
		hub_wait(&h, round * 64);
	}
	hub_check(&h, n.image);
	before = connections_of(&n);
	assert_in_range(before, 2, 4);
	lose_one(n.socket);
	while (connections_of(&n) == before)
		net_moment();
	/* One at a time: no connection is busy. */
	for (i = 0; i < 200 && connections_of(&n) < 4; i++) {
		(void)hub_read(&h, i * PAGE_BYTES, PAGE_BYTES, false);
		hub_wait(&h, i + 1);
	}
	print_message("%u connections, after %u reads\n", before, i);
	assert_int_equal(connections_of(&n), 4);
	hub_check(&h, n.image);
	hub_close(&h);
	site_close(&n);
}

/* The second half is a hole; what is allocated is known by the time its end is read. */
static void holes_are_not_read(void **state)
{
	char key[SVC_PATH_MAX + 16], path[SVC_PATH_MAX];
	unsigned char *zeroes = calloc(1, NET_BYTES);
	struct net_vm v;
	struct site n;
	unsigned before;

	(void)state;
	site_open(&n, APF_FAULTS_USER);
	assert_int_equal(truncate(n.path, NET_BYTES / 2), 0);
	assert_int_equal(truncate(n.path, NET_BYTES), 0);
	memcpy(zeroes, n.image, NET_BYTES / 2);
	snprintf(key, sizeof(key), "statsfile=%s", svc_path(&n.s, "stats", path));
	{
		/* One after the other: what is allocated is asked for first. */
		const char *argv[] = {"nbdkit", "-f", "-r", "-U", n.socket, "--filter=noparallel",
				      "--filter=stats", "file", n.file, key, NULL};

		svc_start(&n.s, argv);
		svc_wait_socket(&n.s, n.socket);
	}
	net_vm_open(&v);
	net_vm_start(&v, uri_of(&n, ""));
	net_read(&v, 0, PAGE_BYTES, zeroes);
	net_read(&v, PAGE_BYTES, PAGE_BYTES, zeroes);
	net_read(&v, NET_BYTES / 2, NET_BYTES / 2, zeroes);
	net_vm_close(&v);
	svc_stop(&n.s);
	before = reads_of(&n);
	print_message("%u reads\n", before);
	assert_int_equal(before, 2);
	free(zeroes);
	site_close(&n);
}

/* ---- trouble ---- */

static void back_with_another_size(void **state)
{
	struct net_vm v;
	struct site n;

	(void)state;
	site_open(&n, APF_FAULTS_USER);
	nbdkit(&n, NULL, NULL);
	net_vm_open(&v);
	v.v.config.retries_max = 0;
	net_vm_start(&v, uri_of(&n, ""));
	svc_kill(&n.s);
	assert_int_equal(truncate(n.path, NET_BYTES * 2), 0);
	nbdkit(&n, NULL, NULL);
	net_read_begin(&v, 0, PAGE_BYTES);
	net_wait_paused(&v);
	assert_non_null(strstr(v.paused, "the server announces 4194304 bytes, and had 2097152"));
	svc_kill(&n.s);
	assert_int_equal(truncate(n.path, NET_BYTES), 0);
	nbdkit(&n, NULL, NULL);
	apf_resume(v.v.apf);
	net_read_end(&v, n.image);
	net_vm_close(&v);
	site_close(&n);
}

static void the_servers_words(void **state)
{
	char key[SVC_PATH_MAX + 32], path[SVC_PATH_MAX];
	struct net_vm v;
	struct site n;

	(void)state;
	site_open(&n, APF_FAULTS_USER);
	snprintf(key, sizeof(key), "error-file=%s", svc_path(&n.s, "broken", path));
	{
		const char *argv[] = {"nbdkit", "-f", "-r", "-U", n.socket, "--filter=error",
				      "file", n.file, "error-pread=ENOSPC", "error-rate=100%",
				      key, NULL};

		svc_start(&n.s, argv);
		svc_wait_socket(&n.s, n.socket);
	}
	net_vm_open(&v);
	net_vm_start(&v, uri_of(&n, ""));
	net_read(&v, 0, PAGE_BYTES, n.image);
	svc_write(&n.s, "broken", "", 0);
	net_read_begin(&v, 64 * PAGE_BYTES, PAGE_BYTES);
	net_wait_paused(&v);
	assert_non_null(strstr(v.paused, "nbd+unix:///?socket="));
	assert_non_null(strstr(v.paused, "the server says: No space left on device (tried 2"));
	assert_int_equal(unlink(path), 0);
	apf_resume(v.v.apf);
	net_read_end(&v, n.image);
	net_vm_close(&v);
	site_close(&n);
}

/* ---- TLS ---- */

/* No certificates to look at; a folder without; no TLS. */
static void tls_that_cannot_be(void **state)
{
	char uri[256];
	struct site n;

	(void)state;
	site_open(&n, APF_FAULTS_USER);
	svc_certificates(&n.s, "localhost", 2);
	nbdkit_tls(&n);
	snprintf(uri, sizeof(uri), "nbds://localhost:%d/", n.s.port);
	hub_refused(uri, -EINVAL, "tls-certificates");
	snprintf(uri, sizeof(uri), "nbds://localhost:%d/?tls-certificates=/proc", n.s.port);
	hub_refused(uri, -ENOENT, "ca-cert.pem");
	snprintf(uri, sizeof(uri), "nbd://localhost:%d/", n.s.port);
	hub_refused(uri, -ENOTSUP, "TLS");
	site_close(&n);
}

static void tls_by_a_key_that_both_know(void **state)
{
	static const char keys[] = "alice:00112233445566778899aabbccddeeff\n";
	static const char wrong[] = "alice:00112233445566778899aabbccddeefe\n";
	char option[SVC_PATH_MAX + 32], path[SVC_PATH_MAX], uri[256];
	struct site n;

	(void)state;
	site_open(&n, APF_FAULTS_USER);
	svc_write(&n.s, "keys", keys, sizeof(keys) - 1);
	svc_write(&n.s, "wrong", wrong, sizeof(wrong) - 1);
	snprintf(option, sizeof(option), "--tls-psk=%s", svc_path(&n.s, "keys", path));
	nbdkit_port(&n, option);
	snprintf(uri, sizeof(uri), "nbds://alice@localhost:%d/?tls-psk-file=%s", n.s.port, path);
	net_run(n.f, uri, 4096);
	snprintf(uri, sizeof(uri), "nbds://alice@localhost:%d/?tls-psk-file=%s", n.s.port,
		 svc_path(&n.s, "wrong", path));
	hub_refused(uri, -EIO, "TLS");
	site_close(&n);
}

/* The same by a Unix socket, where the name of who asks is in the URI as well. */
static void tls_by_a_unix_socket(void **state)
{
	static const char keys[] = "alice:00112233445566778899aabbccddeeff\n";
	char option[SVC_PATH_MAX + 32], path[SVC_PATH_MAX], uri[256];
	static struct hub h;
	struct site n;

	(void)state;
	site_open(&n, APF_FAULTS_USER);
	svc_write(&n.s, "keys", keys, sizeof(keys) - 1);
	snprintf(option, sizeof(option), "--tls-psk=%s", svc_path(&n.s, "keys", path));
	const char *const serve[] = {"nbdkit", "-f", "-r", "-U", n.socket, "--tls=require", option,
				     "file", n.file, NULL};

	svc_start(&n.s, serve);
	svc_wait_socket(&n.s, n.socket);
	snprintf(uri, sizeof(uri), "nbds+unix://alice@/?socket=%s&tls-psk-file=%s", n.socket, path);
	hub_open(&h, uri);
	(void)hub_read(&h, 3 * PAGE_BYTES, PAGE_BYTES, true);
	hub_wait(&h, 1);
	assert_int_equal(h.reads[0].code, 0);
	hub_check(&h, n.image);
	hub_close(&h);
	snprintf(uri, sizeof(uri), "nbds+unix://bob@/?socket=%s&tls-psk-file=%s", n.socket, path);
	hub_refused(uri, -EINVAL, "username bob");
	site_close(&n);
}

/* ---- what stands before it, and behind ---- */

/* qemu-nbd's way of serving a compressed qcow2. */
static void from_qcow2(void **state)
{
	char raw[SVC_PATH_MAX], qcow2[SVC_PATH_MAX], uri[256];
	struct site n;
	const char *make[] = {"qemu-img", "convert", "-c", "-O", "qcow2", "-f", "raw", raw, qcow2,
			      NULL};
	const char *serve[] = {"qemu-nbd", "-r", "-t", "-k", n.socket, "-x", "disk one", "-f",
			       "qcow2", "-e", "8", qcow2, NULL};

	(void)state;
	if (!svc_have("qemu-nbd") || !svc_have("qemu-img"))
		skip();
	site_open(&n, APF_FAULTS_USER);
	svc_path(&n.s, "image", raw);
	svc_path(&n.s, "qcow2", qcow2);
	svc_run(&n.s, make);
	svc_start(&n.s, serve);
	svc_wait_socket(&n.s, n.socket);
	snprintf(uri, sizeof(uri), "nbd+unix:///disk%%20one?socket=%s", n.socket);
	net_run(n.f, uri, 4096);
	snprintf(uri, sizeof(uri), "nbd+unix:///disk%%20two?socket=%s", n.socket);
	hub_refused(uri, -ENOENT, "disk two");
	site_close(&n);
}

/* ---- what is refused before a guest runs ---- */

static void not_opened(void **state)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	char mute[SVC_PATH_MAX], uri[256];
	struct site n;
	int fd;

	(void)state;
	site_open(&n, APF_FAULTS_USER);
	hub_refused(uri_of(&n, ""), -ENOENT, "No such file or directory");
	hub_refused("nbd://127.0.0.1:1/x", -ECONNREFUSED, "Connection refused");
	hub_refused("nbd://nobody.invalid/x", -EIO, "nbd://nobody.invalid:10809/x: ");
	/* Somebody who listens, and says nothing. */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(at.sun_path, sizeof(at.sun_path), "%s", svc_path(&n.s, "mute", mute));
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(fd, 8), 0);
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s&net-connect-ms=200", mute);
	hub_refused(uri, -ETIMEDOUT, "the server has not answered for 200 ms");
	close(fd);
	site_close(&n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_of_the_servers),
		cmocka_unit_test(neighbours_come_together),
		cmocka_unit_test(each_read_has_its_turn),
		cmocka_unit_test(raised_reads_overtake),
		cmocka_unit_test(cancelled_reads_end),
		cmocka_unit_test(several_connections_where_the_server_allows),
		cmocka_unit_test(a_lost_connection_is_made_anew),
		cmocka_unit_test(tls_that_cannot_be),
		cmocka_unit_test(tls_by_a_unix_socket),
		cmocka_unit_test(not_opened),
	};
	const struct CMUnitTest of_vms[] = {
		cmocka_unit_test(servers_with_wishes),
		cmocka_unit_test(by_address),
		cmocka_unit_test(holes_are_not_read),
		cmocka_unit_test(back_with_another_size),
		cmocka_unit_test(the_servers_words),
		cmocka_unit_test(tls_by_a_key_that_both_know),
		cmocka_unit_test(from_qcow2),
	};
	int failed;

	if (!svc_have("nbdkit"))
		return 77;
	setenv("ASYNCPF_NET_MODULE", NET_MODULE, 0);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	if (have_kvm())
		failed += cmocka_run_group_tests(of_vms, NULL, NULL);
	return failed;
}
