/* openssl.c - see openssl.h. */
#include "tls/openssl.h"

#include <fcntl.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

/* Enough for any chain or bundle of ours; keeps a wrong file from filling memory. */
enum { CERTIFICATES_MAX = 64 };

int err_openssl(struct err *e, enum err_kind kind, const char *what)
{
	char text[ERR_TEXT_BYTES] = "";
	size_t n = 0;
	const char *data;
	int flags;
	for (unsigned long code; (code = ERR_get_error_all(NULL, NULL, NULL, &data, &flags)) != 0;) {
		const char *reason = ERR_reason_error_string(code);
		bool has_data = (flags & ERR_TXT_STRING) && *data;
		int m = snprintf(text + n, sizeof(text) - n, ": %s%s%s", reason ? reason : "unknown error",
			has_data ? ": " : "", has_data ? data : "");
		if (m > 0)
			n += (size_t)m < sizeof(text) - n ? (size_t)m : sizeof(text) - n - 1;
	}
	return err_set(e, kind, "%s%s", what, text);
}

const char *tls_alert_name(int alert)
{
	static const struct {
		int alert;
		const char *name;
	} newer[] = {{SSL_AD_MISSING_EXTENSION, "missing extension"},
		{SSL_AD_CERTIFICATE_REQUIRED, "certificate required"}};
	for (size_t i = 0; i < ARRAY_LEN(newer); i++)
		if (newer[i].alert == alert)
			return newer[i].name;
	return SSL_alert_desc_string_long(alert);
}

bool wall_of_asn1(const ASN1_TIME *t, struct wall *ret)
{
	struct tm tm;
	if (!t || !ASN1_TIME_to_tm(t, &tm))
		return false;
	ret->ms = (int64_t)timegm(&tm) * 1000;
	return true;
}

static bool mode_is_secret(const struct stat *st)
{
	mode_t allowed = S_IRWXU | (st->st_uid == 0 ? S_IRGRP : 0);
	return (st->st_mode & ACCESSPERMS & ~allowed) == 0;
}

static int check_file(int fd, const char *path, bool secret, struct err *e)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return err_sys(e, ERR_FATAL, "stat '%s'", path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, ERR_FATAL, "'%s' is not a regular file", path);
	if (secret && !mode_is_secret(&st))
		return err_set(e, ERR_FATAL, "'%s' may be read by others (mode %04o): chmod 600 it", path,
			(unsigned)(st.st_mode & ALLPERMS));
	return 0;
}

int bio_open_file(const char *path, bool secret, BIO **ret, struct err *e)
{
	AUTO(fd_auto) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return err_sys(e, ERR_FATAL, "open '%s'", path);
	if (check_file(fd, path, secret, e) < 0)
		return -1;
	FILE *file = fdopen(fd, "r");
	if (!file)
		return err_sys(e, ERR_FATAL, "open '%s'", path);
	TAKE_FD(fd);
	*ret = BIO_new_fp(file, BIO_CLOSE);
	if (*ret)
		return 0;
	fclose(file);
	return err_oom(e);
}

/* Whether reading stopped because the file has no more PEM blocks. */
static bool pem_ended(void)
{
	unsigned long code = ERR_peek_last_error();
	if (ERR_GET_LIB(code) != ERR_LIB_PEM || ERR_GET_REASON(code) != PEM_R_NO_START_LINE)
		return false;
	ERR_clear_error();
	return true;
}

/* All certificates up to the end, or one more than `max`: the caller says that they are too many. */
static int read_certs(BIO *in, int max, STACK_OF(X509) * *ret, struct err *e)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *certs = sk_X509_new_null();
	if (!certs)
		return err_oom(e);
	for (X509 *cert; sk_X509_num(certs) <= max && (cert = PEM_read_bio_X509(in, NULL, NULL, NULL));)
		if (!sk_X509_push(certs, cert)) {
			X509_free(cert);
			return err_oom(e);
		}
	if (sk_X509_num(certs) <= max && !pem_ended())
		return err_openssl(e, ERR_REJECT, "bad certificate");
	*ret = TAKE(certs);
	return 0;
}

int x509_read_file(const char *path, STACK_OF(X509) * *ret, struct err *e)
{
	AUTO(BIO_free_all_auto) BIO *file = NULL;
	AUTO(x509_stack_free_auto) STACK_OF(X509) *certs = NULL;
	struct err why = ERR_INIT;
	if (bio_open_file(path, false, &file, e) < 0)
		return -1;
	if (read_certs(file, CERTIFICATES_MAX, &certs, &why) < 0)
		return err_set(e, why.kind == ERR_REJECT ? ERR_FATAL : why.kind, "'%s': %s", path, why.text);
	if (sk_X509_num(certs) > CERTIFICATES_MAX)
		return err_set(e, ERR_FATAL, "'%s' has more than %d certificates", path, CERTIFICATES_MAX);
	if (sk_X509_num(certs) == 0)
		return err_set(e, ERR_FATAL, "'%s' has no certificate in PEM", path);
	*ret = TAKE(certs);
	return 0;
}

int x509_read_pem(struct str pem, STACK_OF(X509) * *ret, struct err *e)
{
	AUTO(BIO_free_all_auto) BIO *in = BIO_new_mem_buf(pem.n ? pem.p : "", (int)pem.n);
	AUTO(x509_stack_free_auto) STACK_OF(X509) *certs = NULL;
	if (!in)
		return err_oom(e);
	if (read_certs(in, INT_MAX - 1, &certs, e) < 0)
		return -1;
	if (sk_X509_num(certs) == 0)
		return err_set(e, ERR_REJECT, "no certificate in PEM");
	*ret = TAKE(certs);
	return 0;
}

struct str str_of_bio(BIO *bio)
{
	char *text;
	long n = BIO_get_mem_data(bio, &text);
	return str_mem(text, (size_t)n);
}

int x509_write_pem(X509 *cert, struct buf *out, struct err *e)
{
	AUTO(BIO_free_all_auto) BIO *bio = BIO_new(BIO_s_mem());
	if (!bio || !PEM_write_bio_X509(bio, cert))
		return err_openssl(e, ERR_FATAL, "write a certificate");
	buf_add_str(out, str_of_bio(bio));
	return buf_check(out, e);
}

/* In place of OpenSSL's own, which would ask on the terminal. */
static int no_passphrase(char *out, int room, int writing, void *arg)
{
	return -1;
}

int key_read_file(const char *path, EVP_PKEY **ret, struct err *e)
{
	AUTO(BIO_free_all_auto) BIO *file = NULL;
	if (bio_open_file(path, true, &file, e) < 0)
		return -1;
	*ret = PEM_read_bio_PrivateKey(file, NULL, no_passphrase, NULL);
	if (*ret)
		return 0;
	err_openssl(e, ERR_FATAL, "bad private key");
	return err_context(e, "'%s'", path);
}
