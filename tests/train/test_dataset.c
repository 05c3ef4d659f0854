/* If this fails, a damaged or wrong dataset trains a model without a word, or a good one is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <cmocka.h>

#include "core/base/mem.h"
#include "prepare_util.h"

/* Two users, three items, one field of each kind that has slots. */
struct world {
    struct strtab_builder user_id, item_id, category, title;
    uint32_t user_x[2], item_x[6], item_category[3], item_count[3];
    uint64_t train_off[3], valid_off[3], test_off[3], held_off[3];
    uint32_t train_item[3], valid_item[1], test_item[1];
    int64_t train_time[3], valid_time[1], test_time[1], held_time[1];
    uint32_t held_item[1];
    uint8_t user_held[2], item_held[3];
    struct dataset_attr attr[1];
    struct dataset d;
};

static void add(struct strtab_builder *b, const char *text)
{
    assert_true(strtab_add(b, text, strlen(text), NULL, NULL));
}

static struct schema *small_schema(void)
{
    struct schema *s = mem_array(1, sizeof(*s), NULL);
    s->user.segment_field = s->item.segment_field = -1;
    s->user.field = mem_array(1, sizeof(*s->user.field), NULL);
    s->item.field = mem_array(2, sizeof(*s->item.field), NULL);
    s->user.n_fields = 1;
    s->item.n_fields = 2;
    s->user.field[0] = (struct schema_field){.name = "user_id", .kind = FIELD_ID, .n_rows = 3};
    s->item.field[0] = (struct schema_field){.name = "item_id", .kind = FIELD_ID, .n_rows = 4};
    s->item.field[1] = (struct schema_field){.name = "category", .kind = FIELD_CATEGORICAL, .category = true};
    add(&s->item.field[1].vocab, "food");
    assert_true(schema_seal(s, NULL));
    return s;
}

static int make_world(void **state)
{
    struct world *w = mem_array(1, sizeof(*w), NULL);
    if (!w || make_dir(NULL) != 0)
        return -1;
    *w = (struct world){.user_x = {1, 2},
                        .item_x = {1, 1, 2, 0, 0, 1},
                        .item_category = {1, 0, 1},
                        .item_count = {1, 2, 0},
                        .train_off = {0, 2, 3},
                        .train_item = {0, 1, 1},
                        .train_time = {5, 6, 7},
                        .valid_off = {0, 0, 1},
                        .valid_item = {2},
                        .valid_time = {8},
                        .test_off = {0, 1, 1},
                        .test_item = {2},
                        .test_time = {9},
                        .item_held = {0, 0, 1}};
    add(&w->user_id, "u1"), add(&w->user_id, "u2");
    add(&w->item_id, "a"), add(&w->item_id, "b"), add(&w->item_id, "c");
    add(&w->category, ""), add(&w->category, "food");
    add(&w->title, "Amélie"), add(&w->title, ""), add(&w->title, "C");
    strcpy(w->attr[0].name, "title");
    w->attr[0].values = strtab_view(&w->title);
    w->d = (struct dataset){.schema = small_schema(),
                            .n_users = 2,
                            .n_items = 3,
                            .user_id = strtab_view(&w->user_id),
                            .item_id = strtab_view(&w->item_id),
                            .user_x = w->user_x,
                            .item_x = w->item_x,
                            .attr = w->attr,
                            .n_attrs = 1,
                            .category = strtab_view(&w->category),
                            .item_category = w->item_category,
                            .item_count = w->item_count,
                            .train = {w->train_off, w->train_item, w->train_time},
                            .valid = {w->valid_off, w->valid_item, w->valid_time},
                            .test = {w->test_off, w->test_item, w->test_time},
                            .held = {w->held_off, w->held_item, w->held_time},
                            .user_held_out = w->user_held,
                            .item_held_out = w->item_held};
    *state = w;
    return 0;
}

static int free_world(void **state)
{
    struct world *w = *state;
    strtab_builder_fini(&w->user_id);
    strtab_builder_fini(&w->item_id);
    strtab_builder_fini(&w->category);
    strtab_builder_fini(&w->title);
    schema_free(w->d.schema);
    free(w);
    return remove_dir(NULL);
}

static void save(const struct world *w)
{
    struct err err = {0};
    if (!dataset_save(&w->d, "{\"split\": \"given\"}", in_dir("d.duet"), &err))
        fail_msg("%s", err.msg);
}

static void reads_what_was_written(void **state)
{
    struct world *w = *state;
    struct err err = {0};
    save(w);
    struct dataset *d = dataset_open(in_dir("d.duet"), &err);
    if (!d)
        fail_msg("%s", err.msg);
    assert_int_equal(d->n_users, 2);
    assert_int_equal(d->n_items, 3);
    assert_memory_equal(d->item_x, w->item_x, sizeof(w->item_x));
    assert_string_equal(items_of(d, &d->train, "u1"), "a b");
    assert_string_equal(items_of(d, &d->test, "u1"), "c");
    assert_string_equal(items_of(d, &d->valid, "u2"), "c");
    assert_int_equal(d->train.time[2], 7);
    assert_string_equal(attr_of(d, "a", "title"), "Amélie");
    assert_string_equal(category_of(d, "c"), "food");
    assert_int_equal(d->item_held_out[2], 1);
    assert_int_equal(schema_find(&d->schema->item, "category", 8)->n_rows, 2);
    struct str info = dataset_info(d);
    assert_memory_equal(info.p, "{\"split\"", 8);
    assert_int_equal(strlen(d->hash), 32);
    dataset_close(d);
}

/* Else a page is fetched with its neighbours, and where the file is larger than memory these drive out what is still asked for.
 * "rr" of the kernel's flags of the mapping: read in random order. */
static void pages_are_fetched_without_their_neighbours(void **state)
{
    save(*state);
    struct dataset *d = dataset_open(in_dir("d.duet"), NULL);
    assert_non_null(d);
    FILE *f = fopen("/proc/self/smaps", "r");
    assert_non_null(f);
    char line[PATH_MAX + 128];
    bool here = false, seen = false;
    while (fgets(line, sizeof(line), f)) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            here = strstr(line, in_dir("d.duet")) != NULL;
        if (here && strncmp(line, "VmFlags:", 8) == 0) {
            seen = true;
            assert_non_null(strstr(line, " rr"));
        }
    }
    fclose(f);
    dataset_close(d);
    if (!seen) // a kernel that does not tell
        skip();
}

static void times_may_be_missing(void **state)
{
    struct world *w = *state;
    w->d.train.time = w->d.valid.time = w->d.test.time = w->d.held.time = NULL;
    save(w);
    struct dataset *d = dataset_open(in_dir("d.duet"), NULL);
    assert_non_null(d);
    assert_null(d->train.time);
    dataset_close(d);
}

/* Every byte that is not padding is under some checksum: flipping any bit of it must be found. */
static void refuses_flipped_bits(void **state)
{
    save(*state);
    size_t n;
    struct err err = {0};
    char *good = fio_read_all(in_dir("d.duet"), 1 << 20, &n, &err);
    assert_non_null(good);
    char first[33];
    struct dataset *d = dataset_open(in_dir("d.duet"), &err);
    assert_non_null(d);
    memcpy(first, d->hash, 33);
    dataset_close(d);
    int fd = open(in_dir("d.duet"), O_RDWR);
    assert_true(fd >= 0);
    size_t refused_flips = 0;
    for (size_t i = 0; i < n; i++) {
        char flipped = (char)(good[i] ^ (1 << (i % 8)));
        assert_int_equal(pwrite(fd, &flipped, 1, (off_t)i), 1);
        struct err e = {0};
        d = dataset_open(in_dir("d.duet"), &e);
        if (d) { // padding: nobody reads it, and still the file's hash tells
            assert_int_equal(good[i], 0);
            assert_string_not_equal(d->hash, first);
            dataset_close(d);
        } else {
            assert_non_null(strstr(e.msg, "d.duet"));
            refused_flips++;
        }
        assert_int_equal(pwrite(fd, &good[i], 1, (off_t)i), 1);
    }
    close(fd);
    assert_true(refused_flips > n / 2);
    free(good);
}

static void refuses_cut_files(void **state)
{
    save(*state);
    size_t n;
    char *good = fio_read_all(in_dir("d.duet"), 1 << 20, &n, NULL);
    assert_non_null(good);
    for (size_t len = 1; len < n; len += 37) {
        write_bytes("cut.duet", good, len);
        assert_null(dataset_open(in_dir("cut.duet"), NULL));
    }
    free(good);
    assert_null(dataset_open(in_dir("missing.duet"), NULL));
}

static void refused_save(struct world *w, const char *part)
{
    struct err err = {0};
    assert_false(dataset_save(&w->d, NULL, in_dir("bad.duet"), &err));
    if (!strstr(err.msg, part))
        fail_msg("found \"%s\", want \"%s\" in it", err.msg, part);
    assert_false(fio_exists(in_dir("bad.duet")));
}

static void names_what_does_not_fit(void **state)
{
    struct world *w = *state;
    w->train_item[2] = 3;
    refused_save(w, "train.item: row 2 names item 3");
    w->train_item[2] = 1;
    w->train_off[1] = 4;
    refused_save(w, "train.off: offset of user 2 goes backwards");
    w->train_off[1] = 2;
    w->train_time[1] = 4;
    refused_save(w, "train.time: row 1 of user 0 goes backwards");
    w->train_time[1] = 6;
    w->test_item[0] = 1;
    refused_save(w, "test: user 0 has item 1 twice");
    w->test_item[0] = 2;
    w->item_count[0] = 9;
    refused_save(w, "item_count: item 0 has 9");
    w->item_count[0] = 1;
    w->user_x[1] = 1;
    refused_save(w, "id slot of row 1 holds 1");
    w->user_x[1] = 2;
    w->item_x[1] = 7;
    refused_save(w, "items");
    w->item_x[1] = 1;
    w->item_category[1] = 2;
    refused_save(w, "category_of: item 1 has category 2");
    w->item_category[1] = 0;
    w->user_held[0] = 2;
    refused_save(w, "user_held_out: row 0 holds 2");
    w->user_held[0] = 0;
    w->d.test.time = NULL;
    refused_save(w, "times must be in all splits");
    w->d.test.time = w->test_time;
    strcpy(w->attr[0].name, "");
    refused_save(w, "attribute 0 has an empty name");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_what_was_written, make_world, free_world),
        cmocka_unit_test_setup_teardown(pages_are_fetched_without_their_neighbours, make_world, free_world),
        cmocka_unit_test_setup_teardown(times_may_be_missing, make_world, free_world),
        cmocka_unit_test_setup_teardown(refuses_flipped_bits, make_world, free_world),
        cmocka_unit_test_setup_teardown(refuses_cut_files, make_world, free_world),
        cmocka_unit_test_setup_teardown(names_what_does_not_fit, make_world, free_world),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
