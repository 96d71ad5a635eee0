/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adopted memory costs what is touched of it: a guest runs and ends there, a device of the VMM's
 * has read some of it, and the rest was never fetched, nor has it taken up any memory.
 */
#include "vm_fixture.h"
#include "need_kvm.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096u
#define RAM (32u << 20)
#define PAGES (RAM / PAGE)
#define STEP (1u << 20) /* the guest touches a page in each of these, from FIRST on */
#define FIRST (2u << 20)
#define TOUCHED ((RAM - FIRST) / STEP)
#define LOADED 6u /* pages: page 0, three of tables, the code, the guest's result */
#define DEVICE (FIRST + 5 * PAGE)

static void adopt(struct vm *v, struct apf_memory *m, const char *uri)
{
	apf_memory_init(m);
	m->bytes = RAM;
	m->fd = memfd_create("ram", MFD_CLOEXEC);
	assert_true(m->fd >= 0 && ftruncate(m->fd, RAM) == 0);
	m->vmm = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
	assert_ptr_not_equal(m->vmm, MAP_FAILED);
	if (apf_open(v->fd, &v->config, &v->apf, &v->error) < 0 ||
	    apf_memory_adopt(v->apf, m, &v->error) < 0 ||
	    apf_source_add(v->apf, 0, RAM, uri, 0, NULL, &v->error) < 0 ||
	    apf_start(v->apf, &v->error) < 0)
		fail_msg("%s", v->error.text);
	vm_tables(v);
	vm_slot(v, 0, 0, RAM, 0);
	vm_vcpu(v);
}

static unsigned present(struct vm *v)
{
	static unsigned char map[PAGES];
	unsigned n = 0;

	assert_int_equal(apf_residency(v->apf, 0, RAM, map), 0);
	for (unsigned i = 0; i < PAGES; i++)
		n += (map[i] & APF_BLOCK_PRESENT) != 0;
	return n;
}

static uint64_t reads(struct vm *v)
{
	uint64_t all[APF_COUNTER_IDS];

	apf_counters_get(v->apf, all, sizeof(all));
	return all[APF_COUNTER_ID_reads];
}

/* Of the memfd, in pages. */
static unsigned allocated(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (unsigned)(st.st_blocks / (PAGE / 512));
}

static void only_what_is_touched_is_fetched(void **state)
{
	struct apf_memory m;
	uint32_t sum = 0;
	char uri[64];
	struct vm v;
	int image;

	(void)state;
	image = vm_numbered_image(RAM, uri, sizeof(uri));
	vm_open(&v);
	adopt(&v, &m, uri);
	VM_USER(&v, 0xbb, 0x00, 0x00, 0x20, 0x00, /*        mov ebx, FIRST      */
		0x31, 0xff,                       /*        xor edi, edi        */
		0x03, 0x3b,                       /* again: add edi, [rbx]      */
		0x81, 0xc3, 0x00, 0x00, 0x10, 0x00, /*      add ebx, STEP       */
		0x81, 0xfb, 0x00, 0x00, 0x00, 0x02, /*      cmp ebx, RAM        */
		0x72, 0xf0,                         /*      jb again            */
		0x89, 0x3c, 0x25, 0x00, 0x80, 0x00, 0x00, /* mov [VM_WORD], edi */
		0xe6, VM_PORT);
	assert_int_equal(reads(&v), LOADED);
	vm_until_exit(&v, KVM_EXIT_IO);
	for (uint32_t at = FIRST; at < RAM; at += STEP)
		sum += at / PAGE;
	assert_int_equal(vm_word(&v), sum);
	assert_int_equal(reads(&v), LOADED + TOUCHED);
	assert_int_equal(present(&v), LOADED + TOUCHED);
	/* A device finds what it touches there, and brings no more than that. */
	assert_int_equal(*(uint32_t *)((char *)m.vmm + DEVICE), DEVICE / PAGE);
	assert_int_equal(*(uint32_t *)((char *)m.vmm + FIRST), FIRST / PAGE);
	assert_int_equal(reads(&v), LOADED + TOUCHED + 1);
	assert_int_equal(present(&v), LOADED + TOUCHED + 1);
	assert_int_equal(allocated(m.fd), LOADED + TOUCHED + 1);
	apf_close(v.apf);
	munmap(m.vmm, RAM);
	close(m.fd);
	close(image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {VM_TEST(only_what_is_touched_is_fetched)};

	need_kvm();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
