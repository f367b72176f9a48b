/* own_certs.c - see own_certs.h. */
#include "cli/own_certs.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/log.h"
#include "tls/openssl.h"

enum { NAMES_MAX = 16, KEY_BYTES = 16 * 1024, CHAIN_BYTES = 64 * 1024 };

/* What this machine itself needs: file name, which is also the common name, and role. */
static const struct own_cert {
	const char *name;
	enum role role;
} own_certs[] = {
	{"server", ROLE_SERVER},
	{"proxy", ROLE_PROXY},
};

/* Comma separated names from the configuration, with localhost and the host's name; split into DNS and
 * addresses. */
struct own_names {
	struct str dns[NAMES_MAX], addresses[NAMES_MAX];
	unsigned dns_count, address_count;
	char host[256];
};

static bool looks_like_address(struct str s)
{
	if (memchr(s.p, ':', s.n))
		return true;
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] != '.' && (s.p[i] < '0' || s.p[i] > '9'))
			return false;
	return s.n > 0;
}

static void add_name(struct own_names *names, struct str name)
{
	if (!name.n)
		return;
	if (looks_like_address(name)) {
		if (names->address_count < NAMES_MAX)
			names->addresses[names->address_count++] = name;
	} else if (names->dns_count < NAMES_MAX) {
		names->dns[names->dns_count++] = name;
	}
}

static void own_names(const struct config *config, struct own_names *ret)
{
	*ret = (struct own_names){0};
	add_name(ret, STR("localhost"));
	add_name(ret, STR("127.0.0.1"));
	add_name(ret, STR("::1"));
	if (gethostname(ret->host, sizeof(ret->host) - 1) == 0 && strcmp(ret->host, "localhost") != 0)
		add_name(ret, str_of(ret->host));
	struct str rest = str_of(config->tls_names), name;
	while (rest.n && str_cut(&rest, ',', &name))
		add_name(ret, str_trim(name));
	add_name(ret, str_trim(rest));
}

char *own_cert_path(const struct paths *paths, const char *name, const char *suffix)
{
	char file[64];
	snprintf(file, sizeof(file), "%s.%s", name, suffix);
	return path_join(paths->tls, file);
}

/* Whether another third of its life is left. */
static bool lasts(const X509 *cert)
{
	int days, seconds, left_days, left_seconds;
	return ASN1_TIME_diff(&days, &seconds, X509_get0_notBefore(cert), X509_get0_notAfter(cert)) == 1 &&
	       ASN1_TIME_diff(&left_days, &left_seconds, NULL, X509_get0_notAfter(cert)) == 1 &&
	       left_days * 3 >= days && left_seconds >= 0;
}

/* Whether every name is in it: `tls_names` may have been added to since. */
static bool covers(X509 *cert, const struct own_names *names)
{
	bool all = true;
	char address[64];
	for (unsigned i = 0; all && i < names->dns_count; i++)
		all = X509_check_host(cert, names->dns[i].p, names->dns[i].n, 0, NULL) == 1;
	for (unsigned i = 0; all && i < names->address_count; i++) {
		snprintf(address, sizeof(address), "%.*s", STR_ARG(names->addresses[i]));
		all = X509_check_ip_asc(cert, address, 0) == 1;
	}
	return all;
}

/* Whether the current issuing CA signed it: an old one must be able to retire. */
static bool is_current(X509 *cert, const struct ca *ca)
{
	const ASN1_OCTET_STRING *id = X509_get0_authority_key_id(cert);
	return id && ASN1_STRING_length(id) == IDENTITY_KEY_ID_BYTES &&
	       memcmp(ASN1_STRING_get0_data(id), ca_issuing_key_id(ca), IDENTITY_KEY_ID_BYTES) == 0;
}

/* Whether the certificate still serves, and the key is its own: a crash between the two files leaves a pair
 * that does not match. */
static bool still_good(
	const char *cert_path, const char *key_path, const struct own_names *names, const struct ca *ca)
{
	AUTO(file_auto) FILE *cert_file = fopen(cert_path, "re");
	AUTO(file_auto) FILE *key_file = fopen(key_path, "re");
	X509 *cert = cert_file ? PEM_read_X509(cert_file, NULL, NULL, NULL) : NULL;
	EVP_PKEY *key = key_file ? PEM_read_PrivateKey(key_file, NULL, NULL, NULL) : NULL;
	bool good = cert && key && X509_check_private_key(cert, key) == 1 && lasts(cert) &&
		    is_current(cert, ca) && covers(cert, names);
	ERR_clear_error();
	EVP_PKEY_free(key);
	X509_free(cert);
	return good;
}

/* Whose certificate the file holds; false when there is none that is ours. */
static bool read_identity(const char *cert_file, struct identity *ret)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *chain = NULL;
	const char *rule;
	return x509_read_file(cert_file, &chain, NULL) >= 0 &&
	       identity_of(sk_X509_value(chain, 0), NULL, ret, &rule, NULL) >= 0;
}

void own_cert_in_use(const struct registry *registry, const char *cert_file)
{
	struct identity id;
	if (read_identity(cert_file, &id))
		registry_note_seen(registry, &id, clock_wall(&clock_system));
}

static struct store_cert_id before(const char *cert_file, enum role role)
{
	struct store_cert_id id = {.serial_bytes = 0};
	struct identity old;
	if (!read_identity(cert_file, &old) || old.role != role)
		return id;
	id.serial_bytes = old.serial_bytes;
	memcpy(id.serial, old.serial, sizeof(id.serial));
	memcpy(id.issuer_key_id, old.issuer_key_id, sizeof(id.issuer_key_id));
	return id;
}

static int renew_if_due(struct server *server, const struct ca *ca, const struct paths *paths,
	const struct config *config, const struct own_cert *own, struct err *e)
{
	AUTO(free_auto) char *cert_path = own_cert_path(paths, own->name, "pem");
	AUTO(free_auto) char *key_path = own_cert_path(paths, own->name, "key");
	if (!cert_path || !key_path)
		return err_oom(e);
	struct own_names names;
	own_names(config, &names);
	if (still_good(cert_path, key_path, &names, ca))
		return 0;
	AUTO(buf_wipe_auto) struct buf key, chain;
	AUTO(buf_auto) struct buf spki;
	buf_init(&key, KEY_BYTES);
	buf_init(&chain, CHAIN_BYTES);
	buf_init(&spki, KEY_BYTES);
	if (ca_generate_key(STR("ec:P-256"), &key, &spki, e) < 0)
		return -1;
	struct server_order order = {
		.role = own->role,
		.name = str_of(own->name),
		.domain = str_of(config->trust_domain),
		.public_key_der = buf_str(&spki),
		.dns_names = names.dns,
		.dns_count = names.dns_count,
		.addresses = names.addresses,
		.address_count = names.address_count,
		.renews = before(cert_path, own->role),
	};
	struct ca_issued issued;
	if (server_issue(server, &(struct server_actor){"start-up", "main server"}, &order, &issued, e) < 0)
		return err_context(e, "issue the certificate of the %s listener", own->name);
	buf_add_str(&chain, buf_str(&issued.pem));
	buf_add_str(&chain, issued.issuer_pem);
	ca_issued_clear(&issued);
	if (buf_check(&chain, e) < 0 || file_replace(key_path, 0600, buf_str(&key), e) < 0 ||
		file_replace(cert_path, 0644, buf_str(&chain), e) < 0)
		return -1;
	log_event(LOG_INFO, "certificate.issued", LF_STR("certificate", own->name));
	return 0;
}

int own_certs_ensure(struct server *server, const struct ca *ca, const struct paths *paths,
	const struct config *config, struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(own_certs); i++)
		if (renew_if_due(server, ca, paths, config, &own_certs[i], e) < 0)
			return -1;
	return 0;
}
