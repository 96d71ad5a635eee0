/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM's status as text for people, within 80 columns but for its reason, and as JSON.
 * Test: tests/unit/control_show_test.c.
 */
#ifndef CLI_CONTROL_SHOW_H
#define CLI_CONTROL_SHOW_H

#include <stdio.h>

#include "cli/json/json.h"
#include "vmm/control/control_event.h"
#include "vmm/control/control_status.h"

void control_show_text(const struct control_status *s, FILE *out);
/* The parts of it that `asyncpf run --stats` shows, too. */
void control_show_counters(const struct apf_counters *c, uint64_t block_bytes, FILE *out);
void control_show_devices(const struct device_stats *d, uint64_t count, FILE *out);
/* A pager's VMs. */
void control_show_served(const struct control_served *v, uint64_t count, FILE *out);
void control_show_sources(const struct control_source *v, uint64_t count, FILE *out);

void control_show_balloon(const struct balloon_stats *b, FILE *out);
void control_show_vsock(const struct vsock_stats *v, FILE *out);

/* One object on one line, all keys there are. 0 or -EIO. */
int control_show_json(const struct control_status *s, FILE *out);
/* One object on one line: the event's name, its numbers, its text. 0 or -EIO. */
int control_show_event_json(const struct control_event *ev, FILE *out);
/* Its array of vCPUs. */
void control_show_vcpus_json(struct json *j, const char *name, const struct control_vcpu *v,
			     uint64_t count);
/* Its array of devices. */
void control_show_devices_json(struct json *j, const char *name, const struct device_stats *d,
			       uint64_t count);
void control_show_served_json(struct json *j, const char *name, const struct control_served *v,
			      uint64_t count);
void control_show_sources_json(struct json *j, const char *name, const struct control_source *v,
			       uint64_t count);
/* A device as one object; NULL: null. */
void control_show_vsock_json(struct json *j, const char *name, const struct vsock_stats *v);
void control_show_balloon_json(struct json *j, const char *name, const struct balloon_stats *b);

#endif
