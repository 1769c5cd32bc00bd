#include "load.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <marco/hub.h>

#include "interrupt.h"
#include "text.h"

static int read_compute(const command *self, const char *name, marco_compute *compute)
{
    if (!name || strcmp(name, "auto") == 0)
        *compute = MARCO_COMPUTE_AUTO;
    else if (strcmp(name, "f32") == 0)
        *compute = MARCO_COMPUTE_F32;
    else
        return command_misused(self, "--compute '%s': must be f32 or auto", name);
    return EXIT_SUCCESS;
}

bool parse_size(const char *value, uint64_t *bytes)
{
    static const char suffixes[] = "KMGT";
    char *end = NULL;
    unsigned shift = 0;
    if (!isdigit((unsigned char)value[0]))
        return false;
    errno = 0;
    unsigned long long number = strtoull(value, &end, 10);
    const char *suffix = *end ? strchr(suffixes, toupper((unsigned char)*end)) : NULL;
    if (suffix) {
        shift = 10 * (unsigned)(suffix - suffixes + 1);
        end++;
    }
    if (errno != 0 || *end != '\0' || number == 0 || number > UINT64_MAX >> shift)
        return false;
    *bytes = number << shift;
    return true;
}

int load_kv(const command *self, const char *name, marco_kv_type *type)
{
    if (!name)
        *type = MARCO_KV_AUTO;
    else if (strcmp(name, "f16") == 0)
        *type = MARCO_KV_F16;
    else if (strcmp(name, "f32") == 0)
        *type = MARCO_KV_F32;
    else if (strcmp(name, "q8_0") == 0)
        *type = MARCO_KV_Q8_0;
    else
        return command_misused(self, "--kv '%s': must be f16, f32 or q8_0", name);
    return EXIT_SUCCESS;
}

int load_template(const command *self, const char *name, text *out)
{
    struct stat info;
    *out = (text){0};
    if (name && stat(name, &info) == 0)
        return text_read(self, name, out);
    return EXIT_SUCCESS;
}

int load_find(const command *self, const char *model, char **path)
{
    marco_error error = {0};
    *path = NULL;
    return command_status(self, marco_hub_find(model, NULL, path, &error), &error);
}

int load_engine(const command *self, const load_options *options, const char *chat_template,
                loaded *out)
{
    *out = (loaded){.progress = progress_create(self, options->quiet)};
    if (!options->model)
        return command_misused(self, "no model: give -m MODEL");
    marco_engine_params engine = marco_engine_params_default();
    int exit_status = read_compute(self, options->compute, &engine.compute);
    if (exit_status != EXIT_SUCCESS)
        return exit_status;
    if (options->ram && !parse_size(options->ram, &engine.ram))
        return command_misused(
            self, "--ram '%s': must be a size above 0 in bytes, or with K, M, G or T: 6G",
            options->ram);
    if (options->ram && options->mmap)
        return command_misused(self, "--ram excludes --mmap");
    engine.mmap = options->mmap;
    exit_status = load_kv(self, options->kv, &engine.kv_type);
    if (exit_status != EXIT_SUCCESS)
        return exit_status;
    text template_text;
    exit_status = load_template(self, chat_template, &template_text);
    if (exit_status != EXIT_SUCCESS)
        return exit_status;

    char *path = NULL;
    exit_status = load_find(self, options->model, &path);
    if (exit_status != EXIT_SUCCESS) {
        free(template_text.data);
        return exit_status;
    }
    interrupt_catch(INTERRUPT_TWICE_KILLS);
    marco_error error = {0};
    engine.threads = options->threads;
    engine.chat_template = template_text.data ? template_text.data : chat_template;
    engine.progress = progress_of(&out->progress);
    marco_status status = marco_engine_open(path, &engine, &out->engine, &error);
    progress_clear(&out->progress);
    marco_free(path);
    free(template_text.data);
    if (status != MARCO_OK)
        return command_status(self, status, &error);

    const marco_model_info *info = marco_engine_info(out->engine);
    if (info->provenance && !options->quiet) {
        fputs("note: ", stderr);
        print_safely(stderr, info->provenance, strlen(info->provenance));
        fputc('\n', stderr);
    }
    if (!options->quiet) {
        fputs("note: weights: ", stderr);
        print_safely(stderr, info->residency, strlen(info->residency));
        fputc('\n', stderr);
    }
    return EXIT_SUCCESS;
}

int load_open(const command *self, const load_options *options, const char *chat_template,
              loaded *out)
{
    marco_session_params session = marco_session_params_default();
    int exit_status = load_kv(self, options->kv, &session.kv_type);
    if (exit_status == EXIT_SUCCESS)
        exit_status = load_engine(self, options, chat_template, out);
    if (exit_status != EXIT_SUCCESS)
        return exit_status;
    marco_error error = {0};
    session.n_ctx = options->ctx;
    session.chunk = options->chunk;
    session.trace = options->trace;
    session.trace_user = options->trace_user;
    session.progress = progress_of(&out->progress);
    marco_status status = marco_session_create(out->engine, &session, &out->session, &error);
    return command_status(self, status, &error);
}

void load_close(loaded *l)
{
    if (l->session)
        marco_session_close(l->session);
    if (l->engine)
        marco_engine_close(l->engine);
    *l = (loaded){0};
}

uint64_t memory_peak(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return 0;
    return (uint64_t)usage.ru_maxrss * 1024;
}
