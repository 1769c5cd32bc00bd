/* marco serve, where the program was built without it. */
#include "command.h"

static int run(const command *self, int argc, char **argv)
{
    int exit_status = 0;
    (void)options_parse(self, argc < 2 ? argc : 2, argv, NULL, &exit_status);
    if (exit_status != EXIT_SUCCESS)
        return exit_status;
    return command_fail(self, "this program was built without it; install libmicrohttpd-dev and "
                              "libgnutls28-dev, and build again with -DMARCO_SERVE=ON");
}

const command serve_command = {
    .name = "serve",
    .summary = "answer many people and programs over HTTP (not in this build)",
    .synopsis = "",
    .details = "This program was built without it: it needs libmicrohttpd and GnuTLS, and "
               "-DMARCO_SERVE=ON.\n",
    .example = "marco serve --help\n",
    .run = run,
};
