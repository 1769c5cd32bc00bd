/* A schema as a client of a server could send it, or after the byte 'T' an array of tools: what
 * compiles must lead a walk of any tokens to a reply that can always be finished. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "grammar/grammar.h"
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { END = 258, N_VOCAB = 259 };

static void require(bool good)
{
    if (!good)
        abort();
}

static grammar_vocab *byte_vocab(void)
{
    tok_spec *spec;
    marco_tokenizer *tokenizer;
    grammar_vocab *vocab;
    int32_t end = END;
    require(tok_spec_bytes(&spec, NULL) == MARCO_OK);
    require(tok_compile(spec, &tokenizer, NULL) == MARCO_OK);
    require(grammar_vocab_create(tokenizer, N_VOCAB, &end, 1, &vocab, NULL) == MARCO_OK);
    marco_tokenizer_close(tokenizer);
    return vocab;
}

static void walk(const marco_grammar *grammar, const grammar_vocab *vocab, uint64_t seed)
{
    grammar_state *state;
    uint32_t mask[(N_VOCAB + 31) / 32];
    require(grammar_state_create(grammar, vocab, &state, NULL) == MARCO_OK);
    for (uint64_t n = 0; n < 200; n++) {
        int32_t allowed[N_VOCAB];
        uint64_t n_allowed = 0;
        require(grammar_state_mask(state, mask, NULL) == MARCO_OK);
        for (int32_t id = 0; id < N_VOCAB; id++) {
            if (mask[id / 32] >> id % 32 & 1)
                allowed[n_allowed++] = id;
            else
                require(n % 50 != 0 ||
                        grammar_state_accept(state, id, NULL) == MARCO_ERROR_ARGUMENT);
        }
        require(n_allowed > 0);
        int32_t id = allowed[base_random_below(seed, 0, n, n_allowed)];
        require(grammar_state_accept(state, id, NULL) == MARCO_OK);
        if (id == END)
            break;
    }
    grammar_state_free(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static grammar_vocab *vocab;
    marco_grammar *grammar;
    marco_error error = {0};
    if (!vocab)
        vocab = byte_vocab();
    const char *text = (const char *)data;
    marco_status status =
        size > 0 && data[0] == 'T'
            ? marco_grammar_from_tools(text + 1, size - 1, NULL, true, &grammar, &error)
            : marco_grammar_from_schema(text, size, &grammar, &error);
    if (status) {
        require(!grammar && error.message[0] != '\0');
        return 0;
    }
    walk(grammar, vocab, size);
    marco_grammar_free(grammar);
    return 0;
}
