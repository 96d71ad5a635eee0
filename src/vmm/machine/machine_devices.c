/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is on the machine's bus, at which address and interrupt. A PC's devices are where a
 * kernel looks for them; virtio devices are where the ACPI tables say.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/assert.h"
#include "kvm/vm.h"
#include "vmm/machine/machine_parts.h"

#define VIRTIO_GPA 0xd0000000ull /* in the hole; a page for each device */
#define DISK_ID_BYTES 24
/* A client waits for the guest's answer, and no longer: it may be busy. */
#define BALLOON_REFRESH_NS (100 * NS_PER_MS)

_Static_assert(VIRTIO_GPA >= GUEST_HOLE_GPA, "no RAM there");

/*
 * Interrupts of the virtio devices, one each. The pins above 15 are the IO-APIC's alone; of
 * the others, the ISA devices' are left out.
 */
static const uint32_t virtio_gsis[MACHINE_DEVICES_MAX] = {
	16, 17, 18, 19, 20, 21, 22, 23, 5, 6, 7, 10, 11, 12, 14, 15};

static void set_irq(void *ctx, uint32_t gsi, bool level)
{
	struct machine *m = ctx;

	kvmp_vm_irq_line(m->vm_fd, gsi, level);
}

static const struct irq_ops irq_ops = {.set = set_irq};

static struct irq_line irq(struct machine *m, uint32_t gsi)
{
	return (struct irq_line){.ops = &irq_ops, .ctx = m, .gsi = gsi};
}

/* ---- what the devices tell the machine ---- */

static void serial_output(void *ctx, uint8_t byte)
{
	struct machine *m = ctx;

	console_put(&m->console, byte);
}

static void serial_room(void *ctx)
{
	machine_wake(ctx);
}

static const struct serial_ops serial_ops = {.output = serial_output, .room = serial_room};

static void power_off(void *ctx)
{
	machine_end(ctx, MACHINE_POWERED_OFF, 0);
}

static void reset(void *ctx)
{
	machine_end(ctx, MACHINE_RESET, 0);
}

static const struct pm_ops pm_ops = {.power_off = power_off, .reset = reset};

static void exit_written(void *ctx, uint32_t status)
{
	machine_end(ctx, MACHINE_EXITED, status);
}

/* ---- the bus ---- */

static int add_pc_devices(struct machine *m, struct err *e)
{
	const struct irq_line com1 = irq(m, SERIAL_COM1_GSI), line0 = irq(m, 0);
	struct bus *b = &m->bus;
	int rc;

	serial_init(&m->serial, &serial_ops, m, &com1);
	rtc_init(&m->rtc, NULL, NULL);
	pm_init(&m->pm, &pm_ops, m);
	reset_init(&m->reset, reset, m);
	fw_cfg_init(&m->fw_cfg, m->cfg.memory_bytes, m->cfg.cpus);
	test_dev_init(&m->test_dev, &line0);
	m->exit_port = (struct exit_port){.ended = exit_written, .ctx = m};
	m->has_devices = true;
	rc = bus_add(b, BUS_PORTS, SERIAL_COM1_PORT, SERIAL_PORTS, &serial_bus_ops, &m->serial,
		     "COM1", e);
	if (rc == 0)
		rc = bus_add(b, BUS_PORTS, RTC_PORT, RTC_PORTS, &rtc_bus_ops, &m->rtc, "RTC", e);
	if (rc == 0)
		rc = bus_add(b, BUS_PORTS, I8042_DATA_PORT, 1, &reset_i8042_data_bus_ops,
			     &m->reset, "i8042 data", e);
	if (rc == 0)
		rc = bus_add(b, BUS_PORTS, I8042_COMMAND_PORT, 1, &reset_i8042_command_bus_ops,
			     &m->reset, "i8042 command", e);
	if (rc == 0 && m->cfg.exit_port)
		rc = bus_add(b, BUS_PORTS, EXIT_PORT, EXIT_PORTS, &exit_port_bus_ops,
			     &m->exit_port, "exit port", e);
	return rc < 0 ? rc : pm_add(&m->pm, b, e);
}

/* The place of the next virtio device, also in the tables. */
static struct acpi_virtio *virtio_place(struct machine *m)
{
	unsigned i = m->acpi.virtio_count++;

	ASSERT(i < ARRAY_LEN(virtio_gsis));
	m->acpi.virtio[i] = (struct acpi_virtio){
		.gpa = VIRTIO_GPA + i * PAGE_BYTES,
		.bytes = VIRTIO_MMIO_BYTES,
		.gsi = virtio_gsis[i],
		.level = true,
	};
	return &m->acpi.virtio[i];
}

static int add_virtio(struct machine *m, const struct acpi_virtio *at, struct virtio_mmio *dev,
		      const char *name, struct err *e)
{
	return bus_add(&m->bus, BUS_MMIO, at->gpa, VIRTIO_MMIO_BYTES, &virtio_mmio_bus_ops, dev,
		       name, e);
}

static int open_file(struct machine *m, const struct machine_disk *cfg, struct machine_blk *d,
		     struct err *e)
{
	unsigned flags = (cfg->read_only ? BLK_READ_ONLY : 0) | (cfg->raw ? BLK_RAW : 0);
	char text[ERR_TEXT_MAX];
	int rc;

	d->m = m;
	d->path = cfg->path;
	d->full_path = realpath(cfg->path, NULL);
	d->report = cfg->report;
	rc = blk_file_open(&d->file, cfg->path, flags, &d->backing, e);
	if (rc < 0)
		return rc;
	d->backing.failed = machine_disk_failed;
	d->backing.failed_ctx = d;
	if (d->backing.hidden_bytes) {
		snprintf(text, sizeof(text), "disk %.100s: its last %u bytes are no whole sector: "
			 "the guest does not see them", cfg->path, d->backing.hidden_bytes);
		machine_say(m, MACHINE_NOTE, text);
	}
	return 0;
}

int machine_disks_open(struct machine *m, struct err *e)
{
	unsigned count = m->cfg.disks_count;
	int rc = 0;

	m->disks = calloc(count ? count : 1, sizeof(*m->disks));
	if (!m->disks)
		return err_sys(e, -ENOMEM, "%u disks", count);
	for (unsigned i = 0; rc == 0 && i < count; i++)
		rc = open_file(m, &m->cfg.disks[i], &m->disks[i], e);
	return rc;
}

static void worker_begins(void *ctx)
{
	machine_thread_begins(ctx, MACHINE_THREAD_DEVICE);
}

static int open_disk(struct machine *m, unsigned i, struct err *e)
{
	const struct acpi_virtio *at = virtio_place(m);
	const struct machine_disk *disk = &m->cfg.disks[i];
	struct machine_blk *d = &m->disks[i];
	char id[DISK_ID_BYTES];
	const struct virtio_blk_cfg cfg = {
		.backing = &d->backing,
		.id = id,
		.mem = &m->mem,
		.irq = irq(m, at->gsi),
		.name = d->name,
		.limits = {disk->bytes_per_s, disk->requests_per_s},
	};
	int rc;

	snprintf(id, sizeof(id), "disk%u", i);
	snprintf(d->name, sizeof(d->name), "blk%u", i);
	rc = virtio_blk_open(&d->blk, &cfg, e);
	if (rc < 0)
		return rc;
	d->is_open = true;
	rc = virtio_mmio_start(&d->blk.mmio, worker_begins, m, e);
	return rc < 0 ? rc : add_virtio(m, at, &d->blk.mmio, "virtio-blk", e);
}

static int open_rng(struct machine *m, struct err *e)
{
	const struct acpi_virtio *at = virtio_place(m);
	const struct virtio_rng_cfg cfg = {
		.mem = &m->mem,
		.irq = irq(m, at->gsi),
		.name = "rng",
		.bytes_per_s = m->cfg.rng_bytes_per_s ? m->cfg.rng_bytes_per_s
						      : MACHINE_RNG_BYTES_PER_S,
	};
	int rc = virtio_rng_open(&m->rng, &cfg, e);

	if (rc == 0)
		rc = virtio_mmio_start(&m->rng.mmio, worker_begins, m, e);
	return rc < 0 ? rc : add_virtio(m, at, &m->rng.mmio, "virtio-rng", e);
}

/* ---- network devices ---- */

static void tap_lost(void *ctx, int code)
{
	struct machine_nic *nic = ctx;
	char text[ERR_TEXT_MAX];

	snprintf(text, sizeof(text), "%s: %s%.15s has gone (%s): the guest has no link there any "
		 "more", nic->name, nic->tap_name ? "tap " : "the network",
		 nic->tap_name ? nic->tap_name : "", strerror(-code));
	machine_say(nic->m, MACHINE_NOTE, text);
}

static int open_backend(struct machine_nic *nic, const struct machine_net *net, unsigned i,
			const uint8_t mac[NET_MAC_BYTES], struct err *e)
{
	const struct net_user_cfg user = {
		.index = i,
		.restricted = net->restricted,
		.host = net->host,
		.forwards = net->forwards,
		.forwards_count = net->forwards_count,
		.guest_mac = nic->m->cfg.restore ? mac : NULL,
	};

	return net->tap ? net_tap_open(&nic->tap, net->tap, &nic->backend, e)
			: net_user_open(&user, &nic->user, &nic->backend, e);
}

/* Locally administered. On a tap it meets others', those of other VMs among them. */
static int choose_mac(const struct machine_net *net, unsigned i, uint8_t ret[NET_MAC_BYTES],
		      struct err *e)
{
	const uint8_t ours[NET_MAC_BYTES] = {0x02, 'a', 'p', 'f', 0, (uint8_t)i};

	memcpy(ret, net->has_mac ? net->mac : ours, NET_MAC_BYTES);
	if (net->has_mac || !net->tap)
		return 0;
	if (getrandom(ret + 1, NET_MAC_BYTES - 1, 0) != NET_MAC_BYTES - 1)
		return err_sys(e, -errno, "net%u: a hardware address", i);
	return 0;
}

static void net_worker_begins(void *ctx)
{
	struct machine_nic *nic = ctx;

	machine_thread_begins(nic->m, nic->tap_name ? MACHINE_THREAD_DEVICE
						    : MACHINE_THREAD_NET_USER);
}

static int open_net(struct machine *m, unsigned i, struct err *e)
{
	const struct acpi_virtio *at = virtio_place(m);
	const struct machine_net *net = &m->cfg.nets[i];
	struct machine_nic *nic = &m->nics[i];
	struct virtio_net_cfg cfg = {
		.backend = &nic->backend,
		.mem = &m->mem,
		.irq = irq(m, at->gsi),
		.name = nic->name,
		.bytes_per_s = net->bytes_per_s,
		.lost = tap_lost,
		.lost_ctx = nic,
	};
	int rc;

	nic->m = m;
	nic->tap_name = net->tap;
	nic->tap.fd = -1;
	snprintf(nic->name, sizeof(nic->name), "net%u", i);
	rc = choose_mac(net, i, cfg.mac, e);
	if (rc == 0)
		rc = open_backend(nic, net, i, cfg.mac, e);
	if (rc == 0)
		rc = virtio_net_open(&nic->net, &cfg, e);
	if (rc == 0)
		rc = virtio_mmio_start(&nic->net.mmio, net_worker_begins, nic, e);
	return rc < 0 ? rc : add_virtio(m, at, &nic->net.mmio, "virtio-net", e);
}

static void close_net(struct machine_nic *nic)
{
	if (!nic->m)
		return;
	virtio_net_close(&nic->net);
	net_tap_close(&nic->tap);
	net_user_close(nic->user);
}

/* Of the library, by the worker: while it is not known where a page is, it waits. */
static int discard(void *ctx, gpa_t gpa, uint64_t len)
{
	struct machine *m = ctx;

	return apf_discard(m->apf, gpa.v, len);
}

uint64_t machine_balloon_target(const struct machine *m)
{
	uint64_t keeps = m->cfg.apf.resident_max, has = m->cfg.memory_bytes;

	return m->cfg.balloon == MACHINE_BALLOON_FOLLOW && keeps && keeps < has ? has - keeps : 0;
}

static int open_balloon(struct machine *m, struct err *e)
{
	const struct acpi_virtio *at = virtio_place(m);
	const struct virtio_balloon_cfg cfg = {
		.discard = discard,
		.ctx = m,
		.mem = &m->mem,
		.irq = irq(m, at->gsi),
		.name = "balloon",
		.target_bytes = machine_balloon_target(m),
	};
	int rc = virtio_balloon_open(&m->balloon, &cfg, e);

	if (rc == 0)
		rc = virtio_mmio_start(&m->balloon.mmio, worker_begins, m, e);
	return rc < 0 ? rc : add_virtio(m, at, &m->balloon.mmio, "virtio-balloon", e);
}

static void vsock_begins(void *ctx)
{
	machine_thread_begins(ctx, MACHINE_THREAD_VSOCK);
}

static bool stands(void *ctx)
{
	const struct machine *m = ctx;

	return apf_is_paused(m->apf);
}

static int open_vsock(struct machine *m, struct err *e)
{
	const struct acpi_virtio *at = virtio_place(m);
	struct virtio_vsock_cfg cfg = {
		.cid = m->cfg.vsock.cid,
		.path = m->cfg.vsock.path,
		.mem = &m->mem,
		.irq = irq(m, at->gsi),
		.pause = {stands, m},
		.name = "vsock",
	};
	int rc = control_socket_open(&m->vsock_socket, "vsock", cfg.path, e);

	if (rc < 0) {
		m->vsock_socket.fd = 0;
		return rc;
	}
	cfg.listen_fd = m->vsock_socket.fd;
	rc = virtio_vsock_open(&m->vsock, &cfg, e);
	if (rc == 0)
		rc = virtio_mmio_start(&m->vsock.mmio, vsock_begins, m, e);
	return rc < 0 ? rc : add_virtio(m, at, &m->vsock.mmio, "virtio-vsock", e);
}

static int add_virtio_devices(struct machine *m, struct err *e)
{
	unsigned count = m->cfg.disks_count;
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < count; i++)
		rc = open_disk(m, i, e);
	for (unsigned i = 0; rc == 0 && i < m->cfg.nets_count; i++)
		rc = open_net(m, i, e);
	if (rc == 0)
		rc = open_rng(m, e);
	if (rc == 0 && m->cfg.balloon != MACHINE_BALLOON_OFF)
		rc = open_balloon(m, e);
	if (rc == 0 && m->cfg.vsock.path)
		rc = open_vsock(m, e);
	return rc;
}

unsigned machine_device_stats(struct machine *m,
			      struct device_stats ret[static MACHINE_DEVICES_MAX])
{
	unsigned count = 0;

	while (count < m->cfg.disks_count) {
		virtio_blk_device_stats(&m->disks[count].blk, &ret[count]);
		count++;
	}
	for (unsigned i = 0; i < m->cfg.nets_count; i++)
		virtio_net_device_stats(&m->nics[i].net, &ret[count++]);
	virtio_rng_device_stats(&m->rng, &ret[count++]);
	if (m->cfg.balloon != MACHINE_BALLOON_OFF)
		virtio_balloon_device_stats(&m->balloon, &ret[count++]);
	if (m->cfg.vsock.path)
		virtio_vsock_device_stats(&m->vsock, &ret[count++]);
	return count;
}

void machine_balloon_refresh(struct machine *m)
{
	if (m->cfg.balloon != MACHINE_BALLOON_OFF)
		virtio_balloon_refresh(&m->balloon, BALLOON_REFRESH_NS);
}

bool machine_balloon_stats(struct machine *m, struct balloon_stats *ret)
{
	if (m->cfg.balloon == MACHINE_BALLOON_OFF)
		return false;
	virtio_balloon_stats_get(&m->balloon, ret);
	return true;
}

bool machine_vsock_stats(struct machine *m, struct vsock_stats *ret)
{
	if (!m->cfg.vsock.path)
		return false;
	virtio_vsock_stats_get(&m->vsock, ret);
	return true;
}

int machine_test_devices_open(struct machine *m, struct err *e)
{
	int rc;

	if (m->kind != LOAD_MULTIBOOT)
		return 0;
	rc = bus_add(&m->bus, BUS_PORTS, FW_CFG_PORT, FW_CFG_PORTS, &fw_cfg_bus_ops, &m->fw_cfg,
		     "fw_cfg", e);
	return rc == 0 && m->cfg.exit_port ? test_dev_add(&m->test_dev, &m->bus, e) : rc;
}

int machine_devices_open(struct machine *m, struct err *e)
{
	int rc;

	bus_init(&m->bus);
	m->acpi = (struct acpi_cfg){.cpus = m->cfg.cpus, .rtc = true, .serial = true,
				   .generation = true};
	rc = add_pc_devices(m, e);
	return rc < 0 ? rc : add_virtio_devices(m, e);
}

void machine_devices_close(struct machine *m)
{
	for (unsigned i = 0; m->disks && i < m->cfg.disks_count; i++) {
		if (m->disks[i].is_open)
			virtio_blk_close(&m->disks[i].blk);
		blk_file_close(&m->disks[i].file);
		free(m->disks[i].full_path);
	}
	free(m->disks);
	m->disks = NULL;
	for (unsigned i = 0; i < m->cfg.nets_count; i++)
		close_net(&m->nics[i]);
	virtio_rng_close(&m->rng);
	virtio_balloon_close(&m->balloon);
	virtio_vsock_close(&m->vsock);
	if (m->vsock_socket.fd > 0)
		control_socket_close(&m->vsock_socket);
	m->vsock_socket.fd = 0;
	if (!m->has_devices)
		return;
	serial_fini(&m->serial);
	rtc_fini(&m->rtc);
	pm_fini(&m->pm);
	fw_cfg_fini(&m->fw_cfg);
	test_dev_fini(&m->test_dev);
	m->has_devices = false;
}
