/* ca.c - sealpost ca: the certificate authority. */
#include <stdio.h>

#include "base/auto.h"
#include "base/json.h"
#include "cli/admin.h"

static int cmd_show(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	bool json = false;
	const struct arg options[] = {
		ADMIN_OPTIONS(settings), {"json", ARG_FLAG, &json, NULL, "as JSON"}, {0}};
	struct args a = {.command = "ca show",
		.usage = "[--json]",
		.summary = "Shows the issuing CA, how long it and its root last, and their certificates.",
		.example = "  sealpost ca show",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	struct admin *admin = NULL;
	AUTO(json_auto) json_t *answer = NULL;
	int rc = admin_open(&settings, &admin, &e);
	if (rc >= 0)
		rc = admin_call(admin, "GET", "/admin/ca", NULL, &answer, &e);
	admin_close(admin);
	settings_clear(&settings);
	if (rc < 0)
		return cli_fail("ca show", &e);
	if (json) {
		print_json(answer);
		return EXIT_DONE;
	}
	printf("issuing CA  key id %s, until %s\n", json_text(answer, "issuing_key_id"),
		json_text(answer, "issuing_not_after"));
	printf("root CA     until %s\n\n%s", json_text(answer, "root_not_after"),
		json_text(answer, "ca_pem"));
	return EXIT_DONE;
}

int cmd_ca(int argc, char **argv)
{
	static const struct command table[] = {
		{"show", NULL, "show the certificate authority", cmd_show},
		{0},
	};
	return cli_dispatch("ca", table, argc, argv);
}
