/* Bodies as clients could send them: a byte that picks the form, the body. What is taken keeps the
 * bounds that the rest relies on; what is refused says why, in UTF-8. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "serve/api_request.h"

static void check_valid_json(const char *text)
{
    json_t *value = text ? json_loads(text, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL) : NULL;
    if (text && !json_is_array(value))
        abort();
    json_decref(value);
}

static void check_taken(const api_request *r)
{
    marco_sampling s = api_request_sampling(r, (marco_sampling){.top_p = 1});
    if (!(s.temperature >= 0 && s.temperature <= 2) || !(s.top_p > 0 && s.top_p <= 1) ||
        !(s.min_p >= 0 && s.min_p < 1) || s.top_k < 0)
        abort();
    if (r->n < 1 || r->n > API_MAX_N || r->max_tokens < -1 || r->n_stop > API_MAX_STOP ||
        r->n_top < 0 || r->n_top > API_MAX_TOP)
        abort();
    if (r->form == API_COMPLETION ? !r->n_prompts : !r->messages)
        abort();
    if ((r->tool_choice == API_TOOL_NONE) != (r->tools == NULL) ||
        (r->tool_choice == API_TOOL_NAMED && !r->tool_name))
        abort();
    check_valid_json(r->messages);
    check_valid_json(r->tools);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    api_request request;
    api_refusal refusal;
    /* A copy of just that size, so that a read past its end is seen. */
    char *body = base_alloc(size);
    if (!body)
        return 0;
    memcpy(body, data + 1, size - 1);
    if (api_request_parse((api_form)(data[0] % 4), body, size - 1, &request, &refusal))
        check_taken(&request);
    else if (refusal.status != 400 || !refusal.message[0] ||
             base_utf8_check(refusal.message, strlen(refusal.message)) != strlen(refusal.message) ||
             base_utf8_check(refusal.param, strlen(refusal.param)) != strlen(refusal.param))
        abort();
    api_request_free(&request);
    base_free(body);
    return 0;
}
