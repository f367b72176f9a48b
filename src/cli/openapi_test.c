/* openapi_test.c - holds the OpenAPI documents against the route tables: every route is described, everything
 * described is a route, and summary, roles, body and problem codes are the tables'. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ctype.h>
#include <yaml.h>

#include "proxy/internal.h"
#include "role/health.h"
#include "server/internal.h"

static const struct http_route *const ingest_routes[] = {proxy_routes, health_routes, NULL};

static const struct document {
	const char *name, *text;
	const struct http_route *const *tables;
} documents[] = {
	{"proxy/openapi.yaml", proxy_openapi, ingest_routes},
	{"server/openapi.yaml", server_openapi, server_routes},
};

/* --- reading --- */

static void load(const struct document *d, yaml_document_t *ret)
{
	yaml_parser_t parser;
	assert_true(yaml_parser_initialize(&parser));
	yaml_parser_set_input_string(&parser, (const unsigned char *)d->text, strlen(d->text));
	if (!yaml_parser_load(&parser, ret))
		fail_msg("%s:%zu: %s", d->name, parser.problem_mark.line + 1, parser.problem);
	yaml_parser_delete(&parser);
}

static const char *text_of(const yaml_node_t *node)
{
	assert_non_null(node);
	assert_int_equal(node->type, YAML_SCALAR_NODE);
	return (const char *)node->data.scalar.value;
}

static yaml_node_t *member(yaml_document_t *doc, const yaml_node_t *object, const char *key)
{
	if (!object || object->type != YAML_MAPPING_NODE)
		return NULL;
	for (const yaml_node_pair_t *p = object->data.mapping.pairs.start; p < object->data.mapping.pairs.top;
		p++)
		if (strcmp(text_of(yaml_document_get_node(doc, p->key)), key) == 0)
			return yaml_document_get_node(doc, p->value);
	return NULL;
}

/* The operation of a route: the method is written in lower case (OpenAPI 3.1 section 4.8.9). */
static yaml_node_t *operation_of(yaml_document_t *doc, const struct http_route *route)
{
	char method[16] = "";
	for (size_t i = 0; route->method[i]; i++) {
		assert_in_range(i, 0, sizeof(method) - 2);
		method[i] = (char)tolower((unsigned char)route->method[i]);
	}
	yaml_node_t *paths = member(doc, yaml_document_get_root_node(doc), "paths");
	return member(doc, member(doc, paths, route->pattern), method);
}

/* `security` lists alternatives: {} is nobody in particular, {certificate: [role]} is a role, {admin_socket: []} is no
 * role at all. */
static unsigned roles_of(yaml_document_t *doc, const yaml_node_t *security)
{
	unsigned roles = 0;
	for (const yaml_node_item_t *i = security->data.sequence.items.start;
		i < security->data.sequence.items.top; i++) {
		if (member(doc, yaml_document_get_node(doc, *i), "admin_socket"))
			continue;
		const yaml_node_t *names = member(doc, yaml_document_get_node(doc, *i), "certificate");
		enum role role = ROLE_NONE;
		if (names) {
			const char *name =
				text_of(yaml_document_get_node(doc, names->data.sequence.items.start[0]));
			assert_true(role_parse(str_of(name), &role));
		}
		roles |= ROLE_BIT(role);
	}
	return roles;
}

/* --- the tests --- */

static void check_route(const struct document *d, yaml_document_t *doc, const struct http_route *route)
{
	const yaml_node_t *operation = operation_of(doc, route);
	if (!operation)
		fail_msg("%s does not describe %s %s", d->name, route->method, route->pattern);
	assert_string_equal(text_of(member(doc, operation, "summary")), route->summary);
	assert_int_equal(member(doc, operation, "requestBody") != NULL, route->body_ceiling_bytes > 0);
	const yaml_node_t *security = member(doc, operation, "security");
	assert_non_null(security);
	unsigned roles = roles_of(doc, security);
	if (route->roles & ROLE_BIT(ROLE_NONE))
		assert_true(roles & ROLE_BIT(ROLE_NONE));
	else
		assert_int_equal(roles, route->roles);
}

static size_t operation_count(yaml_document_t *doc)
{
	size_t count = 0;
	const yaml_node_t *paths = member(doc, yaml_document_get_root_node(doc), "paths");
	for (const yaml_node_pair_t *p = paths->data.mapping.pairs.start; p < paths->data.mapping.pairs.top;
		p++) {
		const yaml_node_t *path = yaml_document_get_node(doc, p->value);
		count += (size_t)(path->data.mapping.pairs.top - path->data.mapping.pairs.start);
	}
	return count;
}

static void every_route_is_described_and_nothing_else(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(documents); i++) {
		yaml_document_t doc;
		size_t routes = 0;
		load(&documents[i], &doc);
		for (const struct http_route *const *table = documents[i].tables; *table; table++)
			for (const struct http_route *route = *table; route->method; route++, routes++)
				check_route(&documents[i], &doc, route);
		assert_int_equal(operation_count(&doc), routes);
		yaml_document_delete(&doc);
	}
}

static void problem_codes_are_those_of_the_table(void **state)
{
	static const char *const way[] = {"components", "schemas", "Problem", "properties", "code", "enum"};
	for (size_t i = 0; i < ARRAY_LEN(documents); i++) {
		yaml_document_t doc;
		load(&documents[i], &doc);
		yaml_node_t *codes = yaml_document_get_root_node(&doc);
		for (size_t step = 0; step < ARRAY_LEN(way); step++)
			codes = member(&doc, codes, way[step]);
		assert_non_null(codes);
		const yaml_node_item_t *first = codes->data.sequence.items.start;
		assert_int_equal(codes->data.sequence.items.top - first, PROBLEM_COUNT);
		for (enum http_problem p = 0; p < PROBLEM_COUNT; p++)
			assert_string_equal(
				text_of(yaml_document_get_node(&doc, first[p])), http_problem_code(p));
		yaml_document_delete(&doc);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_route_is_described_and_nothing_else),
		cmocka_unit_test(problem_codes_are_those_of_the_table),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
