/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VMM whose guest memory comes from threads of its own: examples/minimal.c, with a pool of
 * four that read a file where minimal.c names it to the library. What a store gives in larger
 * pieces than a page is offered, so that the guest finds it there. Everything that is not as in
 * minimal.c is marked "own"; it builds as C and as C++.
 *
 *     own_source FILE     adds up the first byte of each of the file's first 16 pages
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <asyncpf/asyncpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define CODE_GPA 0x1000
#define DATA_GPA 0x10000
#define DATA_BYTES 0x10000
#define THREADS 4
#define READS_MAX 64      /* outstanding at most: config.queue_depth */
#define PIECE_BYTES 16384 /* what the store gives at once */

/* Real mode: for (si = 0; ; si += 4096) bx += data[si]; then out 0x10, bx. */
static const unsigned char guest[] = {
	0xb8, 0x00, 0x10,       /* mov ax, 0x1000      */
	0x8e, 0xd8,             /* mov ds, ax          */
	0x31, 0xf6,             /* xor si, si          */
	0x31, 0xdb,             /* xor bx, bx          */
	0x8a, 0x04,             /* loop: mov al, [si]  */
	0x30, 0xe4,             /* xor ah, ah          */
	0x01, 0xc3,             /* add bx, ax          */
	0x81, 0xc6, 0x00, 0x10, /* add si, 0x1000      */
	0x75, 0xf4,             /* jnz loop            */
	0x89, 0xd8,             /* mov ax, bx          */
	0xe7, 0x10,             /* out 0x10, ax        */
};

/* ---- own: the store ---- */

struct store {
	struct apf_source *source;
	const char *path;
	int fd;
	uint64_t bytes;
	pthread_t threads[THREADS];
	pthread_mutex_t lock; /* of all below */
	pthread_cond_t more;
	struct apf_read_request reads[READS_MAX]; /* a ring of what nobody has begun */
	unsigned first, count;
	int end;
};

/* Called by a vCPU's thread, or the library's: takes note, and returns. */
static void store_read(void *ctx, const struct apf_read_request *rd)
{
	struct store *s = (struct store *)ctx;

	pthread_mutex_lock(&s->lock);
	s->reads[(s->first + s->count++) % READS_MAX] = *rd;
	pthread_cond_signal(&s->more);
	pthread_mutex_unlock(&s->lock);
}

/* No cancel callback is needed: pread() comes back, and then the read is answered. */
static void store_serve(struct store *s, const struct apf_read_request *rd)
{
	static __thread char piece[PIECE_BYTES];
	uint64_t from = rd->offset / PIECE_BYTES * PIECE_BYTES;
	ssize_t n = pread(s->fd, piece, PIECE_BYTES, (off_t)from);
	char why[200];

	if (n < 0) {
		int code = -errno;

		snprintf(why, sizeof(why), "%s: %s", s->path, strerror(-code));
		apf_read_failed(s->source, rd->id, code, why);
		return;
	}
	if ((uint64_t)n < rd->offset + rd->len - from) {
		snprintf(why, sizeof(why), "%s has become shorter", s->path);
		apf_read_failed(s->source, rd->id, -EIO, why);
		return;
	}
	memcpy(rd->buf, piece + (rd->offset - from), rd->len);
	apf_read_done(s->source, rd->id);
	/* After the answer: somebody waits for that one. */
	apf_source_offer(s->source, from, piece, (uint64_t)n, NULL);
}

static void *store_thread(void *ctx)
{
	struct store *s = (struct store *)ctx;

	pthread_mutex_lock(&s->lock);
	for (;;) {
		struct apf_read_request rd;

		while (s->count == 0 && !s->end)
			pthread_cond_wait(&s->more, &s->lock);
		if (s->count == 0)
			break;
		rd = s->reads[s->first++ % READS_MAX];
		s->count--;
		pthread_mutex_unlock(&s->lock);
		store_serve(s, &rd);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static int store_open(struct store *s, const char *path)
{
	struct stat st;

	memset(s, 0, sizeof(*s));
	s->path = path;
	s->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (s->fd < 0 || fstat(s->fd, &st) < 0)
		return -1;
	s->bytes = (uint64_t)st.st_size;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->more, NULL);
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&s->threads[i], NULL, store_thread, s) != 0)
			return -1;
	return 0;
}

/* After apf_close, which waits for the answers: the threads must be there until then. */
static void store_close(struct store *s)
{
	pthread_mutex_lock(&s->lock);
	s->end = 1;
	pthread_cond_broadcast(&s->more);
	pthread_mutex_unlock(&s->lock);
	for (int i = 0; i < THREADS; i++)
		pthread_join(s->threads[i], NULL);
	apf_source_free(s->source);
	close(s->fd);
}

/* ---- the VMM ---- */

static int fail(const char *what, const struct apf_error *e)
{
	fprintf(stderr, "own_source: %s: %s\n", what, e ? e->text : strerror(errno));
	return 1;
}

/* own: a read that fails for good pauses the VM; this one ends. */
static void on_event(void *ctx, const struct apf_event *ev)
{
	(void)ctx;
	if (ev->kind == APF_EVENT_PAUSED) {
		fprintf(stderr, "own_source: %s\n", ev->text);
		_exit(1);
	}
}

/* own: guest memory, and the store behind it. */
static int open_memory(int vm, struct store *s, struct apf **ret, struct apf_error *error)
{
	struct apf_source_config own;
	struct apf_config config;

	apf_config_init(&config);
	config.queue_depth = READS_MAX;
	config.on_event = on_event;
	apf_source_config_init(&own);
	own.ctx = s;
	own.bytes = s->bytes;
	own.read = store_read;
	if (apf_open(vm, &config, ret, error) < 0 ||
	    apf_memory_add(*ret, 0, 2 << 20, error) < 0 ||
	    /* Where minimal.c has apf_source_add. */
	    apf_source_custom(*ret, &own, &s->source, error) < 0 ||
	    apf_source_place(s->source, DATA_GPA, DATA_BYTES, 0, error) < 0)
		return -1;
	return apf_start(*ret, error);
}

int main(int argc, char **argv)
{
	struct apf_error error;
	struct apf *apf;
	struct apf_vcpu *vcpu;
	struct store store;

	if (argc != 2) {
		fprintf(stderr, "usage: own_source FILE\n");
		return 2;
	}
	if (store_open(&store, argv[1]) < 0)
		return fail(argv[1], NULL);

	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);

	if (vm < 0)
		return fail("/dev/kvm", NULL);
	if (open_memory(vm, &store, &apf, &error) < 0)
		return fail("memory", &error);
	if (apf_write(apf, CODE_GPA, guest, sizeof(guest)) < 0)
		return fail("guest code", NULL);

	struct kvm_userspace_memory_region slot;

	memset(&slot, 0, sizeof(slot));
	slot.memory_size = 2 << 20;
	slot.userspace_addr = (unsigned long)apf_memory_hva(apf, 0);
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
		return fail("memory slot", NULL);
	if (ioctl(vm, KVM_CREATE_IRQCHIP, 0) < 0)
		return fail("interrupt controllers", NULL);

	int fd = ioctl(vm, KVM_CREATE_VCPU, 0);
	void *mapped = mmap(NULL, (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0),
			    PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	struct kvm_run *run = (struct kvm_run *)mapped;
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	if (mapped == MAP_FAILED || ioctl(fd, KVM_GET_SREGS, &sregs) < 0)
		return fail("vCPU", NULL);
	memset(&regs, 0, sizeof(regs));
	regs.rip = CODE_GPA;
	regs.rflags = 2;
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	if (ioctl(fd, KVM_SET_SREGS, &sregs) < 0 || ioctl(fd, KVM_SET_REGS, &regs) < 0)
		return fail("registers", NULL);
	if (apf_vcpu_attach(apf, 0, fd, run, 0, &vcpu, &error) < 0)
		return fail("vCPU", &error);
	for (;;) {
		int rc = apf_vcpu_run(vcpu);

		if (rc == -EINTR)
			continue;
		if (rc < 0 || run->exit_reason != KVM_EXIT_IO)
			return fail("unexpected exit", NULL);
		break;
	}
	printf("%u\n", *(unsigned short *)(void *)((char *)run + run->io.data_offset));
	apf_close(apf);
	store_close(&store);
	return 0;
}
