/* cert_identity - certificates in DER, several in a row as a chain, leaf first.
 *
 * Holds: no input harms the profile; a leaf that it accepts has an identity whose parts are well-formed,
 * whose URI reads back, and which stays the same when the certificate is encoded again; the chain's rules
 * only ever refuse more than the leaf's. */
#include <stdint.h>

#include "base/auto.h"
#include "tls/identity.h"
#include "tls/openssl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CHAIN_MAX = 4, URI_BYTES = 512 };

static STACK_OF(X509) * read_chain(const uint8_t *data, size_t size)
{
	STACK_OF(X509) *chain = sk_X509_new_null();
	const unsigned char *at = data;
	X509 *cert;
	while (sk_X509_num(chain) < CHAIN_MAX && (cert = d2i_X509(NULL, &at, (long)(data + size - at))))
		sk_X509_push(chain, cert);
	ERR_clear_error();
	return chain;
}

static void check_identity(const struct identity *id)
{
	char uri[URI_BYTES];
	enum role role;
	struct str rest, part;
	require(identity_name_valid(str_of(id->name)) && identity_name_valid(str_of(id->domain)));
	require(identity_name_valid(str_of(id->trust_domain)));
	require(id->serial_bytes > 0 && id->serial_bytes <= IDENTITY_SERIAL_BYTES && id->serial[0] != 0);
	require(id->not_before.ms <= id->not_after.ms);
	identity_uri(id, uri, sizeof(uri));
	rest = str_of(uri + strlen("spiffe://"));
	require(str_cut(&rest, '/', &part) && str_eq(part, str_of(id->trust_domain)));
	require(str_cut(&rest, '/', &part) && role_parse(part, &role) && role == id->role);
	require(str_cut(&rest, '/', &part) && str_eq(part, str_of(id->domain)) &&
		str_eq(rest, str_of(id->name)));
}

static void check_again(X509 *leaf, const struct identity *id)
{
	AUTO(openssl_free_auto) unsigned char *der = NULL;
	struct identity again;
	const char *reason;
	int n = i2d_X509(leaf, &der);
	require(n > 0);
	const unsigned char *at = der;
	AUTO(X509_free_auto) X509 *copy = d2i_X509(NULL, &at, n);
	require(copy && identity_of(copy, NULL, &again, &reason, NULL) == 0);
	require(again.role == id->role && again.serial_bytes == id->serial_bytes);
	require(memcmp(again.serial, id->serial, again.serial_bytes) == 0);
	require(memcmp(again.issuer_key_id, id->issuer_key_id, sizeof(again.issuer_key_id)) == 0);
	require(strcmp(again.name, id->name) == 0 && strcmp(again.domain, id->domain) == 0);
	require(strcmp(again.trust_domain, id->trust_domain) == 0);
	require(again.not_before.ms == id->not_before.ms && again.not_after.ms == id->not_after.ms);
}

static void count_verdict(void *count, const struct profile_rule *rule, const char *fault, unsigned depth)
{
	require(rule->name && rule->demands && depth < CHAIN_MAX);
	++*(size_t *)count;
}

static void check_chain(STACK_OF(X509) * chain)
{
	struct identity id, of_chain;
	const char *reason;
	const struct profile_rule *broken;
	size_t verdicts = 0;
	bool leaf_held = identity_of(sk_X509_value(chain, 0), NULL, &id, &reason, NULL) == 0;
	bool chain_held = profile_check(chain, NULL, count_verdict, &verdicts, &of_chain, &broken, NULL);
	require(verdicts == profile_rule_count);
	require(leaf_held || !chain_held);
	if (leaf_held) {
		check_identity(&id);
		check_again(sk_X509_value(chain, 0), &id);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *chain = read_chain(data, size);
	if (sk_X509_num(chain) > 0)
		check_chain(chain);
	ERR_clear_error();
	return 0;
}
