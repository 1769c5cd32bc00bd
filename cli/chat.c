/* marco chat: a conversation. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chat.h"
#include "interrupt.h"

struct chat_options {
    load_options load;
    generate_options generate;
};

static const cli_option options[] = {
    LOAD_OPTIONS(struct chat_options),
    GENERATE_OPTIONS(struct chat_options),
};

/* ---- one turn ------------------------------------------------------------------------------- */

static int on_text(void *user, const char *data, size_t size)
{
    chat *c = user;
    if (interrupt_pending())
        return 1;
    c->short_of_memory = !text_append(&c->reply, data, size);
    if (c->short_of_memory || c->json)
        return c->short_of_memory;
    if (c->terminal)
        print_safely(stdout, data, size);
    else
        fwrite(data, 1, size, stdout);
    return !interrupt_flush(&c->cause);
}

/* Leaves in the session what the new ids share with it, and says how much that is: at least one
 * id stays to be fed. */
static size_t rewind_to_shared(marco_session *session, const int32_t *ids, size_t n)
{
    size_t had = 0;
    const int32_t *tokens = marco_session_tokens(session, &had);
    size_t shared = 0;
    while (shared < had && shared + 1 < n && tokens[shared] == ids[shared])
        shared++;
    if (shared < had && marco_session_truncate(session, shared) != MARCO_OK)
        return 0;
    return shared;
}

static marco_status generate_reply(chat *c, marco_error *error)
{
    int32_t *ids = NULL;
    size_t n = 0;
    marco_status status = chat_ids(c->model.engine, c->options, c->messages, &ids, &n, error);
    if (status != MARCO_OK)
        return status;
    size_t shared = rewind_to_shared(c->model.session, ids, n);
    c->reply.size = 0;
    c->short_of_memory = false;
    c->cause = 0;
    status = marco_session_generate(c->model.session, ids + shared, n - shared, &c->generation,
                                    &c->stats, error);
    marco_free(ids);
    progress_clear(&c->model.progress);
    return status;
}

/* Adds the reply to the conversation and shows how it ended. */
static bool finish_turn(chat *c)
{
    const char *data = c->reply.data ? c->reply.data : "";
    bool added =
        json_array_append_new(c->messages, message_create("assistant", data, c->reply.size)) == 0;
    if (c->json) {
        return added && json_line(c->self, json_pack("{s:s, s:o, s:s}", "role", "assistant",
                                                     "content", json_text(data, c->reply.size),
                                                     "finish", finish_name(c->stats.finish))) == 0;
    }
    fputs("\n", stdout);
    fflush(stdout);
    if (c->stats.finish == MARCO_FINISH_CANCELLED)
        fputs("(interrupted)\n", stderr);
    size_t held = 0;
    marco_session_tokens(c->model.session, &held);
    if (c->stats.finish == MARCO_FINISH_LENGTH &&
        held + 1 >= (size_t)marco_session_context(c->model.session))
        fprintf(stderr, "(the context of %d tokens is full: /reset starts anew)\n",
                marco_session_context(c->model.session));
    return added;
}

int chat_turn(chat *c, const char *line, size_t size)
{
    size_t valid = utf8_invalid(line, size);
    if (valid < size)
        return command_fail(c->self, "the message is not UTF-8 at byte %zu", valid);
    size_t before = json_array_size(c->messages);
    if (json_array_append_new(c->messages, message_create("user", line, size)) != 0)
        return command_fail(c->self, "out of memory");
    interrupt_clear();
    marco_error error = {0};
    marco_status status = generate_reply(c, &error);
    bool interrupted = interrupt_pending();
    interrupt_clear();
    if (status == MARCO_OK && c->cause)
        return command_fail(c->self, "standard output: %s", strerror(c->cause));
    if (status == MARCO_OK && (c->short_of_memory || !finish_turn(c)))
        return command_fail(c->self, "out of memory");
    if (status == MARCO_OK)
        return EXIT_SUCCESS;

    /* The turn never was. */
    json_array_remove(c->messages, before);
    if (interrupted) {
        fputs("(interrupted)\n", stderr);
        return EXIT_SUCCESS;
    }
    if (status == MARCO_ERROR_CONTEXT)
        return command_fail(c->self, "%s (/reset starts a new conversation)", error.message);
    return command_status(c->self, status, &error);
}

/* ---- reading lines -------------------------------------------------------------------------- */

/* Lines of a pipe or file. Returns the exit status: that of the last line that failed. */
static int converse_plainly(chat *c)
{
    int exit_status = EXIT_SUCCESS;
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    bool going = true;
    while (going && !interrupt_pending() && (size = getline(&line, &room, stdin)) >= 0) {
        int line_status = chat_line(c, line, (size_t)size, &going);
        if (line_status != EXIT_SUCCESS)
            exit_status = line_status;
    }
    free(line);
    return interrupt_pending() ? EXIT_INTERRUPTED : exit_status;
}

static int run(const command *self, int argc, char **argv)
{
    struct chat_options o = {.generate = GENERATE_DEFAULTS};
    int exit_status = 0;
    if (options_parse(self, argc, argv, &o, &exit_status) < 0)
        return exit_status;
    chat c = {.self = self,
              .options = &o.generate,
              .json = o.load.json,
              .terminal = isatty(STDOUT_FILENO) != 0};
    exit_status = load_open(self, &o.load, o.generate.chat_template, &c.model);
    if (exit_status != EXIT_SUCCESS)
        goto done;
    if (!marco_tokenizer_chat_template(marco_engine_tokenizer(c.model.engine))) {
        exit_status = command_fail(self,
                                   "%s has no chat template that is known here; --chat-template "
                                   "names one (qwen3, qwen2.5, smollm2, chatml)",
                                   o.load.model);
        goto done;
    }
    exit_status = generation_create(self, &o.generate, c.model.engine, &c.generation);
    if (exit_status != EXIT_SUCCESS)
        goto done;
    interrupt_catch(INTERRUPT_PATIENT);
    c.generation.on_text = on_text;
    c.generation.user = &c;
    if (!chat_reset(&c)) {
        exit_status = command_fail(self, "out of memory");
        goto done;
    }
    if (isatty(STDIN_FILENO))
        exit_status = chat_edit_lines(&c);
    else
        exit_status = converse_plainly(&c);
done:
    json_decref(c.messages);
    free(c.reply.data);
    generation_free(&o.generate, &c.generation);
    load_close(&c.model);
    return exit_status;
}

const command chat_command = {
    .name = "chat",
    .summary = "hold a conversation",
    .synopsis = "-m MODEL [OPTION...]",
    .details =
        "Each line is a message; the model's reply is streamed. Lines that begin with a slash are "
        "commands: /help lists them. Ctrl-C stops a reply, Ctrl-D or /quit ends the program.\n"
        "Works on pipes too: then every line of standard input is a message. With --json each "
        "reply is an object on a line: role, content and finish.\n",
    .example = "marco chat -m marco-mini.gguf --system 'Answer in one sentence.'\n",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .run = run,
};
