/* The cache of experts against a plain model of it, over a reader that can be slow or fail. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "model/expert_cache.h"
#include "sanitized.h"

/* Rows that do not fill their last panel, and matrices of more than one piece. */
enum {
    LAYERS = 3,
    EXPERTS = 10,
    ROWS = 1100,
    COLS = 1024,
    DOWN_ROWS = 20,
    KEYS = LAYERS * EXPERTS
};

typedef struct fake {
    model_weights weights;
    model_layer layers[LAYERS];
    const uint8_t *at[LAYERS][3][EXPERTS];
    pthread_mutex_t lock;
    pthread_cond_t moved;
    bool blocked;   /* reads wait while it is set */
    int64_t broken; /* key of the expert that cannot be read; -1: none */
    int64_t reads[KEYS];
} fake;

static model_matrix *matrix_of(fake *f, int layer, int part)
{
    model_layer *l = &f->layers[layer];
    return part == 0 ? &l->expert_gate : part == 1 ? &l->expert_up : &l->expert_down;
}

/* Byte `at` of a matrix: all matrices differ. */
static uint8_t byte_of(int64_t layer, int part, int64_t expert, uint64_t at)
{
    uint64_t key = (uint64_t)((layer * 3 + part) * EXPERTS + expert);
    return (uint8_t)(base_random_mix(key * BASE_RANDOM_STEP + at / 8) >> at % 8 * 8);
}

static marco_status read_fake(void *user, const model_matrix *m, int64_t mat, uint64_t from,
                              void *buffer, size_t size, const uint8_t **data, marco_error *error)
{
    fake *f = user;
    int layer = 0, part = 0;
    for (int i = 0; i < LAYERS * 3; i++)
        if (matrix_of(f, i / 3, i % 3) == m) {
            layer = i / 3;
            part = i % 3;
        }
    int64_t key = layer * EXPERTS + mat;
    pthread_mutex_lock(&f->lock);
    while (f->blocked)
        pthread_cond_wait(&f->moved, &f->lock);
    f->reads[key]++;
    bool broken = f->broken == key;
    pthread_mutex_unlock(&f->lock);
    if (broken)
        return base_fail(error, MARCO_ERROR_IO, "expert %lld is broken", (long long)mat);
    uint8_t *to = (uint8_t *)buffer + 32; /* as a read from an aligned place leaves it */
    for (size_t i = 0; i < size; i++)
        to[i] = byte_of(layer, part, mat, from + i);
    *data = to;
    return MARCO_OK;
}

static fake *fake_create(void)
{
    fake *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->weights.config.n_layers = LAYERS;
    f->weights.config.n_experts = EXPERTS;
    f->weights.layers = f->layers;
    f->broken = -1;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->moved, NULL);
    for (int i = 0; i < LAYERS * 3; i++) {
        bool down = i % 3 == 2;
        model_matrix *m = matrix_of(f, i / 3, i % 3);
        *m = (model_matrix){.type = down ? TENSOR_F16 : TENSOR_Q8_0, .mats = EXPERTS};
        m->rows = down ? DOWN_ROWS : ROWS + i; /* layers differ */
        m->cols = COLS;
        m->row_bytes = tensor_row_bytes(m->type, m->cols);
        m->panels = !down;
        m->at = f->at[i / 3][i % 3];
    }
    return f;
}

static void fake_free(fake *f)
{
    for (int i = 0; i < KEYS * 3; i++) /* the cache points at nothing of its own when it is gone */
        assert_null(f->at[i / (3 * EXPERTS)][i / EXPERTS % 3][i % EXPERTS]);
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->moved);
    free(f);
}

static void block(fake *f, bool blocked)
{
    pthread_mutex_lock(&f->lock);
    f->blocked = blocked;
    pthread_cond_broadcast(&f->moved);
    pthread_mutex_unlock(&f->lock);
}

static model_cache *cache_create(fake *f, int64_t slots)
{
    model_cache *cache = NULL;
    marco_error error = {0};
    if (model_cache_create(&f->weights, slots, read_fake, f, &cache, &error))
        fail_msg("%s", error.message);
    return cache;
}

/* First, last and some rows between, through the layout that kernels see. */
static void assert_whole(fake *f, int layer, int64_t expert)
{
    uint8_t row[4 * COLS];
    for (int part = 0; part < 3; part++) {
        const model_matrix *m = matrix_of(f, layer, part);
        assert_non_null(m->at[expert]);
        assert_int_equal((uintptr_t)m->at[expert] % 64, 0);
        for (int64_t r = 0; r < m->rows; r += r < m->rows - 9 ? 97 : 1) {
            model_matrix_get_row(m, expert, r, row);
            for (size_t i = 0; i < m->row_bytes; i += 31)
                if (row[i] != byte_of(layer, part, expert, (uint64_t)r * m->row_bytes + i))
                    fail_msg("layer %d, expert %d, part %d, row %d is another's", layer,
                             (int)expert, part, (int)r);
        }
    }
}

/* Runs a step to its end; checks that each expert is handed out whole, once. */
static marco_status step(fake *f, model_cache *cache, int layer, const int32_t *experts, int64_t n,
                         marco_error *error)
{
    bool seen[EXPERTS] = {false};
    const int32_t *group;
    int64_t count, total = 0;
    marco_status status;
    model_cache_begin(cache, layer, experts, n);
    while (!(status = model_cache_next(cache, &group, &count, error)) && count > 0)
        for (int64_t i = 0; i < count; i++, total++) {
            assert_false(seen[group[i]]);
            seen[group[i]] = true;
            assert_whole(f, layer, group[i]);
        }
    for (int64_t i = 0; !status && i < n; i++)
        assert_true(seen[experts[i]]);
    if (!status)
        assert_int_equal(total, n);
    return status;
}

/* n distinct experts in ascending order. */
static int64_t draw(uint64_t seed, int32_t *experts)
{
    int64_t n = 0, most = 1 + (int64_t)base_random_below(3, seed, 0, EXPERTS);
    for (int32_t e = 0; e < EXPERTS; e++)
        if (base_random_below(3, seed, 1 + (uint64_t)e, EXPERTS) < (uint64_t)most)
            experts[n++] = e;
    if (n == 0)
        experts[n++] = 0;
    return n;
}

/* ---- the rule, plainly ----------------------------------------------------------------------- */

typedef struct plain {
    int64_t key[KEYS], slots, used; /* most recently used last */
    uint64_t hits, misses;
} plain;

static bool plain_use(plain *p, int64_t key)
{
    for (int64_t i = 0; i < p->used; i++)
        if (p->key[i] == key) {
            memmove(p->key + i, p->key + i + 1, (size_t)(p->used - i - 1) * sizeof *p->key);
            p->key[p->used - 1] = key;
            return true;
        }
    return false;
}

static void plain_step(plain *p, int layer, const int32_t *experts, int64_t n)
{
    bool hit[EXPERTS];
    for (int64_t i = 0; i < n; i++)
        p->hits += hit[i] = plain_use(p, layer * EXPERTS + experts[i]);
    for (int64_t i = 0; i < n; i++) {
        if (hit[i])
            continue;
        p->misses++;
        if (p->used == p->slots)
            memmove(p->key, p->key + 1, (size_t)--p->used * sizeof *p->key);
        p->key[p->used++] = layer * EXPERTS + experts[i];
    }
}

static void test_least_recently_used(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 2, 4, 9, 16, KEYS};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        fake *f = fake_create();
        model_cache *cache = cache_create(f, sizes[s]);
        plain p = {.slots = sizes[s]};
        int64_t reads = 0;
        for (uint64_t i = 0; i < 24; i++) {
            int32_t experts[EXPERTS];
            int64_t n = draw(i, experts);
            assert_int_equal(step(f, cache, (int)(i % LAYERS), experts, n, NULL), MARCO_OK);
            plain_step(&p, (int)(i % LAYERS), experts, n);
        }
        model_cache_stats stats;
        model_cache_stats_get(cache, &stats);
        assert_int_equal(stats.hits, p.hits);
        assert_int_equal(stats.misses, p.misses);
        assert_int_equal(stats.slots, sizes[s]);
        for (int i = 0; i < KEYS; i++)
            reads += f->reads[i];
        /* Gate and up are two pieces each, down one. */
        assert_int_equal(reads, (int64_t)p.misses * 5);
        model_cache_free(cache);
        fake_free(f);
    }
}

/* Pieces of this process's memory that are to have no huge pages. */
static int without_huge_pages(void)
{
    FILE *maps = fopen("/proc/self/smaps", "r");
    char line[1024];
    int n = 0;
    while (maps && fgets(line, sizeof line, maps))
        n += strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " nh") != NULL;
    if (maps)
        fclose(maps);
    return n;
}

static void test_limit(void **state)
{
    (void)state;
    static const int64_t limits[] = {12, 3, 1, 7, 12, 0, 99};
    fake *f = fake_create();
    model_cache *cache = cache_create(f, 12);
    int before = without_huge_pages();
    if (SANITIZED)
        print_message("huge pages are not looked at under the address sanitizer, which maps memory "
                      "of its own\n");
    for (uint64_t i = 0; i < 28; i++) {
        int32_t experts[EXPERTS];
        int64_t n = draw(i, experts), limit = limits[i / 4];
        model_cache_stats stats;
        model_cache_limit(cache, limit);
        model_cache_stats_get(cache, &stats);
        assert_int_equal(stats.slots, limit < 1 ? 1 : limit > 12 ? 12 : limit);
        if (stats.slots == 12 && !SANITIZED) /* slots taken back are as they were */
            assert_int_equal(without_huge_pages(), before);
        assert_int_equal(step(f, cache, (int)(i % LAYERS), experts, n, NULL), MARCO_OK);
    }
    model_cache_free(cache);
    fake_free(f);
}

/* What is there is handed out while the rest is read. */
static void test_hits_do_not_wait(void **state)
{
    (void)state;
    fake *f = fake_create();
    model_cache *cache = cache_create(f, 6);
    const int32_t first[] = {2, 4}, both[] = {1, 2, 4, 7};
    const int32_t *group;
    int64_t n;
    assert_int_equal(step(f, cache, 0, first, 2, NULL), MARCO_OK);
    block(f, true);
    model_cache_begin(cache, 0, both, 4);
    assert_int_equal(model_cache_next(cache, &group, &n, NULL), MARCO_OK);
    assert_int_equal(n, 2);
    assert_int_equal(group[0], 2);
    assert_int_equal(group[1], 4);
    assert_whole(f, 0, 2);
    block(f, false);
    for (int64_t left = 2; left > 0; left -= n) {
        assert_int_equal(model_cache_next(cache, &group, &n, NULL), MARCO_OK);
        assert_in_range(n, 1, left);
    }
    assert_int_equal(model_cache_next(cache, &group, &n, NULL), MARCO_OK);
    assert_int_equal(n, 0);
    model_cache_free(cache);
    fake_free(f);
}

static void test_broken(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 3, 20};
    const int32_t all[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        fake *f = fake_create();
        model_cache *cache = cache_create(f, sizes[s]);
        marco_error error = {0};
        assert_int_equal(step(f, cache, 1, all, 10, NULL), MARCO_OK);
        f->broken = 5; /* of layer 0 */
        for (int i = 0; i < 3; i++) {
            assert_int_equal(step(f, cache, 0, all, 10, &error), MARCO_ERROR_IO);
            assert_string_equal(error.message, "expert 5 is broken");
            assert_int_equal(step(f, cache, 1, all, 10, &error), MARCO_OK);
            assert_int_equal(step(f, cache, 0, all, 5, &error), MARCO_OK);
            assert_null(f->layers[0].expert_gate.at[5]);
        }
        f->broken = -1;
        assert_int_equal(step(f, cache, 0, all, 10, &error), MARCO_OK);
        model_cache_free(cache);
        fake_free(f);
    }
}

/* Layer 0 becomes a dense one: it has no expert to point at. */
static void make_dense(fake *f)
{
    for (int part = 0; part < 3; part++)
        *matrix_of(f, 0, part) = (model_matrix){0};
}

static void test_dense_layer(void **state)
{
    (void)state;
    fake *f = fake_create();
    make_dense(f);
    model_cache *cache = cache_create(f, 4);
    for (uint64_t i = 0; i < 8; i++) {
        int32_t experts[EXPERTS];
        int64_t n = draw(i, experts);
        assert_int_equal(step(f, cache, 1 + (int)(i % 2), experts, n, NULL), MARCO_OK);
    }
    model_cache_free(cache);
    fake_free(f);
}

static void test_short_of_memory(void **state)
{
    (void)state;
    fake *f = fake_create();
    make_dense(f);
    uint64_t n = 1;
    for (;; n++) {
        model_cache *cache = NULL;
        marco_error error = {0};
        base_alloc_fail_at(n);
        marco_status status = model_cache_create(&f->weights, 4, read_fake, f, &cache, &error);
        base_alloc_fail_at(0);
        if (status == MARCO_OK) {
            model_cache_free(cache);
            break;
        }
        assert_int_equal(status, MARCO_ERROR_MEMORY);
        assert_null(cache);
    }
    assert_in_range(n, 4, 20);
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_least_recently_used), cmocka_unit_test(test_limit),
        cmocka_unit_test(test_hits_do_not_wait),    cmocka_unit_test(test_broken),
        cmocka_unit_test(test_dense_layer),         cmocka_unit_test(test_short_of_memory),
    };
    return cmocka_run_group_tests_name("expert_cache", tests, NULL, NULL);
}
