/* files.h - the CA's directory: which files there are, and reading and writing them.
 *
 *	root.pem root.key           the root; the key may be kept elsewhere
 *	issuing.pem issuing.key     the issuing CA that signs new certificates
 *	issuing-ID.pem .key         other issuing CAs: before a rotation's switch the new one, after it the old
 *	                            ones until their last certificate has ended; ID: subject key identifier in hex
 *	ca.pem                      root and all issuing CAs: what clients trust
 *	crl-number crl.der crl-ID.der
 *
 * Which issuing CA is the current one is said by issuing.pem alone, so that one rename makes the switch. Its key is
 * issuing-ID.key as long as that is there, else issuing.key.
 *
 * Errors:   ERR_FATAL with the path. Threads: none of its own.
 * Security: keys are read and written in the signer only; keys 0600, the rest 0644. */
#ifndef CA_FILES_H
#define CA_FILES_H

#include "ca/ca.h"
#include "tls/openssl.h"

struct ca_files {
	const char *dir;
	const char *passphrase_file; /* NULL: keys are not encrypted */
};

enum { CA_ID_BYTES = 2 * IDENTITY_KEY_ID_BYTES + 1, CA_FILE_BYTES = 64, CA_PEM_BYTES_MAX = 64 * 1024 };

extern const char ca_root_cert[], ca_root_key[], ca_issuing_cert[], ca_issuing_key[], ca_bundle_file[],
	ca_crl_number_file[];

/* "issuing-ID.pem", "crl-ID.der". */
void files_name(const char *what, const char *id, const char *suffix, char out[CA_FILE_BYTES]);

/* The certificate's subject key identifier, in hex. */
MUST_CHECK int files_id(X509 *cert, char out[CA_ID_BYTES], struct err *e);

/* IDs of the issuing CAs that have a file "issuing-ID" + suffix, in the order of their names. */
struct ca_ids {
	char id[CA_ISSUERS_MAX][CA_ID_BYTES];
	size_t count;
};
MUST_CHECK int files_others(const struct ca_files *f, const char *suffix, struct ca_ids *ret, struct err *e);

bool files_has(const struct ca_files *f, const char *name);
MUST_CHECK int files_read_cert(const struct ca_files *f, const char *name, X509 **ret, struct err *e);
MUST_CHECK int files_write_certs(
	const struct ca_files *f, const char *name, X509 *const *certs, size_t count, struct err *e);
MUST_CHECK int files_read_key(const struct ca_files *f, const char *name, EVP_PKEY **ret, struct err *e);
MUST_CHECK int files_write_key(const struct ca_files *f, const char *name, EVP_PKEY *key, struct err *e);

/* Byte for byte. */
MUST_CHECK int files_copy(
	const struct ca_files *f, const char *from, const char *to, mode_t mode, struct err *e);

/* Durably; it need not be there. */
MUST_CHECK int files_remove(const struct ca_files *f, const char *name, struct err *e);

#endif
