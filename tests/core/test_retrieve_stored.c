/* Models without towers from publication to answers. If this fails, baselines are measured by other rules than the
 * model they are compared with. */
#include "tests/core/support.h"

#include "core/als.h"
#include "core/base/fio.h"
#include "core/base/mem.h"
#include "core/manifest.h"
#include "core/probes.h"
#include "core/retrieve.h"
#include "core/safetensors.h"
#include "tests/core/world.h"

#define N_USERS 40
#define N_ITEMS 300
#define D 8

struct fixture {
    char repository[PATH_MAX], dir[PATH_MAX];
    struct world *w;
    struct stored *s; // the model's
    struct bundle *b;
    struct retrieve_ws *ws;
};

static struct world *stored_world(enum model_kind kind, uint32_t n_interest, bool fold_in, uint64_t seed)
{
    struct err e = {0};
    struct rng r;
    struct world *w = world_data(&(struct world_params){.n_users = N_USERS, .n_items = N_ITEMS, .seed = 5});
    struct stored *s = stored_new(D, n_interest, N_USERS, N_ITEMS, fold_in, &e);
    rng_init(&r, seed);
    for (size_t i = D * n_interest; i < (size_t)N_USERS * n_interest * D; i++) // user 0: nothing known
        s->user[i] = (float)rng_normal(&r);
    for (size_t i = 0; i < (size_t)N_ITEMS * D; i++)
        s->item[i] = (float)rng_normal(&r);
    if (fold_in) {
        als_gram(s->item, N_ITEMS, D, s->gram);
        s->w0 = 0.1f;
        s->lambda = 0.02f;
        s->n_fold = N_ITEMS;
    }
    w->in.model = w->model = model_new_stored(kind, w->schema, s, &e);
    w->schema = NULL;
    w->free_model = model_free;
    return w;
}

static void open_fixture(struct fixture *f, void **state, enum model_kind kind, uint32_t n_interest, bool fold_in)
{
    struct err e = {0};
    uint64_t version;
    *f = (struct fixture){.w = stored_world(kind, n_interest, fold_in, 9)};
    f->s = f->w->model->stored;
    snprintf(f->repository, sizeof(f->repository), "%s", (char *)*state);
    const struct publish_params p = {.repository = f->repository, .name = "m", .threads = 1, .n_probes = 30};
    assert_ok(bundle_publish(&f->w->in, &p, &version, f->dir, &e), &e);
    assert_ok((f->b = bundle_load(f->dir, NULL, &e)), &e);
    assert_ok((f->ws = retrieve_ws_new(f->b, &e)), &e);
}

static void close_fixture(struct fixture *f)
{
    retrieve_ws_free(f->ws);
    bundle_free(f->b);
    world_free(f->w);
}

/* Best product of the item with the n vectors. */
static double score_of(const struct fixture *f, const float *q, size_t n, uint32_t item)
{
    double best = -1e30;
    for (size_t v = 0; v < n; v++) {
        double s = 0;
        for (size_t c = 0; c < D; c++)
            s += (double)q[v * D + c] * (double)f->s->item[item * D + c];
        best = s > best ? s : best;
    }
    return best;
}

/* hit[n] is what a scan of all allowed items gives. */
static void assert_best(const struct fixture *f, const float *q, size_t n_q, const uint32_t *category,
                        const struct retrieve_hit *hit, size_t n)
{
    bool taken[N_ITEMS] = {0};
    for (size_t i = 0; i < n; i++) {
        assert_false(taken[hit[i].item_idx]);
        taken[hit[i].item_idx] = true;
        assert_float_equal(hit[i].score, score_of(f, q, n_q, hit[i].item_idx), 1e-4);
        if (i)
            assert_true(hit[i].score <= hit[i - 1].score);
    }
    for (uint32_t v = 0; v < N_ITEMS; v++)
        if (!taken[v] && (!category || f->w->item_category[v] == *category))
            assert_true(score_of(f, q, n_q, v) <= (double)hit[n - 1].score + 1e-4);
}

static void stored_users_get_the_best_of_their_vectors(void **state)
{
    const uint32_t interests[] = {1, 4}, category = 2;
    for (int i = 0; i < 2; i++) {
        struct fixture f;
        struct err e = {0};
        struct retrieve_result r;
        struct retrieve_hit hit[50];
        float p[4 * D];
        open_fixture(&f, state, MODEL_MIND, interests[i], false);
        assert_string_equal(f.b->manifest.encoder, "stored");
        assert_int_equal(f.b->manifest.n_interest, interests[i]);
        for (uint32_t u = 1; u < N_USERS; u++) {
            char id[8];
            const float *q = f.s->user + (size_t)u * interests[i] * D;
            struct retrieve_query rq = {
                .user_id = {id, (size_t)snprintf(id, sizeof(id), "u%u", u)}, .k = 50, .exact = true};
            assert_ok(retrieve_topk(f.b, &rq, f.ws, hit, &r, &e), &e);
            assert_int_equal(r.fallback, FALLBACK_NONE);
            assert_int_equal(r.n_vectors, interests[i]);
            assert_int_equal(r.n, 50);
            assert_best(&f, q, interests[i], NULL, hit, r.n);
            rq.exact = false; // a walk as wide as the catalogue misses nothing
            rq.ef = N_ITEMS;
            assert_ok(retrieve_topk(f.b, &rq, f.ws, hit, &r, &e), &e);
            assert_best(&f, q, interests[i], NULL, hit, r.n);
            rq.category = &category;
            rq.n_category = 1;
            rq.k = 10;
            assert_ok(retrieve_topk(f.b, &rq, f.ws, hit, &r, &e), &e);
            assert_best(&f, q, interests[i], &category, hit, r.n);
            rq.n_category = 0;
            rq.exact = true;
            rq.has_min_score = true;
            rq.min_score = hit[3].score;
            assert_ok(retrieve_topk(f.b, &rq, f.ws, hit, &r, &e), &e);
            assert_true(r.n >= 4 && hit[r.n - 1].score >= rq.min_score);
            assert_ok(retrieve_embed(f.b, &rq, f.ws, p, NULL, &r, &e), &e);
            assert_memory_equal(p, q, interests[i] * D * sizeof(float));
        }
        close_fixture(&f);
    }
}

static void what_was_seen_stays_out(void **state)
{
    struct fixture f;
    struct err e = {0};
    struct retrieve_result r;
    struct retrieve_hit hit[N_ITEMS];
    open_fixture(&f, state, MODEL_MIND, 3, false);
    const struct retrieve_query q = {.user_id = {"u5", 2}, .k = N_ITEMS, .exact = true, .exclude_seen = true};
    assert_ok(retrieve_topk(f.b, &q, f.ws, hit, &r, &e), &e);
    const uint64_t lo = f.b->users->seen_off[5], hi = f.b->users->seen_off[6];
    assert_true(hi > lo);
    assert_int_equal(r.n, N_ITEMS - (hi - lo));
    for (size_t i = 0; i < r.n; i++)
        for (uint64_t s = lo; s < hi; s++)
            assert_int_not_equal(hit[i].item_idx, f.b->users->seen[s]);
    close_fixture(&f);
}

/* The ladder: a history is folded in, or averaged; without one the most popular items; so for a stored user without a
 * vector. */
static void unknown_users_climb_the_ladder(void **state)
{
    const uint32_t history[] = {3, 77, 200};
    const char *const ids[] = {"nobody", "u0"};
    for (int fold_in = 0; fold_in < 2; fold_in++) {
        struct fixture f;
        struct err e = {0};
        struct retrieve_result r;
        struct retrieve_hit hit[20];
        float want[D], got[3 * D], scratch[4096];
        open_fixture(&f, state, fold_in ? MODEL_WALS : MODEL_YOUTUBE_DNN, fold_in ? 1 : 3, fold_in);
        assert_true(stored_scratch(f.s) <= 4096);
        assert_true(stored_from_history(f.s, f.s->item, history, 3, scratch, want));
        for (int i = 0; i < 2; i++) {
            struct retrieve_query q = {
                .user_id = {ids[i], strlen(ids[i])}, .history = history, .n_history = 3, .k = 20, .exact = true};
            assert_ok(retrieve_topk(f.b, &q, f.ws, hit, &r, &e), &e);
            assert_int_equal(r.fallback, FALLBACK_HISTORY);
            assert_int_equal(r.n_vectors, 1);
            assert_best(&f, want, 1, NULL, hit, r.n);
            assert_ok(retrieve_embed(f.b, &q, f.ws, got, NULL, &r, &e), &e);
            assert_memory_equal(got, want, sizeof(want));
            q.n_history = 0;
            assert_ok(retrieve_topk(f.b, &q, f.ws, hit, &r, &e), &e);
            assert_int_equal(r.fallback, FALLBACK_POPULAR);
            assert_int_equal(r.n_vectors, 0);
            assert_int_equal(hit[0].item_idx, f.b->items->by_popularity[0]);
        }
        const struct retrieve_query given = {.vector = want, .k = 20, .exact = true};
        assert_ok(retrieve_topk(f.b, &given, f.ws, hit, &r, &e), &e);
        assert_best(&f, want, 1, NULL, hit, r.n);
        close_fixture(&f);
    }
}

static void features_are_checked_though_no_tower_reads_them(void **state)
{
    struct fixture f;
    struct err e = {0};
    struct retrieve_result r;
    struct retrieve_hit hit[5];
    open_fixture(&f, state, MODEL_FM, 1, false);
    struct retrieve_feature feature = {{"city", 4}, {"SH", 2}};
    struct retrieve_query q = {.user_id = {"u5", 2}, .feature = &feature, .n_features = 1, .k = 5};
    assert_ok(retrieve_topk(f.b, &q, f.ws, hit, &r, &e), &e);
    feature.name = (struct str){"town", 4};
    assert_err(retrieve_topk(f.b, &q, f.ws, hit, &r, &e), &e, ERR_ARG, "town");
    close_fixture(&f);
}

static void warming_memory_and_metadata(void **state)
{
    struct fixture f;
    open_fixture(&f, state, MODEL_WALS, 1, true);
    bundle_warm(f.b);
    assert_true(bundle_memory(f.b) > (size_t)N_ITEMS * D * sizeof(float));
    assert_string_equal(f.b->manifest.kind, "wals");
    assert_int_equal(f.b->probes->n, 30);
    close_fixture(&f);
}

/* New vectors of users alone: only over the same items. */
static void users_alone_need_the_same_items(void **state)
{
    struct fixture f;
    struct err e = {0};
    uint64_t version;
    open_fixture(&f, state, MODEL_FM, 1, false);
    const struct publish_params p = {.repository = f.repository, .name = "m", .threads = 1};
    f.s->user[5 * D] += 1;
    assert_ok(bundle_publish_users(&f.w->in, &p, &version, f.dir, &e), &e);
    assert_int_equal(version, 2);
    struct bundle *b = bundle_load(f.dir, NULL, &e);
    assert_ok(b, &e);
    assert_float_equal(b->users->vec[5 * D], f.s->user[5 * D], 0);
    bundle_free(b);
    f.s->item[0] += 1;
    assert_err(bundle_publish_users(&f.w->in, &p, &version, f.dir, &e), &e, ERR_MISMATCH, "publish the whole");
    close_fixture(&f);
}

static void models_that_do_not_fit_are_not_published(void **state)
{
    struct fixture f;
    struct err e = {0};
    uint64_t version;
    open_fixture(&f, state, MODEL_FM, 1, false);
    const struct publish_params p = {.repository = f.repository, .name = "m", .threads = 1};
    f.s->n_items--;
    assert_err(bundle_publish(&f.w->in, &p, &version, NULL, &e), &e, ERR_ARG, "vectors of 40 users and 299 items");
    f.s->n_items++;
    float *kept = f.s->user;
    f.s->user = NULL;
    assert_err(bundle_publish(&f.w->in, &p, &version, NULL, &e), &e, ERR_ARG, "wants a checkpoint");
    f.s->user = kept;
    float value = f.s->item[7];
    f.s->item[7] = 0.0f / 0.0f;
    assert_err(bundle_publish(&f.w->in, &p, &version, NULL, &e), &e, ERR_FORMAT, "item vectors");
    f.s->item[7] = value;
    close_fixture(&f);
}

/* A users file whose vectors are not those that the probes were made of, with manifest and hashes in order. */
static void foreign_vectors_are_refused(void **state)
{
    struct fixture f;
    struct err e = {0};
    char path[PATH_MAX];
    struct manifest m = {0};
    open_fixture(&f, state, MODEL_FM, 1, false);
    const struct users *u = f.b->users;
    float *vec = mem_array((size_t)N_USERS * D, sizeof(*vec), &e);
    for (size_t i = 0; i < (size_t)N_USERS * D; i++)
        vec[i] = f.s->user[i] + 1e-3f;
    struct users_columns c = {.n = u->n,
                              .n_slots = f.b->model->schema->user.n_slots,
                              .ids = u->ids,
                              .x = u->x,
                              .vec = vec,
                              .vec_cols = D,
                              .n_items = N_ITEMS};
    for (int wrong_width = 0; wrong_width < 2; wrong_width++) {
        c.vec_cols = wrong_width ? 0 : D;
        assert_ok(fio_join(path, f.dir, "users.pack", &e) && users_save(path, &c, u->fingerprint, &e), &e);
        assert_ok(manifest_read(f.dir, &m, &e) && manifest_hash_file(&m, f.dir, MF_USERS, &e) &&
                      manifest_write(f.dir, &m, &e),
                  &e);
        manifest_fini(&m);
        if (wrong_width)
            assert_err(bundle_load(f.dir, NULL, &e), &e, ERR_FORMAT, "0 stored components");
        else
            assert_err(bundle_load(f.dir, NULL, &e), &e, ERR_MISMATCH, "do not belong together");
    }
    free(vec);
    close_fixture(&f);
}

/* Says tower where there is none. */
static void the_manifest_must_agree(void **state)
{
    struct fixture f;
    struct err e = {0};
    struct manifest m = {0};
    open_fixture(&f, state, MODEL_FM, 1, false);
    assert_ok(manifest_read(f.dir, &m, &e), &e);
    snprintf(m.head.encoder, sizeof(m.head.encoder), "tower");
    assert_ok(manifest_write(f.dir, &m, &e), &e);
    assert_err(bundle_load(f.dir, NULL, &e), &e, ERR_MISMATCH, "encoder stored of 1 vectors");
    manifest_fini(&m);
    close_fixture(&f);
}

static void lack_of_memory_is_an_error(void **state)
{
    struct fixture f;
    open_fixture(&f, state, MODEL_MIND, 3, false);
    for (size_t n = 1;; n++) {
        struct err e = {0};
        struct retrieve_hit hit[20];
        struct retrieve_result r;
        const struct retrieve_query q = {.user_id = {"u5", 2}, .k = 20};
        alloc_fail_at(n);
        struct retrieve_ws *ws = retrieve_ws_new(f.b, &e);
        bool ok = ws && retrieve_topk(f.b, &q, ws, hit, &r, &e), failed = alloc_failed();
        alloc_fail_at(0);
        retrieve_ws_free(ws);
        if (!ok && e.code != ERR_NOMEM)
            fail_msg("allocation %zu: %s \"%s\"", n, err_name(e.code), e.msg);
        if (!failed)
            break;
    }
    close_fixture(&f);
}

/* One item so far from the others that codes of 8 bits hold little else: the fast layout finds less, which the bundle says, or there is none,
 * which is no reason not to publish. */
static void vectors_that_the_fast_layout_hardly_holds_are_published(void **state)
{
    struct err e = {0};
    char dir[PATH_MAX];
    for (int far = 531; far <= 3000; far += 3000 - 531) {
        struct world *w = stored_world(MODEL_WALS, 1, false, 9);
        bool has_fast = far < 3000;
        for (size_t c = 0; c < D; c++)
            w->model->stored->item[c] = (float)(c & 1 ? -far : far);
        const struct publish_params p = {.repository = *state, .name = "far", .threads = 1, .default_ef = 20};
        assert_ok(bundle_publish(&w->in, &p, &(uint64_t){0}, dir, &e), &e);
        for (int layout = 0; layout < BUNDLE_LAYOUTS; layout++) {
            size_t ef, n_curves = 0;
            struct bundle *b = bundle_load(dir, &(struct bundle_load_params){.layout = (enum hnsw_layout)layout}, &e);
            assert_ok(b, &e);
            assert_int_equal(b->layout, layout == HNSW_FAST && !has_fast ? HNSW_PLAIN : layout);
            assert_int_not_equal(calibration_ef(&b->manifest.calibration, b->layout, 10, 0.9, &ef), CALIBRATION_NONE);
            for (uint32_t i = 0; i < b->manifest.calibration.n_curves; i++)
                n_curves += (int)b->manifest.calibration.curve[i].layout == layout;
            assert_int_equal(n_curves > 0, layout != HNSW_FAST || has_fast);
            bundle_free(b);
        }
        world_free(w);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, tmp_setup, tmp_teardown)
    const struct CMUnitTest tests[] = {
        T(stored_users_get_the_best_of_their_vectors),
        T(what_was_seen_stays_out),
        T(unknown_users_climb_the_ladder),
        T(features_are_checked_though_no_tower_reads_them),
        T(vectors_that_the_fast_layout_hardly_holds_are_published),
        T(warming_memory_and_metadata),
        T(users_alone_need_the_same_items),
        T(models_that_do_not_fit_are_not_published),
        T(foreign_vectors_are_refused),
        T(the_manifest_must_agree),
        T(lack_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
