#include "train/ffn.h"

#include <string.h>

enum { BLOCK = 8192 /* numbers of a part */ };

typedef struct swiglu {
    const train_context *ctx;
    float *gate, *up, *h, *dh;
    int64_t n;
} swiglu;

static int64_t block_size(const swiglu *s, int64_t part)
{
    return train_span(s->n, part * BLOCK, BLOCK);
}

static void forward_part(void *user, int64_t part, int thread)
{
    (void)thread;
    const swiglu *s = user;
    int64_t at = part * BLOCK, n = block_size(s, part);
    memcpy(s->h + at, s->gate + at, (size_t)n * sizeof *s->h);
    s->ctx->kern->swiglu(s->h + at, s->up + at, n);
}

static void back_part(void *user, int64_t part, int thread)
{
    (void)thread;
    const swiglu *s = user;
    int64_t at = part * BLOCK;
    s->ctx->kern->swiglu_back(s->gate + at, s->up + at, s->dh + at, s->h + at, block_size(s, part));
}

static void run(base_task_fn fn, swiglu *s)
{
    base_pool_run(s->ctx->pool, fn, s, train_parts(s->n, BLOCK));
}

void train_ffn_save(const model_config *config, int64_t n_tokens, train_arena *arena,
                    train_ffn_saved *saved)
{
    saved->gate = train_arena_floats(arena, n_tokens * config->ffn_dim);
    saved->up = train_arena_floats(arena, n_tokens * config->ffn_dim);
}

void train_ffn_plan(const model_config *config, int64_t n_tokens, train_arena *arena,
                    train_ffn_work *work)
{
    work->n = train_arena_floats(arena, n_tokens * config->n_embd);
    work->dn = train_arena_floats(arena, n_tokens * config->n_embd);
    work->h = train_arena_floats(arena, n_tokens * config->ffn_dim);
    work->dh = train_arena_floats(arena, n_tokens * config->ffn_dim);
    work->partial = train_arena_floats(arena, train_norm_partial(n_tokens, config->n_embd));
}

void train_ffn(const train_context *ctx, int32_t layer, int64_t n_tokens, const float *x,
               const train_ffn_saved *saved, const train_ffn_work *work, float *out)
{
    const train_params *p = ctx->params;
    const model_config *config = &p->config;
    train_norm(ctx, train_params_find(p, MODEL_FFN_NORM, layer), x, n_tokens, work->n);
    train_linear(ctx, train_params_find(p, MODEL_FFN_GATE, layer), 0, work->n, n_tokens,
                 saved->gate, false);
    train_linear(ctx, train_params_find(p, MODEL_FFN_UP, layer), 0, work->n, n_tokens, saved->up,
                 false);
    swiglu s = {.ctx = ctx,
                .gate = saved->gate,
                .up = saved->up,
                .h = work->h,
                .n = n_tokens * config->ffn_dim};
    run(forward_part, &s);
    memcpy(out, x, (size_t)(n_tokens * config->n_embd) * sizeof *out);
    train_linear(ctx, train_params_find(p, MODEL_FFN_DOWN, layer), 0, work->h, n_tokens, out, true);
}

void train_ffn_back(const train_context *ctx, int32_t layer, int64_t n_tokens, const float *x,
                    const train_ffn_saved *saved, const train_ffn_work *work, float *d)
{
    const train_params *p = ctx->params;
    const train_param *norm = train_params_find(p, MODEL_FFN_NORM, layer);
    const train_param *down = train_params_find(p, MODEL_FFN_DOWN, layer);
    /* h comes out of the same loop that uses dh, so the two gradients of `down` are made apart. */
    train_linear_back(ctx, down, 0, NULL, d, n_tokens, work->dh, false);
    swiglu s = {.ctx = ctx,
                .gate = saved->gate,
                .up = saved->up,
                .h = work->h,
                .dh = work->dh,
                .n = n_tokens * p->config.ffn_dim};
    run(back_part, &s);
    train_linear_back(ctx, down, 0, work->h, d, n_tokens, NULL, false);
    train_norm(ctx, norm, x, n_tokens, work->n);
    train_linear_back(ctx, train_params_find(p, MODEL_FFN_GATE, layer), 0, work->n, saved->gate,
                      n_tokens, work->dn, false);
    train_linear_back(ctx, train_params_find(p, MODEL_FFN_UP, layer), 0, work->n, saved->up,
                      n_tokens, work->dn, true);
    train_norm_back(ctx, norm, x, work->dn, n_tokens, d, work->partial);
}
