/* Any bytes as a safetensors file; bytes that begin with '{' as an index beside two shards. What
 * opens must be readable as it says. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "format/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const folder_files[] = {"one.safetensors", "two.safetensors",
                                           "model.safetensors.index.json"};

static char folder[] = "fuzz_safetensors_XXXXXX";

static void put_file(const char *name, const void *data, size_t size)
{
    char *path = base_path_join(folder, name);
    FILE *file = path ? fopen(path, "wb") : NULL;
    if (!file || fwrite(data, 1, size, file) != size || fclose(file) != 0)
        abort();
    base_free(path);
}

static void remove_folder(void)
{
    for (size_t i = 0; i < sizeof folder_files / sizeof folder_files[0]; i++) {
        char *path = base_path_join(folder, folder_files[i]);
        if (path)
            unlink(path);
        base_free(path);
    }
    rmdir(folder);
}

/* A tensor of `size` bytes alone in its file. */
static void put_shard(const char *name, const char *header, size_t size)
{
    char bytes[128] = {0};
    bytes[0] = (char)strlen(header);
    memcpy(bytes + 8, header, strlen(header));
    put_file(name, bytes, 8 + strlen(header) + size);
}

static void make_folder(void)
{
    if (!mkdtemp(folder))
        abort();
    atexit(remove_folder);
    put_shard("one.safetensors", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
              4);
    put_shard("two.safetensors", "{\"b\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]}}",
              2);
}

static void read_tensor(const safetensors_tensor *t)
{
    static char buffer[4096];
    for (uint64_t at = 0; at < t->bytes;) {
        size_t n = t->bytes - at < sizeof buffer ? (size_t)(t->bytes - at) : sizeof buffer;
        if (base_file_read(t->file, t->offset + at, buffer, n, NULL))
            abort();
        at += n;
    }
}

static void check(safetensors *s)
{
    for (size_t i = 0; i < safetensors_count(s); i++) {
        const safetensors_tensor *t = safetensors_at(s, i);
        if (safetensors_find(s, t->name) != t)
            abort();
        read_tensor(t);
    }
    safetensors_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool made;
    char path[64];
    safetensors *s;
    marco_error error;
    if (!made) {
        make_folder();
        made = true;
    }
    if (size && data[0] == '{') {
        put_file("model.safetensors.index.json", data, size);
        if (safetensors_open_folder(folder, &s, &error) == MARCO_OK)
            check(s);
        return 0;
    }
    int fd = memfd_create("safetensors", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (safetensors_open(path, &s, &error) == MARCO_OK)
        check(s);
    close(fd);
    return 0;
}
