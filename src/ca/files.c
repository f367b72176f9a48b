/* files.c - see files.h. Every file appears whole under its name or not at all (base/file.h). */
#include "ca/files.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>

#include "base/file.h"
#include "ca/key.h"

const char ca_root_cert[] = "root.pem", ca_root_key[] = "root.key", ca_issuing_cert[] = "issuing.pem",
	   ca_issuing_key[] = "issuing.key", ca_bundle_file[] = "ca.pem", ca_crl_number_file[] = "crl-number";

/* --- names --- */

void files_name(const char *what, const char *id, const char *suffix, char out[CA_FILE_BYTES])
{
	snprintf(out, CA_FILE_BYTES, "%s-%s%s", what, id, suffix);
}

int files_id(X509 *cert, char out[CA_ID_BYTES], struct err *e)
{
	const ASN1_OCTET_STRING *id = X509_get0_subject_key_id(cert);
	if (!id || ASN1_STRING_length(id) != IDENTITY_KEY_ID_BYTES)
		return err_set(e, ERR_FATAL, "a CA's certificate has no subject key identifier of %d octets",
			IDENTITY_KEY_ID_BYTES);
	hex_encode(ASN1_STRING_get0_data(id), IDENTITY_KEY_ID_BYTES, out);
	return 0;
}

/* Whether the name is "issuing-ID" + suffix; then *ret is the ID, within it. */
static bool id_of_name(const char *name, const char *suffix, struct str *ret)
{
	static const struct str prefix = STR("issuing-");
	struct str all = str_of(name), end = str_of(suffix);
	uint8_t bytes[IDENTITY_KEY_ID_BYTES];
	if (all.n != prefix.n + CA_ID_BYTES - 1 + end.n || !str_starts(all, prefix))
		return false;
	*ret = str_mem(all.p + prefix.n, CA_ID_BYTES - 1);
	return str_eq(str_mem(ret->p + ret->n, end.n), end) && hex_decode(*ret, bytes, sizeof(bytes));
}

static int by_text(const void *a, const void *b)
{
	return strcmp(a, b);
}

int files_others(const struct ca_files *f, const char *suffix, struct ca_ids *ret, struct err *e)
{
	DIR *dir = opendir(f->dir);
	if (!dir)
		return err_sys(e, ERR_FATAL, "read '%s'", f->dir);
	int result = 0;
	ret->count = 0;
	for (const struct dirent *entry; result == 0 && (entry = readdir(dir)) != NULL;) {
		struct str id;
		if (!id_of_name(entry->d_name, suffix, &id))
			continue;
		if (ret->count == CA_ISSUERS_MAX) {
			result = err_set(
				e, ERR_FATAL, "'%s' has more than %d issuing CAs", f->dir, CA_ISSUERS_MAX);
			break;
		}
		snprintf(ret->id[ret->count++], CA_ID_BYTES, "%.*s", STR_ARG(id));
	}
	closedir(dir);
	qsort(ret->id, ret->count, sizeof(ret->id[0]), by_text);
	return result;
}

/* --- files --- */

bool files_has(const struct ca_files *f, const char *name)
{
	AUTO(free_auto) char *path = path_join(f->dir, name);
	return path && access(path, F_OK) == 0;
}

int files_read_cert(const struct ca_files *f, const char *name, X509 **ret, struct err *e)
{
	AUTO(free_auto) char *path = path_join(f->dir, name);
	AUTO(x509_stack_free_auto) STACK_OF(X509) *found = NULL;
	if (!path)
		return err_oom(e);
	if (x509_read_file(path, &found, e) < 0)
		return -1;
	if (sk_X509_num(found) != 1)
		return err_set(e, ERR_FATAL, "'%s' has more than one certificate", path);
	*ret = sk_X509_shift(found);
	return 0;
}

int files_write_certs(
	const struct ca_files *f, const char *name, X509 *const *certs, size_t count, struct err *e)
{
	AUTO(free_auto) char *path = path_join(f->dir, name);
	AUTO(buf_auto) struct buf pem;
	buf_init(&pem, CA_PEM_BYTES_MAX);
	if (!path)
		return err_oom(e);
	for (size_t i = 0; i < count; i++)
		if (x509_write_pem(certs[i], &pem, e) < 0)
			return -1;
	return file_replace(path, 0644, buf_str(&pem), e);
}

/* --- keys --- */

/* The passphrase is read anew for every key: a child process that uses it once or twice keeps it nowhere. */
int files_read_key(const struct ca_files *f, const char *name, EVP_PKEY **ret, struct err *e)
{
	AUTO(free_auto) char *path = path_join(f->dir, name);
	AUTO(buf_wipe_auto) struct buf passphrase, older;
	buf_init(&passphrase, CA_PEM_BYTES_MAX);
	buf_init(&older, CA_PEM_BYTES_MAX);
	if (!path)
		return err_oom(e);
	if (!f->passphrase_file)
		return key_load(path, STR(""), ret, e);
	if (passphrase_read(f->passphrase_file, &passphrase, &older, e) < 0)
		return -1;
	if (key_load(path, buf_str(&passphrase), ret, e) == 0)
		return 0;
	return older.n && key_load(path, buf_str(&older), ret, NULL) == 0 ? 0 : -1;
}

int files_write_key(const struct ca_files *f, const char *name, EVP_PKEY *key, struct err *e)
{
	AUTO(free_auto) char *path = path_join(f->dir, name);
	AUTO(buf_wipe_auto) struct buf passphrase;
	buf_init(&passphrase, CA_PEM_BYTES_MAX);
	if (!path)
		return err_oom(e);
	if (f->passphrase_file && passphrase_read(f->passphrase_file, &passphrase, NULL, e) < 0)
		return -1;
	return key_save(path, key, buf_str(&passphrase), e);
}

int files_copy(const struct ca_files *f, const char *from, const char *to, mode_t mode, struct err *e)
{
	AUTO(free_auto) char *from_path = path_join(f->dir, from);
	AUTO(free_auto) char *to_path = path_join(f->dir, to);
	AUTO(buf_wipe_auto) struct buf contents;
	buf_init(&contents, CA_PEM_BYTES_MAX);
	if (!from_path || !to_path)
		return err_oom(e);
	if (file_read(from_path, CA_PEM_BYTES_MAX, &contents, e) < 0)
		return -1;
	return file_replace(to_path, mode, buf_str(&contents), e);
}

int files_remove(const struct ca_files *f, const char *name, struct err *e)
{
	AUTO(free_auto) char *path = path_join(f->dir, name);
	if (!path)
		return err_oom(e);
	if (unlink(path) < 0)
		return errno == ENOENT ? 0 : err_sys(e, ERR_FATAL, "remove '%s'", path);
	return dir_sync_parent(path, e);
}
