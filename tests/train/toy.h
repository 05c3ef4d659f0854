/* toy.h - a small made-up dataset in memory, with every kind of field, for the tests of training. */
#ifndef DUET_TEST_TOY_H
#define DUET_TEST_TOY_H

#include "core/base/rng.h"
#include "core/model.h"
#include "train/dataset.h"
#include "train/recipe.h"

struct toy {
    struct dataset d;
    uint64_t *off[4];
    uint32_t *item[4];
    int64_t *time;
    uint32_t *user_x, *item_x, *category_of, *count;
    uint8_t *user_held, *item_held;
    struct strtab_builder category, user_id, item_id; // ids: "u<n>", "i<n>"
};

/* Users: uid, city (segment), age (numeric). Items: iid, class (category, segment), price (numeric), tags (multi-valued).
 * Users like items of the class that is their city's, 3 of 4 times; 8 training items each, one validation, one test item.
 * The last item's and the last user's id row is 0. */
void toy_init(struct toy *t, uint32_t n_users, uint32_t n_items, uint64_t seed);
void toy_fini(struct toy *t);

/* The first n_users users' and n_items items' training and validation rows become `held`, as `duet prepare --hold-out` does. */
void toy_hold_out(struct toy *t, uint32_t n_users, uint32_t n_items);

/* Interactions get times, ascending within a user. */
void toy_give_times(struct toy *t);

/* A copy of the toy's schema, and a model over it, weights drawn. */
struct model *toy_model(const struct toy *t, const struct recipe *r, uint64_t seed);

/* The recipe "plain" for towers of a few units, and "duet" with a_u in closed form. */
struct recipe toy_recipe(enum model_kind kind);
struct recipe toy_recipe_closed(void);
struct recipe toy_recipe_timed(void); // the same cut in time, window 2, weights learned

#endif
