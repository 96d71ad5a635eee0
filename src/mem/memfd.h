/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that nobody will execute, where the kernel can be told so: vm.memfd_noexec=2 wants it. */
#ifndef MEM_MEMFD_H
#define MEM_MEMFD_H

#include <errno.h>
#include <sys/mman.h>

/* A descriptor, close-on-exec; -1 and errno. */
static inline int memfd_new(const char *name)
{
	const unsigned noexec_seal = 8; /* MFD_NOEXEC_SEAL of linux/memfd.h, since 6.3 */
	int fd = memfd_create(name, MFD_CLOEXEC | noexec_seal);

	return fd < 0 && errno == EINVAL ? memfd_create(name, MFD_CLOEXEC) : fd;
}

#endif
