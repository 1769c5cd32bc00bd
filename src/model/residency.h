/* Where a model's weights shall live, decided before they are read from the memory there is. */
#ifndef MODEL_RESIDENCY_H
#define MODEL_RESIDENCY_H

#include "base/text.h"
#include "model/weights.h"

typedef struct model_plan_request {
    uint64_t ram;       /* budget of the whole process, bytes; 0: none given */
    bool map;           /* MODEL_MAPPED is asked for */
    uint64_t held;      /* bytes the process holds now, */
    uint64_t available; /* and can still take */
    uint64_t session;   /* the least that a session needs beside the weights */
} model_plan_request;

typedef struct model_plan {
    model_residency residency;
    bool automatic;        /* a budget that nobody asked for */
    uint64_t budget;       /* of the whole process; 0: none */
    uint64_t weight_bytes; /* all of them */
    uint64_t pinned_bytes; /* those always in memory; none of a map's */
    uint64_t room;         /* for slots and sessions; UINT64_MAX without a budget */
    /* Of a streamed model: */
    uint64_t slot_bytes;
    int64_t slots;       /* the most there can be */
    int64_t least_slots; /* that a pass wants */
    int64_t experts;     /* of all layers */
} model_plan;

/* Refuses, with the numbers and what would do, budgets that are too small and models that do not
 * fit into what is available. */
marco_status model_plan_make(const model_source *source, const model_plan_request *request,
                             model_plan *plan, marco_error *error);

/* Adds one line for the user, "17.1 GiB in memory". */
void model_plan_describe(const model_plan *plan, const char *path, base_text *out);

#endif
