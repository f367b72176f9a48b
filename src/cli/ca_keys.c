/* ca_keys.c - sealpost ca: the root's key away and back, another issuing CA, another passphrase. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/admin.h"
#include "cli/ca.h"
#include "cli/passphrase.h"

enum { KEY_BYTES = 16 * 1024 };

static const char what_key[] = "the root's key";

static bool add_text(json_t *body, const char *key, struct str text)
{
	return text.n == 0 || json_object_set_new(body, key, json_stringn(text.p, text.n)) == 0;
}

/* One request with a copy of the root's key, where there is one, and a passphrase. */
static int call(struct admin *admin, const char *path, struct str pem, struct str passphrase, json_t **ret,
	struct err *e)
{
	AUTO(json_auto) json_t *body = json_object();
	if (!add_text(body, "root_key_pem", pem) || !add_text(body, "passphrase", passphrase))
		return err_set(e, ERR_REJECT, "key and passphrase must be valid UTF-8");
	return admin_call(admin, "POST", path, body, ret, e);
}

/* --- ca export-root --key --- */

/* Before anything else: a file that is there may be the only copy of another key. */
static int refuse_existing(const char *path, struct err *e)
{
	if (access(path, F_OK) < 0)
		return 0;
	return err_set(e, ERR_CONFLICT, "'%s' is there already; name a new file", path);
}

static int export_key(
	struct admin *admin, const struct ca_root_file *root, struct str passphrase, struct err *e)
{
	AUTO(json_auto) json_t *answer = NULL;
	if (call(admin, "/admin/ca/root/export", (struct str){0}, passphrase, &answer, e) < 0)
		return -1;
	return file_replace(root->file, 0600, str_of(json_text(answer, "root_key_pem")), e);
}

/* What was written is read back, so that what opens is the file and not only what was meant to be in it. */
static int remove_key(
	struct admin *admin, const struct ca_root_file *root, struct str passphrase, struct err *e)
{
	AUTO(json_auto) json_t *answer = NULL;
	AUTO(buf_wipe_auto) struct buf pem;
	buf_init(&pem, KEY_BYTES);
	if (file_read(root->file, KEY_BYTES, &pem, e) < 0)
		return -1;
	return call(admin, "/admin/ca/root/remove", buf_str(&pem), passphrase, &answer, e);
}

int ca_export_root_key(struct ca_root_file *root, bool remove, struct err *e)
{
	AUTO(buf_wipe_auto) struct buf passphrase;
	struct admin *admin = NULL;
	buf_init(&passphrase, PASSPHRASE_BYTES_MAX);
	int rc = refuse_existing(root->file, e);
	if (rc >= 0)
		rc = passphrase_get(root->passphrase_file, what_key, true, &passphrase, e);
	if (rc >= 0)
		rc = admin_open(&root->settings, &admin, e);
	if (rc >= 0)
		rc = export_key(admin, root, buf_str(&passphrase), e);
	if (rc >= 0 && remove)
		rc = remove_key(admin, root, buf_str(&passphrase), e);
	admin_close(admin);
	settings_clear(&root->settings);
	if (rc >= 0)
		printf("wrote the root's key, encrypted, to %s%s\n", root->file,
			remove ? "; it is no longer in the data directory" : "");
	return rc;
}

/* --- ca import-root, ca rotate-issuing --- */

/* Sends the file's key, or nothing where none was given, and prints the CA as it is then. */
static int change(struct ca_root_file *root, const char *path, struct err *e)
{
	AUTO(buf_wipe_auto) struct buf pem, passphrase;
	AUTO(json_auto) json_t *answer = NULL;
	struct admin *admin = NULL;
	buf_init(&pem, KEY_BYTES);
	buf_init(&passphrase, PASSPHRASE_BYTES_MAX);
	int rc = root->file ? file_read(root->file, KEY_BYTES, &pem, e) : 0;
	if (rc >= 0 && root->file)
		rc = passphrase_get(root->passphrase_file, what_key, false, &passphrase, e);
	if (rc >= 0)
		rc = admin_open(&root->settings, &admin, e);
	if (rc >= 0)
		rc = call(admin, path, buf_str(&pem), buf_str(&passphrase), &answer, e);
	admin_close(admin);
	settings_clear(&root->settings);
	if (rc >= 0)
		ca_print(answer);
	return rc;
}

int cmd_ca_import_root(int argc, char **argv)
{
	struct ca_root_file root = {.file = NULL};
	const struct arg options[] = {ADMIN_OPTIONS(root.settings),
		{"passphrase-file", ARG_TEXT, &root.passphrase_file, "FILE",
			"its first line opens the key; default: asked for"},
		{0}};
	struct args a = {.command = "ca import-root",
		.usage = "FILE [--passphrase-file FILE]",
		.summary =
			"Puts the root's key, as 'ca export-root --key' wrote it, back into the data directory; it must\n"
			"be the key of this installation's root.",
		.example = "  sealpost ca import-root /media/usb/root.key",
		.options = options,
		.rest_min = 1,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	root.file = a.rest[0];
	return change(&root, "/admin/ca/root/import", &e) < 0 ? cli_fail(a.command, &e) : EXIT_DONE;
}

int cmd_ca_rotate_issuing(int argc, char **argv)
{
	struct ca_root_file root = {.file = NULL};
	const struct arg options[] = {ADMIN_OPTIONS(root.settings),
		{"root-key", ARG_TEXT, &root.file, "FILE",
			"use this copy of the root's key; default: the one in the data directory"},
		{"passphrase-file", ARG_TEXT, &root.passphrase_file, "FILE",
			"its first line opens the copy; default: asked for"},
		{0}};
	struct args a = {.command = "ca rotate-issuing",
		.usage = "[--root-key FILE [--passphrase-file FILE]]",
		.summary =
			"Makes a new issuing CA, which signs from now on. Certificates of the old one stay good until they\n"
			"end or are revoked; when the last one has ended, the old issuing CA is retired. Nothing needs to be\n"
			"restarted.",
		.example = "  sealpost ca rotate-issuing --root-key /media/usb/root.key",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	if (!root.file && root.passphrase_file)
		return cli_usage_error(a.command, "--passphrase-file needs --root-key FILE");
	struct err e = ERR_INIT;
	return change(&root, "/admin/ca/rotate", &e) < 0 ? cli_fail(a.command, &e) : EXIT_DONE;
}

/* --- ca passphrase --- */

int cmd_ca_passphrase(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	const struct arg options[] = {ADMIN_OPTIONS(settings), {0}};
	struct args a = {.command = "ca passphrase",
		.usage = "",
		.summary =
			"Encrypts every key of the CA in the data directory anew, by the first line of\n"
			"key_passphrase_file. To change the passphrase: put the new one into that file's first line and\n"
			"the old one into its second, run this, and remove the second line.",
		.example = "  sealpost ca passphrase",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	AUTO(json_auto) json_t *answer = NULL;
	if (admin_once(&settings, "POST", "/admin/ca/rekey", NULL, &answer, &e) < 0)
		return cli_fail(a.command, &e);
	puts("the CA's keys are encrypted anew");
	return EXIT_DONE;
}
