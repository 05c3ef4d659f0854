/* Batches. If this fails, some interactions are never trained on, held-out items leak into training, or a run cannot be
 * repeated. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/train/toy.h"
#include "train/sampler.h"

static struct recipe recipe_of(enum loss_kind loss, enum batch_kind batching)
{
    struct recipe r = toy_recipe(MODEL_DAT);
    r.loss = loss;
    r.batching = batching;
    r.batch = 7;
    r.negatives = 5;
    return r;
}

static size_t pair_at(const struct dataset *d, uint32_t u, uint32_t item)
{
    for (uint64_t i = d->train.off[u]; i < d->train.off[u + 1]; i++)
        if (d->train.item[i] == item)
            return (size_t)i;
    fail_msg("user %u has no training item %u", u, item);
    return 0;
}

static void check_batch(const struct sampler *s, uint8_t *seen)
{
    const struct batch *b = &s->batch;
    size_t rows = 0;
    assert_true(b->n_users <= s->max_users && b->n_items <= s->max_items && b->n_pos <= s->max_pos);
    for (size_t u = 0; u < b->n_users; u++)
        for (size_t i = b->pos_off[u]; i < b->pos_off[u + 1]; i++)
            seen[pair_at(s->d, b->user[u], b->item[b->pos[i]])]++;
    for (size_t i = 0; i < b->n_items; i++) {
        rows += b->rows[i];
        for (size_t q = i + 1; q < b->n_items; q++)
            assert_int_not_equal(b->item[i], b->item[q]);
    }
    for (size_t i = 0; i < b->n_pos * b->n_neg; i++)
        assert_true(b->neg[i] < b->n_items);
    assert_int_equal(b->pos_off[b->n_users], b->n_pos);
    if (s->r->loss == LOSS_BCE)
        assert_int_equal(rows, b->n_pos * (1 + b->n_neg));
}

static void an_epoch_has_every_pair_once(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    toy_init(&t, 23, 20, 1);
    uint8_t *seen = malloc(23 * 8);
    for (int loss = 0; loss < 3; loss++)
        for (int batching = 0; batching < 2; batching++) {
            struct recipe r = recipe_of((enum loss_kind)loss, (enum batch_kind)batching);
            struct sampler s;
            assert_true(sampler_init(&s, &t.d, &r, &err));
            for (int epoch = 0; epoch < 2; epoch++) {
                size_t n = 0;
                memset(seen, 0, 23 * 8);
                for (sampler_epoch(&s); sampler_next(&s); n++)
                    check_batch(&s, seen);
                assert_int_equal(n, s.n_batches);
                for (size_t i = 0; i < 23 * 8; i++)
                    assert_int_equal(seen[i], 1);
            }
            sampler_fini(&s);
        }
    free(seen);
    toy_fini(&t);
}

static void the_stream_follows_from_the_generator_alone(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    struct sampler a, b;
    struct recipe r = recipe_of(LOSS_BCE, BATCH_PAIRS);
    toy_init(&t, 23, 20, 1);
    assert_true(sampler_init(&a, &t.d, &r, &err) && sampler_init(&b, &t.d, &r, &err));
    for (sampler_epoch(&a); sampler_next(&a);)
        ;
    b.rng = a.rng; // what a resumed run starts from
    sampler_epoch(&a);
    sampler_epoch(&b);
    while (sampler_next(&a)) {
        assert_true(sampler_next(&b));
        assert_int_equal(a.batch.n_pos, b.batch.n_pos);
        assert_memory_equal(a.batch.pos, b.batch.pos, a.batch.n_pos * sizeof(uint32_t));
        assert_memory_equal(a.batch.neg, b.batch.neg, a.batch.n_pos * a.batch.n_neg * sizeof(uint32_t));
    }
    assert_false(sampler_next(&b));
    sampler_fini(&a);
    sampler_fini(&b);
    toy_fini(&t);
}

/* Every kind of loss: an item whose training rows were withheld is nobody's negative. */
static void held_out_items_are_not_there(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    toy_init(&t, 23, 20, 1);
    for (uint32_t i = 0; i < 20; i++) // an item without training rows may be held out
        t.item_held[i] = t.count[i] == 0 || i == 3;
    for (uint64_t q = 0; q < t.off[0][23]; q++)
        if (t.item[0][q] == 3)
            t.item[0][q] = 4;
    for (int loss = 0; loss < 3; loss++) {
        struct recipe r = recipe_of((enum loss_kind)loss, BATCH_USERS);
        struct sampler s;
        r.negatives = 50;
        assert_true(sampler_init(&s, &t.d, &r, &err));
        for (sampler_epoch(&s); sampler_next(&s);)
            for (size_t i = 0; i < s.batch.n_items; i++)
                assert_false(t.item_held[s.batch.item[i]]);
        sampler_fini(&s);
    }
    toy_fini(&t);
}

/* q must be the share of batches that hold the item, or the correction pulls popular items down too far or not enough.
 */
static void log_q_is_the_chance_of_being_in_a_batch(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    struct sampler s;
    struct recipe r = recipe_of(LOSS_SAMPLED, BATCH_PAIRS);
    size_t n = 0, in[20] = {0};
    double q[20] = {0};
    toy_init(&t, 100, 20, 1);
    r.negatives = 3;
    assert_true(sampler_init(&s, &t.d, &r, &err));
    for (int epoch = 0; epoch < 100; epoch++)
        for (sampler_epoch(&s); sampler_next(&s); n++)
            for (size_t i = 0; i < s.batch.n_items; i++) {
                in[s.batch.item[i]]++;
                q[s.batch.item[i]] = exp(s.batch.log_q[i]);
            }
    for (int i = 0; i < 20; i++)
        assert_float_equal(q[i], (float)in[i] / (float)n, 0.02f);
    sampler_fini(&s);
    toy_fini(&t);
}

static void only_sampled_hides_other_users_positives(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    struct sampler s;
    struct recipe r = recipe_of(LOSS_SAMPLED, BATCH_USERS);
    toy_init(&t, 23, 60, 1);
    r.in_batch = false;
    r.negatives = 1;
    assert_true(sampler_init(&s, &t.d, &r, &err));
    sampler_epoch(&s);
    assert_true(sampler_next(&s));
    size_t visible = 0;
    for (size_t i = 0; i < s.batch.n_items; i++)
        visible += isfinite(s.batch.log_q[i]) ? 1 : 0;
    assert_int_equal(visible, 1);
    sampler_fini(&s);
    toy_fini(&t);
}

static void an_empty_split_is_refused(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    struct sampler s;
    struct recipe r = recipe_of(LOSS_BCE, BATCH_PAIRS);
    toy_init(&t, 5, 60, 1);
    memset(t.off[0], 0, 6 * sizeof(uint64_t));
    assert_false(sampler_init(&s, &t.d, &r, &err));
    assert_non_null(strstr(err.msg, "0 training interactions"));
    toy_fini(&t);
}

/* Denoising: every positive is either asked for or history, never both, about as often as said; nobody is without. */
static void history_and_targets_part_the_positives(void **state)
{
    (void)state;
    for (int loss = LOSS_SOFTMAX; loss <= LOSS_SAMPLED; loss++) {
        struct toy t;
        struct sampler s;
        struct err err = {0};
        size_t asked = 0, all = 0;
        toy_init(&t, 40, 30, 3);
        struct recipe r = toy_recipe_closed();
        r.loss = (enum loss_kind)loss;
        r.batch = 7;
        r.denoise = 0.3;
        assert_true(sampler_init(&s, &t.d, &r, &err));
        for (int epoch = 0; epoch < 10; epoch++)
            for (sampler_epoch(&s); sampler_next(&s);) {
                const struct batch *b = &s.batch;
                uint8_t seen[40 * 30] = {0};
                double share = 0;
                assert_true(b->masked);
                for (size_t u = 0; u < b->n_users; u++) {
                    assert_true(b->pos_off[u + 1] > b->pos_off[u]);
                    for (size_t i = b->pos_off[u]; i < b->pos_off[u + 1]; i++)
                        seen[pair_at(&t.d, b->user[u], b->item[b->pos[i]])]++;
                    for (size_t i = b->hist_off[u]; i < b->hist_off[u + 1]; i++)
                        seen[pair_at(&t.d, b->user[u], b->item[b->hist[i]])]++;
                    for (uint64_t i = t.d.train.off[b->user[u]]; i < t.d.train.off[b->user[u] + 1]; i++)
                        assert_int_equal(seen[i], 1);
                    share += (double)b->share[u] * (b->pos_off[u + 1] - b->pos_off[u]);
                }
                assert_true(fabs(share - 1) < 1e-5); // toy users have equally many positives
                asked += b->n_pos;
                all += b->n_pos + b->n_hist;
            }
        assert_true(fabs((double)asked / (double)all - 0.3) < 0.04);
        sampler_fini(&s);
        toy_fini(&t);
    }
}

/* History, then the next items in time; as many moments as an epoch needs to ask for every item about once. */
static void targets_follow_their_history(void **state)
{
    (void)state;
    struct toy t;
    struct err err = {0};
    toy_init(&t, 40, 30, 3);
    struct recipe r = toy_recipe_timed();
    struct sampler s;
    assert_false(sampler_init(&s, &t.d, &r, &err));
    assert_non_null(strstr(err.msg, "no times"));
    toy_give_times(&t);
    r.window = 3;
    size_t rows = 0, full = 0, moments[8] = {0};
    assert_true(sampler_init(&s, &t.d, &r, &err));
    for (int epoch = 0; epoch < 20; epoch++)
        for (sampler_epoch(&s); sampler_next(&s);) {
            const struct batch *b = &s.batch;
            assert_true(b->masked && b->n_pos + b->n_hist <= s.max_pos);
            double share = 0;
            for (size_t u = 0; u < b->n_users; u++, rows++) {
                uint64_t at = t.d.train.off[b->user[u]];
                size_t n_hist = b->hist_off[u + 1] - b->hist_off[u], n = b->pos_off[u + 1] - b->pos_off[u];
                assert_int_equal(n, 8 - n_hist < 3 ? 8 - n_hist : 3);
                for (size_t i = 0; i < n_hist; i++)
                    assert_int_equal(b->item[b->hist[b->hist_off[u] + i]], t.d.train.item[at + i]);
                for (size_t i = 0; i < n; i++)
                    assert_int_equal(b->item[b->pos[b->pos_off[u] + i]], t.d.train.item[at + n_hist + i]);
                share += (double)b->share[u] * (double)n;
                moments[n_hist]++;
                full += n == 3;
            }
            assert_true(fabs(share - 1) < 1e-5); // toy users have equally many moments
        }
    assert_int_equal(rows, 20 * 40 * 2);
    assert_true(moments[0] == 0 && full > rows / 2);
    for (size_t i = 1; i < 8; i++)
        assert_true(moments[i] > rows / 14);
    sampler_fini(&s);
    toy_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(history_and_targets_part_the_positives),
        cmocka_unit_test(targets_follow_their_history),
        cmocka_unit_test(an_epoch_has_every_pair_once),
        cmocka_unit_test(the_stream_follows_from_the_generator_alone),
        cmocka_unit_test(held_out_items_are_not_there),
        cmocka_unit_test(log_q_is_the_chance_of_being_in_a_batch),
        cmocka_unit_test(only_sampled_hides_other_users_positives),
        cmocka_unit_test(an_empty_split_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
