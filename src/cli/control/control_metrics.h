/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A status as Prometheus' text format 0.0.4: names, HELP and TYPE come from the tables of keys,
 * with Prometheus' conventions: seconds and bytes, _total for what only rises.
 * Test: tests/unit/control_metrics_test.c, tests/error/metrics_test.py (promtool).
 */
#ifndef CLI_CONTROL_METRICS_H
#define CLI_CONTROL_METRICS_H

#include <stdio.h>

#include "vmm/control/control_status.h"

/* With its NUL: the longest name that the tables give is far shorter. */
#define METRIC_NAME_MAX 96u

/*
 * "asyncpf_" PART NAME, its unit and _total; part: "", "vcpu_", "device_", "served_" or
 * "pager_source_" (source_* are the VM's).
 */
void control_metric_name(const struct control_key *k, const char *part,
			 char ret[static METRIC_NAME_MAX]);

void control_show_metrics(const struct control_status *s, FILE *out);

#endif
