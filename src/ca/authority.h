/* authority.h - root and issuing CA on disk: made once, then loaded. Runs in the signer only.
 *
 * Errors:   ERR_FATAL with the path; ERR_REJECT for a bad option.
 * Threads:  one.
 * Security: `issuing.key` leaves this process in no form. The root's key is read to make the issuing CA, and
 * not otherwise. */
#ifndef CA_AUTHORITY_H
#define CA_AUTHORITY_H

#include "ca/build.h"
#include "ca/crl_number.h"

struct authority_options {
	const char *dir, *trust_domain;
	const char *passphrase_file; /* NULL: keys are not encrypted */
	struct str root_key_type, issuing_key_type;
	int64_t backdate_ms;
	struct wall now;
};

struct authority {
	struct build_authority issuing;
	X509 *root;
	struct crl_number crl_number;
};

/* Makes what is missing, in an order that lets a later call go on where a crash stopped this one. */
MUST_CHECK int authority_init(const struct authority_options *o, struct err *e);

/* Loads the issuing CA, and signs a trial certificate: what comes out must pass our own profile. */
MUST_CHECK int authority_load(const struct authority_options *o, struct authority *ret, struct err *e);
void authority_clear(struct authority *a);

/* Signs a leaf and judges it as a listener would before it is handed out. */
MUST_CHECK int authority_issue(const struct authority *a, const char *trust_domain,
	const struct ca_request *request, struct build_validity validity, struct buf *ret_der, struct err *e);

#endif
