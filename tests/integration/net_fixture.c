/* SPDX-License-Identifier: Apache-2.0 */
#include "net_fixture.h"

unsigned char *net_image(const struct fix *f)
{
	unsigned char *at = malloc(NET_BYTES);

	assert_non_null(at);
	assert_int_equal(pread(f->image_fd, at, NET_BYTES, 0), NET_BYTES);
	return at;
}

void net_run(struct fix *f, const char *uri, uint32_t block_bytes)
{
	assert_true(strlen(uri) < sizeof(f->uri));
	snprintf(f->uri, sizeof(f->uri), "%s", uri);
	f->cfg.apf.block_bytes = block_bytes;
	fix_run(f);
	assert_int_equal(fix_pages_done(f), NET_PAGES);
}

void net_moment(void)
{
	const struct timespec moment = {.tv_nsec = 1000000};

	nanosleep(&moment, NULL);
}

/* ---- memory that a thread reads ---- */

static void net_on_event(void *ctx, const struct apf_event *ev)
{
	struct net_vm *n = ctx;

	if (ev->kind == APF_EVENT_PAUSED)
		snprintf(n->paused, sizeof(n->paused), "%s", ev->text);
	__atomic_add_fetch(ev->kind == APF_EVENT_PAUSED ? &n->pauses : &n->resumes, 1,
			   __ATOMIC_ACQ_REL);
}

void net_vm_open(struct net_vm *n)
{
	memset(n, 0, sizeof(*n));
	vm_open(&n->v);
	n->v.config.retries_max = 1;
	n->v.config.on_event = net_on_event;
	n->v.config.on_event_ctx = n;
}

void net_vm_start(struct net_vm *n, const char *uri)
{
	vm_memory_with(&n->v, 4u << 20, NET_BYTES, uri);
}

static void *net_reader(void *arg)
{
	struct net_vm *n = arg;

	n->rc = apf_read(n->v.apf, (4u << 20) + n->at, n->got, n->bytes);
	__atomic_store_n(&n->over, true, __ATOMIC_RELEASE);
	return NULL;
}

void net_read_begin(struct net_vm *n, uint64_t at, uint64_t bytes)
{
	n->at = at;
	n->bytes = bytes;
	n->got = malloc(bytes);
	n->over = false;
	assert_non_null(n->got);
	assert_int_equal(pthread_create(&n->thread, NULL, net_reader, n), 0);
}

void net_read_end(struct net_vm *n, const unsigned char *image)
{
	assert_int_equal(pthread_join(n->thread, NULL), 0);
	assert_int_equal(n->rc, 0);
	assert_memory_equal(n->got, image + n->at, n->bytes);
	free(n->got);
}

void net_read(struct net_vm *n, uint64_t at, uint64_t bytes, const unsigned char *image)
{
	net_read_begin(n, at, bytes);
	net_read_end(n, image);
}

void net_wait_paused(struct net_vm *n)
{
	while (__atomic_load_n(&n->pauses, __ATOMIC_ACQUIRE) == 0)
		net_moment();
	print_message("paused: %s\n", n->paused);
}

void net_vm_close(struct net_vm *n)
{
	apf_close(n->v.apf);
	close(n->v.fd);
	close(n->v.kvm);
}
