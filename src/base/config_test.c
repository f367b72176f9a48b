/* config_test.c - every source with good and bad input; the errors are pinned word for word, as they are what
 * an operator gets to see. */
#include "base/config.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/auto.h"
#include "base/config_table.h"
#include "base/file.h"
#include "base/scratch_test.h"

static const char file_name[] = "sealpost.yaml";

/* Loads from what is not NULL. */
static int load(const char *file, const char *env, const char *set, struct config **ret, struct err *e)
{
	const char *sets[] = {set};
	char *variable = env ? strdup(env) : NULL, *environment[] = {variable, NULL};
	if (file)
		assert_int_equal(file_replace(file_name, 0600, str_of(file), NULL), 0);
	struct config_source source = {
		.file = file ? file_name : NULL, .sets = sets, .set_count = set ? 1 : 0, .env = environment};
	int rc = config_load(&source, ret, e);
	free(variable);
	return rc;
}

static struct config *loaded(const char *file, const char *env, const char *set)
{
	struct err e = ERR_INIT;
	struct config *c = NULL;
	if (load(file, env, set, &c, &e) < 0)
		fail_msg("%s", e.text);
	return c;
}

static char *shown(const struct config *c, int (*show)(const struct config *, struct buf *, struct err *))
{
	struct buf b;
	buf_init(&b, 1 << 20);
	assert_int_equal(show(c, &b, NULL), 0);
	buf_add_char(&b, 0);
	return b.p;
}

/* That every default parses is checked by the load itself. */
static void defaults(void **state)
{
	struct config *c = loaded(NULL, NULL, NULL);
	assert_null(c->data);
	assert_string_equal(c->ingest_listen, "127.0.0.1:8001");
	assert_int_equal(c->log_level, 2);
	assert_true(c->log_stderr);
	assert_int_equal(c->retry_interval, 30000);
	assert_int_equal(c->idempotency_keep, 86400000);
	assert_int_equal(c->disk_free_min, 64 << 20);
	assert_int_equal(c->max_attempts, 10000);
	assert_int_equal(c->domain_count, 0);
	assert_null(config_domain(c, STR("any")));
	config_free(c);
	config_free(NULL);
}

static void file_sets_values(void **state)
{
	struct config *c = loaded("# a comment\n"
				  "---\n"
				  "data: /srv/seal post\n"
				  "'log_level': debug\n"
				  "log_stderr: \"false\"\n"
				  "log_file: ~\n"
				  "tls_names: >-\n"
				  "  a.example,\n"
				  "  b.example\n"
				  "retry_interval: 250ms # soon\n"
				  "disk_free_min: 1TiB\n"
				  "ingest_listen: '[::1]:0'\n"
				  "server_listen: :8000\n"
				  "...\n",
		NULL, NULL);
	assert_string_equal(c->data, "/srv/seal post");
	assert_int_equal(c->log_level, 3);
	assert_false(c->log_stderr);
	assert_null(c->log_file);
	assert_string_equal(c->tls_names, "a.example, b.example");
	assert_int_equal(c->retry_interval, 250);
	assert_int_equal(c->disk_free_min, 1LL << 40);
	assert_string_equal(c->ingest_listen, "[::1]:0");
	assert_string_equal(c->server_listen, ":8000");
	config_free(c);
}

static void empty_files_are_fine(void **state)
{
	static const char *const files[] = {
		"", "\n", "# only a comment\n", "---\n", "~\n", "{}\n", "domains:\n", "domains: {}\n"};
	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		config_free(loaded(files[i], NULL, NULL));
}

static void domains(void **state)
{
	struct config *c = loaded("domains:\n"
				  "  zebra.example:\n"
				  "    rate: 5\n"
				  "    display_name: Zebra & Söhne\n"
				  "  plain:\n"
				  "  Alpha_1: {retention: 90d, retry_interval: 1m}\n"
				  "cert_days: 30\n",
		NULL, NULL);
	assert_int_equal(c->domain_count, 3);
	assert_int_equal(c->cert_days, 30);
	const struct config_domain *d = config_domain(c, STR("zebra.example"));
	assert_non_null(d);
	assert_int_equal(d->rate, 5);
	assert_int_equal(d->retention, 0);
	assert_string_equal(d->display_name, "Zebra & S\xc3\xb6hne");
	assert_non_null(config_domain(c, STR("plain")));
	d = config_domain(c, STR("Alpha_1"));
	assert_non_null(d);
	assert_int_equal(d->retention, 90LL * 86400000);
	assert_int_equal(d->retry_interval, 60000);
	assert_null(config_domain(c, STR("alpha_1")));
	assert_null(config_domain(c, STR("Alpha")));
	assert_null(config_domain(c, STR("")));
	config_free(c);
}

static void refuses_files(void **state)
{
	static const struct {
		const char *file, *error;
	} rows[] = {
		{"retry_intervall: 5s\n",
			"sealpost.yaml:1: unknown option 'retry_intervall'; did you mean 'retry_interval'?"},
		{"\n\nlog_levle: info\n",
			"sealpost.yaml:3: unknown option 'log_levle'; did you mean 'log_level'?"},
		{"frobnicate: 1\n", "sealpost.yaml:1: unknown option 'frobnicate'"},
		{"? \"\\e[31m\"\n: 1\n", "sealpost.yaml:1: unknown option '?[31m'"},
		{"a234567890123456789012345678901234567890123456789012345678901234567890: 1\n",
			"sealpost.yaml:1: unknown option "
			"'a23456789012345678901234567890123456789012345678901234567890...'"},
		{"retry_interval: 5x\n",
			"sealpost.yaml:1: retry_interval: '5x' is not a duration such as 30s, 5m or 2h "
			"(allowed: 10ms to 24h)"},
		{"retry_interval: 30\n",
			"sealpost.yaml:1: retry_interval: '30' is not a duration such as 30s, 5m or 2h "
			"(allowed: 10ms to 24h)"},
		{"retry_interval: 9ms\n",
			"sealpost.yaml:1: retry_interval: '9ms' is too small (allowed: 10ms to 24h)"},
		{"retry_interval: 25h\n",
			"sealpost.yaml:1: retry_interval: '25h' is too large (allowed: 10ms to 24h)"},
		{"retry_interval: 999999999999999999d\n",
			"sealpost.yaml:1: retry_interval: '999999999999999999d' is not a duration such as "
			"30s, 5m or 2h (allowed: 10ms to 24h)"},
		{"retry_interval:\n",
			"sealpost.yaml:1: retry_interval: '' is not a duration such as 30s, 5m or 2h "
			"(allowed: 10ms to 24h)"},
		{"disk_free_min: 64MB\n",
			"sealpost.yaml:1: disk_free_min: '64MB' is not a size such as 64KiB, 4MiB or 1GiB "
			"(allowed: 1MiB to 1TiB)"},
		{"max_attempts: -1\n",
			"sealpost.yaml:1: max_attempts: '-1' is not a whole number (allowed: 1 to 1000000)"},
		{"max_attempts: 0x10\n",
			"sealpost.yaml:1: max_attempts: '0x10' is not a whole number (allowed: 1 to 1000000)"},
		{"log_stderr: yes\n", "sealpost.yaml:1: log_stderr: 'yes' is not true or false"},
		{"log_level: loud\n",
			"sealpost.yaml:1: log_level: 'loud' is not known (allowed: error, warn, "
			"info, debug)"},
		{"log_level: \"inf\\0\"\n",
			"sealpost.yaml:1: log_level: 'inf?' is not known (allowed: error, warn, info, debug)"},
		{"log_file: \"a\\nb\"\n", "sealpost.yaml:1: log_file: 'a?b' is not text on one line"},
		{"log_file: \"a\\0b\"\n", "sealpost.yaml:1: log_file: 'a?b' is not text on one line"},
		{"data: [a, b]\n", "sealpost.yaml:1: data: takes one value, not a list or a mapping"},
		{"data:\n  a: b\n", "sealpost.yaml:2: data: takes one value, not a list or a mapping"},
		{"cert_days: 1\nlog_level: info\ncert_days: 2\n",
			"sealpost.yaml:3: cert_days is given twice, first on line 1"},
		{"cert_days: 900\n", "sealpost.yaml:1: cert_days is 900, but cert_days_max is 825"},
		{"\ncert_days_max: 100\n", "sealpost.yaml:2: cert_days is 365, but cert_days_max is 100"},
		{"retry_policy: exponential\nretry_interval: 2h\n",
			"sealpost.yaml:2: retry_interval is 2h, but retry_interval_max is 1h"},
		/* domains */
		{"domains: 5\n", "sealpost.yaml:1: domains: expected the names of domains, indented"},
		{"domains:\n- a\n", "sealpost.yaml:2: domains: expected the names of domains, indented"},
		{"domains:\n  a: 5\n", "sealpost.yaml:2: expected the options of the domain, indented"},
		{"domains:\n  a:\n    rat: 5\n",
			"sealpost.yaml:3: unknown option 'rat'; did you mean 'rate'?"},
		{"domains:\n  a:\n    rate: x\n", "sealpost.yaml:3: rate: 'x' is not a whole number "
						  "(allowed: 0 to 10000000)"},
		{"domains:\n  a:\n    rate: 1\n    rate: 2\n",
			"sealpost.yaml:4: rate is given twice, first on line 3"},
		{"domains:\n  b:\n  a:\n  b:\n",
			"sealpost.yaml:4: domain 'b' is given twice, first on line 2"},
		{"domains:\n  a:\ndomains:\n  b:\n", "sealpost.yaml:3: domains is given twice"},
		{"domains:\n  .a:\n", "sealpost.yaml:2: a domain's name has letters, digits and, after the "
				      "first, '.', '_' and '-'; at most 64 of them"},
		/* more of YAML than we want */
		{"data: &x a\n", "sealpost.yaml:1: anchors, aliases and tags are not supported"},
		{"data: a\nlog_file: *x\n", "sealpost.yaml:2: anchors, aliases and tags are not supported"},
		{"data: !!str a\n", "sealpost.yaml:1: anchors, aliases and tags are not supported"},
		{"&x data: a\n", "sealpost.yaml:1: anchors, aliases and tags are not supported"},
		{"domains: &x {}\n", "sealpost.yaml:1: anchors, aliases and tags are not supported"},
		{"- a\n", "sealpost.yaml:1: expected lines of the form 'option: value'"},
		{"text\n", "sealpost.yaml:1: expected lines of the form 'option: value'"},
		{"? [a]\n: b\n", "sealpost.yaml:1: expected the name of an option"},
		{"data: a\n---\ndata: b\n", "sealpost.yaml:2: a second document starts here"},
		/* not YAML */
		{"data: 'open\n", "sealpost.yaml:2: found unexpected end of stream"},
		{"data: a\n\tlog_file: b\n",
			"sealpost.yaml:2: found a tab character that violates indentation"},
		{"data: \xff\n", "sealpost.yaml: byte 6: invalid leading UTF-8 octet"},
		{"data: a: b\n", "sealpost.yaml:1: mapping values are not allowed in this context"},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct err e = ERR_INIT;
		struct config *c = NULL;
		assert_int_equal(load(rows[i].file, NULL, NULL, &c, &e), -1);
		assert_null(c);
		assert_int_equal(e.kind, ERR_REJECT);
		assert_string_equal(e.text, rows[i].error);
	}
}

static void missing_file(void **state)
{
	struct err e = ERR_INIT;
	struct config *c;
	struct config_source source = {.file = "none.yaml"};
	assert_int_equal(config_load(&source, &c, &e), -1);
	assert_int_equal(e.kind, ERR_NOT_FOUND);
	assert_string_equal(e.text, "open 'none.yaml': No such file or directory");
}

static void refuses_variables_and_sets(void **state)
{
	static const struct {
		const char *env, *set, *error;
	} rows[] = {
		{"SEALPOST_RETRY_INTERVAL=5x", NULL,
			"environment SEALPOST_RETRY_INTERVAL: '5x' is not a duration such as 30s, 5m or 2h "
			"(allowed: 10ms to 24h)"},
		{"SEALPOST_RETRY_INTERVALL=5s", NULL,
			"environment SEALPOST_RETRY_INTERVALL: unknown option 'retry_intervall'; did you mean "
			"'retry_interval'?"},
		{"SEALPOST_data=x", NULL,
			"environment SEALPOST_data: expected SEALPOST_ and the name of an "
			"option, in capitals"},
		{"SEALPOST_=x", NULL, "environment SEALPOST_: unknown option ''"},
		{"SEALPOST_RETRY_INTERVAL_MAX_FILE=x", NULL,
			"environment SEALPOST_RETRY_INTERVAL_MAX_FILE: unknown option "
			"'retry_interval_max_file'; did you mean 'retry_interval_max'?"},
		{"SEALPOST_DOMAINS=x", NULL, "environment SEALPOST_DOMAINS: unknown option 'domains'"},
		{"SEALPOST_CERT_DAYS=900", NULL,
			"environment SEALPOST_CERT_DAYS: cert_days is 900, but cert_days_max is 825"},
		{NULL, "retry_interval=5x",
			"--set retry_interval: '5x' is not a duration such as 30s, 5m or 2h "
			"(allowed: 10ms to 24h)"},
		{NULL, "retry_list=",
			"--set retry_list: '' is not 1 to 16 durations such as 10s,1m,1h, each from 10ms to 7d"},
		{NULL, "retry_list=10s,",
			"--set retry_list: '10s,' is not 1 to 16 durations such as 10s,1m,1h, each from 10ms to 7d"},
		{NULL, "retry_list=10s,,1m",
			"--set retry_list: '10s,,1m' is not 1 to 16 durations such as 10s,1m,1h, each from 10ms to 7d"},
		{NULL, "retry_list=9ms",
			"--set retry_list: '9ms' is not 1 to 16 durations such as 10s,1m,1h, each from 10ms to 7d"},
		{NULL, "retry_list=10s,8d",
			"--set retry_list: '10s,8d' is not 1 to 16 durations such as 10s,1m,1h, each from 10ms to 7d"},
		{NULL, "retry_list=10s;1m",
			"--set retry_list: '10s;1m' is not 1 to 16 durations such as 10s,1m,1h, each from 10ms to 7d"},
		{NULL, "retry_list=1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s",
			"--set retry_list: '1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s' is not 1 to 16 durations such as 10s,1m,1h, each from 10ms to 7d"},
		{NULL, "breaker_pause=11s",
			"--set breaker_pause: breaker_pause is 11s, but breaker_pause_max is 10s"},
		{NULL, "retry_intervall=5s",
			"--set: unknown option 'retry_intervall'; did you mean 'retry_interval'?"},
		{NULL, "cert_days", "--set cert_days: expected KEY=VALUE"},
		{NULL, "", "--set : expected KEY=VALUE"},
		{NULL, "=5", "--set: unknown option ''"},
		{NULL, "cert_days=900", "--set cert_days: cert_days is 900, but cert_days_max is 825"},
		{NULL, "ingest_listen=localhost:80",
			"--set ingest_listen: 'localhost:80' is not an address such as 127.0.0.1:8001, "
			"[::1]:8001 or :8001"},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct err e = ERR_INIT;
		struct config *c = NULL;
		assert_int_equal(load(NULL, rows[i].env, rows[i].set, &c, &e), -1);
		assert_int_equal(e.kind, ERR_REJECT);
		assert_string_equal(e.text, rows[i].error);
	}
}

static void refuses_a_variable_given_twice(void **state)
{
	char first[] = "SEALPOST_CERT_DAYS=1", second[] = "SEALPOST_CERT_DAYS=2";
	char *env[] = {first, second, NULL};
	struct config_source source = {.env = env};
	struct config *c;
	struct err e = ERR_INIT;
	assert_int_equal(config_load(&source, &c, &e), -1);
	assert_string_equal(e.text, "environment SEALPOST_CERT_DAYS: another variable gives the same option");
}

static void addresses(void **state)
{
	static const struct {
		const char *text;
		bool good;
	} rows[] = {
		{"127.0.0.1:8001", true},
		{"0.0.0.0:0", true},
		{":65535", true},
		{"[::]:1", true},
		{"[2001:db8::1]:443", true},
		{"[::ffff:192.0.2.1]:443", true},
		{"", false},
		{":", false},
		{"8001", false},
		{"127.0.0.1", false},
		{"127.0.0.1:", false},
		{"127.0.0.1:65536", false},
		{"127.0.0.1:000001", false},
		{"127.0.0.1:-1", false},
		{"127.0.0.1:80 ", false},
		{"127.0.0.01:80", false},
		{"127.1:80", false},
		{"::1:80", false},
		{"[]:80", false},
		{"[::1]", false},
		{"[::1]80", false},
		{"[127.0.0.1]:80", false},
		{"[fe80::1%eth0]:80", false},
		{"[0000:0000:0000:0000:0000:ffff:255.255.255.255xxxx]:80", false},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char set[100];
		snprintf(set, sizeof(set), "ingest_listen=%s", rows[i].text);
		struct config *c = NULL;
		if ((load(NULL, NULL, set, &c, NULL) == 0) != rows[i].good)
			fail_msg("%s should be %s", rows[i].text, rows[i].good ? "taken" : "refused");
		config_free(c);
	}
}

static void later_sources_win(void **state)
{
	static const char file[] = "cert_days: 1\nretry_interval: 1s\nlog_file: x\n";
	struct config *c = loaded(file, "SEALPOST_CERT_DAYS=2", NULL);
	assert_int_equal(c->cert_days, 2);
	assert_int_equal(c->retry_interval, 1000);
	config_free(c);
	c = loaded(file, "SEALPOST_CERT_DAYS=2", "cert_days=3");
	assert_int_equal(c->cert_days, 3);
	config_free(c);
	c = loaded(file, "SEALPOST_LOG_FILE=", NULL);
	assert_null(c->log_file);
	config_free(c);
	c = loaded(file, "SEALPOST=not ours", "data=a=b");
	assert_string_equal(c->data, "a=b");
	config_free(c);
}

static void shows_origins(void **state)
{
	struct config *c = loaded("data: \"a \\\" b\"\nretry_interval: 90s\ndomains:\n  d:\n    rate: 7\n",
		"SEALPOST_LOG_LEVEL=debug", "disk_free_min=3145728");
	AUTO(free_auto) char *text = shown(c, config_show);
	static const char *const lines[] = {
		"data: \"a \\\" b\"  # sealpost.yaml:1\n",
		"\nretry_interval: 90s  # sealpost.yaml:2\n",
		"\nlog_level: debug  # environment SEALPOST_LOG_LEVEL\n",
		"\ndisk_free_min: 3MiB  # --set disk_free_min\n",
		"\nmessage_lifetime: 0s  # default\n",
		"\nidempotency_keep: 1d  # default\n",
		"\nlog_file: \"\"  # default\n",
		"\ningest_listen: \"127.0.0.1:8001\"  # default\n",
		"\nmetrics_public: false  # default\n",
		"\ndomains:\n  d:  # sealpost.yaml:4\n    display_name: \"\"\n    rate: 7\n",
	};
	for (size_t i = 0; i < ARRAY_LEN(lines); i++)
		if (!strstr(text, lines[i]))
			fail_msg("missing: %s\nin:\n%s", lines[i], text);
	config_free(c);
}

static void shown_configuration_loads_again(void **state)
{
	struct config *c = loaded("data: \"a \\\" b: #\xc3\xa9\"\nretry_interval: 90s\n"
				  "ingest_listen: \"[::1]:0\"\ndisk_free_min: 1048577\n"
				  "domains:\n  d:\n    rate: 7\n  e:\n    retention: 36h\n",
		NULL, NULL);
	AUTO(free_auto) char *json = shown(c, config_show_json);
	AUTO(free_auto) char *yaml = shown(c, config_show);
	struct config *again = loaded(yaml, NULL, NULL);
	AUTO(free_auto) char *json_again = shown(again, config_show_json);
	assert_string_equal(json, json_again);
	config_free(again);
	config_free(c);
}

static void shows_json(void **state)
{
	struct config *c = loaded("domains:\n  d:\n    rate: 7\n", NULL, "retry_interval=90s");
	AUTO(free_auto) char *text = shown(c, config_show_json);
	json_t *j = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(j);
	assert_int_equal(json_object_size(j), OPTION_COUNT + 1);
	assert_string_equal(json_string_value(json_object_get(j, "retry_interval")), "90s");
	assert_int_equal(json_integer_value(json_object_get(j, "max_attempts")), 10000);
	assert_true(json_is_true(json_object_get(j, "log_stderr")));
	assert_string_equal(json_string_value(json_object_get(j, "log_file")), "");
	json_t *d = json_object_get(json_object_get(j, "domains"), "d");
	assert_int_equal(json_integer_value(json_object_get(d, "rate")), 7);
	json_decref(j);

	struct buf small;
	buf_init(&small, 100);
	struct err e = ERR_INIT;
	assert_int_equal(config_show_json(c, &small, &e), -1);
	assert_int_equal(e.kind, ERR_REJECT);
	buf_clear(&small);
	config_free(c);
}

static void tells_what_needs_a_restart(void **state)
{
	struct config *before = loaded(NULL, NULL, NULL);
	struct config *now =
		loaded("data: x\nlog_level: debug\nio_threads: 3\nmax_attempts: 5\n", NULL, NULL);
	struct buf names;
	buf_init(&names, 1000);
	assert_int_equal(config_changed_restart(before, before, &names), 0);
	assert_int_equal(names.n, 0);
	assert_int_equal(config_changed_restart(before, now, &names), 2);
	assert_true(str_eq(buf_str(&names), STR("data, io_threads")));
	buf_clear(&names);
	config_free(before);
	config_free(now);
}

/* Every row is explained, and the pages hold together as tables. */
static void explains_every_option(void **state)
{
	struct buf page, help;
	buf_init(&page, 1 << 20);
	buf_init(&help, 1 << 20);
	config_reference(&page);
	assert_int_equal(config_option_help(&help), 0);
	buf_add_char(&page, 0);
	buf_add_char(&help, 0);
	for (size_t i = 0; i < config_table.count; i++) {
		char row[100];
		snprintf(row, sizeof(row), "\n| `%s` | ", config_table.options[i].name);
		assert_non_null(strstr(page.p, row));
		snprintf(row, sizeof(row), "  %s ", config_table.options[i].name);
		assert_non_null(strstr(help.p, row));
	}
	assert_non_null(strstr(page.p, "\n| `retry_interval` | duration | `30s` | 10ms to 24h | by SIGHUP | "
				       "wait before a message is tried again"));
	assert_non_null(strstr(page.p, "\n| `log_level` | choice | `info` | error, warn, info, debug | "));
	assert_non_null(strstr(page.p, "\n| `data` | text |  |  | needs a restart | "));
	assert_non_null(strstr(page.p, "\n| `rate` | number | `0` | 0 to 10000000 | messages a second"));
	assert_non_null(strstr(help.p, " how much is logged (error, warn, info, debug)\n"));
	buf_clear(&page);
	buf_clear(&help);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_enter, scratch_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(defaults),
		TEST(file_sets_values),
		TEST(empty_files_are_fine),
		TEST(domains),
		TEST(refuses_files),
		TEST(missing_file),
		TEST(refuses_variables_and_sets),
		TEST(refuses_a_variable_given_twice),
		TEST(addresses),
		TEST(later_sources_win),
		TEST(shows_origins),
		TEST(shown_configuration_loads_again),
		TEST(shows_json),
		TEST(tells_what_needs_a_restart),
		TEST(explains_every_option),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
