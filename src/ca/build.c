/* build.c - see build.h. A certificate is built in one order: head (version, serial, names, dates, key), then
 * extensions, then the signature; every step is a small function that returns false when OpenSSL fails, and
 * the caller turns that into one error. Key identifiers are SHA-1 over the public key, RFC 5280
 * section 4.2.1.2 (1). */
#include "ca/build.h"

#include <arpa/inet.h>
#include <openssl/rand.h>
#include <stdio.h>

enum {
	SERIAL_RANDOM_BYTES = 16,
	NAME_RANDOM_BYTES = 4,
	CN_BYTES = 64, /* ub-common-name */
	CA_USAGE = X509v3_KU_KEY_CERT_SIGN | X509v3_KU_CRL_SIGN,
};

/* Ed25519 brings its own digest; a P-384 signature deserves more than SHA-256 (RFC 5480 section 4). */
static const EVP_MD *digest_for(const EVP_PKEY *key)
{
	if (EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519)
		return NULL;
	return EVP_PKEY_get_base_id(key) == EVP_PKEY_EC && EVP_PKEY_get_bits(key) > 256 ? EVP_sha384()
											: EVP_sha256();
}

void build_authority_clear(struct build_authority *a)
{
	X509_free(TAKE(a->cert));
	EVP_PKEY_free(TAKE(a->key));
}

/* --- head --- */

/* 127 random bits: positive, at most 16 octets, never repeated (RFC 5280 section 4.1.2.2). */
static bool put_serial(X509 *cert)
{
	unsigned char bytes[SERIAL_RANDOM_BYTES];
	do {
		if (RAND_bytes(bytes, sizeof(bytes)) != 1)
			return false;
		bytes[0] &= 0x7f;
	} while (bytes[0] == 0);
	AUTO(BN_free_auto) BIGNUM *number = BN_bin2bn(bytes, sizeof(bytes), NULL);
	return number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert));
}

static bool put_time(ASN1_TIME *to, struct wall at)
{
	return ASN1_TIME_set(to, (time_t)(at.ms / 1000));
}

/* UTCTime through 2049, GeneralizedTime after, chosen by OpenSSL. */
static bool put_validity(X509 *cert, struct build_validity validity)
{
	return put_time(X509_getm_notBefore(cert), validity.not_before) &&
	       put_time(X509_getm_notAfter(cert), validity.not_after);
}

static bool name_add(X509_NAME *name, int nid, struct str value)
{
	return X509_NAME_add_entry_by_NID(
		name, nid, V_ASN1_UTF8STRING, (const unsigned char *)value.p, (int)value.n, -1, 0);
}

/* `organization` may be empty. */
static bool put_subject(X509 *cert, struct str organization, struct str common_name)
{
	AUTO(X509_NAME_free_auto) X509_NAME *name = X509_NAME_new();
	return name && (organization.n == 0 || name_add(name, NID_organizationName, organization)) &&
	       name_add(name, NID_commonName, common_name) && X509_set_subject_name(cert, name);
}

static bool put_issuer(X509 *cert, const struct build_authority *issuer)
{
	return X509_set_issuer_name(cert, X509_get_subject_name(issuer ? issuer->cert : cert));
}

/* --- extensions --- */

static bool put_extension(X509 *cert, int nid, void *value, bool critical)
{
	return value && X509_add1_ext_i2d(cert, nid, value, critical, X509V3_ADD_DEFAULT) == 1;
}

static bool put_ca_constraints(X509 *cert, int path_length)
{
	AUTO(BASIC_CONSTRAINTS_free_auto) BASIC_CONSTRAINTS *constraints = BASIC_CONSTRAINTS_new();
	if (!constraints || !(constraints->pathlen = ASN1_INTEGER_new()))
		return false;
	constraints->ca = 0xff;
	return ASN1_INTEGER_set(constraints->pathlen, path_length) &&
	       put_extension(cert, NID_basic_constraints, constraints, true);
}

static bool put_leaf_constraints(X509 *cert)
{
	AUTO(BASIC_CONSTRAINTS_free_auto) BASIC_CONSTRAINTS *constraints = BASIC_CONSTRAINTS_new();
	return put_extension(cert, NID_basic_constraints, constraints, true);
}

/* Usages within the first octet: its highest bit is bit 0 of the ASN.1 type. */
static bool put_key_usage(X509 *cert, int usage)
{
	AUTO(ASN1_BIT_STRING_free_auto) ASN1_BIT_STRING *bits = ASN1_BIT_STRING_new();
	for (int bit = 0; bits && bit < 8; bit++)
		if ((usage & (0x80 >> bit)) && !ASN1_BIT_STRING_set_bit(bits, bit, 1))
			return false;
	return put_extension(cert, NID_key_usage, bits, true);
}

static bool put_extended_key_usage(X509 *cert, const struct role_profile *profile)
{
	AUTO(EXTENDED_KEY_USAGE_free_auto) EXTENDED_KEY_USAGE *usages = sk_ASN1_OBJECT_new_null();
	for (size_t i = 0; i < ROLE_USAGES && profile->extended_key_usage[i] != NID_undef; i++)
		if (!usages || !sk_ASN1_OBJECT_push(usages, OBJ_nid2obj(profile->extended_key_usage[i])))
			return false;
	return put_extension(cert, NID_ext_key_usage, usages, false);
}

static bool put_subject_key_id(X509 *cert)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned digest_bytes;
	AUTO(ASN1_OCTET_STRING_free_auto) ASN1_OCTET_STRING *id = ASN1_OCTET_STRING_new();
	return id && X509_pubkey_digest(cert, EVP_sha1(), digest, &digest_bytes) &&
	       ASN1_OCTET_STRING_set(id, digest, (int)digest_bytes) &&
	       put_extension(cert, NID_subject_key_identifier, id, false);
}

/* The issuer's subject key identifier as an authority key identifier; NULL on failure. */
static AUTHORITY_KEYID *authority_key_id(X509 *issuer)
{
	AUTO(AUTHORITY_KEYID_free_auto) AUTHORITY_KEYID *aki = AUTHORITY_KEYID_new();
	if (!aki)
		return NULL;
	aki->keyid = X509_get_ext_d2i(issuer, NID_subject_key_identifier, NULL, NULL);
	return aki->keyid ? TAKE(aki) : NULL;
}

static bool put_authority_key_id(X509 *cert, X509 *issuer)
{
	AUTO(AUTHORITY_KEYID_free_auto) AUTHORITY_KEYID *aki = authority_key_id(issuer);
	return put_extension(cert, NID_authority_key_identifier, aki, false);
}

/* Hands the value over to a new name in the list. */
static bool names_add(GENERAL_NAMES *names, int type, ASN1_STRING *empty, struct str value)
{
	GENERAL_NAME *name = GENERAL_NAME_new();
	if (!name || !empty || !ASN1_STRING_set(empty, value.p, (int)value.n) ||
		!sk_GENERAL_NAME_push(names, name)) {
		GENERAL_NAME_free(name);
		ASN1_STRING_free(empty);
		return false;
	}
	GENERAL_NAME_set0_value(name, type, empty);
	return true;
}

enum { URI_BYTES = 5 * IDENTITY_NAME_BYTES };

static void request_uri(const struct ca_request *r, const char *trust_domain, char out[URI_BYTES])
{
	snprintf(out, URI_BYTES, "spiffe://%s/%s/%.*s/%.*s", trust_domain, role_name(r->role),
		STR_ARG(r->domain), STR_ARG(r->name));
}

/* 4 or 16 octets, 0 when the text is not an address. */
static size_t address_octets(struct str text, unsigned char out[16])
{
	char z[INET6_ADDRSTRLEN];
	if (text.n >= sizeof(z) || (text.n && memchr(text.p, '\0', text.n)))
		return 0;
	memcpy(z, text.p, text.n);
	z[text.n] = '\0';
	if (inet_pton(AF_INET, z, out) == 1)
		return 4;
	return inet_pton(AF_INET6, z, out) == 1 ? 16 : 0;
}

static bool put_alternative_names(X509 *cert, const struct ca_request *r, const char *trust_domain)
{
	char uri[URI_BYTES];
	AUTO(GENERAL_NAMES_free_auto) GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
	request_uri(r, trust_domain, uri);
	bool added = names && names_add(names, GEN_URI, ASN1_IA5STRING_new(), str_of(uri));
	for (unsigned i = 0; added && i < r->dns_count; i++)
		added = names_add(names, GEN_DNS, ASN1_IA5STRING_new(), r->dns_names[i]);
	for (unsigned i = 0; added && i < r->address_count; i++) {
		unsigned char octets[16];
		size_t n = address_octets(r->addresses[i], octets);
		added = names_add(names, GEN_IPADD, ASN1_OCTET_STRING_new(), str_mem(octets, n));
	}
	return added && put_extension(cert, NID_subject_alt_name, names, false);
}

/* --- where others find the CRL and the issuer (RFC 5280 sections 4.2.1.13 and 4.2.2.1) --- */

enum { PUBLIC_URL_BYTES = 256, FETCH_URL_BYTES = PUBLIC_URL_BYTES + 2 * IDENTITY_KEY_ID_BYTES + 64 };

bool build_public_url_valid(struct str url)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:[]";
	size_t scheme = str_starts(url, STR("http://")) ? 7 : str_starts(url, STR("https://")) ? 8 : 0;
	if (scheme == 0 || url.n == scheme || url.n >= PUBLIC_URL_BYTES || url.p[url.n - 1] == '/')
		return false;
	for (size_t i = scheme; i < url.n; i++)
		if (!memchr(plain, url.p[i], sizeof(plain) - 1))
			return false;
	return true;
}

/* A list with this URL; NULL on failure. Paths by the issuer's key: they stay right after a rotation. */
static GENERAL_NAMES *fetch_names(const char *public_url, X509 *issuer, const char *file)
{
	const ASN1_OCTET_STRING *id = X509_get0_subject_key_id(issuer);
	char hex[2 * IDENTITY_KEY_ID_BYTES + 1], url[FETCH_URL_BYTES];
	AUTO(GENERAL_NAMES_free_auto) GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
	if (!names || !id || ASN1_STRING_length(id) != IDENTITY_KEY_ID_BYTES)
		return NULL;
	hex_encode(ASN1_STRING_get0_data(id), IDENTITY_KEY_ID_BYTES, hex);
	snprintf(url, sizeof(url), "%s/ca/issuers/%s/%s", public_url, hex, file);
	return names_add(names, GEN_URI, ASN1_IA5STRING_new(), str_of(url)) ? TAKE(names) : NULL;
}

static bool put_distribution_point(X509 *cert, const char *public_url, X509 *issuer)
{
	AUTO(CRL_DIST_POINTS_free_auto) CRL_DIST_POINTS *points = sk_DIST_POINT_new_null();
	DIST_POINT *point = DIST_POINT_new();
	if (!points || !point || !sk_DIST_POINT_push(points, point)) {
		DIST_POINT_free(point);
		return false;
	}
	point->distpoint = DIST_POINT_NAME_new();
	if (!point->distpoint)
		return false;
	point->distpoint->type = 0; /* fullName */
	point->distpoint->name.fullname = fetch_names(public_url, issuer, "crl.der");
	return point->distpoint->name.fullname &&
	       put_extension(cert, NID_crl_distribution_points, points, false);
}

static bool put_issuer_access(X509 *cert, const char *public_url, X509 *issuer)
{
	AUTO(GENERAL_NAMES_free_auto) GENERAL_NAMES *names = fetch_names(public_url, issuer, "ca.der");
	AUTO(AUTHORITY_INFO_ACCESS_free_auto)
	AUTHORITY_INFO_ACCESS *access = sk_ACCESS_DESCRIPTION_new_null();
	ACCESS_DESCRIPTION *way = ACCESS_DESCRIPTION_new();
	if (!names || !access || !way || !sk_ACCESS_DESCRIPTION_push(access, way)) {
		ACCESS_DESCRIPTION_free(way);
		return false;
	}
	way->method = OBJ_nid2obj(NID_ad_ca_issuers);
	GENERAL_NAME_free(way->location);
	way->location = sk_GENERAL_NAME_pop(names);
	return put_extension(cert, NID_info_access, access, false);
}

static bool put_fetch_points(X509 *cert, const char *public_url, X509 *issuer)
{
	return !public_url || (put_distribution_point(cert, public_url, issuer) &&
				      put_issuer_access(cert, public_url, issuer));
}

/* --- authorities --- */

/* "Sealpost Root CA 5f0c11ab": the number keeps apart CAs that were made anew. */
static bool authority_name(const char *what, char out[CN_BYTES])
{
	unsigned char random[NAME_RANDOM_BYTES];
	char hex[2 * NAME_RANDOM_BYTES + 1];
	if (RAND_bytes(random, sizeof(random)) != 1)
		return false;
	hex_encode(random, sizeof(random), hex);
	snprintf(out, CN_BYTES, "Sealpost %s CA %s", what, hex);
	return true;
}

struct authority_facts {
	const char *what;
	int path_length;
	const struct build_authority *issuer; /* NULL: self-signed */
};

static bool authority_make(X509 *cert, const struct authority_facts *facts, EVP_PKEY *key,
	const char *trust_domain, struct build_validity validity)
{
	char name[CN_BYTES];
	const struct build_authority itself = {cert, key};
	const struct build_authority *issuer = facts->issuer ? facts->issuer : &itself;
	return authority_name(facts->what, name) && X509_set_version(cert, X509_VERSION_3) &&
	       put_serial(cert) && put_subject(cert, str_of(trust_domain), str_of(name)) &&
	       put_issuer(cert, facts->issuer) && put_validity(cert, validity) &&
	       X509_set_pubkey(cert, key) && put_ca_constraints(cert, facts->path_length) &&
	       put_key_usage(cert, CA_USAGE) && put_subject_key_id(cert) &&
	       put_authority_key_id(cert, issuer->cert) &&
	       X509_sign(cert, issuer->key, digest_for(issuer->key)) > 0;
}

static int authority_build(const struct authority_facts *facts, EVP_PKEY *key, const char *trust_domain,
	struct build_validity validity, X509 **ret, struct err *e)
{
	AUTO(X509_free_auto) X509 *cert = X509_new();
	if (!cert || !authority_make(cert, facts, key, trust_domain, validity))
		return err_openssl(e, ERR_FATAL, "build a CA certificate");
	*ret = TAKE(cert);
	return 0;
}

int build_root(
	EVP_PKEY *key, const char *trust_domain, struct build_validity validity, X509 **ret, struct err *e)
{
	const struct authority_facts facts = {.what = "Root", .path_length = 1};
	return authority_build(&facts, key, trust_domain, validity, ret, e);
}

int build_issuing(const struct build_authority *root, EVP_PKEY *key, const char *trust_domain,
	struct build_validity validity, X509 **ret, struct err *e)
{
	const struct authority_facts facts = {.what = "Issuing", .path_length = 0, .issuer = root};
	return authority_build(&facts, key, trust_domain, validity, ret, e);
}

/* --- leaves --- */

static int check_names(const struct ca_request *r, struct err *e)
{
	if (!role_profile(r->role))
		return err_set(e, ERR_REJECT, "unknown role");
	if (!identity_name_valid(r->name))
		return err_set(e, ERR_REJECT, "name must be [A-Za-z0-9][A-Za-z0-9._-]{0,63}");
	if (!identity_name_valid(r->domain))
		return err_set(e, ERR_REJECT, "domain must be [A-Za-z0-9][A-Za-z0-9._-]{0,63}");
	return 0;
}

static int check_other_names(const struct ca_request *r, struct err *e)
{
	if (r->dns_count + r->address_count == 0)
		return 0;
	if (!role_profile(r->role)->serves)
		return err_set(
			e, ERR_REJECT, "role %s carries no DNS names or addresses", role_name(r->role));
	for (unsigned i = 0; i < r->dns_count; i++)
		if (!identity_dns_valid(r->dns_names[i]))
			return err_set(e, ERR_REJECT, "DNS name %u is malformed", i + 1);
	for (unsigned i = 0; i < r->address_count; i++) {
		unsigned char octets[16];
		if (!address_octets(r->addresses[i], octets))
			return err_set(e, ERR_REJECT, "IP address %u is malformed", i + 1);
	}
	return 0;
}

static int read_public_key(struct str der, EVP_PKEY **ret, struct err *e)
{
	const unsigned char *at = (const unsigned char *)der.p;
	X509_PUBKEY *key = d2i_X509_PUBKEY(NULL, &at, (long)der.n);
	const char *fault = "malformed";
	if (key && (const char *)at == der.p + der.n && profile_key_ok(key, &fault))
		*ret = X509_PUBKEY_get(key);
	else
		*ret = NULL;
	X509_PUBKEY_free(key);
	ERR_clear_error();
	return *ret ? 0 : err_set(e, ERR_REJECT, "public key: %s", fault);
}

static bool leaf_make(X509 *cert, const struct build_authority *issuer, const struct build_policy *policy,
	const struct ca_request *r, EVP_PKEY *key, struct build_validity validity)
{
	return X509_set_version(cert, X509_VERSION_3) && put_serial(cert) &&
	       put_subject(cert, STR(""), r->name) && put_issuer(cert, issuer) &&
	       put_validity(cert, validity) && X509_set_pubkey(cert, key) && put_leaf_constraints(cert) &&
	       put_key_usage(cert, X509v3_KU_DIGITAL_SIGNATURE) &&
	       put_extended_key_usage(cert, role_profile(r->role)) && put_subject_key_id(cert) &&
	       put_authority_key_id(cert, issuer->cert) &&
	       put_alternative_names(cert, r, policy->trust_domain) &&
	       put_fetch_points(cert, policy->public_url, issuer->cert) &&
	       X509_sign(cert, issuer->key, digest_for(issuer->key)) > 0;
}

int build_leaf(const struct build_authority *issuer, const struct build_policy *policy,
	const struct ca_request *request, struct build_validity validity, X509 **ret, struct err *e)
{
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	if (check_names(request, e) < 0 || check_other_names(request, e) < 0 ||
		read_public_key(request->public_key_der, &key, e) < 0)
		return -1;
	AUTO(X509_free_auto) X509 *cert = X509_new();
	if (!cert || !leaf_make(cert, issuer, policy, request, key, validity))
		return err_openssl(e, ERR_FATAL, "build a certificate");
	*ret = TAKE(cert);
	return 0;
}

/* --- CRLs --- */

/* CRLReason, RFC 5280 section 5.3.1; removeFromCRL is for delta CRLs only. */
static const struct {
	const char *name;
	int code;
} reasons[] = {
	{"", CRL_REASON_UNSPECIFIED},
	{"unspecified", CRL_REASON_UNSPECIFIED},
	{"keyCompromise", CRL_REASON_KEY_COMPROMISE},
	{"cACompromise", CRL_REASON_CA_COMPROMISE},
	{"affiliationChanged", CRL_REASON_AFFILIATION_CHANGED},
	{"superseded", CRL_REASON_SUPERSEDED},
	{"cessationOfOperation", CRL_REASON_CESSATION_OF_OPERATION},
	{"certificateHold", CRL_REASON_CERTIFICATE_HOLD},
	{"privilegeWithdrawn", CRL_REASON_PRIVILEGE_WITHDRAWN},
	{"aACompromise", CRL_REASON_AA_COMPROMISE},
};

bool ca_reason_parse(struct str name, int *ret_code)
{
	for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
		if (str_eq(name, str_of(reasons[i].name))) {
			*ret_code = reasons[i].code;
			return true;
		}
	return false;
}

/* "Unspecified" is said by saying nothing (RFC 5280 section 5.3.1). */
static bool put_reason(X509_REVOKED *revoked, int reason)
{
	if (reason == CRL_REASON_UNSPECIFIED)
		return true;
	ASN1_ENUMERATED *value = ASN1_ENUMERATED_new();
	bool put = value && ASN1_ENUMERATED_set(value, reason) &&
		   X509_REVOKED_add1_ext_i2d(revoked, NID_crl_reason, value, 0, X509V3_ADD_DEFAULT) == 1;
	ASN1_ENUMERATED_free(value);
	return put;
}

static bool crl_add(X509_CRL *crl, const struct build_revoked *entry)
{
	AUTO(BN_free_auto) BIGNUM *number = BN_bin2bn(entry->serial, (int)entry->serial_bytes, NULL);
	AUTO(ASN1_INTEGER_free_auto) ASN1_INTEGER *serial = number ? BN_to_ASN1_INTEGER(number, NULL) : NULL;
	AUTO(ASN1_TIME_free_auto) ASN1_TIME *at = ASN1_TIME_new();
	X509_REVOKED *revoked = X509_REVOKED_new();
	if (serial && at && revoked && put_time(at, entry->at) &&
		X509_REVOKED_set_serialNumber(revoked, serial) &&
		X509_REVOKED_set_revocationDate(revoked, at) && put_reason(revoked, entry->reason) &&
		X509_CRL_add0_revoked(crl, revoked))
		return true;
	X509_REVOKED_free(revoked);
	return false;
}

static bool crl_put_dates(X509_CRL *crl, struct wall this_update, struct wall next_update)
{
	AUTO(ASN1_TIME_free_auto) ASN1_TIME *this = ASN1_TIME_new();
	AUTO(ASN1_TIME_free_auto) ASN1_TIME *next = ASN1_TIME_new();
	return this && next && put_time(this, this_update) && put_time(next, next_update) &&
	       X509_CRL_set1_lastUpdate(crl, this) && X509_CRL_set1_nextUpdate(crl, next);
}

static bool crl_put_extensions(X509_CRL *crl, X509 *issuer, uint64_t number)
{
	AUTO(AUTHORITY_KEYID_free_auto) AUTHORITY_KEYID *aki = authority_key_id(issuer);
	AUTO(ASN1_INTEGER_free_auto) ASN1_INTEGER *crl_number = ASN1_INTEGER_new();
	return aki && crl_number && ASN1_INTEGER_set_uint64(crl_number, number) &&
	       X509_CRL_add1_ext_i2d(crl, NID_authority_key_identifier, aki, 0, X509V3_ADD_DEFAULT) == 1 &&
	       X509_CRL_add1_ext_i2d(crl, NID_crl_number, crl_number, 0, X509V3_ADD_DEFAULT) == 1;
}

int build_crl(const struct build_authority *issuer, const struct build_revoked *entries, size_t count,
	uint64_t number, struct wall this_update, struct wall next_update, X509_CRL **ret, struct err *e)
{
	AUTO(X509_CRL_free_auto) X509_CRL *crl = X509_CRL_new();
	bool made = crl && X509_CRL_set_version(crl, X509_CRL_VERSION_2) &&
		    X509_CRL_set_issuer_name(crl, X509_get_subject_name(issuer->cert)) &&
		    crl_put_dates(crl, this_update, next_update) &&
		    crl_put_extensions(crl, issuer->cert, number);
	for (size_t i = 0; made && i < count; i++)
		made = crl_add(crl, &entries[i]);
	if (!made || !X509_CRL_sort(crl) || X509_CRL_sign(crl, issuer->key, digest_for(issuer->key)) <= 0)
		return err_openssl(e, ERR_FATAL, "build a CRL");
	*ret = TAKE(crl);
	return 0;
}
