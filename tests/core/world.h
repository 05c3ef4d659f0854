/* world.h - a small made-up world: users, items and a random model with every kind of field, in memory, as publishing takes it. */
#ifndef DUET_TESTS_CORE_WORLD_H
#define DUET_TESTS_CORE_WORLD_H

#include "core/base/rng.h"
#include "core/publish.h"

struct world_params {
    uint32_t n_users, n_items; // 0 = 40, 300
    uint32_t d;                // width of p; 0 = 16
    uint32_t d_aug;            // DAT only; 0 = d
    enum model_kind kind;
    bool plain_users;          // users have no feature but their id
    bool no_seen;
    bool no_rare;              // every id has a row of its own, so no two items embed alike
    uint64_t seed;
};

struct world {
    struct schema *schema;   // NULL once a model has taken it
    struct model *model;     // world_new only
    void (*free_model)(struct model *);
    struct publish_input in; // views of what follows
    struct strtab_builder user_id, item_id, category;
    struct strtab_builder attr_values[4];
    struct item_attr attr[4]; // title, class, price (a number for all but every 13th item), tags (multi-valued)
    uint32_t *user_x, *item_x, *item_category, *item_count, *seen;
    uint64_t *seen_off;
};

struct world_params world_defaults(const struct world_params *p);

/* The data without a model: in.model is NULL. */
struct world *world_data(const struct world_params *p);
struct world *world_new(const struct world_params *p); // with a model of random weights (world_model.c)
void world_free(struct world *w);

#endif
