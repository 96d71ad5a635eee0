/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gives every file of the folders on its command line to a fuzzing entry, once, and every
 * prefix of it: a corpus as a test, without libFuzzer.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_MAX (64u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A copy of exactly that size, so that a sanitizer sees what goes beyond. */
static void give(const uint8_t *bytes, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	if (!copy)
		abort();
	memcpy(copy, bytes, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
}

/* Adds to *executions. */
static int replay_file(const char *path, unsigned long *executions)
{
	static uint8_t bytes[INPUT_MAX];
	FILE *f = fopen(path, "rb");
	size_t size;

	if (!f) {
		perror(path);
		return -1;
	}
	size = fread(bytes, 1, sizeof(bytes), f);
	fclose(f);
	/* Headers at every length, what follows in larger steps. */
	for (size_t n = 0; n < size; n += n < 1024 ? 1 : 97, ++*executions)
		give(bytes, n);
	give(bytes, size);
	++*executions;
	return 0;
}

static int replay_folder(const char *folder, unsigned long *executions)
{
	DIR *d = opendir(folder);
	const struct dirent *entry;
	int files = 0;

	if (!d) {
		perror(folder);
		return -1;
	}
	while (files >= 0 && (entry = readdir(d))) {
		char path[4096];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		files = replay_file(path, executions) < 0 ? -1 : files + 1;
	}
	closedir(d);
	return files;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: %s FOLDER...\n", argv[0]);
		return 2;
	}
	for (int i = 1; i < argc; i++) {
		unsigned long executions = 0;
		int files = replay_folder(argv[i], &executions);

		/* An empty corpus would prove nothing. */
		if (files <= 0)
			return 1;
		printf("%s: %d files, %lu executions\n", argv[i], files, executions);
	}
	return 0;
}
