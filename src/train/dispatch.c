/* Rows on their way: sorted by expert and, with several processes, sent to those that hold the
 * experts. Process r of TRAIN_EXPERTS holds experts r * X / R to (r + 1) * X / R - 1, so rows
 * sorted by expert are sorted by process too. */
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "train/experts_internal.h"

void train_gather(const float *restrict x, int64_t cols, const int64_t *from,
                  const float *restrict scale, int64_t row0, int64_t n, int64_t c0, int64_t n_cols,
                  float *restrict out)
{
    enum { STEP = 16 }; /* known to the compiler, which then uses vectors */
    for (int64_t r = row0; r < row0 + n; r++, out += n_cols) {
        const float *row = x + from[r] * cols + c0;
        if (!scale) {
            memcpy(out, row, (size_t)n_cols * sizeof *out);
            continue;
        }
        float by = scale[r];
        int64_t c = 0;
        for (; c + STEP <= n_cols; c += STEP)
            for (int64_t i = 0; i < STEP; i++)
                out[c + i] = by * row[c + i];
        for (; c < n_cols; c++)
            out[c] = by * row[c];
    }
}

void train_dispatch_sort(const train_sparse *s)
{
    train_experts_work *work = s->work;
    const train_experts_saved *saved = s->saved;
    int64_t *first = work->first;
    memset(first, 0, (size_t)(s->experts + 1) * sizeof *first);
    for (int64_t t = 0; t < s->n; t++)
        for (int64_t k = 0; k < s->used && !train_is_padding(s->tokens, t); k++)
            first[saved->chosen[t * s->used + k] + 1]++;
    memcpy(saved->counts, first + 1, (size_t)s->experts * sizeof *first);
    for (int64_t e = 0; e < s->experts; e++)
        first[e + 1] += first[e];
    for (int64_t t = 0; t < s->n; t++)
        for (int64_t k = 0; k < s->used && !train_is_padding(s->tokens, t); k++) {
            int64_t j = t * s->used + k;
            int64_t row = first[saved->chosen[j]]++;
            work->row_of[j] = row;
            work->token[row] = t;
            work->scale[row] = saved->weight[j];
        }
    /* Each `first` now stands where the next expert begins. */
    memmove(first + 1, first, (size_t)s->experts * sizeof *first);
    first[0] = 0;
}

/* ---- several processes ---------------------------------------------------------------------- */

void train_room_take(train_room *room, const model_config *config, bool several, int64_t capacity,
                     train_arena *arena)
{
    int64_t parts = config->n_experts + capacity / TRAIN_ROW_BLOCK + 1;
    room->capacity = capacity;
    room->hidden = train_arena_floats(arena, capacity * config->expert_dim);
    room->parts = train_arena_take(arena, parts, sizeof *room->parts);
    if (!several)
        return;
    room->x = train_arena_floats(arena, capacity * config->n_embd);
    room->d = train_arena_floats(arena, capacity * config->n_embd);
    room->u = train_arena_floats(arena, capacity);
    room->from = train_arena_take(arena, capacity, sizeof *room->from);
}

/* Room for a few rows more than were asked for, so that it need not grow by each pass's few. */
static int64_t capacity_for(int64_t rows)
{
    return rows + rows / 8;
}

static marco_status grow_room(train_room *room, const model_config *config, int64_t rows,
                              marco_error *error)
{
    if (rows <= room->capacity)
        return MARCO_OK;
    int64_t capacity = capacity_for(rows);
    train_arena arena = {0};
    train_room bigger = {0};
    train_room_take(&bigger, config, true, capacity, &arena);
    size_t bytes = arena.used;
    base_free(room->grown);
    room->grown = NULL;
    room->capacity = 0;
    arena = (train_arena){.base = base_alloc_aligned(bytes)};
    if (!arena.base)
        return base_fail_memory(error, bytes, "rows that came to this process's experts");
    bigger.grown = arena.base;
    train_room_take(&bigger, config, true, capacity, &arena);
    *room = bigger;
    return MARCO_OK;
}

static marco_status grow_saved(train_experts_saved *saved, int64_t width, int64_t rows,
                               marco_error *error)
{
    if (rows <= saved->rows_capacity || rows <= saved->grown->rows)
        return MARCO_OK;
    int64_t capacity = capacity_for(rows);
    size_t bytes = (size_t)(2 * capacity * width) * sizeof(float);
    train_experts_grown_release(saved->grown);
    saved->grown->memory = base_alloc_aligned(bytes);
    if (!saved->grown->memory)
        return base_fail_memory(error, bytes, "rows that came to this process's experts");
    saved->grown->rows = capacity;
    return MARCO_OK;
}

/* Anew in each pass: another layer may have let the shared room grow, and moved it. */
void train_saved_place(train_experts_saved *saved, int64_t width)
{
    bool fits = saved->n_rows <= saved->rows_capacity;
    saved->gate = fits ? saved->room : saved->grown->memory;
    saved->up = saved->gate + (fits ? saved->rows_capacity : saved->grown->rows) * width;
}

marco_status train_dispatch_announce(const train_sparse *s, marco_error *error)
{
    train_comm *comm = s->ctx->comm;
    train_experts_saved *saved = s->saved;
    int64_t held = s->experts / comm->size[TRAIN_EXPERTS];
    int64_t *arriving = saved->counts + s->experts;
    marco_status status =
        comm->ops->all_to_all_i64(comm, TRAIN_EXPERTS, saved->counts, arriving, held, error);
    if (status)
        return status;
    saved->n_rows = 0;
    for (int64_t i = 0; i < s->experts; i++)
        saved->n_rows += arriving[i];
    status = grow_room(&s->work->room, &s->ctx->params->config, saved->n_rows, error);
    if (!status)
        status = grow_saved(saved, s->width, saved->n_rows, error);
    /* Those that had room would wait for ever for one that gave up. */
    return train_comm_settle(comm, status, error);
}

void train_dispatch_arrange(const train_sparse *s)
{
    train_experts_work *work = s->work;
    int64_t held = s->experts / s->ctx->comm->size[TRAIN_EXPERTS];
    const int64_t *arriving = s->saved->counts + s->experts; /* [processes, held] */
    int64_t *first = work->first + s->experts + 1;
    memset(first, 0, (size_t)(held + 1) * sizeof *first);
    memset(work->traffic, 0, 2 * (size_t)s->experts * sizeof *work->traffic);
    for (int64_t i = 0; i < s->experts; i++) {
        first[i % held + 1] += arriving[i];
        work->traffic[i / held] += s->saved->counts[i];
        work->traffic[s->experts + i / held] += arriving[i];
    }
    for (int64_t e = 0; e < held; e++)
        first[e + 1] += first[e];
    int64_t arrival = 0;
    for (int64_t i = 0; i < s->experts; i++)
        for (int64_t j = 0; j < arriving[i]; j++)
            work->room.from[first[i % held]++] = arrival++;
    memmove(first + 1, first, (size_t)held * sizeof *first);
    first[0] = 0;
}

marco_status train_dispatch_send(const train_sparse *s, const float *rows, float *arrived,
                                 int64_t cols, marco_error *error)
{
    train_comm *comm = s->ctx->comm;
    const int64_t *traffic = s->work->traffic;
    return comm->ops->all_to_all_rows(comm, TRAIN_EXPERTS, rows, traffic, arrived,
                                      traffic + s->experts, cols, error);
}

marco_status train_dispatch_return(const train_sparse *s, const float *arrived, float *rows,
                                   int64_t cols, marco_error *error)
{
    train_comm *comm = s->ctx->comm;
    const int64_t *traffic = s->work->traffic;
    return comm->ops->all_to_all_rows(comm, TRAIN_EXPERTS, arrived, traffic + s->experts, rows,
                                      traffic, cols, error);
}
