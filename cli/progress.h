/* Progress of long work on stderr: a bar on a terminal, a line now and then elsewhere. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <marco/marco.h>

#include "command.h"

typedef struct progress {
    const command *self;
    bool quiet;
    bool bar;        /* stderr is a terminal */
    bool shown;      /* a bar stands on the line */
    double start;    /* of this phase, seconds */
    double last;     /* when last printed */
    uint64_t before; /* what had been done when the phase was first seen */
    char what[64];   /* the phase */
    char note[48];   /* a running result to show beside it, or empty */
} progress;

progress progress_create(const command *self, bool quiet);

/* For the library to report to; it also passes on Ctrl-C, as a wish to cancel. */
marco_progress progress_of(progress *p);

/* Wipes the bar off the terminal. */
void progress_clear(progress *p);

/* Seconds on a clock that only goes forward. */
double seconds_now(void);

/* "18.4 GB" into buffer [32]; returns it. */
const char *format_bytes(uint64_t bytes, char *buffer);

#endif
