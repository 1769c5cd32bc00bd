/* Converting: there and back without a changed bit, types, refusals, and nothing left behind. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/file.h"
#include "base/memory.h"
#include "memory_source.h"
#include "scratch.h"

static marco_error error;

static marco_status convert(const char *from, const char *to, const char *type)
{
    marco_convert_params params = marco_convert_params_default();
    params.type = type;
    params.threads = 2;
    error = (marco_error){0};
    return marco_convert(from, to, &params, &error);
}

static void must_convert(const char *from, const char *to, const char *type)
{
    if (convert(from, to, type) != MARCO_OK)
        fail_msg("%s", error.message);
}

static void clean(scratch *s)
{
    scratch_remove(s);
    assert_true(scratch_create(s));
}

/* Folder to file to folder to file: the two folders and the two files are the same. */
static void there_and_back_is_bit_identical(void **state)
{
    static const tensor_type types[] = {TENSOR_F32, TENSOR_F16, TENSOR_BF16};
    scratch *s = *state;
    for (model_arch arch = MODEL_LLAMA; arch <= MODEL_QWEN3MOE; arch++) {
        for (int k = 0; k < 3; k++) {
            model_config c = memory_config(arch);
            c.rope.scaling = arch == MODEL_LLAMA ? MODEL_ROPE_LLAMA3 : MODEL_ROPE_NONE;
            c.rope.factor = arch == MODEL_LLAMA ? 8 : 1;
            c.rope.original_context = 64;
            c.bos = -1; /* else the tokenizer's files gain one on the way */
            assert_int_equal(memory_write(&c, types[k], -1, scratch_path(s, "a"), &error),
                             MARCO_OK);
            /* The name of a folder is not in it: read from one called the same. */
            must_convert(scratch_path(s, "a"), scratch_path(s, "a.gguf"), NULL);
            must_convert(scratch_path(s, "a.gguf"), scratch_path(s, "b"), NULL);
            assert_true(scratch_same_folder(scratch_path(s, "a"), scratch_path(s, "b")));
            assert_int_equal(rename(scratch_path(s, "a"), scratch_path(s, "first")), 0);
            assert_int_equal(rename(scratch_path(s, "b"), scratch_path(s, "a")), 0);
            must_convert(scratch_path(s, "a"), scratch_path(s, "b.gguf"), NULL);
            assert_true(scratch_same_file(scratch_path(s, "a.gguf"), scratch_path(s, "b.gguf")));
            clean(s);
        }
    }
}

static void threads_make_no_difference(void **state)
{
    scratch *s = *state;
    model_config c = memory_config(MODEL_MIXTRAL);
    assert_int_equal(memory_write(&c, TENSOR_F32, -1, scratch_path(s, "a"), &error), MARCO_OK);
    for (int32_t threads = 1; threads <= 3; threads++) {
        marco_convert_params params = marco_convert_params_default();
        char name[16];
        snprintf(name, sizeof name, "%d.gguf", threads);
        params.type = "Q8_0";
        params.threads = threads;
        assert_int_equal(
            marco_convert(scratch_path(s, "a"), scratch_path(s, name), &params, &error), MARCO_OK);
        assert_true(scratch_same_file(scratch_path(s, "1.gguf"), scratch_path(s, name)));
    }
}

/* ---- types --------------------------------------------------------------------------------- */

static void q8_0_is_the_encoder_s_and_falls_back_to_f16(void **state)
{
    scratch *s = *state;
    const char *path = scratch_path(s, "q.gguf");
    model_config c = memory_config(MODEL_QWEN3);
    gguf *g = NULL;
    c.ffn_dim = 80; /* no multiple of 32: the columns of down */
    assert_int_equal(memory_write(&c, TENSOR_F32, TENSOR_Q8_0, path, &error), MARCO_OK);
    assert_int_equal(gguf_open(path, &g, &error), MARCO_OK);
    assert_int_equal(gguf_tensor_find(g, "blk.0.ffn_down.weight")->type, TENSOR_F16);
    assert_int_equal(gguf_tensor_find(g, "blk.0.ffn_up.weight")->type, TENSOR_Q8_0);
    assert_int_equal(gguf_tensor_find(g, "token_embd.weight")->type, TENSOR_Q8_0);
    assert_int_equal(gguf_tensor_find(g, "blk.0.attn_q_norm.weight")->type, TENSOR_F32);
    int64_t kind = 0;
    assert_int_equal(gguf_get_int(g, "general.file_type", 0, 100, &kind, &error), MARCO_OK);
    assert_int_equal(kind, 7);
    const gguf_tensor *up = gguf_tensor_find(g, "blk.1.ffn_up.weight");
    const model_tensor t = {MODEL_FFN_UP, 1, TENSOR_F32, 1, 80, 64};
    for (int64_t row = 0; row < 80; row++) {
        float numbers[64];
        char want[68], got[68];
        for (int64_t i = 0; i < 64; i++)
            numbers[i] = memory_value(&t, 0, row * 64 + i);
        tensor_traits_of(TENSOR_Q8_0)->encode(numbers, want, 64);
        assert_int_equal(
            base_file_read(gguf_file(g), up->offset + (uint64_t)row * 68, got, 68, &error),
            MARCO_OK);
        assert_memory_equal(got, want, 68);
    }
    gguf_close(g);

    /* Quantised bytes are copied as they are, permuted rows included. */
    must_convert(path, scratch_path(s, "copy.gguf"), NULL);
    assert_true(scratch_same_file(path, scratch_path(s, "copy.gguf")));
    model_config llama = memory_config(MODEL_LLAMA);
    assert_int_equal(
        memory_write(&llama, TENSOR_F32, TENSOR_Q8_0, scratch_path(s, "l.gguf"), &error), MARCO_OK);
    must_convert(scratch_path(s, "l.gguf"), scratch_path(s, "m.gguf"), NULL);
    assert_true(scratch_same_file(scratch_path(s, "l.gguf"), scratch_path(s, "m.gguf")));
}

static void quantised_files_become_bf16_folders(void **state)
{
    scratch *s = *state;
    model_config c = memory_config(MODEL_LLAMA);
    model_source *source = NULL;
    assert_int_equal(memory_write(&c, TENSOR_F32, TENSOR_Q8_0, scratch_path(s, "q.gguf"), &error),
                     MARCO_OK);
    must_convert(scratch_path(s, "q.gguf"), scratch_path(s, "q"), NULL);
    assert_int_equal(model_source_open(scratch_path(s, "q"), &source, &error), MARCO_OK);
    for (size_t i = 0; i < source->n_tensors; i++)
        assert_int_equal(source->tensors[i].type, TENSOR_BF16);
    uint16_t row[64];
    int64_t index = model_source_find(source, MODEL_ATTN_Q, 1);
    assert_int_equal(source->read(source, (size_t)index, 0, 17, 1, row, &error), MARCO_OK);
    const model_tensor t = {MODEL_ATTN_Q, 1, TENSOR_F32, 1, 128, 64};
    for (int64_t i = 0; i < 64; i++)
        assert_true(fabsf(tensor_bf16_to_f32(row[i]) - memory_value(&t, 0, 17 * 64 + i)) < 0.01f);
    model_source_close(source);
}

static void types_that_cannot_be_are_refused(void **state)
{
    scratch *s = *state;
    model_config c = memory_config(MODEL_LLAMA);
    assert_int_equal(memory_write(&c, TENSOR_F32, -1, scratch_path(s, "a"), &error), MARCO_OK);
    assert_int_equal(convert(scratch_path(s, "a"), scratch_path(s, "b"), "Q8_0"),
                     MARCO_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "Q8_0"));
    assert_int_equal(convert(scratch_path(s, "a"), scratch_path(s, "b.gguf"), "Q3_K"),
                     MARCO_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "Q3_K can be read but not written"));
    assert_int_equal(convert(scratch_path(s, "a"), scratch_path(s, "b.gguf"), "Q9"),
                     MARCO_ERROR_ARGUMENT);
    assert_int_equal(convert(scratch_path(s, "a"), scratch_path(s, "b.gguf"), ""),
                     MARCO_ERROR_ARGUMENT);
    assert_int_equal(convert(scratch_path(s, "a"), "", NULL), MARCO_ERROR_ARGUMENT);
    assert_int_equal(scratch_count(s->folder), 1);
}

/* Reads as the memory source does, but for one number. */
static marco_status read_large(model_source *source, size_t index, int64_t mat, int64_t row,
                               int64_t n, void *dst, marco_error *problem)
{
    marco_status status = memory_read(source, index, mat, row, n, dst, problem);
    if (source->tensors[index].role == MODEL_ATTN_V && row <= 7 && 7 < row + n)
        ((float *)dst)[(7 - row) * source->tensors[index].cols] = 70000;
    return status;
}

static void f16_overflow_is_an_error(void **state)
{
    scratch *s = *state;
    model_config c = memory_config(MODEL_QWEN3);
    model_source *source = memory_source_create(&c, TENSOR_F32, false);
    model_copy_params params = {.type = TENSOR_F16, .threads = 2, .what = "writing"};
    source->read = read_large;
    assert_int_equal(model_copy(source, scratch_path(s, "a"), &params, &error),
                     MARCO_ERROR_NUMERIC);
    assert_non_null(strstr(error.message, "blk.0.attn_v.weight holds 70000"));
    assert_int_equal(scratch_count(s->folder), 0);
    params.type = TENSOR_BF16;
    assert_int_equal(model_copy(source, scratch_path(s, "a"), &params, &error), MARCO_OK);
    model_source_close(source);
}

/* Reads as the memory source does, zeros in blocks, but for a row of ones in all bits: in every
 * type they are no number. */
static marco_status read_nan(model_source *source, size_t index, int64_t mat, int64_t row,
                             int64_t n, void *dst, marco_error *problem)
{
    const model_tensor *t = &source->tensors[index];
    size_t row_bytes = tensor_row_bytes(t->type, t->cols);
    if (t->type == TENSOR_Q8_0)
        memset(dst, 0, (size_t)n * row_bytes);
    else
        memory_read(source, index, mat, row, n, dst, problem);
    if (t->role == MODEL_ATTN_V && row <= 7 && 7 < row + n)
        memset((char *)dst + (size_t)(7 - row) * row_bytes, 0xff, row_bytes);
    return MARCO_OK;
}

static void refuses_nan(scratch *s, tensor_type from, int to)
{
    model_config c = memory_config(MODEL_QWEN3);
    model_source *source = memory_source_create(&c, from, false);
    model_copy_params params = {.type = to, .threads = 2, .what = "writing"};
    source->read = read_nan;
    assert_int_equal(model_copy(source, scratch_path(s, "a.gguf"), &params, &error),
                     MARCO_ERROR_NUMERIC);
    assert_non_null(strstr(error.message, "blk.0.attn_v.weight holds a number that is not"));
    assert_int_equal(scratch_count(s->folder), 0);
    model_source_close(source);
}

static void what_is_not_finite_is_not_converted(void **state)
{
    for (int type = TENSOR_F32; type <= TENSOR_BF16; type++) {
        const tensor_traits *traits = tensor_traits_of((uint32_t)type);
        if (traits && traits->encode)
            refuses_nan(*state, TENSOR_F32, type);
    }
}

static void what_is_not_finite_is_not_copied(void **state)
{
    static const tensor_type types[] = {TENSOR_F32, TENSOR_F16, TENSOR_BF16, TENSOR_Q8_0};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        refuses_nan(*state, types[i], -1);
}

static void names_say_what_is_written(void **state)
{
    scratch *s = *state;
    model_config c = memory_config(MODEL_QWEN3);
    assert_int_equal(memory_write(&c, TENSOR_F32, -1, scratch_path(s, "a.gguf/"), &error),
                     MARCO_ERROR_ARGUMENT);
    assert_int_equal(scratch_count(s->folder), 0);
    assert_int_equal(memory_write(&c, TENSOR_F32, -1, scratch_path(s, "a.GGUF"), &error), MARCO_OK);
    assert_false(base_is_folder(scratch_path(s, "a.GGUF")));
}

static void bad_arguments_are_refused(void **state)
{
    scratch *s = *state;
    model_config c = memory_config(MODEL_QWEN3);
    assert_int_equal(memory_write(&c, TENSOR_F32, -1, scratch_path(s, "a"), &error), MARCO_OK);
    assert_int_equal(marco_convert(NULL, scratch_path(s, "b"), NULL, &error), MARCO_ERROR_ARGUMENT);
    assert_int_equal(marco_convert(scratch_path(s, "a"), NULL, NULL, &error), MARCO_ERROR_ARGUMENT);
    char *json = (char *)"stale";
    assert_int_equal(marco_inspect(NULL, &json, &error), MARCO_ERROR_ARGUMENT);
    assert_null(json);
    json = (char *)"stale";
    assert_int_equal(marco_inspect(scratch_path(s, "none"), &json, &error), MARCO_ERROR_NOT_FOUND);
    assert_null(json);
    assert_int_equal(marco_inspect(scratch_path(s, "a"), NULL, &error), MARCO_ERROR_ARGUMENT);
    static const int32_t threads[] = {-1, 1025, INT32_MIN};
    for (int i = 0; i < 3; i++) {
        marco_convert_params params = marco_convert_params_default();
        char number[16];
        params.threads = threads[i];
        snprintf(number, sizeof number, "%d", (int)threads[i]);
        assert_int_equal(
            marco_convert(scratch_path(s, "a"), scratch_path(s, "b.gguf"), &params, &error),
            MARCO_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, "threads"));
        assert_non_null(strstr(error.message, number));
    }
    assert_int_equal(scratch_count(s->folder), 1);
}

/* ---- metadata ------------------------------------------------------------------------------ */

/* A file with the keys that other programs put into theirs: a copy of another with them added. */
static void write_with_extras(const char *from, const char *to)
{
    static const gguf_string tags[] = {{"text-generation", 15}, {"moe", 3}};
    gguf *g = NULL;
    gguf_writer *w = NULL;
    const gguf_value *value;
    const char *key;
    assert_int_equal(gguf_open(from, &g, &error), MARCO_OK);
    assert_int_equal(gguf_writer_create(to, false, &w, &error), MARCO_OK);
    for (size_t i = 0; (key = gguf_key(g, i, &value)); i++)
        gguf_put_value(w, key, value);
    gguf_put_string(w, "general.license", "apache-2.0");
    gguf_put_u32(w, "general.base_model.count", 1);
    gguf_put_string(w, "general.base_model.0.name", "Parent");
    gguf_put_array_string(w, "general.tags", tags, 2);
    gguf_put_f32(w, "custom.number", 0.5f);
    gguf_put_string(w, "quantize.imatrix.file", "old.dat");
    gguf_put_u32(w, "split.count", 0);
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        gguf_put_tensor(w, t->name, t->type, t->n_dims, t->dims);
    }
    assert_int_equal(gguf_writer_begin(w, &error), MARCO_OK);
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        char *data = malloc(t->bytes);
        assert_non_null(data);
        assert_int_equal(base_file_read(gguf_file(g), t->offset, data, t->bytes, &error), MARCO_OK);
        assert_int_equal(gguf_writer_data(w, data, t->bytes, &error), MARCO_OK);
        free(data);
    }
    assert_int_equal(gguf_writer_commit(w, &error), MARCO_OK);
    gguf_close(g);
}

static void assert_string(const gguf *g, const char *key, const char *want)
{
    gguf_string s = {"", 0};
    assert_int_equal(gguf_get_string(g, key, &s, &error), MARCO_OK);
    assert_int_equal(s.size, strlen(want));
    assert_memory_equal(s.data, want, s.size);
}

static void other_metadata_stays(void **state)
{
    scratch *s = *state;
    model_config c = memory_config(MODEL_QWEN3MOE);
    gguf *g = NULL;
    assert_int_equal(memory_write(&c, TENSOR_F32, -1, scratch_path(s, "p.gguf"), &error), MARCO_OK);
    write_with_extras(scratch_path(s, "p.gguf"), scratch_path(s, "a.gguf"));
    must_convert(scratch_path(s, "a.gguf"), scratch_path(s, "b.gguf"), "Q8_0");
    assert_int_equal(gguf_open(scratch_path(s, "b.gguf"), &g, &error), MARCO_OK);
    assert_string(g, "general.license", "apache-2.0");
    assert_string(g, "general.base_model.0.name", "Parent");
    const gguf_value *value = gguf_get(g, "general.tags");
    assert_non_null(value);
    assert_int_equal(value->array.n, 2);
    assert_memory_equal(value->array.strings[1].data, "moe", 3);
    value = gguf_get(g, "general.base_model.count");
    assert_true(value && value->type == GGUF_U32 && value->u == 1);
    value = gguf_get(g, "custom.number");
    assert_true(value && value->type == GGUF_F32 && value->f == 0.5);
    /* What this file is, not what the other was. */
    value = gguf_get(g, "general.file_type");
    assert_true(value && value->u == 7);
    assert_string(g, "general.name", "tiny");
    assert_null(gguf_get(g, "quantize.imatrix.file"));
    assert_null(gguf_get(g, "split.count"));
    gguf_close(g);
    /* And again, the same bytes. */
    must_convert(scratch_path(s, "b.gguf"), scratch_path(s, "c.gguf"), NULL);
    assert_true(scratch_same_file(scratch_path(s, "b.gguf"), scratch_path(s, "c.gguf")));
}

/* ---- interrupted --------------------------------------------------------------------------- */

typedef struct watcher {
    uint64_t calls, stop_at, last, total;
} watcher;

static int watch(void *user, const char *what, uint64_t done, uint64_t total)
{
    watcher *w = user;
    assert_string_equal(what, "converting");
    assert_true(done >= w->last && done <= total);
    w->last = done;
    w->total = total;
    return ++w->calls == w->stop_at;
}

static void cancelling_leaves_nothing(void **state)
{
    scratch *s = *state;
    model_config c = memory_config(MODEL_QWEN3MOE);
    assert_int_equal(memory_write(&c, TENSOR_F32, -1, scratch_path(s, "a"), &error), MARCO_OK);
    for (int k = 0; k < 2; k++) {
        char to[400];
        snprintf(to, sizeof to, "%s", scratch_path(s, k ? "b.gguf" : "b"));
        watcher w = {0};
        marco_convert_params params = marco_convert_params_default();
        params.progress = (marco_progress){watch, &w};
        for (w.stop_at = 1; w.stop_at < 28; w.stop_at += 9) {
            w.calls = w.last = 0;
            assert_int_equal(marco_convert(scratch_path(s, "a"), to, &params, &error),
                             MARCO_ERROR_CANCELLED);
            assert_int_equal(scratch_count(s->folder), 1);
        }
        w = (watcher){0};
        assert_int_equal(marco_convert(scratch_path(s, "a"), to, &params, &error), MARCO_OK);
        assert_true(w.last == w.total && w.total > 0);
        assert_int_equal(marco_convert(scratch_path(s, "a"), to, &params, &error),
                         MARCO_ERROR_EXISTS);
        params.overwrite = true;
        w = (watcher){0};
        assert_int_equal(marco_convert(scratch_path(s, "a"), to, &params, &error), MARCO_OK);
        clean(s);
        assert_int_equal(memory_write(&c, TENSOR_F32, -1, scratch_path(s, "a"), &error), MARCO_OK);
    }
}

static void every_failed_allocation_leaves_nothing(void **state)
{
    scratch *s = *state;
    model_config c = memory_config(MODEL_MIXTRAL);
    c.n_layers = 1;
    assert_int_equal(memory_write(&c, TENSOR_F32, -1, scratch_path(s, "a"), &error), MARCO_OK);
    for (int k = 0; k < 2; k++) {
        char to[400];
        snprintf(to, sizeof to, "%s", scratch_path(s, k ? "b.gguf" : "b"));
        marco_convert_params params = marco_convert_params_default();
        params.type = "BF16";
        params.threads = 2;
        /* Each round that gets far flushes files to the disk, so not quite every one. */
        for (uint64_t n = 1;; n += n < 100 ? 1 : 3) {
            base_alloc_fail_at(n);
            marco_status status = marco_convert(scratch_path(s, "a"), to, &params, &error);
            base_alloc_fail_at(0);
            if (status == MARCO_OK)
                break;
            if (status != MARCO_ERROR_MEMORY || scratch_count(s->folder) != 1 + k)
                fail_msg("allocation %d: %d \"%s\"", (int)n, status, error.message);
        }
    }
}

/* ---- the tokenizer's files ----------------------------------------------------------------- */

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void tokenizer_files_are_copied_between_folders(void **state)
{
    scratch *s = *state;
    model_config c = memory_config(MODEL_QWEN3);
    assert_int_equal(memory_write(&c, TENSOR_F32, -1, scratch_path(s, "a"), &error), MARCO_OK);
    write_text(scratch_path(s, "a/special_tokens_map.json"), "{\"mine\": 1}\n");
    must_convert(scratch_path(s, "a"), scratch_path(s, "b"), "BF16");
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
                                        "special_tokens_map.json"};
    for (int i = 0; i < 3; i++) {
        char a[64], b[64];
        snprintf(a, sizeof a, "a/%s", names[i]);
        snprintf(b, sizeof b, "b/%s", names[i]);
        assert_true(scratch_same_file(scratch_path(s, a), scratch_path(s, b)));
    }
}

/* ---- inspect ------------------------------------------------------------------------------- */

static int64_t int_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

static json_t *inspect(const char *path)
{
    char *text = NULL;
    if (marco_inspect(path, &text, &error) != MARCO_OK)
        fail_msg("%s", error.message);
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(object);
    marco_free(text);
    return object;
}

static void inspect_describes_both_formats(void **state)
{
    scratch *s = *state;
    model_config c = memory_config(MODEL_QWEN3MOE);
    strcpy(c.provenance, "random weights");
    assert_int_equal(memory_write(&c, TENSOR_BF16, -1, scratch_path(s, "a"), &error), MARCO_OK);
    must_convert(scratch_path(s, "a"), scratch_path(s, "a.gguf"), "Q8_0");
    for (int k = 0; k < 2; k++) {
        json_t *o = inspect(scratch_path(s, k ? "a.gguf" : "a"));
        assert_string_equal(json_string_value(json_object_get(o, "architecture")), "qwen3moe");
        assert_string_equal(json_string_value(json_object_get(o, "format")),
                            k ? "GGUF" : "Hugging Face");
        assert_string_equal(json_string_value(json_object_get(o, "provenance")), "random weights");
        assert_int_equal(int_of(o, "total_params"), model_config_total_params(&c));
        assert_int_equal(int_of(o, "active_params"), model_config_active_params(&c));
        assert_int_equal(int_of(o, "kv_bytes_per_token"), 2 * 2 * 2 * 32 * 2);
        const json_t *shape = json_object_get(o, "shape");
        assert_int_equal(int_of(shape, "experts"), 6);
        assert_int_equal(int_of(shape, "sparse_layers"), 2);
        const json_t *tensors = json_object_get(o, "tensors");
        int64_t bytes = 0;
        size_t index;
        json_t *entry;
        json_array_foreach(tensors, index, entry) bytes += int_of(entry, "bytes");
        assert_int_equal(int_of(o, "weight_bytes"), bytes);
        /* Untied: one row of the embedding, and two experts of six. Norms are F32 in memory. */
        int64_t element = k ? 34 : 64, experts = 2 * 3 * 6 * 32 * 64 * element / 32;
        int64_t embedding = (int64_t)c.n_vocab * 64 * element / 32;
        int64_t row = 64 * element / 32, norms = 64 + 2 * (2 * 64 + 2 * 32);
        assert_int_equal(int_of(o, "bytes_per_token"),
                         bytes - experts + experts / 3 - embedding + row +
                             (k ? 0 : norms * (int64_t)sizeof(uint16_t)));
        const json_t *tokenizer = json_object_get(o, "tokenizer");
        assert_int_equal(int_of(tokenizer, "tokens"), 256);
        assert_int_equal(int_of(tokenizer, "special_tokens"), 3);
        assert_int_equal(json_array_size(json_object_get(o, "unused_keys")), 0);
        json_decref(o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCRATCH_TEST(there_and_back_is_bit_identical),
        SCRATCH_TEST(threads_make_no_difference),
        SCRATCH_TEST(q8_0_is_the_encoder_s_and_falls_back_to_f16),
        SCRATCH_TEST(quantised_files_become_bf16_folders),
        SCRATCH_TEST(types_that_cannot_be_are_refused),
        SCRATCH_TEST(f16_overflow_is_an_error),
        SCRATCH_TEST(what_is_not_finite_is_not_converted),
        SCRATCH_TEST(what_is_not_finite_is_not_copied),
        SCRATCH_TEST(names_say_what_is_written),
        SCRATCH_TEST(bad_arguments_are_refused),
        SCRATCH_TEST(other_metadata_stays),
        SCRATCH_TEST(cancelling_leaves_nothing),
        SCRATCH_TEST(every_failed_allocation_leaves_nothing),
        SCRATCH_TEST(tokenizer_files_are_copied_between_folders),
        SCRATCH_TEST(inspect_describes_both_formats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
