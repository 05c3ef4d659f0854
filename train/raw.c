#include "train/raw.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/base/mem.h"
#include "core/items.h"

void raw_init(struct raw *raw)
{
    *raw = (struct raw){.user.what = "user", .item.what = "item"};
}

static void table_fini(struct raw_table *t)
{
    for (uint32_t i = 0; i < t->n_cols; i++) {
        strtab_builder_fini(&t->col[i].values);
        free(t->col[i].cell);
    }
    free(t->col);
    strtab_builder_fini(&t->ids);
}

void raw_fini(struct raw *raw)
{
    table_fini(&raw->user);
    table_fini(&raw->item);
    free(raw->event);
    *raw = (struct raw){0};
}

// --------------------------------------------------------------------------------------------------------- tables

static bool check_id(const struct raw_table *t, struct str id, struct err *err)
{
    if (id.n == 0 || id.n > ITEM_ID_MAX)
        return err_set(err, ERR_FORMAT, "%s id of %zu bytes, want 1 to %d", t->what, id.n, ITEM_ID_MAX);
    for (size_t i = 0; i < id.n; i++)
        if ((unsigned char)id.p[i] < 0x20 || id.p[i] == 0x7f)
            return err_set(err, ERR_FORMAT, "%s id has a control character at byte %zu", t->what, i);
    return true;
}

static bool grow_cells(struct raw_column *c, uint32_t from, uint32_t to, struct err *err)
{
    uint32_t *cell = mem_grow(c->cell, to, sizeof(*cell), err);
    if (!cell)
        return false;
    memset(cell + from, 0, (size_t)(to - from) * sizeof(*cell));
    c->cell = cell;
    return true;
}

bool raw_row(struct raw_table *t, struct str id, uint32_t *row, struct err *err)
{
    if (!check_id(t, id, err) || !strtab_intern(&t->ids, id.p, id.n, row, err))
        return false;
    if (t->ids.n <= t->cap)
        return true;
    uint32_t cap = t->cap ? t->cap * 2 : 1024;
    for (uint32_t i = 0; i < t->n_cols; i++)
        if (!grow_cells(&t->col[i], t->cap, cap, err))
            return false;
    t->cap = cap;
    return true;
}

bool raw_column(struct raw_table *t, const char *name, uint32_t *col, struct err *err)
{
    int found = raw_find_column(t, name);
    if (found >= 0) {
        *col = (uint32_t)found;
        return true;
    }
    if (name[0] == '\0' || strlen(name) > SCHEMA_NAME_MAX)
        return err_set(err, ERR_LIMIT, "column name \"%.80s\" has %zu bytes, want 1 to %d", name, strlen(name),
                       SCHEMA_NAME_MAX);
    if (t->n_cols == RAW_COLUMNS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d %s columns", RAW_COLUMNS_MAX, t->what);
    struct raw_column *grown = mem_grow(t->col, (size_t)t->n_cols + 1, sizeof(*grown), err);
    if (!grown)
        return false;
    t->col = grown;
    struct raw_column *c = &t->col[t->n_cols];
    *c = (struct raw_column){0};
    snprintf(c->name, sizeof(c->name), "%s", name);
    *col = t->n_cols++;
    return strtab_intern(&c->values, "", 0, NULL, err) && (t->cap == 0 || grow_cells(c, 0, t->cap, err));
}

bool raw_set(struct raw_table *t, uint32_t row, uint32_t col, struct str value, struct err *err)
{
    return strtab_intern(&t->col[col].values, value.p, value.n, &t->col[col].cell[row], err);
}

struct str raw_get(const struct raw_table *t, uint32_t row, uint32_t col)
{
    struct strtab view = strtab_view(&t->col[col].values);
    return strtab_get(&view, t->col[col].cell[row]);
}

int raw_find_column(const struct raw_table *t, const char *name)
{
    for (uint32_t i = 0; i < t->n_cols; i++)
        if (strcmp(t->col[i].name, name) == 0)
            return (int)i;
    return -1;
}

// --------------------------------------------------------------------------------------------------------- events

bool raw_event_add(struct raw *raw, struct raw_event e, struct err *err)
{
    if (raw->n == raw->cap) {
        size_t cap = raw->cap ? raw->cap * 2 : 4096;
        struct raw_event *grown = mem_grow(raw->event, cap, sizeof(*grown), err);
        if (!grown)
            return false;
        raw->event = grown;
        raw->cap = cap;
    }
    if (raw->n >= UINT32_MAX)
        return err_set(err, ERR_LIMIT, "more than %u interactions", UINT32_MAX);
    e.order = (uint32_t)raw->n;
    raw->event[raw->n++] = e;
    return true;
}

bool raw_skip(struct raw *raw, struct err *err)
{
    if (err->code != ERR_FORMAT)
        return false;
    if (raw->bad.found == raw->bad.allowed) {
        if (raw->bad.allowed > 0)
            err_prefix(err, "more than %llu bad lines (--skip-bad)", (unsigned long long)raw->bad.allowed);
        return false;
    }
    if (raw->bad.found++ == 0)
        snprintf(raw->bad.first, sizeof(raw->bad.first), "%.255s", err->msg);
    *err = (struct err){0};
    return true;
}

// --------------------------------------------------------------------------------------------------------- values

bool raw_parse_number(struct str s, double *out)
{
    char text[64], *end;
    if (s.n == 0 || s.n >= sizeof(text))
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!memchr("0123456789+-.eE", s.p[i], 15)) // strtod alone would take nan, inf, hexadecimal and leading spaces
            return false;
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    *out = strtod(text, &end);
    return *end == '\0' && isfinite(*out);
}

bool raw_parse_time(struct str s, int64_t *out)
{
    double v;
    if (!raw_parse_number(s, &v) || v < -9e15 || v > 9e15)
        return false;
    *out = (int64_t)floor(v);
    return true;
}

bool raw_parse_split(struct str s, uint8_t *out)
{
    static const struct {
        const char *name;
        uint8_t split;
    } known[] = {{"train", RAW_TRAIN}, {"valid", RAW_VALID}, {"validation", RAW_VALID},
                 {"val", RAW_VALID},   {"dev", RAW_VALID},   {"test", RAW_TEST}};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strlen(known[i].name) == s.n && strncasecmp(known[i].name, s.p, s.n) == 0) {
            *out = known[i].split;
            return true;
        }
    return false;
}
