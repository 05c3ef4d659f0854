#include "core/base/utf8.h"

#include <stdint.h>
#include <string.h>

/* How many bytes the character that begins with c has, 0 if none does, and the range of the second. That is where overlong forms (E0, F0),
 * surrogates (ED) and the end of Unicode (F4) are cut off. */
static size_t length(unsigned char c, unsigned char *low, unsigned char *high)
{
    *low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    *high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    return c < 0x80 ? 1 : c >= 0xc2 && c <= 0xdf ? 2 : (c & 0xf0) == 0xe0 ? 3 : c >= 0xf0 && c <= 0xf4 ? 4 : 0;
}

/* Of the character at p, n bytes left: how many of its bytes are there, and in *len how many it has. 0: none begins here, or another one's
 * bytes are in it. */
static size_t begun(const unsigned char *p, size_t n, size_t *len)
{
    unsigned char low, high;
    size_t have = *len = length(p[0], &low, &high);
    have = have < n ? have : n;
    for (size_t i = 1; i < have; i++, low = 0x80, high = 0xbf)
        if (p[i] < low || p[i] > high)
            return 0;
    return have;
}

/* Length of the well-formed sequence at p, 0 if there is none in n bytes. */
static size_t sequence(const unsigned char *p, size_t n)
{
    size_t len, have = begun(p, n, &len);
    return have == len ? len : 0;
}

bool utf8_valid(const char *text, size_t n)
{
    const unsigned char *p = (const unsigned char *)text;
    for (size_t i = 0; i < n;) {
        uint64_t word;
        if (n - i >= 8 && (memcpy(&word, p + i, 8), (word & 0x8080808080808080u) == 0)) {
            i += 8; // eight ASCII bytes at once: most text is
            continue;
        }
        size_t len = sequence(p + i, n - i);
        if (len == 0)
            return false;
        i += len;
    }
    return true;
}

void utf8_mend(char *text)
{
    unsigned char *p = (unsigned char *)text;
    size_t n = strlen(text), len, have;
    for (size_t i = 0; i < n; i += have ? have : 1)
        if ((have = begun(p + i, n - i, &len)) == 0)
            p[i] = '?';
        else if (have < len)
            p[i] = '\0'; // the end
}
