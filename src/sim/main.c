/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See main.h. The only file of this folder that prints or asks the system for anything. Each
 * child keeps log and counts in memory that it shares with us, so that they outlive it.
 */
#include "sim/main.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sim/exhaustive.h"
#include "sim/scale.h"

#define TAIL_LINES 40u
#define JOBS_MAX 64u
#define POLL_US 20000u
#define HANG_S 20u /* without one more event: the simulated code does not come back */

/* KILLED: by the host or its user, which says nothing of what is simulated. */
enum outcome { RUNS, CLEAN, NOT_MADE, KILLED, BROKEN, CRASHED, HUNG };

/* One child's share of the seeds. */
struct job {
	struct sim_log log;
	struct sim_counts total;
	struct sim_verdict verdict;
	struct sim_explored explored;
	uint64_t seeds;
	uint64_t digest; /* of all logs */
	bool stop;
	/* the parent's */
	pid_t pid;
	enum outcome outcome;
	uint64_t events_seen;
	uint64_t seen_s;
	int signal;
};

static void add_counts(struct sim_counts *to, const struct sim_counts *from)
{
	/* struct sim_counts is counters throughout. */
	const uint64_t *f = (const uint64_t *)(const void *)from;
	uint64_t *t = (uint64_t *)(void *)to;

	_Static_assert(sizeof(*to) % sizeof(uint64_t) == 0, "counters only");
	for (size_t i = 0; i < sizeof(*to) / sizeof(uint64_t); i++)
		t[i] += f[i];
}

static void cfg_of(const struct sim_request *r, uint64_t seed, struct sim_cfg *c)
{
	sim_cfg_from_seed(c, seed);
	if (r->vcpus)
		c->vcpus = r->vcpus;
	if (r->tasks)
		c->tasks = r->tasks;
	if (r->accesses)
		c->accesses = r->accesses;
	if (r->rev) {
		sim_cfg_set_rev(c, (enum apf_rev)r->rev);
		c->faults = HST_FAULTS_USER;
	}
	if (r->no_faults)
		c->faults_on = 0;
}

static void print_line(void *ctx, const struct sim_log_entry *e)
{
	char line[128];

	(void)ctx;
	if (sim_log_line(e, line, sizeof(line)))
		puts(line);
}

/* ---- a child ---- */

static void run_job(const struct sim_request *r, struct job *j, unsigned index)
{
	struct sim *w = sim_new(&j->log);

	if (!w)
		_exit(ENOMEM);
	if (r->log)
		j->log.tee = print_line;
	for (uint64_t i = index; i < r->count; i += r->jobs) {
		struct sim_cfg c;
		struct sim_counts counts;

		if (__atomic_load_n(&j->stop, __ATOMIC_RELAXED))
			break;
		cfg_of(r, r->seed + i, &c);
		sim_run(w, &c, &j->verdict, &counts);
		add_counts(&j->total, &counts);
		j->digest = (j->digest ^ j->log.digest) * 0x9e3779b97f4a7c15ull;
		j->seeds++;
		if (j->verdict.broken)
			break;
	}
	fflush(stdout);
	sim_delete(w);
	_exit(j->verdict.broken);
}

/* One revision for each child. */
static void run_exhaustive(const struct sim_request *r, struct job *j, unsigned index)
{
	enum apf_rev rev = (enum apf_rev)(r->rev ? r->rev : APF_REV_LEGACY + index);
	struct sim *w = sim_new(&j->log);

	if (!w || !sim_explore(w, rev, r->states, &j->explored))
		_exit(ENOMEM);
	j->verdict = j->explored.verdict;
	j->seeds = j->explored.runs;
	sim_delete(w);
	_exit(j->verdict.broken);
}

/* ---- the parent ---- */

static uint64_t now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static bool was_killed(int status)
{
	return WIFSIGNALED(status) &&
	       (WTERMSIG(status) == SIGKILL || WTERMSIG(status) == SIGXCPU);
}

static void look_at(struct job *j)
{
	uint64_t events = __atomic_load_n(&j->log.events, __ATOMIC_RELAXED);
	int status;

	if (j->outcome != RUNS)
		return;
	if (waitpid(j->pid, &status, WNOHANG) == j->pid) {
		j->outcome = was_killed(status)	       ? KILLED
			     : WIFSIGNALED(status)     ? CRASHED
			     : j->verdict.broken       ? BROKEN
			     : WEXITSTATUS(status) == ENOMEM ? NOT_MADE
			     : WEXITSTATUS(status) != 0 ? CRASHED
							: CLEAN;
		j->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
		return;
	}
	if (events != j->events_seen || j->seen_s == 0) {
		j->events_seen = events;
		j->seen_s = now_s();
	} else if (now_s() - j->seen_s > HANG_S) {
		kill(j->pid, SIGKILL);
		(void)waitpid(j->pid, &status, 0);
		j->outcome = HUNG;
	}
}

/* Waits for all; the first that finds something stops the others. */
static void wait_jobs(struct job *jobs, unsigned n)
{
	bool running = true, found = false;

	while (running) {
		running = false;
		for (unsigned i = 0; i < n; i++) {
			look_at(&jobs[i]);
			running |= jobs[i].outcome == RUNS;
			found |= jobs[i].outcome > CLEAN;
		}
		for (unsigned i = 0; found && i < n; i++)
			__atomic_store_n(&jobs[i].stop, true, __ATOMIC_RELAXED);
		if (running)
			usleep(POLL_US);
	}
}

static void print_tail(const struct sim_log *l)
{
	uint64_t from = l->count > TAIL_LINES ? l->count - TAIL_LINES : 0;

	for (uint64_t i = from; i < l->count; i++)
		print_line(NULL, &l->ring[i % SIM_LOG_ENTRIES]);
}

static void print_cfg(const struct sim_request *r, uint64_t seed)
{
	struct sim_cfg c;

	cfg_of(r, seed, &c);
	printf("settings: --faults %s, %s, %" PRIu32 " vCPUs, %" PRIu32 " tasks each, %" PRIu32
	       " pages,\nblock %u, faults-max %" PRIu32 ", queue %" PRIu32 ", latency %" PRIu64
	       " us; faults:", sim_faults_name(c.faults), sim_rev_name(c.rev), c.vcpus, c.tasks,
	       c.pages, 1u << c.block_shift, c.faults_max, c.queue_depth, c.latency_ns / 1000);
	for (unsigned f = 0; f < SIM_FAULTS; f++)
		if (c.faults_on >> f & 1)
			printf(" %s", sim_fault_name((enum sim_fault)f));
	puts(c.faults_on ? "" : " none");
}

static void print_finding(const struct sim_request *r, const struct job *j)
{
	const struct sim_log *l = &j->log;

	if (!r->log) {
		puts("the end of the log:");
		print_tail(l);
	}
	print_cfg(r, l->seed);
	if (j->outcome == BROKEN && j->verdict.invariant)
		printf("seed %" PRIu64 ": invariant %u is broken: %s\n", l->seed,
		       j->verdict.invariant, j->verdict.what);
	else if (j->outcome == BROKEN)
		printf("seed %" PRIu64 ": a promise is broken: %s\n", l->seed, j->verdict.what);
	else if (j->outcome == HUNG)
		printf("seed %" PRIu64 ": does not come back\n", l->seed);
	else
		printf("seed %" PRIu64 ": died of signal %d\n", l->seed, j->signal);
	printf("replay: asyncpf sim --seed %" PRIu64 " --log", l->seed);
	if (r->vcpus)
		printf(" --vcpus %" PRIu32, r->vcpus);
	if (r->tasks)
		printf(" --tasks %" PRIu32, r->tasks);
	if (r->accesses)
		printf(" --faults-per-task %" PRIu32, r->accesses);
	if (r->rev)
		printf(" --abi %s", sim_rev_name((enum apf_rev)r->rev));
	puts(r->no_faults ? " --no-faults" : "");
}

static void print_summary(const struct sim_counts *t, uint64_t seeds, uint64_t digest,
			  double seconds)
{
	printf("%" PRIu64 " seeds, %" PRIu64 " events (steps of a thread or of the guest),\n"
	       "%.1f s, %.2f million events per second\n", seeds, t->events, seconds,
	       seconds > 0 ? (double)t->events / seconds / 1e6 : 0);
	printf("accesses %" PRIu64 ", page-missing %" PRIu64 ", page-ready %" PRIu64
	       ",\nwake-all %" PRIu64 ", stalls %" PRIu64 ", reads %" PRIu64 "\n", t->accesses,
	       t->missing, t->ready, t->wake_alls, t->stalls, t->reads);
	printf("evicted blocks %" PRIu64 ", swapped %" PRIu64 "\n", t->evicted, t->swapped);
	printf("resets %" PRIu64 ", migrations %" PRIu64 ", pauses %" PRIu64 ", troubles %" PRIu64
	       ",\nrefused interrupts %" PRIu64 ", spurious %" PRIu64 ", real faults %" PRIu64 "\n",
	       t->resets, t->migrations, t->pauses, t->troubles, t->refused, t->spurious,
	       t->real_faults);
	printf("VMM accesses %" PRIu64 ", VMM touches %" PRIu64 ", discarded pages %" PRIu64
	       ",\noverwritten %" PRIu64 ", holds %" PRIu64 "\n", t->vmm_accesses, t->vmm_touches,
	       t->discarded, t->overwritten, t->holds);
	printf("parts adopted %" PRIu64 ", removed %" PRIu64 ", kept back %" PRIu64
	       ",\naccesses to what has left %" PRIu64 ", offered pages %" PRIu64 "\n",
	       t->adopted, t->removed, t->kept_back, t->left_accesses, t->offered);
	printf("snapshots %" PRIu64 ", cuts tried again %" PRIu64 ", given up %" PRIu64
	       ", restores %" PRIu64 "\n", t->snapshots, t->tries_again, t->given_up, t->restores);
	printf("pf2-strict: hazards met %" PRIu64 "\ndigest %016" PRIx64 "\n", t->hazards, digest);
}

static int report(const struct sim_request *r, struct job *jobs, double seconds)
{
	struct sim_counts total = {0};
	uint64_t seeds = 0, digest = 0;
	int rc = 0;

	for (unsigned i = 0; i < r->jobs; i++) {
		add_counts(&total, &jobs[i].total);
		seeds += jobs[i].seeds;
		digest ^= jobs[i].digest;
		if (jobs[i].outcome > CLEAN && rc == 0) {
			print_finding(r, &jobs[i]);
			rc = 1;
		}
	}
	print_summary(&total, seeds, digest, seconds);
	if (seeds == 0) {
		puts("nothing was run");
		rc = 1;
	}
	return rc;
}

static int report_exhaustive(const struct sim_request *r, const struct job *jobs, double seconds)
{
	int rc = 0;

	for (unsigned i = 0; i < r->jobs; i++) {
		const struct sim_explored *x = &jobs[i].explored;
		unsigned rev = r->rev ? r->rev : APF_REV_LEGACY + i;

		if (jobs[i].outcome != CLEAN || x->runs == 0) {
			print_tail(&jobs[i].log);
			printf("%s: invariant %u is broken: %s\n", sim_rev_name((enum apf_rev)rev),
			       x->verdict.invariant, x->verdict.what);
			rc = 1;
			continue;
		}
		printf("%-10s 2 vCPUs, 2 tasks each, 2 pages: %" PRIu64 " states, %" PRIu64
		       " runs,\n           %" PRIu64 " ends, up to %" PRIu32
		       " choices in a row: %s\n",
		       sim_rev_name((enum apf_rev)rev), x->states, x->runs, x->ends, x->depth,
		       x->complete ? "all interleavings" : "stopped at the bound of --states");
	}
	printf("not tried: timers that overtake a runnable thread; other orders of the "
	       "kernels'\nstart\n%.1f s\n", seconds);
	return rc;
}

int sim_scale_main(uint64_t faults, uint32_t tasks, struct err *e)
{
	struct sim_scale_cfg c;

	puts("source,tasks,vcpus,faults,faults_per_s,wait_us_mean,wait_us_p50,wait_us_p99,"
	     "source_permille,queue_permille,thread_permille,events_permille,compute_permille,"
	     "stalls");
	for (unsigned i = 0; sim_scale_sweep(i, faults, &c); i++) {
		struct sim_scale_row r;

		if (tasks && c.tasks != tasks)
			continue;
		if (!sim_scale_run(&c, &r)) {
			return err_set(e, -ENOMEM, "cannot start: simulation of %" PRIu32
				       " vCPUs: no memory", c.vms * c.vcpus_per_vm);
		}
		printf("%s,%" PRIu32 ",%" PRIu32 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64
		       ",%" PRIu64 ",%" PRIu32 ",%" PRIu32 ",%" PRIu32 ",%" PRIu32 ",%" PRIu32
		       ",%" PRIu64 "\n", c.name, c.tasks, c.vms * c.vcpus_per_vm, r.faults,
		       r.faults_per_s, r.wait_us_mean, r.wait_us_p50, r.wait_us_p99, r.source,
		       r.queue, r.thread, r.events, r.compute, r.stalls);
		fflush(stdout);
	}
	return 0;
}

/* Children that have been told to stop; nothing of theirs counts. */
static int give_up(struct job *jobs, unsigned n, int code, struct err *e)
{
	for (unsigned i = 0; i < n; i++)
		if (jobs[i].outcome == RUNS)
			kill(jobs[i].pid, SIGKILL);
	wait_jobs(jobs, n);
	return err_sys(e, code, "cannot start: simulation in %u processes", n);
}

/* One process for each job. 0 or -Exxx. */
static int start_jobs(const struct sim_request *r, struct job *jobs, struct err *e)
{
	pid_t parent = getpid();

	for (unsigned i = 0; i < r->jobs; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			/* Whatever ends the parent ends its children. */
			(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (getppid() != parent)
				_exit(0);
			if (r->states)
				run_exhaustive(r, &jobs[i], i);
			run_job(r, &jobs[i], i);
		}
		jobs[i].pid = pid;
		if (pid < 0)
			return give_up(jobs, i, -errno, e);
	}
	return 0;
}

/* 0, or -ENOMEM: a child had no memory, and so nothing to tell. */
static int all_were_made(const struct job *jobs, unsigned n, struct err *e)
{
	enum outcome worst = CLEAN;

	for (unsigned i = 0; i < n; i++) {
		if (jobs[i].outcome == NOT_MADE)
			return err_set(e, -ENOMEM, "cannot start: simulation: no memory");
		worst = jobs[i].outcome > worst ? jobs[i].outcome : worst;
	}
	if (worst == KILLED)
		return err_set(e, -EINTR, "simulation failed: one of %u processes: it was killed; "
			       "see whether memory or CPU time (ulimit -t) has run out", n);
	return 0;
}

int sim_main(const struct sim_request *asked, struct err *e)
{
	struct sim_request r = *asked;
	double began = now();
	struct job *jobs;
	int rc;

	if (r.states) {
		/* One process per revision. */
		r.count = r.rev ? 1 : 4;
		r.jobs = (uint32_t)r.count;
	}
	r.jobs = (uint32_t)min_u64(min_u64(r.jobs, JOBS_MAX), max_u64(r.count, 1));
	jobs = mmap(NULL, r.jobs * sizeof(*jobs), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (jobs == MAP_FAILED)
		return err_sys(e, -errno, "cannot start: simulation: its log");
	fflush(stdout);
	rc = start_jobs(&r, jobs, e);
	if (rc == 0) {
		wait_jobs(jobs, r.jobs);
		rc = all_were_made(jobs, r.jobs, e);
	}
	if (rc == 0)
		rc = r.states ? report_exhaustive(&r, jobs, now() - began)
			      : report(&r, jobs, now() - began);
	munmap(jobs, r.jobs * sizeof(*jobs));
	return rc;
}
