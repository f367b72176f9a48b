/* address_test.c - which addresses are counted as one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/address.h"

static void addresses_and_their_groups(void **state)
{
	static const struct {
		const char *address, *group;
	} cases[] = {
		{"10.0.0.1", "10.0.0.1"},
		{"10.0.0.2", "10.0.0.2"},
		{"255.255.255.255", "255.255.255.255"},
		{"::ffff:10.0.0.1", "10.0.0.1"},
		{"::FFFF:0a00:0001", "10.0.0.1"},
		{"2001:db8:0:1::", "2001:db8:0:1::/64"},
		{"2001:db8:0:1::7", "2001:db8:0:1::/64"},
		{"2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::/64"},
		{"2001:0DB8:0000:0001:0000:0000:0000:0008", "2001:db8:0:1::/64"},
		{"2001:db8:0:2::7", "2001:db8:0:2::/64"},
		{"2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8:ffff:ffff::/64"},
		{"fe80::1", "fe80::/64"},
		{"::1", "::/64"},
		{"unix", "unix"},
		{"", ""},
		{"longer than any address there is, and than what there is room for",
			"longer than any address there is, and than what there is room f"},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char out[ADDRESS_GROUP_BYTES];
		struct str group = address_group(cases[i].address, out);
		assert_string_equal(out, cases[i].group);
		assert_true(str_eq(group, str_of(cases[i].group)));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(addresses_and_their_groups)};
	return cmocka_run_group_tests_name("address", tests, NULL, NULL);
}
