/* deadline.c - see deadline.h. A list is searched from its end; only a limit that was lowered while
 * connections are open makes that search longer than one step. */
#include "http/deadline.h"

#include "base/macros.h"

void deadlines_init(struct deadlines *ds)
{
	for (unsigned i = 0; i < DEADLINE_CLASSES; i++)
		link_init(&ds->lists[i]);
}

void deadline_init(struct deadline *d, void (*expired)(struct deadline *d))
{
	*d = (struct deadline){.expired = expired};
	link_init(&d->link);
}

static struct deadline *of_link(struct link *l)
{
	return container_of(l, struct deadline, link);
}

void deadline_set(struct deadlines *ds, struct deadline *d, enum deadline_class class, struct mono at)
{
	struct link *list = &ds->lists[class];
	link_remove(&d->link);
	struct link *before = list->prev;
	while (before != list && of_link(before)->at.ns > at.ns)
		before = before->prev;
	d->at = at;
	d->class = class;
	link_insert(before, &d->link);
}

void deadline_clear(struct deadline *d)
{
	link_remove(&d->link);
}

void deadlines_run(struct deadlines *ds, struct mono now)
{
	for (unsigned i = 0; i < DEADLINE_CLASSES; i++) {
		struct link *list = &ds->lists[i];
		while (!link_alone(list) && mono_reached(now, of_link(list->next)->at)) {
			struct deadline *d = of_link(list->next);
			deadline_clear(d);
			d->expired(d);
		}
	}
}
