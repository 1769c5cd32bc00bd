#include <math.h>

#include "train/optimizer.h"

/* Of the way from `from` to the last step, in which it ends. */
static double progress(const train_schedule *s, int64_t step, int64_t from)
{
    if (step + 1 >= s->steps)
        return 1;
    return (double)(step + 1 - from) / (double)(s->steps - from);
}

double train_schedule_at(const train_schedule *s, int64_t step)
{
    if (step < s->warmup)
        return s->lr * ((double)(step + 1) / (double)s->warmup);
    double share = 1; /* of lr - min_lr */
    switch (s->kind) {
    case TRAIN_CONSTANT:
        break;
    case TRAIN_COSINE:
        share = 0.5 * (1 + cos(M_PI * progress(s, step, s->warmup)));
        break;
    case TRAIN_WSD: {
        int64_t from = s->steps - s->decay > s->warmup ? s->steps - s->decay : s->warmup;
        share = step < from ? 1 : 1 - progress(s, step, from);
        break;
    }
    }
    return s->min_lr + share * (s->lr - s->min_lr);
}
