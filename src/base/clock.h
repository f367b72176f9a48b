/* clock.h - two kinds of time that cannot be mixed up.
 *
 * struct wall  what a calendar says; may jump; for stamps that people and other machines read.
 * struct mono  never goes back; for deadlines and durations within this process.
 *
 * Code that depends on time takes a const struct clock *; tests hand in a fake one and move it by hand.
 * Threads: clock_system from any; a fake clock by its test's thread, or set between steps. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/str.h"

struct wall {
	int64_t ms; /* since 1970-01-01T00:00:00Z, leap seconds not counted */
};

struct mono {
	int64_t ns;
};

struct clock {
	struct wall (*wall)(const struct clock *c);
	struct mono (*mono)(const struct clock *c);
};

extern const struct clock clock_system;

static inline struct wall clock_wall(const struct clock *c)
{
	return c->wall(c);
}

static inline struct mono clock_mono(const struct clock *c)
{
	return c->mono(c);
}

static inline struct mono mono_add_ms(struct mono t, int64_t ms)
{
	return (struct mono){t.ns + ms * 1000000};
}

/* a - b in milliseconds, rounded down. */
static inline int64_t mono_diff_ms(struct mono a, struct mono b)
{
	int64_t d = a.ns - b.ns;
	return d >= 0 ? d / 1000000 : -((-d + 999999) / 1000000);
}

static inline bool mono_reached(struct mono now, struct mono deadline)
{
	return now.ns >= deadline.ns;
}

/* For pthread_cond_timedwait, of a condition whose clock is CLOCK_MONOTONIC and times of clock_system. */
static inline struct timespec mono_timespec(struct mono t)
{
	return (struct timespec){.tv_sec = t.ns / 1000000000, .tv_nsec = t.ns % 1000000000};
}

struct clock_fake {
	struct clock clock; /* first: hand in &fake.clock */
	struct wall now;
	struct mono ticks;
};

void clock_fake_init(struct clock_fake *f, struct wall now);
void clock_fake_advance_ms(struct clock_fake *f, int64_t ms);

/* RFC 3339, UTC, milliseconds: "2026-11-22T09:30:00.123Z" (24 characters and a NUL).
 * Years 0000 to 9999; a time outside is clamped. */
enum { RFC3339_BYTES = 25 };
void wall_format(struct wall t, char out[RFC3339_BYTES]);

/* RFC 3339 section 5.6: a full date and time with 'Z' or an offset, fraction optional (cut to ms). */
MUST_CHECK bool wall_parse(struct str s, struct wall *ret);

#endif
