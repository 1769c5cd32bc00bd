/* Where weights live: that plans keep to their numbers, that a model says the same to the bit from
 * memory, from a map and from a cache of experts, and that a file in trouble harms no session. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/available.h"
#include "base/memory.h"
#include "memory_source.h"
#include "model/kv.h"
#include "model/residency.h"
#include "sanitized.h"
#include "scratch.h"

enum { MIB = 1 << 20, N_IDS = 40 };

static scratch place;
static char sparse[384]; /* 27 MB of experts */
static int32_t ids[N_IDS];

/* Experts large enough for a budget to make a difference. */
static model_config large_experts(void)
{
    model_config c = memory_config(MODEL_QWEN3MOE);
    c.n_embd = 256;
    c.expert_dim = 512;
    c.n_experts = 32;
    c.n_experts_used = 4;
    c.n_ctx_train = 1 << 15;
    return c;
}

static void write_model(const model_config *config, int type, const char *path)
{
    marco_error error = {0};
    if (memory_write(config, TENSOR_F16, type, path, &error))
        fail_msg("%s", error.message);
}

static int set_up(void **state)
{
    (void)state;
    if (!scratch_create(&place))
        return -1;
    model_config config = large_experts();
    strcpy(sparse, scratch_path(&place, "sparse.gguf"));
    write_model(&config, TENSOR_Q8_0, sparse);
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (int32_t)base_random_below(5, 0, (uint64_t)i, 250);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scratch_remove(&place);
    return 0;
}

/* ---- loading --------------------------------------------------------------------------------- */

/* A table whose every kernel takes panels. */
static kern_table all_panels(void)
{
    kern_table table = *kern_table_get(NULL);
    for (int i = 0; i < TENSOR_TYPE_END; i++)
        table.matmul[i].panels = true;
    return table;
}

static void assert_rows(model_source *source, size_t index, const model_matrix *m)
{
    uint8_t want[8192], is[8192];
    assert_true(m->row_bytes <= sizeof want);
    for (int64_t mat = 0; mat < m->mats; mat += 1 + m->mats / 3)
        for (int64_t row = 0; row < m->rows; row++) {
            assert_int_equal(source->read(source, index, mat, row, 1, want, NULL), MARCO_OK);
            model_matrix_get_row(m, mat, row, is);
            assert_memory_equal(is, want, m->row_bytes);
        }
}

/* Every row of what was loaded is the source's, in panels or not. */
static void assert_loads(const char *path, model_residency residency, bool panels)
{
    model_source *source;
    model_weights *w;
    marco_error error = {0};
    const kern_table table = all_panels();
    const model_load_params params = {.residency = residency, .kernels = panels ? &table : NULL};
    if (residency == MODEL_RESIDENT && !base_is_folder(path))
        assert_true(scratch_uncache(path));
    assert_int_equal(model_source_open(path, &source, &error), MARCO_OK);
    if (model_weights_load(source, &params, &w, &error))
        fail_msg("%s", error.message);
    for (size_t i = 0; i < source->n_tensors; i++) {
        const model_tensor *t = &source->tensors[i];
        const model_layer *l = t->layer >= 0 ? &w->layers[t->layer] : NULL;
        const model_matrix *m = t->role == MODEL_TOKEN_EMBD    ? &w->token_embd
                                : t->role == MODEL_ATTN_Q      ? &l->q
                                : t->role == MODEL_ATTN_K      ? &l->k
                                : t->role == MODEL_FFN_DOWN    ? &l->down
                                : t->role == MODEL_ROUTER      ? &l->router
                                : t->role == MODEL_EXPERT_GATE ? &l->expert_gate
                                : t->role == MODEL_EXPERT_DOWN ? &l->expert_down
                                                               : NULL;
        if (!m)
            continue;
        bool mapped = w->map && m->data >= w->map && m->data < w->map + w->map_bytes;
        if (residency != MODEL_MAPPED)
            assert_int_equal(m->panels,
                             panels && t->role != MODEL_ROUTER && t->type == TENSOR_Q8_0);
        else if (t->role == MODEL_EXPERT_GATE || t->role == MODEL_FFN_DOWN)
            assert_true(mapped && !m->panels);
        assert_rows(source, i, m);
    }
    model_weights_free(w);
    model_source_close(source);
}

static void test_loading(void **state)
{
    (void)state;
    const model_config llama = memory_config(MODEL_LLAMA), mixtral = memory_config(MODEL_MIXTRAL);
    const char *file = scratch_path(&place, "llama.gguf");
    const char *folder = scratch_path(&place, "mixtral");
    write_model(&llama, TENSOR_Q8_0, file);
    write_model(&mixtral, -1, folder);
    for (int panels = 0; panels < 2; panels++) {
        assert_loads(sparse, MODEL_RESIDENT, panels);
        assert_loads(file, MODEL_RESIDENT, panels); /* its Q and K are stored in another order */
        assert_loads(folder, MODEL_RESIDENT, panels);
        assert_loads(sparse, MODEL_MAPPED, panels);
        assert_loads(file, MODEL_MAPPED, panels);
    }
}

static void test_mapping_needs_gguf(void **state)
{
    (void)state;
    const model_config config = memory_config(MODEL_QWEN3);
    const char *folder = scratch_path(&place, "folder");
    marco_engine_params params = marco_engine_params_default();
    marco_engine *engine = NULL;
    marco_error error = {0};
    write_model(&config, -1, folder);
    params.mmap = true;
    assert_int_equal(marco_engine_open(folder, &params, &engine, &error), MARCO_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "only GGUF files can be mapped"));
    params.ram = 1 << 30;
    assert_int_equal(marco_engine_open(sparse, &params, &engine, &error), MARCO_ERROR_ARGUMENT);
    assert_null(engine);
}

static int stop_loading(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)what, (void)done, (void)total;
    return ++*(int *)user >= 2;
}

static void test_loading_is_cancelled(void **state)
{
    (void)state;
    int calls = 0;
    marco_engine_params params = marco_engine_params_default();
    marco_engine *engine = NULL;
    params.progress = (marco_progress){stop_loading, &calls};
    assert_int_equal(marco_engine_open(sparse, &params, &engine, NULL), MARCO_ERROR_CANCELLED);
    assert_null(engine);
}

/* ---- plans --------------------------------------------------------------------------------- */

/* The M after "--ram " in a message, its n-th. */
static uint64_t named_size(const char *message, int n)
{
    unsigned long long size = 0;
    for (; n >= 0 && message; n--) {
        message = strstr(message, "--ram ");
        message = message ? message + 6 : NULL;
    }
    assert_non_null(message);
    assert_int_equal(sscanf(message, "%lluM", &size), 1);
    return size << 20;
}

static void test_plans(void **state)
{
    (void)state;
    model_source *source;
    model_plan plan;
    marco_error error = {0};
    base_text text = {0};
    assert_int_equal(model_source_open(sparse, &source, NULL), MARCO_OK);
    const uint64_t all = model_source_bytes(source);
    model_plan_request r = {.held = 10 * MIB, .available = 1000 * MIB, .session = MIB};

    assert_int_equal(model_plan_make(source, &r, &plan, &error), MARCO_OK);
    assert_int_equal(plan.residency, MODEL_RESIDENT);
    assert_true(plan.room == UINT64_MAX && plan.budget == 0);
    assert_int_equal(plan.weight_bytes, all);

    r.ram = MIB;
    assert_int_equal(model_plan_make(source, &r, &plan, &error), MARCO_ERROR_ARGUMENT);
    uint64_t least = named_size(error.message, 1), whole = named_size(error.message, 2);
    assert_true(least < whole && whole > all);
    r.ram = least - 2 * MIB;
    assert_int_equal(model_plan_make(source, &r, &plan, &error), MARCO_ERROR_ARGUMENT);
    for (r.ram = least; r.ram <= whole; r.ram += MIB) {
        assert_int_equal(model_plan_make(source, &r, &plan, &error), MARCO_OK);
        assert_int_equal(plan.residency, r.ram < whole - MIB ? MODEL_STREAMED : MODEL_RESIDENT);
        if (plan.residency != MODEL_STREAMED)
            continue;
        assert_in_range(plan.slots, plan.least_slots, plan.experts);
        assert_true(plan.room >= r.session + (uint64_t)plan.slots * plan.slot_bytes);
        assert_true(r.held + plan.pinned_bytes + plan.room <= r.ram);
    }
    model_plan_describe(&plan, sparse, &text);
    assert_non_null(strstr(text.data, "MiB in memory"));

    r.ram = 2000 * (uint64_t)MIB; /* more than there is, but the model fits */
    assert_int_equal(model_plan_make(source, &r, &plan, &error), MARCO_OK);
    r.available = 30 * MIB;
    assert_int_equal(model_plan_make(source, &r, &plan, &error), MARCO_ERROR_MEMORY);
    assert_non_null(strstr(error.message, "only 40 MiB are available"));

    r.ram = 0; /* the rest is chosen: experts stay in the file, then nothing works */
    r.available = whole - r.held + 20 * MIB;
    assert_int_equal(model_plan_make(source, &r, &plan, &error), MARCO_ERROR_MEMORY);
    assert_non_null(strstr(error.message, "not enough memory"));
    r.available = least - r.held + 65 * MIB;
    assert_int_equal(model_plan_make(source, &r, &plan, &error), MARCO_OK);
    assert_int_equal(plan.residency, MODEL_STREAMED);
    char long_path[4096];
    memset(long_path, 'x', sizeof long_path - 1);
    long_path[sizeof long_path - 1] = '\0';
    base_text_clear(&text);
    model_plan_describe(&plan, long_path, &text);
    assert_non_null(strstr(text.data, long_path));
    assert_non_null(strstr(text.data, "all that is available"));
    base_text_free(&text);
    model_source_close(source);
}

static void test_plan_of_a_dense_model(void **state)
{
    (void)state;
    const model_config config = memory_config(MODEL_QWEN3);
    const char *path = scratch_path(&place, "dense.gguf");
    model_source *source;
    model_plan plan;
    marco_error error = {0};
    write_model(&config, -1, path);
    assert_int_equal(model_source_open(path, &source, NULL), MARCO_OK);
    model_plan_request r = {.ram = MIB, .available = 1000 * MIB};
    assert_int_equal(model_plan_make(source, &r, &plan, &error), MARCO_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "no experts"));
    r.ram = named_size(error.message, 1);
    assert_int_equal(model_plan_make(source, &r, &plan, &error), MARCO_OK);
    assert_int_equal(plan.residency, MODEL_RESIDENT);
    model_source_close(source);
}

/* ---- the same bits ------------------------------------------------------------------------- */

static marco_engine *open_file(const char *path, uint64_t ram, bool map, int32_t threads,
                               marco_compute compute)
{
    marco_engine_params params = marco_engine_params_default();
    marco_engine *engine = NULL;
    marco_error error = {0};
    if (ram && !base_is_folder(path))
        assert_true(scratch_uncache(path));
    params.ram = ram;
    params.mmap = map;
    params.threads = threads;
    params.compute = compute;
    if (marco_engine_open(path, &params, &engine, &error))
        fail_msg("%s", error.message);
    return engine;
}

static marco_engine *open_engine(uint64_t ram, bool map, int32_t threads, marco_compute compute)
{
    return open_file(sparse, ram, map, threads, compute);
}

/* The smallest budget that this process may give now, as a refusal names it, and some for what the
 * process grows by until it is given. */
static uint64_t least_budget_of(const char *path, marco_kv_type kv_type)
{
    marco_engine_params params = marco_engine_params_default();
    marco_engine *engine;
    marco_error error = {0};
    params.ram = 1;
    params.threads = 4;
    params.kv_type = kv_type;
    assert_int_equal(marco_engine_open(path, &params, &engine, &error), MARCO_ERROR_ARGUMENT);
    return named_size(error.message, 1) + 3 * MIB;
}

static uint64_t least_budget(void)
{
    return least_budget_of(sparse, MARCO_KV_AUTO);
}

static marco_session *open_session(marco_engine *engine, int32_t chunk)
{
    marco_session_params params = marco_session_params_default();
    marco_session *session;
    marco_error error = {0};
    params.chunk = chunk;
    if (marco_session_create(engine, &params, &session, &error))
        fail_msg("%s", error.message);
    return session;
}

static int copy_logits(void *user, int64_t position, const float *logits)
{
    memcpy((float *)user + position * 264, logits, 264 * sizeof *logits);
    return 0;
}

/* Logits of all positions [N_IDS, 264]: the first half as a prompt, the rest one by one. */
static float *logits_of(marco_engine *engine, int32_t chunk)
{
    marco_session *session = open_session(engine, chunk);
    float *logits = calloc(N_IDS * 264, sizeof *logits);
    marco_error error = {0};
    assert_non_null(logits);
    for (size_t i = 0; i < N_IDS; i += i ? 1 : N_IDS / 2)
        if (marco_session_eval_each(session, ids + i, i ? 1 : N_IDS / 2, copy_logits, logits,
                                    &error))
            fail_msg("%s", error.message);
    marco_session_close(session);
    return logits;
}

static void assert_same(marco_engine *engine, int32_t chunk, const float *want)
{
    float *logits = logits_of(engine, chunk);
    assert_memory_equal(logits, want, N_IDS * 264 * sizeof *logits);
    free(logits);
}

static void test_same_bits(void **state)
{
    (void)state;
    for (int compute = 0; compute < 2; compute++) {
        marco_engine *engine = open_engine(0, false, 2, (marco_compute)compute);
        float *want = logits_of(engine, 0);
        marco_engine_close(engine);
        for (int32_t threads = 1; threads <= 4; threads += 3) {
            engine = open_engine(0, true, threads, (marco_compute)compute);
            assert_same(engine, 7, want);
            assert_same(engine, 0, want);
            marco_engine_close(engine);
            for (int extra = 0; extra < 6; extra += 2) {
                marco_residency_stats stats;
                engine = open_engine(least_budget() + (uint64_t)extra * MIB, false, threads,
                                     (marco_compute)compute);
                assert_same(engine, extra == 2 ? 1 : 5, want);
                assert_same(engine, 0, want);
                marco_engine_residency(engine, &stats);
                assert_int_equal(stats.experts, 64);
                assert_in_range(stats.slots, 8, 63);
                assert_true(stats.misses > (uint64_t)stats.slots && stats.hits > 0);
                assert_true(stats.bytes_read == stats.misses * 3 * 512 * 272);
                marco_engine_close(engine);
            }
        }
        free(want);
    }
}

/* Dense layers between sparse ones (the first is dense), experts whose rows do not fill their last
 * panel, and of mixed types: rows of `down` are no whole blocks of Q8_0. */
static model_config odd_shape(model_arch arch, bool dense)
{
    model_config c = memory_config(arch);
    c.n_layers = 4;
    c.n_embd = 256;
    c.n_heads = c.n_kv_heads = 8;
    c.head_dim = 128;
    c.expert_dim = 516;
    c.n_experts = 16;
    c.tied = true;
    c.n_ctx_train = 1024;
    for (int i = 0; i < c.n_layers; i++)
        c.layer_sparse[i] = true;
    if (dense) { /* which GGUF cannot express */
        c.ffn_dim = 96;
        c.layer_sparse[0] = c.layer_sparse[2] = false;
    }
    return c;
}

/* From memory, from a map where it is a file, and from a cache of experts. */
static void assert_one_model(const char *path, marco_compute compute)
{
    marco_engine *engine = open_file(path, 0, false, 2, compute);
    marco_residency_stats stats;
    float *want = logits_of(engine, 0);
    marco_engine_close(engine);
    if (!base_is_folder(path)) {
        engine = open_file(path, 0, true, 2, compute);
        assert_same(engine, 5, want);
        marco_engine_residency(engine, &stats);
        assert_true(stats.pinned_bytes == 0 && stats.budget == 0 && stats.slots == 0);
        marco_engine_close(engine);
    }
    /* A budget in which experts have to make room for others. */
    bool crowded = false;
    for (uint64_t room = 12; !crowded && room >= 8; room--) {
        engine = open_file(path, least_budget_of(path, MARCO_KV_AUTO) + room * MIB / 2, false, 2,
                           compute);
        assert_same(engine, 5, want);
        marco_engine_residency(engine, &stats);
        assert_true(stats.pinned_bytes > 0);
        crowded =
            stats.slots < stats.experts && stats.misses > (uint64_t)stats.slots && stats.hits > 0;
        marco_engine_close(engine);
    }
    assert_true(crowded);
    free(want);
}

static void test_same_bits_of_odd_shapes(void **state)
{
    (void)state;
    const model_config moe = odd_shape(MODEL_QWEN3MOE, false);
    const model_config mixed = odd_shape(MODEL_QWEN3MOE, true);
    const model_config mixtral = odd_shape(MODEL_MIXTRAL, false);
    const struct {
        const model_config *config;
        int type;
        const char *name;
    } cases[] = {
        {&moe, TENSOR_Q8_0, "odd.gguf"},
        {&mixed, -1, "odd-folder"},
        {&mixtral, TENSOR_Q8_0, "permuted.gguf"}, /* its Q and K are stored in another order */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = scratch_path(&place, cases[i].name);
        write_model(cases[i].config, cases[i].type, path);
        for (int compute = 0; compute < 2; compute++)
            assert_one_model(path, (marco_compute)compute);
    }
}

/* The budget that a refusal names is one for sessions of the type asked for. */
static void test_budget_for_a_kv_type(void **state)
{
    (void)state;
    const model_config config = odd_shape(MODEL_QWEN3MOE, false);
    const char *path = scratch_path(&place, "kv.gguf");
    marco_engine_params params = marco_engine_params_default();
    marco_session_params session_params = marco_session_params_default();
    marco_engine *engine;
    marco_session *session = NULL;
    marco_error error = {0};
    write_model(&config, TENSOR_Q8_0, path);
    uint64_t least = least_budget_of(path, MARCO_KV_AUTO);
    params.ram = least_budget_of(path, MARCO_KV_F32);
    /* 512 tokens, 16 KB more of each; the rest of the process moves a little. */
    assert_in_range(params.ram - least, 5 * MIB, 11 * MIB);
    params.threads = 4;
    params.kv_type = session_params.kv_type = MARCO_KV_F32;
    if (marco_engine_open(path, &params, &engine, &error) ||
        marco_session_create(engine, &session_params, &session, &error))
        fail_msg("%s", error.message);
    marco_session_close(session);
    marco_engine_close(engine);
    params.kv_type = (marco_kv_type)9;
    assert_int_equal(marco_engine_open(path, &params, &engine, &error), MARCO_ERROR_ARGUMENT);
}

/* ---- sessions in a budget ------------------------------------------------------------------ */

static void test_sessions_share_the_room(void **state)
{
    (void)state;
    marco_engine *engine = open_engine(least_budget() + 4 * MIB, false, 2, MARCO_COMPUTE_AUTO);
    marco_session *sessions[64];
    marco_residency_stats before, after;
    marco_error error = {0};
    size_t n = 0;
    marco_engine_residency(engine, &before);
    while (n < 64 && !marco_session_create(engine, NULL, &sessions[n], &error))
        n++;
    assert_in_range(n, 1, 63);
    assert_int_equal(error.status, MARCO_ERROR_MEMORY);
    assert_non_null(strstr(error.message, "a session does not fit"));
    marco_engine_residency(engine, &after);
    assert_true(after.slots < before.slots);
    assert_in_range(after.slots, 8, 63);
    assert_int_equal(marco_session_eval(sessions[n - 1], ids, N_IDS, &error), MARCO_OK);
    while (n > 0)
        marco_session_close(sessions[--n]);
    marco_engine_residency(engine, &after);
    assert_int_equal(after.slots, before.slots);
    marco_engine_close(engine);
}

/* The file seems changed, or as it was before. */
static void touch_file(const char *path, const struct stat *before)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_NOW}};
    if (before) {
        times[0] = before->st_atim;
        times[1] = before->st_mtim;
    }
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static int64_t slots_of(const marco_engine *engine)
{
    marco_residency_stats stats;
    marco_engine_residency(engine, &stats);
    return stats.slots;
}

/* The room of a long context is the experts' again when the context is cut, or never filled. */
static void test_short_contexts_leave_room(void **state)
{
    (void)state;
    enum { LONG = 10000 };
    marco_engine *engine = open_engine(least_budget() + 12 * MIB, false, 2, MARCO_COMPUTE_AUTO);
    marco_session *session = open_session(engine, 16);
    marco_error error = {0};
    struct stat file;
    int64_t before = slots_of(engine);
    assert_int_equal(marco_session_eval(session, ids, 3, &error), MARCO_OK);
    for (int i = 0; i < 3; i++) {
        if (marco_session_fill(session, LONG, 1, &error))
            fail_msg("%s", error.message);
        assert_true(slots_of(engine) < before);
        assert_int_equal(marco_session_truncate(session, 3), MARCO_OK);
        assert_int_equal(slots_of(engine), before);
    }
    int32_t *prompt = calloc(LONG, sizeof *prompt);
    assert_non_null(prompt);
    assert_int_equal(stat(sparse, &file), 0);
    touch_file(sparse, NULL);
    assert_int_equal(marco_session_eval(session, prompt, LONG, &error), MARCO_ERROR_IO);
    touch_file(sparse, &file);
    assert_int_equal(slots_of(engine), before);
    assert_int_equal(marco_session_eval(session, ids + 3, 30, &error), MARCO_OK);
    free(prompt);
    marco_session_close(session);
    marco_engine_close(engine);
}

/* What a session held has left the process when it is closed, whatever lies above it in the heap.
 */
static void test_sessions_leave_no_memory(void **state)
{
    (void)state;
    enum { PAGES = 24 };
    model_config config = memory_config(MODEL_QWEN3MOE);
    config.n_layers = 28;
    config.n_kv_heads = 8;
    config.head_dim = 128;
    model_kv kv;
    model_kv_init(&kv, &config, TENSOR_F16);
    assert_in_range(kv.page_bytes, 2 * MIB, 8 * MIB);
    for (int round = 0; round < 3; round++) { /* the heap keeps more after it was given some back */
        uint64_t before = base_memory_resident(), during;
        assert_int_equal(model_kv_reserve(&kv, 0, PAGES * MODEL_KV_PAGE, NULL), MARCO_OK);
        for (size_t i = 0; i < PAGES; i++)
            memset(kv.pages[i], 1, kv.page_bytes);
        void *above = malloc(1000);
        during = base_memory_resident();
        model_kv_shrink(&kv, 0);
        uint64_t after = base_memory_resident();
        free(above);
        assert_true(during > before + (PAGES - 1) * kv.page_bytes);
        assert_true(after < before + 4 * MIB);
    }
    model_kv_free(&kv);
}

/* ---- a file in trouble --------------------------------------------------------------------- */

static void test_a_changed_file(void **state)
{
    (void)state;
    struct stat before;
    marco_error error = {0};
    marco_engine *engine = open_engine(0, false, 2, MARCO_COMPUTE_AUTO);
    float *want = logits_of(engine, 0);
    marco_engine_close(engine);
    engine = open_engine(least_budget(), false, 2, MARCO_COMPUTE_AUTO);
    marco_session *session = open_session(engine, 0);
    size_t n;
    assert_int_equal(marco_session_eval(session, ids, 3, &error), MARCO_OK);
    assert_int_equal(stat(sparse, &before), 0);
    for (int i = 0; i < 3; i++) {
        touch_file(sparse, NULL);
        assert_int_equal(marco_session_eval(session, ids + 3, 30, &error), MARCO_ERROR_IO);
        assert_non_null(strstr(error.message, "something changed the file"));
        assert_memory_equal(marco_session_tokens(session, &n), ids, 3 * sizeof *ids);
        assert_int_equal(n, 3);
        assert_null(marco_session_logits(session));
    }
    touch_file(sparse, &before);
    if (marco_session_eval(session, ids + 3, N_IDS - 3, &error))
        fail_msg("%s", error.message);
    assert_memory_equal(marco_session_logits(session), want + (N_IDS - 1) * 264,
                        264 * sizeof *want);
    marco_session_close(session);
    marco_engine_close(engine);
    free(want);
}

/* A file that takes the name of the one in use is not the one in use. */
static void test_a_replaced_file(void **state)
{
    (void)state;
    char kept[400];
    marco_engine *engine = open_engine(0, false, 2, MARCO_COMPUTE_AUTO);
    float *want = logits_of(engine, 0);
    marco_engine_close(engine);
    engine = open_engine(least_budget(), false, 2, MARCO_COMPUTE_AUTO);
    snprintf(kept, sizeof kept, "%s.kept", sparse);
    assert_int_equal(rename(sparse, kept), 0);
    int fd = open(sparse, O_CREAT | O_WRONLY, 0644);
    assert_true(fd >= 0 && close(fd) == 0);
    assert_same(engine, 0, want);
    marco_engine_close(engine);
    assert_int_equal(rename(kept, sparse), 0);
    free(want);
}

static void test_short_of_memory(void **state)
{
    (void)state;
    uint64_t n = 1;
    for (uint64_t step = 1;; n += step) {
        marco_engine_params params = marco_engine_params_default();
        marco_engine *engine = NULL;
        marco_error error = {0};
        params.ram = least_budget() + 2 * MIB;
        params.threads = 2;
        base_alloc_fail_at(n);
        marco_status status = marco_engine_open(sparse, &params, &engine, &error);
        base_alloc_fail_at(0);
        if (status == MARCO_OK) {
            marco_engine_close(engine);
            break;
        }
        assert_null(engine);
        assert_int_equal(status, MARCO_ERROR_MEMORY);
        step = n < 100 ? 1 : 7;
    }
    assert_true(n > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loading),
        cmocka_unit_test(test_mapping_needs_gguf),
        cmocka_unit_test(test_loading_is_cancelled),
        cmocka_unit_test(test_plans),
        cmocka_unit_test(test_plan_of_a_dense_model),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_same_bits_of_odd_shapes),
        cmocka_unit_test(test_budget_for_a_kv_type),
        cmocka_unit_test(test_sessions_share_the_room),
        cmocka_unit_test(test_short_contexts_leave_room),
        cmocka_unit_test(test_sessions_leave_no_memory),
        cmocka_unit_test(test_a_changed_file),
        cmocka_unit_test(test_a_replaced_file),
        cmocka_unit_test(test_short_of_memory),
    };
    if (SANITIZED) {
        /* Budgets count the whole process, and what the sanitizer holds moves by megabytes. */
        print_message("skipped under the address sanitizer, whose own memory upsets budgets: "
                      "test_s*\n");
        cmocka_set_skip_filter("test_s*");
    }
    return cmocka_run_group_tests_name("residency", tests, set_up, tear_down);
}
