#include "tiny_checkpoint.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "base/random.h"
#include "format/safetensors.h"
#include "model/config.h"
#include "tokenizer/spec.h"

enum { MAX_TENSORS = 256, FILE_LIMIT = 1 << 20 };

static void check(marco_status status, const marco_error *error)
{
    if (status)
        fail_msg("%s: %s", marco_status_name(status), error->message);
}

static void *zeroed(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    assert_non_null(memory);
    return memory;
}

/* ---- the vector's file ---------------------------------------------------------------------- */

uint64_t tiny_stream_of(const char *name)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 0x100000001B3u;
    return h;
}

static void blank_comments(char *text)
{
    for (char *line = text; *line;) {
        char *end = line + strcspn(line, "\n");
        if (*line == '#')
            memset(line, ' ', (size_t)(end - line));
        line = *end ? end + 1 : end;
    }
}

/* The next word, which must be `key`. */
static void expect_word(char **at, const char *key)
{
    *at += strspn(*at, " \n");
    size_t size = strcspn(*at, " \n");
    if (size != strlen(key) || memcmp(*at, key, size) != 0)
        fail_msg("expected '%s' at '%.20s'", key, *at);
    *at += size;
}

static double next_number(char **at)
{
    char *end;
    double value = strtod(*at, &end);
    if (end == *at)
        fail_msg("expected a number at '%.20s'", *at);
    *at = end;
    return value;
}

static size_t next_size(char **at)
{
    double value = next_number(at);
    assert_true(value >= 0 && value <= FILE_LIMIT);
    return (size_t)value;
}

static int32_t *next_ids(char **at, size_t n)
{
    int32_t *ids = zeroed(n, sizeof *ids);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)next_number(at);
    return ids;
}

static void read_sequence(tiny_vector *v, size_t first, char **at)
{
    const uint64_t stream = tiny_stream_of("samples");
    assert_true(v->n_sequences < TINY_MAX_SEQUENCES);
    tiny_sequence *s = &v->sequences[v->n_sequences++];
    s->n = next_size(at);
    s->ids = next_ids(at, s->n);
    s->positions = zeroed(s->n, sizeof *s->positions);
    for (size_t i = 0; i < s->n; i++) {
        tiny_position *p = &s->positions[i];
        p->likeliest = (int32_t)next_number(at);
        p->max = next_number(at);
        p->log_sum_exp = next_number(at);
        for (size_t j = 0; j < TINY_SAMPLES; j++) {
            uint64_t index = (first + i) * TINY_SAMPLES + j;
            p->sample_ids[j] =
                (int32_t)base_random_below(v->seed, stream, index, (uint64_t)v->n_vocab);
            p->samples[j] = next_number(at);
        }
    }
}

static void read_config(tiny_vector *v, char **at)
{
    expect_word(at, "config");
    v->config = *at;
    char *end = strstr(v->config, "\nend\n");
    assert_non_null(end);
    *end = '\0';
    *at = end + strlen("\nend\n");
    char *vocab = strstr(v->config, "\"vocab_size\":");
    assert_non_null(vocab);
    v->n_vocab = (int32_t)strtol(strchr(vocab, ':') + 1, NULL, 10);
}

tiny_vector *tiny_vector_read(const char *name)
{
    tiny_vector *v = zeroed(1, sizeof *v);
    marco_error error = {0};
    const char *vectors = getenv("MARCO_TEST_VECTORS");
    char path[1024];
    size_t size, positions = 0;

    if (!vectors)
        fail_msg("MARCO_TEST_VECTORS must name the folder tests/vectors");
    snprintf(path, sizeof path, "%s/logits/%s.txt", vectors, name);
    check(base_file_slurp(path, FILE_LIMIT, &v->text, &size, &error), &error);
    blank_comments(v->text);

    char *at = v->text;
    expect_word(&at, "case");
    expect_word(&at, name);
    expect_word(&at, "seed");
    v->seed = next_size(&at);
    read_config(v, &at);
    expect_word(&at, "deviation");
    v->deviation = next_number(&at);
    expect_word(&at, "samples");
    assert_int_equal(next_size(&at), TINY_SAMPLES);
    for (at += strspn(at, " \n"); *at == 's'; at += strspn(at, " \n")) {
        expect_word(&at, "sequence");
        read_sequence(v, positions, &at);
        positions += v->sequences[v->n_sequences - 1].n;
    }
    expect_word(&at, "greedy");
    v->n_prompt = next_size(&at);
    v->n_greedy = next_size(&at);
    v->prompt = next_ids(&at, v->n_prompt);
    v->greedy = next_ids(&at, v->n_greedy);
    assert_true(positions >= 512 && v->n_greedy >= 64 && v->deviation > 0);
    return v;
}

void tiny_vector_free(tiny_vector *vector)
{
    for (size_t i = 0; i < vector->n_sequences; i++) {
        free(vector->sequences[i].ids);
        free(vector->sequences[i].positions);
    }
    free(vector->prompt);
    free(vector->greedy);
    base_free(vector->text);
    free(vector);
}

/* ---- the checkpoint ------------------------------------------------------------------------- */

/* The half width of the uniform distribution that a matrix is drawn from. */
static double half_width(model_role role, int64_t cols)
{
    double gain = 1.5;
    switch (role) {
    case MODEL_TOKEN_EMBD:
        return 0.5;
    case MODEL_OUTPUT:
    case MODEL_ROUTER:
        gain = 2.0;
        break;
    case MODEL_FFN_DOWN:
    case MODEL_EXPERT_DOWN:
        gain = 3.0;
        break;
    default:
        break;
    }
    return gain * sqrt(3.0 / (double)cols);
}

static bool is_norm(model_role role)
{
    return role == MODEL_OUTPUT_NORM || role == MODEL_ATTN_NORM || role == MODEL_FFN_NORM ||
           role == MODEL_ATTN_Q_NORM || role == MODEL_ATTN_K_NORM;
}

/* Matrix `mat` of a tensor, [rows, cols]. */
static float *make_weights(const model_config *config, const model_tensor *t, int64_t mat,
                           uint64_t seed)
{
    char name[128];
    model_tensor_hf_name(config, t, mat, name);
    const uint64_t stream = tiny_stream_of(name);
    const size_t n = (size_t)(t->rows * t->cols);
    const bool norm = is_norm(t->role);
    const double width = half_width(t->role, t->cols);
    float *weights = zeroed(n, sizeof *weights);
    for (size_t i = 0; i < n; i++) {
        double unit = 2.0 * base_random_unit(seed, stream, i) - 1.0;
        weights[i] = (float)(norm ? 1.0 + 0.25 * unit : width * unit);
    }
    return weights;
}

static void describe(safetensors_writer *w, const model_config *config, const model_tensor *t)
{
    for (int64_t mat = 0; mat < t->mats; mat++) {
        char name[128];
        model_tensor_hf_name(config, t, mat, name);
        if (is_norm(t->role))
            safetensors_put_tensor(w, name, TENSOR_F32, 1, &t->cols);
        else
            safetensors_put_tensor(w, name, TENSOR_F32, 2, (int64_t[]){t->rows, t->cols});
    }
}

static void write_weights(const char *folder, const model_config *config, uint64_t seed)
{
    static model_tensor tensors[MAX_TENSORS];
    marco_error error = {0};
    safetensors_writer *w;
    size_t n = model_config_tensors(config, tensors, MAX_TENSORS);
    assert_in_range(n, 1, MAX_TENSORS);
    check(safetensors_writer_create(folder, UINT64_MAX, &w, &error), &error);
    for (size_t i = 0; i < n; i++)
        describe(w, config, &tensors[i]);
    check(safetensors_writer_begin(w, &error), &error);
    for (size_t i = 0; i < n; i++)
        for (int64_t mat = 0; mat < tensors[i].mats; mat++) {
            float *weights = make_weights(config, &tensors[i], mat, seed);
            size_t size = (size_t)(tensors[i].rows * tensors[i].cols) * sizeof *weights;
            check(safetensors_writer_data(w, weights, size, &error), &error);
            free(weights);
        }
    check(safetensors_writer_commit(w, &error), &error);
}

static void write_file(const char *folder, const char *name, const char *text)
{
    marco_error error = {0};
    base_output *output;
    char *path = base_path_join(folder, name);
    assert_non_null(path);
    check(base_output_create(path, false, &output, &error), &error);
    check(base_output_write(output, text, strlen(text), &error), &error);
    check(base_output_commit(output, &error), &error);
    base_free(path);
}

void tiny_checkpoint_write(const tiny_vector *vector, const char *folder)
{
    marco_error error = {0};
    tok_spec *spec;
    assert_int_equal(mkdir(folder, 0700), 0);
    write_file(folder, "config.json", vector->config);
    check(tok_spec_bytes(&spec, &error), &error);
    check(tok_spec_write_hf(spec, folder, &error), &error);
    tok_spec_free(spec);

    model_config *config = zeroed(1, sizeof *config);
    check(model_config_read_hf(folder, config, &error), &error);
    write_weights(folder, config, vector->seed);
    free(config);
}

/* ---- running it ----------------------------------------------------------------------------- */

marco_engine *tiny_engine_open(const char *path, marco_compute compute, int32_t threads)
{
    marco_error error = {0};
    marco_engine_params params = marco_engine_params_default();
    marco_engine *engine;
    params.compute = compute;
    params.threads = threads;
    check(marco_engine_open(path, &params, &engine, &error), &error);
    assert_int_equal(marco_engine_info(engine)->threads, threads);
    return engine;
}

marco_session *tiny_session_create(marco_engine *engine, int32_t chunk)
{
    marco_error error = {0};
    marco_session_params params = marco_session_params_default();
    marco_session *session;
    params.chunk = chunk;
    check(marco_session_create(engine, &params, &session, &error), &error);
    return session;
}

typedef struct collector {
    float *logits;
    int32_t n_vocab;
    int64_t n;
} collector;

static int collect(void *user, int64_t position, const float *logits)
{
    collector *c = user;
    assert_int_equal(position, c->n);
    memcpy(c->logits + c->n++ * c->n_vocab, logits, (size_t)c->n_vocab * sizeof *logits);
    return 0;
}

float *tiny_logits(marco_engine *engine, int32_t chunk, const int32_t *ids, size_t n)
{
    marco_error error = {0};
    collector c = {.n_vocab = marco_engine_info(engine)->n_vocab};
    marco_session *session = tiny_session_create(engine, chunk);
    c.logits = zeroed(n * (size_t)c.n_vocab, sizeof *c.logits);
    check(marco_session_eval_each(session, ids, n, collect, &c, &error), &error);
    assert_int_equal(c.n, n);
    marco_session_close(session);
    return c.logits;
}

int32_t tiny_likeliest(const float *logits, int32_t n_vocab)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n_vocab; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

void tiny_greedy(marco_engine *engine, const int32_t *prompt, size_t n_prompt, int32_t *out,
                 size_t n_out)
{
    marco_error error = {0};
    int32_t n_vocab = marco_engine_info(engine)->n_vocab;
    marco_session *session = tiny_session_create(engine, 0);
    check(marco_session_eval(session, prompt, n_prompt, &error), &error);
    for (size_t i = 0; i < n_out; i++) {
        out[i] = tiny_likeliest(marco_session_logits(session), n_vocab);
        check(marco_session_eval(session, &out[i], 1, &error), &error);
    }
    marco_session_close(session);
}
