/* redis_scripts.c - see redis_scripts.h. A script is its first line, which Redis wants first (the shebang with
 * the script's flags), then common.lua, then the rest. */
#include "queue/redis_scripts.h"

#include <openssl/evp.h>

#include "queue/redis_link.h"

extern const char redis_lua_common[];
#define SCRIPT(id, name) extern const char redis_lua_##name[];
#include "queue/redis_scripts.def"
#undef SCRIPT

enum { SOURCE_BYTES = 64 * 1024 };

static const char *const texts[REDIS_SCRIPTS] = {
#define SCRIPT(id, name) [REDIS_##id] = redis_lua_##name,
#include "queue/redis_scripts.def"
#undef SCRIPT
};

static void add_source(struct buf *out, enum redis_script script)
{
	struct str text = str_of(texts[script]), shebang = {0};
	(void)str_cut(&text, '\n', &shebang);
	buf_add_str(out, shebang);
	buf_add_char(out, '\n');
	buf_add_str(out, str_of(redis_lua_common));
	buf_add_str(out, text);
}

int redis_scripts_name(struct redis_shas *ret, struct err *e)
{
	struct buf source;
	buf_init(&source, SOURCE_BYTES);
	int rc = 0;
	for (unsigned i = 0; i < REDIS_SCRIPTS && rc == 0; i++) {
		unsigned char digest[EVP_MAX_MD_SIZE];
		unsigned n = 0;
		buf_reset(&source);
		add_source(&source, i);
		if (buf_check(&source, e) < 0)
			rc = -1;
		else if (EVP_Digest(source.p, source.n, digest, &n, EVP_sha1(), NULL) != 1)
			rc = err_oom(e);
		else
			hex_encode(digest, n, ret->of[i]);
	}
	buf_clear(&source);
	return rc;
}

void redis_scripts_load(struct buf *out)
{
	struct buf source;
	buf_init(&source, SOURCE_BYTES);
	for (unsigned i = 0; i < REDIS_SCRIPTS; i++) {
		buf_reset(&source);
		add_source(&source, i);
		redis_command(out, 3);
		redis_word(out, STR("SCRIPT"));
		redis_word(out, STR("LOAD"));
		redis_word(out, buf_str(&source));
	}
	buf_clear(&source);
}
