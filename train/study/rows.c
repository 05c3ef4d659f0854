#include "train/study/rows.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/defaults.h"
#include "train/ease.h"
#include "train/study/parameters.h"

struct maker {
    struct study *s;
    const struct study_options *o;
    const struct dataset *d;
    struct err *err;
};

// ---------------------------------------------------------------------------------------------------------- grids

/* A point: the recipe's own values but for one, which is replaced, or multiplied so that it follows the recipe when that changes.
 * WIDTH is that of the last layer: factors, where there are no layers before it. */
enum change_type { TIMES, WHOLE, WIDTH };
struct change {
    enum model_kind kind;
    const char *name;
    enum change_type type;
    size_t at;    // in struct recipe; not of WIDTH
    double value; // factor, or what it becomes
};

#define FIELD(kind, type, field, value)                                                                                \
    {                                                                                                                  \
        kind, #field, type, offsetof(struct recipe, field), value                                                      \
    }

static const struct change grid[] = {
    FIELD(MODEL_DAT, TIMES, scale, 1.33),
    FIELD(MODEL_DAT, TIMES, item_dropout, 1.5),
    FIELD(MODEL_DAT, TIMES, lr, 0.5),
    FIELD(MODEL_TWO_TOWER, TIMES, scale, 1.33),
    FIELD(MODEL_TWO_TOWER, TIMES, item_dropout, 1.5),
    FIELD(MODEL_TWO_TOWER, TIMES, lr, 0.5),
    {MODEL_WALS, "factors", WIDTH, 0, 64},
    FIELD(MODEL_WALS, TIMES, w0, 0.4),
    FIELD(MODEL_WALS, TIMES, w0, 2),
    {MODEL_FM, "factors", WIDTH, 0, 128},
    FIELD(MODEL_FM, TIMES, weight_decay, 3),
    FIELD(MODEL_FM, TIMES, lr, 0.5),
    {MODEL_YOUTUBE_DNN, "width", WIDTH, 0, 128},
    FIELD(MODEL_YOUTUBE_DNN, TIMES, scale, 0.5),
    FIELD(MODEL_YOUTUBE_DNN, TIMES, lr, 0.5),
    {MODEL_MIND, "width", WIDTH, 0, 128},
    FIELD(MODEL_MIND, WHOLE, n_interest, 1),
    FIELD(MODEL_MIND, TIMES, lr, 0.5),
};

static const double lambdas[STUDY_GRID] = {500, 200, 1000, 2000};

static void apply(const struct change *c, struct study_point *p)
{
    struct recipe *r = &p->cell.recipe;
    char *at = (char *)r + c->at;
    double v = c->value;
    switch (c->type) {
    case TIMES:
        v *= *(double *)at;
        *(double *)at = v;
        break;
    case WHOLE:
        *(uint32_t *)at = (uint32_t)v;
        break;
    case WIDTH:
        r->width[r->n_layers - 1] = (uint32_t)v;
        break;
    }
    snprintf(p->what, sizeof(p->what), "%s %.3g", c->name, v);
}

/* What is left of the row's grid beside its first point. */
static void fill_grid(struct study_row *row, uint32_t n_points)
{
    row->n_points = 1;
    for (size_t i = 0; i < sizeof(grid) / sizeof(*grid) && row->n_points < n_points; i++) {
        if (grid[i].kind != row->point[0].cell.recipe.model)
            continue;
        row->point[row->n_points] = row->point[0];
        apply(&grid[i], &row->point[row->n_points++]);
    }
}

// ----------------------------------------------------------------------------------------------------------- rows

static struct study_row *new_row(struct maker *m, const char *name)
{
    struct study_row *row = &m->s->row[m->s->n_rows++];
    *row = (struct study_row){.n_points = 1};
    snprintf(row->name, sizeof(row->name), "%s", name);
    return row;
}

static void cap_epochs(const struct maker *m, struct recipe *r)
{
    if (m->o->epochs && r->epochs > m->o->epochs)
        r->epochs = m->o->epochs;
}

static struct study_row *trained(struct maker *m, const char *name, struct recipe r)
{
    struct study_row *row = new_row(m, name);
    cap_epochs(m, &r);
    row->point[0].cell = (struct cell){.kind = CELL_TRAINED, .recipe = r};
    return row;
}

static struct recipe named(const struct maker *m, const char *recipe, enum model_kind kind)
{
    struct recipe r = {0};
    defaults_of(recipe, kind, recipe_data_of(m->d), &r);
    return r;
}

/* a_u, a_v as second embeddings of the ids: rows of tables that the main loss alone moves. */
static struct recipe plain_aug(const struct maker *m)
{
    struct recipe r = named(m, m->o->recipe, MODEL_DAT);
    if (r.aug == AUG_CLOSED)
        recipe_duet(MODEL_DAT, AUG_TABLE, recipe_data_of(m->d), &r);
    r.amm = r.cal = false;
    return r;
}

/* Where interactions have times, a_u is made of what came before, the latest items first: here of the items alone, as where there are
 * none, so that what time tells is told apart from what the losses give. */
static void add_untimed(struct maker *m)
{
    struct recipe_data data = recipe_data_of(m->d);
    struct recipe r;
    if (!data.timed || strcmp(m->o->recipe, "duet") != 0)
        return;
    data.timed = false;
    recipe_named("duet", MODEL_DAT, data, &r);
    trained(m, "dat_untimed", r);
}

/* A two-tower that knows the user's history, the latest items first where there are times: a_u in closed form as an input past the layers, and
 * neither (2) nor (3). What is between it and dat is what the text adds. */
static void add_history(struct maker *m)
{
    struct recipe r = named(m, m->o->recipe, MODEL_DAT);
    if (r.aug != AUG_CLOSED)
        return;
    r.amm = r.cal = false;
    trained(m, "two_tower_history", r);
}

static bool equal_two_tower(const struct maker *m, struct recipe *out)
{
    struct recipe dat = named(m, m->o->recipe, MODEL_DAT), base = named(m, m->o->recipe, MODEL_TWO_TOWER);
    uint64_t want;
    return parameters_count(m->d->schema, &dat, &want, m->err) &&
           parameters_equal(m->d->schema, &base, want, out, m->err);
}

static void add_ease(struct maker *m)
{
    struct study_row *row = new_row(m, "ease");
    row->one_seed = true;
    for (row->n_points = 0; row->n_points < m->o->n_points; row->n_points++) {
        struct study_point *p = &row->point[row->n_points];
        p->cell = (struct cell){.kind = CELL_EASE, .lambda = lambdas[row->n_points]};
        snprintf(p->what, sizeof(p->what), "lambda %g", p->cell.lambda);
    }
    if (m->d->n_items > EASE_ITEMS_MAX)
        row->skipped = "EASE^R inverts a matrix of items x items: too many items";
}

static void add_popularity(struct maker *m)
{
    struct study_row *row = new_row(m, "popularity");
    row->one_seed = true;
    row->point[0].cell.kind = CELL_POPULARITY;
}

// -------------------------------------------------------------------------------------------------------- studies

static bool make_compare(struct maker *m)
{
    const char *recipe = m->o->recipe;
    struct recipe equal;
    if (!equal_two_tower(m, &equal))
        return false;
    trained(m, "dat", named(m, recipe, MODEL_DAT));
    trained(m, "two_tower", named(m, recipe, MODEL_TWO_TOWER));
    add_popularity(m);
    add_ease(m);
    trained(m, "wals", named(m, recipe, MODEL_WALS));
    trained(m, "fm", named(m, recipe, MODEL_FM));
    trained(m, "mind", named(m, recipe, MODEL_MIND));
    trained(m, "youtube_dnn", named(m, recipe, MODEL_YOUTUBE_DNN));
    trained(m, "dat_plain", plain_aug(m));
    trained(m, "two_tower_equal", equal);
    add_history(m);
    add_untimed(m);
    for (size_t i = 0; i < m->s->n_rows; i++)
        if (m->s->row[i].point[0].cell.kind == CELL_TRAINED)
            fill_grid(&m->s->row[i], m->o->n_points);
    m->s->about = "dat_plain: a_u and a_v as second embeddings of the ids, without mimic losses and alignment. two_tower_equal: a "
                  "two-tower whose embeddings are so wide that it has as many parameters as dat. two_tower_history: a two-tower "
                  "that is given the user's history as dat is, without mimic losses and alignment. dat_untimed (where there are times): a_u of "
                  "the history without its order, as dat is where there are none. popularity and ease (EASE^R) are "
                  "yardsticks, not models that are served.";
    return true;
}

static bool make_ablation(struct maker *m)
{
    struct recipe dat = named(m, m->o->recipe, MODEL_DAT), r = dat;
    trained(m, "dat", dat);
    r.cal = false;
    trained(m, "dat_no_cal", r);
    r.amm = false;
    trained(m, "dat_no_amm_no_cal", r);
    r = dat;
    r.amm = false;
    trained(m, "dat_no_amm", r);
    trained(m, "dat_plain", plain_aug(m));
    trained(m, "two_tower", named(m, m->o->recipe, MODEL_TWO_TOWER));
    add_untimed(m);
    m->s->about = dat.aug == AUG_CLOSED
                      ? "no_cal: without category alignment, equation (3). no_amm: without the mimic losses, equation (2); a_u is "
                        "still computed from the history, so only loss_v is left out. dat_plain: a_u and a_v as second embeddings of "
                        "the ids, moved by the main loss alone. two_tower: no a_u, a_v at all. dat_untimed (where there are times): a_u of the "
                        "history without its order."
                      : "no_cal: without category alignment, equation (3). no_amm: without the mimic losses, equation (2): a_u and a_v "
                        "are second embeddings of the ids; with no_cal that is dat_plain too. two_tower: no a_u, a_v at all.";
    return true;
}

static void set_dimension(struct recipe *r, uint32_t d)
{
    r->width[r->n_layers - 1] = d;
    if (r->skip && r->model != MODEL_DAT)
        r->k = d; // what goes past the layers
}

static bool make_dimension(struct maker *m)
{
    static const uint32_t dims[] = {8, 16, 32, 64, 128};
    static const enum model_kind kinds[] = {MODEL_DAT, MODEL_TWO_TOWER};
    for (size_t i = 0; i < 2 * sizeof(dims) / sizeof(*dims); i++) {
        enum model_kind kind = kinds[i % 2];
        struct recipe r = named(m, m->o->recipe, kind);
        char name[48];
        set_dimension(&r, dims[i / 2]);
        snprintf(name, sizeof(name), "%s_d%u", model_kind_name(kind), dims[i / 2]);
        struct study_row *row = trained(m, name, r);
        row->series = model_kind_name(kind);
        row->x = dims[i / 2];
    }
    m->s->x_label = "d, width of p_u, p_v and of the augmented vectors";
    m->s->about = "The last layer's width; two_tower: also of the embeddings, where the id's goes past the layers.";
    m->s->base = m->s->n_rows - 2;
    return true;
}

static void add_negatives(struct maker *m, enum model_kind kind, bool bce, uint32_t n)
{
    struct recipe r = named(m, bce ? "plain" : m->o->recipe, kind);
    char name[48];
    r.loss = bce ? LOSS_BCE : LOSS_SAMPLED;
    r.logq = !bce;
    r.negatives = n;
    snprintf(name, sizeof(name), "%s_%s_%u", model_kind_name(kind), bce ? "bce" : "sampled", n);
    struct study_row *row = trained(m, name, r);
    row->series = kind == MODEL_DAT ? (bce ? "dat, bce" : "dat, sampled") : (bce ? "two_tower, bce" : "two_tower, sampled");
    row->x = n;
}

static bool make_negatives(struct maker *m)
{
    static const uint32_t sampled[] = {16, 64, 256, 1024}, each[] = {1, 4, 16};
    for (size_t i = 0; i < sizeof(sampled) / sizeof(*sampled); i++)
        for (int tower = 0; tower < 2; tower++)
            add_negatives(m, tower ? MODEL_TWO_TOWER : MODEL_DAT, false, sampled[i]);
    for (size_t i = 0; i < sizeof(each) / sizeof(*each); i++)
        for (int tower = 0; tower < 2; tower++)
            add_negatives(m, tower ? MODEL_TWO_TOWER : MODEL_DAT, true, each[i]);
    m->s->x_label = "negatives: of the whole batch (sampled), of each positive (bce)";
    m->s->about = "sampled: softmax over the batch's items and S negatives that the batch shares. bce: the text's loss with S negatives "
                  "for each positive, towers of recipe plain (linear output, scaled logits).";
    return true;
}

static bool make_index(struct maker *m)
{
    static const enum model_kind kinds[] = {MODEL_DAT, MODEL_TWO_TOWER, MODEL_MIND};
    for (size_t i = 0; i < 3; i++)
        trained(m, model_kind_name(kinds[i]), named(m, m->o->recipe, kinds[i]))->point[0].cell.kind = CELL_INDEX;
    m->s->x_label = "ef, breadth of the search";
    m->s->y_label = "HR@100 through the graph / exact";
    m->s->about = "The table above is exact search.";
    return true;
}

static bool make_recipes(struct maker *m)
{
    static const char *const recipes[] = {"duet", "paper", "plain"};
    static const enum model_kind kinds[] = {MODEL_DAT, MODEL_TWO_TOWER};
    for (size_t i = 0; i < 6; i++) {
        char name[48];
        enum model_kind kind = kinds[i % 2];
        snprintf(name, sizeof(name), "%s_%s", model_kind_name(kind), recipes[i / 2]);
        trained(m, name, named(m, recipes[i / 2], kind));
    }
    m->s->about = "paper: the text to the letter. plain: a softmax instead of its loss and nothing else new. duet: what works on public "
                  "data (docs/model.md).";
    return true;
}

static const struct {
    const char *name, *title;
    enum study_figure figure;
    bool (*make)(struct maker *m);
} studies[] = {
    {"compare", "Six systems and two yardsticks", STUDY_ROWS, make_compare},
    {"ablation", "What DAT's parts give", STUDY_ROWS, make_ablation},
    {"dimension", "Width of the augmented vectors", STUDY_LINES, make_dimension},
    {"negatives", "Number of negatives", STUDY_LINES, make_negatives},
    {"index", "What the index costs", STUDY_INDEX, make_index},
    {"recipes", "The text to the letter, and what works", STUDY_ROWS, make_recipes},
};

// -------------------------------------------------------------------------------------------------------- choice

static bool listed(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == n && strncmp(p, name, n) == 0)
            return true;
    return false;
}

/* Every name of the list is a row; the others are dropped. */
static bool keep_listed(struct study *s, const char *list, struct err *err)
{
    size_t kept = 0, base = 0;
    for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',') {
        bool found = false;
        for (size_t i = 0; i < s->n_rows; i++)
            found |= strlen(s->row[i].name) == strcspn(p, ",") && strncmp(p, s->row[i].name, strcspn(p, ",")) == 0;
        if (!found)
            return err_set(err, ERR_ARG, "--systems: \"%.*s\" is no row of %s; --dry-run lists them", (int)strcspn(p, ","), p,
                           s->name);
    }
    for (size_t i = 0; i < s->n_rows; i++) {
        if (!listed(list, s->row[i].name))
            continue;
        base = i == s->base ? kept : base;
        s->row[kept++] = s->row[i];
    }
    s->n_rows = kept;
    s->base = base;
    return kept > 0 || err_set(err, ERR_ARG, "--systems: the list is empty");
}

bool study_make(struct study *s, const char *name, const struct study_options *o, const struct dataset *d, struct err *err)
{
    struct recipe any;
    *s = (struct study){.n_seeds = o->n_seeds};
    struct maker m = {s, o, d, err};
    if (!recipe_named(o->recipe, MODEL_DAT, recipe_data_of(d), &any))
        return err_set(err, ERR_ARG, "--recipe \"%s\", want duet, plain or paper", o->recipe);
    for (size_t i = 0; i < sizeof(studies) / sizeof(*studies); i++) {
        if (strcmp(name, studies[i].name) != 0)
            continue;
        snprintf(s->name, sizeof(s->name), "%s", name);
        snprintf(s->title, sizeof(s->title), "%s", studies[i].title);
        s->figure = studies[i].figure;
        s->y_label = "HR@100";
        return studies[i].make(&m) && (!o->systems || keep_listed(s, o->systems, err));
    }
    return err_set(err, ERR_ARG, "no study \"%s\", want " STUDY_NAMES, name);
}
