/* A model whose weights are random numbers of a given type, for tests that write checkpoints. */
#ifndef MEMORY_SOURCE_H
#define MEMORY_SOURCE_H

#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "model/source.h"

typedef struct memory_source {
    model_source source;
    model_tensor tensors[256];
} memory_source;

/* Element `at` of matrix `mat`: in [-1, 1), and all different enough to tell tensors apart. */
static inline float memory_value(const model_tensor *t, int64_t mat, int64_t at)
{
    uint64_t stream = (uint64_t)(t->layer + 1) * 64 + (uint64_t)t->role;
    return (float)(2 * base_random_unit(9 + (uint64_t)mat, stream, (uint64_t)at) - 1);
}

static inline marco_status memory_read(model_source *source, size_t index, int64_t mat, int64_t row,
                                       int64_t n, void *dst, marco_error *error)
{
    const model_tensor *t = &source->tensors[index];
    (void)error;
    for (int64_t i = 0; i < n * t->cols; i++) {
        float value = memory_value(t, mat, row * t->cols + i);
        if (t->type == TENSOR_F32)
            ((float *)dst)[i] = value;
        else
            ((uint16_t *)dst)[i] =
                t->type == TENSOR_BF16 ? tensor_f32_to_bf16(value) : tensor_f32_to_f16(value);
    }
    return MARCO_OK;
}

static inline void memory_close(model_source *source)
{
    tok_spec_free(source->tokenizer);
    free(source->path);
    free(source);
}

/* NULL where the configuration has more tensors than fit. */
static inline model_source *memory_source_create(const model_config *config, tensor_type type,
                                                 bool tokenizer)
{
    memory_source *m = calloc(1, sizeof(*m));
    size_t n = model_config_tensors(config, m->tensors, 256);
    m->source = (model_source){
        .path = strdup("memory"),
        .config = *config,
        .tensors = m->tensors,
        .n_tensors = n,
        .read = memory_read,
        .close = memory_close,
    };
    for (size_t i = 0; i < n && i < 256; i++)
        m->tensors[i].type = type;
    if (n > 256 || (tokenizer && tok_spec_bytes(&m->source.tokenizer, NULL) != MARCO_OK)) {
        memory_close(&m->source);
        return NULL;
    }
    return &m->source;
}

/* Tiny, with every part that its architecture can have. */
static inline model_config memory_config(model_arch arch)
{
    model_config c;
    model_config_init(&c);
    c.arch = arch;
    strcpy(c.name, "tiny");
    c.n_layers = 2;
    c.n_embd = 64;
    c.n_heads = 4;
    c.n_kv_heads = 2;
    c.head_dim = 32;
    c.n_vocab = 264;
    c.n_ctx_train = 128;
    c.bos = 256;
    c.pad = 256;
    c.eos[c.n_eos++] = 256;
    c.eos[c.n_eos++] = 258;
    c.qk_norm = arch == MODEL_QWEN3 || arch == MODEL_QWEN3MOE;
    c.tied = arch == MODEL_QWEN3 || arch == MODEL_MIXTRAL;
    if (arch == MODEL_LLAMA || arch == MODEL_QWEN3) {
        c.ffn_dim = 96;
    } else {
        c.n_experts = 6;
        c.n_experts_used = 2;
        c.expert_dim = 32;
        c.norm_topk_prob = true;
        for (int i = 0; i < c.n_layers; i++)
            c.layer_sparse[i] = true;
    }
    return c;
}

static inline marco_status memory_write(const model_config *config, tensor_type type, int to_type,
                                        const char *to, marco_error *error)
{
    model_source *source = memory_source_create(config, type, true);
    const model_copy_params params = {.type = to_type, .threads = 2, .what = "writing"};
    marco_status status = source ? model_copy(source, to, &params, error) : MARCO_ERROR_MEMORY;
    model_source_close(source);
    return status;
}

#endif
