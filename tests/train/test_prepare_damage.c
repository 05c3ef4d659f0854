/* Inputs with bytes changed, dropped and doubled at random: an error or a dataset, never a crash (the sanitizers tell).
 * If this fails, a file that somebody else wrote can bring the program down. The seed is printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/base/rng.h"
#include "prepare_util.h"

#define SEED 20250101
#define ROUNDS 80

struct input {
    const char *name, *text;
};

static void damage(struct rng *rng, const struct input *in)
{
    static const char bytes[] = "\",\n\r|:{}[]\t \\0-.e\xe9\xff\xc3'";
    char text[4096];
    size_t n = strlen(in->text);
    memcpy(text, in->text, n);
    for (uint32_t hits = 1 + rng_below(rng, 3); hits > 0; hits--) {
        size_t at = rng_below(rng, (uint32_t)n), len = 1 + rng_below(rng, 8);
        len = at + len > n ? n - at : len;
        switch (rng_below(rng, 3)) {
        case 0:
            text[at] = bytes[rng_below(rng, sizeof(bytes))]; // its NUL too
            break;
        case 1: // drop
            memmove(text + at, text + at + len, n - at - len);
            n -= len;
            break;
        default: // double
            memmove(text + at + len, text + at, n - at);
            n += len;
        }
        if (n == 0)
            n = 1;
    }
    write_bytes(in->name, text, n);
}

static void survives(const struct input *in, size_t n_inputs, const char *layout, const char *schema)
{
    struct rng rng;
    uint32_t ok = 0;
    rng_init(&rng, SEED);
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < n_inputs; i++)
            write_text(in[i].name, in[i].text);
        damage(&rng, &in[rng_below(&rng, (uint32_t)n_inputs)]);
        struct prepare_params p = params();
        struct prepare_report report;
        struct err err = {0};
        p.layout = layout;
        p.schema = schema;
        p.skip_bad = round % 2 ? 100 : 0;
        bool good = prepare_run(&p, &report, &err);
        if (!good && err.msg[0] == '\0')
            fail_msg("round %d: refused without a word", round);
        ok += good;
        struct dataset *d = good ? dataset_open(p.out, &err) : NULL;
        if (good && !d)
            fail_msg("round %d: wrote what cannot be read: %s", round, err.msg);
        dataset_close(d);
    }
    print_message("seed %d: %u of %d rounds went through\n", SEED, ok, ROUNDS);
    assert_true(ok > 0 && ok < ROUNDS);
}

static void csv_and_yaml(void **state)
{
    (void)state;
    static const struct input in[] = {
        {"interactions.csv",
         "user_id,item_id,value,timestamp\nu1,a,1,1\nu1,b,2,2\nu1,\"c\",3,3\nu1,d,1,4\nu2,a,1,1\nu2,\"b\"\"\",9,9\n"},
        {"items.csv", "item_id,title,price,category,tags\na,A,5,food,x|y\nb,\"B,b\",50,food,y\nc,C,500,hotel,z\n"},
        {"s.yaml",
         "user: {user_id: id}\nitem:\n  item_id: {kind: id, min_count: 1}\n  price: {kind: numeric, bounds: [1, 20]}\n"
         "  category: {kind: categorical, category: true}\n  tags: {kind: multi, sep: \"|\"}\n"},
    };
    survives(in, 3, "generic", in_dir("s.yaml"));
}

static void lines_of_fields(void **state)
{
    (void)state;
    static const struct input in[] = {
        {"users.dat", "1::F::1::10::48067\n2::M::2::1::1\n"},
        {"movies.dat", "1::Mis\xe9rables (1995)::Animation|Comedy\n2::B (1996)::Drama\n"},
        {"ratings.dat", "1::1::5::978300760\n1::2::3::978302109\n2::2::1::5\n"},
    };
    survives(in, 3, "ml-1m", NULL);
}

static void json_lines(void **state)
{
    (void)state;
    static const struct input in[] = {
        {"r.json", "{\"reviewerID\": \"A\", \"asin\": \"1\", \"overall\": 5.0, \"unixReviewTime\": 5}\n{\"user_id\": "
                   "\"A\", \"parent_asin\": \"2\"}\n"},
        {"meta.json",
         "{\"asin\": \"1\", \"title\": \"T\", \"price\": \"$5,1\", \"categories\": [[\"Books\", \"Law\"]]}\n"},
    };
    survives(in, 2, "amazon", NULL);
}

static void words(void **state)
{
    (void)state;
    static const struct input in[] = {{"train.txt", "0 1 2 3\n1 2 3\n"},
                                      {"test.txt", "0 4\n1 1\n"},
                                      {"item_list.txt", "org_id remap_id\nB1 1\nB2 2\n"}};
    survives(in, 3, "lightgcn", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(csv_and_yaml, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(lines_of_fields, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(json_lines, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(words, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
