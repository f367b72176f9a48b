/* remote.h - a destination on another machine: the main server's POST /internal/messages/deliver, and
 * PUT /internal/messages/{id}/status for what was not stored.
 *
 * Ownership: new/free; the worker that uses it is stopped first.
 * Threads:   sessions are one connection each, one delivery thread's; remote_reload from any thread. */
#ifndef WORKER_REMOTE_H
#define WORKER_REMOTE_H

#include "role/client.h"
#include "role/destination.h"

struct remote;

struct remote_options {
	struct client_options client;
	const char *name;   /* of the worker, told with every delivery */
	int64_t timeout_ms; /* of one delivery */
};

/* The file names stay with the caller until remote_free; all else is copied: sessions open late, and a reload
 * frees the configuration. */
MUST_CHECK int remote_new(const struct remote_options *o, struct remote **ret, struct err *e);
void remote_free(struct remote *r);
const struct destination *remote_destination(const struct remote *r);

/* Sessions make new connections for their next delivery, with the files as they are then. */
void remote_reload(struct remote *r);

#endif
