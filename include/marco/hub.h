/* hub.h - models fetched from a Hugging Face-compatible hub into the cache that huggingface_hub
 * uses, so that both share files. */
#ifndef MARCO_HUB_H
#define MARCO_HUB_H

#include <marco/marco.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Where the hub and the cache are. NULL: what the environment says, as huggingface_hub reads it:
 * HF_ENDPOINT; HF_TOKEN, or the file that HF_TOKEN_PATH or HF_HOME tells; HF_HUB_CACHE or HF_HOME.
 * Proxies as curl has them: https_proxy, no_proxy, ... */
typedef struct marco_hub_params {
    const char *endpoint; /* "https://huggingface.co" */
    const char *token;
    const char *cache; /* the folder that holds "models--OWNER--NAME" */
} marco_hub_params;

typedef struct marco_pull_params {
    marco_hub_params hub;
    const char *const *include; /* [n_include] shell patterns of files; none: all of them */
    size_t n_include;
    int32_t connections;     /* at once; 0: 8 */
    marco_progress progress; /* bytes of all files */
} marco_pull_params;

/* All zero. */
MARCO_API marco_pull_params marco_pull_params_default(void);

/* Downloads "OWNER/NAME" or "OWNER/NAME@REVISION". What an interrupted download left is used again;
 * every file is checked against its hash, and appears whole or not at all. *folder (marco_free) is
 * the snapshot's. */
MARCO_API marco_status marco_pull(const char *model, const marco_pull_params *params, char **folder,
                                  marco_error *error);

/* The checkpoint that a name means, without a network: a path that exists is itself; "OWNER/NAME
 * [@REVISION]" the snapshot in the cache, or the GGUF file in it where there is one and no other
 * weights. *path: marco_free. MARCO_ERROR_NOT_FOUND says how to pull it. */
MARCO_API marco_status marco_hub_find(const char *model, const marco_hub_params *params,
                                      char **path, marco_error *error);

typedef struct marco_hub_entry {
    char *name;     /* "OWNER/NAME" */
    char *revision; /* "main", or the commit where no reference names it */
    char *commit;
    char *path;       /* of the snapshot */
    uint64_t bytes;   /* of its files */
    int64_t modified; /* seconds since 1970, of the latest of them */
    int64_t files;    /* that are there */
    int64_t of;       /* that the hub has at this commit; 0 where the cache does not tell */
    bool whole;       /* nothing of it is missing or half downloaded */
} marco_hub_entry;

/* What the cache holds, by name. *entries: marco_hub_list_free. */
MARCO_API marco_status marco_hub_list(const marco_hub_params *params, marco_hub_entry **entries,
                                      size_t *n, marco_error *error);
MARCO_API void marco_hub_list_free(marco_hub_entry *entries, size_t n);

/* Removes a model, or one revision of it, from the cache, and the files that no other revision
 * uses; never what links lead to outside of it. *freed: bytes. MARCO_ERROR_BUSY: it is being
 * downloaded. */
MARCO_API marco_status marco_hub_remove(const char *model, const marco_hub_params *params,
                                        uint64_t *freed, marco_error *error);

#ifdef __cplusplus
}
#endif
#endif
