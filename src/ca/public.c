/* public.c - see public.h. */
#include "ca/public.h"

#include "base/file.h"

/* Fresh memory that the issuer owns; .p NULL: none. */
static struct str copy_of(struct str s)
{
	char *copy = malloc(s.n);
	if (copy)
		memcpy(copy, s.p, s.n);
	return (struct str){copy, copy ? s.n : 0};
}

static void free_text(struct str s)
{
	free((char *)(uintptr_t)s.p);
}

static void issuer_clear(struct ca_issuer *issuer)
{
	free_text(issuer->pem);
	free_text(issuer->der);
	free((char *)(uintptr_t)issuer->crl_path);
}

static int take_texts(X509 *cert, struct ca_issuer *ret, struct err *e)
{
	AUTO(openssl_free_auto) unsigned char *der = NULL;
	AUTO(buf_auto) struct buf pem;
	buf_init(&pem, CA_PEM_BYTES_MAX);
	int n = i2d_X509(cert, &der);
	if (n < 0)
		return err_openssl(e, ERR_FATAL, "write a certificate");
	if (x509_write_pem(cert, &pem, e) < 0)
		return -1;
	ret->pem = copy_of(buf_str(&pem));
	ret->der = copy_of(str_mem(der, (size_t)n));
	return ret->pem.p && ret->der.p ? 0 : err_oom(e);
}

static int issuer_fill(
	const char *dir, X509 *cert, const char *crl_file, struct ca_issuer *ret, struct err *e)
{
	if (files_id(cert, ret->id, e) < 0 || take_texts(cert, ret, e) < 0)
		return -1;
	if (!hex_decode(str_of(ret->id), ret->key_id, sizeof(ret->key_id)) ||
		!wall_of_asn1(X509_get0_notBefore(cert), &ret->not_before) ||
		!wall_of_asn1(X509_get0_notAfter(cert), &ret->not_after))
		return err_set(e, ERR_FATAL, "CA: a certificate in '%s' has no readable times", dir);
	ret->crl_path = path_join(dir, crl_file);
	return ret->crl_path ? 0 : err_oom(e);
}

static int add_issuer(const struct ca_files *f, const char *cert_file, const char *crl_file,
	struct ca_public *p, struct err *e)
{
	AUTO(X509_free_auto) X509 *cert = NULL;
	struct ca_issuer issuer = {0};
	if (files_read_cert(f, cert_file, &cert, e) < 0)
		return -1;
	if (issuer_fill(f->dir, cert, crl_file, &issuer, e) < 0) {
		issuer_clear(&issuer);
		return -1;
	}
	/* In the middle of a rotation, the current one is there under both names. */
	if (p->issuer_count == CA_ISSUERS_MAX || public_find(p, issuer.key_id))
		issuer_clear(&issuer);
	else
		p->issuers[p->issuer_count++] = issuer;
	return 0;
}

static int read_issuers(const struct ca_files *f, struct ca_public *p, struct err *e)
{
	struct ca_ids others;
	if (add_issuer(f, ca_issuing_cert, "crl.der", p, e) < 0 || files_others(f, ".pem", &others, e) < 0)
		return -1;
	for (size_t i = 0; i < others.count; i++) {
		char cert[CA_FILE_BYTES], crl[CA_FILE_BYTES];
		files_name("issuing", others.id[i], ".pem", cert);
		files_name("crl", others.id[i], ".der", crl);
		if (add_issuer(f, cert, crl, p, e) < 0)
			return -1;
	}
	return 0;
}

static int read_root(const struct ca_files *f, struct ca_public *p, struct err *e)
{
	AUTO(X509_free_auto) X509 *root = NULL;
	if (files_read_cert(f, ca_root_cert, &root, e) < 0)
		return -1;
	return wall_of_asn1(X509_get0_notAfter(root), &p->root_not_after)
		       ? 0
		       : err_set(e, ERR_FATAL, "CA: %s has no readable end", ca_root_cert);
}

int public_read(const char *dir, struct ca_public **ret, struct err *e)
{
	const struct ca_files files = {.dir = dir};
	AUTO(free_auto) char *bundle = path_join(dir, ca_bundle_file);
	struct ca_public *p = calloc(1, sizeof(*p));
	if (!bundle || !p) {
		free(p);
		return err_oom(e);
	}
	buf_init(&p->bundle, CA_PEM_BYTES_MAX);
	if (file_read(bundle, CA_PEM_BYTES_MAX, &p->bundle, e) < 0 || read_root(&files, p, e) < 0 ||
		read_issuers(&files, p, e) < 0) {
		public_free(p);
		return -1;
	}
	*ret = p;
	return 0;
}

void public_free(struct ca_public *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->issuer_count; i++)
		issuer_clear(&p->issuers[i]);
	buf_clear(&p->bundle);
	free(p);
}

const struct ca_issuer *public_find(const struct ca_public *p, const uint8_t key_id[IDENTITY_KEY_ID_BYTES])
{
	for (size_t i = 0; i < p->issuer_count; i++)
		if (memcmp(p->issuers[i].key_id, key_id, IDENTITY_KEY_ID_BYTES) == 0)
			return &p->issuers[i];
	return NULL;
}
