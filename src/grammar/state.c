#include <string.h>

#include "grammar/memo.h"

enum { MOST_PLACES = 256, NO_CELL = -1 };

/* A return node on a stack; stacks share what is below. */
typedef struct cell {
    int32_t back, below;
    int32_t depth; /* cells with this one */
} cell;

/* One reading of the text so far: where it stands in the automaton. */
typedef struct place {
    int32_t node, cell;
} place;

/* Places are kept in levels one after another, each reached from the last by a byte. */
typedef struct machine {
    const marco_grammar *g;
    cell *cells;
    place *places;
    size_t n_cells, n_places, cells_capacity, places_capacity;
    /* Open: the stack's bottom is not known; leaving it is noted. */
    bool open, left, failed;
    int32_t deepest; /* depth and height together, of the places since it was set */
} machine;

/* What a walk over the tokens finds. */
typedef struct level {
    size_t places, cells; /* that there are up to and with it */
} level;

struct grammar_state {
    const grammar_vocab *vocab;
    gr_memo *memo;
    machine live, open;
    level *levels; /* [longest + 1] */
    uint32_t *mask;
    int32_t *tokens; /* [n_tokens], of a walk to be remembered */
    uint32_t *exits;
    size_t n_tokens, n_exits, tokens_capacity, exits_capacity;
};

/* ---- places -------------------------------------------------------------------------------- */

static int32_t depth_of(const machine *m, int32_t at)
{
    return at == NO_CELL ? 0 : m->cells[at].depth;
}

static void enter(machine *m, size_t first, int32_t node, int32_t at);

static void enter_call(machine *m, size_t first, const gr_call *call, int32_t at)
{
    if (call->back == GR_NONE) { /* nothing is left to do there */
        enter(m, first, call->to, at);
        return;
    }
    int32_t depth = depth_of(m, at), deep = depth + m->g->nodes[call->back].height;
    if (deep > GR_MAX_DEPTH || depth + 1 + m->g->nodes[call->to].height > GR_MAX_DEPTH)
        return;
    void *cells = m->cells;
    if (!base_grow(&cells, &m->cells_capacity, m->n_cells + 1, sizeof *m->cells)) {
        m->failed = true;
        return;
    }
    m->deepest = deep > m->deepest ? deep : m->deepest;
    m->cells = cells;
    m->cells[m->n_cells++] = (cell){call->back, at, depth + 1};
    enter(m, first, call->to, (int32_t)m->n_cells - 1);
}

/* Adds a place and those reached from it without a byte to the level that begins at `first`. Every
 * place can be finished: those too deep for that are left out. */
static void enter(machine *m, size_t first, int32_t node, int32_t at)
{
    const gr_node *n = &m->g->nodes[node];
    int32_t deep = depth_of(m, at) + n->height;
    if (deep > GR_MAX_DEPTH)
        return;
    for (size_t i = first; i < m->n_places; i++)
        if (m->places[i].node == node && m->places[i].cell == at)
            return;
    void *places = m->places;
    if (m->n_places - first >= MOST_PLACES)
        return;
    if (!base_grow(&places, &m->places_capacity, m->n_places + 1, sizeof *m->places)) {
        m->failed = true;
        return;
    }
    m->deepest = deep > m->deepest ? deep : m->deepest;
    m->places = places;
    m->places[m->n_places++] = (place){node, at};
    for (size_t i = 0; i < n->n_calls; i++)
        enter_call(m, first, &m->g->calls[n->call + i], at);
    if (!n->final)
        return;
    if (at != NO_CELL)
        enter(m, first, m->cells[at].back, m->cells[at].below);
    else if (m->open)
        m->left = true;
    else
        enter(m, first, GR_END, NO_CELL);
}

/* The node that a byte leads to, 0 where it leads nowhere. */
static inline int32_t follow(const marco_grammar *g, int32_t node, uint8_t byte)
{
    if (g->table)
        return g->table[(size_t)node * (size_t)g->n_classes + g->classes[byte]];
    const gr_node *n = &g->nodes[node];
    const gr_edge *edge = g->edges + n->edge, *end = edge + n->n_edges;
    for (; edge < end; edge++)
        if (byte >= edge->low && byte <= edge->high)
            return edge->to;
    return 0;
}

/* Adds the level that a byte leads to from places[first, last). */
static inline void step(machine *m, size_t first, size_t last, uint8_t byte)
{
    size_t begin = m->n_places;
    for (size_t i = first; i < last; i++) {
        place p = m->places[i];
        int32_t to = follow(m->g, p.node, byte);
        if (to == 0)
            continue;
        const gr_node *n = &m->g->nodes[to];
        int32_t deep = depth_of(m, p.cell) + n->height;
        if (last - first > 1 || !n->simple || deep > m->deepest ||
            m->n_places == m->places_capacity)
            enter(m, begin, to, p.cell);
        else /* the same without the detours */
            m->places[m->n_places++] = (place){to, p.cell};
    }
}

/* ---- walks --------------------------------------------------------------------------------- */

static void set_bit(uint32_t *mask, int32_t id)
{
    mask[id / 32] |= 1u << id % 32;
}

static void remember_token(grammar_state *s, int32_t id)
{
    void *tokens = s->tokens;
    if (!base_grow(&tokens, &s->tokens_capacity, s->n_tokens + 1, sizeof *s->tokens)) {
        s->open.failed = true;
        return;
    }
    s->tokens = tokens;
    s->tokens[s->n_tokens++] = id;
}

static void remember_exit(grammar_state *s, uint32_t node)
{
    void *exits = s->exits;
    if (!base_grow(&exits, &s->exits_capacity, s->n_exits + 1, sizeof *s->exits)) {
        s->open.failed = true;
        return;
    }
    s->exits = exits;
    s->exits[s->n_exits++] = node;
}

static void allow(grammar_state *s, const machine *m, int32_t id)
{
    for (; id != GR_NONE; id = s->vocab->same[id]) {
        if (m->open)
            remember_token(s, id);
        else
            set_bit(s->mask, id);
    }
}

/* Finds the tokens of the trie's nodes at .. end that can be read from the level that begins at
 * places[first] and is the last one; the nodes lie below one of depth `above`. */
static void walk(grammar_state *s, machine *m, size_t first, uint32_t at, uint32_t end,
                 size_t above)
{
    const gr_trie_node *trie = s->vocab->trie;
    level *levels = s->levels;
    levels[0] = (level){m->n_places, m->n_cells};
    while (at < end && !m->failed) {
        const gr_trie_node *t = &trie[at];
        size_t d = t->depth - above;
        size_t from = d > 1 ? levels[d - 2].places : first, to = levels[d - 1].places;
        m->n_places = to;
        m->n_cells = levels[d - 1].cells;
        m->left = false;
        step(m, from, to, t->byte);
        if (m->left && t->next > at + 1)
            remember_exit(s, at);
        if ((m->left || m->n_places > to) && t->token != GR_NONE)
            allow(s, m, t->token);
        levels[d] = (level){m->n_places, m->n_cells};
        at = m->n_places > to ? at + 1 : t->next;
    }
    m->n_places = levels[0].places;
    m->n_cells = levels[0].cells;
}

/* ---- entries ------------------------------------------------------------------------------- */

static gr_entry *make_entry(grammar_state *s, const gr_entry *head, size_t *size)
{
    size_t words = s->vocab->words;
    bool dense = s->n_tokens > words;
    size_t n = s->n_exits + (dense ? words : s->n_tokens);
    *size = sizeof(gr_entry) + n * sizeof(uint32_t);
    gr_entry *e = base_calloc(1, *size);
    if (!e)
        return NULL;
    *e = *head;
    e->dense = dense;
    e->n_exits = (uint32_t)s->n_exits;
    e->n_tokens = (uint32_t)s->n_tokens;
    for (size_t i = 0; i < s->n_exits; i++)
        e->numbers[i] = s->exits[i];
    uint32_t *rest = e->numbers + s->n_exits;
    for (size_t i = 0; i < s->n_tokens; i++) {
        if (dense)
            set_bit(rest, s->tokens[i]);
        else
            rest[i] = (uint32_t)s->tokens[i];
    }
    return e;
}

/* Finds out what may follow a node; NULL: out of memory. */
static gr_entry *compute_entry(grammar_state *s, int32_t node, size_t *size)
{
    const grammar_vocab *v = s->vocab;
    const gr_node *n = &s->open.g->nodes[node];
    machine *m = &s->open;
    gr_entry head = {0};
    s->n_tokens = s->n_exits = 0;
    m->n_cells = m->n_places = 0;
    m->deepest = n->height;
    m->failed = false;
    /* By itself: what it calls, and what it returns to, are places of their own. */
    void *places = m->places;
    if (!base_grow(&places, &m->places_capacity, 1, sizeof *m->places))
        return NULL;
    m->places = places;
    m->places[m->n_places++] = (place){node, NO_CELL};
    /* Plain tokens need no walk where all are allowed, or all up to some length. */
    uint32_t longest = v->n_long ? v->long_sizes[v->n_long - 1] : GR_RUNS;
    bool known = n->run > 0 && (n->exact || n->run >= longest);
    if (known)
        head.run = n->run;
    walk(s, m, 0, known ? v->n_plain : 0, v->n_trie, 0);
    head.deepest = m->deepest;
    return m->failed ? NULL : make_entry(s, &head, size);
}

static void use_entry(grammar_state *s, const gr_entry *e)
{
    const uint32_t *rest = e->numbers + e->n_exits;
    if (e->run)
        gr_vocab_plain(s->vocab, e->run, s->mask);
    if (e->dense)
        for (size_t w = 0; w < s->vocab->words; w++)
            s->mask[w] |= rest[w];
    else
        for (uint32_t i = 0; i < e->n_tokens; i++)
            set_bit(s->mask, (int32_t)rest[i]);
}

/* The tokens below the nodes at which the rule of `at` has been left. */
static void use_exits(grammar_state *s, const gr_entry *e, int32_t at)
{
    machine *m = &s->live;
    const gr_trie_node *trie = s->vocab->trie;
    size_t first = m->n_places, cells = m->n_cells;
    enter(m, first, m->cells[at].back, m->cells[at].below);
    for (uint32_t i = 0; i < e->n_exits && !m->failed; i++) {
        uint32_t exit = e->numbers[i];
        walk(s, m, first, exit + 1, trie[exit].next, trie[exit].depth);
    }
    m->n_places = first;
    m->n_cells = cells;
}

/* Adds the tokens that may follow one place. */
static void add_place(grammar_state *s, place p)
{
    machine *m = &s->live;
    if (m->g->nodes[p.node].n_edges == 0)
        return;
    gr_memo *memo = p.node < s->vocab->common->n ? s->vocab->common : s->memo;
    gr_entry *e = atomic_load_explicit(&memo->entries[p.node], memory_order_acquire);
    gr_entry *own = NULL;
    size_t size;
    if (!e) {
        e = own = compute_entry(s, p.node, &size);
        if (!e) {
            m->failed = true;
            return;
        }
        if (gr_memo_put(memo, p.node, e, size))
            own = NULL;
    }
    if (depth_of(m, p.cell) + e->deepest <= GR_MAX_DEPTH) {
        use_entry(s, e);
        if (e->n_exits && p.cell != NO_CELL)
            use_exits(s, e, p.cell);
    } else { /* so near to the greatest depth that it makes a difference */
        size_t first = m->n_places;
        m->places[m->n_places++] = p; /* there is room: the state keeps one place free */
        walk(s, m, first, 0, s->vocab->n_trie, 0);
        m->n_places = first;
    }
    base_free(own);
}

/* ---- states -------------------------------------------------------------------------------- */

/* Room for one more place, always. */
static bool spare_place(machine *m)
{
    void *places = m->places;
    if (!base_grow(&places, &m->places_capacity, m->n_places + 1, sizeof *m->places))
        return false;
    m->places = places;
    return true;
}

marco_status grammar_state_create(const marco_grammar *grammar, const grammar_vocab *vocab,
                                  grammar_state **out, marco_error *error)
{
    *out = NULL;
    grammar_state *s = base_calloc(1, sizeof *s);
    if (!s)
        return base_fail_memory(error, sizeof *s, "a grammar's state");
    s->vocab = vocab;
    s->live.g = s->open.g = grammar;
    s->open.open = true;
    s->memo = gr_memo_of(grammar, vocab);
    s->levels = base_alloc_array(vocab->longest + 1, sizeof *s->levels);
    enter(&s->live, 0, grammar->root, NO_CELL);
    if (!s->memo || !s->levels || s->live.failed || !spare_place(&s->live)) {
        grammar_state_free(s);
        return base_fail_memory(error, vocab->longest * sizeof *s->levels, "a grammar's state");
    }
    *out = s;
    return MARCO_OK;
}

void grammar_state_free(grammar_state *s)
{
    if (!s)
        return;
    base_free(s->live.cells);
    base_free(s->live.places);
    base_free(s->open.cells);
    base_free(s->open.places);
    base_free(s->levels);
    base_free(s->tokens);
    base_free(s->exits);
    base_free(s);
}

marco_status grammar_state_mask(grammar_state *s, uint32_t *mask, marco_error *error)
{
    const grammar_vocab *v = s->vocab;
    size_t n = s->live.n_places;
    memset(mask, 0, v->words * sizeof *mask);
    s->mask = mask;
    s->live.failed = false;
    for (size_t i = 0; i < n && !s->live.failed; i++)
        add_place(s, s->live.places[i]);
    if (s->live.failed)
        return base_fail_memory(error, v->words * sizeof *mask, "a grammar's state");
    if (grammar_state_may_end(s))
        for (int32_t i = 0; i < v->n_end; i++)
            set_bit(mask, v->end[i]);
    return MARCO_OK;
}

/* Forgets the cells that no place stands on, once they are many. */
static void compact(machine *m)
{
    enum { MANY = 1024 };
    if (m->n_cells < MANY)
        return;
    /* Marked by a negative depth; what is below has a smaller number. */
    for (size_t i = 0; i < m->n_places; i++)
        for (int32_t c = m->places[i].cell; c != NO_CELL && m->cells[c].depth > 0;) {
            m->cells[c].depth = -m->cells[c].depth;
            c = m->cells[c].below;
        }
    int32_t *moved = base_alloc_array(m->n_cells, sizeof *moved);
    size_t kept = 0;
    for (size_t i = 0; i < m->n_cells; i++) {
        if (!moved) {
            m->cells[i].depth = m->cells[i].depth < 0 ? -m->cells[i].depth : m->cells[i].depth;
            continue;
        }
        if (m->cells[i].depth > 0)
            continue;
        cell c = m->cells[i];
        c.depth = -c.depth;
        c.below = c.below == NO_CELL ? NO_CELL : moved[c.below];
        moved[i] = (int32_t)kept;
        m->cells[kept++] = c;
    }
    if (moved) {
        for (size_t i = 0; i < m->n_places; i++)
            if (m->places[i].cell != NO_CELL)
                m->places[i].cell = moved[m->places[i].cell];
        m->n_cells = kept;
    }
    base_free(moved);
}

static bool is_end(const grammar_vocab *v, int32_t id)
{
    for (int32_t i = 0; i < v->n_end; i++)
        if (v->end[i] == id)
            return true;
    return false;
}

/* Makes places[first, ...) the state's. */
static void settle(machine *m, size_t first)
{
    memmove(m->places, m->places + first, (m->n_places - first) * sizeof *m->places);
    m->n_places -= first;
    compact(m);
}

marco_status grammar_state_accept(grammar_state *s, int32_t id, marco_error *error)
{
    const grammar_vocab *v = s->vocab;
    machine *m = &s->live;
    size_t before = m->n_places, cells = m->n_cells, first = 0, last = before;
    m->failed = false;
    if (id >= 0 && id < v->n_vocab && is_end(v, id) && grammar_state_may_end(s)) {
        m->places[0] = (place){GR_END, NO_CELL};
        m->n_places = 1;
        return MARCO_OK;
    }
    bool good = id >= 0 && id < v->n_vocab && v->offsets[id + 1] > v->offsets[id];
    for (size_t i = good ? v->offsets[id] : 0; good && i < v->offsets[id + 1]; i++) {
        step(m, first, last, (uint8_t)v->bytes[i]);
        first = last;
        last = m->n_places;
        good = last > first && !m->failed;
    }
    if (good) { /* those before were one at least: that many stay free */
        settle(m, first);
        return MARCO_OK;
    }
    m->n_places = before;
    m->n_cells = cells;
    if (m->failed)
        return base_fail_memory(error, sizeof *m->places, "a grammar's state");
    return base_fail(error, MARCO_ERROR_ARGUMENT,
                     "the token %d cannot follow in the form that is asked for", (int)id);
}

bool grammar_state_may_end(const grammar_state *s)
{
    for (size_t i = 0; i < s->live.n_places; i++)
        if (s->live.places[i].node == GR_END)
            return true;
    return false;
}

bool grammar_state_must_end(const grammar_state *s)
{
    for (size_t i = 0; i < s->live.n_places; i++)
        if (s->live.places[i].node != GR_END &&
            s->live.g->nodes[s->live.places[i].node].n_edges > 0)
            return false;
    return true;
}
