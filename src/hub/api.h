/* The two questions that a download begins with, and the addresses of files. */
#ifndef HUB_API_H
#define HUB_API_H

#include "hub/listing.h"
#include "hub/net.h"

/* The commit that a revision is at, into commit [HUB_HASH_MAX + 1]. */
marco_status hub_api_commit(const hub_net *net, const hub_name *name, char *commit,
                            marco_error *error);

/* All files of a commit, finished. */
marco_status hub_api_list(const hub_net *net, const char *model, const char *commit,
                          hub_listing *out, marco_error *error);

/* Where a file is to be had; base_free; NULL when out of memory. */
char *hub_api_file(const hub_net *net, const char *model, const char *commit, const char *path);

#endif
