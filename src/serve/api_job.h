/* A request for replies under way: from its body to the last byte of the answer. */
#ifndef SERVE_API_JOB_H
#define SERVE_API_JOB_H

#include "serve/api_request.h"
#include "serve/serve.h"

/* Reads the request's body in one of the forms and answers it, now or later. */
void api_job_start(marco_server *server, http_request *http, api_form form);

/* Is a body of `size` bytes for the heavy lane (heavy.h)? And what to say where that is full, or
 * closing. */
bool api_is_long(size_t size);
void api_refuse_crowded(api_refusal *refusal);
void api_refuse_stopped(api_refusal *refusal);

/* Answers with a refusal. */
void api_answer_refusal(http_request *http, const api_refusal *refusal);

#endif
