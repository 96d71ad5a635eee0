/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The load: processes that each use memory and a file of their own and check every byte.
 *
 * A page's content follows from process, page and generation, so that a byte that was lost,
 * kept from before or taken from another page is found, and named, at the next visit. The
 * processes fill their memory, wait for each other, and then visit pages at random until
 * the time is over: a visit checks the whole page and may write the next generation. Visits
 * are counted from the end of the warm-up on, and of a pause behind it.
 *
 * The file is in the guest's memory, too, but it is the guest's kernel that touches it, in
 * read and write. A fault there finds the processor in kernel mode, where nobody can be parked.
 */
#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/hist.h"
#include "base/prng.h"
#include "guest.h"

#define PROCESSES_MAX 256
#define PAGE_BYTES 4096u
#define WORDS (PAGE_BYTES / sizeof(uint64_t))
#define BAD_SAID_MAX 4
#define POLL_NS 20000000u
/*
 * Between the warm-up and the visits that count nobody visits. There we tell how far we are, and
 * who hears it may look at the host's counters, which takes time from the guest.
 */
#define PAUSE_NS 3000000000u

struct load_opts {
	uint32_t processes;
	uint32_t pages;      /* of memory, of each process */
	uint32_t file;       /* pages of the file, of each process */
	uint32_t file_visits; /* per cent of the visits that go to the file */
	uint32_t seconds;    /* of visits that count */
	uint32_t warm;       /* seconds of visits before, that do not */
	uint32_t write;      /* per cent of the visits that write */
	uint32_t hot;        /* per cent of the pages of memory that … */
	uint32_t hot_visits; /* … take this share of the visits there */
	uint32_t request;    /* visits of one request, after which … */
	uint32_t rest_ms;    /* … a process waits for the next; 0: it does not */
	uint32_t sweep;      /* 1: check all pages once more at the end */
	uint32_t ticker_ms;  /* 0: no ticker */
	uint32_t plug;       /* 1: switch CPUs off and on meanwhile */
	uint32_t disk;       /* 1: use the first disk meanwhile */
	uint32_t spoil;      /* 1: one wrong byte, for the test of the check */
	uint32_t stay;       /* 1: the processes keep their memory until the machine ends */
	uint32_t patience;   /* seconds after the time is over until a process counts as stuck */
	uint32_t seed;
};

static const struct word load_words[] = {
	{"processes", offsetof(struct load_opts, processes), 1, PROCESSES_MAX},
	{"pages", offsetof(struct load_opts, pages), 1, 1u << 23},
	{"file", offsetof(struct load_opts, file), 0, 1u << 23},
	{"file_visits", offsetof(struct load_opts, file_visits), 0, 100},
	{"seconds", offsetof(struct load_opts, seconds), 1, 86400},
	{"warm", offsetof(struct load_opts, warm), 0, 86400},
	{"write", offsetof(struct load_opts, write), 0, 100},
	{"hot", offsetof(struct load_opts, hot), 1, 100},
	{"hot_visits", offsetof(struct load_opts, hot_visits), 0, 100},
	{"request", offsetof(struct load_opts, request), 1, UINT32_MAX},
	{"rest_ms", offsetof(struct load_opts, rest_ms), 0, 10000},
	{"sweep", offsetof(struct load_opts, sweep), 0, 1},
	{"ticker_ms", offsetof(struct load_opts, ticker_ms), 0, 100},
	{"plug", offsetof(struct load_opts, plug), 0, 1},
	{"disk", offsetof(struct load_opts, disk), 0, 1},
	{"spoil", offsetof(struct load_opts, spoil), 0, 1},
	{"stay", offsetof(struct load_opts, stay), 0, 1},
	{"patience", offsetof(struct load_opts, patience), 1, 86400},
	{"seed", offsetof(struct load_opts, seed), 0, UINT32_MAX},
	{NULL, 0, 0, 0},
};

/* What a process leaves for its parent, at its end only: while it runs it touches its own. */
struct result {
	uint64_t visits, writes, file_visits, swept, bad;
	uint32_t hist_us[HIST_BUCKETS];      /* of one visit to memory */
	uint32_t file_hist_us[HIST_BUCKETS]; /* of one to the file */
	uint64_t max_us, file_max_us;        /* the longest of each */
};

struct lateness {
	uint32_t ticks, p50_us, p99_us, max_us;
	uint32_t max_tick; /* the number of the latest */
};

/* Shared by all processes. */
struct board {
	/* Visits, a pause, visits that count, an end; set before the processes are let go. */
	uint64_t go_ns, pause_ns, from_ns, until_ns;
	uint32_t done; /* processes that have handed their result over; atomic */
	struct lateness late;
	struct result result[];
};

struct worker {
	const struct load_opts *opts;
	unsigned id;
	uint64_t *memory;
	int file;
	uint64_t *buffer;     /* one page, for the file */
	uint32_t *generation; /* of each page: those of memory, then those of the file */
	struct prng prng;
	struct result result;
};

/* ---- the pages of one process ---- */

static unsigned pages_of(const struct load_opts *o)
{
	return o->pages + o->file;
}

static bool in_file(const struct worker *w, unsigned page)
{
	return page >= w->opts->pages;
}

static off_t file_offset(const struct worker *w, unsigned page)
{
	return (off_t)(page - w->opts->pages) * PAGE_BYTES;
}

static uint64_t first_word(const struct worker *w, unsigned page, uint32_t generation)
{
	struct prng p;

	prng_init(&p, (uint64_t)w->id << 56 ^ (uint64_t)page << 32 ^ generation);
	return prng_next(&p);
}

/* The next word of a page. The constants are Knuth's for a 64-bit linear congruence. */
static uint64_t next_word(uint64_t word)
{
	return word * 6364136223846793005u + 1442695040888963407u;
}

/* Where a page's words are looked at: those of the file in the buffer. */
static uint64_t *words_of(const struct worker *w, unsigned page)
{
	return in_file(w, page) ? w->buffer : w->memory + (size_t)page * WORDS;
}

static void say_bad_file(struct worker *w, unsigned page, const char *what)
{
	if (w->result.bad++ < BAD_SAID_MAX)
		say_failed("%s: process %u page %u of the file", what, w->id,
			   page - w->opts->pages);
}

static void page_write(struct worker *w, unsigned page)
{
	uint64_t *at = words_of(w, page);
	uint64_t word = first_word(w, page, ++w->generation[page]);

	for (unsigned i = 0; i < WORDS; i++, word = next_word(word))
		at[i] = word;
	if (in_file(w, page) &&
	    pwrite(w->file, at, PAGE_BYTES, file_offset(w, page)) != PAGE_BYTES)
		say_bad_file(w, page, "write");
}

static void page_say_bad(const struct worker *w, unsigned page, unsigned i, uint64_t found,
			 uint64_t expected)
{
	say("mismatch: process %u page %u%s offset %zu generation %u: expected %016llx, "
	    "found %016llx", w->id, page, in_file(w, page) ? " (file)" : "", i * sizeof(found),
	    w->generation[page], (unsigned long long)expected, (unsigned long long)found);
}

static void page_check(struct worker *w, unsigned page)
{
	const uint64_t *at = words_of(w, page);
	uint64_t word = first_word(w, page, w->generation[page]);

	if (in_file(w, page) &&
	    pread(w->file, w->buffer, PAGE_BYTES, file_offset(w, page)) != PAGE_BYTES) {
		say_bad_file(w, page, "read");
		return;
	}
	for (unsigned i = 0; i < WORDS; i++, word = next_word(word)) {
		if (at[i] == word)
			continue;
		if (w->result.bad++ < BAD_SAID_MAX)
			page_say_bad(w, page, i, at[i], word);
		return;
	}
}

static bool worker_init(struct worker *w)
{
	size_t bytes = (size_t)w->opts->pages * PAGE_BYTES;

	w->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	w->buffer = aligned_alloc(PAGE_BYTES, PAGE_BYTES);
	w->generation = calloc(pages_of(w->opts), sizeof(*w->generation));
	w->file = memfd_create("load", MFD_CLOEXEC);
	if (w->memory == MAP_FAILED || !w->buffer || !w->generation || w->file < 0) {
		say_failed("process %u: memory", w->id);
		return false;
	}
	/* Pages that are taken one by one, as most programs have them. */
	madvise(w->memory, bytes, MADV_NOHUGEPAGE);
	prng_init(&w->prng, (uint64_t)w->opts->seed << 32 | w->id);
	/* The file first: what a program reads is older than what it makes of it. */
	for (unsigned n = pages_of(w->opts), i = 0; i < n; i++)
		page_write(w, (w->opts->pages + i) % n);
	if (w->opts->spoil && w->id == 0)
		((uint8_t *)w->memory)[bytes / 2] ^= 1;
	return true;
}

/* ---- visits ---- */

static unsigned choose_page(struct worker *w)
{
	const struct load_opts *o = w->opts;
	unsigned hot = (unsigned)((uint64_t)o->pages * o->hot / 100);

	if (o->file && prng_below(&w->prng, 100) < o->file_visits)
		return o->pages + (unsigned)prng_below(&w->prng, o->file);
	/* Of few pages none may be hot, or all. */
	if (hot == 0 || hot == o->pages)
		return (unsigned)prng_below(&w->prng, o->pages);
	if (prng_below(&w->prng, 100) < o->hot_visits)
		return (unsigned)prng_below(&w->prng, hot);
	return hot + (unsigned)prng_below(&w->prng, o->pages - hot);
}

static void note_visit(struct result *r, bool file, uint64_t us)
{
	uint64_t *max = file ? &r->file_max_us : &r->max_us;

	(file ? r->file_hist_us : r->hist_us)[hist_bucket(us)]++;
	if (us > *max)
		*max = us;
}

/* Requests come at any time, not to all processes at once: each begins a little later. */
static void visit(struct worker *w, uint64_t from_ns, uint64_t until_ns, bool counts)
{
	const struct load_opts *o = w->opts;
	uint64_t rest_ns = o->rest_ms * 1000000ull, began, now;

	sleep_until(from_ns + rest_ns * w->id / o->processes);
	for (uint64_t n = 1; (began = now_ns()) < until_ns; n++) {
		unsigned page = choose_page(w);
		bool writes = prng_below(&w->prng, 100) < o->write;

		page_check(w, page);
		if (writes)
			page_write(w, page);
		now = now_ns();
		if (counts && now <= until_ns) {
			w->result.visits++;
			w->result.writes += writes;
			w->result.file_visits += in_file(w, page);
			note_visit(&w->result, in_file(w, page), (now - began) / 1000);
		}
		if (rest_ns && n % o->request == 0)
			sleep_until(now + rest_ns);
	}
}

/* What a program does when it starts; its file was evicted while everybody filled his memory. */
static void read_file(struct worker *w, const struct board *board)
{
	for (unsigned i = 0; i < w->opts->file && now_ns() < board->pause_ns; i++)
		page_check(w, w->opts->pages + i);
}

/* What a process does behind its result: nothing, for ever, or what its caller does. */
static void hand_over(struct board *board, const struct load_opts *o)
{
	__atomic_add_fetch(&board->done, 1, __ATOMIC_RELEASE);
	while (o->stay)
		pause();
}

/* The life of a process; `ready` and `go` are pipes that let all of them begin together. */
static int worker_run(const struct load_opts *o, unsigned id, struct board *board, int ready,
		      int go)
{
	struct worker w = {.opts = o, .id = id};
	char byte = 0;

	if (!worker_init(&w))
		return 1;
	if (write(ready, &byte, 1) != 1 || read(go, &byte, 1) != 1)
		return 1;
	read_file(&w, board);
	visit(&w, board->go_ns, board->pause_ns, false);
	visit(&w, board->from_ns, board->until_ns, true);
	for (unsigned page = 0; o->sweep && page < pages_of(o); page++) {
		page_check(&w, page);
		w.result.swept++;
	}
	board->result[id] = w.result;
	hand_over(board, o);
	return w.result.bad ? 1 : 0;
}

static int ticker_process(const struct load_opts *o, struct board *board, int ready, int go)
{
	unsigned n = o->seconds * 1000 / o->ticker_ms, worst;
	uint32_t *late = calloc(n, sizeof(*late));
	char byte = 0;

	if (!late || write(ready, &byte, 1) != 1 || read(go, &byte, 1) != 1)
		return 1;
	worst = ticker_run(o->ticker_ms, board->from_ns, late, n);
	board->late = (struct lateness){n, late[n / 2], late[(uint64_t)n * 99 / 100],
					late[n - 1], worst};
	hand_over(board, o);
	return 0;
}

/* ---- the parent ---- */

/* Process number `processes` is the ticker. */
static bool start(const struct load_opts *o, struct board *board, unsigned count, int ready[2],
		  int go[2])
{
	for (unsigned i = 0; i < count; i++) {
		pid_t pid = fork();

		if (pid < 0) {
			say_failed("process %u", i);
			return false;
		}
		if (pid == 0) {
			close(ready[0]);
			close(go[1]);
			_exit(i < o->processes ? worker_run(o, i, board, ready[1], go[0])
					       : ticker_process(o, board, ready[1], go[0]));
		}
	}
	close(ready[1]);
	close(go[0]);
	return true;
}

/* True when `count` bytes came: everybody has filled its memory. */
static bool all_ready(int ready, unsigned count)
{
	char byte;

	while (count > 0 && read(ready, &byte, 1) == 1)
		count--;
	return count == 0;
}

/*
 * Waits until the children have ended, or, if they stay, are done. Whose page never came is
 * still there when patience is over.
 */
static enum outcome reap(const struct load_opts *o, struct board *board, unsigned count)
{
	uint64_t until_ns = board->until_ns + o->patience * 1000000000ull;
	unsigned ended = 0, over = 0;
	enum outcome outcome = WELL;
	int status;

	while (over < count && now_ns() < until_ns) {
		pid_t pid = waitpid(-1, &status, WNOHANG);

		if (pid > 0) {
			ended++;
			if (status != 0) {
				say("failed: process with id %d: wait status 0x%x", pid, status);
				outcome = UNWELL;
			}
		} else {
			sleep_until(now_ns() + POLL_NS);
		}
		over = o->stay ? __atomic_load_n(&board->done, __ATOMIC_ACQUIRE) : ended;
	}
	if (over < count) {
		say("failed: %u processes did not end", count - over);
		outcome = UNWELL;
	}
	return outcome;
}

static void report(const struct load_opts *o, const struct board *board, uint64_t fill_ns,
		   uint64_t events)
{
	struct result sum = {0};
	uint64_t least = UINT64_MAX, most = 0;

	for (unsigned i = 0; i < o->processes; i++) {
		const struct result *r = &board->result[i];

		sum.visits += r->visits;
		least = r->visits < least ? r->visits : least;
		most = r->visits > most ? r->visits : most;
		sum.writes += r->writes;
		sum.file_visits += r->file_visits;
		sum.swept += r->swept;
		sum.bad += r->bad;
		for (unsigned b = 0; b < HIST_BUCKETS; b++) {
			sum.hist_us[b] += r->hist_us[b];
			sum.file_hist_us[b] += r->file_hist_us[b];
		}
		if (r->max_us > sum.max_us)
			sum.max_us = r->max_us;
		if (r->file_max_us > sum.file_max_us)
			sum.file_max_us = r->file_max_us;
	}
	say("{\"step\":\"load\",\"processes\":%u,\"pages\":%u,\"file\":%u,"
	    "\"fill_s\":%.3f,\"seconds\":%u,"
	    "\"visits\":%llu,\"visits_min\":%llu,\"visits_max\":%llu,\"visits_per_s\":%.1f,"
	    "\"writes\":%llu,\"file_visits\":%llu,\"swept\":%llu,"
	    "\"checked_bytes\":%llu,\"bad\":%llu,\"visit_us\":{\"p50\":%llu,\"p99\":%llu},"
	    "\"file_visit_us\":{\"p50\":%llu,\"p99\":%llu},"
	    "\"hyp\":%llu}",
	    o->processes, o->pages, o->file, (double)fill_ns / 1e9, o->seconds,
	    (unsigned long long)sum.visits, (unsigned long long)least, (unsigned long long)most,
	    (double)sum.visits / o->seconds,
	    (unsigned long long)sum.writes, (unsigned long long)sum.file_visits,
	    (unsigned long long)sum.swept,
	    (unsigned long long)((sum.visits + sum.swept) * PAGE_BYTES),
	    (unsigned long long)sum.bad,
	    (unsigned long long)hist_quantile(sum.hist_us, 50, 100, sum.max_us),
	    (unsigned long long)hist_quantile(sum.hist_us, 99, 100, sum.max_us),
	    (unsigned long long)hist_quantile(sum.file_hist_us, 50, 100, sum.file_max_us),
	    (unsigned long long)hist_quantile(sum.file_hist_us, 99, 100, sum.file_max_us),
	    (unsigned long long)events);
	if (o->ticker_ms)
		say("{\"step\":\"ticker\",\"period_ms\":%u,\"ticks\":%u,\"late_us\":{\"p50\":%u,"
		    "\"p99\":%u,\"max\":%u},\"max_at_ms\":%u}", o->ticker_ms,
		    board->late.ticks, board->late.p50_us, board->late.p99_us,
		    board->late.max_us, board->late.max_tick * o->ticker_ms);
}

/* Who takes the time must not wait behind those whose time it takes. */
static void prefer(bool yes)
{
	struct sched_param param = {.sched_priority = yes};

	if (sched_setscheduler(0, yes ? SCHED_FIFO : SCHED_OTHER, &param) < 0)
		say_failed("sched_setscheduler");
}

static enum outcome run(const struct load_opts *o, struct board *board)
{
	unsigned count = o->processes + (o->ticker_ms ? 1 : 0);
	uint64_t began_ns = now_ns();
	struct row before = {.cpus = 0}, after = {.cpus = 0};
	enum outcome outcome = WELL;
	int ready[2], go[2];

	if (pipe(ready) < 0 || pipe(go) < 0)
		return say_failed("pipe");
	if (!start(o, board, count, ready, go))
		return UNWELL;
	if (!all_ready(ready[0], count)) {
		say("failed: a process ended before it began");
		return UNWELL;
	}
	prefer(true);
	board->go_ns = now_ns();
	board->pause_ns = board->go_ns + o->warm * 1000000000ull;
	board->from_ns = board->pause_ns + (o->warm ? PAUSE_NS : 0);
	board->until_ns = board->from_ns + o->seconds * 1000000000ull;
	for (unsigned i = 0; i < count; i++)
		if (write(go[1], "", 1) != 1)
			return say_failed("pipe");
	/*
	 * Once for nothing: what the kernel needs for this may have been evicted, and it would
	 * be fetched while the time is taken, with everybody else behind us.
	 */
	row_read("HYP", &before);
	say("{\"step\":\"warm-up\"}");
	sleep_until(board->pause_ns);
	row_read("HYP", &before);
	say("{\"step\":\"visits\"}");
	sleep_until(board->from_ns);
	if (o->plug)
		outcome = plug_until(board->until_ns);
	if (o->disk && disk_until(board->until_ns) == UNWELL)
		outcome = UNWELL;
	sleep_until(board->until_ns);
	row_read("HYP", &after);
	say("{\"step\":\"visited\"}");
	prefer(false);
	if (reap(o, board, count) == UNWELL)
		outcome = UNWELL;
	close(ready[0]);
	close(go[1]);
	report(o, board, board->go_ns - began_ns, row_sum(&after) - row_sum(&before));
	return outcome;
}

enum outcome step_load(const char *text)
{
	struct load_opts o = {
		.processes = 4, .pages = 256, .seconds = 5, .write = 50, .hot = 20,
		.hot_visits = 50, .request = 1, .patience = 60,
	};
	size_t bytes = sizeof(struct board) + PROCESSES_MAX * sizeof(struct result);
	struct board *board;
	enum outcome outcome;

	if (!words_parse(text, load_words, &o))
		return UNWELL;
	board = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED)
		return say_failed("memory");
	outcome = run(&o, board);
	munmap(board, bytes);
	return outcome;
}
