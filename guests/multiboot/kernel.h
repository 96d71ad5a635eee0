/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the multiboot kernel share. */
#ifndef MULTIBOOT_KERNEL_H
#define MULTIBOOT_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

/* kernel.c: the console on the first serial port. */
void put_char(char c);
void put_text(const char *s);
void put_decimal(uint32_t v);

/* disk.c: does something with the machine's first disk and says on a line what came of it. */
void disk_show(void);
void disk_fill(uint32_t first, uint32_t sectors);

#endif
