/* Sets of code points. */
#ifndef GRAMMAR_CHARS_H
#define GRAMMAR_CHARS_H

#include "grammar/internal.h"

typedef struct gr_range {
    uint32_t low, high;
} gr_range;

/* All zero is empty. */
struct gr_chars {
    gr_range *ranges;
    size_t n, capacity;
};

void gr_chars_add(gr_build *b, gr_chars *set, uint32_t low, uint32_t high);
void gr_chars_add_all(gr_build *b, gr_chars *set, const gr_chars *other);
/* Those that are in neither: of all characters that a string may have. */
gr_chars gr_chars_not(gr_build *b, gr_chars *set);
/* The class of \d, \w or \s (`letter`). `wide`: with everything that some validator takes for one,
 * Unicode's digits, letters and spaces included. */
void gr_chars_class(gr_build *b, gr_chars *set, char letter, bool wide);

#endif
