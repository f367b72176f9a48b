/* str.h - a view of bytes: pointer and length, not owned, not NUL-terminated, may hold any byte.
 * Strict parsers for numbers live here too: the whole view must match, no leading space or sign. */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/macros.h"

struct str {
	const char *p;
	size_t n;
};

/* For string literals. */
#define STR(lit) ((struct str){"" lit, sizeof(lit) - 1})

/* printf("%.*s", STR_ARG(s)); only for text that may be printed. */
#define STR_ARG(s) (int)(s).n, (s).p

static inline struct str str_of(const char *z)
{
	return (struct str){z, z ? strlen(z) : 0};
}

static inline struct str str_mem(const void *p, size_t n)
{
	return (struct str){p, n};
}

static inline bool str_eq(struct str a, struct str b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* ASCII case only, independent of the locale. */
bool str_eq_nocase(struct str a, struct str b);
bool str_starts(struct str s, struct str prefix);
int str_cmp(struct str a, struct str b);

/* View without leading and trailing ASCII space and tab. */
struct str str_trim(struct str s);

/* Space, tab and the ends of lines: what copying a text, or a line length, brings into it. */
static inline bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Splits at the first `sep`: *ret_head is before it, *s is what follows. False when sep does not occur. */
bool str_cut(struct str *s, char sep, struct str *ret_head);

/* Decimal digits only, no overflow; false leaves *ret alone. */
bool str_to_u64(struct str s, uint64_t *ret);

/* An optional '-' and decimal digits. */
bool str_to_i64(struct str s, int64_t *ret);

/* Lower-case hexadecimal. `out` holds 2 * n + 1 bytes. */
void hex_encode(const void *bytes, size_t n, char *out);

/* Either case, exactly 2 * n digits; false on anything else. */
bool hex_decode(struct str hex, void *ret_bytes, size_t n);

/* Compares in time that depends on n only. */
bool bytes_eq_consttime(const void *a, const void *b, size_t n);

/* Whether the bytes are well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms, up to U+10FFFF).
 * *ret_code_points (may be NULL) is set when true. */
bool utf8_valid(struct str s, size_t *ret_code_points);

#endif
