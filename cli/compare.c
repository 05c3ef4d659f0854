#include "cli/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"

#define P 0.9 // Webber et al. 2010: the first ten ranks carry 86 % of the weight

static const char *id_at(const json_t *items, size_t i)
{
    const char *id = json_string_value(json_object_get(json_array_get(items, i), "id"));
    return id ? id : "";
}

static double score_at(const json_t *items, size_t i)
{
    return json_number_value(json_object_get(json_array_get(items, i), "score"));
}

/* id -> place. */
static json_t *places(const json_t *items, struct err *err)
{
    json_t *map = json_object();
    size_t n = json_array_size(items);
    for (size_t i = 0; map && i < n; i++)
        if (json_object_set_new(map, id_at(items, i), json_integer((json_int_t)i)) != 0) {
            json_decref(map);
            map = NULL;
        }
    if (!map)
        err_set(err, ERR_NOMEM, "out of memory");
    else if (json_object_size(map) != n)
        err_set(err, ERR_FORMAT, "an answer holds an item twice");
    if (map && json_object_size(map) == n)
        return map;
    json_decref(map);
    return NULL;
}

/* met[d]: items that are in both lists' first d + 1 and were not in both lists' first d. */
static double rank_biased_overlap(const size_t *met, size_t n)
{
    double sum = 0, all = 0, weight = 1;
    size_t shared = 0;
    for (size_t d = 0; d < n; d++, weight *= P) {
        shared += met[d];
        sum += weight * (double)shared / (double)(d + 1);
        all += weight;
    }
    return all > 0 ? sum / all : 1;
}

static void add_common(struct comparison *c, const json_t *a, size_t i, const json_t *b, size_t j, size_t *met)
{
    double drift = score_at(b, j) - score_at(a, i);
    met[i > j ? i : j]++;
    c->common++;
    c->drift += drift;
    c->drift_abs += fabs(drift);
    c->drift_max = fmax(c->drift_max, fabs(drift));
    c->identical = c->identical && i == j;
}

bool compare_items(const json_t *a, const json_t *b, struct comparison *out, struct err *err)
{
    struct comparison c = {.n_a = json_array_size(a), .n_b = json_array_size(b), .identical = true};
    size_t n = c.n_a > c.n_b ? c.n_a : c.n_b;
    size_t *met = mem_array(n, sizeof(*met), err);
    json_t *in_a = met ? places(a, err) : NULL, *in_b = in_a ? places(b, err) : NULL;
    for (size_t i = 0; in_b && i < c.n_a; i++) {
        const json_t *j = json_object_get(in_b, id_at(a, i));
        if (j)
            add_common(&c, a, i, b, (size_t)json_integer_value(j), met);
    }
    if (in_b) {
        c.overlap = n ? (double)c.common / (double)n : 1;
        c.rbo = rank_biased_overlap(met, n);
        c.drift /= c.common ? (double)c.common : 1;
        c.drift_abs /= c.common ? (double)c.common : 1;
        c.identical = c.identical && c.common == n;
        c.same_first = n == 0 || (c.n_a && c.n_b && strcmp(id_at(a, 0), id_at(b, 0)) == 0);
        *out = c;
    }
    bool ok = in_b != NULL;
    json_decref(in_a);
    json_decref(in_b);
    free(met);
    return ok;
}
