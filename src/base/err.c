/* err.c - see err.h. Text is built in place; a long text is cut and marked, never dropped. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[ERR_KINDS] = {
	[ERR_NONE] = "none",
	[ERR_RETRY] = "retry",
	[ERR_REJECT] = "reject",
	[ERR_FORBIDDEN] = "forbidden",
	[ERR_NOT_FOUND] = "not_found",
	[ERR_CONFLICT] = "conflict",
	[ERR_FATAL] = "fatal",
};

void bug(const char *file, int line, const char *what)
{
	fprintf(stderr, "%s:%d: %s failed: this is a bug in sealpost\n", file, line, what);
	abort();
}

/* Ends a full text in dots, three of them or more, in place of a character that would be cut in half. */
static void mark_cut(char *text)
{
	size_t end = ERR_TEXT_BYTES - 4;
	while (end && ((unsigned char)text[end] & 0xc0) == 0x80)
		end--;
	memset(text + end, '.', ERR_TEXT_BYTES - 1 - end);
	text[ERR_TEXT_BYTES - 1] = 0;
}

/* vsnprintf into text at offset; marks the text when it did not fit. */
static PRINTF(3, 0) size_t put(char *text, size_t offset, const char *fmt, va_list ap)
{
	int n = vsnprintf(text + offset, ERR_TEXT_BYTES - offset, fmt, ap);
	if (n < 0)
		return offset;
	if ((size_t)n >= ERR_TEXT_BYTES - offset) {
		mark_cut(text);
		return ERR_TEXT_BYTES - 1;
	}
	return offset + (size_t)n;
}

int err_set(struct err *e, enum err_kind kind, const char *fmt, ...)
{
	if (!e)
		return -1;
	e->kind = kind;
	e->sys_errno = 0;
	e->retry_after_ms = 0;
	e->unanswered = false;
	va_list ap;
	va_start(ap, fmt);
	put(e->text, 0, fmt, ap);
	va_end(ap);
	return -1;
}

int err_sys(struct err *e, enum err_kind kind, const char *fmt, ...)
{
	int saved = errno;
	if (!e)
		return -1;
	e->kind = kind;
	e->sys_errno = saved;
	e->retry_after_ms = 0;
	e->unanswered = false;
	va_list ap;
	va_start(ap, fmt);
	size_t n = put(e->text, 0, fmt, ap);
	va_end(ap);
	char scratch[128];
	const char *reason = strerror_r(saved, scratch, sizeof(scratch));
	int m = snprintf(e->text + n, ERR_TEXT_BYTES - n, ": %s", reason);
	if (m >= 0 && (size_t)m >= ERR_TEXT_BYTES - n)
		mark_cut(e->text);
	errno = saved;
	return -1;
}

int err_oom(struct err *e)
{
	if (e)
		*e = (struct err){.kind = ERR_RETRY, .sys_errno = ENOMEM, .text = "out of memory"};
	return -1;
}

int err_context(struct err *e, const char *fmt, ...)
{
	if (!e)
		return -1;
	char inner[ERR_TEXT_BYTES];
	memcpy(inner, e->text, sizeof(inner));
	va_list ap;
	va_start(ap, fmt);
	size_t n = put(e->text, 0, fmt, ap);
	va_end(ap);
	int m = snprintf(e->text + n, ERR_TEXT_BYTES - n, ": %s", inner);
	if (m >= 0 && (size_t)m >= ERR_TEXT_BYTES - n)
		mark_cut(e->text);
	return -1;
}

const char *err_kind_name(enum err_kind kind)
{
	return (unsigned)kind < ERR_KINDS ? kind_names[kind] : "unknown";
}
