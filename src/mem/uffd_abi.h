/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of <linux/userfaultfd.h> that are newer than the headers of the oldest
 * distribution we build on (Debian 12 ships those of Linux 6.1). Values: Linux 6.6,
 * Documentation/admin-guide/mm/userfaultfd.rst.
 */
#ifndef MEM_UFFD_ABI_H
#define MEM_UFFD_ABI_H

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#ifndef UFFD_FEATURE_POISON
#define UFFD_FEATURE_POISON (1 << 14)
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated; /* bytes done, or -Exxx */
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

#endif
