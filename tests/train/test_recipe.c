/* Recipes. If this fails, "paper" is no longer the paper's, or a checkpoint does not say how it was trained. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "train/recipe.h"

static void paper_is_the_text_to_the_letter(void **state)
{
    (void)state;
    struct recipe r;
    assert_true(recipe_named("paper", MODEL_DAT, (struct recipe_data){5000, 1000000, 0, false}, &r));
    assert_int_equal(r.loss, LOSS_BCE);
    assert_int_equal(r.batching, BATCH_PAIRS);
    assert_int_equal(r.batch, 256);
    assert_int_equal(r.negatives, 4);
    assert_int_equal(r.k, 32);
    assert_int_equal(r.n_layers, 3);
    assert_memory_equal(r.width, ((uint32_t[]){256, 128, 32}), 3 * sizeof(uint32_t));
    assert_true(r.relu_out && r.amm && r.cal && !r.learn_scale && !r.cal_weighted && !r.cal_positives &&
                !r.cal_detach_major);
    assert_float_equal(r.scale, 1, 0);
    assert_float_equal(r.lambda1, 0.5, 0);
    assert_float_equal(r.lambda2, 0.5, 0);
    assert_float_equal(r.lambda3, 1, 0);
    assert_true(r.oov_dropout == 0 && r.feature_dropout == 0 && r.weight_decay == 0);
}

static void duet_looks_at_the_size_of_the_data(void **state)
{
    (void)state;
    struct recipe r;
    assert_true(recipe_named("duet", MODEL_DAT, (struct recipe_data){5000, 3706, 0, false}, &r));
    assert_int_equal(r.loss, LOSS_SOFTMAX);
    assert_true(recipe_named("duet", MODEL_DAT, (struct recipe_data){5000, SOFTMAX_ITEMS_MAX + 1, 0, false}, &r));
    assert_int_equal(r.loss, LOSS_SAMPLED);
    assert_true(r.in_batch && r.logq && r.negatives > 0);
    assert_int_equal(r.batch, 256);
    assert_true(recipe_named("duet", MODEL_DAT, (struct recipe_data){FEW_USERS - 1, 3706, 0, false}, &r));
    assert_int_equal(r.batch, 64);
    assert_true(r.window == 0 && r.denoise > 0 && !r.recency);
    assert_true(recipe_named("duet", MODEL_DAT, (struct recipe_data){5000, 3706, 100000, true}, &r));
    assert_true(r.window == WINDOW_MIN && r.denoise == 0 && r.recency); // times: cut in time
    assert_true(recipe_named("duet", MODEL_DAT, (struct recipe_data){5000, 3706, 1000000, true}, &r));
    assert_true(r.window == 20 && r.batch == 64);
    assert_true(recipe_named("duet", MODEL_DAT, (struct recipe_data){500, SMALL_CATALOGUE + 1, 100000, true}, &r));
    assert_int_equal(r.batch, 256);
    assert_true(recipe_named("duet", MODEL_TWO_TOWER, (struct recipe_data){5000, 3706, 100000, true}, &r));
    assert_true(r.window == 0 && !r.recency); // nothing is made of the history
    assert_false(recipe_named("pap", MODEL_DAT, (struct recipe_data){5000, 10, 0, false}, &r));
}

static void the_towers_of_a_recipe(void **state)
{
    (void)state;
    struct recipe r;
    recipe_named("duet", MODEL_DAT, (struct recipe_data){5000, 10, 0, false}, &r);
    assert_int_equal(recipe_tower(&r).d_aug, 128);
    assert_true(recipe_tower(&r).skip_aug);
    recipe_named("duet", MODEL_DAT, (struct recipe_data){5000, WIDE_ITEMS + 1, 0, false}, &r);
    assert_int_equal(recipe_tower(&r).d_aug, 256);
    recipe_named("duet", MODEL_TWO_TOWER, (struct recipe_data){5000, WIDE_ITEMS + 1, 0, false}, &r);
    assert_true(r.k == 256 && r.width[1] == 256); // both alike
    recipe_named("duet", MODEL_TWO_TOWER, (struct recipe_data){5000, 10, 0, false}, &r);
    assert_int_equal(recipe_tower(&r).d_aug, 0);
    assert_true(recipe_tower(&r).skip_aug);
}

/* a_u is computed only where the model has one; the table of before is one option away. */
static void closed_form_is_for_dat(void **state)
{
    (void)state;
    struct recipe r;
    recipe_named("duet", MODEL_DAT, (struct recipe_data){5000, 10, 0, false}, &r);
    assert_true(r.aug == AUG_CLOSED && r.denoise > 0 && r.skip);
    recipe_named("duet", MODEL_TWO_TOWER, (struct recipe_data){5000, 10, 0, false}, &r);
    assert_true(r.aug == AUG_TABLE && r.denoise == 0 && r.skip && r.spectral && r.id_tables && r.ema > 0);
    assert_int_equal(r.k, r.width[r.n_layers - 1]);
    recipe_duet(MODEL_DAT, AUG_TABLE, (struct recipe_data){5000, 10, 0, false}, &r);
    assert_true(r.aug == AUG_TABLE && r.denoise == 0 && !r.id_tables && r.skip);
    recipe_named("plain", MODEL_DAT, (struct recipe_data){5000, 10, 0, false}, &r);
    assert_true(r.aug == AUG_TABLE && r.id_tables && !r.skip && !r.spectral && r.ema == 0);
    recipe_named("paper", MODEL_DAT, (struct recipe_data){5000, 10, 0, false}, &r);
    assert_true(r.aug == AUG_TABLE && !r.skip && r.ema == 0 && r.item_dropout == 0 && r.alpha == 1 && r.id_tables);
}

static void json_brings_every_value_back(void **state)
{
    (void)state;
    struct err err = {0};
    const char *names[] = {"paper", "duet"};
    for (int i = 0; i < 2; i++) {
        struct recipe r, back;
        recipe_named(names[i], MODEL_DAT, (struct recipe_data){5000, 10, 0, false}, &r);
        r.seed = 1234567890123;
        r.threads = 3;
        r.lr = 0.1234;
        r.learn_scale = r.cal_positives = true;
        json_t *o = recipe_to_json(&r);
        assert_true(recipe_from_json(o, &back, &err));
        json_t *again = recipe_to_json(&back);
        assert_true(json_equal(o, again));
        assert_int_equal(back.seed, r.seed);
        json_decref(o);
        json_decref(again);
    }
}

static void refused(const char *key, json_t *value, const char *word)
{
    struct recipe r, back;
    struct err err = {0};
    recipe_named("duet", MODEL_DAT, (struct recipe_data){5000, 10, 0, false}, &r);
    json_t *o = recipe_to_json(&r);
    if (value)
        json_object_set_new(o, key, value);
    else
        json_object_del(o, key);
    assert_false(recipe_from_json(o, &back, &err));
    if (!strstr(err.msg, word))
        fail_msg("%s: \"%s\" does not name %s", key, err.msg, word);
    json_decref(o);
}

static void bad_values_are_refused_by_name(void **state)
{
    (void)state;
    refused("lr", NULL, "lr");
    refused("lr", json_real(0), "lr");
    refused("lr", json_string("fast"), "lr");
    refused("batch", json_integer(0), "batch");
    refused("loss", json_string("hinge"), "hinge");
    refused("model", json_string("gru4rec"), "gru4rec");
    refused("batching", json_string("rows"), "rows");
    refused("widths", json_pack("[]"), "widths");
    refused("widths", json_pack("[i,i]", 8, 100000), "width");
    refused("widths", json_pack("[s]", "8"), "width");
    refused("oov_dropout", json_real(1), "oov-dropout");
    refused("aug", json_string("open"), "open");
    refused("aug", json_string("table"), "denoise");
    refused("model", json_string("two_tower"), "skip");
    refused("skip", json_false(), "spectral");
    refused("batching", json_string("pairs"), "whole users");
    refused("relu_out", json_true(), "skip");
    refused("denoise", json_real(1), "denoise");
    refused("alpha", json_real(1.5), "alpha");
    refused("ema", json_real(1), "ema");
    refused("threads", json_integer(0), "threads");
    refused("cal_min_rows", json_integer(1), "cal-min-rows");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paper_is_the_text_to_the_letter), cmocka_unit_test(duet_looks_at_the_size_of_the_data),
        cmocka_unit_test(the_towers_of_a_recipe),          cmocka_unit_test(closed_form_is_for_dat),
        cmocka_unit_test(json_brings_every_value_back),    cmocka_unit_test(bad_values_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
