/* keyring.c - see keyring.h; the layout of a key file is in doc/protocol.md.
 *
 * Every file carries a check sum and the time it was made. The time orders the keys, since a key id does not;
 * a rotation therefore never writes a time that is not later than all others, even if the clock went back. */
#include "crypto/keyring.h"

#include <dirent.h>
#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "base/file.h"

enum {
	MAGIC_BYTES = 8,
	CHECK_BYTES = 8,
	CHECKED_BYTES = MAGIC_BYTES + 8 + HPKE_KEY_BYTES,
	FILE_BYTES = CHECKED_BYTES + CHECK_BYTES,
	FILE_NAME_BYTES = 64,
};

static const char sealing_magic[MAGIC_BYTES + 1] = "SPSEALK1";
static const char index_magic[MAGIC_BYTES + 1] = "SPINDEX1";

static const char index_name[] = "index.key";
static const struct str sealing_prefix = {"sealing-", 8}, sealing_suffix = {".key", 4};

struct sealing_key {
	struct wall made_at;
	struct sealing_public public;
	uint8_t private_key[HPKE_KEY_BYTES];
};

struct keyring {
	EVP_MAC_CTX *index_mac; /* keyed; copied for every use, as any thread may come */
	size_t count;
	struct sealing_key keys[]; /* newest first */
};

AUTO_DEFINE(EVP_MAC_free, EVP_MAC *)
AUTO_DEFINE(EVP_MAC_CTX_free, EVP_MAC_CTX *)

/* Leaves nothing in OpenSSL's error queue: TLS on the same thread looks there. */
static int openssl_failed(struct err *e, const char *what)
{
	ERR_clear_error();
	return err_set(e, ERR_FATAL, "%s failed in OpenSSL", what);
}

/* --- one key file --- */

/* What a file holds, of either kind. */
struct key_file {
	struct wall made_at;
	uint8_t key[HPKE_KEY_BYTES];
};

static void key_file_auto(struct key_file *f)
{
	OPENSSL_cleanse(f, sizeof(*f));
}

static int sha256(const void *bytes, size_t n, uint8_t ret[SHA256_DIGEST_LENGTH], struct err *e)
{
	if (!SHA256(bytes, n, ret))
		return openssl_failed(e, "SHA-256");
	return 0;
}

static int key_id_of(
	const uint8_t public_key[HPKE_KEY_BYTES], uint8_t ret[ENVELOPE_KEY_ID_BYTES], struct err *e)
{
	uint8_t digest[SHA256_DIGEST_LENGTH];
	if (sha256(public_key, HPKE_KEY_BYTES, digest, e) < 0)
		return -1;
	memcpy(ret, digest, ENVELOPE_KEY_ID_BYTES);
	return 0;
}

static int key_file_write(const char *path, const char *magic, const struct key_file *f, struct err *e)
{
	AUTO(buf_wipe_auto) struct buf bytes;
	uint8_t digest[SHA256_DIGEST_LENGTH];
	buf_init(&bytes, FILE_BYTES);
	buf_add(&bytes, magic, MAGIC_BYTES);
	buf_add_u64(&bytes, (uint64_t)f->made_at.ms);
	buf_add(&bytes, f->key, sizeof(f->key));
	if (buf_check(&bytes, e) < 0 || sha256(bytes.p, bytes.n, digest, e) < 0)
		return -1;
	buf_add(&bytes, digest, CHECK_BYTES);
	if (buf_check(&bytes, e) < 0)
		return -1;
	return file_replace(path, 0600, buf_str(&bytes), e);
}

static int damaged(struct err *e, const char *path, const char *how)
{
	return err_set(e, ERR_FATAL, "key file '%s' is damaged (%s): restore it from a backup", path, how);
}

static int key_file_parse(
	const char *path, const char *magic, struct str bytes, struct key_file *ret, struct err *e)
{
	uint8_t digest[SHA256_DIGEST_LENGTH];
	if (bytes.n != FILE_BYTES)
		return damaged(e, path, "wrong length");
	if (memcmp(bytes.p, magic, MAGIC_BYTES) != 0)
		return damaged(e, path, "not this kind of key");
	if (sha256(bytes.p, CHECKED_BYTES, digest, e) < 0)
		return -1;
	if (memcmp(bytes.p + CHECKED_BYTES, digest, CHECK_BYTES) != 0)
		return damaged(e, path, "wrong check sum");
	struct cursor c = cursor_of(bytes);
	cursor_bytes(&c, MAGIC_BYTES);
	ret->made_at.ms = (int64_t)cursor_u64(&c);
	cursor_copy(&c, ret->key, sizeof(ret->key));
	return 0;
}

static int check_private(const char *path, struct err *e)
{
	struct stat st;
	if (stat(path, &st) < 0)
		return err_sys(e, ERR_FATAL, "key file '%s'", path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, ERR_FATAL, "key file '%s' is not a regular file", path);
	if (st.st_mode & (S_IRWXG | S_IRWXO))
		return err_set(e, ERR_FATAL, "key file '%s' is open to others (mode %04o): chmod 600 it",
			path, (unsigned)(st.st_mode & 07777));
	return 0;
}

static int key_file_read(const char *path, const char *magic, struct key_file *ret, struct err *e)
{
	if (check_private(path, e) < 0)
		return -1;
	AUTO(buf_wipe_auto) struct buf bytes;
	buf_init(&bytes, FILE_BYTES + 1); /* one more, so that a longer file is seen to be longer */
	if (file_read(path, FILE_BYTES + 1, &bytes, e) < 0) {
		if (e && e->kind == ERR_REJECT)
			return damaged(e, path, "wrong length");
		return -1;
	}
	return key_file_parse(path, magic, buf_str(&bytes), ret, e);
}

/* --- the directory --- */

static bool is_sealing_name(struct str name)
{
	if (!str_starts(name, sealing_prefix) || name.n <= sealing_suffix.n)
		return false;
	return str_eq(str_mem(name.p + name.n - sealing_suffix.n, sealing_suffix.n), sealing_suffix);
}

static int select_sealing(const struct dirent *entry)
{
	return is_sealing_name(str_of(entry->d_name));
}

/* Names of the sealing keys in a directory. */
struct names {
	struct dirent **entries;
	int count;
};

static void names_auto(struct names *n)
{
	for (int i = 0; i < n->count; i++)
		free(n->entries[i]);
	free(n->entries);
}

static int names_read(const char *dir, struct names *ret, struct err *e)
{
	int count = scandir(dir, &ret->entries, select_sealing, alphasort);
	if (count < 0)
		return err_sys(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_FATAL, "key directory '%s'", dir);
	ret->count = count;
	return 0;
}

static int compare_newest_first(const void *a, const void *b)
{
	const struct sealing_key *x = a, *y = b;
	if (x->made_at.ms != y->made_at.ms)
		return x->made_at.ms > y->made_at.ms ? -1 : 1;
	return memcmp(x->public.key_id, y->public.key_id, sizeof(x->public.key_id));
}

static void sealing_name(const uint8_t key_id[ENVELOPE_KEY_ID_BYTES], char out[FILE_NAME_BYTES])
{
	char hex[2 * ENVELOPE_KEY_ID_BYTES + 1];
	hex_encode(key_id, ENVELOPE_KEY_ID_BYTES, hex);
	snprintf(out, FILE_NAME_BYTES, "%s%s%s", sealing_prefix.p, hex, sealing_suffix.p);
}

static int load_sealing(const char *dir, const char *name, struct sealing_key *ret, struct err *e)
{
	AUTO(free_auto) char *path = path_join(dir, name);
	AUTO(key_file_auto) struct key_file f = {0};
	if (!path)
		return err_oom(e);
	if (key_file_read(path, sealing_magic, &f, e) < 0)
		return -1;
	ret->made_at = f.made_at;
	memcpy(ret->private_key, f.key, sizeof(f.key));
	char expected[FILE_NAME_BYTES];
	if (hpke_public(f.key, ret->public.public_key, e) < 0 ||
		key_id_of(ret->public.public_key, ret->public.key_id, e) < 0)
		return err_context(e, "key file '%s'", path);
	sealing_name(ret->public.key_id, expected);
	if (strcmp(name, expected) != 0)
		return err_set(e, ERR_FATAL, "key file '%s' holds another key than its name says", path);
	return 0;
}

static int index_mac_new(const uint8_t key[HPKE_KEY_BYTES], EVP_MAC_CTX **ret, struct err *e)
{
	const OSSL_PARAM sha256_param[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]){"SHA256"}, 0),
		OSSL_PARAM_construct_end(),
	};
	AUTO(EVP_MAC_free_auto) EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	AUTO(EVP_MAC_CTX_free_auto) EVP_MAC_CTX *ctx = mac ? EVP_MAC_CTX_new(mac) : NULL;
	if (!ctx || !EVP_MAC_init(ctx, key, HPKE_KEY_BYTES, sha256_param))
		return openssl_failed(e, "HMAC-SHA-256");
	*ret = TAKE(ctx);
	return 0;
}

static int load_index(const char *dir, EVP_MAC_CTX **ret, struct err *e)
{
	AUTO(free_auto) char *path = path_join(dir, index_name);
	AUTO(key_file_auto) struct key_file f = {0};
	if (!path)
		return err_oom(e);
	if (key_file_read(path, index_magic, &f, e) < 0)
		return -1;
	return index_mac_new(f.key, ret, e);
}

static int load_all(const char *dir, const struct names *names, struct keyring *k, struct err *e)
{
	for (size_t i = 0; i < k->count; i++)
		if (load_sealing(dir, names->entries[i]->d_name, &k->keys[i], e) < 0)
			return -1;
	qsort(k->keys, k->count, sizeof(k->keys[0]), compare_newest_first);
	return load_index(dir, &k->index_mac, e);
}

/* NULL with *e set on failure. */
static struct keyring *load(const char *dir, struct err *e)
{
	AUTO(names_auto) struct names names = {0};
	if (names_read(dir, &names, e) < 0)
		return NULL;
	if (names.count == 0) {
		err_set(e, ERR_FATAL, "key directory '%s' holds no sealing key", dir);
		return NULL;
	}
	struct keyring *k = calloc(1, sizeof(*k) + (size_t)names.count * sizeof(k->keys[0]));
	if (!k) {
		err_oom(e);
		return NULL;
	}
	k->count = (size_t)names.count;
	if (load_all(dir, &names, k, e) < 0) {
		keyring_free(k);
		return NULL;
	}
	return k;
}

int keyring_load(const char *dir, struct keyring **ret, struct err *e)
{
	struct keyring *k = load(dir, e);
	if (!k)
		return -1;
	*ret = k;
	return 0;
}

void keyring_free(struct keyring *k)
{
	if (!k)
		return;
	EVP_MAC_CTX_free(k->index_mac); /* wipes the key */
	OPENSSL_cleanse(k, sizeof(*k) + k->count * sizeof(k->keys[0]));
	free(k);
}

static int add_sealing(
	const char *dir, struct wall made_at, uint8_t ret_key_id[ENVELOPE_KEY_ID_BYTES], struct err *e)
{
	AUTO(key_file_auto) struct key_file f = {.made_at = made_at};
	uint8_t public_key[HPKE_KEY_BYTES];
	if (hpke_generate(f.key, public_key, e) < 0 || key_id_of(public_key, ret_key_id, e) < 0)
		return -1;
	char name[FILE_NAME_BYTES];
	sealing_name(ret_key_id, name);
	AUTO(free_auto) char *path = path_join(dir, name);
	if (!path)
		return err_oom(e);
	return key_file_write(path, sealing_magic, &f, e);
}

static int add_index(const char *path, struct wall made_at, struct err *e)
{
	AUTO(key_file_auto) struct key_file f = {.made_at = made_at};
	if (RAND_priv_bytes(f.key, sizeof(f.key)) != 1)
		return openssl_failed(e, "the random generator");
	return key_file_write(path, index_magic, &f, e);
}

/* The index key comes first: no crash leaves sealing keys without it. */
int keyring_init(const char *dir, const struct clock *clock, struct err *e)
{
	AUTO(names_auto) struct names names = {0};
	if (dir_make(dir, 0700, e) < 0 || names_read(dir, &names, e) < 0)
		return -1;
	AUTO(free_auto) char *index_path = path_join(dir, index_name);
	if (!index_path)
		return err_oom(e);
	bool has_index = access(index_path, F_OK) == 0;
	if (!has_index && names.count)
		return err_set(e, ERR_FATAL,
			"'%s' is gone but sealing keys are there: restore it from a backup", index_path);
	if (!has_index && add_index(index_path, clock_wall(clock), e) < 0)
		return -1;
	uint8_t key_id[ENVELOPE_KEY_ID_BYTES];
	return names.count ? 0 : add_sealing(dir, clock_wall(clock), key_id, e);
}

int keyring_rotate(
	const char *dir, const struct clock *clock, uint8_t ret_key_id[ENVELOPE_KEY_ID_BYTES], struct err *e)
{
	struct keyring *k = load(dir, e);
	if (!k)
		return -1;
	struct wall newest = k->keys[0].made_at, made_at = clock_wall(clock);
	keyring_free(k);
	if (made_at.ms <= newest.ms)
		made_at.ms = newest.ms + 1;
	return add_sealing(dir, made_at, ret_key_id, e);
}

/* --- use --- */

void keyring_active(const struct keyring *k, struct sealing_public *ret)
{
	*ret = k->keys[0].public;
}

size_t keyring_list(const struct keyring *k, struct sealing_public *ret, size_t room)
{
	for (size_t i = 0; i < k->count && i < room; i++)
		ret[i] = k->keys[i].public;
	return k->count;
}

const uint8_t *keyring_private(const struct keyring *k, const uint8_t key_id[ENVELOPE_KEY_ID_BYTES])
{
	for (size_t i = 0; i < k->count; i++)
		if (memcmp(k->keys[i].public.key_id, key_id, ENVELOPE_KEY_ID_BYTES) == 0)
			return k->keys[i].private_key;
	return NULL;
}

int keyring_blind_index(
	const struct keyring *k, struct str e164, uint8_t ret[BLIND_INDEX_BYTES], struct err *e)
{
	AUTO(EVP_MAC_CTX_free_auto) EVP_MAC_CTX *mac = EVP_MAC_CTX_dup(k->index_mac);
	size_t n;
	if (!mac || !EVP_MAC_update(mac, (const unsigned char *)e164.p, e164.n) ||
		!EVP_MAC_final(mac, ret, &n, BLIND_INDEX_BYTES))
		return openssl_failed(e, "HMAC-SHA-256");
	return 0;
}
