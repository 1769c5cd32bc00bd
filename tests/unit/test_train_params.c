/* What of a model is trained: choices that mean nothing are refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "memory_source.h"
#include "train/params.h"

/* Trained and adapted tensors, adapters themselves left out; or a message that holds `says`. */
typedef struct choice_case {
    model_arch arch;
    const char *train, *freeze; /* a pattern each, or NULL */
    int32_t rank;
    bool attention, experts;
    const char *says; /* NULL: fine */
    size_t trained, adapted;
} choice_case;

static const choice_case cases[] = {
    {MODEL_QWEN3MOE, NULL, NULL, 0, true, true, NULL, 27, 0},
    {MODEL_QWEN3MOE, "router", NULL, 0, true, true, NULL, 2, 0},
    {MODEL_QWEN3MOE, "routers", NULL, 0, true, true,
     "train: no tensor of this model fits \"routers\"", 0, 0},
    {MODEL_QWEN3MOE, NULL, "blk.2.*", 0, true, true,
     "freeze: no tensor of this model fits \"blk.2.*\"", 0, 0},
    {MODEL_QWEN3MOE, "norms", "*_norm.weight", 0, true, true, "nothing would be trained", 0, 0},
    {MODEL_QWEN3, "experts", NULL, 0, true, true, "no tensor of this model fits \"experts\"", 0, 0},
    {MODEL_QWEN3MOE, NULL, NULL, 4, true, true, NULL, 0, 14},
    {MODEL_QWEN3MOE, NULL, NULL, 4, false, false, "lora.rank is 4", 0, 0},
    {MODEL_QWEN3MOE, "router", NULL, 4, false, false, "lora.rank is 4", 0, 0},
    {MODEL_QWEN3MOE, NULL, "attention", 4, true, false, "lora.rank is 4", 0, 0},
    {MODEL_QWEN3MOE, "router", "attention", 4, true, true, NULL, 2, 6},
    /* An adapter's name is no tensor's. */
    {MODEL_QWEN3MOE, NULL, "*.lora_a", 4, true, true, "fits \"*.lora_a\"", 0, 0},
};

static void check(const choice_case *c, train_comm *comm)
{
    const model_config config = memory_config(c->arch);
    const train_params_choice choice = {.type = TENSOR_F32,
                                        .train = &c->train,
                                        .n_train = c->train != NULL,
                                        .freeze = &c->freeze,
                                        .n_freeze = c->freeze != NULL,
                                        .lora_rank = c->rank,
                                        .lora_alpha = 8,
                                        .lora_attention = c->attention,
                                        .lora_experts = c->experts};
    train_params *params = NULL;
    marco_error error = {0};
    marco_status status = train_params_plan(&config, &choice, comm, &params, &error);
    if (c->says) {
        assert_null(params);
        assert_int_equal(status, MARCO_ERROR_ARGUMENT);
        if (!strstr(error.message, c->says))
            fail_msg("expected \"%s\", got \"%s\"", c->says, error.message);
        return;
    }
    assert_int_equal(status, MARCO_OK);
    size_t trained = 0, adapted = 0;
    for (size_t i = 0; i < params->n; i++) {
        trained += params->items[i].state == TRAIN_TRAINED && !params->items[i].adapter;
        adapted += params->items[i].state == TRAIN_ADAPTED;
    }
    assert_int_equal(trained, c->trained);
    assert_int_equal(adapted, c->adapted);
    train_params_free(params);
}

static void choices_that_mean_nothing_are_refused(void **state)
{
    (void)state;
    train_comm *comm = NULL;
    assert_int_equal(train_comm_open(1, &comm, NULL), MARCO_OK);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        check(&cases[i], comm);
    train_comm_close(comm);
}

/* ---- values that are none -------------------------------------------------------------------- */

static float spoilt_with;

static marco_status spoilt_read(model_source *source, size_t index, int64_t mat, int64_t row,
                                int64_t n, void *dst, marco_error *error)
{
    const model_tensor *t = &source->tensors[index];
    marco_status status = memory_read(source, index, mat, row, n, dst, error);
    if (t->role == MODEL_EXPERT_UP && t->layer == 1 && mat == 3 && row <= 5 && row + n > 5)
        ((float *)dst)[(5 - row) * t->cols + t->cols - 1] = spoilt_with;
    return status;
}

static void weights_that_are_no_numbers_are_refused(void **state)
{
    (void)state;
    train_comm *comm = NULL;
    assert_int_equal(train_comm_open(1, &comm, NULL), MARCO_OK);
    const model_config config = memory_config(MODEL_QWEN3MOE);
    model_source *source = memory_source_create(&config, TENSOR_F32, false);
    assert_non_null(source);
    source->read = spoilt_read;
    static const float values[] = {NAN, -INFINITY, 1};
    static const char *const says[] = {"holds NaN", "holds infinity", NULL};
    for (int bf16 = 0; bf16 <= 1; bf16++)
        for (int i = 0; i < 3; i++) {
            const train_params_choice choice = {.type = bf16 ? TENSOR_BF16 : TENSOR_F32};
            train_params *params = NULL;
            marco_error error = {0};
            spoilt_with = values[i];
            marco_status status = train_params_load(source, &choice, comm, &params, &error);
            assert_int_equal(status, says[i] ? MARCO_ERROR_FORMAT : MARCO_OK);
            if (says[i] && (params || !strstr(error.message, says[i]) ||
                            !strstr(error.message,
                                    "memory: tensor blk.1.ffn_up_exps.weight, matrix 3, row 5 ")))
                fail_msg("got \"%s\"", error.message);
            train_params_free(params);
        }
    memory_close(source);
    train_comm_close(comm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices_that_mean_nothing_are_refused),
        cmocka_unit_test(weights_that_are_no_numbers_are_refused),
    };
    return cmocka_run_group_tests_name("what is trained", tests, NULL, NULL);
}
