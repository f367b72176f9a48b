/* admin.c - see admin.h. */
#include "cli/admin.h"

#include <curl/curl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/log.h"
#include "cli/app.h"

enum { PATH_BYTES = 16 * 1024, ANSWER_BYTES = 64 * 1024 * 1024, TIMEOUT_S = 60 };

struct admin {
	CURL *curl;
	struct app *app; /* when there is no daemon */
	char *socket_path;
	long timeout_s;
};

/* Whether somebody answers on the socket. */
static bool daemon_answers(const char *path)
{
	AUTO(fd_auto) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (fd < 0 || strlen(path) >= sizeof(address.sun_path))
		return false;
	memcpy(address.sun_path, path, strlen(path) + 1);
	return connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0;
}

static int open_here(
	struct admin *a, const struct settings *settings, const struct config *config, struct err *e)
{
	/* Nothing of a short-lived server belongs on the terminal but its warnings. */
	struct log_options quiet = {.level = LOG_WARN, .to_stderr = true, .clock = &clock_system};
	if (log_open(&quiet, e) < 0)
		return -1;
	return app_open(&settings->paths, config, APP_ADMIN, &a->app, e);
}

int admin_open(struct settings *settings, struct admin **ret, struct err *e)
{
	struct config *config = NULL;
	if (settings_open(settings, &config, e) < 0)
		return -1;
	struct admin *a = calloc(1, sizeof(*a));
	int rc = a ? 0 : err_oom(e);
	if (rc >= 0) {
		a->timeout_s = TIMEOUT_S;
		a->socket_path = strdup(settings->paths.admin_socket);
		rc = a->socket_path ? 0 : err_oom(e);
	}
	if (rc >= 0 && access(settings->paths.data, X_OK) < 0 && access(settings->paths.data, F_OK) == 0)
		rc = err_set(e, ERR_FORBIDDEN,
			"'%s' belongs to another user; run this as that user or as root",
			settings->paths.data);
	if (rc >= 0 && !daemon_answers(a->socket_path))
		rc = open_here(a, settings, config, e);
	config_free(config);
	if (rc >= 0) {
		a->curl = curl_easy_init();
		rc = a->curl ? 0 : err_oom(e);
	}
	if (rc < 0) {
		admin_close(a);
		return -1;
	}
	*ret = a;
	return 0;
}

void admin_close(struct admin *a)
{
	if (!a)
		return;
	curl_easy_cleanup(a->curl);
	app_close(a->app, 1000);
	free(a->socket_path);
	free(a);
}

bool admin_has_daemon(const struct admin *a)
{
	return !a->app;
}

void admin_set_timeout(struct admin *a, long seconds)
{
	a->timeout_s = seconds;
}

static size_t take_bytes(char *bytes, size_t size, size_t n, void *arg)
{
	struct buf *answer = arg;
	buf_add(answer, bytes, size * n);
	return answer->failed ? 0 : size * n;
}

/* The problem's sentence, with the first field that is wrong. */
static int problem_to_err(long status, const json_t *problem, struct err *e)
{
	static const struct {
		long status;
		enum err_kind kind;
	} kinds[] = {{401, ERR_FORBIDDEN}, {403, ERR_FORBIDDEN}, {404, ERR_NOT_FOUND}, {409, ERR_CONFLICT},
		{429, ERR_RETRY}, {503, ERR_RETRY}};
	enum err_kind kind = status >= 500 ? ERR_FATAL : ERR_REJECT;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (kinds[i].status == status)
			kind = kinds[i].kind;
	const json_t *field = json_array_get(json_object_get(problem, "errors"), 0);
	const char *detail = json_text(problem, "detail"), *title = json_text(problem, "title");
	if (field)
		return err_set(e, kind, "%s: %s", json_text(field, "pointer"), json_text(field, "detail"));
	return err_set(e, kind, "%s", detail[0] ? detail : title[0] ? title : "the server failed");
}

int admin_call(struct admin *a, const char *method, const char *path, const json_t *body, json_t **ret,
	struct err *e)
{
	AUTO(buf_wipe_auto) struct buf answer;
	AUTO(free_auto) char *url = NULL, *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	buf_init(&answer, ANSWER_BYTES);
	if (asprintf(&url, "http://localhost%s", path) < 0) {
		url = NULL;
		return err_oom(e);
	}
	struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
	curl_easy_reset(a->curl);
	curl_easy_setopt(a->curl, CURLOPT_UNIX_SOCKET_PATH, a->socket_path);
	curl_easy_setopt(a->curl, CURLOPT_URL, url);
	curl_easy_setopt(a->curl, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(a->curl, CURLOPT_TIMEOUT, a->timeout_s);
	curl_easy_setopt(a->curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(a->curl, CURLOPT_PROXY, "");
	curl_easy_setopt(a->curl, CURLOPT_WRITEFUNCTION, take_bytes);
	curl_easy_setopt(a->curl, CURLOPT_WRITEDATA, &answer);
	curl_easy_setopt(a->curl, CURLOPT_HTTPHEADER, headers);
	if (text)
		curl_easy_setopt(a->curl, CURLOPT_POSTFIELDS, text);
	CURLcode code = curl_easy_perform(a->curl);
	long status = 0;
	curl_easy_getinfo(a->curl, CURLINFO_RESPONSE_CODE, &status);
	curl_slist_free_all(headers);
	if (code != CURLE_OK)
		return err_set(e, ERR_RETRY, "the daemon at '%s' does not answer: %s", a->socket_path,
			curl_easy_strerror(code));
	AUTO(json_auto) json_t *in = NULL;
	if (json_read(buf_str(&answer), &in, e) < 0)
		return err_context(e, "%s %s: status %ld", method, path, status);
	if (status >= 400)
		return problem_to_err(status, in, e);
	*ret = TAKE(in);
	return 0;
}

int admin_once(struct settings *settings, const char *method, const char *path, const json_t *body,
	json_t **ret, struct err *e)
{
	struct admin *admin = NULL;
	int rc = admin_open(settings, &admin, e);
	if (rc >= 0)
		rc = admin_call(admin, method, path, body, ret, e);
	admin_close(admin);
	settings_clear(settings);
	return rc;
}

static void add_encoded(struct buf *out, const char *value)
{
	for (const char *p = value; *p; p++) {
		bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
			     (*p >= '0' && *p <= '9') || strchr("-._~", *p);
		if (plain)
			buf_add_char(out, *p);
		else
			buf_addf(out, "%%%02X", (unsigned)(unsigned char)*p);
	}
}

char *admin_path(const char *base, ...)
{
	struct buf out;
	buf_init(&out, PATH_BYTES);
	buf_add_str(&out, str_of(base));
	va_list ap;
	va_start(ap, base);
	char separator = strchr(base, '?') ? '&' : '?';
	for (const char *key = va_arg(ap, const char *); key; key = va_arg(ap, const char *)) {
		const char *value = va_arg(ap, const char *);
		if (!value || !*value)
			continue;
		buf_add_char(&out, separator);
		buf_add_str(&out, str_of(key));
		buf_add_char(&out, '=');
		add_encoded(&out, value);
		separator = '&';
	}
	va_end(ap);
	buf_add_char(&out, 0);
	if (out.failed)
		buf_clear(&out);
	return out.p;
}

const char *json_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text ? text : "";
}

int64_t json_number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

void print_json(const json_t *answer)
{
	json_dumpf(answer, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
}
