/* Checkpoints as wholes: written, kept, found again. */
#include "train/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "train/checkpoint_internal.h"

enum {
    VERSION = 1,
    STEP_DIGITS = 8, /* at least */
    TRAINER_LIMIT = 1 << 30,
};

/* Of steps and counters that are read: as many as fit, and can be counted on from. */
#define MOST INT64_C(1000000000000000000)

static const char trainer_name[] = "trainer.json", damaged[] = ".damaged";

/* ---- names --------------------------------------------------------------------------------- */

/* "RUN/checkpoints/step-00000100"; NULL when out of memory. */
static char *step_path(const train_run *run, int64_t step)
{
    char name[64];
    snprintf(name, sizeof(name), TRAIN_STEP_PREFIX "%0*" PRId64, (int)STEP_DIGITS, step);
    return base_path_join(run->checkpoints, name);
}

/* The step of a folder's name as step_path writes it, else -1; `end` is what may follow. */
static int64_t step_of(const char *name, const char *end)
{
    size_t prefix = strlen(TRAIN_STEP_PREFIX);
    if (strncmp(name, TRAIN_STEP_PREFIX, prefix) != 0)
        return -1;
    const char *digits = name + prefix;
    size_t n = strspn(digits, "0123456789");
    if (n < STEP_DIGITS || n > 18 || (n > STEP_DIGITS && digits[0] == '0') ||
        strcmp(digits + n, end) != 0)
        return -1;
    return strtoll(digits, NULL, 10);
}

static int by_step(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The steps that have a folder, ascending. */
static marco_status list_steps(const train_run *run, const char *end, int64_t **out, size_t *n,
                               marco_error *error)
{
    size_t capacity = 0;
    *out = NULL;
    *n = 0;
    DIR *dir = opendir(run->checkpoints);
    if (!dir)
        return base_fail_errno(error, errno, "cannot read the folder", run->checkpoints);
    marco_status status = MARCO_OK;
    for (struct dirent *entry; !status && (entry = readdir(dir));) {
        int64_t step = step_of(entry->d_name, end);
        if (step < 0)
            continue;
        if (base_grow((void **)out, &capacity, *n + 1, sizeof(**out)))
            (*out)[(*n)++] = step;
        else
            status = base_fail_memory(error, (*n + 1) * sizeof(**out), "a list of checkpoints");
    }
    closedir(dir);
    if (!status && *n)
        qsort(*out, *n, sizeof(**out), by_step);
    return status;
}

/* ---- removing ------------------------------------------------------------------------------ */

/* Only what is a checkpoint of ours: a folder that holds trainer.json, and nothing that is not. */
static marco_status remove_checkpoint(const char *path, marco_error *error)
{
    char *trainer = base_path_join(path, trainer_name);
    if (!trainer)
        return base_fail_memory(error, strlen(path), "a path");
    marco_status status = MARCO_OK;
    if (base_exists(trainer))
        status = base_folder_remove(path, error);
    else
        status = base_fail(error, MARCO_ERROR_EXISTS,
                           "%s holds no %s, so that it is no checkpoint of a run; not removed",
                           path, trainer_name);
    base_free(trainer);
    return status;
}

static marco_status remove_step(const train_run *run, int64_t step, const char *end,
                                marco_error *error)
{
    char *path = step_path(run, step), *whole = NULL;
    marco_status status = MARCO_OK;
    if (path) {
        size_t size = strlen(path) + strlen(end) + 1;
        whole = base_alloc(size);
        if (whole)
            snprintf(whole, size, "%s%s", path, end);
    }
    if (!whole)
        status = base_fail_memory(error, strlen(run->checkpoints), "a path");
    else
        status = remove_checkpoint(whole, error);
    base_free(whole);
    base_free(path);
    return status;
}

/* Old ones, and those of steps that a run which went back to an earlier one will come to again.
 * What cannot be removed stays: it is in nobody's way. */
static void remove_old(const train_run *run, const train_checkpoint_params *params)
{
    int64_t *steps = NULL;
    size_t n = 0;
    if (list_steps(run, "", &steps, &n, NULL) == MARCO_OK) {
        int64_t newer = 0; /* checkpoints up to the one just written, seen so far */
        for (size_t i = n; i-- > 0;) {
            int64_t step = steps[i];
            bool later = step > params->step;
            newer += !later;
            if (later || (newer > params->keep_last &&
                          (params->keep_every == 0 || step % params->keep_every != 0)))
                remove_step(run, step, "", NULL);
        }
    }
    base_free(steps);
}

marco_status train_checkpoints_clear(const train_run *run, marco_error *error)
{
    marco_status status = MARCO_OK;
    const char *const ends[] = {"", damaged};
    if (!base_is_folder(run->checkpoints))
        return MARCO_OK;
    for (int e = 0; !status && e < 2; e++) {
        int64_t *steps = NULL;
        size_t n = 0;
        status = list_steps(run, ends[e], &steps, &n, error);
        /* The last ones first: whatever happens, what is left is the beginning of a run. */
        for (size_t i = n; !status && i-- > 0;)
            status = remove_step(run, steps[i], ends[e], error);
        base_free(steps);
    }
    return status;
}

/* ---- trainer.json -------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The same object with its keys in order, whatever order the folder was read in. NULL when out of
 * memory. */
static json_t *sorted(const json_t *object)
{
    size_t n = json_object_size(object), i = 0;
    const char **keys = base_alloc_array(n, sizeof(*keys));
    json_t *out = json_object(), *value;
    const char *key;
    bool fine = keys && out;
    if (fine) {
        json_object_foreach((json_t *)object, key, value) keys[i++] = key;
        qsort(keys, n, sizeof(*keys), by_name);
    }
    for (i = 0; fine && i < n; i++)
        fine = json_object_set(out, keys[i], json_object_get(object, keys[i])) == 0;
    base_free(keys);
    if (fine)
        return out;
    json_decref(out);
    return NULL;
}

/* Every file of the folder with its size: one that was cut off later is found out. NULL on failure.
 */
static json_t *list_files(const char *folder)
{
    DIR *dir = opendir(folder);
    json_t *files = json_object(), *out = NULL;
    bool fine = dir && files;
    for (struct dirent *entry; fine && (entry = readdir(dir));) {
        struct stat st;
        if (entry->d_name[0] == '.')
            continue;
        fine = fstatat(dirfd(dir), entry->d_name, &st, 0) == 0 &&
               json_object_set_new(files, entry->d_name, json_integer((json_int_t)st.st_size)) == 0;
    }
    if (dir)
        closedir(dir);
    if (fine)
        out = sorted(files);
    json_decref(files);
    return out;
}

static marco_status write_trainer(const train_optimizer *optimizer, const train_run *run,
                                  const train_checkpoint_params *params, const char *folder,
                                  marco_error *error)
{
    json_t *files = list_files(folder);
    json_t *json = json_pack("{s:i, s:s, s:I, s:{s:I, s:f, s:I}, s:o, s:O, s:O}", "version",
                             VERSION, "program", marco_version(), "step", (json_int_t)params->step,
                             "optimizer", "step", (json_int_t)optimizer->step, "norm_mean",
                             optimizer->norm_mean, "norm_count", (json_int_t)optimizer->norm_count,
                             "files", files, "state", params->state, "recipe", run->recipe);
    char *text = json ? train_json_text(json) : NULL;
    marco_status status = text ? base_output_put(folder, trainer_name, text, strlen(text), error)
                               : base_fail_memory(error, 0, "a checkpoint's state");
    base_free(text);
    json_decref(json);
    return status;
}

/* ---- writing ------------------------------------------------------------------------------- */

/* What rank 0 alone writes besides the tensors; it comes before them so that a wrong tokenizer
 * costs no time. */
static marco_status begin_folder(const train_context *ctx, const char *path, base_folder **folder,
                                 marco_error *error)
{
    const train_params *params = ctx->params;
    if (ctx->comm->rank[TRAIN_WORLD] != 0)
        return MARCO_OK;
    marco_status status = base_folder_create(path, false, folder, error);
    if (!status)
        status = model_write_hf(&params->config, params->tokenizer, base_folder_path(*folder),
                                params->type, error);
    return status;
}

static marco_status fill_folder(const train_context *ctx, const train_optimizer *optimizer,
                                const train_run *run, const train_checkpoint_params *params,
                                const char *path, base_folder **folder, marco_error *error)
{
    marco_status status =
        train_comm_settle(ctx->comm, begin_folder(ctx, path, folder, error), error);
    const char *at = *folder ? base_folder_path(*folder) : NULL;
    for (train_file file = TRAIN_FILE_MODEL; !status && file < TRAIN_FILE_END; file++)
        if (train_file_needed(ctx->params, file))
            status = train_tensors_write(ctx, optimizer, file, at, error);
    if (!status && *folder)
        status = write_trainer(optimizer, run, params, at, error);
    if (!status && *folder) {
        base_folder *whole = *folder;
        *folder = NULL;
        status = base_folder_commit(whole, error);
    }
    return status;
}

marco_status train_checkpoint_write(const train_context *ctx, const train_optimizer *optimizer,
                                    const train_run *run, const train_checkpoint_params *params,
                                    char path[512], marco_error *error)
{
    base_folder *folder = NULL;
    marco_error problem = {0};
    marco_status status = MARCO_OK;
    char *name = step_path(run, params->step);
    if (!name)
        status = base_fail_memory(&problem, strlen(run->checkpoints), "a path");
    status = train_comm_settle(ctx->comm, status, &problem);
    if (!status)
        status = fill_folder(ctx, optimizer, run, params, name, &folder, &problem);
    base_folder_abort(folder);
    status = train_comm_settle(ctx->comm, status, &problem);
    if (!status) {
        if (ctx->comm->rank[TRAIN_WORLD] == 0)
            remove_old(run, params);
        snprintf(path, 512, "%s", name);
    } else {
        base_fail(error, status,
                  "the checkpoint of step %" PRId64
                  " was not written, those before it are whole%s: %s",
                  params->step,
                  status == MARCO_ERROR_SPACE ? "; make room and start the same command again" : "",
                  problem.message);
    }
    base_free(name);
    return status;
}

/* ---- reading ------------------------------------------------------------------------------- */

typedef struct trainer_file {
    json_t *json;
    int64_t step, optimizer_step, norm_count;
    double norm_mean;
} trainer_file;

static marco_status read_trainer(const char *folder, trainer_file *out, marco_error *error)
{
    int64_t version = 0;
    *out = (trainer_file){.step = -1, .optimizer_step = -1, .norm_count = -1, .norm_mean = -1};
    char *path = base_path_join(folder, trainer_name);
    if (!path)
        return base_fail_memory(error, strlen(folder), "a path");
    marco_status status = format_json_file(path, TRAINER_LIMIT, &out->json, error);
    if (!status)
        status = format_json_int(path, out->json, "version", 1, INT32_MAX, &version, error);
    if (!status && version != VERSION)
        status =
            base_fail(error, MARCO_ERROR_UNSUPPORTED,
                      "%s: version %lld of checkpoints is not known to this program; version %d is",
                      path, (long long)version, (int)VERSION);
    if (!status)
        status = format_json_int(path, out->json, "step", 0, MOST, &out->step, error);
    const json_t *optimizer = json_object_get(out->json, "optimizer");
    if (!status)
        status = format_json_int(path, optimizer, "step", 0, MOST, &out->optimizer_step, error);
    if (!status)
        status = format_json_int(path, optimizer, "norm_count", 0, MOST, &out->norm_count, error);
    if (!status)
        status = format_json_real(path, optimizer, "norm_mean", 0, 1e300, &out->norm_mean, error);
    if (!status && (out->step < 0 || out->optimizer_step < 0 || out->norm_count < 0 ||
                    out->norm_mean < 0 || !json_object_get(out->json, "state") ||
                    !json_is_object(json_object_get(out->json, "files"))))
        status = base_fail(error, MARCO_ERROR_FORMAT, "%s: parts of it are missing", path);
    if (status) {
        json_decref(out->json);
        out->json = NULL;
    }
    base_free(path);
    return status;
}

static marco_status check_files(const char *folder, const json_t *files, marco_error *error)
{
    const char *name;
    json_t *size;
    marco_status status = MARCO_OK;
    json_object_foreach((json_t *)files, name, size)
    {
        struct stat st;
        char *path = base_path_is_plain(name) ? base_path_join(folder, name) : NULL;
        if (!path)
            return base_fail(error, MARCO_ERROR_FORMAT, "%s/%s: names the file '%.100s'", folder,
                             trainer_name, name);
        if (stat(path, &st) != 0)
            status = base_fail_errno(error, errno, "cannot find", path);
        else if (!json_is_integer(size) || json_integer_value(size) != (json_int_t)st.st_size)
            status = base_fail(error, MARCO_ERROR_FORMAT,
                               "%s: has %lld bytes, and %lld when it was written", path,
                               (long long)st.st_size, (long long)json_integer_value(size));
        base_free(path);
        if (status)
            return status;
    }
    return status;
}

/* Whole, as far as can be told without reading all of it. */
static marco_status check_whole(const char *folder, marco_error *error)
{
    trainer_file trainer;
    marco_status status = read_trainer(folder, &trainer, error);
    if (!status)
        status = check_files(folder, json_object_get(trainer.json, "files"), error);
    for (train_file file = TRAIN_FILE_MODEL; !status && file < TRAIN_FILE_END; file++) {
        safetensors *tensors = NULL;
        status = safetensors_open_named(folder, train_file_stem(file), &tensors, error);
        safetensors_close(tensors);
        if (status == MARCO_ERROR_NOT_FOUND && file == TRAIN_FILE_ADAPTERS)
            status = MARCO_OK; /* its files would be among those checked */
    }
    json_decref(trainer.json);
    return status;
}

/* Puts a damaged checkpoint aside, so that a new one of its step can be written. */
static marco_status put_aside(const char *path, const char *why, const train_notes *notes,
                              marco_error *error)
{
    marco_status status = MARCO_OK;
    base_text to = {0}, line = {0};
    base_text_printf(&to, "%s%s", path, damaged);
    base_text_printf(&line, "a checkpoint is damaged and was renamed to %s%s: %s",
                     base_path_name(path), damaged, why);
    if (to.failed || line.failed)
        status = base_fail_memory(error, strlen(path), "a path");
    else if (base_exists(to.data)) /* the same step, damaged before */
        status = remove_checkpoint(to.data, error);
    if (!status && rename(path, to.data) != 0)
        status = base_fail_errno(error, errno, "cannot rename", path);
    else if (!status && notes && notes->fn)
        notes->fn(notes->user, line.data);
    base_text_free(&to);
    base_text_free(&line);
    return status;
}

/* Beginning anew in silence would throw away what can perhaps be mended: where no checkpoint is
 * whole and some are damaged, also those that an earlier start put aside. */
static marco_status check_damaged(const train_run *run, marco_error *error)
{
    int64_t *steps = NULL;
    size_t n = 0;
    marco_status status = list_steps(run, damaged, &steps, &n, error);
    if (!status && n)
        status = base_fail(error, MARCO_ERROR_FORMAT,
                           "%s: no checkpoint is whole, and there are %zu damaged ones (*%s); "
                           "--restart removes them and begins anew",
                           run->checkpoints, n, damaged);
    base_free(steps);
    return status;
}

/* The last whole checkpoint's step, or -1. On rank 0. */
static marco_status find_last(const train_run *run, const train_notes *notes, int64_t *out,
                              marco_error *error)
{
    int64_t *steps = NULL;
    size_t n = 0;
    *out = -1;
    marco_status status = list_steps(run, "", &steps, &n, error);
    for (size_t i = n; !status && *out < 0 && i-- > 0;) {
        marco_error problem = {0};
        char *path = step_path(run, steps[i]);
        status = path ? check_whole(path, &problem) : base_fail_memory(&problem, 64, "a path");
        if (!status)
            *out = steps[i];
        else if (status == MARCO_ERROR_FORMAT || status == MARCO_ERROR_NOT_FOUND)
            status = put_aside(path, problem.message, notes, error);
        else if (error)
            *error = problem;
        base_free(path);
    }
    if (!status && *out < 0)
        status = check_damaged(run, error);
    base_free(steps);
    return status;
}

static marco_status open_step(const train_run *run, int64_t step, train_checkpoint **out,
                              marco_error *error)
{
    trainer_file trainer = {0};
    marco_status status = MARCO_OK;
    train_checkpoint *c = base_calloc(1, sizeof(*c));
    if (c)
        c->folder = step_path(run, step);
    if (!c || !c->folder)
        status = base_fail_memory(error, sizeof(*c), "a checkpoint");
    if (!status)
        status = read_trainer(c->folder, &trainer, error);
    if (!status && trainer.step != step)
        status =
            base_fail(error, MARCO_ERROR_FORMAT, "%s/%s: is of step %lld; was the folder renamed?",
                      c->folder, trainer_name, (long long)trainer.step);
    if (!status) {
        c->step = step;
        c->state = json_incref(json_object_get(trainer.json, "state"));
    }
    json_decref(trainer.json);
    if (status) {
        train_checkpoint_free(c);
        return status;
    }
    *out = c;
    return MARCO_OK;
}

marco_status train_checkpoint_last(train_comm *comm, const train_run *run, const train_notes *notes,
                                   train_checkpoint **out, marco_error *error)
{
    int64_t step = -1;
    *out = NULL;
    marco_status status = MARCO_OK;
    if (comm->rank[TRAIN_WORLD] == 0)
        status = find_last(run, notes, &step, error);
    status = train_comm_settle(comm, status, error);
    if (!status)
        status = comm->ops->broadcast(comm, TRAIN_WORLD, 0, &step, sizeof(step), error);
    if (status || step < 0)
        return status;
    status = train_comm_settle(comm, open_step(run, step, out, error), error);
    if (status) {
        train_checkpoint_free(*out);
        *out = NULL;
    }
    return status;
}

void train_checkpoint_free(train_checkpoint *checkpoint)
{
    if (!checkpoint)
        return;
    json_decref(checkpoint->state);
    base_free(checkpoint->folder);
    base_free(checkpoint);
}

marco_status train_checkpoint_load(const train_checkpoint *checkpoint, const train_context *ctx,
                                   train_optimizer *optimizer, marco_error *error)
{
    trainer_file trainer = {0};
    marco_status status = read_trainer(checkpoint->folder, &trainer, error);
    for (train_file file = TRAIN_FILE_MODEL; !status && file < TRAIN_FILE_END; file++)
        if (train_file_needed(ctx->params, file))
            status = train_tensors_read(ctx, optimizer, file, checkpoint->folder, error);
    if (!status) {
        optimizer->step = trainer.optimizer_step;
        optimizer->norm_mean = trainer.norm_mean;
        optimizer->norm_count = trainer.norm_count;
    }
    json_decref(trainer.json);
    return train_comm_settle(ctx->comm, status, error);
}
