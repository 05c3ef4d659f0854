/* textin.h - bytes and lines of a text file, plain or gzip; the one user of zlib.
 * Place:   under csv.h and every line-based reader of `duet prepare`.
 * Errors:  ERR_IO for what the system or a damaged gzip stream refuses, ERR_FORMAT for a line over the limit; both name file and line. */
#ifndef DUET_TRAIN_TEXTIN_H
#define DUET_TRAIN_TEXTIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/mem.h"
#include "core/base/strtab.h"

#define TEXT_LINE_MAX (1u << 20) // bytes of a line, or of a CSV record

struct textin {
    char *path;
    void *gz;        // gzFile
    char *block;     // [TEXT_BLOCK] bytes read ahead
    size_t at, n;    // block[at .. n) is not consumed yet
    uint64_t line;   // number, from 1, of the line that the next byte belongs to
    struct buf text; // the line that textin_line returned
};

/* A gzip file is recognised by its first bytes, whatever its name. A UTF-8 byte-order mark is skipped. */
bool textin_open(struct textin *in, const char *path, struct err *err);
void textin_close(struct textin *in); // accepts zeroed

/* Next byte, -1 at the end, -2 after an error. */
int textin_fill(struct textin *in, struct err *err);
static inline int textin_byte(struct textin *in, struct err *err)
{
    if (in->at == in->n) {
        int c = textin_fill(in, err);
        if (c < 0)
            return c;
    }
    unsigned char c = (unsigned char)in->block[in->at++];
    in->line += c == '\n';
    return c;
}

/* The next line without its end (LF or CRLF), valid until the next call. 1, 0 at the end, -1 after an error.
 * *number: the line's number. Code ERR_FORMAT: this line was too long and has been skipped; the next call goes on behind it. */
int textin_line(struct textin *in, struct str *line, uint64_t *number, struct err *err);

#endif
