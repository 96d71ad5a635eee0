/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Builds the machine that abi/small.h describes. The page tables are made here, at
 * native speed: a guest whose CPL 0 is emulated would take seconds for them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "abi/apf.h"
#include "kvm/vm.h"
#include "vmm/boot/elf.h"
#include "vmm/chip/cpuid.h"
#include "vmm/memory/guest_ram.h"
#include "vmm/small/small_machine.h"

/* Made by tools/embed from guests/small. */
extern const unsigned char small_elf[];
extern const size_t small_elf_bytes;

#define IMAGE_GPA GUEST_HIGH_GPA
#define GIB (1ull << 30)

/* Page tables, all below SMALL_KERNEL_GPA. */
#define PML4_GPA 0x1000ull
#define PDPT_GPA 0x2000ull
#define PD_GPA 0x3000ull
#define PDS_MAX ((SMALL_KERNEL_GPA - PD_GPA) / PAGE_BYTES)

#define PTE_PRESENT 1ull
#define PTE_WRITE 2ull
#define PTE_USER 4ull
#define PTE_LARGE 128ull

static uint64_t low_bytes(const struct small_boot *b)
{
	return align_up(SMALL_EXPECT_GPA + b->pages * sizeof(uint64_t), CHUNK_BYTES);
}

/* A page of guest memory, all of it zeroes: a page table, for example. */
static uint64_t *page_at(const struct small_machine *m, uint64_t gpa)
{
	return guest_mem_at(&m->mem, (gpa_t){gpa}, PAGE_BYTES);
}

/* Maps [gpa, gpa + bytes) one to one in 2 MiB pages; *pds counts page directories used. */
static int map_range(struct small_machine *m, uint64_t gpa, uint64_t bytes, uint64_t *pds)
{
	uint64_t *pdpt = page_at(m, PDPT_GPA);
	uint64_t end = gpa + bytes;

	for (uint64_t gib = gpa / GIB; gib * GIB < end; gib++) {
		uint64_t pd_gpa = PD_GPA + *pds * PAGE_BYTES;
		uint64_t *pd = page_at(m, pd_gpa);

		if (*pds == PDS_MAX || gib >= 512)
			return -E2BIG;
		for (uint64_t i = 0; i < 512; i++) {
			uint64_t at = gib * GIB + i * CHUNK_BYTES;

			if (at >= gpa && at < end)
				pd[i] = at | PTE_PRESENT | PTE_WRITE | PTE_LARGE |
					(at >= SMALL_USER_GPA ? PTE_USER : 0);
		}
		pdpt[gib] = pd_gpa | PTE_PRESENT | PTE_WRITE | PTE_USER;
		(*pds)++;
	}
	return 0;
}

static int build_page_tables(struct small_machine *m, struct err *e)
{
	uint64_t pds = 0;
	int rc = map_range(m, 0, m->mem.low_bytes, &pds);

	if (rc == 0)
		rc = map_range(m, IMAGE_GPA, m->mem.high_bytes, &pds);
	page_at(m, PML4_GPA)[0] = PDPT_GPA | PTE_PRESENT | PTE_WRITE | PTE_USER;
	return rc < 0 ? err_sys(e, rc, "guest page tables") : 0;
}

static int check_boot(const struct small_boot *b, struct err *e)
{
	if (b->vcpus < 1 || b->vcpus > SMALL_VCPUS_MAX)
		return err_set(e, -EINVAL, "small guest: %u vCPUs, not 1..%u", b->vcpus,
			       SMALL_VCPUS_MAX);
	if (b->tasks < 1 || b->tasks > SMALL_TASKS_MAX)
		return err_set(e, -EINVAL, "small guest: %u tasks, not 1..%u", b->tasks,
			       SMALL_TASKS_MAX);
	if (b->pages < 1 || low_bytes(b) > SMALL_HOLE_GPA)
		return err_set(e, -EINVAL, "small guest: %llu pages are too many",
			       (unsigned long long)b->pages);
	return 0;
}

static int build_memory(struct small_machine *m, struct err *e)
{
	const struct small_cfg *cfg = m->cfg;
	struct apf_error ae;
	int rc = guest_ram_open(&m->mem, m->apf, m->vm_fd, e);

	if (rc < 0)
		return rc;
	if (cfg->source_uri)
		rc = apf_source_add(m->apf, IMAGE_GPA, cfg->boot.pages * PAGE_BYTES,
				    cfg->source_uri, 0, NULL, &ae);
	if (rc == 0)
		rc = apf_start(m->apf, &ae);
	return rc < 0 ? err_set(e, rc, "%s", ae.text) : 0;
}

/* What the host's emulator touches at CPL 0 must never be absent. */
static int fill_memory(struct small_machine *m, uint64_t tsc_khz, uint64_t *ret_entry,
		       struct err *e)
{
	struct small_boot boot = m->cfg->boot;
	/* Without a swap file nothing is taken away, and the kernel fills what is touched. */
	int rc = m->cfg->apf.swap ? apf_pin(m->apf, 0, m->mem.low_bytes) : 0;

	if (rc < 0)
		return err_sys(e, rc, "guest memory");
	boot.magic = SMALL_MAGIC;
	boot.version = SMALL_VERSION;
	boot.image_gpa = IMAGE_GPA;
	boot.tsc_khz = tsc_khz;
	rc = elf_load(small_elf, small_elf_bytes, &m->mem, SMALL_BOOT_GPA, ret_entry, e);
	if (rc < 0)
		return rc;
	memcpy(m->mem.low + SMALL_BOOT_GPA, &boot, sizeof(boot));
	if (m->cfg->expect)
		memcpy(m->mem.low + SMALL_EXPECT_GPA, m->cfg->expect,
		       boot.pages * sizeof(uint64_t));
	return build_page_tables(m, e);
}

static int set_cpuid(struct small_machine *m, unsigned i, struct err *e)
{
	struct kvm_cpuid2 *c;
	int rc = kvmp_cpuid_supported(m->kvm_fd, &c, e);

	if (rc < 0)
		return rc;
	cpuid_set_id(c, i);
	if (apf_cpuid_fill(m->apf, c, KVMP_CPUID_ENTRIES_MAX) < 0)
		rc = err_set(e, -E2BIG, "CPUID: too many leaves");
	else
		rc = kvmp_vcpu_set_cpuid(m->vcpus[i].fd, i, c, e);
	free(c);
	return rc;
}

static int build_vcpus(struct small_machine *m, struct err *e)
{
	uint64_t entry = 0;
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < m->vcpu_count; i++) {
		struct small_vcpu *v = &m->vcpus[i];

		v->m = m;
		v->index = i;
		rc = kvmp_vcpu_open(m->kvm_fd, m->vm_fd, i, &v->fd, &v->run, e);
		if (rc == 0 && m->cfg->opened)
			m->cfg->opened(m->cfg->ctx, i, v->fd);
	}
	if (rc == 0)
		rc = fill_memory(m, kvmp_tsc_khz(m->vcpus[0].fd), &entry, e);
	for (unsigned i = 0; rc == 0 && i < m->vcpu_count; i++) {
		struct small_vcpu *v = &m->vcpus[i];
		struct apf_error ae;

		rc = apf_vcpu_attach(m->apf, i, v->fd, v->run, i, &v->apf, &ae);
		if (rc < 0) {
			err_set(e, rc, "%s", ae.text);
			break;
		}
		rc = set_cpuid(m, i, e);
		if (rc == 0)
			rc = kvmp_vcpu_long_mode(v->fd, (gpa_t){PML4_GPA}, entry, i, e);
	}
	return rc;
}

int small_build(struct small_machine *m, const struct small_cfg *cfg, struct err *e)
{
	struct apf_config ac = cfg->apf;
	struct apf_error ae;
	int rc;

	*m = (struct small_machine){.cfg = cfg, .kvm_fd = -1, .vm_fd = -1, .done_fd = -1};
	pthread_mutex_init(&m->lock, NULL);
	for (unsigned i = 0; i < SMALL_VCPUS_MAX; i++)
		m->vcpus[i].fd = -1;
	rc = check_boot(&cfg->boot, e);
	if (rc < 0)
		return rc;
	m->vcpu_count = cfg->boot.vcpus;
	m->mem.low_bytes = low_bytes(&cfg->boot);
	m->mem.high_bytes = align_up(cfg->boot.pages * PAGE_BYTES, CHUNK_BYTES);
	m->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->done_fd < 0)
		return err_sys(e, -errno, "eventfd");
	rc = kvmp_vm_open(&m->kvm_fd, &m->vm_fd, e);
	if (rc < 0)
		return rc;
	ac.vcpus_max = m->vcpu_count;
	guest_ram_config(&m->mem, &ac);
	ac.on_event = cfg->event;
	ac.on_event_ctx = cfg->ctx;
	rc = apf_open(m->vm_fd, &ac, &m->apf, &ae);
	if (rc < 0)
		return err_set(e, rc, "%s", ae.text);
	rc = build_memory(m, e);
	if (rc == 0)
		rc = kvmp_vm_irqchip(m->vm_fd, e);
	return rc < 0 ? rc : build_vcpus(m, e);
}

void small_destroy(struct small_machine *m)
{
	/*
	 * The library goes first: its thread raises interrupts at the VM, and the kernel's own
	 * workers may still wait for pages that only its descriptor, closed, releases them from.
	 */
	apf_close(m->apf);
	for (unsigned i = 0; i < m->vcpu_count; i++)
		kvmp_vcpu_close(m->kvm_fd, m->vcpus[i].fd, m->vcpus[i].run);
	kvmp_vm_close(m->kvm_fd, m->vm_fd);
	if (m->done_fd >= 0)
		close(m->done_fd);
	pthread_mutex_destroy(&m->lock);
}
