/* The grammars of the public interface. */
#include <string.h>

#include "format/json.h"
#include "grammar/internal.h"
#include "grammar/memo.h"
#include "grammar/schema.h"

void marco_grammar_free(marco_grammar *grammar)
{
    if (!grammar)
        return;
    gr_memo_free(atomic_load(&grammar->memo));
    base_free(grammar->nodes);
    base_free(grammar->edges);
    base_free(grammar->calls);
    base_free(grammar->table);
    base_free(grammar);
}

/* The first string with U+0000, or NULL: what is left of it would be taken for the whole. */
static const json_t *find_nul(const json_t *value)
{
    json_t *members = (json_t *)value, *member;
    const json_t *found = NULL;
    const char *key;
    size_t i;
    if (json_is_string(value) && strlen(json_string_value(value)) != json_string_length(value))
        return value;
    json_object_foreach(members, key, member) if ((found = find_nul(member))) break;
    json_array_foreach(value, i, member) if ((found = find_nul(member))) break;
    return found;
}

static marco_status refuse_nul(const char *name, const json_t *root, const json_t *nul,
                               marco_error *error)
{
    char place[200];
    gr_build none = {0};
    gr_place(&(gr_schemas){.b = &none, .root = root, .prefix = "#"}, nul, place);
    return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                     "%s: %s: a string with U+0000 (\\u0000); leave the character out", name,
                     place);
}

/* A text that is no JSON by its error so far, unless it is a number that is too large. That is
 * JSON, but as a double it would be another number, and replies held to it wrong. */
static marco_status refuse_large_number(const char *name, const char *text, size_t size,
                                        marco_error *error)
{
    json_error_t problem = {0};
    json_decref(json_loadb(text, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &problem));
    if (json_error_code(&problem) != json_error_numeric_overflow)
        return MARCO_ERROR_FORMAT;
    return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                     "%s: line %d, column %d: a number that 64 bits do not hold is not supported",
                     name, problem.line, problem.column);
}

static marco_status parse(const char *name, const char *text, size_t size, json_t **out,
                          marco_error *error)
{
    *out = NULL;
    if (size > GR_MAX_SCHEMA)
        return base_fail(error, MARCO_ERROR_UNSUPPORTED, "%s: %zu bytes; at most %d are supported",
                         name, size, GR_MAX_SCHEMA);
    marco_status status = format_json_text(name, text, size, out, error);
    if (status == MARCO_ERROR_FORMAT)
        return refuse_large_number(name, text, size, error);
    const json_t *nul = status ? NULL : find_nul(*out);
    if (!nul)
        return status;
    status = refuse_nul(name, *out, nul, error);
    json_decref(*out);
    *out = NULL;
    return status;
}

marco_status marco_grammar_from_schema(const char *schema, size_t size, marco_grammar **out,
                                       marco_error *error)
{
    json_t *root;
    gr_build b;
    *out = NULL;
    marco_status status = parse("the JSON schema", schema, size, &root, error);
    if (status)
        return status;
    gr_build_begin(&b, error);
    int32_t rule = GR_RULE_VALUE;
    if (!json_is_object(root) && !json_is_boolean(root)) {
        gr_fail(&b, MARCO_ERROR_ARGUMENT, "a JSON schema must be an object or a boolean");
    } else {
        const json_t *schemas[1] = {root};
        rule = gr_schema_rule(&b, root, schemas, 1, "#");
    }
    status = gr_build_end(&b, rule, out);
    json_decref(root);
    return status;
}

marco_status marco_grammar_json_object(marco_grammar **out, marco_error *error)
{
    gr_build b;
    gr_build_begin(&b, error);
    return gr_build_end(&b, GR_RULE_OBJECT, out);
}

/* ---- tools --------------------------------------------------------------------------------- */

/* A definition's name, which must be a string that is not empty; NULL and an error otherwise. */
static const json_t *tool_name(gr_build *b, const json_t *function, size_t index)
{
    const json_t *name = json_object_get(function, "name");
    if (!json_is_string(name) || json_string_length(name) == 0) {
        gr_fail(b, MARCO_ERROR_ARGUMENT, "tools[%zu]: a tool must have a 'function' with a 'name'",
                index);
        return NULL;
    }
    return name;
}

/* Adds {"name": "...", "arguments": {...}} of a tool. */
static void add_tool(gr_nfa *nfa, int32_t from, int32_t to, json_t *function, const json_t *name,
                     size_t index, const json_t *object)
{
    static const char before[] = "{\"name\":", between[] = "\"arguments\":";
    gr_build *b = nfa->b;
    char prefix[40];
    json_t *parameters = json_object_get(function, "parameters");
    const json_t *schemas[2] = {parameters, object};
    snprintf(prefix, sizeof prefix, "tools[%zu].parameters#", index);
    int32_t rule;
    if (json_is_object(parameters)) {
        rule = gr_schema_rule(b, parameters, schemas, 2, prefix);
    } else if (!parameters || json_is_null(parameters)) {
        rule = gr_rule_new(b);
        gr_nfa none = {.b = b};
        int32_t start = gr_nfa_state(&none), end = gr_nfa_bytes(&none, start, "{}", 2);
        gr_emit_rule(b, rule, gr_bad(b) ? NULL : gr_dfa_of(&none, start, end, GR_NONE, true));
    } else {
        gr_fail(b, MARCO_ERROR_ARGUMENT, "tools[%zu]: 'parameters' must be a schema", index);
        return;
    }
    if (gr_bad(b))
        return;
    int32_t at = gr_nfa_bytes(nfa, from, before, sizeof before - 2);
    at = gr_value_add(nfa, gr_separator(nfa, at, ':'), name, 0);
    at = gr_nfa_bytes(nfa, gr_separator(nfa, at, ','), between, sizeof between - 2);
    at = gr_nfa_call(nfa, gr_separator(nfa, at, ':'), rule);
    gr_nfa_empty(nfa, gr_nfa_bytes(nfa, at, "}", 1), to);
}

static int32_t tools_rule(gr_build *b, json_t *tools, const char *wanted, bool several,
                          const json_t *object)
{
    static const char open[] = "<tool_call>\n", close[] = "\n</tool_call>";
    gr_nfa nfa = {.b = b};
    size_t n = 0;
    json_t *tool;
    size_t i;
    int32_t rule = gr_rule_new(b), accept = gr_nfa_state(&nfa), start = gr_nfa_state(&nfa);
    int32_t first = gr_nfa_bytes(&nfa, start, open, sizeof open - 1), last = gr_nfa_state(&nfa);
    json_array_foreach(tools, i, tool)
    {
        json_t *function = json_object_get(tool, "function");
        const json_t *name = gr_bad(b) ? NULL : tool_name(b, function, i);
        if (!name || (wanted && strcmp(json_string_value(name), wanted) != 0))
            continue;
        add_tool(&nfa, first, last, function, name, i, object);
        n++;
    }
    if (n == 0)
        gr_fail(b, MARCO_ERROR_ARGUMENT, "there is no tool%s%.60s%s", wanted ? " named '" : "",
                wanted ? wanted : "", wanted ? "'" : "");
    if (gr_bad(b))
        return rule;
    int32_t end = gr_nfa_bytes(&nfa, last, close, sizeof close - 1);
    gr_nfa_empty(&nfa, end, accept);
    if (several)
        gr_nfa_empty(&nfa, gr_nfa_bytes(&nfa, end, "\n", 1), start);
    gr_emit_rule(b, rule, gr_bad(b) ? NULL : gr_dfa_of(&nfa, start, accept, GR_NONE, true));
    return rule;
}

marco_status marco_grammar_from_tools(const char *tools, size_t size, const char *name,
                                      bool several, marco_grammar **out, marco_error *error)
{
    json_t *list;
    gr_build b;
    *out = NULL;
    marco_status status = parse("tools", tools, size, &list, error);
    if (status)
        return status;
    gr_build_begin(&b, error);
    json_t *object = json_pack("{s:s}", "type", "object");
    int32_t rule = GR_RULE_VALUE;
    if (!object)
        gr_fail(&b, MARCO_ERROR_MEMORY, "out of memory (for a grammar)");
    else if (!json_is_array(list))
        gr_fail(&b, MARCO_ERROR_ARGUMENT, "tools must be an array");
    else
        rule = tools_rule(&b, list, name, several, object);
    status = gr_build_end(&b, rule, out);
    json_decref(object);
    json_decref(list);
    return status;
}
