/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first disk, past the page cache, and the source of random numbers, while the load runs: what
 * was written is read back and compared.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/prng.h"
#include "guest.h"

#define DISK "/dev/vda"
#define RANDOM "/dev/hwrng"
#define CHUNK 65536u
#define CHUNKS 16u
#define RANDOM_BYTES 64u

struct disk {
	int fd, random_fd;
	uint64_t *buffer; /* of CHUNK bytes, aligned as O_DIRECT wants it */
	uint64_t written, read, random;
};

static uint64_t seed_of(unsigned round, unsigned chunk)
{
	return (uint64_t)round << 32 | chunk;
}

static enum outcome write_chunk(struct disk *d, unsigned round, unsigned chunk)
{
	struct prng p;

	prng_init(&p, seed_of(round, chunk));
	for (unsigned i = 0; i < CHUNK / sizeof(*d->buffer); i++)
		d->buffer[i] = prng_next(&p);
	if (pwrite(d->fd, d->buffer, CHUNK, (off_t)chunk * CHUNK) != CHUNK)
		return say_failed(DISK ": a write");
	d->written += CHUNK;
	return WELL;
}

static enum outcome check_chunk(struct disk *d, unsigned round, unsigned chunk)
{
	struct prng p;

	if (pread(d->fd, d->buffer, CHUNK, (off_t)chunk * CHUNK) != CHUNK)
		return say_failed(DISK ": a read");
	prng_init(&p, seed_of(round, chunk));
	for (unsigned i = 0; i < CHUNK / sizeof(*d->buffer); i++)
		if (d->buffer[i] != prng_next(&p)) {
			say("mismatch: " DISK ", chunk %u, word %u, round %u", chunk, i, round);
			return UNWELL;
		}
	d->read += CHUNK;
	return WELL;
}

/* What comes is not what came before. */
static enum outcome take_random(struct disk *d, unsigned char last[static RANDOM_BYTES])
{
	unsigned char now[RANDOM_BYTES];

	for (size_t done = 0; done < sizeof(now);) {
		ssize_t n = read(d->random_fd, now + done, sizeof(now) - done);

		if (n <= 0)
			return say_failed(RANDOM);
		done += (size_t)n;
	}
	if (memcmp(now, last, sizeof(now)) == 0) {
		say("mismatch: " RANDOM " says the same twice");
		return UNWELL;
	}
	memcpy(last, now, sizeof(now));
	d->random += sizeof(now);
	return WELL;
}

static enum outcome run_round(struct disk *d, unsigned round, unsigned char *last)
{
	for (unsigned i = 0; i < CHUNKS; i++)
		if (write_chunk(d, round, i) == UNWELL)
			return UNWELL;
	for (unsigned i = 0; i < CHUNKS; i++)
		if (check_chunk(d, round, i) == UNWELL)
			return UNWELL;
	return take_random(d, last);
}

enum outcome disk_until(uint64_t until_ns)
{
	unsigned char last[RANDOM_BYTES] = {0};
	enum outcome outcome = WELL;
	struct disk d = {
		.fd = open(DISK, O_RDWR | O_DIRECT | O_CLOEXEC),
		.random_fd = open(RANDOM, O_RDONLY | O_CLOEXEC),
		.buffer = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			       -1, 0),
	};

	if (d.fd < 0 || d.random_fd < 0 || d.buffer == MAP_FAILED)
		outcome = say_failed(DISK ", " RANDOM);
	for (unsigned round = 1; outcome == WELL && (round == 1 || now_ns() < until_ns); round++)
		outcome = run_round(&d, round, last);
	say("{\"step\":\"disk\",\"written\":%llu,\"read\":%llu,\"random\":%llu}",
	    (unsigned long long)d.written, (unsigned long long)d.read,
	    (unsigned long long)d.random);
	if (d.buffer != MAP_FAILED)
		munmap(d.buffer, CHUNK);
	if (d.fd >= 0)
		close(d.fd);
	if (d.random_fd >= 0)
		close(d.random_fd);
	return outcome;
}
