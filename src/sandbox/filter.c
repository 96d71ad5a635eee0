/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See filter.h. The programs are made once and loaded by each thread with one system call:
 * seccomp_load() would make them anew each time, in threads that are to allocate nothing.
 * They are binary trees: a call costs the same wherever in the table it stands, and the kernel
 * does not run them at all for calls that are always allowed (Linux 5.11).
 */
#include "sandbox/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/types.h"
#include "sandbox/calls.h"

#define OPTIMIZE_BINARY_TREE 2

static int add_call(scmp_filter_ctx ctx, const struct sandbox_call *c)
{
	uint32_t action = c->refusal ? SCMP_ACT_ERRNO(-c->refusal) : SCMP_ACT_ALLOW;
	struct scmp_arg_cmp cmp = {.arg = c->arg, .op = SCMP_CMP_MASKED_EQ};

	switch (c->when) {
	case CALL_ALWAYS:
		return seccomp_rule_add(ctx, action, c->nr, 0);
	case CALL_IF_OWN_PID:
		cmp.datum_a = UINT32_MAX;
		cmp.datum_b = (scmp_datum_t)getpid();
		break;
	case CALL_IF_EQUAL:
		cmp.datum_a = c->mask;
		cmp.datum_b = c->value;
		break;
	}
	return seccomp_rule_add_array(ctx, action, c->nr, 1, &cmp);
}

static int add_role(scmp_filter_ctx ctx, enum sandbox_role role)
{
	bool makes_threads = false;
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < sandbox_calls_count; i++) {
		const struct sandbox_call *c = &sandbox_calls[i];

		if (!(c->roles >> role & 1))
			continue;
		makes_threads |= c->nr == SYS_clone;
		rc = add_call(ctx, c);
	}
	/* What it would make is behind a pointer; clone() is what the C library tries next. */
	if (rc == 0 && makes_threads)
		rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SYS_clone3, 0);
	return rc;
}

/* The role goes where libseccomp has no parameter: the low half of what a trap returns. */
static void mark(struct sandbox_filter *f, enum sandbox_role role)
{
	for (unsigned i = 0; i < f->count; i++)
		if (f->insns[i].code == (BPF_RET | BPF_K) && f->insns[i].k == SECCOMP_RET_TRAP)
			f->insns[i].k |= (uint32_t)role;
}

/*
 * libseccomp 2.5 writes a program to a descriptor only: a pipe, which is under no limit of file
 * sizes, and fails instead of waiting should it be too small.
 */
static int take_program(scmp_filter_ctx ctx, struct sandbox_filter *ret)
{
	struct sock_filter insns[BPF_MAXINSNS];
	ssize_t bytes = 0;
	int ends[2];
	int rc;

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	rc = seccomp_export_bpf(ctx, ends[1]);
	if (rc == 0)
		bytes = read(ends[0], insns, sizeof(insns));
	if (rc == 0 && bytes < 0)
		rc = -errno;
	close(ends[0]);
	close(ends[1]);
	if (rc < 0)
		return rc;
	ret->insns = malloc((size_t)bytes);
	if (!ret->insns)
		return -ENOMEM;
	memcpy(ret->insns, insns, (size_t)bytes);
	ret->count = (unsigned short)((size_t)bytes / sizeof(insns[0]));
	return 0;
}

int sandbox_filter_make(enum sandbox_role role, struct sandbox_filter *ret, struct err *e)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_TRAP);
	int rc;

	*ret = (struct sandbox_filter){.insns = NULL};
	if (!ctx)
		return err_sys(e, -ENOMEM, "sandbox: filter");
	rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, OPTIMIZE_BINARY_TREE);
	/* Calls by another architecture's numbers are as forbidden as any other. */
	if (rc == 0)
		rc = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_TRAP);
	if (rc == 0)
		rc = add_role(ctx, role);
	if (rc == 0)
		rc = take_program(ctx, ret);
	seccomp_release(ctx);
	if (rc < 0) {
		sandbox_filter_free(ret);
		return err_sys(e, rc, "sandbox: filter of role %s", sandbox_role_name(role));
	}
	mark(ret, role);
	return 0;
}

void sandbox_filter_free(struct sandbox_filter *f)
{
	free(f->insns);
	f->insns = NULL;
}

int sandbox_filter_load(const struct sandbox_filter *f)
{
	const struct sock_fprog program = {.len = f->count, .filter = f->insns};

	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0 ? -errno : 0;
}
