/* SPDX-License-Identifier: Apache-2.0 */
/* See refusal.h. */
#include "rights/refusal.h"

#include <errno.h>
#include <grp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/types.h"
#include "rights/rights.h"

#define GROUPS_MAX 256
#define PATH_BYTES 512
#define LINE_BYTES 4096

static const char *const kind_names[] = {
	[REFUSAL_NOT_BUILT_IN] = "not built in",
	[REFUSAL_SWITCHED_OFF] = "switched off by sysctl",
	[REFUSAL_OFF_AT_BOOT] = "switched off at boot",
	[REFUSAL_FILTERED] = "filtered by seccomp",
	[REFUSAL_NOT_PERMITTED] = "not permitted here",
	[REFUSAL_IN_NAMESPACE] = "not permitted in this user namespace",
	[REFUSAL_MODULE] = "refused by a security module",
	[REFUSAL_LIMIT] = "at a limit",
	[REFUSAL_OTHER] = "failed",
};

const char *refusal_kind_name(enum refusal_kind kind)
{
	ASSERT((unsigned)kind < ARRAY_LEN(kind_names));
	return kind_names[kind];
}

/* What was refused, with its error, begins every `why`. */
static void __attribute__((format(printf, 2, 3))) refused(struct refusal *ret, const char *fmt,
							   ...)
{
	va_list ap;

	*ret = (struct refusal){.kind = REFUSAL_OTHER};
	va_start(ap, fmt);
	vsnprintf(ret->why, sizeof(ret->why), fmt, ap);
	va_end(ap);
}

static void means(struct refusal *ret, enum refusal_kind kind, const char *why)
{
	size_t used = strlen(ret->why);

	ret->kind = kind;
	snprintf(ret->why + used, sizeof(ret->why) - used, ": %s", why);
}

static void __attribute__((format(printf, 2, 3))) fix(struct refusal *ret, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(ret->fix, sizeof(ret->fix), fmt, ap);
	va_end(ap);
}

/* Where root has to give it. */
static const char *as_root(const struct rights *r)
{
	return r->namespaced ? "outside of this user namespace, as root: " : "as root: ";
}

/* True: it was, and that is told. The error's own words say what it means. */
static bool is_limit(int code, struct refusal *ret)
{
	ret->kind = REFUSAL_LIMIT;
	switch (code) {
	case -EMFILE:
		fix(ret, "raise the limit of open files (ulimit -n)");
		return true;
	case -ENFILE:
		fix(ret, "as root: raise sysctl fs.file-max");
		return true;
	case -ENOMEM:
		fix(ret, "free memory, or raise the limits of it (ulimit -l, ulimit -v, cgroup)");
		return true;
	default:
		ret->kind = REFUSAL_OTHER;
		return false;
	}
}

static void by_module(const struct rights *r, struct refusal *ret)
{
	char why[sizeof(r->module) + 32];

	if (r->confined)
		snprintf(why, sizeof(why), "%s, refuses it", r->module);
	else
		snprintf(why, sizeof(why), "a security module refuses it");
	means(ret, REFUSAL_MODULE, why);
	if (r->confined && strncmp(r->module, "SELinux", 7) == 0)
		fix(ret, "as root: ausearch -m avc -ts recent; it shows the rule that is missing");
	else
		fix(ret, "as root: dmesg; it shows the rule that is missing");
}

/*
 * A filter answers as it likes, EPERM where nobody has chosen; without one, somebody else stands
 * before the kernel. SELinux and AppArmor answer EACCES.
 */
static void by_filter(const struct rights *r, const char *call, int code, struct refusal *ret)
{
	if (r->filtered && !(code == -EACCES && r->confined)) {
		means(ret, REFUSAL_FILTERED, "a seccomp filter refuses it");
		fix(ret, "allow %s in the seccomp profile of the container or service", call);
	} else {
		by_module(r, ret);
	}
}

/* ENOSYS. built: a sysctl of it is there. */
static void by_kernel(const struct rights *r, const char *call, const char *option, bool built,
		      struct refusal *ret)
{
	if (built && !r->filtered) {
		means(ret, REFUSAL_OTHER, "this kernel has it, and what this runs in hides it");
		fix(ret, "allow %s in the sandbox around it", call);
	} else if (built) {
		means(ret, REFUSAL_FILTERED, "this kernel has it, a seccomp filter hides it");
		fix(ret, "allow %s in the seccomp profile of the container or service", call);
	} else if (r->filtered) {
		means(ret, REFUSAL_NOT_BUILT_IN,
		      "not in this kernel, or hidden by the seccomp filter");
		fix(ret, "allow %s in the seccomp profile, or use a kernel with %s", call, option);
	} else {
		means(ret, REFUSAL_NOT_BUILT_IN, "not in this kernel");
		fix(ret, "use a kernel with %s", option);
	}
}

/* ---- devices ---- */

/* Does the kernel have it, whatever this /dev shows? Rows of /proc/misc: "232 kvm". */
static bool in_misc(const char *root, const char *name)
{
	char path[PATH_BYTES], word[64];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "%s/proc/misc", root);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (!found && fscanf(f, "%*d %63s", word) == 1)
		found = strcmp(word, name) == 0;
	fclose(f);
	return found;
}

static bool in_group(const struct rights *r, gid_t gid)
{
	gid_t list[GROUPS_MAX];
	int n = getgroups(GROUPS_MAX, list);

	for (int i = 0; i < n; i++)
		if (list[i] == gid)
			return true;
	return r->gid == gid;
}

/* Would its mode let us read and write it? An ACL is not looked at: it only gives more. */
static bool mode_allows(const struct rights *r, const struct stat *st)
{
	if (r->caps >> RIGHTS_DAC_OVERRIDE & 1)
		return true;
	if (st->st_uid == r->uid)
		return (st->st_mode & 0600) == 0600;
	if (in_group(r, st->st_gid))
		return (st->st_mode & 0060) == 0060;
	return (st->st_mode & 0006) == 0006;
}

/* The group by which it can be had, or NULL: root's group is nobody's to join. */
static const char *group_of(const struct rights *r, const struct stat *st, char *buf, size_t bytes)
{
	struct group entry, *found = NULL;

	if (r->namespaced || st->st_gid == 0 || (st->st_mode & 0060) != 0060 ||
	    getgrgid_r(st->st_gid, &entry, buf, bytes, &found) != 0 || !found)
		return NULL;
	return found->gr_name;
}

/* How a device that is there is had: the one command. */
static void give_device(const char *root, const char *path, const struct rights *r,
			struct refusal *ret)
{
	char full[PATH_BYTES], buf[1024];
	const char *group = NULL;
	struct stat st;

	snprintf(full, sizeof(full), "%s%s", root, path);
	if (stat(full, &st) == 0)
		group = group_of(r, &st, buf, sizeof(buf));
	if (group)
		fix(ret, "as root: usermod -aG %s %s; then log in again", group, r->user);
	else
		fix(ret, "%ssetfacl -m u:%s:rw %s", as_root(r), r->user, path);
}

/* EACCES, and its mode is not why. In a namespace: what everybody may, whoever owns it. */
static bool mode_is_no_reason(const char *root, const char *path, const struct rights *r)
{
	char full[PATH_BYTES];
	struct stat st;

	snprintf(full, sizeof(full), "%s%s", root, path);
	if (stat(full, &st) < 0)
		return false;
	if (r->namespaced)
		return r->confined && (st.st_mode & 0666) == 0666;
	return mode_allows(r, &st);
}

static void mode_refuses(const char *root, const char *path, const struct rights *r,
			 struct refusal *ret)
{
	if (mode_is_no_reason(root, path, r)) {
		by_module(r, ret);
		return;
	}
	if (r->namespaced)
		means(ret, REFUSAL_IN_NAMESPACE, "root of a user namespace is not the device's");
	else
		means(ret, REFUSAL_NOT_PERMITTED, "its mode does not let this user in");
	give_device(root, path, r, ret);
}

/* "vmx", "svm" or NULL: the first line of flags of /proc/cpuinfo. */
static const char *virtualisation(const char *root)
{
	static char *const words[] = {" vmx", " svm"};
	char path[PATH_BYTES], line[LINE_BYTES];
	const char *found = NULL;
	FILE *f;

	snprintf(path, sizeof(path), "%s/proc/cpuinfo", root);
	f = fopen(path, "re");
	if (!f)
		return NULL;
	while (fgets(line, sizeof(line), f))
		if (strncmp(line, "flags", 5) == 0) {
			for (size_t i = 0; i < ARRAY_LEN(words); i++)
				if (strstr(line, words[i]))
					found = words[i] + 1;
			break;
		}
	fclose(f);
	return found;
}

static void kvm_is_absent(const char *root, struct refusal *ret)
{
	const char *flag = virtualisation(root);

	if (in_misc(root, "kvm")) {
		means(ret, REFUSAL_NOT_PERMITTED,
		      "this kernel has KVM, but its device is not here");
		fix(ret, "give the container the device: docker run --device /dev/kvm");
	} else if (flag) {
		means(ret, REFUSAL_NOT_BUILT_IN, "the module is not loaded");
		fix(ret, "as root: modprobe kvm_%s", strcmp(flag, "vmx") == 0 ? "intel" : "amd");
	} else {
		means(ret, REFUSAL_NOT_BUILT_IN, "the processor offers no virtualisation");
		fix(ret, "switch it on in the firmware, or nesting in the outer hypervisor");
	}
}

void refusal_kvm(const char *root, int code, struct refusal *ret)
{
	struct rights r;

	rights_read(root, &r);
	refused(ret, "/dev/kvm: %s", strerror(-code));
	if (is_limit(code, ret))
		return;
	switch (code) {
	case -ENOENT:
	case -ENXIO:
	case -ENODEV:
		kvm_is_absent(root, ret);
		return;
	case -EACCES:
		mode_refuses(root, "/dev/kvm", &r, ret);
		return;
	case -EPERM:
		means(ret, REFUSAL_NOT_PERMITTED, "the container's list of devices refuses it");
		fix(ret, "give the container the device: docker run --device /dev/kvm");
		return;
	default:
		fix(ret, "as root: dmesg; KVM says more there");
		return;
	}
}

/* ---- userfaultfd ---- */

#define UFFD_DEVICE "/dev/userfaultfd"

/* By its device, which needs no capability. False: it has none here. */
static bool uffd_by_device(const char *root, int device, const struct rights *r,
			   struct refusal *ret)
{
	if (device == -EACCES) {
		give_device(root, UFFD_DEVICE, r, ret);
		return true;
	}
	if (device == -EPERM || in_misc(root, "userfaultfd")) {
		fix(ret, "give the container the device: docker run --device " UFFD_DEVICE);
		return true;
	}
	return false;
}

static void uffd_needs_right(const char *root, int device, const struct rights *r,
			     struct refusal *ret)
{
	if (device == -EACCES && r->confined && mode_is_no_reason(root, UFFD_DEVICE, r)) {
		by_module(r, ret);
		return;
	}
	if (r->namespaced)
		means(ret, REFUSAL_IN_NAMESPACE, "no capability in here counts for it");
	else
		means(ret, REFUSAL_NOT_PERMITTED,
		      "faults of the kernel's, as KVM's are, need a right");
	if (uffd_by_device(root, device, r, ret))
		return;
	/* Before Linux 6.1: a capability, or a sysctl. */
	if (!r->namespaced)
		ret->kind = REFUSAL_SWITCHED_OFF;
	fix(ret, "%ssysctl -w vm.unprivileged_userfaultfd=1", as_root(r));
}

void refusal_userfaultfd(const char *root, const struct refusal_userfaultfd *tried,
			 struct refusal *ret)
{
	long long everybody = 0;
	struct rights r;
	bool built;

	rights_read(root, &r);
	built = rights_number(root, "/proc/sys/vm/unprivileged_userfaultfd", &everybody) ||
		in_misc(root, "userfaultfd");
	refused(ret, "userfaultfd(2): %s, " UFFD_DEVICE ": %s", strerror(-tried->call),
		strerror(-tried->device));
	if (is_limit(tried->call, ret) || is_limit(tried->device, ret))
		return;
	if (tried->call == -ENOSYS) {
		by_kernel(&r, "userfaultfd", "CONFIG_USERFAULTFD", built, ret);
		if (ret->kind == REFUSAL_FILTERED && tried->device == -EACCES)
			give_device(root, UFFD_DEVICE, &r, ret);
	} else if (tried->user_only == 0 && everybody == 0 && !rights_has(&r, RIGHTS_SYS_PTRACE)) {
		uffd_needs_right(root, tried->device, &r, ret);
	} else {
		/* The kernel itself would not have refused. */
		by_filter(&r, "userfaultfd", tried->call, ret);
	}
}

/* ---- io_uring ---- */

static void uring_is_off(const char *root, const struct rights *r, long long disabled,
			 struct refusal *ret)
{
	long long gid = -1;
	struct group entry, *found = NULL;
	char buf[1024], why[64];

	snprintf(why, sizeof(why), "kernel.io_uring_disabled is %lld", disabled);
	means(ret, REFUSAL_SWITCHED_OFF, why);
	if (disabled == 1 && !r->namespaced &&
	    rights_number(root, "/proc/sys/kernel/io_uring_group", &gid) && gid > 0 &&
	    getgrgid_r((gid_t)gid, &entry, buf, sizeof(buf), &found) == 0 && found)
		fix(ret, "as root: usermod -aG %s %s; then log in again", found->gr_name, r->user);
	else
		fix(ret, "%ssysctl -w kernel.io_uring_disabled=0", as_root(r));
}

void refusal_io_uring(const char *root, const char *call, int code, struct refusal *ret)
{
	/* Where the first is refused, the others will be. */
	bool first = strcmp(call, "io_uring_setup") == 0;
	const char *calls = first ? "io_uring_setup, io_uring_enter and io_uring_register" : call;
	long long disabled = 0;
	struct rights r;
	bool built;

	rights_read(root, &r);
	built = rights_number(root, "/proc/sys/kernel/io_uring_disabled", &disabled);
	refused(ret, "%s: %s", call, strerror(-code));
	if (is_limit(code, ret))
		return;
	if (code == -ENOSYS)
		by_kernel(&r, calls, "CONFIG_IO_URING", built, ret);
	else if (code == -EPERM && (disabled == 2 || (disabled == 1 &&
						       !rights_has(&r, RIGHTS_SYS_ADMIN))))
		uring_is_off(root, &r, disabled, ret);
	else if (code == -EPERM || code == -EACCES)
		by_filter(&r, calls, code, ret);
	else
		fix(ret, "use Linux 6.6 or later");
}

/* ---- memfd ---- */

void refusal_memfd(const char *root, int code, struct refusal *ret)
{
	long long noexec = 0;
	struct rights r;

	rights_read(root, &r);
	(void)rights_number(root, "/proc/sys/vm/memfd_noexec", &noexec);
	refused(ret, "memfd_create: %s", strerror(-code));
	if (is_limit(code, ret))
		return;
	if (code == -ENOSYS) {
		/* Every kernel that has the rest of what is needed has it. */
		by_kernel(&r, "memfd_create", "CONFIG_MEMFD_CREATE", r.filtered, ret);
	} else if (code == -EACCES && noexec == 2) {
		means(ret, REFUSAL_SWITCHED_OFF, "vm.memfd_noexec is 2");
		fix(ret, "%ssysctl -w vm.memfd_noexec=1", as_root(&r));
	} else if (code == -EPERM || code == -EACCES) {
		by_filter(&r, "memfd_create", code, ret);
	} else {
		fix(ret, "as root: dmesg; the kernel says more there");
	}
}

/* ---- what a sandbox is made of ---- */

/* Is the word in the file? No: also where there is no such file. */
static bool says(const char *root, const char *name, const char *word)
{
	char path[PATH_BYTES], line[LINE_BYTES] = "";
	FILE *f;

	snprintf(path, sizeof(path), "%s%s", root, name);
	f = fopen(path, "re");
	if (!f)
		return false;
	if (!fgets(line, sizeof(line), f))
		line[0] = '\0';
	fclose(f);
	return strstr(line, word) != NULL;
}

void refusal_seccomp(const char *root, int code, struct refusal *ret)
{
	struct rights r;

	rights_read(root, &r);
	refused(ret, "seccomp: %s", strerror(-code));
	if (code == -ENOSYS)
		by_kernel(&r, "seccomp", "CONFIG_SECCOMP_FILTER",
			  says(root, "/proc/sys/kernel/seccomp/actions_avail", "trap"), ret);
	else if (code == -EPERM || code == -EACCES)
		by_filter(&r, "seccomp", code, ret);
	else
		fix(ret, "use Linux 4.14 or later");
}

void refusal_landlock(const char *root, int code, struct refusal *ret)
{
	const char *calls = "landlock_create_ruleset, landlock_add_rule and "
			    "landlock_restrict_self";
	struct rights r;

	rights_read(root, &r);
	refused(ret, "Landlock: %s", strerror(-code));
	if (code == -ENOSYS) {
		by_kernel(&r, calls, "CONFIG_SECURITY_LANDLOCK",
			  says(root, "/sys/kernel/security/lsm", "landlock"), ret);
	} else if (code == -EOPNOTSUPP) {
		means(ret, REFUSAL_OFF_AT_BOOT, "in this kernel, and not among its lsm=");
		fix(ret, "boot with lsm=landlock, and after a comma what /sys/kernel/security/lsm "
			 "has now");
	} else if (code == -EPERM || code == -EACCES) {
		by_filter(&r, calls, code, ret);
	} else {
		fix(ret, "as root: dmesg; the kernel says more there");
	}
}

void refusal_capabilities(const char *root, int code, struct refusal *ret)
{
	struct rights r;

	/* Every kernel has it, and everybody may have less. */
	rights_read(root, &r);
	refused(ret, "capset: %s", strerror(-code));
	by_filter(&r, "capget and capset", code, ret);
}

int refusal_err(const struct refusal *r, int code, struct err *e)
{
	return err_set(e, code, "%s; %s", r->why, r->fix);
}
