#include <string.h>

#include "tokenizer/chat.h"

#define QWEN   "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
#define SMOLLM "You are a helpful AI assistant named SmolLM, trained by Hugging Face"

/* A kind is an index into this table plus 1. */
static const tok_chat_template templates[] = {
    {.name = "qwen3",
     .reply = "",
     .tools = true,
     .qwen3_calls = true,
     .reasoning = true,
     .switchable = true},
    {.name = "qwen3-instruct-2507", .reply = "", .tools = true, .qwen3_calls = true},
    {.name = "qwen3-thinking-2507",
     .reply = "<think>\n",
     .tools = true,
     .qwen3_calls = true,
     .reasoning = true},
    {.name = "qwen2.5", .system = QWEN, .reply = "", .tools = true},
    {.name = "qwen2.5-braces", .system = QWEN, .reply = "", .tools = true, .double_braces = true},
    {.name = "qwen2.5-base", .system = "You are a helpful assistant.", .reply = "", .tools = true},
    {.name = "qwen2", .system = "You are a helpful assistant.", .reply = ""},
    {.name = "smollm2", .system = SMOLLM, .reply = ""},
    {.name = "chatml", .reply = ""},
};

enum { N_TEMPLATES = sizeof templates / sizeof templates[0] };

/* The texts these templates are published as, by length and FNV-1a hash. They stand in
 * tests/vectors/chats/, whose make_chats.py prints this table. A text made to collide would gain
 * nothing: it is only ever rendered as the template it poses as. */
static const struct {
    const char *name;
    size_t size;
    uint64_t hash;
} texts[] = {
    {"qwen3", 4168, 0x959a4551391a6549u},
    {"qwen3", 4116, 0x2bfdb7aa9754484eu},
    {"qwen3-instruct-2507", 2630, 0x3751fe8ea48448abu},
    {"qwen3-thinking-2507", 4049, 0xcd0d41a64dfce181u},
    {"qwen2.5", 2506, 0xe642ce246d7f2e3du},
    {"qwen2.5-braces", 2508, 0xadaa2a0bbac0305fu},
    {"qwen2.5-base", 2426, 0x16bc91fc7006a16du},
    {"qwen2", 328, 0x8a87094e0e1e24c5u},
    {"qwen2", 333, 0x75e88977b2787cd7u},
    {"smollm2", 368, 0x45ec583d4d25bc3au},
    {"smollm2", 373, 0x09b5156a5cf6abfcu},
    {"chatml", 196, 0x88bf4138d5c826f0u},
    {"chatml", 199, 0xa41d6bae9b9141bcu},
    {"chatml", 291, 0x773d13e188afc917u},
};

/* Length and hash of the text as Jinja sees it: CRLF and CR are LF, one newline at the end is not
 * there. */
static size_t digest(const char *text, uint64_t *hash)
{
    size_t size = 0;
    uint64_t h = 0xcbf29ce484222325u, before_last = h;
    bool newline = false;
    for (const char *p = text; *p; p++) {
        char c = *p;
        if (c == '\r') {
            c = '\n';
            if (p[1] == '\n')
                p++;
        }
        before_last = h;
        h = (h ^ (unsigned char)c) * 0x100000001b3u;
        newline = c == '\n';
        size++;
    }
    *hash = newline ? before_last : h;
    return newline ? size - 1 : size;
}

int tok_chat_recognise(const char *text)
{
    if (!text)
        return 0;
    uint64_t hash;
    size_t size = digest(text, &hash);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (texts[i].size == size && texts[i].hash == hash)
            return tok_chat_find(texts[i].name);
    return 0;
}

int tok_chat_find(const char *name)
{
    for (int i = 0; i < N_TEMPLATES; i++)
        if (strcmp(templates[i].name, name) == 0)
            return i + 1;
    return 0;
}

const tok_chat_template *tok_chat_template_of(int kind)
{
    return kind >= 1 && kind <= N_TEMPLATES ? &templates[kind - 1] : NULL;
}

void tok_chat_names(base_text *out)
{
    for (int i = 0; i < N_TEMPLATES; i++)
        base_text_printf(out, "%s%s", i ? ", " : "", templates[i].name);
}
