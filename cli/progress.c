#include "progress.h"

#include <math.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "interrupt.h"

enum { BAR_WIDTH = 24 };

double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

const char *format_bytes(uint64_t bytes, char *buffer)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 999.5 && unit < 6) {
        value /= 1000;
        unit++;
    }
    snprintf(buffer, 32, unit > 0 && value < 9.95 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return buffer;
}

progress progress_create(const command *self, bool quiet)
{
    return (progress){.self = self, .quiet = quiet, .bar = isatty(STDERR_FILENO) != 0};
}

static void print_rate(const progress *p, double now, uint64_t done, uint64_t total)
{
    double rate = (double)(done - p->before) / fmax(now - p->start, 1e-3);
    char buffer[32];
    if (strstr(p->what, "token"))
        fprintf(stderr, " %.0f/s", rate);
    else
        fprintf(stderr, " %s/s", format_bytes((uint64_t)rate, buffer));
    if (total > done && rate > 0) {
        double left = (double)(total - done) / rate;
        if (left < 90)
            fprintf(stderr, ", %.0f s left", ceil(left));
        else
            fprintf(stderr, ", %.0f min left", ceil(left / 60));
    }
    if (p->note[0])
        fprintf(stderr, "; %s", p->note);
}

static void print_bar(progress *p, double now, uint64_t done, uint64_t total)
{
    if (total == 0 && done == 0) { /* not work, but waiting */
        fprintf(stderr, "\r\033[K%s ...", p->what);
        fflush(stderr);
        p->shown = true;
        return;
    }
    int filled = total ? (int)((double)done / (double)total * BAR_WIDTH) : 0;
    fprintf(stderr, "\r\033[K%s [", p->what);
    for (int i = 0; i < BAR_WIDTH; i++)
        fputc(i < filled ? '#' : '.', stderr);
    fputc(']', stderr);
    if (total)
        fprintf(stderr, " %.0f%%", floor((double)done / (double)total * 100));
    print_rate(p, now, done, total);
    fflush(stderr);
    p->shown = true;
}

static int report(void *user, const char *what, uint64_t done, uint64_t total)
{
    progress *p = user;
    if (interrupt_pending())
        return 1;
    if (p->quiet)
        return 0;
    double now = seconds_now();
    if (done > total && total)
        done = total;
    if (strncmp(p->what, what, sizeof(p->what) - 1) != 0 || done < p->before) {
        progress_clear(p);
        snprintf(p->what, sizeof(p->what), "%s", what);
        p->start = p->last = now;
        p->before = done;
        return 0;
    }
    bool last = total && done == total;
    if (p->bar && now - p->last >= 0.1) {
        print_bar(p, now, done, total);
        p->last = now;
    } else if (!p->bar && (now - p->last >= 10 || (last && now - p->start >= 10))) {
        fprintf(stderr, "marco %s: %s", p->self->name, p->what);
        if (total)
            fprintf(stderr, " %.0f%%", floor((double)done / (double)total * 100));
        print_rate(p, now, done, total);
        fputc('\n', stderr);
        p->last = now;
    }
    if (last) {
        progress_clear(p);
        p->what[0] = '\0'; /* the next report begins a phase */
    }
    return 0;
}

marco_progress progress_of(progress *p)
{
    return (marco_progress){.fn = report, .user = p};
}

void progress_clear(progress *p)
{
    if (p->shown)
        fputs("\r\033[K", stderr);
    fflush(stderr);
    p->shown = false;
}
