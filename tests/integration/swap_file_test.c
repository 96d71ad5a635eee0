/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The swap file on real file systems and devices: which paths are taken, what is left behind, and
 * what becomes of the guest's memory when the device is full or fails. O_DIRECT and O_TMPFILE are
 * refused by this program's own open() where a test says so.
 */
#include "disk_fixture.h"
#include "need_kvm.h"
#include "open_fixture.h"

#include <linux/fs.h>
#include <linux/magic.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <dirent.h>

/* ---- paths ---- */

static void refused(struct vm *v, int code, const char *words)
{
	struct apf *a = NULL;
	int rc;

	assert_int_equal(apf_open(v->fd, &v->c, &a, &v->e), 0);
	assert_int_equal(apf_memory_add(a, 0, RAM, &v->e), 0);
	rc = apf_start(a, &v->e);
	if (rc != code || !strstr(v->e.text, words))
		print_error("rc %d: %s\n", rc, v->e.text);
	assert_int_equal(rc, code);
	assert_non_null(strstr(v->e.text, words));
	assert_non_null(strstr(v->e.text, v->c.swap));
	apf_close(a);
}

static void put(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void holds(const char *path, const char *want)
{
	char text[32] = "";
	FILE *f = fopen(path, "re");

	assert_non_null(f);
	assert_int_equal(fread(text, 1, sizeof(text) - 1, f), strlen(want));
	assert_string_equal(text, want);
	fclose(f);
}

static unsigned files_in(const char *folder)
{
	DIR *d = opendir(folder);
	unsigned n = 0;

	assert_non_null(d);
	for (struct dirent *at; (at = readdir(d));)
		n += strcmp(at->d_name, ".") != 0 && strcmp(at->d_name, "..") != 0;
	closedir(d);
	return n;
}

static void put_socket(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(strlen(path) < sizeof(un.sun_path));
	memcpy(un.sun_path, path, strlen(path) + 1);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	close(fd);
}

static void what_exists_is_left_alone(void **state)
{
	char other[160];
	struct stat st;
	struct vm v;

	(void)state;
	vm_prepare(&v);
	snprintf(other, sizeof(other), "%s/other", v.folder);
	for (unsigned empty = 0; empty < 2; empty++) {
		put(v.swap, empty ? "" : "a disk");
		refused(&v, -EEXIST, "a file");
		holds(v.swap, empty ? "" : "a disk");
		assert_int_equal(rename(v.swap, other), 0);
		assert_int_equal(symlink(other, v.swap), 0);
		refused(&v, -EEXIST, "a symbolic link");
		holds(other, empty ? "" : "a disk");
		assert_int_equal(unlink(v.swap), 0);
		assert_int_equal(unlink(other), 0);
	}
	assert_int_equal(symlink(other, v.swap), 0); /* onto nothing */
	refused(&v, -EEXIST, "a symbolic link");
	assert_int_equal(lstat(other, &st), -1);
	assert_int_equal(unlink(v.swap), 0);
	assert_int_equal(mkfifo(v.swap, 0600), 0);
	refused(&v, -EEXIST, "a FIFO");
	assert_int_equal(unlink(v.swap), 0);
	put_socket(v.swap);
	refused(&v, -EEXIST, "a socket");
	assert_int_equal(unlink(v.swap), 0);
	v.c.swap = v.folder;
	refused(&v, -EEXIST, "a directory");
	v.c.swap = "/dev/null";
	refused(&v, -EEXIST, "a character device");
	v.c.swap = "/no/such/folder/swap";
	refused(&v, -ENOENT, "No such file");
	vm_end(&v);
}

static void nothing_is_seen_of_it(void **state)
{
	struct apf *second = NULL;
	struct vm v;

	(void)state;
	for (unsigned named = 0; named < 2; named++) {
		no_tmpfile = named;
		vm_prepare(&v);
		vm_start(&v);
		assert_int_equal(files_in(v.folder), 0);
		/* Whoever has the same path has a file of his own. */
		assert_int_equal(apf_open(v.fd, &v.c, &second, &v.e), 0);
		assert_int_equal(apf_memory_add(second, 0, RAM, &v.e), 0);
		assert_int_equal(apf_start(second, &v.e), 0);
		write_all(&v, 0);
		assert_int_equal(apf_write(second, 0, "x", 1), 0);
		assert_int_equal(apf_evict(second, 0, NULL, &v.e), 0);
		evict_all(&v);
		/* What comes to stand there later is not ours. */
		put(v.swap, "precious");
		check_all(&v, 0);
		apf_close(second);
		apf_close(v.a);
		v.a = NULL;
		holds(v.swap, "precious");
		assert_int_equal(unlink(v.swap), 0);
		vm_end(&v);
	}
	no_tmpfile = false;
}

/* The swap file of this process, by another descriptor. */
static int second_descriptor(const struct vm *v)
{
	DIR *d = opendir("/proc/self/fd");
	const struct dirent *e;
	int fd = -1;

	assert_non_null(d);
	while (fd < 0 && (e = readdir(d)) != NULL) {
		char path[300], target[300] = "";

		snprintf(path, sizeof(path), "/proc/self/fd/%s", e->d_name);
		if (readlink(path, target, sizeof(target) - 1) > 0 &&
		    strncmp(target, v->folder, strlen(v->folder)) == 0)
			fd = open(path, O_RDWR | O_CLOEXEC);
	}
	closedir(d);
	assert_true(fd >= 0);
	return fd;
}

/* All of it, each byte; a second time undoes it. */
static void scribble(int fd)
{
	unsigned char page[PAGE_BYTES];
	ssize_t n;

	for (off_t at = 0; (n = pread(fd, page, sizeof(page), at)) > 0; at += n) {
		for (ssize_t i = 0; i < n; i++)
			page[i] ^= 0xff;
		assert_int_equal(pwrite(fd, page, (size_t)n, at), n);
	}
}

static void *check_in_thread(void *vm)
{
	check_all(vm, 0);
	return NULL;
}

static void what_others_write_into_it_is_noticed(void **state)
{
	pthread_t reader;
	struct vm v;
	int fd;

	(void)state;
	vm_prepare(&v);
	v.c.retries_max = 1;
	vm_start(&v);
	write_all(&v, 0);
	evict_all(&v);
	fd = second_descriptor(&v);
	scribble(fd);
	assert_int_equal(pthread_create(&reader, NULL, check_in_thread, &v), 0);
	wait_for(&v.pauses, 1);
	assert_non_null(strstr(v.paused, "something else has changed it"));
	scribble(fd);
	apf_resume(v.a);
	/* Not one byte of what was there meanwhile. */
	assert_int_equal(pthread_join(reader, NULL), 0);
	assert_int_equal(fsync(fd), 0);
	close(fd);
	vm_end(&v);
}

static void killed_it_leaves_nothing(void **state)
{
	int status, ready[2];
	struct vm v;
	char byte;
	pid_t pid;

	(void)state;
	for (unsigned named = 0; named < 2; named++) {
		no_tmpfile = named;
		vm_prepare(&v);
		assert_int_equal(pipe(ready), 0);
		pid = fork();
		if (pid == 0) {
			close(v.fd);
			v.fd = ioctl(v.kvm, KVM_CREATE_VM, 0);
			vm_start(&v);
			write_all(&v, 0);
			evict_all(&v);
			(void)!write(ready[1], "x", 1);
			pause();
			_exit(1);
		}
		close(ready[1]);
		assert_int_equal(read(ready[0], &byte, 1), 1);
		close(ready[0]);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(files_in(v.folder), 0);
		vm_end(&v);
	}
	no_tmpfile = false;
}

/* ---- the page cache ---- */

/* Bytes of the page cache that an open file in the folder takes up, whatever its name. */
static uint64_t cached(const char *folder)
{
	uint64_t bytes = 0;
	DIR *d = opendir("/proc/self/fd");
	struct dirent *at;

	assert_non_null(d);
	while ((at = readdir(d))) {
		static unsigned char in[256 * MIB / PAGE_BYTES];
		char link[300], path[300] = "";
		struct stat st;
		void *map;
		int fd;

		snprintf(link, sizeof(link), "/proc/self/fd/%s", at->d_name);
		if (readlink(link, path, sizeof(path) - 1) < 0 ||
		    strncmp(path, folder, strlen(folder)) != 0)
			continue;
		fd = open(link, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
			close(fd);
			continue;
		}
		map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
		assert_ptr_not_equal(map, MAP_FAILED);
		assert_int_equal(mincore(map, (size_t)st.st_size, in), 0);
		for (off_t i = 0; i < st.st_size / (off_t)PAGE_BYTES; i++)
			bytes += in[i] & 1 ? PAGE_BYTES : 0;
		munmap(map, (size_t)st.st_size);
		close(fd);
	}
	closedir(d);
	return bytes;
}

/* Its files are memory, and nothing else. */
static bool is_memory(const char *folder)
{
	struct statfs fs;

	assert_int_equal(statfs(folder, &fs), 0);
	return fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
}

/* The string of the configuration may be gone by then. */
static void memory_that_does_not_fit_is_told_with_the_path(void **state)
{
	struct rlimit all, few;
	char path[128];
	struct vm v;

	(void)state;
	vm_prepare(&v);
	memcpy(path, v.swap, sizeof(path));
	v.c.swap = path;
	vm_start(&v);
	memset(path, '?', strlen(path));
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &all), 0);
	few = all;
	/* Enough for what there is, but each part begins at a multiple of 2 MiB. */
	few.rlim_cur = RAM + MIB;
	assert_int_equal(apf_memory_add(v.a, 4 * RAM, PAGE_BYTES, &v.e), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &few), 0);
	assert_int_equal(apf_memory_add(v.a, 5 * RAM, PAGE_BYTES, &v.e), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &all), 0);
	(void)signal(SIGXFSZ, SIG_DFL);
	assert_non_null(strstr(v.e.text, v.swap));
	assert_int_equal(apf_memory_add(v.a, 5 * RAM, PAGE_BYTES, &v.e), 0);
	vm_end(&v);
}

static void memory_is_not_in_the_page_cache_instead(void **state)
{
	struct vm v;

	(void)state;
	for (unsigned way = 0; way < 2; way++) {
		no_direct = way;
		vm_prepare(&v);
		if (is_memory(v.folder)) {
			print_message("SKIP: files in %s are memory\n", v.folder);
			vm_end(&v);
			break;
		}
		vm_start(&v);
		write_all(&v, 0);
		evict_all(&v);
		assert_true(cached(v.folder) < MIB);
		check_all(&v, 0);
		evict_all(&v);
		assert_true(cached(v.folder) < MIB);
		vm_end(&v);
	}
	no_direct = false;
}

static void a_source_is_not_in_the_page_cache_either(void **state)
{
	uint64_t words[PAGE_BYTES / 8];
	char image[160], uri[180];
	struct vm v;
	int fd;

	(void)state;
	for (unsigned way = 0; way < 2; way++) {
		no_direct = way;
		vm_prepare(&v);
		snprintf(image, sizeof(image), "%s/image", v.folder);
		snprintf(uri, sizeof(uri), "file:%s", image);
		fd = open(image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		for (uint64_t i = 0; i < PAGES; i++) {
			content(i, 7, words);
			assert_int_equal(write(fd, words, sizeof(words)), sizeof(words));
		}
		assert_int_equal(fsync(fd), 0);
		assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
		close(fd);
		assert_int_equal(apf_open(v.fd, &v.c, &v.a, &v.e), 0);
		assert_int_equal(apf_memory_add(v.a, 0, RAM, &v.e), 0);
		assert_int_equal(apf_source_add(v.a, 0, PAGES * PAGE_BYTES, uri, 0, NULL, &v.e), 0);
		assert_int_equal(apf_start(v.a, &v.e), 0);
		check_all(&v, 7);
		if (!is_memory(v.folder))
			assert_true(cached(v.folder) < MIB);
		assert_int_equal(unlink(image), 0);
		vm_end(&v);
	}
	no_direct = false;
}

/* ---- trouble ---- */

static void make_room(void *disk)
{
	disk_room(disk, "80m");
}

/* The VM's device runs full at a third of what is to be written. */
static void full_then_room(struct vm *v, struct disk *d)
{
	v->c.retries_max = 1;
	vm_start(v);
	write_all(v, 3);
	fails_then_goes_on(v, make_room, d);
}

static void a_full_tmpfs_pauses_and_room_resumes(void **state)
{
	struct disk d;
	struct vm v;

	(void)state;
	vm_prepare(&v);
	memset(&d, 0, sizeof(d));
	snprintf(d.back, sizeof(d.back), "%s", v.folder);
	if (mount("asyncpf-test", v.folder, "tmpfs", 0, "size=2m") < 0) {
		print_message("SKIP: a full swap file needs a mount: %s\n", strerror(errno));
	} else {
		full_then_room(&v, &d);
		assert_non_null(strstr(v.paused, "No space left"));
		assert_int_equal(umount(v.folder), 0);
	}
	vm_end(&v);
}

/* The whole device is the swap file. Through the page cache the error comes with the sync. */
static void a_failing_device_loses_nothing(void **state)
{
	struct disk d;
	struct vm v;

	(void)state;
	for (unsigned way = 0; way < 2; way++) {
		vm_prepare(&v);
		memset(&d, 0, sizeof(d));
		if (disk_make(&v, &d, "3m")) {
			no_direct = way;
			/* By a link, as devices have them in /dev/disk. */
			assert_int_equal(symlink(d.dev, v.swap), 0);
			full_then_room(&v, &d);
			no_direct = false;
		} else {
			print_message("SKIP: a failing device needs mount and loop devices\n");
		}
		disk_end(&v, &d);
		vm_end(&v);
	}
}

/* The file system believes that there is room, and the device below has none. */
static void a_file_system_on_a_full_device_loses_nothing(void **state)
{
	char command[1000];
	struct disk d;
	struct vm v;

	(void)state;
	for (unsigned way = 0; way < 2; way++) {
		vm_prepare(&v);
		memset(&d, 0, sizeof(d));
		snprintf(v.swap, sizeof(v.swap), "%s/fs/swap", v.folder);
		if (disk_make(&v, &d, "80m")) {
			/*
			 * What the file system keeps for itself has its room: an error there would
			 * end it.
			 */
			snprintf(command, sizeof(command),
				 "fallocate -l 64M %s/disk && mkfs.ext4 -q -E nodiscard,"
				 "lazy_itable_init=0,lazy_journal_init=0 %s && mount %s %s && "
				 "fstrim %s", d.back, d.dev, d.dev, d.fs, d.fs);
			if (system(command) == 0) {
				disk_room(&d, "12m");
				no_direct = way;
				full_then_room(&v, &d);
				no_direct = false;
			} else {
				print_message("SKIP: no file system could be made\n");
			}
			(void)umount(d.fs);
		} else {
			print_message("SKIP: a full device needs mount and loop devices\n");
		}
		disk_end(&v, &d);
		vm_end(&v);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_exists_is_left_alone),
		cmocka_unit_test(nothing_is_seen_of_it),
		cmocka_unit_test(what_others_write_into_it_is_noticed),
		cmocka_unit_test(killed_it_leaves_nothing),
		cmocka_unit_test(memory_that_does_not_fit_is_told_with_the_path),
		cmocka_unit_test(memory_is_not_in_the_page_cache_instead),
		cmocka_unit_test(a_source_is_not_in_the_page_cache_either),
		cmocka_unit_test(a_full_tmpfs_pauses_and_room_resumes),
		cmocka_unit_test(a_failing_device_loses_nothing),
		cmocka_unit_test(a_file_system_on_a_full_device_loses_nothing),
	};

	need_kvm();
	disk_own_mounts();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
