#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chat.h"

bool chat_reset(chat *c)
{
    json_t *messages = json_array();
    if (!messages)
        return false;
    const char *system = c->options->system;
    if (system &&
        json_array_append_new(messages, message_create("system", system, strlen(system))) != 0) {
        json_decref(messages);
        return false;
    }
    json_decref(c->messages);
    c->messages = messages;
    c->stats = (marco_generation_stats){0};
    marco_session_truncate(c->model.session, 0);
    return true;
}

/* ---- the commands: rest is what follows the name, NUL-terminated ---------------------------- */

static void say(const chat *c, const char *what)
{
    /* With --json standard output is for replies alone. */
    fprintf(c->json ? stderr : stdout, "%s\n", what);
}

static int do_help(chat *c, const char *rest);

static int do_reset(chat *c, const char *rest)
{
    (void)rest;
    if (!chat_reset(c))
        return command_fail(c->self, "out of memory");
    say(c, "(a new conversation)");
    return EXIT_SUCCESS;
}

/* The system message is the first, or there is none. */
static int do_system(chat *c, const char *rest)
{
    if (utf8_invalid(rest, strlen(rest)) < strlen(rest))
        return command_fail(c->self, "/system: the text is not UTF-8");
    const char *role = json_string_value(json_object_get(json_array_get(c->messages, 0), "role"));
    if (role && strcmp(role, "system") == 0)
        json_array_remove(c->messages, 0);
    if (*rest &&
        json_array_insert_new(c->messages, 0, message_create("system", rest, strlen(rest))) != 0)
        return command_fail(c->self, "out of memory");
    say(c, *rest ? "(system message set)" : "(system message removed)");
    return EXIT_SUCCESS;
}

/* NULL, or what is wrong with a conversation out of a file. */
static const char *conversation_flaw(json_t *messages, size_t *at)
{
    *at = 0;
    if (!json_is_array(messages))
        return "not an array of messages";
    json_t *message;
    size_t i;
    json_array_foreach(messages, i, message)
    {
        *at = i;
        const char *role = json_string_value(json_object_get(message, "role"));
        if (!role || (strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0 &&
                      (strcmp(role, "system") != 0 || i > 0)))
            return "its role must be user, assistant, or system in the first";
        if (!json_is_string(json_object_get(message, "content")))
            return "its content must be a string";
    }
    return NULL;
}

/* The conversation in a file: EXIT_SUCCESS and a new reference, or a reported error. */
static int read_conversation(chat *c, const char *path, json_t **out)
{
    text file;
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return command_fail(c->self, "%s: not a regular file", path);
    int exit_status = text_read(c->self, path, &file);
    if (exit_status != EXIT_SUCCESS)
        return exit_status;
    json_error_t parse_error;
    json_t *messages =
        json_loadb(file.data, file.size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &parse_error);
    free(file.data);
    if (!messages)
        return command_fail(c->self, "%s: line %d: %s", path, parse_error.line, parse_error.text);
    size_t at = 0;
    const char *flaw = conversation_flaw(messages, &at);
    if (flaw) {
        bool array = json_is_array(messages);
        json_decref(messages);
        if (!array)
            return command_fail(c->self, "%s: %s", path, flaw);
        return command_fail(c->self, "%s: message %zu: %s", path, at, flaw);
    }
    *out = messages;
    return EXIT_SUCCESS;
}

static int do_save(chat *c, const char *rest)
{
    if (!*rest)
        return command_fail(c->self, "/save needs a file's name");
    if (access(rest, F_OK) == 0) {
        json_t *before = NULL;
        if (read_conversation(c, rest, &before) != EXIT_SUCCESS)
            return command_fail(c->self, "%s is there and is no conversation: not overwritten",
                                rest);
        json_decref(before);
    }
    char *written = json_dumps(c->messages, JSON_INDENT(1));
    if (!written)
        return command_fail(c->self, "out of memory");
    int exit_status = text_write(c->self, rest, written, strlen(written));
    free(written);
    if (exit_status == EXIT_SUCCESS)
        say(c, "(saved)");
    return exit_status;
}

static int do_load(chat *c, const char *rest)
{
    if (!*rest)
        return command_fail(c->self, "/load needs a file's name");
    json_t *messages = NULL;
    int exit_status = read_conversation(c, rest, &messages);
    if (exit_status != EXIT_SUCCESS)
        return exit_status;
    json_decref(c->messages);
    c->messages = messages;
    say(c, "(loaded)");
    return EXIT_SUCCESS;
}

static int do_stats(chat *c, const char *rest)
{
    (void)rest;
    size_t held = 0;
    marco_session_tokens(c->model.session, &held);
    FILE *out = c->json ? stderr : stdout;
    fprintf(out, "messages    %zu\ncontext     %zu of %d tokens\n", json_array_size(c->messages),
            held, marco_session_context(c->model.session));
    stats_print(out, &c->model, &c->stats, c->generation.sampling.seed);
    return EXIT_SUCCESS;
}

static const struct {
    const char *name, *value, *help;
    int (*run)(chat *c, const char *rest);
} chat_commands[] = {
    {"/help", "", "this list", do_help},
    {"/reset", "", "start a new conversation", do_reset},
    {"/system", " TEXT", "set the system message (without TEXT: remove it)", do_system},
    {"/save", " FILE", "write the conversation to FILE, for you alone to read", do_save},
    {"/load", " FILE", "go on with the conversation in FILE", do_load},
    {"/stats", "", "speed of the last reply, memory, context in use", do_stats},
    {"/quit", "", "end the program (Ctrl-D too)", NULL},
};

enum { N_COMMANDS = sizeof(chat_commands) / sizeof(chat_commands[0]) };

static int do_help(chat *c, const char *rest)
{
    (void)rest;
    FILE *out = c->json ? stderr : stdout;
    for (size_t i = 0; i < N_COMMANDS; i++) {
        int width = 16 - (int)strlen(chat_commands[i].name);
        fprintf(out, "%s%-*s%s\n", chat_commands[i].name, width, chat_commands[i].value,
                chat_commands[i].help);
    }
    fputs("Ctrl-C stops a reply.\n", out);
    return EXIT_SUCCESS;
}

int chat_line(chat *c, const char *line, size_t size, bool *going)
{
    *going = true;
    while (size > 0 && (line[size - 1] == '\n' || line[size - 1] == '\r'))
        size--;
    if (size == 0)
        return EXIT_SUCCESS;
    if (line[0] != '/')
        return chat_turn(c, line, size);

    char *copy = strndup(line, size);
    if (!copy)
        return command_fail(c->self, "out of memory");
    char *rest = copy + strcspn(copy, " \t");
    if (*rest)
        *rest++ = '\0';
    rest += strspn(rest, " \t");
    int exit_status = EXIT_FAIL;
    size_t i = 0;
    while (i < N_COMMANDS && strcmp(chat_commands[i].name, copy) != 0)
        i++;
    if (i == N_COMMANDS) {
        command_fail(c->self, "no command '%s' (/help lists them)", copy);
    } else if (!chat_commands[i].run) {
        *going = false;
        exit_status = EXIT_SUCCESS;
    } else {
        exit_status = chat_commands[i].run(c, rest);
    }
    free(copy);
    return exit_status;
}
