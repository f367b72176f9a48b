/* check_report.c - what a check prints, in four formats. See check.h. */
#include <string.h>

#include "base/auto.h"
#include "base/json.h"
#include "cli/check.h"
#include "cli/term.h"

enum { REPORT_BYTES = 16 * 1024 };

static const struct {
	const char *name, *shouted;
	enum term_style style;
} states[CHECK_STATES] = {
	[CHECK_OK] = {"ok", "OK", TERM_GREEN},
	[CHECK_WARNING] = {"warning", "WARNING", TERM_YELLOW},
	[CHECK_CRITICAL] = {"critical", "CRITICAL", TERM_RED},
	[CHECK_UNKNOWN] = {"unknown", "UNKNOWN", TERM_YELLOW},
};

/* As a monitor wants it: base units, and the suffix of performance data. */
static const struct {
	const char *name, *suffix;
	int decimals;
	double divisor;
} units[CHECK_UNITS] = {
	[CHECK_COUNT] = {"count", "", 0, 1},
	[CHECK_MS] = {"seconds", "s", 3, 1000},
	[CHECK_BYTES] = {"bytes", "B", 0, 1},
};

enum check_state check_judge(int64_t value, bool falling, int64_t warning, int64_t critical)
{
	if (falling ? value < critical : value > critical)
		return CHECK_CRITICAL;
	return (falling ? value < warning : value > warning) ? CHECK_WARNING : CHECK_OK;
}

const char *check_state_name(enum check_state state)
{
	return states[state].name;
}

static double in_unit(enum check_unit unit, int64_t value)
{
	return (double)value / units[unit].divisor;
}

/* --- nagios --- */

/* One line, and nothing that would begin the performance data. */
static void put_sentence(struct buf *out, const char *text)
{
	for (; *text; text++) {
		char c = *text;
		if (c == '|')
			c = '/';
		else if ((unsigned char)c < ' ')
			c = ' ';
		buf_add_char(out, c);
	}
}

static void put_threshold(struct buf *out, const struct check_report *r, int64_t value)
{
	enum check_unit unit = r->readings[0].unit;
	buf_addf(out, ";%.*f%s", units[unit].decimals, in_unit(unit, value), r->falling ? ":" : "");
}

/* name=value[unit];warning;critical;minimum; a range "N:" alarms below N. */
static void put_performance(struct buf *out, const struct check_report *r)
{
	for (unsigned i = 0; i < r->count; i++) {
		const struct check_reading *at = &r->readings[i];
		buf_addf(out, "%s%s=%.*f%s", i ? " " : " | ", at->name, units[at->unit].decimals,
			in_unit(at->unit, at->value), units[at->unit].suffix);
		if (i > 0)
			continue;
		put_threshold(out, r, r->warning);
		put_threshold(out, r, r->critical);
		buf_add_str(out, STR(";0"));
	}
}

static void put_nagios(struct buf *out, const struct check_report *r)
{
	buf_add_str(out, STR("SEALPOST "));
	for (const char *p = r->check; *p; p++)
		buf_add_char(out, (char)(*p - 'a' + 'A'));
	buf_addf(out, " %s - ", states[r->state].shouted);
	put_sentence(out, r->text);
	put_performance(out, r);
	buf_add_char(out, '\n');
}

/* --- json, prometheus --- */

static void put_json(struct buf *out, const struct check_report *r)
{
	struct json_out w = json_out_to(out);
	json_open_object(&w, NULL);
	json_put_str(&w, "check", str_of(r->check));
	json_put_str(&w, "state", str_of(states[r->state].name));
	json_put_int(&w, "code", r->state);
	json_put_str(&w, "text", str_of(r->text));
	json_open_array(&w, "values");
	for (unsigned i = 0; i < r->count; i++) {
		const struct check_reading *at = &r->readings[i];
		json_open_object(&w, NULL);
		json_put_str(&w, "name", str_of(at->name));
		json_put_double(&w, "value", in_unit(at->unit, at->value));
		json_put_str(&w, "unit", str_of(units[at->unit].name));
		if (i == 0) {
			json_put_double(&w, "warning", in_unit(at->unit, r->warning));
			json_put_double(&w, "critical", in_unit(at->unit, r->critical));
		}
		json_close_object(&w);
	}
	json_close_array(&w);
	json_close_object(&w);
	buf_add_char(out, '\n');
}

/* For the textfile collector of node_exporter. */
static void put_prometheus(struct buf *out, const struct check_report *r)
{
	buf_addf(out,
		"# HELP sealpost_check_state 0 ok, 1 warning, 2 critical, 3 unknown\n"
		"# TYPE sealpost_check_state gauge\n"
		"sealpost_check_state{check=\"%s\"} %d\n",
		r->check, (int)r->state);
	if (!r->count)
		return;
	buf_add_str(out, STR("# HELP sealpost_check_value What a check measured, in the unit named\n"
			     "# TYPE sealpost_check_value gauge\n"));
	for (unsigned i = 0; i < r->count; i++) {
		const struct check_reading *at = &r->readings[i];
		buf_addf(out, "sealpost_check_value{check=\"%s\",value=\"%s\",unit=\"%s\"} %.*f\n", r->check,
			at->name, units[at->unit].name, units[at->unit].decimals,
			in_unit(at->unit, at->value));
	}
}

static int print_buffered(void (*put)(struct buf *, const struct check_report *),
	const struct check_report *r, FILE *f, struct err *e)
{
	AUTO(buf_auto) struct buf out;
	buf_init(&out, REPORT_BYTES);
	put(&out, r);
	if (buf_check(&out, e) < 0)
		return -1;
	fwrite(out.p, 1, out.n, f);
	return 0;
}

/* --- text --- */

static int print_text(const struct check_report *r, FILE *f, struct err *e)
{
	static const struct term_column columns[] = {{NULL, false}, {NULL, true}, {NULL, false}};
	AUTO(term_table_free_auto) struct term_table *t = term_table_new(columns, ARRAY_LEN(columns));
	if (!t)
		return err_oom(e);
	term_styled(f, states[r->state].style, "%s", states[r->state].name);
	fprintf(f, "  %s: ", r->check);
	term_put_untrusted(f, str_of(r->text));
	fputc('\n', f);
	for (unsigned i = 0; i < r->count; i++) {
		const struct check_reading *at = &r->readings[i];
		int decimals = units[at->unit].decimals;
		term_table_cell(t, "  %s", at->name);
		term_table_cell(t, "%.*f%s", decimals, in_unit(at->unit, at->value), units[at->unit].suffix);
		if (i > 0)
			term_table_cell(t, "%s", "");
		else
			term_table_cell(t, "warning %s %.*f, critical %s %.*f",
				r->falling ? "below" : "above", decimals, in_unit(at->unit, r->warning),
				r->falling ? "below" : "above", decimals, in_unit(at->unit, r->critical));
	}
	return term_table_print(t, f, e);
}

static int print_nagios(const struct check_report *r, FILE *f, struct err *e)
{
	return print_buffered(put_nagios, r, f, e);
}

static int print_json_report(const struct check_report *r, FILE *f, struct err *e)
{
	return print_buffered(put_json, r, f, e);
}

static int print_prometheus(const struct check_report *r, FILE *f, struct err *e)
{
	return print_buffered(put_prometheus, r, f, e);
}

static const struct {
	const char *name;
	int (*print)(const struct check_report *r, FILE *f, struct err *e);
} formats[CHECK_FORMATS] = {
	[CHECK_NAGIOS] = {"nagios", print_nagios},
	[CHECK_TEXT] = {"text", print_text},
	[CHECK_JSON] = {"json", print_json_report},
	[CHECK_PROMETHEUS] = {"prometheus", print_prometheus},
};

bool check_format_parse(const char *name, enum check_format *ret)
{
	for (unsigned i = 0; i < CHECK_FORMATS; i++) {
		if (strcmp(formats[i].name, name) != 0)
			continue;
		*ret = i;
		return true;
	}
	return false;
}

int check_print(const struct check_report *r, enum check_format format, FILE *f, struct err *e)
{
	return formats[format].print(r, f, e);
}
