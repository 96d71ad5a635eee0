/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probes of userfaultfd: may we have one that handles faults of kernel code (KVM
 * touches guest memory from there), and does it do on shared memory what we need:
 * report missing pages, make pages visible (UFFDIO_CONTINUE), poison them.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/probe/probe.h"
#include "mem/memfd.h"
#include "mem/uffd.h"
#include "mem/uffd_abi.h"

#define POISON_BIT 8 /* of what UFFDIO_REGISTER offers */
/* WP_HUGETLBFS_SHMEM and WP_ASYNC. */
#define PROBE_UFFD_NOTING (1ull << 12 | 1ull << 15)

_Static_assert(PROBE_UFFD_FEATURES == ((1ull << 14 /* POISON */) | UFFD_FEATURE_MINOR_SHMEM |
				       UFFD_FEATURE_MISSING_SHMEM),
	       "the features we use");

int probe_uffd_register(int uffd, uint64_t features, void *addr, size_t len, uint64_t *ret_ioctls)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	struct uffdio_register reg = {
		.range = {.start = (uint64_t)(uintptr_t)addr, .len = len},
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
	};

	if (ioctl(uffd, UFFDIO_API, &api) < 0 || ioctl(uffd, UFFDIO_REGISTER, &reg) < 0)
		return -errno;
	*ret_ioctls = reg.ioctls;
	return 0;
}

int probe_uffd_poison(int uffd, void *addr, size_t len)
{
	struct uffdio_poison p = {.range = {.start = (uint64_t)(uintptr_t)addr, .len = len}};

	return ioctl(uffd, UFFDIO_POISON, &p) < 0 ? -errno : 0;
}

/* The bits of UFFDIO_API, from a descriptor of its own: the handshake is done once per fd. */
static int features_offered(uint64_t *ret_features)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct refusal why;
	bool by_device;
	int fd = uffd_new(&by_device, &why);
	int r = 0;

	if (fd < 0)
		return fd;
	if (ioctl(fd, UFFDIO_API, &api) < 0)
		r = -errno;
	else
		*ret_features = api.features;
	close(fd);
	return r;
}

/* Tries what the bits promise on one page of a memfd. 0 or -Exxx, `step` says of what. */
static int try_on_shared_memory(int uffd, const char **ret_step)
{
	uint64_t ioctls = 0;
	int r = 0;

	*ret_step = "memfd";
	int fd = memfd_new("asyncpf-doctor");
	if (fd < 0 || ftruncate(fd, PAGE_BYTES) < 0) {
		r = -errno;
		if (fd >= 0)
			close(fd);
		return r;
	}
	void *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (page == MAP_FAILED)
		return -errno;
	*ret_step = "UFFDIO_REGISTER on shared memory";
	r = probe_uffd_register(uffd, PROBE_UFFD_FEATURES, page, PAGE_BYTES, &ioctls);
	if (r == 0) {
		*ret_step = "UFFDIO_POISON on shared memory";
		r = ioctls >> POISON_BIT & 1 ? probe_uffd_poison(uffd, page, PAGE_BYTES)
						: -EOPNOTSUPP;
	}
	munmap(page, PAGE_BYTES);
	return r;
}

static void set_feature(struct probe *pr, bool there, const char *yes, const char *no,
			const char *fix)
{
	probe_set(pr, there ? VERDICT_OK : VERDICT_NO, there ? "" : fix, "%s", there ? yes : no);
}

static void set_poison(struct probe *pr, uint64_t features, int uffd)
{
	const char *fix = "use a kernel with UFFDIO_POISON (in mainline since Linux 6.6)";
	const char *step;

	if (!(features & 1ull << 14)) {
		probe_set(pr, VERDICT_NO, fix,
			  "no UFFDIO_POISON: a touch of an absent page cannot come to user space");
		return;
	}
	int r = try_on_shared_memory(uffd, &step);
	if (r < 0)
		probe_set(pr, VERDICT_NO, probe_fix(r, fix), "%s: %s", step, strerror(-r));
	else
		probe_set(pr, VERDICT_OK, "", "pages can be marked absent (UFFDIO_POISON tried)");
}

void probe_uffd(struct probe *list)
{
	uint64_t features = 0;
	struct refusal why;
	bool by_device;
	int uffd = uffd_new(&by_device, &why);
	int r = uffd < 0 ? uffd : features_offered(&features);

	if (uffd < 0) {
		probe_refused(&list[PROBE_UFFD], &why);
	} else if (r < 0) {
		probe_set(&list[PROBE_UFFD], VERDICT_NO,
			  probe_fix(r, "use a kernel with userfaultfd API 0xAA"),
			  "userfaultfd: %s", strerror(-r));
		close(uffd);
	} else {
		probe_set(&list[PROBE_UFFD], VERDICT_OK, "",
			  "userfaultfd opens by %s, faults of kernel code included",
			  by_device ? "/dev/userfaultfd" : "system call");
	}
	if (r < 0) {
		for (int i = PROBE_UFFD_MISSING_SHMEM; i <= PROBE_UFFD_WP_ASYNC; i++)
			probe_set(&list[i], VERDICT_NO, "see uffd.open", "could not be tried");
		return;
	}
	set_feature(&list[PROBE_UFFD_MISSING_SHMEM], features & UFFD_FEATURE_MISSING_SHMEM,
		    "absent pages of shared memory are reported",
		    "absent pages of shared memory cannot be reported",
		    "use a kernel with userfaultfd for shared memory (since Linux 4.11)");
	set_feature(&list[PROBE_UFFD_MINOR_SHMEM], features & UFFD_FEATURE_MINOR_SHMEM,
		    "pages become visible without a copy (UFFDIO_CONTINUE)",
		    "no UFFDIO_CONTINUE: pages cannot be made visible without a copy",
		    "use a kernel with minor faults for shared memory (since Linux 5.14)");
	set_poison(&list[PROBE_UFFD_POISON], features, uffd);
	if ((features & PROBE_UFFD_NOTING) == PROBE_UFFD_NOTING)
		probe_set(&list[PROBE_UFFD_WP_ASYNC], VERDICT_OK, "",
			  "evicted pages that were not written to need no write (first writes are "
			  "noted)");
	else
		probe_set(&list[PROBE_UFFD_WP_ASYNC], VERDICT_LIMITED, "use Linux 6.7 or later",
			  "first writes cannot be noted: every evicted page is written out");
	close(uffd);
}
