/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing entry for a guest's accesses to ports and device memory: every chip of the machine
 * on one bus, a disk and an entropy source among them. The first byte is set-up; then one
 * step after another, each an access of any width anywhere, a write to guest memory, or
 * something from outside. What must hold: no access outside guest memory or the disk, an
 * interrupt line that is told only of changes, an end.
 */
#include "disk.h"
#include "vmm/chip/pm.h"
#include "vmm/chip/reset.h"
#include "vmm/chip/rtc_cmos.h"
#include "vmm/chip/serial_16550.h"
#include "vmm/console/terminal.h"
#include "vmm/virtio/virtio_rng.h"

#define BLK_GPA 0xd0000000ull
#define RNG_GPA 0xd0001000ull
#define GSIS 8u

struct world {
	struct disk_world d;
	struct bus bus;
	struct serial serial;
	struct rtc rtc;
	struct pm pm;
	struct reset reset;
	struct exit_port exit;
	struct virtio_rng rng;
	struct terminal terminal;
	bool level[GSIS];
	uint8_t printed;
};

/* ---- what the chips tell ---- */

static void irq_changed(void *ctx, uint32_t gsi, bool level)
{
	struct world *w = ctx;

	must(gsi < GSIS && w->level[gsi] != level);
	w->level[gsi] = level;
}

static const struct irq_ops irq_ops = {.set = irq_changed};

static void nothing(void *ctx)
{
	(void)ctx;
}

static void ended(void *ctx, uint32_t status)
{
	(void)ctx;
	(void)status;
}

static void sent(void *ctx, uint8_t byte)
{
	((struct world *)ctx)->printed ^= byte;
}

static int64_t rtc_time(void *ctx)
{
	(void)ctx;
	return 1700000000;
}

static int fill(void *ctx, void *buf, size_t len)
{
	(void)ctx;
	must(len <= VIRTIO_RNG_BYTES_MAX);
	memset(buf, 0x5a, len);
	return 0;
}

/* ---- the machine ---- */

static void add(struct world *w, enum bus_space space, uint64_t at, uint64_t len,
		const struct bus_ops *ops, void *dev)
{
	must(bus_add(&w->bus, space, at, len, ops, dev, "fuzz", NULL) == 0);
}

static struct irq_line line(struct world *w, uint32_t gsi)
{
	return (struct irq_line){.ops = &irq_ops, .ctx = w, .gsi = gsi};
}

static void open_chips(struct world *w, const struct guest_mem *mem, bool read_only)
{
	static const struct serial_ops serial_ops = {.output = sent, .room = nothing};
	static const struct pm_ops pm_ops = {.power_off = nothing, .reset = nothing};
	const struct irq_line com1 = line(w, SERIAL_COM1_GSI), blk = line(w, 1);
	const struct virtio_rng_cfg cfg = {.fill = fill, .ctx = w, .mem = mem, .irq = line(w, 2)};

	bus_init(&w->bus);
	serial_init(&w->serial, &serial_ops, w, &com1);
	rtc_init(&w->rtc, rtc_time, w);
	pm_init(&w->pm, &pm_ops, w);
	reset_init(&w->reset, nothing, w);
	w->exit = (struct exit_port){.ended = ended, .ctx = w};
	w->terminal.is_tty = true;
	disk_open(&w->d, mem, &blk, read_only);
	must(virtio_rng_open(&w->rng, &cfg, NULL) == 0);
	add(w, BUS_PORTS, SERIAL_COM1_PORT, SERIAL_PORTS, &serial_bus_ops, &w->serial);
	add(w, BUS_PORTS, RTC_PORT, RTC_PORTS, &rtc_bus_ops, &w->rtc);
	add(w, BUS_PORTS, I8042_DATA_PORT, 1, &reset_i8042_data_bus_ops, &w->reset);
	add(w, BUS_PORTS, I8042_COMMAND_PORT, 1, &reset_i8042_command_bus_ops, &w->reset);
	add(w, BUS_PORTS, EXIT_PORT, EXIT_PORTS, &exit_port_bus_ops, &w->exit);
	must(pm_add(&w->pm, &w->bus, NULL) == 0);
	add(w, BUS_MMIO, BLK_GPA, VIRTIO_MMIO_BYTES, &virtio_mmio_bus_ops, &w->d.blk.mmio);
	add(w, BUS_MMIO, RNG_GPA, VIRTIO_MMIO_BYTES, &virtio_mmio_bus_ops, &w->rng.mmio);
}

static void close_chips(struct world *w)
{
	virtio_rng_close(&w->rng);
	disk_close(&w->d);
	pm_fini(&w->pm);
	rtc_fini(&w->rtc);
	serial_fini(&w->serial);
}

/* ---- steps ---- */

/* what: bit 3 writes, bits 4-7 choose where, of which the last is anywhere. */
static void access_bus(struct world *w, uint8_t what, struct bytes *in)
{
	static const uint64_t bases[] = {
		SERIAL_COM1_PORT, RTC_PORT, I8042_DATA_PORT, I8042_COMMAND_PORT, EXIT_PORT,
		ACPI_PM_PORT, ACPI_RESET_PORT, BLK_GPA, BLK_GPA, BLK_GPA, BLK_GPA + 0x100, RNG_GPA,
		RNG_GPA, RNG_GPA + 0x100,
	};
	unsigned where = what >> 4, len = 1 + take8(in) % 8;
	uint64_t at = where < ARRAY_LEN(bases) ? bases[where] + take8(in) : take(in, 8);
	enum bus_space space = where < 7 || where == 14 ? BUS_PORTS : BUS_MMIO;
	uint8_t *data = malloc(len);

	must(data != NULL);
	memset(data, 0, len);
	if (what & 8)
		memcpy(data, &(uint64_t){take(in, len)}, len);
	bus_access(&w->bus, space, space == BUS_PORTS ? at & 0xffff : at, data, len, what & 8);
	free(data);
}

/* Typed at a terminal: whole sequences, or Ctrl-A and what becomes of it at another time. */
static void type(struct world *w, struct bytes *in)
{
	size_t n = take8(in), kept;
	uint8_t *out;

	n = min_u64(n, in->left);
	out = malloc(n + 1);
	must(out != NULL);
	(void)terminal_filter(&w->terminal, in->at, n, out, &kept);
	must(kept <= n + 1);
	must(serial_push(&w->serial, out, kept) <= kept);
	free(out);
	in->at += n;
	in->left -= n;
}

static void step(struct world *w, struct bytes *in)
{
	uint8_t what = take8(in);
	uint64_t at;

	switch (what & 7) {
	case 0: /* guest memory */
		at = take(in, 2) % (RAM_BYTES - 8);
		memcpy(w->d.ram + at, &(uint64_t){take(in, 8)}, 8);
		break;
	case 1: /* devices that nobody waits for; a guest could keep them busy for ever */
		for (unsigned i = 0; i < 4 && virtio_mmio_work(&w->d.blk.mmio); i++)
			;
		for (unsigned i = 0; i < 4 && virtio_mmio_work(&w->rng.mmio); i++)
			;
		break;
	case 2: /* the other end of the line */
		if (what & 0x80)
			serial_set_modem(&w->serial, what & 0x78 ? take8(in) : 0);
		else if (what & 0x40)
			serial_push_break(&w->serial);
		else
			type(w, in);
		break;
	default:
		access_bus(w, what, in);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world *w = calloc(1, sizeof(*w));
	struct bytes in = {data, size};

	must(w != NULL);
	const struct guest_mem mem = disk_memory(&w->d);

	open_chips(w, &mem, take8(&in) & 1);
	while (in.left)
		step(w, &in);
	close_chips(w);
	free(w);
	return 0;
}
