/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tap interface of the host's behind a network device. The kernel reads frames from guest
 * memory and writes them there; checksums and the cutting of segments are left to whom the frame
 * reaches. Test: tests/unit/net_tap_test.c.
 */
#ifndef VMM_VIRTIO_NET_TAP_H
#define VMM_VIRTIO_NET_TAP_H

#include "base/err.h"
#include "vmm/virtio/net_backend.h"

#define NET_TAP_NAME_MAX 15u

struct net_tap {
	int fd;
};

/*
 * The interface of that name, which is made if we may and there is none, and then goes with us.
 * -EPERM: it is not ours; -EBUSY: another one has it; others. *ret_backend refers to ret.
 */
int net_tap_open(struct net_tap *ret, const char *name, struct net_backend *ret_backend,
		 struct err *e);
void net_tap_close(struct net_tap *t);

#endif
