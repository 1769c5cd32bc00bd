/* Unicode normalisation form C (UAX #15), copying what is normal already. */
#ifndef TOKENIZER_NFC_H
#define TOKENIZER_NFC_H

#include "base/text.h"
#include "marco/marco.h"

typedef struct tok_nfc tok_nfc;

/* Parts of a text, in order and apart from one another. */
typedef struct tok_range {
    size_t start, stop;
} tok_range;

typedef struct tok_ranges {
    tok_range *items;
    size_t n, capacity;
} tok_ranges;

/* Adds [start, stop), joined to the last range where they touch; nothing when empty. */
bool tok_ranges_add(tok_ranges *ranges, size_t start, size_t stop);

marco_status tok_nfc_create(tok_nfc **out, marco_error *error);
void tok_nfc_free(tok_nfc *nfc);

/* True where the well-formed text is its own normal form, as far as a quick look can tell. */
bool tok_nfc_is_normal(const tok_nfc *nfc, const char *text, size_t size);

/* Appends the normal form of the well-formed text to `out`. With `from` (ranges of text), the
 * ranges of `out` made only of characters within one of them go to `to`. */
marco_status tok_nfc_apply(const tok_nfc *nfc, const char *text, size_t size, base_text *out,
                           const tok_ranges *from, tok_ranges *to, marco_error *error);

#endif
