/* table_csv.c - a study's figures for programs; see table.h. */
#include <math.h>
#include <string.h>

#include "train/study/table.h"

struct line {
    const struct view *v;
    const struct view_row *row;
    size_t seed; // index of the result
    FILE *to;
};

/* Quoted as RFC 4180 has it, where it must be. */
static void put_text(const char *s, size_t n, FILE *to)
{
    if (!memchr(s, ',', n) && !memchr(s, '"', n) && !memchr(s, '\n', n) && !memchr(s, '\r', n)) {
        fwrite(s, 1, n, to);
        return;
    }
    fputc('"', to);
    for (size_t i = 0; i < n; i++)
        fprintf(to, s[i] == '"' ? "\"\"" : "%c", s[i]);
    fputc('"', to);
}

static void put_line(const struct line *l, const char *kind, const char *group, size_t n_group, const uint8_t *keep)
{
    const struct cell_result *r = &l->row->result[l->seed];
    struct metrics m = metrics_of(&l->v->place->test.p.spec, r->rank, keep, r->n);
    const char *point = l->row->def->point[l->row->chosen].what;
    if (m.n == 0)
        return;
    put_text(l->row->def->name, strlen(l->row->def->name), l->to);
    fprintf(l->to, ",%s,%u,%s,", point[0] ? point : "own", l->row->seed[l->seed], kind);
    put_text(group, n_group, l->to);
    fprintf(l->to, ",%zu,%.6f,%.6f,%.6f,%.6f,%.6f,", m.n, m.hr[0], m.hr[1], m.mrr, 10 * m.mrr, m.mrr10);
    if (!isnan(r->valid_hr100))
        fprintf(l->to, "%.6f", r->valid_hr100);
    fprintf(l->to, ",%s\n", r->version);
}

static void put_groups(const struct line *l)
{
    const struct view *v = l->v;
    put_line(l, "all", "", 0, v->place->test.known.keep_known);
    for (enum group g = GROUP_HEAD; g < GROUP_N; g++) {
        view_keep_items(v, g, v->keep);
        put_line(l, "item_frequency", group_name(g), strlen(group_name(g)), v->keep);
    }
    for (enum group g = GROUP_HEAD; g < GROUP_N; g++) {
        view_keep_users(v, g, v->keep);
        put_line(l, "user_frequency", group_name(g), strlen(group_name(g)), v->keep);
    }
    for (uint32_t c = 0; c < v->place->data->category.n; c++) {
        struct str name = strtab_get(&v->place->data->category, c);
        view_keep_category(v, c, v->keep);
        put_line(l, "category", name.p, name.n, v->keep);
    }
}

void table_csv(const struct view *v, FILE *to)
{
    fputs("system,point,seed,group_kind,group,n,hr@50,hr@100,mrr,mrr_x10,mrr_ceil10,valid_hr@100,model_code\n", to);
    for (size_t i = 0; i < v->study->n_rows; i++)
        for (size_t k = 0; k < v->row[i].n_seeds; k++) {
            const struct line l = {v, &v->row[i], k, to};
            put_groups(&l);
        }
}
