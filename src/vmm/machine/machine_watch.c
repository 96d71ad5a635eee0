/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the guest does what one expects of it, seen from outside: it prints to the console that
 * there is, it has not panicked, and not all of its processors wait for what never comes. It is
 * told once and can be asked for; nothing is done about it. See machine.h.
 *
 * Threads: step by the one that runs the machine, look by a vCPU's own.
 * Test: tests/error/run_watch_test.py.
 */
#include <stdio.h>
#include <string.h>

#include "vmm/machine/machine_parts.h"

#define STEP_NS (2 * NS_PER_S)
/* Of running time: a slow machine's kernel has printed by then, if it does at all. */
#define SILENT_NS (30 * NS_PER_S)
/* One that resets the machine soon after a panic needs no note. */
#define PANIC_NS (5 * NS_PER_S)
/* Less CPU time than this in a step is idle enough to be looked at. */
#define IDLE_NS (NS_PER_MS / 2)
#define LOOKS 2 /* in a row that find it halted */
#define LOOK_STEPS_MAX 16 /* between two looks at a guest that is only idle */

#define RFLAGS_IF (1ull << 9)

/* ---- a vCPU ---- */

void machine_watch_look(struct machine_vcpu *v)
{
	enum machine_waits waits = MACHINE_WAITS_NOT;
	struct kvm_mp_state mp;

	if (!atomic_load(&v->m->watch.looking))
		return;
	if (KVMP_IOCTL(v->fd, KVM_GET_MP_STATE, &mp) < 0)
		return;
	if (mp.mp_state == KVM_MP_STATE_HALTED && !(v->run->s.regs.regs.rflags & RFLAGS_IF))
		waits = MACHINE_WAITS_FOR_EVER;
	else if (mp.mp_state == KVM_MP_STATE_UNINITIALIZED ||
		 mp.mp_state == KVM_MP_STATE_INIT_RECEIVED)
		waits = MACHINE_WAITS_FOR_START;
	atomic_store(&v->waits, waits);
}

static uint64_t vcpu_cpu_ns(struct machine *m)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < m->cfg.cpus; i++)
		sum += machine_vcpu_cpu_ns(m, i);
	return sum;
}

/* All wait, and at least one of them halted: whoever could start the others has. */
static bool all_wait(const struct machine *m)
{
	bool halted = false;

	for (unsigned i = 0; i < m->cfg.cpus; i++) {
		enum machine_waits waits = atomic_load(&m->vcpus[i].waits);

		if (waits == MACHINE_WAITS_NOT)
			return false;
		halted |= waits == MACHINE_WAITS_FOR_EVER;
	}
	return halted;
}

static void look(struct machine *m)
{
	for (unsigned i = 0; i < m->cfg.cpus; i++)
		atomic_store(&m->vcpus[i].waits, MACHINE_WAITS_NOT);
	atomic_store(&m->watch.looking, true);
	for (unsigned i = 0; i < m->cfg.cpus; i++)
		if (m->vcpus[i].has_thread)
			apf_vcpu_kick(m->vcpus[i].apf);
}

/* What the last look found, and whether there is to be another. */
static bool is_halted(struct machine *m, bool idle)
{
	struct machine_watch *w = &m->watch;
	bool found = false;

	if (atomic_exchange(&w->looking, false)) {
		found = all_wait(m);
		w->found = found ? w->found + 1 : 0;
		w->pause_steps = found ? 0 : w->pause_steps ? 2 * w->pause_steps : 1;
		if (w->pause_steps > LOOK_STEPS_MAX)
			w->pause_steps = LOOK_STEPS_MAX;
		w->look_in = w->pause_steps;
	} else if (!idle) {
		w->found = w->look_in = w->pause_steps = 0;
	} else if (w->look_in > 0) {
		w->look_in--;
	}
	if (w->found >= LOOKS)
		return true;
	if (idle && w->look_in == 0)
		look(m);
	return false;
}

/* ---- what is told ---- */

static bool is_linux_without_console(const struct machine *m)
{
	const char *line = m->cfg.cmdline ? m->cfg.cmdline : MACHINE_LINUX_CMDLINE;

	return m->kind != LOAD_MULTIBOOT && !strstr(line, "console=ttyS0");
}

static void set_note(struct machine *m, const char *text)
{
	bool is_new;

	pthread_mutex_lock(&m->lock);
	is_new = strcmp(m->note, text) != 0;
	snprintf(m->note, sizeof(m->note), "%s", text);
	pthread_mutex_unlock(&m->lock);
	if (is_new && *text)
		machine_say(m, MACHINE_NOTE, text);
}

static void tell_halted(struct machine *m, const struct said *s)
{
	char text[ERR_TEXT_MAX];

	snprintf(text, sizeof(text), "the guest has halted, with interrupts off%s%s%s",
		 m->kind == LOAD_MULTIBOOT && !m->cfg.exit_port
			 ? " (what ends by port 0xf4 needs --exit-port)" : "",
		 *said_last(s) ? "; it last printed: " : "", said_last(s));
	set_note(m, text);
}

static void tell_panic(struct machine *m, const struct said *s)
{
	char text[ERR_TEXT_MAX];

	snprintf(text, sizeof(text), "the guest has panicked, and does not end by itself: %s",
		 s->panic);
	set_note(m, text);
}

static void tell_silence(struct machine *m)
{
	const char *what = "the guest has printed nothing to the console for 30 s";
	char text[ERR_TEXT_MAX];

	if (is_linux_without_console(m))
		snprintf(text, sizeof(text), "%s: Linux does with console=ttyS0 in --cmdline",
			 what);
	else if (m->kind == LOAD_MULTIBOOT)
		snprintf(text, sizeof(text), "%s: that is the first serial port, 0x3f8 (Xen: "
			 "console=com1 com1=115200 in --cmdline)", what);
	else
		snprintf(text, sizeof(text), "%s", what);
	set_note(m, text);
}

/* What is the worst is told. */
static void judge(struct machine *m, bool halted)
{
	struct machine_watch *w = &m->watch;
	struct said said;

	console_said(&m->console, &said);
	if (*said.panic && !w->panic_ns)
		w->panic_ns = w->run_ns;
	if (w->panic_ns && w->run_ns - w->panic_ns >= PANIC_NS)
		tell_panic(m, &said);
	else if (halted)
		tell_halted(m, &said);
	else if (said.bytes == 0 && !m->cfg.restore && w->run_ns >= SILENT_NS)
		tell_silence(m);
	else
		set_note(m, "");
}

int machine_watch_step(struct machine *m, uint64_t now)
{
	struct machine_watch *w = &m->watch;
	uint64_t cpu;
	bool idle;

	if (!m->cfg.say)
		return -1;
	if (w->next_ns == 0)
		w->next_ns = now + STEP_NS;
	if (now >= w->next_ns) {
		w->next_ns = now + STEP_NS;
		/* A VM that stands still is none of the guest's doing. */
		if (!apf_is_paused(m->apf)) {
			cpu = vcpu_cpu_ns(m);
			idle = cpu - w->cpu_ns < IDLE_NS;
			w->cpu_ns = cpu;
			w->run_ns += STEP_NS;
			judge(m, is_halted(m, idle));
		}
	}
	return (int)((w->next_ns - now) / NS_PER_MS) + 1;
}

void machine_note_get(struct machine *m, char ret[static ERR_TEXT_MAX])
{
	pthread_mutex_lock(&m->lock);
	memcpy(ret, m->note, sizeof(m->note));
	pthread_mutex_unlock(&m->lock);
}
