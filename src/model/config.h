/* A model's shape and constants, read from a checkpoint and from nowhere else. */
#ifndef MODEL_CONFIG_H
#define MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "format/gguf.h"
#include "marco/marco.h"

typedef enum model_arch {
    MODEL_LLAMA,    /* LlamaForCausalLM, GGUF "llama" without experts */
    MODEL_MIXTRAL,  /* MixtralForCausalLM, GGUF "llama" with expert_count */
    MODEL_QWEN3,    /* Qwen3ForCausalLM, GGUF "qwen3" */
    MODEL_QWEN3MOE, /* Qwen3MoeForCausalLM, GGUF "qwen3moe" */
} model_arch;

/* "llama", "mixtral", "qwen3", "qwen3moe" */
const char *model_arch_name(model_arch arch);
/* "LlamaForCausalLM", ... */
const char *model_arch_hf_name(model_arch arch);

typedef enum model_rope_scaling {
    MODEL_ROPE_NONE,
    MODEL_ROPE_LINEAR, /* position / factor */
    MODEL_ROPE_YARN,   /* arXiv 2309.00071 */
    MODEL_ROPE_LLAMA3, /* frequency-dependent factor of Llama 3.1 */
} model_rope_scaling;

typedef struct model_rope {
    double theta;
    model_rope_scaling scaling;
    double factor;
    double original_context;                       /* yarn, llama3 */
    double beta_fast, beta_slow, attention_factor; /* yarn; attention_factor 0: from factor */
    double low_freq_factor, high_freq_factor;      /* llama3 */
} model_rope;

enum { MODEL_MAX_EOS = 16, MODEL_MAX_LAYERS = 1024, MODEL_MAX_EXPERTS = 4096 };

/* More parameters than this are a mistake in the file; every count of elements and bytes below it
 * fits 64 bits. */
#define MODEL_MAX_PARAMS (INT64_C(1) << 50)

typedef struct model_config {
    model_arch arch;
    char name[128];       /* for people */
    char provenance[256]; /* key marco.provenance (GGUF) or marco_provenance (config.json); "" none
                           */

    int32_t n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_vocab;
    int32_t ffn_dim;                     /* dense layers' intermediate size; 0: no dense layer */
    int32_t n_experts, n_experts_used;   /* 0 in dense models */
    int32_t expert_dim;                  /* experts' intermediate size */
    bool norm_topk_prob;                 /* renormalise the chosen experts' weights to sum 1 */
    bool layer_sparse[MODEL_MAX_LAYERS]; /* [n_layers] experts in this layer? */
    bool qk_norm;                        /* RMSNorm on each head of Q and K */
    bool tied;                           /* the head is the embedding */
    double rms_eps;
    model_rope rope;
    int32_t n_ctx_train;

    int32_t bos, eos[MODEL_MAX_EOS], n_eos, pad; /* from generation_config/config; -1: none */

    /* generation_config: what the checkpoint asks for. do_sample false: greedy. */
    bool do_sample;
    double temperature, top_p, min_p, repetition_penalty;
    int32_t top_k;
} model_config;

/* All fields at the formats' own meaning of "absent". */
void model_config_init(model_config *config);

/* config.json and generation_config.json of a folder. What is not implemented is refused by
 * name: unknown architectures, attention or MLP bias, sliding window in use, other activations,
 * other rope types, quantization_config, ... */
marco_status model_config_read_hf(const char *folder, model_config *config, marco_error *error);
marco_status model_config_read_gguf(const gguf *g, model_config *config, marco_error *error);

/* Checks ranges and relations every later computation relies on (heads divide, counts positive and
 * bounded, experts_used <= experts, eps and theta finite and positive, at most MODEL_MAX_PARAMS
 * parameters, ...), naming `file`. */
marco_status model_config_check(const model_config *config, const char *file, marco_error *error);

/* Adds general.* and <arch>.*; refuses by name what GGUF cannot express. */
marco_status model_config_write_gguf(const model_config *config, tensor_type main_type,
                                     gguf_writer *w, marco_error *error);
/* Writes config.json and generation_config.json; `type` is torch_dtype's name. */
marco_status model_config_write_hf(const model_config *config, const char *folder, tensor_type type,
                                   marco_error *error);

/* ---- the tensors a configuration asks for -------------------------------------------------- */

typedef enum model_role {
    MODEL_TOKEN_EMBD,  /* [n_vocab, n_embd] */
    MODEL_OUTPUT_NORM, /* [n_embd] */
    MODEL_OUTPUT,      /* [n_vocab, n_embd]; absent when tied */
    MODEL_ATTN_NORM,   /* [n_embd] */
    MODEL_ATTN_Q,      /* [n_heads * head_dim, n_embd] */
    MODEL_ATTN_K,      /* [n_kv_heads * head_dim, n_embd] */
    MODEL_ATTN_V,      /* [n_kv_heads * head_dim, n_embd] */
    MODEL_ATTN_Q_NORM, /* [head_dim] */
    MODEL_ATTN_K_NORM, /* [head_dim] */
    MODEL_ATTN_OUT,    /* [n_embd, n_heads * head_dim] */
    MODEL_FFN_NORM,    /* [n_embd] */
    MODEL_FFN_GATE,    /* [ffn_dim, n_embd] */
    MODEL_FFN_UP,      /* [ffn_dim, n_embd] */
    MODEL_FFN_DOWN,    /* [n_embd, ffn_dim] */
    MODEL_ROUTER,      /* [n_experts, n_embd] */
    MODEL_EXPERT_GATE, /* n_experts x [expert_dim, n_embd] */
    MODEL_EXPERT_UP,   /* n_experts x [expert_dim, n_embd] */
    MODEL_EXPERT_DOWN, /* n_experts x [n_embd, expert_dim] */
    MODEL_ROLE_END,
} model_role;

/* One tensor of a model: `mats` matrices (experts; 1 otherwise) of [rows, cols], cols contiguous.
 * A vector has rows = 1. Rows are in the order of Hugging Face's checkpoints whatever the file:
 * GGUF "llama" files store those of Q and K permuted, which readers and writers undo. */
typedef struct model_tensor {
    model_role role;
    int32_t layer; /* -1 outside the layers */
    tensor_type type;
    int64_t mats, rows, cols;
} model_tensor;

/* The tensors of a configuration in file order (types left F32), at most `capacity`; returns how
 * many there are. */
size_t model_config_tensors(const model_config *config, model_tensor *out, size_t capacity);

/* GGUF's name ("blk.3.ffn_gate_exps.weight"). */
void model_tensor_gguf_name(const model_tensor *tensor, char out[128]);
/* Hugging Face's; `mat` chooses the expert. */
void model_tensor_hf_name(const model_config *config, const model_tensor *tensor, int64_t mat,
                          char out[128]);

/* Of all its matrices, in its type. */
uint64_t model_tensor_bytes(const model_tensor *tensor);

bool model_role_is_expert(model_role role); /* one matrix for each expert */
bool model_role_is_vector(model_role role); /* the norms */
/* True for what stays F32 or the file's float type whatever --type says: norms and routers. */
bool model_role_is_float(model_role role);

/* Parameters in all, and those that work on one token (all but the experts not chosen; a tied
 * embedding counts once). */
int64_t model_config_total_params(const model_config *config);
int64_t model_config_active_params(const model_config *config);

#endif
