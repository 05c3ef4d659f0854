/* If this fails, exact answers have the wrong items or a wrong order. */
#include "tests/core/support.h"

#include "core/base/rng.h"
#include "core/best.h"

static int before(const void *a, const void *b)
{
    const struct retrieve_hit *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->item_idx < y->item_idx ? -1 : x->item_idx > y->item_idx;
}

/* Few distinct scores, so that ties are everywhere. */
static void keeps_the_best(void **state)
{
    (void)state;
    struct rng r;
    struct retrieve_hit all[300], kept[300];
    rng_init(&r, 12);
    for (size_t round = 0; round < 200; round++) {
        size_t n = rng_below(&r, 300), k = 1 + rng_below(&r, 50), m = 0;
        for (uint32_t i = 0; i < n; i++) {
            all[i] = (struct retrieve_hit){i, (float)rng_below(&r, 20)};
            m = best_offer(kept, m, k, all[i]);
        }
        best_sort(kept, m);
        qsort(all, n, sizeof(*all), before);
        assert_int_equal(m, n < k ? n : k);
        for (size_t i = 0; i < m; i++)
            assert_true(kept[i].item_idx == all[i].item_idx && kept[i].score == all[i].score);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(keeps_the_best)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
