/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources by S3. Where settings are taken from, credentials that are renewed, and that the secret
 * is nowhere where a core dump would have it: with a server that believes everything. With the
 * argument "radosgw": with Ceph's, which looks at signatures; every byte is right in each way of
 * serving faults, what it refuses is told with its word for it, and while it is gone, it is waited
 * for.
 */
#include "net_hub_fixture.h"
#include "need_kvm.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "zst_make.h"

#define ACCESS "AKIATEST0000000000AA"
/* Of Amazon's length and letters. */
#define SECRET "wTestTestTest/TestTest+TestTestTestTest0"

struct store {
	struct svc s;
	struct fix *f;
	unsigned char *image;
	char control[SVC_PATH_MAX];
};

static void forget_settings(void)
{
	static const char *const names[] = {
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE",
		"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
		"AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE",
	};

	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		unsetenv(names[i]);
}

static void store_open(struct store *w)
{
	svc_open(&w->s);
	w->f = fix_open(APF_FAULTS_USER, APF_ABI_INT, NET_PAGES);
	w->image = net_image(w->f);
	svc_write(&w->s, "image", w->image, NET_BYTES);
	forget_settings();
	/* No files of whoever runs this. */
	setenv("HOME", w->s.dir, 1);
}

static void store_close(struct store *w)
{
	svc_close(&w->s);
	fix_close(w->f);
	free(w->image);
}

static void say(const struct store *w, const char *order)
{
	svc_order(&w->s, w->control, order);
}

static void odd(struct store *w)
{
	char port[16], image[SVC_PATH_MAX];
	const char *argv[] = {"python3", ODD_HTTP, port, image, w->control, NULL};

	store_open(w);
	svc_path(&w->s, "image", image);
	svc_path(&w->s, "control", w->control);
	snprintf(port, sizeof(port), "%d", svc_free_port(&w->s));
	say(w, "well");
	svc_start(&w->s, argv);
	svc_wait_port(&w->s);
}

/* more: keys, each with its '&'. */
static const char *uri_of(const struct store *w, const char *object, const char *more)
{
	static char uri[512];

	snprintf(uri, sizeof(uri), "s3://bucket/%s?endpoint=http://localhost:%d%s", object,
		 w->s.port, more);
	return uri;
}

/* A file in ~/.aws. */
static void settings(const struct store *w, const char *name, const char *text)
{
	char folder[SVC_PATH_MAX], path[SVC_PATH_MAX + 32];
	int fd;

	(void)mkdir(svc_path(&w->s, ".aws", folder), 0700);
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

/* Whether the server has been asked with that. */
static bool was_said(const struct store *w, const char *what)
{
	char *log = svc_log(&w->s);
	bool found = strstr(log, what) != NULL;

	free(log);
	return found;
}

static void opens(const struct store *w, const char *more, const char *said)
{
	static struct hub h;

	hub_open(&h, uri_of(w, "image", more));
	(void)hub_read(&h, 0, PAGE_BYTES, true);
	hub_wait(&h, 1);
	hub_check(&h, w->image);
	hub_close(&h);
	if (!was_said(w, said))
		print_error("not said: %s\n", said);
	assert_true(was_said(w, said));
}

static void where_settings_come_from(void **state)
{
	struct store w;

	(void)state;
	odd(&w);
	hub_refused(uri_of(&w, "image", ""), -EACCES, "no credentials: set AWS_ACCESS_KEY_ID");
	hub_refused(uri_of(&w, "image", "&profile=nobody"), -EACCES, "no profile 'nobody'");
	settings(&w, "credentials", "[default]\naws_access_key_id = FILE\n"
		 "aws_secret_access_key = secret\n"
		 "[other]\naws_access_key_id=OTHER\naws_secret_access_key=secret\n"
		 "aws_session_token=session\n");
	settings(&w, "config", "[default]\nregion = of-file\n[profile other]\nregion = of-other\n"
		 "[profile third]\naws_access_key_id=THIRD\naws_secret_access_key=secret\n"
		 "[profile half]\naws_access_key_id=HALF\n");
	opens(&w, "", " Credential=FILE/");
	assert_true(was_said(&w, "/of-file/s3/aws4_request,"));
	assert_true(was_said(&w, "GET /bucket/image "));
	/* Set to nothing is not set. */
	setenv("AWS_ACCESS_KEY_ID", "", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "", 1);
	opens(&w, "", " Credential=FILE/");
	opens(&w, "&profile=other", " Credential=OTHER/");
	assert_true(was_said(&w, "/of-other/s3/aws4_request,"));
	assert_true(was_said(&w, " session\n"));
	opens(&w, "&profile=third", " Credential=THIRD/");
	assert_true(was_said(&w, "/us-east-1/s3/"));
	hub_refused(uri_of(&w, "image", "&profile=half"), -EACCES, "profile 'half'");
	setenv("AWS_PROFILE", "other", 1);
	setenv("AWS_REGION", "of-env", 1);
	opens(&w, "", "/of-env/s3/");
	setenv("AWS_ACCESS_KEY_ID", "ENV", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
	setenv("AWS_SESSION_TOKEN", "by-env", 1);
	opens(&w, "&region=of-uri", " Credential=ENV/");
	assert_true(was_said(&w, "/of-uri/s3/"));
	assert_true(was_said(&w, " by-env\n"));
	/* Who names a profile means it. */
	opens(&w, "&profile=third&region=a", " Credential=THIRD/");
	opens(&w, "&style=host", "GET /image ");
	say(&w, "reset 2");
	opens(&w, "&region=of-a-cut-answer", "/of-a-cut-answer/s3/");
	forget_settings();
	store_close(&w);
}

static void endpoints(void **state)
{
	char uri[128], text[128];
	static struct hub h;
	struct store w;

	(void)state;
	odd(&w);
	setenv("AWS_ACCESS_KEY_ID", "ENV", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
	snprintf(text, sizeof(text), "[default]\nendpoint_url = http://LOCALHOST:%d/\n", w.s.port);
	settings(&w, "config", text);
	snprintf(uri, sizeof(uri), "s3://bucket/image");
	hub_open(&h, uri);
	(void)hub_read(&h, 0, PAGE_BYTES, true);
	hub_wait(&h, 1);
	hub_check(&h, w.image);
	hub_close(&h);
	setenv("AWS_ENDPOINT_URL", "ftp://localhost", 1);
	hub_refused(uri, -EINVAL, "must begin with https:// or http://");
	setenv("AWS_ENDPOINT_URL_S3", "http://user:secret@localhost", 1);
	hub_refused(uri, -EINVAL, "must be written https://HOST[:PORT]");
	setenv("AWS_ENDPOINT_URL_S3", "http://localhost/bucket", 1);
	hub_refused(uri, -EINVAL, "must be written https://HOST[:PORT]");
	say(&w, "elsewhere");
	hub_refused(uri_of(&w, "image", ""), -EIO,
		    "in the region eu-north-7, say region=eu-north-7");
	store_close(&w);
	forget_settings();
}

/* They have run out, and somebody has written new ones; or nobody has. */
static void credentials_are_renewed(void **state)
{
	static const char *const ends[] = {"expired", "token"};
	static struct hub h;
	struct store w;

	(void)state;
	odd(&w);
	settings(&w, "credentials", "[default]\naws_access_key_id=OLD\naws_secret_access_key=a\n");
	hub_open(&h, uri_of(&w, "image", ""));
	say(&w, "403 1");
	(void)hub_read(&h, 0, PAGE_BYTES, true);
	hub_wait(&h, 1);
	assert_int_equal(h.reads[0].code, -EACCES);
	settings(&w, "credentials", "[default]\naws_access_key_id=NEW\naws_secret_access_key=b\n");
	say(&w, "403 1");
	(void)hub_read(&h, PAGE_BYTES, PAGE_BYTES, true);
	hub_wait(&h, 2);
	assert_int_equal(h.reads[1].code, 0);
	hub_check(&h, w.image);
	assert_true(was_said(&w, " Credential=OLD/"));
	assert_true(was_said(&w, " Credential=NEW/"));
	hub_close(&h);
	/* All that are under way have the old ones. */
	for (unsigned k = 0; k < ARRAY_LEN(ends); k++) {
		settings(&w, "credentials",
			 "[default]\naws_access_key_id=OLD\naws_secret_access_key=a\n");
		say(&w, "well");
		hub_open(&h, uri_of(&w, "image", ""));
		settings(&w, "credentials",
			 "[default]\naws_access_key_id=NEW\naws_secret_access_key=b\n");
		say(&w, ends[k]);
		hub_read_well(&h, 4, w.image);
		hub_close(&h);
	}
	store_close(&w);
}

/* ---- the secret ---- */

static char turned[sizeof(SECRET)]; /* with each bit the other way: not what is looked for */

static bool has_it(const unsigned char *at, size_t len)
{
	size_t n = sizeof(turned) - 1, k = 0;

	for (size_t i = 0; i + n <= len; i++) {
		for (k = 0; k < n; k++)
			if ((at[i + k] ^ (unsigned char)turned[k]) != 0xff)
				break;
		if (k == n)
			return true;
	}
	return false;
}

/* Of a mapping. The piece that is looked at does not stay: it may hold the secret. */
static bool has_it_between(int mem, unsigned long begin, unsigned long end)
{
	static unsigned char piece[1 << 16];
	bool found = false;

	for (unsigned long at = begin; at < end && !found; at += sizeof(piece) - sizeof(turned)) {
		ssize_t n = pread(mem, piece, min_u64(sizeof(piece), end - at), (off_t)at);

		found = n > 0 && has_it(piece, (size_t)n);
		explicit_bzero(piece, sizeof(piece));
	}
	return found;
}

/* A sanitizer's, of which each page that is read becomes memory. It holds no content. */
#define SHADOW_BYTES_MIN (1ul << 35)

/* Mappings that have it, and that a core dump has; *ret_hidden: that it has not. */
static unsigned secrets_in_memory(unsigned *ret_hidden)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	unsigned long begin = 0, end = 0, resident = 0;
	char line[512], rights[8] = "";
	unsigned found = 0;

	assert_non_null(f);
	assert_true(mem >= 0);
	*ret_hidden = 0;
	while (fgets(line, sizeof(line), f)) {
		unsigned long from, to;

		if (sscanf(line, "%lx-%lx %7s", &from, &to, rights) == 3) {
			begin = from;
			end = to;
			continue;
		}
		if (sscanf(line, "Rss: %lu kB", &resident) == 1)
			continue;
		if (strncmp(line, "VmFlags:", 8) != 0 || rights[0] != 'r' || resident == 0 ||
		    end - begin >= SHADOW_BYTES_MIN || !has_it_between(mem, begin, end))
			continue;
		print_message("%lx-%lx %s", begin, end, line);
		if (strstr(line, " dd"))
			(*ret_hidden)++;
		else
			found++;
	}
	close(mem);
	fclose(f);
	return found;
}

static void no_core_dump_has_the_secret(void **state)
{
	static struct hub h;
	unsigned hidden;
	char text[160];
	struct store w;
	int n;

	(void)state;
	odd(&w);
	n = snprintf(text, sizeof(text), "[default]\naws_access_key_id=%s\n"
		     "aws_secret_access_key=", ACCESS);
	for (unsigned i = 0; i < sizeof(turned) - 1; i++)
		text[(unsigned)n + i] = (char)(turned[i] ^ 0xff);
	text[(unsigned)n + sizeof(turned) - 1] = '\0';
	settings(&w, "credentials", text);
	explicit_bzero(text, sizeof(text));
	assert_int_equal(secrets_in_memory(&hidden), 0);
	assert_int_equal(hidden, 0);
	hub_open(&h, uri_of(&w, "image", ""));
	say(&w, "loris");
	for (unsigned i = 0; i < 8; i++)
		(void)hub_read(&h, 8 * i * PAGE_BYTES, PAGE_BYTES, true);
	while (net_hub_pump(h.net))
		;
	/* Requests are under way. */
	while (!was_said(&w, "bytes=229376-"))
		net_moment();
	assert_int_equal(secrets_in_memory(&hidden), 0);
	assert_int_equal(hidden, 1);
	for (unsigned i = 0; i < 8; i++)
		h.src->ops->cancel(h.src, &h.reads[i].rd);
	hub_wait(&h, 8);
	hub_close(&h);
	assert_int_equal(secrets_in_memory(&hidden), 0);
	assert_int_equal(hidden, 0);
	store_close(&w);
}

/* ---- Ceph's ---- */

static struct store ceph;

/* method: PUT, of `image`, or of a bucket, which is no object's content; DELETE. */
static void tell(const char *method, const char *object)
{
	char url[256], file[SVC_PATH_MAX];
	const char *argv[] = {"curl", "-sSf", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user",
			      ACCESS ":" SECRET, "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD",
			      url, "-X", method, NULL, NULL, NULL};

	snprintf(url, sizeof(url), "http://localhost:%d/bucket%s%s", ceph.s.port,
		 *object ? "/" : "", object);
	if (*object && strcmp(method, "PUT") == 0) {
		argv[11] = "-T";
		argv[12] = svc_path(&ceph.s, "image", file);
	}
	svc_run(&ceph.s, argv);
}

static void put(const char *object)
{
	tell("PUT", object);
}

/* Until the gateway says that it can be used, or by its silence that it is gone. */
static bool wait_ceph(bool ready)
{
	char path[SVC_PATH_MAX];

	svc_path(&ceph.s, "ready", path);
	for (unsigned i = 0; (access(path, F_OK) == 0) != ready; i++) {
		if (i == 180000 || waitpid(ceph.s.pid, NULL, WNOHANG) != 0) {
			print_error("radosgw does not do that: %s\n", svc_log(&ceph.s));
			return false;
		}
		net_moment();
	}
	return true;
}

static int start_ceph(void **state)
{
	char port[16];
	const char *argv[] = {"python3", RADOSGW, ceph.s.dir, port, ACCESS, SECRET, NULL};

	(void)state;
	store_open(&ceph);
	snprintf(port, sizeof(port), "%d", svc_free_port(&ceph.s));
	svc_start(&ceph.s, argv);
	if (!wait_ceph(true))
		return -1;
	put("");
	put("image");
	settings(&ceph, "credentials", "[default]\naws_access_key_id=" ACCESS "\n"
		 "aws_secret_access_key=" SECRET "\n[wrong]\naws_access_key_id=" ACCESS "\n"
		 "aws_secret_access_key=secret\n[nobody]\naws_access_key_id=NOBODY\n"
		 "aws_secret_access_key=secret\n");
	return 0;
}

static int end_ceph(void **state)
{
	(void)state;
	svc_stop(&ceph.s);
	store_close(&ceph);
	return 0;
}

static void every_byte_is_right(void **state)
{
	static const enum apf_faults ways[] = {APF_FAULTS_BLOCK, APF_FAULTS_STALL,
					       APF_FAULTS_KERNEL, APF_FAULTS_USER};

	(void)state;
	if (!have_kvm())
		skip();
	for (unsigned i = 0; i < ARRAY_LEN(ways); i++) {
		struct fix *f = fix_open(ways[i], APF_ABI_INT, NET_PAGES);
		unsigned char *image = net_image(f);

		svc_write(&ceph.s, "image", image, NET_BYTES);
		/* One name: as a URL has it, all of it encoded, and as a URI of ours may. */
		put("a%20b/%2B%C3%A4%25%3D");
		net_run(f, uri_of(&ceph, "a b/+%C3%A4%25=", i % 2 ? "&style=host" : ""), 4096);
		free(image);
		fix_close(f);
	}
}

static void what_it_refuses(void **state)
{
	(void)state;
	hub_refused(uri_of(&ceph, "image", "&profile=wrong"), -EACCES,
		    "(403 SignatureDoesNotMatch)");
	hub_refused(uri_of(&ceph, "image", "&profile=nobody"), -EACCES, "(403 InvalidAccessKeyId)");
	hub_refused(uri_of(&ceph, "nothing", ""), -ENOENT, "(404 NoSuchKey)");
}

static void deleted_and_back(void **state)
{
	static struct hub h;

	(void)state;
	svc_write(&ceph.s, "image", ceph.image, NET_BYTES);
	put("fleeting");
	hub_open(&h, uri_of(&ceph, "fleeting", ""));
	tell("DELETE", "fleeting");
	(void)hub_read(&h, 0, PAGE_BYTES, true);
	hub_wait(&h, 1);
	assert_int_equal(h.reads[0].code, -ENOENT);
	assert_non_null(strstr(h.reads[0].why, "(404 NoSuchKey)"));
	put("fleeting");
	(void)hub_read(&h, 0, PAGE_BYTES, true);
	hub_wait(&h, 2);
	assert_int_equal(h.reads[1].code, 0);
	hub_check(&h, ceph.image);
	hub_close(&h);
}

static void replaced_and_put_back(void **state)
{
	struct net_vm v;

	(void)state;
	if (!have_kvm())
		skip();
	svc_write(&ceph.s, "image", ceph.image, NET_BYTES);
	put("other");
	net_vm_open(&v);
	v.v.config.retries_max = 0;
	net_vm_start(&v, uri_of(&ceph, "other", ""));
	net_read(&v, 0, PAGE_BYTES, ceph.image);
	svc_write(&ceph.s, "image", ceph.image + 1, NET_BYTES - 1);
	put("other");
	net_read_begin(&v, 64 * PAGE_BYTES, PAGE_BYTES);
	net_wait_paused(&v);
	print_message("%s\n", v.paused);
	assert_non_null(strstr(v.paused, "the object has changed since it was opened (412)"));
	svc_write(&ceph.s, "image", ceph.image, NET_BYTES);
	put("other");
	apf_resume(v.v.apf);
	net_read_end(&v, ceph.image);
	net_vm_close(&v);
}

/* Killed while it is asked, and another one in its place later: whoever waits has the bytes. */
static void gone_and_back(void **state)
{
	static struct hub h;
	char gone[SVC_PATH_MAX];

	(void)state;
	svc_write(&ceph.s, "image", ceph.image, NET_BYTES);
	put("steady");
	hub_open(&h, uri_of(&ceph, "steady", ""));
	for (unsigned i = 0; i < 64; i++)
		(void)hub_read(&h, 2 * i * PAGE_BYTES, PAGE_BYTES, false);
	hub_wait(&h, 1);
	svc_write(&ceph.s, "gone", "", 0);
	assert_true(wait_ceph(false));
	for (unsigned i = 0; i < 64; i++)
		(void)hub_read(&h, (256 + 2 * i) * PAGE_BYTES, PAGE_BYTES, i % 2);
	while (net_hub_pump(h.net))
		;
	/* Longer than two pauses between tries. */
	for (unsigned i = 0; i < 300; i++)
		net_moment();
	(void)net_hub_pump(h.net);
	assert_true(h.over < h.count);
	assert_int_equal(unlink(svc_path(&ceph.s, "gone", gone)), 0);
	hub_wait(&h, h.count);
	for (unsigned i = 0; i < h.count; i++)
		assert_int_equal(h.reads[i].code, 0);
	hub_check(&h, ceph.image);
	hub_close(&h);
	assert_true(wait_ceph(true));
}

static void compressed(void **state)
{
	unsigned char *image;
	char uri[600];
	struct zst_made z;
	struct fix *f;

	(void)state;
	if (!have_kvm())
		skip();
	f = fix_open(APF_FAULTS_USER, APF_ABI_INT, NET_PAGES);
	image = net_image(f);
	zst_begin(&z, true);
	for (size_t at = 0; at < NET_BYTES; at += 65536)
		zst_frame(&z, image + at, min_u64(65536, NET_BYTES - at));
	zst_finish(&z);
	svc_write(&ceph.s, "image", z.at, z.len);
	zst_free(&z);
	put("packed");
	snprintf(uri, sizeof(uri), "zst+%s", uri_of(&ceph, "packed", ""));
	net_run(f, uri, 4096);
	free(image);
	fix_close(f);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest real[] = {
		cmocka_unit_test(every_byte_is_right),
		cmocka_unit_test(what_it_refuses),
		cmocka_unit_test(gone_and_back),
		cmocka_unit_test(deleted_and_back),
		cmocka_unit_test(replaced_and_put_back),
		cmocka_unit_test(compressed),
	};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(where_settings_come_from),
		cmocka_unit_test(endpoints),
		cmocka_unit_test(credentials_are_renewed),
		cmocka_unit_test(no_core_dump_has_the_secret),
	};

	setenv("no_proxy", "*", 1);
	setenv("ASYNCPF_NET_MODULE", NET_MODULE, 0);
	if (argc < 2) {
		for (unsigned i = 0; i < sizeof(turned) - 1; i++)
			turned[i] = (char)~(i * 3 % 26 + 'A');
		return cmocka_run_group_tests(tests, NULL, NULL);
	}
	(void)argv;
	if (!svc_have("radosgw") || !svc_have("ceph-mon") || !svc_have("ceph-osd") ||
	    !svc_have("ceph") || !svc_have("curl"))
		return 77;
	return cmocka_run_group_tests(real, start_ceph, end_ceph);
}
