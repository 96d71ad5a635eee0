/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/control/control.c: each verb, an eviction that takes its time and holds up nobody, start and
 * stop. What bad clients do is in control_clients_test.c.
 */
#include "control_fixture.h"

/* ---- the verbs ---- */

static void verbs(void **state)
{
	struct fixture *f = *state;
	struct control_status s;
	struct client k;

	client_hello(&k, f);
	ask_ok(&k, "status\n", &s);
	assert_string_equal(s.state, "running");
	ask_ok(&k, "pause\n", &s);
	assert_string_equal(s.state, "paused");
	assert_true(f->vm.paused);
	ask_ok(&k, "resume\n", &s);
	assert_string_equal(s.state, "running");
	assert_false(f->vm.paused);
	ask_ok(&k, "evict 4096\n", &s);
	assert_int_equal(s.counters.resident_bytes, 4096);
	/* Kept open until the VM has ended. */
	client_say(&k, "stop\n");
	expect_line(&k, "ok");
	assert_int_equal(f->vm.stops, 1);
	control_stop(f->c);
	f->c = NULL;
	expect_end(&k);
}

static void an_eviction_that_falls_short(void **state)
{
	struct fixture *f = *state;
	struct control_status s;
	struct client k;

	f->vm.pinned = 69 << 20;
	client_hello(&k, f);
	ask_error(&k, "evict 67108864\n",
		  "error 69M stay resident, at most 64M were asked for: the guest fetched it back "
		  "meanwhile, or it is pinned; pause the VM first, or leave it more");
	ask_ok(&k, "evict 72351744\n", &s); /* 69M */
	assert_int_equal(s.counters.resident_bytes, 69 << 20);
	/* All that can be is no goal that can be missed. */
	ask_ok(&k, "evict 0\n", &s);
	close(k.fd);
}

static void failing_verbs(void **state)
{
	struct fixture *f = *state;
	struct control_status s;
	struct client k;

	f->vm.fail = -ENOSPC;
	client_hello(&k, f);
	ask_error(&k, "pause\n", "error it failed: No space left on device");
	ask_error(&k, "resume\n", "error it failed: No space left on device");
	ask_error(&k, "evict 0\n", "error it failed: No space left on device");
	ask_error(&k, "stop\n", "error it failed: No space left on device");
	/* The connection is none the worse. */
	ask_ok(&k, "status\n", &s);
	close(k.fd);
}

static void no_eviction(void **state)
{
	const struct control_ops ops = {
		.status = vm_status, .pause = vm_pause, .resume = vm_resume, .stop = vm_stop};
	struct fixture *f = *state;
	struct client k;

	restart(f, &ops, 0);
	client_hello(&k, f);
	ask_error(&k, "evict 0\n", "error this VM cannot evict; run it with --swap");
	close(k.fd);
	control_stop(f->c); /* before ops is gone */
	f->c = NULL;
}

/* As `printf … | nc -U` does: everything at once, and no more to come. */
static void all_in_one(void **state)
{
	struct fixture *f = *state;
	struct control_status s;
	char last[CONTROL_LINE_MAX];
	struct client k;

	client_open(&k, f);
	client_say(&k, "asyncpf-control 1\npause\nevict 8192\nstatus\n");
	assert_int_equal(shutdown(k.fd, SHUT_WR), 0);
	expect_line(&k, "asyncpf-control 1");
	client_answer(&k, &s, last);
	assert_string_equal(s.state, "paused");
	client_answer(&k, &s, last);
	assert_string_equal(last, "ok");
	client_answer(&k, &s, last);
	assert_int_equal(s.counters.resident_bytes, 8192);
	expect_end(&k);
}

/* ---- an eviction under way ---- */

static void wait_evicting(struct vm *vm, unsigned want)
{
	while (atomic_load(&vm->evicting) != want)
		sched_yield();
}

static void eviction_holds_up_nobody(void **state)
{
	struct fixture *f = *state;
	struct control_status s;
	char last[CONTROL_LINE_MAX];
	struct client k, other;

	f->vm.hold = true;
	client_hello(&k, f);
	client_say(&k, "evict 0\n");
	wait_evicting(&f->vm, 1);
	client_hello(&other, f);
	ask_ok(&other, "status\n", &s);
	assert_int_equal(s.counters.resident_bytes, MEMORY);
	ask_ok(&other, "pause\n", &s);
	ask_error(&other, "evict 0\n",
		  "error an eviction is under way; try again when it is done");
	/* Whoever waits hears how far it is. */
	assert_true(client_line(&k, last));
	assert_memory_equal(last, "state ", 6);
	f->vm.hold = false;
	client_answer(&k, &s, last);
	assert_string_equal(last, "ok");
	assert_int_equal(s.counters.resident_bytes, 0);
	ask_ok(&other, "evict 4096\n", &s);
	assert_int_equal(f->vm.evictions, 2);
	close(k.fd);
	close(other.fd);
}

static void answers_keep_their_order(void **state)
{
	struct fixture *f = *state;
	struct control_status s;
	char last[CONTROL_LINE_MAX];
	struct client k;

	f->vm.hold = true;
	client_hello(&k, f);
	client_say(&k, "evict 0\npause\n");
	wait_evicting(&f->vm, 1);
	expect_alive(f);
	assert_false(f->vm.paused);
	f->vm.hold = false;
	client_answer(&k, &s, last);
	assert_string_equal(s.state, "running");
	assert_int_equal(s.counters.resident_bytes, 0);
	client_answer(&k, &s, last);
	assert_string_equal(s.state, "paused");
	close(k.fd);
}

/* One waits, as an eviction does, the other does not; neither without a balloon. */
static void balloon(void **state)
{
	struct fixture *f = *state;
	struct control_ops ops = vm_ops;
	char last[CONTROL_LINE_MAX];
	struct control_status s;
	struct client k;

	client_hello(&k, f);
	ask_ok(&k, "balloon-set 8192\n", &s);
	assert_int_equal(f->vm.balloon, 8192);
	assert_int_equal(f->vm.evictions, 0);
	ask_ok(&k, "balloon 4096\n", &s);
	assert_int_equal(f->vm.balloon, 4096);
	atomic_store(&f->vm.hold, true);
	client_say(&k, "balloon 0\n");
	wait_evicting(&f->vm, 1);
	close(k.fd);
	wait_evicting(&f->vm, 0);
	client_hello(&k, f);
	atomic_store(&f->vm.hold, false);
	atomic_store(&f->vm.fail, -ENOSPC);
	/* The server may not have noticed yet that the first one is over. */
	do {
		client_say(&k, "balloon 0\n");
		client_answer(&k, &s, last);
	} while (strstr(last, "is under way"));
	assert_string_equal(last, "error it failed: No space left on device");
	ask_error(&k, "balloon-set 0\n", "error it failed: No space left on device");
	close(k.fd);
	ops.balloon = NULL;
	ops.balloon_set = NULL;
	atomic_store(&f->vm.fail, 0);
	restart(f, &ops, 0);
	client_hello(&k, f);
	ask_error(&k, "balloon 0\n", "error this VM has no balloon; run it with --balloon on");
	ask_error(&k, "balloon-set 0\n", "error this VM has no balloon; run it with --balloon on");
	close(k.fd);
	control_stop(f->c); /* before ops is gone */
	f->c = NULL;
}

static void client_leaves_its_eviction(void **state)
{
	struct fixture *f = *state;
	struct client k;

	f->vm.hold = true;
	for (unsigned i = 1; i <= 20; i++) {
		client_hello(&k, f);
		client_say(&k, "evict 0\n");
		wait_evicting(&f->vm, 1);
		close(k.fd);
		wait_evicting(&f->vm, 0);
		assert_int_equal(f->vm.cancelled, i);
		expect_alive(f);
	}
	assert_int_equal(f->vm.resident, MEMORY);
	assert_int_equal(f->vm.evictions, 0);
}

static void stop_ends_an_eviction(void **state)
{
	struct fixture *f = *state;
	struct client k;

	f->vm.hold = true;
	client_hello(&k, f);
	client_say(&k, "evict 0\n");
	wait_evicting(&f->vm, 1);
	control_stop(f->c);
	f->c = NULL;
	assert_int_equal(f->vm.cancelled, 1);
	expect_end(&k);
}

/* ---- start and stop ---- */

static void second_server_is_refused(void **state)
{
	struct fixture *f = *state;
	const struct control_cfg cfg = {.path = f->path};
	struct control *c;
	struct err e;

	assert_int_equal(control_start(&cfg, &vm_ops, &f->vm, &c, &e), -EADDRINUSE);
	expect_alive(f);
}

static void nothing_is_left(void **state)
{
	struct fixture *f = *state;
	struct client k;
	unsigned before = open_files();

	for (int i = 0; i < 100; i++) {
		client_hello(&k, f);
		if (i % 2)
			client_say(&k, "evict 0\n");
		restart(f, &vm_ops, 0);
		close(k.fd);
	}
	assert_int_equal(open_files(), before);
	control_stop(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(verbs, setup, teardown),
		cmocka_unit_test_setup_teardown(failing_verbs, setup, teardown),
		cmocka_unit_test_setup_teardown(an_eviction_that_falls_short, setup, teardown),
		cmocka_unit_test_setup_teardown(no_eviction, setup, teardown),
		cmocka_unit_test_setup_teardown(balloon, setup, teardown),
		cmocka_unit_test_setup_teardown(all_in_one, setup, teardown),
		cmocka_unit_test_setup_teardown(eviction_holds_up_nobody, setup, teardown),
		cmocka_unit_test_setup_teardown(answers_keep_their_order, setup, teardown),
		cmocka_unit_test_setup_teardown(client_leaves_its_eviction, setup, teardown),
		cmocka_unit_test_setup_teardown(stop_ends_an_eviction, setup, teardown),
		cmocka_unit_test_setup_teardown(second_server_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_is_left, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
