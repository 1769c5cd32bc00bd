#include <string.h>

#include "base/available.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"
#include "infer/internal.h"
#include "model/source.h"
#include "serve/server_internal.h"

/* Where the model's weights would live if it were loaded now. */
static marco_status check_model(const marco_serve_params *params, size_t i, const char *name,
                                base_text *out, marco_error *error)
{
    const marco_engine_params *engine = &params->engine;
    const char *path = params->models[i].path;
    model_source *source = NULL;
    model_plan plan;
    marco_status status = model_source_open(path, &source, error);
    if (status)
        return status;
    const model_config *config = &source->config;
    if (!source->tokenizer) {
        status = base_fail(error, MARCO_ERROR_FORMAT, "%s: the checkpoint has no tokenizer", path);
        model_source_close(source);
        return status;
    }
    int32_t n_ctx = params->scheduler.n_ctx;
    if (n_ctx > config->n_ctx_train) {
        status = base_fail(error, MARCO_ERROR_ARGUMENT,
                           "%s: a context of %d tokens is asked for, and it was made for %d", path,
                           n_ctx, config->n_ctx_train);
        model_source_close(source);
        return status;
    }
    int threads = engine->threads ? engine->threads : base_cpu_count();
    tensor_type kv = engine->kv_type == MARCO_KV_F32    ? TENSOR_F32
                     : engine->kv_type == MARCO_KV_Q8_0 ? TENSOR_Q8_0
                                                        : TENSOR_F16;
    if (!model_kv_fits(config, kv))
        kv = TENSOR_F32;
    const model_plan_request request = {.ram = engine->ram,
                                        .map = engine->mmap,
                                        .held = base_memory_resident(),
                                        .available = base_memory_available(),
                                        .session = infer_session_least(config, threads, kv)};
    status = model_plan_make(source, &request, &plan, error);
    if (!status) {
        base_text_printf(out, "model: %s%s: %s, ", name, i == 0 ? " (the default)" : "",
                         model_arch_name(config->arch));
        model_plan_describe(&plan, path, out);
        base_text_printf(out, ", context %d tokens\n", n_ctx ? n_ctx : config->n_ctx_train);
    }
    model_source_close(source);
    return status;
}

static marco_status check_models(const marco_serve_params *params, base_text *out,
                                 marco_error *error)
{
    char **names = NULL;
    marco_status status = serve_names(params, &names, error);
    for (size_t i = 0; !status && i < params->n_models; i++)
        status = check_model(params, i, names[i], out, error);
    serve_names_free(names, params->n_models);
    return status;
}

static void nothing(void *user, http_request *request)
{
    (void)user;
    http_respond_static(request, 503, NULL, "", 0);
}

static void refused(void *user, http_request *request, int status)
{
    (void)user;
    http_respond_static(request, status, NULL, "", 0);
}

static void done(void *user, const http_request *request)
{
    (void)user, (void)request;
}

/* Takes the port for a moment. */
static marco_status check_address(const marco_serve_params *params, base_text *out,
                                  marco_error *error)
{
    char *cert = NULL, *key = NULL;
    http_params http = serve_http_params(params);
    http_server *server = NULL;
    marco_status status = serve_tls_read(params, &cert, &key, error);
    http.cert = cert;
    http.key = key;
    http.on_request = nothing;
    http.on_refused = refused;
    http.on_done = done;
    if (!status)
        status = http_server_create(&http, &server, error);
    if (!status)
        status = http_server_start(server, error);
    if (!status)
        base_text_printf(out, "address: %s port %u%s%s\n", params->host, http_server_port(server),
                         cert ? ", with TLS" : "",
                         serve_is_loopback(params->host) ? ", from this machine only" : "");
    http_server_close(server);
    base_free(cert);
    base_free(key);
    return status;
}

static marco_status check_keys(const marco_serve_params *params, base_text *out, marco_error *error)
{
    serve_keys *keys = NULL;
    if (!params->api_key_file) {
        base_text_add(out, "keys: none is asked for\n");
        return MARCO_OK;
    }
    marco_status status = serve_keys_load(params->api_key_file, &keys, error);
    if (!status)
        base_text_printf(out, "keys: %zu, in %s\n", serve_keys_count(keys), params->api_key_file);
    serve_keys_free(keys);
    return status;
}

marco_status marco_serve_check(const marco_serve_params *params, char **report, marco_error *error)
{
    base_text out = {0};
    size_t size = 0;
    *report = NULL;
    marco_serve_params given = *params;
    given.host = given.host ? given.host : "127.0.0.1";
    marco_status status = serve_params_check(&given, error);
    if (!status)
        status = check_models(&given, &out, error);
    if (!status)
        status = check_keys(&given, &out, error);
    if (!status)
        status = check_address(&given, &out, error);
    if (status) {
        base_text_free(&out);
        return status;
    }
    *report = base_text_take(&out, &size);
    return *report ? MARCO_OK : base_fail_memory(error, 1024, "the report");
}
