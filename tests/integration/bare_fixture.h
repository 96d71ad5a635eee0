/* SPDX-License-Identifier: Apache-2.0 */
/* A real VM without vCPUs, whose configuration each test makes. */
#ifndef TESTS_INTEGRATION_BARE_FIXTURE_H
#define TESTS_INTEGRATION_BARE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <asyncpf/asyncpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/types.h"

#define MIB (1ull << 20)

static struct apf_error error;

static inline int open_vm(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm;

	assert_true(kvm >= 0);
	do
		vm = ioctl(kvm, KVM_CREATE_VM, 0);
	while (vm < 0 && errno == EINTR);
	close(kvm);
	assert_true(vm >= 0);
	assert_int_equal(ioctl(vm, KVM_CREATE_IRQCHIP, 0), 0);
	return vm;
}

static inline struct apf *start(int vm, const struct apf_config *c, uint64_t bytes)
{
	struct apf *a;

	if (apf_open(vm, c, &a, &error) < 0 || apf_memory_add(a, 0, bytes, &error) < 0 ||
	    apf_start(a, &error) < 0)
		fail_msg("%s", error.text);
	return a;
}

#endif
