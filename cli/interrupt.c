#include "interrupt.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>

static volatile sig_atomic_t pending, terminated, impatient;

static void on_signal(int number)
{
    if (pending && impatient) {
        signal(number, SIG_DFL);
        raise(number);
    }
    pending = 1;
    if (number != SIGINT)
        terminated = 1;
}

void interrupt_catch(interrupt_manner manner)
{
    /* No SA_RESTART: whoever waits for input is to hear of it. */
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    impatient = manner == INTERRUPT_TWICE_KILLS;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    /* A file over the limit is then an error that is reported, with nothing left behind. */
    signal(SIGXFSZ, SIG_IGN);
}

bool interrupt_pending(void)
{
    return pending != 0;
}

bool interrupt_terminated(void)
{
    return terminated != 0;
}

void interrupt_clear(void)
{
    pending = terminated;
}

bool interrupt_flush(int *cause)
{
    while (fflush(stdout) != 0) {
        if (errno != EINTR) {
            *cause = errno;
            return false;
        }
        clearerr(stdout); /* what was not written is still in the buffer */
        if (interrupt_pending())
            return false;
    }
    return true;
}
