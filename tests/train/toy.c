#include "tests/train/toy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/step.h"

#define N_CLASSES 4
#define N_TRAIN 8

static struct schema_field *field(struct schema_side *s, const char *name, enum field_kind kind)
{
    struct schema_field *f = &s->field[s->n_fields++];
    snprintf(f->name, sizeof(f->name), "%s", name);
    f->kind = kind;
    return f;
}

static void vocab(struct schema_field *f, const char *prefix, int n)
{
    for (int i = 0; i < n; i++) {
        char word[16];
        int len = snprintf(word, sizeof(word), "%s%d", prefix, i);
        if (!strtab_add(&f->vocab, word, (size_t)len, NULL, NULL))
            abort();
    }
}

static void bounds(struct schema_field *f, uint32_t n)
{
    f->bounds = calloc(n, sizeof(*f->bounds));
    f->n_bounds = n;
    for (uint32_t i = 0; i < n; i++)
        f->bounds[i] = 10.0 * (i + 1);
}

static struct schema *make_schema(uint32_t n_users, uint32_t n_items)
{
    struct schema *s = calloc(1, sizeof(*s));
    struct err err = {0};
    s->user.field = calloc(3, sizeof(*s->user.field));
    s->item.field = calloc(4, sizeof(*s->item.field));
    field(&s->user, "uid", FIELD_ID)->n_rows = n_users + 1;
    vocab(field(&s->user, "city", FIELD_CATEGORICAL), "c", N_CLASSES);
    bounds(field(&s->user, "age", FIELD_NUMERIC), 3);
    field(&s->item, "iid", FIELD_ID)->n_rows = n_items + 1;
    struct schema_field *class = field(&s->item, "class", FIELD_CATEGORICAL);
    class->category = true;
    vocab(class, "k", N_CLASSES);
    bounds(field(&s->item, "price", FIELD_NUMERIC), 4);
    struct schema_field *tags = field(&s->item, "tags", FIELD_MULTI);
    tags->sep = '|';
    tags->n_slots = 3;
    vocab(tags, "t", 6);
    s->user.segment_field = s->item.segment_field = 1;
    if (!schema_seal(s, &err)) {
        fprintf(stderr, "toy schema: %s\n", err.msg);
        abort();
    }
    return s;
}

static struct strtab name_all(struct strtab_builder *b, char prefix, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        char id[16];
        int len = snprintf(id, sizeof(id), "%c%u", prefix, i);
        strtab_add(b, id, (size_t)len, NULL, NULL);
    }
    return strtab_view(b);
}

static void encode_users(struct toy *t)
{
    const struct schema_side *s = &t->d.schema->user;
    for (uint32_t u = 0; u < t->d.n_users; u++) {
        uint32_t *x = t->user_x + (size_t)u * s->n_slots;
        x[s->field[0].slot] = u + 1 < t->d.n_users ? u + 1 : 0;
        x[s->field[1].slot] = 1 + u % N_CLASSES;
        x[s->field[2].slot] = 1 + u % 4;
    }
}

static void encode_items(struct toy *t)
{
    const struct schema_side *s = &t->d.schema->item;
    for (uint32_t i = 0; i < t->d.n_items; i++) {
        uint32_t *x = t->item_x + (size_t)i * s->n_slots;
        x[s->field[0].slot] = i + 1 < t->d.n_items ? i + 1 : 0;
        t->category_of[i] = x[s->field[1].slot] = 1 + i % N_CLASSES;
        x[s->field[2].slot] = 1 + i % 5;
        for (uint32_t q = 0; q < 3; q++)
            x[s->field[3].slot + q] = q <= i % 3 ? 1 + (i + q) % 6 : SLOT_EMPTY;
    }
}

/* n items of each user, none twice in all splits. */
static void draw_split(struct toy *t, int split, uint32_t n, uint8_t *taken, struct rng *rng)
{
    const struct dataset *d = &t->d;
    t->off[split] = calloc(d->n_users + 1, sizeof(uint64_t));
    t->item[split] = calloc((size_t)d->n_users * n + 1, sizeof(uint32_t));
    for (uint32_t u = 0; u < d->n_users; u++) {
        uint32_t *to = t->item[split] + (size_t)u * n;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t v;
            do {
                v = rng_below(rng, d->n_items);
                if (rng_below(rng, 4))
                    v = v - v % N_CLASSES + u % N_CLASSES;
            } while (v >= d->n_items || taken[(size_t)u * d->n_items + v]);
            taken[(size_t)u * d->n_items + v] = 1;
            to[i] = v;
            t->count[v] += split == 0;
        }
        t->off[split][u + 1] = t->off[split][u] + n;
    }
}

static void draw_all(struct toy *t, uint64_t seed)
{
    struct rng rng;
    struct dataset *d = &t->d;
    uint8_t *taken = calloc(d->n_users, d->n_items);
    struct interactions *of[4] = {&d->train, &d->valid, &d->test, &d->held};
    const uint32_t n[4] = {N_TRAIN, 1, 1, 0};
    rng_init(&rng, seed);
    for (int k = 0; k < 4; k++) {
        draw_split(t, k, n[k], taken, &rng);
        *of[k] = (struct interactions){t->off[k], t->item[k], NULL};
    }
    free(taken);
}

void toy_init(struct toy *t, uint32_t n_users, uint32_t n_items, uint64_t seed)
{
    *t = (struct toy){0};
    struct dataset *d = &t->d;
    d->n_users = n_users;
    d->n_items = n_items;
    d->schema = make_schema(n_users, n_items);
    snprintf(d->hash, sizeof(d->hash), "%032x", (unsigned)seed);
    d->user_x = t->user_x = calloc((size_t)n_users * d->schema->user.n_slots, sizeof(uint32_t));
    d->item_x = t->item_x = calloc((size_t)n_items * d->schema->item.n_slots, sizeof(uint32_t));
    d->item_category = t->category_of = calloc(n_items, sizeof(uint32_t));
    d->item_count = t->count = calloc(n_items, sizeof(uint32_t));
    d->user_held_out = t->user_held = calloc(n_users, 1);
    d->item_held_out = t->item_held = calloc(n_items, 1);
    strtab_add(&t->category, "", 0, NULL, NULL);
    for (int i = 0; i < N_CLASSES; i++)
        strtab_add(&t->category, (char[]){'k', (char)('0' + i)}, 2, NULL, NULL);
    d->category = strtab_view(&t->category);
    d->user_id = name_all(&t->user_id, 'u', n_users);
    d->item_id = name_all(&t->item_id, 'i', n_items);
    encode_users(t);
    encode_items(t);
    draw_all(t, seed);
}

void toy_give_times(struct toy *t)
{
    struct dataset *d = &t->d;
    size_t n = (size_t)d->n_users * 16;
    t->time = calloc(n, sizeof(*t->time));
    for (size_t i = 0; i < n; i++)
        t->time[i] = 1000000000 + (int64_t)i;
    d->train.time = d->valid.time = d->test.time = d->held.time = t->time;
}

/* Moves what is withheld from one split to the end of `held`'s rows of the same user. */
static void withhold(struct toy *t, int split, uint64_t *held_n)
{
    uint64_t out = 0;
    for (uint32_t u = 0; u < t->d.n_users; u++) {
        uint64_t lo = t->off[split][u], hi = t->off[split][u + 1];
        t->off[split][u] = out;
        for (uint64_t q = lo; q < hi; q++) {
            uint32_t v = t->item[split][q];
            if (t->user_held[u] || t->item_held[v]) {
                t->item[3][u * 16 + held_n[u]++] = v;
                t->count[v] -= split == 0;
            } else {
                t->item[split][out++] = v;
            }
        }
    }
    t->off[split][t->d.n_users] = out;
}

void toy_hold_out(struct toy *t, uint32_t n_users, uint32_t n_items)
{
    uint64_t *held_n = calloc(t->d.n_users, sizeof(*held_n)), out = 0;
    free(t->item[3]);
    t->d.held.item = t->item[3] = calloc((size_t)t->d.n_users * 16, sizeof(uint32_t));
    for (uint32_t u = 0; u < n_users; u++)
        t->user_held[u] = 1;
    for (uint32_t i = 0; i < n_items; i++)
        t->item_held[i] = 1;
    withhold(t, 0, held_n);
    withhold(t, 1, held_n);
    for (uint32_t u = 0; u < t->d.n_users; u++) {
        memmove(t->item[3] + out, t->item[3] + (size_t)u * 16, held_n[u] * sizeof(uint32_t));
        t->off[3][u] = out;
        out += held_n[u];
    }
    t->off[3][t->d.n_users] = out;
    free(held_n);
}

void toy_fini(struct toy *t)
{
    free(t->time);
    for (int k = 0; k < 4; k++) {
        free(t->off[k]);
        free(t->item[k]);
    }
    free(t->user_x);
    free(t->item_x);
    free(t->category_of);
    free(t->count);
    free(t->user_held);
    free(t->item_held);
    strtab_builder_fini(&t->category);
    strtab_builder_fini(&t->user_id);
    strtab_builder_fini(&t->item_id);
    schema_free(t->d.schema);
}

struct model *toy_model(const struct toy *t, const struct recipe *r, uint64_t seed)
{
    struct err err = {0};
    struct rng rng;
    json_t *o = schema_to_json(t->d.schema, &err);
    struct tower_params p = recipe_tower(r);
    struct model *m = model_new(r->model, schema_from_json(o, &err), &p, &p, &err);
    json_decref(o);
    rng_init(&rng, seed);
    step_init_params(m, r, NULL, &rng);
    return m;
}

struct recipe toy_recipe(enum model_kind kind)
{
    struct recipe r;
    recipe_named("plain", kind, (struct recipe_data){5000, 100, 0, false}, &r);
    r.k = 4;
    r.n_layers = 3;
    r.width[0] = 12;
    r.width[1] = 8;
    r.width[2] = 6;
    r.batch = 8;
    r.cal_min_rows = 2;
    r.lr = 1e-2;
    r.epochs = 10;
    return r;
}

struct recipe toy_recipe_timed(void)
{
    struct recipe r = toy_recipe_closed();
    r.denoise = 0;
    r.window = 2;
    r.recency = true;
    return r;
}

struct recipe toy_recipe_closed(void)
{
    struct recipe r;
    recipe_duet(MODEL_DAT, AUG_CLOSED, (struct recipe_data){5000, 100, 0, false}, &r);
    r.k = 4;
    r.width[0] = 12;
    r.width[1] = 6;
    r.batch = 16;
    r.cal_min_rows = 2;
    r.ema = 0.9;
    r.ema_after = 2;
    r.epochs = 10;
    return r;
}
