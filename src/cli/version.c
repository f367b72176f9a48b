/* version.c - sealpost version. */
#include "role/version.h"

#include <stdio.h>

#include "cli/cli.h"

int cmd_version(int argc, char **argv)
{
	bool json = false;
	const struct arg options[] = {
		{"json", ARG_FLAG, &json, NULL, "as one JSON object"},
		{0},
	};
	struct args a = {.command = "version",
		.usage = "[--json]",
		.summary = "Prints the version of this program.",
		.example = "  sealpost version --json",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	printf(json ? "{\"version\":\"%s\"}\n" : "sealpost %s\n", SEALPOST_VERSION);
	return EXIT_DONE;
}
