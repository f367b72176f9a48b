/* admin.c - see admin.h. */
#include "cli/admin.h"

#include <curl/curl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/log.h"
#include "cli/app.h"

/* What holds the directory is another command, or a daemon that starts: both are soon over. */
enum { HELD_WAIT_MS = 30 * 1000, HELD_LOOK_NS = 50 * 1000 * 1000 };

enum { PATH_BYTES = 1024 * 1024, ANSWER_BYTES = 64 * 1024 * 1024, TIMEOUT_S = 60, PAGE_MAX = 500 };

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

/* Without a daemon, the main server is here for as long as this command runs. */
static int find_server(
	struct admin *a, const struct settings *settings, const struct config *config, struct err *e)
{
	/* Nothing of a short-lived server belongs on the terminal but its warnings. */
	struct log_options quiet = {.level = LOG_WARN, .to_stderr = true, .clock = &clock_system};
	const struct timespec pause = {0, HELD_LOOK_NS};
	struct mono deadline = mono_add_ms(clock_mono(&clock_system), HELD_WAIT_MS);
	struct err why = ERR_INIT;
	while (!daemon_answers(a->socket_path)) {
		if (log_open(&quiet, e) < 0)
			return -1;
		if (app_open(&settings->paths, config, APP_ADMIN, &a->app, &why) >= 0)
			return 0;
		if (why.kind != ERR_CONFLICT || mono_reached(clock_mono(&clock_system), deadline)) {
			*e = why;
			return why.kind == ERR_CONFLICT ? err_context(e, "no daemon answers") : -1;
		}
		nanosleep(&pause, NULL);
	}
	return 0;
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
	if (rc >= 0)
		rc = find_server(a, settings, config, e);
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
	/* "/reason" or "?reason": whoever typed --reason knows neither bodies nor queries. */
	const char *pointer = json_text(field, "pointer");
	if (field)
		return err_set(e, kind, "%s%s%s", *pointer ? pointer + 1 : "", *pointer ? ": " : "",
			json_text(field, "detail"));
	return err_set(e, kind, "%s", detail[0] ? detail : title[0] ? title : "the server failed");
}

int admin_call(struct admin *a, const char *method, const char *path, const json_t *body, json_t **ret,
	struct err *e)
{
	AUTO(buf_wipe_auto) struct buf answer;
	AUTO(free_auto) char *url = NULL, *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	buf_init(&answer, ANSWER_BYTES);
	if (!path)
		return err_oom(e);
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

int admin_page(struct admin *a, const char *path, const char *member, int64_t max,
	char cursor[ADMIN_CURSOR_BYTES], json_t *rows, struct err *e)
{
	char limit[32];
	snprintf(limit, sizeof(limit), "%lld", (long long)(max < PAGE_MAX ? max : PAGE_MAX));
	AUTO(free_auto)
	char *page = path ? admin_path(path, "limit", limit, "cursor", cursor, (char *)NULL) : NULL;
	AUTO(json_auto) json_t *answer = NULL;
	if (admin_call(a, "GET", page, NULL, &answer, e) < 0)
		return -1;
	const char *next = json_text(answer, "next_cursor");
	if (strlen(next) >= ADMIN_CURSOR_BYTES)
		return err_set(e, ERR_FATAL, "GET %s: its cursor is too long", path);
	memcpy(cursor, next, strlen(next) + 1);
	return json_array_extend(rows, json_object_get(answer, member)) < 0 ? err_oom(e) : 0;
}

int admin_rows(
	struct admin *a, const char *path, const char *member, int64_t max, json_t **ret, struct err *e)
{
	AUTO(json_auto) json_t *rows = json_array();
	char cursor[ADMIN_CURSOR_BYTES] = "";
	if (!rows)
		return err_oom(e);
	do {
		int64_t left = max - (int64_t)json_array_size(rows);
		if (admin_page(a, path, member, left, cursor, rows, e) < 0)
			return -1;
	} while (*cursor && (int64_t)json_array_size(rows) < max);
	*ret = TAKE(rows);
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

int admin_rows_once(struct settings *settings, const char *path, const char *member, int64_t max,
	json_t **ret, struct err *e)
{
	struct admin *admin = NULL;
	int rc = admin_open(settings, &admin, e);
	if (rc >= 0)
		rc = admin_rows(admin, path, member, max, ret, e);
	admin_close(admin);
	settings_clear(settings);
	return rc;
}

/* --- whole commands --- */

int admin_show(const char *command, struct settings *settings, const char *path, bool json,
	void (*print)(const json_t *answer))
{
	struct err e = ERR_INIT;
	AUTO(json_auto) json_t *answer = NULL;
	if (admin_once(settings, "GET", path, NULL, &answer, &e) < 0)
		return cli_fail(command, &e);
	(json ? print_json : print)(answer);
	return EXIT_DONE;
}

int admin_show_rows(const char *command, const json_t *rows, bool json, const struct answer_column *columns)
{
	struct err e = ERR_INIT;
	if (json)
		print_json(rows);
	else if (print_table(rows, columns, stdout, &e) < 0)
		return cli_fail(command, &e);
	return EXIT_DONE;
}

/* --- paths --- */

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

/* The text, which is the caller's now; NULL when it did not fit. */
static char *path_end(struct buf *out)
{
	buf_add_char(out, 0);
	if (out->failed)
		buf_clear(out);
	return out->p;
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
	return path_end(&out);
}

char *admin_path_of(const char *base, const char *name, const char *tail)
{
	struct buf out;
	buf_init(&out, PATH_BYTES);
	buf_add_str(&out, str_of(base));
	add_encoded(&out, name);
	buf_add_str(&out, str_of(tail));
	return path_end(&out);
}

void admin_note_new_domain(const json_t *answer)
{
	if (json_is_true(json_object_get(answer, "new_domain")))
		fprintf(stderr,
			"note: '%s' is a new domain: no client belonged to it, and the configuration does not list it\n",
			json_text(answer, "domain"));
}
