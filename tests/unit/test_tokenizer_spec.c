/* Reading and writing tokenizers: what is refused, what survives a change of format, and running
 * out of memory on the way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "base/text.h"
#include "token_files.h"
#include "tokenizer/bpe.h"
#include "tokenizer/bytes.h"

/* ---- what is refused ----------------------------------------------------------------------- */

/* Sets `path` ("model.dropout") in the small tokenizer to `value`; opening must fail. */
static void refused(scratch *s, const char *path, const char *value, marco_status status,
                    const char *message)
{
    json_t *root = small_json(), *at = root;
    char key[64];
    for (const char *dot; (dot = strchr(path, '.')); path = dot + 1) {
        snprintf(key, sizeof key, "%.*s", (int)(dot - path), path);
        at = json_object_get(at, key);
    }
    json_object_set_new(at, path, parse_json(value));
    marco_tokenizer *t = NULL;
    marco_error error = {0};
    marco_status got = open_json(s, root, &t, &error);
    if (got != status || !strstr(error.message, message) || t)
        fail_msg("%s = %s: status %d, '%s' lacks '%s'", path, value, got, error.message, message);
}

#define SPLIT(pattern, behavior, invert)                                                           \
    "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": " pattern     \
    ", \"behavior\": \"" behavior "\", \"invert\": " invert                                        \
    "}, {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}]}"

static void test_unsupported(void **state)
{
    static const struct {
        const char *path, *value, *message;
    } cases[] = {
        {"model.type", "\"Unigram\"", "Unigram"},
        {"model.dropout", "0.1", "dropout"},
        {"model.byte_fallback", "true", "byte_fallback"},
        {"model.continuing_subword_prefix", "\"##\"", "continuing_subword_prefix"},
        {"model.end_of_word_suffix", "\"</w>\"", "end_of_word_suffix"},
        {"normalizer", "{\"type\": \"NFKC\"}", "NFKC"},
        {"normalizer", "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Lowercase\"}]}",
         "Lowercase"},
        {"pre_tokenizer", "null", "ByteLevel"},
        {"pre_tokenizer", "{\"type\": \"Metaspace\"}", "Metaspace"},
        {"pre_tokenizer", SPLIT("{\"String\": \"a\"}", "Isolated", "false"), "String"},
        {"pre_tokenizer", SPLIT("{\"Regex\": \"a\"}", "Removed", "false"), "Removed"},
        {"pre_tokenizer", SPLIT("{\"Regex\": \"a\"}", "Isolated", "true"), "invert"},
        {"pre_tokenizer", SPLIT("{\"Regex\": \"x|\\\\h+\"}", "Isolated", "false"), "\\h+"},
        {"pre_tokenizer", SPLIT("{\"Regex\": \"x|^a\"}", "Isolated", "false"), "^a"},
        {"pre_tokenizer", SPLIT("{\"Regex\": \"[a[b]]\"}", "Isolated", "false"), "[a[b]]"},
        {"pre_tokenizer", SPLIT("{\"Regex\": \"\\\\p{Han}\"}", "Isolated", "false"), "Han"},
        {"pre_tokenizer", SPLIT("{\"Regex\": \"(?<x>a)\"}", "Isolated", "false"), "(?<x>a)"},
        {"truncation", "{\"max_length\": 512, \"strategy\": \"LongestFirst\", \"stride\": 0}",
         "\"truncation\" is set"},
        {"padding", "{\"strategy\": \"BatchLongest\", \"pad_id\": 0}", "\"padding\" is set"},
        {"decoder", "null", "decoder"},
        {"decoder", "{\"type\": \"WordPiece\"}", "WordPiece"},
        {"post_processor", "{\"type\": \"BertProcessing\"}", "BertProcessing"},
        {"post_processor",
         "{\"type\": \"TemplateProcessing\", \"single\": [{\"Sequence\": {\"id\": \"A\"}}, "
         "{\"SpecialToken\": {\"id\": \"<|endoftext|>\"}}]}",
         "TemplateProcessing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused(*state, cases[i].path, cases[i].value, MARCO_ERROR_UNSUPPORTED, cases[i].message);
}

static void test_malformed(void **state)
{
    static const struct {
        const char *path, *value, *message;
    } cases[] = {
        {"model", "null", "\"model\""},
        {"model.vocab", "[]", "model.vocab"},
        {"model.vocab", "{\"a\": -1}", "'a'"},
        {"model.vocab", "{\"a\": 16777216}", "'a'"},
        {"model.vocab", "{\"a\": 1.5}", "'a'"},
        {"model.vocab", "{\"a\": 1, \"b\": 1}", "same id 1"},
        {"model.merges", "{}", "model.merges"},
        {"model.merges", "[[\"a\"]]", "model.merges[0]"},
        {"model.merges", "[7]", "model.merges[0]"},
        {"model.merges", "[\"ab\"]", "'ab'"},
        {"model.merges", "[\"a b c\"]", "'a b c'"},
        {"model.merges", "[\" a\"]", "' a'"},
        {"model.merges", "[\"a zzzz\"]", "'zzzz' is not in the vocabulary"},
        {"model.merges", "[\"zzzz a\"]", "'zzzz' is not in the vocabulary"},
        {"model.merges", "[\"! #\"]", "'!#' is not in the vocabulary"},
        {"added_tokens", "{}", "added_tokens"},
        {"added_tokens", "[{\"content\": \"x\"}]", "id"},
        {"added_tokens", "[{\"id\": 3000}]", "content"},
        {"added_tokens", "[{\"id\": 3000, \"content\": \"x\\u0000\"}]", "NUL"},
        {"added_tokens", "[{\"id\": 3000, \"content\": \"x\", \"special\": 1}]", "special"},
        {"added_tokens", "[{\"id\": 5, \"content\": \"other\"}]", "id 5"},
        {"added_tokens", "[{\"id\": 3000, \"content\": \"a\"}]", "'a' is token 64"},
        {"added_tokens",
         "[{\"id\": 3000, \"content\": \"x1\"}, {\"id\": 3000, \"content\": \"x2\"}]", "3000"},
        {"added_tokens",
         "[{\"id\": 3000, \"content\": \"x1\"}, {\"id\": 3001, \"content\": \"x1\"}]", "'x1'"},
        {"pre_tokenizer", SPLIT("{\"Regex\": \"(?:a\"}", "Isolated", "false"), "lacks a ')'"},
        {"pre_tokenizer", SPLIT("{\"Regex\": \"[b-a]\"}", "Isolated", "false"), "[b-a]"},
        {"post_processor",
         "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": "
         "\"<none>\"}}, "
         "{\"Sequence\": {\"id\": \"A\"}}]}",
         "<none>"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused(*state, cases[i].path, cases[i].value, MARCO_ERROR_FORMAT, cases[i].message);
}

static void test_size_limit(void **state)
{
    const char *path = scratch_path(*state, "tokenizer.json");
    marco_tokenizer *t = NULL;
    marco_error error = {0};
    write_text(path, "{}");
    assert_int_equal(truncate(path, (64 << 20) + 1), 0); /* a hole, not a file of that size */
    assert_int_equal(marco_tokenizer_open(path, &t, &error), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "67108865 bytes, more than the 67108864 allowed"));
    remove(path);
}

/* ---- what is made to cost much ------------------------------------------------------------- */

/* The byte tokenizer with room for `n` tokens and merges more. */
static tok_spec *roomy_spec(size_t n)
{
    tok_spec *spec;
    assert_int_equal(tok_spec_bytes(&spec, NULL), MARCO_OK);
    for (int32_t i = 0; i < spec->n_added; i++)
        base_free(spec->added[i].text);
    spec->n_added = 0;
    spec->eos = spec->pad = -1;
    spec->tokens = base_realloc(spec->tokens, ((size_t)spec->n_tokens + n) * sizeof(char *));
    spec->merges = base_calloc(n, sizeof(char *));
    assert_true(spec->tokens && spec->merges);
    return spec;
}

static char *spell(const uint8_t *bytes, size_t n, const char *separator)
{
    base_text text = {0};
    for (size_t i = 0; i < n; i++) {
        char one[3];
        tok_byte_spell(bytes[i], one);
        base_text_add(&text, i ? separator : "");
        base_text_add(&text, one);
    }
    return base_text_take(&text, NULL);
}

/* Compiles the spec; a search among its tokens and merges must not take long. */
static void expect_short_runs(tok_spec *spec)
{
    marco_tokenizer *t;
    marco_error error;
    if (tok_compile(spec, &t, &error))
        fail_msg("%s", error.message);
    size_t run = tok_bpe_longest_run(t->bpe);
    if (run > 400) /* some 50 to 100 come about by chance */
        fail_msg("%zu entries in a row", run);
    marco_tokenizer_close(t);
}

/* Multiplying by (word ^ constant) loses all that came before where the word is the constant. */
static void test_tokens_with_an_absorbing_word(void **state)
{
    (void)state;
    enum { N = 2000 };
    static const uint64_t constants[] = {0xE7037ED1A0B428DBu, 0x9E3779B97F4A7C15u, 0};
    for (size_t c = 0; c < sizeof constants / sizeof *constants; c++) {
        tok_spec *spec = roomy_spec(N);
        for (uint64_t i = 0; i < N; i++) {
            const uint64_t words[2] = {i << 32 | 0x61616161, constants[c]};
            spec->tokens[spec->n_tokens++] = spell((const uint8_t *)words, sizeof words, "");
        }
        expect_short_runs(spec);
    }
}

/* All pairs of bytes that a hash with known constants puts into one 32nd of the table. */
static void test_merges_that_collide(void **state)
{
    (void)state;
    tok_spec *spec = roomy_spec(4096);
    for (unsigned pair = 0; pair < 65536 && spec->n_merges < 2600; pair++) {
        const uint8_t bytes[2] = {(uint8_t)(pair >> 8), (uint8_t)pair};
        uint64_t key = (uint64_t)bytes[0] << 32 | bytes[1];
        unsigned __int128 product =
            (unsigned __int128)(key ^ 0x9E3779B97F4A7C15u) * 0xE7037ED1A0B428DBu;
        if ((((uint64_t)product ^ (uint64_t)(product >> 64)) & 4095) >= 128)
            continue;
        spec->tokens[spec->n_tokens++] = spell(bytes, 2, "");
        spec->merges[spec->n_merges++] = spell(bytes, 2, " ");
    }
    assert_true(spec->n_merges > 1500);
    expect_short_runs(spec);
}

static void test_costly_pattern_is_an_error(void **state)
{
    json_t *root = small_json();
    marco_tokenizer *t = NULL;
    marco_error error;
    json_object_set_new(root, "pre_tokenizer",
                        parse_json(SPLIT("{\"Regex\": \"(?:a|a|aa)+b\"}", "Isolated", "false")));
    assert_int_equal(open_json(*state, root, &t, &error), MARCO_OK);
    int32_t *ids;
    size_t n;
    assert_int_equal(marco_tokenizer_encode(t, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaacb", 40, 0,
                                            &ids, &n, &error),
                     MARCO_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "takes too long"));
    assert_null(ids);
    marco_tokenizer_close(t);
}

static void test_special_by_merging_is_not_had(void **state)
{
    /* "ch" is made special: text that is not searched for special tokens must not become one. */
    json_t *root = small_json();
    json_t *id = json_object_get(json_object_get(json_object_get(root, "model"), "vocab"), "ch");
    int32_t special = (int32_t)json_integer_value(id);
    json_t *token = json_pack("{s:i, s:s, s:b}", "id", special, "content", "ch", "special", 1);
    json_array_append_new(json_object_get(root, "added_tokens"), token);
    marco_tokenizer *t = NULL;
    int32_t *ids;
    size_t n;
    assert_int_equal(open_json(*state, root, &t, NULL), MARCO_OK);
    assert_int_equal(marco_tokenizer_encode(t, "ch", 2, 0, &ids, &n, NULL), MARCO_OK);
    assert_int_equal(n, 2);
    marco_free(ids);
    assert_int_equal(marco_tokenizer_encode(t, "ch", 2, MARCO_ENCODE_SPECIAL, &ids, &n, NULL),
                     MARCO_OK);
    assert_int_equal(n, 1);
    assert_int_equal(ids[0], special);
    marco_free(ids);
    marco_tokenizer_close(t);
}

/* ---- options ------------------------------------------------------------------------------- */

static void expect_text(const marco_tokenizer *t, const char *text, const char *const *tokens,
                        size_t n_tokens)
{
    int32_t *ids;
    size_t n;
    assert_int_equal(marco_tokenizer_encode(t, text, strlen(text), 0, &ids, &n, NULL), MARCO_OK);
    assert_int_equal(n, n_tokens);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(ids[i], marco_tokenizer_find(t, tokens[i]));
    marco_free(ids);
}

static void test_ignore_merges(void **state)
{
    /* "Qq" has no merge: it is only had as a whole piece. */
    for (int ignore = 0; ignore < 2; ignore++) {
        json_t *root = small_json(), *model = json_object_get(root, "model");
        json_object_set_new(json_object_get(model, "vocab"), "Qq", json_integer(4000));
        json_object_set_new(model, "ignore_merges", json_boolean(ignore));
        marco_tokenizer *t = NULL;
        assert_int_equal(open_json(*state, root, &t, NULL), MARCO_OK);
        if (ignore)
            expect_text(t, "Qq", (const char *[]){"Qq"}, 1);
        else
            expect_text(t, "Qq", (const char *[]){"Q", "q"}, 2);
        expect_text(t, "Qqq", (const char *[]){"Q", "q", "q"}, 3);
        assert_int_equal(t->spec->pre == NULL, ignore);
        marco_tokenizer_close(t);
    }
}

/* Adds a token that has no merges, so that it is had where a piece is all of it. */
static void add_whole(json_t *root, const char *spelt, int id)
{
    json_t *model = json_object_get(root, "model");
    json_object_set_new(json_object_get(model, "vocab"), spelt, json_integer(id));
    json_object_set_new(model, "ignore_merges", json_true());
}

static void test_white_space_is_unicodes(void **state)
{
    /* U+0085 is white space and U+180E is not: only the latter is in one piece with a "!". */
    json_t *root = small_json();
    add_whole(root, "\xC3\x82\xC4\xA7!", 4000);
    add_whole(root, "\xC3\xA1\xC5\x82\xC4\xB0!", 4001);
    marco_tokenizer *t = NULL;
    assert_int_equal(open_json(*state, root, &t, NULL), MARCO_OK);
    expect_text(t, "\xC2\x85!", (const char *[]){"\xC2", "\x85", "!"}, 3);
    expect_text(t, "\xE1\xA0\x8E!", (const char *[]){"\xE1\xA0\x8E!"}, 1);
    marco_tokenizer_close(t);
}

static void test_leftmost_pair_first(void **state)
{
    /* Of two pairs of the same rank the left one is joined, in short pieces and in long ones. */
    json_t *root = small_json(), *model = json_object_get(root, "model");
    json_object_set_new(model, "merges", parse_json("[\"q q\"]"));
    json_object_set_new(json_object_get(model, "vocab"), "qq", json_integer(4000));
    marco_tokenizer *t = NULL;
    assert_int_equal(open_json(*state, root, &t, NULL), MARCO_OK);
    expect_text(t, "qqq", (const char *[]){"qq", "q"}, 2);
    const char *tokens[51];
    char text[102] = {0};
    memset(text, 'q', 101);
    for (int i = 0; i < 51; i++)
        tokens[i] = i < 50 ? "qq" : "q";
    expect_text(t, text, tokens, 51);
    marco_tokenizer_close(t);
}

static void test_prefix_space(void **state)
{
    json_t *root = small_json();
    marco_tokenizer *t = NULL;
    json_object_set_new(root, "pre_tokenizer",
                        parse_json("{\"type\": \"ByteLevel\", \"add_prefix_space\": true}"));
    assert_int_equal(open_json(*state, root, &t, NULL), MARCO_OK);
    expect_text(t, "the", (const char *[]){" the"}, 1);
    expect_text(t, " the", (const char *[]){" the"}, 1);
    expect_text(t, "\n", (const char *[]){" ", "\n"}, 2);
    marco_tokenizer_close(t);
}

static void test_merges_as_text(void **state)
{
    json_t *root = small_json(),
           *merges = json_object_get(json_object_get(root, "model"), "merges");
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const json_t *pair = json_array_get(merges, i);
        json_array_set_new(merges, i,
                           json_sprintf("%s %s", json_string_value(json_array_get(pair, 0)),
                                        json_string_value(json_array_get(pair, 1))));
    }
    marco_tokenizer *t = NULL;
    assert_int_equal(open_json(*state, root, &t, NULL), MARCO_OK);
    expect_text(t, " the", (const char *[]){" the"}, 1);
    marco_tokenizer_close(t);
}

/* ---- what is beside tokenizer.json --------------------------------------------------------- */

static void write_beside(const scratch *s, const char *config, const char *template)
{
    json_t *root = small_json();
    assert_int_equal(json_dump_file(root, scratch_path(s, "tokenizer.json"), 0), 0);
    json_decref(root);
    write_text(scratch_path(s, "tokenizer_config.json"), config);
    if (template)
        write_text(scratch_path(s, "chat_template.jinja"), template);
    else
        remove(scratch_path(s, "chat_template.jinja"));
}

static void test_config(void **state)
{
    scratch *s = *state;
    write_beside(s,
                 /* The length is what transformers writes for "no maximum". */
                 "{\"model_max_length\": 1000000000000000019884624838656, "
                 "\"add_bos_token\": true, \"bos_token\": \"<|endoftext|>\", \"eos_token\": "
                 "{\"content\": \"<|im_end|>\", \"special\": true}, \"pad_token\": null, "
                 "\"unk_token\": \"none such\", \"chat_template\": [{\"name\": \"tool_use\", "
                 "\"template\": \"T\"}, {\"name\": \"default\", \"template\": \"D\"}]}",
                 NULL);
    for (int file = 0; file < 2; file++) { /* by the file's path it is the same */
        marco_tokenizer *t = open_tokenizer(file ? scratch_path(s, "tokenizer.json") : s->folder);
        const tok_spec *spec = t->spec;
        assert_int_equal(spec->bos, 2000);
        assert_int_equal(spec->eos, 2002);
        assert_int_equal(spec->pad, -1);
        assert_int_equal(spec->unk, -1);
        assert_true(spec->add_bos);
        assert_string_equal(spec->chat_template, "D");
        marco_tokenizer_close(t);
    }
    write_beside(s, "{\"chat_template\": \"C\"}", "J\n");
    marco_tokenizer *t = open_tokenizer(s->folder);
    assert_string_equal(t->spec->chat_template, "J\n");
    assert_int_equal(marco_tokenizer_eos(t), -1);
    marco_tokenizer_close(t);
    write_beside(s, "{\"eos_token\": \"<none>\"}", NULL);
    marco_error error;
    assert_int_equal(marco_tokenizer_open(s->folder, &t, &error), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "<none>"));
    remove(scratch_path(s, "tokenizer_config.json"));
}

/* ---- changes of format --------------------------------------------------------------------- */

static tok_spec *read_spec(const char *path)
{
    tok_spec *spec = NULL;
    marco_error error;
    if (tok_spec_read_hf(path, &spec, &error))
        fail_msg("%s", error.message);
    return spec;
}

static marco_status write_gguf(const tok_spec *spec, const char *path, int32_t n_vocab,
                               marco_error *error)
{
    gguf_writer *w;
    assert_int_equal(gguf_writer_create(path, true, &w, NULL), MARCO_OK);
    gguf_put_string(w, "general.architecture", "none");
    marco_status status = tok_spec_write_gguf(spec, n_vocab, w, error);
    if (status) {
        gguf_writer_abort(w);
        return status;
    }
    assert_int_equal(gguf_writer_begin(w, NULL), MARCO_OK);
    return gguf_writer_commit(w, error);
}

static tok_spec *read_gguf(const char *path)
{
    gguf *g;
    tok_spec *spec = NULL;
    marco_error error;
    assert_int_equal(gguf_open(path, &g, NULL), MARCO_OK);
    if (tok_spec_read_gguf(g, &spec, &error))
        fail_msg("%s", error.message);
    gguf_close(g);
    return spec;
}

static void same_text(const char *a, const char *b)
{
    assert_int_equal(a == NULL, b == NULL);
    if (a)
        assert_string_equal(a, b);
}

static void same_spec(const tok_spec *a, const tok_spec *b)
{
    assert_int_equal(a->n_tokens, b->n_tokens);
    assert_int_equal(a->n_merges, b->n_merges);
    assert_int_equal(a->n_added, b->n_added);
    assert_int_equal(a->n_patterns, b->n_patterns);
    for (int32_t i = 0; i < a->n_tokens; i++)
        same_text(a->tokens[i], b->tokens[i]);
    for (int32_t i = 0; i < a->n_merges; i++)
        assert_string_equal(a->merges[i], b->merges[i]);
    for (int32_t i = 0; i < a->n_patterns; i++)
        assert_string_equal(a->patterns[i], b->patterns[i]);
    for (int32_t i = 0; i < a->n_added; i++) {
        const tok_added *x = &a->added[i], *y = &b->added[i];
        assert_string_equal(x->text, y->text);
        assert_true(x->id == y->id && x->special == y->special && x->normalized == y->normalized &&
                    x->lstrip == y->lstrip && x->rstrip == y->rstrip &&
                    x->single_word == y->single_word);
    }
    assert_true(a->nfc == b->nfc && a->ignore_merges == b->ignore_merges &&
                a->add_prefix_space == b->add_prefix_space && a->add_bos == b->add_bos);
    assert_true(a->bos == b->bos && a->eos == b->eos && a->unk == b->unk && a->pad == b->pad);
    same_text(a->pre, b->pre);
    same_text(a->chat_template, b->chat_template);
}

static void remove_written(const scratch *s)
{
    remove(scratch_path(s, "tokenizer.json"));
    remove(scratch_path(s, "tokenizer_config.json"));
}

static void test_hf_and_back(void **state)
{
    scratch *s = *state;
    tok_spec *spec = read_spec(token_vector("small"));
    spec->eos = 2002;
    spec->bos = 2000;
    spec->add_bos = true;
    spec->chat_template = base_strdup("{{ \"\\\" }}\n\t\x01");
    assert_non_null(spec->chat_template);
    remove_written(s);
    assert_int_equal(tok_spec_write_hf(spec, s->folder, NULL), MARCO_OK);
    tok_spec *back = read_spec(s->folder);
    same_spec(spec, back);
    tok_spec_free(back);
    tok_spec_free(spec);
    remove_written(s);
}

/* The small tokenizer without what GGUF has no place for. */
static tok_spec *gguf_spec(void)
{
    tok_spec *spec = read_spec(token_vector("small"));
    int32_t kept = 0;
    for (int32_t i = 0; i < spec->n_added; i++) {
        tok_added *a = &spec->added[i];
        if (a->normalized || a->lstrip || a->rstrip || a->single_word)
            base_free(a->text);
        else
            spec->added[kept++] = *a;
    }
    spec->n_added = kept;
    spec->eos = spec->pad = 2002;
    return spec;
}

static void test_gguf_and_back(void **state)
{
    scratch *s = *state;
    const char *path = scratch_path(s, "t.gguf");
    tok_spec *spec = gguf_spec(), *back;
    spec->chat_template = base_strdup("{{ template }}");
    assert_int_equal(write_gguf(spec, path, 2100, NULL), MARCO_OK);
    back = read_gguf(path);
    same_spec(spec, back);
    tok_spec_free(back);
    marco_tokenizer *t = open_tokenizer(path);
    assert_int_equal(marco_tokenizer_size(t), 2007);
    marco_tokenizer_close(t);
    /* And on to a folder: the added tokens' ids have a gap, which HF would close if they were not
     * in the vocabulary too. */
    remove_written(s);
    back = read_gguf(path);
    assert_int_equal(tok_spec_write_hf(back, s->folder, NULL), MARCO_OK);
    tok_spec *folder = read_spec(s->folder);
    assert_int_equal(folder->n_added, spec->n_added);
    assert_int_equal(folder->added[3].id, spec->added[3].id);
    json_t *root = json_load_file(scratch_path(s, "tokenizer.json"), 0, NULL);
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    assert_int_equal(json_integer_value(json_object_get(vocab, "<tool_call>")), 2006);
    json_decref(root);
    tok_spec_free(folder);
    tok_spec_free(back);
    tok_spec_free(spec);
    remove_written(s);
}

static void test_gguf_refusals(void **state)
{
    const char *path = scratch_path(*state, "no.gguf");
    marco_error error;
    tok_spec *spec = read_spec(token_vector("small"));
    assert_int_equal(write_gguf(spec, path, 2100, &error), MARCO_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "'[MASK]' is lstrip"));
    tok_spec_free(spec);
    spec = gguf_spec();
    assert_int_equal(write_gguf(spec, path, 2006, &error), MARCO_ERROR_ARGUMENT);
    spec->pad = 2100;
    assert_int_equal(write_gguf(spec, path, 2100, &error), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "padding token 2100"));
    spec->pad = 2099;
    assert_int_equal(write_gguf(spec, path, 2100, &error), MARCO_OK);
    base_free(spec->pre);
    spec->pre = NULL;
    assert_int_equal(write_gguf(spec, path, 2100, &error), MARCO_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "split pattern"));
    tok_spec_free(spec);
}

/* A GGUF whose tokenizer has the three tokens "a", "b", "<c>" of these types, and two of padding.
 */
static void gguf_with(const scratch *s, const char *model, const char *pre, const int32_t types[3],
                      const char *key, uint32_t id, marco_status status, const char *message)
{
    static const gguf_string tokens[] = {
        {"a", 1}, {"b", 1}, {"<c>", 3}, {"[PAD3]", 6}, {"[PAD4]", 6}};
    const int32_t all[] = {types[0], types[1], types[2], 5, 5};
    const char *path = scratch_path(s, "types.gguf");
    gguf_writer *w;
    marco_tokenizer *t = NULL;
    marco_error error = {0};
    assert_int_equal(gguf_writer_create(path, true, &w, NULL), MARCO_OK);
    gguf_put_string(w, "general.architecture", "none");
    gguf_put_string(w, "tokenizer.ggml.model", model);
    gguf_put_string(w, "tokenizer.ggml.pre", pre);
    gguf_put_array_string(w, "tokenizer.ggml.tokens", tokens, 5);
    gguf_put_array_i32(w, "tokenizer.ggml.token_type", all, 5);
    gguf_put_u32(w, key, id);
    assert_int_equal(gguf_writer_begin(w, NULL), MARCO_OK);
    assert_int_equal(gguf_writer_commit(w, NULL), MARCO_OK);
    assert_int_equal(marco_tokenizer_open(path, &t, &error), status);
    if (status) {
        if (!strstr(error.message, message))
            fail_msg("%s", error.message);
        return;
    }
    assert_int_equal(marco_tokenizer_size(t), 3);
    assert_true(marco_tokenizer_is_special(t, 2));
    assert_false(marco_tokenizer_is_special(t, 1));
    assert_int_equal(marco_tokenizer_find(t, "<c>"), 2);
    assert_int_equal(marco_tokenizer_find(t, "b"), types[1] == 5 ? -1 : 1);
    marco_tokenizer_close(t);
}

#define KEY(name) "tokenizer.ggml." name "_token_id"

static void test_gguf_types(void **state)
{
    const scratch *s = *state;
    const marco_status no = MARCO_ERROR_UNSUPPORTED;
    const int32_t types[] = {1, 1, 3};
    gguf_with(s, "gpt2", "qwen2", types, KEY("eos"), 2, MARCO_OK, NULL);
    gguf_with(s, "gpt2", "gpt-2", (int32_t[]){1, 5, 3}, KEY("eos"), 2, MARCO_OK, NULL);
    gguf_with(s, "llama", "qwen2", types, KEY("eos"), 2, no, "'llama'");
    gguf_with(s, "gpt2", "falcon", types, KEY("eos"), 2, no, "'falcon'");
    gguf_with(s, "gpt2", "", types, KEY("eos"), 2, no, "pre");
    gguf_with(s, "gpt2", "qwen2", (int32_t[]){1, 6, 3}, KEY("eos"), 2, no, "type 6");
}

static void test_gguf_ids(void **state)
{
    const scratch *s = *state;
    const int32_t types[] = {1, 1, 3};
    static const struct {
        const char *key, *message; /* of the first id refused */
        uint32_t refused;
    } cases[] = {{KEY("bos"), "bos_token_id is 3, outside the allowed 0 to 2", 3},
                 {KEY("eos"), "eos_token_id is 3, outside the allowed 0 to 2", 3},
                 {KEY("unknown"), "unknown_token_id is 5, outside the allowed 0 to 4", 5},
                 {KEY("padding"), "padding_token_id is 5, outside the allowed 0 to 4", 5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gguf_with(s, "gpt2", "qwen2", types, cases[i].key, cases[i].refused - 1, MARCO_OK, NULL);
        gguf_with(s, "gpt2", "qwen2", types, cases[i].key, cases[i].refused, MARCO_ERROR_FORMAT,
                  cases[i].message);
    }
}

static void test_bytes(void **state)
{
    tok_spec *spec, *back;
    assert_int_equal(tok_spec_bytes(&spec, NULL), MARCO_OK);
    const char *path = scratch_path(*state, "bytes.gguf");
    assert_int_equal(write_gguf(spec, path, 259, NULL), MARCO_OK);
    back = read_gguf(path);
    same_spec(spec, back);
    tok_spec_free(back);
    marco_tokenizer *t;
    assert_int_equal(tok_compile(spec, &t, NULL), MARCO_OK);
    assert_int_equal(marco_tokenizer_size(t), 259);
    assert_string_equal(marco_tokenizer_chat_template(t), "chatml");
    int32_t *ids;
    size_t n;
    assert_int_equal(
        marco_tokenizer_encode(t, "\xFFz<|im_end|>", 12, MARCO_ENCODE_SPECIAL, &ids, &n, NULL),
        MARCO_OK);
    assert_int_equal(n, 3);
    assert_int_equal(ids[0], 0xFF);
    assert_int_equal(ids[1], 'z');
    assert_int_equal(ids[2], 258);
    marco_free(ids);
    marco_tokenizer_close(t);
}

/* ---- out of memory ------------------------------------------------------------------------- */

static const char tiny[] =
    "{\"added_tokens\": [{\"id\": 9, \"content\": \"<x>\", \"special\": true, \"normalized\": "
    "true}], "
    "\"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": {\"type\": \"ByteLevel\", "
    "\"add_prefix_space\": true}, \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": "
    "\"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"\xC4\xA0\": 3, \"\xC3\x8C\": 4, "
    "\"\xC4\xA3\": 5}, \"merges\": [\"a b\"]}}";

/* Opens, encodes both ways and decodes; every failure must be out of memory. */
static marco_status whole_way(const char *path)
{
    marco_tokenizer *t = NULL;
    marco_detokenizer *d = NULL;
    int32_t *ids = NULL;
    size_t n = 0, size;
    char *text = NULL;
    const char *piece;
    tok_ids out = {0};
    const tok_segment segments[] = {{"<x>a", 4, true}, {"\xCC\x81<x>", 5, false}};
    marco_status status = marco_tokenizer_open(path, &t, NULL);
    if (!status)
        status = marco_tokenizer_encode(t, "ab<x>a\xCC\x81\xCC\xA3 ab", 14, MARCO_ENCODE_SPECIAL,
                                        &ids, &n, NULL);
    if (!status)
        status = tok_encode_segments(t, segments, 2, 0, &out, NULL);
    if (!status)
        status = marco_tokenizer_decode(t, ids, n, true, &text, &size, NULL);
    if (!status)
        status = marco_detokenizer_create(t, true, &d, NULL);
    for (size_t i = 0; !status && i < n; i++)
        status = marco_detokenizer_add(d, ids[i], &piece, &size, NULL);
    if (!status)
        status = marco_detokenizer_flush(d, &piece, &size, NULL);
    marco_detokenizer_close(d);
    base_free(out.items);
    marco_free(text);
    marco_free(ids);
    marco_tokenizer_close(t);
    return status;
}

static void until_enough(const char *path)
{
    marco_status status = MARCO_ERROR_MEMORY;
    uint64_t n = 0;
    while (status) {
        assert_true(++n < 20000);
        base_alloc_fail_at(n);
        status = whole_way(path);
        base_alloc_fail_at(0);
        if (status)
            assert_int_equal(status, MARCO_ERROR_MEMORY);
    }
    assert_true(n > 50);
}

static void test_out_of_memory(void **state)
{
    scratch *s = *state;
    const char *path = scratch_path(s, "tiny.json");
    write_text(path, tiny);
    until_enough(path);
    tok_spec *spec = NULL;
    assert_int_equal(tok_spec_read_hf(path, &spec, NULL), MARCO_OK);
    for (uint64_t n = 1;; n++) {
        remove_written(s);
        base_alloc_fail_at(n);
        marco_status status = tok_spec_write_hf(spec, s->folder, NULL);
        base_alloc_fail_at(0);
        if (!status)
            break;
        assert_int_equal(status, MARCO_ERROR_MEMORY);
    }
    tok_spec_free(spec);
    write_text(scratch_path(s, "chat_template.jinja"), "T");
    until_enough(s->folder);
    remove(scratch_path(s, "chat_template.jinja"));
    remove_written(s);
    for (uint64_t n = 1;; n++) {
        base_alloc_fail_at(n);
        marco_status status = tok_spec_bytes(&spec, NULL);
        base_alloc_fail_at(0);
        if (!status)
            break;
        assert_int_equal(status, MARCO_ERROR_MEMORY);
    }
    const char *gguf_path = scratch_path(s, "bytes.gguf");
    assert_int_equal(write_gguf(spec, gguf_path, 300, NULL), MARCO_OK);
    tok_spec_free(spec);
    until_enough(gguf_path);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unsupported),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_size_limit),
        cmocka_unit_test(test_tokens_with_an_absorbing_word),
        cmocka_unit_test(test_merges_that_collide),
        cmocka_unit_test(test_costly_pattern_is_an_error),
        cmocka_unit_test(test_special_by_merging_is_not_had),
        cmocka_unit_test(test_ignore_merges),
        cmocka_unit_test(test_white_space_is_unicodes),
        cmocka_unit_test(test_leftmost_pair_first),
        cmocka_unit_test(test_prefix_space),
        cmocka_unit_test(test_merges_as_text),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_hf_and_back),
        cmocka_unit_test(test_gguf_and_back),
        cmocka_unit_test(test_gguf_refusals),
        cmocka_unit_test(test_gguf_types),
        cmocka_unit_test(test_gguf_ids),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
