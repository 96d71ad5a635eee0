/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a page source by itself, without a VM, on the library's own queue of reads, workers and
 * network, for bench/sources.py, which starts servers and compares. Prints one JSON object.
 *
 *   seq URI IMAGE             all of it in order, 2 MiB a read, 16 MiB at a time, as the driver
 *                             reads ahead, into memory as guest RAM is; then compared with IMAGE
 *   random URI IMAGE N DEPTH  N reads of 4 KiB at random, DEPTH at a time, each compared at the end
 *   idle URI N                N sources opened, of each a page read: what the process grows by for
 *                             one, and who wakes up in a second in which nobody reads
 */
#include <dirent.h>
#include <errno.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "integration/cache_fixture.h"

#define AHEAD_BYTES (2u << 20)
#define AHEAD_READS 8u
#define IDLE_MAX 64u

struct one {
	struct src_read rd;
	struct run *run;
	uint64_t begun_ns;
};

struct run {
	struct rig rig;
	const unsigned char *image;
	unsigned char *to; /* read i of `random` has the i-th page */
	struct prng prng;
	uint64_t bytes, next, count, ended, failed;
	uint64_t *took_ns; /* of each that has ended */
	uint32_t *page;    /* of read i */
	struct one reads[RIG_READS];
	void (*more)(struct one *o);
};

static void die(const char *what, const char *why)
{
	fprintf(stderr, "bench-source: %s: %s\n", what, why);
	exit(1);
}

static void *map(size_t bytes, int fd)
{
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	void *at = mmap(NULL, bytes, PROT_READ | (fd < 0 ? PROT_WRITE : 0), flags, fd, 0);

	if (at == MAP_FAILED)
		die("mmap", strerror(errno));
	return at;
}

static void one_done(struct src_read *rd, const struct err *why)
{
	struct one *o = CONTAINER_OF(rd, struct one, rd);
	struct run *r = o->run;

	if (why)
		fprintf(stderr, "bench-source: %s\n", why->text);
	r->failed += why != NULL;
	r->took_ns[r->ended++] = rig_now_ns(NULL) - o->begun_ns;
	r->more(o);
}

static void begin(struct one *o, uint64_t offset, void *buf, uint32_t len)
{
	struct src *s = o->run->rig.src;

	o->begun_ns = rig_now_ns(NULL);
	o->rd = (struct src_read){.offset = offset, .buf = buf, .len = len, .done = one_done};
	s->ops->read(s, &o->rd);
}

static void seq_more(struct one *o)
{
	struct run *r = o->run;
	uint64_t at = r->next;

	if (at == r->bytes)
		return;
	r->next += min_u64(AHEAD_BYTES, r->bytes - at);
	begin(o, at, r->to + at, (uint32_t)(r->next - at));
}

static void random_more(struct one *o)
{
	struct run *r = o->run;
	uint64_t i = r->next;

	if (i == r->count)
		return;
	r->next++;
	r->page[i] = (uint32_t)prng_below(&r->prng, r->bytes / PAGE_BYTES);
	begin(o, r->page[i] * PAGE_BYTES, r->to + i * PAGE_BYTES, (uint32_t)PAGE_BYTES);
}

static void read_all(struct run *r, unsigned depth)
{
	for (unsigned i = 0; i < depth; i++) {
		r->reads[i].run = r;
		r->more(&r->reads[i]);
	}
	while (r->ended < r->count)
		rig_turn(&r->rig);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static double cpu_s(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* What was read is what the image has there. Returns how many pieces are not. */
static uint64_t wrong(const struct run *r, bool in_order)
{
	uint64_t n = 0;

	if (in_order)
		return memcmp(r->to, r->image, r->bytes) != 0;
	for (uint64_t i = 0; i < r->count; i++)
		n += memcmp(r->to + i * PAGE_BYTES, r->image + r->page[i] * PAGE_BYTES,
			    PAGE_BYTES) != 0;
	return n;
}

static void measure(const char *uri, const char *image, uint64_t count, unsigned depth)
{
	static struct run r;
	bool in_order = count == 0;
	int fd = open(image, O_RDONLY | O_CLOEXEC), memory;
	uint64_t begun_ns, took_ns;
	struct err e = {0};
	double cpu;

	if (fd < 0)
		die(image, strerror(errno));
	rig_open(&r.rig);
	if (src_open(uri, &r.rig.env, &r.rig.src, &e) < 0)
		die("open", e.text);
	r.bytes = r.rig.src->size;
	r.image = map(r.bytes, fd);
	r.more = in_order ? seq_more : random_more;
	r.count = in_order ? (r.bytes + AHEAD_BYTES - 1) / AHEAD_BYTES : count;
	r.took_ns = calloc(r.count, sizeof(*r.took_ns));
	r.page = calloc(r.count, sizeof(*r.page));
	memory = memfd_create("memory", MFD_CLOEXEC);
	if (!r.took_ns || !r.page || memory < 0 ||
	    ftruncate(memory, (off_t)(in_order ? r.bytes : count * PAGE_BYTES)) < 0)
		die("memory", strerror(errno));
	r.to = mmap(NULL, in_order ? r.bytes : count * PAGE_BYTES, PROT_READ | PROT_WRITE,
		    MAP_SHARED, memory, 0);
	if (r.to == MAP_FAILED)
		die("mmap", strerror(errno));
	if (!in_order)
		memset(r.to, 0, count * PAGE_BYTES);
	prng_init(&r.prng, 1);
	cpu = cpu_s();
	begun_ns = rig_now_ns(NULL);
	read_all(&r, depth);
	took_ns = rig_now_ns(NULL) - begun_ns;
	cpu = cpu_s() - cpu;
	qsort(r.took_ns, r.count, sizeof(*r.took_ns), by_value);
	printf("{\"bytes\": %llu, \"wall_s\": %.6f, \"cpu_s\": %.6f, \"p50_us\": %.1f, "
	       "\"p99_us\": %.1f, \"max_us\": %.1f, \"failed\": %llu, \"wrong\": %llu, "
	       "\"retries\": %llu, \"hedges\": %llu, \"misses\": %llu}\n",
	       (unsigned long long)(in_order ? r.bytes : count * PAGE_BYTES),
	       (double)took_ns / 1e9, cpu, (double)r.took_ns[r.count / 2] / 1e3,
	       (double)r.took_ns[r.count * 99 / 100] / 1e3,
	       (double)r.took_ns[r.count - 1] / 1e3, (unsigned long long)r.failed,
	       (unsigned long long)wrong(&r, in_order),
	       (unsigned long long)r.rig.counts.source_retries,
	       (unsigned long long)r.rig.counts.source_hedges,
	       (unsigned long long)r.rig.counts.cache_misses);
	rig_close(&r.rig);
}

/* A number behind a word in one of /proc's files. */
static unsigned long proc_number(const char *path, const char *word)
{
	FILE *f = fopen(path, "r");
	unsigned long n = 0;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, word, strlen(word)) == 0)
			n = strtoul(line + strlen(word), NULL, 10);
	if (f)
		fclose(f);
	return n;
}

/* How often threads other than this one have gone to sleep. */
static unsigned long sleeps(void)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *de;
	unsigned long sum = 0;

	while (d && (de = readdir(d))) {
		char path[300];

		if (de->d_name[0] == '.' || atoi(de->d_name) == getpid())
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%s/status", de->d_name);
		sum += proc_number(path, "voluntary_ctxt_switches:");
	}
	if (d)
		closedir(d);
	return sum;
}

static void idle(const char *uri, unsigned count)
{
	static struct rig rig;
	static struct src *all[IDLE_MAX + 1];
	static unsigned char page[PAGE_BYTES];
	unsigned long first = 0, last, woken = 0;
	uint64_t until_ns;

	rig_open(&rig);
	for (unsigned i = 0; i <= count; i++) {
		struct err e = {0};

		if (src_open(uri, &rig.env, &all[i], &e) < 0)
			die("open", e.text);
		rig.src = all[i];
		if (rig_read(&rig, 0, page, sizeof(page), &e) < 0)
			die("read", e.text);
		/* With the first come threads, libraries and what they share. */
		if (i == 0)
			first = proc_number("/proc/self/status", "VmRSS:");
	}
	last = proc_number("/proc/self/status", "VmRSS:");
	/* Connections come to rest; then for a second nobody has anything to do. */
	for (unsigned i = 0; i < 20; i++) {
		const struct timespec second = {.tv_sec = 1};
		unsigned long before = sleeps();

		until_ns = timers_next_ns(&rig.timers);
		nanosleep(&second, NULL);
		woken = sleeps() - before + (until_ns != NS_NEVER);
		if (woken == 0)
			break;
		while (net_lazy_pump(rig.net) || timers_run(&rig.timers, rig_now_ns(NULL)))
			;
	}
	printf("{\"bytes_each\": %lu, \"woken\": %lu}\n", (last - first) * 1024 / count, woken);
	for (unsigned i = 0; i < count; i++)
		src_close(all[i]);
	rig.src = all[count];
	rig_close(&rig);
}

int main(int argc, char **argv)
{
	unsigned count = argc > 3 ? (unsigned)atoi(argv[argc > 4 ? 4 : 3]) : 0;

	if (argc == 4 && strcmp(argv[1], "seq") == 0)
		measure(argv[2], argv[3], 0, AHEAD_READS);
	else if (argc == 6 && strcmp(argv[1], "random") == 0 && count > 0 && atoi(argv[5]) > 0 &&
		 atoi(argv[5]) <= (int)RIG_READS)
		measure(argv[2], argv[3], count, (unsigned)atoi(argv[5]));
	else if (argc == 4 && strcmp(argv[1], "idle") == 0 && count > 0 && count <= IDLE_MAX)
		idle(argv[2], count);
	else
		die("usage", "seq URI IMAGE, random URI IMAGE N DEPTH, idle URI N");
	return 0;
}
