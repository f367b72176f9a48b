/* enroll.c - see enroll.h. */
#include "crypto/enroll.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "base/auto.h"
#include "base/json.h"

enum { SECRET_BYTES = 32, VERSION = 1 };

#define PREFIX "sealpost-enroll:"

/* --- base64url without padding --- */

static int base64url_encode(const void *bytes, size_t n, struct buf *out, struct err *e)
{
	char *text = buf_reserve(out, (n + 2) / 3 * 4 + 1);
	if (!text)
		return buf_check(out, e);
	size_t chars = (size_t)EVP_EncodeBlock((unsigned char *)text, bytes, (int)n);
	while (chars && text[chars - 1] == '=')
		chars--;
	for (size_t i = 0; i < chars; i++)
		text[i] = (char)(text[i] == '+' ? '-' : text[i] == '/' ? '_' : text[i]);
	buf_commit(out, chars);
	return buf_check(out, e);
}

static bool is_base64url(struct str s)
{
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
			    c == '-' || c == '_'))
			return false;
	}
	return s.n % 4 != 1;
}

/* Into a buffer that is empty. */
static int base64url_decode(struct str text, struct buf *out, struct err *e)
{
	size_t padded = (text.n + 3) / 4 * 4;
	AUTO(buf_wipe_auto) struct buf standard;
	buf_init(&standard, padded + 1);
	for (size_t i = 0; i < text.n; i++)
		buf_add_char(&standard, (char)(text.p[i] == '-' ? '+' : text.p[i] == '_' ? '/' : text.p[i]));
	while (standard.n < padded && !standard.failed)
		buf_add_char(&standard, '=');
	char *bytes = buf_reserve(out, padded / 4 * 3 + 1);
	if (buf_check(&standard, e) < 0 || !bytes)
		return buf_check(out, e) < 0 ? -1 : err_oom(e);
	int n = EVP_DecodeBlock((unsigned char *)bytes, (const unsigned char *)standard.p, (int)standard.n);
	if (!is_base64url(text) || n < 0)
		return err_set(e, ERR_REJECT, "not base64url");
	buf_commit(out, (size_t)n - (padded - text.n));
	return 0;
}

/* --- the secret --- */

int enroll_secret_new(char ret[ENROLL_SECRET_CHARS + 1], struct err *e)
{
	uint8_t bytes[SECRET_BYTES];
	AUTO(buf_wipe_auto) struct buf text;
	buf_init(&text, ENROLL_SECRET_CHARS + 2);
	if (RAND_priv_bytes(bytes, sizeof(bytes)) != 1)
		return err_set(e, ERR_FATAL, "no random numbers");
	int result = base64url_encode(bytes, sizeof(bytes), &text, e);
	OPENSSL_cleanse(bytes, sizeof(bytes));
	if (result < 0)
		return -1;
	ensure(text.n == ENROLL_SECRET_CHARS);
	memcpy(ret, text.p, ENROLL_SECRET_CHARS);
	ret[ENROLL_SECRET_CHARS] = 0;
	return 0;
}

bool enroll_secret_hash(struct str secret, uint8_t ret[ENROLL_HASH_BYTES])
{
	return secret.n == ENROLL_SECRET_CHARS && is_base64url(secret) &&
	       EVP_Q_digest(NULL, "SHA256", NULL, secret.p, secret.n, ret, NULL) == 1;
}

/* --- the token --- */

int enroll_token_write(const struct enroll_token *token, struct buf *out, struct err *e)
{
	char pin[2 * ENROLL_PIN_BYTES + 1];
	hex_encode(token->pin, sizeof(token->pin), pin);
	AUTO(buf_wipe_auto) struct buf json;
	buf_init(&json, ENROLL_TOKEN_BYTES);
	struct json_out w = json_out_to(&json);
	json_open_object(&w, NULL);
	json_put_int(&w, "v", VERSION);
	json_put_str(&w, "url", str_of(token->url));
	json_put_str(&w, "pin", str_of(pin));
	json_put_str(&w, "name", str_of(token->name));
	if (*token->send)
		json_put_str(&w, "send", str_of(token->send));
	json_put_str(&w, "secret", str_of(token->secret));
	json_close_object(&w);
	buf_add_str(out, STR(PREFIX));
	return buf_check(&json, e) < 0 ? -1 : base64url_encode(json.p, json.n, out, e);
}

/* Copies a text member; false when it is missing, empty or too long. */
static bool take(const json_t *object, const char *key, char *ret, size_t room)
{
	const json_t *value = json_object_get(object, key);
	size_t n = json_string_length(value);
	if (!json_is_string(value) || n == 0 || n >= room)
		return false;
	memcpy(ret, json_string_value(value), n);
	ret[n] = 0;
	return true;
}

static bool take_members(const json_t *object, struct enroll_token *ret)
{
	char pin[2 * ENROLL_PIN_BYTES + 1];
	uint8_t hash[ENROLL_HASH_BYTES];
	if (json_object_get(object, "send") && !take(object, "send", ret->send, sizeof(ret->send)))
		return false;
	return take(object, "url", ret->url, sizeof(ret->url)) &&
	       take(object, "name", ret->name, sizeof(ret->name)) && take(object, "pin", pin, sizeof(pin)) &&
	       hex_decode(str_of(pin), ret->pin, sizeof(ret->pin)) &&
	       take(object, "secret", ret->secret, sizeof(ret->secret)) &&
	       enroll_secret_hash(str_of(ret->secret), hash);
}

static int read_json(struct str json, struct enroll_token *ret, struct err *e)
{
	AUTO(json_auto) json_t *object = NULL;
	struct err why = ERR_INIT;
	if (json_read(json, &object, &why) < 0 || !json_is_object(object))
		return err_set(
			e, ERR_REJECT, "this is not a whole enrolment token: was it cut when it was copied?");
	if (json_integer_value(json_object_get(object, "v")) != VERSION)
		return err_set(e, ERR_REJECT, "this enrolment token is of another version of sealpost");
	if (!take_members(object, ret))
		return err_set(
			e, ERR_REJECT, "this enrolment token lacks something, or something in it is wrong");
	return 0;
}

/* Without the white space and line ends that copying brings. */
static struct str trim(struct str s)
{
	while (s.n && is_blank(s.p[0]))
		s.p++, s.n--;
	while (s.n && is_blank(s.p[s.n - 1]))
		s.n--;
	return s;
}

int enroll_token_read(struct str text, struct enroll_token *ret, struct err *e)
{
	text = trim(text);
	if (!str_starts(text, STR(PREFIX)))
		return err_set(e, ERR_REJECT, "this is not an enrolment token: it starts with '" PREFIX "'");
	struct str encoded = {text.p + sizeof(PREFIX) - 1, text.n - (sizeof(PREFIX) - 1)};
	struct enroll_token token = {.send = ""};
	struct err why = ERR_INIT;
	AUTO(buf_wipe_auto) struct buf json;
	buf_init(&json, ENROLL_TOKEN_BYTES);
	if (encoded.n > ENROLL_TOKEN_BYTES || base64url_decode(encoded, &json, &why) < 0)
		return err_set(
			e, ERR_REJECT, "this is not a whole enrolment token: was it cut when it was copied?");
	if (read_json(buf_str(&json), &token, e) < 0)
		return -1;
	*ret = token;
	return 0;
}
