/* run.c - see run.h. The owner sleeps; it wakes for the start and the end of the measurement, to take the CPU
 * samples that belong to the same window as the counts, and for the progress line. */
#include "cli/load/run.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "cli/term.h"
#include "tls/context.h"

static const int64_t second_ns = 1000000000, progress_ns = 200000000, poll_ns = 20000000;

static volatile sig_atomic_t interrupted;

struct run {
	const struct load_options *options;
	const struct run_watch *watch; /* NULL: nobody does */
	struct load load;
	struct load_worker **workers;
	unsigned worker_count;
	struct churn *churn;
	struct process_usage server_before;
	int64_t client_before_ns;
	int64_t progress_at_ns;
	uint64_t progress_accepted;
};

static void on_signal(int signal)
{
	interrupted = 1;
}

static void sleep_until(int64_t at_ns)
{
	struct timespec t = {.tv_sec = at_ns / second_ns, .tv_nsec = at_ns % second_ns};
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static int64_t own_cpu_ns(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return ((int64_t)u.ru_utime.tv_sec + u.ru_stime.tv_sec) * second_ns +
	       ((int64_t)u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000;
}

static bool all_done(const struct run *run)
{
	for (unsigned i = 0; i < run->worker_count; i++)
		if (!load_worker_done(run->workers[i]))
			return false;
	return true;
}

static void show_progress(struct run *run, int64_t now)
{
	if (now - run->progress_at_ns < progress_ns)
		return;
	uint64_t accepted = 0, failed = 0;
	for (unsigned i = 0; i < run->worker_count; i++) {
		accepted += load_worker_accepted(run->workers[i]);
		failed += load_worker_failed(run->workers[i]);
	}
	double rate = (double)(accepted - run->progress_accepted) * 1e9 / (double)(now - run->progress_at_ns);
	const char *phase = now < run->load.measure_ns ? "warm-up"
			    : now < run->load.end_ns   ? "measuring"
						       : "waiting for answers";
	term_progress("%s %.1f s  %llu accepted  %.0f/s  %llu failed", phase,
		(double)(now - run->load.start_ns) / 1e9, (unsigned long long)accepted, rate,
		(unsigned long long)failed);
	run->progress_at_ns = now;
	run->progress_accepted = accepted;
}

/* Until the time, or until all are done, or a signal. */
static void watch_until(struct run *run, int64_t until_ns)
{
	while (!interrupted && !all_done(run)) {
		int64_t now = load_now_ns(), next = now + poll_ns;
		if (now >= until_ns)
			return;
		sleep_until(next < until_ns ? next : until_ns);
		show_progress(run, load_now_ns());
	}
}

static int open_ledger(struct run *run, struct err *e)
{
	const char *path = run->options->ledger;
	run->load.ledger_fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
	if (path && run->load.ledger_fd < 0)
		return err_sys(e, ERR_FATAL, "open '%s'", path);
	return 0;
}

static int make_context(struct run *run, struct err *e)
{
	const struct load_options *o = run->options;
	if (tls_client_context(o->cert, o->key, o->ca, &run->load.tls, e) < 0)
		return -1;
	SSL_CTX_set_read_ahead(run->load.tls, 1);
	SSL_CTX_set_mode(run->load.tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	return 0;
}

/* Every connection costs a descriptor on each side; the soft limit is often 1024. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int start_threads(struct run *run, struct err *e)
{
	const struct load_options *o = run->options;
	run->workers = calloc(o->threads, sizeof(struct load_worker *));
	if (!run->workers)
		return err_oom(e);
	for (; run->worker_count < o->threads; run->worker_count++)
		if (load_worker_start(&run->load, run->worker_count, &run->workers[run->worker_count], e) < 0)
			return -1;
	return o->churn > 0 ? churn_start(&run->load, &run->churn, e) : 0;
}

static void set_times(struct run *run)
{
	const struct load_options *o = run->options;
	run->load.start_ns = load_now_ns();
	run->load.measure_ns = run->load.start_ns + o->warmup_ns;
	run->load.end_ns = o->messages ? INT64_MAX : run->load.measure_ns + o->duration_ns;
	run->progress_at_ns = run->load.start_ns;
}

static unsigned opened_count(const struct run *run)
{
	unsigned n = 0;
	for (unsigned i = 0; i < run->worker_count; i++)
		n += load_worker_result(run->workers[i])->opened;
	return n;
}

static int no_connection(const struct run *run, struct err *e)
{
	*e = load_worker_result(run->workers[0])->first_failure;
	if (e->kind == ERR_NONE)
		return err_set(e, ERR_RETRY, "%s did not answer the handshake", run->options->authority);
	return err_context(e, "%s", run->options->authority);
}

static int sample_begin(struct run *run, struct err *e)
{
	run->client_before_ns = own_cpu_ns();
	return run->options->server_pid ? process_usage(run->options->server_pid, &run->server_before, e) : 0;
}

static void sample_end(struct run *run, struct run_result *r)
{
	struct err gone;
	r->client_cpu_ns = own_cpu_ns() - run->client_before_ns;
	/* A server that died under the load leaves no sample; the counts tell the story. */
	if (run->options->server_pid && process_usage(run->options->server_pid, &r->server, &gone) == 0)
		r->server_cpu_ns = r->server.cpu_ns - run->server_before.cpu_ns;
}

static int tell(const struct run *run, bool at_end, struct err *e)
{
	return run->watch ? run->watch->sample(run->watch->arg, at_end, e) : 0;
}

/* Waits for every connection, then lets all threads go and watches the measurement. */
static int conduct(struct run *run, struct run_result *r, struct err *e)
{
	gate_wait_for(&run->load.gate, run->worker_count + (run->churn != NULL));
	set_times(run);
	if (!opened_count(run))
		return no_connection(run, e);
	gate_open(&run->load.gate);
	watch_until(run, run->load.measure_ns);
	if (sample_begin(run, e) < 0 || tell(run, false, e) < 0)
		return -1;
	watch_until(run, run->load.end_ns);
	sample_end(run, r);
	if (tell(run, true, e) < 0)
		return -1;
	r->seconds = (double)(load_now_ns() - run->load.measure_ns) / 1e9;
	return 0;
}

static void join_threads(struct run *run)
{
	gate_open(&run->load.gate);
	while (!interrupted && !all_done(run)) {
		sleep_until(load_now_ns() + poll_ns);
		show_progress(run, load_now_ns());
	}
	atomic_store(&run->load.stop, true);
	for (unsigned i = 0; i < run->worker_count; i++)
		load_worker_join(run->workers[i]);
	if (run->churn)
		churn_join(run->churn);
	term_progress_clear();
}

static void add_worker(struct load_result *sum, const struct load_result *w)
{
	histogram_merge(&sum->latency, &w->latency);
	sum->requests += w->requests;
	sum->accepted += w->accepted;
	sum->rejected += w->rejected;
	sum->accepted_in_all += w->accepted_in_all;
	sum->unanswered += w->unanswered;
	sum->unsent += w->unsent;
	sum->opened += w->opened;
	for (unsigned i = 0; i < STATUS_LIMIT; i++)
		sum->statuses[i] += w->statuses[i];
	for (unsigned i = 0; i < FAILURES; i++)
		sum->failures[i] += w->failures[i];
	if (w->last_answer_ns > sum->last_answer_ns)
		sum->last_answer_ns = w->last_answer_ns;
	if (sum->first_failure.kind == ERR_NONE)
		sum->first_failure = w->first_failure;
}

static void collect(const struct run *run, struct run_result *r)
{
	for (unsigned i = 0; i < run->worker_count; i++)
		add_worker(&r->load, load_worker_result(run->workers[i]));
	if (run->churn)
		r->churn = *churn_result(run->churn);
	/* A given number of messages is done at the last answer, not when the owner looks. */
	if (run->options->messages && r->load.last_answer_ns)
		r->seconds = (double)(r->load.last_answer_ns - run->load.measure_ns) / 1e9;
	r->interrupted = interrupted;
	r->seconds = r->seconds > 0 ? r->seconds : 0;
}

static void clear(struct run *run)
{
	for (unsigned i = 0; i < run->worker_count; i++)
		load_worker_free(run->workers[i]);
	free(run->workers);
	churn_free(run->churn);
	SSL_CTX_free(run->load.tls);
	if (run->load.ledger_fd >= 0)
		close(run->load.ledger_fd);
	gate_clear(&run->load.gate);
}

static void catch_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND};
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}

int run_load_test(
	const struct load_options *o, const struct run_watch *watch, struct run_result *ret, struct err *e)
{
	struct run run = {.options = o, .watch = watch, .load = {.options = o, .ledger_fd = -1}};
	*ret = (struct run_result){.seconds = 0};
	gate_init(&run.load.gate);
	catch_signals();
	raise_descriptor_limit();
	int rc = 0;
	if (open_ledger(&run, e) < 0 || make_context(&run, e) < 0 ||
		target_find(o, &run.load.target, e) < 0 || start_threads(&run, e) < 0)
		rc = -1;
	if (rc == 0)
		rc = conduct(&run, ret, e);
	if (rc < 0)
		atomic_store(&run.load.stop, true);
	join_threads(&run);
	collect(&run, ret);
	clear(&run);
	return rc;
}
