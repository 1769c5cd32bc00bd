#include "format/writer.h"

#include <inttypes.h>

#include "base/error.h"
#include "base/memory.h"

marco_status format_writer_init(format_writer *w, const char *path, marco_error *error)
{
    w->path = base_strdup(path);
    return w->path ? MARCO_OK : base_fail_memory(error, strlen(path), path);
}

void format_writer_free(format_writer *w)
{
    base_output_abort(w->output);
    for (size_t i = 0; i < w->n_tensors; i++)
        base_free(w->tensors[i].name);
    base_free(w->tensors);
    base_free(w->path);
}

bool format_writer_failed(const format_writer *w)
{
    return w->problem.status != MARCO_OK;
}

marco_status format_writer_report(const format_writer *w, marco_error *error)
{
    if (error && format_writer_failed(w))
        *error = w->problem;
    return w->problem.status;
}

/* ---- describing ---------------------------------------------------------------------------- */

void format_writer_put(format_writer *w, const char *name, const char *problem,
                       const format_described *described)
{
    if (format_writer_failed(w))
        return;
    if (w->begun)
        problem = "is described after the data has begun";
    if (problem) {
        base_fail(&w->problem, MARCO_ERROR_ARGUMENT, "%s: tensor %.200s %s", w->path, name,
                  problem);
        return;
    }
    void *tensors = w->tensors;
    if (!base_grow(&tensors, &w->capacity, w->n_tensors + 1, sizeof *w->tensors)) {
        base_fail_memory(&w->problem, sizeof *w->tensors, w->path);
        return;
    }
    w->tensors = tensors;
    format_described *t = &w->tensors[w->n_tensors];
    *t = *described;
    t->name = base_strdup(name);
    if (t->name)
        w->n_tensors++;
    else
        base_fail_memory(&w->problem, strlen(name), w->path);
}

void format_writer_refuse_twins(format_writer *w, const char *what, format_names *names)
{
    const format_name *twin = format_names_sort(names);
    if (twin)
        base_fail(&w->problem, MARCO_ERROR_ARGUMENT, "%s: %s %.200s was described twice", w->path,
                  what, twin->name);
}

void format_writer_refuse_twin_tensors(format_writer *w)
{
    format_names names;
    if (!format_names_create(&names, w->n_tensors)) {
        base_fail_memory(&w->problem, w->n_tensors * sizeof *names.items, w->path);
        return;
    }
    for (size_t i = 0; i < w->n_tensors; i++)
        names.items[i] = (format_name){w->tensors[i].name, i};
    format_writer_refuse_twins(w, "tensor", &names);
    format_names_free(&names);
}

/* ---- writing ------------------------------------------------------------------------------- */

void format_writer_begin(format_writer *w)
{
    w->begun = true;
    w->left = w->n_tensors ? w->tensors[0].bytes : 0;
}

bool format_writer_add(format_writer *w, const void *data, size_t size)
{
    if (format_writer_failed(w))
        return false;
    if (!w->begun || size > w->left) {
        base_fail(&w->problem, MARCO_ERROR_ARGUMENT,
                  "%s: %zu bytes of tensor data where %" PRIu64 " belong (%.200s)", w->path, size,
                  w->left,
                  w->current < w->n_tensors ? w->tensors[w->current].name : "past the last tensor");
        return false;
    }
    if (size == 0 || base_output_write(w->output, data, size, &w->problem))
        return false;
    w->left -= size;
    if (w->left)
        return false;
    w->current++;
    w->left = w->current < w->n_tensors ? w->tensors[w->current].bytes : 0;
    return true;
}

void format_writer_finish(format_writer *w)
{
    if (!format_writer_failed(w) && (!w->begun || w->current < w->n_tensors))
        base_fail(&w->problem, MARCO_ERROR_ARGUMENT,
                  "%s: not all tensors were written (%zu of %zu)", w->path, w->current,
                  w->n_tensors);
}

void format_writer_commit_file(format_writer *w)
{
    if (format_writer_failed(w))
        return;
    base_output *output = w->output;
    w->output = NULL;
    base_output_commit(output, &w->problem);
}
