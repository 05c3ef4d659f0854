#include "core/calibration.h"

#include <math.h>
#include <string.h>

static const char *const layout_name[BUNDLE_LAYOUTS] = {
    [HNSW_PLAIN] = "plain", [HNSW_FAST] = "fast", [HNSW_COMPACT] = "compact"};

const char *bundle_layout_name(enum hnsw_layout l)
{
    return layout_name[l];
}

bool bundle_layout_parse(const char *name, enum hnsw_layout *out)
{
    for (int l = 0; l < BUNDLE_LAYOUTS; l++)
        if (strcmp(name, layout_name[l]) == 0) {
            *out = (enum hnsw_layout)l;
            return true;
        }
    return false;
}

// ----------------------------------------------------------------------------------------------------------- asking

/* On one curve; 0 where no point reaches the target. */
static double ef_on(const struct calibration_curve *c, double target)
{
    uint32_t i = 0;
    while (i < c->n && c->recall[i] < target)
        i++;
    if (i == 0 || i == c->n)
        return i ? 0 : c->ef[0];
    double below = c->recall[i - 1], share = (target - below) / (c->recall[i] - below);
    return c->ef[i - 1] + share * (c->ef[i] - c->ef[i - 1]);
}

/* The curves on both sides of k, one and the same at the ends. */
static void around(const struct calibration *c, enum hnsw_layout layout, size_t k, const struct calibration_curve **low,
                   const struct calibration_curve **high)
{
    *low = *high = NULL;
    for (uint32_t i = 0; i < c->n_curves; i++) {
        const struct calibration_curve *x = &c->curve[i];
        if (x->layout != layout)
            continue;
        if (x->k <= k)
            *low = x;
        else if (!*high)
            *high = x;
    }
    *low = *low ? *low : *high;
    *high = *high ? *high : *low;
}

enum calibration_answer calibration_ef(const struct calibration *c, enum hnsw_layout layout, size_t k, double target,
                                       size_t *ef)
{
    const struct calibration_curve *low, *high;
    around(c, layout, k, &low, &high);
    if (!low)
        return CALIBRATION_NONE;
    double at = ef_on(low, target), to = ef_on(high, target);
    if (target >= 1 || at <= 0 || to <= 0)
        return CALIBRATION_EXACT;
    if (low != high)
        at += (to - at) * (double)(k - low->k) / (double)(high->k - low->k);
    else if (k > low->k)
        at *= (double)k / low->k;
    *ef = (size_t)ceil(at);
    *ef = *ef < k ? k : *ef;
    return CALIBRATION_EF;
}

// ------------------------------------------------------------------------------------------------------------- JSON

static json_t *curve_json(const struct calibration_curve *c)
{
    json_t *ef = json_array(), *recall = json_array();
    for (uint32_t i = 0; i < c->n; i++) {
        json_array_append_new(ef, json_integer(c->ef[i]));
        json_array_append_new(recall, json_real(c->recall[i]));
    }
    return json_pack("{s:s, s:I, s:o, s:o}", "layout", layout_name[c->layout], "k", (json_int_t)c->k, "ef", ef,
                     "recall", recall);
}

json_t *calibration_to_json(const struct calibration *c)
{
    json_t *curves = json_array();
    for (uint32_t i = 0; i < c->n_curves; i++)
        json_array_append_new(curves, curve_json(&c->curve[i]));
    return json_pack("{s:I, s:o}", "queries", (json_int_t)c->n_queries, "curves", curves);
}

static bool read_points(const json_t *o, struct calibration_curve *c, struct err *err)
{
    const json_t *ef = json_object_get(o, "ef"), *recall = json_object_get(o, "recall");
    size_t n = json_array_size(ef);
    if (n < 1 || n > CALIBRATION_POINTS || json_array_size(recall) != n)
        return err_set(err, ERR_FORMAT, "\"ef\", \"recall\": %zu and %zu numbers, want 1 to %d of each", n,
                       json_array_size(recall), CALIBRATION_POINTS);
    for (size_t i = 0; i < n; i++) {
        json_int_t v = json_integer_value(json_array_get(ef, i));
        double r = json_is_number(json_array_get(recall, i)) ? json_number_value(json_array_get(recall, i)) : -1;
        if (v < (i ? (json_int_t)c->ef[i - 1] + 1 : (json_int_t)c->k) || v > 1000000)
            return err_set(err, ERR_FORMAT, "\"ef\": value %zu is %lld, want ascending ones from k to 1000000", i,
                           (long long)v);
        if (!(r >= (i ? c->recall[i - 1] : 0) && r <= 1))
            return err_set(err, ERR_FORMAT, "\"recall\": value %zu is %g, want 0 to 1, never falling", i, r);
        c->ef[i] = (uint32_t)v;
        c->recall[i] = r;
    }
    c->n = (uint32_t)n;
    return true;
}

/* Sorted as `around` walks them. */
static bool in_order(const struct calibration *c, const struct calibration_curve *next, struct err *err)
{
    const struct calibration_curve *last = c->n_curves ? &c->curve[c->n_curves - 1] : NULL;
    return !last || last->layout < next->layout || (last->layout == next->layout && last->k < next->k) ||
           err_set(err, ERR_FORMAT, "k %u of layout %s stands behind k %u of %s; want them by layout, then by k",
                   next->k, layout_name[next->layout], last->k, layout_name[last->layout]);
}

static bool read_curve(const json_t *o, struct calibration *out, struct err *err)
{
    uint64_t k;
    struct calibration_curve c = {0};
    const char *layout = json_need_str(o, "layout", err);
    if (!layout || !json_need_uint(o, "k", UINT32_MAX / 4, &k, err))
        return false;
    if (!bundle_layout_parse(layout, &c.layout))
        return true;
    c.k = (uint32_t)k;
    if (k == 0)
        return err_set(err, ERR_FORMAT, "\"k\": found 0, want 1 or more");
    if (out->n_curves == BUNDLE_LAYOUTS * CALIBRATION_KS)
        return err_set(err, ERR_FORMAT, "more than %d curves", BUNDLE_LAYOUTS * CALIBRATION_KS);
    if (!read_points(o, &c, err) || !in_order(out, &c, err))
        return false;
    out->curve[out->n_curves++] = c;
    return true;
}

bool calibration_from_json(const json_t *o, struct calibration *out, struct err *err)
{
    uint64_t queries;
    size_t i;
    const json_t *curves = json_object_get(o, "curves"), *v;
    *out = (struct calibration){0};
    if (!json_need_uint(o, "queries", UINT32_MAX, &queries, err))
        return false;
    if (!json_is_array(curves))
        return err_set(err, ERR_FORMAT, "\"curves\": want an array");
    out->n_queries = (uint32_t)queries;
    json_array_foreach(curves, i, v) if (!read_curve(v, out, err)) return err_prefix(err, "curves: number %zu", i);
    return true;
}
