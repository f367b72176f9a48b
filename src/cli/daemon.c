/* daemon.c - see daemon.h.
 *
 * All signals are blocked in every thread and taken by the main thread in sigtimedwait, so that no handler
 * ever runs in the middle of anything. systemd is told by datagrams on $NOTIFY_SOCKET (sd_notify(3)), which
 * needs no library. */
#include "cli/daemon.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "cli/activation.h"
#include "cli/home.h"
#include "cli/settings.h"
#include "cli/watch.h"
#include "role/version.h"

enum { READY_FILE_BYTES = 16 * 1024, NAMES_BYTES = 4096, RENEW_MS = 60 * 60 * 1000 };

struct daemon {
	const struct daemon_command *command;
	struct settings settings;
	struct config *started; /* what options that need a restart are set to */
	struct config *config;  /* the newest */
	const char *ready_file;
	bool announced; /* that we are ready */
	sigset_t signals;
	struct app_sockets sockets;
	struct app *app;
	struct watch watch;
};

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

/* Tells systemd, when it runs us as a notify service; nobody listens otherwise. */
static void notify_systemd(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t n = path ? strlen(path) : 0;
	if (n < 2 || n >= sizeof(address.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	AUTO(fd_auto) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	memcpy(address.sun_path, path, n);
	if (path[0] == '@')
		address.sun_path[0] = 0; /* the abstract name space */
	socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
	if (fd >= 0 &&
		sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, length) < 0)
		log_event(LOG_DEBUG, "daemon.notify_failed", LF_INT("errno", errno));
}

static void put_url(struct json_out *w, const char *key, const char *scheme, const char *address)
{
	char url[300];
	if (!address)
		return;
	snprintf(url, sizeof(url), "%s://%s", scheme, address);
	json_put_str(w, key, str_of(url));
}

static int write_ready_file(const struct daemon *d, struct err *e)
{
	AUTO(buf_auto) struct buf text;
	buf_init(&text, READY_FILE_BYTES);
	struct json_out w = json_out_to(&text);
	json_open_object(&w, NULL);
	json_put_int(&w, "pid", getpid());
	put_url(&w, "ingest", "https", app_ingest_address(d->app));
	put_url(&w, "server", "https", app_server_address(d->app));
	put_url(&w, "metrics", "http", app_metrics_address(d->app));
	put_url(&w, "crl", "http", app_crl_address(d->app));
	json_put_str(&w, "ca", str_of(app_ca_file(d->app)));
	if (app_server_address(d->app))
		json_put_str(&w, "admin_socket", str_of(d->settings.paths.admin_socket));
	json_close_object(&w);
	buf_add_char(&text, '\n');
	return buf_check(&text, e) < 0 ? -1 : file_replace(d->ready_file, 0644, buf_str(&text), e);
}

/* What a reload cannot change is named in the log, as long as it is not in force. */
static void take_config(struct daemon *d, struct config *fresh)
{
	AUTO(buf_auto) struct buf names;
	buf_init(&names, NAMES_BYTES);
	if (config_changed_restart(d->started, fresh, &names) > 0)
		log_event(LOG_WARN, "daemon.restart_needed", LF_VIEW("options", buf_str(&names)));
	if (d->config != d->started)
		config_free(d->config);
	d->config = fresh;
}

/* On SIGHUP, and when a file that a reload reads has changed. All or nothing but for the log, which is opened
 * anew in any case: it may have been moved away. */
static void reload(struct daemon *d, const char *why)
{
	struct err e = ERR_INIT, log_e = ERR_INIT;
	struct config *fresh = NULL;
	/* READY=1 ends a reload, and a start too: before that one is over nothing is said. */
	if (d->announced)
		notify_systemd("RELOADING=1");
	int rc = settings_load(&d->settings, &fresh, &e);
	if (rc >= 0)
		rc = app_reload(d->app, fresh, &e);
	if (rc >= 0)
		take_config(d, TAKE(fresh));
	config_free(fresh);
	if (settings_log(d->config, true, &log_e) < 0)
		log_event(LOG_ERROR, "daemon.log_failed", LF_ERR(&log_e));
	if (rc < 0)
		log_event(LOG_ERROR, "daemon.reload_failed", LF_STR("why", why), LF_ERR(&e));
	else
		log_event(LOG_INFO, "daemon.reloaded", LF_STR("why", why));
	if (d->announced)
		notify_systemd("READY=1");
}

static void renew(struct daemon *d)
{
	struct err e = ERR_INIT;
	if (app_renew_certs(d->app, d->config, &e) < 0)
		log_event(LOG_ERROR, "certificate.renewal_failed", LF_ERR(&e));
}

static void log_ready(const struct daemon *d)
{
	const char *const addresses[] = {
		app_ingest_address(d->app), app_server_address(d->app), app_metrics_address(d->app)};
	log_event(LOG_INFO, "daemon.ready", LF_STR("role", d->command->command),
		LF_STR("version", SEALPOST_VERSION), LF_STR("ingest", addresses[0] ? addresses[0] : "-"),
		LF_STR("server", addresses[1] ? addresses[1] : "-"),
		LF_STR("metrics", addresses[2] ? addresses[2] : "-"), LF_STR("data", d->settings.paths.data));
}

/* Once, when a message can be durably accepted; an engine that is away, or not as it has to be, is waited for. */
static int announce(struct daemon *d, struct err *e)
{
	if (d->announced || !app_ready(d->app))
		return 0;
	if (d->ready_file && write_ready_file(d, e) < 0)
		return -1;
	d->announced = true;
	log_ready(d);
	notify_systemd("READY=1");
	return 0;
}

static void announce_later(struct daemon *d)
{
	struct err e = ERR_INIT;
	if (announce(d, &e) < 0)
		log_event(LOG_ERROR, "daemon.ready_file", LF_ERR(&e));
}

/* Serves until told to stop. */
static void serve(struct daemon *d)
{
	const struct timespec second = {1, 0};
	struct mono renew_at = mono_add_ms(clock_mono(&clock_system), RENEW_MS);
	while (true) {
		int got = sigtimedwait(&d->signals, NULL, &second);
		if (got == SIGTERM || got == SIGINT) {
			log_event(LOG_INFO, "daemon.stopping",
				LF_STR("signal", got == SIGTERM ? "TERM" : "INT"));
			return;
		}
		if (got == SIGHUP)
			reload(d, "signal");
		else if (watch_changed(&d->watch))
			reload(d, "files");
		app_tick(d->app);
		announce_later(d);
		if (mono_reached(clock_mono(&clock_system), renew_at) || app_issuer_changed(d->app)) {
			renew_at = mono_add_ms(clock_mono(&clock_system), RENEW_MS);
			renew(d);
		}
		if (app_alive(d->app))
			notify_systemd("WATCHDOG=1");
	}
}

static int run(struct daemon *d, struct err *e)
{
	bool authority = !(d->command->mode & (APP_PROXY | APP_WORKER));
	if (activation_take(&d->sockets, e) < 0 || settings_open(&d->settings, &d->config, e) < 0 ||
		settings_log(d->config, false, e) < 0)
		return -1;
	d->started = d->config;
	if (home_init(&d->settings.paths, d->config, authority, e) < 0)
		return err_context(e, "initialise '%s'", d->settings.paths.data);
	/* One that a killed process left behind would say that we accept already. */
	if (d->ready_file && unlink(d->ready_file) < 0 && errno != ENOENT)
		return err_sys(e, ERR_FATAL, "remove the old '%s'", d->ready_file);
	if (app_open_on(&d->settings.paths, d->config, d->command->mode, &d->sockets, &d->app, e) < 0)
		return -1;
	watch_add(&d->watch, d->settings.file ? d->settings.file : d->settings.paths.config);
	app_watch_files(d->app, &d->watch);
	if (announce(d, e) < 0) {
		app_close(d->app, 0);
		return -1;
	}
	serve(d);
	notify_systemd("STOPPING=1");
	app_close(d->app, d->config->drain_timeout);
	if (d->ready_file)
		unlink(d->ready_file);
	log_event(LOG_INFO, "daemon.stopped");
	return 0;
}

int daemon_main(const struct daemon_command *command, int argc, char **argv)
{
	struct daemon d = {.command = command};
	const struct arg options[] = {
		{"data", ARG_TEXT, &d.settings.data, "DIR",
			"data directory; made and initialised when missing"},
		{"config", ARG_TEXT, &d.settings.file, "FILE", "configuration; default DIR/sealpost.yaml"},
		{"ready-file", ARG_TEXT, &d.ready_file, "FILE",
			"written once everything accepts: addresses, as JSON"},
		{"set", ARG_LIST, &d.settings.sets, "KEY=VALUE", "one option; may be given again"},
		{0},
	};
	struct args a = {.command = command->command,
		.usage = "[--data DIR] [--config FILE] [--ready-file FILE] [--set KEY=VALUE …]",
		.summary = command->summary,
		.example = command->example,
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	block_signals(&d.signals);
	set_process_limits();
	int rc = run(&d, &e);
	log_close();
	if (d.config != d.started)
		config_free(d.config);
	config_free(d.started);
	settings_clear(&d.settings);
	return rc < 0 ? settings_fail(&d.settings, command->command, &e) : EXIT_DONE;
}
