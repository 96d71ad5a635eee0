/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asyncpf restore`: a snapshot's description becomes what `asyncpf run` is given, and the run is
 * the same. Test: tests/lab/snapshot_test.py.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/json/json_file.h"
#include "cli/opts.h"
#include "cli/run/run.h"
#include "cli/snap/snap_base.h"
#include "cli/snap/snap_dir.h"
#include "vmm/machine/machine_saved.h"
#include "vmm/snap/work_set.h"

#define RECORD_S 30u
#define SET_WAIT_MS 5000 /* for the writer of a pipe that --prefetch names */
#define READ_AHEAD_MAX (1u << 30)
#define READ_AHEAD_DEFAULT (16u << 20) /* as deep as any pace asks for */
#define READ_AHEAD_NOT_GIVEN UINT64_MAX
#define FAULTS_NOT_GIVEN UINT32_MAX

struct restore_line {
	struct run_opts run;
	const char *source;
	struct work_set set; /* what is in it */
	uint64_t read_ahead;
	struct opts_list nets;
	char net_words[MACHINE_NETS_MAX][RUN_NET_BYTES];
	const char *vsock;
	const char *user;
	unsigned faults;
	unsigned io;
	unsigned sandbox;
};

static const struct opt rows[] = {
	{OPT_TEXT(struct restore_line, source), .name = "source", .arg = "URI",
	 .help = "Where its memory comes from; default DIR, and what it builds upon."},
	{OPT_LIST(struct restore_line, nets), .name = "net", .arg = "KIND[,WORD]...",
	 .max = MACHINE_NETS_MAX,
	 .help = "What its next network card is connected to, as with 'asyncpf run'; default "
		 "what it was connected to. Once for each of its cards, or not at all."},
	{OPT_TEXT(struct restore_line, vsock), .name = "vsock", .arg = "uds=PATH[,cid=N]",
	 .help = "Where its socket device is, as with 'asyncpf run'; default where it was."},
	{OPT_TEXT(struct restore_line, run.record), .name = "record", .arg = "FILE",
	 .help = "Note which memory the VM touches first, in that order, in FILE when it ends."},
	{OPT_U32(struct restore_line, run.record_s), .name = "record-time", .arg = "SECONDS",
	 .min = 1, .max = 86400, .help = "With --record: from the first touch on; default 30."},
	{OPT_TEXT(struct restore_line, run.prefetch), .name = "prefetch", .arg = "FILE",
	 .help = "Bring what was noted in FILE ahead of the guest, in that order."},
	{OPT_FLAG(struct restore_line, run.machine.fill), .name = "fill",
	 .help = "Bring all memory, below what the guest waits for, and then close its source."},
	{OPT_SIZE(struct restore_line, read_ahead), .name = "read-ahead", .arg = "SIZE", .min = 0,
	 .max = READ_AHEAD_MAX,
	 .help = "Read up to so much ahead of whoever goes through memory in even steps, and "
		 "around what is waited for, as far as its source is away; default 16M, with "
		 "--record 0: each touch brings its page."},
	{OPT_CHOICE(struct restore_line, faults), .name = "faults", .arg = "WORD",
	 .choices = run_faults_names,
	 .help = "How a touch of absent memory is served, as with 'asyncpf run'; default as "
		 "before. Events reach a guest that has had them since its boot."},
	RUN_ROW_RESIDENT_MAX(struct restore_line),
	{OPT_TEXT(struct restore_line, run.machine.apf.swap), .name = "swap", .arg = "FILE",
	 .help = "Where cold memory goes, as with 'asyncpf run'."},
	{OPT_CHOICE(struct restore_line, io), .name = "io", .arg = "WORD",
	 .choices = cli_io_names, .help = CLI_IO_HELP},
	{OPT_TEXT(struct restore_line, run.control), .name = "control", .arg = "SOCKET",
	 .help = "Make a control socket there."},
	{OPT_TEXT(struct restore_line, user), .name = "user", .arg = "USER",
	 .help = "Become USER once everything is open; for root."},
	{OPT_CHOICE(struct restore_line, sandbox), .name = "sandbox", .arg = "WORD",
	 .choices = cli_sandbox_names, .help = "on, strict or off, as with 'asyncpf run'."},
	RUN_ROWS_OF_OUTPUT(struct restore_line),
	{.name = NULL},
};

static const struct opts table = {
	.verb = "restore",
	.about = "Runs a snapshot on. Its memory comes as the guest touches it, and disks are\n"
		 "opened where they were. Exit codes are those of 'asyncpf run'.",
	.operands = "DIR",
	.operands_min = 1,
	.operands_max = 1,
	.rows = rows,
};

static int take_disks(struct machine_cfg *m, const struct snap_in *in, struct err *e)
{
	for (unsigned i = 0; i < m->disks_count; i++) {
		struct machine_disk_saved s;
		const char *path;
		int rc = machine_disk_saved_get(in, i, &s, &path, e);

		if (rc < 0)
			return rc;
		m->disks[i] = (struct machine_disk){
			.path = path,
			.read_only = s.read_only,
			.raw = s.raw,
			.report = s.report,
			.bytes_per_s = s.bytes_per_s,
			.requests_per_s = s.requests_per_s,
		};
	}
	return 0;
}

/* Connected to something else, the card keeps the hardware address that the guest knows. */
static int connect_net(const char *text, char words[static RUN_NET_BYTES], struct machine_net *n,
		       struct err *e)
{
	const struct machine_net saved = *n;
	int rc = run_net_parse(text, words, n, e);

	if (rc < 0)
		return rc;
	if (n->has_mac && !(saved.has_mac && memcmp(n->mac, saved.mac, sizeof(n->mac)) == 0))
		return err_set(e, -EINVAL, "conflicting options: --net %.60s: the guest keeps the "
			       "hardware address that it has; leave mac= out", text);
	n->has_mac = saved.has_mac;
	memcpy(n->mac, saved.mac, sizeof(n->mac));
	return 0;
}

static int take_nets(struct restore_line *l, const struct snap_in *in, struct err *e)
{
	struct machine_cfg *m = &l->run.machine;

	if (l->nets.count && l->nets.count != m->nets_count)
		return err_set(e, -EINVAL, "conflicting options: --net: the snapshot has "
			       "network cards: %u, not %u; give one for each, or none",
			       m->nets_count, l->nets.count);
	for (unsigned i = 0; i < m->nets_count; i++) {
		int rc = machine_net_saved_get(in, i, &m->nets[i], e);

		if (rc == 0 && l->nets.count)
			rc = connect_net(l->nets.text[i], l->net_words[i], &m->nets[i], e);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* A guest keeps the protocol that it has found when it booted. */
static int take_faults(struct restore_line *l, const struct machine_saved *s, struct err *e)
{
	struct apf_config *apf = &l->run.machine.apf;
	uint32_t faults = l->faults == FAULTS_NOT_GIVEN ? s->faults : l->faults;

	if (faults == APF_FAULTS_KERNEL && s->faults != APF_FAULTS_KERNEL &&
	    s->abi != APF_ABI_INT && s->abi != APF_ABI_OFF)
		return err_set(e, -EINVAL, "conflicting options: --faults kernel: the guest "
			       "speaks %s, and the kernel int alone; use user, stall or block",
			       run_abi_names[s->abi]);
	apf->faults = (enum apf_faults)faults;
	apf->abi = (enum apf_abi)s->abi;
	apf->told_before = 1;
	return 0;
}

/* In the place of a path that the original may still use. */
static int take_vsock(struct restore_line *l, const struct snap_in *in, struct err *e)
{
	struct machine_cfg *m = &l->run.machine;
	struct machine_vsock_saved vsock;
	int rc = machine_vsock_saved_get(in, &vsock, &m->vsock.path, e);

	if (rc < 0)
		return rc;
	m->vsock.cid = vsock.device.cid;
	if (l->vsock && !m->vsock.path)
		return err_set(e, -EINVAL, "conflicting options: --vsock: the snapshot has no "
			       "socket device; leave it out");
	return run_vsock_parse(l->vsock, m, e);
}

/* From the description into what is run. */
static int take(struct restore_line *l, const struct snap_in *in, struct err *e)
{
	struct machine_cfg *m = &l->run.machine;
	struct machine_balloon_saved balloon;
	struct machine_saved s;
	int rc = machine_saved_get(in, &s, e);

	if (rc == 0)
		rc = machine_balloon_saved_get(in, &balloon, e);
	if (rc < 0)
		return rc;
	m->restore = in;
	m->memory_bytes = s.memory_bytes;
	m->cpus = s.cpus;
	m->rng_bytes_per_s = s.rng_bytes_per_s;
	m->exit_port = s.exit_port;
	m->balloon = (enum machine_balloon)balloon.kind;
	m->disks_count = s.disks;
	m->apf.faults_max = s.outstanding;
	m->apf.io = (enum apf_io)l->io;
	m->apf.read_ahead_bytes = (uint32_t)l->read_ahead;
	m->nets_count = s.nets;
	rc = take_faults(l, &s, e);
	if (rc == 0)
		rc = take_disks(m, in, e);
	if (rc == 0)
		rc = take_vsock(l, in, e);
	return rc < 0 ? rc : take_nets(l, in, e);
}

/* A FIFO's open would wait for a writer without an end. Returns it, or -Exxx. */
static int open_set(const char *path, struct err *e)
{
	struct pollfd in = {.events = POLLIN};

	in.fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (in.fd < 0)
		return err_sys(e, -errno, "cannot read: %.150s", path);
	if (poll(&in, 1, SET_WAIT_MS) > 0 && fcntl(in.fd, F_SETFL, 0) == 0)
		return in.fd;
	close(in.fd);
	return err_set(e, -ENXIO, "cannot read: %.100s: a pipe that nobody writes to; start its "
		       "writer first, or give --prefetch a file", path);
}

/* Before the run: it may be written anew at its end. */
static int take_set(struct restore_line *l, struct err *e)
{
	struct machine_cfg *m = &l->run.machine;
	struct err why;
	int fd, rc;

	if (!l->run.prefetch)
		return 0;
	fd = open_set(l->run.prefetch, e);
	if (fd < 0)
		return fd;
	rc = work_set_read(&l->set, fd, m->memory_bytes, &why);
	close(fd);
	if (rc < 0)
		return err_set(e, rc, "cannot read: %.100s: %.150s", l->run.prefetch, why.text);
	m->prefetch = l->set.ranges;
	m->prefetch_count = l->set.count;
	return 0;
}

static int check(struct restore_line *l, struct err *e)
{
	if (json_file_is_stdout(l->run.record))
		return err_set(e, -EINVAL, "bad value: --record -: standard output has what the "
			       "guest prints; give --record a file");
	if (l->run.record_s && !l->run.record)
		return err_set(e, -EINVAL, "bad value: --record-time %u: nothing is noted; name a "
			       "file with --record", l->run.record_s);
	l->run.record_s = l->run.record_s ? l->run.record_s : RECORD_S;
	if (l->run.machine.fill && l->run.machine.apf.swap)
		return err_set(e, -EINVAL, "conflicting options: --fill and --swap: what is taken "
			       "away again may need its source; leave one out");
	if (l->read_ahead == READ_AHEAD_NOT_GIVEN)
		l->read_ahead = l->run.record ? 0 : READ_AHEAD_DEFAULT;
	/* Nobody sees the first touch of what is there already. */
	if (l->run.record && l->read_ahead)
		return err_set(e, -EINVAL, "conflicting options: --record and --read-ahead: what "
			       "is read ahead is not seen to be touched; leave one out");
	return run_opts_check(&l->run, l->user, e);
}

int cmd_restore(int argc, char **argv)
{
	struct restore_line l = {.sandbox = APF_SANDBOX_DEFAULT, .faults = FAULTS_NOT_GIVEN,
				 .read_ahead = READ_AHEAD_NOT_GIVEN};
	struct snap_chain chain;
	struct snap_in in;
	struct err e = {0};
	char *uri = NULL;
	int operand, code;
	int r;

	apf_config_init(&l.run.machine.apf);
	r = cli_begin(&table, argc, argv, &l, &operand);

	if (r >= 0)
		return r;
	l.run.machine.apf.sigbus_handler = 1;
	l.run.sandbox = (enum cli_sandbox)l.sandbox;
	if (check(&l, &e) < 0) {
		cli_error("%s", e.text);
		return CLI_USAGE;
	}
	if (snap_dir_read(argv[operand], &in, &chain, &e) < 0)
		return cli_refused(&e);
	if (!l.source)
		uri = snap_dir_source(argv[operand], &in);
	l.run.snapshot = argv[operand];
	l.run.machine.restore_uri = l.source ? l.source : uri;
	r = take(&l, &in, &e);
	code = r == -EINVAL ? CLI_USAGE : CLI_REFUSED; /* options that do not fit it, or no words */
	if (r == 0)
		r = take_set(&l, &e);
	if (r == 0)
		r = run_files_check(&l.run, &chain.layers, &e);
	snap_chain_free(&chain); /* its source reads it anew */
	if (r < 0)
		(void)cli_failed(&e);
	else
		code = run_main(&l.run);
	snap_in_free(&in);
	work_set_free(&l.set);
	free(uri);
	return code;
}
