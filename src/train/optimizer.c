#include "train/optimizer.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

/* Elements that one part of the work has: their four arrays stay in the second cache from the
 * update to the zeroing. */
enum { STRETCH = 16384 };

/* Neighbouring elements that are treated alike. */
typedef struct train_stretch {
    train_section section;
    int64_t begin, n; /* in the section */
    bool ours;        /* this process updates them; else their gradients are zeroed only */
    bool decayed;
} stretch;

static bool keeps_master(const train_params *params)
{
    return params->type != TENSOR_F32;
}

static void *at(const train_params *params, train_section s, int64_t element)
{
    size_t bytes = tensor_row_bytes(params->type, 1);
    uint8_t *value = params->sections[s].value;
    return value ? value + (size_t)element * bytes : NULL;
}

/* ---- the work ------------------------------------------------------------------------------ */

/* Counts only where `to` is NULL. */
static void cut(stretch *to, size_t *n, stretch whole)
{
    for (int64_t at = 0; at < whole.n; at += STRETCH) {
        if (to) {
            to[*n] = whole;
            to[*n].begin += at;
            to[*n].n = whole.n - at < STRETCH ? whole.n - at : STRETCH;
        }
        ++*n;
    }
}

static void plan_section(const train_optimizer *o, const train_params *params, train_section s,
                         stretch *to, size_t *n)
{
    const struct train_shard *shard = &o->shards[s];
    int64_t end = shard->begin + shard->size, graded = params->sections[s].graded;
    cut(to, n, (stretch){.section = s, .begin = 0, .n = shard->begin});
    for (size_t i = 0; i < params->n; i++) {
        const train_param *param = &params->items[i];
        if (param->section != s || param->state != TRAIN_TRAINED)
            continue;
        int64_t from = param->offset, to_end = from + train_param_size(param);
        from = from > shard->begin ? from : shard->begin;
        to_end = to_end < end ? to_end : end;
        if (from < to_end)
            cut(to, n,
                (stretch){.section = s,
                          .begin = from,
                          .n = to_end - from,
                          .ours = true,
                          .decayed = param->decayed});
    }
    cut(to, n, (stretch){.section = s, .begin = end, .n = graded - end});
}

static size_t plan(const train_optimizer *o, const train_params *params, stretch *to)
{
    size_t n = 0;
    for (train_section s = TRAIN_SHARED; s < TRAIN_SECTION_END; s++)
        plan_section(o, params, s, to, &n);
    return n;
}

/* ---- creation ------------------------------------------------------------------------------ */

static bool take_shard(struct train_shard *shard, bool master)
{
    size_t bytes = (size_t)shard->size * sizeof(float);
    return bytes == 0 ||
           ((shard->m = base_region_alloc(bytes)) && (shard->v = base_region_alloc(bytes)) &&
            (!master || (shard->master = base_region_alloc(bytes))));
}

static void place(const train_params *params, const train_comm *comm, train_section s,
                  struct train_shard *shard)
{
    train_group group = train_section_group(s);
    shard->size = params->sections[s].trained / comm->size[group];
    shard->begin = shard->size * comm->rank[group];
}

uint64_t train_optimizer_bytes(const train_params *params, const train_comm *comm)
{
    uint64_t floats = 0;
    for (train_section s = TRAIN_SHARED; s < TRAIN_SECTION_END; s++) {
        struct train_shard shard;
        place(params, comm, s, &shard);
        floats += (uint64_t)shard.size * (keeps_master(params) ? 3 : 2);
    }
    return floats * sizeof(float);
}

marco_status train_optimizer_create(const train_context *ctx, const train_optimizer_params *params,
                                    train_optimizer **out, marco_error *error)
{
    *out = NULL;
    const train_params *model = ctx->params;
    marco_status status = MARCO_OK;
    train_optimizer *o = base_calloc(1, sizeof *o);
    if (!o)
        return base_fail_memory(error, sizeof *o, "the optimizer");
    o->params = *params;
    for (train_section s = TRAIN_SHARED; s < TRAIN_SECTION_END; s++) {
        struct train_shard *shard = &o->shards[s];
        place(model, ctx->comm, s, shard);
        if (!take_shard(shard, keeps_master(model))) {
            status = base_fail_memory(error, train_optimizer_bytes(model, ctx->comm),
                                      "the optimizer's moments");
            goto done;
        }
        if (shard->master)
            tensor_traits_of(model->type)
                ->decode(at(model, s, shard->begin), shard->master, shard->size);
    }
    o->n_stretches = plan(o, model, NULL);
    o->stretches = base_alloc_array(o->n_stretches, sizeof *o->stretches);
    o->squares = base_alloc_array(o->n_stretches, sizeof *o->squares);
    if (!o->stretches || !o->squares) {
        status = base_fail_memory(error, o->n_stretches * sizeof *o->stretches, "the optimizer");
        goto done;
    }
    plan(o, model, o->stretches);
    *out = o;
done:
    if (status)
        train_optimizer_free(o);
    return status;
}

static bool is_ours(void *user, const train_param *param)
{
    const train_optimizer *o = user;
    const struct train_shard *shard = &o->shards[param->section];
    return param->state == TRAIN_TRAINED && param->offset < shard->begin + shard->size &&
           param->offset + train_param_size(param) > shard->begin;
}

static void put_master(void *user, const train_param *param, int64_t at, const float *x, int64_t n)
{
    const train_optimizer *o = user;
    const struct train_shard *shard = &o->shards[param->section];
    int64_t first = param->offset + at - shard->begin; /* in the shard */
    int64_t from = first < 0 ? -first : 0;
    int64_t to = shard->size - first < n ? shard->size - first : n;
    if (from < to)
        memcpy(shard->master + first + from, x + from, (size_t)(to - from) * sizeof *x);
}

marco_status train_optimizer_begin(train_optimizer *o, const train_context *ctx,
                                   model_source *source, uint64_t seed, marco_error *error)
{
    const train_reader to = {.user = o, .wants = is_ours, .put = put_master};
    if (!keeps_master(ctx->params))
        return MARCO_OK;
    return train_params_read(ctx->params, source, seed, &to, error);
}

void train_optimizer_free(train_optimizer *o)
{
    if (!o)
        return;
    for (train_section s = TRAIN_SHARED; s < TRAIN_SECTION_END; s++) {
        size_t bytes = (size_t)o->shards[s].size * sizeof(float);
        base_region_free(o->shards[s].m, bytes);
        base_region_free(o->shards[s].v, bytes);
        base_region_free(o->shards[s].master, bytes);
    }
    base_free(o->stretches);
    base_free(o->squares);
    base_free(o);
}

/* ---- a step -------------------------------------------------------------------------------- */

typedef struct update {
    const train_optimizer *o;
    const train_context *ctx;
    bool skipped;
    kern_adamw adamw; /* all but decay */
} update;

static void square(void *user, int64_t part, int thread)
{
    (void)thread;
    const update *u = user;
    const stretch *st = &u->o->stretches[part];
    const float *grad = u->ctx->params->sections[st->section].grad + st->begin;
    u->o->squares[part] = st->ours ? u->ctx->kern->dot(grad, grad, st->n) : 0;
}

/* Over all processes: every trained element is in one process's shard. */
static marco_status norm(const update *u, double *out, marco_error *error)
{
    const train_optimizer *o = u->o;
    base_pool_run(u->ctx->pool, square, (void *)u, (int64_t)o->n_stretches);
    double sum = 0;
    for (size_t i = 0; i < o->n_stretches; i++)
        sum += o->squares[i];
    train_comm *comm = u->ctx->comm;
    marco_status status = comm->ops->all_reduce_f64(comm, TRAIN_WORLD, &sum, 1, error);
    *out = sqrt(sum);
    return status;
}

static void renew(const update *u, const stretch *st, const float *grad)
{
    const train_params *params = u->ctx->params;
    const struct train_shard *shard = &u->o->shards[st->section];
    int64_t i = st->begin - shard->begin;
    void *value = at(params, st->section, st->begin);
    float *w = shard->master ? shard->master + i : value;
    kern_adamw adamw = u->adamw;
    adamw.decay = st->decayed ? (float)u->o->params.weight_decay : 0;
    u->ctx->kern->adamw(w, shard->m + i, shard->v + i, grad, st->n, &adamw);
    if (shard->master)
        tensor_traits_of(params->type)->encode(w, value, st->n);
}

static void update_stretch(void *user, int64_t part, int thread)
{
    (void)thread;
    const update *u = user;
    const stretch *st = &u->o->stretches[part];
    float *grad = u->ctx->params->sections[st->section].grad + st->begin;
    if (st->ours && !u->skipped)
        renew(u, st, grad);
    memset(grad, 0, (size_t)st->n * sizeof *grad);
}

static bool is_outlier(const train_optimizer *o, double norm)
{
    return o->params.skip > 0 && o->norm_count >= TRAIN_NORMS_LEAST &&
           norm > o->params.skip * o->norm_mean;
}

/* An outlier counts as the largest norm that is none: alone it hardly moves the mean, but norms
 * that have risen for good are let through after some steps. */
static void remember(train_optimizer *o, double norm, bool outlier)
{
    if (outlier)
        norm = o->params.skip * o->norm_mean;
    o->norm_count++;
    int64_t back = o->norm_count < TRAIN_NORMS_MOST ? o->norm_count : TRAIN_NORMS_MOST;
    o->norm_mean += (norm - o->norm_mean) / (double)back;
}

static void prepare(train_optimizer *o, double lr, double norm, kern_adamw *adamw)
{
    const train_optimizer_params *p = &o->params;
    double step = (double)++o->step;
    *adamw = (kern_adamw){
        .lr = (float)lr,
        .beta1 = (float)p->beta1,
        .beta2 = (float)p->beta2,
        .rest1 = (float)(1 - p->beta1),
        .rest2 = (float)(1 - p->beta2),
        .eps = (float)p->eps,
        .grad_scale = p->clip > 0 && norm > p->clip ? (float)(p->clip / norm) : 1,
        .correct1 = (float)(1 - pow(p->beta1, step)),
        .correct2 = (float)(1 - pow(p->beta2, step)),
    };
}

static marco_status gather_values(const train_optimizer *o, const train_context *ctx,
                                  marco_error *error)
{
    marco_status status = MARCO_OK;
    for (train_section s = TRAIN_SHARED; s < TRAIN_SECTION_END && !status; s++) {
        size_t bytes = tensor_row_bytes(ctx->params->type, o->shards[s].size);
        status = ctx->comm->ops->all_gather(ctx->comm, train_section_group(s),
                                            at(ctx->params, s, 0), bytes, error);
    }
    return status;
}

marco_status train_optimizer_step(train_optimizer *o, const train_context *ctx, double lr,
                                  train_step_result *result, marco_error *error)
{
    train_comm *comm = ctx->comm;
    update u = {.o = o, .ctx = ctx};
    double size;
    train_lora_back(ctx);
    for (train_section s = TRAIN_SHARED; s < TRAIN_SECTION_END; s++) {
        const train_values *values = &ctx->params->sections[s];
        marco_status status = comm->ops->reduce_scatter_f32(comm, train_section_group(s),
                                                            values->grad, values->trained, error);
        if (status)
            return status;
    }
    marco_status status = norm(&u, &size, error);
    if (status)
        return status;
    *result = (train_step_result){.norm = size, .finite = isfinite(size)};
    bool outlier = result->finite && is_outlier(o, size);
    u.skipped = result->skipped = !result->finite || outlier;
    if (result->finite)
        remember(o, size, outlier);
    if (!u.skipped)
        prepare(o, lr, size, &u.adamw);
    base_pool_run(ctx->pool, update_stretch, &u, (int64_t)o->n_stretches);
    if (u.skipped)
        return MARCO_OK;
    if ((status = gather_values(o, ctx, error)))
        return status;
    train_lora_apply(ctx);
    return MARCO_OK;
}
