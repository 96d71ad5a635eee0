/* SPDX-License-Identifier: Apache-2.0 */
/* cli/run/cmd_run.c: defaults, disks, the protocol, what the option table cannot check. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cli/cli.h"
#include "cli/run/run.h"

static struct run_opts seen; /* what run_main was given last */
static char tap_names[MACHINE_NETS_MAX][32]; /* which it has no longer than that */
static bool was_called;

/* Not what is tested here: everything runs on the KVM of this host. */
bool run_lab_needed(const struct run_line *l, char *ret_why, size_t why_bytes)
{
	(void)l;
	(void)ret_why;
	(void)why_bytes;
	return false;
}

int run_lab_main(const struct run_line *l, const char *why)
{
	(void)l;
	fail_msg("in the lab: %s", why ? why : "asked for");
	return CLI_FAILED;
}

int run_main(const struct run_opts *o)
{
	seen = *o;
	was_called = true;
	for (unsigned i = 0; i < o->machine.nets_count; i++)
		snprintf(tap_names[i], sizeof(tap_names[i]), "%s",
			 o->machine.nets[i].tap ? o->machine.nets[i].tap : "");
	return CLI_OK;
}

/* Words behind `run --kernel k`, NULL at the end. */
static int run(char *const *words)
{
	static char verb[] = "run", option[] = "--kernel", kernel[] = "k";
	char *argv[40] = {verb, option, kernel};
	int argc = 3;

	for (; *words; words++)
		argv[argc++] = *words;
	was_called = false;
	return cmd_run(argc, argv);
}

#define RUN(...) run((char *const[]){__VA_ARGS__, NULL})
#define W(word) ((char[]){word})

static void expect_usage(char *const *words)
{
	assert_int_equal(run(words), CLI_USAGE);
	assert_false(was_called);
}

static void defaults(void **state)
{
	(void)state;
	assert_int_equal(run((char *const[]){NULL}), CLI_OK);
	assert_true(was_called);
	assert_string_equal(seen.machine.kernel, "k");
	assert_null(seen.machine.cmdline);
	assert_int_equal(seen.machine.memory_bytes, 512 << 20);
	assert_int_equal(seen.machine.cpus, 1);
	assert_int_equal(seen.machine.modules_count, 0);
	assert_int_equal(seen.machine.disks_count, 0);
	assert_int_equal(seen.machine.apf.faults, APF_FAULTS_USER);
	assert_int_equal(seen.machine.apf.abi, APF_ABI_INT);
	assert_int_equal(seen.machine.apf.size, sizeof(struct apf_config));
	assert_false(seen.stats || seen.quiet || seen.json);
}

static void disks(void **state)
{
	(void)state;
	static char words[][32] = {"a", "b,ro", "c,ro,rw", "d,x", ",ro", "e,werror=report,raw,ro",
				   "f,werror=report", "g,raw,raw,rw,werror=pause",
				   "h,werror=report,werror=pause", "i,ro,ro",
				   "j,bw=64M,iops=500", "k,iops=1,ro,bw=4096,raw",
				   "l,bw=1,bw=2T", "m,bw"};
	static const struct machine_disk want[] = {
		{"a", false, false, false, 0, 0},
		{"b", true, false, false, 0, 0},
		{"c,ro", false, false, false, 0, 0},
		{"d,x", false, false, false, 0, 0},
		{",ro", false, false, false, 0, 0},
		{"e", true, true, true, 0, 0},
		{"f", false, false, true, 0, 0},
		{"g,raw", false, true, false, 0, 0},
		{"h,werror=report", false, false, false, 0, 0},
		{"i,ro", true, false, false, 0, 0},
		{"j", false, false, false, 64 << 20, 500},
		{"k", true, true, false, 4096, 1},
		{"l,bw=1", false, false, false, 2ull << 40, 0},
		{"m,bw", false, false, false, 0, 0},
	};
	static char option[] = "--disk";
	char *argv[2 * ARRAY_LEN(words) + 1];

	for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
		argv[2 * i] = option;
		argv[2 * i + 1] = words[i];
	}
	argv[2 * ARRAY_LEN(words)] = NULL;
	assert_int_equal(run(argv), CLI_OK);
	assert_int_equal(seen.machine.disks_count, ARRAY_LEN(want));
	for (unsigned i = 0; i < ARRAY_LEN(want); i++) {
		assert_string_equal(seen.machine.disks[i].path, want[i].path);
		assert_int_equal(seen.machine.disks[i].read_only, want[i].read_only);
		assert_int_equal(seen.machine.disks[i].raw, want[i].raw);
		assert_int_equal(seen.machine.disks[i].report, want[i].report);
		assert_int_equal(seen.machine.disks[i].bytes_per_s, want[i].bytes_per_s);
		assert_int_equal(seen.machine.disks[i].requests_per_s, want[i].requests_per_s);
	}
}

static void modules(void **state)
{
	(void)state;
	assert_int_equal(RUN(W("--initrd"), W("a"), W("--initrd"), W("b")), CLI_OK);
	assert_int_equal(seen.machine.modules_count, 2);
	assert_string_equal(seen.machine.modules[0], "a");
	assert_string_equal(seen.machine.modules[1], "b");
}

static void ways(void **state)
{
	static const enum apf_faults faults[] = {APF_FAULTS_BLOCK, APF_FAULTS_STALL,
						 APF_FAULTS_KERNEL, APF_FAULTS_USER};
	static const enum apf_abi abis[] = {APF_ABI_OFF, APF_ABI_LEGACY, APF_ABI_PF2,
					    APF_ABI_PF2_STRICT, APF_ABI_INT};
	static char fault_words[][8] = {"block", "stall", "kernel", "user"};
	static char abi_words[][12] = {"off", "legacy", "pf2", "pf2-strict", "int"};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(faults); i++) {
		assert_int_equal(RUN(W("--faults"), fault_words[i]), CLI_OK);
		assert_int_equal(seen.machine.apf.faults, faults[i]);
	}
	for (unsigned i = 0; i < ARRAY_LEN(abis); i++) {
		assert_int_equal(RUN(W("--abi"), abi_words[i]), CLI_OK);
		assert_int_equal(seen.machine.apf.abi, abis[i]);
	}
}

/* 0 is not "no limit", nor is what cannot be read. */
static void rates(void **state)
{
	static char disks[][32] = {"a,bw=0", "a,iops=0", "a,bw=", "a,bw=x", "a,bw=-1", "a,iops=1K",
				   "a,iops=1.5", "a,bw=99999999999999999999", "a,bw=0,ro",
				   "a,iops=0,bw=1M"};
	static char rngs[][24] = {"bw=0", "bw=", "bw=M", "bw", "iops=3", "64K", "bw=1,bw=2"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(disks); i++)
		expect_usage((char *const[]){W("--disk"), disks[i], NULL});
	for (size_t i = 0; i < ARRAY_LEN(rngs); i++)
		expect_usage((char *const[]){W("--rng"), rngs[i], NULL});
	assert_int_equal(RUN(W("--rng"), W("bw=64K")), CLI_OK);
	assert_int_equal(seen.machine.rng_bytes_per_s, 65536);
	assert_int_equal(run((char *const[]){NULL}), CLI_OK);
	assert_int_equal(seen.machine.rng_bytes_per_s, 0); /* the machine's own */
}

static void networks(void **state)
{
	const struct machine_net *n = seen.machine.nets;

	(void)state;
	assert_int_equal(RUN(W("--net"), W("user"), W("--net"),
			     W("tap=t0,mac=02:00:0a:FF:00:01,bw=1M"), W("--net"),
			     W("user,fwd=tcp:8080:80,restrict,fwd=tcp:0.0.0.0:1:65535"), W("--net"),
			     W("user,host,fwd=udp:53:54")), CLI_OK);
	assert_int_equal(seen.machine.nets_count, 4);
	assert_null(n[0].tap);
	assert_false(n[0].restricted || n[0].host || n[0].has_mac || n[0].forwards_count);
	assert_string_equal(tap_names[1], "t0");
	assert_memory_equal(n[1].mac, "\x02\0\x0a\xff\0\x01", 6);
	assert_true(n[1].has_mac && n[1].bytes_per_s == 1 << 20);
	assert_true(n[2].restricted && n[2].forwards_count == 2);
	assert_true(n[2].forwards[0].host_addr == 0x7f000001 && !n[2].forwards[0].udp);
	assert_true(n[2].forwards[0].host_port == 8080 && n[2].forwards[0].guest_port == 80);
	assert_true(n[2].forwards[1].host_addr == 0 && n[2].forwards[1].host_port == 1 &&
		    n[2].forwards[1].guest_port == 65535);
	assert_true(n[3].host && n[3].forwards[0].udp);
}

/* As many ports as the text of the option says, and not one more. */
static void as_many_forwards_as_there_may_be(void **state)
{
	char text[RUN_NET_BYTES] = "user";
	size_t len = strlen(text);

	(void)state;
	for (unsigned i = 1; i <= NET_USER_FORWARDS_MAX + 1; i++) {
		len += (size_t)snprintf(text + len, sizeof(text) - len, ",fwd=tcp:%u:1", i);
		assert_true(len < sizeof(text));
		if (i == NET_USER_FORWARDS_MAX) {
			assert_int_equal(RUN(W("--net"), text), CLI_OK);
			assert_int_equal(seen.machine.nets[0].forwards_count, 16);
		}
	}
	expect_usage((char *const[]){W("--net"), text, NULL});
}

static void no_networks(void **state)
{
	static char words[][80] = {
		"none", "tap", "tap=", "tap=a/b", "tap=sixteen-letters!", "user,tap=x", "user,x",
		"tap=t,restrict", "tap=t,fwd=tcp:1:2", "user,host,restrict", "user,bw=0",
		"user,bw=",
		"user,mac=", "user,mac=02:00:00:00:00", "user,mac=02:00:00:00:00:01:02",
		"user,mac=03:00:00:00:00:01", "user,mac=02:00:00:00:00:g1",
		"user,mac=02-00-00-00-00-01", "user,mac=2:00:00:00:00:01",
		"user,mac=02:00:00:00:00:-1", "user,mac=00:00:00:00:00:00",
		"user,mac=02:00:00:00:00:01,mac=02:00:00:00:00:02", "user,bw=1M,bw=2M",
		"user,host,host", "user,restrict,restrict", "user,fwd=tcp:1:2,fwd=tcp:1:3",
		"user,fwd=", "user,fwd=tcp", "user,fwd=tcp:80", "user,fwd=tcp:0:80",
		"user,fwd=tcp:80:0", "user,fwd=tcp:65536:80", "user,fwd=sctp:1:2",
		"user,fwd=tcp:1.2.3:1:2", "user,fwd=tcp:1.2.3.4:1:2:3", "user,fwd=tcp:x:2",
		"user,fwd=udp:1:2", "user,restrict,fwd=udp:0.0.0.0:1:2",
	};
	static char disk[] = "--disk", file[] = "f", net[] = "--net", user[] = "user";
	char *many[2 * MACHINE_DISKS_MAX + 3];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		expect_usage((char *const[]){W("--net"), words[i], NULL});
	/* Together with the disks. */
	for (unsigned i = 0; i < MACHINE_DISKS_MAX; i++) {
		many[2 * i] = disk;
		many[2 * i + 1] = file;
	}
	many[2 * MACHINE_DISKS_MAX] = net;
	many[2 * MACHINE_DISKS_MAX + 1] = user;
	many[2 * MACHINE_DISKS_MAX + 2] = NULL;
	expect_usage(many);
}

static void balloons(void **state)
{
	(void)state;
	assert_int_equal(run((char *const[]){NULL}), CLI_OK);
	assert_int_equal(seen.machine.balloon, MACHINE_BALLOON_OFF);
	assert_int_equal(RUN(W("--balloon"), W("on")), CLI_OK);
	assert_int_equal(seen.machine.balloon, MACHINE_BALLOON_ON);
	expect_usage((char *const[]){W("--balloon"), W("follow"), NULL});
	assert_int_equal(RUN(W("--balloon"), W("follow"), W("--resident-max"), W("64M"),
			     W("--swap"), W("s")), CLI_OK);
	assert_int_equal(seen.machine.balloon, MACHINE_BALLOON_FOLLOW);
}

static void two_cards_of_one_address(void **state)
{
	static char net[] = "--net", first[] = "user,mac=02:00:00:00:00:01",
		    second[] = "tap=t,mac=02:00:00:00:00:01", other[] = "user,fwd=udp:9.9.9.9:1:2";

	(void)state;
	expect_usage((char *const[]){net, first, net, second, NULL});
	assert_int_equal(RUN(net, first, net, other, net, other), CLI_OK);
}

static void sockets(void **state)
{
	static char bad[][40] = {"", "v", "uds=", "uds=,cid=3", "uds=v,cid=2", "uds=v,cid=x",
				 "uds=v,cid=", "uds=v,cid=4294967295", "cid=3",
				 "uds=v,cdi=4", "uds=v,cid=4,cid=5", "uds=d,e/v,"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		expect_usage((char *const[]){W("--vsock"), bad[i], NULL});
	assert_int_equal(RUN(W("--vsock"), W("uds=v")), CLI_OK);
	assert_string_equal(seen.machine.vsock.path, "v");
	assert_int_equal(seen.machine.vsock.cid, 3);
	assert_int_equal(RUN(W("--vsock"), W("uds=a,b,cid=4294967294")), CLI_OK);
	assert_string_equal(seen.machine.vsock.path, "a,b");
	assert_int_equal(seen.machine.vsock.cid, 4294967294);
	expect_usage((char *const[]){W("--vsock"), W("uds=v"), W("--lab"), NULL});
}

static void file_ways(void **state)
{
	static char words[][8] = {"auto", "uring", "threads"};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
		assert_int_equal(RUN(W("--io"), words[i]), CLI_OK);
		assert_int_equal(seen.machine.apf.io, i);
	}
	assert_int_equal(run((char *const[]){NULL}), CLI_OK);
	assert_int_equal(seen.machine.apf.io, APF_IO_AUTO);
}

static void sandboxes(void **state)
{
	(void)state;
	assert_int_equal(RUN(W("--quiet")), CLI_OK);
	assert_int_equal(seen.sandbox, APF_SANDBOX_DEFAULT);
	assert_false(seen.user.given);
	assert_int_equal(RUN(W("--sandbox"), W("on")), CLI_OK);
	assert_int_equal(seen.sandbox, CLI_SANDBOX_ON);
	assert_int_equal(RUN(W("--sandbox"), W("strict"), W("--user"), W("12:34")), CLI_OK);
	assert_int_equal(seen.sandbox, CLI_SANDBOX_STRICT);
	assert_true(seen.user.given && seen.user.uid == 12 && seen.user.gid == 34);
	assert_int_equal(RUN(W("--sandbox"), W("off")), CLI_OK);
	assert_int_equal(seen.sandbox, CLI_SANDBOX_OFF);
	expect_usage((char *const[]){W("--sandbox"), W("off"), W("--user"), W("12:34"), NULL});
	expect_usage((char *const[]){W("--sandbox"), W("on"), W("--user"), W("12:x"), NULL});
}

static void an_empty_command_line(void **state)
{
	(void)state;
	assert_int_equal(RUN(W("--cmdline"), W("")), CLI_OK);
	assert_string_equal(seen.machine.cmdline, "");
}

static void what_the_table_cannot_check(void **state)
{
	char *without_kernel[] = {W("run"), NULL};

	(void)state;
	was_called = false;
	assert_int_equal(cmd_run(1, without_kernel), CLI_USAGE);
	assert_false(was_called);
	expect_usage((char *const[]){W("--memory"), W("3M"), NULL});
	expect_usage((char *const[]){W("--memory"), W("1M"), NULL});
	expect_usage((char *const[]){W("--memory"), W("65G"), NULL});
	expect_usage((char *const[]){W("--cpus"), W("17"), NULL});
	expect_usage((char *const[]){W("--faults"), W("stall"), W("--abi"), W("int"), NULL});
	expect_usage((char *const[]){W("--disk"), W(""), NULL});
	assert_int_equal(RUN(W("--memory"), W("64G"), W("--cpus"), W("16")), CLI_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(disks),
		cmocka_unit_test(modules),
		cmocka_unit_test(ways),
		cmocka_unit_test(rates),
		cmocka_unit_test(networks),
		cmocka_unit_test(as_many_forwards_as_there_may_be),
		cmocka_unit_test(no_networks),
		cmocka_unit_test(balloons),
		cmocka_unit_test(two_cards_of_one_address),
		cmocka_unit_test(sockets),
		cmocka_unit_test(file_ways),
		cmocka_unit_test(sandboxes),
		cmocka_unit_test(an_empty_command_line),
		cmocka_unit_test(what_the_table_cannot_check),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
