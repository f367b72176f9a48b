/* journal.h - every revocation once more, and every use of an enrolment token, in a file of its own that only grows.
 * A store that is restored from a backup knows nothing of what was revoked or used after the backup was made; the
 * journal does, and the main server makes up for it when it starts.
 *
 * One line each:
 *	KEY_ID SERIAL TIME REASON       a certificate: its issuer's key id and its serial, in hexadecimal
 *	token ID TIME used N            a token was used for the Nth time
 *	token ID TIME revoked
 * What cannot be read, such as a line cut off by a power failure, is passed over and counted.
 *
 * Ownership: open … close.
 * Threads:   any; blocks on disk.
 * Bounds:    some 100 bytes of memory for each revoked certificate and each token, 130 of disk for each line. */
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

/* What became of an enrolment token. */
struct journal_token {
	uint8_t id[STORE_TOKEN_ID_BYTES];
	unsigned uses;
	struct wall used_at, revoked_at; /* .ms == 0: not */
};

/* False: neither used nor revoked. */
bool journal_find_token(struct journal *j, const uint8_t *id, struct journal_token *ret);

/* Notes what of this is more than it knows: uses only grow in number, and revoked is for good. Durable after
 * journal_sync. */
MUST_CHECK int journal_add_token(struct journal *j, const struct journal_token *token, struct err *e);

MUST_CHECK int journal_sync(struct journal *j, struct err *e);

#endif
