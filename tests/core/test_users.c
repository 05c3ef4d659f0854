/* If this fails, a user gets another one's vector or history, or a damaged users file is served. */
#include "tests/core/support.h"

#include <math.h>

#include "tests/core/world.h"

#define FINGERPRINT "0123456789abcdef0123456789abcdef"
#define N 40
#define D 4

static float aug[N * D];

static struct users_columns columns(const struct world *w)
{
    for (size_t i = 0; i < N * D; i++)
        aug[i] = (float)i / 7;
    return (struct users_columns){.n = N,
                                  .n_slots = w->schema->user.n_slots,
                                  .d_aug = D,
                                  .ids = w->in.user_id,
                                  .x = w->in.user_x,
                                  .aug = aug,
                                  .seen_off = w->in.seen_off,
                                  .seen = w->in.seen,
                                  .n_items = w->in.n_items};
}

static void comes_back_as_written(void **state)
{
    struct err e = {0};
    const char *path = tmp_path(state, "users.pack");
    for (int i = 0; i < 8; i++) {
        bool bare = i & 1, no_aug = i & 2, map = i & 4;
        struct world *w = world_data(&(struct world_params){.seed = 1, .no_seen = bare, .plain_users = bare});
        struct users_columns c = columns(w);
        c.d_aug = no_aug ? 0 : D;
        assert_ok(users_save(path, &c, FINGERPRINT, &e), &e);
        struct users *u = users_load(path, w->schema, w->in.n_items, map ? PACK_MAP : PACK_READ, &e);
        assert_ok(u, &e);
        assert_int_equal(u->n, N);
        assert_string_equal(u->fingerprint, FINGERPRINT);
        assert_memory_equal(u->x, c.x, sizeof(uint32_t) * N * c.n_slots);
        assert_int_equal(u->d_aug, no_aug ? 0 : D);
        assert_int_equal(u->aug == NULL, no_aug);
        if (!no_aug)
            assert_memory_equal(u->aug, aug, sizeof(aug));
        assert_int_equal(u->seen_off == NULL, bare);
        if (!bare)
            assert_memory_equal(u->seen, c.seen, sizeof(uint32_t) * c.seen_off[N]);
        assert_null(u->vec);
        assert_int_equal(users_find(u, "u7", 2), 7);
        assert_int_equal(users_find(u, "v7", 2), STRTAB_NONE);
        assert_true(users_memory(u) > pack_bytes(u->pack));
        users_free(u);
        world_free(w);
    }
    users_free(NULL);
}

static void no_users_are_fine(void **state)
{
    struct err e = {0};
    static const uint64_t zero[1] = {0};
    struct world *w = world_data(&(struct world_params){.seed = 1});
    struct users_columns c = columns(w);
    c.n = 0;
    c.ids = (struct strtab){.off = zero, .bytes = ""};
    c.seen_off = zero;
    assert_ok(users_save(tmp_path(state, "f"), &c, FINGERPRINT, &e), &e);
    struct users *u = users_load(tmp_path(state, "f"), w->schema, 300, PACK_READ, &e);
    assert_ok(u, &e);
    assert_int_equal(u->n, 0);
    assert_int_equal(users_find(u, "u1", 2), STRTAB_NONE);
    users_free(u);
    world_free(w);
}

static void saving_refuses_bad_columns(void **state)
{
    struct err e = {0};
    const char *path = tmp_path(state, "f");
    struct world *w = world_data(&(struct world_params){.seed = 1});
    struct users_columns c = columns(w), d = c;
    d.n = N - 1;
    assert_err(users_save(path, &d, FINGERPRINT, &e), &e, ERR_ARG, "40 ids for 39 users");
    aug[9] = NAN;
    assert_err(users_save(path, &c, FINGERPRINT, &e), &e, ERR_FORMAT, "aug: value 9 is not finite");
    aug[9] = 0;
    d = c;
    d.n_items = 5;
    assert_err(users_save(path, &d, FINGERPRINT, &e), &e, ERR_FORMAT, "there are 5");
    w->seen[1] = w->seen[0];
    assert_err(users_save(path, &c, FINGERPRINT, &e), &e, ERR_FORMAT, "items of user 0 are not strictly ascending");
    w->seen_off[1] = w->seen_off[2] + 1;
    assert_err(users_save(path, &c, FINGERPRINT, &e), &e, ERR_FORMAT, "offset of user 2 goes backwards");
    w->seen_off[0] = 1;
    assert_err(users_save(path, &c, FINGERPRINT, &e), &e, ERR_FORMAT, "seen_off runs from 1");
    assert_null(fopen(path, "rb"));
    world_free(w);
}

/* Files whose checksums are right and whose contents are not; written section by section. */
static void loading_refuses_bad_contents(void **state)
{
    struct err e = {0};
    const char *path = tmp_path(state, "f");
    static const uint64_t off[] = {0, 1, 2};
    struct strtab ids = {.n = 2, .off = off, .bytes = "ab"};
    static const uint64_t past[] = {0, 9, 3}, twice_off[] = {0, 2, 3};
    static const uint32_t seen[] = {4, 4, 5}, x[12];
    static const float inf[] = {0, INFINITY};
    struct world *w = world_data(&(struct world_params){.seed = 1});
    static const struct {
        const uint64_t *seen_off;
        const float *vec;
        uint32_t n_x;
        const char *want;
    } cases[] = {{past, NULL, 2, "offset of user 1 goes backwards or past"},
                 {past, NULL, 2, "f: seen_off"},
                 {twice_off, NULL, 2, "user 0 are not strictly ascending"},
                 {NULL, inf, 2, "vec: value 1 is not finite"},
                 {NULL, NULL, 1, "section x has 1 rows, want 2"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pack_writer *p = pack_writer_new(path, "users", &e);
        assert_ok(pack_put(p, "fingerprint", PACK_U8, 1, 32, FINGERPRINT, &e) && pack_put_strtab(p, "ids", &ids, &e) &&
                      pack_put(p, "x", PACK_U32, cases[i].n_x, w->schema->user.n_slots, x, &e) &&
                      (!cases[i].vec || pack_put(p, "vec", PACK_F32, 2, 1, cases[i].vec, &e)) &&
                      (!cases[i].seen_off || (pack_put(p, "seen_off", PACK_U64, 3, 1, cases[i].seen_off, &e) &&
                                              pack_put(p, "seen", PACK_U32, 3, 1, seen, &e))) &&
                      pack_writer_finish(p, &e),
                  &e);
        pack_writer_free(p);
        assert_err(users_load(path, w->schema, 300, PACK_READ, &e), &e, ERR_FORMAT, cases[i].want);
    }
    struct users_columns c = columns(w);
    assert_ok(users_save(path, &c, FINGERPRINT, &e), &e);
    assert_err(users_load(path, w->schema, 20, PACK_MAP, &e), &e, ERR_FORMAT, "there are 20");
    assert_err(items_load(path, w->schema, PACK_MAP, &e), &e, ERR_MISMATCH, "holds \"users\", want \"items\"");
    world_free(w);
}

static void lack_of_memory_is_an_error(void **state)
{
    const char *path = tmp_path(state, "f");
    struct world *w = world_data(&(struct world_params){.seed = 5});
    struct users_columns c = columns(w);
    for (size_t n = 1;; n++) {
        struct err e = {0};
        alloc_fail_at(n);
        struct users *u =
            users_save(path, &c, FINGERPRINT, &e) ? users_load(path, w->schema, 300, PACK_READ, &e) : NULL;
        alloc_fail_at(0);
        assert_int_equal(e.code, u ? ERR_OK : ERR_NOMEM);
        users_free(u);
        if (u)
            break;
    }
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(comes_back_as_written, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(no_users_are_fine, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(saving_refuses_bad_columns, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(loading_refuses_bad_contents, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(lack_of_memory_is_an_error, tmp_setup, tmp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
