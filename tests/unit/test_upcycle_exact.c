/* Surgery that changes nothing: virtual groups, only `down` scaled, nothing dropped, and a top-k
 * that takes whole copies make the mixture equal to its dense parent. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scratch.h"
#include "tiny_checkpoint.h"

/* Of the largest logit of a position. */
#define LARGEST_DIFFERENCE 1e-4

typedef struct surgery {
    const char *parent; /* a case in tests/vectors/logits */
    const char *child;  /* the architecture it becomes */
    int32_t slices, copies, expert_dim, top_k;
    bool gguf;
} surgery;

static void check(marco_status status, const marco_error *error)
{
    if (status)
        fail_msg("%s: %s", marco_status_name(status), error->message);
}

static double relative_difference(const float *a, const float *b, size_t n, int32_t n_vocab)
{
    double largest = 0;
    for (size_t i = 0; i < n; i++, a += n_vocab, b += n_vocab) {
        double difference = 0, scale = 0;
        for (int32_t j = 0; j < n_vocab; j++) {
            double d = fabs((double)a[j] - b[j]), size = fabs((double)a[j]);
            assert_true(isfinite(d));
            difference = d > difference ? d : difference;
            scale = size > scale ? size : scale;
        }
        largest = difference / scale > largest ? difference / scale : largest;
    }
    return largest;
}

static void compare(const tiny_vector *v, marco_engine *parent, marco_engine *child)
{
    double largest = 0;
    for (size_t i = 0; i < v->n_sequences; i++) {
        const tiny_sequence *s = &v->sequences[i];
        float *before = tiny_logits(parent, 0, s->ids, s->n);
        float *after = tiny_logits(child, 0, s->ids, s->n);
        double d = relative_difference(before, after, s->n, v->n_vocab);
        largest = d > largest ? d : largest;
        free(before);
        free(after);
    }
    print_message("largest difference %.1e of the largest logit\n", largest);
    assert_true(largest <= LARGEST_DIFFERENCE);

    int32_t *greedy = calloc(v->n_greedy, sizeof *greedy);
    assert_non_null(greedy);
    tiny_greedy(child, v->prompt, v->n_prompt, greedy, v->n_greedy);
    for (size_t i = 0; i < v->n_greedy; i++)
        assert_int_equal(greedy[i], v->greedy[i]);
    free(greedy);
}

static void upcycle(const surgery *s, const char *from, const char *to)
{
    marco_error error = {0};
    marco_upcycle_params params = marco_upcycle_params_default();
    params.n_experts = s->slices * s->copies;
    params.expert_dim = s->expert_dim;
    params.top_k = s->top_k;
    params.scale = MARCO_SCALE_DOWN;
    params.drop = 0;
    params.router = MARCO_ROUTER_VIRTUAL_GROUP;
    params.type = "F32";
    params.seed = 7;
    params.threads = 2;
    check(marco_upcycle(from, to, &params, &error), &error);
}

static void test_exact(void **state)
{
    const surgery *s = *state;
    tiny_vector *v = tiny_vector_read(s->parent);
    scratch files;
    assert_true(scratch_create(&files));
    const char *folder = scratch_path(&files, "dense");
    const char *to = scratch_path(&files, s->gguf ? "moe.gguf" : "moe");
    tiny_checkpoint_write(v, folder);
    upcycle(s, folder, to);

    marco_engine *parent = tiny_engine_open(folder, MARCO_COMPUTE_F32, 1);
    marco_engine *child = tiny_engine_open(to, MARCO_COMPUTE_F32, 1);
    const marco_model_info *info = marco_engine_info(child);
    assert_string_equal(info->architecture, s->child);
    assert_int_equal(info->n_experts, s->slices * s->copies);
    assert_int_equal(info->n_experts_used, s->top_k);
    assert_int_equal(info->expert_dim, s->expert_dim);
    compare(v, parent, child);
    marco_engine_close(child);
    marco_engine_close(parent);
    scratch_remove(&files);
    tiny_vector_free(v);
}

/* The parents' inner dimension is 96 (qwen3) and 100 (llama). */
static surgery surgeries[] = {
    {"qwen3", "qwen3moe", 3, 4, 32, 3, false}, {"qwen3", "qwen3moe", 3, 4, 32, 6, true},
    {"qwen3", "qwen3moe", 8, 3, 12, 8, true},  {"qwen3", "qwen3moe", 1, 6, 96, 1, false},
    {"llama", "mixtral", 4, 3, 25, 4, false},  {"llama", "mixtral", 4, 3, 25, 8, true},
    {"llama", "mixtral", 5, 2, 20, 10, false},
};

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"qwen3 to 12 experts, 3 at work, a folder", test_exact, NULL, NULL, &surgeries[0]},
        {"qwen3 to 12 experts, 6 at work, GGUF", test_exact, NULL, NULL, &surgeries[1]},
        {"qwen3 to 24 experts, 8 at work, GGUF", test_exact, NULL, NULL, &surgeries[2]},
        {"qwen3 to 6 whole copies, 1 at work", test_exact, NULL, NULL, &surgeries[3]},
        {"llama to 12 experts, 4 at work, a folder", test_exact, NULL, NULL, &surgeries[4]},
        {"llama to 12 experts, 8 at work, GGUF", test_exact, NULL, NULL, &surgeries[5]},
        {"llama to 10 experts, all at work", test_exact, NULL, NULL, &surgeries[6]},
    };
    return cmocka_run_group_tests_name("upcycle_exact", tests, NULL, NULL);
}
