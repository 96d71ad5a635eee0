/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/control/control.c where descriptors run out. Not a unit test: valgrind has limits of its
 * own.
 */
#include "control_fixture.h"

#include <sys/resource.h>

/* The lowest descriptors that may exist; returns what was before. */
static rlim_t limit_files(rlim_t count)
{
	struct rlimit r;
	rlim_t before;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &r), 0);
	before = r.rlim_cur;
	r.rlim_cur = count;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &r), 0);
	return before;
}

/* With room for 0, 1, 2, … descriptors more: all or nothing. */
static void start_without_descriptors(void **state)
{
	struct fixture *f = *state;
	const struct control_cfg cfg = {.path = f->path};
	rlim_t room = 0, all;
	unsigned before;
	int rc = -EMFILE;
	struct err e;

	control_stop(f->c);
	f->c = NULL;
	before = open_files();
	while (fcntl((int)room, F_GETFD) >= 0)
		room++;
	for (unsigned n = 0; rc < 0; n++) {
		all = limit_files(room + n);
		rc = control_start(&cfg, &vm_ops, &f->vm, &f->c, &e);
		limit_files(all);
		if (rc == 0)
			break;
		assert_int_equal(rc, -EMFILE);
		assert_int_equal(e.code, rc);
		assert_int_equal(open_files(), before);
		assert_int_equal(access(f->path, F_OK), -1);
	}
	expect_alive(f);
}

/* Whoever comes while there is no descriptor left waits, and is served. */
static void accept_without_descriptors(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct client k = {.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
	struct pollfd p = {.fd = k.fd, .events = POLLIN};
	rlim_t all = limit_files(1);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", f->path);
	assert_int_equal(connect(k.fd, (const struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(poll(&p, 1, 50), 0);
	limit_files(all);
	expect_line(&k, "asyncpf-control 1");
	close(k.fd);
	expect_alive(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(start_without_descriptors, setup, teardown),
		cmocka_unit_test_setup_teardown(accept_without_descriptors, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
