/* Any bytes as a hub's answers, and as the cache's own list: what is accepted stays within the
 * model's folder, and is the same after it was written and read. The first byte chooses. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "hub/listing.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const hub_listing *listing)
{
    for (size_t i = 0; i < listing->n; i++) {
        const char *path = listing->files[i].path, *hash = hub_file_hash(&listing->files[i]);
        if (path[0] == '/' || strstr(path, "//") || strcmp(path, "..") == 0 ||
            strncmp(path, "../", 3) == 0 || strstr(path, "/../") || strpbrk(path, "\\\n\r\x1b\x7f"))
            abort();
        if (!hub_is_commit(hash))
            abort();
    }
}

static void check_again(const hub_listing *listing, const char *path)
{
    hub_listing again;
    if (hub_listing_write(listing, path, NULL) || hub_listing_read(path, &again, NULL))
        abort();
    if (again.n != listing->n)
        abort();
    for (size_t i = 0; i < again.n; i++)
        if (strcmp(again.files[i].path, listing->files[i].path) != 0 ||
            again.files[i].size != listing->files[i].size ||
            strcmp(hub_file_hash(&again.files[i]), hub_file_hash(&listing->files[i])) != 0)
            abort();
    hub_listing_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64], commit[HUB_HASH_MAX + 1], *text;
    hub_listing listing = {0};
    hub_name name;
    if (size == 0 || !(text = base_strndup((const char *)data + 1, size - 1)))
        return 0;
    snprintf(path, sizeof path, "/dev/shm/fuzz-hub-%d.json", (int)getpid());
    if (data[0] % 4 == 0 && hub_listing_add(&listing, "answer", text, size - 1, NULL) == MARCO_OK) {
        check(&listing);
        if (hub_listing_finish(&listing, "answer", NULL) == MARCO_OK)
            check_again(&listing, path);
    } else if (data[0] % 4 == 1) {
        if (hub_parse_commit("answer", text, size - 1, commit, NULL) == MARCO_OK &&
            !hub_is_commit(commit))
            abort();
    } else if (data[0] % 4 == 2) {
        FILE *file = fopen(path, "wb");
        if (!file || fwrite(text, 1, size - 1, file) != size - 1 || fclose(file) != 0)
            abort();
        if (hub_listing_read(path, &listing, NULL) == MARCO_OK)
            check(&listing);
    } else if (hub_name_parse(text, &name, NULL) == MARCO_OK) {
        char folder[HUB_MODEL_MAX + 16], back[HUB_MODEL_MAX + 1];
        hub_name_folder(name.model, folder);
        if (!hub_name_of_folder(folder, back) || strcmp(back, name.model) != 0 ||
            strchr(folder, '/'))
            abort();
    }
    unlink(path);
    hub_listing_free(&listing);
    base_free(text);
    return 0;
}
