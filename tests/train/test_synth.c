/* If this fails, the synthetic data has nothing for a model to find, or changes from run to run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <cmocka.h>

#include "core/base/hash.h"
#include "core/base/mem.h"
#include "prepare_util.h"
#include "train/synth.h"

static const struct synth_params small = {.n_users = 600, .n_items = 400, .n_interactions = 18000, .seed = 7};

static void make(const struct synth_params *p)
{
    struct err err = {0};
    if (!synth_write(dir, p, &err))
        fail_msg("%s", err.msg);
}

static uint64_t hash_of(const char *name)
{
    size_t n;
    char *text = fio_read_all(in_dir(name), 100 << 20, &n, NULL);
    assert_non_null(text);
    uint64_t h = hash64(text, n);
    free(text);
    return h;
}

static void counts_are_as_asked(void **state)
{
    (void)state;
    make(&small);
    struct prepare_report report;
    struct prepare_params p = params();
    p.all_items = true;
    struct dataset *d = prepared_with(&p, &report);
    assert_string_equal(report.split, "last");
    assert_int_equal(report.n_read, 18000);
    assert_int_equal(report.n_repeated, 0);
    assert_int_equal(d->n_users, 600);
    assert_int_equal(d->n_items, 400);
    assert_int_equal(d->test.off[600], 600);
    assert_int_equal(d->category.n, 11);
    assert_string_equal(attr_of(d, "8", "title"), "The \"Grand\" Florist, No. 8");
    assert_int_equal(field_of(&d->schema->user, "city")->kind, FIELD_CATEGORICAL);
    assert_int_equal(field_of(&d->schema->item, "price")->kind, FIELD_NUMERIC);
    assert_int_equal(field_of(&d->schema->item, "title")->kind, FIELD_DISPLAY);
    dataset_close(d);
}

static void categories_are_uneven(void **state)
{
    (void)state;
    make(&small);
    struct prepare_params p = params();
    p.all_items = true;
    struct dataset *d = prepared_with(&p, NULL);
    uint32_t count[11] = {0};
    for (uint32_t i = 0; i < d->n_items; i++)
        count[d->item_category[i]]++;
    assert_int_equal(count[0], 0);
    for (uint32_t c = 1; c < 11; c++)
        assert_true(count[c] >= 1);
    assert_true(count[1] > 20 * count[10]); // foods, pets
    dataset_close(d);
}

static void the_seed_decides(void **state)
{
    (void)state;
    static const char *const files[] = {"users.csv", "items.csv", "interactions.csv"};
    uint64_t first[3];
    make(&small);
    for (int i = 0; i < 3; i++)
        first[i] = hash_of(files[i]);
    make(&small);
    for (int i = 0; i < 3; i++)
        assert_int_equal(hash_of(files[i]), first[i]);
    struct synth_params other = small;
    other.seed++;
    make(&other);
    for (int i = 0; i < 3; i++)
        assert_int_not_equal(hash_of(files[i]), first[i]);
}

// -------------------------------------------------------------------------------------------------- is there a signal?

/* Share of test items among the first `k` by score, the user's other items left out. score[u][i]. */
static double hit_rate(const struct dataset *d, const double *score, uint32_t k)
{
    uint32_t hits = 0;
    char *seen = mem_array(d->n_items, 1, NULL);
    for (uint32_t u = 0; u < d->n_users; u++) {
        const double *s = score + (size_t)u * d->n_items;
        uint32_t t = d->test.item[d->test.off[u]], rank = 0;
        memset(seen, 0, d->n_items);
        for (uint64_t i = d->train.off[u]; i < d->train.off[u + 1]; i++)
            seen[d->train.item[i]] = 1;
        for (uint32_t i = 0; i < d->n_items; i++)
            rank += !seen[i] && i != t && s[i] >= s[t];
        hits += rank < k;
    }
    free(seen);
    return (double)hits / d->n_users;
}

/* Popularity among all users, and among those of the same city and gender. */
static void score_popularity(const struct dataset *d, bool by_group, double *score)
{
    const struct schema_side *side = &d->schema->user;
    uint32_t city = field_of(side, "city")->slot, gender = field_of(side, "gender")->slot;
    for (uint32_t u = 0; u < d->n_users; u++)
        for (uint32_t v = 0; v < d->n_users; v++) {
            const uint32_t *x = d->user_x + (size_t)u * side->n_slots, *y = d->user_x + (size_t)v * side->n_slots;
            bool alike = x[city] == y[city] && x[gender] == y[gender];
            for (uint64_t i = d->train.off[v]; i < d->train.off[v + 1]; i++)
                score[(size_t)u * d->n_items + d->train.item[i]] += !by_group ? 1 : alike ? 1 : 0.1;
        }
}

/* Sum of cosines between the item and the user's items, by who took both: finds personal taste without knowing the
 * model. */
static void score_neighbours(const struct dataset *d, double *score)
{
    size_t n = d->n_items;
    double *both = mem_array(n * n, sizeof(*both), NULL);
    for (uint32_t u = 0; u < d->n_users; u++)
        for (uint64_t i = d->train.off[u]; i < d->train.off[u + 1]; i++)
            for (uint64_t j = d->train.off[u]; j < d->train.off[u + 1]; j++)
                both[d->train.item[i] * n + d->train.item[j]] += i != j;
    for (uint32_t u = 0; u < d->n_users; u++)
        for (uint64_t i = d->train.off[u]; i < d->train.off[u + 1]; i++)
            for (uint32_t j = 0; j < n; j++)
                if (d->item_count[j] > 0)
                    score[u * n + j] += both[d->train.item[i] * n + j] /
                                        sqrt((double)d->item_count[d->train.item[i]] * d->item_count[j]);
    free(both);
}

/* popularity < popularity in one's group (features help) < neighbours (taste that is in no feature helps more).
 * Measured with this seed: .43, .52, .61 at 50 of 400; the margins asked for are smaller. */
static void features_and_taste_both_tell(void **state)
{
    (void)state;
    make(&small);
    struct dataset *d = prepared();
    size_t n = (size_t)d->n_users * d->n_items;
    double *score = mem_array(n, sizeof(*score), NULL);
    score_popularity(d, false, score);
    double popular = hit_rate(d, score, 50);
    memset(score, 0, n * sizeof(*score));
    score_popularity(d, true, score);
    double group = hit_rate(d, score, 50);
    memset(score, 0, n * sizeof(*score));
    score_neighbours(d, score);
    double taste = hit_rate(d, score, 50);
    print_message("HR@50: popularity %.3f, by city and gender %.3f, neighbours %.3f\n", popular, group, taste);
    assert_true(group > popular + 0.03);
    assert_true(taste > group + 0.02);
    free(score);
    dataset_close(d);
}

static void refused_synth(struct synth_params p, const char *part)
{
    struct err err = {0};
    assert_false(synth_write(dir, &p, &err));
    if (!strstr(err.msg, part))
        fail_msg("found \"%s\", want \"%s\" in it", err.msg, part);
}

static void refuses_what_cannot_be(void **state)
{
    (void)state;
    refused_synth((struct synth_params){.n_users = 10, .n_items = 40, .n_interactions = 49},
                  "49 interactions, want 50 to 100");
    refused_synth((struct synth_params){.n_users = 10, .n_items = 40, .n_interactions = 101},
                  "101 interactions, want 50 to 100");
    refused_synth((struct synth_params){.n_users = 10, .n_items = 19, .n_interactions = 50}, "19 items");
    make(&(struct synth_params){.n_users = 10, .n_items = 40, .n_interactions = 100}); // every user at the limit
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(counts_are_as_asked, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(categories_are_uneven, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(the_seed_decides, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(features_and_taste_both_tell, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(refuses_what_cannot_be, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
