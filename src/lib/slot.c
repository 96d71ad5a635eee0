/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lies where in guest memory, as far as the VMM tells: RAM of ours is not all memory, the VMM
 * may leave holes in its memslots, or make one read-only. Test: tests/integration/slots_test.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/internal.h"

/* Few, and told when the VM is set up; an access that KVM hands out looks through them. */
#define SLOTS_MAX 4096u

struct lib_slot {
	uint64_t gpa, bytes;
	enum kvmp_slot kind;
};

_Static_assert((int)APF_SLOT_AUTO == (int)KVMP_SLOT_AUTO &&
		       (int)APF_SLOT_RAM == (int)KVMP_SLOT_RAM &&
		       (int)APF_SLOT_ROM == (int)KVMP_SLOT_ROM &&
		       (int)APF_SLOT_HOLE == (int)KVMP_SLOT_HOLE,
	       "the public names are the binding's");

enum kvmp_slot lib_slot_at(struct apf *a, gpa_t gpa)
{
	enum kvmp_slot kind = KVMP_SLOT_AUTO;

	pthread_rwlock_rdlock(&a->slot_lock);
	for (unsigned i = a->slot_count; i-- > 0;)
		if (gpa.v - a->slots[i].gpa < a->slots[i].bytes) {
			kind = a->slots[i].kind;
			break;
		}
	pthread_rwlock_unlock(&a->slot_lock);
	return kind;
}

/* What a newer one covers wholly means nothing any more. */
static void forget_covered(struct apf *a, uint64_t gpa, uint64_t bytes)
{
	unsigned n = 0;

	for (unsigned i = 0; i < a->slot_count; i++)
		if (a->slots[i].gpa < gpa || a->slots[i].gpa + a->slots[i].bytes > gpa + bytes)
			a->slots[n++] = a->slots[i];
	a->slot_count = n;
}

static int add(struct apf *a, const struct lib_slot *slot)
{
	if (a->slot_count == a->slot_room) {
		unsigned room = a->slot_room ? 2 * a->slot_room : 16;
		struct lib_slot *more;

		if (room > SLOTS_MAX)
			return -ENOSPC;
		more = realloc(a->slots, room * sizeof(*more));
		if (!more)
			return -ENOMEM;
		a->slots = more;
		a->slot_room = room;
	}
	a->slots[a->slot_count++] = *slot;
	return 0;
}

/* What of it is RAM of ours; parts may come and go meanwhile. */
static int pin(struct apf *a, const struct lib_slot *slot)
{
	uint64_t at = slot->gpa, end = slot->gpa + slot->bytes, len;
	int rc = 0;

	lib_lock(a);
	a->users++;
	lib_release(a);
	while (rc == 0 && lib_next_ram(a, &at, end, &len)) {
		rc = apf_pin(a, at, len);
		if (rc == 0)
			at += len;
		else if (rc == -EFAULT)
			rc = 0; /* it has left */
	}
	lib_lock(a);
	lib_leave(a);
	return rc;
}

/* What was told so far; others may tell more while it is looked through. */
static int copy_slots(struct apf *a, struct lib_slot **ret, unsigned *ret_count)
{
	*ret = NULL;
	pthread_rwlock_rdlock(&a->slot_lock);
	*ret_count = a->slot_count;
	if (a->slot_count > 0)
		*ret = calloc(a->slot_count, sizeof(**ret));
	if (*ret)
		memcpy(*ret, a->slots, a->slot_count * sizeof(**ret));
	pthread_rwlock_unlock(&a->slot_lock);
	return *ret || *ret_count == 0 ? 0 : -ENOMEM;
}

/*
 * A read-only memslot's pages are there before the guest touches them, and stay: KVM does not say
 * which one it misses. Those that the VMM told of before apf_start come when it starts.
 */
int lib_slots_start(struct apf *a)
{
	struct lib_slot *slots;
	unsigned count;
	int rc = copy_slots(a, &slots, &count);

	for (unsigned i = 0; rc == 0 && i < count; i++)
		if (slots[i].kind == KVMP_SLOT_ROM)
			rc = pin(a, &slots[i]);
	free(slots);
	return rc;
}

int apf_slot_set(struct apf *a, uint64_t gpa, uint64_t bytes, enum apf_slot kind)
{
	const struct lib_slot slot = {gpa, bytes, (enum kvmp_slot)kind};
	int rc;

	if ((unsigned)kind > APF_SLOT_HOLE || bytes == 0 || gpa + bytes < gpa ||
	    (gpa | bytes) % PAGE_BYTES != 0)
		return -EINVAL;
	pthread_rwlock_wrlock(&a->slot_lock);
	forget_covered(a, gpa, bytes);
	rc = add(a, &slot);
	pthread_rwlock_unlock(&a->slot_lock);
	return rc == 0 && kind == APF_SLOT_ROM && a->started ? pin(a, &slot) : rc;
}

void lib_slots_free(struct apf *a)
{
	free(a->slots);
	pthread_rwlock_destroy(&a->slot_lock);
}
