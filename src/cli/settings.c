/* settings.c - see settings.h. */
#include "cli/settings.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/log.h"
#include "role/access_log.h"

extern char **environ;

int settings_load(const struct settings *s, struct config **ret_config, struct err *e)
{
	/* The directory's own file is optional, a file that was named is not. */
	const char *file = s->file ? s->file : access(s->paths.config, F_OK) == 0 ? s->paths.config : NULL;
	struct config_source source = {.file = file,
		.sets = s->sets.items,
		.set_count = s->sets.count,
		.env = environ,
		.mistake = s->mistake,
		.arg = s->arg};
	return config_load(&source, ret_config, e);
}

/* --set names another directory, where another configuration may be. */
static int load_there(struct settings *s, struct config **config, struct err *e)
{
	AUTO(free_auto) char *named = strdup((*config)->data);
	if (!named)
		return err_oom(e);
	config_free(TAKE(*config));
	if (settings_load(s, config, e) < 0)
		return -1;
	if ((*config)->data && strcmp((*config)->data, named) == 0)
		return 0;
	return err_set(e, ERR_REJECT,
		"the configuration in a data directory cannot name another one ('%s'): use --data, or --config",
		named);
}

/* Goes to the directory that the configuration names as `data`, unless --data has the last word. */
static int follow_data(struct settings *s, struct config **config, struct err *e)
{
	struct paths there;
	if (s->data || !(*config)->data)
		return 0;
	if (paths_init((*config)->data, &there, e) < 0)
		return -1;
	bool elsewhere = strcmp(there.data, s->paths.data) != 0;
	paths_clear(&s->paths);
	s->paths = there;
	return elsewhere && !s->file ? load_there(s, config, e) : 0;
}

int settings_open(struct settings *s, struct config **ret_config, struct err *e)
{
	if (paths_init(s->data, &s->paths, e) < 0)
		return -1;
	struct config *config = NULL;
	if (settings_load(s, &config, e) >= 0 && follow_data(s, &config, e) >= 0) {
		*ret_config = config;
		return 0;
	}
	config_free(config);
	struct err ignored;
	s->misused = config_check_sets(s->sets.items, s->sets.count, &ignored) < 0;
	return -1;
}

int settings_fail(const struct settings *s, const char *command, const struct err *e)
{
	int code = cli_fail(command, e);
	return s->misused ? EXIT_USAGE : code;
}

void settings_clear(struct settings *s)
{
	paths_clear(&s->paths);
}

int settings_log(const struct config *c, bool again, struct err *e)
{
	struct log_options o = {
		.level = (enum log_level)c->log_level,
		.format = (enum log_format)c->log_format,
		.to_stderr = c->log_stderr,
		.file = c->log_file,
		.keep_days = (unsigned)c->log_keep_days,
		.clock = &clock_system,
	};
	int rc = again ? log_reopen(&o, e) : log_open(&o, e);
	if (rc >= 0)
		access_log_switch(c->access_log);
	return rc;
}
