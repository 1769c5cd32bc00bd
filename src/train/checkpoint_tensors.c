/* Parameters and their optimiser's state as tensors in files, tensor by tensor. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "train/checkpoint_internal.h"

/* Elements that travel at once. */
enum { CHUNK = 1 << 20 };
#define SHARD_BYTES UINT64_C(5000000000)

/* ---- what is where ------------------------------------------------------------------------- */

static const char *const prefixes[] = {
    [TRAIN_PART_VALUE] = "",         [TRAIN_PART_M] = "exp_avg.", [TRAIN_PART_V] = "exp_avg_sq.",
    [TRAIN_PART_MASTER] = "master.", [TRAIN_PART_BASE] = "base.",
};

const char *train_file_stem(train_file file)
{
    static const char *const stems[] = {"model", "optimizer", "adapters"};
    return stems[file];
}

static bool has_part(const train_params *params, const train_param *p, train_file file,
                     train_part part)
{
    if (part == TRAIN_PART_VALUE)
        return file == (p->adapter ? TRAIN_FILE_ADAPTERS : TRAIN_FILE_MODEL);
    if (file != TRAIN_FILE_OPTIMIZER)
        return false;
    if (part == TRAIN_PART_BASE)
        return p->state == TRAIN_ADAPTED;
    return p->state == TRAIN_TRAINED && (part != TRAIN_PART_MASTER || params->type != TENSOR_F32);
}

bool train_file_needed(const train_params *params, train_file file)
{
    for (size_t i = 0; i < params->n; i++)
        for (train_part part = TRAIN_PART_VALUE; part <= TRAIN_PART_BASE; part++)
            if (has_part(params, &params->items[i], file, part))
                return true;
    return false;
}

static tensor_type part_type(const train_params *params, train_part part)
{
    return part == TRAIN_PART_VALUE ? params->type : TENSOR_F32;
}

/* This process's numbers at an element of a section, which it must hold. */
static void *locate(const train_params *params, const train_optimizer *optimizer, train_section s,
                    train_part part, int64_t at)
{
    const train_values *values = &params->sections[s];
    const struct train_shard *shard = &optimizer->shards[s];
    switch (part) {
    case TRAIN_PART_VALUE:
        return (char *)values->value + (size_t)at * tensor_row_bytes(params->type, 1);
    case TRAIN_PART_M:
        return shard->m + (at - shard->begin);
    case TRAIN_PART_V:
        return shard->v + (at - shard->begin);
    case TRAIN_PART_MASTER:
        return shard->master + (at - shard->begin);
    case TRAIN_PART_BASE:
        break;
    }
    return params->base[s] + (at - values->trained);
}

/* ---- names --------------------------------------------------------------------------------- */

/* Hugging Face's name of a matrix; `mat` -1: of all experts' in one, without their number. */
static void matrix_name(const train_params *params, const train_param *p, int64_t mat,
                        char out[256])
{
    static const char experts[] = ".experts.", weight[] = ".weight";
    char name[128];
    model_tensor_hf_name(&params->config, &p->tensor, mat < 0 ? 0 : mat, name);
    char *number = strstr(name, experts);
    if (mat < 0 && number) {
        number += strlen(experts);
        char *after = strchr(number, '.') + 1;
        memmove(number, after, strlen(after) + 1);
    }
    size_t n = strlen(name);
    if (p->adapter)
        snprintf(out, 256, "%.*s.lora_%c%s", (int)(n - strlen(weight)), name,
                 p->adapter == TRAIN_ADAPTER_A ? 'A' : 'B', weight);
    else
        snprintf(out, 256, "%s", name);
}

/* A tensor of a file: a parameter's part, of one matrix or (mat -1) of all. */
typedef struct entry {
    char name[300];
    tensor_type type;
    int n_dims;
    int64_t dims[3];
} entry;

static entry make_entry(const train_params *params, const train_param *p, train_part part,
                        int64_t mat)
{
    entry e = {.type = part_type(params, part)};
    char name[256];
    matrix_name(params, p, mat, name);
    snprintf(e.name, sizeof(e.name), "%s%s%s", prefixes[part],
             p->adapter && part == TRAIN_PART_VALUE ? "base_model.model." : "", name);
    if (mat < 0 && p->section == TRAIN_OWN_EXPERTS)
        e.dims[e.n_dims++] = p->tensor.mats;
    if (p->adapter || !model_role_is_vector(p->tensor.role))
        e.dims[e.n_dims++] = p->tensor.rows;
    e.dims[e.n_dims++] = p->tensor.cols;
    return e;
}

/* ---- every tensor of a file, in order ------------------------------------------------------ */

typedef struct place {
    const train_param *param;
    train_part part;
    int64_t mat0, mats; /* the matrices in it, of the whole model's */
    int64_t mat;        /* for the name: the matrix, or -1 */
} place;

typedef marco_status (*place_fn)(void *user, const place *at, marco_error *error);

static marco_status each_tensor(const train_params *params, train_file file, place_fn fn,
                                void *user, marco_error *error)
{
    bool whole = file == TRAIN_FILE_OPTIMIZER;
    marco_status status = MARCO_OK;
    for (size_t i = 0; i < params->n; i++) {
        const train_param *p = &params->items[i];
        for (train_part part = TRAIN_PART_VALUE; part <= TRAIN_PART_BASE; part++) {
            if (!has_part(params, p, file, part))
                continue;
            int64_t mats = p->tensor.mats;
            for (int64_t mat = 0; !status && mat < (whole ? 1 : mats); mat++) {
                const place at = {p, part, mat, whole ? mats : 1, whole ? -1 : mat};
                status = fn(user, &at, error);
            }
        }
    }
    return status;
}

/* ---- writing ------------------------------------------------------------------------------- */

typedef struct saver {
    const train_context *ctx;
    const train_optimizer *optimizer;
    safetensors_writer *writer; /* rank 0's */
    const char *folder;
    void *buffer;        /* [CHUNK] elements */
    marco_status failed; /* rank 0 cannot write: it goes on taking what it is sent */
    marco_error problem;
} saver;

static marco_status describe(void *user, const place *at, marco_error *error)
{
    const saver *s = user;
    (void)error;
    entry e = make_entry(s->ctx->params, at->param, at->part, at->mat);
    safetensors_put_tensor(s->writer, e.name, e.type, e.n_dims, e.dims);
    return MARCO_OK;
}

/* Who holds an element of this section and part, and up to which element: every process comes to
 * the same answer. */
static int owner_of(const train_context *ctx, const train_param *p, train_part part, int64_t mat,
                    int64_t at, int64_t *end)
{
    const train_comm *comm = ctx->comm;
    bool own = p->section == TRAIN_OWN_EXPERTS;
    int64_t column = own ? mat / p->mats : 0; /* rank in TRAIN_EXPERTS */
    *end = INT64_MAX;
    if (part == TRAIN_PART_VALUE || part == TRAIN_PART_BASE)
        return (int)column;
    int sharers = comm->size[train_section_group(p->section)];
    int64_t share = ctx->params->sections[p->section].trained / sharers;
    int64_t rank = at / share;
    *end = (rank + 1) * share;
    return (int)(own ? rank * comm->size[TRAIN_EXPERTS] + column : rank);
}

static marco_status check_finite(const saver *s, const place *at, const void *data, int64_t n,
                                 marco_error *error)
{
    bool finite = true;
    if (part_type(s->ctx->params, at->part) == TENSOR_F32)
        for (int64_t i = 0; i < n; i++)
            finite = finite && isfinite(((const float *)data)[i]);
    else
        for (int64_t i = 0; i < n; i++)
            finite = finite && (((const uint16_t *)data)[i] & 0x7F80) != 0x7F80;
    return finite
               ? MARCO_OK
               : base_fail(
                     error, MARCO_ERROR_NUMERIC,
                     "%s holds numbers that are not finite: the checkpoint is not written, those "
                     "before it are as they were; the same command with a smaller optimizer.lr "
                     "goes on from the last",
                     at->param->name);
}

static void put(saver *s, const place *at, const void *data, int64_t n)
{
    if (s->ctx->comm->rank[TRAIN_WORLD] != 0 || s->failed)
        return;
    s->failed = check_finite(s, at, data, n, &s->problem);
    if (!s->failed)
        s->failed = safetensors_writer_data(
            s->writer, data, (size_t)n * tensor_row_bytes(part_type(s->ctx->params, at->part), 1),
            &s->problem);
}

/* Elements `at` .. `at + n - 1` of a section that one process holds: to rank 0, and to the file. */
static marco_status send(saver *s, const place *where, int owner, int64_t at, int64_t n,
                         marco_error *error)
{
    train_comm *comm = s->ctx->comm;
    const train_params *params = s->ctx->params;
    size_t bytes = (size_t)n * tensor_row_bytes(part_type(params, where->part), 1);
    void *data = NULL;
    marco_status status = MARCO_OK;
    if (comm->rank[TRAIN_WORLD] == owner)
        data = locate(params, s->optimizer, where->param->section, where->part, at);
    if (owner != 0) {
        if (data)
            memcpy(s->buffer, data, bytes);
        status = comm->ops->broadcast(comm, TRAIN_WORLD, owner, s->buffer, bytes, error);
        data = s->buffer;
    }
    if (!status)
        put(s, where, data, n);
    return status;
}

static marco_status save(void *user, const place *where, marco_error *error)
{
    saver *s = user;
    const train_param *p = where->param;
    int64_t matrix = train_param_matrix(p);
    marco_status status = MARCO_OK;
    for (int64_t mat = where->mat0; mat < where->mat0 + where->mats; mat++) {
        int64_t at = p->offset + mat % p->mats * matrix, to = at + matrix;
        while (!status && at < to) {
            int64_t end;
            int owner = owner_of(s->ctx, p, where->part, mat, at, &end);
            end = end < to ? end : to;
            end = end - at < CHUNK ? end : at + CHUNK;
            status = send(s, where, owner, at, end - at, error);
            at = end;
        }
    }
    if (status) /* a process is lost: nobody can be told */
        return status;
    /* A full disk ends it for all, before they have sent the rest. */
    if (s->failed && error)
        *error = s->problem;
    return train_comm_settle(s->ctx->comm, s->failed, error);
}

marco_status train_tensors_write(const train_context *ctx, const train_optimizer *optimizer,
                                 train_file file, const char *folder, marco_error *error)
{
    saver s = {.ctx = ctx, .optimizer = optimizer, .folder = folder};
    marco_status status = MARCO_OK;
    s.buffer = base_alloc_aligned(CHUNK * sizeof(float));
    if (!s.buffer)
        status = base_fail_memory(error, CHUNK * sizeof(float), "writing a checkpoint");
    if (!status && ctx->comm->rank[TRAIN_WORLD] == 0) {
        status = safetensors_writer_create_named(folder, train_file_stem(file), SHARD_BYTES,
                                                 &s.writer, error);
        if (!status)
            each_tensor(ctx->params, file, describe, &s, error);
        if (!status)
            status = safetensors_writer_begin(s.writer, error);
    }
    status = train_comm_settle(ctx->comm, status, error);
    if (!status)
        status = each_tensor(ctx->params, file, save, &s, error);
    if (!status) {
        if (s.writer)
            status = safetensors_writer_commit(s.writer, error);
        s.writer = NULL;
        status = train_comm_settle(ctx->comm, status, error);
    }
    safetensors_writer_abort(s.writer);
    base_free(s.buffer);
    return status;
}

/* ---- reading ------------------------------------------------------------------------------- */

typedef struct restorer {
    const train_context *ctx;
    train_optimizer *optimizer;
    safetensors *tensors;
} restorer;

/* The tensor, checked to be what this model's parameter needs. */
static marco_status find(const restorer *r, const place *where, const safetensors_tensor **out,
                         marco_error *error)
{
    entry e = make_entry(r->ctx->params, where->param, where->part, where->mat);
    const safetensors_tensor *t = safetensors_find(r->tensors, e.name);
    if (!t)
        return base_fail(
            error, MARCO_ERROR_FORMAT,
            "%s: the tensor %s is missing; remove this checkpoint to go on from the one before",
            safetensors_count(r->tensors) ? safetensors_at(r->tensors, 0)->file->path
                                          : "a checkpoint",
            e.name);
    bool same = t->type == e.type && t->n_dims == e.n_dims;
    for (int d = 0; same && d < e.n_dims; d++)
        same = t->dims[d] == e.dims[d];
    if (!same)
        return base_fail(
            error, MARCO_ERROR_FORMAT,
            "%s: the tensor %s has another shape or type than this recipe's; the checkpoint is of "
            "another run",
            t->file->path, e.name);
    *out = t;
    return MARCO_OK;
}

/* The elements of the section that this process holds. */
static void held(const restorer *r, const place *where, int64_t *begin, int64_t *end)
{
    const struct train_shard *shard = &r->optimizer->shards[where->param->section];
    bool whole = where->part == TRAIN_PART_VALUE || where->part == TRAIN_PART_BASE;
    *begin = whole ? 0 : shard->begin;
    *end = whole ? INT64_MAX : shard->begin + shard->size;
}

static marco_status restore(void *user, const place *where, marco_error *error)
{
    restorer *r = user;
    const train_param *p = where->param;
    const train_params *params = r->ctx->params;
    const safetensors_tensor *t = NULL;
    int64_t matrix = train_param_matrix(p), begin, end;
    held(r, where, &begin, &end);
    marco_status status = find(r, where, &t, error);
    /* The matrices that are in this tensor and held here, as elements of the section. */
    int64_t first = where->mat0 > p->mat0 ? where->mat0 : p->mat0;
    int64_t last = where->mat0 + where->mats, here = p->mat0 + p->mats;
    last = last < here ? last : here;
    int64_t from = p->offset + (first - p->mat0) * matrix;
    int64_t to = p->offset + (last - p->mat0) * matrix;
    from = from > begin ? from : begin;
    to = to < end ? to : end;
    if (status || first >= last || from >= to)
        return status;
    size_t element = tensor_row_bytes(t->type, 1);
    int64_t skipped = (p->mat0 - where->mat0) * matrix + (from - p->offset);
    return base_file_read(t->file, t->offset + (uint64_t)skipped * element,
                          locate(params, r->optimizer, p->section, where->part, from),
                          (size_t)(to - from) * element, error);
}

marco_status train_tensors_read(const train_context *ctx, train_optimizer *optimizer,
                                train_file file, const char *folder, marco_error *error)
{
    restorer r = {.ctx = ctx, .optimizer = optimizer};
    marco_status status = safetensors_open_named(folder, train_file_stem(file), &r.tensors, error);
    if (!status)
        status = each_tensor(ctx->params, file, restore, &r, error);
    safetensors_close(r.tensors);
    return status;
}
