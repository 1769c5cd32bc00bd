#include "data/loader.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "data/order.h"

/* Streams of random numbers. ORDER + i: of source i, a number an epoch. */
enum { CHOICE, ORDER };

static uint64_t stream_of(uint64_t number)
{
    return base_random_stream(BASE_RANDOM_DATA, number);
}

/* ---- batches ------------------------------------------------------------------------------- */

marco_status data_batch_create(int64_t n_seqs, int64_t seq_len, data_batch **out,
                               marco_error *error)
{
    uint64_t n = 0;
    if (n_seqs < 1 || seq_len < 1 || !base_mul_u64((uint64_t)n_seqs, (uint64_t)seq_len, &n) ||
        n > SIZE_MAX / 16)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "a batch of %" PRId64 " sequences of %" PRId64 " tokens cannot be had",
                         n_seqs, seq_len);
    data_batch *batch = base_calloc(1, sizeof *batch);
    int32_t *numbers = base_alloc_array((size_t)n, 4 * sizeof *numbers);
    if (!batch || !numbers) {
        base_free(batch);
        base_free(numbers);
        return base_fail_memory(error, (size_t)n * 4 * sizeof *numbers, "a batch");
    }
    *batch = (data_batch){.n_seqs = n_seqs,
                          .seq_len = seq_len,
                          .ids = numbers,
                          .targets = numbers + n,
                          .starts = numbers + 2 * n,
                          .lengths = numbers + 3 * n};
    *out = batch;
    return MARCO_OK;
}

void data_batch_free(data_batch *batch)
{
    if (batch)
        base_free(batch->ids);
    base_free(batch);
}

/* ---- creating ------------------------------------------------------------------------------ */

static marco_status check_params(const data_loader_params *p, marco_error *error)
{
    if (p->n_sources < 1)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "there are no data to train on");
    if (p->seq_len < 1 || p->n_vocab < 1 || p->eos < -1 || p->eos >= p->n_vocab ||
        (p->whole_documents && (p->pad < 0 || p->pad >= p->n_vocab)))
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "sequences of %d tokens, end of sequence %d, padding %d with a vocabulary "
                         "of %d cannot be",
                         p->seq_len, p->eos, p->pad, p->n_vocab);
    if (!(p->temperature >= 0 && p->temperature <= 100))
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "a mixture's temperature of %g: must be from 0 to 100", p->temperature);
    for (size_t i = 0; i < p->n_sources; i++)
        if (!(p->sources[i].weight > 0 && p->sources[i].weight <= 1e100))
            return base_fail(error, MARCO_ERROR_ARGUMENT, "%s: a weight of %g: must be above 0",
                             p->sources[i].path, p->sources[i].weight);
    return MARCO_OK;
}

bool data_set_suffices(const data_set *set, const data_loader_params *p)
{
    int64_t documents = data_set_documents(set), ends = p->eos >= 0 ? documents : 0;
    return documents > 0 && (p->whole_documents || data_set_tokens(set) + ends >= p->seq_len);
}

/* Whether the data can be trained on as the parameters say. */
static marco_status check_set(const data_loader_params *p, const char *path, const data_set *set,
                              marco_error *error)
{
    int64_t documents = data_set_documents(set), tokens = data_set_tokens(set);
    if (documents == 0)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         p->split == DATA_VALID
                             ? "%s: no documents were held out for validation; make it again with "
                               "more of them, marco data --valid 0.01"
                             : "%s: no documents to train on",
                         path);
    if (p->tokenizer && strcmp(p->tokenizer, data_set_tokenizer(set)) != 0)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%s: made with tokenizer %s, but the model's is %s; make the data again "
                         "with the model's tokenizer",
                         path, data_set_tokenizer(set), p->tokenizer);
    if (data_set_vocab(set) > p->n_vocab)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%s: made with a tokenizer of %d ids, but the model's vocabulary is %d",
                         path, data_set_vocab(set), p->n_vocab);
    if (!data_set_suffices(set, p))
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%s: %" PRId64 " tokens in %" PRId64
                         " documents are less than one sequence of %d; use shorter sequences or "
                         "more text",
                         path, tokens, documents, p->seq_len);
    return MARCO_OK;
}

/* Shares from weights: relative to the largest, so that no power overflows. */
static void share_out(data_loader *loader, const data_source *sources)
{
    double largest = -HUGE_VAL, sum = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < loader->n_streams; i++) {
            double size = (double)data_set_tokens(loader->streams[i].set);
            double logarithm = log(sources[i].weight) + loader->params.temperature * log(size);
            if (pass == 0) {
                largest = fmax(largest, logarithm);
                continue;
            }
            sum += exp(logarithm - largest);
            loader->streams[i].until = sum;
        }
    }
    for (size_t i = 0; i < loader->n_streams; i++)
        loader->streams[i].until /= sum;
    loader->streams[loader->n_streams - 1].until = 1;
}

marco_status data_loader_create(const data_loader_params *params, data_loader **out,
                                marco_error *error)
{
    size_t n = params->n_sources;
    marco_status status = check_params(params, error);
    if (status)
        return status;
    data_loader *loader = base_calloc(1, sizeof *loader);
    if (!loader || !(loader->streams = base_calloc(n, sizeof *loader->streams)) ||
        !(loader->before = base_calloc(n, sizeof *loader->before))) {
        data_loader_close(loader);
        return base_fail_memory(error, n * sizeof *loader->streams, "sources of data");
    }
    loader->params = *params;
    loader->params.sources = NULL;
    loader->params.tokenizer = NULL;
    for (; !status && loader->n_streams < n; loader->n_streams++) {
        const char *path = params->sources[loader->n_streams].path;
        data_set **set = &loader->streams[loader->n_streams].set;
        status = data_set_open(path, params->split, set, error);
        if (!status)
            status = check_set(params, path, *set, error);
    }
    if (status) {
        data_loader_close(loader);
        return status;
    }
    share_out(loader, params->sources);
    *out = loader;
    return MARCO_OK;
}

void data_loader_close(data_loader *loader)
{
    if (!loader)
        return;
    for (size_t i = 0; i < loader->n_streams; i++)
        data_set_close(loader->streams[i].set);
    base_free(loader->streams);
    base_free(loader->before);
    base_free(loader);
}

data_loader_stats data_loader_counts(const data_loader *loader)
{
    return loader->stats;
}

/* ---- streams of documents ------------------------------------------------------------------ */

int64_t data_loader_document(const data_loader *loader, size_t stream)
{
    const data_stream *s = &loader->streams[stream];
    uint64_t key = base_random_u64(loader->params.seed, stream_of(ORDER + (uint64_t)stream),
                                   (uint64_t)s->at.epoch);
    return (int64_t)data_order(key, (uint64_t)data_set_documents(s->set), (uint64_t)s->at.position);
}

int64_t data_loader_length(const data_loader *loader, const data_document *document)
{
    bool ended = !loader->params.whole_documents && loader->params.eos >= 0;
    return document->n + (ended ? 1 : 0);
}

static void next_document(data_stream *stream)
{
    stream->at.token = 0;
    if (++stream->at.position == data_set_documents(stream->set)) {
        stream->at.position = 0;
        stream->at.epoch++;
    }
}

/* ---- sequences ----------------------------------------------------------------------------- */

/* Where a sequence goes. */
typedef struct slot {
    int32_t *ids, *targets, *starts; /* [seq_len]; ids NULL: the sequence is passed over */
    int32_t *length;
} slot;

/* Tokens [from, from + n) of a document with its eos. They are checked where they were copied to:
 * the file is somebody else's, and may change meanwhile. */
static marco_status copy_ids(const data_loader *loader, size_t stream, const data_document *d,
                             int64_t from, int64_t n, int32_t *out, marco_error *error)
{
    const uint32_t n_vocab = (uint32_t)loader->params.n_vocab;
    int64_t held = d->n - from < n ? d->n - from : n, bad = 0;
    uint32_t above = 0;
    memcpy(out, d->ids + from, (size_t)held * sizeof *out);
    for (int64_t i = 0; i < held; i++)
        above |= (uint32_t)out[i] >= n_vocab;
    if (held < n)
        out[held] = loader->params.eos;
    if (!above)
        return MARCO_OK;
    while ((uint32_t)out[bad] < n_vocab)
        bad++;
    int64_t number;
    const char *path =
        data_set_place(loader->streams[stream].set, data_loader_document(loader, stream), &number);
    return base_fail(error, MARCO_ERROR_FORMAT,
                     "%s: token %" PRId64 " of document %" PRId64
                     " is %d, outside the vocabulary of %d; the file is damaged, make the data "
                     "again",
                     path, from + bad, number, out[bad], loader->params.n_vocab);
}

static void count_begun(data_loader *loader, const data_stream *stream)
{
    loader->stats.repeated += stream->at.epoch > 0 && stream->at.token == 0;
}

/* What ends a conversation is marked in it, so that an eos after it is not to be learnt. */
static bool is_target(const data_document *d, int64_t i)
{
    return !d->target || (i < d->n && d->target[i]);
}

/* `n` tokens of a document, from `from` on, at `at` of a row, with what follows each in the
 * document as its target. */
static marco_status put(const data_loader *loader, size_t k, const data_document *d, int64_t from,
                        int64_t n, const slot *row, int64_t at, marco_error *error)
{
    int32_t *ids = row->ids + at, *targets = row->targets + at, after = -1;
    marco_status status = copy_ids(loader, k, d, from, n, ids, error);
    if (!status && from + n < data_loader_length(loader, d))
        status = copy_ids(loader, k, d, from + n, 1, &after, error);
    for (int64_t i = 0; !status && i < n; i++) {
        int32_t next = i + 1 < n ? ids[i + 1] : after;
        targets[i] = is_target(d, from + i + 1) ? next : -1;
        row->starts[at + i] = (int32_t)at;
    }
    return status;
}

/* The first token of the document that the stream is at, as a target. */
static marco_status put_border(const data_loader *loader, size_t k, const data_document *d,
                               int32_t *target, marco_error *error)
{
    int32_t first = -1;
    marco_status status = copy_ids(loader, k, d, 0, 1, &first, error);
    *target = is_target(d, 0) ? first : -1;
    return status;
}

/* Documents one after another, cut where the sequence is full. */
static marco_status pack_stream(data_loader *loader, size_t k, const slot *row, marco_error *error)
{
    data_stream *stream = &loader->streams[k];
    const int64_t seq_len = loader->params.seq_len;
    const bool across = loader->params.attend_across;
    if (row->ids)
        *row->length = (int32_t)seq_len;
    bool border = false; /* the last target is the first token of the document that follows */
    for (int64_t used = 0; used < seq_len || border;) {
        data_document d = data_set_document(stream->set, data_loader_document(loader, k));
        int64_t length = data_loader_length(loader, &d), from = stream->at.token;
        int64_t take = length - from < seq_len - used ? length - from : seq_len - used;
        marco_status status = MARCO_OK;
        if (border)
            status = put_border(loader, k, &d, &row->targets[used - 1], error);
        border = false;
        if (!status && row->ids && take)
            status = put(loader, k, &d, from, take, row, used, error);
        if (status)
            return status;
        if (take == 0)
            break;
        count_begun(loader, stream);
        used += take;
        stream->at.token += take;
        if (stream->at.token == length) {
            next_document(stream);
            border = across && row->ids;
        }
    }
    if (across && row->ids)
        memset(row->starts, 0, (size_t)seq_len * sizeof *row->starts);
    return MARCO_OK;
}

static void pad_row(const data_loader *loader, const slot *row, int64_t from)
{
    for (int64_t i = from; i < loader->params.seq_len; i++) {
        row->ids[i] = loader->params.pad;
        row->targets[i] = -1;
        row->starts[i] = (int32_t)i;
    }
}

/* Whole documents while they fit. */
static marco_status pack_whole(data_loader *loader, size_t k, const slot *row, int64_t *padding,
                               marco_error *error)
{
    data_stream *stream = &loader->streams[k];
    const int64_t seq_len = loader->params.seq_len;
    int64_t used = 0;
    while (used < seq_len) {
        data_document d = data_set_document(stream->set, data_loader_document(loader, k));
        int64_t n = d.n < seq_len + 1 ? d.n : seq_len + 1;
        int64_t take = n > 1 ? n - 1 : 1; /* a document of one id has nothing to predict */
        if (take > seq_len - used)
            break;
        marco_status status = row->ids ? put(loader, k, &d, 0, take, row, used, error) : MARCO_OK;
        if (status)
            return status;
        used += take;
        count_begun(loader, stream);
        loader->stats.cut += d.n - n;
        next_document(stream);
    }
    if (row->ids) {
        *row->length = (int32_t)used;
        pad_row(loader, row, used);
        *padding += seq_len - used;
    }
    return MARCO_OK;
}

/* ---- batches ------------------------------------------------------------------------------- */

/* The source of a sequence, from its number alone. */
static size_t choose(const data_loader *loader, int64_t sequence)
{
    double u = base_random_unit(loader->params.seed, stream_of(CHOICE), (uint64_t)sequence);
    size_t k = 0;
    while (k + 1 < loader->n_streams && u >= loader->streams[k].until)
        k++;
    return k;
}

static marco_status fill(data_loader *loader, int64_t total, int64_t first, data_batch *batch,
                         marco_error *error)
{
    marco_status status = MARCO_OK;
    for (int64_t i = 0; !status && i < total; i++) {
        size_t k = choose(loader, loader->stats.sequences++);
        slot row = {0};
        if (i >= first && i - first < batch->n_seqs) {
            int64_t at = (i - first) * batch->seq_len;
            row.ids = batch->ids + at;
            row.targets = batch->targets + at;
            row.starts = batch->starts + at;
            row.length = batch->lengths + (i - first);
        }
        status = loader->params.whole_documents
                     ? pack_whole(loader, k, &row, &batch->n_padding, error)
                     : pack_stream(loader, k, &row, error);
    }
    return status;
}

marco_status data_loader_next(data_loader *loader, int64_t total, int64_t first, data_batch *batch,
                              marco_error *error)
{
    if (first < 0 || batch->n_seqs > total || first > total - batch->n_seqs ||
        batch->seq_len != loader->params.seq_len)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "a batch of %" PRId64 " sequences of %" PRId64
                         " tokens from number %" PRId64 " on of %" PRId64
                         " sequences of %d tokens cannot be",
                         batch->n_seqs, batch->seq_len, first, total, loader->params.seq_len);
    data_loader_stats stats = loader->stats;
    for (size_t i = 0; i < loader->n_streams; i++)
        loader->before[i] = loader->streams[i].at;
    batch->n_padding = batch->n_targets = 0;
    marco_status status = fill(loader, total, first, batch, error);
    if (status) {
        loader->stats = stats;
        for (size_t i = 0; i < loader->n_streams; i++)
            loader->streams[i].at = loader->before[i];
        return status;
    }
    for (int64_t i = 0; i < batch->n_seqs * batch->seq_len; i++)
        batch->n_targets += batch->targets[i] >= 0;
    return MARCO_OK;
}
