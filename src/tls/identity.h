/* identity.h - who a certificate says its bearer is, and the profile every certificate must meet.
 *
 * A leaf carries the identity as spiffe://<trust domain>/<role>/<domain>/<name> in its only URI SAN, and
 * CN = name. The profile stands where OpenSSL's chain check is not enough (RFC 5280 sections 4.1 and 4.2):
 * v3; serial positive, 1 to 20 octets; CA:FALSE; exactly the role's extended key usage; key usage; no unknown
 * critical extension; CN/SAN rule; SHA-2 signatures and P-256, P-384, Ed25519 or RSA >= 2048 keys for every
 * certificate of the chain. Issuing and checking read the same table, so what we issue is what we accept.
 *
 * Threads:  none of its own; results are plain values.
 * Errors:   ERR_REJECT; *ret_reason names the rule ("san_cn_mismatch") for logs and metrics. */
#ifndef TLS_IDENTITY_H
#define TLS_IDENTITY_H

#include <openssl/x509.h>
#include <stdbool.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"

enum role { ROLE_NONE, ROLE_CLIENT, ROLE_PROXY, ROLE_WORKER, ROLE_SERVER, ROLE_MONITOR, ROLE_ADMIN, ROLES };

#define ROLE_BIT(role) (1u << (role))

/* "client", …; the word in the SAN and on the command line. */
const char *role_name(enum role role);
MUST_CHECK bool role_parse(struct str s, enum role *ret);

enum { IDENTITY_NAME_BYTES = 65, IDENTITY_SERIAL_BYTES = 20, IDENTITY_KEY_ID_BYTES = 20 };

struct identity {
	enum role role;
	char name[IDENTITY_NAME_BYTES];         /* = CN; for clients the client id */
	char domain[IDENTITY_NAME_BYTES];
	char trust_domain[IDENTITY_NAME_BYTES];
	uint8_t serial[IDENTITY_SERIAL_BYTES];  /* big-endian, no leading zero */
	unsigned serial_bytes;
	uint8_t issuer_key_id[IDENTITY_KEY_ID_BYTES]; /* authority key identifier */
	struct wall not_before, not_after;
};

/* One rule of the profile: its name, and what it demands in one line (for `cert verify` and the docs). */
struct profile_rule {
	const char *name;
	const char *demands;
};
extern const struct profile_rule profile_rules[];
extern const size_t profile_rule_count;

/* Checks the leaf and every certificate of its verified chain (leaf first) and reads the identity.
 * `trust_domain` must match unless NULL. On ERR_REJECT *ret_reason is the name of the broken rule. */
MUST_CHECK int identity_check(STACK_OF(X509) *chain, const char *trust_domain, struct identity *ret,
	const char **ret_reason, struct err *e);

/* The same for a leaf alone (no chain rules), for tools and tests. */
MUST_CHECK int identity_of(X509 *leaf, const char *trust_domain, struct identity *ret, const char **ret_reason,
	struct err *e);

/* "spiffe://td/client/example.com/client_001" */
void identity_uri(const struct identity *id, char *out, size_t room);

#endif
