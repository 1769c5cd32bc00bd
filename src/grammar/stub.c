#include "grammar/grammar.h"
marco_status grammar_vocab_create(const marco_tokenizer *t, int32_t n, const int32_t *e, int32_t k,
                                  grammar_vocab **o, marco_error *er)
{
    (void)t;
    (void)n;
    (void)e;
    (void)k;
    (void)er;
    *o = NULL;
    return MARCO_OK;
}
void grammar_vocab_free(grammar_vocab *v)
{
    (void)v;
}
marco_status grammar_state_create(const marco_grammar *g, const grammar_vocab *v, grammar_state **o,
                                  marco_error *e)
{
    (void)g;
    (void)v;
    (void)o;
    (void)e;
    return MARCO_ERROR_UNSUPPORTED;
}
void grammar_state_free(grammar_state *s)
{
    (void)s;
}
marco_status grammar_state_mask(grammar_state *s, uint32_t *m, marco_error *e)
{
    (void)s;
    (void)m;
    (void)e;
    return MARCO_ERROR_UNSUPPORTED;
}
marco_status grammar_state_accept(grammar_state *s, int32_t i, marco_error *e)
{
    (void)s;
    (void)i;
    (void)e;
    return MARCO_ERROR_UNSUPPORTED;
}
bool grammar_state_must_end(const grammar_state *s)
{
    (void)s;
    return false;
}
bool grammar_state_may_end(const grammar_state *s)
{
    (void)s;
    return false;
}
marco_status marco_grammar_from_schema(const char *s, size_t n, marco_grammar **o, marco_error *e)
{
    (void)s;
    (void)n;
    (void)e;
    *o = NULL;
    return MARCO_ERROR_UNSUPPORTED;
}
marco_status marco_grammar_json_object(marco_grammar **o, marco_error *e)
{
    (void)e;
    *o = NULL;
    return MARCO_ERROR_UNSUPPORTED;
}
marco_status marco_grammar_from_tools(const char *t, size_t n, const char *m, bool k,
                                      marco_grammar **o, marco_error *e)
{
    (void)t;
    (void)n;
    (void)m;
    (void)k;
    (void)e;
    *o = NULL;
    return MARCO_ERROR_UNSUPPORTED;
}
void marco_grammar_free(marco_grammar *g)
{
    (void)g;
}
