/* tally.c - see tally.h. A chained hash table under one lock: it is touched when a connection comes or goes,
 * never by a request. The hash is keyed with a random number, since peers choose the keys. */
#include "http/tally.h"

#include <openssl/rand.h>
#include <pthread.h>
#include <stdlib.h>

enum { FIRST_BUCKETS = 64 };

struct tally_entry {
	struct tally_entry *next;
	uint64_t hash;
	unsigned count;
	size_t n;
	char key[];
};

struct tally {
	pthread_mutex_t lock;
	struct tally_entry **buckets;
	size_t bucket_count, entry_count; /* bucket_count: a power of two */
	uint64_t seed;
};

int tally_new(struct tally **ret, struct err *e)
{
	struct tally *t = calloc(1, sizeof(*t));
	struct tally_entry **buckets = calloc(FIRST_BUCKETS, sizeof(struct tally_entry *));
	if (!t || !buckets) {
		free(t);
		free(buckets);
		return err_oom(e);
	}
	t->buckets = buckets;
	t->bucket_count = FIRST_BUCKETS;
	pthread_mutex_init(&t->lock, NULL);
	if (RAND_bytes((unsigned char *)&t->seed, sizeof(t->seed)) != 1) {
		tally_free(t);
		return err_set(e, ERR_FATAL, "no random numbers");
	}
	*ret = t;
	return 0;
}

void tally_free(struct tally *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->bucket_count; i++)
		for (struct tally_entry *entry = t->buckets[i], *next; entry; entry = next) {
			next = entry->next;
			free(entry);
		}
	free(t->buckets);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

/* FNV-1a from a secret start, mixed at the end so that the low bits depend on all of it. */
static uint64_t hash_of(const struct tally *t, struct str key)
{
	uint64_t h = t->seed;
	for (size_t i = 0; i < key.n; i++)
		h = (h ^ (unsigned char)key.p[i]) * 0x100000001b3u;
	h ^= h >> 32;
	return h * 0x9e3779b97f4a7c15u >> 16;
}

static struct tally_entry **find(struct tally *t, struct str key, uint64_t hash)
{
	struct tally_entry **at = &t->buckets[hash & (t->bucket_count - 1)];
	while (*at && !((*at)->hash == hash && str_eq(str_mem((*at)->key, (*at)->n), key)))
		at = &(*at)->next;
	return at;
}

/* Twice as many buckets; a table that cannot grow is slower, not wrong. */
static void grow(struct tally *t)
{
	struct tally_entry **fresh = calloc(t->bucket_count * 2, sizeof(struct tally_entry *));
	if (!fresh)
		return;
	for (size_t i = 0; i < t->bucket_count; i++)
		for (struct tally_entry *entry = t->buckets[i], *next; entry; entry = next) {
			next = entry->next;
			struct tally_entry **to = &fresh[entry->hash & (t->bucket_count * 2 - 1)];
			entry->next = *to;
			*to = entry;
		}
	free(t->buckets);
	t->buckets = fresh;
	t->bucket_count *= 2;
}

static struct tally_entry *insert(struct tally *t, struct str key, uint64_t hash)
{
	struct tally_entry *entry = malloc(sizeof(*entry) + key.n);
	if (!entry)
		return NULL;
	if (t->entry_count >= t->bucket_count)
		grow(t);
	struct tally_entry **at = &t->buckets[hash & (t->bucket_count - 1)];
	*entry = (struct tally_entry){.next = *at, .hash = hash, .n = key.n};
	memcpy(entry->key, key.p, key.n);
	*at = entry;
	t->entry_count++;
	return entry;
}

static struct tally_entry *add_locked(struct tally *t, struct str key, unsigned limit)
{
	uint64_t hash = hash_of(t, key);
	struct tally_entry *entry = *find(t, key, hash);
	if (!limit || (entry && entry->count >= limit))
		return NULL;
	if (!entry)
		entry = insert(t, key, hash);
	if (entry)
		entry->count++;
	return entry;
}

struct tally_entry *tally_add(struct tally *t, struct str key, unsigned limit)
{
	pthread_mutex_lock(&t->lock);
	struct tally_entry *entry = add_locked(t, key, limit);
	pthread_mutex_unlock(&t->lock);
	return entry;
}

static void remove_locked(struct tally *t, struct tally_entry *entry)
{
	if (--entry->count)
		return;
	struct tally_entry **at = find(t, str_mem(entry->key, entry->n), entry->hash);
	*at = entry->next;
	t->entry_count--;
	free(entry);
}

void tally_remove(struct tally *t, struct tally_entry *entry)
{
	if (!entry)
		return;
	pthread_mutex_lock(&t->lock);
	remove_locked(t, entry);
	pthread_mutex_unlock(&t->lock);
}
