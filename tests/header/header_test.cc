/* SPDX-License-Identifier: Apache-2.0 */
/* The same program as C++. */
#include "header_test.c"

/* Each is a type by its name alone, which it would not be if a function had that name, too. */
static_assert(sizeof(apf_error) && sizeof(apf_event) && sizeof(apf_config) && sizeof(apf_memory) &&
		      sizeof(apf_read_request) && sizeof(apf_source_config) && sizeof(apf_range) &&
		      sizeof(apf_wait) && sizeof(apf_counter_row) && sizeof(apf_counters) &&
		      sizeof(apf_stats) && sizeof(apf_vcpu_stats) && sizeof(apf_faults) &&
		      sizeof(apf_abi) && sizeof(apf_event_kind) && sizeof(apf_slot) &&
		      sizeof(apf *) && sizeof(apf_vcpu *) && sizeof(apf_source *),
	      "types");
