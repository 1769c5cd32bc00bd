/* Which type quantising gives each tensor. */
#ifndef MODEL_RECIPE_H
#define MODEL_RECIPE_H

#include "model/config.h"

/* A named choice of types: a main one, and more bits where they help most. */
typedef struct model_recipe {
    const char *name; /* "Q4_K_M" */
    tensor_type type; /* of most matrices */
    bool mixed;       /* Q6_K for half of the attention values and down projections */
} model_recipe;

/* By name, case-insensitive; NULL where there is none. */
const model_recipe *model_recipe_find(const char *name);

/* "F32, F16, ...": all names. */
const char *model_recipe_names(void);

/* The type of a matrix, as llama.cpp chooses it, whether or not its rows divide into that type's
 * blocks. `important`: there is an importance matrix. */
tensor_type model_recipe_type(const model_recipe *recipe, const model_config *config,
                              const model_tensor *tensor, bool important);

/* The type itself where rows of `cols` divide into its blocks, else the one that llama.cpp puts in
 * its place: one of blocks of 32 with as many bits or more, or F16. */
tensor_type model_type_for_rows(tensor_type type, int64_t cols);

#endif
