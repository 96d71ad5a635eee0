/* SPDX-License-Identifier: Apache-2.0 */
/* A page that the kernel takes for lost to a memory error: CONFIG_MEMORY_FAILURE, and root. */
#ifndef TESTS_INTEGRATION_LOSE_PAGE_H
#define TESTS_INTEGRATION_LOSE_PAGE_H

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static inline void lose_page_pass_over(int sig)
{
	(void)sig;
}

/* 0 or -Exxx. The kernel tells whoever asks for it by SIGBUS, which must not be blocked then. */
static inline int lose_page(void *page)
{
	struct sigaction before, sa = {.sa_handler = lose_page_pass_over};
	sigset_t bus, mask;
	int rc;

	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	(void)sigaction(SIGBUS, &sa, &before);
	(void)pthread_sigmask(SIG_UNBLOCK, &bus, &mask);
	rc = madvise(page, 4096, MADV_HWPOISON) < 0 ? -errno : 0;
	(void)pthread_sigmask(SIG_SETMASK, &mask, NULL);
	(void)sigaction(SIGBUS, &before, NULL);
	return rc;
}

/* Ends the program, skipped, where this kernel cannot lose a page at all. */
static inline void lose_page_needed(void)
{
	char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int rc = p == MAP_FAILED ? -errno : 0;

	if (rc == 0) {
		*(volatile char *)p = 1;
		rc = lose_page(p);
	}
	if (rc < 0) {
		printf("SKIP: MADV_HWPOISON: %s\n", strerror(-rc));
		exit(77);
	}
	munmap(p, 4096);
}

#endif
