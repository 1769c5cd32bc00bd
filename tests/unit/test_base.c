/* The base room: text and UTF-8, memory, random numbers, files and outputs. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "base/random.h"
#include "base/text.h"
#include "scratch.h"

static scratch place;

static int make_folder(void **state)
{
    (void)state;
    return scratch_create(&place) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    scratch_remove(&place);
    return 0;
}

/* ---- errors and text ----------------------------------------------------------------------- */

static void errors_are_one_printable_line(void **state)
{
    (void)state;
    marco_error error = {0};
    assert_int_equal(base_fail(&error, MARCO_ERROR_FORMAT, "bad name '%s'", "a\nb\033[2J"),
                     MARCO_ERROR_FORMAT);
    assert_string_equal(error.message, "bad name 'a?b?[2J'");
    base_fail(&error, MARCO_ERROR_FORMAT,
              "a\xC2\x9B"
              "b \xC3\xA9 \xFF");
    assert_string_equal(error.message, "a??b \xC3\xA9 ?");
    char name[4000];
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    base_fail(&error, MARCO_ERROR_FORMAT, "first.gguf: %s: the reason", name);
    assert_int_equal(strlen(error.message), sizeof error.message - 1);
    assert_memory_equal(error.message, "first.gguf: nnn", 15);
    assert_non_null(strstr(error.message, " [...] nnn"));
    assert_string_equal(error.message + strlen(error.message) - 12, ": the reason");
    assert_int_equal(base_fail(NULL, MARCO_ERROR_IO, "no place to put it"), MARCO_ERROR_IO);
    assert_int_equal(base_fail_errno(&error, ENOSPC, "cannot write", "x"), MARCO_ERROR_SPACE);
    assert_string_equal(error.message, "cannot write x: No space left on device");
    assert_string_equal(marco_status_name(MARCO_ERROR_SPACE), "MARCO_ERROR_SPACE");
    assert_string_equal(marco_status_name((marco_status)-999), "MARCO_ERROR_UNKNOWN");
}

static void text_grows_and_hands_over(void **state)
{
    (void)state;
    base_text text = {0};
    size_t size;
    for (int i = 0; i < 1000; i++)
        base_text_printf(&text, "%d,", i);
    base_text_add_n(&text, "\0x", 2);
    char *s = base_text_take(&text, &size);
    assert_non_null(s);
    assert_int_equal(size, 10 * 2 + 90 * 3 + 900 * 4 + 2);
    assert_memory_equal(s + size - 2, "\0x", 3);
    base_free(s);
    s = base_text_take(&text, &size);
    assert_string_equal(s, "");
    base_free(s);
}

static void text_remembers_a_failed_allocation(void **state)
{
    (void)state;
    base_text text = {0};
    base_text_add(&text, "abc");
    base_alloc_fail_at(1);
    for (int i = 0; i < 100; i++)
        base_text_add(&text, "0123456789");
    base_alloc_fail_at(0);
    base_text_add(&text, "more");
    assert_true(text.failed);
    assert_null(base_text_take(&text, NULL));
    assert_null(text.data);
}

static void doubles_are_written_in_the_fewest_digits(void **state)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0, "0"},
                 {-0.1, "-0.1"},
                 {100, "100"},
                 {1e-6, "1e-06"},
                 {1e22, "1e+22"},
                 {0.1 + 0.2, "0.30000000000000004"},
                 {1.0 / 3, "0.3333333333333333"},
                 {5e-324, "5e-324"},
                 {1.7976931348623157e308, "1.7976931348623157e+308"}};
    char text[32];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        base_shortest(cases[i].value, text);
        assert_string_equal(text, cases[i].text);
    }
}

static void utf8_round_trips_every_code_point(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        char bytes[4];
        uint32_t back = 0xFFFFFFFF;
        size_t n = base_utf8_encode(cp, bytes);
        if (cp >= 0xD800 && cp <= 0xDFFF) {
            assert_int_equal(n, 0);
            continue;
        }
        assert_int_equal(base_utf8_decode(bytes, n, &back), n);
        assert_int_equal(back, cp);
        for (size_t k = 1; k < n; k++) {
            assert_int_equal(base_utf8_decode(bytes, k, &back), 0);
            assert_int_equal(base_utf8_partial(bytes, k), k);
        }
        assert_int_equal(base_utf8_partial(bytes, n), 0);
    }
    char none[4];
    assert_int_equal(base_utf8_encode(0x110000, none), 0);
}

static void utf8_refuses_what_is_not_well_formed(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\x80",
        "\xC0\x80",
        "\xC1\xBF",
        "\xE0\x9F\xBF",
        "\xED\xA0\x80",
        "\xF0\x8F\xBF",
        "\xF4\x90\x80",
        "\xF5\x80\x80\x80",
        "\xFF",
        ("\xE4\xB8"
         "a"),
    };
    uint32_t cp;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(base_utf8_decode(bad[i], strlen(bad[i]), &cp), 0);
        assert_int_equal(base_utf8_partial(bad[i], strlen(bad[i])), 0);
    }
    assert_int_equal(base_utf8_check("ab\xC3\xA9\xFFz", 6), 4);
}

/* ---- memory and random numbers ------------------------------------------------------------- */

static void memory_refuses_overflow_and_failure(void **state)
{
    (void)state;
    assert_null(base_alloc_array(SIZE_MAX / 2, 3));
    assert_null(base_alloc_aligned(SIZE_MAX - 3));
    void *p = base_alloc_aligned(100);
    assert_int_equal((uintptr_t)p % 64, 0);
    base_free(p);
    base_alloc_fail_at(2);
    void *first = base_alloc(1);
    assert_non_null(first);
    assert_null(base_alloc(1));
    assert_null(base_calloc(1, 1));
    assert_int_equal(base_alloc_fail_at(0), 3);
    base_free(first);
    int32_t *items = NULL;
    size_t capacity = 0;
    void *grown = items;
    assert_false(base_grow(&grown, &capacity, SIZE_MAX / 2, 8));
    assert_int_equal(capacity, 0);
}

static void random_numbers_are_fixed_and_fair(void **state)
{
    (void)state;
    /* Written out so that files made from a seed stay the same for ever; the Python that makes the
     * test vectors computes the same numbers. */
    assert_true(base_random_u64(0, 0, 0) == 0x346DBC0B5711D830u);
    assert_true(base_random_u64(42, 7, 1000) == 0xCDD9D8BA403DBDB8u);
    double sum = 0, squares = 0;
    int counts[10] = {0};
    for (uint64_t i = 0; i < 100000; i++) {
        double u = base_random_unit(1, 2, i);
        assert_true(u >= 0 && u < 1);
        sum += u;
        squares += u * u;
        counts[base_random_below(3, 4, i, 10)]++;
    }
    assert_true(fabs(sum / 1e5 - 0.5) < 0.005);
    assert_true(fabs(squares / 1e5 - 1.0 / 3) < 0.005);
    for (int i = 0; i < 10; i++)
        assert_true(abs(counts[i] - 10000) < 500);
}

/* ---- files --------------------------------------------------------------------------------- */

static void put(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void files_are_read_within_their_length(void **state)
{
    (void)state;
    const char *path = scratch_path(&place, "data");
    base_file *file;
    marco_error error;
    char buffer[16];
    put(path, "0123456789");
    assert_int_equal(base_file_open(path, &file, &error), MARCO_OK);
    assert_int_equal(base_file_read(file, 4, buffer, 6, &error), MARCO_OK);
    assert_memory_equal(buffer, "456789", 6);
    assert_int_equal(base_file_read(file, 5, buffer, 6, &error), MARCO_ERROR_FORMAT);
    assert_int_equal(base_file_read(file, UINT64_MAX, buffer, 2, &error), MARCO_ERROR_FORMAT);
    assert_int_equal(truncate(path, 5), 0);
    assert_int_equal(base_file_read(file, 4, buffer, 6, &error), MARCO_ERROR_IO);
    assert_non_null(strstr(error.message, "shortened"));
    base_file_close(file);
    assert_int_equal(base_file_open(path, &file, &error), MARCO_OK);
    assert_int_equal(base_file_read(file, 0, buffer, 5, &error), MARCO_OK);
    const struct timespec times[2] = {{1, 0}, {1, 0}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_int_equal(base_file_read(file, 0, buffer, 5, &error), MARCO_ERROR_IO);
    assert_non_null(strstr(error.message, "changed the file"));
    base_file_close(file);
    assert_int_equal(base_file_open(scratch_path(&place, "none"), &file, &error),
                     MARCO_ERROR_NOT_FOUND);
    assert_int_equal(base_file_open(place.folder, &file, &error), MARCO_ERROR_ARGUMENT);
    char *data;
    size_t size;
    assert_int_equal(base_file_slurp(path, 4, &data, &size, &error), MARCO_ERROR_FORMAT);
    assert_int_equal(base_file_slurp(path, 5, &data, &size, &error), MARCO_OK);
    assert_string_equal(data, "01234");
    base_free(data);
    unlink(path);
}

/* The file's pages that are in the cache. */
static size_t pages_cached(const char *path, size_t size)
{
    static unsigned char in[1024];
    size_t pages = (size + 4095) / 4096, n = 0;
    int fd = open(path, O_RDONLY);
    void *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(fd >= 0 && map != MAP_FAILED && pages <= sizeof in);
    assert_int_equal(mincore(map, size, in), 0);
    for (size_t i = 0; i < pages; i++)
        n += in[i] & 1;
    munmap(map, size);
    close(fd);
    return n;
}

static void files_are_read_past_the_cache(void **state)
{
    (void)state;
    enum { MIB = 1 << 20, SIZE = 3 * MIB + 1234 };
    static const struct {
        uint64_t offset;
        size_t size;
    } spans[] = {{0, 1},         {0, SIZE},     {4095, 2},           {4096, 4096},   {32, 2 * MIB},
                 {12345, 54321}, {SIZE - 1, 1}, {SIZE - 5000, 5000}, {MIB + 1, 9000}};
    const char *path = scratch_path(&place, "bytes");
    uint8_t *bytes = malloc(SIZE);
    uint8_t *buffer = aligned_alloc(BASE_FILE_ALIGN, 4 * MIB);
    const uint8_t *data;
    base_file *file, *shared;
    marco_error error = {0};
    assert_true(bytes && buffer);
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = (uint8_t)(base_random_mix(i / 8) >> i % 8 * 8);
    FILE *out = fopen(path, "w");
    assert_true(out && fwrite(bytes, 1, SIZE, out) == SIZE && fclose(out) == 0);
    assert_int_equal(base_file_open(path, &file, NULL), MARCO_OK);
    assert_int_equal(base_file_share(file, &shared, NULL), MARCO_OK);
    base_file_close(file); /* the other goes on alone */
    for (int cached = 0; cached < 2; cached++)
        for (size_t i = 0; i < sizeof spans / sizeof *spans; i++) {
            assert_true(scratch_uncache(path));
            size_t before = pages_cached(path, SIZE);
            if (cached)
                assert_int_equal(base_file_read(shared, 0, buffer, SIZE, NULL), MARCO_OK);
            memset(buffer, 0, 4 * MIB);
            if (base_file_read_past(shared, spans[i].offset, buffer, spans[i].size, &data, &error))
                fail_msg("%s", error.message);
            assert_true(data >= buffer && data + spans[i].size <= buffer + 4 * MIB);
            assert_memory_equal(data, bytes + spans[i].offset, spans[i].size);
            /* Where O_DIRECT is refused, what was read is dropped page by whole page. */
            if (!cached && before == 0 && shared->direct >= 0)
                assert_int_equal(pages_cached(path, SIZE), 0);
        }
    assert_int_equal(base_file_read_past(shared, SIZE, buffer, 1, &data, &error),
                     MARCO_ERROR_FORMAT);
    assert_true(scratch_uncache(path));
    assert_int_equal(truncate(path, MIB), 0);
    assert_int_equal(base_file_read_past(shared, 2 * MIB, buffer, 9, &data, &error),
                     MARCO_ERROR_IO);
    assert_non_null(strstr(error.message, "ended at byte"));
    assert_int_equal(base_file_read_past(shared, 0, buffer, 9, &data, &error), MARCO_ERROR_IO);
    base_file_close(shared);
    free(bytes);
    free(buffer);
    unlink(path);
}

static void a_fifo_is_refused_without_waiting(void **state)
{
    (void)state;
    const char *path = scratch_path(&place, "fifo");
    base_file *file;
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(base_file_open(path, &file, NULL), MARCO_ERROR_ARGUMENT);
    unlink(path);
}

static void paths_are_joined_and_checked(void **state)
{
    (void)state;
    char *path = base_path_join("a/b//", "c");
    assert_string_equal(path, "a/b/c");
    base_free(path);
    assert_string_equal(base_path_name("a/b"), "b");
    assert_true(base_path_is_plain("model-1.safetensors"));
    assert_false(base_path_is_plain("../x"));
    assert_false(base_path_is_plain(".."));
    assert_false(base_path_is_plain(""));
    assert_true(base_has_suffix("x.gguf", ".gguf"));
    assert_false(base_has_suffix("gguf", ".gguf"));
}

/* ---- outputs ------------------------------------------------------------------------------- */

static void an_output_appears_when_committed(void **state)
{
    (void)state;
    const char *path = scratch_path(&place, "out");
    base_output *output;
    static char big[3 << 20];
    assert_int_equal(base_output_create(path, false, &output, NULL), MARCO_OK);
    assert_int_equal(base_output_write(output, "abc", 3, NULL), MARCO_OK);
    assert_int_equal(base_output_align(output, 32, NULL), MARCO_OK);
    assert_int_equal(base_output_write(output, big, sizeof big, NULL), MARCO_OK);
    assert_int_equal(base_output_write(output, "z", 1, NULL), MARCO_OK);
    assert_int_equal(base_output_tell(output), 32 + sizeof big + 1);
    assert_false(base_exists(path));
    assert_int_equal(base_output_commit(output, NULL), MARCO_OK);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 32 + sizeof big + 1);
    assert_int_equal(scratch_count(place.folder), 1);

    marco_error error;
    assert_int_equal(base_output_create(path, false, &output, &error), MARCO_ERROR_EXISTS);
    assert_int_equal(base_output_create(path, true, &output, &error), MARCO_OK);
    assert_int_equal(base_output_write(output, "new", 3, NULL), MARCO_OK);
    base_output_abort(output);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 32 + sizeof big + 1);
    assert_int_equal(scratch_count(place.folder), 1);
    unlink(path);
}

static void an_output_does_not_replace_what_appeared_meanwhile(void **state)
{
    (void)state;
    const char *path = scratch_path(&place, "late");
    base_output *output;
    assert_int_equal(base_output_create(path, false, &output, NULL), MARCO_OK);
    assert_int_equal(base_output_write(output, "mine", 4, NULL), MARCO_OK);
    put(path, "theirs");
    assert_int_equal(base_output_commit(output, NULL), MARCO_ERROR_EXISTS);
    char *data;
    size_t size;
    assert_int_equal(base_file_slurp(path, 100, &data, &size, NULL), MARCO_OK);
    assert_string_equal(data, "theirs");
    base_free(data);
    assert_int_equal(scratch_count(place.folder), 1);
    unlink(path);
}

static void outputs_that_cannot_be_made_are_refused(void **state)
{
    (void)state;
    base_output *output;
    marco_error error;
    assert_int_equal(
        base_output_create(scratch_path(&place, "no/such/folder"), false, &output, &error),
        MARCO_ERROR_NOT_FOUND);
    assert_int_equal(base_output_create("", false, &output, &error), MARCO_ERROR_ARGUMENT);
    assert_int_equal(base_output_create(place.folder, true, &output, &error), MARCO_ERROR_EXISTS);
    assert_int_equal(scratch_count(place.folder), 0);
}

static void put_in(base_folder *f, const char *name)
{
    base_output *output;
    char *path = base_path_join(base_folder_path(f), name);
    assert_int_equal(base_output_create(path, false, &output, NULL), MARCO_OK);
    assert_int_equal(base_output_write(output, name, strlen(name), NULL), MARCO_OK);
    assert_int_equal(base_output_commit(output, NULL), MARCO_OK);
    base_free(path);
}

static void a_folder_appears_whole_and_replaces_only_checkpoints(void **state)
{
    (void)state;
    char path[384];
    base_folder *f;
    marco_error error;
    strcpy(path, scratch_path(&place, "model"));
    assert_int_equal(base_folder_create(path, false, &f, NULL), MARCO_OK);
    put_in(f, "config.json");
    put_in(f, "model.safetensors");
    assert_false(base_exists(path));
    assert_int_equal(base_folder_commit(f, NULL), MARCO_OK);
    assert_true(base_exists(scratch_path(&place, "model/config.json")));
    assert_int_equal(scratch_count(place.folder), 1);

    assert_int_equal(base_folder_create(path, false, &f, &error), MARCO_ERROR_EXISTS);
    assert_int_equal(base_folder_create(path, true, &f, NULL), MARCO_OK);
    put_in(f, "vocab.json");
    base_folder_abort(f);
    assert_true(base_exists(scratch_path(&place, "model/config.json")));
    assert_int_equal(scratch_count(place.folder), 1);

    assert_int_equal(base_folder_create(path, true, &f, NULL), MARCO_OK);
    put_in(f, "vocab.json");
    assert_int_equal(base_folder_commit(f, NULL), MARCO_OK);
    assert_true(base_exists(scratch_path(&place, "model/vocab.json")));
    assert_false(base_exists(scratch_path(&place, "model/config.json")));
    assert_int_equal(scratch_count(place.folder), 1);

    put(scratch_path(&place, "model/notes.md"), "years of work");
    assert_int_equal(base_folder_create(path, true, &f, &error), MARCO_ERROR_EXISTS);
    assert_non_null(strstr(error.message, "notes.md"));
}

static void a_folder_that_appeared_or_changed_meanwhile_is_kept(void **state)
{
    (void)state;
    char path[384], work[400];
    base_folder *f;
    marco_error error;
    strcpy(path, scratch_path(&place, "slow"));
    snprintf(work, sizeof work, "%s/notes.md", path);

    assert_int_equal(base_folder_create(path, false, &f, NULL), MARCO_OK);
    put_in(f, "config.json");
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(base_folder_commit(f, &error), MARCO_ERROR_EXISTS);

    assert_int_equal(base_folder_create(path, true, &f, NULL), MARCO_OK);
    put_in(f, "config.json");
    put(work, "years of work");
    assert_int_equal(base_folder_commit(f, &error), MARCO_ERROR_EXISTS);
    assert_true(base_exists(work));
    unlink(work);

    char link[384];
    strcpy(link, scratch_path(&place, "link"));
    assert_int_equal(symlink(path, link), 0);
    assert_int_equal(base_folder_create(link, true, &f, &error), MARCO_ERROR_EXISTS);
    assert_non_null(strstr(error.message, "symbolic link"));
    unlink(link);
    rmdir(path);
}

/* A process that is no more. */
static pid_t dead(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    return child;
}

/* A folder under a temporary name, with a file in it. */
static void leave(const char *name, pid_t pid, int k, const char *file, char path[400])
{
    char inside[448];
    snprintf(path, 400, "%s/.%s.tmp-%ld-%d", place.folder, name, (long)pid, k);
    snprintf(inside, sizeof inside, "%s/%s", path, file);
    assert_int_equal(mkdir(path, 0777), 0);
    put(inside, "half");
}

static void what_killed_processes_left_is_removed(void **state)
{
    (void)state;
    pid_t gone = dead();
    char path[384], left[400], second[400], living[400], other[400], foreign[400], locked[400],
        aside[400];
    base_folder *f, *g;
    strcpy(path, scratch_path(&place, "corpus"));
    leave("corpus", gone, 0, "train-00000.ids", left);
    leave("corpus", gone, 1, ".data.json.tmp-77-0", second);
    leave("corpus", getpid(), 5, "data.json", living);
    leave("corpus2", gone, 0, "data.json", other);
    leave("corpus", gone, 2, "notes.md", foreign);
    leave("corpus", gone, 3, "data.json", locked);
    leave("corpus", gone, 2000, "data.json", aside);
    int fd = open(locked, O_RDONLY);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);

    assert_int_equal(base_folder_create(path, false, &f, NULL), MARCO_OK);
    assert_false(base_exists(left) || base_exists(second));
    assert_true(base_exists(living) && base_exists(other) && base_exists(foreign));
    assert_true(base_exists(locked));
    assert_true(base_exists(aside)); /* there is no other corpus yet */
    close(fd);
    /* One that is being written is locked. */
    fd = open(base_folder_path(f), O_RDONLY);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), -1);
    close(fd);
    assert_int_equal(base_folder_create(path, false, &g, NULL), MARCO_OK);
    assert_true(base_exists(base_folder_path(f)));
    base_folder_abort(g);
    assert_false(base_exists(locked));
    put_in(f, "data.json");
    assert_int_equal(base_folder_commit(f, NULL), MARCO_OK);

    assert_int_equal(base_folder_create(path, true, &f, NULL), MARCO_OK);
    assert_false(base_exists(aside));
    base_folder_abort(f);
    assert_true(base_exists(scratch_path(&place, "corpus/data.json")));
    scratch_remove_folder(path);
    scratch_remove_folder(living);
    scratch_remove_folder(other);
    scratch_remove_folder(foreign);
    assert_int_equal(scratch_count(place.folder), 0);
}

static void a_file_is_put_once(void **state)
{
    (void)state;
    char *data;
    size_t size;
    assert_int_equal(base_output_put(place.folder, "note", "text", 4, NULL), MARCO_OK);
    assert_int_equal(base_output_put(place.folder, "note", "other", 5, NULL), MARCO_ERROR_EXISTS);
    assert_int_equal(base_file_slurp(scratch_path(&place, "note"), 9, &data, &size, NULL),
                     MARCO_OK);
    assert_string_equal(data, "text");
    base_free(data);
    unlink(scratch_path(&place, "note"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_are_one_printable_line),
        cmocka_unit_test(text_grows_and_hands_over),
        cmocka_unit_test(text_remembers_a_failed_allocation),
        cmocka_unit_test(doubles_are_written_in_the_fewest_digits),
        cmocka_unit_test(utf8_round_trips_every_code_point),
        cmocka_unit_test(utf8_refuses_what_is_not_well_formed),
        cmocka_unit_test(memory_refuses_overflow_and_failure),
        cmocka_unit_test(random_numbers_are_fixed_and_fair),
        cmocka_unit_test(files_are_read_within_their_length),
        cmocka_unit_test(files_are_read_past_the_cache),
        cmocka_unit_test(a_fifo_is_refused_without_waiting),
        cmocka_unit_test(paths_are_joined_and_checked),
        cmocka_unit_test(an_output_appears_when_committed),
        cmocka_unit_test(an_output_does_not_replace_what_appeared_meanwhile),
        cmocka_unit_test(outputs_that_cannot_be_made_are_refused),
        cmocka_unit_test(what_killed_processes_left_is_removed),
        cmocka_unit_test(a_file_is_put_once),
        cmocka_unit_test(a_folder_that_appeared_or_changed_meanwhile_is_kept),
        cmocka_unit_test(a_folder_appears_whole_and_replaces_only_checkpoints),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
