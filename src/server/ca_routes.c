/* ca_routes.c - what the CA publishes to anyone: its certificates and the revocation list. */
#include <openssl/evp.h>
#include <stdio.h>

#include "base/auto.h"
#include "server/internal.h"

enum { ETAG_BYTES = 24, CRL_BYTES = 64 * 1024 * 1024 };

#define ANYONE                                                                                               \
	(ROLE_BIT(ROLE_NONE) | ROLE_BIT(ROLE_CLIENT) | ROLE_BIT(ROLE_PROXY) | ROLE_BIT(ROLE_WORKER) |        \
		ROLE_BIT(ROLE_SERVER) | ROLE_BIT(ROLE_MONITOR) | ROLE_BIT(ROLE_ADMIN))

/* Whether If-None-Match names the tag: "*", or a list compared weakly (RFC 9110 section 13.1.2). */
static bool has_tag(struct str list, struct str etag)
{
	struct str rest = list, item;
	while (rest.n) {
		if (!str_cut(&rest, ',', &item)) {
			item = rest;
			rest.n = 0;
		}
		item = str_trim(item);
		if (str_starts(item, STR("W/")))
			item = str_mem(item.p + 2, item.n - 2);
		if (str_eq(item, etag) || str_eq(item, STR("*")))
			return true;
	}
	return false;
}

/* A strong ETag over the content; 304 when the client has it already. */
static void reply_tagged(struct http_request *r, const char *content_type, struct str body)
{
	uint8_t digest[32];
	char etag[ETAG_BYTES], hex[17];
	if (EVP_Q_digest(NULL, "SHA256", NULL, body.p, body.n, digest, NULL) != 1) {
		http_reply_problem(r, PROBLEM_INTERNAL_ERROR, NULL);
		return;
	}
	hex_encode(digest, 8, hex);
	snprintf(etag, sizeof(etag), "\"%s\"", hex);
	http_set_header(r, "ETag", str_of(etag));
	http_set_header(r, "Cache-Control", STR("max-age=300"));
	if (has_tag(http_header(r, STR("if-none-match")), str_of(etag)))
		http_reply(r, 304, NULL, (struct str){"", 0});
	else
		http_reply(r, 200, content_type, body);
}

static void get_ca(struct http_request *r)
{
	reply_tagged(r, "application/x-pem-file", ca_bundle(server_of(r)->ca));
}

static void reply_crl(struct http_request *r, enum crl_form form, const char *content_type)
{
	AUTO(buf_auto) struct buf list;
	struct err e = ERR_INIT;
	buf_init(&list, CRL_BYTES);
	if (crl_copy(server_of(r)->crl, form, &list, NULL, &e) < 0)
		http_reply_err(r, &e);
	else
		reply_tagged(r, content_type, buf_str(&list));
}

static void get_crl_pem(struct http_request *r)
{
	reply_crl(r, CRL_PEM, "application/x-pem-file");
}

static void get_crl_der(struct http_request *r)
{
	reply_crl(r, CRL_DER, "application/pkix-crl");
}

/* The issuing CA that the path names; NULL: the request was answered. */
static const struct ca_issuer *issuer_of(struct http_request *r)
{
	uint8_t key_id[IDENTITY_KEY_ID_BYTES];
	const struct ca_issuer *issuer = hex_decode(r->params[0], key_id, sizeof(key_id))
						 ? ca_issuer_find(server_of(r)->ca, key_id)
						 : NULL;
	struct err e = ERR_INIT;
	if (!issuer) {
		(void)err_set(&e, ERR_NOT_FOUND, "no issuing CA has this key");
		http_reply_err(r, &e);
	}
	return issuer;
}

/* The types that RFC 2585 sections 4.1 and 4.2 name. */
static void get_issuer(struct http_request *r)
{
	const struct ca_issuer *issuer = issuer_of(r);
	if (issuer)
		reply_tagged(r, "application/pkix-cert", issuer->der);
}

static void get_issuer_crl(struct http_request *r)
{
	const struct ca_issuer *issuer = issuer_of(r);
	AUTO(buf_auto) struct buf list;
	struct err e = ERR_INIT;
	buf_init(&list, CRL_BYTES);
	if (!issuer)
		return;
	if (crl_copy_of(server_of(r)->crl, issuer->key_id, &list, &e) < 0)
		http_reply_err(r, &e);
	else
		reply_tagged(r, "application/pkix-crl", buf_str(&list));
}

const struct http_route ca_routes[] = {
	{"GET", "/ca/ca.pem", ANYONE, true, get_ca, "The CA's certificates: what everyone trusts", 0},
	{"GET", "/ca/crl.pem", ANYONE, true, get_crl_pem, "The revocation lists of all issuing CAs, as PEM",
		0},
	{"GET", "/ca/crl.der", ANYONE, true, get_crl_der, "The current issuing CA's revocation list, as DER",
		0},
	{"GET", "/ca/issuers/{key_id}/ca.der", ANYONE, true, get_issuer,
		"One issuing CA's certificate, as DER", 0},
	{"GET", "/ca/issuers/{key_id}/crl.der", ANYONE, true, get_issuer_crl,
		"One issuing CA's revocation list, as DER", 0},
	{0},
};
