/* answer.c - see answer.h. */
#include "cli/answer.h"

#include <stdio.h>
#include <string.h>

#include "base/auto.h"

const char *json_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text ? text : "";
}

int64_t json_number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

void print_json(const json_t *answer)
{
	json_dumpf(answer, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
}

static void fill_cell(struct term_table *t, const struct answer_column *c, const json_t *row)
{
	const char *text = json_text(row, c->member);
	switch (c->kind) {
	case ANSWER_TEXT:
		term_table_cell(t, "%s", text);
		break;
	case ANSWER_NUMBER:
		term_table_cell(t, "%lld", (long long)json_number(row, c->member));
		break;
	case ANSWER_DAY:
		term_table_cell(t, "%.10s", *text ? text : "-");
		break;
	case ANSWER_MINUTE:
		term_table_cell(t, "%.16s", text);
		break;
	}
	if (c->good)
		term_table_style(t, strcmp(text, c->good) == 0 ? TERM_GREEN : TERM_RED);
}

int print_table(const json_t *rows, const struct answer_column *columns, FILE *f, struct err *e)
{
	struct term_column heads[ANSWER_COLUMNS_MAX];
	unsigned count = 0;
	for (; columns[count].title; count++) {
		require(count < ANSWER_COLUMNS_MAX);
		heads[count] =
			(struct term_column){columns[count].title, columns[count].kind == ANSWER_NUMBER};
	}
	AUTO(term_table_free_auto) struct term_table *t = term_table_new(heads, count);
	if (!t)
		return err_oom(e);
	size_t i;
	const json_t *row;
	json_array_foreach(rows, i, row)
	{
		for (const struct answer_column *c = columns; c->title; c++)
			if (c->fill)
				c->fill(t, row);
			else
				fill_cell(t, c, row);
	}
	return term_table_print(t, f, e);
}
