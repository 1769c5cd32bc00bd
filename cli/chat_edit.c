#include <histedit.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "chat.h"
#include "interrupt.h"

static char *prompt(EditLine *editor)
{
    (void)editor;
    static char sign[] = "> ";
    return sign;
}

int chat_edit_lines(chat *c)
{
    EditLine *editor = el_init("marco", stdin, stderr, stderr);
    History *past = history_init();
    HistEvent event;
    int exit_status = EXIT_FAIL;
    if (!editor || !past) {
        command_fail(c->self, "the terminal cannot be used for line editing");
        goto done;
    }
    el_set(editor, EL_PROMPT, prompt);
    el_set(editor, EL_EDITOR, "emacs");
    el_set(editor, EL_SIGNAL, 1);
    /* While a line is edited Ctrl-C is a key, which clears the line; while a reply is generated it
     * is the signal that stops the reply. */
    el_set(editor, EL_SETTY, "-d", "-isig", NULL);
    el_set(editor, EL_BIND, "^C", "em-kill-line", NULL);
    history(past, &event, H_SETSIZE, 1000);
    el_set(editor, EL_HIST, history, past);
    el_source(editor, NULL); /* ~/.editrc */
    if (!c->json)
        fputs("/help lists the commands, Ctrl-D ends.\n", stderr);

    exit_status = EXIT_SUCCESS;
    bool going = true;
    while (going && !interrupt_terminated()) {
        int size = 0;
        /* While waiting there is nothing to tidy up but the terminal, which EL_SIGNAL does. */
        signal(SIGTERM, SIG_DFL);
        signal(SIGHUP, SIG_DFL);
        const char *line = el_gets(editor, &size);
        interrupt_catch(INTERRUPT_PATIENT);
        if (!line || size <= 0)
            break;
        if (line[0] != '\n')
            history(past, &event, H_ENTER, line);
        chat_line(c, line, (size_t)size, &going);
    }
    fputc('\n', stderr);
    if (interrupt_terminated())
        exit_status = EXIT_INTERRUPTED;
done:
    if (past)
        history_end(past);
    if (editor)
        el_end(editor);
    return exit_status;
}
