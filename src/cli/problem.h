/* problem.h - shows a server's application/problem+json (RFC 9457) to a person.
 * Threads:  none of its own.
 * Security: the text is the server's: control characters are shown, not sent to the terminal. A problem of
 *           ours never repeats a message, so neither does what is printed. */
#ifndef CLI_PROBLEM_H
#define CLI_PROBLEM_H

#include <jansson.h>

/* "sealpost COMMAND: WHERE: TITLE (CODE, STATUS)" and a line for the detail and each of errors[] on standard
 * error. `where` may be ""; `problem` may be NULL or anything else than a problem: then only the status
 * shows. */
void problem_print(const char *command, const char *where, int status, const json_t *problem);

/* The problem's code, "" when it has none. */
const char *problem_code(const json_t *problem);

#endif
