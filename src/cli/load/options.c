/* options.c - see options.h. The shared option parser knows texts and whole numbers; durations and rates are
 * read from its texts here. */
#include "cli/load/options.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/str.h"
#include "cli/cli.h"

enum { BODY_BYTES_MAX = 1000, CONNECTIONS_MAX = 60000, THREADS_MAX = 64, OPTIONS_MAX = 40 };

static const int64_t second_ns = 1000000000;

/* What the parser fills in. */
struct words {
	const char *command;
	const char *url, *cert, *key, *ca, *ledger, *duration, *warmup, *timeout, *rate, *churn;
	int64_t connections, threads, pipeline, streams, batch, body_bytes, messages, server_pid;
	bool http2, json, csv;
};

static bool parse_words(
	const struct load_command *command, int argc, char **argv, struct words *w, int *ret_exit)
{
	const struct arg common[] = {
		{"url", ARG_TEXT, &w->url, "URL", "where the proxy listens: https://HOST:PORT"},
		{"cert", ARG_TEXT, &w->cert, "FILE", "client certificate, PEM"},
		{"key", ARG_TEXT, &w->key, "FILE", "its private key, PEM"},
		{"ca", ARG_TEXT, &w->ca, "FILE",
			"the authority that the server's certificate must come from"},
		{"connections", ARG_INT, &w->connections, "N", "connections kept open (64)", 1,
			CONNECTIONS_MAX},
		{"duration", ARG_TEXT, &w->duration, "TIME", "how long to measure: 500ms, 10s, 2m (10s)"},
		{"messages", ARG_INT, &w->messages, "N", "or: until so many messages are answered", 1,
			INT64_MAX},
		{"warmup", ARG_TEXT, &w->warmup, "TIME",
			"load before the measurement (1s; 0s with --messages)"},
		{"rate", ARG_TEXT, &w->rate, "R",
			"requests a second, sent on schedule whatever the server does"},
		{"batch", ARG_INT, &w->batch, "N", "post batches of N messages", 1, LOAD_BATCH_MAX},
		{"body-bytes", ARG_INT, &w->body_bytes, "N", "length of each text (40)", 1, BODY_BYTES_MAX},
		{"pipeline", ARG_INT, &w->pipeline, "D", "HTTP/1.1 requests in flight on a connection (1)", 1,
			LOAD_DEPTH_MAX},
		{"http2", ARG_FLAG, &w->http2, NULL, "speak HTTP/2"},
		{"streams", ARG_INT, &w->streams, "S", "HTTP/2 streams in flight on a connection (1)", 1,
			LOAD_DEPTH_MAX},
		{"threads", ARG_INT, &w->threads, "T", "threads of the generator (1)", 1, THREADS_MAX},
		{"churn", ARG_TEXT, &w->churn, "H", "new connections a second beside the load"},
		{"timeout", ARG_TEXT, &w->timeout, "TIME", "give up when no answer came for so long (30s)"},
		{"server-pid", ARG_INT, &w->server_pid, "PID", "a local server: report its CPU and memory", 1,
			INT32_MAX},
		{"ledger", ARG_TEXT, &w->ledger, "FILE", "append the id of every acknowledged message"},
		{"json", ARG_FLAG, &w->json, NULL, "print one JSON object"},
		{"csv", ARG_FLAG, &w->csv, NULL, "print a heading and one line"},
	};
	struct arg options[OPTIONS_MAX] = {0};
	size_t own = 0;
	memcpy(options, common, sizeof(common));
	for (; command->options[own].name; own++) {
		require(ARRAY_LEN(common) + own < OPTIONS_MAX - 1);
		options[ARRAY_LEN(common) + own] = command->options[own];
	}
	struct args args = {
		.command = command->name,
		.usage = command->usage,
		.summary = command->summary,
		.example = command->example,
		.options = options,
	};
	return args_parse(&args, argc, argv, ret_exit);
}

/* Digits, maybe with a point between them, and the rest of the text. */
static bool read_number(struct str text, double *ret, struct str *ret_rest)
{
	static const double tenths[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6};
	size_t n = 0;
	uint64_t whole, part = 0;
	while (n < text.n && ((text.p[n] >= '0' && text.p[n] <= '9') || text.p[n] == '.'))
		n++;
	struct str fraction = str_mem(text.p, n), head;
	bool has_point = str_cut(&fraction, '.', &head);
	if (!has_point)
		head = fraction;
	if (!str_to_u64(head, &whole))
		return false;
	if (has_point && (fraction.n >= ARRAY_LEN(tenths) || !str_to_u64(fraction, &part)))
		return false;
	*ret = (double)whole + (has_point ? (double)part / tenths[fraction.n] : 0);
	*ret_rest = str_mem(text.p + n, text.n - n);
	return true;
}

static bool read_rate(const char *text, double *ret)
{
	struct str rest;
	return read_number(str_of(text), ret, &rest) && !rest.n && *ret > 0 && *ret <= 1e8;
}

/* "10s", "500ms", "2m"; up to a day. */
static bool read_duration(const char *text, int64_t *ret_ns)
{
	static const struct {
		const char *name;
		double ns;
	} units[] = {{"ms", 1e6}, {"s", 1e9}, {"m", 6e10}, {"h", 3.6e12}};
	double v;
	struct str rest;
	if (!read_number(str_of(text), &v, &rest))
		return false;
	for (size_t i = 0; i < ARRAY_LEN(units); i++) {
		if (!str_eq(rest, str_of(units[i].name)) || v * units[i].ns > 8.64e13)
			continue;
		*ret_ns = (int64_t)(v * units[i].ns);
		return true;
	}
	return false;
}

/* Texts that are numbers of their own kind; absent ones keep their defaults. */
static int convert(const struct words *w, struct load_options *o)
{
	const struct {
		const char *name, *text;
		int64_t *ns;
		double *rate;
	} values[] = {
		{"duration", w->duration, .ns = &o->duration_ns},
		{"warmup", w->warmup, .ns = &o->warmup_ns},
		{"timeout", w->timeout, .ns = &o->timeout_ns},
		{"rate", w->rate, .rate = &o->rate},
		{"churn", w->churn, .rate = &o->churn},
	};
	for (size_t i = 0; i < ARRAY_LEN(values); i++) {
		const char *text = values[i].text;
		if (text && values[i].ns && !read_duration(text, values[i].ns))
			return cli_usage_error(
				w->command, "--%s takes a time such as 500ms, 10s or 2m", values[i].name);
		if (text && values[i].rate && !read_rate(text, values[i].rate))
			return cli_usage_error(
				w->command, "--%s takes a number greater than 0", values[i].name);
	}
	return EXIT_DONE;
}

static int check(const struct words *w)
{
	const struct {
		const char *name, *text;
	} required[] = {{"url", w->url}, {"cert", w->cert}, {"key", w->key}, {"ca", w->ca}};
	for (size_t i = 0; i < ARRAY_LEN(required); i++)
		if (!required[i].text)
			return cli_usage_error(w->command, "--%s is missing", required[i].name);
	if (w->threads > w->connections)
		return cli_usage_error(w->command, "more --threads than --connections");
	if (w->streams && !w->http2)
		return cli_usage_error(w->command, "--streams needs --http2; for HTTP/1.1 use --pipeline");
	if (w->pipeline && w->http2)
		return cli_usage_error(w->command, "--pipeline is for HTTP/1.1; with --http2 use --streams");
	if (w->messages && w->duration)
		return cli_usage_error(w->command, "--messages and --duration are alternatives");
	if (w->json && w->csv)
		return cli_usage_error(w->command, "--json and --csv are alternatives");
	return EXIT_DONE;
}

static char *url_part(CURLU *url, CURLUPart part)
{
	char *text = NULL;
	return curl_url_get(url, part, &text, CURLU_DEFAULT_PORT) == CURLUE_OK ? text : NULL;
}

/* A copy without the brackets of an IPv6 address, as getaddrinfo and certificates want it. */
static char *bare_host(const char *host)
{
	size_t n = strlen(host);
	if (n > 1 && host[0] == '[' && host[n - 1] == ']')
		return strndup(host + 1, n - 2);
	return strdup(host);
}

static bool take_url_parts(CURLU *url, struct load_options *o)
{
	char *scheme = url_part(url, CURLUPART_SCHEME);
	char *host = url_part(url, CURLUPART_HOST), *port = url_part(url, CURLUPART_PORT);
	bool https = scheme && host && port && str_eq(str_of(scheme), STR("https"));
	if (https) {
		o->host = bare_host(host);
		o->port = strdup(port);
		if (asprintf(&o->authority, "%s:%s", host, port) < 0)
			o->authority = NULL;
	}
	curl_free(scheme);
	curl_free(host);
	curl_free(port);
	return https;
}

static int read_target(struct load_options *o)
{
	CURLU *url = curl_url();
	bool https =
		url && curl_url_set(url, CURLUPART_URL, o->url, 0) == CURLUE_OK && take_url_parts(url, o);
	curl_url_cleanup(url);
	if (https && o->host && o->port && o->authority)
		return EXIT_DONE;
	load_options_clear(o);
	return cli_usage_error(o->command, "--url takes https://HOST:PORT");
}

static void take_words(const struct words *w, struct load_options *o)
{
	*o = (struct load_options){
		.command = w->command,
		.url = w->url,
		.cert = w->cert,
		.key = w->key,
		.ca = w->ca,
		.connections = (unsigned)w->connections,
		.threads = (unsigned)w->threads,
		.depth = w->pipeline  ? (unsigned)w->pipeline
			 : w->streams ? (unsigned)w->streams
				      : 1,
		.http2 = w->http2,
		.batch = (unsigned)w->batch,
		.body_bytes = (unsigned)w->body_bytes,
		.messages = (uint64_t)w->messages,
		.duration_ns = 10 * second_ns,
		/* A given number of messages is sent exactly, unless a warm-up is asked for. */
		.warmup_ns = w->messages ? 0 : second_ns,
		.timeout_ns = 30 * second_ns,
		.server_pid = (pid_t)w->server_pid,
		.ledger = w->ledger,
		.format = w->json  ? LOAD_JSON
			  : w->csv ? LOAD_CSV
				   : LOAD_TEXT,
	};
}

bool load_options_read(
	const struct load_command *command, int argc, char **argv, struct load_options *ret, int *ret_exit)
{
	struct words w = {.command = command->name, .connections = 64, .threads = 1, .body_bytes = 40};
	if (!parse_words(command, argc, argv, &w, ret_exit))
		return false;
	*ret_exit = check(&w);
	if (*ret_exit == EXIT_DONE) {
		take_words(&w, ret);
		*ret_exit = convert(&w, ret);
	}
	if (*ret_exit == EXIT_DONE)
		*ret_exit = read_target(ret);
	return *ret_exit == EXIT_DONE;
}

void load_options_clear(struct load_options *o)
{
	free(o->host);
	free(o->port);
	free(o->authority);
	o->host = o->port = o->authority = NULL;
}
