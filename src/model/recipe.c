/* The rules are those of llama.cpp's llama_tensor_get_type (src/llama-quant.cpp), as far as they
 * are about these architectures and types, so that files of one name have one size. */
#include "model/recipe.h"

#include <strings.h>

static const model_recipe recipes[] = {
    {"Q8_0", TENSOR_Q8_0, false},     {"Q6_K", TENSOR_Q6_K, false},
    {"Q5_K_M", TENSOR_Q5_K, true},    {"Q5_K", TENSOR_Q5_K, false},
    {"Q5_1", TENSOR_Q5_1, false},     {"Q5_0", TENSOR_Q5_0, false},
    {"Q4_K_M", TENSOR_Q4_K, true},    {"Q4_K", TENSOR_Q4_K, false},
    {"Q4_1", TENSOR_Q4_1, false},     {"Q4_0", TENSOR_Q4_0, false},
    {"IQ4_NL", TENSOR_IQ4_NL, false}, {"IQ4_XS", TENSOR_IQ4_XS, false},
    {"BF16", TENSOR_BF16, false},     {"F16", TENSOR_F16, false},
    {"F32", TENSOR_F32, false},
};

const model_recipe *model_recipe_find(const char *name)
{
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++)
        if (strcasecmp(recipes[i].name, name) == 0)
            return &recipes[i];
    return NULL;
}

const char *model_recipe_names(void)
{
    return "Q8_0, Q6_K, Q5_K_M, Q5_K, Q5_1, Q5_0, Q4_K_M, Q4_K, Q4_1, Q4_0, IQ4_NL, IQ4_XS, BF16, "
           "F16 or F32";
}

/* The first and last eighth of the layers, and every third between. */
static bool more_bits(int32_t layer, int32_t n)
{
    return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
}

static bool is_iq4(tensor_type type)
{
    return type == TENSOR_IQ4_NL || type == TENSOR_IQ4_XS;
}

/* Few heads share many queries' values: an error there counts more than its bytes. */
static tensor_type value_type(const model_recipe *recipe, const model_config *c, int32_t layer)
{
    if (c->n_experts == 8)
        return TENSOR_Q8_0;
    if (is_iq4(recipe->type) && c->n_heads / c->n_kv_heads >= 4)
        return TENSOR_Q5_K;
    return recipe->mixed && more_bits(layer, c->n_layers) ? TENSOR_Q6_K : recipe->type;
}

static tensor_type down_type(const model_recipe *recipe, const model_config *c, int32_t layer,
                             bool important)
{
    bool early = layer < c->n_layers / 8;
    if (recipe->mixed && more_bits(layer, c->n_layers))
        return TENSOR_Q6_K;
    if (early && is_iq4(recipe->type) && !important)
        return TENSOR_Q5_K;
    if (early && recipe->type == TENSOR_Q4_0 && important)
        return TENSOR_Q4_1;
    if (early && recipe->type == TENSOR_Q5_0 && important)
        return TENSOR_Q5_1;
    return recipe->type;
}

static tensor_type mixed_type(const model_recipe *recipe, const model_config *c,
                              const model_tensor *t, bool important)
{
    switch (t->role) {
    case MODEL_OUTPUT:
        return TENSOR_Q6_K;
    case MODEL_TOKEN_EMBD:
        return c->tied ? TENSOR_Q6_K : recipe->type;
    case MODEL_ATTN_V:
        return value_type(recipe, c, t->layer);
    case MODEL_ATTN_K:
        return c->n_experts == 8 ? TENSOR_Q8_0 : recipe->type;
    case MODEL_ATTN_OUT:
        return c->n_experts == 8 && (recipe->type == TENSOR_Q4_K || is_iq4(recipe->type))
                   ? TENSOR_Q5_K
                   : recipe->type;
    case MODEL_FFN_DOWN:
    case MODEL_EXPERT_DOWN:
        return down_type(recipe, c, t->layer, important);
    default:
        return recipe->type;
    }
}

tensor_type model_recipe_type(const model_recipe *recipe, const model_config *config,
                              const model_tensor *tensor, bool important)
{
    bool pure = tensor_traits_of(recipe->type)->block == 1 || recipe->type == TENSOR_Q8_0;
    return pure ? recipe->type : mixed_type(recipe, config, tensor, important);
}

tensor_type model_type_for_rows(tensor_type type, int64_t cols)
{
    if (cols % tensor_traits_of(type)->block == 0)
        return type;
    switch (type) {
    case TENSOR_Q4_K:
        type = TENSOR_Q5_0;
        break;
    case TENSOR_Q5_K:
        type = TENSOR_Q5_1;
        break;
    case TENSOR_Q6_K:
        type = TENSOR_Q8_0;
        break;
    case TENSOR_IQ4_XS:
        type = TENSOR_IQ4_NL;
        break;
    default:
        break;
    }
    return cols % tensor_traits_of(type)->block == 0 ? type : TENSOR_F16;
}
