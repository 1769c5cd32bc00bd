/* Chooses types and importance; the copying is model_copy's. */
#include <fnmatch.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "format/imatrix.h"
#include "model/recipe.h"
#include "model/source.h"

enum { PATTERN_LIMIT = 256 };
/* Of the mean importance, what every column has at least: a column that the calibration text left
 * silent may speak in another. */
#define IMPORTANCE_FLOOR 1e-3

typedef struct quantizer {
    model_source *source;
    const marco_quantize_params *params;
    const model_recipe *recipe;
    tensor_type *types;       /* [n_tensors] */
    imatrix matrix;           /* its sums become the importance */
    const float **importance; /* [n_tensors]; NULL without a matrix */
    marco_quantize_stats stats;
} quantizer;

/* ---- types --------------------------------------------------------------------------------- */

/* "PATTERN=TYPE" in its parts. */
static marco_status parse_override(const char *text, char pattern[PATTERN_LIMIT], tensor_type *type,
                                   marco_error *error)
{
    const char *equals = strrchr(text, '=');
    size_t size = equals ? (size_t)(equals - text) : 0;
    if (size == 0 || size >= PATTERN_LIMIT)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "\"%.80s\" is not PATTERN=TYPE, such as \"blk.0.*=Q8_0\"", text);
    int parsed = tensor_type_parse(equals + 1);
    if (parsed < 0 || !tensor_traits_of((uint32_t)parsed)->encode)
        return base_fail(
            error, MARCO_ERROR_ARGUMENT,
            "\"%.80s\": %.40s is no type that can be written; choose Q8_0, Q6_K, Q5_K, "
            "Q5_1, Q5_0, Q4_K, Q4_1, Q4_0, IQ4_NL, IQ4_XS, BF16, F16 or F32",
            text, equals + 1);
    memcpy(pattern, text, size);
    pattern[size] = '\0';
    *type = (tensor_type)parsed;
    return MARCO_OK;
}

static marco_status override_types(quantizer *q, const char *text, marco_error *error)
{
    char pattern[PATTERN_LIMIT], name[128];
    tensor_type type = TENSOR_F32;
    size_t matches = 0, floats = 0;
    marco_status status = parse_override(text, pattern, &type, error);
    if (status)
        return status;
    for (size_t i = 0; i < q->source->n_tensors; i++) {
        const model_tensor *t = &q->source->tensors[i];
        model_tensor_gguf_name(t, name);
        if (fnmatch(pattern, name, 0) != 0)
            continue;
        matches++;
        floats += model_role_is_float(t->role);
        q->types[i] = type;
    }
    if (matches == 0)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "\"%.80s\" matches no tensor of %s (marco inspect lists their names)",
                         text, q->source->path);
    if (matches == floats)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "\"%.80s\" matches only norms and routers, which stay F32", text);
    return MARCO_OK;
}

/* Error added to error is only worth it where someone says so. */
static marco_status check_source(const quantizer *q, const model_tensor *t, tensor_type to,
                                 marco_error *error)
{
    char name[128];
    bool good = tensor_traits_of(t->type)->block == 1 || t->type == TENSOR_Q8_0 || t->type == to;
    if (good || q->params->requantize)
        return MARCO_OK;
    model_tensor_gguf_name(t, name);
    return base_fail(error, MARCO_ERROR_ARGUMENT,
                     "%s: %s is %s already, and what quantising that lost stays lost; start from "
                     "the original or from Q8_0, or insist with --requantize",
                     q->source->path, name, tensor_type_name(t->type));
}

static marco_status choose_types(quantizer *q, marco_error *error)
{
    const model_source *source = q->source;
    marco_status status = MARCO_OK;
    size_t n = source->n_tensors;
    q->types = base_alloc_array(n, sizeof *q->types);
    if (!q->types)
        return base_fail_memory(error, n * sizeof *q->types, "the list of tensors");
    for (size_t i = 0; i < n; i++)
        q->types[i] = model_recipe_type(q->recipe, &source->config, &source->tensors[i],
                                        q->params->imatrix != NULL);
    for (size_t i = 0; !status && i < q->params->n_tensors; i++)
        status = override_types(q, q->params->tensors[i], error);
    for (size_t i = 0; !status && i < n; i++) {
        const model_tensor *t = &source->tensors[i];
        if (model_role_is_float(t->role))
            continue;
        tensor_type wanted = q->types[i];
        q->types[i] = model_type_for_rows(wanted, t->cols);
        q->stats.n_fallbacks += q->types[i] != wanted;
        status = check_source(q, t, q->types[i], error);
    }
    return status;
}

static void count(quantizer *q)
{
    for (size_t i = 0; i < q->source->n_tensors; i++) {
        const model_tensor *t = &q->source->tensors[i];
        bool matrix = !model_role_is_float(t->role);
        tensor_type to = matrix ? q->types[i] : TENSOR_F32;
        q->stats.bytes_before += model_tensor_bytes(t);
        q->stats.bytes_after += (uint64_t)(t->mats * t->rows) * tensor_row_bytes(to, t->cols);
        q->stats.n_weights += (uint64_t)(t->mats * t->rows * t->cols);
        q->stats.n_matrices += matrix;
        q->stats.n_unimportant += matrix && !(q->importance && q->importance[i]);
    }
}

/* ---- importance ---------------------------------------------------------------------------- */

/* Means with a mean of 1 over the columns of each matrix. */
static void normalise(float *values, int64_t mats, int64_t cols)
{
    for (int64_t mat = 0; mat < mats; mat++, values += cols) {
        double total = 0;
        for (int64_t i = 0; i < cols; i++)
            total += (double)values[i];
        double scale = total > 0 ? (double)cols / total : 0;
        for (int64_t i = 0; i < cols; i++)
            values[i] = (float)(scale * (double)values[i] + IMPORTANCE_FLOOR);
    }
}

/* Index of the tensor of that name, n_tensors where there is none. */
static size_t find_tensor(const model_source *source, const char *wanted)
{
    char name[128];
    size_t i = 0;
    for (; i < source->n_tensors; i++) {
        model_tensor_gguf_name(&source->tensors[i], name);
        if (strcmp(name, wanted) == 0)
            break;
    }
    return i;
}

static marco_status use_entry(quantizer *q, imatrix_entry *entry, marco_error *error)
{
    const char *path = q->params->imatrix;
    size_t i = find_tensor(q->source, entry->name);
    if (i == q->source->n_tensors)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%s: %s has no tensor %.120s: the importance matrix is another model's",
                         path, q->source->path, entry->name);
    const model_tensor *t = &q->source->tensors[i];
    if (entry->n_values != t->mats * t->cols || (entry->n_mats != 1 && entry->n_mats != t->mats))
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%s: %.120s has %lld values for %lld columns in %s: the importance matrix "
                         "is another model's",
                         path, entry->name, (long long)entry->n_values,
                         (long long)(t->mats * t->cols), q->source->path);
    imatrix_means(entry, entry->sums);
    normalise(entry->sums, t->mats, t->cols);
    q->importance[i] = entry->sums;
    return MARCO_OK;
}

static marco_status read_importance(quantizer *q, marco_error *error)
{
    if (!q->params->imatrix)
        return MARCO_OK;
    marco_status status = imatrix_read(q->params->imatrix, &q->matrix, error);
    if (status)
        return status;
    q->importance = base_calloc(q->source->n_tensors, sizeof *q->importance);
    if (!q->importance)
        return base_fail_memory(error, q->source->n_tensors * sizeof *q->importance,
                                "the list of tensors");
    for (size_t i = 0; !status && i < q->matrix.n; i++)
        status = use_entry(q, &q->matrix.entries[i], error);
    return status;
}

/* -------------------------------------------------------------------------------------------- */

marco_quantize_params marco_quantize_params_default(void)
{
    return (marco_quantize_params){0};
}

static marco_status check_params(const char *to, const marco_quantize_params *params,
                                 const model_recipe **recipe, marco_error *error)
{
    if (!params->type)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "quantising needs a type: %s",
                         model_recipe_names());
    *recipe = model_recipe_find(params->type);
    if (!*recipe)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "unknown type \"%.40s\"; choose %s",
                         params->type, model_recipe_names());
    if (!model_copy_to_gguf(to))
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%s: only GGUF files hold quantised weights; choose a name that ends in "
                         ".gguf",
                         to);
    return MARCO_OK;
}

marco_status marco_quantize(const char *from, const char *to, const marco_quantize_params *params,
                            marco_quantize_stats *stats, marco_error *error)
{
    quantizer q = {.params = params};
    if (!from || !to || !to[0] || !params)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "quantize needs a checkpoint and an output");
    marco_status status = check_params(to, params, &q.recipe, error);
    if (!status)
        status = model_source_open(from, &q.source, error);
    if (!status)
        status = choose_types(&q, error);
    if (!status)
        status = read_importance(&q, error);
    if (!status) {
        count(&q);
        const model_copy_params copy = {
            .type = q.recipe->type,
            .types = q.types,
            .importance = q.importance,
            .overwrite = params->overwrite,
            .threads = params->threads,
            .progress = params->progress,
            .what = "quantising",
        };
        status = model_copy(q.source, to, &copy, error);
    }
    if (!status && stats)
        *stats = q.stats;
    base_free(q.importance);
    imatrix_clear(&q.matrix);
    base_free(q.types);
    model_source_close(q.source);
    return status;
}
