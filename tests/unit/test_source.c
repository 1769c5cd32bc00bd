/* Checkpoints on disk as streams of rows: what is read is what was written, in Hugging Face's
 * order, and what a checkpoint lacks or has too much of is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "format/safetensors.h"
#include "memory_source.h"
#include "scratch.h"

static marco_error error;

static const tensor_type types[] = {TENSOR_F32, TENSOR_F16, TENSOR_BF16};

/* ---- rows ---------------------------------------------------------------------------------- */

static float number(const model_tensor *t, const void *row, int64_t i)
{
    if (t->type == TENSOR_F32)
        return ((const float *)row)[i];
    uint16_t bits = ((const uint16_t *)row)[i];
    return t->type == TENSOR_F16 ? tensor_f16_to_f32(bits) : tensor_bf16_to_f32(bits);
}

/* Every number, in reads of several rows; `type` is what the numbers were rounded to. */
static void assert_tensor(model_source *source, size_t index, tensor_type type)
{
    const model_tensor *t = &source->tensors[index];
    char row[3 * 128 * 4];
    for (int64_t mat = 0; mat < t->mats; mat++) {
        for (int64_t r = 0; r < t->rows; r += 3) {
            int64_t n = t->rows - r < 3 ? t->rows - r : 3;
            size_t bytes = (size_t)n * tensor_row_bytes(t->type, t->cols);
            assert_true(bytes <= sizeof row);
            if (source->read(source, index, mat, r, n, row, &error) != MARCO_OK)
                fail_msg("%s", error.message);
            for (int64_t i = 0; i < n * t->cols; i++) {
                float want = memory_value(t, mat, r * t->cols + i);
                if (type == TENSOR_F16)
                    want = tensor_f16_to_f32(tensor_f32_to_f16(want));
                if (type == TENSOR_BF16)
                    want = tensor_bf16_to_f32(tensor_f32_to_bf16(want));
                if (number(t, row, i) != want)
                    fail_msg("role %d layer %d mat %d row %d", t->role, (int)t->layer, (int)mat,
                             (int)r);
            }
        }
    }
}

static void rows_are_those_written(void **state)
{
    scratch *s = *state;
    for (model_arch arch = MODEL_LLAMA; arch <= MODEL_QWEN3MOE; arch++) {
        for (size_t k = 0; k < 2 * sizeof types / sizeof *types; k++) {
            tensor_type type = types[k / 2];
            const char *path = scratch_path(s, k % 2 ? "model.gguf" : "model");
            model_config config = memory_config(arch);
            model_source *source = NULL;
            if (memory_write(&config, type, -1, path, &error) != MARCO_OK)
                fail_msg("%s", error.message);
            if (model_source_open(path, &source, &error) != MARCO_OK)
                fail_msg("%s", error.message);
            assert_int_equal(source->config.arch, arch);
            assert_non_null(source->tokenizer);
            assert_int_equal(source->n_tensors, model_config_tensors(&config, NULL, 0));
            for (size_t i = 0; i < source->n_tensors; i++) {
                const model_tensor *t = &source->tensors[i];
                bool widened = k % 2 && model_role_is_float(t->role);
                assert_int_equal(t->type, widened ? TENSOR_F32 : type);
                assert_int_equal(model_source_find(source, t->role, t->layer), i);
                assert_tensor(source, i, type);
            }
            model_source_close(source);
            scratch_remove(s);
            assert_true(scratch_create(s));
        }
    }
}

/* A GGUF "llama" file holds the rows of Q and K as (head, half, pair) -> (head, pair, half). */
static void llama_rows_are_permuted_in_gguf(void **state)
{
    scratch *s = *state;
    const char *path = scratch_path(s, "model.gguf");
    model_config c = memory_config(MODEL_LLAMA);
    gguf *g = NULL;
    assert_int_equal(memory_write(&c, TENSOR_F32, -1, path, &error), MARCO_OK);
    assert_int_equal(gguf_open(path, &g, &error), MARCO_OK);
    static const struct {
        const char *name;
        model_role role;
        int heads;
        bool permuted;
    } cases[] = {
        {"blk.1.attn_q.weight", MODEL_ATTN_Q, 4, true},
        {"blk.1.attn_k.weight", MODEL_ATTN_K, 2, true},
        {"blk.1.attn_v.weight", MODEL_ATTN_V, 2, false},
    };
    for (int k = 0; k < 3; k++) {
        const gguf_tensor *found = gguf_tensor_find(g, cases[k].name);
        const model_tensor t = {cases[k].role, 1, TENSOR_F32, 1, cases[k].heads * 32, 64};
        int64_t at = 0;
        for (int head = 0; head < cases[k].heads; head++) {
            for (int pair = 0; pair < 16; pair++) {
                for (int half = 0; half < 2; half++, at++) {
                    float row[64];
                    int64_t hf = head * 32 + half * 16 + pair;
                    assert_int_equal(base_file_read(gguf_file(g), found->offset + at * sizeof row,
                                                    row, sizeof row, &error),
                                     MARCO_OK);
                    assert_true(row[5] ==
                                memory_value(&t, 0, (cases[k].permuted ? hf : at) * 64 + 5));
                }
            }
        }
    }
    gguf_close(g);
}

static void ids_of_tokenizer_and_configuration_are_shared(void **state)
{
    scratch *s = *state;
    const char *path = scratch_path(s, "model");
    model_config c = memory_config(MODEL_QWEN3);
    model_source *source = NULL;
    c.n_eos = 0;
    c.bos = -1;
    assert_int_equal(memory_write(&c, TENSOR_F32, -1, path, &error), MARCO_OK);
    assert_int_equal(model_source_open(path, &source, &error), MARCO_OK);
    assert_true(source->tokenizer->eos >= 0);
    assert_int_equal(source->config.n_eos, 1);
    assert_int_equal(source->config.eos[0], source->tokenizer->eos);
    model_source_close(source);
}

/* ---- damaged folders ----------------------------------------------------------------------- */

typedef struct damage {
    const char *skip;    /* a tensor left out */
    const char *extra;   /* a tensor added */
    const char *reshape; /* one with its first dimension halved */
    const char *retype;  /* one written as BF16 */
    bool fused;          /* experts as transformers holds them in memory */
} damage;

static void put(safetensors_writer *w, const damage *d, const char *name, int n_dims,
                const int64_t *dims)
{
    int64_t shape[3] = {dims[0], n_dims > 1 ? dims[1] : 1, n_dims > 2 ? dims[2] : 1};
    if (d->skip && strcmp(name, d->skip) == 0)
        return;
    if (d->reshape && strcmp(name, d->reshape) == 0)
        shape[0] /= 2;
    bool retype = d->retype && strcmp(name, d->retype) == 0;
    safetensors_put_tensor(w, name, retype ? TENSOR_BF16 : TENSOR_F32, n_dims, shape);
}

static void emit(safetensors_writer *w, const damage *d, const char *name, const model_tensor *t,
                 int64_t mat, int64_t n_mats)
{
    int64_t n = t->rows * t->cols;
    if (d->skip && strcmp(name, d->skip) == 0)
        return;
    if (d->reshape && strcmp(name, d->reshape) == 0)
        n /= 2;
    bool retype = d->retype && strcmp(name, d->retype) == 0;
    float *data = calloc((size_t)(n * n_mats), sizeof *data);
    for (int64_t m = 0; m < n_mats; m++)
        for (int64_t i = 0; i < n; i++)
            data[m * n + i] = memory_value(t, mat + m, i);
    assert_int_equal(
        safetensors_writer_data(w, data, (size_t)(n * n_mats) * (retype ? 2 : 4), &error),
        MARCO_OK);
    free(data);
}

/* The weights of a folder, written tensor by tensor so that they can be wrong. `pass` 0 describes,
 * 1 writes. */
static void write_pass(safetensors_writer *w, const model_config *c, const damage *d, int pass)
{
    model_tensor tensors[256];
    size_t n = model_config_tensors(c, tensors, 256);
    char name[128];
    for (size_t i = 0; i < n; i++) {
        model_tensor t = tensors[i];
        bool vector = model_role_is_float(t.role) && t.role != MODEL_ROUTER;
        int64_t dims[3] = {vector ? t.cols : t.rows, t.cols, 1};
        if (d->fused && model_role_is_expert(t.role)) {
            bool down = t.role == MODEL_EXPERT_DOWN;
            snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%s", (int)t.layer,
                     down ? "down_proj" : "gate_up_proj");
            int64_t fused[3] = {t.mats, down ? t.rows : 2 * t.rows, t.cols};
            if (t.role == MODEL_EXPERT_UP)
                continue;
            if (pass == 0)
                put(w, d, name, 3, fused);
            for (int64_t mat = 0; pass == 1 && mat < t.mats; mat++) {
                emit(w, d, name, &t, mat, 1);
                model_tensor up = t;
                up.role = MODEL_EXPERT_UP;
                if (!down)
                    emit(w, d, name, &up, mat, 1);
            }
            continue;
        }
        for (int64_t mat = 0; mat < t.mats; mat++) {
            model_tensor_hf_name(c, &t, mat, name);
            if (pass == 0)
                put(w, d, name, vector ? 1 : 2, dims);
            else
                emit(w, d, name, &t, mat, 1);
        }
    }
    const model_tensor extra = {MODEL_ATTN_NORM, 0, TENSOR_F32, 1, 1, 64};
    const int64_t dims[1] = {64};
    if (d->extra && pass == 0)
        put(w, d, d->extra, 1, dims);
    else if (d->extra)
        emit(w, d, d->extra, &extra, 0, 1);
}

static marco_status open_damaged(scratch *s, const model_config *c, damage d, model_source **out)
{
    safetensors_writer *w = NULL;
    scratch_remove(s);
    assert_true(scratch_create(s));
    assert_int_equal(model_config_write_hf(c, s->folder, TENSOR_F32, &error), MARCO_OK);
    assert_int_equal(safetensors_writer_create(s->folder, UINT64_C(1) << 40, &w, &error), MARCO_OK);
    write_pass(w, c, &d, 0);
    assert_int_equal(safetensors_writer_begin(w, &error), MARCO_OK);
    write_pass(w, c, &d, 1);
    assert_int_equal(safetensors_writer_commit(w, &error), MARCO_OK);
    error = (marco_error){0};
    return model_source_open(s->folder, out, &error);
}

static void damaged_folders_are_refused_by_name(void **state)
{
    static const struct {
        damage d;
        const char *named;
        marco_status status;
    } cases[] = {
        {{.skip = "model.norm.weight"}, "model.norm.weight is missing", MARCO_ERROR_FORMAT},
        {{.skip = "model.layers.1.mlp.experts.5.up_proj.weight"},
         "experts.5.up_proj.weight is missing",
         MARCO_ERROR_FORMAT},
        {{.skip = "lm_head.weight"}, "tie_word_embeddings", MARCO_ERROR_FORMAT},
        {{.extra = "model.layers.0.self_attn.q_proj.bias"}, "q_proj.bias", MARCO_ERROR_UNSUPPORTED},
        {{.extra = "model.layers.2.input_layernorm.weight"}, "layers.2", MARCO_ERROR_UNSUPPORTED},
        {{.reshape = "model.embed_tokens.weight"},
         "[132, 64], but config.json asks for [264, 64]",
         MARCO_ERROR_FORMAT},
        {{.reshape = "model.layers.0.self_attn.q_norm.weight"}, "[16]", MARCO_ERROR_FORMAT},
        {{.reshape = "model.layers.0.mlp.gate.weight"}, "[3, 64]", MARCO_ERROR_FORMAT},
        {{.retype = "model.layers.0.mlp.experts.3.gate_proj.weight"},
         "experts.3.gate_proj",
         MARCO_ERROR_UNSUPPORTED},
        {{.fused = true, .skip = "model.layers.0.mlp.experts.down_proj"},
         "experts.0.down_proj",
         MARCO_ERROR_FORMAT},
        {{.fused = true, .reshape = "model.layers.0.mlp.experts.down_proj"},
         "[3, 64, 32]",
         MARCO_ERROR_FORMAT},
    };
    model_config c = memory_config(MODEL_QWEN3MOE);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        model_source *source = NULL;
        marco_status status = open_damaged(*state, &c, cases[i].d, &source);
        if (status != cases[i].status || !strstr(error.message, cases[i].named))
            fail_msg("case %zu: %d \"%s\"", i, status, error.message);
    }
}

static void harmless_extras_are_ignored(void **state)
{
    model_config c = memory_config(MODEL_QWEN3);
    model_source *source = NULL;
    assert_true(c.tied);
    assert_int_equal(open_damaged(*state, &c, (damage){.extra = "lm_head.weight"}, &source),
                     MARCO_OK);
    model_source_close(source);
    assert_int_equal(open_damaged(*state, &c,
                                  (damage){.extra = "model.layers.0.self_attn.rotary_emb.inv_freq"},
                                  &source),
                     MARCO_OK);
    model_source_close(source);
}

static void fused_experts_are_read(void **state)
{
    model_config c = memory_config(MODEL_QWEN3MOE);
    model_source *source = NULL;
    if (open_damaged(*state, &c, (damage){.fused = true}, &source) != MARCO_OK)
        fail_msg("%s", error.message);
    for (size_t i = 0; i < source->n_tensors; i++)
        assert_tensor(source, i, TENSOR_F32);
    model_source_close(source);
}

/* ---- damaged GGUF files -------------------------------------------------------------------- */

typedef struct gguf_damage {
    const char *skip, *extra, *reshape;
} gguf_damage;

static marco_status open_damaged_gguf(scratch *s, const model_config *c, gguf_damage d)
{
    const char *path = scratch_path(s, "damaged.gguf");
    model_tensor tensors[256];
    size_t n = model_config_tensors(c, tensors, 256);
    char name[128];
    static float zeros[512 * 1024];
    gguf_writer *w = NULL;
    model_source *source = NULL;
    assert_int_equal(gguf_writer_create(path, true, &w, &error), MARCO_OK);
    assert_int_equal(model_config_write_gguf(c, TENSOR_F32, w, &error), MARCO_OK);
    uint64_t sizes[257];
    size_t n_sizes = 0;
    for (size_t i = 0; i < n; i++) {
        const model_tensor *t = &tensors[i];
        bool vector = model_role_is_vector(t->role);
        int64_t dims[3] = {t->cols, t->rows, t->mats};
        model_tensor_gguf_name(t, name);
        if (d.skip && strcmp(name, d.skip) == 0)
            continue;
        if (d.reshape && strcmp(name, d.reshape) == 0)
            dims[0] /= 2;
        gguf_put_tensor(w, name, TENSOR_F32,
                        vector                          ? 1
                        : model_role_is_expert(t->role) ? 3
                                                        : 2,
                        dims);
        sizes[n_sizes++] = (uint64_t)(dims[0] * (vector ? 1 : dims[1] * dims[2])) * 4;
    }
    const int64_t dims[1] = {16};
    if (d.extra) {
        gguf_put_tensor(w, d.extra, TENSOR_F32, 1, dims);
        sizes[n_sizes++] = 64;
    }
    assert_int_equal(gguf_writer_begin(w, &error), MARCO_OK);
    for (size_t i = 0; i < n_sizes; i++)
        assert_int_equal(gguf_writer_data(w, zeros, sizes[i], &error), MARCO_OK);
    assert_int_equal(gguf_writer_commit(w, &error), MARCO_OK);
    error = (marco_error){0};
    marco_status status = model_source_open(path, &source, &error);
    if (!status)
        model_source_close(source);
    return status;
}

static void damaged_gguf_files_are_refused_by_name(void **state)
{
    static const struct {
        gguf_damage d;
        const char *named;
        marco_status status;
    } cases[] = {
        {{.skip = "blk.1.ffn_up_exps.weight"},
         "blk.1.ffn_up_exps.weight is missing",
         MARCO_ERROR_FORMAT},
        {{.skip = "token_embd.weight"}, "token_embd.weight", MARCO_ERROR_FORMAT},
        {{.extra = "blk.0.attn_q.bias"}, "blk.0.attn_q.bias", MARCO_ERROR_UNSUPPORTED},
        {{.extra = "blk.0.ffn_gate_shexp.weight"}, "ffn_gate_shexp", MARCO_ERROR_UNSUPPORTED},
        {{.extra = "rope_freqs.weight"}, "rope_freqs.weight", MARCO_ERROR_UNSUPPORTED},
        {{.reshape = "blk.0.attn_norm.weight"}, "blk.0.attn_norm.weight", MARCO_ERROR_FORMAT},
        {{.reshape = "blk.1.ffn_down_exps.weight"}, "[32, 64, 6, 1]", MARCO_ERROR_FORMAT},
    };
    model_config c = memory_config(MODEL_QWEN3MOE);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gguf_damage d = cases[i].d;
        bool halved = d.reshape && strstr(d.reshape, "down_exps");
        marco_status status = open_damaged_gguf(*state, &c, d);
        const char *named = halved ? "[16, 64, 6, 1]" : cases[i].named;
        if (status != cases[i].status || !strstr(error.message, named))
            fail_msg("case %zu: %d \"%s\"", i, status, error.message);
    }
    assert_int_equal(open_damaged_gguf(*state, &c, (gguf_damage){0}), MARCO_OK);
}

/* ---- other inputs -------------------------------------------------------------------------- */

static void wrong_paths_say_what_is_wrong(void **state)
{
    scratch *s = *state;
    model_source *source = NULL;
    assert_int_equal(model_source_open(scratch_path(s, "none.gguf"), &source, &error),
                     MARCO_ERROR_NOT_FOUND);
    assert_int_equal(model_source_open(s->folder, &source, &error), MARCO_ERROR_NOT_FOUND);
    assert_non_null(strstr(error.message, "config.json"));
    assert_int_equal(model_source_open(scratch_path(s, "model.safetensors"), &source, &error),
                     MARCO_ERROR_NOT_FOUND);
    FILE *f = fopen(scratch_path(s, "config.json"), "w");
    assert_non_null(f);
    fputs("{}", f);
    fclose(f);
    assert_int_equal(model_source_open(scratch_path(s, "config.json"), &source, &error),
                     MARCO_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "folder"));
    /* What a GGUF file is called does not matter. */
    model_config c = memory_config(MODEL_QWEN3);
    assert_int_equal(memory_write(&c, TENSOR_F32, -1, scratch_path(s, "a.gguf"), &error), MARCO_OK);
    assert_int_equal(rename(scratch_path(s, "a.gguf"), scratch_path(s, "blob.json")), 0);
    if (model_source_open(scratch_path(s, "blob.json"), &source, &error) != MARCO_OK)
        fail_msg("%s", error.message);
    model_source_close(source);
}

/* A file cut off after it was opened. */
static void a_file_that_shrinks_is_an_error(void **state)
{
    scratch *s = *state;
    const char *path = scratch_path(s, "model.gguf");
    model_config c = memory_config(MODEL_LLAMA);
    model_source *source = NULL;
    char row[512];
    assert_int_equal(memory_write(&c, TENSOR_F32, -1, path, &error), MARCO_OK);
    assert_int_equal(model_source_open(path, &source, &error), MARCO_OK);
    assert_int_equal(truncate(path, 20000), 0);
    size_t last = source->n_tensors - 1;
    assert_int_not_equal(source->read(source, last, 0, 0, 1, row, &error), MARCO_OK);
    assert_non_null(strstr(error.message, "model.gguf"));
    model_source_close(source);
}

static void every_failed_allocation_is_an_error(void **state)
{
    scratch *s = *state;
    model_config c = memory_config(MODEL_QWEN3MOE);
    for (int k = 0; k < 2; k++) {
        const char *path = scratch_path(s, k ? "model.gguf" : "model");
        assert_int_equal(memory_write(&c, TENSOR_F32, -1, path, &error), MARCO_OK);
        for (uint64_t n = 1;; n++) {
            model_source *source = NULL;
            base_alloc_fail_at(n);
            marco_status status = model_source_open(path, &source, &error);
            base_alloc_fail_at(0);
            if (status == MARCO_OK) {
                assert_true(n > 20);
                model_source_close(source);
                break;
            }
            assert_int_equal(status, MARCO_ERROR_MEMORY);
            assert_null(source);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCRATCH_TEST(rows_are_those_written),
        SCRATCH_TEST(llama_rows_are_permuted_in_gguf),
        SCRATCH_TEST(ids_of_tokenizer_and_configuration_are_shared),
        SCRATCH_TEST(damaged_folders_are_refused_by_name),
        SCRATCH_TEST(harmless_extras_are_ignored),
        SCRATCH_TEST(fused_experts_are_read),
        SCRATCH_TEST(damaged_gguf_files_are_refused_by_name),
        SCRATCH_TEST(wrong_paths_say_what_is_wrong),
        SCRATCH_TEST(a_file_that_shrinks_is_an_error),
        SCRATCH_TEST(every_failed_allocation_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
