/* If this fails, people without a schema file train on titles and row numbers, or lose the columns that tell. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "prepare_util.h"

#define ROWS 120

/* One item column, `value(i)` of each of 120 items, with a log in which each of them occurs. */
static void write_column(const char *name, const char *(*value)(int))
{
    FILE *f = fopen(in_dir("items.csv"), "w"), *log = fopen(in_dir("interactions.csv"), "w");
    assert_non_null(f);
    assert_non_null(log);
    fprintf(f, "item_id,%s\n", name);
    fprintf(log, "user_id,item_id\n");
    for (int i = 0; i < ROWS; i++) {
        fprintf(f, "i%d,%s\n", i, value(i));
        for (int u = 0; u < 2; u++) // two users: the random split leaves one training row at least for most
            fprintf(log, "u%d-%d,i%d\n", u, i / 2 * 2 / 4, i);
    }
    assert_int_equal(fclose(f), 0);
    assert_int_equal(fclose(log), 0);
}

static char text[64];

static const char *amount(int i)
{
    snprintf(text, sizeof(text), "%d.5", i * i);
    return i % 10 == 3 ? "" : text;
}

static const char *rough(int i)
{
    return i == 50 ? "DK Publishing" : amount(i);
}

static const char *rougher(int i)
{
    return i % 10 == 0 ? "DK Publishing" : amount(i);
}

static const char *code(int i)
{
    snprintf(text, sizeof(text), "%d", i % 20);
    return text;
}

static const char *colour(int i)
{
    static const char *const colours[] = {"red", "green", "blue", "black"};
    return colours[i % 4];
}

static const char *serial(int i)
{
    snprintf(text, sizeof(text), "AB-%d", i);
    return text;
}

static const char *author(int i)
{
    snprintf(text, sizeof(text), "Author %d", i < 90 ? i / 3 : i); // 30 wrote three items each, 30 one
    return text;
}

static const char *tags(int i)
{
    return i % 3 == 0 ? "a|b|c" : i % 3 == 1 ? "b" : "c|d";
}

static const char *nothing(int i)
{
    (void)i;
    return "";
}

static void has_kind(const char *name, const char *(*value)(int), enum field_kind want)
{
    write_column(name, value);
    struct dataset *d = prepared();
    const struct schema_field *f = field_of(&d->schema->item, name);
    if (f->kind != want)
        fail_msg("%s: kind %d, want %d", name, f->kind, want);
    assert_string_equal(d->attr[0].name, name); // whatever it is, answers can show it
    dataset_close(d);
}

static void looks_at_values(void **state)
{
    (void)state;
    has_kind("price", amount, FIELD_NUMERIC);
    has_kind("year", rough, FIELD_NUMERIC);
    has_kind("size", rougher, FIELD_DISPLAY); // neither numbers nor values that items share
    has_kind("occupation", code, FIELD_CATEGORICAL);
    has_kind("colour", colour, FIELD_CATEGORICAL);
    has_kind("serial", serial, FIELD_DISPLAY);
    has_kind("author", author, FIELD_CATEGORICAL);
    has_kind("tags", tags, FIELD_MULTI);
    has_kind("empty", nothing, FIELD_DISPLAY);
}

static void looks_at_names_first(void **state)
{
    (void)state;
    has_kind("title", colour, FIELD_DISPLAY);
    has_kind("Title", colour, FIELD_DISPLAY);
    has_kind("imdb_id", code, FIELD_DISPLAY);
    has_kind("image_url", colour, FIELD_DISPLAY);
    has_kind("zip", code, FIELD_DISPLAY);
    has_kind("category", code, FIELD_CATEGORICAL);
    has_kind("paid", colour, FIELD_CATEGORICAL); // ends in "id", not in "_id"
}

static void finds_category_and_segments(void **state)
{
    (void)state;
    write_column("class", colour);
    write_text("users.csv", "user_id,age,city,gender\nu0-0,1,SH,f\nu1-0,2,SH,f\n");
    struct dataset *d = prepared();
    assert_true(field_of(&d->schema->item, "class")->category);
    assert_int_equal(d->schema->item.segment_field, 1);
    assert_int_equal(d->category.n, 5);
    assert_string_equal(category_of(d, "i1"), "green");
    assert_int_equal(d->schema->user.segment_field, 2); // city: the ages are all different
    dataset_close(d);
    write_column("colour", colour);
    d = prepared();
    assert_null(schema_category(&d->schema->item));
    assert_int_equal(d->schema->item.segment_field, -1);
    assert_int_equal(d->category.n, 1);
    dataset_close(d);
}

/* A value of one item says no more than the item's id; authors of one book share the row of the unknown. */
static void single_values_are_unknown(void **state)
{
    (void)state;
    write_column("author", author);
    struct dataset *d = prepared();
    const struct schema_field *f = field_of(&d->schema->item, "author");
    assert_in_range(f->n_rows, 20, 31);
    assert_int_equal(d->item_x[(size_t)find_id(&d->item_id, "i119") * d->schema->item.n_slots + f->slot], 0);
    dataset_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(looks_at_values, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(looks_at_names_first, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(finds_category_and_segments, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(single_values_are_unknown, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
