#include "hub/api.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

enum { PAGES_MOST = 1000 };

/* Percent-encodes what has a meaning in addresses; '/' too unless `keep_slashes`. */
static void add_escaped(base_text *out, const char *text, bool keep_slashes)
{
    for (; *text; text++) {
        char c = *text;
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     strchr("-_.~", c) || (c == '/' && keep_slashes);
        if (plain)
            base_text_add_char(out, c);
        else
            base_text_printf(out, "%%%02X", (unsigned char)c);
    }
}

marco_status hub_api_commit(const hub_net *net, const hub_name *name, char *commit,
                            marco_error *error)
{
    base_text url = {0}, body = {0};
    char *next = NULL, what[HUB_MODEL_MAX + HUB_REVISION_MAX + 2];
    snprintf(what, sizeof what, name->given ? "%s@%s" : "%s", name->model, name->revision);
    base_text_printf(&url, "%s/api/models/%s/revision/", net->place->endpoint, name->model);
    add_escaped(&url, name->revision, false);
    marco_status status =
        url.failed ? base_fail_memory(error, url.size, what)
                   : hub_net_get(net, url.data, what, HUB_JSON_MOST, &body, &next, error);
    if (!status)
        status = hub_parse_commit(what, body.data ? body.data : "", body.size, commit, error);
    if (!status && hub_is_commit(name->revision) && strcmp(name->revision, commit) != 0)
        status = base_fail(error, MARCO_ERROR_FORMAT,
                           "%s: %s answers with another commit, %s: nothing was downloaded", what,
                           net->host, commit);
    base_free(next);
    base_text_free(&body);
    base_text_free(&url);
    return status;
}

marco_status hub_api_list(const hub_net *net, const char *model, const char *commit,
                          hub_listing *out, marco_error *error)
{
    base_text url = {0}, body = {0};
    marco_status status = MARCO_OK;
    *out = (hub_listing){0};
    base_text_printf(&url, "%s/api/models/%s/tree/%s?recursive=true&expand=false",
                     net->place->endpoint, model, commit);
    char *at = base_text_take(&url, NULL);
    if (!at)
        status = base_fail_memory(error, 256, model);
    for (int page = 0; at && !status; page++) {
        char *next = NULL;
        base_text_clear(&body);
        if (page == PAGES_MOST)
            status =
                base_fail(error, MARCO_ERROR_FORMAT, "%s: the list of files has no end", model);
        else
            status = hub_net_get(net, at, model, HUB_JSON_MOST, &body, &next, error);
        if (!status)
            status = hub_listing_add(out, model, body.data ? body.data : "", body.size, error);
        base_free(at);
        at = next;
    }
    base_free(at);
    base_text_free(&body);
    if (!status)
        status = hub_listing_finish(out, model, error);
    if (status)
        hub_listing_free(out);
    return status;
}

char *hub_api_file(const hub_net *net, const char *model, const char *commit, const char *path)
{
    base_text url = {0};
    base_text_printf(&url, "%s/%s/resolve/%s/", net->place->endpoint, model, commit);
    add_escaped(&url, path, true);
    return base_text_take(&url, NULL);
}
