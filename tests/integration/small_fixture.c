/* SPDX-License-Identifier: Apache-2.0 */
#include "small_fixture.h"

static void fix_image(struct fix *f, uint64_t pages)
{
	uint64_t page[PAGE_BYTES / 8];
	struct prng rng;

	assert_true(pages <= FIX_PAGES_MAX);
	prng_init(&rng, pages);
	f->image_fd = memfd_create("test-image", MFD_CLOEXEC);
	assert_true(f->image_fd >= 0);
	for (uint64_t i = 0; i < pages; i++) {
		for (size_t w = 0; w < ARRAY_LEN(page); w++)
			page[w] = i % 7 == 3 ? 0 : prng_next(&rng); /* some pages are zeroes */
		f->expect[i] = small_page_hash(page);
		assert_int_equal(write(f->image_fd, page, sizeof(page)), sizeof(page));
	}
}

void fix_source(struct fix *f, const char *wrap, const char *keys)
{
	snprintf(f->uri, sizeof(f->uri), "%sfile:/proc/self/fd/%d%s%s", wrap, f->image_fd,
		 *keys ? "?" : "", keys);
	f->cfg.source_uri = f->uri;
}

struct fix *fix_open(enum apf_faults faults, enum apf_abi abi, uint64_t pages)
{
	struct fix *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	fix_image(f, pages);
	apf_config_init(&f->cfg.apf);
	f->cfg.apf.io = io_way();
	f->cfg.apf.faults = faults;
	f->cfg.apf.abi = abi;
	f->cfg.boot = (struct small_boot){
		.vcpus = 1,
		.tasks = 8,
		.rev = faults == APF_FAULTS_USER     ? (uint32_t)abi
		       : faults == APF_FAULTS_KERNEL ? (uint32_t)APF_REV_INT
						     : (uint32_t)APF_REV_OFF,
		.vector = 0xec,
		.timer_hz = 250,
		.pages = pages,
		.seed = 7,
	};
	f->cfg.expect = f->expect;
	f->cfg.stop_fd = -1;
	f->cfg.time_limit_ms = FIX_LIMIT_MS;
	fix_source(f, "delay+", "us=2000");
	return f;
}

void fix_close(struct fix *f)
{
	close(f->image_fd);
	free(f);
}

uint64_t fix_pages_done(const struct fix *f)
{
	uint64_t n = 0;

	for (unsigned t = 0; t < f->cfg.boot.tasks; t++) {
		n += f->out.results.task[t].pages_done;
		assert_int_equal(f->out.results.task[t].pages_bad, 0);
		assert_int_equal(f->out.results.task[t].finished, 1);
	}
	return n;
}

void fix_run(struct fix *f)
{
	int rc = small_run(&f->cfg, &f->out, &f->err);

	if (rc < 0 || f->out.status != 0)
		print_error("%s; status %u; guest says: %s\n", f->err.text, f->out.status,
			    f->out.console);
	assert_int_equal(rc, 0);
	assert_true(f->out.ended);
	assert_int_equal(f->out.status, 0);
}

void fix_events_agree(const struct fix *f)
{
	const struct apf_counters *s = &f->out.stats;
	uint64_t missing = 0, ready = 0, wake_all = 0, early = 0;

	for (unsigned c = 0; c < f->cfg.boot.vcpus; c++) {
		missing += f->out.results.cpu[c].missing;
		ready += f->out.results.cpu[c].ready;
		wake_all += f->out.results.cpu[c].wake_all;
		early += f->out.results.cpu[c].early;
	}
	assert_int_equal(missing, s->missing_events);
	if (f->cfg.boot.scenario == SMALL_REENABLE) {
		/* An event in the slot when the guest unregisters ends there: it wakes everybody.
		 */
		assert_true(ready <= s->ready_events);
		assert_true(wake_all <= s->wake_alls);
	} else {
		assert_int_equal(ready, s->ready_events);
		assert_int_equal(wake_all, s->wake_alls);
	}
	/* The founding text sends wake-all and page-ready for one fault; the others do not. */
	if (f->cfg.apf.abi != APF_ABI_PF2_STRICT)
		assert_int_equal(early, 0);
}

bool fix_cpl0_is_emulated(void)
{
	struct fix *f = fix_open(APF_FAULTS_USER, APF_ABI_INT, 96);
	bool emulated;

	f->cfg.boot.scenario = SMALL_CPL0;
	fix_run(f);
	emulated = f->out.stats.blocked > 0;
	fix_close(f);
	return emulated;
}
