/* SPDX-License-Identifier: Apache-2.0 */
/* All counters as one JSON object. */
#ifndef CLI_JSON_COUNTERS_H
#define CLI_JSON_COUNTERS_H

#include <asyncpf/counters.h>

#include "cli/json/json.h"

/* Adds the object `name`, a number for each row of the table, in its order. */
void json_counters(struct json *j, const char *name, const struct apf_counters *c);

#endif
