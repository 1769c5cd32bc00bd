/* Checkpoints of training: the same bits back, whole or not there, few kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "checkpoint_fixture.h"
#include "threads_comm.h"
#include "train/source.h"

/* ---- a model in training, every number known ----------------------------------------------- */

enum { PARTS = 5 }; /* values, moments, squares, masters, bases */

static float number_of(size_t param, int part, int64_t at)
{
    return (
        float)(2 * base_random_unit(5, (uint64_t)(param * PARTS) + (uint64_t)part, (uint64_t)at) -
               1);
}

/* Calls fn for every number held here. */
typedef bool (*number_fn)(void *number, tensor_type type, float expected);

static bool each_number(const lab *l, number_fn fn)
{
    const train_params *params = l->ctx.params;
    bool fine = true;
    for (size_t i = 0; i < params->n; i++) {
        const train_param *p = &params->items[i];
        const train_values *values = &params->sections[p->section];
        const struct train_shard *shard = &l->optimizer->shards[p->section];
        int64_t matrix = train_param_matrix(p);
        for (int64_t e = 0; e < train_param_size(p); e++) {
            int64_t at = p->offset + e, whole = p->mat0 * matrix + e, s = at - shard->begin;
            size_t bytes = tensor_row_bytes(params->type, 1);
            fine &= fn((char *)values->value + (size_t)at * bytes, params->type,
                       number_of(i, 0, whole));
            if (p->state == TRAIN_ADAPTED)
                fine &= fn(params->base[p->section] + (at - values->trained), TENSOR_F32,
                           number_of(i, 4, whole));
            if (p->state != TRAIN_TRAINED || s < 0 || s >= shard->size)
                continue;
            fine &= fn(shard->m + s, TENSOR_F32, number_of(i, 1, whole));
            fine &= fn(shard->v + s, TENSOR_F32, number_of(i, 2, whole));
            if (shard->master)
                fine &= fn(shard->master + s, TENSOR_F32, number_of(i, 3, whole));
        }
    }
    return fine;
}

static bool put_number(void *number, tensor_type type, float expected)
{
    uint16_t half = tensor_f32_to_bf16(expected);
    memcpy(number, type == TENSOR_F32 ? (void *)&expected : (void *)&half,
           type == TENSOR_F32 ? 4 : 2);
    return true;
}

static bool same_number(void *number, tensor_type type, float expected)
{
    uint16_t half = tensor_f32_to_bf16(expected);
    return memcmp(number, type == TENSOR_F32 ? (void *)&expected : (void *)&half,
                  type == TENSOR_F32 ? 4 : 2) == 0;
}

/* ---- the same bits back -------------------------------------------------------------------- */

static void check_state(const train_checkpoint *c, const train_optimizer *o)
{
    if (c->step != 3 || o->step != 2 || o->norm_mean != 0.1 || o->norm_count != 7 ||
        json_real_value(json_object_get(c->state, "third")) != 1.0 / 3)
        abort();
}

typedef struct job {
    kind k;
    const char *folder;
    bool fine;
    pthread_mutex_t mutex;
} job;

static void write_job(train_comm *comm, void *user)
{
    const job *j = user;
    lab l;
    set_up(&l, j->k, comm);
    each_number(&l, put_number);
    train_run *run = open_run(comm, j->folder);
    marco_error error = {0};
    if (write_step(&l, run, 3, 1, 0, &error) != MARCO_OK) {
        fprintf(stderr, "%s\n", error.message);
        abort();
    }
    train_run_close(run);
    tear_down(&l);
}

static void read_job(train_comm *comm, void *user)
{
    job *j = user;
    lab l;
    set_up(&l, j->k, comm);
    train_run *run = open_run(comm, j->folder);
    train_checkpoint *c = NULL;
    marco_error error = {0};
    if (train_checkpoint_last(comm, run, NULL, &c, &error) != MARCO_OK || !c ||
        train_checkpoint_load(c, &l.ctx, l.optimizer, &error) != MARCO_OK) {
        fprintf(stderr, "%s\n", error.message);
        abort();
    }
    check_state(c, l.optimizer);
    bool fine = each_number(&l, same_number);
    pthread_mutex_lock(&j->mutex);
    j->fine = j->fine && fine;
    pthread_mutex_unlock(&j->mutex);
    train_checkpoint_free(c);
    train_run_close(run);
    tear_down(&l);
}

static void every_number_comes_back(void **state)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
        char name[32];
        snprintf(name, sizeof(name), "run%zu", i);
        job j = {.k = kinds[i], .folder = scratch_path(*state, name), .fine = true};
        pthread_mutex_init(&j.mutex, NULL);
        train_comm *comm = single();
        write_job(comm, &j);
        read_job(comm, &j);
        train_comm_close(comm);
        assert_true(j.fine);
    }
}

static void any_number_of_processes_writes_and_reads_the_same(void **state)
{
    static const int worlds[][2] = {{1, 1}, {4, 2}, {2, 2}, {6, 3}, {3, 1}};
    for (size_t i = 0; i < 4; i++) {
        char first[384] = "";
        for (size_t w = 0; w < sizeof(worlds) / sizeof(*worlds); w++) {
            char name[32];
            snprintf(name, sizeof(name), "run%zu-%zu", i, w);
            job j = {.k = kinds[i], .folder = scratch_path(*state, name), .fine = true};
            pthread_mutex_init(&j.mutex, NULL);
            threads_run(worlds[w][0], worlds[w][1], write_job, &j);
            for (size_t r = 0; r < sizeof(worlds) / sizeof(*worlds); r += 2)
                threads_run(worlds[r][0], worlds[r][1], read_job, &j);
            assert_true(j.fine);
            char path[420], one[420];
            snprintf(path, sizeof(path), "%s/checkpoints/step-00000003", j.folder);
            snprintf(one, sizeof(one), "%s/checkpoints/step-00000003", first);
            if (w == 0)
                snprintf(first, sizeof(first), "%s", j.folder);
            else
                assert_true(scratch_same_folder(path, one));
        }
    }
}

/* The masters held here that are not what the source or the adapter's beginning has. */
static int64_t wrong_masters(const lab *l, int64_t *finer)
{
    int64_t wrong = 0;
    for (size_t i = 0; i < l->ctx.params->n; i++) {
        const train_param *p = &l->ctx.params->items[i];
        const struct train_shard *shard = &l->optimizer->shards[p->section];
        const uint16_t *values = l->ctx.params->sections[p->section].value;
        int64_t matrix = train_param_matrix(p);
        for (int64_t e = 0; e < train_param_size(p) && p->state == TRAIN_TRAINED; e++) {
            int64_t at = p->offset + e - shard->begin;
            if (at < 0 || at >= shard->size)
                continue;
            float master = shard->master[at];
            wrong += tensor_f32_to_bf16(master) != values[p->offset + e];
            if (!p->adapter)
                wrong += master != memory_value(&p->tensor, p->mat0 + e / matrix, e % matrix);
            *finer += master != tensor_bf16_to_f32(values[p->offset + e]);
        }
    }
    return wrong;
}

static void begin_job(train_comm *comm, void *user)
{
    job *j = user;
    lab l;
    int64_t finer = 0;
    set_up(&l, j->k, comm);
    const model_config config = memory_config(j->k.arch);
    model_source *source = memory_source_create(&config, TENSOR_F32, false);
    bool fine = source && !train_optimizer_begin(l.optimizer, &l.ctx, source, 0, NULL) &&
                wrong_masters(&l, &finer) == 0 && finer > 0;
    pthread_mutex_lock(&j->mutex);
    j->fine = j->fine && fine;
    pthread_mutex_unlock(&j->mutex);
    model_source_close(source);
    tear_down(&l);
}

static void masters_begin_with_what_weights_were_rounded_from(void **state)
{
    static const int worlds[][2] = {{1, 1}, {4, 2}, {3, 1}};
    (void)state;
    for (size_t i = 1; i <= 3; i += 2) {
        for (size_t w = 0; w < sizeof(worlds) / sizeof(*worlds); w++) {
            job j = {.k = kinds[i], .fine = true};
            pthread_mutex_init(&j.mutex, NULL);
            threads_run(worlds[w][0], worlds[w][1], begin_job, &j);
            assert_true(j.fine);
        }
    }
}

/* What any tool sees: a model of the values, with its tokenizer. */
static void a_checkpoint_is_a_model(void **state)
{
    train_comm *comm = single();
    job j = {.k = kinds[3], .folder = scratch_path(*state, "run")};
    write_job(comm, &j);
    lab l;
    set_up(&l, j.k, comm);
    each_number(&l, put_number);
    char path[600];
    snprintf(path, sizeof(path), "%s/checkpoints/step-00000003", j.folder);
    model_source *source = NULL, *live = NULL;
    assert_int_equal(model_source_open(path, &source, NULL), MARCO_OK);
    assert_int_equal(train_params_source(l.ctx.params, &live, NULL), MARCO_OK);
    assert_non_null(source->tokenizer);
    assert_int_equal(source->n_tensors, live->n_tensors);
    for (size_t i = 0; i < source->n_tensors; i++) {
        const model_tensor *t = &source->tensors[i];
        assert_int_equal(t->type, TENSOR_BF16);
        size_t bytes = (size_t)t->rows * tensor_row_bytes(t->type, t->cols);
        char *a = malloc(bytes), *b = malloc(bytes);
        for (int64_t mat = 0; mat < t->mats; mat++) {
            assert_int_equal(source->read(source, i, mat, 0, t->rows, a, NULL), MARCO_OK);
            assert_int_equal(live->read(live, i, mat, 0, t->rows, b, NULL), MARCO_OK);
            assert_memory_equal(a, b, bytes);
        }
        free(a);
        free(b);
    }
    model_source_close(source);
    model_source_close(live);
    tear_down(&l);
    train_comm_close(comm);
}

/* ---- kept and found ------------------------------------------------------------------------ */

static void checkpoints_say_which_program_wrote_them(void **state)
{
    bench b;
    bench_open(&b, state);
    assert_int_equal(write_step(&b.l, b.run, 1, 1, 0, NULL), MARCO_OK);
    char path[600];
    snprintf(path, sizeof(path), "%s/step-00000001/trainer.json", b.run->checkpoints);
    json_t *json = json_load_file(path, 0, NULL);
    assert_non_null(json);
    assert_string_equal(json_string_value(json_object_get(json, "program")), marco_version());
    json_decref(json);
    bench_close(&b);
}

static void old_checkpoints_go(void **state)
{
    bench b;
    bench_open(&b, state);
    assert_int_equal(last_step(b.comm, b.run), -1);
    for (int64_t step = 1; step <= 7; step++)
        assert_int_equal(write_step(&b.l, b.run, step, 2, 3, NULL), MARCO_OK);
    assert_true(has(b.run, "step-00000003") && has(b.run, "step-00000006") &&
                has(b.run, "step-00000007"));
    assert_int_equal(scratch_count(b.run->checkpoints), 3);
    assert_int_equal(last_step(b.comm, b.run), 7);
    /* Those of a future that was given up, and never what is not a run's. */
    char path[600];
    snprintf(path, sizeof(path), "%s/step-00000002", b.run->checkpoints);
    assert_int_equal(mkdir(path, 0777), 0);
    snprintf(path, sizeof(path), "%s/step-00000001", b.run->checkpoints);
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(base_output_put(path, "trainer.json", "{}", 2, NULL), MARCO_OK);
    assert_int_equal(base_output_put(path, "thesis.txt", "x", 1, NULL), MARCO_OK);
    assert_int_equal(write_step(&b.l, b.run, 5, 1, 0, NULL), MARCO_OK);
    assert_true(has(b.run, "step-00000005") && has(b.run, "step-00000002") &&
                has(b.run, "step-00000001/thesis.txt"));
    assert_int_equal(scratch_count(b.run->checkpoints), 3);
    bench_close(&b);
}

static void damage(const bench *b, const char *name, int64_t size)
{
    char path[600];
    snprintf(path, sizeof(path), "%s/%s", b->run->checkpoints, name);
    assert_int_equal(size < 0 ? unlink(path) : truncate(path, size), 0);
}

static void damaged_checkpoints_are_passed_over(void **state)
{
    static const struct {
        const char *file;
        int64_t size;
    } cases[] = {{"model.safetensors", 3000}, {"optimizer.safetensors", -1}, {"trainer.json", 20},
                 {"trainer.json", -1},        {"tokenizer.json", -1},        {"config.json", 0}};
    bench b;
    bench_open(&b, state);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char name[128];
        assert_int_equal(write_step(&b.l, b.run, 10, 9, 0, NULL), MARCO_OK);
        assert_int_equal(write_step(&b.l, b.run, 20, 9, 0, NULL), MARCO_OK);
        snprintf(name, sizeof(name), "step-00000020/%s", cases[i].file);
        damage(&b, name, cases[i].size);
        assert_int_equal(last_step(b.comm, b.run), 10);
        if (!strstr(noted, cases[i].file) || !strstr(noted, "step-00000020.damaged"))
            fail_msg("%s: %s", cases[i].file, noted);
        assert_true(has(b.run, "step-00000020.damaged"));
        /* The next look finds nothing wrong, and the step can be written again. */
        assert_int_equal(last_step(b.comm, b.run), 10);
        assert_string_equal(noted, "");
        assert_int_equal(write_step(&b.l, b.run, 20, 9, 0, NULL), MARCO_OK);
        assert_int_equal(last_step(b.comm, b.run), 20);
        char path[600];
        snprintf(path, sizeof(path), "%s/step-00000020.damaged", b.run->checkpoints);
        if (base_folder_remove(path, NULL) != MARCO_OK)
            fail_msg("%s was not removed", path);
        for (int k = 1; k <= 2; k++) {
            snprintf(path, sizeof(path), "%s/step-000000%d0", b.run->checkpoints, k);
            assert_int_equal(base_folder_remove(path, NULL), MARCO_OK);
        }
    }
    assert_int_equal(write_step(&b.l, b.run, 10, 9, 0, NULL), MARCO_OK);
    damage(&b, "step-00000010/model.safetensors", 10);
    train_checkpoint *c = NULL;
    marco_error error = {0};
    /* Said again, until somebody does something about it. */
    for (int k = 0; k < 2; k++) {
        assert_int_equal(train_checkpoint_last(b.comm, b.run, &notes, &c, &error),
                         MARCO_ERROR_FORMAT);
        assert_null(c);
        assert_non_null(strstr(error.message, "1 damaged ones (*.damaged)"));
        error.message[0] = '\0';
    }
    bench_close(&b);
}

/* Numbers that cannot be counted on from, or are none that a run wrote. */
static void counters_have_bounds(void **state)
{
    static const char *const texts[] = {
        "{\"version\": 1, \"step\": 10, \"optimizer\": {\"step\": 9223372036854775807, "
        "\"norm_mean\": 1, \"norm_count\": 1}, \"files\": {}, \"state\": {}}",
        "{\"version\": 1, \"step\": 10, \"optimizer\": {\"step\": 9, \"norm_mean\": 1, "
        "\"norm_count\": 9223372036854775807}, \"files\": {}, \"state\": {}}",
        "{\"version\": 1, \"step\": 10, \"optimizer\": {\"step\": -1, \"norm_mean\": 1, "
        "\"norm_count\": 1}, \"files\": {}, \"state\": {}}",
        "{\"version\": 1, \"step\": 10, \"optimizer\": {\"step\": 9, \"norm_mean\": 1, "
        "\"norm_count\": 1}, \"files\": {}, \"state\": {}}"};
    bench b;
    bench_open(&b, state);
    for (size_t i = 0; i < 4; i++) {
        char path[600];
        assert_int_equal(write_step(&b.l, b.run, 5, 9, 0, NULL), MARCO_OK);
        assert_int_equal(write_step(&b.l, b.run, 10, 9, 0, NULL), MARCO_OK);
        damage(&b, "step-00000010/trainer.json", -1);
        snprintf(path, sizeof(path), "%s/step-00000010", b.run->checkpoints);
        assert_int_equal(base_output_put(path, "trainer.json", texts[i], strlen(texts[i]), NULL),
                         MARCO_OK);
        assert_int_equal(last_step(b.comm, b.run), i == 3 ? 10 : 5);
        train_run *run = NULL;
        train_recipe *r = recipe(NULL);
        train_run_close(b.run);
        assert_int_equal(train_run_open(b.comm, b.folder, r, true, NULL, &run, NULL), MARCO_OK);
        train_recipe_free(r);
        b.run = run;
    }
    bench_close(&b);
}

static void tensors_of_another_model_are_refused(void **state)
{
    bench b;
    bench_open(&b, state);
    assert_int_equal(write_step(&b.l, b.run, 1, 9, 0, NULL), MARCO_OK);
    train_checkpoint *c = NULL;
    assert_int_equal(train_checkpoint_last(b.comm, b.run, NULL, &c, NULL), MARCO_OK);
    for (size_t i = 1; i < 5; i++) {
        lab other;
        marco_error error = {0};
        set_up(&other, kinds[i], b.comm);
        assert_int_equal(train_checkpoint_load(c, &other.ctx, other.optimizer, &error),
                         MARCO_ERROR_FORMAT);
        assert_non_null(strstr(error.message, "safetensors"));
        tear_down(&other);
    }
    train_checkpoint_free(c);
    bench_close(&b);
}

/* ---- nothing left behind ------------------------------------------------------------------- */

static void a_full_disk_leaves_the_one_before(void **state)
{
    bench b;
    bench_open(&b, state);
    each_number(&b.l, put_number);
    assert_int_equal(write_step(&b.l, b.run, 1, 1, 0, NULL), MARCO_OK);
    struct rlimit limit, small;
    getrlimit(RLIMIT_FSIZE, &limit);
    signal(SIGXFSZ, SIG_IGN);
    static const rlim_t sizes[] = {100, 20000, 300000, 700000};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        marco_error error = {0};
        small = (struct rlimit){.rlim_cur = sizes[i], .rlim_max = limit.rlim_max};
        setrlimit(RLIMIT_FSIZE, &small);
        marco_status status = write_step(&b.l, b.run, 2, 1, 0, &error);
        setrlimit(RLIMIT_FSIZE, &limit);
        assert_int_not_equal(status, MARCO_OK);
        assert_non_null(strstr(error.message, "step 2 was not written"));
        assert_int_equal(scratch_count(b.run->checkpoints), 1);
        assert_int_equal(last_step(b.comm, b.run), 1);
    }
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(write_step(&b.l, b.run, 2, 1, 0, NULL), MARCO_OK);
    bench_close(&b);
}

/* One process cannot write, or the disk is full for it: all hear of it. */
static void fail_job(train_comm *comm, void *user)
{
    job *j = user;
    lab l;
    set_up(&l, j->k, comm);
    train_run *run = open_run(comm, j->folder);
    marco_error error = {0};
    each_number(&l, put_number);
    const train_param *p = train_params_find(l.ctx.params, MODEL_EXPERT_UP, 1);
    if (comm->rank[TRAIN_WORLD] == 1)
        ((float *)l.ctx.params->sections[TRAIN_OWN_EXPERTS].value)[p->offset] = NAN;
    marco_status status = write_step(&l, run, 3, 1, 0, &error);
    pthread_mutex_lock(&j->mutex);
    j->fine =
        j->fine && status == MARCO_ERROR_NUMERIC && strstr(error.message, "blk.1.ffn_up_exps");
    pthread_mutex_unlock(&j->mutex);
    train_run_close(run);
    tear_down(&l);
}

static void numbers_that_are_not_finite_are_not_kept(void **state)
{
    job j = {.k = kinds[0], .folder = scratch_path(*state, "run"), .fine = true};
    pthread_mutex_init(&j.mutex, NULL);
    threads_run(2, 2, fail_job, &j);
    assert_true(j.fine);
    char path[600];
    snprintf(path, sizeof(path), "%s/checkpoints", j.folder);
    assert_int_equal(scratch_count(path), 0);
}

/* A collective after which the name of the file that is being written is taken. */
static char taken[600];

static marco_status taking_broadcast(train_comm *c, train_group group, int root, void *data,
                                     size_t bytes, marco_error *error)
{
    mkdir(taken, 0777);
    return threads_broadcast(c, group, root, data, bytes, error);
}

/* The first process cannot give a file its name, at the very end: the others hear of it. */
static void commit_job(train_comm *comm, void *user)
{
    job *j = user;
    lab l;
    train_comm_ops ops = *comm->ops;
    ops.broadcast = taking_broadcast;
    comm->ops = &ops;
    set_up(&l, j->k, comm);
    each_number(&l, put_number);
    marco_status status =
        train_tensors_write(&l.ctx, l.optimizer, TRAIN_FILE_MODEL, j->folder, NULL);
    pthread_mutex_lock(&j->mutex);
    j->fine = j->fine && status != MARCO_OK;
    pthread_mutex_unlock(&j->mutex);
    tear_down(&l);
}

static void all_hear_of_a_file_that_is_not_kept(void **state)
{
    job j = {.k = kinds[0], .folder = scratch_path(*state, "half"), .fine = true};
    pthread_mutex_init(&j.mutex, NULL);
    assert_int_equal(mkdir(j.folder, 0777), 0);
    snprintf(taken, sizeof(taken), "%s/model.safetensors", j.folder);
    threads_run(2, 2, commit_job, &j);
    assert_true(base_is_folder(taken));
    assert_true(j.fine);
}

static void running_out_of_memory_leaves_nothing(void **state)
{
    bench b;
    bench_open(&b, state);
    assert_int_equal(write_step(&b.l, b.run, 1, 1, 0, NULL), MARCO_OK);
    bool done = false;
    for (uint64_t n = 1; !done; n += n < 40 ? 1 : 37) {
        base_alloc_fail_at(n);
        marco_status status = write_step(&b.l, b.run, 2, 9, 0, NULL);
        base_alloc_fail_at(0);
        done = status == MARCO_OK;
        assert_true(done || status == MARCO_ERROR_MEMORY);
        assert_int_equal(scratch_count(b.run->checkpoints), done ? 2 : 1);
    }
    done = false;
    for (uint64_t n = 1; !done; n += n < 40 ? 1 : 37) {
        train_checkpoint *c = NULL;
        base_alloc_fail_at(n);
        marco_status status = train_checkpoint_last(b.comm, b.run, &notes, &c, NULL);
        if (!status)
            status = train_checkpoint_load(c, &b.l.ctx, b.l.optimizer, NULL);
        base_alloc_fail_at(0);
        train_checkpoint_free(c);
        done = status == MARCO_OK;
        assert_true(done || status == MARCO_ERROR_MEMORY);
    }
    assert_int_equal(last_step(b.comm, b.run), 2);
    assert_int_equal(scratch_count(b.run->checkpoints), 2);
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCRATCH_TEST(every_number_comes_back),
        SCRATCH_TEST(any_number_of_processes_writes_and_reads_the_same),
        cmocka_unit_test(masters_begin_with_what_weights_were_rounded_from),
        SCRATCH_TEST(a_checkpoint_is_a_model),
        SCRATCH_TEST(checkpoints_say_which_program_wrote_them),
        SCRATCH_TEST(old_checkpoints_go),
        SCRATCH_TEST(damaged_checkpoints_are_passed_over),
        SCRATCH_TEST(counters_have_bounds),
        SCRATCH_TEST(tensors_of_another_model_are_refused),
        SCRATCH_TEST(a_full_disk_leaves_the_one_before),
        SCRATCH_TEST(numbers_that_are_not_finite_are_not_kept),
        SCRATCH_TEST(all_hear_of_a_file_that_is_not_kept),
        SCRATCH_TEST(running_out_of_memory_leaves_nothing),
    };
    return cmocka_run_group_tests_name("checkpoints of training", tests, NULL, NULL);
}
