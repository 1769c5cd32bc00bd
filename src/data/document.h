/* Inside the data room: from the text of a document to its ids. */
#ifndef DATA_DOCUMENT_H
#define DATA_DOCUMENT_H

#include <jansson.h>

#include "marco/marco.h"

/* How documents are read; shared by threads. */
typedef struct data_form {
    const marco_tokenizer *tokenizer;
    bool chat;
    const char *field; /* of the text in a JSON line */
    int32_t turn_end;  /* of chats: the token that ends a turn */
    bool hash;         /* is asked for */
    uint64_t max_size; /* of a line or file, which whoever reads it sees to */
} data_form;

typedef enum data_outcome { DATA_KEPT, DATA_EMPTY, DATA_BAD } data_outcome;

/* A document on its way. */
typedef struct data_job {
    size_t start, size; /* in the window's text */
    size_t file;        /* its number among the files */
    uint64_t line;      /* 0: the whole file; for what cannot be used, the line where that is so */
    bool json, too_long;

    marco_status status; /* what ends all work: no memory */
    data_outcome outcome;
    char why[512]; /* of DATA_BAD: what is wrong */
    int32_t *ids;  /* [n], n >= 1, where it is kept */
    uint8_t *targets;
    size_t n;
    size_t bytes;  /* of its text */
    uint64_t hash; /* the first eight bytes of SHA-256, of the text or of the messages as JSON; 0:
                      not asked for */
} data_job;

/* Fills in the second half of a job. */
void data_document_encode(const data_form *form, const char *text, data_job *job);
void data_document_free(data_job *job);

/* The ids of a conversation, and which of them its assistant is to be trained on: each of its turns
 * from after the header to and with the token that ends it (chat_targets.c). Conversations that do
 * not allow that are MARCO_ERROR_ARGUMENT or MARCO_ERROR_UNSUPPORTED. */
marco_status data_chat_encode(const data_form *form, const json_t *messages, const json_t *tools,
                              int32_t **ids, uint8_t **targets, size_t *n, marco_error *error);

#endif
