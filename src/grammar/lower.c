/* Strings: from DFAs over code points to nodes that read the JSON spelling byte by byte. */
#include <string.h>

#include "grammar/internal.h"

/* What the characters after a node lead to. */
typedef struct ways {
    const gr_dfa_edge *edges; /* their `to` are nodes, in order */
    size_t n;
} ways;

/* The first edge that does not end before a character; w->n where there is none. */
static size_t edge_at(const ways *w, uint32_t cp)
{
    size_t low = 0, high = w->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (w->edges[middle].high < cp)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int32_t way(const ways *w, uint32_t cp)
{
    size_t i = edge_at(w, cp);
    return i < w->n && cp >= w->edges[i].low ? w->edges[i].to : GR_NONE;
}

/* Adds low .. high, longer by it where the last edge leads to the same. */
static void put(gr_edge *edges, size_t *n, uint32_t low, uint32_t high, int32_t to)
{
    if (to == GR_NONE)
        return;
    if (*n > 0 && edges[*n - 1].to == to && edges[*n - 1].high + 1u == low)
        edges[*n - 1].high = (uint8_t)high;
    else
        edges[(*n)++] = (gr_edge){(uint8_t)low, (uint8_t)high, to};
}

static int32_t node_with(gr_build *b, const gr_edge *edges, size_t n)
{
    int32_t node = gr_node_new(b);
    if (!gr_bad(b))
        gr_node_fill(b, node, edges, n, NULL, 0, false);
    return node;
}

/* The node that reads any `k` (0 to 3) continuation bytes before `to`. */
static int32_t any_tail(gr_build *b, int k, int32_t to)
{
    if (k == 0 || to == GR_NONE)
        return to;
    void *tails = b->tails[k - 1];
    if (!gr_room_kept(b, &tails, &b->n_tails[k - 1], (size_t)to + 1, sizeof(int32_t)))
        return GR_NONE;
    b->tails[k - 1] = tails;
    if (b->tails[k - 1][to])
        return b->tails[k - 1][to];
    gr_edge edge = {0x80, 0xBF, any_tail(b, k - 1, to)};
    int32_t node = node_with(b, &edge, 1);
    if (!gr_bad(b))
        b->tails[k - 1][to] = node;
    return node;
}

/* The node that reads the last `k` bytes of the code points base .. base + 64^k - 1, of which those
 * below `floor` have a shorter spelling; GR_NONE where none is allowed. */
static int32_t tail(gr_build *b, const ways *w, uint32_t base, int k, uint32_t floor)
{
    uint32_t span = 1u << 6 * k, last = base + span - 1;
    if (k == 0)
        return base < floor ? GR_NONE : way(w, base);
    if (last < floor)
        return GR_NONE;
    size_t i = edge_at(w, base > floor ? base : floor);
    if (i == w->n || w->edges[i].low > last)
        return GR_NONE;
    if (w->edges[i].low <= base && w->edges[i].high >= last && base >= floor)
        return any_tail(b, k, w->edges[i].to);
    gr_edge edges[64];
    size_t n = 0;
    if (!gr_work(b, 24))
        return GR_NONE;
    for (uint32_t byte = 0; byte < 64; byte++)
        put(edges, &n, 0x80 + byte, 0x80 + byte,
            tail(b, w, base + byte * (span >> 6), k - 1, floor));
    return n ? node_with(b, edges, n) : GR_NONE;
}

static const char short_from[] = "\"\\\b\f\n\r\t", short_to[] = "\"\\bfnrt";

/* The node after a backslash. */
static int32_t escapes(gr_build *b, const ways *w)
{
    gr_edge edges[16], digits[2][16];
    size_t n = 0, n_digits[2] = {0, 0};
    for (size_t i = 0; short_from[i]; i++)
        put(edges, &n, (uint8_t)short_to[i], (uint8_t)short_to[i], way(w, (uint8_t)short_from[i]));
    for (uint32_t cp = 1; cp < 0x20; cp++) {
        if (strchr(short_from, (int)cp))
            continue;
        uint8_t digit = (uint8_t) "0123456789abcdef"[cp % 16];
        put(digits[cp / 16], &n_digits[cp / 16], digit, digit, way(w, cp));
    }
    gr_edge at[2];
    size_t n_at = 0;
    for (int i = 0; i < 2; i++)
        if (n_digits[i])
            at[n_at++] = (gr_edge){(uint8_t)('0' + i), (uint8_t)('0' + i),
                                   node_with(b, digits[i], n_digits[i])};
    if (n_at) {
        int32_t node = node_with(b, at, n_at);
        for (int i = 0; i < 2; i++) {
            gr_edge zero = {'0', '0', node};
            node = node_with(b, &zero, 1);
        }
        put(edges, &n, 'u', 'u', node);
    }
    return n ? node_with(b, edges, n) : GR_NONE;
}

/* Fills in the node within a string from which the ways lead; `close`: the string may end. */
static void fill(gr_build *b, int32_t node, const ways *w, bool close)
{
    gr_edge edges[256];
    size_t n = 0;
    for (uint32_t c = 0x20; c < 0x80; c++)
        if (c != '"' && c != '\\')
            put(edges, &n, c, c, way(w, c));
    if (close)
        put(edges, &n, '"', '"', b->closed);
    put(edges, &n, '\\', '\\', escapes(b, w));
    for (uint32_t c = 0xC2; c < 0xE0; c++)
        put(edges, &n, c, c, tail(b, w, (c & 0x1F) << 6, 1, 0x80));
    for (uint32_t c = 0xE0; c < 0xF0; c++)
        put(edges, &n, c, c, tail(b, w, (c & 0x0F) << 12, 2, 0x800));
    for (uint32_t c = 0xF0; c < 0xF5; c++)
        put(edges, &n, c, c, tail(b, w, (c & 0x07) << 18, 3, 0x10000));
    if (!gr_bad(b) && gr_work(b, 96))
        gr_node_fill(b, node, edges, n, NULL, 0, false);
}

static void fill_any(gr_build *b, int32_t node, int32_t to, bool close)
{
    gr_dfa_edge edges[2] = {{1, 0xD7FF, to}, {0xE000, GR_LAST_CODE_POINT, to}};
    fill(b, node, &(ways){edges, to == GR_NONE ? 0 : 2}, close);
}

/* A node that reads the opening quote. */
static int32_t opening(gr_build *b, int32_t inside)
{
    gr_edge edge = {'"', '"', inside};
    return node_with(b, &edge, 1);
}

void gr_free_string(gr_build *b, int32_t rule)
{
    b->closed = gr_node_new(b);
    b->free_inside = gr_node_new(b);
    if (gr_bad(b))
        return;
    gr_node_fill(b, b->closed, NULL, 0, NULL, 0, true);
    fill_any(b, b->free_inside, b->free_inside, true);
    int32_t first = opening(b, b->free_inside);
    if (gr_bad(b))
        return;
    b->nodes[b->free_inside].run = GR_ENDLESS;
    b->rules[rule] = first;
}

/* ---- bounded lengths ----------------------------------------------------------------------- */

/* The node within a string of at most `most` further characters. */
static int32_t at_most(gr_build *b, int64_t most)
{
    while ((int64_t)b->n_counted <= most && !gr_bad(b)) {
        void *counted = b->counted;
        if (!gr_room_kept(b, &counted, &b->counted_capacity, b->n_counted + 1, sizeof *b->counted))
            return GR_NONE;
        b->counted = counted;
        int32_t node = gr_node_new(b);
        if (gr_bad(b))
            return GR_NONE;
        fill_any(b, node, b->n_counted ? b->counted[b->n_counted - 1] : GR_NONE, true);
        b->nodes[node].run = (uint16_t)b->n_counted;
        b->nodes[node].exact = 1;
        b->counted[b->n_counted++] = node;
    }
    return gr_bad(b) ? GR_NONE : b->counted[most];
}

int32_t gr_counted_rule(gr_build *b, int64_t min, int64_t max)
{
    int32_t rule = gr_rule_new(b);
    int32_t node = max < 0 ? b->free_inside : at_most(b, max - min);
    for (int64_t i = 1; i <= min && !gr_bad(b); i++) {
        int32_t before = gr_node_new(b);
        if (gr_bad(b))
            break;
        fill_any(b, before, node, false);
        if (gr_bad(b))
            break;
        b->nodes[before].run = max < 0 ? GR_ENDLESS : (uint16_t)(max - min + i);
        b->nodes[before].exact = max >= 0;
        node = before;
    }
    int32_t first = opening(b, node);
    if (!gr_bad(b))
        b->rules[rule] = first;
    return rule;
}

/* ---- any DFA ------------------------------------------------------------------------------- */

static bool is_all(const gr_dfa *d, int32_t s)
{
    if (!d->final[s] || d->begin[s + 1] - d->begin[s] != 2)
        return false;
    const gr_dfa_edge *e = &d->edges[d->begin[s]];
    return e[0].low == 1 && e[0].high == 0xD7FF && e[1].low == 0xE000 &&
           e[1].high == GR_LAST_CODE_POINT && e[0].to == s && e[1].to == s;
}

/* How many plain characters, whichever they are, can follow a state given that for those it leads
 * to. */
static uint32_t run_of(const gr_dfa *d, int32_t s, const uint16_t *runs)
{
    static const uint32_t plain[][2] = {
        {0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x2027}, {0x202A, 0xD7FF}, {0xE000, 0x10FFFF}};
    uint32_t least = GR_ENDLESS;
    uint32_t e = d->begin[s], end = d->begin[s + 1];
    for (size_t p = 0; p < sizeof plain / sizeof plain[0]; p++) {
        uint32_t low = plain[p][0];
        while (e < end && d->edges[e].high < low)
            e++;
        for (uint32_t i = e; low <= plain[p][1]; i++) {
            if (i == end || d->edges[i].low > low)
                return 0;
            uint32_t run = runs[d->edges[i].to];
            least = run < least ? run : least;
            low = d->edges[i].high + 1;
        }
    }
    return least == GR_ENDLESS ? least : least + 1;
}

static uint16_t *find_runs(gr_build *b, const gr_dfa *d)
{
    enum { ROUNDS = 512 }; /* longer runs than that matter to no token */
    uint16_t *runs = gr_take(b, (size_t)d->n + 1, sizeof *runs);
    if (!runs)
        return NULL;
    memset(runs, 0xFF, (size_t)d->n * sizeof *runs);
    bool changed = true;
    for (int round = 0; changed && round < ROUNDS; round++) {
        changed = false;
        if (!gr_work(b, d->begin[d->n] / 4 + 1))
            return NULL;
        for (int32_t s = d->n - 1; s >= 0; s--) {
            uint32_t run = run_of(d, s, runs);
            if (run < runs[s]) {
                runs[s] = (uint16_t)run;
                changed = true;
            }
        }
    }
    /* Not settled: whatever is left is not known to be endless. */
    for (int32_t s = 0; changed && s < d->n; s++)
        runs[s] = 0;
    return runs;
}

int32_t gr_string_rule(gr_build *b, const gr_dfa *dfa)
{
    int32_t rule = gr_rule_new(b);
    if (gr_bad(b))
        return rule;
    int32_t *nodes = gr_take(b, (size_t)dfa->n + 1, sizeof *nodes);
    uint16_t *runs = find_runs(b, dfa);
    uint32_t most = 1;
    for (int32_t s = 0; s < dfa->n && !gr_bad(b); s++) {
        nodes[s] = is_all(dfa, s) ? b->free_inside : gr_node_new(b);
        if (dfa->begin[s + 1] - dfa->begin[s] > most)
            most = dfa->begin[s + 1] - dfa->begin[s];
    }
    gr_dfa_edge *edges = gr_take(b, most, sizeof *edges);
    for (int32_t s = 0; s < dfa->n && !gr_bad(b); s++) {
        if (nodes[s] == b->free_inside)
            continue;
        ways w = {edges, dfa->begin[s + 1] - dfa->begin[s]};
        for (size_t i = 0; i < w.n; i++) {
            edges[i] = dfa->edges[dfa->begin[s] + i];
            edges[i].to = nodes[edges[i].to];
        }
        fill(b, nodes[s], &w, dfa->final[s]);
        if (!gr_bad(b))
            b->nodes[nodes[s]].run = runs[s];
    }
    int32_t first = GR_NONE;
    if (!gr_bad(b))
        first = dfa->n ? opening(b, nodes[0]) : gr_node_new(b);
    if (!gr_bad(b))
        b->rules[rule] = first;
    return rule;
}

void gr_escape(base_text *out, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        const char *at = text[i] ? strchr(short_from, text[i]) : NULL;
        if (at) {
            base_text_add_char(out, '\\');
            base_text_add_char(out, short_to[at - short_from]);
        } else if ((uint8_t)text[i] < 0x20) {
            base_text_printf(out, "\\u%04x", (unsigned)(uint8_t)text[i]);
        } else {
            base_text_add_char(out, text[i]);
        }
    }
}
