/* SPDX-License-Identifier: Apache-2.0 */
/* See vm.h. Capabilities are probed by asking KVM, never by its version. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "abi/apf.h"
#include "abi/pv.h"
#include "base/size.h"
#include "kvm/kvm_uapi.h"
#include "kvm/vm.h"
#include "rights/refusal.h"

static int enable_cap(int vm_fd, uint32_t cap, uint64_t arg, const char *name, struct err *e)
{
	struct kvm_enable_cap c = {.cap = cap, .args = {arg}};

	if (KVMP_IOCTL(vm_fd, KVM_CHECK_EXTENSION, (unsigned long)cap) <= 0)
		return err_set(e, -EOPNOTSUPP, "kvm: this host has no %s; see `asyncpf doctor`",
			       name);
	if (KVMP_IOCTL(vm_fd, KVM_ENABLE_CAP, &c) < 0)
		return err_sys(e, -errno, "kvm: enabling %s", name);
	return 0;
}

#define RW (KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE)
static const struct {
	uint32_t flags, first, count;
} our_ranges[] = {
	{RW, APF_MSR_EN, 1},
	{RW, APF_MSR_CTL, 2},
	/* Writes that have KVM write into guest memory: abi/pv.h. */
	{KVM_MSR_FILTER_WRITE, PV_MSR_WALL_CLOCK_OLD, 2},
	{KVM_MSR_FILTER_WRITE, PV_MSR_WALL_CLOCK, 2},
	{KVM_MSR_FILTER_WRITE, PV_MSR_STEAL_TIME, 2},
};

int kvmp_vm_msr_filter(int vm_fd, bool ack_to_kvm, const struct kvm_msr_filter *filter,
		       struct err *e)
{
	/* A bit per register; 0: to user space. */
	uint8_t none = 0, ack = ack_to_kvm ? 1u << (APF_MSR_ACK - APF_MSR_CTL) : 0;
	struct kvm_msr_filter both = {
		.flags = filter ? filter->flags : KVM_MSR_FILTER_DEFAULT_ALLOW};
	unsigned n = 0;

	/* The first range that a register lies in decides (api.rst, KVM_X86_SET_MSR_FILTER). */
	for (; n < ARRAY_LEN(our_ranges); n++)
		both.ranges[n] = (struct kvm_msr_filter_range){
			.flags = our_ranges[n].flags,
			.base = our_ranges[n].first,
			.nmsrs = our_ranges[n].count,
			.bitmap = our_ranges[n].first == APF_MSR_CTL ? &ack : &none,
		};
	for (unsigned i = 0; filter && i < KVM_MSR_FILTER_MAX_RANGES; i++) {
		if (filter->ranges[i].nmsrs == 0)
			continue;
		if (n == KVM_MSR_FILTER_MAX_RANGES)
			return err_set(e, -E2BIG, "kvm: MSR filter: more than %u ranges beside the "
				       "%u of asynchronous page faults; join some",
				       KVM_MSR_FILTER_MAX_RANGES - (unsigned)ARRAY_LEN(our_ranges),
				       (unsigned)ARRAY_LEN(our_ranges));
		both.ranges[n++] = filter->ranges[i];
	}
	if (KVMP_IOCTL(vm_fd, KVM_X86_SET_MSR_FILTER, &both) < 0)
		return err_sys(e, -errno, "kvm: filter for the page fault registers");
	return 0;
}

int kvmp_vm_msr_exits(int vm_fd, uint32_t exits, struct err *e)
{
	return enable_cap(vm_fd, KVM_CAP_X86_USER_SPACE_MSR, exits | KVM_MSR_EXIT_REASON_FILTER,
			  "X86_USER_SPACE_MSR", e);
}

int kvmp_vm_check(int vm_fd, struct err *e)
{
	/* /dev/kvm itself knows extensions, too. */
	if (KVMP_IOCTL(vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) > 0 &&
	    KVMP_IOCTL(vm_fd, KVM_GET_API_VERSION, 0) < 0)
		return 0;
	return err_set(e, -EINVAL, "kvm: descriptor %d is no VM: pass what KVM_CREATE_VM returned",
		       vm_fd);
}

int kvmp_vm_exception_payload(int vm_fd, struct err *e)
{
	return enable_cap(vm_fd, KVM_CAP_EXCEPTION_PAYLOAD, 1, "EXCEPTION_PAYLOAD", e);
}

int kvmp_vm_prepare(int vm_fd, bool ack_to_kvm, struct err *e)
{
	int rc;

	if (KVMP_IOCTL(vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS) <= 0 ||
	    KVMP_IOCTL(vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SIGNAL_MSI) <= 0)
		return err_set(
			e, -EOPNOTSUPP,
			"kvm: this host lacks SYNC_REGS or SIGNAL_MSI; see `asyncpf doctor`");
	rc = kvmp_vm_exception_payload(vm_fd, e);
	if (rc < 0)
		return rc;
	rc = kvmp_vm_msr_exits(vm_fd, 0, e);
	return rc < 0 ? rc : kvmp_vm_msr_filter(vm_fd, ack_to_kvm, NULL, e);
}

uint32_t kvmp_cpuid_features(uint32_t eax, uint32_t features)
{
	uint32_t ours = APF_CPUID_ASYNC_PF | APF_CPUID_ASYNC_PF_VMEXIT | APF_CPUID_ASYNC_PF_INT;

	return (eax & ~ours) | (features & ours);
}

int kvmp_vm_open(int *ret_kvm_fd, int *ret_vm_fd, struct err *e)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm;

	if (kvm < 0) {
		struct refusal r;
		int code = -errno;

		refusal_kvm("", code, &r);
		return refusal_err(&r, code, e);
	}
	if (KVMP_IOCTL(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
		close(kvm);
		return err_set(e, -EOPNOTSUPP,
			       "/dev/kvm: not KVM with API version 12; see `asyncpf doctor`");
	}
	vm = KVMP_IOCTL(kvm, KVM_CREATE_VM, 0);
	if (vm < 0) {
		int rc = errno == EBUSY
				 ? err_set(e, -EBUSY, "kvm: creating a virtual machine: %m; end "
					   "the other hypervisor that uses the processor's "
					   "virtualisation")
				 : err_sys(e, -errno, "kvm: creating a virtual machine");

		close(kvm);
		return rc;
	}
	*ret_kvm_fd = kvm;
	*ret_vm_fd = vm;
	return 0;
}

int kvmp_vm_irqchip(int vm_fd, struct err *e)
{
	/* Where real-mode emulation on older Intel hosts keeps its task segment: below 4 GiB,
	 * unused. */
	if (KVMP_IOCTL(vm_fd, KVM_SET_TSS_ADDR, 0xfffbd000ul) < 0 ||
	    KVMP_IOCTL(vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
		return err_sys(e, -errno, "kvm: in-kernel interrupt controllers");
	return 0;
}

int kvmp_vm_memory_log(int vm_fd, unsigned slot, gpa_t gpa, uint64_t bytes, hva_t hva, bool log,
		       struct err *e)
{
	struct kvm_userspace_memory_region r = {
		.slot = slot,
		.flags = log ? KVM_MEM_LOG_DIRTY_PAGES : 0,
		.guest_phys_addr = gpa.v,
		.memory_size = bytes,
		.userspace_addr = hva.v,
	};

	if (KVMP_IOCTL(vm_fd, KVM_SET_USER_MEMORY_REGION, &r) < 0)
		return err_sys(e, -errno, "kvm: memory slot %u (%s at %#llx)", slot,
			       SIZE_WORD(bytes), (unsigned long long)gpa.v);
	return 0;
}

int kvmp_vm_memory(int vm_fd, unsigned slot, gpa_t gpa, uint64_t bytes, hva_t hva, struct err *e)
{
	return kvmp_vm_memory_log(vm_fd, slot, gpa, bytes, hva, false, e);
}

int kvmp_vm_log_take(int vm_fd, unsigned slot, uint64_t *ret, struct err *e)
{
	struct kvm_dirty_log l = {.slot = slot, .dirty_bitmap = ret};

	if (KVMP_IOCTL(vm_fd, KVM_GET_DIRTY_LOG, &l) < 0)
		return err_sys(e, -errno, "kvm: the log of writes to memory slot %u", slot);
	return 0;
}

int kvmp_vcpu_open(int kvm_fd, int vm_fd, unsigned id, int *ret_fd, struct kvm_run **ret_run,
		   struct err *e)
{
	int bytes = KVMP_IOCTL(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	void *run;
	int fd;

	if (bytes < 0)
		return err_sys(e, -errno, "kvm: size of a vCPU's state");
	fd = KVMP_IOCTL(vm_fd, KVM_CREATE_VCPU, (unsigned long)id);
	if (fd < 0)
		return err_sys(e, -errno, "kvm: creating vCPU %u", id);
	run = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (run == MAP_FAILED) {
		int rc = err_sys(e, -errno, "kvm: mapping vCPU %u", id);

		close(fd);
		return rc;
	}
	*ret_fd = fd;
	*ret_run = run;
	return 0;
}

void kvmp_vcpu_close(int kvm_fd, int fd, struct kvm_run *run)
{
	int bytes;

	if (fd < 0)
		return;
	bytes = KVMP_IOCTL(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (bytes > 0)
		munmap(run, (size_t)bytes);
	close(fd);
}

void kvmp_vm_close(int kvm_fd, int vm_fd)
{
	if (vm_fd >= 0)
		close(vm_fd);
	if (kvm_fd >= 0)
		close(kvm_fd);
}

int kvmp_cpuid_supported(int kvm_fd, struct kvm_cpuid2 **ret, struct err *e)
{
	struct kvm_cpuid2 *c =
		calloc(1, sizeof(*c) + KVMP_CPUID_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2));

	if (!c)
		return err_sys(e, -ENOMEM, "kvm: supported CPUID");
	c->nent = KVMP_CPUID_ENTRIES_MAX;
	if (KVMP_IOCTL(kvm_fd, KVM_GET_SUPPORTED_CPUID, c) < 0) {
		int rc = err_sys(e, -errno, "kvm: supported CPUID");

		free(c);
		return rc;
	}
	*ret = c;
	return 0;
}

int kvmp_vcpu_set_cpuid(int fd, unsigned id, const struct kvm_cpuid2 *c, struct err *e)
{
	if (KVMP_IOCTL(fd, KVM_SET_CPUID2, c) < 0)
		return err_sys(e, -errno, "kvm: CPUID of vCPU %u", id);
	return 0;
}

bool kvmp_has_tsc_deadline(int kvm_fd)
{
	return KVMP_IOCTL(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
}

#define MSR_MISC_ENABLE 0x1a0u
#define MISC_ENABLE_FAST_STRINGS 1ull

int kvmp_vcpu_fast_strings(int fd, struct err *e)
{
	/* struct kvm_msrs ends in a flexible array: room for one entry. */
	union {
		struct kvm_msrs m;
		unsigned char bytes[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
	} u = {.m = {.nmsrs = 1}};
	struct kvm_msr_entry *entry = u.m.entries;

	*entry = (struct kvm_msr_entry){.index = MSR_MISC_ENABLE};
	if (KVMP_IOCTL(fd, KVM_GET_MSRS, &u) == 1) {
		entry->data |= MISC_ENABLE_FAST_STRINGS;
		if (KVMP_IOCTL(fd, KVM_SET_MSRS, &u) == 1)
			return 0;
	}
	return err_set(e, -EIO, "kvm: MSR %#x cannot be set", MSR_MISC_ENABLE);
}

int kvmp_vm_pit(int vm_fd, struct err *e)
{
	/* The speaker's port belongs to it: kernels measure time by it. */
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};

	if (KVMP_IOCTL(vm_fd, KVM_CREATE_PIT2, &pit) < 0)
		return err_sys(e, -errno, "kvm: in-kernel timer (PIT)");
	return 0;
}

void kvmp_vm_irq_line(int vm_fd, uint32_t gsi, bool level)
{
	struct kvm_irq_level line = {.irq = gsi, .level = level};

	/* Fails only for a GSI that does not exist. */
	(void)KVMP_IOCTL(vm_fd, KVM_IRQ_LINE, &line);
}

bool kvmp_vm_irq_is_expected(int vm_fd, uint32_t gsi)
{
	struct kvm_irqchip pic = {.chip_id = KVM_IRQCHIP_PIC_MASTER};
	struct kvm_irqchip ioapic = {.chip_id = KVM_IRQCHIP_IOAPIC};

	return KVMP_IOCTL(vm_fd, KVM_GET_IRQCHIP, &pic) < 0 ||
	       KVMP_IOCTL(vm_fd, KVM_GET_IRQCHIP, &ioapic) < 0 || pic.chip.pic.irq_base != 0 ||
	       !ioapic.chip.ioapic.redirtbl[gsi].fields.mask;
}

static struct kvm_segment flat_segment(uint16_t selector, uint8_t type, bool code)
{
	return (struct kvm_segment){
		.limit = 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.s = 1,
		.g = 1,
		.l = code,
		.db = !code,
	};
}

int kvmp_vcpu_long_mode(int fd, gpa_t cr3, uint64_t rip, uint64_t arg, struct err *e)
{
	struct kvm_regs regs = {.rip = rip, .rdi = arg, .rflags = 2};
	struct kvm_mp_state mp = {.mp_state = KVM_MP_STATE_RUNNABLE};
	struct kvm_sregs s;

	if (KVMP_IOCTL(fd, KVM_GET_SREGS, &s) < 0)
		return err_sys(e, -errno, "kvm: reading segment registers");
	s.cs = flat_segment(0x08, 11, true);
	s.ds = flat_segment(0x10, 3, false);
	s.es = s.fs = s.gs = s.ss = s.ds;
	s.cr3 = cr3.v;
	s.cr0 = 0x80050033;                /* PG AM WP NE ET MP PE */
	s.cr4 = 0x6a0;                     /* OSXMMEXCPT OSFXSR PGE PAE */
	s.efer = 0xd00;                    /* NXE LMA LME */
	if (KVMP_IOCTL(fd, KVM_SET_SREGS, &s) < 0)
		return err_sys(e, -errno, "kvm: entering 64-bit mode");
	/* The other processors too start here, without INIT and SIPI. */
	if (KVMP_IOCTL(fd, KVM_SET_REGS, &regs) < 0 || KVMP_IOCTL(fd, KVM_SET_MP_STATE, &mp) < 0)
		return err_sys(e, -errno, "kvm: first registers");
	return 0;
}

int kvmp_vcpu_enter(int fd, const struct kvmp_entry *entry, struct err *e)
{
	bool is_long = entry->mode == KVMP_LONG;
	struct kvm_mp_state mp = {.mp_state = KVM_MP_STATE_RUNNABLE};
	struct kvm_regs regs = {
		.rip = entry->rip,
		.rax = entry->rax,
		.rbx = entry->rbx,
		.rsi = entry->rsi,
		.rsp = entry->rsp,
		.rflags = 2,
	};
	struct kvm_sregs s;

	if (KVMP_IOCTL(fd, KVM_GET_SREGS, &s) < 0)
		return err_sys(e, -errno, "kvm: reading segment registers");
	s.cs = flat_segment(entry->code_selector, 11, is_long);
	s.ds = flat_segment(entry->data_selector, 3, false);
	s.es = s.fs = s.gs = s.ss = s.ds;
	/* A busy TSS: both modes have it as type 11 (SDM vol. 3, tables 3-2); PVH wants 0x67. */
	s.tr = (struct kvm_segment){
		.limit = 0x67, .selector = entry->tss_selector, .type = 11, .present = 1};
	s.gdt.base = entry->gdt.v;
	s.gdt.limit = entry->gdt_bytes ? entry->gdt_bytes - 1 : 0;
	s.idt.base = 0;
	s.idt.limit = 0;
	s.cr3 = is_long ? entry->cr3.v : 0;
	s.cr0 = is_long ? 0x80000011 : 0x11; /* PG, ET PE */
	s.cr4 = is_long ? 0x20 : 0;          /* PAE */
	s.efer = is_long ? 0x500 : 0;        /* LMA LME */
	if (KVMP_IOCTL(fd, KVM_SET_SREGS, &s) < 0)
		return err_sys(e, -errno, "kvm: entering %s mode",
			       is_long ? "64-bit" : "32-bit protected");
	if (KVMP_IOCTL(fd, KVM_SET_REGS, &regs) < 0 || KVMP_IOCTL(fd, KVM_SET_MP_STATE, &mp) < 0)
		return err_sys(e, -errno, "kvm: first registers");
	return 0;
}

uint64_t kvmp_tsc_khz(int fd)
{
	int khz = KVMP_IOCTL(fd, KVM_GET_TSC_KHZ, 0);

	return khz > 0 ? (uint64_t)khz : 0;
}
