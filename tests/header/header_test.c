/* SPDX-License-Identifier: Apache-2.0 */
/* The installed header alone, twice, as strict C11 and as C++: see meson.build. */
#include <asyncpf/asyncpf.h>
#include <asyncpf/asyncpf.h>

int main(void)
{
	struct apf_config c;

	apf_config_init(&c);
	return c.size == sizeof(c) && apf_version() ? 0 : 1;
}
