/* marco/train.h - making models: data, tokenizers, training, reports.
 *
 * Conventions are marco.h's. Training needs OpenBLAS at run time, nothing else here does. */
#ifndef MARCO_TRAIN_H
#define MARCO_TRAIN_H

#include <marco/marco.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- tokenizer ----------------------------------------------------------------------------- */

typedef struct marco_tokenizer_train_params {
    const char *const *files; /* [n_files] text, or JSONL with a "text" (or chat "messages") field,
                                 told by the ending .jsonl */
    size_t n_files;
    int32_t vocab_size;         /* all ids, special tokens among them */
    const char *const *special; /* [n_special] special tokens, ids after the ordinary ones; NULL:
                                   <|endoftext|>, <|im_start|>, <|im_end|> */
    size_t n_special;
    int64_t min_frequency; /* of a pair to be merged; 0: 2 */
    uint64_t max_bytes;    /* of each file, from its beginning; 0: all */
    bool overwrite;
    int32_t threads;         /* 1 to 1024; 0: the cores this process may use */
    marco_progress progress; /* bytes read, then tokens learnt */
} marco_tokenizer_train_params;

MARCO_API marco_tokenizer_train_params marco_tokenizer_train_params_default(void);

typedef struct marco_tokenizer_train_stats {
    int32_t vocab_size; /* less than asked for where no pair occurs min_frequency times any more */
    int32_t merges;
    uint64_t words, bytes, tokens; /* distinct words; of the text, normalised */
} marco_tokenizer_train_stats;

/* Learns a byte-level BPE tokenizer (Qwen2's splitting, NFC) and writes tokenizer.json and
 * tokenizer_config.json, with a ChatML template, into the folder `to`, which transformers loads.
 * Ids: 256 bytes, merges by rank, special tokens. Lines of text, newline included, and strings of
 * JSON are each split on their own; what is merged is what HF's BpeTrainer merges, but for words of
 * more than 64 KiB, which are counted as several of that length. The same files
 * give the same tokenizer, whatever the number of threads. stats may be NULL. */
MARCO_API marco_status marco_tokenizer_train(const char *to,
                                             const marco_tokenizer_train_params *params,
                                             marco_tokenizer_train_stats *stats,
                                             marco_error *error);

/* ---- data ---------------------------------------------------------------------------------- */

typedef struct marco_data_params {
    const char *tokenizer;    /* a checkpoint or tokenizer.json */
    const char *const *files; /* [n_files] .txt: a document a file, or with `lines` a line; .jsonl:
                                 a document or a conversation a line */
    size_t n_files;
    bool lines;
    bool chat;                 /* conversations, {"messages": [...]}; only assistants' turns are
                                  trained on */
    const char *field;         /* of the text in a JSONL line; NULL: "text" */
    const char *chat_template; /* see marco_tokenizer_set_chat_template; NULL: the tokenizer's */
    double valid;              /* share of documents held out, by the hash of their bytes; [0, 1) */
    bool skip_bad;             /* count lines that cannot be used and go on; else they are errors */
    uint64_t max_line;         /* bytes; longer documents cannot be used; at most 2^30; 0: 64 MiB */
    uint64_t shard_tokens;     /* 0: 2^28, of conversations 2^26 */
    bool overwrite;
    int32_t threads;         /* 1 to 1024; 0: the cores this process may use */
    marco_progress progress; /* bytes read */
} marco_data_params;

MARCO_API marco_data_params marco_data_params_default(void);

typedef struct marco_data_stats {
    uint64_t documents, tokens, bytes; /* kept for training; bytes of text, or of messages as
                                           JSON */
    uint64_t valid_documents, valid_tokens;
    uint64_t empty, bad; /* lines left out: empty ones, unusable ones */
    char first_bad[768]; /* why the first unusable one was, with file and line */
} marco_data_stats;

/* Turns text into a folder of memory-mapped shards of token ids, in parallel. The same files give
 * the same bytes, whatever the number of threads. stats may be NULL. */
MARCO_API marco_status marco_data_build(const char *to, const marco_data_params *params,
                                        marco_data_stats *stats, marco_error *error);

/* ---- training ------------------------------------------------------------------------------ */

/* Chooses OpenBLAS's kernels for processors that it does not know yet, through the environment:
 * once, at the start of a program that will train, while it has one thread. */
MARCO_API void marco_train_prepare(void);

/* Of one step, over all processes. */
typedef struct marco_train_step {
    int64_t step, steps;     /* counted from 1 */
    double loss;             /* cross-entropy, nats a target */
    double balance, z_loss;  /* losses of the routers, coefficients included, mean over passes,
                                summed  over layers */
    double lr, norm;         /* learning rate; the gradient's norm before clipping */
    bool skipped;            /* the step was left out as an outlier or not finite */
    int64_t targets, tokens; /* of this step, padding among the tokens */
    int64_t total_tokens;    /* of the run */
    double seconds;          /* of this step */
    double tokens_per_second,
        roof_share; /* of the F32 roof, recomputation not counted; 0: unknown */
    double seconds_left;
    int32_t dead_experts; /* that no token of the step was routed to, summed over layers */
    double entropy;       /* of the routers, nats, mean over layers and tokens */
    double valid_loss;    /* NAN where the step did not measure it */
} marco_train_step;

typedef struct marco_train_params {
    const char *recipe;     /* a JSON file, see docs/training.md; NULL: all from `set` */
    const char *const *set; /* [n_set] "key.key=value" over the recipe's */
    size_t n_set;
    const char *to;  /* the run's folder: made, or gone on with where it holds this recipe's
                        run */
    bool restart;    /* begin anew in a folder that holds a run, whose files are removed */
    bool dry_run;    /* memory and data are checked and planned, nothing is trained */
    int32_t threads; /* of this process, 1 to 1024; 0: the cores it may use, shared out
                        among the processes on this machine */
    void (*on_step)(void *user, const marco_train_step *step); /* on rank 0; NULL: not called */
    void (*on_note)(void *user, const char *line); /* what else a person should know; NULL */
    int (*cancelled)(
        void *user); /* asked between steps: non-zero ends the run after a checkpoint */
    void *user;
} marco_train_params;

MARCO_API marco_train_params marco_train_params_default(void);

typedef struct marco_train_plan {
    int64_t total_params, active_params, trained_params;    /* of the model */
    uint64_t weight_bytes, gradient_bytes, optimizer_bytes; /* of this process */
    uint64_t activation_bytes;
    uint64_t total_bytes;               /* with the data's maps and all else left out */
    int64_t train_tokens, valid_tokens; /* of the data */
    int32_t processes, expert_processes;
    int64_t tokens_per_step;
    double flops_per_step; /* 6 * active parameters * tokens + attention */
} marco_train_plan;

typedef struct marco_train_result {
    marco_train_plan plan;
    marco_train_step last; /* step 0: none was taken */
    int64_t resumed;       /* step gone on from; 0: from the beginning */
    char checkpoint[512];  /* the last one written, "" where there is none */
    uint64_t peak_bytes;   /* memory that this process held at most */
} marco_train_result;

/* Trains a model as the recipe says. With MPI all processes call it and get the same status. result
 * may be NULL. */
MARCO_API marco_status marco_train(const marco_train_params *params, marco_train_result *result,
                                   marco_error *error);

/* The recipe with every default filled in, as JSON. */
MARCO_API marco_status marco_train_recipe(const marco_train_params *params, char **json,
                                          marco_error *error);

/* Writes one self-contained HTML page about a run: losses, learning rate, gradient norm, experts'
 * load. Several runs' folders are shown together. */
MARCO_API marco_status marco_train_report(const char *const *runs, size_t n_runs, const char *to,
                                          bool overwrite, marco_error *error);

#ifdef __cplusplus
}
#endif
#endif
