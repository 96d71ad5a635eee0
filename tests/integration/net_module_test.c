/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The module of network sources: it is loaded with the first of them and not before, and where it
 * is not there, or is not ours, opening says so, and everything else works.
 */
#include "vm_fixture.h"
#include "need_kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/types.h"

/* Nobody listens at port 1. */
#define NOWHERE "nbd://127.0.0.1:1/x"

static char folder[] = "/tmp/asyncpf-net-module-XXXXXX";

static bool is_loaded(const char *library)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512];
	bool found = false;

	assert_non_null(f);
	while (!found && fgets(line, sizeof(line), f))
		found = strstr(line, library) != NULL;
	fclose(f);
	return found;
}

static void end(struct vm *v)
{
	apf_close(v->apf);
	close(v->fd);
	close(v->kvm);
}

/* The error of a first source; the VM has another kind of source afterwards. */
static void refused(const char *module, int code, const char *says)
{
	struct vm v;
	int rc;

	if (module)
		setenv("ASYNCPF_NET_MODULE", module, 1);
	else
		unsetenv("ASYNCPF_NET_MODULE");
	vm_open(&v);
	vm_memory(&v, NULL);
	rc = apf_source_add(v.apf, VM_DATA, VM_DATA_BYTES, NOWHERE, 0, NULL, &v.error);
	print_message("%s\n", v.error.text);
	assert_int_equal(rc, code);
	assert_non_null(strstr(v.error.text, "open " NOWHERE ": "));
	assert_non_null(strstr(v.error.text, says));
	assert_int_equal(apf_source_add(v.apf, VM_DATA, VM_DATA_BYTES, VM_ZERO, 0, NULL,
					&v.error), 0);
	end(&v);
}

static const char *in_folder(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static void is_not_there(void **state)
{
	(void)state;
	/* Beside this program there is none. */
	refused(NULL, -ENOTSUP, "there is no asyncpf-net.so");
	refused(in_folder("none.so"), -ENOTSUP, "none.so: cannot open");
}

static void is_something_else(void **state)
{
	FILE *f = fopen(in_folder("text.so"), "w");

	(void)state;
	assert_non_null(f);
	fputs("no module\n", f);
	fclose(f);
	refused(in_folder("text.so"), -ENOTSUP, "cannot load ");
	refused("libc.so.6", -ENOTSUP, "libc.so.6 is no module of asyncpf's");
	refused(OTHER_NET_MODULE, -ENOTSUP, "is of asyncpf 0.0.7-other, this is ");
}

static void comes_with_the_first_source(void **state)
{
	struct vm v;

	(void)state;
	setenv("ASYNCPF_NET_MODULE", NET_MODULE, 1);
	vm_open(&v);
	vm_memory(&v, VM_ZERO);
	assert_false(is_loaded("asyncpf-net"));
	assert_false(is_loaded("libnbd"));
	assert_false(is_loaded("libcurl"));
	end(&v);
	refused(NET_MODULE, -ECONNREFUSED, "onnect");
	assert_true(is_loaded("asyncpf-net"));
	/* It stays, and does for another VM. */
	refused(NET_MODULE, -ECONNREFUSED, "onnect");
}

static int make_folder(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	(void)state;
	(void)unlink(in_folder("text.so"));
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_not_there),
		cmocka_unit_test(is_something_else),
		cmocka_unit_test(comes_with_the_first_source),
	};

	need_kvm();
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
