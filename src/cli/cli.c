/* SPDX-License-Identifier: Apache-2.0 */
/* See cli.h. */
#include "cli/cli.h"

#include <asyncpf/asyncpf.h>
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/types.h"
#include "cli/opts.h"

const char *const cli_io_names[] = {"auto", "uring", "threads", NULL};

_Static_assert(APF_IO_THREADS == ARRAY_LEN(cli_io_names) - 2, "one word per enum apf_io");

const char *const cli_sandbox_names[] = {"on", "strict", "off", NULL};

_Static_assert(CLI_SANDBOX_OFF == ARRAY_LEN(cli_sandbox_names) - 2, "one word for each");

#define LINE_BYTES 512

_Static_assert(LINE_BYTES + sizeof("asyncpf: \n") <= PIPE_BUF, "a pipe with room has it for one");

__attribute__((format(printf, 1, 0))) static void print_line(const char *fmt, va_list ap)
{
	char text[LINE_BYTES];

	vsnprintf(text, sizeof(text), fmt, ap);
	for (char *c = text; *c; c++)
		if (iscntrl((unsigned char)*c))
			*c = '?';
	fprintf(stderr, "asyncpf: %s\n", text);
}

int cli_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print_line(fmt, ap);
	va_end(ap);
	return CLI_FAILED;
}

void cli_note(const char *fmt, ...)
{
	struct pollfd err = {.fd = STDERR_FILENO, .events = POLLOUT};
	va_list ap;

	/* Two threads do not take the same room. */
	flockfile(stderr);
	if (poll(&err, 1, 0) == 1) {
		va_start(ap, fmt);
		print_line(fmt, ap);
		va_end(ap);
	}
	funlockfile(stderr);
}

/* What `asyncpf doctor` looks at; texts begin with what they are about. */
static bool is_of_the_host(const char *text)
{
	static const char *const subjects[] = {"kvm", "/dev/kvm", "vCPU", "userfaultfd",
					       "io_uring", "pagemap"};

	for (size_t i = 0; i < ARRAY_LEN(subjects); i++)
		if (strncmp(text, subjects[i], strlen(subjects[i])) == 0)
			return true;
	return false;
}

const char *cli_limit_advice(int code)
{
	switch (code) {
	case -ENOMEM:
		return "; free memory, or raise the limits (ulimit -v, ulimit -d)";
	case -EMFILE:
		return "; raise the limit of open files (ulimit -n)";
	case -ENFILE:
		return "; raise sysctl fs.file-max";
	case -EAGAIN: /* a thread or a process */
		return "; raise the limits of memory and processes (ulimit -v, "
		       "ulimit -d, ulimit -u)";
	case -EFBIG:
		return "; raise the limit of file sizes (ulimit -f)";
	default:
		return NULL;
	}
}

const char *cli_advice(const struct err *e)
{
	const char *limit = cli_limit_advice(e->code);

	if (strstr(e->text, "; "))
		return "";
	if (limit)
		return limit;
	switch (e->code) {
	case -ENOSPC:
		return "; free space there";
	case -ENOENT:
	case -ENOTDIR:
	case -EISDIR:
	case -ELOOP:
	case -ENAMETOOLONG:
	case -ENXIO: /* what is there is not to be opened */
		return "; check the path";
	case -EROFS:
		return "; name a place that may be written to";
	case -EACCES:
		return "; use it as somebody who may";
	case -ENOEXEC:
		return "; name a whole bzImage (vmlinuz) or ELF file (vmlinux) for x86";
	case -EBADMSG:
		return "; it is damaged, or something else: name another copy";
	case -ECONNREFUSED:
	case -EHOSTUNREACH:
	case -ENETUNREACH:
	case -ETIMEDOUT:
		return "; check the address, and whether the server runs";
	case -EIO: /* the guest's end, a device's, or a server's */
	case -EPIPE:
		return strncmp(e->text, "open ", 5) == 0 ? "; see asyncpf-sources(7)" : "";
	default:
		return is_of_the_host(e->text) ? "; see 'asyncpf doctor'" : "";
	}
}

/* What to do where a write to standard output failed for that errno. */
static const char *output_advice(int code)
{
	switch (code) {
	case EPIPE:
		return "let its reader read on, or redirect it elsewhere";
	case EBADF:
		return "redirect it to a file, or to /dev/null";
	default:
		return "free space or redirect it elsewhere";
	}
}

bool cli_output_arrived(void)
{
	int code;

	if (fflush(stdout) == 0 && !ferror(stdout))
		return true;
	code = errno;
	(void)cli_error("cannot write: standard output: %s; %s",
			code ? strerror(code) : "write error", output_advice(code));
	return false;
}

int cli_failed(const struct err *e)
{
	return cli_error("%s%s", e->text, cli_advice(e));
}

int cli_refused(const struct err *e)
{
	(void)cli_failed(e);
	return CLI_REFUSED;
}

void cli_wrapped(FILE *out, const char *text, unsigned at, unsigned indent)
{
	bool first = true; /* word of its line */

	while (*text) {
		size_t len = strcspn(text, " ");

		if (!first && at + 1 + len > CLI_COLUMNS) {
			fprintf(out, "\n%*s", (int)indent, "");
			at = indent;
		} else if (!first) {
			fputc(' ', out);
			at++;
		}
		first = false;
		fwrite(text, 1, len, out);
		at += (unsigned)len;
		text += len + (text[len] == ' ');
	}
	fputc('\n', out);
}

int cli_version(void)
{
	printf("asyncpf %s\n", APF_VERSION_TEXT);
	return CLI_OK;
}

int cli_begin(const struct opts *o, int argc, char **argv, void *into, int *ret_operand)
{
	struct err e = {0};

	switch (opts_parse(o, argc, argv, into, ret_operand, &e)) {
	case OPTS_HELP:
		opts_help(o, stdout);
		return CLI_OK;
	case OPTS_VERSION:
		return cli_version();
	case OPTS_BAD:
		cli_error("%s", e.text);
		return CLI_USAGE;
	case OPTS_RUN:
		break;
	}
	return -1;
}
