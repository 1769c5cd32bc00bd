/* Grouped-query attention with per-head QK-norm and RoPE.
 *
 *   q = rope(norm(Wq x)),  k = rope(norm(Wk x)),  v = Wv x
 *   out = Wo softmax(q k^T / sqrt(D)) v
 *
 * Keys and values, the current tokens' among them, are always read back from the cache: a tile at a
 * time and in order within spans of SPAN positions, each span from a fresh state, and the spans
 * merged in order. Tiles and spans lie at absolute positions, so a token's result depends neither
 * on how its prompt was cut nor on which thread computed which span. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/context.h"
#include "model/rope.h"

enum {
    SPAN = 1024,           /* positions */
    SPLIT_TOKENS = 8,      /* sequences of more share the work by tokens, not by spans */
    BLOCK_QUERIES = 64,    /* that share the reading of a tile */
    DEALS_PER_THREAD = 16, /* of a sequence shared by spans */
};

/* One sequence's share of a layer. */
typedef struct attention_task {
    model_context *ctx;
    const model_run *run;
    model_kv *kv;
    int64_t layer, n, position;
} attention_task;

static attention_task task_of(model_context *ctx, const model_run *run, int64_t layer)
{
    const model_sequence *s = &run->sequence;
    return (attention_task){ctx, run, s->kv, layer, s->n, s->position};
}

/* All of them. */
typedef struct layer_task {
    model_context *ctx;
    int64_t layer;
} layer_task;

/* One thread's memory. */
typedef struct desk {
    float *row;            /* [D] */
    float *q;              /* [BLOCK, stride] */
    kern_attend sum, part; /* over all spans, and of one; both for q */
} desk;

static int64_t block_tokens(const model_config *c)
{
    int64_t n = BLOCK_QUERIES / (c->n_heads / c->n_kv_heads);
    return n > 0 ? n : 1;
}

/* Floats of a state's max, sum and acc. */
static int64_t state_size(int64_t dim, int64_t n_q)
{
    return n_q * (2 + kern_attend_stride(dim));
}

size_t model_attention_scratch(const model_config *c)
{
    int64_t n_q = block_tokens(c) * (c->n_heads / c->n_kv_heads);
    int64_t stride = kern_attend_stride(c->head_dim);
    return (size_t)(stride + n_q * stride + 2 * state_size(c->head_dim, n_q) +
                    kern_attend_scratch(c->head_dim, n_q));
}

/* Points the state's members into memory of state_size, max first; sum and acc behind. */
static void place_state(kern_attend *state, float *memory)
{
    state->acc = memory;
    state->max = memory + state->n_q * state->stride;
    state->sum = state->max + state->n_q;
}

static desk desk_of(const attention_task *t, int thread, int64_t tokens)
{
    const model_config *c = &t->ctx->weights->config;
    int64_t group = c->n_heads / c->n_kv_heads;
    kern_attend state = {.dim = c->head_dim,
                         .stride = kern_attend_stride(c->head_dim),
                         .n_q = tokens * group,
                         .group = group};
    int64_t size = state_size(state.dim, state.n_q);
    desk b;
    b.row = t->ctx->scratch + (size_t)thread * t->ctx->scratch_stride;
    b.q = b.row + state.stride;
    state.q = b.q;
    state.scratch = b.q + state.n_q * state.stride + 2 * size;
    b.sum = b.part = state;
    place_state(&b.sum, b.q + state.n_q * state.stride);
    place_state(&b.part, b.q + state.n_q * state.stride + size);
    return b;
}

/* ---- queries, keys and values --------------------------------------------------------------- */

static void turn(const attention_task *t, int64_t token, const float *norm, const float *x,
                 float *out)
{
    const model_context *ctx = t->ctx;
    const model_config *c = &ctx->weights->config;
    int64_t dim = c->head_dim, half = dim / 2, row = t->run->row + token;
    if (c->qk_norm)
        ctx->kernels->rmsnorm(x, norm, out, dim, (float)c->rms_eps);
    else
        memcpy(out, x, (size_t)dim * sizeof *x);
    ctx->kernels->rope(out, ctx->cosine + row * half, ctx->sine + row * half, dim);
}

/* The desk's queries: those of one KV head for tokens from `first` on. */
static void make_queries(const attention_task *t, int64_t kv_head, int64_t first, const desk *b)
{
    const model_config *c = &t->ctx->weights->config;
    const float *norm = t->ctx->weights->layers[t->layer].q_norm;
    int64_t dim = c->head_dim, group = b->sum.group;
    float scale = 1.0f / sqrtf((float)dim);
    for (int64_t j = 0; j < b->sum.n_q; j++) {
        int64_t token = first + j / group;
        int64_t head = (t->run->row + token) * c->n_heads + kv_head * group + j % group;
        float *q = b->q + j * b->sum.stride;
        turn(t, token, norm, t->ctx->q + head * dim, q);
        for (int64_t d = 0; d < dim; d++)
            q[d] *= scale;
    }
}

/* One token's key and value of one head to the cache. row: [D], scratch. */
static void store(const attention_task *t, int64_t token, int64_t kv_head, float *row)
{
    const model_context *ctx = t->ctx;
    int64_t dim = t->kv->dim, position = t->position + token;
    int64_t head = ((t->run->row + token) * t->kv->n_heads + kv_head) * dim,
            slot = position % MODEL_KV_PAGE;
    uint8_t *tile = model_kv_tile(t->kv, position / MODEL_KV_PAGE, t->layer, kv_head);
    turn(t, token, ctx->weights->layers[t->layer].k_norm, ctx->k + head, row);
    kern_tile_put_key(ctx->kernels, t->kv->type, row, dim, slot, tile);
    kern_tile_put_value(ctx->kernels, t->kv->type, ctx->v + head, dim, slot,
                        tile + t->kv->tile_bytes);
}

static void store_row(void *user, int64_t row, int thread)
{
    layer_task *l = user;
    const model_run *run = model_run_of(l->ctx, row);
    attention_task t = task_of(l->ctx, run, l->layer);
    float *scratch = t.ctx->scratch + (size_t)thread * t.ctx->scratch_stride;
    for (int64_t g = 0; g < t.kv->n_heads; g++)
        store(&t, row - run->row, g, scratch);
}

/* ---- spans ---------------------------------------------------------------------------------- */

/* What is read after a page of a head: the head's next page, or the next head's first. */
static const uint8_t *tile_after(const attention_task *t, int64_t page, int64_t kv_head)
{
    if ((page + 1) * MODEL_KV_PAGE < t->position + t->n)
        return model_kv_tile(t->kv, page + 1, t->layer, kv_head);
    return kv_head + 1 < t->kv->n_heads ? model_kv_tile(t->kv, 0, t->layer, kv_head + 1) : NULL;
}

/* One span from a fresh state. `position` is the first token's. */
static void attend_span(const attention_task *t, kern_attend *state, int64_t kv_head,
                        int64_t position, int64_t span)
{
    kern_attend_fn attend = kern_attend_of(t->ctx->kernels, t->kv->type);
    int64_t end = position + state->n_q / state->group;
    end = end < (span + 1) * SPAN ? end : (span + 1) * SPAN;
    for (int64_t j = 0; j < state->n_q; j++) {
        state->max[j] = -INFINITY;
        state->sum[j] = 0;
    }
    memset(state->acc, 0, (size_t)(state->n_q * state->stride) * sizeof(float));
    for (int64_t start = span * SPAN; start < end; start += MODEL_KV_PAGE) {
        int64_t page = start / MODEL_KV_PAGE;
        const uint8_t *tile = model_kv_tile(t->kv, page, t->layer, kv_head);
        attend(state, tile, tile + t->kv->tile_bytes, tile_after(t, page, kv_head),
               position + 1 - start);
    }
}

/* Adds a span to those before it, for the queries that see any of it. */
static void merge(const attention_task *t, kern_attend *sum, const kern_attend *part,
                  int64_t position, int64_t span)
{
    for (int64_t j = 0; j < sum->n_q; j++) {
        if (position + j / sum->group < span * SPAN)
            continue;
        float top = part->max[j] > sum->max[j] ? part->max[j] : sum->max[j];
        float reference = top == -INFINITY ? 0 : top;
        float fade = expf(sum->max[j] - reference), weight = expf(part->max[j] - reference);
        float *acc = sum->acc + j * sum->stride;
        for (int64_t d = 0; d < sum->dim; d++)
            acc[d] *= fade;
        t->ctx->kernels->axpy(weight, part->acc + j * sum->stride, acc, sum->dim);
        sum->sum[j] = sum->sum[j] * fade + part->sum[j] * weight;
        sum->max[j] = top;
    }
}

static void put_out(const attention_task *t, const kern_attend *sum, int64_t kv_head, int64_t first)
{
    const model_config *c = &t->ctx->weights->config;
    for (int64_t j = 0; j < sum->n_q; j++) {
        int64_t head = (t->run->row + first + j / sum->group) * c->n_heads + kv_head * sum->group +
                       j % sum->group;
        const float *acc = sum->acc + j * sum->stride;
        float *out = t->ctx->attended + head * sum->dim;
        for (int64_t d = 0; d < sum->dim; d++)
            out[d] = acc[d] / sum->sum[j];
    }
}

/* The beginning of a head's keys and values, while its query is made: weights have driven them out
 * of the caches. */
static void expect_tile(const attention_task *t, int64_t kv_head)
{
    enum { BYTES = 4096, LINE = 64 };
    const uint8_t *tile = model_kv_tile(t->kv, 0, t->layer, kv_head);
    size_t bytes = t->kv->tile_bytes < BYTES ? t->kv->tile_bytes : BYTES;
    for (size_t k = 0; k < bytes; k += LINE) {
        __builtin_prefetch(tile + k, 1);
        __builtin_prefetch(tile + t->kv->tile_bytes + k, 1);
    }
}

/* ---- shared by tokens: a part is a KV head and a block of tokens ----------------------------- */

static void attend_block(const attention_task *t, int64_t part, int thread)
{
    const model_config *c = &t->ctx->weights->config;
    int64_t block = block_tokens(c), blocks = (t->n + block - 1) / block;
    int64_t kv_head = part % c->n_kv_heads;
    /* The last tokens see most: they come first, so that no thread is left with them at the end. */
    int64_t first = (blocks - 1 - part / c->n_kv_heads) * block;
    int64_t tokens = t->n - first < block ? t->n - first : block;
    int64_t position = t->position + first;
    desk b = desk_of(t, thread, tokens);

    if (t->n == 1)
        expect_tile(t, kv_head);
    if (t->ctx->n_rows == 1)
        store(t, 0, kv_head, b.row);
    make_queries(t, kv_head, first, &b);
    attend_span(t, &b.sum, kv_head, position, 0);
    for (int64_t span = 1; span * SPAN < position + tokens; span++) {
        attend_span(t, &b.part, kv_head, position, span);
        merge(t, &b.sum, &b.part, position, span);
    }
    put_out(t, &b.sum, kv_head, first);
}

/* ---- shared by spans: a part is a deal of units, (KV head, span) ----------------------------- */

static kern_attend partial(const attention_task *t, const desk *b, int64_t unit)
{
    kern_attend state = b->part;
    place_state(&state, t->run->partials + unit * state_size(state.dim, state.n_q));
    return state;
}

/* Whoever finishes a head's last span merges them all. */
static void finish_head(const attention_task *t, const desk *b, int64_t kv_head)
{
    kern_attend sum = partial(t, b, kv_head * t->run->spans);
    for (int64_t span = 1; span < t->run->spans; span++) {
        kern_attend part = partial(t, b, kv_head * t->run->spans + span);
        merge(t, &sum, &part, t->position, span);
    }
    put_out(t, &sum, kv_head, 0);
}

static void attend_deal(const attention_task *t, int64_t deal, int thread)
{
    int64_t spans = t->run->spans, units = spans * t->kv->n_heads;
    int64_t unit = deal * units / t->run->deals, end = (deal + 1) * units / t->run->deals;
    int64_t made = -1; /* the head whose queries are there */
    desk b = desk_of(t, thread, t->n);
    for (; unit < end; unit++) {
        int64_t kv_head = unit / spans, span = unit % spans;
        if (made != kv_head)
            make_queries(t, kv_head, 0, &b);
        made = kv_head;
        if (t->ctx->n_rows == 1 && span + 1 == spans)
            store(t, 0, kv_head, b.row);
        kern_attend state = partial(t, &b, unit);
        attend_span(t, &state, kv_head, t->position, span);
        if (atomic_fetch_sub_explicit(&t->run->spans_left[kv_head], 1, memory_order_acq_rel) == 1)
            finish_head(t, &b, kv_head);
    }
}

/* ---- the pass ------------------------------------------------------------------------------- */

static bool splits(const model_config *c, int64_t n, int64_t position)
{
    return n <= SPLIT_TOKENS && n <= block_tokens(c) && position + n > SPAN;
}

/* Fills in how a run's attention is shared; the floats of partials that it needs. */
static size_t share_out(const model_context *ctx, model_run *run)
{
    const model_config *c = &ctx->weights->config;
    int64_t n = run->sequence.n, position = run->sequence.position, block = block_tokens(c);
    if (!splits(c, n, position)) {
        run->spans = 0;
        run->deals = c->n_kv_heads * ((n + block - 1) / block);
        return 0;
    }
    run->spans = (position + n + SPAN - 1) / SPAN;
    run->deals = (int64_t)DEALS_PER_THREAD * base_pool_threads(ctx->pool);
    run->deals = run->deals < run->spans * c->n_kv_heads ? run->deals : run->spans * c->n_kv_heads;
    return (size_t)run->spans * (size_t)state_size(c->head_dim, n * c->n_heads);
}

static marco_status reserve_partials(model_context *ctx, size_t need, marco_error *error)
{
    if (need <= ctx->partials_capacity)
        return MARCO_OK;
    base_region_free(ctx->partials, ctx->partials_capacity * sizeof(float));
    ctx->partials_capacity = 0;
    ctx->partials = base_region_alloc(need * sizeof(float));
    if (!ctx->partials)
        return base_fail_memory(error, need * sizeof(float), "attention over a long context");
    ctx->partials_capacity = need;
    return MARCO_OK;
}

marco_status model_attention_plan(model_context *ctx, const model_sequence *sequences, int64_t n,
                                  marco_error *error)
{
    size_t heads = (size_t)ctx->weights->config.n_kv_heads, need = 0;
    void *runs = ctx->runs, *left = (void *)ctx->spans_left;
    bool fits = base_grow(&runs, &ctx->runs_capacity, (size_t)n, sizeof *ctx->runs);
    ctx->runs = runs;
    fits = fits &&
           base_grow(&left, &ctx->spans_left_capacity, (size_t)n * heads, sizeof *ctx->spans_left);
    ctx->spans_left = left;
    if (!fits)
        return base_fail_memory(error, (size_t)n * sizeof *ctx->runs, "a pass");
    model_run run = {0};
    for (int64_t i = 0; i < n; i++) {
        run.sequence = sequences[i];
        size_t floats = share_out(ctx, &run);
        run.spans_left = ctx->spans_left + (size_t)i * heads;
        ctx->runs[i] = run;
        run.row += run.sequence.n;
        run.part += run.deals;
        need += floats;
    }
    ctx->n_runs = n;
    ctx->attention_parts = run.part;
    marco_status status = reserve_partials(ctx, need, error);
    if (status)
        return status;
    size_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        ctx->runs[i].partials = need ? ctx->partials + at : NULL;
        at += share_out(ctx, &ctx->runs[i]);
    }
    return MARCO_OK;
}

void model_attention_release(model_context *ctx)
{
    base_region_free(ctx->partials, ctx->partials_capacity * sizeof *ctx->partials);
    base_free(ctx->runs);
    base_free((void *)ctx->spans_left);
}

/* The last run whose number at `offset` (row or part) is at most x. */
static const model_run *find_run(const model_context *ctx, int64_t x, bool by_part)
{
    int64_t low = 0, high = ctx->n_runs;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        const model_run *run = &ctx->runs[middle];
        if ((by_part ? run->part : run->row) <= x)
            low = middle;
        else
            high = middle;
    }
    return &ctx->runs[low];
}

const model_run *model_run_of(const model_context *ctx, int64_t row)
{
    return find_run(ctx, row, false);
}

static void attend_part(void *user, int64_t part, int thread)
{
    layer_task *l = user;
    const model_run *run = find_run(l->ctx, part, true);
    attention_task t = task_of(l->ctx, run, l->layer);
    if (run->spans)
        attend_deal(&t, part - run->part, thread);
    else
        attend_block(&t, part - run->part, thread);
}

void model_attend(model_context *ctx, int64_t layer)
{
    size_t heads = (size_t)ctx->weights->config.n_kv_heads;
    layer_task task = {ctx, layer};
    /* A token alone is stored by the parts that attend to it. */
    if (ctx->n_rows > 1)
        base_pool_run(ctx->pool, store_row, &task, ctx->n_rows);
    bool spans = false;
    for (int64_t i = 0; i < ctx->n_runs; i++) {
        const model_run *run = &ctx->runs[i];
        spans |= run->spans > 0;
        for (size_t g = 0; g < heads; g++)
            atomic_store_explicit(&run->spans_left[g], run->spans, memory_order_relaxed);
    }
    /* Lanes where reading the cache is what takes the time. */
    if (spans || ctx->n_rows == ctx->n_runs)
        base_pool_run_lanes(ctx->pool, attend_part, &task, ctx->attention_parts);
    else
        base_pool_run(ctx->pool, attend_part, &task, ctx->attention_parts);
}

void model_attention(model_context *ctx, int64_t index)
{
    const model_config *c = &ctx->weights->config;
    const model_layer *layer = &ctx->weights->layers[index];
    int64_t n = ctx->n_rows;
    int64_t q_dim = (int64_t)c->n_heads * c->head_dim,
            kv_dim = (int64_t)c->n_kv_heads * c->head_dim;

    model_rows x = {ctx->normed, NULL};
    if (model_wants_q8(ctx, &layer->q) || model_wants_q8(ctx, &layer->k) ||
        model_wants_q8(ctx, &layer->v)) {
        model_quantize(ctx, ctx->normed, ctx->q8, n, c->n_embd);
        x.q8 = ctx->q8;
    }
    ctx->products[0] =
        (model_product){.w = &layer->q, .x = x, .n = n, .out = ctx->q, .stride = q_dim};
    ctx->products[1] =
        (model_product){.w = &layer->k, .x = x, .n = n, .out = ctx->k, .stride = kv_dim};
    ctx->products[2] =
        (model_product){.w = &layer->v, .x = x, .n = n, .out = ctx->v, .stride = kv_dim};
    model_multiply(ctx, 3);

    model_attend(ctx, index);

    model_rows attended = {ctx->attended, NULL};
    if (model_wants_q8(ctx, &layer->out)) {
        model_quantize(ctx, ctx->attended, ctx->q8, n, q_dim);
        attended.q8 = ctx->q8;
    }
    ctx->products[0] = (model_product){
        .w = &layer->out, .x = attended, .n = n, .out = ctx->projected, .stride = c->n_embd};
    model_multiply(ctx, 1);
}
