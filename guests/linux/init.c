/* SPDX-License-Identifier: Apache-2.0 */
/* Process 1: sets the guest up, does the steps, ends the machine. */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

#define CONSOLE_LEVEL 8 /* of klogctl */
#define KVM_LEAF 0x40000000u
#define COMMAND_LINE_BYTES 2048

static const struct {
	const char *name;
	enum outcome (*run)(const char *text);
} steps[] = {
	{"load", step_load},
	{"idle", step_idle},
	{"stand", step_stand},
	{"serve", step_serve},
	{"served", step_served},
	{"cut", step_cut},
	{"modules", step_modules},
	{"plug", step_plug},
	{"vsock", step_vsock},
	{"rebind", step_rebind},
	{"given", step_given},
	{"need", step_need},
	{"stick", step_stick},
	{"complain", step_complain},
};

static const struct {
	const char *name;
	unsigned command;
} ends[] = {
	{"poweroff", LINUX_REBOOT_CMD_POWER_OFF},
	{"reboot", LINUX_REBOOT_CMD_RESTART},
};

/* ---- steps without a file of their own ---- */

/* EAX of KVM's feature leaf, 0 under another hypervisor or none. */
static unsigned kvm_features(void)
{
	unsigned a, b, c, d;
	char name[13] = "";

	__cpuid(1, a, b, c, d);
	if (!(c & 1u << 31))
		return 0;
	__cpuid(KVM_LEAF, a, b, c, d);
	memcpy(name, (unsigned[]){b, c, d}, 12);
	if (strcmp(name, "KVMKVMKVM") != 0)
		return 0;
	__cpuid(KVM_LEAF + 1, a, b, c, d);
	return a;
}

static enum outcome step_boot(uint64_t uptime_ms)
{
	struct row timer = {.cpus = 0};
	char counts[ROW_TEXT_BYTES], clock[64] = "";
	struct utsname name;

	uname(&name);
	row_read("LOC", &timer);
	slurp("/sys/devices/system/clocksource/clocksource0/current_clocksource", clock,
	      sizeof(clock));
	clock[strcspn(clock, "\n")] = 0;
	say("{\"step\":\"boot\",\"release\":\"%s\",\"uptime_ms\":%llu,\"cpus\":%u,\"epoch\":%lld,"
	    "\"memory_mib\":%ld,\"clocksource\":\"%s\",\"kvm_features\":%u,\"hyp\":%s}",
	    name.release, (unsigned long long)uptime_ms, timer.cpus, (long long)time(NULL),
	    sysconf(_SC_PHYS_PAGES) / (1048576 / sysconf(_SC_PAGESIZE)), clock, kvm_features(),
	    hyp_text(counts, sizeof(counts)));
	return WELL;
}

/* Says when it begins, so that who looks from outside knows when to look. */
enum outcome step_idle(const char *text)
{
	struct timespec pause = {.tv_sec = atol(text)};

	say("{\"step\":\"idle\",\"seconds\":%ld}", (long)pause.tv_sec);
	nanosleep(&pause, NULL);
	say("{\"step\":\"idle-end\"}");
	return WELL;
}

enum outcome step_stick(const char *text)
{
	(void)text;
	/* Who waits for its vfork() child to end or exec is in state D, and ours never will. */
	if (fork() == 0) {
		if (vfork() == 0)
			for (;;)
				pause();
		_exit(0);
	}
	return WELL;
}

enum outcome step_complain(const char *text)
{
	(void)text;
	if (poke("/dev/kmsg", "<4>WARNING: only a test of those who read this\n") < 0)
		return say_failed("/dev/kmsg");
	return WELL;
}

static enum outcome step_end(enum outcome so_far)
{
	char counts[ROW_TEXT_BYTES];
	unsigned tasks = 0, stuck = stuck_tasks(&tasks), complaints = kernel_complaints();
	bool well = so_far == WELL && stuck == 0 && complaints == 0;

	say("{\"step\":\"end\",\"hyp\":%s,\"tasks\":%u,\"stuck\":%u,\"complaints\":%u,\"well\":%s}",
	    hyp_text(counts, sizeof(counts)), tasks, stuck, complaints,
	    well ? "true" : "false");
	return well ? WELL : UNWELL;
}

/* ---- kexec ---- */

/* The running kernel's own words, and the steps that are left. */
static void next_command_line(char *const *left, char *line, unsigned size)
{
	int n = slurp("/proc/cmdline", line, size);
	char *dashes = n > 0 ? strstr(line, " -- ") : NULL;

	if (dashes)
		n = (int)(dashes - line);
	else if (n > 0 && line[n - 1] == '\n')
		n--;
	n += snprintf(line + n, size - (unsigned)n, " -- after-kexec");
	for (; *left && n < (int)size; left++)
		n += snprintf(line + n, size - (unsigned)n, " %s", *left);
}

/* Jumps into /next/kernel; returns when that fails. */
static enum outcome kexec_next(char *const *left)
{
	char line[COMMAND_LINE_BYTES];
	int kernel = open("/next/kernel", O_RDONLY | O_CLOEXEC);
	int initrd = open("/next/initrd", O_RDONLY | O_CLOEXEC);

	if (kernel < 0 || initrd < 0)
		return say_failed("kexec: /next/kernel, /next/initrd");
	next_command_line(left, line, sizeof(line));
	if (syscall(SYS_kexec_file_load, kernel, initrd, strlen(line) + 1, line, 0ul) < 0)
		return say_failed("kexec_file_load");
	say("{\"step\":\"kexec\"}");
	syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, NULL);
	return say_failed("kexec");
}

/* ---- main ---- */

static enum outcome set_up(void)
{
	static const struct {
		const char *type, *where;
	} mounts[] = {{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}};

	for (unsigned i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		mkdir(mounts[i].where, 0755);
		/* EBUSY: the kernel has mounted /dev by itself. */
		if (mount(mounts[i].type, mounts[i].where, mounts[i].type, 0, NULL) < 0 &&
		    errno != EBUSY)
			return say_failed("mount: %s", mounts[i].where);
	}
	/* Only errors on the console, so that lines of ours stay whole; the rest is shown later. */
	klogctl(CONSOLE_LEVEL, NULL, 4);
	/* A task that waits for longer than this will wait for ever. */
	poke("/proc/sys/kernel/hung_task_timeout_secs", "20");
	return WELL;
}

static enum outcome do_step(char *text, char *const *left)
{
	char *equals = strchr(text, '=');
	const char *rest = equals ? equals + 1 : "";

	if (equals)
		*equals = 0;
	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		if (strcmp(steps[i].name, text) == 0)
			return steps[i].run(rest);
	if (strcmp(text, "kexec") == 0)
		return kexec_next(left);
	if (strcmp(text, "after-kexec") == 0)
		return WELL;
	say("failed: unknown step: %s", text);
	return UNWELL;
}

static bool is_end(const char *text, unsigned *command)
{
	for (unsigned i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		if (strcmp(ends[i].name, text) == 0) {
			*command = ends[i].command;
			return true;
		}
	return false;
}

int main(int argc, char **argv)
{
	struct timespec up;
	enum outcome outcome;
	unsigned command = LINUX_REBOOT_CMD_POWER_OFF;

	clock_gettime(CLOCK_BOOTTIME, &up);
	if (getpid() != 1) {
		fprintf(stderr, "asyncpf: wrong usage: linux-init: not process 1; boot it\n");
		return 2;
	}
	outcome = set_up();
	step_boot((uint64_t)up.tv_sec * 1000 + (uint64_t)up.tv_nsec / 1000000);
	for (int i = 1; i < argc && !is_end(argv[i], &command); i++)
		if (do_step(argv[i], argv + i + 1) == UNWELL)
			outcome = UNWELL;
	step_end(outcome);
	/* What goes wrong from here on is seen on the console only. */
	klogctl(CONSOLE_LEVEL, NULL, 5);
	sync();
	syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, command, NULL);
	say_failed("reboot");
	for (;;)
		pause();
}
