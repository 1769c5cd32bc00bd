/* Reports: what of a run's metrics counts, what is escaped, and pages of odd runs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/memory.h"
#include "scratch.h"
#include "train/report.h"

static marco_error error;

/* A run's folder with these metrics. */
static const char *make_run(const scratch *s, const char *name, const char *metrics)
{
    const char *folder = scratch_path(s, name);
    char path[512];
    mkdir(folder, 0777);
    snprintf(path, sizeof(path), "%s/metrics.jsonl", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(metrics, 1, strlen(metrics), file), strlen(metrics));
    assert_int_equal(fclose(file), 0);
    return folder;
}

static void read_run(const scratch *s, const char *metrics, report_run *run)
{
    if (report_read(make_run(s, "run", metrics), run, &error) != MARCO_OK)
        fail_msg("%s", error.message);
}

/* The page of some runs; base_free. */
static char *page_of(const scratch *s, const char *const *runs, size_t n)
{
    const char *to = scratch_path(s, "page.html");
    char *page = NULL;
    size_t size;
    if (marco_train_report(runs, n, to, true, &error) != MARCO_OK ||
        base_file_slurp(to, 64 << 20, &page, &size, &error) != MARCO_OK)
        fail_msg("%s", error.message);
    return page;
}

static char *page_of_metrics(const scratch *s, const char *metrics)
{
    const char *run = make_run(s, "run", metrics);
    return page_of(s, &run, 1);
}

static void has(const char *page, const char *part)
{
    if (!strstr(page, part))
        fail_msg("not on the page: %s", part);
}

static void lacks(const char *page, const char *part)
{
    if (strstr(page, part))
        fail_msg("on the page: %s", part);
}

/* ---- what counts ---------------------------------------------------------------------------- */

static void later_lines_count(void **state)
{
    report_run run;
    read_run(*state,
             "{\"kind\":\"step\",\"step\":1,\"loss\":9}\n"
             "{\"kind\":\"step\",\"step\":3,\"loss\":7,\"lr\":0.5}\n"
             "{\"kind\":\"valid\",\"step\":3,\"loss\":7.5,\"per_source\":{\"a\":1}}\n"
             "{\"kind\":\"step\",\"step\":2,\"loss\":8}\n"
             "{\"kind\":\"step\",\"step\":3,\"loss\":6,\"skipped\":true}\n"
             "{\"kind\":\"valid\",\"step\":3,\"loss\":6.5,\"per_source\":{\"b\":2}}\n"
             "{\"kind\":\"valid\",\"step\":0,\"loss\":10}\n"
             "{\"kind\":\"weather\",\"step\":4}\n",
             &run);
    assert_int_equal(run.n_steps, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(run.steps[i].step, i + 1);
    assert_true(run.steps[1].value[REPORT_LOSS] == 8);
    assert_true(run.steps[2].value[REPORT_LOSS] == 6);
    assert_true(isnan(run.steps[2].value[REPORT_LR]));
    assert_true(run.steps[2].skipped && !run.steps[1].skipped);
    assert_int_equal(run.n_valids, 2);
    assert_true(run.valids[0].step == 0 && run.valids[0].loss == 10);
    assert_true(run.valids[1].step == 3 && run.valids[1].loss == 6.5);
    assert_non_null(json_object_get(run.valids[1].sources, "b"));
    assert_int_equal(run.broken, 0);
    assert_ptr_equal(report_find(&run, 2), &run.steps[1]);
    assert_ptr_equal(report_find(&run, 9), &run.steps[2]);
    assert_null(report_find(&run, 0));
    report_clear(&run);
}

static void going_on_drops_what_was_lost(void **state)
{
    static const char metrics[] = "{\"kind\":\"run\",\"resumed\":0,\"recipe\":{\"seed\":1}}\n"
                                  "{\"kind\":\"step\",\"step\":1,\"loss\":9}\n"
                                  "{\"kind\":\"step\",\"step\":2,\"loss\":8}\n"
                                  "{\"kind\":\"valid\",\"step\":2,\"loss\":8}\n"
                                  "{\"kind\":\"load\",\"step\":2,\"layers\":[[0.5,0.5]]}\n"
                                  "{\"kind\":\"step\",\"step\":3,\"loss\":7}\n"
                                  "{\"kind\":\"run\",\"resumed\":1,\"recipe\":{\"seed\":2}}\n"
                                  "{\"kind\":\"step\",\"step\":2,\"loss\":5}\n";
    report_run run;
    read_run(*state, metrics, &run);
    assert_int_equal(run.n_steps, 2);
    assert_true(run.steps[1].value[REPORT_LOSS] == 5);
    assert_int_equal(run.n_valids, 0);
    assert_null(run.load);
    assert_int_equal(run.begun, 2);
    assert_true(json_integer_value(json_object_get(json_object_get(run.about, "recipe"), "seed")) ==
                2);
    report_clear(&run);
}

/* What is read of lines in any order is what reading them one after another would leave. */
static void order_does_not_matter(void **state)
{
    enum { LINES = 400, STEPS = 30, ROUNDS = 20 };
    uint32_t random = 1;
    for (int round = 0; round < ROUNDS; round++) {
        int loss[2][STEPS] = {0}; /* of steps, of valids; 0: none */
        base_text metrics = {0};
        for (int i = 1; i <= LINES; i++) {
            random = random * 1664525 + 1013904223;
            int step = (int)(random >> 8) % STEPS, kind = (int)(random >> 16) % 12;
            if (kind == 0) {
                base_text_printf(&metrics, "{\"kind\":\"run\",\"resumed\":%d}\n", step);
                for (int k = step + 1; k < STEPS; k++)
                    loss[0][k] = loss[1][k] = 0;
                continue;
            }
            bool valid = kind % 2;
            base_text_printf(&metrics, "{\"kind\":\"%s\",\"step\":%d,\"loss\":%d,%s}\n",
                             valid ? "valid" : "step", step + 1, i, "\"per_source\":{\"a\":1}");
            if (step + 1 < STEPS)
                loss[valid][step + 1] = i;
        }
        report_run run;
        read_run(*state, metrics.data, &run);
        size_t at = 0, valid_at = 0;
        for (int k = 0; k < STEPS; k++) {
            if (loss[0][k]) {
                assert_int_equal(run.steps[at].step, k);
                assert_true(run.steps[at++].value[REPORT_LOSS] == loss[0][k]);
            }
            if (loss[1][k]) {
                assert_int_equal(run.valids[valid_at].step, k);
                assert_true(run.valids[valid_at++].loss == loss[1][k]);
            }
        }
        assert_true(at == run.n_steps || run.steps[at].step == STEPS);
        assert_true(valid_at == run.n_valids || run.valids[valid_at].step == STEPS);
        report_clear(&run);
        base_text_free(&metrics);
    }
}

/* Lines from the last step to the first, and a run gone on with again and again, take no longer. */
static void many_lines_are_read(void **state)
{
    enum { N = 200000 };
    base_text metrics = {0};
    for (int i = N; i > 0; i--)
        base_text_printf(&metrics, "{\"kind\":\"%s\",\"step\":%d}\n", i % 2 ? "step" : "valid", i);
    for (int i = 0; i < N; i++)
        base_text_printf(&metrics, "{\"kind\":\"run\",\"resumed\":%d}\n", N - 1);
    report_run run;
    read_run(*state, metrics.data, &run);
    assert_int_equal(run.n_steps, N / 2);
    assert_int_equal(run.n_valids, N / 2 - 1);
    assert_int_equal(run.steps[0].step, 1);
    assert_int_equal(report_find(&run, N)->step, N - 1);
    report_clear(&run);
    base_text_free(&metrics);
}

static void broken_lines_are_said(void **state)
{
    report_run run;
    read_run(*state,
             "{\"kind\":\"step\",\"step\":1,\"loss\":9}\n"
             "{\"kind\":\"step\",\"step\":2,\"lo\n"
             "\n"
             "[1]\n"
             "{\"kind\":\"step\",\"loss\":9}\n"
             "{\"kind\":\"step\",\"step\":2.5}\n"
             "{\"kind\":\"step\",\"step\":3,\"loss\":NaN}\n"
             "{\"kind\":\"load\",\"step\":3,\"layers\":[[0.5],[0.5,0.5]]}\n"
             "{\"kind\":\"load\",\"step\":3,\"layers\":[[\"all\"]]}\n"
             "{\"kind\":\"step\",\"step\":4,\"loss\":8}\n"
             "{\"kind\":\"step\",\"st",
             &run);
    assert_int_equal(run.n_steps, 2);
    assert_int_equal(run.broken, 7);
    assert_int_equal(run.first_broken, 2);
    assert_true(run.unfinished);
    report_clear(&run);

    char *page = page_of_metrics(*state, "{\"kind\":\"step\",\"step\":1,\"loss\":9}\n"
                                         "{\"kind\":\"st\n"
                                         "{\"kind\":\"step\",\"st");
    has(page, "line 2 of its metrics cannot be read");
    has(page, "the last line of its metrics is incomplete");
    base_free(page);
    /* A last line may lack nothing but its end. */
    read_run(*state, "{\"kind\":\"step\",\"step\":1,\"loss\":9}", &run);
    assert_true(run.n_steps == 1 && !run.unfinished);
    report_clear(&run);
}

static void other_files_are_refused(void **state)
{
    const char *to = scratch_path(*state, "page.html");
    const char *run = make_run(*state, "run", "once upon a time\nthere was\n");
    assert_int_equal(marco_train_report(&run, 1, to, false, &error), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "metrics.jsonl: line 1"));
    run = scratch_path(*state, "nowhere");
    assert_int_equal(marco_train_report(&run, 1, to, false, &error), MARCO_ERROR_NOT_FOUND);
    mkdir(run, 0777);
    assert_int_equal(marco_train_report(&run, 1, to, false, &error), MARCO_ERROR_NOT_FOUND);
    assert_non_null(strstr(error.message, "nowhere/metrics.jsonl"));
    assert_int_equal(marco_train_report(&run, 0, to, false, &error), MARCO_ERROR_ARGUMENT);
    assert_int_equal(marco_train_report(NULL, 1, to, false, &error), MARCO_ERROR_ARGUMENT);
    assert_int_equal(marco_train_report(&run, 1, NULL, false, &error), MARCO_ERROR_ARGUMENT);
    assert_false(base_exists(to));
    run = make_run(*state, "run", "");
    assert_int_equal(marco_train_report(&run, 1, to, false, &error), MARCO_OK);
    assert_int_equal(marco_train_report(&run, 1, to, false, &error), MARCO_ERROR_EXISTS);
}

/* ---- pages ---------------------------------------------------------------------------------- */

static void everything_is_escaped(void **state)
{
    scratch *s = *state;
    static const char bad[] = "<script>alert('&\\\"')</script>";
    static const char escaped[] = "&lt;script&gt;alert(&#39;&amp;&quot;&#39;)&lt;/script&gt;";
    char metrics[2048];
    snprintf(
        metrics, sizeof(metrics),
        "{\"kind\":\"run\",\"level\":\"%s\",\"recipe\":{\"%s\":\"%s\",\"list\":[{\"%s\":[\"%s\"]}]"
        "}}\n{\"kind\":\"step\",\"step\":1,\"loss\":2}\n"
        "{\"kind\":\"valid\",\"step\":1,\"loss\":2,\"per_source\":{\"%s\":2}}\n"
        "{\"kind\":\"load\",\"step\":1,\"layers\":[[0.25,0.75]]}\n",
        bad, bad, bad, bad, bad, bad);
    const char *runs[] = {make_run(s, "<i>&\"'\xff", metrics), make_run(s, "b", metrics)};
    char *page = page_of(s, runs, 2);
    lacks(page, "<script");
    lacks(page, "<i>&");
    has(page, "&lt;i&gt;&amp;&quot;&#39;?");
    assert_int_equal(base_utf8_check(page, strlen(page)), strlen(page));
    int n = 0;
    for (const char *p = page; (p = strstr(p, escaped)) != NULL; p++)
        n++;
    assert_true(n >= 2 + 3 + 1); /* levels, recipe's keys and values, source */
    has(page, "list[0].");
    base_free(page);
}

static void odd_runs_have_pages(void **state)
{
    static const struct {
        const char *metrics, *part;
    } cases[] = {
        {"", "no step has been taken yet"},
        {"{\"kind\":\"run\",\"recipe\":null}\n", "Nothing measured yet"},
        {"{\"kind\":\"step\",\"step\":1}\n", "Nothing measured yet"},
        {"{\"kind\":\"step\",\"step\":1,\"loss\":null,\"norm\":null}\n", "Nothing measured yet"},
        {"{\"kind\":\"step\",\"step\":1,\"loss\":3.5}\n", "<b>3.500</b>training loss"},
        {"{\"kind\":\"step\",\"step\":9223372036854775807,\"loss\":1e308,\"norm\":0,\"lr\":-1e308}"
         "\n"
         "{\"kind\":\"step\",\"step\":1,\"loss\":-1e308,\"norm\":1e-320,\"lr\":1e308}\n",
         "Results"},
        {"{\"kind\":\"step\",\"step\":1,\"norm\":1.7e308}\n"
         "{\"kind\":\"step\",\"step\":2,\"norm\":5e-324}\n",
         ">1e-237</text>"},
        {"{\"kind\":\"step\",\"step\":1,\"norm\":1.7e308}\n"
         "{\"kind\":\"step\",\"step\":2,\"norm\":1}\n",
         ">1e273</text>"},
        {"{\"kind\":\"valid\",\"step\":0,\"loss\":2}\n", "7.39"},
        {"{\"kind\":\"valid\",\"step\":0,\"loss\":2000}\n", "Results"},
        {"{\"kind\":\"load\",\"step\":0,\"layers\":[[0]]}\n", "1 of 1 got no token"},
        {"{\"kind\":\"load\",\"step\":0,\"layers\":[]}\n", "Results"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *page = page_of_metrics(*state, cases[i].metrics);
        has(page, cases[i].part);
        lacks(page, "nan");
        lacks(page, "inf");
        has(page, "</html>");
        base_free(page);
    }
}

static void gaps_break_lines(void **state)
{
    char *page = page_of_metrics(*state, "{\"kind\":\"step\",\"step\":1,\"lr\":1}\n"
                                         "{\"kind\":\"step\",\"step\":2,\"lr\":null}\n"
                                         "{\"kind\":\"step\",\"step\":3,\"lr\":1}\n"
                                         "{\"kind\":\"step\",\"step\":4,\"lr\":1}\n");
    const char *path = strstr(page, "class=\"line");
    assert_non_null(path);
    path = strstr(path, " d=\"");
    int begun = 0, drawn = 0;
    for (const char *p = path + 4; *p != '"'; p++) {
        begun += *p == 'M';
        drawn += *p == 'L';
    }
    assert_true(begun == 2 && drawn == 1);
    base_free(page);
}

static void loads_are_coloured_by_even_share(void **state)
{
    char *page = page_of_metrics(*state, "{\"kind\":\"load\",\"step\":7,\"layers\":[[0.25,0.25,0."
                                         "25,0.25],[0.5,0,0.125,0.375]],\"entropy\":[1.25]}\n");
    has(page, "<path class=\"h4\" d=\"M0 0h4v1h-4z\"/>");
    has(page, "<path class=\"h6\" d=\"M0 1h1v1h-1z\"/>");
    has(page, "<path class=\"h2\" d=\"M2 1h1v1h-1z\"/>");
    has(page, "<path class=\"h5\" d=\"M3 1h1v1h-1z\"/>");
    has(page, "<path class=\"cross\" d=\"M1 1l1 1m-1 0l1-1\"/>");
    lacks(page, "<path class=\"h0\"");
    has(page, "1 of 8 got no token");
    has(page, ">1.0× · 1.25</text>");
    has(page, ">2.0×</text>");
    base_free(page);
}

static void differing_recipes_are_set_off(void **state)
{
    scratch *s = *state;
    const char *runs[] = {
        make_run(s, "a", "{\"kind\":\"run\",\"recipe\":{\"seed\":1,\"lr\":{\"peak\":0.001}}}\n"),
        make_run(s, "b", "{\"kind\":\"run\",\"recipe\":{\"seed\":2,\"lr\":{\"peak\":0.001}}}\n")};
    char *page = page_of(s, runs, 2);
    has(page, "<tr class=\"differs\"><th scope=\"row\"><code>seed</code>");
    has(page, "<tr><th scope=\"row\"><code>lr.peak</code></th><td><bdi>0.001</bdi>");
    base_free(page);
}

/* Runs with steps of different sizes are drawn over tokens. */
static void sizes_decide_the_axis(void **state)
{
    scratch *s = *state;
    const char *small = "{\"kind\":\"step\",\"step\":1,\"loss\":2,\"total_tokens\":100}\n"
                        "{\"kind\":\"step\",\"step\":2,\"loss\":2,\"total_tokens\":200}\n";
    const char *large = "{\"kind\":\"step\",\"step\":1,\"loss\":2,\"total_tokens\":400}\n";
    const char *runs[] = {make_run(s, "a", small), make_run(s, "b", small)};
    char *page = page_of(s, runs, 2);
    has(page, "<p class=\"below\">step</p>");
    base_free(page);
    make_run(s, "b", large);
    page = page_of(s, runs, 2);
    has(page, "<p class=\"below\">tokens</p>");
    lacks(page, "<p class=\"below\">step</p>");
    base_free(page);
}

/* ---- thinning ------------------------------------------------------------------------------- */

static void thinning_keeps_extremes(void **state)
{
    (void)state;
    enum { N = 100003, MOST = 1000 };
    static double x[N], y[N];
    for (int i = 0; i < N; i++) {
        x[i] = i;
        y[i] = i > 20000 && i < 30000 ? NAN : sin(i * 0.01);
    }
    y[777] = 50;
    y[N - 2] = -50;
    report_curve curve = {.x = x, .y = y, .n = N};
    report_thin(&curve, MOST);
    assert_in_range(curve.n, MOST / 2, MOST + 1);
    bool high = false, low = false, gap = false;
    for (size_t i = 0; i < curve.n; i++) {
        high = high || (x[i] == 777 && y[i] == 50);
        low = low || (x[i] == N - 2 && y[i] == -50);
        gap = gap || (isnan(y[i]) && x[i] > 20000 && x[i] < 30000);
        assert_true(i == 0 || x[i] > x[i - 1]);
    }
    assert_true(high && low && gap);
    assert_true(x[curve.n - 1] == N - 1);
    size_t n = curve.n;
    report_thin(&curve, MOST + 1);
    assert_int_equal(curve.n, n);
}

static void long_runs_have_small_pages(void **state)
{
    enum { N = 20000 };
    base_text metrics = {0};
    for (int i = 1; i <= N; i++)
        base_text_printf(&metrics,
                         "{\"kind\":\"step\",\"step\":%d,\"loss\":%d.%03d,\"norm\":%d,\"lr\":1}\n",
                         i, 3 + i % 2, i * 7919 % 1000, 1 + i * 31 % 97);
    char *page = page_of_metrics(*state, metrics.data);
    assert_true(strlen(page) < 200000);
    has(page, "Loss, later part");
    has(page, "<b>20,000</b>steps");
    base_text_free(&metrics);
    base_free(page);
}

/* ---- numbers -------------------------------------------------------------------------------- */

static void tick_is(double value, double step, double most, const char *want)
{
    char out[32];
    report_tick(value, step, most, out);
    assert_string_equal(out, want);
}

static void text_is(void (*write)(base_text *, double), double value, const char *want)
{
    base_text text = {0};
    write(&text, value);
    assert_string_equal(text.data, want);
    base_text_free(&text);
}

static void numbers_read_well(void **state)
{
    (void)state;
    tick_is(0, 0.5, 3, "0");
    tick_is(2.5, 0.5, 3, "2.5");
    tick_is(3, 0.5, 3, "3.0");
    tick_is(3, 1, 5, "3");
    tick_is(0.0015, 0.0005, 0.002, "0.0015");
    tick_is(3e-4, 1e-4, 6e-4, "3e-4");
    tick_is(2.5e-5, 5e-6, 3e-5, "2.5e-5");
    tick_is(8000, 2000, 20000, "8k");
    tick_is(1500000, 500000, 2000000, "1.5M");
    tick_is(-0.2, 0.1, 0.3, "-0.2");
    text_is(report_count, 0, "0");
    text_is(report_count, 999, "999");
    text_is(report_count, 1234567, "1,234,567");
    text_is(report_count, -123456, "-123,456");
    text_is(report_number, 3.14159, "3.142");
    text_is(report_number, 0.0003, "3e-4");
    text_is(report_number, 1234567, "1.235e6");
    text_is(report_number, NAN, "-");
    text_is(report_duration, 59, "59 s");
    text_is(report_duration, 3599, "59 min 59 s");
    text_is(report_duration, 18720, "5 h 12 min");
    text_is(report_duration, 200000, "2 d 7 h");
    text_is(report_duration, NAN, "-");
    char out[32];
    report_short(1310000000, out);
    assert_string_equal(out, "1.31 B");
    report_short(34120, out);
    assert_string_equal(out, "34.1 k");
    report_short(512, out);
    assert_string_equal(out, "512");
}

/* ---- memory --------------------------------------------------------------------------------- */

static void every_allocation_may_fail(void **state)
{
    scratch *s = *state;
    const char *to = scratch_path(s, "page.html");
    const char *runs[] = {
        make_run(s, "a",
                 "{\"kind\":\"run\",\"recipe\":{\"seed\":1,\"data\":[{\"path\":\"x\"}]}}\n"
                 "{\"kind\":\"step\",\"step\":1,\"loss\":2,\"norm\":1,\"skipped\":true}\n"
                 "{\"kind\":\"valid\",\"step\":1,\"loss\":2,\"per_source\":{\"x\":2}}\n"
                 "{\"kind\":\"load\",\"step\":1,\"layers\":[[0.5,0.5]]}\n"),
        make_run(s, "b", "{\"kind\":\"step\",\"step\":1,\"loss\":2}\n")};
    marco_status status = MARCO_ERROR_MEMORY;
    uint64_t n = 0;
    while (status == MARCO_ERROR_MEMORY && n < 5000) {
        base_alloc_fail_at(++n);
        status = marco_train_report(runs, 2, to, false, &error);
        base_alloc_fail_at(0);
        assert_int_equal(base_exists(to), status == MARCO_OK);
    }
    if (status != MARCO_OK)
        fail_msg("allocation %d: %s", (int)n, error.message);
    assert_true(n > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCRATCH_TEST(later_lines_count),
        SCRATCH_TEST(going_on_drops_what_was_lost),
        SCRATCH_TEST(order_does_not_matter),
        SCRATCH_TEST(many_lines_are_read),
        SCRATCH_TEST(broken_lines_are_said),
        SCRATCH_TEST(other_files_are_refused),
        SCRATCH_TEST(everything_is_escaped),
        SCRATCH_TEST(odd_runs_have_pages),
        SCRATCH_TEST(gaps_break_lines),
        SCRATCH_TEST(loads_are_coloured_by_even_share),
        SCRATCH_TEST(differing_recipes_are_set_off),
        SCRATCH_TEST(sizes_decide_the_axis),
        cmocka_unit_test(thinning_keeps_extremes),
        SCRATCH_TEST(long_runs_have_small_pages),
        cmocka_unit_test(numbers_read_well),
        SCRATCH_TEST(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
