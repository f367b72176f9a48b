/* redis_url.c - see redis_url.h. */
#include "queue/redis_url.h"

#include <string.h>

#define DEFAULT_PORT "6379"

/* Into room for `bytes`, with the NUL; false when it does not fit or holds a NUL. */
static bool put_text(char *to, size_t bytes, struct str s)
{
	if (s.n >= bytes || (s.n && memchr(s.p, 0, s.n)))
		return false;
	if (s.n)
		memcpy(to, s.p, s.n);
	to[s.n] = 0;
	return true;
}

static bool number_up_to(struct str s, uint64_t limit)
{
	uint64_t v;
	return str_to_u64(s, &v) && v <= limit;
}

/* [V6]:PORT or HOST:PORT; *port stays as it is when there is none. */
static bool split_port(struct str s, struct str *host, struct str *port)
{
	if (s.n && s.p[0] == '[') {
		struct str rest = str_mem(s.p + 1, s.n - 1);
		if (!str_cut(&rest, ']', host))
			return false;
		if (rest.n && rest.p[0] != ':')
			return false;
		if (rest.n)
			*port = str_mem(rest.p + 1, rest.n - 1);
		return true;
	}
	struct str rest = s;
	if (str_cut(&rest, ':', host))
		*port = rest;
	else
		*host = s;
	return true;
}

int redis_address_parse(struct str s, const char *default_port, struct redis_address *ret, struct err *e)
{
	struct str host = STR(""), port = str_of(default_port);
	if (!split_port(s, &host, &port) || !number_up_to(port, UINT16_MAX) ||
		!put_text(ret->port, sizeof(ret->port), port))
		return err_set(e, ERR_REJECT, "'%.*s' is not HOST:PORT", STR_ARG(s));
	if (!host.n)
		host = STR("localhost");
	if (!put_text(ret->host, sizeof(ret->host), host))
		return err_set(e, ERR_REJECT, "the host is too long");
	return 0;
}

static int take_database(struct str s, struct redis_url *ret, struct err *e)
{
	if (!s.n)
		s = STR("0");
	if (!number_up_to(s, 999999) || !put_text(ret->database, sizeof(ret->database), s))
		return err_set(
			e, ERR_REJECT, "redis_url: '%.*s' is not the number of a database", STR_ARG(s));
	return 0;
}

/* unix:///PATH?db=N */
static int parse_unix(struct str path, struct redis_url *ret, struct err *e)
{
	struct str rest = path, query = STR("");
	if (str_cut(&rest, '?', &path))
		query = rest;
	if (!path.n || path.p[0] != '/')
		return err_set(e, ERR_REJECT, "redis_url: the path of a unix socket starts with '/'");
	if (!put_text(ret->unix_path, sizeof(ret->unix_path), path))
		return err_set(e, ERR_REJECT, "redis_url: the path is too long for a unix socket");
	if (query.n && !str_starts(query, STR("db=")))
		return err_set(e, ERR_REJECT, "redis_url: '?%.*s' is not ?db=N", STR_ARG(query));
	return take_database(query.n ? str_mem(query.p + 3, query.n - 3) : query, ret, e);
}

static int parse_host(struct str s, struct redis_url *ret, struct err *e)
{
	struct str rest = s, address = s, database = STR("");
	if (str_cut(&rest, '/', &address))
		database = rest;
	if (address.n && memchr(address.p, '@', address.n))
		return err_set(
			e, ERR_REJECT, "redis_url: put user and password into redis_user and redis_password");
	if (redis_address_parse(address, DEFAULT_PORT, &ret->address, e) < 0)
		return err_context(e, "redis_url");
	return take_database(database, ret, e);
}

static struct str behind(struct str s, struct str head)
{
	return str_mem(s.p + head.n, s.n - head.n);
}

int redis_url_parse(struct str url, struct redis_url *ret, struct err *e)
{
	static const struct {
		struct str scheme;
		bool tls;
		int (*parse)(struct str s, struct redis_url *ret, struct err *e);
	} schemes[] = {
		{STR("redis://"), false, parse_host},
		{STR("rediss://"), true, parse_host},
		{STR("unix://"), false, parse_unix},
	};
	for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
		if (!str_starts(url, schemes[i].scheme))
			continue;
		*ret = (struct redis_url){.tls = schemes[i].tls};
		return schemes[i].parse(behind(url, schemes[i].scheme), ret, e);
	}
	return err_set(e, ERR_REJECT,
		"redis_url: expected redis://HOST:PORT/DB, rediss://HOST:PORT/DB (TLS) or unix:///PATH");
}
