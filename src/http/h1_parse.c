/* h1_parse.c - see h1_parse.h. Classes of characters come from one table; a head is cut into lines at LF, so
 * the scanner needs memchr only, and each line is then matched from left to right. */
#include "http/h1_parse.h"

/* --- characters --- */

enum {
	TOKEN = 1,  /* tchar, RFC 9110 section 5.6.2 */
	FIELD = 2,  /* of a field value: HTAB, SP, VCHAR, obs-text; RFC 9110 section 5.5 */
	TARGET = 4, /* pchar, '/' and '?'; RFC 3986 sections 3.3 and 3.4 */
	HOST = 8,   /* of reg-name or IP-literal and port; RFC 3986 sections 3.2.2 and 3.2.3 */
	HEX = 16,
	DIGIT = 32,
};

enum {
	UNRESERVED = FIELD | TARGET | HOST,
	ALPHA = UNRESERVED | TOKEN,
};

static const uint8_t classes[256] = {
	['\t'] = FIELD,
	[' '] = FIELD,
	['!'] = UNRESERVED | TOKEN,
	['"'] = FIELD,
	['#'] = FIELD | TOKEN,
	['$'] = UNRESERVED | TOKEN,
	['%'] = UNRESERVED | TOKEN,
	['&'] = UNRESERVED | TOKEN,
	['\''] = UNRESERVED | TOKEN,
	['('] = UNRESERVED,
	[')'] = UNRESERVED,
	['*'] = UNRESERVED | TOKEN,
	['+'] = UNRESERVED | TOKEN,
	[','] = UNRESERVED,
	['-'] = UNRESERVED | TOKEN,
	['.'] = UNRESERVED | TOKEN,
	['/'] = FIELD | TARGET,
	['0' ... '9'] = ALPHA | HEX | DIGIT,
	[':'] = FIELD | TARGET,
	[';'] = UNRESERVED,
	['<'] = FIELD,
	['='] = UNRESERVED,
	['>'] = FIELD,
	['?'] = FIELD | TARGET,
	['@'] = FIELD | TARGET,
	['A' ... 'F'] = ALPHA | HEX,
	['G' ... 'Z'] = ALPHA,
	['['] = FIELD,
	['\\'] = FIELD,
	[']'] = FIELD,
	['^'] = FIELD | TOKEN,
	['_'] = UNRESERVED | TOKEN,
	['`'] = FIELD | TOKEN,
	['a' ... 'f'] = ALPHA | HEX,
	['g' ... 'z'] = ALPHA,
	['{'] = FIELD,
	['|'] = FIELD | TOKEN,
	['}'] = FIELD,
	['~'] = UNRESERVED | TOKEN,
	[128 ... 255] = FIELD,
};

static bool is(char c, unsigned class)
{
	return classes[(unsigned char)c] & class;
}

static bool all(struct str s, unsigned class)
{
	for (size_t i = 0; i < s.n; i++)
		if (!is(s.p[i], class))
			return false;
	return true;
}

/* Characters of a class, with every '%' followed by two hex digits. */
static bool all_encoded(struct str s, unsigned class)
{
	for (size_t i = 0; i < s.n; i++) {
		if (!is(s.p[i], class))
			return false;
		if (s.p[i] == '%' && (s.n - i < 3 || !is(s.p[i + 1], HEX) || !is(s.p[i + 2], HEX)))
			return false;
	}
	return true;
}

static struct str skip(struct str s, size_t n)
{
	return (struct str){s.p + n, s.n - n};
}

/* --- finding the end of a head --- */

static enum h1_verdict malformed(const char **ret_rule, const char *rule)
{
	*ret_rule = rule;
	return H1_MALFORMED;
}

static enum h1_verdict too_large(const char **ret_rule, const char *rule)
{
	*ret_rule = rule;
	return H1_TOO_LARGE;
}

enum h1_verdict h1_scan(struct h1_scan *s, struct str window, const struct h1_limits *l, struct str *ret_head,
	const char **ret_rule)
{
	for (;;) {
		/* Not a byte past the limit is looked at, so that a verdict does not depend on how many came.
		 */
		size_t end = s->start + l->head_bytes < window.n ? s->start + l->head_bytes : window.n;
		const char *lf =
			s->scanned < end ? memchr(window.p + s->scanned, '\n', end - s->scanned) : NULL;
		if (!lf) {
			s->scanned = end;
			return end < s->start + l->head_bytes ? H1_MORE : too_large(ret_rule, H1_RULE_HEAD);
		}
		size_t at = (size_t)(lf - window.p);
		if (at == s->line_start || lf[-1] != '\r')
			return malformed(ret_rule, "a line ends in LF without CR");
		bool empty = at == s->line_start + 1;
		s->scanned = s->line_start = at + 1;
		if (empty && s->line_count) {
			*ret_head = (struct str){window.p + s->start, at - 1 - s->start};
			return H1_DONE;
		}
		if (empty && s->start)
			return malformed(ret_rule, "empty lines before the request");
		if (empty)
			s->start = s->line_start;
		else if (s->line_count++ > l->header_count)
			return too_large(ret_rule, H1_RULE_HEADERS);
	}
}

/* --- the request line --- */

bool h1_host(struct str s)
{
	struct str host = s;
	if (s.n && s.p[0] == '[') {
		const char *bracket = memchr(s.p, ']', s.n);
		if (!bracket)
			return false;
		host = (struct str){s.p + 1, (size_t)(bracket - s.p) - 1};
		s = skip(s, host.n + 2);
		for (size_t i = 0; i < host.n; i++)
			if (!is(host.p[i], HEX) && host.p[i] != ':' && host.p[i] != '.')
				return false;
		if (!host.n)
			return false;
	} else {
		const char *colon = s.n ? memchr(s.p, ':', s.n) : NULL;
		host.n = colon ? (size_t)(colon - s.p) : s.n;
		s = skip(s, host.n);
		if (!all_encoded(host, HOST))
			return false;
	}
	return s.n == 0 || (s.p[0] == ':' && all(skip(s, 1), DIGIT));
}

/* What follows "http://" or "https://", or .p NULL. */
static struct str after_scheme(struct str target)
{
	static const struct str schemes[] = {{"http://", 7}, {"https://", 8}};
	for (size_t i = 0; i < ARRAY_LEN(schemes); i++)
		if (target.n >= schemes[i].n &&
			str_eq_nocase((struct str){target.p, schemes[i].n}, schemes[i]))
			return skip(target, schemes[i].n);
	return (struct str){NULL, 0};
}

bool h1_target(struct str method, struct str target, struct str *ret_path, struct str *ret_query)
{
	struct str path = target;
	bool asterisk = str_eq(target, STR("*")) && str_eq(method, STR("OPTIONS"));
	if (!target.n)
		return false;
	if (target.p[0] != '/' && !asterisk) {
		struct str rest = after_scheme(target);
		size_t n = 0;
		while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?')
			n++;
		if (!n || !h1_host((struct str){rest.p, n}))
			return false;
		path = skip(rest, n);
	}
	if (!all_encoded(path, TARGET))
		return false;
	struct str query = {path.p + path.n, 0};
	const char *mark = path.n ? memchr(path.p, '?', path.n) : NULL;
	if (mark) {
		query = skip(path, (size_t)(mark - path.p) + 1);
		path.n = (size_t)(mark - path.p);
	}
	*ret_path = path.n ? path : STR("/"); /* RFC 9112 section 3.2.1 */
	*ret_query = query;
	return true;
}

static bool parse_version(struct str s, bool *ret_1_0)
{
	if (s.n != 8 || !str_starts(s, STR("HTTP/1.")) || !is(s.p[7], DIGIT))
		return false;
	*ret_1_0 = s.p[7] == '0';
	return true;
}

static enum h1_verdict parse_request_line(
	struct str line, const struct h1_limits *l, struct h1_head *h, const char **ret_rule)
{
	struct str rest = line;
	if (!str_cut(&rest, ' ', &h->method) || !h->method.n || !all(h->method, TOKEN))
		return malformed(ret_rule, "the method is not a token");
	if (!str_cut(&rest, ' ', &h->target))
		return malformed(ret_rule, "the request line has no version");
	if (h->target.n > l->target_bytes)
		return too_large(ret_rule, H1_RULE_TARGET);
	if (!h1_target(h->method, h->target, &h->path, &h->query))
		return malformed(ret_rule, "the request target is neither a path nor an http(s) URI");
	if (!parse_version(rest, &h->version_1_0))
		return malformed(ret_rule, "the version is not HTTP/1.0 or HTTP/1.1");
	return H1_DONE;
}

/* --- headers --- */

static bool parse_header(struct str line, struct http_header *ret)
{
	size_t n = 0;
	while (n < line.n && is(line.p[n], TOKEN))
		n++;
	if (!n || n == line.n || line.p[n] != ':')
		return false;
	struct str value = skip(line, n + 1);
	if (!all(value, FIELD))
		return false;
	*ret = (struct http_header){{line.p, n}, str_trim(value)};
	return true;
}

/* Headers that decide where a message ends or what happens to the connection. */
struct framing {
	unsigned host, content_length, transfer_encoding;
};

static const char *on_host(struct h1_head *h, struct framing *f, struct str value)
{
	if (f->host++)
		return "Host occurs more than once";
	return h1_host(value) ? NULL : "Host is not a host";
}

static const char *on_content_length(struct h1_head *h, struct framing *f, struct str value)
{
	if (f->content_length++)
		return "Content-Length occurs more than once";
	return str_to_u64(value, &h->content_length) ? NULL : "Content-Length is not a number";
}

static const char *on_transfer_encoding(struct h1_head *h, struct framing *f, struct str value)
{
	if (f->transfer_encoding++)
		return "Transfer-Encoding occurs more than once";
	h->chunked = true;
	return str_eq_nocase(value, STR("chunked")) ? NULL : "Transfer-Encoding is not 'chunked'";
}

static bool list_has(struct str list, struct str word)
{
	struct str item;
	while (str_cut(&list, ',', &item))
		if (str_eq_nocase(str_trim(item), word))
			return true;
	return str_eq_nocase(str_trim(list), word);
}

static const char *on_connection(struct h1_head *h, struct framing *f, struct str value)
{
	h->close |= list_has(value, STR("close"));
	return NULL;
}

static const char *on_expect(struct h1_head *h, struct framing *f, struct str value)
{
	h->expect_continue |= str_eq_nocase(value, STR("100-continue"));
	return NULL;
}

static const struct {
	struct str name;
	const char *(*take)(struct h1_head *h, struct framing *f, struct str value);
} known_headers[] = {
	{{"host", 4}, on_host},
	{{"content-length", 14}, on_content_length},
	{{"transfer-encoding", 17}, on_transfer_encoding},
	{{"connection", 10}, on_connection},
	{{"expect", 6}, on_expect},
};

static const char *take_known(struct h1_head *h, struct framing *f, const struct http_header *header)
{
	for (size_t i = 0; i < ARRAY_LEN(known_headers); i++)
		if (header->name.n == known_headers[i].name.n &&
			str_eq_nocase(header->name, known_headers[i].name))
			return known_headers[i].take(h, f, header->value);
	return NULL;
}

static const char *check_framing(const struct h1_head *h, const struct framing *f)
{
	if (!f->host && !h->version_1_0)
		return "Host is missing";
	if (h->chunked && f->content_length)
		return "both Content-Length and Transfer-Encoding";
	if (h->chunked && h->version_1_0)
		return "Transfer-Encoding in HTTP/1.0";
	return NULL;
}

/* The next line without its CRLF; h1_scan has seen to it that there is one. */
static struct str next_line(struct str *rest)
{
	struct str line = *rest;
	if (str_cut(rest, '\n', &line))
		line.n--;
	return line;
}

enum h1_verdict h1_parse(struct str head, const struct h1_limits *l, struct http_header *headers,
	struct h1_head *ret, const char **ret_rule)
{
	struct str rest = head;
	struct h1_head h = {.header_count = 0};
	struct framing f = {0};
	enum h1_verdict v = parse_request_line(next_line(&rest), l, &h, ret_rule);
	if (v != H1_DONE)
		return v;
	while (rest.n) {
		struct http_header *header = &headers[h.header_count++];
		if (!parse_header(next_line(&rest), header))
			return malformed(ret_rule, "a header is not 'name: value'");
		const char *rule = take_known(&h, &f, header);
		if (rule)
			return malformed(ret_rule, rule);
	}
	const char *rule = check_framing(&h, &f);
	if (rule)
		return malformed(ret_rule, rule);
	h.close |= h.version_1_0;
	*ret = h;
	return H1_DONE;
}

/* --- chunked bodies --- */

/* 16 hex digits fill 64 bits; longer sizes would only be leading zeros or an overflow. */
enum { CHUNK_SIZE_DIGITS = 16 };

static unsigned hex_value(char c)
{
	return is(c, DIGIT) ? (unsigned)(c - '0') : (unsigned)((c | 0x20) - 'a' + 10);
}

static const char *chunk_size(struct h1_chunked *c, char ch)
{
	if (is(ch, HEX)) {
		if (c->digits++ == CHUNK_SIZE_DIGITS)
			return "a chunk size is too long";
		c->left = c->left << 4 | hex_value(ch);
		return NULL;
	}
	if (!c->digits)
		return "a chunk size is not hexadecimal";
	c->extension_begun = ch == ';';
	if (ch == '\r')
		c->state = H1_CHUNK_SIZE_LF;
	else if (ch == ';' || ch == ' ' || ch == '\t')
		c->state = H1_CHUNK_EXTENSION;
	else
		return "a chunk size is not hexadecimal";
	return NULL;
}

static const char *chunk_extension(struct h1_chunked *c, char ch)
{
	if (ch == '\r' && c->extension_begun) {
		c->state = H1_CHUNK_SIZE_LF;
		return NULL;
	}
	/* White space may stand before the ';' (BWS), nothing else. */
	if (!c->extension_begun && ch != ';' && ch != ' ' && ch != '\t')
		return "a chunk size is followed by something else than an extension";
	c->extension_begun |= ch == ';';
	c->overhead_bytes++;
	return is(ch, FIELD) ? NULL : "a chunk extension holds a control character";
}

static const char *chunk_size_lf(struct h1_chunked *c, char ch)
{
	c->digits = 0;
	c->state = c->left ? H1_CHUNK_DATA : H1_TRAILER_START;
	return ch == '\n' ? NULL : "CR without LF after a chunk size";
}

static const char *chunk_data_cr(struct h1_chunked *c, char ch)
{
	c->state = H1_CHUNK_DATA_LF;
	return ch == '\r' ? NULL : "a chunk is longer than its size";
}

static const char *chunk_data_lf(struct h1_chunked *c, char ch)
{
	c->state = H1_CHUNK_SIZE;
	return ch == '\n' ? NULL : "CR without LF after a chunk";
}

static const char *trailer_start(struct h1_chunked *c, char ch)
{
	c->overhead_bytes++;
	if (ch == '\r') {
		c->state = H1_CHUNKED_LF;
		return NULL;
	}
	c->trailer_count++;
	c->state = H1_TRAILER_NAME;
	return is(ch, TOKEN) ? NULL : "a trailer is not 'name: value'";
}

static const char *trailer_name(struct h1_chunked *c, char ch)
{
	c->overhead_bytes++;
	if (ch == ':')
		c->state = H1_TRAILER_VALUE;
	else if (!is(ch, TOKEN))
		return "a trailer is not 'name: value'";
	return NULL;
}

static const char *trailer_value(struct h1_chunked *c, char ch)
{
	c->overhead_bytes++;
	if (ch == '\r')
		c->state = H1_TRAILER_LF;
	else if (!is(ch, FIELD))
		return "a trailer is not 'name: value'";
	return NULL;
}

static const char *trailer_lf(struct h1_chunked *c, char ch)
{
	c->state = H1_TRAILER_START;
	return ch == '\n' ? NULL : "CR without LF after a trailer";
}

static const char *chunked_lf(struct h1_chunked *c, char ch)
{
	return ch == '\n' ? NULL : "CR without LF after the last chunk";
}

/* What one byte does in each state, but for runs of data. */
static const char *(*const chunk_steps[])(struct h1_chunked *c, char ch) = {
	[H1_CHUNK_SIZE] = chunk_size,
	[H1_CHUNK_EXTENSION] = chunk_extension,
	[H1_CHUNK_SIZE_LF] = chunk_size_lf,
	[H1_CHUNK_DATA_CR] = chunk_data_cr,
	[H1_CHUNK_DATA_LF] = chunk_data_lf,
	[H1_TRAILER_START] = trailer_start,
	[H1_TRAILER_NAME] = trailer_name,
	[H1_TRAILER_VALUE] = trailer_value,
	[H1_TRAILER_LF] = trailer_lf,
	[H1_CHUNKED_LF] = chunked_lf,
};

static struct str take_data(struct h1_chunked *c, struct str *in)
{
	struct str data = {in->p, c->left < in->n ? (size_t)c->left : in->n};
	*in = skip(*in, data.n);
	c->left -= data.n;
	if (!c->left)
		c->state = H1_CHUNK_DATA_CR;
	return data;
}

enum h1_verdict h1_chunked(struct h1_chunked *c, struct str *in, uint64_t room_bytes,
	const struct h1_limits *l, struct str *ret_data, const char **ret_rule)
{
	while (in->n) {
		if (c->state == H1_CHUNK_DATA) {
			*ret_data = take_data(c, in);
			return H1_DATA;
		}
		bool last = c->state == H1_CHUNKED_LF;
		const char *rule = chunk_steps[c->state](c, in->p[0]);
		if (rule)
			return malformed(ret_rule, rule);
		*in = skip(*in, 1);
		if (last)
			return H1_DONE;
		if (c->state == H1_CHUNK_DATA && c->left > room_bytes)
			return H1_TOO_LARGE;
		if (c->overhead_bytes > l->head_bytes || c->trailer_count > l->header_count)
			return H1_TOO_LARGE;
	}
	return H1_MORE;
}
