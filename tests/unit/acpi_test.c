/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/boot/acpi.c and vmm/chip/acpi_pm.c: the tables are walked from the RSDP as a kernel does,
 * every checksum and length is checked, and the DSDT's bytes are decoded again; the registers
 * that the tables name turn off and reset. Measured by ACPI 6.4.
 */
#include "vmm/boot/acpi.h"

#include "load_fixture.h"
#include "vmm/chip/acpi_pm.h"

struct fix {
	struct ram ram;
	struct acpi_cfg cfg;
	gpa_t rsdp;
	struct err err;
};

static int setup(void **state)
{
	struct fix *x = calloc(1, sizeof(*x));

	assert_non_null(x);
	ram_init(&x->ram, 2 << 20, 0);
	x->cfg = (struct acpi_cfg){.cpus = 4, .serial = true};
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fix *x = *state;

	ram_fini(&x->ram);
	free(x);
	return 0;
}

static int build(struct fix *x)
{
	ram_clear(&x->ram);
	x->err = (struct err){0};
	return acpi_build(&x->cfg, &x->ram.mem, &x->rsdp, &x->err);
}

static uint8_t sum(const unsigned char *p, size_t len)
{
	uint8_t s = 0;

	while (len--)
		s = (uint8_t)(s + *p++);
	return s;
}

/* A table at a guest address, with everything checked that all tables have in common. */
static const unsigned char *table(const struct fix *x, uint64_t gpa, const char *signature)
{
	const unsigned char *t = x->ram.bytes + gpa;

	assert_true(gpa >= ACPI_GPA && gpa < ACPI_GPA + ACPI_BYTES_MAX);
	assert_memory_equal(t, signature, 4);
	assert_true(get32(t, 4) >= 36 && get32(t, 4) <= ACPI_GPA + ACPI_BYTES_MAX - gpa);
	assert_int_equal(sum(t, get32(t, 4)), 0);
	return t;
}

static const unsigned char *find(const struct fix *x, const char *signature)
{
	const unsigned char *r = x->ram.bytes + x->rsdp.v;
	const unsigned char *xsdt = table(x, get64(r, 24), "XSDT");

	for (size_t at = 36; at + 8 <= get32(xsdt, 4); at += 8)
		if (memcmp(x->ram.bytes + get64(xsdt, at), signature, 4) == 0)
			return table(x, get64(xsdt, at), signature);
	fail_msg("no table %s", signature);
	return NULL;
}

static const unsigned char *dsdt(const struct fix *x)
{
	return table(x, get64(find(x, "FACP"), 140), "DSDT");
}

static void test_rsdp(void **state)
{
	struct fix *x = *state;
	const unsigned char *r;

	assert_int_equal(build(x), 0);
	r = x->ram.bytes + x->rsdp.v;
	/* Where a kernel that is not told searches: 16-aligned, from 0xe0000 on. */
	assert_int_equal(x->rsdp.v % 16, 0);
	assert_in_range(x->rsdp.v, 0xe0000, 0xfffff);
	assert_memory_equal(r, "RSD PTR ", 8);
	assert_int_equal(r[15], 2);
	assert_int_equal(get32(r, 20), 36);
	assert_int_equal(sum(r, 20), 0);
	assert_int_equal(sum(r, 36), 0);
}

static void test_fadt(void **state)
{
	struct fix *x = *state;
	const unsigned char *f;

	assert_int_equal(build(x), 0);
	f = find(x, "FACP");
	assert_int_equal(get32(f, 4), 276);
	assert_int_equal(f[8], 6);
	assert_int_equal(get32(f, 40), get64(f, 140));
	assert_int_equal(get32(f, 56), ACPI_PM1_EVT_PORT);
	assert_int_equal(get32(f, 64), ACPI_PM1_CNT_PORT);
	assert_int_equal(f[88], 4);
	assert_int_equal(f[89], 2);
	/* The extended addresses say the same. */
	assert_int_equal(f[148], 1);
	assert_int_equal(f[149], 32);
	assert_int_equal(get64(f, 152), ACPI_PM1_EVT_PORT);
	assert_int_equal(f[172], 1);
	assert_int_equal(f[173], 16);
	assert_int_equal(get64(f, 176), ACPI_PM1_CNT_PORT);
	/* RESET_REG_SUP, and not HW_REDUCED_ACPI. */
	assert_int_equal(get32(f, 112) & (1u << 10 | 1u << 20), 1u << 10);
	assert_int_equal(f[116], 1);
	assert_int_equal(f[117], 8);
	assert_int_equal(get64(f, 120), ACPI_RESET_PORT);
	assert_int_equal(f[128], ACPI_RESET_VALUE);
	/* WBINVD, C1 everywhere, neither power nor sleep button, an RTC that wakes nobody. */
	assert_int_equal(get32(f, 112), 1u << 0 | 1u << 2 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 10);
	assert_int_equal(f[131], 4);
	assert_int_equal(get16(f, 46), ACPI_SCI_GSI);
	assert_int_equal(get32(f, 48), 0); /* no SMI_CMD: ACPI's mode is the only one */
	assert_true(get16(f, 96) > 100 && get16(f, 98) > 1000); /* neither C2 nor C3 (5.2.9) */
	assert_true(get64(f, 132) == 0);
	/* Bytes, but for the event and control registers, which are of words. */
	assert_int_equal(f[119], 1);
	assert_int_equal(f[151], 2);
	assert_int_equal(f[175], 2);
	/* No CMOS clock, until there is one. */
	assert_int_equal(f[108], 0);
	assert_int_equal(get16(f, 109), 1 << 0 | 1 << 2 | 1 << 3 | 1 << 5);
	x->cfg.rtc = true;
	assert_int_equal(build(x), 0);
	assert_int_equal(get16(find(x, "FACP"), 109), 1 << 0 | 1 << 2 | 1 << 3);
	assert_int_equal(find(x, "FACP")[108], 0x32);
}

static void test_facs(void **state)
{
	struct fix *x = *state;
	const unsigned char *s;

	assert_int_equal(build(x), 0);
	assert_int_equal(get32(find(x, "FACP"), 36) % 64, 0);
	s = x->ram.bytes + get32(find(x, "FACP"), 36);
	assert_memory_equal(s, "FACS", 4);
	assert_int_equal(get32(s, 4), 64);
	assert_int_equal(s[32], 2);
}

static void test_madt(void **state)
{
	struct fix *x = *state;

	for (unsigned cpus = 1; cpus <= ACPI_CPUS_MAX; cpus++) {
		const unsigned char *m;
		unsigned lapics = 0, ioapics = 0, nmis = 0;

		x->cfg.cpus = cpus;
		assert_int_equal(build(x), 0);
		m = find(x, "APIC");
		assert_int_equal(get32(m, 36), 0xfee00000);
		assert_int_equal(get32(m, 40), 1);
		for (size_t at = 44; at < get32(m, 4); at += m[at + 1]) {
			assert_true(m[at + 1] >= 2 && m[at + 1] <= get32(m, 4) - at);
			if (m[at] == 0) {
				assert_int_equal(m[at + 1], 8);
				assert_int_equal(m[at + 2], lapics);
				assert_int_equal(m[at + 3], lapics);
				assert_int_equal(get32(m, at + 4), 1);
				lapics++;
			} else if (m[at] == 1) {
				assert_int_equal(m[at + 1], 12);
				assert_int_equal(m[at + 2], 0);
				assert_int_equal(get32(m, at + 4), 0xfec00000);
				assert_int_equal(get32(m, at + 8), 0);
				ioapics++;
			} else {
				assert_int_equal(m[at], 4);
				assert_int_equal(m[at + 1], 6);
				/* Of all processors, as the bus has it, at LINT1. */
				assert_int_equal(m[at + 2], 0xff);
				assert_int_equal(get16(m, at + 3), 0);
				assert_int_equal(m[at + 5], 1);
				nmis++;
			}
		}
		assert_int_equal(lapics, cpus);
		assert_int_equal(ioapics, 1);
		assert_int_equal(nmis, 1);
	}
}

/* ---- the DSDT, decoded ---- */

/* A package length at *at, moved behind it; returns where the package ends. */
static size_t pkg_end(const unsigned char *t, size_t *at)
{
	size_t start = *at;
	unsigned more = t[start] >> 6;
	size_t n = more ? t[start] & 0xfu : t[start] & 0x3fu;

	for (unsigned i = 0; i < more; i++)
		n |= (size_t)t[start + 1 + i] << (4 + 8 * i);
	*at = start + 1 + more;
	return start + n;
}

struct device {
	char hid[16];
	int uid, cca; /* -1: not said */
	bool writable;
	uint64_t gpa;
	uint32_t bytes;
	uint32_t gsi;
	uint8_t irq_flags;
	uint16_t port;
	uint8_t ports;
	uint16_t irq_mask;
};

static void decode_crs(const unsigned char *r, size_t len, struct device *d)
{
	size_t at = 0;

	assert_true(len >= 2);
	while (r[at] != 0x79) {
		if (r[at] == 0x86) {
			assert_int_equal(get16(r, at + 1), 9);
			d->writable = r[at + 3] & 1;
			d->gpa = get32(r, at + 4);
			d->bytes = get32(r, at + 8);
		} else if (r[at] == 0x89) {
			assert_int_equal(get16(r, at + 1), 6);
			assert_int_equal(r[at + 4], 1);
			d->irq_flags = r[at + 3];
			d->gsi = get32(r, at + 5);
		} else if (r[at] == 0x47) {
			/* All 16 address lines, from one place to the same. */
			assert_int_equal(r[at + 1], 1);
			d->port = get16(r, at + 2);
			assert_int_equal(get16(r, at + 4), d->port);
			d->ports = r[at + 7];
		} else {
			assert_int_equal(r[at], 0x22);
			d->irq_mask = get16(r, at + 1);
		}
		at += r[at] & 0x80 ? 3u + get16(r, at + 1) : 1u + (r[at] & 7u);
		assert_true(at < len);
	}
	assert_int_equal(at + 2, len);
}

/* Name (…): strings, integers of one or four bytes, and the resource buffer. */
static size_t decode_name(const unsigned char *t, size_t at, struct device *d)
{
	const unsigned char *name = t + at + 1;

	assert_int_equal(t[at], 0x08);
	at += 5;
	if (t[at] == 0x0d) {
		snprintf(d->hid, sizeof(d->hid), "%s", (const char *)t + at + 1);
		return at + 2 + strlen((const char *)t + at + 1);
	}
	if (t[at] == 0x0a) {
		*(memcmp(name, "_UID", 4) == 0 ? &d->uid : &d->cca) = t[at + 1];
		return at + 2;
	}
	if (t[at] == 0x0c) {
		assert_memory_equal(name, "_HID", 4);
		/* EISA: three letters of five bits, four digits. */
		snprintf(d->hid, sizeof(d->hid), "%c%c%c%02X%02X", '@' + (t[at + 1] >> 2),
			 '@' + ((t[at + 1] & 3) << 3 | t[at + 2] >> 5), '@' + (t[at + 2] & 31),
			 t[at + 3], t[at + 4]);
		return at + 5;
	}
	assert_int_equal(t[at++], 0x11);
	assert_memory_equal(name, "_CRS", 4);
	size_t end = pkg_end(t, &at);

	assert_int_equal(t[at], 0x0a);
	assert_int_equal(t[at + 1], end - at - 2);
	decode_crs(t + at + 2, end - at - 2, d);
	return end;
}

static unsigned decode_devices(const struct fix *x, struct device *ret)
{
	static const unsigned char s5[] = {0x08, '\\', '_', 'S', '5', '_', 0x12};
	const unsigned char *t = dsdt(x);
	size_t at = 36, end;
	unsigned n = 0;

	assert_memory_equal(t + at, s5, sizeof(s5));
	at += sizeof(s5);
	end = pkg_end(t, &at);
	assert_int_equal(t[at], 4);
	assert_int_equal(t[at + 2], ACPI_S5_TYPE);
	assert_int_equal(end, at + 9);
	assert_int_equal(t[end], 0x10);
	at = end + 1;
	end = pkg_end(t, &at);
	assert_int_equal(end, get32(t, 4));
	assert_memory_equal(t + at, "\\_SB_", 5);
	at += 5;
	while (at < end) {
		size_t device_end;

		assert_memory_equal(t + at, "\x5b\x82", 2);
		at += 2;
		device_end = pkg_end(t, &at);
		assert_true(device_end <= end);
		ret[n] = (struct device){.uid = -1, .cca = -1};
		for (at += 4; at < device_end;)
			at = decode_name(t, at, &ret[n]);
		assert_int_equal(at, device_end);
		n++;
	}
	return n;
}

static void test_devices(void **state)
{
	struct fix *x = *state;
	struct device d[ACPI_VIRTIO_MAX + 1];

	x->cfg.virtio[0] = (struct acpi_virtio){0xd0000000, 0x200, 5, true};
	x->cfg.virtio[1] = (struct acpi_virtio){0xd0001000, 0x1000, 23, false};
	x->cfg.virtio_count = 2;
	assert_int_equal(build(x), 0);
	assert_int_equal(decode_devices(x, d), 3);
	assert_string_equal(d[0].hid, "PNP0501");
	assert_int_equal(d[0].port, 0x3f8);
	assert_int_equal(d[0].ports, 8);
	assert_int_equal(d[0].irq_mask, 1 << 4);
	assert_string_equal(d[1].hid, "LNRO0005");
	assert_int_equal(d[1].gpa, 0xd0000000);
	assert_int_equal(d[1].bytes, 0x200);
	assert_int_equal(d[1].gsi, 5);
	assert_int_equal(d[1].irq_flags, 1);
	assert_int_equal(d[2].gpa, 0xd0001000);
	assert_int_equal(d[2].bytes, 0x1000);
	assert_int_equal(d[2].gsi, 23);
	assert_int_equal(d[2].irq_flags, 3);
	x->cfg.serial = false;
	x->cfg.virtio_count = 0;
	assert_int_equal(build(x), 0);
	assert_int_equal(decode_devices(x, d), 0);
}

/* Which of the interrupts a machine with as many devices as possible would use. */
static uint32_t some_gsi(unsigned i)
{
	return 10 + i % 14;
}

/* The terms byte by byte: ACPI 6.4, 20.2. All lengths are of three bytes. */
static void test_generation(void **state)
{
	static const unsigned char wanted[] =
		"\x5b\x82\x80\x05\x00" "VGEN"
		"\x08" "_HID" "\x0d" "ASPF0001\0"
		"\x08" "_CID" "\x0d" "VM_Gen_Counter\0"
		"\x08" "_DDN" "\x0d" "VM_Gen_Counter\0"
		"\x08" "ADDR" "\x12\x8a\x00\x00\x02" "\x0c\x00\x40\x0e\x00" "\x00"
		"\x5b\x82\x8c\x03\x00" "GED0"
		"\x08" "_HID" "\x0d" "ACPI0013\0"
		"\x08" "_CRS" "\x11\x80\x01\x00\x0a\x0b"
		"\x89\x06\x00\x03\x01\x03\x00\x00\x00" "\x79\x00"
		"\x14\x8f\x00\x00" "_EVT" "\x09" "\x86" "VGEN" "\x0a\x80";
	const size_t len = sizeof(wanted) - 1;
	struct fix *x = *state;
	size_t without, with;
	struct device d[ACPI_VIRTIO_MAX + 1];

	assert_int_equal(build(x), 0);
	without = get32(dsdt(x), 4);
	x->cfg.generation = true;
	assert_int_equal(build(x), 0);
	with = get32(dsdt(x), 4);
	assert_int_equal(with, without + len);
	assert_memory_equal(dsdt(x) + with - len, wanted, len);
	/* Behind what the tables may take, and nobody else's. */
	assert_int_equal(ACPI_GENERATION_GPA, 0xe4000);
	x->cfg.cpus = ACPI_CPUS_MAX;
	x->cfg.virtio_count = ACPI_VIRTIO_MAX;
	for (unsigned i = 0; i < ACPI_VIRTIO_MAX; i++) {
		x->cfg.virtio[i] = (struct acpi_virtio){0xd0000000 + i * PAGE_BYTES, PAGE_BYTES,
							some_gsi(i), true};
		assert_int_not_equal(some_gsi(i), ACPI_GENERATION_GSI);
	}
	assert_int_equal(build(x), 0);
	x->cfg.generation = false;
	assert_int_equal(build(x), 0);
	assert_int_equal(decode_devices(x, d), ACPI_VIRTIO_MAX + 1);
}

static void test_the_largest(void **state)
{
	struct fix *x = *state;
	struct device d[ACPI_VIRTIO_MAX + 1];

	x->cfg.cpus = ACPI_CPUS_MAX;
	for (unsigned i = 0; i < ACPI_VIRTIO_MAX; i++)
		x->cfg.virtio[i] = (struct acpi_virtio){0xd0000000 + i * PAGE_BYTES, PAGE_BYTES,
							some_gsi(i), true};
	x->cfg.virtio_count = ACPI_VIRTIO_MAX;
	assert_int_equal(build(x), 0);
	assert_int_equal(decode_devices(x, d), ACPI_VIRTIO_MAX + 1);
	for (unsigned i = 0; i < ACPI_VIRTIO_MAX; i++) {
		assert_int_equal(d[i + 1].gpa, 0xd0000000 + i * PAGE_BYTES);
		assert_int_equal(d[i + 1].gsi, some_gsi(i));
		/* Told from its like, writable, and of the processors' caches. */
		assert_int_equal(d[i + 1].uid, i);
		assert_int_equal(d[i + 1].cca, 1);
		assert_true(d[i + 1].writable);
	}
}

/* Windows and interrupts at the very edge of what may be. */
static void test_the_outermost(void **state)
{
	static const struct acpi_virtio good[] = {
		{GUEST_HOLE_GPA, 0x1000, 5, false},
		{ACPI_IOAPIC_GPA - 0x1000, 0x1000, 23, true},
		{GUEST_HOLE_GPA, (uint32_t)(ACPI_IOAPIC_GPA - GUEST_HOLE_GPA), 7, true},
	};
	struct fix *x = *state;
	struct device d[ACPI_VIRTIO_MAX + 1];

	x->cfg.virtio_count = ARRAY_LEN(good);
	memcpy(x->cfg.virtio, good, sizeof(good));
	assert_int_equal(build(x), 0);
	assert_int_equal(decode_devices(x, d), ARRAY_LEN(good) + 1);
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		assert_int_equal(d[i + 1].gpa, good[i].gpa);
		assert_int_equal(d[i + 1].bytes, good[i].bytes);
		assert_int_equal(d[i + 1].gsi, good[i].gsi);
	}
}

static void test_refused(void **state)
{
	static const struct acpi_virtio bad[] = {
		{0xbffff000, 0x1000, 5, false},     {0xd0000001, 0x1000, 5, false},
		{0xd0000000, 0, 5, false},          {0xfec00000, 0x1000, 5, false},
		{0xfebff000, 0x1001, 5, false},     {0x1d0000000, 0x1000, 5, false},
		{UINT64_MAX - 0xfff, 0x1000, 5, false}, {0xd0000000, UINT32_MAX, 5, false},
		{0xd0000000, 0x1000, 4, false},     {0xd0000000, 0x1000, 8, false},
		{0xd0000000, 0x1000, 9, false},     {0xd0000000, 0x1000, 24, false},
	};
	struct fix *x = *state;

	x->cfg.virtio_count = 1;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		x->cfg.virtio[0] = bad[i];
		assert_int_equal(build(x), -EINVAL);
		assert_non_null(strstr(x->err.text, "ACPI tables: virtio device 0"));
	}
	x->cfg.virtio_count = ACPI_VIRTIO_MAX + 1;
	assert_int_equal(build(x), -EINVAL);
	x->cfg.virtio_count = 0;
	x->cfg.cpus = 0;
	assert_int_equal(build(x), -EINVAL);
	x->cfg.cpus = ACPI_CPUS_MAX + 1;
	assert_int_equal(build(x), -EINVAL);
	assert_string_equal(x->err.text, "ACPI tables: 17 processors, not 1 to 16");
	x->cfg.cpus = 1;
	x->ram.mem.low_bytes = 0xe0000;
	assert_int_equal(build(x), -EFAULT);
}

/* ---- the registers ---- */

static uint64_t pm_read(const struct acpi_pm *pm, uint16_t port, size_t len)
{
	uint8_t bytes[8] = {0};

	acpi_pm_read(pm, port, bytes, len);
	return get64(bytes, 0);
}

static enum acpi_action pm_write(struct acpi_pm *pm, uint16_t port, size_t len, uint64_t value)
{
	uint8_t bytes[8];

	put64(bytes, 0, value);
	return acpi_pm_write(pm, port, bytes, len);
}

static void test_power_off(void **state)
{
	struct acpi_pm pm = {0};

	(void)state;
	/* As Linux does: the type first, then the type and SLP_EN. */
	assert_int_equal(pm_write(&pm, 0x604, 2, 5u << 10), ACPI_NOTHING);
	assert_int_equal(pm_read(&pm, 0x604, 2), 5u << 10 | 1);
	assert_int_equal(pm_write(&pm, 0x604, 2, 5u << 10 | 1u << 13), ACPI_POWER_OFF);
	assert_int_equal(pm_read(&pm, 0x604, 2), 5u << 10 | 1); /* SLP_EN reads as 0 */
	/* Byte by byte, and within a wider access. */
	assert_int_equal(pm_write(&pm, 0x604, 1, 0), ACPI_NOTHING);
	assert_int_equal(pm_write(&pm, 0x605, 1, 0x34), ACPI_POWER_OFF);
	assert_int_equal(pm_write(&pm, 0x602, 4, 0x34000000), ACPI_POWER_OFF);
	/* Any other sleep state is not there. */
	for (unsigned type = 0; type < 8; type++)
		assert_int_equal(pm_write(&pm, 0x604, 2, type << 10 | 1u << 13),
				 type == ACPI_S5_TYPE ? ACPI_POWER_OFF : ACPI_NOTHING);
}

static void test_events(void **state)
{
	struct acpi_pm pm = {0};

	(void)state;
	/* Linux reads back what it enabled, and gives up a handler if it is not there. */
	assert_int_equal(pm_write(&pm, 0x602, 2, 0x0120), ACPI_NOTHING);
	assert_int_equal(pm_read(&pm, 0x602, 2), 0x0120);
	assert_int_equal(pm_read(&pm, 0x603, 1), 0x01);
	assert_int_equal(pm_write(&pm, 0x600, 2, 0xffff), ACPI_NOTHING);
	assert_int_equal(pm_read(&pm, 0x600, 2), 0);
	assert_int_equal(pm_read(&pm, 0x600, 4), 0x01200000);
	assert_int_equal(pm_read(&pm, 0x604, 4), 0xffff0001);
}

static void test_reset(void **state)
{
	struct acpi_pm pm = {0};

	(void)state;
	assert_int_equal(pm_write(&pm, 0xcf9, 1, ACPI_RESET_VALUE), ACPI_RESET);
	assert_int_equal(pm_write(&pm, 0xcf9, 1, 2), ACPI_NOTHING);
	assert_int_equal(pm_write(&pm, 0xcf8, 4, UINT32_MAX), ACPI_NOTHING);
	assert_int_equal(pm_write(&pm, 0xcf9, 2, 0x606), ACPI_NOTHING);
	assert_int_equal(pm_read(&pm, 0xcf9, 1), 0);
}

static void test_ports(void **state)
{
	unsigned owned = 0;

	(void)state;
	for (unsigned port = 0; port < 0x10000; port++)
		owned += acpi_pm_owns((uint16_t)port);
	assert_int_equal(owned, ACPI_PM_PORTS + 1);
	assert_true(acpi_pm_owns(0x600) && acpi_pm_owns(0x605) && acpi_pm_owns(0xcf9));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_rsdp),
		T(test_fadt),
		T(test_facs),
		T(test_madt),
		T(test_devices),
		T(test_generation),
		T(test_the_largest),
		T(test_the_outermost),
		T(test_refused),
		cmocka_unit_test(test_power_off),
		cmocka_unit_test(test_events),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_ports),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
