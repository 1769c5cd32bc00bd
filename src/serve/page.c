/* The files of the page at /, which live in web/ and are built into the program. */
#include <string.h>

#include "page_files.inc"
#include "serve/serve.h"

#define HTML   "text/html; charset=utf-8"
#define SCRIPT "text/javascript; charset=utf-8"

#define FILE_OF(path, type, name)                                                                  \
    {                                                                                              \
        path, type, embedded_##name, sizeof embedded_##name                                        \
    }

static const serve_file files[] = {
    FILE_OF("/", HTML, index_html),
    FILE_OF("/index.html", HTML, index_html),
    FILE_OF("/style.css", "text/css; charset=utf-8", style_css),
    FILE_OF("/icon.svg", "image/svg+xml", icon_svg),
    FILE_OF("/theme.js", SCRIPT, theme_js),
    FILE_OF("/app.js", SCRIPT, app_js),
    FILE_OF("/api.js", SCRIPT, api_js),
    FILE_OF("/dom.js", SCRIPT, dom_js),
    FILE_OF("/inline.js", SCRIPT, inline_js),
    FILE_OF("/markdown.js", SCRIPT, markdown_js),
    FILE_OF("/settings.js", SCRIPT, settings_js),
    FILE_OF("/store.js", SCRIPT, store_js),
    FILE_OF("/view.js", SCRIPT, view_js),
};

const serve_file *serve_page_file(const char *path)
{
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (strcmp(files[i].path, path) == 0) {
            return &files[i];
        }
    }
    return NULL;
}
