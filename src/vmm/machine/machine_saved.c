/* SPDX-License-Identifier: Apache-2.0 */
/* See machine_saved.h. */
#include "vmm/machine/machine_saved.h"

#include <errno.h>
#include <string.h>

#include "vmm/virtio/net_tap.h"

static struct snap_key key_of(const char *name, unsigned index)
{
	return (struct snap_key){name, index, MACHINE_SAVED_VERSION};
}

int machine_saved_get(const struct snap_in *in, struct machine_saved *ret, struct err *e)
{
	int rc = snap_take(in, key_of("machine", 0), ret, sizeof(*ret), e);

	if (rc == 0 && (ret->cpus < 1 || ret->cpus > MACHINE_CPUS_MAX ||
			ret->memory_bytes < MACHINE_MEMORY_MIN ||
			ret->memory_bytes > MACHINE_MEMORY_MAX ||
			ret->memory_bytes % MACHINE_MEMORY_UNIT ||
			ret->disks > MACHINE_DISKS_MAX || ret->nets > MACHINE_NETS_MAX ||
			ret->kind > LOAD_MULTIBOOT ||
			ret->faults > APF_FAULTS_USER || ret->abi > APF_ABI_INT))
		rc = err_set(e, -EBADMSG, "snapshot: it describes a machine that cannot be");
	return rc;
}

int machine_disk_saved_get(const struct snap_in *in, unsigned i, struct machine_disk_saved *ret,
			   const char **ret_path, struct err *e)
{
	const void *bytes;
	size_t len;
	int rc = snap_find(in, key_of("machine.disk", i), sizeof(*ret) + MACHINE_PATH_MAX, &bytes,
			   &len, e);

	if (rc < 0)
		return rc;
	*ret_path = (const char *)bytes + sizeof(*ret);
	if (len <= sizeof(*ret) || (*ret_path)[len - sizeof(*ret) - 1] != '\0')
		return err_set(e, -EBADMSG, "snapshot: disk %u has no path", i);
	memcpy(ret, bytes, sizeof(*ret));
	return 0;
}

int machine_net_saved_get(const struct snap_in *in, unsigned i, struct machine_net *ret,
			  struct err *e)
{
	struct machine_net_saved s;
	const char *tap;
	const void *bytes;
	size_t len;
	int rc = snap_find(in, key_of("machine.net", i), sizeof(s) + NET_TAP_NAME_MAX + 1, &bytes,
			   &len, e);

	if (rc < 0)
		return rc;
	tap = (const char *)bytes + sizeof(s);
	if (len <= sizeof(s) || strnlen(tap, len - sizeof(s)) != len - sizeof(s) - 1 ||
	    strchr(tap, '/'))
		return err_set(e, -EBADMSG, "snapshot: network card %u is of no kind", i);
	memcpy(&s, bytes, sizeof(s));
	if (s.forwards_count > NET_USER_FORWARDS_MAX || (*tap && s.forwards_count))
		return err_set(e, -EBADMSG, "snapshot: network card %u cannot be", i);
	*ret = (struct machine_net){
		.tap = *tap ? tap : NULL,
		.restricted = s.restricted,
		.host = s.host,
		.forwards_count = s.forwards_count,
		.has_mac = s.has_mac,
		.bytes_per_s = s.bytes_per_s,
	};
	memcpy(ret->mac, s.mac, sizeof(ret->mac));
	for (unsigned k = 0; k < s.forwards_count; k++)
		ret->forwards[k] = (struct net_forward){
			.udp = s.forwards[k].udp,
			.host_addr = s.forwards[k].host_addr,
			.host_port = s.forwards[k].host_port,
			.guest_port = s.forwards[k].guest_port,
		};
	return 0;
}

int machine_snap_id_get(const struct snap_in *in, struct machine_snap_id *ret, struct err *e)
{
	struct err none = {0};
	int rc = snap_take(in, key_of("snapshot", 0), ret, sizeof(*ret), &none);

	if (rc == -ENOENT) {
		*ret = (struct machine_snap_id){.id = {0}};
		return 0;
	}
	if (rc < 0)
		*e = none;
	return rc;
}

int machine_snap_pages_get(const struct snap_in *in, uint64_t memory_bytes, const uint64_t **ret,
			   struct err *e)
{
	size_t want = (memory_bytes >> PAGE_SHIFT) / 8, len;
	const void *bytes;
	int rc = snap_find(in, key_of("memory.pages", 0), want, &bytes, &len, e);

	if (rc < 0)
		return rc;
	if (len != want)
		return err_set(e, -EBADMSG, "snapshot: 'memory.pages' is too short");
	/* Sections begin at multiples of 8. */
	*ret = bytes;
	return 0;
}

int machine_first_get(const struct snap_in *in, uint64_t memory_bytes, const uint64_t **ret,
		      unsigned *ret_count, struct err *e)
{
	struct err none = {0};
	struct guest_mem mem;
	const void *bytes;
	size_t len;
	int rc = snap_find(in, key_of("memory.first", 0), FIRST_TOUCH_MAX * sizeof(**ret), &bytes,
			   &len, &none);

	*ret = NULL;
	*ret_count = 0;
	if (rc == -ENOENT)
		return 0;
	if (rc < 0) {
		*e = none;
		return rc;
	}
	guest_mem_split(&mem, memory_bytes);
	/* Sections begin at multiples of 8. */
	*ret = bytes;
	*ret_count = (unsigned)(len / sizeof(**ret));
	for (unsigned i = 0; i < *ret_count; i++)
		if ((*ret)[i] % PAGE_BYTES || !guest_mem_has(&mem, (gpa_t){(*ret)[i]}, PAGE_BYTES))
			return err_set(e, -EBADMSG, "snapshot: 'memory.first' names memory that "
				       "it does not have");
	return 0;
}

int machine_balloon_saved_get(const struct snap_in *in, struct machine_balloon_saved *ret,
			      struct err *e)
{
	struct err none = {0};
	int rc = snap_take(in, key_of("machine.balloon", 0), ret, sizeof(*ret), &none);

	if (rc == -ENOENT) {
		*ret = (struct machine_balloon_saved){.kind = MACHINE_BALLOON_OFF};
		return 0;
	}
	if (rc == 0 && ret->kind != MACHINE_BALLOON_ON && ret->kind != MACHINE_BALLOON_FOLLOW)
		rc = err_set(&none, -EBADMSG, "snapshot: it has a balloon that cannot be");
	if (rc < 0)
		*e = none;
	return rc;
}

int machine_vsock_saved_get(const struct snap_in *in, struct machine_vsock_saved *ret,
			    const char **ret_path, struct err *e)
{
	struct err none = {0};
	const char *path;
	const void *bytes;
	size_t len;
	int rc = snap_find(in, key_of("machine.vsock", 0), sizeof(*ret) + VSOCK_PATH_MAX, &bytes,
			   &len, &none);

	*ret_path = NULL;
	*ret = (struct machine_vsock_saved){.device.cid = 0};
	if (rc == -ENOENT)
		return 0;
	if (rc < 0 && e)
		*e = none;
	if (rc < 0)
		return rc;
	path = (const char *)bytes + sizeof(*ret);
	/* A NUL at its end and nowhere else, and something before that. */
	if (len <= sizeof(*ret) + 1 || strnlen(path, len - sizeof(*ret)) != len - sizeof(*ret) - 1)
		return err_set(e, -EBADMSG, "snapshot: its socket device has no path");
	memcpy(ret, bytes, sizeof(*ret));
	if (ret->device.cid < VSOCK_CID_MIN || ret->device.cid > VSOCK_CID_MAX ||
	    ret->device.next_port < VSOCK_FIRST_PORT || ret->device.next_port > VSOCK_LAST_PORT)
		return err_set(e, -EBADMSG, "snapshot: it has a socket device that cannot be");
	*ret_path = path;
	return 0;
}
