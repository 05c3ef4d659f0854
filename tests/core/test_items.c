/* If this fails, answers carry the wrong ids or titles, or a damaged items file is served. */
#include "tests/core/support.h"

#include "tests/core/world.h"

#define FINGERPRINT "0123456789abcdef0123456789abcdef"

static struct items_columns columns(const struct world *w)
{
    return (struct items_columns){.n = w->in.n_items,
                                  .n_slots = w->schema->item.n_slots,
                                  .n_attrs = w->in.n_attrs,
                                  .ids = w->in.item_id,
                                  .category = w->in.category,
                                  .attr = w->in.attr,
                                  .x = w->in.item_x,
                                  .category_of = w->in.item_category,
                                  .popularity = w->in.item_count};
}

static void comes_back_as_written(void **state)
{
    struct err e = {0};
    struct world *w = world_data(&(struct world_params){.seed = 1});
    struct items_columns c = columns(w);
    const char *path = tmp_path(state, "items.pack");
    assert_ok(items_save(path, &c, FINGERPRINT, &e), &e);
    for (int mode = PACK_MAP; mode <= PACK_READ; mode++) {
        struct items *it = items_load(path, w->schema, (enum pack_mode)mode, &e);
        assert_ok(it, &e);
        assert_int_equal(it->n, 300);
        assert_string_equal(it->fingerprint, FINGERPRINT);
        assert_memory_equal(it->x, c.x, sizeof(uint32_t) * c.n * c.n_slots);
        assert_memory_equal(it->popularity, c.popularity, sizeof(uint32_t) * c.n);
        for (uint32_t i = 0; i < it->n; i++) {
            struct str id = strtab_get(&it->ids, i), title = strtab_get(&it->attr[0].values, i),
                       want = strtab_get(&w->attr[0].values, i);
            assert_int_equal(items_find(it, id.p, id.n), i);
            assert_int_equal(title.n, want.n);
            assert_memory_equal(title.p, want.p, want.n);
        }
        assert_int_equal(items_find(it, "nobody", 6), STRTAB_NONE);
        assert_int_equal(items_attr(it, "class", 5), 1);
        assert_int_equal(items_attr(it, "clas", 4), -1);
        assert_true(items_memory(it) > pack_bytes(it->pack));
        items_free(it);
    }
    world_free(w);
    items_free(NULL);
}

static void groups_and_ranks(void **state)
{
    struct err e = {0};
    struct world *w = world_data(&(struct world_params){.seed = 2});
    struct items_columns c = columns(w);
    for (uint32_t i = 0; i < c.n; i += 3)
        w->item_count[i] = UINT32_MAX >> i % 32 ^ i; // of every size
    assert_ok(items_save(tmp_path(state, "f"), &c, FINGERPRINT, &e), &e);
    struct items *it = items_load(tmp_path(state, "f"), w->schema, PACK_READ, &e);
    assert_ok(it, &e);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < it->n; i++) {
        uint32_t a = it->by_popularity[i], b = i + 1 < it->n ? it->by_popularity[i + 1] : a;
        assert_true(it->popularity[a] > it->popularity[b] || (it->popularity[a] == it->popularity[b] && a <= b));
        sum += it->popularity[i];
    }
    assert_int_equal(sum, it->popularity_sum);
    assert_int_equal(it->category_off[it->category.n], it->n);
    for (uint32_t k = 0; k < it->category.n; k++)
        for (uint32_t i = it->category_off[k]; i < it->category_off[k + 1]; i++) {
            assert_int_equal(it->category_of[it->category_item[i]], k);
            assert_true(i == it->category_off[k] || it->category_item[i] > it->category_item[i - 1]);
        }
    items_free(it);
    world_free(w);
}

static struct strtab one_row(const char *s, size_t n)
{
    static uint64_t off[2];
    off[1] = n;
    return (struct strtab){.n = 1, .off = off, .bytes = s};
}

static void ids_follow_the_rules(void **state)
{
    (void)state;
    struct err e = {0};
    char big[300];
    memset(big, 'x', sizeof(big));
    static const struct {
        const char *s;
        size_t n;
        const char *want;
    } bad[] = {{"", 0, "has 0 bytes, want 1 to 256"},
               {"a\nb", 3, "control"},
               {"\x7f", 1, "control"},
               {"a\0b", 3, "control"},
               {"\xff", 1, "not UTF-8"}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct strtab t = one_row(bad[i].s, bad[i].n);
        assert_err(items_check_ids(&t, &e), &e, ERR_FORMAT, bad[i].want);
    }
    struct strtab t = one_row(big, 257);
    assert_err(items_check_ids(&t, &e), &e, ERR_FORMAT, "257 bytes");
    t = one_row(big, 256);
    assert_ok(items_check_ids(&t, &e), &e);
    t = one_row("caf\xc3\xa9 1", 7);
    assert_ok(items_check_ids(&t, &e), &e);
}

static void saving_refuses_bad_columns(void **state)
{
    struct err e = {0};
    const char *path = tmp_path(state, "f");
    struct world *w = world_data(&(struct world_params){.seed = 3});
    struct items_columns c = columns(w), d = c;
    uint64_t off[2] = {0, 4};
    uint32_t of[300] = {0};
    d.n = 299;
    assert_err(items_save(path, &d, FINGERPRINT, &e), &e, ERR_ARG, "300 ids for 299 items");
    d = c;
    d.category = (struct strtab){.n = 1, .off = off, .bytes = "food"};
    assert_err(items_save(path, &d, FINGERPRINT, &e), &e, ERR_FORMAT, "row 0 must exist and be empty");
    d = c;
    of[7] = 4;
    d.category_of = of;
    assert_err(items_save(path, &d, FINGERPRINT, &e), &e, ERR_FORMAT, "item 7 has category 4, there are 4");
    d = c;
    struct item_attr attr[2] = {w->attr[0], w->attr[1]};
    d.n_attrs = 2;
    attr[1].values.n = 5;
    d.attr = attr;
    assert_err(items_save(path, &d, FINGERPRINT, &e), &e, ERR_ARG, "class has 5 values for 300 items");
    FILE *left = fopen(path, "rb");
    assert_null(left);
    assert_err(items_save(tmp_path(state, "no/f"), &c, FINGERPRINT, &e), &e, ERR_NOT_FOUND, "no/f");
    world_free(w);
}

/* A file with right checksums whose contents break a rule: made by saving columns that items_save cannot see through.
 */
static void loading_refuses_bad_contents(void **state)
{
    struct err e = {0};
    const char *path = tmp_path(state, "f");
    struct world *w = world_data(&(struct world_params){.seed = 4});
    struct items_columns c = columns(w), d;
    struct strtab_builder twice = {0}, latin1 = {0};
    for (uint32_t i = 0; i < c.n; i++) {
        struct str s = strtab_get(&c.ids, i == 5 ? 4 : i);
        strtab_add(&twice, s.p, s.n, NULL, &e);
        strtab_add(&latin1, "\xe9", 1, NULL, &e);
    }
    d = c;
    d.ids = strtab_view(&twice);
    assert_ok(items_save(path, &d, FINGERPRINT, &e), &e);
    assert_err(items_load(path, w->schema, PACK_READ, &e), &e, ERR_FORMAT, "rows 4 and 5 are both \"i4\"");
    struct item_attr attr[2] = {w->attr[0], w->attr[1]};
    d = c;
    d.n_attrs = 2;
    d.attr = attr;
    attr[1].values = strtab_view(&latin1);
    assert_ok(items_save(path, &d, FINGERPRINT, &e), &e);
    assert_err(items_load(path, w->schema, PACK_READ, &e), &e, ERR_FORMAT, "f: attr.1: row 0 is not UTF-8");
    attr[1] = attr[0];
    assert_ok(items_save(path, &d, FINGERPRINT, &e), &e);
    assert_err(items_load(path, w->schema, PACK_READ, &e), &e, ERR_FORMAT, "\"title\" appears twice");
    attr[1].name[0] = '\0';
    assert_ok(items_save(path, &d, FINGERPRINT, &e), &e);
    assert_err(items_load(path, w->schema, PACK_READ, &e), &e, ERR_FORMAT, "attr_names: row 1 has 0 bytes");
    assert_ok(items_save(path, &c, "not a fingerprint but 32 letters", &e), &e);
    assert_err(items_load(path, w->schema, PACK_READ, &e), &e, ERR_FORMAT, "fingerprint is not 32 hex digits");
    uint32_t *x = malloc(sizeof(*x) * c.n * c.n_slots);
    memcpy(x, c.x, sizeof(*x) * c.n * c.n_slots);
    x[17 * c.n_slots + 1] = 1000;
    d = c;
    d.x = x;
    assert_ok(items_save(path, &d, FINGERPRINT, &e), &e);
    assert_err(items_load(path, w->schema, PACK_READ, &e), &e, ERR_FORMAT, "f: ");
    d = c;
    d.n_slots--;
    assert_ok(items_save(path, &d, FINGERPRINT, &e), &e);
    assert_err(items_load(path, w->schema, PACK_READ, &e), &e, ERR_FORMAT, "section x is u32[5], want u32[6]");
    free(x);
    strtab_builder_fini(&twice);
    strtab_builder_fini(&latin1);
    world_free(w);
}

static void ids_hash_covers_every_byte(void **state)
{
    (void)state;
    struct hash128 a, b, c;
    static const uint64_t off1[] = {0, 1, 3}, off2[] = {0, 2, 3};
    struct strtab t = {.n = 2, .off = off1, .bytes = "abc"};
    assert_true(items_ids_hash(&t, &a, NULL));
    t.off = off2;
    assert_true(items_ids_hash(&t, &b, NULL));
    t.bytes = "abd";
    assert_true(items_ids_hash(&t, &c, NULL));
    assert_true(a.lo != b.lo && b.lo != c.lo);
}

static void lack_of_memory_is_an_error(void **state)
{
    const char *path = tmp_path(state, "f");
    struct world *w = world_data(&(struct world_params){.seed = 5, .n_items = 20});
    struct items_columns c = columns(w);
    for (size_t n = 1;; n++) {
        struct err e = {0};
        alloc_fail_at(n);
        struct items *it = items_save(path, &c, FINGERPRINT, &e) ? items_load(path, w->schema, PACK_READ, &e) : NULL;
        alloc_fail_at(0);
        assert_int_equal(e.code, it ? ERR_OK : ERR_NOMEM);
        items_free(it);
        if (it)
            break;
    }
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(comes_back_as_written, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(groups_and_ranks, tmp_setup, tmp_teardown),
        cmocka_unit_test(ids_follow_the_rules),
        cmocka_unit_test_setup_teardown(saving_refuses_bad_columns, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(loading_refuses_bad_contents, tmp_setup, tmp_teardown),
        cmocka_unit_test(ids_hash_covers_every_byte),
        cmocka_unit_test_setup_teardown(lack_of_memory_is_an_error, tmp_setup, tmp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
