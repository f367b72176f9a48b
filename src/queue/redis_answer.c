/* redis_answer.c - see redis_answer.h. */
#include "queue/redis_answer.h"

#include "base/macros.h"

enum { SHOWN_BYTES = 120 }; /* of an answer that has no row */

static const struct {
	const char *word;
	enum redis_remedy remedy;
	const char *text;
} answers[] = {
#define ANSWER(word, remedy, text) {word, REDIS_##remedy, text},
#include "queue/redis_answers.def"
#undef ANSWER
};

enum redis_remedy redis_answer(struct str error, struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
		if (str_starts(error, str_of(answers[i].word))) {
			err_set(e, ERR_RETRY, "%s (%s)", answers[i].text, answers[i].word);
			return answers[i].remedy;
		}
	}
	/* Commands and keys only: what Redis quotes of a command it does not like is its beginning. */
	if (error.n > SHOWN_BYTES)
		error.n = SHOWN_BYTES;
	err_set(e, ERR_RETRY, "the server answered: %.*s", STR_ARG(error));
	return REDIS_KEEP;
}
