/* verify_test.c - every flaw of craft_cert.h against the profile alone and against the whole verdict; chains,
 * dates, roles and the registry. */
#include "tls/verify.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "tls/craft_cert.h"

static const struct wall now = {1795348200000}; /* 2026-11-22T11:50:00Z */
static const char uri[] = "spiffe://example.test/client/example.com/client_001";
enum { DAY_MS = 24 * 60 * 60 * 1000 };

static struct craft_authority root, issuing;
static EVP_PKEY *leaf_key;
static struct clock_fake fake_clock;

/* A table goes on after a wrong row, so that one run shows them all. */
static unsigned wrong_count;

static int no_wrong_rows(void **state)
{
	unsigned count = wrong_count;
	wrong_count = 0;
	return count ? -1 : 0;
}

#define WRONG(...) (print_error(__VA_ARGS__), wrong_count++)

static int setup(void **state)
{
	struct err e;
	clock_fake_init(&fake_clock, now);
	return craft_authorities(now, &root, &issuing, &e) < 0 || craft_key("ec:P-256", &leaf_key, &e) < 0;
}

static int teardown(void **state)
{
	craft_authority_clear(&root);
	craft_authority_clear(&issuing);
	EVP_PKEY_free(leaf_key);
	return 0;
}

static X509 *craft(const struct craft_spec *spec)
{
	struct err e;
	X509 *cert;
	if (craft_cert(spec, &cert, NULL, &e) < 0)
		fail_msg("%s", e.text);
	ERR_clear_error();
	return cert;
}

/* A good leaf under the given issuer, or a flawed one. */
static X509 *leaf_under(const struct craft_authority *issuer, const struct craft_flaw *flaw)
{
	struct craft_spec spec;
	craft_leaf(&spec, issuer, uri, "client_001", now);
	if (flaw)
		flaw->apply(&spec);
	if (strcmp(spec.key_type, "ec:P-256") == 0)
		spec.key = leaf_key;
	return craft(&spec);
}

static void authority_under(
	const struct craft_authority *issuer, const struct craft_flaw *flaw, struct craft_authority *ret)
{
	struct craft_spec spec;
	struct err e;
	craft_ca(&spec, issuer, "Other Issuing CA", 0, now);
	if (flaw)
		flaw->apply(&spec);
	if (craft_cert(&spec, &ret->cert, &ret->key, &e) < 0)
		fail_msg("%s", e.text);
	ERR_clear_error();
}

static struct verify_policy listener_policy(void)
{
	return (struct verify_policy){.trust_domain = "example.test",
		.purpose = X509_PURPOSE_SSL_CLIENT,
		.clock = &fake_clock.clock};
}

/* The verdict on `leaf`, with `intermediate` sent along and `root` trusted. */
static bool verdict(
	X509 *leaf, X509 *intermediate, const struct verify_policy *policy, struct verify_result *ret)
{
	AUTO(X509_STORE_free_auto) X509_STORE *store = X509_STORE_new();
	STACK_OF(X509) *untrusted = sk_X509_new_null();
	assert_true(store && untrusted && X509_STORE_add_cert(store, root.cert));
	if (intermediate)
		sk_X509_push(untrusted, intermediate);
	struct err e = ERR_INIT;
	bool accepted = verify_certificate(leaf, untrusted, store, policy, ret, &e);
	assert_true(accepted == (e.kind == ERR_NONE));
	assert_true(ERR_peek_error() == 0);
	sk_X509_free(untrusted);
	return accepted;
}

static void expect_outcome(
	const char *what, const struct verify_result *result, const char *outcome, const char *rule)
{
	if (strcmp(verify_outcome_name(result->outcome), outcome) != 0)
		WRONG("%s: %s (%s), not %s\n", what, verify_outcome_name(result->outcome), result->rule,
			outcome);
	else if (rule && strcmp(outcome, "profile") == 0 && strcmp(result->rule, rule) != 0)
		WRONG("%s: breaks %s, not %s\n", what, result->rule, rule);
}

static void test_good_leaf(void **state)
{
	AUTO(X509_free_auto) X509 *leaf = leaf_under(&issuing, NULL);
	struct identity id;
	const char *reason;
	struct err e;
	assert_int_equal(identity_of(leaf, "example.test", &id, &reason, &e), 0);
	assert_int_equal(id.role, ROLE_CLIENT);
	assert_string_equal(id.name, "client_001");
	assert_string_equal(id.domain, "example.com");
	assert_string_equal(id.trust_domain, "example.test");
	assert_int_equal(id.serial_bytes, 16);
	assert_true(id.not_before.ms == now.ms - DAY_MS && id.not_after.ms == now.ms + 30 * (int64_t)DAY_MS);
	char text[256];
	identity_uri(&id, text, sizeof(text));
	assert_string_equal(text, uri);

	struct verify_policy policy = listener_policy();
	struct verify_result result;
	assert_true(verdict(leaf, issuing.cert, &policy, &result));
	assert_memory_equal(&result.identity, &id, sizeof(id));
}

static void test_leaf_flaws(void **state)
{
	struct verify_policy policy = listener_policy();
	for (size_t i = 0; i < craft_flaw_count; i++) {
		const struct craft_flaw *flaw = &craft_flaws[i];
		if (flaw->of_ca)
			continue;
		AUTO(X509_free_auto) X509 *leaf = leaf_under(&issuing, flaw);
		struct identity id;
		const char *reason = "none";
		struct err e;
		int held = identity_of(leaf, "example.test", &id, &reason, &e);
		if (flaw->rule ? held == 0 || strcmp(reason, flaw->rule) != 0 : held != 0)
			WRONG("%s: profile says %s, not %s\n", flaw->name, reason, flaw->rule);
		struct verify_result result;
		assert_false(verdict(leaf, issuing.cert, &policy, &result));
		expect_outcome(flaw->name, &result, flaw->outcome, flaw->rule);
	}
}

static void test_ca_flaws(void **state)
{
	struct verify_policy policy = listener_policy();
	for (size_t i = 0; i < craft_flaw_count; i++) {
		const struct craft_flaw *flaw = &craft_flaws[i];
		if (!flaw->of_ca)
			continue;
		struct craft_authority flawed;
		authority_under(&root, flaw, &flawed);
		AUTO(X509_free_auto) X509 *leaf = leaf_under(&flawed, NULL);
		STACK_OF(X509) *chain = sk_X509_new_null();
		sk_X509_push(chain, leaf);
		sk_X509_push(chain, flawed.cert);
		sk_X509_push(chain, root.cert);
		struct identity id;
		const char *reason = "none";
		int held = identity_check(chain, "example.test", &id, &reason, NULL);
		if (flaw->rule ? held == 0 || strcmp(reason, flaw->rule) != 0 : held != 0)
			WRONG("%s: profile says %s, not %s\n", flaw->name, reason, flaw->rule);
		struct verify_result result;
		assert_false(verdict(leaf, flawed.cert, &policy, &result));
		expect_outcome(flaw->name, &result, flaw->outcome, flaw->rule);
		sk_X509_free(chain);
		craft_authority_clear(&flawed);
	}
}

static void test_every_rule_has_a_flaw(void **state)
{
	for (size_t rule = 0; rule < profile_rule_count; rule++) {
		size_t flaw = 0;
		while (flaw < craft_flaw_count &&
			(!craft_flaws[flaw].rule ||
				strcmp(craft_flaws[flaw].rule, profile_rules[rule].name) != 0))
			flaw++;
		if (flaw == craft_flaw_count)
			WRONG("no flaw breaks rule %s\n", profile_rules[rule].name);
	}
}

static void test_key_types(void **state)
{
	static const char *const allowed[] = {"ec:P-256", "ec:P-384", "ed25519", "rsa:2048"};
	struct verify_policy policy = listener_policy();
	for (size_t i = 0; i < ARRAY_LEN(allowed); i++) {
		struct craft_spec spec;
		craft_leaf(&spec, &issuing, uri, "client_001", now);
		spec.key_type = allowed[i];
		AUTO(X509_free_auto) X509 *leaf = craft(&spec);
		struct verify_result result;
		if (!verdict(leaf, issuing.cert, &policy, &result))
			WRONG("%s: %s\n", allowed[i], result.rule);
	}
}

/* What must not disturb: an unknown extension, a PrintableString name, a 20-octet serial, a long life. */
static void test_harmless(void **state)
{
	struct verify_policy policy = listener_policy();
	struct craft_spec spec;
	craft_leaf(&spec, &issuing, "spiffe://example.test/client/example.com/client-001", "client-001", now);
	spec.key = leaf_key;
	spec.unknown_extension = true;
	spec.common_names[0].type = V_ASN1_PRINTABLESTRING;
	spec.serial = STR("\x7f"
			  "2345678901234567890");
	spec.not_after.ms = now.ms + 10000 * (int64_t)DAY_MS; /* GeneralizedTime */
	AUTO(X509_free_auto) X509 *leaf = craft(&spec);
	struct verify_result result;
	if (!verdict(leaf, issuing.cert, &policy, &result))
		fail_msg("%s", result.rule);
	assert_int_equal(result.identity.serial_bytes, 20);
}

static void test_roles(void **state)
{
	static const struct {
		const char *uri;
		int usages[2];
		bool names; /* DNS name and address besides */
		const char *as_client, *as_any;
	} cases[] = {
		{"spiffe://example.test/client/a/x", {NID_client_auth}, false, "accepted", "accepted"},
		{"spiffe://example.test/worker/a/x", {NID_client_auth}, false, "accepted", "accepted"},
		{"spiffe://example.test/monitor/a/x", {NID_client_auth}, false, "accepted", "accepted"},
		{"spiffe://example.test/admin/a/x", {NID_client_auth}, false, "accepted", "accepted"},
		{"spiffe://example.test/admin/a/x", {NID_client_auth}, true, "profile", "profile"},
		{"spiffe://example.test/proxy/a/x", {NID_server_auth, NID_client_auth}, true, "accepted",
			"accepted"},
		{"spiffe://example.test/proxy/a/x", {NID_client_auth, NID_server_auth}, false, "accepted",
			"accepted"},
		{"spiffe://example.test/proxy/a/x", {NID_client_auth}, false, "purpose", "purpose"},
		{"spiffe://example.test/server/a/x", {NID_server_auth}, true, "purpose", "accepted"},
		{"spiffe://example.test/server/a/x", {NID_server_auth, NID_client_auth}, true, "purpose",
			"purpose"},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct craft_spec spec;
		craft_leaf(&spec, &issuing, cases[i].uri, "x", now);
		spec.key = leaf_key;
		spec.usages[0] = cases[i].usages[0];
		spec.usages[1] = cases[i].usages[1];
		if (cases[i].names) {
			spec.alternative_names[1] = (struct craft_string){GEN_DNS, STR("a.example")};
			spec.alternative_names[2] = (struct craft_string){GEN_IPADD, STR("\x7f\0\0\1")};
		}
		AUTO(X509_free_auto) X509 *leaf = craft(&spec);
		struct verify_policy policy = listener_policy();
		struct verify_result result;
		verdict(leaf, issuing.cert, &policy, &result);
		expect_outcome(cases[i].uri, &result, cases[i].as_client, NULL);
		policy.purpose = X509_PURPOSE_ANY;
		verdict(leaf, issuing.cert, &policy, &result);
		expect_outcome(cases[i].uri, &result, cases[i].as_any, NULL);
	}
}

static void test_role_mask(void **state)
{
	AUTO(X509_free_auto) X509 *leaf = leaf_under(&issuing, NULL);
	struct verify_policy policy = listener_policy();
	struct verify_result result;
	policy.roles = ROLE_BIT(ROLE_CLIENT) | ROLE_BIT(ROLE_MONITOR);
	assert_true(verdict(leaf, issuing.cert, &policy, &result));
	policy.roles = ROLE_BIT(ROLE_PROXY);
	assert_false(verdict(leaf, issuing.cert, &policy, &result));
	expect_outcome("role", &result, "role", NULL);
}

static void test_chains(void **state)
{
	struct verify_policy policy = listener_policy();
	struct verify_result result;
	struct craft_authority other_root, other_issuing, twin;
	assert_int_equal(craft_authorities(now, &other_root, &other_issuing, NULL), 0);

	AUTO(X509_free_auto) X509 *good = leaf_under(&issuing, NULL);
	verdict(good, NULL, &policy, &result);
	expect_outcome("no intermediate", &result, "unknown_ca", NULL);

	AUTO(X509_free_auto) X509 *foreign = leaf_under(&other_issuing, NULL);
	verdict(foreign, other_issuing.cert, &policy, &result);
	expect_outcome("another CA of the same names", &result, "unknown_ca", NULL);

	AUTO(X509_free_auto) X509 *self_signed = leaf_under(NULL, NULL);
	verdict(self_signed, NULL, &policy, &result);
	expect_outcome("self-signed", &result, "unknown_ca", NULL);

	/* Our CA's name and key identifiers, another key. */
	twin = (struct craft_authority){issuing.cert, other_issuing.key};
	AUTO(X509_free_auto) X509 *forged = leaf_under(&twin, NULL);
	verdict(forged, issuing.cert, &policy, &result);
	expect_outcome("forged", &result, "chain", NULL);

	AUTO(X509_free_auto) X509 *ca_as_leaf = NULL;
	struct craft_authority sub;
	authority_under(&issuing, NULL, &sub);
	EVP_PKEY *sub_key = sub.key;
	ca_as_leaf = TAKE(sub.cert);
	verdict(ca_as_leaf, issuing.cert, &policy, &result);
	expect_outcome("a CA as leaf", &result, "purpose", NULL);

	/* A client's certificate must not be able to act as an issuer. */
	sub = (struct craft_authority){good, leaf_key};
	AUTO(X509_free_auto) X509 *grandchild = leaf_under(&sub, NULL);
	verdict(grandchild, good, &policy, &result);
	assert_int_not_equal(result.outcome, VERIFY_ACCEPTED);

	EVP_PKEY_free(sub_key);
	craft_authority_clear(&other_root);
	craft_authority_clear(&other_issuing);
}

static void test_dates(void **state)
{
	AUTO(X509_free_auto) X509 *leaf = leaf_under(&issuing, NULL);
	AUTO(X509_free_auto) X509 *forged = leaf_under(&issuing, craft_flaw("damaged_signature"));
	struct verify_policy policy = listener_policy();
	struct verify_result result;
	static const struct {
		int64_t days;
		const char *outcome;
	} cases[] = {{-2, "not_yet_valid"}, {0, "accepted"}, {29, "accepted"}, {31, "expired"}};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		fake_clock.now.ms = now.ms + cases[i].days * DAY_MS;
		verdict(leaf, issuing.cert, &policy, &result);
		expect_outcome("date", &result, cases[i].outcome, NULL);
	}
	verdict(forged, issuing.cert, &policy, &result);
	expect_outcome("forged and expired", &result, "chain", NULL);
	fake_clock.now = now;
}

static struct registry_row row_of(const struct identity *id, enum registry_status status)
{
	struct registry_row row = {.serial_bytes = id->serial_bytes,
		.status = status,
		.role = id->role,
		.name = str_of(id->name),
		.domain = str_of(id->domain),
		.not_after = id->not_after};
	memcpy(row.serial, id->serial, sizeof(row.serial));
	memcpy(row.issuer_key_id, id->issuer_key_id, sizeof(row.issuer_key_id));
	return row;
}

static void test_registry(void **state)
{
	static const struct {
		enum registry_status status;
		const char *outcome;
	} cases[] = {{REGISTRY_ACTIVE, "accepted"}, {REGISTRY_REVOKED, "revoked"},
		{REGISTRY_SUSPENDED, "suspended"}};
	AUTO(X509_free_auto) X509 *leaf = leaf_under(&issuing, NULL);
	struct registry *registry;
	assert_int_equal(registry_new(&registry, NULL), 0);
	struct verify_policy policy = listener_policy();
	policy.registry = registry;
	struct verify_result result;
	struct identity id;
	const char *reason;
	assert_int_equal(identity_of(leaf, NULL, &id, &reason, NULL), 0);
	verdict(leaf, issuing.cert, &policy, &result);
	expect_outcome("no row", &result, "unregistered", NULL);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct registry_row row = row_of(&id, cases[i].status);
		assert_int_equal(registry_apply(registry, &row, 1, NULL), 0);
		verdict(leaf, issuing.cert, &policy, &result);
		expect_outcome("row", &result, cases[i].outcome, NULL);
	}
	struct registry_row other = row_of(&id, REGISTRY_ACTIVE);
	other.name = STR("client_002");
	assert_int_equal(registry_apply(registry, &other, 1, NULL), 0);
	verdict(leaf, issuing.cert, &policy, &result);
	expect_outcome("another name", &result, "unregistered", NULL);
	registry_free(registry);
}

/* --- steps, as `cert verify` prints them --- */

struct steps {
	unsigned held, broken, skipped;
	char first_broken[32];
};

static void count_step(void *arg, const struct verify_step *step)
{
	struct steps *s = arg;
	assert_non_null(step->name);
	assert_non_null(step->demands);
	if (step->skipped)
		s->skipped++;
	else if (!step->fault)
		s->held++;
	else if (s->broken++ == 0)
		snprintf(s->first_broken, sizeof(s->first_broken), "%s", step->name);
}

static struct steps steps_of(X509 *leaf, X509 *intermediate)
{
	struct steps steps = {0};
	struct verify_policy policy = listener_policy();
	policy.roles = ROLE_BIT(ROLE_CLIENT);
	policy.each = count_step;
	policy.arg = &steps;
	struct verify_result result;
	assert_true(verdict(leaf, intermediate, &policy, &result) == (steps.broken == 0));
	return steps;
}

static void test_steps(void **state)
{
	enum { BESIDES = 3 }; /* chain, time, role */
	AUTO(X509_free_auto) X509 *good = leaf_under(&issuing, NULL);
	struct steps steps = steps_of(good, issuing.cert);
	assert_int_equal(steps.held, profile_rule_count + BESIDES);

	AUTO(X509_free_auto) X509 *flawed = leaf_under(&issuing, craft_flaw("sha1_signature"));
	steps = steps_of(flawed, issuing.cert);
	assert_int_equal(steps.broken, 1);
	assert_string_equal(steps.first_broken, "signature_algorithm");
	assert_int_equal(steps.held + steps.broken + steps.skipped, profile_rule_count + BESIDES);

	steps = steps_of(good, NULL);
	assert_string_equal(steps.first_broken, "chain");
	assert_int_equal(steps.held + steps.broken + steps.skipped, profile_rule_count + BESIDES);

	AUTO(X509_free_auto) X509 *expired = leaf_under(&issuing, craft_flaw("expired"));
	steps = steps_of(expired, issuing.cert);
	assert_int_equal(steps.broken, 1);
	assert_string_equal(steps.first_broken, "time");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_teardown(f, no_wrong_rows)
	const struct CMUnitTest tests[] = {
		TEST(test_good_leaf),
		TEST(test_leaf_flaws),
		TEST(test_ca_flaws),
		TEST(test_every_rule_has_a_flaw),
		TEST(test_key_types),
		TEST(test_harmless),
		TEST(test_roles),
		TEST(test_role_mask),
		TEST(test_chains),
		TEST(test_dates),
		TEST(test_registry),
		TEST(test_steps),
	};
#undef TEST
	return cmocka_run_group_tests(tests, setup, teardown);
}
