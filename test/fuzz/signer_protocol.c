/* signer_protocol - what the CA and its signer decode from each other.
 *
 * Holds: no input harms a decoder, and what one lets through encodes to the same bytes again. */
#include <stdint.h>

#include "base/auto.h"
#include "ca/signer_protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_same(const struct buf *again, struct str bytes)
{
	require(!again->failed && str_eq(buf_str(again), bytes));
}

static void check_setup(struct str bytes, struct buf *again)
{
	struct signer_setup setup;
	if (signer_setup_decode(bytes, &setup, NULL) < 0)
		return;
	signer_setup_encode(&setup, again);
	check_same(again, bytes);
}

static void check_issue(struct str bytes, struct buf *again)
{
	struct signer_issue issue;
	if (signer_issue_decode(bytes, &issue, NULL) < 0)
		return;
	require(signer_issue_encode(&issue.request, issue.now, again, NULL) == 0);
	check_same(again, bytes);
}

static void check_crl(struct str bytes, struct buf *again)
{
	struct signer_crl crl;
	if (signer_crl_decode(bytes, &crl, NULL) < 0)
		return;
	require(signer_crl_encode(&crl, again, NULL) == 0);
	check_same(again, bytes);
	signer_crl_clear(&crl);
}

static void check_failed(struct str bytes, struct buf *again)
{
	struct err e = ERR_INIT;
	require(signer_error_decode(bytes, &e) == -1 && e.kind != ERR_NONE);
}

static void (*const checks[SIGNER_TYPES])(struct str bytes, struct buf *again) = {
	[SIGNER_INIT] = check_setup,
	[SIGNER_OPEN] = check_setup,
	[SIGNER_ROTATE] = check_setup,
	[SIGNER_RETIRE] = check_setup,
	[SIGNER_REKEY] = check_setup,
	[SIGNER_EXPORT_ROOT] = check_setup,
	[SIGNER_REMOVE_ROOT] = check_setup,
	[SIGNER_IMPORT_ROOT] = check_setup,
	[SIGNER_ISSUE] = check_issue,
	[SIGNER_CRL] = check_crl,
	[SIGNER_FAILED] = check_failed,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str bytes = str_mem(data, size);
	struct signer_frame frame;
	AUTO(buf_auto) struct buf again;
	buf_init(&again, 2 * size + SIGNER_FRAME_BYTES);
	if (signer_frame_decode(bytes, &frame, NULL) < 0)
		return 0;
	signer_frame_encode(&frame, &again);
	check_same(&again, bytes);
	buf_reset(&again);
	if (checks[frame.type])
		checks[frame.type](frame.payload, &again);
	return 0;
}
