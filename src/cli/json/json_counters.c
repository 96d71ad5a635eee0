/* SPDX-License-Identifier: Apache-2.0 */
/* See json_counters.h. */
#include "cli/json/json_counters.h"

void json_counters(struct json *j, const char *name, const struct apf_counters *c)
{
#define PUT(counter, unit, kind, scope, help) json_u64(j, #counter, c->counter);
	json_object_open(j, name);
	APF_COUNTER_TABLE(PUT)
	json_close(j);
}
