/* Adapters (LoRA, arXiv 2106.09685) as another way to write the weights they adapt:
 *   W = base + s B A   so   dA = s B^T dW,  dB = s dW A^T,   s = alpha / rank. */
#include <string.h>

#include "train/context.h"

typedef struct adapting {
    const train_context *ctx;
    const train_param *param;
} adapting;

static float *base_of(const train_params *params, const train_param *param, int64_t mat)
{
    int64_t trained = params->sections[param->section].trained;
    return params->base[param->section] + (param->offset - trained) +
           mat * train_param_matrix(param);
}

static void apply_matrix(void *user, int64_t mat, int thread)
{
    const adapting *a = user;
    const train_context *ctx = a->ctx;
    train_params *params = ctx->params;
    const train_param *p = a->param, *pa = &params->items[p->lora_a],
                      *pb = &params->items[p->lora_b];
    int64_t rows = p->tensor.rows, cols = p->tensor.cols, rank = pa->tensor.rows;
    const float *base = base_of(params, p, mat);
    uint8_t *value = params->sections[p->section].value;
    float *scratch = ctx->scratch[thread];
    const float *wa = train_weight(params, pa, mat, 0, rank, scratch);
    for (int64_t row = 0; row < rows; row++) {
        float *wb_room = scratch + rank * cols, *out = wb_room + rank;
        const float *wb = train_weight(params, pb, mat, row, 1, wb_room);
        memcpy(out, base + row * cols, (size_t)cols * sizeof *out);
        for (int64_t r = 0; r < rank; r++)
            ctx->kern->axpy((float)params->lora_scale * wb[r], wa + r * cols, out, cols);
        int64_t at = p->offset + (mat * rows + row) * cols;
        const tensor_traits *traits = tensor_traits_of(params->type);
        traits->encode(out, value + (size_t)at * (size_t)traits->block_bytes, cols);
    }
}

static void back_matrix(void *user, int64_t mat, int thread)
{
    const adapting *a = user;
    const train_context *ctx = a->ctx;
    train_params *params = ctx->params;
    const train_param *p = a->param, *pa = &params->items[p->lora_a],
                      *pb = &params->items[p->lora_b];
    int64_t rows = p->tensor.rows, cols = p->tensor.cols, rank = pa->tensor.rows;
    float scale = (float)params->lora_scale, *scratch = ctx->scratch[thread];
    float *dw = train_grad(params, p, mat);
    const float *wa = train_weight(params, pa, mat, 0, rank, scratch);
    const float *wb = train_weight(params, pb, mat, 0, rows, scratch + rank * cols);
    train_gemm(ctx->blas, true, false, rank, cols, rows, scale, wb, rank, dw, cols, 1,
               train_grad(params, pa, mat), cols);
    train_gemm(ctx->blas, false, true, rows, rank, cols, scale, dw, cols, wa, cols, 1,
               train_grad(params, pb, mat), rank);
    memset(dw, 0, (size_t)(rows * cols) * sizeof *dw);
}

static void each_adapted(const train_context *ctx, base_task_fn fn)
{
    for (size_t i = 0; i < ctx->params->n; i++)
        if (ctx->params->items[i].state == TRAIN_ADAPTED) {
            adapting a = {.ctx = ctx, .param = &ctx->params->items[i]};
            base_pool_run(ctx->pool, fn, &a, a.param->mats);
        }
}

void train_lora_apply(const train_context *ctx)
{
    each_adapted(ctx, apply_matrix);
}

void train_lora_back(const train_context *ctx)
{
    each_adapted(ctx, back_matrix);
}

int64_t train_lora_scratch(const train_params *params)
{
    int64_t most = 0;
    for (size_t i = 0; i < params->n; i++) {
        const train_param *p = &params->items[i];
        if (p->state != TRAIN_ADAPTED)
            continue;
        int64_t rank = params->items[p->lora_a].tensor.rows;
        int64_t need = rank * (p->tensor.cols + p->tensor.rows + 1) + p->tensor.cols;
        most = need > most ? need : most;
    }
    return most;
}
