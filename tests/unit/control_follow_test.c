/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/control/control.c: clients that follow, and the limit. */
#include "control_fixture.h"
#include "vmm/control/control_told.h"

/* The next event, whose uptime never falls. */
static void hear(struct client *k, struct control_event *ev)
{
	uint64_t before = ev->uptime_ns;
	char line[CONTROL_LINE_MAX];

	assert_true(client_line(k, line));
	assert_int_equal(control_event_parse(line, ev), 0);
	assert_true(ev->uptime_ns >= before);
}

static void expect(struct client *k, struct control_event *ev, enum control_event_kind kind,
		   const char *text)
{
	hear(k, ev);
	assert_string_equal(control_event_rows[ev->kind].name, control_event_rows[kind].name);
	assert_string_equal(ev->text, text);
}

static void follow(struct client *k, const struct fixture *f, struct control_event *ev)
{
	client_hello(k, f);
	client_say(k, "follow\n");
	expect(k, ev, CONTROL_EVENT_FOLLOWING, "running");
	assert_int_equal(ev->resident_bytes, MEMORY);
}

/* Two clients hear the same; what changes nothing is not told. */
static void what_clients_do_is_told(void **state)
{
	struct fixture *f = *state;
	struct control_event ev[2] = {{0}, {0}};
	struct control_status s;
	struct client k[2], ask;

	follow(&k[0], f, &ev[0]);
	follow(&k[1], f, &ev[1]);
	client_hello(&ask, f);
	ask_ok(&ask, "pause\n", &s);
	ask_ok(&ask, "pause\n", &s);
	ask_ok(&ask, "limit 8388608\n", &s);
	assert_int_equal(s.counters.resident_max_bytes, 8388608);
	ask_ok(&ask, "resume\n", &s);
	ask_ok(&ask, "resume\n", &s);
	ask_ok(&ask, "evict 4096\n", &s);
	ask_ok(&ask, "limit 0\n", &s);
	for (unsigned i = 0; i < 2; i++) {
		expect(&k[i], &ev[i], CONTROL_EVENT_PAUSED, "");
		expect(&k[i], &ev[i], CONTROL_EVENT_LIMIT, "");
		assert_int_equal(ev[i].resident_max_bytes, 8388608);
		expect(&k[i], &ev[i], CONTROL_EVENT_RESUMED, "");
		expect(&k[i], &ev[i], CONTROL_EVENT_EVICTED, "");
		assert_int_equal(ev[i].resident_bytes, 4096);
		expect(&k[i], &ev[i], CONTROL_EVENT_LIMIT, "");
		assert_int_equal(ev[i].resident_max_bytes, 0);
		close(k[i].fd);
	}
	close(ask.fd);
}

/* By threads of the VM's; a pause that somebody asks for meanwhile is no news. */
static void what_happens_is_told(void **state)
{
	struct fixture *f = *state;
	struct control_event ev = {0};
	struct control_status s;
	struct client k, ask;

	follow(&k, f, &ev);
	client_hello(&ask, f);
	control_tell(f->c, CONTROL_EVENT_RESUMED, NULL);
	control_tell(f->c, CONTROL_EVENT_NOTE, "odd\n");
	control_tell(f->c, CONTROL_EVENT_TROUBLE, "no room");
	control_tell(f->c, CONTROL_EVENT_TROUBLE, "no room");
	ask_ok(&ask, "pause\n", &s);
	control_tell(f->c, CONTROL_EVENT_RESUMED, "there is");
	expect(&k, &ev, CONTROL_EVENT_NOTE, "odd?");
	expect(&k, &ev, CONTROL_EVENT_TROUBLE, "no room");
	expect(&k, &ev, CONTROL_EVENT_RESUMED, "there is");
	f->vm.evicted = 12;
	expect(&k, &ev, CONTROL_EVENT_MEMORY, "");
	assert_int_equal(ev.evicted, 12);
	control_tell(f->c, CONTROL_EVENT_ENDED, "power-off");
	control_stop(f->c);
	f->c = NULL;
	expect(&k, &ev, CONTROL_EVENT_ENDED, "power-off");
	expect_end(&k);
	close(ask.fd);
}

/* What is tried again fails before the answer: the last word is that the VM stands. */
static void trouble_again(void **state)
{
	struct fixture *f = *state;
	struct control_event ev = {0};
	struct control_status s;
	struct client k, ask;

	follow(&k, f, &ev);
	client_hello(&ask, f);
	control_tell(f->c, CONTROL_EVENT_TROUBLE, "no room");
	expect(&k, &ev, CONTROL_EVENT_TROUBLE, "no room");
	atomic_store(&f->vm.again, f->c);
	ask_ok(&ask, "resume\n", &s);
	expect(&k, &ev, CONTROL_EVENT_RESUMED, "tried again");
	expect(&k, &ev, CONTROL_EVENT_TROUBLE, "no room");
	control_tell(f->c, CONTROL_EVENT_NOTE, "odd");
	expect(&k, &ev, CONTROL_EVENT_NOTE, "odd");
	atomic_store(&f->vm.again, NULL);
	ask_ok(&ask, "resume\n", &s);
	expect(&k, &ev, CONTROL_EVENT_RESUMED, "");
	close(k.fd);
	close(ask.fd);
}

/* A failure tells nobody anything; without evictions there is no limit. */
static void refusals(void **state)
{
	static const struct control_ops bare = {
		.status = vm_status, .pause = vm_pause, .resume = vm_resume, .stop = vm_stop};
	struct fixture *f = *state;
	struct control_event ev = {0};
	struct control_status s;
	struct client k, ask;

	follow(&k, f, &ev);
	client_hello(&ask, f);
	f->vm.fail = -EIO;
	ask_error(&ask, "limit 4096\n", "error it failed: Input/output error");
	ask_error(&ask, "pause\n", "error it failed: Input/output error");
	f->vm.fail = 0;
	ask_ok(&ask, "pause\n", &s);
	expect(&k, &ev, CONTROL_EVENT_PAUSED, "");
	close(k.fd);
	close(ask.fd);
	restart(f, &bare, 0);
	client_hello(&ask, f);
	ask_error(&ask, "limit 4096\n", "error this VM cannot evict; run it with --swap");
	client_say(&ask, "limit\n");
	expect_line(&ask, "error bad request: limit takes a number of bytes");
	expect_end(&ask);
}

/* It has said that it sends no more, as nc -N does, and still hears everything. */
static void half_closed(void **state)
{
	struct fixture *f = *state;
	struct control_event ev = {0};
	struct client k;

	follow(&k, f, &ev);
	assert_int_equal(shutdown(k.fd, SHUT_WR), 0);
	control_tell(f->c, CONTROL_EVENT_NOTE, "still here");
	expect(&k, &ev, CONTROL_EVENT_NOTE, "still here");
	close(k.fd);
}

/* All places, again and again: whoever hangs up has left his. */
static void places_come_back(void **state)
{
	struct fixture *f = *state;
	struct client k[CONTROL_CLIENTS_MAX];

	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
			struct control_event ev = {0};

			follow(&k[i], f, &ev);
		}
		for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
			close(k[i].fd);
		/* Until the server has seen it there is no place for another. */
		for (;;) {
			char line[CONTROL_LINE_MAX];
			struct client other;
			bool in;

			client_hello(&other, f);
			client_say(&other, "status\n");
			in = client_line(&other, line) && strncmp(line, "error", 5) != 0;
			close(other.fd);
			if (in)
				break;
			sched_yield();
		}
	}
}

/* It misses some, and is told how many; all others hear everything meanwhile. */
static void a_slow_one_is_told_what_it_lost(void **state)
{
	struct fixture *f = *state;
	struct control_event ev = {0}, other = {0};
	uint64_t sent = 0, heard = 0, lost = 0;
	struct client slow, quick;
	char text[CONTROL_EVENT_TEXT_MAX];

	follow(&slow, f, &ev);
	follow(&quick, f, &other);
	/* More than its socket and the server's buffer hold, one at a time. */
	for (; sent < 8000; sent++) {
		snprintf(text, sizeof(text), "%0150llu", (unsigned long long)sent);
		control_tell(f->c, CONTROL_EVENT_NOTE, text);
		expect(&quick, &other, CONTROL_EVENT_NOTE, text);
	}
	while (heard + lost < sent) {
		hear(&slow, &ev);
		if (ev.kind == CONTROL_EVENT_LOST)
			lost += ev.lost;
		else
			assert_int_equal(strtoull(ev.text, NULL, 10), heard++);
	}
	assert_true(lost > 0 && heard > 0);
	assert_int_equal(heard + lost, sent);
	close(slow.fd);
	close(quick.fd);
}

/*
 * A VM whose status takes as long as `holds` says, and which opens files of its own: in the status
 * that is asked for when a client begins to follow, which comes second after the limit.
 */
#define OPENED 4u
static atomic_bool holds;
static atomic_uint held, opens_in;
static int opened[OPENED];

static void busy_status(void *ctx, struct control_status *ret)
{
	atomic_fetch_add(&held, 1);
	while (atomic_load(&holds))
		sched_yield();
	if (atomic_load(&opens_in) && atomic_fetch_sub(&opens_in, 1) == 1)
		for (unsigned i = 0; i < OPENED; i++)
			opened[i] = dup(STDERR_FILENO);
	vm_status(ctx, ret);
}

static int busy_limit(void *ctx, uint64_t bytes, struct err *e)
{
	atomic_store(&opens_in, 2);
	return vm_limit(ctx, bytes, e);
}

/*
 * A follower goes, and before the server looks at its connection an event for it fails: it is
 * dropped once. The number of its descriptor is somebody else's by then.
 */
static void a_follower_that_goes_is_dropped_once(void **state)
{
	struct fixture *f = *state;
	struct control_ops ops = vm_ops;
	struct client first, gone, busy;
	struct control_event ev = {0};
	struct control_status s;
	char last[CONTROL_LINE_MAX];

	ops.status = busy_status;
	ops.limit = busy_limit;
	restart(f, &ops, 0);
	client_hello(&first, f);
	follow(&gone, f, &ev);
	client_hello(&busy, f);
	/* The server is held up; meanwhile what it will find happens. */
	atomic_store(&held, 0);
	atomic_store(&holds, true);
	client_say(&busy, "status\n");
	while (atomic_load(&held) == 0)
		sched_yield();
	client_say(&first, "limit 4096\nfollow\n");
	close(gone.fd);
	atomic_store(&holds, false);
	client_answer(&busy, &s, last);
	assert_string_equal(last, "ok");
	client_answer(&first, &s, last);
	assert_string_equal(last, "ok");
	/* In a later round. Nobody opens anything meanwhile. */
	ask_ok(&busy, "status\n", &s);
	assert_int_equal(opens_in, 0);
	for (unsigned i = 0; i < OPENED; i++) {
		assert_true(fcntl(opened[i], F_GETFD) >= 0);
		close(opened[i]);
	}
	close(first.fd);
	close(busy.fd);
}

static atomic_uint shared_asked;

static void count_shared(void *ctx, struct control_status *ret)
{
	(void)ctx;
	ret->has_shared = 1;
	ret->shared_bytes = 4096 * (atomic_fetch_add(&shared_asked, 1) + 1);
}

/* Who follows a VM has the counters looked at, and nothing that costs more. */
static void what_is_shared_is_for_who_asks(void **state)
{
	struct fixture *f = *state;
	struct control_ops ops = vm_ops;
	struct control_event ev = {0};
	struct control_status s;
	struct client k, ask;

	ops.shared = count_shared;
	restart(f, &ops, 0);
	client_hello(&ask, f);
	follow(&k, f, &ev);
	atomic_store(&f->vm.evicted, 1);
	hear(&k, &ev);
	assert_int_equal(ev.kind, CONTROL_EVENT_MEMORY);
	assert_int_equal(shared_asked, 0);
	ask_ok(&ask, "status\n", &s);
	assert_int_equal(s.has_shared, 1);
	assert_int_equal(s.shared_bytes, 4096);
	close(k.fd);
	close(ask.fd);
}

/* As many as may wait are told, and then, once, how many were lost. */
static void more_than_may_wait(void **state)
{
	struct control_event ev = {.kind = CONTROL_EVENT_NOTE};
	struct control_told t = {.count = 0};

	(void)state;
	control_told_init(&t);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < CONTROL_TOLD_MAX + round; i++) {
			ev.uptime_ns = i;
			assert_true(control_told_put(&t, &ev));
		}
		for (unsigned i = 0; i < CONTROL_TOLD_MAX; i++) {
			assert_true(control_told_take(&t, &ev));
			assert_int_equal(ev.kind, CONTROL_EVENT_NOTE);
			assert_int_equal(ev.uptime_ns, i);
		}
		assert_int_equal(control_told_take(&t, &ev), round > 0);
		if (round > 0) {
			assert_int_equal(ev.kind, CONTROL_EVENT_LOST);
			assert_int_equal(ev.lost, round);
			assert_int_equal(ev.uptime_ns, CONTROL_TOLD_MAX + round - 1);
			assert_false(control_told_take(&t, &ev));
		}
		ev.kind = CONTROL_EVENT_NOTE;
	}
	pthread_mutex_destroy(&t.lock);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_clients_do_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(a_follower_that_goes_is_dropped_once, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_is_shared_is_for_who_asks, setup, teardown),
		cmocka_unit_test_setup_teardown(what_happens_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(trouble_again, setup, teardown),
		cmocka_unit_test_setup_teardown(refusals, setup, teardown),
		cmocka_unit_test_setup_teardown(half_closed, setup, teardown),
		cmocka_unit_test_setup_teardown(places_come_back, setup, teardown),
		cmocka_unit_test_setup_teardown(a_slow_one_is_told_what_it_lost, setup, teardown),
		cmocka_unit_test(more_than_may_wait),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
