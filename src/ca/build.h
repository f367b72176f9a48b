/* build.h - X.509 certificates and CRLs as this CA makes them (RFC 5280). Runs in the signer.
 *
 * Everything in a certificate comes from here or from the facts passed in, which are checked; nothing is
 * copied from a request. Roles, key usages and key policy are those of tls/identity.h.
 *
 * Threads: none of its own. Errors: ERR_REJECT for the facts, ERR_FATAL for OpenSSL. */
#ifndef CA_BUILD_H
#define CA_BUILD_H

#include "ca/ca.h"
#include "tls/openssl.h"

struct build_authority {
	X509 *cert;
	EVP_PKEY *key;
};

void build_authority_clear(struct build_authority *a);

struct build_validity {
	struct wall not_before, not_after;
};

/* Self-signed: "Sealpost Root CA 5f0c…", path length 1. */
MUST_CHECK int build_root(
	EVP_PKEY *key, const char *trust_domain, struct build_validity validity, X509 **ret, struct err *e);

/* Under the root: "Sealpost Issuing CA 5f0c…", path length 0. */
MUST_CHECK int build_issuing(const struct build_authority *root, EVP_PKEY *key, const char *trust_domain,
	struct build_validity validity, X509 **ret, struct err *e);

struct build_policy {
	const char *trust_domain;
	/* Without it, leaves name no CRL and no issuer's certificate; see build_public_url_valid. */
	const char *public_url;
};

/* http:// or https://, a host, maybe a path; short and of plain characters, as it goes into certificates. */
bool build_public_url_valid(struct str url);

/* Checks every fact of the request but its days. */
MUST_CHECK int build_leaf(const struct build_authority *issuer, const struct build_policy *policy,
	const struct ca_request *request, struct build_validity validity, X509 **ret, struct err *e);

struct build_revoked {
	uint8_t serial[IDENTITY_SERIAL_BYTES];
	unsigned serial_bytes;
	struct wall at;
	int reason; /* CRLReason */
};

MUST_CHECK int build_crl(const struct build_authority *issuer, const struct build_revoked *entries,
	size_t count, uint64_t number, struct wall this_update, struct wall next_update, X509_CRL **ret,
	struct err *e);

#endif
