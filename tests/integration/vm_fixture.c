/* SPDX-License-Identifier: Apache-2.0 */
/* See vm_fixture.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io_way.h"
#include "vm_fixture.h"

#define LIMIT_S 15 /* no test takes a fifth of it */
#define CPUID_MAX 256

int vm_ioctl(int fd, unsigned long request, void *arg)
{
	int rc;

	do
		rc = ioctl(fd, request, arg);
	while (rc < 0 && errno == EINTR);
	if (rc < 0)
		print_error("ioctl %#lx: %s\n", request, strerror(errno));
	assert_true(rc >= 0);
	return rc;
}

void vm_open(struct vm *v)
{
	memset(v, 0, sizeof(*v));
	v->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	assert_true(v->kvm >= 0);
	v->fd = VM_CALL(v->kvm, KVM_CREATE_VM, 0);
	VM_CALL(v->fd, KVM_CREATE_IRQCHIP, 0);
	apf_config_init(&v->config);
	v->config.io = io_way();
	v->config.source_timeout_ms = 0; /* a source that never answers is no trouble here */
}

static void ok(const struct vm *v, int rc)
{
	if (rc < 0)
		print_error("%s\n", v->error.text);
	assert_int_equal(rc, 0);
}

void vm_tables(struct vm *v)
{
	/* One table each, and 16 large pages to 32 MiB for user mode, as they are. */
	const uint64_t up[2] = {(VM_TABLES + 0x1000) | 0x27, (VM_TABLES + 0x2000) | 0x27};
	uint64_t large[16];

	for (unsigned i = 0; i < 16; i++)
		large[i] = (uint64_t)i << 21 | 0xe7;
	ok(v, apf_write(v->apf, VM_TABLES, &up[0], 8));
	ok(v, apf_write(v->apf, VM_TABLES + 0x1000, &up[1], 8));
	ok(v, apf_write(v->apf, VM_TABLES + 0x2000, large, sizeof(large)));
	ok(v, apf_write(v->apf, VM_WORD, &(uint32_t){0}, 4));
	/* The task state segment with its map of allowed ports, which KVM's emulator reads. */
	ok(v, apf_write(v->apf, 0, &(uint32_t){0}, 4));
}

void vm_memory_with(struct vm *v, uint64_t gpa, uint64_t bytes, const char *uri)
{
	ok(v, apf_open(v->fd, &v->config, &v->apf, &v->error));
	ok(v, apf_memory_add(v->apf, 0, VM_RAM, &v->error));
	if (uri)
		ok(v, apf_source_add(v->apf, gpa, bytes, uri, 0, NULL, &v->error));
	ok(v, apf_start(v->apf, &v->error));
	vm_tables(v);
}

void vm_memory(struct vm *v, const char *uri)
{
	vm_memory_with(v, VM_DATA, VM_DATA_BYTES, uri);
}

void vm_slot(struct vm *v, unsigned slot, uint64_t gpa, uint64_t bytes, uint32_t flags)
{
	struct kvm_userspace_memory_region r = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = bytes,
		.userspace_addr = (uintptr_t)apf_memory_hva(v->apf, gpa),
	};

	VM_CALL(v->fd, KVM_SET_USER_MEMORY_REGION, &r);
}

static void cpuid(const struct vm *v)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + CPUID_MAX * sizeof(c->entries[0]));

	assert_non_null(c);
	c->nent = CPUID_MAX;
	VM_CALL(v->kvm, KVM_GET_SUPPORTED_CPUID, c);
	for (unsigned i = 0; i < c->nent; i++)
		if (c->entries[i].function == 0x40000001)
			c->entries[i].eax = apf_cpuid_features(v->apf, c->entries[i].eax);
	VM_CALL(v->vcpu_fd, KVM_SET_CPUID2, c);
	free(c);
}

void vm_vcpu(struct vm *v)
{
	size_t bytes = (size_t)VM_CALL(v->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

	v->vcpu_fd = VM_CALL(v->fd, KVM_CREATE_VCPU, 0);
	v->run = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->vcpu_fd, 0);
	assert_ptr_not_equal(v->run, MAP_FAILED);
	cpuid(v);
	ok(v, apf_vcpu_attach(v->apf, 0, v->vcpu_fd, v->run, 0, &v->vcpu, &v->error));
}

void vm_start(struct vm *v, const char *uri)
{
	vm_memory(v, uri);
	vm_slot(v, 0, 0, VM_RAM, 0);
	vm_vcpu(v);
}

void vm_user(struct vm *v, const void *code, size_t len)
{
	struct kvm_segment cs = {.limit = ~0u,
				 .selector = 0x2b,
				 .type = 11,
				 .present = 1,
				 .s = 1,
				 .g = 1,
				 .l = 1,
				 .dpl = 3};
	struct kvm_segment ss = {.limit = ~0u,
				 .selector = 0x33,
				 .type = 3,
				 .present = 1,
				 .s = 1,
				 .g = 1,
				 .db = 1,
				 .dpl = 3};
	/* I/O privilege level 3: user mode may use ports. */
	struct kvm_regs r = {.rip = VM_CODE, .rflags = 0x3002, .rsp = VM_WORD};
	struct kvm_sregs s;

	ok(v, apf_write(v->apf, VM_CODE, code, len));
	VM_CALL(v->vcpu_fd, KVM_GET_SREGS, &s);
	s.cs = cs;
	s.ss = s.ds = s.es = s.fs = s.gs = ss;
	s.cr3 = VM_TABLES;
	s.cr4 = 0x6a0;
	s.cr0 = 0x80050033;
	s.efer = 0xd00;
	VM_CALL(v->vcpu_fd, KVM_SET_SREGS, &s);
	VM_CALL(v->vcpu_fd, KVM_SET_REGS, &r);
}

void vm_real(struct vm *v, const void *code, size_t len)
{
	struct kvm_regs r = {.rip = VM_CODE, .rflags = 2, .rsp = VM_WORD};
	struct kvm_sregs s;

	ok(v, apf_write(v->apf, VM_CODE, code, len));
	VM_CALL(v->vcpu_fd, KVM_GET_SREGS, &s);
	s.cs.base = 0;
	s.cs.selector = 0;
	VM_CALL(v->vcpu_fd, KVM_SET_SREGS, &s);
	VM_CALL(v->vcpu_fd, KVM_SET_REGS, &r);
}

/* ---- running ---- */

static void *go(void *arg)
{
	struct vm *v = arg;

	v->rc = apf_vcpu_run(v->vcpu);
	__atomic_store_n(&v->returned, 1, __ATOMIC_RELEASE);
	return NULL;
}

void vm_go(struct vm *v)
{
	v->returned = 0;
	v->run->exit_reason = KVM_EXIT_DEBUG; /* not what any of the tests ends with */
	assert_int_equal(pthread_create(&v->thread, NULL, go, v), 0);
}

int vm_join(struct vm *v)
{
	pthread_join(v->thread, NULL);
	return v->rc;
}

void vm_until_exit(struct vm *v, uint32_t exit_reason)
{
	int rc;

	do
		rc = apf_vcpu_run(v->vcpu);
	while (rc == -EINTR);
	assert_int_equal(rc, 0);
	if (v->run->exit_reason != exit_reason)
		print_error("exit %u at %#llx, cr2 %#llx\n", v->run->exit_reason, vm_regs(v).rip,
			    v->run->s.regs.sregs.cr2);
	assert_int_equal(v->run->exit_reason, exit_reason);
}

void vm_is_interrupted(const struct vm *v, int rc)
{
	assert_int_equal(rc, -EINTR);
	assert_int_equal(v->run->exit_reason, KVM_EXIT_INTR);
	assert_int_equal(v->run->kvm_dirty_regs, 0);
}

void vm_until_counting(struct vm *v)
{
	uint32_t first = vm_word(v);

	while (vm_word(v) == first)
		usleep(1000);
}

static struct apf_vcpu_stats stats(struct vm *v)
{
	struct apf_vcpu_stats s = {.size = sizeof(s)};

	apf_vcpu_stats_get(v->vcpu, &s);
	return s;
}

void vm_until_fault(struct vm *v)
{
	struct apf_stats s = {.size = sizeof(s)};

	do {
		usleep(1000);
		apf_stats_get(v->apf, &s);
	} while (s.reads == 0);
	usleep(20000); /* the thread has asked for the page, and is about to wait */
}

void vm_until_stall(struct vm *v)
{
	while (stats(v).stalls == 0)
		usleep(1000);
	usleep(20000);
}

static void *read_data(void *arg)
{
	struct vm_reading *r = arg;

	r->rc = apf_read(r->v.apf, VM_DATA, r->got, sizeof(r->got));
	return NULL;
}

void vm_read_begin(struct vm_reading *r)
{
	assert_int_equal(pthread_create(&r->thread, NULL, read_data, r), 0);
}

void vm_read_end(struct vm_reading *r)
{
	assert_int_equal(pthread_join(r->thread, NULL), 0);
}

uint32_t vm_word(struct vm *v)
{
	uint32_t w;

	assert_int_equal(apf_read(v->apf, VM_WORD, &w, 4), 0);
	return w;
}

/* ---- KVM's state ---- */

struct kvm_regs vm_regs(const struct vm *v)
{
	struct kvm_regs r;

	VM_CALL(v->vcpu_fd, KVM_GET_REGS, &r);
	return r;
}

uint32_t vm_mp_state(const struct vm *v)
{
	struct kvm_mp_state mp;

	VM_CALL(v->vcpu_fd, KVM_GET_MP_STATE, &mp);
	return mp.mp_state;
}

/* struct kvm_msrs with its one entry */
struct one_msr {
	uint32_t count, pad;
	struct kvm_msr_entry entry;
};

#define GP 13
#define GP_HANDLER (VM_CODE + 0x80)

bool vm_wrmsr_raises(struct vm *v, unsigned msr, uint32_t value)
{
	static const unsigned char handler[] = {0xb0, GP, 0xe6, VM_PORT}; /* mov al, GP; out */
	static const uint32_t vector = GP_HANDLER;

	ok(v, apf_write(v->apf, GP * sizeof(vector), &vector, sizeof(vector)));
	ok(v, apf_write(v->apf, GP_HANDLER, handler, sizeof(handler)));
	VM_REAL(v, VM_WRMSR(msr, value), 0xb0, 0, 0xe6, VM_PORT);
	vm_until_exit(v, KVM_EXIT_IO);
	return ((const unsigned char *)v->run)[v->run->io.data_offset] == GP;
}

void vm_set_msr(const struct vm *v, uint32_t msr, uint64_t value)
{
	struct one_msr m = {.count = 1, .entry = {.index = msr, .data = value}};

	assert_int_equal(VM_CALL(v->vcpu_fd, KVM_SET_MSRS, &m), 1);
}

uint64_t vm_get_msr(const struct vm *v, uint32_t msr)
{
	struct one_msr m = {.count = 1, .entry = {.index = msr}};

	assert_int_equal(VM_CALL(v->vcpu_fd, KVM_GET_MSRS, &m), 1);
	return m.entry.data;
}

void vm_move(struct vm *from, struct vm *to, const char *uri)
{
	static unsigned char low[VM_DATA];
	struct kvm_sregs sregs;
	struct kvm_regs regs = vm_regs(from);
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp;
	size_t len = apf_vcpu_save(from->vcpu, NULL, 0);
	void *ours = malloc(len);

	VM_CALL(from->vcpu_fd, KVM_GET_MP_STATE, &mp);
	VM_CALL(from->vcpu_fd, KVM_GET_SREGS, &sregs);
	VM_CALL(from->vcpu_fd, KVM_GET_LAPIC, &lapic);
	VM_CALL(from->vcpu_fd, KVM_GET_VCPU_EVENTS, &events);
	len = apf_vcpu_save(from->vcpu, ours, len);
	assert_int_equal(apf_read(from->apf, 0, low, sizeof(low)), 0);
	vm_start(to, uri);
	assert_int_equal(apf_write(to->apf, 0, low, sizeof(low)), 0);
	VM_CALL(to->vcpu_fd, KVM_SET_SREGS, &sregs);
	VM_CALL(to->vcpu_fd, KVM_SET_REGS, &regs);
	VM_CALL(to->vcpu_fd, KVM_SET_LAPIC, &lapic);
	VM_CALL(to->vcpu_fd, KVM_SET_VCPU_EVENTS, &events);
	VM_CALL(to->vcpu_fd, KVM_SET_MP_STATE, &mp);
	assert_int_equal(apf_vcpu_restore(to->vcpu, ours, len), 0);
	free(ours);
}

/* ---- a process for each test ---- */

static const struct vm_case *inner;

static void alone(void **state)
{
	static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGSYS};

	/* cmocka's handlers would jump out of any thread. */
	for (unsigned i = 0; i < sizeof(fatal) / sizeof(fatal[0]); i++)
		signal(fatal[i], SIG_DFL);
	*state = inner->arg;
	inner->run(state);
}

void vm_in_child(void **state)
{
	const struct CMUnitTest one[] = {cmocka_unit_test(alone)};
	int status;
	pid_t child;

	fflush(NULL);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		inner = *state;
		alarm(LIMIT_S);
		int failed = cmocka_run_group_tests(one, NULL, NULL);

		fflush(NULL);
		_exit(failed != 0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFSIGNALED(status))
		print_error("%s\n", WTERMSIG(status) == SIGALRM ? "it did not end"
								: strsignal(WTERMSIG(status)));
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int vm_numbered_image(uint64_t bytes, char *uri, size_t len)
{
	int fd = memfd_create("image", MFD_CLOEXEC);

	assert_true(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
	for (uint32_t page = 0; page < bytes / 4096; page++)
		assert_int_equal(pwrite(fd, &page, sizeof(page), (off_t)page * 4096), sizeof(page));
	snprintf(uri, len, "file:/proc/self/fd/%d", fd);
	return fd;
}
