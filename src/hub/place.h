/* Where the hub and the cache are: what the caller says, or else the environment, read as
 * huggingface_hub reads it (its documentation, "Environment variables"). */
#ifndef HUB_PLACE_H
#define HUB_PLACE_H

#include "marco/hub.h"

typedef struct hub_place {
    char *endpoint; /* "https://huggingface.co", without a '/' at the end */
    char *token;    /* NULL: none */
    char *cache;
} hub_place;

/* The cache alone is found where `with_hub` is false, so that a bad token stops no one from using
 * what is there. hub_place_free in any case. */
marco_status hub_place_find(const marco_hub_params *params, bool with_hub, hub_place *out,
                            marco_error *error);
void hub_place_free(hub_place *place);

/* Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) forbids the network. */
bool hub_is_offline(void);

#endif
