#include "tokenizer/nfc.h"

#include <string.h>
#include <utf8proc.h>

#include "base/error.h"
#include "base/memory.h"

/* What the quick look needs to know of a character:
 *   STABLE    a starter that is its own normal form and never joins the character before it: what
 *             comes before it and what begins with it can be normalised apart
 *   1 .. 254  a combining class: fine as long as the classes of neighbours do not fall
 *   SUSPECT   may join what is before it, or is not its own normal form */
enum { STABLE = 0, SUSPECT = 255 };

/* Beyond the ideographic planes few characters combine: all of them are taken as suspect. */
enum { TABLE_SIZE = 0x30000 };

struct tok_nfc {
    uint8_t classes[TABLE_SIZE];
};

/* utf8proc's longest canonical decomposition of one character is 4 code points. */
enum { MAX_DECOMPOSED = 16 };

static const utf8proc_option_t decompose = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
static const utf8proc_option_t compose = UTF8PROC_STABLE | UTF8PROC_COMPOSE;

static size_t decompose_char(uint32_t cp, int32_t *out)
{
    int last = 0;
    utf8proc_ssize_t n =
        utf8proc_decompose_char((int32_t)cp, out, MAX_DECOMPOSED, decompose, &last);
    if (n < 1 || n > MAX_DECOMPOSED) {
        out[0] = (int32_t)cp;
        return 1;
    }
    return (size_t)n;
}

static uint8_t combining_class(int32_t cp)
{
    utf8proc_propval_t class = utf8proc_get_property(cp)->combining_class;
    return (uint8_t) class;
}

static uint8_t classify(uint32_t cp)
{
    int32_t parts[MAX_DECOMPOSED];
    size_t n = decompose_char(cp, parts);
    if (n == 1 && parts[0] == (int32_t)cp)
        return combining_class((int32_t)cp);
    n = (size_t)utf8proc_normalize_utf32(parts, (utf8proc_ssize_t)n, compose);
    bool own = n == 1 && parts[0] == (int32_t)cp;
    return own && combining_class((int32_t)cp) == 0 ? STABLE : SUSPECT;
}

marco_status tok_nfc_create(tok_nfc **out, marco_error *error)
{
    tok_nfc *nfc = base_alloc(sizeof *nfc);
    if (!nfc)
        return base_fail_memory(error, sizeof *nfc, "the normalisation table");
    for (uint32_t cp = 0; cp < TABLE_SIZE; cp++)
        nfc->classes[cp] = classify(cp);
    /* Only a character that ends some decomposition can join the one before it. */
    for (uint32_t cp = 0xC0; cp < TABLE_SIZE; cp++) {
        int32_t parts[MAX_DECOMPOSED];
        size_t n = decompose_char(cp, parts);
        for (size_t i = 1; i < n; i++)
            if (parts[i] < TABLE_SIZE)
                nfc->classes[parts[i]] = SUSPECT;
    }
    *out = nfc;
    return MARCO_OK;
}

void tok_nfc_free(tok_nfc *nfc)
{
    base_free(nfc);
}

bool tok_ranges_add(tok_ranges *ranges, size_t start, size_t stop)
{
    if (start >= stop)
        return true;
    if (ranges->n && ranges->items[ranges->n - 1].stop == start) {
        ranges->items[ranges->n - 1].stop = stop;
        return true;
    }
    void *items = ranges->items;
    if (!base_grow(&items, &ranges->capacity, ranges->n + 1, sizeof *ranges->items))
        return false;
    ranges->items = items;
    ranges->items[ranges->n++] = (tok_range){start, stop};
    return true;
}

/* ---- the quick look ------------------------------------------------------------------------ */

static inline uint8_t class_at(const tok_nfc *nfc, const char *text, size_t size, size_t *step)
{
    *step = 1;
    if ((unsigned char)*text < 0x80)
        return STABLE;
    uint32_t cp = TABLE_SIZE;
    size_t n = base_utf8_decode(text, size, &cp);
    if (n)
        *step = n;
    return cp < TABLE_SIZE ? nfc->classes[cp] : SUSPECT;
}

/* The next part of text[from, size) that needs work: [*start, *stop) begins and ends before a
 * stable character or at the ends. False where all the rest is normal. */
static bool find_work(const tok_nfc *nfc, const char *text, size_t size, size_t from, size_t *start,
                      size_t *stop)
{
    uint8_t last = STABLE;
    size_t at, step = 0, stable = from;
    for (at = from; at < size; at += step) {
        uint8_t class = class_at(nfc, text + at, size - at, &step);
        if (class == STABLE)
            stable = at;
        else if (class == SUSPECT || class < last)
            break;
        last = class;
    }
    if (at >= size)
        return false;
    for (at += step; at < size; at += step)
        if (class_at(nfc, text + at, size - at, &step) == STABLE)
            break;
    *start = stable;
    *stop = at;
    return true;
}

bool tok_nfc_is_normal(const tok_nfc *nfc, const char *text, size_t size)
{
    size_t start, stop;
    return !find_work(nfc, text, size, 0, &start, &stop);
}

/* ---- the work ------------------------------------------------------------------------------ */

typedef struct code_points {
    int32_t *items, *spare;
    size_t n, capacity, spare_capacity;
} code_points;

static bool decompose_text(const char *text, size_t size, code_points *cps)
{
    cps->n = 0;
    for (size_t at = 0; at < size;) {
        uint32_t cp;
        size_t step = base_utf8_decode(text + at, size - at, &cp);
        void *items = cps->items;
        if (!step || !base_grow(&items, &cps->capacity, cps->n + MAX_DECOMPOSED, sizeof(int32_t)))
            return false;
        cps->items = items;
        cps->n += decompose_char(cp, cps->items + cps->n);
        at += step;
    }
    return true;
}

/* Sorts a run of combining characters by class, keeping the order of equals. Counting, because a
 * text may consist of nothing else and must not cost the square of its length. */
static bool sort_run(code_points *cps, size_t start, size_t stop)
{
    size_t counts[257] = {0}, n = stop - start;
    void *spare = cps->spare;
    if (!base_grow(&spare, &cps->spare_capacity, n, sizeof(int32_t)))
        return false;
    cps->spare = spare;
    for (size_t i = start; i < stop; i++)
        counts[combining_class(cps->items[i]) + 1]++;
    for (int c = 0; c < 256; c++)
        counts[c + 1] += counts[c];
    for (size_t i = start; i < stop; i++)
        cps->spare[counts[combining_class(cps->items[i])]++] = cps->items[i];
    memcpy(cps->items + start, cps->spare, n * sizeof(int32_t));
    return true;
}

static bool reorder(code_points *cps)
{
    for (size_t start = 0; start < cps->n;) {
        size_t stop = start;
        while (stop < cps->n && combining_class(cps->items[stop]) != 0)
            stop++;
        if (stop - start > 1 && !sort_run(cps, start, stop))
            return false;
        start = stop + 1;
    }
    return true;
}

static bool normalise(const char *text, size_t size, code_points *cps, base_text *out)
{
    if (!decompose_text(text, size, cps) || !reorder(cps))
        return false;
    utf8proc_ssize_t n = utf8proc_normalize_utf32(cps->items, (utf8proc_ssize_t)cps->n, compose);
    for (utf8proc_ssize_t i = 0; i < n; i++) {
        char utf8[4];
        base_text_add_n(out, utf8, base_utf8_encode((uint32_t)cps->items[i], utf8));
    }
    return !out->failed;
}

/* Carries the ranges over the text [start, stop) that became [made, made_stop) of the output: as
 * they are where it was copied, all or nothing where it was normalised. *next is the first range
 * not wholly before `start`. */
static bool carry_ranges(const tok_ranges *from, size_t *next, size_t start, size_t stop,
                         size_t made, size_t made_stop, bool copied, tok_ranges *to)
{
    while (*next < from->n && from->items[*next].stop <= start)
        ++*next;
    for (size_t i = *next; i < from->n && from->items[i].start < stop; i++) {
        tok_range r = from->items[i];
        if (copied) {
            size_t a = r.start > start ? r.start : start, b = r.stop < stop ? r.stop : stop;
            if (!tok_ranges_add(to, made + (a - start), made + (b - start)))
                return false;
        } else if (r.start <= start && stop <= r.stop) {
            return tok_ranges_add(to, made, made_stop);
        }
    }
    return true;
}

marco_status tok_nfc_apply(const tok_nfc *nfc, const char *text, size_t size, base_text *out,
                           const tok_ranges *from, tok_ranges *to, marco_error *error)
{
    code_points cps = {0};
    size_t at = 0, next = 0;
    bool ok = true;
    while (ok && at < size) {
        size_t start = size, stop = size, made = out->size;
        find_work(nfc, text, size, at, &start, &stop);
        base_text_add_n(out, text + at, start - at);
        ok = !out->failed;
        if (ok && from)
            ok = carry_ranges(from, &next, at, start, made, out->size, true, to);
        made = out->size;
        ok = ok && normalise(text + start, stop - start, &cps, out);
        if (ok && from && start < stop)
            ok = carry_ranges(from, &next, start, stop, made, out->size, false, to);
        at = stop;
    }
    base_free(cps.items);
    base_free(cps.spare);
    return ok ? MARCO_OK : base_fail_memory(error, size, "normalised text");
}
