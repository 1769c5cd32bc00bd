#include "replay.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

/* More than any model has; what is above them is no trace. */
enum { MAX_LAYERS = 1 << 12, MAX_EXPERTS = 1 << 14 };

/* Steps of a layer after which a use counts half. */
enum { HALF_LIFE = 64 };

const char *const policy_names[POLICY_END] = {"lru", "lfu", "opt"};

/* ---- reading ------------------------------------------------------------------------------- */

static bool grow(void **items, size_t *room, size_t need, size_t size)
{
    if (need <= *room)
        return true;
    size_t wanted = *room * 2 > need ? *room * 2 : need + 1024;
    void *grown = realloc(*items, wanted * size);
    if (!grown)
        return false;
    *items = grown;
    *room = wanted;
    return true;
}

static bool add_key(trace *t, int32_t key)
{
    void *keys = t->keys;
    if (!grow(&keys, &t->keys_room, t->n_keys + 1, sizeof(*t->keys)))
        return false;
    t->keys = keys;
    t->keys[t->n_keys++] = key;
    return true;
}

static int ascending(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a;
    int32_t y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Ends the step that began at the last of `first`: sorted, each key once. */
static bool end_step(trace *t)
{
    size_t begin = t->n_steps ? t->first[t->n_steps] : 0;
    size_t kept = begin;
    if (t->n_keys == begin)
        return true;
    qsort(t->keys + begin, t->n_keys - begin, sizeof(*t->keys), ascending);
    for (size_t i = begin; i < t->n_keys; i++) {
        if (i == begin || t->keys[i] != t->keys[i - 1])
            t->keys[kept++] = t->keys[i];
    }
    t->n_keys = kept;
    void *first = t->first;
    if (!grow(&first, &t->steps_room, t->n_steps + 2, sizeof(*t->first)))
        return false;
    t->first = first;
    t->first[0] = 0;
    t->first[++t->n_steps] = kept;
    return true;
}

typedef struct place {
    int64_t pass, layer;
} place;

/* A number at *at and the blanks after it; false where there is none from 0 to max. */
static bool next_number(char **at, int64_t max, int64_t *value)
{
    char word[24];
    size_t n = strcspn(*at, " \n");
    if (n == 0 || n >= sizeof(word))
        return false;
    memcpy(word, *at, n);
    word[n] = '\0';
    *at += n;
    *at += strspn(*at, " \n");
    return parse_int(word, 0, max, value);
}

/* "pass layer position expert..."; NULL, or what is wrong. */
static const char *read_line(trace *t, char *line, place *now)
{
    int64_t position = 0;
    int64_t expert = 0;
    place here = {0};
    if (line[0] == '#' || line[0] == '\n')
        return NULL;
    if (!next_number(&line, INT64_MAX, &here.pass) ||
        !next_number(&line, MAX_LAYERS - 1, &here.layer) ||
        !next_number(&line, INT64_MAX, &position) || *line == '\0')
        return "is not 'pass layer position expert...'";
    if ((here.pass != now->pass || here.layer != now->layer) && !end_step(t))
        return "does not fit into memory";
    *now = here;
    while (*line) {
        if (!next_number(&line, MAX_EXPERTS - 1, &expert))
            return "has an expert that is no number, or too large";
        if (!add_key(t, (int32_t)(here.layer * MAX_EXPERTS + expert)))
            return "does not fit into memory";
    }
    return NULL;
}

/* Numbers the keys by their order from 0 on, so that tables over them are no longer than the trace.
 * Steps stay sorted. False when out of memory. */
static bool number_keys(trace *t)
{
    int32_t *seen = malloc(t->n_keys * sizeof(*seen));
    if (!seen)
        return false;
    memcpy(seen, t->keys, t->n_keys * sizeof(*seen));
    qsort(seen, t->n_keys, sizeof(*seen), ascending);
    size_t n = 0;
    for (size_t i = 0; i < t->n_keys; i++) {
        if (n == 0 || seen[i] != seen[n - 1])
            seen[n++] = seen[i];
    }
    for (size_t i = 0; i < t->n_keys; i++)
        t->keys[i] =
            (int32_t)((int32_t *)bsearch(&t->keys[i], seen, n, sizeof(*seen), ascending) - seen);
    t->range = (int32_t)n;
    t->layers = seen[n - 1] / MAX_EXPERTS + 1;
    free(seen);
    return true;
}

int trace_read(const command *self, const char *path, trace *out)
{
    char *line = NULL;
    size_t room = 0;
    size_t number = 0;
    place now = {-1, -1};
    int exit_status = EXIT_SUCCESS;
    *out = (trace){0};
    FILE *file = fopen(path, "re");
    if (!file)
        return command_fail(self, "cannot open %s: %s", path, strerror(errno));
    while (exit_status == EXIT_SUCCESS && getline(&line, &room, file) >= 0) {
        number++;
        const char *wrong = read_line(out, line, &now);
        if (wrong)
            exit_status = command_fail(self, "%s: line %zu %s", path, number, wrong);
    }
    if (exit_status == EXIT_SUCCESS && ferror(file))
        exit_status = command_fail(self, "cannot read %s: %s", path, strerror(errno));
    if (exit_status == EXIT_SUCCESS && !end_step(out))
        exit_status = command_fail(self, "out of memory");
    if (exit_status == EXIT_SUCCESS && out->n_steps == 0)
        exit_status = command_fail(self, "%s: no choices of experts in it", path);
    if (exit_status == EXIT_SUCCESS && !number_keys(out))
        exit_status = command_fail(self, "out of memory");
    free(line);
    fclose(file);
    return exit_status;
}

void trace_free(trace *t)
{
    free(t->keys);
    free(t->first);
    *t = (trace){0};
}

/* ---- playing ------------------------------------------------------------------------------- */

typedef struct player {
    const trace *t;
    policy policy;
    size_t *next;   /* [n_keys] for POLICY_OPT: the step that wants the key again */
    double *worth;  /* [range] the least of those held goes */
    int32_t *where; /* [range] a key's place in `held`, or -1 */
    int32_t *held;  /* [slots] */
    int64_t n, slots;
    uint64_t clock;
} player;

/* Finds, from the end, which step wants each key next. */
static bool look_ahead(player *p)
{
    const trace *t = p->t;
    size_t *later = malloc((size_t)t->range * sizeof(*later));
    p->next = malloc(t->n_keys * sizeof(*p->next));
    if (!later || !p->next) {
        free(later);
        return false;
    }
    for (int32_t i = 0; i < t->range; i++)
        later[i] = t->n_steps;
    for (size_t step = t->n_steps; step-- > 0;) {
        for (size_t i = t->first[step]; i < t->first[step + 1]; i++) {
            p->next[i] = later[t->keys[i]];
            later[t->keys[i]] = step;
        }
    }
    free(later);
    return true;
}

/* What a key is worth from its use as the i-th on. */
static void use(player *p, size_t i, size_t step)
{
    int32_t key = p->t->keys[i];
    double now = (double)step / ((double)HALF_LIFE * p->t->layers);
    switch (p->policy) {
    case POLICY_LRU:
        p->worth[key] = (double)p->clock++;
        break;
    case POLICY_LFU:
        /* log2 of the uses, each doubled for every half-life it came later: all age alike. */
        p->worth[key] = now + log2(1 + exp2(p->worth[key] - now));
        break;
    case POLICY_OPT:
        p->worth[key] = -(double)p->next[i];
        break;
    case POLICY_END:
        break;
    }
}

/* Puts a key into a free place, or into that of the least worth. */
static void take_in(player *p, int32_t key)
{
    int64_t at = p->n;
    if (p->n < p->slots) {
        p->n++;
    } else {
        at = 0;
        for (int64_t i = 1; i < p->n; i++)
            at = p->worth[p->held[i]] < p->worth[p->held[at]] ? i : at;
        p->where[p->held[at]] = -1;
    }
    p->held[at] = key;
    p->where[key] = (int32_t)at;
}

static uint64_t play(player *p)
{
    const trace *t = p->t;
    uint64_t hits = 0;
    bool hit[MAX_EXPERTS];
    for (size_t step = 0; step < t->n_steps; step++) {
        size_t first = t->first[step];
        size_t n = t->first[step + 1] - first;
        for (size_t i = 0; i < n; i++) {
            hit[i] = p->where[t->keys[first + i]] >= 0;
            hits += hit[i];
            if (hit[i])
                use(p, first + i, step);
        }
        for (size_t i = 0; i < n; i++) {
            if (hit[i])
                continue;
            take_in(p, t->keys[first + i]);
            use(p, first + i, step);
        }
    }
    return hits;
}

bool trace_replay(const trace *t, policy which, int64_t slots, uint64_t *hits)
{
    slots = slots < t->range ? slots : t->range;
    player p = {.t = t,
                .policy = which,
                .slots = slots,
                .worth = malloc((size_t)t->range * sizeof(double)),
                .where = malloc((size_t)t->range * sizeof(int32_t)),
                .held = malloc((size_t)slots * sizeof(int32_t))};
    bool fits = p.worth && p.where && p.held && (which != POLICY_OPT || look_ahead(&p));
    for (int32_t i = 0; fits && i < t->range; i++) {
        p.worth[i] = -INFINITY;
        p.where[i] = -1;
    }
    if (fits)
        *hits = play(&p);
    free(p.next);
    free(p.worth);
    free(p.where);
    free(p.held);
    return fits;
}
