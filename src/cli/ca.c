/* ca.c - sealpost ca: the certificate authority: what it is made of, and its certificates and lists. What changes it is in
 * ca_keys.c. */
#include <openssl/pem.h>
#include <stdio.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/admin.h"
#include "cli/ca.h"
#include "tls/openssl.h"

/* --- ca show --- */

void ca_print(const json_t *ca)
{
	size_t i;
	const json_t *issuer;
	json_array_foreach(json_object_get(ca, "issuers"), i, issuer)
	{
		printf("%s  key id %s, until %s\n", i == 0 ? "issuing CA" : "retiring  ",
			json_text(issuer, "key_id"), json_text(issuer, "not_after"));
	}
	printf("root CA     until %s, its key is %s\n", json_text(ca, "root_not_after"),
		json_is_true(json_object_get(ca, "root_key_present")) ? "in the data directory"
								      : "kept elsewhere");
}

static void print_with_certificates(const json_t *ca)
{
	ca_print(ca);
	printf("\n%s", json_text(ca, "ca_pem"));
}

static int cmd_show(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	bool json = false;
	const struct arg options[] = {
		ADMIN_OPTIONS(settings), {"json", ARG_FLAG, &json, NULL, "as JSON"}, {0}};
	struct args a = {.command = "ca show",
		.usage = "[--json]",
		.summary =
			"Shows the issuing CAs, how long they and their root last, where the root's key is, and their\n"
			"certificates.",
		.example = "  sealpost ca show",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	return admin_show(a.command, &settings, "/admin/ca", json, print_with_certificates);
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
			"The certificate revocation list, as PEM; one of each issuing CA, where there are several. Anyone may\n"
			"also fetch it from the main server, at /ca/crl.pem and /ca/crl.der.",
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
		return cli_fail(a.command, &e);
	if (!out)
		fputs(json_text(answer, "crl_pem"), stdout);
	return EXIT_DONE;
}

/* --- ca export-root --- */

/* The self-signed one among the certificates of a bundle. */
static int print_root(struct str bundle, struct err *e)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *certs = NULL;
	if (x509_read_pem(bundle, &certs, e) < 0)
		return -1;
	for (int i = 0; i < sk_X509_num(certs); i++) {
		X509 *cert = sk_X509_value(certs, i);
		if (X509_self_signed(cert, 0) == 1)
			return PEM_write_X509(stdout, cert)
				       ? 0
				       : err_openssl(e, ERR_FATAL, "write the root certificate");
	}
	ERR_clear_error();
	return err_set(e, ERR_NOT_FOUND, "the CA's bundle has no self-signed certificate");
}

static int export_certificate(struct settings *settings, struct err *e)
{
	AUTO(json_auto) json_t *answer = NULL;
	int rc = admin_once(settings, "GET", "/admin/ca", NULL, &answer, e);
	return rc < 0 ? -1 : print_root(str_of(json_text(answer, "ca_pem")), e);
}

static int cmd_export_root(int argc, char **argv)
{
	struct ca_root_file root = {.file = NULL};
	bool remove = false;
	const struct arg options[] = {ADMIN_OPTIONS(root.settings),
		{"key", ARG_TEXT, &root.file, "FILE",
			"the root's private key too, encrypted, into this new file"},
		{"passphrase-file", ARG_TEXT, &root.passphrase_file, "FILE",
			"its first line encrypts the key; default: asked for"},
		{"remove", ARG_FLAG, &remove, NULL,
			"then remove the key from the data directory, once FILE has proved to open"},
		{0}};
	struct args a = {.command = "ca export-root",
		.usage = "> FILE | --key FILE [--passphrase-file FILE] [--remove]",
		.summary =
			"The root certificate alone, as PEM, for programs that want their trust anchor without the\n"
			"issuing CA. With --key, its private key leaves for a safe place: encrypted (PKCS #8, scrypt and\n"
			"AES-256, which openssl reads). It is needed to make a new issuing CA only; see 'ca rotate-issuing'.",
		.example = "  sealpost ca export-root > root.pem\n"
			   "  sealpost ca export-root --key /media/usb/root.key --remove",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	if (!root.file && (remove || root.passphrase_file))
		return cli_usage_error(a.command, "--remove and --passphrase-file need --key FILE");
	struct err e = ERR_INIT;
	int rc = root.file ? ca_export_root_key(&root, remove, &e) : export_certificate(&root.settings, &e);
	return rc < 0 ? cli_fail(a.command, &e) : EXIT_DONE;
}

int cmd_ca(int argc, char **argv)
{
	static const struct command table[] = {
		{"show", NULL, "show the certificate authority", cmd_show},
		{"crl", NULL, "the certificate revocation list", cmd_crl},
		{"export-root", NULL, "the root certificate; its key to a safe place", cmd_export_root},
		{"import-root", NULL, "the root's key back", cmd_ca_import_root},
		{"rotate-issuing", NULL, "make a new issuing CA", cmd_ca_rotate_issuing},
		{"passphrase", NULL, "encrypt the keys by another passphrase", cmd_ca_passphrase},
		{0},
	};
	return cli_dispatch("ca", table, argc, argv);
}
