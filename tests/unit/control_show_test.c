/* SPDX-License-Identifier: Apache-2.0 */
/* cli/control/control_show.c: the whole text and the whole JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/control/control_show.h"

#define MIB (1ull << 20)

static const struct control_status busy = {
	.state = "paused",
	.why = "cannot write: a\"b: No space left on device",
	.note = "the guest is odd",
	.snapshot_running = 1,
	.snapshot_written_bytes = 96 * MIB,
	.snapshot_left_bytes = 32 * MIB,
	.snapshot_paused_ns = 5,
	.disk_errors = 7,
	.faults = "user",
	.abi = "int",
	.io = "threads",
	.name = "web-1",
	.version = "1.2.3",
	.protocol = 1,
	.pid = 42,
	.uptime_ns = 3723000 * NS_PER_MS,
	.vcpus_cpu_ns = 7000000001,
	.exits = 34,
	.has_shared = 1,
	.shared_bytes = 96 * MIB,
	.block_bytes = 4096,
	.counters = {
		.memory_bytes = 512 * MIB,
		.resident_bytes = 128 * MIB,
		.absent_bytes = 384 * MIB - 12288,
		.resident_max_bytes = 128 * MIB,
		.overhead_bytes = 1,
		.unmapped = 107, .unmapped_clean = 10, .unmapped_zero = 5,
		.rescued = 7, .evicted = 100,
		.refaulted = 60, .refaults_kernel_mode = 21, .read_ahead = 17,
		.swap_writes_in_flight = 4, .swap_write_errors = 1, .swapped_bytes = 40 * MIB,
		.reads_in_flight = 3, .reads = 80, .read_bytes = 327680,
		.read_errors = 2, .read_retries = 1, .read_timeouts = 4,
		.faults_total = 90, .graced = 6, .blocked = 9, .host_wait_ns = 12345678901,
		.missing_events = 50, .ready_events = 49, .wake_alls = 8,
		.stalls = 25, .stalls_kernel_mode = 11, .stalls_irqs_off = 12,
		.stalls_slot_busy = 13, .stalls_other = 14, .stall_kernel_mode_ns = 5120000,
		.stall_other_ns = 3000000000,
		.holds = 18, .hold_ns = 7654000, .hold_max_ns = 800999,
		.wait_p50_ns = 999999, .wait_p99_ns = 20125000, .wait_max_ns = 10000000000,
	},
	.vcpu_count = 2,
	.vcpus = {{30, 29, 5, 15, 7000000000, 33}, {20, 20, 3, 10, 1, 1}},
	.served_count = 1,
	.source_count = 2,
	.sources = {{"fc.sock.3", 1, 1250, 5 * MIB, 2, 1, 12500 * NS_PER_MS, 2000 * NS_PER_MS,
		     0, 0},
		    {"fc.sock.1", 0, 0, 0, 0, 0, 0, 0, 1, 48 * MIB}},
	.served = {{"fc.sock.9", 4711, 64 * MIB, 5 * MIB, MIB, 12345, 1}},
	.device_count = 2,
	.devices = {{"blk0", 1234, 5 * MIB, 4096, 2500 * NS_PER_MS, 12345678, 0},
		    {"rng", 7, 448, 0, 0, 70000, 0}},
};

static const char busy_text[] =
	"name      web-1\n"
	"state     paused: cannot write: a\"b: No space left on device\n"
	"note      the guest is odd\n"
	"faults    user, protocol int\n"
	"io        by threads\n"
	"uptime    1 h 02 min\n"
	"shared    96 MiB in the page cache, of the files memory comes from\n"
	"memory    512 MiB: resident 128 MiB (at most 128 MiB), absent 384.0 MiB\n"
	"blocks    of 4 KiB, of which\n"
	"unmapped  107, 10 of them unchanged, 5 all zeroes\n"
	"evicted   100, what was read ahead and not wanted among them\n"
	"returned  7 rescued, 60 fetched again;\n"
	"          21 for kernel mode, and 17 more read ahead\n"
	"swapped   40 MiB, 4 writes in flight, 1 errors\n"
	"fetched   80 reads, 320 KiB, 3 in flight;\n"
	"          2 errors, 1 retries, 4 timeouts\n"
	"touches   90 of absent memory: 50 events, 25 stalls,\n"
	"          6 in grace, 9 blocked\n"
	"waits     p50 999 us, p99 20.12 ms, max 10.00 s; vCPUs still for 12.35 s\n"
	"stalls    kernel mode 11, interrupts off 12,\n"
	"          slot busy 13, other 14\n"
	"          for 5.12 ms in kernel mode, 3.00 s else\n"
	"holds     18 to unmap, for 7.65 ms, the longest 800 us\n"
	"events    missing 50, ready 49, wake-all 8\n"
	"snapshot  96 MiB written, 32 MiB of this pass are left\n"
	"disks     7 times the host failed to read or write\n"
	"\n"
	"vCPU          missing        ready     wake-all       stalls\n"
	"0                  30           29            5           15\n"
	"1                  20           20            3           10\n"
	"\n"
	"device       requests       read    written    held, s     CPU, s    dropped\n"
	"blk0             1234      5 MiB      4 KiB      2.500      0.012          0\n"
	"rng                 7  448 bytes    0 bytes      0.000      0.000          0\n"
	"\n"
	"VM                    process     memory     placed    removed      touches\n"
	"fc.sock.9                4711     64 MiB      5 MiB      1 MiB        12345\n"
	"\n"
	"source                VMs      reads       read  errors retries mean, ms  max, ms\n"
	"fc.sock.3               1       1250      5 MiB       2       1    10.00  2000.00\n"
	"fc.sock.1               0          0    0 bytes       0       0     0.00     0.00\n"
	"shared    48 MiB in the page cache, of fc.sock.1's files\n";

/* The start and the end; in between is every row of the table, in its order. */
static const char busy_json_start[] =
	"{\"state\": \"paused\", \"why\": \"cannot write: a\\\"b: No space left on device\", "
	"\"note\": \"the guest is odd\", \"faults\": \"user\", \"abi\": \"int\", "
	"\"io\": \"threads\", \"name\": \"web-1\", \"version\": \"1.2.3\", "
	"\"protocol\": 1, \"pid\": 42, "
	"\"uptime_ns\": 3723000000000, "
	"\"block_bytes\": 4096, \"snapshot_running\": 1, "
	"\"snapshot_written_bytes\": 100663296, \"snapshot_left_bytes\": 33554432, "
	"\"snapshot_paused_ns\": 5, \"disk_errors\": 7, "
	"\"vcpus_cpu_ns\": 7000000001, \"exits\": 34, \"shared_bytes\": 100663296, "
	"\"has_balloon\": 0, \"has_vsock\": 0, ";
static const char busy_json_end[] =
	"\"vcpus\": ["
	"{\"missing_events\": 30, \"ready_events\": 29, \"wake_alls\": 5, \"stalls\": 15, "
	"\"cpu_ns\": 7000000000, \"exits\": 33}, "
	"{\"missing_events\": 20, \"ready_events\": 20, \"wake_alls\": 3, \"stalls\": 10, "
	"\"cpu_ns\": 1, \"exits\": 1}], "
	"\"devices\": ["
	"{\"name\": \"blk0\", \"requests\": 1234, \"read_bytes\": 5242880, "
	"\"written_bytes\": 4096, \"throttled_ns\": 2500000000, \"cpu_ns\": 12345678, "
	"\"dropped\": 0}, "
	"{\"name\": \"rng\", \"requests\": 7, \"read_bytes\": 448, "
	"\"written_bytes\": 0, \"throttled_ns\": 0, \"cpu_ns\": 70000, \"dropped\": 0}], "
	"\"served\": [{\"name\": \"fc.sock.9\", \"pid\": 4711, \"memory_bytes\": 67108864, "
	"\"placed_bytes\": 5242880, \"removed_bytes\": 1048576, \"faults_total\": 12345, "
	"\"read_errors\": 1}], "
	"\"sources\": [{\"name\": \"fc.sock.3\", \"vms\": 1, \"reads\": 1250, "
	"\"read_bytes\": 5242880, \"read_errors\": 2, \"read_retries\": 1, "
	"\"read_ns\": 12500000000, \"read_max_ns\": 2000000000, "
	"\"shared_bytes\": null}, "
	"{\"name\": \"fc.sock.1\", \"vms\": 0, \"reads\": 0, "
	"\"read_bytes\": 0, \"read_errors\": 0, \"read_retries\": 0, "
	"\"read_ns\": 0, \"read_max_ns\": 0, \"shared_bytes\": 50331648}]}\n";

#define JSON_ROW(name, unit, kind, scope, help) \
	fprintf(want, "\"%s\": %llu, ", #name, (unsigned long long)busy.counters.name);

#define JSON_ZERO(name, unit, kind, help) fprintf(want, "\"%s\": 0, ", #name);

/* What is only told where there is such a device. */
static void devices(void **state)
{
	static const struct balloon_stats b = {
		.balloon_target_bytes = 64 * MIB, .balloon_bytes = 32 * MIB,
		.balloon_inflated_bytes = 40 * MIB, .balloon_reported_bytes = 100 * MIB,
		.guest_memory_bytes = 400 * MIB, .guest_free_bytes = 200 * MIB,
		.guest_available_bytes = 300 * MIB, .guest_cache_bytes = 50 * MIB,
		.guest_stats_age_ns = 2 * NS_PER_MS};
	static const struct balloon_stats untold = {.balloon_bytes = 8192, .balloon_refused = 3};
	static const struct vsock_stats v = {1, 20, 3, 4};
	char *out = NULL;
	size_t len;
	FILE *f = open_memstream(&out, &len);

	(void)state;
	control_show_balloon(&b, f);
	control_show_balloon(&untold, f);
	control_show_vsock(&v, f);
	fclose(f);
	assert_string_equal(out,
			    "balloon   32 MiB of 64 MiB;\n"
			    "          discarded 40 MiB, reported free 100 MiB\n"
			    "guest     has 400 MiB: free 200 MiB, available 300 MiB,\n"
			    "          files 50 MiB; as of 2.00 ms ago\n"
			    "balloon   8 KiB of 0 bytes;\n"
			    "          discarded 0 bytes, reported free 0 bytes;\n"
			    "          3 pages were no memory, or could not be discarded\n"
			    "vsock     1 open, 20 ever; 3 refused, 4 reset\n");
	free(out);
}

static void text(void **state)
{
	char *out = NULL;
	size_t len;
	FILE *f = open_memstream(&out, &len);

	(void)state;
	control_show_text(&busy, f);
	fclose(f);
	assert_string_equal(out, busy_text);
	free(out);
}

/* Also with numbers of ten digits, and times and sizes that take as much as they can. */
static void within_80_columns(void **state)
{
	static struct control_status s = {.state = "running", .faults = "user",
					  .abi = "pf2-strict", .block_bytes = 2 * MIB,
					  .vcpu_count = 1, .device_count = 1,
					  .devices = {{"blk14", 9999999999,
						       (1000ull << 40) + 1, 999, UINT64_MAX,
						       999999999999, 0}}};
	uint64_t *counter = (uint64_t *)(void *)&s.counters;
	char *out = NULL;
	size_t len;
	FILE *f = open_memstream(&out, &len);

	(void)state;
	_Static_assert(sizeof(s.counters) % sizeof(uint64_t) == 0, "counters only");
	for (size_t i = 0; i < sizeof(s.counters) / sizeof(uint64_t); i++)
		counter[i] = 9999999999;
	counter = (uint64_t *)(void *)&s.balloon;
	for (size_t i = 0; i < sizeof(s.balloon) / sizeof(uint64_t); i++)
		counter[i] = (1000ull << 40) + 1;
	s.balloon.guest_stats_age_ns = UINT64_MAX;
	s.has_balloon = s.has_vsock = s.has_shared = 1;
	s.shared_bytes = (1000ull << 40) + 1;
	s.vsock = (struct vsock_stats){256, 9999999999, 9999999999, 9999999999};
	s.uptime_ns = UINT64_MAX;
	control_show_text(&s, f);
	fclose(f);
	for (const char *line = strtok(out, "\n"); line; line = strtok(NULL, "\n"))
		assert_true(strlen(line) <= 80);
	free(out);
}

static void json(void **state)
{
	char *out = NULL, *wanted = NULL;
	size_t len, want_len;
	FILE *f = open_memstream(&out, &len), *want = open_memstream(&wanted, &want_len);

	(void)state;
	assert_int_equal(control_show_json(&busy, f), 0);
	fclose(f);
	fputs(busy_json_start, want);
	BALLOON_STATS(JSON_ZERO)
	VSOCK_STATS(JSON_ZERO)
	APF_COUNTER_TABLE(JSON_ROW)
	fputs(busy_json_end, want);
	fclose(want);
	assert_string_equal(out, wanted);
	free(out);
	free(wanted);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(devices),
		cmocka_unit_test(text),
		cmocka_unit_test(within_80_columns),
		cmocka_unit_test(json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
