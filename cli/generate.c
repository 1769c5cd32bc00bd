#include "generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* ---- options -------------------------------------------------------------------------------- */

static void set(float *field, float given)
{
    if (!isnan(given))
        *field = given;
}

/* A seed nobody chose: short enough to be typed again. */
static uint64_t draw_seed(void)
{
    uint32_t seed = 0;
    if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        seed = (uint32_t)(seconds_now() * 1e6);
    return seed;
}

static int read_bias(const command *self, generate_options *options, marco_sampling *sampling)
{
    const option_list *list = &options->bias;
    if (list->n == 0)
        return EXIT_SUCCESS;
    marco_logit_bias *biases = calloc(list->n, sizeof(*biases));
    if (!biases)
        return command_fail(self, "out of memory");
    sampling->logit_bias = options->biases = biases;
    sampling->n_logit_bias = list->n;
    for (size_t i = 0; i < list->n; i++) {
        const char *equals = strchr(list->items[i], '=');
        char id[24] = "";
        int64_t parsed = 0;
        double bias = 0;
        if (equals && (size_t)(equals - list->items[i]) < sizeof(id))
            memcpy(id, list->items[i], (size_t)(equals - list->items[i]));
        if (!equals || !parse_int(id, 0, INT32_MAX, &parsed) || !parse_double(equals + 1, &bias) ||
            !isfinite((float)bias))
            return command_misused(self, "--logit-bias '%s': must be ID=NUMBER", list->items[i]);
        biases[i] = (marco_logit_bias){.id = (int32_t)parsed, .bias = (float)bias};
    }
    return EXIT_SUCCESS;
}

int generation_create(const command *self, generate_options *options, const marco_engine *engine,
                      marco_generation *out)
{
    *out = marco_generation_default(engine);
    marco_sampling *s = &out->sampling;
    set(&s->temperature, options->temp);
    set(&s->top_p, options->top_p);
    set(&s->min_p, options->min_p);
    set(&s->repetition_penalty, options->repeat);
    set(&s->presence_penalty, options->presence);
    set(&s->frequency_penalty, options->frequency);
    if (options->top_k >= 0)
        s->top_k = options->top_k;
    s->seed = options->seed.given ? options->seed.value : draw_seed();
    out->max_tokens = options->tokens;
    out->stop = options->stop.items;
    out->n_stop = options->stop.n;
    out->ignore_eos = options->ignore_eos;
    return read_bias(self, options, s);
}

void generation_free(generate_options *options, marco_generation *generation)
{
    free(options->biases);
    options->biases = NULL;
    free(options->stop.items);
    free(options->bias.items);
    options->stop = options->bias = (option_list){0};
    *generation = (marco_generation){0};
}

/* ---- chat ----------------------------------------------------------------------------------- */

json_t *message_create(const char *role, const char *content, size_t size)
{
    return json_pack("{s:s, s:o}", "role", role, "content", json_text(content, size));
}

marco_status chat_ids(const marco_engine *engine, const generate_options *options, json_t *messages,
                      int32_t **ids, size_t *n, marco_error *error)
{
    char *written = json_dumps(messages, JSON_COMPACT);
    if (!written) {
        snprintf(error->message, sizeof(error->message), "out of memory");
        return error->status = MARCO_ERROR_MEMORY;
    }
    marco_chat_params params = marco_chat_params_default();
    params.messages = written;
    params.enable_thinking = options->think ? 1 : options->no_think ? 0 : -1;
    marco_status status = marco_chat_encode(marco_engine_tokenizer(engine), &params, ids, n, error);
    free(written);
    return status;
}

/* ---- statistics ----------------------------------------------------------------------------- */

const char *finish_name(marco_finish finish)
{
    switch (finish) {
    case MARCO_FINISH_STOP:
        return "stop";
    case MARCO_FINISH_LENGTH:
        return "length";
    case MARCO_FINISH_CANCELLED:
        return "cancelled";
    }
    return "stop";
}

static double rate(size_t n, double seconds)
{
    return seconds > 0 ? (double)n / seconds : 0;
}

static void print_params(FILE *out, int64_t n)
{
    fprintf(out, n >= 1000000000 ? "%.2f B" : "%.1f M",
            n >= 1000000000 ? (double)n * 1e-9 : (double)n * 1e-6);
}

/* How the cache of experts did; nothing where there is none. */
static void print_experts(FILE *out, const loaded *l)
{
    marco_residency_stats r;
    char read[32];
    marco_engine_residency(l->engine, &r);
    if (r.hits + r.misses == 0)
        return;
    fprintf(out,
            "experts     %.1f%% of %llu found in the cache of %lld; %s read in %.2f s, %.2f s of "
            "waiting\n",
            100.0 * (double)r.hits / (double)(r.hits + r.misses),
            (unsigned long long)(r.hits + r.misses), (long long)r.slots,
            format_bytes(r.bytes_read, read), r.read_seconds, r.wait_seconds);
}

void stats_print(FILE *out, const loaded *l, const marco_generation_stats *stats, uint64_t seed)
{
    const marco_model_info *info = marco_engine_info(l->engine);
    char peak[32], weights[32], cache[32], read[32];
    fprintf(out, "prefill     %7.1f tokens/s  (%zu tokens in %.2f s)\n",
            rate(stats->n_prompt, stats->prefill_seconds), stats->n_prompt, stats->prefill_seconds);
    fprintf(out,
            "decode      %7.1f tokens/s  (%zu tokens in %.2f s; %d threads, %s, %s read a token)\n",
            rate(stats->n_decoded, stats->decode_seconds), stats->n_decoded, stats->decode_seconds,
            info->threads, marco_cpu_level(), format_bytes(info->bytes_per_token, read));
    fprintf(out, "memory      %s at most (weights %s, KV cache %s)\n",
            format_bytes(memory_peak(), peak), format_bytes(info->weight_bytes, weights),
            format_bytes(marco_session_kv_bytes(l->session), cache));
    print_experts(out, l);
    fputs("parameters  ", out);
    print_params(out, info->active_params);
    fputs(" active of ", out);
    print_params(out, info->total_params);
    fprintf(out, " (%s", info->architecture);
    if (info->n_experts > 0)
        fprintf(out, ", %d of %d experts a layer", info->n_experts_used, info->n_experts);
    fprintf(out, ")\nseed        %llu\n", (unsigned long long)seed);
}

json_t *stats_json(const loaded *l, const marco_generation_stats *stats, uint64_t seed)
{
    const marco_model_info *info = marco_engine_info(l->engine);
    marco_residency_stats r;
    marco_engine_residency(l->engine, &r);
    return json_pack(
        "{s:I, s:I, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:s, s:o, s:I, "
        "s:I, s:I, s:I, s:I, s:f, s:f}",                                            //
        "prompt_tokens", (json_int_t)stats->n_prompt,                               //
        "reply_tokens", (json_int_t)stats->n_reply,                                 //
        "prefill_seconds", stats->prefill_seconds,                                  //
        "prefill_tokens_per_second", rate(stats->n_prompt, stats->prefill_seconds), //
        "decode_seconds", stats->decode_seconds,                                    //
        "decode_tokens_per_second", rate(stats->n_decoded, stats->decode_seconds),  //
        "decoded", (json_int_t)stats->n_decoded,                                    //
        "peak_memory_bytes", (json_int_t)memory_peak(),                             //
        "weight_bytes", (json_int_t)info->weight_bytes,                             //
        "kv_bytes", (json_int_t)marco_session_kv_bytes(l->session),                 //
        "total_params", (json_int_t)info->total_params,                             //
        "active_params", (json_int_t)info->active_params,                           //
        "seed", (json_int_t)seed,                                                   //
        "threads", (int)info->threads,                                              //
        "cpu", marco_cpu_level(),                                                   //
        "residency", json_text(info->residency, strlen(info->residency)),           //
        "budget_bytes", (json_int_t)r.budget,                                       //
        "expert_slots", (json_int_t)r.slots,                                        //
        "expert_hits", (json_int_t)r.hits,                                          //
        "expert_misses", (json_int_t)r.misses,                                      //
        "expert_bytes_read", (json_int_t)r.bytes_read,                              //
        "expert_read_seconds", r.read_seconds,                                      //
        "expert_wait_seconds", r.wait_seconds);
}
