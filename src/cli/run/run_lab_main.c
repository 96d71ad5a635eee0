/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asyncpf run` in the lab: whether it must, what can be checked before, and the start.
 * See run.h. Tests: tests/error/run_lab_test.py, tests/lab/lab_run_test.py.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/json/json_file.h"
#include "cli/lab/lab.h"
#include "cli/probe/probe.h"
#include "cli/run/run.h"
#include "vmm/boot/load_file.h"
#include "vmm/control/control_socket.h"
#include "vmm/disk/blk_file.h"
#include "vmm/disk/file_use.h"

/* ---- whether ---- */

static bool is_linux(const char *path)
{
	struct load_bytes kernel;
	struct err e;

	if (load_file_read(path, "kernel", LOAD_KERNEL_BYTES_MAX, &kernel, &e) < 0)
		return false;

	bool yes = load_is_linux(&kernel);

	load_file_free(&kernel);
	return yes;
}

bool run_lab_needed(const struct run_line *l, char *ret_why, size_t why_bytes)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	uint64_t per_s;

	if (kvm < 0) {
		snprintf(ret_why, why_bytes, "/dev/kvm cannot be opened (%s)", strerror(errno));
		return true;
	}

	bool linux_guest = is_linux(l->run.machine.kernel);
	/* Without a swap file nothing is ever taken away. */
	bool evicts = l->run.machine.apf.swap != NULL;
	bool fast = (!linux_guest && !evicts) || probe_runs_linux(kvm, &per_s);
	/* A KVM that runs nothing says why where the guest is started. */
	bool needed = !fast && (linux_guest || per_s);

	close(kvm);
	if (needed)
		snprintf(ret_why, why_bytes,
			 "the KVM here emulates guest CPL 0 (%llu instructions/s), %s",
			 (unsigned long long)per_s,
			 linux_guest ? "too slow for Linux"
				     : "which cannot wait for memory in --swap");
	return needed;
}

/* ---- what is checked before ---- */

/* Loads the kernel into memory of nobody's: wrong files are told at once, under their own names. */
static int check_files(const struct machine_cfg *m, uint64_t *ret_bytes, struct err *e)
{
	struct guest_mem mem = {.low = MAP_FAILED};
	struct load_cfg lc = {.mem = &mem, .cmdline = m->cmdline};
	struct load_result loaded;
	int rc = load_file_read(m->kernel, "kernel", LOAD_KERNEL_BYTES_MAX, &lc.kernel, e);

	*ret_bytes = lc.kernel.len;
	for (unsigned i = 0; rc == 0 && i < m->modules_count; i++) {
		rc = load_file_read(m->modules[i], i ? "module" : "initrd", LOAD_MODULE_BYTES_MAX,
				    &lc.modules[i], e);
		if (rc == 0)
			*ret_bytes += lc.modules[lc.modules_count++].len;
	}
	guest_mem_split(&mem, m->memory_bytes);
	/* Loaders write below 4 GiB only. */
	if (rc == 0)
		mem.low = mmap(NULL, mem.low_bytes, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (rc == 0)
		rc = mem.low == MAP_FAILED ? err_sys(e, -errno, "memory to load the kernel into")
					   : load_kernel(&lc, &loaded, e);
	if (mem.low != MAP_FAILED)
		munmap(mem.low, mem.low_bytes);
	load_file_free(&lc.kernel);
	for (unsigned i = 0; i < lc.modules_count; i++)
		load_file_free(&lc.modules[i]);
	return rc;
}

static int check_disks(const struct machine_cfg *m, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < m->disks_count; i++) {
		struct blk_file f = {.fd = -1};
		struct blk_backing b;

		rc = blk_file_open(&f, m->disks[i].path,
				   (m->disks[i].read_only ? BLK_READ_ONLY : 0) |
					   (m->disks[i].raw ? BLK_RAW : 0), &b, e);
		blk_file_close(&f);
	}
	return rc;
}

/* As it would be made here: what stands in its way is told in the same words. */
static int check_control(const char *path, struct err *e)
{
	struct control_socket s;
	int rc = path ? control_socket_open(&s, "control socket", path, e) : 0;

	if (path && rc == 0)
		control_socket_close(&s);
	return rc;
}

static int check_written(const char *path, const char *option, struct err *e)
{
	struct json_file f;
	struct stat st;
	int rc;

	/* A FIFO's reader would take the check for the end. */
	if (path && stat(path, &st) == 0 && S_ISFIFO(st.st_mode))
		return 0;
	rc = json_file_open(&f, path, option, file_use_is_taken, e);
	if (rc == 0)
		json_file_close(&f);
	return rc;
}

static bool is_block_device(const char *path)
{
	struct stat st;

	return path && stat(path, &st) == 0 && S_ISBLK(st.st_mode);
}

int run_lab_main(const struct run_line *l, const char *why)
{
	char tool[LAB_PATH_BYTES], self[LAB_PATH_BYTES];
	struct run_lab_host h = {
		.self = self,
		.tool = tool,
		.swap_is_device = is_block_device(l->run.machine.apf.swap),
	};
	struct words w = {0};
	struct err e = {0};
	int rc = check_files(&l->run.machine, &h.file_bytes, &e);

	if (rc == 0)
		rc = check_disks(&l->run.machine, &e);
	if (rc == 0)
		rc = check_written(l->run.json, "json", &e);
	if (rc == 0)
		rc = check_written(l->run.trace, "trace", &e);
	if (rc == 0)
		rc = check_control(l->run.control, &e);
	if (rc < 0)
		return cli_refused(&e);
	if (lab_find(tool, self, &e) == 0) {
		if (why && !l->run.quiet)
			cli_error("running it in the lab: %s; --local tries it here all the same",
				  why);
		run_lab_words(l, &h, &w);
		if (w.err)
			err_sys(&e, w.err, "the lab's command line");
		else
			lab_exec(&w, &e);
		words_free(&w);
	}
	(void)cli_failed(&e);
	return CLI_LAB;
}
