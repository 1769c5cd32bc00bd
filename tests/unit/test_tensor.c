/* Every type's decoder and encoder against vectors made by the gguf package, and the arithmetic of
 * sizes and names. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tensor/panel.h"
#include "tensor/tensor.h"

enum { MAX_NUMBERS = 256, MAX_BYTES = 512, MAX_LINE = 16384 };

static size_t parse_numbers(const char *text, float *out)
{
    size_t n = 0;
    char *end;
    for (float f = strtof(text, &end); end != text; f = strtof(text, &end)) {
        assert_true(n < MAX_NUMBERS);
        out[n++] = f;
        text = end;
    }
    return n;
}

static size_t parse_hex(const char *text, uint8_t *out)
{
    size_t n = 0;
    unsigned byte;
    for (; sscanf(text, "%2x", &byte) == 1; text += 2) {
        assert_true(n < MAX_BYTES);
        out[n++] = (uint8_t)byte;
    }
    return n;
}

static bool same_number(float a, float b)
{
    return memcmp(&a, &b, sizeof(a)) == 0 || (isnan(a) && isnan(b));
}

static void check_decode(const tensor_traits *traits, const char *hex, const char *text)
{
    uint8_t bytes[MAX_BYTES + 1];
    float want[MAX_NUMBERS], got[MAX_NUMBERS];
    size_t size = parse_hex(hex, bytes + 1); /* an odd address: blocks need no alignment */
    size_t n = parse_numbers(text, want);
    assert_int_equal(size, n / (size_t)traits->block * (size_t)traits->block_bytes);
    assert_true(n > 0);
    traits->decode(bytes + 1, got, (int64_t)n);
    for (size_t i = 0; i < n; i++) {
        if (!same_number(got[i], want[i])) {
            fail_msg("%s: number %zu of %s is %a, not %a", traits->name, i, hex, (double)got[i],
                     (double)want[i]);
        }
    }
}

static void check_encode(const tensor_traits *traits, const char *text, const char *hex)
{
    float numbers[MAX_NUMBERS];
    uint8_t want[MAX_BYTES], got[MAX_BYTES + 1];
    size_t n = parse_numbers(text, numbers);
    size_t size = parse_hex(hex, want);
    assert_int_equal(size, n / (size_t)traits->block * (size_t)traits->block_bytes);
    traits->encode(numbers, got + 1, (int64_t)n);
    for (size_t i = 0; i < size; i++) {
        if (got[1 + i] != want[i]) {
            fail_msg("%s: byte %zu is %02x, not %02x, for %s", traits->name, i, got[1 + i], want[i],
                     text);
        }
    }
}

/* Returns the number of pairs of lines checked. */
static int check_file(const tensor_traits *traits)
{
    char path[1024], line[MAX_LINE], answer[MAX_LINE];
    const char *folder = getenv("MARCO_TEST_VECTORS");
    assert_non_null(folder);
    snprintf(path, sizeof(path), "%s/blocks/%s.txt", folder, traits->name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    int pairs = 0;
    while (fgets(line, sizeof(line), file)) {
        if (line[0] == '#') {
            continue;
        }
        assert_non_null(fgets(answer, sizeof(answer), file));
        assert_true(strncmp(answer, "= ", 2) == 0);
        if (strncmp(line, "decode ", 7) == 0) {
            check_decode(traits, line + 7, answer + 2);
        } else {
            assert_true(strncmp(line, "encode ", 7) == 0);
            check_encode(traits, line + 7, answer + 2);
        }
        pairs++;
    }
    fclose(file);
    return pairs;
}

static void vectors(void **state)
{
    (void)state;
    int types = 0;
    for (uint32_t type = 1; type < TENSOR_TYPE_END; type++) {
        const tensor_traits *traits = tensor_traits_of(type);
        if (traits) {
            assert_true(check_file(traits) >= 2);
            types++;
        }
    }
    assert_int_equal(types, 14);
}

/* Decoding a value and encoding it again is the identity on all 65536 half floats. */
static void half_floats(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = tensor_f16_to_f32((uint16_t)h);
        float b = tensor_bf16_to_f32((uint16_t)h);
        bool f_nan = (h & 0x7fff) > 0x7c00;
        bool b_nan = (h & 0x7fff) > 0x7f80;
        assert_int_equal(isnan(f) != 0, f_nan);
        assert_int_equal(isnan(b) != 0, b_nan);
        assert_int_equal(tensor_f32_to_f16(f), f_nan ? h | 0x200 : h);
        assert_int_equal(tensor_f32_to_bf16(b), b_nan ? h | 0x40 : h);
        if ((h & 0x7fff) < 0x7c00) {
            double exact = ldexp(h & 0x3ff, -24);
            int exponent = h >> 10 & 31;
            if (exponent) {
                exact = ldexp(1024 + (h & 0x3ff), exponent - 25);
            }
            assert_true((double)f == (h & 0x8000 ? -exact : exact));
        }
    }
}

/* Between two neighbouring half floats, the nearer one; exactly between, the even one. */
static void half_rounding(void **state)
{
    (void)state;
    for (uint16_t h = 0; h < 0x7bff; h++) {
        float low = tensor_f16_to_f32(h);
        float high = tensor_f16_to_f32((uint16_t)(h + 1));
        float middle = (low + high) / 2;
        assert_int_equal(tensor_f32_to_f16(nextafterf(middle, low)), h);
        assert_int_equal(tensor_f32_to_f16(nextafterf(middle, high)), h + 1);
        assert_int_equal(tensor_f32_to_f16(middle), h + (h & 1));
        assert_int_equal(tensor_f32_to_f16(-middle), 0x8000 | (h + (h & 1)));
    }
}

/* F32 passes through, at any address. */
static void f32_copies(void **state)
{
    (void)state;
    const float in[3] = {1.5f, -0.0f, 1e-40f};
    char bytes[sizeof(in) + 1];
    float out[3];
    const tensor_traits *traits = tensor_traits_of(TENSOR_F32);
    traits->encode(in, bytes + 1, 3);
    traits->decode(bytes + 1, out, 3);
    assert_memory_equal(in, out, sizeof(in));
}

static bool any_nan(const float *x, int n)
{
    bool nan = false;
    for (int i = 0; i < n; i++) {
        nan = nan || isnan(x[i]);
    }
    return nan;
}

/* Both of a type's encoders; the second with the importance of columns, where it has one. */
static bool encode(const tensor_traits *traits, int way, const float *in, void *out, int n)
{
    static const float importance[512] = {[0 ... 511] = 0.5f};
    if (way == 0 && traits->encode)
        traits->encode(in, out, n);
    else if (way == 1 && traits->encode_weighted)
        traits->encode_weighted(in, importance, out, n);
    else
        return false;
    return true;
}

/* A number that can't be encoded shows as NaN in its block and leaves the next block alone. */
static void encode_not_finite(void **state)
{
    (void)state;
    const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (uint32_t k = 0; k < 2 * TENSOR_TYPE_END; k++) {
        const tensor_traits *traits = tensor_traits_of(k / 2);
        int n = traits ? traits->block : 1;
        for (int i = 0; n > 1 && i < 4 * n; i++) {
            float in[2 * 256], out[2 * 256];
            uint8_t bytes[MAX_BYTES];
            for (int j = 0; j < 2 * n; j++)
                in[j] = (float)(j % 64) - 20;
            in[i / 4] = bad[i % 4];
            if (!encode(traits, k % 2, in, bytes, 2 * n))
                break;
            traits->decode(bytes, out, 2 * n);
            assert_true(any_nan(out, n));
            assert_false(any_nan(out + n, n));
        }
    }
}

/* Magnitudes at both ends of F32: no crash, no undefined conversion (a sanitizer would tell), and
 * what is too small for a scale comes back as zero. */
static void encode_extremes(void **state)
{
    (void)state;
    const float scales[] = {1e-45f, 1e-44f, 1e-42f, 1e-40f, 1e-38f, 1e9f, 3.4e38f};
    for (uint32_t k = 0; k < 2 * TENSOR_TYPE_END; k++) {
        const tensor_traits *traits = tensor_traits_of(k / 2);
        for (int s = 0; traits && s < 7; s++) {
            float in[256], out[256];
            uint8_t bytes[4 * 256];
            for (int j = 0; j < 256; j++)
                in[j] = (j % 3 == 0 ? -1 : (float)(j % 32) / 31) * scales[s];
            if (!encode(traits, k % 2, in, bytes, 256))
                break;
            traits->decode(bytes, out, 256);
            for (int j = 0; j < 256 && s < 5; j++)
                assert_true(fabsf(out[j]) <= 1.01e-38f);
        }
    }
}

static void names(void **state)
{
    (void)state;
    assert_int_equal(tensor_type_parse("q8_0"), TENSOR_Q8_0);
    assert_int_equal(tensor_type_parse("Q4_k"), TENSOR_Q4_K);
    assert_int_equal(tensor_type_parse("bf16"), TENSOR_BF16);
    assert_int_equal(tensor_type_parse("Q8_"), -1);
    assert_int_equal(tensor_type_parse("Q8_00"), -1);
    assert_int_equal(tensor_type_parse(""), -1);
    assert_int_equal(tensor_type_parse("IQ2_XXS"), -1);
    assert_string_equal(tensor_type_name(16), "IQ2_XXS");
    assert_string_equal(tensor_type_name(39), "MXFP4");
    assert_string_equal(tensor_type_name(77), "unknown");
    assert_string_equal(tensor_type_name(UINT32_MAX), "unknown");
    for (uint32_t type = 0; type < TENSOR_TYPE_END; type++) {
        if (tensor_traits_of(type)) {
            assert_string_equal(tensor_type_name(type), tensor_traits_of(type)->name);
            assert_int_equal(tensor_type_parse(tensor_type_name(type)), type);
        }
    }
    assert_null(tensor_traits_of(4));
    assert_null(tensor_traits_of(TENSOR_TYPE_END));
    assert_null(tensor_traits_of(UINT32_MAX));
}

static void sizes(void **state)
{
    (void)state;
    uint64_t bytes = 0;
    assert_int_equal(tensor_row_bytes(TENSOR_Q8_0, 1024), 1088);
    assert_int_equal(tensor_row_bytes(TENSOR_F32, 3), 12);
    assert_true(tensor_bytes(TENSOR_Q6_K, 512, 3, &bytes));
    assert_int_equal(bytes, 1260);
    assert_true(tensor_bytes(TENSOR_F16, 0, 5, &bytes));
    assert_int_equal(bytes, 0);
    assert_false(tensor_bytes(TENSOR_Q8_0, 33, 1, &bytes));
    assert_false(tensor_bytes(TENSOR_Q8_0, -32, 1, &bytes));
    assert_false(tensor_bytes(TENSOR_F32, INT64_MAX, 1, &bytes));
    assert_false(tensor_bytes(TENSOR_F32, INT64_MAX / 4, 3, &bytes));
    assert_false(tensor_bytes(TENSOR_F32, 1, UINT64_MAX, &bytes));
    assert_true(tensor_bytes(TENSOR_F32, 1, (UINT64_C(1) << 61) - 1, &bytes));
    assert_false(tensor_bytes(TENSOR_F32, 1, UINT64_C(1) << 61, &bytes));
}

/* A panel holds each byte of its rows once, gives every row back, and has what kernels rely on: the
 * lone scales side by side, units of four bytes a lane a row. */
static void panels(void **state)
{
    (void)state;
    enum { BLOCKS = 3, MOST = 8 * BLOCKS * 256 };
    uint8_t rows[MOST], panel[MOST + 8], row[MOST];
    int types = 0;
    for (uint32_t type = 0; type < TENSOR_TYPE_END; type++) {
        const tensor_traits *traits = tensor_traits_of(type);
        if (!traits || !tensor_has_panels((tensor_type)type))
            continue;
        types++;
        int64_t cols = BLOCKS * traits->block;
        size_t bytes = tensor_row_bytes((tensor_type)type, cols);
        for (size_t i = 0; i < 8 * bytes; i++)
            rows[i] = (uint8_t)((i * 2654435761u) >> 13);
        memset(panel, 0xAA, sizeof panel);
        tensor_panel_pack((tensor_type)type, rows, panel, cols);
        for (int r = 0; r < TENSOR_PANEL_ROWS; r++) {
            tensor_panel_row((tensor_type)type, panel, r, row, cols);
            assert_memory_equal(row, rows + (size_t)r * bytes, bytes);
        }
        for (int i = 0; i < 8; i++)
            assert_int_equal(panel[8 * bytes + (size_t)i], 0xAA);
    }
    assert_int_equal(types, 10);

    /* Row 5 of Q8_0's second block: its scale, and its third unit. */
    for (size_t i = 0; i < 8 * 68; i++)
        rows[i] = (uint8_t)(i % 251);
    tensor_panel_pack(TENSOR_Q8_0, rows, panel, 64);
    assert_memory_equal(panel + 272 + 2 * 5, rows + 5 * 68 + 34, 2);
    assert_memory_equal(panel + 272 + 16 + 2 * 32 + 4 * 5, rows + 5 * 68 + 34 + 2 + 2 * 4, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors),
        cmocka_unit_test(half_floats),
        cmocka_unit_test(half_rounding),
        cmocka_unit_test(f32_copies),
        cmocka_unit_test(encode_not_finite),
        cmocka_unit_test(encode_extremes),
        cmocka_unit_test(names),
        cmocka_unit_test(sizes),
        cmocka_unit_test(panels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
