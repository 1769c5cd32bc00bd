#include <stdlib.h>
#include <string.h>

#include "grammar/internal.h"

/* ---- sets of states, numbered as they are met ---------------------------------------------- */

typedef struct sets {
    gr_build *b;
    int32_t *items;  /* of all sets, end to end, each in order */
    uint32_t *begin; /* [n + 1] */
    int32_t *table;  /* [size], a power of two: set numbers, GR_NONE */
    size_t n, n_items, size, items_capacity, begin_capacity;
} sets;

static uint64_t hash_of(const int32_t *items, size_t n)
{
    uint64_t h = 0x9E3779B97F4A7C15u;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ (uint32_t)items[i]) * 0xBF58476D1CE4E5B9u;
        h ^= h >> 29;
    }
    return h;
}

static size_t place_of(const sets *s, const int32_t *items, size_t n)
{
    size_t at = hash_of(items, n) & (s->size - 1);
    while (s->table[at] != GR_NONE) {
        const uint32_t *begin = s->begin + s->table[at];
        if (begin[1] - begin[0] == n && memcmp(s->items + begin[0], items, n * sizeof *items) == 0)
            break;
        at = (at + 1) & (s->size - 1);
    }
    return at;
}

static void grow_table(sets *s)
{
    size_t size = s->size ? s->size * 2 : 64;
    int32_t *table = gr_take(s->b, size, sizeof *table);
    if (!table)
        return;
    memset(table, 0xFF, size * sizeof *table);
    s->table = table;
    s->size = size;
    for (size_t i = 0; i < s->n; i++)
        table[place_of(s, s->items + s->begin[i], s->begin[i + 1] - s->begin[i])] = (int32_t)i;
}

/* The number of the set, a new one where it has not been met. */
static int32_t set_number(sets *s, const int32_t *items, size_t n)
{
    if (s->n * 2 >= s->size)
        grow_table(s);
    if (gr_bad(s->b))
        return GR_NONE;
    size_t at = place_of(s, items, n);
    if (s->table[at] != GR_NONE)
        return s->table[at];
    void *all = s->items, *begin = s->begin;
    if (!gr_room(s->b, &all, &s->items_capacity, s->n_items + n, sizeof *s->items))
        return GR_NONE;
    s->items = all;
    if (!gr_room(s->b, &begin, &s->begin_capacity, s->n + 2, sizeof *s->begin))
        return GR_NONE;
    s->begin = begin;
    if (n)
        memcpy(s->items + s->n_items, items, n * sizeof *items);
    s->n_items += n;
    s->begin[s->n + 1] = (uint32_t)s->n_items;
    s->table[at] = (int32_t)s->n;
    return (int32_t)s->n++;
}

/* ---- DFAs under construction --------------------------------------------------------------- */

typedef struct making {
    gr_dfa *dfa;
    size_t n_edges, edges_capacity, begin_capacity, final_capacity;
} making;

static void add_edge(gr_build *b, making *m, uint32_t low, uint32_t high, int32_t to)
{
    gr_dfa *d = m->dfa;
    if (gr_bad(b))
        return;
    if (m->n_edges > d->begin[d->n]) {
        gr_dfa_edge *last = &d->edges[m->n_edges - 1];
        if (last->to == to && last->high + 1 == low) {
            last->high = high;
            return;
        }
    }
    void *edges = d->edges;
    if (!gr_room(b, &edges, &m->edges_capacity, m->n_edges + 1, sizeof *d->edges))
        return;
    d->edges = edges;
    d->edges[m->n_edges++] = (gr_dfa_edge){low, high, to};
}

/* Begins, and ends, the next state. */
static void begin_state(gr_build *b, making *m, bool final)
{
    gr_dfa *d = m->dfa;
    void *begin = d->begin, *finals = d->final;
    if (!gr_room(b, &begin, &m->begin_capacity, (size_t)d->n + 2, sizeof *d->begin))
        return;
    d->begin = begin;
    if (!gr_room(b, &finals, &m->final_capacity, (size_t)d->n + 1, sizeof *d->final))
        return;
    d->final = finals;
    d->final[d->n] = final;
    d->begin[d->n] = (uint32_t)m->n_edges;
}

static void end_state(making *m)
{
    m->dfa->begin[++m->dfa->n] = (uint32_t)m->n_edges;
}

static making begin_dfa(gr_build *b)
{
    return (making){.dfa = gr_take(b, 1, sizeof(gr_dfa))};
}

/* Without the states from which no final one can be reached; the first one first. */
static gr_dfa *trimmed(gr_build *b, const gr_dfa *d)
{
    size_t n = (size_t)d->n, n_edges = d->begin[n];
    uint32_t *before = gr_take(b, n + 2, sizeof *before);
    int32_t *from = gr_take(b, n_edges + 1, sizeof *from);
    int32_t *queue = gr_take(b, n + 1, sizeof *queue);
    int32_t *number = gr_take(b, n + 1, sizeof *number);
    size_t head = 0, tail = 0;
    if (gr_bad(b))
        return NULL;
    for (size_t i = 0; i < n_edges; i++)
        before[d->edges[i].to + 2]++;
    for (size_t i = 1; i < n; i++)
        before[i + 1] += before[i];
    for (size_t s = 0; s < n; s++)
        for (uint32_t i = d->begin[s]; i < d->begin[s + 1]; i++)
            from[before[d->edges[i].to + 1]++] = (int32_t)s;
    for (size_t s = 0; s < n; s++) {
        number[s] = GR_NONE;
        if (d->final[s]) {
            number[s] = 0;
            queue[tail++] = (int32_t)s;
        }
    }
    while (head < tail) {
        int32_t s = queue[head++];
        for (uint32_t i = before[s]; i < before[s + 1]; i++)
            if (number[from[i]] == GR_NONE) {
                number[from[i]] = 0;
                queue[tail++] = from[i];
            }
    }
    making m = begin_dfa(b);
    if (n == 0 || number[0] == GR_NONE) {
        begin_state(b, &m, false);
        return m.dfa; /* no states */
    }
    int32_t kept = 0;
    for (size_t s = 0; s < n; s++)
        if (number[s] != GR_NONE)
            number[s] = kept++;
    for (size_t s = 0; s < n; s++) {
        if (number[s] == GR_NONE)
            continue;
        begin_state(b, &m, d->final[s]);
        for (uint32_t i = d->begin[s]; i < d->begin[s + 1]; i++)
            if (number[d->edges[i].to] != GR_NONE)
                add_edge(b, &m, d->edges[i].low, d->edges[i].high, number[d->edges[i].to]);
        if (gr_bad(b))
            return NULL;
        end_state(&m);
    }
    return m.dfa;
}

/* ---- from an NFA --------------------------------------------------------------------------- */

typedef struct closing {
    gr_nfa *nfa;
    uint32_t *seen; /* [n] the round a state was last met in */
    uint32_t round;
    int32_t *stack, *set; /* [n] */
    size_t n_set;
    int32_t sink;
} closing;

static int by_number(const void *x, const void *y)
{
    int32_t a = *(const int32_t *)x, b = *(const int32_t *)y;
    return (a > b) - (a < b);
}

static void close_begin(closing *c)
{
    c->round++;
    c->n_set = 0;
}

/* Adds a state and what it reaches without a symbol. Only states that matter to what follows are
 * put into the set: with edges by symbols or by the end, or accepting (without edges). */
static void close_add(closing *c, int32_t state, bool at_begin)
{
    size_t top = 0;
    if (c->seen[state] == c->round)
        return;
    c->seen[state] = c->round;
    c->stack[top++] = state;
    while (top > 0) {
        int32_t s = c->stack[--top];
        bool matters = c->nfa->first[s] == GR_NONE;
        uint64_t steps = 1;
        for (int32_t e = c->nfa->first[s]; e != GR_NONE; e = c->nfa->edges[e].next, steps++) {
            const gr_nfa_edge *edge = &c->nfa->edges[e];
            if (edge->low != GR_SYMBOL_EMPTY && !(edge->low == GR_SYMBOL_BEGIN && at_begin)) {
                matters |= edge->low != GR_SYMBOL_BEGIN;
                continue;
            }
            if (c->seen[edge->to] != c->round) {
                c->seen[edge->to] = c->round;
                c->stack[top++] = edge->to;
            }
        }
        if (matters)
            c->set[c->n_set++] = s;
        gr_work(c->nfa->b, steps);
    }
}

static int32_t close_end(closing *c, sets *all)
{
    if (c->sink != GR_NONE && c->seen[c->sink] == c->round) {
        c->set[0] = c->sink;
        c->n_set = 1;
    }
    gr_work(all->b, 4 + 2 * c->n_set);
    qsort(c->set, c->n_set, sizeof *c->set, by_number);
    return set_number(all, c->set, c->n_set);
}

/* Can `accept` be reached from the set by the end and without a symbol? */
static bool accepts_here(closing *c, const int32_t *set, size_t n, int32_t accept)
{
    size_t top = 0;
    uint64_t steps = n;
    bool found = false;
    c->round++;
    for (size_t i = 0; i < n; i++) {
        c->seen[set[i]] = c->round;
        c->stack[top++] = set[i];
    }
    while (top > 0 && !found) {
        int32_t s = c->stack[--top];
        found = s == accept;
        for (int32_t e = c->nfa->first[s]; e != GR_NONE; e = c->nfa->edges[e].next, steps++) {
            const gr_nfa_edge *edge = &c->nfa->edges[e];
            bool passes = edge->low == GR_SYMBOL_EMPTY || edge->low == GR_SYMBOL_END;
            if (passes && c->seen[edge->to] != c->round) {
                c->seen[edge->to] = c->round;
                c->stack[top++] = edge->to;
            }
        }
    }
    gr_work(c->nfa->b, steps / 2);
    return found;
}

static int by_low(const void *x, const void *y)
{
    const gr_nfa_edge *a = x, *b = y;
    return (a->low > b->low) - (a->low < b->low);
}

static int by_value(const void *x, const void *y)
{
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    return (a > b) - (a < b);
}

typedef struct sweep {
    gr_nfa_edge *edges; /* by symbols, of the states of a set */
    uint32_t *cuts;     /* where what they lead to may change */
    size_t n, n_cuts, edges_capacity, cuts_capacity;
} sweep;

static bool sweep_fill(sweep *w, const gr_nfa *nfa, const int32_t *set, size_t n)
{
    gr_build *b = nfa->b;
    w->n = w->n_cuts = 0;
    for (size_t i = 0; i < n; i++)
        for (int32_t e = nfa->first[set[i]]; e != GR_NONE; e = nfa->edges[e].next) {
            if (nfa->edges[e].low >= GR_SYMBOL_EMPTY)
                continue;
            void *edges = w->edges;
            if (!gr_room(b, &edges, &w->edges_capacity, w->n + 1, sizeof *w->edges))
                return false;
            w->edges = edges;
            w->edges[w->n++] = nfa->edges[e];
        }
    void *cuts = w->cuts;
    if (!gr_room(b, &cuts, &w->cuts_capacity, 2 * w->n, sizeof *w->cuts))
        return false;
    w->cuts = cuts;
    for (size_t i = 0; i < w->n; i++) {
        w->cuts[w->n_cuts++] = w->edges[i].low;
        w->cuts[w->n_cuts++] = w->edges[i].high + 1;
    }
    if (w->n) {
        qsort(w->edges, w->n, sizeof *w->edges, by_low);
        qsort(w->cuts, w->n_cuts, sizeof *w->cuts, by_value);
    }
    return gr_work(b, 8 * w->n);
}

/* The edges of the state whose set has been swept up. */
static void sweep_edges(sweep *w, closing *c, sets *all, making *m)
{
    size_t live = 0; /* edges before it end before the cut */
    for (size_t i = 0; i + 1 < w->n_cuts; i++) {
        uint32_t low = w->cuts[i], high = w->cuts[i + 1];
        if (low == high)
            continue;
        close_begin(c);
        while (live < w->n && w->edges[live].high < low)
            live++;
        size_t e = live;
        for (; e < w->n && w->edges[e].low <= low; e++)
            if (w->edges[e].high >= low)
                close_add(c, w->edges[e].to, false);
        if (!gr_work(c->nfa->b, e - live + 1))
            return;
        if (c->n_set == 0)
            continue;
        add_edge(c->nfa->b, m, low, high - 1, close_end(c, all));
    }
}

gr_dfa *gr_dfa_of(gr_nfa *nfa, int32_t start, int32_t accept, int32_t sink, bool trim)
{
    gr_build *b = nfa->b;
    size_t n = nfa->n;
    closing c = {.nfa = nfa, .sink = sink};
    c.seen = gr_take(b, n + 1, sizeof *c.seen);
    c.stack = gr_take(b, n + 1, sizeof *c.stack);
    c.set = gr_take(b, n + 1, sizeof *c.set);
    sets all = {.b = b};
    sweep w = {0};
    making m = begin_dfa(b);
    int32_t *set = gr_take(b, n + 1, sizeof *set);
    if (gr_bad(b))
        return NULL;
    close_begin(&c);
    close_add(&c, start, true);
    close_end(&c, &all);
    for (size_t s = 0; s < all.n && !gr_bad(b); s++) {
        /* A copy, since the sets move as they grow. */
        size_t size = all.begin[s + 1] - all.begin[s];
        if (size)
            memcpy(set, all.items + all.begin[s], size * sizeof *set);
        begin_state(b, &m, accepts_here(&c, set, size, accept));
        if (!sweep_fill(&w, nfa, set, size))
            return NULL;
        sweep_edges(&w, &c, &all, &m);
        if (gr_bad(b))
            return NULL;
        end_state(&m);
    }
    if (gr_bad(b))
        return NULL;
    return trim ? trimmed(b, m.dfa) : m.dfa;
}

/* ---- of two DFAs --------------------------------------------------------------------------- */

static void pair_edge(sets *all, making *m, uint32_t low, uint32_t high, int32_t x, int32_t y)
{
    int32_t pair[2] = {x, y};
    gr_work(all->b, 4);
    add_edge(all->b, m, low, high, set_number(all, pair, 2));
}

/* Where y goes on, or not at all (GR_NONE), for the symbols low .. high of x's edge. */
static void pair_edges(sets *all, making *m, const gr_dfa_edge *edge, const gr_dfa *y, int32_t at,
                       bool both)
{
    uint32_t low = edge->low;
    uint32_t i = at == GR_NONE ? 0 : y->begin[at], end = at == GR_NONE ? 0 : y->begin[at + 1];
    for (; i < end && low <= edge->high; i++) {
        const gr_dfa_edge *other = &y->edges[i];
        gr_work(all->b, 2);
        if (other->high < low || other->low > edge->high)
            continue;
        if (other->low > low && !both)
            pair_edge(all, m, low, other->low - 1, edge->to, GR_NONE);
        uint32_t from = other->low > low ? other->low : low;
        uint32_t to = other->high < edge->high ? other->high : edge->high;
        pair_edge(all, m, from, to, edge->to, other->to);
        low = to + 1;
    }
    if (low <= edge->high && !both)
        pair_edge(all, m, low, edge->high, edge->to, GR_NONE);
}

static gr_dfa *pairs(gr_build *b, const gr_dfa *x, const gr_dfa *y, bool both)
{
    sets all = {.b = b};
    making m = begin_dfa(b);
    if (gr_bad(b))
        return NULL;
    if (x->n == 0)
        return trimmed(b, x);
    int32_t first[2] = {0, y->n ? 0 : GR_NONE};
    if (both && y->n == 0)
        return trimmed(b, y);
    set_number(&all, first, 2);
    for (size_t s = 0; s < all.n && !gr_bad(b); s++) {
        int32_t at_x = all.items[2 * s], at_y = all.items[2 * s + 1];
        bool final_y = at_y != GR_NONE && y->final[at_y];
        begin_state(b, &m, x->final[at_x] && final_y == both);
        for (uint32_t i = x->begin[at_x]; i < x->begin[at_x + 1] && !gr_bad(b); i++)
            pair_edges(&all, &m, &x->edges[i], y, at_y, both);
        if (gr_bad(b))
            return NULL;
        end_state(&m);
    }
    return gr_bad(b) ? NULL : trimmed(b, m.dfa);
}

gr_dfa *gr_dfa_and(gr_build *b, const gr_dfa *x, const gr_dfa *y)
{
    return pairs(b, x, y, true);
}

gr_dfa *gr_dfa_without(gr_build *b, const gr_dfa *x, const gr_dfa *y)
{
    return pairs(b, x, y, false);
}

/* ---- simple ones --------------------------------------------------------------------------- */

/* Surrogates are no characters, and U+0000 is one that many readers of JSON refuse. */
static void add_any(gr_build *b, making *m, int32_t to)
{
    add_edge(b, m, 1, 0xD7FF, to);
    add_edge(b, m, 0xE000, GR_LAST_CODE_POINT, to);
}

gr_dfa *gr_dfa_all(gr_build *b)
{
    return gr_dfa_lengths(b, 0, -1);
}

gr_dfa *gr_dfa_lengths(gr_build *b, int64_t min, int64_t max)
{
    making m = begin_dfa(b);
    int64_t last = max < 0 ? min : max;
    if (gr_bad(b))
        return NULL;
    if (max >= 0 && max < min) {
        begin_state(b, &m, false);
        return m.dfa;
    }
    for (int64_t i = 0; i <= last && !gr_bad(b); i++) {
        begin_state(b, &m, i >= min);
        if (i < last || max < 0)
            add_any(b, &m, (int32_t)(i < last ? i + 1 : i));
        if (gr_bad(b))
            return NULL;
        end_state(&m);
    }
    return m.dfa;
}

gr_dfa *gr_dfa_texts(gr_build *b, const char *const *texts, const size_t *sizes, size_t n)
{
    gr_nfa nfa = {.b = b};
    int32_t start = gr_nfa_state(&nfa), accept = gr_nfa_state(&nfa);
    for (size_t i = 0; i < n && !gr_bad(b); i++) {
        int32_t at = start;
        uint32_t cp;
        for (size_t k = 0; k < sizes[i];) {
            k += base_utf8_decode(texts[i] + k, sizes[i] - k, &cp);
            int32_t to = gr_nfa_state(&nfa);
            gr_nfa_edge_add(&nfa, at, cp, cp, to);
            at = to;
        }
        gr_nfa_empty(&nfa, at, accept);
    }
    return gr_bad(b) ? NULL : gr_dfa_of(&nfa, start, accept, GR_NONE, true);
}

bool gr_dfa_endless(gr_build *b, const gr_dfa *d)
{
    bool *bounded = gr_take(b, (size_t)d->n + 1, sizeof *bounded), changed = true;
    /* A state is bounded where all that it leads to are. */
    while (changed && !gr_bad(b)) {
        changed = false;
        for (int32_t s = d->n - 1; s >= 0 && gr_work(b, 4); s--) {
            bool all = true;
            for (uint32_t i = d->begin[s]; i < d->begin[s + 1] && all; i++)
                all = bounded[d->edges[i].to];
            if (all && !bounded[s])
                bounded[s] = changed = true;
        }
    }
    for (int32_t s = 0; s < d->n && !gr_bad(b); s++)
        if (bounded[s])
            return false;
    return !gr_bad(b) && d->n > 0;
}

bool gr_dfa_accepts(gr_build *b, const gr_dfa *dfa, const char *text, size_t size)
{
    int32_t at = dfa->n ? 0 : GR_NONE;
    for (size_t k = 0; k < size && at != GR_NONE;) {
        uint32_t cp;
        size_t length = base_utf8_decode(text + k, size - k, &cp);
        if (length == 0)
            return false;
        k += length;
        int32_t to = GR_NONE;
        if (!gr_work(b, 1 + (dfa->begin[at + 1] - dfa->begin[at]) / 8))
            return false;
        for (uint32_t i = dfa->begin[at]; i < dfa->begin[at + 1]; i++)
            if (cp >= dfa->edges[i].low && cp <= dfa->edges[i].high)
                to = dfa->edges[i].to;
        at = to;
    }
    return at != GR_NONE && dfa->final[at];
}

/* ---- JSON texts ---------------------------------------------------------------------------- */

void gr_emit_rule(gr_build *b, int32_t rule, const gr_dfa *dfa)
{
    if (gr_bad(b))
        return;
    int32_t first = gr_node_new(b); /* one without edges where the language is empty */
    for (int32_t s = 1; s < dfa->n; s++)
        gr_node_new(b);
    if (gr_bad(b))
        return;
    b->rules[rule] = first;
    gr_edge edges[256];
    gr_call *calls = NULL;
    size_t capacity = 0;
    for (int32_t s = 0; s < dfa->n; s++) {
        size_t n_edges = 0, n_calls = 0;
        for (uint32_t i = dfa->begin[s]; i < dfa->begin[s + 1]; i++) {
            const gr_dfa_edge *e = &dfa->edges[i];
            if (e->low < GR_CALL) {
                edges[n_edges++] = (gr_edge){(uint8_t)e->low, (uint8_t)e->high, first + e->to};
                continue;
            }
            for (uint32_t symbol = e->low; symbol <= e->high; symbol++) {
                void *items = calls;
                if (!gr_room(b, &items, &capacity, n_calls + 1, sizeof *calls))
                    return;
                calls = items;
                bool name = symbol >= GR_NAME;
                int32_t callee = (int32_t)(symbol - (name ? GR_NAME : GR_CALL));
                calls[n_calls++] = (gr_call){callee, first + e->to, name};
            }
        }
        gr_node_fill(b, first + s, edges, n_edges, calls, n_calls, dfa->final[s]);
        if (gr_bad(b))
            return;
    }
}
