/* audit.h - the hash that chains audit rows: the same for every driver. Encoding: store.h. */
#ifndef STORE_AUDIT_H
#define STORE_AUDIT_H

#include "store/store.h"

/* ERR_RETRY when the crypto library has no memory. `row->hash` is not read. */
MUST_CHECK int audit_hash(const uint8_t previous[STORE_HASH_BYTES], const struct store_audit_row *row,
	uint8_t ret[STORE_HASH_BYTES], struct err *e);

#endif
