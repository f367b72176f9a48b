/* engines.h - store and queue of a process, on the engines that its configuration names.
 *
 * Errors: ERR_REJECT for what cannot be meant, ERR_FATAL for an engine that this build does not have; else the
 *         engine's own. */
#ifndef CLI_ENGINES_H
#define CLI_ENGINES_H

#include "base/config.h"
#include "cli/paths.h"
#include "queue/queue.h"
#include "store/store.h"

MUST_CHECK int engines_open_store(
	const struct paths *paths, const struct config *config, struct store **ret, struct err *e);

/* What a process needs of its queue. */
enum {
	QUEUE_SHARED = 1 << 0, /* processes elsewhere reach it too */
	QUEUE_SPOOLED = 1 << 1 /* another on disk takes over while it is away */
};
MUST_CHECK int engines_open_queue(const struct paths *paths, const struct config *config, unsigned needs,
	struct queue **ret, struct err *e);

#endif
