#include "tokenizer/hash.h"

#include <errno.h>
#include <unistd.h>

#include "base/error.h"

marco_status tok_seed_draw(tok_seed *seed, marco_error *error)
{
    if (getentropy(seed->of, sizeof seed->of) == 0)
        return MARCO_OK;
    return base_fail(error, MARCO_ERROR_IO,
                     "the system gives no random numbers (getentropy: %s); allow the call",
                     strerror(errno));
}
