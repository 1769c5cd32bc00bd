/* The sparse half against itself in double precision: outputs, and gradients against central
 * differences. The choice of experts is discrete, so the double forward takes it from the other. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "experts_fixture.h"

static const model_role roles[] = {MODEL_FFN_NORM, MODEL_ROUTER, MODEL_EXPERT_GATE, MODEL_EXPERT_UP,
                                   MODEL_EXPERT_DOWN};
enum { ROLES = sizeof roles / sizeof *roles };

/* ---- double precision ----------------------------------------------------------------------- */

typedef struct twin {
    const experts_fixture *f;
    double *param[ROLES]; /* in the order of `roles` */
    int64_t size[ROLES];
    double *x, *g, *out;        /* [n, embd]; g: the loss's weights of out */
    double *f_share;            /* [experts] f_i of the balancing loss */
    double *norm, *p, *h;       /* one token's */
    double balance, z, entropy; /* of the last run, coefficients left out */
} twin;

static double *doubles(int64_t n)
{
    double *out = calloc((size_t)n + 1, sizeof *out);
    assert_non_null(out);
    return out;
}

static double *copied(const float *x, int64_t n)
{
    double *out = doubles(n);
    for (int64_t i = 0; i < n; i++)
        out[i] = x[i];
    return out;
}

/* After a forward pass of f and before its backward pass. */
static void twin_open(twin *w, const experts_fixture *f)
{
    *w = (twin){.f = f};
    const experts_shape *s = &f->shape;
    for (int i = 0; i < ROLES; i++) {
        w->size[i] = experts_size(f, roles[i]);
        w->param[i] = doubles(w->size[i]);
        experts_values(f, roles[i], w->param[i]);
    }
    w->x = copied(f->x, s->n * s->embd);
    w->g = doubles(s->n * s->embd);
    w->out = doubles(s->n * s->embd);
    w->norm = doubles(s->embd);
    w->p = doubles(s->experts);
    w->h = doubles(s->width);
    w->f_share = doubles(s->experts);
    /* Counts of the pass, or what was seen before too. */
    double sum = 0;
    for (int64_t j = 0; j < s->n * s->used; j++)
        w->f_share[f->saved.chosen[j]] += 1;
    for (int64_t e = 0; e < s->experts; e++) {
        if (f->routing.balance == TRAIN_BALANCE_GLOBAL)
            w->f_share[e] = (double)f->stats.seen[e];
        sum += w->f_share[e];
    }
    for (int64_t e = 0; e < s->experts; e++)
        w->f_share[e] /= sum;
}

static void twin_close(twin *w)
{
    for (int i = 0; i < ROLES; i++)
        free(w->param[i]);
    free(w->x);
    free(w->g);
    free(w->out);
    free(w->norm);
    free(w->p);
    free(w->h);
    free(w->f_share);
}

static void add_expert(twin *w, int64_t expert, double weight, double *out)
{
    const experts_shape *s = &w->f->shape;
    int64_t matrix = (int64_t)s->embd * s->width;
    const double *gate = w->param[2] + expert * matrix, *up = w->param[3] + expert * matrix;
    const double *down = w->param[4] + expert * matrix;
    for (int64_t j = 0; j < s->width; j++) {
        double a = 0, b = 0;
        for (int64_t i = 0; i < s->embd; i++) {
            a += gate[j * s->embd + i] * w->norm[i];
            b += up[j * s->embd + i] * w->norm[i];
        }
        w->h[j] = a / (1 + exp(-a)) * b;
    }
    for (int64_t i = 0; i < s->embd; i++)
        for (int64_t j = 0; j < s->width; j++)
            out[i] += weight * down[i * s->width + j] * w->h[j];
}

/* w->p becomes the softmax of the experts that are not masked: those with a probability. */
static double scores(twin *w, int64_t t)
{
    const experts_shape *s = &w->f->shape;
    double sum = 0, entropy = 0;
    for (int64_t e = 0; e < s->experts; e++) {
        double logit = 0;
        for (int64_t i = 0; i < s->embd; i++)
            logit += w->param[1][e * s->embd + i] * w->norm[i];
        w->p[e] = w->f->saved.probs[t * s->experts + e] == 0 ? -INFINITY : logit;
        sum += exp(w->p[e]);
    }
    for (int64_t e = 0; e < s->experts; e++) {
        double p = exp(w->p[e]) / sum;
        entropy -= p > 0 ? p * log(p) : 0;
        w->p[e] = p;
    }
    w->entropy += entropy;
    return log(sum);
}

static void token_forward(twin *w, int64_t t)
{
    const experts_shape *s = &w->f->shape;
    const double *x = w->x + t * s->embd;
    double *out = w->out + t * s->embd, squares = 0, chosen = 0;
    const int32_t *choice = w->f->saved.chosen + t * s->used;
    for (int64_t i = 0; i < s->embd; i++)
        squares += x[i] * x[i];
    double r = 1 / sqrt(squares / s->embd + w->f->params->config.rms_eps);
    for (int64_t i = 0; i < s->embd; i++)
        w->norm[i] = x[i] * r * w->param[0][i];
    double lse = scores(w, t);
    for (int64_t k = 0; k < s->used; k++)
        chosen += w->p[choice[k]];
    memcpy(out, x, (size_t)s->embd * sizeof *x);
    for (int64_t k = 0; k < s->used; k++)
        add_expert(w, choice[k], w->p[choice[k]] / (s->as_they_are ? 1 : chosen), out);
    for (int64_t e = 0; e < s->experts; e++)
        w->balance += s->experts * w->f_share[e] * w->p[e] / (double)s->n;
    w->z += lse * lse / (double)s->n;
}

/* The loss: sum of g * out, and the routers' losses. Only tokens `from` to `to` - 1. */
static double twin_loss(twin *w, int64_t from, int64_t to)
{
    const experts_shape *s = &w->f->shape;
    const train_routing *routing = &w->f->routing;
    w->balance = w->z = w->entropy = 0;
    for (int64_t t = from; t < to; t++)
        token_forward(w, t);
    bool balanced =
        routing->balance == TRAIN_BALANCE_SWITCH || routing->balance == TRAIN_BALANCE_GLOBAL;
    double loss = w->f->pass.aux_scale *
                  ((balanced ? routing->coefficient * w->balance : 0) + routing->z_loss * w->z);
    for (int64_t i = from * s->embd; i < to * s->embd; i++)
        loss += w->g[i] * w->out[i];
    return loss;
}

/* ---- comparing ------------------------------------------------------------------------------ */

static void assert_close(const char *what, const float *a, const double *b, int64_t n, double norm,
                         double largest)
{
    double error = 0, sum = 0, worst = 0, most = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs(a[i] - b[i]);
        error += d * d;
        sum += b[i] * b[i];
        worst = d > worst || isnan(d) ? d : worst;
        most = fabs(b[i]) > most ? fabs(b[i]) : most;
    }
    if (!(sqrt(error) <= norm * sqrt(sum)) || !(worst <= largest * most))
        fail_msg("%s: relative error %.2e, worst %.2e of the largest", what,
                 sqrt(error) / sqrt(sum), worst / most);
}

static double central(twin *w, double *at, int64_t from, int64_t to)
{
    const double step = 1e-5;
    double x = *at;
    *at = x + step;
    double above = twin_loss(w, from, to);
    *at = x - step;
    double below = twin_loss(w, from, to);
    *at = x;
    return (above - below) / (2 * step);
}

/* The gradient of the twin's loss for some of w's numbers x, against `found`. `tokens`: a token's
 * numbers matter to that token alone. */
static void check_gradient(twin *w, const char *what, double *x, int64_t n, bool tokens,
                           const float *found)
{
    int64_t most = tokens || w->f->shape.n < 100 ? 500 : 60;
    int64_t step = (n / most) | 1, samples = (n + step - 1) / step;
    int64_t embd = w->f->shape.embd;
    double *expected = doubles(samples);
    float *sampled = malloc((size_t)samples * sizeof *sampled);
    assert_non_null(sampled);
    for (int64_t i = 0; i < samples; i++) {
        int64_t at = i * step;
        sampled[i] = found[at];
        expected[i] = tokens ? central(w, &x[at], at / embd, at / embd + 1)
                             : central(w, &x[at], 0, w->f->shape.n);
    }
    assert_close(what, sampled, expected, samples, 1e-4, 1e-3);
    free(sampled);
    free(expected);
}

/* Forward and backward of f against the twin. */
static void check(experts_fixture *f)
{
    static const char *const names[] = {"norm", "router", "gate", "up", "down"};
    const experts_shape *s = &f->shape;
    int64_t n = s->n * s->embd;
    twin w;
    experts_forward(f);
    /* The backward pass writes over what the twin looks at. */
    float *probs = f->saved.probs, *kept = malloc((size_t)(s->n * s->experts) * sizeof *kept);
    assert_non_null(kept);
    memcpy(kept, probs, (size_t)(s->n * s->experts) * sizeof *kept);
    experts_gradient_of_out(f, f->d);
    twin_open(&w, f);
    for (int64_t i = 0; i < n; i++)
        w.g[i] = f->d[i];
    twin_loss(&w, 0, s->n);
    assert_close("out", f->out, w.out, n, 1e-5, 1e-5);
    assert_true(fabs(f->stats.entropy - w.entropy) <= 1e-5 * (w.entropy + 1e-3));
    assert_true(fabs(f->stats.z - f->routing.z_loss * w.z) <= 1e-5 * w.z);
    bool balanced =
        f->routing.balance == TRAIN_BALANCE_SWITCH || f->routing.balance == TRAIN_BALANCE_GLOBAL;
    double balance = balanced ? f->routing.coefficient * w.balance : 0;
    assert_true(fabs(f->stats.balance - balance) <= 1e-5 * balance);

    experts_back(f);
    f->saved.probs = kept;
    check_gradient(&w, "x", w.x, n, true, f->d);
    for (int r = 0; r < ROLES; r++) {
        const float *gradient = experts_gradient(f, roles[r]);
        assert_true(gradient || s->freeze);
        if (gradient)
            check_gradient(&w, names[r], w.param[r], w.size[r], false, gradient);
    }
    f->saved.probs = probs;
    free(kept);
    twin_close(&w);
}

/* ---- tests ---------------------------------------------------------------------------------- */

static const experts_shape small = {.embd = 13, .width = 7, .experts = 6, .used = 3, .n = 21};

static void gradients_on_every_level(void **state)
{
    (void)state;
    for (int i = 0; kern_table_at(i); i++) {
        for (int as_they_are = 0; as_they_are <= 1; as_they_are++) {
            experts_fixture f;
            experts_shape shape = small;
            shape.level = kern_table_at(i)->level;
            shape.as_they_are = as_they_are;
            experts_open(&f, &shape);
            check(&f);
            experts_close(&f);
        }
    }
}

static void gradients_of_losses(void **state)
{
    (void)state;
    for (train_balance_kind kind = TRAIN_BALANCE_NONE; kind <= TRAIN_BALANCE_BIAS; kind++) {
        for (int z = 0; z <= 1; z++) {
            experts_fixture f;
            experts_open(&f, &small);
            f.routing = (train_routing){.balance = kind, .coefficient = 3, .z_loss = z ? 0.7 : 0};
            f.pass.aux_scale = 0.5;
            /* As if passes had been before. */
            for (int32_t e = 0; e < small.experts; e++) {
                f.stats.seen[e] = 7 * e;
                f.stats.bias[e] = 0.05f * (float)(e % 3);
            }
            check(&f);
            experts_close(&f);
        }
    }
}

static void gradients_with_masks(void **state)
{
    (void)state;
    for (train_dropout_what what = TRAIN_DROP_EXPERTS; what <= TRAIN_DROP_PATHS; what++) {
        for (int per_token = 0; per_token <= 1; per_token++) {
            experts_fixture f;
            experts_open(&f, &small);
            f.routing = (train_routing){.dropout = what,
                                        .dropout_per_token = per_token,
                                        .balance = TRAIN_BALANCE_SWITCH,
                                        .coefficient = 1,
                                        .z_loss = 0.1};
            f.pass.dropout_rate = 0.4;
            f.pass.pass = 3;
            check(&f);
            experts_close(&f);
        }
    }
}

static void gradients_of_odd_shapes(void **state)
{
    (void)state;
    static const experts_shape shapes[] = {
        {.embd = 5, .width = 3, .experts = 4, .used = 2, .n = 1}, /* one token */
        {.embd = 5, .width = 3, .experts = 4, .used = 1, .n = 9}, /* one choice: its weight is 1 */
        {.embd = 5, .width = 3, .experts = 4, .used = 1, .n = 9, .as_they_are = true},
        {.embd = 5, .width = 3, .experts = 3, .used = 3, .n = 9}, /* all of them */
        {.embd = 1, .width = 1, .experts = 1, .used = 1, .n = 2},
        {.embd = 33, .width = 17, .experts = 3, .used = 2, .n = 300}, /* several blocks each */
        {.embd = 70, .width = 3, .experts = 3, .used = 2, .n = 900},  /* large experts */
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        experts_fixture f;
        experts_open(&f, &shapes[i]);
        check(&f);
        experts_close(&f);
    }
}

/* An expert that nobody chose, and one that everybody did, by their bias. */
static void gradients_of_dead_and_crowded_experts(void **state)
{
    (void)state;
    static const experts_shape shapes[] = {
        {.embd = 13, .width = 7, .experts = 4, .used = 1, .n = 40, .as_they_are = true},
        {.embd = 67, .width = 3, .experts = 3, .used = 1, .n = 600, .as_they_are = true},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        experts_fixture f;
        experts_open(&f, &shapes[i]);
        f.routing.balance = TRAIN_BALANCE_BIAS;
        f.stats.bias[1] = 10;
        check(&f);
        assert_int_equal(f.stats.load[1], shapes[i].n);
        int64_t matrix = (int64_t)shapes[i].embd * shapes[i].width;
        const float *dead = experts_gradient(&f, MODEL_EXPERT_GATE);
        for (int64_t j = 0; j < matrix; j++)
            assert_true(dead[j] == 0);
        experts_close(&f);
    }
}

static void gradients_of_bf16_and_frozen_weights(void **state)
{
    (void)state;
    static const char *const frozen[] = {NULL, "experts", "router", "blk.0.ffn_up*", "norms"};
    for (size_t i = 0; i < sizeof frozen / sizeof *frozen; i++) {
        for (int64_t n = 21; n <= 921; n += 900) { /* small and large experts */
            experts_fixture f;
            experts_shape shape = small;
            shape.n = n;
            shape.freeze = frozen[i];
            shape.type = frozen[i] ? TENSOR_F32 : TENSOR_BF16;
            experts_open(&f, &shape);
            check(&f);
            experts_close(&f);
        }
    }
}

/* What a pass saved is enough: other layers and passes use the work area in between. */
static void the_work_area_is_shared(void **state)
{
    (void)state;
    experts_fixture f, other;
    experts_open(&f, &small);
    experts_forward(&f);
    experts_back(&f);
    uint64_t expected = experts_hash(&f);
    experts_open(&other, &small);
    for (int64_t i = 0; i < small.n * small.embd; i++)
        other.x[i] = -f.x[i];
    experts_forward(&f);
    train_experts_work *own = other.work;
    other.work = f.work;
    experts_forward(&other);
    experts_back(&f);
    assert_true(experts_hash(&f) == expected);
    other.work = own;
    experts_close(&other);
    experts_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_on_every_level),
        cmocka_unit_test(gradients_of_losses),
        cmocka_unit_test(gradients_with_masks),
        cmocka_unit_test(gradients_of_odd_shapes),
        cmocka_unit_test(gradients_of_dead_and_crowded_experts),
        cmocka_unit_test(gradients_of_bf16_and_frozen_weights),
        cmocka_unit_test(the_work_area_is_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
