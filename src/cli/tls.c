/* tls.c - see tls.h. */
#include "cli/tls.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/buf.h"
#include "cli/answer.h"
#include "cli/cli.h"
#include "cli/term.h"
#include "tls/openssl.h"

enum { TEXT_BYTES = 1024, DAY_MS = 24 * 60 * 60 * 1000 };

/* --- steps --- */

static const struct {
	const char *name, *shown;
	enum term_style style;
} verdicts[STEP_VERDICTS] = {
	[STEP_OK] = {"ok", "ok", TERM_GREEN},
	[STEP_NOTE] = {"note", "-", TERM_DIM},
	[STEP_WARNING] = {"warning", "warning", TERM_YELLOW},
	[STEP_FAILED] = {"failed", "FAILED", TERM_RED},
};

void steps_add(json_t *steps, enum step_verdict verdict, const char *name, const char *fmt, ...)
{
	char detail[TEXT_BYTES];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(detail, sizeof(detail), fmt, ap);
	va_end(ap);
	/* A peer's text may be no UTF-8, and may have been cut within a character. */
	json_t *text = json_string(detail);
	if (!text)
		text = json_string("(not text)");
	json_array_append_new(steps, json_pack("{s:s, s:s, s:o}", "verdict", verdicts[verdict].name, "name",
					     name, "detail", text));
}

static void print_verdict(struct term_table *t, const char *name)
{
	for (size_t i = 0; i < STEP_VERDICTS; i++)
		if (strcmp(name, verdicts[i].name) == 0) {
			term_table_cell(t, "%s", verdicts[i].shown);
			term_table_style(t, verdicts[i].style);
		}
}

int steps_print(const json_t *steps, struct err *e)
{
	static const struct term_column columns[] = {{NULL, false}, {NULL, false}, {NULL, false}};
	AUTO(term_table_free_auto) struct term_table *t = term_table_new(columns, ARRAY_LEN(columns));
	size_t i;
	const json_t *step;
	if (!t)
		return err_oom(e);
	json_array_foreach(steps, i, step)
	{
		print_verdict(t, json_text(step, "verdict"));
		term_table_cell(t, "%s", json_text(step, "name"));
		term_table_cell(t, "%s", json_text(step, "detail"));
	}
	return term_table_print(t, stdout, e);
}

/* --- certificates --- */

int64_t tls_days_left(struct wall end, struct wall now)
{
	int64_t ms = end.ms - now.ms;
	return ms >= 0 ? ms / DAY_MS : -((-ms + DAY_MS - 1) / DAY_MS);
}

json_t *tls_name_json(const X509_NAME *name)
{
	AUTO(BIO_free_all_auto) BIO *out = BIO_new(BIO_s_mem());
	if (!out || X509_NAME_print_ex(out, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) < 0)
		return json_string("?");
	struct str text = str_of_bio(out);
	json_t *json = json_stringn(text.p, text.n);
	return json ? json : json_string("(not text)");
}

static json_t *address_json(const ASN1_STRING *value)
{
	char text[INET6_ADDRSTRLEN];
	int family = ASN1_STRING_length(value) == 4 ? AF_INET : AF_INET6;
	if (family == AF_INET6 && ASN1_STRING_length(value) != 16)
		return NULL;
	return inet_ntop(family, ASN1_STRING_get0_data(value), text, sizeof(text)) ? json_string(text) : NULL;
}

/* DNS names, addresses and URIs. */
static json_t *alternative_names(const X509 *cert)
{
	json_t *all = json_array();
	AUTO(GENERAL_NAMES_free_auto)
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		int type;
		const ASN1_STRING *value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &type);
		json_t *text = NULL;
		if (type == GEN_DNS || type == GEN_URI)
			text = json_stringn((const char *)ASN1_STRING_get0_data(value),
				(size_t)ASN1_STRING_length(value));
		else if (type == GEN_IPADD)
			text = address_json(value);
		if (text)
			json_array_append_new(all, text);
	}
	ERR_clear_error();
	return all;
}

json_t *tls_cert_json(X509 *cert, struct wall now)
{
	char serial[128] = "", from[RFC3339_BYTES] = "", to[RFC3339_BYTES] = "";
	struct wall start = {0}, end = {0};
	struct str number = str_of_asn1(X509_get0_serialNumber(cert));
	if (number.n <= sizeof(serial) / 2 - 1)
		hex_encode(number.p, number.n, serial);
	if (wall_of_asn1(X509_get0_notBefore(cert), &start))
		wall_format(start, from);
	if (wall_of_asn1(X509_get0_notAfter(cert), &end))
		wall_format(end, to);
	return json_pack("{s:o, s:o, s:s, s:s, s:s, s:I, s:o}", "subject",
		tls_name_json(X509_get_subject_name(cert)), "issuer",
		tls_name_json(X509_get_issuer_name(cert)), "serial", serial, "not_before", from, "not_after",
		to, "days_left", (json_int_t)tls_days_left(end, now), "names", alternative_names(cert));
}

void tls_cert_words(const json_t *cert, char *out, size_t room)
{
	int64_t days = json_number(cert, "days_left");
	char rest[64];
	if (days < 0)
		snprintf(rest, sizeof(rest), "ENDED %lld day(s) ago", (long long)-days);
	else
		snprintf(rest, sizeof(rest), "%lld days left", (long long)days);
	snprintf(out, room, "%s, issued by %s, until %.10s, %s", json_text(cert, "subject"),
		json_text(cert, "issuer"), json_text(cert, "not_after"), rest);
}

/* --- what a peer can do --- */

/* The names of RFC 8446 section 4.2.3; OpenSSL 3.0 has them only for some. */
static const struct {
	unsigned code;
	const char *name;
} algorithm_names[] = {
	{0x0401, "rsa_pkcs1_sha256"},
	{0x0501, "rsa_pkcs1_sha384"},
	{0x0601, "rsa_pkcs1_sha512"},
	{0x0403, "ecdsa_secp256r1_sha256"},
	{0x0503, "ecdsa_secp384r1_sha384"},
	{0x0603, "ecdsa_secp521r1_sha512"},
	{0x0804, "rsa_pss_rsae_sha256"},
	{0x0805, "rsa_pss_rsae_sha384"},
	{0x0806, "rsa_pss_rsae_sha512"},
	{0x0807, "ed25519"},
	{0x0808, "ed448"},
	{0x0809, "rsa_pss_pss_sha256"},
	{0x080a, "rsa_pss_pss_sha384"},
	{0x080b, "rsa_pss_pss_sha512"},
	{0x0201, "rsa_pkcs1_sha1"},
	{0x0203, "ecdsa_sha1"},
};

static json_t *algorithm_json(unsigned code)
{
	char number[8];
	for (size_t i = 0; i < ARRAY_LEN(algorithm_names); i++)
		if (algorithm_names[i].code == code)
			return json_string(algorithm_names[i].name);
	snprintf(number, sizeof(number), "0x%04x", code & 0xffff);
	return json_string(number);
}

json_t *tls_peer_algorithms(SSL *ssl)
{
	json_t *all = json_array();
	int count = SSL_get_sigalgs(ssl, 0, NULL, NULL, NULL, NULL, NULL);
	for (int i = 0; i < count; i++) {
		unsigned char low, high;
		if (SSL_get_sigalgs(ssl, i, NULL, NULL, NULL, &low, &high) > 0)
			json_array_append_new(all, algorithm_json((unsigned)high << 8 | low));
	}
	return all;
}

void tls_join(const json_t *texts, size_t max, char *out, size_t room)
{
	struct buf joined = {.p = out, .room = room - 1, .ceiling_bytes = room - 1};
	size_t count = json_array_size(texts);
	for (size_t i = 0; i < count && i < max; i++)
		buf_addf(&joined, "%s%s", i ? ", " : "", json_string_value(json_array_get(texts, i)));
	if (count > max)
		buf_addf(&joined, ", and %zu more", count - max);
	out[joined.n] = 0;
}

int cmd_tls(int argc, char **argv)
{
	static const struct command table[] = {
		{"check", NULL, "try a server and tell what happens, step by step", cmd_tls_check},
		{"serve", NULL, "be a small server that tells what clients do", cmd_tls_serve},
		{0},
	};
	return cli_dispatch("tls", table, argc, argv);
}
