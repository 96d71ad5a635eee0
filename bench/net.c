/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random demand faults of 4 KiB from servers that are 10 ms away: the small guest on the local KVM
 * walks an image in an order of no help, with one task, and with 32. Servers: nbdkit, whose delay
 * filter makes it late; nginx, behind a relay that does (tests/services/late_relay.c).
 *
 * Faults per second is pages over the guest's own time from the first task's start to the last
 * one's end. Promise: with 32 tasks at least 25 times those with one, the median of three runs
 * each. --check makes a broken promise the exit code.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/prng.h"
#include "base/types.h"
#include "services/service.h"
#include "vmm/small/small.h"

#define PAGES 4096u
#define PAGES_ONE 64u /* of one task: as long as with all */
#define TASKS 32u
#define ROUNDS 3
#define PROMISE 25.0

static uint64_t expect[PAGES];

static void die(const char *text)
{
	fprintf(stderr, "bench-net: %s\n", text);
	exit(1);
}

static void make_image(const struct svc *s)
{
	unsigned char *image = malloc(PAGES * PAGE_BYTES);
	uint64_t *w = (uint64_t *)(void *)image;
	struct prng rng;

	if (!image)
		die("out of memory");
	prng_init(&rng, 1);
	for (size_t i = 0; i < PAGES * PAGE_BYTES / sizeof(*w); i++)
		w[i] = prng_next(&rng);
	for (unsigned i = 0; i < PAGES; i++)
		expect[i] = small_page_hash(w + i * PAGE_BYTES / sizeof(*w));
	svc_write(s, "image", image, PAGES * PAGE_BYTES);
	free(image);
}

static double faults_per_s(const char *uri, unsigned tasks, unsigned pages)
{
	struct small_outcome out;
	struct err e = {0};
	struct small_cfg cfg = {
		.boot = {.vcpus = 1, .tasks = tasks, .timer_hz = 250, .pages = pages, .seed = 7,
			 .rev = APF_ABI_INT, .vector = 0xec, .pattern = SMALL_RANDOM},
		.expect = expect,
		.source_uri = uri,
		.stop_fd = -1,
		.time_limit_ms = 60000,
	};

	apf_config_init(&cfg.apf);
	if (small_run(&cfg, &out, &e) < 0 || out.status != 0)
		die(e.text[0] ? e.text : "the guest found a wrong page");
	return pages / out.guest_s;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static bool measure(const char *server, const char *uri)
{
	double one[ROUNDS], all[ROUNDS], gain;

	for (unsigned i = 0; i < ROUNDS; i++) {
		one[i] = faults_per_s(uri, 1, PAGES_ONE);
		all[i] = faults_per_s(uri, TASKS, PAGES);
	}
	qsort(one, ROUNDS, sizeof(double), by_value);
	qsort(all, ROUNDS, sizeof(double), by_value);
	gain = all[ROUNDS / 2] / one[ROUNDS / 2];
	printf("%-8s %10.0f %10.0f %8.1f\n", server, one[ROUNDS / 2], all[ROUNDS / 2], gain);
	if (gain >= PROMISE)
		return true;
	printf("BROKEN: %s: %.1f times, promised at least %.0f\n", server, gain, PROMISE);
	return false;
}

static bool nbdkit(void)
{
	char socket[SVC_PATH_MAX], image[SVC_PATH_MAX], uri[256];
	const char *argv[] = {"nbdkit", "-f", "-r", "-t", "64", "-U", socket, "--filter=delay",
			      "file", image, "rdelay=10ms", NULL};
	struct svc s;
	bool kept;

	svc_open(&s);
	make_image(&s);
	svc_path(&s, "image", image);
	svc_path(&s, "sock", socket);
	svc_start(&s, argv);
	svc_wait_socket(&s, socket);
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", socket);
	kept = measure("nbdkit", uri);
	svc_close(&s);
	return kept;
}

static bool nginx(void)
{
	char conf[SVC_PATH_MAX], text[1024], uri[256], port[16], target[16];
	const char *serve[] = {"nginx", "-p", NULL, "-e", "log", "-c", conf, NULL};
	const char *relay[] = {LATE_RELAY, port, target, "10", NULL};
	struct svc s, r;
	const char *d = s.dir;
	bool kept;

	svc_open(&s);
	svc_open(&r);
	make_image(&s);
	snprintf(target, sizeof(target), "%d", svc_free_port(&s));
	snprintf(text, sizeof(text),
		 "daemon off; master_process off; pid %s/pid; events { worker_connections 256; }\n"
		 "http { access_log off; client_body_temp_path %s/t1; proxy_temp_path %s/t2;\n"
		 "fastcgi_temp_path %s/t3; uwsgi_temp_path %s/t4; scgi_temp_path %s/t5;\n"
		 "keepalive_requests 100000; server { listen 127.0.0.1:%d; root %s; } }\n",
		 d, d, d, d, d, d, s.port, d);
	svc_write(&s, "nginx.conf", text, strlen(text));
	svc_path(&s, "nginx.conf", conf);
	serve[2] = d;
	svc_start(&s, serve);
	svc_wait_port(&s);
	snprintf(port, sizeof(port), "%d", svc_free_port(&r));
	svc_start(&r, relay);
	svc_wait_port(&r);
	snprintf(uri, sizeof(uri), "http://127.0.0.1:%d/image", r.port);
	kept = measure("nginx", uri);
	svc_close(&r);
	svc_close(&s);
	return kept;
}

int main(int argc, char **argv)
{
	bool check = argc > 1 && strcmp(argv[1], "--check") == 0, kept = true;

	if (access("/dev/kvm", R_OK | W_OK) < 0) {
		printf("SKIP: /dev/kvm: %s\n", strerror(errno));
		return 77;
	}
	setenv("no_proxy", "*", 1);
	setenv("ASYNCPF_NET_MODULE", NET_MODULE, 0);
	printf("faults/s    1 task   %u tasks    times\n", TASKS);
	if (svc_have("nbdkit"))
		kept &= nbdkit();
	if (svc_have("nginx"))
		kept &= nginx();
	return check && !kept ? 1 : 0;
}
