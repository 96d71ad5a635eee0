/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who goes first, wherever reads wait on their way to a page source: in its queues, for threads
 * that read or decompress, for a server. Within a turn whoever came first is first.
 */
#ifndef PORT_TURN_H
#define PORT_TURN_H

enum turn {
	TURN_URGENT, /* somebody can do nothing else until it is there */
	TURN_DEMAND, /* somebody waits for it */
	TURN_AHEAD,  /* somebody is likely to, soon */
	TURN_FILL,   /* it may be of use */
	TURNS,
};

#endif
