/* Ctrl-C, SIGTERM and SIGHUP as a question that long work asks. */
#ifndef CLI_INTERRUPT_H
#define CLI_INTERRUPT_H

#include <stdbool.h>

typedef enum interrupt_manner {
    INTERRUPT_TWICE_KILLS, /* a second signal, the first still pending, ends the process at once */
    INTERRUPT_PATIENT,     /* however many: there is something to tidy up, or to keep */
} interrupt_manner;

/* From now on a signal sets a flag. */
void interrupt_catch(interrupt_manner manner);

/* Whether one arrived since interrupt_catch or interrupt_clear. */
bool interrupt_pending(void);

/* Whether it was SIGTERM or SIGHUP: interrupt_clear does not forget it. */
bool interrupt_terminated(void);

void interrupt_clear(void);

/* Flushes standard output. False: a signal came in the middle, or, where *cause is set to an errno,
 * standard output takes no more. */
bool interrupt_flush(int *cause);

#endif
