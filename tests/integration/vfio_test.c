/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PCI device that user space drives (VFIO) in adopted memory: what is mapped for its DMA is
 * pinned by the kernel, which does not wait for what is absent there. So it is held before, and
 * until it is unmapped again. The device is QEMU's edu, which copies at command from memory to a
 * buffer of its own, and back; it is behind the emulated IOMMU of the lab (tools/lab --vfio).
 */
#include "own_fixture.h"

#include <dirent.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>

#define EDU_VENDOR 0x1234u
#define EDU_DEVICE 0x11e8u
#define EDU_BUFFER 0x40000u /* a page */
#define IOVA 0x100000ull    /* the device knows 28 bits of address */
#define MAPPED 64u          /* pages */

/* Of the edu's first BAR. */
enum { EDU_FROM = 0x80, EDU_TO = 0x88, EDU_COUNT = 0x90, EDU_COMMAND = 0x98 };
enum { EDU_START = 1, EDU_TO_MEMORY = 2 };

struct edu {
	int container, group, device;
	volatile uint32_t *bar;
	uint64_t bar_bytes;
};

static void must(bool right, const char *what)
{
	if (!right)
		fail_msg("%s: %s", what, strerror(errno));
}

static unsigned number_in(const char *pci, const char *name)
{
	char path[400];
	unsigned n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", pci, name);
	f = fopen(path, "re");
	if (f) {
		(void)!fscanf(f, "%x", &n);
		fclose(f);
	}
	return n;
}

/* Its name as a PCI device; false: there is none. */
static bool find_edu(char *ret, size_t room)
{
	DIR *d = opendir("/sys/bus/pci/devices");
	const struct dirent *e;
	bool found = false;

	while (d && !found && (e = readdir(d))) {
		found = number_in(e->d_name, "vendor") == EDU_VENDOR &&
			number_in(e->d_name, "device") == EDU_DEVICE;
		if (found)
			snprintf(ret, room, "%s", e->d_name);
	}
	if (d)
		closedir(d);
	return found;
}

/* Its group of the IOMMU; -1: nothing keeps it from the rest of memory, or nobody hands it out. */
static int open_group(const char *pci)
{
	char path[400], to[400];
	FILE *f = fopen("/sys/bus/pci/drivers/vfio-pci/new_id", "we");
	ssize_t n;

	if (f) {
		/* Known already: refused. */
		fprintf(f, "%x %x", EDU_VENDOR, EDU_DEVICE);
		fclose(f);
	}
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", pci);
	n = readlink(path, to, sizeof(to) - 1);
	if (n < 0)
		return -1;
	to[n] = 0;
	snprintf(path, sizeof(path), "/dev/vfio/%.20s", strrchr(to, '/') + 1);
	return open(path, O_RDWR | O_CLOEXEC);
}

/* It answers at its BAR, and may use memory. */
static void switch_on(struct edu *d)
{
	struct vfio_region_info config = {.argsz = sizeof(config),
					  .index = VFIO_PCI_CONFIG_REGION_INDEX};
	struct vfio_region_info bar = {.argsz = sizeof(bar), .index = VFIO_PCI_BAR0_REGION_INDEX};
	uint16_t command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;

	must(ioctl(d->device, VFIO_DEVICE_GET_REGION_INFO, &config) == 0, "configuration space");
	must(pwrite(d->device, &command, sizeof(command), (off_t)config.offset + PCI_COMMAND) ==
	     sizeof(command), "command register");
	must(ioctl(d->device, VFIO_DEVICE_GET_REGION_INFO, &bar) == 0, "BAR 0");
	d->bar =
		mmap(NULL, bar.size, PROT_READ | PROT_WRITE, MAP_SHARED, d->device,
		     (off_t)bar.offset);
	must(d->bar != MAP_FAILED, "BAR 0");
	d->bar_bytes = bar.size;
}

/* Skips where there is none. */
static void open_edu(struct edu *d)
{
	char pci[300];

	*d = (struct edu){.group = find_edu(pci, sizeof(pci)) ? open_group(pci) : -1};
	if (d->group < 0) {
		print_message("SKIP: no edu device behind an IOMMU that vfio-pci drives\n");
		skip();
	}
	d->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	must(d->container >= 0, "/dev/vfio/vfio");
	must(ioctl(d->group, VFIO_GROUP_SET_CONTAINER, &d->container) == 0, "container");
	must(ioctl(d->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) == 0, "IOMMU");
	d->device = ioctl(d->group, VFIO_GROUP_GET_DEVICE_FD, pci);
	must(d->device >= 0, "device");
	switch_on(d);
}

static void close_edu(struct edu *d)
{
	munmap((void *)(uintptr_t)d->bar, d->bar_bytes);
	close(d->device);
	close(d->group);
	close(d->container);
}

/* 0 or -errno. */
static int map_dma(const struct edu *d, void *at, uint64_t bytes)
{
	struct vfio_iommu_type1_dma_map m = {
		.argsz = sizeof(m),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)at,
		.iova = IOVA,
		.size = bytes,
	};

	return ioctl(d->container, VFIO_IOMMU_MAP_DMA, &m) < 0 ? -errno : 0;
}

static void unmap_dma(const struct edu *d, uint64_t bytes)
{
	struct vfio_iommu_type1_dma_unmap u = {.argsz = sizeof(u), .iova = IOVA, .size = bytes};

	must(ioctl(d->container, VFIO_IOMMU_UNMAP_DMA, &u) == 0, "VFIO_IOMMU_UNMAP_DMA");
}

/* The device copies; page: of what is mapped. */
static void dma(const struct edu *d, uint64_t page, uint64_t bytes, bool to_memory)
{
	uint32_t at = (uint32_t)(IOVA + page * PAGE_BYTES);

	d->bar[EDU_FROM / 4] = to_memory ? EDU_BUFFER : at;
	d->bar[EDU_TO / 4] = to_memory ? at : EDU_BUFFER;
	d->bar[EDU_COUNT / 4] = (uint32_t)bytes;
	d->bar[EDU_COMMAND / 4] = EDU_START | (to_memory ? EDU_TO_MEMORY : 0);
	while (d->bar[EDU_COMMAND / 4] & EDU_START)
		usleep(1000);
}

/* Present is not enough: the kernel looks for it in the VMM's view. */
static void what_is_held_can_be_mapped(void **state)
{
	struct edu d;
	struct own o;

	(void)state;
	open_edu(&d);
	open_own(&o, image_uri(), false);
	assert_int_equal(map_dma(&d, page_of(&o, 100), MAPPED * PAGE_BYTES), -EFAULT);
	assert_int_equal(apf_populate(o.a, GPA + 100 * PAGE_BYTES, MAPPED * PAGE_BYTES), 0);
	assert_int_equal(map_dma(&d, page_of(&o, 100), MAPPED * PAGE_BYTES), -EFAULT);
	assert_int_equal(apf_hold(o.a, GPA + 100 * PAGE_BYTES, MAPPED * PAGE_BYTES), 0);
	assert_int_equal(map_dma(&d, page_of(&o, 100), MAPPED * PAGE_BYTES), 0);
	dma(&d, 7, PAGE_BYTES, false);
	dma(&d, 8, PAGE_BYTES, true);
	for (unsigned i = 0; i < PAGE_BYTES / 8; i++)
		assert_int_equal(page_of(&o, 108)[i], word_of(107));
	assert_int_equal(page_of(&o, 109)[0], word_of(109));
	unmap_dma(&d, MAPPED * PAGE_BYTES);
	apf_release(o.a, GPA + 100 * PAGE_BYTES, MAPPED * PAGE_BYTES);
	close_own(&o);
	close_edu(&d);
}

/* The device's write to what was evicted after it had been mapped. True: it is there afterwards. */
static bool write_survives(const struct edu *d, bool hold)
{
	struct own o;
	bool survives;

	open_own(&o, image_uri(), true);
	if (hold)
		assert_int_equal(apf_hold(o.a, GPA + 50 * PAGE_BYTES, 2 * PAGE_BYTES), 0);
	else
		assert_int_equal(page_of(&o, 50)[0] + page_of(&o, 51)[0],
				 word_of(50) + word_of(51));
	assert_int_equal(map_dma(d, page_of(&o, 50), 2 * PAGE_BYTES), 0);
	dma(d, 0, PAGE_BYTES, false);
	/* What has just come may not be ready to go. */
	do
		assert_int_equal(apf_evict(o.a, 0, NULL, &error), 0);
	while (!hold && (residency(&o, 51) & APF_BLOCK_PRESENT));
	dma(d, 1, PAGE_BYTES, true);
	survives = page_of(&o, 51)[9] == word_of(50);
	if (!survives)
		assert_int_equal(page_of(&o, 51)[9], word_of(51));
	unmap_dma(d, 2 * PAGE_BYTES);
	if (hold)
		apf_release(o.a, GPA + 50 * PAGE_BYTES, 2 * PAGE_BYTES);
	/* Also once it may go. */
	assert_int_equal(apf_evict(o.a, 0, NULL, &error), 0);
	survives &= page_of(&o, 51)[9] == word_of(50);
	close_own(&o);
	return survives;
}

static void what_is_mapped_must_be_held(void **state)
{
	struct edu d;

	(void)state;
	open_edu(&d);
	assert_false(write_survives(&d, false));
	assert_true(write_survives(&d, true));
	close_edu(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_held_can_be_mapped),
		cmocka_unit_test(what_is_mapped_must_be_held),
	};

	if (access("/dev/vfio/vfio", R_OK | W_OK) < 0) {
		printf("SKIP: /dev/vfio/vfio: %s\n", strerror(errno));
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
