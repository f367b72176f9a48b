/* craft_cert.h - certificates with one thing wrong, for tests; not part of the product.
 *
 * A certificate is described by struct craft_spec, every oddity a field of it; a flaw is a named change to a
 * spec that was good. It shares no code with what issues (ca/build.h) or judges (identity.h), so that it can
 * contradict them. The program craft-cert does the same from a command line.
 *
 * Errors: ERR_FATAL; these are tests. Threads: none of its own. */
#ifndef TLS_CRAFT_CERT_H
#define TLS_CRAFT_CERT_H

#include <openssl/x509v3.h>

#include "base/clock.h"
#include "tls/openssl.h"

enum { CRAFT_NAMES_MAX = 3, CRAFT_USAGES_MAX = 3 };

struct craft_string {
	int type; /* V_ASN1_… in a subject, GEN_… among the alternative names; 0 ends the list */
	struct str value;
};

enum craft_key_id { CRAFT_KEY_ID, CRAFT_KEY_ID_NONE, CRAFT_KEY_ID_SHORT, CRAFT_KEY_ID_SERIAL };

struct craft_spec {
	const char *key_type; /* see craft_key */
	EVP_PKEY *key;        /* its public half is certified; NULL: a fresh one of key_type */
	const struct craft_authority *issuer; /* NULL: self-signed */
	const char *digest;
	int version; /* as encoded: 2 is X.509v3 */
	struct str serial;
	bool serial_negative;
	struct craft_string common_names[CRAFT_NAMES_MAX + 1];
	struct craft_string alternative_names[CRAFT_NAMES_MAX + 1];
	struct wall not_before, not_after;
	int time_type; /* V_ASN1_UTCTIME, V_ASN1_GENERALIZEDTIME, 0: as RFC 5280 says */
	bool no_extensions;
	int ca;          /* basic constraints: -1 none, 0, 1 */
	int path_length; /* -1: none */
	bool constraints_not_critical;
	int key_usage; /* X509v3_KU_… bits, -1: none */
	bool key_usage_not_critical;
	int usages[CRAFT_USAGES_MAX + 1]; /* NIDs, ends with 0; none at all: no extension */
	bool no_subject_key_id;
	enum craft_key_id authority_key_id;
	bool unknown_extension, unknown_critical_extension;
	bool repeat_key_usage;
	bool unique_id;
	bool damage_signature;
};

struct craft_authority {
	X509 *cert;
	EVP_PKEY *key;
};

/* "ec:P-256", "ec:P-384", "ec:P-521", "ec-explicit:P-256", "ed25519", "rsa:BITS", "rsa3:BITS" (exponent 3).
 */
MUST_CHECK int craft_key(const char *type, EVP_PKEY **ret, struct err *e);

/* Good specs; strings are not copied. */
void craft_leaf(struct craft_spec *spec, const struct craft_authority *issuer, const char *uri,
	const char *name, struct wall now);
void craft_ca(struct craft_spec *spec, const struct craft_authority *issuer, const char *name,
	int path_length, struct wall now);

/* Makes the certificate. *ret_key (may be NULL) gets the key that was used. */
MUST_CHECK int craft_cert(const struct craft_spec *spec, X509 **ret, EVP_PKEY **ret_key, struct err *e);

/* A root, an issuing CA under it. craft_authority_clear both. */
MUST_CHECK int craft_authorities(struct wall now, struct craft_authority *ret_root,
	struct craft_authority *ret_issuing, struct err *e);
void craft_authority_clear(struct craft_authority *a);

struct craft_flaw {
	const char *name;
	bool of_ca;          /* a flaw of an issuing CA, not of a client's leaf */
	const char *rule;    /* of the profile that it breaks; NULL: no rule of the profile, see outcome */
	const char *outcome; /* verify_outcome_name of the whole verdict */
	void (*apply)(struct craft_spec *spec);
};
extern const struct craft_flaw craft_flaws[];
extern const size_t craft_flaw_count;

/* NULL when there is none of this name. */
const struct craft_flaw *craft_flaw(const char *name);

/* PEM files; the key 0600. */
MUST_CHECK int craft_write_cert(const char *path, const char *mode, X509 *cert, struct err *e);
MUST_CHECK int craft_write_key(const char *path, EVP_PKEY *key, struct err *e);

#endif
