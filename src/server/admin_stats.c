/* admin_stats.c - /admin/stats: how much is stored, and in what. */
#include "server/internal.h"

#define ADMIN ROLE_BIT(ROLE_ADMIN)

static void run_stats(struct job *j)
{
	struct server *s = server_of(j->request);
	struct store_counts counts;
	struct store_glance glance;
	struct err e = ERR_INIT;
	if (store_read_counts(s->store, &counts, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_put_int(&w, "messages", (int64_t)counts.messages);
	json_open_object(&w, "messages_by_status");
	for (unsigned i = 0; i < MESSAGE_STATES; i++)
		json_put_int(&w, message_state_name(i), (int64_t)counts.by_state[i]);
	json_close_object(&w);
	json_put_int(&w, "clients", (int64_t)counts.clients);
	json_put_int(&w, "certificates", (int64_t)counts.certificates);
	json_put_int(&w, "audit_rows", (int64_t)counts.audit_rows);
	json_put_str(&w, "store", str_of(store_description(s->store)));
	store_glance(s->store, &glance);
	json_put_str(&w, "store_trouble", str_of(glance.trouble));
	json_close_object(&w);
}

ADMIN_HANDLER(get_stats, run_stats)

const struct http_route admin_stats_routes[] = {
	{"GET", "/admin/stats", ADMIN, false, get_stats, "Counts of what is stored", 0},
	{0},
};
