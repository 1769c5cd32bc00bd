/* complete MODEL PROMPT: prints a model's continuation of a text.
 *
 * cc complete.c $(pkg-config --cflags --libs marco) -o complete */
#include <marco/marco.h>
#include <stdio.h>
#include <string.h>

static int show(void *user, const char *text, size_t size)
{
    return fwrite(text, 1, size, user) != size;
}

int main(int argc, char **argv)
{
    marco_engine *engine = NULL;
    marco_session *session = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    marco_error error = {0};
    if (argc != 3)
        return 2;
    marco_status status = marco_engine_open(argv[1], NULL, &engine, &error);
    if (!status)
        status = marco_session_create(engine, NULL, &session, &error);
    if (!status)
        status = marco_tokenizer_encode(marco_engine_tokenizer(engine), argv[2], strlen(argv[2]),
                                        MARCO_ENCODE_BOS, &ids, &n, &error);
    if (!status) {
        marco_generation generation = marco_generation_default(engine);
        generation.max_tokens = 32;
        generation.on_text = show;
        generation.user = stdout;
        status = marco_session_generate(session, ids, n, &generation, NULL, &error);
    }
    puts(status ? error.message : "");
    marco_free(ids);
    marco_session_close(session);
    marco_engine_close(engine);
    return status ? 1 : 0;
}
