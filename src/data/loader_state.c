/* Where a loader is, to JSON and back. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "data/loader.h"
#include "format/json.h"

static const char name[] = "the state of the data";

/* Of counts, so that counting on does not overflow. */
#define MOST (INT64_MAX / 2)

json_t *data_loader_state(const data_loader *loader)
{
    char seed[24];
    snprintf(seed, sizeof seed, "%" PRIu64, loader->params.seed);
    json_t *sources = json_array();
    for (size_t i = 0; sources && i < loader->n_streams; i++) {
        const data_stream *s = &loader->streams[i];
        json_t *source = json_pack("{s:s, s:I, s:I, s:I}", "digest", data_set_digest(s->set),
                                   "epoch", (json_int_t)s->at.epoch, "position",
                                   (json_int_t)s->at.position, "token", (json_int_t)s->at.token);
        if (!source || json_array_append_new(sources, source) != 0) {
            json_decref(sources);
            sources = NULL;
        }
    }
    if (!sources)
        return NULL;
    return json_pack("{s:s, s:I, s:I, s:I, s:o}", "seed", seed, "sequences",
                     (json_int_t)loader->stats.sequences, "repeated",
                     (json_int_t)loader->stats.repeated, "cut", (json_int_t)loader->stats.cut,
                     "sources", sources);
}

/* A whole number that must be there. */
static marco_status number(const json_t *object, const char *key, int64_t high, int64_t *out,
                           marco_error *error)
{
    int64_t value = -1;
    marco_status status = format_json_int(name, object, key, 0, high, &value, error);
    if (!status && value < 0)
        status = base_fail(error, MARCO_ERROR_FORMAT, "%s has no \"%s\"", name, key);
    *out = value;
    return status;
}

/* Leaves the cursor in `before` until all of the state is known to be good. */
static marco_status read_source(data_loader *loader, size_t i, const json_t *json,
                                marco_error *error)
{
    data_stream *s = &loader->streams[i];
    data_cursor *at = &loader->before[i];
    const char *digest = "";
    marco_status status = format_json_string(name, json, "digest", &digest, error);
    if (!status && strcmp(digest, data_set_digest(s->set)) != 0)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "source %zu of the data is not what the run was begun with: %s there, "
                         "%s here; go on with the same data, or begin a new run",
                         i, digest, data_set_digest(s->set));
    if (!status)
        status = number(json, "epoch", MOST, &at->epoch, error);
    if (!status)
        status = number(json, "position", data_set_documents(s->set) - 1, &at->position, error);
    if (status)
        return status;
    data_cursor now = s->at;
    s->at = *at;
    data_document d = data_set_document(s->set, data_loader_document(loader, i));
    s->at = now;
    int64_t last = loader->params.whole_documents ? 0 : data_loader_length(loader, &d) - 1;
    return number(json, "token", last, &at->token, error);
}

marco_status data_loader_restore(data_loader *loader, const json_t *state, marco_error *error)
{
    char wanted[24];
    const char *seed = "";
    data_loader_stats stats;
    const json_t *sources = json_object_get(state, "sources");
    snprintf(wanted, sizeof wanted, "%" PRIu64, loader->params.seed);
    marco_status status = format_json_string(name, state, "seed", &seed, error);
    if (!status && strcmp(seed, wanted) != 0)
        status = base_fail(error, MARCO_ERROR_ARGUMENT,
                           "the run was begun with seed %s and not %s, which orders the data "
                           "differently",
                           seed, wanted);
    if (!status)
        status = number(state, "sequences", MOST, &stats.sequences, error);
    if (!status)
        status = number(state, "repeated", MOST, &stats.repeated, error);
    if (!status)
        status = number(state, "cut", MOST, &stats.cut, error);
    if (!status && json_array_size(sources) != loader->n_streams)
        status = base_fail(error, MARCO_ERROR_ARGUMENT,
                           "the run was begun with %zu sources of data and not %zu",
                           json_array_size(sources), loader->n_streams);
    for (size_t i = 0; !status && i < loader->n_streams; i++)
        status = read_source(loader, i, json_array_get(sources, i), error);
    if (status)
        return status;
    loader->stats = stats;
    for (size_t i = 0; i < loader->n_streams; i++)
        loader->streams[i].at = loader->before[i];
    return MARCO_OK;
}
