/* Every allocation of `duet prepare` fails once: each time there must be an error, no leak (the sanitizers tell) and no
 * file. If this fails, a machine short of memory gives a crash or a wrong dataset instead of a message. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "prepare_util.h"

static long countdown = -1; // allocations until one fails; < 0: none does

// The linker sends our libraries' calls here (--wrap). Freeing needs no wrapper.
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

static bool fails(void)
{
    return countdown >= 0 && countdown-- == 0;
}

void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return fails() ? NULL : __real_realloc(p, n);
}

static void survives(const struct prepare_params *p)
{
    long n = 0;
    for (bool done = false; !done; n++) {
        struct err err = {0};
        struct prepare_report report;
        countdown = n;
        bool ok = prepare_run(p, &report, &err);
        done = countdown >= 0; // all allocations were done before one was to fail
        countdown = -1;
        if (done && !ok)
            fail_msg("%s", err.msg);
        if (ok && !done)
            fail_msg("allocation %ld failed and nobody noticed", n);
        if (ok)
            continue;
        if (err.code != ERR_NOMEM)
            fail_msg("allocation %ld: \"%s\", want an error of code ERR_NOMEM", n, err.msg);
        assert_false(fio_exists(p->out));
    }
    assert_true(n > 50);
    print_message("%ld allocations\n", n - 1);
}

static void reading_csv(void **state)
{
    (void)state;
    write_text("interactions.csv",
               "user_id,item_id,timestamp\nu1,a,1\nu1,b,2\nu1,\"c\",3\nu1,d,4\nu2,a,1\nu2,b,9\nu2,d,3\n");
    write_text("users.csv", "user_id,city,age\nu1,SH,20\nu2,BJ,30\n");
    write_text("items.csv", "item_id,title,price,category,tags\na,A,5,food,x|y\nb,B,50,food,y\nc,C,500,hotel,z\n");
    struct prepare_params p = params();
    p.log.k_core_user = 2;
    p.log.hold_out = 0.3;
    survives(&p);
}

static void reading_json_and_yaml(void **state)
{
    (void)state;
    write_text("r.json", "{\"reviewerID\": \"A\", \"asin\": \"1\"}\n{\"reviewerID\": \"A\", \"asin\": \"2\"}\n");
    write_text("meta.json", "{\"asin\": \"1\", \"title\": \"T\", \"price\": 5}\n");
    write_text("schema.yaml", "user: {user_id: id}\nitem: {item_id: id, price: {kind: numeric, bounds: [1, 2]}}\n");
    struct prepare_params p = params();
    p.schema = in_dir("schema.yaml");
    p.layout = "amazon"; // telling it by a first line that cannot be read would only find nothing
    survives(&p);
}

static void reading_lines(void **state)
{
    (void)state;
    write_text("users.dat", "1::F::1::10::48067\n");
    write_text("movies.dat", "1::Mis\xe9rables (1995)::Animation|Comedy\n2::B (1996)::Drama\n");
    write_text("ratings.dat", "1::1::5::978300760\n1::2::3::978302109\n");
    struct prepare_params p = params();
    survives(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reading_csv, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(reading_json_and_yaml, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(reading_lines, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
