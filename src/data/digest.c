#include <string.h>

#include "base/error.h"
#include "data/shard.h"
#include "tokenizer/tokenizer.h"

/* Holes in the numbering are left out, so that a checkpoint's GGUF file, padded to the model's
 * vocabulary, has the digest of its Hugging Face folder. */
marco_status data_tokenizer_hash(const marco_tokenizer *tokenizer, uint8_t out[BASE_SHA256_BYTES],
                                 marco_error *error)
{
    if (!tokenizer)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "there is no tokenizer to take a digest of");
    base_sha256 hash;
    base_sha256_begin(&hash);
    for (int32_t id = 0; id < tokenizer->size; id++) {
        uint32_t size = tokenizer->offsets[id + 1] - tokenizer->offsets[id];
        uint32_t head[] = {(uint32_t)id, tokenizer->kinds[id] != TOK_KIND_ORDINARY, size};
        if (tokenizer->kinds[id] == TOK_KIND_NONE)
            continue;
        base_sha256_add(&hash, head, sizeof head);
        base_sha256_add(&hash, tokenizer->bytes + tokenizer->offsets[id], size);
    }
    base_sha256_end(&hash, out);
    return MARCO_OK;
}

marco_status data_tokenizer_digest(const marco_tokenizer *tokenizer, char out[65],
                                   marco_error *error)
{
    uint8_t digest[BASE_SHA256_BYTES];
    marco_status status = data_tokenizer_hash(tokenizer, digest, error);
    if (!status)
        base_sha256_text(digest, out);
    return status;
}
