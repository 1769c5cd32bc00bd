/* Shared by the readers and writers of configurations only. */
#ifndef MODEL_CONFIG_INTERNAL_H
#define MODEL_CONFIG_INTERNAL_H

#include "format/json.h"
#include "model/config.h"

/* Largest config.json and generation_config.json that are read. */
enum { MODEL_CONFIG_LIMIT = 16 << 20 };

/* What model_config_read_hf does once both files are parsed. `generation` may be NULL. `file` and
 * `generation_file` are for messages. Does not set the name. */
marco_status model_config_parse_hf(const char *file, const json_t *config,
                                   const char *generation_file, const json_t *generation,
                                   model_config *out, marco_error *error);

/* "rope_theta", "rope_scaling" and "rope_parameters". */
marco_status model_rope_parse_hf(const char *file, const json_t *config, int32_t n_ctx,
                                 double default_theta, model_rope *out, marco_error *error);

/* Appends to `names` the keys that neither reader uses and that are not known to be without
 * meaning for a running model. False when out of memory. */
bool model_config_unused_hf(const json_t *config, const json_t *generation, json_t *names);
bool model_config_unused_gguf(const gguf *g, json_t *names);

/* Copies those of a GGUF file's keys to another, but for what describes the first file's own bytes:
 * how it was split, what its quantisation was tuned on. */
void model_config_copy_unused_gguf(const gguf *g, gguf_writer *w);

/* Text from a file as a line for people: what is not UTF-8 becomes '?', control characters blanks,
 * what does not fit is cut off between characters. */
void model_config_text(const char *text, size_t n, char *out, size_t size);

/* config.json's "model_type" ("qwen3_moe", ...). */
const char *model_arch_hf_type(model_arch arch);

/* The rope type's name in config.json ("default", "yarn", ...). */
const char *model_rope_scaling_name(model_rope_scaling scaling);

/* The shortest decimal that reads back as the same number, with '.' in every locale. */
void model_number_text(double value, char out[32]);

/* A number that a file holds as F32 as the shortest decimal that gives this F32: 1e-6 rather than
 * 9.9999999747524271e-07. The same to all F32 arithmetic, and files keep their spelling when
 * converted there and back. */
double model_number_of_float(double value);

#endif
