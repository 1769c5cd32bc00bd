/* A tokenizer.json from anywhere. What is accepted must encode a text with a bit of everything,
 * and give only ids that it knows. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tokenizer/tokenizer.h"

static const char sample[] =
    "Hello, world's  12\r\n\t<|im_start|> e\xCC\x81 \xD0\xB4\xD0\xB0 \xE4\xB8\xAD\xE6\x96\x87 "
    "\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7 \xFF\xE2\x82<x>ab";

static void use(const marco_tokenizer *tokenizer)
{
    int32_t *ids = NULL;
    size_t n, size;
    char *text = NULL;
    marco_error error = {0};
    /* A costly pattern may be an error, and nothing else. */
    marco_status status =
        marco_tokenizer_encode(tokenizer, sample, sizeof sample - 1,
                               MARCO_ENCODE_SPECIAL | MARCO_ENCODE_BOS, &ids, &n, &error);
    if (status && status != MARCO_ERROR_UNSUPPORTED)
        abort();
    if (status)
        return;
    if (marco_tokenizer_decode(tokenizer, ids, n, true, &text, &size, &error))
        abort();
    marco_free(text);
    marco_free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[64];
    static int fd = -1;
    if (fd < 0) {
        fd = memfd_create("tokenizer", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (fd < 0 || ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size)
        abort();
    marco_tokenizer *tokenizer = NULL;
    marco_error error = {0};
    if (size >= 4 && memcmp(data, "GGUF", 4) == 0)
        return 0; /* fuzz_gguf has those */
    if (marco_tokenizer_open(path, &tokenizer, &error) == MARCO_OK)
        use(tokenizer);
    else if (!error.message[0] || tokenizer)
        abort();
    marco_tokenizer_close(tokenizer);
    return 0;
}
