/* Importance matrices as collected: the first layer's by the formula, the others' by what they must
 * have in common. (tests/interop compares every number with transformers.) */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "format/imatrix.h"
#include "infer/internal.h"
#include "model/source.h"
#include "scratch.h"
#include "tiny_checkpoint.h"

enum { N_CTX = 40, N_CHUNKS = 3, TEXT_SIZE = N_CHUNKS * N_CTX + 7 };

static const char moe[] = "qwen3moe-232", mixed[] = "qwen3moe-dense-layers";
static scratch place;
static char text[TEXT_SIZE]; /* its bytes are its ids */

static int set_up(void **state)
{
    (void)state;
    if (!scratch_create(&place))
        return -1;
    for (size_t i = 0; i < TEXT_SIZE; i++)
        text[i] = (char)('!' + i * i * 31 % 90);
    const char *const names[] = {moe, mixed};
    for (size_t i = 0; i < 2; i++) {
        tiny_vector *v = tiny_vector_read(names[i]);
        tiny_checkpoint_write(v, scratch_path(&place, names[i]));
        tiny_vector_free(v);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scratch_remove(&place);
    return 0;
}

static void check(marco_status status, const marco_error *error)
{
    if (status)
        fail_msg("%s: %s", marco_status_name(status), error->message);
}

static marco_imatrix_result collect(const char *model, int32_t threads, const char *to,
                                    marco_imatrix_params params)
{
    marco_error error = {0};
    marco_imatrix_result r;
    marco_engine *engine =
        tiny_engine_open(scratch_path(&place, model), MARCO_COMPUTE_F32, threads);
    params.n_ctx = params.n_ctx ? params.n_ctx : N_CTX;
    check(marco_imatrix(engine, text, TEXT_SIZE, scratch_path(&place, to), &params, &r, &error),
          &error);
    marco_engine_close(engine);
    return r;
}

static imatrix read_back(const char *name)
{
    imatrix m;
    marco_error error = {0};
    check(imatrix_read(scratch_path(&place, name), &m, &error), &error);
    return m;
}

static const imatrix_entry *entry_of(const imatrix *m, int layer, const char *role)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%d.%s.weight", layer, role);
    const imatrix_entry *entry = imatrix_find(m, name);
    if (!entry)
        fail_msg("no %s", name);
    return entry;
}

/* Row `row` of a tensor of one matrix. */
static void read_row(model_source *s, model_role role, int32_t layer, int64_t row, float *out)
{
    for (size_t i = 0; i < s->n_tensors; i++)
        if (s->tensors[i].role == role && s->tensors[i].layer == layer) {
            assert_int_equal(s->tensors[i].type, TENSOR_F32);
            assert_int_equal(s->read(s, i, 0, row, 1, out, NULL), MARCO_OK);
            return;
        }
    fail();
}

/* The first layer's attention gets rmsnorm(embedding) * weight. */
static void the_first_layer_is_as_the_formula_says(void **state)
{
    (void)state;
    enum { MAX = 512 };
    static float x[MAX], norm[MAX];
    static double sums[MAX];
    model_source *s;
    marco_error error = {0};
    collect(moe, 2, "first.gguf", (marco_imatrix_params){.text_name = "some text"});
    check(model_source_open(scratch_path(&place, moe), &s, &error), &error);
    int64_t n = s->config.n_embd;
    assert_true(n <= MAX);
    read_row(s, MODEL_ATTN_NORM, 0, 0, norm);
    for (size_t t = 0; t < N_CHUNKS * N_CTX; t++) {
        double squares = 0;
        read_row(s, MODEL_TOKEN_EMBD, -1, (uint8_t)text[t], x);
        for (int64_t c = 0; c < n; c++)
            squares += (double)x[c] * (double)x[c];
        for (int64_t c = 0; c < n; c++)
            sums[c] +=
                pow((double)x[c] * (double)norm[c], 2) / (squares / (double)n + s->config.rms_eps);
    }
    imatrix m = read_back("first.gguf");
    assert_string_equal(m.dataset, "some text");
    assert_int_equal(m.n_chunks, N_CHUNKS);
    assert_int_equal(m.chunk_size, N_CTX);
    const char *const roles[] = {"attn_q", "attn_k", "attn_v"};
    for (size_t i = 0; i < 3; i++) {
        const imatrix_entry *e = entry_of(&m, 0, roles[i]);
        assert_int_equal(e->n_values, n);
        assert_int_equal(e->n_mats, 1);
        assert_true(e->counts[0] == N_CHUNKS * N_CTX);
        for (int64_t c = 0; c < n; c++)
            if (!(fabs((double)e->sums[c] / sums[c] - 1) < 1e-5))
                fail_msg("%s, column %lld: %g, not %g", roles[i], (long long)c, (double)e->sums[c],
                         sums[c]);
    }
    imatrix_clear(&m);
    model_source_close(s);
}

/* Of a layer with experts: each token counts once in the router and K times over the experts, and
 * gate and up get the same. */
static void check_sparse(const imatrix *m, const model_config *c, int32_t layer)
{
    const imatrix_entry *router = entry_of(m, layer, "ffn_gate_inp");
    const imatrix_entry *gate = entry_of(m, layer, "ffn_gate_exps");
    const imatrix_entry *up = entry_of(m, layer, "ffn_up_exps");
    const imatrix_entry *down = entry_of(m, layer, "ffn_down_exps");
    int64_t x = c->n_experts;
    double rows = 0;
    assert_int_equal(gate->n_mats, x);
    assert_int_equal(gate->n_values, x * c->n_embd);
    assert_int_equal(down->n_values, x * c->expert_dim);
    assert_memory_equal(gate->sums, up->sums, (size_t)gate->n_values * sizeof(float));
    assert_memory_equal(gate->counts, up->counts, (size_t)x * sizeof(float));
    assert_memory_equal(gate->counts, down->counts, (size_t)x * sizeof(float));
    for (int64_t e = 0; e < x; e++) {
        double sum = 0;
        for (int64_t i = 0; i < c->expert_dim; i++)
            sum += (double)down->sums[e * c->expert_dim + i];
        assert_int_equal(sum > 0, down->counts[e] > 0);
        rows += (double)gate->counts[e];
    }
    assert_true(rows == N_CHUNKS * N_CTX * c->n_experts_used);
    assert_true(router->counts[0] == N_CHUNKS * N_CTX);
    for (int64_t i = 0; i < c->n_embd; i++) {
        double sum = 0;
        for (int64_t e = 0; e < x; e++)
            sum += (double)gate->sums[e * c->n_embd + i];
        assert_true(fabs(sum / ((double)router->sums[i] * c->n_experts_used) - 1) < 1e-5);
    }
}

static void check_dense(const imatrix *m, const model_config *c, int32_t layer)
{
    const imatrix_entry *gate = entry_of(m, layer, "ffn_gate"), *up = entry_of(m, layer, "ffn_up");
    const imatrix_entry *down = entry_of(m, layer, "ffn_down");
    assert_memory_equal(gate->sums, up->sums, (size_t)c->n_embd * sizeof(float));
    assert_int_equal(down->n_values, c->ffn_dim);
    assert_true(gate->counts[0] == N_CHUNKS * N_CTX && down->counts[0] == N_CHUNKS * N_CTX);
}

static void every_matrix_of_the_layers_is_there(void **state)
{
    (void)state;
    const char *const models[] = {moe, mixed};
    for (size_t i = 0; i < 2; i++) {
        model_source *s;
        assert_int_equal(model_source_open(scratch_path(&place, models[i]), &s, NULL), MARCO_OK);
        const model_config *c = &s->config;
        marco_imatrix_result r =
            collect(models[i], 2, "all.gguf", (marco_imatrix_params){.overwrite = true});
        imatrix m = read_back("all.gguf");
        size_t wanted = 0;
        int64_t experts = 0, unused = 0;
        for (int32_t l = 0; l < c->n_layers; l++) {
            bool sparse = c->layer_sparse[l];
            wanted += 4 + (sparse ? 4 : 3);
            assert_int_equal(entry_of(&m, l, "attn_output")->n_values,
                             (int64_t)c->n_heads * c->head_dim);
            if (!sparse) {
                check_dense(&m, c, l);
                continue;
            }
            check_sparse(&m, c, l);
            const imatrix_entry *gate = entry_of(&m, l, "ffn_gate_exps");
            experts += gate->n_mats;
            for (int64_t e = 0; e < gate->n_mats; e++)
                unused += gate->counts[e] == 0;
        }
        assert_int_equal(m.n, wanted);
        assert_int_equal(r.n_experts, experts);
        assert_int_equal(r.n_unused, unused);
        assert_int_equal(r.n_chunks, N_CHUNKS);
        imatrix_clear(&m);
        model_source_close(s);
    }
}

static void experts_never_used_are_told(void **state)
{
    (void)state;
    /* Four tokens do not reach all. */
    marco_imatrix_result r =
        collect(moe, 1, "few.gguf", (marco_imatrix_params){.n_ctx = 4, .max_chunks = 1});
    imatrix m = read_back("few.gguf");
    int64_t unused = 0, most = 0, layer = -1;
    char name[64];
    const imatrix_entry *gate;
    for (int l = 0; snprintf(name, sizeof name, "blk.%d.ffn_gate_exps.weight", l),
             (gate = imatrix_find(&m, name)) != NULL;
         l++) {
        int64_t here = 0;
        for (int64_t e = 0; e < gate->n_mats; e++)
            here += gate->counts[e] == 0;
        unused += here;
        layer = here > most ? l : layer;
        most = here > most ? here : most;
    }
    assert_true(unused > 0);
    assert_int_equal(r.n_unused, unused);
    assert_int_equal(r.worst_unused, most);
    assert_int_equal(r.worst_layer, layer);
    imatrix_clear(&m);
}

static void threads_change_nothing(void **state)
{
    (void)state;
    for (int form = 0; form < 2; form++) {
        const char *first = form ? "one.dat" : "one.gguf", *next = form ? "n.dat" : "n.gguf";
        collect(moe, 1, first, (marco_imatrix_params){0});
        for (int32_t threads = 2; threads <= 4; threads++) {
            collect(moe, threads, next, (marco_imatrix_params){.overwrite = true});
            assert_true(scratch_same_file(scratch_path(&place, first), scratch_path(&place, next)));
        }
    }
}

/* ---- refusals ------------------------------------------------------------------------------- */

typedef struct calls {
    int n, stop; /* cancel at call `stop` */
} calls;

static int count(void *user, const char *what, uint64_t done, uint64_t total)
{
    calls *c = user;
    assert_non_null(strstr(what, "tokens"));
    assert_true(done <= total && total == N_CHUNKS * N_CTX);
    return ++c->n == c->stop;
}

static void refuses(marco_engine *engine, const char *to, marco_imatrix_params params,
                    marco_status status, const char *pattern)
{
    marco_imatrix_result r;
    marco_error error = {0};
    int before = scratch_count(place.folder);
    params.n_ctx = params.n_ctx ? params.n_ctx : N_CTX;
    assert_int_equal(marco_imatrix(engine, text, TEXT_SIZE, to, &params, &r, &error), status);
    if (!strstr(error.message, pattern))
        fail_msg("no \"%s\" in: %s", pattern, error.message);
    assert_int_equal(scratch_count(place.folder), before);
}

static void what_cannot_be_collected_is_refused(void **state)
{
    (void)state;
    typedef marco_imatrix_params params;
    marco_engine *engine = tiny_engine_open(scratch_path(&place, moe), MARCO_COMPUTE_F32, 1);
    marco_engine *fast = tiny_engine_open(scratch_path(&place, moe), MARCO_COMPUTE_AUTO, 1);
    const char *to = scratch_path(&place, "refused.gguf");
    calls c = {0};
    refuses(fast, to, (params){0}, MARCO_ERROR_ARGUMENT, "MARCO_COMPUTE_F32");
    refuses(engine, to, (params){.n_ctx = 200}, MARCO_ERROR_ARGUMENT, "has 127 tokens");
    refuses(engine, "", (params){0}, MARCO_ERROR_ARGUMENT, "missing");
    /* Before the work, and not after it. */
    refuses(engine, scratch_path(&place, "no/folder.gguf"), (params){.progress = {count, &c}},
            MARCO_ERROR_NOT_FOUND, "folder.gguf");
    refuses(engine, scratch_path(&place, moe), (params){.progress = {count, &c}},
            MARCO_ERROR_EXISTS, moe);
    assert_int_equal(c.n, 0);
    for (c.stop = 1; c.stop <= N_CHUNKS + 1; c.stop++) {
        c.n = 0;
        refuses(engine, to, (params){.progress = {count, &c}}, MARCO_ERROR_CANCELLED, "cancelled");
    }
    marco_engine_close(engine);
    marco_engine_close(fast);
}

static void a_budget_is_kept(void **state)
{
    (void)state;
    const marco_imatrix_params params = {.n_ctx = N_CTX, .overwrite = true};
    marco_engine *engine = tiny_engine_open(scratch_path(&place, moe), MARCO_COMPUTE_F32, 2);
    marco_imatrix_result r;
    marco_error error = {0};
    marco_status status;
    bool sums = false, session = false;
    collect(moe, 2, "free.gguf", params);
    engine->plan.budget = 1; /* which number does not matter */
    engine->plan.room = 1000;
    while ((status = marco_imatrix(engine, text, TEXT_SIZE, scratch_path(&place, "tight.gguf"),
                                   &params, &r, &error))) {
        assert_int_equal(status, MARCO_ERROR_MEMORY);
        assert_int_equal(engine->taken, 0);
        sums |= strstr(error.message, "the importance matrix does not fit") != NULL;
        session |= strstr(error.message, "a session does not fit") != NULL;
        engine->plan.room += 20000;
        assert_true(engine->plan.room < (uint64_t)1 << 26);
    }
    assert_true(sums && session);
    assert_int_equal(engine->taken, 0);
    assert_true(
        scratch_same_file(scratch_path(&place, "tight.gguf"), scratch_path(&place, "free.gguf")));
    marco_engine_close(engine);
}

static void running_out_of_memory_leaves_nothing(void **state)
{
    (void)state;
    marco_engine *engine = tiny_engine_open(scratch_path(&place, moe), MARCO_COMPUTE_F32, 1);
    marco_imatrix_params params = {.n_ctx = 8, .max_chunks = 1, .text_name = "x"};
    const char *to = scratch_path(&place, "memory.gguf");
    int before = scratch_count(place.folder);
    marco_status status = MARCO_ERROR_MEMORY;
    uint64_t n = 1;
    for (; status && n < 2000; n++) {
        marco_imatrix_result r;
        base_alloc_fail_at(n);
        status = marco_imatrix(engine, text, TEXT_SIZE, to, &params, &r, NULL);
        base_alloc_fail_at(0);
        if (status) {
            assert_int_equal(status, MARCO_ERROR_MEMORY);
            assert_int_equal(scratch_count(place.folder), before);
        }
    }
    assert_int_equal(status, MARCO_OK);
    assert_true(n > 10);
    marco_engine_close(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_layer_is_as_the_formula_says),
        cmocka_unit_test(every_matrix_of_the_layers_is_there),
        cmocka_unit_test(experts_never_used_are_told),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(what_cannot_be_collected_is_refused),
        cmocka_unit_test(a_budget_is_kept),
        cmocka_unit_test(running_out_of_memory_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
