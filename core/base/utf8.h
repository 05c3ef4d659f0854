/* utf8.h - is this text? Everything that ends up in an answer is checked once, when it is read; what we say ourselves is made so. */
#ifndef DUET_BASE_UTF8_H
#define DUET_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Well-formed UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF. Empty is fine, NUL bytes too. */
bool utf8_valid(const char *p, size_t n);

/* Makes it text, in place: a character that was cut off at the end goes, any other byte that is of none becomes '?'. For messages, which
 * have a longest length and may repeat bytes of a file. */
void utf8_mend(char *text);

#endif
