/* Files half downloaded: what is kept of them, whatever happened before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "hub/blob.h"
#include "hub/folder.h"
#include "scratch.h"

enum { SIZE = 2 * HUB_BLOCK + 1000 };

typedef struct fixture {
    scratch s;
    uint8_t *data; /* [SIZE] */
    uint8_t *buffer;
    char *model, *locks;
    hub_file file;
} fixture;

static fixture *make(void)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    assert_true(scratch_create(&f->s));
    f->data = malloc(SIZE);
    f->buffer = malloc(HUB_BLOCK);
    for (size_t i = 0; i < SIZE; i++)
        f->data[i] = (uint8_t)(i * 2654435761u >> 13);
    f->model = hub_path(f->s.folder, "model", NULL);
    f->locks = hub_path(f->s.folder, "locks", NULL);
    char *blobs = hub_path(f->model, "blobs", NULL);
    assert_int_equal(hub_folder_make(blobs, NULL), MARCO_OK);
    base_free(blobs);
    static char path[] = "sub/file.bin";
    f->file = (hub_file){.path = path, .size = SIZE};
    hub_hash *hash = NULL;
    hub_file large = {.size = SIZE, .sha256 = "x"};
    assert_int_equal(hub_hash_create(&large, &hash, NULL), MARCO_OK);
    assert_int_equal(hub_hash_add(hash, f->data, SIZE, NULL), MARCO_OK);
    hub_hash_finish(hash, f->file.sha256);
    hub_hash_free(hash);
    return f;
}

static void destroy(fixture *f)
{
    scratch_remove(&f->s);
    free(f->data);
    free(f->buffer);
    base_free(f->model);
    base_free(f->locks);
    free(f);
}

static void open_blob(const fixture *f, hub_blob *blob)
{
    bool busy = true;
    assert_int_equal(hub_blob_name(blob, &f->file, f->model, f->locks, NULL), MARCO_OK);
    assert_int_equal(hub_blob_open(blob, &busy, NULL), MARCO_OK);
    assert_false(busy);
}

/* Claims and writes until `until` bytes are there; returns the status. */
static marco_status fill(const fixture *f, hub_blob *blob, uint64_t until)
{
    uint64_t begin, end;
    while (blob->present < until && hub_blob_claim(blob, HUB_BLOCK, &begin, &end)) {
        /* In two pieces, as a network has them. */
        size_t half = (size_t)(end - begin) / 2;
        marco_status status = hub_blob_write(blob, begin, f->data + begin, half, NULL);
        if (!status)
            status = hub_blob_write(blob, begin + half, f->data + begin + half,
                                    (size_t)(end - begin) - half, NULL);
        if (status)
            return status;
    }
    return MARCO_OK;
}

static marco_status finish(const fixture *f, hub_blob *blob)
{
    bool worked = true;
    marco_status status = fill(f, blob, SIZE);
    while (!status && worked)
        status = hub_blob_hash(blob, f->buffer, &worked, NULL);
    if (!status)
        assert_true(hub_blob_is_complete(blob));
    return status ? status : hub_blob_commit(blob, NULL);
}

static void test_hashes(void **state)
{
    (void)state;
    static char path[] = "f";
    char found[HUB_HASH_MAX + 1];
    hub_file empty = {.path = path, .oid = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"};
    hub_file hello = {.path = path, .size = 6, .oid = "ce013625030ba8dba906f756967f9e9ca394464a"};
    hub_hash *hash = NULL;
    assert_int_equal(hub_hash_create(&empty, &hash, NULL), MARCO_OK);
    hub_hash_finish(hash, found);
    hub_hash_free(hash);
    assert_string_equal(found, empty.oid); /* git hash-object of nothing */
    assert_int_equal(hub_hash_create(&hello, &hash, NULL), MARCO_OK);
    assert_int_equal(hub_hash_add(hash, "hello\n", 6, NULL), MARCO_OK);
    hub_hash_finish(hash, found);
    hub_hash_free(hash);
    assert_string_equal(found, hello.oid);
}

static void test_resume(void **state)
{
    (void)state;
    fixture *f = make();
    hub_blob blob;
    open_blob(f, &blob);
    assert_int_equal(fill(f, &blob, 1), MARCO_OK);
    /* What is not recorded is not there for others; what is, is. */
    assert_int_equal(hub_blob_kept(&blob), 0);
    assert_int_equal(hub_blob_keep(&blob, NULL), MARCO_OK);
    assert_int_equal(hub_blob_kept(&blob), HUB_BLOCK);
    uint64_t begin, end;
    assert_true(hub_blob_claim(&blob, UINT64_MAX, &begin, &end));
    assert_int_equal(begin, HUB_BLOCK);
    assert_int_equal(end, SIZE);
    uint64_t again;
    assert_false(hub_blob_claim(&blob, UINT64_MAX, &again, &again));
    assert_int_equal(hub_blob_write(&blob, begin, f->data + begin, 100, NULL), MARCO_OK);
    hub_blob_unclaim(&blob, begin + 100, end);
    hub_blob_free(&blob);
    open_blob(f, &blob);
    assert_int_equal(blob.present, HUB_BLOCK);
    assert_int_equal(finish(f, &blob), MARCO_OK);
    assert_true(hub_blob_is_there(&blob));
    assert_false(base_exists(blob.part) || base_exists(blob.record));
    hub_blob_free(&blob);
    open_blob(f, &blob); /* there is nothing to do any more */
    assert_int_equal(blob.fd, -1);
    hub_blob_free(&blob);
    destroy(f);
}

/* Records that are of something else, damaged, or say too much. */
static void test_records(void **state)
{
    (void)state;
    for (int damage = 0; damage < 4; damage++) {
        fixture *f = make();
        hub_blob blob;
        char *text = NULL;
        size_t size = 0;
        open_blob(f, &blob);
        assert_int_equal(fill(f, &blob, HUB_BLOCK + 1), MARCO_OK);
        hub_blob_close(&blob);
        assert_int_equal(hub_blob_kept(&blob), 2 * HUB_BLOCK);
        assert_int_equal(base_file_slurp(blob.record, 1000, &text, &size, NULL), MARCO_OK);
        if (damage == 0)
            text[20] ^= 1; /* another hash */
        if (damage == 1)
            memset(text + size - 3, '1', 3); /* a block that the part does not reach */
        size_t length = damage == 2 ? 60 : size;
        assert_int_equal(hub_file_put(blob.record, text, length, NULL), MARCO_OK);
        if (damage == 3)
            assert_int_equal(truncate(blob.part, 10), 0);
        assert_int_equal(hub_blob_kept(&blob), damage == 1 ? 2 * HUB_BLOCK : 0);
        base_free(text);
        hub_blob_free(&blob);
        open_blob(f, &blob);
        assert_int_equal(finish(f, &blob), MARCO_OK);
        hub_blob_free(&blob);
        destroy(f);
    }
}

static void test_wrong_hash(void **state)
{
    (void)state;
    fixture *f = make();
    hub_blob blob;
    open_blob(f, &blob);
    f->data[SIZE - 1] ^= 1;
    assert_int_equal(finish(f, &blob), MARCO_ERROR_FORMAT);
    assert_false(base_exists(blob.path) || base_exists(blob.part) || base_exists(blob.record));
    hub_blob_free(&blob);
    destroy(f);
}

/* A server that ignores ranges: other bytes came before, and none of them must remain or be hashed.
 */
static void test_restart(void **state)
{
    (void)state;
    fixture *f = make();
    hub_blob blob;
    bool worked;
    uint64_t begin, end;
    open_blob(f, &blob);
    f->data[7] ^= 1;
    assert_int_equal(fill(f, &blob, 1), MARCO_OK);
    assert_int_equal(hub_blob_hash(&blob, f->buffer, &worked, NULL), MARCO_OK);
    assert_true(worked);
    f->data[7] ^= 1;
    assert_int_equal(hub_blob_restart(&blob, NULL), MARCO_OK);
    assert_true(hub_blob_claim(&blob, 1, &begin, &end));
    assert_int_equal(begin, 0);
    assert_int_equal(end, SIZE);
    assert_int_equal(hub_blob_write(&blob, 0, f->data, SIZE, NULL), MARCO_OK);
    assert_int_equal(finish(f, &blob), MARCO_OK);
    hub_blob_free(&blob);
    destroy(f);
}

/* A FIFO, a link or a folder in the place of a half download: told, and never waited for. */
static void test_no_plain_file(void **state)
{
    (void)state;
    for (int kind = 0; kind < 6; kind++) {
        fixture *f = make();
        hub_blob blob;
        marco_error error = {0};
        bool busy = false;
        assert_int_equal(hub_blob_name(&blob, &f->file, f->model, f->locks, NULL), MARCO_OK);
        const char *path = kind % 2 ? blob.record : blob.part;
        int made = kind < 2   ? mkfifo(path, 0600)
                   : kind < 4 ? symlink("/dev/zero", path)
                              : mkdir(path, 0700);
        assert_int_equal(made, 0);
        /* Both are there, so that both are opened. */
        if (kind % 2)
            assert_int_equal(hub_file_put(blob.part, "x", 1, NULL), MARCO_OK);
        alarm(20);
        assert_int_equal(hub_blob_kept(&blob), 0);
        assert_int_equal(hub_blob_open(&blob, &busy, &error), MARCO_ERROR_IO);
        alarm(0);
        assert_non_null(strstr(error.message, path));
        assert_non_null(strstr(error.message, "no plain file"));
        assert_int_equal(blob.fd, -1);
        hub_blob_free(&blob);
        destroy(f);
    }
}

static void test_lock(void **state)
{
    (void)state;
    fixture *f = make();
    hub_blob blob, other;
    bool busy = false;
    open_blob(f, &blob);
    assert_int_equal(hub_blob_name(&other, &f->file, f->model, f->locks, NULL), MARCO_OK);
    assert_int_equal(hub_blob_open(&other, &busy, NULL), MARCO_OK);
    assert_true(busy);
    assert_int_equal(finish(f, &blob), MARCO_OK);
    hub_blob_free(&blob);
    assert_int_equal(hub_blob_open(&other, &busy, NULL), MARCO_OK);
    assert_false(busy);
    assert_true(hub_blob_is_there(&other));
    hub_blob_free(&other);
    destroy(f);
}

static void test_memory(void **state)
{
    (void)state;
    fixture *f = make();
    marco_status status = MARCO_ERROR_MEMORY;
    for (uint64_t at = 1; at < 100 && status; at++) {
        hub_blob blob = {.fd = -1, .record_fd = -1, .lock_fd = -1};
        bool busy = false;
        base_alloc_fail_at(at);
        status = hub_blob_name(&blob, &f->file, f->model, f->locks, NULL);
        if (!status)
            status = hub_blob_open(&blob, &busy, NULL);
        base_alloc_fail_at(0);
        if (!status)
            assert_int_equal(finish(f, &blob), MARCO_OK);
        hub_blob_free(&blob);
    }
    assert_int_equal(status, MARCO_OK);
    destroy(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hashes),  cmocka_unit_test(test_resume),
        cmocka_unit_test(test_records), cmocka_unit_test(test_wrong_hash),
        cmocka_unit_test(test_restart), cmocka_unit_test(test_lock),
        cmocka_unit_test(test_memory),  cmocka_unit_test(test_no_plain_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
