/* The generic layout: interactions.csv, users.csv, items.csv, each plain or .gz; and the CSV parts other readers share.
 */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/fio.h"
#include "core/base/mem.h"
#include "train/read.h"

bool read_find(const char *dir, const char *name, char path[])
{
    static const char *const suffix[] = {"", ".gz"};
    for (size_t i = 0; i < 2; i++) {
        int n = snprintf(path, PATH_MAX, "%s/%s%s", dir, name, suffix[i]);
        if (n > 0 && n < PATH_MAX && fio_exists(path))
            return true;
    }
    return false;
}

// ------------------------------------------------------------------------------------------------ tables of entities

static bool table_row(const struct csv *c, int id_col, const uint32_t *col, struct raw_table *t, struct err *err)
{
    uint32_t row, known = t->ids.n;
    if (!raw_row(t, csv_field(c, (uint32_t)id_col), &row, err))
        return err_prefix(err, "%s:%llu", c->in.path, (unsigned long long)c->line);
    if (row < known) {
        struct str id = csv_field(c, (uint32_t)id_col);
        return csv_error(c, err, "%s \"%.*s\" appears twice", t->what, (int)id.n, id.p);
    }
    for (uint32_t i = 0; i < c->n_cols; i++)
        if ((int)i != id_col && !raw_set(t, row, col[i], csv_field(c, i), err))
            return false;
    return true;
}

static bool table_rows(struct csv *c, int id_col, const uint32_t *col, struct raw *raw, struct raw_table *t,
                       struct err *err)
{
    int got;
    while ((got = csv_next(c, err)) != 0)
        if ((got < 0 || !table_row(c, id_col, col, t, err)) && !raw_skip(raw, err))
            return false;
    return true;
}

bool read_csv_table(const char *path, const char *id_column, struct raw *raw, struct raw_table *t, struct err *err)
{
    struct csv c;
    int id_col;
    if (!csv_open(&c, path, ',', err))
        return false;
    uint32_t *col = mem_array(c.n_cols, sizeof(*col), err); // column of the file -> column of the table
    bool ok = col && csv_need(&c, id_column, &id_col, err);
    for (uint32_t i = 0; ok && i < c.n_cols; i++)
        ok = (int)i == id_col || raw_column(t, c.name[i], &col[i], err) || err_prefix(err, "%s:1", path);
    ok = ok && table_rows(&c, id_col, col, raw, t, err);
    free(col);
    csv_close(&c);
    return ok;
}

// ------------------------------------------------------------------------------------------------------------- log

struct log_columns {
    int user, item, value, time, split; // -1: the log has none
};

static bool log_values(const struct csv *c, const struct log_columns *col, struct raw_event *e, struct err *err)
{
    struct str s;
    double value;
    if (col->value >= 0 && (s = csv_field(c, (uint32_t)col->value)).n > 0) {
        if (!raw_parse_number(s, &value))
            return csv_error(c, err, "%s is \"%.*s\", want a number", c->name[col->value], (int)(s.n < 60 ? s.n : 60),
                             s.p);
        e->value = (float)value;
    }
    if (col->time >= 0 && (s = csv_field(c, (uint32_t)col->time)).n > 0 && !raw_parse_time(s, &e->time))
        return csv_error(c, err, "%s is \"%.*s\", want seconds since 1970", c->name[col->time],
                         (int)(s.n < 60 ? s.n : 60), s.p);
    if (col->split >= 0 && !raw_parse_split(s = csv_field(c, (uint32_t)col->split), &e->split))
        return csv_error(c, err, "%s is \"%.*s\", want train, valid or test", c->name[col->split],
                         (int)(s.n < 60 ? s.n : 60), s.p);
    return true;
}

static bool log_row(const struct csv *c, const struct log_columns *col, struct raw *raw, struct err *err)
{
    struct raw_event e = {.time = RAW_NO_TIME, .value = NAN};
    if (!log_values(c, col, &e, err))
        return false;
    if (!raw_row(&raw->user, csv_field(c, (uint32_t)col->user), &e.user, err) ||
        !raw_row(&raw->item, csv_field(c, (uint32_t)col->item), &e.item, err))
        return err_prefix(err, "%s:%llu", c->in.path, (unsigned long long)c->line);
    return raw_event_add(raw, e, err);
}

static int optional(const struct csv *c, const char *name)
{
    return name ? csv_column(c, name) : -1;
}

bool read_csv_log(const char *path, const struct read_log_columns *names, struct raw *raw, struct err *err)
{
    struct csv c;
    if (!csv_open(&c, path, ',', err))
        return false;
    struct log_columns col = {
        .value = optional(&c, names->value), .time = optional(&c, names->time), .split = optional(&c, names->split)};
    bool ok = csv_need(&c, names->user, &col.user, err) && csv_need(&c, names->item, &col.item, err);
    raw->has_split = raw->has_split || col.split >= 0;
    for (int got; ok && (got = csv_next(&c, err)) != 0;)
        ok = (got > 0 && log_row(&c, &col, raw, err)) || raw_skip(raw, err);
    csv_close(&c);
    return ok;
}

// ---------------------------------------------------------------------------------------------------------- layout

bool read_generic(const char *dir, struct raw *raw, struct err *err)
{
    static const struct read_log_columns columns = {"user_id", "item_id", "value", "timestamp", "split"};
    char path[PATH_MAX];
    if (read_find(dir, "users.csv", path) && !read_csv_table(path, "user_id", raw, &raw->user, err))
        return false;
    if (read_find(dir, "items.csv", path) && !read_csv_table(path, "item_id", raw, &raw->item, err))
        return false;
    if (!read_find(dir, "interactions.csv", path))
        return err_set(err, ERR_NOT_FOUND, "%s: no interactions.csv or interactions.csv.gz", dir);
    return read_csv_log(path, &columns, raw, err);
}
