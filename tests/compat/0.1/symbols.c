/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the linker needs to know of the first library: its name, its symbols and their versions.
 * Programs that are linked with this ask the loader for what a program of that time asks for.
 */
#define SYMBOL(name) \
	void name(void); \
	void name(void) {}

SYMBOL(apf_close)
SYMBOL(apf_config_init)
SYMBOL(apf_cpuid_features)
SYMBOL(apf_evict)
SYMBOL(apf_is_paused)
SYMBOL(apf_memory_add)
SYMBOL(apf_memory_hva)
SYMBOL(apf_open)
SYMBOL(apf_pause)
SYMBOL(apf_pin)
SYMBOL(apf_populate)
SYMBOL(apf_read)
SYMBOL(apf_resume)
SYMBOL(apf_source_add)
SYMBOL(apf_start)
SYMBOL(apf_stats_get)
SYMBOL(apf_stop)
SYMBOL(apf_trouble_get)
SYMBOL(apf_vcpu_attach)
SYMBOL(apf_vcpu_get_msr)
SYMBOL(apf_vcpu_kick)
SYMBOL(apf_vcpu_reset)
SYMBOL(apf_vcpu_restore)
SYMBOL(apf_vcpu_run)
SYMBOL(apf_vcpu_save)
SYMBOL(apf_vcpu_set_msr)
SYMBOL(apf_vcpu_stats_get)
SYMBOL(apf_version)
SYMBOL(apf_write)
