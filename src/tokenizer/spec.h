/* What a tokenizer is made of, as files carry it: read from tokenizer.json and
 * tokenizer_config.json or from GGUF metadata, written to either. Compiled into a marco_tokenizer
 * by tokenizer.c. */
#ifndef TOKENIZER_SPEC_H
#define TOKENIZER_SPEC_H

#include "format/gguf.h"
#include "marco/marco.h"

typedef struct tok_added {
    int32_t id;
    char *text; /* content, UTF-8, NUL-terminated */
    size_t size;
    bool special, normalized, lstrip, rstrip, single_word;
} tok_added;

typedef struct tok_spec {
    char *source; /* the file it came from, for messages */

    /* Ordinary tokens by id, in GPT-2's byte-to-unicode spelling ("Ġthe"); NULL where an id has
     * none (a hole, or an added token). */
    char **tokens; /* [n_tokens] */
    int32_t n_tokens;
    /* Merges by rank: "left right". */
    char **merges; /* [n_merges] */
    int32_t n_merges;
    tok_added *added; /* [n_added], by id */
    int32_t n_added;

    bool nfc;           /* NFC normaliser */
    bool ignore_merges; /* a whole pre-token that is a token is taken without merging */
    bool add_prefix_space;
    char **patterns; /* [n_patterns] split patterns, applied one after another */
    int32_t n_patterns;
    char *pre; /* GGUF's tokenizer.ggml.pre for this pattern, NULL where none is known */

    char *chat_template;        /* Jinja source, or NULL */
    int32_t bos, eos, unk, pad; /* -1: none */
    bool add_bos;
} tok_spec;

void tok_spec_free(tok_spec *spec);

/* One above the largest id. */
int32_t tok_spec_size(const tok_spec *spec);

/* Frees tokens and merges, the bulk of it. */
void tok_spec_release_tokens(tok_spec *spec);

/* A folder, a tokenizer.json or a GGUF file, which its first bytes tell from the others. */
marco_status tok_spec_read(const char *path, tok_spec **out, marco_error *error);

/* A folder's tokenizer.json (+ tokenizer_config.json, chat_template.jinja beside it), or the path
 * of a tokenizer.json. */
marco_status tok_spec_read_hf(const char *path, tok_spec **out, marco_error *error);
marco_status tok_spec_read_gguf(const gguf *g, tok_spec **out, marco_error *error);

/* 256 single bytes as ids 0 .. 255 and <|endoftext|>, <|im_start|>, <|im_end|> as 256 .. 258, with
 * the qwen2 pattern, NFC and plain ChatML: what `marco synth` uses without --tokenizer. */
marco_status tok_spec_bytes(tok_spec **out, marco_error *error);

/* Adds tokenizer.ggml.* and tokenizer.chat_template; tokens padded to n_vocab ("[PAD151700]",
 * unused). Refuses by name what GGUF cannot express. */
marco_status tok_spec_write_gguf(const tok_spec *spec, int32_t n_vocab, gguf_writer *w,
                                 marco_error *error);
/* Writes tokenizer.json and tokenizer_config.json into an existing folder. */
marco_status tok_spec_write_hf(const tok_spec *spec, const char *folder, marco_error *error);

/* Takes ownership of the spec in every case. */
marco_status tok_compile(tok_spec *spec, marco_tokenizer **out, marco_error *error);

#endif
