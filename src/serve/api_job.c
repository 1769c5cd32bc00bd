#include "serve/api_job.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "serve/api_reply.h"
#include "serve/api_work.h"

typedef struct job job;

enum { MAX_HELD = 64 << 20 }; /* bytes of an answer that wait to be sent together */

/* What a reply is made with, beside the api_choice that it becomes. */
typedef struct stream {
    job *job;
    size_t index;
    api_parser *parser;            /* NULL: text is text */
    marco_detokenizer *characters; /* counts them for offsets; NULL where nobody asks */
    size_t offset;                 /* characters so far */
    bool bos;                      /* the prompt's first token is not part of its text */
    bool enough;                   /* has made the one call it may */
    size_t held;                   /* bytes of its choice */
    size_t n_prompt, n_cached;
} stream;

/* Events come from the scheduler's thread while the thread that submitted may still be at it; the
 * lock is theirs. The client's going comes from a third thread, which takes no lock. */
struct job {
    marco_server *server;
    http_request *http;
    api_form form;
    api_request request;
    serve_model *model;
    api_work work;
    api_reply reply;
    stream *streams;         /* [reply.n] */
    marco_request **handles; /* [reply.n] */
    atomic_bool gone, submitted;
    pthread_mutex_t lock;
    size_t held; /* bytes of all choices */
    size_t open; /* replies that have not ended, and one for who submits */
    bool begun;  /* a stream: its head has been sent */
    bool failed; /* `refusal` says why */
    api_refusal refusal;
    base_text out;
};

/* ---- beginning and end --------------------------------------------------------------------- */

void api_answer_refusal(http_request *http, const api_refusal *refusal)
{
    serve_refuse(http, refusal->status, refusal->param[0] ? refusal->param : NULL, refusal->code,
                 "%s", refusal->message);
}

static void job_free(job *j)
{
    for (size_t i = 0; j->handles && i < j->reply.n; i++)
        marco_request_release(j->handles[i]);
    for (size_t i = 0; j->streams && i < j->reply.n; i++) {
        api_parser_free(j->streams[i].parser);
        marco_detokenizer_close(j->streams[i].characters);
    }
    for (size_t i = 0; j->reply.choices && i < j->reply.n; i++)
        api_choice_free(&j->reply.choices[i]);
    base_free(j->reply.choices);
    base_free(j->streams);
    base_free(j->handles);
    api_work_free(&j->work);
    if (j->model)
        serve_model_release(serve_server_models(j->server), j->model);
    api_request_free(&j->request);
    base_text_free(&j->out);
    pthread_mutex_destroy(&j->lock);
    base_free(j);
}

static void cancel_all(job *j)
{
    /* Who submits looks at `gone` after it has set `submitted`: one of the two sees the other's. */
    atomic_store(&j->gone, true);
    if (atomic_load(&j->submitted))
        for (size_t i = 0; i < j->reply.n; i++)
            marco_request_cancel(j->handles[i]);
}

static void on_gone(void *user)
{
    cancel_all(user);
}

/* The first failure counts; the other replies are of no use then. */
static void fail(job *j, const api_refusal *refusal)
{
    if (!j->failed) {
        j->failed = true;
        j->refusal = *refusal;
    }
    cancel_all(j);
}

static void fail_memory(job *j)
{
    api_refusal refusal;
    api_refuse_memory(&refusal);
    fail(j, &refusal);
}

/* Counts what a choice holds after it has changed. */
static void count_held(job *j, stream *s)
{
    size_t now = api_choice_bytes(&j->reply.choices[s->index]);
    j->held += now - s->held;
    s->held = now;
    if (j->held <= MAX_HELD || j->failed)
        return;
    api_refusal refusal = {0};
    api_refuse(
        &refusal, NULL, NULL,
        "the answer is larger than %d MiB: ask for fewer replies, tokens or scores at once%s",
        MAX_HELD >> 20, j->request.stream ? "" : ", or for a stream");
    fail(j, &refusal);
}

/* ---- writing ------------------------------------------------------------------------------- */

static void flush(job *j)
{
    if (j->out.failed)
        fail_memory(j);
    else if (j->out.size > 0 && !http_stream_write(j->http, j->out.data, j->out.size))
        cancel_all(j);
    base_text_clear(&j->out);
}

static void begin_stream(job *j)
{
    if (j->begun)
        return;
    j->begun = true;
    http_add_header(j->http, "Cache-Control", "no-cache");
    http_add_header(j->http, "X-Accel-Buffering", "no"); /* nginx: hand pieces on at once */
    http_stream_begin(j->http, 200, "text/event-stream; charset=utf-8");
    api_write_start(&j->reply, &j->out);
}

/* What all replies together have taken. Replies to one prompt share it. */
static void count_tokens(job *j)
{
    size_t each = (size_t)j->request.n;
    j->reply.n_prompt = j->reply.n_cached = 0;
    for (size_t i = 0; i < j->reply.n; i += each) {
        size_t cached = j->streams[i].n_cached;
        for (size_t k = i; k < i + each; k++)
            if (j->streams[k].n_cached < cached)
                cached = j->streams[k].n_cached;
        j->reply.n_prompt += j->streams[i].n_prompt;
        j->reply.n_cached += cached;
    }
}

static const char *finish_word(const job *j)
{
    if (j->failed)
        return "error";
    switch (j->reply.choices[0].finish) {
    case API_UNFINISHED:
        break;
    case API_FINISH_STOP:
    case API_FINISH_STRING:
        return "stop";
    case API_FINISH_LENGTH:
        return "length";
    case API_FINISH_CALLS:
        return "tool_calls";
    }
    return "cancelled";
}

/* Everything has ended: the rest of the answer. */
static void conclude(job *j)
{
    http_request *http = j->http;
    count_tokens(j);
    if (!j->failed && atomic_load(&j->gone)) { /* nobody reads it */
        api_refuse(&j->refusal, NULL, NULL, "the client has gone");
        j->refusal.status = 503;
    }
    serve_note(http, j->model->name, j->reply.n_prompt, j->reply.n_cached, j->reply.n_reply,
               finish_word(j));
    if (!j->begun) {
        if (!j->refusal.status)
            api_write_whole(&j->reply, &j->out);
        if (j->out.failed)
            api_refuse_memory(&j->refusal);
        if (j->refusal.status)
            api_answer_refusal(http, &j->refusal);
        else
            http_respond(http, 200, "application/json", j->out.data, j->out.size);
    } else {
        if (j->refusal.status)
            api_write_error(j->request.form, j->refusal.status, j->refusal.message, &j->out);
        else
            api_write_end(&j->reply, &j->out);
        if (!j->out.failed)
            http_stream_write(http, j->out.data, j->out.size);
        http_stream_end(http);
    }
    job_free(j);
}

/* Lets go of one of those that keep the job, with the lock held, which is given away. */
static void leave(job *j)
{
    bool last = --j->open == 0;
    pthread_mutex_unlock(&j->lock);
    if (last)
        conclude(j);
}

/* ---- events -------------------------------------------------------------------------------- */

static api_choice *choice_of(const stream *s)
{
    return &s->job->reply.choices[s->index];
}

static void on_text(void *user, const char *text, size_t size)
{
    const stream *s = user;
    if (!s->enough)
        base_text_add_n(&choice_of(s)->text, text, size);
}

static void on_reasoning(void *user, const char *text, size_t size)
{
    base_text_add_n(&choice_of(user)->reasoning, text, size);
}

static void on_call(void *user, const char *name, const char *arguments, size_t size)
{
    stream *s = user;
    job *j = s->job;
    if (s->enough)
        return;
    if (!api_choice_add_call(choice_of(s), j->request.form, name, arguments, size)) {
        fail_memory(j);
        return;
    }
    s->enough = !j->request.parallel;
    if (s->enough && atomic_load(&j->submitted))
        marco_request_cancel(j->handles[s->index]);
}

static void count_characters(stream *s, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        s->offset += ((unsigned char)text[i] & 0xC0) != 0x80;
}

/* Where a token does not go on with a character that those before it began, that one is broken, and
 * a character of its own (U+FFFD) before it. */
static bool end_broken(stream *s, const marco_tokenizer *tokenizer, int32_t id)
{
    base_text bytes = {0};
    const char *text;
    size_t size;
    api_token_bytes(tokenizer, id, &bytes);
    bool fine = !bytes.failed;
    if (fine && bytes.size > 0 && ((unsigned char)bytes.data[0] & 0xC0) != 0x80) {
        fine = !marco_detokenizer_flush(s->characters, &text, &size, NULL);
        if (fine)
            count_characters(s, text, size);
    }
    base_text_free(&bytes);
    return fine;
}

/* Adds the scores of a token; its place is told by the characters before it. */
static void add_scores(stream *s, const marco_token_event *event, bool hidden)
{
    job *j = s->job;
    const marco_tokenizer *tokenizer = marco_engine_tokenizer(j->model->engine);
    const char *text;
    size_t size;
    if (j->request.form == API_CHAT && marco_tokenizer_is_special(tokenizer, event->id))
        return; /* it ends the reply and is not part of it */
    if (s->characters && !hidden && !end_broken(s, tokenizer, event->id)) {
        fail_memory(j);
        return;
    }
    api_choice_add_scores(choice_of(s), j->request.form, tokenizer, event, s->offset);
    if (!s->characters || hidden)
        return;
    if (marco_detokenizer_add(s->characters, event->id, &text, &size, NULL)) {
        fail_memory(j);
        return;
    }
    count_characters(s, text, size);
}

static void on_prompt(void *user, size_t done, size_t total)
{
    const stream *s = user;
    job *j = s->job;
    pthread_mutex_lock(&j->lock);
    if (j->request.stream && !j->failed) {
        begin_stream(j);
        api_write_progress(j->request.form, done, total, &j->out);
        flush(j);
    }
    pthread_mutex_unlock(&j->lock);
}

static void on_prompt_token(void *user, size_t index, const marco_token_event *event)
{
    stream *s = user;
    pthread_mutex_lock(&s->job->lock);
    if (!s->job->failed)
        add_scores(s, event, index == 0 && s->bos);
    count_held(s->job, s);
    pthread_mutex_unlock(&s->job->lock);
}

/* A stream's piece. */
static void write_delta(job *j, const stream *s)
{
    begin_stream(j);
    api_write_delta(&j->reply, s->index, &j->out);
    flush(j);
}

static void on_token(void *user, const marco_token_event *event)
{
    stream *s = user;
    job *j = s->job;
    pthread_mutex_lock(&j->lock);
    if (!j->failed && !s->enough) {
        const marco_tokenizer *tokenizer = marco_engine_tokenizer(j->model->engine);
        if (j->request.logprobs && event->id >= 0)
            add_scores(s, event, marco_tokenizer_is_special(tokenizer, event->id));
        if (!s->parser)
            on_text(s, event->text, event->size);
        else if (!api_parser_add(s->parser, event->text, event->size))
            fail_memory(j);
        if (j->request.stream)
            write_delta(j, s);
        count_held(j, s);
    }
    pthread_mutex_unlock(&j->lock);
}

static void set_finish(stream *s, const marco_request_result *result)
{
    api_choice *choice = choice_of(s);
    if (s->parser && !api_parser_end(s->parser))
        fail_memory(s->job);
    if (choice->calls_seen > 0 && (s->enough || result->finish == MARCO_FINISH_STOP))
        choice->finish = API_FINISH_CALLS;
    else if (result->finish == MARCO_FINISH_LENGTH)
        choice->finish = API_FINISH_LENGTH;
    else
        choice->finish = result->stop ? API_FINISH_STRING : API_FINISH_STOP;
    if (result->stop && !(choice->stop = base_strdup(result->stop)))
        fail_memory(s->job);
}

/* Why there is no whole reply. */
static void fail_result(job *j, const marco_request_result *result)
{
    api_refusal refusal = {0};
    if (result->status && result->status != MARCO_ERROR_CANCELLED) {
        api_refuse(&refusal, NULL, NULL, "%s", result->message ? result->message : "");
        refusal.status = serve_http_status(result->status);
    } else {
        api_refuse(&refusal, NULL, NULL, "the request was cancelled: the server is going down");
        refusal.status = 503;
    }
    fail(j, &refusal);
}

static void on_finish(void *user, const marco_request_result *result)
{
    stream *s = user;
    job *j = s->job;
    bool cancelled =
        result->status == MARCO_ERROR_CANCELLED || result->finish == MARCO_FINISH_CANCELLED;
    pthread_mutex_lock(&j->lock);
    s->n_prompt = result->n_prompt;
    s->n_cached = result->n_cached;
    j->reply.n_reply += result->n_reply;
    if (!cancelled && result->status) {
        fail_result(j, result);
    } else if (cancelled && !s->enough) {
        if (!atomic_load(&j->gone) || serve_ending(j->server))
            fail_result(j, result);
    } else if (!j->failed) {
        set_finish(s, result);
        if (j->request.stream && !j->failed) {
            write_delta(j, s);
            api_write_finish(&j->reply, s->index, &j->out);
            flush(j);
        }
    }
    leave(j);
}

/* ---- submitting ---------------------------------------------------------------------------- */

/* The text of a prompt of ids, as whole characters. */
static bool echo_ids(const marco_tokenizer *tokenizer, const api_ids *prompt, base_text *out)
{
    marco_detokenizer *detokenizer;
    const char *text;
    size_t size;
    if (marco_detokenizer_create(tokenizer, true, &detokenizer, NULL))
        return false;
    bool fine = true;
    for (size_t i = 0; i < prompt->n && fine; i++) {
        fine = !marco_detokenizer_add(detokenizer, prompt->ids[i], &text, &size, NULL);
        if (fine)
            base_text_add_n(out, text, size);
    }
    fine = fine && !marco_detokenizer_flush(detokenizer, &text, &size, NULL);
    if (fine)
        base_text_add_n(out, text, size);
    marco_detokenizer_close(detokenizer);
    return fine && !out->failed;
}

static bool begin_choice(job *j, stream *s)
{
    const api_request *request = &j->request;
    const marco_tokenizer *tokenizer = marco_engine_tokenizer(j->model->engine);
    size_t prompt = s->index / (size_t)request->n;
    const api_parser_events events = {
        .user = s, .on_text = on_text, .on_reasoning = on_reasoning, .on_call = on_call};
    bool tools = request->tool_choice != API_TOOL_NONE;
    if (tools || j->work.reasoning != API_REASONING_NONE) {
        s->parser = api_parser_create(j->work.reasoning, tools, &events);
        if (!s->parser)
            return false;
    }
    if (request->logprobs && request->form == API_COMPLETION &&
        marco_detokenizer_create(tokenizer, true, &s->characters, NULL))
        return false;
    if (!request->echo)
        return true;
    s->bos = j->work.prompts[prompt].bos;
    base_text *text = &choice_of(s)->text;
    const api_prompt *asked = &request->prompts[prompt];
    if (!asked->text)
        return echo_ids(tokenizer, &j->work.prompts[prompt], text);
    base_text_add_n(text, asked->text, asked->size);
    return !text->failed;
}

static bool begin_choices(job *j)
{
    static const char *const prefixes[] = {
        [API_CHAT] = "chatcmpl-", [API_COMPLETION] = "cmpl-", [API_MESSAGES] = "msg_"};
    size_t n = j->work.n;
    j->reply = (api_reply){
        .form = j->request.form,
        .model = j->model->name,
        .created = time(NULL),
        .logprobs = j->request.logprobs,
        .include_usage = j->request.include_usage,
    };
    api_random_id(j->reply.id, sizeof j->reply.id, prefixes[j->request.form]);
    j->reply.choices = base_calloc(n, sizeof *j->reply.choices);
    j->streams = base_calloc(n, sizeof *j->streams);
    j->handles = base_calloc(n, sizeof(marco_request *));
    if (!j->reply.choices || !j->streams || !j->handles)
        return api_refuse_memory(&j->refusal);
    j->reply.n = n;
    for (size_t i = 0; i < n; i++) {
        stream *s = &j->streams[i];
        *s = (stream){.job = j, .index = i};
        s->n_prompt = j->work.params[i].n_prompt;
        j->work.params[i].events = (marco_request_events){.user = s,
                                                          .on_prompt = on_prompt,
                                                          .on_prompt_token = on_prompt_token,
                                                          .on_token = on_token,
                                                          .on_finish = on_finish};
        if (!begin_choice(j, s))
            return api_refuse_memory(&j->refusal);
        count_held(j, s);
        if (j->failed)
            return false;
    }
    /* Anthropic's streams begin with the size of the prompt. */
    count_tokens(j);
    return true;
}

/* Hands the job to the scheduler. False where it refuses. */
static bool submit(job *j)
{
    marco_error error = {0};
    uint64_t client = serve_client(j->server, j->http);
    j->open = j->reply.n + 1;
    marco_status status = marco_scheduler_submit(j->model->scheduler, client, j->work.params,
                                                 j->reply.n, j->handles, &error);
    if (status)
        return api_refuse_status(&j->refusal, status, NULL, &error);
    /* All of it has been copied, and a reply may take long. */
    http_drop_body(j->http);
    api_request_slim(&j->request);
    api_work_slim(&j->work);
    atomic_store(&j->submitted, true);
    if (atomic_load(&j->gone))
        cancel_all(j);
    pthread_mutex_lock(&j->lock);
    for (size_t i = 0; i < j->reply.n; i++)
        if (j->streams[i].enough)
            marco_request_cancel(j->handles[i]);
    if (j->request.stream && !j->failed) {
        begin_stream(j);
        flush(j);
    }
    leave(j);
    return true;
}

/* The model is there: what the scheduler takes is made, and handed over. */
static void go_on(job *j)
{
    if (api_work_prepare(&j->request, j->model, &j->work, &j->refusal) && begin_choices(j) &&
        submit(j))
        return;
    api_answer_refusal(j->http, &j->refusal);
    job_free(j);
}

static void go_on_heavy(void *user, bool stopped)
{
    job *j = user;
    if (!stopped) {
        go_on(j);
        return;
    }
    api_refuse_stopped(&j->refusal);
    api_answer_refusal(j->http, &j->refusal);
    job_free(j);
}

static void on_model(void *user, serve_model *model, marco_status status, const marco_error *error)
{
    job *j = user;
    size_t size;
    j->model = model;
    http_body(j->http, &size);
    if (status) {
        bool unknown = status == MARCO_ERROR_NOT_FOUND;
        api_refuse_status(&j->refusal, status, unknown ? "model" : NULL, error);
        j->refusal.code = unknown ? "model_not_found" : NULL;
    } else if (!api_is_long(size) && !api_work_needs_grammar(&j->request)) {
        go_on(j);
        return;
    } else if (serve_heavy_run(serve_server_heavy(j->server), go_on_heavy, j)) {
        return;
    } else {
        api_refuse_crowded(&j->refusal);
    }
    api_answer_refusal(j->http, &j->refusal);
    job_free(j);
}

static void start(void *user, bool stopped)
{
    job *j = user;
    size_t size;
    const char *body = http_body(j->http, &size);
    if (stopped) {
        api_refuse_stopped(&j->refusal);
    } else if (api_request_parse(j->form, body, size, &j->request, &j->refusal)) {
        serve_models_acquire(serve_server_models(j->server), j->request.model, on_model, j);
        return;
    }
    api_answer_refusal(j->http, &j->refusal);
    job_free(j);
}

bool api_is_long(size_t size)
{
    enum { LONG = 64 << 10 }; /* some 50 ms in the worst case, text of digits */
    return size > LONG;
}

void api_refuse_crowded(api_refusal *refusal)
{
    api_refuse(refusal, NULL, NULL,
               "too many long requests and schemas are waiting to be read: try again later");
    refusal->status = 429;
}

void api_refuse_stopped(api_refusal *refusal)
{
    api_refuse(refusal, NULL, NULL, "the server is going down");
    refusal->status = 503;
}

void api_job_start(marco_server *server, http_request *http, api_form form)
{
    size_t size;
    api_refusal refusal = {0};
    http_body(http, &size);
    job *j = base_calloc(1, sizeof *j);
    if (!j || pthread_mutex_init(&j->lock, NULL) != 0) {
        base_free(j);
        api_refuse_memory(&refusal);
        api_answer_refusal(http, &refusal);
        return;
    }
    j->server = server;
    j->http = http;
    j->form = form;
    http_on_gone(http, on_gone, j);
    if (!api_is_long(size)) {
        start(j, false);
    } else if (!serve_heavy_run(serve_server_heavy(server), start, j)) {
        api_refuse_crowded(&refusal);
        api_answer_refusal(http, &refusal);
        job_free(j);
    }
}
