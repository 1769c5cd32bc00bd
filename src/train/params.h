/* The parameters of a model in training: flat arrays, so that reductions, the optimiser and its
 * shards see numbers only, and a list that says which of them are what. */
#ifndef TRAIN_PARAMS_H
#define TRAIN_PARAMS_H

#include "model/source.h"
#include "train/comm.h"

/* Parameters that every process holds, and those of the experts that this one holds. */
typedef enum train_section {
    TRAIN_SHARED,
    TRAIN_OWN_EXPERTS,
    TRAIN_SECTION_END,
} train_section;

/* Who holds the same numbers of a section, and shares the optimiser's work on it. */
static inline train_group train_section_group(train_section section)
{
    return section == TRAIN_SHARED ? TRAIN_WORLD : TRAIN_REPLICAS;
}

/* The order within a section. */
typedef enum train_state {
    TRAIN_TRAINED, /* gradient and optimiser; also the adapters' A and B */
    TRAIN_ADAPTED, /* gradient only: changed by its adapter (LoRA) */
    TRAIN_FROZEN,
} train_state;

typedef enum train_adapter { TRAIN_NO_ADAPTER, TRAIN_ADAPTER_A, TRAIN_ADAPTER_B } train_adapter;

typedef struct train_param {
    char name[128];      /* GGUF's name; "....lora_a", "....lora_b" for adapters */
    model_tensor tensor; /* as the whole model has it; for adapters their own rows and cols */
    int64_t mat0, mats;  /* the matrices held here: all, or this process's experts */
    train_section section;
    train_state state;
    int64_t offset; /* of its first element in its section */
    bool decayed;   /* by weight decay */
    train_adapter adapter;
    size_t of;             /* adapters: the parameter they adapt */
    size_t lora_a, lora_b; /* adapted parameters: their adapters */
} train_param;

typedef struct train_values {
    int64_t size;    /* elements in all */
    int64_t trained; /* the first of them the optimiser changes: padded with zeros to a multiple of
                        64 * the ranks that share its work */
    int64_t graded;  /* the first of them have gradients; >= trained */
    void *value;     /* [size] F32 or BF16 (params->type), what the model computes with */
    float *grad;     /* [graded] */
} train_values;

typedef struct train_params {
    model_config config;
    tensor_type type;   /* TENSOR_F32 or TENSOR_BF16 */
    train_param *items; /* [n] in model_config_tensors order, then adapters */
    size_t n;
    train_values sections[TRAIN_SECTION_END];
    float *base[TRAIN_SECTION_END]; /* [graded - trained] adapted parameters without their adapters
                                     */
    double lora_scale;              /* alpha / rank */
    tok_spec *tokenizer;            /* goes into checkpoints; may be NULL */
} train_params;

/* What of a model is trained. Patterns are shell patterns over GGUF's names (fnmatch). */
typedef struct train_params_choice {
    tensor_type type;
    const char *const *train; /* [n_train] only what one of them matches; none: everything */
    size_t n_train;
    const char *const *freeze; /* [n_freeze] and nothing that one of these matches */
    size_t n_freeze;
    bool decay_norms, decay_embeddings; /* embeddings: the output's matrix too */
    int32_t lora_rank;                  /* 0: none */
    double lora_alpha;
    bool lora_attention, lora_experts; /* which matrices (experts: a dense layer's FFN too) */
    uint64_t seed;                     /* of the adapters' beginnings */
} train_params_choice;

/* The list alone, with no memory for values and gradients: what a dry run asks. Refuses a choice
 * that trains nothing, patterns that fit no tensor, and a rank that has nothing to adapt. */
marco_status train_params_plan(const model_config *config, const train_params_choice *choice,
                               const train_comm *comm, train_params **out, marco_error *error);

/* Reads the source's tensors, decoded to F32 and, for BF16, rounded. Experts: those of `comm`'s
 * rank in TRAIN_EXPERTS. The source stays the caller's. */
marco_status train_params_load(model_source *source, const train_params_choice *choice,
                               const train_comm *comm, train_params **out, marco_error *error);
void train_params_free(train_params *params); /* NULL is allowed */

/* Where what a run begins from goes, some numbers at a time. */
typedef struct train_reader {
    void *user;
    bool (*wants)(void *user, const train_param *param);
    /* Elements at .. at + n - 1 of those of `param` that are held here. Of an adapter's B, which
     * begins as zeros, none come. */
    void (*put)(void *user, const train_param *param, int64_t at, const float *x, int64_t n);
} train_reader;

/* The source's tensors decoded to F32, and the adapters as `seed` has them: what train_params_load
 * takes, before it is rounded. */
marco_status train_params_read(const train_params *params, model_source *source, uint64_t seed,
                               const train_reader *to, marco_error *error);

/* The parameter of a tensor, or NULL where the model has none. */
const train_param *train_params_find(const train_params *params, model_role role, int32_t layer);

/* Rows row0 .. row0 + n_rows - 1 of matrix `mat` (counted from param->mat0) in F32 [n_rows, cols]:
 * where they are, or decoded to `scratch`. */
const float *train_weight(const train_params *params, const train_param *param, int64_t mat,
                          int64_t row0, int64_t n_rows, float *scratch);

/* The gradient of a matrix [rows, cols], to be added to; NULL where it is frozen. */
float *train_grad(const train_params *params, const train_param *param, int64_t mat);

/* Elements of one matrix, and of all that are held here. */
static inline int64_t train_param_matrix(const train_param *param)
{
    return param->tensor.rows * param->tensor.cols;
}

static inline int64_t train_param_size(const train_param *param)
{
    return param->mats * train_param_matrix(param);
}

/* LoRA (arXiv 2106.09685): value = base + scale * B A, from time to time; and the gradients of A
 * and B from those of value. A [rank, cols], B [rows, rank]. */
struct train_context;
void train_lora_apply(const struct train_context *ctx);
/* The gradients of adapted parameters are zeros afterwards. */
void train_lora_back(const struct train_context *ctx);
int64_t train_lora_scratch(const train_params *params); /* floats a thread */

#endif
