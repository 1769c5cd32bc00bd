/* Reading tokenizer.json and what stands beside it. Everything of the format that this tokenizer
 * does not do is refused by name: ignoring it would give other ids than the model was trained on.
 */
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/text.h"
#include "format/json.h"
#include "tokenizer/spec_build.h"

enum {
    MAX_TOKENIZER_FILE = 64 << 20, /* parsed, it may be 40 times that; Qwen3's is 11 MiB */
    MAX_CONFIG_FILE = 16 << 20,
    MAX_TEMPLATE_FILE = 4 << 20,
};

typedef struct reader {
    tok_spec *spec;
    const char *path; /* of the file at hand */
    json_t *root;
    const char *bos; /* the token of a TemplateProcessing, borrowed from root */
    marco_error *error;
} reader;

static marco_status fail_memory(const reader *r, const char *what)
{
    return base_fail_memory(r->error, sizeof(void *), what);
}

static marco_status refuse(const reader *r, const char *what, const char *value, const char *known)
{
    return base_fail(r->error, MARCO_ERROR_UNSUPPORTED, "%s: %s '%s' is not supported (known: %s)",
                     r->path, what, value, known);
}

/* The "type" of a component; "" where it has none. */
static const char *type_of(const json_t *component)
{
    const char *type = json_string_value(json_object_get(component, "type"));
    return type ? type : "";
}

static bool is_type(const json_t *component, const char *type)
{
    return strcmp(type_of(component), type) == 0;
}

static json_t *present(const json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

/* ---- model --------------------------------------------------------------------------------- */

static marco_status check_model(const reader *r, const json_t *model)
{
    static const char *const texts[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    if (!json_is_object(model))
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: has no \"model\" object; is it a tokenizer.json?", r->path);
    if (!is_type(model, "BPE") && *type_of(model))
        return refuse(r, "the model type", type_of(model), "BPE");
    if (present(model, "dropout") && json_number_value(json_object_get(model, "dropout")) != 0)
        return refuse(r, "the model's option", "dropout", "null");
    if (json_is_true(json_object_get(model, "byte_fallback")))
        return refuse(r, "the model's option", "byte_fallback", "false");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *value = present(model, texts[i]);
        if (value && json_string_length(value) != 0)
            return refuse(r, "the model's option", texts[i], "empty");
    }
    return format_json_bool(r->path, model, "ignore_merges", &r->spec->ignore_merges, r->error);
}

static marco_status read_vocab(const reader *r, const json_t *vocab)
{
    tok_spec *spec = r->spec;
    const char *text;
    json_t *value;
    int64_t last = -1;
    if (!json_is_object(vocab))
        return base_fail(r->error, MARCO_ERROR_FORMAT, "%s: model.vocab is not an object", r->path);
    json_object_foreach((json_t *)vocab, text, value)
    {
        int64_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= TOK_MAX_TOKENS)
            return base_fail(r->error, MARCO_ERROR_FORMAT,
                             "%s: model.vocab: the id of '%s' is not an integer from 0 to %d",
                             r->path, text, TOK_MAX_TOKENS - 1);
        last = id > last ? id : last;
    }
    spec->tokens = base_calloc((size_t)(last + 1), sizeof *spec->tokens);
    if (!spec->tokens)
        return fail_memory(r, "the vocabulary");
    spec->n_tokens = (int32_t)(last + 1);
    json_object_foreach((json_t *)vocab, text, value)
    {
        json_int_t id = json_integer_value(value);
        if (spec->tokens[id])
            return base_fail(r->error, MARCO_ERROR_FORMAT,
                             "%s: model.vocab: '%s' and '%s' have the same id %lld", r->path,
                             spec->tokens[id], text, (long long)id);
        spec->tokens[id] = base_strdup(text);
        if (!spec->tokens[id])
            return fail_memory(r, "the vocabulary");
    }
    return MARCO_OK;
}

/* "a b" or ["a", "b"]; what the two name is checked when they are compiled. */
static char *merge_text(const json_t *merge, bool *memory)
{
    const char *left = json_string_value(json_array_get(merge, 0));
    const char *right = json_string_value(json_array_get(merge, 1));
    const char *text = json_string_value(merge);
    base_text joined = {0};
    *memory = false;
    if (json_array_size(merge) == 2 && left && right) {
        base_text_printf(&joined, "%s %s", left, right);
    } else if (text) {
        base_text_add(&joined, text);
    } else {
        return NULL;
    }
    char *taken = base_text_take(&joined, NULL);
    *memory = taken == NULL;
    return taken;
}

static marco_status read_merges(const reader *r, const json_t *merges)
{
    tok_spec *spec = r->spec;
    size_t n = json_array_size(merges);
    if (!json_is_array(merges) || n > TOK_MAX_TOKENS)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: model.merges is not an array of at most %d merges", r->path,
                         TOK_MAX_TOKENS);
    spec->merges = base_calloc(n, sizeof *spec->merges);
    if (!spec->merges)
        return fail_memory(r, "the merges");
    for (size_t i = 0; i < n; i++) {
        bool memory;
        spec->merges[i] = merge_text(json_array_get(merges, i), &memory);
        if (!spec->merges[i])
            return memory ? fail_memory(r, "the merges")
                          : base_fail(r->error, MARCO_ERROR_FORMAT,
                                      "%s: model.merges[%zu] is neither \"a b\" nor [\"a\", \"b\"]",
                                      r->path, i);
        spec->n_merges++;
    }
    return MARCO_OK;
}

static int32_t find_token(const tok_spec *spec, const char *text)
{
    for (int32_t i = 0; i < spec->n_added; i++)
        if (strcmp(spec->added[i].text, text) == 0)
            return spec->added[i].id;
    for (int32_t i = 0; i < spec->n_tokens; i++)
        if (spec->tokens[i] && strcmp(spec->tokens[i], text) == 0)
            return i;
    return -1;
}

/* HF puts model.unk_token where a character has no token, we leave it out as HF does without one:
 * a difference only where a byte has no token. */
static marco_status check_unk(const reader *r, const json_t *model)
{
    const char *unk = NULL;
    marco_status status = format_json_string(r->path, model, "unk_token", &unk, r->error);
    if (status || !unk)
        return status;
    r->spec->unk = find_token(r->spec, unk);
    if (tok_spec_has_all_bytes(r->spec))
        return MARCO_OK;
    return refuse(r, "model.unk_token", unk, "null, or a vocabulary with all 256 bytes");
}

static marco_status read_model(const reader *r)
{
    json_t *model = json_object_get(r->root, "model");
    marco_status status = check_model(r, model);
    if (!status)
        status = read_vocab(r, json_object_get(model, "vocab"));
    if (!status)
        status = read_merges(r, json_object_get(model, "merges"));
    return status ? status : check_unk(r, model);
}

/* ---- added tokens -------------------------------------------------------------------------- */

static marco_status read_added_token(const reader *r, const json_t *object)
{
    tok_added added = {0};
    const char *text = NULL;
    int64_t id = -1;
    const struct {
        const char *key;
        bool *value;
    } flags[] = {{"special", &added.special},
                 {"normalized", &added.normalized},
                 {"lstrip", &added.lstrip},
                 {"rstrip", &added.rstrip},
                 {"single_word", &added.single_word}};
    marco_status status =
        format_json_int(r->path, object, "id", 0, TOK_MAX_TOKENS - 1, &id, r->error);
    if (!status)
        status = format_json_string(r->path, object, "content", &text, r->error);
    for (size_t i = 0; !status && i < sizeof flags / sizeof *flags; i++)
        status = format_json_bool(r->path, object, flags[i].key, flags[i].value, r->error);
    if (status)
        return status;
    size_t size = text ? strlen(text) : 0;
    if (id < 0 || !text || size > TOK_MAX_ADDED_SIZE ||
        json_string_length(json_object_get(object, "content")) != size)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: an added token lacks its id or content, or its content has a NUL or "
                         "more than %d bytes",
                         r->path, TOK_MAX_ADDED_SIZE);
    if (size == 0)
        return MARCO_OK; /* HF ignores it too */
    added.id = (int32_t)id;
    added.size = size;
    added.text = base_strdup(text);
    if (!added.text)
        return fail_memory(r, "added tokens");
    r->spec->added[r->spec->n_added++] = added;
    return MARCO_OK;
}

static marco_status read_added(const reader *r)
{
    json_t *array = present(r->root, "added_tokens");
    size_t n = json_array_size(array);
    if ((array && !json_is_array(array)) || n > TOK_MAX_ADDED)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: added_tokens is not an array of at most %d tokens", r->path,
                         TOK_MAX_ADDED);
    r->spec->added = base_calloc(n, sizeof *r->spec->added);
    if (!r->spec->added)
        return fail_memory(r, "added tokens");
    marco_status status = MARCO_OK;
    for (size_t i = 0; !status && i < n; i++)
        status = read_added_token(r, json_array_get(array, i));
    return status;
}

/* ---- the pipeline -------------------------------------------------------------------------- */

typedef marco_status (*component_fn)(reader *r, const json_t *component);

/* Calls fn for a component, or for each of those in a Sequence of them under `key`. */
static marco_status each_component(reader *r, const json_t *component, const char *key,
                                   component_fn fn)
{
    if (!component)
        return MARCO_OK;
    if (!is_type(component, "Sequence"))
        return fn(r, component);
    json_t *parts = json_object_get(component, key);
    marco_status status = MARCO_OK;
    for (size_t i = 0; !status && i < json_array_size(parts); i++)
        status = fn(r, json_array_get(parts, i));
    return status;
}

static marco_status read_normalizer(reader *r, const json_t *component)
{
    if (!is_type(component, "NFC"))
        return refuse(r, "the normalizer", type_of(component), "NFC");
    r->spec->nfc = true;
    return MARCO_OK;
}

static marco_status add_pattern(const reader *r, const char *pattern)
{
    if (!tok_spec_add_pattern(r->spec, pattern))
        return fail_memory(r, "a split pattern");
    return MARCO_OK;
}

static marco_status read_split(const reader *r, const json_t *component)
{
    json_t *pattern = json_object_get(json_object_get(component, "pattern"), "Regex");
    const char *behavior = json_string_value(json_object_get(component, "behavior"));
    if (!json_is_string(pattern))
        return refuse(r, "the Split pattern", "String", "Regex");
    if (!behavior || strcmp(behavior, "Isolated") != 0)
        return refuse(r, "the Split behavior", behavior ? behavior : "", "Isolated");
    if (json_is_true(json_object_get(component, "invert")))
        return refuse(r, "the Split option invert", "true", "false");
    if (strlen(json_string_value(pattern)) != json_string_length(pattern))
        return refuse(r, "a NUL in the Split pattern", json_string_value(pattern), "none");
    return add_pattern(r, json_string_value(pattern));
}

static marco_status read_digits(const reader *r, const json_t *component)
{
    bool individual = json_is_true(json_object_get(component, "individual_digits"));
    return add_pattern(r, individual ? "\\p{N}" : "\\p{N}+");
}

static marco_status read_byte_level(reader *r, const json_t *component)
{
    tok_spec *spec = r->spec;
    bool use_regex = true;
    spec->add_prefix_space = true;
    marco_status status =
        format_json_bool(r->path, component, "add_prefix_space", &spec->add_prefix_space, r->error);
    if (!status)
        status = format_json_bool(r->path, component, "use_regex", &use_regex, r->error);
    if (status)
        return status;
    if (spec->add_prefix_space && !use_regex && spec->n_patterns > 0)
        return refuse(r, "after a Split, ByteLevel's option", "add_prefix_space", "false");
    return use_regex ? add_pattern(r, tok_pattern_gpt2) : MARCO_OK;
}

static marco_status read_pre_tokenizers(reader *r)
{
    json_t *component = present(r->root, "pre_tokenizer");
    json_t *parts = json_object_get(component, "pretokenizers");
    bool sequence = is_type(component, "Sequence"), bytes = false;
    size_t n = sequence ? json_array_size(parts) : component ? 1 : 0;
    marco_status status = MARCO_OK;
    for (size_t i = 0; !status && i < n; i++) {
        json_t *part = sequence ? json_array_get(parts, i) : component;
        const char *type = type_of(part);
        if (bytes)
            return refuse(r, "after ByteLevel, the pre_tokenizer", type, "none");
        if (strcmp(type, "Split") == 0)
            status = read_split(r, part);
        else if (strcmp(type, "Digits") == 0)
            status = read_digits(r, part);
        else if (strcmp(type, "ByteLevel") == 0)
            status = read_byte_level(r, part);
        else
            return refuse(r, "the pre_tokenizer", type, "Split, Digits, ByteLevel");
        bytes = strcmp(type, "ByteLevel") == 0;
    }
    if (!status && !bytes)
        return refuse(r, "a pre_tokenizer without", "ByteLevel", "byte-level BPE");
    return status;
}

static marco_status read_decoder(reader *r, const json_t *component)
{
    return is_type(component, "ByteLevel")
               ? MARCO_OK
               : refuse(r, "the decoder", type_of(component), "ByteLevel");
}

/* A TemplateProcessing that puts one token before the text. */
static marco_status read_template(reader *r, const json_t *component)
{
    json_t *single = json_object_get(component, "single");
    size_t n = json_array_size(single);
    json_t *token = json_object_get(json_array_get(single, 0), "SpecialToken");
    const char *id = json_string_value(json_object_get(token, "id"));
    bool text_last = n > 0 && json_object_get(json_array_get(single, n - 1), "Sequence");
    if (!text_last || n > 2 || (n == 2 && !id))
        return refuse(r, "the post_processor", "TemplateProcessing",
                      "one with at most a token before the text");
    if (n == 2)
        r->bos = id;
    return MARCO_OK;
}

static marco_status read_post_processor(reader *r, const json_t *component)
{
    if (is_type(component, "TemplateProcessing"))
        return read_template(r, component);
    if (is_type(component, "ByteLevel"))
        return MARCO_OK; /* trims offsets, which are not ours to give */
    return refuse(r, "the post_processor", type_of(component), "ByteLevel, TemplateProcessing");
}

static marco_status read_pipeline(reader *r)
{
    marco_status status =
        each_component(r, present(r->root, "normalizer"), "normalizers", read_normalizer);
    if (!status)
        status = read_pre_tokenizers(r);
    if (!status && !present(r->root, "decoder"))
        status = refuse(r, "the decoder", "null", "ByteLevel");
    if (!status)
        status = each_component(r, present(r->root, "decoder"), "decoders", read_decoder);
    if (!status)
        status = each_component(r, present(r->root, "post_processor"), "processors",
                                read_post_processor);
    if (status || !r->bos)
        return status;
    r->spec->add_bos = true;
    r->spec->bos = find_token(r->spec, r->bos);
    if (r->spec->bos < 0)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: the post_processor's token '%s' is not in the vocabulary", r->path,
                         r->bos);
    return MARCO_OK;
}

/* ---- tokenizer_config.json ----------------------------------------------------------------- */

/* A token given as its text, or as an object with the text as "content". */
static marco_status read_special(const reader *r, const json_t *config, const char *key,
                                 bool needed, int32_t *id)
{
    json_t *value = present(config, key);
    if (json_is_object(value))
        value = json_object_get(value, "content");
    if (!value)
        return MARCO_OK;
    const char *text = json_string_value(value);
    int32_t found = text ? find_token(r->spec, text) : -1;
    if (found >= 0)
        *id = found;
    if (found < 0 && needed)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: \"%s\" is '%s', which is not in the vocabulary", r->path, key,
                         text ? text : "not a string");
    return MARCO_OK;
}

/* A text, or an array of {name, template} of which "default" counts. */
static marco_status read_template_text(const reader *r, const json_t *config)
{
    json_t *value = present(config, "chat_template");
    if (json_is_array(value)) {
        json_t *choices = value, *choice;
        size_t i;
        value = NULL;
        json_array_foreach(choices, i, choice)
        {
            const char *name = json_string_value(json_object_get(choice, "name"));
            if (name && strcmp(name, "default") == 0)
                value = json_object_get(choice, "template");
        }
    }
    if (!value)
        return MARCO_OK;
    if (!json_is_string(value))
        return base_fail(r->error, MARCO_ERROR_FORMAT, "%s: \"chat_template\" is not a text",
                         r->path);
    r->spec->chat_template = base_strdup(json_string_value(value));
    return r->spec->chat_template ? MARCO_OK : fail_memory(r, "the chat template");
}

static marco_status read_config(reader *r, const char *path)
{
    json_t *config = NULL;
    tok_spec *spec = r->spec;
    int32_t bos = spec->bos;
    bool add_bos = false;
    r->path = path;
    if (!base_exists(path))
        return MARCO_OK;
    marco_status status = format_json_file(path, MAX_CONFIG_FILE, &config, r->error);
    if (!status)
        status = format_json_bool(path, config, "add_bos_token", &add_bos, r->error);
    if (!status)
        status = read_special(r, config, "bos_token", true, &bos);
    if (!status)
        status = read_special(r, config, "eos_token", true, &spec->eos);
    if (!status)
        status = read_special(r, config, "unk_token", false, &spec->unk);
    if (!status)
        status = read_special(r, config, "pad_token", false, &spec->pad);
    if (!status)
        status = read_template_text(r, config);
    json_decref(config);
    if (!status && spec->add_bos && bos != spec->bos)
        status = base_fail(r->error, MARCO_ERROR_FORMAT,
                           "%s: \"bos_token\" is id %d, but tokenizer.json puts id %d before a "
                           "text",
                           path, bos, spec->bos);
    spec->bos = bos;
    spec->add_bos |= add_bos && bos >= 0;
    return status;
}

static marco_status read_template_file(reader *r, const char *path)
{
    char *text = NULL;
    size_t size = 0;
    if (!base_exists(path))
        return MARCO_OK;
    marco_status status = base_file_slurp(path, MAX_TEMPLATE_FILE, &text, &size, r->error);
    if (status)
        return status;
    if (strlen(text) != size) {
        base_free(text);
        return base_fail(r->error, MARCO_ERROR_FORMAT, "%s: has a NUL in it", path);
    }
    base_free(r->spec->chat_template);
    r->spec->chat_template = text;
    return MARCO_OK;
}

/* Both change what encoding a text gives. transformers puts a tokenizer's last use of them here. */
static marco_status check_lengths(const reader *r)
{
    static const char *const keys[] = {"truncation", "padding"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (present(r->root, keys[i]))
            return base_fail(
                r->error, MARCO_ERROR_UNSUPPORTED,
                "%s: \"%s\" is set, and texts are neither cut nor padded here: make it "
                "null in this file, as transformers does unless asked otherwise",
                r->path, keys[i]);
    return MARCO_OK;
}

/* ---- the whole ----------------------------------------------------------------------------- */

static marco_status read_tokenizer(reader *r, const char *path)
{
    r->path = path;
    marco_status status = format_json_file(path, MAX_TOKENIZER_FILE, &r->root, r->error);
    if (!status)
        status = check_lengths(r);
    if (!status)
        status = read_added(r);
    if (!status)
        status = read_model(r);
    if (!status)
        status = read_pipeline(r);
    if (!status)
        status = tok_spec_finish(r->spec, r->error);
    json_decref(r->root);
    return status;
}

static marco_status read_beside(reader *r, const char *folder)
{
    char *config = base_path_join(folder, "tokenizer_config.json");
    char *template = base_path_join(folder, "chat_template.jinja");
    marco_status status =
        config && template ? read_config(r, config) : fail_memory(r, "a file name");
    if (!status)
        status = read_template_file(r, template);
    base_free(config);
    base_free(template);
    return status;
}

/* The folder of `path`: of a tokenizer.json its own, of other names none, for what is beside them
 * may belong to another. NULL: none, or out of memory (*memory). */
static char *folder_of(const char *path, bool *memory)
{
    const char *name = base_path_name(path);
    *memory = false;
    if (strcmp(name, "tokenizer.json") != 0)
        return NULL;
    char *folder = name == path ? base_strdup(".") : base_strndup(path, (size_t)(name - path));
    *memory = folder == NULL;
    return folder;
}

marco_status tok_spec_read_hf(const char *path, tok_spec **out, marco_error *error)
{
    bool is_folder = base_is_folder(path), memory = false;
    char *file = is_folder ? base_path_join(path, "tokenizer.json") : base_strdup(path);
    char *folder = is_folder ? base_strdup(path) : folder_of(path, &memory);
    reader r = {.spec = tok_spec_create(file ? file : path), .path = path, .error = error};
    marco_status status = MARCO_OK;
    if (!file || !r.spec || (!folder && (is_folder || memory)))
        status = fail_memory(&r, "the tokenizer");
    if (!status)
        status = read_tokenizer(&r, file);
    if (!status && folder)
        status = read_beside(&r, folder);
    if (status)
        tok_spec_free(r.spec);
    else
        *out = r.spec;
    base_free(file);
    base_free(folder);
    return status;
}
