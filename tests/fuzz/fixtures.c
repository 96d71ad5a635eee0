/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fixtures of tests/unit for the entries that drive the driver: compiled apart, as their memory
 * is smaller here (RIG_SWAP_PAGES), and as the fuzzer is not to follow them.
 */
#include "driver.h"

UNFOLLOWED_BEGIN
#include "engine_fixture.c"
#include "host_fixture.c"
#include "host_sound.c"
#include "host_swap_fixture.c"
UNFOLLOWED_END
