#include "train/collapse.h"

#include <math.h>
#include <stdio.h>

/* Shares and spreads at which nothing can be learned any more: dead rows get no gradient, equal scores rank nothing. */
#define DEAD_SHARE 0.95
#define SPREAD_MIN 1e-6
#define LN2_NEAR 1e-4

/* What to change, for the cause at hand. */
static const char *advice(const struct recipe *r)
{
    if (r->relu_out && r->loss == LOSS_BCE && r->negatives > 1)
        return "with ReLU outputs every cosine is in [0, 1], so sigmoid is >= 0.5 even for a perfect negative, and "
               "with more negatives "
               "than positives all-zero outputs cost least; use --recipe duet, or --linear-out with --scale 10";
    if (r->relu_out)
        return "the last ReLU's inputs fell below 0 and get no gradient back; use --linear-out or a lower --lr";
    return "use a lower --lr, or a smaller --scale";
}

bool collapse_seen(const struct recipe *r, const struct loss_parts *parts, const struct step_health *h, char *reason,
                   size_t n)
{
    double share = h->zero_users > h->zero_items ? h->zero_users : h->zero_items;
    if (!h->finite) {
        snprintf(reason, n, "the loss or a gradient is not finite (loss %g): use a lower --lr or a smaller --scale",
                 parts->total);
        return true;
    }
    bool ln2 = r->loss == LOSS_BCE && fabs(parts->main - 0.6931471805599453) < LN2_NEAR;
    const char *stuck = ln2 ? ", the loss stands at ln 2" : "";
    if (share >= DEAD_SHARE)
        snprintf(reason, n, "%.0f%% of the %s outputs are the zero vector%s: %s", 100 * share,
                 h->zero_users > h->zero_items ? "users'" : "items'", stuck, advice(r));
    else if (h->spread < SPREAD_MIN)
        snprintf(reason, n,
                 "all scores are equal (they differ by %.1e, %.0f%% of the outputs are the zero vector)%s: %s",
                 h->spread, 100 * share, stuck, advice(r));
    else
        return false;
    return true;
}
