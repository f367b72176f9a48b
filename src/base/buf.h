/* buf.h - bytes that grow, up to a ceiling fixed at creation.
 *
 * Append freely and check once: a failed append (ceiling reached, out of memory) sets a sticky error and
 * leaves the contents alone; all later appends do nothing.
 *
 * Ownership: buf_init in place, buf_clear frees. Contents move when they grow: hold offsets, not pointers.
 * Threads:   none of its own.
 * Security:  buf_wipe overwrites before it frees; use it for secrets and plaintext. Contents that move when
 *            they grow are overwritten where they were. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct buf {
	char *p;
	size_t n;             /* bytes in use */
	size_t room;          /* bytes allocated */
	size_t ceiling_bytes; /* never grows past this */
	bool failed;
	bool no_memory; /* why it failed; else the ceiling was reached */
};

void buf_init(struct buf *b, size_t ceiling_bytes);
void buf_clear(struct buf *b);
void buf_wipe(struct buf *b);

/* Empties, keeps the allocation, forgets the error. */
void buf_reset(struct buf *b);

void buf_add(struct buf *b, const void *bytes, size_t n);
void buf_add_str(struct buf *b, struct str s);
void buf_add_char(struct buf *b, char c);
void buf_addf(struct buf *b, const char *fmt, ...) PRINTF(2, 3);

/* Big-endian integers, for wire and file formats. */
void buf_add_u8(struct buf *b, uint8_t v);
void buf_add_u16(struct buf *b, uint16_t v);
void buf_add_u32(struct buf *b, uint32_t v);
void buf_add_u64(struct buf *b, uint64_t v);

/* Makes room for n more bytes and returns where they go (NULL: sticky error); buf_commit counts them in. */
char *buf_reserve(struct buf *b, size_t n);
void buf_commit(struct buf *b, size_t n);

/* Removes n bytes from the front. */
void buf_consume(struct buf *b, size_t n);

static inline struct str buf_str(const struct buf *b)
{
	return (struct str){b->p, b->n};
}

/* 0, or ERR_REJECT when the ceiling was reached, ERR_RETRY when memory ran out. */
MUST_CHECK int buf_check(const struct buf *b, struct err *e);

static inline void buf_auto(struct buf *b)
{
	buf_clear(b);
}

static inline void buf_wipe_auto(struct buf *b)
{
	buf_wipe(b);
}

/* cursor - reads what buf_add_u* wrote; sticky: after a short read everything reads as zero. */
struct cursor {
	const unsigned char *p;
	size_t n;
	bool failed;
};

static inline struct cursor cursor_of(struct str s)
{
	return (struct cursor){(const unsigned char *)s.p, s.n, false};
}

uint8_t cursor_u8(struct cursor *c);
uint16_t cursor_u16(struct cursor *c);
uint32_t cursor_u32(struct cursor *c);
uint64_t cursor_u64(struct cursor *c);
struct str cursor_bytes(struct cursor *c, size_t n);

/* Copies exactly n bytes; zeroes `out` on a short read. */
void cursor_copy(struct cursor *c, void *out, size_t n);

/* Everything was read, nothing was missing. */
static inline bool cursor_done(const struct cursor *c)
{
	return !c->failed && c->n == 0;
}

#endif
