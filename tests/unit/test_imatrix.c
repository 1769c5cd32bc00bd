/* Importance matrices: both forms there and back, and files that are not what they say. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/memory.h"
#include "format/gguf.h"
#include "format/imatrix.h"
#include "scratch.h"

static marco_error error;

/* Two entries: a plain one of 3 columns, and 2 experts of 2 columns, the second never chosen. */
static void fill(imatrix *m)
{
    *m = (imatrix){.n_chunks = 5, .chunk_size = 8, .dataset = base_strdup("text.txt")};
    imatrix_entry *plain = imatrix_add(m, "blk.0.attn_q.weight", 3, 1);
    assert_non_null(plain);
    memcpy(plain->sums, (float[]){40, 80, 0}, 3 * sizeof(float));
    plain->counts[0] = 40;
    imatrix_entry *experts = imatrix_add(m, "blk.0.ffn_down_exps.weight", 4, 2);
    assert_non_null(experts);
    memcpy(experts->sums, (float[]){12, 24, 0, 0}, 4 * sizeof(float));
    experts->counts[0] = 24;
}

static void check_means(const imatrix *m)
{
    float means[4];
    assert_int_equal(m->n, 2);
    assert_null(imatrix_find(m, "blk.1.attn_q.weight"));
    imatrix_means(imatrix_find(m, "blk.0.attn_q.weight"), means);
    assert_memory_equal(means, ((float[]){1, 2, 0}), 3 * sizeof(float));
    const imatrix_entry *experts = imatrix_find(m, "blk.0.ffn_down_exps.weight");
    assert_int_equal(experts->n_values, 4);
    imatrix_means(experts, means);
    assert_memory_equal(means, ((float[]){0.5f, 1, 1, 1}), 4 * sizeof(float));
}

static void there_and_back(void **state)
{
    scratch *s = *state;
    for (int k = 0; k < 2; k++) {
        const char *path = scratch_path(s, k ? "a.gguf" : "a.dat");
        imatrix m, back;
        fill(&m);
        assert_int_equal(imatrix_write(path, false, &m, &error), MARCO_OK);
        assert_int_equal(imatrix_write(path, false, &m, &error), MARCO_ERROR_EXISTS);
        assert_int_equal(imatrix_write(path, true, &m, &error), MARCO_OK);
        check_means(&m);
        imatrix_clear(&m);
        if (imatrix_read(path, &back, &error) != MARCO_OK)
            fail_msg("%s", error.message);
        check_means(&back);
        assert_int_equal(back.n_chunks, 5);
        assert_int_equal(back.chunk_size, k ? 8 : 0); /* the older form has no place for it */
        assert_string_equal(back.dataset, "text.txt");
        assert_int_equal(back.entries[1].n_mats, k ? 2 : 1);
        imatrix_clear(&back);
    }
}

/* The older form as llama.cpp lays it out: entries, chunks, the text's name; calls are chunks. */
static void older_form_byte_by_byte(void **state)
{
    static const char want[] = "\2\0\0\0"
                               "\x13\0\0\0blk.0.attn_q.weight\5\0\0\0\3\0\0\0"
                               "\0\0\xa0\x40\0\0\x20\x41\0\0\0\0" /* 5 calls * 1, 2, 0 */
                               "\x1a\0\0\0"
                               "blk.0.ffn_down_exps.weight\3\0\0\0\4\0\0\0"
                               "\0\0\xc0\x3f\0\0\x40\x40\0\0\x40\x40\0\0\x40\x40"
                               "\5\0\0\0\x8\0\0\0text.txt";
    scratch *s = *state;
    imatrix m;
    char *got;
    size_t size;
    fill(&m);
    assert_int_equal(imatrix_write(scratch_path(s, "a.dat"), false, &m, &error), MARCO_OK);
    imatrix_clear(&m);
    assert_int_equal(base_file_slurp(scratch_path(s, "a.dat"), 4096, &got, &size, &error),
                     MARCO_OK);
    assert_int_equal(size, sizeof want - 1);
    assert_memory_equal(got, want, size);
    base_free(got);
}

static void write_bytes(const char *path, const char *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    fclose(file);
}

/* Every cut, and every byte changed to a large one, is read or refused, never more. */
static void damaged_files_are_refused(void **state)
{
    scratch *s = *state;
    const char *path = scratch_path(s, "bad");
    for (int k = 0; k < 2; k++) {
        const char *whole = scratch_path(s, k ? "b.gguf" : "b.dat");
        imatrix m;
        char *data;
        size_t size, refused = 0;
        fill(&m);
        assert_int_equal(imatrix_write(whole, false, &m, &error), MARCO_OK);
        imatrix_clear(&m);
        assert_int_equal(base_file_slurp(whole, 8192, &data, &size, &error), MARCO_OK);
        for (size_t cut = 0; cut < size; cut++) {
            write_bytes(path, data, cut);
            if (imatrix_read(path, &m, &error) == MARCO_OK)
                imatrix_clear(&m);
            else
                refused++;
            assert_null(m.entries);
        }
        /* Without its end the older form is a whole file of the oldest, and GGUF lacks padding. */
        assert_true(refused + 32 > size && refused < size);
        for (size_t at = 0; at < size; at++) {
            char kept = data[at];
            data[at] = (char)0x7f;
            write_bytes(path, data, size);
            if (imatrix_read(path, &m, &error) == MARCO_OK)
                imatrix_clear(&m);
            data[at] = kept;
        }
        base_free(data);
    }
}

static void refuses(const char *path, const char *data, size_t size, const char *message)
{
    imatrix m;
    write_bytes(path, data, size);
    assert_int_equal(imatrix_read(path, &m, &error), MARCO_ERROR_FORMAT);
    if (!strstr(error.message, message))
        fail_msg("no \"%s\" in \"%s\"", message, error.message);
}

#define REFUSES(bytes, message) refuses(scratch_path(s, "r"), bytes, sizeof(bytes) - 1, message)

static void refusals_say_why(void **state)
{
    scratch *s = *state;
    REFUSES("\0\0\0\0", "number of entries");
    REFUSES("\xff\xff\xff\x7f", "number of entries");
    REFUSES("\1\0\0\0\0\0\0\0 seventeen bytes.", "length of a name");
    REFUSES("\1\0\0\0\1\0\0\0a\1\0\0\0\xff\xff\xff\x7f....", "values");
    REFUSES("\1\0\0\0\1\0\0\0\xff\1\0\0\0\1\0\0\0\0\0\0\0", "UTF-8");
    REFUSES("\1\0\0\0\1\0\0\0\0\1\0\0\0\1\0\0\0\0\0\0\0", "NUL");
    REFUSES("\1\0\0\0\1\0\0\0a\1\0\0\0\1\0\0\0\0\0\x80\x7f", "a has a sum of squares of inf");
    REFUSES("\1\0\0\0\1\0\0\0a\1\0\0\0\1\0\0\0\0\0\x80\xbf", "a has a sum of squares of -1");
    REFUSES("\1\0\0\0\1\0\0\0a\1\0\0\0\1\0\0\0\0\0\xc0\x7f", "a has a sum of squares of nan");
    REFUSES("\2\0\0\0\1\0\0\0a\1\0\0\0\1\0\0\0\0\0\0\0"
            "\1\0\0\0a\1\0\0\0\1\0\0\0\0\0\0\0",
            "a occurs twice");
}

/* A GGUF file of the three named tensors [2, rows]. */
static marco_status read_gguf_of(scratch *s, const char *a, int64_t a_rows, const char *b,
                                 int64_t b_cols, int64_t b_rows)
{
    const float numbers[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    const char *path = scratch_path(s, "g.gguf");
    int64_t a_dims[2] = {2, a_rows}, b_dims[2] = {b_cols, b_rows};
    gguf_writer *w;
    imatrix m;
    assert_int_equal(gguf_writer_create(path, true, &w, &error), MARCO_OK);
    gguf_put_tensor(w, a, TENSOR_F32, 2, a_dims);
    gguf_put_tensor(w, b, TENSOR_F32, 2, b_dims);
    assert_int_equal(gguf_writer_begin(w, &error), MARCO_OK);
    assert_int_equal(gguf_writer_data(w, numbers, (size_t)a_rows * 8, &error), MARCO_OK);
    assert_int_equal(gguf_writer_data(w, numbers, (size_t)(b_cols * b_rows) * 4, &error), MARCO_OK);
    assert_int_equal(gguf_writer_commit(w, &error), MARCO_OK);
    marco_status status = imatrix_read(path, &m, &error);
    imatrix_clear(&m);
    return status;
}

static void gguf_pairs_must_match(void **state)
{
    scratch *s = *state;
    assert_int_equal(read_gguf_of(s, "a.in_sum2", 3, "a.counts", 1, 3), MARCO_OK);
    assert_int_equal(read_gguf_of(s, "a.in_sum2", 3, "a.counts", 1, 2), MARCO_ERROR_FORMAT);
    assert_int_equal(read_gguf_of(s, "a.in_sum2", 3, "a.counts", 1, 4), MARCO_ERROR_FORMAT);
    assert_int_equal(read_gguf_of(s, "a.in_sum2", 1, "b.counts", 1, 1), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "a.counts is missing"));
    assert_int_equal(read_gguf_of(s, ".in_sum2", 1, ".counts", 1, 1), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "empty"));
    assert_int_equal(read_gguf_of(s, "a.weight", 1, "b.weight", 1, 1), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "no importance matrix"));
}

static void failing_memory_is_reported(void **state)
{
    scratch *s = *state;
    for (int k = 0; k < 2; k++) {
        const char *path = scratch_path(s, k ? "m.gguf" : "m.dat");
        imatrix m;
        marco_status status = MARCO_ERROR_MEMORY;
        fill(&m);
        for (uint64_t n = 1; status == MARCO_ERROR_MEMORY && n < 1000; n++) {
            base_alloc_fail_at(n);
            status = imatrix_write(path, true, &m, &error);
        }
        base_alloc_fail_at(0);
        assert_int_equal(status, MARCO_OK);
        imatrix_clear(&m);
        status = MARCO_ERROR_MEMORY;
        for (uint64_t n = 1; status == MARCO_ERROR_MEMORY && n < 1000; n++) {
            base_alloc_fail_at(n);
            status = imatrix_read(path, &m, &error);
        }
        base_alloc_fail_at(0);
        assert_int_equal(status, MARCO_OK);
        check_means(&m);
        imatrix_clear(&m);
    }
}

static void nothing_or_nonsense_is_not_written(void **state)
{
    scratch *s = *state;
    imatrix m = {0};
    assert_int_equal(imatrix_write(scratch_path(s, "x"), true, &m, &error), MARCO_ERROR_ARGUMENT);
    fill(&m);
    m.entries[0].sums[1] = NAN;
    assert_int_equal(imatrix_write(scratch_path(s, "x"), true, &m, &error), MARCO_ERROR_FORMAT);
    assert_false(base_exists(scratch_path(s, "x")));
    imatrix_clear(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCRATCH_TEST(there_and_back),
        SCRATCH_TEST(older_form_byte_by_byte),
        SCRATCH_TEST(damaged_files_are_refused),
        SCRATCH_TEST(refusals_say_why),
        SCRATCH_TEST(gguf_pairs_must_match),
        SCRATCH_TEST(failing_memory_is_reported),
        SCRATCH_TEST(nothing_or_nonsense_is_not_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
