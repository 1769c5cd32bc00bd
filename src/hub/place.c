#include "hub/place.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/text.h"

enum { TOKEN_FILE_MAX = 4096 };

/* A variable that is set to something. */
static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && value[0] ? value : NULL;
}

bool hub_is_offline(void)
{
    static const char *const yes[] = {"1", "ON", "YES", "TRUE"};
    const char *value = variable("HF_HUB_OFFLINE");
    if (!value)
        value = variable("TRANSFORMERS_OFFLINE");
    for (size_t i = 0; value && i < sizeof yes / sizeof yes[0]; i++)
        if (strcasecmp(value, yes[i]) == 0)
            return true;
    return false;
}

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* A path with "~/" in front and $NAME or ${NAME} within replaced, as a shell would: not everything
 * that sets variables is one. Unknown names stay. */
static void expand(const char *path, base_text *out)
{
    const char *home = variable("HOME");
    if (path[0] == '~' && (path[1] == '/' || !path[1]) && home) {
        base_text_add(out, home);
        path++;
    }
    while (*path) {
        const char *name = path + (path[0] == '$' && path[1] == '{' ? 2 : 1);
        size_t n = 0;
        while (path[0] == '$' && is_name_char(name[n]))
            n++;
        size_t whole = (size_t)(name - path) + n + (path[1] == '{');
        char *copy = n > 0 && (path[1] != '{' || name[n] == '}') ? base_strndup(name, n) : NULL;
        const char *value = copy ? getenv(copy) : NULL;
        base_free(copy);
        if (value) {
            base_text_add(out, value);
            path += whole;
        } else {
            base_text_add_char(out, *path++);
        }
    }
}

/* HF_HOME, or its place in the user's cache. */
static void add_home(base_text *out)
{
    const char *home = variable("HF_HOME"), *cache = variable("XDG_CACHE_HOME");
    if (home) {
        expand(home, out);
    } else {
        expand(cache ? cache : "~/.cache", out);
        base_text_add(out, "/huggingface");
    }
}

static char *find_cache(void)
{
    base_text out = {0};
    const char *cache = variable("HF_HUB_CACHE");
    if (!cache)
        cache = variable("HUGGINGFACE_HUB_CACHE");
    if (cache) {
        expand(cache, &out);
    } else {
        add_home(&out);
        base_text_add(&out, "/hub");
    }
    return base_text_take(&out, NULL);
}

/* What a header can carry, without the white space around it; NULL in *token where nothing is left.
 */
static marco_status clean_token(const char *text, size_t size, const char *from, char **token,
                                marco_error *error)
{
    while (size > 0 && strchr(" \t\r\n", text[0]))
        text++, size--;
    while (size > 0 && strchr(" \t\r\n", text[size - 1]))
        size--;
    *token = NULL;
    if (size == 0)
        return MARCO_OK;
    for (size_t i = 0; i < size; i++)
        if (text[i] <= 0x20 || text[i] > 0x7E)
            return base_fail(error, MARCO_ERROR_ARGUMENT,
                             "%s: the token holds a character that no token has (at byte %zu)",
                             from, i + 1);
    *token = base_strndup(text, size);
    return *token ? MARCO_OK : base_fail_memory(error, size, "the token");
}

static marco_status find_token(char **token, marco_error *error)
{
    const char *value = variable("HF_TOKEN"), *path = variable("HF_TOKEN_PATH");
    if (!value)
        value = variable("HUGGING_FACE_HUB_TOKEN");
    if (value)
        return clean_token(value, strlen(value), "HF_TOKEN", token, error);
    base_text file = {0};
    if (path) {
        expand(path, &file);
    } else {
        add_home(&file);
        base_text_add(&file, "/token");
    }
    if (file.failed) {
        base_text_free(&file);
        return base_fail_memory(error, 256, "the token's path");
    }
    char *text = NULL;
    size_t size = 0;
    marco_error ignored;
    marco_status status = base_file_slurp(file.data, TOKEN_FILE_MAX, &text, &size, &ignored);
    if (status == MARCO_ERROR_NOT_FOUND) {
        status = MARCO_OK;
    } else if (status) {
        status = base_fail(error, status, "the token's file cannot be used: %s", ignored.message);
    } else {
        status = clean_token(text, size, file.data, token, error);
    }
    if (text)
        memset(text, 0, size);
    base_free(text);
    base_text_free(&file);
    return status;
}

static marco_status check_endpoint(char *endpoint, marco_error *error)
{
    size_t size = strlen(endpoint);
    while (size > 0 && endpoint[size - 1] == '/')
        endpoint[--size] = '\0';
    bool plain = strncmp(endpoint, "http://", 7) == 0, tls = strncmp(endpoint, "https://", 8) == 0;
    bool good = (plain && endpoint[7]) || (tls && endpoint[8]);
    for (size_t i = 0; i < size; i++)
        good = good && endpoint[i] > 0x20 && endpoint[i] < 0x7F && !strchr("?#@\\", endpoint[i]);
    if (!good)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "'%s' cannot be the hub's address: it has the form https://HOST, or "
                         "http://HOST:PORT",
                         endpoint);
    return MARCO_OK;
}

marco_status hub_place_find(const marco_hub_params *params, bool with_hub, hub_place *out,
                            marco_error *error)
{
    static const marco_hub_params none;
    marco_status status = MARCO_OK;
    *out = (hub_place){0};
    params = params ? params : &none;
    out->cache = params->cache ? base_strdup(params->cache) : find_cache();
    if (!out->cache)
        return base_fail_memory(error, 256, "the cache's path");
    if (!out->cache[0])
        return base_fail(error, MARCO_ERROR_ARGUMENT, "the cache's path is empty");
    if (!with_hub)
        return MARCO_OK;
    const char *endpoint = params->endpoint ? params->endpoint : variable("HF_ENDPOINT");
    out->endpoint = base_strdup(endpoint ? endpoint : "https://huggingface.co");
    if (!out->endpoint)
        return base_fail_memory(error, 256, "the hub's address");
    status = check_endpoint(out->endpoint, error);
    if (status)
        return status;
    if (params->token)
        return clean_token(params->token, strlen(params->token), "the token given", &out->token,
                           error);
    return find_token(&out->token, error);
}

void hub_place_free(hub_place *place)
{
    if (place->token)
        memset(place->token, 0, strlen(place->token));
    base_free(place->token);
    base_free(place->endpoint);
    base_free(place->cache);
    *place = (hub_place){0};
}
