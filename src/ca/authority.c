/* authority.c - see authority.h. Keys are written before the certificates made from them; so whatever is there is
 * complete, and what is missing can be made from it.
 *
 * A rotation puts the new issuing CA and a copy of the old one under their own names, tells everyone to trust both
 * (ca.pem), and then switches by replacing issuing.pem. Before that, nobody has seen the new one; after it, what is left
 * to do is tidying up (settle), which every start does too. */
#include "ca/authority.h"

#include <errno.h>
#include <stdio.h>

#include "base/file.h"
#include "ca/key.h"

enum { ROOT_DAYS = 3650, ISSUING_DAYS = 1825, DAY_MS = 24 * 60 * 60 * 1000, LOCK_WAIT_MS = 10000 };

static struct build_validity lifetime(const struct authority_options *o, int64_t days)
{
	return (struct build_validity){{o->now.ms - o->backdate_ms}, {o->now.ms + days * DAY_MS}};
}

/* The key under this name, made first if it is not there. */
static int need_key(
	const struct ca_files *f, const char *name, struct str type, EVP_PKEY **ret, struct err *e)
{
	if (files_has(f, name))
		return files_read_key(f, name, ret, e);
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	if (key_generate(type, &key, e) < 0 || files_write_key(f, name, key, e) < 0)
		return -1;
	*ret = TAKE(key);
	return 0;
}

static int check_pair(X509 *cert, EVP_PKEY *key, const char *cert_name, const char *key_name, struct err *e)
{
	if (X509_check_private_key(cert, key))
		return 0;
	ERR_clear_error();
	return err_set(e, ERR_FATAL, "%s is not the key of %s", key_name, cert_name);
}

static int read_pair(const struct ca_files *f, const char *cert_name, const char *key_name,
	struct build_authority *ret, struct err *e)
{
	if (files_read_cert(f, cert_name, &ret->cert, e) < 0 ||
		files_read_key(f, key_name, &ret->key, e) < 0 ||
		check_pair(ret->cert, ret->key, cert_name, key_name, e) < 0) {
		build_authority_clear(ret);
		return -1;
	}
	return 0;
}

/* A signer whose daemon was killed finishes what it is at before it ends. */
int authority_lock(const struct ca_files *f, int *ret_fd, struct err *e)
{
	AUTO(free_auto) char *path = path_join(f->dir, "lock");
	return path ? file_lock_wait(path, LOCK_WAIT_MS, ret_fd, e) : err_oom(e);
}

/* --- what every change of issuing CAs needs --- */

/* Subject key identifier of the current one. */
static int current_id(const struct ca_files *f, char out[CA_ID_BYTES], struct err *e)
{
	AUTO(X509_free_auto) X509 *cert = NULL;
	return files_read_cert(f, ca_issuing_cert, &cert, e) < 0 ? -1 : files_id(cert, out, e);
}

/* The file that holds the current one's key. */
static void current_key_name(const struct ca_files *f, const char *id, char out[CA_FILE_BYTES])
{
	files_name("issuing", id, ".key", out);
	if (!files_has(f, out))
		snprintf(out, CA_FILE_BYTES, "%s", ca_issuing_key);
}

/* ca.pem: the root, the current issuing CA, and the others, but not `without` (may be NULL). */
static int write_bundle(const struct ca_files *f, const char *without, struct err *e)
{
	X509 *certs[CA_ISSUERS_MAX + 2] = {NULL};
	struct ca_ids others;
	size_t count = 0;
	int result = files_read_cert(f, ca_root_cert, &certs[count], e);
	if (result == 0)
		result = files_read_cert(f, ca_issuing_cert, &certs[++count], e);
	if (result == 0)
		result = files_others(f, ".pem", &others, e);
	for (size_t i = 0; result == 0 && i < others.count; i++) {
		char name[CA_FILE_BYTES];
		if (without && strcmp(others.id[i], without) == 0)
			continue;
		files_name("issuing", others.id[i], ".pem", name);
		result = files_read_cert(f, name, &certs[++count], e);
		/* In the middle of a rotation, the current one is there under both names. */
		if (result == 0 && X509_cmp(certs[count], certs[1]) == 0) {
			X509_free(TAKE(certs[count]));
			count--;
		}
	}
	if (result == 0)
		result = files_write_certs(f, ca_bundle_file, certs, count + 1, e);
	for (size_t i = 0; i < ARRAY_LEN(certs); i++)
		X509_free(certs[i]);
	return result;
}

/* A key without a certificate has signed nothing: a rotation was interrupted, or an issuing CA was retired. */
static int remove_keys_without_certificate(const struct ca_files *f, struct err *e)
{
	struct ca_ids keys;
	if (files_others(f, ".key", &keys, e) < 0)
		return -1;
	for (size_t i = 0; i < keys.count; i++) {
		char cert[CA_FILE_BYTES], key[CA_FILE_BYTES];
		files_name("issuing", keys.id[i], ".pem", cert);
		files_name("issuing", keys.id[i], ".key", key);
		if (!files_has(f, cert) && files_remove(f, key, e) < 0)
			return -1;
	}
	return 0;
}

/* Brings the current one under its plain names. */
static int settle(const struct ca_files *f, struct err *e)
{
	char id[CA_ID_BYTES], cert[CA_FILE_BYTES], key[CA_FILE_BYTES];
	if (current_id(f, id, e) < 0)
		return -1;
	files_name("issuing", id, ".pem", cert);
	files_name("issuing", id, ".key", key);
	if (files_has(f, key) &&
		(files_copy(f, key, ca_issuing_key, 0600, e) < 0 || files_remove(f, key, e) < 0))
		return -1;
	if (files_has(f, cert) && files_remove(f, cert, e) < 0)
		return -1;
	return remove_keys_without_certificate(f, e);
}

/* --- making --- */

static int make_root(const struct authority_options *o, struct build_authority *ret, struct err *e)
{
	if (need_key(&o->files, ca_root_key, o->root_key_type, &ret->key, e) < 0)
		return -1;
	if (files_has(&o->files, ca_root_cert))
		return files_read_cert(&o->files, ca_root_cert, &ret->cert, e) < 0
			       ? -1
			       : check_pair(ret->cert, ret->key, ca_root_cert, ca_root_key, e);
	if (build_root(ret->key, o->trust_domain, lifetime(o, ROOT_DAYS), &ret->cert, e) < 0)
		return -1;
	return files_write_certs(&o->files, ca_root_cert, &ret->cert, 1, e);
}

static int make_issuing(const struct authority_options *o, struct err *e)
{
	struct build_authority root = {0};
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	AUTO(X509_free_auto) X509 *cert = NULL;
	int result = make_root(o, &root, e);
	if (result == 0)
		result = need_key(&o->files, ca_issuing_key, o->issuing_key_type, &key, e);
	if (result == 0)
		result = build_issuing(&root, key, o->trust_domain, lifetime(o, ISSUING_DAYS), &cert, e);
	if (result == 0)
		result = files_write_certs(&o->files, ca_issuing_cert, &cert, 1, e);
	build_authority_clear(&root);
	return result;
}

static int make_crl_number(const struct ca_files *f, struct err *e)
{
	AUTO(free_auto) char *path = path_join(f->dir, ca_crl_number_file);
	return path ? crl_number_init(path, e) : err_oom(e);
}

static int make_missing(const struct authority_options *o, struct err *e)
{
	if (!files_has(&o->files, ca_issuing_cert) && make_issuing(o, e) < 0)
		return -1;
	if (settle(&o->files, e) < 0)
		return -1;
	if (!files_has(&o->files, ca_bundle_file) && write_bundle(&o->files, NULL, e) < 0)
		return -1;
	return make_crl_number(&o->files, e);
}

/* Whatever was changed, the next signer must be able to work with it. */
static int try_load(const struct authority_options *o, struct err *e)
{
	struct authority trial;
	if (authority_load(o, &trial, e) < 0)
		return -1;
	authority_clear(&trial);
	return 0;
}

int authority_init(const struct authority_options *o, struct err *e)
{
	AUTO(fd_auto) int lock = -1;
	if (!identity_name_valid(str_of(o->trust_domain)))
		return err_set(e, ERR_REJECT, "trust domain must be [A-Za-z0-9][A-Za-z0-9._-]{0,63}");
	if (dir_make(o->files.dir, 0700, e) < 0 || authority_lock(&o->files, &lock, e) < 0 ||
		make_missing(o, e) < 0)
		return -1;
	return try_load(o, e);
}

/* --- rotating --- */

static int read_root_key(
	const struct ca_files *f, const struct authority_root_key *given, EVP_PKEY **ret, struct err *e)
{
	if (given->pem.n)
		return key_read_pem(given->pem, given->passphrase, ret, e);
	if (!files_has(f, ca_root_key))
		return err_set(e, ERR_NOT_FOUND, "the root's key is not in '%s'; import it first", f->dir);
	return files_read_key(f, ca_root_key, ret, e);
}

int authority_read_root(const struct ca_files *f, const struct authority_root_key *root_key,
	struct build_authority *ret, struct err *e)
{
	struct build_authority root = {0};
	if (files_read_cert(f, ca_root_cert, &root.cert, e) == 0 &&
		read_root_key(f, root_key, &root.key, e) == 0) {
		if (X509_check_private_key(root.cert, root.key)) {
			*ret = root;
			return 0;
		}
		ERR_clear_error();
		/* A file that somebody gave us, or our own that was replaced. */
		err_set(e, root_key->pem.n ? ERR_REJECT : ERR_FATAL, "this is not the key of %s",
			ca_root_cert);
	}
	build_authority_clear(&root);
	return -1;
}

/* Not beyond the root's. */
static int next_lifetime(
	const struct authority_options *o, X509 *root, struct build_validity *ret, struct err *e)
{
	struct wall end;
	*ret = lifetime(o, ISSUING_DAYS);
	if (!wall_of_asn1(X509_get0_notAfter(root), &end) || end.ms <= o->now.ms)
		return err_set(
			e, ERR_REJECT, "the root's certificate has ended: this installation needs a new CA");
	if (ret->not_after.ms > end.ms)
		ret->not_after = end;
	return 0;
}

/* A new issuing CA, under its own name. */
static int make_next(const struct authority_options *o, const struct build_authority *root, X509 **ret,
	char id[CA_ID_BYTES], struct err *e)
{
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	AUTO(X509_free_auto) X509 *cert = NULL;
	char cert_name[CA_FILE_BYTES], key_name[CA_FILE_BYTES];
	struct build_validity validity = {0};
	if (next_lifetime(o, root->cert, &validity, e) < 0 ||
		key_generate(o->issuing_key_type, &key, e) < 0 ||
		build_issuing(root, key, o->trust_domain, validity, &cert, e) < 0 ||
		files_id(cert, id, e) < 0)
		return -1;
	files_name("issuing", id, ".key", key_name);
	files_name("issuing", id, ".pem", cert_name);
	if (files_write_key(&o->files, key_name, key, e) < 0 ||
		files_write_certs(&o->files, cert_name, &cert, 1, e) < 0)
		return -1;
	*ret = TAKE(cert);
	return 0;
}

/* The current one under its own name too, where it stays when it is no longer the current one. */
static int keep_current(const struct ca_files *f, struct err *e)
{
	char id[CA_ID_BYTES], cert[CA_FILE_BYTES], key[CA_FILE_BYTES];
	if (current_id(f, id, e) < 0)
		return -1;
	files_name("issuing", id, ".pem", cert);
	files_name("issuing", id, ".key", key);
	return files_copy(f, ca_issuing_key, key, 0600, e) < 0
		       ? -1
		       : files_copy(f, ca_issuing_cert, cert, 0644, e);
}

static int has_room(const struct ca_files *f, struct err *e)
{
	struct ca_ids others;
	if (files_others(f, ".pem", &others, e) < 0)
		return -1;
	/* The current one becomes another; the new one is there under two names for a moment. */
	if (others.count + 2 < CA_ISSUERS_MAX)
		return 0;
	return err_set(e, ERR_CONFLICT,
		"%zu old issuing CAs still have certificates that did not end; rotate when one was retired",
		others.count);
}

static int rotate(const struct authority_options *o, const struct build_authority *root, struct err *e)
{
	AUTO(X509_free_auto) X509 *next = NULL;
	char id[CA_ID_BYTES];
	if (settle(&o->files, e) < 0 || has_room(&o->files, e) < 0 || make_next(o, root, &next, id, e) < 0 ||
		keep_current(&o->files, e) < 0 || write_bundle(&o->files, NULL, e) < 0 ||
		files_write_certs(&o->files, ca_issuing_cert, &next, 1, e) < 0 || settle(&o->files, e) < 0)
		return -1;
	return try_load(o, e);
}

int authority_rotate(
	const struct authority_options *o, const struct authority_root_key *root_key, struct err *e)
{
	AUTO(fd_auto) int lock = -1;
	struct build_authority root = {0};
	if (authority_lock(&o->files, &lock, e) < 0 || authority_read_root(&o->files, root_key, &root, e) < 0)
		return -1;
	int result = rotate(o, &root, e);
	build_authority_clear(&root);
	return result;
}

/* --- retiring --- */

/* Nobody trusts it before it goes; its key goes last, and a start would remove that too. */
static int retire(const struct ca_files *f, const char *id, struct err *e)
{
	char cert[CA_FILE_BYTES], key[CA_FILE_BYTES], crl[CA_FILE_BYTES];
	files_name("issuing", id, ".pem", cert);
	files_name("issuing", id, ".key", key);
	files_name("crl", id, ".der", crl);
	if (!files_has(f, cert))
		return err_set(e, ERR_NOT_FOUND, "there is no issuing CA %s", id);
	if (write_bundle(f, id, e) < 0 || files_remove(f, cert, e) < 0 || files_remove(f, key, e) < 0)
		return -1;
	return files_remove(f, crl, e);
}

int authority_retire(const struct ca_files *f, struct str id, struct err *e)
{
	AUTO(fd_auto) int lock = -1;
	char current[CA_ID_BYTES], wanted[CA_ID_BYTES];
	uint8_t key_id[IDENTITY_KEY_ID_BYTES];
	if (!hex_decode(id, key_id, sizeof(key_id)))
		return err_set(e, ERR_REJECT, "not the ID of an issuing CA");
	hex_encode(key_id, sizeof(key_id), wanted);
	if (authority_lock(f, &lock, e) < 0 || settle(f, e) < 0 || current_id(f, current, e) < 0)
		return -1;
	if (strcmp(wanted, current) == 0)
		return err_set(e, ERR_CONFLICT, "the current issuing CA cannot be retired; rotate first");
	return retire(f, wanted, e);
}

/* --- another passphrase --- */

static int rekey_one(const struct ca_files *f, const char *name, struct err *e)
{
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	return files_read_key(f, name, &key, e) < 0 ? -1 : files_write_key(f, name, key, e);
}

int authority_rekey(const struct authority_options *o, struct err *e)
{
	AUTO(fd_auto) int lock = -1;
	struct ca_ids others;
	if (authority_lock(&o->files, &lock, e) < 0 || settle(&o->files, e) < 0 ||
		files_others(&o->files, ".key", &others, e) < 0)
		return -1;
	if ((files_has(&o->files, ca_root_key) && rekey_one(&o->files, ca_root_key, e) < 0) ||
		rekey_one(&o->files, ca_issuing_key, e) < 0)
		return -1;
	for (size_t i = 0; i < others.count; i++) {
		char name[CA_FILE_BYTES];
		files_name("issuing", others.id[i], ".key", name);
		if (rekey_one(&o->files, name, e) < 0)
			return -1;
	}
	return 0;
}

/* --- loading --- */

static int check_signed_by_root(const struct authority *a, X509 *issuing, const char *name, struct err *e)
{
	if (X509_verify(issuing, X509_get0_pubkey(a->root)) == 1)
		return 0;
	ERR_clear_error();
	return err_set(e, ERR_FATAL, "%s is not signed by %s", name, ca_root_cert);
}

static int load_current(const struct ca_files *f, struct authority *a, struct err *e)
{
	char id[CA_ID_BYTES], key_name[CA_FILE_BYTES];
	if (current_id(f, id, e) < 0)
		return -1;
	current_key_name(f, id, key_name);
	if (read_pair(f, ca_issuing_cert, key_name, &a->issuing, e) < 0)
		return -1;
	return check_signed_by_root(a, a->issuing.cert, ca_issuing_cert, e);
}

static int load_other(const struct ca_files *f, const char *id, struct authority *a, struct err *e)
{
	char cert[CA_FILE_BYTES], key[CA_FILE_BYTES];
	struct build_authority other = {0};
	files_name("issuing", id, ".pem", cert);
	files_name("issuing", id, ".key", key);
	if (read_pair(f, cert, key, &other, e) < 0)
		return -1;
	if (X509_cmp(other.cert, a->issuing.cert) == 0) {
		build_authority_clear(&other);
		return 0;
	}
	a->others[a->other_count++] = other;
	return check_signed_by_root(a, other.cert, cert, e);
}

static int load_others(const struct ca_files *f, struct authority *a, struct err *e)
{
	struct ca_ids others;
	if (files_others(f, ".pem", &others, e) < 0)
		return -1;
	for (size_t i = 0; i < others.count; i++) {
		if (a->other_count == ARRAY_LEN(a->others))
			return err_set(
				e, ERR_FATAL, "'%s' has more than %d issuing CAs", f->dir, CA_ISSUERS_MAX);
		if (load_other(f, others.id[i], a, e) < 0)
			return -1;
	}
	return 0;
}

static int load_parts(const struct authority_options *o, struct authority *a, struct err *e)
{
	AUTO(free_auto) char *number_path = path_join(o->files.dir, ca_crl_number_file);
	if (!number_path)
		return err_oom(e);
	if (files_read_cert(&o->files, ca_root_cert, &a->root, e) < 0 || load_current(&o->files, a, e) < 0 ||
		load_others(&o->files, a, e) < 0)
		return -1;
	return crl_number_open(number_path, &a->crl_number, e);
}

/* The profile's verdict on the DER that is about to leave, with its chain. */
static int check_issued(const struct authority *a, const struct build_authority *issuer,
	const char *trust_domain, struct str der, struct err *e)
{
	const unsigned char *at = (const unsigned char *)der.p;
	AUTO(X509_free_auto) X509 *leaf = d2i_X509(NULL, &at, (long)der.n);
	STACK_OF(X509) *chain = sk_X509_new_null();
	int result = -1;
	struct identity id;
	const char *rule;
	if (leaf && chain && sk_X509_push(chain, leaf) && sk_X509_push(chain, issuer->cert) &&
		sk_X509_push(chain, a->root))
		result = identity_check(chain, trust_domain, &id, &rule, e);
	else
		err_openssl(e, ERR_FATAL, "read a certificate back");
	sk_X509_free(chain);
	return result;
}

static int issue_by(const struct authority *a, const struct build_authority *issuer,
	const struct authority_options *o, const struct ca_request *request, struct build_validity validity,
	struct buf *ret_der, struct err *e)
{
	AUTO(X509_free_auto) X509 *cert = NULL;
	AUTO(openssl_free_auto) unsigned char *der = NULL;
	const struct build_policy policy = {o->trust_domain, o->public_url};
	if (build_leaf(issuer, &policy, request, validity, &cert, e) < 0)
		return -1;
	int n = i2d_X509(cert, &der);
	if (n < 0)
		return err_openssl(e, ERR_FATAL, "write a certificate");
	if (check_issued(a, issuer, o->trust_domain, str_mem(der, (size_t)n), e) < 0)
		return -1;
	buf_add(ret_der, der, (size_t)n);
	return buf_check(ret_der, e);
}

/* Signs a certificate that nobody gets. Also warms up what OpenSSL and libc set up lazily, which the signer
 * could not do once it has locked itself in. */
static int try_out(const struct authority *a, const struct build_authority *issuer,
	const struct authority_options *o, struct err *e)
{
	AUTO(openssl_free_auto) unsigned char *spki = NULL;
	AUTO(buf_auto) struct buf der;
	buf_init(&der, CA_PEM_BYTES_MAX);
	int n = i2d_PUBKEY(issuer->key, &spki);
	if (n < 0)
		return err_openssl(e, ERR_FATAL, "write a public key");
	const struct ca_request request = {.role = ROLE_CLIENT,
		.name = STR("trial"),
		.domain = STR("trial"),
		.public_key_der = str_mem(spki, (size_t)n)};
	int result = issue_by(a, issuer, o, &request, lifetime(o, 1), &der, e);
	return result < 0 ? err_context(e, "trial certificate") : 0;
}

static int try_out_all(const struct authority *a, const struct authority_options *o, struct err *e)
{
	int result = try_out(a, &a->issuing, o, e);
	for (size_t i = 0; result == 0 && i < a->other_count; i++)
		result = try_out(a, &a->others[i], o, e);
	return result;
}

int authority_load(const struct authority_options *o, struct authority *ret, struct err *e)
{
	*ret = (struct authority){.crl_number.fd = -1};
	if (load_parts(o, ret, e) == 0 && try_out_all(ret, o, e) == 0)
		return 0;
	authority_clear(ret);
	return err_context(e, "CA in '%s'", o->files.dir);
}

void authority_clear(struct authority *a)
{
	build_authority_clear(&a->issuing);
	for (size_t i = 0; i < a->other_count; i++)
		build_authority_clear(&a->others[i]);
	X509_free(a->root);
	crl_number_close(&a->crl_number);
	*a = (struct authority){.crl_number.fd = -1};
}

/* --- using --- */

static bool has_key_id(const struct build_authority *authority, const uint8_t key_id[IDENTITY_KEY_ID_BYTES])
{
	const ASN1_OCTET_STRING *id = X509_get0_subject_key_id(authority->cert);
	return id && str_eq(str_of_asn1(id), str_mem(key_id, IDENTITY_KEY_ID_BYTES));
}

const struct build_authority *authority_find(
	const struct authority *a, const uint8_t key_id[IDENTITY_KEY_ID_BYTES])
{
	if (has_key_id(&a->issuing, key_id))
		return &a->issuing;
	for (size_t i = 0; i < a->other_count; i++)
		if (has_key_id(&a->others[i], key_id))
			return &a->others[i];
	return NULL;
}

int authority_issue(const struct authority *a, const struct authority_options *o,
	const struct ca_request *request, struct build_validity validity, struct buf *ret_der, struct err *e)
{
	return issue_by(a, &a->issuing, o, request, validity, ret_der, e);
}
