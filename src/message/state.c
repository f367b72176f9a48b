/* state.c - see state.h. Everything is read from states.def. */
#include "message/state.h"

#include <stddef.h>

static const char *const names[MESSAGE_STATES] = {
#define STATE(id, name, final, help) [MESSAGE_##id] = name,
#define MOVE(from, event, to, help)
#include "message/states.def"
#undef STATE
#undef MOVE
};

static const struct move {
	enum message_state from;
	enum message_event event;
	enum message_state to;
} moves[] = {
#define STATE(id, name, final, help)
#define MOVE(from, event, to, help) {MESSAGE_##from, EVENT_##event, MESSAGE_##to},
#include "message/states.def"
#undef STATE
#undef MOVE
};

const char *message_state_name(enum message_state s)
{
	return (unsigned)s < MESSAGE_STATES ? names[s] : "unknown";
}

bool message_state_parse(struct str s, enum message_state *ret)
{
	for (unsigned i = 0; i < MESSAGE_STATES; i++) {
		if (str_eq(s, str_of(names[i]))) {
			*ret = (enum message_state)i;
			return true;
		}
	}
	return false;
}

bool message_state_next(enum message_state from, enum message_event event, enum message_state *ret)
{
	for (size_t i = 0; i < ARRAY_LEN(moves); i++) {
		if (moves[i].from == from && moves[i].event == event) {
			*ret = moves[i].to;
			return true;
		}
	}
	return false;
}
