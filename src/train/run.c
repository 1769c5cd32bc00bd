/* The folder of a training run. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "train/checkpoint.h"
#include "train/checkpoint_internal.h"

static const char recipe_name[] = "recipe.json", lock_name[] = ".lock";

/* ---- what is in it ------------------------------------------------------------------------- */

/* May a folder that is to become a run's hold this: what one that was killed at its very beginning
 * left, or one that begins has so far? */
static bool is_beginning(const char *name)
{
    static const char temporary[] = ".recipe.json.tmp-";
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, lock_name) == 0 ||
           strncmp(name, temporary, sizeof temporary - 1) == 0;
}

/* A folder without a recipe must be empty. */
static marco_status check_empty(const train_run *run, marco_error *error)
{
    DIR *dir = opendir(run->folder);
    if (!dir)
        return base_fail_errno(error, errno, "cannot read the folder", run->folder);
    marco_status status = MARCO_OK;
    for (struct dirent *entry; !status && (entry = readdir(dir));) {
        const char *name = entry->d_name;
        if (!is_beginning(name))
            status = base_fail(error, MARCO_ERROR_EXISTS,
                               "%s holds '%s' and no training run; choose another folder",
                               run->folder, name);
    }
    closedir(dir);
    return status;
}

/* recipe.json is a name that others use too. */
static marco_status check_recipe(const train_run *run, const char *path, marco_error *error)
{
    train_recipe *recipe = NULL;
    marco_error why;
    marco_status status = train_recipe_read(path, NULL, 0, &recipe, &why);
    train_recipe_free(recipe);
    if (status && status != MARCO_ERROR_MEMORY)
        return base_fail(error, status,
                         "%s holds a recipe.json that is no recipe of a training run (%s); choose "
                         "another folder",
                         run->folder, why.message);
    return status ? base_fail(error, status, "%s", why.message) : MARCO_OK;
}

/* Is the folder a run's, or free to become one? */
static marco_status check_folder(const train_run *run, const char *path, marco_error *error)
{
    return base_exists(path) ? check_recipe(run, path, error) : check_empty(run, error);
}

static marco_status remove_file(const char *folder, const char *name, marco_error *error)
{
    char *path = base_path_join(folder, name);
    if (!path)
        return base_fail_memory(error, strlen(folder), "a path");
    marco_status status = MARCO_OK;
    if (unlink(path) != 0 && errno != ENOENT)
        status = base_fail_errno(error, errno, "cannot remove", path);
    base_free(path);
    return status;
}

/* What an earlier run wrote. Its recipe stays until the new one takes its place: so the folder is
 * known as a run's at any moment. */
static marco_status clear(const train_run *run, marco_error *error)
{
    marco_status status = train_checkpoints_clear(run, error);
    return status ? status : remove_file(run->folder, "metrics.jsonl", error);
}

static marco_status write_recipe(const char *path, const train_recipe *recipe, marco_error *error)
{
    base_output *output = NULL;
    char *text = train_recipe_text(recipe);
    if (!text)
        return base_fail_memory(error, 0, "a recipe");
    marco_status status = base_output_create(path, true, &output, error);
    if (!status) {
        status = base_output_write(output, text, strlen(text), error);
        if (!status)
            status = base_output_commit(output, error);
        else
            base_output_abort(output);
    }
    base_free(text);
    return status;
}

/* ---- opening ------------------------------------------------------------------------------- */

static marco_status make_folder(const char *path, marco_error *error)
{
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && base_is_folder(path)))
        return MARCO_OK;
    return base_fail_errno(error, errno, "cannot make the folder", path);
}

/* Some network file systems have no locks: that is no reason not to train there. */
static void note_no_lock(const train_run *run, int code, const train_notes *notes)
{
    base_text line = {0};
    base_text_printf(&line,
                     "%s cannot be locked (%s): see to it that no other process trains in it",
                     run->folder, strerror(code));
    if (!line.failed && notes && notes->fn)
        notes->fn(notes->user, line.data);
    base_text_free(&line);
}

/* Held until the process ends, however it does. */
static marco_status lock(train_run *run, const train_notes *notes, marco_error *error)
{
    char *path = base_path_join(run->folder, lock_name);
    if (!path)
        return base_fail_memory(error, strlen(run->folder), "a path");
    marco_status status = MARCO_OK;
    run->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (run->lock < 0)
        status = base_fail_errno(error, errno, "cannot write", path);
    else if (flock(run->lock, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            status = base_fail(
                error, MARCO_ERROR_EXISTS,
                "another process trains in %s; wait for it, or choose another folder", run->folder);
        else
            note_no_lock(run, errno, notes);
    }
    base_free(path);
    return status;
}

static marco_status prepare(train_run *run, const train_recipe *recipe, bool restart,
                            const train_notes *notes, marco_error *error)
{
    bool moved = false;
    char *path = base_path_join(run->folder, recipe_name);
    if (!path)
        return base_fail_memory(error, strlen(run->folder), "a path");
    marco_status status = make_folder(run->folder, error);
    /* Once before anything is written into what may be a stranger's folder, and once more when
     * nobody else changes it. */
    if (!status)
        status = check_folder(run, path, error);
    if (!status)
        status = lock(run, notes, error);
    if (!status)
        status = check_folder(run, path, error);
    if (!status)
        base_folder_sweep(run->folder, recipe_name);
    if (!status && base_exists(path))
        status = restart ? clear(run, error) : train_recipe_goes_on(recipe, path, &moved, error);
    if (!status && moved && notes && notes->fn)
        notes->fn(notes->user,
                  "the run was begun from a model at another path; it goes on from its "
                  "own checkpoint, where it has one");
    if (!status)
        status = write_recipe(path, recipe, error);
    if (!status)
        status = make_folder(run->checkpoints, error);
    if (!status)
        base_folder_sweep(run->checkpoints, TRAIN_STEP_PREFIX);
    base_free(path);
    return status;
}

bool train_run_exists(const char *folder)
{
    char *path = base_path_join(folder, recipe_name);
    bool exists = path && base_exists(path);
    base_free(path);
    return exists;
}

marco_status train_run_open(train_comm *comm, const char *folder, const train_recipe *recipe,
                            bool restart, const train_notes *notes, train_run **out,
                            marco_error *error)
{
    *out = NULL;
    marco_status status = MARCO_OK;
    train_run *run = base_calloc(1, sizeof(*run));
    if (run) {
        run->lock = -1;
        run->folder = base_strdup(folder);
        run->checkpoints = base_path_join(folder, "checkpoints");
        run->recipe = json_incref(recipe->json);
    }
    if (!run || !run->folder || !run->checkpoints)
        status = base_fail_memory(error, sizeof(*run), "a run");
    else if (comm->rank[TRAIN_WORLD] == 0)
        status = prepare(run, recipe, restart, notes, error);
    status = train_comm_settle(comm, status, error);
    if (status) {
        train_run_close(run);
        return status;
    }
    *out = run;
    return MARCO_OK;
}

void train_run_close(train_run *run)
{
    if (!run)
        return;
    if (run->lock >= 0)
        close(run->lock);
    json_decref(run->recipe);
    base_free(run->folder);
    base_free(run->checkpoints);
    base_free(run);
}
