/* SPDX-License-Identifier: Apache-2.0 */
/* Tests that cannot say anything without /dev/kvm. */
#ifndef TEST_NEED_KVM_H
#define TEST_NEED_KVM_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Says so where there is none. */
static inline bool have_kvm(void)
{
	if (access("/dev/kvm", R_OK | W_OK) == 0)
		return true;
	printf("SKIP: /dev/kvm: %m\n");
	return false;
}

/* Ends the program as one that was left out. Before its first test. */
static inline void need_kvm(void)
{
	if (!have_kvm())
		exit(77);
}

#endif
