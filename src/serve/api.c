/* The endpoints of the API, and the list of models. */
#include <string.h>
#include <time.h>

#include "format/json.h"
#include "serve/api_ask.h"
#include "serve/api_job.h"

static void chat(marco_server *server, http_request *http)
{
    api_job_start(server, http, API_CHAT);
}

static void completion(marco_server *server, http_request *http)
{
    api_job_start(server, http, API_COMPLETION);
}

static void messages(marco_server *server, http_request *http)
{
    api_job_start(server, http, API_MESSAGES);
}

/* ---- models -------------------------------------------------------------------------------- */

/* With the members that either API's clients look for. */
static void add_model(base_text *out, const char *name, int64_t created, int32_t context)
{
    char date[40] = "";
    time_t seconds = (time_t)created;
    struct tm parts;
    if (gmtime_r(&seconds, &parts))
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &parts);
    base_text_add(out, "{\"id\":");
    format_json_escape(out, name, strlen(name));
    base_text_printf(
        out, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"marco\",\"context_length\":%d",
        (long long)created, context);
    base_text_printf(out, ",\"type\":\"model\",\"created_at\":\"%s\",\"display_name\":", date);
    format_json_escape(out, name, strlen(name));
    base_text_add_char(out, '}');
}

static void answer(http_request *http, base_text *out)
{
    if (out->failed)
        serve_refuse(http, 503, NULL, NULL, "the server is out of memory: try again later");
    else
        http_respond(http, 200, "application/json", out->data, out->size);
    base_text_free(out);
}

static void list_models(marco_server *server, http_request *http)
{
    const serve_models *models = serve_server_models(server);
    base_text out = {0};
    int64_t created;
    int32_t context;
    const char *name;
    base_text_add(&out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; (name = serve_models_name(models, i, &created, &context)); i++) {
        if (i)
            base_text_add_char(&out, ',');
        add_model(&out, name, created, context);
    }
    base_text_add(&out, "],\"has_more\":false}");
    answer(http, &out);
}

static void get_model(marco_server *server, http_request *http)
{
    const serve_models *models = serve_server_models(server);
    const char *asked = http_path(http) + strlen("/v1/models/"), *name;
    base_text out = {0};
    int64_t created;
    int32_t context;
    for (size_t i = 0; (name = serve_models_name(models, i, &created, &context)); i++) {
        if (strcmp(name, asked) == 0) {
            add_model(&out, name, created, context);
            answer(http, &out);
            return;
        }
    }
    serve_refuse(http, 404, "model", "model_not_found", "there is no model \"%.200s\" here", asked);
}

const serve_route serve_api_routes[] = {
    {"POST", "/v1/chat/completions", false, chat},
    {"POST", "/v1/completions", false, completion},
    {"POST", "/v1/messages", false, messages},
    {"POST", "/v1/messages/count_tokens", false, api_count_tokens},
    {"GET", "/v1/models", false, list_models},
    {"GET", "/v1/models/", false, get_model}, /* and the name behind it */
    {"POST", "/tokenize", false, api_tokenize},
    {"POST", "/detokenize", false, api_detokenize},
    {"GET", "/tokenizer_info", false, api_tokenizer_info},
    {NULL, NULL, false, NULL},
};
