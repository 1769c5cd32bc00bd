/* A text cut into chunks of the same number of tokens, each evaluated on its own: what perplexity
 * and importance matrices are computed over. */
#ifndef INFER_CHUNKS_H
#define INFER_CHUNKS_H

#include <stddef.h>
#include <stdint.h>

#include "marco/marco.h"

typedef struct infer_chunks {
    int32_t *ids; /* [n_chunks, n_ctx] */
    size_t n_chunks;
    int32_t n_ctx;
} infer_chunks;

/* Encodes the text as plain characters, special tokens in it included, and drops the tokens after
 * the last whole chunk, of at most max_chunks (0: all). n_ctx 0: 512, or the model's context where
 * that is shorter; at least INFER_CHUNK_LEAST. Where the checkpoint asks for a
 * beginning-of-sequence token every chunk begins with it, in the place of the token that was there.
 */
enum { INFER_CHUNK_LEAST = 4 };

marco_status infer_chunks_create(const marco_engine *engine, const char *text, size_t size,
                                 int32_t n_ctx, int32_t max_chunks, infer_chunks *out,
                                 marco_error *error);
void infer_chunks_free(infer_chunks *chunks);

static inline const int32_t *infer_chunk(const infer_chunks *chunks, size_t i)
{
    return chunks->ids + i * (size_t)chunks->n_ctx;
}

#endif
