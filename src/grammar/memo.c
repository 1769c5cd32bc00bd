#include "grammar/memo.h"

enum { MOST_BYTES = 16 << 20 };

gr_memo *gr_memo_create(int32_t n, uint64_t print)
{
    gr_memo *memo = base_calloc(1, sizeof *memo + (size_t)n * sizeof memo->entries[0]);
    if (memo) {
        memo->n = n;
        memo->print = print;
    }
    return memo;
}

void gr_memo_free(gr_memo *memo)
{
    while (memo) {
        gr_memo *next = memo->next;
        for (int32_t i = 0; i < memo->n; i++)
            base_free(atomic_load_explicit(&memo->entries[i], memory_order_relaxed));
        base_free(memo);
        memo = next;
    }
}

gr_memo *gr_memo_of(const marco_grammar *grammar, const grammar_vocab *vocab)
{
    /* The list of memos is the one thing about a grammar that changes. */
    _Atomic(gr_memo *) *head = &((marco_grammar *)grammar)->memo;
    gr_memo *first = atomic_load(head), *made = NULL;
    for (;;) {
        for (gr_memo *m = first; m; m = m->next)
            if (m->print == vocab->print) {
                gr_memo_free(made);
                return m;
            }
        if (!made)
            made = gr_memo_create(grammar->n_nodes, vocab->print);
        if (!made)
            return NULL;
        made->next = first;
        if (atomic_compare_exchange_weak(head, &first, made))
            return made;
        made->next = NULL;
    }
}

bool gr_memo_put(gr_memo *memo, int32_t node, gr_entry *entry, size_t size)
{
    gr_entry *none = NULL;
    if (atomic_fetch_add(&memo->bytes, size) > MOST_BYTES - size) {
        atomic_fetch_sub(&memo->bytes, size);
        return false;
    }
    if (atomic_compare_exchange_strong(&memo->entries[node], &none, entry))
        return true;
    atomic_fetch_sub(&memo->bytes, size);
    return false;
}
