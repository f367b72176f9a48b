/* signer_protocol.c - see signer_protocol.h. Payloads are written with buf_add_u* and read with a cursor;
 * strings are u16 length and bytes. */
#include "ca/signer_protocol.h"

#include <errno.h>
#include <sys/socket.h>

/* --- frames --- */

void signer_frame_encode(const struct signer_frame *frame, struct buf *out)
{
	buf_add_u8(out, SIGNER_VERSION);
	buf_add_u8(out, (uint8_t)frame->type);
	buf_add_u8(out, frame->more);
	buf_add_u8(out, 0);
	buf_add_u32(out, frame->id);
	buf_add_str(out, frame->payload);
}

int signer_frame_decode(struct str bytes, struct signer_frame *ret, struct err *e)
{
	struct cursor in = cursor_of(bytes);
	uint8_t version = cursor_u8(&in), type = cursor_u8(&in), more = cursor_u8(&in), zero = cursor_u8(&in);
	uint32_t id = cursor_u32(&in);
	if (in.failed || version != SIGNER_VERSION)
		return err_set(e, ERR_REJECT, "signer: not a message of version %d", SIGNER_VERSION);
	if (type == 0 || type >= SIGNER_TYPES || more > 1 || zero != 0 || in.n > SIGNER_FRAME_BYTES ||
		(more && in.n < SIGNER_FRAME_BYTES))
		return err_set(e, ERR_REJECT, "signer: malformed message");
	*ret = (struct signer_frame){type, more, id, cursor_bytes(&in, in.n)};
	return 0;
}

static int frame_send(int fd, const struct signer_frame *frame, struct err *e)
{
	AUTO(buf_auto) struct buf bytes;
	buf_init(&bytes, SIGNER_FRAME_HEAD_BYTES + SIGNER_FRAME_BYTES);
	signer_frame_encode(frame, &bytes);
	if (buf_check(&bytes, e) < 0)
		return -1;
	ssize_t n;
	do {
		n = send(fd, bytes.p, bytes.n, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? err_sys(e, ERR_RETRY, "signer: send") : 0;
}

int signer_send(int fd, enum signer_type type, uint32_t id, struct str payload, struct err *e)
{
	if (payload.n > SIGNER_MESSAGE_BYTES_MAX)
		return err_set(e, ERR_REJECT, "signer: message of %zu bytes is too large", payload.n);
	do {
		size_t n = payload.n < SIGNER_FRAME_BYTES ? payload.n : SIGNER_FRAME_BYTES;
		struct signer_frame frame = {type, n < payload.n, id, {payload.p, n}};
		if (frame_send(fd, &frame, e) < 0)
			return -1;
		if (n)
			payload = (struct str){payload.p + n, payload.n - n};
	} while (payload.n);
	return 0;
}

void signer_message_init(struct signer_message *m)
{
	*m = (struct signer_message){0};
	buf_init(&m->payload, SIGNER_MESSAGE_BYTES_MAX);
}

void signer_message_clear(struct signer_message *m)
{
	buf_wipe(&m->payload);
}

/* 0, or SIGNER_ENDED; the frame points into `room`. */
static int frame_receive(
	int fd, unsigned char *room, size_t room_bytes, struct signer_frame *ret, struct err *e)
{
	ssize_t n;
	do {
		n = recv(fd, room, room_bytes, MSG_TRUNC);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno != ECONNRESET)
		return err_sys(e, ERR_RETRY, "signer: receive");
	if (n <= 0)
		return SIGNER_ENDED;
	if ((size_t)n > room_bytes)
		return err_set(e, ERR_REJECT, "signer: message of %zd bytes is too large", n);
	return signer_frame_decode(str_mem(room, (size_t)n), ret, e);
}

int signer_receive(int fd, struct signer_message *ret, struct err *e)
{
	unsigned char room[SIGNER_FRAME_HEAD_BYTES + SIGNER_FRAME_BYTES];
	struct signer_frame frame = {.more = true};
	buf_reset(&ret->payload);
	for (bool first = true; frame.more; first = false) {
		int result = frame_receive(fd, room, sizeof(room), &frame, e);
		if (result == SIGNER_ENDED && !first)
			return err_set(e, ERR_RETRY, "signer: ended within a message");
		if (result != 0)
			return result;
		if (!first && (frame.type != ret->type || frame.id != ret->id))
			return err_set(e, ERR_REJECT, "signer: messages are mixed up");
		ret->type = frame.type;
		ret->id = frame.id;
		buf_add_str(&ret->payload, frame.payload);
		if (buf_check(&ret->payload, e) < 0)
			return -1;
	}
	return 0;
}

/* --- parts of payloads --- */

static void add_string(struct buf *out, struct str s)
{
	buf_add_u16(out, (uint16_t)s.n);
	buf_add_str(out, s);
}

static struct str take_string(struct cursor *in, size_t max)
{
	size_t n = cursor_u16(in);
	if (n > max)
		in->failed = true;
	return cursor_bytes(in, n);
}

/* For what becomes a C string. */
static struct str take_text(struct cursor *in, size_t max)
{
	struct str s = take_string(in, max);
	if (s.n && memchr(s.p, '\0', s.n))
		in->failed = true;
	return s;
}

static bool take_bool(struct cursor *in)
{
	uint8_t value = cursor_u8(in);
	if (value > 1)
		in->failed = true;
	return value;
}

/* Times and counts: never negative. */
static int64_t take_int(struct cursor *in)
{
	uint64_t value = cursor_u64(in);
	if (value > INT64_MAX)
		in->failed = true;
	return in->failed ? 0 : (int64_t)value;
}

static int decoded(const struct cursor *in, struct err *e)
{
	return cursor_done(in) ? 0 : err_set(e, ERR_REJECT, "signer: malformed request");
}

/* --- setup --- */

void signer_setup_encode(const struct signer_setup *setup, struct buf *out)
{
	add_string(out, setup->dir);
	add_string(out, setup->trust_domain);
	add_string(out, setup->public_url);
	add_string(out, setup->user);
	add_string(out, setup->passphrase_file);
	add_string(out, setup->root_key_type);
	add_string(out, setup->issuing_key_type);
	buf_add_u64(out, (uint64_t)setup->backdate_ms);
	buf_add_u64(out, (uint64_t)setup->max_days);
	buf_add_u8(out, setup->caller_time);
	buf_add_u64(out, (uint64_t)setup->now.ms);
	add_string(out, setup->root_pem);
	add_string(out, setup->root_passphrase);
	add_string(out, setup->issuer);
}

int signer_setup_decode(struct str payload, struct signer_setup *ret, struct err *e)
{
	struct cursor in = cursor_of(payload);
	*ret = (struct signer_setup){.dir = take_text(&in, SIGNER_PATH_BYTES_MAX),
		.trust_domain = take_text(&in, IDENTITY_NAME_BYTES),
		.public_url = take_text(&in, SIGNER_URL_BYTES_MAX),
		.user = take_text(&in, SIGNER_USER_BYTES_MAX),
		.passphrase_file = take_text(&in, SIGNER_PATH_BYTES_MAX),
		.root_key_type = take_text(&in, IDENTITY_NAME_BYTES),
		.issuing_key_type = take_text(&in, IDENTITY_NAME_BYTES)};
	ret->backdate_ms = take_int(&in);
	ret->max_days = take_int(&in);
	ret->caller_time = take_bool(&in);
	ret->now.ms = take_int(&in);
	ret->root_pem = take_string(&in, SIGNER_PEM_BYTES_MAX);
	ret->root_passphrase = take_string(&in, SIGNER_PASSPHRASE_BYTES_MAX);
	ret->issuer = take_text(&in, 2 * (size_t)IDENTITY_KEY_ID_BYTES);
	return decoded(&in, e);
}

/* --- issue --- */

static bool request_fits(const struct ca_request *r)
{
	size_t largest = r->name.n > r->domain.n ? r->name.n : r->domain.n;
	for (unsigned i = 0; i < r->dns_count && i < CA_NAMES_MAX; i++)
		largest = r->dns_names[i].n > largest ? r->dns_names[i].n : largest;
	for (unsigned i = 0; i < r->address_count && i < CA_NAMES_MAX; i++)
		largest = r->addresses[i].n > largest ? r->addresses[i].n : largest;
	return largest <= UINT8_MAX && r->public_key_der.n <= SIGNER_KEY_BYTES_MAX &&
	       r->dns_count <= CA_NAMES_MAX && r->address_count <= CA_NAMES_MAX && r->days >= 0;
}

static void add_names(struct buf *out, const struct str *names, unsigned count)
{
	buf_add_u16(out, (uint16_t)count);
	for (unsigned i = 0; i < count; i++)
		add_string(out, names[i]);
}

static unsigned take_names(struct cursor *in, struct str names[CA_NAMES_MAX])
{
	unsigned count = cursor_u16(in);
	if (count > CA_NAMES_MAX) {
		in->failed = true;
		return 0;
	}
	for (unsigned i = 0; i < count; i++)
		names[i] = take_string(in, UINT8_MAX);
	return count;
}

int signer_issue_encode(const struct ca_request *r, struct wall now, struct buf *out, struct err *e)
{
	if (!request_fits(r))
		return err_set(e, ERR_REJECT, "certificate request: a name, the key or a list is too long");
	buf_add_u64(out, (uint64_t)now.ms);
	buf_add_u8(out, (uint8_t)r->role);
	buf_add_u64(out, (uint64_t)r->days);
	add_string(out, r->name);
	add_string(out, r->domain);
	add_string(out, r->public_key_der);
	add_names(out, r->dns_names, r->dns_count);
	add_names(out, r->addresses, r->address_count);
	return buf_check(out, e);
}

int signer_issue_decode(struct str payload, struct signer_issue *ret, struct err *e)
{
	struct cursor in = cursor_of(payload);
	struct ca_request *r = &ret->request;
	*ret = (struct signer_issue){0};
	ret->now.ms = take_int(&in);
	r->role = cursor_u8(&in);
	r->days = take_int(&in);
	r->name = take_string(&in, UINT8_MAX);
	r->domain = take_string(&in, UINT8_MAX);
	r->public_key_der = take_string(&in, SIGNER_KEY_BYTES_MAX);
	r->dns_names = ret->names;
	r->dns_count = take_names(&in, ret->names);
	r->addresses = ret->names + CA_NAMES_MAX;
	r->address_count = take_names(&in, ret->names + CA_NAMES_MAX);
	return decoded(&in, e);
}

/* --- CRL --- */

/* Serial with its length, time, reason: what an entry takes at least. */
enum { ENTRY_BYTES_MIN = 1 + 1 + 8 + 1 };

static void add_entry(struct buf *out, const struct build_revoked *entry)
{
	buf_add_u8(out, (uint8_t)entry->serial_bytes);
	buf_add(out, entry->serial, entry->serial_bytes);
	buf_add_u64(out, (uint64_t)entry->at.ms);
	buf_add_u8(out, (uint8_t)entry->reason);
}

static void take_entry(struct cursor *in, struct build_revoked *ret)
{
	*ret = (struct build_revoked){.serial_bytes = cursor_u8(in)};
	if (ret->serial_bytes == 0 || ret->serial_bytes > IDENTITY_SERIAL_BYTES) {
		in->failed = true;
		return;
	}
	cursor_copy(in, ret->serial, ret->serial_bytes);
	ret->at.ms = take_int(in);
	ret->reason = cursor_u8(in);
	if (ret->serial[0] == 0)
		in->failed = true;
}

int signer_crl_encode(const struct signer_crl *crl, struct buf *out, struct err *e)
{
	if (crl->count > UINT32_MAX)
		return err_set(e, ERR_REJECT, "CRL: %zu entries are too many", crl->count);
	buf_add_u64(out, (uint64_t)crl->now.ms);
	buf_add(out, crl->issuer_key_id, sizeof(crl->issuer_key_id));
	buf_add_u64(out, (uint64_t)crl->valid_days);
	buf_add_u32(out, (uint32_t)crl->count);
	for (size_t i = 0; i < crl->count; i++)
		add_entry(out, &crl->entries[i]);
	return buf_check(out, e);
}

int signer_crl_decode(struct str payload, struct signer_crl *ret, struct err *e)
{
	struct cursor in = cursor_of(payload);
	*ret = (struct signer_crl){0};
	ret->now.ms = take_int(&in);
	cursor_copy(&in, ret->issuer_key_id, sizeof(ret->issuer_key_id));
	ret->valid_days = take_int(&in);
	size_t count = cursor_u32(&in);
	if (in.failed || count > in.n / ENTRY_BYTES_MIN)
		return err_set(e, ERR_REJECT, "signer: malformed request");
	ret->entries = calloc(count ? count : 1, sizeof(*ret->entries));
	if (!ret->entries)
		return err_oom(e);
	ret->count = count;
	for (size_t i = 0; i < count && !in.failed; i++)
		take_entry(&in, &ret->entries[i]);
	if (decoded(&in, e) == 0)
		return 0;
	signer_crl_clear(ret);
	return -1;
}

void signer_crl_clear(struct signer_crl *crl)
{
	free(crl->entries);
	*crl = (struct signer_crl){0};
}

/* --- errors --- */

void signer_error_encode(const struct err *error, struct buf *out)
{
	buf_add_u8(out, (uint8_t)error->kind);
	add_string(out, str_of(error->text));
}

int signer_error_decode(struct str payload, struct err *e)
{
	struct cursor in = cursor_of(payload);
	unsigned kind = cursor_u8(&in);
	struct str text = take_string(&in, ERR_TEXT_BYTES);
	if (!cursor_done(&in) || kind == ERR_NONE || kind >= ERR_KINDS)
		return err_set(e, ERR_FATAL, "signer: malformed answer");
	return err_set(e, kind, "%.*s", STR_ARG(text));
}
