#include "train/recipe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *loss_names[] = {[LOSS_BCE] = "bce", [LOSS_SOFTMAX] = "softmax", [LOSS_SAMPLED] = "sampled"};
static const char *aug_names[] = {[AUG_TABLE] = "table", [AUG_CLOSED] = "closed"};
static const char *batch_names[] = {[BATCH_PAIRS] = "pairs", [BATCH_USERS] = "users"};

// --------------------------------------------------------------------------------------------------- named recipes

/* The text to the letter; where it is silent, docs/model.md says what was taken. */
static const struct recipe paper = {
    .name = "paper",
    .loss = LOSS_BCE,
    .batching = BATCH_PAIRS,
    .batch = 256,
    .negatives = 4,
    .k = 32,
    .n_layers = 3,
    .width = {256, 128, 32},
    .relu_out = true,
    .scale = 1,
    .alpha = 1,
    .id_tables = true,
    .user_weight = 1,
    .amm = true,
    .cal = true,
    .lambda1 = 0.5,
    .lambda2 = 0.5,
    .lambda3 = 1,
    .cal_min_rows = 2,
    .lr = 1e-3,
    .lr_decay = 1,
    .init_std = 0.05,
    .epochs = 20,
    .patience = 5,
    .seed = 1,
    .threads = 1,
};

/* A softmax instead of the text's loss, and nothing else new; also what the baselines start from. */
static const struct recipe plain = {
    .name = "plain",
    .loss = LOSS_SOFTMAX,
    .batching = BATCH_USERS,
    .batch = 128,
    .negatives = 2000,
    .in_batch = true,
    .logq = true,
    .k = 32,
    .n_layers = 3,
    .width = {256, 128, 32},
    .scale = 10,
    .alpha = 1,
    .id_tables = true,
    .user_weight = 1,
    .amm = true,
    .cal = true,
    .lambda1 = 0.5,
    .lambda2 = 0.5,
    .lambda3 = 0.001,
    .cal_min_rows = 16,
    .cal_weighted = true,
    .lr = 3e-3,
    .lr_decay = 1,
    .init_std = 0.05,
    .oov_dropout = 0.05,
    .feature_dropout = 0.01,
    .epochs = 60,
    .patience = 10,
    .seed = 1,
    .threads = 1,
};

/* What works on public data; each value was chosen on validation (docs/results/tuning.md). For dat: a_u in closed form,
 * learned as a denoising task, the items' vectors being all that a user is made of. */
static const struct recipe duet = {
    .name = "duet",
    .loss = LOSS_SOFTMAX,
    .batching = BATCH_USERS,
    .batch = 256,
    .negatives = 2000,
    .in_batch = true,
    .logq = true,
    .k = 32,
    .n_layers = 2,
    .width = {128, 128},
    .scale = 12,
    .aug = AUG_CLOSED,
    .alpha = 0.5,
    .denoise = 0.35,
    .aug_grad = true,
    .skip = true,
    .spectral = true,
    .amm = true,
    .cal = true,
    .lambda2 = 0.1,
    .lambda3 = 0.01,
    .cal_min_rows = 16,
    .cal_weighted = true,
    .lr = 3e-3,
    .lr_decay = 1,
    .init_std = 0.05,
    .oov_dropout = 0.005,
    .feature_dropout = 0.005,
    .item_dropout = 0.2,
    .user_weight = 1,
    .ema = 0.99,
    .ema_after = 4,
    .epochs = 16,
    .patience = 5,
    .seed = 1,
    .threads = 1,
};

struct recipe_data recipe_data_of(const struct dataset *d)
{
    return (struct recipe_data){d->n_users, d->n_items, d->train.off[d->n_users], d->train.time != NULL};
}

static void look_at_size(struct recipe *r, struct recipe_data data)
{
    if (r->loss == LOSS_SOFTMAX && data.n_items > SOFTMAX_ITEMS_MAX)
        r->loss = LOSS_SAMPLED;
    if (r->batching != BATCH_USERS || data.n_users >= FEW_USERS)
        return;
    r->batch = 64;
    if (r->ema > 0)
        r->epochs = 30;
}

uint32_t recipe_window(struct recipe_data data)
{
    uint64_t w = data.n_pairs / ROWS_AN_EPOCH;
    return w < WINDOW_MIN ? WINDOW_MIN : w > WINDOW_MAX ? WINDOW_MAX : (uint32_t)w;
}

/* Where there is time, users are asked for what came next, and what came last says most. */
static void look_at_time(struct recipe *r, struct recipe_data data)
{
    r->window = recipe_window(data);
    r->denoise = 0;
    r->recency = true;
    r->batch = data.n_items > SMALL_CATALOGUE ? 256 : 64;
    r->epochs = 12;
}

void recipe_duet(enum model_kind model, enum aug_kind aug, struct recipe_data data, struct recipe *out)
{
    *out = duet;
    out->model = model;
    if (data.n_items > WIDE_ITEMS)
        out->width[out->n_layers - 1] = 256;
    if (model != MODEL_DAT ||
        aug == AUG_TABLE) { // a user's own vector is a row of a table: nothing is made of the history
        out->aug = AUG_TABLE;
        out->aug_grad = false;
        out->alpha = 1;
        out->denoise = 0;
        out->lambda1 = out->lambda2;
    }
    if (model != MODEL_DAT) { // ... and an item's too, as wide as dat's a_u and a_v
        out->id_tables = true;
        out->k = out->width[out->n_layers - 1];
    }
    look_at_size(out, data);
    if (out->aug == AUG_CLOSED && data.timed)
        look_at_time(out, data);
}

bool recipe_named(const char *name, enum model_kind model, struct recipe_data data, struct recipe *out)
{
    if (strcmp(name, "duet") == 0) {
        recipe_duet(model, AUG_CLOSED, data, out);
        return true;
    }
    if (strcmp(name, paper.name) != 0 && strcmp(name, plain.name) != 0)
        return false;
    *out = strcmp(name, paper.name) == 0 ? paper : plain;
    out->model = model;
    look_at_size(out, data);
    return true;
}

void recipe_fast(struct recipe *r)
{
    r->epochs = r->spectral ? 4 : 10;
    r->ema_after = 1;
    r->patience = 0;
}

struct tower_params recipe_tower(const struct recipe *r)
{
    struct tower_params p = {.k = r->k, .n_layers = r->n_layers, .relu_out = r->relu_out, .with_aug = true};
    memcpy(p.width, r->width, sizeof(p.width));
    p.d_aug = r->model == MODEL_DAT ? r->width[r->n_layers - 1] : 0;
    p.skip_aug = r->skip;
    return p;
}

// ---------------------------------------------------------------------------------------------------------- checks

static bool in_range(const char *name, double v, double min, double max, struct err *err)
{
    return (v >= min && v <= max) || err_set(err, ERR_ARG, "%s is %g, want %g to %g", name, v, min, max);
}

static bool check_shape(const struct recipe *r, struct err *err)
{
    if (!in_range("k", r->k, 1, 1024, err) || !in_range("number of layers", r->n_layers, 1, TOWER_LAYERS_MAX, err))
        return false;
    for (uint32_t l = 0; l < r->n_layers; l++)
        if (!in_range("width of a layer", r->width[l], 1, l + 1 < r->n_layers ? 8192 : 512, err))
            return false;
    return true;
}

/* Choices that exclude each other. */
static bool check_aug(const struct recipe *r, struct err *err)
{
    if (r->skip && r->model != MODEL_DAT && r->k != r->width[r->n_layers - 1])
        return err_set(err, ERR_ARG,
                       "skip: k is %u and the last width %u; without augmented vectors the id's embedding goes "
                       "past the layers, so they must be the same",
                       r->k, r->width[r->n_layers - 1]);
    if (r->spectral && !r->skip)
        return err_set(err, ERR_ARG, "spectral needs skip: what starts from singular vectors goes past the layers");
    if (r->skip && r->relu_out)
        return err_set(err, ERR_ARG, "skip and relu-out: a goes past the last layer, which must be linear then");
    if (r->window > 0 && r->denoise > 0)
        return err_set(err, ERR_ARG, "window is %u and denoise %g; want one of the two, the other 0", r->window,
                       r->denoise);
    if (r->aug == AUG_TABLE && r->recency)
        return err_set(err, ERR_ARG, "recency: a_u from a table has no history to weigh; use --aug closed");
    if (r->aug == AUG_TABLE)
        return r->denoise == 0 || err_set(err, ERR_ARG,
                                          "denoise is %g, but a_u from a table has no history to leave "
                                          "items out of; use --aug closed",
                                          r->denoise);
    if (r->model != MODEL_DAT)
        return err_set(err, ERR_ARG, "aug closed: only dat has an a_u");
    return (r->batching == BATCH_USERS && r->loss != LOSS_BCE) ||
           err_set(err, ERR_ARG,
                   "aug closed: needs whole users and a softmax loss; use --batching users and --loss "
                   "softmax or sampled, or --aug table");
}

static bool check_window(const struct recipe *r, struct err *err)
{
    return r->window == 0 || r->batching == BATCH_USERS ||
           err_set(err, ERR_ARG, "window is %u, but random pairs have no past to cut; use --batching users", r->window);
}

bool recipe_check(const struct recipe *r, struct err *err)
{
    if (r->batching == BATCH_PAIRS && r->loss == LOSS_SOFTMAX && r->batch > 65536)
        return err_set(err, ERR_ARG, "batch of %u pairs against the whole catalogue is too large, want at most 65536",
                       r->batch);
    return check_shape(r, err) && check_aug(r, err) && check_window(r, err) && in_range("batch", r->batch, 1, 1e6, err) &&
           in_range("negatives", r->negatives, r->loss == LOSS_SAMPLED && r->in_batch ? 0 : 1, 1e6, err) &&
           in_range("scale", r->scale, 1e-3, 1000, err) && in_range("lambda1", r->lambda1, 0, 1e6, err) &&
           in_range("lambda2", r->lambda2, 0, 1e6, err) && in_range("lambda3", r->lambda3, 0, 1e6, err) &&
           in_range("cal-min-rows", r->cal_min_rows, 2, 1e9, err) && in_range("lr", r->lr, 1e-9, 10, err) &&
           in_range("lr-decay", r->lr_decay, 1e-3, 1, err) && in_range("weight-decay", r->weight_decay, 0, 10, err) &&
           in_range("init-std", r->init_std, 0, 10, err) && in_range("oov-dropout", r->oov_dropout, 0, 0.9, err) &&
           in_range("feature-dropout", r->feature_dropout, 0, 0.9, err) && in_range("alpha", r->alpha, 0, 1, err) &&
           in_range("denoise", r->denoise, 0, 0.95, err) && in_range("window", r->window, 0, 1e6, err) &&
           in_range("item-dropout", r->item_dropout, 0, 0.9, err) &&
           in_range("user-weight", r->user_weight, 0, 1, err) && in_range("ema", r->ema, 0, 0.99999, err) &&
           in_range("ema-after", r->ema_after, 0, 1e6, err) && in_range("epochs", r->epochs, 1, 1e6, err) &&
           in_range("threads", r->threads, 1, 64, err) && in_range("w0", r->w0, 0, 1, err) &&
           in_range("reg", r->reg, 0, 1e6, err) && in_range("interests", r->n_interest, 0, STORED_INTERESTS_MAX, err) &&
           in_range("history", r->history, 0, 1e6, err);
}

bool aug_kind_parse(const char *name, enum aug_kind *out)
{
    for (size_t i = 0; i < sizeof(aug_names) / sizeof(*aug_names); i++)
        if (strcmp(name, aug_names[i]) == 0) {
            *out = (enum aug_kind)i;
            return true;
        }
    return false;
}

bool loss_kind_parse(const char *name, enum loss_kind *out)
{
    for (size_t i = 0; i < sizeof(loss_names) / sizeof(*loss_names); i++)
        if (strcmp(name, loss_names[i]) == 0) {
            *out = (enum loss_kind)i;
            return true;
        }
    return false;
}

const char *loss_kind_name(enum loss_kind k)
{
    return loss_names[k];
}

// ------------------------------------------------------------------------------------------------------------ JSON

/* One table for both directions: name, type and place of every number. */
enum entry_type { E_U32, E_U64, E_NUM, E_BOOL };
static const struct entry {
    const char *name;
    enum entry_type type;
    size_t at;
} entries[] = {
#define ENTRY(type, field)                                                                                             \
    {                                                                                                                  \
#field, type, offsetof(struct recipe, field)                                                                   \
    }
    ENTRY(E_U32, batch),
    ENTRY(E_U32, negatives),
    ENTRY(E_BOOL, in_batch),
    ENTRY(E_BOOL, logq),
    ENTRY(E_U32, k),
    ENTRY(E_BOOL, relu_out),
    ENTRY(E_NUM, scale),
    ENTRY(E_BOOL, learn_scale),
    ENTRY(E_NUM, alpha),
    ENTRY(E_NUM, denoise),
    ENTRY(E_U32, window),
    ENTRY(E_BOOL, recency),
    ENTRY(E_BOOL, aug_grad),
    ENTRY(E_BOOL, skip),
    ENTRY(E_BOOL, id_tables),
    ENTRY(E_BOOL, spectral),
    ENTRY(E_BOOL, amm),
    ENTRY(E_BOOL, cal),
    ENTRY(E_NUM, lambda1),
    ENTRY(E_NUM, lambda2),
    ENTRY(E_NUM, lambda3),
    ENTRY(E_U32, cal_min_rows),
    ENTRY(E_BOOL, cal_weighted),
    ENTRY(E_BOOL, cal_detach_major),
    ENTRY(E_BOOL, cal_positives),
    ENTRY(E_NUM, w0),
    ENTRY(E_NUM, reg),
    ENTRY(E_U32, n_interest),
    ENTRY(E_U32, history),
    ENTRY(E_NUM, lr),
    ENTRY(E_NUM, lr_decay),
    ENTRY(E_NUM, weight_decay),
    ENTRY(E_NUM, init_std),
    ENTRY(E_NUM, oov_dropout),
    ENTRY(E_NUM, feature_dropout),
    ENTRY(E_NUM, item_dropout),
    ENTRY(E_NUM, user_weight),
    ENTRY(E_NUM, ema),
    ENTRY(E_U32, ema_after),
    ENTRY(E_U32, epochs),
    ENTRY(E_U32, patience),
    ENTRY(E_U64, seed),
    ENTRY(E_U32, threads),
#undef ENTRY
};

json_t *recipe_to_json(const struct recipe *r)
{
    json_t *o = json_object(), *widths = json_array();
    json_object_set_new(o, "recipe", json_string(r->name));
    json_object_set_new(o, "model", json_string(model_kind_name(r->model)));
    json_object_set_new(o, "loss", json_string(loss_names[r->loss]));
    json_object_set_new(o, "batching", json_string(batch_names[r->batching]));
    json_object_set_new(o, "aug", json_string(aug_names[r->aug]));
    for (uint32_t l = 0; l < r->n_layers; l++)
        json_array_append_new(widths, json_integer(r->width[l]));
    json_object_set_new(o, "widths", widths);
    for (size_t i = 0; i < sizeof(entries) / sizeof(*entries); i++) {
        const char *p = (const char *)r + entries[i].at;
        json_t *v = NULL;
        switch (entries[i].type) {
        case E_U32:
            v = json_integer(*(const uint32_t *)p);
            break;
        case E_U64:
            v = json_integer((json_int_t) * (const uint64_t *)p);
            break;
        case E_NUM:
            v = json_real(*(const double *)p);
            break;
        case E_BOOL:
            v = json_boolean(*(const bool *)p);
            break;
        }
        json_object_set_new(o, entries[i].name, v);
    }
    return o;
}

static bool read_entry(const json_t *o, const struct entry *e, struct recipe *r, struct err *err)
{
    char *p = (char *)r + e->at;
    uint64_t u;
    switch (e->type) {
    case E_U32:
        if (!json_need_uint(o, e->name, UINT32_MAX, &u, err))
            return false;
        *(uint32_t *)p = (uint32_t)u;
        return true;
    case E_U64:
        return json_need_uint(o, e->name, INT64_MAX, (uint64_t *)p, err);
    case E_NUM:
        return json_need_num(o, e->name, (double *)p, err);
    case E_BOOL:
        return json_need_bool(o, e->name, (bool *)p, err);
    }
    return false;
}

static bool read_widths(const json_t *o, struct recipe *r, struct err *err)
{
    json_t *w = json_need_array(o, "widths", err);
    if (!w)
        return false;
    if (json_array_size(w) < 1 || json_array_size(w) > TOWER_LAYERS_MAX)
        return err_set(err, ERR_FORMAT, "widths: %zu layers, want 1 to %d", json_array_size(w), TOWER_LAYERS_MAX);
    r->n_layers = (uint32_t)json_array_size(w);
    for (uint32_t l = 0; l < r->n_layers; l++)
        r->width[l] =
            (uint32_t)json_integer_value(json_array_get(w, l)); // 0 if it is no integer: recipe_check refuses it
    return true;
}

bool recipe_from_json(const json_t *o, struct recipe *out, struct err *err)
{
    *out = (struct recipe){0};
    const char *name = json_need_str(o, "recipe", err), *model = json_need_str(o, "model", err);
    const char *loss = json_need_str(o, "loss", err), *batching = json_need_str(o, "batching", err);
    const char *aug = json_need_str(o, "aug", err);
    if (!name || !model || !loss || !batching || !aug || !read_widths(o, out, err))
        return false;
    snprintf(out->name, sizeof(out->name), "%s", name);
    if (!model_kind_parse(model, &out->model))
        return err_set(err, ERR_FORMAT, "model \"%s\", want " MODEL_KINDS, model);
    if (!loss_kind_parse(loss, &out->loss))
        return err_set(err, ERR_FORMAT, "loss \"%s\", want bce, softmax or sampled", loss);
    if (!aug_kind_parse(aug, &out->aug))
        return err_set(err, ERR_FORMAT, "aug \"%s\", want table or closed", aug);
    if (strcmp(batching, "pairs") != 0 && strcmp(batching, "users") != 0)
        return err_set(err, ERR_FORMAT, "batching \"%s\", want pairs or users", batching);
    out->batching = strcmp(batching, "users") == 0 ? BATCH_USERS : BATCH_PAIRS;
    for (size_t i = 0; i < sizeof(entries) / sizeof(*entries); i++)
        if (!read_entry(o, &entries[i], out, err))
            return false;
    return recipe_check(out, err);
}
