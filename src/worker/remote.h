/* remote.h - a destination on another machine: the main server's POST /internal/messages/deliver.
 * Ownership: new/free; the worker that uses it is stopped first.
 * Threads:   sessions are one connection each, one delivery thread's. */
#ifndef WORKER_REMOTE_H
#define WORKER_REMOTE_H

#include "role/client.h"
#include "role/destination.h"

struct remote;

/* `name` of the worker, told with every delivery. The file names in *o stay with the caller until
 * remote_free; all else is copied: sessions open late, and a reload frees the configuration. */
MUST_CHECK int remote_new(
	const struct client_options *o, const char *name, struct remote **ret, struct err *e);
void remote_free(struct remote *r);
const struct destination *remote_destination(const struct remote *r);

#endif
