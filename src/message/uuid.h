/* uuid.h - message ids: UUID version 7 (RFC 9562 section 5.7), unique and increasing across threads.
 *
 * Layout: 48 bit Unix milliseconds | version | 12 bit + 4 bit counter | variant | 58 random bits.
 * Milliseconds and counter together are the id's order key: 64 bits that no two ids of one generator share,
 * so a queue can use it as its row number and needs no index to find a message by id.
 *
 * Threads: uuid_next from any (one compare-and-swap; random bits from a per-thread pool of the CSPRNG,
 *          which a fork empties). Forks must not share a generator. */
#ifndef MESSAGE_UUID_H
#define MESSAGE_UUID_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"

struct uuid {
	uint8_t b[16];
};

enum { UUID_TEXT_BYTES = 37 };

struct uuid_source {
	const struct clock *clock;
	_Atomic uint64_t last_key; /* ms << 16 | counter of the newest id */
};

/* Ids will be greater than `floor_key` (0: none), however the wall clock stands: pass the highest key on
 * disk. */
void uuid_source_init(struct uuid_source *source, const struct clock *clock, uint64_t floor_key);

/* Fails (ERR_FATAL) only when the operating system has no randomness to give or when keys would pass int64_t.
 * When more than 65536 ids are wanted within a millisecond, or the clock goes back, the key runs ahead of the
 * clock. */
MUST_CHECK int uuid_next(struct uuid_source *source, struct uuid *ret, struct err *e);

/* `count` ids at once (>= 1), for a batch: their keys follow each other and they share their random bits, so
 * that the first one and an index are all that it takes to name any of them again. */
MUST_CHECK int uuid_next_run(
	struct uuid_source *source, unsigned count, struct uuid *ret_first, struct err *e);
struct uuid uuid_in_run(const struct uuid *first, unsigned index);

/* ms << 16 | counter; fits int64_t until the year 6429. */
uint64_t uuid_order_key(const struct uuid *id);

/* The lowest id with this order key: its random bits are zero. */
struct uuid uuid_of_order_key(uint64_t key);
struct wall uuid_time(const struct uuid *id);

/* Lower-case 8-4-4-4-12. */
void uuid_format(const struct uuid *id, char out[UUID_TEXT_BYTES]);

/* Whether version and variant are those of these ids; for ids that arrive in binary. */
MUST_CHECK bool uuid_valid(const struct uuid *id);

/* Exactly the form of uuid_format, either case, uuid_valid only. */
MUST_CHECK bool uuid_parse(struct str s, struct uuid *ret);

static inline bool uuid_eq(const struct uuid *a, const struct uuid *b)
{
	return memcmp(a->b, b->b, sizeof(a->b)) == 0;
}

#endif
