/* lane.h - messages that wait for a lease, a client at a time: the front of what a driver keeps in order.
 *
 * Clients take turns, and each of them gets its own messages in order; so one client's flood costs the others one
 * message of it for each of theirs. A lane holds a window: at most a quota of each client's messages. What a
 * client has beyond that stays with the driver and is read when its quota runs low. So memory does not grow
 * with the backlog, and what was read of it once is looked at again only for clients that have more.
 *
 * Bounds:  about 4 * window entries, and some for each client when there are many clients.
 * Threads: one at a time. */
#ifndef QUEUE_LANE_H
#define QUEUE_LANE_H

#include <stdbool.h>

#include "base/str.h"
#include "queue/map.h"

enum schedule_lane { LANE_FRESH, LANE_RETRY, LANES };

struct schedule_entry {
	int64_t due_ms; /* LANE_FRESH: 0 */
	uint64_t key;
	uint32_t attempts;
	enum schedule_lane lane;
	uint32_t client; /* schedule_client of its name; clients that share one share their turns */
};

uint32_t schedule_client(struct str client_id);

struct lane_share; /* one client's */

struct lane {
	struct lane_share *shares; /* in order of their turns; some may be empty */
	size_t share_count, share_room, empty_count, behind_count;
	struct map place_of; /* client to place in shares, from 1 */
	size_t turn, count;
	size_t window;
	int64_t earliest_ms; /* nothing is due before */

	/* Everything up to `examined` that waits is here, or beyond its client's quota. */
	struct schedule_entry examined;
	bool complete; /* and there is nothing behind that */

	/* Reading once more, for clients that are short of what was left with the driver. */
	bool again;
	struct schedule_entry cursor;
	size_t wanting_count;
};

void lane_init(struct lane *lane, size_t window, uint64_t seed);
void lane_clear(struct lane *lane);

/* Empties it: everything has to be read again. */
void lane_forget(struct lane *lane);

/* A message that is new, or comes back. */
void lane_add(struct lane *lane, const struct schedule_entry *entry);

/* Whether something should be read from the driver, and what comes before it. */
bool lane_wants(struct lane *lane, struct schedule_entry *ret_after);

/* Each entry read, in order; and the end, when there are no more. */
MUST_CHECK int lane_offer(struct lane *lane, const struct schedule_entry *entry, bool leased, struct err *e);
void lane_end(struct lane *lane);

/* The next one that is due by now. */
MUST_CHECK bool lane_pop(struct lane *lane, int64_t now_ms, struct schedule_entry *ret);

/* The first one in order, of those in the window; NULL when it is empty. */
const struct schedule_entry *lane_first(const struct lane *lane);

#endif
