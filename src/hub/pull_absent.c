/* marco_pull of a build without MARCO_HUB. */
#include "base/error.h"
#include "marco/hub.h"

marco_pull_params marco_pull_params_default(void)
{
    return (marco_pull_params){0};
}

marco_status marco_pull(const char *model, const marco_pull_params *params, char **folder,
                        marco_error *error)
{
    (void)params, (void)folder;
    return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                     "%s: this build cannot download: it was made with -DMARCO_HUB=OFF; build it "
                     "with ON (needs libcurl and GnuTLS), or download with huggingface_hub, whose "
                     "cache it uses",
                     model);
}
