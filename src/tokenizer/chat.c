#include "tokenizer/chat.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "tokenizer/tokenizer.h"

marco_chat_params marco_chat_params_default(void)
{
    return (marco_chat_params){.add_generation_prompt = true, .enable_thinking = -1};
}

/* One that was set stands before the checkpoint's own. */
static const tok_chat_template *template_in_use(const marco_tokenizer *tokenizer)
{
    int kind = tokenizer->chat_kind;
    return tok_chat_template_of(kind ? kind : tok_chat_recognise(tokenizer->spec->chat_template));
}

const char *marco_tokenizer_chat_template(const marco_tokenizer *tokenizer)
{
    const tok_chat_template *form = template_in_use(tokenizer);
    return form ? form->name : NULL;
}

/* `what` is wrong; here are the names to choose from. */
static marco_status fail_unknown(marco_status code, const char *what, const char *which,
                                 marco_error *error)
{
    base_text names = {0};
    tok_chat_names(&names);
    marco_status status =
        base_fail(error, code, "%.300s %s: choose one with --chat-template NAME (%s)", what, which,
                  names.data && !names.failed ? names.data : "qwen3, qwen2.5, ...");
    base_text_free(&names);
    return status;
}

marco_status marco_tokenizer_set_chat_template(marco_tokenizer *tokenizer, const char *name_or_text,
                                               marco_error *error)
{
    int kind = tok_chat_find(name_or_text);
    if (!kind)
        kind = tok_chat_recognise(name_or_text);
    if (!kind) {
        bool is_text = strpbrk(name_or_text, "{\n") != NULL;
        return fail_unknown(
            MARCO_ERROR_UNSUPPORTED, is_text ? "this chat template's text" : name_or_text,
            is_text ? "is not one of the known" : "is no known chat template", error);
    }
    tokenizer->chat_kind = kind;
    return MARCO_OK;
}

/* The chat as text with its runs; tok_chat_out_free in every case. */
static marco_status render(const marco_tokenizer *tokenizer, const marco_chat_params *params,
                           tok_chat_out *out, marco_error *error)
{
    const tok_chat_template *form = template_in_use(tokenizer);
    if (!form) {
        const char *source = tokenizer->spec->source;
        bool unknown = tokenizer->spec->chat_template != NULL;
        return fail_unknown(unknown ? MARCO_ERROR_UNSUPPORTED : MARCO_ERROR_NOT_FOUND,
                            source ? source : "this tokenizer",
                            unknown ? "has a chat template that is not one of the known"
                                    : "has no chat template",
                            error);
    }
    if (!params->messages)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "there are no messages to render");
    if (params->enable_thinking < -1 || params->enable_thinking > 1)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "enable_thinking is %d: -1 (unset), 0 and 1 are allowed",
                         params->enable_thinking);
    tok_chat chat;
    marco_status status = tok_chat_parse(form, params, &chat, error);
    if (!status)
        status = tok_chat_render(form, &chat, params, out, error);
    tok_chat_free(&chat);
    return status;
}

marco_status marco_chat_render(const marco_tokenizer *tokenizer, const marco_chat_params *params,
                               char **text, size_t *size, marco_error *error)
{
    tok_chat_out out = {0};
    *text = NULL;
    marco_status status = render(tokenizer, params, &out, error);
    if (!status) {
        *text = base_text_take(&out.text, size);
        if (!*text)
            status = base_fail_memory(error, 1, "the text of a chat");
    }
    tok_chat_out_free(&out);
    return status;
}

marco_status marco_chat_encode(const marco_tokenizer *tokenizer, const marco_chat_params *params,
                               int32_t **ids, size_t *n, marco_error *error)
{
    tok_chat_out out = {0};
    tok_ids found = {0};
    tok_segment *segments = NULL;
    *ids = NULL;
    *n = 0;
    marco_status status = render(tokenizer, params, &out, error);
    if (status)
        goto done;
    segments = base_alloc_array(out.n_runs, sizeof *segments);
    if (!segments) {
        status = base_fail_memory(error, out.n_runs * sizeof *segments, "the parts of a chat");
        goto done;
    }
    for (size_t i = 0, start = 0; i < out.n_runs; start = out.runs[i++].end)
        segments[i] = (tok_segment){.text = out.text.data + start,
                                    .size = out.runs[i].end - start,
                                    .trusted = out.runs[i].trusted};
    status = tok_encode_segments(tokenizer, segments, out.n_runs, 0, &found, error);
    if (status) {
        base_free(found.items);
    } else {
        *ids = found.items;
        *n = found.n;
    }
done:
    base_free(segments);
    tok_chat_out_free(&out);
    return status;
}
