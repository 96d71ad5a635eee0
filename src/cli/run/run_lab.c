/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line that does in the lab (docs/lab.md) what another does here: the same words,
 * with files under the names that they have there. tools/lab carries them in and out. Pure.
 * See run.h. Test: tests/unit/run_lab_test.c.
 */
#include <stdio.h>

#include "base/size.h"
#include "cli/json/json_file.h"
#include "cli/run/run.h"

/* The lab's Linux, its modules and what asyncpf itself takes. */
#define LAB_OWN_BYTES (512 * MIB)
#define LAB_NAME_BYTES 40 /* of a file in the lab */
#define LAB_DISK_BYTES 120 /* the same with all that can be said of a disk */
#define LAB_NET_BYTES (100 + NET_USER_FORWARDS_MAX * 40) /* the same of a network card */
#define CONTROL_THERE "/run/control"

/*
 * Memory of the lab: the guest's, its swap file's (in the lab's memory: it goes at the end
 * anyway), the files twice while they are unpacked, and its own.
 */
static uint64_t lab_memory_mib(const struct run_line *l, const struct run_lab_host *h)
{
	uint64_t guest = l->run.machine.memory_bytes;
	uint64_t tables = guest / 32; /* of the kernel and of KVM, for that memory */
	uint64_t swap = l->run.machine.apf.swap && !h->swap_is_device ? guest : 0;

	return (guest + tables + swap + 2 * h->file_bytes + LAB_OWN_BYTES) / MIB;
}

/*
 * The lab has a network in user space of its own: where the guest's has a socket, so has the
 * lab's, and a port is forwarded twice.
 */
static void net_tool_words(const struct machine_cfg *m, struct words *ret)
{
	bool any = false;

	for (unsigned i = 0; i < m->nets_count; i++) {
		const struct machine_net *n = &m->nets[i];

		if (n->tap)
			continue;
		if (!any) {
			words_add(ret, "--net");
			words_add(ret, "--library=" NET_USER_LIBRARY);
		}
		any = true;
		for (unsigned k = 0; k < n->forwards_count; k++) {
			uint32_t addr = n->forwards[k].host_addr;

			words_add(ret, "--forward=%s:%u.%u.%u.%u:%u",
				  n->forwards[k].udp ? "udp" : "tcp", addr >> 24,
				  addr >> 16 & 255, addr >> 8 & 255, addr & 255,
				  n->forwards[k].host_port);
		}
	}
}

/* The same card there, where every address is the lab's. */
static void net_word(const struct machine_net *n, char ret[LAB_NET_BYTES])
{
	int used = n->tap ? snprintf(ret, LAB_NET_BYTES, "tap=%s", n->tap)
			  : snprintf(ret, LAB_NET_BYTES, "user%s%s", n->host ? ",host" : "",
				     n->restricted ? ",restrict" : "");

	for (unsigned i = 0; i < n->forwards_count; i++)
		used += snprintf(ret + used, LAB_NET_BYTES - (size_t)used,
				 ",fwd=%s:0.0.0.0:%u:%u", n->forwards[i].udp ? "udp" : "tcp",
				 n->forwards[i].host_port, n->forwards[i].guest_port);
	if (n->has_mac)
		used += snprintf(ret + used, LAB_NET_BYTES - (size_t)used,
				 ",mac=%02x:%02x:%02x:%02x:%02x:%02x", n->mac[0], n->mac[1],
				 n->mac[2], n->mac[3], n->mac[4], n->mac[5]);
	if (n->bytes_per_s)
		(void)snprintf(ret + used, LAB_NET_BYTES - (size_t)used, ",bw=%llu",
			       (unsigned long long)n->bytes_per_s);
}

static void tool_words(const struct run_line *l, const struct run_lab_host *h, struct words *ret)
{
	const struct machine_cfg *m = &l->run.machine;

	words_add(ret, "%s", h->tool);
	words_add(ret, "run");
	words_add(ret, "--timeout=0");
	words_add(ret, "--stdin");
	words_add(ret, "--memory=%llu", (unsigned long long)lab_memory_mib(l, h));
	words_add(ret, "--file=%s:asyncpf", h->self);
	words_add(ret, "--file=%s:kernel", m->kernel);
	for (unsigned i = 0; i < m->modules_count; i++)
		words_add(ret, "--file=%s:initrd%u", m->modules[i], i);
	for (unsigned i = 0; i < m->disks_count; i++)
		words_add(ret, "--disk=%s,%s", m->disks[i].path,
			  m->disks[i].read_only ? "ro" : "rw");
	if (m->apf.swap && h->swap_is_device)
		words_add(ret, "--disk=%s,rw", m->apf.swap);
	net_tool_words(m, ret);
	if (l->run.control)
		words_add(ret, "--socket=%s:" CONTROL_THERE, l->run.control);
	if (l->run.json && !json_file_is_stdout(l->run.json))
		words_add(ret, "--get=json:%s", l->run.json);
	if (l->run.trace)
		words_add(ret, "--get=trace:%s", l->run.trace);
}

static void disk_word(const struct machine_disk *d, unsigned index, char ret[LAB_DISK_BYTES])
{
	int used = snprintf(ret, LAB_DISK_BYTES, "/dev/vd%c,%s%s%s", 'a' + (int)index,
			    d->read_only ? "ro" : "rw", d->raw ? ",raw" : "",
			    d->report ? ",werror=report" : "");

	if (d->bytes_per_s)
		used += snprintf(ret + used, LAB_DISK_BYTES - (size_t)used, ",bw=%llu",
				 (unsigned long long)d->bytes_per_s);
	if (d->requests_per_s)
		(void)snprintf(ret + used, LAB_DISK_BYTES - (size_t)used, ",iops=%llu",
			       (unsigned long long)d->requests_per_s);
}

void run_lab_words(const struct run_line *l, const struct run_lab_host *h, struct words *ret)
{
	char nets[MACHINE_NETS_MAX][LAB_NET_BYTES];
	char initrds[LOAD_MODULES_MAX][LAB_NAME_BYTES], disks[MACHINE_DISKS_MAX][LAB_DISK_BYTES];
	const struct machine_cfg *m = &l->run.machine;
	struct run_line there = *l, defaults;
	char swap[LAB_NAME_BYTES], user[LAB_NAME_BYTES];

	there.lab = false;
	there.local = true;
	there.run.machine.kernel = "kernel";
	if (there.run.control)
		there.run.control = CONTROL_THERE;
	if (there.run.json && !json_file_is_stdout(there.run.json))
		there.run.json = "json";
	if (there.run.trace)
		there.run.trace = "trace";
	for (unsigned i = 0; i < m->modules_count; i++) {
		snprintf(initrds[i], sizeof(initrds[i]), "initrd%u", i);
		there.initrds.text[i] = initrds[i];
	}
	for (unsigned i = 0; i < m->disks_count; i++) {
		disk_word(&m->disks[i], i, disks[i]);
		there.disks.text[i] = disks[i];
	}
	for (unsigned i = 0; i < m->nets_count; i++) {
		net_word(&m->nets[i], nets[i]);
		there.nets.text[i] = nets[i];
	}
	snprintf(swap, sizeof(swap), "/dev/vd%c", 'a' + (int)m->disks_count);
	if (m->apf.swap)
		there.run.machine.apf.swap = h->swap_is_device ? swap : "/tmp/swap";
	/* The lab has no names of users. */
	snprintf(user, sizeof(user), "%u:%u", l->run.user.uid, l->run.user.gid);
	if (l->run.user.given)
		there.user = user;
	run_line_init(&defaults);
	tool_words(l, h, ret);
	words_add(ret, "--");
	words_add(ret, "./asyncpf");
	words_add(ret, "run");
	opts_words(&run_table, &there, &defaults, ret);
}
