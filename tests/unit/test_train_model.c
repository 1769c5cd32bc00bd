/* Whole models in training against PyTorch (tests/vectors/train): the first step's gradients, and
 * the losses of twenty steps. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/random.h"
#include "format/json.h"
#include "marco/train.h"
#include "scratch.h"
#include "tiny_checkpoint.h"
#include "train_job.h"

enum { FILE_LIMIT = 1 << 20, THREADS = 2, SOME_STEPS = 3 };

typedef struct vector {
    json_t *json;
    uint64_t seed;
    scratch files;
    const char *folder;
} vector;

static void check(marco_status status, const marco_error *error)
{
    if (status)
        fail_msg("%s: %s", marco_status_name(status), error->message);
}

static void open_vector(vector *v, const char *name)
{
    marco_error error = {0};
    const char *vectors = getenv("MARCO_TEST_VECTORS");
    char path[1024];
    if (!vectors)
        fail_msg("MARCO_TEST_VECTORS must name the folder tests/vectors");
    snprintf(path, sizeof path, "%s/train/%s.json", vectors, name);
    check(format_json_file(path, FILE_LIMIT, &v->json, &error), &error);
    v->seed = (uint64_t)json_integer_value(json_object_get(v->json, "seed"));
    tiny_vector tiny = {.config = json_dumps(json_object_get(v->json, "config"), 0),
                        .seed = v->seed};
    assert_non_null(tiny.config);
    assert_true(scratch_create(&v->files));
    v->folder = scratch_path(&v->files, "checkpoint");
    tiny_checkpoint_write(&tiny, v->folder);
    free(tiny.config);
}

static void close_vector(vector *v)
{
    scratch_remove(&v->files);
    json_decref(v->json);
}

static train_job *open_job(const vector *v, int threads, bool recompute)
{
    marco_error error = {0};
    train_job *job;
    check(train_job_open(json_object_get(v->json, "job"), v->folder, threads, recompute, &job,
                         &error),
          &error);
    return job;
}

static double number_at(const json_t *json, const char *key, size_t i)
{
    const json_t *value = json_array_get(json_object_get(json, key), i);
    if (!json_is_number(value))
        fail_msg("the vector has no number %zu of %s", i, key);
    return json_number_value(value);
}

/* ---- gradients ----------------------------------------------------------------------------- */

/* Product with the numbers uniform in [-1, 1) of a stream. */
static double product(const float *x, int64_t n, uint64_t seed, const char *name)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (2 * base_random_unit(seed, tiny_stream_of(name), (uint64_t)i) - 1);
    return sum;
}

static void check_gradient(const vector *v, const char *name, const float *grad, int64_t n)
{
    const json_t *all = json_object_get(v->json, "gradients");
    double norm = number_at(all, name, 0), bar = 1e-4 * norm, squares = 0;
    for (int64_t i = 0; i < n; i++)
        squares += (double)grad[i] * (double)grad[i];
    if (!(fabs(sqrt(squares) - norm) <= bar))
        fail_msg("%s: the gradient's norm is %g, not %g", name, sqrt(squares), norm);
    for (size_t k = 1; k <= 2; k++) {
        double seen = product(grad, n, v->seed + k, name), expected = number_at(all, name, k);
        if (!(fabs(seen - expected) <= bar))
            fail_msg("%s: the gradient's product %zu is %g, not %g (norm %g)", name, k, seen,
                     expected, norm);
    }
}

static void gradients_are_those_of_pytorch(void **state)
{
    marco_error error = {0};
    train_job_losses losses;
    vector v;
    open_vector(&v, *state);
    train_job *job = open_job(&v, THREADS, false);
    check(train_job_back(job, 0, &losses, &error), &error);
    size_t compared = 0;
    for (size_t i = 0; i < job->params->n; i++) {
        const train_param *param = &job->params->items[i];
        for (int64_t mat = 0; mat < param->mats; mat++) {
            char name[128];
            model_tensor_hf_name(&job->params->config, &param->tensor, mat, name);
            check_gradient(&v, name, train_grad(job->params, param, mat),
                           train_param_matrix(param));
            compared++;
        }
    }
    assert_int_equal(compared, json_object_size(json_object_get(v.json, "gradients")));
    train_job_close(job);
    close_vector(&v);
}

/* ---- steps --------------------------------------------------------------------------------- */

static void check_close(const char *what, int64_t step, double seen, double expected, double bar)
{
    if (!(fabs(seen - expected) <= bar))
        fail_msg("step %lld: %s is %.8g, not %.8g", (long long)step, what, seen, expected);
}

static void losses_are_those_of_pytorch(void **state)
{
    marco_error error = {0};
    vector v;
    open_vector(&v, *state);
    train_job *job = open_job(&v, THREADS, false);
    size_t steps = json_array_size(json_object_get(v.json, "loss"));
    assert_int_equal(steps, 20);
    for (size_t i = 0; i < steps; i++) {
        train_job_losses losses;
        double norm;
        check(train_job_back(job, (int64_t)i, &losses, &error), &error);
        check(train_job_update(job, &norm, &error), &error);
        check_close("loss", (int64_t)i, losses.loss, number_at(v.json, "loss", i), 1e-3);
        check_close("balance", (int64_t)i, losses.balance, number_at(v.json, "balance", i), 1e-4);
        check_close("z", (int64_t)i, losses.z, number_at(v.json, "z", i), 1e-4);
        check_close("norm", (int64_t)i, norm, number_at(v.json, "norm", i), 1e-2);
    }
    train_job_close(job);
    close_vector(&v);
}

/* ---- what must not matter ------------------------------------------------------------------ */

static void take_steps(train_job *job)
{
    marco_error error = {0};
    for (int64_t i = 0; i < SOME_STEPS; i++) {
        train_job_losses losses;
        double norm;
        check(train_job_back(job, i, &losses, &error), &error);
        check(train_job_update(job, &norm, &error), &error);
    }
}

static void threads_and_recomputation_change_no_bit(void **state)
{
    vector v;
    open_vector(&v, *state);
    train_job *one = open_job(&v, 1, false);
    take_steps(one);
    for (int threads = 1; threads <= 3; threads++) {
        train_job *other = open_job(&v, threads, threads % 2 == 1);
        take_steps(other);
        for (int s = 0; s < TRAIN_SECTION_END; s++) {
            const train_values *a = &one->params->sections[s], *b = &other->params->sections[s];
            assert_int_equal(a->size, b->size);
            if (a->size)
                assert_memory_equal(a->value, b->value, (size_t)a->size * sizeof(float));
        }
        train_job_close(other);
    }
    train_job_close(one);
    close_vector(&v);
}

static void running_out_of_memory_is_an_error(void **state)
{
    (void)state;
    vector v;
    open_vector(&v, "qwen3moe-global");
    marco_status status = MARCO_ERROR_MEMORY;
    uint64_t at = 1;
    for (; status; at++) {
        marco_error error = {0};
        train_job_losses losses;
        train_job *job;
        double norm;
        base_alloc_fail_at(at);
        status = train_job_open(json_object_get(v.json, "job"), v.folder, 1, true, &job, &error);
        if (!status)
            status = train_job_back(job, 0, &losses, &error);
        if (!status)
            status = train_job_update(job, &norm, &error);
        base_alloc_fail_at(0);
        assert_true(at < 10000 && (!status || status == MARCO_ERROR_MEMORY));
        train_job_close(job);
    }
    assert_true(at > 10);
    close_vector(&v);
}

int main(void)
{
#define CASE(name)                                                                                 \
    {"gradients " name, gradients_are_those_of_pytorch, NULL, NULL, name},                         \
        {"losses " name, losses_are_those_of_pytorch, NULL, NULL, name},                           \
    {                                                                                              \
        "same bits " name, threads_and_recomputation_change_no_bit, NULL, NULL, name               \
    }
    const struct CMUnitTest tests[] = {
        CASE("qwen3moe"),        CASE("qwen3moe-switch"),
        CASE("qwen3moe-global"), CASE("qwen3moe-bias"),
        CASE("qwen3"),           CASE("llama"),
        CASE("llama-llama3"),    CASE("qwen3-yarn"),
        CASE("mixtral"),         cmocka_unit_test(running_out_of_memory_is_an_error),
    };
    marco_train_prepare();
    return cmocka_run_group_tests_name("train_model", tests, NULL, NULL);
}
