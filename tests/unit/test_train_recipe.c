/* Recipes: what is read, refused, completed and compared. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/memory.h"
#include "scratch.h"
#include "train/json.h"
#include "train/recipe.h"

#define RANDOM                                                                                     \
    "\"model\": {\"architecture\": \"qwen3moe\", \"tokenizer\": \"tok\", \"layers\": 2, "          \
    "\"dim\": 64, \"heads\": 4, \"kv_heads\": 2, \"experts\": 8, \"experts_used\": 2, "            \
    "\"expert_dim\": 32}"
#define DATA  "\"data\": {\"sources\": [\"en\", {\"path\": \"/fr\", \"weight\": 2.5}]}"
#define LEAST "{" RANDOM ", " DATA ", \"steps\": 10"

static const char *put(const scratch *s, const char *name, const char *text)
{
    const char *path = scratch_path(s, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return path;
}

static train_recipe *read_text(const scratch *s, const char *text, const char *set)
{
    train_recipe *r = NULL;
    marco_error error = {0};
    const char *path = put(s, "recipe.json", text);
    if (train_recipe_read(path, set ? &set : NULL, set ? 1 : 0, &r, &error) != MARCO_OK)
        fail_msg("%s", error.message);
    return r;
}

/* The recipe is refused with a message that holds `says`. */
static void refuse(const scratch *s, const char *text, const char *set, const char *says)
{
    train_recipe *r = NULL;
    marco_error error = {0};
    const char *path = put(s, "recipe.json", text);
    marco_status status = train_recipe_read(path, set ? &set : NULL, set ? 1 : 0, &r, &error);
    if (status == MARCO_OK || !strstr(error.message, says))
        fail_msg("%s %s: expected \"%s\", got \"%s\"", text, set ? set : "", says,
                 status ? error.message : "nothing");
    assert_null(r);
}

static void defaults_are_filled_in(void **state)
{
    const scratch *s = *state;
    train_recipe *r = read_text(s, LEAST "}", NULL);
    char real[PATH_MAX], expected[PATH_MAX + 8];
    assert_non_null(realpath(s->folder, real));
    snprintf(expected, sizeof(expected), "%s/en", real);
    assert_int_equal(r->n_sources, 2);
    assert_string_equal(r->sources[0].path, expected);
    assert_string_equal(r->sources[1].path, "/fr");
    assert_float_equal(r->sources[0].weight, 1, 0);
    assert_float_equal(r->sources[1].weight, 2.5, 0);
    assert_null(r->model);
    assert_int_equal(r->random.head_dim, 16);
    assert_int_equal(r->random.n_kv_heads, 2);
    assert_int_equal(r->random.n_ctx_train, r->seq_len);
    assert_true(r->random.layer_sparse[1] && r->random.qk_norm && r->random.tied);
    assert_int_equal(r->schedule.steps, 10);
    assert_int_equal(r->schedule.kind, TRAIN_COSINE);
    assert_int_equal(r->routing.balance, TRAIN_BALANCE_GLOBAL);
    assert_int_equal(r->choice.type, TENSOR_F32);
    assert_int_equal(r->choice.n_train, 0);
    train_recipe_free(r);
}

static void every_setting_can_be_given(void **state)
{
    const scratch *s = *state;
    train_recipe *r = read_text(
        s,
        "{\"model\": \"../parent\", \"data\": {\"kind\": \"chat\", \"sources\": [\"a\"], "
        "\"temperature\": 0.5}, \"seq_len\": 128, \"batch\": 4, \"micro_batch\": 2, "
        "\"steps\": 100, \"seed\": 7, \"optimizer\": {\"lr\": 1e-3, \"min_lr\": 1e-4, "
        "\"beta1\": 0.8, \"beta2\": 0.99, \"eps\": 1e-7, \"weight_decay\": 0, "
        "\"decay_norms\": true, \"decay_embeddings\": true, \"clip\": 0.5, \"skip\": 5}, "
        "\"schedule\": {\"kind\": \"wsd\", \"warmup\": 5, \"decay\": 20}, "
        "\"balance\": {\"kind\": \"bias\", \"bias_rate\": 0.01, \"z_loss\": 0.001}, "
        "\"dropout\": {\"what\": \"paths\", \"per\": \"token\", \"rate\": 0.5, "
        "\"end_rate\": 0.1, \"end_step\": 40}, \"train\": [\"router\", \"blk.0.*\"], "
        "\"freeze\": [\"norms\"], \"lora\": {\"rank\": 4, \"alpha\": 8, \"experts\": false}, "
        "\"weights\": \"bf16\", \"recompute\": true, \"valid\": {\"every\": 0}, "
        "\"checkpoint\": {\"every\": 10, \"keep_last\": 3, \"keep_every\": 50}, "
        "\"log_load_every\": 0, \"parallel\": {\"experts\": 2}}",
        NULL);
    assert_true(r->chat && r->recompute && r->choice.decay_norms && r->choice.lora_attention);
    assert_false(r->choice.lora_experts);
    assert_true(strstr(r->model, "/../parent") != NULL && r->model[0] == '/');
    assert_int_equal(r->schedule.kind, TRAIN_WSD);
    assert_int_equal(r->schedule.decay, 20);
    assert_int_equal(r->routing.balance, TRAIN_BALANCE_BIAS);
    assert_int_equal(r->routing.dropout, TRAIN_DROP_PATHS);
    assert_true(r->routing.dropout_per_token);
    assert_int_equal(r->choice.type, TENSOR_BF16);
    assert_int_equal(r->choice.lora_rank, 4);
    assert_int_equal(r->choice.seed, 7);
    assert_string_equal(r->choice.train[1], "blk.0.*");
    assert_string_equal(r->choice.freeze[0], "norms");
    assert_int_equal(r->expert_processes, 2);
    assert_float_equal(train_recipe_drop(r, 0), 0.5, 1e-12);
    assert_float_equal(train_recipe_drop(r, 20), 0.3, 1e-12);
    assert_float_equal(train_recipe_drop(r, 40), 0.1, 1e-12);
    assert_float_equal(train_recipe_drop(r, 99), 0.1, 1e-12);
    train_recipe_free(r);
}

static void the_complete_recipe_reads_back_the_same(void **state)
{
    const scratch *s = *state;
    static const char *const texts[] = {
        LEAST "}",
        LEAST ", \"optimizer\": {\"lr\": 0.1, \"eps\": 1e-9}, \"train\": [\"experts\"], "
              "\"dropout\": {\"what\": \"experts\", \"rate\": 0.25, \"end_rate\": 0}}",
        "{\"model\": \"m.gguf\", " DATA ", \"steps\": 3, \"seed\": 9007199254740992}",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        train_recipe *first = read_text(s, texts[i], NULL);
        char *text = train_recipe_text(first);
        assert_non_null(text);
        train_recipe *second = read_text(s, text, NULL);
        char *again = train_recipe_text(second);
        assert_string_equal(text, again);
        assert_true(first->drop_end == second->drop_end && first->drop_steps == second->drop_steps);
        base_free(text);
        base_free(again);
        train_recipe_free(first);
        train_recipe_free(second);
    }
}

static void overrides_win(void **state)
{
    const scratch *s = *state;
    const char *const set[] = {"optimizer.lr=0.5",       "steps=99",
                               "data.sources=[\"/x\"]",  "train=[\"router\"]",
                               "schedule.kind=constant", "recompute=true"};
    train_recipe *r = NULL;
    const char *path = put(s, "recipe.json", LEAST ", \"optimizer\": {\"lr\": 1}}");
    assert_int_equal(train_recipe_read(path, set, 6, &r, NULL), MARCO_OK);
    assert_float_equal(r->schedule.lr, 0.5, 0);
    assert_int_equal(r->schedule.steps, 99);
    assert_int_equal(r->n_sources, 1);
    assert_string_equal(r->sources[0].path, "/x");
    assert_string_equal(r->choice.train[0], "router");
    assert_int_equal(r->schedule.kind, TRAIN_CONSTANT);
    assert_true(r->recompute);
    train_recipe_free(r);
    /* A path in place of the shape; typed paths begin where one is. */
    r = read_text(s, LEAST "}", "model=parent.gguf");
    char here[PATH_MAX], expected[PATH_MAX + 16];
    assert_non_null(getcwd(here, sizeof(here)));
    snprintf(expected, sizeof(expected), "%s/parent.gguf", here);
    assert_string_equal(r->model, expected);
    train_recipe_free(r);
    /* A shape in place of the path. */
    r = read_text(s, "{\"model\": \"m\", " DATA ", \"steps\": 1}",
                  "model={\"architecture\": \"llama\", \"tokenizer\": \"/t\", \"layers\": 1, "
                  "\"dim\": 8, \"heads\": 2, \"ffn_dim\": 16}");
    assert_null(r->model);
    assert_int_equal(r->random.arch, MODEL_LLAMA);
    assert_false(r->random.qk_norm);
    train_recipe_free(r);
}

static void a_recipe_of_overrides_alone(void **state)
{
    (void)state;
    const char *const set[] = {"model=/m", "data.sources=[\"/d\"]", "steps=5"};
    train_recipe *r = NULL;
    assert_int_equal(train_recipe_read(NULL, set, 3, &r, NULL), MARCO_OK);
    assert_string_equal(r->model, "/m");
    train_recipe_free(r);
}

static void unknown_keys_name_the_nearest(void **state)
{
    const scratch *s = *state;
    refuse(s, LEAST ", \"lr\": 1}", NULL,
           "recipe.json: there is no setting \"lr\"; the nearest is \"optimizer.lr\"");
    refuse(s, LEAST ", \"optimizer\": {\"learning_rate\": 1}}", NULL,
           "no setting \"optimizer.learning_rate\"");
    refuse(s, LEAST ", \"optimiser\": {\"lr\": 1}}", NULL, "the nearest is \"optimizer.lr\"");
    refuse(s, LEAST ", \"seqlen\": 1}", NULL, "the nearest is \"seq_len\"");
    refuse(s, LEAST ", \"zzzzzzzzzzzzzzzz\": 1}", NULL, "docs/training.md");
    refuse(s, LEAST "}", "optimizer.beta3=1",
           "--set: there is no setting \"optimizer.beta3\"; the nearest is \"optimizer.beta");
    refuse(s, LEAST ", \"model\": 3, \"x\": 1}", NULL, "duplicate");
    refuse(s, LEAST ", \"optimizer.lr\": 1, \"optimizer\": {\"lr\": 2}}", NULL, "given twice");
}

static void values_out_of_range_name_key_and_file(void **state)
{
    const scratch *s = *state;
    refuse(s, LEAST ", \"optimizer\": {\"lr\": -1}}", NULL, "recipe.json: \"optimizer.lr\" is -1");
    refuse(s, LEAST ", \"batch\": 0}", NULL, "recipe.json: \"batch\" is 0");
    refuse(s, LEAST ", \"seq_len\": 1.5}", NULL,
           "recipe.json: \"seq_len\" is a number with a fraction");
    refuse(s, LEAST ", \"recompute\": 1}", NULL, "true or false");
    refuse(s, LEAST "}", "steps=0", "--set: \"steps\" is 0");
    refuse(s, LEAST "}", "schedule.kind=linear", "constant, cosine, wsd");
    refuse(s, LEAST ", \"optimizer\": 3}", NULL,
           "\"optimizer\" is an integer where an object belongs");
    refuse(s, LEAST ", \"train\": [1]}", NULL, "entry 1 is no pattern");
    refuse(s, LEAST ", \"train\": \"router\"}", NULL, "array of strings");
    refuse(s, LEAST "}", "steps", "equals sign");
    refuse(s, LEAST "}", "schedule.warmup=11", "more than \"steps\"");
    refuse(s, LEAST "}", "optimizer.min_lr=0.1", "more than \"optimizer.lr\"");
    refuse(s, LEAST ", \"batch\": 1000000, \"seq_len\": 4096}", NULL, "tokens a step");
    refuse(s, "[]", NULL, "not the object");
    refuse(s, "{", NULL, "line 1");
    refuse(s, "{" RANDOM ", " DATA "}", NULL, "\"steps\" is missing");
    refuse(s, "{" RANDOM ", \"steps\": 1}", NULL, "\"data.sources\" is missing");
    refuse(s, LEAST "}", "data.sources=[]", "--set: \"data.sources\" is missing or empty");
    refuse(s, LEAST "}", "data.sources=a/en",
           "--set: \"data.sources\" is a string where an array of folders belongs");
    refuse(s, "{" DATA ", \"steps\": 1}", NULL, "\"model\" is missing");
    refuse(s,
           "{" RANDOM
           ", \"data\": {\"sources\": [{\"path\": \"a\", \"wieght\": 1}]}, \"steps\": 1}",
           NULL, "unknown setting \"wieght\"");
    refuse(s, "{" RANDOM ", \"data\": {\"sources\": [3]}, \"steps\": 1}", NULL, "must be a path");
    refuse(s, LEAST ", \"data.kind\": \"chat\", \"data.attend_across\": true}", NULL,
           "attend_across");
    refuse(s, LEAST "}", "model.architecture=llama", "\"model.ffn_dim\"");
    refuse(s, LEAST "}", "model.experts_used=9", "more than the 8");
    refuse(s, LEAST "}", "model.heads=5", "does not divide");
}

static void settings_without_effect_are_refused(void **state)
{
    static const char *const cases[][2] = {
        {"dropout.rate=0.2",
         "--set: \"dropout.rate\" has no effect as \"dropout.what\" is; set that "
         "to \"experts\" or \"paths\", or leave \"dropout.rate\" out"},
        {"dropout.end_rate=0.2", "as \"dropout.what\" is"},
        {"dropout.end_step=3", "as \"dropout.what\" is"},
        {"dropout.per=token", "as \"dropout.what\" is"},
        {"dropout={\"what\": \"paths\", \"rate\": 0.1, \"end_step\": 3}",
         "as \"dropout.end_rate\" is"},
        {"lora.alpha=8", "as \"lora.rank\" is"},
        {"lora.attention=false", "as \"lora.rank\" is"},
        {"lora.experts=false", "as \"lora.rank\" is"},
        {"balance.bias_rate=0.1", "as \"balance.kind\" is"},
        {"balance={\"kind\": \"none\", \"coefficient\": 0.1}", "as \"balance.kind\" is"},
        {"balance={\"kind\": \"bias\", \"coefficient\": 0.1}", "as \"balance.kind\" is"},
        {"schedule.decay=3", "as \"schedule.kind\" is"},
        {"schedule={\"kind\": \"constant\", \"decay\": 3}", "as \"schedule.kind\" is"},
        {"model.ffn_dim=64", "as \"model.architecture\" is"}};
    const scratch *s = *state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        refuse(s, LEAST "}", cases[i][0], cases[i][1]);
    refuse(s, LEAST ", \"schedule\": {\"kind\": \"constant\"}}", "optimizer.min_lr=1e-5",
           "--set: \"optimizer.min_lr\" has no effect as \"schedule.kind\" is");
    refuse(s, LEAST ", \"optimizer\": {\"min_lr\": 1e-5}, \"schedule\": {\"kind\": \"wsd\"}}", NULL,
           "recipe.json: \"optimizer.min_lr\" has no effect as \"schedule.decay\" is");
    /* At their defaults they are no offence. */
    train_recipe_free(read_text(s, LEAST ", \"lora\": {\"alpha\": 32, \"rank\": 0}}", NULL));
    train_recipe_free(read_text(s, LEAST "}", "model.ffn_dim=0"));
}

/* --set that switches something off takes along what the file says about it, and what comes of it
 * reads back. */
static void overrides_switch_off_with_all_details(void **state)
{
    static const char file[] =
        LEAST ", \"dropout\": {\"what\": \"experts\", \"rate\": 0.2, \"per\": \"token\"}, "
              "\"balance\": {\"coefficient\": 0.5}, \"lora\": {\"rank\": 4, \"alpha\": 8}, "
              "\"schedule\": {\"kind\": \"wsd\", \"decay\": 4}, \"optimizer\": {\"min_lr\": 1e-5}}";
    static const char *const sets[] = {"dropout.what=none", "dropout.what=null",
                                       "balance.kind=bias", "lora.rank=0",
                                       "schedule.kind=constant"};
    const scratch *s = *state;
    for (size_t i = 0; i < sizeof(sets) / sizeof(*sets); i++) {
        train_recipe *r = read_text(s, file, sets[i]);
        if (i < 2)
            assert_true(r->drop_rate == 0 && r->drop_end == 0 && !r->routing.dropout_per_token);
        else if (i == 2)
            assert_true(r->routing.coefficient == 0.01);
        else if (i == 3)
            assert_true(r->choice.lora_alpha == 32);
        else
            assert_true(r->schedule.decay == 0 && r->schedule.min_lr == 0);
        char *text = train_recipe_text(r);
        train_recipe_free(read_text(s, text, NULL));
        base_free(text);
        train_recipe_free(r);
    }
    refuse(s, LEAST "}", "balance={\"kind\": \"none\", \"coefficient\": 0.5}", "has no effect");
}

static void dense_models_have_no_experts(void **state)
{
    static const char *const cases[][2] = {
        {"balance.kind=switch", "\"balance.kind\" is for models with experts"},
        {"balance.z_loss=0.001", "\"balance.z_loss\""},
        {"balance.coefficient=0.001", "\"balance.coefficient\""},
        {"dropout={\"what\": \"experts\", \"rate\": 0.1}", "\"dropout.what\""},
        {"balance.kind=none", NULL},
        {"balance.kind=global", NULL},
        {"steps=3", NULL}};
    model_config dense, sparse;
    model_config_init(&dense);
    model_config_init(&sparse);
    sparse.n_experts = 8;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        marco_error error = {0};
        train_recipe *r = read_text(*state, LEAST "}", cases[i][0]);
        assert_int_equal(train_recipe_suits(r, &sparse, NULL), MARCO_OK);
        marco_status status = train_recipe_suits(r, &dense, &error);
        assert_int_equal(status != MARCO_OK, cases[i][1] != NULL);
        if (status && !strstr(error.message, cases[i][1]))
            fail_msg("%s: %s", cases[i][0], error.message);
        train_recipe_free(r);
    }
}

static void a_run_goes_on_by_its_recipe_alone(void **state)
{
    const scratch *s = *state;
    train_recipe *first = read_text(s, LEAST "}", NULL);
    char *text = train_recipe_text(first);
    char earlier[384];
    bool moved = true;
    snprintf(earlier, sizeof(earlier), "%s", put(s, "earlier.json", text));
    base_free(text);
    train_recipe_free(first);
    static const char *const fine[] = {
        "steps=20",
        "micro_batch=1",
        "checkpoint.every=1",
        "optimizer.lr=1e-5",
        "optimizer.min_lr=1e-6",
        "optimizer.clip=0.1",
        "model.tokenizer=/moved",
        "data.sources=[\"/elsewhere\",{\"path\":\"b\",\"weight\":2.5}]"};
    for (size_t i = 0; i < sizeof(fine) / sizeof(*fine); i++) {
        train_recipe *r = read_text(s, LEAST "}", fine[i]);
        assert_int_equal(train_recipe_goes_on(r, earlier, &moved, NULL), MARCO_OK);
        assert_false(moved);
        train_recipe_free(r);
    }
    static const char *const refused[][2] = {
        {"optimizer.eps=0.5", "optimizer.eps"}, {"model=/m", "model.architecture"},
        {"model.layers=3", "model.layers"},     {"data.sources=[\"/en\"]", "data.sources"},
        {"train=[\"router\"]", "\"train\""},    {"seed=1", "\"seed\" 0"}};
    for (size_t i = 0; i < 6; i++) {
        marco_error error = {0};
        train_recipe *r = read_text(s, LEAST "}", refused[i][0]);
        assert_int_equal(train_recipe_goes_on(r, earlier, &moved, &error), MARCO_ERROR_ARGUMENT);
        if (!strstr(error.message, refused[i][1]))
            fail_msg("%s: %s", refused[i][0], error.message);
        train_recipe_free(r);
    }
}

/* Whether a run that was begun with `first` over the least recipe may go on with `then`. */
static bool goes_on(const scratch *s, const char *least, const char *const *first,
                    const char *const *then, bool *moved)
{
    train_recipe *a = NULL, *b = NULL;
    marco_error error = {0};
    const char *path = put(s, "recipe.json", least);
    assert_int_equal(train_recipe_read(path, first, 2, &a, &error), MARCO_OK);
    assert_int_equal(train_recipe_read(path, then, 2, &b, &error), MARCO_OK);
    char *text = train_recipe_text(a);
    bool fine = train_recipe_goes_on(b, put(s, "earlier.json", text), moved, &error) == MARCO_OK;
    base_free(text);
    train_recipe_free(a);
    train_recipe_free(b);
    return fine;
}

static void what_follows_steps_goes_on_with_more(void **state)
{
    bool moved;
    static const char drops[] =
        LEAST ", \"dropout\": {\"what\": \"experts\", \"rate\": 0.5, \"end_rate\": 0}}";
    static const char *const ten[] = {"steps=10", "seed=0"},
                             *const twenty[] = {"steps=20", "seed=0"},
                             *const five[] = {"steps=20", "dropout.end_step=5"},
                             *const six[] = {"steps=20", "dropout.end_step=6"};
    assert_true(goes_on(*state, drops, ten, twenty, &moved));
    assert_true(goes_on(*state, drops, five, five, &moved));
    assert_false(goes_on(*state, drops, five, six, &moved));
    assert_false(goes_on(*state, drops, ten, five, &moved));
    assert_false(goes_on(*state, drops, five, ten, &moved));
}

/* A checkpoint's path may be another, a shape in its place is another run. */
static void the_model_may_have_moved(void **state)
{
    bool moved;
    static const char *const here[] = {"model=/here", "seed=0"},
                             *const there[] = {"model=/there", "seed=0"},
                             *const shape[] = {"steps=10", "seed=0"};
    assert_true(goes_on(*state, LEAST "}", here, here, &moved));
    assert_false(moved);
    assert_true(goes_on(*state, LEAST "}", here, there, &moved));
    assert_true(moved);
    assert_false(goes_on(*state, LEAST "}", here, shape, &moved));
    assert_false(goes_on(*state, LEAST "}", shape, here, &moved));
}

static void numbers_come_back_exactly(void **state)
{
    (void)state;
    const float floats[] = {0.1f, -0.0f, 1e-38f, 3.4e38f, 1.0f, -1234567.875f};
    float back[6] = {0};
    json_t *json = train_json_floats(floats, 6);
    char *text = train_json_text(json);
    json_t *again = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_true(train_json_to_floats(again, back, 6));
    assert_memory_equal(floats, back, sizeof(floats));
    assert_false(train_json_to_floats(again, back, 5));
    base_free(text);
    json_decref(json);
    json_decref(again);
}

static void running_out_of_memory_leaves_nothing(void **state)
{
    const scratch *s = *state;
    const char *path = put(s, "recipe.json", LEAST ", \"train\": [\"router\"]}");
    const char *set = "optimizer.lr=0.5";
    json_set_alloc_funcs(base_alloc, base_free);
    bool done = false;
    for (uint64_t n = 1; !done; n++) {
        train_recipe *r = NULL;
        base_alloc_fail_at(n);
        marco_status status = train_recipe_read(path, &set, 1, &r, NULL);
        base_alloc_fail_at(0);
        done = status == MARCO_OK;
        /* jansson calls some failures of its own errors in the text. */
        assert_true(done || r == NULL);
        train_recipe_free(r);
        assert_true(n < 5000);
    }
    json_set_alloc_funcs(malloc, free);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCRATCH_TEST(defaults_are_filled_in),
        SCRATCH_TEST(every_setting_can_be_given),
        SCRATCH_TEST(the_complete_recipe_reads_back_the_same),
        SCRATCH_TEST(overrides_win),
        SCRATCH_TEST(a_recipe_of_overrides_alone),
        SCRATCH_TEST(unknown_keys_name_the_nearest),
        SCRATCH_TEST(values_out_of_range_name_key_and_file),
        SCRATCH_TEST(settings_without_effect_are_refused),
        SCRATCH_TEST(overrides_switch_off_with_all_details),
        SCRATCH_TEST(dense_models_have_no_experts),
        SCRATCH_TEST(a_run_goes_on_by_its_recipe_alone),
        SCRATCH_TEST(what_follows_steps_goes_on_with_more),
        SCRATCH_TEST(the_model_may_have_moved),
        SCRATCH_TEST(numbers_come_back_exactly),
        SCRATCH_TEST(running_out_of_memory_leaves_nothing),
    };
    return cmocka_run_group_tests_name("recipes of training", tests, NULL, NULL);
}
