/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that was built with the first header (0.1/) and runs with today's library: the
 * structs that it passes are as large as they were then, what lies behind them stays as it
 * is, and everything works. See meson.build. Exit code 77: there is no KVM.
 */
#include <asyncpf/asyncpf.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM (2u << 20)
#define BEHIND 4096

/* In front of it lies a struct of the library's. */
struct own {
	unsigned char bytes[BEHIND];
};

static int failures;

static void must(int ok, const char *what)
{
	if (ok)
		return;
	printf("not so: %s\n", what);
	failures++;
}

static void fill(struct own *o)
{
	memset(o->bytes, 0xee, sizeof(o->bytes));
}

static int untouched(const struct own *o)
{
	for (unsigned i = 0; i < BEHIND; i++)
		if (o->bytes[i] != 0xee)
			return 0;
	return 1;
}

static int open_vm(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);

	if (kvm >= 0)
		close(kvm);
	if (vm >= 0 && ioctl(vm, KVM_CREATE_IRQCHIP, 0) < 0)
		return -1;
	return vm;
}

static struct {
	struct apf_config c;
	struct own behind;
} config;

static struct apf *start(int vm)
{
	struct apf_error e = {0, ""};
	struct apf *a = NULL;

	fill(&config.behind);
	apf_config_init(&config.c);
	must(config.c.size == sizeof(config.c), "the size that the header had");
	must(config.c.vcpus_max == 1 && config.c.faults_max == 256, "the defaults");
	must(untouched(&config.behind), "apf_config_init keeps to the struct");
	if (apf_open(vm, &config.c, &a, &e) < 0 || apf_memory_add(a, 0, RAM, &e) < 0 ||
	    apf_source_add(a, 0, RAM, "zero:?size=2M", 0, NULL, &e) < 0 || apf_start(a, &e) < 0) {
		printf("%s\n", e.text);
		return NULL;
	}
	return a;
}

static void check_stats(struct apf *a)
{
	static struct {
		struct apf_stats s;
		struct own behind;
	} full;
	/* A header before it would have had less. */
	static struct {
		struct {
			size_t size;
			uint64_t bytes, bytes_present, faults;
		} s;
		struct own behind;
	} less;

	for (int i = 0; i < 3; i++) {
		memset(&full.s, 0xaa, sizeof(full.s));
		memset(&less.s, 0xaa, sizeof(less.s));
		fill(&full.behind);
		fill(&less.behind);
		full.s.size = sizeof(full.s);
		if (i == 0)
			less.s.size = sizeof(less.s);
		else
			less.s.size = 3 * sizeof(uint64_t); /* bytes_present is the last */
		apf_stats_get(a, &full.s);
		apf_stats_get(a, (struct apf_stats *)(void *)&less.s);
		must(full.s.size == sizeof(full.s), "the caller's size is the caller's");
		must(less.s.size == (i == 0 ? sizeof(less.s) : 24), "a smaller one, too");
		must(full.s.bytes == RAM && less.s.bytes == RAM, "guest RAM");
		must(full.s.bytes_present == RAM / 2 && less.s.bytes_present == RAM / 2,
		     "what was populated");
		must(full.s.reads == RAM / 2 / 4096, "reads");
		must(full.s.bytes_read == RAM / 2, "bytes that were read");
		must(full.s.hold_ns_max == 0, "the last member");
		must(less.s.faults == (i == 0 ? 0 : 0xaaaaaaaaaaaaaaaaull), "behind the size");
		must(untouched(&full.behind) && untouched(&less.behind), "no more is written");
	}
}

static void check_vcpu(struct apf *a, int vm)
{
	static struct {
		struct apf_vcpu_stats s;
		struct own behind;
	} vs;
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int fd = ioctl(vm, KVM_CREATE_VCPU, 0);
	struct kvm_run *run = mmap(NULL, (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0),
				   PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	struct apf_error e = {0, ""};
	struct apf_vcpu *v;

	close(kvm);
	if (apf_vcpu_attach(a, 0, fd, run, 0, &v, &e) < 0) {
		must(0, e.text);
		return;
	}
	fill(&vs.behind);
	memset(&vs.s, 0xaa, sizeof(vs.s));
	vs.s.size = sizeof(vs.s);
	apf_vcpu_stats_get(v, &vs.s);
	must(vs.s.size == sizeof(vs.s), "the vCPU's size is the caller's");
	must(vs.s.faults == 0 && vs.s.outstanding == 0, "a vCPU that never ran");
	must(untouched(&vs.behind), "no more of a vCPU is written");
}

int main(void)
{
	int vm = open_vm();
	unsigned char byte = 1;
	struct apf *a;

	if (vm < 0) {
		printf("SKIP: /dev/kvm: %m\n");
		return 77;
	}
	a = start(vm);
	if (!a)
		return 1;
	must(apf_populate(a, 0, RAM / 2) == 0, "populate");
	check_stats(a);
	check_vcpu(a, vm);
	must(apf_write(a, 5, &byte, 1) == 0, "write");
	byte = 0;
	must(apf_read(a, 5, &byte, 1) == 0 && byte == 1, "read");
	apf_close(a);
	close(vm);
	return failures ? 1 : 0;
}
