/* Messages and tools as a client of a server could send them: one byte that picks the template and
 * the options, the messages, a NUL, the tools. What renders must encode, and decode to itself. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "tokenizer/tokenizer.h"

static const char *const names[] = {
    "qwen3", "qwen3-instruct-2507", "qwen3-thinking-2507", "qwen2.5", "smollm2", "chatml"};

static marco_tokenizer *byte_tokenizer(void)
{
    tok_spec *spec;
    marco_tokenizer *tokenizer;
    if (tok_spec_bytes(&spec, NULL))
        abort();
    spec->nfc = false; /* a normalised text does not decode to itself */
    if (tok_compile(spec, &tokenizer, NULL))
        abort();
    return tokenizer;
}

static void check(const marco_tokenizer *tokenizer, const marco_chat_params *params)
{
    char *text = NULL, *decoded = NULL;
    int32_t *ids = NULL;
    size_t size, n, decoded_size;
    marco_error error;
    if (marco_chat_render(tokenizer, params, &text, &size, &error)) {
        if (error.message[0] == '\0')
            abort();
        return;
    }
    if (marco_chat_encode(tokenizer, params, &ids, &n, &error) ||
        marco_tokenizer_decode(tokenizer, ids, n, true, &decoded, &decoded_size, &error) ||
        decoded_size != size || memcmp(decoded, text, size) != 0)
        abort();
    marco_free(text);
    marco_free(ids);
    marco_free(decoded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static marco_tokenizer *tokenizer;
    if (!tokenizer)
        tokenizer = byte_tokenizer();
    if (size < 1)
        return 0;
    char *text = base_strndup((const char *)data + 1, size - 1);
    if (!text)
        return 0;
    marco_chat_params params = {.messages = text,
                                .add_generation_prompt = (data[0] & 1) != 0,
                                .enable_thinking = (data[0] >> 1) % 3 - 1};
    size_t messages = strlen(text);
    if (messages < size - 1)
        params.tools = text + messages + 1;
    const char *name = names[(data[0] >> 3) % (sizeof names / sizeof names[0])];
    if (marco_tokenizer_set_chat_template(tokenizer, name, NULL))
        abort();
    check(tokenizer, &params);
    base_free(text);
    return 0;
}
