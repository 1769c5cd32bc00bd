/* Configurations: what config.json and GGUF metadata mean, what is refused, and writing them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "memory_source.h"
#include "model/config_internal.h"
#include "model/rope.h"
#include "scratch.h"

static marco_error error;

static marco_status parse(const char *config, const char *generation, model_config *out)
{
    json_t *main = NULL, *second = NULL;
    error = (marco_error){0};
    marco_status status = format_json_text("config.json", config, strlen(config), &main, &error);
    if (!status && generation)
        status = format_json_text("generation_config.json", generation, strlen(generation), &second,
                                  &error);
    if (!status)
        status = model_config_parse_hf("config.json", main, "generation_config.json", second, out,
                                       &error);
    json_decref(main);
    json_decref(second);
    return status;
}

static void must_parse(const char *config, const char *generation, model_config *out)
{
    if (parse(config, generation, out) != MARCO_OK)
        fail_msg("%s", error.message);
}

#define SIZES                                                                                      \
    "\"vocab_size\": 300, \"hidden_size\": 64, \"num_hidden_layers\": 4, "                         \
    "\"num_attention_heads\": 4"
#define QWEN3MOE                                                                                   \
    "{\"architectures\": [\"Qwen3MoeForCausalLM\"], \"model_type\": \"qwen3_moe\", " SIZES         \
    ", \"num_experts\": 16, \"moe_intermediate_size\": 32"
#define QWEN3 "{\"architectures\": [\"Qwen3ForCausalLM\"], " SIZES ", \"intermediate_size\": 96"
#define LLAMA "{\"model_type\": \"llama\", " SIZES ", \"intermediate_size\": 96"
#define MIXTRAL                                                                                    \
    "{\"architectures\": [\"MixtralForCausalLM\"], " SIZES                                         \
    ", \"intermediate_size\": 96, \"num_local_experts\": 8"

/* ---- what an absent key means ---------------------------------------------------------------- */

static void absent_keys_mean_the_class_defaults(void **state)
{
    (void)state;
    model_config c;
    must_parse(QWEN3MOE "}", NULL, &c);
    assert_int_equal(c.arch, MODEL_QWEN3MOE);
    assert_false(c.norm_topk_prob);
    assert_false(c.tied);
    assert_true(c.qk_norm);
    assert_int_equal(c.head_dim, 16);
    assert_int_equal(c.n_kv_heads, 4);
    assert_int_equal(c.n_experts_used, 8);
    assert_int_equal(c.n_ctx_train, 32768);
    assert_true(c.rope.theta == 1e4 && c.rms_eps == 1e-6);
    assert_int_equal(c.n_eos, 0);
    assert_int_equal(c.bos, -1);
    for (int i = 0; i < 4; i++)
        assert_true(c.layer_sparse[i]);

    assert_int_equal(parse(QWEN3 "}", NULL, &c), MARCO_ERROR_FORMAT); /* 32 kv heads for 4 */
    must_parse(QWEN3 ", \"num_key_value_heads\": null}", NULL, &c);
    assert_int_equal(c.head_dim, 128);
    assert_int_equal(c.n_kv_heads, 4);

    must_parse(LLAMA "}", NULL, &c);
    assert_int_equal(c.head_dim, 16);
    assert_int_equal(c.n_kv_heads, 4);
    assert_int_equal(c.n_ctx_train, 2048);
    assert_false(c.qk_norm);
    assert_int_equal(c.bos, 1);
    assert_int_equal(c.n_eos, 1);
    assert_int_equal(c.eos[0], 2);

    must_parse(MIXTRAL ", \"num_key_value_heads\": 2, \"head_dim\": null}", NULL, &c);
    assert_true(c.rope.theta == 1e6 && c.rms_eps == 1e-5);
    assert_true(c.norm_topk_prob);
    assert_int_equal(c.n_experts_used, 2);
    assert_int_equal(c.expert_dim, 96);
    assert_int_equal(c.ffn_dim, 0);
    assert_int_equal(c.n_ctx_train, 131072);
}

static void sparse_layers_follow_step_and_list(void **state)
{
    (void)state;
    model_config c;
    must_parse(QWEN3MOE ", \"decoder_sparse_step\": 2, \"mlp_only_layers\": [3], "
                        "\"intermediate_size\": 80}",
               NULL, &c);
    assert_false(c.layer_sparse[0]);
    assert_true(c.layer_sparse[1]);
    assert_false(c.layer_sparse[2]);
    assert_false(c.layer_sparse[3]);
    assert_int_equal(c.ffn_dim, 80);
    assert_int_equal(c.expert_dim, 32);
    /* A dense layer needs its size. */
    assert_int_equal(parse(QWEN3MOE ", \"mlp_only_layers\": [3]}", NULL, &c), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "intermediate_size"));
}

static void rope_is_read_in_both_spellings(void **state)
{
    (void)state;
    static const char *const yarns[] = {
        LLAMA ", \"rope_theta\": 5e5, \"max_position_embeddings\": 100, \"rope_scaling\": "
              "{\"type\": \"yarn\", \"factor\": 4.0, \"original_max_position_embeddings\": 64}}",
        LLAMA ", \"max_position_embeddings\": 100, \"rope_parameters\": {\"rope_type\": \"yarn\", "
              "\"rope_theta\": 500000.0, \"factor\": 4, \"original_max_position_embeddings\": 64}}",
    };
    model_config c;
    for (int i = 0; i < 2; i++) {
        must_parse(yarns[i], NULL, &c);
        assert_int_equal(c.rope.scaling, MODEL_ROPE_YARN);
        assert_true(c.rope.theta == 5e5 && c.rope.factor == 4 && c.rope.original_context == 64);
        assert_true(c.rope.beta_fast == 32 && c.rope.beta_slow == 1);
        assert_true(c.rope.attention_factor == 0);
        assert_int_equal(c.n_ctx_train, 256);
    }
    must_parse(LLAMA ", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 40, \"mscale\": "
                     "0.5, \"mscale_all_dim\": 2.0}}",
               NULL, &c);
    assert_true(fabs(c.rope.attention_factor - (0.05 * log(40) + 1) / (0.2 * log(40) + 1)) < 1e-12);
    assert_true(c.rope.original_context == 2048);

    must_parse(LLAMA ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, "
                     "\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
                     "\"original_max_position_embeddings\": 512}, \"rope_theta\": 500000.0}",
               NULL, &c);
    assert_int_equal(c.rope.scaling, MODEL_ROPE_LLAMA3);
    float factors[8];
    model_rope_llama3_factors(&c.rope, 16, factors);
    assert_true(factors[0] == 1); /* a wave of 6 positions */
    assert_true(factors[7] == 8); /* one of 600,000 */
    /* theta^(4/16) gives a wave of 167.08 positions, between 512/4 and 512/1. */
    double smooth = (512 / (2 * 3.14159265358979 * pow(5e5, 0.25)) - 1) / 3;
    assert_true(fabs(factors[2] - 1 / ((1 - smooth) / 8 + smooth)) < 1e-5);

    must_parse(LLAMA ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.5}}", NULL, &c);
    assert_int_equal(c.rope.scaling, MODEL_ROPE_LINEAR);
    assert_true(c.rope.factor == 2.5 && c.n_ctx_train == 2048);
}

static void generation_config_wins(void **state)
{
    (void)state;
    model_config c;
    must_parse(QWEN3MOE ", \"eos_token_id\": 7, \"bos_token_id\": 3}",
               "{\"eos_token_id\": [5, 6], \"do_sample\": true, \"temperature\": 0.6}", &c);
    assert_int_equal(c.n_eos, 2);
    assert_int_equal(c.eos[0], 5);
    assert_int_equal(c.eos[1], 6);
    assert_int_equal(c.bos, 3);
    assert_true(c.do_sample && c.temperature == 0.6 && c.top_p == 1);
    assert_int_equal(c.top_k, 50); /* what transformers takes where none is given */

    must_parse(QWEN3MOE ", \"eos_token_id\": 7}",
               "{\"eos_token_id\": null, \"do_sample\": true, \"top_k\": 0, \"top_p\": 0.8, "
               "\"min_p\": 0.1, \"repetition_penalty\": 1.05}",
               &c);
    assert_int_equal(c.eos[0], 7);
    assert_int_equal(c.top_k, 0);
    assert_true(c.top_p == 0.8 && c.min_p == 0.1 && c.repetition_penalty == 1.05);

    /* Without do_sample transformers is greedy, whatever else stands there. */
    must_parse(QWEN3MOE "}", "{\"temperature\": 0.6, \"top_k\": 20}", &c);
    assert_false(c.do_sample);
    assert_int_equal(c.top_k, 0);
}

/* ---- what is refused ----------------------------------------------------------------------- */

typedef struct bad {
    const char *config, *named;
    marco_status status;
} bad;

#define UNSUPPORTED MARCO_ERROR_UNSUPPORTED
#define FORMAT      MARCO_ERROR_FORMAT

static void unsupported_is_refused_by_name(void **state)
{
    (void)state;
    static const bad cases[] = {
        {"{\"architectures\": [\"GPT2LMHeadModel\"], \"model_type\": \"gpt2\"}", "GPT2",
         UNSUPPORTED},
        {"{\"model_type\": \"gpt2\"}", "gpt2", UNSUPPORTED},
        {QWEN3MOE ", \"attention_bias\": true}", "attention_bias", UNSUPPORTED},
        {LLAMA ", \"mlp_bias\": true}", "mlp_bias", UNSUPPORTED},
        {LLAMA ", \"hidden_act\": \"gelu\"}", "hidden_act", UNSUPPORTED},
        {LLAMA ", \"partial_rotary_factor\": 0.5}", "partial_rotary_factor", UNSUPPORTED},
        {LLAMA ", \"quantization_config\": {\"quant_method\": \"fp8\"}}", "quantization_config",
         UNSUPPORTED},
        {LLAMA ", \"final_logit_softcapping\": 30.0}", "final_logit_softcapping", UNSUPPORTED},
        {LLAMA ", \"logits_scaling\": 8}", "logits_scaling", UNSUPPORTED},
        {LLAMA ", \"sliding_window\": 128}", "sliding_window", UNSUPPORTED},
        {MIXTRAL ", \"sliding_window\": 4096, \"num_key_value_heads\": 2}", "sliding_window",
         UNSUPPORTED},
        {MIXTRAL ", \"norm_topk_prob\": false}", "norm_topk_prob", UNSUPPORTED},
        {QWEN3MOE ", \"use_sliding_window\": true}", "use_sliding_window", UNSUPPORTED},
        {QWEN3MOE ", \"use_sliding_window\": true, \"sliding_window\": 64}", "sliding_window",
         UNSUPPORTED},
        {QWEN3 ", \"num_key_value_heads\": 4, \"layer_types\": [\"full_attention\", "
               "\"full_attention\", \"full_attention\", \"sliding_attention\"]}",
         "layer_types", UNSUPPORTED},
        {QWEN3MOE ", \"shared_expert_intermediate_size\": 64}", "shared_expert", UNSUPPORTED},
        {QWEN3MOE ", \"scoring_func\": \"sigmoid\"}", "scoring_func", UNSUPPORTED},
        {QWEN3MOE ", \"n_group\": 4}", "n_group", UNSUPPORTED},
        {QWEN3MOE ", \"n_shared_experts\": 1}", "n_shared_experts", UNSUPPORTED},
        {QWEN3MOE ", \"moe_num_shared_experts\": 2}", "moe_num_shared_experts", UNSUPPORTED},
        {QWEN3MOE ", \"first_k_dense_replace\": 1}", "first_k_dense_replace", UNSUPPORTED},
        {QWEN3MOE ", \"moe_layer_freq\": [0, 1, 1, 1]}", "moe_layer_freq", UNSUPPORTED},
        {QWEN3MOE ", \"moe_layer_freq\": 2}", "moe_layer_freq", UNSUPPORTED},
        {QWEN3MOE ", \"moe_router_enable_expert_bias\": true}", "enable_expert_bias", UNSUPPORTED},
        {QWEN3MOE ", \"moe_routed_scaling_factor\": 2.5}", "routed_scaling", UNSUPPORTED},
        {QWEN3MOE ", \"score_function\": \"sigmoid\"}", "score_function", UNSUPPORTED},
        {QWEN3MOE ", \"topk_method\": \"noaux_tc\"}", "topk_method", UNSUPPORTED},
        {QWEN3MOE ", \"attn_output_gate\": true}", "attn_output_gate", UNSUPPORTED},
        {QWEN3MOE ", \"headwise_attn_output_gate\": true}", "headwise", UNSUPPORTED},
        {QWEN3MOE ", \"use_sandwich_norm\": true}", "use_sandwich_norm", UNSUPPORTED},
        {QWEN3MOE ", \"sandwich_norm\": 1}", "sandwich_norm", UNSUPPORTED},
        {QWEN3MOE ", \"norm_after_mlp\": true}", "norm_after_mlp", UNSUPPORTED},
        {QWEN3MOE ", \"use_qkv_bias\": true}", "use_qkv_bias", UNSUPPORTED},
        {QWEN3MOE ", \"qkv_bias\": true}", "qkv_bias", UNSUPPORTED},
        {QWEN3MOE ", \"add_bias_linear\": true}", "add_bias_linear", UNSUPPORTED},
        {QWEN3MOE ", \"q_lora_rank\": 64}", "q_lora_rank", UNSUPPORTED},
        {LLAMA ", \"no_bias\": false}", "no_bias", UNSUPPORTED},
        {LLAMA ", \"use_parallel_residual\": true}", "use_parallel_residual", UNSUPPORTED},
        {LLAMA ", \"residual_multiplier\": 0.22}", "residual_multiplier", UNSUPPORTED},
        {LLAMA ", \"embedding_multiplier\": 12}", "embedding_multiplier", UNSUPPORTED},
        {LLAMA ", \"mlp_multipliers\": [1, 0.5]}", "mlp_multipliers", UNSUPPORTED},
        {LLAMA ", \"attn_logit_softcap\": 50}", "attn_logit_softcap", UNSUPPORTED},
        {LLAMA ", \"mup_width_scale\": 0.5}", "mup_width_scale", UNSUPPORTED},
        {LLAMA ", \"use_mup\": true}", "use_mup", UNSUPPORTED},
        {LLAMA ", \"scale_depth\": 1.4}", "scale_depth", UNSUPPORTED},
        {LLAMA ", \"no_rope_layers\": [1, 1, 1, 0]}", "no_rope_layers", UNSUPPORTED},
        {LLAMA ", \"no_rope_layer_interval\": 4}", "no_rope_layer_interval", UNSUPPORTED},
        {LLAMA ", \"position_embedding_type\": \"nope\"}", "position_embedding", UNSUPPORTED},
        {LLAMA ", \"attention_bias\": {}}", "attention_bias", UNSUPPORTED},
        {LLAMA ", \"mlp_bias\": [[false]]}", "mlp_bias", UNSUPPORTED},
        {QWEN3MOE ", \"routed_scaling_factor\": 2.5}", "routed_scaling_factor", UNSUPPORTED},
        {QWEN3MOE ", \"use_qk_norm\": false}", "use_qk_norm", UNSUPPORTED},
        {LLAMA ", \"use_qk_norm\": true}", "use_qk_norm", UNSUPPORTED},
        {LLAMA ", \"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}}", "dynamic",
         UNSUPPORTED},
        {LLAMA ", \"rope_parameters\": {\"rope_type\": \"longrope\"}}", "longrope", UNSUPPORTED},
        {LLAMA ", \"rope_scaling\": {\"type\": \"default\", \"mrope_section\": [1, 2]}}",
         "mrope_section", UNSUPPORTED},
        {LLAMA ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2, \"truncate\": false}}",
         "truncate", UNSUPPORTED},
        {LLAMA ", \"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\"}}}",
         "full_attention", UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        model_config c;
        marco_status status = parse(cases[i].config, NULL, &c);
        if (status != cases[i].status || !strstr(error.message, cases[i].named))
            fail_msg("%s: %d \"%s\"", cases[i].config, status, error.message);
    }
}

static void neutral_values_are_not_refused(void **state)
{
    (void)state;
    model_config c;
    must_parse(QWEN3MOE ", \"attention_bias\": false, \"sliding_window\": 4096, "
                        "\"use_sliding_window\": false, \"quantization_config\": null, "
                        "\"use_qk_norm\": true, \"n_group\": 1, \"partial_rotary_factor\": 1.0, "
                        "\"rope_scaling\": null, \"mlp_only_layers\": [], "
                        "\"num_local_experts\": 16, \"hidden_act\": \"silu\", "
                        "\"max_window_layers\": 48, \"some_new_key\": 3}",
               NULL, &c);
    must_parse(QWEN3MOE ", \"moe_layer_freq\": [1, 1, 1, 1], \"no_rope_layers\": [1, 1, 1, 1], "
                        "\"use_mup\": false, \"mlp_multipliers\": [1.0, 1.0], \"no_bias\": true, "
                        "\"n_shared_experts\": null, \"ffn_dim_multiplier\": 1.3, "
                        "\"score_func\": \"softmax\", \"sandwich_norm\": []}",
               NULL, &c);
    must_parse(QWEN3 ", \"num_key_value_heads\": 2, \"use_sliding_window\": true, "
                     "\"max_window_layers\": 4}",
               NULL, &c);
    must_parse(MIXTRAL ", \"num_key_value_heads\": 2, \"sliding_window\": 131072}", NULL, &c);
}

static void contradictions_and_nonsense_are_errors(void **state)
{
    (void)state;
    static const bad cases[] = {
        {"[]", "not a JSON object", FORMAT},
        {"{}", "model_type", FORMAT},
        {"{\"model_type\": \"llama\", \"model_type\": \"llama\"}", "model_type", FORMAT},
        {"{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"qwen3\"}",
         "LlamaForCausalLM", FORMAT},
        {"{\"model_type\": \"llama\"}", "vocab_size", FORMAT},
        {LLAMA ", \"num_key_value_heads\": 3}", "evenly", FORMAT},
        {LLAMA ", \"num_key_value_heads\": 8}", "key/value heads", FORMAT},
        {LLAMA ", \"num_key_value_heads\": -1}", "num_key_value_heads", FORMAT},
        {LLAMA ", \"head_dim\": 15}", "even", UNSUPPORTED},
        {LLAMA ", \"head_dim\": 0}", "head_dim", FORMAT},
        {LLAMA ", \"rms_norm_eps\": 0}", "epsilon", FORMAT},
        {LLAMA ", \"rms_norm_eps\": -1e-6}", "rms_norm_eps", FORMAT},
        {LLAMA ", \"rms_norm_eps\": \"small\"}", "rms_norm_eps", FORMAT},
        {LLAMA ", \"rms_norm_eps\": NaN}", "config.json", FORMAT},
        {LLAMA ", \"rope_theta\": 0}", "rope_theta", FORMAT},
        {LLAMA ", \"rope_theta\": 1e999}", "config.json", FORMAT},
        {LLAMA ", \"rope_scaling\": []}", "rope_scaling", FORMAT},
        {LLAMA ", \"rope_scaling\": {\"type\": \"linear\"}}", "factor", FORMAT},
        {LLAMA ", \"rope_scaling\": {\"type\": \"linear\", \"rope_type\": \"yarn\"}}", "rope_type",
         FORMAT},
        {LLAMA ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}, \"rope_parameters\": "
               "{\"rope_type\": \"default\"}}",
         "contradict", FORMAT},
        {LLAMA ", \"rope_theta\": 10000.0, \"rope_parameters\": {\"rope_type\": \"default\", "
               "\"rope_theta\": 500000.0}}",
         "\"rope_theta\" is 10000 but \"rope_parameters\" has a rope_theta of 500000", FORMAT},
        {LLAMA ", \"rope_theta\": 500000.0, \"rope_scaling\": {\"type\": \"linear\", "
               "\"factor\": 2, \"rope_theta\": 10000.0}}",
         "\"rope_scaling\" has a rope_theta of 10000", FORMAT},
        {LLAMA ", \"max_position_embeddings\": 0}", "max_position_embeddings", FORMAT},
        {LLAMA ", \"eos_token_id\": 300}", "eos_token_id", FORMAT},
        {LLAMA ", \"eos_token_id\": [1, \"2\"]}", "eos_token_id", FORMAT},
        {LLAMA ", \"bos_token_id\": 1099511627776}", "bos_token_id", FORMAT},
        {LLAMA ", \"layer_types\": [\"full_attention\"]}", "layer_types", FORMAT},
        {"{\"model_type\": \"llama\", \"vocab_size\": 1099511627776}", "vocab_size", FORMAT},
        {"{\"model_type\": \"llama\", \"vocab_size\": 300, \"hidden_size\": 64, "
         "\"num_hidden_layers\": 1000000}",
         "num_hidden_layers", FORMAT},
        {QWEN3MOE ", \"num_experts_per_tok\": 17}", "experts per token", FORMAT},
        {"{\"model_type\": \"qwen3_moe\", " SIZES ", \"num_experts\": 4097, "
         "\"moe_intermediate_size\": 32}",
         "4097", FORMAT},
        {"{\"model_type\": \"qwen3_moe\", \"vocab_size\": 67108864, \"hidden_size\": 1048576, "
         "\"num_hidden_layers\": 1024, \"num_attention_heads\": 16384, "
         "\"num_key_value_heads\": 16384, \"head_dim\": 16384, \"num_experts\": 4096, "
         "\"moe_intermediate_size\": 16777216}",
         "2^50", FORMAT},
        {QWEN3MOE ", \"num_experts_per_tok\": 0}", "num_experts_per_tok", FORMAT},
        {QWEN3MOE ", \"num_local_experts\": 8}", "num_local_experts", FORMAT},
        {QWEN3MOE ", \"decoder_sparse_step\": 0}", "decoder_sparse_step", FORMAT},
        {QWEN3MOE ", \"mlp_only_layers\": [4]}", "mlp_only_layers", FORMAT},
        {QWEN3MOE ", \"mlp_only_layers\": [-1]}", "mlp_only_layers", FORMAT},
        {QWEN3MOE ", \"mlp_only_layers\": 3}", "mlp_only_layers", FORMAT},
        {QWEN3MOE ", \"norm_topk_prob\": 1}", "norm_topk_prob", FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        model_config c;
        marco_status status = parse(cases[i].config, NULL, &c);
        if (status != cases[i].status || !strstr(error.message, cases[i].named))
            fail_msg("%s: %d \"%s\"", cases[i].config, status, error.message);
    }
}

/* What was refused above is so for its size alone: a config just under the limit is read. */
static void largest_sizes_are_counted(void **state)
{
    (void)state;
    model_config c;
    must_parse("{\"model_type\": \"llama\", \"vocab_size\": 1024, \"hidden_size\": 1048576, "
               "\"num_hidden_layers\": 18, \"num_attention_heads\": 128, "
               "\"intermediate_size\": 16777216}",
               NULL, &c);
    assert_true(model_config_total_params(&c) > MODEL_MAX_PARAMS * 9 / 10);
    assert_int_equal(
        parse("{\"model_type\": \"llama\", \"vocab_size\": 1024, \"hidden_size\": 1048576, "
              "\"num_hidden_layers\": 20, \"num_attention_heads\": 128, "
              "\"intermediate_size\": 16777216}",
              NULL, &c),
        FORMAT);
    c = memory_config(MODEL_QWEN3);
    c.n_experts_used = 1;
    assert_int_equal(model_config_check(&c, "here", &error), FORMAT);
}

static void unused_keys_are_listed(void **state)
{
    (void)state;
    json_t *names = json_array(), *config = NULL, *generation = NULL;
    const char *text = QWEN3MOE ", \"some_new_key\": 3, \"other\": null, \"use_mup\": false, "
                                "\"score_func\": \"softmax\"}";
    const char *more = "{\"no_repeat_ngram_size\": 3, \"top_k\": 20}";
    assert_int_equal(format_json_text("c", text, strlen(text), &config, NULL), MARCO_OK);
    assert_int_equal(format_json_text("g", more, strlen(more), &generation, NULL), MARCO_OK);
    assert_true(model_config_unused_hf(config, generation, names));
    assert_int_equal(json_array_size(names), 2);
    assert_string_equal(json_string_value(json_array_get(names, 0)), "some_new_key");
    assert_string_equal(json_string_value(json_array_get(names, 1)), "no_repeat_ngram_size");
    json_decref(names);
    json_decref(config);
    json_decref(generation);
}

/* ---- writing and reading back -------------------------------------------------------------- */

static void assert_same_config(const model_config *a, const model_config *b)
{
    assert_int_equal(a->arch, b->arch);
    assert_string_equal(a->provenance, b->provenance);
    assert_memory_equal(&a->n_layers, &b->n_layers,
                        offsetof(model_config, norm_topk_prob) - offsetof(model_config, n_layers));
    assert_memory_equal(a->layer_sparse, b->layer_sparse, (size_t)a->n_layers);
    assert_true(a->norm_topk_prob == b->norm_topk_prob && a->qk_norm == b->qk_norm);
    assert_true(a->tied == b->tied && a->rms_eps == b->rms_eps);
    assert_int_equal(a->n_ctx_train, b->n_ctx_train);
    assert_int_equal(a->n_eos, b->n_eos);
    assert_memory_equal(a->eos, b->eos, (size_t)a->n_eos * sizeof *a->eos);
    assert_true(a->do_sample == b->do_sample && a->temperature == b->temperature);
    assert_true(a->top_p == b->top_p && a->min_p == b->min_p && a->top_k == b->top_k);
    assert_true(a->repetition_penalty == b->repetition_penalty);
    assert_int_equal(a->rope.scaling, b->rope.scaling);
    assert_true(a->rope.theta == b->rope.theta && a->rope.factor == b->rope.factor);
    assert_true(a->rope.original_context == b->rope.original_context);
    assert_true(fabs(a->rope.attention_factor - b->rope.attention_factor) < 1e-6);
    assert_true(a->rope.low_freq_factor == b->rope.low_freq_factor);
    assert_true(a->rope.high_freq_factor == b->rope.high_freq_factor);
}

/* Every architecture with another RoPE, sampling and provenance. */
static model_config varied(model_arch arch)
{
    model_config c = memory_config(arch);
    strcpy(c.provenance, "made by \"hand\" \\ for a test");
    c.rms_eps = 1e-5;
    if (arch == MODEL_QWEN3) {
        c.rope.scaling = MODEL_ROPE_YARN;
        c.rope.factor = 4;
        c.rope.original_context = 64;
        c.rope.attention_factor = 1.25;
        c.n_ctx_train = 256;
    } else if (arch == MODEL_LLAMA) {
        c.rope.scaling = MODEL_ROPE_LLAMA3;
        c.rope.factor = 8;
        c.rope.original_context = 32;
        c.rope.low_freq_factor = 1.5;
        c.rope.high_freq_factor = 3;
    } else if (arch == MODEL_MIXTRAL) {
        c.rope.scaling = MODEL_ROPE_LINEAR;
        c.rope.factor = 2.5;
    }
    c.do_sample = arch != MODEL_LLAMA;
    if (c.do_sample) {
        c.temperature = 0.7;
        c.top_k = 20;
        c.top_p = 0.8;
        c.min_p = 0.05;
        c.repetition_penalty = 1.1;
    }
    return c;
}

static void folders_give_back_what_was_written(void **state)
{
    scratch *s = *state;
    for (model_arch arch = MODEL_LLAMA; arch <= MODEL_QWEN3MOE; arch++) {
        model_config c = varied(arch), read;
        if (arch == MODEL_QWEN3MOE) {
            c.layer_sparse[1] = false;
            c.ffn_dim = 96;
            c.norm_topk_prob = false;
        }
        assert_int_equal(model_config_check(&c, "here", &error), MARCO_OK);
        assert_int_equal(model_config_write_hf(&c, s->folder, TENSOR_BF16, &error), MARCO_OK);
        if (model_config_read_hf(s->folder, &read, &error) != MARCO_OK)
            fail_msg("%s", error.message);
        assert_same_config(&c, &read);
        remove(scratch_path(s, "config.json"));
        remove(scratch_path(s, "generation_config.json"));
    }
}

static void gguf_gives_back_what_was_written(void **state)
{
    scratch *s = *state;
    for (model_arch arch = MODEL_LLAMA; arch <= MODEL_QWEN3MOE; arch++) {
        const char *path = scratch_path(s, "a.gguf");
        model_config c = varied(arch), read;
        gguf *g = NULL;
        assert_int_equal(memory_write(&c, TENSOR_F32, -1, path, &error), MARCO_OK);
        assert_int_equal(gguf_open(path, &g, &error), MARCO_OK);
        if (model_config_read_gguf(g, &read, &error) != MARCO_OK)
            fail_msg("%s", error.message);
        assert_same_config(&c, &read);
        gguf_close(g);
        remove(path);
    }
}

static void gguf_refuses_what_it_cannot_say(void **state)
{
    scratch *s = *state;
    static const char *const named[] = {"norm_topk_prob", "mlp_only_layers", "llama3", "beta_fast"};
    for (int i = 0; i < 4; i++) {
        model_config c = memory_config(MODEL_QWEN3MOE);
        if (i == 0)
            c.norm_topk_prob = false;
        if (i == 1) {
            c.layer_sparse[1] = false;
            c.ffn_dim = 64;
        }
        if (i >= 2) {
            c.rope.scaling = i == 2 ? MODEL_ROPE_LLAMA3 : MODEL_ROPE_YARN;
            c.rope.original_context = 64;
            c.rope.beta_fast = 16;
        }
        assert_int_equal(memory_write(&c, TENSOR_F32, -1, scratch_path(s, "a.gguf"), &error),
                         MARCO_ERROR_UNSUPPORTED);
        assert_non_null(strstr(error.message, named[i]));
        assert_int_equal(scratch_count(s->folder), 0);
    }
}

/* model_config_text leaves no control characters in what is read, but whoever makes a configuration
 * otherwise may. */
static void strings_are_escaped(void **state)
{
    scratch *s = *state;
    model_config c = memory_config(MODEL_QWEN3), read;
    strcpy(c.provenance, "a\nb\x01\t\"c\\");
    assert_int_equal(model_config_write_hf(&c, s->folder, TENSOR_BF16, &error), MARCO_OK);
    if (model_config_read_hf(s->folder, &read, &error) != MARCO_OK)
        fail_msg("%s", error.message);
    assert_string_equal(read.provenance, "a b  \"c\\");
}

/* ---- GGUF metadata ------------------------------------------------------------------------- */

typedef void (*edit_fn)(gguf_writer *w);

/* A qwen3moe file of metadata alone, less `without`, and what `edit` adds. */
static marco_status read_metadata(const scratch *s, const char *without, edit_fn edit,
                                  model_config *c)
{
    static const struct {
        const char *key;
        uint32_t value;
    } keys[] = {
        {"qwen3moe.block_count", 3},
        {"qwen3moe.context_length", 64},
        {"qwen3moe.embedding_length", 32},
        {"qwen3moe.attention.head_count", 4},
        {"qwen3moe.attention.head_count_kv", 2},
        {"qwen3moe.expert_count", 8},
        {"qwen3moe.expert_used_count", 2},
        {"qwen3moe.expert_feed_forward_length", 16},
    };
    static const float data[32 * 10];
    const int64_t dims[2] = {32, 10};
    const char *path = scratch_path(s, "meta.gguf");
    gguf_writer *w = NULL;
    gguf *g = NULL;
    error = (marco_error){0};
    assert_int_equal(gguf_writer_create(path, true, &w, &error), MARCO_OK);
    gguf_put_string(w, "general.architecture", "qwen3moe");
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!without || strcmp(keys[i].key, without) != 0)
            gguf_put_u32(w, keys[i].key, keys[i].value);
    if (!without || strcmp(without, "eps") != 0)
        gguf_put_f32(w, "qwen3moe.attention.layer_norm_rms_epsilon", 1e-6f);
    if (edit)
        edit(w);
    gguf_put_tensor(w, "token_embd.weight", TENSOR_F32, 2, dims);
    if (gguf_writer_begin(w, &error) != MARCO_OK)
        fail_msg("%s", error.message);
    assert_int_equal(gguf_writer_data(w, data, sizeof data, &error), MARCO_OK);
    assert_int_equal(gguf_writer_commit(w, &error), MARCO_OK);
    assert_int_equal(gguf_open(path, &g, &error), MARCO_OK);
    marco_status status = model_config_read_gguf(g, c, &error);
    gguf_close(g);
    remove(path);
    return status;
}

static void put_same_lengths(gguf_writer *w)
{
    static const int32_t lengths[] = {16, 16, 16};
    gguf_put_array_i32(w, "qwen3moe.expert_feed_forward_length", lengths, 3);
}

static void put_other_lengths(gguf_writer *w)
{
    static const int32_t lengths[] = {16, 16, 8};
    gguf_put_array_i32(w, "qwen3moe.expert_feed_forward_length", lengths, 3);
}

static void gguf_absent_keys(void **state)
{
    model_config c;
    if (read_metadata(*state, NULL, NULL, &c) != MARCO_OK)
        fail_msg("%s", error.message);
    assert_true(c.norm_topk_prob);
    assert_true(c.tied);
    assert_true(c.qk_norm);
    assert_int_equal(c.head_dim, 8);
    assert_int_equal(c.n_vocab, 10);
    assert_true(c.rms_eps == 1e-6);
    assert_true(c.rope.theta == 10000 && c.rope.scaling == MODEL_ROPE_NONE);
    assert_true(c.layer_sparse[0] && c.layer_sparse[1] && c.layer_sparse[2]);
    assert_false(c.do_sample);
    assert_int_equal(read_metadata(*state, "qwen3moe.attention.head_count_kv", NULL, &c), MARCO_OK);
    assert_int_equal(c.n_kv_heads, 4);
    assert_int_equal(
        read_metadata(*state, "qwen3moe.expert_feed_forward_length", put_same_lengths, &c),
        MARCO_OK);
    assert_int_equal(c.expert_dim, 16);
    static const char *const needed[] = {"qwen3moe.block_count", "qwen3moe.expert_used_count",
                                         "qwen3moe.context_length", "eps"};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(read_metadata(*state, needed[i], NULL, &c), MARCO_ERROR_FORMAT);
}

static void put_bias(gguf_writer *w)
{
    gguf_put_f32(w, "qwen3moe.final_logit_softcapping", 30);
}
static void put_window(gguf_writer *w)
{
    gguf_put_u32(w, "qwen3moe.attention.sliding_window", 512);
}
static void put_no_window(gguf_writer *w)
{
    gguf_put_u32(w, "qwen3moe.attention.sliding_window", 0);
}
static void put_sigmoid(gguf_writer *w)
{
    gguf_put_u32(w, "qwen3moe.expert_gating_func", 2);
}
static void put_plain_topk(gguf_writer *w)
{
    gguf_put_bool(w, "qwen3moe.expert_weights_norm", false);
}
static void put_values(gguf_writer *w)
{
    gguf_put_u32(w, "qwen3moe.attention.value_length", 16);
}
static void put_longrope(gguf_writer *w)
{
    gguf_put_string(w, "qwen3moe.rope.scaling.type", "longrope");
}
static void put_nan(gguf_writer *w)
{
    gguf_put_f32(w, "qwen3moe.rope.freq_base", NAN);
}
static void put_vocab(gguf_writer *w)
{
    gguf_put_u32(w, "qwen3moe.vocab_size", 11);
}
static void put_sampling(gguf_writer *w)
{
    gguf_put_f32(w, "general.sampling.temp", 0.6f);
    gguf_put_u32(w, "general.sampling.top_k", 20);
}

static void gguf_refusals(void **state)
{
    static const struct {
        edit_fn edit;
        const char *without, *named;
        marco_status status;
    } cases[] = {
        {put_bias, NULL, "final_logit_softcapping", UNSUPPORTED},
        {put_window, NULL, "sliding_window", UNSUPPORTED},
        {put_sigmoid, NULL, "expert_gating_func", UNSUPPORTED},
        {put_plain_topk, NULL, "expert_weights_norm", UNSUPPORTED},
        {put_values, NULL, "values (16)", UNSUPPORTED},
        {put_longrope, NULL, "longrope", UNSUPPORTED},
        {put_nan, NULL, "freq_base", FORMAT},
        {put_vocab, NULL, "vocab_size", FORMAT},
        {put_other_lengths, "qwen3moe.expert_feed_forward_length", "layer to layer", UNSUPPORTED},
    };
    model_config c;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        marco_status status = read_metadata(*state, cases[i].without, cases[i].edit, &c);
        if (status != cases[i].status || !strstr(error.message, cases[i].named))
            fail_msg("%s: %d \"%s\"", cases[i].named, status, error.message);
    }
    assert_int_equal(read_metadata(*state, NULL, put_no_window, &c), MARCO_OK);
    assert_int_equal(read_metadata(*state, NULL, put_sampling, &c), MARCO_OK);
    assert_true(c.do_sample && c.temperature == 0.6 && c.top_k == 20);
}

/* ---- counting ------------------------------------------------------------------------------ */

static void parameters_of_known_models(void **state)
{
    (void)state;
    model_config c;
    must_parse(
        "{\"model_type\": \"qwen3_moe\", \"vocab_size\": 151936, \"hidden_size\": 1024, "
        "\"num_hidden_layers\": 28, \"num_attention_heads\": 16, \"num_key_value_heads\": 8, "
        "\"head_dim\": 128, \"num_experts\": 256, \"num_experts_per_tok\": 8, "
        "\"moe_intermediate_size\": 768, \"norm_topk_prob\": true, "
        "\"tie_word_embeddings\": true}",
        NULL, &c);
    int64_t active = 0, total = 0;
    size_t n = model_config_tensors(&c, NULL, 0);
    model_tensor *tensors = calloc(n, sizeof *tensors);
    assert_int_equal(model_config_tensors(&c, tensors, n), n);
    for (size_t i = 0; i < n; i++) {
        const model_tensor *t = &tensors[i];
        total += t->mats * t->rows * t->cols;
        active += (t->mats > 1 ? 8 : 1) * t->rows * t->cols;
    }
    free(tensors);
    assert_true(model_config_total_params(&c) == total);
    assert_true(model_config_active_params(&c) == active);
    assert_int_equal((total + 5000000) / 10000000, 1725); /* 17.25 B */
    assert_int_equal((active + 500000) / 1000000, 868);   /* 0.868 B */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absent_keys_mean_the_class_defaults),
        cmocka_unit_test(sparse_layers_follow_step_and_list),
        cmocka_unit_test(rope_is_read_in_both_spellings),
        cmocka_unit_test(generation_config_wins),
        cmocka_unit_test(unsupported_is_refused_by_name),
        cmocka_unit_test(neutral_values_are_not_refused),
        cmocka_unit_test(contradictions_and_nonsense_are_errors),
        cmocka_unit_test(largest_sizes_are_counted),
        cmocka_unit_test(unused_keys_are_listed),
        SCRATCH_TEST(folders_give_back_what_was_written),
        SCRATCH_TEST(strings_are_escaped),
        SCRATCH_TEST(gguf_gives_back_what_was_written),
        SCRATCH_TEST(gguf_refuses_what_it_cannot_say),
        SCRATCH_TEST(gguf_absent_keys),
        SCRATCH_TEST(gguf_refusals),
        cmocka_unit_test(parameters_of_known_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
