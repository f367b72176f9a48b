/* redis_answer.h - errors that a Redis server answers with, by name (redis_answers.def). */
#ifndef QUEUE_REDIS_ANSWER_H
#define QUEUE_REDIS_ANSWER_H

#include "base/err.h"
#include "base/str.h"

/* What becomes of the connection; the more there is to do, the higher. */
enum redis_remedy { REDIS_KEEP, REDIS_RELOAD, REDIS_REOPEN };

/* Fills *e (ERR_RETRY) with what the error means and what to do about it. */
enum redis_remedy redis_answer(struct str error, struct err *e);

#endif
