/* sqlite_keys.c - see sqlite_keys.h. */
#include "queue/sqlite_keys.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* As many as a large group may bring: what is forgotten between two groups must not fall behind. */
enum { FORGET_AT_ONCE = 1024 };

static void copy_hash(uint8_t out[QUEUE_HASH_BYTES], struct str stored)
{
	memset(out, 0, QUEUE_HASH_BYTES);
	memcpy(out, stored.p, stored.n < QUEUE_HASH_BYTES ? stored.n : QUEUE_HASH_BYTES);
}

void sqlite_keys_init(struct sqlite_keys *k, struct sqlite_db *db, const struct queue_driver_options *o)
{
	*k = (struct sqlite_keys){
		.db = db, .clock = o->clock, .keep_ms = o->idempotency_ms, .max = o->keys_max};
}

int sqlite_keys_load(struct sqlite_keys *k, struct err *e)
{
	uint64_t seed;
	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		return err_sys(e, ERR_FATAL, "random bytes from the kernel");
	map_init(&k->key_by_print, seed);
	sqlite3_stmt *row;
	uint64_t floor_key = remembered_floor(clock_wall(k->clock), k->keep_ms);
	int rc = sqlite_query(
		k->db, SQL_REMEMBERED_KEYS, e, &row, V_INT(floor_key), V_INT(INT64_MAX), V_INT(-1));
	for (; rc > 0; rc = sqlite_next(k->db, row, e)) {
		uint8_t key_hash[QUEUE_HASH_BYTES];
		copy_hash(key_hash, sqlite_bytes(row, 1));
		uint64_t key = (uint64_t)sqlite3_column_int64(row, 0);
		if (map_add(&k->key_by_print, remembered_print(key_hash), key, e) < 0) {
			sqlite_done(row);
			return -1;
		}
	}
	return rc;
}

void sqlite_keys_clear(struct sqlite_keys *k)
{
	map_clear(&k->key_by_print);
	free(k->fresh);
}

int sqlite_keys_find(struct sqlite_keys *k, const uint8_t key_hash[QUEUE_HASH_BYTES], struct remembered *ret,
	struct err *e)
{
	uint64_t key;
	for (size_t cursor = 0; (key = map_next(&k->key_by_print, remembered_print(key_hash), &cursor));) {
		sqlite3_stmt *row;
		int rc = sqlite_query(k->db, SQL_REMEMBERED, e, &row, V_INT(key));
		if (rc < 0)
			return -1;
		if (rc == 0)
			continue;
		struct str id = sqlite_bytes(row, 2);
		*ret = (struct remembered){
			.key = key,
			.accepted_at = {sqlite3_column_int64(row, 3)},
			.position = (uint64_t)sqlite3_column_int64(row, 4),
			.count = (unsigned)sqlite3_column_int64(row, 5),
		};
		copy_hash(ret->key_hash, sqlite_bytes(row, 0));
		copy_hash(ret->payload_hash, sqlite_bytes(row, 1));
		memcpy(ret->first_id.b, id.p,
			id.n < sizeof(ret->first_id.b) ? id.n : sizeof(ret->first_id.b));
		sqlite_done(row);
		if (memcmp(ret->key_hash, key_hash, sizeof(ret->key_hash)) == 0)
			return 1;
	}
	return 0;
}

bool sqlite_keys_full(const struct sqlite_keys *k)
{
	return k->max && k->key_by_print.count >= k->max;
}

static int note_print(struct sqlite_keys *k, struct sqlite_print p, struct err *e)
{
	if (k->fresh_count == k->fresh_room) {
		size_t room = k->fresh_room ? k->fresh_room * 2 : FORGET_AT_ONCE;
		struct sqlite_print *bigger = reallocarray(k->fresh, room, sizeof(*bigger));
		if (!bigger)
			return err_oom(e);
		k->fresh = bigger;
		k->fresh_room = room;
	}
	if (map_add(&k->key_by_print, p.print, p.key, e) < 0)
		return -1;
	k->fresh[k->fresh_count++] = p;
	return 0;
}

int sqlite_keys_add(struct sqlite_keys *k, const struct queue_put *put, struct err *e)
{
	struct remembered r = remembered_of(put);
	if (sqlite_run(k->db, SQL_REMEMBER, e, V_INT(r.key), V_BLOB(str_mem(r.key_hash, sizeof(r.key_hash))),
		    V_BLOB(str_mem(r.payload_hash, sizeof(r.payload_hash))),
		    V_BLOB(str_mem(r.first_id.b, sizeof(r.first_id.b))), V_INT(r.accepted_at.ms),
		    V_INT(r.position), V_INT(r.count)) < 0)
		return -1;
	return note_print(k, (struct sqlite_print){remembered_print(r.key_hash), r.key}, e);
}

void sqlite_keys_commit(struct sqlite_keys *k)
{
	k->fresh_count = 0;
}

void sqlite_keys_abort(struct sqlite_keys *k)
{
	while (k->fresh_count) {
		const struct sqlite_print *p = &k->fresh[--k->fresh_count];
		map_remove(&k->key_by_print, p->print, p->key);
	}
}

size_t sqlite_keys_count(const struct sqlite_keys *k)
{
	return k->key_by_print.count;
}

int sqlite_keys_forget(struct sqlite_keys *k, struct err *e)
{
	struct sqlite_print old[FORGET_AT_ONCE];
	unsigned count = 0;
	uint64_t last_key = 0;
	sqlite3_stmt *row;
	uint64_t floor_key = remembered_floor(clock_wall(k->clock), k->keep_ms);
	int rc = sqlite_query(
		k->db, SQL_REMEMBERED_KEYS, e, &row, V_INT(0), V_INT(floor_key), V_INT(FORGET_AT_ONCE));
	for (; rc > 0; rc = sqlite_next(k->db, row, e)) {
		uint8_t key_hash[QUEUE_HASH_BYTES];
		copy_hash(key_hash, sqlite_bytes(row, 1));
		last_key = (uint64_t)sqlite3_column_int64(row, 0);
		old[count++] = (struct sqlite_print){remembered_print(key_hash), last_key};
	}
	if (rc < 0 || (count && sqlite_run(k->db, SQL_FORGET, e, V_INT(last_key)) < 0))
		return -1;
	/* Out of the map even if the commit fails: then the rows go with a later tick. */
	for (unsigned i = 0; i < count; i++)
		map_remove(&k->key_by_print, old[i].print, old[i].key);
	return count == FORGET_AT_ONCE;
}
