/* What a configuration's tensors, texts, numbers and frequencies come out as in files. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "memory_source.h"
#include "model/config_internal.h"
#include "model/rope.h"

static void tensors_have_the_names_of_both_formats(void **state)
{
    (void)state;
    static const struct {
        model_arch arch;
        model_role role;
        const char *gguf, *hf; /* of layer 7 and matrix 5 */
    } cases[] = {
        {MODEL_LLAMA, MODEL_TOKEN_EMBD, "token_embd.weight", "model.embed_tokens.weight"},
        {MODEL_LLAMA, MODEL_OUTPUT_NORM, "output_norm.weight", "model.norm.weight"},
        {MODEL_LLAMA, MODEL_OUTPUT, "output.weight", "lm_head.weight"},
        {MODEL_LLAMA, MODEL_FFN_NORM, "blk.7.ffn_norm.weight",
         "model.layers.7.post_attention_layernorm.weight"},
        {MODEL_LLAMA, MODEL_FFN_DOWN, "blk.7.ffn_down.weight",
         "model.layers.7.mlp.down_proj.weight"},
        {MODEL_QWEN3, MODEL_ATTN_OUT, "blk.7.attn_output.weight",
         "model.layers.7.self_attn.o_proj.weight"},
        {MODEL_QWEN3, MODEL_ATTN_K_NORM, "blk.7.attn_k_norm.weight",
         "model.layers.7.self_attn.k_norm.weight"},
        {MODEL_QWEN3MOE, MODEL_ROUTER, "blk.7.ffn_gate_inp.weight",
         "model.layers.7.mlp.gate.weight"},
        {MODEL_QWEN3MOE, MODEL_EXPERT_UP, "blk.7.ffn_up_exps.weight",
         "model.layers.7.mlp.experts.5.up_proj.weight"},
        {MODEL_MIXTRAL, MODEL_ROUTER, "blk.7.ffn_gate_inp.weight",
         "model.layers.7.block_sparse_moe.gate.weight"},
        {MODEL_MIXTRAL, MODEL_EXPERT_GATE, "blk.7.ffn_gate_exps.weight",
         "model.layers.7.block_sparse_moe.experts.5.w1.weight"},
        {MODEL_MIXTRAL, MODEL_EXPERT_DOWN, "blk.7.ffn_down_exps.weight",
         "model.layers.7.block_sparse_moe.experts.5.w2.weight"},
        {MODEL_MIXTRAL, MODEL_EXPERT_UP, "blk.7.ffn_up_exps.weight",
         "model.layers.7.block_sparse_moe.experts.5.w3.weight"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool outside = cases[i].role <= MODEL_OUTPUT;
        const model_config c = memory_config(cases[i].arch);
        const model_tensor t = {cases[i].role, outside ? -1 : 7, TENSOR_F32, 1, 1, 1};
        char name[128];
        model_tensor_gguf_name(&t, name);
        assert_string_equal(name, cases[i].gguf);
        model_tensor_hf_name(&c, &t, 5, name);
        assert_string_equal(name, cases[i].hf);
    }
}

static void text_is_made_one_line_of_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
        size_t size;
    } cases[] = {
        {"plain", "plain", 16}, {"a\nb\tc", "a b c", 16},
        {"\xff\xc3", "??", 16}, {"\xc3\xa9t\xc3\xa9", "\xc3\xa9t", 5},
        {"abcdef", "abc", 4},   {"", "", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[16];
        model_config_text(cases[i].text, strlen(cases[i].text), out, cases[i].size);
        assert_string_equal(out, cases[i].want);
    }
}

/* The factors of a GGUF file and the frequencies that the model turns by are the same thing. */
static void rope_factors_divide_the_frequencies(void **state)
{
    (void)state;
    model_config c = memory_config(MODEL_LLAMA), plain = c;
    c.rope.scaling = MODEL_ROPE_LLAMA3;
    c.rope.original_context = 32;
    float factors[16], scaled[16], unscaled[16], magnitude;
    c.rope.factor = 7;
    c.rope.theta = plain.rope.theta = 5e5;
    model_rope_llama3_factors(&c.rope, 32, factors);
    model_rope_frequencies(&c, scaled, &magnitude);
    assert_true(magnitude == 1);
    model_rope_frequencies(&plain, unscaled, &magnitude);
    assert_true(factors[0] == 1 && factors[15] == 7);
    for (int i = 0; i < 16; i++)
        assert_true(fabsf(scaled[i] * factors[i] / unscaled[i] - 1) < 1e-6f);
    c.rope.scaling = MODEL_ROPE_YARN;
    model_rope_frequencies(&c, scaled, &magnitude);
    assert_true(magnitude == (float)(0.1 * log(7) + 1));
    assert_true(magnitude == (float)model_rope_magnitude(&c.rope));
    c.rope.attention_factor = 1.5;
    model_rope_frequencies(&c, scaled, &magnitude);
    assert_true(magnitude == 1.5f);
}

static void numbers_are_spelt_shortest(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{1e-6, "1e-06"},
                 {1e6, "1000000.0"},
                 {0.7, "0.7"},
                 {1.25, "1.25"},
                 {-3, "-3.0"},
                 {1e300, "1e+300"},
                 {0.1 + 0.2, "0.30000000000000004"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[32];
        model_number_text(cases[i].value, text);
        assert_string_equal(text, cases[i].text);
    }
    assert_true(model_number_of_float((double)1e-6f) == 1e-6);
    assert_true(model_number_of_float((double)0.7f) == 0.7);
    assert_true(model_number_of_float(0.1) == 0.1); /* no F32: left alone */
    assert_true((float)model_number_of_float((double)1.0000001f) == 1.0000001f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_have_the_names_of_both_formats),
        cmocka_unit_test(text_is_made_one_line_of_utf8),
        cmocka_unit_test(rope_factors_divide_the_frequencies),
        cmocka_unit_test(numbers_are_spelt_shortest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
