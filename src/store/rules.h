/* rules.h - what a row of the store may look like; store.c holds it against what comes in, the drivers
 * against what they read back.
 *
 * Each returns NULL, or what is wrong, in words that fit "…: %s" and quote nothing of the row.
 * Threads: any. */
#ifndef STORE_RULES_H
#define STORE_RULES_H

#include "store/store.h"

const char *rules_message(const struct store_message *m);
const char *rules_status(const struct store_status *s);
const char *rules_row(const struct store_row *row);
const char *rules_client(const struct store_client *c);
const char *rules_cert(const struct store_cert *c);
const char *rules_revoke(const struct store_revoke *r);
const char *rules_seen(const struct store_seen *s);
const char *rules_token(const struct store_token *t);
const char *rules_audit(const struct store_audit_row *row);

/* A serial number as RFC 5280 section 4.1.2.2 wants it: positive, at most 20 octets. */
bool rules_serial(const uint8_t *serial, unsigned serial_bytes);

/* What a use of this token at `now` comes to; `again`: by a key that has used it before. For drivers. */
enum store_token_outcome rules_token_outcome(const struct store_token *t, struct wall now, bool again);

/* Whether it was revoked, had expired or was used for the last time before this. For drivers. */
bool rules_token_ended(const struct store_token *t, struct wall before);

/* Brings *t up to what is known of it; false when it is as far already. For drivers. */
bool rules_token_restore(struct store_token *t, const struct store_token_restore *known);

/* Whether the index is known, that is not all zero. */
bool rules_index_known(const uint8_t index[STORE_INDEX_BYTES]);

#endif
