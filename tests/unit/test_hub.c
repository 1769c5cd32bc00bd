/* The hub's names and lists, and the cache: finding, listing, removing, and files half downloaded.
 * What needs a server is in tests/cli/test_pull.sh. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "hub/cache.h"
#include "hub/folder.h"
#include "hub/listing.h"
#include "marco/hub.h"
#include "scratch.h"

#define COMMIT "0123456789abcdef0123456789abcdef01234567"
#define OTHER  "89abcdef0123456789abcdef0123456789abcdef"
#define SHA1   "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"

/* ---- names ---------------------------------------------------------------------------------- */

static void test_names(void **state)
{
    (void)state;
    static const char *const good[] = {"a/b",      "gpt2",          "Org-1/Name_2.5",
                                       "a/b@v1.0", "a/b@refs/pr/3", ("a/b@" COMMIT)};
    static const char *const bad[] = {
        "",       "/b",     "a/",     "a/b/c", "a//b",     "../b",   "a/..",   ".a/b",
        "a/b.",   "a--b/c", "a/b-",   "a b/c", "a/b@",     "a/b@-x", "a/b@..", "a/b@a/../b",
        "a/b@/x", "a/b@x/", "a/b@.x", "a\n/b", "a/b@x\ny", "a\\b/c"};
    hub_name name;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_int_equal(hub_name_parse(good[i], &name, NULL), MARCO_OK);
    assert_string_equal(name.model, "a/b");
    assert_string_equal(name.revision, COMMIT);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (hub_name_parse(bad[i], &name, NULL) != MARCO_ERROR_ARGUMENT)
            fail_msg("'%s' was taken for a name", bad[i]);
    char longest[HUB_MODEL_MAX + 2], folder[HUB_MODEL_MAX + 16], back[HUB_MODEL_MAX + 1];
    memset(longest, 'x', sizeof longest);
    longest[HUB_MODEL_MAX + 1] = '\0';
    assert_int_equal(hub_name_parse(longest, &name, NULL), MARCO_ERROR_ARGUMENT);
    longest[HUB_MODEL_MAX] = '\0';
    longest[4] = '/';
    assert_int_equal(hub_name_parse(longest, &name, NULL), MARCO_OK);
    hub_name_folder(name.model, folder);
    assert_true(hub_name_of_folder(folder, back));
    assert_string_equal(back, longest);
    assert_false(hub_name_of_folder("datasets--a--b", back));
    assert_false(hub_name_of_folder("models--a--b--c", back));
    assert_false(hub_name_of_folder("models--..--b", back));
}

static void test_files(void **state)
{
    (void)state;
    static const char *const good[] = {"a",
                                       "a/b.c",
                                       ".gitattributes",
                                       "..a",
                                       "a b",
                                       ("Gr\xc3\xb6\xc3\x9f"
                                        "e")};
    static const char *const bad[] = {"",
                                      "/a",
                                      "a/",
                                      "a//b",
                                      ".",
                                      "..",
                                      "../a",
                                      "a/..",
                                      "a/./b",
                                      "a\\b",
                                      "a\nb",
                                      "a\x1b[2J",
                                      "a\x7f",
                                      "\xff",
                                      ("\xc2\x9b"
                                       "1m")};
    char longer[300];
    memset(longer, 'x', sizeof longer);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(hub_file_is_valid(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (hub_file_is_valid(bad[i], strlen(bad[i])))
            fail_msg("bad name %zu was taken", i);
    assert_false(hub_file_is_valid("a\0b", 3));
    assert_false(hub_file_is_valid(longer, 256));
    assert_true(hub_file_is_valid(longer, 255));
    assert_string_equal(hub_blob_of_link("../../blobs/x"), "x");
    assert_string_equal(hub_blob_of_link("../../../blobs/x"), "x");
    static const char *const links[] = {
        "blobs/x",       "/blobs/x", "../../blobs/../x", "../../blobs/..", "../../blobs/",
        "../../other/x", "x"};
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++)
        assert_null(hub_blob_of_link(links[i]));
}

/* ---- places --------------------------------------------------------------------------------- */

static void clear_environment(const scratch *s)
{
    static const char *const names[] = {"HF_HOME",       "HF_HUB_CACHE",   "HUGGINGFACE_HUB_CACHE",
                                        "HF_ENDPOINT",   "HF_TOKEN",       "HUGGING_FACE_HUB_TOKEN",
                                        "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE",
                                        "XDG_CACHE_HOME"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unsetenv(names[i]);
    setenv("HOME", s->folder, 1);
}

static void check_place(const char *cache, const char *endpoint, const char *token)
{
    hub_place place;
    marco_error error = {0};
    if (hub_place_find(NULL, true, &place, &error) != MARCO_OK)
        fail_msg("%s", error.message);
    assert_string_equal(place.cache, cache);
    assert_string_equal(place.endpoint, endpoint);
    if (token)
        assert_string_equal(place.token, token);
    else
        assert_null(place.token);
    hub_place_free(&place);
}

static void test_place(void **state)
{
    scratch *s = *state;
    char expected[512];
    const char *hub = "https://huggingface.co";
    clear_environment(s);
    snprintf(expected, sizeof expected, "%s/.cache/huggingface/hub", s->folder);
    check_place(expected, hub, NULL);
    setenv("XDG_CACHE_HOME", "/xdg", 1);
    check_place("/xdg/huggingface/hub", hub, NULL);
    setenv("HF_HOME", "$XDG_CACHE_HOME/${NOT_SET}/h", 1);
    check_place("/xdg/${NOT_SET}/h/hub", hub, NULL);
    setenv("HF_HUB_CACHE", "~/c", 1);
    setenv("HF_ENDPOINT", "http://mirror:8080/hf//", 1);
    setenv("HF_TOKEN", " hf_x\n", 1);
    snprintf(expected, sizeof expected, "%s/c", s->folder);
    check_place(expected, "http://mirror:8080/hf", "hf_x");
    unsetenv("HF_TOKEN");
    setenv("HF_TOKEN_PATH", "~/token", 1);
    assert_int_equal(hub_file_put(scratch_path(s, "token"), "hf_file\n", 8, NULL), MARCO_OK);
    check_place(expected, "http://mirror:8080/hf", "hf_file");
    setenv("HF_TOKEN", "a b", 1);
    hub_place place;
    assert_int_equal(hub_place_find(NULL, true, &place, NULL), MARCO_ERROR_ARGUMENT);
    hub_place_free(&place);
    assert_int_equal(hub_place_find(NULL, false, &place, NULL), MARCO_OK);
    hub_place_free(&place);
    setenv("HF_HUB_OFFLINE", "true", 1);
    assert_true(hub_is_offline());
    setenv("HF_HUB_OFFLINE", "0", 1);
    assert_false(hub_is_offline());
    clear_environment(s);
}

/* ---- a cache -------------------------------------------------------------------------------- */

static const marco_hub_params *params_of(const scratch *s)
{
    static marco_hub_params params;
    params = (marco_hub_params){.cache = scratch_path(s, "cache")};
    return &params;
}

static void put(const scratch *s, const char *path, const char *text)
{
    char *whole = hub_path(s->folder, "cache/models--o--m", path, NULL);
    assert_int_equal(hub_file_put(whole, text, strlen(text), NULL), MARCO_OK);
    base_free(whole);
}

static void put_link(const scratch *s, const char *path, const char *target)
{
    char *whole = hub_path(s->folder, "cache/models--o--m", path, NULL);
    assert_int_equal(hub_folder_make_for(whole, NULL), MARCO_OK);
    assert_int_equal(symlink(target, whole), 0);
    base_free(whole);
}

static bool has(const scratch *s, const char *path)
{
    char *whole = hub_path(s->folder, "cache/models--o--m", path, NULL);
    bool there = base_exists(whole);
    base_free(whole);
    return there;
}

/* Two commits that share the blob aa; bb is the first's, cc the second's. */
static void make_cache(const scratch *s)
{
    put(s, "blobs/aa", "12345");
    put(s, "blobs/bb", "123");
    put(s, "blobs/cc", "1");
    put(s, "refs/main", COMMIT);
    put(s, "refs/v1", COMMIT);
    put(s, "refs/v2", OTHER);
    put_link(s, "snapshots/" COMMIT "/config.json", "../../blobs/aa");
    put_link(s, "snapshots/" COMMIT "/sub/model.safetensors", "../../../blobs/bb");
    put_link(s, "snapshots/" OTHER "/a", "../../blobs/aa");
    put_link(s, "snapshots/" OTHER "/b.gguf", "../../blobs/cc");
    put(s, "trees/" OTHER ".json",
        "{\"format_version\": 1, \"files\": {\"a\": {\"size\": 5, \"blob_id\": \"" SHA1 "\"}, "
        "\"b.gguf\": {\"size\": 1, \"blob_id\": \"" SHA1 "\"}, "
        "\"c\": {\"size\": 1, \"blob_id\": \"" SHA1 "\"}}}");
}

static void remove_cache(const scratch *s)
{
    uint64_t freed = 0;
    assert_int_equal(hub_folder_remove(scratch_path(s, "cache"), &freed, NULL), MARCO_OK);
}

static void test_list(void **state)
{
    scratch *s = *state;
    marco_hub_entry *entries = NULL;
    size_t n = 7;
    assert_int_equal(marco_hub_list(params_of(s), &entries, &n, NULL), MARCO_OK);
    assert_int_equal(n, 0);
    marco_hub_list_free(entries, n);
    make_cache(s);
    assert_int_equal(marco_hub_list(params_of(s), &entries, &n, NULL), MARCO_OK);
    assert_int_equal(n, 2);
    assert_string_equal(entries[0].name, "o/m");
    assert_string_equal(entries[0].revision, "main");
    assert_string_equal(entries[0].commit, COMMIT);
    assert_int_equal(entries[0].bytes, 8);
    assert_true(entries[0].whole); /* nothing says otherwise */
    assert_int_equal(entries[0].of, 0);
    assert_string_equal(entries[1].revision, "v2");
    assert_int_equal(entries[1].bytes, 6);
    assert_int_equal(entries[1].files, 2);
    assert_int_equal(entries[1].of, 3);
    assert_false(entries[1].whole);
    marco_hub_list_free(entries, n);
    char *blob = hub_path(s->folder, "cache/models--o--m/blobs/bb", NULL);
    unlink(blob);
    base_free(blob);
    assert_int_equal(marco_hub_list(params_of(s), &entries, &n, NULL), MARCO_OK);
    assert_false(entries[0].whole); /* a link that leads nowhere */
    marco_hub_list_free(entries, n);
    remove_cache(s);
}

static void check_find(const scratch *s, const char *name, const char *end)
{
    char *path = NULL;
    marco_error error = {0};
    if (marco_hub_find(name, params_of(s), &path, &error) != MARCO_OK)
        fail_msg("%s", error.message);
    assert_true(base_has_suffix(path, end));
    marco_free(path);
}

static void test_find(void **state)
{
    scratch *s = *state;
    char *path = NULL;
    marco_error error = {0};
    make_cache(s);
    check_find(s, "o/m", "/snapshots/" COMMIT);
    check_find(s, "o/m@v1", "/snapshots/" COMMIT);
    check_find(s, "o/m@" OTHER, "/snapshots/" OTHER "/b.gguf");
    check_find(s, s->folder, s->folder);
    static const char *const absent[] = {"o/other", "o/m@v3", ("o/m@" SHA1)};
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
        assert_int_equal(marco_hub_find(absent[i], params_of(s), &path, &error),
                         MARCO_ERROR_NOT_FOUND);
        assert_non_null(strstr(error.message, "marco pull"));
        assert_non_null(strstr(error.message, absent[i]));
    }
    put(s, "refs/odd", "../../../etc");
    assert_int_equal(marco_hub_find("o/m@odd", params_of(s), &path, &error), MARCO_ERROR_FORMAT);
    put_link(s, "snapshots/" OTHER "/c.gguf", "../../blobs/aa");
    assert_int_equal(marco_hub_find("o/m@v2", params_of(s), &path, &error), MARCO_ERROR_ARGUMENT);
    remove_cache(s);
}

static void test_remove(void **state)
{
    scratch *s = *state;
    uint64_t freed = 0;
    make_cache(s);
    put_link(s, "snapshots/" COMMIT "/outside", "../../../../kept");
    put_link(s, "snapshots/" COMMIT "/up", "../../blobs/../../../kept");
    assert_int_equal(hub_file_put(scratch_path(s, "kept"), "x", 1, NULL), MARCO_OK);
    assert_int_equal(marco_hub_remove("o/m@v1", params_of(s), &freed, NULL), MARCO_OK);
    assert_int_equal(freed, 3);
    assert_true(has(s, "blobs/aa") && has(s, "blobs/cc") && !has(s, "blobs/bb"));
    assert_true(has(s, "refs/v2") && !has(s, "refs/v1") && !has(s, "refs/main"));
    assert_true(has(s, "snapshots/" OTHER) && !has(s, "snapshots/" COMMIT));
    assert_int_equal(marco_hub_remove("o/m@v1", params_of(s), &freed, NULL), MARCO_ERROR_NOT_FOUND);
    /* Somebody downloads. */
    char *lock = hub_path(s->folder, "cache/.locks/models--o--m/aa.lock", NULL);
    assert_int_equal(hub_file_put(lock, "", 0, NULL), MARCO_OK);
    int fd = open(lock, O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(marco_hub_remove("o/m", params_of(s), &freed, NULL), MARCO_ERROR_BUSY);
    assert_true(has(s, "blobs/aa"));
    close(fd);
    base_free(lock);
    /* The last revision takes the model with it. */
    assert_int_equal(marco_hub_remove("o/m@v2", params_of(s), &freed, NULL), MARCO_OK);
    assert_false(has(s, ""));
    assert_true(base_exists(scratch_path(s, "kept")));
    remove_cache(s);
}

/* A path of so many parts, all "d"; `size` is of `out`. */
static const char *deep_path(char *out, size_t size, size_t parts)
{
    assert_true(2 * parts <= size);
    for (size_t i = 0; i < parts; i++)
        memcpy(out + 2 * i, "d/", 2);
    out[2 * parts - 1] = '\0';
    return out;
}

static void test_depth(void **state)
{
    scratch *s = *state;
    char deep[2 * HUB_PARTS_MOST + 2], path[512];
    uint64_t freed = 0;
    deep_path(deep, sizeof deep, HUB_PARTS_MOST + 1);
    assert_false(hub_file_is_valid(deep, strlen(deep)));
    assert_false(hub_revision_is_valid(deep));
    deep_path(deep, sizeof deep, HUB_PARTS_MOST);
    assert_true(hub_file_is_valid(deep, strlen(deep)));
    assert_true(hub_revision_is_valid(deep));
    /* The deepest that may be downloaded is found, listed and removed. */
    make_cache(s);
    snprintf(path, sizeof path, "snapshots/" SHA1 "/%s", deep);
    put(s, path, "1");
    snprintf(path, sizeof path, "refs/%s", deep);
    put(s, path, SHA1);
    snprintf(path, sizeof path, "o/m@%s", deep);
    check_find(s, path, "/snapshots/" SHA1);
    marco_hub_entry *entries = NULL;
    size_t n = 0;
    assert_int_equal(marco_hub_list(params_of(s), &entries, &n, NULL), MARCO_OK);
    assert_int_equal(n, 3);
    assert_string_equal(entries[0].revision, deep);
    assert_true(entries[0].whole);
    marco_hub_list_free(entries, n);
    assert_int_equal(marco_hub_remove(path, params_of(s), &freed, NULL), MARCO_OK);
    assert_false(has(s, "snapshots/" SHA1));
    assert_int_equal(marco_hub_remove("o/m", params_of(s), &freed, NULL), MARCO_OK);
    remove_cache(s);
}

/* A snapshot that cannot be read might use any of the blobs. */
static void test_unreadable(void **state)
{
    scratch *s = *state;
    char deep[256], path[512];
    uint64_t freed = 0;
    marco_error error = {0};
    marco_hub_entry *entries = NULL;
    size_t n = 0;
    make_cache(s);
    put(s, "snapshots/.DS_Store", "a desktop's, no snapshot");
    put(s, "snapshots/" SHA1, "no folder");
    assert_int_equal(marco_hub_list(params_of(s), &entries, &n, NULL), MARCO_OK);
    assert_int_equal(n, 3);
    for (size_t i = 0; i < n; i++)
        if (strcmp(entries[i].commit, SHA1) == 0)
            assert_true(!entries[i].whole && entries[i].files == 0);
    marco_hub_list_free(entries, n);
    assert_int_equal(marco_hub_remove("o/m@" SHA1, params_of(s), &freed, &error), MARCO_ERROR_IO);
    assert_non_null(strstr(error.message, SHA1));
    /* Too deep to be read, for the administrator too. */
    char *tree = hub_path(s->folder, "cache/models--o--m/trees/" OTHER ".json", NULL);
    assert_int_equal(unlink(tree), 0);
    base_free(tree);
    snprintf(path, sizeof path, "snapshots/" OTHER "/%s", deep_path(deep, sizeof deep, 100));
    put_link(s, path, "../../blobs/bb");
    assert_int_equal(marco_hub_remove("o/m@v1", params_of(s), &freed, &error), MARCO_ERROR_IO);
    assert_non_null(strstr(error.message, OTHER));
    assert_non_null(strstr(error.message, "nothing was removed"));
    assert_int_equal(marco_hub_remove("o/m@v2", params_of(s), &freed, &error), MARCO_ERROR_IO);
    assert_true(has(s, "blobs/aa") && has(s, "blobs/bb") && has(s, "blobs/cc"));
    assert_true(has(s, "refs/v1") && has(s, "refs/v2") && has(s, "snapshots/" COMMIT));
    assert_int_equal(marco_hub_list(params_of(s), &entries, &n, NULL), MARCO_OK);
    assert_int_equal(n, 3);
    for (size_t i = 0; i < n; i++)
        assert_true(entries[i].whole == (strcmp(entries[i].commit, COMMIT) == 0));
    marco_hub_list_free(entries, n);
    assert_int_equal(marco_hub_remove("o/m", params_of(s), &freed, &error),
                     MARCO_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "by hand"));
    scratch cache;
    snprintf(cache.folder, sizeof cache.folder, "%.200s/cache", s->folder);
    scratch_remove(&cache);
    /* What is no folder uses nothing, and does not hold the last revision back. */
    make_cache(s);
    put(s, "snapshots/.DS_Store", "a desktop's, no snapshot");
    assert_int_equal(marco_hub_remove("o/m@v1", params_of(s), &freed, NULL), MARCO_OK);
    assert_true(has(s, "blobs/aa") && !has(s, "blobs/bb"));
    assert_int_equal(marco_hub_remove("o/m@v2", params_of(s), &freed, NULL), MARCO_OK);
    assert_false(has(s, ""));
    remove_cache(s);
}

/* ---- memory that runs out -------------------------------------------------------------------- */

static void test_memory(void **state)
{
    scratch *s = *state;
    static const char answer[] =
        "[{\"type\": \"file\", \"path\": \"b\", \"size\": 3, \"oid\": \"" SHA1 "\"},"
        " {\"type\": \"file\", \"path\": \"a\", \"size\": 3, \"oid\": \"" SHA1 "\"}]";
    make_cache(s);
    const marco_hub_params *params = params_of(s);
    marco_status status = MARCO_ERROR_MEMORY;
    for (uint64_t at = 1; at < 1000 && status; at++) {
        hub_listing listing = {0};
        base_alloc_fail_at(at);
        status = hub_listing_add(&listing, "answer", answer, sizeof answer - 1, NULL);
        if (!status)
            status = hub_listing_finish(&listing, "answer", NULL);
        base_alloc_fail_at(0);
        hub_listing_free(&listing);
        assert_true(status == MARCO_OK || status == MARCO_ERROR_MEMORY);
    }
    assert_int_equal(status, MARCO_OK);
    status = MARCO_ERROR_MEMORY;
    for (uint64_t at = 1; at < 1000 && status; at++) {
        char *path = NULL;
        base_alloc_fail_at(at);
        status = marco_hub_find("o/m@v2", params, &path, NULL);
        base_alloc_fail_at(0);
        marco_free(path);
    }
    assert_int_equal(status, MARCO_OK);
    /* A listing that cannot be read for want of memory counts as absent, so that is no error. */
    for (uint64_t at = 1; at < 300; at++) {
        marco_hub_entry *entries = NULL;
        size_t n = 0;
        base_alloc_fail_at(at);
        status = marco_hub_list(params, &entries, &n, NULL);
        base_alloc_fail_at(0);
        marco_hub_list_free(entries, n);
    }
    assert_int_equal(status, MARCO_OK);
    remove_cache(s);
    status = MARCO_ERROR_MEMORY;
    for (uint64_t at = 1; at < 1000 && status; at++) {
        uint64_t freed = 0;
        make_cache(s);
        base_alloc_fail_at(at);
        status = marco_hub_remove("o/m@v1", params, &freed, NULL);
        base_alloc_fail_at(0);
        /* Whatever was done of it, the other revision is whole. */
        assert_true(has(s, "blobs/aa") && has(s, "blobs/cc") && has(s, "refs/v2"));
        remove_cache(s);
    }
    assert_int_equal(status, MARCO_OK);
}

static int setup(void **state)
{
    static scratch s;
    *state = &s;
    return scratch_create(&s) ? 0 : -1;
}

static int teardown(void **state)
{
    scratch_remove(*state);
    return 0;
}

static void test_amounts(void **state)
{
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        {0, "0 B"},         {999, "999 B"},      {1000, "1.0 kB"},         {999949, "999.9 kB"},
        {999951, "1.0 MB"}, {9437184, "9.4 MB"}, {18400000000, "18.4 GB"}, {UINT64_MAX, "18.4 EB"}};
    char text[32];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_string_equal(hub_amount(cases[i].bytes, text), cases[i].text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),  cmocka_unit_test(test_files),
        cmocka_unit_test(test_place),  cmocka_unit_test(test_list),
        cmocka_unit_test(test_find),   cmocka_unit_test(test_remove),
        cmocka_unit_test(test_depth),  cmocka_unit_test(test_unreadable),
        cmocka_unit_test(test_memory), cmocka_unit_test(test_amounts),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
