#include "serve/grammars.h"

#include <pthread.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"

/* Kept beside those in use. Each may come to remember tens of megabytes of masks. */
enum { KEPT = 8, LONGEST_KEY = 256 << 10 };

typedef struct entry {
    struct entry *next;
    char *key; /* [key_size] kind, tool and text */
    size_t key_size;
    marco_grammar *grammar;
    size_t holders;
} entry;

struct serve_grammars {
    pthread_mutex_t lock;
    entry *first; /* the latest used first */
};

marco_status serve_grammars_create(serve_grammars **out, marco_error *error)
{
    *out = base_calloc(1, sizeof **out);
    if (!*out)
        return base_fail_memory(error, sizeof **out, "grammars");
    pthread_mutex_init(&(*out)->lock, NULL);
    return MARCO_OK;
}

static void free_entry(entry *e)
{
    if (!e)
        return;
    marco_grammar_free(e->grammar);
    base_free(e->key);
    base_free(e);
}

void serve_grammars_free(serve_grammars *g)
{
    if (!g)
        return;
    while (g->first) {
        entry *e = g->first;
        g->first = e->next;
        free_entry(e);
    }
    pthread_mutex_destroy(&g->lock);
    base_free(g);
}

/* Puts an entry first, where it was found or as a new one. The lock is the caller's. */
static void put_first(serve_grammars *g, entry *e)
{
    e->next = g->first;
    g->first = e;
}

/* Takes out the entry of a key. The lock is the caller's here, too, and in what follows. */
static entry *take(serve_grammars *g, const char *key, size_t size)
{
    for (entry **at = &g->first; *at; at = &(*at)->next) {
        entry *e = *at;
        if (e->key_size == size && memcmp(e->key, key, size) == 0) {
            *at = e->next;
            return e;
        }
    }
    return NULL;
}

/* Takes out those that nobody holds and that are not to be kept, as a list. */
static entry *take_needless(serve_grammars *g)
{
    entry *needless = NULL;
    size_t n = 0;
    for (entry **at = &g->first; *at;) {
        entry *e = *at;
        if (e->holders > 0 || (n < KEPT && e->key_size <= LONGEST_KEY)) {
            n += e->key_size <= LONGEST_KEY;
            at = &e->next;
            continue;
        }
        *at = e->next;
        e->next = needless;
        needless = e;
    }
    return needless;
}

static void free_list(entry *e)
{
    while (e) {
        entry *next = e->next;
        free_entry(e);
        e = next;
    }
}

static marco_status compile(serve_grammar_kind kind, const char *text, const char *tool,
                            marco_grammar **out, marco_error *error)
{
    if (kind == SERVE_GRAMMAR_OBJECT)
        return marco_grammar_json_object(out, error);
    if (kind == SERVE_GRAMMAR_SCHEMA)
        return marco_grammar_from_schema(text, strlen(text), out, error);
    return marco_grammar_from_tools(text, strlen(text), tool, kind == SERVE_GRAMMAR_TOOLS, out,
                                    error);
}

/* No name of a tool and no JSON text holds a NUL. */
static char *make_key(serve_grammar_kind kind, const char *text, const char *tool, size_t *size)
{
    base_text key = {0};
    base_text_add_char(&key, (char)('0' + (int)kind));
    base_text_add(&key, tool ? tool : "");
    base_text_add_char(&key, '\0');
    base_text_add(&key, text ? text : "");
    return base_text_take(&key, size);
}

/* Compiles it: not under the lock, as that may take a second. Two may do so at once, and the second
 * one's is kept. */
static marco_status make(entry **out, serve_grammar_kind kind, const char *text, const char *tool,
                         char *key, size_t size, marco_error *error)
{
    *out = base_calloc(1, sizeof **out);
    if (!*out) {
        base_free(key);
        return base_fail_memory(error, sizeof **out, "a grammar");
    }
    (*out)->key = key;
    (*out)->key_size = size;
    marco_status status = compile(kind, text, tool, &(*out)->grammar, error);
    if (status)
        free_entry(*out);
    return status;
}

marco_status serve_grammars_get(serve_grammars *g, serve_grammar_kind kind, const char *text,
                                const char *tool, const marco_grammar **out, marco_error *error)
{
    size_t size;
    char *key = make_key(kind, text, tool, &size);
    *out = NULL;
    if (!key)
        return base_fail_memory(error, 64, "a grammar");
    pthread_mutex_lock(&g->lock);
    entry *e = take(g, key, size);
    if (e) {
        e->holders++;
        put_first(g, e);
    }
    pthread_mutex_unlock(&g->lock);
    if (e) {
        base_free(key);
        *out = e->grammar;
        return MARCO_OK;
    }
    marco_status status = make(&e, kind, text, tool, key, size, error);
    if (status)
        return status;
    e->holders = 1;
    pthread_mutex_lock(&g->lock);
    put_first(g, e);
    entry *needless = take_needless(g);
    pthread_mutex_unlock(&g->lock);
    free_list(needless);
    *out = e->grammar;
    return MARCO_OK;
}

void serve_grammars_release(serve_grammars *g, const marco_grammar *grammar)
{
    entry *needless = NULL;
    if (!grammar)
        return;
    pthread_mutex_lock(&g->lock);
    for (entry *e = g->first; e; e = e->next) {
        if (e->grammar == grammar) {
            e->holders--;
            break;
        }
    }
    needless = take_needless(g);
    pthread_mutex_unlock(&g->lock);
    free_list(needless);
}
