/* ca.h - the certificate authority: a root, an issuing CA under it, and the signer process that holds the key.
 *
 * The issuing key exists only inside the signer: a child process without network, not dumpable, that answers a
 * handful of versioned messages over a socketpair. It builds every certificate itself from a few checked facts,
 * so a caller that was taken over can ask for certificates but not for arbitrary signatures.
 *
 * The CA does not know the registry: the caller picks no serial, gets the certificate back, and registers it
 * (store.h) before it hands it out.
 *
 * Files in `dir`: root.pem root.key issuing.pem issuing.key ca.pem (root + issuing, what clients trust) crl-number
 *           crl.der (the list that was published last);
 *           keys 0600, PKCS#8, encrypted (AES-256, scrypt) when there is a passphrase file. Once the issuing CA
 *           is made, root.key may be moved elsewhere.
 * Threads:  ca_issue and ca_crl from any thread that may block; requests take turns.
 * Errors:   ERR_REJECT bad request (weak key, bad CSR, bad name), ERR_RETRY the signer died (the next request starts
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
	const char *key_passphrase_file; /* 0600, or a systemd credential; NULL: keys are not encrypted */
	const char *root_key_type;       /* as for ca_generate_key; NULL: "rsa:4096" */
	const char *issuing_key_type;    /* NULL: "ec:P-256" */
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

/* PEM of root and issuing CA. Valid until ca_close. */
struct str ca_bundle(const struct ca *ca);
struct str ca_issuing_pem(const struct ca *ca);
const uint8_t *ca_issuing_key_id(const struct ca *ca);
struct wall ca_issuing_not_after(const struct ca *ca);
struct wall ca_root_not_after(const struct ca *ca);

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
	struct buf der, pem; /* leaf; buf_clear both */
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

/* A CRL over the given entries. The signer keeps the CRL number, which never goes back. */
struct ca_revoked {
	uint8_t serial[IDENTITY_SERIAL_BYTES];
	unsigned serial_bytes;
	struct wall at;
	struct str reason; /* RFC 5280 name: "keyCompromise", …; empty: unspecified */
};

/* RFC 5280 section 5.3.1; false for an unknown name and for removeFromCRL. */
MUST_CHECK bool ca_reason_parse(struct str name, int *ret_code);

MUST_CHECK int ca_crl(struct ca *ca, const struct ca_revoked *entries, size_t count, int64_t valid_days,
	struct buf *ret_der, struct err *e);

/* DIR/crl.der. */
const char *ca_crl_path(const struct ca *ca);

/* Process id of the signer that was started last, for tests. */
int ca_signer_pid(struct ca *ca);

#endif
