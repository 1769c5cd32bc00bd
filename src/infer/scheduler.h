/* Inside the scheduler. One thread, the worker, runs everything; others only put submissions into
 * the queue and flags on requests.
 *
 * A step of the worker (steps.c) decodes one token of every reply under way in one joint pass, and
 * then runs some layers of a pass that reads prompts. That pass is as long as is good for a mixture
 * of experts, since a long one reads each expert once for many tokens; but it is suspended between
 * layers whenever the replies under way have waited about as long as their own token took.
 * ("Layered prefill", arXiv 2510.08055.) */
#ifndef INFER_SCHEDULER_H
#define INFER_SCHEDULER_H

#include <stdatomic.h>

#include "grammar/grammar.h"
#include "infer/internal.h"
#include "infer/prefix.h"
#include "infer/reply.h"

/* Requests that were submitted together. */
typedef struct infer_group {
    struct infer_group *next; /* in the queue */
    uint64_t client;
    marco_request **requests; /* [n] */
    size_t n, begun;
} infer_group;

struct marco_request {
    marco_scheduler *scheduler;
    atomic_int holders; /* the caller and the scheduler */
    atomic_bool cancelled;
    marco_request_params params; /* its pointers are the request's own */
    uint64_t client;
    double submitted, begun, replied; /* times; replied: the first token's */

    /* The worker's from here on. */
    int32_t *ids; /* [n_ids] the prompt and the reply so far */
    size_t n_ids, ids_capacity;
    infer_timeline line; /* has evaluated the first of them */
    bool reading;        /* part of the pass that reads prompts */
    size_t n_reply, n_cached;
    size_t n_scored; /* tokens of the prompt whose scores were told */
    marco_sampler *sampler;
    infer_reply reply;
    grammar_state *grammar;
    uint32_t *mask;
    marco_token_score *top; /* [n_top] */
    float logprob;
    int32_t picked;
    marco_status status; /* of the pick */
    marco_error error;
};

enum { INFER_TURNS = 1024 }; /* clients that take turns without being taken for each other */

/* The pass that reads prompts. */
typedef struct infer_reading {
    model_context *context;
    bool under_way;
    marco_request **requests; /* [n] */
    size_t *counts;           /* [n] tokens of each */
    size_t n;
    size_t run;     /* whose prompt is being scored, after the layers */
    size_t row;     /* of it, the next */
    int32_t chunk;  /* tokens of the next pass */
    double seconds; /* of a layer, lately */
} infer_reading;

struct marco_scheduler {
    marco_engine *engine;
    marco_scheduler_params params; /* no zeros left */
    tensor_type kv_type;
    grammar_vocab *vocab;   /* NULL: replies of a given form cannot be, */
    marco_error no_grammar; /* for this reason */
    pthread_t worker;
    pthread_mutex_t lock; /* of the queue, the numbers for others, and `busy` */
    pthread_cond_t wake;
    pthread_cond_t rested; /* `busy` fell */
    bool closing, busy;
    size_t live;        /* requests whose last event has not begun */
    infer_group *queue; /* in order of arrival */
    marco_scheduler_stats stats;

    /* The worker's. */
    marco_request **active; /* [n_active], of params.parallel */
    size_t n_active;
    infer_prefixes prefixes;
    model_context *decoding;
    infer_reading reading;
    model_sequence *sequences; /* [parallel] of a pass being begun */
    marco_request **rows;      /* [parallel] whose logits are there */
    float *logits;             /* [logits_rows, n_vocab] */
    size_t logits_rows;
    uint64_t turns[INFER_TURNS]; /* when a client had its last one, by a hash of the client */
    uint64_t turn;
    double decode_seconds;     /* of the last step's joint pass */
    uint64_t taken;            /* of the engine's room */
    marco_scheduler_stats now; /* the worker's own copy of what it counts */
};

/* ---- requests (request.c) ------------------------------------------------------------------ */

/* A copy of the parameters, checked; no handle but the scheduler's yet. */
marco_status infer_request_create(marco_scheduler *scheduler, const marco_request_params *params,
                                  marco_request **out, marco_error *error);

/* Lets go of one hold. */
void infer_request_drop(marco_request *request);

/* What a request needs to run, made when its turn comes. */
marco_status infer_request_begin(marco_request *request, marco_error *error);

/* Ends it: the last event, and its hold is let go. The timeline must have been taken or freed. */
void infer_request_finish(marco_request *request, marco_status status, const char *message,
                          marco_finish finish);

/* After a token was picked: its event; true where it was the last. */
bool infer_request_accept(marco_request *request, marco_finish *finish);

/* ---- steps (steps.c) ----------------------------------------------------------------------- */

/* One step of the worker. */
void infer_scheduler_step(marco_scheduler *scheduler);

/* Takes a request out of the active ones and ends it; what it computed goes to the prefixes. */
void infer_scheduler_retire(marco_scheduler *scheduler, marco_request *request, marco_status status,
                            const char *message, marco_finish finish);

/* Drops the pass that reads prompts, if one is under way. */
void infer_reading_abandon(marco_scheduler *scheduler);

/* ---- admission (admit.c) ------------------------------------------------------------------- */

/* Begins waiting requests while there is room. */
void infer_scheduler_admit(marco_scheduler *scheduler);

/* Room for n tokens of a request, made at others' cost where it must be: finished timelines first,
 * then the latest of those that came after it, which compute again what they had. So the first of
 * all goes on in any case, if only when others' prompts have been read; where another cannot,
 * MARCO_ERROR_BUSY: it is to wait. */
marco_status infer_scheduler_reserve(marco_scheduler *scheduler, marco_request *request, size_t n,
                                     marco_error *error);

#endif
