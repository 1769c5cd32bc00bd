/* Split patterns: written for Oniguruma (what tokenizer.json's are made for), run by PCRE2. */
#ifndef TOKENIZER_PATTERN_H
#define TOKENIZER_PATTERN_H

#include "marco/marco.h"

/* The pattern in PCRE2's words, meaning the same. Patterns using anything that the two engines
 * read differently, or that no tokenizer was seen to need, are refused by name. */
marco_status tok_pattern_translate(const char *source, const char *pattern, char **out,
                                   marco_error *error);

#endif
