#include "model/residency.h"

#include <stdio.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/expert_cache.h"

/* What small allocations, stacks and the program's own pages may add to what is counted. */
#define SLACK ((uint64_t)2 << 20)

/* What an automatic choice leaves to others: a thirty-second of what is available, or this. */
#define MARGIN ((uint64_t)64 << 20)

#define UNIT_TEXT 32

/* "17.1 GiB", "812 MiB" */
static const char *size_text(uint64_t bytes, char out[UNIT_TEXT])
{
    double mebi = (double)bytes / (1 << 20);
    if (mebi >= 1000)
        snprintf(out, UNIT_TEXT, "%.1f GiB", mebi / 1024);
    else
        snprintf(out, UNIT_TEXT, mebi >= 10 ? "%.0f MiB" : "%.1f MiB", mebi);
    return out;
}

/* As --ram takes it, rounded up: "213M". */
static const char *option_text(uint64_t bytes, char out[UNIT_TEXT])
{
    snprintf(out, UNIT_TEXT, "%lluM", (unsigned long long)((bytes + (1 << 20) - 1) >> 20));
    return out;
}

/* A size to be tried next: what the process itself holds may be some pages more then. */
static const char *advice_text(uint64_t bytes, char out[UNIT_TEXT])
{
    return option_text(bytes + (1 << 20), out);
}

static uint64_t mat_bytes(const model_source *source, model_role role, int32_t layer)
{
    int64_t index = model_source_find(source, role, layer);
    const model_tensor *t = &source->tensors[index < 0 ? 0 : index];
    return index < 0 ? 0 : model_tensor_bytes(t) / (uint64_t)t->mats;
}

/* What a streamed model needs, as far as the source says. */
static void measure(const model_source *source, model_plan *plan)
{
    const model_config *c = &source->config;
    for (size_t i = 0; i < source->n_tensors; i++) {
        const model_tensor *t = &source->tensors[i];
        uint64_t bytes = model_role_is_vector(t->role) ? (uint64_t)t->cols * sizeof(float)
                                                       : model_tensor_bytes(t);
        plan->weight_bytes += bytes;
        if (!model_role_is_expert(t->role))
            plan->pinned_bytes += bytes;
    }
    for (int32_t i = 0; i < c->n_layers; i++) {
        if (!c->layer_sparse[i])
            continue;
        uint64_t bytes = model_cache_slot_bytes(mat_bytes(source, MODEL_EXPERT_GATE, i),
                                                mat_bytes(source, MODEL_EXPERT_UP, i),
                                                mat_bytes(source, MODEL_EXPERT_DOWN, i));
        plan->slot_bytes = bytes > plan->slot_bytes ? bytes : plan->slot_bytes;
        plan->experts += c->n_experts;
    }
    /* Some to be computed while as many are read. */
    plan->least_slots = 2 * (int64_t)c->n_experts_used;
    if (plan->least_slots > plan->experts)
        plan->least_slots = plan->experts;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* The smallest budget that keeps everything in memory. */
static uint64_t whole(const model_plan *plan, const model_plan_request *r)
{
    uint64_t beside = larger(r->session, model_weights_load_bytes());
    return r->held + plan->weight_bytes + beside + SLACK;
}

/* What a streamed model takes beside slots and sessions. */
static uint64_t fixed(const model_source *source, const model_plan *plan,
                      const model_plan_request *r)
{
    const model_config *c = &source->config;
    return r->held + plan->pinned_bytes + SLACK +
           model_cache_fixed_bytes(c->n_layers, c->n_experts);
}

/* The smallest budget that works. */
static uint64_t smallest(const model_source *source, const model_plan *plan,
                         const model_plan_request *r)
{
    uint64_t all = whole(plan, r);
    if (plan->experts == 0)
        return all;
    uint64_t streamed =
        fixed(source, plan, r) + r->session + (uint64_t)plan->least_slots * plan->slot_bytes;
    uint64_t loading = r->held + plan->pinned_bytes + SLACK + model_weights_load_bytes();
    streamed = larger(streamed, loading);
    return streamed < all ? streamed : all;
}

/* The plan for a budget that is at least the smallest. */
static void settle(const model_source *source, const model_plan_request *r, uint64_t budget,
                   model_plan *plan)
{
    plan->budget = budget;
    if (budget >= whole(plan, r)) {
        plan->residency = MODEL_RESIDENT;
        plan->pinned_bytes = plan->weight_bytes;
        plan->room = budget - r->held - plan->weight_bytes - SLACK;
        return;
    }
    plan->residency = MODEL_STREAMED;
    plan->room = budget - fixed(source, plan, r);
    plan->slots = (int64_t)((plan->room - r->session) / plan->slot_bytes);
    if (plan->slots > plan->experts)
        plan->slots = plan->experts;
}

static marco_status plan_budget(const model_source *source, const model_plan_request *r,
                                uint64_t reach, model_plan *plan, marco_error *error)
{
    char asked[UNIT_TEXT], least[UNIT_TEXT], all[UNIT_TEXT], there[UNIT_TEXT];
    uint64_t need = smallest(source, plan, r);
    if (r->ram < need && plan->experts == 0)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%s: --ram %s is too little: the model has no experts that could stay in "
                         "the file, so the smallest that works is --ram %s; --mmap needs less",
                         source->path, option_text(r->ram, asked), advice_text(need, least));
    if (r->ram < need)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%s: --ram %s is too little: the smallest that works is --ram %s (with "
                         "all experts in memory: --ram %s)",
                         source->path, option_text(r->ram, asked), advice_text(need, least),
                         advice_text(whole(plan, r), all));
    settle(source, r, r->ram, plan);
    uint64_t used = plan->residency == MODEL_STREAMED ? r->ram : whole(plan, r);
    if (used > reach)
        return base_fail(error, MARCO_ERROR_MEMORY,
                         "%s: not enough memory for --ram %s: only %s are available here; ask for "
                         "less or leave --ram out",
                         source->path, option_text(r->ram, asked), size_text(reach, there));
    return MARCO_OK;
}

static marco_status plan_freely(const model_source *source, const model_plan_request *r,
                                uint64_t reach, model_plan *plan, marco_error *error)
{
    char least[UNIT_TEXT], all[UNIT_TEXT], there[UNIT_TEXT];
    uint64_t margin = larger(r->available / 32, MARGIN), need = smallest(source, plan, r);
    if (reach == UINT64_MAX || whole(plan, r) + margin <= reach) {
        plan->residency = MODEL_RESIDENT;
        plan->pinned_bytes = plan->weight_bytes;
        plan->room = UINT64_MAX;
        return MARCO_OK;
    }
    plan->automatic = true;
    if (reach < margin || reach - margin < need)
        return base_fail(error, MARCO_ERROR_MEMORY,
                         "%s: not enough memory: %s are available, %s are needed (with all weights "
                         "in memory %s); free some, use a smaller type, or try --mmap",
                         source->path, size_text(r->available, there),
                         size_text(need + margin - r->held, least),
                         size_text(whole(plan, r) - r->held, all));
    settle(source, r, reach - margin, plan);
    return MARCO_OK;
}

marco_status model_plan_make(const model_source *source, const model_plan_request *r,
                             model_plan *plan, marco_error *error)
{
    *plan = (model_plan){0};
    measure(source, plan);
    if (r->map && r->ram)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "--mmap and --ram exclude each other: the page cache that a mapped file "
                         "lives in knows no budget");
    if (r->map) {
        plan->residency = MODEL_MAPPED;
        plan->room = UINT64_MAX;
        plan->pinned_bytes = 0; /* the system drops pages as it likes */
        return MARCO_OK;
    }
    uint64_t reach;
    if (!base_add_u64(r->held, r->available, &reach))
        reach = UINT64_MAX;
    return r->ram ? plan_budget(source, r, reach, plan, error)
                  : plan_freely(source, r, reach, plan, error);
}

void model_plan_describe(const model_plan *plan, const char *path, base_text *out)
{
    char pinned[UNIT_TEXT], cache[UNIT_TEXT], budget[UNIT_TEXT];
    size_text(plan->pinned_bytes, pinned);
    if (plan->residency == MODEL_RESIDENT)
        base_text_printf(out, "%s in memory", pinned);
    else if (plan->residency == MODEL_MAPPED)
        base_text_printf(out, "%s mapped from %s, shared with other processes",
                         size_text(plan->weight_bytes, pinned), path);
    else
        base_text_printf(
            out,
            "%s pinned + up to %s of cache for %lld of %lld experts (%.0f%%), read from %s as "
            "needed; budget %s%s",
            pinned, size_text((uint64_t)plan->slots * plan->slot_bytes, cache),
            (long long)plan->slots, (long long)plan->experts,
            100.0 * (double)plan->slots / (double)plan->experts, path,
            size_text(plan->budget, budget), plan->automatic ? ", all that is available" : "");
}
