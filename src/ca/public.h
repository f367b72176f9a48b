/* public.h - what of a CA may be read without the signer: its certificates. A snapshot: a rotation makes another one.
 *
 * Ownership: public_read … public_free.
 * Threads:   immutable.
 * Errors:    ERR_FATAL with the path. */
#ifndef CA_PUBLIC_H
#define CA_PUBLIC_H

#include "ca/files.h"

struct ca_public {
	struct ca_public *older; /* the snapshot before; for the owner */
	struct buf bundle;
	struct wall root_not_after;
	struct ca_issuer issuers[CA_ISSUERS_MAX]; /* the current one first */
	size_t issuer_count;
};

MUST_CHECK int public_read(const char *dir, struct ca_public **ret, struct err *e);
void public_free(struct ca_public *p);

/* NULL: none has this key. */
const struct ca_issuer *public_find(const struct ca_public *p, const uint8_t key_id[IDENTITY_KEY_ID_BYTES]);

#endif
