/* table_index.c - the part of a table that says what the index costs. */
#include <math.h>

#include "train/study/table.h"

/* Means over the seeds of one row's i-th ef. */
struct cost {
    double ef, hr50, hr100, exact50, exact100, rate;
    bool served;
    size_t n;
};

static struct cost cost_of(const struct view_row *r, size_t i)
{
    struct cost c = {0};
    for (size_t k = 0; k < r->n_seeds; k++) {
        const json_t *o = json_array_get(json_object_get(r->result[k].file, "index"), i);
        if (!o)
            continue;
        c.n++;
        c.ef += json_number_value(json_object_get(o, "ef"));
        c.hr50 += json_number_value(json_object_get(o, "hr@50"));
        c.hr100 += json_number_value(json_object_get(o, "hr@100"));
        c.exact50 += json_number_value(json_object_get(o, "exact_hr@50"));
        c.exact100 += json_number_value(json_object_get(o, "exact_hr@100"));
        c.rate += json_number_value(json_object_get(o, "queries_per_s"));
        c.served |= json_is_true(json_object_get(o, "served"));
    }
    double n = c.n ? (double)c.n : 1;
    return (struct cost){c.ef / n, c.hr50 / n, c.hr100 / n, c.exact50 / n, c.exact100 / n, c.rate / n, c.served, c.n};
}

void table_index(const struct view *v, FILE *to)
{
    fputs("\n## What the graph costs\n\nMeans over the seeds. Asked as the daemon asks: 100 items, the user's training and validation items left "
          "out; \"served\": the ef that publishing has chosen for the bundle. Loss: of HR@100, relative; below 0 the graph happens to find more.\n\n"
          "| system | ef | HR@50 | exact | HR@100 | exact | loss of HR@100 | queries/s |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n",
          to);
    for (size_t r = 0; r < v->study->n_rows; r++)
        for (size_t i = 0;; i++) {
            struct cost c = cost_of(&v->row[r], i);
            if (c.n == 0)
                break;
            fprintf(to, "| %s | %.4g%s | %.4f | %.4f | %.4f | %.4f | %.2f %% | %.0f |\n", v->row[r].def->name, c.ef,
                    c.served ? ", served" : "", c.hr50, c.exact50, c.hr100, c.exact100,
                    c.exact100 > 0 ? 100 * (1 - c.hr100 / c.exact100) : 0, c.rate);
        }
}

size_t table_index_points(const struct view_row *r, double *ef, double *kept, size_t max)
{
    size_t n = 0;
    for (size_t i = 1; n < max; i++) { // the first is the one that is served, wherever it lies
        struct cost c = cost_of(r, i);
        if (c.n == 0)
            break;
        ef[n] = c.ef;
        kept[n++] = c.exact100 > 0 ? c.hr100 / c.exact100 : 0;
    }
    return n;
}
