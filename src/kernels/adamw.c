/* The optimiser's update. */
#include <float.h>
#include <math.h>

#include "kernels/portable.h"

/* A moment that no gradient feeds any more would fade to a subnormal and, rounded, stay there; each
 * step would then take a hundred times as long. */
static float flushed(float x)
{
    return fabsf(x) < FLT_MIN ? 0 : x;
}

void kern_portable_adamw(float *w, float *m, float *v, const float *g, int64_t n,
                         const kern_adamw *p)
{
    float step = p->lr / p->correct1;
    float decay = p->lr * p->decay;
    float inverse = 1 / sqrtf(p->correct2);
    for (int64_t i = 0; i < n; i++) {
        float grad = g[i] * p->grad_scale;
        m[i] = flushed(p->beta1 * m[i] + p->rest1 * grad);
        v[i] = flushed(p->beta2 * v[i] + p->rest2 * grad * grad);
        w[i] -= step * (m[i] / (sqrtf(v[i]) * inverse + p->eps)) + decay * w[i];
    }
}
