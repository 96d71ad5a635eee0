/* SPDX-License-Identifier: Apache-2.0 */
/* A test program without /dev/kvm cannot say anything. */
#ifndef TEST_NEED_KVM_H
#define TEST_NEED_KVM_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Ends the program as one that was left out. Before its first test. */
static inline void need_kvm(void)
{
	if (access("/dev/kvm", R_OK | W_OK) == 0)
		return;
	printf("SKIP: /dev/kvm: %m\n");
	exit(77);
}

#endif
