/* SPDX-License-Identifier: Apache-2.0 */
/* See log.h. */
#include "sim/log.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/types.h"

/* The format gets a and b. */
static const struct {
	const char *name, *form;
} ops[SIM_OPS] = {
	[SIM_OP_STEP] = {"step", "%" PRIu64},
	[SIM_OP_ENTER] = {"enter", "how %" PRIu64},
	[SIM_OP_EXIT] = {"exit", "kind %" PRIu64},
	[SIM_OP_FAULT] = {"fault", "page %" PRIu64},
	[SIM_OP_ACCESS] = {"access", "page %" PRIu64 " value %" PRIx64},
	[SIM_OP_MISSING] = {"missing", "token %" PRIx64 " page %" PRIu64},
	[SIM_OP_READY] = {"ready", "token %" PRIx64 " vector %" PRIx64},
	[SIM_OP_CANCEL] = {"cancel", "token %" PRIx64},
	[SIM_OP_REFUSED] = {"refused", "token %" PRIx64},
	[SIM_OP_SLEEP] = {"sleep", "task %" PRIu64 " token %" PRIx64},
	[SIM_OP_WAKE] = {"wake", "task %" PRIu64 " token %" PRIx64},
	[SIM_OP_PF] = {"#PF", "what %" PRIu64 " cr2 %" PRIx64},
	[SIM_OP_IRQ] = {"interrupt", "vector %" PRIx64},
	[SIM_OP_NMI] = {"nmi", ""},
	[SIM_OP_HLT] = {"hlt", ""},
	[SIM_OP_WRMSR] = {"wrmsr", "%" PRIx64 " value %" PRIx64},
	[SIM_OP_GP] = {"#GP", "register %" PRIx64},
	[SIM_OP_READ] = {"read", "page %" PRIu64 " bytes %" PRIu64},
	[SIM_OP_READ_END] = {"read-end", "page %" PRIu64 " result %" PRId64},
	[SIM_OP_WRITE] = {"write", "page %" PRIu64 " bytes %" PRIu64},
	[SIM_OP_WRITE_END] = {"write-end", "page %" PRIu64 " result %" PRId64},
	[SIM_OP_SYNC] = {"sync", ""},
	[SIM_OP_SYNC_END] = {"sync-end", "%.0" PRIu64 "result %" PRId64},
	[SIM_OP_UNMAP] = {"unmap", "page %" PRIu64 " bytes %" PRIu64},
	[SIM_OP_COLLECT] = {"collect", "page %" PRIu64 " bytes %" PRIu64},
	[SIM_OP_DROP] = {"drop", "page %" PRIu64 " bytes %" PRIu64},
	[SIM_OP_PRESENT] = {"present", "page %" PRIu64 " bytes %" PRIu64},
	[SIM_OP_SHOWN] = {"shown", "block %" PRIu64},
	[SIM_OP_TOUCH] = {"touch", "page %" PRIu64},
	[SIM_OP_KICK] = {"kick", ""},
	[SIM_OP_SERVE] = {"serve", "touches %" PRIu64},
	[SIM_OP_REST] = {"rest", "result %" PRId64},
	[SIM_OP_TROUBLE] = {"trouble", "page %" PRIu64 " code %" PRId64},
	[SIM_OP_GOES_ON] = {"goes-on", ""},
	[SIM_OP_PAUSE] = {"pause", ""},
	[SIM_OP_RESUME] = {"resume", ""},
	[SIM_OP_RESET] = {"reset", ""},
	[SIM_OP_MIGRATE] = {"migrate", "by-registers %" PRIu64},
	[SIM_OP_DEVICE] = {"device", "page %" PRIu64},
	[SIM_OP_DIRECTOR] = {"director", "fault %" PRIu64},
	[SIM_OP_DONE] = {"done", "task %" PRIu64},
	[SIM_OP_FAIR] = {"fair", ""},
	[SIM_OP_VMM] = {"vmm", "page %" PRIu64},
	[SIM_OP_VMM_TOUCH] = {"vmm-touch", "page %" PRIu64},
	[SIM_OP_DISCARD] = {"discard", "page %" PRIu64 " bytes %" PRIu64},
	[SIM_OP_DISCARDED] = {"discarded", "page %" PRIu64 " code %" PRId64},
	[SIM_OP_HOLD] = {"hold", "page %" PRIu64 " held %" PRIu64},
	[SIM_OP_RELEASE] = {"release", "page %" PRIu64},
	[SIM_OP_ADOPT] = {"adopt", "page %" PRIu64 " bytes %" PRIu64},
	[SIM_OP_LEAVE] = {"leave", "page %" PRIu64},
	[SIM_OP_REMOVED] = {"removed", "page %" PRIu64 " left %" PRIu64},
	[SIM_OP_LEFT] = {"left", "page %" PRIu64},
	[SIM_OP_OFFER] = {"offer", "page %" PRIu64 " bytes %" PRIu64},
	[SIM_OP_OFFERED] = {"offered", "page %" PRIu64 " bytes %" PRIu64},
	[SIM_OP_SNAP] = {"snapshot", "todo %" PRIu64 " result %" PRId64},
	[SIM_OP_SNAP_PAGE] = {"snapshot-page", "page %" PRIu64 " value %" PRIx64},
	[SIM_OP_RESTORE] = {"restore", ""},
	[SIM_OP_BROKEN] = {"BROKEN", "%" PRIx64 " %" PRIx64},
};

void sim_log_clear(struct sim_log *l)
{
	l->count = 0;
	l->digest = 0xcbf29ce484222325ull;
}

static uint64_t mix(uint64_t digest, uint64_t x)
{
	digest = (digest ^ x) * 0x9e3779b97f4a7c15ull;
	return digest ^ (digest >> 29);
}

void sim_log_add(struct sim_log *l, uint64_t ns, enum sim_op op, unsigned who, uint64_t a,
		 uint64_t b)
{
	struct sim_log_entry *e = &l->ring[l->count++ % SIM_LOG_ENTRIES];

	*e = (struct sim_log_entry){ns, a, b, (uint8_t)op, (uint8_t)who};
	l->digest = mix(mix(mix(l->digest, ns), a), b ^ (uint64_t)op << 56 ^ (uint64_t)who << 48);
	if (__builtin_expect(l->tee != NULL, 0))
		l->tee(l->ctx, e);
}

size_t sim_log_line(const struct sim_log_entry *e, char *buf, size_t bytes)
{
	char who[8] = "-";
	int n;

	if (e->op >= SIM_OPS)
		return 0;
	if (e->who != SIM_LOG_NOBODY)
		(void)snprintf(who, sizeof(who), "cpu%u", e->who);
	n = snprintf(buf, bytes, "%12" PRIu64 " %-5s %-9s ", e->ns, who, ops[e->op].name);
	if (n < 0 || (size_t)n >= bytes)
		return 0;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-extra-args"
	n += snprintf(buf + n, bytes - (size_t)n, ops[e->op].form, e->a, e->b);
#pragma GCC diagnostic pop
	return min_u64((uint64_t)n, bytes - 1);
}
