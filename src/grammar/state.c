#include <string.h>

#include "grammar/memo.h"

/* So many places take in the most alternatives that one schema may have, twice over. */
enum { MOST_PLACES = 2 * GR_MAX_ALTERNATIVES, NO_CELL = -1 };

/* In the place of numbers of names, and of places in the text. */
enum { NO_NAMES = -1, UNKNOWN_NAMES = -2, NO_START = -1 };

/* A return node on a stack; stacks share what is below. */
typedef struct cell {
    int32_t back, below;
    int32_t depth; /* cells with this one */
    int32_t names; /* of the object that is returned to */
    int64_t start; /* of the name that is being read, in the text; NO_START: it is none */
} cell;

/* Names of an object that may not come again, the latest first. */
typedef struct used_name {
    size_t start, end; /* in the text */
    int32_t before;
} used_name;

/* One reading of the text so far: where it stands in the automaton. */
typedef struct place {
    int32_t node, cell;
    int32_t names; /* of the object that the node belongs to */
    bool doubtful; /* open: a name has been read that may be one of those that are not known */
} place;

/* Places are kept in levels one after another, each reached from the last by a byte. */
typedef struct machine {
    const marco_grammar *g;
    cell *cells;
    place *places;
    used_name *names;
    char *text; /* read so far, and what a walk tries; there is room for the longest token more */
    size_t at;  /* what has been read, with what is being tried */
    size_t n_cells, n_places, n_names;
    size_t cells_capacity, places_capacity, names_capacity;
    /* Open: the stack's bottom is not known; leaving it is noted. */
    bool open, left, left_doubtful, doubtful;
    bool failed, crowded; /* crowded: there are more places than are followed */
    int32_t deepest;      /* depth and height together, of the places since it was set */
} machine;

/* What a walk over the tokens finds. */
typedef struct level {
    size_t places, cells, names; /* that there are up to and with it */
    bool doubtful;               /* there is a doubtful place in it */
} level;

typedef struct numbers {
    uint32_t *items;
    size_t n, capacity;
} numbers;

struct grammar_state {
    const grammar_vocab *vocab;
    gr_memo *memo;
    machine live, open;
    level *levels; /* [longest + 1] */
    uint32_t *mask;
    size_t n_text, text_capacity; /* read, of live.text */
    /* Of a walk to be remembered. */
    numbers tokens, exits, ends, doubtful;
};

/* ---- places -------------------------------------------------------------------------------- */

static int32_t depth_of(const machine *m, int32_t at)
{
    return at == NO_CELL ? 0 : m->cells[at].depth;
}

static void enter(machine *m, size_t first, place p);

/* Has the text since `start` been a name already? */
static bool is_known(const machine *m, int32_t names, size_t start)
{
    size_t size = m->at - start;
    for (; names >= 0; names = m->names[names].before) {
        const used_name *n = &m->names[names];
        if (n->end - n->start == size && memcmp(m->text + n->start, m->text + start, size) == 0)
            return true;
    }
    return false;
}

/* Goes on where the call of `p` came from. */
static void enter_back(machine *m, size_t first, place p)
{
    cell c = m->cells[p.cell];
    place back = {c.back, c.below, c.names, p.doubtful};
    if (c.start != NO_START && c.names == UNKNOWN_NAMES) {
        back.doubtful = true;
    } else if (c.start != NO_START) {
        void *names = m->names;
        if (is_known(m, c.names, (size_t)c.start))
            return;
        if (!base_grow(&names, &m->names_capacity, m->n_names + 1, sizeof *m->names)) {
            m->failed = true;
            return;
        }
        m->names = names;
        m->names[m->n_names] = (used_name){(size_t)c.start, m->at, c.names};
        back.names = (int32_t)m->n_names++;
    }
    enter(m, first, back);
}

static void enter_call(machine *m, size_t first, const gr_call *call, place p)
{
    if (call->back == GR_NONE) { /* nothing is left to do there */
        enter(m, first, (place){call->to, p.cell, NO_NAMES, p.doubtful});
        return;
    }
    int32_t depth = depth_of(m, p.cell), deep = depth + m->g->nodes[call->back].height;
    if (deep > GR_MAX_DEPTH || depth + 1 + m->g->nodes[call->to].height > GR_MAX_DEPTH)
        return;
    void *cells = m->cells;
    if (!base_grow(&cells, &m->cells_capacity, m->n_cells + 1, sizeof *m->cells)) {
        m->failed = true;
        return;
    }
    m->deepest = deep > m->deepest ? deep : m->deepest;
    m->cells = cells;
    m->cells[m->n_cells++] =
        (cell){call->back, p.cell, depth + 1, p.names, call->name ? (int64_t)m->at : NO_START};
    enter(m, first, (place){call->to, (int32_t)m->n_cells - 1, NO_NAMES, p.doubtful});
}

/* Adds a place to the level that begins at `first`; false where that level has it. */
static bool add_to_level(machine *m, size_t first, place p)
{
    for (size_t i = first; i < m->n_places; i++) {
        place *known = &m->places[i];
        if (known->node != p.node || known->cell != p.cell || known->names != p.names)
            continue;
        if (p.doubtful || !known->doubtful)
            return false;
        known->doubtful = false;
        return true;
    }
    if (m->n_places - first >= MOST_PLACES) {
        m->failed = m->crowded = true;
        return false;
    }
    void *places = m->places;
    if (!base_grow(&places, &m->places_capacity, m->n_places + 1, sizeof *m->places)) {
        m->failed = true;
        return false;
    }
    m->places = places;
    m->places[m->n_places++] = p;
    m->doubtful |= p.doubtful;
    return true;
}

/* Adds a place and those reached from it without a byte to the level that begins at `first`. Every
 * place can be finished: those too deep for that are left out. */
static void enter(machine *m, size_t first, place p)
{
    const gr_node *n = &m->g->nodes[p.node];
    int32_t deep = depth_of(m, p.cell) + n->height;
    if (deep > GR_MAX_DEPTH)
        return;
    m->deepest = deep > m->deepest ? deep : m->deepest;
    /* Nothing can be read where a rule ends for good: what it returns to is the place. */
    bool over = n->final && n->n_edges == 0 && n->n_calls == 0;
    if (!over && !add_to_level(m, first, p))
        return;
    for (size_t i = 0; i < n->n_calls; i++)
        enter_call(m, first, &m->g->calls[n->call + i], p);
    if (!n->final)
        return;
    if (p.cell != NO_CELL)
        enter_back(m, first, p);
    else if (m->open && p.doubtful)
        m->left_doubtful = true;
    else if (m->open)
        m->left = true;
    else
        enter(m, first, (place){GR_END, NO_CELL, NO_NAMES, false});
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
    m->text[m->at++] = (char)byte;
    for (size_t i = first; i < last; i++) {
        place p = m->places[i];
        p.node = follow(m->g, p.node, byte);
        if (p.node == 0)
            continue;
        const gr_node *n = &m->g->nodes[p.node];
        int32_t deep = depth_of(m, p.cell) + n->height;
        if (last - first > 1 || !n->simple || deep > m->deepest ||
            m->n_places == m->places_capacity)
            enter(m, begin, p);
        else /* the same without the detours */
            m->places[m->n_places++] = p;
    }
}

/* ---- walks --------------------------------------------------------------------------------- */

static void remember(grammar_state *s, numbers *list, uint32_t number)
{
    void *items = list->items;
    if (!base_grow(&items, &list->capacity, list->n + 1, sizeof *list->items)) {
        s->open.failed = true;
        return;
    }
    list->items = items;
    list->items[list->n++] = number;
}

/* A token and those of the same text. */
static void allow(grammar_state *s, const machine *m, int32_t id)
{
    for (; id != GR_NONE; id = s->vocab->same[id]) {
        if (m->open)
            remember(s, &s->tokens, (uint32_t)id);
        else
            gr_set_bit(s->mask, id);
    }
}

static void doubt(grammar_state *s, uint32_t at, uint32_t end)
{
    for (; at < end; at++)
        if (s->vocab->trie[at].token != GR_NONE)
            remember(s, &s->doubtful, (uint32_t)s->vocab->trie[at].token);
}

/* Notes what an open machine has found at a node of the trie. False where all that is below is
 * doubtful and has been noted. */
static bool note(grammar_state *s, const machine *m, size_t first, uint32_t at)
{
    const gr_trie_node *t = &s->vocab->trie[at];
    bool sure = m->left;
    for (size_t i = first; i < m->n_places; i++)
        sure |= !m->places[i].doubtful;
    if (!sure && (m->left_doubtful || m->n_places > first)) {
        doubt(s, at, t->next);
        return false;
    }
    if (m->left_doubtful)
        doubt(s, at + 1, t->next);
    if (m->left && t->next > at + 1)
        remember(s, &s->exits, at);
    if (m->left && t->token != GR_NONE && m->n_places == first)
        remember(s, &s->ends, at);
    return true;
}

/* Finds the tokens of the trie's nodes at .. end that can be read from the level that begins at
 * places[first] and is the last one; the nodes lie below one of depth `above`, whose bytes have
 * been read. */
static void walk(grammar_state *s, machine *m, size_t first, uint32_t at, uint32_t end,
                 size_t above)
{
    const gr_trie_node *trie = s->vocab->trie;
    level *levels = s->levels;
    size_t read = m->at;
    levels[0] = (level){m->n_places, m->n_cells, m->n_names, false};
    while (at < end && !m->failed) {
        const gr_trie_node *t = &trie[at];
        size_t d = t->depth - above;
        size_t from = d > 1 ? levels[d - 2].places : first, to = levels[d - 1].places;
        m->n_places = to;
        m->n_cells = levels[d - 1].cells;
        m->n_names = levels[d - 1].names;
        m->at = read + d - 1;
        m->left = m->left_doubtful = false;
        m->doubtful = levels[d - 1].doubtful;
        step(m, from, to, t->byte);
        bool special = m->left || m->left_doubtful || m->doubtful;
        if (special && !note(s, m, to, at)) {
            at = t->next;
            continue;
        }
        if ((m->left || m->n_places > to) && t->token != GR_NONE)
            allow(s, m, t->token);
        levels[d] = (level){m->n_places, m->n_cells, m->n_names, m->doubtful};
        at = m->n_places > to ? at + 1 : t->next;
    }
    m->n_places = levels[0].places;
    m->n_cells = levels[0].cells;
    m->n_names = levels[0].names;
    m->at = read;
}

/* ---- entries ------------------------------------------------------------------------------- */

static uint32_t *copy_numbers(uint32_t *to, const numbers *from)
{
    if (from->n)
        memcpy(to, from->items, from->n * sizeof *to);
    return to + from->n;
}

static gr_entry *make_entry(grammar_state *s, const gr_entry *head, size_t *size)
{
    size_t words = s->vocab->words;
    bool dense = s->tokens.n > words;
    size_t n = s->exits.n + s->ends.n + s->doubtful.n + (dense ? words : s->tokens.n);
    *size = sizeof(gr_entry) + n * sizeof(uint32_t);
    gr_entry *e = base_calloc(1, *size);
    if (!e)
        return NULL;
    *e = *head;
    e->dense = dense;
    e->n_exits = (uint32_t)s->exits.n;
    e->n_ends = (uint32_t)s->ends.n;
    e->n_doubtful = (uint32_t)s->doubtful.n;
    e->n_tokens = (uint32_t)s->tokens.n;
    uint32_t *rest = copy_numbers(e->numbers, &s->exits);
    rest = copy_numbers(copy_numbers(rest, &s->ends), &s->doubtful);
    if (!dense)
        copy_numbers(rest, &s->tokens);
    for (size_t i = 0; dense && i < s->tokens.n; i++)
        gr_set_bit(rest, (int32_t)s->tokens.items[i]);
    return e;
}

/* Finds out what may follow a node; NULL: out of memory. */
static gr_entry *compute_entry(grammar_state *s, int32_t node, size_t *size)
{
    const grammar_vocab *v = s->vocab;
    const gr_node *n = &s->open.g->nodes[node];
    machine *m = &s->open;
    gr_entry head = {0};
    s->tokens.n = s->exits.n = s->ends.n = s->doubtful.n = 0;
    m->n_cells = m->n_places = m->n_names = m->at = 0;
    m->deepest = n->height;
    m->failed = false;
    /* By itself: what it calls, and what it returns to, are places of their own. */
    void *places = m->places;
    if (!base_grow(&places, &m->places_capacity, 1, sizeof *m->places))
        return NULL;
    m->places = places;
    m->places[m->n_places++] = (place){node, NO_CELL, UNKNOWN_NAMES, false};
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
    const uint32_t *rest = e->numbers + e->n_exits + e->n_ends + e->n_doubtful;
    if (e->run)
        gr_vocab_plain(s->vocab, e->run, s->mask);
    if (e->dense)
        for (size_t w = 0; w < s->vocab->words; w++)
            s->mask[w] |= rest[w];
    else
        for (uint32_t i = 0; i < e->n_tokens; i++)
            gr_set_bit(s->mask, (int32_t)rest[i]);
}

/* Reads the bytes of a trie's node, without a step. */
static void read_node(grammar_state *s, uint32_t node)
{
    const grammar_vocab *v = s->vocab;
    uint32_t below = node;
    while (v->trie[below].token == GR_NONE) /* what ends below begins with the same bytes */
        below++;
    memcpy(s->live.text + s->n_text, v->bytes + v->offsets[v->trie[below].token],
           v->trie[node].depth);
    s->live.at = s->n_text + v->trie[node].depth;
}

/* The tokens below the nodes at which the rule of `p` has been left. */
static void use_exits(grammar_state *s, const gr_entry *e, place p)
{
    machine *m = &s->live;
    const gr_trie_node *trie = s->vocab->trie;
    size_t first = m->n_places, cells = m->n_cells, names = m->n_names;
    bool name = m->cells[p.cell].start != NO_START;
    if (!name)
        enter_back(m, first, p);
    for (uint32_t i = 0; i < e->n_exits && !m->failed; i++) {
        uint32_t exit = e->numbers[i];
        read_node(s, exit);
        if (name)
            enter_back(m, first, p);
        walk(s, m, first, exit + 1, trie[exit].next, trie[exit].depth);
        if (name) {
            m->n_places = first;
            m->n_cells = cells;
            m->n_names = names;
        }
    }
    m->n_places = first;
    m->n_cells = cells;
    m->n_names = names;
    m->at = s->n_text;
}

/* Takes back the tokens with which a name ends that there is already. */
static void refuse_known(grammar_state *s, const gr_entry *e, place p)
{
    machine *m = &s->live;
    cell c = m->cells[p.cell];
    for (uint32_t i = 0; i < e->n_ends; i++) {
        uint32_t node = e->numbers[e->n_exits + i];
        read_node(s, node);
        if (!is_known(m, c.names, (size_t)c.start))
            continue;
        for (int32_t id = s->vocab->trie[node].token; id != GR_NONE; id = s->vocab->same[id])
            s->mask[id / 32] &= ~(1u << id % 32);
    }
    m->at = s->n_text;
}

/* Steps through a token from places[first, n_places); the first place of the level reached is
 * returned, n_places where there is none. */
static size_t read_token(grammar_state *s, size_t first, int32_t id)
{
    const grammar_vocab *v = s->vocab;
    machine *m = &s->live;
    size_t last = m->n_places;
    for (size_t i = v->offsets[id]; i < v->offsets[id + 1] && last > first; i++) {
        step(m, first, last, (uint8_t)v->bytes[i]);
        first = last;
        last = m->n_places;
    }
    return first;
}

static void check_doubtful(grammar_state *s, const gr_entry *e, place p)
{
    machine *m = &s->live;
    level before = {m->n_places, m->n_cells, m->n_names, false};
    for (uint32_t i = 0; i < e->n_doubtful && !m->failed; i++) {
        int32_t id = (int32_t)e->numbers[e->n_exits + e->n_ends + i];
        m->places[m->n_places++] = p; /* there is room: the state keeps one place free */
        if (read_token(s, before.places, id) < m->n_places)
            allow(s, m, id);
        m->n_places = before.places;
        m->n_cells = before.cells;
        m->n_names = before.names;
        m->at = s->n_text;
    }
}

/* The entry of a node; *own where the caller must free it. NULL: out of memory. */
static const gr_entry *entry_of(grammar_state *s, int32_t node, gr_entry **own)
{
    gr_memo *memo = node < s->vocab->common->n ? s->vocab->common : s->memo;
    gr_entry *e = atomic_load_explicit(&memo->entries[node], memory_order_acquire);
    size_t size;
    *own = NULL;
    if (e)
        return e;
    e = compute_entry(s, node, &size);
    if (e && !gr_memo_put(memo, node, e, size))
        *own = e;
    return e;
}

/* Is it within a name that may not be one of some? */
static bool in_name(const machine *m, place p)
{
    return p.cell != NO_CELL && m->cells[p.cell].start != NO_START && m->cells[p.cell].names >= 0;
}

/* Adds the tokens that may follow one place. */
static void add_place(grammar_state *s, place p)
{
    machine *m = &s->live;
    gr_entry *own;
    if (m->g->nodes[p.node].n_edges == 0)
        return;
    const gr_entry *e = entry_of(s, p.node, &own);
    if (!e) {
        m->failed = true;
        return;
    }
    if (depth_of(m, p.cell) + e->deepest <= GR_MAX_DEPTH) {
        use_entry(s, e);
        if (in_name(m, p))
            refuse_known(s, e, p);
        if (e->n_exits && p.cell != NO_CELL)
            use_exits(s, e, p);
        check_doubtful(s, e, p);
    } else { /* so near to the greatest depth that it makes a difference */
        size_t first = m->n_places;
        m->places[m->n_places++] = p;
        walk(s, m, first, 0, s->vocab->n_trie, 0);
        m->n_places = first;
    }
    base_free(own);
}

/* ---- states -------------------------------------------------------------------------------- */

/* Room for one more place, and for the longest token in the text. */
static bool spare(grammar_state *s)
{
    machine *m = &s->live;
    void *places = m->places, *text = m->text;
    if (!base_grow(&places, &m->places_capacity, m->n_places + 1, sizeof *m->places))
        return false;
    m->places = places;
    if (!base_grow(&text, &s->text_capacity, s->n_text + s->vocab->longest + 1, 1))
        return false;
    m->text = text;
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
    s->open.text = base_alloc(vocab->longest + 1);
    enter(&s->live, 0, (place){grammar->root, NO_CELL, NO_NAMES, false});
    if (!s->memo || !s->levels || !s->open.text || s->live.failed || !spare(s)) {
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
    base_free(s->live.names);
    base_free(s->open.names);
    base_free(s->live.text);
    base_free(s->open.text);
    base_free(s->tokens.items);
    base_free(s->exits.items);
    base_free(s->ends.items);
    base_free(s->doubtful.items);
    base_free(s);
}

static void begin(grammar_state *s)
{
    s->live.failed = s->live.crowded = s->open.crowded = false;
}

/* Why a machine has failed. */
static marco_status failure(const grammar_state *s, size_t size, marco_error *error)
{
    if (s->live.crowded || s->open.crowded)
        return base_fail(
            error, MARCO_ERROR_UNSUPPORTED,
            "the reply so far can be read in more than %d ways: use fewer alternatives "
            "('anyOf', 'oneOf') that begin alike",
            MOST_PLACES);
    return base_fail_memory(error, size, "a grammar's state");
}

marco_status grammar_state_mask(grammar_state *s, uint32_t *mask, marco_error *error)
{
    const grammar_vocab *v = s->vocab;
    size_t n = s->live.n_places;
    memset(mask, 0, v->words * sizeof *mask);
    s->mask = mask;
    begin(s);
    /* Names first: what they take back, another reading of the same text may allow. */
    for (int names = 1; names >= 0; names--)
        for (size_t i = 0; i < n && !s->live.failed; i++)
            if (in_name(&s->live, s->live.places[i]) == (names == 1))
                add_place(s, s->live.places[i]);
    if (s->live.failed)
        return failure(s, v->words * sizeof *mask, error);
    if (grammar_state_may_end(s))
        for (int32_t i = 0; i < v->n_end; i++)
            gr_set_bit(mask, v->end[i]);
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
    level before = {m->n_places, m->n_cells, m->n_names, false};
    size_t first = 0;
    begin(s);
    if (id >= 0 && id < v->n_vocab && gr_is_end(v, id) && grammar_state_may_end(s)) {
        m->places[0] = (place){GR_END, NO_CELL, NO_NAMES, false};
        m->n_places = 1;
        return MARCO_OK;
    }
    bool good = id >= 0 && id < v->n_vocab && v->offsets[id + 1] > v->offsets[id];
    if (good) {
        first = read_token(s, 0, id);
        good = !m->failed && first < m->n_places;
    }
    if (good) { /* those before were one at least: that many stay free */
        s->n_text = m->at;
        if (spare(s)) {
            settle(m, first);
            return MARCO_OK;
        }
        m->failed = true;
        s->n_text -= v->offsets[id + 1] - v->offsets[id];
    }
    m->n_places = before.places;
    m->n_cells = before.cells;
    m->n_names = before.names;
    m->at = s->n_text;
    if (m->failed)
        return failure(s, sizeof *m->places, error);
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
