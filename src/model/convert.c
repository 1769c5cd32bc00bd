#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "model/copy_internal.h"
#include "model/source.h"

/* The largest tokenizer file that is copied. */
#define TOKENIZER_LIMIT ((size_t)256 << 20)

static marco_status copy_file(const char *from_folder, const char *to_folder, const char *name,
                              marco_error *error)
{
    char *from = base_path_join(from_folder, name), *data = NULL;
    size_t size = 0;
    if (!from)
        return base_fail_memory(error, strlen(from_folder), "a path");
    marco_status status = MARCO_OK;
    if (base_exists(from)) {
        status = base_file_slurp(from, TOKENIZER_LIMIT, &data, &size, error);
        if (!status)
            status = base_output_put(to_folder, name, data, size, error);
    }
    base_free(data);
    base_free(from);
    return status;
}

marco_status model_copy_tokenizer(const tok_spec *spec, const char *folder, marco_error *error)
{
    static const char *const names[] = {
        "tokenizer.json",    "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json", "chat_template.jinja",   "vocab.json",
        "merges.txt",
    };
    const char *source = spec->source ? spec->source : "";
    if (strcmp(base_path_name(source), "tokenizer.json") != 0 || !base_exists(source))
        return tok_spec_write_hf(spec, folder, error);
    size_t n = strlen(source) - strlen("tokenizer.json");
    char *from = n > 0 ? base_strndup(source, n) : base_strdup(".");
    if (!from)
        return base_fail_memory(error, n, "a path");
    marco_status status = MARCO_OK;
    for (size_t i = 0; !status && i < sizeof names / sizeof *names; i++)
        status = copy_file(from, folder, names[i], error);
    base_free(from);
    return status;
}

marco_convert_params marco_convert_params_default(void)
{
    return (marco_convert_params){0};
}

marco_status marco_convert(const char *from, const char *to, const marco_convert_params *params,
                           marco_error *error)
{
    const marco_convert_params standard = marco_convert_params_default();
    model_source *source = NULL;
    if (!from || !to || !to[0])
        return base_fail(error, MARCO_ERROR_ARGUMENT, "convert needs a checkpoint and an output");
    if (!params)
        params = &standard;
    int type = params->type ? tensor_type_parse(params->type) : -1;
    if (params->type && type < 0)
        return base_fail(
            error, MARCO_ERROR_ARGUMENT,
            "unknown type \"%.40s\"; choose F32, F16, BF16 or Q8_0 (marco quantize has more)",
            params->type);
    marco_status status = model_source_open(from, &source, error);
    if (status)
        return status;
    const model_copy_params copy = {
        .type = type,
        .overwrite = params->overwrite,
        .threads = params->threads,
        .progress = params->progress,
        .what = "converting",
    };
    return model_copy_and_close(source, to, &copy, error);
}
