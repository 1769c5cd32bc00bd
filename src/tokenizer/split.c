#include "tokenizer/split.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"
#include "tokenizer/pattern.h"

enum { MAX_PATTERNS = 16 };

/* A pattern from a file may backtrack without end: a limit no sane one comes near. */
enum { MATCH_LIMIT = 10000000, HEAP_LIMIT_KB = 65536 };

struct tok_split {
    pcre2_general_context *general;
    pcre2_match_context *match;
    pcre2_code *codes[MAX_PATTERNS];
    int n;
    bool add_prefix_space;
    char *source;
};

struct tok_split_work {
    const tok_split *split;
    pcre2_match_data *data[MAX_PATTERNS];
    base_text spaced; /* a piece with the prefix space before it */
};

static void *context_alloc(size_t size, void *user)
{
    (void)user;
    return base_alloc(size);
}

static void context_free(void *memory, void *user)
{
    (void)user;
    base_free(memory);
}

static marco_status compile(tok_split *split, const char *pattern, marco_error *error)
{
    char *translated = NULL;
    marco_status status = tok_pattern_translate(split->source, pattern, &translated, error);
    if (status)
        return status;
    int code = 0;
    PCRE2_SIZE at = 0;
    pcre2_compile_context *context = pcre2_compile_context_create(split->general);
    pcre2_code *compiled = NULL;
    if (context)
        compiled =
            pcre2_compile((PCRE2_SPTR)translated, PCRE2_ZERO_TERMINATED,
                          PCRE2_UTF | PCRE2_UCP | PCRE2_NO_AUTO_CAPTURE, &code, &at, context);
    if (compiled) {
        split->codes[split->n++] = compiled;
        /* Without JIT (a system may forbid it) the interpreter does the same, slower. */
        pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);
    } else if (!context || code == PCRE2_ERROR_HEAP_FAILED) {
        status = base_fail_memory(error, strlen(translated), "a split pattern");
    } else {
        char text[128];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
        status = base_fail(error, MARCO_ERROR_FORMAT,
                           "%s: the split pattern is not valid: %s: "
                           "'%.200s'",
                           split->source, text, pattern);
    }
    pcre2_compile_context_free(context);
    base_free(translated);
    return status;
}

marco_status tok_split_create(const tok_spec *spec, tok_split **out, marco_error *error)
{
    if (spec->n_patterns > MAX_PATTERNS)
        return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                         "%s: %d split patterns are more than the %d allowed", spec->source,
                         spec->n_patterns, MAX_PATTERNS);
    marco_status status = MARCO_OK;
    tok_split *split = base_calloc(1, sizeof *split);
    if (!split)
        return base_fail_memory(error, sizeof *split, "the splitter");
    split->add_prefix_space = spec->add_prefix_space;
    split->source = base_strdup(spec->source);
    split->general = pcre2_general_context_create(context_alloc, context_free, NULL);
    if (split->general)
        split->match = pcre2_match_context_create(split->general);
    if (!split->source || !split->match) {
        status = base_fail_memory(error, sizeof *split, "the splitter");
        goto fail;
    }
    pcre2_set_match_limit(split->match, MATCH_LIMIT);
    pcre2_set_heap_limit(split->match, HEAP_LIMIT_KB);
    for (int i = 0; i < spec->n_patterns; i++) {
        status = compile(split, spec->patterns[i], error);
        if (status)
            goto fail;
    }
    *out = split;
    return MARCO_OK;
fail:
    tok_split_free(split);
    return status;
}

void tok_split_free(tok_split *split)
{
    if (!split)
        return;
    for (int i = 0; i < split->n; i++)
        pcre2_code_free(split->codes[i]);
    pcre2_match_context_free(split->match);
    pcre2_general_context_free(split->general);
    base_free(split->source);
    base_free(split);
}

marco_status tok_split_work_create(const tok_split *split, tok_split_work **out, marco_error *error)
{
    tok_split_work *work = base_calloc(1, sizeof *work);
    if (!work)
        return base_fail_memory(error, sizeof *work, "splitting");
    work->split = split;
    for (int i = 0; i < split->n; i++) {
        work->data[i] = pcre2_match_data_create(1, split->general);
        if (!work->data[i]) {
            tok_split_work_free(work);
            return base_fail_memory(error, sizeof *work, "splitting");
        }
    }
    *out = work;
    return MARCO_OK;
}

void tok_split_work_free(tok_split_work *work)
{
    if (!work)
        return;
    for (int i = 0; i < work->split->n; i++)
        pcre2_match_data_free(work->data[i]);
    base_text_free(&work->spaced);
    base_free(work);
}

/* The next match at or after *from, as Oniguruma's iteration has it: an empty match right after
 * the last one does not count. False: none, or *status is set. */
static bool next_match(tok_split_work *work, int level, const char *text, size_t size, size_t *from,
                       size_t last, bool any, size_t *start, size_t *stop, marco_status *status,
                       marco_error *error)
{
    const tok_split *split = work->split;
    while (*from <= size) {
        const pcre2_code *code = split->codes[level];
        pcre2_match_data *data = work->data[level];
        int rc = pcre2_match(code, (PCRE2_SPTR)text, size, *from, PCRE2_NO_UTF_CHECK, data,
                             split->match);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
            rc = pcre2_match(code, (PCRE2_SPTR)text, size, *from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                             data, split->match);
        if (rc == PCRE2_ERROR_NOMATCH)
            return false;
        if (rc == PCRE2_ERROR_NOMEMORY) {
            *status = base_fail_memory(error, size, "splitting");
            return false;
        }
        if (rc < 0) {
            *status = base_fail(error, MARCO_ERROR_UNSUPPORTED,
                                "%s: the split pattern takes too long on a text of %zu bytes "
                                "(PCRE2 error %d)",
                                split->source, size, rc);
            return false;
        }
        const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(data);
        *start = ends[0];
        *stop = ends[1];
        if (*start < *stop || !any || *start != last)
            return true;
        do
            ++*from;
        while (*from < size && ((unsigned char)text[*from] & 0xC0) == 0x80);
    }
    return false;
}

typedef struct sink {
    tok_piece_fn fn;
    void *user;
} sink;

static marco_status split_level(tok_split_work *work, int level, const char *text, size_t size,
                                const sink *to, marco_error *error);

/* Hands text on to the level below. */
static marco_status pass_on(tok_split_work *work, int level, const char *text, size_t size,
                            const sink *to, marco_error *error)
{
    if (size == 0)
        return MARCO_OK;
    if (level + 1 < work->split->n)
        return split_level(work, level + 1, text, size, to, error);
    return to->fn(to->user, text, size) ? MARCO_OK : base_fail_memory(error, size, "token ids");
}

static marco_status split_level(tok_split_work *work, int level, const char *text, size_t size,
                                const sink *to, marco_error *error)
{
    /* The space is put before what the last pattern splits, as HF's ByteLevel does. */
    if (work->split->add_prefix_space && level >= work->split->n - 1 && text[0] != ' ') {
        base_text_clear(&work->spaced);
        base_text_add_char(&work->spaced, ' ');
        base_text_add_n(&work->spaced, text, size);
        if (work->spaced.failed)
            return base_fail_memory(error, size, "splitting");
        text = work->spaced.data;
        size++;
    }
    if (work->split->n == 0)
        return pass_on(work, level, text, size, to, error);
    marco_status status = MARCO_OK;
    size_t from = 0, last = 0, start, stop;
    bool any = false;
    while (!status &&
           next_match(work, level, text, size, &from, last, any, &start, &stop, &status, error)) {
        status = pass_on(work, level, text + last, start - last, to, error);
        if (!status)
            status = pass_on(work, level, text + start, stop - start, to, error);
        last = from = stop;
        any = true;
    }
    return status ? status : pass_on(work, level, text + last, size - last, to, error);
}

marco_status tok_split_run(tok_split_work *work, const char *text, size_t size, tok_piece_fn fn,
                           void *user, marco_error *error)
{
    sink to = {fn, user};
    return size ? split_level(work, 0, text, size, &to, error) : MARCO_OK;
}
