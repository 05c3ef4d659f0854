/* Breaks when hnsw_check overlooks a kind of damage that searching would trip over, or reports a sound graph. */
#include "index_testing.h"

#include "index/hnsw_priv.h"

#define N 200
#define DIM 4

static struct hnsw *sound(enum hnsw_metric metric)
{
    float *v = clustered(N, DIM, 5, 1);
    struct hnsw_params p = {.metric = metric, .dim = DIM, .capacity = N, .m = 3, .seed = 2};
    struct hnsw_err err = {0};
    struct hnsw *h = hnsw_new(&p, &err);
    assert_ok(hnsw_add_batch(h, v, NULL, N, 1, NULL, NULL, &err), err);
    assert_ok(hnsw_remove(h, 7, &err), err);
    free(v);
    assert_sound(h, N);
    return h;
}

static uint32_t upper_element(const struct hnsw *h) // with a level, not the entry point
{
    for (uint32_t i = 0; i < N; i++)
        if (h->level[i] > 0 && i != h->entry)
            return i;
    fail();
    return 0;
}

static uint32_t ground_element(const struct hnsw *h)
{
    for (uint32_t i = 0; i < N; i++)
        if (h->level[i] == 0)
            return i;
    fail();
    return 0;
}

typedef void damage(struct hnsw *h);

static void link_out_of_range(struct hnsw *h)
{
    node_links(h, 5, 0)[1] = N;
}
static void link_to_itself(struct hnsw *h)
{
    node_links(h, 5, 0)[0] = 5;
}
static void link_twice(struct hnsw *h)
{
    node_links(h, 5, 0)[1] = node_links(h, 5, 0)[0];
}
static void link_after_the_end(struct hnsw *h)
{
    uint32_t *link = node_links(h, 5, 0);
    link[0] = NO_ID;
    link[1] = 9;
}
static void upper_link_too_low(struct hnsw *h)
{
    node_links(h, upper_element(h), 1)[0] = ground_element(h);
}
static void level_too_high(struct hnsw *h)
{
    h->level[ground_element(h)] = (uint8_t)(h->max_level + 1);
}
static void lists_out_of_range(struct hnsw *h)
{
    h->upper_at[upper_element(h)] = (uint32_t)h->upper_n;
}
static void entry_out_of_range(struct hnsw *h)
{
    h->entry = N;
}
static void entry_not_the_highest(struct hnsw *h)
{
    h->entry = ground_element(h);
}
static void max_level_wrong(struct hnsw *h)
{
    h->max_level++;
}
static void no_entry(struct hnsw *h)
{
    h->entry = NO_ID;
}
static void label_twice(struct hnsw *h)
{
    h->label[3] = h->label[4];
}
static void label_not_in_the_map(struct hnsw *h)
{
    do // a look-up may come by element 3 on its way: then the map does know the label
        h->label[3]++;
    while (h->label[3] < N || hnsw_label_map_find(&h->map, h->label, h->label[3]) != NO_ID);
}
static void mark_not_counted(struct hnsw *h)
{
    h->removed[30] = 1;
}
static void mark_not_a_mark(struct hnsw *h)
{
    h->removed[7] = 2;
}
static void mark_below_the_lowest(struct hnsw *h)
{
    h->removed_low = 8;
}
static void nan_in_a_vector(struct hnsw *h)
{
    node_vec(h, 11)[2] = NAN;
}
static void vector_too_long(struct hnsw *h)
{
    node_vec(h, 11)[2] = 3e15f;
}
static void more_than_capacity(struct hnsw *h)
{
    h->capacity = N - 1;
}

static void upper_link_out_of_range(struct hnsw *h)
{
    node_links(h, upper_element(h), 1)[0] = N;
}
static void upper_link_to_itself(struct hnsw *h)
{
    node_links(h, upper_element(h), 1)[0] = upper_element(h);
}
static void upper_link_twice(struct hnsw *h)
{
    uint32_t *link = node_links(h, h->entry, 1);
    link[1] = link[0];
}
static void upper_link_after_the_end(struct hnsw *h)
{
    uint32_t *link = node_links(h, h->entry, 1);
    link[1] = link[0];
    link[0] = NO_ID;
}
/* Both elements' links are fine for either, so only the rule about lists finds it. */
static void one_list_for_two(struct hnsw *h)
{
    uint32_t first = NO_ID, i = 0;
    for (; i < N; i++)
        if (h->level[i] == 1 && i != h->entry) {
            if (first != NO_ID)
                break;
            first = i;
        }
    assert_true(i < N);
    memset(node_links(h, first, 1), 0xff, h->m * sizeof(uint32_t));
    h->upper_at[i] = h->upper_at[first];
}
static void a_level_lost(struct hnsw *h)
{
    for (uint32_t i = 0; i < N; i++)
        for (int l = 1; l <= h->level[i]; l++)
            memset(node_links(h, i, l), 0xff, h->m * sizeof(uint32_t));
    h->level[upper_element(h)]--;
}
static void unknown_metric(struct hnsw *h)
{
    h->metric = (enum hnsw_metric)9;
}
static void no_dimension(struct hnsw *h)
{
    h->dim = 0;
}
static void lists_of_another_length(struct hnsw *h)
{
    h->m0--;
}
static void no_candidates(struct hnsw *h)
{
    h->ef_construction = 0;
}
static void blocks_too_short(struct hnsw *h)
{
    h->stride -= 4;
}
static void map_with_more_labels(struct hnsw *h)
{
    h->map.n_plain++;
}
static void hash_with_more_labels(struct hnsw *h)
{
    assert_true(hnsw_label_map_hash(&h->map, h->label, N, 2 * N));
    size_t i = 0;
    while (h->map.slot[i] || h->map.slot[i + 1]) // one that no search comes by
        i++;
    h->map.slot[i] = N + 1;
}
static void too_many_ways_counted(struct hnsw *h)
{
    h->ways[9]++;
}
static void no_way_in(struct hnsw *h)
{
    for (uint32_t i = 0; i < 9; i++) {
        uint32_t *link = node_links(h, i, 0);
        unsigned n = links_count(link, h->m0);
        for (unsigned j = 0; j < n; j++)
            if (link[j] == 9) {
                link[j] = link[n - 1];
                link[n - 1] = NO_ID;
                break;
            }
    }
    h->ways[9] = 0;
}

static void fast_layout_of_another_graph(struct hnsw *h)
{
    struct hnsw_err err = {0};
    assert_ok(hnsw_optimize(h, HNSW_FAST, 2, &err), err);
    uint32_t *link = node_links(h, 9, 0), first = link[0];
    link[0] = link[1];
    link[1] = first;
}

static void every_kind_of_damage_is_found(void **state)
{
    (void)state;
    static damage *const kind[] = {
        link_out_of_range,  link_to_itself,        link_twice,         link_after_the_end,
        upper_link_too_low, level_too_high,        lists_out_of_range, entry_out_of_range,
        max_level_wrong,    entry_not_the_highest, no_entry,           label_twice,
        mark_not_counted,   label_not_in_the_map,  mark_not_a_mark,    mark_below_the_lowest,
        nan_in_a_vector,    vector_too_long,       more_than_capacity, fast_layout_of_another_graph,
        one_list_for_two,   a_level_lost,          unknown_metric,     no_dimension,
        no_candidates,      blocks_too_short,      upper_link_twice,   lists_of_another_length,
        no_way_in,          map_with_more_labels,  hash_with_more_labels, upper_link_out_of_range,
        too_many_ways_counted, upper_link_to_itself, upper_link_after_the_end};
    for (size_t i = 0; i < sizeof(kind) / sizeof(kind[0]); i++) {
        struct hnsw *h = sound(HNSW_IP);
        struct hnsw_err err = {0};
        kind[i](h);
        if (hnsw_check(h, NULL, &err))
            fail_msg("damage %d was not found", (int)i);
        assert_int_equal(err.code, HNSW_FORMAT);
        hnsw_free(h);
    }
}

static void cosine_wants_unit_length(void **state)
{
    (void)state;
    struct hnsw *h = sound(HNSW_COSINE);
    struct hnsw_err err = {0};
    for (size_t j = 0; j < DIM; j++)
        node_vec(h, 11)[j] *= 1.5f;
    assert_false(hnsw_check(h, NULL, &err));
    hnsw_free(h);
}

static void unreachable_ones_are_counted(void **state)
{
    (void)state;
    struct hnsw *h = sound(HNSW_IP);
    struct hnsw_err err = {0};
    size_t before, lost;
    assert_ok(hnsw_check(h, &before, &err), err);
    uint32_t victim = h->entry == 20 ? 21 : 20;
    for (uint32_t i = 0; i < N; i++) { // nobody leads to it any more
        uint32_t *link = node_links(h, i, 0);
        unsigned n = links_count(link, h->m0), kept = 0;
        for (unsigned j = 0; j < n; j++)
            if (link[j] != victim)
                link[kept++] = link[j];
        for (; kept < h->m0; kept++)
            link[kept] = NO_ID;
    }
    free(h->ways); // they would be wrong now
    h->ways = NULL;
    assert_ok(hnsw_check(h, &lost, &err), err);
    assert_true(lost >= before + 1);
    hnsw_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_damage_is_found),
        cmocka_unit_test(cosine_wants_unit_length),
        cmocka_unit_test(unreachable_ones_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
