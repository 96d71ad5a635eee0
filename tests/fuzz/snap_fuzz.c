/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing entry for the file `state` of a snapshot. So that the sum does not keep everything out,
 * the input is what stands behind the header, and the header is made for it. What must hold: what
 * is refused has a reason, what is found lies within the file, and is as long as was allowed.
 */
#include <xxhash.h>

#include "bytes.h"
#include "vmm/machine/machine_saved.h"

static const char *const names[] = {"machine", "machine.disk", "vcpu.regs", "vcpu.msrs", "virtio",
				    "machine.net", "memory.first"};

static void look(const struct snap_in *in, struct snap_key key, size_t most)
{
	const void *at;
	size_t len;
	struct err e = {0};
	int rc = snap_find(in, key, most, &at, &len, &e);

	if (rc < 0) {
		must(e.code == rc && *e.text);
		return;
	}
	must(len <= most);
	must((const unsigned char *)at >= in->bytes);
	must((const unsigned char *)at + len <= in->bytes + in->len);
}

static void look_at_machine(const struct snap_in *in)
{
	struct machine_balloon_saved balloon;
	struct machine_vsock_saved vsock;
	struct machine_saved m;
	struct machine_disk_saved disk;
	struct machine_net net;
	struct machine_snap_id id;
	const uint64_t *pages;
	const char *path;
	unsigned count;
	struct err e = {0};

	(void)machine_balloon_saved_get(in, &balloon, &e);
	(void)machine_snap_id_get(in, &id, &e);
	if (machine_snap_pages_get(in, CHUNK_BYTES, &pages, &e) == 0)
		must((const unsigned char *)(pages + CHUNK_BYTES / PAGE_BYTES / 64) <=
		     in->bytes + in->len);
	if (machine_first_get(in, CHUNK_BYTES, &pages, &count, &e) == 0)
		for (unsigned i = 0; i < count; i++)
			must(pages[i] % PAGE_BYTES == 0 && pages[i] < CHUNK_BYTES);
	if (machine_vsock_saved_get(in, &vsock, &path, &e) == 0 && path)
		must(*path && strlen(path) < VSOCK_PATH_MAX && vsock.device.next_port);
	if (machine_saved_get(in, &m, &e) == 0)
		must(m.cpus > 0 && m.cpus <= MACHINE_CPUS_MAX && m.nets <= MACHINE_NETS_MAX);
	for (unsigned i = 0; i < 2; i++) {
		if (machine_disk_saved_get(in, i, &disk, &path, &e) == 0)
			must(path + strlen(path) < (const char *)in->bytes + in->len);
		if (machine_net_saved_get(in, i, &net, &e) == 0) {
			must(net.forwards_count <= NET_USER_FORWARDS_MAX);
			must(!net.tap || (*net.tap && !strchr(net.tap, '/')));
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct {
		char magic[8];
		uint32_t format, sections;
		uint64_t bytes, hash;
	} head = {.magic = "APFSTATE", .format = 1, .bytes = size};
	unsigned char *file = malloc(sizeof(head) + size);
	struct snap_in in;
	struct err e = {0};

	must(file);
	if (size > 0)
		memcpy(file + sizeof(head), data, size);
	head.sections = size > 0 ? data[size - 1] % 8 : 0;
	head.hash = XXH3_64bits(file + sizeof(head), size);
	memcpy(file, &head, sizeof(head));
	if (snap_in_take(&in, file, sizeof(head) + size, &e) == 0) {
		for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
			for (uint32_t n = 0; n < 3; n++)
				look(&in, (struct snap_key){names[i], n, 1}, i * 100);
		look_at_machine(&in);
		snap_in_free(&in);
	} else {
		must(e.code < 0 && *e.text);
	}
	free(file);
	return 0;
}
