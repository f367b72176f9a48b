/* passphrase.c - see passphrase.h. */
#include "cli/passphrase.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/auto.h"
#include "ca/key.h"

/* Reads one line from the terminal without showing it. */
static int ask(FILE *terminal, const char *prompt, const char *what, struct buf *ret, struct err *e)
{
	char line[PASSPHRASE_BYTES_MAX + 2];
	struct termios shown, hidden;
	if (tcgetattr(fileno(terminal), &shown) < 0)
		return err_sys(e, ERR_FATAL, "read the terminal");
	hidden = shown;
	hidden.c_lflag &= ~(tcflag_t)ECHO;
	fprintf(terminal, "%s %s: ", prompt, what);
	fflush(terminal);
	tcsetattr(fileno(terminal), TCSAFLUSH, &hidden);
	bool got = fgets(line, sizeof(line), terminal) != NULL;
	tcsetattr(fileno(terminal), TCSAFLUSH, &shown);
	fputc('\n', terminal);
	size_t n = got ? strcspn(line, "\r\n") : 0;
	buf_add(ret, line, n);
	OPENSSL_cleanse(line, sizeof(line));
	return n ? buf_check(ret, e) : err_set(e, ERR_REJECT, "no passphrase was given");
}

static int ask_twice(FILE *terminal, const char *what, struct buf *ret, struct err *e)
{
	AUTO(buf_wipe_auto) struct buf again;
	buf_init(&again, PASSPHRASE_BYTES_MAX);
	if (ask(terminal, "New passphrase of", what, ret, e) < 0 ||
		ask(terminal, "Again, the passphrase of", what, &again, e) < 0)
		return -1;
	return str_eq(buf_str(ret), buf_str(&again)) ? 0
						     : err_set(e, ERR_REJECT, "the two passphrases differ");
}

int passphrase_get(const char *file, const char *what, bool fresh, struct buf *ret, struct err *e)
{
	if (file)
		return passphrase_read(file, ret, NULL, e);
	AUTO(file_auto) FILE *terminal = fopen("/dev/tty", "r+e");
	if (!terminal)
		return err_set(e, ERR_REJECT,
			"there is no terminal to ask for the passphrase of %s; give a file with it", what);
	return fresh ? ask_twice(terminal, what, ret, e) : ask(terminal, "Passphrase of", what, ret, e);
}
