/* Training data for tests: a tokenizer of 256 bytes and three special tokens, files, folders. */
#ifndef TESTS_DATA_FIXTURE_H
#define TESTS_DATA_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "data/data.h"
#include "marco/train.h"
#include "scratch.h"
#include "tokenizer/spec.h"

enum { BYTES_EOS = 256, BYTES_START = 257, BYTES_END = 258, BYTES_VOCAB = 259 };

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        marco_error error_ = {0}, *error = &error_;                                                \
        if ((call) != MARCO_OK)                                                                    \
            fail_msg("%s: %s", #call, error_.message);                                             \
    } while (0)

/* The call fails with this status and a message that has these words in it. */
#define assert_refused(wanted, words, call)                                                        \
    do {                                                                                           \
        marco_error error_ = {0}, *error = &error_;                                                \
        marco_status status_ = (call);                                                             \
        if (status_ != (wanted) || !strstr(error_.message, words))                                 \
            fail_msg("%s: %d: %s", #call, (int)status_, error_.message);                           \
    } while (0)

/* A file of the scratch folder; its path lasts as scratch_path's. */
static inline const char *data_put(const scratch *s, const char *name, const void *bytes,
                                   size_t size)
{
    const char *path = scratch_path(s, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    return path;
}

static inline const char *data_put_text(const scratch *s, const char *name, const char *text)
{
    return data_put(s, name, text, strlen(text));
}

/* The tokenizer's folder, made once. */
static inline const char *data_tokenizer(const scratch *s)
{
    tok_spec *spec;
    const char *path = scratch_path(s, "tokenizer");
    if (mkdir(path, 0777) != 0)
        return path;
    assert_int_equal(tok_spec_bytes(&spec, NULL), MARCO_OK);
    assert_int_equal(tok_spec_write_hf(spec, path, NULL), MARCO_OK);
    tok_spec_free(spec);
    return path;
}

/* Parameters for one file; they point to `file`. */
static inline marco_data_params data_params(const scratch *s, const char **file)
{
    marco_data_params p = marco_data_params_default();
    p.tokenizer = data_tokenizer(s);
    p.files = file;
    p.n_files = 1;
    p.lines = true;
    p.threads = 1;
    return p;
}

/* A folder of training data from lines of text. */
static inline const char *data_folder(const scratch *s, const char *name, const char *text)
{
    char file[64];
    snprintf(file, sizeof file, "%s.txt", name);
    const char *path = data_put_text(s, file, text);
    marco_data_params p = data_params(s, &path);
    const char *to = scratch_path(s, name);
    p.overwrite = true;
    assert_ok(marco_data_build(to, &p, NULL, error));
    return to;
}

#endif
