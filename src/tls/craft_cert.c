/* craft_cert.c - see craft_cert.h. A spec is turned into a certificate field by field; only the two oddities
 * that OpenSSL has no setter for (a unique identifier, a damaged signature) are made in the DER. */
#include "tls/craft_cert.h"

#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <stdio.h>

#include "base/buf.h"

AUTO_DEFINE(EVP_MD_CTX_free, EVP_MD_CTX *)

enum { DAY_MS = 24 * 60 * 60 * 1000, DER_BYTES_MAX = 64 * 1024 };

static int failed(struct err *e, const char *what)
{
	return err_openssl(e, ERR_FATAL, what);
}

/* --- keys --- */

static int make_rsa(const char *bits, unsigned exponent, EVP_PKEY **ret)
{
	AUTO(EVP_PKEY_CTX_free_auto) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
	AUTO(BN_free_auto) BIGNUM *e = BN_new();
	uint64_t count;
	return ctx && e && str_to_u64(str_of(bits), &count) && BN_set_word(e, exponent) &&
	       EVP_PKEY_keygen_init(ctx) > 0 && EVP_PKEY_CTX_set_rsa_keygen_bits(ctx, (int)count) > 0 &&
	       EVP_PKEY_CTX_set1_rsa_keygen_pubexp(ctx, e) > 0 && EVP_PKEY_generate(ctx, ret) > 0;
}

static int make_ec(const char *curve, bool explicit, EVP_PKEY **ret)
{
	*ret = EVP_EC_gen(curve);
	return *ret && (!explicit || EVP_PKEY_set_utf8_string_param(*ret, OSSL_PKEY_PARAM_EC_ENCODING,
					     OSSL_PKEY_EC_ENCODING_EXPLICIT));
}

int craft_key(const char *type, EVP_PKEY **ret, struct err *e)
{
	struct str rest = str_of(type), algorithm = rest;
	const char *argument = str_cut(&rest, ':', &algorithm) ? rest.p : "";
	int made = 0;
	*ret = NULL;
	if (str_eq(algorithm, STR("ec")))
		made = make_ec(argument, false, ret);
	else if (str_eq(algorithm, STR("ec-explicit")))
		made = make_ec(argument, true, ret);
	else if (str_eq(algorithm, STR("rsa")))
		made = make_rsa(argument, RSA_F4, ret);
	else if (str_eq(algorithm, STR("rsa3")))
		made = make_rsa(argument, RSA_3, ret);
	else if (str_eq(algorithm, STR("ed25519")))
		made = (*ret = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")) != NULL;
	return made ? 0 : failed(e, type);
}

/* --- specs --- */

static void craft_common(
	struct craft_spec *spec, const struct craft_authority *issuer, const char *name, struct wall now)
{
	*spec = (struct craft_spec){.key_type = "ec:P-256",
		.issuer = issuer,
		.digest = "SHA256",
		.version = X509_VERSION_3,
		.common_names = {{V_ASN1_UTF8STRING, str_of(name)}},
		.not_before = {now.ms - DAY_MS},
		.not_after = {now.ms + 30 * (int64_t)DAY_MS},
		.path_length = -1};
}

void craft_leaf(struct craft_spec *spec, const struct craft_authority *issuer, const char *uri,
	const char *name, struct wall now)
{
	craft_common(spec, issuer, name, now);
	spec->alternative_names[0] = (struct craft_string){GEN_URI, str_of(uri)};
	spec->key_usage = X509v3_KU_DIGITAL_SIGNATURE;
	spec->usages[0] = NID_client_auth;
}

void craft_ca(struct craft_spec *spec, const struct craft_authority *issuer, const char *name,
	int path_length, struct wall now)
{
	craft_common(spec, issuer, name, now);
	spec->ca = 1;
	spec->path_length = path_length;
	spec->key_usage = X509v3_KU_KEY_CERT_SIGN | X509v3_KU_CRL_SIGN;
}

/* --- names, numbers, times --- */

static bool put_subject(const struct craft_spec *spec, X509 *cert)
{
	AUTO(X509_NAME_free_auto) X509_NAME *subject = X509_NAME_new();
	bool put = subject && X509_NAME_add_entry_by_NID(subject, NID_organizationName, V_ASN1_UTF8STRING,
				      (const unsigned char *)"craft", -1, -1, 0);
	for (const struct craft_string *cn = spec->common_names; put && cn->type; cn++) {
		/* Set on the entry by hand: the checking setters would refuse what is crafted here. */
		X509_NAME_ENTRY *entry = X509_NAME_ENTRY_create_by_NID(
			NULL, NID_commonName, V_ASN1_UTF8STRING, (const unsigned char *)"x", 1);
		put = entry &&
		      X509_NAME_ENTRY_set_data(
			      entry, cn->type, (const unsigned char *)cn->value.p, (int)cn->value.n) &&
		      X509_NAME_add_entry(subject, entry, -1, 0);
		X509_NAME_ENTRY_free(entry);
	}
	return put && X509_set_subject_name(cert, subject);
}

static bool put_serial(const struct craft_spec *spec, X509 *cert)
{
	unsigned char random[16];
	struct str bytes = spec->serial;
	if (!bytes.n) {
		if (RAND_bytes(random, sizeof(random)) != 1)
			return false;
		random[0] = (unsigned char)((random[0] & 0x3f) | 0x40);
		bytes = str_mem(random, sizeof(random));
	}
	ASN1_INTEGER *serial = X509_get_serialNumber(cert);
	serial->type = spec->serial_negative ? V_ASN1_NEG_INTEGER : V_ASN1_INTEGER;
	return ASN1_STRING_set(serial, bytes.p, (int)bytes.n);
}

/* "20261122115000Z", without the century as UTCTime. */
static bool put_time(ASN1_TIME *to, struct wall at, int type)
{
	if (!type)
		return ASN1_TIME_set(to, (time_t)(at.ms / 1000));
	char text[RFC3339_BYTES], digits[RFC3339_BYTES];
	size_t n = 0;
	wall_format(at, text);
	for (const char *c = text; *c != '.'; c++)
		if (*c >= '0' && *c <= '9')
			digits[n++] = *c;
	digits[n++] = 'Z';
	size_t century = type == V_ASN1_UTCTIME ? 2 : 0;
	to->type = type;
	return ASN1_STRING_set(to, digits + century, (int)(n - century));
}

/* --- extensions --- */

static bool add_extension(X509 *cert, int nid, void *value, bool critical)
{
	return X509_add1_ext_i2d(cert, nid, value, critical, X509V3_ADD_APPEND) == 1;
}

static bool put_constraints(const struct craft_spec *spec, X509 *cert)
{
	if (spec->ca < 0)
		return true;
	AUTO(BASIC_CONSTRAINTS_free_auto) BASIC_CONSTRAINTS *constraints = BASIC_CONSTRAINTS_new();
	if (!constraints)
		return false;
	constraints->ca = spec->ca ? 0xff : 0;
	if (spec->path_length >= 0 && (!(constraints->pathlen = ASN1_INTEGER_new()) ||
					      !ASN1_INTEGER_set(constraints->pathlen, spec->path_length)))
		return false;
	return add_extension(cert, NID_basic_constraints, constraints, !spec->constraints_not_critical);
}

static bool put_key_usage(const struct craft_spec *spec, X509 *cert)
{
	if (spec->key_usage < 0)
		return true;
	AUTO(ASN1_BIT_STRING_free_auto) ASN1_BIT_STRING *bits = ASN1_BIT_STRING_new();
	bool put = bits;
	/* Bit 0 of the ASN.1 type is the highest bit of the first octet. */
	for (int bit = 0; put && bit < 9; bit++) {
		int mask = bit < 8 ? 0x80 >> bit : X509v3_KU_DECIPHER_ONLY;
		put = !(spec->key_usage & mask) || ASN1_BIT_STRING_set_bit(bits, bit, 1);
	}
	for (int times = spec->repeat_key_usage ? 2 : 1; put && times > 0; times--)
		put = add_extension(cert, NID_key_usage, bits, !spec->key_usage_not_critical);
	return put;
}

static bool put_usages(const struct craft_spec *spec, X509 *cert)
{
	if (!spec->usages[0])
		return true;
	AUTO(EXTENDED_KEY_USAGE_free_auto) EXTENDED_KEY_USAGE *usages = sk_ASN1_OBJECT_new_null();
	bool put = usages;
	for (const int *nid = spec->usages; put && *nid; nid++)
		put = sk_ASN1_OBJECT_push(usages, OBJ_nid2obj(*nid)) > 0;
	return put && add_extension(cert, NID_ext_key_usage, usages, false);
}

static bool put_subject_key_id(const struct craft_spec *spec, X509 *cert)
{
	if (spec->no_subject_key_id)
		return true;
	AUTO(ASN1_OCTET_STRING_free_auto) ASN1_OCTET_STRING *id = ASN1_OCTET_STRING_new();
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned digest_bytes;
	return id && X509_pubkey_digest(cert, EVP_sha1(), digest, &digest_bytes) &&
	       ASN1_OCTET_STRING_set(id, digest, (int)digest_bytes) &&
	       add_extension(cert, NID_subject_key_identifier, id, false);
}

static bool put_authority_key_id(const struct craft_spec *spec, X509 *cert)
{
	X509 *issuer = spec->issuer ? spec->issuer->cert : cert;
	if (spec->authority_key_id == CRAFT_KEY_ID_NONE)
		return true;
	AUTO(AUTHORITY_KEYID_free_auto) AUTHORITY_KEYID *aki = AUTHORITY_KEYID_new();
	AUTO(ASN1_OCTET_STRING_free_auto)
	ASN1_OCTET_STRING *id = X509_get_ext_d2i(issuer, NID_subject_key_identifier, NULL, NULL);
	if (!aki || !id)
		return false;
	if (spec->authority_key_id == CRAFT_KEY_ID_SERIAL) {
		GENERAL_NAME *name = GENERAL_NAME_new();
		aki->issuer = sk_GENERAL_NAME_new_null();
		aki->serial = ASN1_INTEGER_dup(X509_get0_serialNumber(issuer));
		if (!name || !aki->issuer || !aki->serial || !sk_GENERAL_NAME_push(aki->issuer, name))
			return false;
		GENERAL_NAME_set0_value(name, GEN_DIRNAME, X509_NAME_dup(X509_get_issuer_name(issuer)));
	} else {
		aki->keyid = ASN1_OCTET_STRING_dup(id);
		if (aki->keyid && spec->authority_key_id == CRAFT_KEY_ID_SHORT)
			aki->keyid->length--;
	}
	return add_extension(cert, NID_authority_key_identifier, aki, false);
}

static bool put_alternative_names(const struct craft_spec *spec, X509 *cert)
{
	if (!spec->alternative_names[0].type)
		return true;
	AUTO(GENERAL_NAMES_free_auto) GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
	for (const struct craft_string *from = spec->alternative_names; from->type; from++) {
		bool address = from->type == GEN_IPADD;
		GENERAL_NAME *name = GENERAL_NAME_new();
		ASN1_STRING *value = address ? ASN1_OCTET_STRING_new() : ASN1_IA5STRING_new();
		if (!names || !name || !value || !ASN1_STRING_set(value, from->value.p, (int)from->value.n) ||
			!sk_GENERAL_NAME_push(names, name))
			return false;
		GENERAL_NAME_set0_value(name, from->type, value);
	}
	return add_extension(cert, NID_subject_alt_name, names, false);
}

static bool put_unknown(X509 *cert, bool critical)
{
	AUTO(ASN1_OCTET_STRING_free_auto) ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
	ASN1_OBJECT *object = OBJ_txt2obj("1.3.6.1.4.1.55555.1", 1);
	X509_EXTENSION *extension = NULL;
	bool put = value && object && ASN1_OCTET_STRING_set(value, (const unsigned char *)"\x05\x00", 2) &&
		   (extension = X509_EXTENSION_create_by_OBJ(NULL, object, critical, value)) &&
		   X509_add_ext(cert, extension, -1);
	X509_EXTENSION_free(extension);
	ASN1_OBJECT_free(object);
	return put;
}

static bool put_extensions(const struct craft_spec *spec, X509 *cert)
{
	if (spec->no_extensions)
		return true;
	return put_constraints(spec, cert) && put_key_usage(spec, cert) && put_usages(spec, cert) &&
	       put_subject_key_id(spec, cert) && put_authority_key_id(spec, cert) &&
	       put_alternative_names(spec, cert) && (!spec->unknown_extension || put_unknown(cert, false)) &&
	       (!spec->unknown_critical_extension || put_unknown(cert, true));
}

/* --- DER by hand --- */

/* Appends tag, length (up to 65535) and value. */
static void der_put(struct buf *out, unsigned char tag, struct str value)
{
	buf_add_u8(out, tag);
	if (value.n >= 0x80)
		buf_add_u8(out, value.n > 0xff ? 0x82 : 0x81);
	if (value.n > 0xff)
		buf_add_u8(out, (uint8_t)(value.n >> 8));
	buf_add_u8(out, (uint8_t)value.n);
	buf_add_str(out, value);
}

/* The next element, header and all. */
static struct str der_take(struct str *in)
{
	const unsigned char *at = (const unsigned char *)in->p;
	long n;
	int tag, class;
	if (ASN1_get_object(&at, &n, &tag, &class, (long)in->n) & 0x80)
		return (struct str){0};
	struct str element = {in->p, (size_t)((const char *)at - in->p) + (size_t)n};
	*in = (struct str){in->p + element.n, in->n - element.n};
	return element;
}

static struct str der_contents(struct str element)
{
	const unsigned char *at = (const unsigned char *)element.p;
	long n;
	int tag, class;
	if (ASN1_get_object(&at, &n, &tag, &class, (long)element.n) & 0x80)
		return (struct str){0};
	return str_mem(at, (size_t)n);
}

/* tbsCertificate with an issuerUniqueID ([1] IMPLICIT BIT STRING) before its extensions ([3]). */
static void tbs_with_unique_id(struct str tbs, struct buf *out)
{
	struct buf inner;
	buf_init(&inner, DER_BYTES_MAX);
	for (struct str rest = der_contents(tbs), element; (element = der_take(&rest)).p;) {
		if ((unsigned char)element.p[0] == 0xa3)
			der_put(&inner, 0x81, STR("\x00\x55"));
		buf_add_str(&inner, element);
	}
	der_put(out, 0x30, buf_str(&inner));
	buf_clear(&inner);
}

/* The certificate anew around another tbsCertificate, signed again. */
static X509 *resign(const struct craft_spec *spec, X509 *cert, EVP_PKEY *key)
{
	unsigned char *der = NULL;
	int n = i2d_X509(cert, &der);
	if (n < 0)
		return NULL;
	struct buf tbs, body, out;
	buf_init(&tbs, DER_BYTES_MAX);
	buf_init(&body, DER_BYTES_MAX);
	buf_init(&out, DER_BYTES_MAX);
	struct str rest = der_contents(str_mem(der, (size_t)n));
	tbs_with_unique_id(der_take(&rest), &tbs);
	buf_add_str(&body, buf_str(&tbs));
	buf_add_str(&body, der_take(&rest)); /* signatureAlgorithm */

	unsigned char signature[1024];
	size_t signature_bytes = sizeof(signature) - 1;
	X509 *made = NULL;
	AUTO(EVP_MD_CTX_free_auto) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	signature[0] = 0; /* no unused bits */
	if (ctx && EVP_DigestSignInit_ex(ctx, NULL, spec->digest, NULL, NULL, key, NULL) > 0 &&
		EVP_DigestSign(ctx, signature + 1, &signature_bytes, (const unsigned char *)tbs.p, tbs.n) >
			0) {
		der_put(&body, 0x03, str_mem(signature, signature_bytes + 1));
		der_put(&out, 0x30, buf_str(&body));
		const unsigned char *at = (const unsigned char *)out.p;
		made = d2i_X509(NULL, &at, (long)out.n);
	}
	OPENSSL_free(der);
	buf_clear(&tbs);
	buf_clear(&body);
	buf_clear(&out);
	return made;
}

/* --- the certificate --- */

static bool put_all(const struct craft_spec *spec, X509 *cert, EVP_PKEY *key)
{
	return X509_set_version(cert, spec->version) && put_serial(spec, cert) && put_subject(spec, cert) &&
	       X509_set_issuer_name(cert, spec->issuer ? X509_get_subject_name(spec->issuer->cert)
						       : X509_get_subject_name(cert)) &&
	       put_time(X509_getm_notBefore(cert), spec->not_before, spec->time_type) &&
	       put_time(X509_getm_notAfter(cert), spec->not_after, spec->time_type) &&
	       X509_set_pubkey(cert, key) && put_extensions(spec, cert);
}

static bool sign(const struct craft_spec *spec, X509 **cert, EVP_PKEY *key)
{
	bool ed25519 = EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519;
	if (!X509_sign(*cert, key, ed25519 ? NULL : EVP_get_digestbyname(spec->digest)))
		return false;
	if (spec->unique_id) {
		X509 *made = resign(spec, *cert, key);
		if (!made)
			return false;
		X509_free(*cert);
		*cert = made;
	}
	if (spec->damage_signature) {
		const ASN1_BIT_STRING *signature;
		X509_get0_signature(&signature, NULL, *cert);
		signature->data[signature->length - 1] ^= 1;
	}
	return true;
}

int craft_cert(const struct craft_spec *spec, X509 **ret, EVP_PKEY **ret_key, struct err *e)
{
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	AUTO(X509_free_auto) X509 *cert = X509_new();
	if (spec->key) {
		EVP_PKEY_up_ref(spec->key);
		key = spec->key;
	} else if (craft_key(spec->key_type, &key, e) < 0) {
		return -1;
	}
	if (!cert || !put_all(spec, cert, key) || !sign(spec, &cert, spec->issuer ? spec->issuer->key : key))
		return failed(e, "craft a certificate");
	*ret = TAKE(cert);
	if (ret_key)
		*ret_key = TAKE(key);
	return 0;
}

static int craft_authority(const struct craft_spec *spec, struct craft_authority *ret, struct err *e)
{
	return craft_cert(spec, &ret->cert, &ret->key, e);
}

int craft_authorities(
	struct wall now, struct craft_authority *ret_root, struct craft_authority *ret_issuing, struct err *e)
{
	struct craft_spec spec;
	craft_ca(&spec, NULL, "Crafted Root CA", 1, now);
	if (craft_authority(&spec, ret_root, e) < 0)
		return -1;
	craft_ca(&spec, ret_root, "Crafted Issuing CA", 0, now);
	return craft_authority(&spec, ret_issuing, e);
}

void craft_authority_clear(struct craft_authority *a)
{
	X509_free(a->cert);
	EVP_PKEY_free(a->key);
	*a = (struct craft_authority){0};
}

/* --- flaws --- */

/* FLAW(name, of a CA, broken rule, outcome of the whole verdict, change to the spec s) */
#define FLAWS(FLAW)                                                                                          \
	FLAW(version_1, false, "version", "profile", s->version = X509_VERSION_1)                            \
	FLAW(version_1_bare, false, "version", "profile", s->version = X509_VERSION_1,                       \
		s->no_extensions = true)                                                                     \
	FLAW(version_2, false, "version", "profile", s->version = X509_VERSION_2)                            \
	FLAW(version_4, false, "version", "profile", s->version = 3)                                         \
	FLAW(serial_zero, false, "serial", "profile", s->serial = STR("\0"))                                 \
	FLAW(serial_negative, false, "serial", "profile", s->serial_negative = true)                         \
	FLAW(serial_21_octets, false, "serial", "profile",                                                   \
		s->serial = STR("\xff"                                                                       \
				"2345678901234567890"))                                                      \
	FLAW(serial_40_octets, false, "serial", "profile",                                                   \
		s->serial = STR("1234567890123456789012345678901234567890"))                                 \
	FLAW(unique_id, false, "unique_ids", "profile", s->unique_id = true)                                 \
	FLAW(sha1_signature, false, "signature_algorithm", "profile", s->digest = "SHA1")                    \
	FLAW(sha224_signature, false, "signature_algorithm", "profile", s->digest = "SHA224")                \
	FLAW(damaged_signature, false, NULL, "chain", s->damage_signature = true)                            \
	FLAW(rsa_1024, false, "public_key", "profile", s->key_type = "rsa:1024")                             \
	FLAW(rsa_exponent_3, false, "public_key", "profile", s->key_type = "rsa3:2048")                      \
	FLAW(ec_p521, false, "public_key", "profile", s->key_type = "ec:P-521")                              \
	FLAW(ec_k256, false, "public_key", "profile", s->key_type = "ec:secp256k1")                          \
	FLAW(ec_explicit, false, "public_key", "profile", s->key_type = "ec-explicit:P-256")                 \
	FLAW(expired, false, NULL, "expired", s->not_after = s->not_before)                                  \
	FLAW(not_yet_valid, false, NULL, "not_yet_valid", s->not_before = s->not_after)                      \
	FLAW(validity_reversed, false, "validity", "expired", swap(&s->not_before, &s->not_after))           \
	FLAW(validity_encoding, false, "validity", "profile", s->time_type = V_ASN1_GENERALIZEDTIME)         \
	FLAW(duplicate_extension, false, "duplicate_extension", "chain", s->repeat_key_usage = true)         \
	FLAW(critical_extension, false, "critical_extension", "profile",                                     \
		s->unknown_critical_extension = true)                                                        \
	FLAW(constraints_missing, false, "basic_constraints", "profile", s->ca = -1)                         \
	FLAW(constraints_not_critical, false, "basic_constraints", "profile",                                \
		s->constraints_not_critical = true)                                                          \
	FLAW(leaf_is_ca, false, "basic_constraints", "profile", s->ca = 1,                                   \
		s->key_usage |= X509v3_KU_KEY_CERT_SIGN)                                                     \
	FLAW(leaf_path_length, false, "basic_constraints", "profile", s->path_length = 0)                    \
	FLAW(key_usage_missing, false, "key_usage", "profile", s->key_usage = -1)                            \
	FLAW(key_usage_not_critical, false, "key_usage", "profile", s->key_usage_not_critical = true)        \
	FLAW(key_usage_more, false, "key_usage", "profile", s->key_usage |= X509v3_KU_KEY_ENCIPHERMENT)      \
	FLAW(key_usage_decipher_only, false, "key_usage", "profile",                                         \
		s->key_usage |= X509v3_KU_DECIPHER_ONLY)                                                     \
	FLAW(key_usage_other, false, "key_usage", "purpose", s->key_usage = X509v3_KU_CRL_SIGN)              \
	FLAW(usages_missing, false, "extended_key_usage", "purpose", s->usages[0] = 0)                       \
	FLAW(usages_other, false, "extended_key_usage", "purpose", s->usages[0] = NID_server_auth)           \
	FLAW(usages_more, false, "extended_key_usage", "purpose", s->usages[1] = NID_email_protect)          \
	FLAW(usages_twice, false, "extended_key_usage", "purpose", s->usages[1] = NID_client_auth)           \
	FLAW(usages_any, false, "extended_key_usage", "purpose", s->usages[1] = NID_anyExtendedKeyUsage)     \
	FLAW(subject_key_id_missing, false, "subject_key_id", "profile", s->no_subject_key_id = true)        \
	FLAW(authority_key_id_missing, false, "authority_key_id", "profile",                                 \
		s->authority_key_id = CRAFT_KEY_ID_NONE)                                                     \
	FLAW(authority_key_id_short, false, "authority_key_id", "unknown_ca",                                \
		s->authority_key_id = CRAFT_KEY_ID_SHORT)                                                    \
	FLAW(authority_key_id_serial, false, "authority_key_id", "profile",                                  \
		s->authority_key_id = CRAFT_KEY_ID_SERIAL)                                                   \
	FLAW(cn_missing, false, "common_name", "profile", s->common_names[0].type = 0)                       \
	FLAW(cn_two, false, "common_name", "profile", s->common_names[1] = s->common_names[0])               \
	FLAW(cn_nul, false, "common_name", "profile", cn(s, V_ASN1_UTF8STRING, STR("client_001\0.example"))) \
	FLAW(cn_nul_end, false, "common_name", "profile", cn(s, V_ASN1_UTF8STRING, STR("client_001\0")))     \
	FLAW(cn_bmp, false, "common_name", "profile", cn(s, V_ASN1_BMPSTRING, STR("\0c\0l")))                \
	FLAW(cn_teletex, false, "common_name", "profile", s->common_names[0].type = V_ASN1_T61STRING)        \
	FLAW(cn_empty, false, "common_name", "profile", cn(s, V_ASN1_UTF8STRING, STR("")))                   \
	FLAW(cn_space, false, "common_name", "profile", cn(s, V_ASN1_UTF8STRING, STR("client 001")))         \
	FLAW(cn_dash, false, "common_name", "profile", cn(s, V_ASN1_UTF8STRING, STR("-client_001")))         \
	FLAW(cn_newline, false, "common_name", "profile", cn(s, V_ASN1_UTF8STRING, STR("client_001\n")))     \
	FLAW(cn_65, false, "common_name", "profile",                                                         \
		cn(s, V_ASN1_UTF8STRING,                                                                     \
			STR("c2345678901234567890123456789012345678901234567890123456789012345")))           \
	FLAW(cn_mismatch, false, "san_cn_mismatch", "profile", cn(s, V_ASN1_UTF8STRING, STR("client_002")))  \
	FLAW(cn_case, false, "san_cn_mismatch", "profile", cn(s, V_ASN1_UTF8STRING, STR("Client_001")))      \
	FLAW(san_missing, false, "san_uri", "profile", s->alternative_names[0].type = 0)                     \
	FLAW(san_two_uris, false, "san_uri", "profile", s->alternative_names[1] = s->alternative_names[0])   \
	FLAW(san_dns_only, false, "san_uri", "profile", san(s, 0, GEN_DNS, STR("client_001")))               \
	FLAW(san_dns, false, "san_other", "profile", san(s, 1, GEN_DNS, STR("localhost")))                   \
	FLAW(san_address, false, "san_other", "profile", san(s, 1, GEN_IPADD, STR("\x7f\0\0\1")))            \
	FLAW(san_email, false, "san_other", "profile", san(s, 1, GEN_EMAIL, STR("a@example.com")))           \
	FLAW(uri_https, false, "san_uri", "profile",                                                         \
		uri(s, STR("https://example.test/client/example.com/client_001")))                           \
	FLAW(uri_scheme_case, false, "san_uri", "profile",                                                   \
		uri(s, STR("SPIFFE://example.test/client/example.com/client_001")))                          \
	FLAW(uri_short, false, "san_uri", "profile", uri(s, STR("spiffe://example.test/client/client_001"))) \
	FLAW(uri_long, false, "san_uri", "profile",                                                          \
		uri(s, STR("spiffe://example.test/client/example.com/client_001/x")))                        \
	FLAW(uri_slash_end, false, "san_uri", "profile",                                                     \
		uri(s, STR("spiffe://example.test/client/example.com/client_001/")))                         \
	FLAW(uri_empty_part, false, "san_uri", "profile",                                                    \
		uri(s, STR("spiffe://example.test/client//client_001")))                                     \
	FLAW(uri_percent, false, "san_uri", "profile",                                                       \
		uri(s, STR("spiffe://example.test/client/example.com/client%5f001")))                        \
	FLAW(uri_query, false, "san_uri", "profile",                                                         \
		uri(s, STR("spiffe://example.test/client/example.com/client_001?x")))                        \
	FLAW(uri_port, false, "san_uri", "profile",                                                          \
		uri(s, STR("spiffe://example.test:1/client/example.com/client_001")))                        \
	FLAW(uri_nul, false, "san_uri", "profile",                                                           \
		uri(s, STR("spiffe://example.test/client/example.com/client_001\0x")))                       \
	FLAW(uri_role, false, "san_uri", "profile",                                                          \
		uri(s, STR("spiffe://example.test/emperor/example.com/client_001")))                         \
	FLAW(uri_role_none, false, "san_uri", "profile",                                                     \
		uri(s, STR("spiffe://example.test/none/example.com/client_001")))                            \
	FLAW(uri_trust_domain, false, "trust_domain", "profile",                                             \
		uri(s, STR("spiffe://example.tes/client/example.com/client_001")))                           \
	FLAW(ca_false, true, "ca_basic_constraints", "chain", s->ca = 0, s->path_length = -1)                \
	FLAW(ca_constraints_missing, true, "ca_basic_constraints", "chain", s->ca = -1)                      \
	FLAW(ca_constraints_not_critical, true, "ca_basic_constraints", "profile",                           \
		s->constraints_not_critical = true)                                                          \
	FLAW(ca_path_length_missing, true, "ca_path_length", "profile", s->path_length = -1)                 \
	FLAW(ca_key_usage_missing, true, "ca_key_usage", "chain", s->key_usage = -1)                         \
	FLAW(ca_key_usage_no_sign, true, "ca_key_usage", "chain", s->key_usage = X509v3_KU_CRL_SIGN)         \
	FLAW(ca_key_usage_no_crl, true, "ca_key_usage", "profile", s->key_usage = X509v3_KU_KEY_CERT_SIGN)   \
	FLAW(ca_version_1, true, "version", "profile", s->version = X509_VERSION_1)                          \
	FLAW(ca_serial_zero, true, "serial", "profile", s->serial = STR("\0"))                               \
	FLAW(ca_sha1_signature, true, "signature_algorithm", "profile", s->digest = "SHA1")                  \
	FLAW(ca_rsa_1024, true, "public_key", "profile", s->key_type = "rsa:1024")                           \
	FLAW(ca_critical_extension, true, "critical_extension", "profile",                                   \
		s->unknown_critical_extension = true)                                                        \
	FLAW(ca_expired, true, NULL, "expired", s->not_after = s->not_before)                                \
	FLAW(ca_usages_other, true, NULL, "purpose", s->usages[0] = NID_code_sign)

static void swap(struct wall *a, struct wall *b)
{
	struct wall old = *a;
	*a = *b;
	*b = old;
}

static void cn(struct craft_spec *s, int type, struct str value)
{
	s->common_names[0] = (struct craft_string){type, value};
}

static void san(struct craft_spec *s, unsigned at, int type, struct str value)
{
	s->alternative_names[at] = (struct craft_string){type, value};
}

static void uri(struct craft_spec *s, struct str value)
{
	san(s, 0, GEN_URI, value);
}

#define FLAW(name, of_ca, rule, outcome, ...)                                                                \
	static void apply_##name(struct craft_spec *s)                                                       \
	{                                                                                                    \
		__VA_ARGS__;                                                                                 \
	}
FLAWS(FLAW)
#undef FLAW

const struct craft_flaw craft_flaws[] = {
#define FLAW(name, of_ca, rule, outcome, ...) {#name, of_ca, rule, outcome, apply_##name},
	FLAWS(FLAW)
#undef FLAW
};
const size_t craft_flaw_count = ARRAY_LEN(craft_flaws);

const struct craft_flaw *craft_flaw(const char *name)
{
	for (size_t i = 0; i < craft_flaw_count; i++)
		if (strcmp(craft_flaws[i].name, name) == 0)
			return &craft_flaws[i];
	return NULL;
}

/* --- files --- */

int craft_write_cert(const char *path, const char *mode, X509 *cert, struct err *e)
{
	AUTO(BIO_free_all_auto) BIO *file = BIO_new_file(path, mode);
	return file && PEM_write_bio_X509(file, cert) ? 0 : failed(e, path);
}

int craft_write_key(const char *path, EVP_PKEY *key, struct err *e)
{
	AUTO(fd_auto) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	AUTO(BIO_free_all_auto) BIO *file = fd < 0 ? NULL : BIO_new_fd(fd, BIO_NOCLOSE);
	return file && PEM_write_bio_PKCS8PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) ? 0
											   : failed(e, path);
}
