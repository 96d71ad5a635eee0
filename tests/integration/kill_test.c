/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kill -9 in the middle of eviction: a VM whose memory is taken away all the time copies
 * from guest memory to a raw disk, flushes, and says so; then it is killed. What it said is
 * on the disk; the swap file that it left behind serves the next VM, which sees nothing of it.
 */
#include "small_fixture.h"
#include "need_kvm.h"

#include <asyncpf/asyncpf.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "vmm/disk/blk_file.h"

#define MIB (1ull << 20)
#define RAM (16 * MIB)
#define SLOTS 64u /* blocks of the disk, a page each */
#define KILLS 12u

struct files {
	char folder[64], disk[96], swap[96];
};

/* The nth copy: what it holds. It lies in guest memory at a place of its own. */
static void content(uint64_t n, uint64_t *ret)
{
	struct prng rng;

	prng_init(&rng, n);
	for (size_t i = 0; i < PAGE_BYTES / 8; i++)
		ret[i] = prng_next(&rng);
}

static uint64_t place(uint64_t n)
{
	return n * 37 % (RAM / PAGE_BYTES) * PAGE_BYTES;
}

/* ---- the VM, in a process of its own: its exit code says where it failed ---- */

static void need(bool ok, int code)
{
	if (!ok)
		_exit(code);
}

static void *evict_all_the_time(void *arg)
{
	while (apf_evict(arg, 0, NULL, NULL) == 0)
		;
	_exit(10);
	return NULL;
}

static struct apf *start_vm(const struct files *f)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), fd;
	struct apf_config c;
	struct apf_error e;
	struct apf *a;

	do
		fd = ioctl(kvm, KVM_CREATE_VM, 0);
	while (fd < 0 && errno == EINTR);
	need(fd >= 0 && ioctl(fd, KVM_CREATE_IRQCHIP, 0) == 0, 11);
	apf_config_init(&c);
	c.swap = f->swap;
	c.resident_max = 6 * MIB;
	need(apf_open(fd, &c, &a, &e) == 0 && apf_memory_add(a, 0, RAM, &e) == 0, 12);
	if (apf_start(a, &e) < 0) {
		fprintf(stderr, "%s\n", e.text);
		_exit(13);
	}
	return a;
}

static void run_vm(const struct files *f, uint64_t first, int said)
{
	uint64_t words[PAGE_BYTES / 8], ahead = first;
	struct apf *a = start_vm(f);
	struct blk_backing disk;
	struct blk_file file = {0};
	pthread_t evictor;
	struct err e;

	for (uint64_t at = 0; at < RAM; at += PAGE_BYTES) {
		need(apf_read(a, at, words, sizeof(words)) == 0, 14);
		need(words[0] == 0 && memcmp(words, words + 1, sizeof(words) - 8) == 0, 15);
	}
	need(blk_file_open(&file, f->disk, false, &disk, &e) == 0, 16);
	need(pthread_create(&evictor, NULL, evict_all_the_time, a) == 0, 17);
	for (uint64_t n = first;; n++) {
		/* Prepared long before, so that it was in the swap file meanwhile. */
		for (; ahead < n + 500; ahead++) {
			content(ahead, words);
			need(apf_write(a, place(ahead), words, sizeof(words)) == 0, 18);
		}
		struct iovec v = {words, sizeof(words)};

		need(apf_read(a, place(n), words, sizeof(words)) == 0, 19);
		need(disk.ops->writev(disk.ctx, n % SLOTS * PAGE_BYTES, &v, 1) == 0, 20);
		need(disk.ops->flush(disk.ctx) == 0, 21);
		need(write(said, &n, sizeof(n)) == sizeof(n), 22);
	}
}

/* ---- the test ---- */

/* The disk holds copies up to `last`; the one after it may be there in part. */
static void check_disk(const struct files *f, uint64_t last)
{
	uint64_t words[PAGE_BYTES / 8], want[PAGE_BYTES / 8];
	int fd = open(f->disk, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	for (uint64_t n = last < SLOTS ? 1 : last - SLOTS + 2; n <= last; n++) {
		content(n, want);
		assert_int_equal(pread(fd, words, sizeof(words), (off_t)(n % SLOTS * PAGE_BYTES)),
				 sizeof(words));
		assert_memory_equal(words, want, sizeof(words));
	}
	close(fd);
}

/* Bytes that the file without a name takes up in the folder, through the VM's descriptor. */
static uint64_t swapped_by(pid_t pid, const struct files *f)
{
	uint64_t bytes = 0;

	for (int fd = 3; fd < 64; fd++) {
		char link[64], target[256];
		struct stat st;
		ssize_t n;

		snprintf(link, sizeof(link), "/proc/%d/fd/%d", (int)pid, fd);
		n = readlink(link, target, sizeof(target) - 1);
		if (n < 0)
			continue;
		target[n] = 0;
		if (strstr(target, f->folder) && strstr(target, "(deleted)") &&
		    stat(link, &st) == 0)
			bytes = max_u64(bytes, (uint64_t)st.st_blocks * 512);
	}
	return bytes;
}

/* Runs the VM from copy `first` on and kills it after `count` of them. Returns the last one. */
static uint64_t run_and_kill(const struct files *f, uint64_t first, uint64_t count)
{
	uint64_t n, swapped, last = first - 1;
	int said[2], status;
	pid_t pid;

	assert_int_equal(pipe(said), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(said[0]);
		run_vm(f, first, said[1]);
	}
	close(said[1]);
	while (last < first + count && read(said[0], &n, sizeof(n)) == sizeof(n))
		last = n;
	swapped = swapped_by(pid, f);
	kill(pid, SIGKILL);
	while (read(said[0], &n, sizeof(n)) == sizeof(n))
		last = n;
	close(said[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFSIGNALED(status))
		fail_msg("the VM ended by itself: %d", WEXITSTATUS(status));
	/* It was in the middle of it, and nothing of the guest is left. */
	assert_true(swapped > PAGE_BYTES);
	assert_int_equal(access(f->swap, F_OK), -1);
	return last;
}

static void what_was_flushed_survives_a_kill(void **state)
{
	struct files f;
	struct prng rng;
	uint64_t last = 0;
	int fd;

	(void)state;
	snprintf(f.folder, sizeof(f.folder), "/tmp/asyncpf-kill-XXXXXX");
	assert_non_null(mkdtemp(f.folder));
	snprintf(f.disk, sizeof(f.disk), "%s/disk", f.folder);
	snprintf(f.swap, sizeof(f.swap), "%s/swap", f.folder);
	fd = open(f.disk, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(fd, SLOTS * PAGE_BYTES), 0);
	close(fd);
	prng_init(&rng, 9);
	for (unsigned i = 0; i < KILLS; i++) {
		uint64_t first = last + 1;

		last = run_and_kill(&f, first, 20 + prng_below(&rng, 200));
		assert_true(last > first);
		check_disk(&f, last);
	}
	assert_int_equal(unlink(f.disk), 0);
	assert_int_equal(rmdir(f.folder), 0);
}

/* ---- what a killed process leaves in the kernel ---- */

#define LEAVES_MS 20000

/* The lock is given back with the last mapping of the file: with the process's memory. */
static void run_holding(enum apf_faults faults, const char *lock)
{
	struct fix *f = fix_open(faults, APF_ABI_INT, 96);
	int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	need(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0, 30);
	need(ftruncate(fd, PAGE_BYTES) == 0, 31);
	need(mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED, 32);
	/* Each fetch takes longer than the test: faults wait when the process is killed. */
	fix_source(f, "delay+", "us=60000000");
	(void)small_run(&f->cfg, &f->out, &f->err);
	_exit(33);
}

static void nothing_stays_behind(enum apf_faults faults)
{
	char lock[] = "/tmp/asyncpf-kill-XXXXXX";
	int fd = mkostemp(lock, O_CLOEXEC), status, waited_ms = 0;
	pid_t pid = fork();

	assert_true(fd >= 0 && pid >= 0);
	if (pid == 0)
		run_holding(faults, lock);
	usleep(1000 * 1000);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), -1);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFSIGNALED(status))
		fail_msg("the VM ended by itself: %d", WEXITSTATUS(status));
	for (; flock(fd, LOCK_EX | LOCK_NB) < 0 && waited_ms < LEAVES_MS; waited_ms += 10)
		usleep(10 * 1000);
	assert_true(waited_ms < LEAVES_MS);
	close(fd);
	assert_int_equal(unlink(lock), 0);
}

static void a_killed_vm_goes_with_its_memory(void **state)
{
	(void)state;
	nothing_stays_behind(APF_FAULTS_KERNEL);
	nothing_stays_behind(APF_FAULTS_BLOCK);
	nothing_stays_behind(APF_FAULTS_STALL);
	nothing_stays_behind(APF_FAULTS_USER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_killed_vm_goes_with_its_memory),
		cmocka_unit_test(what_was_flushed_survives_a_kill),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
