/* copy.h - a proxy's certificate registry on disk, so that it starts and works while the main server is away.
 *
 * The file is a log, one JSON object a line: rows of the registry, and after each page of them a mark that
 * says how far the proxy is in which of the main server's histories. What follows the last mark counts too,
 * and is asked for again. A torn last line (power loss) is cut off; a line that is damaged otherwise is
 * skipped and the mark forgotten, so that everything is asked for again. The log is written anew when it has
 * grown to twice what it holds, or when it could not be written: a change that is missing there must not be
 * followed by a later mark.
 *
 * Ownership: open/close; the registry outlives the copy.
 * Threads:   one at a time.
 * Errors:    ERR_FATAL from copy_open: the file cannot be read or made. ERR_RETRY from copy_add: not on disk
 *            now; the next copy_add writes everything. */
#ifndef PROXY_COPY_H
#define PROXY_COPY_H

#include "tls/registry.h"

enum { COPY_EPOCH_BYTES = 32 };

/* How far in which history: see server/feed.c. */
struct copy_mark {
	char epoch[COPY_EPOCH_BYTES + 1]; /* "": none, ask from the start */
	int64_t change;
};

struct copy;

/* Merges what the file holds into the registry; no file is an empty one. *ret_damaged counts skipped lines. */
MUST_CHECK int copy_open(
	const char *path, struct registry *registry, struct copy **ret, size_t *ret_damaged, struct err *e);
void copy_close(struct copy *c);

/* The last mark on disk, or the last one that copy_add was given. */
const struct copy_mark *copy_mark(const struct copy *c);

/* Writes down rows that are in force already, and how far that is. On disk when it returns 0. No rows and the
 * same mark: the main server has confirmed that there is nothing new. */
MUST_CHECK int copy_add(struct copy *c, const struct registry_row *rows, size_t count,
	const struct copy_mark *mark, struct err *e);

/* When the main server last confirmed or changed it; .ms == 0: not known. */
struct wall copy_confirmed_at(const struct copy *c);

#endif
