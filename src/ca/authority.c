/* authority.c - see authority.h. Every file appears whole under its name or not at all (base/file.h), keys
 * before the certificates made from them; so whatever is there is complete, and what is missing can be made
 * from it. */
#include "ca/authority.h"

#include <errno.h>
#include <openssl/pem.h>

#include "base/file.h"
#include "ca/key.h"

enum {
	PEM_BYTES_MAX = 64 * 1024,
	ROOT_DAYS = 3650,
	ISSUING_DAYS = 1825,
	DAY_MS = 24 * 60 * 60 * 1000,
	LOCK_WAIT_MS = 10000
};

static const char root_cert[] = "root.pem", root_key[] = "root.key", issuing_cert[] = "issuing.pem",
		  issuing_key[] = "issuing.key", bundle[] = "ca.pem", crl_number[] = "crl-number";

/* --- files in the CA's directory --- */

static bool exists(const struct authority_options *o, const char *name)
{
	AUTO(free_auto) char *path = path_join(o->dir, name);
	return path && access(path, F_OK) == 0;
}

static int read_cert(const struct authority_options *o, const char *name, X509 **ret, struct err *e)
{
	AUTO(free_auto) char *path = path_join(o->dir, name);
	AUTO(x509_stack_free_auto) STACK_OF(X509) *found = NULL;
	if (!path)
		return err_oom(e);
	if (x509_read_file(path, &found, e) < 0)
		return -1;
	if (sk_X509_num(found) != 1)
		return err_set(e, ERR_FATAL, "'%s' has more than one certificate", path);
	*ret = sk_X509_shift(found);
	return 0;
}

static int add_pem(X509 *cert, struct buf *out, struct err *e)
{
	AUTO(BIO_free_all_auto) BIO *bio = BIO_new(BIO_s_mem());
	if (!bio || !PEM_write_bio_X509(bio, cert))
		return err_openssl(e, ERR_FATAL, "write a certificate");
	char *text;
	long n = BIO_get_mem_data(bio, &text);
	buf_add(out, text, (size_t)n);
	return buf_check(out, e);
}

/* One certificate, or two in a row. */
static int write_certs(
	const struct authority_options *o, const char *name, X509 *first, X509 *second, struct err *e)
{
	AUTO(free_auto) char *path = path_join(o->dir, name);
	AUTO(buf_auto) struct buf pem;
	buf_init(&pem, PEM_BYTES_MAX);
	if (!path)
		return err_oom(e);
	if (add_pem(first, &pem, e) < 0 || (second && add_pem(second, &pem, e) < 0))
		return -1;
	return file_replace(path, 0644, buf_str(&pem), e);
}

static int read_passphrase(const struct authority_options *o, struct buf *ret, struct err *e)
{
	return o->passphrase_file ? passphrase_read(o->passphrase_file, ret, e) : 0;
}

/* The passphrase is read anew for every key: a child process that uses it once or twice keeps it nowhere. */
static int read_key(const struct authority_options *o, const char *name, EVP_PKEY **ret, struct err *e)
{
	AUTO(free_auto) char *path = path_join(o->dir, name);
	AUTO(buf_wipe_auto) struct buf passphrase;
	buf_init(&passphrase, PEM_BYTES_MAX);
	if (!path)
		return err_oom(e);
	return read_passphrase(o, &passphrase, e) < 0 ? -1 : key_load(path, buf_str(&passphrase), ret, e);
}

/* The key under this name, made first if it is not there. */
static int need_key(
	const struct authority_options *o, const char *name, struct str type, EVP_PKEY **ret, struct err *e)
{
	if (exists(o, name))
		return read_key(o, name, ret, e);
	AUTO(free_auto) char *path = path_join(o->dir, name);
	AUTO(buf_wipe_auto) struct buf passphrase;
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	buf_init(&passphrase, PEM_BYTES_MAX);
	if (!path)
		return err_oom(e);
	if (read_passphrase(o, &passphrase, e) < 0 || key_generate(type, &key, e) < 0 ||
		key_save(path, key, buf_str(&passphrase), e) < 0)
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

/* --- making --- */

static struct build_validity lifetime(const struct authority_options *o, int64_t days)
{
	return (struct build_validity){{o->now.ms - o->backdate_ms}, {o->now.ms + days * DAY_MS}};
}

static int make_root(const struct authority_options *o, struct build_authority *ret, struct err *e)
{
	if (need_key(o, root_key, o->root_key_type, &ret->key, e) < 0)
		return -1;
	if (exists(o, root_cert))
		return read_cert(o, root_cert, &ret->cert, e) < 0
			       ? -1
			       : check_pair(ret->cert, ret->key, root_cert, root_key, e);
	if (build_root(ret->key, o->trust_domain, lifetime(o, ROOT_DAYS), &ret->cert, e) < 0)
		return -1;
	return write_certs(o, root_cert, ret->cert, NULL, e);
}

static int make_issuing(const struct authority_options *o, struct err *e)
{
	struct build_authority root = {0};
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	AUTO(X509_free_auto) X509 *cert = NULL;
	int result = make_root(o, &root, e);
	if (result == 0)
		result = need_key(o, issuing_key, o->issuing_key_type, &key, e);
	if (result == 0)
		result = build_issuing(&root, key, o->trust_domain, lifetime(o, ISSUING_DAYS), &cert, e);
	if (result == 0)
		result = write_certs(o, issuing_cert, cert, NULL, e);
	X509_free(root.cert);
	EVP_PKEY_free(root.key);
	return result;
}

static int make_bundle(const struct authority_options *o, struct err *e)
{
	AUTO(X509_free_auto) X509 *root = NULL;
	AUTO(X509_free_auto) X509 *issuing = NULL;
	if (read_cert(o, root_cert, &root, e) < 0 || read_cert(o, issuing_cert, &issuing, e) < 0)
		return -1;
	return write_certs(o, bundle, root, issuing, e);
}

static int make_crl_number(const struct authority_options *o, struct err *e)
{
	AUTO(free_auto) char *path = path_join(o->dir, crl_number);
	return path ? crl_number_init(path, e) : err_oom(e);
}

static int make_missing(const struct authority_options *o, struct err *e)
{
	if (!exists(o, issuing_cert) && make_issuing(o, e) < 0)
		return -1;
	if (!exists(o, bundle) && make_bundle(o, e) < 0)
		return -1;
	return make_crl_number(o, e);
}

int authority_init(const struct authority_options *o, struct err *e)
{
	if (!identity_name_valid(str_of(o->trust_domain)))
		return err_set(e, ERR_REJECT, "trust domain must be [A-Za-z0-9][A-Za-z0-9._-]{0,63}");
	AUTO(fd_auto) int lock = -1;
	AUTO(free_auto) char *lock_path = path_join(o->dir, "lock");
	if (!lock_path)
		return err_oom(e);
	/* A signer whose daemon was killed finishes what it is at before it ends. */
	if (dir_make(o->dir, 0700, e) < 0 || file_lock_wait(lock_path, LOCK_WAIT_MS, &lock, e) < 0 ||
		make_missing(o, e) < 0)
		return -1;
	struct authority trial;
	if (authority_load(o, &trial, e) < 0)
		return -1;
	authority_clear(&trial);
	return 0;
}

/* --- loading --- */

static int load_parts(const struct authority_options *o, struct authority *a, struct err *e)
{
	AUTO(free_auto) char *number_path = path_join(o->dir, crl_number);
	if (!number_path)
		return err_oom(e);
	if (read_cert(o, root_cert, &a->root, e) < 0 || read_cert(o, issuing_cert, &a->issuing.cert, e) < 0 ||
		read_key(o, issuing_key, &a->issuing.key, e) < 0 ||
		check_pair(a->issuing.cert, a->issuing.key, issuing_cert, issuing_key, e) < 0)
		return -1;
	if (X509_verify(a->issuing.cert, X509_get0_pubkey(a->root)) != 1) {
		ERR_clear_error();
		return err_set(e, ERR_FATAL, "%s is not signed by %s", issuing_cert, root_cert);
	}
	return crl_number_open(number_path, &a->crl_number, e);
}

/* Signs a certificate that nobody gets. Also warms up what OpenSSL and libc set up lazily, which the signer
 * could not do once it has locked itself in. */
static int try_out(const struct authority *a, const struct authority_options *o, struct err *e)
{
	AUTO(openssl_free_auto) unsigned char *spki = NULL;
	AUTO(buf_auto) struct buf der;
	buf_init(&der, PEM_BYTES_MAX);
	int n = i2d_PUBKEY(a->issuing.key, &spki);
	if (n < 0)
		return err_openssl(e, ERR_FATAL, "write a public key");
	const struct ca_request request = {.role = ROLE_CLIENT,
		.name = STR("trial"),
		.domain = STR("trial"),
		.public_key_der = str_mem(spki, (size_t)n)};
	int result = authority_issue(a, o->trust_domain, &request, lifetime(o, 1), &der, e);
	return result < 0 ? err_context(e, "trial certificate") : 0;
}

int authority_load(const struct authority_options *o, struct authority *ret, struct err *e)
{
	*ret = (struct authority){.crl_number.fd = -1};
	if (load_parts(o, ret, e) == 0 && try_out(ret, o, e) == 0)
		return 0;
	authority_clear(ret);
	return err_context(e, "CA in '%s'", o->dir);
}

void authority_clear(struct authority *a)
{
	X509_free(a->issuing.cert);
	EVP_PKEY_free(a->issuing.key);
	X509_free(a->root);
	crl_number_close(&a->crl_number);
	*a = (struct authority){.crl_number.fd = -1};
}

/* --- issuing --- */

/* The profile's verdict on the DER that is about to leave, with its chain. */
static int check_issued(const struct authority *a, const char *trust_domain, struct str der, struct err *e)
{
	const unsigned char *at = (const unsigned char *)der.p;
	AUTO(X509_free_auto) X509 *leaf = d2i_X509(NULL, &at, (long)der.n);
	STACK_OF(X509) *chain = sk_X509_new_null();
	int result = -1;
	struct identity id;
	const char *rule;
	if (leaf && chain && sk_X509_push(chain, leaf) && sk_X509_push(chain, a->issuing.cert) &&
		sk_X509_push(chain, a->root))
		result = identity_check(chain, trust_domain, &id, &rule, e);
	else
		err_openssl(e, ERR_FATAL, "read a certificate back");
	sk_X509_free(chain);
	return result;
}

int authority_issue(const struct authority *a, const char *trust_domain, const struct ca_request *request,
	struct build_validity validity, struct buf *ret_der, struct err *e)
{
	AUTO(X509_free_auto) X509 *cert = NULL;
	AUTO(openssl_free_auto) unsigned char *der = NULL;
	if (build_leaf(&a->issuing, trust_domain, request, validity, &cert, e) < 0)
		return -1;
	int n = i2d_X509(cert, &der);
	if (n < 0)
		return err_openssl(e, ERR_FATAL, "write a certificate");
	if (check_issued(a, trust_domain, str_mem(der, (size_t)n), e) < 0)
		return -1;
	buf_add(ret_der, der, (size_t)n);
	return buf_check(ret_der, e);
}
