/* craft_cert.c - makes a certificate with one thing wrong, for tests: see `craft-cert --help`.
 *
 *	craft-cert --ca-cert issuing.pem --ca-key issuing.key --flaw cn_mismatch --out bad.pem --key-out
 *bad.key
 *
 * The certificate is a client's unless --uri says otherwise; without --ca-cert it signs itself. The issuer's
 * certificate is written behind it. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "tls/craft_cert.h"

enum { DAY_MS = 24 * 60 * 60 * 1000 };

struct arguments {
	const char *ca_cert, *ca_key, *name, *uri, *key_type, *usage, *flaw, *out, *key_out;
	int64_t days_from, days_to;
	bool of_ca;
};

static int usage(FILE *to)
{
	fputs("usage: craft-cert --out FILE --key-out FILE [--flaw NAME] [--ca-cert FILE --ca-key FILE]\n"
	      "                  [--name NAME] [--uri URI] [--usage client|server|both] [--key TYPE]\n"
	      "                  [--from DAYS] [--to DAYS] [--ca]\n"
	      "       craft-cert --list\n"
	      "  --ca       an issuing CA instead of a client's leaf\n"
	      "  --from     days until it starts, may be negative (-1)\n"
	      "  --to       days until it ends (30)\n"
	      "  --key      ec:P-256 ec:P-384 ec:P-521 ec-explicit:P-256 ed25519 rsa:BITS rsa3:BITS\n"
	      "  --list     every flaw: name, leaf or ca, the rule it breaks, what a listener makes of it\n",
		to);
	return to == stdout ? 0 : 2;
}

static int list_flaws(void)
{
	for (size_t i = 0; i < craft_flaw_count; i++)
		printf("%s\t%s\t%s\t%s\n", craft_flaws[i].name, craft_flaws[i].of_ca ? "ca" : "leaf",
			craft_flaws[i].rule ? craft_flaws[i].rule : "-", craft_flaws[i].outcome);
	return 0;
}

/* 0 go on, 1 listed or helped, -1 wrong. */
static int parse(int argc, char **argv, struct arguments *a)
{
	static const struct option options[] = {{"ca-cert", 1, NULL, 'c'}, {"ca-key", 1, NULL, 'k'},
		{"name", 1, NULL, 'n'}, {"uri", 1, NULL, 'u'}, {"usage", 1, NULL, 'e'}, {"key", 1, NULL, 't'},
		{"flaw", 1, NULL, 'f'}, {"out", 1, NULL, 'o'}, {"key-out", 1, NULL, 'K'},
		{"from", 1, NULL, 'b'}, {"to", 1, NULL, 'a'}, {"ca", 0, NULL, 'C'}, {"list", 0, NULL, 'l'},
		{"help", 0, NULL, 'h'}, {0}};
	const char **const texts[] = {['c'] = &a->ca_cert,
		['k'] = &a->ca_key,
		['n'] = &a->name,
		['u'] = &a->uri,
		['e'] = &a->usage,
		['t'] = &a->key_type,
		['f'] = &a->flaw,
		['o'] = &a->out,
		['K'] = &a->key_out};
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (c == 'l' || c == 'h')
			return (c == 'l' ? list_flaws() : usage(stdout)) == 0 ? 1 : -1;
		if (c == '?')
			return -1;
		if (c == 'C')
			a->of_ca = true;
		else if (c == 'a' || c == 'b') {
			if (!str_to_i64(str_of(optarg), c == 'a' ? &a->days_to : &a->days_from))
				return -1;
		} else
			*texts[c] = optarg;
	}
	return optind == argc && a->out && a->key_out && !a->ca_cert == !a->ca_key ? 0 : -1;
}

static bool put_usage(const char *usage, int usages[CRAFT_USAGES_MAX + 1])
{
	static const struct {
		const char *name;
		int nids[2];
	} choices[] = {{"client", {NID_client_auth}}, {"server", {NID_server_auth}},
		{"both", {NID_server_auth, NID_client_auth}}};
	for (size_t i = 0; i < ARRAY_LEN(choices); i++)
		if (strcmp(usage, choices[i].name) == 0) {
			memcpy(usages, choices[i].nids, sizeof(choices[i].nids));
			return true;
		}
	return false;
}

static int read_issuer(const struct arguments *a, struct craft_authority *ret, struct err *e)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *found = NULL;
	if (x509_read_file(a->ca_cert, &found, e) < 0 || key_read_file(a->ca_key, &ret->key, e) < 0)
		return -1;
	ret->cert = sk_X509_shift(found);
	return 0;
}

static int make_spec(const struct arguments *a, const struct craft_authority *issuer, struct craft_spec *spec,
	struct err *e)
{
	const struct craft_flaw *flaw = a->flaw ? craft_flaw(a->flaw) : NULL;
	struct wall now = clock_wall(&clock_system);
	if (a->flaw && (!flaw || flaw->of_ca != a->of_ca))
		return err_set(
			e, ERR_REJECT, "no flaw '%s' of a %s; see --list", a->flaw, a->of_ca ? "CA" : "leaf");
	if (a->of_ca)
		craft_ca(spec, issuer, a->name, 0, now);
	else
		craft_leaf(spec, issuer, a->uri, a->name, now);
	spec->key_type = a->key_type;
	spec->not_before.ms = now.ms + a->days_from * DAY_MS;
	spec->not_after.ms = now.ms + a->days_to * DAY_MS;
	if (!a->of_ca && !put_usage(a->usage, spec->usages))
		return err_set(e, ERR_REJECT, "--usage is client, server or both");
	if (flaw)
		flaw->apply(spec);
	return 0;
}

static int write_files(const struct arguments *a, const struct craft_authority *issuer, X509 *cert,
	EVP_PKEY *key, struct err *e)
{
	if (craft_write_cert(a->out, "w", cert, e) < 0 || craft_write_key(a->key_out, key, e) < 0)
		return -1;
	return issuer->cert ? craft_write_cert(a->out, "a", issuer->cert, e) : 0;
}

static int run(const struct arguments *a, struct err *e)
{
	struct craft_authority issuer = {0};
	struct craft_spec spec;
	AUTO(X509_free_auto) X509 *cert = NULL;
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	int result = a->ca_cert ? read_issuer(a, &issuer, e) : 0;
	if (result == 0)
		result = make_spec(a, issuer.cert ? &issuer : NULL, &spec, e);
	if (result == 0)
		result = craft_cert(&spec, &cert, &key, e);
	if (result == 0)
		result = write_files(a, &issuer, cert, key, e);
	craft_authority_clear(&issuer);
	return result;
}

int main(int argc, char **argv)
{
	struct arguments a = {.name = "client_001",
		.uri = "spiffe://sealpost.local/client/example.com/client_001",
		.usage = "client",
		.key_type = "ec:P-256",
		.days_from = -1,
		.days_to = 30};
	struct err e;
	int parsed = parse(argc, argv, &a);
	if (parsed != 0)
		return parsed < 0 ? usage(stderr) : 0;
	if (run(&a, &e) == 0)
		return 0;
	fprintf(stderr, "craft-cert: %s\n", e.text);
	return 1;
}
