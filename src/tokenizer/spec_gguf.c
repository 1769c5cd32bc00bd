#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"
#include "tokenizer/spec_build.h"

/* tokenizer.ggml.token_type, as the GGUF specification numbers them. */
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER_DEFINED, TYPE_UNUSED, TYPE_BYTE };

#define KEY(name) "tokenizer.ggml." name

/* ---- reading ------------------------------------------------------------------------------- */

typedef struct reader {
    const gguf *g;
    tok_spec *spec;
    int32_t n_listed; /* tokens in the file, those at the end included that are padding */
    marco_error *error;
} reader;

static marco_status fail_memory(const reader *r, const char *what)
{
    return base_fail_memory(r->error, sizeof(void *), what);
}

static marco_status check_kind(const reader *r)
{
    gguf_string model = {0}, pre = {0};
    bool prefix = false, known;
    marco_status status = gguf_get_string(r->g, KEY("model"), &model, r->error);
    if (!status)
        status = gguf_get_string(r->g, KEY("pre"), &pre, r->error);
    if (!status)
        status = gguf_get_bool(r->g, KEY("add_space_prefix"), &prefix, r->error);
    if (status)
        return status;
    if (model.size != 4 || memcmp(model.data, "gpt2", 4) != 0)
        return base_fail(r->error, MARCO_ERROR_UNSUPPORTED,
                         "%s: the tokenizer model '%.*s' is not supported (known: gpt2)",
                         r->spec->source, (int)(model.size < 64 ? model.size : 64),
                         model.size ? model.data : "");
    if (prefix)
        return base_fail(r->error, MARCO_ERROR_UNSUPPORTED,
                         "%s: " KEY("add_space_prefix") " true is not supported", r->spec->source);
    if (tok_spec_use_pre(r->spec, pre.size ? pre.data : "", pre.size, &known))
        return MARCO_OK;
    if (known)
        return fail_memory(r, "a split pattern");
    return base_fail(r->error, MARCO_ERROR_UNSUPPORTED,
                     "%s: the split pattern " KEY("pre") " '%.*s' is not supported (known: qwen2, "
                                                         "smollm, gpt-2)",
                     r->spec->source, (int)(pre.size < 64 ? pre.size : 64),
                     pre.size ? pre.data : "");
}

static char *copy_text(const gguf_string *s)
{
    return base_strndup(s->data, s->size);
}

static marco_status read_token(const reader *r, int32_t id, const gguf_string *text, int32_t type)
{
    tok_spec *spec = r->spec;
    if (type == TYPE_UNUSED)
        return MARCO_OK;
    bool added = type == TYPE_UNKNOWN || type == TYPE_CONTROL || type == TYPE_USER_DEFINED;
    if (type != TYPE_NORMAL && !added)
        return base_fail(r->error, MARCO_ERROR_UNSUPPORTED,
                         "%s: token %d has the type %d, which a byte-level vocabulary has not",
                         spec->source, id, type);
    if (text->size && (memchr(text->data, '\0', text->size) ||
                       base_utf8_check(text->data, text->size) != text->size))
        return base_fail(r->error, MARCO_ERROR_FORMAT, "%s: the text of token %d is not UTF-8",
                         spec->source, id);
    if (added &&
        (text->size == 0 || text->size > TOK_MAX_ADDED_SIZE || spec->n_added == TOK_MAX_ADDED))
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: token %d of type %d is empty, longer than %d bytes, or one of more "
                         "than %d",
                         spec->source, id, type, TOK_MAX_ADDED_SIZE, TOK_MAX_ADDED);
    char *copy = copy_text(text);
    if (!copy)
        return fail_memory(r, "the vocabulary");
    if (added)
        spec->added[spec->n_added++] = (tok_added){
            .id = id, .text = copy, .size = text->size, .special = type != TYPE_USER_DEFINED};
    else
        spec->tokens[id] = copy;
    return MARCO_OK;
}

static int32_t type_at(const gguf_value *types, size_t i)
{
    int32_t type = TYPE_NORMAL;
    if (types)
        memcpy(&type, (const char *)types->array.data + i * sizeof type, sizeof type);
    return type;
}

static marco_status read_tokens(reader *r)
{
    tok_spec *spec = r->spec;
    const gguf_value *tokens = NULL, *types = NULL;
    marco_status status = gguf_get_array(r->g, KEY("tokens"), GGUF_STRING, &tokens, r->error);
    if (!status)
        status = gguf_get_array(r->g, KEY("token_type"), GGUF_I32, &types, r->error);
    if (status)
        return status;
    uint64_t n = tokens ? tokens->array.n : 0;
    if (n == 0 || n > TOK_MAX_TOKENS || (types && types->array.n != n))
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: " KEY("tokens") " has %llu entries where 1 to %d belong, with as "
                                              "many in " KEY("token_type"),
                         spec->source, (unsigned long long)n, TOK_MAX_TOKENS);
    size_t n_added = 0;
    for (size_t i = 0; i < n; i++)
        n_added += type_at(types, i) != TYPE_NORMAL;
    spec->tokens = base_calloc((size_t)n, sizeof *spec->tokens);
    spec->added = base_calloc(n_added, sizeof *spec->added);
    if (!spec->tokens || !spec->added)
        return fail_memory(r, "the vocabulary");
    spec->n_tokens = r->n_listed = (int32_t)n;
    for (size_t i = 0; !status && i < n; i++)
        status = read_token(r, (int32_t)i, &tokens->array.strings[i], type_at(types, i));
    /* The model's padding is not part of the vocabulary. */
    while (spec->n_tokens > 0 && !spec->tokens[spec->n_tokens - 1])
        spec->n_tokens--;
    return status;
}

static marco_status read_merges(const reader *r)
{
    tok_spec *spec = r->spec;
    const gguf_value *merges = NULL;
    marco_status status = gguf_get_array(r->g, KEY("merges"), GGUF_STRING, &merges, r->error);
    if (status || !merges)
        return status;
    if (merges->array.n > TOK_MAX_TOKENS)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: " KEY("merges") " has %llu entries, more than %d", spec->source,
                         (unsigned long long)merges->array.n, TOK_MAX_TOKENS);
    size_t n = (size_t)merges->array.n;
    spec->merges = base_calloc(n, sizeof *spec->merges);
    if (!spec->merges)
        return fail_memory(r, "the merges");
    for (size_t i = 0; i < n; i++) {
        const gguf_string *text = &merges->array.strings[i];
        if (text->size && memchr(text->data, '\0', text->size))
            return base_fail(r->error, MARCO_ERROR_FORMAT, "%s: merge %zu has a NUL in it",
                             spec->source, i);
        spec->merges[i] = copy_text(text);
        if (!spec->merges[i])
            return fail_memory(r, "the merges");
        spec->n_merges++;
    }
    return MARCO_OK;
}

static marco_status read_ids(const reader *r)
{
    tok_spec *spec = r->spec;
    /* Models pad with one of the unused tokens at the end; only these two come into a text. */
    int32_t used = tok_spec_size(spec);
    const struct {
        const char *key;
        int32_t n, *id;
    } ids[] = {{KEY("bos_token_id"), used, &spec->bos},
               {KEY("eos_token_id"), used, &spec->eos},
               {KEY("unknown_token_id"), r->n_listed, &spec->unk},
               {KEY("padding_token_id"), r->n_listed, &spec->pad}};
    marco_status status = MARCO_OK;
    for (size_t i = 0; !status && i < sizeof ids / sizeof *ids; i++) {
        int64_t id = -1;
        status = gguf_get_int(r->g, ids[i].key, 0, ids[i].n - 1, &id, r->error);
        *ids[i].id = (int32_t)id;
    }
    if (!status)
        status = gguf_get_bool(r->g, KEY("add_bos_token"), &spec->add_bos, r->error);
    return status;
}

static marco_status read_template(const reader *r)
{
    gguf_string text = {0};
    marco_status status = gguf_get_string(r->g, "tokenizer.chat_template", &text, r->error);
    if (status || text.size == 0)
        return status;
    if (memchr(text.data, '\0', text.size) || base_utf8_check(text.data, text.size) != text.size)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: tokenizer.chat_template is not UTF-8 text", r->spec->source);
    r->spec->chat_template = copy_text(&text);
    return r->spec->chat_template ? MARCO_OK : fail_memory(r, "the chat template");
}

marco_status tok_spec_read_gguf(const gguf *g, tok_spec **out, marco_error *error)
{
    const char *path = gguf_file(g)->path;
    reader r = {.g = g, .spec = tok_spec_create(path), .error = error};
    if (!r.spec)
        return fail_memory(&r, "the tokenizer");
    marco_status status = check_kind(&r);
    if (!status)
        status = read_tokens(&r);
    if (!status)
        status = read_merges(&r);
    if (!status)
        status = tok_spec_finish(r.spec, error);
    if (!status)
        status = read_ids(&r);
    if (!status)
        status = read_template(&r);
    if (status)
        tok_spec_free(r.spec);
    else
        *out = r.spec;
    return status;
}

/* ---- writing ------------------------------------------------------------------------------- */

static marco_status check_expressible(const tok_spec *spec, int32_t n_vocab, marco_error *error)
{
    if (!spec->pre)
        return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                         "%s: GGUF has no name for this normaliser and split pattern (only for "
                         "those of qwen2, smollm and gpt-2); keep the Hugging Face form",
                         spec->source);
    if (n_vocab < tok_spec_size(spec) || n_vocab > TOK_MAX_TOKENS)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "%s: %d tokens do not fit a model with %d",
                         spec->source, tok_spec_size(spec), n_vocab);
    if (spec->pad >= n_vocab || spec->unk >= n_vocab)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: the padding token %d or the unknown token %d is beyond the model's "
                         "%d tokens",
                         spec->source, spec->pad, spec->unk, n_vocab);
    for (int32_t i = 0; i < spec->n_added; i++) {
        const tok_added *a = &spec->added[i];
        const char *flag = a->lstrip                    ? "lstrip"
                           : a->rstrip                  ? "rstrip"
                           : a->single_word             ? "single_word"
                           : a->normalized && spec->nfc ? "normalized"
                                                        : NULL;
        if (flag)
            return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                             "%s: GGUF cannot express that the added token '%s' is %s; keep the "
                             "Hugging Face form",
                             spec->source, a->text, flag);
    }
    return MARCO_OK;
}

static marco_status write_tokens(const tok_spec *spec, int32_t n_vocab, gguf_writer *w,
                                 marco_error *error)
{
    enum { PAD_TEXT = 24 };
    size_t n = (size_t)n_vocab, n_pads = 0;
    const tok_added *added;
    for (int32_t id = 0; id < n_vocab; id++)
        n_pads += !tok_spec_text(spec, id, &added);
    gguf_string *texts = base_alloc_array(n, sizeof *texts);
    int32_t *types = base_alloc_array(n, sizeof *types);
    char *pads = base_alloc_array(n_pads, PAD_TEXT), *pad = pads;
    bool ok = texts && types && pads;
    for (int32_t id = 0; ok && id < n_vocab; id++) {
        const char *text = tok_spec_text(spec, id, &added);
        types[id] = added ? (added->special ? TYPE_CONTROL : TYPE_USER_DEFINED) : TYPE_NORMAL;
        if (!text) {
            types[id] = TYPE_UNUSED;
            snprintf(pad, PAD_TEXT, "[PAD%d]", id);
            text = pad;
            pad += PAD_TEXT;
        }
        texts[id] = (gguf_string){text, strlen(text)};
    }
    if (ok) {
        gguf_put_array_string(w, KEY("tokens"), texts, n);
        gguf_put_array_i32(w, KEY("token_type"), types, n);
    }
    base_free(texts);
    base_free(types);
    base_free(pads);
    return ok ? MARCO_OK : base_fail_memory(error, n * sizeof *texts, "the vocabulary");
}

static marco_status write_merges(const tok_spec *spec, gguf_writer *w, marco_error *error)
{
    size_t n = (size_t)spec->n_merges;
    gguf_string *texts = base_alloc_array(n, sizeof *texts);
    if (!texts)
        return base_fail_memory(error, n * sizeof *texts, "the merges");
    for (size_t i = 0; i < n; i++)
        texts[i] = (gguf_string){spec->merges[i], strlen(spec->merges[i])};
    gguf_put_array_string(w, KEY("merges"), texts, n);
    base_free(texts);
    return MARCO_OK;
}

static void write_id(gguf_writer *w, const char *key, int32_t id)
{
    if (id >= 0)
        gguf_put_u32(w, key, (uint32_t)id);
}

marco_status tok_spec_write_gguf(const tok_spec *spec, int32_t n_vocab, gguf_writer *w,
                                 marco_error *error)
{
    marco_status status = check_expressible(spec, n_vocab, error);
    if (status)
        return status;
    gguf_put_string(w, KEY("model"), "gpt2");
    gguf_put_string(w, KEY("pre"), spec->pre);
    status = write_tokens(spec, n_vocab, w, error);
    if (!status)
        status = write_merges(spec, w, error);
    if (status)
        return status;
    write_id(w, KEY("bos_token_id"), spec->bos);
    write_id(w, KEY("eos_token_id"), spec->eos);
    write_id(w, KEY("unknown_token_id"), spec->unk);
    write_id(w, KEY("padding_token_id"), spec->pad);
    gguf_put_bool(w, KEY("add_bos_token"), spec->add_bos);
    if (spec->chat_template)
        gguf_put_string(w, "tokenizer.chat_template", spec->chat_template);
    return MARCO_OK;
}
