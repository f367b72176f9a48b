/* buf.c - see buf.h. Growth doubles, so that n appends cost O(n). */
#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void buf_init(struct buf *b, size_t ceiling_bytes)
{
	*b = (struct buf){.ceiling_bytes = ceiling_bytes};
}

void buf_clear(struct buf *b)
{
	if (!b)
		return;
	free(b->p);
	*b = (struct buf){.ceiling_bytes = b->ceiling_bytes};
}

void buf_wipe(struct buf *b)
{
	if (b && b->p)
		explicit_bzero(b->p, b->room);
	buf_clear(b);
}

void buf_reset(struct buf *b)
{
	b->n = 0;
	b->failed = b->no_memory = false;
}

/* Not realloc: that would leave a copy in freed memory, and many a buf holds plaintext. */
static bool grow(struct buf *b, size_t need)
{
	size_t room = b->room ? b->room * 2 : 64;
	while (room < need)
		room *= 2;
	if (room > b->ceiling_bytes)
		room = b->ceiling_bytes;
	char *p = malloc(room ? room : 1);
	if (!p)
		return false;
	if (b->p) {
		memcpy(p, b->p, b->n);
		explicit_bzero(b->p, b->room);
		free(b->p);
	}
	b->p = p;
	b->room = room;
	return true;
}

char *buf_reserve(struct buf *b, size_t n)
{
	if (b->failed)
		return NULL;
	if (n > b->ceiling_bytes || b->n > b->ceiling_bytes - n) {
		b->failed = true;
		return NULL;
	}
	if ((b->n + n > b->room || !b->p) && !grow(b, b->n + n)) {
		b->failed = b->no_memory = true;
		return NULL;
	}
	return b->p + b->n;
}

void buf_commit(struct buf *b, size_t n)
{
	require(n <= b->room - b->n);
	b->n += n;
}

void buf_add(struct buf *b, const void *bytes, size_t n)
{
	if (!n)
		return;
	char *at = buf_reserve(b, n);
	if (at) {
		memcpy(at, bytes, n);
		b->n += n;
	}
}

void buf_add_str(struct buf *b, struct str s)
{
	buf_add(b, s.p, s.n);
}

void buf_add_char(struct buf *b, char c)
{
	buf_add(b, &c, 1);
}

void buf_addf(struct buf *b, const char *fmt, ...)
{
	char scratch[256]; /* most texts: formatted once */
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(scratch, sizeof(scratch), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(scratch)) {
		buf_add(b, scratch, (size_t)n);
		return;
	}
	/* One byte more for the NUL that vsnprintf insists on; it is not counted in. */
	char *at = n < 0 ? NULL : buf_reserve(b, (size_t)n + 1);
	if (!at) {
		b->failed = true;
		return;
	}
	va_start(ap, fmt);
	vsnprintf(at, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->n += (size_t)n;
}

void buf_add_u8(struct buf *b, uint8_t v)
{
	buf_add(b, &v, 1);
}

void buf_add_u16(struct buf *b, uint16_t v)
{
	buf_add(b, (unsigned char[]){(unsigned char)(v >> 8), (unsigned char)v}, 2);
}

void buf_add_u32(struct buf *b, uint32_t v)
{
	buf_add_u16(b, (uint16_t)(v >> 16));
	buf_add_u16(b, (uint16_t)v);
}

void buf_add_u64(struct buf *b, uint64_t v)
{
	buf_add_u32(b, (uint32_t)(v >> 32));
	buf_add_u32(b, (uint32_t)v);
}

void buf_consume(struct buf *b, size_t n)
{
	require(n <= b->n);
	b->n -= n;
	if (b->n)
		memmove(b->p, b->p + n, b->n);
}

int buf_check(const struct buf *b, struct err *e)
{
	if (!b->failed)
		return 0;
	if (b->no_memory)
		return err_oom(e);
	return err_set(e, ERR_REJECT, "larger than %zu bytes", b->ceiling_bytes);
}

struct str cursor_bytes(struct cursor *c, size_t n)
{
	if (c->failed || n > c->n) {
		c->failed = true;
		return (struct str){NULL, 0};
	}
	struct str s = {(const char *)c->p, n};
	c->p += n;
	c->n -= n;
	return s;
}

void cursor_copy(struct cursor *c, void *out, size_t n)
{
	struct str s = cursor_bytes(c, n);
	if (s.p)
		memcpy(out, s.p, n);
	else
		memset(out, 0, n);
}

uint8_t cursor_u8(struct cursor *c)
{
	uint8_t b[1];
	cursor_copy(c, b, sizeof(b));
	return b[0];
}

uint16_t cursor_u16(struct cursor *c)
{
	uint8_t b[2];
	cursor_copy(c, b, sizeof(b));
	return (uint16_t)(b[0] << 8 | b[1]);
}

uint32_t cursor_u32(struct cursor *c)
{
	uint32_t high = cursor_u16(c);
	return high << 16 | cursor_u16(c);
}

uint64_t cursor_u64(struct cursor *c)
{
	uint64_t high = cursor_u32(c);
	return high << 32 | cursor_u32(c);
}
