/* micro_seal - what one message costs the CPU on its way in, step by step, without network, TLS and disk.
 *
 * Every step runs alone in a loop over one 200-byte message; the best of several rounds is printed, since
 * noise only ever adds. jansson parses the same text as a yardstick. */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "crypto/seal.h"

enum { ROUNDS = 15, CALLS = 20000 };

static const char json[] =
	"{\"sender_number\":\"+4915112345678\",\"message_body\":\"Dear customer, your parcel 4711 will arrive today "
	"between two and four o'clock. Reply STOP to hear no more of us.\",\"metadata\":{\"campaign\":\"parcels\"}}";

struct bench {
	struct arena arena;
	struct message message;
	struct message_problems problems;
	struct keyring *keyring;
	struct sealer *sealer;
	struct opener *opener;
	struct uuid_source ids;
	struct sealed facts;
	struct buf envelope, scratch;
};

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "micro_seal: %s failed\n", what);
	exit(1);
}

static void run_jansson(struct bench *b)
{
	json_t *root = json_loadb(json, sizeof(json) - 1, JSON_REJECT_DUPLICATES, NULL);
	must(root != NULL, "jansson");
	json_decref(root);
}

static void run_parse(struct bench *b)
{
	arena_reset(&b->arena);
	must(message_parse(str_mem(json, sizeof(json) - 1), &b->arena, &b->message, &b->problems, NULL) == 0,
		"parse");
}

static void run_id(struct bench *b)
{
	must(uuid_next(&b->ids, &b->facts.id, NULL) == 0, "id");
}

static void run_seal(struct bench *b)
{
	buf_reset(&b->envelope);
	must(sealer_seal(b->sealer, &b->facts, &b->message, &b->envelope, NULL) == 0, "seal");
}

static void run_encode(struct bench *b)
{
	buf_reset(&b->scratch);
	b->facts.envelope = buf_str(&b->envelope);
	sealed_encode(&b->facts, &b->scratch);
}

static void run_all(struct bench *b)
{
	run_parse(b);
	run_id(b);
	run_seal(b);
	run_encode(b);
}

static void run_open(struct bench *b)
{
	struct message m;
	b->facts.envelope = buf_str(&b->envelope);
	must(opener_open(b->opener, &b->facts, &b->scratch, &m, NULL) == 0, "open");
}

static void run_index(struct bench *b)
{
	uint8_t index[BLIND_INDEX_BYTES];
	must(keyring_blind_index(b->keyring, b->message.sender_number, index, NULL) == 0, "blind index");
}

static const struct {
	const char *name;
	void (*run)(struct bench *b);
} steps[] = {
	{"parse by jansson, for comparison", run_jansson},
	{"parse and validate", run_parse},
	{"id", run_id},
	{"seal (payload, additional data, HPKE)", run_seal},
	{"encode the record", run_encode},
	{"the four together", run_all},
	{"open (cached context) and validate", run_open},
	{"blind index of the number", run_index},
};

static double best_ns(void (*run)(struct bench *b), struct bench *b)
{
	int64_t best = INT64_MAX;
	for (int round = 0; round < ROUNDS; round++) {
		int64_t start = clock_mono(&clock_system).ns;
		for (int i = 0; i < CALLS; i++)
			run(b);
		int64_t took = clock_mono(&clock_system).ns - start;
		best = took < best ? took : best;
	}
	return (double)best / CALLS;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st, (void)kind, (void)at;
	return remove(path);
}

static void set_up(struct bench *b)
{
	struct err e = ERR_INIT;
	struct sealing_public active;
	char dir[] = "/tmp/micro_seal-XXXXXX";
	arena_init(&b->arena, 1 << 20);
	buf_init(&b->envelope, SEALED_MAX_BYTES);
	buf_init(&b->scratch, SEALED_MAX_BYTES);
	uuid_source_init(&b->ids, &clock_system, 0);
	b->facts.client_id = STR("till-7");
	b->facts.domain = STR("shop");
	b->facts.accepted_at = clock_wall(&clock_system);
	must(mkdtemp(dir) && keyring_init(dir, &clock_system, &e) == 0 &&
			keyring_load(dir, &b->keyring, &e) == 0 &&
			sealer_new(&clock_system, &b->sealer, &e) == 0 &&
			opener_new(b->keyring, &b->opener, &e) == 0,
		"preparation");
	must(nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0, "removal of the key directory");
	keyring_active(b->keyring, &active);
	sealer_set_key(b->sealer, &active);
	run_parse(b);
	run_id(b);
	run_seal(b);
}

static void tear_down(struct bench *b)
{
	opener_free(b->opener);
	sealer_free(b->sealer);
	keyring_free(b->keyring);
	buf_wipe(&b->envelope);
	buf_wipe(&b->scratch);
	arena_clear(&b->arena);
}

int main(void)
{
	static struct bench bench;
	set_up(&bench);
	printf("one message of %zu bytes, best of %d rounds\n", sizeof(json) - 1, ROUNDS);
	for (size_t i = 0; i < ARRAY_LEN(steps); i++)
		printf("%8.0f ns  %s\n", best_ns(steps[i].run, &bench), steps[i].name);
	tear_down(&bench);
	return 0;
}
