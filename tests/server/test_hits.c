/* If this fails, an answer names other items than were found, or is no JSON. */
#include "tests/core/support.h"

#include "core/base/json.h"
#include "server/hits.h"

#define N 200 // several chunks

/* Ids of every length around what fits into one piece, with and without characters that JSON escapes. */
static struct strtab make_ids(struct strtab_builder *b)
{
    static const char *const odd[] = {"", "\"", "\\", "\xc3\xa9"};
    char id[64];
    for (uint32_t i = 0; i < N; i++) {
        int n = snprintf(id, sizeof(id), "%s%u", odd[i % 4], i);
        while (n < (int)(i % 20))
            id[n++] = 'x';
        assert_true(strtab_add(b, id, (size_t)n, NULL, NULL));
    }
    return strtab_view(b);
}

static void check(const json_t *found, const struct items *it, uint32_t item)
{
    struct str want = strtab_get(&it->ids, item);
    assert_int_equal(json_string_length(found), want.n);
    assert_memory_equal(json_string_value(found), want.p, want.n);
}

static void ids_of_every_kind(void **state)
{
    (void)state;
    struct err e = {0};
    struct strtab_builder b = {0};
    struct items it = {.n = N, .ids = make_ids(&b)};
    struct retrieve_hit hit[N];
    const struct hits_attrs none = {0};
    assert_ok(items_shorten_ids(&it, &e), &e);
    uint32_t n_short = 0;
    for (uint32_t i = 0; i < N; i++) {
        hit[i] = (struct retrieve_hit){.item_idx = i * 77 % N, .score = 0.5f};
        n_short += it.short_id[i].n > 0;
    }
    assert_true(n_short > N / 4 && n_short < N / 2); // two of four have nothing to escape, some of them are long
    struct buf rows = {0}, columns = {0};
    hits_write_rows(&rows, &it, hit, N, &none);
    hits_write_columns(&columns, &it, hit, N, &none);
    json_t *r = json_parse(rows.data, rows.len, &e), *c = r ? json_parse(columns.data, columns.len, &e) : NULL;
    assert_ok(c, &e);
    const json_t *ids = json_object_get(c, "ids");
    assert_int_equal(json_array_size(r), N);
    assert_int_equal(json_array_size(ids), N);
    for (uint32_t i = 0; i < N; i++) {
        check(json_object_get(json_array_get(r, i), "id"), &it, hit[i].item_idx);
        check(json_array_get(ids, i), &it, hit[i].item_idx);
    }
    json_decref(r);
    json_decref(c);
    buf_fini(&rows);
    buf_fini(&columns);
    mem_block_free(it.short_id, N * sizeof(*it.short_id));
    strtab_builder_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(ids_of_every_kind)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
