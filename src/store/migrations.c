/* migrations.c - see migrations.h. */
#include "store/migrations.h"

int migrations_run(const struct migration *table, unsigned count, const struct migration_engine *engine,
	void *db, struct err *e)
{
	unsigned version;
	if (engine->version(db, &version, e) < 0)
		return err_context(e, "read the schema's version");
	if (version > count)
		return err_set(e, ERR_FATAL,
			"schema %u is newer than this program, which knows versions up to %u: start the newer program "
			"again, or restore the backup made before it was first started",
			version, count);
	for (; version < count; version++) {
		const struct migration *m = &table[version];
		require(m->number == version + 1);
		if (engine->apply(db, m, e) < 0)
			return err_context(e, "schema change %u (%s)", m->number, m->title);
	}
	return 0;
}
