/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last probe: a small guest whose pages are absent, served in each way that lacks nothing that
 * was tried on its own. What doctor says to work has worked here, under the limits, filters and
 * rights of here; what has not has its reason from whoever met it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "abi/apf.h"
#include "cli/cli.h"
#include "cli/probe/probe.h"
#include "mem/memfd.h"
#include "vmm/small/small.h"

#define PAGES 16u
#define TASKS 4u
#define READY_VECTOR 0xec
/* For what takes 30 ms on the slowest KVM that there is; more than a busy machine makes of it. */
#define LIMIT_MS 10000

struct image {
	int fd; /* -1: none */
	uint64_t expect[PAGES];
};

/* A VM that is paused goes on by nothing that would come here: it is ended. */
struct pause {
	int fd; /* readable from the first one on */
	char why[ERR_TEXT_MAX];
};

static void note_pause(void *ctx, const struct apf_event *ev)
{
	static const uint64_t one = 1;
	struct pause *p = ctx;

	if (ev->kind != APF_EVENT_PAUSED || *p->why)
		return;
	snprintf(p->why, sizeof(p->why), "%s", ev->text);
	(void)!write(p->fd, &one, sizeof(one));
}

static int make_image(struct image *im, struct err *e)
{
	_Alignas(8) unsigned char page[PAGE_BYTES];

	im->fd = memfd_new("asyncpf-doctor");
	if (im->fd < 0)
		return err_sys(e, -errno, "memory for %u pages", PAGES);
	for (unsigned i = 0; i < PAGES; i++) {
		memset(page, (int)(i + 1), sizeof(page));
		if (write(im->fd, page, sizeof(page)) != (ssize_t)sizeof(page))
			return err_sys(e, errno ? -errno : -EIO, "memory for %u pages", PAGES);
		im->expect[i] = small_page_hash(page);
	}
	return 0;
}

/* 0, or -Exxx: it failed, or the guest saw something else than the image. */
static int serve(const struct image *im, enum probe_way way, struct err *e)
{
	struct pause pause = {.fd = eventfd(0, EFD_CLOEXEC), .why = ""};
	static const enum apf_faults faults[WAY_COUNT] = {
		[WAY_BLOCK] = APF_FAULTS_BLOCK,
		[WAY_STALL] = APF_FAULTS_STALL,
		[WAY_KERNEL] = APF_FAULTS_KERNEL,
		[WAY_USER] = APF_FAULTS_USER,
	};
	bool told = way == WAY_USER || way == WAY_KERNEL;
	struct small_outcome out;
	char uri[64];
	struct small_cfg c = {
		.boot = {
			.vcpus = 1,
			.tasks = TASKS,
			.rev = told ? APF_REV_INT : APF_REV_OFF,
			.vector = READY_VECTOR,
			.timer_hz = 250,
			.pattern = SMALL_SEQUENTIAL,
			.scenario = SMALL_WALK,
			.pages = PAGES,
			.seed = 1,
			.rounds = 1,
		},
		.source_uri = uri,
		.expect = im->expect,
		.stop_fd = pause.fd,
		.time_limit_ms = LIMIT_MS,
	};
	int rc;

	snprintf(uri, sizeof(uri), "delay+file:/proc/self/fd/%d?us=500", im->fd);
	apf_config_init(&c.apf);
	c.apf.faults = faults[way];
	c.apf.abi = told ? APF_ABI_INT : APF_ABI_OFF;
	c.event = note_pause;
	c.ctx = &pause;
	if (pause.fd < 0)
		return err_sys(e, -errno, "eventfd");
	rc = small_run(&c, &out, e);
	close(pause.fd);
	if (rc < 0 && *pause.why)
		return err_set(e, -EIO, "paused: %s; remove that reason", pause.why);
	if (rc < 0)
		return rc;
	return out.status == 0 ? 0 : err_set(e, -EIO, "the guest saw other bytes than the source "
					     "has (status %u); report this", out.status);
}

/* "what: why; what to do" in its two halves. */
static void tell(struct probe *pr, enum probe_way way, const struct err *e)
{
	char text[ERR_TEXT_MAX + 64];

	snprintf(text, sizeof(text), "%s%s", e->text, cli_advice(e));
	char *fix = strstr(text, "; ");

	if (fix) {
		*fix = '\0';
		fix += 2;
	}
	probe_set(pr, VERDICT_NO, fix ? fix : "look for messages of kvm in the kernel log",
		  "--faults %s: %.200s", probe_way_name(way), text);
}

void probe_served(struct probes *p)
{
	struct probe *pr = &p->list[PROBE_GUEST_SERVED];
	struct image im = {.fd = -1};
	char served[64] = "";
	size_t used = 0;
	struct err e = {0};
	bool told = false, hangs = false;

	probe_set(pr, VERDICT_NO, "see what is missing above", "could not be tried");
	for (enum probe_way w = 0; w < WAY_COUNT; w++) {
		if (probe_way_missing(p, w))
			continue;
		if (hangs || (im.fd < 0 && make_image(&im, &e) < 0) || serve(&im, w, &e) < 0) {
			p->unserved |= 1u << w;
			/* The first that fails says why; what hangs in one hangs in all. */
			if (!told)
				tell(pr, w, &e);
			told = true;
			hangs = e.code == -ETIME;
			continue;
		}
		used += (size_t)snprintf(served + used, sizeof(served) - used, "%s%s",
					 used ? ", " : "", probe_way_name(w));
	}
	if (used && !p->unserved)
		probe_set(pr, VERDICT_OK, "", "a small guest got its pages by: %s", served);
	if (im.fd >= 0)
		close(im.fd);
}
