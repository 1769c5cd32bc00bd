#include "infer/chunks.h"

#include "base/error.h"
#include "base/memory.h"
#include "infer/internal.h"

enum { DEFAULT_CTX = 512 };

/* Whether a text is to begin with a beginning-of-sequence token: what the empty text becomes. */
static marco_status adds_bos(const marco_tokenizer *tokenizer, bool *adds, marco_error *error)
{
    int32_t *ids;
    size_t n;
    marco_status status =
        marco_tokenizer_encode(tokenizer, "", 0, MARCO_ENCODE_BOS, &ids, &n, error);
    if (status)
        return status;
    *adds = n > 0;
    base_free(ids);
    return MARCO_OK;
}

marco_status infer_chunks_create(const marco_engine *engine, const char *text, size_t size,
                                 int32_t n_ctx, int32_t max_chunks, infer_chunks *out,
                                 marco_error *error)
{
    int32_t trained = engine->weights->config.n_ctx_train;
    bool bos = false;
    size_t n = 0;
    *out = (infer_chunks){0};
    if (max_chunks < 0)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "chunks: %d is negative", max_chunks);
    if (n_ctx == 0)
        n_ctx = trained < DEFAULT_CTX ? trained : DEFAULT_CTX;
    if (n_ctx < INFER_CHUNK_LEAST || n_ctx > trained)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "context: %d is not between %d and the %d tokens that the model was made "
                         "for",
                         n_ctx, INFER_CHUNK_LEAST, trained);
    marco_status status = adds_bos(engine->tokenizer, &bos, error);
    if (!status)
        status = marco_tokenizer_encode(engine->tokenizer, text, size, MARCO_ENCODE_BOS, &out->ids,
                                        &n, error);
    if (status)
        return status;
    if (n < (size_t)n_ctx) {
        infer_chunks_free(out);
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "the text has %zu tokens, too few for a chunk of %d: give a longer text "
                         "or, from %d, a smaller context",
                         n, n_ctx, INFER_CHUNK_LEAST);
    }
    out->n_ctx = n_ctx;
    out->n_chunks = n / (size_t)n_ctx;
    if (max_chunks && out->n_chunks > (size_t)max_chunks)
        out->n_chunks = (size_t)max_chunks;
    for (size_t i = 0; bos && i < out->n_chunks; i++)
        out->ids[i * (size_t)n_ctx] = marco_tokenizer_bos(engine->tokenizer);
    return MARCO_OK;
}

void infer_chunks_free(infer_chunks *chunks)
{
    base_free(chunks->ids);
    *chunks = (infer_chunks){0};
}
