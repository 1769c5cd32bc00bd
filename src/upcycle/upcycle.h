/* The two makers of models as streams of weights. model_copy writes either to a file; whatever
 * loads from a source may take them as they are. */
#ifndef UPCYCLE_UPCYCLE_H
#define UPCYCLE_UPCYCLE_H

#include "model/source.h"

/* Random weights in a named shape, F32. */
marco_status upcycle_synth_source(const char *shape, const marco_synth_params *params,
                                  model_source **out, marco_error *error);

/* The surgery on a dense parent, which belongs to the new source (and is closed on failure too).
 * The experts' type is `expert_type`, or with -1 the parent's where it can be written again. All
 * other tensors are the parent's own bytes. */
marco_status upcycle_surgery_source(model_source *parent, const marco_upcycle_params *params,
                                    int expert_type, model_source **out, marco_error *error);

/* The tensors of source->config, types F32. */
marco_status upcycle_list_tensors(model_source *source, model_tensor **tensors, marco_error *error);

/* A type by name that can be written; NULL leaves *type as it is. */
marco_status upcycle_parse_type(const char *name, int *type, marco_error *error);

#endif
