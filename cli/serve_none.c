/* marco serve, where the program was built without it. */
#include <stdlib.h>
#include <string.h>

#include "command.h"

static int run(const command *self, int argc, char **argv)
{
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        help_print(self, stdout);
        return EXIT_SUCCESS;
    }
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
