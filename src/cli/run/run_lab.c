/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line that does in the lab (docs/lab.md) what another does here: the same words,
 * with files under the names that they have there. tools/lab carries them in and out. Pure.
 * See run.h. Test: tests/unit/run_lab_test.c.
 */
#include <stdio.h>

#include "cli/json/json_file.h"
#include "cli/run/run.h"

#define MIB (1ull << 20)
/* The lab's Linux, its modules and what asyncpf itself takes. */
#define LAB_OWN_BYTES (512 * MIB)
#define LAB_NAME_BYTES 40 /* of a file in the lab */
#define LAB_DISK_BYTES 120 /* the same with all that can be said of a disk */
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
