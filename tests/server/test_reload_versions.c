/* Which versions are tried, and again when. If this fails, a good version is passed by, a broken one is tried for ever, or the reason is lost. */
#include "tests/core/support.h"

#include <time.h>

#include "core/base/fio.h"
#include "core/base/utf8.h"
#include "server/reload_priv.h"
#include "tests/core/world.h"

struct fixture {
    const char *repository; // with model m, versions 1 and 2
    char path[PATH_MAX], state_path[PATH_MAX];
    struct generations *g;
    struct state *state;
    struct reloads *rl;
    struct log log;
};
static struct fixture f;

static void publish(uint64_t version)
{
    struct err e = {0};
    struct world *w = world_new(&(struct world_params){.kind = MODEL_DAT, .seed = version, .n_items = 60, .n_users = 12});
    const struct publish_params p = {.repository = f.repository, .name = "m", .version = version, .threads = 1};
    assert_ok(bundle_publish(&w->in, &p, &version, NULL, &e), &e);
    world_free(w);
}

static void damage(uint64_t version, const char *file)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof(path), "%s/%llu/%.30s", f.path, (unsigned long long)version, file);
    flip_bit(path, 200, 1);
}

static int setup(void **state)
{
    tmp_setup(state);
    f = (struct fixture){.repository = *state, .log = {.fd = -1, .level = LOG_ERROR + 1}};
    snprintf(f.path, sizeof(f.path), "%s/m", f.repository);
    snprintf(f.state_path, sizeof(f.state_path), "%s/state.json", f.repository);
    publish(1);
    publish(2);
    return 0;
}

static void start(const struct reload_model *m, unsigned poll_ms)
{
    struct err e = {0};
    const char *names[] = {m->name};
    assert_ok(f.g = generations_new(names, 1, &e), &e);
    assert_ok(f.state = state_open(f.state_path, &e), &e);
    const struct reload_params p = {.generations = f.g,
                                    .state = f.state,
                                    .log = &f.log,
                                    .workspaces = 1,
                                    .poll_ms = poll_ms};
    assert_ok(f.rl = reloads_new(&p, m, 1, &e), &e);
    assert_ok(reloads_start(f.rl, &e), &e);
}

static void stop(void)
{
    reloads_free(f.rl);
    generations_free(f.g);
    state_free(f.state);
    f.rl = NULL;
}

static int teardown(void **state)
{
    if (f.rl)
        stop();
    return tmp_teardown(state);
}

static void wait_a_little(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

/* Of the first model, as the admin API shows it; new reference. */
static json_t *shown(const char *what)
{
    json_t *o = reloads_models(f.rl), *v = json_incref(json_object_get(json_array_get(json_object_get(o, "models"), 0), what));
    json_decref(o);
    return v;
}

static size_t n_quarantined(void)
{
    json_t *v = shown("quarantined");
    size_t n = json_array_size(v);
    json_decref(v);
    return n;
}

static void until_idle(void)
{
    for (int i = 0; i < 10000; i++) {
        json_t *o = reloads_operations(f.rl), *first = json_array_get(json_object_get(o, "operations"), 0);
        const char *state = json_string_value(json_object_get(first, "state"));
        bool idle = state && (strcmp(state, "succeeded") == 0 || strcmp(state, "failed") == 0);
        json_decref(o);
        if (idle)
            return;
        wait_a_little();
    }
    fail_msg("an operation does not end");
}

static uint64_t serving(void)
{
    const struct generation *g = generation_acquire(f.g);
    uint64_t v = g->model[0].loaded ? g->model[0].loaded->bundle->manifest.version : 0;
    generation_release(f.g, g);
    return v;
}

// ------------------------------------------------------------------------------------------------------- quarantine

/* What is refused in one layout may serve in another: who changes the configuration waits for no new folder. */
static void a_version_is_barred_for_the_layout_it_failed_in(void **state)
{
    (void)state;
    struct err e = {0};
    struct reload_model m = {.name = "m", .path = f.path, .index_layout = "compact"};
    damage(2, "compact.hnsw"); // which the plain layout does not read
    start(&m, 0);
    until_idle();
    assert_int_equal(serving(), 1);
    assert_int_equal(n_quarantined(), 1);
    m.index_layout = "plain";
    assert_ok(reloads_set_models(f.rl, &m, 1, &e), &e);
    until_idle();
    assert_int_equal(serving(), 2);
    assert_int_equal(n_quarantined(), 0);
    stop();
    m.index_layout = "compact";
    start(&m, 0);
    until_idle();
    assert_int_equal(serving(), 1);
    stop();
    m.index_layout = "plain"; // over a restart too
    start(&m, 0);
    until_idle();
    assert_int_equal(serving(), 2);
}

static size_t kept(const char *model)
{
    struct quarantined q[QUARANTINED_MAX];
    return state_quarantine(f.state, model, q);
}

/* Else the state file grows by every model there ever was. */
static void models_that_are_gone_have_none(void **state)
{
    (void)state;
    struct err e = {0};
    const struct quarantined old = {.version = 7, .folder = 1, .since = 1, .reason = "cut"};
    const struct reload_model m = {.name = "m", .path = f.path}, other = {.name = "other", .path = f.path, .version = 1};
    assert_ok(f.state = state_open(f.state_path, &e), &e);
    assert_ok(state_set_quarantine(f.state, "long_gone", &old, 1, &e) && state_set_quarantine(f.state, "m", &old, 1, &e), &e);
    state_free(f.state);
    start(&m, 0);
    until_idle();
    assert_int_equal(kept("long_gone"), 0);
    assert_int_equal(kept("m"), 1);
    const char *names[] = {"other"};
    assert_ok(generation_swap_names(f.g, names, 1, experiment_table_new(&e), NULL, NULL, &e), &e);
    assert_ok(reloads_set_models(f.rl, &other, 1, &e), &e);
    for (int i = 0; kept("m") && i < 10000; i++)
        wait_a_little();
    stop();
    assert_ok(f.state = state_open(f.state_path, &e), &e);
    assert_int_equal(kept("m") + kept("long_gone"), 0);
    state_free(f.state);
}

static void expect_text(const char *reason, size_t least)
{
    if (!utf8_valid(reason, strlen(reason)) || strlen(reason) < least || strchr(reason, '?') || strstr(reason, "not UTF-8"))
        fail_msg("\"%s\"", reason);
}

/* A reason that is too long ends with a whole character, wherever that is: JSON would have none of it. */
static void reasons_are_cut_between_characters(void **state)
{
    (void)state;
    struct err e = {0};
    char wide[401] = "", long_path[PATH_MAX];
    for (size_t i = 0; i < 400; i += 2)
        memcpy(wide + i, "\xc3\xa9", 2);
    damage(1, "users.pack");
    damage(2, "users.pack");
    for (int at = 0; at < 2; at++) { // one of the two would be cut inside
        snprintf(long_path, sizeof(long_path), "%s/%s%.240s", f.repository, at ? "x" : "", wide);
        assert_int_equal(rename(f.path, long_path), 0);
        start(&(struct reload_model){.name = "m", .path = long_path}, 0);
        until_idle();
        const struct rmodel *m = reload_find(f.rl, "m");
        expect_text(reload_quarantine_reason(m, 2), 200);
        const struct generation *g = generation_acquire(f.g);
        expect_text(g->model[0].degraded, 100);
        generation_release(f.g, g);
        char id[OPERATION_ID_MAX];
        assert_ok(reloads_submit(f.rl, OPERATION_RELOAD, "m", 0, "", id, &e), &e);
        until_idle();
        json_t *v = shown("last_error");
        expect_text(json_string_value(v), 300);
        assert_non_null(strstr(json_string_value(v), "that may be tried: version 2"));
        json_decref(v);
        reload_quarantine(f.rl, reload_find(f.rl, "m"), 9, long_path, at ? wide : wide + 2);
        expect_text(reload_quarantine_reason(m, 9), 250);
        stop();
        assert_int_equal(remove(f.state_path), 0);
        assert_int_equal(rename(long_path, f.path), 0);
    }
}

// ------------------------------------------------------------------------------------------------------- retry

/* SIGHUP is how an operator says that something has changed: there may be room now. */
static void a_new_configuration_ends_the_pause(void **state)
{
    (void)state;
    struct err e = {0};
    const struct reload_model m = {.name = "m", .path = f.path};
    const struct operation failed = {.kind = OPERATION_RELOAD, .state = OPERATION_FAILED, .polled = true, .version = 9, .code = "insufficient_memory"};
    start(&m, 3600000); // nothing is looked for meanwhile
    until_idle();
    pthread_mutex_lock(&f.rl->lock);
    for (int i = 0; i < 3; i++)
        reload_put_off(f.rl, reload_find(f.rl, "m"), &failed);
    pthread_mutex_unlock(&f.rl->lock);
    json_t *r = shown("retry");
    assert_int_equal(json_integer_value(json_object_get(r, "failures")), 3);
    json_decref(r);
    assert_ok(reloads_set_models(f.rl, &m, 1, &e), &e);
    r = shown("retry");
    assert_true(json_is_null(r));
    json_decref(r);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_version_is_barred_for_the_layout_it_failed_in),
        TEST(models_that_are_gone_have_none),
        TEST(reasons_are_cut_between_characters),
        TEST(a_new_configuration_ends_the_pause),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
