#include "serve/api_work.h"

#include <string.h>
#include <sys/random.h>

#include "base/memory.h"

bool api_refuse_status(api_refusal *refusal, marco_status status, const char *param,
                       const marco_error *error)
{
    api_refuse(refusal, param, status == MARCO_ERROR_CONTEXT ? "context_length_exceeded" : NULL,
               "%s", error->message);
    refusal->status = serve_http_status(status);
    return false;
}

/* ---- prompts ------------------------------------------------------------------------------- */

/* What is wrong with a chat is the client's to mend, whatever the library calls it. */
static bool refuse_chat(api_refusal *refusal, marco_status status, const char *param,
                        const marco_error *error)
{
    if (status == MARCO_ERROR_MEMORY)
        return api_refuse_memory(refusal);
    return api_refuse(refusal, param, "invalid_value", "%s", error->message);
}

static bool encode_chat(const api_request *request, const marco_tokenizer *tokenizer, api_ids *out,
                        api_refusal *refusal)
{
    marco_chat_params params = marco_chat_params_default();
    params.messages = request->messages;
    params.tools = request->tools;
    params.enable_thinking = request->enable_thinking;
    marco_error error = {0};
    marco_status status = marco_chat_encode(tokenizer, &params, &out->ids, &out->n, &error);
    if (!status)
        return true;
    bool tools = status == MARCO_ERROR_UNSUPPORTED && request->tools;
    return refuse_chat(refusal, status, tools ? "tools" : "messages", &error);
}

static bool encode_prompt(const api_prompt *prompt, const marco_tokenizer *tokenizer, api_ids *out,
                          api_refusal *refusal)
{
    if (!prompt->text) {
        out->ids = base_alloc_array(prompt->n, sizeof *out->ids);
        if (!out->ids)
            return api_refuse_memory(refusal);
        memcpy(out->ids, prompt->ids, prompt->n * sizeof *out->ids);
        out->n = prompt->n;
        return true;
    }
    marco_error error = {0};
    marco_status status =
        marco_tokenizer_encode(tokenizer, prompt->text, prompt->size,
                               MARCO_ENCODE_SPECIAL | MARCO_ENCODE_BOS, &out->ids, &out->n, &error);
    if (status)
        return refuse_chat(refusal, status, "prompt", &error);
    if (out->n == 0)
        return api_refuse(refusal, "prompt", "invalid_value",
                          "\"prompt\" is empty: there is nothing to continue");
    int32_t bos = marco_tokenizer_bos(tokenizer);
    if (bos >= 0 && out->ids[0] == bos) {
        char *text;
        size_t size;
        if (marco_tokenizer_decode(tokenizer, &bos, 1, true, &text, &size, NULL))
            return api_refuse_memory(refusal);
        out->bos = size > prompt->size || memcmp(text, prompt->text, size) != 0;
        marco_free(text);
    }
    return true;
}

bool api_encode(const api_request *request, const marco_tokenizer *tokenizer, api_ids **out,
                size_t *n, api_refusal *refusal)
{
    bool chat = request->form != API_COMPLETION, fine = true;
    *n = chat ? 1 : request->n_prompts;
    *out = base_calloc(*n, sizeof **out);
    if (!*out)
        return api_refuse_memory(refusal);
    for (size_t i = 0; i < *n && fine; i++)
        fine = chat ? encode_chat(request, tokenizer, &(*out)[i], refusal)
                    : encode_prompt(&request->prompts[i], tokenizer, &(*out)[i], refusal);
    return fine;
}

void api_ids_free(api_ids *prompts, size_t n)
{
    for (size_t i = 0; prompts && i < n; i++)
        marco_free(prompts[i].ids);
    base_free(prompts);
}

/* ---- checks that need the model ------------------------------------------------------------ */

static bool check_prompts(const api_request *request, const serve_model *model,
                          const api_work *work, api_refusal *refusal)
{
    int32_t context = marco_scheduler_context(model->scheduler);
    int32_t n_vocab = marco_engine_info(model->engine)->n_vocab;
    const char *param = request->form == API_COMPLETION ? "prompt" : "messages";
    size_t reply = request->max_tokens < 0 ? 1 : (size_t)request->max_tokens;
    for (size_t p = 0; p < work->n_prompts; p++) {
        const api_ids *prompt = &work->prompts[p];
        if (prompt->n + reply > (size_t)context)
            return api_refuse(refusal, param, "context_length_exceeded",
                              "This model's maximum context length is %d tokens. However, you "
                              "requested %zu tokens (%zu in the %s, %zu in the completion). Please "
                              "reduce the length of the %s or completion.",
                              context, prompt->n + reply, prompt->n, param, reply, param);
        for (size_t i = 0; i < prompt->n; i++)
            if (prompt->ids[i] >= n_vocab)
                return api_refuse(refusal, param, "invalid_value",
                                  "prompt %zu: id %d at place %zu is outside the vocabulary of %d",
                                  p, prompt->ids[i], i, n_vocab);
    }
    for (size_t i = 0; i < request->n_bias; i++)
        if (request->bias[i].id >= n_vocab)
            return api_refuse(refusal, "logit_bias", "invalid_value",
                              "\"logit_bias\": id %d is outside the vocabulary of %d",
                              request->bias[i].id, n_vocab);
    return true;
}

/* ---- grammar and reasoning ----------------------------------------------------------------- */

static bool get_grammar(const api_request *request, api_work *out, api_refusal *refusal)
{
    const char *param = "response_format", *text = NULL, *tool = NULL;
    serve_grammar_kind kind = SERVE_GRAMMAR_OBJECT;
    marco_error error = {0};
    if (request->tool_choice == API_TOOL_REQUIRED || request->tool_choice == API_TOOL_NAMED) {
        param = "tools";
        kind = request->parallel ? SERVE_GRAMMAR_TOOLS : SERVE_GRAMMAR_TOOL;
        text = request->tools;
        tool = request->tool_name;
    } else if (request->format == API_FORMAT_SCHEMA) {
        kind = SERVE_GRAMMAR_SCHEMA;
        text = request->schema;
    }
    if (!api_work_needs_grammar(request))
        return true;
    if (request->n_stop > 0) {
        const char *stop = request->form == API_MESSAGES ? "stop_sequences" : "stop";
        return api_refuse(refusal, stop, "unsupported_value",
                          "\"%s\" and a reply of a given form (a response_format, a tool that must "
                          "be called) exclude each other: a stop could cut it in the middle",
                          stop);
    }
    marco_status status =
        serve_grammars_get(out->grammars, kind, text, tool, &out->grammar, &error);
    return !status || refuse_chat(refusal, status, param, &error);
}

bool api_work_needs_grammar(const api_request *request)
{
    return request->tool_choice == API_TOOL_REQUIRED || request->tool_choice == API_TOOL_NAMED ||
           request->format == API_FORMAT_SCHEMA || request->format == API_FORMAT_OBJECT;
}

static api_reasoning find_reasoning(const api_request *request, const marco_tokenizer *tokenizer,
                                    const api_work *work)
{
    const char *name = marco_tokenizer_chat_template(tokenizer);
    if (!name || request->form == API_COMPLETION || work->grammar)
        return API_REASONING_NONE;
    if (strcmp(name, "qwen3-thinking-2507") == 0)
        return API_REASONING_BEGUN;
    if (strcmp(name, "qwen3") == 0 && request->enable_thinking != 0)
        return API_REASONING_MAY;
    return API_REASONING_NONE;
}

/* ---- parameters ---------------------------------------------------------------------------- */

static uint64_t random_seed(void)
{
    uint64_t seed = 0;
    /* Eight bytes come whole or, where the system has no such call, not at all. */
    ssize_t got = getrandom(&seed, sizeof seed, 0);
    (void)got;
    return seed;
}

static bool fill_params(const api_request *request, const serve_model *model, api_work *out,
                        api_refusal *refusal)
{
    out->n = out->n_prompts * (size_t)request->n;
    out->params = base_calloc(out->n, sizeof *out->params);
    if (!out->params)
        return api_refuse_memory(refusal);
    marco_request_params params = marco_request_params_default(model->engine);
    params.sampling = api_request_sampling(request, params.sampling);
    params.max_tokens = request->max_tokens;
    params.stop = request->stop;
    params.n_stop = request->n_stop;
    params.ignore_eos = request->ignore_eos;
    params.scores = request->logprobs;
    params.prompt_scores = request->logprobs && request->echo;
    params.n_top = request->n_top;
    params.grammar = out->grammar;
    for (size_t i = 0; i < out->n; i++) {
        const api_ids *prompt = &out->prompts[i / (size_t)request->n];
        params.prompt = prompt->ids;
        params.n_prompt = prompt->n;
        params.sampling.seed =
            request->seeded ? request->seed + i % (size_t)request->n : random_seed();
        out->params[i] = params;
    }
    return true;
}

/* Scores of prompts are some 25 bytes each, all held until the answer goes out. */
static bool check_scores(const api_request *request, const api_work *work, api_refusal *refusal)
{
    size_t tokens = 0, each = (size_t)request->n_top + 1;
    if (!request->logprobs || !request->echo)
        return true;
    for (size_t p = 0; p < work->n_prompts; p++)
        tokens += work->prompts[p].n;
    size_t most = API_MAX_SCORES / each / (size_t)request->n;
    return tokens <= most ||
           api_refuse(refusal, "logprobs", "invalid_value",
                      "the scores of %zu prompt tokens are asked for, %zu each and %d times: at "
                      "most %d in all are allowed; send fewer prompts at once",
                      tokens, each, request->n, API_MAX_SCORES);
}

bool api_work_prepare(const api_request *request, const serve_model *model, api_work *out,
                      api_refusal *refusal)
{
    const marco_tokenizer *tokenizer = marco_engine_tokenizer(model->engine);
    *out = (api_work){.grammars = model->grammars};
    if (!api_encode(request, tokenizer, &out->prompts, &out->n_prompts, refusal) ||
        !check_prompts(request, model, out, refusal) || !check_scores(request, out, refusal) ||
        !get_grammar(request, out, refusal))
        return false;
    out->reasoning = find_reasoning(request, tokenizer, out);
    return fill_params(request, model, out, refusal);
}

void api_work_slim(api_work *work)
{
    api_ids_free(work->prompts, work->n_prompts);
    base_free(work->params);
    work->prompts = NULL;
    work->params = NULL;
    work->n_prompts = 0;
}

void api_work_free(api_work *work)
{
    api_work_slim(work);
    serve_grammars_release(work->grammars, work->grammar);
    *work = (api_work){0};
}
