/* A request for replies under way: from its body to the last byte of the answer. */
#ifndef SERVE_API_JOB_H
#define SERVE_API_JOB_H

#include "serve/api_request.h"
#include "serve/serve.h"

/* Reads the request's body in one of the forms and answers it, now or later. */
void api_job_start(marco_server *server, http_request *http, api_form form);

/* Calls fn(user), for a body of `size` bytes: in a thread of its own where that takes long, since
 * the HTTP layer's have other connections to serve. */
void api_run(size_t size, void *(*fn)(void *user), void *user);

/* Answers with a refusal. */
void api_answer_refusal(http_request *http, const api_refusal *refusal);

#endif
