/* crl.h - the certificate revocation lists that are published (RFC 5280 section 5), in memory and on disk: one of
 * each issuing CA, all signed at the same time.
 *
 * A list is signed after every revocation and at least once a day, and holds for a week: whoever fetches it
 * daily has days to notice that the main server is gone. When signing fails, it is tried again soon, and ever less
 * often up to once a minute. Our own listeners do not read the list, they ask the registry.
 *
 * Ownership: crl_open … crl_free; store and CA outlive it.
 * Threads:   any that may block; crl_copy from I/O loops too.
 * Errors:    those of store and CA; the list that is there stays. */
#ifndef SERVER_CRL_H
#define SERVER_CRL_H

#include "ca/ca.h"
#include "store/store.h"

struct crl;

enum { CRL_VALID_DAYS = 7 };

/* Takes the lists on disk, or signs them where one is missing, old, or lacks a revocation. Fails only without
 * memory: a CA that cannot sign is logged, and must not keep the server from starting. */
MUST_CHECK int crl_open(
	struct store *store, struct ca *ca, const struct clock *clock, struct crl **ret, struct err *e);
void crl_free(struct crl *c);

/* Returns once a list is published that holds every revocation made before the call. */
MUST_CHECK int crl_sign(struct crl *c, struct err *e);

/* The same, if the list is a day old, or if the last attempt failed. */
MUST_CHECK int crl_refresh(struct crl *c, struct err *e);

/* Whether an attempt failed and the next one is due: crl_refresh should be called soon. At once, from any thread. */
bool crl_is_overdue(struct crl *c);

enum crl_form {
	CRL_DER, /* of the current issuing CA */
	CRL_PEM, /* of all of them, the current one first */
	CRL_FORMS
};

struct crl_times {
	struct wall this_update, next_update;
};

/* Appends the list in this form; ret_times may be NULL. ERR_RETRY when there is none yet. */
MUST_CHECK int crl_copy(
	struct crl *c, enum crl_form form, struct buf *ret, struct crl_times *ret_times, struct err *e);

/* The list of one issuing CA, as DER; ERR_NOT_FOUND for an unknown one. */
MUST_CHECK int crl_copy_of(
	struct crl *c, const uint8_t issuer_key_id[IDENTITY_KEY_ID_BYTES], struct buf *ret, struct err *e);

#endif
