/* Tiny checkpoints whose weights are a formula, and what transformers computes on them: the twin of
 * tests/vectors/tiny.py, reading what make_logits.py wrote. For tests: problems end the test. */
#ifndef TINY_CHECKPOINT_H
#define TINY_CHECKPOINT_H

#include <stddef.h>
#include <stdint.h>

#include "marco/marco.h"

/* X(name): one file each in tests/vectors/logits. */
#define TINY_CASES(X)                                                                              \
    X("qwen3moe-256")                                                                              \
    X("qwen3moe-232")                                                                              \
    X("qwen3moe-plain-topk")                                                                       \
    X("qwen3moe-dense-layers")                                                                     \
    X("qwen3")                                                                                     \
    X("qwen3-yarn")                                                                                \
    X("llama")                                                                                     \
    X("llama-linear")                                                                              \
    X("llama-llama3")                                                                              \
    X("mixtral")                                                                                   \
    X("mixtral-tied")

enum { TINY_SAMPLES = 4, TINY_MAX_SEQUENCES = 4 };

typedef struct tiny_position {
    int32_t likeliest;
    double max, log_sum_exp;
    int32_t sample_ids[TINY_SAMPLES];
    double samples[TINY_SAMPLES]; /* their logits */
} tiny_position;

typedef struct tiny_sequence {
    size_t n;
    int32_t *ids;             /* [n] */
    tiny_position *positions; /* [n] */
} tiny_sequence;

typedef struct tiny_vector {
    char *text;   /* the file */
    char *config; /* config.json, in it */
    uint64_t seed;
    int32_t n_vocab;
    double deviation; /* standard deviation of all logits of all positions */
    tiny_sequence sequences[TINY_MAX_SEQUENCES];
    size_t n_sequences;
    int32_t *prompt, *greedy; /* [n_prompt], [n_greedy]: what greedy decoding adds to it */
    size_t n_prompt, n_greedy;
} tiny_vector;

tiny_vector *tiny_vector_read(const char *name);
void tiny_vector_free(tiny_vector *vector);

/* The stream of random numbers that goes by a name. */
uint64_t tiny_stream_of(const char *name);

/* Makes a folder with the checkpoint in it. Of the vector, config and seed count. */
void tiny_checkpoint_write(const tiny_vector *vector, const char *folder);

marco_engine *tiny_engine_open(const char *path, marco_compute compute, int32_t threads);
marco_session *tiny_session_create(marco_engine *engine, int32_t chunk);

/* Logits of every position of a fresh session, [n, n_vocab]; released with free(). */
float *tiny_logits(marco_engine *engine, int32_t chunk, const int32_t *ids, size_t n);

/* The id of the largest logit, the lowest on a tie. */
int32_t tiny_likeliest(const float *logits, int32_t n_vocab);

/* Greedy decoding, one token at a time. */
void tiny_greedy(marco_engine *engine, const int32_t *prompt, size_t n_prompt, int32_t *out,
                 size_t n_out);

#endif
