/* SPDX-License-Identifier: Apache-2.0 */
/* What is read before anybody waits for it: hst_plan and hst_fill, host.h. */
#ifndef HOST_PLAN_H
#define HOST_PLAN_H

#include "host/host.h"

void plan_init(struct hst *h);

#endif
