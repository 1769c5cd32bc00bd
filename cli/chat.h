/* Inside marco chat: the conversation, its commands, and reading lines with editing. */
#ifndef CLI_CHAT_H
#define CLI_CHAT_H

#include <jansson.h>

#include "generate.h"

typedef struct chat {
    const command *self;
    loaded model;
    generate_options *options;
    marco_generation generation;
    marco_generation_stats stats; /* of the last reply */
    json_t *messages;             /* array of {"role", "content"} */
    text reply;                   /* being streamed */
    bool json, terminal;
    bool short_of_memory; /* while streaming the reply */
    int cause;            /* why standard output took no more, an errno */
} chat;

/* A user's message and the reply to it (chat.c). Returns an exit status, errors reported; after an
 * error the conversation is as it was. */
int chat_turn(chat *c, const char *line, size_t size);

/* A line of input: a message, a command, or empty (chat_commands.c). *going becomes false at
 * /quit. Returns an exit status, errors reported. */
int chat_line(chat *c, const char *line, size_t size, bool *going);

/* Back to the system message alone; false when out of memory (chat_commands.c). */
bool chat_reset(chat *c);

/* Converses on the terminal until the end (chat_edit.c). Returns an exit status. */
int chat_edit_lines(chat *c);

#endif
