/* Small questions that a model answers at once: how a text is cut into tokens. */
#ifndef SERVE_API_ASK_H
#define SERVE_API_ASK_H

#include "serve/serve.h"

void api_tokenize(marco_server *server, http_request *http);
void api_detokenize(marco_server *server, http_request *http);
void api_tokenizer_info(marco_server *server, http_request *http);
void api_count_tokens(marco_server *server, http_request *http);

#endif
