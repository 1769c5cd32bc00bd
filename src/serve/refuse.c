#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "format/json.h"
#include "serve/serve.h"

int serve_http_status(marco_status status)
{
    switch (status) {
    case MARCO_OK:
        return 200;
    case MARCO_ERROR_BUSY:
        return 429;
    case MARCO_ERROR_ARGUMENT:
    case MARCO_ERROR_CONTEXT:
    case MARCO_ERROR_UNSUPPORTED:
        return 400;
    case MARCO_ERROR_NOT_FOUND:
        return 404;
    case MARCO_ERROR_MEMORY:
        return 503;
    default:
        return 500;
    }
}

typedef struct refusal_kind {
    int status;
    const char *openai, *anthropic;
} refusal_kind;

static const refusal_kind kinds[] = {
    {401, "authentication_error", "authentication_error"},
    {403, "permission_error", "permission_error"},
    {404, "invalid_request_error", "not_found_error"},
    {413, "invalid_request_error", "request_too_large"},
    {429, "rate_limit_error", "rate_limit_error"},
    {503, "server_error", "overloaded_error"},
};

static refusal_kind kind_of(int status)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (kinds[i].status == status)
            return kinds[i];
    }
    if (status < 500)
        return (refusal_kind){status, "invalid_request_error", "invalid_request_error"};
    return (refusal_kind){status, "server_error", "api_error"};
}

static void add_field(base_text *out, const char *name, const char *value)
{
    base_text_printf(out, ",\"%s\":", name);
    if (value)
        format_json_escape(out, value, strlen(value));
    else
        base_text_add(out, "null");
}

void serve_refuse(http_request *request, int status, const char *param, const char *code,
                  const char *format, ...)
{
    static const char messages_path[] = "/v1/messages";
    char message[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    base_utf8_repair(message); /* it repeats what the client sent, which may be anything */

    refusal_kind kind = kind_of(status);
    base_text body = {0};
    if (strncmp(http_path(request), messages_path, sizeof messages_path - 1) == 0) {
        base_text_printf(
            &body, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":", kind.anthropic);
        format_json_escape(&body, message, strlen(message));
        base_text_add(&body, "}}");
    } else {
        base_text_add(&body, "{\"error\":{\"message\":");
        format_json_escape(&body, message, strlen(message));
        add_field(&body, "type", kind.openai);
        add_field(&body, "param", param);
        add_field(&body, "code", code);
        base_text_add(&body, "}}");
    }
    if (status == 429 || status == 503)
        http_add_header(request, "Retry-After", "2");
    size_t size = 0;
    char *text = base_text_take(&body, &size);
    http_respond(request, status, "application/json", text ? text : "", size);
    marco_free(text);
}
