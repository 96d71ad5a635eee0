/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the conformance guest: a machine whose upper half of memory is absent and comes from
 * a delayed source. The guest's console is a pipe; a thread reads it, so that each line is
 * shown when it is printed. See check.h. Test: tests/integration/check_test.py.
 */
#include "cli/check/check.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "cli/cli.h"
#include "cli/stop_signals.h"
#include "mem/memfd.h"
#include "rights/refusal.h"
#include "vmm/machine/machine.h"

/* Made by tools/embed from guests/conformance. */
extern const unsigned char conformance_elf[];
extern const size_t conformance_elf_bytes;

#define RAM_BYTES (16ull << 20)
#define ABSENT_BYTES (16ull << 20)
#define LINE_MAX_BYTES 512
#define PATH_BYTES 32

struct check_run {
	const struct check_opts *o;
	int image_fd;  /* the guest's file */
	int stamps_fd; /* what stands behind the absent memory */
	struct stop_signals signals;
	int console[2];
	char image_path[PATH_BYTES];
	char uri[96];
	char cmdline[640];
	struct check_tap tap; /* the reader's until it has ended */
	struct machine_outcome out;
	struct err err;
};

/* In the order of enum apf_abi. */
static const char *const abi_words[] = {"off", "legacy", "pf2", "pf2-strict", "int"};

static int memory_file(const char *name, const void *bytes, size_t len, struct err *e)
{
	int fd = memfd_new(name);
	struct refusal r;
	int rc;

	if (fd < 0) {
		rc = -errno;
		refusal_memfd("", rc, &r);
		return refusal_err(&r, rc, e);
	}
	rc = fd_write(fd, bytes, len);
	if (rc == 0)
		return fd;
	close(fd);
	return err_sys(e, rc, "cannot start: check: memory for %s", name);
}

/* Each page starts with its own address in the guest. */
static int stamp_pages(int fd, struct err *e)
{
	if (ftruncate(fd, (off_t)ABSENT_BYTES) < 0)
		return err_sys(e, -errno, "cannot start: check: memory for absent pages");
	for (uint64_t at = 0; at < ABSENT_BYTES; at += PAGE_BYTES) {
		uint64_t gpa = RAM_BYTES + at;
		int rc = fd_write_at(fd, &gpa, sizeof(gpa), at);

		if (rc < 0)
			return err_sys(e, rc, "cannot start: check: memory for absent pages");
	}
	return 0;
}

static int prepare(struct check_run *r)
{
	const struct check_opts *o = r->o;
	char known[256];

	r->image_fd = memory_file("the guest", conformance_elf, conformance_elf_bytes, &r->err);
	if (r->image_fd < 0)
		return r->image_fd;
	r->stamps_fd = memory_file("absent pages", "", 0, &r->err);
	if (r->stamps_fd < 0 || stamp_pages(r->stamps_fd, &r->err) < 0)
		return r->err.code;
	if (pipe2(r->console, O_CLOEXEC) < 0)
		return err_sys(&r->err, -errno, "cannot start: check: pipe");
	snprintf(r->image_path, sizeof(r->image_path), "/proc/self/fd/%d", r->image_fd);
	snprintf(r->uri, sizeof(r->uri), "delay+file:/proc/self/fd/%d?us=%u", r->stamps_fd,
		 o->delay_us);
	check_tap_differences(o->faults, o->abi, known, sizeof(known));
	/* What must not come is waited for longer than an absent page takes. */
	snprintf(r->cmdline, sizeof(r->cmdline),
		 "abi=%s absent=0x%llx,0x%llx stamped quiet=%u cpus=%u%s%s%s%s",
		 abi_words[o->abi], RAM_BYTES, ABSENT_BYTES, 100 + 2 * o->delay_us / 1000, o->cpus,
		 o->only ? " only=" : "", o->only ? o->only : "", *known ? " brief=" : "", known);
	return stop_signals_start(&r->signals, &r->err);
}

static struct machine_cfg machine_config(const struct check_run *r)
{
	struct machine_cfg c = {
		.kernel = r->image_path,
		.cmdline = r->cmdline,
		.memory_bytes = RAM_BYTES + ABSENT_BYTES,
		.source = {RAM_BYTES, ABSENT_BYTES, r->uri},
		.cpus = r->o->cpus,
		.exit_port = true,
		.in_fd = -1,
		.out_fd = r->console[1],
		.stop_fd = r->signals.fd,
	};

	apf_config_init(&c.apf);
	c.apf.faults = r->o->faults;
	c.apf.abi = r->o->abi;
	c.apf.sigbus_handler = 1;
	/* Every fault that may be told shall be. */
	c.apf.grace_us = 0;
	return c;
}

/* Until the machine has closed its end. A line that is too long is cut. */
static void *reader(void *arg)
{
	struct check_run *r = arg;
	char line[LINE_MAX_BYTES];
	FILE *in = fdopen(dup(r->console[0]), "r");

	while (in && fgets(line, sizeof(line), in)) {
		line[strcspn(line, "\n")] = '\0';
		check_tap_line(&r->tap, line, stdout);
		fflush(stdout);
	}
	if (in)
		fclose(in);
	return NULL;
}

/* *begun: the guest ran. */
static int run_machine(struct check_run *r, bool *begun)
{
	struct machine_cfg cfg = machine_config(r);
	struct machine *m = NULL;
	pthread_t thread;
	int rc;

	rc = -pthread_create(&thread, NULL, reader, r);
	if (rc < 0)
		return err_sys(&r->err, rc, "cannot start: check: thread");
	rc = machine_open(&cfg, &m, &r->err);
	if (rc == 0)
		rc = machine_run(m, &r->out, &r->err);
	*begun = r->out.started;
	machine_close(m);
	close(r->console[1]);
	r->console[1] = -1;
	pthread_join(thread, NULL);
	return rc;
}

static int verdict(const struct check_run *r)
{
	const struct check_tap *t = &r->tap;
	const char *fault;

	if (r->out.end == MACHINE_INTERRUPTED)
		return cli_error("run stopped: check: by a signal; the guest was not done");
	if (r->out.end != MACHINE_EXITED || t->bailed_out || !t->has_plan)
		return cli_error("check failed: guest: it did not come to its end; see above");
	printf("# %u passed, %u failed, %u differ as expected, %u skipped\n", t->passed, t->failed,
	       t->expected, t->skipped);
	if (t->planned == 0)
		return cli_error("nothing was checked: --only %s: no check's name starts so; see "
				 "docs/conformance.md", r->o->only ? r->o->only : "");
	fault = check_tap_fault(t);
	return fault ? cli_error("%s", fault) : CLI_OK;
}

int check_main(const struct check_opts *o)
{
	struct check_run r = {
		.o = o,
		.image_fd = -1,
		.stamps_fd = -1,
		.signals.fd = -1,
		.console = {-1, -1},
		.tap = {.faults = o->faults, .abi = o->abi},
	};
	int *const fds[] = {&r.image_fd, &r.stamps_fd, &r.console[0], &r.console[1]};
	bool begun = false;
	int code;

	if (prepare(&r) < 0)
		code = cli_refused(&r.err);
	else if (run_machine(&r, &begun) < 0)
		code = begun ? cli_failed(&r.err) : cli_refused(&r.err);
	else
		code = verdict(&r);
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		if (*fds[i] >= 0)
			close(*fds[i]);
	stop_signals_end(&r.signals);
	if (r.err.code == 0 && r.out.end == MACHINE_INTERRUPTED)
		stop_signals_die(&r.signals);
	return code;
}
