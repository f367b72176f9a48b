/* identity.c - reading an identity from a certificate, and the profile as a table of rules.
 *
 * A leaf is read once into struct leaf, which remembers what was wrong with each part; the rules are then
 * plain predicates over a certificate, and the table says which certificates of a chain each one is about.
 * Nothing here trusts the flags that OpenSSL caches on an X509: every rule looks at the extension itself, so
 * a rule means the same for a certificate that was verified and for one that was only parsed. */
#include "tls/identity.h"

#include <openssl/objects.h>
#include <stdio.h>

#include "tls/openssl.h"

/* --- roles --- */

/* clientAuth alone for those who only connect; the main server only accepts; a proxy does both. */
static const struct role_profile roles[ROLES] = {
	[ROLE_CLIENT] = {"client", {NID_client_auth}},
	[ROLE_PROXY] = {"proxy", {NID_server_auth, NID_client_auth}, .serves = true},
	[ROLE_WORKER] = {"worker", {NID_client_auth}},
	[ROLE_SERVER] = {"server", {NID_server_auth}, .serves = true},
	[ROLE_MONITOR] = {"monitor", {NID_client_auth}},
	[ROLE_ADMIN] = {"admin", {NID_client_auth}},
};

const struct role_profile *role_profile(enum role role)
{
	return (unsigned)role < ROLES && roles[role].name ? &roles[role] : NULL;
}

const char *role_name(enum role role)
{
	const struct role_profile *profile = role_profile(role);
	return profile ? profile->name : "none";
}

bool role_parse(struct str s, enum role *ret)
{
	for (unsigned role = 0; role < ROLES; role++)
		if (roles[role].name && str_eq(s, str_of(roles[role].name))) {
			*ret = role;
			return true;
		}
	return false;
}

/* --- names --- */

static bool is_alnum(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

bool identity_name_valid(struct str s)
{
	if (s.n == 0 || s.n >= IDENTITY_NAME_BYTES || !is_alnum(s.p[0]))
		return false;
	for (size_t i = 1; i < s.n; i++)
		if (!is_alnum(s.p[i]) && s.p[i] != '.' && s.p[i] != '_' && s.p[i] != '-')
			return false;
	return true;
}

static bool dns_label_valid(struct str label)
{
	if (label.n == 0 || label.n > 63 || !is_alnum(label.p[0]) || !is_alnum(label.p[label.n - 1]))
		return false;
	for (size_t i = 1; i < label.n; i++)
		if (!is_alnum(label.p[i]) && label.p[i] != '-')
			return false;
	return true;
}

bool identity_dns_valid(struct str s)
{
	if (s.n > 253)
		return false;
	for (struct str label; str_cut(&s, '.', &label);)
		if (!dns_label_valid(label))
			return false;
	return dns_label_valid(s);
}

/* --- reading a leaf --- */

/* What a leaf says about its bearer, and what is wrong with each part (NULL: nothing). */
struct leaf {
	struct identity id;
	char cn[IDENTITY_NAME_BYTES];
	const char *cn_fault, *uri_fault, *other_names_fault;
};

static void name_copy(char out[IDENTITY_NAME_BYTES], struct str name)
{
	memcpy(out, name.p, name.n);
	out[name.n] = '\0';
}

/* RFC 5280 allows five string types in a name; two of them cannot hide anything from a byte comparison. */
static const char *read_cn(X509 *cert, char out[IDENTITY_NAME_BYTES])
{
	X509_NAME *subject = X509_get_subject_name(cert);
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	if (at < 0)
		return "no common name";
	if (X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0)
		return "several common names";
	const ASN1_STRING *cn = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
	int type = ASN1_STRING_type(cn);
	if (type != V_ASN1_UTF8STRING && type != V_ASN1_PRINTABLESTRING)
		return "common name is neither UTF8String nor PrintableString";
	if (!identity_name_valid(str_of_asn1(cn)))
		return "common name is not of the allowed form";
	name_copy(out, str_of_asn1(cn));
	return NULL;
}

/* spiffe://<trust domain>/<role>/<domain>/<name> */
static const char *read_uri(struct str uri, struct identity *id)
{
	static const struct str scheme = {"spiffe://", 9};
	struct str trust_domain, role, domain;
	if (!str_starts(uri, scheme))
		return "URI does not start with spiffe://";
	uri = (struct str){uri.p + scheme.n, uri.n - scheme.n};
	if (!str_cut(&uri, '/', &trust_domain) || !str_cut(&uri, '/', &role) || !str_cut(&uri, '/', &domain))
		return "URI has fewer than four parts";
	if (!identity_name_valid(trust_domain) || !identity_name_valid(domain) || !identity_name_valid(uri))
		return "a part of the URI is not of the allowed form";
	if (!role_parse(role, &id->role))
		return "URI names an unknown role";
	name_copy(id->trust_domain, trust_domain);
	name_copy(id->domain, domain);
	name_copy(id->name, uri);
	return NULL;
}

static bool other_name_valid(const GENERAL_NAME *name)
{
	switch (name->type) {
	case GEN_DNS:
		return identity_dns_valid(str_of_asn1(name->d.dNSName));
	case GEN_IPADD:
		return ASN1_STRING_length(name->d.iPAddress) == 4 ||
		       ASN1_STRING_length(name->d.iPAddress) == 16;
	default:
		return false;
	}
}

static void read_alternative_names(X509 *cert, struct leaf *leaf)
{
	AUTO(GENERAL_NAMES_free_auto)
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	unsigned uri_count = 0, other_count = 0;
	leaf->uri_fault = "no URI among the alternative names";
	for (int i = 0; names && i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		if (name->type == GEN_URI) {
			leaf->uri_fault =
				uri_count++ == 0
					? read_uri(str_of_asn1(name->d.uniformResourceIdentifier), &leaf->id)
					: "several URIs";
		} else {
			other_count++;
			if (!other_name_valid(name))
				leaf->other_names_fault =
					"a name that is neither a URI nor a DNS name nor an IP address";
		}
	}
	if (other_count && !leaf->other_names_fault && !leaf->uri_fault && !roles[leaf->id.role].serves)
		leaf->other_names_fault = "more names than the URI, in a role that serves nobody";
}

static void read_serial(X509 *cert, struct identity *id)
{
	struct str serial = str_of_asn1(X509_get0_serialNumber(cert));
	if (serial.n <= IDENTITY_SERIAL_BYTES) {
		memcpy(id->serial, serial.p, serial.n);
		id->serial_bytes = (unsigned)serial.n;
	}
}

static void read_issuer_key_id(X509 *cert, struct identity *id)
{
	AUTO(AUTHORITY_KEYID_free_auto)
	AUTHORITY_KEYID *aki = X509_get_ext_d2i(cert, NID_authority_key_identifier, NULL, NULL);
	if (aki && aki->keyid && ASN1_STRING_length(aki->keyid) == IDENTITY_KEY_ID_BYTES)
		memcpy(id->issuer_key_id, ASN1_STRING_get0_data(aki->keyid), IDENTITY_KEY_ID_BYTES);
}

/* Rules say whether what could not be read matters; here it is left zero. */
static struct leaf read_leaf(X509 *cert)
{
	struct leaf leaf = {0};
	leaf.cn_fault = read_cn(cert, leaf.cn);
	read_alternative_names(cert, &leaf);
	read_serial(cert, &leaf.id);
	read_issuer_key_id(cert, &leaf.id);
	if (!wall_of_asn1(X509_get0_notBefore(cert), &leaf.id.not_before) ||
		!wall_of_asn1(X509_get0_notAfter(cert), &leaf.id.not_after))
		leaf.id.not_before = leaf.id.not_after = (struct wall){0};
	return leaf;
}

/* --- rules --- */

/* A certificate as the rules see it. */
struct subject {
	X509 *cert;
	unsigned depth;          /* 0: the leaf */
	bool anchor;             /* the last one of a chain, which is trusted as it is */
	const struct leaf *leaf; /* of the chain */
	const char *trust_domain;
};

static const char *fault_version(const struct subject *s)
{
	return X509_get_version(s->cert) == X509_VERSION_3 ? NULL : "not version 3";
}

/* The content octets in DER: one more than the magnitude when its first bit would read as a sign. */
static size_t serial_octets(struct str magnitude)
{
	return magnitude.n + (magnitude.n && (uint8_t)magnitude.p[0] >= 0x80);
}

static const char *fault_serial(const struct subject *s)
{
	const ASN1_INTEGER *serial = X509_get0_serialNumber(s->cert);
	struct str magnitude = str_of_asn1(serial);
	if (ASN1_STRING_type(serial) == V_ASN1_NEG_INTEGER)
		return "negative";
	if (magnitude.n == 0 || (magnitude.n == 1 && magnitude.p[0] == 0))
		return "zero";
	return serial_octets(magnitude) > IDENTITY_SERIAL_BYTES ? "longer than 20 octets" : NULL;
}

static const char *fault_unique_ids(const struct subject *s)
{
	const ASN1_BIT_STRING *issuer, *subject;
	X509_get0_uids(s->cert, &issuer, &subject);
	return issuer || subject ? "has a unique identifier" : NULL;
}

static bool md_allowed(int md)
{
	return md == NID_sha256 || md == NID_sha384 || md == NID_sha512;
}

static const char *fault_signature_algorithm(const struct subject *s)
{
	int md, key;
	if (!X509_get_signature_info(s->cert, &md, &key, NULL, NULL))
		return "unknown algorithm";
	if (key == NID_ED25519)
		return NULL;
	if (key != NID_rsaEncryption && key != NID_rsassaPss && key != NID_X9_62_id_ecPublicKey)
		return "neither RSA, ECDSA nor Ed25519";
	return md_allowed(md) ? NULL : "weak digest";
}

/* A curve written out as parameters may look like a named one and be another (CVE-2020-0601). */
static const char *fault_ec_key(const X509_ALGOR *algorithm)
{
	int type;
	const void *value;
	X509_ALGOR_get0(NULL, &type, &value, algorithm);
	if (type != V_ASN1_OBJECT)
		return "elliptic curve is not a named one";
	int curve = OBJ_obj2nid(value);
	return curve == NID_X9_62_prime256v1 || curve == NID_secp384r1
		       ? NULL
		       : "elliptic curve is neither P-256 nor P-384";
}

static const char *fault_rsa_key(const EVP_PKEY *key)
{
	enum { BITS_MIN = 2048, BITS_MAX = 4096, EXPONENT_BITS_MIN = 17, EXPONENT_BITS_MAX = 64 };
	int bits = EVP_PKEY_get_bits(key);
	if (bits < BITS_MIN)
		return "RSA key has fewer than 2048 bits";
	if (bits > BITS_MAX)
		return "RSA key has more than 4096 bits";
	AUTO(BN_free_auto) BIGNUM *exponent = NULL;
	if (!EVP_PKEY_get_bn_param(key, "e", &exponent) || !BN_is_odd(exponent) ||
		BN_num_bits(exponent) < EXPONENT_BITS_MIN || BN_num_bits(exponent) > EXPONENT_BITS_MAX)
		return "RSA exponent is not an odd number of 17 to 64 bits";
	return NULL;
}

bool profile_key_ok(X509_PUBKEY *key, const char **ret_fault)
{
	X509_ALGOR *algorithm;
	const EVP_PKEY *decoded = X509_PUBKEY_get0(key);
	const char *fault = "key type is neither RSA, elliptic curve nor Ed25519";
	if (!decoded || !X509_PUBKEY_get0_param(NULL, NULL, NULL, &algorithm, key))
		fault = "key cannot be read";
	else if (EVP_PKEY_get_base_id(decoded) == EVP_PKEY_EC)
		fault = fault_ec_key(algorithm);
	else if (EVP_PKEY_get_base_id(decoded) == EVP_PKEY_RSA)
		fault = fault_rsa_key(decoded);
	else if (EVP_PKEY_get_base_id(decoded) == EVP_PKEY_ED25519)
		fault = NULL;
	if (fault)
		*ret_fault = fault;
	return !fault;
}

static const char *fault_public_key(const struct subject *s)
{
	const char *fault;
	return profile_key_ok(X509_get_X509_PUBKEY(s->cert), &fault) ? NULL : fault;
}

/* RFC 5280 section 4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050, both with seconds and Z. */
static bool time_well_encoded(const ASN1_TIME *t, struct wall *ret)
{
	static const int64_t year_2050_ms = 2524608000000;
	bool utc = ASN1_STRING_type(t) == V_ASN1_UTCTIME;
	struct str text = str_of_asn1(t);
	if (text.n != (utc ? strlen("YYMMDDhhmmssZ") : strlen("YYYYMMDDhhmmssZ")) ||
		text.p[text.n - 1] != 'Z')
		return false;
	return wall_of_asn1(t, ret) && utc == (ret->ms < year_2050_ms);
}

static const char *fault_validity(const struct subject *s)
{
	struct wall from, to;
	if (!time_well_encoded(X509_get0_notBefore(s->cert), &from) ||
		!time_well_encoded(X509_get0_notAfter(s->cert), &to))
		return "a time is not encoded as RFC 5280 demands";
	return from.ms > to.ms ? "ends before it starts" : NULL;
}

static const char *fault_duplicate_extension(const struct subject *s)
{
	int count = X509_get_ext_count(s->cert);
	for (int i = 0; i < count; i++) {
		const ASN1_OBJECT *object = X509_EXTENSION_get_object(X509_get_ext(s->cert, i));
		if (X509_get_ext_by_OBJ(s->cert, object, i) >= 0)
			return "an extension occurs twice";
	}
	return NULL;
}

/* Extensions that OpenSSL or a rule of ours acts on, so that marking them critical is no lie. */
static const int understood_extensions[] = {
	NID_basic_constraints, NID_key_usage, NID_ext_key_usage, NID_subject_alt_name, NID_name_constraints};

static bool extension_understood(X509_EXTENSION *extension)
{
	int nid = OBJ_obj2nid(X509_EXTENSION_get_object(extension));
	for (size_t i = 0; i < ARRAY_LEN(understood_extensions); i++)
		if (nid == understood_extensions[i])
			return true;
	return false;
}

static const char *fault_critical_extension(const struct subject *s)
{
	for (int i = 0; i < X509_get_ext_count(s->cert); i++) {
		X509_EXTENSION *extension = X509_get_ext(s->cert, i);
		if (X509_EXTENSION_get_critical(extension) && !extension_understood(extension))
			return "a critical extension that is not understood here";
	}
	return NULL;
}

static const char *fault_basic_constraints(const struct subject *s)
{
	int critical;
	AUTO(BASIC_CONSTRAINTS_free_auto)
	BASIC_CONSTRAINTS *constraints = X509_get_ext_d2i(s->cert, NID_basic_constraints, &critical, NULL);
	if (!constraints)
		return "missing or malformed";
	if (critical != 1)
		return "not critical";
	return constraints->ca || constraints->pathlen ? "is a CA" : NULL;
}

/* The nine bits of RFC 5280 section 4.2.1.3 as bytes, bit 0 first; -1 when missing or malformed. */
static int key_usage(X509 *cert, int *ret_critical)
{
	AUTO(ASN1_BIT_STRING_free_auto)
	ASN1_BIT_STRING *bits = X509_get_ext_d2i(cert, NID_key_usage, ret_critical, NULL);
	if (!bits)
		return -1;
	struct str bytes = str_of_asn1(bits);
	int usage = 0;
	for (size_t i = 0; i < 2; i++)
		usage |= (i < bytes.n ? (uint8_t)bytes.p[i] : 0) << (8 * i);
	return usage;
}

static const char *fault_key_usage(const struct subject *s)
{
	int critical;
	int usage = key_usage(s->cert, &critical);
	if (usage < 0)
		return "missing or malformed";
	if (critical != 1)
		return "not critical";
	return usage == X509v3_KU_DIGITAL_SIGNATURE ? NULL : "not exactly digitalSignature";
}

static bool usage_listed(const struct role_profile *profile, int nid)
{
	for (size_t i = 0; i < ROLE_USAGES; i++)
		if (nid != NID_undef && nid == profile->extended_key_usage[i])
			return true;
	return false;
}

static int usage_count(const struct role_profile *profile)
{
	int count = 0;
	while (count < ROLE_USAGES && profile->extended_key_usage[count] != NID_undef)
		count++;
	return count;
}

static const char *fault_extended_key_usage(const struct subject *s)
{
	const struct role_profile *profile = role_profile(s->leaf->id.role);
	AUTO(EXTENDED_KEY_USAGE_free_auto)
	EXTENDED_KEY_USAGE *usages = X509_get_ext_d2i(s->cert, NID_ext_key_usage, NULL, NULL);
	if (!usages)
		return "missing or malformed";
	if (!profile)
		return "no role to hold it against";
	/* As many as the role has (one or two), all of them the role's, none twice: exactly the role's. */
	for (int i = 0; i < sk_ASN1_OBJECT_num(usages); i++) {
		int nid = OBJ_obj2nid(sk_ASN1_OBJECT_value(usages, i));
		if (!usage_listed(profile, nid) ||
			(i && nid == OBJ_obj2nid(sk_ASN1_OBJECT_value(usages, i - 1))))
			return "not exactly the role's";
	}
	return sk_ASN1_OBJECT_num(usages) == usage_count(profile) ? NULL : "not exactly the role's";
}

static const char *fault_subject_key_id(const struct subject *s)
{
	AUTO(ASN1_OCTET_STRING_free_auto)
	ASN1_OCTET_STRING *id = X509_get_ext_d2i(s->cert, NID_subject_key_identifier, NULL, NULL);
	if (!id)
		return "missing or malformed";
	return ASN1_STRING_length(id) > 0 ? NULL : "empty";
}

static const char *fault_authority_key_id(const struct subject *s)
{
	AUTO(AUTHORITY_KEYID_free_auto)
	AUTHORITY_KEYID *aki = X509_get_ext_d2i(s->cert, NID_authority_key_identifier, NULL, NULL);
	if (!aki || !aki->keyid)
		return "missing or malformed";
	return ASN1_STRING_length(aki->keyid) == IDENTITY_KEY_ID_BYTES ? NULL : "not 20 octets";
}

static const char *fault_common_name(const struct subject *s)
{
	return s->leaf->cn_fault;
}

static const char *fault_san_uri(const struct subject *s)
{
	return s->leaf->uri_fault;
}

static const char *fault_san_other(const struct subject *s)
{
	return s->leaf->other_names_fault;
}

static const char *fault_trust_domain(const struct subject *s)
{
	if (!s->trust_domain || strcmp(s->leaf->id.trust_domain, s->trust_domain) == 0)
		return NULL;
	return "another trust domain";
}

static const char *fault_san_cn_mismatch(const struct subject *s)
{
	return strcmp(s->leaf->id.name, s->leaf->cn) == 0
		       ? NULL
		       : "the URI names another bearer than the common name";
}

static const char *fault_ca_basic_constraints(const struct subject *s)
{
	int critical;
	AUTO(BASIC_CONSTRAINTS_free_auto)
	BASIC_CONSTRAINTS *constraints = X509_get_ext_d2i(s->cert, NID_basic_constraints, &critical, NULL);
	if (!constraints)
		return "missing or malformed";
	if (critical != 1)
		return "not critical";
	return constraints->ca ? NULL : "not a CA";
}

/* OpenSSL holds the length against the chain; that a CA below the anchor has one at all is ours to ask. */
static const char *fault_ca_path_length(const struct subject *s)
{
	AUTO(BASIC_CONSTRAINTS_free_auto)
	BASIC_CONSTRAINTS *constraints = X509_get_ext_d2i(s->cert, NID_basic_constraints, NULL, NULL);
	return s->anchor || (constraints && constraints->pathlen) ? NULL : "no path length";
}

static const char *fault_ca_key_usage(const struct subject *s)
{
	enum { NEEDED = X509v3_KU_KEY_CERT_SIGN | X509v3_KU_CRL_SIGN };
	int critical;
	int usage = key_usage(s->cert, &critical);
	if (usage < 0)
		return "missing or malformed";
	return (usage & NEEDED) == NEEDED ? NULL : "may not sign certificates and CRLs";
}

/* Which certificates of a chain a rule is about. */
enum scope { LEAF = 1, CA = 2, EVERY = LEAF | CA };

#define PROFILE_RULES(RULE)                                                                                  \
	RULE(version, EVERY, "X.509 version 3")                                                              \
	RULE(serial, EVERY, "serial number positive, at most 20 octets")                                     \
	RULE(unique_ids, EVERY, "no unique identifiers of issuer or subject")                                \
	RULE(signature_algorithm, EVERY,                                                                     \
		"signed by RSA or ECDSA with SHA-256, SHA-384 or SHA-512, or Ed25519")                       \
	RULE(public_key, EVERY, "key is P-256, P-384, Ed25519, or RSA of 2048 to 4096 bits")                 \
	RULE(validity, EVERY, "UTCTime through 2049, GeneralizedTime from 2050, start before end")           \
	RULE(duplicate_extension, EVERY, "no extension twice")                                               \
	RULE(critical_extension, EVERY, "no critical extension that is not understood here")                 \
	RULE(basic_constraints, LEAF, "basic constraints critical, CA:FALSE")                                \
	RULE(key_usage, LEAF, "key usage critical, exactly digitalSignature")                                \
	RULE(subject_key_id, EVERY, "has a subject key identifier")                                          \
	RULE(authority_key_id, LEAF, "has an authority key identifier of 20 octets")                         \
	RULE(common_name, LEAF, "exactly one common name [A-Za-z0-9][A-Za-z0-9._-]{0,63}")                   \
	RULE(san_uri, LEAF, "exactly one URI, spiffe://TRUST-DOMAIN/ROLE/DOMAIN/NAME")                       \
	RULE(san_other, LEAF, "no other name; server and proxy: DNS names and IP addresses")                 \
	RULE(trust_domain, LEAF, "the URI's trust domain is ours")                                           \
	RULE(san_cn_mismatch, LEAF, "common name and the URI's name are the same")                           \
	RULE(extended_key_usage, LEAF, "extended key usage is exactly the role's")                           \
	RULE(ca_basic_constraints, CA, "issuers: basic constraints critical, CA:TRUE")                       \
	RULE(ca_path_length, CA, "issuers below the root: a path length")                                    \
	RULE(ca_key_usage, CA, "issuers: key usage has keyCertSign and cRLSign")

const struct profile_rule profile_rules[] = {
#define RULE(name, scope, demands) {#name, demands},
	PROFILE_RULES(RULE)
#undef RULE
};
const size_t profile_rule_count = ARRAY_LEN(profile_rules);

/* Beside profile_rules: what is no caller's business. */
static const struct {
	enum scope scope;
	const char *(*fault)(const struct subject *s);
} checks[] = {
#define RULE(name, scope, demands) {scope, fault_##name},
	PROFILE_RULES(RULE)
#undef RULE
};

/* Looks for the first certificate of the chain that breaks rule number `rule`; *s is left at it. */
static const char *rule_fault(size_t rule, STACK_OF(X509) * chain, struct subject *s)
{
	unsigned count = (unsigned)sk_X509_num(chain);
	const char *fault = NULL;
	for (unsigned depth = 0; depth < count && !fault; depth++) {
		if (!(checks[rule].scope & (depth ? CA : LEAF)))
			continue;
		s->cert = sk_X509_value(chain, (int)depth);
		s->depth = depth;
		s->anchor = depth + 1 == count;
		fault = checks[rule].fault(s);
	}
	return fault;
}

bool profile_check(STACK_OF(X509) * chain, const char *trust_domain, profile_verdict *each, void *arg,
	struct identity *ret, const struct profile_rule **ret_broken, struct err *e)
{
	require(sk_X509_num(chain) > 0);
	/* What OpenSSL cannot decode becomes a fault here; its queue must not surprise the caller's next
	 * SSL_read. */
	ERR_set_mark();
	const struct leaf leaf = read_leaf(sk_X509_value(chain, 0));
	struct subject s = {.leaf = &leaf, .trust_domain = trust_domain};
	const struct profile_rule *broken = NULL;
	for (size_t i = 0; i < profile_rule_count && (each || !broken); i++) {
		const char *fault = rule_fault(i, chain, &s);
		if (fault && !broken) {
			broken = &profile_rules[i];
			err_set(e, ERR_REJECT, "certificate %u of the chain: %s: %s", s.depth, broken->name,
				fault);
		}
		if (each)
			each(arg, &profile_rules[i], fault, s.depth);
	}
	ERR_pop_to_mark();
	if (broken)
		*ret_broken = broken;
	else
		*ret = leaf.id;
	return !broken;
}

int identity_check(STACK_OF(X509) * chain, const char *trust_domain, struct identity *ret,
	const char **ret_reason, struct err *e)
{
	const struct profile_rule *broken;
	if (profile_check(chain, trust_domain, NULL, NULL, ret, &broken, e))
		return 0;
	*ret_reason = broken->name;
	return -1;
}

int identity_of(
	X509 *leaf, const char *trust_domain, struct identity *ret, const char **ret_reason, struct err *e)
{
	STACK_OF(X509) *alone = sk_X509_new_null();
	int result;
	if (alone && sk_X509_push(alone, leaf)) {
		result = identity_check(alone, trust_domain, ret, ret_reason, e);
	} else {
		*ret_reason = "memory";
		result = err_oom(e);
	}
	sk_X509_free(alone);
	return result;
}

void identity_uri(const struct identity *id, char *out, size_t room)
{
	snprintf(out, room, "spiffe://%s/%s/%s/%s", id->trust_domain, role_name(id->role), id->domain,
		id->name);
}
