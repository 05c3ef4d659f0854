/* If this fails, users get wrong, repeated, filtered-out or too few candidates. */
#include "tests/core/support.h"

#include <math.h>
#include <pthread.h>
#include <time.h>

#include "core/retrieve.h"
#include "tests/core/world.h"

struct fixture {
    char *dir;
    struct world *w;
    struct bundle *b;
    struct retrieve_ws *ws;
};

static enum hnsw_layout layout; // of the bundles that are opened

static struct fixture open_world(const struct world_params *p)
{
    struct err e = {0};
    struct fixture f = {0};
    void *state = NULL;
    char dir[PATH_MAX];
    uint64_t version;
    assert_int_equal(tmp_setup(&state), 0);
    f.dir = state;
    f.w = world_new(p);
    struct publish_params q = {.repository = f.dir, .name = "m", .threads = 1};
    assert_ok(bundle_publish(&f.w->in, &q, &version, dir, &e), &e);
    assert_ok((f.b = bundle_load(dir, &(struct bundle_load_params){.layout = layout}, &e)), &e);
    assert_ok((f.ws = retrieve_ws_new(f.b, &e)), &e);
    return f;
}

static void close_world(struct fixture *f)
{
    retrieve_ws_free(f->ws);
    bundle_free(f->b);
    world_free(f->w);
    void *state = f->dir;
    tmp_teardown(&state);
}

static struct str text(const char *s)
{
    return (struct str){s, strlen(s)};
}

static struct retrieve_feature feature(const char *name, const char *value)
{
    return (struct retrieve_feature){text(name), text(value)};
}

// ---------------------------------------------------------------------------------------------------- brute force

static bool in_list(const uint32_t *list, size_t n, uint32_t v)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == v)
            return true;
    return false;
}

static bool eligible(const struct bundle *b, const struct retrieve_query *q, uint32_t item)
{
    if (in_list(q->exclude, q->n_exclude, item) || (q->has_include && !in_list(q->include, q->n_include, item)) ||
        (q->n_category && !in_list(q->category, q->n_category, b->items->category_of[item])))
        return false;
    uint32_t u = q->exclude_seen && q->user_id.p ? users_find(b->users, q->user_id.p, q->user_id.n) : STRTAB_NONE;
    return u == STRTAB_NONE || !b->users->seen_off ||
           !in_list(b->users->seen + b->users->seen_off[u], (size_t)(b->users->seen_off[u + 1] - b->users->seen_off[u]),
                    item);
}

static double dot(const float *a, const float *b, uint32_t d)
{
    double s = 0;
    for (uint32_t i = 0; i < d; i++)
        s += (double)a[i] * (double)b[i];
    return s;
}

static int descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x > y ? -1 : x < y;
}

/* Whatever the query: distinct, eligible, sorted, with their true scores, as many as there can be; if exact, the best
 * ones. */
static void check_answer(struct fixture *f, const struct retrieve_query *q, const char *what)
{
    struct err e = {0};
    const struct bundle *b = f->b;
    static struct retrieve_hit hit[10000];
    static double score[10000];
    float p[64], a[64];
    struct retrieve_result r, embedded;
    assert_ok(retrieve_topk(b, q, f->ws, hit, &r, &e), &e);
    assert_ok(retrieve_embed(b, q, f->ws, p, a, &embedded, &e), &e);
    assert_int_equal(r.fallback, embedded.fallback);
    bool popular = r.fallback == FALLBACK_POPULAR;
    size_t n = 0;
    for (uint32_t i = 0; i < b->items->n; i++) {
        double s = popular ? (double)b->items->popularity[i] / (double)b->items->popularity_sum
                           : dot(p, b->emb + (size_t)i * b->manifest.d, b->manifest.d);
        if (eligible(b, q, i) && (popular || !q->has_min_score || s >= (double)q->min_score))
            score[n++] = s;
    }
    qsort(score, n, sizeof(*score), descending);
    if (r.n != (q->k < n ? q->k : n))
        fail_msg("%s: %zu hits, want min(%zu, %zu)", what, r.n, q->k, n);
    bool *taken = calloc(b->items->n, 1);
    for (size_t i = 0; i < r.n; i++) {
        uint32_t item = hit[i].item_idx;
        double want = popular ? (double)b->items->popularity[item] / (double)b->items->popularity_sum
                              : dot(p, b->emb + (size_t)item * b->manifest.d, b->manifest.d);
        if (taken[item] || !eligible(b, q, item) || fabs(want - (double)hit[i].score) > 1e-5 ||
            (i > 0 &&
             (hit[i].score > hit[i - 1].score || (hit[i].score == hit[i - 1].score && item < hit[i - 1].item_idx))) ||
            ((r.exact_used || popular) && fabs(want - score[i]) > 1e-5))
            fail_msg("%s: hit %zu is item %u, score %.8g (true %.8g, %zu-th best %.8g)", what, i, item,
                     (double)hit[i].score, want, i, score[i]);
        taken[item] = true;
    }
    free(taken);
    assert_true(r.ef_used == 0 || (r.ef_used >= r.n && !r.exact_used));
}

// ------------------------------------------------------------------------------------------------------ properties

struct any_query {
    struct retrieve_query q;
    char what[128], user[32];
    uint32_t exclude[64], include[64], history[8], category[6];
    struct retrieve_feature feature[3];
    float vector[64];
};

static void random_query(struct rng *r, const struct bundle *b, bool plain, struct any_query *a)
{
    static const char *const names[] = {"city", "age", "likes"}, *const values[] = {"SH", "44", "tea,cats", "nowhere"};
    struct retrieve_query *q = &a->q;
    *q = (struct retrieve_query){.k = 1 + rng_below(r, rng_below(r, 4) ? 40 : 1000),
                                 .exact = rng_below(r, 4) == 0,
                                 .exclude_seen = rng_below(r, 2),
                                 .ef = rng_below(r, 3) ? 0 : 1 + rng_below(r, 50)};
    int n = snprintf(a->user, sizeof(a->user), "%s%u", rng_below(r, 3) ? "u" : "stranger", rng_below(r, 40));
    if (rng_below(r, 8))
        q->user_id = (struct str){a->user, (size_t)n};
    q->feature = a->feature;
    q->n_features = plain ? 0 : rng_below(r, 4);
    for (size_t i = 0; i < q->n_features; i++)
        a->feature[i] = feature(names[rng_below(r, 3)], values[rng_below(r, 4)]);
    q->history = a->history;
    q->n_history = rng_below(r, 3) ? 0 : rng_below(r, 8);
    for (size_t i = 0; i < q->n_history; i++)
        a->history[i] = rng_below(r, b->items->n);
    q->exclude = a->exclude;
    q->n_exclude = rng_below(r, 2) ? 0 : rng_below(r, 64);
    for (size_t i = 0; i < q->n_exclude; i++)
        a->exclude[i] = rng_below(r, b->items->n);
    q->include = a->include;
    q->has_include = rng_below(r, 6) == 0;
    q->n_include = q->has_include ? rng_below(r, 64) : 0;
    for (size_t i = 0; i < q->n_include; i++)
        a->include[i] = rng_below(r, b->items->n);
    q->category = a->category;
    q->n_category = rng_below(r, 2) ? 0 : rng_below(r, 6);
    for (size_t i = 0; i < q->n_category; i++) // repeated ones are fine
        a->category[i] = rng_below(r, b->items->category.n);
    if (rng_below(r, 4) == 0) {
        q->has_min_score = true;
        q->min_score = (float)rng_unit(r) - 0.3f;
    }
    if (rng_below(r, 8) == 0) {
        q->vector = a->vector;
        for (size_t i = 0; i < 64; i++)
            a->vector[i] = (float)rng_normal(r);
    }
    snprintf(a->what, sizeof(a->what),
             "user %s, %zu features, %zu history, %zu excluded, %zu included, %zu categories, k %zu, ef %zu%s%s",
             a->user, q->n_features, q->n_history, q->n_exclude, q->n_include, q->n_category, q->k, q->ef,
             q->exact ? ", exact" : "", q->vector ? ", vector" : "");
}

static void any_query_is_answered_rightly(void **state)
{
    (void)state;
    struct rng r;
    struct any_query a;
    rng_init(&r, 1);
    for (unsigned i = 0; i < 6; i++) {
        struct world_params p = {.kind = i & 1 ? MODEL_DAT : MODEL_TWO_TOWER,
                                 .plain_users = i >= 4,
                                 .no_seen = i == 2,
                                 .seed = i,
                                 .n_items = i == 3 ? 7 : 400};
        layout = (enum hnsw_layout)(i % BUNDLE_LAYOUTS);
        struct fixture f = open_world(&p);
        for (int j = 0; j < 400; j++) {
            random_query(&r, f.b, p.plain_users, &a);
            check_answer(&f, &a.q, a.what);
        }
        close_world(&f);
    }
    layout = HNSW_PLAIN;
}

/* A wide category is walked with a filter and a narrow one is scanned: both must be right. */
static void wide_and_narrow_categories(void **state)
{
    (void)state;
    struct fixture f = open_world(&(struct world_params){.kind = MODEL_DAT, .n_items = 9000, .n_users = 10, .seed = 3});
    struct retrieve_hit hit[50];
    struct retrieve_result r;
    struct err e = {0};
    static const uint32_t food = 1, movie = 3;
    struct retrieve_query q = {.user_id = text("u3"), .k = 10, .ef = 10, .category = &food, .n_category = 1};
    assert_ok(retrieve_topk(f.b, &q, f.ws, hit, &r, &e), &e);
    assert_false(r.exact_used);
    assert_int_equal(r.ef_used, 10);
    check_answer(&f, &q, "wide");
    q.category = &movie;
    assert_ok(retrieve_topk(f.b, &q, f.ws, hit, &r, &e), &e);
    assert_true(r.exact_used);
    check_answer(&f, &q, "narrow");
    size_t want;
    q = (struct retrieve_query){.user_id = text("u3"), .k = 10};
    assert_int_equal(calibration_ef(&f.b->manifest.calibration, HNSW_PLAIN, 10, 0.99, &want), CALIBRATION_EF);
    assert_ok(retrieve_topk(f.b, &q, f.ws, hit, &r, &e), &e);
    assert_int_equal(r.ef_used, want);
    close_world(&f);
}

// --------------------------------------------------------------------------------------------------------- ladder

static void assert_close(const float *a, const float *b, uint32_t d, const char *what)
{
    for (uint32_t i = 0; i < d; i++)
        if (fabsf(a[i] - b[i]) > 1e-5f)
            fail_msg("%s: component %u is %.8g, want %.8g", what, i, (double)a[i], (double)b[i]);
}

struct embedding {
    float p[64], a[64];
    struct retrieve_result r;
};

static struct embedding embed(struct fixture *f, const struct retrieve_query *q)
{
    struct err e = {0};
    struct embedding out;
    assert_ok(retrieve_embed(f->b, q, f->ws, out.p, out.a, &out.r, &e), &e);
    return out;
}

/* What the tower itself says for an encoded user. */
static struct embedding direct(struct fixture *f, const uint32_t *x, const float *a)
{
    struct err e = {0};
    struct embedding out = {0};
    struct tower_ws *ws = tower_ws_new(&f->w->model->user, 1, &e);
    if (a)
        memcpy(out.a, a, f->w->model->user.shape.d_aug * sizeof(float));
    tower_forward(&f->w->model->user, x, a, 1, ws, out.p);
    tower_ws_free(ws);
    return out;
}

static void stored_users_are_served_as_trained(void **state)
{
    (void)state;
    for (int kind = MODEL_TWO_TOWER; kind <= MODEL_DAT; kind++) {
        struct fixture f = open_world(&(struct world_params){.kind = (enum model_kind)kind, .seed = 5});
        const struct schema_side *side = &f.w->model->schema->user;
        for (uint32_t u = 0; u < 40; u++) {
            char id[8];
            snprintf(id, sizeof(id), "u%u", u);
            struct embedding e = embed(&f, &(struct retrieve_query){.user_id = text(id), .k = 1});
            const uint32_t *x = f.w->in.user_x + (size_t)u * side->n_slots;
            const float *a = kind == MODEL_DAT ? tower_aug_of(&f.w->model->user, side, x) : NULL;
            struct embedding want = direct(&f, x, a);
            assert_int_equal(e.r.fallback, FALLBACK_NONE);
            assert_close(e.p, want.p, 16, "p_u");
            assert_close(e.a, want.a, kind == MODEL_DAT ? 16 : 0, "a_u");
        }
        close_world(&f);
    }
}

/* Given features replace stored ones; id row and a_u stay the user's own. */
static void features_override_stored_ones(void **state)
{
    (void)state;
    struct fixture f = open_world(&(struct world_params){.kind = MODEL_DAT, .seed = 6});
    const struct schema_side *side = &f.w->model->schema->user;
    struct retrieve_feature given[] = {feature("city", "BJ"), feature("likes", "rock,tea")};
    struct embedding e =
        embed(&f, &(struct retrieve_query){.user_id = text("u4"), .feature = given, .n_features = 2, .k = 1});
    uint32_t x[16];
    memcpy(x, f.w->in.user_x + 4 * side->n_slots, side->n_slots * sizeof(*x));
    const float *a = tower_aug_of(&f.w->model->user, side, x);
    schema_encode_value(side, schema_find(side, "city", 4), "BJ", 2, x);
    schema_encode_value(side, schema_find(side, "likes", 5), "rock,tea", 8, x);
    struct embedding want = direct(&f, x, a);
    assert_int_equal(e.r.fallback, FALLBACK_NONE);
    assert_int_equal(x[side->field[side->id_field].slot], 5);
    assert_close(e.p, want.p, 16, "p_u");
    assert_close(e.a, want.a, 16, "a_u");
    close_world(&f);
}

static void unknown_users_climb_the_ladder(void **state)
{
    (void)state;
    struct fixture f = open_world(&(struct world_params){.kind = MODEL_DAT, .seed = 7});
    const struct schema_side *side = &f.w->model->schema->user;
    const struct tower *t = &f.w->model->user;
    uint32_t x[16], history[] = {3, 5, 5};
    struct retrieve_feature given[] = {feature("city", "BJ"), feature("city", "Atlantis"), feature("age", "20")};
    struct retrieve_query q = {.user_id = text("nobody"), .feature = given, .n_features = 1, .k = 5};
    struct embedding e = embed(&f, &q);
    schema_encode_unknown(side, x);
    schema_encode_value(side, schema_find(side, "city", 4), "BJ", 2, x);
    struct embedding want = direct(&f, x, t->aug_segment + schema_segment(side, x) * t->shape.d_aug);
    assert_int_equal(e.r.fallback, FALLBACK_FEATURES);
    assert_string_equal(retrieve_fallback_name(e.r.fallback), "features");
    assert_int_equal(e.r.n_unknown, 0);
    assert_close(e.p, want.p, 16, "features: p_u");
    assert_close(e.a, want.a, 16, "features: a_u");
    q.n_features = 3; // the later of two values counts; an unknown one is reported
    e = embed(&f, &q);
    assert_int_equal(e.r.n_unknown, 1);
    assert_int_equal(e.r.unknown_feature[0], 1);

    float mean[16];
    for (uint32_t j = 0; j < 16; j++)
        mean[j] = (f.b->emb[3 * 16 + j] + 2 * f.b->emb[5 * 16 + j]) / 3;
    q.n_features = 1;
    q.history = history;
    q.n_history = 3;
    e = embed(&f, &q);
    want = direct(&f, x, mean);
    assert_int_equal(e.r.fallback, FALLBACK_HISTORY);
    assert_string_equal(retrieve_fallback_name(e.r.fallback), "history");
    assert_close(e.a, mean, 16, "history: a_u");
    assert_close(e.p, want.p, 16, "history: p_u");

    f.b->model->history.alpha = 0.5f; // longer histories count for more
    for (uint32_t j = 0; j < 16; j++)
        mean[j] *= 3 / sqrtf(3);
    e = embed(&f, &q);
    want = direct(&f, x, mean);
    assert_close(e.a, mean, 16, "history, alpha 1/2: a_u");
    assert_close(e.p, want.p, 16, "history, alpha 1/2: p_u");

    f.b->model->history.weight[0] = 4; // the newest, the last of the three
    f.b->model->history.weight[1] = 2;
    float sum[16];
    history_sum(&f.b->model->history, f.b->emb, history, 3, 16, sum);
    e = embed(&f, &q);
    want = direct(&f, x, sum);
    assert_close(e.a, sum, 16, "history by time: a_u");
    assert_close(e.p, want.p, 16, "history by time: p_u");

    q = (struct retrieve_query){.user_id = text("nobody"), .k = 5};
    e = embed(&f, &q);
    assert_int_equal(e.r.fallback, FALLBACK_POPULAR);
    assert_string_equal(retrieve_fallback_name(e.r.fallback), "popular");
    for (uint32_t j = 0; j < 16; j++)
        assert_true(e.p[j] == 0 && e.a[j] == 0);
    struct retrieve_hit hit[5];
    struct err err = {0};
    q.has_min_score = true; // bounds inner products: an unknown user is answered all the same
    q.min_score = 0.9f;
    assert_ok(retrieve_topk(f.b, &q, f.ws, hit, &e.r, &err), &err);
    assert_int_equal(e.r.n, 5);
    assert_int_equal(hit[0].item_idx, f.b->items->by_popularity[0]);
    assert_null(retrieve_fallback_name(FALLBACK_NONE));
    q = (struct retrieve_query){.k = 5};
    assert_int_equal(embed(&f, &q).r.fallback, FALLBACK_POPULAR);
    close_world(&f);
}

/* A model without a_u has no place for a history: the mean itself is the query. */
static void history_without_a_u(void **state)
{
    (void)state;
    struct fixture f = open_world(&(struct world_params){.kind = MODEL_TWO_TOWER, .seed = 8});
    uint32_t history[] = {9};
    struct embedding e = embed(&f, &(struct retrieve_query){.history = history, .n_history = 1, .k = 1});
    assert_int_equal(e.r.fallback, FALLBACK_HISTORY);
    assert_close(e.p, f.b->emb + 9 * 16, 16, "p_u");
    e = embed(&f, &(struct retrieve_query){.user_id = text("u1"), .history = history, .n_history = 1, .k = 1});
    assert_int_equal(e.r.fallback, FALLBACK_NONE); // stored users have their own
    close_world(&f);
}

static void impossible_queries_are_refused(void **state)
{
    (void)state;
    struct fixture f = open_world(&(struct world_params){.kind = MODEL_DAT, .seed = 9});
    struct err e = {0};
    struct retrieve_hit hit[8];
    struct retrieve_result r;
    struct retrieve_feature odd = feature("ctiy", "SH"), id = feature("uid", "u1");
    static const uint32_t far = 300, cat = 4;
    float vector[16] = {[3] = NAN};
    const struct {
        struct retrieve_query q;
        const char *want;
    } bad[] = {{{.k = 0}, "k: found 0"},
               {{.k = 10001}, "k: found 10001, want 1 to 10000"},
               {{.k = 1, .feature = &odd, .n_features = 1}, "feature \"ctiy\": users have none of that name"},
               {{.k = 1, .feature = &id, .n_features = 1}, "feature \"uid\": the user's id"},
               {{.k = 1, .exclude = &far, .n_exclude = 1}, "exclude: item 300, there are 300"},
               {{.k = 1, .history = &far, .n_history = 1}, "history: item 300"},
               {{.k = 1, .category = &cat, .n_category = 1}, "category: row 4, there are 4"},
               {{.k = 1, .has_min_score = true, .min_score = NAN}, "min_score"},
               {{.k = 1, .vector = vector}, "component 3 is not finite"}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_err(retrieve_topk(f.b, &bad[i].q, f.ws, hit, &r, &e), &e, ERR_ARG, bad[i].want);
    struct retrieve_query good = {.user_id = text("u1"), .k = 8};
    check_answer(&f, &good, "after refusals");
    close_world(&f);
}

// ------------------------------------------------------------------------------------------------ memory and threads

static void allocates_nothing_once_warm(void **state)
{
    (void)state;
    struct fixture f = open_world(&(struct world_params){.kind = MODEL_DAT, .seed = 10, .n_items = 2000});
    static struct retrieve_hit hit[2000];
    struct retrieve_result r;
    struct err e = {0};
    struct rng rng;
    struct any_query a;
    rng_init(&rng, 3);
    struct retrieve_query most = {.user_id = text("u1"), .k = 2000, .ef = 2000, .exclude_seen = true};
    assert_ok(retrieve_topk(f.b, &most, f.ws, hit, &r, &e), &e);
    most.exact = true;
    assert_ok(retrieve_topk(f.b, &most, f.ws, hit, &r, &e), &e);
    for (int i = 0; i < 500; i++) {
        random_query(&rng, f.b, false, &a);
        alloc_fail_at(1);
        assert_ok(retrieve_topk(f.b, &a.q, f.ws, hit, &r, &e), &e);
        if (alloc_failed())
            fail_msg("%s: allocated", a.what);
        alloc_fail_at(0);
    }
    close_world(&f);
}

static void lack_of_memory_is_an_error(void **state)
{
    (void)state;
    struct fixture f = open_world(&(struct world_params){.kind = MODEL_DAT, .seed = 11});
    for (size_t n = 1;; n++) {
        struct err e = {0};
        struct retrieve_hit hit[50];
        struct retrieve_result r;
        struct retrieve_query q = {.user_id = text("u1"), .k = 50};
        alloc_fail_at(n);
        struct retrieve_ws *ws = retrieve_ws_new(f.b, &e);
        bool ok = ws && retrieve_topk(f.b, &q, ws, hit, &r, &e);
        alloc_fail_at(0);
        retrieve_ws_free(ws);
        assert_int_equal(e.code, ok ? ERR_OK : ERR_NOMEM);
        if (ok)
            break;
    }
    close_world(&f);
}

struct worker {
    const struct bundle *b;
    const struct retrieve_hit *want; // [40][20]
    bool right;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    struct err e = {0};
    struct retrieve_ws *ws = retrieve_ws_new(w->b, &e);
    w->right = ws != NULL;
    for (int round = 0; w->right && round < 20; round++)
        for (uint32_t u = 0; w->right && u < 40; u++) {
            char id[16];
            struct retrieve_hit hit[20];
            struct retrieve_result r;
            struct retrieve_query q = {
                .user_id = {id, (size_t)snprintf(id, sizeof(id), "u%u", u)}, .k = 20, .exclude_seen = true};
            w->right = retrieve_topk(w->b, &q, ws, hit, &r, &e) && memcmp(hit, w->want + u * 20, sizeof(hit)) == 0;
        }
    retrieve_ws_free(ws);
    return NULL;
}

static void threads_share_a_bundle(void **state)
{
    (void)state;
    struct fixture f = open_world(&(struct world_params){.kind = MODEL_DAT, .seed = 12});
    static struct retrieve_hit want[40 * 20];
    struct err e = {0};
    for (uint32_t u = 0; u < 40; u++) {
        char id[16];
        struct retrieve_result r;
        struct retrieve_query q = {
            .user_id = {id, (size_t)snprintf(id, sizeof(id), "u%u", u)}, .k = 20, .exclude_seen = true};
        assert_ok(retrieve_topk(f.b, &q, f.ws, want + u * 20, &r, &e), &e);
    }
    pthread_t t[4];
    struct worker w[4];
    for (int i = 0; i < 4; i++) {
        w[i] = (struct worker){.b = f.b, .want = want};
        assert_int_equal(pthread_create(&t[i], NULL, work, &w[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
        assert_true(w[i].right);
    }
    close_world(&f);
}

/* Scores are those of answers, whatever rung gave them, in the order of the items asked for. */
static void scores_are_those_of_answers(void **state)
{
    (void)state;
    struct fixture f = open_world(&(struct world_params){.kind = MODEL_DAT, .seed = 8});
    static const char *const users[] = {"u3", "stranger"};
    static struct retrieve_hit hit[300];
    uint32_t item[300];
    float score[300];
    struct retrieve_result r;
    struct err e = {0};
    for (size_t u = 0; u < 2; u++) {
        struct retrieve_query q = {.user_id = text(users[u]), .k = 300, .exact = true};
        assert_ok(retrieve_topk(f.b, &q, f.ws, hit, &r, &e), &e);
        assert_int_equal(r.n, 300);
        for (size_t i = 0; i < 300; i++)
            item[i] = hit[(i * 7) % 300].item_idx;
        assert_ok(retrieve_score(f.b, &q, item, 300, f.ws, score, &r, &e), &e);
        for (size_t i = 0; i < 300; i++)
            assert_true(fabsf(score[i] - hit[(i * 7) % 300].score) < 1e-6f);
        item[5] = 300;
        assert_err(retrieve_score(f.b, &q, item, 300, f.ws, score, &r, &e), &e, ERR_ARG, "item 300, there are 300");
        e = (struct err){0};
    }
    close_world(&f);
}

/* More of what was seen and excluded than is asked for in addition, and less. */
static void few_and_many_are_dropped(void **state)
{
    (void)state;
    struct fixture f = open_world(&(struct world_params){.kind = MODEL_DAT, .n_items = 3000, .n_users = 10, .seed = 4});
    static struct retrieve_hit best[200];
    uint32_t drop[200];
    struct retrieve_result r;
    struct err e = {0};
    struct retrieve_query q = {.user_id = text("u3"), .k = 200, .exact = true};
    assert_ok(retrieve_topk(f.b, &q, f.ws, best, &r, &e), &e);
    for (size_t i = 0; i < 200; i++)
        drop[i] = best[i].item_idx;
    q = (struct retrieve_query){.user_id = text("u3"), .k = 20, .ef = 100, .exclude = drop};
    for (q.n_exclude = 0; q.n_exclude <= 200; q.n_exclude += 5)
        check_answer(&f, &q, "the best ones are dropped");
    close_world(&f);
}

/* A deadline that passed before the search, one during a scan or a walk, and one that is kept. */
static void deadlines(void **state)
{
    (void)state;
    struct fixture f =
        open_world(&(struct world_params){.kind = MODEL_DAT, .n_items = 10000, .n_users = 10, .seed = 4});
    static struct retrieve_hit hit[10000];
    struct retrieve_result r;
    struct err e = {0};
    struct timespec t;
    struct retrieve_query q = {.user_id = text("u3"), .k = 10000, .exact = true, .deadline_ns = 1};
    assert_ok(retrieve_topk(f.b, &q, f.ws, hit, &r, &e), &e);
    assert_true(r.late && r.n == 0);
    for (int walk = 0; walk < 2; walk++) {
        bool cut = false;
        q.exact = !walk;
        q.ef = walk ? 10000 : 0;
        q.k = walk ? 5000 : 10000;
        for (uint64_t us = 10; us < 1000000 && (r.late || !cut); us += us / 50 + 1) {
            clock_gettime(CLOCK_MONOTONIC, &t);
            q.deadline_ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec + us * 1000;
            assert_ok(retrieve_topk(f.b, &q, f.ws, hit, &r, &e), &e);
            cut = cut || (r.late && r.n > 0);
            assert_true(r.late || r.n == q.k);
            for (size_t i = 1; i < r.n; i++)
                assert_true(hit[i - 1].score >= hit[i].score);
        }
        assert_true(cut);
        q.deadline_ns = 0;
        check_answer(&f, &q, "no deadline, after some that passed");
        r.late = true;
    }
    close_world(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_query_is_answered_rightly),
        cmocka_unit_test(wide_and_narrow_categories),
        cmocka_unit_test(stored_users_are_served_as_trained),
        cmocka_unit_test(features_override_stored_ones),
        cmocka_unit_test(unknown_users_climb_the_ladder),
        cmocka_unit_test(history_without_a_u),
        cmocka_unit_test(impossible_queries_are_refused),
        cmocka_unit_test(allocates_nothing_once_warm),
        cmocka_unit_test(scores_are_those_of_answers),
        cmocka_unit_test(few_and_many_are_dropped),
        cmocka_unit_test(deadlines),
        cmocka_unit_test(lack_of_memory_is_an_error),
        cmocka_unit_test(threads_share_a_bundle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
