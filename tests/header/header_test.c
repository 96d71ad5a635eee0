/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The installed header alone, twice, as strict C11 and as C++: see meson.build. Each struct that a
 * caller fills in has a function that makes it empty, whatever was there, and sets its size.
 */
#include <asyncpf/asyncpf.h>
#include <asyncpf/asyncpf.h>
#include <string.h>

static int is_empty_behind(const void *s, size_t from, size_t to)
{
	const unsigned char *p = (const unsigned char *)s;

	while (from < to && p[from] == 0)
		from++;
	return from >= to;
}

/* All of it but the size is 0. */
#define CHECK_EMPTY(type)                                                                          \
	do {                                                                                       \
		struct type s;                                                                     \
		memset(&s, 0xa5, sizeof(s));                                                       \
		type##_init(&s);                                                                   \
		if (s.size != sizeof(s) || !is_empty_behind(&s, sizeof(s.size), sizeof(s)))        \
			return 1;                                                                  \
	} while (0)

int main(void)
{
	struct apf_config c;
	struct apf_memory m;
	struct apf_wait w;

	apf_config_init(&c);
	if (c.size != sizeof(c) || !apf_version())
		return 1;
	memset(&m, 0xa5, sizeof(m));
	apf_memory_init(&m);
	if (m.size != sizeof(m) || m.fd != -1)
		return 1;
	m.fd = 0;
	if (!is_empty_behind(&m, sizeof(m.size), sizeof(m)))
		return 1;
	memset(&w, 0xa5, sizeof(w));
	apf_wait_init(&w);
	if (w.size != sizeof(w) || w.timeout_ns >= 0 || w.vcpu)
		return 1;
	CHECK_EMPTY(apf_source_config);
	CHECK_EMPTY(apf_stats);
	CHECK_EMPTY(apf_vcpu_stats);
	return 0;
}
