/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asyncpf image pack|unpack|verify|info`: options and what is said; the work is src/image.
 * Test: tests/integration/image_test.py.
 */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/size.h"
#include "cli/cli.h"
#include "cli/file_roles.h"
#include "cli/json/json.h"
#include "cli/opts.h"
#include "cli/progress.h"
#include "cli/stop_signals.h"
#include "image/image.h"
#include "image/pipe.h"

#define ERRORS_SHOWN 10

/* 0, NULL or false: not given. */
struct image_opts {
	uint32_t threads, level, errors;
	uint64_t frame_bytes;
	unsigned format;
	const char *block, *manifest;
	bool force, quiet, json;
};

/* By enum img_format. */
static const char *const formats[] = {"auto", "flat", "firecracker", "cloud-hypervisor", "qemu",
				      NULL};

static const struct opt rows[] = {
	{OPT_U32(struct image_opts, threads), .name = "threads", .arg = "N", .min = 1,
	 .max = PIPE_THREADS_MAX,
	 .help = "pack, unpack, verify: threads (one for each CPU that may be used)."},
	{OPT_TEXT(struct image_opts, manifest), .name = "manifest", .arg = "FILE",
	 .help = "pack: write a hash of each frame there. unpack, verify: check them."},
	{OPT_FLAG(struct image_opts, force), .name = "force",
	 .help = "pack, unpack: replace files that exist."},
	{OPT_FLAG(struct image_opts, quiet), .name = "quiet",
	 .help = "pack, unpack, verify: show neither progress nor result."},
	{OPT_U32(struct image_opts, level), .name = "level", .arg = "N", .min = 1,
	 .max = IMG_LEVEL_MAX, .help = "pack: of compression, 1 is fast, 22 is slow and small "
"(3)."},
	{OPT_SIZE(struct image_opts, frame_bytes), .name = "frame-bytes", .arg = "SIZE",
	 .min = IMG_FRAME_BYTES_MIN, .max = IMG_FRAME_BYTES_MAX,
	 .help = "pack: content of a frame, a power of two (64K). All of it is read and "
		 "decompressed for a byte of it."},
	{OPT_CHOICE(struct image_opts, format), .name = "format", .arg = "WORD", .choices = formats,
	 .help = "pack: what IN is: auto, flat, firecracker, cloud-hypervisor or qemu (auto: by "
		 "its "
		 "content)."},
	{OPT_TEXT(struct image_opts, block), .name = "block", .arg = "NAME",
	 .help = "pack: the RAM block of a migration file of QEMU's (the largest)."},
	{OPT_U32(struct image_opts, errors), .name = "errors", .arg = "N", .min = 1,
	 .max = UINT32_MAX, .help = "verify: show so many broken frames (10)."},
	{OPT_FLAG(struct image_opts, json), .name = "json", .help = "info: show it as JSON."},
	{.name = NULL},
};

static const struct opts image_table = {
	.verb = "image",
	.about = "Guest memory in zstd frames with a seek table, as the page source zst: reads "
		 "it.\n\n"
		 "  pack IN OUT     compress a memory file: a flat one, Firecracker's, Cloud\n"
		 "                  Hypervisor's memory-ranges, QEMU's with mapped-ram; '-': "
		 "stdin\n"
		 "  unpack IN OUT   the flat file again, sparse where it is zero\n"
		 "  verify FILE     decompress and check every frame\n"
		 "  info FILE       sizes and numbers\n\n"
		 "An output appears whole or not at all. Exit code 1: it failed, or a frame is\n"
		 "broken.",
	.operands = "pack|unpack IN OUT | verify|info FILE",
	.operands_min = 1,
	.operands_max = 3,
	.rows = rows,
};

/* What one call does, from its beginning to its end. */
struct image_job {
	struct image_opts o;
	const char *in, *out; /* or FILE */
	struct stop_signals signals;
	struct progress progress;
	struct img_watch watch;
};

static unsigned threads_of(const struct image_opts *o)
{
	cpu_set_t cpus;

	if (o->threads > 0)
		return o->threads;
	if (sched_getaffinity(0, sizeof(cpus), &cpus) < 0)
		return 1;
	return (unsigned)min_u64((uint64_t)CPU_COUNT(&cpus), PIPE_THREADS_MAX);
}

/* From here on a signal ends it in order. 0, or -Exxx. */
static int begin_watch(struct image_job *j, const char *what, struct err *e)
{
	int rc = stop_signals_start(&j->signals, e);

	if (rc < 0)
		return rc;
	j->progress.what = what;
	j->watch.stop_fd = j->signals.fd;
	j->watch.ctx = &j->progress;
	if (!j->o.quiet && progress_wanted())
		j->watch.progress = progress_show;
	return 0;
}

/* rc: of the work. The exit code; does not return where a signal ended it. */
static int end_watch(struct image_job *j, int64_t rc, const struct err *e)
{
	progress_end(&j->progress);
	stop_signals_end(&j->signals);
	if (rc == -ECANCELED)
		stop_signals_die(&j->signals);
	if (rc < 0)
		return j->watch.begun ? cli_failed(e) : cli_refused(e);
	return CLI_OK;
}

/*
 * Before anything is opened. An output is renamed into place, so that it destroys nobody's data
 * before it is whole; but then what bears its name is gone.
 */
static int check_files(const struct image_job *j, bool makes_manifest, struct err *e)
{
	struct file_roles f = {.count = 0};

	file_roles_add(&f, "IN", strcmp(j->in, "-") ? j->in : NULL, false);
	file_roles_add(&f, "OUT", j->out, true);
	file_roles_add(&f, "manifest", j->o.manifest, makes_manifest);
	return file_roles_check(&f, e);
}

/* ---- pack ---- */

static int open_outputs(const struct image_job *j, mode_t mode, struct img_out *out,
			struct img_out *manifest, struct err *e)
{
	int rc = img_out_open(out, j->out, mode, j->o.force, e);

	if (rc == 0 && j->o.manifest)
		rc = img_out_open(manifest, j->o.manifest, mode, j->o.force, e);
	if (rc < 0)
		img_out_drop(out);
	return rc;
}

static void say_packed(const struct image_job *j, const struct img_in *in,
		       const struct img_packed *p)
{
	if (j->o.quiet)
		return;
	if (in->block)
		printf("RAM block %s\n", in->block);
	printf("%s in %u frames, %u of them zero, packed to %s (%.2f : 1)\n", SIZE_TEXT(p->bytes),
	       p->frames, p->zero_frames, SIZE_TEXT(p->packed_bytes),
	       (double)p->bytes / (double)p->packed_bytes);
}

static int pack_opened(struct image_job *j, struct img_in *in)
{
	const struct img_pack_opts opts = {
		.level = j->o.level ? (int)j->o.level : IMG_LEVEL,
		.frame_bytes = j->o.frame_bytes ? (uint32_t)j->o.frame_bytes : IMG_FRAME_BYTES,
		.threads = threads_of(&j->o),
	};
	/* Whoever could read the memory may read the image. */
	mode_t mode = S_ISREG(in->begun.st_mode) ? in->begun.st_mode : 0600;
	struct img_out out = {.fd = -1}, manifest = {.fd = -1};
	struct img_packed packed;
	struct err e = {0};
	int rc = begin_watch(j, "packing", &e);

	if (rc == 0)
		rc = open_outputs(j, mode, &out, &manifest, &e);
	if (rc < 0) {
		stop_signals_end(&j->signals);
		return cli_refused(&e);
	}
	rc = img_pack(in, &out, &manifest, &opts, &j->watch, &packed, &e);
	rc = end_watch(j, rc, &e);
	if (rc == CLI_OK)
		say_packed(j, in, &packed);
	return rc;
}

static int image_pack(struct image_job *j)
{
	struct img_in in;
	struct err e = {0};
	int r;

	if (j->o.frame_bytes && !is_pow2(j->o.frame_bytes)) {
		cli_error("bad value: --frame-bytes %" PRIu64 ": no power of two; try %s",
			  j->o.frame_bytes, SIZE_WORD(IMG_FRAME_BYTES));
		return CLI_USAGE;
	}
	if (check_files(j, true, &e) < 0)
		return cli_refused(&e);
	/* Before signals are blocked: opening may wait, for a FIFO's other end. */
	if (img_in_open(&in, j->in, (enum img_format)j->o.format, j->o.block, &e) < 0)
		return cli_refused(&e);
	r = pack_opened(j, &in);
	img_in_close(&in);
	return r;
}

/* ---- unpack ---- */

static int image_unpack(struct image_job *j)
{
	struct img_out out = {.fd = -1};
	struct img_file f;
	struct err e = {0};
	int rc = check_files(j, false, &e);

	if (rc == 0)
		rc = img_file_open(&f, j->in, j->o.manifest, &e);
	if (rc < 0)
		return cli_refused(&e);
	rc = begin_watch(j, "unpacking", &e);
	if (rc == 0)
		rc = img_out_open(&out, j->out, f.mode, j->o.force, &e);
	if (rc < 0) {
		stop_signals_end(&j->signals);
		img_file_close(&f);
		return cli_refused(&e);
	}
	rc = img_unpack(&f, &out, threads_of(&j->o), &j->watch, &e);
	rc = end_watch(j, rc, &e);
	if (rc == CLI_OK && !j->o.quiet)
		printf("%s of %u "
		       "frames\n", SIZE_TEXT(f.table.plain[f.table.frames]), f.table.frames);
	img_file_close(&f);
	return rc;
}

/* ---- verify ---- */

struct teller {
	struct image_job *job;
	uint32_t told, max;
};

/* By a thread of the pipeline; the line of progress comes back by itself. */
static void tell(void *ctx, const struct img_broken *b)
{
	struct teller *t = ctx;

	if (t->told++ >= t->max)
		return;
	if (t->job->watch.progress)
		fputs("\r\033[K", stderr);
	printf("frame %u: file bytes %" PRIu64 " to %" PRIu64 ", content bytes %" PRIu64
	       " to %" PRIu64 ": %s\n", b->frame, b->packed_from, b->packed_to - 1, b->plain_from,
	       b->plain_to - 1, b->why);
	(void)fflush(stdout);
}

static int verdict(const struct image_job *j, const struct img_file *f, int64_t broken)
{
	if (broken > 0)
		return cli_error("%s: %" PRId64 " of %u frames are broken; use another copy of it",
				 j->in, broken, f->table.frames);
	if (!j->o.quiet)
		printf("%s in %u frames, all as they should be%s\n",
		       SIZE_TEXT(f->table.plain[f->table.frames]), f->table.frames,
		       f->hashes ? ", by the manifest"
		       : f->table.sums ? ", by their checksums"
		       : ", as far as they have checksums themselves");
	return CLI_OK;
}

static int image_verify(struct image_job *j)
{
	struct teller teller = {.job = j, .max = j->o.errors ? j->o.errors : ERRORS_SHOWN};
	struct img_file f;
	struct err e = {0};
	int rc = img_file_open(&f, j->in, j->o.manifest, &e);
	int64_t broken;

	/* What is no image was begun to be verified, and is none. */
	if (rc < 0)
		return rc == -EBADMSG ? cli_failed(&e) : cli_refused(&e);
	rc = begin_watch(j, "verifying", &e);
	if (rc < 0) {
		img_file_close(&f);
		return cli_refused(&e);
	}
	broken = img_verify(&f, threads_of(&j->o), tell, &teller, &j->watch, &e);
	rc = end_watch(j, broken, &e);
	if (rc == CLI_OK)
		rc = verdict(j, &f, broken);
	img_file_close(&f);
	return rc;
}

/* ---- info ---- */

static void info_text(const struct img_info *i)
{
	printf("size           %s (%" PRIu64 " bytes)\n", SIZE_TEXT(i->bytes), i->bytes);
	printf("packed         %s (%" PRIu64 " bytes)\n", SIZE_TEXT(i->packed_bytes),
	       i->packed_bytes);
	printf("ratio          %.2f : 1\n", (double)i->bytes / (double)i->packed_bytes);
	printf("frames         %u\n", i->frames);
	printf("largest frame  %s\n", SIZE_WORD(i->largest));
	printf("checksums      %s\n", i->checksums ? "yes" : "no");
	if (i->zero_frames == IMG_COUNT_UNKNOWN)
		puts("zero frames    not known");
	else
		printf("zero frames    %u\n", i->zero_frames);
}

static void info_json(const struct img_info *i)
{
	struct json j;

	json_init(&j, stdout);
	json_object_open(&j, NULL);
	json_u64(&j, "bytes", i->bytes);
	json_u64(&j, "packed_bytes", i->packed_bytes);
	json_f64(&j, "ratio", (double)i->bytes / (double)i->packed_bytes);
	json_u64(&j, "frames", i->frames);
	json_u64(&j, "frame_bytes_max", i->largest);
	json_bool(&j, "checksums", i->checksums);
	if (i->zero_frames == IMG_COUNT_UNKNOWN)
		json_text(&j, "zero_frames", NULL);
	else
		json_u64(&j, "zero_frames", i->zero_frames);
	json_close(&j);
	(void)json_end(&j);
}

static int image_info(struct image_job *j)
{
	struct img_info info;
	struct img_file f;
	struct err e = {0};

	if (img_file_open(&f, j->in, NULL, &e) < 0)
		return cli_refused(&e);
	if (img_info(&f, &info, &e) < 0) {
		img_file_close(&f);
		return cli_refused(&e);
	}
	(j->o.json ? info_json : info_text)(&info);
	img_file_close(&f);
	return CLI_OK;
}

/* ---- which of them ---- */

enum { FOR_PACK = 1, FOR_UNPACK = 2, FOR_VERIFY = 4, FOR_INFO = 8 };

struct action {
	const char *name;
	int (*run)(struct image_job *j);
	int bit;
	int operands;
	const char *usage;
};

static const struct action actions[] = {
	{"pack", image_pack, FOR_PACK, 2, "IN OUT"},
	{"unpack", image_unpack, FOR_UNPACK, 2, "IN OUT"},
	{"verify", image_verify, FOR_VERIFY, 1, "FILE"},
	{"info", image_info, FOR_INFO, 1, "FILE"},
};

static int unknown_action(const char *word)
{
	static const char *const names[] = {"pack", "unpack", "verify", "info", NULL};
	const char *meant = opts_nearest(word, names);

	cli_error(meant ? "unknown action: %.60s: 'asyncpf image' has no such; did you mean '%s'?"
			: "unknown action: %.60s: 'asyncpf image' has no such; see 'asyncpf image "
			  "--help'", word, meant);
	return CLI_USAGE;
}

/* Whole or not at all, and from the end on: no pipe is. */
static int check_dashes(const struct action *a, const struct image_job *j)
{
	const char *what = a->operands == 2 && strcmp(j->out, "-") == 0 ? "OUT" :
		j->o.manifest && strcmp(j->o.manifest, "-") == 0 ? "--manifest" :
		a->bit != FOR_PACK && strcmp(j->in, "-") == 0 ? a->usage : NULL;

	if (!what)
		return CLI_OK;
	cli_error("bad value: -: 'asyncpf image %s' needs a file for %s, and takes '-' for IN of "
		  "'pack' alone; name a file", a->name, strcmp(what, "IN OUT") ? what : "IN");
	return CLI_USAGE;
}

/* An option that the action does not take. NULL: there is none. */
static const char *stray_option(const struct image_opts *o, const struct action *a)
{
	const struct {
		const char *name;
		bool given;
		int taken_by;
	} all[] = {
		{"threads", o->threads, FOR_PACK | FOR_UNPACK | FOR_VERIFY},
		{"manifest", o->manifest, FOR_PACK | FOR_UNPACK | FOR_VERIFY},
		{"force", o->force, FOR_PACK | FOR_UNPACK},
		{"quiet", o->quiet, FOR_PACK | FOR_UNPACK | FOR_VERIFY},
		{"level", o->level, FOR_PACK},
		{"frame-bytes", o->frame_bytes, FOR_PACK},
		{"format", o->format, FOR_PACK},
		{"block", o->block, FOR_PACK},
		{"errors", o->errors, FOR_VERIFY},
		{"json", o->json, FOR_INFO},
	};

	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		if (all[i].given && !(all[i].taken_by & a->bit))
			return all[i].name;
	return NULL;
}

static int run_action(const struct action *a, struct image_job *j, int count, char **operands)
{
	const char *stray = stray_option(&j->o, a);

	if (stray) {
		cli_error("unexpected option: --%s: 'asyncpf image %s' does not take it; see "
			  "'asyncpf "
			  "image --help'", stray, a->name);
		return CLI_USAGE;
	}
	if (count != a->operands) {
		cli_error("%s operand: 'asyncpf image %s' takes %s; see 'asyncpf image --help'",
			  count < a->operands ? "missing" : "unexpected", a->name, a->usage);
		return CLI_USAGE;
	}
	j->in = operands[0];
	j->out = operands[count - 1];
	return check_dashes(a, j) == CLI_OK ? a->run(j) : CLI_USAGE;
}

int cmd_image(int argc, char **argv)
{
	struct image_job j = {.signals.fd = -1};
	int operand;
	int r = cli_begin(&image_table, argc, argv, &j.o, &operand);

	if (r >= 0)
		return r;
	for (size_t i = 0; i < ARRAY_LEN(actions); i++)
		if (strcmp(argv[operand], actions[i].name) == 0)
			return run_action(&actions[i], &j, argc - operand - 1, argv + operand + 1);
	return unknown_action(argv[operand]);
}
