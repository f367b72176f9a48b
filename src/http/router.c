/* router.c - see router.h. Tables are a few dozen rows, so they are scanned: comparing lengths first makes
 * that cheaper than hashing the path. */
#include "http/router.h"

#include <stdlib.h>

struct row {
	const struct http_route *route;
	struct str method, pattern;
	bool literal;
};

struct router {
	unsigned row_count;
	bool has_protected[2]; /* some route asks for a certificate; [1]: of peers on this machine too */
	struct row rows[];
};

static bool is_public(const struct http_route *route)
{
	return route->roles & ROLE_BIT(ROLE_NONE);
}

/* The next segment of a path that begins with '/'; false at the end. */
static bool next_segment(struct str *path, struct str *ret)
{
	if (!path->n)
		return false;
	struct str rest = {path->p + 1, path->n - 1};
	const char *slash = rest.n ? memchr(rest.p, '/', rest.n) : NULL;
	*ret = (struct str){rest.p, slash ? (size_t)(slash - rest.p) : rest.n};
	*path = (struct str){rest.p + ret->n, rest.n - ret->n};
	return true;
}

static bool is_parameter(struct str segment)
{
	return segment.n > 2 && segment.p[0] == '{' && segment.p[segment.n - 1] == '}';
}

static bool match_segments(struct str pattern, struct str path, struct str *ret_params)
{
	struct str want, have;
	unsigned count = 0;
	while (next_segment(&pattern, &want)) {
		if (!next_segment(&path, &have))
			return false;
		if (!is_parameter(want) ? !str_eq(want, have) : !have.n)
			return false;
		if (is_parameter(want))
			ret_params[count++] = have;
	}
	return path.n == 0;
}

static bool row_matches(const struct row *row, struct str path, struct str *ret_params)
{
	return row->literal ? str_eq(row->pattern, path) : match_segments(row->pattern, path, ret_params);
}

static bool method_matches(struct str route_method, struct str method)
{
	return str_eq(route_method, method) ||
	       (str_eq(route_method, STR("GET")) && str_eq(method, STR("HEAD")));
}

static bool may(const struct http_route *route, enum role role, bool local)
{
	return is_public(route) || (route->roles & ROLE_BIT(role)) || (local && route->local);
}

/* What the rows of one path (literal or not) make of the request. */
struct look {
	bool path_known, path_allowed; /* allowed: some row of it is open to the peer */
	const struct row *row;         /* path and method match */
};

static struct look look_at(const struct router *r, bool literal, struct str method, struct str path,
	enum role role, bool local, struct str *ret_params)
{
	struct look look = {.row = NULL};
	for (unsigned i = 0; i < r->row_count && !look.row; i++) {
		const struct row *row = &r->rows[i];
		struct str params[HTTP_PARAMS] = {{NULL, 0}};
		if (row->literal != literal || !row_matches(row, path, params))
			continue;
		look.path_known = true;
		look.path_allowed |= may(row->route, role, local);
		if (method_matches(row->method, method)) {
			look.row = row;
			memcpy(ret_params, params, sizeof(params));
		}
	}
	return look;
}

static enum router_outcome refusal(enum role role)
{
	return role == ROLE_NONE ? ROUTER_UNAUTHENTICATED : ROUTER_FORBIDDEN;
}

enum router_outcome router_find(const struct router *r, struct str method, struct str path, enum role role,
	bool local, struct router_match *ret)
{
	struct str params[HTTP_PARAMS] = {{NULL, 0}};
	struct look look = look_at(r, true, method, path, role, local, params);
	if (!look.path_known)
		look = look_at(r, false, method, path, role, local, params);
	if (!look.path_known)
		return r->has_protected[local] && role == ROLE_NONE ? ROUTER_UNAUTHENTICATED
								    : ROUTER_NOT_FOUND;
	if (!look.row)
		return look.path_allowed ? ROUTER_METHOD : refusal(role);
	if (!may(look.row->route, role, local))
		return refusal(role);
	ret->index = (unsigned)(look.row - r->rows);
	ret->route = look.row->route;
	memcpy(ret->params, params, sizeof(params));
	return ROUTER_FOUND;
}

const char *router_allow(const struct router *r, struct str path, struct arena *arena)
{
	/* As in router_find: parameter routes count only where no literal one matches. */
	bool literal = false;
	struct str params[HTTP_PARAMS];
	for (unsigned i = 0; i < r->row_count; i++)
		literal |= r->rows[i].literal && row_matches(&r->rows[i], path, params);
	const char *allow = "";
	for (unsigned i = 0; i < r->row_count && allow; i++) {
		const struct row *row = &r->rows[i];
		if (row->literal != literal || !row_matches(row, path, params))
			continue;
		allow = arena_printf(arena, "%s%s%s%s", allow, *allow ? ", " : "", row->route->method,
			str_eq(row->method, STR("GET")) ? ", HEAD" : "");
	}
	return allow;
}

unsigned router_route_count(const struct router *r)
{
	return r->row_count;
}

static bool pattern_is_valid(struct str pattern, bool *ret_literal)
{
	struct str segment, rest = pattern;
	unsigned params = 0;
	if (!pattern.n || pattern.p[0] != '/')
		return false;
	while (next_segment(&rest, &segment))
		params += is_parameter(segment);
	*ret_literal = params == 0;
	return params <= HTTP_PARAMS;
}

static int add_row(struct router *r, const struct http_route *route, struct err *e)
{
	struct row row = {.route = route, .method = str_of(route->method), .pattern = str_of(route->pattern)};
	if (!pattern_is_valid(row.pattern, &row.literal))
		return err_set(e, ERR_FATAL, "route '%s' has no valid pattern", route->pattern);
	for (unsigned i = 0; i < r->row_count; i++)
		if (str_eq(r->rows[i].method, row.method) && str_eq(r->rows[i].pattern, row.pattern))
			return err_set(
				e, ERR_FATAL, "route '%s %s' occurs twice", route->method, route->pattern);
	r->has_protected[false] |= !is_public(route);
	r->has_protected[true] |= !is_public(route) && !route->local;
	r->rows[r->row_count++] = row;
	return 0;
}

int router_new(const struct http_route *routes, struct router **ret, struct err *e)
{
	unsigned count = 0;
	while (routes[count].method)
		count++;
	struct router *r = calloc(1, sizeof(*r) + count * sizeof(r->rows[0]));
	if (!r)
		return err_oom(e);
	for (unsigned i = 0; i < count; i++)
		if (add_row(r, &routes[i], e) < 0) {
			router_free(r);
			return -1;
		}
	*ret = r;
	return 0;
}

void router_free(struct router *r)
{
	free(r);
}

struct str percent_decode(struct str s, struct arena *arena)
{
	if (!s.n || !memchr(s.p, '%', s.n))
		return s;
	char *out = arena_alloc(arena, s.n);
	size_t n = 0;
	for (size_t i = 0; out && i < s.n; n++) {
		if (s.p[i] == '%' && hex_decode((struct str){s.p + i + 1, 2}, out + n, 1))
			i += 3;
		else
			out[n] = s.p[i++];
	}
	return (struct str){out, out ? n : 0};
}
