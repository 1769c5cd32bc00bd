/* Any bytes as a GGUF file: what opens must be readable as it says. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "format/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads every byte that a value points to; the sum keeps the reads from being left out. */
static unsigned touch(const gguf_value *value)
{
    unsigned sum = 0;
    if (value->type == GGUF_STRING)
        for (size_t i = 0; i < value->string.size; i++)
            sum += (unsigned char)value->string.data[i];
    if (value->type != GGUF_ARRAY)
        return sum;
    const uint8_t *numbers = value->array.data;
    for (uint64_t i = 0; i < value->array.n; i++) {
        if (value->array.type == GGUF_STRING)
            for (size_t j = 0; j < value->array.strings[i].size; j++)
                sum += (unsigned char)value->array.strings[i].data[j];
        else
            sum += numbers[i];
    }
    return sum;
}

static void look_up(const gguf *g, const char *key)
{
    int64_t i;
    double f;
    bool b;
    gguf_string s;
    const gguf_value *array;
    gguf_get_int(g, key, -5, 5, &i, NULL);
    gguf_get_real(g, key, -5, 5, &f, NULL);
    gguf_get_bool(g, key, &b, NULL);
    gguf_get_string(g, key, &s, NULL);
    gguf_get_array(g, key, GGUF_STRING, &array, NULL);
}

static void read_tensor(const gguf *g, const gguf_tensor *t)
{
    static char buffer[4096];
    for (uint64_t at = 0; at < t->bytes;) {
        size_t n = t->bytes - at < sizeof buffer ? (size_t)(t->bytes - at) : sizeof buffer;
        if (base_file_read(gguf_file(g), t->offset + at, buffer, n, NULL))
            abort();
        at += n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    gguf *g;
    marco_error error;
    unsigned sum = 0;
    int fd = memfd_create("gguf", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (gguf_open(path, &g, &error) == MARCO_OK) {
        const gguf_value *value;
        const char *key;
        for (size_t i = 0; (key = gguf_key(g, i, &value)); i++) {
            if (gguf_get(g, key) != value)
                abort();
            sum += touch(value);
            look_up(g, key);
        }
        for (size_t i = 0; i < gguf_tensor_count(g); i++) {
            const gguf_tensor *t = gguf_tensor_at(g, i);
            if (gguf_tensor_find(g, t->name) != t)
                abort();
            read_tensor(g, t);
        }
        gguf_close(g);
    }
    close(fd);
    /* No file is large enough to add up to this. */
    return sum == UINT32_MAX ? -1 : 0;
}
