/* cert_list.c - sealpost cert list, expiring, show, revoke: what is registered, and who is out.
 *
 * A word on the command line may be a name or a serial. A registered name wins: names are what people give
 * and remember, and one that happens to look like a serial must not make its owner unreachable; --serial says
 * that a serial is meant. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/json.h"
#include "ca/ca.h"
#include "cli/admin.h"
#include "cli/cert.h"
#include "cli/term.h"

/* --- asking --- */

/* All certificates of a name; of every role where `role` is NULL. */
static int fetch_named(struct admin *admin, const char *name, const char *role, json_t **ret, struct err *e)
{
	AUTO(free_auto)
	char *path = admin_path("/admin/certificates", "name", name, "role", role, (char *)NULL);
	return admin_rows(admin, path, "certificates", ADMIN_ALL, ret, e);
}

static bool looks_like_serial(const char *word)
{
	uint8_t serial[IDENTITY_SERIAL_BYTES];
	size_t digits = strlen(word);
	return digits > 0 && digits <= 2 * sizeof(serial) && hex_decode(str_of(word), serial, digits / 2);
}

/* One certificate, with its PEM. */
static int fetch_cert(struct admin *admin, const char *serial, json_t **ret, struct err *e)
{
	char path[32 + 2 * IDENTITY_SERIAL_BYTES];
	snprintf(path, sizeof(path), "/admin/certificates/%s", serial);
	return admin_call(admin, "GET", path, NULL, ret, e);
}

/* The one issued last; NULL when the list is empty. */
static const json_t *newest_of(const json_t *certs)
{
	const json_t *newest = NULL, *cert;
	size_t i;
	/* RFC 3339 in UTC sorts as text. */
	json_array_foreach(certs, i, cert)
	{
		if (!newest || strcmp(json_text(cert, "issued_at"), json_text(newest, "issued_at")) >= 0)
			newest = cert;
	}
	return newest;
}

/* The certificate that a word means, with its PEM; *ret_by_name: the newest of that name. */
static int find_cert(struct admin *admin, const char *word, bool serial_only, json_t **ret, bool *ret_by_name,
	struct err *e)
{
	AUTO(json_auto) json_t *named = NULL;
	if (!serial_only && *word && fetch_named(admin, word, NULL, &named, e) < 0)
		return -1;
	const json_t *newest = newest_of(named);
	*ret_by_name = newest != NULL;
	if (newest)
		return fetch_cert(admin, json_text(newest, "serial"), ret, e);
	if (!looks_like_serial(word))
		return err_set(e, ERR_NOT_FOUND, "no certificate has the name '%.64s'", word);
	struct err why = ERR_INIT;
	if (fetch_cert(admin, word, ret, &why) >= 0)
		return 0;
	if (why.kind == ERR_NOT_FOUND)
		return err_set(e, ERR_NOT_FOUND, "no certificate has the %s '%.64s'",
			serial_only ? "serial" : "name or serial", word);
	*e = why;
	return -1;
}

/* --- cert list, cert expiring --- */

static const struct answer_column cert_columns[] = {
	{"NAME", "name"},
	{"DOMAIN", "domain"},
	{"ROLE", "role"},
	{"STATUS", "status", .good = "valid"},
	{"EXPIRES", "not_after", ANSWER_DAY},
	{"LAST SEEN", "last_seen_at", ANSWER_DAY},
	{"SERIAL", "serial"},
	{0},
};

static bool is_status(const char *word)
{
	static const char *const statuses[] = {"valid", "suspended", "expired", "revoked"};
	for (size_t i = 0; i < ARRAY_LEN(statuses); i++)
		if (strcmp(word, statuses[i]) == 0)
			return true;
	return false;
}

static void keep_status(json_t *certs, const char *status)
{
	for (size_t i = json_array_size(certs); i-- > 0;)
		if (strcmp(json_text(json_array_get(certs, i), "status"), status) != 0)
			json_array_remove(certs, i);
}

int cmd_cert_list(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	const char *name = NULL, *domain = NULL, *role = NULL, *status = NULL;
	bool json = false;
	const struct arg options[] = {
		ADMIN_OPTIONS(settings),
		{"name", ARG_TEXT, &name, "N", "only this name"},
		{"domain", ARG_TEXT, &domain, "D", "only this domain"},
		{"role", ARG_TEXT, &role, "R", "only this role"},
		{"status", ARG_TEXT, &status, "S", "only valid, suspended, expired or revoked ones"},
		{"json", ARG_FLAG, &json, NULL, "as a JSON array"},
		{0},
	};
	struct args a = {.command = "cert list",
		.usage = "[--name N] [--domain D] [--role R] [--status S] [--json]",
		.summary = "Lists all certificates, in the order of their last change.",
		.example = "  sealpost cert list --domain example.com",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	if (status && !is_status(status))
		return cli_usage_error(a.command, "--status takes valid, suspended, expired or revoked");
	struct err e = ERR_INIT;
	AUTO(free_auto)
	char *path =
		admin_path("/admin/certificates", "name", name, "domain", domain, "role", role, (char *)NULL);
	AUTO(json_auto) json_t *certs = NULL;
	if (admin_rows_once(&settings, path, "certificates", ADMIN_ALL, &certs, &e) < 0)
		return cli_fail(a.command, &e);
	if (status)
		keep_status(certs, status);
	return admin_show_rows(a.command, certs, json, cert_columns);
}

/* "30d", "12h", "90m", "45s", "2w"; at most a hundred years. */
static bool parse_span(struct str text, int64_t *ret_ms)
{
	static const struct {
		char unit;
		int64_t seconds;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 604800}};
	uint64_t number;
	if (text.n < 2 || !str_to_u64(str_mem(text.p, text.n - 1), &number))
		return false;
	for (size_t i = 0; i < ARRAY_LEN(units); i++)
		if (text.p[text.n - 1] == units[i].unit) {
			const uint64_t max = 36500ull * 86400;
			*ret_ms = (int64_t)number * units[i].seconds * 1000;
			return number <= max / (uint64_t)units[i].seconds;
		}
	return false;
}

static int by_end(const void *a, const void *b)
{
	return strcmp(json_text(*(const json_t *const *)a, "not_after"),
		json_text(*(const json_t *const *)b, "not_after"));
}

/* The soonest first. */
static int sort_by_end(const json_t *certs, json_t **ret, struct err *e)
{
	size_t count = json_array_size(certs), i;
	AUTO(free_auto) json_t **order = calloc(count ? count : 1, sizeof(json_t *));
	AUTO(json_auto) json_t *sorted = json_array();
	if (!order || !sorted)
		return err_oom(e);
	for (i = 0; i < count; i++)
		order[i] = json_array_get(certs, i);
	qsort(order, count, sizeof(json_t *), by_end);
	for (i = 0; i < count; i++)
		if (json_array_append(sorted, order[i]) < 0)
			return err_oom(e);
	*ret = TAKE(sorted);
	return 0;
}

int cmd_cert_expiring(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	const char *within = "30d";
	bool json = false;
	const struct arg options[] = {
		ADMIN_OPTIONS(settings),
		{"within", ARG_TEXT, &within, "SPAN", "such as 12h, 30d or 8w; default 30d"},
		{"json", ARG_FLAG, &json, NULL, "as a JSON array"},
		{0},
	};
	struct args a = {.command = "cert expiring",
		.usage = "[--within SPAN] [--json]",
		.summary =
			"Lists the certificates in use that end soon, the next one first. Renew them with 'cert renew'.",
		.example = "  sealpost cert expiring --within 60d",
		.options = options};
	int code;
	int64_t span_ms;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	if (!parse_span(str_of(within), &span_ms))
		return cli_usage_error(a.command, "--within takes a span such as 12h, 30d or 8w");
	char before[RFC3339_BYTES];
	wall_format((struct wall){clock_wall(&clock_system).ms + span_ms}, before);
	struct err e = ERR_INIT;
	AUTO(free_auto)
	char *path = admin_path("/admin/certificates/expiring", "before", before, (char *)NULL);
	AUTO(json_auto) json_t *certs = NULL, *sorted = NULL;
	if (admin_rows_once(&settings, path, "certificates", ADMIN_ALL, &certs, &e) < 0 ||
		sort_by_end(certs, &sorted, &e) < 0)
		return cli_fail(a.command, &e);
	return admin_show_rows(a.command, sorted, json, cert_columns);
}

/* --- cert show --- */

/* The certificate of the list whose `member` is that serial; NULL: none. */
static json_t *with_serial(const json_t *certs, const char *member, const char *serial)
{
	size_t i;
	json_t *cert;
	json_array_foreach(certs, i, cert)
	{
		if (*serial && strcmp(json_text(cert, member), serial) == 0)
			return cert;
	}
	return NULL;
}

/* What it renewed and what renewed it, the first one first: serials with their status. */
static json_t *lineage_of(const json_t *certs, const json_t *cert)
{
	json_t *lineage = json_array();
	const json_t *at = cert, *before;
	while (json_array_size(lineage) < json_array_size(certs) &&
		(before = with_serial(certs, "serial", json_text(at, "renews"))) != NULL) {
		json_array_insert_new(lineage, 0,
			json_pack("{s:s, s:s}", "serial", json_text(before, "serial"), "status",
				json_text(before, "status")));
		at = before;
	}
	for (at = cert; at && json_array_size(lineage) <= json_array_size(certs);
		at = with_serial(certs, "renews", json_text(at, "serial")))
		json_array_append_new(lineage, json_pack("{s:s, s:s}", "serial", json_text(at, "serial"),
						       "status", json_text(at, "status")));
	return lineage;
}

/* Adds the lineage to a certificate that is to be shown. */
static int add_lineage(struct admin *admin, json_t *cert, struct err *e)
{
	AUTO(json_auto) json_t *named = NULL;
	if (fetch_named(admin, json_text(cert, "name"), json_text(cert, "role"), &named, e) < 0)
		return -1;
	json_object_set_new(cert, "lineage", lineage_of(named, cert));
	return 0;
}

static void print_lineage(const json_t *cert)
{
	const json_t *lineage = json_object_get(cert, "lineage"), *one;
	size_t i;
	if (json_array_size(lineage) < 2)
		return;
	json_array_foreach(lineage, i, one)
	{
		bool this_one = strcmp(json_text(one, "serial"), json_text(cert, "serial")) == 0;
		printf("%-13s  %s %s%s\n", i == 0 ? "lineage" : "", json_text(one, "serial"),
			json_text(one, "status"), this_one ? " (this one)" : "");
	}
}

static void print_cert(const json_t *cert)
{
	static const char *const keys[] = {"name", "domain", "role", "status", "serial", "issued_at",
		"not_before", "not_after", "last_seen_at", "revoked_at", "revoke_reason", NULL};
	for (const char *const *key = keys; *key; key++)
		if (*json_text(cert, *key))
			printf("%-13s  %s\n", *key, json_text(cert, *key));
	print_lineage(cert);
	printf("\n%s", json_text(cert, "certificate_pem"));
}

int cmd_cert_show(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	bool json = false, serial_only = false, by_name;
	const struct arg options[] = {ADMIN_OPTIONS(settings),
		{"serial", ARG_FLAG, &serial_only, NULL, "the word given is a serial, not a name"},
		{"json", ARG_FLAG, &json, NULL, "as JSON"}, {0}};
	struct args a = {.command = "cert show",
		.usage = "NAME | SERIAL [--json]",
		.summary =
			"Shows one certificate, with its PEM: the newest of a name, or the one with a serial.",
		.example = "  sealpost cert show client_001",
		.options = options,
		.rest_min = 1,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	struct admin *admin = NULL;
	AUTO(json_auto) json_t *answer = NULL;
	int rc = admin_open(&settings, &admin, &e);
	if (rc >= 0)
		rc = find_cert(admin, a.rest[0], serial_only, &answer, &by_name, &e);
	if (rc >= 0)
		rc = add_lineage(admin, answer, &e);
	admin_close(admin);
	settings_clear(&settings);
	if (rc < 0)
		return cli_fail(a.command, &e);
	if (json)
		print_json(answer);
	else
		print_cert(answer);
	return EXIT_DONE;
}

/* --- cert revoke --- */

static int revoke_word(
	struct admin *admin, const char *word, bool serial_only, const char *reason, struct err *e)
{
	AUTO(json_auto) json_t *cert = NULL;
	AUTO(json_auto) json_t *answer = NULL;
	bool by_name;
	if (find_cert(admin, word, serial_only, &cert, &by_name, e) < 0)
		return -1;
	const char *key = by_name ? "name" : "serial";
	AUTO(json_auto) json_t *body = json_pack("{s:s, s:s}", key, json_text(cert, key), "reason", reason);
	if (!body)
		return err_set(e, ERR_REJECT, "a reason must be valid UTF-8");
	if (admin_call(admin, "POST", "/admin/certificates/revoke", body, &answer, e) < 0)
		return -1;
	int64_t count = json_number(answer, "revoked");
	if (count == 0)
		printf("%s was revoked before\n", word);
	else
		printf("revoked %lld certificate(s) of %s\n", (long long)count, json_text(cert, "name"));
	return 0;
}

int cmd_cert_revoke(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	const char *reason = "unspecified";
	bool serial_only = false;
	const struct arg options[] = {
		ADMIN_OPTIONS(settings),
		{"reason", ARG_TEXT, &reason, "R",
			"RFC 5280 name: keyCompromise, superseded, cessationOfOperation, …"},
		{"serial", ARG_FLAG, &serial_only, NULL, "the word given is a serial, not a name"},
		{0},
	};
	struct args a = {.command = "cert revoke",
		.usage = "NAME | SERIAL [--reason R]",
		.summary =
			"Revokes every certificate of a name, or the one with a serial. Open connections are cut off too.",
		.example = "  sealpost cert revoke client_001 --reason keyCompromise",
		.options = options,
		.rest_min = 1,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	struct admin *admin = NULL;
	int rc = admin_open(&settings, &admin, &e);
	if (rc >= 0)
		rc = revoke_word(admin, a.rest[0], serial_only, reason, &e);
	admin_close(admin);
	settings_clear(&settings);
	return rc < 0 ? cli_fail(a.command, &e) : EXIT_DONE;
}
