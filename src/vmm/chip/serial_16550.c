/* SPDX-License-Identifier: Apache-2.0 */
/* See serial_16550.h. Names of registers in comments: their sections of the data sheet. */
#include "vmm/chip/serial_16550.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"

enum {
	REG_DATA = 0, /* RBR, THR; DLL with DLAB */
	REG_IER = 1,  /* DLM with DLAB */
	REG_IIR = 2,  /* FCR when written */
	REG_LCR = 3,
	REG_MCR = 4,
	REG_LSR = 5,
	REG_MSR = 6,
	REG_SCR = 7,
};

enum {
	IER_RDA = 0x01,
	IER_THRE = 0x02,
	IER_RLS = 0x04,
	IER_MSR = 0x08,
	IER_ALL = 0x0f,

	IIR_MODEM = 0x00,
	IIR_NONE = 0x01,
	IIR_THRE = 0x02,
	IIR_RDA = 0x04,
	IIR_RLS = 0x06,
	IIR_TIMEOUT = 0x0c,
	IIR_FIFO = 0xc0,

	FCR_ENABLE = 0x01,
	FCR_CLEAR_RX = 0x02,
	FCR_TRIGGER = 0xc0,

	LCR_DLAB = 0x80,

	MCR_DTR = 0x01,
	MCR_RTS = 0x02,
	MCR_OUT1 = 0x04,
	MCR_OUT2 = 0x08,
	MCR_LOOP = 0x10,
	MCR_ALL = 0x1f,

	LSR_DR = 0x01,
	LSR_OE = 0x02,
	LSR_BI = 0x10,
	LSR_THRE = 0x20,
	LSR_TEMT = 0x40,
	LSR_FIFO_ERROR = 0x80,

	MSR_DCTS = 0x01,
	MSR_DDSR = 0x02,
	MSR_TERI = 0x04,
	MSR_DDCD = 0x08,
};

/* ---- interrupts ---- */

/* The registers of struct serial that a snapshot has by the same name. */
#define SERIAL_SAVED(X) \
	X(ier) X(lcr) X(mcr) X(scr) X(dll) X(dlm) X(fcr) X(lsr_errors) X(msr_deltas) X(lines)

static unsigned rx_capacity(uint8_t fcr)
{
	return fcr & FCR_ENABLE ? SERIAL_FIFO_BYTES : 1;
}

static unsigned rx_trigger(const struct serial *s)
{
	static const uint8_t level[4] = {1, 4, 8, 14};

	return s->fcr & FCR_ENABLE ? level[(s->fcr & FCR_TRIGGER) >> 6] : 1;
}

/* IIR: the identification of the highest source that is enabled and active. */
static uint8_t iir_source(const struct serial *s)
{
	if ((s->ier & IER_RLS) && s->lsr_errors)
		return IIR_RLS;
	if ((s->ier & IER_RDA) && s->rx.len >= rx_trigger(s))
		return IIR_RDA;
	if ((s->ier & IER_RDA) && s->rx.len)
		return IIR_TIMEOUT;
	if ((s->ier & IER_THRE) && s->thre_pending)
		return IIR_THRE;
	if ((s->ier & IER_MSR) && s->msr_deltas)
		return IIR_MODEM;
	return IIR_NONE;
}

static void irq_update(struct serial *s)
{
	irq_set(&s->irq, iir_source(s) != IIR_NONE);
}

/* ---- receiver ---- */

/* BI shows when its character has come to the top of the FIFO (LSR, bit 4). */
static void rx_show_top(struct serial *s)
{
	if (s->rx.len && s->rx.is_break[s->rx.head]) {
		s->rx.is_break[s->rx.head] = false;
		s->lsr_errors |= LSR_BI;
	}
}

/* Overrun: with the FIFO on the new byte is lost, without it the old one (LSR, bit 1). */
static void rx_put(struct serial *s, uint8_t byte, bool is_break)
{
	if (s->rx.len >= rx_capacity(s->fcr)) {
		s->lsr_errors |= LSR_OE;
		if (s->fcr & FCR_ENABLE)
			return;
		s->rx.len = 0;
	}
	unsigned at = (s->rx.head + s->rx.len) % SERIAL_FIFO_BYTES;

	s->rx.byte[at] = byte;
	s->rx.is_break[at] = is_break;
	s->rx.len++;
	rx_show_top(s);
}

/* The line delivers while there is room: the other side is as patient as flow control. */
static void rx_refill(struct serial *s)
{
	if (s->mcr & MCR_LOOP) /* the input pin is disconnected */
		return;
	while (s->backlog.len && s->rx.len < rx_capacity(s->fcr)) {
		uint8_t byte = s->backlog.byte[s->backlog.head];

		s->backlog.head = (s->backlog.head + 1) % SERIAL_BACKLOG_BYTES;
		s->backlog.len--;
		rx_put(s, byte, false);
	}
	if (s->push_refused && s->backlog.len <= SERIAL_BACKLOG_BYTES / 2) {
		s->push_refused = false;
		if (s->ops->room)
			s->ops->room(s->ctx);
	}
}

static void rx_clear(struct serial *s)
{
	memset(&s->rx, 0, sizeof(s->rx));
}

static uint8_t rbr_read(struct serial *s)
{
	uint8_t byte = s->rx.byte[s->rx.head];

	if (s->rx.len) {
		s->rx.head = (s->rx.head + 1) % SERIAL_FIFO_BYTES;
		s->rx.len--;
		rx_show_top(s);
		rx_refill(s);
	}
	return byte;
}

/* ---- transmitter ---- */

static void thr_write(struct serial *s, uint8_t byte)
{
	/* Down and up again, so that an edge-triggered input sees the next interrupt. */
	s->thre_pending = false;
	irq_update(s);
	if (s->mcr & MCR_LOOP)
		rx_put(s, byte, false);
	else
		s->ops->output(s->ctx, byte);
	s->thre_pending = true;
}

/* ---- modem lines ---- */

/* In loopback the four inputs are the four outputs (MCR, bit 4). */
static uint8_t modem_lines(const struct serial *s)
{
	uint8_t lines = 0;

	if (!(s->mcr & MCR_LOOP))
		return s->lines;
	if (s->mcr & MCR_RTS)
		lines |= SERIAL_CTS;
	if (s->mcr & MCR_DTR)
		lines |= SERIAL_DSR;
	if (s->mcr & MCR_OUT1)
		lines |= SERIAL_RI;
	if (s->mcr & MCR_OUT2)
		lines |= SERIAL_DCD;
	return lines;
}

/* MSR: RI counts when it ends, the others at each change. */
static void modem_changed(struct serial *s, uint8_t before)
{
	uint8_t now = modem_lines(s);
	uint8_t changed = before ^ now;

	if (changed & SERIAL_CTS)
		s->msr_deltas |= MSR_DCTS;
	if (changed & SERIAL_DSR)
		s->msr_deltas |= MSR_DDSR;
	if ((before & SERIAL_RI) && !(now & SERIAL_RI))
		s->msr_deltas |= MSR_TERI;
	if (changed & SERIAL_DCD)
		s->msr_deltas |= MSR_DDCD;
}

/* ---- registers ---- */

static uint8_t iir_read(struct serial *s)
{
	uint8_t source = iir_source(s);

	if (source == IIR_THRE)
		s->thre_pending = false;
	return source | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static uint8_t lsr_read(struct serial *s)
{
	uint8_t lsr = LSR_THRE | LSR_TEMT | s->lsr_errors;

	if (s->rx.len)
		lsr |= LSR_DR;
	if (s->fcr & FCR_ENABLE) {
		bool error = s->lsr_errors & LSR_BI;

		for (unsigned i = 0; i < s->rx.len; i++)
			error |= s->rx.is_break[(s->rx.head + i) % SERIAL_FIFO_BYTES];
		if (error)
			lsr |= LSR_FIFO_ERROR;
	}
	s->lsr_errors = 0;
	return lsr;
}

static uint8_t msr_read(struct serial *s)
{
	uint8_t msr = modem_lines(s) | s->msr_deltas;

	s->msr_deltas = 0;
	return msr;
}

static void ier_write(struct serial *s, uint8_t value)
{
	/* Setting bit 1 of IER while the transmitter is empty raises the interrupt at once. */
	if ((value & IER_THRE) && !(s->ier & IER_THRE))
		s->thre_pending = true;
	s->ier = value & IER_ALL;
}

/* FCR: changing bit 0 empties the FIFOs; the rest counts only while bit 0 is written as 1. */
static void fcr_write(struct serial *s, uint8_t value)
{
	if ((value ^ s->fcr) & FCR_ENABLE)
		rx_clear(s);
	if (!(value & FCR_ENABLE)) {
		s->fcr = 0;
	} else {
		if (value & FCR_CLEAR_RX)
			rx_clear(s);
		s->fcr = value & (FCR_ENABLE | FCR_TRIGGER);
	}
	rx_refill(s);
}

static void mcr_write(struct serial *s, uint8_t value)
{
	uint8_t before = modem_lines(s);

	s->mcr = value & MCR_ALL;
	modem_changed(s, before);
	rx_refill(s);
}

static uint8_t reg_read(struct serial *s, uint64_t offset)
{
	bool dlab = s->lcr & LCR_DLAB;

	switch (offset) {
	case REG_DATA:
		return dlab ? s->dll : rbr_read(s);
	case REG_IER:
		return dlab ? s->dlm : s->ier;
	case REG_IIR:
		return iir_read(s);
	case REG_LCR:
		return s->lcr;
	case REG_MCR:
		return s->mcr;
	case REG_LSR:
		return lsr_read(s);
	case REG_MSR:
		return msr_read(s);
	default:
		return s->scr;
	}
}

static void reg_write(struct serial *s, uint64_t offset, uint8_t value)
{
	bool dlab = s->lcr & LCR_DLAB;

	switch (offset) {
	case REG_DATA:
		if (dlab)
			s->dll = value;
		else
			thr_write(s, value);
		break;
	case REG_IER:
		if (dlab)
			s->dlm = value;
		else
			ier_write(s, value);
		break;
	case REG_IIR:
		fcr_write(s, value);
		break;
	case REG_LCR:
		s->lcr = value;
		break;
	case REG_MCR:
		mcr_write(s, value);
		break;
	case REG_SCR:
		s->scr = value;
		break;
	default: /* LSR and MSR: writing is for factory tests */
		break;
	}
}

static uint64_t serial_read(void *dev, uint64_t offset, unsigned width)
{
	struct serial *s = dev;

	(void)width; /* 1: width_max */
	pthread_mutex_lock(&s->lock);
	uint8_t value = reg_read(s, offset);

	irq_update(s);
	pthread_mutex_unlock(&s->lock);
	return value;
}

static void serial_write(void *dev, uint64_t offset, unsigned width, uint64_t value)
{
	struct serial *s = dev;

	(void)width;
	pthread_mutex_lock(&s->lock);
	reg_write(s, offset, (uint8_t)value);
	irq_update(s);
	pthread_mutex_unlock(&s->lock);
}

const struct bus_ops serial_bus_ops = {
	.read = serial_read,
	.write = serial_write,
	.width_max = 1,
};

/* ---- the other side ---- */

void serial_init(struct serial *s, const struct serial_ops *ops, void *ctx,
		 const struct irq_line *irq)
{
	int rc;

	memset(s, 0, sizeof(*s));
	rc = pthread_mutex_init(&s->lock, NULL);
	ASSERT(rc == 0);
	s->ops = ops;
	s->ctx = ctx;
	s->irq = *irq;
	s->dll = 1; /* 115200; the data sheet leaves it open, and drivers divide by it */
	s->lines = SERIAL_CTS | SERIAL_DSR | SERIAL_DCD;
}

void serial_fini(struct serial *s)
{
	pthread_mutex_destroy(&s->lock);
}

size_t serial_push(struct serial *s, const void *bytes, size_t len)
{
	const uint8_t *from = bytes;
	size_t taken = 0;

	pthread_mutex_lock(&s->lock);
	for (; taken < len && s->backlog.len < SERIAL_BACKLOG_BYTES; taken++) {
		unsigned at = (s->backlog.head + s->backlog.len) % SERIAL_BACKLOG_BYTES;

		s->backlog.byte[at] = from[taken];
		s->backlog.len++;
	}
	rx_refill(s);
	s->push_refused = taken < len;
	irq_update(s);
	pthread_mutex_unlock(&s->lock);
	return taken;
}

void serial_push_break(struct serial *s)
{
	pthread_mutex_lock(&s->lock);
	if (!(s->mcr & MCR_LOOP))
		rx_put(s, 0, true);
	irq_update(s);
	pthread_mutex_unlock(&s->lock);
}

void serial_set_modem(struct serial *s, uint8_t lines)
{
	pthread_mutex_lock(&s->lock);
	uint8_t before = modem_lines(s);

	s->lines = lines & (SERIAL_CTS | SERIAL_DSR | SERIAL_RI | SERIAL_DCD);
	modem_changed(s, before);
	irq_update(s);
	pthread_mutex_unlock(&s->lock);
}

/* ---- snapshots ---- */

void serial_save(struct serial *s, struct serial_saved *ret)
{
	memset(ret, 0, sizeof(*ret));
	pthread_mutex_lock(&s->lock);
#define SAVE(name) ret->name = s->name;
	SERIAL_SAVED(SAVE)
#undef SAVE
	ret->thre_pending = s->thre_pending;
	ret->rx_len = s->rx.len;
	for (unsigned i = 0; i < s->rx.len; i++) {
		unsigned at = (s->rx.head + i) % SERIAL_FIFO_BYTES;

		ret->rx[i] = s->rx.byte[at];
		ret->rx_is_break[i] = s->rx.is_break[at];
	}
	ret->backlog_len = s->backlog.len;
	for (unsigned i = 0; i < s->backlog.len; i++)
		ret->backlog[i] = s->backlog.byte[(s->backlog.head + i) % SERIAL_BACKLOG_BYTES];
	pthread_mutex_unlock(&s->lock);
}

int serial_restore(struct serial *s, const struct serial_saved *from)
{
	if (from->rx_len > rx_capacity(from->fcr) || from->backlog_len > SERIAL_BACKLOG_BYTES)
		return -EINVAL;
	pthread_mutex_lock(&s->lock);
#define RESTORE(name) s->name = from->name;
	SERIAL_SAVED(RESTORE)
#undef RESTORE
	s->thre_pending = from->thre_pending;
	s->rx.head = s->backlog.head = 0;
	s->rx.len = from->rx_len;
	for (unsigned i = 0; i < from->rx_len; i++) {
		s->rx.byte[i] = from->rx[i];
		s->rx.is_break[i] = from->rx_is_break[i];
	}
	s->backlog.len = from->backlog_len;
	memcpy(s->backlog.byte, from->backlog, from->backlog_len);
	irq_update(s);
	pthread_mutex_unlock(&s->lock);
	return 0;
}
