/* From a checked request and a model to what the scheduler takes. */
#ifndef SERVE_API_WORK_H
#define SERVE_API_WORK_H

#include "serve/api_parser.h"
#include "serve/api_request.h"
#include "serve/serve.h"

typedef struct api_ids {
    int32_t *ids; /* [n] */
    size_t n;
    bool bos; /* the first was put before a text, and is not part of it */
} api_ids;

typedef struct api_work {
    api_ids *prompts; /* [n_prompts] */
    size_t n_prompts;
    serve_grammars *grammars;     /* the model's, */
    const marco_grammar *grammar; /* which hold this: it must live as long as the requests */
    marco_request_params
        *params; /* [n]: reply i of prompt p is p * request.n + i; events to be set */
    size_t n;
    api_reasoning reasoning;
} api_work;

/* Are replies to be in a form that is compiled first? */
bool api_work_needs_grammar(const api_request *request);

/* api_work_free in every case. */
bool api_work_prepare(const api_request *request, const serve_model *model, api_work *out,
                      api_refusal *refusal);
void api_work_free(api_work *work);

/* Releases what the scheduler has taken a copy of. */
void api_work_slim(api_work *work);

/* The ids of the request's prompts, or of its chat; *out is [*n], to be freed with api_ids_free. */
bool api_encode(const api_request *request, const marco_tokenizer *tokenizer, api_ids **out,
                size_t *n, api_refusal *refusal);
void api_ids_free(api_ids *prompts, size_t n);

/* A library's refusal as the client's. */
bool api_refuse_status(api_refusal *refusal, marco_status status, const char *param,
                       const marco_error *error);

#endif
