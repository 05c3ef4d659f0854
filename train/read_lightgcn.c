/* The layout of LightGCN, KGAT and their successors: train.txt and test.txt, a line "user item item ..." each, numbers
 * that stand for ids; item_list.txt ("org_id remap_id ...") says which. No times, no values; valid.txt may be there. */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/read.h"
#include "train/textin.h"

/* Cut the next word off the front of s. Returns false at the end. */
static bool next_word(struct str *s, struct str *word)
{
    while (s->n > 0 && (*s->p == ' ' || *s->p == '\t'))
        s->p++, s->n--;
    word->p = s->p;
    while (s->n > 0 && *s->p != ' ' && *s->p != '\t')
        s->p++, s->n--;
    word->n = (size_t)(s->p - word->p);
    return word->n > 0;
}

static bool check_word(const struct textin *in, uint64_t line, struct str word, struct err *err)
{
    for (size_t i = 0; i < word.n; i++)
        if ((unsigned char)word.p[i] >= 0x80)
            return err_set(err, ERR_FORMAT, "%s:%llu: an id that is not ASCII, want numbers separated by spaces",
                           in->path, (unsigned long long)line);
    return true;
}

typedef bool line_fn(const struct textin *in, uint64_t number, struct str line, int arg, struct raw *raw,
                     struct err *err);

static bool read_words(const char *path, line_fn *row, int arg, struct raw *raw, struct err *err)
{
    struct textin in;
    struct str line;
    uint64_t number;
    if (!textin_open(&in, path, err))
        return false;
    bool ok = true;
    for (int got; ok && (got = textin_line(&in, &line, &number, err)) != 0;)
        ok = (got > 0 && row(&in, number, line, arg, raw, err)) || raw_skip(raw, err);
    textin_close(&in);
    return ok;
}

// ---------------------------------------------------------------------------------------------------------- the log

/* A user alone on a line has no item in this split. */
static bool log_line(const struct textin *in, uint64_t number, struct str line, int split, struct raw *raw,
                     struct err *err)
{
    struct str word;
    struct raw_event e = {.time = RAW_NO_TIME, .value = NAN, .split = (uint8_t)split};
    if (!next_word(&line, &word))
        return true;
    if (!check_word(in, number, word, err))
        return false;
    if (!raw_row(&raw->user, word, &e.user, err))
        return err_prefix(err, "%s:%llu", in->path, (unsigned long long)number);
    while (next_word(&line, &word)) {
        if (!check_word(in, number, word, err))
            return false;
        if (!raw_row(&raw->item, word, &e.item, err))
            return err_prefix(err, "%s:%llu", in->path, (unsigned long long)number);
        if (!raw_event_add(raw, e, err))
            return false;
    }
    return true;
}

// --------------------------------------------------------------------------------------------------------- the names

/* "org_id remap_id ...", a header first: the number's own id goes to the item attribute org_id. */
static bool name_line(const struct textin *in, uint64_t number, struct str line, int col, struct raw *raw,
                      struct err *err)
{
    struct str org, remap;
    uint32_t row, known = raw->item.ids.n;
    if (number == 1 || !next_word(&line, &org))
        return true;
    if (!next_word(&line, &remap))
        return err_set(err, ERR_FORMAT, "%s:%llu: found 1 field, want org_id and remap_id", in->path,
                       (unsigned long long)number);
    if (!check_word(in, number, org, err) || !check_word(in, number, remap, err))
        return false;
    if (!raw_row(&raw->item, remap, &row, err))
        return err_prefix(err, "%s:%llu", in->path, (unsigned long long)number);
    return (row >= known || err_set(err, ERR_FORMAT, "%s:%llu: remap_id %.*s appears twice", in->path,
                                    (unsigned long long)number, (int)remap.n, remap.p)) &&
           raw_set(&raw->item, row, (uint32_t)col, org, err);
}

bool read_lightgcn(const char *dir, struct raw *raw, struct err *err)
{
    static const struct {
        const char *name;
        enum raw_split split;
    } files[] = {{"train.txt", RAW_TRAIN}, {"valid.txt", RAW_VALID}, {"test.txt", RAW_TEST}};
    char path[PATH_MAX];
    uint32_t col;
    if (read_find(dir, "item_list.txt", path) &&
        (!raw_column(&raw->item, "org_id", &col, err) || !read_words(path, name_line, (int)col, raw, err)))
        return false;
    if (!read_find(dir, "train.txt", path))
        return err_set(err, ERR_NOT_FOUND, "%s: no train.txt or train.txt.gz", dir);
    raw->has_split = true;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        if (read_find(dir, files[i].name, path) && !read_words(path, log_line, (int)files[i].split, raw, err))
            return false;
    return true;
}
