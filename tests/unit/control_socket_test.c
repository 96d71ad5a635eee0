/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/control/control_socket.c: who may connect, what is replaced and what never is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/control/control_socket.h"

struct fixture {
	mode_t umask;
	char folder[64];
	char path[96];
};

static int setup(void **state)
{
	struct fixture *f = test_calloc(1, sizeof(*f));

	f->umask = umask(0); /* no help from there */
	snprintf(f->folder, sizeof(f->folder), "/tmp/control_socket_test.XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->path, sizeof(f->path), "%s/s", f->folder);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	umask(f->umask);
	unlink(f->path);
	rmdir(f->folder);
	test_free(f);
	return 0;
}

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	return a;
}

static int try_connect(const char *path)
{
	const struct sockaddr_un a = address(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int rc = connect(fd, (const struct sockaddr *)&a, sizeof(a)) < 0 ? -errno : 0;

	close(fd);
	return rc;
}

/* A socket's file, of a process that is no more unless ret_fd is wanted. */
static void leave_socket(const char *path, int type, int *ret_fd)
{
	const struct sockaddr_un a = address(path);
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (const struct sockaddr *)&a, sizeof(a)), 0);
	if (ret_fd)
		*ret_fd = fd;
	else
		close(fd);
}

static unsigned open_descriptors(void)
{
	unsigned count = 0;

	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* And nothing stays open. */
static void expect_refused(const char *path, int code, const char *text)
{
	unsigned before = open_descriptors();
	struct control_socket s;
	char want[300];
	struct err e;

	snprintf(want, sizeof(want), "control socket: %.80s: %s", path, text);
	assert_int_equal(control_socket_open(&s, "control socket", path, &e), code);
	assert_int_equal(e.code, code);
	assert_string_equal(e.text, want);
	assert_int_equal(open_descriptors(), before);
}

static void made_and_removed(void **state)
{
	const struct fixture *f = *state;
	struct control_socket s;
	struct stat st;
	struct err e;

	assert_int_equal(control_socket_open(&s, "control socket", f->path, &e), 0);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode, S_IFSOCK | 0600);
	assert_int_equal(try_connect(f->path), 0);
	control_socket_close(&s);
	assert_int_equal(stat(f->path, &st), -1);
	assert_int_equal(errno, ENOENT);
}

/* ---- the mode, at every moment ---- */

struct watcher {
	const char *path;
	atomic_bool end;
	atomic_uint seen;
	mode_t modes; /* all bits that were ever set */
};

static void *watch_mode(void *arg)
{
	struct watcher *w = arg;
	struct stat st;

	while (!atomic_load(&w->end)) {
		if (lstat(w->path, &st) < 0)
			continue;
		w->modes |= st.st_mode;
		atomic_fetch_add(&w->seen, 1);
	}
	return NULL;
}

static void never_open_to_others(void **state)
{
	const struct fixture *f = *state;
	struct watcher w = {.path = f->path};
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, watch_mode, &w), 0);
	while (atomic_load(&w.seen) < 500) {
		struct control_socket s;
		struct err e;

		assert_int_equal(control_socket_open(&s, "control socket", f->path, &e), 0);
		control_socket_close(&s);
	}
	atomic_store(&w.end, true);
	pthread_join(t, NULL);
	assert_int_equal(w.modes, S_IFSOCK | 0600);
}

/* ---- what is in the way ---- */

static void dead_one_is_replaced(void **state)
{
	const struct fixture *f = *state;
	struct control_socket s;
	struct err e;

	leave_socket(f->path, SOCK_STREAM, NULL);
	assert_int_equal(try_connect(f->path), -ECONNREFUSED);
	assert_int_equal(control_socket_open(&s, "control socket", f->path, &e), 0);
	assert_int_equal(try_connect(f->path), 0);
	control_socket_close(&s);
}

static void living_one_stays(void **state)
{
	const struct fixture *f = *state;
	struct control_socket s;
	struct err e;

	assert_int_equal(control_socket_open(&s, "control socket", f->path, &e), 0);
	expect_refused(f->path, -EADDRINUSE, "a running server answers there; stop it, or name "
		       "another");
	assert_int_equal(try_connect(f->path), 0);
	control_socket_close(&s);
}

/* Alive, and so busy that nobody gets in. */
static void overrun_one_stays(void **state)
{
	const struct fixture *f = *state;
	const struct sockaddr_un a = address(f->path);
	int fd, clients[64], count = 0;

	leave_socket(f->path, SOCK_STREAM, &fd);
	assert_int_equal(listen(fd, 0), 0);
	for (bool full = false; !full; count++) {
		assert_true(count < 64);
		clients[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		full = connect(clients[count], (const struct sockaddr *)&a, sizeof(a)) < 0;
	}
	expect_refused(f->path, -EADDRINUSE, "a running server answers there; stop it, or name "
		       "another");
	while (count)
		close(clients[--count]);
	close(fd);
}

static void other_things_stay(void **state)
{
	static const char text[] = "something is there that is no socket; remove it, or name "
				   "another";
	const struct fixture *f = *state;
	char target[128];
	struct stat st;
	int fd = open(f->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_int_equal(write(fd, "data", 4), 4);
	close(fd);
	expect_refused(f->path, -EEXIST, text);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_size, 4);
	assert_int_equal(unlink(f->path), 0);

	/* Not even a link to a dead socket: whose link it is, we do not know. */
	snprintf(target, sizeof(target), "%s.dead", f->path);
	leave_socket(target, SOCK_STREAM, NULL);
	assert_int_equal(symlink(target, f->path), 0);
	expect_refused(f->path, -EEXIST, text);
	assert_int_equal(lstat(f->path, &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_int_equal(unlink(target), 0);

	expect_refused(f->folder, -EEXIST, text);
}

static void socket_of_another_kind_stays(void **state)
{
	const struct fixture *f = *state;
	int fd;

	leave_socket(f->path, SOCK_DGRAM, &fd);
	expect_refused(f->path, -EPROTOTYPE, "a socket is there, and whose cannot be told: "
		       "Protocol wrong type for socket; remove it, or name another");
	close(fd);
}

static void bad_paths(void **state)
{
	const struct fixture *f = *state;
	char path[160];

	snprintf(path, sizeof(path), "%s/none/s", f->folder);
	expect_refused(path, -ENOENT, "its folder: No such file or directory; make it, or name "
		       "another");
	memset(path, 'x', 108);
	path[108] = '\0';
	expect_refused(path, -ENAMETOOLONG, "a path of 108 bytes; at most 107 are possible, use a "
		       "shorter one");
	expect_refused("", -ENAMETOOLONG, "a path of 0 bytes; at most 107 are possible, use a "
		       "shorter one");
}

static void the_longest_path(void **state)
{
	const struct fixture *f = *state;
	struct control_socket s;
	char path[108];
	struct err e;

	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	memcpy(path, f->folder, strlen(f->folder));
	path[strlen(f->folder)] = '/';
	assert_int_equal(control_socket_open(&s, "control socket", path, &e), 0);
	assert_int_equal(try_connect(path), 0);
	control_socket_close(&s);
	assert_int_equal(access(path, F_OK), -1);
}

/* ---- two servers ---- */

static void anothers_file_stays(void **state)
{
	const struct fixture *f = *state;
	struct control_socket a, b;
	struct err e;

	assert_int_equal(control_socket_open(&a, "control socket", f->path, &e), 0);
	assert_int_equal(unlink(f->path), 0);
	assert_int_equal(control_socket_open(&b, "control socket", f->path, &e), 0);
	control_socket_close(&a);
	assert_int_equal(try_connect(f->path), 0);
	control_socket_close(&b);
}

/* The folder is somebody's who locks it, and keeps the lock. */
static void locked_folder(void **state)
{
	const struct fixture *f = *state;
	struct control_socket s;
	struct stat st;
	struct err e;
	int fd = open(f->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_int_equal(flock(fd, LOCK_EX), 0);
	expect_refused(f->path, -EWOULDBLOCK, "cannot lock its folder: Resource temporarily "
		       "unavailable; use a folder of your own");
	assert_int_equal(flock(fd, LOCK_UN), 0);
	assert_int_equal(control_socket_open(&s, "control socket", f->path, &e), 0);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	control_socket_close(&s);
	assert_int_equal(stat(f->path, &st), 0);
	close(fd);
}

#define RACERS 8

struct racer {
	const char *path;
	pthread_barrier_t *line;
	struct control_socket s;
	int rc;
};

static void *race(void *arg)
{
	struct racer *r = arg;
	struct err e;

	pthread_barrier_wait(r->line);
	r->rc = control_socket_open(&r->s, "control socket", r->path, &e);
	return NULL;
}

/* All find the same dead socket: one gets the path, the others hear that it answers. */
static void one_of_many_wins(void **state)
{
	const struct fixture *f = *state;

	for (int round = 0; round < 100; round++) {
		struct racer racers[RACERS];
		pthread_t threads[RACERS];
		pthread_barrier_t line;
		int winners = 0;

		leave_socket(f->path, SOCK_STREAM, NULL);
		pthread_barrier_init(&line, NULL, RACERS);
		for (int i = 0; i < RACERS; i++) {
			racers[i] = (struct racer){.path = f->path, .line = &line};
			assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
		}
		for (int i = 0; i < RACERS; i++)
			pthread_join(threads[i], NULL);
		pthread_barrier_destroy(&line);
		assert_int_equal(try_connect(f->path), 0);
		for (int i = 0; i < RACERS; i++) {
			assert_true(racers[i].rc == 0 || racers[i].rc == -EADDRINUSE);
			winners += racers[i].rc == 0;
			if (racers[i].rc == 0)
				control_socket_close(&racers[i].s);
		}
		assert_int_equal(winners, 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(made_and_removed, setup, teardown),
		cmocka_unit_test_setup_teardown(never_open_to_others, setup, teardown),
		cmocka_unit_test_setup_teardown(dead_one_is_replaced, setup, teardown),
		cmocka_unit_test_setup_teardown(living_one_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(overrun_one_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(other_things_stay, setup, teardown),
		cmocka_unit_test_setup_teardown(socket_of_another_kind_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(bad_paths, setup, teardown),
		cmocka_unit_test_setup_teardown(the_longest_path, setup, teardown),
		cmocka_unit_test_setup_teardown(anothers_file_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(locked_folder, setup, teardown),
		cmocka_unit_test_setup_teardown(one_of_many_wins, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
