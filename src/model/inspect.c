/* What a checkpoint is made of, as JSON. The weights are not read, but every tensor is checked
 * against the configuration as loading does. docs/inspect.md describes the object. */
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"
#include "model/config_internal.h"
#include "model/rope.h"
#include "model/source_file.h"

/* An object being filled. A failed allocation is remembered and reported at the end. */
typedef struct report {
    json_t *root;
    bool failed;
} report;

static void put(report *r, json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) != 0)
        r->failed = true;
}

static void put_int(report *r, json_t *object, const char *key, int64_t value)
{
    put(r, object, key, json_integer(value));
}

static void put_bool(report *r, json_t *object, const char *key, bool value)
{
    put(r, object, key, json_boolean(value));
}

static void put_real(report *r, json_t *object, const char *key, double value)
{
    put(r, object, key, json_real(value));
}

/* NULL and "" are null. What is no UTF-8, as a tensor's name may be, becomes '?'. */
static void put_text(report *r, json_t *object, const char *key, const char *text)
{
    char clean[512];
    if (text)
        model_config_text(text, strlen(text), clean, sizeof clean);
    put(r, object, key, text && *text ? json_string(clean) : json_null());
}

static void append(report *r, json_t *array, json_t *value)
{
    if (json_array_append_new(array, value) != 0)
        r->failed = true;
}

static json_t *put_new(report *r, json_t *object, const char *key, json_t *value)
{
    put(r, object, key, value);
    return json_object_get(object, key);
}

/* ---- the model ----------------------------------------------------------------------------- */

static void put_rope(report *r, const model_rope *rope)
{
    json_t *o = put_new(r, r->root, "rope", json_object());
    put_text(r, o, "type", model_rope_scaling_name(rope->scaling));
    put_real(r, o, "theta", rope->theta);
    if (rope->scaling == MODEL_ROPE_NONE)
        return;
    put_real(r, o, "factor", rope->factor);
    if (rope->scaling == MODEL_ROPE_LINEAR)
        return;
    put_real(r, o, "original_context", rope->original_context);
    if (rope->scaling == MODEL_ROPE_YARN) {
        put_real(r, o, "beta_fast", rope->beta_fast);
        put_real(r, o, "beta_slow", rope->beta_slow);
        put_real(r, o, "attention_factor", model_rope_magnitude(rope));
    } else {
        put_real(r, o, "low_freq_factor", rope->low_freq_factor);
        put_real(r, o, "high_freq_factor", rope->high_freq_factor);
    }
}

static void put_shape(report *r, const model_config *c)
{
    json_t *o = put_new(r, r->root, "shape", json_object());
    int32_t sparse = 0;
    for (int32_t i = 0; i < c->n_layers; i++)
        sparse += c->layer_sparse[i];
    put_int(r, o, "layers", c->n_layers);
    put_int(r, o, "sparse_layers", sparse);
    put_int(r, o, "hidden_size", c->n_embd);
    put_int(r, o, "heads", c->n_heads);
    put_int(r, o, "kv_heads", c->n_kv_heads);
    put_int(r, o, "head_dim", c->head_dim);
    put_int(r, o, "vocabulary", c->n_vocab);
    put_int(r, o, "context", c->n_ctx_train);
    put_int(r, o, "dense_intermediate_size", c->ffn_dim);
    put_int(r, o, "experts", c->n_experts);
    put_int(r, o, "experts_per_token", c->n_experts_used);
    put_int(r, o, "expert_intermediate_size", c->expert_dim);
    put_bool(r, o, "norm_topk_prob", c->norm_topk_prob);
    put_bool(r, o, "qk_norm", c->qk_norm);
    put_bool(r, o, "tied_head", c->tied);
    put_real(r, o, "rms_norm_eps", c->rms_eps);
}

static void put_generation(report *r, const model_config *c)
{
    json_t *o = put_new(r, r->root, "generation", json_object());
    put_int(r, o, "bos_id", c->bos);
    json_t *eos = put_new(r, o, "eos_ids", json_array());
    for (int32_t i = 0; i < c->n_eos; i++)
        append(r, eos, json_integer(c->eos[i]));
    put_int(r, o, "pad_id", c->pad);
    put_bool(r, o, "do_sample", c->do_sample);
    put_real(r, o, "temperature", c->temperature);
    put_int(r, o, "top_k", c->top_k);
    put_real(r, o, "top_p", c->top_p);
    put_real(r, o, "min_p", c->min_p);
    put_real(r, o, "repetition_penalty", c->repetition_penalty);
}

/* ---- weights ------------------------------------------------------------------------------- */

static void put_types(report *r, const model_source *source)
{
    model_type_bytes types[TENSOR_TYPE_END];
    size_t n = model_source_types(source, types);
    json_t *list = put_new(r, r->root, "types", json_array());
    for (size_t i = 0; i < n; i++) {
        json_t *entry = json_object();
        put_text(r, entry, "type", tensor_type_name(types[i].type));
        put_int(r, entry, "bytes", (int64_t)types[i].bytes);
        append(r, list, entry);
    }
}

static void put_tensor(report *r, json_t *list, const char *name, tensor_type type, int n_dims,
                       const int64_t *dims, bool reversed, uint64_t bytes)
{
    json_t *entry = json_object();
    put_text(r, entry, "name", name);
    put_text(r, entry, "type", tensor_type_name(type));
    json_t *shape = put_new(r, entry, "shape", json_array());
    for (int i = 0; i < n_dims; i++)
        append(r, shape, json_integer(dims[reversed ? n_dims - 1 - i : i]));
    put_int(r, entry, "bytes", (int64_t)bytes);
    append(r, list, entry);
}

/* As the file names them, the slowest dimension first in both formats. */
static void put_tensors(report *r, const model_source_file *file)
{
    json_t *list = put_new(r, r->root, "tensors", json_array());
    for (size_t i = 0; file->gguf && i < gguf_tensor_count(file->gguf); i++) {
        const gguf_tensor *t = gguf_tensor_at(file->gguf, i);
        put_tensor(r, list, t->name, t->type, t->n_dims, t->dims, true, t->bytes);
    }
    for (size_t i = 0; file->safetensors && i < safetensors_count(file->safetensors); i++) {
        const safetensors_tensor *t = safetensors_at(file->safetensors, i);
        put_tensor(r, list, t->name, t->type, t->n_dims, t->dims, false, t->bytes);
    }
}

static void put_file(report *r, json_t *list, const base_file *file)
{
    json_t *entry = json_object();
    put_text(r, entry, "file", base_path_name(file->path));
    put_int(r, entry, "bytes", (int64_t)file->size);
    append(r, list, entry);
}

/* Safetensors come sorted by file. */
static uint64_t put_files(report *r, const model_source_file *file)
{
    json_t *list = put_new(r, r->root, "files", json_array());
    const base_file *last = NULL;
    uint64_t total = 0;
    if (file->gguf) {
        put_file(r, list, gguf_file(file->gguf));
        return gguf_file(file->gguf)->size;
    }
    for (size_t i = 0; i < safetensors_count(file->safetensors); i++) {
        const base_file *next = safetensors_at(file->safetensors, i)->file;
        if (next != last) {
            put_file(r, list, next);
            total += next->size;
        }
        last = next;
    }
    return total;
}

static void put_bytes(report *r, const model_source_file *file)
{
    const model_source *source = &file->source;
    const model_config *c = &source->config;
    put_int(r, r->root, "total_params", model_config_total_params(c));
    put_int(r, r->root, "active_params", model_config_active_params(c));
    put_int(r, r->root, "weight_bytes", (int64_t)model_source_bytes(source));
    put_int(r, r->root, "bytes_per_token", (int64_t)model_source_token_bytes(source));
    put_int(r, r->root, "kv_bytes_per_token",
            (int64_t)c->n_layers * 2 * c->n_kv_heads * c->head_dim * 2);
    put_int(r, r->root, "file_bytes", (int64_t)put_files(r, file));
}

/* ---- tokenizer ----------------------------------------------------------------------------- */

static void put_spec(report *r, json_t *o, const tok_spec *spec)
{
    int32_t ordinary = 0, special = 0;
    for (int32_t i = 0; i < spec->n_tokens; i++)
        ordinary += spec->tokens[i] != NULL;
    for (int32_t i = 0; i < spec->n_added; i++)
        special += spec->added[i].special;
    put_text(r, o, "type", "byte-level BPE");
    put_int(r, o, "tokens", ordinary);
    put_int(r, o, "merges", spec->n_merges);
    put_int(r, o, "added_tokens", spec->n_added);
    put_int(r, o, "special_tokens", special);
    put_text(r, o, "gguf_pre", spec->pre);
    put_bool(r, o, "nfc", spec->nfc);
    put_bool(r, o, "add_bos", spec->add_bos);
    put_bool(r, o, "has_chat_template", spec->chat_template != NULL);
}

/* Compiling it shows whether it is whole, and which chat template it carries. */
static marco_status put_tokenizer(report *r, model_source_file *file, marco_error *error)
{
    marco_tokenizer *compiled = NULL;
    tok_spec *spec = file->source.tokenizer;
    if (!spec) {
        put(r, r->root, "tokenizer", json_null());
        return MARCO_OK;
    }
    json_t *o = put_new(r, r->root, "tokenizer", json_object());
    put_spec(r, o, spec);
    file->source.tokenizer = NULL;
    marco_status status = tok_compile(spec, &compiled, error);
    if (status)
        return status;
    put_text(r, o, "chat_template", marco_tokenizer_chat_template(compiled));
    marco_tokenizer_close(compiled);
    return MARCO_OK;
}

/* ---- what was not used --------------------------------------------------------------------- */

static marco_status read_json(const char *folder, const char *name, json_t **out,
                              marco_error *error)
{
    char *path = base_path_join(folder, name);
    marco_status status = MARCO_OK;
    if (!path)
        status = base_fail_memory(error, strlen(folder), "a path");
    else if (base_exists(path))
        status = format_json_file(path, MODEL_CONFIG_LIMIT, out, error);
    base_free(path);
    return status;
}

static marco_status put_unused(report *r, const model_source_file *file, marco_error *error)
{
    json_t *keys = put_new(r, r->root, "unused_keys", json_array());
    json_t *ignored = put_new(r, r->root, "ignored_tensors", json_array());
    for (size_t i = 0; i < file->n_ignored; i++)
        append(r, ignored, json_string(file->ignored[i])); /* from JSON: UTF-8 */
    if (file->gguf) {
        r->failed |= !model_config_unused_gguf(file->gguf, keys);
        return MARCO_OK;
    }
    json_t *config = NULL, *generation = NULL;
    marco_status status = read_json(file->source.path, "config.json", &config, error);
    if (!status)
        status = read_json(file->source.path, "generation_config.json", &generation, error);
    if (!status)
        r->failed |= !model_config_unused_hf(config, generation, keys);
    json_decref(config);
    json_decref(generation);
    return status;
}

/* ---- all of it ----------------------------------------------------------------------------- */

static marco_status describe(report *r, model_source_file *file, marco_error *error)
{
    const model_config *c = &file->source.config;
    put_text(r, r->root, "name", c->name);
    put_text(r, r->root, "architecture", model_arch_name(c->arch));
    put_text(r, r->root, "hf_architecture", model_arch_hf_name(c->arch));
    put_text(r, r->root, "provenance", c->provenance);
    put_text(r, r->root, "format", file->gguf ? "GGUF" : "Hugging Face");
    if (file->gguf)
        put_int(r, r->root, "gguf_version", gguf_version(file->gguf));
    put_bytes(r, file);
    put_shape(r, c);
    put_rope(r, &c->rope);
    marco_status status = put_tokenizer(r, file, error);
    if (status)
        return status;
    put_generation(r, c);
    status = put_unused(r, file, error);
    put_types(r, &file->source);
    put_tensors(r, file);
    return status;
}

static int collect(const char *buffer, size_t size, void *data)
{
    base_text *text = data;
    base_text_add_n(text, buffer, size);
    return text->failed ? -1 : 0;
}

marco_status marco_inspect(const char *path, char **json, marco_error *error)
{
    model_source *source = NULL;
    base_text text = {0};
    if (json)
        *json = NULL;
    if (!path || !json)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "marco_inspect needs a path and a place for the result");
    report r = {json_object(), false};
    marco_status status = model_source_open(path, &source, error);
    if (!status)
        status = describe(&r, model_source_file_of(source), error);
    if (!status &&
        (r.failed || !r.root ||
         json_dump_callback(r.root, collect, &text, JSON_INDENT(2) | JSON_REAL_PRECISION(12)) != 0))
        status = base_fail_memory(error, text.size, "the description");
    char *out = status ? NULL : base_text_take(&text, NULL);
    if (!status && !out)
        status = base_fail_memory(error, text.size, "the description");
    base_text_free(&text);
    json_decref(r.root);
    model_source_close(source);
    if (!status)
        *json = out;
    return status;
}
