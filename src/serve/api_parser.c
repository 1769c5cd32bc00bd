#include "serve/api_parser.h"

#include <jansson.h>
#include <string.h>

#include "base/memory.h"
#include "base/text.h"

#define THINK     "<think>"
#define THINK_END "</think>"
#define CALL      "<tool_call>"
#define CALL_END  "</tool_call>"
#define LENGTH(s) (sizeof(s) - 1)

typedef enum place {
    AT_START, /* <think> may follow */
    IN_REASONING,
    AFTER_TAG, /* newlines that belong to a tag may follow */
    IN_TEXT,
    IN_CALL,
    AFTER_CALL, /* space that stands between calls may follow */
} place;

struct api_parser {
    place place;
    bool tools;
    bool fresh; /* no reasoning has been handed on: newlines at its beginning belong to <think> */
    api_parser_events events;
    base_text held; /* what cannot be told yet; a call from the space before its tag on */
    size_t json;    /* of a call: where that begins, */
    size_t scanned; /* how far it has been looked at, */
    bool quoted;    /* and whether a string is open there */
};

api_parser *api_parser_create(api_reasoning reasoning, bool tools, const api_parser_events *events)
{
    api_parser *p = base_calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->place = reasoning == API_REASONING_NONE  ? IN_TEXT
               : reasoning == API_REASONING_MAY ? AT_START
                                                : IN_REASONING;
    p->fresh = true;
    p->tools = tools;
    p->events = *events;
    return p;
}

void api_parser_free(api_parser *parser)
{
    if (!parser)
        return;
    base_text_free(&parser->held);
    base_free(parser);
}

/* ---- what is held -------------------------------------------------------------------------- */

static void drop(api_parser *p, size_t n)
{
    memmove(p->held.data, p->held.data + n, p->held.size - n);
    p->held.size -= n;
    p->held.data[p->held.size] = '\0';
}

/* Hands on the first n bytes. */
static void give(api_parser *p, size_t n, bool reasoning)
{
    if (n == 0)
        return;
    if (reasoning)
        p->events.on_reasoning(p->events.user, p->held.data, n);
    else
        p->events.on_text(p->events.user, p->held.data, n);
    drop(p, n);
}

/* Where `tag` begins in the text, or the end of the text that may become it begins: text.size where
 * neither is there. *whole: it is all there. */
static size_t find_tag(const base_text *text, const char *tag, bool *whole)
{
    const char *at = memmem(text->data, text->size, tag, strlen(tag));
    *whole = at != NULL;
    if (at)
        return (size_t)(at - text->data);
    size_t most = strlen(tag) - 1 < text->size ? strlen(tag) - 1 : text->size;
    for (size_t n = most; n > 0; n--)
        if (memcmp(text->data + text->size - n, tag, n) == 0)
            return text->size - n;
    return text->size;
}

static size_t newlines_before(const base_text *text, size_t at)
{
    size_t n = 0;
    while (n < at && text->data[at - n - 1] == '\n')
        n++;
    return n;
}

/* ---- calls --------------------------------------------------------------------------------- */

/* The end of the JSON value (of a text known to be JSON) that begins at `at`. */
static size_t value_end(const char *text, size_t size, size_t at)
{
    size_t depth = 0;
    bool quoted = false;
    for (; at < size; at++) {
        char c = text[at];
        if (quoted) {
            at += c == '\\';
            quoted = c != '"';
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (--depth == 0)
                return at + 1;
        }
    }
    return size;
}

/* The text of "arguments", an object that the outermost object has: as the model wrote it, so that
 * a template which puts it back gives the tokens that were there. NULL where its key is written
 * with escapes. */
static const char *arguments_text(const char *text, size_t size, size_t *n)
{
    static const char key[] = "\"arguments\"";
    size_t depth = 0;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            depth--;
        } else if (c == '"') {
            bool found =
                depth == 1 && size - i > LENGTH(key) && memcmp(text + i, key, LENGTH(key)) == 0;
            for (i++; text[i] != '"'; i++)
                i += text[i] == '\\';
            size_t at = i + 1 + strspn(text + i + 1, " \t\r\n");
            if (!found || text[at] != ':')
                continue;
            at += 1 + strspn(text + at + 1, " \t\r\n");
            *n = value_end(text, size, at) - at;
            return text + at;
        }
    }
    return NULL;
}

/* Tells of the call whose JSON this is. False where it is none. */
static bool give_call(const api_parser *p, const char *text, size_t size)
{
    json_t *call = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    bool exact = call != NULL;
    if (!exact) /* perhaps an integer beyond 64 bits, which goes out as it is written */
        call = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, NULL);
    const json_t *name = json_object_get(call, "name");
    json_t *arguments = json_object_get(call, "arguments");
    bool fine = json_object_size(call) == 2 && json_string_length(name) > 0 &&
                strlen(json_string_value(name)) == json_string_length(name) &&
                json_is_object(arguments);
    if (fine) {
        size_t n;
        char *written = NULL;
        const char *at = arguments_text(text, size, &n);
        if (!at && exact) {
            at = written = json_dumps(arguments, 0);
            n = at ? strlen(at) : 0;
        }
        fine = at != NULL;
        if (fine)
            p->events.on_call(p->events.user, json_string_value(name), at, n);
        if (written) {
            json_free_t release;
            json_get_alloc_funcs(NULL, &release);
            release(written);
        }
    }
    json_decref(call);
    return fine;
}

/* A call whose tag ends at held[json). */
static void begin_call(api_parser *p, size_t json)
{
    p->place = IN_CALL;
    p->json = p->scanned = json;
    p->quoted = false;
}

/* Looks for the end of a call. True where the place has changed. */
static bool step_call(api_parser *p, bool end)
{
    base_text *held = &p->held;
    for (size_t i = p->scanned; i < held->size; i++) {
        char c = held->data[i];
        size_t left = held->size - i;
        p->scanned = i;
        if (p->quoted) {
            if (c == '\\' && left < 2)
                break;
            i += c == '\\';
            p->quoted = c != '"';
        } else if (c == '"') {
            p->quoted = true;
        } else if (c == '<') {
            size_t n = left < LENGTH(CALL_END) ? left : LENGTH(CALL_END);
            if (memcmp(held->data + i, CALL_END, n) != 0)
                continue;
            if (n < LENGTH(CALL_END))
                break;
            size_t whole = i + n;
            bool called = give_call(p, held->data + p->json, i - p->json);
            if (called)
                drop(p, whole);
            else
                give(p, whole, false);
            p->place = called ? AFTER_CALL : IN_TEXT;
            return true;
        }
        p->scanned = i + 1;
    }
    if (!end)
        return false;
    /* A call whose last tag is missing is one all the same. */
    if (give_call(p, held->data + p->json, held->size - p->json))
        drop(p, held->size);
    else
        give(p, held->size, false);
    p->place = IN_TEXT;
    return true;
}

/* ---- text ---------------------------------------------------------------------------------- */

/* Hands on text up to a call. A newline before its tag belongs to the tag. */
static bool step_text(api_parser *p, bool end)
{
    base_text *held = &p->held;
    bool whole = false;
    size_t at = p->tools ? find_tag(held, CALL, &whole) : held->size;
    if (whole) {
        size_t newline = newlines_before(held, at) > 0;
        give(p, at - newline, false);
        begin_call(p, newline + LENGTH(CALL));
        return true;
    }
    if (end || !p->tools)
        at = held->size;
    else
        at -= newlines_before(held, at) > 0;
    give(p, at, false);
    return false;
}

static bool step_reasoning(api_parser *p, bool end)
{
    base_text *held = &p->held;
    if (p->fresh) {
        drop(p, strspn(held->data, "\n"));
        if (held->size == 0)
            return false;
    }
    bool whole;
    size_t at = find_tag(held, THINK_END, &whole);
    if (end && !whole)
        at = held->size;
    size_t newlines = newlines_before(held, at);
    p->fresh = p->fresh && at == newlines;
    give(p, at - newlines, true);
    if (!whole)
        return false;
    drop(p, newlines + LENGTH(THINK_END));
    p->place = AFTER_TAG;
    return true;
}

static bool step_start(api_parser *p, bool end)
{
    base_text *held = &p->held;
    size_t space = strspn(held->data, "\n");
    size_t left = held->size - space, n = left < LENGTH(THINK) ? left : LENGTH(THINK);
    bool fits = memcmp(held->data + space, THINK, n) == 0;
    if (fits && n == LENGTH(THINK)) {
        drop(p, space + n);
        p->place = IN_REASONING;
        return true;
    }
    if (fits && !end)
        return false;
    p->place = IN_TEXT;
    return true;
}

/* Hands on all of what is held that can be told. */
static void advance(api_parser *p, bool end)
{
    bool again = true;
    while (again && p->held.size > 0) {
        size_t space;
        switch (p->place) {
        case AT_START:
            again = step_start(p, end);
            break;
        case IN_REASONING:
            again = step_reasoning(p, end);
            break;
        case AFTER_TAG:
            drop(p, strspn(p->held.data, "\n"));
            again = p->held.size > 0;
            if (again)
                p->place = IN_TEXT;
            break;
        case IN_TEXT:
            again = step_text(p, end);
            break;
        case IN_CALL:
            again = step_call(p, end);
            break;
        case AFTER_CALL:
            space = strspn(p->held.data, " \t\r\n");
            again = space < p->held.size;
            if (again) {
                bool whole;
                /* Space before something else than a call belongs to it. */
                size_t at = find_tag(&p->held, CALL, &whole);
                again = whole || at != space || end;
                if (at == space && whole)
                    begin_call(p, space + LENGTH(CALL));
                else if (again)
                    p->place = IN_TEXT;
            } else if (end) {
                drop(p, space);
            }
            break;
        }
    }
}

bool api_parser_add(api_parser *parser, const char *text, size_t size)
{
    base_text_add_n(&parser->held, text, size);
    if (parser->held.failed)
        return false;
    if (size > 0)
        advance(parser, false);
    return true;
}

bool api_parser_end(api_parser *parser)
{
    if (parser->held.failed)
        return false;
    advance(parser, true);
    return true;
}
