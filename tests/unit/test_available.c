/* How much memory there is to take: what the system says, and what control groups leave of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/available.h"
#include "scratch.h"

static scratch place;

static int set_up(void **state)
{
    (void)state;
    return scratch_create(&place) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    scratch_remove(&place);
    return 0;
}

/* A file of the system that is made up. */
static void put(const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s%s", scratch_path(&place, "root"), name);
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0755);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void test_available(void **state)
{
    (void)state;
    const char *root = scratch_path(&place, "root");
    assert_true(base_memory_available_under(root) == UINT64_MAX);
    put("/proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n");
    assert_int_equal(base_memory_available_under(root), 8000 * 1024);
    put("/proc/self/cgroup", "1:name=x:/other\n0::/a/b\n");
    put("/sys/fs/cgroup/a/b/memory.max", "max\n");
    put("/sys/fs/cgroup/a/b/memory.current", "5000000\n");
    assert_int_equal(base_memory_available_under(root), 8000 * 1024);
    put("/sys/fs/cgroup/a/b/memory.high", "7000000\n");
    assert_int_equal(base_memory_available_under(root), 2000000);
    put("/sys/fs/cgroup/a/b/memory.stat", "anon 9\nactive_file 1000\ninactive_file 500000\n");
    assert_int_equal(base_memory_available_under(root), 2501000);
    put("/sys/fs/cgroup/a/memory.max", "6000000\n"); /* the group above has the tighter limit */
    put("/sys/fs/cgroup/a/memory.current", "5900000\n");
    assert_int_equal(base_memory_available_under(root), 100000);
    put("/sys/fs/cgroup/a/memory.current", "6900000\n");
    assert_int_equal(base_memory_available_under(root), 0);
    put("/proc/self/cgroup", "4:cpu:/x\n7:memory:/jobs/one\n");
    put("/sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes", "3000000\n");
    put("/sys/fs/cgroup/memory/jobs/one/memory.usage_in_bytes", "1000000\n");
    put("/sys/fs/cgroup/memory/jobs/one/memory.stat", "total_inactive_file 4096\n");
    assert_int_equal(base_memory_available_under(root), 2004096);
    /* Controllers with a mount of their own together; blanks, colons and "::" in a group's name. */
    put("/proc/self/cgroup", "4:cpu,memory:/a b/c::d\n2:pids:/jobs/one\n");
    assert_int_equal(base_memory_available_under(root), 8000 * 1024);
    put("/sys/fs/cgroup/cpu,memory/a b/c::d/memory.limit_in_bytes", "2000000\n");
    put("/sys/fs/cgroup/cpu,memory/a b/c::d/memory.usage_in_bytes", "500000\n");
    assert_int_equal(base_memory_available_under(root), 1500000);
    put("/sys/fs/cgroup/memory/a b/memory.limit_in_bytes", "900000\n");
    put("/sys/fs/cgroup/memory/a b/memory.usage_in_bytes", "200000\n");
    assert_int_equal(base_memory_available_under(root), 700000);
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "800000\n");
    put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "200000\n");
    put("/proc/self/cgroup", "4:memory:/../outside\n"); /* only the mount is to be seen */
    assert_int_equal(base_memory_available_under(root), 600000);
    assert_in_range(base_memory_available(), 1 << 20, (uint64_t)1 << 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_available),
    };
    return cmocka_run_group_tests_name("available", tests, set_up, tear_down);
}
