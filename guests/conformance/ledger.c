/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which tokens are out. It runs under every check: a token that is issued twice, that is
 * ready without having been missing, or ready twice fails the check in which it happens.
 */
#include "kernel.h"

#define TOKENS_MAX 256

enum entry_state {
	ENTRY_WAITING,
	/* A wake-all let it go. Its own page ready may follow: some hosts send both. */
	ENTRY_RELEASED,
};

static struct {
	struct {
		uint32_t token;
		enum entry_state state;
	} entries[TOKENS_MAX];
	unsigned count;
	const char *fault;
	uint32_t fault_token;
} ledger;

static void complain(const char *text, uint32_t token)
{
	if (!ledger.fault) {
		ledger.fault = text;
		ledger.fault_token = token;
	}
}

static unsigned find(uint32_t token)
{
	unsigned i = 0;

	while (i < ledger.count && ledger.entries[i].token != token)
		i++;
	return i;
}

void ledger_missing(uint32_t token)
{
	unsigned i = find(token);

	if (token == 0 || token == APF_TOKEN_WAKE_ALL)
		complain("a page-missing event with a token that is reserved", token);
	else if (i < ledger.count && ledger.entries[i].state == ENTRY_WAITING)
		complain("a token was issued again while it is out", token);
	else if (i == TOKENS_MAX)
		complain("more tokens than this guest can note", token);
	if (i == TOKENS_MAX)
		return;
	ledger.entries[i].token = token;
	ledger.entries[i].state = ENTRY_WAITING;
	if (i == ledger.count)
		ledger.count++;
}

void ledger_ready(uint32_t token)
{
	unsigned i = find(token);

	if (i == ledger.count)
		complain("page ready for a token that is not out", token);
	else
		ledger.entries[i] = ledger.entries[--ledger.count];
}

void ledger_wake_all(void)
{
	for (unsigned i = 0; i < ledger.count; i++)
		ledger.entries[i].state = ENTRY_RELEASED;
}

void ledger_off(void)
{
	ledger.count = 0;
}

unsigned ledger_waiting(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ledger.count; i++)
		n += ledger.entries[i].state == ENTRY_WAITING;
	return n;
}

const char *ledger_fault(void)
{
	const char *fault = ledger.fault;

	ledger.fault = NULL;
	return fault ? fails("%s: token %x", fault, U(ledger.fault_token)) : NULL;
}
