#include "grammar/internal.h"

int32_t gr_nfa_state(gr_nfa *nfa)
{
    void *first = nfa->first;
    if (!gr_room(nfa->b, &first, &nfa->capacity, nfa->n + 1, sizeof *nfa->first))
        return 0;
    nfa->first = first;
    nfa->first[nfa->n] = GR_NONE;
    return (int32_t)nfa->n++;
}

void gr_nfa_edge_add(gr_nfa *nfa, int32_t from, uint32_t low, uint32_t high, int32_t to)
{
    void *edges = nfa->edges;
    if (!gr_room(nfa->b, &edges, &nfa->edges_capacity, nfa->n_edges + 1, sizeof *nfa->edges))
        return;
    nfa->edges = edges;
    nfa->edges[nfa->n_edges] = (gr_nfa_edge){low, high, to, nfa->first[from]};
    nfa->first[from] = (int32_t)nfa->n_edges++;
}

void gr_nfa_empty(gr_nfa *nfa, int32_t from, int32_t to)
{
    gr_nfa_edge_add(nfa, from, GR_SYMBOL_EMPTY, GR_SYMBOL_EMPTY, to);
}

int32_t gr_nfa_bytes(gr_nfa *nfa, int32_t from, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        int32_t to = gr_nfa_state(nfa);
        gr_nfa_edge_add(nfa, from, (uint8_t)bytes[i], (uint8_t)bytes[i], to);
        from = to;
    }
    return from;
}

static int32_t add_symbol(gr_nfa *nfa, int32_t from, uint32_t symbol)
{
    int32_t to = gr_nfa_state(nfa);
    gr_nfa_edge_add(nfa, from, symbol, symbol, to);
    return to;
}

int32_t gr_nfa_call(gr_nfa *nfa, int32_t from, int32_t rule)
{
    return add_symbol(nfa, from, GR_CALL + (uint32_t)rule);
}

int32_t gr_nfa_name(gr_nfa *nfa, int32_t from, int32_t rule)
{
    return add_symbol(nfa, from, GR_NAME + (uint32_t)rule);
}
