/* A model in training for tests of checkpoints and runs' folders, and a run for it. Problems end
 * the test. */
#ifndef TESTS_CHECKPOINT_FIXTURE_H
#define TESTS_CHECKPOINT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "memory_source.h"
#include "scratch.h"
#include "train/checkpoint_internal.h"

typedef struct lab {
    train_context ctx;
    train_optimizer *optimizer;
} lab;

typedef struct kind {
    model_arch arch;
    tensor_type type;
    int32_t lora;
} kind;

static const kind kinds[] = {
    {MODEL_QWEN3MOE, TENSOR_F32, 0}, {MODEL_QWEN3MOE, TENSOR_BF16, 0},
    {MODEL_QWEN3MOE, TENSOR_F32, 3}, {MODEL_QWEN3MOE, TENSOR_BF16, 3},
    {MODEL_QWEN3, TENSOR_F32, 0},    {MODEL_LLAMA, TENSOR_BF16, 2},
};

static inline void set_up(lab *l, kind k, train_comm *comm)
{
    static const char *const frozen[] = {"blk.0.attn_q.weight", "blk.1.ffn_gate*.weight"};
    const model_config config = memory_config(k.arch);
    const train_params_choice choice = {.type = k.type,
                                        .freeze = frozen,
                                        .n_freeze = 2,
                                        .lora_rank = k.lora,
                                        .lora_alpha = 4,
                                        .lora_attention = true,
                                        .lora_experts = true};
    const train_optimizer_params params = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8};
    model_source *source = memory_source_create(&config, TENSOR_F32, true);
    *l = (lab){.ctx = {.comm = comm}};
    if (!source || train_params_load(source, &choice, comm, &l->ctx.params, NULL) != MARCO_OK ||
        train_optimizer_create(&l->ctx, &params, &l->optimizer, NULL) != MARCO_OK)
        abort();
    l->ctx.params->tokenizer = source->tokenizer;
    source->tokenizer = NULL;
    model_source_close(source);
}

static inline void tear_down(lab *l)
{
    tok_spec_free(l->ctx.params->tokenizer);
    train_optimizer_free(l->optimizer);
    train_params_free(l->ctx.params);
}

/* The number of an element, from what it is in the whole model alone. */
/* ---- runs ---------------------------------------------------------------------------------- */

static inline train_recipe *recipe(const char *set)
{
    const char *const all[] = {"model=/m", "data.sources=[\"/d\"]", "steps=9", set};
    train_recipe *r = NULL;
    if (train_recipe_read(NULL, all, set ? 4 : 3, &r, NULL) != MARCO_OK)
        abort();
    return r;
}

static inline train_run *open_run(train_comm *comm, const char *folder)
{
    train_run *run = NULL;
    train_recipe *r = recipe(NULL);
    marco_error error = {0};
    if (train_run_open(comm, folder, r, false, NULL, &run, &error) != MARCO_OK) {
        fprintf(stderr, "%s\n", error.message);
        abort();
    }
    train_recipe_free(r);
    return run;
}

static inline marco_status write_step(const lab *l, const train_run *run, int64_t step,
                                      int64_t keep_last, int64_t keep_every, marco_error *error)
{
    char path[512];
    json_t *state = json_pack("{s:f, s:I}", "third", 1.0 / 3, "step", (json_int_t)step);
    const train_checkpoint_params params = {
        .step = step, .state = state, .keep_last = keep_last, .keep_every = keep_every};
    l->optimizer->step = step - 1;
    l->optimizer->norm_mean = 0.1;
    l->optimizer->norm_count = 7;
    marco_status status = train_checkpoint_write(&l->ctx, l->optimizer, run, &params, path, error);
    json_decref(state);
    return status;
}

static char noted[2048];

static inline void note(void *user, const char *line)
{
    (void)user;
    snprintf(noted, sizeof(noted), "%s", line);
}

static const train_notes notes = {.fn = note};

static inline train_comm *single(void)
{
    train_comm *comm = NULL;
    assert_int_equal(train_comm_open(1, &comm, NULL), MARCO_OK);
    return comm;
}

/* The step that a run would go on from, or -1. */
static inline int64_t last_step(train_comm *comm, const train_run *run)
{
    train_checkpoint *c = NULL;
    noted[0] = '\0';
    assert_int_equal(train_checkpoint_last(comm, run, &notes, &c, NULL), MARCO_OK);
    int64_t step = c ? c->step : -1;
    train_checkpoint_free(c);
    return step;
}

static inline bool has(const train_run *run, const char *name)
{
    char path[600];
    snprintf(path, sizeof(path), "%s/%s", run->checkpoints, name);
    return base_exists(path);
}

typedef struct bench {
    train_comm *comm;
    train_run *run;
    lab l;
    char folder[384];
} bench;

static inline void bench_open(bench *b, void **state)
{
    snprintf(b->folder, sizeof(b->folder), "%s", scratch_path(*state, "run"));
    b->comm = single();
    b->run = open_run(b->comm, b->folder);
    set_up(&b->l, kinds[0], b->comm);
}

static inline void bench_close(bench *b)
{
    tear_down(&b->l);
    train_run_close(b->run);
    train_comm_close(b->comm);
}

#endif
