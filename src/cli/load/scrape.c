/* scrape.c - see scrape.h. */
#include "cli/load/scrape.h"

#include <math.h>
#include <stdio.h>

#include "base/auto.h"
#include "base/json.h"

/* A number as JSON has it, or the bound of the last bucket; at most 31 characters. */
static bool read_value(struct str text, double *ret)
{
	char list[34];
	text = str_trim(text);
	if (str_eq(text, STR("+Inf"))) {
		*ret = INFINITY;
		return true;
	}
	if (!text.n || text.n > sizeof(list) - 3)
		return false;
	int n = snprintf(list, sizeof(list), "[%.*s]", STR_ARG(text));
	AUTO(json_auto) json_t *values = NULL;
	if (json_read(str_mem(list, (size_t)n), &values, NULL) < 0 ||
		!json_is_number(json_array_get(values, 0)))
		return false;
	*ret = json_number_value(json_array_get(values, 0));
	return true;
}

/* name{labels} value, or name value; label values of ours hold no brace. */
static bool read_series(struct str line, struct scrape_series *ret)
{
	struct str head;
	*ret = (struct scrape_series){.labels = {"", 0}};
	if (!line.n || line.p[0] == '#')
		return false;
	struct str rest = line;
	if (str_cut(&rest, '{', &ret->name)) {
		if (!str_cut(&rest, '}', &ret->labels))
			return false;
		return read_value(rest, &ret->value);
	}
	rest = line;
	if (!str_cut(&rest, ' ', &head))
		return false;
	ret->name = head;
	return read_value(rest, &ret->value);
}

bool scrape_next(struct str *text, struct scrape_series *ret)
{
	struct str line;
	while (text->n) {
		if (!str_cut(text, '\n', &line)) {
			line = *text;
			text->n = 0;
		}
		if (read_series(line, ret))
			return true;
	}
	return false;
}

struct str scrape_label(const struct scrape_series *s, const char *label)
{
	struct str rest = s->labels, name, before, value;
	while (str_cut(&rest, '=', &name) && str_cut(&rest, '"', &before) && str_cut(&rest, '"', &value)) {
		if (str_eq(name, str_of(label)))
			return value;
		if (rest.n && rest.p[0] == ',')
			rest = str_mem(rest.p + 1, rest.n - 1);
	}
	return (struct str){NULL, 0};
}

double scrape_sum(struct str text, const char *name, const char *label, const char *value)
{
	struct scrape_series s;
	double sum = 0;
	while (scrape_next(&text, &s))
		if (str_eq(s.name, str_of(name)) &&
			(!label || str_eq(scrape_label(&s, label), str_of(value))))
			sum += s.value;
	return sum;
}

/* The bucket with this bound; NULL when there is no room for another. Bounds come in rising order. */
static double *bucket_of(struct scrape_histogram *h, double bound)
{
	unsigned i = 0;
	while (i < h->count && h->bounds[i] < bound)
		i++;
	if (i < h->count && !(h->bounds[i] > bound))
		return &h->upto[i];
	if (i < h->count || h->count == SCRAPE_BUCKETS_MAX)
		return NULL;
	h->bounds[h->count] = bound;
	h->upto[h->count] = 0;
	return &h->upto[h->count++];
}

void scrape_histogram_add(struct scrape_histogram *h, struct str text, const char *name, double factor)
{
	struct scrape_series s;
	char bucket_name[128];
	snprintf(bucket_name, sizeof(bucket_name), "%s_bucket", name);
	while (scrape_next(&text, &s)) {
		double bound, *bucket;
		if (str_eq(s.name, str_of(bucket_name)) && read_value(scrape_label(&s, "le"), &bound) &&
			(bucket = bucket_of(h, bound)))
			*bucket += factor * s.value;
	}
}

double scrape_percentile(const struct scrape_histogram *h, double percent)
{
	double all = h->count ? h->upto[h->count - 1] : 0, wanted = all * percent / 100, below = 0, from = 0;
	for (unsigned i = 0; all > 0 && i < h->count; i++) {
		if (h->upto[i] >= wanted && h->upto[i] > below)
			return isinf(h->bounds[i]) ? from
						   : from + (h->bounds[i] - from) * (wanted - below) /
								     (h->upto[i] - below);
		below = h->upto[i];
		from = h->bounds[i];
	}
	return from;
}
