/* config_value.c - one value of the configuration: its text, its C value, and back. See config_table.h.
 *
 * Numbers of all kinds are an int64_t and differ in the units that they may be written with; strings of all
 * kinds are a char * and differ in what they may hold. So there is one table row for each type. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/config_table.h"

struct unit {
	const char *suffix;
	int64_t factor;
};

/* From small to large. */
static const struct unit plain_units[] = {{"", 1}, {NULL, 0}};
static const struct unit byte_units[] = {
	{"", 1}, {"KiB", 1LL << 10}, {"MiB", 1LL << 20}, {"GiB", 1LL << 30}, {"TiB", 1LL << 40}, {NULL, 0}};
static const struct unit duration_units[] = {
	{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}, {NULL, 0}};

static bool text_is_clean(struct str s);
static bool text_is_address(struct str s);
static bool text_is_durations(struct str s);

static const struct type {
	const char *name;
	const char *expected;                /* in "'x' is not …" */
	const struct unit *units;            /* numbers */
	const char *zero;                    /* numbers: how 0 is written */
	bool (*text_is_valid)(struct str s); /* strings */
	size_t size;
} types[] = {
	[CONFIG_BOOL] = {"boolean", "true or false", .size = sizeof(config_BOOL)},
	[CONFIG_INT] = {"number", "a whole number", plain_units, "0", .size = sizeof(config_INT)},
	[CONFIG_BYTES] = {"size", "a size such as 64KiB, 4MiB or 1GiB", byte_units, "0",
		.size = sizeof(config_BYTES)},
	[CONFIG_DURATION_MS] = {"duration", "a duration such as 30s, 5m or 2h", duration_units, "0s",
		.size = sizeof(config_DURATION_MS)},
	[CONFIG_CHOICE] = {"choice", .size = sizeof(config_CHOICE)},
	[CONFIG_STRING] = {"text", "text on one line", .text_is_valid = text_is_clean,
		.size = sizeof(config_STRING)},
	[CONFIG_SECRET] = {"secret", "text on one line", .text_is_valid = text_is_clean,
		.size = sizeof(config_SECRET)},
	[CONFIG_ADDRESS] = {"address", "an address such as 127.0.0.1:8001, [::1]:8001 or :8001",
		.text_is_valid = text_is_address, .size = sizeof(config_ADDRESS)},
	[CONFIG_DURATIONS] = {"durations", "1 to 16 durations such as 10s,1m,1h, each from 10ms to 7d",
		.text_is_valid = text_is_durations, .size = sizeof(config_DURATIONS)},
};

static const struct type *type_of(const struct config_option *o)
{
	return &types[o->type];
}

static void *field_of(const struct config_option *o, void *base)
{
	return (char *)base + o->offset;
}

static const void *const_field_of(const struct config_option *o, const void *base)
{
	return (const char *)base + o->offset;
}

/* --- what is allowed --- */

/* Takes the next choice off "a|b|c". */
static bool next_choice(struct str *left, struct str *ret_choice)
{
	if (!left->n)
		return false;
	if (!str_cut(left, '|', ret_choice)) {
		*ret_choice = *left;
		left->n = 0;
	}
	return true;
}

/* Splits "min..max". */
static bool range_of(const struct config_option *o, struct str *ret_min, struct str *ret_max)
{
	const char *dots = strstr(o->allowed, "..");
	if (!dots)
		return false;
	*ret_min = str_mem(o->allowed, (size_t)(dots - o->allowed));
	*ret_max = str_of(dots + 2);
	return true;
}

void config_allowed_print(const struct config_option *o, struct buf *out)
{
	struct str min, max, left = str_of(o->allowed), choice;
	if (range_of(o, &min, &max)) {
		buf_addf(out, "%.*s to %.*s", STR_ARG(min), STR_ARG(max));
		return;
	}
	for (const char *comma = ""; next_choice(&left, &choice); comma = ", ")
		buf_addf(out, "%s%.*s", comma, STR_ARG(choice));
}

const char *config_type_name(const struct config_option *o)
{
	return type_of(o)->name;
}

/* --- parsing --- */

void config_text_shown(struct str text, char out[CONFIG_SHOWN_BYTES])
{
	const size_t most = CONFIG_SHOWN_BYTES - sizeof("...");
	size_t n = text.n < most ? text.n : most;
	for (size_t i = 0; i < n; i++)
		out[i] = (char)(text.p[i] < ' ' || text.p[i] > '~' ? '?' : text.p[i]);
	snprintf(out + n, CONFIG_SHOWN_BYTES - n, "%s", n < text.n ? "..." : "");
}

/* "'x' <problem> <expected> (allowed: …)" */
static int bad_value(const struct config_option *o, struct str text, const char *problem,
	const char *expected, struct err *e)
{
	if (o->type == CONFIG_SECRET)
		return err_set(e, ERR_REJECT, "the value %s%s", problem, expected);
	char shown[CONFIG_SHOWN_BYTES], allowed[ERR_TEXT_BYTES];
	config_text_shown(text, shown);
	/* A buf over the stack, as large as it may ever get. */
	struct buf b = {.p = allowed, .room = sizeof(allowed), .ceiling_bytes = sizeof(allowed)};
	config_allowed_print(o, &b);
	if (b.n == 0)
		return err_set(e, ERR_REJECT, "'%s' %s%s", shown, problem, expected);
	return err_set(
		e, ERR_REJECT, "'%s' %s%s (allowed: %.*s)", shown, problem, expected, STR_ARG(buf_str(&b)));
}

static int not_such(const struct config_option *o, struct str text, struct err *e)
{
	return bad_value(o, text, "is not ", type_of(o)->expected, e);
}

/* Digits and one of the units. */
static bool parse_number(const struct unit *units, struct str text, int64_t *ret)
{
	size_t digits = 0;
	while (digits < text.n && text.p[digits] >= '0' && text.p[digits] <= '9')
		digits++;
	uint64_t number;
	if (!str_to_u64(str_mem(text.p, digits), &number))
		return false;
	struct str suffix = str_mem(text.p + digits, text.n - digits);
	for (const struct unit *u = units; u->suffix; u++)
		if (str_eq(suffix, str_of(u->suffix)))
			return !__builtin_mul_overflow(number, u->factor, ret);
	return false;
}

bool config_parse_bytes(struct str text, int64_t *ret)
{
	return parse_number(byte_units, text, ret);
}

bool config_parse_duration(struct str text, int64_t *ret_ms)
{
	return parse_number(duration_units, text, ret_ms);
}

static int set_number(const struct config_option *o, struct str text, int64_t *field, struct err *e)
{
	const struct unit *units = type_of(o)->units;
	struct str min_text, max_text;
	int64_t value, min, max;
	if (!parse_number(units, text, &value))
		return not_such(o, text, e);
	bool table_is_right = range_of(o, &min_text, &max_text) && parse_number(units, min_text, &min) &&
			      parse_number(units, max_text, &max);
	ensure(table_is_right);
	if (value < min || value > max)
		return bad_value(o, text, value < min ? "is too small" : "is too large", "", e);
	*field = value;
	return 0;
}

static int set_bool(const struct config_option *o, struct str text, bool *field, struct err *e)
{
	bool is_true = str_eq(text, STR("true"));
	if (!is_true && !str_eq(text, STR("false")))
		return not_such(o, text, e);
	*field = is_true;
	return 0;
}

static int set_choice(const struct config_option *o, struct str text, int *field, struct err *e)
{
	struct str left = str_of(o->allowed), choice;
	for (int i = 0; next_choice(&left, &choice); i++) {
		if (str_eq(text, choice)) {
			*field = i;
			return 0;
		}
	}
	return bad_value(o, text, "is not known", "", e);
}

/* No control characters, and UTF-8. */
static bool text_is_clean(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f)
			return false;
	return utf8_valid(s, NULL);
}

/* inet_pton for a view; no valid address is longer than INET6_ADDRSTRLEN. */
static bool is_ip(int family, struct str s)
{
	char text[INET6_ADDRSTRLEN];
	struct in6_addr address;
	int n = snprintf(text, sizeof(text), "%.*s", STR_ARG(s));
	return s.n < sizeof(text) && (size_t)n == s.n && inet_pton(family, text, &address) == 1;
}

/* [host]:port; the host is nothing, an IPv4 address, or an IPv6 address in brackets. */
static bool text_is_address(struct str s)
{
	const char *colon = s.n ? memrchr(s.p, ':', s.n) : NULL;
	if (!colon)
		return false;
	struct str host = str_mem(s.p, (size_t)(colon - s.p));
	struct str port = str_mem(colon + 1, s.n - host.n - 1);
	uint64_t number;
	if (port.n > 5 || !str_to_u64(port, &number) || number > UINT16_MAX)
		return false;
	bool bracketed = host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']';
	if (bracketed)
		return is_ip(AF_INET6, str_mem(host.p + 1, host.n - 2));
	return host.n == 0 || is_ip(AF_INET, host);
}

/* Takes the next duration off "10s, 1m, 1h". */
static bool next_duration(struct str *left, int64_t *ret_ms)
{
	struct str item;
	if (!str_cut(left, ',', &item)) {
		item = *left;
		left->n = 0;
	}
	return parse_number(duration_units, str_trim(item), ret_ms);
}

/* Not empty, and each within what a wait may be. */
static bool text_is_durations(struct str s)
{
	enum { SHORTEST_MS = 10 };
	const int64_t longest_ms = 7LL * 24 * 3600 * 1000;
	unsigned count = 0;
	if (s.n && s.p[s.n - 1] == ',')
		return false;
	do {
		int64_t ms;
		if (!next_duration(&s, &ms) || ms < SHORTEST_MS || ms > longest_ms)
			return false;
		count++;
	} while (s.n);
	return count <= CONFIG_DURATIONS_MAX;
}

unsigned config_durations(const char *text, int64_t ret_ms[CONFIG_DURATIONS_MAX])
{
	struct str left = str_of(text);
	unsigned count = 0;
	while (left.n && count < CONFIG_DURATIONS_MAX && next_duration(&left, &ret_ms[count]))
		count++;
	return count;
}

static int set_text(const struct config_option *o, struct str text, void *base, struct err *e)
{
	bool may_be_empty = !*o->dflt;
	if (!(may_be_empty && text.n == 0) && !type_of(o)->text_is_valid(text))
		return not_such(o, text, e);
	char *copy = text.n ? strndup(text.p, text.n) : NULL;
	if (text.n && !copy)
		return err_oom(e);
	config_value_clear(o, base);
	*(char **)field_of(o, base) = copy;
	return 0;
}

int config_value_parse(const struct config_option *o, struct str text, void *base, struct err *e)
{
	if (type_of(o)->units)
		return set_number(o, text, field_of(o, base), e);
	if (type_of(o)->text_is_valid)
		return set_text(o, text, base, e);
	if (o->type == CONFIG_BOOL)
		return set_bool(o, text, field_of(o, base), e);
	return set_choice(o, text, field_of(o, base), e);
}

/* --- the other way --- */

/* In the largest unit that needs no fraction. */
static void print_number(const struct type *type, int64_t value, struct buf *out)
{
	const struct unit *best = type->units;
	for (const struct unit *u = type->units; u->suffix; u++)
		if (value % u->factor == 0)
			best = u;
	if (value)
		buf_addf(out, "%lld%s", (long long)(value / best->factor), best->suffix);
	else
		buf_add_str(out, str_of(type->zero));
}

static void print_choice(const struct config_option *o, int index, struct buf *out)
{
	struct str left = str_of(o->allowed), choice = STR("");
	while (next_choice(&left, &choice) && index--)
		;
	buf_add_str(out, choice);
}

void config_value_print(const struct config_option *o, const void *base, struct buf *out)
{
	const void *field = const_field_of(o, base);
	if (type_of(o)->units)
		print_number(type_of(o), *(const int64_t *)field, out);
	else if (o->type == CONFIG_BOOL)
		buf_add_str(out, *(const bool *)field ? STR("true") : STR("false"));
	else if (o->type == CONFIG_CHOICE)
		print_choice(o, *(const int *)field, out);
	else if (o->type == CONFIG_SECRET)
		buf_add_str(out, *(char *const *)field ? STR("[secret]") : STR(""));
	else
		buf_add_str(out, str_of(*(char *const *)field));
}

bool config_value_equal(const struct config_option *o, const void *a, const void *b)
{
	const void *x = const_field_of(o, a), *y = const_field_of(o, b);
	if (type_of(o)->text_is_valid)
		return str_eq(str_of(*(char *const *)x), str_of(*(char *const *)y));
	return memcmp(x, y, type_of(o)->size) == 0;
}

void config_value_clear(const struct config_option *o, void *base)
{
	if (!type_of(o)->text_is_valid)
		return;
	char **field = field_of(o, base);
	if (*field && o->type == CONFIG_SECRET)
		explicit_bzero(*field, strlen(*field));
	free(*field);
	*field = NULL;
}

bool config_value_is_text(const struct config_option *o)
{
	return type_of(o)->text_is_valid != NULL;
}
