/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See acpi.h. Facts: ACPI Specification 6.4, chapters 5.2 (tables), 5.6.9 (generic event device),
 * 6.4 (resource descriptors), 20.2 (AML grammar). virtio-mmio's identifier LNRO0005 is Linux's
 * (drivers/virtio/virtio_mmio.c); VM_Gen_Counter and ADDR are of Microsoft's "Virtual Machine
 * Generation ID" (Linux: drivers/virt/vmgenid.c). The DSDT is assembled here: it is a list of
 * devices, and its length depends on how many there are.
 */
#include <errno.h>

#include "base/assert.h"
#include "vmm/boot/acpi.h"
#include "vmm/chip/acpi_pm.h"
#include "vmm/memory/bytes.h"

#define HEADER_BYTES 36
#define RSDP_BYTES 36
#define RSDP_V1_BYTES 20
#define FADT_BYTES 276
#define FACS_BYTES 64
#define TABLE_ALIGN 64

/* FADT flags (table 5.10) and boot architecture flags (table 5.11). */
#define FADT_WBINVD (1u << 0)
#define FADT_PROC_C1 (1u << 2)
#define FADT_PWR_BUTTON (1u << 4) /* it is no fixed hardware */
#define FADT_SLP_BUTTON (1u << 5)
#define FADT_FIX_RTC (1u << 6)    /* the RTC does not wake by fixed hardware */
#define FADT_RESET_REG_SUP (1u << 10)
#define BOOT_LEGACY_DEVICES (1u << 0)
#define BOOT_NO_VGA (1u << 2)
#define BOOT_NO_MSI (1u << 3)
#define BOOT_NO_CMOS_RTC (1u << 5)

#define RTC_GSI 8
#define RTC_CENTURY 0x32 /* the register that PCs keep it in */

#define SPACE_IO 1
#define ACCESS_BYTE 1
#define ACCESS_WORD 2

/* The tables as they will lie at ACPI_GPA. */
struct tables {
	unsigned char b[ACPI_BYTES_MAX];
	size_t len;
};

static void put_bytes(struct tables *t, const void *bytes, size_t len)
{
	/* The configuration's limits bound what can come: see the test of the largest one. */
	ASSERT(len <= sizeof(t->b) - t->len);
	memcpy(t->b + t->len, bytes, len);
	t->len += len;
}

static void put(struct tables *t, uint64_t value, size_t bytes)
{
	put_bytes(t, &value, bytes);
}

static void zeroes(struct tables *t, size_t len)
{
	ASSERT(len <= sizeof(t->b) - t->len);
	memset(t->b + t->len, 0, len);
	t->len += len;
}

static uint8_t checksum(const unsigned char *p, size_t len)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum = (uint8_t)(sum + p[i]);
	return (uint8_t)-sum;
}

/* Starts a table with the header of 5.2.6; returns where it begins. */
static size_t table_begin(struct tables *t, const char *signature, uint8_t revision)
{
	size_t at;

	zeroes(t, align_up(t->len, TABLE_ALIGN) - t->len);
	at = t->len;
	put_bytes(t, signature, 4);
	put(t, 0, 4); /* length: table_end */
	put(t, revision, 1);
	put(t, 0, 1); /* checksum: table_end */
	put_bytes(t, "ASYNPF", 6);
	put_bytes(t, "ASYNCPF ", 8);
	put(t, 1, 4);
	put_bytes(t, "ASPF", 4);
	put(t, 1, 4);
	return at;
}

static void table_end(struct tables *t, size_t at)
{
	put32(t->b, at + 4, (uint32_t)(t->len - at));
	t->b[at + 9] = checksum(t->b + at, t->len - at);
}

/* A generic address structure (5.2.3.2) in I/O space. */
static void put_gas(struct tables *t, uint16_t port, uint8_t bits, uint8_t access)
{
	put(t, SPACE_IO, 1);
	put(t, bits, 1);
	put(t, 0, 1);
	put(t, access, 1);
	put(t, port, 8);
}

/* ---- AML (20.2) ---- */

/* Begins a package-like term; the length is filled in by aml_end, always in three bytes. */
static size_t aml_begin(struct tables *t, const char *op, size_t op_bytes)
{
	size_t at;

	put_bytes(t, op, op_bytes);
	at = t->len;
	put(t, 0, 3);
	return at;
}

static void aml_end(struct tables *t, size_t at)
{
	/* PkgLength counts itself; bits 6-7 of its lead byte: how many bytes follow it. */
	uint32_t n = (uint32_t)(t->len - at);

	t->b[at] = (unsigned char)(2u << 6 | (n & 0xf));
	t->b[at + 1] = (unsigned char)(n >> 4);
	t->b[at + 2] = (unsigned char)(n >> 12);
}

static void aml_name(struct tables *t, const char *name)
{
	put(t, 0x08, 1);
	put_bytes(t, name, 4);
}

static void aml_string(struct tables *t, const char *s)
{
	put(t, 0x0d, 1);
	put_bytes(t, s, strlen(s) + 1);
}

static void aml_byte(struct tables *t, uint8_t v)
{
	put(t, 0x0a, 1);
	put(t, v, 1);
}

/* Name (_CRS, Buffer (len) {…}), with the end tag that every template needs (6.4.2.9). */
static void aml_crs(struct tables *t, const unsigned char *template, size_t len)
{
	size_t at;

	aml_name(t, "_CRS");
	at = aml_begin(t, "\x11", 1);
	aml_byte(t, (uint8_t)(len + 2));
	put_bytes(t, template, len);
	put(t, 0x79, 1);
	put(t, 0, 1);
	aml_end(t, at);
}

static void aml_serial(struct tables *t)
{
	static const unsigned char crs[] = {
		0x47, 1, 0xf8, 0x03, 0xf8, 0x03, 1, 8, /* I/O ports (6.4.2.5) */
		0x22, 1 << 4, 0,                       /* IRQ 4, edge (6.4.2.1) */
	};
	size_t at = aml_begin(t, "\x5b\x82", 2);

	put_bytes(t, "COM1", 4);
	aml_name(t, "_HID");
	put(t, 0x0c, 1);
	put(t, 0x0105d041, 4); /* EISAID ("PNP0501") */
	aml_name(t, "_UID");
	aml_byte(t, 1);
	aml_crs(t, crs, sizeof(crs));
	aml_end(t, at);
}

static void aml_virtio(struct tables *t, const struct acpi_virtio *v, unsigned i)
{
	static const char digits[] = "0123456789ABCDEF";
	const char name[4] = {'V', 'I', digits[i / 16], digits[i % 16]};
	unsigned char crs[21] = {
		0x86, 9, 0, 1, /* 32-bit fixed memory range (6.4.3.4), writable */
		[12] = 0x89, 6, 0, /* extended interrupt (6.4.3.6) */
		[15] = (unsigned char)(v->level ? 1 : 3), /* consumer, active high, not shared */
		[16] = 1,
	};
	size_t at = aml_begin(t, "\x5b\x82", 2);

	put32(crs, 4, (uint32_t)v->gpa);
	put32(crs, 8, v->bytes);
	put32(crs, 17, v->gsi);
	put_bytes(t, name, sizeof(name));
	aml_name(t, "_HID");
	aml_string(t, "LNRO0005");
	aml_name(t, "_UID");
	aml_byte(t, (uint8_t)i);
	aml_name(t, "_CCA"); /* the devices see what the processors' caches hold */
	aml_byte(t, 1);
	aml_crs(t, crs, sizeof(crs));
	aml_end(t, at);
}

/* The extended interrupt (6.4.3.6): consumer, edge, active high, not shared. */
#define CRS_EDGE(gsi) 0x89, 6, 0, 3, 1, (gsi), 0, 0, 0

/* What says where the ID is, and the device whose interrupt tells of another one. */
static void aml_generation(struct tables *t)
{
	static const unsigned char crs[] = {CRS_EDGE(ACPI_GENERATION_GSI)};
	size_t at = aml_begin(t, "\x5b\x82", 2), inner;

	put_bytes(t, "VGEN", 4);
	aml_name(t, "_HID");
	aml_string(t, "ASPF0001");
	aml_name(t, "_CID");
	aml_string(t, "VM_Gen_Counter");
	aml_name(t, "_DDN");
	aml_string(t, "VM_Gen_Counter");
	aml_name(t, "ADDR");
	inner = aml_begin(t, "\x12", 1);
	put(t, 2, 1);
	put(t, 0x0c, 1);
	put(t, ACPI_GENERATION_GPA, 4);
	put(t, 0x00, 1);
	aml_end(t, inner);
	aml_end(t, at);

	at = aml_begin(t, "\x5b\x82", 2);
	put_bytes(t, "GED0", 4);
	aml_name(t, "_HID");
	aml_string(t, "ACPI0013");
	aml_crs(t, crs, sizeof(crs));
	/* Method (_EVT, 1, Serialized) {Notify (VGEN, 0x80)} */
	inner = aml_begin(t, "\x14", 1);
	put_bytes(t, "_EVT", 4);
	put(t, 0x09, 1);
	put(t, 0x86, 1);
	put_bytes(t, "VGEN", 4);
	aml_byte(t, 0x80);
	aml_end(t, inner);
	aml_end(t, at);
}

static size_t put_dsdt(struct tables *t, const struct acpi_cfg *cfg)
{
	size_t at = table_begin(t, "DSDT", 2);
	size_t body;

	/* Name (\_S5, Package () {5, 5, 0, 0}): 7.4.2.6. */
	put(t, 0x08, 1);
	put_bytes(t, "\\_S5_", 5);
	body = aml_begin(t, "\x12", 1);
	put(t, 4, 1);
	aml_byte(t, ACPI_S5_TYPE);
	aml_byte(t, ACPI_S5_TYPE);
	aml_byte(t, 0);
	aml_byte(t, 0);
	aml_end(t, body);

	body = aml_begin(t, "\x10", 1);
	put_bytes(t, "\\_SB_", 5);
	if (cfg->serial)
		aml_serial(t);
	for (unsigned i = 0; i < cfg->virtio_count; i++)
		aml_virtio(t, &cfg->virtio[i], i);
	if (cfg->generation)
		aml_generation(t);
	aml_end(t, body);
	table_end(t, at);
	return at;
}

/* ---- the other tables ---- */

/* 5.2.10. Waking is not possible, but a machine with fixed hardware has the structure. */
static size_t put_facs(struct tables *t)
{
	size_t at;

	zeroes(t, align_up(t->len, TABLE_ALIGN) - t->len);
	at = t->len;
	put_bytes(t, "FACS", 4);
	put(t, FACS_BYTES, 4);
	zeroes(t, 24);
	put(t, 2, 1); /* version */
	zeroes(t, FACS_BYTES - (t->len - at));
	return at;
}

/* 5.2.9. Fields that are not named are zero: what they describe is not there. */
static size_t put_fadt(struct tables *t, const struct acpi_cfg *cfg, size_t facs, size_t dsdt)
{
	size_t at = table_begin(t, "FACP", 6);
	unsigned char *f = t->b + at;

	zeroes(t, FADT_BYTES - HEADER_BYTES);
	put32(f, 36, (uint32_t)(ACPI_GPA + facs));
	put32(f, 40, (uint32_t)(ACPI_GPA + dsdt));
	put16(f, 46, ACPI_SCI_GSI);
	/* SMI_CMD at 48 is 0: always in ACPI mode. */
	put32(f, 56, ACPI_PM1_EVT_PORT);
	put32(f, 64, ACPI_PM1_CNT_PORT);
	f[88] = 4; /* PM1_EVT_LEN */
	f[89] = 2; /* PM1_CNT_LEN */
	put16(f, 96, 0xffff);  /* P_LVL2_LAT: no C2 */
	put16(f, 98, 0xffff);  /* P_LVL3_LAT: no C3 */
	f[108] = cfg->rtc ? RTC_CENTURY : 0;
	put16(f, 109, (uint16_t)(BOOT_LEGACY_DEVICES | BOOT_NO_VGA | BOOT_NO_MSI |
				 (cfg->rtc ? 0 : BOOT_NO_CMOS_RTC)));
	put32(f, 112, FADT_WBINVD | FADT_PROC_C1 | FADT_PWR_BUTTON | FADT_SLP_BUTTON |
			      FADT_FIX_RTC | FADT_RESET_REG_SUP);
	f[128] = ACPI_RESET_VALUE;
	f[131] = 4; /* FADT 6.4 */
	/* X_FIRMWARE_CTRL at 132 stays 0: of it and FIRMWARE_CTRL only one may be set. */
	put64(f, 140, ACPI_GPA + dsdt);

	/* The three registers, put where they belong by moving the end for a moment. */
	size_t end = t->len;

	t->len = at + 116;
	put_gas(t, ACPI_RESET_PORT, 8, ACCESS_BYTE);
	t->len = at + 148;
	put_gas(t, ACPI_PM1_EVT_PORT, 32, ACCESS_WORD);
	t->len = at + 172;
	put_gas(t, ACPI_PM1_CNT_PORT, 16, ACCESS_WORD);
	t->len = end;
	table_end(t, at);
	return at;
}

/* 5.2.12. */
static size_t put_madt(struct tables *t, const struct acpi_cfg *cfg)
{
	size_t at = table_begin(t, "APIC", 5);

	put(t, ACPI_LAPIC_GPA, 4);
	put(t, 1, 4); /* PCAT_COMPAT: there are 8259s, too */
	for (unsigned i = 0; i < cfg->cpus; i++) {
		put(t, 0, 1); /* local APIC */
		put(t, 8, 1);
		put(t, i, 1);
		put(t, i, 1);
		put(t, 1, 4); /* enabled */
	}
	put(t, 1, 1); /* IO-APIC */
	put(t, 12, 1);
	put(t, 0, 1); /* its identifier, KVM's at reset */
	put(t, 0, 1);
	put(t, ACPI_IOAPIC_GPA, 4);
	put(t, 0, 4);
	put(t, 4, 1); /* NMI at LINT1 of all */
	put(t, 6, 1);
	put(t, 0xff, 1);
	put(t, 0, 2);
	put(t, 1, 1);
	table_end(t, at);
	return at;
}

static size_t put_xsdt(struct tables *t, size_t fadt, size_t madt)
{
	size_t at = table_begin(t, "XSDT", 1);

	put(t, ACPI_GPA + fadt, 8);
	put(t, ACPI_GPA + madt, 8);
	table_end(t, at);
	return at;
}

/* 5.2.5.3, at the very start. */
static void put_rsdp(struct tables *t, size_t xsdt)
{
	unsigned char *r = t->b;

	memcpy(r, "RSD PTR ", 8);
	memcpy(r + 9, "ASYNPF", 6);
	r[15] = 2;
	put32(r, 20, RSDP_BYTES);
	put64(r, 24, ACPI_GPA + xsdt);
	r[8] = checksum(r, RSDP_V1_BYTES);
	r[32] = checksum(r, RSDP_BYTES);
}

static int check_cfg(const struct acpi_cfg *cfg, struct err *e)
{
	if (cfg->cpus < 1 || cfg->cpus > ACPI_CPUS_MAX)
		return err_set(e, -EINVAL, "ACPI tables: %u processors, not 1 to %u", cfg->cpus,
			       ACPI_CPUS_MAX);
	if (cfg->virtio_count > ACPI_VIRTIO_MAX)
		return err_set(e, -EINVAL, "ACPI tables: %u virtio devices; at most %u",
			       cfg->virtio_count, ACPI_VIRTIO_MAX);
	for (unsigned i = 0; i < cfg->virtio_count; i++) {
		const struct acpi_virtio *v = &cfg->virtio[i];

		if (v->gpa < GUEST_HOLE_GPA || v->gpa % PAGE_BYTES || v->bytes == 0 ||
		    v->gpa >= ACPI_IOAPIC_GPA || v->bytes > ACPI_IOAPIC_GPA - v->gpa)
			return err_set(e, -EINVAL, "ACPI tables: virtio device %u of %#x bytes at "
				       "%#llx, not in the hole below 4 GiB", i, v->bytes,
				       (unsigned long long)v->gpa);
		if (v->gsi < 5 || v->gsi >= ACPI_GSI_COUNT || v->gsi == ACPI_SCI_GSI ||
		    v->gsi == RTC_GSI)
			return err_set(e, -EINVAL, "ACPI tables: virtio device %u on interrupt %u",
				       i, v->gsi);
	}
	return 0;
}

int acpi_build(const struct acpi_cfg *cfg, const struct guest_mem *mem, gpa_t *ret_rsdp,
	       struct err *e)
{
	struct tables t = {.len = align_up(RSDP_BYTES, TABLE_ALIGN)};
	void *to = guest_mem_at(mem, (gpa_t){ACPI_GPA}, sizeof(t.b));
	size_t facs, dsdt, fadt, madt;
	int rc = check_cfg(cfg, e);

	if (rc < 0)
		return rc;
	if (!to)
		return err_set(e, -EFAULT, "ACPI tables: no guest memory at %#llx", ACPI_GPA);
	dsdt = put_dsdt(&t, cfg);
	facs = put_facs(&t);
	fadt = put_fadt(&t, cfg, facs, dsdt);
	madt = put_madt(&t, cfg);
	put_rsdp(&t, put_xsdt(&t, fadt, madt));
	memcpy(to, t.b, t.len);
	*ret_rsdp = (gpa_t){ACPI_GPA};
	return 0;
}
