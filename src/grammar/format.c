/* The formats of JSON Schema's format vocabulary, as patterns. Each accepts a part of what its
 * standard allows, on which validators agree, and bounds the length. */
#include <string.h>

#include "grammar/schema.h"

#define DATE                                                                                       \
    "(\\d{3}[1-9]|\\d\\d[1-9]\\d|\\d[1-9]\\d\\d|[1-9]\\d{3})-"                                     \
    "((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|"                    \
    "02-(0[1-9]|1\\d|2[0-8]))"
#define TIME     "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)"
#define LABEL    "[A-Za-z0-9](-?[A-Za-z0-9]){0,30}"
#define TOP      "[A-Za-z](-?[A-Za-z0-9]){1,30}"
#define HOST     "(" LABEL "\\.){0,3}" TOP
#define BYTE     "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define IPV4     BYTE "(\\." BYTE "){3}"
#define H16      "[0-9a-fA-F]{1,4}"
#define DURATION "\\d{1,6}"
#define URI_CHAR "([A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})"
#define ATOM     "[A-Za-z0-9_%+-]{1,24}"

static const struct {
    const char *name, *pattern;
} formats[] = {
    {"date", DATE},
    {"time", TIME},
    {"date-time", DATE "T" TIME},
    {"duration", "P(" DURATION "W|(" DURATION "Y(" DURATION "M(" DURATION "D)?)?|" DURATION
                 "M(" DURATION "D)?|" DURATION "D)(T(" DURATION "H(" DURATION "M(" DURATION
                 "S)?)?|" DURATION "M(" DURATION "S)?|" DURATION "S))?|T(" DURATION "H(" DURATION
                 "M(" DURATION "S)?)?|" DURATION "M(" DURATION "S)?|" DURATION "S))"},
    {"uuid", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"},
    {"email", ATOM "(\\." ATOM "){0,3}@(" LABEL "\\.){1,3}" TOP},
    {"idn-email", ATOM "(\\." ATOM "){0,3}@(" LABEL "\\.){1,3}" TOP},
    {"hostname", HOST},
    {"idn-hostname", HOST},
    {"ipv4", IPV4},
    {"ipv6", "(" H16 ":){7}" H16 "|::|(" H16 ":){1,7}:|::" H16 "(:" H16 "){0,6}|" H16 "::" H16
             "(:" H16 "){0,4}|" H16 ":" H16 "::" H16 "(:" H16 "){0,3}"},
    {"uri", "[a-z][a-z0-9+-]{1,12}://" HOST "(:\\d{1,4})?(/" URI_CHAR "{0,200}(\\?" URI_CHAR
            "{0,100})?(#" URI_CHAR "{0,60})?)?"},
    {"uri-reference",
     "/"
     "([A-Za-z0-9._~-]" URI_CHAR "{0,200})?(\\?" URI_CHAR "{0,100})?(#" URI_CHAR "{0,60})?"},
    {"json-pointer", "(/([^~/]|~[01]){0,60}){0,16}"},
};

enum { N_FORMATS = sizeof formats / sizeof formats[0] };

gr_dfa *gr_format(gr_schemas *s, const json_t *schema, const char *name)
{
    gr_build *b = s->b;
    char place[200];
    base_text text = {0};
    gr_dfa *dfa = NULL;
    for (size_t i = 0; i < N_FORMATS; i++) {
        if (strcmp(formats[i].name, name) != 0)
            continue;
        base_text_printf(&text, "^(%s)$", formats[i].pattern);
        if (text.failed)
            b->status = base_fail_memory(b->error, text.capacity, "a pattern");
        else
            dfa = gr_pattern(s, schema, text.data, text.size);
        base_text_free(&text);
        return dfa;
    }
    for (size_t i = 0; i < N_FORMATS; i++)
        base_text_printf(&text, "%s%s", i ? ", " : "", formats[i].name);
    gr_place(s, schema, place);
    gr_fail(b, MARCO_ERROR_UNSUPPORTED, "%s: the format '%.60s' is not supported; these are: %s",
            place, name, text.failed ? "" : text.data);
    base_text_free(&text);
    return NULL;
}
