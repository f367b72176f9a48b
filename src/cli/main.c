/* main.c - sealpost: one program, one subcommand per job. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "cli/cli.h"
#include "role/version.h"

const struct command commands[] = {
	{"up", "run", "every role in one process, on embedded engines", cmd_up},
	{"proxy", "run", "one role: take messages from clients", cmd_proxy},
	{"worker", "run", "one role: deliver what is queued", cmd_worker},
	{"server", "run", "one role: keep messages, be the certificate authority", cmd_server},
	{"init", "run", "create data directory, keys, CA and configuration; safe to repeat", cmd_init},
	{"cert", "operate", "issue, renew, list, verify, revoke certificates", cmd_cert},
	{"ca", "operate", "the certificate authority: show it, its root, its CRL", cmd_ca},
	{"client", "operate", "add, enrol, list, suspend, remove clients", cmd_client},
	{"messages", "operate", "list and read stored messages (audited)", cmd_messages},
	{"queue", "operate", "what waits and what failed; redrive, purge, pause, resume", cmd_queue},
	{"check", "operate", "one question to an installation, answered as a monitoring plugin does",
		cmd_check},
	{"audit", "operate", "who did what; whether the trail is whole", cmd_audit},
	{"config", "operate", "check, show and explain the configuration", cmd_config},
	{"send", "use", "send a message, or a file of messages, with a client certificate", cmd_send},
	{"tls", "use", "try mutual TLS with a server, or be one for clients to try", cmd_tls},
	{"enroll", "use", "on a device: fetch the first certificate with a token", cmd_enroll},
	{"renew", "use", "on a device: fetch the next certificate when it is due", cmd_renew},
	{"bench", "use", "load over real mutual TLS, with percentiles", cmd_bench},
	{"version", "use", "print the version", cmd_version},
	{"signer", NULL, NULL, cmd_signer}, /* started by the daemon itself */
	{0},
};

static void print_overview(FILE *out)
{
	static const struct {
		const char *group, *title;
	} groups[] = {{"run", "Run"}, {"operate", "Operate"}, {"use", "Use"}};
	fprintf(out, "Sealpost " SEALPOST_VERSION
		     " - messages from many devices, sealed at the edge, never lost\n\n"
		     "usage: sealpost COMMAND [options]\n");
	for (size_t g = 0; g < ARRAY_LEN(groups); g++) {
		fprintf(out, "\n%s\n", groups[g].title);
		for (const struct command *c = commands; c->name; c++)
			if (c->group && strcmp(c->group, groups[g].group) == 0)
				fprintf(out, "  %-10s %s\n", c->name, c->summary);
	}
	fprintf(out,
		"\n'sealpost COMMAND --help' explains one and shows an example. First steps: sealpost up\n");
}

static int run(int argc, char **argv)
{
	if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
		strcmp(argv[1], "help") == 0) {
		print_overview(stdout);
		return EXIT_DONE;
	}
	if (strcmp(argv[1], "--version") == 0)
		return cmd_version(1, argv + 1);
	for (const struct command *c = commands; c->name; c++)
		if (strcmp(c->name, argv[1]) == 0)
			return c->run(argc - 1, argv + 1);
	fprintf(stderr, "sealpost: there is no command '%s'\n\n", argv[1]);
	print_overview(stderr);
	return EXIT_USAGE;
}

int main(int argc, char **argv)
{
	json_init();
	int code = run(argc, argv);
	/* Whoever saves our output must hear that it is not whole. */
	bool written = fflush(stdout) == 0 && !ferror(stdout);
	if (!written)
		perror("sealpost: write to standard output");
	return written || code != EXIT_DONE ? code : EXIT_FAILED;
}
