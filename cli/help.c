#include "command.h"

#include <string.h>

enum { WIDTH = 79, INDENT = 26 };

/* ---- on the terminal ------------------------------------------------------------------------ */

/* Prints text filled to the page, from column `at`, each line indented. */
static void fill(FILE *out, const char *text, int at, int indent)
{
    bool fresh = true;
    if (at > indent - 2) {
        fprintf(out, "\n%*s", indent, "");
        at = indent;
    } else {
        fprintf(out, "%*s", indent - at, "");
        at = indent;
    }
    while (*text) {
        size_t word = strcspn(text, " ");
        if (!fresh && at + 1 + (int)word > WIDTH) {
            fprintf(out, "\n%*s", indent, "");
            at = indent;
            fresh = true;
        }
        at += fprintf(out, "%s%.*s", fresh ? "" : " ", (int)word, text);
        fresh = false;
        text += word;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

static void print_option(FILE *out, char letter, const char *name, const char *value,
                         const char *help)
{
    char left[64];
    char dash[8] = "    ";
    if (letter)
        snprintf(dash, sizeof(dash), "-%c, ", letter);
    int at = snprintf(left, sizeof(left), "  %s--%s%s%s", dash, name, value ? " " : "",
                      value ? value : "");
    fputs(left, out);
    fill(out, help, at, INDENT);
}

/* Calls print for each newline-ended line of text. */
static void each_line(FILE *out, const char *text, void (*print)(FILE *, const char *, size_t))
{
    while (*text) {
        size_t size = strcspn(text, "\n");
        print(out, text, size);
        text += size;
        text += *text == '\n';
    }
}

static void print_indented(FILE *out, const char *line, size_t size)
{
    fprintf(out, "  %.*s\n", (int)size, line);
}

static void print_paragraph(FILE *out, const char *line, size_t size)
{
    char paragraph[2048];
    snprintf(paragraph, sizeof(paragraph), "%.*s", (int)size, line);
    fill(out, paragraph, 0, 2);
}

static void print_overview(FILE *out)
{
    fprintf(out, "Usage: marco COMMAND [OPTION...]\n\n"
                 "Runs, serves, converts and trains mixture-of-experts language models.\n\n");
    for (size_t i = 0; commands[i]; i++)
        fprintf(out, "  %-12s %s\n", commands[i]->name, commands[i]->summary);
    fprintf(out, "\n  marco COMMAND --help   what a command does, with an example\n"
                 "  marco --version        version and instruction level in use\n");
}

void help_print(const command *self, FILE *out)
{
    if (!self) {
        print_overview(out);
        return;
    }
    fprintf(out, "Usage: marco %s %s\n", self->name, self->synopsis);
    each_line(out, self->details, print_paragraph);
    fprintf(out, "\nOptions:\n");
    for (size_t i = 0; i < self->n_options; i++) {
        const cli_option *o = &self->options[i];
        print_option(out, o->letter, o->name, o->value, o->help);
    }
    print_option(out, 'h', "help", NULL, "Print this.");
    fprintf(out, "\nExample:\n");
    each_line(out, self->example, print_indented);
}

/* ---- as a man page -------------------------------------------------------------------------- */

static void roff(FILE *out, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (i == 0 && (text[i] == '.' || text[i] == '\''))
            fputs("\\&", out);
        if (text[i] == '\\')
            fputs("\\e", out);
        else if (text[i] == '-')
            fputs("\\-", out);
        else
            fputc(text[i], out);
    }
}

static void roff_line(FILE *out, const char *line, size_t size)
{
    roff(out, line, size);
    fputc('\n', out);
}

static void roff_paragraph(FILE *out, const char *line, size_t size)
{
    fputs(".PP\n", out);
    roff_line(out, line, size);
}

static void roff_option(FILE *out, const cli_option *o)
{
    fputs(".TP\n\\fB", out);
    if (o->letter)
        fprintf(out, "\\-%c\\fR, \\fB", o->letter);
    fputs("\\-\\-", out);
    roff(out, o->name, strlen(o->name));
    if (o->value)
        fprintf(out, "\\fR \\fI%s", o->value);
    fputs("\\fR\n", out);
    roff_line(out, o->help, strlen(o->help));
}

static void man_header(FILE *out, const char *title)
{
    fprintf(out, ".TH %s 1 \"\" \"marco %s\" \"User Commands\"\n.SH NAME\n", title,
            marco_version());
}

static void man_overview(FILE *out)
{
    man_header(out, "MARCO");
    fputs("marco \\- run, convert and upcycle mixture\\-of\\-experts language models\n"
          ".SH SYNOPSIS\n\\fBmarco\\fR \\fICOMMAND\\fR [\\fIOPTION\\fR...]\n.SH COMMANDS\n",
          out);
    for (size_t i = 0; commands[i]; i++) {
        fprintf(out, ".TP\n\\fBmarco\\-%s\\fR(1)\n", commands[i]->name);
        roff_line(out, commands[i]->summary, strlen(commands[i]->summary));
    }
    fputs(".SH ENVIRONMENT\n.TP\n\\fBMARCO_CPU\\fR\n"
          "Lowers the instruction level, for example to \\fBportable\\fR.\n",
          out);
}

void help_man(const command *self, FILE *out)
{
    if (!self) {
        man_overview(out);
        return;
    }
    char title[64];
    snprintf(title, sizeof(title), "MARCO\\-%s", self->name);
    for (char *c = title + strlen("MARCO\\-"); *c; c++)
        *c = (char)(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
    man_header(out, title);
    fprintf(out, "marco\\-%s \\- ", self->name);
    roff_line(out, self->summary, strlen(self->summary));
    fprintf(out, ".SH SYNOPSIS\n\\fBmarco %s\\fR ", self->name);
    roff_line(out, self->synopsis, strlen(self->synopsis));
    fputs(".SH DESCRIPTION\n", out);
    each_line(out, self->details, roff_paragraph);
    fputs(".SH OPTIONS\n", out);
    for (size_t i = 0; i < self->n_options; i++)
        roff_option(out, &self->options[i]);
    fputs(".TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\nPrint this text.\n"
          ".SH EXAMPLE\n.nf\n",
          out);
    each_line(out, self->example, roff_line);
    fputs(".fi\n.SH EXIT STATUS\n"
          "0 on success, 1 when the work failed, 2 for a mistake in the command line, 130 when\n"
          "interrupted. Every error is one line on standard error.\n"
          ".SH SEE ALSO\n\\fBmarco\\fR(1)\n",
          out);
}
