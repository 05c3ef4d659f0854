/* If this fails, what was trained is not what is served, or a crash while publishing leaves a repository that nobody can load. */
#include "tests/core/support.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base/fio.h"
#include "core/manifest.h"
#include "core/retrieve.h"
#include "tests/core/world.h"

static struct publish_params params(void *const *state)
{
    return (struct publish_params){.repository = *state, .name = "m", .threads = 1, .seed = 7};
}


static void check_contents(const struct bundle *b, const struct world *w, const char *dir)
{
    const struct publish_input *in = &w->in;
    assert_int_equal(b->manifest.n_items, in->n_items);
    assert_int_equal(b->manifest.n_users, in->n_users);
    assert_string_equal(b->manifest.kind, model_kind_name(w->model->kind));
    assert_int_equal(b->users_revision, 1);
    assert_true(b->manifest.probe_recall >= 0.98);
    assert_memory_equal(b->items->x, in->item_x, sizeof(uint32_t) * in->n_items * w->model->schema->item.n_slots);
    assert_memory_equal(b->items->popularity, in->item_count, sizeof(uint32_t) * in->n_items);
    for (uint32_t u = 0; u < in->n_users && w->model->user.shape.d_aug; u++) {
        uint32_t d_aug = b->users->d_aug;
        const uint32_t *x = in->user_x + (size_t)u * w->model->schema->user.n_slots;
        assert_memory_equal(b->users->aug + (size_t)u * d_aug, tower_aug_of(&w->model->user, &w->model->schema->user, x), d_aug * sizeof(float));
    }
    uint64_t bytes;
    assert_true(bundle_estimate(dir, &bytes, NULL));
    assert_true(bytes >= b->manifest.n_bytes);
    assert_true(bundle_memory(b) > b->manifest.n_bytes / 4 && bundle_memory(b) < 8 * b->manifest.n_bytes);
    bundle_warm(b);
}

static void published_is_what_is_loaded(void **state)
{
    struct err e = {0};
    for (unsigned i = 0; i < 8; i++) {
        struct world *w = world_new(&(struct world_params){
            .kind = i & 1 ? MODEL_DAT : MODEL_TWO_TOWER, .plain_users = i & 2, .no_seen = i & 4, .seed = i, .n_items = i & 4 ? 30 : 300});
        struct publish_params p = params(state);
        uint64_t version = 0;
        char dir[PATH_MAX];
        assert_ok(bundle_publish(&w->in, &p, &version, dir, &e), &e);
        assert_int_equal(version, i + 1);
        for (int mode = BUNDLE_PRIVATE; mode <= BUNDLE_SHARED; mode++) {
            struct bundle *b = bundle_load(dir, &(struct bundle_load_params){.mode = (enum bundle_load_mode)mode}, &e);
            assert_ok(b, &e);
            check_contents(b, w, dir);
            bundle_free(b);
        }
        world_free(w);
    }
    size_t n;
    uint64_t *v = bundle_versions(tmp_path(state, "m"), &n, &e);
    assert_int_equal(n, 8);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(v[i], i + 1);
    free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(published_is_what_is_loaded, tmp_setup, tmp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
