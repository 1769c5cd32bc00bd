/* Tests and times every slot of every level that this processor has.
 *
 *   test_kernels [--seed N]          exit status 1 if anything failed, one line each
 *   test_kernels --bench [FILTER]    rates of the slots whose name contains FILTER */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/random.h"
#include "harness.h"
#include "marco/marco.h"

static uint64_t seed = 1;
static uint64_t drawn;
static int n_failed;
static char current[64];

/* ---- harness -------------------------------------------------------------------------------- */

enum { MEMORY_SIZE = 1 << 20 };
static const uint32_t canary = 0x7fdeadc0; /* a NaN that no kernel makes */
static char *memories[MEMORIES];

static void fill_canary(void *p, size_t bytes)
{
    for (size_t i = 0; i + sizeof(canary) <= bytes; i += sizeof(canary)) {
        memcpy((char *)p + i, &canary, sizeof(canary));
    }
}

void *memory(int slot, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (!memories[slot]) {
        char *p = mmap(NULL, MEMORY_SIZE + page, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED || mprotect(p + MEMORY_SIZE, page, PROT_NONE)) {
            perror("mmap");
            exit(2);
        }
        memories[slot] = p;
    }
    if (bytes > MEMORY_SIZE - page) {
        fprintf(stderr, "test_kernels: %zu bytes are too many\n", bytes);
        exit(2);
    }
    char *start = memories[slot] + MEMORY_SIZE - bytes;
    fill_canary(start - bytes % 4 - page / 2, page / 2 + bytes % 4);
    return start;
}

float *output(int slot, size_t n)
{
    float *out = memory(slot, n * sizeof(float));
    fill_canary(out, n * sizeof(float));
    return out;
}

bool is_canary(float f)
{
    return memcmp(&f, &canary, sizeof(f)) == 0;
}

void check_before(int slot, const void *start)
{
    for (int i = 1; i <= 64; i++) {
        float f;
        memcpy(&f, (const char *)start - i * (int)sizeof(f), sizeof(f));
        if (!is_canary(f)) {
            fail("wrote %d floats before memory %d", i, slot);
            return;
        }
    }
}

void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("FAIL %s: ", current);
    vprintf(format, args);
    printf("\n");
    va_end(args);
    n_failed++;
}

uint64_t any_bits(void)
{
    return base_random_u64(seed, 0, drawn++);
}

int64_t any_below(int64_t n)
{
    return (int64_t)base_random_below(seed, 0, drawn++, (uint64_t)n);
}

double any_unit(void)
{
    return base_random_unit(seed, 0, drawn++);
}

float any_normal(void)
{
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        sum += any_unit() - 0.5;
    }
    return (float)(sum * 1.7320508);
}

void fill_normal(float *x, int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++) {
        x[i] = any_normal() * scale;
    }
}

/* Where the F16 scale and the F16 minimum of a block lie; -1: nowhere. */
static void scale_places(tensor_type type, int *d, int *m)
{
    *m = -1;
    switch (type) {
    case TENSOR_Q4_1:
    case TENSOR_Q5_1:
    case TENSOR_Q4_K:
    case TENSOR_Q5_K:
        *d = 0;
        *m = 2;
        break;
    case TENSOR_Q2_K:
        *d = 80;
        *m = 82;
        break;
    case TENSOR_Q3_K:
        *d = 108;
        break;
    case TENSOR_Q6_K:
        *d = 208;
        break;
    default:
        *d = 0;
    }
}

static void set_half(char *p, float f)
{
    uint16_t h = tensor_f32_to_f16(f);
    memcpy(p, &h, sizeof(h));
}

void set_scales(tensor_type type, void *w, int64_t rows, int64_t cols, float d, float m)
{
    const tensor_traits *traits = tensor_traits_of(type);
    int d_at, m_at;
    scale_places(type, &d_at, &m_at);
    for (int64_t b = 0; b < rows * cols / traits->block; b++) {
        char *block = (char *)w + b * traits->block_bytes;
        set_half(block + d_at, d);
        if (m_at >= 0) {
            set_half(block + m_at, m);
        }
    }
}

void fill_weights(tensor_type type, void *w, int64_t rows, int64_t cols)
{
    const tensor_traits *traits = tensor_traits_of(type);
    if (traits->block == 1) {
        for (int64_t i = 0; i < rows * cols; i++) {
            float f = any_normal();
            traits->encode(&f, (char *)w + i * traits->block_bytes, 1);
        }
        return;
    }
    size_t size = tensor_row_bytes(type, cols);
    for (size_t i = 0; i < size * (size_t)rows; i++) {
        ((uint8_t *)w)[i] = (uint8_t)any_bits();
    }
    for (int64_t b = 0; b < rows * cols / traits->block; b++) {
        char *block = (char *)w + b * traits->block_bytes;
        set_scales(type, block, 1, traits->block, any_normal() * 0.01f, any_normal() * 0.05f);
    }
}

/* ---- running -------------------------------------------------------------------------------- */

static sigjmp_buf escape;

static void caught(int number)
{
    siglongjmp(escape, number);
}

static void catch_signals(void)
{
    const int signals[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE};
    struct sigaction action = {.sa_handler = caught};
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        sigaction(signals[i], &action, NULL);
    }
}

static void check_one_matmul(const kern_table *k, tensor_type type, bool f32)
{
    const kern_matmul *slot = f32 ? &k->matmul_f32[type] : &k->matmul[type];
    snprintf(current, sizeof(current), "%s %s %s", k->level, f32 ? "matmul_f32" : "matmul",
             tensor_type_name(type));
    if (!slot->fn) {
        fail("no function");
        return;
    }
    if (f32 && slot->input != KERN_INPUT_F32) {
        fail("the reference path takes F32");
        return;
    }
    int number = sigsetjmp(escape, 1);
    if (number) {
        fail("SIG%s", sigabbrev_np(number));
    } else {
        check_matmul(slot, type);
    }
}

static void check_one_vector(const kern_table *k, const vector_check *c)
{
    void (*fn)(void);
    memcpy(&fn, (const char *)k + c->offset, sizeof(fn));
    snprintf(current, sizeof(current), "%s %s", k->level, c->name);
    if (!fn) {
        fail("no function");
        return;
    }
    int number = sigsetjmp(escape, 1);
    if (number) {
        fail("SIG%s", sigabbrev_np(number));
    } else {
        c->check(k);
    }
}

/* The table ends in plain pointers to functions: each must be some check's. */
static void check_coverage(void)
{
    snprintf(current, sizeof(current), "coverage");
    for (size_t at = offsetof(kern_table, quantize_q8); at < sizeof(kern_table);
         at += sizeof(void (*)(void))) {
        size_t i = 0;
        while (i < n_vector_checks && vector_checks[i].offset != at) {
            i++;
        }
        if (i == n_vector_checks) {
            fail("the slot at byte %zu of kern_table has no test", at);
        }
    }
}

static void check_dispatch(void)
{
    snprintf(current, sizeof(current), "dispatch");
    const kern_table *best = NULL;
    for (int i = 0; kern_table_at(i); i++) {
        best = kern_table_at(i);
        if (kern_table_get(best->level) != best) {
            fail("level %s is not found by its name", best->level);
        }
        setenv("MARCO_CPU", best->level, 1);
        if (kern_table_get(NULL) != best || strcmp(marco_cpu_level(), best->level) != 0) {
            fail("MARCO_CPU=%s is not obeyed", best->level);
        }
    }
    if (!kern_table_at(0) || strcmp(kern_table_at(0)->level, "portable") != 0) {
        fail("the lowest level is not portable");
    }
    setenv("MARCO_CPU", "abacus", 1);
    if (kern_table_get(NULL) || kern_table_get("abacus")) {
        fail("an unknown level was accepted");
    }
    setenv("MARCO_CPU", "", 1);
    if (kern_table_get(NULL) != best) {
        fail("an empty MARCO_CPU does not mean the best level");
    }
    unsetenv("MARCO_CPU");
    if (kern_table_get(NULL) != best) {
        fail("the default is not the best level");
    }
}

int main(int argc, char **argv)
{
    if (argc >= 2 && strcmp(argv[1], "--bench") == 0) {
        bench(argc >= 3 ? argv[2] : "");
        return 0;
    }
    if (argc == 3 && strcmp(argv[1], "--seed") == 0) {
        seed = strtoull(argv[2], NULL, 10);
    } else if (argc != 1) {
        fprintf(stderr, "usage: test_kernels [--seed N | --bench [FILTER]]\n");
        return 2;
    }
    printf("seed %llu\n", (unsigned long long)seed);
    catch_signals();
    check_coverage();
    check_dispatch();
    int n_slots = 0;
    for (int i = 0; kern_table_at(i); i++) {
        const kern_table *k = kern_table_at(i);
        for (uint32_t type = 0; type < TENSOR_TYPE_END; type++) {
            if (tensor_traits_of(type)) {
                check_one_matmul(k, (tensor_type)type, false);
                check_one_matmul(k, (tensor_type)type, true);
                n_slots += 2;
            }
        }
        for (size_t c = 0; c < n_vector_checks; c++) {
            check_one_vector(k, &vector_checks[c]);
            n_slots++;
        }
    }
    printf("%d slots, %d failures\n", n_slots, n_failed);
    return n_failed > 0;
}
