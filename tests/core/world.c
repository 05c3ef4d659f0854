#include "tests/core/world.h"

#include "core/base/mem.h"
#include "tests/core/support.h"

static const char schema_text[] =
    "{\"format\": \"duet-schema\", \"format_version\": 1,"
    " \"user\": {\"segment\": %s, \"fields\": [{\"name\": \"uid\", \"kind\": \"id\", \"rows\": %u}%s]},"
    " \"item\": {\"segment\": \"class\", \"fields\": [{\"name\": \"iid\", \"kind\": \"id\", \"rows\": %u},"
    "   {\"name\": \"title\", \"kind\": \"display\"},"
    "   {\"name\": \"class\", \"kind\": \"categorical\", \"category\": true, \"values\": [\"food\", \"hotel\", "
    "\"movie\"]},"
    "   {\"name\": \"price\", \"kind\": \"numeric\", \"bounds\": [10, 20, 50]},"
    "   {\"name\": \"tags\", \"kind\": \"multi\", \"sep\": \"|\", \"slots\": 3, \"values\": [\"a\", \"b\", \"c\", "
    "\"d\"]}]}}";
static const char user_fields[] =
    ", {\"name\": \"city\", \"kind\": \"categorical\", \"values\": [\"SH\", \"BJ\", \"\xe4\xb8\x8a\xe6\xb5\xb7\"]},"
    " {\"name\": \"age\", \"kind\": \"numeric\", \"bounds\": [18, 35, 60]},"
    " {\"name\": \"likes\", \"kind\": \"multi\", \"sep\": \",\", \"slots\": 2, \"values\": [\"tea\", \"rock\", "
    "\"cats\"]}";

static void must(bool ok, const struct err *e)
{
    if (!ok)
        fail_msg("world: %s", e->msg);
}

static struct schema *make_schema(const struct world_params *p)
{
    struct err e = {0};
    char text[4096];
    snprintf(text, sizeof(text), schema_text, p->plain_users ? "null" : "\"city\"", p->n_users + 1,
             p->plain_users ? "" : user_fields, p->n_items + 1);
    json_t *v = json_parse(text, strlen(text), &e);
    struct schema *s = v ? schema_from_json(v, &e) : NULL;
    must(s, &e);
    json_decref(v);
    return s;
}

/* A few values of each field, unknown and missing ones among them. */
static void encode(const struct schema_side *side, uint32_t idx, bool rare, struct rng *r, uint32_t *x)
{
    static const char *const values[] = {
        "SH", "BJ", "\xe4\xb8\x8a\xe6\xb5\xb7", "5", "19", "44", "tea,cats", "rock", "a|c", "b|d|a", "hotel", ""};
    schema_encode_unknown(side, x);
    for (uint32_t f = 0; f < side->n_fields; f++) {
        const char *v = values[rng_below(r, 12)];
        schema_encode_value(side, &side->field[f], v, strlen(v), x);
    }
    if (side->id_field >= 0 && !(rare && idx % 10 == 9)) // every tenth was too rare for a row of its own
        x[side->field[side->id_field].slot] = idx + 1;
}

static void make_users(struct world *w, const struct world_params *p, struct rng *r)
{
    struct err e = {0};
    char id[32];
    const struct schema_side *side = &w->schema->user;
    w->user_x = mem_array((size_t)p->n_users * side->n_slots, 4, &e);
    w->seen_off = mem_array((size_t)p->n_users + 1, 8, &e);
    w->seen = mem_array((size_t)p->n_users * p->n_items, 4, &e);
    uint64_t n = 0;
    for (uint32_t u = 0; u < p->n_users; u++) {
        must(strtab_add(&w->user_id, id, (size_t)snprintf(id, sizeof(id), "u%u", u), NULL, &e), &e);
        encode(side, u, !p->no_rare, r, w->user_x + (size_t)u * side->n_slots);
        for (uint32_t i = rng_below(r, 8), step = 1 + p->n_items / 12; i < p->n_items && u % 7 != 3;
             i += 1 + rng_below(r, step)) {
            w->seen[n++] = i;
            w->item_count[i]++;
        }
        w->seen_off[u + 1] = n;
    }
}

/* Prices run through 0 to 999.5 in an order that has nothing to do with anything else. */
static void add_price_and_tags(struct world *w, uint32_t i)
{
    static const char *const tags[] = {"", "a", "a|b", "c | a| c", "b|d"};
    struct err e = {0};
    char text[32];
    int n = i % 13 ? snprintf(text, sizeof(text), "%g", (double)(i * 7919 % 2000) / 2) : 0;
    must(strtab_add(&w->attr_values[2], text, (size_t)n, NULL, &e), &e);
    must(strtab_add(&w->attr_values[3], tags[i % 5], strlen(tags[i % 5]), NULL, &e), &e);
}

static void make_items(struct world *w, const struct world_params *p, struct rng *r)
{
    static const char *const names[] = {"", "food", "hotel", "movie"};
    struct err e = {0};
    char text[64];
    const struct schema_side *side = &w->schema->item;
    w->item_x = mem_array((size_t)p->n_items * side->n_slots, 4, &e);
    w->item_category = mem_array(p->n_items, 4, &e);
    w->item_count = mem_array(p->n_items, 4, &e);
    for (size_t c = 0; c < 4; c++)
        must(strtab_add(&w->category, names[c], strlen(names[c]), NULL, &e), &e);
    const struct schema_field *class = schema_category(side);
    for (uint32_t i = 0; i < p->n_items; i++) {
        uint32_t *x = w->item_x + (size_t)i * side->n_slots, c = rng_below(r, 10);
        must(strtab_add(&w->item_id, text, (size_t)snprintf(text, sizeof(text), "i%u", i), NULL, &e), &e);
        c = c < 6 ? 1 : c < 8 ? 2 : c < 9 ? 3 : 0; // uneven, as real ones are
        encode(side, i, !p->no_rare, r, x);
        schema_encode_value(side, class, names[c], strlen(names[c]), x);
        w->item_category[i] = c;
        int n = i % 5 ? snprintf(text, sizeof(text), "Title \"%u\" \xc3\xa9", i) : 0;
        must(strtab_add(&w->attr_values[0], text, (size_t)n, NULL, &e), &e);
        must(strtab_add(&w->attr_values[1], names[c], strlen(names[c]), NULL, &e), &e);
        add_price_and_tags(w, i);
    }
}

static void make_views(struct world *w, const struct world_params *p)
{
    static const char *const names[] = {"title", "class", "price", "tags"};
    for (size_t a = 0; a < 4; a++) {
        snprintf(w->attr[a].name, sizeof(w->attr[a].name), "%s", names[a]);
        w->attr[a].values = strtab_view(&w->attr_values[a]);
    }
    w->in = (struct publish_input){.n_users = p->n_users,
                                   .n_items = p->n_items,
                                   .user_id = strtab_view(&w->user_id),
                                   .item_id = strtab_view(&w->item_id),
                                   .user_x = w->user_x,
                                   .item_x = w->item_x,
                                   .attr = w->attr,
                                   .n_attrs = 4,
                                   .category = strtab_view(&w->category),
                                   .item_category = w->item_category,
                                   .item_count = w->item_count,
                                   .seen_off = p->no_seen ? NULL : w->seen_off,
                                   .seen = p->no_seen ? NULL : w->seen};
}

struct world_params world_defaults(const struct world_params *p)
{
    struct world_params q = *p;
    q.n_items = q.n_items ? q.n_items : 300;
    q.n_users = q.n_users ? q.n_users : 40;
    q.d = q.d ? q.d : 16;
    q.d_aug = q.kind == MODEL_TWO_TOWER ? 0 : q.d_aug ? q.d_aug : q.d;
    return q;
}

struct world *world_data(const struct world_params *p)
{
    struct world_params q = world_defaults(p);
    struct world *w = calloc(1, sizeof(*w));
    struct rng r;
    rng_init(&r, q.seed);
    w->schema = make_schema(&q);
    make_items(w, &q, &r);
    make_users(w, &q, &r);
    make_views(w, &q);
    return w;
}

void world_free(struct world *w)
{
    if (!w)
        return;
    schema_free(w->schema);
    if (w->model)
        w->free_model(w->model);
    strtab_builder_fini(&w->user_id);
    strtab_builder_fini(&w->item_id);
    strtab_builder_fini(&w->category);
    for (size_t a = 0; a < 4; a++)
        strtab_builder_fini(&w->attr_values[a]);
    free(w->user_x);
    free(w->item_x);
    free(w->item_category);
    free(w->item_count);
    free(w->seen_off);
    free(w->seen);
    free(w);
}
