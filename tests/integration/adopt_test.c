/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VMM's own memory: its view waits for what is absent, whoever touches it and how; what it writes
 * is never lost; parts come and go. Each page of the source holds its number in each word.
 */
#include "ioctl_fixture.h"
#include "own_fixture.h"
#include "need_kvm.h"

#include <liburing.h>
#include <linux/magic.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <time.h>

/* ---- who touches ---- */

static void pointers_wait(void **state)
{
	struct own o;

	(void)state;
	open_own(&o, image_uri(), false);
	assert_int_equal(page_of(&o, 7)[100], word_of(7));
	page_of(&o, 8)[3] = 42;
	assert_int_equal(page_of(&o, 8)[3], 42);
	assert_int_equal(page_of(&o, 8)[4], word_of(8));
	assert_int_equal(__atomic_fetch_add(page_of(&o, 9), 1, __ATOMIC_SEQ_CST), word_of(9));
	assert_int_equal(page_of(&o, 9)[0], word_of(9) + 1);
	/* A thread that the kernel wakes for nothing meanwhile touches once more. */
	assert_true(counter(&o, APF_COUNTER_ID_vmm_touches) >= 3);
	assert_int_equal(counter(&o, APF_COUNTER_ID_reads), 3);
	close_own(&o);
}

static void one_read_serves_both_views(void **state)
{
	uint64_t word;
	struct own o;

	(void)state;
	open_own(&o, image_uri(), false);
	assert_int_equal(apf_read(o.a, GPA + 5 * PAGE_BYTES, &word, 8), 0);
	assert_int_equal(word, word_of(5));
	assert_int_equal(page_of(&o, 5)[0], word_of(5));
	page_of(&o, 5)[1] = 77;
	assert_int_equal(apf_read(o.a, GPA + 5 * PAGE_BYTES + 8, &word, 8), 0);
	assert_int_equal(word, 77);
	assert_int_equal(counter(&o, APF_COUNTER_ID_reads), 1);
	close_own(&o);
}

static void system_calls_wait(void **state)
{
	uint64_t words[4] = {1, 2, 3, 4}, got[4];
	struct iovec iov = {got, 8};
	struct iovec remote;
	int ends[2], pair[2], file = memfd_create("file", MFD_CLOEXEC);
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct own o;

	(void)state;
	open_own(&o, image_uri(), false);
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	/* read() into one absent page, write() from another. */
	assert_int_equal(write(ends[1], words, 8), 8);
	assert_int_equal(read(ends[0], page_of(&o, 20), 8), 8);
	assert_int_equal(page_of(&o, 20)[0], 1);
	assert_int_equal(page_of(&o, 20)[1], word_of(20));
	assert_int_equal(write(ends[1], page_of(&o, 21), 8), 8);
	assert_int_equal(read(ends[0], got, 8), 8);
	assert_int_equal(got[0], word_of(21));
	/* preadv2 and pwritev. */
	assert_int_equal(pwrite(file, words, sizeof(words), 0), sizeof(words));
	iov = (struct iovec){page_of(&o, 22), sizeof(words)};
	assert_int_equal(preadv2(file, &iov, 1, 0, 0), sizeof(words));
	assert_int_equal(page_of(&o, 22)[3], 4);
	/* recvmsg and sendmsg. */
	iov = (struct iovec){page_of(&o, 23), 8};
	assert_int_equal(sendmsg(pair[0], &msg, 0), 8);
	iov = (struct iovec){page_of(&o, 24), 8};
	assert_int_equal(recvmsg(pair[1], &msg, 0), 8);
	assert_int_equal(page_of(&o, 24)[0], word_of(23));
	/* What looks at the pages themselves. */
	iov = (struct iovec){got, 8};
	remote = (struct iovec){page_of(&o, 25), 8};
	assert_int_equal(process_vm_readv(getpid(), &iov, 1, &remote, 1, 0), 8);
	assert_int_equal(got[0], word_of(25));
	close_own(&o);
	close(file);
	close(ends[0]);
	close(ends[1]);
	close(pair[0]);
	close(pair[1]);
}

static void uring_once(struct io_uring *ring)
{
	struct io_uring_cqe *cqe;

	assert_int_equal(io_uring_submit(ring), 1);
	assert_int_equal(io_uring_wait_cqe(ring, &cqe), 0);
	assert_int_equal(cqe->res, 8);
	io_uring_cqe_seen(ring, cqe);
}

static void io_uring_waits(void **state)
{
	int file = memfd_create("file", MFD_CLOEXEC);
	struct io_uring ring;
	uint64_t word = 99;
	struct own o;

	(void)state;
	open_own(&o, image_uri(), false);
	assert_int_equal(io_uring_queue_init(4, &ring, 0), 0);
	assert_int_equal(pwrite(file, &word, 8, 0), 8);
	io_uring_prep_read(io_uring_get_sqe(&ring), file, page_of(&o, 30), 8, 0);
	uring_once(&ring);
	assert_int_equal(page_of(&o, 30)[0], 99);
	io_uring_prep_write(io_uring_get_sqe(&ring), file, page_of(&o, 31), 8, 0);
	uring_once(&ring);
	assert_int_equal(pread(file, &word, 8, 0), 8);
	assert_int_equal(word, word_of(31));
	io_uring_queue_exit(&ring);
	close_own(&o);
	close(file);
}

/* ---- the end ---- */

static sigjmp_buf recover;
static void *volatile fault_at;

static void on_sigbus(int sig, siginfo_t *si, void *ctx)
{
	(void)sig;
	(void)ctx;
	fault_at = si->si_addr;
	siglongjmp(recover, 1);
}

struct stuck {
	const struct own *o;
	pthread_t thread;
	bool by_call;
	int waits; /* atomic */
	int error;
	void *at;
};

static void *touch_for_ever(void *arg)
{
	struct stuck *s = arg;
	int pipes[2];

	assert_int_equal(pipe(pipes), 0);
	__atomic_store_n(&s->waits, 1, __ATOMIC_RELEASE);
	if (s->by_call) {
		s->error = write(pipes[1], page_of(s->o, 2), 8) < 0 ? errno : 0;
	} else if (sigsetjmp(recover, 1) == 0) {
		s->at = (void *)(uintptr_t)*(volatile uint64_t *)page_of(s->o, 1);
		s->error = 0;
	} else {
		s->error = EFAULT;
		s->at = fault_at;
	}
	close(pipes[0]);
	close(pipes[1]);
	return NULL;
}

/* The source never answers: who waits is told when the VM ends, and is not given zeroes. */
static void waiting_ends_with_the_vm(void **state)
{
	struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO}, before;
	struct stuck s[2];
	struct own o;

	(void)state;
	open_own(&o, "fault+zero:?size=4M&fault-hang-after=0", false);
	sigaction(SIGBUS, &sa, &before);
	for (unsigned i = 0; i < 2; i++) {
		s[i] = (struct stuck){.o = &o, .by_call = i, .error = 99};
		assert_int_equal(pthread_create(&s[i].thread, NULL, touch_for_ever, &s[i]), 0);
	}
	while (counter(&o, APF_COUNTER_ID_vmm_touches) < 2)
		usleep(1000);
	apf_stop(o.a);
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(s[i].thread, NULL);
		assert_int_equal(s[i].error, EFAULT);
	}
	assert_ptr_equal(s[0].at, page_of(&o, 1));
	/* And who comes later. */
	s[1].error = 99;
	(void)touch_for_ever(&s[1]);
	assert_int_equal(s[1].error, EFAULT);
	sigaction(SIGBUS, &before, NULL);
	close_own(&o);
}

static void *populate_one(void *arg)
{
	(void)apf_populate(((const struct own *)arg)->a, GPA + PAGE_BYTES, PAGE_BYTES);
	return NULL;
}

/* Somebody else wants it already, who is told of the end in another way. */
static void what_others_wait_for_is_refused_too(void **state)
{
	struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO}, before;
	struct stuck s;
	pthread_t other;
	struct own o;

	(void)state;
	open_own(&o, "fault+zero:?size=4M&fault-hang-after=0", false);
	s = (struct stuck){.o = &o, .error = 99};
	assert_int_equal(pthread_create(&other, NULL, populate_one, &o), 0);
	while (counter(&o, APF_COUNTER_ID_reads) < 1)
		usleep(1000);
	apf_stop(o.a);
	pthread_join(other, NULL);
	sigaction(SIGBUS, &sa, &before);
	(void)touch_for_ever(&s);
	assert_int_equal(s.error, EFAULT);
	sigaction(SIGBUS, &before, NULL);
	close_own(&o);
}

/* ---- very many ---- */

#define CROWD 600u

struct toucher {
	const struct own *o;
	uint64_t page;
	pthread_t thread;
	uint64_t word;
};

static void *touch_once(void *arg)
{
	struct toucher *t = arg;

	t->word = *(volatile uint64_t *)page_of(t->o, t->page);
	return NULL;
}

/*
 * More touches than there may be fetches: those that find none sleep, and the library's thread does
 * too. A touch that the kernel reports again and again would be counted so.
 */
static void a_crowd_waits_its_turn(void **state)
{
	static struct toucher all[CROWD];
	const char *quick = image_uri();
	char uri[80];
	struct own o;

	(void)state;
	snprintf(uri, sizeof(uri), "%.*s?ms=300", (int)strcspn(quick, "?"), quick);
	open_own(&o, uri, false);
	for (unsigned i = 0; i < CROWD; i++) {
		all[i] = (struct toucher){.o = &o, .page = i};
		assert_int_equal(pthread_create(&all[i].thread, NULL, touch_once, &all[i]), 0);
	}
	for (unsigned i = 0; i < CROWD; i++) {
		pthread_join(all[i].thread, NULL);
		assert_int_equal(all[i].word, word_of(i));
	}
	assert_int_equal(counter(&o, APF_COUNTER_ID_vmm_touches), CROWD);
	close_own(&o);
}

/* ---- what the VMM brings ---- */

static void content_that_was_there_stays(void **state)
{
	int fd = memfd_create("ram", MFD_CLOEXEC);
	struct own o = {.vm = open_vm()};
	struct apf_config c;
	uint64_t *ram, word;

	(void)state;
	assert_int_equal(ftruncate(fd, 2 * RAM), 0);
	ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_SHARED, fd, MIB);
	ram[3 * 512] = 1234;
	apf_config_init(&c);
	assert_int_equal(apf_open(o.vm, &c, &o.a, &error), 0);
	assert_int_equal(apf_start(o.a, &error), 0);
	o.m = (struct apf_memory){.size = sizeof(o.m), .gpa = GPA, .bytes = RAM, .fd = fd,
				  .offset = MIB, .vmm = ram};
	assert_int_equal(apf_memory_adopt(o.a, &o.m, &error), 0);
	assert_ptr_equal(o.m.vmm, ram);
	assert_int_equal(o.m.fd, fd);
	assert_int_equal(apf_source_add(o.a, GPA, RAM, image_uri(), 0, NULL, &error), 0);
	assert_int_equal(ram[3 * 512], 1234);
	assert_int_equal(ram[3 * 512 + 1], 0);
	assert_int_equal(ram[4 * 512], word_of(4));
	assert_int_equal(apf_read(o.a, GPA + 3 * PAGE_BYTES, &word, 8), 0);
	assert_int_equal(word, 1234);
	/* The memory stays the VMM's. */
	apf_close(o.a);
	assert_int_equal(ram[3 * 512], 1234);
	assert_int_equal(ram[4 * 512], word_of(4));
	ram[9 * 512] = 5;
	munmap(ram, RAM);
	close(fd);
	close(o.vm);
}

/* The VMM's memfd and mapping of it, at GPA, without a source yet. */
static void open_mapped(struct own *o, const struct apf_config *c, int fd, uint64_t *ram)
{
	*o = (struct own){.vm = open_vm()};
	assert_int_equal(apf_open(o->vm, c, &o->a, &error), 0);
	assert_int_equal(apf_start(o->a, &error), 0);
	o->m = (struct apf_memory){.size = sizeof(o->m), .gpa = GPA, .bytes = RAM, .fd = fd,
				   .vmm = ram};
	assert_int_equal(apf_memory_adopt(o->a, &o->m, &error), 0);
}

/* A block is read as one: the rest of one that is there in part could not come. */
static void a_source_needs_whole_blocks(void **state)
{
	int fd = memfd_create("ram", MFD_CLOEXEC);
	struct apf_config c;
	struct own o;
	uint64_t *ram;

	(void)state;
	assert_int_equal(ftruncate(fd, RAM), 0);
	ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ram[35 * 512] = 1234;
	apf_config_init(&c);
	c.block_bytes = 65536;
	open_mapped(&o, &c, fd, ram);
	assert_int_equal(apf_source_add(o.a, GPA, RAM, image_uri(), 0, NULL, &error), -EINVAL);
	assert_non_null(strstr(error.text, "whole blocks"));
	/* Beside it. */
	assert_int_equal(apf_source_add(o.a, GPA, 2 * c.block_bytes, image_uri(), 0, NULL, &error),
			 0);
	assert_int_equal(ram[31 * 512], word_of(31));
	apf_close(o.a);
	assert_int_equal(ram[35 * 512], 1234);
	/* All of it. */
	for (unsigned p = 32; p < 48; p++)
		ram[p * 512] = p;
	open_mapped(&o, &c, fd, ram);
	assert_int_equal(apf_source_add(o.a, GPA, RAM, image_uri(), 0, NULL, &error), 0);
	assert_int_equal(ram[47 * 512], 47);
	assert_int_equal(ram[48 * 512], word_of(48));
	apf_close(o.a);
	munmap(ram, RAM);
	close(fd);
	close(o.vm);
}

/* What was refused as it ended is the VMM's to read once it has ended. */
static void a_mapping_of_the_vmms_is_whole_afterwards(void **state)
{
	int fd = memfd_create("ram", MFD_CLOEXEC), ends[2];
	struct apf_config c;
	struct own o;
	uint64_t *ram;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(ftruncate(fd, RAM), 0);
	ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ram[3 * 512] = 1234;
	apf_config_init(&c);
	open_mapped(&o, &c, fd, ram);
	assert_int_equal(apf_source_add(o.a, GPA, RAM, image_uri(), 0, NULL, &error), 0);
	apf_stop(o.a);
	assert_int_equal(write(ends[1], ram + 4 * 512, 8), -1);
	assert_int_equal(errno, EFAULT);
	apf_close(o.a);
	assert_int_equal(write(ends[1], ram + 4 * 512, 8), 8);
	assert_int_equal(ram[4 * 512], 0);
	assert_int_equal(ram[3 * 512], 1234);
	munmap(ram, RAM);
	close(fd);
	close(ends[0]);
	close(ends[1]);
	close(o.vm);
}

static void refused(struct apf *a, struct apf_memory m, const char *why)
{
	m.size = sizeof(m);
	m.gpa = GPA;
	m.bytes = MIB;
	error.text[0] = 0;
	assert_int_equal(apf_memory_adopt(a, &m, &error), -EINVAL);
	if (!strstr(error.text, why))
		fail_msg("not \"%s\": %s", why, error.text);
	assert_int_equal(error.code, -EINVAL);
	/* Nothing is left of it. */
	assert_null(apf_memory_hva(a, GPA));
}

static void what_cannot_be_served_is_refused(void **state)
{
	int fd = memfd_create("ram", MFD_CLOEXEC), other = memfd_create("other", MFD_CLOEXEC);
	int huge = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);
	int file = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	struct apf_config c;
	int vm = open_vm();
	struct statfs fs;
	struct apf *a;
	char *shared, *private, *readonly;
	struct apf_memory m;

	(void)state;
	assert_int_equal(ftruncate(fd, 2 * MIB) | ftruncate(other, 2 * MIB), 0);
	shared = mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	private = mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	readonly = mmap(NULL, 2 * MIB, PROT_READ, MAP_SHARED, fd, 0);
	apf_config_init(&c);
	assert_int_equal(apf_open(vm, &c, &a, &error), 0);
	refused(a, (struct apf_memory){.fd = fd, .vmm = private}, "MAP_PRIVATE");
	refused(a, (struct apf_memory){.fd = fd, .vmm = readonly}, "reading and writing");
	refused(a, (struct apf_memory){.fd = other, .vmm = shared}, "something else");
	refused(a, (struct apf_memory){.fd = fd, .vmm = shared, .offset = 4096}, "another offset");
	refused(a, (struct apf_memory){.fd = fd, .offset = 2 * MIB - 4096}, "has 2097152 bytes");
	refused(a, (struct apf_memory){.fd = fd, .offset = MIB + 4096}, "has 2097152 bytes");
	refused(a, (struct apf_memory){.fd = -1, .vmm = shared}, "without a memfd");
	if (huge >= 0 && ftruncate(huge, 2 * MIB) == 0)
		refused(a, (struct apf_memory){.fd = huge}, "hugetlb");
	if (file >= 0 && ftruncate(file, 2 * MIB) == 0 && fstatfs(file, &fs) == 0 &&
	    fs.f_type != TMPFS_MAGIC)
		refused(a, (struct apf_memory){.fd = file}, "no memfd");
	/* Two parts would take it away from each other. */
	m = (struct apf_memory){.size = sizeof(m), .gpa = 2 * GPA, .bytes = MIB, .fd = fd,
				.offset = MIB, .vmm = shared + MIB};
	assert_int_equal(apf_memory_adopt(a, &m, &error), 0);
	refused(a, (struct apf_memory){.fd = fd, .offset = MIB}, "are guest memory already");
	refused(a, (struct apf_memory){.fd = fd, .offset = MIB - 4096},
		"are guest memory already");
	assert_int_equal(apf_memory_remove(a, 2 * GPA, &error), 0);
	assert_int_equal(apf_memory_adopt(a, &m, &error), 0);
	apf_close(a);
	c.swap = "/tmp/asyncpf-adopt-never";
	assert_int_equal(apf_open(vm, &c, &a, &error), 0);
	refused(a, (struct apf_memory){.fd = fd, .vmm = shared}, "apf_hold");
	apf_close(a);
	munmap(shared, 2 * MIB);
	munmap(private, 2 * MIB);
	munmap(readonly, 2 * MIB);
	close(fd);
	close(other);
	close(huge);
	close(file);
	close(vm);
}

/* ---- parts that come and go ---- */

static void parts_come_and_go_while_it_runs(void **state)
{
	struct own o;
	struct apf_memory m[40];

	(void)state;
	open_own(&o, image_uri(), false);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < ARRAY_LEN(m); i++) {
			m[i] = (struct apf_memory){.size = sizeof(m[i]), .gpa = i * 0x400000ull,
						   .bytes = MIB, .fd = -1};
			if (apf_memory_adopt(o.a, &m[i], &error) < 0 ||
			    apf_source_add(o.a, m[i].gpa, MIB, image_uri(), i * PAGE_BYTES, NULL,
					   &error) < 0)
				fail_msg("%s", error.text);
		}
		for (unsigned i = 0; i < ARRAY_LEN(m); i++)
			assert_int_equal(*(uint64_t *)m[i].vmm, word_of(i));
		for (unsigned i = 0; i < ARRAY_LEN(m); i++)
			assert_int_equal(apf_memory_remove(o.a, m[i].gpa, &error), 0);
		assert_null(apf_memory_hva(o.a, 0));
	}
	assert_int_equal(apf_memory_remove(o.a, GPA + MIB, &error), -ENOENT);
	/* What is held stays, and is overwritten where it is. */
	page_of(&o, 0)[0] = 7;
	assert_int_equal(apf_hold(o.a, GPA, 2 * PAGE_BYTES), 0);
	assert_int_equal(apf_memory_remove(o.a, GPA, &error), -EBUSY);
	assert_int_equal(apf_discard(o.a, GPA, PAGE_BYTES), 0);
	assert_int_equal(page_of(&o, 0)[0], 0);
	assert_int_equal(residency(&o, 0), APF_BLOCK_PRESENT | APF_BLOCK_CHANGED);
	apf_release(o.a, GPA, 2 * PAGE_BYTES);
	assert_int_equal(apf_memory_remove(o.a, GPA, &error), 0);
	close_own(&o);
}

static void as_many_parts_as_promised(void **state)
{
	struct own o;

	(void)state;
	open_own(&o, NULL, false);
	for (unsigned i = 1; i < 1024; i++)
		if (apf_memory_add(o.a, i * 0x10000ull, PAGE_BYTES, &error) < 0)
			fail_msg("%u: %s", i, error.text);
	assert_int_equal(apf_memory_add(o.a, 0x8000000, PAGE_BYTES, &error), -ENOSPC);
	for (unsigned i = 1; i < 1024; i++) {
		unsigned char byte = (unsigned char)i, back = 0;

		assert_int_equal(apf_write(o.a, i * 0x10000ull, &byte, 1), 0);
		assert_int_equal(apf_read(o.a, i * 0x10000ull, &back, 1), 0);
		assert_int_equal(back, byte);
	}
	close_own(&o);
}

/* ---- discarding ---- */

static void discarded(struct own *o)
{
	uint64_t before, word = 1;

	for (unsigned p = 0; p < 64; p++)
		page_of(o, p)[0] += 1;
	before = counter(o, APF_COUNTER_ID_resident_bytes);
	/* The guest's view shows half of them, too. */
	assert_int_equal(apf_populate(o->a, GPA, 128 * PAGE_BYTES), 0);
	assert_int_equal(apf_discard(o->a, GPA + PAGE_BYTES - 8, 62 * PAGE_BYTES + 16), 0);
	assert_true(counter(o, APF_COUNTER_ID_resident_bytes) <
		    before + 64 * PAGE_BYTES - 40 * PAGE_BYTES);
	assert_int_equal(page_of(o, 0)[510], page_of(o, 0)[509]);
	assert_int_equal(page_of(o, 0)[511], 0);
	for (unsigned p = 1; p < 63; p++)
		for (unsigned i = 0; i < 512; i++)
			assert_int_equal(page_of(o, p)[i], 0);
	assert_int_equal(page_of(o, 63)[0], 0);
	assert_int_equal(apf_read(o->a, GPA + 7 * PAGE_BYTES, &word, 8), 0);
	assert_int_equal(word, 0);
	page_of(o, 7)[1] = 9;
	assert_int_equal(apf_read(o->a, GPA + 7 * PAGE_BYTES + 8, &word, 8), 0);
	assert_int_equal(word, 9);
	/* Pinned memory keeps its place. */
	assert_int_equal(apf_pin(o->a, GPA + 100 * PAGE_BYTES, PAGE_BYTES), 0);
	page_of(o, 100)[0] = 1;
	assert_int_equal(apf_discard(o->a, GPA + 100 * PAGE_BYTES, PAGE_BYTES), 0);
	assert_int_equal(page_of(o, 100)[0], 0);
	assert_int_equal(apf_unpin(o->a, GPA + 100 * PAGE_BYTES, PAGE_BYTES), 0);
	assert_int_equal(apf_discard(o->a, GPA, RAM + 1), -EFAULT);
}

static void discarded_memory_is_zeroes(void **state)
{
	struct own o;

	(void)state;
	open_own(&o, image_uri(), false);
	discarded(&o);
	assert_int_equal(page_of(&o, 64)[5], word_of(64));
	close_own(&o);
	open_own(&o, image_uri(), true);
	discarded(&o);
	assert_int_equal(apf_evict(o.a, 0, NULL, &error), 0);
	assert_int_equal(page_of(&o, 64)[5], word_of(64));
	assert_int_equal(page_of(&o, 8)[5], 0);
	assert_int_equal(page_of(&o, 7)[1], 9);
	close_own(&o);
	open_own(&o, NULL, false);
	discarded(&o);
	close_own(&o);
}

/* ---- where it is ---- */

static void residency_is_known(void **state)
{
	unsigned char all[PAGES];
	struct own o;

	(void)state;
	open_own(&o, image_uri(), true);
	assert_int_equal(apf_residency(o.a, GPA, RAM, all), 0);
	for (unsigned p = 0; p < PAGES; p++)
		assert_int_equal(all[p], 0);
	assert_int_equal(page_of(&o, 3)[0], word_of(3));
	/* Until the library has noted that it shows, it is taken for changed. */
	while (residency(&o, 3) != APF_BLOCK_PRESENT)
		;
	page_of(&o, 3)[0] = 1;
	assert_int_equal(residency(&o, 3), APF_BLOCK_PRESENT | APF_BLOCK_CHANGED);
	assert_int_equal(apf_populate(o.a, GPA + 4 * PAGE_BYTES, PAGE_BYTES), 0);
	assert_int_equal(residency(&o, 4), APF_BLOCK_PRESENT);
	assert_int_equal(apf_discard(o.a, GPA + 5 * PAGE_BYTES, PAGE_BYTES), 0);
	assert_int_equal(residency(&o, 5), APF_BLOCK_CHANGED | APF_BLOCK_ZEROES);
	do
		assert_int_equal(apf_evict(o.a, 0, NULL, &error), 0);
	while (residency(&o, 3) & APF_BLOCK_PRESENT);
	assert_int_equal(residency(&o, 3), APF_BLOCK_CHANGED);
	assert_int_equal(residency(&o, 4), 0);
	assert_int_equal(apf_residency(o.a, GPA + 1, PAGE_BYTES, all), -EINVAL);
	assert_int_equal(apf_residency(o.a, GPA, RAM + PAGE_BYTES, all), -EFAULT);
	close_own(&o);
	/* Without a source, what the kernel has filled unseen is there. */
	open_own(&o, NULL, false);
	assert_int_equal(residency(&o, 3), APF_BLOCK_ZEROES);
	page_of(&o, 3)[0] = 1;
	assert_int_equal(residency(&o, 3), APF_BLOCK_PRESENT | APF_BLOCK_CHANGED);
	assert_int_equal(residency(&o, 4), APF_BLOCK_ZEROES);
	close_own(&o);
}

/* ---- an end to the waiting ---- */

static void vectors_are_copied_across_parts(void **state)
{
	uint64_t a = 1, b[2] = {2, 3}, back[3] = {0};
	struct apf_range out[] = {{GPA + RAM - 8, &a, 8}, {GPA + 64, b, 16}};
	struct apf_range in[] = {{GPA + RAM - 8, back, 16}, {GPA + 72, &back[2], 8}};
	struct own o;

	(void)state;
	open_own(&o, image_uri(), false);
	assert_int_equal(apf_memory_add(o.a, GPA + RAM, MIB, &error), 0);
	assert_int_equal(apf_writev(o.a, out, 2, NULL), 24);
	assert_int_equal(apf_readv(o.a, in, 2, NULL), 24);
	assert_int_equal(back[0], 1);
	assert_int_equal(back[1], 0);
	assert_int_equal(back[2], 3);
	in[0].gpa = GPA + RAM + MIB - 8;
	assert_int_equal(apf_readv(o.a, in, 2, NULL), -EFAULT);
	close_own(&o);
}

/* The other side of the copy may be absent as well, and comes as with any touch. */
static void copies_may_begin_and_end_in_the_view(void **state)
{
	const uint64_t long_bytes = 40 * PAGE_BYTES + 16;
	struct own o;

	(void)state;
	open_own(&o, image_uri(), false);
	assert_int_equal(apf_read(o.a, GPA, page_of(&o, 5), 8), 0);
	assert_int_equal(page_of(&o, 5)[0], word_of(0));
	assert_int_equal(page_of(&o, 5)[1], word_of(5));
	assert_int_equal(apf_write(o.a, GPA + 6 * PAGE_BYTES, page_of(&o, 7), 8), 0);
	assert_int_equal(page_of(&o, 6)[0], word_of(7));
	assert_int_equal(page_of(&o, 6)[1], word_of(6));
	assert_int_equal(apf_read(o.a, GPA + 100 * PAGE_BYTES - 8, page_of(&o, 200) + 511,
				  long_bytes), 0);
	assert_int_equal(page_of(&o, 200)[510], word_of(200));
	assert_int_equal(page_of(&o, 200)[511], word_of(99));
	assert_int_equal(page_of(&o, 201)[0], word_of(100));
	assert_int_equal(page_of(&o, 241)[0], word_of(140));
	assert_int_equal(page_of(&o, 241)[1], word_of(241));
	/* From where it goes to. */
	assert_int_equal(apf_write(o.a, GPA + 50 * PAGE_BYTES, page_of(&o, 50), PAGE_BYTES), 0);
	assert_int_equal(page_of(&o, 50)[511], word_of(50));
	assert_int_equal(apf_residency(o.a, GPA, 8 * PAGE_BYTES,
				       (unsigned char *)page_of(&o, 60)), 0);
	assert_int_equal(page_of(&o, 60)[1], word_of(60));
	close_own(&o);
}

static void waiting_has_a_limit(void **state)
{
	struct apf_wait w = {.size = sizeof(w), .timeout_ns = 20 * 1000 * 1000};
	uint64_t words[2] = {0};
	struct apf_range v[] = {{GPA, &words[0], 8}, {GPA + MIB, &words[1], 8}};
	struct own o;

	(void)state;
	open_own(&o, NULL, false);
	assert_int_equal(apf_source_add(o.a, GPA + MIB, MIB,
					"fault+zero:?size=1M&fault-hang-after=0", 0, NULL,
					&error), 0);
	/* What was copied counts. */
	assert_int_equal(apf_readv(o.a, v, 2, &w), 8);
	assert_int_equal(apf_readv(o.a, &v[1], 1, &w), -ETIMEDOUT);
	w.timeout_ns = 0;
	assert_int_equal(apf_readv(o.a, &v[1], 1, &w), -ETIMEDOUT);
	/* No time is needed for what is there. */
	assert_int_equal(apf_readv(o.a, v, 1, &w), 8);
	close_own(&o);
}

/* Each leaves a read behind that nobody waits for, and there is an end to those. */
static void who_gives_up_leaves_room(void **state)
{
	struct apf_wait w = {.size = sizeof(w), .timeout_ns = 0};
	uint64_t word;
	struct own o;

	(void)state;
	open_own(&o, NULL, false);
	assert_int_equal(apf_source_add(o.a, GPA + MIB, 3 * MIB,
					"fault+zero:?size=3M&fault-hang-after=0", 0, NULL,
					&error), 0);
	assert_int_equal(apf_populate(o.a, GPA, MIB), 0);
	for (uint64_t at = MIB; at < RAM; at += PAGE_BYTES) {
		struct apf_range v = {GPA + at, &word, 8};

		assert_int_equal(apf_readv(o.a, &v, 1, &w), -ETIMEDOUT);
	}
	assert_int_equal(apf_read(o.a, GPA, &word, 8), 0);
	close_own(&o);
}

/* Of either view: the part is without a source then, and it can be tried again. */
static void a_source_that_cannot_be_watched_is_not_placed(void **state)
{
	uint64_t word;
	struct own o;

	(void)state;
	open_own(&o, NULL, false);
	for (unsigned n = 1; n <= 2; n++) {
		fail_register = n;
		assert_int_equal(apf_source_add(o.a, GPA, RAM, image_uri(), 0, NULL, &error),
				 -ENOMEM);
		assert_int_equal(fail_register, 0);
		assert_non_null(strstr(error.text, "UFFDIO_REGISTER"));
		assert_int_equal(apf_read(o.a, GPA + n * PAGE_BYTES, &word, 8), 0);
		assert_int_equal(word, 0);
		assert_int_equal(page_of(&o, n)[0], 0);
	}
	assert_int_equal(apf_source_add(o.a, GPA + MIB, RAM - MIB, image_uri(), MIB, NULL, &error),
			 0);
	assert_int_equal(apf_read(o.a, GPA + MIB, &word, 8), 0);
	assert_int_equal(word, word_of(MIB / PAGE_BYTES));
	close_own(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pointers_wait),
		cmocka_unit_test(one_read_serves_both_views),
		cmocka_unit_test(system_calls_wait),
		cmocka_unit_test(io_uring_waits),
		cmocka_unit_test(waiting_ends_with_the_vm),
		cmocka_unit_test(what_others_wait_for_is_refused_too),
		cmocka_unit_test(a_crowd_waits_its_turn),
		cmocka_unit_test(content_that_was_there_stays),
		cmocka_unit_test(a_source_needs_whole_blocks),
		cmocka_unit_test(a_mapping_of_the_vmms_is_whole_afterwards),
		cmocka_unit_test(what_cannot_be_served_is_refused),
		cmocka_unit_test(parts_come_and_go_while_it_runs),
		cmocka_unit_test(as_many_parts_as_promised),
		cmocka_unit_test(discarded_memory_is_zeroes),
		cmocka_unit_test(residency_is_known),
		cmocka_unit_test(vectors_are_copied_across_parts),
		cmocka_unit_test(copies_may_begin_and_end_in_the_view),
		cmocka_unit_test(waiting_has_a_limit),
		cmocka_unit_test(who_gives_up_leaves_room),
		cmocka_unit_test(a_source_that_cannot_be_watched_is_not_placed),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
