#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"
#include "train/trainer.h"

/* ---- names
 * ------------------------------------------------------------------------------------------ */

/* A path without '/' at its end. */
static size_t length_of(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    return n;
}

/* Where the last `parts` parts of a path of n bytes begin; *all: that is the whole of it. */
static size_t parts_start(const char *path, size_t n, size_t parts, bool *all)
{
    size_t at = n;
    while (at > 0 && (path[at - 1] != '/' || --parts > 0))
        at--;
    *all = at == 0;
    return at;
}

/* Whether the last `parts` parts of source i's path are those of another's; *all as above. */
static bool is_shared(const train_recipe *recipe, size_t i, size_t parts, bool *all)
{
    const char *path = recipe->sources[i].path;
    size_t end = length_of(path), start = parts_start(path, end, parts, all);
    for (size_t k = 0; k < recipe->n_sources; k++) {
        const char *other = recipe->sources[k].path;
        bool whole;
        size_t n = length_of(other), at = parts_start(other, n, parts, &whole);
        if (k != i && n - at == end - start && memcmp(other + at, path + start, n - at) == 0)
            return true;
    }
    return false;
}

/* Also of paths that are the same, or are once they are valid UTF-8: those have a number as well.
 */
static bool name_source(const trainer *t, size_t i, train_valid_source *source)
{
    const char *path = t->recipe->sources[i].path;
    bool all = false;
    size_t parts = 1, end = length_of(path);
    while (is_shared(t->recipe, i, parts, &all) && !all)
        parts++;
    size_t start = parts_start(path, end, parts, &all);
    char *plain = base_strndup(path + start, end - start);
    if (!plain)
        return false;
    base_utf8_repair(plain);
    source->name = base_strdup(plain);
    size_t k = 0;
    for (size_t number = 2; source->name && k < t->valid.n;) {
        if (strcmp(t->valid.sources[k++].name, source->name) != 0)
            continue;
        base_text numbered = {0};
        base_text_printf(&numbered, "%s (%zu)", plain, number++);
        base_free(source->name);
        source->name = base_text_take(&numbered, NULL);
        k = 0;
    }
    base_free(plain);
    return source->name != NULL;
}

/* ---- opening
 * ---------------------------------------------------------------------------------------- */

/* What is held out may be nothing, or too little: that is no mistake. */
static void note_missing(const trainer *t, const char *path, const data_set *set)
{
    char line[900];
    if (data_set_documents(set) == 0)
        snprintf(line, sizeof line,
                 "no validation on %s: no documents were held out for it; make the data again with "
                 "more of them, marco data --valid 0.01",
                 path);
    else
        snprintf(line, sizeof line,
                 "no validation on %s: the %lld tokens held out are less than one sequence of %d",
                 path, (long long)data_set_tokens(set), t->recipe->seq_len);
    if (t->notes.fn)
        t->notes.fn(t->notes.user, line);
}

static marco_status open_source(trainer *t, size_t i, data_loader_params params, marco_error *error)
{
    train_valid *valid = &t->valid;
    train_valid_source *source = &valid->sources[valid->n];
    data_set *set = NULL;
    params.sources = &t->recipe->sources[i];
    params.n_sources = 1;
    marco_status status = data_set_open(params.sources->path, DATA_VALID, &set, error);
    if (status)
        return status;
    int64_t tokens = data_set_tokens(set);
    bool enough = data_set_suffices(set, &params);
    if (!enough)
        note_missing(t, params.sources->path, set);
    data_set_close(set);
    if (!enough)
        return MARCO_OK;
    if (!name_source(t, i, source))
        return base_fail_memory(error, 0, "validation");
    valid->n++;
    status = data_loader_create(&params, &source->loader, error);
    if (status)
        return status;
    source->beginning = data_loader_state(source->loader);
    if (!source->beginning)
        return base_fail_memory(error, 0, "validation");
    int64_t held = tokens / t->recipe->seq_len;
    source->sequences = held > 0 ? held : 1;
    valid->tokens += tokens;
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
        status = open_source(t, i, params, error);
    share_sequences(t);
    return status;
}

void train_valid_close(train_valid *valid)
{
    for (size_t i = 0; valid->sources && i < valid->n; i++) {
        data_loader_close(valid->sources[i].loader);
        json_decref(valid->sources[i].beginning);
        base_free(valid->sources[i].name);
    }
    base_free(valid->sources);
    data_batch_free(valid->batch);
    *valid = (train_valid){0};
}

json_t *train_valid_state(const train_valid *valid)
{
    json_t *state = json_array();
    for (size_t i = 0; state && i < valid->n; i++) {
        const train_valid_source *source = &valid->sources[i];
        json_t *item = json_pack("{s:O, s:I}", "beginning", source->beginning, "sequences",
                                 (json_int_t)source->sequences);
        if (!item || json_array_append_new(state, item) != 0) {
            json_decref(state);
            return NULL;
        }
    }
    return state;
}

/* ---- measuring
 * -------------------------------------------------------------------------------------- */

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
