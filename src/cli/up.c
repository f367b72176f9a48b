/* up.c - sealpost up: every role in one process. The daemon's skeleton lives here: signals, readiness,
 * reload, drain.
 *
 * All signals are blocked in every thread and taken by the main thread in sigtimedwait, so that no handler
 * ever runs in the middle of anything. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "cli/app.h"
#include "cli/cli.h"
#include "cli/settings.h"
#include "role/version.h"

static void block_signals(sigset_t *ret_set)
{
	sigemptyset(ret_set);
	sigaddset(ret_set, SIGTERM);
	sigaddset(ret_set, SIGINT);
	sigaddset(ret_set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, ret_set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* Plaintext lives in this process's memory for moments: it must not end up in a core dump. Every connection
 * is a file descriptor: take as many as we may. */
static void set_process_limits(void)
{
	struct rlimit none = {0, 0}, files;
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

static void put_url(struct json_out *w, const char *key, const char *scheme, const char *address)
{
	char url[300];
	if (!address)
		return;
	snprintf(url, sizeof(url), "%s://%s", scheme, address);
	json_put_str(w, key, str_of(url));
}

static int write_ready_file(const char *path, const struct app *app, const struct paths *paths, struct err *e)
{
	AUTO(buf_auto) struct buf text;
	buf_init(&text, 16 * 1024);
	struct json_out w = json_out_to(&text);
	json_open_object(&w, NULL);
	json_put_int(&w, "pid", getpid());
	put_url(&w, "ingest", "https", app_ingest_address(app));
	put_url(&w, "server", "https", app_server_address(app));
	put_url(&w, "metrics", "http", app_metrics_address(app));
	json_put_str(&w, "ca", str_of(paths->ca_bundle));
	json_put_str(&w, "admin_socket", str_of(paths->admin_socket));
	json_close_object(&w);
	buf_add_char(&text, '\n');
	return buf_check(&text, e) < 0 ? -1 : file_replace(path, 0644, buf_str(&text), e);
}

static void reload(struct app *app, const struct settings *settings, struct config **config)
{
	struct err e = ERR_INIT;
	struct config *fresh = NULL;
	if (settings_load(settings, &fresh, &e) < 0 || settings_log(fresh, true, &e) < 0 ||
		app_reload(app, fresh, &e) < 0) {
		log_event(LOG_ERROR, "daemon.reload_failed", LF_ERR(&e));
		config_free(fresh);
		return;
	}
	config_free(*config);
	*config = fresh;
	log_event(LOG_INFO, "daemon.reloaded");
}

/* Serves until told to stop. */
static void serve(
	struct app *app, const struct settings *settings, struct config **config, const sigset_t *signals)
{
	const struct timespec second = {1, 0};
	while (true) {
		int got = sigtimedwait(signals, NULL, &second);
		if (got == SIGTERM || got == SIGINT) {
			log_event(LOG_INFO, "daemon.stopping",
				LF_STR("signal", got == SIGTERM ? "TERM" : "INT"));
			return;
		}
		if (got == SIGHUP)
			reload(app, settings, config);
		app_tick(app);
	}
}

static int run(const struct settings *settings, struct config **config, const char *ready_file,
	const sigset_t *signals, struct err *e)
{
	struct app *app;
	if (app_init(&settings->paths, *config, e) < 0)
		return err_context(e, "initialise '%s'", settings->paths.data);
	if (app_open(&settings->paths, *config, APP_ALL, &app, e) < 0)
		return -1;
	if (ready_file && write_ready_file(ready_file, app, &settings->paths, e) < 0) {
		app_close(app, 0);
		return -1;
	}
	log_event(LOG_INFO, "daemon.ready", LF_STR("version", SEALPOST_VERSION),
		LF_STR("ingest", app_ingest_address(app)), LF_STR("server", app_server_address(app)),
		LF_STR("metrics", app_metrics_address(app)), LF_STR("data", settings->paths.data));
	serve(app, settings, config, signals);
	app_close(app, (*config)->drain_timeout);
	if (ready_file)
		unlink(ready_file);
	log_event(LOG_INFO, "daemon.stopped");
	return 0;
}

int cmd_up(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	const char *ready_file = NULL;
	const struct arg options[] = {
		{"data", ARG_TEXT, &settings.data, "DIR",
			"data directory; made and initialised when missing"},
		{"config", ARG_TEXT, &settings.file, "FILE", "configuration; default DIR/sealpost.yaml"},
		{"ready-file", ARG_TEXT, &ready_file, "FILE",
			"written once everything accepts: addresses, as JSON"},
		{"set", ARG_LIST, &settings.sets, "KEY=VALUE", "one option; may be given again"},
		{0},
	};
	struct args a = {.command = "up",
		.usage = "[--data DIR] [--config FILE] [--ready-file FILE] [--set KEY=VALUE …]",
		.summary =
			"Runs every role in one process on embedded engines: proxy, queue, worker, main server.\n"
			"SIGTERM finishes what was accepted and ends; SIGHUP reloads configuration and certificates.",
		.example = "  sealpost up --data ./data --set ingest_listen=0.0.0.0:8001",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	sigset_t signals;
	struct err e = ERR_INIT;
	struct config *config = NULL;
	block_signals(&signals);
	set_process_limits();
	int rc = settings_open(&settings, &config, &e);
	if (rc >= 0)
		rc = settings_log(config, false, &e);
	if (rc >= 0)
		rc = run(&settings, &config, ready_file, &signals, &e);
	log_close();
	config_free(config);
	settings_clear(&settings);
	return rc < 0 ? cli_fail("up", &e) : EXIT_DONE;
}
