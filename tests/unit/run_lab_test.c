/* SPDX-License-Identifier: Apache-2.0 */
/* cli/run/run_lab.c, words.c and opts_words(): what `asyncpf run` becomes in the lab. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cli/cli.h"
#include "cli/run/run.h"

#define WORDS_MAX 64

static struct run_line seen; /* what the lab was asked for last */

int run_main(const struct run_opts *o)
{
	(void)o;
	fail_msg("not in the lab");
	return CLI_FAILED;
}

bool run_lab_needed(const struct run_line *l, char *ret_why, size_t why_bytes)
{
	(void)l;
	(void)ret_why;
	(void)why_bytes;
	return false;
}

static struct words words;

int run_lab_main(const struct run_line *l, const char *why)
{
	struct run_lab_host host = {
		.self = "/bin/asyncpf", .tool = "/lab", .file_bytes = 64 << 20};

	host.swap_is_device = l->run.machine.apf.swap && strstr(l->run.machine.apf.swap, "/dev/");
	assert_null(why);
	seen = *l;
	run_lab_words(l, &host, &words);
	assert_int_equal(words.err, 0);
	return CLI_OK;
}

/* "--lab --kernel=K OPTIONS", whose words are separated by spaces. */
static void convert(const char *options)
{
	static char line[512]; /* `seen` points into it */
	char *argv[WORDS_MAX + 1], *rest = line;
	int argc = 0;

	words_free(&words);
	snprintf(line, sizeof(line), "run --lab --kernel=/k/bzImage %s", options);
	while (argc < WORDS_MAX && (argv[argc] = strsep(&rest, " ")) != NULL)
		if (*argv[argc])
			argc++;
	argv[argc] = NULL;
	assert_int_equal(cmd_run(argc, argv), CLI_OK);
}

static size_t position(const char *word)
{
	for (size_t i = 0; i < words.count; i++)
		if (strcmp(words.list[i], word) == 0)
			return i;
	return SIZE_MAX;
}

/* `word` is there once, for tools/lab or for the asyncpf in the lab. */
static void expect(const char *word, bool in_lab)
{
	size_t at = position(word), split = position("--");

	if (at == SIZE_MAX)
		fail_msg("no word %s", word);
	assert_int_equal(at > split, in_lab);
}

static void expect_none(const char *start)
{
	for (size_t i = 0; i < words.count; i++)
		if (strncmp(words.list[i], start, strlen(start)) == 0)
			fail_msg("%s", words.list[i]);
}

static void nothing_but_a_kernel(void **state)
{
	static const char *const all[] = {
		"/lab", "run", "--timeout=0", "--stdin", "--memory=1168",
		"--file=/bin/asyncpf:asyncpf", "--file=/k/bzImage:kernel", "--", "./asyncpf", "run",
		"--kernel=kernel", "--local"};

	(void)state;
	convert("");
	assert_int_equal(words.count, ARRAY_LEN(all));
	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		assert_string_equal(words.list[i], all[i]);
	assert_null(words.list[words.count]);
}

static void files_get_the_names_they_have_there(void **state)
{
	(void)state;
	convert("--initrd a --initrd b:c --disk x --disk y,ro --disk z,ro,rw --json out/j "
		"--trace out/t "
		"--control s --disk q,raw --disk w,werror=report "
		"--disk v,iops=7,bw=2M,ro --rng bw=5K --io threads");
	expect("--disk=q,rw", false);
	expect("--disk=w,rw", false);
	expect("--disk=/dev/vdd,rw,raw", true);
	expect("--disk=/dev/vde,rw,werror=report", true);
	expect("--disk=v,ro", false);
	expect("--disk=/dev/vdf,ro,bw=2097152,iops=7", true);
	expect("--rng=bw=5K", true);
	expect("--io=threads", true);
	expect("--file=a:initrd0", false);
	expect("--file=b:c:initrd1", false);
	expect("--initrd=initrd0", true);
	expect("--initrd=initrd1", true);
	expect("--disk=x,rw", false);
	expect("--disk=y,ro", false);
	expect("--disk=z,ro,rw", false);
	expect("--disk=/dev/vda,rw", true);
	expect("--disk=/dev/vdb,ro", true);
	expect("--disk=/dev/vdc,rw", true);
	expect("--get=json:out/j", false);
	expect("--json=json", true);
	expect("--get=trace:out/t", false);
	expect("--trace=trace", true);
	expect("--socket=s:/run/control", false);
	expect("--control=/run/control", true);
}

static void a_swap_file_is_made_there_a_device_is_carried_in(void **state)
{
	(void)state;
	convert("--resident-max 64M --swap /home/swap --swap-wrap delay?ms=20");
	expect("--resident-max=64M", true);
	expect("--swap=/tmp/swap", true);
	expect("--swap-wrap=delay?ms=20", true);
	expect("--memory=1680", false); /* 512 more */
	convert("--disk x --swap /dev/loop7");
	expect("--disk=/dev/loop7,rw", false);
	expect("--swap=/dev/vdb", true);
	expect("--memory=1168", false);
}

static void what_names_no_file_stays(void **state)
{
	(void)state;
	convert("--json -");
	expect("--json=-", true);
	expect_none("--get"); /* standard output is the lab's, too */
	convert("--cpus 9 --memory 2G --faults user --abi pf2 --cmdline= --stats --quiet");
	expect("--cpus=9", true);
	expect("--memory=2G", true);
	expect("--abi=pf2", true);
	expect("--cmdline=", true);
	expect("--stats", true);
	expect("--quiet", true);
	expect_none("--faults"); /* the default */
	expect_none("--user");
	convert("--sandbox strict --user root:7");
	expect("--sandbox=strict", true);
	expect("--user=0:7", true); /* there are no names there */
	expect_none("--lab");
}

/* Every option of the table survives: the words parse to the same struct again. */
static void words_are_the_inverse_of_parsing(void **state)
{
	struct run_line again, defaults;
	char *argv[WORDS_MAX + 1];
	struct words w = {0};
	struct err e;
	int operand;

	(void)state;
	run_line_init(&again);
	run_line_init(&defaults);
	convert("--cpus 16 --memory 64M --faults stall --cmdline a=b --stats --initrd i --disk d");
	words_add(&w, "run");
	opts_words(&run_table, &seen, &defaults, &w);
	assert_true(w.count < WORDS_MAX);
	memcpy(argv, w.list, (w.count + 1) * sizeof(*argv));
	assert_int_equal(opts_parse(&run_table, (int)w.count, argv, &again, &operand, &e),
			 OPTS_RUN);
	assert_int_equal(again.cpus, 16);
	assert_true(again.run.machine.memory_bytes == 64 << 20);
	assert_int_equal(again.faults, APF_FAULTS_STALL);
	assert_string_equal(again.run.machine.cmdline, "a=b");
	assert_true(again.run.stats && again.lab && !again.run.quiet);
	assert_int_equal(again.initrds.count, 1);
	assert_string_equal(again.initrds.text[0], "i");
	assert_string_equal(again.disks.text[0], "d");
	words_free(&w);
}

static void the_lab_is_large_enough(void **state)
{
	(void)state;
	convert("--memory 8G");
	/* 8192 for the guest, 256 for tables, twice 64 for files, 512 */
	expect("--memory=9088", false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_but_a_kernel),
		cmocka_unit_test(files_get_the_names_they_have_there),
		cmocka_unit_test(a_swap_file_is_made_there_a_device_is_carried_in),
		cmocka_unit_test(what_names_no_file_stays),
		cmocka_unit_test(words_are_the_inverse_of_parsing),
		cmocka_unit_test(the_lab_is_large_enough),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	words_free(&words);
	return failed;
}
