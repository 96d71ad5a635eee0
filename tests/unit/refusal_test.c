/* SPDX-License-Identifier: Apache-2.0 */
/* rights/refusal.c and rights.c on hosts that are made of files: one word for each kind. */
#include "root_fixture.h"

#include <errno.h>
#include <unistd.h>

#include "base/types.h"
#include "rights/refusal.h"
#include "rights/rights.h"

/* As /proc/self/status and uid_map have it. */
#define USER "Uid:\t4242\t4242\t4242\t4242\nGid:\t4242\t4242\t4242\t4242\nCapEff:\t0\n"
#define ROOT "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n"
#define FREE "Seccomp:\t0\n"
#define FILTERED "Seccomp:\t2\n"
#define FIRST_NAMESPACE "         0          0 4294967295\n"
#define INNER_NAMESPACE "         0       4242          1\n"

#define PROFILE "in the seccomp profile of the container or service"

static void host(const char *status, const char *uid_map)
{
	clear();
	put("/proc/self/status", status);
	put("/proc/self/uid_map", uid_map);
}

static void check(const struct refusal *r, enum refusal_kind kind, const char *why,
		  const char *fix)
{
	assert_string_equal(refusal_kind_name(r->kind), refusal_kind_name(kind));
	assert_string_equal(r->why, why);
	assert_string_equal(r->fix, fix);
}

/* ---- userfaultfd ---- */

static void uffd(int call, int device, int user_only, enum refusal_kind kind, const char *means,
		 const char *fix)
{
	const struct refusal_userfaultfd tried = {call, device, user_only};
	struct refusal r;
	char why[200];

	refusal_userfaultfd(root, &tried, &r);
	snprintf(why, sizeof(why), "userfaultfd(2): %s, /dev/userfaultfd: %s: %s", strerror(-call),
		 strerror(-device), means);
	check(&r, kind, why, fix);
}

#define SYSCTL "/proc/sys/vm/unprivileged_userfaultfd"

static void userfaultfd_is_not_there(void **state)
{
	(void)state;
	host(ROOT FREE, FIRST_NAMESPACE);
	uffd(-ENOSYS, -ENOENT, -ENOSYS, REFUSAL_NOT_BUILT_IN, "not in this kernel",
	     "use a kernel with CONFIG_USERFAULTFD");
	host(ROOT FILTERED, FIRST_NAMESPACE);
	uffd(-ENOSYS, -ENOENT, -ENOSYS, REFUSAL_NOT_BUILT_IN,
	     "not in this kernel, or hidden by the seccomp filter",
	     "allow userfaultfd in the seccomp profile, or use a kernel with CONFIG_USERFAULTFD");
	/* Its sysctl, or its row of devices, gives the filter away. */
	put(SYSCTL, "0\n");
	uffd(-ENOSYS, -ENOENT, -ENOSYS, REFUSAL_FILTERED,
	     "this kernel has it, a seccomp filter hides it", "allow userfaultfd " PROFILE);
	host(ROOT FILTERED, FIRST_NAMESPACE);
	put("/proc/misc", "232 kvm\n126 userfaultfd\n");
	uffd(-ENOSYS, -ENOENT, -ENOSYS, REFUSAL_FILTERED,
	     "this kernel has it, a seccomp filter hides it", "allow userfaultfd " PROFILE);
}

static void userfaultfd_needs_a_right(void **state)
{
	static const char right[] = "faults of the kernel's, as KVM's are, need a right";

	(void)state;
	host(USER FREE, FIRST_NAMESPACE);
	put(SYSCTL, "0\n");
	/* Before Linux 6.1 there is no device. */
	uffd(-EPERM, -ENOENT, 0, REFUSAL_SWITCHED_OFF, right,
	     "as root: sysctl -w vm.unprivileged_userfaultfd=1");
	put("/proc/misc", "126 userfaultfd\n");
	uffd(-EPERM, -ENOENT, 0, REFUSAL_NOT_PERMITTED, right,
	     "give the container the device: docker run --device /dev/userfaultfd");
	uffd(-EPERM, -EPERM, 0, REFUSAL_NOT_PERMITTED, right,
	     "give the container the device: docker run --device /dev/userfaultfd");
	put("/dev/userfaultfd", "");
	uffd(-EPERM, -EACCES, 0, REFUSAL_NOT_PERMITTED, right,
	     "as root: setfacl -m u:4242:rw /dev/userfaultfd");
	/* All capabilities of a user namespace are none. */
	host(ROOT FREE, INNER_NAMESPACE);
	put(SYSCTL, "0\n");
	uffd(-EPERM, -ENOENT, 0, REFUSAL_IN_NAMESPACE, "no capability in here counts for it",
	     "outside of this user namespace, as root: sysctl -w vm.unprivileged_userfaultfd=1");
	uffd(-EPERM, -EACCES, 0, REFUSAL_IN_NAMESPACE, "no capability in here counts for it",
	     "outside of this user namespace, as root: setfacl -m u:4242:rw /dev/userfaultfd");
}

static void userfaultfd_is_refused_by_others(void **state)
{
	(void)state;
	/* Who has the right, and who wants what needs none, is refused by somebody else. */
	host(ROOT FILTERED, FIRST_NAMESPACE);
	put(SYSCTL, "0\n");
	uffd(-EPERM, -ENOENT, 0, REFUSAL_FILTERED, "a seccomp filter refuses it",
	     "allow userfaultfd " PROFILE);
	host(USER FILTERED, FIRST_NAMESPACE);
	put(SYSCTL, "0\n");
	uffd(-EPERM, -ENOENT, -EPERM, REFUSAL_FILTERED, "a seccomp filter refuses it",
	     "allow userfaultfd " PROFILE);
	put(SYSCTL, "1\n");
	uffd(-EPERM, -ENOENT, 0, REFUSAL_FILTERED, "a seccomp filter refuses it",
	     "allow userfaultfd " PROFILE);
	host(ROOT FREE, FIRST_NAMESPACE);
	put("/sys/fs/selinux/enforce", "1");
	put("/proc/self/attr/current", "system_u:system_r:container_t:s0\n");
	uffd(-EACCES, -EACCES, -EACCES, REFUSAL_MODULE,
	     "SELinux, enforcing, as system_u:system_r:container_t:s0, refuses it",
	     "as root: ausearch -m avc -ts recent; it shows the rule that is missing");
}

/* A module that lets things through is not blamed; one whose files are hidden is known. */
static void modules(void **state)
{
	static const struct {
		const char *file, *text, *module;
		bool confined;
	} rows[] = {
		{"current", "unconfined\n", "AppArmor, as unconfined", false},
		{"current", "snap.x (complain)\n", "AppArmor, as snap.x (complain)", false},
		{"current", "vm (unconfined)\n", "AppArmor, as vm (unconfined)", false},
		{"current", "docker-default (enforce)\n", "AppArmor, as docker-default (enforce)",
		 true},
		{"current", ":ns://in:side:x (enforce)\n",
		 "AppArmor, as :ns://in:side:x (enforce)", true},
		{"apparmor/current", "unconfined\n", "AppArmor, as unconfined", false},
		{"apparmor/current", "vm (kill)\n", "AppArmor, as vm (kill)", true},
		{"current", "system_u:system_r:container_t:s0:c1,c2",
		 "SELinux, as system_u:system_r:container_t:s0:c1,c2", true},
		{"current", "kernel", "", false},
		{"current", "_", "", false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct rights r;
		char path[100];

		host(ROOT FREE, FIRST_NAMESPACE);
		snprintf(path, sizeof(path), "/proc/self/attr/%s", rows[i].file);
		put(path, rows[i].text);
		rights_read(root, &r);
		assert_string_equal(r.module, rows[i].module);
		assert_int_equal(r.confined, rows[i].confined);
		if (!r.confined)
			uffd(-EACCES, -EACCES, -EACCES, REFUSAL_MODULE,
			     "a security module refuses it",
			     "as root: dmesg; it shows the rule that is missing");
	}
	host(ROOT FREE, FIRST_NAMESPACE);
	put("/sys/fs/selinux/enforce", "0");
	put("/proc/self/attr/current", "a:b:c:s0");
	uffd(-EACCES, -EACCES, -EACCES, REFUSAL_MODULE, "a security module refuses it",
	     "as root: dmesg; it shows the rule that is missing");
}

/* As containers have both, each is known by its answer. */
static void a_module_and_a_filter(void **state)
{
	static const char rule[] = "as root: dmesg; it shows the rule that is missing";
	static const char why[] = "AppArmor, as docker-default (enforce), refuses it";
	char node[100];

	(void)state;
	host(ROOT FILTERED, FIRST_NAMESPACE);
	put("/proc/self/attr/current", "docker-default (enforce)\n");
	uffd(-EACCES, -ENOENT, -EACCES, REFUSAL_MODULE, why, rule);
	uffd(-EPERM, -ENOENT, -EPERM, REFUSAL_FILTERED, "a seccomp filter refuses it",
	     "allow userfaultfd " PROFILE);
	put("/proc/self/attr/current", "unconfined\n");
	uffd(-EACCES, -ENOENT, -EACCES, REFUSAL_FILTERED, "a seccomp filter refuses it",
	     "allow userfaultfd " PROFILE);
	/* A device that everybody may use, and that the module closes. */
	host(USER FILTERED, INNER_NAMESPACE);
	put(SYSCTL, "0\n");
	put("/proc/self/attr/current", "docker-default (enforce)\n");
	put("/dev/userfaultfd", "");
	snprintf(node, sizeof(node), "%s/dev/userfaultfd", root);
	assert_int_equal(chmod(node, 0666), 0);
	uffd(-EPERM, -EACCES, 0, REFUSAL_MODULE, why, rule);
	assert_int_equal(chmod(node, 0660), 0);
	uffd(-EPERM, -EACCES, 0, REFUSAL_IN_NAMESPACE, "no capability in here counts for it",
	     "outside of this user namespace, as root: setfacl -m u:4242:rw /dev/userfaultfd");
}

/* ---- io_uring ---- */

static void uring(const char *call, int code, enum refusal_kind kind, const char *means,
		  const char *fix)
{
	struct refusal r;
	char why[200];

	refusal_io_uring(root, call, code, &r);
	snprintf(why, sizeof(why), "%s: %s: %s", call, strerror(-code), means);
	check(&r, kind, why, fix);
}

#define OFF "/proc/sys/kernel/io_uring_disabled"

static void io_uring(void **state)
{
	static const char calls[] = "allow io_uring_setup, io_uring_enter and io_uring_register "
				    PROFILE;
	struct refusal r;

	(void)state;
	host(USER FREE, FIRST_NAMESPACE);
	uring("io_uring_setup", -ENOSYS, REFUSAL_NOT_BUILT_IN, "not in this kernel",
	      "use a kernel with CONFIG_IO_URING");
	put(OFF, "2\n");
	uring("io_uring_setup", -ENOSYS, REFUSAL_OTHER,
	      "this kernel has it, and what this runs in hides it",
	      "allow io_uring_setup, io_uring_enter and io_uring_register in the sandbox around "
	      "it");
	uring("io_uring_setup", -EPERM, REFUSAL_SWITCHED_OFF, "kernel.io_uring_disabled is 2",
	      "as root: sysctl -w kernel.io_uring_disabled=0");
	put(OFF, "1\n");
	put("/proc/sys/kernel/io_uring_group", "-1\n");
	uring("io_uring_setup", -EPERM, REFUSAL_SWITCHED_OFF, "kernel.io_uring_disabled is 1",
	      "as root: sysctl -w kernel.io_uring_disabled=0");
	put("/proc/sys/kernel/io_uring_group", "1\n"); /* daemon, on every Debian */
	uring("io_uring_setup", -EPERM, REFUSAL_SWITCHED_OFF, "kernel.io_uring_disabled is 1",
	      "as root: usermod -aG daemon 4242; then log in again");
	put(OFF, "0\n");
	uring("io_uring_setup", -EPERM, REFUSAL_MODULE, "a security module refuses it",
	      "as root: dmesg; it shows the rule that is missing");
	/* With 1, root may: then it was a filter. */
	host(ROOT FILTERED, FIRST_NAMESPACE);
	put(OFF, "1\n");
	uring("io_uring_setup", -EPERM, REFUSAL_FILTERED, "a seccomp filter refuses it", calls);
	uring("io_uring_enter", -ENOSYS, REFUSAL_FILTERED,
	      "this kernel has it, a seccomp filter hides it", "allow io_uring_enter " PROFILE);
	refusal_io_uring(root, "io_uring_setup", -EMFILE, &r);
	check(&r, REFUSAL_LIMIT, "io_uring_setup: Too many open files",
	      "raise the limit of open files (ulimit -n)");
	refusal_io_uring(root, "io_uring_setup", -ENOMEM, &r);
	check(&r, REFUSAL_LIMIT, "io_uring_setup: Cannot allocate memory",
	      "free memory, or raise the limits of it (ulimit -l, ulimit -v, cgroup)");
	/* Root of a user namespace is not that root. */
	host(ROOT FREE, INNER_NAMESPACE);
	put(OFF, "1\n");
	uring("io_uring_setup", -EPERM, REFUSAL_SWITCHED_OFF, "kernel.io_uring_disabled is 1",
	      "outside of this user namespace, as root: sysctl -w kernel.io_uring_disabled=0");
}

/* ---- memfd ---- */

static void memfd(void **state)
{
	struct refusal r;

	(void)state;
	host(USER FREE, FIRST_NAMESPACE);
	refusal_memfd(root, -ENOSYS, &r);
	check(&r, REFUSAL_NOT_BUILT_IN, "memfd_create: Function not implemented: not in this "
	      "kernel", "use a kernel with CONFIG_MEMFD_CREATE");
	put("/proc/sys/vm/memfd_noexec", "2\n");
	refusal_memfd(root, -EACCES, &r);
	check(&r, REFUSAL_SWITCHED_OFF, "memfd_create: Permission denied: vm.memfd_noexec is 2",
	      "as root: sysctl -w vm.memfd_noexec=1");
	host(USER FILTERED, FIRST_NAMESPACE);
	refusal_memfd(root, -EPERM, &r);
	check(&r, REFUSAL_FILTERED, "memfd_create: Operation not permitted: a seccomp filter "
	      "refuses it", "allow memfd_create " PROFILE);
}

/* ---- a sandbox's ---- */

static void seccomp(void **state)
{
	struct refusal r;

	(void)state;
	host(USER FREE, FIRST_NAMESPACE);
	refusal_seccomp(root, -ENOSYS, &r);
	check(&r, REFUSAL_NOT_BUILT_IN, "seccomp: Function not implemented: not in this kernel",
	      "use a kernel with CONFIG_SECCOMP_FILTER");
	host(USER FILTERED, FIRST_NAMESPACE);
	put("/proc/sys/kernel/seccomp/actions_avail", "kill_process kill_thread trap errno\n");
	refusal_seccomp(root, -ENOSYS, &r);
	check(&r, REFUSAL_FILTERED, "seccomp: Function not implemented: this kernel has it, a "
	      "seccomp filter hides it", "allow seccomp " PROFILE);
	refusal_seccomp(root, -EPERM, &r);
	check(&r, REFUSAL_FILTERED, "seccomp: Operation not permitted: a seccomp filter refuses it",
	      "allow seccomp " PROFILE);
}

#define LANDLOCK_CALLS \
	"allow landlock_create_ruleset, landlock_add_rule and landlock_restrict_self "

static void landlock(void **state)
{
	struct refusal r;

	(void)state;
	host(USER FREE, FIRST_NAMESPACE);
	refusal_landlock(root, -ENOSYS, &r);
	check(&r, REFUSAL_NOT_BUILT_IN, "Landlock: Function not implemented: not in this kernel",
	      "use a kernel with CONFIG_SECURITY_LANDLOCK");
	refusal_landlock(root, -EOPNOTSUPP, &r);
	check(&r, REFUSAL_OFF_AT_BOOT, "Landlock: Operation not supported: in this kernel, and not "
	      "among its lsm=", "boot with lsm=landlock, and after a comma what "
	      "/sys/kernel/security/lsm has now");
	assert_string_equal(refusal_kind_name(r.kind), "switched off at boot");
	host(USER FILTERED, FIRST_NAMESPACE);
	refusal_landlock(root, -EPERM, &r);
	check(&r, REFUSAL_FILTERED, "Landlock: Operation not permitted: a seccomp filter refuses "
	      "it", LANDLOCK_CALLS PROFILE);
	put("/sys/kernel/security/lsm", "lockdown,landlock,yama\n");
	refusal_landlock(root, -ENOSYS, &r);
	check(&r, REFUSAL_FILTERED, "Landlock: Function not implemented: this kernel has it, a "
	      "seccomp filter hides it", LANDLOCK_CALLS PROFILE);
}

static void capabilities(void **state)
{
	struct refusal r;

	(void)state;
	host(USER FILTERED, FIRST_NAMESPACE);
	refusal_capabilities(root, -EPERM, &r);
	check(&r, REFUSAL_FILTERED, "capset: Operation not permitted: a seccomp filter refuses it",
	      "allow capget and capset " PROFILE);
}

/* ---- /dev/kvm ---- */

static void kvm(int code, enum refusal_kind kind, const char *means, const char *fix)
{
	struct refusal r;
	char why[200];

	refusal_kvm(root, code, &r);
	snprintf(why, sizeof(why), "/dev/kvm: %s: %s", strerror(-code), means);
	check(&r, kind, why, fix);
}

static void kvm_is_not_there(void **state)
{
	(void)state;
	host(USER FREE, FIRST_NAMESPACE);
	kvm(-ENOENT, REFUSAL_NOT_BUILT_IN, "the processor offers no virtualisation",
	    "switch it on in the firmware, or nesting in the outer hypervisor");
	put("/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu vme svm_lock svm sse\n");
	kvm(-ENOENT, REFUSAL_NOT_BUILT_IN, "the module is not loaded", "as root: modprobe kvm_amd");
	put("/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu vmx\n");
	kvm(-ENXIO, REFUSAL_NOT_BUILT_IN, "the module is not loaded",
	    "as root: modprobe kvm_intel");
	put("/proc/misc", "183 hw_random\n232 kvm\n");
	kvm(-ENOENT, REFUSAL_NOT_PERMITTED, "this kernel has KVM, but its device is not here",
	    "give the container the device: docker run --device /dev/kvm");
}

static void kvm_is_closed(void **state)
{
	char node[100];

	(void)state;
	host(USER FREE, FIRST_NAMESPACE);
	put("/dev/kvm", "");
	snprintf(node, sizeof(node), "%s/dev/kvm", root);
	kvm(-EPERM, REFUSAL_NOT_PERMITTED, "the container's list of devices refuses it",
	    "give the container the device: docker run --device /dev/kvm");
	assert_int_equal(chmod(node, 0600), 0);
	kvm(-EACCES, REFUSAL_NOT_PERMITTED, "its mode does not let this user in",
	    "as root: setfacl -m u:4242:rw /dev/kvm");
	/* Root's own group is nobody's to join; another one is. Only root can give it away. */
	assert_int_equal(chmod(node, 0660), 0);
	if (geteuid() == 0) {
		kvm(-EACCES, REFUSAL_NOT_PERMITTED, "its mode does not let this user in",
		    "as root: setfacl -m u:4242:rw /dev/kvm");
		assert_int_equal(chown(node, 0, 1), 0);
		kvm(-EACCES, REFUSAL_NOT_PERMITTED, "its mode does not let this user in",
		    "as root: usermod -aG daemon 4242; then log in again");
	}
	/* The mode would do: somebody else refuses. */
	assert_int_equal(chmod(node, 0666), 0);
	put("/proc/self/attr/apparmor/current", "docker-default (enforce)\n");
	kvm(-EACCES, REFUSAL_MODULE, "AppArmor, as docker-default (enforce), refuses it",
	    "as root: dmesg; it shows the rule that is missing");
	host(ROOT FREE, INNER_NAMESPACE);
	put("/dev/kvm", "");
	assert_int_equal(chmod(node, 0666), 0);
	put("/proc/self/attr/current", "system_u:system_r:container_t:s0:c1,c2");
	kvm(-EACCES, REFUSAL_MODULE,
	    "SELinux, as system_u:system_r:container_t:s0:c1,c2, refuses it",
	    "as root: ausearch -m avc -ts recent; it shows the rule that is missing");
	put("/proc/self/attr/current", "");
	kvm(-EACCES, REFUSAL_IN_NAMESPACE, "root of a user namespace is not the device's",
	    "outside of this user namespace, as root: setfacl -m u:4242:rw /dev/kvm");
}

/* ---- who we are ---- */

static void what_cannot_be_read_is_not_there(void **state)
{
	struct rights r;

	(void)state;
	host("", "");
	rights_read(root, &r);
	assert_true(r.uid == 0 && r.caps == 0 && !r.filtered && !r.namespaced);
	assert_string_equal(r.module, "");
	host("nonsense\nUid: x\nSeccomp:\nCapEff: z\n", "1 2\n");
	rights_read("/nowhere", &r);
	assert_true(r.caps == 0 && !r.filtered && !r.namespaced);
	assert_false(rights_has(&r, RIGHTS_SYS_PTRACE));
}

static void capabilities_count_in_the_first_namespace(void **state)
{
	struct rights r;

	(void)state;
	host(ROOT FREE, FIRST_NAMESPACE);
	rights_read(root, &r);
	assert_true(rights_has(&r, RIGHTS_SYS_PTRACE) && !r.namespaced);
	assert_string_equal(r.user, "root");
	host(ROOT FREE, "0 100000 65536\n");
	rights_read(root, &r);
	assert_true(!rights_has(&r, RIGHTS_SYS_PTRACE) && r.namespaced);
	assert_string_equal(r.user, "100000");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(userfaultfd_is_not_there),
		cmocka_unit_test(userfaultfd_needs_a_right),
		cmocka_unit_test(userfaultfd_is_refused_by_others),
		cmocka_unit_test(modules),
		cmocka_unit_test(a_module_and_a_filter),
		cmocka_unit_test(io_uring),
		cmocka_unit_test(memfd),
		cmocka_unit_test(seccomp),
		cmocka_unit_test(landlock),
		cmocka_unit_test(capabilities),
		cmocka_unit_test(kvm_is_not_there),
		cmocka_unit_test(kvm_is_closed),
		cmocka_unit_test(what_cannot_be_read_is_not_there),
		cmocka_unit_test(capabilities_count_in_the_first_namespace),
	};
	char command[100];
	int failed;

	snprintf(root, sizeof(root), "/tmp/refusal-test-XXXXXX");
	if (!mkdtemp(root))
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	snprintf(command, sizeof(command), "rm -rf %s", root);
	return system(command) != 0 ? 1 : failed;
}
