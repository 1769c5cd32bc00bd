/* Matrix products against double precision, and against themselves in other batches. */
#include <stdio.h>

#include "harness.h"
#include "tensor/panel.h"

enum { W, X, OUT, SCRATCH, ALONE, WIDE, PANELS };

typedef struct problem {
    tensor_type type;
    kern_input input;
    bool panels;
    int64_t rows, cols, n_x, out_stride;
    void *w;        /* [rows, cols] */
    void *panels_w; /* the same in panels */
    void *x;        /* [n_x, cols] in the slot's form */
    float *out;     /* [n_x, out_stride] */
    float *wide;    /* one row of w, decoded */
    float *spare;   /* the kernel's scratch */
} problem;

static size_t x_bytes(const problem *p, int64_t n_x)
{
    return (size_t)n_x * (p->input == KERN_INPUT_Q8 ? (size_t)p->cols / 32 * sizeof(kern_q8)
                                                    : (size_t)p->cols * sizeof(float));
}

static const void *x_row(const problem *p, int64_t t)
{
    return (const char *)p->x + x_bytes(p, t);
}

static const char *w_row(const problem *p, int64_t r)
{
    return (const char *)p->w + (size_t)r * tensor_row_bytes(p->type, p->cols);
}

static float *scratch_for(int64_t cols)
{
    size_t bytes = ((size_t)KERN_SCRATCH(cols) * sizeof(float) + 63) / 64 * 64;
    return memory(SCRATCH, bytes);
}

static void finish_block(kern_q8 *q, float d)
{
    q->sum[0] = 0;
    q->sum[1] = 0;
    for (int i = 0; i < 32; i++) {
        q->sum[i / 16] = (int16_t)(q->sum[i / 16] + q->q[i]);
    }
    q->d = d;
    q->s = d * (float)(q->sum[0] + q->sum[1]);
}

/* Slots that take panels take whole ones: more rows then. */
static problem make(tensor_type type, const kern_matmul *slot, int64_t rows, int64_t cols,
                    int64_t n_x)
{
    kern_input input = slot->input;
    rows = slot->panels ? (rows + TENSOR_PANEL_ROWS - 1) / TENSOR_PANEL_ROWS * TENSOR_PANEL_ROWS
                        : rows;
    problem p = {.type = type,
                 .input = input,
                 .panels = slot->panels,
                 .rows = rows,
                 .cols = cols,
                 .n_x = n_x};
    p.out_stride = rows + any_below(4);
    p.w = memory(W, (size_t)rows * tensor_row_bytes(type, cols));
    fill_weights(type, p.w, rows, cols);
    p.x = memory(X, x_bytes(&p, n_x));
    if (input == KERN_INPUT_F32) {
        fill_normal(p.x, n_x * cols, 1);
    } else {
        kern_q8 *q = p.x;
        for (int64_t b = 0; b < n_x * cols / 32; b++) {
            for (int i = 0; i < 32; i++) {
                q[b].q[i] = (int8_t)(any_below(255) - 127);
            }
            finish_block(&q[b], fabsf(any_normal()) * 0.01f);
        }
    }
    p.out = output(OUT, (size_t)((n_x - 1) * p.out_stride + rows));
    p.wide = memory(WIDE, (size_t)cols * sizeof(float));
    p.spare = scratch_for(cols);
    return p;
}

/* The weights from row r on, in the form that the slot takes. */
static const void *form_of(const problem *p, int64_t r)
{
    size_t bytes = tensor_row_bytes(p->type, p->cols);
    if (!p->panels) {
        return w_row(p, r);
    }
    char *panels = memory(PANELS, (size_t)p->rows * bytes);
    for (int64_t at = 0; at < p->rows; at += TENSOR_PANEL_ROWS) {
        tensor_panel_pack(p->type, w_row(p, at), panels + (size_t)at * bytes, p->cols);
    }
    return panels + (size_t)r * bytes;
}

static void run(const kern_matmul *slot, const problem *p)
{
    slot->fn(form_of(p, 0), p->rows, p->cols, p->x, p->n_x, p->out, p->out_stride, p->spare);
}

static double x_at(const problem *p, int64_t t, int64_t i)
{
    if (p->input == KERN_INPUT_F32) {
        return (double)((const float *)x_row(p, t))[i];
    }
    const kern_q8 *q = (const kern_q8 *)x_row(p, t) + i / 32;
    return (double)q->d * q->q[i % 32];
}

/* The largest minimum's magnitude in a row: what is added for it and taken away again may be larger
 * than the weights themselves. */
static double largest_min(const problem *p, int64_t r)
{
    double largest = 0, most = 0; /* of what the second F16 of a block is multiplied by */
    if (p->type == TENSOR_Q4_1 || p->type == TENSOR_Q5_1) {
        most = 1;
    } else if (p->type == TENSOR_Q4_K || p->type == TENSOR_Q5_K) {
        most = 63;
    }
    const tensor_traits *traits = tensor_traits_of(p->type);
    for (int64_t b = 0; b < p->cols / traits->block && most > 0; b++) {
        uint16_t h;
        memcpy(&h, w_row(p, r) + b * traits->block_bytes + 2, sizeof(h));
        largest = fmax(largest, most * fabs((double)tensor_f16_to_f32(h)));
    }
    return largest;
}

/* Every output within the rounding of its own sum; nothing written between rows or around. */
static void compare(const problem *p, const char *what)
{
    for (int64_t r = 0; r < p->rows; r++) {
        tensor_traits_of(p->type)->decode(w_row(p, r), p->wide, p->cols);
        double min = largest_min(p, r);
        for (int64_t t = 0; t < p->n_x; t++) {
            double sum = 0, magnitude = 0;
            for (int64_t i = 0; i < p->cols; i++) {
                double x = x_at(p, t, i);
                sum += (double)p->wide[i] * x;
                magnitude += (fabs((double)p->wide[i]) + 2 * min) * fabs(x);
            }
            double got = (double)p->out[t * p->out_stride + r];
            double bound = ((double)p->cols / 8 + 16) * EPS * magnitude;
            if (!(fabs(got - sum) <= bound)) {
                fail("%s [%ld, %ld] x %ld: out[%ld, %ld] is %.9g, not %.9g +- %.2g", what,
                     (long)p->rows, (long)p->cols, (long)p->n_x, (long)t, (long)r, got, sum, bound);
                return;
            }
        }
    }
    for (int64_t t = 0; t + 1 < p->n_x; t++) {
        for (int64_t r = p->rows; r < p->out_stride; r++) {
            if (!is_canary(p->out[t * p->out_stride + r])) {
                fail("%s: wrote between the rows of out", what);
                return;
            }
        }
    }
    check_before(OUT, p->out);
    check_before(SCRATCH, p->spare);
}

/* A range of rows, and one activation alone, give the same bits as all together. */
static void compare_alone(const kern_matmul *slot, const problem *p)
{
    for (int64_t t = 0; t < p->n_x; t++) {
        int64_t from = any_below(p->rows);
        int64_t n = 1 + any_below(p->rows - from);
        if (p->panels) {
            from = from / TENSOR_PANEL_ROWS * TENSOR_PANEL_ROWS;
            n = (n + TENSOR_PANEL_ROWS - 1) / TENSOR_PANEL_ROWS * TENSOR_PANEL_ROWS;
        }
        float *alone = output(ALONE, (size_t)n);
        slot->fn(form_of(p, from), n, p->cols, x_row(p, t), 1, alone, n, p->spare);
        for (int64_t r = 0; r < n; r++) {
            if (!same_bits(alone[r], p->out[t * p->out_stride + from + r])) {
                fail("[%ld, %ld] x %ld: out[%ld, %ld] differs when computed with rows %ld to %ld "
                     "of one activation",
                     (long)p->rows, (long)p->cols, (long)p->n_x, (long)t, (long)(from + r),
                     (long)from, (long)(from + n));
                return;
            }
        }
    }
}

/* Unit scales: in blocks of 32 every product is an integer, every sum below 2^24, so the answer is
 * exact; the groups of the larger blocks have scales of their own, and the answer its rounding. The
 * extremes are those that overflow sums of 16 bits. */
static void check_integers(const kern_matmul *slot, tensor_type type, int64_t cols, int pattern)
{
    problem p = make(type, slot, 5, cols, 6);
    if (pattern > 0) {
        const uint8_t fills[] = {0x80, 0x7f, 0xff, 0x00};
        for (int64_t r = 0; r < p.rows; r++) {
            memset((char *)p.w + (size_t)r * tensor_row_bytes(type, cols), fills[r % 4],
                   tensor_row_bytes(type, cols));
        }
    }
    set_scales(type, p.w, p.rows, cols, 1, 0);
    kern_q8 *q = p.x;
    for (int64_t b = 0; b < p.n_x * cols / 32; b++) {
        for (int i = 0; i < 32; i++) {
            if (pattern == 1) {
                q[b].q[i] = i % 2 ? 127 : -127;
            } else if (pattern == 2) {
                q[b].q[i] = b % 2 ? 127 : -127;
            }
        }
        finish_block(&q[b], 1);
    }
    run(slot, &p);
    compare(&p, "extremes");
    if (tensor_traits_of(type)->block > 32) {
        return;
    }
    for (int64_t r = 0; r < p.rows; r++) {
        tensor_traits_of(type)->decode(w_row(&p, r), p.wide, cols);
        for (int64_t t = 0; t < p.n_x; t++) {
            double sum = 0;
            for (int64_t i = 0; i < cols; i++) {
                sum += (double)p.wide[i] * x_at(&p, t, i);
            }
            float got = p.out[t * p.out_stride + r];
            if ((double)got != sum) {
                fail("integers, pattern %d, cols %ld: out[%ld, %ld] is %.9g, not %.0f", pattern,
                     (long)cols, (long)t, (long)r, (double)got, sum);
                return;
            }
        }
    }
}

static void set_x(problem *p, int64_t t, int64_t i, float value)
{
    if (p->input == KERN_INPUT_F32) {
        ((float *)p->x)[t * p->cols + i] = value;
    } else {
        kern_q8 *q = (kern_q8 *)p->x + (t * p->cols + i) / 32;
        q->d = value;
        q->s = value;
    }
}

static void poison_weight(const problem *p, int64_t r, int64_t i, float value)
{
    const tensor_traits *traits = tensor_traits_of(p->type);
    char *block = (char *)p->w + (size_t)r * tensor_row_bytes(p->type, p->cols) +
                  i / traits->block * traits->block_bytes;
    if (traits->block == 1) {
        traits->encode(&value, block, 1);
    } else {
        set_scales(p->type, block, 1, traits->block, value, 0);
    }
}

/* A NaN or Inf reaches the outputs it belongs to, wherever in the row it is, and no others. */
static void check_not_finite(const kern_matmul *slot, tensor_type type, int64_t rows, int64_t cols)
{
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int n = 0; n < 3 * 4 * 2; n++) {
        problem p = make(type, slot, rows, cols, 5);
        rows = p.rows;
        int64_t r = any_below(rows);
        int64_t t = any_below(5);
        int64_t i = n % 4 == 0 ? cols - 1 : any_below(cols);
        bool weight = n % 2;
        if (weight) {
            poison_weight(&p, r, i, bad[n % 3]);
        } else {
            set_x(&p, t, i, bad[n % 3]);
        }
        run(slot, &p);
        for (int64_t at = 0; at < rows * p.n_x; at++) {
            bool hit = weight ? at % rows == r : at / rows == t;
            float got = p.out[at / rows * p.out_stride + at % rows];
            if (isfinite(got) == hit) {
                fail("%g in %s [%ld]: out[%ld, %ld] is %g", (double)bad[n % 3], weight ? "w" : "x",
                     (long)i, (long)(at / rows), (long)(at % rows), (double)got);
                return;
            }
        }
    }
}

void check_matmul(const kern_matmul *slot, tensor_type type)
{
    static const int64_t ragged[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 33, 100, 257};
    static const int64_t n_rows[] = {1, 2, 3, 5, 16, 17, 23, 37};
    int64_t block = tensor_traits_of(type)->block;
    if (slot->input == KERN_INPUT_Q8 && block < 32) {
        block = 32;
    }
    for (int n = 0; n < 72; n++) {
        int64_t cols = block == 1 ? ragged[n % 16] : block * (1 + any_below(n % 9 == 0 ? 8 : 3));
        problem p = make(type, slot, n_rows[any_below(8)], cols, 1 + n % 41);
        run(slot, &p);
        compare(&p, "random");
        compare_alone(slot, &p);
    }
    check_not_finite(slot, type, 19, block == 1 ? 43 : 3 * block);

    if (slot->input == KERN_INPUT_Q8) {
        for (int pattern = 0; pattern < 3; pattern++) {
            check_integers(slot, type, block, pattern);
            check_integers(slot, type, 1024, pattern);
        }
    }
    if (block > 1) {
        problem p = make(type, slot, 6, 2 * block, 5);
        set_scales(type, p.w, p.rows, 2 * block, 65504, -65504);
        run(slot, &p);
        compare(&p, "largest scales");
        memset(p.w, 0x80, (size_t)p.rows * tensor_row_bytes(type, p.cols));
        set_scales(type, p.w, p.rows, 2 * block, 0x1p-24f, 0x1p-24f);
        run(slot, &p);
        compare(&p, "smallest scales");
    }
}
