/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes along with the reads of a VMM's own source: it needs no read, and overwrites nothing,
 * whatever guest, VMM and eviction do at the same time. A real VM, which has a vCPU where it says
 * so.
 */
#include "custom_fixture.h"
#include "need_kvm.h"

/* ---- what comes along ---- */

static void neighbours_need_no_read(void **state)
{
	struct own o;

	(void)state;
	prepare(&o, ALONG);
	begin(&o, NULL);
	must_read(&o, 0, 64 * PAGE);
	assert_int_equal(o.told, 4);
	assert_int_equal(stat_reads(&o), 4);
	finish(&o);
}

static void a_guest_finds_what_came_along(void **state)
{
	struct own o;
	unsigned char data[4 * PAGE];
	uint64_t taken;

	(void)state;
	prepare(&o, QUEUED);
	vm_start(&o.v, NULL);
	add_source(&o, NULL);
	place(&o, VM_DATA, VM_DATA_BYTES);
	VM_USER(&o.v, VM_LOAD_DATA);
	fill(data, 0, sizeof(data));
	assert_int_equal(apf_source_offer(o.s, 0, data, sizeof(data), &taken), 0);
	assert_int_equal(taken, sizeof(data));
	vm_until_exit(&o.v, KVM_EXIT_IO);
	assert_int_equal(*((unsigned char *)o.v.run + o.v.run->io.data_offset),
			 (unsigned char)word_at(0));
	assert_int_equal(o.told, 0);
	finish(&o);
}

/* It might have to wait for what is offered. */
static void a_view_of_guest_memory_is_not_offered(void **state)
{
	struct own o;
	uint64_t taken;
	char *view;

	(void)state;
	prepare(&o, AT_ONCE);
	begin(&o, NULL);
	view = apf_memory_hva(o.v.apf, SRC_GPA);
	assert_int_equal(apf_source_offer(o.s, 0, view, PAGE, &taken), -EINVAL);
	assert_int_equal(apf_source_offer(o.s, 0, view - PAGE / 2, PAGE, &taken), -EINVAL);
	assert_int_equal(o.told, 0);
	finish(&o);
}

static void what_is_there_is_not_overwritten(void **state)
{
	uint64_t mine[PAGE / 8], taken;
	unsigned char *all = malloc(SRC_BYTES);
	struct populating p;
	struct own o;

	(void)state;
	prepare(&o, AT_ONCE);
	begin(&o, NULL);
	memset(all, 0x66, SRC_BYTES);
	memset(mine, 0x77, sizeof(mine));
	assert_int_equal(apf_write(o.v.apf, SRC_GPA, mine, PAGE), 0);
	must_read(&o, PAGE, PAGE);
	o.how = QUEUED;
	populate_begin(&p, &o, 2 * PAGE, PAGE);
	wait_reads(&o, 1);
	/* Written, present, being read, and one that is offered but for a byte. */
	assert_int_equal(apf_source_offer(o.s, 0, all, 4 * PAGE - 1, &taken), 0);
	assert_int_equal(taken, 0);
	fill(o.reads[0].buf, 2 * PAGE, PAGE);
	assert_int_equal(apf_read_done(o.s, o.reads[0].id), 0);
	assert_int_equal(populate_end(&p), 0);
	o.how = AT_ONCE;
	must_read(&o, PAGE, 3 * PAGE);
	assert_int_equal(apf_read(o.v.apf, SRC_GPA, all, PAGE), 0);
	assert_memory_equal(all, mine, PAGE);
	/* All the rest in one go; it ends with the source. */
	fill(all, 0, SRC_BYTES);
	assert_int_equal(apf_source_offer(o.s, 0, all, SRC_BYTES, &taken), 0);
	assert_int_equal(taken, SRC_BYTES - 4 * PAGE);
	assert_int_equal(apf_source_offer(o.s, SRC_BYTES, all, PAGE, &taken), 0);
	assert_int_equal(taken, 0);
	assert_int_equal(apf_source_offer(o.s, UINT64_MAX - 9, all, 9, &taken), 0);
	assert_int_equal(taken, 0);
	must_read(&o, PAGE, SRC_BYTES - PAGE);
	assert_int_equal(o.told, 4);
	free(all);
	finish(&o);
}

struct contest {
	struct own *o;
	unsigned first; /* page: this thread's are every fourth from here */
	bool *end;
	uint64_t offered; /* bytes */
};

/* Each page is one thread's, who knows what is in it. The last half stays as it is. */
static void *write_and_look(void *arg)
{
	struct contest *c = arg;
	static uint32_t round[PAGES];
	unsigned seed = c->first;
	uint64_t page[PAGE / 8];

	while (!GET(*c->end)) {
		unsigned n = (unsigned)rand_r(&seed) % (PAGES / 4) * 4 + c->first;
		uint64_t at = n * (uint64_t)PAGE;

		CHECK(apf_read(c->o->v.apf, SRC_GPA + at, page, PAGE) == 0);
		if (round[n] == 0)
			CHECK(is_right(page, at, PAGE));
		for (unsigned i = 0; round[n] && i < PAGE / 8; i++)
			CHECK(page[i] == (at ^ round[n]));
		if (rand_r(&seed) % 4 || n >= PAGES / 2)
			continue;
		round[n]++;
		for (unsigned i = 0; i < PAGE / 8; i++)
			page[i] = at ^ round[n];
		CHECK(apf_write(c->o->v.apf, SRC_GPA + at, page, PAGE) == 0);
	}
	return NULL;
}

static void *offer_all(void *arg)
{
	struct contest *c = arg;
	unsigned char *data = malloc(SRC_BYTES);
	unsigned seed = 7 + c->first;

	fill(data, 0, SRC_BYTES);
	while (!GET(*c->end)) {
		uint64_t from = (unsigned)rand_r(&seed) % SRC_BYTES & ~7u, taken = 0;
		uint64_t len = (unsigned)rand_r(&seed) % (SRC_BYTES - from);

		CHECK(apf_source_offer(c->o->s, from, data + from, len, &taken) == 0);
		c->offered += taken;
	}
	free(data);
	return NULL;
}

static void *evict(void *arg)
{
	struct contest *c = arg;

	while (!GET(*c->end)) {
		(void)apf_evict(c->o->v.apf, 0, NULL, NULL);
		usleep(1000);
	}
	return NULL;
}

static void offers_against_writes_and_eviction(void **state)
{
	pthread_t writers[4], offering[4], evicting;
	struct contest w[4], f[4], e;
	char folder[] = "/tmp/asyncpf-custom-XXXXXX", swap[64];
	bool end = false;
	uint64_t offered = 0;
	struct own o;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(swap, sizeof(swap), "%s/swap", folder);
	prepare(&o, AT_ONCE);
	o.v.config.swap = swap;
	o.v.config.block_bytes = *state ? 16384 : 4096;
	begin(&o, NULL);
	e = (struct contest){.o = &o, .end = &end};
	for (unsigned i = 0; i < 4; i++) {
		w[i] = f[i] = (struct contest){.o = &o, .end = &end, .first = i};
		assert_int_equal(pthread_create(&writers[i], NULL, write_and_look, &w[i]), 0);
		assert_int_equal(pthread_create(&offering[i], NULL, offer_all, &f[i]), 0);
	}
	assert_int_equal(pthread_create(&evicting, NULL, evict, &e), 0);
	usleep(700000);
	__atomic_store_n(&end, true, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(writers[i], NULL);
		pthread_join(offering[i], NULL);
		offered += f[i].offered;
	}
	pthread_join(evicting, NULL);
	print_message("%llu KiB were taken\n", (unsigned long long)offered >> 10);
	assert_true(offered > 0);
	finish(&o);
	assert_int_equal(rmdir(folder), 0);
}

/* What came before the start is there when it begins. */
static void offered_before_the_start(void **state)
{
	unsigned char data[4 * PAGE];
	uint64_t taken;
	struct own o;

	(void)state;
	prepare(&o, AT_ONCE);
	assert_int_equal(apf_open(o.v.fd, &o.v.config, &o.v.apf, &o.v.error), 0);
	assert_int_equal(apf_memory_add(o.v.apf, 0, VM_RAM, &o.v.error), 0);
	add_source(&o, NULL);
	place(&o, SRC_GPA, SRC_BYTES);
	fill(data, 0, sizeof(data));
	assert_int_equal(apf_source_offer(o.s, 0, data, sizeof(data), &taken), 0);
	assert_int_equal(taken, sizeof(data));
	assert_int_equal(apf_start(o.v.apf, &o.v.error), 0);
	must_read(&o, 0, 6 * PAGE);
	assert_int_equal(o.told, 2);
	finish(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VM_TEST(neighbours_need_no_read),
		VM_TEST(a_guest_finds_what_came_along),
		VM_TEST(what_is_there_is_not_overwritten),
		VM_TEST(a_view_of_guest_memory_is_not_offered),
		VM_TEST(offers_against_writes_and_eviction),
		VM_TEST_ARG("offers_of_larger_blocks", offers_against_writes_and_eviction, 1),
		VM_TEST(offered_before_the_start),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
