/* SPDX-License-Identifier: Apache-2.0 */
/* Lines on the console, small files, the clock. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

#define LINE_MAX_BYTES 2048

__attribute__((format(printf, 2, 0)))
static void say_v(const char *prefix, const char *format, va_list words, const char *suffix)
{
	char line[LINE_MAX_BYTES];
	int n = snprintf(line, sizeof(line), "guest: %s", prefix);

	n += vsnprintf(line + n, sizeof(line) - (unsigned)n, format, words);
	if (n < (int)sizeof(line))
		n += snprintf(line + n, sizeof(line) - (unsigned)n, "%s\n", suffix);
	if (n >= (int)sizeof(line)) {
		n = sizeof(line);
		line[n - 1] = '\n';
	}
	/* A console that takes nothing leaves nobody to tell. */
	if (write(STDOUT_FILENO, line, (size_t)n) < 0)
		return;
}

void say(const char *format, ...)
{
	va_list words;

	va_start(words, format);
	say_v("", format, words, "");
	va_end(words);
}

enum outcome say_failed(const char *format, ...)
{
	char suffix[96];
	va_list words;

	snprintf(suffix, sizeof(suffix), ": %s", strerror(errno));
	va_start(words, format);
	say_v("failed: ", format, words, suffix);
	va_end(words);
	return UNWELL;
}

int slurp(const char *path, char *text, unsigned size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	unsigned have = 0;
	ssize_t n = -1;

	if (fd < 0)
		return -1;
	while (have < size - 1 && (n = read(fd, text + have, size - 1 - have)) > 0)
		have += (unsigned)n;
	close(fd);
	text[have] = 0;
	return n < 0 ? -1 : (int)have;
}

int poke(const char *path, const char *word)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = write(fd, word, strlen(word));
	close(fd);
	return n < 0 ? -1 : 0;
}

void sleep_until(uint64_t ns)
{
	struct timespec when = {.tv_sec = (time_t)(ns / 1000000000u),
				.tv_nsec = (long)(ns % 1000000000u)};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL) == EINTR)
		;
}

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
