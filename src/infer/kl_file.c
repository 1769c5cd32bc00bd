#include "infer/kl_file.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "tensor/half.h"

enum { VERSION = 1, HEADER_BYTES = 32, ROW_HEADER_BYTES = 16 };

static const char magic[8] = {'M', 'A', 'R', 'C', 'O', 'K', 'L', 'B'};

/* The largest F16: less likely than exp(-65504) is not told apart. */
#define LEAST_LOGPROB (-65504.0)

typedef struct header {
    char magic[8];
    uint32_t version, n_vocab, n_ctx, n_chunks;
    uint64_t hash;
} header;

_Static_assert(sizeof(header) == HEADER_BYTES, "the header is written as it is in memory");

infer_kl_key infer_kl_key_of(const infer_chunks *chunks, int32_t n_vocab)
{
    const uint8_t *bytes = (const uint8_t *)chunks->ids;
    size_t size = chunks->n_chunks * (size_t)chunks->n_ctx * sizeof *chunks->ids;
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return (infer_kl_key){(uint32_t)n_vocab, (uint32_t)chunks->n_ctx, (uint32_t)chunks->n_chunks,
                          hash};
}

marco_status infer_kl_begin(base_output *output, const infer_kl_key *key, marco_error *error)
{
    header h = {.version = VERSION,
                .n_vocab = key->n_vocab,
                .n_ctx = key->n_ctx,
                .n_chunks = key->n_chunks,
                .hash = key->hash};
    memcpy(h.magic, magic, sizeof h.magic);
    return base_output_write(output, &h, sizeof h, error);
}

static marco_status check_key(const char *path, const header *h, const infer_kl_key *key,
                              marco_error *error)
{
    if (memcmp(h->magic, magic, sizeof magic) != 0)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: holds no log-probabilities of a run to compare with", path);
    if (h->version != VERSION)
        return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                         "%s: version %u of its form is not known here, only %d", path, h->version,
                         VERSION);
    if (h->n_vocab != key->n_vocab)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%s: is of a model with a vocabulary of %u, this one's is %u", path,
                         h->n_vocab, key->n_vocab);
    if (h->n_ctx != key->n_ctx)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%s: was computed with a context of %u, not %u: ask for the same", path,
                         h->n_ctx, key->n_ctx);
    if (h->n_chunks != key->n_chunks)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%s: is of %u chunks of text, not %u: give the same text, and ask for as "
                         "many",
                         path, h->n_chunks, key->n_chunks);
    if (h->hash != key->hash)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%s: is of another text, or of a model with another tokenizer", path);
    return MARCO_OK;
}

static uint64_t row_offset(uint32_t n_vocab, uint64_t row)
{
    return HEADER_BYTES + row * infer_kl_row_bytes(n_vocab);
}

marco_status infer_kl_open(const char *path, const infer_kl_key *key, uint64_t n_rows,
                           base_file **out, marco_error *error)
{
    header h;
    base_file *file;
    *out = NULL;
    marco_status status = base_file_open(path, &file, error);
    if (status)
        return status;
    if (file->size < sizeof h)
        status = base_fail(error, MARCO_ERROR_FORMAT,
                           "%s: holds no log-probabilities of a run to compare with", path);
    if (!status)
        status = base_file_read(file, 0, &h, sizeof h, error);
    if (!status)
        status = check_key(path, &h, key, error);
    /* The key is now this run's own, so the product is of numbers that were computed here. */
    uint64_t size = row_offset(key->n_vocab, n_rows);
    if (!status && file->size != size)
        status = base_fail(error, MARCO_ERROR_FORMAT,
                           "%s: has %llu bytes where it should have %llu: it is not whole, or "
                           "damaged",
                           path, (unsigned long long)file->size, (unsigned long long)size);
    if (status) {
        base_file_close(file);
        return status;
    }
    *out = file;
    return MARCO_OK;
}

size_t infer_kl_row_bytes(uint32_t n_vocab)
{
    return ROW_HEADER_BYTES + (size_t)n_vocab * sizeof(uint16_t);
}

marco_status infer_kl_read(const base_file *file, uint32_t n_vocab, uint64_t first, size_t n,
                           uint8_t *rows, marco_error *error)
{
    return base_file_read(file, row_offset(n_vocab, first), rows, n * infer_kl_row_bytes(n_vocab),
                          error);
}

void infer_kl_encode(const infer_kl_row *row, const float *logits, double log_sum, uint32_t n_vocab,
                     uint8_t *out)
{
    memset(out, 0, ROW_HEADER_BYTES);
    memcpy(out, &row->logprob, sizeof row->logprob);
    memcpy(out + 8, &row->top, sizeof row->top);
    out += ROW_HEADER_BYTES;
    for (uint32_t i = 0; i < n_vocab; i++) {
        double logprob = fmin((double)logits[i] - log_sum, 0.0);
        uint16_t half = half_f16_encode((float)fmax(logprob, LEAST_LOGPROB));
        memcpy(out + 2 * (size_t)i, &half, sizeof half);
    }
}

bool infer_kl_decode(const uint8_t *in, uint32_t n_vocab, infer_kl_row *row, float *logits)
{
    memcpy(&row->logprob, in, sizeof row->logprob);
    memcpy(&row->top, in + 8, sizeof row->top);
    bool possible = row->logprob <= 0 && isfinite(row->logprob) && row->top >= 0 &&
                    (uint32_t)row->top < n_vocab;
    in += ROW_HEADER_BYTES;
    for (uint32_t i = 0; i < n_vocab; i++) {
        uint16_t half;
        memcpy(&half, in + 2 * (size_t)i, sizeof half);
        logits[i] = half_f16_decode(half);
        possible &= logits[i] <= 0 && logits[i] >= (float)LEAST_LOGPROB; /* and no NaN */
    }
    return possible;
}
