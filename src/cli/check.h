/* check.h - sealpost check: one question, one state, for whoever watches an installation.
 *
 * Exit codes and first line are those of a monitoring plugin (Monitoring Plugins Development Guidelines): 0 ok,
 * 1 warning, 2 critical, 3 unknown; usage errors are unknown too.
 *
 * Units:     of a check's kind: messages, milliseconds or bytes.
 * Ownership: none; what a report points to is the caller's.
 * Threads:   main thread. */
#ifndef CLI_CHECK_H
#define CLI_CHECK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

enum check_state { CHECK_OK, CHECK_WARNING, CHECK_CRITICAL, CHECK_UNKNOWN, CHECK_STATES };

enum check_unit { CHECK_COUNT, CHECK_MS, CHECK_BYTES, CHECK_UNITS };

enum check_format { CHECK_NAGIOS, CHECK_TEXT, CHECK_JSON, CHECK_PROMETHEUS, CHECK_FORMATS };

enum { CHECK_READINGS_MAX = 8, CHECK_TEXT_BYTES = 512 };

struct check_reading {
	const char *name;
	enum check_unit unit;
	int64_t value;
};

struct check_report {
	const char *check;
	enum check_state state;
	char text[CHECK_TEXT_BYTES]; /* one sentence */
	bool falling;                /* little is bad: space, time left */
	int64_t warning, critical;   /* for the first reading */
	struct check_reading readings[CHECK_READINGS_MAX];
	unsigned count;
};

/* The state of a value against thresholds: worse than a threshold, not equal to it, is what alarms. */
enum check_state check_judge(int64_t value, bool falling, int64_t warning, int64_t critical);

const char *check_state_name(enum check_state state);

/* "nagios", "text", "json", "prometheus"; false for others. */
MUST_CHECK bool check_format_parse(const char *name, enum check_format *ret);

MUST_CHECK int check_print(const struct check_report *r, enum check_format format, FILE *f, struct err *e);

#endif
