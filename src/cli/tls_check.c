/* tls_check.c - sealpost tls check: what happens when a client connects, in words for people.
 *
 * The probe (tls_probe.h) tries it; here every fact becomes a step, and the first fault decides the verdict and
 * the exit code. Who refused whom is the question that mutual TLS leaves people with, so it is answered in full. */
#include <curl/curl.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/json.h"
#include "cli/answer.h"
#include "cli/cli.h"
#include "cli/term.h"
#include "cli/tls.h"
#include "cli/tls_probe.h"
#include "tls/openssl.h"

enum { WORDS_BYTES = 800, TIMEOUT_S = 10, TIMEOUT_S_MAX = 300, LISTED_MAX = 6 };

enum outcome { ACCEPTED, REFUSED_BY_SERVER, REFUSED_BY_US, UNREACHABLE, BROKEN };

static const struct {
	const char *name, *title;
	enum exit_code exit;
	enum term_style style;
} outcomes[] = {
	[ACCEPTED] = {"accepted", "accepted", EXIT_DONE, TERM_GREEN},
	[REFUSED_BY_SERVER] = {"refused_by_server", "refused by the server", EXIT_REFUSED, TERM_RED},
	[REFUSED_BY_US] = {"refused_by_us", "refused on our side", EXIT_REFUSED, TERM_RED},
	[UNREACHABLE] = {"unreachable", "unreachable", EXIT_UNAVAILABLE, TERM_RED},
	[BROKEN] = {"failed", "failed", EXIT_FAILED, TERM_RED},
};

struct check {
	const char *url;
	struct tls_probe_options options;
	struct tls_probe probe;
	struct wall now;
	json_t *steps, *facts;
	enum outcome outcome; /* of the first fault */
	char why[WORDS_BYTES];
};

/* A step that went wrong; the first decides. */
static void fault(struct check *c, enum outcome outcome, const char *step, const char *fmt, ...) PRINTF(4, 5);
static void fault(struct check *c, enum outcome outcome, const char *step, const char *fmt, ...)
{
	char text[WORDS_BYTES];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	steps_add(c->steps, STEP_FAILED, step, "%s", text);
	if (c->outcome != ACCEPTED)
		return;
	c->outcome = outcome;
	memcpy(c->why, text, sizeof(c->why));
}

/* --- alerts (RFC 8446 section 6) --- */

static const struct {
	int alert;
	const char *meaning;
} alerts[] = {
	{SSL_AD_CERTIFICATE_REVOKED, "your certificate was revoked, or its client is suspended"},
	{SSL_AD_CERTIFICATE_EXPIRED,
		"your certificate is not valid now: it has ended, or one of the clocks is wrong"},
	{SSL_AD_UNKNOWN_CA,
		"the server does not trust the CA that issued your certificate; it may come from another "
		"installation, or its issuer's certificate is missing from the file"},
	{SSL_AD_CERTIFICATE_UNKNOWN, "your certificate is not registered with this installation"},
	{SSL_AD_BAD_CERTIFICATE,
		"your certificate is not one that the server allows; 'sealpost cert verify FILE' says which rule it "
		"breaks"},
	{SSL_AD_UNSUPPORTED_CERTIFICATE,
		"your certificate is for another purpose, or its role is not let in there"},
	{SSL_AD_CERTIFICATE_REQUIRED, "the server wants a certificate and got none; give --cert and --key"},
	{SSL_AD_HANDSHAKE_FAILURE,
		"the two sides have no way to talk in common, or the server wants a certificate and got none"},
	{SSL_AD_PROTOCOL_VERSION, "the server speaks none of TLS 1.2 and 1.3"},
	{SSL_AD_INSUFFICIENT_SECURITY, "the server finds what was offered too weak"},
	{SSL_AD_DECRYPT_ERROR,
		"a signature does not fit: certificate and private key do not belong together"},
	{SSL_AD_UNRECOGNIZED_NAME, "the server does not know the name that was asked for; see --name"},
	{SSL_AD_NO_APPLICATION_PROTOCOL, "the server does not speak HTTP/1.1 there"},
	{SSL_AD_ACCESS_DENIED, "the server does not let this certificate in"},
	{SSL_AD_INTERNAL_ERROR, "the server has a problem of its own; look at its log"},
};

static const char *alert_meaning(int alert)
{
	for (size_t i = 0; i < ARRAY_LEN(alerts); i++)
		if (alerts[i].alert == alert)
			return alerts[i].meaning;
	return "the server gives no other reason";
}

static void fault_of_alert(struct check *c, const char *step)
{
	int alert = c->probe.alert_received;
	fault(c, REFUSED_BY_SERVER, step, "the server refused, with TLS alert '%s': %s",
		tls_alert_name(alert), alert_meaning(alert));
}

/* --- the steps, in the order in which things happen --- */

static void tell_tcp(struct check *c)
{
	const struct tls_probe *p = &c->probe;
	const struct tls_probe_options *o = &c->options;
	if (p->stage == PROBE_RESOLVE) {
		fault(c, UNREACHABLE, "resolve", "'%s': %s; is the name right?", o->host, p->trouble);
		return;
	}
	steps_add(c->steps, STEP_OK, "resolve", "%s has %u address(es)", o->host, p->address_count);
	if (p->stage == PROBE_CONNECT) {
		fault(c, UNREACHABLE, "connect", "%s port %s: %s; %s", p->address, o->port, p->trouble,
			p->timed_out ? "a firewall, or the wrong address?"
				     : "is the server running, and on this port?");
		return;
	}
	json_object_set_new(c->facts, "address", json_string(p->address));
	steps_add(c->steps, STEP_OK, "connect", "%s port %s, after %lld ms", p->address, o->port,
		(long long)p->connect_ms);
}

static void tell_failed_handshake(struct check *c)
{
	const struct tls_probe *p = &c->probe;
	if (p->alert_received >= 0)
		fault_of_alert(c, "tls");
	else if (p->not_tls)
		fault(c, BROKEN, "tls", "what answers there does not speak TLS (%s); is the port right?",
			p->trouble);
	else if (p->alert_sent >= 0)
		fault(c, REFUSED_BY_US, "tls", "we refused, with TLS alert '%s': %s",
			tls_alert_name(p->alert_sent), p->trouble);
	else
		fault(c, UNREACHABLE, "tls", "the handshake did not end: %s", p->trouble);
}

static void tell_tls(struct check *c)
{
	SSL *ssl = c->probe.ssl;
	/* Not SSL_is_init_finished: an alert that comes later, in place of the answer, makes it false again. */
	if (c->probe.stage == PROBE_HANDSHAKE) {
		tell_failed_handshake(c);
		return;
	}
	const char *group = SSL_group_to_name(ssl, (int)SSL_get_negotiated_group(ssl));
	json_object_set_new(c->facts, "tls",
		json_pack("{s:s, s:s, s:s}", "version", SSL_get_version(ssl), "cipher",
			SSL_get_cipher_name(ssl), "group", group ? group : ""));
	if (SSL_version(ssl) < TLS1_3_VERSION)
		fault(c, REFUSED_BY_US, "tls",
			"%s, %s: the server does not speak TLS 1.3, and clients of ours speak nothing else",
			SSL_get_version(ssl), SSL_get_cipher_name(ssl));
	else
		steps_add(c->steps, STEP_OK, "tls", "%s, %s, %s", SSL_get_version(ssl),
			SSL_get_cipher_name(ssl), group ? group : "?");
}

/* A line for each certificate that the server showed. */
static void tell_chain(struct check *c)
{
	STACK_OF(X509) *chain = SSL_get_peer_cert_chain(c->probe.ssl);
	json_t *all = json_array();
	for (int i = 0; i < sk_X509_num(chain); i++) {
		char words[WORDS_BYTES];
		json_t *cert = tls_cert_json(sk_X509_value(chain, i), c->now);
		tls_cert_words(cert, words, sizeof(words));
		bool soon = json_number(cert, "days_left") < TLS_DAYS_SOON;
		steps_add(c->steps, soon ? STEP_WARNING : STEP_OK, i == 0 ? "server" : "issuer", "%s", words);
		json_array_append_new(all, cert);
	}
	json_object_set_new(c->facts, "server_chain", all);
}

static const char *trust_of(const struct check *c)
{
	return c->options.ca ? c->options.ca : "the system's trust store";
}

static void tell_trust(struct check *c)
{
	const struct tls_probe *p = &c->probe;
	STACK_OF(X509) *chain = SSL_get0_verified_chain(p->ssl);
	if (p->trust.error != X509_V_OK)
		fault(c, REFUSED_BY_US, "trust", "certificate %d of the server: %s (trusted: %s)%s",
			p->trust.depth, X509_verify_cert_error_string(p->trust.error), trust_of(c),
			c->options.ca ? "" : "; give the installation's ca.pem with --ca");
	else
		steps_add(c->steps, STEP_OK, "trust", "%d certificate(s) lead to %s", sk_X509_num(chain),
			trust_of(c));
	if (p->time.error != X509_V_OK)
		fault(c, REFUSED_BY_US, "time", "certificate %d of the server: %s", p->time.depth,
			X509_verify_cert_error_string(p->time.error));
	else
		steps_add(c->steps, STEP_OK, "time", "every certificate of the server is valid now");
}

static void tell_name(struct check *c)
{
	const char *name = c->options.name;
	char known[WORDS_BYTES / 2];
	X509 *leaf = SSL_get0_peer_certificate(c->probe.ssl);
	bool fits = leaf && (X509_check_host(leaf, name, 0, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL) == 1 ||
				    X509_check_ip_asc(leaf, name, 0) == 1);
	tls_join(json_object_get(json_array_get(json_object_get(c->facts, "server_chain"), 0), "names"),
		LISTED_MAX, known, sizeof(known));
	if (fits)
		steps_add(c->steps, STEP_OK, "name", "the certificate is for '%s'", name);
	else
		fault(c, REFUSED_BY_US, "name", "the certificate is not for '%s' but for: %s", name,
			*known ? known : "no name at all");
}

/* --- our certificate --- */

static json_t *authorities_json(const SSL *ssl)
{
	json_t *all = json_array();
	const STACK_OF(X509_NAME) *names = SSL_get0_peer_CA_list(ssl);
	for (int i = 0; i < sk_X509_NAME_num(names); i++)
		json_array_append_new(all, tls_name_json(sk_X509_NAME_value(names, i)));
	return all;
}

static void tell_asked(struct check *c)
{
	if (!c->probe.asked) {
		json_object_set_new(c->facts, "asked", json_null());
		steps_add(c->steps, c->options.cert ? STEP_WARNING : STEP_NOTE, "asked",
			"the server does not ask for a certificate: this is not mutual TLS");
		return;
	}
	char from[WORDS_BYTES / 2], algorithms[WORDS_BYTES / 2];
	json_t *authorities = authorities_json(c->probe.ssl), *known = tls_peer_algorithms(c->probe.ssl);
	tls_join(authorities, LISTED_MAX, from, sizeof(from));
	tls_join(known, LISTED_MAX, algorithms, sizeof(algorithms));
	steps_add(c->steps, STEP_OK, "asked", "for a certificate from %s; signed with %s",
		*from ? from : "any authority", algorithms);
	json_object_set_new(c->facts, "asked",
		json_pack("{s:o, s:o}", "authorities", authorities, "signature_algorithms", known));
}

static void tell_sent(struct check *c)
{
	X509 *ours = SSL_get_certificate(c->probe.ssl);
	if (!c->probe.sent || !ours) {
		json_object_set_new(c->facts, "sent", json_null());
		if (c->probe.asked && ours)
			fault(c, REFUSED_BY_US, "sent",
				"no certificate: the server verifies no signature that this key can make");
		else if (c->probe.asked)
			steps_add(c->steps, STEP_WARNING, "sent",
				"no certificate; give one with --cert and --key");
		return;
	}
	char words[WORDS_BYTES];
	json_t *cert = tls_cert_json(ours, c->now);
	tls_cert_words(cert, words, sizeof(words));
	bool soon = json_number(cert, "days_left") < TLS_DAYS_SOON;
	steps_add(c->steps, soon ? STEP_WARNING : STEP_OK, "sent", "%s", words);
	json_object_set_new(c->facts, "sent", cert);
}

/* --- the answer --- */

/* "HTTP/1.1 200 OK": the number; 0 for anything else. */
static int http_status(struct str answer)
{
	uint64_t status;
	bool http = answer.n >= 12 && str_starts(answer, STR("HTTP/1.")) && answer.p[8] == ' ' &&
		    str_to_u64(str_mem(answer.p + 9, 3), &status);
	return http ? (int)status : 0;
}

/* What our servers say of themselves or of a refusal: a member of the JSON body, else "". */
static void answer_word(struct str answer, const char *const *members, char *out, size_t room)
{
	const char *body = memmem(answer.p, answer.n, "\r\n\r\n", 4);
	AUTO(json_auto) json_t *in = NULL;
	*out = 0;
	if (!body || json_read(str_mem(body + 4, answer.n - (size_t)(body + 4 - answer.p)), &in, NULL) < 0)
		return;
	for (; *members && !*out; members++)
		snprintf(out, room, "%s", json_text(in, *members));
}

static void tell_status(struct check *c, int status)
{
	static const char *const members[] = {"detail", "status", NULL};
	char word[256];
	answer_word(buf_str(&c->probe.answer), members, word, sizeof(word));
	json_object_set_new(c->facts, "http", json_pack("{s:i, s:s}", "status", status, "says", word));
	const char *path = c->options.path;
	if (status == 401)
		fault(c, REFUSED_BY_SERVER, "http",
			"GET %s: 401, the server wants a certificate that it accepts", path);
	else if (status == 403)
		fault(c, REFUSED_BY_SERVER, "http", "GET %s: 403 %s", path, word);
	else if (status == 200)
		steps_add(c->steps, STEP_OK, "http", "GET %s: 200%s%s", path, *word ? " " : "", word);
	else
		steps_add(c->steps, STEP_WARNING, "http",
			"GET %s: %d%s%s; TLS is fine, look at the server itself", path, status,
			*word ? " " : "", word);
}

static void tell_answer(struct check *c)
{
	const struct tls_probe *p = &c->probe;
	int status = http_status(buf_str(&p->answer));
	if (p->alert_received >= 0)
		fault_of_alert(c, "verdict");
	else if (p->stage == PROBE_REQUEST)
		fault(c, p->timed_out ? UNREACHABLE : REFUSED_BY_SERVER, "http",
			"the handshake succeeded, but GET %s was not answered: %s", c->options.path,
			p->trouble);
	else if (status == 0)
		fault(c, BROKEN, "http", "what answers GET %s does not speak HTTP", c->options.path);
	else
		tell_status(c, status);
}

static void tell(struct check *c)
{
	tell_tcp(c);
	if (c->probe.stage < PROBE_HANDSHAKE)
		return;
	tell_tls(c);
	if (SSL_get0_peer_certificate(c->probe.ssl)) {
		tell_chain(c);
		tell_trust(c);
		tell_name(c);
		tell_asked(c);
		tell_sent(c);
	}
	if (c->probe.stage > PROBE_HANDSHAKE)
		tell_answer(c);
}

/* --- the command --- */

static json_t *alert_json(const struct tls_probe *p)
{
	bool received = p->alert_received >= 0;
	int alert = received ? p->alert_received : p->alert_sent;
	if (alert < 0)
		return json_null();
	return json_pack("{s:s, s:s}", "from", received ? "server" : "us", "name", tls_alert_name(alert));
}

static int print_report(struct check *c, bool json, struct err *e)
{
	if (!json) {
		if (steps_print(c->steps, e) < 0)
			return -1;
		putchar('\n');
		term_styled(stdout, outcomes[c->outcome].style, "%s", outcomes[c->outcome].title);
		printf(": ");
		term_put_untrusted(stdout, str_of(c->outcome == ACCEPTED ? c->url : c->why));
		putchar('\n');
		return 0;
	}
	json_object_set_new(c->facts, "url", json_string(c->url));
	json_object_set_new(c->facts, "outcome", json_string(outcomes[c->outcome].name));
	json_object_set_new(c->facts, "why", json_string(c->why));
	json_object_set_new(c->facts, "alert", alert_json(&c->probe));
	json_object_set(c->facts, "steps", c->steps);
	print_json(c->facts);
	return 0;
}

/* HOST, PORT and path of the URL, in curl's memory; the scheme may be left out. */
static bool take_url(CURLU *url, struct check *c, char *parts[3])
{
	static const struct {
		CURLUPart part;
		unsigned flags;
	} wanted[] = {{CURLUPART_HOST, 0}, {CURLUPART_PORT, CURLU_DEFAULT_PORT}, {CURLUPART_PATH, 0}};
	char *scheme = NULL;
	if (curl_url_set(url, CURLUPART_URL, c->url, CURLU_DEFAULT_SCHEME) != CURLUE_OK ||
		curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK)
		return false;
	bool good = strcmp(scheme, "https") == 0;
	curl_free(scheme);
	for (size_t i = 0; good && i < ARRAY_LEN(wanted); i++)
		good = curl_url_get(url, wanted[i].part, &parts[i], wanted[i].flags) == CURLUE_OK;
	return good;
}

/* "[::1]" without the brackets. */
static char *bare_host(const char *host)
{
	size_t n = strlen(host);
	return host[0] == '[' && n > 2 ? strndup(host + 1, n - 2) : strdup(host);
}

/* The API's health route below whatever stands in front of it. */
static char *health_path(const char *prefix)
{
	char *path = NULL;
	size_t n = strlen(prefix);
	while (n && prefix[n - 1] == '/')
		n--;
	return asprintf(&path, "%.*s/api/v1/health", (int)n, prefix) < 0 ? NULL : path;
}

static int run(struct check *c, const char *name, char *const parts[3], bool json, struct err *e)
{
	AUTO(free_auto) char *host = bare_host(parts[0]);
	AUTO(free_auto) char *path = health_path(parts[2]);
	if (!host || !path || !c->steps || !c->facts)
		return err_oom(e);
	c->options.host = host;
	c->options.port = parts[1];
	c->options.path = path;
	c->options.name = name ? name : host;
	int rc = tls_probe_run(&c->options, &c->probe, e);
	if (rc >= 0) {
		tell(c);
		rc = print_report(c, json, e);
	}
	tls_probe_clear(&c->probe);
	return rc;
}

int cmd_tls_check(int argc, char **argv)
{
	struct check c = {.now = clock_wall(&clock_system)};
	const char *name = NULL;
	bool json = false;
	int64_t timeout_s = TIMEOUT_S;
	const struct arg options[] = {
		{"cert", ARG_TEXT, &c.options.cert, "FILE", "our certificate, with its issuer; PEM"},
		{"key", ARG_TEXT, &c.options.key, "FILE", "its private key; PEM"},
		{"ca", ARG_TEXT, &c.options.ca, "FILE", "whom to trust; default: the system's authorities"},
		{"name", ARG_TEXT, &name, "N", "the server's name, where it is not the URL's"},
		{"timeout", ARG_INT, &timeout_s, "SECONDS", "for all of it; default 10", 1, TIMEOUT_S_MAX},
		{"json", ARG_FLAG, &json, NULL, "steps and facts as JSON"},
		{0},
	};
	struct args a = {.command = "tls check",
		.usage = "URL [--cert FILE --key FILE] [--ca FILE] [--name N] [--timeout SECONDS] [--json]",
		.summary =
			"Connects as a client would and tells what happens: name and address, TLS, the server's certificates,\n"
			"what it asks for, what it gets, and which side refuses and why. Sends no message.\n"
			"Exit code 0: accepted, 4: refused by either side, 5: unreachable, 1: anything else.",
		.example =
			"  sealpost tls check https://broker.example.com:8001 --cert certs/client_001.pem --key \\\n"
			"    certs/client_001.key --ca certs/ca.pem",
		.options = options,
		.rest_min = 1,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	if (!c.options.cert != !c.options.key)
		return cli_usage_error("tls check", "--cert and --key go together");
	struct err e = ERR_INIT;
	char *parts[3] = {NULL, NULL, NULL};
	signal(SIGPIPE, SIG_IGN); /* a server that cuts the connection is what we are here to tell of */
	CURLU *url = curl_url();
	c.url = a.rest[0];
	c.options.timeout_ms = timeout_s * 1000;
	c.steps = json_array();
	c.facts = json_object();
	if (url && !take_url(url, &c, parts))
		code = cli_usage_error(
			"tls check", "'%s' is not a URL such as https://broker.example.com:8001", c.url);
	else if ((url ? run(&c, name, parts, json, &e) : err_oom(&e)) < 0)
		code = cli_fail("tls check", &e);
	else
		code = (int)outcomes[c.outcome].exit;
	for (size_t i = 0; i < ARRAY_LEN(parts); i++)
		curl_free(parts[i]);
	curl_url_cleanup(url);
	json_decref(c.steps);
	json_decref(c.facts);
	return code;
}
