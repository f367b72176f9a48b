/* process.c - see process.h. /proc/PID/stat counts CPU in ticks of 10 ms; the process's CPU clock counts
 * nanoseconds, so stat is read only for the parent and for what reaped children used. */
#include "cli/load/process.h"

#include <glob.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"

enum { DESCENDANTS_MAX = 64, STAT_BYTES = 1024 };

struct stat_fields {
	pid_t parent;
	int64_t reaped_ns; /* CPU of children that it has waited for */
};

static int64_t ticks_to_ns(uint64_t ticks)
{
	return (int64_t)(ticks * (1000000000 / (uint64_t)sysconf(_SC_CLK_TCK)));
}

static FILE *open_proc(pid_t pid, const char *name)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	return fopen(path, "re");
}

/* Fields of proc(5), counted from 1; the command (2) is in parentheses and may hold anything. */
static bool read_stat(pid_t pid, struct stat_fields *ret)
{
	char line[STAT_BYTES];
	uint64_t values[18] = {0};
	AUTO(file_auto) FILE *f = open_proc(pid, "stat");
	if (!f || !fgets(line, sizeof(line), f))
		return false;
	const char *at = strrchr(line, ')');
	struct str rest = str_of(at ? at + 1 : ""), field;
	rest = str_trim(rest);
	for (unsigned i = 3; i < ARRAY_LEN(values) && str_cut(&rest, ' ', &field); i++)
		if (!str_to_u64(field, &values[i]))
			values[i] = 0; /* the state is a letter, some fields are negative */
	ret->parent = (pid_t)values[4];
	ret->reaped_ns = ticks_to_ns(values[16] + values[17]);
	return true;
}

static int64_t cpu_ns(pid_t pid)
{
	clockid_t clock;
	struct timespec t;
	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t))
		return 0;
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t status_bytes(pid_t pid, const char *key)
{
	char line[256];
	uint64_t kib;
	AUTO(file_auto) FILE *f = open_proc(pid, "status");
	while (f && fgets(line, sizeof(line), f)) {
		struct str value = str_of(line), name;
		if (!str_cut(&value, ':', &name) || !str_eq(name, str_of(key)))
			continue;
		for (; value.n && (*value.p == ' ' || *value.p == '\t'); value.p++)
			value.n--;
		if (str_cut(&value, ' ', &name) && str_to_u64(name, &kib))
			return (int64_t)kib * 1024;
	}
	return 0;
}

struct family {
	pid_t members[DESCENDANTS_MAX];
	unsigned count;
};

static bool is_member(const struct family *f, pid_t pid)
{
	for (unsigned i = 0; i < f->count; i++)
		if (f->members[i] == pid)
			return true;
	return false;
}

static void add_if_child(struct family *f, pid_t pid)
{
	struct stat_fields fields;
	if (f->count < DESCENDANTS_MAX && !is_member(f, pid) && read_stat(pid, &fields) &&
		is_member(f, fields.parent))
		f->members[f->count++] = pid;
}

/* Adds the processes whose parent is a member; true if there were any. */
static bool add_children(struct family *f)
{
	static const char directory[] = "/proc/";
	unsigned before = f->count;
	glob_t processes;
	uint64_t pid;
	if (glob("/proc/[0-9]*", GLOB_NOSORT, NULL, &processes))
		return false;
	for (size_t i = 0; i < processes.gl_pathc; i++)
		if (str_to_u64(str_of(processes.gl_pathv[i] + sizeof(directory) - 1), &pid))
			add_if_child(f, (pid_t)pid);
	globfree(&processes);
	return f->count > before;
}

int process_usage(pid_t pid, struct process_usage *ret, struct err *e)
{
	struct stat_fields fields;
	struct family family = {.members = {pid}, .count = 1};
	if (!read_stat(pid, &fields))
		return err_set(e, ERR_NOT_FOUND, "no process %d", (int)pid);
	while (add_children(&family))
		;
	*ret = (struct process_usage){
		.rss_bytes = status_bytes(pid, "VmRSS"),
		.peak_rss_bytes = status_bytes(pid, "VmHWM"),
	};
	for (unsigned i = 0; i < family.count; i++)
		if (read_stat(family.members[i], &fields))
			ret->cpu_ns += cpu_ns(family.members[i]) + fields.reaped_ns;
	return 0;
}
