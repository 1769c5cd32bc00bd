#include "train/recipe_table.h"

#include <string.h>

static const setting_name archs[] = {
    {"qwen3moe", MODEL_QWEN3MOE}, {"qwen3", MODEL_QWEN3}, {"llama", MODEL_LLAMA}, {NULL, 0}};
static const setting_name data_kinds[] = {{"text", 0}, {"chat", 1}, {NULL, 0}};
static const setting_name schedules[] = {
    {"constant", TRAIN_CONSTANT}, {"cosine", TRAIN_COSINE}, {"wsd", TRAIN_WSD}, {NULL, 0}};
static const setting_name balances[] = {{"none", TRAIN_BALANCE_NONE},
                                        {"switch", TRAIN_BALANCE_SWITCH},
                                        {"global", TRAIN_BALANCE_GLOBAL},
                                        {"bias", TRAIN_BALANCE_BIAS},
                                        {NULL, 0}};
static const setting_name drops[] = {{"none", TRAIN_DROP_NONE},
                                     {"experts", TRAIN_DROP_EXPERTS},
                                     {"paths", TRAIN_DROP_PATHS},
                                     {NULL, 0}};
static const setting_name drop_pers[] = {{"pass", 0}, {"token", 1}, {NULL, 0}};
static const setting_name types[] = {{"f32", TENSOR_F32}, {"bf16", TENSOR_BF16}, {NULL, 0}};

#define AT(field) .offset = offsetof(train_recipe, field)
#define MANY      1e12

const setting recipe_settings[] = {
    {.key = "model", .kind = SETTING_OTHER},
    {"data.kind", SETTING_SWITCH, AT(chat), .names = data_kinds},
    {.key = "data.sources", .kind = SETTING_OTHER},
    {"data.temperature", SETTING_REAL, AT(temperature), 0, 10},
    {"data.attend_across", SETTING_BOOL, AT(attend_across)},
    {"seq_len", SETTING_INT32, AT(seq_len), 2, 1 << 20},
    {"batch", SETTING_INT64, AT(batch), 1, 1 << 20},
    {"micro_batch", SETTING_INT64, AT(micro_batch), 1, 1 << 20, .may_differ = true},
    {"steps", SETTING_INT64, AT(steps), 1, MANY, .required = true, .may_differ = true},
    {"seed", SETTING_INT64, AT(seed), 0, 9007199254740992.0},
    {"optimizer.lr", SETTING_REAL, AT(schedule.lr), 0, 1, .may_differ = true},
    {"optimizer.min_lr", SETTING_REAL, AT(schedule.min_lr), 0, 1, .may_differ = true},
    {"optimizer.beta1", SETTING_REAL, AT(optimizer.beta1), 0, 0.999999},
    {"optimizer.beta2", SETTING_REAL, AT(optimizer.beta2), 0, 0.999999999},
    {"optimizer.eps", SETTING_REAL, AT(optimizer.eps), 1e-30, 1},
    {"optimizer.weight_decay", SETTING_REAL, AT(optimizer.weight_decay), 0, 10},
    {"optimizer.decay_norms", SETTING_BOOL, AT(choice.decay_norms)},
    {"optimizer.decay_embeddings", SETTING_BOOL, AT(choice.decay_embeddings)},
    {"optimizer.clip", SETTING_REAL, AT(optimizer.clip), 0, 1e9, .may_differ = true},
    {"optimizer.skip", SETTING_REAL, AT(optimizer.skip), 0, 1e9},
    {"schedule.kind", SETTING_CHOICE, AT(schedule.kind), .names = schedules},
    {"schedule.warmup", SETTING_INT64, AT(schedule.warmup), 0, MANY},
    {"schedule.decay", SETTING_INT64, AT(schedule.decay), 0, MANY},
    {"balance.kind", SETTING_CHOICE, AT(routing.balance), .names = balances},
    {"balance.coefficient", SETTING_REAL, AT(routing.coefficient), 0, 100},
    {"balance.bias_rate", SETTING_REAL, AT(routing.bias_rate), 0, 1},
    {"balance.z_loss", SETTING_REAL, AT(routing.z_loss), 0, 100},
    {"dropout.what", SETTING_CHOICE, AT(routing.dropout), .names = drops},
    {"dropout.per", SETTING_SWITCH, AT(routing.dropout_per_token), .names = drop_pers},
    {"dropout.rate", SETTING_REAL, AT(drop_rate), 0, 0.99},
    {"dropout.end_rate", SETTING_REAL, AT(drop_end), 0, 0.99},
    {"dropout.end_step", SETTING_INT64, AT(drop_steps), 0, MANY},
    {"train", SETTING_PATTERNS, AT(choice.train)},
    {"freeze", SETTING_PATTERNS, AT(choice.freeze)},
    {"lora.rank", SETTING_INT32, AT(choice.lora_rank), 0, 4096},
    {"lora.alpha", SETTING_REAL, AT(choice.lora_alpha), 0, 1e6},
    {"lora.attention", SETTING_BOOL, AT(choice.lora_attention)},
    {"lora.experts", SETTING_BOOL, AT(choice.lora_experts)},
    {"weights", SETTING_CHOICE, AT(choice.type), .names = types},
    {"recompute", SETTING_BOOL, AT(recompute), .may_differ = true},
    {"valid.every", SETTING_INT64, AT(valid_every), 0, MANY, .may_differ = true},
    {"valid.batches", SETTING_INT64, AT(valid_batches), 1, 1e6, .may_differ = true},
    {"checkpoint.every", SETTING_INT64, AT(checkpoint_every), 0, MANY, .may_differ = true},
    {"checkpoint.keep_last", SETTING_INT64, AT(keep_last), 1, 1e6, .may_differ = true},
    {"checkpoint.keep_every", SETTING_INT64, AT(keep_every), 0, MANY, .may_differ = true},
    {"log_load_every", SETTING_INT64, AT(load_every), 0, MANY, .may_differ = true},
    {"parallel.experts", SETTING_INT64, AT(expert_processes), 1, 4096, .may_differ = true},
    {.key = NULL},
};

const setting recipe_model_settings[] = {
    {"model.architecture", SETTING_CHOICE, AT(random.arch), .names = archs, .required = true},
    {.key = "model.tokenizer", .kind = SETTING_OTHER, .required = true},
    {"model.layers", SETTING_INT32, AT(random.n_layers), 1, MODEL_MAX_LAYERS, .required = true},
    {"model.dim", SETTING_INT32, AT(random.n_embd), 1, 1 << 20, .required = true},
    {"model.heads", SETTING_INT32, AT(random.n_heads), 1, 1 << 16, .required = true},
    {"model.kv_heads", SETTING_INT32, AT(random.n_kv_heads), 1, 1 << 16},
    {"model.head_dim", SETTING_INT32, AT(random.head_dim), 2, 1 << 16},
    {"model.ffn_dim", SETTING_INT32, AT(random.ffn_dim), 0, 1 << 24},
    {"model.experts", SETTING_INT32, AT(random.n_experts), 0, MODEL_MAX_EXPERTS},
    {"model.experts_used", SETTING_INT32, AT(random.n_experts_used), 0, MODEL_MAX_EXPERTS},
    {"model.expert_dim", SETTING_INT32, AT(random.expert_dim), 0, 1 << 24},
    {"model.norm_topk_prob", SETTING_BOOL, AT(random.norm_topk_prob)},
    {"model.vocab", SETTING_INT32, AT(random.n_vocab), 0, 1 << 24},
    {"model.context", SETTING_INT32, AT(random.n_ctx_train), 1, 1 << 24},
    {"model.tied", SETTING_BOOL, AT(random.tied)},
    {"model.rope_theta", SETTING_REAL, AT(random.rope.theta), 1, 1e12},
    {"model.rms_eps", SETTING_REAL, AT(random.rms_eps), 1e-12, 0.1},
    {"model.init_std", SETTING_REAL, AT(random_std), 0, 10},
    {.key = NULL},
};

void recipe_defaults(train_recipe *r)
{
    r->temperature = 1;
    r->seq_len = 512;
    r->batch = 8;
    r->micro_batch = 8;
    r->optimizer = (train_optimizer_params){
        .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .clip = 1};
    r->schedule = (train_schedule){.kind = TRAIN_COSINE, .lr = 3e-4};
    r->routing =
        (train_routing){.balance = TRAIN_BALANCE_GLOBAL, .coefficient = 1e-2, .bias_rate = 1e-3};
    r->choice = (train_params_choice){
        .type = TENSOR_F32, .lora_alpha = 32, .lora_attention = true, .lora_experts = true};
    r->valid_every = 100;
    r->valid_batches = 8;
    r->checkpoint_every = 500;
    r->keep_last = 2;
    r->load_every = 10;
    r->expert_processes = 1;
    model_config_init(&r->random);
    r->random.norm_topk_prob = true;
    r->random.tied = true;
    r->random.rope.theta = 1e6;
    r->random.rms_eps = 1e-6;
    r->random_std = 0.02;
}

static const setting *find_in(const setting *table, const char *key)
{
    for (const setting *s = table; s->key; s++)
        if (strcmp(s->key, key) == 0)
            return s;
    return NULL;
}

const setting *recipe_find(const char *key)
{
    const setting *s = find_in(recipe_settings, key);
    return s ? s : find_in(recipe_model_settings, key);
}

bool recipe_is_section(const char *key)
{
    size_t n = strlen(key);
    for (int t = 0; t < 2; t++)
        for (const setting *s = t ? recipe_model_settings : recipe_settings; s->key; s++)
            if (strncmp(s->key, key, n) == 0 && s->key[n] == '.')
                return true;
    return false;
}

/* Changes of one letter that make one text of the other (Levenshtein), texts cut at 63. */
static int distance(const char *a, const char *b)
{
    enum { MOST = 64 };
    int row[MOST];
    int n = (int)strnlen(b, MOST - 1);
    for (int j = 0; j <= n; j++)
        row[j] = j;
    for (int i = 1; a[i - 1] && i < MOST; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

static const char *last_part(const char *key)
{
    const char *dot = strrchr(key, '.');
    return dot ? dot + 1 : key;
}

const char *recipe_nearest(const char *key)
{
    int best = INT32_MAX;
    const char *nearest = NULL;
    for (int t = 0; t < 2; t++) {
        for (const setting *s = t ? recipe_model_settings : recipe_settings; s->key; s++) {
            int far = distance(key, s->key), last = distance(last_part(key), last_part(s->key));
            int d = last == 0 ? 1 : far < last + 2 ? far : last + 2;
            if (d < best) {
                best = d;
                nearest = s->key;
            }
        }
    }
    return best <= 2 + (int)strlen(key) / 4 ? nearest : NULL;
}
