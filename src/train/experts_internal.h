/* Shared by the files of the sparse half only. T tokens, E their width, X experts, K of them for a
 * token, F the width of an expert.
 *
 * A pair is a token that is no padding and one of its choices, number t * K + k. A row is a pair's
 * place in the order of experts: first those of expert 0, tokens in order, and so on. */
#ifndef TRAIN_EXPERTS_INTERNAL_H
#define TRAIN_EXPERTS_INTERNAL_H

#include "train/experts.h"

enum {
    TRAIN_TOKEN_BLOCK = 64, /* tokens of a part, and of a partial sum */
    TRAIN_ROW_BLOCK = 256,  /* rows of an expert that are multiplied at once, at most */
};

/* Some rows of one expert. */
typedef struct train_row_part {
    int64_t expert; /* counted from the first one held here */
    int64_t row0, n;
} train_row_part;

/* What products with the experts held here need; sized by the rows they may get. */
typedef struct train_room {
    int64_t capacity;      /* rows */
    float *hidden;         /* [capacity, F] */
    train_row_part *parts; /* [X + capacity / TRAIN_ROW_BLOCK + 1] */
    /* Of several processes, in the order of arrival: */
    float *x, *d;  /* [capacity, E] inputs and then outputs; gradients of outputs, then of inputs */
    float *u;      /* [capacity] */
    int64_t *from; /* [capacity] row -> its number in the order of arrival */
    void *grown;   /* their memory where the arena's was too small */
} train_room;

struct train_experts_work {
    float *normed;  /* [T, E] */
    float *dnormed; /* [T, E] */
    float *rows;    /* [T * K, E] outputs, or gradients of inputs, of the token's experts */
    /* Of this process's own pairs: */
    int64_t *row_of;  /* [T * K] pair -> row */
    int64_t *token;   /* [T * K] row -> token */
    float *scale;     /* [T * K] row -> weight */
    float *u;         /* [T * K] row -> weight * gradient of the weight */
    int64_t *first;   /* [2, X + 1] the first row of each expert: own pairs; rows held here */
    int64_t *traffic; /* [2, X] rows for each process, rows from each process */
    float *draws;     /* [X + 1] of the pass, and the limit: see router.c */
    float *aux;       /* [X] the balancing loss's gradient for each token's probability */
    float *sums;      /* [blocks of tokens, X] probabilities */
    double *moments;  /* [blocks of tokens, 2] entropy, squares of logsumexp */
    int64_t *all;     /* [X] counts over all processes */
    float *norm_partial;
    train_room room;
};

/* One call, passed to all parts. */
typedef struct train_sparse {
    const train_context *ctx;
    const train_routing *routing;
    const train_routing_pass *pass;
    train_experts_saved *saved;
    train_experts_work *work;
    train_routing_stats *stats;
    int32_t layer;
    const train_tokens *tokens;
    int64_t n, real; /* T; those of them that are no padding */
    int64_t pairs;   /* real * K */
    int64_t embd, width, experts, used;
    const float *x;
    float *d, *out;
} train_sparse;

/* Padding has no rows; its numbers in row_of, chosen and weight mean nothing, its probs are 0. */
static inline bool train_is_padding(const train_tokens *tokens, int64_t t)
{
    return tokens->lengths && t % tokens->seq_len >= tokens->lengths[t / tokens->seq_len];
}

/* ---- router.c: scores, choices and their gradients ------------------------------------------ */

int64_t train_router_scratch(const model_config *config); /* floats a thread */

/* saved->probs holds logits: softmax, choice, weights, and the sums that statistics want. */
void train_router_choose(const train_sparse *s);

/* Counts the pass, once its rows are sorted. */
marco_status train_router_count(const train_sparse *s, marco_error *error);

/* saved->probs becomes the gradient of the logits; work->u is filled. */
void train_router_back(const train_sparse *s);

/* ---- dispatch.c: rows on their way to the experts and back ---------------------------------- */

/* Counting sort of the pairs: fills row_of, token, scale, first and saved->counts. */
void train_dispatch_sort(const train_sparse *s);

/* Tells the processes what comes to them and makes room for it. */
marco_status train_dispatch_announce(const train_sparse *s, marco_error *error);

/* Where gate and up of saved->n_rows rows are, there being room. */
void train_saved_place(train_experts_saved *saved, int64_t width);

/* From saved->counts, the order of the rows held here: work->first's second half, room.from and
 * work->traffic. */
void train_dispatch_arrange(const train_sparse *s);

/* Rows of `cols` floats to the processes of their experts, in the order of rows here and of arrival
 * there; and the other way. */
marco_status train_dispatch_send(const train_sparse *s, const float *rows, float *arrived,
                                 int64_t cols, marco_error *error);
marco_status train_dispatch_return(const train_sparse *s, const float *arrived, float *rows,
                                   int64_t cols, marco_error *error);

/* Rows from[row0] .. from[row0 + n - 1] of x [.., cols], multiplied by scale[row] unless that is
 * NULL: their columns c0 .. c0 + n_cols - 1, one row after another. */
void train_gather(const float *restrict x, int64_t cols, const int64_t *from,
                  const float *restrict scale, int64_t row0, int64_t n, int64_t c0, int64_t n_cols,
                  float *restrict out);

/* Lays out a room; `several` processes. */
void train_room_take(train_room *room, const model_config *config, bool several, int64_t capacity,
                     train_arena *arena);

/* ---- grouped.c: products of each expert with its rows ---------------------------------------- */

typedef struct train_grouped {
    const train_sparse *s;
    const train_param *gate, *up, *down;
    int64_t n_experts;    /* held here */
    const int64_t *first; /* [n_experts + 1] */
    /* Row r of x and d is in their row from[r]; d is multiplied by scale[r], if there is one. */
    const int64_t *from;
    const float *x, *d, *scale;
    /* Row r of the results is row r or, where `scattered`, row from[r]. */
    bool scattered;
    float *out; /* [.., E] outputs; backward: gradients of x, where it may be x or d */
    float *u;   /* [..] backward: the scaled d times the output, which is scale * its gradient */
    int64_t n_parts;
} train_grouped;

int64_t train_grouped_scratch(const model_config *config); /* floats a thread */

/* out = down(silu(gate x) * up x) for all rows; fills saved->gate and up. */
void train_grouped_forward(train_grouped *g);

/* Adds to the gradients of the experts' matrices. saved->gate and up become their gradients. */
void train_grouped_back(train_grouped *g);

#endif
