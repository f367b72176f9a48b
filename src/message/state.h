/* state.h - the states of a message and the moves between them: one table (states.def) that the HTTP answers,
 * the store, the metrics, doc/states.md and the tests read. */
#ifndef MESSAGE_STATE_H
#define MESSAGE_STATE_H

#include <stdbool.h>

#include "base/str.h"

enum message_state {
#define STATE(id, name, final, help) MESSAGE_##id,
#define MOVE(from, event, to, help)
#include "message/states.def"
#undef STATE
#undef MOVE
	MESSAGE_STATES
};

enum message_event {
	EVENT_LEASE,         /* a worker took it */
	EVENT_STORED,        /* the main server has it on disk */
	EVENT_RETRY,         /* retryable failure: due again later */
	EVENT_REJECT,        /* rejected, or attempts or lifetime used up */
	EVENT_LEASE_EXPIRED, /* the worker did not come back in time */
	EVENT_REDRIVE,       /* an operator puts a dead letter back */
	MESSAGE_EVENTS
};

/* "queued", … */
const char *message_state_name(enum message_state s);
MUST_CHECK bool message_state_parse(struct str s, enum message_state *ret);

/* The state after the event; false when the table has no such move. */
MUST_CHECK bool message_state_next(
	enum message_state from, enum message_event event, enum message_state *ret);

#endif
