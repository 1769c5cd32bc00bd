/* Settings that would change nothing: who gives one means something, and is told what is missing.
 * The complete recipe has every setting, so that one that is at its default is no offence. */
#include <string.h>

#include "base/error.h"
#include "train/recipe_table.h"

typedef bool (*off_fn)(const train_recipe *r);

/* A setting and what switches it off. */
typedef struct effect {
    const char *key, *by; /* `by` governs `key` */
    off_fn off;           /* as the recipe has it */
    const char *instead;  /* for the message: "set ..." */
} effect;

static bool no_decay(const train_recipe *r)
{
    return r->schedule.kind == TRAIN_CONSTANT;
}

static bool no_descent(const train_recipe *r)
{
    return r->schedule.kind == TRAIN_WSD && r->schedule.decay == 0;
}

static bool no_wsd(const train_recipe *r)
{
    return r->schedule.kind != TRAIN_WSD;
}

static bool no_balance_loss(const train_recipe *r)
{
    return r->routing.balance == TRAIN_BALANCE_NONE || r->routing.balance == TRAIN_BALANCE_BIAS;
}

static bool no_bias(const train_recipe *r)
{
    return r->routing.balance != TRAIN_BALANCE_BIAS;
}

static bool no_dropout(const train_recipe *r)
{
    return r->routing.dropout == TRAIN_DROP_NONE;
}

static bool no_slope(const train_recipe *r)
{
    return r->drop_end == r->drop_rate;
}

static bool no_adapters(const train_recipe *r)
{
    return r->choice.lora_rank == 0;
}

static bool sparse(const train_recipe *r)
{
    return r->random.arch == MODEL_QWEN3MOE;
}

static const effect effects[] = {
    {"optimizer.min_lr", "schedule.kind", no_decay, "\"cosine\" or \"wsd\""},
    {"optimizer.min_lr", "schedule.decay", no_descent, "the steps of the way down"},
    {"schedule.decay", "schedule.kind", no_wsd, "\"wsd\""},
    {"balance.coefficient", "balance.kind", no_balance_loss, "\"switch\" or \"global\""},
    {"balance.bias_rate", "balance.kind", no_bias, "\"bias\""},
    {"dropout.per", "dropout.what", no_dropout, "\"experts\" or \"paths\""},
    {"dropout.rate", "dropout.what", no_dropout, "\"experts\" or \"paths\""},
    {"dropout.end_rate", "dropout.what", no_dropout, "\"experts\" or \"paths\""},
    {"dropout.end_step", "dropout.what", no_dropout, "\"experts\" or \"paths\""},
    {"dropout.end_step", "dropout.end_rate", no_slope, "another rate than \"dropout.rate\""},
    {"lora.alpha", "lora.rank", no_adapters, "the adapters' rank"},
    {"lora.attention", "lora.rank", no_adapters, "the adapters' rank"},
    {"lora.experts", "lora.rank", no_adapters, "the adapters' rank"},
    {"model.ffn_dim", "model.architecture", sparse, "\"qwen3\" or \"llama\""},
};

enum { EFFECTS = sizeof(effects) / sizeof(effects[0]) };

static size_t size_of(const setting *s)
{
    switch (s->kind) {
    case SETTING_INT32:
    case SETTING_CHOICE:
        return sizeof(int32_t);
    case SETTING_INT64:
        return sizeof(int64_t);
    case SETTING_REAL:
        return sizeof(double);
    case SETTING_BOOL:
    case SETTING_SWITCH:
        return sizeof(bool);
    case SETTING_PATTERNS:
    case SETTING_OTHER:
        break;
    }
    return 0;
}

static bool at_default(const train_recipe *r, const train_recipe *fresh, const setting *s)
{
    return memcmp((const char *)r + s->offset, (const char *)fresh + s->offset, size_of(s)) == 0;
}

/* --set that switches something off takes along what the file says about it. */
static bool taken_along(const recipe_given *g, const effect *e)
{
    return json_object_get(g->set, e->by) && !json_object_get(g->set, e->key);
}

marco_status recipe_check_effects(train_recipe *r, const recipe_given *g, marco_error *error)
{
    train_recipe fresh = {0};
    recipe_defaults(&fresh);
    for (size_t i = 0; i < EFFECTS; i++) {
        const effect *e = &effects[i];
        const setting *s = recipe_find(e->key);
        if (!json_object_get(g->values, e->key) || at_default(r, &fresh, s) || !e->off(r))
            continue;
        if (!taken_along(g, e))
            return base_fail(error, MARCO_ERROR_FORMAT,
                             "%s: \"%s\" has no effect as \"%s\" is; set that to %s, or leave "
                             "\"%s\" out",
                             recipe_origin(g, e->key), e->key, e->by, e->instead, e->key);
        memcpy((char *)r + s->offset, (const char *)&fresh + s->offset, size_of(s));
        json_object_del(g->values, e->key);
    }
    return MARCO_OK;
}

marco_status train_recipe_suits(const train_recipe *recipe, const model_config *config,
                                marco_error *error)
{
    train_recipe fresh = {0};
    if (config->n_experts > 0)
        return MARCO_OK;
    recipe_defaults(&fresh);
    for (const setting *s = recipe_settings; s->key; s++) {
        bool about = strncmp(s->key, "balance.", 8) == 0 || strncmp(s->key, "dropout.", 8) == 0;
        bool none =
            strcmp(s->key, "balance.kind") == 0 && recipe->routing.balance == TRAIN_BALANCE_NONE;
        if (about && !none && !at_default(recipe, &fresh, s))
            return base_fail(error, MARCO_ERROR_FORMAT,
                             "%s: \"%s\" is for models with experts, and this one is dense; leave "
                             "it out",
                             recipe->file, s->key);
    }
    return MARCO_OK;
}
