/* ca.c - sealpost ca: the certificate authority. */
#include <openssl/pem.h>
#include <stdio.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/admin.h"
#include "tls/openssl.h"

/* --- ca show --- */

static int cmd_show(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	bool json = false;
	const struct arg options[] = {
		ADMIN_OPTIONS(settings), {"json", ARG_FLAG, &json, NULL, "as JSON"}, {0}};
	struct args a = {.command = "ca show",
		.usage = "[--json]",
		.summary = "Shows the issuing CA, how long it and its root last, and their certificates.",
		.example = "  sealpost ca show",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	AUTO(json_auto) json_t *answer = NULL;
	int rc = admin_once(&settings, "GET", "/admin/ca", NULL, &answer, &e);
	if (rc < 0)
		return cli_fail("ca show", &e);
	if (json) {
		print_json(answer);
		return EXIT_DONE;
	}
	printf("issuing CA  key id %s, until %s\n", json_text(answer, "issuing_key_id"),
		json_text(answer, "issuing_not_after"));
	printf("root CA     until %s\n\n%s", json_text(answer, "root_not_after"),
		json_text(answer, "ca_pem"));
	return EXIT_DONE;
}

/* --- ca crl --- */

static int cmd_crl(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	const char *out = NULL;
	const struct arg options[] = {ADMIN_OPTIONS(settings),
		{"out", ARG_TEXT, &out, "FILE", "write it there instead of to standard output"}, {0}};
	struct args a = {.command = "ca crl",
		.usage = "[--out FILE]",
		.summary =
			"The certificate revocation list, as PEM. Anyone may also fetch it from the main server, at\n"
			"/ca/crl.pem and /ca/crl.der.",
		.example = "  sealpost ca crl --out crl.pem",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	AUTO(json_auto) json_t *answer = NULL;
	int rc = admin_once(&settings, "GET", "/admin/ca/crl", NULL, &answer, &e);
	if (rc >= 0 && out)
		rc = file_replace(out, 0644, str_of(json_text(answer, "crl_pem")), &e);
	if (rc < 0)
		return cli_fail("ca crl", &e);
	if (!out)
		fputs(json_text(answer, "crl_pem"), stdout);
	return EXIT_DONE;
}

/* --- ca export-root --- */

/* The self-signed one among the certificates of a bundle. */
static int print_root(struct str bundle, struct err *e)
{
	AUTO(BIO_free_all_auto) BIO *in = BIO_new_mem_buf(bundle.p, (int)bundle.n);
	if (!in)
		return err_oom(e);
	for (X509 *cert; (cert = PEM_read_bio_X509(in, NULL, NULL, NULL)) != NULL; X509_free(cert))
		if (X509_self_signed(cert, 0) == 1) {
			int written = PEM_write_X509(stdout, cert);
			X509_free(cert);
			return written ? 0 : err_openssl(e, ERR_FATAL, "write the root certificate");
		}
	ERR_clear_error();
	return err_set(e, ERR_NOT_FOUND, "the CA's bundle has no self-signed certificate");
}

static int cmd_export_root(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	const struct arg options[] = {ADMIN_OPTIONS(settings), {0}};
	struct args a = {.command = "ca export-root",
		.usage = "> FILE",
		.summary =
			"The root certificate alone, as PEM, for programs that want their trust anchor without the\n"
			"issuing CA. No key leaves the data directory.",
		.example = "  sealpost ca export-root > root.pem",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	AUTO(json_auto) json_t *answer = NULL;
	int rc = admin_once(&settings, "GET", "/admin/ca", NULL, &answer, &e);
	if (rc >= 0)
		rc = print_root(str_of(json_text(answer, "ca_pem")), &e);
	return rc < 0 ? cli_fail("ca export-root", &e) : EXIT_DONE;
}

int cmd_ca(int argc, char **argv)
{
	static const struct command table[] = {
		{"show", NULL, "show the certificate authority", cmd_show},
		{"crl", NULL, "the certificate revocation list", cmd_crl},
		{"export-root", NULL, "the root certificate", cmd_export_root},
		{0},
	};
	return cli_dispatch("ca", table, argc, argv);
}
