/* A reply in the making: tokens in, text that is certain to belong to it out. */
#ifndef INFER_REPLY_H
#define INFER_REPLY_H

#include "base/text.h"
#include "marco/marco.h"

typedef struct infer_reply {
    const marco_engine *engine;
    const char *const *stop; /* [n_stop] */
    size_t n_stop;
    bool ignore_eos;
    marco_detokenizer *detokenizer;
    base_text ready;     /* certain, and not taken by the caller, who clears it */
    base_text held;      /* could be the beginning of a stop string */
    bool ended;          /* by a token that ends a reply, or by a stop string */
    const char *stopper; /* that stop string, or NULL */
} infer_reply;

/* The stop strings outlive the reply. infer_reply_free in any case. */
marco_status infer_reply_init(infer_reply *reply, const marco_engine *engine,
                              const char *const *stop, size_t n_stop, bool ignore_eos, bool special,
                              marco_error *error);
void infer_reply_free(infer_reply *reply);

marco_status infer_reply_add(infer_reply *reply, int32_t id, marco_error *error);

/* Nothing follows: what is held back becomes certain. */
marco_status infer_reply_finish(infer_reply *reply, marco_error *error);

/* Stop strings must not be NULL or empty. */
marco_status infer_reply_check(const char *const *stop, size_t n_stop, marco_error *error);

#endif
