/* cli.c - see cli.h. Options may stand anywhere; "--" ends them; "--name=value" and "--name value" are the
 * same. */
#include "cli/cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

static const enum exit_code exit_codes[ERR_KINDS] = {
	[ERR_NONE] = EXIT_FAILED,
	[ERR_RETRY] = EXIT_UNAVAILABLE,
	[ERR_REJECT] = EXIT_FAILED,
	[ERR_FORBIDDEN] = EXIT_REFUSED,
	[ERR_NOT_FOUND] = EXIT_NOT_FOUND,
	[ERR_CONFLICT] = EXIT_FAILED,
	[ERR_FATAL] = EXIT_FAILED,
};

int cli_fail(const char *command, const struct err *e)
{
	fprintf(stderr, "sealpost %s: %s\n", command, e->text);
	return exit_codes[e->kind];
}

int cli_usage_error(const char *command, const char *fmt, ...)
{
	va_list ap;
	fprintf(stderr, "sealpost %s: ", command);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry 'sealpost %s --help'.\n", command);
	return EXIT_USAGE;
}

static void print_help(const struct args *a)
{
	printf("usage: sealpost %s %s\n\n%s\n", a->command, a->usage, a->summary);
	printf("\noptions:\n");
	for (const struct arg *o = a->options; o->name; o++) {
		char left[48];
		snprintf(left, sizeof(left), "--%s%s%s", o->name, o->value ? " " : "",
			o->value ? o->value : "");
		printf("  %-26s %s\n", left, o->help);
	}
	printf("  %-26s %s\n", "--help", "this text");
	printf("\nexample:\n%s\n", a->example);
}

static const struct arg *find_option(const struct args *a, struct str name)
{
	for (const struct arg *o = a->options; o->name; o++)
		if (str_eq(str_of(o->name), name))
			return o;
	return NULL;
}

/* Stores one value; false after a usage error was printed. */
static bool store_value(const struct args *a, const struct arg *o, const char *value)
{
	/* Mostly a variable that is not set: --data "$DIR" must not mean the directory we stand in. */
	if (!*value) {
		cli_usage_error(a->command, "--%s needs a value (%s), not an empty one", o->name, o->value);
		return false;
	}
	if (o->type == ARG_TEXT) {
		*(const char **)o->target = value;
		return true;
	}
	if (o->type == ARG_LIST) {
		struct arg_list *list = o->target;
		if (list->count == ARG_LIST_MAX) {
			cli_usage_error(
				a->command, "--%s can be given at most %d times", o->name, ARG_LIST_MAX);
			return false;
		}
		list->items[list->count++] = value;
		return true;
	}
	int64_t number;
	if (!str_to_i64(str_of(value), &number) || number < o->min || number > o->max) {
		cli_usage_error(a->command, "--%s takes a whole number from %lld to %lld", o->name,
			(long long)o->min, (long long)o->max);
		return false;
	}
	*(int64_t *)o->target = number;
	return true;
}

/* Takes the option at argv[*i], and its value; false after a usage error was printed. */
static bool take_option(const struct args *a, int argc, char **argv, int *i)
{
	struct str rest = str_of(argv[*i] + 2), name;
	bool inline_value = str_cut(&rest, '=', &name);
	if (!inline_value)
		name = rest;
	const struct arg *o = find_option(a, name);
	if (!o) {
		cli_usage_error(a->command, "there is no option '--%.*s'", STR_ARG(name));
		return false;
	}
	if (o->type == ARG_FLAG) {
		if (inline_value) {
			cli_usage_error(a->command, "--%s takes no value", o->name);
			return false;
		}
		*(bool *)o->target = true;
		return true;
	}
	if (inline_value)
		return store_value(a, o, rest.p);
	if (*i + 1 >= argc) {
		cli_usage_error(a->command, "--%s needs a value (%s)", o->name, o->value);
		return false;
	}
	return store_value(a, o, argv[++*i]);
}

bool args_parse(struct args *a, int argc, char **argv, int *ret_exit)
{
	bool options = true;
	a->rest_count = 0;
	*ret_exit = EXIT_USAGE;
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i];
		if (options && strcmp(word, "--") == 0) {
			options = false;
		} else if (options && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)) {
			print_help(a);
			*ret_exit = EXIT_DONE;
			return false;
		} else if (options && str_starts(str_of(word), STR("--"))) {
			if (!take_option(a, argc, argv, &i))
				return false;
		} else if (a->rest_count == a->rest_max || a->rest_count == ARG_REST_MAX) {
			cli_usage_error(a->command, "unexpected '%s'", word);
			return false;
		} else {
			a->rest[a->rest_count++] = word;
		}
	}
	if (a->rest_count < a->rest_min) {
		cli_usage_error(a->command, "usage: sealpost %s %s", a->command, a->usage);
		return false;
	}
	return true;
}

int cli_dispatch(const char *command, const struct command *table, int argc, char **argv)
{
	bool help = argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0;
	if (!help)
		for (const struct command *c = table; c->name; c++)
			if (strcmp(c->name, argv[1]) == 0)
				return c->run(argc - 1, argv + 1);
	FILE *out = help && argc >= 2 ? stdout : stderr;
	if (!help)
		fprintf(out, "sealpost %s: there is no '%s'\n", command, argv[1]);
	fprintf(out, "usage: sealpost %s COMMAND [options]\n\n", command);
	for (const struct command *c = table; c->name; c++)
		fprintf(out, "  %-14s %s\n", c->name, c->summary);
	fprintf(out, "\n'sealpost %s COMMAND --help' explains one and shows an example.\n", command);
	return out == stdout ? EXIT_DONE : EXIT_USAGE;
}
