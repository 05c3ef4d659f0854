/* csv.h - records of a CSV file, plain or gzip.
 * Source:  RFC 4180: a quoted field may hold separators, line ends and doubled quotes. Beyond it: LF alone ends a record too,
 *          blank lines are skipped, a UTF-8 byte-order mark is ignored. Text must be UTF-8.
 * The first record is the header: names, distinct and not empty; every other record has as many fields. */
#ifndef DUET_TRAIN_CSV_H
#define DUET_TRAIN_CSV_H

#include "train/textin.h"

#define CSV_FIELDS_MAX 1024

struct csv {
    struct textin in;
    char sep;
    uint64_t line;        // where the current record begins
    struct buf text;      // the record's fields, one after another
    uint32_t *end;        // [CSV_FIELDS_MAX] end of each field in text
    uint32_t n;           // fields of the current record
    uint32_t n_cols;      // of the header
    char **name;          // [n_cols] header
};

bool csv_open(struct csv *c, const char *path, char sep, struct err *err);
void csv_close(struct csv *c); // accepts zeroed

/* Next record: 1, 0 at the end, -1 after an error, "file:line: found, want". After ERR_FORMAT the next call goes on with the
 * next line, so a caller may skip bad records. */
int csv_next(struct csv *c, struct err *err);

static inline struct str csv_field(const struct csv *c, uint32_t i)
{
    uint32_t from = i ? c->end[i - 1] : 0;
    return (struct str){c->text.data + from, c->end[i] - from};
}

int csv_column(const struct csv *c, const char *name);                 // -1 if the header has none
bool csv_need(const struct csv *c, const char *name, int *col, struct err *err); // error listing what the header has

/* err_set with "file:line: " of the current record before it, ERR_FORMAT. Returns false. */
bool csv_error(const struct csv *c, struct err *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
