/* self_usage.c - see self_usage.h. Threads are told apart by the names that they have given themselves, without
 * their number: io-0 and io-1 are "io". The scheduler counts their time in nanoseconds. */
#include "cli/self_usage.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/metrics.h"
#include "base/str.h"

enum { KINDS_MAX = 32, NAME_BYTES = 16 };

struct usage {
	unsigned count;
	struct {
		char name[NAME_BYTES + 1];
		uint64_t ns;
	} kinds[KINDS_MAX];
};

static bool read_line(const char *task, const char *file, char *line, size_t room)
{
	char path[64 + NAME_MAX];
	snprintf(path, sizeof(path), "/proc/self/task/%s/%s", task, file);
	AUTO(file_auto) FILE *f = fopen(path, "re");
	return f && fgets(line, (int)room, f);
}

/* "io-1\n" becomes "io"; the main thread has the program's name. */
static void kind_of(const char *task, char *name)
{
	uint64_t number;
	name[strcspn(name, "\n")] = 0;
	char *dash = strrchr(name, '-');
	if (dash && str_to_u64(str_of(dash + 1), &number))
		*dash = 0;
	if (str_to_u64(str_of(task), &number) && number == (uint64_t)getpid())
		snprintf(name, NAME_BYTES, "main");
}

static void add(struct usage *u, const char *name, uint64_t ns)
{
	unsigned i = 0;
	while (i < u->count && strcmp(u->kinds[i].name, name) != 0)
		i++;
	if (i == KINDS_MAX)
		return;
	if (i == u->count)
		snprintf(u->kinds[u->count++].name, NAME_BYTES + 1, "%s", name);
	u->kinds[i].ns += ns;
}

static void add_task(struct usage *u, const char *task)
{
	char name[NAME_BYTES + 1], times[128];
	struct str rest, first;
	uint64_t ns;
	if (!read_line(task, "comm", name, sizeof(name)) ||
		!read_line(task, "schedstat", times, sizeof(times)))
		return; /* it has ended meanwhile */
	rest = str_of(times);
	if (!str_cut(&rest, ' ', &first) || !str_to_u64(first, &ns))
		return;
	kind_of(task, name);
	add(u, name, ns);
}

static void collect_cpu(void)
{
	struct usage usage = {.count = 0};
	DIR *tasks = opendir("/proc/self/task");
	if (!tasks)
		return;
	for (const struct dirent *task; (task = readdir(tasks));)
		if (task->d_name[0] != '.')
			add_task(&usage, task->d_name);
	closedir(tasks);
	for (unsigned i = 0; i < usage.count; i++)
		series_set(metric_series1(METRIC_THREADS_CPU, usage.kinds[i].name),
			(double)usage.kinds[i].ns / 1e9);
}

static void collect_memory(void)
{
	char line[128];
	AUTO(file_auto) FILE *f = fopen("/proc/self/statm", "re");
	struct str rest, size, resident;
	uint64_t pages;
	if (!f || !fgets(line, sizeof(line), f))
		return;
	rest = str_of(line);
	if (str_cut(&rest, ' ', &size) && str_cut(&rest, ' ', &resident) && str_to_u64(resident, &pages))
		metric_set(METRIC_RESIDENT, (double)pages * (double)sysconf(_SC_PAGESIZE));
}

void self_usage_collect(void)
{
	collect_cpu();
	collect_memory();
}
