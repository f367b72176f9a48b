/* ledger.c - see ledger.h. Ids are found by their member name rather than by parsing: the answers are the
 * server's own, ids hold no character that JSON escapes, and the generator shares the machine with the
 * server. */
#include "cli/load/ledger.h"

#include <unistd.h>

void ledger_note(struct buf *lines, struct str body)
{
	static const struct str member = {"\"message_id\":\"", 14};
	const char *at = body.p, *end = body.p + body.n;
	while (at && (at = memmem(at, (size_t)(end - at), member.p, member.n))) {
		at += member.n;
		const char *quote = memchr(at, '"', (size_t)(end - at));
		if (quote) {
			buf_add(lines, at, (size_t)(quote - at));
			buf_add_char(lines, '\n');
		}
		at = quote;
	}
}

int ledger_write(int fd, struct buf *lines, struct err *e)
{
	if (buf_check(lines, e) < 0)
		return err_context(e, "ledger");
	ssize_t n = lines->n ? write(fd, lines->p, lines->n) : 0;
	if (n != (ssize_t)lines->n)
		return err_sys(e, ERR_FATAL, "write the ledger");
	buf_reset(lines);
	return 0;
}
