/* journal.h - every revocation once more, in a file of its own that only grows. A store that is restored from a
 * backup knows nothing of what was revoked after the backup was made; the journal does, and the main server
 * revokes it again when it starts.
 *
 * One line each: issuer's key id and serial in hexadecimal, time, reason. What cannot be read, such as a line cut
 * off by a power failure, is passed over and counted.
 *
 * Ownership: open … close.
 * Threads:   any; blocks on disk.
 * Bounds:    some 64 bytes of memory and 130 of disk for each revocation. */
#ifndef SERVER_JOURNAL_H
#define SERVER_JOURNAL_H

#include "store/store.h"

struct journal;

/* Reads the file, which need not exist yet; *ret_unreadable lines were passed over. */
MUST_CHECK int journal_open(const char *path, struct journal **ret, unsigned *ret_unreadable, struct err *e);
void journal_close(struct journal *j); /* takes NULL */

struct journal_entry {
	struct store_cert_id cert;
	struct wall at;
	char reason[32];
};

/* Whether this certificate was revoked, and then how. */
bool journal_find(struct journal *j, const struct store_cert_id *cert, struct journal_entry *ret);

/* Notes a revocation; one that is there already changes nothing. Durable after journal_sync. */
MUST_CHECK int journal_add(struct journal *j, const struct journal_entry *entry, struct err *e);
MUST_CHECK int journal_sync(struct journal *j, struct err *e);

#endif
