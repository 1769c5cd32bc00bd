#include "tokenizer/train.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/output.h"
#include "tokenizer/bytes.h"
#include "tokenizer/spec_build.h"
#include "tokenizer/split.h"

enum { MAX_THREADS = 1024, DEFAULT_FREQUENCY = 2 };

marco_tokenizer_train_params marco_tokenizer_train_params_default(void)
{
    return (marco_tokenizer_train_params){0};
}

/* ---- special tokens ------------------------------------------------------------------------ */

typedef struct specials {
    const char *const *texts;
    size_t n;
} specials;

static specials specials_of(const marco_tokenizer_train_params *params)
{
    static const char *const usual[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    if (params->special)
        return (specials){params->special, params->n_special};
    return (specials){usual, sizeof usual / sizeof *usual};
}

static bool count_piece(void *user, const char *piece, size_t size)
{
    (void)piece, (void)size;
    ++*(int *)user;
    return true;
}

/* A special token that the splitting leaves whole, or that has white space, could be learnt from
 * text as an ordinary token too. */
static marco_status check_special(tok_split_work *split, const char *text, marco_error *error)
{
    size_t size = text ? strlen(text) : 0;
    int n_pieces = 0;
    if (!size || size > TOK_MAX_ADDED_SIZE || base_utf8_check(text, size) < size)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "special token '%.60s': must be 1 to %d bytes of UTF-8", text ? text : "",
                         TOK_MAX_ADDED_SIZE);
    marco_status status = tok_split_run(split, text, size, count_piece, &n_pieces, error);
    if (!status && (n_pieces < 2 || text[strcspn(text, " \t\r\n\v\f")]))
        status = base_fail(error, MARCO_ERROR_ARGUMENT,
                           "special token '%.60s' could be learnt from text as well; choose one "
                           "of letters and signs without white space, as <|name|>",
                           text);
    return status;
}

static marco_status check_specials(const tok_spec *spec, specials special, marco_error *error)
{
    tok_split *split = NULL;
    tok_split_work *work = NULL;
    tok_words seen = {0};
    marco_status status = tok_split_create(spec, &split, error);
    if (!status)
        status = tok_split_work_create(split, &work, error);
    if (!status)
        status = tok_seed_draw(&seen.seed, error);
    for (size_t i = 0; !status && i < special.n; i++) {
        status = check_special(work, special.texts[i], error);
        if (!status && !tok_words_add(&seen, special.texts[i], strlen(special.texts[i]), 1))
            status = base_fail_memory(error, strlen(special.texts[i]), "special tokens");
        if (!status && seen.n == i)
            status = base_fail(error, MARCO_ERROR_ARGUMENT, "special token '%.60s' is given twice",
                               special.texts[i]);
    }
    tok_words_free(&seen);
    tok_split_work_free(work);
    tok_split_free(split);
    return status;
}

static marco_status check_params(const char *to, const marco_tokenizer_train_params *params,
                                 marco_error *error)
{
    if (!to || !params || !params->files || params->n_files == 0)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "a tokenizer is trained on one file or more, into a folder");
    if (params->threads < 0 || params->threads > MAX_THREADS)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "threads: %d is not between 1 and %d (0: all cores)", params->threads,
                         MAX_THREADS);
    if (params->min_frequency < 0)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "min_frequency: %lld is less than 1",
                         (long long)params->min_frequency);
    specials special = specials_of(params);
    if (special.n > TOK_MAX_ADDED)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%zu special tokens are more than the %d "
                         "allowed",
                         special.n, TOK_MAX_ADDED);
    int least = TOK_N_BYTES + (int)special.n;
    if (params->vocab_size < least || params->vocab_size > TOK_MAX_TOKENS)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "a vocabulary of %d: must be %d (256 bytes and %zu special tokens) to %d",
                         params->vocab_size, least, special.n, TOK_MAX_TOKENS);
    return MARCO_OK;
}

/* ---- the spec ------------------------------------------------------------------------------ */

static bool add_specials(tok_spec *spec, specials special)
{
    spec->added = base_calloc(special.n, sizeof *spec->added);
    bool ok = spec->added != NULL;
    for (size_t i = 0; ok && i < special.n; i++) {
        tok_added *added = &spec->added[spec->n_added++];
        *added = (tok_added){.id = spec->n_tokens + (int32_t)i,
                             .text = base_strdup(special.texts[i]),
                             .size = strlen(special.texts[i]),
                             .special = true};
        ok = added->text != NULL;
    }
    return ok;
}

static int32_t find_special(const tok_spec *spec, const char *text)
{
    for (int32_t i = 0; i < spec->n_added; i++)
        if (strcmp(spec->added[i].text, text) == 0)
            return spec->added[i].id;
    return -1;
}

/* Two tokens' spellings with something between them; NULL when out of memory. */
static char *join(const tok_spec *spec, const tok_merge *merge, const char *between)
{
    base_text text = {0};
    base_text_add(&text, spec->tokens[merge->left]);
    base_text_add(&text, between);
    base_text_add(&text, spec->tokens[merge->right]);
    return base_text_take(&text, NULL);
}

static bool add_tokens(tok_spec *spec, const tok_learnt *learnt)
{
    uint8_t alphabet[TOK_N_BYTES];
    tok_alphabet(alphabet);
    spec->tokens = base_calloc(TOK_N_BYTES + (size_t)learnt->n_merges, sizeof *spec->tokens);
    spec->merges = base_calloc((size_t)learnt->n_merges, sizeof *spec->merges);
    bool ok = spec->tokens && spec->merges;
    while (ok && spec->n_tokens < TOK_N_BYTES) {
        char spelt[3];
        tok_byte_spell(alphabet[spec->n_tokens], spelt);
        spec->tokens[spec->n_tokens] = base_strdup(spelt);
        ok = spec->tokens[spec->n_tokens++] != NULL;
    }
    while (ok && spec->n_merges < learnt->n_merges) {
        const tok_merge *merge = &learnt->merges[spec->n_merges];
        spec->merges[spec->n_merges] = join(spec, merge, " ");
        spec->tokens[spec->n_tokens] = join(spec, merge, "");
        ok = spec->merges[spec->n_merges++] && spec->tokens[spec->n_tokens++];
    }
    return ok;
}

/* Documents end with <|endoftext|>, or with the first special token where there is none; it pads
 * too. */
static marco_status complete_spec(tok_spec *spec, specials special, const tok_learnt *learnt,
                                  marco_error *error)
{
    if (!add_tokens(spec, learnt) || !add_specials(spec, special))
        return base_fail_memory(error, (size_t)learnt->n_merges, "the vocabulary");
    spec->eos = find_special(spec, "<|endoftext|>");
    if (spec->eos < 0 && spec->n_added)
        spec->eos = spec->added[0].id;
    spec->pad = spec->eos;
    if (find_special(spec, "<|im_start|>") >= 0 && find_special(spec, "<|im_end|>") >= 0) {
        spec->chat_template = base_strdup(tok_chatml);
        if (!spec->chat_template)
            return base_fail_memory(error, strlen(tok_chatml), "the chat template");
    }
    return tok_spec_finish(spec, error);
}

/* The splitting, before there is a vocabulary. */
static marco_status begin_spec(const char *to, tok_spec **out, marco_error *error)
{
    bool known;
    *out = tok_spec_create(to);
    if (*out && tok_spec_use_pre(*out, "qwen2", strlen("qwen2"), &known))
        return MARCO_OK;
    return base_fail_memory(error, sizeof **out, "the tokenizer");
}

/* ---- training ------------------------------------------------------------------------------ */

static marco_status learn(tok_spec *spec, const marco_tokenizer_train_params *params,
                          marco_tokenizer_train_stats *stats, marco_error *error)
{
    specials special = specials_of(params);
    tok_words words = {0};
    tok_learnt learnt = {0};
    marco_status status = tok_count_words(spec, params, &words, error);
    if (!status && words.n == 0)
        status = base_fail(error, MARCO_ERROR_FORMAT, "%s: there is no text in %s",
                           params->files[0], params->n_files > 1 ? "any of the files" : "it");
    if (!status)
        status = tok_learn(&words, params->vocab_size - TOK_N_BYTES - (int32_t)special.n,
                           params->min_frequency ? params->min_frequency : DEFAULT_FREQUENCY,
                           &params->progress, &learnt, error);
    if (!status)
        status = complete_spec(spec, special, &learnt, error);
    if (!status && stats) {
        *stats = (marco_tokenizer_train_stats){.vocab_size = tok_spec_size(spec),
                                               .merges = learnt.n_merges,
                                               .words = words.n,
                                               .tokens = learnt.n_ids};
        for (size_t i = 0; i < words.n; i++)
            stats->bytes += words.items[i].size * words.items[i].count;
    }
    tok_words_free(&words);
    base_free(learnt.merges);
    return status;
}

marco_status marco_tokenizer_train(const char *to, const marco_tokenizer_train_params *params,
                                   marco_tokenizer_train_stats *stats, marco_error *error)
{
    tok_spec *spec = NULL;
    base_folder *folder = NULL;
    marco_status status = check_params(to, params, error);
    if (!status)
        status = begin_spec(to, &spec, error);
    if (!status)
        status = check_specials(spec, specials_of(params), error);
    if (!status)
        status = base_folder_create(to, params->overwrite, &folder, error);
    if (!status)
        status = learn(spec, params, stats, error);
    if (!status)
        status = tok_spec_write_hf(spec, base_folder_path(folder), error);
    tok_spec_free(spec);
    if (!status)
        return base_folder_commit(folder, error);
    base_folder_abort(folder);
    return status;
}
