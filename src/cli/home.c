/* home.c - see home.h. */
#include "cli/home.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "ca/confine.h"
#include "crypto/keyring.h"

enum { BACKDATE_MS = 5 * 60 * 1000 };

const char home_config_template[] =
	"# Configuration of Sealpost. `sealpost config reference` explains every option,\n"
	"# `sealpost config show` prints what is in force and where it comes from.\n"
	"#\n"
	"# ingest_listen: 0.0.0.0:8001     # let other machines in\n"
	"# tls_names: broker.example.com   # and name this one in its certificate\n"
	"#\n"
	"# domains:                        # once one is listed, new clients must belong to one that is\n"
	"#   example.com:\n";

static const char *const signer_argv[] = {"/proc/self/exe", "signer", NULL};

/* "credential:NAME" means a file that systemd made for us (systemd.exec(5), LoadCredential=). *ret is in fresh memory, or
 * NULL for none. */
static int passphrase_path(const char *option, char **ret, struct err *e)
{
	static const struct str prefix = STR("credential:");
	*ret = NULL;
	if (!option)
		return 0;
	if (!str_starts(str_of(option), prefix))
		return (*ret = strdup(option)) ? 0 : err_oom(e);
	const char *directory = getenv("CREDENTIALS_DIRECTORY");
	const char *name = option + prefix.n;
	if (!directory)
		return err_set(e, ERR_REJECT,
			"key_passphrase_file: '%s', but systemd passes no credentials to this process",
			option);
	if (!*name || strchr(name, '/'))
		return err_set(e, ERR_REJECT, "key_passphrase_file: '%s' names no credential", option);
	return (*ret = path_join(directory, name)) ? 0 : err_oom(e);
}

/* Whom root's signer becomes. */
static const char *signer_user(const struct config *config)
{
	static const char own[] = "sealpost-signer";
	if (geteuid() != 0)
		return NULL;
	if (config->signer_user)
		return config->signer_user;
	return confine_user_exists(own) ? own : "nobody";
}

int home_ca_options(const struct paths *paths, const struct config *config, struct ca_options *ret,
	char **ret_passphrase_file, struct err *e)
{
	if (passphrase_path(config->key_passphrase_file, ret_passphrase_file, e) < 0)
		return -1;
	*ret = (struct ca_options){
		.dir = paths->ca,
		.trust_domain = config->trust_domain,
		.clock = &clock_system,
		.backdate_ms = BACKDATE_MS,
		.max_days = config->cert_days_max,
		.signer_argv = signer_argv,
		.key_passphrase_file = *ret_passphrase_file,
		.signer_user = signer_user(config),
		.public_url = config->ca_url ? config->ca_url : config->public_url,
	};
	return 0;
}

static int make_directories(const struct paths *paths, struct err *e)
{
	const char *const all[] = {
		paths->data, paths->ca, paths->keys, paths->tls, paths->queue, paths->store};
	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		if (dir_make(all[i], 0700, e) < 0)
			return -1;
	return 0;
}

int home_init(const struct paths *paths, const struct config *config, bool authority, struct err *e)
{
	AUTO(fd_auto) int lock_fd = -1;
	AUTO(free_auto) char *passphrase_file = NULL;
	struct ca_options ca;
	struct stat st;
	if (home_ca_options(paths, config, &ca, &passphrase_file, e) < 0)
		return -1;
	if (make_directories(paths, e) < 0 || file_lock(paths->lock, &lock_fd, e) < 0)
		return -1;
	if (stat(paths->config, &st) < 0 &&
		file_replace(paths->config, 0600, str_of(home_config_template), e) < 0)
		return -1;
	if (!authority)
		return 0;
	return ca_init(&ca, e) < 0 || keyring_init(paths->keys, &clock_system, e) < 0 ? -1 : 0;
}
