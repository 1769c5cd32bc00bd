/* Replies to be taken apart: a byte for the options and the size of the pieces, the reply. In
 * pieces and at once it must come to the same; nothing but tags, newlines and space is lost. */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "serve/api_parser.h"

typedef struct seen {
    base_text text, reasoning, calls;
} seen;

static void on_text(void *user, const char *text, size_t size)
{
    seen *s = user;
    if (size == 0)
        abort();
    base_text_add_n(&s->text, text, size);
}

static void on_reasoning(void *user, const char *text, size_t size)
{
    seen *s = user;
    if (size == 0)
        abort();
    base_text_add_n(&s->reasoning, text, size);
}

static void on_call(void *user, const char *name, const char *arguments, size_t size)
{
    seen *s = user;
    /* Integers may be longer than jansson counts: they go out as they are written. */
    json_t *value = json_loadb(arguments, size, JSON_DECODE_INT_AS_REAL, NULL);
    if (!name[0] || !json_is_object(value))
        abort();
    json_decref(value);
    base_text_printf(&s->calls, "%s|", name);
    base_text_add_n(&s->calls, arguments, size);
    base_text_add_char(&s->calls, '\n');
}

static seen take_apart(api_reasoning reasoning, bool tools, const char *reply, size_t size,
                       size_t step)
{
    seen s = {0};
    const api_parser_events events = {&s, on_text, on_reasoning, on_call};
    api_parser *parser = api_parser_create(reasoning, tools, &events);
    if (!parser)
        abort();
    for (size_t at = 0; at < size; at += step)
        api_parser_add(parser, reply + at, size - at < step ? size - at : step);
    api_parser_end(parser);
    api_parser_free(parser);
    return s;
}

static void compare(const base_text *a, const base_text *b)
{
    if (a->size != b->size || (a->size && memcmp(a->data, b->data, a->size) != 0))
        abort();
}

static void seen_free(seen *s)
{
    base_text_free(&s->text);
    base_text_free(&s->reasoning);
    base_text_free(&s->calls);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    const char *reply = (const char *)data + 1;
    size_t n = size - 1, step = 1 + data[0] / 6;
    api_reasoning reasoning = (api_reasoning)(data[0] % 3);
    bool tools = data[0] / 3 % 2 == 0;
    seen whole = take_apart(reasoning, tools, reply, n, n + 1);
    seen pieces = take_apart(reasoning, tools, reply, n, step);
    compare(&whole.text, &pieces.text);
    compare(&whole.reasoning, &pieces.reasoning);
    compare(&whole.calls, &pieces.calls);
    if (reasoning == API_REASONING_NONE && !whole.calls.size &&
        (whole.text.size != n || (n && memcmp(whole.text.data, reply, n) != 0)))
        abort();
    seen_free(&whole);
    seen_free(&pieces);
    return 0;
}
