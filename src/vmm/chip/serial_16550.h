/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A 16550A serial port: registers, both FIFOs, interrupts and their order, modem lines,
 * loopback. Decides when the interrupt line is up; knows neither baud rates nor time: what is
 * sent is sent at once, and the receiver's time-out is over as soon as a byte waits.
 * Source of the register facts: National Semiconductor PC16550D data sheet, "Registers".
 *
 * Not modelled, since nobody can see it: word length, parity and stop bits (bytes pass
 * whole), DMA mode. The interrupt is the chip's INTR pin: OUT2, which gates it on a PC's
 * board, does not here, so that small kernels that never set OUT2 work.
 *
 * Threads: any; each call takes the chip's lock. Test: tests/unit/serial_16550_test.c.
 */
#ifndef VMM_SERIAL_16550_H
#define VMM_SERIAL_16550_H

#include <pthread.h>

#include "base/types.h"
#include "vmm/chip/bus.h"
#include "vmm/chip/irq.h"

#define SERIAL_PORTS 8u
#define SERIAL_COM1_PORT 0x3f8u
#define SERIAL_COM1_GSI 4u

/* The chip's own FIFO. */
#define SERIAL_FIFO_BYTES 16u
/* What waits outside the chip for room in it: a pasted line or two. */
#define SERIAL_BACKLOG_BYTES 4096u

/* Modem inputs, as the MSR's upper half shows them. */
enum serial_modem {
	SERIAL_CTS = 0x10,
	SERIAL_DSR = 0x20,
	SERIAL_RI = 0x40,
	SERIAL_DCD = 0x80,
};

struct serial_ops {
	/* The guest sent a byte. Under the chip's lock: must not call the chip. */
	void (*output)(void *ctx, uint8_t byte);
	/* The backlog has room again after serial_push() took less than all; may be NULL. */
	void (*room)(void *ctx);
};

struct serial {
	pthread_mutex_t lock; /* covers all below */
	const struct serial_ops *ops;
	void *ctx;
	struct irq_line irq;

	uint8_t ier, lcr, mcr, scr, dll, dlm;
	uint8_t fcr;         /* FIFO enable and trigger bits */
	uint8_t lsr_errors;  /* OE, BI as the LSR shows them until read */
	uint8_t msr_deltas;
	uint8_t lines;       /* modem inputs from outside */
	bool thre_pending;   /* transmitter empty, not yet told or overwritten */
	bool push_refused;

	struct {
		uint8_t byte[SERIAL_FIFO_BYTES];
		bool is_break[SERIAL_FIFO_BYTES];
		unsigned head, len;
	} rx;
	struct {
		uint8_t byte[SERIAL_BACKLOG_BYTES];
		unsigned head, len;
	} backlog;
};

/* ops and what irq refers to are borrowed until fini. The other side is there: CTS, DSR, DCD. */
void serial_init(struct serial *s, const struct serial_ops *ops, void *ctx,
		 const struct irq_line *irq);
/* No access may be under way. */
void serial_fini(struct serial *s);

/* Bytes from the other side. Returns how many were taken; room() tells when to try again. */
size_t serial_push(struct serial *s, const void *bytes, size_t len);
/* The other side sends a break. */
void serial_push_break(struct serial *s);
/* The other side changes its modem lines: a set of enum serial_modem. */
void serial_set_modem(struct serial *s, uint8_t lines);

/* What a snapshot has of it, input that nobody has read yet included. */
struct serial_saved {
	uint8_t ier, lcr, mcr, scr, dll, dlm, fcr, lsr_errors, msr_deltas, lines;
	uint8_t thre_pending;
	uint8_t zero;
	uint32_t rx_len;
	uint32_t backlog_len;
	uint8_t rx[SERIAL_FIFO_BYTES], rx_is_break[SERIAL_FIFO_BYTES];
	uint8_t backlog[SERIAL_BACKLOG_BYTES];
};

/* The guest stands still. */
void serial_save(struct serial *s, struct serial_saved *ret);
/* Into one that was just made. 0, or -EINVAL: no chip is in that state. Drives its line. */
int serial_restore(struct serial *s, const struct serial_saved *from);

/* For bus_add() with SERIAL_PORTS; dev is the struct serial. */
extern const struct bus_ops serial_bus_ops;

#endif
