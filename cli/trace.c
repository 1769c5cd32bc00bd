/* marco trace: what caches of experts would have made of a recorded run. */
#include <stdlib.h>
#include <string.h>

#include "replay.h"
#include "text.h"

enum { MAX_SIZES = 32 };

struct trace_options {
    const char *policies;
    const char *slots;
    bool json;
};

static const cli_option options[] = {
    CLI_OPTION("slots", 0, TEXT, "N,...", struct trace_options, slots, 0,
               "Experts that the cache holds; several sizes may be given."),
    CLI_OPTION("policy", 0, TEXT, "NAME,...", struct trace_options, policies, 0,
               "lru: the expert used least recently goes, as in marco; lfu: the one used least "
               "often, old uses counting less; opt: the one needed again last, which no cache can "
               "know but none can beat. All three unless given."),
    CLI_OPTION("json", 0, FLAG, NULL, struct trace_options, json, 0,
               "One JSON object a line: policy, slots, hits, misses."),
};

static int read_policies(const command *self, const char *list, bool wanted[POLICY_END])
{
    for (int i = 0; i < POLICY_END; i++)
        wanted[i] = !list;
    while (list) {
        size_t n = strcspn(list, ",");
        int found = 0;
        while (found < POLICY_END &&
               (strlen(policy_names[found]) != n || strncmp(policy_names[found], list, n) != 0))
            found++;
        if (found == POLICY_END)
            return command_misused(self, "--policy '%.*s': must be lru, lfu or opt", (int)n, list);
        wanted[found] = true;
        list = list[n] ? list + n + 1 : NULL;
    }
    return EXIT_SUCCESS;
}

static int read_sizes(const command *self, const char *list, int64_t sizes[MAX_SIZES], size_t *n)
{
    *n = 0;
    if (!list)
        return command_misused(self, "no size of the cache: give --slots N");
    while (list) {
        char word[24];
        size_t length = strcspn(list, ",");
        snprintf(word, sizeof(word), "%.*s", (int)(length < 23 ? length : 23), list);
        if (*n == MAX_SIZES || !parse_int(word, 1, INT32_MAX, &sizes[*n]))
            return command_misused(self, "--slots '%s': must be up to %d whole numbers from 1 on",
                                   word, MAX_SIZES);
        ++*n;
        list = list[length] ? list + length + 1 : NULL;
    }
    return EXIT_SUCCESS;
}

static int print_row(const command *self, const trace *t, policy p, int64_t slots, bool json)
{
    uint64_t hits = 0;
    if (!trace_replay(t, p, slots, &hits))
        return command_fail(self, "out of memory");
    uint64_t misses = t->n_keys - hits;
    if (json)
        return json_line(self, json_pack("{s:s, s:I, s:I, s:I}", "policy", policy_names[p], "slots",
                                         (json_int_t)slots, "hits", (json_int_t)hits, "misses",
                                         (json_int_t)misses));
    printf("%-6s %8lld %12llu %12llu %8.2f%%\n", policy_names[p], (long long)slots,
           (unsigned long long)hits, (unsigned long long)misses,
           100.0 * (double)hits / (double)t->n_keys);
    return EXIT_SUCCESS;
}

static int run(const command *self, int argc, char **argv)
{
    struct trace_options o = {0};
    int exit_status = 0;
    bool wanted[POLICY_END];
    int64_t sizes[MAX_SIZES];
    size_t n_sizes = 0;
    trace t = {0};
    int n = options_parse(self, argc, argv, &o, &exit_status);
    if (n < 0)
        return exit_status;
    if (n == 0)
        return command_misused(self, "no trace: give the FILE that marco run --trace wrote");
    exit_status = read_policies(self, o.policies, wanted);
    if (exit_status == EXIT_SUCCESS)
        exit_status = read_sizes(self, o.slots, sizes, &n_sizes);
    if (exit_status == EXIT_SUCCESS)
        exit_status = trace_read(self, argv[argc - 1], &t);
    if (exit_status == EXIT_SUCCESS && !o.json)
        printf("%zu experts asked for in %zu steps\n%-6s %8s %12s %12s %9s\n", t.n_keys, t.n_steps,
               "policy", "slots", "hits", "misses", "found");
    for (size_t i = 0; i < n_sizes; i++) {
        for (int p = 0; p < POLICY_END && exit_status == EXIT_SUCCESS; p++) {
            if (wanted[p])
                exit_status = print_row(self, &t, (policy)p, sizes[i], o.json);
        }
    }
    trace_free(&t);
    return exit_status;
}

const command trace_command = {
    .name = "trace",
    .summary = "replay a run's choices of experts against caches",
    .synopsis = "FILE --slots N[,N...] [OPTION...]",
    .details =
        "Reads what marco run --trace wrote and tells how often a cache of N experts would have "
        "had the expert that was asked for, by which expert it gives up when it is full.\n"
        "The file is text: lines beginning with # are remarks, each other one is a token in a "
        "layer, as whole numbers: forward pass, layer, position, and the experts by rank. A "
        "layer's "
        "pass asks for each of its tokens' experts once.\n",
    .example = "marco run -m marco-mini.gguf --ram 6G -f story.txt --trace story.trace\n"
               "marco trace story.trace --slots 800,1600,3200\n",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .max_arguments = 1,
    .run = run,
};
