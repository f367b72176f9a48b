/* domains_test.c - which domains a client may belong to, and how long their messages are kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "server/domains.h"

static char display_name[] = "Example", a_name[] = "a.example", b_name[] = "b.example";

static struct config_domain listed[] = {
	{.name = a_name, .retention = 5000, .display_name = display_name},
	{.name = b_name},
};

static void any_domain_is_good_while_none_is_listed(void **state)
{
	(void)state;
	struct config none = {.domain_count = 0};
	struct domains *d;
	struct err e;
	assert_int_equal(domains_new(&none, &d, &e), 0);
	assert_int_equal(domains_check(d, STR("x.example"), &e), 0);
	assert_int_equal(domains_shortest_retention_ms(d), 0);
	domains_free(d);
}

static void an_unknown_domain_is_refused_with_the_known_ones(void **state)
{
	(void)state;
	struct config some = {.domains = listed, .domain_count = ARRAY_LEN(listed)};
	struct domains *d;
	struct err e = ERR_INIT;
	assert_int_equal(domains_new(&some, &d, &e), 0);
	assert_int_equal(domains_check(d, STR("b.example"), &e), 0);
	assert_int_equal(domains_check(d, STR("c.example"), &e), -1);
	assert_int_equal(e.kind, ERR_REJECT);
	assert_non_null(strstr(e.text, "'c.example'"));
	assert_non_null(strstr(e.text, "a.example, b.example"));
	domains_free(d);
}

static void what_is_not_listed_is_as_the_option_says(void **state)
{
	(void)state;
	static const struct {
		int unlisted;
		size_t listed;
		int of_listed, of_other;
	} cases[] = {{0, 0, 0, 0}, {0, 2, 0, -1}, {1, 0, 0, 0}, {1, 2, 0, 0}, {2, 0, -1, -1}, {2, 2, 0, -1}};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct config c = {.domains = listed,
			.domain_count = cases[i].listed,
			.unlisted_domains = cases[i].unlisted};
		struct domains *d;
		struct err e = ERR_INIT;
		assert_int_equal(domains_new(&c, &d, &e), 0);
		assert_int_equal(domains_check(d, STR("a.example"), &e), cases[i].of_listed);
		assert_int_equal(domains_check(d, STR("x.example"), &e), cases[i].of_other);
		assert_int_equal(domains_listed(d, STR("a.example")), cases[i].listed > 0);
		assert_false(domains_listed(d, STR("x.example")));
		domains_free(d);
	}
}

static void a_domain_keeps_what_it_does_not_say_from_the_general_options(void **state)
{
	(void)state;
	struct config some = {.domains = listed, .domain_count = ARRAY_LEN(listed), .retention = 9000};
	struct domains *d;
	struct err e;
	char name[DOMAINS_DISPLAY_BYTES];
	assert_int_equal(domains_new(&some, &d, &e), 0);
	assert_int_equal(domains_retention_ms(d, STR("a.example")), 5000);
	assert_int_equal(domains_retention_ms(d, STR("b.example")), 9000);
	assert_int_equal(domains_retention_ms(d, STR("c.example")), 9000);
	assert_int_equal(domains_shortest_retention_ms(d), 5000);
	assert_true(domains_display_name(d, STR("a.example"), name));
	assert_string_equal(name, "Example");
	assert_false(domains_display_name(d, STR("b.example"), name));
	some.retention = 0;
	some.domain_count = 0;
	assert_int_equal(domains_reload(d, &some, &e), 0);
	assert_int_equal(domains_retention_ms(d, STR("a.example")), 0);
	domains_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_domain_is_good_while_none_is_listed),
		cmocka_unit_test(an_unknown_domain_is_refused_with_the_known_ones),
		cmocka_unit_test(what_is_not_listed_is_as_the_option_says),
		cmocka_unit_test(a_domain_keeps_what_it_does_not_say_from_the_general_options),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
