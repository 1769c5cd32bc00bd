#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "grammar/internal.h"

enum {
    BLOCK = 1 << 16,
    LIMIT = 64 << 20,      /* bytes at work */
    MOST_BYTES = 24 << 20, /* of a finished grammar */
};

#define WORK_LIMIT 12000000u /* some 0.1 s */

struct gr_block {
    gr_block *next;
    size_t used, size;
    _Alignas(16) char bytes[];
};

void gr_fail(gr_build *b, marco_status status, const char *format, ...)
{
    if (gr_bad(b))
        return;
    char line[640];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    /* A line cut short may end within a character. */
    line[base_utf8_check(line, strlen(line))] = '\0';
    b->status = base_fail(b->error, status, "%s", line);
}

void gr_too_large(gr_build *b)
{
    if (gr_bad(b))
        return;
    b->large = true;
    gr_too_large_at(b, "the schema");
}

void gr_too_large_at(gr_build *b, const char *place)
{
    b->status = base_fail(b->error, MARCO_ERROR_UNSUPPORTED,
                          "%s: too large to be compiled; use fewer or smaller 'pattern', 'enum', "
                          "'anyOf' and 'properties', or smaller bounds of lengths and counts",
                          place);
}

bool gr_work(gr_build *b, uint64_t steps)
{
    b->work += steps;
    if (b->work > WORK_LIMIT)
        gr_too_large(b);
    return !gr_bad(b);
}

static void *take_from(gr_build *b, gr_block **blocks, size_t count, size_t size)
{
    uint64_t bytes;
    if (gr_bad(b))
        return NULL;
    if (!base_mul_u64(count, size, &bytes) || bytes > LIMIT - b->taken) {
        gr_too_large(b);
        return NULL;
    }
    bytes = (bytes + 15) / 16 * 16;
    if (!*blocks || bytes > (*blocks)->size - (*blocks)->used) {
        size_t room = bytes > BLOCK ? bytes : BLOCK;
        gr_block *block = base_alloc(sizeof *block + room);
        if (!block) {
            b->status = base_fail_memory(b->error, room, "a grammar");
            return NULL;
        }
        *block = (gr_block){.next = *blocks, .size = room};
        *blocks = block;
    }
    void *memory = (*blocks)->bytes + (*blocks)->used;
    (*blocks)->used += bytes;
    b->taken += bytes;
    memset(memory, 0, bytes);
    gr_work(b, bytes / 64);
    return memory;
}

void *gr_take(gr_build *b, size_t count, size_t size)
{
    return take_from(b, &b->blocks, count, size);
}

void *gr_keep(gr_build *b, size_t count, size_t size)
{
    return take_from(b, &b->kept, count, size);
}

static bool room_from(gr_build *b, gr_block **blocks, void **items, size_t *capacity, size_t need,
                      size_t size)
{
    if (gr_bad(b))
        return false;
    if (need <= *capacity)
        return true;
    size_t more = *capacity < 8 ? 16 : *capacity * 2;
    if (more < need)
        more = need;
    void *grown = take_from(b, blocks, more, size);
    if (!grown)
        return false;
    if (*capacity)
        memcpy(grown, *items, *capacity * size);
    *items = grown;
    *capacity = more;
    return true;
}

bool gr_room(gr_build *b, void **items, size_t *capacity, size_t need, size_t size)
{
    return room_from(b, &b->blocks, items, capacity, need, size);
}

bool gr_room_kept(gr_build *b, void **items, size_t *capacity, size_t need, size_t size)
{
    return room_from(b, &b->kept, items, capacity, need, size);
}

gr_mark gr_mark_now(const gr_build *b)
{
    gr_mark mark = {.block = b->blocks, .used = b->blocks ? b->blocks->used : 0};
    return mark;
}

static void free_blocks(gr_build *b, gr_block **blocks, const gr_block *last)
{
    while (*blocks != last) {
        gr_block *next = (*blocks)->next;
        b->taken -= (*blocks)->used;
        base_free(*blocks);
        *blocks = next;
    }
}

void gr_forget(gr_build *b, const gr_mark *mark)
{
    free_blocks(b, &b->blocks, mark->block);
    if (b->blocks) {
        b->taken -= b->blocks->used - mark->used;
        b->blocks->used = mark->used;
    }
}

int32_t gr_rule_new(gr_build *b)
{
    void *rules = b->rules;
    if (!gr_room_kept(b, &rules, &b->rules_capacity, b->n_rules + 1, sizeof *b->rules))
        return GR_NONE;
    b->rules = rules;
    b->rules[b->n_rules] = GR_NONE;
    return (int32_t)b->n_rules++;
}

int32_t gr_node_new(gr_build *b)
{
    void *nodes = b->nodes;
    if (!gr_room_kept(b, &nodes, &b->nodes_capacity, b->n_nodes + 1, sizeof *b->nodes))
        return GR_NONE;
    b->nodes = nodes;
    b->nodes[b->n_nodes] = (gr_node){0};
    return (int32_t)b->n_nodes++;
}

void gr_node_fill(gr_build *b, int32_t node, const gr_edge *edges, size_t n_edges,
                  const gr_call *calls, size_t n_calls, bool final)
{
    void *all_edges = b->edges, *all_calls = b->calls;
    if (n_calls > UINT16_MAX) {
        gr_too_large(b);
        return;
    }
    if (!gr_room_kept(b, &all_edges, &b->edges_capacity, b->n_edges + n_edges, sizeof *b->edges))
        return;
    b->edges = all_edges;
    if (!gr_room_kept(b, &all_calls, &b->calls_capacity, b->n_calls + n_calls, sizeof *b->calls))
        return;
    b->calls = all_calls;
    gr_node *n = &b->nodes[node];
    n->edge = (uint32_t)b->n_edges;
    n->call = (uint32_t)b->n_calls;
    n->n_edges = (uint16_t)n_edges;
    n->n_calls = (uint16_t)n_calls;
    n->final = final;
    for (size_t i = 0; i < n_edges; i++)
        b->edges[b->n_edges++] = edges[i];
    for (size_t i = 0; i < n_calls; i++)
        b->calls[b->n_calls++] = calls[i];
}

/* ---- common rules -------------------------------------------------------------------------- */

static void emit(gr_nfa *nfa, int32_t rule, int32_t start, int32_t accept)
{
    gr_emit_rule(nfa->b, rule, gr_dfa_of(nfa, start, accept, GR_NONE, true));
}

/* `open` [item { , item }] `close`. */
static void emit_container(gr_build *b, int32_t rule, char open, char close, bool named)
{
    gr_nfa nfa = {.b = b};
    int32_t start = gr_nfa_state(&nfa), accept = gr_nfa_state(&nfa), item = gr_nfa_state(&nfa);
    int32_t opened = gr_nfa_bytes(&nfa, start, &open, 1), value = item;
    gr_nfa_empty(&nfa, opened, item);
    gr_nfa_empty(&nfa, gr_nfa_bytes(&nfa, opened, &close, 1), accept);
    if (named)
        value = gr_separator(&nfa, gr_nfa_name(&nfa, item, GR_RULE_STRING), ':');
    int32_t after = gr_nfa_call(&nfa, value, GR_RULE_VALUE);
    gr_nfa_empty(&nfa, gr_separator(&nfa, after, ','), item);
    gr_nfa_empty(&nfa, gr_nfa_bytes(&nfa, after, &close, 1), accept);
    emit(&nfa, rule, start, accept);
}

static void emit_value(gr_build *b)
{
    static const char *const words[] = {"null", "true", "false"};
    static const int32_t rules[] = {GR_RULE_OBJECT, GR_RULE_ARRAY, GR_RULE_STRING, GR_RULE_NUMBER};
    gr_nfa nfa = {.b = b};
    int32_t start = gr_nfa_state(&nfa), accept = gr_nfa_state(&nfa);
    for (size_t i = 0; i < 3; i++)
        gr_nfa_empty(&nfa, gr_nfa_bytes(&nfa, start, words[i], strlen(words[i])), accept);
    for (size_t i = 0; i < 4; i++)
        gr_nfa_empty(&nfa, gr_nfa_call(&nfa, start, rules[i]), accept);
    emit(&nfa, GR_RULE_VALUE, start, accept);
}

static void emit_number(gr_build *b, int32_t rule, bool integer)
{
    gr_nfa nfa = {.b = b};
    int32_t start = gr_nfa_state(&nfa), accept = gr_nfa_state(&nfa);
    bool beyond;
    gr_numbers_add(&nfa, start, accept, &(gr_numbers){.integer = integer, .multiple = 1}, &beyond);
    emit(&nfa, rule, start, accept);
}

void gr_build_begin(gr_build *b, marco_error *error)
{
    *b = (gr_build){.error = error};
    gr_node_new(b); /* GR_END */
    for (int i = 0; i < GR_RULES_COMMON; i++)
        gr_rule_new(b);
    gr_free_string(b, GR_RULE_STRING);
    emit_number(b, GR_RULE_NUMBER, false);
    emit_number(b, GR_RULE_INTEGER, true);
    emit_container(b, GR_RULE_OBJECT, '{', '}', true);
    emit_container(b, GR_RULE_ARRAY, '[', ']', false);
    emit_value(b);
    b->n_common = (int32_t)b->n_nodes;
}

/* ---- what can be finished ------------------------------------------------------------------ */

/* Who comes before a node: by an edge or by a call of it or back to it. */
typedef struct before {
    uint32_t *begin; /* [n_nodes + 1] */
    int32_t *by;     /* node, or ~call */
} before;

static before find_before(gr_build *b)
{
    before r = {.begin = gr_take(b, b->n_nodes + 1, sizeof *r.begin),
                .by = gr_take(b, b->n_edges + 2 * b->n_calls + 1, sizeof *r.by)};
    uint32_t *at = gr_take(b, b->n_nodes + 1, sizeof *at);
    if (gr_bad(b))
        return r;
    for (size_t i = 0; i < b->n_edges; i++)
        r.begin[b->edges[i].to + 1]++;
    for (size_t i = 0; i < b->n_calls; i++) {
        r.begin[b->calls[i].to + 1]++;
        r.begin[b->calls[i].back + 1]++;
    }
    for (size_t i = 0; i < b->n_nodes; i++)
        r.begin[i + 1] += r.begin[i];
    memcpy(at, r.begin, b->n_nodes * sizeof *at);
    for (size_t n = 0; n < b->n_nodes; n++)
        for (size_t i = 0; i < b->nodes[n].n_edges; i++)
            r.by[at[b->edges[b->nodes[n].edge + i].to]++] = (int32_t)n;
    for (size_t i = 0; i < b->n_calls; i++) {
        r.by[at[b->calls[i].to]++] = ~(int32_t)i;
        r.by[at[b->calls[i].back]++] = ~(int32_t)i;
    }
    return r;
}

/* Fills in the heights: nodes are settled in their order, as in Dijkstra's algorithm. Heights of
 * GR_MAX_DEPTH and more stay INT32_MAX. */
static void find_heights(gr_build *b)
{
    int32_t *caller = gr_take(b, b->n_calls + 1, sizeof *caller);
    /* Chains of nodes waiting to be settled at a height; a node can be in several. */
    int32_t *waiting[GR_MAX_DEPTH] = {0};
    size_t n_waiting[GR_MAX_DEPTH] = {0}, capacity[GR_MAX_DEPTH] = {0};
    before by = find_before(b);
    if (gr_bad(b))
        return;
    for (size_t n = 0; n < b->n_nodes; n++) {
        b->nodes[n].height = INT32_MAX;
        for (size_t i = 0; i < b->nodes[n].n_calls; i++)
            caller[b->nodes[n].call + i] = (int32_t)n;
    }
    for (int32_t h = 0; h < GR_MAX_DEPTH; h++) {
        if (h == 0)
            for (size_t n = 0; n < b->n_nodes; n++)
                if (b->nodes[n].final || n == GR_END) {
                    void *items = waiting[0];
                    if (!gr_room(b, &items, &capacity[0], n_waiting[0] + 1, sizeof(int32_t)))
                        return;
                    waiting[0] = items;
                    waiting[0][n_waiting[0]++] = (int32_t)n;
                }
        for (size_t w = 0; w < n_waiting[h]; w++) {
            int32_t n = waiting[h][w];
            if (b->nodes[n].height != INT32_MAX)
                continue;
            b->nodes[n].height = h;
            for (uint32_t i = by.begin[n]; i < by.begin[n + 1]; i++) {
                int32_t from = by.by[i], at = h;
                if (from < 0) {
                    const gr_call *call = &b->calls[~from];
                    int32_t inner = b->nodes[call->to].height, outer = b->nodes[call->back].height;
                    if (inner == INT32_MAX || outer == INT32_MAX)
                        continue;
                    at = inner + 1 > outer ? inner + 1 : outer;
                    from = caller[~from];
                }
                if (at >= GR_MAX_DEPTH || b->nodes[from].height != INT32_MAX)
                    continue;
                void *items = waiting[at];
                if (!gr_room(b, &items, &capacity[at], n_waiting[at] + 1, sizeof(int32_t)))
                    return;
                waiting[at] = items;
                waiting[at][n_waiting[at]++] = from;
            }
        }
    }
}

/* Leaves out edges and calls that lead nowhere. */
static void prune(gr_build *b)
{
    for (size_t n = 0; n < b->n_nodes; n++) {
        gr_node *node = &b->nodes[n];
        uint16_t edges = 0, calls = 0;
        for (size_t i = 0; i < node->n_edges; i++) {
            gr_edge edge = b->edges[node->edge + i];
            if (b->nodes[edge.to].height != INT32_MAX)
                b->edges[node->edge + edges++] = edge;
        }
        for (size_t i = 0; i < node->n_calls; i++) {
            gr_call call = b->calls[node->call + i];
            if (b->nodes[call.to].height != INT32_MAX && b->nodes[call.back].height != INT32_MAX)
                b->calls[node->call + calls++] = call;
        }
        node->n_edges = edges;
        node->n_calls = calls;
    }
}

/* A call that comes back to nothing but an end needs no return node. */
static void find_tail_calls(gr_build *b)
{
    for (size_t i = 0; i < b->n_calls; i++) {
        const gr_node *back = &b->nodes[b->calls[i].back];
        if (back->final && back->n_edges == 0 && back->n_calls == 0)
            b->calls[i].back = GR_NONE;
    }
}

static void *copy_of(gr_build *b, const void *items, size_t n, size_t size)
{
    void *copy = gr_bad(b) ? NULL : base_alloc_array(n ? n : 1, size);
    if (!copy && !gr_bad(b))
        b->status = base_fail_memory(b->error, n * size, "a grammar");
    if (copy && n)
        memcpy(copy, items, n * size);
    return copy;
}

/* Bytes that lead to the same node from every node are a class. */
static void find_classes(marco_grammar *g, size_t n_edges)
{
    bool cut[257] = {false};
    for (size_t i = 0; i < n_edges; i++)
        cut[g->edges[i].low] = cut[g->edges[i].high + 1] = true;
    for (int c = 1; c < 256; c++) {
        g->n_classes += cut[c];
        g->classes[c] = (uint8_t)g->n_classes;
    }
    g->n_classes++;
}

/* Without room for it, edges are looked for one by one. */
static void make_table(marco_grammar *g, size_t n_edges, size_t room)
{
    find_classes(g, n_edges);
    size_t size = (size_t)g->n_nodes * (size_t)g->n_classes;
    g->table = size * sizeof *g->table <= room ? base_calloc(size, sizeof *g->table) : NULL;
    for (int32_t n = 0; n < g->n_nodes; n++) {
        gr_node *node = &g->nodes[n];
        node->simple = !node->final && node->n_calls == 0;
        for (size_t i = 0; g->table && i < node->n_edges; i++) {
            const gr_edge *e = &g->edges[node->edge + i];
            for (int c = g->classes[e->low]; c <= g->classes[e->high]; c++)
                g->table[(size_t)n * (size_t)g->n_classes + (size_t)c] = e->to;
        }
    }
}

static marco_grammar *finish(gr_build *b, int32_t rule)
{
    if (gr_bad(b))
        return NULL;
    for (size_t i = 0; i < b->n_calls; i++)
        b->calls[i].to = b->rules[b->calls[i].to];
    gr_work(b, 2 * (b->n_nodes + b->n_edges + b->n_calls));
    find_heights(b);
    if (gr_bad(b))
        return NULL;
    if (b->nodes[b->rules[rule]].height == INT32_MAX) {
        gr_fail(b, MARCO_ERROR_ARGUMENT, "no JSON text can match the schema%s%s",
                b->reason[0] ? ": "
                             : ": it asks for values within values without end, or nested "
                               "deeper than is supported",
                b->reason);
        return NULL;
    }
    size_t size = b->n_nodes * (sizeof *b->nodes + sizeof(void *)) /* with an entry of a memo */
                  + b->n_edges * sizeof *b->edges + b->n_calls * sizeof *b->calls;
    if (size > MOST_BYTES) {
        gr_too_large(b);
        return NULL;
    }
    prune(b);
    find_tail_calls(b);
    marco_grammar *g = base_calloc(1, sizeof *g);
    if (!g) {
        b->status = base_fail_memory(b->error, sizeof *g, "a grammar");
        return NULL;
    }
    g->nodes = copy_of(b, b->nodes, b->n_nodes, sizeof *g->nodes);
    g->edges = copy_of(b, b->edges, b->n_edges, sizeof *g->edges);
    g->calls = copy_of(b, b->calls, b->n_calls, sizeof *g->calls);
    g->n_nodes = (int32_t)b->n_nodes;
    g->n_common = b->n_common;
    g->root = b->rules[rule];
    if (gr_bad(b)) {
        marco_grammar_free(g);
        return NULL;
    }
    make_table(g, b->n_edges, MOST_BYTES - size);
    return g;
}

marco_status gr_build_end(gr_build *b, int32_t rule, marco_grammar **out)
{
    *out = finish(b, rule);
    free_blocks(b, &b->blocks, NULL);
    free_blocks(b, &b->kept, NULL);
    return b->status;
}
