/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The init of the stock Linux guest: one static program that does the steps that the
 * kernel's command line names after "--", reports each as one line, and ends the machine.
 * README.md lists the steps.
 */
#ifndef LINUX_GUEST_H
#define LINUX_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#define CPUS_MAX 64

/* A step's outcome: whether the guest may call itself well at the end. */
enum outcome { WELL, UNWELL };

/* ---- say.c ---- */

/* One whole line on the console, by one write. */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);

/* The same for what went wrong, with errno's text; UNWELL, so that callers can return it. */
__attribute__((format(printf, 1, 2))) enum outcome say_failed(const char *format, ...);

/*
 * Fills `text`, of `size` bytes, with the start of a file, ended by a zero byte; how many
 * bytes it was, or -1.
 */
int slurp(const char *path, char *text, unsigned size);

/* Of CLOCK_MONOTONIC. */
uint64_t now_ns(void);
void sleep_until(uint64_t ns);

/* Writes a word to a file of /proc or /sys; 0, or -1 with errno. */
int poke(const char *path, const char *word);

/* ---- words.c: "key:value,key:value" after a step's "=" ---- */

struct word {
	const char *key;
	unsigned offset; /* of the uint32_t, in the caller's struct */
	uint32_t min, max;
};

/* Fills *values by the table, which ends with a NULL key; false, said, if it does not fit. */
bool words_parse(const char *text, const struct word *table, void *values);

/* ---- watch.c: what the kernel says about itself ---- */

/* A row of /proc/interrupts: one count for each CPU that is online. */
struct row {
	uint64_t count[CPUS_MAX];
	unsigned cpus;
};

/* False where the kernel shows no row of that name, such as "HYP". */
bool row_read(const char *name, struct row *ret_row);

uint64_t row_sum(const struct row *r);

#define ROW_TEXT_BYTES (CPUS_MAX * 12)

/* The row "HYP" as "[1,2,3]", written into `text`, or "null" where there is none. */
const char *hyp_text(char *text, unsigned size);

/*
 * How many tasks stay in uninterruptible sleep, as they do whose page never comes. Each is
 * said. Looks for a second: a task that waits for a disk is not stuck.
 */
unsigned stuck_tasks(unsigned *ret_tasks);

/* How many lines of the kernel's log are warnings, oopses, stalls and the like; says them. */
unsigned kernel_complaints(void);

/* ---- the steps, each given what follows its "=" ---- */

enum outcome step_load(const char *text);
enum outcome step_idle(const char *text);
/* Says when it begins, so that who stops the machine knows when; `text` goes with that. */
enum outcome step_stand(const char *text);
enum outcome step_serve(const char *text);
enum outcome step_served(const char *text);
enum outcome step_cut(const char *text);
/* Loads what /modules/order names. */
enum outcome step_modules(const char *text);
enum outcome step_plug(const char *text);

/* ---- vsock.c, beside its steps ---- */

/* An echo server in a process of its own, which stays. */
enum outcome vsock_server_start(void);
/* To that of the host, which may not be there yet; -1: it did not come. */
int vsock_connect_to_host(void);

/* Leaves an echo server behind, and talks to the host's; says `text`, which is for who hears it. */
enum outcome step_vsock(const char *text);
/* Has the driver let go of its device, and take it again, while connections are open. */
enum outcome step_rebind(const char *text);

/* ---- need.c ---- */

/* Waits until the balloon was given that many MiB in all. */
enum outcome step_given(const char *text);
/* Uses more memory than is left beside the balloon. */
enum outcome step_need(const char *text);

/* Something wrong on purpose, for the test of those who watch: a task that stays in state D,
   a complaint in the kernel's log. What these steps return is WELL. */
enum outcome step_stick(const char *text);
enum outcome step_complain(const char *text);

/* Switches one CPU after the other off and on again, until `until_ns` of now_ns(). */
enum outcome plug_until(uint64_t until_ns);

/* Writes the first disk and reads it back, and takes random numbers, until `until_ns`. */
enum outcome disk_until(uint64_t until_ns);

/*
 * Ticks each period_ms, and from `from_ns` on takes down how late it was, `n` times, in
 * late_us, which is sorted when it returns. Returns which of them was the latest.
 */
unsigned ticker_run(uint32_t period_ms, uint64_t from_ns, uint32_t *late_us, unsigned n);

#endif
