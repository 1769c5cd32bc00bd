#include "model/operations.h"

/* `times` products of one of the matrices with a vector. Kernels NULL: in F32. */
static void count(marco_operations *sum, const model_matrix *m, const kern_table *kernels,
                  double times)
{
    double operations = 2 * times * (double)m->rows * (double)m->cols;
    if (m->rows == 0)
        return; /* the model has no such tensor */
    if (kernels && kernels->matmul[m->type].input == KERN_INPUT_Q8)
        sum->int8 += operations;
    else
        sum->f32 += operations;
}

marco_operations model_operations(const model_weights *w, const kern_table *kernels,
                                  int64_t position, int64_t n)
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
            count(&sum, each[j], kernels, tokens);
        for (size_t j = 0; j < sizeof experts / sizeof *experts; j++)
            count(&sum, experts[j], kernels, tokens * c->n_experts_used);
        count(&sum, &layer->router, NULL, tokens);
    }
    count(&sum, &w->output, kernels, 1);

    /* A token attends to itself and all before it: each of its query heads meets as many keys, and
     * as many values. */
    double pairs = tokens * (double)position + tokens * (tokens + 1) / 2;
    sum.f32 += 2 * 2 * pairs * c->n_layers * c->n_heads * c->head_dim;
    return sum;
}
