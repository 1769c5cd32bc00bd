/* Preloaded into the program: reads at a position give less than asked for where BAD_DISK_SHORT is
 * set, and fail while the file that BAD_DISK_ERROR names exists. */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

typedef ssize_t (*read_fn)(int, void *, size_t, off_t);

static ssize_t read_badly(const char *name, int fd, void *buffer, size_t size, off_t offset)
{
    static read_fn real;
    const char *error = getenv("BAD_DISK_ERROR");
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, name);
    if (error && access(error, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    /* A few pages and some bytes more. */
    if (getenv("BAD_DISK_SHORT") && size > 20000)
        size = 8192 + (size_t)offset % 8191;
    return real(fd, buffer, size, offset);
}

__attribute__((visibility("default"))) ssize_t pread(int fd, void *buffer, size_t size,
                                                     off_t offset)
{
    return read_badly("pread", fd, buffer, size, offset);
}

__attribute__((visibility("default"))) ssize_t pread64(int fd, void *buffer, size_t size,
                                                       off_t offset)
{
    return read_badly("pread64", fd, buffer, size, offset);
}
