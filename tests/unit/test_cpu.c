/* Cores, quotas and nodes, read from trees like /sys and /proc that are made here. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "base/memory.h"
#include "base/numa.h"
#include "base/pool.h"
#include "base/thread.h"
#include "scratch.h"

static scratch root;

static int start(void **state)
{
    (void)state;
    return scratch_create(&root) ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    scratch_remove(&root);
    return 0;
}

/* Writes a file of the tree, with the folders it is in. */
static void put(const char *path, const char *text)
{
    char full[1024];
    snprintf(full, sizeof full, "%s%s", root.folder, path);
    for (char *s = full + strlen(root.folder) + 1; (s = strchr(s, '/')); s++) {
        *s = '\0';
        mkdir(full, 0777);
        *s = '/';
    }
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void put_siblings(int cpu, const char *list)
{
    char path[128];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    put(path, list);
}

static int cores(const char *list)
{
    base_cpus set;
    assert_true(base_cpus_parse(list, &set));
    return base_cpu_cores(root.folder, &set);
}

static void lists_are_read_as_the_kernel_writes_them(void **state)
{
    (void)state;
    base_cpus set;
    assert_true(base_cpus_parse("0-3,8,70-71\n", &set));
    assert_int_equal(base_cpus_count(&set), 7);
    assert_true(base_cpus_has(&set, 3) && base_cpus_has(&set, 8) && base_cpus_has(&set, 71));
    assert_false(base_cpus_has(&set, 4) || base_cpus_has(&set, -1) || base_cpus_has(&set, 8192));
    base_cpus_remove(&set, 8);
    assert_false(base_cpus_has(&set, 8));
    assert_true(base_cpus_parse("\n", &set));
    assert_int_equal(base_cpus_count(&set), 0);
    assert_true(base_cpus_parse("8191", &set));
    assert_int_equal(base_cpus_count(&set), 1);
    static const char *const bad[] = {"8192", "x",   "1,", ",1",  "1-", "3-1",
                                      "1--2", "1 2", "-1", "1,x", "0-", "99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(base_cpus_parse(bad[i], &set));
        assert_int_equal(base_cpus_count(&set), 0);
    }
    assert_false(base_cpus_read("/nowhere", &set));
}

static void threads_of_one_core_count_once(void **state)
{
    (void)state;
    /* Numbered side by side, far apart, and cores of two kinds. */
    put_siblings(0, "0-1\n"), put_siblings(1, "0-1\n");
    put_siblings(2, "2,66\n"), put_siblings(66, "2,66\n");
    put_siblings(3, "3\n");
    assert_int_equal(cores("0-3,66"), 3);
    assert_int_equal(cores("1,66"), 2); /* the mask leaves out the first thread of each */
    assert_int_equal(cores("66"), 1);
    assert_int_equal(cores("10-13"), 4); /* nothing is told of these */
    put_siblings(20, "garbage\n"), put_siblings(21, "20-21\n");
    assert_int_equal(cores("20,21"), 2);
}

static void quotas_of_version_2(void **state)
{
    (void)state;
    assert_int_equal(base_cpu_quota(root.folder), INT_MAX);
    put("/proc/self/cgroup", "0::/a/b\n");
    assert_int_equal(base_cpu_quota(root.folder), INT_MAX);
    static const struct {
        const char *text;
        int cores;
    } cases[] = {
        {"max 100000\n", INT_MAX},
        {"150000 100000\n", 2},
        {"149999 100000\n", 1},
        {"110000 100000\n", 1},
        {"10000 100000\n", 1},
        {"400000 100000\n", 4},
        {"9223372036854775807 1\n", INT_MAX},
        {"0 100000\n", INT_MAX},
        {"100000 0\n", INT_MAX},
        {"-1 100000\n", INT_MAX},
        {"garbage\n", INT_MAX},
        {"", INT_MAX},
        {"100000\n", INT_MAX},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put("/sys/fs/cgroup/a/b/cpu.max", cases[i].text);
        assert_int_equal(base_cpu_quota(root.folder), cases[i].cores);
    }
    /* The tightest of the groups around it holds. */
    put("/sys/fs/cgroup/a/b/cpu.max", "800000 100000\n");
    put("/sys/fs/cgroup/a/cpu.max", "300000 100000\n");
    assert_int_equal(base_cpu_quota(root.folder), 3);
    put("/sys/fs/cgroup/cpu.max", "200000 100000\n");
    assert_int_equal(base_cpu_quota(root.folder), 2);
    /* In a container: the host's path of a group that is mounted as the root, or outside of it. */
    put("/proc/self/cgroup", "0::/docker/0123\n");
    assert_int_equal(base_cpu_quota(root.folder), 2);
    put("/proc/self/cgroup", "0::/../../x\n");
    assert_int_equal(base_cpu_quota(root.folder), 2);
    put("/proc/self/cgroup", "nonsense\n\n:\n0:\n0::\n");
    assert_int_equal(base_cpu_quota(root.folder), 2);
}

static void quotas_of_version_1(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "9:cpuset:/other\n4:cpuacct,cpu:/group one/deep\n1:name=systemd:/\n");
    put("/sys/fs/cgroup/cpu/group one/deep/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu/group one/deep/cpu.cfs_period_us", "100000\n");
    assert_int_equal(base_cpu_quota(root.folder), INT_MAX);
    put("/sys/fs/cgroup/cpu/group one/cpu.cfs_quota_us", "600000\n");
    put("/sys/fs/cgroup/cpu/group one/cpu.cfs_period_us", "100000\n");
    assert_int_equal(base_cpu_quota(root.folder), 6);
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "125000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "50000\n");
    assert_int_equal(base_cpu_quota(root.folder), 3);
    /* Both versions at once: the one that has the controller counts, wherever it is mounted. */
    put("/proc/self/cgroup", "4:cpuacct:/group one\n0::/two\n");
    assert_int_equal(base_cpu_quota(root.folder), INT_MAX);
    put("/sys/fs/cgroup/unified/two/cpu.max", "400000 100000\n");
    assert_int_equal(base_cpu_quota(root.folder), 4);
}

static void the_process_has_a_core(void **state)
{
    (void)state;
    base_cpus allowed, again;
    assert_true(base_cpus_allowed(&allowed));
    assert_in_range(base_cpu_count(), 1, base_cpus_count(&allowed));
    /* Leaving a core does not change where a thread may go. */
    base_thread_leave(sched_getcpu());
    base_thread_leave(-1);
    assert_true(base_cpus_allowed(&again));
    assert_memory_equal(&allowed, &again, sizeof allowed);
}

static void threads_tell_whether_they_run(void **state)
{
    (void)state;
    int64_t before = base_thread_ran(pthread_self());
    assert_true(before >= 0);
    while (base_thread_ran(pthread_self()) < before + 1000000)
        continue;
    assert_true(base_thread_is_runnable(gettid()));
    assert_false(base_thread_is_runnable(-1));
}

static void threads_are_spread_over_nodes(void **state)
{
    (void)state;
    base_nodes *nodes = malloc(sizeof *nodes);
    base_cpus allowed;
    assert_non_null(nodes);
    assert_true(base_cpus_parse("0-11", &allowed));
    base_nodes_read(root.folder, &allowed, nodes);
    assert_int_equal(nodes->n, 0);
    /* Node 1 is memory alone, node 3 outside of the mask, node 4 has no memory. */
    put("/sys/devices/system/node/online", "0-4\n");
    put("/sys/devices/system/node/has_memory", "0-3\n");
    put("/sys/devices/system/node/node0/cpulist", "0-7,16-23\n");
    put("/sys/devices/system/node/node1/cpulist", "\n");
    put("/sys/devices/system/node/node2/cpulist", "8-9\n");
    put("/sys/devices/system/node/node3/cpulist", "12-15\n");
    put("/sys/devices/system/node/node4/cpulist", "10-11\n");
    base_nodes_read(root.folder, &allowed, nodes);
    assert_int_equal(nodes->n, 3);
    assert_true(nodes->id[0] == 0 && nodes->id[1] == 2 && nodes->id[2] == 4);
    assert_true(nodes->memory[0] && nodes->memory[1] && !nodes->memory[2]);
    assert_int_equal(base_cpus_count(&nodes->cpus[0]), 8);
    assert_int_equal(base_nodes_find(nodes, 9), 1);
    assert_int_equal(base_nodes_find(nodes, 99), 0);
    for (int first = 0; first < 3; first++) {
        for (int n_threads = 1; n_threads <= 30; n_threads++) {
            int on[3] = {0};
            assert_int_equal(base_nodes_place(nodes, first, n_threads, 0), first);
            for (int i = 0; i < n_threads; i++)
                on[base_nodes_place(nodes, first, n_threads, i)]++;
            /* 8, 2 and 2 of 12 processors, to within one thread. */
            assert_true(abs(12 * on[0] - 8 * n_threads) <= 12);
            assert_true(abs(12 * on[1] - 2 * n_threads) <= 12);
            assert_true(abs(12 * on[2] - 2 * n_threads) <= 12);
        }
    }
    free(nodes);
}

static void memory_is_as_before_when_it_is_interleaved(void **state)
{
    (void)state;
    enum { SIZE = 4 << 20 };
    unsigned char *memory = base_alloc_aligned(SIZE);
    assert_non_null(memory);
    base_memory_interleave(memory, SIZE);
    base_memory_interleave(memory, 0);
    base_memory_interleave(memory + 1, 100);
    memset(memory, 7, SIZE);
    assert_int_equal(memory[SIZE - 1], 7);
    base_free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_are_read_as_the_kernel_writes_them),
        cmocka_unit_test_setup_teardown(threads_of_one_core_count_once, start, end),
        cmocka_unit_test_setup_teardown(quotas_of_version_2, start, end),
        cmocka_unit_test_setup_teardown(quotas_of_version_1, start, end),
        cmocka_unit_test(the_process_has_a_core),
        cmocka_unit_test(threads_tell_whether_they_run),
        cmocka_unit_test_setup_teardown(threads_are_spread_over_nodes, start, end),
        cmocka_unit_test(memory_is_as_before_when_it_is_interleaved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
