#include "model/operations.h"

/* `times` products of one of the matrices with a vector. */
static void count(marco_operations *sum, const model_matrix *m, bool f32, double times)
{
    double operations = 2 * times * (double)m->rows * (double)m->cols;
    if (m->rows == 0)
        return; /* the model has no such tensor */
    if (f32 || tensor_traits_of(m->type)->block == 1)
        sum->f32 += operations;
    else
        sum->int8 += operations;
}

marco_operations model_operations(const model_weights *w, bool reference, int64_t position,
                                  int64_t n)
{
    const model_config *c = &w->config;
    marco_operations sum = {0};
    double tokens = (double)n;
    for (int32_t i = 0; i < c->n_layers; i++) {
        const model_layer *layer = &w->layers[i];
        const model_matrix *each[] = {&layer->q,    &layer->k,  &layer->v,   &layer->out,
                                      &layer->gate, &layer->up, &layer->down};
        const model_matrix *experts[] = {&layer->expert_gate, &layer->expert_up,
                                         &layer->expert_down};
        for (size_t j = 0; j < sizeof each / sizeof *each; j++)
            count(&sum, each[j], reference, tokens);
        for (size_t j = 0; j < sizeof experts / sizeof *experts; j++)
            count(&sum, experts[j], reference, tokens * c->n_experts_used);
        count(&sum, &layer->router, true, tokens);
    }
    count(&sum, &w->output, reference, 1);

    /* A token attends to itself and all before it: each of its query heads meets as many keys, and
     * as many values. */
    double pairs = tokens * (double)position + tokens * (tokens + 1) / 2;
    sum.f32 += 2 * 2 * pairs * c->n_layers * c->n_heads * c->head_dim;
    return sum;
}
