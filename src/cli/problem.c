/* problem.c - see problem.h. */
#include "cli/problem.h"

#include <stdio.h>

#include "base/str.h"
#include "cli/term.h"

static struct str text_of(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);
	return str_mem(json_string_value(value), json_string_length(value));
}

const char *problem_code(const json_t *problem)
{
	const char *code = json_string_value(json_object_get(problem, "code"));
	return code ? code : "";
}

/* "  /pointer: detail (code)" */
static void print_field(const json_t *item)
{
	struct str pointer = text_of(item, "pointer"), detail = text_of(item, "detail"),
		   code = text_of(item, "code");
	fputs("  ", stderr);
	if (pointer.n) {
		term_put_untrusted(stderr, pointer);
		fputs(": ", stderr);
	}
	term_put_untrusted(stderr, detail.n ? detail : code);
	if (detail.n && code.n) {
		fputs(" (", stderr);
		term_put_untrusted(stderr, code);
		fputc(')', stderr);
	}
	fputc('\n', stderr);
}

static void print_title(const char *where, int status, const json_t *problem)
{
	struct str title = text_of(problem, "title"), code = text_of(problem, "code");
	fprintf(stderr, "%s%s", where, *where ? ": " : "");
	term_put_untrusted(stderr, title.n ? title : STR("the server answered"));
	fputs(" (", stderr);
	term_put_untrusted(stderr, code);
	fprintf(stderr, "%s%d)\n", code.n ? ", " : "", status);
}

void problem_print(const char *command, const char *where, int status, const json_t *problem)
{
	size_t i;
	const json_t *item, *errors = json_object_get(problem, "errors");
	struct str detail = text_of(problem, "detail");
	term_progress_clear();
	term_styled(stderr, TERM_RED, "sealpost %s:", command);
	fputc(' ', stderr);
	print_title(where, status, problem);
	if (detail.n && !json_array_size(errors)) {
		fputs("  ", stderr);
		term_put_untrusted(stderr, detail);
		fputc('\n', stderr);
	}
	json_array_foreach(errors, i, item)
	{
		print_field(item);
	}
}
