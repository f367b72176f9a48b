/* term.c - see term.h. Columns are as wide as their widest cell, counted in code points: what the commands
 * print is Latin text and numbers, so wide and combining characters need no table of their own. */
#include "cli/term.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"

enum { TABLE_BYTES = 64 << 20, COLUMN_GAP = 2 };

static const char *const style_codes[TERM_STYLES] = {
	[TERM_PLAIN] = "",
	[TERM_BOLD] = "1",
	[TERM_DIM] = "2",
	[TERM_RED] = "31",
	[TERM_GREEN] = "32",
	[TERM_YELLOW] = "33",
};

static bool progress_shown;

struct cell {
	size_t at, n; /* in term_table.text */
	unsigned width;
	enum term_style style;
};

struct term_table {
	const struct term_column *columns;
	unsigned column_count;
	struct buf text;
	struct buf cells;  /* of struct cell */
	unsigned widths[]; /* one for each column, known when printing */
};

static bool is_terminal(FILE *f)
{
	return isatty(fileno(f)) == 1;
}

bool term_colours(FILE *f)
{
	const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
	if ((no_color && *no_color) || (term && strcmp(term, "dumb") == 0))
		return false;
	return is_terminal(f);
}

/* By way of memory: what cannot be formatted is left out. */
static PRINTF(2, 0) void print(FILE *f, const char *fmt, va_list ap)
{
	AUTO(free_auto) char *text = NULL;
	int n = vasprintf(&text, fmt, ap);
	if (n < 0)
		text = NULL;
	else
		fwrite(text, 1, (size_t)n, f);
}

static void style_begin(FILE *f, enum term_style style, bool colours)
{
	if (colours && style != TERM_PLAIN)
		fprintf(f, "\033[%sm", style_codes[style]);
}

static void style_end(FILE *f, enum term_style style, bool colours)
{
	if (colours && style != TERM_PLAIN)
		fputs("\033[0m", f);
}

void term_styled(FILE *f, enum term_style style, const char *fmt, ...)
{
	bool colours = term_colours(f);
	va_list ap;
	style_begin(f, style, colours);
	va_start(ap, fmt);
	print(f, fmt, ap);
	va_end(ap);
	style_end(f, style, colours);
}

/* U+0080..U+009F are controls too; in UTF-8 they start with 0xc2. */
static bool is_c1(struct str s, size_t i)
{
	return (unsigned char)s.p[i] == 0xc2 && i + 1 < s.n && (unsigned char)s.p[i + 1] < 0xa0;
}

static bool is_control(struct str s, size_t i)
{
	unsigned char c = (unsigned char)s.p[i];
	return c < 0x20 || c == 0x7f || is_c1(s, i);
}

/* Calls put for runs of harmless bytes and for the visible form of each control character. */
static void each_visible(struct str s, void (*put)(void *arg, const char *p, size_t n), void *arg)
{
	for (size_t i = 0, start = 0; i <= s.n; i++) {
		if (i < s.n && !is_control(s, i))
			continue;
		put(arg, s.p + start, i - start);
		if (i < s.n) {
			char shown[8];
			if (is_c1(s, i))
				i++;
			int n = snprintf(shown, sizeof(shown), "\\x%02x", (unsigned char)s.p[i]);
			put(arg, shown, (size_t)n);
		}
		start = i + 1;
	}
}

static void put_file(void *arg, const char *p, size_t n)
{
	fwrite(p, 1, n, arg);
}

static void put_buf(void *arg, const char *p, size_t n)
{
	buf_add(arg, p, n);
}

void term_put_untrusted(FILE *f, struct str text)
{
	each_visible(text, put_file, f);
}

void term_error(const char *command, const char *fmt, ...)
{
	va_list ap;
	term_progress_clear();
	fflush(stdout);
	term_styled(stderr, TERM_RED, "sealpost %s:", command);
	fputc(' ', stderr);
	va_start(ap, fmt);
	print(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

struct term_table *term_table_new(const struct term_column *columns, unsigned count)
{
	require(count > 0);
	struct term_table *t = calloc(1, sizeof(*t) + count * sizeof(t->widths[0]));
	if (!t)
		return NULL;
	t->columns = columns;
	t->column_count = count;
	buf_init(&t->text, TABLE_BYTES);
	buf_init(&t->cells, TABLE_BYTES);
	return t;
}

void term_table_free(struct term_table *t)
{
	if (!t)
		return;
	buf_clear(&t->text);
	buf_clear(&t->cells);
	free(t);
}

static unsigned code_points(const char *p, size_t n)
{
	unsigned count = 0;
	for (size_t i = 0; i < n; i++)
		count += ((unsigned char)p[i] & 0xc0) != 0x80;
	return count;
}

void term_table_cell(struct term_table *t, const char *fmt, ...)
{
	AUTO(free_auto) char *raw = NULL;
	va_list ap;
	va_start(ap, fmt);
	int n = vasprintf(&raw, fmt, ap);
	va_end(ap);
	if (n < 0) {
		raw = NULL;
		t->text.failed = true;
		return;
	}
	struct cell cell = {.at = t->text.n};
	each_visible(str_mem(raw, (size_t)n), put_buf, &t->text);
	cell.n = t->text.n - cell.at;
	cell.width = code_points(t->text.p + cell.at, cell.n);
	buf_add(&t->cells, &cell, sizeof(cell));
}

static size_t cell_count(const struct term_table *t)
{
	return t->cells.n / sizeof(struct cell);
}

/* malloc aligned the buffer, and it holds nothing but cells. */
static struct cell *cell_at(const struct term_table *t, size_t i)
{
	return (struct cell *)(void *)t->cells.p + i;
}

void term_table_style(struct term_table *t, enum term_style style)
{
	if (cell_count(t))
		cell_at(t, cell_count(t) - 1)->style = style;
}

static size_t row_count(const struct term_table *t)
{
	ensure(t->column_count > 0);
	return cell_count(t) / t->column_count;
}

static unsigned column_width(const struct term_table *t, unsigned column)
{
	const char *title = t->columns[column].title;
	unsigned width = title ? code_points(title, strlen(title)) : 0;
	for (size_t i = column; i < row_count(t) * t->column_count; i += t->column_count)
		width = cell_at(t, i)->width > width ? cell_at(t, i)->width : width;
	return width;
}

/* Spaces are owed until text follows, so that no line ends in them. */
static void print_cell(FILE *f, struct str text, unsigned fill, bool right, enum term_style style,
	bool colours, unsigned *owed)
{
	*owed += right ? fill : 0;
	if (text.n) {
		fprintf(f, "%*s", (int)*owed, "");
		*owed = 0;
		style_begin(f, style, colours);
		fwrite(text.p, 1, text.n, f);
		style_end(f, style, colours);
	}
	*owed += (right ? 0 : fill) + COLUMN_GAP;
}

static void print_heading(const struct term_table *t, FILE *f, bool colours)
{
	unsigned owed = 0;
	for (unsigned c = 0; c < t->column_count; c++) {
		struct str title = str_of(t->columns[c].title);
		print_cell(f, title, t->widths[c] - code_points(title.p, title.n), t->columns[c].right,
			TERM_BOLD, colours, &owed);
	}
	fputc('\n', f);
}

static void print_row(const struct term_table *t, size_t row, FILE *f, bool colours)
{
	unsigned owed = 0;
	for (unsigned c = 0; c < t->column_count; c++) {
		const struct cell *cell = cell_at(t, row * t->column_count + c);
		print_cell(f, str_mem(t->text.p + cell->at, cell->n), t->widths[c] - cell->width,
			t->columns[c].right, cell->style, colours, &owed);
	}
	fputc('\n', f);
}

int term_table_print(struct term_table *t, FILE *f, struct err *e)
{
	if (buf_check(&t->text, e) < 0 || buf_check(&t->cells, e) < 0)
		return err_context(e, "print a table");
	for (unsigned c = 0; c < t->column_count; c++)
		t->widths[c] = column_width(t, c);
	bool colours = term_colours(f);
	if (t->columns[0].title)
		print_heading(t, f, colours);
	for (size_t row = 0; row < row_count(t); row++)
		print_row(t, row, f, colours);
	return 0;
}

void term_progress(const char *fmt, ...)
{
	if (!is_terminal(stderr))
		return;
	va_list ap;
	fputs("\r\033[K", stderr);
	va_start(ap, fmt);
	print(stderr, fmt, ap);
	va_end(ap);
	fflush(stderr);
	progress_shown = true;
}

void term_progress_clear(void)
{
	if (!progress_shown)
		return;
	fputs("\r\033[K", stderr);
	fflush(stderr);
	progress_shown = false;
}
