/* str.c - see str.h. */
#include "base/str.h"

#include <limits.h>

static char lower(char c)
{
	return (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

bool str_eq_nocase(struct str a, struct str b)
{
	if (a.n != b.n)
		return false;
	for (size_t i = 0; i < a.n; i++)
		if (lower(a.p[i]) != lower(b.p[i]))
			return false;
	return true;
}

bool str_starts(struct str s, struct str prefix)
{
	return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

int str_cmp(struct str a, struct str b)
{
	size_t n = a.n < b.n ? a.n : b.n;
	int c = n ? memcmp(a.p, b.p, n) : 0;
	if (c)
		return c;
	return (a.n > b.n) - (a.n < b.n);
}

struct str str_trim(struct str s)
{
	while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
		s.p++, s.n--;
	while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	return s;
}

bool str_cut(struct str *s, char sep, struct str *ret_head)
{
	const char *at = s->n ? memchr(s->p, sep, s->n) : NULL;
	if (!at)
		return false;
	size_t head = (size_t)(at - s->p);
	*ret_head = (struct str){s->p, head};
	*s = (struct str){at + 1, s->n - head - 1};
	return true;
}

bool str_to_u64(struct str s, uint64_t *ret)
{
	if (!s.n)
		return false;
	uint64_t v = 0;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
		if (__builtin_mul_overflow(v, 10u, &v) ||
			__builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v))
			return false;
	}
	*ret = v;
	return true;
}

bool str_to_i64(struct str s, int64_t *ret)
{
	bool negative = s.n && s.p[0] == '-';
	uint64_t v;
	if (!str_to_u64(negative ? (struct str){s.p + 1, s.n - 1} : s, &v))
		return false;
	if (negative) {
		if (v > (uint64_t)INT64_MAX + 1)
			return false;
		*ret = v == (uint64_t)INT64_MAX + 1 ? INT64_MIN : -(int64_t)v;
		return true;
	}
	if (v > INT64_MAX)
		return false;
	*ret = (int64_t)v;
	return true;
}

void hex_encode(const void *bytes, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *b = bytes;
	for (size_t i = 0; i < n; i++) {
		out[2 * i] = digits[b[i] >> 4];
		out[2 * i + 1] = digits[b[i] & 15];
	}
	out[2 * n] = 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = lower(c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool hex_decode(struct str hex, void *ret_bytes, size_t n)
{
	if (hex.n != 2 * n)
		return false;
	for (size_t i = 0; i < hex.n; i++)
		if (hex_digit(hex.p[i]) < 0)
			return false;
	unsigned char *b = ret_bytes;
	for (size_t i = 0; i < n; i++)
		b[i] = (unsigned char)(hex_digit(hex.p[2 * i]) * 16 + hex_digit(hex.p[2 * i + 1]));
	return true;
}

bool bytes_eq_consttime(const void *a, const void *b, size_t n)
{
	const volatile unsigned char *x = a, *y = b;
	unsigned char diff = 0;
	for (size_t i = 0; i < n; i++)
		diff |= (unsigned char)(x[i] ^ y[i]);
	return diff == 0;
}

/* Length of the well-formed sequence at p (RFC 3629 section 4), 0 if there is none. */
static size_t utf8_sequence(const unsigned char *p, size_t n)
{
	unsigned char c = p[0];
	if (c < 0x80)
		return 1;
	if (c < 0xc2)
		return 0;
	size_t len = c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
	if (!len || n < len)
		return 0;
	/* The second byte carries the limits: overlong forms, surrogates, past U+10FFFF. */
	unsigned char low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
	unsigned char high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
	if (p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return len;
}

bool utf8_valid(struct str s, size_t *ret_code_points)
{
	const unsigned char *p = (const unsigned char *)s.p;
	size_t left = s.n, points = 0;
	while (left) {
		/* Eight ASCII bytes at a time: most text is. */
		uint64_t word;
		if (left >= sizeof(word)) {
			memcpy(&word, p, sizeof(word));
			if (!(word & 0x8080808080808080u)) {
				p += sizeof(word), left -= sizeof(word), points += sizeof(word);
				continue;
			}
		}
		size_t len = utf8_sequence(p, left);
		if (!len)
			return false;
		p += len, left -= len, points++;
	}
	if (ret_code_points)
		*ret_code_points = points;
	return true;
}
