/* SPDX-License-Identifier: Apache-2.0 */
/* A page that the kernel takes for lost to a memory error: CONFIG_MEMORY_FAILURE, and root. */
#ifndef TESTS_INTEGRATION_LOSE_PAGE_H
#define TESTS_INTEGRATION_LOSE_PAGE_H

#include <errno.h>
#include <signal.h>
#include <stddef.h>
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

#endif
