/* Grouped-query attention with per-head QK-norm and RoPE.
 *
 *   q = rope(norm(Wq x)),  k = rope(norm(Wk x)),  v = Wv x
 *   out = Wo softmax(q k^T / sqrt(D)) v
 *
 * Keys and values, the current tokens' among them, are always read back from the cache, a page at
 * a time and in order, so that a token's result does not depend on how its prompt was cut. */
#include <math.h>
#include <string.h>

#include "model/context.h"
#include "model/rope.h"

typedef struct attention_task {
    model_context *ctx;
    model_kv *kv;
    int64_t layer, n, position;
} attention_task;

static void store(const attention_task *t, void *page, int64_t slot, const float *x)
{
    int64_t dim = t->kv->dim;
    if (t->kv->f32)
        memcpy((float *)page + slot * dim, x, (size_t)dim * sizeof *x);
    else
        t->ctx->kernels->f32_to_f16(x, (uint16_t *)page + slot * dim, dim);
}

/* Norm and rotate one token's heads; keys and values go to the cache. */
static void prepare_token(void *user, int64_t i, int thread)
{
    (void)thread;
    attention_task *t = user;
    model_context *ctx = t->ctx;
    const kern_table *kern = ctx->kernels;
    const model_config *c = &ctx->weights->config;
    const model_layer *layer = &ctx->weights->layers[t->layer];
    int64_t dim = c->head_dim, position = t->position + i;
    float eps = (float)c->rms_eps, scale = 1.0f / sqrtf((float)dim);
    const float *cosine = ctx->cosine + i * (dim / 2), *sine = ctx->sine + i * (dim / 2);

    for (int64_t h = 0; h < c->n_heads; h++) {
        float *q = ctx->q + (i * c->n_heads + h) * dim;
        if (c->qk_norm)
            kern->rmsnorm(q, layer->q_norm, q, dim, eps);
        kern->rope(q, cosine, sine, dim);
        for (int64_t d = 0; d < dim; d++)
            q[d] *= scale;
    }
    int64_t page = position / MODEL_KV_PAGE, slot = position % MODEL_KV_PAGE;
    for (int64_t g = 0; g < c->n_kv_heads; g++) {
        float *k = ctx->k + (i * c->n_kv_heads + g) * dim;
        if (c->qk_norm)
            kern->rmsnorm(k, layer->k_norm, k, dim, eps);
        kern->rope(k, cosine, sine, dim);
        store(t, model_kv_keys(t->kv, page, t->layer, g), slot, k);
        store(t, model_kv_values(t->kv, page, t->layer, g), slot,
              ctx->v + (i * c->n_kv_heads + g) * dim);
    }
}

/* One KV head and up to MODEL_BLOCK_TOKENS tokens: every page is read (and widened) once for all of
 * the group's query heads. */
static void attend_block(void *user, int64_t part, int thread)
{
    attention_task *t = user;
    model_context *ctx = t->ctx;
    const model_config *c = &ctx->weights->config;
    int64_t dim = c->head_dim, group = c->n_heads / c->n_kv_heads;
    int64_t kv_head = part % c->n_kv_heads;
    int64_t first = part / c->n_kv_heads * MODEL_BLOCK_TOKENS;
    int64_t n = t->n - first < MODEL_BLOCK_TOKENS ? t->n - first : MODEL_BLOCK_TOKENS;
    float *wide = ctx->scratch + (size_t)thread * ctx->scratch_stride;
    float *scores = wide + 2 * MODEL_KV_PAGE * dim;
    float *max = scores + MODEL_KV_PAGE, *sum = max + MODEL_BLOCK_TOKENS * group;

    for (int64_t j = 0; j < n * group; j++) {
        max[j] = -INFINITY;
        sum[j] = 0;
    }
    for (int64_t i = 0; i < n; i++)
        memset(ctx->attended + ((first + i) * c->n_heads + kv_head * group) * dim, 0,
               (size_t)(group * dim) * sizeof(float));

    int64_t end = t->position + first + n; /* positions seen by the last token */
    for (int64_t start = 0; start < end; start += MODEL_KV_PAGE) {
        int64_t page = start / MODEL_KV_PAGE;
        const float *k = model_kv_keys(t->kv, page, t->layer, kv_head);
        const float *v = model_kv_values(t->kv, page, t->layer, kv_head);
        if (!t->kv->f32) {
            int64_t rows = end - start < MODEL_KV_PAGE ? end - start : MODEL_KV_PAGE;
            ctx->kernels->f16_to_f32((const uint16_t *)(const void *)k, wide, rows * dim);
            ctx->kernels->f16_to_f32((const uint16_t *)(const void *)v, wide + MODEL_KV_PAGE * dim,
                                     rows * dim);
            k = wide;
            v = wide + MODEL_KV_PAGE * dim;
        }
        for (int64_t i = 0; i < n; i++) {
            int64_t visible = t->position + first + i + 1 - start;
            if (visible <= 0)
                continue;
            visible = visible < MODEL_KV_PAGE ? visible : MODEL_KV_PAGE;
            for (int64_t h = 0; h < group; h++) {
                int64_t head = (first + i) * c->n_heads + kv_head * group + h;
                ctx->kernels->attend(ctx->q + head * dim, k, v, visible, dim, dim,
                                     &max[i * group + h], &sum[i * group + h],
                                     ctx->attended + head * dim, scores);
            }
        }
    }
    for (int64_t j = 0; j < n * group; j++) {
        int64_t head = (first + j / group) * c->n_heads + kv_head * group + j % group;
        for (int64_t d = 0; d < dim; d++)
            ctx->attended[head * dim + d] /= sum[j];
    }
}

void model_attention(model_context *ctx, model_kv *kv, int64_t index, int64_t n, int64_t position)
{
    const model_config *c = &ctx->weights->config;
    const model_layer *layer = &ctx->weights->layers[index];
    int64_t q_dim = (int64_t)c->n_heads * c->head_dim,
            kv_dim = (int64_t)c->n_kv_heads * c->head_dim;
    attention_task task = {ctx, kv, index, n, position};

    model_rows x = {ctx->normed, NULL};
    if (model_wants_q8(ctx, &layer->q) || model_wants_q8(ctx, &layer->k) ||
        model_wants_q8(ctx, &layer->v)) {
        model_quantize(ctx, ctx->normed, ctx->q8, n, c->n_embd);
        x.q8 = ctx->q8;
    }
    ctx->products[0] =
        (model_product){.w = &layer->q, .x = x, .n = n, .out = ctx->q, .stride = q_dim};
    ctx->products[1] =
        (model_product){.w = &layer->k, .x = x, .n = n, .out = ctx->k, .stride = kv_dim};
    ctx->products[2] =
        (model_product){.w = &layer->v, .x = x, .n = n, .out = ctx->v, .stride = kv_dim};
    model_multiply(ctx, 3);

    base_pool_run(ctx->pool, prepare_token, &task, n);
    base_pool_run(ctx->pool, attend_block, &task,
                  c->n_kv_heads * ((n + MODEL_BLOCK_TOKENS - 1) / MODEL_BLOCK_TOKENS));

    model_rows attended = {ctx->attended, NULL};
    if (model_wants_q8(ctx, &layer->out)) {
        model_quantize(ctx, ctx->attended, ctx->q8, n, q_dim);
        attended.q8 = ctx->q8;
    }
    ctx->products[0] = (model_product){
        .w = &layer->out, .x = attended, .n = n, .out = ctx->projected, .stride = c->n_embd};
    model_multiply(ctx, 1);
}
