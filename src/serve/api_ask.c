#include "serve/api_ask.h"

#include <string.h>

#include "base/memory.h"
#include "format/json.h"
#include "serve/api_job.h"
#include "serve/api_reply.h"
#include "serve/api_work.h"
#include "tokenizer/tokenizer.h"

typedef struct ask ask;

/* Writes the answer to a question whose model is there; false: `refusal` says why not. */
typedef bool (*answer_fn)(const ask *a, const serve_model *model, base_text *out,
                          api_refusal *refusal);

struct ask {
    marco_server *server;
    http_request *http;
    answer_fn answer;
    api_request request; /* its body, and of a chat the rest */
    bool bos, strings;
};

static void ask_free(ask *a)
{
    api_request_free(&a->request);
    base_free(a);
}

static void on_model(void *user, serve_model *model, marco_status status, const marco_error *error)
{
    ask *a = user;
    api_refusal refusal = {0};
    base_text out = {0};
    bool fine = !status;
    if (!fine) {
        bool unknown = status == MARCO_ERROR_NOT_FOUND;
        api_refuse_status(&refusal, status, unknown ? "model" : NULL, error);
        refusal.code = unknown ? "model_not_found" : NULL;
    } else {
        fine = a->answer(a, model, &out, &refusal);
        if (fine && out.failed)
            fine = api_refuse_memory(&refusal);
        serve_note(a->http, model->name, 0, 0, 0, NULL);
        serve_model_release(serve_server_models(a->server), model);
    }
    if (fine)
        http_respond(a->http, 200, "application/json", out.data, out.size);
    else
        api_answer_refusal(a->http, &refusal);
    base_text_free(&out);
    ask_free(a);
}

/* NULL where it has been refused. */
static ask *ask_new(marco_server *server, http_request *http, answer_fn answer)
{
    ask *a = base_calloc(1, sizeof *a);
    if (a) {
        a->server = server;
        a->http = http;
        a->answer = answer;
        return a;
    }
    api_refusal refusal;
    api_refuse_memory(&refusal);
    api_answer_refusal(http, &refusal);
    return NULL;
}

static void acquire(void *user, bool stopped)
{
    ask *a = user;
    if (!stopped) {
        serve_models_acquire(serve_server_models(a->server), a->request.model, on_model, a);
        return;
    }
    api_refusal refusal = {0};
    api_refuse_stopped(&refusal);
    api_answer_refusal(a->http, &refusal);
    ask_free(a);
}

/* Goes on where the body was fine, and refuses where it was not. */
static void ask_go(ask *a, bool fine, const api_refusal *refusal)
{
    api_refusal crowded = {0};
    size_t size;
    http_body(a->http, &size);
    if (fine && !api_is_long(size)) {
        acquire(a, false);
        return;
    }
    if (fine && serve_heavy_run(serve_server_heavy(a->server), acquire, a))
        return;
    api_refuse_crowded(&crowded);
    api_answer_refusal(a->http, fine ? &crowded : refusal);
    ask_free(a);
}

/* The body as an object with these members. */
static bool ask_parse(ask *a, const api_member *members, api_object *body)
{
    size_t size;
    const char *text = http_body(a->http, &size);
    if (!api_parse_body(text, size, &a->request.body, body->refusal))
        return false;
    body->json = a->request.body;
    return api_check_members(body, members) &&
           api_get_string(body, "model", 512, &a->request.model);
}

/* ---- /tokenize ----------------------------------------------------------------------------- */

static bool add_strings(const marco_tokenizer *tokenizer, const int32_t *ids, size_t n,
                        base_text *out)
{
    base_text bytes = {0}, name = {0};
    base_text_add_char(out, '[');
    for (size_t i = 0; i < n; i++) {
        api_token_bytes(tokenizer, ids[i], &bytes);
        api_token_name(bytes.data, bytes.size, ids[i], &name);
        if (i)
            base_text_add_char(out, ',');
        format_json_escape(out, name.data ? name.data : "", name.size);
    }
    base_text_add_char(out, ']');
    bool fine = !bytes.failed && !name.failed;
    base_text_free(&bytes);
    base_text_free(&name);
    return fine;
}

static bool answer_tokenize(const ask *a, const serve_model *model, base_text *out,
                            api_refusal *refusal)
{
    const marco_tokenizer *tokenizer = marco_engine_tokenizer(model->engine);
    const json_t *prompt = json_object_get(a->request.body, "prompt");
    int32_t *ids;
    size_t n;
    marco_error error = {0};
    marco_status status = marco_tokenizer_encode(
        tokenizer, json_string_value(prompt), json_string_length(prompt),
        MARCO_ENCODE_SPECIAL | (a->bos ? MARCO_ENCODE_BOS : 0), &ids, &n, &error);
    if (status)
        return api_refuse_status(refusal, status, "prompt", &error);
    base_text_printf(out, "{\"count\":%zu,\"max_model_len\":%d,\"tokens\":[", n,
                     marco_scheduler_context(model->scheduler));
    for (size_t i = 0; i < n; i++)
        base_text_printf(out, "%s%d", i ? "," : "", ids[i]);
    base_text_add(out, "],\"token_strs\":");
    if (!a->strings)
        base_text_add(out, "null");
    else if (!add_strings(tokenizer, ids, n, out))
        out->failed = true;
    base_text_add_char(out, '}');
    marco_free(ids);
    return true;
}

void api_tokenize(marco_server *server, http_request *http)
{
    static const api_member members[] = {
        {"model", API_READ, NULL},
        {"prompt", API_READ, NULL},
        {"add_special_tokens", API_READ, NULL},
        {"return_token_strs", API_READ, NULL},
        {"messages", API_REFUSED, "/v1/messages/count_tokens counts the tokens of a chat"},
        {NULL, API_READ, NULL},
    };
    api_refusal refusal = {0};
    api_object body = {NULL, "", &refusal};
    ask *a = ask_new(server, http, answer_tokenize);
    if (!a)
        return;
    a->bos = true;
    bool fine = ask_parse(a, members, &body);
    if (fine && !json_is_string(api_get(&body, "prompt")))
        fine = api_wrong_kind(&body, "prompt", "a string");
    fine = fine && api_get_bool(&body, "add_special_tokens", &a->bos) &&
           api_get_bool(&body, "return_token_strs", &a->strings);
    ask_go(a, fine, &refusal);
}

/* ---- /detokenize --------------------------------------------------------------------------- */

static bool add_decoded(const json_t *tokens, const marco_tokenizer *tokenizer, int32_t n_vocab,
                        base_text *text, api_refusal *refusal)
{
    marco_detokenizer *detokenizer;
    const char *piece;
    size_t size;
    if (marco_detokenizer_create(tokenizer, true, &detokenizer, NULL))
        return api_refuse_memory(refusal);
    bool fine = true;
    for (size_t i = 0; i < json_array_size(tokens) && fine; i++) {
        const json_t *token = json_array_get(tokens, i);
        json_int_t id = json_integer_value(token);
        if (!json_is_integer(token) || id < 0 || id >= n_vocab)
            fine = api_refuse(refusal, "tokens", "invalid_value",
                              "\"tokens\" holds something other than an id of the vocabulary of %d "
                              "at place %zu",
                              n_vocab, i);
        else if (marco_detokenizer_add(detokenizer, (int32_t)id, &piece, &size, NULL))
            fine = api_refuse_memory(refusal);
        else
            base_text_add_n(text, piece, size);
    }
    if (fine && marco_detokenizer_flush(detokenizer, &piece, &size, NULL))
        fine = api_refuse_memory(refusal);
    else if (fine)
        base_text_add_n(text, piece, size);
    marco_detokenizer_close(detokenizer);
    return fine;
}

static bool answer_detokenize(const ask *a, const serve_model *model, base_text *out,
                              api_refusal *refusal)
{
    base_text text = {0};
    bool fine = add_decoded(json_object_get(a->request.body, "tokens"),
                            marco_engine_tokenizer(model->engine),
                            marco_engine_info(model->engine)->n_vocab, &text, refusal);
    base_text_add(out, "{\"prompt\":");
    format_json_escape(out, text.data ? text.data : "", text.size);
    base_text_add_char(out, '}');
    out->failed = out->failed || text.failed;
    base_text_free(&text);
    return fine;
}

void api_detokenize(marco_server *server, http_request *http)
{
    static const api_member members[] = {
        {"model", API_READ, NULL},
        {"tokens", API_READ, NULL},
        {NULL, API_READ, NULL},
    };
    api_refusal refusal = {0};
    api_object body = {NULL, "", &refusal};
    ask *a = ask_new(server, http, answer_detokenize);
    if (!a)
        return;
    bool fine = ask_parse(a, members, &body);
    if (fine && !json_is_array(api_get(&body, "tokens")))
        fine = api_wrong_kind(&body, "tokens", "an array of token ids");
    ask_go(a, fine, &refusal);
}

/* ---- /tokenizer_info ----------------------------------------------------------------------- */

static void add_token(const char *key, const marco_tokenizer *tokenizer, int32_t id, base_text *out)
{
    base_text bytes = {0};
    base_text_printf(out, ",\"%s\":", key);
    if (id >= 0)
        api_token_bytes(tokenizer, id, &bytes);
    if (bytes.size && base_utf8_check(bytes.data, bytes.size) == bytes.size)
        format_json_escape(out, bytes.data, bytes.size);
    else
        base_text_add(out, "null");
    out->failed = out->failed || bytes.failed;
    base_text_free(&bytes);
}

static bool answer_info(const ask *a, const serve_model *model, base_text *out,
                        api_refusal *refusal)
{
    (void)a, (void)refusal;
    const marco_tokenizer *tokenizer = marco_engine_tokenizer(model->engine);
    base_text_printf(out, "{\"tokenizer_class\":\"marco\",\"model_max_length\":%d",
                     marco_scheduler_context(model->scheduler));
    add_token("bos_token", tokenizer, marco_tokenizer_bos(tokenizer), out);
    add_token("eos_token", tokenizer, marco_tokenizer_eos(tokenizer), out);
    base_text_add(out, ",\"pad_token\":null,\"chat_template\":");
    /* The text of one that was set by its name is not at hand. */
    const char *template = tokenizer->chat_kind ? NULL : tokenizer->spec->chat_template;
    if (template)
        format_json_escape(out, template, strlen(template));
    else
        base_text_add(out, "null");
    base_text_add_char(out, '}');
    return true;
}

void api_tokenizer_info(marco_server *server, http_request *http)
{
    const api_refusal none = {0};
    ask *a = ask_new(server, http, answer_info);
    if (a)
        ask_go(a, true, &none);
}

/* ---- /v1/messages/count_tokens ------------------------------------------------------------- */

static bool answer_count(const ask *a, const serve_model *model, base_text *out,
                         api_refusal *refusal)
{
    api_ids *prompts;
    size_t n;
    bool fine =
        api_encode(&a->request, marco_engine_tokenizer(model->engine), &prompts, &n, refusal);
    if (fine)
        base_text_printf(out, "{\"input_tokens\":%zu}", prompts[0].n);
    api_ids_free(prompts, n);
    return fine;
}

void api_count_tokens(marco_server *server, http_request *http)
{
    api_refusal refusal = {0};
    size_t size;
    const char *text = http_body(http, &size);
    ask *a = ask_new(server, http, answer_count);
    if (!a)
        return;
    bool fine = api_request_parse(API_COUNT, text, size, &a->request, &refusal);
    ask_go(a, fine, &refusal);
}
