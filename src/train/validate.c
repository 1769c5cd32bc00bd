#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "train/trainer.h"

static marco_status open_source(trainer *t, const data_source *from, data_loader_params params,
                                marco_error *error)
{
    train_valid *valid = &t->valid;
    train_valid_source *source = &valid->sources[valid->n];
    data_set *set = NULL;
    marco_error problem = {0};
    marco_status status = data_set_open(from->path, DATA_VALID, &set, &problem);
    int64_t tokens = set ? data_set_tokens(set) : 0;
    data_set_close(set);
    params.sources = from;
    params.n_sources = 1;
    if (!status)
        status = data_loader_create(&params, &source->loader, &problem);
    if (status == MARCO_ERROR_MEMORY)
        return base_fail(error, status, "%s", problem.message);
    if (status) {
        char line[900];
        snprintf(line, sizeof line, "no validation on %s", problem.message);
        if (t->notes.fn && t->comm->rank[TRAIN_WORLD] == 0)
            t->notes.fn(t->notes.user, line);
        return MARCO_OK;
    }
    snprintf(source->name, sizeof source->name, "%s", base_path_name(from->path));
    source->beginning = data_loader_state(source->loader);
    if (!source->beginning)
        return base_fail_memory(error, 0, "validation");
    int64_t held = tokens / t->recipe->seq_len;
    source->sequences = held > 0 ? held : 1;
    valid->tokens += tokens;
    valid->n++;
    return MARCO_OK;
}

/* Every source gets the same number of sequences, as far as it has them; each process a multiple.
 */
static void share_sequences(trainer *t)
{
    train_valid *valid = &t->valid;
    int64_t ranks = t->comm->size[TRAIN_WORLD];
    int64_t wanted = t->recipe->valid_batches * t->recipe->batch;
    int64_t each = valid->n ? (wanted + (int64_t)valid->n - 1) / (int64_t)valid->n : 0;
    for (size_t i = 0; i < valid->n; i++) {
        int64_t n = valid->sources[i].sequences < each ? valid->sources[i].sequences : each;
        valid->sources[i].sequences = (n + ranks - 1) / ranks * ranks;
    }
}

marco_status train_valid_open(trainer *t, const char *tokenizer, int32_t eos, int32_t pad,
                              marco_error *error)
{
    const train_recipe *recipe = t->recipe;
    if (recipe->valid_every == 0)
        return MARCO_OK;
    data_loader_params params = {.split = DATA_VALID,
                                 .seq_len = recipe->seq_len,
                                 .whole_documents = recipe->chat,
                                 .attend_across = recipe->attend_across,
                                 .eos = eos,
                                 .pad = pad,
                                 .n_vocab = t->source->config.n_vocab,
                                 .tokenizer = tokenizer,
                                 .seed = (uint64_t)recipe->seed};
    t->valid.sources = base_calloc(recipe->n_sources, sizeof *t->valid.sources);
    if (!t->valid.sources)
        return base_fail_memory(error, recipe->n_sources * sizeof *t->valid.sources, "validation");
    marco_status status = MARCO_OK;
    for (size_t i = 0; i < recipe->n_sources && !status; i++)
        status = open_source(t, &recipe->sources[i], params, error);
    share_sequences(t);
    return status;
}

void train_valid_close(train_valid *valid)
{
    for (size_t i = 0; valid->sources && i < valid->n; i++) {
        data_loader_close(valid->sources[i].loader);
        json_decref(valid->sources[i].beginning);
    }
    base_free(valid->sources);
    data_batch_free(valid->batch);
    *valid = (train_valid){0};
}

/* Adds up the losses and targets of this process's share of a source. */
static marco_status measure_source(trainer *t, train_valid_source *source, double sums[2],
                                   marco_error *error)
{
    marco_status status = train_comm_settle(
        t->comm, data_loader_restore(source->loader, source->beginning, error), error);
    int64_t ranks = t->comm->size[TRAIN_WORLD], rank = t->comm->rank[TRAIN_WORLD];
    int64_t left = source->sequences / ranks, micro = t->recipe->micro_batch;
    double weight = 1;
    const train_objective objective = {.row = train_cross_entropy, .user = &weight};
    while (left > 0 && !status) {
        int64_t n = left < micro ? left : micro;
        data_batch *batch = t->valid.batch;
        batch->n_seqs = n;
        status = train_comm_settle(
            t->comm, data_loader_next(source->loader, n * ranks, n * rank, batch, error), error);
        const train_tokens tokens = {.n_seqs = n,
                                     .seq_len = batch->seq_len,
                                     .n = n * batch->seq_len,
                                     .ids = batch->ids,
                                     .targets = batch->targets,
                                     .starts = batch->starts,
                                     .lengths = batch->lengths};
        if (!status)
            status = train_model_losses(t->model, &tokens, &objective, t->losses, error);
        for (int64_t i = 0; i < tokens.n && !status; i++)
            sums[0] += t->losses[i];
        sums[1] += (double)batch->n_targets;
        left -= n;
    }
    return status;
}

marco_status train_valid_measure(trainer *t, double *loss, double *per_source, marco_error *error)
{
    double all[2] = {0, 0};
    marco_status status = MARCO_OK;
    *loss = NAN;
    for (size_t i = 0; i < t->valid.n && !status; i++) {
        double sums[2] = {0, 0};
        status = measure_source(t, &t->valid.sources[i], sums, error);
        if (!status)
            status = t->comm->ops->all_reduce_f64(t->comm, TRAIN_WORLD, sums, 2, error);
        if (per_source)
            per_source[i] = sums[1] > 0 ? sums[0] / sums[1] : NAN;
        all[0] += sums[0];
        all[1] += sums[1];
    }
    if (!status && all[1] > 0)
        *loss = all[0] / all[1];
    return status;
}
