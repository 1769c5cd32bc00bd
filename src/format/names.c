#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/text.h"
#include "format/internal.h"

const char *format_name_problem(const char *name, size_t size, size_t limit)
{
    if (size == 0)
        return "is empty";
    if (size > limit)
        return "is too long";
    if (memchr(name, 0, size))
        return "holds a NUL byte";
    if (base_utf8_check(name, size) != size)
        return "is not UTF-8";
    return NULL;
}

bool format_names_create(format_names *names, size_t n)
{
    names->items = base_alloc_array(n, sizeof *names->items);
    names->n = n;
    return names->items != NULL;
}

void format_names_free(format_names *names)
{
    base_free(names->items);
    names->items = NULL;
    names->n = 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const format_name *)a)->name, ((const format_name *)b)->name);
}

const format_name *format_names_sort(format_names *names)
{
    if (names->n)
        qsort(names->items, names->n, sizeof *names->items, compare_names);
    for (size_t i = 1; i < names->n; i++)
        if (strcmp(names->items[i - 1].name, names->items[i].name) == 0)
            return &names->items[i - 1];
    return NULL;
}

size_t format_names_find(const format_names *names, const char *name)
{
    format_name wanted = {name, 0};
    const format_name *found =
        names->n ? bsearch(&wanted, names->items, names->n, sizeof wanted, compare_names) : NULL;
    return found ? found->at : SIZE_MAX;
}
