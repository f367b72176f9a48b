/* signer_protocol_test.c - what is encoded decodes to the same, everything shorter, longer or larger is
 * refused, and messages of any size pass through a socketpair. */
#include "ca/signer_protocol.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sys/socket.h>

enum { ROOM_BYTES = 256 * 1024 };

static void buf_room(struct buf *b)
{
	buf_init(b, ROOM_BYTES);
}

/* --- payloads --- */

static int decode_setup(struct str payload)
{
	struct signer_setup setup;
	return signer_setup_decode(payload, &setup, NULL);
}

static int decode_issue(struct str payload)
{
	struct signer_issue issue;
	return signer_issue_decode(payload, &issue, NULL);
}

static int decode_crl(struct str payload)
{
	struct signer_crl crl;
	int result = signer_crl_decode(payload, &crl, NULL);
	if (result == 0)
		signer_crl_clear(&crl);
	return result;
}

/* Every prefix, and one byte more, must be refused. In exactly sized memory, so that ASan sees what is read.
 */
static void expect_exact(const struct buf *payload, int (*decode)(struct str payload))
{
	assert_int_equal(decode(buf_str(payload)), 0);
	for (size_t n = 0; n <= payload->n + 1; n++) {
		if (n == payload->n)
			continue;
		char *copy = calloc(1, n ? n : 1);
		memcpy(copy, payload->p, n < payload->n ? n : payload->n);
		assert_int_equal(decode((struct str){copy, n}), -1);
		free(copy);
	}
}

static const struct signer_setup setup = {.dir = STR("/var/lib/sealpost/ca"),
	.trust_domain = STR("example.test"),
	.public_url = STR("http://ca.example.com"),
	.user = STR("sealpost-signer"),
	.root_pem = STR("-----BEGIN ENCRYPTED PRIVATE KEY-----"),
	.root_passphrase = STR("correct horse"),
	.issuer = STR("0123456789abcdef0123456789abcdef01234567"),
	.passphrase_file = STR("/run/credentials/passphrase"),
	.root_key_type = STR("rsa:4096"),
	.issuing_key_type = STR("ec:P-256"),
	.backdate_ms = 300000,
	.max_days = 825,
	.caller_time = true,
	.now = {1795348200000}};

static void test_setup(void **state)
{
	AUTO(buf_auto) struct buf payload;
	struct signer_setup got;
	buf_room(&payload);
	signer_setup_encode(&setup, &payload);
	assert_int_equal(signer_setup_decode(buf_str(&payload), &got, NULL), 0);
	assert_true(str_eq(got.dir, setup.dir) && str_eq(got.trust_domain, setup.trust_domain) &&
		    str_eq(got.passphrase_file, setup.passphrase_file) &&
		    str_eq(got.public_url, setup.public_url) && str_eq(got.user, setup.user) &&
		    str_eq(got.root_pem, setup.root_pem) &&
		    str_eq(got.root_passphrase, setup.root_passphrase) && str_eq(got.issuer, setup.issuer) &&
		    str_eq(got.root_key_type, setup.root_key_type) &&
		    str_eq(got.issuing_key_type, setup.issuing_key_type));
	assert_true(got.backdate_ms == setup.backdate_ms && got.max_days == setup.max_days &&
		    got.caller_time && got.now.ms == setup.now.ms);
	expect_exact(&payload, decode_setup);
}

static void test_setup_with_nul(void **state)
{
	AUTO(buf_auto) struct buf payload;
	struct signer_setup spoilt = setup;
	buf_room(&payload);
	spoilt.dir = STR("/var\0/lib");
	signer_setup_encode(&spoilt, &payload);
	assert_int_equal(decode_setup(buf_str(&payload)), -1);
}

static const struct str dns[] = {STR("localhost"), STR("relay.example.com")},
			addresses[] = {STR("127.0.0.1")};

static struct ca_request request(void)
{
	return (struct ca_request){.role = ROLE_SERVER,
		.name = STR("relay"),
		.domain = STR("example.com"),
		.days = 90,
		.public_key_der = STR("\x30\x00"),
		.dns_names = dns,
		.dns_count = ARRAY_LEN(dns),
		.addresses = addresses,
		.address_count = ARRAY_LEN(addresses)};
}

static void test_issue(void **state)
{
	AUTO(buf_auto) struct buf payload;
	const struct ca_request r = request();
	struct signer_issue got;
	buf_room(&payload);
	assert_int_equal(signer_issue_encode(&r, (struct wall){42}, &payload, NULL), 0);
	assert_int_equal(signer_issue_decode(buf_str(&payload), &got, NULL), 0);
	assert_true(got.now.ms == 42 && got.request.role == ROLE_SERVER && got.request.days == 90);
	assert_true(str_eq(got.request.name, r.name) && str_eq(got.request.domain, r.domain) &&
		    str_eq(got.request.public_key_der, r.public_key_der));
	assert_int_equal(got.request.dns_count, 2);
	assert_true(str_eq(got.request.dns_names[1], dns[1]));
	assert_int_equal(got.request.address_count, 1);
	assert_true(str_eq(got.request.addresses[0], addresses[0]));
	expect_exact(&payload, decode_issue);
}

static void test_issue_too_large(void **state)
{
	static const char bytes[SIGNER_KEY_BYTES_MAX + 1];
	static struct str many[CA_NAMES_MAX + 1];
	struct ca_request r[6];
	for (size_t i = 0; i < ARRAY_LEN(r); i++)
		r[i] = request();
	for (size_t i = 0; i < ARRAY_LEN(many); i++)
		many[i] = STR("a");
	const struct str long_dns = {bytes, 256};
	r[0].name = str_mem(bytes, 256);
	r[1].public_key_der = str_mem(bytes, sizeof(bytes));
	r[2].dns_names = many, r[2].dns_count = ARRAY_LEN(many);
	r[3].addresses = many, r[3].address_count = ARRAY_LEN(many);
	r[4].dns_names = &long_dns, r[4].dns_count = 1;
	r[5].days = -1;
	for (size_t i = 0; i < ARRAY_LEN(r); i++) {
		AUTO(buf_auto) struct buf payload;
		struct err e;
		buf_room(&payload);
		assert_int_equal(signer_issue_encode(&r[i], (struct wall){0}, &payload, &e), -1);
		assert_int_equal(e.kind, ERR_REJECT);
	}
}

static void test_crl(void **state)
{
	struct build_revoked entries[] = {
		{.serial = {0x7f, 2}, .serial_bytes = 2, .at = {1000}, .reason = 1},
		{.serial = {1}, .serial_bytes = 20, .at = {2000}, .reason = 0},
	};
	const struct signer_crl crl = {{42}, {0xab}, 7, entries, ARRAY_LEN(entries)};
	AUTO(buf_auto) struct buf payload;
	struct signer_crl got;
	buf_room(&payload);
	assert_int_equal(signer_crl_encode(&crl, &payload, NULL), 0);
	assert_int_equal(signer_crl_decode(buf_str(&payload), &got, NULL), 0);
	assert_true(
		got.now.ms == 42 && got.issuer_key_id[0] == 0xab && got.valid_days == 7 && got.count == 2);
	assert_memory_equal(got.entries[0].serial, entries[0].serial, IDENTITY_SERIAL_BYTES);
	assert_true(got.entries[1].serial_bytes == 20 && got.entries[1].at.ms == 2000);
	signer_crl_clear(&got);
	expect_exact(&payload, decode_crl);
}

static void test_crl_bad_entries(void **state)
{
	struct build_revoked entries[] = {{.serial = {1}, .serial_bytes = 0},
		{.serial = {0, 1}, .serial_bytes = 2}, {.serial = {1}, .serial_bytes = 1, .at = {-1}}};
	for (size_t i = 0; i < ARRAY_LEN(entries); i++) {
		const struct signer_crl crl = {{0}, {0}, 7, &entries[i], 1};
		AUTO(buf_auto) struct buf payload;
		buf_room(&payload);
		assert_int_equal(signer_crl_encode(&crl, &payload, NULL), 0);
		assert_int_equal(decode_crl(buf_str(&payload)), -1);
	}
	/* A count that the bytes cannot hold is refused before memory is taken for it. */
	assert_int_equal(decode_crl(STR("\0\0\0\0\0\0\0\0"
					"0123456789abcdef0123"
					"\0\0\0\0\0\0\0\7"
					"\xff\xff\xff\xff")),
		-1);
}

static void test_error(void **state)
{
	struct err said, heard;
	AUTO(buf_auto) struct buf payload;
	buf_room(&payload);
	err_set(&said, ERR_REJECT, "no such thing");
	signer_error_encode(&said, &payload);
	assert_int_equal(signer_error_decode(buf_str(&payload), &heard), -1);
	assert_int_equal(heard.kind, ERR_REJECT);
	assert_string_equal(heard.text, "no such thing");
	assert_int_equal(signer_error_decode(STR(""), &heard), -1);
	assert_int_equal(heard.kind, ERR_FATAL);
	assert_int_equal(signer_error_decode(STR("\0\0\0"), &heard), -1);
	assert_int_equal(heard.kind, ERR_FATAL);
}

/* --- frames --- */

static void test_bad_frames(void **state)
{
	static const struct str frames[] = {
		STR(""), STR("\1\3\0\0\0\0\0"), /* seven bytes */
		STR("\2\3\0\0\0\0\0\1"),        /* another version */
		STR("\1\0\0\0\0\0\0\1"),        /* no type */
		STR("\1\xff\0\0\0\0\0\1"),      /* unknown type */
		STR("\1\3\2\0\0\0\0\1"),        /* more is neither 0 nor 1 */
		STR("\1\3\0\1\0\0\0\1"),        /* not zero */
		STR("\1\3\1\0\0\0\0\1"
		    "abc"), /* more to come, though this frame is not full */
	};
	struct signer_frame frame;
	for (size_t i = 0; i < ARRAY_LEN(frames); i++)
		assert_int_equal(signer_frame_decode(frames[i], &frame, NULL), -1);
	assert_int_equal(signer_frame_decode(STR("\1\3\0\0\0\0\1\2"
						 "abc"),
				 &frame, NULL),
		0);
	assert_true(frame.type == SIGNER_ISSUE && frame.id == 258 && str_eq(frame.payload, STR("abc")));
}

struct sender {
	int fd;
	struct str payload;
};

static void *send_all(void *arg)
{
	const struct sender *s = arg;
	if (signer_send(s->fd, SIGNER_CRL, 7, s->payload, NULL) < 0)
		abort();
	return NULL;
}

static void test_messages_of_all_sizes(void **state)
{
	static const size_t sizes[] = {0, 1, SIGNER_FRAME_BYTES - 1, SIGNER_FRAME_BYTES,
		SIGNER_FRAME_BYTES + 1, (size_t)2 * SIGNER_FRAME_BYTES, 1000000};
	static char bytes[1000000];
	int ends[2];
	struct signer_message got;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)(i % 251);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	signer_message_init(&got);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		struct sender sender = {ends[0], {bytes, sizes[i]}};
		pthread_t thread;
		assert_int_equal(pthread_create(&thread, NULL, send_all, &sender), 0);
		assert_int_equal(signer_receive(ends[1], &got, NULL), 0);
		pthread_join(thread, NULL);
		assert_true(got.type == SIGNER_CRL && got.id == 7);
		assert_true(str_eq(buf_str(&got.payload), sender.payload));
	}
	close(ends[0]);
	assert_int_equal(signer_receive(ends[1], &got, NULL), SIGNER_ENDED);
	signer_message_clear(&got);
	close(ends[1]);
}

static void test_broken_streams(void **state)
{
	static char full[SIGNER_FRAME_HEAD_BYTES + SIGNER_FRAME_BYTES];
	static char too_large[SIGNER_FRAME_HEAD_BYTES + SIGNER_FRAME_BYTES + 1];
	int ends[2];
	struct signer_message got;
	struct err e;
	signer_message_init(&got);
	memcpy(full, "\1\3\1\0\0\0\0\1", SIGNER_FRAME_HEAD_BYTES);
	memcpy(too_large, "\1\3\0\0\0\0\0\1", SIGNER_FRAME_HEAD_BYTES);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	assert_int_equal(send(ends[0], too_large, sizeof(too_large), 0), sizeof(too_large));
	assert_int_equal(signer_receive(ends[1], &got, &e), -1);
	assert_int_equal(e.kind, ERR_REJECT);
	/* Frames of two requests in one message. */
	assert_int_equal(send(ends[0], full, sizeof(full), 0), sizeof(full));
	assert_int_equal(send(ends[0], "\1\3\0\0\0\0\0\2", 8, 0), 8);
	assert_int_equal(signer_receive(ends[1], &got, &e), -1);
	assert_int_equal(e.kind, ERR_REJECT);
	/* The end within a message. */
	assert_int_equal(send(ends[0], full, sizeof(full), 0), sizeof(full));
	close(ends[0]);
	assert_int_equal(signer_receive(ends[1], &got, &e), -1);
	assert_int_equal(e.kind, ERR_RETRY);
	signer_message_clear(&got);
	close(ends[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_setup),
		cmocka_unit_test(test_setup_with_nul),
		cmocka_unit_test(test_issue),
		cmocka_unit_test(test_issue_too_large),
		cmocka_unit_test(test_crl),
		cmocka_unit_test(test_crl_bad_entries),
		cmocka_unit_test(test_error),
		cmocka_unit_test(test_bad_frames),
		cmocka_unit_test(test_messages_of_all_sizes),
		cmocka_unit_test(test_broken_streams),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
