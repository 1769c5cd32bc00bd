#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* No prompt, chat or template is this long; a device file given by mistake would be. */
enum { MAX_TEXT = 1 << 30 };

bool text_append(text *t, const char *data, size_t size)
{
    if (size > MAX_TEXT || t->size > MAX_TEXT)
        return false;
    /* Room for a power of two, so that appending piece by piece stays linear. */
    size_t need = t->size + size + 1;
    size_t room = 64;
    while (room < need)
        room *= 2;
    size_t had = 64;
    while (had < t->size + 1)
        had *= 2;
    if (!t->data || room != had) {
        char *grown = realloc(t->data, room);
        if (!grown)
            return false;
        t->data = grown;
    }
    if (size)
        memcpy(t->data + t->size, data, size);
    t->size += size;
    t->data[t->size] = '\0';
    return true;
}

int text_read(const command *self, const char *path, text *out)
{
    *out = (text){0};
    bool standard = strcmp(path, "-") == 0;
    const char *name = standard ? "standard input" : path;
    FILE *file = standard ? stdin : fopen(path, "rb");
    if (!file)
        return command_fail(self, "%s: %s", name, strerror(errno));
    char block[65536];
    size_t size;
    bool stored = text_append(out, "", 0);
    errno = 0;
    while (stored && (size = fread(block, 1, sizeof(block), file)) > 0)
        stored = text_append(out, block, size);
    int exit_status = EXIT_SUCCESS;
    if (!stored)
        exit_status = command_fail(self, "%s: larger than memory or 1 GiB", name);
    else if (ferror(file))
        exit_status = command_fail(self, "%s: %s", name, strerror(errno));
    if (!standard)
        fclose(file);
    if (exit_status != EXIT_SUCCESS) {
        free(out->data);
        *out = (text){0};
    }
    return exit_status;
}

static bool write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, data, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        data += written;
        size -= (size_t)written;
    }
    return true;
}

int text_write(const command *self, const char *path, const char *data, size_t size)
{
    int exit_status = EXIT_SUCCESS;
    size_t length = strlen(path);
    char *temporary = malloc(length + sizeof(".XXXXXX"));
    if (!temporary)
        return command_fail(self, "%s: out of memory", path);
    memcpy(temporary, path, length);
    memcpy(temporary + length, ".XXXXXX", sizeof(".XXXXXX"));
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0) {
        exit_status = command_fail(self, "%s: %s", path, strerror(errno));
        goto done;
    }
    /* As mkostemp made it: what people tell a model is theirs alone to read. */
    bool written = write_all(fd, data, size) && fsync(fd) == 0;
    int cause = errno;
    if (close(fd) != 0 && written) {
        written = false;
        cause = errno;
    }
    if (written && rename(temporary, path) != 0) {
        written = false;
        cause = errno;
    }
    if (!written) {
        unlink(temporary);
        exit_status = command_fail(self, "%s: %s", path, strerror(cause));
    }
done:
    free(temporary);
    return exit_status;
}

int text_prompt(const command *self, const char *given, const char *path, text *out)
{
    *out = (text){0};
    if (given && path)
        return command_misused(self, "-p and -f exclude each other");
    int exit_status = EXIT_SUCCESS;
    if (given) {
        if (!text_append(out, given, strlen(given)))
            return command_fail(self, "out of memory");
    } else {
        if (!path && isatty(STDIN_FILENO))
            fprintf(stderr, "marco %s: type the prompt, then Ctrl-D\n", self->name);
        exit_status = text_read(self, path ? path : "-", out);
        if (exit_status != EXIT_SUCCESS)
            return exit_status;
        if (out->size > 0 && out->data[out->size - 1] == '\n')
            out->size--;
        if (out->size > 0 && out->data[out->size - 1] == '\r')
            out->size--;
        out->data[out->size] = '\0';
    }
    if (out->size == 0) {
        free(out->data);
        *out = (text){0};
        return command_fail(self, "%s: the prompt is empty",
                            given  ? "-p"
                            : path ? path
                                   : "standard input");
    }
    return EXIT_SUCCESS;
}

/* The length of the UTF-8 character at data, or 0 (Unicode 15, table 3-7). */
static size_t utf8_character(const unsigned char *data, size_t size)
{
    unsigned char c = data[0];
    if (c < 0x80)
        return 1;
    size_t n = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
    if (c < 0xC2 || c > 0xF4 || n > size)
        return 0;
    unsigned char low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
    unsigned char high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    if (data[1] < low || data[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++) {
        if ((data[i] & 0xC0) != 0x80)
            return 0;
    }
    return n;
}

size_t utf8_invalid(const char *data, size_t size)
{
    size_t at = 0;
    while (at < size) {
        size_t n = utf8_character((const unsigned char *)data + at, size - at);
        if (n == 0)
            break;
        at += n;
    }
    return at;
}

json_t *json_text(const char *data, size_t size)
{
    if (utf8_invalid(data, size) == size)
        return json_stringn_nocheck(data, size);
    text clean = {0};
    bool stored = true;
    while (stored && size > 0) {
        size_t valid = utf8_invalid(data, size);
        stored = text_append(&clean, data, valid);
        if (stored && valid < size)
            stored = text_append(&clean, "\xEF\xBF\xBD", 3);
        size_t step = valid < size ? valid + 1 : valid;
        data += step;
        size -= step;
    }
    json_t *result = stored ? json_stringn_nocheck(clean.data, clean.size) : NULL;
    free(clean.data);
    return result;
}

int json_line(const command *self, json_t *value)
{
    if (!value || json_dumpf(value, stdout, JSON_COMPACT | JSON_ENCODE_ANY) != 0) {
        json_decref(value);
        return ferror(stdout) ? EXIT_SUCCESS /* reported at the end */
                              : command_fail(self, "out of memory");
    }
    fputc('\n', stdout);
    json_decref(value);
    return EXIT_SUCCESS;
}
