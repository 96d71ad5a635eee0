/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address kinds. Each is a struct of one member, so that a guest-physical
 * address, a frame number and a host address cannot be mixed up silently.
 * Freestanding.
 */
#ifndef BASE_TYPES_H
#define BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_SHIFT 12
#define PAGE_BYTES (1ull << PAGE_SHIFT)
/* UFFDIO_POISON and page tables work in runs of this size; see host/host.h. */
#define CHUNK_SHIFT 21
#define CHUNK_BYTES (1ull << CHUNK_SHIFT)

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull
#define NS_NEVER UINT64_MAX

/* Guest-physical address, bytes. */
typedef struct {
	uint64_t v;
} gpa_t;

/* Guest frame number: gpa >> PAGE_SHIFT. */
typedef struct {
	uint64_t v;
} gfn_t;

/*
 * RAM offset, bytes: where a byte of guest RAM lies in the guest view and in the alias, counted
 * from the start of either. Each part of RAM begins at a multiple of 2 MiB of it. The books of what
 * is resident are kept by it.
 */
typedef struct {
	uint64_t v;
} roff_t;

/* Address in the guest view. Never dereferenced: it may be absent. */
typedef struct {
	uint64_t v;
} hva_t;

static inline gfn_t gpa_to_gfn(gpa_t gpa)
{
	return (gfn_t){gpa.v >> PAGE_SHIFT};
}

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#define CONTAINER_OF(ptr, type, member) \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))

static inline bool is_pow2(uint64_t x)
{
	return x != 0 && (x & (x - 1)) == 0;
}

static inline uint64_t align_up(uint64_t x, uint64_t a)
{
	return (x + a - 1) & ~(a - 1);
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

#endif
