/* passphrase.c - see passphrase.h. */
#include "cli/passphrase.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/auto.h"
#include "ca/key.h"

/* --- a terminal that shows nothing, and shows again whatever happens --- */

static const int ending[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

/* What was in force before. */
struct signals {
	sigset_t mask;
	struct sigaction actions[ARRAY_LEN(ending)];
};

static volatile sig_atomic_t ended_by;

static void on_signal(int number)
{
	ended_by = number;
}

/* They arrive only while we wait for the line, with the mask of before. Whatever is ignored, as SIGHUP by nohup(1),
 * stays so. */
static void hold_signals(struct signals *before)
{
	const struct sigaction action = {.sa_handler = on_signal};
	sigset_t held;
	sigemptyset(&held);
	for (size_t i = 0; i < ARRAY_LEN(ending); i++)
		sigaddset(&held, ending[i]);
	sigprocmask(SIG_BLOCK, &held, &before->mask);
	ended_by = 0;
	for (size_t i = 0; i < ARRAY_LEN(ending); i++) {
		sigaction(ending[i], NULL, &before->actions[i]);
		if (before->actions[i].sa_handler != SIG_IGN)
			sigaction(ending[i], &action, NULL);
	}
}

/* What would have ended us in between does so now. */
static void release_signals(const struct signals *before)
{
	for (size_t i = 0; i < ARRAY_LEN(ending); i++)
		sigaction(ending[i], &before->actions[i], NULL);
	sigprocmask(SIG_SETMASK, &before->mask, NULL);
	if (ended_by)
		raise(ended_by);
}

static bool read_hidden(FILE *terminal, const struct termios *shown, char *line, int room)
{
	struct signals before;
	struct termios hidden = *shown;
	struct pollfd p = {.fd = fileno(terminal), .events = POLLIN};
	hidden.c_lflag &= ~(tcflag_t)ECHO;
	hidden.c_cc[VSUSP] = _POSIX_VDISABLE;
	hold_signals(&before);
	tcsetattr(p.fd, TCSAFLUSH, &hidden);
	bool got = ppoll(&p, 1, NULL, &before.mask) > 0 && fgets(line, room, terminal) != NULL;
	tcsetattr(p.fd, TCSAFLUSH, shown);
	dprintf(p.fd, "\n"); /* what was typed to end the line was not shown either */
	release_signals(&before);
	return got;
}

/* Reads one line from the terminal without showing it. */
static int ask(FILE *terminal, const char *prompt, const char *what, struct buf *ret, struct err *e)
{
	char line[PASSPHRASE_BYTES_MAX + 2];
	struct termios shown;
	if (tcgetattr(fileno(terminal), &shown) < 0)
		return err_sys(e, ERR_FATAL, "read the terminal");
	fprintf(terminal, "%s %s: ", prompt, what);
	fflush(terminal);
	size_t n = read_hidden(terminal, &shown, line, sizeof(line)) ? strcspn(line, "\r\n") : 0;
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
			"there is no terminal to ask for the passphrase of %s; give a file with it (see --help)",
			what);
	return fresh ? ask_twice(terminal, what, ret, e) : ask(terminal, "Passphrase of", what, ret, e);
}
