/* est.h - the device's side of enrolment (RFC 7030): keys, requests, and what the server answers.
 *
 * Threads:  none of its own; calls block up to their timeout.
 * Errors:   ERR_FORBIDDEN the server refused (its words follow), or is not whom we trust; ERR_RETRY it is away or
 *           busy; ERR_REJECT an answer that makes no sense.
 * Security: private keys stay in buffers that are wiped and in files of mode 0600; secrets go only to a server
 *           that chains to the anchors given. The server's words are cleaned before they get into an error. */
#ifndef CLI_EST_H
#define CLI_EST_H

#include "base/buf.h"
#include "tls/openssl.h"

struct est_peer {
	const char *url; /* https://HOST:8000 */
	struct str
		anchors; /* PEM of whom to trust; empty: anyone, for est_cacerts only, and to be judged by a pin */
	const char *cert, *key;    /* files of the client's certificate, NULL: none */
	const char *user, *secret; /* HTTP Basic, NULL: none */
	long timeout_ms;
};

/* Free with x509_stack_free. */
MUST_CHECK int est_cacerts(const struct est_peer *peer, STACK_OF(X509) * *ret, struct err *e);

/* `path` is "simpleenroll" or "simplereenroll". The subject is the server's to judge: it
 * must be that of the certificate that is renewed. *ret is one certificate, of exactly this key. */
MUST_CHECK int est_enroll(const struct est_peer *peer, const char *path, EVP_PKEY *key,
	const X509_NAME *subject, X509 **ret, struct err *e);

/* The certificates among `from` that a root in `roots` signed, and those of the roots that are still there,
 * roots first, as PEM: what a device may take over into its ca.pem. At least one root is there, or ERR_FORBIDDEN. */
MUST_CHECK int est_trusted(STACK_OF(X509) * from, STACK_OF(X509) * roots, struct buf *ret_pem, struct err *e);

/* Leaf and its issuer as PEM, after a check that a root among `authorities` vouches for both. */
MUST_CHECK int est_chain(X509 *leaf, STACK_OF(X509) * authorities, struct buf *ret_pem, struct err *e);

/* A private key in PEM. */
MUST_CHECK int est_key_read(struct str pem, EVP_PKEY **ret, struct err *e);

#endif
