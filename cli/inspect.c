/* marco inspect: what a checkpoint is made of. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"
#include "text.h"

struct inspect_options {
    const char *model;
    bool json;
};

static const cli_option options[] = {
    MODEL_OPTION(struct inspect_options, model),
    CLI_OPTION("json", 0, FLAG, NULL, struct inspect_options, json, 0,
               "The same as a JSON object, documented in docs/inspect.md."),
};

enum { MAX_COLUMNS = 12, NAME_WIDTH = 30 };

static bool ends_with(const char *word, const char *end)
{
    size_t n = strlen(word);
    size_t m = strlen(end);
    return n >= m && strcmp(word + n - m, end) == 0;
}

/* A value on one line: numbers of bytes and parameters also in short, arrays as 1024 x 512. */
static void describe(const char *key, json_t *value, text *out)
{
    char buffer[96] = "";
    char size[32];
    int64_t integer = json_integer_value(value);
    switch (json_typeof(value)) {
    case JSON_STRING:
        text_append(out, json_string_value(value), json_string_length(value));
        return;
    case JSON_INTEGER:
        if (strstr(key, "bytes"))
            snprintf(buffer, sizeof(buffer), "%s (%" PRId64 ")",
                     format_bytes((uint64_t)integer, size), integer);
        else if (ends_with(key, "params") && integer >= 1000000)
            snprintf(buffer, sizeof(buffer),
                     integer >= 1000000000 ? "%.2f B (%" PRId64 ")" : "%.1f M (%" PRId64 ")",
                     (double)integer / (integer >= 1000000000 ? 1e9 : 1e6), integer);
        else
            snprintf(buffer, sizeof(buffer), "%" PRId64, integer);
        break;
    case JSON_REAL:
        snprintf(buffer, sizeof(buffer), "%.9g", json_real_value(value));
        break;
    case JSON_TRUE:
        snprintf(buffer, sizeof(buffer), "yes");
        break;
    case JSON_FALSE:
        snprintf(buffer, sizeof(buffer), "no");
        break;
    case JSON_NULL:
        snprintf(buffer, sizeof(buffer), "-");
        break;
    case JSON_ARRAY: {
        bool numbers = json_is_integer(json_array_get(value, 0));
        for (size_t i = 0; i < json_array_size(value); i++) {
            if (i > 0)
                text_append(out, numbers ? " x " : ", ", numbers ? 3 : 2);
            describe(key, json_array_get(value, i), out);
        }
        return;
    }
    case JSON_OBJECT:
        return;
    }
    text_append(out, buffer, strlen(buffer));
}

static void print_value(const char *key, json_t *value, int width)
{
    text line = {0};
    describe(key, value, &line);
    size_t size = line.size;
    if (size > 0)
        print_safely(stdout, line.data, size);
    else
        size = (size_t)printf("-");
    for (int i = (int)size; i < width; i++)
        fputc(' ', stdout);
    free(line.data);
}

/* An array of objects, a row each; the columns are the first one's keys. */
static void print_table(json_t *rows)
{
    const char *keys[MAX_COLUMNS];
    int widths[MAX_COLUMNS];
    int n = 0;
    const char *key;
    json_t *value;
    json_object_foreach(json_array_get(rows, 0), key, value)
    {
        if (n == MAX_COLUMNS)
            break;
        keys[n] = key;
        widths[n++] = (int)strlen(key);
    }
    size_t r;
    json_t *row;
    json_array_foreach(rows, r, row)
    {
        for (int i = 0; i < n; i++) {
            text cell = {0};
            value = json_object_get(row, keys[i]);
            if (value)
                describe(keys[i], value, &cell);
            widths[i] = (int)cell.size > widths[i] ? (int)cell.size : widths[i];
            free(cell.data);
        }
    }
    for (int i = 0; i < n; i++)
        printf("  %-*s", i + 1 < n ? widths[i] : 0, keys[i]);
    fputc('\n', stdout);
    json_array_foreach(rows, r, row)
    {
        for (int i = 0; i < n; i++) {
            fputs("  ", stdout);
            value = json_object_get(row, keys[i]);
            if (value)
                print_value(keys[i], value, i + 1 < n ? widths[i] : 0);
        }
        fputc('\n', stdout);
    }
}

/* Plain values first, then what has parts. */
static void print_object(json_t *object, int indent)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        bool parts = json_is_object(value) ||
                     (json_is_array(value) && json_is_object(json_array_get(value, 0)));
        if (parts)
            continue;
        printf("%*s%-*s", indent, "", NAME_WIDTH - indent, key);
        print_value(key, value, 0);
        fputc('\n', stdout);
    }
    json_object_foreach(object, key, value)
    {
        if (json_is_object(value)) {
            printf("\n%*s%s\n", indent, "", key);
            print_object(value, indent + 2);
        } else if (json_is_array(value) && json_is_object(json_array_get(value, 0))) {
            printf("\n%*s%s (%zu)\n", indent, "", key, json_array_size(value));
            print_table(value);
        }
    }
}

static int run(const command *self, int argc, char **argv)
{
    struct inspect_options o = {0};
    int exit_status = 0;
    int n = options_parse(self, argc, argv, &o, &exit_status);
    if (n < 0)
        return exit_status;
    if (n == 1 && !o.model)
        o.model = argv[argc - 1];
    else if (n == 1)
        return command_misused(self, "unexpected argument '%s'", argv[argc - 1]);
    if (!o.model)
        return command_misused(self, "no model: give -m MODEL");
    char *found = NULL, *path = NULL;
    exit_status = load_find(self, o.model, &path);
    if (exit_status != EXIT_SUCCESS)
        return exit_status;
    marco_error error = {0};
    marco_status status = marco_inspect(path, &found, &error);
    marco_free(path);
    if (status != MARCO_OK)
        return command_status(self, status, &error);
    if (o.json) {
        printf("%s\n", found);
    } else {
        json_t *object = json_loads(found, 0, NULL);
        if (object)
            print_object(object, 0);
        else
            exit_status = command_fail(self, "out of memory");
        json_decref(object);
    }
    marco_free(found);
    return exit_status;
}

const command inspect_command = {
    .name = "inspect",
    .summary = "show what a checkpoint is made of",
    .synopsis = "-m MODEL [--json]",
    .details = "Shows architecture, sizes, active and total parameters, bytes read per token, the "
               "tokenizer and every tensor, without loading the weights.\n",
    .example = "marco inspect -m marco-mini.gguf\nmarco inspect -m Marco-Mini-Instruct --json\n",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .max_arguments = 1,
    .run = run,
};
