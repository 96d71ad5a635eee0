/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/control/control.c: neither garbage nor silence, nor a flood, nor a crowd does anything to the
 * VM, or holds up another client.
 */
#include "control_fixture.h"

#include "base/prng.h"

#define UNKNOWN \
	"error unknown request: this VM knows status, pause, resume, evict BYTES, limit BYTES, " \
	"balloon BYTES, balloon-set BYTES, follow and stop"

static void refused_after_hello(const struct fixture *f, const char *bytes, size_t len,
				const char *want)
{
	struct client k;

	client_hello(&k, f);
	client_send(&k, bytes, len);
	expect_line(&k, want);
	expect_end(&k);
}

static void breaches_end_the_connection(void **state)
{
	struct fixture *f = *state;
	char flood[4096];
	struct client k;

	memset(flood, 'x', sizeof(flood));
	refused_after_hello(f, flood, sizeof(flood), "error bad line: longer than 319 bytes");
	refused_after_hello(f, "status\0\n", 8, "error bad line: it holds a control byte");
	refused_after_hello(f, "\0", 1, "error bad line: it holds a control byte");
	refused_after_hello(f, "evict all\n", 10,
			    "error bad request: evict takes a number of bytes");
	refused_after_hello(f, "\n", 1, UNKNOWN);

	client_open(&k, f);
	expect_line(&k, "asyncpf-control 1");
	client_say(&k, "status\n");
	expect_line(&k, "error no greeting: the first line must be 'asyncpf-control VERSION'");
	expect_end(&k);

	client_open(&k, f);
	expect_line(&k, "asyncpf-control 1");
	client_say(&k, "asyncpf-control 2\nstatus\n");
	expect_line(&k, "error other version: this VM speaks 1, the client 2; use the asyncpf that "
		    "runs the VM");
	expect_end(&k);
	expect_alive(f);
	assert_int_equal(f->vm.stops + f->vm.evictions + f->vm.paused, 0);
}

/* Half a line, then nothing more: none of it is done. */
static void half_a_line(void **state)
{
	struct fixture *f = *state;
	struct client k;

	client_hello(&k, f);
	client_say(&k, "stop");
	assert_int_equal(shutdown(k.fd, SHUT_WR), 0);
	expect_end(&k);
	assert_int_equal(f->vm.stops, 0);
}

static void request_flood(void **state)
{
	struct fixture *f = *state;
	struct control_status s;
	char last[CONTROL_LINE_MAX];
	struct client k;
	unsigned served = 0;

	client_hello(&k, f);
	for (;;) {
		client_say(&k, "status\n");
		client_answer(&k, &s, last);
		if (strcmp(last, "ok") != 0)
			break;
		served++;
		assert_true(served < 100000);
	}
	assert_string_equal(last, "error too many requests within a second; ask less often");
	assert_true(served >= CONTROL_REQUESTS_MAX);
	expect_end(&k);
	expect_alive(f);
}

/* Asks and does not read: it alone is held up, and nothing of its answers is lost. */
static void client_that_does_not_read(void **state)
{
	const unsigned asked = CONTROL_REQUESTS_MAX - 10; /* much more than a socket holds */
	struct fixture *f = *state;
	struct control_status s;
	char last[CONTROL_LINE_MAX];
	struct client k;

	client_hello(&k, f);
	for (unsigned i = 0; i < asked; i++)
		client_say(&k, "status\n");
	for (int i = 0; i < 50; i++)
		expect_alive(f);
	for (unsigned i = 0; i < asked; i++) {
		client_answer(&k, &s, last);
		assert_string_equal(last, "ok");
		assert_int_equal(s.vcpu_count, CONTROL_VCPUS_MAX);
	}
	close(k.fd);
}

/* Asks much at once: another's turn comes between. */
static void one_request_in_a_turn(void **state)
{
	/* In one piece of what the server reads. */
	static const char ten[] = "status\nstatus\nstatus\nstatus\nstatus\n"
				  "status\nstatus\nstatus\nstatus\nstatus\n";
	char last[CONTROL_LINE_MAX];
	struct fixture *f = *state;
	struct client many, other;
	struct control_status s;

	client_hello(&many, f);
	client_hello(&other, f);
	ask_ok(&many, "status\n", &s);
	ask_ok(&other, "status\n", &s);
	atomic_store(&f->vm.statuses, 0);
	atomic_store(&f->vm.hold_status, true);
	client_say(&many, ten);
	while (atomic_load(&f->vm.statuses) == 0)
		sched_yield();
	client_say(&other, "pause\n");
	atomic_store(&f->vm.hold_status, false);
	client_answer(&other, &s, last);
	assert_string_equal(last, "ok");
	assert_in_range(atomic_load(&f->vm.statuses_then), 1, 2);
	for (unsigned i = 0; i < 10; i++) {
		client_answer(&many, &s, last);
		assert_string_equal(last, "ok");
	}
	close(many.fd);
	close(other.fd);
}

static void silent_clients(void **state)
{
	struct fixture *f = *state;
	struct client quiet[CONTROL_CLIENTS_MAX - 1];

	for (unsigned i = 0; i < ARRAY_LEN(quiet); i++) {
		client_open(&quiet[i], f);
		expect_line(&quiet[i], "asyncpf-control 1");
		if (i % 2)
			client_say(&quiet[i], "asyncpf-control 1\nsta");
	}
	expect_alive(f);
	for (unsigned i = 0; i < ARRAY_LEN(quiet); i++)
		close(quiet[i].fd);
}

/* In the end, silence costs the slot: also that of one who sends a byte now and then. */
static void silence_ends_the_connection(void **state)
{
	struct fixture *f = *state;
	struct client quiet, slow;
	struct pollfd p;

	restart(f, &vm_ops, 50);
	client_open(&quiet, f);
	expect_line(&quiet, "asyncpf-control 1");
	expect_end(&quiet);

	client_open(&slow, f);
	expect_line(&slow, "asyncpf-control 1");
	p = (struct pollfd){.fd = slow.fd, .events = POLLIN};
	for (unsigned i = 0; poll(&p, 1, 5) == 0; i++) {
		assert_true(i < CONTROL_LINE_MAX - 1);
		client_say(&slow, "x");
	}
	expect_end(&slow);
	restart(f, &vm_ops, 0);
	expect_alive(f);
}

/* Once it has greeted, too: after a greeting, an answer, half a line, or one it does not read. */
static void silence_after_a_greeting(void **state)
{
	static const char *const words[] = {"", "status\n", "sta"};
	struct fixture *f = *state;
	char line[CONTROL_LINE_MAX];
	struct client k;
	struct pollfd p;

	restart(f, &vm_ops, 50);
	for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
		client_hello(&k, f);
		client_say(&k, words[i]);
		while (client_line(&k, line))
			;
		close(k.fd);
	}
	/* More than a socket holds: the server waits to send, and not for ever. */
	client_hello(&k, f);
	for (unsigned i = 0; i < CONTROL_REQUESTS_MAX / 2; i++)
		client_say(&k, "status\n");
	p = (struct pollfd){.fd = k.fd, .events = 0};
	if (poll(&p, 1, HANG_MS) != 1)
		fail_msg("for %d ms a client that does not read was not hung up on", HANG_MS);
	assert_true(p.revents & POLLHUP);
	close(k.fd);
	restart(f, &vm_ops, 0);
	expect_alive(f);
}

/* Who has shut down his side of the connection has gone, wherever he stood. */
static void half_closed(void **state)
{
	static const char *const words[] = {"", "asyncpf-control 1\n",
					    "asyncpf-control 1\nstatus\n"};
	struct fixture *f = *state;
	char line[CONTROL_LINE_MAX];
	struct client k;

	/* Longer than the test may last: it is not silence that ends it. */
	restart(f, &vm_ops, 100 * HANG_MS);
	for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
		client_open(&k, f);
		client_say(&k, words[i]);
		assert_int_equal(shutdown(k.fd, SHUT_WR), 0);
		while (client_line(&k, line))
			;
		close(k.fd);
	}
	restart(f, &vm_ops, 0);
	expect_alive(f);
}

/*
 * How long an eviction takes is not its client's silence: he may ask again when it is done. On a
 * busy machine he may be too late himself, but not each time.
 */
static bool asks_after_an_eviction(struct fixture *f)
{
	char line[CONTROL_LINE_MAX] = "";
	struct client k;
	unsigned told = 0;
	bool again;

	atomic_store(&f->vm.hold, true);
	client_hello(&k, f);
	client_say(&k, "evict 4096\n");
	/* Its progress comes at intervals; three of them are longer than the silence allowed. */
	while (told < 3) {
		assert_true(client_line(&k, line));
		told += strncmp(line, "state ", 6) == 0;
	}
	atomic_store(&f->vm.hold, false);
	while (strcmp(line, "ok") != 0)
		assert_true(client_line(&k, line));
	client_say(&k, "status\n");
	again = client_line(&k, line);
	close(k.fd);
	return again;
}

static void an_eviction_is_no_silence(void **state)
{
	struct fixture *f = *state;
	bool again = false;

	restart(f, &vm_ops, 2 * CONTROL_PROGRESS_MS);
	for (unsigned i = 0; i < 5 && !again; i++)
		again = asks_after_an_eviction(f);
	assert_true(again);
	restart(f, &vm_ops, 0);
}

/* Who waits for the VM's end, and hangs up first, leaves his slot to others. */
static void who_waits_for_the_end_may_go(void **state)
{
	struct fixture *f = *state;
	char line[CONTROL_LINE_MAX];
	struct client k;
	bool served = false;

	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		client_hello(&k, f);
		client_say(&k, "stop\n");
		expect_line(&k, "ok");
		close(k.fd);
	}
	/* The server hears of it when it looks, and so may turn one away before. */
	for (unsigned i = 0; i < 100000 && !served; i++) {
		client_open(&k, f);
		expect_line(&k, "asyncpf-control 1");
		client_say(&k, "asyncpf-control 1\nstatus\n");
		served = client_line(&k, line) && strncmp(line, "error ", 6) != 0;
		close(k.fd);
	}
	assert_true(served);
}

static void a_crowd(void **state)
{
	struct fixture *f = *state;
	struct client k[CONTROL_CLIENTS_MAX], late;
	struct control_status s;

	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		client_hello(&k[i], f);
	for (unsigned i = 0; i < 20; i++) {
		client_open(&late, f);
		expect_line(&late, "asyncpf-control 1");
		expect_line(&late, "error too many clients: try again when one has gone");
		expect_end(&late);
	}
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		ask_ok(&k[i], "status\n", &s);
	/* One goes, another may come. */
	client_say(&k[0], "garbage\n");
	expect_line(&k[0], UNKNOWN);
	expect_end(&k[0]);
	expect_alive(f);
	for (unsigned i = 1; i < CONTROL_CLIENTS_MAX; i++)
		close(k[i].fd);
}

/* A piece of what a client might send: real words, broken ones, and noise. */
static size_t garbage(struct prng *rng, char *buf, size_t max)
{
	static const char *const words[] = {
		"asyncpf-control 1\n", "status\n", "evict 4096\n", "evict ", "pause\n", "resume\n",
		"\n", " ", "asyncpf-control ", "status", "18446744073709551616\n",
	};
	size_t len = 0, want = prng_below(rng, 300);

	while (len < want) {
		if (prng_below(rng, 3)) {
			const char *word = words[prng_below(rng, ARRAY_LEN(words))];
			size_t n = strlen(word);

			if (n > max - len)
				break;
			memcpy(buf + len, word, n);
			len += n;
		} else {
			buf[len++] = (char)prng_next(rng);
		}
	}
	return len;
}

static void thousand_of_garbage(void **state)
{
	struct fixture *f = *state;
	struct prng rng;

	prng_init(&rng, 20261);
	for (unsigned i = 0; i < 1000; i++) {
		char bytes[400];
		struct client k;
		size_t len = garbage(&rng, bytes, sizeof(bytes));

		client_open(&k, f);
		if (prng_below(&rng, 2))
			client_say(&k, "asyncpf-control 1\n");
		client_send(&k, bytes, len);
		if (prng_below(&rng, 4) == 0) {
			/* Reads all that it is told, until the server has had enough. */
			char line[CONTROL_LINE_MAX];

			shutdown(k.fd, SHUT_WR);
			while (client_line(&k, line))
				;
		}
		close(k.fd);
	}
	expect_alive(f);
	assert_int_equal(f->vm.stops, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(breaches_end_the_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(half_a_line, setup, teardown),
		cmocka_unit_test_setup_teardown(request_flood, setup, teardown),
		cmocka_unit_test_setup_teardown(client_that_does_not_read, setup, teardown),
		cmocka_unit_test_setup_teardown(one_request_in_a_turn, setup, teardown),
		cmocka_unit_test_setup_teardown(silent_clients, setup, teardown),
		cmocka_unit_test_setup_teardown(silence_ends_the_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(silence_after_a_greeting, setup, teardown),
		cmocka_unit_test_setup_teardown(half_closed, setup, teardown),
		cmocka_unit_test_setup_teardown(an_eviction_is_no_silence, setup, teardown),
		cmocka_unit_test_setup_teardown(who_waits_for_the_end_may_go, setup, teardown),
		cmocka_unit_test_setup_teardown(a_crowd, setup, teardown),
		cmocka_unit_test_setup_teardown(thousand_of_garbage, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
