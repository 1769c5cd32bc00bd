#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "base/text.h"
#include "format/json.h"
#include "tokenizer/spec_build.h"

/* JSON, collected and written in pieces. The first failure stays in `status`. */
typedef struct writer {
    base_output *output;
    base_text text;
    marco_status status;
    marco_error *error;
} writer;

enum { PIECE = 1 << 16 };

static void drain(writer *w, size_t keep)
{
    if (w->status || w->text.size <= keep)
        return;
    w->status = w->text.failed ? base_fail_memory(w->error, PIECE, "tokenizer.json")
                               : base_output_write(w->output, w->text.data, w->text.size, w->error);
    base_text_clear(&w->text);
}

static void put(writer *w, const char *json)
{
    base_text_add(&w->text, json);
    if (w->text.failed && !w->status)
        w->status = base_fail_memory(w->error, PIECE, "tokenizer.json");
    drain(w, PIECE);
}

static void put_string(writer *w, const char *s)
{
    format_json_escape(&w->text, s, strlen(s));
    put(w, "");
}

static void put_bool(writer *w, const char *key, bool value, const char *after)
{
    base_text_printf(&w->text, "\"%s\": %s%s", key, value ? "true" : "false", after);
}

static void put_flags(writer *w, const tok_added *added)
{
    put(w, "\"content\": ");
    put_string(w, added->text);
    put(w, ", ");
    put_bool(w, "single_word", added->single_word, ", ");
    put_bool(w, "lstrip", added->lstrip, ", ");
    put_bool(w, "rstrip", added->rstrip, ", ");
    put_bool(w, "normalized", added->normalized, ", ");
    put_bool(w, "special", added->special, "}");
}

/* ---- tokenizer.json ------------------------------------------------------------------------ */

static void put_added(writer *w, const tok_spec *spec)
{
    put(w, "  \"added_tokens\": [");
    for (int32_t i = 0; i < spec->n_added; i++) {
        base_text_printf(&w->text, "%s\n    {\"id\": %d, ", i ? "," : "", spec->added[i].id);
        put_flags(w, &spec->added[i]);
    }
    put(w, "\n  ],\n");
}

static void put_pre_tokenizer(writer *w, const tok_spec *spec)
{
    int32_t n = spec->n_patterns;
    /* The prefix space goes before what the last pattern splits, which only ByteLevel's own does.
     */
    bool own = n > 0 && strcmp(spec->patterns[n - 1], tok_pattern_gpt2) == 0;
    put(w, "  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [");
    for (int32_t i = 0; i < n - own; i++) {
        put(w, "\n    {\"type\": \"Split\", \"pattern\": {\"Regex\": ");
        put_string(w, spec->patterns[i]);
        put(w, "}, \"behavior\": \"Isolated\", \"invert\": false},");
    }
    put(w, "\n    {\"type\": \"ByteLevel\", ");
    put_bool(w, "add_prefix_space", spec->add_prefix_space, ", \"trim_offsets\": false, ");
    put_bool(w, "use_regex", own, "}\n  ]},\n");
}

static void put_post_processor(writer *w, const tok_spec *spec)
{
    static const char byte_level[] = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                                     "\"trim_offsets\": false, \"use_regex\": false}";
    static const char text_a[] = "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}";
    static const char text_b[] = "{\"Sequence\": {\"id\": \"B\", \"type_id\": 1}}";
    const tok_added *added;
    const char *bos =
        spec->add_bos && spec->bos >= 0 ? tok_spec_text(spec, spec->bos, &added) : NULL;
    put(w, "  \"post_processor\": ");
    if (!bos) {
        put(w, byte_level);
    } else {
        for (int pair = 0; pair < 2; pair++) {
            put(w, pair ? "], \"pair\": [" : "{\"type\": \"TemplateProcessing\", \"single\": [");
            put(w, "{\"SpecialToken\": {\"id\": ");
            put_string(w, bos);
            put(w, ", \"type_id\": 0}}, ");
            put(w, text_a);
            if (pair) {
                put(w, ", ");
                put(w, text_b);
            }
        }
        put(w, "], \"special_tokens\": {");
        put_string(w, bos);
        put(w, ": {\"id\": ");
        put_string(w, bos);
        base_text_printf(&w->text, ", \"ids\": [%d], \"tokens\": [", spec->bos);
        put_string(w, bos);
        put(w, "]}}}");
    }
    put(w, ",\n  \"decoder\": ");
    put(w, byte_level);
    put(w, ",\n");
}

/* HF gives an added token that is not in the vocabulary the next free id, counting from the number
 * of entries. True where that comes out as the ids it has; otherwise they go into the vocabulary
 * too, which names their ids. */
static bool added_ids_follow(const tok_spec *spec)
{
    int32_t next = 0;
    for (int32_t id = 0; id < spec->n_tokens; id++)
        next += spec->tokens[id] != NULL;
    for (int32_t i = 0; i < spec->n_added; i++) {
        int32_t id = spec->added[i].id;
        bool known = id < spec->n_tokens && spec->tokens[id];
        if (!known && id != next++)
            return false;
    }
    return true;
}

static void put_model(writer *w, const tok_spec *spec)
{
    bool follow = added_ids_follow(spec);
    const char *separator = "";
    put(w, "  \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
           "\"continuing_subword_prefix\": \"\", \"end_of_word_suffix\": \"\", "
           "\"fuse_unk\": false, \"byte_fallback\": false, ");
    put_bool(w, "ignore_merges", spec->ignore_merges, ", \"vocab\": {");
    for (int32_t id = 0; id < tok_spec_size(spec) && !w->status; id++) {
        const tok_added *added;
        const char *text = tok_spec_text(spec, id, &added);
        bool own = id < spec->n_tokens && spec->tokens[id];
        if (!text || (!own && follow))
            continue;
        base_text_printf(&w->text, "%s\n    ", separator);
        put_string(w, text);
        base_text_printf(&w->text, ": %d", id);
        separator = ",";
    }
    put(w, "\n  }, \"merges\": [");
    for (int32_t i = 0; i < spec->n_merges && !w->status; i++) {
        put(w, i ? ",\n    " : "\n    ");
        put_string(w, spec->merges[i]);
    }
    put(w, "\n  ]}\n");
}

static void put_tokenizer(writer *w, const tok_spec *spec)
{
    put(w, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n");
    put_added(w, spec);
    put(w, spec->nfc ? "  \"normalizer\": {\"type\": \"NFC\"},\n" : "  \"normalizer\": null,\n");
    put_pre_tokenizer(w, spec);
    put_post_processor(w, spec);
    put_model(w, spec);
    put(w, "}\n");
}

/* ---- tokenizer_config.json ----------------------------------------------------------------- */

static void put_token(writer *w, const tok_spec *spec, const char *key, int32_t id)
{
    const tok_added *added;
    const char *text = id >= 0 ? tok_spec_text(spec, id, &added) : NULL;
    base_text_printf(&w->text, "  \"%s\": ", key);
    if (text)
        put_string(w, text);
    else
        put(w, "null");
    put(w, ",\n");
}

static void put_config(writer *w, const tok_spec *spec)
{
    put(w, "{\n  ");
    put_bool(w, "add_bos_token", spec->add_bos, ",\n  ");
    put_bool(w, "add_prefix_space", spec->add_prefix_space, ",\n  \"added_tokens_decoder\": {");
    for (int32_t i = 0; i < spec->n_added; i++) {
        base_text_printf(&w->text, "%s\n    \"%d\": {", i ? "," : "", spec->added[i].id);
        put_flags(w, &spec->added[i]);
    }
    put(w, "\n  },\n");
    put_token(w, spec, "bos_token", spec->bos);
    put_token(w, spec, "eos_token", spec->eos);
    put_token(w, spec, "unk_token", spec->unk);
    put_token(w, spec, "pad_token", spec->pad);
    if (spec->chat_template) {
        put(w, "  \"chat_template\": ");
        put_string(w, spec->chat_template);
        put(w, ",\n");
    }
    /* The class that takes tokenizer.json as it is. */
    put(w, "  \"clean_up_tokenization_spaces\": false,\n"
           "  \"tokenizer_class\": \"PreTrainedTokenizerFast\"\n}\n");
}

/* ---- files --------------------------------------------------------------------------------- */

static marco_status write_file(const tok_spec *spec, const char *folder, const char *name,
                               void (*fill)(writer *w, const tok_spec *spec), marco_error *error)
{
    writer w = {.error = error};
    char *path = base_path_join(folder, name);
    if (!path)
        return base_fail_memory(error, strlen(folder), "a file name");
    w.status = base_output_create(path, false, &w.output, error);
    base_free(path);
    if (w.status)
        return w.status;
    fill(&w, spec);
    drain(&w, 0);
    base_text_free(&w.text);
    if (!w.status)
        return base_output_commit(w.output, error);
    base_output_abort(w.output);
    return w.status;
}

marco_status tok_spec_write_hf(const tok_spec *spec, const char *folder, marco_error *error)
{
    marco_status status = write_file(spec, folder, "tokenizer.json", put_tokenizer, error);
    return status ? status : write_file(spec, folder, "tokenizer_config.json", put_config, error);
}
