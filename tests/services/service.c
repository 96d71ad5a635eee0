/* SPDX-License-Identifier: Apache-2.0 */
/* See service.h. */
#include "service.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MS 20000

bool svc_have(const char *program)
{
	static const char *const folders[] = {"/usr/bin", "/usr/sbin", "/bin", "/usr/local/bin"};
	char path[SVC_PATH_MAX];

	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", folders[i], program);
		if (access(path, X_OK) == 0)
			return true;
	}
	print_message("not installed, so not tried: %s\n", program);
	return false;
}

void svc_open(struct svc *s)
{
	const char *tmp = getenv("TMPDIR");

	*s = (struct svc){.pid = 0};
	snprintf(s->dir, sizeof(s->dir), "%s/apf-svc-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(s->dir));
	/* A server may be another user's when it serves. */
	assert_int_equal(chmod(s->dir, 0755), 0);
}

const char *svc_path(const struct svc *s, const char *name, char *to)
{
	assert_true(strlen(s->dir) + strlen(name) + 2 <= SVC_PATH_MAX);
	snprintf(to, SVC_PATH_MAX, "%.60s/%.30s", s->dir, name);
	return to;
}

void svc_write(const struct svc *s, const char *name, const void *data, size_t len)
{
	char path[SVC_PATH_MAX];
	int fd = open(svc_path(s, name, path), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	close(fd);
}

void svc_order(const struct svc *s, const char *control, const char *order)
{
	char to[SVC_PATH_MAX];

	svc_write(s, "next", order, strlen(order));
	assert_int_equal(rename(svc_path(s, "next", to), control), 0);
}

int svc_free_port(struct svc *s)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
	close(fd);
	s->port = ntohs(at.sin_port);
	return s->port;
}

static void child(const struct svc *s, const char *const argv[], pid_t parent)
{
	char path[SVC_PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%.60s/log", s->dir);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
	(void)dup2(fd, 1);
	(void)dup2(fd, 2);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() == parent)
		execvp(argv[0], (char *const *)argv);
	_exit(127);
}

void svc_start(struct svc *s, const char *const argv[])
{
	pid_t parent = getpid();

	assert_int_equal(s->pid, 0);
	s->pid = fork();
	assert_true(s->pid >= 0);
	if (s->pid == 0)
		child(s, argv, parent);
}

char *svc_log(const struct svc *s)
{
	char path[SVC_PATH_MAX];
	char *text = calloc(1, 65536);
	int fd = open(svc_path(s, "log", path), O_RDONLY | O_CLOEXEC);

	assert_non_null(text);
	if (fd >= 0) {
		assert_true(read(fd, text, 65535) >= 0);
		close(fd);
	}
	return text;
}

void svc_run(const struct svc *s, const char *const argv[])
{
	struct svc once = *s;
	int status = 0;

	once.pid = 0;
	svc_start(&once, argv);
	assert_int_equal(waitpid(once.pid, &status, 0), once.pid);
	if (status != 0) {
		char *log = svc_log(s);

		print_error("%s: status %#x: %s\n", argv[0], (unsigned)status, log);
		free(log);
	}
	assert_int_equal(status, 0);
}

static void wait_for(const struct svc *s, const struct sockaddr *at, socklen_t len)
{
	const struct timespec moment = {.tv_nsec = 2000000};

	for (int i = 0; i < WAIT_MS / 2; i++) {
		int fd = socket(at->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		int rc = connect(fd, at, len);

		close(fd);
		if (rc == 0)
			return;
		if (waitpid(s->pid, NULL, WNOHANG) == s->pid)
			break;
		nanosleep(&moment, NULL);
	}
	char *log = svc_log(s);

	print_error("the server does not listen: %s\n", log);
	free(log);
	fail();
}

void svc_wait_addr(const struct svc *s, const char *addr)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)s->port)};

	assert_int_equal(inet_pton(AF_INET, addr, &at.sin_addr), 1);
	wait_for(s, (const struct sockaddr *)&at, sizeof(at));
}

void svc_wait_port(const struct svc *s)
{
	svc_wait_addr(s, "127.0.0.1");
}

void svc_wait_socket(const struct svc *s, const char *path)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};

	snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
	wait_for(s, (const struct sockaddr *)&at, sizeof(at));
}

void svc_stand_still(const struct svc *s)
{
	int status = 0;

	assert_int_equal(kill(s->pid, SIGSTOP), 0);
	assert_int_equal(waitpid(s->pid, &status, WUNTRACED), s->pid);
	assert_true(WIFSTOPPED(status));
}

void svc_go_on(const struct svc *s)
{
	assert_int_equal(kill(s->pid, SIGCONT), 0);
}

static void end(struct svc *s, int signal)
{
	if (s->pid == 0)
		return;
	kill(s->pid, signal);
	assert_int_equal(waitpid(s->pid, NULL, 0), s->pid);
	s->pid = 0;
}

void svc_stop(struct svc *s)
{
	end(s, SIGTERM);
}

void svc_kill(struct svc *s)
{
	end(s, SIGKILL);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

void svc_close(struct svc *s)
{
	svc_kill(s);
	assert_int_equal(nftw(s->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

void svc_certificates(const struct svc *s, const char *host, int days)
{
	static const char script[] =
		"set -e; cd \"$1\"\n"
		"openssl req -x509 -newkey rsa:2048 -nodes -keyout ca-key.pem -out ca-cert.pem "
		"-days 2 -subj '/CN=test CA' -addext basicConstraints=critical,CA:TRUE "
		"-addext keyUsage=critical,keyCertSign\n"
		"openssl req -newkey rsa:2048 -nodes -keyout server-key.pem -out server.csr "
		"-subj \"/CN=$2\"\n"
		"echo \"subjectAltName=DNS:$2\" > server.ext\n"
		"openssl x509 -req -in server.csr -CA ca-cert.pem -CAkey ca-key.pem "
		"-CAcreateserial -out server-cert.pem -days \"$3\" -extfile server.ext\n";
	char n[16];
	const char *const argv[] = {"sh", "-c", script, "sh", s->dir, host, n, NULL};

	snprintf(n, sizeof(n), "%d", days);
	svc_run(s, argv);
}
