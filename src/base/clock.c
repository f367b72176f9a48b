/* clock.c - see clock.h. Calendar arithmetic by the proleptic Gregorian calendar, no time zone data. */
#include "base/clock.h"

#include <stdio.h>
#include <time.h>

static struct wall system_wall(const struct clock *c)
{
	(void)c;
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (struct wall){(int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000};
}

static struct mono system_mono(const struct clock *c)
{
	(void)c;
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (struct mono){(int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec};
}

const struct clock clock_system = {system_wall, system_mono};

static struct wall fake_wall(const struct clock *c)
{
	return container_of(c, const struct clock_fake, clock)->now;
}

static struct mono fake_mono(const struct clock *c)
{
	return container_of(c, const struct clock_fake, clock)->ticks;
}

void clock_fake_init(struct clock_fake *f, struct wall now)
{
	*f = (struct clock_fake){.clock = {fake_wall, fake_mono}, .now = now, .ticks = {1000000000}};
}

void clock_fake_advance_ms(struct clock_fake *f, int64_t ms)
{
	f->now.ms += ms;
	f->ticks.ns += ms * 1000000;
}

/* Days since 1970-01-01 of a civil date, and back. */
static int64_t days_of(int64_t year, int month, int day)
{
	year -= month <= 2;
	int64_t era = (year >= 0 ? year : year - 399) / 400;
	int64_t year_of_era = year - era * 400;
	int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
	return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

static void civil_of(int64_t days, int *ret_year, int *ret_month, int *ret_day)
{
	days += 719468;
	int64_t era = (days >= 0 ? days : days - 146096) / 146097;
	int64_t day_of_era = days - era * 146097;
	int64_t year_of_era =
		(day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	int64_t shifted = (5 * day_of_year + 2) / 153;
	*ret_day = (int)(day_of_year - (153 * shifted + 2) / 5 + 1);
	*ret_month = (int)(shifted < 10 ? shifted + 3 : shifted - 9);
	*ret_year = (int)(year_of_era + era * 400 + (*ret_month <= 2));
}

static char *digits(char *out, int width, int value)
{
	for (int i = width - 1; i >= 0; i--, value /= 10)
		out[i] = (char)('0' + value % 10);
	return out + width;
}

void wall_format(struct wall t, char out[RFC3339_BYTES])
{
	const int64_t day_ms = 86400000, min_ms = days_of(0, 1, 1) * day_ms,
		      max_ms = days_of(10000, 1, 1) * day_ms - 1;
	int64_t ms = t.ms < min_ms ? min_ms : t.ms > max_ms ? max_ms : t.ms;
	int64_t days = ms >= 0 ? ms / day_ms : -((-ms + day_ms - 1) / day_ms);
	int of_day = (int)(ms - days * day_ms);
	int year, month, day;
	civil_of(days, &year, &month, &day);
	char *p = digits(out, 4, year);
	*p++ = '-';
	p = digits(p, 2, month);
	*p++ = '-';
	p = digits(p, 2, day);
	*p++ = 'T';
	p = digits(p, 2, of_day / 3600000);
	*p++ = ':';
	p = digits(p, 2, of_day / 60000 % 60);
	*p++ = ':';
	p = digits(p, 2, of_day / 1000 % 60);
	*p++ = '.';
	p = digits(p, 3, of_day % 1000);
	*p++ = 'Z';
	*p = 0;
}

/* Takes `width` digits off the front. */
static bool take_digits(struct str *s, size_t width, int *ret)
{
	if (s->n < width)
		return false;
	int v = 0;
	for (size_t i = 0; i < width; i++) {
		if (s->p[i] < '0' || s->p[i] > '9')
			return false;
		v = v * 10 + (s->p[i] - '0');
	}
	*s = (struct str){s->p + width, s->n - width};
	*ret = v;
	return true;
}

static bool take_char(struct str *s, const char *any_of)
{
	if (!s->n || !s->p[0] || !strchr(any_of, s->p[0]))
		return false;
	*s = (struct str){s->p + 1, s->n - 1};
	return true;
}

static int month_days(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
	return month == 2 && leap ? 29 : days[month - 1];
}

bool wall_parse(struct str s, struct wall *ret)
{
	int year, month, day, hour, minute, second, ms = 0;
	if (!take_digits(&s, 4, &year) || !take_char(&s, "-") || !take_digits(&s, 2, &month) ||
		!take_char(&s, "-") || !take_digits(&s, 2, &day) || !take_char(&s, "Tt ") ||
		!take_digits(&s, 2, &hour) || !take_char(&s, ":") || !take_digits(&s, 2, &minute) ||
		!take_char(&s, ":") || !take_digits(&s, 2, &second))
		return false;
	if (month < 1 || month > 12 || day < 1 || day > month_days(year, month) || hour > 23 || minute > 59 ||
		second > 59)
		return false;
	if (take_char(&s, ".")) {
		int digit, scale = 100;
		if (!take_digits(&s, 1, &digit))
			return false;
		do {
			ms += digit * scale;
			scale /= 10;
		} while (take_digits(&s, 1, &digit));
	}
	int offset_min = 0;
	char sign = (char)(s.n ? s.p[0] : 0);
	if (take_char(&s, "+-")) {
		int oh, om;
		if (!take_digits(&s, 2, &oh) || !take_char(&s, ":") || !take_digits(&s, 2, &om) || oh > 23 ||
			om > 59)
			return false;
		offset_min = (oh * 60 + om) * (sign == '-' ? -1 : 1);
	} else if (!take_char(&s, "Zz")) {
		return false;
	}
	if (s.n)
		return false;
	ret->ms = ((days_of(year, month, day) * 24 + hour) * 60 + minute - offset_min) * 60000 +
		  (int64_t)second * 1000 + ms;
	return true;
}
