/* verify.c - OpenSSL's chain verification, then our profile, then our registry.
 *
 * The handshake hands its X509_STORE_CTX in and reads the error code back out of it, because that code is
 * what OpenSSL turns into an alert (ssl/statem/statem_lib.c, ssl_x509err2alert). So every outcome has a code
 * here, chosen for its alert; the real reason travels in struct verify_result.
 *
 * Time is judged as a step of its own: the verify callback lets a certificate outside its validity pass, and
 * the error that OpenSSL then leaves in the context is looked at afterwards. A forged certificate is thus
 * called forged, whether or not it has expired too. */
#include "tls/verify.h"

#include <openssl/x509v3.h>

#include "tls/openssl.h"

/* leaf, issuing CA, root; one more for an organisation's own root above ours. */
enum { INTERMEDIATES_MAX = 2 };

static const struct {
	const char *name;
	int x509_error; /* decides the alert */
} outcomes[VERIFY_OUTCOMES] = {
	[VERIFY_ACCEPTED] = {"accepted", X509_V_OK},
	[VERIFY_UNKNOWN_CA] = {"unknown_ca", X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY},
	[VERIFY_CHAIN] = {"chain", X509_V_ERR_CERT_REJECTED},
	[VERIFY_EXPIRED] = {"expired", X509_V_ERR_CERT_HAS_EXPIRED},
	[VERIFY_NOT_YET_VALID] = {"not_yet_valid", X509_V_ERR_CERT_NOT_YET_VALID},
	[VERIFY_PURPOSE] = {"purpose", X509_V_ERR_INVALID_PURPOSE},
	[VERIFY_PROFILE] = {"profile", X509_V_ERR_CERT_REJECTED},
	[VERIFY_ROLE] = {"role", X509_V_ERR_INVALID_PURPOSE},
	[VERIFY_REVOKED] = {"revoked", X509_V_ERR_CERT_REVOKED},
	[VERIFY_SUSPENDED] = {"suspended", X509_V_ERR_CERT_REVOKED},
	/* A code that OpenSSL has no alert for: it sends certificate_unknown. */
	[VERIFY_UNREGISTERED] = {"unregistered", X509_V_ERR_OCSP_CERT_UNKNOWN},
	[VERIFY_INTERNAL] = {"internal", X509_V_ERR_OUT_OF_MEM},
};

const char *verify_outcome_name(enum verify_outcome outcome)
{
	return (unsigned)outcome < VERIFY_OUTCOMES ? outcomes[outcome].name : "unknown";
}

const char *verify_reason(const struct verify_result *result)
{
	for (size_t i = 0; result->rule && i < profile_rule_count; i++)
		if (strcmp(profile_rules[i].name, result->rule) == 0)
			return profile_rules[i].name;
	return verify_outcome_name(result->outcome);
}

/* What OpenSSL's verdicts mean to us; any other is VERIFY_CHAIN. `rule` NULL: OpenSSL's own words. */
static const struct {
	int x509_error;
	enum verify_outcome outcome;
	const char *rule;
} chain_errors[] = {
	{X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, VERIFY_UNKNOWN_CA, NULL},
	{X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, VERIFY_UNKNOWN_CA, NULL},
	{X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, VERIFY_UNKNOWN_CA, NULL},
	{X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, VERIFY_UNKNOWN_CA, NULL},
	{X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN, VERIFY_UNKNOWN_CA, NULL},
	{X509_V_ERR_CERT_HAS_EXPIRED, VERIFY_EXPIRED, NULL},
	{X509_V_ERR_CERT_NOT_YET_VALID, VERIFY_NOT_YET_VALID, NULL},
	{X509_V_ERR_CERT_REVOKED, VERIFY_REVOKED, NULL},
	{X509_V_ERR_INVALID_PURPOSE, VERIFY_PURPOSE, NULL},
	{X509_V_ERR_EE_KEY_TOO_SMALL, VERIFY_PROFILE, "public_key"},
	{X509_V_ERR_CA_KEY_TOO_SMALL, VERIFY_PROFILE, "public_key"},
	{X509_V_ERR_CA_MD_TOO_WEAK, VERIFY_PROFILE, "signature_algorithm"},
	{X509_V_ERR_EC_KEY_EXPLICIT_PARAMS, VERIFY_PROFILE, "public_key"},
	{X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION, VERIFY_PROFILE, "critical_extension"},
	{X509_V_ERR_EXTENSIONS_REQUIRE_VERSION_3, VERIFY_PROFILE, "version"},
	{X509_V_ERR_MISSING_AUTHORITY_KEY_IDENTIFIER, VERIFY_PROFILE, "authority_key_id"},
	{X509_V_ERR_MISSING_SUBJECT_KEY_IDENTIFIER, VERIFY_PROFILE, "subject_key_id"},
	{X509_V_ERR_PATHLEN_INVALID_FOR_NON_CA, VERIFY_PROFILE, "basic_constraints"},
	{X509_V_ERR_CA_BCONS_NOT_CRITICAL, VERIFY_PROFILE, "ca_basic_constraints"},
	{X509_V_ERR_CA_CERT_MISSING_KEY_USAGE, VERIFY_PROFILE, "ca_key_usage"},
	{X509_V_ERR_OUT_OF_MEM, VERIFY_INTERNAL, NULL},
};

static enum verify_outcome error_outcome(int x509_error, const char **ret_rule)
{
	*ret_rule = X509_verify_cert_error_string(x509_error);
	for (size_t i = 0; i < ARRAY_LEN(chain_errors); i++)
		if (chain_errors[i].x509_error == x509_error) {
			if (chain_errors[i].rule)
				*ret_rule = chain_errors[i].rule;
			return chain_errors[i].outcome;
		}
	return VERIFY_CHAIN;
}

/* OpenSSL finds no issuer for a leaf whose extensions it cannot read, but nothing is wrong with the issuer.
 */
static enum verify_outcome chain_outcome(X509_STORE_CTX *ctx, const char **ret_rule)
{
	if (X509_get_extension_flags(X509_STORE_CTX_get0_cert(ctx)) & EXFLAG_INVALID) {
		*ret_rule = "malformed extensions";
		return VERIFY_CHAIN;
	}
	return error_outcome(X509_STORE_CTX_get_error(ctx), ret_rule);
}

static const struct {
	enum verify_outcome outcome;
	const char *fault;
} registry_outcomes[] = {
	[REGISTRY_ACTIVE] = {VERIFY_ACCEPTED, NULL},
	[REGISTRY_REVOKED] = {VERIFY_REVOKED, "revoked"},
	[REGISTRY_SUSPENDED] = {VERIFY_SUSPENDED, "its client is suspended"},
	[REGISTRY_UNKNOWN] = {VERIFY_UNREGISTERED, "not registered under this name, domain and role"},
};

/* The verdict under way. */
struct verdict {
	const struct verify_policy *policy;
	struct verify_result *result; /* outcome and rule of the first fault */
	struct err *e;
};

static void say(const struct verdict *v, struct verify_step step)
{
	if (v->policy->each)
		v->policy->each(v->policy->arg, &step);
}

/* Only the first fault counts. */
static void refuse(struct verdict *v, enum verify_outcome outcome, const char *rule, const char *fault)
{
	if (v->result->outcome != VERIFY_ACCEPTED)
		return;
	v->result->outcome = outcome;
	v->result->rule = rule;
	err_set(v->e, outcome == VERIFY_INTERNAL ? ERR_RETRY : ERR_REJECT, "%s: %s",
		verify_outcome_name(outcome), fault);
}

/* --- chain and time --- */

static bool is_time_error(int x509_error)
{
	return x509_error == X509_V_ERR_CERT_HAS_EXPIRED || x509_error == X509_V_ERR_CERT_NOT_YET_VALID;
}

/* X509_verify_cert's callback: time is judged later. */
static int let_time_pass(int ok, X509_STORE_CTX *ctx)
{
	return ok || is_time_error(X509_STORE_CTX_get_error(ctx));
}

static void context_prepare(X509_STORE_CTX *ctx, const struct verify_policy *policy)
{
	X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);
	X509_VERIFY_PARAM_set_flags(
		param, X509_V_FLAG_X509_STRICT | (policy->crl ? X509_V_FLAG_CRL_CHECK : 0));
	X509_VERIFY_PARAM_set_depth(param, INTERMEDIATES_MAX);
	X509_VERIFY_PARAM_set_purpose(param, policy->purpose);
	X509_VERIFY_PARAM_set_time(param, (time_t)(clock_wall(policy->clock).ms / 1000));
	X509_STORE_CTX_set_verify_cb(ctx, let_time_pass);
}

/* What OpenSSL says of revocation lists, and of who is on them. It looks at them once the chain has held. */
static bool is_crl_error(int x509_error)
{
	static const int errors[] = {X509_V_ERR_UNABLE_TO_GET_CRL, X509_V_ERR_UNABLE_TO_DECRYPT_CRL_SIGNATURE,
		X509_V_ERR_CRL_SIGNATURE_FAILURE, X509_V_ERR_CRL_NOT_YET_VALID, X509_V_ERR_CRL_HAS_EXPIRED,
		X509_V_ERR_ERROR_IN_CRL_LAST_UPDATE_FIELD, X509_V_ERR_ERROR_IN_CRL_NEXT_UPDATE_FIELD,
		X509_V_ERR_CERT_REVOKED, X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER, X509_V_ERR_KEYUSAGE_NO_CRL_SIGN,
		X509_V_ERR_UNHANDLED_CRITICAL_CRL_EXTENSION, X509_V_ERR_DIFFERENT_CRL_SCOPE,
		X509_V_ERR_CRL_PATH_VALIDATION_ERROR};
	for (size_t i = 0; i < ARRAY_LEN(errors); i++)
		if (errors[i] == x509_error)
			return true;
	return false;
}

/* Whether there is a chain to a trusted root; its dates may be wrong. */
static bool judge_chain(struct verdict *v, X509_STORE_CTX *ctx)
{
	struct verify_step chain = {.name = "chain",
		.demands = "signatures lead to a trusted root through CA certificates (RFC 5280 section 6)"};
	struct verify_step crl = {.name = "crl",
		.demands = "its issuer's revocation list is there, is current, and does not name it"};
	bool held = X509_verify_cert(ctx) > 0;
	int x509_error = X509_STORE_CTX_get_error(ctx);
	if (!held) {
		struct verify_step *step = is_crl_error(x509_error) ? &crl : &chain;
		const char *rule;
		enum verify_outcome outcome = chain_outcome(ctx, &rule);
		step->fault = X509_verify_cert_error_string(x509_error);
		step->depth = (unsigned)X509_STORE_CTX_get_error_depth(ctx);
		refuse(v, outcome, rule, step->fault);
	}
	crl.skipped = chain.fault != NULL;
	say(v, chain);
	if (v->policy->crl)
		say(v, crl);
	return held;
}

static bool ended_before(X509 *cert, struct wall at)
{
	struct wall end;
	return !wall_of_asn1(X509_get0_notAfter(cert), &end) || end.ms < at.ms;
}

/* Whether only the leaf has ended, and not too long ago. */
static bool is_in_grace(const struct verdict *v, X509_STORE_CTX *ctx)
{
	STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(ctx);
	struct wall now = clock_wall(v->policy->clock);
	if (!v->policy->grace_ms || X509_STORE_CTX_get_error(ctx) != X509_V_ERR_CERT_HAS_EXPIRED)
		return false;
	for (int i = 1; i < sk_X509_num(chain); i++)
		if (ended_before(sk_X509_value(chain, i), now))
			return false;
	return !ended_before(X509_STORE_CTX_get0_cert(ctx), (struct wall){now.ms - v->policy->grace_ms});
}

static void judge_time(struct verdict *v, X509_STORE_CTX *ctx, bool chain_held)
{
	struct verify_step step = {.name = "time",
		.demands = "every certificate of the chain is valid now",
		.skipped = !chain_held};
	int x509_error = X509_STORE_CTX_get_error(ctx);
	if (chain_held && is_time_error(x509_error) && !is_in_grace(v, ctx)) {
		const char *rule;
		enum verify_outcome outcome = error_outcome(x509_error, &rule);
		step.fault = rule;
		step.depth = (unsigned)X509_STORE_CTX_get_error_depth(ctx);
		refuse(v, outcome, rule, step.fault);
	}
	say(v, step);
}

/* --- profile, role, registry --- */

static void say_rule(void *arg, const struct profile_rule *rule, const char *fault, unsigned depth)
{
	say(arg, (struct verify_step){
			 .name = rule->name, .demands = rule->demands, .fault = fault, .depth = depth});
}

static enum verify_outcome profile_outcome(const struct profile_rule *rule)
{
	return strcmp(rule->name, "extended_key_usage") == 0 ? VERIFY_PURPOSE : VERIFY_PROFILE;
}

static bool judge_profile(struct verdict *v, STACK_OF(X509) * chain)
{
	const struct profile_rule *broken;
	struct err why = ERR_INIT;
	if (profile_check(chain, v->policy->trust_domain, v->policy->each ? say_rule : NULL, v,
		    &v->result->identity, &broken, &why))
		return true;
	refuse(v, profile_outcome(broken), broken->name, why.text);
	return false;
}

/* Without a chain the leaf's own rules still tell something; only those who read every step want to know. */
static bool judge_leaf_alone(struct verdict *v, X509 *leaf)
{
	STACK_OF(X509) *alone = sk_X509_new_null();
	bool held = alone && sk_X509_push(alone, leaf) && judge_profile(v, alone);
	sk_X509_free(alone);
	return held;
}

static void judge_role(struct verdict *v, bool known)
{
	if (!v->policy->roles)
		return;
	struct verify_step step = {
		.name = "role", .demands = "a role that is let in here", .skipped = !known};
	if (known && !(v->policy->roles & ROLE_BIT(v->result->identity.role))) {
		step.fault = "another role";
		refuse(v, VERIFY_ROLE, "role", step.fault);
	}
	say(v, step);
}

static void judge_registry(struct verdict *v, bool known)
{
	if (!v->policy->registry)
		return;
	struct verify_step step = {.name = "registry",
		.demands = "registered here and neither revoked nor suspended",
		.skipped = !known};
	if (known) {
		enum registry_status status = registry_check(v->policy->registry, &v->result->identity);
		step.fault = registry_outcomes[status].fault;
		if (step.fault)
			refuse(v, registry_outcomes[status].outcome, "registry", step.fault);
	}
	say(v, step);
}

static bool go_on(const struct verdict *v)
{
	return v->result->outcome == VERIFY_ACCEPTED || v->policy->each;
}

bool verify_context(
	X509_STORE_CTX *ctx, const struct verify_policy *policy, struct verify_result *ret, struct err *e)
{
	*ret = (struct verify_result){.outcome = VERIFY_ACCEPTED};
	struct verdict v = {policy, ret, e};
	context_prepare(ctx, policy);
	ERR_set_mark(); /* the verdict says it all; see profile_check */
	bool chain_held = judge_chain(&v, ctx);
	judge_time(&v, ctx, chain_held);
	bool known = false;
	if (go_on(&v))
		known = chain_held ? judge_profile(&v, X509_STORE_CTX_get0_chain(ctx))
				   : judge_leaf_alone(&v, X509_STORE_CTX_get0_cert(ctx));
	if (go_on(&v))
		judge_role(&v, known);
	if (go_on(&v))
		judge_registry(&v, known);
	ERR_pop_to_mark();
	X509_STORE_CTX_set_error(ctx, outcomes[ret->outcome].x509_error);
	return ret->outcome == VERIFY_ACCEPTED;
}

bool verify_certificate(X509 *leaf, STACK_OF(X509) * untrusted, X509_STORE *store,
	const struct verify_policy *policy, struct verify_result *ret, struct err *e)
{
	AUTO(X509_STORE_CTX_free_auto) X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	if (!ctx || !X509_STORE_CTX_init(ctx, store, leaf, untrusted)) {
		*ret = (struct verify_result){.outcome = VERIFY_INTERNAL, .rule = "memory"};
		err_openssl(e, ERR_RETRY, "verify");
		return false;
	}
	return verify_context(ctx, policy, ret, e);
}
