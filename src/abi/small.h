/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the VMM and the small guest (guests/small) agree on: where things lie, the
 * boot block that the VMM fills, the results that the guest leaves. Version 1.
 * Both sides are built from one tree; the magic and version catch a stale image.
 *
 * Guest-physical layout (identity-mapped by page tables that the VMM builds, 2 MiB
 * pages; "user" = accessible at CPL 3):
 *
 *   0x00000000  page tables, VMM-built                      supervisor
 *   0x00200000  guest kernel: text, data, stacks, tasks     supervisor
 *   0x00600000  task text and data (CPL 3)                  user
 *   0x00800000  struct small_boot, then results             user
 *   0x01000000  uint64_t expect[pages]                      user
 *   0x7fc00000  hole: not present in the page tables; a touch is a real #PF
 *   image_gpa   the image, absent at start (4 GiB and up)   user
 */
#ifndef ABI_SMALL_H
#define ABI_SMALL_H

#include <stdint.h>

#define SMALL_MAGIC 0x6c616d736670615aull
#define SMALL_VERSION 1u

#define SMALL_KERNEL_GPA 0x00200000ull
#define SMALL_USER_GPA 0x00600000ull
#define SMALL_BOOT_GPA 0x00800000ull
#define SMALL_EXPECT_GPA 0x01000000ull

/*
 * Addresses in the hole that tasks touch to ask the kernel for something: each touch
 * is a real page fault, which the kernel must tell from a synthetic one. (int 0x80,
 * int3 and friends do not work on a KVM that emulates CPL 0.)
 */
#define SMALL_HOLE_GPA 0x7fc00000ull
#define SMALL_CALL_EXIT (SMALL_HOLE_GPA + 0x0)  /* the task is finished */
#define SMALL_CALL_YIELD (SMALL_HOLE_GPA + 0x8) /* give up the CPU; returns */
#define SMALL_CALL_PROBE                                                                           \
	(SMALL_HOLE_GPA + 0x40) /* collision scenarios: a real fault whose CR2 must be seen */

/* Ports. */
#define SMALL_PORT_CONSOLE 0xe9 /* bytes, also by `rep outsb` */
#define SMALL_PORT_EXIT 0xf4    /* 32-bit status: 0 = all well; ends the VM */

#define SMALL_VCPUS_MAX 8
#define SMALL_TASKS_MAX 256 /* in all */
#define SMALL_STACK_PAGES 16 /* SMALL_STACK; the image has more */

enum small_pattern {
	SMALL_SEQUENTIAL = 0, /* task t walks its own region front to back */
	SMALL_RANDOM = 1,     /* its own region, in an order that seed decides */
	SMALL_SHARED = 2,     /* every task walks all pages, each from another start */
	SMALL_COMPUTE = 3,    /* task 0 only counts; the others walk their own regions */
	SMALL_IDLE = 4,       /* no task: the guest halts for idle_ms, then ends */
	/*
	 * Task t walks its own region `rounds` times, verifies every byte that it, or the
	 * image, left there, and overwrites the page.
	 */
	SMALL_REWRITE = 5,
};

enum small_scenario {
	SMALL_WALK = 0,
	/* CPU 0 re-registers (gst_disable, gst_enable) every time its missing count has grown by 8.
	 */
	SMALL_REENABLE = 1,
	/* gst_enable before the local APIC is switched on in software; switched on 5 ms later. */
	SMALL_APIC_LATE = 2,
	/* The kernel touches and verifies the first 8 pages at CPL 0 before tasks start. */
	SMALL_CPL0 = 3,
	/*
	 * Collision: while a page-ready event is due, a task takes a real page fault. Phase A:
	 * the #PF handler has interrupts on before it has read CR2 and the reason (as a trap
	 * gate would), and waits there, bounded, for the event. Phase B: a ready event is
	 * due while interrupts are off, and a real fault happens then.
	 */
	SMALL_COLLIDE_A = 4,
	SMALL_COLLIDE_B = 5,
	/* Hostile guests: each does its harm, then verifies that the VM still answers. */
	SMALL_HOSTILE_MSR =
		6, /* every reserved bit, bad and out-of-RAM areas; expects #GP each time */
	/* Task 0 scribbles over the slot with random values for 200 ms; then CPU 0 re-registers. */
	SMALL_HOSTILE_SLOT = 7,
	/* The ready handler neither clears the slot nor acknowledges for 200 ms; then as above. */
	SMALL_HOSTILE_NO_CLEAR = 8,
	SMALL_HOSTILE_ACK = 9,	    /* acknowledges at random moments without an event */
	SMALL_SEND_ALWAYS = 10, /* EN with SEND_ALWAYS; the kernel faults at CPL 0 with IF on, like
				   SMALL_CPL0 */
	/*
	 * The first events of CPU 0 push their frames into the image's last pages, absent ones:
	 * a fault in the middle of an event's delivery. No task walks these pages.
	 */
	SMALL_STACK = 11,
};

struct small_boot {
	uint64_t magic;
	uint32_t version;
	uint32_t vcpus;   /* 1..SMALL_VCPUS_MAX */
	uint32_t tasks;   /* 1..SMALL_TASKS_MAX; task t runs on vCPU t % vcpus, for ever */
	uint32_t rev;     /* enum apf_rev, APF_REV_OFF = do not register */
	uint32_t vector;  /* page-ready vector */
	uint32_t timer_hz; /* 0 = no preemption */
	uint32_t pattern; /* enum small_pattern */
	uint32_t scenario; /* enum small_scenario */
	uint64_t image_gpa; /* 2 MiB aligned */
	uint64_t pages;     /* 4 KiB pages of the image, >= 1 */
	uint64_t seed;
	uint64_t tsc_khz;
	uint32_t idle_ms;
	uint32_t compute_per_page; /* iterations of the compute loop after each page */
	uint32_t rounds; /* SMALL_REWRITE: at least 1 */
	uint32_t reserved;
	uint64_t run_ms; /* SMALL_COMPUTE: the counter stops after this time; 0 = with the last
			    walker */
};

/*
 * Touch latencies as each task saw them: rdtsc around the first load of a page.
 * Bucket i counts waits in [lo(i), lo(i+1)) microseconds; 8 sub-buckets per octave:
 * see base/hist.h, which both sides use.
 */
#define SMALL_HIST_BUCKETS 256

struct small_task_result {
	uint64_t pages_done;
	uint64_t pages_bad;
	uint64_t first_bad_page; /* image page number, when pages_bad != 0 */
	uint64_t count;          /* SMALL_COMPUTE, task 0: iterations done */
	uint64_t count_tsc;      /* and the TSC ticks they took, first to last */
	uint64_t finished;       /* 1 once the task has ended */
	uint64_t wait_us_max;
};

struct small_cpu_result {
	uint64_t missing;
	uint64_t ready;
	uint64_t wake_all;
	uint64_t spurious;
	uint64_t real_faults;
	uint64_t ticks;
	uint64_t gp_expected; /* SMALL_HOSTILE_MSR: #GPs taken where one was due */
	uint64_t
		gp_missing; /* and writes that should have raised one and did not, or the reverse */
	uint64_t early;       /* early wake-ups left in the table at the end */
	uint64_t probe_ok;    /* collision: real faults that were seen with the right CR2 */
	uint64_t probe_wrong; /* taken for something else, or seen with a wrong address */
	uint64_t probe_lost;  /* the ready event that never arrived */
};

struct small_results {
	uint64_t start_tsc; /* when the first task started */
	uint64_t end_tsc;   /* when the last one finished */
	struct small_cpu_result cpu[SMALL_VCPUS_MAX];
	struct small_task_result task[SMALL_TASKS_MAX];
	uint32_t hist[SMALL_HIST_BUCKETS]; /* all tasks together, added atomically */
};

#define SMALL_RESULTS_GPA (SMALL_BOOT_GPA + 0x1000)

_Static_assert(sizeof(struct small_boot) <= 0x1000, "the boot block is one page");
_Static_assert(sizeof(struct small_results) <= SMALL_EXPECT_GPA - SMALL_RESULTS_GPA,
	       "results end before the expect table");

/*
 * The hash of one page that `expect` holds: 512 words, each mixed in, position
 * included, so that swapped or shifted words show. Native speed at CPL 3.
 */
static inline uint64_t small_page_hash(const void *page)
{
	const uint64_t *w = (const uint64_t *)page;
	uint64_t h = 0x9e3779b97f4a7c15ull;

	for (unsigned i = 0; i < 512; i++) {
		h = (h ^ w[i]) * 0xff51afd7ed558ccdull;
		h ^= h >> 29;
	}
	return h;
}

#endif
