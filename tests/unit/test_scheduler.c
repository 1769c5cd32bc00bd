/* Many requests at once: that each gets what it would get alone, that all are answered, and that
 * memory, turns and the queue keep their rules. Weights are random. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "infer/scheduler.h"
#include "scratch.h"

static scratch place;
static marco_engine *engine;

static int set_up(void **state)
{
    (void)state;
    marco_synth_params params = marco_synth_params_default();
    marco_engine_params engine_params = marco_engine_params_default();
    if (!scratch_create(&place))
        return -1;
    const char *model = scratch_path(&place, "tiny.gguf");
    params.type = "Q8_0";
    engine_params.threads = 2;
    if (marco_synth("tiny-qwen3moe", model, &params, NULL))
        return -1;
    return marco_engine_open(model, &engine_params, &engine, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    marco_engine_close(engine);
    scratch_remove(&place);
    return 0;
}

/* ---- a client ------------------------------------------------------------------------------ */

enum { MOST = 512 };

typedef struct client {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int32_t ids[MOST];
    float scores[MOST];
    size_t n;
    int32_t prompt_ids[MOST];
    float prompt_scores[MOST];
    size_t n_prompt, prompt_done;
    char text[8 * MOST];
    size_t size;
    bool done;
    marco_request_result result;
    char message[256];
    marco_request *request;
    size_t cancel_after;   /* tokens; 0: never */
    pthread_mutex_t *gate; /* held up by it at every token; NULL: by nothing */
    size_t *finished;      /* counts ends; NULL: nobody does */
    size_t place;          /* among them */
} client;

/* cmocka's assertions belong to its own thread. */
static void expect(bool holds)
{
    if (!holds)
        abort();
}

static void on_prompt(void *user, size_t done, size_t total)
{
    client *c = user;
    expect(done > 0 && done < total);
    c->prompt_done = done;
}

static void on_prompt_token(void *user, size_t index, const marco_token_event *event)
{
    client *c = user;
    expect(index == c->n_prompt);
    c->prompt_ids[c->n_prompt] = event->id;
    c->prompt_scores[c->n_prompt++] = event->logprob;
}

static void on_token(void *user, const marco_token_event *event)
{
    client *c = user;
    pthread_mutex_lock(&c->lock);
    expect(!c->done);
    if (event->id >= 0) {
        c->ids[c->n] = event->id;
        c->scores[c->n++] = event->logprob;
    }
    memcpy(c->text + c->size, event->text, event->size);
    c->size += event->size;
    if (c->cancel_after && c->n == c->cancel_after)
        marco_request_cancel(c->request);
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->lock);
    if (c->gate) {
        pthread_mutex_lock(c->gate);
        pthread_mutex_unlock(c->gate);
    }
}

static void on_finish(void *user, const marco_request_result *result)
{
    client *c = user;
    pthread_mutex_lock(&c->lock);
    expect(!c->done);
    c->done = true;
    c->result = *result;
    c->place = c->finished ? (*c->finished)++ : 0;
    snprintf(c->message, sizeof c->message, "%s", result->message);
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static void client_init(client *c)
{
    memset(c, 0, sizeof *c);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
}

/* Until it has a token. */
static void client_wait_begun(client *c)
{
    pthread_mutex_lock(&c->lock);
    while (c->n == 0)
        pthread_cond_wait(&c->changed, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

static void client_wait(client *c)
{
    pthread_mutex_lock(&c->lock);
    while (!c->done)
        pthread_cond_wait(&c->changed, &c->lock);
    pthread_mutex_unlock(&c->lock);
    marco_request_release(c->request);
}

static marco_request_params request_of(client *c, const int32_t *prompt, size_t n, int32_t tokens)
{
    marco_request_params p = marco_request_params_default(engine);
    p.prompt = prompt;
    p.n_prompt = n;
    p.max_tokens = tokens;
    p.ignore_eos = true;
    p.scores = true;
    p.events = (marco_request_events){c, on_prompt, on_prompt_token, on_token, on_finish};
    return p;
}

static void submit(marco_scheduler *s, uint64_t whose, client *c, const marco_request_params *p)
{
    marco_error error = {0};
    if (marco_scheduler_submit(s, whose, p, 1, &c->request, &error))
        fail_msg("%s", error.message);
}

static marco_scheduler *scheduler(const marco_scheduler_params *params)
{
    marco_scheduler *s;
    marco_error error = {0};
    if (marco_scheduler_create(engine, params, &s, &error))
        fail_msg("%s", error.message);
    return s;
}

static marco_scheduler_params small(void)
{
    return (marco_scheduler_params){.parallel = 4, .chunk = 32, .cache_bytes = 64 << 20};
}

/* ---- what a reply is alone ------------------------------------------------------------------ */

typedef struct script {
    int32_t prompt[MOST];
    size_t n_prompt;
    int32_t tokens;
    marco_sampling sampling;
    int32_t ids[MOST];
    float scores[MOST];
} script;

static double log_total(const float *logits, int32_t n)
{
    double max = -INFINITY, sum = 0;
    for (int32_t i = 0; i < n; i++)
        max = (double)logits[i] > max ? (double)logits[i] : max;
    for (int32_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - max);
    return max + log(sum);
}

/* Prompts begin alike in threes, so that there is something to share. */
static void write_script(script *s, uint64_t number)
{
    int32_t n_vocab = marco_engine_info(engine)->n_vocab;
    s->n_prompt = 1 + (size_t)base_random_below(5, 0, number, 200);
    for (size_t i = 0; i < s->n_prompt; i++) {
        uint64_t stream = i < 70 ? number / 3 : 100 + number;
        s->prompt[i] = (int32_t)base_random_below(6, stream, i, (uint64_t)n_vocab);
    }
    s->tokens = 1 + (int32_t)base_random_below(5, 1, number, 30);
    s->sampling = marco_engine_sampling(engine);
    s->sampling.temperature = number % 2 ? 1.0f : 0.0f;
    s->sampling.repetition_penalty = number % 5 == 3 ? 1.2f : 1;
    s->sampling.seed = number;
}

static void play_alone(script *s)
{
    marco_session *session;
    marco_sampler *sampler;
    int32_t n_vocab = marco_engine_info(engine)->n_vocab;
    assert_int_equal(marco_session_create(engine, NULL, &session, NULL), MARCO_OK);
    assert_int_equal(marco_sampler_create(&s->sampling, n_vocab, &sampler, NULL), MARCO_OK);
    assert_int_equal(marco_session_eval(session, s->prompt, s->n_prompt, NULL), MARCO_OK);
    for (size_t i = 0; i < s->n_prompt; i++)
        marco_sampler_accept(sampler, s->prompt[i], false);
    for (int32_t i = 0; i < s->tokens; i++) {
        const float *logits = marco_session_logits(session);
        double total = log_total(logits, n_vocab);
        assert_int_equal(marco_sampler_pick(sampler, logits, &s->ids[i], NULL), MARCO_OK);
        s->scores[i] = (float)((double)logits[s->ids[i]] - total);
        marco_sampler_accept(sampler, s->ids[i], true);
        assert_int_equal(marco_session_eval(session, &s->ids[i], 1, NULL), MARCO_OK);
    }
    marco_sampler_close(sampler);
    marco_session_close(session);
}

static void expect_script(const script *s, const client *c)
{
    assert_int_equal(c->result.status, MARCO_OK);
    assert_int_equal(c->result.finish, MARCO_FINISH_LENGTH);
    assert_int_equal(c->result.n_prompt, s->n_prompt);
    assert_int_equal(c->n, s->tokens);
    assert_memory_equal(c->ids, s->ids, c->n * sizeof *c->ids);
    /* Equal logits have equal scores: to the bit but for the order that sums are written in. */
    for (size_t i = 0; i < c->n; i++)
        assert_true(fabsf(c->scores[i] - s->scores[i]) < 1e-5f);
}

static void play_together(const marco_scheduler_params *params, const script *scripts, size_t n)
{
    marco_scheduler *s = scheduler(params);
    client *clients = calloc(n, sizeof *clients);
    assert_non_null(clients);
    for (size_t i = 0; i < n; i++) {
        marco_request_params p;
        client_init(&clients[i]);
        p = request_of(&clients[i], scripts[i].prompt, scripts[i].n_prompt, scripts[i].tokens);
        p.sampling = scripts[i].sampling;
        submit(s, i % 3, &clients[i], &p);
        if (i % 5 == 4) /* some come while others are in the middle */
            client_wait(&clients[i]);
    }
    for (size_t i = 0; i < n; i++)
        if (i % 5 != 4)
            client_wait(&clients[i]);
    for (size_t i = 0; i < n; i++)
        expect_script(&scripts[i], &clients[i]);
    marco_scheduler_close(s);
    free(clients);
}

static void replies_are_what_they_are_alone(void **state)
{
    enum { N = 24 };
    static script scripts[N];
    (void)state;
    for (size_t i = 0; i < N; i++) {
        write_script(&scripts[i], i);
        play_alone(&scripts[i]);
    }
    marco_scheduler_params params = small();
    play_together(&params, scripts, N);
    params.cache_bytes = 0;
    params.parallel = 7;
    params.chunk = 0;
    play_together(&params, scripts, N);
    /* So little memory that they take it from each other, and compute again. */
    model_kv kv;
    model_kv_init(&kv, &engine->weights->config, TENSOR_F16);
    params = small();
    params.kv_bytes = 6 * kv.page_bytes;
    play_together(&params, scripts, N);
}

/* ---- the rest ------------------------------------------------------------------------------- */

static void a_prompt_is_read_once(void **state)
{
    enum { N = 5, PROMPT = 130 };
    static client clients[N + 1];
    int32_t prompt[PROMPT];
    marco_request_params params[N];
    marco_request *requests[N];
    marco_scheduler_params p = small();
    (void)state;
    marco_scheduler *s = scheduler(&p);
    for (int32_t i = 0; i < PROMPT; i++)
        prompt[i] = i;
    for (size_t i = 0; i < N; i++) {
        client_init(&clients[i]);
        params[i] = request_of(&clients[i], prompt, PROMPT, 4);
    }
    assert_int_equal(marco_scheduler_submit(s, 1, params, N, requests, NULL), MARCO_OK);
    size_t cached = 0;
    for (size_t i = 0; i < N; i++) {
        clients[i].request = requests[i];
        client_wait(&clients[i]);
        cached += clients[i].result.n_cached;
        assert_memory_equal(clients[i].ids, clients[0].ids, 4 * sizeof(int32_t));
    }
    /* The others begin when what is left to read is no more than a pass and some tokens. */
    assert_true(cached >= (N - 1) * (PROMPT - 1 - 32 - 16));

    /* Another turn of the same conversation: the reply's tokens are there, too. */
    int32_t more[PROMPT + 6];
    memcpy(more, prompt, sizeof prompt);
    memcpy(more + PROMPT, clients[0].ids, 3 * sizeof(int32_t));
    for (int32_t i = 0; i < 3; i++)
        more[PROMPT + 3 + i] = 7 + i;
    client_init(&clients[N]);
    params[0] = request_of(&clients[N], more, PROMPT + 6, 1);
    submit(s, 2, &clients[N], &params[0]);
    client_wait(&clients[N]);
    assert_int_equal(clients[N].result.n_cached, PROMPT + 3);
    marco_scheduler_close(s);
}

static void prompts_are_scored(void **state)
{
    enum { PROMPT = 75 };
    static client c;
    int32_t prompt[PROMPT], n_vocab = marco_engine_info(engine)->n_vocab;
    marco_scheduler_params params = small();
    marco_session *session;
    (void)state;
    for (int32_t i = 0; i < PROMPT; i++)
        prompt[i] = (i * 31 + 5) % n_vocab;
    marco_scheduler *s = scheduler(&params);
    for (int32_t tokens = 0; tokens < 2; tokens++) {
        client_init(&c);
        marco_request_params p = request_of(&c, prompt, PROMPT, tokens);
        p.prompt_scores = true;
        p.n_top = 3;
        submit(s, 1, &c, &p);
        client_wait(&c);
        assert_int_equal(c.result.status, MARCO_OK);
        assert_int_equal(c.n_prompt, PROMPT);
        assert_int_equal(c.n, tokens);
        assert_memory_equal(c.prompt_ids, prompt, sizeof prompt);
    }
    assert_int_equal(marco_session_create(engine, NULL, &session, NULL), MARCO_OK);
    assert_true(isnan(c.prompt_scores[0]));
    for (size_t i = 0; i + 1 < PROMPT; i++) {
        assert_int_equal(marco_session_eval(session, prompt + i, 1, NULL), MARCO_OK);
        const float *logits = marco_session_logits(session);
        double score = (double)logits[prompt[i + 1]] - log_total(logits, n_vocab);
        assert_true(fabs(score - (double)c.prompt_scores[i + 1]) < 1e-5);
    }
    marco_session_close(session);
    marco_scheduler_close(s);
}

/* Whoever ends with the prompt's scores leaves the others their own logits. */
static void scored_prompts_leave_others_alone(void **state)
{
    enum { N = 4 };
    static client clients[2 * N];
    static script scripts[N];
    marco_request_params params[2 * N];
    marco_request *requests[2 * N];
    marco_scheduler_params p = small();
    (void)state;
    p.parallel = 2 * N;
    p.chunk = 0;
    marco_scheduler *s = scheduler(&p);
    for (size_t i = 0; i < 2 * N; i++) {
        client_init(&clients[i]);
        script *alone = &scripts[i / 2];
        if (i % 2 == 0) {
            write_script(alone, i + 70);
            play_alone(alone);
        }
        params[i] = request_of(&clients[i], alone->prompt, alone->n_prompt, alone->tokens);
        params[i].sampling = alone->sampling;
        if (i % 2 == 0) {
            params[i].prompt_scores = true;
            params[i].max_tokens = 0;
        }
    }
    assert_int_equal(marco_scheduler_submit(s, 1, params, 2 * N, requests, NULL), MARCO_OK);
    for (size_t i = 0; i < 2 * N; i++) {
        clients[i].request = requests[i];
        client_wait(&clients[i]);
        if (i % 2)
            expect_script(&scripts[i / 2], &clients[i]);
        else
            assert_int_equal(clients[i].n, 0);
    }
    marco_scheduler_close(s);
}

/* The context is what memory has room for, so that everybody can be brought to an end. */
static void little_memory_makes_a_short_context(void **state)
{
    enum { PAGES = 3, N = 3 };
    static client clients[N];
    int32_t prompt[8] = {0};
    marco_scheduler_params params = small();
    model_kv kv;
    (void)state;
    model_kv_init(&kv, &engine->weights->config, TENSOR_F16);
    params.kv_bytes = PAGES * kv.page_bytes;
    marco_scheduler *s = scheduler(&params);
    assert_int_equal(marco_scheduler_context(s), PAGES * MODEL_KV_PAGE);
    for (size_t i = 0; i < N; i++) {
        client_init(&clients[i]);
        prompt[0] = (int32_t)i;
        marco_request_params p = request_of(&clients[i], prompt, 8, i == 1 ? 3 : -1);
        submit(s, i, &clients[i], &p);
    }
    for (size_t i = 0; i < N; i++) {
        client_wait(&clients[i]);
        assert_int_equal(clients[i].result.status, MARCO_OK);
        assert_int_equal(clients[i].n, i == 1 ? 3 : PAGES * MODEL_KV_PAGE - 8);
    }
    marco_scheduler_close(s);
    params.n_ctx = PAGES * MODEL_KV_PAGE + 1;
    assert_int_equal(marco_scheduler_create(engine, &params, &s, NULL), MARCO_ERROR_MEMORY);
}

static void cancelled_requests_end(void **state)
{
    enum { N = 12 };
    static client clients[N];
    const int32_t prompt[] = {1, 2, 3};
    marco_scheduler_params params = small();
    marco_request *requests[N];
    marco_request_params p[N];
    (void)state;
    params.parallel = 2;
    marco_scheduler *s = scheduler(&params);
    for (size_t i = 0; i < N; i++) {
        client_init(&clients[i]);
        clients[i].cancel_after = i < 2 ? 5 : 0;
        p[i] = request_of(&clients[i], prompt, 3, i < 2 ? 400 : 3);
    }
    for (size_t i = 0; i < N; i++) {
        pthread_mutex_lock(&clients[i].lock); /* no event before its handle is known */
        assert_int_equal(marco_scheduler_submit(s, i, &p[i], 1, &requests[i], NULL), MARCO_OK);
        clients[i].request = requests[i];
        pthread_mutex_unlock(&clients[i].lock);
    }
    marco_request_cancel(requests[N - 1]); /* it waits */
    for (size_t i = 0; i < N; i++)
        client_wait(&clients[i]);
    assert_int_equal(clients[0].result.finish, MARCO_FINISH_CANCELLED);
    assert_int_equal(clients[0].n, 5);
    assert_int_equal(clients[1].result.finish, MARCO_FINISH_CANCELLED);
    for (size_t i = 2; i + 1 < N; i++)
        assert_int_equal(clients[i].result.finish, MARCO_FINISH_LENGTH);
    marco_scheduler_close(s);
}

static void closing_cancels(void **state)
{
    enum { N = 6 };
    static client clients[N];
    int32_t prompt[300] = {0};
    marco_scheduler_params params = small();
    (void)state;
    params.parallel = 2;
    marco_scheduler *s = scheduler(&params);
    for (size_t i = 0; i < N; i++) {
        client_init(&clients[i]);
        prompt[0] = (int32_t)i;
        marco_request_params p = request_of(&clients[i], prompt, 300, 200);
        submit(s, 1, &clients[i], &p);
    }
    marco_scheduler_close(s);
    for (size_t i = 0; i < N; i++) {
        assert_true(clients[i].done);
        assert_int_equal(clients[i].result.finish, MARCO_FINISH_CANCELLED);
        marco_request_release(clients[i].request);
    }
}

static void a_full_queue_refuses(void **state)
{
    enum { N = 10, QUEUE = 3 };
    static client clients[N];
    int32_t prompt[8] = {0};
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    marco_scheduler_params params = small();
    marco_scheduler_stats stats;
    (void)state;
    params.parallel = 1;
    params.queue = QUEUE;
    marco_scheduler *s = scheduler(&params);
    pthread_mutex_lock(&gate);
    for (size_t i = 0; i < N; i++) {
        client_init(&clients[i]);
        prompt[0] = (int32_t)i;
        marco_request_params p = request_of(&clients[i], prompt, 8, 5);
        clients[i].gate = i == 0 ? &gate : NULL;
        marco_status status = marco_scheduler_submit(s, 1, &p, 1, &clients[i].request, NULL);
        assert_int_equal(status, i <= QUEUE ? MARCO_OK : MARCO_ERROR_BUSY);
        assert_int_equal(clients[i].request != NULL, i <= QUEUE);
        if (i == 0)
            client_wait_begun(&clients[i]);
    }
    marco_scheduler_stats_get(s, &stats);
    assert_int_equal(stats.waiting, QUEUE);
    pthread_mutex_unlock(&gate);
    for (size_t i = 0; i <= QUEUE; i++) {
        client_wait(&clients[i]);
        assert_int_equal(clients[i].result.status, MARCO_OK);
    }
    marco_scheduler_close(s);
}

static void what_cannot_be_is_refused(void **state)
{
    static client c;
    int32_t prompt[4] = {0}, n_ctx = 64;
    marco_scheduler_params params = small();
    marco_error error = {0};
    (void)state;
    params.n_ctx = n_ctx;
    marco_scheduler *s = scheduler(&params);
    client_init(&c);
    marco_request_params p = request_of(&c, prompt, 4, 61);
    assert_int_equal(marco_scheduler_submit(s, 1, &p, 1, &c.request, &error), MARCO_ERROR_CONTEXT);
    p = request_of(&c, prompt, 0, 1);
    assert_int_equal(marco_scheduler_submit(s, 1, &p, 1, &c.request, &error), MARCO_ERROR_ARGUMENT);
    p = request_of(&c, prompt, 4, 1);
    prompt[2] = -1;
    assert_int_equal(marco_scheduler_submit(s, 1, &p, 1, &c.request, &error), MARCO_ERROR_ARGUMENT);
    prompt[2] = 0;
    p.sampling.temperature = -1;
    assert_int_equal(marco_scheduler_submit(s, 1, &p, 1, &c.request, &error), MARCO_ERROR_ARGUMENT);
    p = request_of(&c, prompt, 4, -1); /* until the context is full */
    submit(s, 1, &c, &p);
    client_wait(&c);
    assert_int_equal(c.result.finish, MARCO_FINISH_LENGTH);
    assert_int_equal(c.n, n_ctx - 4);
    marco_scheduler_close(s);
    params.parallel = 1000;
    assert_int_equal(marco_scheduler_create(engine, &params, &s, &error), MARCO_ERROR_ARGUMENT);
}

/* A client with many requests does not keep another from its turn. */
static void clients_take_turns(void **state)
{
    enum { N = 8 };
    static client clients[N + 1];
    int32_t prompt[2] = {0};
    size_t finished = 0;
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    marco_scheduler_params params = small();
    (void)state;
    params.parallel = 1;
    marco_scheduler *s = scheduler(&params);
    pthread_mutex_lock(&gate);
    for (size_t i = 0; i <= N; i++) {
        client_init(&clients[i]);
        prompt[0] = (int32_t)i;
        clients[i].gate = i == 0 ? &gate : NULL;
        clients[i].finished = &finished;
        marco_request_params p = request_of(&clients[i], prompt, 2, 4);
        submit(s, i == N ? 2 : 1, &clients[i], &p);
        if (i == 0)
            client_wait_begun(&clients[0]);
    }
    pthread_mutex_unlock(&gate);
    for (size_t i = 0; i <= N; i++)
        client_wait(&clients[i]);
    assert_int_equal(clients[N].place, 1);
    for (size_t i = 1; i < N; i++)
        assert_int_equal(clients[i].place, i + 1);
    marco_scheduler_close(s);
}

/* ---- over a restart ------------------------------------------------------------------------- */

static size_t cached_of(marco_scheduler *s, const script *alone)
{
    static client c;
    client_init(&c);
    marco_request_params p = request_of(&c, alone->prompt, alone->n_prompt, alone->tokens);
    p.sampling = alone->sampling;
    submit(s, 1, &c, &p);
    client_wait(&c);
    expect_script(alone, &c);
    return c.result.n_cached;
}

static void save_to(marco_scheduler *s, const char *path, uint64_t limit)
{
    marco_error error = {0};
    if (marco_scheduler_save(s, path, limit, &error))
        fail_msg("%s", error.message);
}

static void load_from(marco_scheduler *s, const char *path, marco_status wanted)
{
    marco_error error = {0};
    marco_status status = marco_scheduler_load(s, path, &error);
    if (status != wanted)
        fail_msg("%s: %s", marco_status_name(status), error.message);
}

static void flip_byte(const char *path, long at)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    int byte = fgetc(f);
    assert_int_equal(fseek(f, -1, SEEK_CUR), 0);
    fputc(byte ^ 1, f);
    fclose(f);
}

static void prefixes_come_back(void **state)
{
    enum { N = 6 };
    static script scripts[N];
    static const long damage[] = {0, 8, 16, 24, 32, 40, 48, -1, -9, -5000};
    marco_scheduler_params params = small();
    char path[384];
    (void)state;
    strcpy(path, scratch_path(&place, "saved.session"));
    marco_scheduler *s = scheduler(&params);
    for (size_t i = 0; i < N; i++) {
        write_script(&scripts[i], i + 30);
        play_alone(&scripts[i]);
        cached_of(s, &scripts[i]);
    }
    save_to(s, path, UINT64_MAX);
    marco_scheduler_close(s);

    s = scheduler(&params);
    load_from(s, path, MARCO_OK);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(cached_of(s, &scripts[i]), scripts[i].n_prompt - 1);
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        flip_byte(path, damage[i]);
        load_from(s, path, damage[i] == 8 ? MARCO_ERROR_UNSUPPORTED : MARCO_ERROR_FORMAT);
        flip_byte(path, damage[i]);
    }
    load_from(s, path, MARCO_OK);

    /* Of what does not fit, the latest. */
    model_kv kv;
    model_kv_init(&kv, &engine->weights->config, TENSOR_F16);
    cached_of(s, &scripts[2]);
    save_to(s, path, 5 * kv.page_bytes);
    marco_scheduler_close(s);
    s = scheduler(&params);
    load_from(s, path, MARCO_OK);
    assert_int_equal(cached_of(s, &scripts[2]), scripts[2].n_prompt - 1);
    marco_scheduler_stats stats;
    marco_scheduler_stats_get(s, &stats);
    assert_true(stats.kv_bytes <= 6 * kv.page_bytes);
    save_to(s, path, UINT64_MAX);
    marco_scheduler_close(s);

    /* Into less memory than it was saved from: what there is room for. */
    marco_scheduler_params less = params;
    less.cache_bytes = 4 * kv.page_bytes;
    s = scheduler(&less);
    load_from(s, path, MARCO_OK);
    assert_int_equal(cached_of(s, &scripts[2]), scripts[2].n_prompt - 1);
    marco_scheduler_close(s);

    params.kv_type = MARCO_KV_F32;
    s = scheduler(&params);
    load_from(s, path, MARCO_ERROR_UNSUPPORTED);
    marco_scheduler_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_are_what_they_are_alone),
        cmocka_unit_test(a_prompt_is_read_once),
        cmocka_unit_test(prompts_are_scored),
        cmocka_unit_test(scored_prompts_leave_others_alone),
        cmocka_unit_test(little_memory_makes_a_short_context),
        cmocka_unit_test(cancelled_requests_end),
        cmocka_unit_test(closing_cancels),
        cmocka_unit_test(a_full_queue_refuses),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(clients_take_turns),
        cmocka_unit_test(prefixes_come_back),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
