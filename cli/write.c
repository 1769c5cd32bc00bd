#include "write.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "text.h"

uint64_t write_bytes(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return 0;
    DIR *folder = S_ISDIR(info.st_mode) ? opendir(path) : NULL;
    if (!folder)
        return (uint64_t)info.st_size;
    uint64_t bytes = 0;
    struct dirent *entry;
    while ((entry = readdir(folder)) != NULL) {
        if (fstatat(dirfd(folder), entry->d_name, &info, 0) == 0 && S_ISREG(info.st_mode))
            bytes += (uint64_t)info.st_size;
    }
    closedir(folder);
    return bytes;
}

bool write_is_same(const char *path, const char *other)
{
    struct stat a, b;
    return stat(path, &a) == 0 && stat(other, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

int write_report(const command *self, const write_options *options, const char *path, double start,
                 marco_status status, const marco_error *error)
{
    if (status != MARCO_OK)
        return command_status(self, status, error);
    double seconds = seconds_now() - start;
    uint64_t bytes = write_bytes(path);
    if (options->json)
        return json_line(self, json_pack("{s:o, s:I, s:f}", "output", json_text(path, strlen(path)),
                                         "bytes", (json_int_t)bytes, "seconds", seconds));
    if (!options->quiet) {
        char size[32];
        fprintf(stderr, "wrote ");
        print_safely(stderr, path, strlen(path));
        fprintf(stderr, " (%s in %.1f s)\n", format_bytes(bytes, size), seconds);
    }
    return EXIT_SUCCESS;
}
