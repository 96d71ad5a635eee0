/* SPDX-License-Identifier: Apache-2.0 */
/* Builds the machine and takes it down. See machine.h and machine_parts.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/size.h"
#include "kvm/vm.h"
#include "vmm/boot/load_file.h"
#include "vmm/chip/cpuid.h"
#include "vmm/machine/machine_first.h"
#include "vmm/machine/machine_parts.h"
#include "vmm/machine/machine_snap.h"
#include "vmm/memory/guest_ram.h"
#include "vmm/memory/guest_touch.h"

/* The source of entropy is always there. */
static unsigned devices(const struct machine_cfg *c)
{
	return c->disks_count + c->nets_count + 1 + (c->balloon != MACHINE_BALLOON_OFF) +
	       (c->vsock.path != NULL);
}

static int check_cfg(const struct machine_cfg *c, struct err *e)
{
	if (!c->kernel == !c->restore)
		return err_set(e, -EINVAL, "machine: no kernel");
	if (c->cpus < 1 || c->cpus > MACHINE_CPUS_MAX)
		return err_set(e, -EINVAL, "machine: %u processors, not 1 to %u", c->cpus,
			       MACHINE_CPUS_MAX);
	if (c->memory_bytes < MACHINE_MEMORY_MIN || c->memory_bytes > MACHINE_MEMORY_MAX ||
	    c->memory_bytes % MACHINE_MEMORY_UNIT)
		return err_set(e, -EINVAL, "machine: %s of memory, not a multiple of 2 MiB "
			       "up to 64 GiB", SIZE_WORD(c->memory_bytes));
	if (c->modules_count > LOAD_MODULES_MAX || c->disks_count > MACHINE_DISKS_MAX)
		return err_set(e, -EINVAL, "machine: %u modules and %u disks, more than %u or %u",
			       c->modules_count, c->disks_count, LOAD_MODULES_MAX,
			       MACHINE_DISKS_MAX);
	if (c->nets_count > MACHINE_NETS_MAX || devices(c) > MACHINE_DEVICES_MAX)
		return err_set(e, -EINVAL, "machine: %u disks, %u network devices, and %u devices "
			       "together with entropy and what else is asked for: %u, %u and %u "
			       "at most: there are no more interrupts", c->disks_count,
			       c->nets_count, devices(c), MACHINE_DISKS_MAX, MACHINE_NETS_MAX,
			       MACHINE_DEVICES_MAX);
	if (c->vsock.path && strlen(c->vsock.path) >= VSOCK_PATH_MAX)
		return err_set(e, -ENAMETOOLONG, "vsock: %.80s: a path of %zu bytes; at most %u "
			       "are possible, use a shorter one", c->vsock.path,
			       strlen(c->vsock.path), VSOCK_PATH_MAX - 1);
	return 0;
}

/* What a snapshot's memory comes from. What is shorter would be zeroes behind its end. */
static int add_saved_memory(struct machine *m, struct apf_error *ae)
{
	const char *uri = m->cfg.restore_uri;
	uint64_t size = 0;
	int rc = apf_source_add(m->apf, 0, m->mem.low_bytes, uri, 0, &size, ae);

	if (rc == 0 && size < m->cfg.memory_bytes) {
		rc = -EINVAL;
		(void)snprintf(ae->text, sizeof(ae->text), "snapshot: the source of its memory, "
			       "%.100s, has %llu bytes, and the guest %llu; name that of the same "
			       "memory", uri, (unsigned long long)size,
			       (unsigned long long)m->cfg.memory_bytes);
	}
	if (rc == 0 && m->mem.high_bytes)
		rc = apf_source_add(m->apf, GUEST_HIGH_GPA, m->mem.high_bytes, uri,
				    m->mem.low_bytes, NULL, ae);
	return rc;
}

static int build_memory(struct machine *m, struct err *e)
{
	struct apf_error ae;
	int rc = guest_ram_open(&m->mem, m->apf, m->vm_fd, e);

	if (rc < 0)
		return rc;
	if (m->cfg.source.uri)
		rc = apf_source_add(m->apf, m->cfg.source.gpa, m->cfg.source.bytes,
				    m->cfg.source.uri, 0, NULL, &ae);
	if (rc == 0 && m->cfg.restore)
		rc = add_saved_memory(m, &ae);
	if (rc == 0)
		rc = apf_start(m->apf, &ae);
	return rc < 0 ? err_set(e, rc, "%s", ae.text) : 0;
}

/* ---- processors ---- */

static int open_vcpu(struct machine *m, unsigned i, struct err *e)
{
	struct machine_vcpu *v = &m->vcpus[i];
	struct apf_error ae;
	int rc;

	v->m = m;
	v->index = i;
	rc = kvmp_vcpu_open(m->kvm_fd, m->vm_fd, i, &v->fd, &v->run, e);
	if (rc == 0)
		rc = kvmp_vcpu_fast_strings(v->fd, e);
	if (rc < 0)
		return rc;
	rc = apf_vcpu_attach(m->apf, i, v->fd, v->run, i, &v->apf, &ae);
	if (rc < 0)
		return err_set(e, rc, "%s", ae.text);
	/* For last_words(); the library asks for the other registers. */
	v->run->kvm_valid_regs |= KVM_SYNC_X86_REGS;
	return 0;
}

/* The first starts where the loader says; the others wait for INIT and SIPI, as KVM has them. */
static int build_vcpus(struct machine *m, struct err *e)
{
	const struct cpuid_cfg cfg = {
		.cpus = m->cfg.cpus, .tsc_deadline = kvmp_has_tsc_deadline(m->kvm_fd)};
	struct kvm_cpuid2 *c;
	int rc = kvmp_cpuid_supported(m->kvm_fd, &c, e);

	if (rc < 0)
		return rc;
	cpuid_adapt(c, KVMP_CPUID_ENTRIES_MAX, &cfg);
	if (apf_cpuid_fill(m->apf, c, KVMP_CPUID_ENTRIES_MAX) < 0)
		rc = err_set(e, -E2BIG, "CPUID: too many leaves");
	for (unsigned i = 0; rc == 0 && i < m->cfg.cpus; i++) {
		rc = open_vcpu(m, i, e);
		cpuid_set_id(c, i);
		if (rc == 0 && m->cfg.restore)
			rc = machine_restore_cpuid(m, i, c, e);
		else if (rc == 0)
			rc = kvmp_vcpu_set_cpuid(m->vcpus[i].fd, i, c, e);
	}
	free(c);
	return rc;
}

/* ---- the kernel ---- */

static int read_files(struct machine *m, struct load_cfg *lc, struct err *e)
{
	const struct machine_cfg *c = &m->cfg;
	int rc = load_file_read(c->kernel, "kernel", LOAD_KERNEL_BYTES_MAX, &lc->kernel, e);

	for (unsigned i = 0; rc == 0 && i < c->modules_count; i++) {
		rc = load_file_read(c->modules[i], i ? "module" : "initrd", LOAD_MODULE_BYTES_MAX,
				    &lc->modules[i], e);
		if (rc == 0)
			lc->modules_count++;
	}
	return rc;
}

static int load(struct machine *m, struct err *e)
{
	struct load_cfg lc = {.mem = &m->mem, .cmdline = m->cfg.cmdline};
	struct load_result loaded;
	int rc = read_files(m, &lc, e);

	if (rc == 0)
		rc = acpi_build(&m->acpi, &m->mem, &lc.acpi_rsdp, e);
	if (rc == 0 && !lc.cmdline && load_is_linux(&lc.kernel))
		lc.cmdline = MACHINE_LINUX_CMDLINE;
	if (rc == 0)
		rc = load_kernel(&lc, &loaded, e);
	if (rc == 0)
		m->kind = loaded.kind;
	if (rc == 0)
		rc = machine_test_devices_open(m, e);
	if (rc == 0)
		rc = kvmp_vcpu_enter(m->vcpus[0].fd, &loaded.entry, e);
	load_file_free(&lc.kernel);
	for (unsigned i = 0; i < lc.modules_count; i++)
		load_file_free(&lc.modules[i]);
	return rc;
}

/*
 * Starts reading memory before anybody touches it. Called after the restore, whose own touches
 * would wait behind these reads.
 */
static int come_ahead(struct machine *m, struct err *e)
{
	const struct machine_cfg *c = &m->cfg;
	int rc = c->prefetch_count ? machine_first_bring(m, true, e) : 0;

	if (rc == 0 && c->fill)
		rc = apf_fill(m->apf);
	return rc;
}

/* ---- up and down ---- */

static int build(struct machine *m, struct err *e)
{
	struct apf_config ac = m->cfg.apf;
	struct apf_error ae;
	int rc;

	/* Disks are locked before anything is written: the swap file may be one of them. */
	rc = machine_disks_open(m, e);
	if (rc < 0)
		return rc;
	m->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->wake_fd < 0)
		return err_sys(e, -errno, "eventfd");
	rc = kvmp_vm_open(&m->kvm_fd, &m->vm_fd, e);
	if (rc < 0)
		return rc;
	guest_mem_split(&m->mem, m->cfg.memory_bytes);
	ac.vcpus_max = m->cfg.cpus;
	guest_ram_config(&m->mem, &ac);
	rc = machine_dirty_prepare(m, &ac, e);
	if (rc < 0)
		return rc;
	/* Before the library's own handler: a later one would take it away. */
	guest_touch_init();
	rc = apf_open(m->vm_fd, &ac, &m->apf, &ae);
	if (rc < 0)
		return err_set(e, rc, "%s", ae.text);
	rc = build_memory(m, e);
	if (rc == 0)
		rc = kvmp_vm_irqchip(m->vm_fd, e);
	if (rc == 0)
		rc = kvmp_vm_pit(m->vm_fd, e);
	if (rc == 0)
		rc = build_vcpus(m, e);
	if (rc == 0)
		rc = machine_devices_open(m, e);
	if (rc == 0)
		rc = m->cfg.restore ? machine_restore(m, e) : load(m, e);
	if (rc == 0)
		rc = machine_generation_set(m, e);
	if (rc == 0)
		rc = come_ahead(m, e);
	/* Last: from here on a terminal may be raw. */
	if (rc == 0)
		rc = console_open(&m->console, m->cfg.in_fd, m->cfg.out_fd, m->wake_fd,
				  m->cfg.terminal, m->cfg.terminal_modes, e);
	return rc;
}

int machine_open(const struct machine_cfg *cfg, struct machine **ret, struct err *e)
{
	struct machine *m;
	int rc = check_cfg(cfg, e);

	if (rc < 0)
		return rc;
	m = calloc(1, sizeof(*m));
	if (!m)
		return err_sys(e, -ENOMEM, "machine");
	m->cfg = *cfg;
	m->kvm_fd = m->vm_fd = m->wake_fd = -1;
	for (unsigned i = 0; i < MACHINE_CPUS_MAX; i++)
		m->vcpus[i].fd = -1;
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->resumed, NULL);
	pthread_cond_init(&m->froze, NULL);
	rc = build(m, e);
	if (rc < 0) {
		machine_close(m);
		return rc;
	}
	*ret = m;
	return 0;
}

void machine_close(struct machine *m)
{
	if (!m)
		return;
	console_close(&m->console);
	/* It may not have run: a disk of a restored one may wait to be resumed all the same. */
	pthread_mutex_lock(&m->lock);
	m->stop = true;
	machine_trouble_end(m);
	pthread_mutex_unlock(&m->lock);
	/* The devices' threads use the library: they end before it, and need not wait for it. */
	if (m->apf)
		apf_stop(m->apf);
	machine_devices_close(m);
	apf_close(m->apf);
	for (unsigned i = 0; i < m->cfg.cpus; i++)
		kvmp_vcpu_close(m->kvm_fd, m->vcpus[i].fd, m->vcpus[i].run);
	kvmp_vm_close(m->kvm_fd, m->vm_fd);
	if (m->wake_fd >= 0)
		close(m->wake_fd);
	machine_dirty_free(m);
	pthread_cond_destroy(&m->froze);
	pthread_cond_destroy(&m->resumed);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

/* ---- for others ---- */

void machine_thread_begins(struct machine *m, enum machine_thread which)
{
	if (m->cfg.on_thread)
		m->cfg.on_thread(m->cfg.on_thread_ctx, which);
}

bool machine_is_running(struct machine *m)
{
	bool running;

	pthread_mutex_lock(&m->lock);
	running = m->running && !m->ended;
	pthread_mutex_unlock(&m->lock);
	return running;
}

void machine_stop(struct machine *m)
{
	machine_end(m, MACHINE_STOPPED, 0);
}

struct apf *machine_apf(struct machine *m)
{
	return m->apf;
}

unsigned machine_vcpus(const struct machine *m)
{
	return m->cfg.cpus;
}

struct apf_vcpu *machine_vcpu(struct machine *m, unsigned index)
{
	return index < m->cfg.cpus ? m->vcpus[index].apf : NULL;
}
