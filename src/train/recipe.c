#include "train/recipe.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "train/json.h"
#include "train/recipe_table.h"
#include "train/source.h"

/* The largest recipe that is read. */
enum { RECIPE_LIMIT = 16 << 20 };

/* ---- what was given, by whole keys --------------------------------------------------------- */

const char *recipe_origin(const recipe_given *g, const char *key)
{
    return json_object_get(g->set, key) ? "--set" : g->file;
}

static marco_status fail_unknown(const char *file, const char *key, marco_error *error)
{
    const char *nearest = recipe_nearest(key);
    return base_fail(error, MARCO_ERROR_FORMAT, "%s: there is no setting \"%.200s\"%s%s%s", file,
                     key, nearest ? "; the nearest is \"" : "; docs/training.md lists them all",
                     nearest ? nearest : "", nearest ? "\"" : "");
}

static marco_status put_value(recipe_given *g, const char *key, json_t *value, bool override,
                              marco_error *error)
{
    if (!override && json_object_get(g->values, key))
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: \"%s\" is given twice", g->file, key);
    bool fine = !override || json_object_set_new(g->set, key, json_true()) == 0;
    if (json_is_null(value)) /* the default */
        json_object_del(g->values, key);
    else
        fine = fine && json_object_set(g->values, key, value) == 0;
    return fine ? MARCO_OK : base_fail_memory(error, strlen(key), "a recipe");
}

/* Puts a value under its key, an object's under theirs. */
static marco_status flatten(recipe_given *g, const char *key, json_t *value, bool override,
                            marco_error *error)
{
    const char *name = override ? "--set" : g->file;
    const char *inner;
    json_t *item;
    if (!json_is_object(value) || (*key && !recipe_is_section(key))) {
        if (recipe_find(key))
            return put_value(g, key, value, override, error);
        if (recipe_is_section(key))
            return base_fail(error, MARCO_ERROR_FORMAT, "%s: \"%s\" is %s where an object belongs",
                             name, key, format_json_kind(value));
        return fail_unknown(name, key, error);
    }
    marco_status status = MARCO_OK;
    json_object_foreach(value, inner, item)
    {
        char whole[256];
        int n = snprintf(whole, sizeof(whole), "%s%s%s", key, *key ? "." : "", inner);
        if (n < 0 || (size_t)n >= sizeof(whole))
            return fail_unknown(name, inner, error);
        status = flatten(g, whole, item, override, error);
        if (status)
            return status;
    }
    return status;
}

/* A checkpoint's path instead of a shape, or a shape instead of a path. */
static void forget_model(recipe_given *g, const char *key, const json_t *value)
{
    const char *other;
    void *next;
    json_t *item;
    if (strncmp(key, "model.", 6) == 0 || (strcmp(key, "model") == 0 && json_is_object(value)))
        json_object_del(g->values, "model");
    else if (strcmp(key, "model") == 0)
        json_object_foreach_safe(g->values, next, other, item)
        {
            if (strncmp(other, "model.", 6) == 0)
                json_object_del(g->values, other);
        }
}

/* "key.key=value"; the value is JSON, or else text. */
static marco_status override(recipe_given *g, const char *text, marco_error *error)
{
    const char *equals = strchr(text, '=');
    if (!equals || equals == text)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "--set '%.200s': give a key, an equals sign and a value, as in steps=100",
                         text);
    char *key = base_strndup(text, (size_t)(equals - text));
    json_t *value = NULL;
    marco_error problem;
    if (format_json_text("--set", equals + 1, strlen(equals + 1), &value, &problem) ==
        MARCO_ERROR_FORMAT)
        value = json_string(equals + 1);
    marco_status status = MARCO_OK;
    if (!key)
        status = base_fail_memory(error, strlen(text), "a recipe");
    else if (!value)
        status =
            base_fail(error, MARCO_ERROR_ARGUMENT, "--set '%.200s': the value is not UTF-8", text);
    else {
        forget_model(g, key, value);
        status = flatten(g, key, value, true, error);
    }
    json_decref(value);
    base_free(key);
    return status;
}

/* ---- paths --------------------------------------------------------------------------------- */

/* `path`, from `folder` where it is relative; NULL when out of memory. */
static char *absolute(const char *folder, const char *path)
{
    while (strncmp(path, "./", 2) == 0)
        path += 2;
    return path[0] == '/' ? base_strdup(path) : base_path_join(folder, path);
}

static marco_status real_path(const char *path, char **out, marco_error *error)
{
    char real[PATH_MAX];
    if (!realpath(path, real))
        return base_fail_errno(error, errno, "cannot find the folder", path);
    *out = base_strdup(real);
    return *out ? MARCO_OK : base_fail_memory(error, strlen(path), path);
}

/* The folder a recipe's relative paths begin in. */
static marco_status folder_of(const char *file, char **out, marco_error *error)
{
    const char *slash = file ? strrchr(file, '/') : NULL;
    if (!slash)
        return real_path(".", out, error);
    char *folder = base_strndup(file, slash == file ? 1 : (size_t)(slash - file));
    if (!folder)
        return base_fail_memory(error, strlen(file), file);
    marco_status status = real_path(folder, out, error);
    base_free(folder);
    return status;
}

/* A path among the values, made absolute: typed ones begin in the current folder, as shells
 * complete them. */
static marco_status read_path(const train_recipe *r, const recipe_given *g, const char *key,
                              const json_t *value, char **out, marco_error *error)
{
    const char *path = json_string_value(value);
    if (!path || !path[0] || strlen(path) != json_string_length(value))
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: \"%s\" must be a path",
                         recipe_origin(g, key), key);
    char *here = NULL;
    marco_status status = MARCO_OK;
    if (json_object_get(g->set, key) && path[0] != '/')
        status = real_path(".", &here, error);
    if (!status) {
        *out = absolute(here ? here : r->folder, path);
        if (!*out)
            status = base_fail_memory(error, strlen(path), "a path");
    }
    base_free(here);
    return status;
}

/* ---- reading ------------------------------------------------------------------------------- */

static marco_status read_name(const recipe_given *g, const setting *s, const json_t *value,
                              int32_t *out, marco_error *error)
{
    const char *text = json_string_value(value);
    base_text list = {0};
    for (const setting_name *n = s->names; n->name; n++) {
        if (text && strcmp(text, n->name) == 0) {
            *out = n->value;
            base_text_free(&list);
            return MARCO_OK;
        }
        base_text_printf(&list, "%s%s", list.size ? ", " : "", n->name);
    }
    marco_status status = base_fail(
        error, MARCO_ERROR_FORMAT, "%s: \"%s\" is %s%.60s%s; choose one of %s",
        recipe_origin(g, s->key), s->key, text ? "\"" : "", text ? text : format_json_kind(value),
        text ? "\"" : "", list.failed ? "those in docs/training.md" : list.data);
    base_text_free(&list);
    return status;
}

static marco_status read_setting(train_recipe *r, const recipe_given *g, const setting *s,
                                 marco_error *error)
{
    const char *name = recipe_origin(g, s->key);
    void *at = (char *)r + s->offset;
    json_t *value = json_object_get(g->values, s->key);
    int64_t number = 0;
    int32_t chosen = 0;
    marco_status status = MARCO_OK;
    if (!value)
        return s->required
                   ? base_fail(error, MARCO_ERROR_FORMAT, "%s: \"%s\" is missing", g->file, s->key)
                   : MARCO_OK;
    switch (s->kind) {
    case SETTING_INT32:
    case SETTING_INT64:
        status = format_json_int(name, g->values, s->key, (int64_t)s->low, (int64_t)s->high,
                                 &number, error);
        if (!status && s->kind == SETTING_INT32)
            *(int32_t *)at = (int32_t)number;
        else if (!status)
            *(int64_t *)at = number;
        return status;
    case SETTING_REAL:
        return format_json_real(name, g->values, s->key, s->low, s->high, at, error);
    case SETTING_BOOL:
        return format_json_bool(name, g->values, s->key, at, error);
    case SETTING_CHOICE:
    case SETTING_SWITCH:
        status = read_name(g, s, value, &chosen, error);
        if (!status && s->kind == SETTING_SWITCH)
            *(bool *)at = chosen != 0;
        else if (!status)
            memcpy(at, &chosen, sizeof(chosen));
        return status;
    case SETTING_PATTERNS:
    case SETTING_OTHER:
        break;
    }
    return status;
}

static marco_status read_table(train_recipe *r, const recipe_given *g, const setting *table,
                               marco_error *error)
{
    marco_status status = MARCO_OK;
    for (const setting *s = table; !status && s->key; s++)
        status = read_setting(r, g, s, error);
    return status;
}

/* Strings as they are given: train_params_load knows the words among them. Borrowed from the
 * recipe's json. */
static marco_status read_patterns(const recipe_given *g, const char *key, const char *const **out,
                                  size_t *n, marco_error *error)
{
    const json_t *array = json_object_get(g->values, key);
    size_t count = json_array_size(array);
    if (array && !json_is_array(array))
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: \"%s\" is %s where an array of strings belongs",
                         recipe_origin(g, key), key, format_json_kind(array));
    const char **list = base_calloc(count + 1, sizeof(*list));
    if (!list)
        return base_fail_memory(error, count * sizeof(*list), "a recipe");
    *out = list;
    *n = count;
    for (size_t i = 0; i < count; i++) {
        list[i] = json_string_value(json_array_get(array, i));
        if (!list[i] || !list[i][0])
            return base_fail(error, MARCO_ERROR_FORMAT,
                             "%s: \"%s\": entry %zu is no pattern; write names of tensors, as "
                             "\"blk.0.*\", or router, experts, attention, norms, embeddings",
                             recipe_origin(g, key), key, i + 1);
    }
    return MARCO_OK;
}

/* A source is a path, or an object with one and a weight. */
static marco_status read_source(train_recipe *r, const recipe_given *g, const json_t *item,
                                size_t i, marco_error *error)
{
    static const char key[] = "data.sources";
    const char *name = recipe_origin(g, key), *inner;
    const json_t *path = item;
    json_t *value;
    char *whole = NULL;
    double weight = 1;
    if (json_is_object(item)) {
        path = json_object_get(item, "path");
        json_object_foreach((json_t *)item, inner, value)
        {
            if (strcmp(inner, "path") != 0 && strcmp(inner, "weight") != 0)
                return base_fail(
                    error, MARCO_ERROR_FORMAT,
                    "%s: \"%s\": entry %zu has an unknown setting \"%.100s\"; there are "
                    "path and weight",
                    name, key, i + 1, inner);
        }
        marco_status status = format_json_real(name, item, "weight", 1e-9, 1e9, &weight, error);
        if (status)
            return status;
    }
    marco_status status = read_path(r, g, key, path, &whole, error);
    if (!status) {
        r->sources[i] = (data_source){.path = whole, .weight = weight};
        r->n_sources = i + 1;
    }
    return status;
}

static marco_status read_sources(train_recipe *r, const recipe_given *g, marco_error *error)
{
    const json_t *array = json_object_get(g->values, "data.sources");
    size_t n = json_array_size(array);
    if (array && !json_is_array(array))
        return base_fail(
            error, MARCO_ERROR_FORMAT,
            "%s: \"data.sources\" is %s where an array of folders belongs, as [\"data/en\"]",
            recipe_origin(g, "data.sources"), format_json_kind(array));
    if (n == 0)
        return base_fail(
            error, MARCO_ERROR_FORMAT,
            "%s: \"data.sources\" is missing or empty; name the folders that marco data wrote, as "
            "[{\"path\": \"data/en\", \"weight\": 1}]",
            recipe_origin(g, "data.sources"));
    r->sources = base_calloc(n, sizeof(*r->sources));
    if (!r->sources)
        return base_fail_memory(error, n * sizeof(*r->sources), "a recipe");
    marco_status status = MARCO_OK;
    for (size_t i = 0; !status && i < n; i++)
        status = read_source(r, g, json_array_get(array, i), i, error);
    return status;
}

/* What only one kind of model has. */
static marco_status check_kind(const train_recipe *r, const recipe_given *g, marco_error *error)
{
    const model_config *c = &r->random;
    if (c->arch == MODEL_QWEN3MOE) {
        if (c->n_experts < 1 || c->n_experts_used < 1 || c->expert_dim < 1)
            return base_fail(
                error, MARCO_ERROR_FORMAT,
                "%s: a qwen3moe model needs \"model.experts\", \"model.experts_used\" and "
                "\"model.expert_dim\"",
                g->file);
        if (c->n_experts_used > c->n_experts)
            return base_fail(
                error, MARCO_ERROR_FORMAT,
                "%s: \"model.experts_used\" is %d, more than the %d of \"model.experts\"",
                recipe_origin(g, "model.experts_used"), c->n_experts_used, c->n_experts);
        return MARCO_OK;
    }
    if (c->ffn_dim < 1)
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: a dense model needs \"model.ffn_dim\"",
                         g->file);
    if (c->n_experts || c->n_experts_used || c->expert_dim)
        return base_fail(
            error, MARCO_ERROR_FORMAT,
            "%s: a model of architecture \"%s\" has no experts; leave \"model.experts\", "
            "\"model.experts_used\" and \"model.expert_dim\" out, or choose \"qwen3moe\"",
            g->file, model_arch_name(c->arch));
    return MARCO_OK;
}

static marco_status read_random(train_recipe *r, const recipe_given *g, marco_error *error)
{
    model_config *c = &r->random;
    marco_status status = read_table(r, g, recipe_model_settings, error);
    if (!status)
        status = read_path(r, g, "model.tokenizer", json_object_get(g->values, "model.tokenizer"),
                           &r->tokenizer, error);
    if (!status)
        status = check_kind(r, g, error);
    if (status)
        return status;
    if (c->n_kv_heads == 0)
        c->n_kv_heads = c->n_heads;
    if (c->head_dim == 0 && c->n_embd % c->n_heads)
        return base_fail(
            error, MARCO_ERROR_FORMAT,
            "%s: \"model.heads\" %d does not divide \"model.dim\" %d; give \"model.head_dim\"",
            recipe_origin(g, "model.heads"), c->n_heads, c->n_embd);
    if (c->head_dim == 0)
        c->head_dim = c->n_embd / c->n_heads;
    if (c->n_ctx_train == 0)
        c->n_ctx_train = r->seq_len;
    for (int32_t i = 0; i < c->n_layers; i++)
        c->layer_sparse[i] = c->arch == MODEL_QWEN3MOE;
    c->qk_norm = c->arch != MODEL_LLAMA;
    return MARCO_OK;
}

/* "model" is a path, or an object whose settings were put under keys of their own. */
static marco_status read_model(train_recipe *r, const recipe_given *g, marco_error *error)
{
    const json_t *model = json_object_get(g->values, "model");
    const char *key;
    json_t *value;
    bool random = false;
    json_object_foreach(g->values, key, value) random = random || strncmp(key, "model.", 6) == 0;
    if (model && random)
        return base_fail(
            error, MARCO_ERROR_FORMAT,
            "%s: \"model\" is a checkpoint's path, which leaves nothing to \"model.*\"; "
            "give one or the other",
            recipe_origin(g, "model"));
    if (random)
        return read_random(r, g, error);
    if (!model)
        return base_fail(
            error, MARCO_ERROR_FORMAT,
            "%s: \"model\" is missing; give the checkpoint to begin from, or an object "
            "with the shape of a new one",
            g->file);
    return read_path(r, g, "model", model, &r->model, error);
}

/* Dropout stays as it is unless it is to end at another rate. */
static void follow_rate(train_recipe *r, const recipe_given *g)
{
    if (!json_object_get(g->values, "dropout.end_rate"))
        r->drop_end = r->drop_rate;
}

/* What one setting says about another. */
static marco_status relate(train_recipe *r, const recipe_given *g, marco_error *error)
{
    train_schedule *s = &r->schedule;
    if (s->min_lr > s->lr)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: \"optimizer.min_lr\" is %g, more than \"optimizer.lr\", %g",
                         recipe_origin(g, "optimizer.min_lr"), s->min_lr, s->lr);
    if (s->warmup > r->steps || (s->kind == TRAIN_WSD && s->decay > r->steps - s->warmup))
        return base_fail(
            error, MARCO_ERROR_FORMAT,
            "%s: warm-up of %lld and decay of %lld steps are more than \"steps\", %lld", g->file,
            (long long)s->warmup, (long long)(s->kind == TRAIN_WSD ? s->decay : 0),
            (long long)r->steps);
    if (r->chat && r->attend_across)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: \"data.attend_across\" is for data of the kind \"text\"",
                         recipe_origin(g, "data.attend_across"));
    if (r->batch * r->seq_len > INT32_MAX)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: \"batch\" x \"seq_len\" are %lld tokens a step, more than 2^31",
                         g->file, (long long)(r->batch * r->seq_len));
    s->steps = r->steps;
    follow_rate(r, g); /* which may have been taken back */
    if (!json_object_get(g->values, "dropout.end_step"))
        r->drop_steps = r->drop_end == r->drop_rate ? 0 : r->steps;
    r->choice.seed = (uint64_t)r->seed;
    return MARCO_OK;
}

/* ---- the complete recipe ------------------------------------------------------------------- */

static const char *name_of(const setting *s, int32_t value)
{
    const setting_name *n = s->names;
    while (n->name && n->value != value)
        n++;
    return n->name;
}

static json_t *sources_json(const train_recipe *r)
{
    json_t *array = json_array();
    for (size_t i = 0; array && i < r->n_sources; i++) {
        json_t *item =
            json_pack("{s:s, s:f}", "path", r->sources[i].path, "weight", r->sources[i].weight);
        if (!item || json_array_append_new(array, item) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

/* The value of a setting; NULL when out of memory. */
static json_t *setting_json(const train_recipe *r, const recipe_given *g, const setting *s)
{
    const void *at = (const char *)r + s->offset;
    json_t *array;
    int32_t chosen;
    switch (s->kind) {
    case SETTING_INT32:
        return json_integer(*(const int32_t *)at);
    case SETTING_INT64:
        return json_integer(*(const int64_t *)at);
    case SETTING_REAL:
        return json_real(*(const double *)at);
    case SETTING_BOOL:
        return json_boolean(*(const bool *)at);
    case SETTING_SWITCH:
        return json_string(name_of(s, *(const bool *)at));
    case SETTING_CHOICE:
        memcpy(&chosen, at, sizeof(chosen));
        return json_string(name_of(s, chosen));
    case SETTING_PATTERNS:
        array = json_object_get(g->values, s->key);
        return array ? json_incref(array) : json_array();
    case SETTING_OTHER:
        break;
    }
    if (strcmp(s->key, "data.sources") == 0)
        return sources_json(r);
    return json_string(strcmp(s->key, "model") == 0 ? r->model : r->tokenizer);
}

/* Puts a value where its key says, "a.b" into the object "a". Takes the value. */
static bool nest(json_t *object, const char *key, json_t *value)
{
    const char *dot = strchr(key, '.');
    if (!value || !dot)
        return value && json_object_set_new(object, key, value) == 0;
    char section[32];
    snprintf(section, sizeof(section), "%.*s", (int)(dot - key), key);
    json_t *inner = json_object_get(object, section);
    if (!inner && (json_object_set_new(object, section, json_object()) != 0 ||
                   !(inner = json_object_get(object, section)))) {
        json_decref(value);
        return false;
    }
    return json_object_set_new(inner, dot + 1, value) == 0;
}

static marco_status complete(train_recipe *r, const recipe_given *g, marco_error *error)
{
    r->json = json_object();
    bool fine = r->json != NULL;
    for (const setting *s = recipe_model_settings; fine && !r->model && s->key; s++)
        fine = nest(r->json, s->key, setting_json(r, g, s));
    for (const setting *s = recipe_settings; fine && s->key; s++)
        if (strcmp(s->key, "model") != 0 || r->model)
            fine = nest(r->json, s->key, setting_json(r, g, s));
    return fine ? MARCO_OK : base_fail_memory(error, 0, "a recipe");
}

/* ---- the interface ------------------------------------------------------------------------- */

static marco_status collect(recipe_given *g, const char *file, const char *const *set, size_t n_set,
                            marco_error *error)
{
    json_t *json = NULL;
    marco_status status = MARCO_OK;
    g->values = json_object();
    g->set = json_object();
    if (!g->values || !g->set)
        return base_fail_memory(error, 0, "a recipe");
    if (file)
        status = format_json_file(file, RECIPE_LIMIT, &json, error);
    if (!status && json && !json_is_object(json))
        status = base_fail(error, MARCO_ERROR_FORMAT, "%s: %s, not the object that a recipe is",
                           file, format_json_kind(json));
    if (!status && json)
        status = flatten(g, "", json, false, error);
    for (size_t i = 0; !status && i < n_set; i++)
        status = override(g, set[i], error);
    json_decref(json);
    return status;
}

static marco_status read_all(train_recipe *r, const recipe_given *g, const char *file,
                             marco_error *error)
{
    marco_status status = MARCO_OK;
    r->file = base_strdup(g->file);
    if (!r->file)
        return base_fail_memory(error, strlen(g->file), "a recipe");
    recipe_defaults(r);
    status = folder_of(file, &r->folder, error);
    if (!status)
        status = read_table(r, g, recipe_settings, error);
    if (!status)
        status = read_model(r, g, error);
    if (!status)
        status = read_sources(r, g, error);
    follow_rate(r, g);
    if (!status)
        status = recipe_check_effects(r, g, error);
    if (!status)
        status = relate(r, g, error);
    if (!status)
        status = complete(r, g, error);
    /* Their strings live in the complete recipe, which shares these arrays. */
    if (!status)
        status = read_patterns(g, "train", &r->choice.train, &r->choice.n_train, error);
    if (!status)
        status = read_patterns(g, "freeze", &r->choice.freeze, &r->choice.n_freeze, error);
    return status;
}

marco_status train_recipe_read(const char *file, const char *const *set, size_t n_set,
                               train_recipe **out, marco_error *error)
{
    recipe_given g = {.file = file ? file : "--set"};
    train_recipe *r = base_calloc(1, sizeof(*r));
    if (!r)
        return base_fail_memory(error, sizeof(*r), "a recipe");
    marco_status status = collect(&g, file, set, n_set, error);
    if (!status)
        status = read_all(r, &g, file, error);
    json_decref(g.values);
    json_decref(g.set);
    if (status) {
        train_recipe_free(r);
        return status;
    }
    *out = r;
    return MARCO_OK;
}

void train_recipe_free(train_recipe *recipe)
{
    if (!recipe)
        return;
    for (size_t i = 0; i < recipe->n_sources; i++)
        base_free((void *)recipe->sources[i].path);
    base_free(recipe->sources);
    base_free((void *)recipe->choice.train);
    base_free((void *)recipe->choice.freeze);
    base_free(recipe->file);
    base_free(recipe->folder);
    base_free(recipe->model);
    base_free(recipe->tokenizer);
    json_decref(recipe->json);
    base_free(recipe);
}

char *train_recipe_text(const train_recipe *recipe)
{
    return train_json_text(recipe->json);
}

/* ---- going on ------------------------------------------------------------------------------ */

/* The value under "a.b", borrowed, or NULL. */
static const json_t *value_at(const json_t *json, const char *key)
{
    const char *dot = strchr(key, '.');
    char section[32];
    if (!dot)
        return json_object_get(json, key);
    snprintf(section, sizeof(section), "%.*s", (int)(dot - key), key);
    return json_object_get(json_object_get(json, section), dot + 1);
}

/* Data may have moved: the loader knows them by what they hold. */
static bool same_sources(const json_t *a, const json_t *b)
{
    bool same = json_array_size(a) == json_array_size(b);
    for (size_t i = 0; same && i < json_array_size(a); i++)
        same = json_number_value(json_object_get(json_array_get(a, i), "weight")) ==
               json_number_value(json_object_get(json_array_get(b, i), "weight"));
    return same;
}

/* The values of a key in two recipes. A run goes on from its checkpoint: where it began may be
 * elsewhere or gone. A dropout that ends with the run, as it does unless the recipe says otherwise,
 * ends with the longer one. */
static bool same_value(const setting *s, const json_t *one, const json_t *other)
{
    const json_t *a = value_at(one, s->key), *b = value_at(other, s->key);
    if (strcmp(s->key, "data.sources") == 0)
        return same_sources(a, b);
    /* Of two shapes, the settings are compared one by one. */
    if (strcmp(s->key, "model") == 0 || strcmp(s->key, "model.tokenizer") == 0)
        return json_is_string(a) == json_is_string(b);
    if (strcmp(s->key, "dropout.end_step") == 0 && a && b &&
        json_equal((json_t *)a, (json_t *)json_object_get(one, "steps")) &&
        json_equal((json_t *)b, (json_t *)json_object_get(other, "steps")))
        return true;
    if (json_is_number(a) && json_is_number(b))
        return json_number_value(a) == json_number_value(b);
    return a == b || (a && b && json_equal((json_t *)a, (json_t *)b));
}

static void describe(const json_t *value, char out[160])
{
    char *text = value ? train_json_text(value) : NULL;
    snprintf(out, 160, "%.150s", text ? text : "not set");
    out[strcspn(out, "\n")] = '\0';
    base_free(text);
}

static marco_status compare(const train_recipe *recipe, const json_t *earlier, const char *file,
                            const setting *table, marco_error *error)
{
    for (const setting *s = table; s->key; s++) {
        const json_t *now = value_at(recipe->json, s->key), *then = value_at(earlier, s->key);
        if (s->may_differ || same_value(s, recipe->json, earlier))
            continue;
        char now_text[160], then_text[160];
        describe(now, now_text);
        describe(then, then_text);
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%s: the run was begun with \"%s\" %s, and this recipe has %s; train into "
                         "another folder, or begin anew with --restart",
                         file, s->key, then_text, now_text);
    }
    return MARCO_OK;
}

marco_status train_recipe_goes_on(const train_recipe *recipe, const char *earlier, bool *moved,
                                  marco_error *error)
{
    json_t *json = NULL;
    *moved = false;
    marco_status status = format_json_file(earlier, RECIPE_LIMIT, &json, error);
    if (!status)
        status = compare(recipe, json, earlier, recipe_model_settings, error);
    if (!status)
        status = compare(recipe, json, earlier, recipe_settings, error);
    if (!status)
        *moved = recipe->model && !json_equal((json_t *)value_at(recipe->json, "model"),
                                              (json_t *)value_at(json, "model"));
    json_decref(json);
    return status;
}

marco_status train_recipe_source(const train_recipe *recipe, model_source **out, marco_error *error)
{
    if (recipe->model)
        return model_source_open(recipe->model, out, error);
    return train_random_source(&recipe->random, recipe->random_std, (uint64_t)recipe->seed,
                               recipe->tokenizer, out, error);
}
