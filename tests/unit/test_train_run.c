/* A training run's folder: one run's alone, begun anew as a whole or not at all. */
#include <sys/stat.h>

#include "base/memory.h"
#include "base/output.h"
#include "checkpoint_fixture.h"

static marco_status try_open(train_comm *comm, const char *folder, const char *set, bool restart,
                             const char *says)
{
    train_run *run = NULL;
    marco_error error = {0};
    train_recipe *r = recipe(set);
    marco_status status = train_run_open(comm, folder, r, restart, NULL, &run, &error);
    if (status && !strstr(error.message, says))
        fail_msg("expected \"%s\", got \"%s\"", says, error.message);
    train_run_close(run);
    train_recipe_free(r);
    return status;
}

static void a_folder_is_for_one_run(void **state)
{
    bench b;
    bench_open(&b, state);
    assert_int_equal(write_step(&b.l, b.run, 1, 1, 0, NULL), MARCO_OK);
    assert_int_equal(try_open(b.comm, b.folder, NULL, false, "another process"),
                     MARCO_ERROR_EXISTS);
    assert_int_equal(try_open(b.comm, b.folder, NULL, true, "another process"), MARCO_ERROR_EXISTS);
    train_run_close(b.run);
    assert_int_equal(try_open(b.comm, b.folder, "seed=1", false, "\"seed\""), MARCO_ERROR_ARGUMENT);
    assert_int_equal(try_open(b.comm, b.folder, "steps=99", false, ""), MARCO_OK);
    /* What killed runs leave. */
    char path[600];
    snprintf(path, sizeof(path), "%s/checkpoints/.step-00000007.tmp-12345-0", b.folder);
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(base_output_put(path, "model.safetensors", "x", 1, NULL), MARCO_OK);
    assert_int_equal(base_output_put(path, ".optimizer.safetensors.tmp-12345-0", "x", 1, NULL),
                     MARCO_OK);
    snprintf(path, sizeof(path), "%s/checkpoints/.mine.tmp-1-0", b.folder);
    assert_int_equal(mkdir(path, 0777), 0);
    snprintf(path, sizeof(path), "%s/checkpoints", b.folder);
    b.run = open_run(b.comm, b.folder);
    assert_int_equal(scratch_count(path), 2);
    assert_true(has(b.run, "step-00000001") && has(b.run, ".mine.tmp-1-0"));
    train_run_close(b.run);
    /* Begun anew: the other recipe is fine, and the checkpoints are gone. */
    assert_int_equal(try_open(b.comm, b.folder, "seed=1", true, ""), MARCO_OK);
    assert_int_equal(scratch_count(path), 1);
    assert_int_equal(try_open(b.comm, b.folder, "seed=1", false, ""), MARCO_OK);
    b.run = NULL;
    bench_close(&b);
}

/* Broken off anywhere, a folder that is begun anew is still a run's. */
static void beginning_anew_can_be_broken_off(void **state)
{
    bench b;
    bench_open(&b, state);
    train_recipe *r = recipe("seed=1");
    bool done = false;
    for (uint64_t n = 1; !done; n++) {
        char path[600];
        assert_int_equal(write_step(&b.l, b.run, 1, 1, 0, NULL), MARCO_OK);
        train_run_close(b.run);
        b.run = NULL;
        base_alloc_fail_at(n);
        marco_status status = train_run_open(b.comm, b.folder, r, true, NULL, &b.run, NULL);
        base_alloc_fail_at(0);
        done = status == MARCO_OK;
        snprintf(path, sizeof(path), "%s/recipe.json", b.folder);
        assert_true(base_exists(path));
        if (!done)
            assert_int_equal(train_run_open(b.comm, b.folder, r, true, NULL, &b.run, NULL),
                             MARCO_OK);
        assert_int_equal(last_step(b.comm, b.run), -1);
    }
    train_recipe_free(r);
    bench_close(&b);
}

static void other_folders_are_refused(void **state)
{
    train_comm *comm = single();
    const scratch *s = *state;
    char path[384];
    snprintf(path, sizeof(path), "%s", scratch_path(s, "thesis"));
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(base_output_put(path, "chapter1.tex", "x", 1, NULL), MARCO_OK);
    assert_int_equal(try_open(comm, path, NULL, false, "chapter1.tex"), MARCO_ERROR_EXISTS);
    assert_int_equal(try_open(comm, path, NULL, true, "chapter1.tex"), MARCO_ERROR_EXISTS);
    snprintf(path, sizeof(path), "%s", scratch_path(s, "no/such/folder"));
    assert_int_not_equal(try_open(comm, path, NULL, false, "no/such/folder"), MARCO_OK);
    snprintf(path, sizeof(path), "%s", scratch_path(s, "thesis/chapter1.tex"));
    assert_int_not_equal(try_open(comm, path, NULL, false, "chapter1.tex"), MARCO_OK);
    train_comm_close(comm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCRATCH_TEST(a_folder_is_for_one_run),
        SCRATCH_TEST(beginning_anew_can_be_broken_off),
        SCRATCH_TEST(other_folders_are_refused),
    };
    return cmocka_run_group_tests_name("folders of runs", tests, NULL, NULL);
}
