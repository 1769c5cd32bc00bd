/* Between the files that copy checkpoints. */
#ifndef MODEL_COPY_INTERNAL_H
#define MODEL_COPY_INTERNAL_H

#include "tokenizer/spec.h"

/* A tokenizer's files into a folder: the originals where it came from a folder, so that nothing of
 * what other programs read in them is lost, else newly written ones. */
marco_status model_copy_tokenizer(const tok_spec *spec, const char *folder, marco_error *error);

#endif
