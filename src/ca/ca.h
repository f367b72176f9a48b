/* ca.h - the certificate authority: a root, issuing CAs under it, and the signer process that holds their keys.
 *
 * One issuing CA signs new certificates. After a rotation, older ones are still trusted and sign their CRLs, until
 * they are retired.
 *
 * The issuing key exists only inside the signer: a child process without network, not dumpable, that answers a
 * handful of versioned messages over a socketpair. It builds every certificate itself from a few checked facts,
 * so a caller that was taken over can ask for certificates but not for arbitrary signatures.
 *
 * The CA does not know the registry: the caller picks no serial, gets the certificate back, and registers it
 * (store.h) before it hands it out.
 *
 * Files in `dir`: see files.h; keys 0600, PKCS#8, encrypted (AES-256, scrypt) when there is a passphrase file. Once an
 *           issuing CA is made, the root's key is needed for the next one only, and may be moved elsewhere.
 * Threads:  any thread that may block; requests take turns, and so do changes (rotate, retire, …). What is only read
 *           (bundle, issuers) from any thread, at once.
 * Errors:   ERR_REJECT bad request (weak key, bad CSR, bad name), ERR_RETRY the signer died twice (the next request starts
 *           another), ERR_FATAL. */
#ifndef CA_CA_H
#define CA_CA_H

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "tls/identity.h"

struct ca;

struct ca_options {
	const char *dir;
	const char *trust_domain;
	const struct clock *clock;
	int64_t backdate_ms; /* certificates start this long before now: 5 minutes */
	int64_t max_days;    /* a leaf asked for with more is refused */

	/* The program that becomes the signer, argv[0] its path: {"/proc/self/exe", "signer", NULL}; it must call
	 * ca_signer_main. Outlives the ca. NULL: a fork of this process, for tests and for tools that
	 * have no threads; unlike a new program it keeps a copy of the caller's memory. */
	const char *const *signer_argv;
	const char *key_passphrase_file; /* 0600; NULL: keys are not encrypted */
	const char *signer_user;         /* whom a signer of root's becomes; NULL: stays who it is */
	const char
		*public_url; /* where others reach the routes /ca/…, named in leaves; NULL: named nowhere */
	const char *root_key_type;    /* as for ca_generate_key; NULL: "rsa:4096" */
	const char *issuing_key_type; /* NULL: "ec:P-256" */
};

/* The signer process, from its first statement to its end. Its socket is CA_SIGNER_FD. */
enum { CA_SIGNER_FD = 3 };
_Noreturn void ca_signer_main(void);

/* Makes root (RSA-4096, ten years) and issuing CA (P-256, five years, pathlen 0) unless they are there; in a child
 * process, so that no key ever lies in the caller's memory. Safe to repeat; finishes what a crash interrupted. */
MUST_CHECK int ca_init(const struct ca_options *o, struct err *e);

/* Starts the signer. Without signer_argv, call it before any other thread is started. */
MUST_CHECK int ca_open(const struct ca_options *o, struct ca **ret, struct err *e);
void ca_close(struct ca *ca);

/* Other values for max_days and public_url, from the next request on. */
MUST_CHECK int ca_reload(struct ca *ca, const struct ca_options *o, struct err *e);

enum { CA_ISSUERS_MAX = 16 };

struct ca_issuer {
	uint8_t key_id[IDENTITY_KEY_ID_BYTES];
	char id[2 * IDENTITY_KEY_ID_BYTES + 1]; /* the same in hex */
	struct str pem, der;
	struct wall not_before, not_after;
	const char *crl_path; /* where its CRL is kept */
};

/* The current one first. Like every view below, valid until ca_close; a rotation makes others. */
size_t ca_issuers(const struct ca *ca, const struct ca_issuer **ret);

/* NULL: there is none with this key. */
const struct ca_issuer *ca_issuer_find(const struct ca *ca, const uint8_t key_id[IDENTITY_KEY_ID_BYTES]);

/* PEM of root and issuing CAs: what everyone trusts; of the current issuing CA. */
struct str ca_bundle(const struct ca *ca);
struct str ca_issuing_pem(const struct ca *ca);
const uint8_t *ca_issuing_key_id(const struct ca *ca);
struct wall ca_issuing_not_after(const struct ca *ca);
struct wall ca_root_not_after(const struct ca *ca);

/* Whether the root's key lies in the directory. */
bool ca_has_root_key(const struct ca *ca);

/* --- changes; each is one step on disk that a crash leaves undone or done --- */

/* A copy of the root's key: PEM, encrypted or not, and its passphrase. */
struct ca_root_key {
	struct str pem, passphrase;
};

/* A new issuing CA, which is the current one when this returns. `root_key` NULL: the one in the directory, else
 * ERR_NOT_FOUND; ERR_REJECT for a key that is not the root's. */
MUST_CHECK int ca_rotate(struct ca *ca, const struct ca_root_key *root_key, struct err *e);

/* An old issuing CA is forgotten, its key removed. The caller knows that no certificate of it is in use.
 * ERR_CONFLICT for the current one, ERR_NOT_FOUND. */
MUST_CHECK int ca_retire(struct ca *ca, const uint8_t key_id[IDENTITY_KEY_ID_BYTES], struct err *e);

/* All keys encrypted anew, by the first line of the passphrase file; keys that its second line opens are read too. */
MUST_CHECK int ca_rekey(struct ca *ca, struct err *e);

/* The root's key, encrypted by this passphrase, as PEM; ERR_REJECT when that is too short. */
MUST_CHECK int ca_export_root(struct ca *ca, struct str passphrase, struct buf *ret_pem, struct err *e);

/* Removes the root's key from the directory, given a copy that opens; ERR_REJECT for any other. */
MUST_CHECK int ca_remove_root(struct ca *ca, const struct ca_root_key *copy, struct err *e);
MUST_CHECK int ca_import_root(struct ca *ca, const struct ca_root_key *copy, struct err *e);

/* --- certificates --- */

struct ca_request {
	struct str name, domain;
	int64_t days;
	struct str public_key_der;   /* SubjectPublicKeyInfo */
	const struct str *dns_names; /* roles that serve (server, proxy) only; at most CA_NAMES_MAX */
	const struct str *addresses; /* likewise: IP addresses as text */
	unsigned dns_count, address_count;
	enum role role;
};
enum { CA_NAMES_MAX = 64 };

struct ca_issued {
	struct buf der, pem;   /* leaf; buf_clear both */
	struct str issuer_pem; /* who signed it; as ca_issuers */
	struct identity identity;
};

MUST_CHECK int ca_issue(
	struct ca *ca, const struct ca_request *request, struct ca_issued *ret, struct err *e);
void ca_issued_clear(struct ca_issued *i);

/* A CSR's public key, after checking its signature and key policy; everything else in it is ignored. PEM or DER. */
MUST_CHECK int ca_csr_public_key(struct str csr, struct buf *ret_spki_der, struct err *e);

/* A fresh key: "ec:P-256", "ec:P-384", "ed25519", "rsa:2048", "rsa:3072", "rsa:4096"; PEM (PKCS#8; wipe it)
 * and its SPKI. */
MUST_CHECK int ca_generate_key(struct str type, struct buf *ret_pem, struct buf *ret_spki_der, struct err *e);

/* One issuing CA's CRL over the given entries. The signer keeps the CRL number, which never goes back. */
struct ca_revoked {
	uint8_t serial[IDENTITY_SERIAL_BYTES];
	unsigned serial_bytes;
	struct wall at;
	struct str reason; /* RFC 5280 name: "keyCompromise", …; empty: unspecified */
};

/* RFC 5280 section 5.3.1; false for an unknown name and for removeFromCRL. */
MUST_CHECK bool ca_reason_parse(struct str name, int *ret_code);

MUST_CHECK int ca_crl(struct ca *ca, const uint8_t issuer_key_id[IDENTITY_KEY_ID_BYTES],
	const struct ca_revoked *entries, size_t count, int64_t valid_days, struct buf *ret_der,
	struct err *e);

/* Process id of the signer that was started last, for tests. */
int ca_signer_pid(struct ca *ca);

#endif
