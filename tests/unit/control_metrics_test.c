/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli/control/control_metrics.c: names by Prometheus' conventions, values in its units, labels
 * escaped.
 * tests/error/metrics_test.py has its own parser, and promtool, look at the whole.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/control/control_metrics.h"

static const struct control_key *key(const struct control_key *k, const char *name)
{
	while (strcmp(k->name, name) != 0)
		k++;
	return k;
}

static void names(void **state)
{
	static const struct {
		const struct control_key *keys;
		const char *key, *part, *want;
	} all[] = {
		{control_status_keys, "faults_total", "", "asyncpf_faults_total"},
		{control_status_keys, "read_bytes", "", "asyncpf_read_bytes_total"},
		{control_status_keys, "resident_bytes", "", "asyncpf_resident_bytes"},
		{control_status_keys, "host_wait_ns", "", "asyncpf_host_wait_seconds_total"},
		{control_status_keys, "wait_max_ns", "", "asyncpf_wait_max_seconds"},
		{control_status_keys, "evicted", "", "asyncpf_evicted_blocks_total"},
		{control_vcpu_keys, "stalls", "vcpu_", "asyncpf_vcpu_stalls_total"},
		{control_vcpu_keys, "cpu_ns", "vcpu_", "asyncpf_vcpu_cpu_seconds_total"},
		{control_device_keys, "throttled_ns", "device_",
		 "asyncpf_device_throttled_seconds_total"},
		{control_source_keys, "read_ns", "pager_source_",
		 "asyncpf_pager_source_read_seconds_total"},
	};
	char name[METRIC_NAME_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		control_metric_name(key(all[i].keys, all[i].key), all[i].part, name);
		assert_string_equal(name, all[i].want);
	}
}

static void has(const char *text, const char *line)
{
	if (!strstr(text, line))
		fail_msg("no '%s' in:\n%s", line, text);
}

static void values(void **state)
{
	static const struct control_status s = {
		.name = "a\"b\\", .state = "paused", .why = "no room", .faults = "user",
		.uptime_ns = UINT64_MAX,
		.counters = {.host_wait_ns = 1000000007, .refaulted = 9, .reads = UINT64_MAX},
		.vcpu_count = 2, .vcpus = {{1, 2, 3, 4, 5, 6}, {.stalls = 77}},
		.device_count = 1, .devices = {{.name = "blk0", .throttled_ns = 1}},
		.served_count = 1, .served = {{.name = "fc.sock.9", .placed_bytes = 8}},
		.source_count = 2,
		.sources = {{.name = "b", .reads = 5, .shared_bytes = 3},
			    {.name = "a", .read_ns = 2000000001, .has_shared = 1,
			     .shared_bytes = 4096}}};
	char *out = NULL;
	size_t len;
	FILE *f = open_memstream(&out, &len);

	(void)state;
	control_show_metrics(&s, f);
	fclose(f);
	has(out, "\nasyncpf_host_wait_seconds_total{vm=\"a\\\"b\\\\\"} 1.000000007\n");
	has(out, "# HELP asyncpf_refaulted_blocks_total Of evicted: fetched again.\n"
		 "# TYPE asyncpf_refaulted_blocks_total counter\n"
		 "asyncpf_refaulted_blocks_total{vm=\"a\\\"b\\\\\"} 9\n");
	has(out, "\nasyncpf_reads_total{vm=\"a\\\"b\\\\\"} 18446744073709551615\n");
	has(out, "\nasyncpf_uptime_seconds{vm=\"a\\\"b\\\\\"} 18446744073.709551615\n");
	has(out, "\nasyncpf_state{vm=\"a\\\"b\\\\\",state=\"paused\"} 1\n");
	has(out, "\nasyncpf_state{vm=\"a\\\"b\\\\\",state=\"running\"} 0\n");
	has(out, "\nasyncpf_state{vm=\"a\\\"b\\\\\",state=\"ending\"} 0\n");
	has(out, "\nasyncpf_state{vm=\"a\\\"b\\\\\",state=\"serving\"} 0\n");
	has(out, "\nasyncpf_trouble{vm=\"a\\\"b\\\\\"} 1\n");
	has(out, "\nasyncpf_vcpu_stalls_total{vm=\"a\\\"b\\\\\",vcpu=\"1\"} 77\n");
	has(out, "\nasyncpf_device_throttled_seconds_total{vm=\"a\\\"b\\\\\",device=\"blk0\"} "
		 "0.000000001\n");
	has(out, "\nasyncpf_served_placed_bytes_total{vm=\"a\\\"b\\\\\",served=\"fc.sock.9\"} 8\n");
	has(out, "\nasyncpf_pager_source_reads_total{vm=\"a\\\"b\\\\\",source=\"b\"} 5\n"
		 "asyncpf_pager_source_reads_total{vm=\"a\\\"b\\\\\",source=\"a\"} 0\n");
	has(out, "\nasyncpf_pager_source_read_seconds_total{vm=\"a\\\"b\\\\\",source=\"a\"} "
		 "2.000000001\n");
	/* What is not known has no value. */
	has(out, " gauge\nasyncpf_pager_source_shared_bytes{vm=\"a\\\"b\\\\\",source=\"a\"} "
		 "4096\n");
	assert_null(strstr(out, "\nasyncpf_shared_bytes"));
	free(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),
		cmocka_unit_test(values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
