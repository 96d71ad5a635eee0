/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many boots in one process leave nothing behind: descriptors, threads, mappings and the
 * heap are what they were after the first few. The small guest a thousand times, and the
 * machine for any kernel, with devices, a hundred times. With a number as argument: that many
 * of each; in the lab a boot takes ten times as long.
 */
#include "small_fixture.h"
#include "need_kvm.h"

#include <dirent.h>
#include <malloc.h>

#include "vmm/machine/machine.h"

static unsigned small_boots = 1000;
static unsigned machine_boots = 100;

#define WARM_UP 10u /* what libraries make once is made by then */
#define PAGES 16u

/* Made by tools/embed from guests/multiboot. */
extern const unsigned char multiboot_elf[];
extern const size_t multiboot_elf_bytes;

struct left {
	unsigned fds, threads, mappings;
	size_t heap;
};

static unsigned entries(const char *folder)
{
	DIR *d = opendir(folder);
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static unsigned lines(const char *path)
{
	FILE *f = fopen(path, "re");
	unsigned n = 0;

	assert_non_null(f);
	for (int c = getc(f); c != EOF; c = getc(f))
		n += c == '\n';
	fclose(f);
	return n;
}

static struct left count(void)
{
	return (struct left){
		.fds = entries("/proc/self/fd"),
		.threads = entries("/proc/self/task"),
		.mappings = lines("/proc/self/maps"),
		.heap = mallinfo2().uordblks,
	};
}

static void nothing_left(const struct left *before, unsigned boots)
{
	struct left now = count();

	/* A thread that was joined may still be on its way out of the kernel. */
	for (unsigned i = 0; now.threads > before->threads && i < 1000; i++) {
		usleep(1000);
		now = count();
	}
	print_message("%u boots: %u descriptors, %u threads, %u mappings, %zu bytes of heap\n",
		      boots, now.fds, now.threads, now.mappings, now.heap);
	assert_int_equal(now.fds, before->fds);
	assert_int_equal(now.threads, before->threads);
	/* Two heaps of malloc's per thread may be kept for the next one: no growth per boot. */
	assert_true(now.mappings <= before->mappings + boots / 20);
	assert_true(now.heap <= before->heap + boots * 8);
}

static void test_small_guest(void **state)
{
	struct fix *f = fix_open(APF_FAULTS_USER, APF_ABI_INT, PAGES);
	struct left before = {0};

	(void)state;
	fix_source(f, "", "");
	f->cfg.boot.tasks = 4;
	/* The guest's 18 MiB of kernel memory are made present at each boot: in fewer steps. */
	f->cfg.apf.block_bytes = 65536;
	for (unsigned i = 0; i < small_boots; i++) {
		if (i == WARM_UP)
			before = count();
		fix_run(f);
		assert_int_equal(fix_pages_done(f), PAGES);
	}
	nothing_left(&before, small_boots - WARM_UP);
	fix_close(f);
}

/* A file of these bytes; path is a template for mkostemp. */
static void make_file(char *path, const void *bytes, size_t len)
{
	int fd = mkostemp(path, O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), len);
	close(fd);
}

static void boot_machine(const struct machine_cfg *cfg)
{
	struct machine_outcome out;
	struct machine *m;
	struct err e;

	if (machine_open(cfg, &m, &e) < 0 || machine_run(m, &out, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(out.end, MACHINE_EXITED);
	assert_int_equal(out.status, 7);
	machine_close(m);
}

static void test_machine(void **state)
{
	static const unsigned char sectors[65536];
	char kernel[] = "/tmp/boots-test-kernel-XXXXXX";
	char disk[] = "/tmp/boots-test-disk-XXXXXX";
	struct left before = {0};
	struct machine_cfg cfg = {
		.kernel = kernel,
		.cmdline = "exit=7",
		.memory_bytes = 4 << 20,
		.cpus = 2,
		.exit_port = true,
		.disks = {{.path = disk}},
		.disks_count = 1,
		.in_fd = -1,
		.out_fd = -1,
		.stop_fd = -1,
	};

	(void)state;
	make_file(kernel, multiboot_elf, multiboot_elf_bytes);
	make_file(disk, sectors, sizeof(sectors));
	apf_config_init(&cfg.apf);
	for (unsigned i = 0; i < machine_boots; i++) {
		if (i == WARM_UP)
			before = count();
		boot_machine(&cfg);
	}
	nothing_left(&before, machine_boots - WARM_UP);
	unlink(kernel);
	unlink(disk);
}

/* What malloc keeps of freed memory for a thread counts as taken, and how much that is varies. */
static void without_malloc_cache(char **argv)
{
	if (getenv("GLIBC_TUNABLES"))
		return;
	if (setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0", 1) == 0)
		execv("/proc/self/exe", argv);
	perror("boots: cannot begin anew");
	exit(2);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small_guest),
		cmocka_unit_test(test_machine),
	};

	need_kvm();
	without_malloc_cache(argv);
	if (argc > 1) {
		small_boots = machine_boots = (unsigned)strtoul(argv[1], NULL, 10);
		if (small_boots <= WARM_UP) {
			printf("boots: more than %u, or nothing is compared\n", WARM_UP);
			return 2;
		}
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
