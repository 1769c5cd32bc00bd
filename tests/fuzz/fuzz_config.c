/* Any bytes as a model's configuration: GGUF metadata where they begin as one, else config.json
 * and, after a NUL, generation_config.json. What is accepted must keep what model_config_check
 * promises. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "model/config_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool good)
{
    if (!good)
        abort();
}

static void check(const model_config *c)
{
    require(model_config_check(c, "fuzz", NULL) == MARCO_OK);
    require(c->n_layers >= 1 && c->n_layers <= MODEL_MAX_LAYERS);
    require(c->n_heads % c->n_kv_heads == 0 && c->head_dim % 2 == 0);
    require(c->n_experts_used <= c->n_experts || c->n_experts == 0);
    require(model_config_total_params(c) >= model_config_active_params(c));
    model_tensor first;
    size_t n = model_config_tensors(c, &first, 1);
    require(n >= 11 && first.role == MODEL_TOKEN_EMBD && first.rows == c->n_vocab);
    char name[128];
    model_tensor_hf_name(c, &first, 0, name);
    model_tensor_gguf_name(&first, name);
}

static void as_json(const char *text, size_t size)
{
    const char *nul = memchr(text, 0, size);
    size_t first = nul ? (size_t)(nul - text) : size;
    json_t *config = NULL, *generation = NULL;
    model_config c;
    marco_status status = format_json_text("config.json", text, first, &config, NULL);
    if (!status && nul)
        status = format_json_text("generation_config.json", nul + 1, size - first - 1, &generation,
                                  NULL);
    if (!status && model_config_parse_hf("config.json", config, "generation_config.json",
                                         generation, &c, NULL) == MARCO_OK)
        check(&c);
    json_decref(config);
    json_decref(generation);
}

static void as_gguf(const uint8_t *data, size_t size)
{
    char path[64];
    gguf *g = NULL;
    model_config c;
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (gguf_open(path, &g, NULL) == MARCO_OK && model_config_read_gguf(g, &c, NULL) == MARCO_OK)
        check(&c);
    gguf_close(g);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size >= 4 && memcmp(data, "GGUF", 4) == 0)
        as_gguf(data, size);
    else
        as_json((const char *)data, size);
    return 0;
}
