/* audit.c - see audit.h. Every field goes into the hash with its length, so that no two different rows feed
 * it the same bytes, and behind a label, so that the hash of something else can never pass for one of these.
 */
#include "store/audit.h"

#include <openssl/evp.h>

#include "base/auto.h"

static const char label[] = "sealpost audit 1"; /* hashed with its NUL */

AUTO_DEFINE(EVP_MD_CTX_free, EVP_MD_CTX *)

static void put_u32(uint8_t out[4], uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		out[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void put_u64(uint8_t out[8], uint64_t v)
{
	put_u32(out, (uint32_t)(v >> 32));
	put_u32(out + 4, (uint32_t)v);
}

static bool add_u64(EVP_MD_CTX *ctx, uint64_t v)
{
	uint8_t bytes[8];
	put_u64(bytes, v);
	return EVP_DigestUpdate(ctx, bytes, sizeof(bytes)) == 1;
}

static bool add_str(EVP_MD_CTX *ctx, struct str s)
{
	uint8_t length[4];
	put_u32(length, (uint32_t)s.n);
	return EVP_DigestUpdate(ctx, length, sizeof(length)) == 1 && EVP_DigestUpdate(ctx, s.p, s.n) == 1;
}

int audit_hash(const uint8_t previous[STORE_HASH_BYTES], const struct store_audit_row *row,
	uint8_t ret[STORE_HASH_BYTES], struct err *e)
{
	AUTO(EVP_MD_CTX_free_auto) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	if (ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 &&
		EVP_DigestUpdate(ctx, label, sizeof(label)) == 1 &&
		EVP_DigestUpdate(ctx, previous, STORE_HASH_BYTES) == 1 &&
		add_u64(ctx, (uint64_t)row->sequence) && add_u64(ctx, (uint64_t)row->at.ms) &&
		add_str(ctx, row->actor) && add_str(ctx, row->origin) && add_str(ctx, row->action) &&
		add_str(ctx, row->target) && add_str(ctx, row->result) && add_str(ctx, row->detail) &&
		EVP_DigestFinal_ex(ctx, ret, NULL) == 1)
		return 0;
	return err_oom(e);
}
