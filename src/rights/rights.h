/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this process is to the kernel: its user, its capabilities, and what stands around it, a
 * seccomp filter, a user namespace, a security module. Read from /proc and /sys; what cannot be
 * read is not there. Test: tests/unit/refusal_test.c.
 */
#ifndef RIGHTS_RIGHTS_H
#define RIGHTS_RIGHTS_H

#include <stdbool.h>
#include <stdint.h>

struct rights {
	unsigned uid, gid;   /* effective, in our own user namespace */
	uint64_t caps;       /* effective */
	bool filtered;       /* a seccomp filter looks at our system calls */
	bool namespaced;     /* in a user namespace: no capability counts outside of it */
	char user[48];       /* as usermod and setfacl take it, outside of the namespace */
	/* "SELinux, enforcing, as LABEL", "SELinux, as LABEL", "AppArmor, as PROFILE"; "": none */
	char module[120];
	bool confined; /* by that module: it refuses things to us, and does not only note them */
};

enum {
	RIGHTS_DAC_OVERRIDE = 1,
	RIGHTS_SYS_PTRACE = 19,
	RIGHTS_SYS_ADMIN = 21,
	RIGHTS_SYS_RESOURCE = 24,
};

/* root: what stands before /proc and /sys; "" but for tests. Blocks; any thread. */
void rights_read(const char *root, struct rights *ret);

/* The capability, where it counts: with the kernel's own user namespace. */
bool rights_has(const struct rights *r, unsigned capability);

/*
 * A number in a file: /proc/sys/…. False: there is no such file, or nothing that begins with a
 * number.
 */
bool rights_number(const char *root, const char *path, long long *ret);

#endif
