/* registry.h - the certificates that are allowed in, in memory: issuer and serial lead to a row or to nothing.
 *
 * The main server fills it from its store, a proxy from the main server's feed (and its copy on disk). A
 * certificate that chains to our CA but has no row is refused: it was never registered.
 *
 * Threads: any. A caller that remembers the generation of its last check takes no lock until something changes.
 * Cost:    registry_generation is one load; a check is a read lock and one hash look-up. Connections ask at every
 *          request, so a revocation takes effect at once on open connections too.
 * Bounds:  rows are as many as the store has certificates; registry_prune drops the expired ones. */
#ifndef TLS_REGISTRY_H
#define TLS_REGISTRY_H

#include "tls/identity.h"

struct registry;

enum registry_status { REGISTRY_ACTIVE, REGISTRY_REVOKED, REGISTRY_SUSPENDED, REGISTRY_UNKNOWN };

struct registry_row {
	uint8_t serial[IDENTITY_SERIAL_BYTES];
	unsigned serial_bytes;
	uint8_t issuer_key_id[IDENTITY_KEY_ID_BYTES];
	enum registry_status status;
	enum role role;
	struct str name, domain;
	struct wall not_after;
	int64_t change; /* the store's change number */
};

MUST_CHECK int registry_new(struct registry **ret, struct err *e);
void registry_free(struct registry *r);

/* Adds or replaces rows; all become visible at once. */
MUST_CHECK int registry_apply(
	struct registry *r, const struct registry_row *rows, size_t count, struct err *e);

/* The same, but what is revoked stays revoked, whatever the rows say: for a copy that is brought up to a main
 * server whose own memory may have gone back to an older backup. */
MUST_CHECK int registry_merge(
	struct registry *r, const struct registry_row *rows, size_t count, struct err *e);

/* Drops the rows of certificates that ended before `now`: the handshake refuses those by date. */
MUST_CHECK int registry_prune(struct registry *r, struct wall now, struct err *e);

/* The status of this certificate; name, domain and role of the row must agree with the certificate's, else
 * REGISTRY_UNKNOWN. */
enum registry_status registry_check(const struct registry *r, const struct identity *id);

/* Notes that the bearer of this certificate came with it; unknown ones are not noted. Not a change of the registry:
 * the generation stays. */
void registry_note_seen(const struct registry *r, const struct identity *id, struct wall at);

struct registry_seen {
	uint8_t serial[IDENTITY_SERIAL_BYTES];
	unsigned serial_bytes;
	uint8_t issuer_key_id[IDENTITY_KEY_ID_BYTES];
	struct wall at;
};

/* Takes out what was noted since the last call, at most `max`; returns how many. Costs nothing when nothing was. */
bool registry_any_seen(const struct registry *r);
size_t registry_take_seen(struct registry *r, struct registry_seen *ret, size_t max);

/* Rises with every apply and prune. Read it before a check: while it is unchanged, that check still holds. */
uint64_t registry_generation(const struct registry *r);

/* Highest change number applied; where the feed goes on. */
int64_t registry_change(const struct registry *r);
size_t registry_count(const struct registry *r);

/* Calls fn for every row, under the read lock: fn must not apply or check. */
void registry_each(struct registry *r, void (*fn)(void *arg, const struct registry_row *row), void *arg);

#endif
