/* Batches: a stream cut into sequences, epochs, mixtures, ranks, and going on where it stopped. */
#include "data_fixture.h"

#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/text.h"
#include "data/order.h"
#include "data/shard.h"

/* Lines of text with lengths of all kinds, each beginning with its number in two bytes. */
static const char *mixed_folder(const scratch *s, const char *name, char letter, int n)
{
    base_text text = {0};
    for (int i = 0; i < n; i++) {
        base_text_printf(&text, "%c%03d", letter, i);
        for (int k = 0; k < i * i % 23; k++)
            base_text_add_char(&text, (char)('a' + k));
        base_text_add_char(&text, '\n');
    }
    const char *folder = data_folder(s, name, text.data);
    base_text_free(&text);
    return folder;
}

static data_loader_params loader_params(const data_source *sources, size_t n)
{
    return (data_loader_params){.sources = sources,
                                .n_sources = n,
                                .temperature = 1,
                                .seq_len = 16,
                                .eos = BYTES_EOS,
                                .pad = BYTES_EOS,
                                .n_vocab = BYTES_VOCAB,
                                .seed = 7};
}

static data_loader *open_loader(const data_loader_params *p)
{
    data_loader *loader;
    assert_ok(data_loader_create(p, &loader, error));
    return loader;
}

/* ---- the order ----------------------------------------------------------------------------- */

static void test_order(void **state)
{
    enum { N = 300 };
    int same = 0;
    (void)state;
    for (uint64_t n = 1; n <= N; n++) {
        uint8_t seen[N] = {0};
        for (uint64_t i = 0; i < n; i++) {
            uint64_t at = data_order(n, n, i);
            assert_true(at < n && !seen[at]);
            seen[at] = 1;
            same += n == N && at == i;
        }
    }
    assert_in_range(same, 0, 6); /* one on average */
    /* Every place is as likely: 64 places of position 5, 6400 keys. */
    int counts[64] = {0};
    double square = 0;
    for (uint64_t key = 0; key < 6400; key++)
        counts[data_order(key * 0x9E3779B97F4A7C15u, 64, 5)]++;
    for (int i = 0; i < 64; i++)
        square += (counts[i] - 100) * (counts[i] - 100) / 100.0;
    assert_true(square < 63 + 4 * sqrt(2 * 63.0)); /* chi squared, four deviations */
    assert_true(data_order(1, (uint64_t)1 << 61, 12345) < (uint64_t)1 << 61);
}

/* ---- packing ------------------------------------------------------------------------------- */

/* What a sequence must be, given what the stream's text is: checks one against the text that begins
 * at `at` of the order; returns nothing that was not checked. */
static void check_packed(const data_batch *b, int64_t seq, bool across, base_text *stream)
{
    int32_t start = 0;
    for (int64_t t = 0; t < b->seq_len; t++) {
        int64_t i = seq * b->seq_len + t;
        bool ended = b->ids[i] == BYTES_EOS;
        assert_int_equal(b->starts[i], across ? 0 : start);
        if (ended && !across)
            assert_int_equal(b->targets[i], -1);
        else
            assert_true(b->targets[i] >= 0);
        if (t + 1 < b->seq_len && b->targets[i] >= 0)
            assert_int_equal(b->targets[i], b->ids[i + 1]);
        if (ended)
            start = (int32_t)t + 1;
        base_text_add_char(stream, ended ? '\n' : (char)b->ids[i]);
    }
}

/* Every document once per epoch, whole, in an order that changes; the last target of a sequence is
 * the first id of the next. */
static void check_stream(const scratch *s, bool across)
{
    enum { N = 40, EPOCHS = 3 };
    const data_source source = {mixed_folder(s, "mixed", 'x', N), 1};
    data_loader_params p = loader_params(&source, 1);
    p.attend_across = across;
    data_loader *loader = open_loader(&p);
    data_batch *batch;
    base_text stream = {0};
    int32_t last = -1;
    assert_ok(data_batch_create(1, p.seq_len, &batch, error));
    int64_t tokens = 0;
    for (int i = 0; i < N; i++)
        tokens += 4 + i * i % 23 + 1;
    while (stream.size < (size_t)(EPOCHS * tokens + p.seq_len)) {
        assert_ok(data_loader_next(loader, 1, 0, batch, error));
        if (last >= 0)
            assert_int_equal(batch->ids[0], last);
        last = batch->targets[p.seq_len - 1];
        assert_int_equal(batch->n_padding, 0);
        for (int64_t i = 0; i < batch->n_seqs; i++)
            assert_int_equal(batch->lengths[i], batch->seq_len);
        check_packed(batch, 0, across, &stream);
    }
    int order[EPOCHS][N], moved = 0;
    char *at = stream.data;
    for (int e = 0; e < EPOCHS; e++) {
        uint8_t seen[N] = {0};
        for (int i = 0; i < N; i++) {
            int number = order[e][i] = atoi(at + 1);
            assert_true(number >= 0 && number < N && !seen[number]++);
            char *end = strchr(at, '\n');
            assert_int_equal(end - at, 4 + number * number % 23);
            for (int k = 4; k < end - at; k++)
                assert_int_equal(at[k], 'a' + k - 4);
            at = end + 1;
            moved += e && order[e][i] != order[e - 1][i];
        }
    }
    assert_true(moved > EPOCHS * N / 2);
    data_loader_stats stats = data_loader_counts(loader);
    assert_int_equal(stats.sequences, (int64_t)stream.size / p.seq_len);
    int64_t begun = 0; /* after the first epoch */
    for (char *c = stream.data + tokens - 1; c < stream.data + stream.size - 1; c++)
        begun += *c == '\n';
    assert_int_equal(stats.repeated, begun);
    base_text_free(&stream);
    data_batch_free(batch);
    data_loader_close(loader);
}

static void test_packed(void **state)
{
    check_stream(*state, false);
}

static void test_across(void **state)
{
    check_stream(*state, true);
}

/* Without an eos documents touch; their borders are known all the same. */
static void test_no_eos(void **state)
{
    const data_source source = {data_folder(*state, "letters", "aaa\nbbb\nccc\nddd\neee\nfff\n"),
                                1};
    data_loader_params p = loader_params(&source, 1);
    data_batch *batch;
    p.eos = -1;
    data_loader *loader = open_loader(&p);
    assert_ok(data_batch_create(2, p.seq_len, &batch, error));
    assert_ok(data_loader_next(loader, 2, 0, batch, error));
    for (int t = 0; t < 2 * p.seq_len; t++) {
        bool ends = t % 3 == 2;
        assert_int_equal(batch->targets[t], ends ? -1 : batch->ids[t]);
        int start = t / p.seq_len ? t / 3 * 3 - p.seq_len : t / 3 * 3;
        assert_int_equal(batch->starts[t], start < 0 ? 0 : start);
    }
    assert_int_equal(batch->n_targets, 32 - 10);
    data_batch_free(batch);
    data_loader_close(loader);
}

/* Whole documents, padding, and what is cut. */
static void test_whole(void **state)
{
    const char *text = "0bcdefghijklmnopqrst\n1b\n2bcd\n3\n4bcdefg\n5bcdefghijklmnopqr\n";
    const data_source source = {data_folder(*state, "whole", text), 1};
    data_loader_params p = loader_params(&source, 1);
    data_batch *batch;
    p.whole_documents = true;
    data_loader *loader = open_loader(&p);
    assert_ok(data_batch_create(3, p.seq_len, &batch, error));
    int documents = 0;
    int64_t cut = 0;
    for (int round = 0; round < 20; round++) {
        assert_ok(data_loader_next(loader, 3, 0, batch, error));
        int64_t targets = 0, padding = 0;
        for (int64_t i = 0; i < 3 * p.seq_len; i++) {
            int64_t t = i % p.seq_len;
            targets += batch->targets[i] >= 0;
            if (batch->ids[i] == BYTES_EOS) {
                assert_int_equal(batch->targets[i], -1);
                assert_int_equal(batch->starts[i], t);
                assert_true(t >= batch->lengths[i / p.seq_len]);
                padding++;
                continue;
            }
            assert_true(t < batch->lengths[i / p.seq_len]);
            char first = (char)batch->ids[i - t + batch->starts[i]];
            assert_non_null(strchr("012345", first)); /* a document's first character */
            const char *document = strchr(text, first);
            int length = (int)strcspn(document, "\n"), at = (int)(t - batch->starts[i]);
            if (length > 17) {
                cut += at == 0 ? length - 17 : 0;
                length = 17;
            }
            assert_true(at + 1 < length || length == 1);
            assert_int_equal(batch->ids[i], document[at]);
            assert_int_equal(batch->targets[i], at + 1 < length ? document[at + 1] : -1);
            documents += at == 0;
        }
        assert_int_equal(batch->n_targets, targets);
        assert_int_equal(batch->n_padding, padding);
    }
    assert_int_equal(data_loader_counts(loader).cut, cut);
    assert_int_equal(data_loader_counts(loader).repeated, documents - 6);
    data_batch_free(batch);
    data_loader_close(loader);
}

/* ---- ranks and going on -------------------------------------------------------------------- */

static void assert_same_rows(const data_batch *a, int64_t a_row, const data_batch *b, int64_t b_row,
                             int64_t n)
{
    size_t size = (size_t)(n * a->seq_len) * sizeof *a->ids;
    int64_t i = a_row * a->seq_len, k = b_row * b->seq_len;
    assert_memory_equal(a->ids + i, b->ids + k, size);
    assert_memory_equal(a->targets + i, b->targets + k, size);
    assert_memory_equal(a->starts + i, b->starts + k, size);
}

/* All that a loader can be: packed, across borders, whole; of two sources. */
typedef struct kinds {
    data_source sources[2];
    data_loader_params params[3];
} kinds;

static void set_kinds(const scratch *s, kinds *k)
{
    k->sources[0] = (data_source){mixed_folder(s, "first", 'x', 25), 1};
    k->sources[1] = (data_source){mixed_folder(s, "second", 'y', 13), 2};
    for (int i = 0; i < 3; i++) {
        k->params[i] = loader_params(k->sources, 2);
        k->params[i].attend_across = i == 1;
        k->params[i].whole_documents = i == 2;
    }
}

static void test_ranks(void **state)
{
    enum { TOTAL = 12, STEPS = 4 };
    kinds k;
    set_kinds(*state, &k);
    for (int kind = 0; kind < 3; kind++) {
        for (int ranks = 2; ranks <= TOTAL; ranks++) {
            if (TOTAL % ranks)
                continue;
            data_batch *whole, *part;
            data_loader *one = open_loader(&k.params[kind]), *own[TOTAL];
            assert_ok(data_batch_create(TOTAL, 16, &whole, error));
            assert_ok(data_batch_create(TOTAL / ranks, 16, &part, error));
            for (int r = 0; r < ranks; r++)
                own[r] = open_loader(&k.params[kind]);
            for (int step = 0; step < STEPS; step++) {
                int64_t targets = 0;
                assert_ok(data_loader_next(one, TOTAL, 0, whole, error));
                for (int r = 0; r < ranks; r++) {
                    int64_t first = (int64_t)r * part->n_seqs;
                    assert_ok(data_loader_next(own[r], TOTAL, first, part, error));
                    assert_same_rows(whole, first, part, 0, part->n_seqs);
                    targets += part->n_targets;
                }
                assert_int_equal(targets, whole->n_targets);
            }
            json_t *state_of_one = data_loader_state(one);
            for (int r = 0; r < ranks; r++) {
                json_t *other = data_loader_state(own[r]);
                assert_true(json_equal(state_of_one, other));
                json_decref(other);
                data_loader_close(own[r]);
            }
            json_decref(state_of_one);
            data_batch_free(whole);
            data_batch_free(part);
            data_loader_close(one);
        }
    }
}

/* Stopped after every sequence, and gone on with through the state's text. */
static void test_resume(void **state)
{
    enum { STEPS = 120 };
    kinds k;
    set_kinds(*state, &k);
    for (int kind = 0; kind < 3; kind++) {
        data_batch *a, *b;
        data_loader *loader = open_loader(&k.params[kind]);
        assert_ok(data_batch_create(1, 16, &a, error));
        assert_ok(data_batch_create(1, 16, &b, error));
        for (int step = 0; step < STEPS; step++) {
            json_t *now = data_loader_state(loader);
            char *text = json_dumps(now, 0);
            json_decref(now);
            now = json_loads(text, 0, NULL);
            free(text);
            data_loader *other = open_loader(&k.params[kind]);
            assert_ok(data_loader_next(other, 1, 0, b, error)); /* somewhere else at first */
            assert_ok(data_loader_restore(other, now, error));
            assert_ok(data_loader_next(loader, 1, 0, a, error));
            assert_ok(data_loader_next(other, 1, 0, b, error));
            assert_same_rows(a, 0, b, 0, 1);
            json_t *next = data_loader_state(loader), *others = data_loader_state(other);
            assert_true(json_equal(next, others));
            json_decref(next);
            json_decref(others);
            json_decref(now);
            data_loader_close(other);
        }
        assert_true(data_loader_counts(loader).repeated > 20);
        data_batch_free(a);
        data_batch_free(b);
        data_loader_close(loader);
    }
}

static void test_bad_state(void **state)
{
    static const struct {
        const char *json; /* %s: the digest of the data */
        const char *why;
    } bad[] = {
        {"[]", "looked for in an array"},
        {"{}", "seed"},
        {"{\"seed\": \"8\", \"sequences\": 1, \"repeated\": 0, \"cut\": 0, \"sources\": []}",
         "seed 8 and not 7"},
        {"{\"seed\": \"7\", \"repeated\": 0, \"cut\": 0, \"sources\": []}", "no \"sequences\""},
        {"{\"seed\": \"7\", \"sequences\": -1}", "-1"},
        {"{\"seed\": \"7\", \"sequences\": 1, \"repeated\": 0, \"cut\": 0, \"sources\": []}",
         "0 sources of data and not 1"},
        {"{\"seed\": \"7\", \"sequences\": 1, \"repeated\": 0, \"cut\": 0, \"sources\": [{}]}",
         "not what the run was begun with"},
        {"{\"seed\": \"7\", \"sequences\": 1, \"repeated\": 0, \"cut\": 0, \"sources\": "
         "[{\"digest\":"
         " \"%s\", \"epoch\": 0, \"position\": 5, \"token\": 0}]}",
         "5"},
        {"{\"seed\": \"7\", \"sequences\": 1, \"repeated\": 0, \"cut\": 0, \"sources\": "
         "[{\"digest\":"
         " \"%s\", \"epoch\": 0, \"position\": 0, \"token\": 5}]}",
         "5"},
        {"{\"seed\": \"7\", \"sequences\": 1, \"repeated\": 0, \"cut\": 0, \"sources\": "
         "[{\"digest\":"
         " \"%s\", \"epoch\": 9223372036854775807, \"position\": 0, \"token\": 0}]}",
         "epoch"},
    };
    const data_source source = {data_folder(*state, "five", "aaaa\nbbbb\ncccc\ndddd\neeee\n"), 1};
    data_loader_params p = loader_params(&source, 1);
    data_loader *loader = open_loader(&p);
    data_set *set;
    data_batch *batch;
    assert_ok(data_set_open(source.path, DATA_TRAIN, &set, error));
    assert_ok(data_batch_create(1, 16, &batch, error));
    assert_ok(data_loader_next(loader, 1, 0, batch, error));
    json_t *before = data_loader_state(loader);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[1024];
        const char *at = strstr(bad[i].json, "%s");
        int head = at ? (int)(at - bad[i].json) : (int)strlen(bad[i].json);
        snprintf(text, sizeof text, "%.*s%s%s", head, bad[i].json, at ? data_set_digest(set) : "",
                 at ? at + 2 : "");
        json_t *json = json_loads(text, 0, NULL);
        marco_error error = {0};
        assert_non_null(json);
        assert_int_not_equal(data_loader_restore(loader, json, &error), MARCO_OK);
        if (!strstr(error.message, bad[i].why))
            fail_msg("%zu: %s", i, error.message);
        json_decref(json);
        json_t *after = data_loader_state(loader);
        assert_true(json_equal(before, after));
        json_decref(after);
    }
    json_decref(before);
    data_set_close(set);
    data_batch_free(batch);
    data_loader_close(loader);
}

/* ---- mixtures ------------------------------------------------------------------------------ */

/* The share of sequences that come from the first source, whose letter is x. */
static double first_share(data_loader_params *p)
{
    enum { N = 4000 };
    data_batch *batch;
    data_loader *loader = open_loader(p);
    int n = 0;
    assert_ok(data_batch_create(N, p->seq_len, &batch, error));
    assert_ok(data_loader_next(loader, N, 0, batch, error));
    for (int i = 0; i < N; i++)
        n += batch->ids[i * p->seq_len] == 'x';
    data_batch_free(batch);
    data_loader_close(loader);
    return n / (double)N;
}

static void test_mixture(void **state)
{
    base_text text = {0};
    for (int i = 0; i < 900; i++)
        base_text_add(&text, "xxx\n");
    data_source sources[2] = {{data_folder(*state, "x", text.data), 1}, {NULL, 1}};
    base_text_clear(&text);
    for (int i = 0; i < 100; i++)
        base_text_add(&text, "yyy\n");
    sources[1].path = data_folder(*state, "y", text.data);
    base_text_free(&text);
    static const struct {
        double weight, temperature, share;
    } cases[] = {{1, 1, 0.9}, {1, 0, 0.5}, {3, 0, 0.75}, {1, 0.5, 0.75}, {1e-9, 1, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        data_loader_params p = loader_params(sources, 2);
        sources[0].weight = cases[i].weight;
        p.temperature = cases[i].temperature;
        p.seq_len = 4; /* a document with its end */
        /* Four deviations of a share of 4000. */
        double deviation = sqrt(cases[i].share * (1 - cases[i].share) / 4000);
        assert_true(fabs(first_share(&p) - cases[i].share) <= 4 * deviation + 1e-6);
    }
}

/* ---- refusals ------------------------------------------------------------------------------ */

static void test_refused(void **state)
{
    data_source source = {data_folder(*state, "small", "hello\nworld\n"), 1};
    data_loader_params p = loader_params(&source, 1);
    data_loader *loader;
    p.seq_len = 13;
    assert_refused(MARCO_ERROR_ARGUMENT,
                   "10 tokens in 2 documents are less than one sequence of 13",
                   data_loader_create(&p, &loader, error));
    p.seq_len = 12;
    p.n_vocab = 258;
    assert_refused(MARCO_ERROR_ARGUMENT, "259 ids", data_loader_create(&p, &loader, error));
    p.n_vocab = BYTES_VOCAB;
    p.split = DATA_VALID;
    assert_refused(MARCO_ERROR_ARGUMENT, "held out", data_loader_create(&p, &loader, error));
    p.split = DATA_TRAIN;
    p.tokenizer = "0000";
    assert_refused(MARCO_ERROR_ARGUMENT, "but the model's is 0000",
                   data_loader_create(&p, &loader, error));
    char digest[65];
    marco_tokenizer *tokenizer;
    assert_ok(marco_tokenizer_open(data_tokenizer(*state), &tokenizer, error));
    assert_ok(data_tokenizer_digest(tokenizer, digest, error));
    marco_tokenizer_close(tokenizer);
    p.tokenizer = digest;
    assert_ok(data_loader_create(&p, &loader, error));
    data_batch *batch;
    assert_ok(data_batch_create(2, 12, &batch, error));
    assert_refused(MARCO_ERROR_ARGUMENT, "cannot be", data_loader_next(loader, 1, 0, batch, error));
    assert_refused(MARCO_ERROR_ARGUMENT, "cannot be", data_loader_next(loader, 3, 2, batch, error));
    assert_refused(MARCO_ERROR_ARGUMENT, "cannot be",
                   data_loader_next(loader, 3, -1, batch, error));
    assert_ok(data_loader_next(loader, 3, 1, batch, error));
    data_batch_free(batch);
    data_loader_close(loader);
    source.weight = 0;
    assert_refused(MARCO_ERROR_ARGUMENT, "weight", data_loader_create(&p, &loader, error));
    source.weight = NAN;
    assert_refused(MARCO_ERROR_ARGUMENT, "weight", data_loader_create(&p, &loader, error));
    source = (data_source){scratch_path(*state, "nowhere"), 1};
    assert_refused(MARCO_ERROR_NOT_FOUND, "nowhere", data_loader_create(&p, &loader, error));
    p.n_sources = 0;
    assert_refused(MARCO_ERROR_ARGUMENT, "no data", data_loader_create(&p, &loader, error));
    assert_refused(MARCO_ERROR_ARGUMENT, "cannot be had", data_batch_create(0, 1, &batch, error));
    assert_refused(MARCO_ERROR_ARGUMENT, "cannot be had",
                   data_batch_create(INT64_MAX, INT64_MAX, &batch, error));
}

/* A file whose second id is now one of the vocabulary and now none. */
typedef struct changing {
    int fd;
    atomic_bool over;
} changing;

static void *change(void *user)
{
    changing *c = user;
    const int32_t id[] = {'b', BYTES_VOCAB + 5};
    for (int i = 0; !atomic_load(&c->over); i++)
        if (pwrite(c->fd, &id[i % 2], sizeof *id, sizeof(data_shard_head) + sizeof *id) < 0)
            break;
    return NULL;
}

/* What is given out was checked, whatever the file says by then. */
static void test_changing_file(void **state)
{
    const data_source source = {data_folder(*state, "changing", "abcdefgh\n"), 1};
    data_loader_params p = loader_params(&source, 1);
    data_batch *batch;
    data_set *set;
    int64_t number;
    changing c;
    pthread_t thread;
    p.seq_len = 8;
    assert_ok(data_set_open(source.path, DATA_TRAIN, &set, error));
    c.fd = open(data_set_place(set, 0, &number), O_WRONLY);
    data_set_close(set);
    assert_true(c.fd >= 0);
    atomic_init(&c.over, false);
    assert_ok(data_batch_create(1, p.seq_len, &batch, error));
    assert_int_equal(pthread_create(&thread, NULL, change, &c), 0);
    for (int kind = 0; kind < 3; kind++) {
        p.attend_across = kind == 1;
        p.whole_documents = kind == 2;
        data_loader *loader = open_loader(&p);
        for (int i = 0; i < 200000; i++) {
            marco_status status = data_loader_next(loader, 1, 0, batch, NULL);
            assert_true(status == MARCO_OK || status == MARCO_ERROR_FORMAT);
            for (int64_t k = 0; status == MARCO_OK && k < p.seq_len; k++)
                assert_true(batch->ids[k] < BYTES_VOCAB && batch->targets[k] < BYTES_VOCAB);
        }
        data_loader_close(loader);
    }
    atomic_store(&c.over, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    close(c.fd);
    data_batch_free(batch);
}

static void test_memory(void **state)
{
    kinds k;
    data_loader *loader;
    data_batch *batch;
    set_kinds(*state, &k);
    for (uint64_t n = 1;; n++) {
        marco_error error = {0};
        base_alloc_fail_at(n);
        marco_status status = data_loader_create(&k.params[0], &loader, &error);
        base_alloc_fail_at(0);
        if (status == MARCO_OK)
            break;
        assert_int_equal(status, MARCO_ERROR_MEMORY);
        assert_true(n < 1000);
    }
    data_loader_close(loader);
    for (uint64_t n = 1; n <= 2; n++) {
        base_alloc_fail_at(n);
        assert_int_equal(data_batch_create(1, 1, &batch, NULL), MARCO_ERROR_MEMORY);
        base_alloc_fail_at(0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),     SCRATCH_TEST(test_packed),    SCRATCH_TEST(test_across),
        SCRATCH_TEST(test_no_eos),        SCRATCH_TEST(test_whole),     SCRATCH_TEST(test_ranks),
        SCRATCH_TEST(test_resume),        SCRATCH_TEST(test_bad_state), SCRATCH_TEST(test_mixture),
        SCRATCH_TEST(test_changing_file), SCRATCH_TEST(test_refused),   SCRATCH_TEST(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
