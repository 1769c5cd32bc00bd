/* A folder for what a test writes, and comparing what is in it. */
#ifndef TESTS_SCRATCH_H
#define TESTS_SCRATCH_H

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct scratch {
    char folder[256];
} scratch;

static inline bool scratch_create(scratch *s)
{
    const char *root = getenv("TMPDIR");
    snprintf(s->folder, sizeof(s->folder), "%s/marco-test-XXXXXX", root ? root : P_tmpdir);
    return mkdtemp(s->folder) != NULL;
}

static inline int scratch_unlink(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static inline void scratch_remove_folder(const char *path)
{
    nftw(path, scratch_unlink, 8, FTW_DEPTH | FTW_PHYS);
}

static inline void scratch_remove(const scratch *s)
{
    scratch_remove_folder(s->folder);
}

/* A test with a folder of its own, which its state points to. */
#define SCRATCH_TEST(test) cmocka_unit_test_setup_teardown(test, scratch_set_up, scratch_tear_down)

static inline int scratch_set_up(void **state)
{
    static scratch s;
    *state = &s;
    return scratch_create(&s) ? 0 : -1;
}

static inline int scratch_tear_down(void **state)
{
    scratch_remove(*state);
    return 0;
}

/* Valid until eight others were asked for. */
static inline const char *scratch_path(const scratch *s, const char *name)
{
    static char paths[8][384];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof(paths[0]), "%s/%s", s->folder, name);
    return path;
}

/* Has the file's pages dropped, so that they are read from the disk. */
static inline bool scratch_uncache(const char *path)
{
    int fd = open(path, O_RDONLY);
    bool done = fd >= 0 && fsync(fd) == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0;
    if (fd >= 0)
        close(fd);
    return done;
}

/* Entries of a folder, those that begin with a dot included. */
static inline int scratch_count(const char *folder)
{
    DIR *d = opendir(folder);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (d)
        closedir(d);
    return n;
}

static inline bool scratch_same_file(const char *a, const char *b)
{
    FILE *fa = fopen(a, "rb"), *fb = fopen(b, "rb");
    bool same = fa && fb;
    while (same) {
        static char ba[1 << 16], bb[1 << 16];
        size_t na = fread(ba, 1, sizeof(ba), fa), nb = fread(bb, 1, sizeof(bb), fb);
        same = na == nb && memcmp(ba, bb, na) == 0;
        if (na == 0)
            break;
    }
    if (fa)
        fclose(fa);
    if (fb)
        fclose(fb);
    return same;
}

/* Two folders with the same names and the same bytes under them. */
static inline bool scratch_same_folder(const char *a, const char *b)
{
    DIR *d = opendir(a);
    bool same = d && scratch_count(a) == scratch_count(b) && scratch_count(a) > 0;
    for (struct dirent *e; same && (e = readdir(d));) {
        char pa[1024], pb[1024];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(pa, sizeof(pa), "%s/%s", a, e->d_name);
        snprintf(pb, sizeof(pb), "%s/%s", b, e->d_name);
        same = scratch_same_file(pa, pb);
    }
    if (d)
        closedir(d);
    return same;
}

#endif
