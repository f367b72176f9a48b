/* authority.h - root and issuing CAs on disk: made once, then loaded. Runs in the signer only.
 *
 * Errors:   ERR_FATAL with the path; ERR_REJECT for a bad option; ERR_NOT_FOUND where the root's key is needed and is
 *           not there.
 * Threads:  one.
 * Security: the keys of issuing CAs leave this process in no form. The root's key is read to make an issuing CA and
 *           for what root.h does, and not otherwise. */
#ifndef CA_AUTHORITY_H
#define CA_AUTHORITY_H

#include "ca/build.h"
#include "ca/crl_number.h"
#include "ca/files.h"

struct authority_options {
	struct ca_files files;
	const char *trust_domain;
	const char *
		public_url; /* where others fetch CRLs and issuers from, named in leaves; NULL: named nowhere */
	struct str root_key_type, issuing_key_type;
	int64_t backdate_ms;
	struct wall now;
};

struct authority {
	struct build_authority issuing;                    /* signs new certificates */
	struct build_authority others[CA_ISSUERS_MAX - 1]; /* sign their CRLs only */
	size_t other_count;
	X509 *root;
	struct crl_number crl_number;
};

/* A root key that is not, or need not be, in the directory: PEM, with its passphrase. Empty: root.key is meant. */
struct authority_root_key {
	struct str pem, passphrase;
};

/* Makes what is missing, and finishes what a crash interrupted, in an order that lets a later call go on where a crash
 * stopped this one. */
MUST_CHECK int authority_init(const struct authority_options *o, struct err *e);

/* Makes another issuing CA the current one; the old one goes on to sign its CRLs. */
MUST_CHECK int authority_rotate(
	const struct authority_options *o, const struct authority_root_key *root_key, struct err *e);

/* Forgets an old issuing CA: its certificate, key and CRL. ERR_CONFLICT for the current one, ERR_NOT_FOUND. */
MUST_CHECK int authority_retire(const struct ca_files *f, struct str id, struct err *e);

/* Encrypts every key anew with the passphrase file's first line, or with nothing where there is no such file. */
MUST_CHECK int authority_rekey(const struct authority_options *o, struct err *e);

/* Loads the issuing CAs, and signs a trial certificate with each: what comes out must pass our own profile. */
MUST_CHECK int authority_load(const struct authority_options *o, struct authority *ret, struct err *e);
void authority_clear(struct authority *a);

/* The issuing CA with this subject key identifier; NULL: none. */
const struct build_authority *authority_find(
	const struct authority *a, const uint8_t key_id[IDENTITY_KEY_ID_BYTES]);

/* Signs a leaf and judges it as a listener would before it is handed out. */
MUST_CHECK int authority_issue(const struct authority *a, const struct authority_options *o,
	const struct ca_request *request, struct build_validity validity, struct buf *ret_der, struct err *e);

/* --- for root.c --- */

/* One at a time may change the directory: the lock's file descriptor; closing it lets go. */
MUST_CHECK int authority_lock(const struct ca_files *f, int *ret_fd, struct err *e);

/* The root's certificate with its key, checked to belong together. build_authority_clear it. */
MUST_CHECK int authority_read_root(const struct ca_files *f, const struct authority_root_key *root_key,
	struct build_authority *ret, struct err *e);

#endif
