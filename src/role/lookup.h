/* lookup.h - how a proxy asks the main server what became of a message: in this process or over the network.
 * Ownership: the struct belongs to who asks, until done() has run.
 * Threads:   lookup_fn from an I/O loop, never blocks; done() on the thread of `loop`. */
#ifndef ROLE_LOOKUP_H
#define ROLE_LOOKUP_H

#include "base/inbox.h"
#include "loop/loop.h"
#include "message/state.h"
#include "message/uuid.h"

struct lookup {
	struct work work; /* the answering side's */
	void *server;     /* the answering side's */
	void (*done)(struct lookup *l);
	struct loop *loop;
	struct uuid id;
	char client_id[65]; /* only this client's messages are found */
	/* result */
	int result; /* 0, or <0 with err: ERR_NOT_FOUND, ERR_RETRY */
	struct err err;
	enum message_state state;
	struct wall accepted_at, delivered_at; /* .ms == 0: not delivered */
	unsigned attempt_count;
	char error_text[257];
	char domain[65];
};

typedef void lookup_fn(void *arg, struct lookup *l);

#endif
