/* The end of the model: the last norm, logits, the loss and its gradient, a block of targets at a
 * time, so that no [tokens, vocabulary] buffer is kept. */
#ifndef TRAIN_HEAD_H
#define TRAIN_HEAD_H

#include "train/context.h"

/* What is made of the logits of one target. Called by several threads at once. */
typedef struct train_objective {
    /* logits [n_vocab] -> the loss. Where `gradient`, logits become the loss's gradient by them,
     * times whatever weight it has in the step. token: its index in the pass. */
    double (*row)(void *user, const train_context *ctx, float *logits, int64_t token,
                  int32_t target, bool gradient);
    void *user;
} train_objective;

/* Cross-entropy: -log softmax(logits)[target], nats. user: a double, the weight of one target. */
double train_cross_entropy(void *user, const train_context *ctx, float *logits, int64_t token,
                           int32_t target, bool gradient);

typedef struct train_head_work {
    int64_t block;       /* C: targets at a time */
    float *n, *dn;       /* [T, E] */
    float *x, *partial;  /* [C, E], [ranges of the vocabulary, C, E] */
    float *logits;       /* [C, V] */
    int32_t *rows;       /* [T] tokens with a target */
    float *norm_partial; /* of the norm's gradient */
} train_head_work;

void train_head_plan(const model_config *config, int64_t n_tokens, train_arena *arena,
                     train_head_work *work);
int64_t train_head_scratch(const model_config *config); /* floats a thread */

/* x [T, E] -> losses [T], 0 where a token has no target. With d (not NULL): its gradient, [T, E],
 * and those of the parameters. */
void train_head(const train_context *ctx, const train_tokens *tokens,
                const train_objective *objective, const float *x, const train_head_work *work,
                double *losses, float *d);

#endif
