/* The small tokenizer of the vectors, and files made from it. */
#ifndef TESTS_TOKEN_FILES_H
#define TESTS_TOKEN_FILES_H

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scratch.h"
#include "tokenizer/tokenizer.h"

static inline const char *token_vector(const char *name)
{
    static char path[4096];
    const char *folder = getenv("MARCO_TEST_VECTORS");
    snprintf(path, sizeof path, "%s/tokens/%s", folder ? folder : "tests/vectors", name);
    return path;
}

static inline marco_tokenizer *open_tokenizer(const char *path)
{
    marco_tokenizer *tokenizer = NULL;
    marco_error error;
    if (marco_tokenizer_open(path, &tokenizer, &error))
        fail_msg("%s", error.message);
    return tokenizer;
}

/* The small tokenizer.json as a value to change; json_decref it. */
static inline json_t *small_json(void)
{
    json_error_t problem;
    json_t *root = json_load_file(token_vector("small/tokenizer.json"), 0, &problem);
    if (!root)
        fail_msg("%s: %s", problem.source, problem.text);
    return root;
}

/* json_pack's way to a component, as in {"type": "NFC"}. */
static inline json_t *parse_json(const char *text)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    assert_non_null(value);
    return value;
}

static inline void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

/* SmolLM2's pipeline over the small vocabulary: no normaliser, digits one by one, GPT-2's pattern,
 * no added tokens. */
static inline void make_plain(json_t *root)
{
    json_object_set_new(root, "normalizer", json_null());
    json_object_set_new(root, "added_tokens", json_array());
    json_object_set_new(
        root, "pre_tokenizer",
        parse_json("{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", "
                   "\"individual_digits\": true}, {\"type\": \"ByteLevel\", "
                   "\"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}]}"));
}

/* Opens what `root` describes, by way of a file. Takes over the reference. */
static inline marco_status open_json(const scratch *s, json_t *root, marco_tokenizer **out,
                                     marco_error *error)
{
    const char *path = scratch_path(s, "tokenizer.json");
    assert_int_equal(json_dump_file(root, path, 0), 0);
    json_decref(root);
    return marco_tokenizer_open(path, out, error);
}

/* The vectors' digest of ids. */
static inline void digest_ids(const int32_t *ids, size_t n, char out[64])
{
    uint64_t hash = 0xCBF29CE484222325u;
    for (size_t i = 0; i < n; i++)
        for (int shift = 0; shift < 32; shift += 8)
            hash = (hash ^ ((uint32_t)ids[i] >> shift & 0xFF)) * 0x100000001B3u;
    snprintf(out, 64, "%zu:%016llx", n, (unsigned long long)hash);
}

#endif
