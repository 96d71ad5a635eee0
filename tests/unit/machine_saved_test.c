/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The description of a machine in a snapshot: what is right is read back, and what describes no
 * machine is refused.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/machine/machine_saved.h"

struct net_section {
	struct machine_net_saved head;
	char tap[16];
};

/* A state that has one section. */
static void with_section(const char *name, const void *bytes, size_t len, struct snap_in *ret)
{
	struct snap_out o = {.bytes = NULL};
	int fd = memfd_create("state", 0);
	struct err e;

	snap_put(&o, (struct snap_key){name, 0, MACHINE_SAVED_VERSION}, bytes, len);
	assert_int_equal(snap_out_write(&o, fd, &e), 0);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_int_equal(snap_in_read(ret, fd, &e), 0);
	snap_out_free(&o);
	close(fd);
}

static int machine_of(struct machine_saved s, struct machine_saved *ret)
{
	struct snap_in in;
	struct err e = {0};
	int rc;

	with_section("machine", &s, sizeof(s), &in);
	rc = machine_saved_get(&in, ret, &e);
	assert_true(rc == 0 || *e.text);
	snap_in_free(&in);
	return rc;
}

static void machines(void **state)
{
	const struct machine_saved right = {
		.memory_bytes = 64 << 20, .cpus = MACHINE_CPUS_MAX, .disks = MACHINE_DISKS_MAX,
		.nets = MACHINE_NETS_MAX, .faults = APF_FAULTS_USER, .abi = APF_ABI_INT,
	};
	struct machine_saved got, wrong;

	(void)state;
	assert_int_equal(machine_of(right, &got), 0);
	assert_memory_equal(&got, &right, sizeof(got));
	/* The least memory and the most. */
	wrong = right;
	wrong.memory_bytes = MACHINE_MEMORY_MIN;
	assert_int_equal(machine_of(wrong, &got), 0);
	wrong.memory_bytes = MACHINE_MEMORY_MAX;
	assert_int_equal(machine_of(wrong, &got), 0);
#define WRONG(member, value)                                                                       \
	wrong = right;                                                                             \
	wrong.member = (value);                                                                    \
	assert_int_equal(machine_of(wrong, &got), -EBADMSG)
	WRONG(cpus, 0);
	WRONG(cpus, MACHINE_CPUS_MAX + 1);
	WRONG(memory_bytes, 0);
	WRONG(memory_bytes, (64 << 20) + 4096);
	WRONG(memory_bytes, MACHINE_MEMORY_MAX + MACHINE_MEMORY_UNIT);
	WRONG(disks, MACHINE_DISKS_MAX + 1);
	WRONG(nets, MACHINE_NETS_MAX + 1);
	WRONG(kind, LOAD_MULTIBOOT + 1);
	WRONG(faults, APF_FAULTS_USER + 1);
	WRONG(abi, APF_ABI_INT + 1);
#undef WRONG
}

static int net_of(const struct net_section *s, size_t len, struct machine_net *ret,
		  char ret_tap[16])
{
	struct snap_in in;
	struct err e = {0};
	int rc;

	with_section("machine.net", s, len, &in);
	rc = machine_net_saved_get(&in, 0, ret, &e);
	assert_true(rc == 0 || *e.text);
	if (rc == 0)
		snprintf(ret_tap, 16, "%s", ret->tap ? ret->tap : "");
	snap_in_free(&in);
	return rc;
}

static void network_cards(void **state)
{
	struct net_section s = {
		.head = {
			.bytes_per_s = 7, .mac = {2, 3, 4, 5, 6, 7}, .has_mac = 1, .restricted = 1,
			.forwards_count = 2,
			.forwards = {{.host_addr = 0x7f000001, .host_port = 8080, .guest_port = 80},
				     {.host_addr = 0x0a000001, .host_port = 53, .guest_port = 54,
				      .udp = 1}},
		},
	};
	const size_t head = sizeof(s.head);
	struct machine_net n;
	char tap[16];

	(void)state;
	assert_int_equal(net_of(&s, head + 1, &n, tap), 0);
	assert_null(n.tap);
	assert_true(n.restricted && !n.host && n.has_mac);
	assert_memory_equal(n.mac, s.head.mac, sizeof(n.mac));
	assert_int_equal(n.bytes_per_s, 7);
	assert_int_equal(n.forwards_count, 2);
	assert_int_equal(n.forwards[0].host_addr, 0x7f000001);
	assert_int_equal(n.forwards[0].host_port, 8080);
	assert_int_equal(n.forwards[0].guest_port, 80);
	assert_false(n.forwards[0].udp);
	assert_int_equal(n.forwards[1].host_addr, 0x0a000001);
	assert_true(n.forwards[1].udp);
	assert_int_equal(n.forwards[1].guest_port, 54);
	s.head.host = 1;
	assert_int_equal(net_of(&s, head + 1, &n, tap), 0);
	assert_true(n.host);
	/* A tap has no ports; its name ends with its section. */
	memcpy(s.tap, "tap0", 5);
	assert_int_equal(net_of(&s, head + 5, &n, tap), -EBADMSG);
	s.head.forwards_count = 0;
	assert_int_equal(net_of(&s, head + 5, &n, tap), 0);
	assert_string_equal(tap, "tap0");
	assert_int_equal(net_of(&s, head + 6, &n, tap), -EBADMSG);
	assert_int_equal(net_of(&s, head + 4, &n, tap), -EBADMSG);
	assert_int_equal(net_of(&s, head, &n, tap), -EBADMSG);
	assert_int_equal(net_of(&s, head - 1, &n, tap), -EBADMSG);
	memcpy(s.tap, "a/b", 4);
	assert_int_equal(net_of(&s, head + 4, &n, tap), -EBADMSG);
	s.tap[0] = '\0';
	s.head.forwards_count = NET_USER_FORWARDS_MAX;
	assert_int_equal(net_of(&s, head + 1, &n, tap), 0);
	s.head.forwards_count++;
	assert_int_equal(net_of(&s, head + 1, &n, tap), -EBADMSG);
}

static void disks(void **state)
{
	struct {
		struct machine_disk_saved head;
		char path[8];
	} s = {.head = {.bytes = 512, .read_only = 1}, .path = "/a/b"};
	const size_t head = sizeof(s.head);
	struct machine_disk_saved got;
	struct snap_in in;
	const char *path;
	struct err e;

	(void)state;
	with_section("machine.disk", &s, head + 5, &in);
	assert_int_equal(machine_disk_saved_get(&in, 0, &got, &path, &e), 0);
	assert_string_equal(path, "/a/b");
	assert_memory_equal(&got, &s.head, sizeof(got));
	assert_int_equal(machine_disk_saved_get(&in, 1, &got, &path, &e), -ENOENT);
	snap_in_free(&in);
	for (size_t len = head - 1; len <= head + 4; len++) {
		with_section("machine.disk", &s, len, &in);
		assert_int_equal(machine_disk_saved_get(&in, 0, &got, &path, &e), -EBADMSG);
		snap_in_free(&in);
	}
}

static int balloon_of(const struct machine_balloon_saved *s, size_t len,
		      struct machine_balloon_saved *ret)
{
	struct snap_in in;
	struct err e = {0};
	int rc;

	with_section(len ? "machine.balloon" : "other", s, len, &in);
	rc = machine_balloon_saved_get(&in, ret, &e);
	assert_true(rc == 0 ? !*e.text : *e.text != 0);
	snap_in_free(&in);
	return rc;
}

static void balloons(void **state)
{
	struct machine_balloon_saved s = {MACHINE_BALLOON_FOLLOW, {100, 77, 0xaa, 3}}, got;

	(void)state;
	assert_int_equal(balloon_of(&s, sizeof(s), &got), 0);
	assert_memory_equal(&got, &s, sizeof(s));
	/* None is no failure: such a machine has none. */
	assert_int_equal(balloon_of(&s, 0, &got), 0);
	assert_int_equal(got.kind, MACHINE_BALLOON_OFF);
	assert_int_equal(balloon_of(&s, sizeof(s) - 1, &got), -EMSGSIZE);
	s.kind = MACHINE_BALLOON_OFF;
	assert_int_equal(balloon_of(&s, sizeof(s), &got), -EBADMSG);
	s.kind = MACHINE_BALLOON_FOLLOW + 1;
	assert_int_equal(balloon_of(&s, sizeof(s), &got), -EBADMSG);
}

static int sockets_of(const void *s, size_t len, struct machine_vsock_saved *ret,
		      char path[static VSOCK_PATH_MAX])
{
	struct snap_in in;
	struct err e = {0};
	const char *got;
	int rc;

	with_section(len ? "machine.vsock" : "other", s, len, &in);
	rc = machine_vsock_saved_get(&in, ret, &got, &e);
	assert_true(rc == 0 ? !*e.text : *e.text != 0);
	assert_true(rc == 0 || !got);
	assert_int_equal(machine_vsock_saved_get(&in, ret, &got, NULL), rc);
	snprintf(path, VSOCK_PATH_MAX, "%s", got ? got : "");
	snap_in_free(&in);
	return rc;
}

static void sockets(void **state)
{
	struct {
		struct machine_vsock_saved head;
		char path[VSOCK_PATH_MAX + 1];
	} s = {{{7, VSOCK_FIRST_PORT + 3}}, "vm.vsock"};
	const size_t head = sizeof(s.head), len = head + sizeof("vm.vsock");
	struct machine_vsock_saved got;
	char path[VSOCK_PATH_MAX];

	(void)state;
	assert_int_equal(sockets_of(&s, len, &got, path), 0);
	assert_memory_equal(&got, &s.head, head);
	assert_string_equal(path, "vm.vsock");
	/* None is no failure. */
	assert_int_equal(sockets_of(&s, 0, &got, path), 0);
	assert_string_equal(path, "");
	for (size_t l = head - 1; l < len; l++)
		assert_int_equal(sockets_of(&s, l, &got, path), -EBADMSG);
	assert_int_equal(sockets_of(&s, len + 1, &got, path), -EBADMSG);
	assert_int_equal(sockets_of(&s, head + sizeof(s.path), &got, path), -EMSGSIZE);
	s.head.device.cid = VSOCK_HOST_CID;
	assert_int_equal(sockets_of(&s, len, &got, path), -EBADMSG);
	s.head.device = (struct vsock_saved){VSOCK_CID_MIN, VSOCK_FIRST_PORT};
	assert_int_equal(sockets_of(&s, len, &got, path), 0);
	s.head.device = (struct vsock_saved){7, VSOCK_FIRST_PORT - 1};
	assert_int_equal(sockets_of(&s, len, &got, path), -EBADMSG);
	s.head.device = (struct vsock_saved){7, VSOCK_LAST_PORT + 1};
	assert_int_equal(sockets_of(&s, len, &got, path), -EBADMSG);
	/* The longest path, and one without an end. */
	s.head.device = (struct vsock_saved){VSOCK_CID_MAX, VSOCK_LAST_PORT};
	memset(s.path, 'x', VSOCK_PATH_MAX);
	assert_int_equal(sockets_of(&s, head + VSOCK_PATH_MAX, &got, path), -EBADMSG);
	s.path[VSOCK_PATH_MAX - 1] = '\0';
	assert_int_equal(sockets_of(&s, head + VSOCK_PATH_MAX, &got, path), 0);
	assert_int_equal(strlen(path), VSOCK_PATH_MAX - 1);
}

/* A page that is no RAM would be refused later, by somebody who cannot say whence it came. */
static void first_touches(void **state)
{
	const uint64_t memory = GUEST_HOLE_GPA + (64 << 20), page = PAGE_BYTES;
	const struct {
		uint64_t pages[2];
		bool right;
	} lists[] = {
		{{0, 7 * page}, true},
		{{GUEST_HOLE_GPA - page, GUEST_HIGH_GPA + (64 << 20) - page}, true},
		{{page, page + 8}, false},
		{{page, GUEST_HOLE_GPA}, false},
		{{GUEST_HIGH_GPA + (64 << 20), page}, false},
		{{page, ~0ull << PAGE_SHIFT}, false},
	};
	uint64_t many[FIRST_TOUCH_MAX + 1] = {0};
	const uint64_t *pages;
	struct snap_in in;
	struct err e = {0};
	unsigned count;

	(void)state;
	for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++) {
		with_section("memory.first", lists[i].pages, sizeof(lists[i].pages), &in);
		assert_int_equal(machine_first_get(&in, memory, &pages, &count, &e),
				 lists[i].right ? 0 : -EBADMSG);
		if (lists[i].right) {
			assert_int_equal(count, 2);
			assert_memory_equal(pages, lists[i].pages, sizeof(lists[i].pages));
		}
		snap_in_free(&in);
	}
	with_section("memory.first", many, sizeof(many), &in);
	assert_int_equal(machine_first_get(&in, memory, &pages, &count, &e), -EMSGSIZE);
	snap_in_free(&in);
	/* Of an older version. */
	with_section("another", many, sizeof(many), &in);
	assert_int_equal(machine_first_get(&in, memory, &pages, &count, &e), 0);
	assert_int_equal(count, 0);
	snap_in_free(&in);
}

/* A bit for each page, no more and no less. */
static void changed_pages(void **state)
{
	const uint64_t bits[64] = {1};
	const uint64_t memory = sizeof(bits) * 8 * PAGE_BYTES;
	const uint64_t *pages;
	struct snap_in in;
	struct err e;

	(void)state;
	with_section("memory.pages", bits, sizeof(bits), &in);
	assert_int_equal(machine_snap_pages_get(&in, memory, &pages, &e), 0);
	assert_memory_equal(pages, bits, sizeof(bits));
	assert_int_equal(machine_snap_pages_get(&in, 2 * memory, &pages, &e), -EBADMSG);
	assert_int_equal(machine_snap_pages_get(&in, memory / 2, &pages, &e), -EMSGSIZE);
	snap_in_free(&in);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(machines),
		cmocka_unit_test(network_cards),
		cmocka_unit_test(disks),
		cmocka_unit_test(balloons),
		cmocka_unit_test(sockets),
		cmocka_unit_test(first_touches),
		cmocka_unit_test(changed_pages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
