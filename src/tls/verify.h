/* verify.h - the one verdict on a certificate: chain, time, profile, role, registry. Every listener asks it
 * in the handshake, and `cert verify` prints it step by step.
 *
 * Trust anchors are the store's self-signed certificates; every other one on the way must prove itself. The
 * chain is built and checked by OpenSSL (RFC 5280 section 6, strict flags); what it lets pass, the profile
 * stops.
 *
 * Threads: any; policy and store are only read. */
#ifndef TLS_VERIFY_H
#define TLS_VERIFY_H

#include <openssl/x509_vfy.h>

#include "tls/identity.h"
#include "tls/registry.h"

enum verify_outcome {
	VERIFY_ACCEPTED,
	VERIFY_UNKNOWN_CA,
	VERIFY_CHAIN, /* forged, or not a chain that RFC 5280 allows */
	VERIFY_EXPIRED,
	VERIFY_NOT_YET_VALID,
	VERIFY_PURPOSE, /* not a certificate for this side of TLS */
	VERIFY_PROFILE,
	VERIFY_ROLE, /* not a role that this listener lets in */
	VERIFY_REVOKED,
	VERIFY_SUSPENDED,
	VERIFY_UNREGISTERED,
	VERIFY_INTERNAL, /* out of memory */
	VERIFY_OUTCOMES
};

/* "unknown_ca", "expired", …: a fixed set, for metrics. */
const char *verify_outcome_name(enum verify_outcome outcome);

/* One step of the verdict. `fault` is NULL when it holds, else valid during the call. */
struct verify_step {
	const char *name, *demands, *fault;
	unsigned depth; /* of the certificate at fault in the chain; 0: the leaf */
	bool skipped;   /* could not be judged, because of an earlier fault */
};

struct verify_policy {
	const char *trust_domain; /* NULL: any */
	unsigned roles;           /* ROLE_BIT mask; 0: any */
	int purpose;      /* X509_PURPOSE_SSL_CLIENT at listeners; X509_PURPOSE_ANY: what the role says */
	int64_t grace_ms; /* a leaf may have ended this long ago; the rest of its chain must be valid now */
	bool crl;         /* the store holds a CRL that must be current and not name the leaf */
	const struct registry *registry; /* NULL: not asked */
	const struct clock *clock;
	void (*each)(void *arg, const struct verify_step *step); /* NULL: stop at the first fault */
	void *arg;
};

struct verify_result {
	enum verify_outcome outcome;
	const char *rule; /* static: the broken rule of the profile, or OpenSSL's name for the fault */
	struct identity
		identity; /* once the profile holds: also of the revoked, suspended, unregistered; else empty */
};

/* Why a certificate was refused, in one word of a fixed set, for logs and metrics: the broken rule of the profile,
 * else the outcome's name. */
const char *verify_reason(const struct verify_result *result);

/* Judges ctx->cert. Sets the context's error to one whose alert fits (RFC 8446 section 6.2):
 * unknown_ca, certificate_expired, certificate_revoked (also suspended), unsupported_certificate (purpose,
 * role), certificate_unknown (unregistered), bad_certificate (the rest). True when accepted; *ret is always
 * set. */
bool verify_context(
	X509_STORE_CTX *ctx, const struct verify_policy *policy, struct verify_result *ret, struct err *e);

/* The same for a certificate at hand; `untrusted` (may be NULL) are intermediates that may help. */
bool verify_certificate(X509 *leaf, STACK_OF(X509) * untrusted, X509_STORE *store,
	const struct verify_policy *policy, struct verify_result *ret, struct err *e);

#endif
