/* Work in parts of a fixed size, the last of them smaller: results depend on the sizes alone, never
 * on the number of threads. */
#ifndef TRAIN_PARTS_H
#define TRAIN_PARTS_H

#include <stdint.h>

/* How many parts of `step` things n things make. */
static inline int64_t train_parts(int64_t n, int64_t step)
{
    return (n + step - 1) / step;
}

/* How many of n things there are from `at` on, `step` at most. */
static inline int64_t train_span(int64_t n, int64_t at, int64_t step)
{
    return n - at < step ? n - at : step;
}

/* Where part `part` ends. */
static inline int64_t train_part_end(int64_t n, int64_t part, int64_t step)
{
    return part * step + train_span(n, part * step, step);
}

#endif
