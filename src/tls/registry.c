/* registry.c - an open-addressing hash table of pointers to rows, behind a read-write lock.
 *
 * The lock is off the hot path by the generation: a connection re-checks only after a change, so readers meet
 * the lock once per change and connection. Writers are preferred, so that a revocation is never kept waiting
 * by a stream of readers. An apply makes its rows before it takes the lock; under it only pointers move.
 *
 * The hash needs no secret: to choose what is looked up, a peer would have to choose the serial of a
 * certificate that our own CA signed. */
#include "tls/registry.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { KEY_BYTES = IDENTITY_KEY_ID_BYTES + IDENTITY_SERIAL_BYTES, SLOTS_MIN = 64 };

struct row {
	uint8_t key[KEY_BYTES]; /* issuer key id, then the serial padded with leading zeros */
	uint8_t status, role, name_bytes, domain_bytes;
	struct wall not_after;
	int64_t change;
	_Atomic int64_t seen_ms; /* since the last registry_take_seen; 0: not */
	char names[];            /* name, then domain */
};

struct table {
	struct row **slots;
	size_t mask; /* slot count - 1; at most half of the slots are used */
	size_t count;
};

struct registry {
	pthread_rwlock_t lock;
	struct table table;
	_Atomic uint64_t generation;
	_Atomic int64_t change;
	atomic_bool any_seen; /* some row may have been */
};

static void key_make(
	uint8_t key[KEY_BYTES], const uint8_t *issuer_key_id, const uint8_t *serial, unsigned serial_bytes)
{
	memcpy(key, issuer_key_id, IDENTITY_KEY_ID_BYTES);
	unsigned pad = IDENTITY_SERIAL_BYTES - serial_bytes;
	memset(key + IDENTITY_KEY_ID_BYTES, 0, pad);
	memcpy(key + IDENTITY_KEY_ID_BYTES + pad, serial, serial_bytes);
}

/* FNV-1a over 8-byte words, folded so that the low bits depend on all of them. */
static size_t key_hash(const uint8_t key[KEY_BYTES])
{
	_Static_assert(KEY_BYTES % sizeof(uint64_t) == 0, "whole words");
	uint64_t hash = 0xcbf29ce484222325u;
	for (size_t i = 0; i < KEY_BYTES; i += sizeof(uint64_t)) {
		uint64_t word;
		memcpy(&word, key + i, sizeof(word));
		hash = (hash ^ word) * 0x100000001b3u;
		hash ^= hash >> 32;
	}
	return (size_t)hash;
}

/* The slot that holds the key, or the free one where it belongs. */
static struct row **slot_of(const struct table *t, const uint8_t key[KEY_BYTES])
{
	size_t i = key_hash(key) & t->mask;
	while (t->slots[i] && memcmp(t->slots[i]->key, key, KEY_BYTES) != 0)
		i = (i + 1) & t->mask;
	return &t->slots[i];
}

static int table_init(struct table *t, size_t count, struct err *e)
{
	size_t slot_count = SLOTS_MIN;
	while (slot_count < 2 * count)
		slot_count *= 2;
	*t = (struct table){.slots = calloc(slot_count, sizeof(struct row *)), .mask = slot_count - 1};
	return t->slots ? 0 : err_oom(e);
}

static void table_put(struct table *t, struct row *row)
{
	struct row **slot = slot_of(t, row->key);
	t->count += !*slot;
	if (*slot && *slot != row)
		atomic_store(&row->seen_ms, atomic_load(&(*slot)->seen_ms));
	free(*slot);
	*slot = row;
}

static void rows_free(struct row **rows, size_t count)
{
	for (size_t i = 0; rows && i < count; i++)
		free(rows[i]);
	free(rows);
}

int registry_new(struct registry **ret, struct err *e)
{
	struct registry *r = calloc(1, sizeof(*r));
	if (!r)
		return err_oom(e);
	if (table_init(&r->table, 0, e) < 0) {
		free(r);
		return -1;
	}
	pthread_rwlockattr_t attributes;
	pthread_rwlockattr_init(&attributes);
	pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&r->lock, &attributes);
	pthread_rwlockattr_destroy(&attributes);
	*ret = r;
	return 0;
}

void registry_free(struct registry *r)
{
	if (!r)
		return;
	rows_free(r->table.slots, r->table.mask + 1);
	pthread_rwlock_destroy(&r->lock);
	free(r);
}

/* NULL when out of memory. */
static struct row *row_make(const struct registry_row *from)
{
	struct row *row = malloc(sizeof(*row) + from->name.n + from->domain.n);
	if (!row)
		return NULL;
	key_make(row->key, from->issuer_key_id, from->serial, from->serial_bytes);
	row->status = (uint8_t)from->status;
	row->role = (uint8_t)from->role;
	row->name_bytes = (uint8_t)from->name.n;
	row->domain_bytes = (uint8_t)from->domain.n;
	row->not_after = from->not_after;
	row->change = from->change;
	atomic_init(&row->seen_ms, 0);
	memcpy(row->names, from->name.p, from->name.n);
	memcpy(row->names + from->name.n, from->domain.p, from->domain.n);
	return row;
}

/* Rows come from a store or over the network, so their sizes are checked, not required. */
static int row_check(const struct registry_row *row, struct err *e)
{
	if (row->serial_bytes == 0 || row->serial_bytes > IDENTITY_SERIAL_BYTES)
		return err_set(e, ERR_REJECT, "registry: serial of %u bytes", row->serial_bytes);
	if (!role_profile(row->role) || (unsigned)row->status >= REGISTRY_UNKNOWN)
		return err_set(e, ERR_REJECT, "registry: unknown role or status");
	if (!identity_name_valid(row->name) || !identity_name_valid(row->domain))
		return err_set(e, ERR_REJECT, "registry: name or domain is not of the allowed form");
	return 0;
}

static int rows_make(const struct registry_row *from, size_t count, struct row **rows, struct err *e)
{
	for (size_t i = 0; i < count; i++) {
		if (row_check(&from[i], e) < 0)
			return -1;
		rows[i] = row_make(&from[i]);
		if (!rows[i])
			return err_oom(e);
	}
	return 0;
}

/* A table with room for `count` more rows than the registry has; holds the same rows. */
static int table_grow(struct registry *r, size_t count, struct table *ret, struct err *e)
{
	if (table_init(ret, r->table.count + count, e) < 0)
		return -1;
	for (size_t i = 0; i <= r->table.mask; i++)
		if (r->table.slots[i])
			table_put(ret, r->table.slots[i]);
	return 0;
}

static void changed(struct registry *r)
{
	atomic_fetch_add_explicit(&r->generation, 1, memory_order_release);
}

/* Under the lock. */
static void keep_revoked(const struct table *t, struct row *fresh)
{
	const struct row *row = *slot_of(t, fresh->key);
	if (row && row->status == REGISTRY_REVOKED)
		fresh->status = REGISTRY_REVOKED;
}

/* Under the write lock: takes the rows over. */
static int rows_put(
	struct registry *r, struct row **rows, size_t count, int64_t change, bool merge, struct err *e)
{
	if (2 * (r->table.count + count) > r->table.mask + 1) {
		struct table larger;
		if (table_grow(r, count, &larger, e) < 0)
			return -1;
		free(r->table.slots);
		r->table = larger;
	}
	for (size_t i = 0; i < count; i++) {
		if (merge)
			keep_revoked(&r->table, rows[i]);
		table_put(&r->table, rows[i]);
		rows[i] = NULL;
	}
	if (change > atomic_load_explicit(&r->change, memory_order_relaxed))
		atomic_store_explicit(&r->change, change, memory_order_relaxed);
	changed(r);
	return 0;
}

static int64_t highest_change(const struct registry_row *rows, size_t count)
{
	int64_t highest = 0;
	for (size_t i = 0; i < count; i++)
		highest = rows[i].change > highest ? rows[i].change : highest;
	return highest;
}

static int put_all(
	struct registry *r, const struct registry_row *from, size_t count, bool merge, struct err *e)
{
	if (count == 0)
		return 0;
	struct row **rows = calloc(count, sizeof(struct row *));
	if (!rows)
		return err_oom(e);
	int result = rows_make(from, count, rows, e);
	if (result == 0) {
		pthread_rwlock_wrlock(&r->lock);
		result = rows_put(r, rows, count, highest_change(from, count), merge, e);
		pthread_rwlock_unlock(&r->lock);
	}
	rows_free(rows, count);
	return result;
}

int registry_apply(struct registry *r, const struct registry_row *rows, size_t count, struct err *e)
{
	return put_all(r, rows, count, false, e);
}

int registry_merge(struct registry *r, const struct registry_row *rows, size_t count, struct err *e)
{
	return put_all(r, rows, count, true, e);
}

/* Open addressing has no cheap delete: what stays moves to a new table. */
int registry_prune(struct registry *r, struct wall now, struct err *e)
{
	pthread_rwlock_wrlock(&r->lock);
	struct table kept;
	int result = table_init(&kept, r->table.count, e);
	for (size_t i = 0; result == 0 && i <= r->table.mask; i++) {
		struct row *row = r->table.slots[i];
		if (row && row->not_after.ms < now.ms)
			free(row);
		else if (row)
			table_put(&kept, row);
	}
	if (result == 0) {
		free(r->table.slots);
		r->table = kept;
		changed(r);
	}
	pthread_rwlock_unlock(&r->lock);
	return result;
}

static bool row_names(const struct row *row, const struct identity *id)
{
	return row->role == id->role && str_eq(str_mem(row->names, row->name_bytes), str_of(id->name)) &&
	       str_eq(str_mem(row->names + row->name_bytes, row->domain_bytes), str_of(id->domain));
}

enum registry_status registry_check(const struct registry *const_r, const struct identity *id)
{
	/* A lock is not part of what the registry says. */
	struct registry *r = (struct registry *)(uintptr_t)const_r;
	uint8_t key[KEY_BYTES];
	key_make(key, id->issuer_key_id, id->serial, id->serial_bytes);
	pthread_rwlock_rdlock(&r->lock);
	const struct row *row = *slot_of(&r->table, key);
	enum registry_status status = row && row_names(row, id) ? row->status : REGISTRY_UNKNOWN;
	pthread_rwlock_unlock(&r->lock);
	return status;
}

void registry_note_seen(const struct registry *const_r, const struct identity *id, struct wall at)
{
	struct registry *r = (struct registry *)(uintptr_t)const_r;
	uint8_t key[KEY_BYTES];
	key_make(key, id->issuer_key_id, id->serial, id->serial_bytes);
	pthread_rwlock_rdlock(&r->lock);
	struct row *row = *slot_of(&r->table, key);
	if (row) {
		atomic_store(&row->seen_ms, at.ms);
		atomic_store(&r->any_seen, true);
	}
	pthread_rwlock_unlock(&r->lock);
}

/* The serial as it was before key_make padded it. */
static unsigned serial_of(const struct row *row, uint8_t ret[IDENTITY_SERIAL_BYTES])
{
	const uint8_t *serial = row->key + IDENTITY_KEY_ID_BYTES;
	unsigned pad = 0;
	while (pad < IDENTITY_SERIAL_BYTES - 1 && serial[pad] == 0)
		pad++;
	memcpy(ret, serial + pad, IDENTITY_SERIAL_BYTES - pad);
	return IDENTITY_SERIAL_BYTES - pad;
}

bool registry_any_seen(const struct registry *r)
{
	return atomic_load(&r->any_seen);
}

size_t registry_take_seen(struct registry *r, struct registry_seen *ret, size_t max)
{
	size_t count = 0;
	/* Before the look: what is noted meanwhile is seen now, or makes the next call look again. */
	if (!atomic_exchange(&r->any_seen, false))
		return 0;
	pthread_rwlock_rdlock(&r->lock);
	for (size_t i = 0; i <= r->table.mask && count < max; i++) {
		struct row *row = r->table.slots[i];
		int64_t seen_ms = row ? atomic_exchange(&row->seen_ms, 0) : 0;
		if (!seen_ms)
			continue;
		struct registry_seen *seen = &ret[count++];
		*seen = (struct registry_seen){.at = {seen_ms}};
		seen->serial_bytes = serial_of(row, seen->serial);
		memcpy(seen->issuer_key_id, row->key, IDENTITY_KEY_ID_BYTES);
	}
	pthread_rwlock_unlock(&r->lock);
	if (count == max)
		atomic_store(&r->any_seen, true);
	return count;
}

uint64_t registry_generation(const struct registry *r)
{
	return atomic_load_explicit(&r->generation, memory_order_acquire);
}

int64_t registry_change(const struct registry *r)
{
	return atomic_load_explicit(&r->change, memory_order_relaxed);
}

size_t registry_count(const struct registry *const_r)
{
	struct registry *r = (struct registry *)(uintptr_t)const_r;
	pthread_rwlock_rdlock(&r->lock);
	size_t count = r->table.count;
	pthread_rwlock_unlock(&r->lock);
	return count;
}

static void row_view(const struct row *row, struct registry_row *ret)
{
	*ret = (struct registry_row){
		.status = row->status,
		.role = row->role,
		.name = str_mem(row->names, row->name_bytes),
		.domain = str_mem(row->names + row->name_bytes, row->domain_bytes),
		.not_after = row->not_after,
		.change = row->change,
	};
	memcpy(ret->issuer_key_id, row->key, IDENTITY_KEY_ID_BYTES);
	ret->serial_bytes = serial_of(row, ret->serial);
}

void registry_each(struct registry *r, void (*fn)(void *arg, const struct registry_row *row), void *arg)
{
	pthread_rwlock_rdlock(&r->lock);
	for (size_t i = 0; i <= r->table.mask; i++) {
		struct registry_row row;
		if (!r->table.slots[i])
			continue;
		row_view(r->table.slots[i], &row);
		fn(arg, &row);
	}
	pthread_rwlock_unlock(&r->lock);
}
