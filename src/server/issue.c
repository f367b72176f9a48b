/* issue.c - issuing, with everything that belongs to it: policy, registration, audit, registry.
 *
 * Order: sign, register, audit, publish, hand out. A crash in between leaves at worst a certificate that
 * nobody has; never one in somebody's hands that the registry does not know. */
#include <stdio.h>

#include "base/auto.h"
#include "base/metrics.h"
#include "message/message.h"
#include "server/internal.h"

int server_check_order(const struct server *s, const struct server_order *order, struct err *e)
{
	int64_t days = order->days ? order->days : s->cert_days;
	if (!message_name_valid(order->name))
		return err_set(e, ERR_REJECT,
			"a name has 1 to 64 characters, letters, digits, '.', '_' or '-', and starts with a letter or digit");
	if (!message_name_valid(order->domain))
		return err_set(e, ERR_REJECT,
			"a domain has 1 to 64 characters, letters, digits, '.', '_' or '-', and starts with a letter or digit");
	/* Who is there already stays, whatever became of the domain. */
	if (order->role == ROLE_CLIENT && !order->renews.serial_bytes &&
		domains_check(s->domains, order->domain, e) < 0)
		return -1;
	if (days < 1 || days > s->cert_days_max)
		return err_set(
			e, ERR_REJECT, "a certificate lasts 1 to %lld days", (long long)s->cert_days_max);
	return 0;
}

/* In this domain, or in any when it is empty. */
static int any_client(struct server *s, struct str domain, bool *ret, struct err *e)
{
	AUTO(arena_auto) struct arena arena;
	struct store_client *client;
	unsigned count;
	arena_init(&arena, JOB_ARENA_BYTES);
	if (store_read_clients(s->store, domain, STR(""), 1, &arena, &client, &count, e) < 0)
		return -1;
	*ret = count > 0;
	return 0;
}

int server_domain_is_new(struct server *s, const struct server_order *order, bool *ret, struct err *e)
{
	bool others, same = false;
	*ret = false;
	if (order->role != ROLE_CLIENT || order->renews.serial_bytes ||
		domains_listed(s->domains, order->domain))
		return 0;
	if (any_client(s, STR(""), &others, e) < 0 || any_client(s, order->domain, &same, e) < 0)
		return -1;
	*ret = others && !same;
	return 0;
}

/* Before anything is signed: what the store would refuse, and a removed client, whose certificate nobody would let in. */
static int check_client(struct server *s, const struct server_order *order, struct err *e)
{
	AUTO(arena_auto) struct arena arena;
	struct store_client there;
	struct err why = ERR_INIT;
	arena_init(&arena, JOB_ARENA_BYTES);
	if (order->role != ROLE_CLIENT)
		return 0;
	if (store_read_client(s->store, order->name, &arena, &there, &why) < 0) {
		if (why.kind == ERR_NOT_FOUND)
			return 0;
		*e = why;
		return -1;
	}
	if (!str_eq(there.domain, order->domain))
		return err_set(e, ERR_CONFLICT, "the client exists in another domain, '%.*s'",
			STR_ARG(there.domain));
	if (there.status == CLIENT_REMOVED)
		return err_set(e, ERR_CONFLICT,
			"the client was removed; to bring it back: sealpost client add %.*s --domain %.*s",
			STR_ARG(there.name), STR_ARG(there.domain));
	return 0;
}

static int register_cert(
	struct server *s, const struct server_order *order, const struct ca_issued *issued, struct err *e)
{
	const struct identity *id = &issued->identity;
	struct store_cert_put put = {
		.cert =
			{
				.serial_bytes = id->serial_bytes,
				.role = str_of(role_name(id->role)),
				.name = order->name,
				.domain = order->domain,
				.not_before = id->not_before,
				.not_after = id->not_after,
				.issued_at = clock_wall(s->clock),
				.der = buf_str(&issued->der),
				.renews = order->renews,
			},
		.create_client = id->role == ROLE_CLIENT,
		.while_good = order->while_good,
		.token = order->token,
	};
	memcpy(put.cert.serial, id->serial, sizeof(put.cert.serial));
	memcpy(put.cert.issuer_key_id, id->issuer_key_id, sizeof(put.cert.issuer_key_id));
	if (store_wait(s->store, STORE_CERT, &put.op, e) < 0)
		return err_context(e, "register the certificate");
	return id->role == ROLE_CLIENT ? clients_set(s->clients, order->name, order->domain, e) : 0;
}

static int audit_issue(struct server *s, const struct server_actor *actor, const struct server_order *order,
	const struct ca_issued *issued, struct err *e)
{
	char serial[2 * IDENTITY_SERIAL_BYTES + 1], text[2 * IDENTITY_SERIAL_BYTES + 1];
	bool renewal = order->renews.serial_bytes > 0;
	hex_encode(issued->identity.serial, issued->identity.serial_bytes, serial);
	AUTO(buf_auto) struct buf detail;
	buf_init(&detail, 1024);
	struct json_out w = json_out_to(&detail);
	json_open_object(&w, NULL);
	json_put_str(&w, "serial", str_of(serial));
	json_put_str(&w, "role", str_of(role_name(issued->identity.role)));
	json_put_str(&w, "domain", str_of(issued->identity.domain));
	json_put_time(&w, "not_after", issued->identity.not_after);
	if (renewal) {
		hex_encode(order->renews.serial, order->renews.serial_bytes, text);
		json_put_str(&w, "renews", str_of(text));
	}
	if (order->token) {
		hex_encode(order->token->id, sizeof(order->token->id), text);
		json_put_str(&w, "token", str_of(text));
	}
	json_close_object(&w);
	return server_audit(s, actor, renewal ? "certificate.renew" : "certificate.issue",
		str_of(issued->identity.name), "ok", buf_str(&detail), e);
}

int server_issue(struct server *s, const struct server_actor *actor, const struct server_order *order,
	struct ca_issued *ret, struct err *e)
{
	if (server_check_order(s, order, e) < 0 || check_client(s, order, e) < 0)
		return -1;
	struct ca_request request = {
		.role = order->role,
		.name = order->name,
		.domain = order->domain,
		.days = order->days ? order->days : s->cert_days,
		.public_key_der = order->public_key_der,
		.dns_names = order->dns_names,
		.dns_count = order->dns_count,
		.addresses = order->addresses,
		.address_count = order->address_count,
	};
	struct ca_issued issued = {0};
	if (ca_issue(s->ca, &request, &issued, e) < 0)
		return -1;
	if (register_cert(s, order, &issued, e) < 0 || audit_issue(s, actor, order, &issued, e) < 0 ||
		server_sync_registry(s, e) < 0) {
		ca_issued_clear(&issued);
		return -1;
	}
	series_add(metric_series1(METRIC_CERTS_ISSUED, role_name(order->role)), 1);
	*ret = issued;
	return 0;
}
