/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stand-in for Firecracker's side of the handshake about guest memory, as its documents describe
 * it and sharing no code with the handler: maps memory, makes a userfaultfd, registers, connects,
 * sends one message. Then threads touch the memory and compare each byte with the image, while
 * another gives memory back.
 *
 * usage: standin_vmm SOCKET IMAGE [KEY=VALUE]...
 *   version=1.5|1.7|1.12|e2b  what the message has; up to 1.7 hangs up behind it; default 1.12
 *   regions=N                 the image in N regions, default 1
 *   threads=N                 that touch; default 4
 *   order=random|even         default random
 *   touches=N                 pages each thread touches; 0: all pages between them; default 0
 *   balloon=PAGES             given back meanwhile, at random; default 0
 *   huge=1                    memory of 2 MiB pages
 *   pieces=N                  the message in pieces of so many bytes; default whole
 *   hold=1                    when all is touched, says so and sleeps until killed
 *   bench=1                   does not compare, says how fast it was
 *   go=FD                     waits for the end of that descriptor before it touches
 *   asked=1                   another thread touches the pages whose numbers come by stdin
 *   seed=N
 * Prints one line, "ok ..." or what is wrong; exit code 0, 1, or 77 where the host refuses.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define HUGE_PAGE (2u << 20)
#define REGIONS_MAX 8
#define THREADS_MAX 1024
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

enum page_state { FROM_IMAGE, BEING_REMOVED, REMOVED };

struct settings {
	const char *version, *order;
	unsigned long regions, threads, touches, balloon, huge, pieces, hold, bench, go, asked,
		seed;
};

struct region {
	unsigned char *at;
	size_t bytes, offset;
};

struct vmm {
	struct settings s;
	const unsigned char *image;
	size_t bytes;
	uint32_t pages;
	struct region regions[REGIONS_MAX];
	atomic_uchar *states;
	atomic_ulong touched, wrong;
	atomic_bool stop_balloon;
	int uffd, socket;
};

struct toucher {
	struct vmm *v;
	unsigned number;
	uint64_t random;
	pthread_t thread;
};

static _Noreturn void give_up(int code, const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	exit(code);
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static unsigned char *page_at(const struct vmm *v, uint32_t page)
{
	size_t offset = (size_t)page * PAGE;
	unsigned i = 0;

	while (offset >= v->regions[i].offset + v->regions[i].bytes)
		i++;
	return v->regions[i].at + (offset - v->regions[i].offset);
}

/* ---- what Firecracker does when it loads a snapshot ---- */

static void map_memory(struct vmm *v)
{
	size_t unit = v->s.huge ? HUGE_PAGE : PAGE, done = 0;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (v->s.huge ? MAP_HUGETLB : 0);

	for (unsigned i = 0; i < v->s.regions; i++) {
		size_t bytes = i + 1 == v->s.regions
				       ? v->bytes - done
				       : v->bytes / v->s.regions / unit * unit;
		void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);

		if (at == MAP_FAILED)
			give_up(77, "mmap");
		v->regions[i] = (struct region){at, bytes, done};
		done += bytes;
	}
}

static bool is_old(const struct vmm *v)
{
	return strcmp(v->s.version, "1.12") != 0;
}

static void make_uffd(struct vmm *v)
{
	struct uffdio_api api = {.api = UFFD_API};

	v->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (v->uffd < 0)
		v->uffd = (int)syscall(SYS_userfaultfd,
				       O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (v->uffd < 0)
		give_up(77, "userfaultfd");
	if (!is_old(v) || v->s.balloon)
		api.features = UFFD_FEATURE_EVENT_REMOVE;
	if (ioctl(v->uffd, UFFDIO_API, &api) < 0)
		give_up(77, "UFFDIO_API");
	for (unsigned i = 0; i < v->s.regions; i++) {
		struct uffdio_register r = {
			.range = {(uintptr_t)v->regions[i].at, v->regions[i].bytes},
			.mode = UFFDIO_REGISTER_MODE_MISSING,
		};

		if (ioctl(v->uffd, UFFDIO_REGISTER, &r) < 0)
			give_up(77, "UFFDIO_REGISTER");
	}
}

static size_t write_message(const struct vmm *v, char *text, size_t room)
{
	unsigned page = v->s.huge ? HUGE_PAGE : PAGE;
	size_t len = 0;

	for (unsigned i = 0; i < v->s.regions; i++) {
		len += (size_t)snprintf(text + len, room - len,
			"%c{\"base_host_virt_addr\":%" PRIuPTR ",\"size\":%zu,\"offset\":%zu",
			i ? ',' : '[', (uintptr_t)v->regions[i].at, v->regions[i].bytes,
			v->regions[i].offset);
		if (!is_old(v))
			len += (size_t)snprintf(text + len, room - len, ",\"page_size\":%u", page);
		if (strcmp(v->s.version, "1.5") != 0)
			len += (size_t)snprintf(text + len, room - len, ",\"page_size_kib\":%u",
						page);
		len += (size_t)snprintf(text + len, room - len, "}");
	}
	return len + (size_t)snprintf(text + len, room - len, "]");
}

static void send_some(const struct vmm *v, char *text, size_t len, const int *fds, unsigned count)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(2 * sizeof(int))];
	} control = {0};
	struct iovec from = {text, len};
	struct msghdr m = {.msg_iov = &from, .msg_iovlen = 1};

	if (count > 0) {
		struct cmsghdr *c;

		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(count * sizeof(int));
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	}
	if (sendmsg(v->socket, &m, MSG_NOSIGNAL) != (ssize_t)len)
		give_up(1, "sendmsg");
}

static void hand_over(struct vmm *v, const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char text[4096];
	size_t len = write_message(v, text, sizeof(text));
	size_t piece = v->s.pieces ? v->s.pieces : len;
	int fds[2] = {v->uffd, -1};
	unsigned count = 1;

	if (strcmp(v->s.version, "e2b") == 0) {
		fds[1] = memfd_create("guest", MFD_CLOEXEC);
		count = 2;
	}
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	v->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (v->socket < 0 || connect(v->socket, (struct sockaddr *)&a, sizeof(a)) < 0)
		give_up(1, "connect");
	for (size_t at = 0; at < len; at += piece) {
		send_some(v, text + at, len - at < piece ? len - at : piece, fds,
			  at == 0 ? count : 0);
	}
	if (is_old(v) && strcmp(v->s.version, "e2b") != 0)
		close(v->socket);
}

/* ---- the guest ---- */

static void touch(struct vmm *v, uint32_t page)
{
	static const unsigned char zeroes[PAGE];
	unsigned char *at = page_at(v, page);
	unsigned char before, after;
	bool as_image, as_zero;

	atomic_fetch_add_explicit(&v->touched, 1, memory_order_relaxed);
	if (v->s.bench) {
		(void)*(volatile unsigned char *)at;
		return;
	}
	before = atomic_load(&v->states[page]);
	as_image = memcmp(at, v->image + (size_t)page * PAGE, PAGE) == 0;
	as_zero = memcmp(at, zeroes, PAGE) == 0;
	after = atomic_load(&v->states[page]);
	if (before != after || before == BEING_REMOVED)
		return;
	if (before == FROM_IMAGE ? !as_image : !as_zero) {
		if (atomic_fetch_add(&v->wrong, 1) == 0)
			printf("page %u is wrong: first byte %#x, %s\n", page, at[0],
			       before == FROM_IMAGE ? "should be the image's" : "was removed");
	}
}

static void *touch_all(void *arg)
{
	struct toucher *t = arg;
	struct vmm *v = t->v;
	uint32_t threads = (uint32_t)v->s.threads, share = (v->pages + threads - 1) / threads;
	uint32_t from = t->number * share;
	uint32_t count = v->s.touches ? (uint32_t)v->s.touches : share;
	bool even = strcmp(v->s.order, "even") == 0;

	for (uint32_t i = 0; i < count; i++) {
		if (!v->s.touches && even)
			touch(v, from + i < v->pages ? from + i : v->pages - 1);
		else if (!v->s.touches) /* all of them, none twice, far apart */
			touch(v, (uint32_t)(((uint64_t)(t->number + i * threads) * 7919) %
					    v->pages));
		else
			touch(v, (uint32_t)(next_random(&t->random) % v->pages));
	}
	return NULL;
}

static void *touch_asked(void *arg)
{
	unsigned page;

	while (scanf("%u", &page) == 1)
		touch(arg, page);
	return NULL;
}

static void *give_back(void *arg)
{
	struct vmm *v = arg;
	uint64_t random = v->s.seed + 99;
	uint32_t step = v->s.huge ? HUGE_PAGE / PAGE : 1;

	for (unsigned long n = 0; n < v->s.balloon && !atomic_load(&v->stop_balloon); n++) {
		uint32_t page = (uint32_t)(next_random(&random) % v->pages) / step * step;

		for (uint32_t i = 0; i < step; i++)
			atomic_store(&v->states[page + i], BEING_REMOVED);
		if (madvise(page_at(v, page), (size_t)step * PAGE, MADV_DONTNEED) < 0)
			give_up(1, "madvise");
		for (uint32_t i = 0; i < step; i++)
			atomic_store(&v->states[page + i], REMOVED);
	}
	return NULL;
}

static void run_guest(struct vmm *v)
{
	static struct toucher touchers[THREADS_MAX];
	pthread_t balloon, asked;
	double began;

	if (v->s.go != ULONG_MAX) {
		char c;

		puts("ready");
		fflush(stdout);
		while (read((int)v->s.go, &c, 1) > 0)
			;
	}
	began = now_s();
	if (v->s.balloon && pthread_create(&balloon, NULL, give_back, v) != 0)
		give_up(1, "thread");
	if (v->s.asked && pthread_create(&asked, NULL, touch_asked, v) != 0)
		give_up(1, "thread");
	for (unsigned i = 0; i < v->s.threads; i++) {
		touchers[i] = (struct toucher){v, i, v->s.seed * 1000003 + i + 1, 0};
		if (pthread_create(&touchers[i].thread, NULL, touch_all, &touchers[i]) != 0)
			give_up(1, "thread");
	}
	for (unsigned i = 0; i < v->s.threads; i++)
		pthread_join(touchers[i].thread, NULL);
	if (v->s.balloon) {
		pthread_join(balloon, NULL);
		/* What was given back is zeroes, and stays so. */
		for (uint32_t page = 0; page < v->pages; page++)
			touch(v, page);
	}
	printf("%s touched %lu pages in %.6f s\n", atomic_load(&v->wrong) ? "wrong" : "ok",
	       atomic_load(&v->touched), now_s() - began);
	fflush(stdout);
}

static void take_setting(struct settings *s, char *word)
{
	const struct {
		const char *key;
		unsigned long *number;
		const char **text;
	} all[] = {
		{"version", NULL, &s->version}, {"order", NULL, &s->order},
		{"regions", &s->regions, NULL}, {"threads", &s->threads, NULL},
		{"touches", &s->touches, NULL}, {"balloon", &s->balloon, NULL},
		{"huge", &s->huge, NULL}, {"pieces", &s->pieces, NULL},
		{"hold", &s->hold, NULL}, {"bench", &s->bench, NULL},
		{"go", &s->go, NULL}, {"asked", &s->asked, NULL}, {"seed", &s->seed, NULL},
	};
	char *value = strchr(word, '=');

	for (size_t i = 0; value && i < sizeof(all) / sizeof(all[0]); i++) {
		size_t len = strlen(all[i].key);

		if ((size_t)(value - word) != len || strncmp(word, all[i].key, len) != 0)
			continue;
		if (all[i].text)
			*all[i].text = value + 1;
		else
			*all[i].number = strtoul(value + 1, NULL, 10);
		return;
	}
	printf("no setting: %s\n", word);
	exit(2);
}

int main(int argc, char **argv)
{
	static struct vmm v = {.s = {.version = "1.12", .order = "random", .regions = 1,
				     .threads = 4, .seed = 1,
				     .go = ULONG_MAX}};
	struct stat st;
	int fd;

	if (argc < 3)
		return 2;
	for (int i = 3; i < argc; i++)
		take_setting(&v.s, argv[i]);
	fd = open(argv[2], O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		give_up(1, argv[2]);
	v.bytes = (size_t)st.st_size;
	v.pages = (uint32_t)(v.bytes / PAGE);
	v.image = mmap(NULL, v.bytes, PROT_READ, MAP_SHARED, fd, 0);
	v.states = calloc(v.pages, sizeof(*v.states));
	if (v.image == MAP_FAILED || !v.states || v.s.regions > REGIONS_MAX ||
	    v.s.threads > THREADS_MAX)
		give_up(1, "image");
	map_memory(&v);
	make_uffd(&v);
	hand_over(&v, argv[1]);
	run_guest(&v);
	if (v.s.hold)
		pause();
	return atomic_load(&v.wrong) ? 1 : 0;
}
