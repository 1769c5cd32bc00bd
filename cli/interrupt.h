/* Ctrl-C (and SIGTERM) as a question that long work asks. */
#ifndef CLI_INTERRUPT_H
#define CLI_INTERRUPT_H

#include <stdbool.h>

/* From now on the first signal only sets a flag; a second one, the flag still set, ends the
 * process at once. */
void interrupt_catch(void);

/* Whether one arrived since interrupt_catch or interrupt_clear. */
bool interrupt_pending(void);
void interrupt_clear(void);

#endif
