#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "http/router.h"

static void unused(struct http_request *r)
{
}

#define ANYONE  ROLE_BIT(ROLE_NONE)
#define CLIENTS ROLE_BIT(ROLE_CLIENT)

static const struct http_route table[] = {
	{"POST", "/messages", CLIENTS, .handler = unused},
	{"GET", "/messages/{id}", CLIENTS, .handler = unused},
	{"DELETE", "/messages/{id}", ROLE_BIT(ROLE_ADMIN), .handler = unused},
	{"GET", "/messages/dead", ROLE_BIT(ROLE_ADMIN), .handler = unused},
	{"GET", "/a/{b}/c/{d}", ANYONE, .handler = unused},
	{"GET", "/health", ANYONE, .handler = unused},
	{"GET", "/metrics", ROLE_BIT(ROLE_MONITOR), .local = true, .handler = unused},
	{"GET", "/", ANYONE, .handler = unused},
	{NULL},
};

static const struct {
	const char *method, *path;
	enum role role;
	bool local;
	enum router_outcome outcome;
	unsigned index;
	const char *params[2];
} cases[] = {
	{"GET", "/", ROLE_NONE, false, ROUTER_FOUND, 7},
	{"GET", "/health", ROLE_NONE, false, ROUTER_FOUND, 5},
	{"HEAD", "/health", ROLE_NONE, false, ROUTER_FOUND, 5},
	{"head", "/health", ROLE_NONE, false, ROUTER_METHOD},
	{"POST", "/health", ROLE_NONE, false, ROUTER_METHOD},
	{"HEAD", "/messages", ROLE_CLIENT, false, ROUTER_METHOD},
	{"GET", "/health/", ROLE_CLIENT, false, ROUTER_NOT_FOUND},
	{"GET", "/Health", ROLE_CLIENT, false, ROUTER_NOT_FOUND},
	{"GET", "//health", ROLE_CLIENT, false, ROUTER_NOT_FOUND},
	{"GET", "/x/../health", ROLE_CLIENT, false, ROUTER_NOT_FOUND},
	{"GET", "/%68ealth", ROLE_CLIENT, false, ROUTER_NOT_FOUND},
	/* parameters */
	{"GET", "/messages/1%202", ROLE_CLIENT, false, ROUTER_FOUND, 1, {"1%202"}},
	{"GET", "/messages/", ROLE_CLIENT, false, ROUTER_NOT_FOUND},
	{"GET", "/messages/1/2", ROLE_CLIENT, false, ROUTER_NOT_FOUND},
	{"DELETE", "/messages/1", ROLE_ADMIN, false, ROUTER_FOUND, 2, {"1"}},
	{"GET", "/a/1/c/2", ROLE_NONE, false, ROUTER_FOUND, 4, {"1", "2"}},
	{"GET", "/a//c/2", ROLE_CLIENT, false, ROUTER_NOT_FOUND},
	{"GET", "/a/1/c", ROLE_CLIENT, false, ROUTER_NOT_FOUND},
	/* a literal wins, also over another method of the parameter route */
	{"GET", "/messages/dead", ROLE_ADMIN, false, ROUTER_FOUND, 3},
	{"DELETE", "/messages/dead", ROLE_ADMIN, false, ROUTER_METHOD},
	/* who may */
	{"POST", "/messages", ROLE_CLIENT, false, ROUTER_FOUND, 0},
	{"POST", "/messages", ROLE_WORKER, false, ROUTER_FORBIDDEN},
	{"POST", "/messages", ROLE_NONE, false, ROUTER_UNAUTHENTICATED},
	{"POST", "/messages", ROLE_NONE, true, ROUTER_UNAUTHENTICATED},
	{"GET", "/messages/dead", ROLE_CLIENT, false, ROUTER_FORBIDDEN},
	{"GET", "/metrics", ROLE_NONE, true, ROUTER_FOUND, 6},
	{"GET", "/metrics", ROLE_MONITOR, false, ROUTER_FOUND, 6},
	{"GET", "/metrics", ROLE_CLIENT, false, ROUTER_FORBIDDEN},
	/* who may not learn what is there */
	{"GET", "/nowhere", ROLE_NONE, false, ROUTER_UNAUTHENTICATED},
	{"GET", "/nowhere", ROLE_NONE, true, ROUTER_UNAUTHENTICATED},
	{"PUT", "/messages", ROLE_NONE, false, ROUTER_UNAUTHENTICATED},
	{"PUT", "/messages", ROLE_WORKER, false, ROUTER_FORBIDDEN},
	{"PUT", "/messages", ROLE_CLIENT, false, ROUTER_METHOD},
};

static void routes_match(void **state)
{
	struct router *r;
	assert_int_equal(router_new(table, &r, NULL), 0);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct router_match match = {.index = 0};
		enum router_outcome got = router_find(r, str_of(cases[i].method), str_of(cases[i].path),
			cases[i].role, cases[i].local, &match);
		if (got != cases[i].outcome || match.index != cases[i].index)
			fail_msg("%s %s: outcome %d, route %u", cases[i].method, cases[i].path, got,
				match.index);
		for (unsigned p = 0; p < ARRAY_LEN(cases[i].params) && cases[i].params[p]; p++)
			assert_true(str_eq(match.params[p], str_of(cases[i].params[p])));
		if (got == ROUTER_FOUND)
			assert_ptr_equal(match.route, &table[cases[i].index]);
	}
	router_free(r);
}

/* Where nobody needs a certificate there is nothing to hide. */
static void open_tables_say_not_found(void **state)
{
	static const struct http_route public_table[] = {{"GET", "/a", ANYONE, .handler = unused}, {NULL}};
	static const struct http_route local_table[] = {
		{"GET", "/a", CLIENTS, .local = true, .handler = unused}, {NULL}};
	static const struct {
		const struct http_route *table;
		bool local;
		enum router_outcome outcome;
	} rows[] = {
		{public_table, false, ROUTER_NOT_FOUND},
		{local_table, true, ROUTER_NOT_FOUND},
		{local_table, false, ROUTER_UNAUTHENTICATED},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct router *r;
		struct router_match match;
		assert_int_equal(router_new(rows[i].table, &r, NULL), 0);
		assert_int_equal(router_find(r, STR("GET"), STR("/b"), ROLE_NONE, rows[i].local, &match),
			rows[i].outcome);
		router_free(r);
	}
}

static void allow_lists_what_the_path_knows(void **state)
{
	static const struct {
		const char *path, *allow;
	} rows[] = {
		{"/messages", "POST"},
		{"/messages/1", "GET, HEAD, DELETE"},
		{"/messages/dead", "GET, HEAD"},
	};
	struct router *r;
	struct arena arena;
	arena_init(&arena, 4096);
	assert_int_equal(router_new(table, &r, NULL), 0);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_string_equal(router_allow(r, str_of(rows[i].path), &arena), rows[i].allow);
	router_free(r);
	arena_clear(&arena);
}

static void bad_tables_are_refused(void **state)
{
	static const struct http_route bad[][3] = {
		{{"GET", "", ANYONE, .handler = unused}},
		{{"GET", "health", ANYONE, .handler = unused}},
		{{"GET", "/{a}/{b}/{c}/{d}/{e}", ANYONE, .handler = unused}},
		{{"GET", "/a", ANYONE, .handler = unused}, {"GET", "/a", CLIENTS, .handler = unused}},
	};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct router *r;
		struct err e = ERR_INIT;
		assert_true(router_new(bad[i], &r, &e) < 0);
		assert_int_equal(e.kind, ERR_FATAL);
	}
	router_free(NULL);
}

static void percent_decoding(void **state)
{
	static const struct {
		struct str in, out;
	} rows[] = {
		{STR(""), STR("")},
		{STR("a+b"), STR("a+b")},
		{STR("%2F%2f"), STR("//")},
		{STR("a%00b"), STR("a\0b")},
		{STR("%c3%A4"), STR("\xc3\xa4")},
		{STR("%2525"), STR("%25")},
	};
	struct arena arena;
	arena_init(&arena, 4096);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct str out = percent_decode(rows[i].in, &arena);
		assert_true(out.p && str_eq(out, rows[i].out));
	}
	arena_clear(&arena);
	struct arena none;
	arena_init(&none, 0);
	assert_null(percent_decode(STR("%20"), &none).p);
}

static void query_parameters(void **state)
{
	static const struct {
		const char *query, *name, *value; /* NULL: absent */
	} rows[] = {
		{"", "a", NULL},
		{"a", "a", ""},
		{"a=", "a", ""},
		{"a=1", "a", "1"},
		{"a=1&b=2", "b", "2"},
		{"a=1&a=2", "a", "1"},
		{"aa=1&a=2", "a", "2"},
		{"a=b=c", "a", "b=c"},
		{"&&a=1", "a", "1"},
		{"%61=%2B49", "a", "+49"},
		{"a=+49", "a", "+49"},
		{"A=1", "a", NULL},
	};
	struct arena arena;
	arena_init(&arena, 4096);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct http_request r = {.query = str_of(rows[i].query), .arena = &arena};
		struct str value = http_query(&r, str_of(rows[i].name));
		if (!rows[i].value)
			assert_null(value.p);
		else if (!value.p || !str_eq(value, str_of(rows[i].value)))
			fail_msg("'%s' in '%s'", rows[i].name, rows[i].query);
	}
	arena_clear(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(routes_match),
		cmocka_unit_test(open_tables_say_not_found),
		cmocka_unit_test(allow_lists_what_the_path_knows),
		cmocka_unit_test(bad_tables_are_refused),
		cmocka_unit_test(percent_decoding),
		cmocka_unit_test(query_parameters),
	};
	return cmocka_run_group_tests_name("http_router", tests, NULL, NULL);
}
