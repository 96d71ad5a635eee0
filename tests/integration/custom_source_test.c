/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A page source of the VMM's own: reads that sixteen threads answer in any order, twice and too
 * late; zeroes, failures, time-outs, cancel; answers from signal handlers and after apf_close. A
 * real VM, which has a vCPU where it says so.
 */
#include "custom_fixture.h"
#include "need_kvm.h"

#include <signal.h>
#include <time.h>

/* ---- answers ---- */

static void an_answer_in_the_call_needs_no_other_thread(void **state)
{
	struct own o;

	(void)state;
	prepare(&o, AT_ONCE);
	begin(&o, NULL);
	must_read(&o, 0, 64 * PAGE);
	assert_int_equal(o.told, 64);
	assert_true(pthread_equal(o.teller, pthread_self()));
	must_read(&o, 0, 64 * PAGE);
	assert_int_equal(o.told, 64);
	finish(&o);
}

#define WORKERS 16u
#define OVER 64u

struct crew {
	struct own *o;
	apf_read_id over[OVER]; /* atomic: answered; refused for ever */
	unsigned overs;
	unsigned stale;
};

/* Takes any of the reads, answers, and answers again what is over. */
static void *work(void *arg)
{
	struct crew *c = arg;
	struct own *o = c->o;
	unsigned seed = (unsigned)(uintptr_t)pthread_self();

	pthread_mutex_lock(&o->lock);
	for (;;) {
		struct apf_read_request rd;
		unsigned i;

		while (o->count == 0 && !o->end)
			pthread_cond_wait(&o->more, &o->lock);
		if (o->count == 0)
			break;
		i = (unsigned)rand_r(&seed) % o->count;
		rd = o->reads[i];
		o->reads[i] = o->reads[--o->count];
		pthread_mutex_unlock(&o->lock);
		if (rand_r(&seed) % 4 == 0)
			usleep((useconds_t)rand_r(&seed) % 200);
		fill(rd.buf, rd.offset, rd.len);
		CHECK(apf_read_done(o->s, rd.id) == 0);
		__atomic_store_n(&c->over[COUNT(c->overs) % OVER], rd.id, __ATOMIC_RELEASE);
		for (unsigned n = 0; n < 4; n++) {
			apf_read_id id = GET(c->over[(unsigned)rand_r(&seed) % OVER]);

			CHECK(apf_read_done(o->s, id) == -ESTALE);
			CHECK(apf_read_zeroes(o->s, id) == -ESTALE);
			CHECK(apf_read_failed(o->s, id, -EIO, "late") == -ESTALE);
			COUNT(c->stale);
		}
		pthread_mutex_lock(&o->lock);
	}
	pthread_mutex_unlock(&o->lock);
	return NULL;
}

static void *read_here_and_there(void *arg)
{
	struct own *o = arg;
	unsigned seed = (unsigned)(uintptr_t)pthread_self();

	for (unsigned n = 0; n < 150; n++) {
		uint64_t page = (unsigned)rand_r(&seed) % (PAGES - 16);

		must_read(o, page * PAGE, (1 + (unsigned)rand_r(&seed) % 16) * PAGE);
	}
	return NULL;
}

static void crew_end(struct own *o, pthread_t *workers)
{
	pthread_mutex_lock(&o->lock);
	o->end = true;
	pthread_cond_broadcast(&o->more);
	pthread_mutex_unlock(&o->lock);
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(workers[i], NULL);
}

static void sixteen_threads_answer_in_any_order(void **state)
{
	pthread_t workers[WORKERS], readers[8];
	struct own o;
	struct crew c = {.o = &o};

	(void)state;
	prepare(&o, QUEUED);
	begin(&o, NULL);
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_create(&workers[i], NULL, work, &c), 0);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, read_here_and_there, &o), 0);
	for (unsigned i = 0; i < 8; i++)
		pthread_join(readers[i], NULL);
	must_read(&o, 0, SRC_BYTES);
	assert_int_equal(o.told, PAGES);
	crew_end(&o, workers);
	assert_int_equal(c.stale, 4 * PAGES);
	finish(&o);
}

struct race {
	struct own *o;
	pthread_barrier_t barrier;
	apf_read_id id;
	unsigned took; /* atomic */
	bool end;
};

static void *race(void *arg)
{
	struct race *r = arg;

	for (;;) {
		int rc;

		pthread_barrier_wait(&r->barrier);
		if (r->end)
			return NULL;
		rc = apf_read_done(r->o->s, r->id);
		CHECK(rc == 0 || rc == -ESTALE);
		if (rc == 0)
			COUNT(r->took);
		pthread_barrier_wait(&r->barrier);
	}
}

static void of_sixteen_answers_at_once_one_counts(void **state)
{
	pthread_t threads[WORKERS];
	struct populating p;
	struct own o;
	struct race r = {.o = &o};

	(void)state;
	prepare(&o, QUEUED);
	begin(&o, NULL);
	pthread_barrier_init(&r.barrier, NULL, WORKERS + 1);
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, race, &r), 0);
	for (unsigned n = 0; n < 200; n++) {
		populate_begin(&p, &o, n * PAGE, PAGE);
		wait_reads(&o, 1);
		o.count = 0;
		fill(o.reads[0].buf, o.reads[0].offset, o.reads[0].len);
		r.id = o.reads[0].id;
		r.took = 0;
		pthread_barrier_wait(&r.barrier);
		pthread_barrier_wait(&r.barrier);
		assert_int_equal(r.took, 1);
		assert_int_equal(populate_end(&p), 0);
	}
	r.end = true;
	pthread_barrier_wait(&r.barrier);
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(threads[i], NULL);
	o.how = AT_ONCE;
	must_read(&o, 0, 200 * PAGE);
	finish(&o);
}

static void zeroes_are_zeroes(void **state)
{
	static const unsigned char zero[8 * PAGE];
	unsigned char buf[8 * PAGE];
	struct own o;

	(void)state;
	prepare(&o, ZEROES);
	begin(&o, NULL);
	memset(buf, 0xdd, sizeof(buf));
	assert_int_equal(apf_read(o.v.apf, SRC_GPA, buf, sizeof(buf)), 0);
	assert_memory_equal(buf, zero, sizeof(buf));
	finish(&o);
}

static void a_guest_waits_for_a_thread_of_the_vmms(void **state)
{
	struct crew c = {.o = NULL};
	pthread_t workers[WORKERS];
	struct own o;

	(void)state;
	prepare(&o, QUEUED);
	c.o = &o;
	vm_start(&o.v, NULL);
	add_source(&o, NULL);
	place(&o, VM_DATA, VM_DATA_BYTES);
	VM_USER(&o.v, VM_LOAD_DATA);
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_create(&workers[i], NULL, work, &c), 0);
	vm_until_exit(&o.v, KVM_EXIT_IO);
	assert_int_equal(*((unsigned char *)o.v.run + o.v.run->io.data_offset),
			 (unsigned char)word_at(0));
	crew_end(&o, workers);
	finish(&o);
}

static void a_guest_is_answered_on_its_own_thread(void **state)
{
	struct own o;

	(void)state;
	prepare(&o, AT_ONCE);
	vm_start(&o.v, NULL);
	add_source(&o, NULL);
	place(&o, VM_DATA, VM_DATA_BYTES);
	VM_USER(&o.v, VM_LOAD_DATA);
	vm_until_exit(&o.v, KVM_EXIT_IO);
	assert_int_equal(*((unsigned char *)o.v.run + o.v.run->io.data_offset),
			 (unsigned char)word_at(0));
	assert_true(pthread_equal(o.teller, pthread_self()));
	finish(&o);
}

/* ---- failures ---- */

static void a_failure_pauses_with_the_vmms_words(void **state)
{
	struct apf_error e;
	struct populating p;
	struct own o;

	(void)state;
	prepare(&o, FAILS);
	o.v.config.retries_max = 2;
	begin(&o, NULL);
	populate_begin(&p, &o, 3 * PAGE, PAGE);
	wait_for(&o.pauses, 1);
	assert_int_equal(GET(o.told), 3);
	assert_non_null(strstr(o.paused, "at guest address 0x403000"));
	assert_non_null(strstr(o.paused, "my store has lost the key (tried 3 times)"));
	assert_int_equal(apf_trouble_get(o.v.apf, &e), -ENOKEY);
	assert_string_equal(e.text, o.paused);
	assert_true(apf_is_paused(o.v.apf));
	o.how = AT_ONCE;
	apf_resume(o.v.apf);
	assert_int_equal(populate_end(&p), 0);
	wait_for(&o.resumes, 1);
	assert_int_equal(apf_trouble_get(o.v.apf, &e), 0);
	must_read(&o, 3 * PAGE, PAGE);
	assert_int_equal(o.told, 4);
	finish(&o);
}

static void a_late_answer_ends_the_pause(void **state)
{
	struct populating p;
	struct own o;

	(void)state;
	prepare(&o, QUEUED);
	o.v.config.source_timeout_ms = 30;
	begin(&o, NULL);
	populate_begin(&p, &o, 0, PAGE);
	wait_for(&o.pauses, 1);
	assert_non_null(strstr(o.paused, "has not answered for 30 ms"));
	assert_int_equal(apf_trouble_get(o.v.apf, NULL), -ETIMEDOUT);
	fill(o.reads[0].buf, 0, PAGE);
	assert_int_equal(apf_read_done(o.s, o.reads[0].id), 0);
	assert_int_equal(populate_end(&p), 0);
	wait_for(&o.resumes, 1);
	assert_int_equal(o.cancels, 0);
	must_read(&o, 0, PAGE);
	finish(&o);
}

static void resume_cancels_what_takes_too_long(void **state)
{
	struct populating p;
	apf_read_id id;
	struct own o;

	(void)state;
	prepare(&o, QUEUED);
	o.v.config.source_timeout_ms = 30;
	o.acknowledges = false;
	begin(&o, NULL);
	populate_begin(&p, &o, 0, PAGE);
	wait_for(&o.pauses, 1);
	id = o.reads[0].id;
	apf_resume(o.v.apf);
	wait_for(&o.cancels, 1);
	assert_int_equal(o.cancelled, id);
	/* Not read anew as long as the buffer is the VMM's. */
	usleep(50000);
	assert_int_equal(GET(o.told), 1);
	assert_true(apf_is_paused(o.v.apf));
	assert_int_equal(apf_read_failed(o.s, id, -ECANCELED, "given up"), 0);
	wait_reads(&o, 2);
	assert_int_not_equal(o.reads[1].id, id);
	assert_int_equal(apf_read_done(o.s, id), -ESTALE);
	fill(o.reads[1].buf, 0, PAGE);
	assert_int_equal(apf_read_done(o.s, o.reads[1].id), 0);
	assert_int_equal(populate_end(&p), 0);
	must_read(&o, 0, PAGE);
	assert_int_equal(o.cancels, 1);
	finish(&o);
}

static void wrappers_stand_before_it(void **state)
{
	struct timespec from, to;
	struct own o;

	(void)state;
	prepare(&o, AT_ONCE);
	begin(&o, "delay+fault?ms=5&fault-error-at=2&fault-error-count=2");
	clock_gettime(CLOCK_MONOTONIC, &from);
	must_read(&o, 0, 4 * PAGE);
	clock_gettime(CLOCK_MONOTONIC, &to);
	assert_true((to.tv_sec - from.tv_sec) * 1000000000l + to.tv_nsec - from.tv_nsec >=
		    6 * 5000000l);
	assert_int_equal(stat_reads(&o), 6);
	assert_int_equal(o.told, 4);
	finish(&o);
}

/* ---- the end ---- */

static void *answer_late(void *arg)
{
	struct own *o = arg;

	wait_for(&o->cancels, 8);
	usleep(20000);
	for (unsigned i = 0; i < 8; i++)
		CHECK(apf_read_failed(o->s, o->reads[i].id, -ECANCELED, NULL) == 0);
	return NULL;
}

static void close_cancels_and_waits(void **state)
{
	bool acknowledges = *state != NULL;
	struct populating p[8];
	pthread_t late;
	struct own o;

	prepare(&o, QUEUED);
	o.acknowledges = acknowledges;
	begin(&o, NULL);
	for (unsigned i = 0; i < 8; i++)
		populate_begin(&p[i], &o, i * PAGE, PAGE);
	wait_reads(&o, 8);
	if (!acknowledges)
		assert_int_equal(pthread_create(&late, NULL, answer_late, &o), 0);
	assert_int_equal(apf_source_free(o.s), -EBUSY);
	apf_close(o.v.apf);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(populate_end(&p[i]), -EINTR);
	if (!acknowledges)
		pthread_join(late, NULL);
	assert_int_equal(o.cancels, 8);
	assert_int_equal(o.closes, 1);
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(apf_read_done(o.s, o.reads[i].id), -ESHUTDOWN);
		assert_int_equal(apf_read_zeroes(o.s, o.reads[i].id), -ESHUTDOWN);
		assert_int_equal(apf_read_failed(o.s, o.reads[i].id, -EIO, "x"), -ESHUTDOWN);
	}
	assert_int_equal(apf_source_offer(o.s, 0, &o, PAGE, NULL), -ESHUTDOWN);
	assert_int_equal(apf_source_place(o.s, 0, PAGE, 0, &o.v.error), -ESHUTDOWN);
	assert_int_equal(apf_source_free(o.s), 0);
}

static unsigned char content[SRC_BYTES];

/* Answers and offers without end, while the VM is closed under them. */
static void *never_mind(void *arg)
{
	struct own *o = arg;
	unsigned seed = (unsigned)(uintptr_t)pthread_self();
	int rc;

	do {
		struct apf_read_request rd = {.id = 0};
		uint64_t from = (unsigned)rand_r(&seed) % PAGES * PAGE;

		pthread_mutex_lock(&o->lock);
		if (o->count > 0)
			rd = o->reads[--o->count];
		pthread_mutex_unlock(&o->lock);
		if (rd.id != 0) {
			fill(rd.buf, rd.offset, rd.len);
			rc = apf_read_done(o->s, rd.id);
			/* Who acknowledges the cancel may have been first. */
			CHECK(rc == 0 || rc == -ESTALE || rc == -ESHUTDOWN);
		}
		rc = apf_source_offer(o->s, from, content + from, PAGE, NULL);
		CHECK(rc == 0 || rc == -EINTR || rc == -ESHUTDOWN);
		/* Offers are refused first, answers are wanted to the end. */
	} while (apf_read_done(o->s, 1) != -ESHUTDOWN);
	return NULL;
}

static void *keep_reading(void *arg)
{
	struct own *o = arg;
	unsigned char page[PAGE];
	unsigned seed = (unsigned)(uintptr_t)pthread_self();
	int rc;

	do {
		uint64_t at = (unsigned)rand_r(&seed) % PAGES * PAGE;

		rc = apf_read(o->v.apf, SRC_GPA + at, page, PAGE);
		CHECK(rc == -EINTR || is_right(page, at, PAGE));
	} while (rc == 0);
	CHECK(rc == -EINTR);
	return NULL;
}

static void close_under_threads_that_answer(void **state)
{
	(void)state;
	fill(content, 0, SRC_BYTES);
	for (unsigned n = 0; n < 5; n++) {
		pthread_t threads[6], readers[2];
		struct own o;

		prepare(&o, QUEUED);
		/* A buffer that was given up must not be filled: who has it answers. */
		o.acknowledges = false;
		begin(&o, NULL);
		for (unsigned i = 0; i < 6; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, never_mind, &o), 0);
		for (unsigned i = 0; i < 2; i++)
			assert_int_equal(pthread_create(&readers[i], NULL, keep_reading, &o), 0);
		usleep(n * 4000);
		apf_stop(o.v.apf);
		for (unsigned i = 0; i < 2; i++)
			pthread_join(readers[i], NULL);
		apf_close(o.v.apf);
		for (unsigned i = 0; i < 6; i++)
			pthread_join(threads[i], NULL);
		assert_int_equal(apf_source_free(o.s), 0);
		close(o.v.vcpu_fd);
		close(o.v.fd);
		close(o.v.kvm);
	}
}

/* ---- signal handlers ---- */

static struct {
	struct own *o;
	unsigned answered, refused; /* atomic */
	unsigned offered;           /* by the handler's own thread */
	apf_read_id id;             /* atomic: to be answered; 0: none */
	bool end;
} handled;

static void answer_in_handler(int sig)
{
	apf_read_id id = __atomic_exchange_n(&handled.id, 0, __ATOMIC_ACQ_REL);
	int was = errno;

	(void)sig;
	if (id == 0)
		return;
	errno = 12345;
	CHECK(apf_read_done(handled.o->s, id) == 0);
	CHECK(apf_read_failed(handled.o->s, id, -EIO, "again") == -ESTALE);
	CHECK(errno == 12345);
	errno = was;
	COUNT(handled.answered);
}

/* May interrupt a call of the library, or none. */
static void offer_in_handler(int sig)
{
	uint64_t word = 0;
	int rc = apf_source_offer(handled.o->s, 0, &word, sizeof(word), NULL);

	(void)sig;
	CHECK(rc == 0 || rc == -EDEADLK);
	if (rc == -EDEADLK)
		COUNT(handled.refused);
	COUNT(handled.offered);
}

/* Is in calls that take the library's lock for most of its time. */
static void *in_and_out(void *arg)
{
	struct own *o = arg;
	struct apf_counters c;

	while (!GET(handled.end)) {
		apf_counters_get(o->v.apf, &c, sizeof(c));
		(void)apf_is_paused(o->v.apf);
		CHECK(apf_source_offer(o->s, 0, &c, 8, NULL) == 0);
	}
	return NULL;
}

static void a_signal_handler_answers(void **state)
{
	struct sigaction act = {.sa_handler = answer_in_handler};
	struct populating p;
	pthread_t busy;
	struct own o;

	(void)state;
	prepare(&o, QUEUED);
	begin(&o, NULL);
	handled.o = &o;
	assert_int_equal(sigaction(SIGUSR1, &act, NULL), 0);
	assert_int_equal(pthread_create(&busy, NULL, in_and_out, &o), 0);
	for (unsigned n = 0; n < 300; n++) {
		populate_begin(&p, &o, n * PAGE, PAGE);
		wait_reads(&o, 1);
		o.count = 0;
		fill(o.reads[0].buf, o.reads[0].offset, o.reads[0].len);
		__atomic_store_n(&handled.id, o.reads[0].id, __ATOMIC_RELEASE);
		pthread_kill(busy, SIGUSR1);
		assert_int_equal(populate_end(&p), 0);
	}
	__atomic_store_n(&handled.end, true, __ATOMIC_RELEASE);
	pthread_join(busy, NULL);
	assert_int_equal(handled.answered, 300);
	must_read(&o, 0, 300 * PAGE);
	finish(&o);
}

/* It is refused where it would wait for the call that it has interrupted. */
static void a_signal_handler_offers_in_vain(void **state)
{
	struct sigaction act = {.sa_handler = offer_in_handler};
	pthread_t busy;
	struct own o;

	(void)state;
	prepare(&o, QUEUED);
	begin(&o, NULL);
	memset(&handled, 0, sizeof(handled));
	handled.o = &o;
	assert_int_equal(sigaction(SIGUSR1, &act, NULL), 0);
	assert_int_equal(pthread_create(&busy, NULL, in_and_out, &o), 0);
	for (unsigned n = 0; n < 100000 && GET(handled.refused) < 10; n++) {
		pthread_kill(busy, SIGUSR1);
		while (GET(handled.offered) <= n)
			sched_yield();
	}
	__atomic_store_n(&handled.end, true, __ATOMIC_RELEASE);
	pthread_join(busy, NULL);
	assert_int_equal(handled.refused, 10);
	finish(&o);
}

/* ---- wrong uses ---- */

static void says(const struct own *o, int rc, int code, const char *words)
{
	if (rc != code || !strstr(o->v.error.text, words))
		print_error("rc %d, text: %s\n", rc, o->v.error.text);
	assert_int_equal(rc, code);
	assert_non_null(strstr(o->v.error.text, words));
}

static void wrong_uses_say_what_is_wrong(void **state)
{
	struct {
		struct apf_source_config c;
		uint64_t more;
	} big = {.more = 0};
	struct apf_source *s = NULL, *more[16];
	struct own o;

	(void)state;
	prepare(&o, AT_ONCE);
	vm_memory(&o.v, NULL);
	big.c = (struct apf_source_config){
		.size = sizeof(big.c), .bytes = SRC_BYTES, .read = on_read, .ctx = &o};
#define WRONG(member, value, code, words)                                                          \
	do {                                                                                       \
		struct apf_source_config c = big.c;                                                \
		c.member = (value);                                                                \
		says(&o, apf_source_custom(o.v.apf, &c, &s, &o.v.error), code, words);             \
		assert_null(s);                                                                    \
	} while (0)
	WRONG(size, 0, -EINVAL, "size is 0");
	WRONG(size, sizeof(big.c) - 8, -EINVAL, "which no version had");
	WRONG(size, sizeof(big.c) + 1, -EINVAL, "which no version had");
	WRONG(bytes, 0, -EINVAL, "size is 0 bytes");
	WRONG(read, NULL, -EINVAL, "read is NULL");
	WRONG(wrap, "slow?ms=3", -EINVAL, "slow");
	WRONG(wrap, "delay?s=3", -EINVAL, "'s'");
#undef WRONG
	big.c.size = sizeof(big);
	big.more = 1;
	says(&o, apf_source_custom(o.v.apf, &big.c, &s, &o.v.error), -EINVAL, "needs a newer one");
	big.more = 0;
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(apf_source_custom(o.v.apf, &big.c, &more[i], &o.v.error), 0);
	says(&o, apf_source_custom(o.v.apf, &big.c, &s, &o.v.error), -ENOSPC, "more than 16");
	s = more[0];
	says(&o, apf_source_place(s, SRC_GPA + 1, PAGE, 0, &o.v.error), -EINVAL, "not aligned");
	says(&o, apf_source_place(s, 1u << 30, PAGE, 0, &o.v.error), -EINVAL, "not within");
	assert_int_equal(apf_source_place(s, SRC_GPA, PAGE, 0, &o.v.error), 0);
	says(&o, apf_source_place(s, SRC_GPA, PAGE, 0, &o.v.error), -EINVAL, "overlaps");
	assert_int_equal(apf_source_place(s, SRC_GPA + PAGE, PAGE, PAGE, &o.v.error), 0);
	assert_int_equal(apf_read_done(s, 0), -ESTALE);
	assert_int_equal(apf_read_done(s, UINT64_MAX), -ESTALE);
	assert_int_equal(apf_source_free(NULL), 0);
	o.s = s;
	must_read(&o, 0, 2 * PAGE);
	apf_close(o.v.apf);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(apf_source_free(more[i]), 0);
}

static void one_that_is_never_started(void **state)
{
	struct own o;

	(void)state;
	prepare(&o, AT_ONCE);
	assert_int_equal(apf_open(o.v.fd, &o.v.config, &o.v.apf, &o.v.error), 0);
	add_source(&o, NULL);
	finish(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VM_TEST(an_answer_in_the_call_needs_no_other_thread),
		VM_TEST(sixteen_threads_answer_in_any_order),
		VM_TEST(of_sixteen_answers_at_once_one_counts),
		VM_TEST(zeroes_are_zeroes),
		VM_TEST(a_guest_waits_for_a_thread_of_the_vmms),
		VM_TEST(a_guest_is_answered_on_its_own_thread),
		VM_TEST(a_failure_pauses_with_the_vmms_words),
		VM_TEST(a_late_answer_ends_the_pause),
		VM_TEST(resume_cancels_what_takes_too_long),
		VM_TEST(wrappers_stand_before_it),
		VM_TEST_ARG("close_cancels_and_waits", close_cancels_and_waits, NULL),
		VM_TEST_ARG("close_cancels_and_is_answered", close_cancels_and_waits, 1),
		VM_TEST(close_under_threads_that_answer),
		VM_TEST(a_signal_handler_answers),
		VM_TEST(a_signal_handler_offers_in_vain),
		VM_TEST(wrong_uses_say_what_is_wrong),
		VM_TEST(one_that_is_never_started),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
