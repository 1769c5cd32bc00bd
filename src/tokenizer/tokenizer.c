#include "tokenizer/tokenizer.h"

#include <string.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "base/error.h"
#include "base/file.h"
#include "tokenizer/bpe.h"
#include "tokenizer/bytes.h"
#include "tokenizer/spec_build.h"

/* ---- compiling a spec ---------------------------------------------------------------------- */

static void add_token_bytes(const char *text, size_t size, base_text *all)
{
    size_t start = all->size, n;
    base_text_add_n(all, text, size); /* also makes the room that unspelling needs */
    if (!all->failed && tok_bytes_unspell(text, size, all->data + start, &n))
        all->size = start + n;
}

/* What every id decodes to. A token with a character that spells no byte stands for itself, as in
 * HF's ByteLevel decoder; so does an added token. */
static marco_status fill_bytes(marco_tokenizer *t, marco_error *error)
{
    const tok_spec *spec = t->spec;
    t->size = tok_spec_size(spec);
    base_text all = {0};
    t->offsets = base_alloc_array((size_t)t->size + 1, sizeof *t->offsets);
    t->kinds = base_calloc((size_t)t->size, sizeof *t->kinds);
    if (!t->offsets || !t->kinds)
        goto memory;
    for (int32_t id = 0; id < t->size; id++) {
        const tok_added *added;
        const char *text = tok_spec_text(spec, id, &added);
        t->offsets[id] = (uint32_t)all.size;
        if (added) {
            base_text_add_n(&all, added->text, added->size);
            t->kinds[id] = added->special ? TOK_KIND_SPECIAL : TOK_KIND_ADDED;
        } else if (text) {
            add_token_bytes(text, strlen(text), &all);
            t->kinds[id] = TOK_KIND_ORDINARY;
        }
        if (all.failed)
            goto memory;
        if (all.size > INT32_MAX) {
            base_text_free(&all);
            return base_fail(error, MARCO_ERROR_FORMAT,
                             "%s: the tokens are longer than 2 GiB together", spec->source);
        }
    }
    t->offsets[t->size] = (uint32_t)all.size;
    t->bytes = base_text_take(&all, NULL);
    if (t->bytes)
        return MARCO_OK;
memory:
    base_text_free(&all);
    return base_fail_memory(error, (size_t)t->size * sizeof *t->offsets, "the vocabulary");
}

static marco_status check_ids(const marco_tokenizer *t, marco_error *error)
{
    const tok_spec *spec = t->spec;
    const struct {
        const char *name;
        int32_t id;
    } ids[] = {{"beginning", spec->bos}, {"end", spec->eos}};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        if (ids[i].id >= t->size)
            return base_fail(error, MARCO_ERROR_FORMAT,
                             "%s: the %s-of-sequence token is id %d, but the vocabulary has %d "
                             "tokens",
                             spec->source, ids[i].name, ids[i].id, t->size);
    return MARCO_OK;
}

marco_status tok_compile(tok_spec *spec, marco_tokenizer **out, marco_error *error)
{
    marco_tokenizer *t = base_calloc(1, sizeof *t);
    if (!t) {
        tok_spec_free(spec);
        return base_fail_memory(error, sizeof *t, "the tokenizer");
    }
    t->spec = spec;
    marco_status status = fill_bytes(t, error);
    if (!status)
        status = check_ids(t, error);
    if (!status && spec->nfc)
        status = tok_nfc_create(&t->nfc, error);
    if (!status)
        status = tok_added_create(spec, t->nfc, &t->added, error);
    if (!status)
        status = tok_split_create(spec, &t->split, error);
    if (!status) {
        tok_vocabulary vocabulary = {t->size, t->bytes, t->offsets, t->kinds};
        status = tok_bpe_create(spec, &vocabulary, &t->bpe, error);
    }
    if (status) {
        marco_tokenizer_close(t);
        return status;
    }
    tok_spec_release_tokens(spec);
    *out = t;
    return MARCO_OK;
}

void marco_tokenizer_close(marco_tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    tok_bpe_free(tokenizer->bpe);
    tok_split_free(tokenizer->split);
    tok_added_free(tokenizer->added);
    tok_nfc_free(tokenizer->nfc);
    base_free(tokenizer->bytes);
    base_free(tokenizer->offsets);
    base_free(tokenizer->kinds);
    tok_spec_free(tokenizer->spec);
    base_free(tokenizer);
}

/* ---- opening ------------------------------------------------------------------------------- */

static marco_status read_gguf(const char *path, tok_spec **out, marco_error *error)
{
    gguf *g;
    marco_status status = gguf_open(path, &g, error);
    if (status)
        return status;
    status = tok_spec_read_gguf(g, out, error);
    gguf_close(g);
    return status;
}

marco_status tok_spec_read(const char *path, tok_spec **out, marco_error *error)
{
    bool from_gguf = false;
    marco_status status = base_is_folder(path) ? MARCO_OK : gguf_probe(path, &from_gguf, error);
    if (status)
        return status;
    return from_gguf ? read_gguf(path, out, error) : tok_spec_read_hf(path, out, error);
}

marco_status marco_tokenizer_open(const char *path, marco_tokenizer **out, marco_error *error)
{
    if (!path || !out)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "marco_tokenizer_open needs a path and a place for the result");
    *out = NULL;
    tok_spec *spec = NULL;
    marco_status status = tok_spec_read(path, &spec, error);
    if (!status)
        status = tok_compile(spec, out, error);
#if defined(__GLIBC__)
    /* A large tokenizer.json leaves some 80 MB of small free blocks behind. */
    malloc_trim(0);
#endif
    return status;
}

/* ---- questions ----------------------------------------------------------------------------- */

int32_t marco_tokenizer_size(const marco_tokenizer *tokenizer)
{
    return tokenizer->size;
}

int32_t marco_tokenizer_find(const marco_tokenizer *tokenizer, const char *text)
{
    size_t size = strlen(text);
    const tok_spec *spec = tokenizer->spec;
    for (int32_t i = 0; i < spec->n_added; i++)
        if (spec->added[i].size == size && memcmp(spec->added[i].text, text, size) == 0)
            return spec->added[i].id;
    return tok_bpe_find(tokenizer->bpe, text, size);
}

bool marco_tokenizer_is_special(const marco_tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && id < tokenizer->size && tokenizer->kinds[id] == TOK_KIND_SPECIAL;
}

int32_t marco_tokenizer_bos(const marco_tokenizer *tokenizer)
{
    return tokenizer->spec->bos;
}

int32_t marco_tokenizer_eos(const marco_tokenizer *tokenizer)
{
    return tokenizer->spec->eos;
}
