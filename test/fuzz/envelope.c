/* envelope - the decoders of the envelope and of the sealed record.
 *
 * Holds: no input harms them, and what they let through encodes to the same bytes again. */
#include <stdint.h>

#include "base/auto.h"
#include "message/sealed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_envelope(struct str bytes)
{
	struct envelope env;
	if (envelope_decode(bytes, &env, NULL) < 0)
		return;
	AUTO(buf_auto) struct buf again;
	buf_init(&again, SEALED_MAX_BYTES);
	envelope_encode(&env, &again);
	require(str_eq(buf_str(&again), bytes));
}

static void check_sealed(struct str bytes)
{
	struct sealed s;
	if (sealed_decode(bytes, &s, NULL) < 0)
		return;
	AUTO(buf_auto) struct buf again;
	buf_init(&again, SEALED_MAX_BYTES);
	sealed_encode(&s, &again);
	require(str_eq(buf_str(&again), bytes));
	buf_reset(&again);
	sealed_additional_data(&s, &again);
	require(!again.failed);
	check_envelope(s.envelope);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str bytes = str_mem(data, size);
	check_envelope(bytes);
	check_sealed(bytes);
	return 0;
}
