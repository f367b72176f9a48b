#include "crypto/keyring.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/hmac.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/scratch_test.h"

AUTO_DEFINE(keyring_free, struct keyring *)

struct fixture {
	const char *dir; /* does not exist yet */
	struct clock_fake clock;
};

static int set_up(void **state)
{
	static struct fixture fixture;
	fixture = (struct fixture){.dir = "keys"};
	clock_fake_init(&fixture.clock, (struct wall){1790000000000});
	*state = &fixture;
	return scratch_enter(state);
}

static int tear_down(void **state)
{
	return scratch_leave(state);
}

static void init(struct fixture *f)
{
	struct err e = ERR_INIT;
	assert_int_equal(keyring_init(f->dir, &f->clock.clock, &e), 0);
}

static struct keyring *load(struct fixture *f)
{
	struct err e = ERR_INIT;
	struct keyring *k = NULL;
	assert_int_equal(keyring_load(f->dir, &k, &e), 0);
	return k;
}

/* Load fails for good, and the error names `what`. */
static void assert_load_fails(struct fixture *f, const char *what)
{
	struct err e = ERR_INIT;
	struct keyring *k = NULL;
	assert_int_equal(keyring_load(f->dir, &k, &e), -1);
	assert_int_equal(e.kind, ERR_FATAL);
	assert_non_null(strstr(e.text, what));
	assert_null(k);
}

/* The path of the sealing key with this id. */
static char *sealing_path(struct fixture *f, const uint8_t key_id[ENVELOPE_KEY_ID_BYTES])
{
	char hex[2 * ENVELOPE_KEY_ID_BYTES + 1], *path;
	hex_encode(key_id, ENVELOPE_KEY_ID_BYTES, hex);
	assert_true(asprintf(&path, "%s/sealing-%s.key", f->dir, hex) > 0);
	return path;
}

static char *index_path(struct fixture *f)
{
	char *path = path_join(f->dir, "index.key");
	assert_non_null(path);
	return path;
}

static char *active_path(struct fixture *f)
{
	AUTO(keyring_free_auto) struct keyring *k = load(f);
	struct sealing_public active;
	keyring_active(k, &active);
	return sealing_path(f, active.key_id);
}

static void test_init_is_safe_to_repeat(void **state)
{
	struct fixture *f = *state;
	struct sealing_public first[2], second[2];
	uint8_t index_before[BLIND_INDEX_BYTES], index_after[BLIND_INDEX_BYTES];
	struct err e = ERR_INIT;
	init(f);
	struct keyring *k = load(f);
	assert_int_equal(keyring_list(k, first, 2), 1);
	assert_int_equal(keyring_blind_index(k, STR("+4915112345678"), index_before, &e), 0);
	keyring_free(k);

	clock_fake_advance_ms(&f->clock, 1000);
	init(f);
	k = load(f);
	assert_int_equal(keyring_list(k, second, 2), 1);
	assert_int_equal(keyring_blind_index(k, STR("+4915112345678"), index_after, &e), 0);
	keyring_free(k);
	assert_memory_equal(&first[0], &second[0], sizeof(first[0]));
	assert_memory_equal(index_before, index_after, sizeof(index_before));
}

static void test_files_are_private(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	init(f);
	assert_int_equal(stat(f->dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	AUTO(free_auto) char *sealing = active_path(f);
	AUTO(free_auto) char *index = index_path(f);
	assert_int_equal(stat(sealing, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(index, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void test_private_key_belongs_to_public(void **state)
{
	struct fixture *f = *state;
	struct err e = ERR_INIT;
	struct sealing_public active;
	uint8_t made[HPKE_KEY_BYTES], unknown[ENVELOPE_KEY_ID_BYTES] = {1, 2, 3};
	init(f);
	AUTO(keyring_free_auto) struct keyring *k = load(f);
	keyring_active(k, &active);
	const uint8_t *private_key = keyring_private(k, active.key_id);
	assert_non_null(private_key);
	assert_int_equal(hpke_public(private_key, made, &e), 0);
	assert_memory_equal(made, active.public_key, sizeof(made));
	assert_null(keyring_private(k, unknown));
}

/* Three rotations: time goes on, stands still, goes back. */
static void test_rotation(void **state)
{
	struct fixture *f = *state;
	static const int64_t steps_ms[] = {1000, 0, -100000};
	struct err e = ERR_INIT;
	init(f);
	for (size_t i = 0; i < ARRAY_LEN(steps_ms); i++) {
		uint8_t key_id[ENVELOPE_KEY_ID_BYTES];
		struct sealing_public keys[8], active;
		f->clock.now.ms += steps_ms[i];
		assert_int_equal(keyring_rotate(f->dir, &f->clock.clock, key_id, &e), 0);
		AUTO(keyring_free_auto) struct keyring *k = load(f);
		assert_int_equal(keyring_list(k, keys, 8), i + 2);
		assert_int_equal(keyring_list(k, keys, 1), i + 2);
		keyring_active(k, &active);
		assert_memory_equal(active.key_id, key_id, sizeof(key_id));
		assert_memory_equal(keys[0].key_id, key_id, sizeof(key_id));
		for (size_t j = 0; j < i + 2; j++)
			assert_non_null(keyring_private(k, keys[j].key_id));
	}
}

/* What matters of the index: it depends on number and key, and on nothing else. */
static void test_blind_index(void **state)
{
	struct fixture *f = *state;
	struct err e = ERR_INIT;
	uint8_t a[BLIND_INDEX_BYTES], b[BLIND_INDEX_BYTES];
	init(f);
	struct keyring *k = load(f);
	assert_int_equal(keyring_blind_index(k, STR("+4915112345678"), a, &e), 0);
	assert_int_equal(keyring_blind_index(k, STR("+4915112345678"), b, &e), 0);
	assert_memory_equal(a, b, sizeof(a));
	assert_int_equal(keyring_blind_index(k, STR("+4915112345679"), b, &e), 0);
	assert_memory_not_equal(a, b, sizeof(a));
	keyring_free(k);

	assert_int_equal(nftw(f->dir, scratch_remove, 8, FTW_DEPTH | FTW_PHYS), 0);
	init(f);
	k = load(f);
	assert_int_equal(keyring_blind_index(k, STR("+4915112345678"), b, &e), 0);
	assert_memory_not_equal(a, b, sizeof(a));
	keyring_free(k);
}

/* Against OpenSSL's one-shot HMAC, under the key as it stands in the file (doc/protocol.md: from byte 16). */
static void test_blind_index_is_hmac_sha256(void **state)
{
	struct fixture *f = *state;
	struct err e = ERR_INIT;
	uint8_t index[BLIND_INDEX_BYTES], expected[BLIND_INDEX_BYTES];
	unsigned n;
	init(f);
	AUTO(keyring_free_auto) struct keyring *k = load(f);
	AUTO(free_auto) char *path = index_path(f);
	AUTO(buf_wipe_auto) struct buf file;
	buf_init(&file, 4096);
	assert_int_equal(file_read(path, 4096, &file, &e), 0);
	assert_int_equal(file.n, 56);
	assert_non_null(HMAC(
		EVP_sha256(), file.p + 16, 32, (const unsigned char *)"+4915112345678", 14, expected, &n));
	for (int twice = 0; twice < 2; twice++) {
		assert_int_equal(keyring_blind_index(k, STR("+4915112345678"), index, &e), 0);
		assert_memory_equal(index, expected, sizeof(index));
	}
}

struct indexer {
	const struct keyring *keyring;
	const uint8_t *expected;
	bool failed;
};

static void *index_often(void *arg)
{
	struct indexer *x = arg;
	uint8_t index[BLIND_INDEX_BYTES];
	for (int i = 0; i < 500; i++)
		x->failed |= keyring_blind_index(x->keyring, STR("+4915112345678"), index, NULL) < 0 ||
			     memcmp(index, x->expected, sizeof(index)) != 0;
	return NULL;
}

static void test_blind_index_from_many_threads(void **state)
{
	enum { THREADS = 4 };
	struct fixture *f = *state;
	struct err e = ERR_INIT;
	uint8_t expected[BLIND_INDEX_BYTES];
	init(f);
	struct keyring *k = load(f);
	assert_int_equal(keyring_blind_index(k, STR("+4915112345678"), expected, &e), 0);
	pthread_t threads[THREADS];
	struct indexer indexers[THREADS];
	for (int i = 0; i < THREADS; i++) {
		indexers[i] = (struct indexer){.keyring = k, .expected = expected};
		assert_int_equal(pthread_create(&threads[i], NULL, index_often, &indexers[i]), 0);
	}
	for (int i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_false(indexers[i].failed);
	}
	keyring_free(k);
}

static void test_missing(void **state)
{
	struct fixture *f = *state;
	struct err e = ERR_INIT;
	struct keyring *k = NULL;
	assert_int_equal(keyring_load(f->dir, &k, &e), -1);
	assert_int_equal(e.kind, ERR_NOT_FOUND);

	init(f);
	AUTO(free_auto) char *index = index_path(f);
	AUTO(free_auto) char *sealing = active_path(f);
	assert_int_equal(unlink(index), 0);
	assert_load_fails(f, "index.key");
	/* a new index key would not find the old rows */
	assert_int_equal(keyring_init(f->dir, &f->clock.clock, &e), -1);
	assert_int_equal(e.kind, ERR_FATAL);
	assert_non_null(strstr(e.text, "index.key"));

	assert_int_equal(unlink(sealing), 0);
	assert_load_fails(f, f->dir);
}

static void test_open_to_others_is_refused(void **state)
{
	struct fixture *f = *state;
	static const mode_t modes[] = {0640, 0604, 0620, 0610, 0666};
	init(f);
	char *paths[] = {active_path(f), index_path(f)};
	for (size_t p = 0; p < ARRAY_LEN(paths); p++) {
		for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
			assert_int_equal(chmod(paths[p], modes[i]), 0);
			assert_load_fails(f, "chmod 600");
			assert_load_fails(f, strrchr(paths[p], '/') + 1);
		}
		assert_int_equal(chmod(paths[p], 0600), 0);
		keyring_free(load(f));
		free(paths[p]);
	}
}

static void put(const char *path, struct str bytes)
{
	struct err e = ERR_INIT;
	assert_int_equal(file_replace(path, 0600, bytes, &e), 0);
}

static void test_damage_is_refused(void **state)
{
	struct fixture *f = *state;
	struct err e = ERR_INIT;
	init(f);
	char *paths[] = {active_path(f), index_path(f)};
	for (size_t p = 0; p < ARRAY_LEN(paths); p++) {
		const char *name = strrchr(paths[p], '/') + 1;
		AUTO(buf_wipe_auto) struct buf good;
		buf_init(&good, 4096);
		assert_int_equal(file_read(paths[p], 4096, &good, &e), 0);
		for (size_t i = 0; i < good.n; i++) {
			good.p[i] ^= 0x40;
			put(paths[p], buf_str(&good));
			assert_load_fails(f, name);
			good.p[i] ^= 0x40;
		}
		for (size_t n = 0; n < good.n; n += 5) {
			put(paths[p], str_mem(good.p, n));
			assert_load_fails(f, name);
		}
		size_t whole = good.n;
		for (size_t more = 1; more < 100; more += 49) {
			while (good.n < whole + more)
				buf_add_char(&good, 'x');
			put(paths[p], buf_str(&good));
			assert_load_fails(f, name);
		}
		put(paths[p], str_mem(good.p, whole));
		keyring_free(load(f));
		free(paths[p]);
	}
}

static void test_misplaced_files(void **state)
{
	struct fixture *f = *state;
	struct err e = ERR_INIT;
	init(f);
	AUTO(free_auto) char *sealing = active_path(f);
	AUTO(free_auto) char *index = index_path(f);
	AUTO(buf_wipe_auto) struct buf bytes;
	buf_init(&bytes, 4096);
	assert_int_equal(file_read(sealing, 4096, &bytes, &e), 0);

	/* What other programs leave there does not matter; what looks like a key must be one. */
	static const struct {
		const char *name;
		bool refused;
	} cases[] = {
		{"README", false},
		{"sealing-0011223344556677.key.aB3dE9", false},
		{"sealing-0011223344556677.key", true},
		{"sealing-.key", true},
		{"sealing-0011.key", true},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		AUTO(free_auto) char *path = path_join(f->dir, cases[i].name);
		put(path, buf_str(&bytes));
		if (cases[i].refused)
			assert_load_fails(f, cases[i].name);
		else
			keyring_free(load(f));
		assert_int_equal(unlink(path), 0);
	}

	AUTO(free_auto) char *directory = path_join(f->dir, "sealing-0011223344556677.key");
	assert_int_equal(mkdir(directory, 0700), 0);
	assert_load_fails(f, "sealing-0011223344556677.key");
	assert_int_equal(rmdir(directory), 0);

	put(index, buf_str(&bytes)); /* a sealing key in the index key's place */
	assert_load_fails(f, "index.key");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_init_is_safe_to_repeat, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_files_are_private, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_private_key_belongs_to_public, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_rotation, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_blind_index, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_blind_index_is_hmac_sha256, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_blind_index_from_many_threads, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_missing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_open_to_others_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_damage_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_misplaced_files, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
