/* If this fails, a lack of memory while keys are read or an exposure log is opened is a crash, a leak, or passes for success. */
#include "tests/core/support.h"

#include "server/api_keys.h"
#include "server/exposure.h"

static const char keys[] = "keys:\n"
                           "  - {name: web, sha256: \"4813494d137e1631bba301d5acab6e7bb7aa74ce1185d456565ef51d737677b2\", requests_per_s: 5, burst: 9}\n"
                           "  - {name: batch, sha256: \"a665a45920422f9d417e4867efdc4fb8a04a1f3fff1fa07e998e86f7f7a27ae3\"}\n";

static const char *path_of_keys;

static void *make_keys(struct metrics *m, struct err *e)
{
    struct api_key_table *t = api_key_table_read(path_of_keys, e);
    return t ? api_keys_new(t, 2, m, e) : NULL;
}

static void drop_keys(void *k)
{
    api_keys_free(k);
}

static struct log quiet = {.fd = -1, .level = LOG_ERROR + 1};
static const char *path_of_log;

static void *make_exposure(struct metrics *m, struct err *e)
{
    struct exposure_params p = {.path = path_of_log, .max_bytes = 1 << 20, .keep = 2, .kafka = {"", "", ""}, .n_rings = 2, .sample = 1, .metrics = m, .log = &quiet};
    return exposure_new(&p, e);
}

static void drop_exposure(void *x)
{
    exposure_free(x);
}

/* Each allocation of `make` in turn. Registering a metric never fails its caller, so what is made may also be whole. */
static size_t starve(void *(*make)(struct metrics *, struct err *), void (*drop)(void *))
{
    size_t refused = 0;
    for (size_t n = 1;; n++) {
        struct err e = {0};
        struct metrics *m = metrics_new(2, &e);
        assert_ok(m, &e);
        alloc_fail_at(n);
        void *made = make(m, &e);
        bool failed = alloc_failed();
        alloc_fail_at(0);
        if (!made && (!failed || e.code != ERR_NOMEM))
            fail_msg("allocation %zu: %s: %s", n, err_name(e.code), e.msg);
        assert_true(!made || e.code == ERR_OK);
        drop(made);
        metrics_free(m);
        refused += !made;
        if (!failed)
            return refused;
    }
}

static void keys_without_memory(void **state)
{
    path_of_keys = tmp_path(state, "keys");
    put_file(path_of_keys, keys, sizeof(keys) - 1);
    assert_true(starve(make_keys, drop_keys) > 5);
}

static void exposures_without_memory(void **state)
{
    path_of_log = tmp_path(state, "exposures");
    assert_true(starve(make_exposure, drop_exposure) > 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(keys_without_memory, tmp_setup, tmp_teardown),
                                       cmocka_unit_test_setup_teardown(exposures_without_memory, tmp_setup, tmp_teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
