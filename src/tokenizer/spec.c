#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "tokenizer/bytes.h"
#include "tokenizer/spec_build.h"

/* ---- life ---------------------------------------------------------------------------------- */

tok_spec *tok_spec_create(const char *source)
{
    tok_spec *spec = base_calloc(1, sizeof *spec);
    if (!spec)
        return NULL;
    spec->bos = spec->eos = spec->unk = spec->pad = -1;
    spec->source = base_strdup(source);
    if (!spec->source) {
        base_free(spec);
        return NULL;
    }
    return spec;
}

static void free_strings(char ***strings, int32_t *n)
{
    for (int32_t i = 0; *strings && i < *n; i++)
        base_free((*strings)[i]);
    base_free(*strings);
    *strings = NULL;
    *n = 0;
}

void tok_spec_release_tokens(tok_spec *spec)
{
    free_strings(&spec->tokens, &spec->n_tokens);
    free_strings(&spec->merges, &spec->n_merges);
}

void tok_spec_free(tok_spec *spec)
{
    if (!spec)
        return;
    tok_spec_release_tokens(spec);
    free_strings(&spec->patterns, &spec->n_patterns);
    for (int32_t i = 0; i < spec->n_added; i++)
        base_free(spec->added[i].text);
    base_free(spec->added);
    base_free(spec->pre);
    base_free(spec->chat_template);
    base_free(spec->source);
    base_free(spec);
}

bool tok_spec_add_pattern(tok_spec *spec, const char *pattern)
{
    char **patterns =
        base_realloc(spec->patterns, ((size_t)spec->n_patterns + 1) * sizeof *patterns);
    if (!patterns)
        return false;
    spec->patterns = patterns;
    patterns[spec->n_patterns] = base_strdup(pattern);
    return patterns[spec->n_patterns] && ++spec->n_patterns > 0;
}

/* ---- GGUF's names -------------------------------------------------------------------------- */

const char tok_pattern_gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* As the tokenizer.json of the model that each is named after. */
static const struct pre {
    const char *name;
    bool nfc;
    int n;
    const char *patterns[2];
} known_pre[] = {
    {"qwen2",
     true,
     1,
     {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+"
      "[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {"smollm", false, 2, {"\\p{N}", tok_pattern_gpt2}},
    {"gpt-2", false, 1, {tok_pattern_gpt2}},
};

enum { N_PRE = sizeof known_pre / sizeof *known_pre };

bool tok_spec_use_pre(tok_spec *spec, const char *name, size_t size, bool *known)
{
    *known = false;
    for (size_t i = 0; i < N_PRE; i++) {
        const struct pre *pre = &known_pre[i];
        if (strlen(pre->name) != size || memcmp(pre->name, name, size) != 0)
            continue;
        *known = true;
        spec->nfc = pre->nfc;
        for (int p = 0; p < pre->n; p++)
            if (!tok_spec_add_pattern(spec, pre->patterns[p]))
                return false;
        return true;
    }
    return false;
}

static bool is_pre(const tok_spec *spec, const struct pre *pre)
{
    if (spec->nfc != pre->nfc || spec->n_patterns != pre->n || spec->ignore_merges ||
        spec->add_prefix_space)
        return false;
    for (int p = 0; p < pre->n; p++)
        if (strcmp(spec->patterns[p], pre->patterns[p]) != 0)
            return false;
    return true;
}

/* ---- checks -------------------------------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
    const tok_added *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static int by_text(const void *a, const void *b)
{
    const tok_added *const *x = a, *const *y = b;
    return strcmp((*x)->text, (*y)->text);
}

static marco_status check_added(const tok_spec *spec, marco_error *error)
{
    size_t n = (size_t)spec->n_added;
    const tok_added **order = base_alloc_array(n, sizeof *order);
    if (!order)
        return base_fail_memory(error, n * sizeof *order, "added tokens");
    marco_status status = MARCO_OK;
    for (size_t i = 0; i < n; i++)
        order[i] = &spec->added[i];
    qsort(order, n, sizeof *order, by_text);
    for (size_t i = 1; !status && i < n; i++) {
        if (spec->added[i].id == spec->added[i - 1].id)
            status = base_fail(error, MARCO_ERROR_FORMAT, "%s: two added tokens have the id %d",
                               spec->source, spec->added[i].id);
        else if (strcmp(order[i - 1]->text, order[i]->text) == 0)
            status =
                base_fail(error, MARCO_ERROR_FORMAT, "%s: added tokens %d and %d are both '%s'",
                          spec->source, order[i - 1]->id, order[i]->id, order[i]->text);
    }
    for (size_t i = 0; !status && i < n; i++) {
        const tok_added *added = &spec->added[i];
        const char *token = added->id < spec->n_tokens ? spec->tokens[added->id] : NULL;
        if (token && strcmp(token, added->text) != 0)
            status = base_fail(error, MARCO_ERROR_FORMAT,
                               "%s: id %d is '%s' in the vocabulary and '%s' among the added "
                               "tokens",
                               spec->source, added->id, token, added->text);
    }
    base_free(order);
    return status;
}

marco_status tok_spec_finish(tok_spec *spec, marco_error *error)
{
    if (spec->n_added > 0)
        qsort(spec->added, (size_t)spec->n_added, sizeof *spec->added, by_id);
    marco_status status = check_added(spec, error);
    for (size_t i = 0; !status && i < N_PRE; i++) {
        if (!is_pre(spec, &known_pre[i]))
            continue;
        spec->pre = base_strdup(known_pre[i].name);
        if (!spec->pre)
            status = base_fail_memory(error, strlen(known_pre[i].name), "a name");
        break;
    }
    return status;
}

int32_t tok_spec_size(const tok_spec *spec)
{
    int32_t last = spec->n_added ? spec->added[spec->n_added - 1].id + 1 : 0;
    return last > spec->n_tokens ? last : spec->n_tokens;
}

static int id_against(const void *key, const void *item)
{
    const int32_t *id = key;
    const tok_added *added = item;
    return (*id > added->id) - (*id < added->id);
}

const char *tok_spec_text(const tok_spec *spec, int32_t id, const tok_added **added)
{
    *added = NULL;
    if (spec->n_added)
        *added = bsearch(&id, spec->added, (size_t)spec->n_added, sizeof *spec->added, id_against);
    if (*added)
        return (*added)->text;
    return id < spec->n_tokens ? spec->tokens[id] : NULL;
}

bool tok_spec_has_all_bytes(const tok_spec *spec)
{
    bool seen[256] = {false};
    int n_seen = 0;
    for (int32_t id = 0; id < spec->n_tokens; id++) {
        char bytes[3];
        const char *text = spec->tokens[id];
        size_t size = text ? strnlen(text, 3) : 0, n = 0;
        if (size == 0 || size > 2 || !tok_bytes_unspell(text, size, bytes, &n) || n != 1)
            continue;
        n_seen += !seen[(unsigned char)bytes[0]];
        seen[(unsigned char)bytes[0]] = true;
    }
    return n_seen == 256;
}

/* ---- bytes --------------------------------------------------------------------------------- */

const char tok_chatml[] = "{% for message in messages %}{{'<|im_start|>' + message['role'] + "
                          "'\\n' + message['content'] + "
                          "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
                          "'<|im_start|>assistant\\n' }}{% endif %}";

marco_status tok_spec_bytes(tok_spec **out, marco_error *error)
{
    static const char *const control[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    enum { N_BYTES = 256, N_CONTROL = sizeof control / sizeof *control };
    bool known = false;
    tok_spec *spec = tok_spec_create("the byte tokenizer");
    if (!spec)
        goto memory;
    spec->tokens = base_calloc(N_BYTES, sizeof *spec->tokens);
    spec->added = base_calloc(N_CONTROL, sizeof *spec->added);
    spec->chat_template = base_strdup(tok_chatml);
    if (!spec->tokens || !spec->added || !spec->chat_template ||
        !tok_spec_use_pre(spec, "qwen2", 5, &known))
        goto memory;
    for (spec->n_tokens = 0; spec->n_tokens < N_BYTES; spec->n_tokens++) {
        char spelt[3];
        tok_byte_spell((uint8_t)spec->n_tokens, spelt);
        spec->tokens[spec->n_tokens] = base_strdup(spelt);
        if (!spec->tokens[spec->n_tokens])
            goto memory;
    }
    for (int i = 0; i < N_CONTROL; i++) {
        tok_added *added = &spec->added[spec->n_added++];
        *added = (tok_added){.id = N_BYTES + i, .special = true, .size = strlen(control[i])};
        added->text = base_strdup(control[i]);
        if (!added->text)
            goto memory;
    }
    spec->pad = N_BYTES;
    spec->eos = N_BYTES + 2;
    marco_status status = tok_spec_finish(spec, error);
    if (status)
        tok_spec_free(spec);
    else
        *out = spec;
    return status;
memory:
    tok_spec_free(spec);
    return base_fail_memory(error, sizeof *spec, "the byte tokenizer");
}
