/* root.c - see root.h. */
#include "ca/root.h"

#include "ca/key.h"

static const struct authority_root_key at_rest; /* root.key in the directory */

int root_export(const struct ca_files *f, struct str passphrase, struct buf *ret_pem, struct err *e)
{
	struct build_authority root = {0};
	if (passphrase.n < ROOT_PASSPHRASE_BYTES_MIN || passphrase.n > ROOT_PASSPHRASE_BYTES_MAX)
		return err_set(e, ERR_REJECT, "the passphrase must have %d to %d bytes",
			ROOT_PASSPHRASE_BYTES_MIN, ROOT_PASSPHRASE_BYTES_MAX);
	if (authority_read_root(f, &at_rest, &root, e) < 0)
		return -1;
	int result = key_write_pem(root.key, passphrase, ret_pem, e);
	build_authority_clear(&root);
	return result;
}

/* Whether this really is a copy of the root's key. */
static int check_copy(
	const struct ca_files *f, const struct authority_root_key *copy, EVP_PKEY **ret, struct err *e)
{
	struct build_authority root = {0};
	if (!copy->pem.n)
		return err_set(e, ERR_REJECT, "a copy of the root's key is needed");
	if (authority_read_root(f, copy, &root, e) < 0)
		return err_context(e, "copy of the root's key");
	*ret = TAKE(root.key);
	build_authority_clear(&root);
	return 0;
}

int root_remove(const struct ca_files *f, const struct authority_root_key *copy, struct err *e)
{
	AUTO(fd_auto) int lock = -1;
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	if (authority_lock(f, &lock, e) < 0 || check_copy(f, copy, &key, e) < 0)
		return -1;
	return files_remove(f, ca_root_key, e);
}

int root_import(const struct ca_files *f, const struct authority_root_key *copy, struct err *e)
{
	AUTO(fd_auto) int lock = -1;
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	if (authority_lock(f, &lock, e) < 0 || check_copy(f, copy, &key, e) < 0)
		return -1;
	return files_write_key(f, ca_root_key, key, e);
}
