/* If this fails, filters are answered from a wrong list of items. */
#include "tests/core/support.h"

#include "core/base/rng.h"
#include "core/base/strtab.h"
#include "core/facet.h"

struct column {
    struct strtab_builder b;
    struct strtab view;
};

static void make(struct column *c, const char *const *text, uint32_t n)
{
    struct err e = {0};
    *c = (struct column){0};
    for (uint32_t i = 0; i < n; i++)
        assert_ok(strtab_add(&c->b, text[i], strlen(text[i]), NULL, &e), &e);
    c->view = strtab_view(&c->b);
}

static const struct facet_value *find(const struct facet *f, const char *text)
{
    return facet_find(f, (struct str){text, strlen(text)});
}

static void expect(const struct facet *f, const char *text, const uint32_t *item, uint32_t n)
{
    const struct facet_value *v = find(f, text);
    if (!v || v->n != n || memcmp(f->item + v->first, item, n * sizeof(*item)) != 0)
        fail_msg("'%s': %u items", text, v ? v->n : 0);
    assert_int_not_equal(v->bits, FACET_NO_BITS); // few items: every value is frequent
    for (uint32_t i = 0, at = 0; i < 8; i++) {
        bool in = at < n && item[at] == i;
        at += in;
        assert_int_equal(f->bits[v->bits] >> i & 1, in);
    }
}

/* Longer than the eight bytes of the key, the same in them, and prefixes of one another. */
static void values_have_their_items(void **state)
{
    (void)state;
    static const char *const text[] = {"b",           "",         "longer than eight", "a", "b",
                                       "longer than", "longer t", "longer than eight"};
    struct column c;
    struct facet f = {0};
    struct err e = {0};
    make(&c, text, 8);
    assert_ok(facet_init(&f, &(struct facet_source){.values = &c.view, .n_items = 8}, &e), &e);
    assert_int_equal(f.n_values, 6);
    expect(&f, "b", (uint32_t[]){0, 4}, 2);
    expect(&f, "", (uint32_t[]){1}, 1);
    expect(&f, "longer than eight", (uint32_t[]){2, 7}, 2);
    expect(&f, "longer than", (uint32_t[]){5}, 1);
    expect(&f, "longer t", (uint32_t[]){6}, 1);
    assert_null(find(&f, "longer"));
    assert_null(find(&f, "longer than eight!"));
    assert_null(f.number);
    assert_true(facet_memory(&f, 8) > 0);
    facet_fini(&f);
    strtab_builder_fini(&c.b);
}

static void several_values_are_cut(void **state)
{
    (void)state;
    static const char *const text[] = {"a|b", "", " b |a|b", "|", "c"};
    struct column c;
    struct facet f = {0};
    struct err e = {0};
    make(&c, text, 5);
    assert_ok(facet_init(&f, &(struct facet_source){.values = &c.view, .n_items = 5, .sep = '|'}, &e), &e);
    expect(&f, "a", (uint32_t[]){0, 2}, 2);
    expect(&f, "b", (uint32_t[]){0, 2}, 2);
    expect(&f, "c", (uint32_t[]){4}, 1);
    expect(&f, "", (uint32_t[]){1, 3}, 2);
    assert_null(find(&f, "a|b"));
    facet_fini(&f);
    strtab_builder_fini(&c.b);
}

static uint32_t range(const struct facet *f, double lo, bool lo_open, double hi, bool hi_open, uint32_t first)
{
    uint32_t n, at = facet_range(f, lo, lo_open, hi, hi_open, &n);
    if (n)
        assert_int_equal(f->number_item[at], first);
    return n;
}

static void numbers_are_ranges(void **state)
{
    (void)state;
    static const char *const text[] = {"10", "-2.5", "", "10.0", "3e1"};
    struct column c;
    struct facet f = {0};
    struct err e = {0};
    make(&c, text, 5);
    assert_ok(facet_init(&f, &(struct facet_source){.values = &c.view, .n_items = 5}, &e), &e);
    assert_int_equal(f.n_numbers, 4);
    assert_int_equal(range(&f, 10, false, 10, false, 0), 2);
    assert_int_equal(range(&f, 10, true, 30, false, 4), 1);
    assert_int_equal(range(&f, 10, true, 30, true, 0), 0);
    assert_int_equal(range(&f, -1e300, false, 1e300, false, 1), 4);
    assert_int_equal(range(&f, 11, false, 9, false, 0), 0);
    assert_int_equal(find(&f, "10")->n, 1); // as text they differ
    facet_fini(&f);
    strtab_builder_fini(&c.b);
}

/* A text among numbers: no numbers, unless the schema says that there are. */
static void mixed_columns(void **state)
{
    (void)state;
    static const char *const text[] = {"1", "two", "3"};
    struct column c;
    struct facet f = {0};
    struct err e = {0};
    make(&c, text, 3);
    assert_ok(facet_init(&f, &(struct facet_source){.values = &c.view, .n_items = 3}, &e), &e);
    assert_null(f.number);
    facet_fini(&f);
    assert_ok(facet_init(&f, &(struct facet_source){.values = &c.view, .n_items = 3, .numeric = true}, &e), &e);
    assert_int_equal(f.n_numbers, 2);
    facet_fini(&f);
    strtab_builder_fini(&c.b);
}

static int at_first(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Many values, each number in two texts, as a table of their own and as rows of a table: the same lists, which brute
 * force checks. */
static void many_values(void **state)
{
    (void)state;
    enum { N = 6000, NUMBERS = 2000 };
    struct strtab_builder own = {0}, table = {0};
    static uint32_t of[N];
    static uint64_t want[N]; // number, then item
    struct facet f[2] = {0};
    struct err e = {0};
    struct rng r;
    char text[32];
    rng_init(&r, 3);
    for (uint32_t row = 0; row < 2 * NUMBERS; row++) // 0, 0.0, 1, 1.0, ..
        assert_ok(
            strtab_add(&table, text, (size_t)snprintf(text, sizeof(text), row & 1 ? "%u.0" : "%u", row / 2), NULL, &e),
            &e);
    struct strtab rows = strtab_view(&table);
    for (uint32_t i = 0; i < N; i++) {
        of[i] = rng_below(&r, 2 * NUMBERS);
        want[i] = (uint64_t)(of[i] / 2) << 32 | i;
        struct str s = strtab_get(&rows, of[i]);
        assert_ok(strtab_add(&own, s.p, s.n, NULL, &e), &e);
    }
    qsort(want, N, sizeof(*want), at_first);
    struct strtab column = strtab_view(&own);
    assert_ok(facet_init(&f[0], &(struct facet_source){.values = &column, .n_items = N}, &e), &e);
    assert_ok(facet_init(&f[1], &(struct facet_source){.values = &rows, .of = of, .n_items = N}, &e), &e);
    for (int k = 0; k < 2; k++) {
        assert_true(f[k].n_entries == N && f[k].n_numbers == N);
        for (uint32_t i = 0; i < N; i++) {
            assert_int_equal(f[k].number_item[i], (uint32_t)want[i]);
            assert_true(f[k].number[i] == (double)(want[i] >> 32));
            const struct facet_value *v = facet_find(&f[k], strtab_get(&rows, of[i]));
            assert_non_null(v);
            uint32_t at = 0;
            while (at < v->n && f[k].item[v->first + at] != i)
                at++;
            assert_true(at < v->n);
        }
        for (uint32_t v = 1; v < f[k].n_values; v++)
            for (uint32_t i = f[k].value[v].first + 1; i < f[k].value[v].first + f[k].value[v].n; i++)
                assert_true(f[k].item[i] > f[k].item[i - 1]);
    }
    assert_int_equal(f[0].n_values, f[1].n_values);
    for (int k = 0; k < 2; k++)
        facet_fini(&f[k]);
    strtab_builder_fini(&own);
    strtab_builder_fini(&table);
}

static void rare_values_have_no_bits(void **state)
{
    (void)state;
    struct strtab_builder b = {0};
    struct facet f = {0};
    struct err e = {0};
    for (uint32_t i = 0; i < 1000; i++)
        assert_ok(strtab_add(&b, i < 15 ? "rare" : "frequent", i < 15 ? 4 : 8, NULL, &e), &e);
    struct strtab view = strtab_view(&b);
    assert_ok(facet_init(&f, &(struct facet_source){.values = &view, .n_items = 1000}, &e), &e);
    assert_int_equal(find(&f, "rare")->bits, FACET_NO_BITS);
    assert_int_equal(find(&f, "frequent")->bits, 0);
    facet_fini(&f);
    strtab_builder_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(values_have_their_items),
                                       cmocka_unit_test(several_values_are_cut),
                                       cmocka_unit_test(numbers_are_ranges),
                                       cmocka_unit_test(mixed_columns),
                                       cmocka_unit_test(many_values),
                                       cmocka_unit_test(rare_values_have_no_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
