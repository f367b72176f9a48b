/* place_test.c - which URL a device is told, for every way to configure a listener. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <unistd.h>

#include "base/macros.h"
#include "server/place.h"

static void cases(void **state)
{
	(void)state;
	static const struct {
		struct place place;
		const char *bound, *wanted;
	} table[] = {
		{{"https://broker.example.com", "127.0.0.1:8000", NULL}, "127.0.0.1:8000",
			"https://broker.example.com"},
		{{NULL, "127.0.0.1:8000", "a.example"}, NULL, "https://127.0.0.1:8000"},
		{{NULL, "127.0.0.1:0", NULL}, "127.0.0.1:4711", "https://127.0.0.1:4711"},
		{{NULL, "127.0.0.1:0", NULL}, NULL, ""},
		{{NULL, NULL, "a.example"}, NULL, ""},
		{{NULL, NULL, "a.example"}, ":8001", "https://a.example:8001"},
		{{NULL, "0.0.0.0:8000", "a.example, b.example"}, "0.0.0.0:8000", "https://a.example:8000"},
		{{NULL, ":8000", "a.example"}, NULL, "https://a.example:8000"},
		{{NULL, "[::]:0", "2001:db8::1"}, "[::]:4711", "https://[2001:db8::1]:4711"},
		{{NULL, "[::1]:8000", NULL}, "[::1]:8000", "https://[::1]:8000"},
	};
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		char url[PLACE_URL_BYTES];
		place_url(&table[i].place, table[i].bound, url);
		assert_string_equal(url, table[i].wanted);
	}
}

static void without_names_it_is_the_host(void **state)
{
	(void)state;
	char url[PLACE_URL_BYTES], host[256] = "", wanted[PLACE_URL_BYTES];
	gethostname(host, sizeof(host) - 1);
	snprintf(wanted, sizeof(wanted), "https://%s:8000", host);
	place_url(&(struct place){NULL, "0.0.0.0:8000", NULL}, NULL, url);
	assert_string_equal(url, wanted);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cases),
		cmocka_unit_test(without_names_it_is_the_host),
	};
	return cmocka_run_group_tests_name("server place", tests, NULL, NULL);
}
