#include "tokenizer/bytes.h"

#include "base/text.h"

/* Printable Latin-1 stands for itself; the 68 other bytes take U+0100 onwards in their order:
 * 0x00-0x20, 0x7F-0xA0, 0xAD. */
enum { LAST_LOW = 0x20, FIRST_MIDDLE = 0x7F, LAST_MIDDLE = 0xA0, HYPHEN = 0xAD };
enum { LOW_CHAR = 0x100, MIDDLE_CHAR = LOW_CHAR + LAST_LOW + 1 };
enum { HYPHEN_CHAR = MIDDLE_CHAR + LAST_MIDDLE - FIRST_MIDDLE + 1 };

/* The character that stands for a byte. */
static uint32_t byte_char(uint8_t byte)
{
    if (byte <= LAST_LOW)
        return (uint32_t)(LOW_CHAR + byte);
    if (byte >= FIRST_MIDDLE && byte <= LAST_MIDDLE)
        return (uint32_t)(MIDDLE_CHAR + byte - FIRST_MIDDLE);
    return byte == HYPHEN ? (uint32_t)HYPHEN_CHAR : byte;
}

static int char_byte(uint32_t cp)
{
    if (cp < LOW_CHAR)
        return byte_char((uint8_t)cp) == cp ? (int)cp : -1;
    if (cp < MIDDLE_CHAR)
        return (int)(cp - LOW_CHAR);
    if (cp < HYPHEN_CHAR)
        return (int)(cp - MIDDLE_CHAR + FIRST_MIDDLE);
    return cp == HYPHEN_CHAR ? HYPHEN : -1;
}

size_t tok_byte_spell(uint8_t byte, char out[3])
{
    char utf8[4];
    size_t n = base_utf8_encode(byte_char(byte), utf8);
    for (size_t i = 0; i < n; i++)
        out[i] = utf8[i];
    out[n] = '\0';
    return n;
}

bool tok_bytes_unspell(const char *text, size_t size, char *out, size_t *n)
{
    size_t made = 0;
    for (size_t at = 0; at < size;) {
        uint32_t cp;
        size_t step = base_utf8_decode(text + at, size - at, &cp);
        int byte = step ? char_byte(cp) : -1;
        if (byte < 0)
            return false;
        out[made++] = (char)byte;
        at += step;
    }
    *n = made;
    return true;
}
