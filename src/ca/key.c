/* key.c - see key.h, and the two functions of ca.h that are about keys and need no CA. */
#include "ca/key.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <unistd.h>

#include "base/file.h"
#include "ca/ca.h"

AUTO_DEFINE(PKCS8_PRIV_KEY_INFO_free, PKCS8_PRIV_KEY_INFO *)
AUTO_DEFINE(X509_ALGOR_free, X509_ALGOR *)
AUTO_DEFINE(X509_SIG_free, X509_SIG *)

enum { KEY_FILE_BYTES_MAX = 16 * 1024, PASSPHRASE_BYTES_MAX = 1024, CSR_BYTES_MAX = 64 * 1024 };

/* scrypt at 16 MiB (OpenSSL's own bound is 32), five times over: as hard as 128 MiB once (OWASP). */
enum { SCRYPT_N = 1 << 14, SCRYPT_R = 8, SCRYPT_P = 5 };

/* --- making --- */

static EVP_PKEY *make_ec(size_t curve)
{
	static const char *const curves[] = {"P-256", "P-384"};
	return EVP_EC_gen(curves[curve]);
}

static EVP_PKEY *make_rsa(size_t bits)
{
	return EVP_RSA_gen(bits);
}

static EVP_PKEY *make_ed25519(size_t unused)
{
	return EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
}

static const struct {
	const char *name;
	EVP_PKEY *(*make)(size_t argument);
	size_t argument;
} key_types[] = {
	{"ec:P-256", make_ec, 0},
	{"ec:P-384", make_ec, 1},
	{"ed25519", make_ed25519, 0},
	{"rsa:2048", make_rsa, 2048},
	{"rsa:3072", make_rsa, 3072},
	{"rsa:4096", make_rsa, 4096},
};

int key_generate(struct str type, EVP_PKEY **ret, struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(key_types); i++)
		if (str_eq(type, str_of(key_types[i].name))) {
			*ret = key_types[i].make(key_types[i].argument);
			return *ret ? 0 : err_openssl(e, ERR_FATAL, "generate a key");
		}
	return err_set(e, ERR_REJECT,
		"unknown key type: use ec:P-256, ec:P-384, ed25519 or rsa:2048, rsa:3072, rsa:4096");
}

/* --- PEM --- */

/* Plain PKCS#8, in memory that is wiped. */
static int write_plain(BIO *out, EVP_PKEY *key)
{
	return PEM_write_bio_PKCS8PrivateKey(out, key, NULL, NULL, 0, NULL, NULL);
}

static int write_encrypted(BIO *out, EVP_PKEY *key, struct str passphrase)
{
	AUTO(PKCS8_PRIV_KEY_INFO_free_auto) PKCS8_PRIV_KEY_INFO *plain = EVP_PKEY2PKCS8(key);
	AUTO(X509_ALGOR_free_auto)
	X509_ALGOR *scheme =
		PKCS5_pbe2_set_scrypt(EVP_aes_256_cbc(), NULL, 0, NULL, SCRYPT_N, SCRYPT_R, SCRYPT_P);
	if (!plain || !scheme)
		return 0;
	AUTO(X509_SIG_free_auto)
	X509_SIG *sealed = PKCS8_set0_pbe(passphrase.p, (int)passphrase.n, plain, scheme);
	if (!sealed)
		return 0;
	TAKE(scheme);
	return PEM_write_bio_PKCS8(out, sealed);
}

int key_write_pem(EVP_PKEY *key, struct str passphrase, struct buf *out, struct err *e)
{
	AUTO(BIO_free_all_auto) BIO *bio = BIO_new(BIO_s_secmem());
	if (!bio || !(passphrase.n ? write_encrypted(bio, key, passphrase) : write_plain(bio, key)))
		return err_openssl(e, ERR_FATAL, "write a private key");
	buf_add_str(out, str_of_bio(bio));
	return buf_check(out, e);
}

int key_save(const char *path, EVP_PKEY *key, struct str passphrase, struct err *e)
{
	AUTO(buf_wipe_auto) struct buf pem;
	buf_init(&pem, KEY_FILE_BYTES_MAX);
	return key_write_pem(key, passphrase, &pem, e) < 0 ? -1 : file_replace(path, 0600, buf_str(&pem), e);
}

/* OpenSSL's question for the passphrase. */
static int answer_passphrase(char *out, int room, int writing, void *arg)
{
	const struct str *passphrase = arg;
	if (passphrase->n == 0 || passphrase->n > (size_t)room)
		return -1;
	memcpy(out, passphrase->p, passphrase->n);
	return (int)passphrase->n;
}

int key_load(const char *path, struct str passphrase, EVP_PKEY **ret, struct err *e)
{
	AUTO(BIO_free_all_auto) BIO *file = NULL;
	if (bio_open_file(path, true, &file, e) < 0)
		return -1;
	*ret = PEM_read_bio_PrivateKey(file, NULL, answer_passphrase, &passphrase);
	if (*ret)
		return 0;
	if (passphrase.n == 0 && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_BAD_PASSWORD_READ) {
		ERR_clear_error();
		return err_set(e, ERR_FATAL, "'%s' is encrypted; set key_passphrase_file", path);
	}
	if (passphrase.n) {
		ERR_clear_error();
		return err_set(e, ERR_FATAL,
			"'%s' is damaged, or not encrypted by the passphrase of key_passphrase_file", path);
	}
	err_openssl(e, ERR_FATAL, "bad private key");
	return err_context(e, "'%s'", path);
}

int key_read_pem(struct str pem, struct str passphrase, EVP_PKEY **ret, struct err *e)
{
	AUTO(BIO_free_all_auto)
	BIO *bio = pem.n <= KEY_FILE_BYTES_MAX ? BIO_new_mem_buf(pem.p, (int)pem.n) : NULL;
	*ret = bio ? PEM_read_bio_PrivateKey(bio, NULL, answer_passphrase, &passphrase) : NULL;
	ERR_clear_error();
	return *ret ? 0 : err_set(e, ERR_REJECT, "not a private key as PEM, or not its passphrase");
}

/* The next line, without its end. */
static void take_line(BIO *file, struct buf *out)
{
	char line[PASSPHRASE_BYTES_MAX + 1];
	int n = BIO_gets(file, line, sizeof(line));
	while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
		n--;
	if (n > 0)
		buf_add(out, line, (size_t)n);
	OPENSSL_cleanse(line, sizeof(line));
}

int passphrase_read(const char *path, struct buf *ret, struct buf *ret_older, struct err *e)
{
	AUTO(BIO_free_all_auto) BIO *file = NULL;
	if (bio_open_file(path, true, &file, e) < 0)
		return -1;
	take_line(file, ret);
	if (ret->n == 0)
		return err_set(e, ERR_FATAL, "'%s' has no passphrase in its first line", path);
	if (ret_older)
		take_line(file, ret_older);
	return buf_check(ret, e);
}

/* --- ca.h --- */

static int spki_der(EVP_PKEY *key, struct buf *out, struct err *e)
{
	AUTO(openssl_free_auto) unsigned char *der = NULL;
	int n = i2d_PUBKEY(key, &der);
	if (n < 0)
		return err_openssl(e, ERR_FATAL, "write a public key");
	buf_add(out, der, (size_t)n);
	return buf_check(out, e);
}

int ca_generate_key(struct str type, struct buf *ret_pem, struct buf *ret_spki_der, struct err *e)
{
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	if (key_generate(type, &key, e) < 0 || key_write_pem(key, STR(""), ret_pem, e) < 0)
		return -1;
	return spki_der(key, ret_spki_der, e);
}

/* PEM when it looks like it, else exactly one DER element. */
static X509_REQ *csr_read(struct str csr)
{
	AUTO(X509_REQ_free_auto) X509_REQ *req = NULL;
	if (csr.n > CSR_BYTES_MAX)
		return NULL;
	if (memmem(csr.p, csr.n, "-----BEGIN", strlen("-----BEGIN"))) {
		AUTO(BIO_free_all_auto) BIO *bio = BIO_new_mem_buf(csr.p, (int)csr.n);
		return bio ? PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL) : NULL;
	}
	const unsigned char *at = (const unsigned char *)csr.p;
	req = d2i_X509_REQ(NULL, &at, (long)csr.n);
	return req && (const char *)at == csr.p + csr.n ? TAKE(req) : NULL;
}

/* How a request may be signed: as certificates are, by SHA-2 or Ed25519 (RSASSA-PSS hides its digest in parameters; no
 * common tool signs requests with it by itself). */
static bool csr_signature_ok(const X509_REQ *req)
{
	static const int allowed[] = {NID_ecdsa_with_SHA256, NID_ecdsa_with_SHA384, NID_ecdsa_with_SHA512,
		NID_sha256WithRSAEncryption, NID_sha384WithRSAEncryption, NID_sha512WithRSAEncryption,
		NID_ED25519};
	for (size_t i = 0; i < ARRAY_LEN(allowed); i++)
		if (X509_REQ_get_signature_nid(req) == allowed[i])
			return true;
	return false;
}

int ca_csr_public_key(struct str csr, struct buf *ret_spki_der, struct err *e)
{
	AUTO(X509_REQ_free_auto) X509_REQ *req = csr_read(csr);
	const char *fault;
	ERR_clear_error();
	if (!req)
		return err_set(e, ERR_REJECT, "CSR: neither PEM nor DER of a PKCS #10 request");
	if (!profile_key_ok(X509_REQ_get_X509_PUBKEY(req), &fault))
		return err_set(e, ERR_REJECT, "CSR: %s", fault);
	if (!csr_signature_ok(req))
		return err_set(e, ERR_REJECT, "CSR: signed by an algorithm other than SHA-2 or Ed25519");
	EVP_PKEY *key = X509_REQ_get0_pubkey(req);
	if (X509_REQ_verify(req, key) != 1) {
		ERR_clear_error();
		return err_set(e, ERR_REJECT, "CSR: its signature is not by its key");
	}
	return spki_der(key, ret_spki_der, e);
}
