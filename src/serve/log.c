#include <stdio.h>
#include <string.h>
#include <time.h>

#include "format/json.h"
#include "serve/server_internal.h"

static void begin(base_text *line)
{
    struct timespec now;
    struct tm utc;
    char time[32];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%S", &utc);
    base_text_printf(line, "{\"time\":\"%s.%03ldZ\"", time, now.tv_nsec / 1000000);
}

/* What clients send need not be text: other bytes become U+FFFD, controls of any kind escapes. */
static void add_text(base_text *line, const char *name, const char *value)
{
    size_t size = strlen(value);
    base_text_printf(line, ",\"%s\":\"", name);
    for (size_t at = 0; at < size;) {
        uint32_t cp = 0;
        size_t n = base_utf8_decode(value + at, size - at, &cp);
        if (n == 0)
            base_text_add(line, "\\ufffd");
        else if (cp < 0x20 || (cp >= 0x7F && cp < 0xA0) || cp == 0x2028 || cp == 0x2029)
            base_text_printf(line, "\\u%04x", (unsigned)cp);
        else if (cp == '"' || cp == '\\')
            base_text_printf(line, "\\%c", (char)cp);
        else
            base_text_add_n(line, value + at, n);
        at += n ? n : 1;
    }
    base_text_add(line, "\"");
}

static void give(marco_server *server, base_text *line)
{
    base_text_add(line, "}");
    size_t size = 0;
    char *text = base_text_take(line, &size);
    if (text) {
        pthread_mutex_lock(&server->log_lock);
        server->params.log(server->params.log_user, text);
        pthread_mutex_unlock(&server->log_lock);
    }
    marco_free(text);
}

void serve_log_request(marco_server *server, const http_request *request)
{
    const serve_info *info = http_user(request);
    base_text line = {0};
    if (!server->params.log)
        return;
    begin(&line);
    base_text_printf(&line, ",\"id\":%llu", (unsigned long long)http_id(request));
    add_text(&line, "peer", http_peer(request));
    if (info && info->key[0])
        add_text(&line, "key", info->key);
    add_text(&line, "method", http_method(request));
    add_text(&line, "path", http_path(request));
    base_text_printf(&line, ",\"status\":%d,\"ms\":%.1f,\"bytes\":%llu", http_status(request),
                     1e3 * http_age(request), (unsigned long long)http_bytes_sent(request));
    if (info && info->model[0]) {
        add_text(&line, "model", info->model);
        base_text_printf(&line, ",\"prompt_tokens\":%zu,\"cached_tokens\":%zu,\"reply_tokens\":%zu",
                         info->n_prompt, info->n_cached, info->n_reply);
    }
    if (info && info->finish[0])
        add_text(&line, "finish", info->finish);
    give(server, &line);
}

void serve_log_event(marco_server *server, const char *event, const char *model, double seconds,
                     const char *message)
{
    base_text line = {0};
    if (!server->params.log)
        return;
    begin(&line);
    add_text(&line, "event", event);
    if (model)
        add_text(&line, "model", model);
    if (seconds >= 0)
        base_text_printf(&line, ",\"seconds\":%.3f", seconds);
    if (message)
        add_text(&line, "message", message);
    give(server, &line);
}
