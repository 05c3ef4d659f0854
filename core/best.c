#include "core/best.h"

#include <stdbool.h>

static bool better(struct retrieve_hit a, struct retrieve_hit b)
{
    return a.score > b.score || (a.score == b.score && a.item_idx < b.item_idx);
}

static void sift(struct retrieve_hit *h, size_t n, size_t at)
{
    struct retrieve_hit x = h[at];
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && better(h[child], h[child + 1]))
            child++;
        if (!better(x, h[child]))
            break;
        h[at] = h[child];
    }
    h[at] = x;
}

size_t best_offer(struct retrieve_hit *h, size_t n, size_t k, struct retrieve_hit x)
{
    if (n < k) {
        h[n++] = x;
        if (n == k)
            for (size_t i = n / 2; i-- > 0;)
                sift(h, n, i);
    } else if (better(x, h[0])) {
        h[0] = x;
        sift(h, n, 0);
    }
    return n;
}

void best_sort(struct retrieve_hit *h, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sift(h, n, i);
    for (size_t end = n; end-- > 1;) {
        struct retrieve_hit worst = h[0];
        h[0] = h[end];
        sift(h, end, 0);
        h[end] = worst;
    }
}
