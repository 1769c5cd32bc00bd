/* A lane for work that takes long before a request can be scheduled: long texts to tokens, schemas
 * to grammars. It has one thread, so that such work takes neither the threads that answer everybody
 * else nor, all at once, the memory; and a bounded queue. */
#ifndef SERVE_HEAVY_H
#define SERVE_HEAVY_H

#include "marco/marco.h"

typedef struct serve_heavy serve_heavy;

/* `stopped`: the lane is closing, the work is not to be done any more but to be refused. */
typedef void (*serve_heavy_fn)(void *user, bool stopped);

/* At most `queue` pieces of work may wait. */
marco_status serve_heavy_create(size_t queue, serve_heavy **out, marco_error *error);

/* Calls fn(user, ...) once, from the lane's thread. False where too much waits already or it has
 * stopped: fn is not called then. Any thread, the lane's own too. */
bool serve_heavy_run(serve_heavy *heavy, serve_heavy_fn fn, void *user);

/* Refuses what waits and waits for what is under way. */
void serve_heavy_stop(serve_heavy *heavy);

/* Stops it, if that was not done. NULL is allowed. */
void serve_heavy_free(serve_heavy *heavy);

#endif
