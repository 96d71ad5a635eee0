/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VMM that copies a running guest's memory, as for a migration: KVM's dirty log, what the library
 * tells by on_write, and the VMM's own devices, page by page until nothing is dirty any more. Then
 * the copy must be the memory, byte by byte, whatever was fetched, evicted, discarded and told
 * meanwhile.
 *
 * usage: dirty_log_test [STOPS]    so often the VM is stopped, and its copy compared; 3
 */
#include "small_fixture.h"
#include "need_kvm.h"

#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>

#include "vmm/memory/guest_mem.h"

#define GUEST_PAGES 768u
#define FREE_FIRST GUEST_PAGES /* pages of the upper range that the guest does not use */
#define FREE_PAGES 256u
#define MIB (1ull << 20)
#define VCPUS 2u
#define ROUNDS_MAX 3u /* of copying, before the VM is stopped for the rest */
#define BITS 64u

static uint32_t stops = 3;

struct range {
	unsigned slot;
	uint64_t gpa, pages;
	unsigned char *vmm;
	unsigned char *copy;
	uint64_t *log;   /* KVM's, of one look */
	uint64_t *told;  /* by on_write; atomic */
	uint64_t *wrote; /* by devices of ours; atomic */
};

struct copier {
	struct apf *apf;
	int vm;
	struct range ranges[2];
	struct apf_vcpu *vcpus[VCPUS];
	uint32_t rests[VCPUS]; /* times that apf_vcpu_run() has returned; atomic */
	pthread_mutex_t devices; /* held by one that is at work */
	pthread_t thread, by_pointer, by_call;
	int stop; /* atomic */
	int stopped_fd; /* it has been stopped often enough */
	uint64_t copied, log_pages, told_pages;
	const unsigned char *image;
	char swap[64];
};

/* ---- who has written where ---- */

static void set_bit(uint64_t *bits, uint64_t page)
{
	__atomic_fetch_or(&bits[page / BITS], 1ull << page % BITS, __ATOMIC_SEQ_CST);
}

static void mark(struct copier *c, size_t bits, uint64_t gpa, uint64_t bytes)
{
	for (unsigned i = 0; i < 2; i++) {
		struct range *r = &c->ranges[i];
		uint64_t *to = *(uint64_t **)(void *)((char *)r + bits);

		for (uint64_t at = gpa & ~(PAGE_BYTES - 1); at < gpa + bytes; at += PAGE_BYTES)
			if (at >= r->gpa && (at - r->gpa) / PAGE_BYTES < r->pages)
				set_bit(to, (at - r->gpa) / PAGE_BYTES);
	}
}

static void on_write(void *ctx, uint64_t gpa, uint64_t bytes)
{
	mark(ctx, offsetof(struct range, told), gpa, bytes);
}

/* The pages that anybody has written to since the last look; how many. */
static uint64_t look(struct copier *c, struct range *r)
{
	struct kvm_dirty_log log = {.slot = r->slot, .dirty_bitmap = r->log};
	uint64_t n = 0;

	if (ioctl(c->vm, KVM_GET_DIRTY_LOG, &log) < 0)
		fail_msg("KVM_GET_DIRTY_LOG: %s", strerror(errno));
	for (uint64_t w = 0; w < r->pages / BITS; w++) {
		uint64_t told = __atomic_exchange_n(&r->told[w], 0, __ATOMIC_SEQ_CST);
		uint64_t wrote = __atomic_exchange_n(&r->wrote[w], 0, __ATOMIC_SEQ_CST);

		c->log_pages += (unsigned)__builtin_popcountll(r->log[w]);
		c->told_pages += (unsigned)__builtin_popcountll(told & ~r->log[w] & ~wrote);
		r->log[w] |= told | wrote;
		n += (unsigned)__builtin_popcountll(r->log[w]);
	}
	return n;
}

static void copy_page(struct copier *c, struct range *r, uint64_t page)
{
	uint64_t at = page * PAGE_BYTES;

	assert_int_equal(apf_read(c->apf, r->gpa + at, r->copy + at, PAGE_BYTES), 0);
	c->copied++;
}

/* What was dirty is copied; how many pages. */
static uint64_t copy_dirty(struct copier *c)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < 2; i++) {
		struct range *r = &c->ranges[i];

		n += look(c, r);
		for (uint64_t p = 0; p < r->pages; p++)
			if (r->log[p / BITS] >> p % BITS & 1)
				copy_page(c, r, p);
	}
	return n;
}

/*
 * The first time: all but what is zeroes, or as the image has it. The log is on since before the
 * guest ran.
 */
static void copy_all(struct copier *c)
{
	struct range *low = &c->ranges[0], *high = &c->ranges[1];

	for (uint64_t p = 0; p < low->pages; p++)
		copy_page(c, low, p);
	for (uint64_t p = 0; p < high->pages; p++) {
		uint64_t at = p * PAGE_BYTES;
		unsigned char where;

		assert_int_equal(apf_residency(c->apf, high->gpa + at, PAGE_BYTES, &where), 0);
		if (where & APF_BLOCK_ZEROES)
			continue;
		if (where & APF_BLOCK_CHANGED)
			copy_page(c, high, p);
		else
			memcpy(high->copy + at, c->image + at, PAGE_BYTES);
	}
}

/* ---- standing still ---- */

static bool is_stopping(const struct copier *c)
{
	return __atomic_load_n(&c->stop, __ATOMIC_ACQUIRE);
}

static void at_rest(void *ctx, const struct small_rest *r)
{
	struct copier *c = ctx;

	__atomic_fetch_add(&c->rests[r->index], 1, __ATOMIC_RELEASE);
}

/* The guest has ended, or no vCPU is in it and no device at work. */
static void stand_still(struct copier *c)
{
	uint32_t before[VCPUS];

	pthread_mutex_lock(&c->devices);
	apf_pause(c->apf);
	for (unsigned i = 0; i < VCPUS; i++) {
		before[i] = __atomic_load_n(&c->rests[i], __ATOMIC_ACQUIRE);
		apf_vcpu_kick(c->vcpus[i]);
	}
	for (unsigned i = 0; i < VCPUS; i++)
		while (__atomic_load_n(&c->rests[i], __ATOMIC_ACQUIRE) == before[i] &&
		       !is_stopping(c))
			sched_yield();
}

static void go_on(struct copier *c)
{
	apf_resume(c->apf);
	pthread_mutex_unlock(&c->devices);
}

/* A page that differs must be one that has just been written to, and said so. */
static void the_copy_is_the_memory(struct copier *c)
{
	static unsigned char page[PAGE_BYTES];

	while (copy_dirty(c) > 0)
		;
	for (unsigned i = 0; i < 2; i++) {
		struct range *r = &c->ranges[i];

		for (uint64_t p = 0; p < r->pages; p++) {
			uint64_t at = p * PAGE_BYTES;

			assert_int_equal(apf_read(c->apf, r->gpa + at, page, PAGE_BYTES), 0);
			if (memcmp(page, r->copy + at, PAGE_BYTES) == 0)
				continue;
			(void)look(c, r);
			if (!(r->log[p / BITS] >> p % BITS & 1))
				fail_msg("page at %#llx differs, and nobody has said so",
					 (unsigned long long)(r->gpa + at));
			copy_page(c, r, p);
		}
	}
}

/* ---- threads ---- */

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* The guest gets as much time as a step has taken from it. */
static void rest(const struct copier *c, uint64_t began)
{
	uint64_t until = now_us() + (now_us() - began);

	while (now_us() < until && !is_stopping(c))
		usleep(1000);
}

static void *copy_again_and_again(void *arg)
{
	struct copier *c = arg;

	static const uint64_t one = 1;

	copy_all(c);
	for (uint32_t i = 0; i < stops; i++) {
		uint64_t began = now_us();

		for (unsigned n = 0; n < ROUNDS_MAX && copy_dirty(c) > 0; n++)
			;
		stand_still(c);
		if (is_stopping(c))
			break;
		the_copy_is_the_memory(c);
		go_on(c);
		rest(c, began);
	}
	assert_int_equal(write(c->stopped_fd, &one, sizeof(one)), sizeof(one));
	return NULL;
}

/* By its pointer into the VMM's view, and a bitmap of its own. */
static void *write_by_pointer(void *arg)
{
	struct copier *c = arg;
	struct range *r = &c->ranges[1];
	struct prng rng;

	prng_init(&rng, 1);
	while (!is_stopping(c)) {
		uint64_t page = FREE_FIRST + prng_below(&rng, FREE_PAGES);
		uint64_t word = prng_below(&rng, PAGE_BYTES / 8), began = now_us();

		pthread_mutex_lock(&c->devices);
		((uint64_t *)(void *)(r->vmm + page * PAGE_BYTES))[word] = prng_next(&rng);
		set_bit(r->wrote, page);
		pthread_mutex_unlock(&c->devices);
		rest(c, began);
	}
	return NULL;
}

/* By calls of the library's, which tells of it. */
static void *write_by_call(void *arg)
{
	static unsigned char buf[20 * PAGE_BYTES];
	struct copier *c = arg;
	struct range *r = &c->ranges[1];
	struct prng rng;

	prng_init(&rng, 2);
	while (!is_stopping(c)) {
		uint64_t pages = 1 + prng_below(&rng, 20);
		uint64_t page = FREE_FIRST + prng_below(&rng, FREE_PAGES - pages);
		uint64_t gpa = r->gpa + page * PAGE_BYTES, began = now_us();
		int rc;

		pthread_mutex_lock(&c->devices);
		memset(buf, (int)prng_next(&rng), sizeof(buf));
		if (prng_below(&rng, 3) == 0)
			rc = apf_discard(c->apf, gpa, pages * PAGE_BYTES);
		else
			rc = apf_write(c->apf, gpa + 100, buf, pages * PAGE_BYTES - 200);
		pthread_mutex_unlock(&c->devices);
		assert_int_equal(rc, 0);
		rest(c, began);
	}
	return NULL;
}

/* ---- the machine ---- */

static void set_up(struct copier *c, struct range *r, unsigned slot, uint64_t gpa, uint64_t bytes,
		   unsigned char *vmm)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = KVM_MEM_LOG_DIRTY_PAGES,
		.guest_phys_addr = gpa,
		.memory_size = bytes,
		.userspace_addr = (uintptr_t)apf_memory_hva(c->apf, gpa),
	};

	*r = (struct range){
		.slot = slot,
		.gpa = gpa,
		.pages = bytes / PAGE_BYTES,
		.vmm = vmm,
		.copy = calloc(1, bytes),
		.log = calloc(bytes / PAGE_BYTES / BITS, sizeof(uint64_t)),
		.told = calloc(bytes / PAGE_BYTES / BITS, sizeof(uint64_t)),
		.wrote = calloc(bytes / PAGE_BYTES / BITS, sizeof(uint64_t)),
	};
	assert_true(r->copy && r->log && r->told && r->wrote);
	assert_int_equal(ioctl(c->vm, KVM_SET_USER_MEMORY_REGION, &region), 0);
}

static void made(void *ctx, struct apf *a, int vm_fd, const struct guest_mem *mem)
{
	struct copier *c = ctx;

	c->apf = a;
	c->vm = vm_fd;
	set_up(c, &c->ranges[0], 0, 0, mem->low_bytes, mem->low);
	set_up(c, &c->ranges[1], 1, GUEST_HIGH_GPA, mem->high_bytes, mem->high);
	assert_int_equal(c->ranges[1].pages, GUEST_PAGES + FREE_PAGES);
}

static void tick(void *ctx, struct apf *a, struct apf_vcpu *const *vcpus, bool first)
{
	struct copier *c = ctx;

	(void)a;
	if (!first)
		return;
	memcpy(c->vcpus, vcpus, sizeof(c->vcpus));
	assert_int_equal(pthread_create(&c->thread, NULL, copy_again_and_again, c), 0);
	assert_int_equal(pthread_create(&c->by_pointer, NULL, write_by_pointer, c), 0);
	assert_int_equal(pthread_create(&c->by_call, NULL, write_by_call, c), 0);
}

static void end(void *ctx)
{
	struct copier *c = ctx;

	__atomic_store_n(&c->stop, 1, __ATOMIC_RELEASE);
	pthread_join(c->thread, NULL);
	pthread_join(c->by_pointer, NULL);
	pthread_join(c->by_call, NULL);
	/* And at the end, when no vCPU runs any more. */
	the_copy_is_the_memory(c);
	for (unsigned i = 0; i < 2; i++) {
		struct range *r = &c->ranges[i];

		free(r->copy);
		free(r->log);
		free(r->told);
		free(r->wrote);
	}
}

static void copied(enum apf_faults faults, enum apf_abi abi)
{
	struct copier c = {.devices = PTHREAD_MUTEX_INITIALIZER,
			   .stopped_fd = eventfd(0, EFD_CLOEXEC)};
	struct fix *f = fix_open(faults, abi, GUEST_PAGES);

	snprintf(c.swap, sizeof(c.swap), "/tmp/asyncpf-dirty-%d", (int)getpid());
	c.image = mmap(NULL, GUEST_PAGES * PAGE_BYTES, PROT_READ, MAP_SHARED, f->image_fd, 0);
	assert_ptr_not_equal(c.image, MAP_FAILED);
	f->cfg.boot.vcpus = VCPUS;
	f->cfg.boot.pattern = SMALL_REWRITE;
	f->cfg.boot.rounds = UINT32_MAX;
	f->cfg.stop_fd = c.stopped_fd;
	f->cfg.apf.swap = c.swap;
	/* The small machine pins 18 MiB. */
	f->cfg.apf.resident_max = 18 * MIB + (GUEST_PAGES + FREE_PAGES) / 4 * 3 * PAGE_BYTES;
	f->cfg.apf.on_write = on_write;
	f->cfg.apf.on_write_ctx = &c;
	f->cfg.made = made;
	f->cfg.tick = tick;
	f->cfg.at_rest = at_rest;
	f->cfg.end = end;
	f->cfg.ctx = &c;
	fix_source(f, "delay+", "us=200");
	if (small_run(&f->cfg, &f->out, &f->err) != -EINTR)
		fail_msg("%s; guest says: %s", f->err.text, f->out.console);
	for (unsigned t = 0; t < f->cfg.boot.tasks; t++)
		assert_int_equal(f->out.results.task[t].pages_bad, 0);
	print_message("%llu pages copied, by the log %llu, by the library alone %llu; %llu "
		      "evicted, %llu events\n", (unsigned long long)c.copied,
		      (unsigned long long)c.log_pages, (unsigned long long)c.told_pages,
		      (unsigned long long)f->out.stats.evicted,
		      (unsigned long long)f->out.stats.missing_events);
	assert_true(c.log_pages > 0 && c.told_pages > 0 && f->out.stats.evicted > 0);
	close(c.stopped_fd);
	munmap((void *)(uintptr_t)c.image, GUEST_PAGES * PAGE_BYTES);
	fix_close(f);
}

static void the_copy_of_a_guest_is_identical(void **state)
{
	(void)state;
	copied(APF_FAULTS_USER, APF_ABI_INT);
	copied(APF_FAULTS_USER, APF_ABI_PF2);
	copied(APF_FAULTS_STALL, APF_ABI_OFF);
	copied(APF_FAULTS_KERNEL, APF_ABI_OFF);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_copy_of_a_guest_is_identical),
	};

	if (argc > 1)
		stops = (uint32_t)strtoul(argv[1], NULL, 10);
	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
