/* If this fails, a schema that a person wrote means something else to the program, or a slip in it passes unseen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "prepare_util.h"

static int make_data(void **state)
{
    if (make_dir(state) != 0)
        return -1;
    write_text(
        "interactions.csv",
        "user_id,item_id,split\nu1,a,train\nu1,b,train\nu1,c,valid\nu1,d,test\nu2,a,train\nu2,b,train\nu2,d,train\n");
    write_text("users.csv", "user_id,city,age\nu1,SH,20\nu2,BJ,30\n");
    write_text("items.csv",
               "item_id,title,price,class,tags\na,A,5,food,x;y\nb,B,50,food,y\nc,C,500,hotel,z\nd,D,,food,\n");
    return 0;
}

static const char good[] = "user:\n  user_id: id\n  city: categorical\n"
                           "item:\n  item_id: {kind: id, min_count: 2}\n  title: display\n"
                           "  price: {kind: numeric, bounds: [10, 100]}\n"
                           "  class: {kind: categorical, category: true, min_count: 2}\n"
                           "  tags: {kind: multi, sep: \";\"}\n";

static struct prepare_params with_schema(const char *yaml)
{
    write_text("schema.yaml", yaml);
    struct prepare_params p = params();
    p.schema = in_dir("schema.yaml");
    return p;
}

static uint32_t slot(const struct dataset *d, const char *item, const char *field, uint32_t j)
{
    const struct schema_side *side = &d->schema->item;
    return d->item_x[(size_t)find_id(&d->item_id, item) * side->n_slots + field_of(side, field)->slot + j];
}

static void means_what_it_says(void **state)
{
    (void)state;
    struct prepare_params p = with_schema(good);
    struct dataset *d = prepared_with(&p, NULL);
    assert_int_equal(d->schema->user.n_fields, 2); // age is not named: no feature
    assert_int_equal(slot(d, "a", "item_id", 0), 1);
    assert_int_equal(slot(d, "d", "item_id", 0), 0); // one training interaction, two wanted
    assert_int_equal(slot(d, "c", "item_id", 0), 0);
    assert_int_equal(slot(d, "a", "price", 0), 1);
    assert_int_equal(slot(d, "b", "price", 0), 2);
    assert_int_equal(slot(d, "c", "price", 0), 3);
    assert_int_equal(slot(d, "d", "price", 0), 0);                    // missing
    assert_int_equal(field_of(&d->schema->item, "class")->n_rows, 2); // hotel is rare
    assert_int_equal(slot(d, "c", "class", 0), 0);
    assert_string_equal(category_of(d, "c"), "hotel");               // and still its name is kept
    assert_int_equal(field_of(&d->schema->item, "tags")->n_rows, 3); // z occurs in no trained item
    assert_int_equal(field_of(&d->schema->item, "tags")->n_slots, 2);
    assert_int_equal(slot(d, "a", "tags", 0), 1);
    assert_int_equal(slot(d, "a", "tags", 1), 2);
    assert_int_equal(slot(d, "b", "tags", 0), 2);
    assert_int_equal(slot(d, "b", "tags", 1), SLOT_EMPTY);
    assert_int_equal(d->schema->item.segment_field, 3); // the category, since none is named
    assert_int_equal(d->n_attrs, 4);
    dataset_close(d);
}

static void numeric_buckets_are_quantiles(void **state)
{
    (void)state;
    FILE *f = fopen(in_dir("items.csv"), "w"), *log = fopen(in_dir("interactions.csv"), "w");
    assert_non_null(f);
    assert_non_null(log);
    fprintf(f, "item_id,price\n");
    fprintf(log, "user_id,item_id,split\nu1,0,test\n");
    for (int i = 0; i < 100; i++) {
        fprintf(f, "%d,%d\n", i, i * i);
        fprintf(log, "u%d,%d,train\n", i % 2 + 1,
                i == 0 ? 1 : i); // item 0 is only in the test: its price is not learnt from
    }
    fclose(f);
    fclose(log);
    struct prepare_params p = with_schema("user: {user_id: id}\nitem:\n  price: {kind: numeric, buckets: 4}\n");
    struct dataset *d = prepared_with(&p, NULL);
    const struct schema_field *price = field_of(&d->schema->item, "price");
    assert_int_equal(price->n_rows, 5);
    uint32_t n[5] = {0};
    for (int i = 1; i < 100; i++) {
        char id[8];
        snprintf(id, sizeof(id), "%d", i);
        n[slot(d, id, "price", 0)]++;
    }
    assert_int_equal(n[0], 0);
    for (int b = 1; b < 5; b++)
        assert_in_range(n[b], 20, 28);
    dataset_close(d);
}

static void refused_yaml(const char *yaml, const char *part)
{
    struct prepare_params p = with_schema(yaml);
    refused_with(&p, part);
}

static void names_slips(void **state)
{
    (void)state;
    refused_yaml("user: {user_id: id}\nitems: {item_id: id}\n",
                 "schema.yaml:2:1: unknown key \"items\"; did you mean \"item\"?");
    refused_yaml("user: {user_id: id}\n", "no fields of the item");
    refused_yaml("user: {uid: id}\nitem: {item_id: id}\n", "the field of kind id is \"uid\", want \"user_id\"");
    refused_yaml("user: {user_id: id}\nitem: {titel: display}\n",
                 "schema.yaml:2:8: unknown item column \"titel\"; did you mean \"title\"?");
    refused_yaml("user: {user_id: id}\nitem: {title: text}\n",
                 "unknown kind \"text\"; want one of id, categorical, numeric, multi, display");
    refused_yaml("user: {user_id: id}\nitem: {title: {category: true}}\n", "field \"title\" has no kind");
    refused_yaml("user: {user_id: id}\nitem: {class: {kind: categorical, mincount: 2}}\n",
                 "unknown key \"mincount\"; did you mean \"min_count\"?");
    refused_yaml("user: {user_id: id}\nitem: {class: {kind: categorical, sep: \"|\"}}\n",
                 "sep has no meaning for a field of kind categorical");
    refused_yaml("user: {user_id: id}\nitem: {tags: {kind: multi, sep: \", \"}}\n",
                 "sep is \", \", want one printable ASCII character");
    refused_yaml("user: {user_id: id}\nitem: {price: {kind: numeric, bounds: [5, 5]}}\n",
                 "bound 5 is not above the one before");
    refused_yaml("user: {user_id: id}\nitem: {price: {kind: numeric, bounds: []}}\n", "want a list of 1 to");
    refused_yaml("user: {user_id: id}\nitem: {price: {kind: numeric, buckets: 0}}\n", "found 0, want 1 to");
    refused_yaml("user: {city: {kind: categorical, category: true}}\nitem: {item_id: id}\n",
                 "only items have a category");
    refused_yaml("user: {user_id: id}\nitem:\n  class: {kind: categorical, category: true}\n  tags: {kind: "
                 "categorical, category: true}\n",
                 "\"class\" and \"tags\" are both the category");
    refused_yaml("user: [user_id]\nitem: {item_id: id}\n", "want a mapping from columns to kinds");
    refused_yaml("- user\n", "want a mapping with the keys user and item");
    struct prepare_params p = params();
    p.schema = in_dir("no.yaml");
    refused_with(&p, "no.yaml");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(means_what_it_says, make_data, remove_dir),
        cmocka_unit_test_setup_teardown(numeric_buckets_are_quantiles, make_data, remove_dir),
        cmocka_unit_test_setup_teardown(names_slips, make_data, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
