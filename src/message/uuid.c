/* uuid.c - see uuid.h.
 *
 * The generator is one 64-bit word, the order key of the newest id: a new id takes the present millisecond
 * with counter 0 when that is greater, else the newest key plus one, which carries from the counter into the
 * milliseconds when the counter is used up and ignores a clock that stands still or goes back.
 *
 * The 58 random bits keep ids of different generators apart and unguessable. They come from the kernel in
 * blocks, one block per thread; a fork marks all blocks as used, so that two processes never draw the same.
 */
#include "message/uuid.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum {
	COUNTER_BITS = 16,
	TEXT_CHARS = UUID_TEXT_BYTES - 1,
	POOL_BYTES = 256, /* the most that getentropy gives at once */
};

struct pool {
	uint8_t bytes[POOL_BYTES];
	size_t left;
	unsigned generation; /* of the process that filled it */
};

static _Thread_local struct pool pool;
static _Atomic unsigned process_generation;
static pthread_once_t watch_forks_once = PTHREAD_ONCE_INIT;

static void after_fork_in_child(void)
{
	atomic_fetch_add(&process_generation, 1);
}

static void watch_forks(void)
{
	pthread_atfork(NULL, NULL, after_fork_in_child);
}

static int pool_fill(struct err *e)
{
	pthread_once(&watch_forks_once, watch_forks);
	if (getentropy(pool.bytes, sizeof(pool.bytes)) < 0)
		return err_sys(e, ERR_FATAL, "random bytes from the kernel");
	pool.left = sizeof(pool.bytes);
	pool.generation = atomic_load_explicit(&process_generation, memory_order_relaxed);
	return 0;
}

static int pool_take(void *out, size_t n, struct err *e)
{
	unsigned generation = atomic_load_explicit(&process_generation, memory_order_relaxed);
	if (pool.left < n || pool.generation != generation) {
		if (pool_fill(e) < 0)
			return -1;
	}
	pool.left -= n;
	memcpy(out, pool.bytes + pool.left, n);
	return 0;
}

void uuid_source_init(struct uuid_source *source, const struct clock *clock, uint64_t floor_key)
{
	source->clock = clock;
	atomic_init(&source->last_key, floor_key);
}

/* The first key of the present millisecond; a clock before 1970 counts as 1970. */
static uint64_t present_key(const struct clock *clock)
{
	int64_t ms = clock_wall(clock).ms;
	return ms > 0 ? (uint64_t)ms << COUNTER_BITS : 0;
}

/* Takes `count` keys in a row and returns the first. */
static uint64_t next_keys(struct uuid_source *source, unsigned count)
{
	uint64_t present = present_key(source->clock);
	uint64_t last = atomic_load_explicit(&source->last_key, memory_order_relaxed);
	uint64_t key;
	do
		key = present > last ? present : last + 1;
	while (!atomic_compare_exchange_weak_explicit(
		&source->last_key, &last, key + count - 1, memory_order_acq_rel, memory_order_relaxed));
	return key;
}

/* Puts version, variant and key into an id whose random bits are set. */
static void set_key(struct uuid *id, uint64_t key)
{
	for (int i = 0; i < 6; i++)
		id->b[i] = (uint8_t)(key >> (56 - 8 * i));
	id->b[6] = (uint8_t)(0x70 | (key >> 12 & 0x0f));
	id->b[7] = (uint8_t)(key >> 4);
	id->b[8] = (uint8_t)(0x80 | (key & 0x0f) << 2 | (id->b[8] & 0x03));
}

int uuid_next_run(struct uuid_source *source, unsigned count, struct uuid *ret_first, struct err *e)
{
	struct uuid id;
	require(count > 0);
	if (pool_take(id.b + 8, sizeof(id.b) - 8, e) < 0)
		return -1;
	uint64_t key = next_keys(source, count);
	if (key > (uint64_t)INT64_MAX - (count - 1))
		return err_set(e, ERR_FATAL,
			"message ids are used up: the clock or the newest stored id is past the year 6429");
	set_key(&id, key);
	*ret_first = id;
	return 0;
}

int uuid_next(struct uuid_source *source, struct uuid *ret, struct err *e)
{
	return uuid_next_run(source, 1, ret, e);
}

struct uuid uuid_in_run(const struct uuid *first, unsigned index)
{
	struct uuid id = *first;
	set_key(&id, uuid_order_key(first) + index);
	return id;
}

uint64_t uuid_order_key(const struct uuid *id)
{
	uint64_t ms = 0;
	for (int i = 0; i < 6; i++)
		ms = ms << 8 | id->b[i];
	uint64_t counter =
		(uint64_t)(id->b[6] & 0x0f) << 12 | (uint64_t)id->b[7] << 4 | (id->b[8] >> 2 & 0x0f);
	return ms << COUNTER_BITS | counter;
}

struct uuid uuid_of_order_key(uint64_t key)
{
	struct uuid id = {{0}};
	set_key(&id, key);
	return id;
}

struct wall uuid_time(const struct uuid *id)
{
	return (struct wall){(int64_t)(uuid_order_key(id) >> COUNTER_BITS)};
}

static bool is_hyphen_place(size_t i)
{
	return i == 8 || i == 13 || i == 18 || i == 23;
}

void uuid_format(const struct uuid *id, char out[UUID_TEXT_BYTES])
{
	static const char digits[] = "0123456789abcdef";
	size_t at = 0;
	for (size_t i = 0; i < sizeof(id->b); i++) {
		if (is_hyphen_place(at))
			out[at++] = '-';
		out[at++] = digits[id->b[i] >> 4];
		out[at++] = digits[id->b[i] & 0x0f];
	}
	out[at] = 0;
}

bool uuid_valid(const struct uuid *id)
{
	return id->b[6] >> 4 == 7 && id->b[8] >> 6 == 2;
}

bool uuid_parse(struct str s, struct uuid *ret)
{
	if (s.n != TEXT_CHARS)
		return false;
	char hex[2 * sizeof(ret->b)];
	size_t n = 0;
	for (size_t i = 0; i < TEXT_CHARS; i++) {
		if (!is_hyphen_place(i))
			hex[n++] = s.p[i];
		else if (s.p[i] != '-')
			return false;
	}
	struct uuid id = {{0}};
	if (!hex_decode(str_mem(hex, sizeof(hex)), id.b, sizeof(id.b)) || !uuid_valid(&id))
		return false;
	*ret = id;
	return true;
}
