/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A page fault handler of the shape that examples have, to measure against: one thread, and for
 * each fault a pread and a copy, one after the other. For as many VMs as come.
 *
 * usage: plain_pager SOCKET FILE [DELAY_US]
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PAGE 4096u
#define VMS_MAX 256

struct vm {
	int uffd;
	uint64_t hva;
};

static struct vm vms[VMS_MAX];
static int vm_count;

static _Noreturn void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void take_vm(int listener, int poller)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	char text[4096] = "", *at;
	struct iovec to = {text, sizeof(text) - 1};
	struct msghdr m = {.msg_iov = &to, .msg_iovlen = 1, .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	struct epoll_event ev = {.events = EPOLLIN};
	struct vm *vm = &vms[vm_count];
	int fd = accept(listener, NULL, NULL);

	if (fd < 0 || recvmsg(fd, &m, 0) <= 0 || !CMSG_FIRSTHDR(&m) || vm_count == VMS_MAX)
		fail("handshake");
	memcpy(&vm->uffd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(vm->uffd));
	at = strstr(text, "base_host_virt_addr\":");
	vm->hva = at ? strtoull(strchr(at, ':') + 1, NULL, 10) : 0;
	ev.data.ptr = vm;
	if (epoll_ctl(poller, EPOLL_CTL_ADD, vm->uffd, &ev) < 0)
		fail("epoll");
	vm_count++;
}

static void serve(const struct vm *vm, int image, useconds_t delay_us)
{
	static unsigned char page[PAGE] __attribute__((aligned(PAGE)));
	struct uffdio_copy copy = {.src = (uintptr_t)page, .len = PAGE};
	struct uffd_msg msg;

	if (read(vm->uffd, &msg, sizeof(msg)) != sizeof(msg) || msg.event != UFFD_EVENT_PAGEFAULT)
		return;
	copy.dst = msg.arg.pagefault.address & ~(uint64_t)(PAGE - 1);
	if (delay_us)
		usleep(delay_us);
	if (pread(image, page, PAGE, (off_t)(copy.dst - vm->hva)) != PAGE)
		fail("pread");
	if (ioctl(vm->uffd, UFFDIO_COPY, &copy) < 0 && errno != EEXIST && errno != ESRCH)
		fail("UFFDIO_COPY");
}

int main(int argc, char **argv)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct epoll_event ev = {.events = EPOLLIN}, events[64];
	int listener = socket(AF_UNIX, SOCK_STREAM, 0), poller = epoll_create1(0);
	useconds_t delay_us = argc > 3 ? (useconds_t)atoi(argv[3]) : 0;
	int image = argc > 2 ? open(argv[2], O_RDONLY) : -1;

	if (image < 0)
		fail("image");
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", argv[1]);
	if (bind(listener, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(listener, 64) < 0 ||
	    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &ev) < 0)
		fail("listen");
	for (;;) {
		int n = epoll_wait(poller, events, 64, -1);

		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr)
				serve(events[i].data.ptr, image, delay_us);
			else
				take_vm(listener, poller);
		}
	}
}
