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
	char name[IDENTITY_NAME_BYTES]; /* = CN; for clients the client id */
	char domain[IDENTITY_NAME_BYTES];
	char trust_domain[IDENTITY_NAME_BYTES];
	uint8_t serial[IDENTITY_SERIAL_BYTES]; /* big-endian, no leading zero */
	unsigned serial_bytes;
	uint8_t issuer_key_id[IDENTITY_KEY_ID_BYTES]; /* authority key identifier */
	struct wall not_before, not_after;
};

/* What a leaf of this role is issued with and must carry. */
enum { ROLE_USAGES = 2 };
struct role_profile {
	const char *name;
	int extended_key_usage[ROLE_USAGES]; /* NIDs, exactly these; the rest is NID_undef */
	bool serves; /* accepts TLS connections: may carry DNS names and IP addresses */
};

/* NULL for ROLE_NONE. */
const struct role_profile *role_profile(enum role role);

/* [A-Za-z0-9][A-Za-z0-9._-]{0,63}: names, domains and trust domains. */
bool identity_name_valid(struct str s);

/* Labels of letters, digits and inner hyphens; no wildcard, no trailing dot (RFC 1123 section 2.1). */
bool identity_dns_valid(struct str s);

/* P-256, P-384 (as named curves), Ed25519, RSA 2048 to 4096 bits; else *ret_fault says what it is. */
bool profile_key_ok(X509_PUBKEY *key, const char **ret_fault);

/* One rule of the profile: its name, and what it demands in one line (for `cert verify` and the docs). */
struct profile_rule {
	const char *name;
	const char *demands;
};
extern const struct profile_rule profile_rules[];
extern const size_t profile_rule_count;

/* What became of one rule. `fault` is NULL when it holds for every certificate that it is about, else what is
 * wrong with the one at `depth` of the chain (0: the leaf). Faults are fixed texts. */
typedef void profile_verdict(void *arg, const struct profile_rule *rule, const char *fault, unsigned depth);

/* Holds every rule against the chain (leaf first), in the order of the table; `each` hears every verdict and may
 * be NULL. True when all hold; else *ret_broken is the first broken rule and *e says what is wrong. */
MUST_CHECK bool profile_check(STACK_OF(X509) * chain, const char *trust_domain, profile_verdict *each,
	void *arg, struct identity *ret, const struct profile_rule **ret_broken, struct err *e);

/* Checks the leaf and every certificate of its verified chain (leaf first) and reads the identity.
 * `trust_domain` must match unless NULL. On ERR_REJECT *ret_reason is the name of the broken rule. */
MUST_CHECK int identity_check(STACK_OF(X509) * chain, const char *trust_domain, struct identity *ret,
	const char **ret_reason, struct err *e);

/* The same for a leaf alone (no chain rules), for tools and tests. */
MUST_CHECK int identity_of(
	X509 *leaf, const char *trust_domain, struct identity *ret, const char **ret_reason, struct err *e);

/* "spiffe://td/client/example.com/client_001" */
void identity_uri(const struct identity *id, char *out, size_t room);

#endif
