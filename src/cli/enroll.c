/* enroll.c - sealpost enroll: a device fetches its first certificate with a token.
 *
 * In order: ask whoever answers for its CA's certificates; hold the root against the token's pin; only then, to
 * a server that this root vouches for, show the secret. The key is made first and kept in NAME.key.new until the
 * certificate is on disk, so a run that was cut off, wherever, is made up for by the next one: the server gives
 * the same key the same certificate. */
#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "ca/ca.h"
#include "cli/cli.h"
#include "cli/est.h"
#include "cli/pair.h"
#include "crypto/enroll.h"
#include "tls/certs_only.h"
#include "tls/identity.h"

enum { KEY_BYTES = 16 * 1024, PEM_BYTES = 1 << 20, TIMEOUT_S = 30, TIMEOUT_S_MAX = 3600 };

struct enrolment {
	const char *out, *key_type, *url;
	int64_t timeout_s;
	bool force;
	struct enroll_token token;
	char *cert_path, *key_path, *new_key_path, *ca_path;
	struct est_peer peer;
	struct buf key_pem, ca_pem, chain_pem;
	EVP_PKEY *key;
	STACK_OF(X509) * authorities;
	X509 *cert;
};

/* --- where things go --- */

static char *file_path(const struct enrolment *n, const char *name, const char *suffix)
{
	char file[ENROLL_NAME_BYTES + 16];
	snprintf(file, sizeof(file), "%s%s", name, suffix);
	return path_join(n->out, file);
}

static int find_paths(struct enrolment *n, struct err *e)
{
	n->cert_path = file_path(n, n->token.name, ".pem");
	n->key_path = file_path(n, n->token.name, ".key");
	n->new_key_path = file_path(n, n->token.name, ".key.new");
	n->ca_path = file_path(n, "ca", ".pem");
	return n->cert_path && n->key_path && n->new_key_path && n->ca_path ? 0 : err_oom(e);
}

/* A pair that is there is not thrown away by mistake; an interrupted enrolment is gone on with. */
static int check_not_there(const struct enrolment *n, struct err *e)
{
	struct stat st;
	if (n->force || stat(n->cert_path, &st) < 0 || stat(n->key_path, &st) < 0 ||
		stat(n->new_key_path, &st) == 0)
		return 0;
	return err_set(e, ERR_CONFLICT,
		"'%s' is there already: this device is enrolled; to renew: sealpost renew; to enrol anew: --force",
		n->cert_path);
}

/* --- the token --- */

/* As an argument, or from standard input where the list of processes must not show it. */
static int read_token(const char *arg, struct enroll_token *ret, struct err *e)
{
	if (strcmp(arg, "-") != 0)
		return enroll_token_read(str_of(arg), ret, e);
	char line[ENROLL_TOKEN_BYTES];
	if (!fgets(line, sizeof(line), stdin))
		return err_set(e, ERR_REJECT, "no token on standard input");
	int rc = enroll_token_read(str_of(line), ret, e);
	OPENSSL_cleanse(line, sizeof(line));
	return rc;
}

/* --- the key --- */

static int make_key(struct enrolment *n, struct err *e)
{
	AUTO(buf_auto) struct buf spki;
	buf_init(&spki, KEY_BYTES);
	if (dir_make(n->out, 0755, e) < 0 || ca_generate_key(str_of(n->key_type), &n->key_pem, &spki, e) < 0)
		return -1;
	return file_replace(n->new_key_path, 0600, buf_str(&n->key_pem), e);
}

static int take_key(struct enrolment *n, struct err *e)
{
	struct stat st;
	if (stat(n->new_key_path, &st) < 0 ? make_key(n, e) < 0
					   : file_read(n->new_key_path, KEY_BYTES, &n->key_pem, e) < 0)
		return -1;
	return est_key_read(buf_str(&n->key_pem), &n->key, e) < 0 ? err_context(e, "'%s'", n->new_key_path)
								  : 0;
}

/* --- the server --- */

/* Leaves the roots that have the pin, and what they vouch for, as PEM. */
static int hold_against_pin(struct enrolment *n, STACK_OF(X509) * shown, struct err *e)
{
	STACK_OF(X509) *pinned = sk_X509_new_null();
	uint8_t pin[X509_PIN_BYTES];
	int rc = pinned ? 0 : err_oom(e);
	for (int i = 0; rc >= 0 && i < sk_X509_num(shown); i++) {
		X509 *cert = sk_X509_value(shown, i);
		rc = x509_pin(cert, pin, e);
		if (rc >= 0 && X509_self_signed(cert, 1) == 1 &&
			bytes_eq_consttime(pin, n->token.pin, sizeof(pin)) && !sk_X509_push(pinned, cert))
			rc = err_oom(e);
	}
	ERR_clear_error();
	if (rc >= 0 && sk_X509_num(pinned) == 0)
		rc = err_set(e, ERR_FORBIDDEN,
			"%s is not the server that made this token (its CA has another key); nothing was sent to it",
			n->peer.url);
	if (rc >= 0)
		rc = est_trusted(shown, pinned, &n->ca_pem, e);
	sk_X509_free(pinned);
	return rc;
}

static int fetch(struct enrolment *n, struct err *e)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *shown = NULL;
	if (est_cacerts(&n->peer, &shown, e) < 0 || hold_against_pin(n, shown, e) < 0 ||
		x509_read_pem(buf_str(&n->ca_pem), &n->authorities, e) < 0)
		return -1;
	n->peer.anchors = buf_str(&n->ca_pem);
	n->peer.user = n->token.name;
	n->peer.secret = n->token.secret;
	AUTO(X509_NAME_free_auto) X509_NAME *subject = X509_NAME_new();
	if (!subject || !X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_UTF8,
				(const unsigned char *)n->token.name, -1, -1, 0))
		return err_openssl(e, ERR_RETRY, "certificate request");
	if (est_enroll(&n->peer, "simpleenroll", n->key, subject, &n->cert, e) < 0)
		return -1;
	return est_chain(n->cert, n->authorities, &n->chain_pem, e);
}

/* The key that was kept goes last: until then, another run ends the same way. */
static int keep(struct enrolment *n, struct err *e)
{
	if (file_replace(n->ca_path, 0644, buf_str(&n->ca_pem), e) < 0 ||
		pair_replace(n->cert_path, n->key_path, buf_str(&n->chain_pem), buf_str(&n->key_pem), e) < 0)
		return -1;
	return unlink(n->new_key_path) < 0 && errno != ENOENT
		       ? err_sys(e, ERR_FATAL, "remove '%s'", n->new_key_path)
		       : 0;
}

static int enroll(struct enrolment *n, struct err *e)
{
	if (find_paths(n, e) < 0 || check_not_there(n, e) < 0 || take_key(n, e) < 0)
		return -1;
	if (fetch(n, e) >= 0)
		return keep(n, e);
	/* A key that the server refused is of no more use; one that it may have certified is kept. */
	if (e->kind == ERR_FORBIDDEN)
		unlink(n->new_key_path);
	return -1;
}

static void enrolment_clear(struct enrolment *n)
{
	OPENSSL_cleanse(&n->token, sizeof(n->token));
	buf_wipe(&n->key_pem);
	buf_clear(&n->ca_pem);
	buf_clear(&n->chain_pem);
	EVP_PKEY_free(n->key);
	X509_free(n->cert);
	x509_stack_free(n->authorities);
	free(n->cert_path);
	free(n->key_path);
	free(n->new_key_path);
	free(n->ca_path);
}

static void print_enrolled(const struct enrolment *n)
{
	struct wall end = {0};
	char until[RFC3339_BYTES];
	(void)!wall_of_asn1(X509_get0_notAfter(n->cert), &end);
	wall_format(end, until);
	printf("enrolled %s until %s\n", n->token.name, until);
	printf("  certificate  %s\n  private key  %s\n  trust        %s\n", n->cert_path, n->key_path,
		n->ca_path);
	printf("\nsend a message:\n  sealpost send --url %s --cert %s --key %s --ca %s +4915112345678 'hello'\n",
		*n->token.send ? n->token.send : "https://HOST:8001", n->cert_path, n->key_path, n->ca_path);
	printf("\nkeep it renewed, as a service:\n  sealpost renew --url %s --cert %s --key %s --ca %s --watch\n",
		n->peer.url, n->cert_path, n->key_path, n->ca_path);
}

int cmd_enroll(int argc, char **argv)
{
	struct enrolment n = {.out = ".", .key_type = "ec:P-256", .timeout_s = TIMEOUT_S};
	const struct arg options[] = {
		{"out", ARG_TEXT, &n.out, "DIR", "where the files go; default here"},
		{"key", ARG_TEXT, &n.key_type, "TYPE",
			"ec:P-256, ec:P-384, ed25519, rsa:2048, rsa:3072 or rsa:4096"},
		{"url", ARG_TEXT, &n.url, "U", "the main server, where it is not what the token says"},
		{"timeout", ARG_INT, &n.timeout_s, "SECONDS", "for each request; default 30", 1,
			TIMEOUT_S_MAX},
		{"force", ARG_FLAG, &n.force, NULL, "replace a certificate and key that are there"},
		{0},
	};
	struct args a = {.command = "enroll",
		.usage = "TOKEN [--out DIR] [--key TYPE]",
		.summary =
			"On a device: makes a private key, which stays here, and fetches a certificate for it with the\n"
			"token that 'sealpost client add' printed. Writes NAME.pem, NAME.key (0600) and ca.pem. Safe to\n"
			"run again after an interruption. TOKEN '-' reads it from standard input.",
		.example = "  sealpost enroll sealpost-enroll:eyJ2… --out ./certs",
		.options = options,
		.rest_min = 1,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	buf_init(&n.key_pem, KEY_BYTES);
	buf_init(&n.ca_pem, PEM_BYTES);
	buf_init(&n.chain_pem, PEM_BYTES);
	int rc = read_token(a.rest[0], &n.token, &e);
	n.peer =
		(struct est_peer){.url = n.url ? n.url : n.token.url, .timeout_ms = (long)n.timeout_s * 1000};
	if (rc >= 0 && !identity_name_valid(str_of(n.token.name)))
		rc = err_set(&e, ERR_REJECT, "this enrolment token names something that is no name");
	if (rc >= 0)
		rc = enroll(&n, &e);
	if (rc >= 0)
		print_enrolled(&n);
	enrolment_clear(&n);
	return rc < 0 ? cli_fail("enroll", &e) : EXIT_DONE;
}
