/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process with a control socket and no VM, so that the client's verbs can be tried where
 * there is no KVM: the server is the shipped one, what it would do is said on stdout, and a
 * line on stdin changes what comes next.
 *
 *     control_vm SOCKET     "ready" once it can be asked
 *     fail TEXT             pause, resume, evict and stop fail so from now on
 *     trouble TEXT          it is paused, for this reason, and stays so
 *     hold                  evictions take until they are cancelled
 *     pin N                 evictions leave N bytes
 *     evicted N             N blocks more have been evicted
 *     ended TEXT            followers hear so
 *     end                   ends it, as the end of stdin does
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/control/control.h"

#define MEMORY (512ull << 20)

struct vm {
	atomic_bool paused, hold, failing, troubled;
	_Atomic uint64_t resident, pinned, limit, evicted;
	_Atomic uint64_t target, given; /* of the balloon */
	struct control *c;
	struct err fail; /* written before `failing` */
	char why[ERR_TEXT_MAX]; /* and before `troubled` */
};

static void say(const char *what)
{
	printf("%s\n", what);
	fflush(stdout);
}

static int outcome(struct vm *vm, struct err *e)
{
	return atomic_load(&vm->failing) ? err_set(e, vm->fail.code, "%s", vm->fail.text) : 0;
}

static void vm_status(void *ctx, struct control_status *ret)
{
	struct vm *vm = ctx;
	bool paused = atomic_load(&vm->paused) || atomic_load(&vm->troubled);

	snprintf(ret->state, sizeof(ret->state), "%s", paused ? "paused" : "running");
	if (atomic_load(&vm->troubled))
		snprintf(ret->why, sizeof(ret->why), "%s", vm->why);
	snprintf(ret->faults, sizeof(ret->faults), "user");
	snprintf(ret->abi, sizeof(ret->abi), "int");
	ret->counters.memory_bytes = MEMORY;
	ret->counters.resident_bytes = atomic_load(&vm->resident);
	ret->counters.evicted = atomic_load(&vm->evicted);
	ret->counters.resident_max_bytes = atomic_load(&vm->limit);
	ret->counters.absent_bytes = MEMORY - ret->counters.resident_bytes;
	ret->has_balloon = 1;
	ret->balloon.balloon_target_bytes = atomic_load(&vm->target);
	ret->balloon.balloon_bytes = atomic_load(&vm->given);
	ret->device_count = 3;
	snprintf(ret->devices[0].name, sizeof(ret->devices[0].name), "blk0");
	snprintf(ret->devices[1].name, sizeof(ret->devices[1].name), "rng");
	snprintf(ret->devices[2].name, sizeof(ret->devices[2].name), "balloon");
	ret->vcpu_count = 2;
	ret->vcpus[1].stalls = 7;
	ret->device_count = 5;
	for (unsigned i = 0; i < ret->device_count; i++)
		snprintf(ret->devices[i].name, sizeof(ret->devices[i].name), "dev%u", i);
}

static int set_paused(struct vm *vm, bool paused, struct err *e)
{
	int rc = outcome(vm, e);

	if (rc == 0)
		atomic_store(&vm->paused, paused);
	return rc;
}

static int vm_pause(void *ctx, struct err *e)
{
	return set_paused(ctx, true, e);
}

static int vm_resume(void *ctx, struct err *e)
{
	return set_paused(ctx, false, e);
}

static int vm_evict(void *ctx, uint64_t bytes, const atomic_bool *cancel, uint64_t *ret_resident,
		    struct err *e)
{
	struct vm *vm = ctx;

	say("evicting");
	while (atomic_load(&vm->hold)) {
		if (atomic_load(cancel)) {
			say("cancelled");
			return err_set(e, -ECANCELED, "cancelled");
		}
		(void)poll(NULL, 0, 5);
	}
	*ret_resident = min_u64(max_u64(bytes, atomic_load(&vm->pinned)), MEMORY);
	atomic_store(&vm->resident, *ret_resident);
	return outcome(vm, e);
}

static int vm_balloon_set(void *ctx, uint64_t bytes, struct err *e)
{
	struct vm *vm = ctx;

	atomic_store(&vm->target, bytes < MEMORY ? MEMORY - bytes : 0);
	return outcome(vm, e);
}

/* The guest has given it all when it is not held. */
static int vm_balloon(void *ctx, uint64_t bytes, const atomic_bool *cancel, struct err *e)
{
	struct vm *vm = ctx;
	uint64_t resident;
	int rc = vm_balloon_set(ctx, bytes, e);

	if (rc == 0)
		rc = vm_evict(ctx, bytes, cancel, &resident, e);
	if (rc == 0)
		atomic_store(&vm->given, atomic_load(&vm->target));
	return rc;
}

static int vm_stop(void *ctx, struct err *e)
{
	int rc = outcome(ctx, e);

	if (rc == 0)
		say("stop");
	return rc;
}

static int vm_limit(void *ctx, uint64_t bytes, struct err *e)
{
	struct vm *vm = ctx;
	int rc = outcome(vm, e);

	if (rc == 0)
		atomic_store(&vm->limit, bytes);
	return rc;
}

static bool obey(struct vm *vm, char *line)
{
	line[strcspn(line, "\n")] = '\0';
	if (strncmp(line, "fail ", 5) == 0) {
		err_set(&vm->fail, -EIO, "%s", line + 5);
		atomic_store(&vm->failing, true);
	} else if (strncmp(line, "trouble ", 8) == 0) {
		snprintf(vm->why, sizeof(vm->why), "%.200s", line + 8);
		atomic_store(&vm->troubled, true);
		control_tell(vm->c, CONTROL_EVENT_TROUBLE, vm->why);
	} else if (strncmp(line, "evicted ", 8) == 0) {
		atomic_fetch_add(&vm->evicted, strtoull(line + 8, NULL, 10));
	} else if (strncmp(line, "ended ", 6) == 0) {
		control_tell(vm->c, CONTROL_EVENT_ENDED, line + 6);
	} else if (strncmp(line, "pin ", 4) == 0) {
		atomic_store(&vm->pinned, strtoull(line + 4, NULL, 10));
	} else if (strcmp(line, "hold") == 0) {
		atomic_store(&vm->hold, true);
	} else {
		return false;
	}
	say("done");
	return true;
}

int main(int argc, char **argv)
{
	static const struct control_ops ops = {
		.status = vm_status,
		.pause = vm_pause,
		.resume = vm_resume,
		.evict = vm_evict,
		.balloon_set = vm_balloon_set,
		.balloon = vm_balloon,
		.stop = vm_stop,
		.limit = vm_limit,
	};
	struct control_cfg cfg = {.path = argc == 2 ? argv[1] : ""};
	struct vm vm = {.resident = MEMORY};
	char line[512];
	struct err e;

	if (control_start(&cfg, &ops, &vm, &vm.c, &e) < 0) {
		fprintf(stderr, "%s\n", e.text);
		return 1;
	}
	say("ready");
	while (fgets(line, sizeof(line), stdin) && obey(&vm, line))
		;
	control_stop(vm.c);
	return 0;
}
