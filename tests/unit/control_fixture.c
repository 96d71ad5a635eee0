/* SPDX-License-Identifier: Apache-2.0 */
#include "control_fixture.h"

void vm_status(void *ctx, struct control_status *ret)
{
	struct vm *vm = ctx;

	atomic_fetch_add(&vm->statuses, 1);
	while (atomic_load(&vm->hold_status))
		sched_yield();
	snprintf(ret->state, sizeof(ret->state), "%s", vm->paused ? "paused" : "running");
	ret->counters.memory_bytes = MEMORY;
	ret->counters.resident_bytes = atomic_load(&vm->resident);
	ret->counters.resident_max_bytes = atomic_load(&vm->limit);
	ret->counters.evicted = atomic_load(&vm->evicted);
	ret->vcpu_count = CONTROL_VCPUS_MAX;
}

static int failure(struct vm *vm, struct err *e)
{
	int code = atomic_load(&vm->fail);

	return code ? err_sys(e, code, "it failed") : 0;
}

int vm_pause(void *ctx, struct err *e)
{
	struct vm *vm = ctx;

	atomic_store(&vm->statuses_then, atomic_load(&vm->statuses));
	if (failure(vm, e) == 0)
		atomic_store(&vm->paused, true);
	return atomic_load(&vm->fail);
}

int vm_resume(void *ctx, struct err *e)
{
	struct vm *vm = ctx;
	struct control *again = atomic_load(&vm->again);

	if (again) {
		control_tell(again, CONTROL_EVENT_RESUMED, "tried again");
		control_tell(again, CONTROL_EVENT_TROUBLE, "no room");
		return 0;
	}
	if (failure(vm, e) == 0)
		atomic_store(&vm->paused, false);
	return atomic_load(&vm->fail);
}

int vm_evict(void *ctx, uint64_t bytes, const atomic_bool *cancel,
	     uint64_t *ret_resident, struct err *e)
{
	struct vm *vm = ctx;
	bool cancelled = false;

	atomic_fetch_add(&vm->evicting, 1);
	while (atomic_load(&vm->hold) && !cancelled) {
		cancelled = atomic_load(cancel);
		sched_yield();
	}
	*ret_resident = max_u64(bytes, atomic_load(&vm->pinned));
	if (!cancelled)
		atomic_store(&vm->resident, *ret_resident);
	atomic_fetch_add(cancelled ? &vm->cancelled : &vm->evictions, 1);
	atomic_fetch_sub(&vm->evicting, 1);
	return cancelled ? err_set(e, -ECANCELED, "cancelled") : failure(vm, e);
}

int vm_stop(void *ctx, struct err *e)
{
	struct vm *vm = ctx;

	if (failure(vm, e) == 0)
		atomic_fetch_add(&vm->stops, 1);
	return atomic_load(&vm->fail);
}

int vm_limit(void *ctx, uint64_t bytes, struct err *e)
{
	struct vm *vm = ctx;

	if (failure(vm, e) == 0)
		atomic_store(&vm->limit, bytes);
	return atomic_load(&vm->fail);
}

static int vm_balloon_set(void *ctx, uint64_t bytes, struct err *e)
{
	struct vm *vm = ctx;

	if (failure(vm, e) == 0)
		atomic_store(&vm->balloon, bytes);
	return atomic_load(&vm->fail);
}

static int vm_balloon(void *ctx, uint64_t bytes, const atomic_bool *cancel, struct err *e)
{
	uint64_t resident;
	int rc = vm_evict(ctx, bytes, cancel, &resident, e);

	return rc < 0 ? rc : vm_balloon_set(ctx, bytes, e);
}

const struct control_ops vm_ops = {
	.status = vm_status,
	.pause = vm_pause,
	.resume = vm_resume,
	.evict = vm_evict,
	.balloon_set = vm_balloon_set,
	.balloon = vm_balloon,
	.stop = vm_stop,
	.limit = vm_limit,
};

void start(struct fixture *f, const struct control_ops *ops, uint32_t idle_ms)
{
	const struct control_cfg cfg = {.path = f->path, .idle_ms = idle_ms};
	struct err e;

	assert_int_equal(control_start(&cfg, ops, &f->vm, &f->c, &e), 0);
}

void restart(struct fixture *f, const struct control_ops *ops, uint32_t idle_ms)
{
	control_stop(f->c);
	start(f, ops, idle_ms);
}

int setup(void **state)
{
	struct fixture *f = test_calloc(1, sizeof(*f));

	snprintf(f->folder, sizeof(f->folder), "/tmp/control_test.XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->path, sizeof(f->path), "%s/s", f->folder);
	f->vm.resident = MEMORY;
	start(f, &vm_ops, 0);
	*state = f;
	return 0;
}

int teardown(void **state)
{
	struct fixture *f = *state;

	control_stop(f->c);
	/* Also: the socket is gone. */
	assert_int_equal(rmdir(f->folder), 0);
	test_free(f);
	return 0;
}

void client_open(struct client *k, const struct fixture *f)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", f->path);
	k->in.len = 0;
	k->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(k->fd, (const struct sockaddr *)&a, sizeof(a)), 0);
}

void wait_for(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	if (poll(&p, 1, HANG_MS) != 1)
		fail_msg("for %d ms the server neither %s nor hung up", HANG_MS,
			 events & POLLIN ? "sent a line" : "took what it was sent");
}

bool client_line(struct client *k, char line[static CONTROL_LINE_MAX])
{
	struct err e;
	int rc;

	while ((rc = control_lines_take(&k->in, line, &e)) == 0) {
		wait_for(k->fd, POLLIN);
		ssize_t n = recv(k->fd, k->in.buf + k->in.len, control_lines_room(&k->in), 0);

		assert_true(n >= 0 || errno == ECONNRESET);
		if (n <= 0)
			return false;
		k->in.len += (size_t)n;
	}
	assert_int_equal(rc, 1);
	return true;
}

void client_send(struct client *k, const void *bytes, size_t len)
{
	const char *at = bytes;

	while (len) {
		ssize_t n = send(k->fd, at, len, MSG_NOSIGNAL);

		if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
			return;
		assert_true(n > 0);
		at += n;
		len -= (size_t)n;
	}
}

void client_say(struct client *k, const char *text)
{
	client_send(k, text, strlen(text));
}

void expect_line(struct client *k, const char *want)
{
	char line[CONTROL_LINE_MAX];

	assert_true(client_line(k, line));
	assert_string_equal(line, want);
}

void expect_end(struct client *k)
{
	char line[CONTROL_LINE_MAX];

	assert_false(client_line(k, line));
	close(k->fd);
}

void client_answer(struct client *k, struct control_status *ret,
		   char last[static CONTROL_LINE_MAX])
{
	memset(ret, 0, sizeof(*ret));
	for (;;) {
		assert_true(client_line(k, last));
		if (strcmp(last, "ok") == 0 || strncmp(last, "error ", 6) == 0)
			return;
		assert_int_equal(control_status_parse(last, ret), 0);
	}
}

void client_hello(struct client *k, const struct fixture *f)
{
	client_open(k, f);
	expect_line(k, "asyncpf-control 1");
	client_say(k, "asyncpf-control 1\n");
}

void ask_ok(struct client *k, const char *request, struct control_status *ret)
{
	char last[CONTROL_LINE_MAX];

	client_say(k, request);
	client_answer(k, ret, last);
	assert_string_equal(last, "ok");
}

void ask_error(struct client *k, const char *request, const char *want)
{
	struct control_status s;
	char last[CONTROL_LINE_MAX];

	client_say(k, request);
	client_answer(k, &s, last);
	assert_string_equal(last, want);
}

void expect_alive(const struct fixture *f)
{
	struct control_status s;
	struct client k;

	client_hello(&k, f);
	ask_ok(&k, "status\n", &s);
	assert_int_equal(s.counters.memory_bytes, MEMORY);
	assert_int_equal(s.vcpu_count, CONTROL_VCPUS_MAX);
	close(k.fd);
}

unsigned open_files(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}
