/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Real servers for tests: each in a folder of its own below the temporary one, on a free port or a
 * Unix socket, ended with the test, however that ends. Any failure fails the test. One thread.
 */
#ifndef TESTS_SERVICES_SERVICE_H
#define TESTS_SERVICES_SERVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define SVC_PATH_MAX 96

struct svc {
	char dir[SVC_PATH_MAX]; /* its sockets, configuration and log */
	pid_t pid;              /* 0: it does not run */
	int port;               /* 0: none */
};

/* Whether the program is installed; says so if not, and returns false. */
bool svc_have(const char *program);

/* A folder, which svc_close removes with all that is in it. */
void svc_open(struct svc *s);
/* dir/name, in to[SVC_PATH_MAX]. */
const char *svc_path(const struct svc *s, const char *name, char *to);
void svc_write(const struct svc *s, const char *name, const void *data, size_t len);
/* What odd_http.py is to do next, into the file `control`, which is never half of it. */
void svc_order(const struct svc *s, const char *control, const char *order);
/* A port that nobody listens on; into s->port. */
int svc_free_port(struct svc *s);

/* argv as of execvp; its output goes to dir/log. It dies with this process. */
void svc_start(struct svc *s, const char *const argv[]);
/* Waits until somebody listens on s->port of 127.0.0.1 or of that address, or on that socket. */
void svc_wait_port(const struct svc *s);
void svc_wait_addr(const struct svc *s, const char *addr);
void svc_wait_socket(const struct svc *s, const char *path);
/* What it has written so far, to be freed. */
char *svc_log(const struct svc *s);
/* SIGTERM, and waits for its end. Harmless where it does not run. */
void svc_stop(struct svc *s);
/* It stands still, and does not answer, until svc_go_on. */
void svc_stand_still(const struct svc *s);
void svc_go_on(const struct svc *s);
/* SIGKILL: gone, with whoever is connected. */
void svc_kill(struct svc *s);
/* svc_kill, and removes the folder. */
void svc_close(struct svc *s);

/* Runs a program to its end, which must be a good one. */
void svc_run(const struct svc *s, const char *const argv[]);
/*
 * In dir: ca.pem, and NAME.pem with NAME.key, signed by it, for the host `host` (a DNS name); days
 * below 0: expired. With file names that nbdkit and libnbd want: ca-cert.pem, server-cert.pem,
 * server-key.pem.
 */
void svc_certificates(const struct svc *s, const char *host, int days);

#endif
