/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asyncpf run`: the command line only. The work is run_main()'s.
 * Test: tests/unit/run_opts_test.c.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "base/size.h"
#include "cli/cli.h"
#include "cli/json/json_file.h"
#include "cli/opts.h"
#include "cli/run/run.h"
#include "vmm/control/control_status.h"
#include "vmm/virtio/vsock_mux.h"

const char *const run_faults_names[] = {"block", "stall", "kernel", "user", NULL};

_Static_assert(APF_FAULTS_USER == ARRAY_LEN(run_faults_names) - 2, "one word per enum apf_faults");

const char *const run_abi_names[] = {"off", "legacy", "pf2", "pf2-strict", "int", NULL};

_Static_assert(APF_ABI_INT == ARRAY_LEN(run_abi_names) - 2, "one word per enum apf_abi");

static const char *const balloon_names[] = {"off", "on", "follow", NULL};

_Static_assert(MACHINE_BALLOON_FOLLOW == ARRAY_LEN(balloon_names) - 2, "one word for each");

#define ABI_NOT_GIVEN UINT32_MAX
_Static_assert(MACHINE_RNG_BYTES_PER_S == MIB, "as --help says");

void run_line_init(struct run_line *l)
{
	*l = (struct run_line){
		.run.machine.memory_bytes = 512 * MIB,
		.cpus = 1,
		.faults = APF_FAULTS_USER,
		.abi = ABI_NOT_GIVEN,
		.sandbox = APF_SANDBOX_DEFAULT,
	};
	apf_config_init(&l->run.machine.apf);
	l->run.machine.apf.sigbus_handler = 1;
}

static const struct opt rows[] = {
	{OPT_TEXT(struct run_line, run.machine.kernel), .name = "kernel", .arg = "FILE",
	 .help = "What to boot: a bzImage, an ELF file with a PVH entry, or a multiboot kernel."},
	{OPT_LIST(struct run_line, initrds), .name = "initrd", .arg = "FILE",
	 .max = LOAD_MODULES_MAX,
	 .help = "Linux's initial file system; may be repeated for multiboot kernels, which get "
		 "each as a module."},
	{OPT_ANY(struct run_line, run.machine.cmdline), .name = "cmdline", .arg = "TEXT",
	 .help = "The kernel's command line; default for Linux: " MACHINE_LINUX_CMDLINE "."},
	{OPT_SIZE(struct run_line, run.machine.memory_bytes), .name = "memory", .arg = "SIZE",
	 .min = MACHINE_MEMORY_MIN, .max = MACHINE_MEMORY_MAX,
	 .help = "The guest's memory, in steps of 2M; default 512M."},
	{OPT_U32(struct run_line, cpus), .name = "cpus", .arg = "N", .min = 1,
	 .max = MACHINE_CPUS_MAX, .help = "The guest's processors; default 1."},
	{OPT_LIST(struct run_line, disks), .name = "disk", .arg = "FILE[,WORD]...",
	 .max = MACHINE_DISKS_MAX,
	 .help = "A raw file or block device as the next disk (vda, vdb, ...), read-only with "
		 "',ro'; ',werror=report' tells the guest when the host cannot write, instead of "
		 "pausing it; ',raw' takes any file for raw; ',bw=SIZE' and ',iops=N' are all that "
		 "the guest gets per second. May be repeated."},
	{OPT_LIST(struct run_line, nets), .name = "net", .arg = "KIND[,WORD]...",
	 .max = MACHINE_NETS_MAX,
	 .help = "The next network card. user: a network in user space; it forwards a port of "
		 "this machine's 127.0.0.1 with ',fwd=tcp:8080:80' (or udp, or another "
		 "address, tcp:ADDRESS:8080:80; may be repeated); ',host' lets the guest reach "
		 "127.0.0.1 itself, ',restrict' nothing but what is forwarded. tap=NAME: an "
		 "interface of the host's. ',mac=ADDRESS'; ',bw=SIZE' is all that it carries "
		 "per second. May be repeated."},
	{OPT_TEXT(struct run_line, rng), .name = "rng", .arg = "bw=SIZE",
	 .help = "Entropy that the guest gets per second; default 1M."},
	{OPT_CHOICE(struct run_line, balloon), .name = "balloon", .arg = "WORD",
	 .choices = balloon_names,
	 .help = "on: a balloon, by which the guest gives back memory that it does not use, and "
		 "what 'asyncpf balloon' asks for; follow: and from the start what is above "
		 "--resident-max; default off."},
	{OPT_TEXT(struct run_line, vsock), .name = "vsock", .arg = "uds=PATH[,cid=N]",
	 .help = "A socket device: who connects to PATH and writes 'CONNECT PORT' meets who "
		 "listens at that port in the guest, whose own connections to port N go to "
		 "PATH_N; the guest's address is 3 if not given."},
	{OPT_CHOICE(struct run_line, faults), .name = "faults", .arg = "WORD",
	 .choices = run_faults_names,
	 .help = "How a touch of absent memory is served: user (the guest is told), kernel (KVM's "
		 "own), stall or block; default user."},
	{OPT_CHOICE(struct run_line, abi), .name = "abi", .arg = "WORD",
	 .choices = run_abi_names,
	 .help = "The protocol for --faults user: int, pf2, pf2-strict, legacy or off; "
		 "default int."},
	RUN_ROW_RESIDENT_MAX(struct run_line),
	{OPT_TEXT(struct run_line, run.machine.apf.swap), .name = "swap", .arg = "FILE",
	 .help = "Where cold memory goes: a path where nothing is, for a file without a name in "
		 "its folder, as large as --memory at most; or a block device."},
	{OPT_TEXT(struct run_line, run.machine.apf.swap_wrap), .name = "swap-wrap", .arg = "WRAP",
	 .help = "Wrapper put around reads of --swap, such as delay?ms=20."},
	{OPT_CHOICE(struct run_line, io), .name = "io", .arg = "WORD", .choices = cli_io_names,
	 .help = CLI_IO_HELP},
	{OPT_TEXT(struct run_line, run.name), .name = "name", .arg = "NAME",
	 .help = "What 'asyncpf status', events and metrics call the VM: letters, digits and -_.: "
		 "only, 63 at most."},
	{OPT_TEXT(struct run_line, run.control), .name = "control", .arg = "SOCKET",
	 .help = "Make a control socket there, for 'asyncpf status', events, pause, resume, "
		 "evict, resize and stop; for you alone."},
	{OPT_FLAG(struct run_line, run.machine.exit_port), .name = "exit-port",
	 .help = "Let the guest end the run by writing a number to port 0xf4; exit code 160 plus "
		 "the number, 255 at most."},
	{OPT_TEXT(struct run_line, user), .name = "user", .arg = "USER",
	 .help = "Become USER (a name or number, with ':GID' another group) once everything is "
		 "open, before the guest runs; for root."},
	{OPT_CHOICE(struct run_line, sandbox), .name = "sandbox", .arg = "WORD",
	 .choices = cli_sandbox_names,
	 .help = "on: give up what the run does not need, as far as the host can take it away; "
		 "strict: refuse to run where it cannot; off, for debugging; default on."},
	RUN_ROWS_OF_OUTPUT(struct run_line),
	{OPT_FLAG(struct run_line, lab), .name = "lab",
	 .help = "Run it in the lab, a Linux with KVM in software emulation: slow, and works on "
		 "any machine. Without --lab and --local that is done where the KVM here cannot "
		 "run it."},
	{OPT_FLAG(struct run_line, local), .name = "local",
	 .help = "Run it on the KVM here, whatever that can do."},
	{.name = NULL},
};

const struct opts run_table = {
	.verb = "run",
	.about = "Boots a kernel in a virtual machine whose memory asyncpf serves. The console is\n"
		 "the terminal; Ctrl-A x ends it. Exit code: 0 the guest powered off, 1 it or the\n"
		 "host failed, 3 it could not start, 4 the guest reset the machine, 5 Ctrl-A x or\n"
		 "'asyncpf stop' ended it, 6 it did what the sandbox forbids.",
	.rows = rows,
};

/* A word behind a disk's name, and which of its properties it sets: one word for each. */
static const struct disk_word {
	const char *text; /* its end, or what stands before a number */
	enum disk_property {
		DISK_ACCESS,
		DISK_FORMAT,
		DISK_WERROR,
		DISK_BW,
		DISK_IOPS,
		DISK_PROPERTIES
	} property;
	bool value;
	int (*number)(const char *text, uint64_t *ret_value); /* NULL: there is none */
} disk_words[] = {
	{",ro", DISK_ACCESS, true, NULL},
	{",rw", DISK_ACCESS, false, NULL},
	{",raw", DISK_FORMAT, true, NULL},
	{",werror=report", DISK_WERROR, true, NULL},
	{",werror=pause", DISK_WERROR, false, NULL},
	{",bw=", DISK_BW, false, opts_size},
	{",iops=", DISK_IOPS, false, opts_number},
};

/* Where it begins is *ret_at. NULL: the name ends in none. */
static const struct disk_word *last_word(char *text, char **ret_at)
{
	char *at = strrchr(text, ',');

	if (!at || at == text)
		return NULL;
	*ret_at = at;
	for (size_t i = 0; i < ARRAY_LEN(disk_words); i++) {
		const struct disk_word *w = &disk_words[i];

		if (w->number ? strncmp(at, w->text, strlen(w->text)) == 0
			      : strcmp(at, w->text) == 0)
			return w;
	}
	return NULL;
}

/* What is spoken of is `option` and what was given to it. */
static int take_rate(const char *option, const char *given, const char *word,
		     int (*number)(const char *, uint64_t *), uint64_t *ret, struct err *e)
{
	if (number(word, ret) < 0 || *ret == 0)
		return err_set(e, -EINVAL, "bad value: %s %.100s: '%.20s' is no rate; give %s per "
			       "second, above 0, or leave it out", option, given, word,
			       number == opts_size ? "bytes (64M)" : "a number");
	return 0;
}

/* What stands behind a comma is no part of a name, where only what is before it is one. */
static int check_disk_words(const char *text, struct err *e)
{
	static const char *const words[] = {"ro", "rw", "raw", "werror=report", "werror=pause",
					    "bw=", "iops=", NULL};
	const char *comma = strchr(text + 1, ',');
	const char *meant;
	char name[PATH_MAX];

	if (!comma || access(text, F_OK) == 0 || (size_t)(comma - text) >= sizeof(name))
		return 0;
	snprintf(name, sizeof(name), "%.*s", (int)(comma - text), text);
	if (access(name, F_OK) < 0)
		return 0;
	meant = opts_nearest(comma + 1, words);
	if (meant && strcmp(meant, comma + 1) != 0)
		return err_set(e, -EINVAL, "bad value: --disk %.100s: '%.40s' is no word for a "
			       "disk; did you mean '%s'?", text, comma + 1, meant);
	return err_set(e, -EINVAL, "bad value: --disk %.100s: '%.40s' is no word for a disk, or "
		       "given twice; see 'asyncpf run --help'", text, comma + 1);
}

/* A name that ends in such a word itself can be given with one of the kind behind it. */
static int take_disk(char *text, struct machine_disk *d, struct err *e)
{
	bool seen[DISK_PROPERTIES] = {false}, value[DISK_PROPERTIES] = {false};
	uint64_t number[DISK_PROPERTIES] = {0};
	const struct disk_word *w;
	char *at;

	while ((w = last_word(text, &at)) && !seen[w->property]) {
		if (w->number && take_rate("--disk", text, at + strlen(w->text), w->number,
					   &number[w->property], e) < 0)
			return e->code;
		seen[w->property] = true;
		value[w->property] = w->value;
		*at = '\0';
	}
	*d = (struct machine_disk){
		.path = text,
		.read_only = value[DISK_ACCESS],
		.raw = value[DISK_FORMAT],
		.report = value[DISK_WERROR],
		.bytes_per_s = number[DISK_BW],
		.requests_per_s = number[DISK_IOPS],
	};
	return check_disk_words(text, e);
}

static int take_disks(struct run_line *p, struct err *e)
{
	struct machine_cfg *m = &p->run.machine;
	int rc = 0;

	for (unsigned i = 0; i < p->disks.count && rc == 0; i++)
		/* The list points into argv, whose strings are the program's to change. */
		rc = take_disk((char *)(uintptr_t)p->disks.text[i], &m->disks[m->disks_count++], e);
	return rc;
}

static int take_nets(struct run_line *p, struct err *e)
{
	struct machine_cfg *m = &p->run.machine;
	int rc = 0;

	for (unsigned i = 0; i < p->nets.count && rc == 0; i++)
		rc = run_net_parse(p->nets.text[i], p->net_words[i], &m->nets[m->nets_count++],
				   e);
	for (unsigned i = 0; rc == 0 && i < m->nets_count; i++)
		for (unsigned k = 0; k < i; k++)
			if (m->nets[i].has_mac && m->nets[k].has_mac &&
			    memcmp(m->nets[i].mac, m->nets[k].mac, NET_MAC_BYTES) == 0)
				return err_set(e, -EINVAL, "bad value: --net %.100s: another card "
					       "has its hardware address; give it one of its own",
					       p->nets.text[i]);
	if (rc == 0 && m->disks_count + m->nets_count >= MACHINE_DEVICES_MAX)
		return err_set(e, -EINVAL, "bad value: --net: %u disks and %u network cards are "
			       "more than %u together; leave some out", m->disks_count,
			       m->nets_count, MACHINE_DEVICES_MAX - 1);
	return rc;
}

static int take_rng(struct run_line *p, struct err *e)
{
	if (!p->rng)
		return 0;
	if (strncmp(p->rng, "bw=", 3) != 0)
		return err_set(e, -EINVAL, "bad value: --rng %.60s: there is no such word; write "
			       "bw=SIZE, as in bw=64K", p->rng);
	return take_rate("--rng", p->rng, p->rng + 3, opts_size,
			 &p->run.machine.rng_bytes_per_s, e);
}

static int check_name(const char *name, struct err *e)
{
	static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				   "-_.:";

	if (!name || (strspn(name, good) == strlen(name) && strlen(name) <= CONTROL_NAME_MAX))
		return 0;
	return err_set(e, -EINVAL, "bad value: --name %.80s: not at most %u letters, digits and "
		       "-_.: ; choose another", name, CONTROL_NAME_MAX);
}

int run_vsock_parse(const char *words, struct machine_cfg *m, struct err *e)
{
	/* It points into argv, whose strings are the program's to change. */
	char *text = (char *)(uintptr_t)words, *at;
	uint64_t cid = m->vsock.cid ? m->vsock.cid : VSOCK_CID_MIN;

	if (!text)
		return 0;
	if (strncmp(text, "uds=", 4) != 0 || text[4] == '\0' || text[4] == ',')
		return err_set(e, -EINVAL, "bad value: --vsock %.60s: no path; write uds=PATH or "
			       "uds=PATH,cid=N", text);
	at = strrchr(text, ',');
	if (at && strncmp(at, ",cid=", 5) == 0) {
		if (opts_number(at + 5, &cid) < 0 || cid < VSOCK_CID_MIN || cid > VSOCK_CID_MAX)
			return err_set(e, -EINVAL, "bad value: --vsock %.60s: '%.20s' is no "
				       "guest's address; give a number from %u to %u", text,
				       at + 5, VSOCK_CID_MIN, VSOCK_CID_MAX);
		*at = '\0';
		at = strrchr(text, ',');
		if (at && strncmp(at, ",cid=", 5) == 0)
			return err_set(e, -EINVAL, "bad value: --vsock %.60s: cid is given twice; "
				       "leave one out", text);
	} else if (at && !strchr(at, '/')) {
		return err_set(e, -EINVAL, "bad value: --vsock %.60s: '%.40s' is no word for it; "
			       "write uds=PATH or uds=PATH,cid=N, the latter also where a name "
			       "has a comma", text, at + 1);
	}
	m->vsock.path = text + 4;
	m->vsock.cid = (uint32_t)cid;
	return 0;
}

int run_opts_check(struct run_opts *o, const char *user, struct err *e)
{
	const struct apf_config *a = &o->machine.apf;

	if (a->resident_max && !a->swap)
		return err_set(e, -EINVAL, "bad value: --resident-max: cold memory needs a place; "
			       "name a file with --swap");
	if (user && o->sandbox == CLI_SANDBOX_OFF)
		return err_set(e, -EINVAL, CLI_USER_NEEDS_SANDBOX);
	if (json_file_is_stdout(o->trace))
		return err_set(e, -EINVAL, "bad value: --trace -: standard output has what the "
			       "guest prints; give --trace a file");
	return user ? sandbox_user_parse(user, &o->user, e) : 0;
}

static int check(struct run_line *p, struct err *e)
{
	struct machine_cfg *m = &p->run.machine;

	if (check_name(p->run.name, e) < 0)
		return e->code;

	if (!m->kernel)
		return err_set(e, -EINVAL, "missing option: --kernel: there is nothing to boot; "
			       "see 'asyncpf run --help'");
	if (m->memory_bytes % MACHINE_MEMORY_UNIT)
		return err_set(e, -EINVAL, "bad value: --memory %s: not a multiple of 2M; use %s",
			       SIZE_WORD(m->memory_bytes),
			       SIZE_WORD(align_up(m->memory_bytes, MACHINE_MEMORY_UNIT)));
	if (p->balloon == MACHINE_BALLOON_FOLLOW && !m->apf.resident_max)
		return err_set(e, -EINVAL, "bad value: --balloon follow: there is nothing to "
			       "follow; give --resident-max and --swap, or use --balloon on");
	if (m->apf.swap_wrap && !m->apf.swap)
		return err_set(e, -EINVAL, "bad value: --swap-wrap %.60s: there is no swap file; "
			       "name one with --swap", m->apf.swap_wrap);
	if (p->abi != ABI_NOT_GIVEN && p->faults != APF_FAULTS_USER)
		return err_set(e, -EINVAL, "bad value: --abi %s: --faults %s speaks no protocol of "
			       "ours; leave --abi out or use --faults user", run_abi_names[p->abi],
			       run_faults_names[p->faults]);
	if (p->lab && p->vsock)
		return err_set(e, -EINVAL, "conflicting options: --vsock and --lab: the lab hands "
			       "out no sockets but the control socket's; leave one out");
	if (p->lab && p->local)
		return err_set(e, -EINVAL, "conflicting options: --lab and --local: it runs in one "
			       "place; leave one out");
	p->run.sandbox = (enum cli_sandbox)p->sandbox;
	return run_opts_check(&p->run, p->user, e);
}

static int run_here_or_there(const struct run_line *p)
{
	struct err e = {0};
	char why[160];

	if (run_files_check(&p->run, NULL, &e) < 0)
		return cli_refused(&e);
	if (p->lab)
		return run_lab_main(p, NULL);
	if (p->local || !run_lab_needed(p, why, sizeof(why)))
		return run_main(&p->run);
	if (p->vsock) {
		err_set(&e, -EOPNOTSUPP, "--vsock: this would have to run in the lab, which hands "
			"out no such socket (%.60s)", why);
		return cli_refused(&e);
	}
	return run_lab_main(p, why);
}

int cmd_run(int argc, char **argv)
{
	struct run_line p;
	struct machine_cfg *m = &p.run.machine;
	struct err e = {0};
	int operand;
	int r;

	run_line_init(&p);
	r = cli_begin(&run_table, argc, argv, &p, &operand);
	if (r >= 0)
		return r;
	if (check(&p, &e) < 0 || take_disks(&p, &e) < 0 || take_nets(&p, &e) < 0 ||
	    take_rng(&p, &e) < 0 || run_vsock_parse(p.vsock, &p.run.machine, &e) < 0) {
		cli_error("%s", e.text);
		return CLI_USAGE;
	}
	m->cpus = p.cpus;
	for (unsigned i = 0; i < p.initrds.count; i++)
		m->modules[m->modules_count++] = p.initrds.text[i];
	m->balloon = (enum machine_balloon)p.balloon;
	m->apf.faults = (enum apf_faults)p.faults;
	m->apf.io = (enum apf_io)p.io;
	m->apf.abi = p.abi == ABI_NOT_GIVEN ? APF_ABI_INT : (enum apf_abi)p.abi;
	return run_here_or_there(&p);
}
